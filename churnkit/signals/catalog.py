"""A workspace's own words that become columns: events, sensors, codes, components and plans, found once, then kept."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import ibis
from ibis.expr import types as ir

from churnkit.errors import FeatureError
from churnkit.settings import Settings
from churnkit.signals.own import definitions
from churnkit.signals.tables import Tables

FILE = "catalog.json"
VERSION = 1
TOP_EVENTS, SENSORS, CODES, COMPONENTS = 8, 12, 12, 8
"""How many of each are followed when the settings name none: the commonest ones."""


@dataclass(frozen=True)
class Catalog:
    """What differs from workspace to workspace in the list of features; frozen, so that columns stay what they were."""

    events: tuple[str, ...] = ()
    sensors: tuple[str, ...] = ()
    error_codes: tuple[str, ...] = ()
    components: tuple[str, ...] = ()
    plans: tuple[str, ...] = ()
    addons: tuple[str, ...] = ()
    currency: str = "EUR"
    own: str = field(default="", repr=False)
    """The workspace's own definitions as text (own.py). They stand in files of the user's and may change, so that they
    are not kept with the words."""

    @classmethod
    def load(cls, path: str | Path) -> Catalog:
        """A catalog from its JSON file.

        Raises:
            FeatureError: If the file is missing, no catalog, or written by a newer churnkit.
        """
        path = Path(path)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FeatureError(f"There is no '{path}'. Compute features first: churnkit features --at DATE.") from None
        except (OSError, ValueError) as error:
            raise FeatureError(f"'{path}' cannot be read as JSON ({error}). Restore it, or delete it and compute the "
                               "features again.") from None
        if not isinstance(data, dict) or not isinstance(data.get("schema_version"), int):
            raise FeatureError(f"'{path}' is no catalog of churnkit. Delete it and compute the features again.")
        if data["schema_version"] > VERSION:
            raise FeatureError(f"'{path}' has schema_version {data['schema_version']}, newer than this churnkit knows "
                               f"({VERSION}). Upgrade churnkit.")
        known = {one.name for one in fields(cls)} - {"own"}
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key,
                  value in data.items() if key in known}
        for key, value in values.items():
            words = (value,) if key == "currency" else value
            if not isinstance(words, tuple) or not all(isinstance(word, str) for word in words):
                raise FeatureError(f"'{path}': '{key}' is not what churnkit wrote there. Restore the file, or delete "
                                   "it and compute the features again.")
        return cls(**values)

    def save(self, path: str | Path) -> None:
        """Writes the catalog as JSON, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        words = {name: value for name, value in asdict(self).items() if name != "own"}
        part.write_text(json.dumps({"schema_version": VERSION, **words}, indent=2, ensure_ascii=False) + "\n",
                        encoding="utf-8")
        part.replace(path)


def kept(folder: Path, settings: Settings) -> Catalog | None:
    """The words that a features folder keeps, with the workspace's own definitions as they are now; None before any.

    Raises:
        FeatureError: If the file cannot be read.
        SettingsError: If an own definition is wrong.
    """
    file = folder / FILE
    return replace(Catalog.load(file), own=definitions(settings).text) if file.is_file() else None


def discover(tables: Tables) -> Catalog:
    """The catalog of a workspace: what its settings name, else its commonest words, in a stable order."""
    chosen = tables.settings.features
    events, codes = tables.expr("usage_events"), tables.expr("asset_events")
    subscriptions = tables.expr("subscriptions")
    plans = (subscriptions.filter(subscriptions.plan.notnull()).group_by("plan")
             .aggregate(price=subscriptions.mrr.median()).order_by("price", "plan").to_pandas())
    return Catalog(
        events=_named(chosen.top_events) or _commonest(events, "event", TOP_EVENTS),
        sensors=_named(chosen.sensors) or _commonest(tables.expr("telemetry"), "sensor", SENSORS),
        error_codes=_named(chosen.error_codes) or _commonest(codes.filter(codes.kind == "error"), "code", CODES),
        components=_named(chosen.components) or _commonest(codes.filter(codes.kind != "error"), "code", COMPONENTS),
        plans=_named(chosen.plans) or tuple(plan for plan in plans["plan"] if plan not in chosen.addons),
        addons=tuple(chosen.addons),
        currency=_currency(subscriptions, tables.settings.currency),
        own=definitions(tables.settings).text,
    )


def slugs(words: Iterable[str], reserved: tuple[str, ...] = ()) -> MappingProxyType[str, str]:
    """Each word as a column name's part: [a-z0-9_] alone, no two alike, none that begins with a reserved prefix.

    >>> dict(slugs(["Log in", "log-in", "{}"]))
    {'Log in': 'log_in', 'log-in': 'log_in_2', '{}': 'x'}
    """
    made: dict[str, str] = {}
    taken: set[str] = set()
    for word in words:
        base = re.sub(r"[^a-z0-9]+", "_", word.lower()).strip("_")[:40].strip("_") or "x"
        base = f"x_{base}" if base.startswith(reserved) and reserved else base
        slug, n = base, 1
        while slug in taken:
            n += 1
            slug = f"{base}_{n}"
        taken.add(slug)
        made[word] = slug
    return MappingProxyType(made)


def _currency(subscriptions: ir.Table, default: str) -> str:
    """What the money is in: the subscriptions' own currency where they name a single one."""
    named = subscriptions.select("currency").distinct().to_pandas()["currency"].dropna()
    return str(named.iloc[0]) if len(named) == 1 else default


def _named(words: list[str] | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words or ()))


def _commonest(table: Any, column: str, most: int) -> tuple[str, ...]:
    """The words that a column holds most often; equals in the order of the alphabet; then sorted by the alphabet."""
    table = table.filter(table[column].notnull())
    found = table.group_by(column).aggregate(n=table.count()).order_by(ibis.desc("n"), column).limit(most).to_pandas()
    return tuple(sorted(found[column]))
