"""The outbox: tasks, what is still to be sent, what came of them, and an audit of every change, in one database."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from churnkit.errors import OutreachError
from churnkit.outreach import ledger
from churnkit.outreach.ledger import audit, digest, outbox, outcomes, record, stamp, suppressions, tasks, writing
from churnkit.outreach.task import DISPOSITIONS, Task

CLOSED = ("completed", "dismissed")
_CHUNK = 500


@dataclass(frozen=True)
class Put:
    """What `put` did: how many tasks were new, changed, the same as before, or closed and therefore left alone."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    closed: int = 0


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


@dataclass(frozen=True)
class Outcome:
    """What came of a task: one change of its status, disposition or note by a person."""

    key: str
    account_id: str
    play: str
    occurred_at: str
    status: str
    disposition: str | None
    note: str | None
    recorded_at: str


class Outbox:
    """A durable queue of tasks, on SQLite or PostgreSQL.

    Every method is one transaction: a task and its outbox row, a change and its audit row are kept together or not at
    all. Several processes may use one outbox at once.

    Args:
        url: A database URL, or the path of a SQLite file; the tables are made where there are none.

    Raises:
        OutreachError: If the database cannot be opened, or is of another version.
    """

    def __init__(self, url: str | Path) -> None:
        self.engine = ledger.connect(str(url))

    def close(self) -> None:
        """Lets the database go."""
        self.engine.dispose()

    def put(self, tasks_: Iterable[Task], at: dt.datetime | None = None, run: str | None = None,
            actor: str = "plan") -> Put:
        """Keeps tasks and queues them for the CRM; the same tasks again change nothing.

        A ghost is kept and never queued. A task that was closed is left alone. A task that is open and has changed is
        queued again, and what people changed in it stays theirs.

        Args:
            tasks_: The plan's tasks or ghosts.
            at: When; by default the newest `scored_at` of the tasks.
            run: The run's name, by which `recall` finds them.
            actor: Who, for the audit.

        Raises:
            OutreachError: If no time can be told.
        """
        given = {task.key: task for task in tasks_}
        if not given:
            return Put()
        when = _when(at, given.values())
        with writing(self.engine) as connection:
            columns = sa.select(tasks.c.key, tasks.c.status, tasks.c.content_hash, tasks.c.content)
            known = {row.key: row for chunk in _chunks(sorted(given))
                     for row in connection.execute(columns.where(tasks.c.key.in_(chunk)))}
            new = [task for key, task in given.items() if key not in known]
            same = [key for key in known if known[key].content_hash == given[key].content_hash()]
            closed = [key for key in known if known[key].status in CLOSED and key not in same]
            changed = [given[key] for key in known if key not in same and key not in closed]
            _insert(connection, new, when, run)
            _change(connection, changed, when)
            record(connection, when, actor, "put", [
                {"key": task.key, "before": None, "after": {**task.to_dict(), "run": run}} for task in new])
            record(connection, when, actor, "change", [
                {"key": task.key, "before": json.loads(known[task.key].content), "after": task.to_dict()}
                for task in changed])
        return Put(len(new), len(changed), len(same), len(closed))

    def tasks(self, *, status: Sequence[str] = (), account_id: str | None = None, run: str | None = None,
              ghosts: bool = True) -> list[Task]:
        """The tasks that fit, by account and key, as they stand now: people's changes are in them."""
        query = sa.select(tasks).order_by(tasks.c.account_id, tasks.c.key)
        for wanted, column in ((account_id, tasks.c.account_id), (run, tasks.c.run)):
            query = query if wanted is None else query.where(column == wanted)
        query = query.where(tasks.c.status.in_(status)) if status else query
        query = query if ghosts else query.where(tasks.c.ghost.is_(sa.false()))
        with self.engine.connect() as connection:
            return [_task(row) for row in connection.execute(query)]

    def open_tasks(self) -> list[Task]:
        """Every task that is not closed, ghosts too: what `plan` must know of."""
        return self.tasks(status=("open", "in_progress", "snoozed"))

    def pending(self, states: Sequence[str] = ("pending", "in_flight", "ambiguous")) -> list[Entry]:
        """The outbox's rows in these states, the oldest first."""
        with self.engine.connect() as connection:
            return entries(connection, states)

    def record_outcome(self, key: str, *, status: str, at: dt.datetime, disposition: str | None = None,
                       note: str | None = None) -> bool:
        """Keeps what a person answered; False where it was known already, or the task is closed for good.

        `do_not_contact` suppresses the account from that moment on.

        Raises:
            OutreachError: If there is no such task, or the status or the disposition is not one of the contract's.
        """
        with writing(self.engine) as connection:
            return answer(connection, key, Answer(status, disposition, note, stamp(at), stamp(at)))

    def outcomes(self) -> list[Outcome]:
        """Every outcome, in the order in which they came in."""
        with self.engine.connect() as connection:
            return [Outcome(*row[1:]) for row in connection.execute(sa.select(outcomes).order_by(outcomes.c.id))]

    def close_tasks(self, keys: Iterable[str], at: dt.datetime, why: str = "the cause is gone",
                    actor: str = "plan") -> int:
        """Closes tasks that nobody has begun; one that was sent is closed in the CRM too. Returns how many.

        For `Plan.moot`. A task that a person has touched stays as it is.
        """
        when = stamp(at)
        with writing(self.engine) as connection:
            return len(_shut(connection, sorted(set(keys)), when, why, actor))

    def recall(self, run: str, at: dt.datetime, actor: str = "recall") -> int:
        """Closes a run's untouched tasks, here and, where they were sent, in the CRM; returns how many."""
        when = stamp(at)
        with writing(self.engine) as connection:
            keys = connection.scalars(sa.select(tasks.c.key).where(tasks.c.run == run)).all()
            return len(_shut(connection, sorted(keys), when, f"run {run} was recalled", actor))

    def suppress(self, account_id: str, reason: str, at: dt.datetime, until: dt.datetime | None = None) -> None:
        """Leaves an account in peace: nothing that is still in the outbox is sent to it."""
        with writing(self.engine) as connection:
            _suppress(connection, account_id, reason, stamp(at), stamp(until) if until else None)

    def dismiss(connection: sa.Connection, key: str, when: str, why: str) -> None:
    """Closes a task in churnkit's own name, unless it is closed already."""
    connection.execute(tasks.update().where(tasks.c.key == key, tasks.c.status.not_in(CLOSED)).values(
        status="dismissed", note=why, closed_at=when, closed_by="churnkit", updated_at=when))


def suppressed(self, at: dt.datetime) -> dict[str, str]:
        """The accounts that may not be approached now, with the reason."""
        with self.engine.connect() as connection:
            return suppressed(connection, stamp(at))

    def audit(self, key: str | None = None) -> list[dict[str, Any]]:
        """The audit's rows, of one task or all, in order; `before` and `after` are plain values."""
        query = sa.select(audit).order_by(audit.c.seq)
        with self.engine.connect() as connection:
            rows = connection.execute(query if key is None else query.where(audit.c.key == key)).mappings()
            return [{**row, "before": json.loads(row["before"]), "after": json.loads(row["after"])} for row in rows]

    def verify_audit(self) -> int:
        """Goes through the whole chain; returns its length.

        Raises:
            OutreachError: At the first row that was changed, removed or slipped in.
        """
        previous, count = ledger.FIRST, 0
        query = sa.select(audit).order_by(audit.c.seq)
        with self.engine.connect() as connection, connection.execution_options(yield_per=_CHUNK).execute(query) as rows:
            for row in rows.mappings():
                count += 1
                if row["seq"] != count or row["previous"] != previous or row["hash"] != digest(dict(row)):
                    raise OutreachError(f"The audit's chain is broken at row {count}: it was changed, or one before it "
                                        "was removed. Restore the outbox from a backup and compare.")
                previous = row["hash"]
        return count


def entries(connection: sa.Connection, states: Sequence[str], after: int = 0, limit: int | None = None) -> list[Entry]:
    """`Outbox.pending` inside a transaction: at most `limit` rows, those with an id above `after`."""
    columns = (outbox.c.id, outbox.c.action, outbox.c.state, outbox.c.attempts, outbox.c.why)
    query = sa.select(*columns, tasks).join(tasks, tasks.c.key == outbox.c.key).order_by(outbox.c.id).limit(limit)
    query = query.where(outbox.c.state.in_(states), outbox.c.id > after)
    return [Entry(row.id, row.key, row.action, row.state, row.attempts, row.why, _task(row), row.content_hash,
                  row.sent_hash, row.remote_id, row.note or "") for row in connection.execute(query)]


@dataclass(frozen=True)
class Answer:
    """A person's answer as it came in; times as the database holds them."""

    status: str
    disposition: str | None
    note: str | None
    occurred_at: str
    recorded_at: str
    by: str = "crm"


def answer(connection: sa.Connection, key: str, given: Answer) -> bool:
    """`Outbox.record_outcome` inside a transaction."""
    row = connection.execute(sa.select(tasks).where(tasks.c.key == key)).first()
    if row is None:
        raise OutreachError(f"There is no task '{key}' in the outbox. Look it up in the tasks' list.")
    known = ("open", "in_progress", "snoozed", *CLOSED)
    if given.status not in known:
        raise OutreachError(f"Task {key}: the status '{given.status}' is not known. Use one of: {', '.join(known)}.")
    fits = (*DISPOSITIONS.get(row.target, ()), *DISPOSITIONS["any"])
    if given.disposition is not None and given.disposition not in fits:
        raise OutreachError(f"Task {key}: the disposition '{given.disposition}' does not fit a {row.target} task. "
                            f"Use one of: {', '.join(fits)}.")
    before = {"status": row.status, "disposition": row.disposition, "note": row.note}
    after = {"status": given.status, "disposition": given.disposition, "note": given.note}
    still_open = row.closed_by == "churnkit" and given.status == "open"  # the CRM has not heard of the closing yet
    if before == after or still_open:
        return False
    shut = given.status in CLOSED
    connection.execute(tasks.update().where(tasks.c.key == key).values(
        **after, updated_at=given.recorded_at, closed_at=given.occurred_at if shut else None,
        closed_by=given.by if shut else None))
    connection.execute(outcomes.insert().values(
        key=key, account_id=row.account_id, play=row.play, occurred_at=given.occurred_at, **after,
        recorded_at=max(given.recorded_at, given.occurred_at)))
    record(connection, given.recorded_at, given.by, "outcome", [{"key": key, "before": before, "after": after}])
    if given.disposition == "do_not_contact":
        _suppress(connection, row.account_id, "do_not_contact", given.occurred_at, None)
    return True


def dismiss(connection: sa.Connection, key: str, when: str, why: str) -> None:
    """Closes a task in churnkit's own name, unless it is closed already."""
    connection.execute(tasks.update().where(tasks.c.key == key, tasks.c.status.not_in(CLOSED)).values(
        status="dismissed", note=why, closed_at=when, closed_by="churnkit", updated_at=when))


def suppressed(connection: sa.Connection, when: str) -> dict[str, str]:
    """`Outbox.suppressed` inside a transaction."""
    lasting = sa.or_(suppressions.c.until.is_(None), suppressions.c.until > when)
    rows = connection.execute(sa.select(suppressions).where(suppressions.c.starts_at <= when, lasting))
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


def _insert(connection: sa.Connection, new: Sequence[Task], when: str, run: str | None) -> None:
    rows = [{"key": task.key, "account_id": task.account_id, "play": task.play, "target": task.target,
             "status": task.status, "disposition": task.disposition, "owner": task.owner, "due": task.due.isoformat(),
             "ghost": task.ghost, "run": run, "created_at": when, "updated_at": when,
             "content": json.dumps(task.to_dict(), sort_keys=True), "content_hash": task.content_hash()}
            for task in new]
    queued = [{"key": task.key, "action": "create", "state": "pending", "attempts": 0,
               "content_hash": task.content_hash(), "created_at": when, "updated_at": when}
              for task in new if not task.ghost]
    if rows:
        connection.execute(tasks.insert(), rows)
    if queued:
        connection.execute(outbox.insert(), queued)


def _change(connection: sa.Connection, changed: Sequence[Task], when: str) -> None:
    for task in changed:
        connection.execute(tasks.update().where(tasks.c.key == task.key).values(
            content=json.dumps(task.to_dict(), sort_keys=True), content_hash=task.content_hash(), updated_at=when))
        if not task.ghost:
            queue(connection, task.key, "update", task.content_hash(), when)


def _shut(connection: sa.Connection, keys: Sequence[str], when: str, why: str, actor: str) -> list[str]:
    """Closes the untouched ones among these tasks; returns their keys."""
    shut: list[str] = []
    for chunk in _chunks(keys):
        rows = connection.execute(sa.select(tasks).where(tasks.c.key.in_(chunk), tasks.c.status == "open")).all()
        for row in rows:
            dismiss(connection, row.key, when, why)
            sent = row.remote_id is not None or connection.scalar(sa.select(sa.func.count()).where(
                outbox.c.key == row.key, outbox.c.state.in_(("in_flight", "ambiguous", "confirmed"))))
            if sent:
                queue(connection, row.key, "close", row.content_hash, when)
            else:
                connection.execute(outbox.update().where(outbox.c.key == row.key, outbox.c.state == "pending").values(
                    state="dead", why=why, updated_at=when))
            shut.append(row.key)
        record(connection, when, actor, "close", [
            {"key": row.key, "before": {"status": row.status}, "after": {"status": "dismissed", "note": why}}
            for row in rows])
    return shut


def _suppress(connection: sa.Connection, account_id: str, reason: str, starts_at: str, until: str | None) -> None:
    connection.execute(suppressions.delete().where(suppressions.c.account_id == account_id))
    connection.execute(suppressions.insert().values(
        account_id=account_id, reason=reason, starts_at=starts_at, until=until))
    record(connection, starts_at, "churnkit", "suppress", [
        {"key": None, "before": None, "after": {"account_id": account_id, "reason": reason, "until": until}}])


def _task(row: Any) -> Task:
    """The task as it stands: churnkit's content, and what people changed."""
    task = Task.from_dict(json.loads(row.content))
    return replace(task, status=row.status, disposition=row.disposition, owner=row.owner or task.owner,
                   due=dt.date.fromisoformat(row.due) if row.due else task.due)


def _when(at: dt.datetime | None, given: Iterable[Task]) -> str:
    if at is not None:
        return stamp(at)
    times = [task.scored_at for task in given if task.scored_at]
    if not times:
        raise OutreachError("put: none of the tasks says when it was planned. Pass the time: put(tasks, at=...).")
    return max(stamp(dt.datetime.fromisoformat(time)) for time in times)


def _chunks(keys: Sequence[str]) -> Iterable[Sequence[str]]:
    return (keys[start:start + _CHUNK] for start in range(0, len(keys), _CHUNK))
