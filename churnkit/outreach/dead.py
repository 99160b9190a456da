"""Dead letters: what the CRM refused for good or was given up, and what a person decides about each."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from churnkit.errors import OutreachError
from churnkit.outreach.chain import record
from churnkit.outreach.ledger import outbox, stamp, tasks, writing
from churnkit.outreach.life import lawful
from churnkit.outreach.moves import as_task, shut
from churnkit.outreach.outbox import Outbox
from churnkit.outreach.task import CLOSED, Task

STATES = ("rejected", "dead")
"""States of a row that no run tries again by itself."""


@dataclass(frozen=True)
class Letter:
    """One write that did not reach the CRM and is not tried again; `there` where the CRM holds the task."""

    id: int
    key: str
    action: str
    state: str
    attempts: int
    why: str
    since: str
    there: bool
    task: Task


def letters(box: Outbox) -> list[Letter]:
    """The dead letters, the oldest first.

    A write that a newer one of the same task has replaced is none, nor is one of a task that was closed before the CRM
    heard of it.
    """
    with box.engine.connect() as connection:
        return _letters(connection)


def retry(box: Outbox, keys: Iterable[str], by: str, at: dt.datetime) -> list[str]:
    """Puts dead letters back as pending, with their attempts at nought; returns their keys.

    Raises:
        OutreachError: If one of these tasks has no dead letter.
    """
    when = stamp(at)
    with writing(box.engine) as connection:
        found = _wanted(connection, keys)
        names = [letter.key for letter in found]
        with lawful(connection, names, "person"):
            _move(connection, found, "pending", f"tried again by {by}", when)
        record(connection, when, by, "retry", [
            {"key": letter.key, "before": {"state": letter.state, "why": letter.why},
             "after": {"action": letter.action, "why": f"tried again by {by}"}} for letter in found])
    return names


def drop(box: Outbox, keys: Iterable[str], by: str, why: str, at: dt.datetime) -> list[str]:
    """Gives dead letters up for good; returns their keys.

    A task that never came into the CRM is closed. One that is there stays as it is, without the write that was refused.

    Raises:
        OutreachError: If one of these tasks has no dead letter.
    """
    when, said = stamp(at), f"dropped by {by}: {why}"
    with writing(box.engine) as connection:
        found = _wanted(connection, keys)
        shut(connection, {letter.key: said for letter in found if not letter.there}, when, by)
        with lawful(connection, [letter.key for letter in found], "crm"):
            _move(connection, found, "dropped", said, when)
        record(connection, when, by, "dropped", [
            {"key": letter.key, "before": {"state": letter.state, "why": letter.why},
             "after": {"action": letter.action, "why": said}} for letter in found])
    return [letter.key for letter in found]


def count(connection: sa.Connection) -> int:
    """How many dead letters there are."""
    return connection.scalar(sa.select(sa.func.count()).select_from(_query().subquery())) or 0


def _query() -> sa.Select[tuple[int]]:
    """The rows' ids."""
    newer = outbox.alias("newer")
    replaced = sa.exists().where(newer.c.key == outbox.c.key, newer.c.id > outbox.c.id)
    alive = sa.or_(tasks.c.status.not_in(CLOSED), sa.and_(outbox.c.action == "close", tasks.c.remote_id.is_not(None)))
    return sa.select(outbox.c.id).join(tasks, tasks.c.key == outbox.c.key).where(
        outbox.c.state.in_(STATES), alive, ~replaced)


def _letters(connection: sa.Connection) -> list[Letter]:
    row_of = (outbox.c.id, outbox.c.action, outbox.c.state, outbox.c.attempts, outbox.c.why,
              outbox.c.updated_at.label("since"))
    query = sa.select(*row_of, tasks).join(tasks, tasks.c.key == outbox.c.key).order_by(outbox.c.id)
    rows = connection.execute(query.where(outbox.c.id.in_(_query())))
    return [Letter(row.id, row.key, row.action, row.state, row.attempts, row.why or "", row.since,
                   row.remote_id is not None, as_task(row)) for row in rows]


def _wanted(connection: sa.Connection, keys: Iterable[str]) -> list[Letter]:
    found, wanted = {letter.key: letter for letter in _letters(connection)}, list(dict.fromkeys(keys))
    strange = [key for key in wanted if key not in found]
    if strange:
        raise OutreachError(f"Task {strange[0]} has no dead letter. Look it up in: churnkit sync dead list.")
    return [found[key] for key in wanted]


def _move(connection: sa.Connection, found: Sequence[Letter], state: str, why: str, when: str) -> None:
    if found:
        connection.execute(
            outbox.update().where(outbox.c.id == sa.bindparam("_id")).values(
                state=state, why=why, attempts=sa.bindparam("_attempts"), updated_at=when),
            [{"_id": letter.id, "_attempts": 0 if state == "pending" else letter.attempts} for letter in found])
