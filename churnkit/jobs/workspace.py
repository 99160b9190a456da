"""An open workspace: held by one process, its doors (tables, store, registry, outbox), and the files of a day."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from churnkit.errors import BusyError, FeatureError, SettingsError
from churnkit.settings import Settings, load

if TYPE_CHECKING:
    import pandas as pd

    from churnkit.learning.registry import Registry
    from churnkit.learning.targets import Target
    from churnkit.outreach.crm.base import Crm
    from churnkit.outreach.outbox import Outbox
    from churnkit.signals.store import Store
    from churnkit.signals.tables import Tables

log = logging.getLogger("churnkit")


@contextlib.contextmanager
def workspace(folder: Path) -> Iterator[Settings]:
    """The settings of a workspace, held by this process alone while the block runs.

    Raises:
        BusyError: If another process holds it.
    """
    from filelock import FileLock, Timeout

    settings = load(folder)
    lock = FileLock(settings.state / "run.lock")
    try:
        settings.state.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyError(f"Another churnkit run holds '{settings.root}'. Wait until it ends, then run this "
                        "again.") from None
    except OSError as error:
        raise SettingsError(f"'{settings.state}' cannot be written ({error.strerror}). Make it a folder that this user "
                            "may write to.") from None
    try:
        yield settings
    finally:
        lock.release()


NOW: ContextVar[dt.datetime | None] = ContextVar("now", default=None)
"""The time of the run, as the command read it off the clock: later rows than this are impossible. Not data time."""


def read(settings: Settings, at: dt.datetime) -> Tables:
    """The workspace's raw tables, validated as of `at`."""
    from churnkit.signals.tables import read_tables

    log.info("reading the raw tables of %s", settings.root)
    return read_tables(settings, at=at, now=NOW.get())


def targets(settings: Settings, tables: Tables) -> list[Target]:
    """The targets that the workspace asks for and its tables can feed."""
    from churnkit.learning.targets import TARGETS, configured

    able = {"churn": tables.has("subscriptions") or tables.has("usage_events"),
            "expansion": tables.has("subscriptions"), "maintenance": tables.has("asset_events")}
    wanted = [name for name in TARGETS if name not in settings.targets or settings.targets[name].enabled]
    return [configured(TARGETS[name], settings) for name in wanted if able[name]]


def entities(tables: Tables) -> list[str]:
    """The entities that the tables tell of."""
    return ["account", "asset"] if tables.has("assets") else ["account"]


def open_store(settings: Settings) -> Store:
    """The workspace's feature store."""
    from churnkit.signals.store import Store

    return Store(settings.path(settings.store), settings)


def open_registry(settings: Settings) -> Registry:
    """The workspace's model registry."""
    from churnkit.learning.registry import Registry

    return Registry(settings.url(settings.mlflow), settings.state / "artifacts")


def open_outbox(settings: Settings) -> Outbox:
    """The workspace's outbox."""
    from churnkit.outreach.outbox import Outbox

    return Outbox(settings.url(settings.outbox))


def open_crm(settings: Settings) -> Crm:
    """The workspace's CRM."""
    from churnkit.outreach.crm.base import connect

    return connect(settings.crm, settings.crm_options, settings.root)


def save(settings: Settings, what: str, target: str, at: dt.datetime, frame: pd.DataFrame) -> None:
    """One parquet file per target and cutoff, whole or not at all."""
    path = file_of(settings, what, target, at)
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".part")
    frame.to_parquet(half, index=False)
    half.replace(path)


def file_of(settings: Settings, what: str, target: str, at: dt.datetime) -> Path:
    """Where the scores or reasons of a target at a cutoff are kept."""
    return settings.state / what / target / f"{at:%Y%m%dT%H%M%SZ}.parquet"


def load_day(settings: Settings, what: str, at: dt.datetime) -> pd.DataFrame | None:
    """The scores or reasons of all targets at a cutoff, or None where none were made."""
    import pandas as pd

    frames = [_read_day(file) for file in sorted((settings.state / what).glob(f"*/{at:%Y%m%dT%H%M%SZ}.parquet"))]
    full = [frame for frame in frames if len(frame)]  # an empty one's columns have no types
    return pd.concat(full, ignore_index=True) if full else frames[0] if frames else None


def load_before(settings: Settings, what: str, target: str,
                at: dt.datetime) -> tuple[pd.Timestamp, pd.DataFrame] | None:
    """The newest scores or reasons of a target from before a cutoff, with their own cutoff; None where there are none.

    Raises:
        FeatureError: If that file cannot be read.
    """
    import pandas as pd

    own = file_of(settings, what, target, at)
    older = sorted(file for file in own.parent.glob("*.parquet") if file.name < own.name)
    return (pd.Timestamp(older[-1].stem), _read_day(older[-1])) if older else None


def _read_day(file: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_parquet(file)
    except (OSError, ValueError) as error:
        raise FeatureError(f"'{file}' cannot be read ({str(error).splitlines()[0]}). Delete it and score that day "
                           "again: churnkit score --at DATE.") from None
