"""What may happen to a task, each inside the caller's transaction and with its audit row."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import sqlalchemy as sa

from churnkit.errors import OutreachError
from churnkit.outreach.chain import record
from churnkit.outreach.ledger import audit, outbox, outcomes, suppressions, tasks
from churnkit.outreach.life import NOWHERE, Standing, lawful, may, refusal
from churnkit.outreach.task import CLOSED, DISPOSITIONS, Task

T = TypeVar("T")
CHUNK = 500
"""How many keys a query names at most."""


@dataclass(frozen=True)
class Entry:
    """One row of the outbox: what is to be done about a task in the CRM, and how far that has come.

    `task` and `content_hash` are the task as it stands now, `sent_hash` and `remote_id` what the CRM holds.
    """

    id: int
    key: str
    action: str
    state: str
    attempts: int
    why: str | None
    task: Task
    content_hash: str
    sent_hash: str | None = None
    remote_id: str | None = None
    note: str = ""


def entries(connection: sa.Connection, states: Sequence[str], after: int = 0, limit: int | None = None) -> list[Entry]:
    """`Outbox.pending` inside a transaction: at most `limit` rows, those with an id above `after`."""
    columns = (outbox.c.id, outbox.c.action, outbox.c.state, outbox.c.attempts, outbox.c.why)
    query = sa.select(*columns, tasks).join(tasks, tasks.c.key == outbox.c.key).order_by(outbox.c.id).limit(limit)
    query = query.where(outbox.c.state.in_(states), outbox.c.id > after)
    return [Entry(row.id, row.key, row.action, row.state, row.attempts, row.why, as_task(row), row.content_hash,
                  row.sent_hash, row.remote_id, row.note or "") for row in connection.execute(query)]


@dataclass(frozen=True)
class Answer:
    """A person's answer as it came in; times as the database holds them. `until` is a snoozed task's."""

    status: str
    disposition: str | None
    note: str | None
    occurred_at: str
    recorded_at: str
    by: str = "crm"
    until: str | None = None


def answer(connection: sa.Connection, key: str, given: Answer) -> bool:
    """`Outbox.record_outcome` inside a transaction."""
    row = row_of(connection, key)
    refuse_unknown(row, given)
    before = {"status": row.status, "disposition": row.disposition, "note": row.note}
    after = {"status": given.status, "disposition": given.disposition, "note": given.note}
    still_open = row.closed_by == "churnkit" and given.status == "open"  # the CRM has not heard of the closing yet
    if before == after or still_open:
        return False
    if row.status in CLOSED and given.status not in CLOSED and row.closed_by not in {None, "churnkit"}:
        _note_once(connection, row, f"shown as '{given.status}' after a person closed it; it stays closed", given)
        return False
    sleeps = {"snoozed_until": given.until, "snooze_reason": given.note} if given.status == "snoozed" else {}
    with lawful(connection, [key], "person"):
        take(connection, row, given, {**after, **(sleeps or {"snoozed_until": None, "snooze_reason": None})})
    record(connection, given.recorded_at, given.by, "outcome", [
        {"key": key, "before": before, "after": {**after, **sleeps}}])
    if given.disposition == "do_not_contact":
        suppress(connection, row.account_id, "do_not_contact", given.occurred_at, None)
    return True


def take(connection: sa.Connection, row: Any, given: Answer, values: Mapping[str, Any]) -> None:
    """A person's answer into the task's row, and as an outcome into the raw table to be."""
    shut = given.status in CLOSED
    connection.execute(tasks.update().where(tasks.c.key == row.key).values(
        **values, updated_at=given.recorded_at, closed_at=given.occurred_at if shut else None,
        closed_by=given.by if shut else None))
    connection.execute(outcomes.insert().values(
        key=row.key, account_id=row.account_id, play=row.play, occurred_at=given.occurred_at, status=given.status,
        disposition=given.disposition, note=given.note, recorded_at=max(given.recorded_at, given.occurred_at)))


def row_of(connection: sa.Connection, key: str) -> Any:
    """The ledger's row of a task.

    Raises:
        OutreachError: If there is none.
    """
    row = connection.execute(sa.select(tasks).where(tasks.c.key == key)).first()
    if row is None:
        raise OutreachError(f"There is no task '{key}' in the outbox. Look it up in: churnkit tasks list.")
    return row


def refuse_unknown(row: Any, given: Answer) -> None:
    """A status or a disposition that is not one of the contract's is an error that names the choices."""
    known = ("open", "in_progress", "snoozed", *CLOSED)
    if given.status not in known:
        raise OutreachError(f"Task {row.key}: the status '{given.status}' is not known. Use one of: "
                            f"{', '.join(known)}.")
    fits = (*DISPOSITIONS.get(row.target, ()), *DISPOSITIONS["any"])
    if given.disposition is not None and given.disposition not in fits:
        raise OutreachError(f"Task {row.key}: the disposition '{given.disposition}' does not fit a {row.target} task. "
                            f"Use one of: {', '.join(fits)}.")


def closing_words(status: str, disposition: str | None, note: str | None) -> str:
    """What the CRM's copy of a closed task is told.

    >>> closing_words("completed", "saved", None), closing_words("dismissed", None, "the cause is gone")
    ('completed: saved', 'the cause is gone')
    """
    return note or f"{status}: {disposition}" if disposition or note else status


def dismiss(connection: sa.Connection, closings: Mapping[str, str], when: str) -> None:
    """Closes tasks (key: why) in churnkit's own name, unless they are closed already."""
    if closings:
        still = (tasks.c.status != one for one in CLOSED)
        connection.execute(
            tasks.update().where(tasks.c.key == sa.bindparam("_key"), *still).values(
                status="dismissed", note=sa.bindparam("_why"), closed_at=when, closed_by="churnkit", updated_at=when),
            [{"_key": key, "_why": why} for key, why in closings.items()])


def suppressed(connection: sa.Connection, when: str, accounts: Collection[str] | None = None,
               now: str = "") -> dict[str, str]:
    """`Outbox.suppressed` inside a transaction; of these accounts alone where they are named.

    A run's moment may be this morning's: what was said since then, until `now`, counts already.
    """
    lasting = sa.or_(suppressions.c.until.is_(None), suppressions.c.until > when)
    query = sa.select(suppressions).where(suppressions.c.starts_at <= max(when, now), lasting)
    rows = connection.execute(query if accounts is None else query.where(suppressions.c.account_id.in_(accounts)))
    return {row.account_id: row.reason for row in rows}


def queue(connection: sa.Connection, key: str, action: str, content_hash: str, when: str) -> None:
    """One outbox row for what is to be sent about a task; one that waits already is brought up to date."""
    waiting = outbox.update().where(outbox.c.key == key, outbox.c.state == "pending").values(
        content_hash=content_hash, updated_at=when)
    if action == "close":
        waiting = waiting.values(action="close")
    if connection.execute(waiting).rowcount == 0:
        connection.execute(outbox.insert().values(
            key=key, action=action, state="pending", attempts=0, content_hash=content_hash, created_at=when,
            updated_at=when))


def recognise(connection: sa.Connection, key: str, when: str, actor: str) -> None:
    """The CRM shows a task that waits to be created: the outbox is an older one, and the create was sent before.

    So it counts as in doubt, and is looked up and adopted before anything is sent.
    """
    waits = sa.and_(outbox.c.key == key, outbox.c.state == "pending")
    why = "the CRM holds it already"
    if connection.execute(outbox.update().where(waits).values(state="ambiguous", why=why, updated_at=when)).rowcount:
        record(connection, when, actor, "ambiguous", [
            {"key": key, "before": {"state": "pending"}, "after": {"action": "create", "why": why}}])


def insert(connection: sa.Connection, new: Sequence[Task], when: str, run: str | None) -> None:
    """Keeps new tasks, and queues those that are no ghosts and wait for nobody's approval."""
    for task in new:
        standing = Standing(task.status, task.ghost, task.approval)
        if not may(NOWHERE, standing, "churnkit"):
            raise OutreachError(refusal(task.key, "", standing.stage))
    rows = [{"key": task.key, "account_id": task.account_id, "play": task.play, "target": task.target,
             "status": task.status, "disposition": task.disposition, "owner": task.owner, "due": task.due.isoformat(),
             "ghost": task.ghost, "run": run, "created_at": when, "updated_at": when, "approval": task.approval,
             "snoozed_until": task.snoozed_until,
             "content": json.dumps(task.to_dict(), sort_keys=True), "content_hash": task.content_hash()}
            for task in new]
    queued = [{"key": task.key, "action": "create", "state": "pending", "attempts": 0,
               "content_hash": task.content_hash(), "created_at": when, "updated_at": when}
              for task in new if not task.ghost and task.approval != "pending"]
    if rows:
        connection.execute(tasks.insert(), rows)
    if queued:
        connection.execute(outbox.insert(), queued)


def change(connection: sa.Connection, changed: Sequence[Task], when: str, waiting: Collection[str] = ()) -> None:
    """Takes over new content, and queues it, but for tasks that still wait for approval."""
    for some in chunks(changed):
        with lawful(connection, [task.key for task in some], "churnkit"):
            for task in some:
                connection.execute(tasks.update().where(tasks.c.key == task.key).values(
                    content=json.dumps(task.to_dict(), sort_keys=True), content_hash=task.content_hash(),
                    updated_at=when))
                if not task.ghost and task.key not in waiting:
                    queue(connection, task.key, "update", task.content_hash(), when)


def shut(connection: sa.Connection, closings: Mapping[str, str], when: str,
         actor: str) -> tuple[list[str], list[str]]:
    """Closes the untouched ones among these tasks (key: why); returns their keys, and those of the begun ones left.

    That a begun one was left is noted in the audit, once.
    """
    gone: list[str] = []
    left: list[str] = []
    for chunk in chunks(sorted(closings)):
        columns = (tasks.c.key, tasks.c.status, tasks.c.content_hash, tasks.c.remote_id)
        found = connection.execute(sa.select(*columns).where(tasks.c.key.in_(chunk), tasks.c.status.not_in(CLOSED)))
        rows = {row.key: row for row in found.all()}
        open_, begun = ([key for key, row in rows.items() if (row.status == "open") == wanted]
                        for wanted in (True, False))
        with lawful(connection, open_, "churnkit"):
            dismiss(connection, {key: closings[key] for key in open_}, when)
            withdraw(connection, {key: rows[key] for key in open_}, when, closings)
        record(connection, when, actor, "close", [
            {"key": key, "before": {"status": "open"}, "after": {"status": "dismissed", "note": closings[key]}}
            for key in open_])
        news = [key for key in begun if not _noted(connection, key, closings[key])]
        record(connection, when, actor, "left", [
            {"key": key, "before": {"status": rows[key].status}, "after": {
                "status": rows[key].status, "why": closings[key]}} for key in news])
        gone += open_
        left += begun
    return gone, left


def withdraw(connection: sa.Connection, rows: Mapping[str, Any], when: str, why: Mapping[str, str]) -> None:
    """Takes closed tasks out of the queue, or, where they may have been sent, has them closed in the CRM."""
    if not rows:
        return
    tried = sa.and_(outbox.c.state == "pending", outbox.c.attempts > 0)
    under_way = sa.or_(outbox.c.state.in_(("in_flight", "ambiguous", "confirmed")), tried)
    sent = set(connection.scalars(sa.select(outbox.c.key).where(outbox.c.key.in_(list(rows)), under_way)))
    sent |= {key for key, row in rows.items() if row.remote_id is not None}
    for key in sorted(sent):
        queue(connection, key, "close", rows[key].content_hash, when)
    waiting = [{"_key": key, "_why": why[key]} for key in rows if key not in sent]
    if waiting:
        connection.execute(
            outbox.update().where(outbox.c.key == sa.bindparam("_key"), outbox.c.state == "pending").values(
                state="dead", why=sa.bindparam("_why"), updated_at=when), waiting)


def _noted(connection: sa.Connection, key: str, why: str) -> bool:
    """Whether the audit says already that this task was left for this reason."""
    said = connection.scalars(sa.select(audit.c.after).where(audit.c.key == key, audit.c.what == "left"))
    return any(json.loads(after)["why"] == why for after in said)


def _note_once(connection: sa.Connection, row: Any, why: str, given: Answer) -> None:
    if not _noted(connection, row.key, why):
        record(connection, given.recorded_at, given.by, "left", [
            {"key": row.key, "before": {"status": row.status}, "after": {"status": row.status, "why": why}}])


def suppress(connection: sa.Connection, account_id: str, reason: str, starts_at: str, until: str | None) -> None:
    """Leaves an account in peace from then on; what holds for ever is not made to end."""
    lasting = sa.and_(suppressions.c.account_id == account_id, suppressions.c.until.is_(None))
    since = connection.scalar(sa.select(suppressions.c.starts_at).where(lasting))
    if since is not None and until is not None:
        return
    connection.execute(suppressions.delete().where(suppressions.c.account_id == account_id))
    connection.execute(suppressions.insert().values(
        account_id=account_id, reason=reason, starts_at=min(starts_at, since or starts_at), until=until))
    record(connection, starts_at, "churnkit", "suppress", [
        {"key": None, "before": None, "after": {"account_id": account_id, "reason": reason, "until": until}}])


def as_task(row: Any) -> Task:
    """The task as it stands: churnkit's content, and what people changed."""
    task = Task.from_dict(json.loads(row.content))
    return replace(task, status=row.status, disposition=row.disposition, owner=row.owner or task.owner,
                   due=dt.date.fromisoformat(row.due) if row.due else task.due, approval=row.approval,
                   snoozed_until=row.snoozed_until)


def chunks(all_: Sequence[T]) -> Iterator[Sequence[T]]:
    """The keys or tasks, a query's worth at a time."""
    return (all_[start:start + CHUNK] for start in range(0, len(all_), CHUNK))
