"""The sync: what waits in the outbox goes to the CRM, each task once, and people's answers come home."""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import io
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa

from churnkit.errors import OutreachError
from churnkit.outreach import ledger
from churnkit.outreach.crm.base import Crm, CrmDownError, CrmRefusedError, CrmUnsureError, Item, Remote, Result
from churnkit.outreach.crm.files import cell, write_atomically
from churnkit.outreach.lease import Lease
from churnkit.outreach.ledger import outbox as rows_of
from churnkit.outreach.ledger import record, stamp, tasks, writing
from churnkit.outreach.outbox import CLOSED, Answer, Entry, Outbox, answer, dismiss, entries, suppressed
from churnkit.schemas import raw_table

ROUNDS = 4
"""How often one run tries again what failed for a passing reason."""
GIVE_UP = 20
"""After so many attempts a row is dead: a person must look at it."""
_CHUNK = 500


class Clock(Protocol):
    """The wall clock, for leases and waits alone; tests turn it."""

    def now(self) -> dt.datetime:
        """The moment, in UTC."""
        ...

    def sleep(self, seconds: float) -> None:
        """Waits."""
        ...


class SystemClock:
    """The real one."""

    def now(self) -> dt.datetime:
        """The moment, in UTC."""
        return dt.datetime.now(dt.UTC)

    def sleep(self, seconds: float) -> None:
        """Waits."""
        time.sleep(seconds)


@dataclass
class SyncReport:
    """What one run did, by number of tasks; `problems` are for a person, `differences` are a dry run's table."""

    where: str = ""
    created: int = 0
    updated: int = 0
    closed: int = 0
    adopted: int = 0
    unchanged: int = 0
    answers: int = 0
    edits: int = 0
    refused: int = 0
    withheld: int = 0
    again: int = 0
    problems: list[str] = field(default_factory=list)
    differences: list[dict[str, str]] = field(default_factory=list)

    @property
    def writes(self) -> int:
        """How many tasks were written in the CRM."""
        return self.created + self.updated + self.closed


@dataclass
class _Run:
    """One run's belongings."""

    box: Outbox
    crm: Crm
    at: dt.datetime
    clock: Clock
    lease: Lease
    report: SyncReport

    @property
    def when(self) -> str:
        return stamp(self.at)


def sync(outbox: Outbox, crm: Crm, *, at: dt.datetime, clock: Clock | None = None, dry_run: bool = False) -> SyncReport:
    """Brings the CRM and the outbox together; a second run with nothing changed writes nothing.

    Answers are pulled first, then what an earlier run left in doubt is looked up by key and adopted or queued again,
    then what is pending is sent.

    Args:
        outbox: Where tasks wait.
        crm: Where they go.
        at: The run's moment, for audit and outcomes: nothing is recorded as later than it.
        clock: For the lease and for waits.
        dry_run: Write nothing, here or there; the report's `differences` say what would be done.

    Raises:
        BusyError: If another sync holds the lease.
        OutreachError: If the CRM cannot be reached at all.
    """
    clock = clock or SystemClock()
    if dry_run:
        return SyncReport(where=crm.name, differences=_differences(outbox, crm))
    report = SyncReport()
    with Lease(outbox.engine, crm.name, clock.now).held() as lease:
        run = _Run(outbox, crm, at, clock, lease, report)
        report.where = crm.check()
        with contextlib.suppress(_Enough):
            _patiently(run, lambda: _pull(run))
            _patiently(run, lambda: _push(run))
        crm.done()
        with writing(outbox.engine) as connection:
            ledger.note(connection, f"synced:{crm.name}", run.when)
    report.again = len(outbox.pending())
    return report


def write_outcomes(outbox: Outbox, path: str | Path) -> int:
    """Writes the raw table outreach_outcomes as CSV, whole or not at all; returns its number of rows.

    Args:
        outbox: Where the outcomes are.
        path: The file, or the folder of raw tables.
    """
    path = Path(path)
    path = path if path.suffix else path / "outreach_outcomes.csv"
    names = raw_table("outreach_outcomes").names
    rows = outbox.outcomes()
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(names)
    table.writerows([cell(getattr(row, name)) for name in names] for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.getvalue())
    return len(rows)


class _Enough(Exception):  # noqa: N818 -- no error: the run ends in order, the rest waits for the next one
    """The CRM wants no more for now."""


def _patiently(run: _Run, step: Callable[[], None]) -> None:
    """Runs a step, again after a pause where the CRM is down; after a few times the rest waits for the next run."""
    for attempt in range(ROUNDS):
        try:
            step()
        except CrmDownError as down:
            if not down.today or attempt == ROUNDS - 1:
                run.report.problems.append(f"{down} What is left waits for the next run.")
                raise _Enough from None
            _pause(run, attempt, down.wait)
        else:
            return


def _pause(run: _Run, attempt: int, wait: float | None = None) -> None:
    """Waits as long as the CRM asked for, else longer each time, and never quite alike."""
    jitter = random.uniform(0.5, 1.5)  # noqa: S311 -- spreads retries, hides nothing
    run.clock.sleep(min(2.0**attempt * jitter if wait is None else wait, 60.0))


def _pull(run: _Run) -> None:
    """People's answers and edits, each kept once: what is known already is no news."""
    name = f"cursor:{run.crm.name}"
    with run.box.engine.connect() as connection:
        cursor = connection.scalar(sa.select(ledger.notes.c.value).where(ledger.notes.c.name == name))
    found, following = run.crm.changes(cursor)
    with writing(run.box.engine) as connection:
        run.lease.renew(connection)
        for batch in _batches(found, _CHUNK):
            keys = [remote.key for remote in batch]
            known = {row.key: row for row in connection.execute(sa.select(tasks).where(tasks.c.key.in_(keys)))}
            for remote in batch:
                if remote.problem:
                    run.report.problems.append(remote.problem)
                elif remote.key in known:  # else it is not of this outbox
                    _take_answer(run, connection, remote, known[remote.key])
                    _take_edit(run, connection, remote, known[remote.key])
        ledger.note(connection, name, following)


def _take_answer(run: _Run, connection: sa.Connection, remote: Remote, row: sa.Row[Any]) -> None:
    if (remote.status, remote.disposition, remote.note) == (row.status, row.disposition, row.note):
        return
    when = min(stamp(remote.modified_at or run.at), run.when)
    given = Answer(remote.status, remote.disposition, remote.note, when, run.when, remote.by or run.crm.name)
    try:
        run.report.answers += answer(connection, remote.key, given)
    except OutreachError as error:
        run.report.problems.append(str(error))


def _take_edit(run: _Run, connection: sa.Connection, remote: Remote, row: sa.Row[Any]) -> None:
    before = {"owner": row.owner, "due": row.due}
    after = {"owner": remote.owner or row.owner, "due": remote.due.isoformat() if remote.due else row.due}
    if before != after:
        connection.execute(tasks.update().where(tasks.c.key == remote.key).values(**after, updated_at=run.when))
        record(connection, run.when, remote.by or run.crm.name, "edit",
               [{"key": remote.key, "before": before, "after": after}])
        run.report.edits += 1


def _settle_doubts(run: _Run) -> None:
    """What was sent without a clear reply is looked up by key: found, it is adopted; not found, it is sent again."""
    for batch in _batches(run.box.pending(("in_flight", "ambiguous")), run.crm.capabilities.batch):
        found = run.crm.find([entry.key for entry in batch])
        marks = []
        for entry in batch:
            remote = found.get(entry.key)
            if remote is None:
                marks.append(_Mark(entry, "pending", "not in the CRM"))
                continue
            done = _arrived(entry, remote)
            run.report.adopted += done
            marks.append(_Mark(entry, "confirmed" if done else "pending", "found in the CRM", remote,
                               entry.content_hash if done else remote.content_hash))
        _keep(run, marks)


def _arrived(entry: Entry, remote: Remote) -> bool:
    """Whether the CRM's copy shows that the write was done."""
    if entry.action == "close":
        return remote.status != "open"
    if remote.content_hash is None:
        return entry.action == "create"
    return remote.content_hash == entry.content_hash


def _push(run: _Run) -> None:
    """Sends what is pending, batch by batch, the oldest first; then, a few times, what did not go through."""
    for attempt in range(ROUNDS):
        _settle_doubts(run)
        last = 0
        while True:
            batch, last = _claim(run, last)
            if last < 0:
                break
            _send(run, [entry for entry in batch if entry.remote_id is None], run.crm.create)
            _send(run, [entry for entry in batch if entry.remote_id is not None], run.crm.update)
        if attempt == ROUNDS - 1 or not run.box.pending():
            return
        _pause(run, attempt)


def _send(run: _Run, batch: Sequence[Entry], write: Callable[[Sequence[Item]], Sequence[Result]]) -> None:
    """Writes a batch; one that is refused as a whole is halved until the bad row stands alone."""
    if not batch:
        return
    items = [Item(entry.task, entry.content_hash, entry.remote_id, entry.note if entry.action == "close" else "")
             for entry in batch]
    try:
        results = write(items)
    except CrmDownError as down:
        _keep(run, [_Mark(entry, "pending", str(down)) for entry in batch])
        raise
    except CrmUnsureError as unsure:
        _keep(run, [_Mark(entry, "ambiguous", str(unsure)) for entry in batch])
        return
    except CrmRefusedError as refused:
        if len(batch) > 1:
            middle = len(batch) // 2
            _send(run, batch[:middle], write)
            _send(run, batch[middle:], write)
            return
        results = [Result(batch[0].key, "refused", why=str(refused))]
    said = {result.key: result for result in results}
    _keep(run, [_became(run, entry, said.get(entry.key)) for entry in batch])


def _became(run: _Run, entry: Entry, result: Result | None) -> _Mark:
    """What a result means for its row, counted in the report."""
    if result is None:
        return _Mark(entry, "ambiguous", "the CRM did not say what became of it")
    if result.state == "again":
        return _Mark(entry, "pending", result.why)
    if result.state == "refused":
        run.report.refused += 1
        return _Mark(entry, "rejected", result.why)
    run.report.closed += entry.action == "close"
    run.report.created += entry.action != "close" and entry.remote_id is None
    run.report.updated += entry.action != "close" and entry.remote_id is not None
    return _Mark(entry, "confirmed", None, result.remote or Remote(entry.key, entry.key, ""), entry.content_hash)


def _claim(run: _Run, after: int) -> tuple[list[Entry], int]:
    """The next batch, marked as being under way, and the last row looked at; below 0 where there is none.

    What must not be sent any more is taken out of the queue.
    """
    claimed: dict[str, Entry] = {}
    marks: list[_Mark] = []
    with writing(run.box.engine) as connection:
        run.lease.renew(connection)
        waiting = entries(connection, ("pending",), after, run.crm.capabilities.batch)
        quiet = suppressed(connection, run.when)
        for entry in waiting:
            if entry.remote_id is None and (entry.task.account_id in quiet or entry.task.status in CLOSED):
                why = f"not sent: {quiet.get(entry.task.account_id, 'it was closed before it was sent')}"
                run.report.withheld += 1
                marks.append(_Mark(entry, "dead", why))
                dismiss(connection, entry.key, run.when, why)
            elif entry.key in claimed:
                continue  # an earlier row of the same task is on its way; this one's turn comes in the next round
            elif entry.action != "close" and entry.sent_hash == entry.content_hash:
                run.report.unchanged += 1
                marks.append(_Mark(entry, "confirmed", "nothing had changed"))
            elif entry.attempts >= GIVE_UP:
                run.report.refused += 1
                marks.append(_Mark(entry, "dead", f"given up after {entry.attempts} attempts: {entry.why}"))
            else:
                marks.append(_Mark(entry, "in_flight", None))
                claimed[entry.key] = entry
        _write_marks(run, connection, marks)
    return list(claimed.values()), waiting[-1].id if waiting else -1


@dataclass(frozen=True)
class _Mark:
    """A row's new state, why, and, where the CRM showed the task, what it holds."""

    entry: Entry
    state: str
    why: str | None
    remote: Remote | None = None
    sent_hash: str | None = None


def _keep(run: _Run, marks: Sequence[_Mark]) -> None:
    """Writes down what became of a batch, in one transaction."""
    with writing(run.box.engine) as connection:
        run.lease.renew(connection)
        _write_marks(run, connection, marks)


def _write_marks(run: _Run, connection: sa.Connection, marks: Sequence[_Mark]) -> None:
    if not marks:
        return
    connection.execute(
        rows_of.update().where(rows_of.c.id == sa.bindparam("_id")).values(
            state=sa.bindparam("_state"), why=sa.bindparam("_why"), attempts=sa.bindparam("_attempts"),
            updated_at=run.when),
        [{"_id": mark.entry.id, "_state": mark.state, "_why": mark.why,
          "_attempts": mark.entry.attempts + (mark.state != "in_flight")} for mark in marks])
    seen = [{"_key": mark.entry.key, "_remote": mark.remote.remote_id or mark.entry.key, "_sent": mark.sent_hash,
             "_version": mark.remote.version} for mark in marks if mark.remote]
    if seen:
        connection.execute(
            tasks.update().where(tasks.c.key == sa.bindparam("_key")).values(
                remote_id=sa.bindparam("_remote"), remote_version=sa.bindparam("_version"),
                sent_hash=sa.bindparam("_sent")), seen)
    record(connection, run.when, f"sync:{run.crm.name}", "", [
        {"what": mark.state, "key": mark.entry.key, "before": {"state": mark.entry.state}, "after": {
            "action": mark.entry.action, "content_hash": mark.entry.content_hash, "why": mark.why}} for mark in marks])


def _differences(outbox: Outbox, crm: Crm) -> list[dict[str, str]]:
    """What a run would do, read only."""
    waiting = outbox.pending()
    found = crm.find([entry.key for entry in waiting]) if waiting else {}
    table = []
    for entry in waiting:
        there = entry.key in found
        todo = "close" if entry.action == "close" else "update" if there else "create"
        if there and _arrived(entry, found[entry.key]):
            todo = "adopt"
        table.append({"action": todo, "key": entry.key, "account_id": entry.task.account_id, "play": entry.task.play,
                      "owner": entry.task.owner, "due": entry.task.due.isoformat(), "title": entry.task.title})
    return table


def _batches(all_: Sequence[Entry], size: int) -> Iterator[Sequence[Entry]]:
    return (all_[start:start + size] for start in range(0, len(all_), size))
