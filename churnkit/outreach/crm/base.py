"""What a CRM must be able to do for the sync: a small protocol, its capabilities, and three ways to fail."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from churnkit.errors import OutreachError, SettingsError, did_you_mean
from churnkit.outreach.task import Task


class CrmDownError(OutreachError):
    """Nothing was written: try again after `wait` seconds, but not `today` if the daily quota is spent."""

    def __init__(self, message: str, *, wait: float | None = None, today: bool = True) -> None:
        super().__init__(message)
        self.wait, self.today = wait, today


class CrmUnsureError(OutreachError):
    """The write may have been done or not: a time-out, a dropped line, a 5xx after the request was out."""


class CrmRefusedError(OutreachError):
    """The CRM will never take this: a permanent error. Refers to the whole batch; the engine looks for the row."""


@dataclass(frozen=True)
class Rate:
    """How much a CRM lets itself be asked: `requests` in any span of `seconds`, and `daily` in a day of UTC."""

    requests: int
    seconds: float
    daily: int | None = None


@dataclass(frozen=True)
class Capabilities:
    """What a CRM can do. The engine is right for the weakest combination.

    `unique_keys`: a second create of a key is refused or updates the first. `returns_ids`: a create tells the new id.
    `dismissed`: there is a status for it. `batch` is the most rows in one call, `resolution` how exact its times are.
    `rate` is its limit of requests; a connector that declares one is Metered.
    """

    unique_keys: bool = False
    returns_ids: bool = True
    dismissed: bool = True
    batch: int = 100
    resolution: dt.timedelta = dt.timedelta(seconds=1)
    rate: Rate | None = None


@dataclass(frozen=True)
class Item:
    """One write. `closing` holds the note of a task that churnkit closes, and is empty otherwise."""

    task: Task
    content_hash: str
    remote_id: str | None = None
    closing: str = ""


@dataclass(frozen=True)
class Remote:
    """A task as the CRM holds it: what people own in it, and the hash of the content that churnkit wrote.

    `problem` says why it cannot be understood; the rest then counts for nothing.
    """

    key: str
    remote_id: str
    version: str
    content_hash: str | None = None
    status: str = "open"
    disposition: str | None = None
    note: str | None = None
    owner: str | None = None
    due: dt.date | None = None
    modified_at: dt.datetime | None = None
    by: str | None = None
    problem: str = ""


@dataclass(frozen=True)
class Result:
    """What became of one item: written, to be tried again, or refused for good with the reason."""

    key: str
    state: Literal["written", "again", "refused"]
    remote: Remote | None = None
    why: str = ""


class Crm(Protocol):
    """Six operations, of which every connector has all.

    Each call may raise CrmDownError, CrmUnsureError or CrmRefusedError. `create` must not be tried again by the
    connector itself: the engine finds out what was written first. `update` writes title, body and score; it never
    touches the status, the disposition, the owner or the due date, which are people's once the task is there; only of
    an item that is `closing` does it set the status, when the task is still untouched.
    """

    name: str
    capabilities: Capabilities

    def check(self) -> str:
        """Says which portal, folder or account this is, having seen that it may be read and written."""
        ...

    def find(self, keys: Sequence[str]) -> Mapping[str, Remote]:
        """The tasks of these keys that are there."""
        ...

    def create(self, items: Sequence[Item]) -> Sequence[Result]:
        """Writes new tasks; one result per item."""
        ...

    def update(self, items: Sequence[Item]) -> Sequence[Result]:
        """Brings tasks up to date; one result per item."""
        ...

    def changes(self, since: str | None) -> tuple[Sequence[Remote], str | None]:
        """The tasks changed since a cursor (None: ever), and the next cursor. May repeat, may not leave out."""
        ...

    def done(self) -> None:
        """The run is over: views may be written, connections closed."""
        ...


_KNOWN: Mapping[str, str] = {
    "files": "churnkit.outreach.crm.files:connect", "memory": "churnkit.outreach.crm.memory:connect"}


class Metered(Protocol):
    """A CRM with a limit of requests: it calls `spend` before each one that counts, and the engine sets it.

    `spend` waits until the request may go out, or raises CrmDownError. A connector that has written in this call
    already turns that into CrmUnsureError, or gives the rows that are left the result "again".
    """

    spend: Callable[[], None]


ENGINE = ("portal", "every")
"""Options of `[crm_options]` that are the sync's own: status.Rules. No connector sees them."""


def connect(name: str, options: Mapping[str, str] | None = None, root: str | Path = ".") -> Crm:
    """The CRM of that name, with the options of `[crm_options]`; relative paths are the workspace's.

    Raises:
        SettingsError: If there is no such connector; names the nearest.
    """
    if name not in _KNOWN:
        raise SettingsError(f"crm = '{name}' is no known connector.{did_you_mean(name, _KNOWN)} "
                            f"Known: {', '.join(_KNOWN)}.")
    module, function = _KNOWN[name].split(":")
    make: Callable[[Mapping[str, Any], Path], Crm] = getattr(import_module(module), function)
    return make({key: value for key, value in (options or {}).items() if key not in ENGINE}, Path(root))
