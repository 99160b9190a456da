"""What a CRM must be able to do for the sync: a small protocol, its capabilities, and four ways to fail."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, Protocol

from churnkit.errors import OutreachError, SettingsError, did_you_mean
from churnkit.outreach.task import Task


class CrmDownError(OutreachError):
    """Nothing was written: try again after `wait` seconds, but not `today` if the daily quota is spent."""

    def __init__(self, message: str, *, wait: float | None = None, today: bool = True) -> None:
        super().__init__(message)
        self.wait, self.today = wait, today


class CrmDeniedError(CrmDownError):
    """Nothing was written, and nothing will be until a person mends it: the token was refused, or may not do this."""


class CrmUnsureError(OutreachError):
    """The write may have been done or not: a time-out, a dropped line, a 5xx after the request was out."""


class CrmRefusedError(OutreachError):
    """The CRM will never take this: a permanent error. Refers to the whole batch; the engine looks for the row.

    Some rows of the batch may have been written: before it sends any of them again the engine looks their keys up.
    """


@dataclass(frozen=True)
class Rate:
    """How much a CRM lets itself be asked: `requests` in any span of `seconds`, and `daily` in a day of UTC."""

    requests: int
    seconds: float
    daily: int | None = None


@dataclass(frozen=True)
class Capabilities:
    """What a CRM can do. The engine is right for the weakest combination.

    `unique_keys`: a second create of a key is refused, or, with `upsert`, updates the first. `returns_ids`: a create
    tells the new id. `finds`: tasks can be looked up by key; a CRM that cannot must take a write that comes twice for
    one, and nobody can see what was deleted there. `lag` is how long a new task may stay unseen when it is looked up.
    `modified`: it knows when a task was changed, as exactly as `resolution` says, so that `changes` need not tell all.
    `dismissed`: there is a status for it. `batch` is the most rows that one call writes or looks up, `page` the most
    that one reply tells. `rate` is its limit of requests; a connector that declares one is Metered.
    """

    unique_keys: bool = False
    upsert: bool = False
    returns_ids: bool = True
    finds: bool = True
    modified: bool = True
    dismissed: bool = True
    batch: int = 100
    page: int = 100
    resolution: dt.timedelta = dt.timedelta(seconds=1)
    lag: dt.timedelta = dt.timedelta(0)
    rate: Rate | None = None


@dataclass(frozen=True)
class Portal:
    """Which CRM this is, as it says itself.

    `name` is for people; `id` is what `[crm_options] portal` must name, and empty where there is nothing to mistake it
    for; `kind` is "sandbox" or "production" where the CRM tells. `todo` is what an administrator must still do before
    anything can be written, one sentence each; `made` is what `check(mend=True)` did.
    """

    name: str
    id: str = ""
    kind: Literal["sandbox", "production", ""] = ""
    todo: tuple[str, ...] = ()
    made: tuple[str, ...] = ()


@dataclass(frozen=True)
class Item:
    """One write: a new task where `remote_id` is None, else an update of that one.

    `closing` holds the note of a task that churnkit closes, and is empty otherwise.
    """

    task: Task
    content_hash: str
    remote_id: str | None = None
    closing: str = ""


@dataclass(frozen=True)
class Remote:
    """A task as the CRM holds it: what people own in it, and the hash of the content that churnkit wrote.

    `owner` is an e-mail address, or what the CRM says where that cannot be told. `content` is churnkit's own part, as
    `Task.to_dict` gave it, where the CRM keeps that: a lost ledger is made anew from it. `deleted` is told by `changes`
    alone, where the CRM tells of deletions. `problem` says why the task cannot be understood; the rest then counts for
    nothing.
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
    content: Mapping[str, Any] | None = None
    deleted: bool = False


@dataclass(frozen=True)
class Page:
    """Some of the changed tasks, in the order of their changes, and the cursor from which to go on after them."""

    remotes: Sequence[Remote]
    cursor: str | None = None


@dataclass(frozen=True)
class Result:
    """What became of one item: written, to be tried again, gone from the CRM, or refused for good with the reason.

    "doubt" asks the engine to look the key up: it may be there already. "unsent" is what this call did not come to, and
    does not count as an attempt.
    """

    key: str
    state: Literal["written", "again", "unsent", "doubt", "gone", "refused"]
    remote: Remote | None = None
    why: str = ""


class Crm(Protocol):
    """Six operations.

    Each may raise CrmDownError or CrmDeniedError, and `write` also CrmUnsureError or CrmRefusedError; no client's own
    error leaves a connector, and none is put into a message whole: it may hold the token. `capabilities` may depend on
    the portal: they are read after `check`.
    """

    name: str
    capabilities: Capabilities

    def check(self, *, mend: bool = False) -> Portal:
        """Says which portal, folder or account this is, and what is missing for writing there.

        With `mend` the connector makes what it can itself, such as custom properties, and does no harm when it is
        called again.
        """
        ...

    def find(self, keys: Sequence[str]) -> Mapping[str, Remote]:
        """The tasks of these keys that are there; at most `batch` keys."""
        ...

    def write(self, items: Sequence[Item]) -> Sequence[Result]:
        """Writes at most `batch` tasks, all new or all known; one result per item, in any order.

        Never tries a create again by itself: the engine finds out first what was written. An update writes title, body
        and score; it never touches the status, the disposition, the owner or the due date, which are people's once the
        task is there; only of an item that is `closing` does it set the status, when the task is still untouched. What
        a person deleted is "gone", and stays so.
        """
        ...

    def changes(self, since: str | None) -> Iterable[Page]:
        """The tasks changed since a cursor (None: ever), the oldest change first.

        May repeat, may not leave out: two changes within one tick of the CRM's clock, or one that becomes visible late,
        must be in this answer or in the next.
        """
        ...

    def remove(self, remote_ids: Sequence[str]) -> None:
        """Takes tasks away: for `churnkit crm test` and for nothing else. One that is gone already is no error."""
        ...

    def close(self) -> None:
        """The run is over: views are written, connections let go."""
        ...


class Metered(Protocol):
    """A CRM with a limit of requests: it calls `spend` before each one that counts, and the engine sets it.

    `spend` waits until the request may go out, or raises CrmDownError. A connector that has written in this call
    already turns that into CrmUnsureError, or gives the rows that are left the result "unsent".
    """

    spend: Callable[[], None]


ENGINE = ("portal", "every")
"""Options of `[crm_options]` that are the sync's own: status.Rules. No connector sees them."""

GROUP = "churnkit.crm"
"""The group of entry points under which other packages offer connectors: name = "package.module:connect"."""

_KNOWN: Mapping[str, str] = {
    name: f"churnkit.outreach.crm.{name}:connect" for name in ("files", "hubspot", "salesforce", "webhook", "memory")}
_SECRETS = ("token", "password", "secret", "apikey", "api_key", "key")


def connect(name: str, options: Mapping[str, str] | None = None, root: str | Path = ".") -> Crm:
    """The CRM of that name, with the options of `[crm_options]`; relative paths are the workspace's.

    A name that is not one of churnkit's own is looked for among the entry points of the group GROUP.

    Raises:
        SettingsError: If there is no such connector (names the nearest), what it needs is not installed, or a secret
            stands among the options.
    """
    given = {key: value for key, value in (options or {}).items() if key not in ENGINE}
    for key in given:
        if any(key.lower() == word or key.lower().endswith(f"_{word}") for word in _SECRETS):
            raise SettingsError(f"[crm_options] '{key}': secrets do not belong into churnkit.toml. Take it out, and "
                                f"set it in the environment: see churnkit crm setup {name}.")
    return _maker(name)(given, Path(root))


def _maker(name: str) -> Callable[[Mapping[str, str], Path], Crm]:
    """The connector's `connect(options, root)`."""
    if name in _KNOWN:
        module, function = _KNOWN[name].split(":")
        try:
            return getattr(import_module(module), function)  # type: ignore[no-any-return]
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("churnkit"):
                raise
            raise SettingsError(f"crm = '{name}' needs the package '{error.name}', which is not installed. Run: "
                                f"python -m pip install 'churnkit-outreach[{name}]'") from None
    others = {point.name: point for point in entry_points(group=GROUP)}
    if name not in others:
        known = [*_KNOWN, *sorted(others)]
        raise SettingsError(f"crm = '{name}' is no known connector.{did_you_mean(name, known)} Known: "
                            f"{', '.join(known)}. Another package's connector must be installed here.")
    return others[name].load()  # type: ignore[no-any-return]
