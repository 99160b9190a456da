"""A task's life: its stages, which may follow which, and who may move it. This is said here and nowhere else."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import sqlalchemy as sa

from churnkit.errors import OutreachError
from churnkit.outreach.ledger import outbox, tasks
from churnkit.outreach.task import CLOSED

Who = Literal["churnkit", "person", "crm"]
"""churnkit: the plan and what it follows from; person: by a command or in the CRM; crm: what the sync heard of it."""
SNOOZE = dt.timedelta(days=14)
"""How long a task sleeps where a person did not say until when."""
STAGES: Mapping[str, str] = MappingProxyType({
    "": "not there",
    "kept": "kept as a control account's, never sent",
    "proposed": "waiting for approval",
    "queued": "waiting to be sent",
    "refused": "refused by the CRM",
    "synced": "in the CRM",
    "in_progress": "in progress",
    "snoozed": "snoozed",
    "completed": "completed",
    "dismissed": "dismissed",
})
"""Every stage, in words."""

_US: frozenset[Who] = frozenset({"churnkit"})
_PEOPLE: frozenset[Who] = frozenset({"person"})
_CRM: frozenset[Who] = frozenset({"crm"})
_BEGUN = ("in_progress", "snoozed", "completed")
_OPEN = ("queued", "refused", "synced")

ALLOWED: Mapping[tuple[str, str], frozenset[Who]] = MappingProxyType({
    ("", "kept"): _US, ("", "proposed"): _US, ("", "queued"): _US,
    ("kept", "dismissed"): _US,
    ("proposed", "queued"): _PEOPLE, ("proposed", "snoozed"): _PEOPLE, ("proposed", "dismissed"): _US | _PEOPLE,
    ("synced", "queued"): _PEOPLE,
    ("queued", "synced"): _CRM, ("queued", "refused"): _CRM,
    ("refused", "queued"): _US | _PEOPLE, ("refused", "synced"): _CRM,
    **{(stage, "dismissed"): _US | _PEOPLE for stage in _OPEN},
    **{(stage, begun): _PEOPLE for stage in _OPEN for begun in _BEGUN},
    **{("in_progress", stage): _PEOPLE for stage in (*_OPEN, "snoozed", *CLOSED)},
    **{("snoozed", stage): _US | _PEOPLE for stage in ("proposed", *_OPEN)},
    **{("snoozed", stage): _PEOPLE for stage in ("in_progress", *CLOSED)},
    ("completed", "dismissed"): _PEOPLE, ("dismissed", "completed"): _PEOPLE,
    ("dismissed", "in_progress"): _PEOPLE, ("dismissed", "snoozed"): _PEOPLE,
})
"""(from, to) = who may. The last line is for what churnkit closed: what a person closed stays so: Standing.final."""

_MEND: Mapping[str, str] = MappingProxyType({
    "": "Look it up in: churnkit tasks list.",
    "kept": "Nobody works on a control account's task; without it nobody could say what outreach is worth.",
    "proposed": "Approve it first: churnkit tasks approve KEY --by NAME.",
    "completed": "A closed task stays closed; should the case worsen, the plan opens a new one.",
    "dismissed": "A closed task stays closed; should the case worsen, the plan opens a new one.",
})


@dataclass(frozen=True)
class Standing:
    """What decides a task's stage: the ledger's row, whether the CRM holds it, and the newest outbox row's state.

    `closed_by` is who closed it.
    """

    status: str
    ghost: bool = False
    approval: str = "none"
    there: bool = False
    sending: str | None = None
    closed_by: str | None = None

    @property
    def final(self) -> bool:
        """Whether a person closed it: it may be corrected, and never opened again."""
        return self.status in CLOSED and self.closed_by not in {None, "churnkit"}

    @property
    def stage(self) -> str:
        """The stage.

        >>> Standing("open").stage, Standing("open", approval="pending").stage, Standing("open", there=True).stage
        ('queued', 'proposed', 'synced')
        """
        if self.status != "open":
            return self.status
        if self.ghost:
            return "kept"
        if self.approval == "pending":
            return "proposed"
        if self.there:
            return "synced"
        return "refused" if self.sending in {"rejected", "dead", "dropped"} else "queued"


NOWHERE = Standing("")
"""How a task stands that is not there yet."""


def may(before: Standing, after: Standing, who: Who) -> bool:
    """Whether a task may come to stand so by the hand of `who`; to stay is always allowed.

    >>> waiting, queued = Standing("open", approval="pending"), Standing("open")
    >>> may(waiting, queued, "person"), may(waiting, queued, "churnkit")
    (True, False)
    """
    was, now = before.stage, after.stage
    if before.final and now not in CLOSED:
        return False
    return was == now or who in ALLOWED.get((was, now), frozenset())


def standings(connection: sa.Connection, keys: Iterable[str]) -> dict[str, Standing]:
    """How these tasks stand; those that are not there are left out. At most a query's worth of keys."""
    wanted = list(keys)
    sending = {row.key: row.state for row in connection.execute(
        sa.select(outbox.c.key, outbox.c.state).where(outbox.c.key.in_(wanted)).order_by(outbox.c.id))}
    columns = (tasks.c.key, tasks.c.status, tasks.c.ghost, tasks.c.approval, tasks.c.remote_id, tasks.c.closed_by)
    found = connection.execute(sa.select(*columns).where(tasks.c.key.in_(wanted)))
    return {row.key: Standing(row.status, row.ghost, row.approval, row.remote_id is not None, sending.get(row.key),
                             row.closed_by)
            for row in found}


@contextmanager
def lawful(connection: sa.Connection, keys: Iterable[str], who: Who) -> Iterator[dict[str, Standing]]:
    """Whatever is done to these tasks inside, the table above must allow it, else the whole transaction is undone.

    Gives how they stand before.

    Raises:
        OutreachError: If a task went where it may not go: says where it stands, and what is possible.
    """
    wanted = list(keys)
    before = standings(connection, wanted)
    yield before
    for key, standing in standings(connection, wanted).items():
        was = before.get(key, NOWHERE)
        if not may(was, standing, who):
            raise OutreachError(refusal(key, was.stage, standing.stage))


def refusal(key: str, before: str, after: str) -> str:
    """Why a task may not go there, and what can be done."""
    mend = _MEND.get(before) or f"From there it may become: {', '.join(to for at, to in ALLOWED if at == before)}."
    return f"Task {key} is {STAGES[before]} and cannot become '{after}'. {mend}"
