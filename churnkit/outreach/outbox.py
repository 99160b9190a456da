"""The outbox: tasks, what is still to be sent, what came of them, and an audit of every change, in one database."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from churnkit.errors import OutreachError
from churnkit.outreach import arms as draws
from churnkit.outreach import chain, ledger, moves, people
from churnkit.outreach.chain import record
from churnkit.outreach.kept import Carried, Checked, Outcome, Put
from churnkit.outreach.ledger import WAITING, audit, outcomes, stamp, tasks, writing
from churnkit.outreach.life import SNOOZE, standings
from churnkit.outreach.task import CLOSED, Task


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
            OutreachError: If no time can be told, or the outbox holds tasks of a later moment.
        """
        given = {task.key: task for task in tasks_}
        if not given:
            return Put()
        when = _when(at, given.values())
        with writing(self.engine) as connection:
            _refuse_going_back(connection, when)
            return _put(connection, given, when, run, actor)

    def carry_out(self, tasks: Iterable[Task], closings: Mapping[str, str], arms: Sequence[Mapping[str, Any]],
                  at: dt.datetime, run: str | None = None, actor: str = "plan") -> Carried:
        """Keeps a whole plan in one transaction: arms, tasks and ghosts, closings; the same plan again changes nothing.

        Args:
            tasks: New and changed tasks and ghosts, as for `put`.
            closings: Key = why. Only what nobody has begun is closed; that a begun one was left is in the audit.
            arms: The draw's rows, as for `keep_arms`.
            at: The plan's moment.
            run: The run's name, by which `recall` finds its tasks.
            actor: Who, for the audit.

        Raises:
            OutreachError: If the outbox holds tasks of a later moment, or an exposed arm would change.
        """
        given, when = {task.key: task for task in tasks}, stamp(at)
        with writing(self.engine) as connection:
            _refuse_going_back(connection, when)
            drawn = draws.keep(connection, arms, when, actor)
            put = _put(connection, given, when, run, actor)
            gone, left = moves.shut(connection, closings, when, actor)
        return Carried(put, tuple(gone), tuple(left), drawn)

    def arms(self) -> list[dict[str, Any]]:
        """The arm of every topmost parent account that was ever drawn, by account."""
        with self.engine.connect() as connection:
            return draws.kept(connection)

    def keep_arms(self, rows: Sequence[Mapping[str, Any]], at: dt.datetime) -> int:
        """Keeps drawn arms; those that are kept alike already change nothing. Returns how many were new or changed.

        Args:
            rows: top, arm, stratum, propensity, share, salt, and, where known, drawn_at and exposed_at.
            at: When; also the default of `drawn_at`.

        Raises:
            OutreachError: If one that is exposed would get another arm: it is final.
        """
        with writing(self.engine) as connection:
            return draws.keep(connection, rows, stamp(at), "draw")

    def tasks(self, *, status: Sequence[str] = (), account_id: str | None = None, run: str | None = None,
              ghosts: bool = True) -> list[Task]:
        """The tasks that fit, by account and key, as they stand now: people's changes are in them."""
        query = sa.select(tasks).order_by(tasks.c.account_id, tasks.c.key)
        for wanted, column in ((account_id, tasks.c.account_id), (run, tasks.c.run)):
            query = query if wanted is None else query.where(column == wanted)
        query = query.where(tasks.c.status.in_(status)) if status else query
        query = query if ghosts else query.where(tasks.c.ghost.is_(sa.false()))
        with self.engine.connect() as connection:
            return [moves.as_task(row) for row in connection.execute(query)]

    def open_tasks(self) -> list[Task]:
        """Every task that is not closed, ghosts too: what `plan` must know of."""
        return self.tasks(status=("open", "in_progress", "snoozed"))

    def pending(self, states: Sequence[str] = WAITING) -> list[moves.Entry]:
        """The outbox's rows in these states, the oldest first."""
        with self.engine.connect() as connection:
            return moves.entries(connection, states)

    def waiting(self, states: Sequence[str] = WAITING) -> int:
        """How many rows of the outbox are in these states."""
        with self.engine.connect() as connection:
            return connection.scalar(sa.select(sa.func.count()).where(ledger.outbox.c.state.in_(states))) or 0

    def record_outcome(self, key: str, *, status: str, at: dt.datetime, disposition: str | None = None,
                       note: str | None = None) -> bool:
        """Keeps what a person answered; False where it was known already, or the task is closed for good.

        `do_not_contact` suppresses the account from that moment on. A task that is snoozed so sleeps for life.SNOOZE.

        Raises:
            OutreachError: If there is no such task, the status or the disposition is not one of the contract's, or the
                task may not become that now.
        """
        until = stamp(at + SNOOZE) if status == "snoozed" else None
        given = moves.Answer(status, disposition, note, stamp(at), stamp(at), until=until)
        with writing(self.engine) as connection:
            return moves.answer(connection, key, given)

    def approve(self, key: str, by: str, at: dt.datetime) -> bool:
        """Lets a task that waits for approval be sent; False where it was approved already.

        Raises:
            OutreachError: If there is no such task, or it does not wait for approval.
        """
        with writing(self.engine) as connection:
            return people.approve(connection, key, by, stamp(at))

    def reject(self, key: str, by: str, why: str, at: dt.datetime, disposition: str | None = None) -> None:
        """Closes a task that waits for approval as dismissed; its outcome starts the cool-down.

        Raises:
            OutreachError: If there is no such task, it does not wait for approval, or the disposition does not fit.
        """
        with writing(self.engine) as connection:
            people.reject(connection, key, moves.Answer("dismissed", disposition, why, stamp(at), stamp(at), by))

    def snooze(self, key: str, until: dt.datetime, reason: str, by: str, at: dt.datetime) -> bool:
        """Lets a task sleep: until then its play asks nothing of the account. False where it sleeps so already.

        Raises:
            OutreachError: If there is no such task, it is closed, or `until` is not after `at`.
        """
        given = moves.Answer("snoozed", None, reason, stamp(at), stamp(at), by, stamp(until))
        with writing(self.engine) as connection:
            return people.snooze(connection, key, given)

    def wake(self, at: dt.datetime) -> list[str]:
        """Sets tasks whose sleep is over back to open, and returns their keys; the CRM is sent nothing for it."""
        with writing(self.engine) as connection:
            return people.wake(connection, stamp(at))

    def finish(self, key: str, *, status: str, by: str, at: dt.datetime, disposition: str | None = None,
               note: str | None = None) -> bool:
        """Closes a task by a person's word given here, not in the CRM; one that was sent is closed there too.

        Raises:
            OutreachError: As `record_outcome` does.
        """
        with writing(self.engine) as connection:
            return people.finish(connection, key, moves.Answer(status, disposition, note, stamp(at), stamp(at), by))

    def stages(self) -> dict[str, str]:
        """The stage of every task, by key; see life.STAGES."""
        with self.engine.connect() as connection:
            keys = connection.scalars(sa.select(tasks.c.key).order_by(tasks.c.key)).all()
            return {key: one.stage for chunk in moves.chunks(keys)
                    for key, one in standings(connection, chunk).items()}

    def outcomes(self) -> list[Outcome]:
        """Every outcome, in the order in which they came in."""
        with self.engine.connect() as connection:
            return [Outcome(*row[1:]) for row in connection.execute(sa.select(outcomes).order_by(outcomes.c.id))]

    def close_tasks(self, keys: Iterable[str], at: dt.datetime, why: str = "the cause is gone",
                    actor: str = "plan") -> int:
        """Closes tasks that nobody has begun; one that was sent is closed in the CRM too. Returns how many.

        For `Plan.moot`. A task that a person has touched stays as it is.

        Raises:
            OutreachError: If the outbox holds tasks of a later moment: what was right then is not moot.
        """
        when = stamp(at)
        with writing(self.engine) as connection:
            _refuse_going_back(connection, when)
            return len(moves.shut(connection, dict.fromkeys(keys, why), when, actor)[0])

    def runs(self) -> list[str]:
        """The names of the runs that planned tasks, the latest last."""
        query = sa.select(tasks.c.run).where(tasks.c.run.is_not(None)).group_by(tasks.c.run)
        with self.engine.connect() as connection:
            return list(connection.scalars(query.order_by(sa.func.max(tasks.c.created_at), tasks.c.run)))

    def recall(self, run: str, at: dt.datetime, actor: str = "recall") -> int:
        """Closes a run's untouched tasks, here and, where they were sent, in the CRM; returns how many."""
        when = stamp(at)
        with writing(self.engine) as connection:
            keys = connection.scalars(sa.select(tasks.c.key).where(tasks.c.run == run)).all()
            return len(moves.shut(connection, dict.fromkeys(keys, f"run {run} was recalled"), when, actor)[0])

    def suppress(self, account_id: str, reason: str, at: dt.datetime, until: dt.datetime | None = None) -> None:
        """Leaves an account in peace: nothing that is still in the outbox is sent to it."""
        with writing(self.engine) as connection:
            moves.suppress(connection, account_id, reason, stamp(at), stamp(until) if until else None)

    def suppressed(self, at: dt.datetime) -> dict[str, str]:
        """The accounts that may not be approached now, with the reason."""
        with self.engine.connect() as connection:
            return moves.suppressed(connection, stamp(at))

    def audit(self, key: str | None = None) -> list[dict[str, Any]]:
        """The audit's rows, of one task or all, in order; `before` and `after` are plain values."""
        query = sa.select(audit).order_by(audit.c.seq)
        with self.engine.connect() as connection:
            rows = connection.execute(query if key is None else query.where(audit.c.key == key)).mappings()
            return [{**row, "before": json.loads(row["before"]), "after": json.loads(row["after"])} for row in rows]

    def audit_length(self) -> int:
        """How many rows the audit has."""
        with self.engine.connect() as connection:
            return connection.scalar(sa.select(sa.func.max(audit.c.seq))) or 0

    def check_audit(self) -> Checked:
        """Verifies the chain, and holds every task as its rows alone tell it against the ledger, as of one moment.

        Raises:
            OutreachError: At the first row that was changed, removed, moved or slipped in.
        """
        server = self.engine.dialect.name == "postgresql"
        engine = self.engine.execution_options(isolation_level="REPEATABLE READ") if server else self.engine
        with engine.connect() as connection:
            rows = list(chain.walk(connection))
            told = chain.retell(rows)
            return Checked(len(rows), told, chain.differences(connection, told))

    def verify_audit(self) -> int:
        """Goes through the whole chain; returns its length.

        Raises:
            OutreachError: At the first row that was changed, removed, moved or slipped in.
        """
        with self.engine.connect() as connection:
            return chain.verify(connection)


def _put(connection: sa.Connection, given: Mapping[str, Task], when: str, run: str | None, actor: str) -> Put:
    """`Outbox.put` inside a transaction."""
    columns = sa.select(tasks.c.key, tasks.c.status, tasks.c.content_hash, tasks.c.content, tasks.c.approval)
    known = {row.key: row for chunk in moves.chunks(sorted(given))
             for row in connection.execute(columns.where(tasks.c.key.in_(chunk)))}
    new = [task for key, task in given.items() if key not in known]
    same = [key for key in known if known[key].content_hash == given[key].content_hash()]
    closed = [key for key in known if known[key].status in CLOSED and key not in same]
    changed = [given[key] for key in known if key not in same and key not in closed]
    moves.insert(connection, new, when, run)
    moves.change(connection, changed, when, {key for key in known if known[key].approval == "pending"})
    record(connection, when, actor, "put", [
        {"key": task.key, "before": None, "after": {**task.to_dict(), "run": run}} for task in new])
    record(connection, when, actor, "change", [
        {"key": task.key, "before": json.loads(known[task.key].content), "after": task.to_dict()} for task in changed])
    return Put(len(new), len(changed), len(same), len(closed))


def _refuse_going_back(connection: sa.Connection, when: str) -> None:
    newest = connection.scalar(sa.select(sa.func.max(tasks.c.created_at)))
    if newest is not None and when < newest:
        raise OutreachError(f"The outbox holds tasks planned for {newest[:10]}; planning for {when[:10]} after that "
                            "would undo them. To look back, plan with --dry-run; to go on, plan for "
                            f"{newest[:10]} or later.")


def _when(at: dt.datetime | None, given: Iterable[Task]) -> str:
    if at is not None:
        return stamp(at)
    times = [task.scored_at for task in given if task.scored_at]
    if not times:
        raise OutreachError("put: none of the tasks says when it was planned. Pass the time: put(tasks, at=...).")
    return max(stamp(dt.datetime.fromisoformat(time)) for time in times)
