"""Sending: what waits goes to the CRM in batches, each task once whatever breaks."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import sqlalchemy as sa

from churnkit.outreach.chain import record
from churnkit.outreach.crm.base import Crm, CrmDownError, CrmRefusedError, CrmUnsureError, Item, Remote, Result
from churnkit.outreach.lease import Lease
from churnkit.outreach.ledger import outbox as rows_of
from churnkit.outreach.ledger import stamp, tasks, writing
from churnkit.outreach.life import lawful
from churnkit.outreach.moves import Entry, closing_words, dismiss, entries, suppressed
from churnkit.outreach.outbox import Outbox
from churnkit.outreach.task import CLOSED

T = TypeVar("T")

ROUNDS = 4
"""How often one run tries again what failed for a passing reason."""
PATIENCE = 60.0
"""How many seconds one run waits at a time at most; where the CRM asks for more, the rest waits for a later run."""
GIVE_UP = 20
"""After so many attempts a row is dead: a person must look at it."""
CHUNK = 500


class Clock(Protocol):
    """Both clocks, for leases, waits and rate budgets alone; tests turn them."""

    def now(self) -> dt.datetime:
        """The moment, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that only go on."""
        ...

    def sleep(self, seconds: float) -> None:
        """Waits."""
        ...


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
class Run:
    """One run's belongings."""

    box: Outbox
    crm: Crm
    at: dt.datetime
    clock: Clock
    lease: Lease
    report: SyncReport
    down: CrmDownError | None = None

    @property
    def when(self) -> str:
        """The run's moment, as the database holds it."""
        return stamp(self.at)


class Enough(Exception):  # noqa: N818 -- no error: the run ends in order, the rest waits for the next one
    """The CRM wants no more for now."""


def patiently(run: Run, step: Callable[[], None]) -> None:
    """Runs a step, again after a pause where the CRM is down; after a few times the rest waits for the next run."""
    for attempt in range(ROUNDS):
        try:
            step()
        except CrmDownError as down:
            if not down.today or attempt == ROUNDS - 1 or (down.wait or 0) > PATIENCE:
                run.down = down
                run.report.problems.append(f"{down} What is left waits for the next run.")
                raise Enough from None
            pause(run, attempt, down.wait)
        else:
            return


def pause(run: Run, attempt: int, wait: float | None = None) -> None:
    """Waits as long as the CRM asked for, else longer each time, and never quite alike."""
    jitter = random.uniform(0.5, 1.5)  # noqa: S311 -- spreads retries, hides nothing
    run.clock.sleep(min(2.0**attempt * jitter, PATIENCE) if wait is None else wait)


def settle_doubts(run: Run) -> None:
    """What was sent without a clear reply is looked up by key: found, it is adopted; not found, it is sent again."""
    for batch in batches(run.box.pending(("in_flight", "ambiguous")), run.crm.capabilities.batch):
        found = run.crm.find([entry.key for entry in batch])
        marks = []
        for entry in batch:
            remote = found.get(entry.key)
            if remote is None:
                marks.append(_Mark(entry, "pending", "not in the CRM"))
                continue
            done = arrived(entry, remote)
            run.report.adopted += done
            marks.append(_Mark(entry, "confirmed" if done else "pending", "found in the CRM", remote,
                               entry.content_hash if done else remote.content_hash))
        _keep(run, marks)


def arrived(entry: Entry, remote: Remote) -> bool:
    """Whether the CRM's copy shows that the write was done."""
    if entry.action == "close":
        return remote.status != "open"
    if remote.content_hash is None:
        return entry.action == "create"
    return remote.content_hash == entry.content_hash


def push(run: Run) -> None:
    """Sends what is pending, batch by batch, the oldest first; then, a few times, what did not go through."""
    for attempt in range(ROUNDS):
        settle_doubts(run)
        last = 0
        while True:
            batch, last = _claim(run, last)
            if last < 0:
                break
            _send(run, [entry for entry in batch if entry.remote_id is None])
            _send(run, [entry for entry in batch if entry.remote_id is not None])
        if attempt == ROUNDS - 1 or not run.box.pending():
            return
        pause(run, attempt)


def _send(run: Run, batch: Sequence[Entry]) -> None:
    """Writes a batch; one that is refused as a whole is halved until the bad row stands alone."""
    if not batch:
        return
    items = [Item(entry.task, entry.content_hash, entry.remote_id, _closing(entry)) for entry in batch]
    try:
        results = run.crm.write(items)
    except CrmDownError as down:
        _keep(run, [_Mark(entry, "pending", str(down), tried=False) for entry in batch])  # it never saw them
        raise
    except CrmUnsureError as unsure:
        _keep(run, [_Mark(entry, "ambiguous", str(unsure)) for entry in batch])
        return
    except CrmRefusedError as refused:
        if len(batch) > 1:
            middle = len(batch) // 2
            _send(run, batch[:middle])
            _send(run, batch[middle:])
            return
        results = [Result(batch[0].key, "refused", why=str(refused))]
    said = {result.key: result for result in results}
    _keep(run, [_became(run, entry, said.get(entry.key)) for entry in batch])


def _closing(entry: Entry) -> str:
    """The words with which the CRM's copy is closed; empty where it is not."""
    return closing_words(entry.task.status, entry.task.disposition, entry.note) if entry.action == "close" else ""


def _became(run: Run, entry: Entry, result: Result | None) -> _Mark:
    """What a result means for its row, counted in the report."""
    if result is None:
        return _Mark(entry, "ambiguous", "the CRM did not say what became of it")
    if result.state == "again":
        return _Mark(entry, "pending", result.why)
    if result.state == "doubt":
        return _Mark(entry, "ambiguous", result.why)
    if result.state in {"refused", "gone"}:
        run.report.refused += 1
        return _Mark(entry, "rejected", result.why)
    run.report.closed += entry.action == "close"
    run.report.created += entry.action != "close" and entry.remote_id is None
    run.report.updated += entry.action != "close" and entry.remote_id is not None
    return _Mark(entry, "confirmed", None, result.remote or Remote(entry.key, entry.key, ""), entry.content_hash)


def _claim(run: Run, after: int) -> tuple[list[Entry], int]:
    """The next batch, marked as being under way, and the last row looked at; below 0 where there is none.

    What must not be sent any more is taken out of the queue.
    """
    claimed: dict[str, Entry] = {}
    marks: list[_Mark] = []
    with writing(run.box.engine) as connection:
        run.lease.renew(connection)
        waiting = entries(connection, ("pending",), after, run.crm.capabilities.batch)
        quiet = suppressed(connection, run.when)
        doubtful = _in_doubt(connection, waiting)
        for entry in waiting:
            if entry.key in claimed or entry.key in doubtful or entry.task.approval == "pending":
                continue  # an earlier row of the task is on its way, or nobody approved it: its turn comes after that
            if entry.remote_id is None and (entry.task.account_id in quiet or entry.task.status in CLOSED):
                why = f"not sent: {quiet.get(entry.task.account_id, 'it was closed before it was sent')}"
                run.report.withheld += 1
                marks.append(_Mark(entry, "dead", why, withheld=True))
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


def _in_doubt(connection: sa.Connection, waiting: Sequence[Entry]) -> set[str]:
    """The tasks among these that were sent without a clear reply: sent again now, they could stand there twice."""
    keys = [entry.key for entry in waiting]
    states = rows_of.c.state.in_(("in_flight", "ambiguous"))
    return set(connection.scalars(sa.select(rows_of.c.key).where(states, rows_of.c.key.in_(keys))))


@dataclass(frozen=True)
class _Mark:
    """A row's new state, why, and, where the CRM showed the task, what it holds; `tried` where that was an attempt.

    `withheld` closes a task that may not be sent any more.
    """

    entry: Entry
    state: str
    why: str | None
    remote: Remote | None = None
    sent_hash: str | None = None
    tried: bool = True
    withheld: bool = False


def _keep(run: Run, marks: Sequence[_Mark]) -> None:
    """Writes down what became of a batch, in one transaction."""
    with writing(run.box.engine) as connection:
        run.lease.renew(connection)
        _write_marks(run, connection, marks)


def _write_marks(run: Run, connection: sa.Connection, marks: Sequence[_Mark]) -> None:
    withheld = [mark for mark in marks if mark.withheld]
    with lawful(connection, [mark.entry.key for mark in withheld], "churnkit"):
        dismiss(connection, {mark.entry.key: mark.why or "" for mark in withheld}, run.when)
    with lawful(connection, [mark.entry.key for mark in marks], "crm"):
        _write_states(run, connection, marks)
    record(connection, run.when, f"sync:{run.crm.name}", "", [
        {"what": "withheld" if mark.withheld else mark.state, "key": mark.entry.key,
         "before": {"state": mark.entry.state}, "after": {
             "action": mark.entry.action, "content_hash": mark.entry.content_hash, "why": mark.why}} for mark in marks])


def _write_states(run: Run, connection: sa.Connection, marks: Sequence[_Mark]) -> None:
    if not marks:
        return
    connection.execute(
        rows_of.update().where(rows_of.c.id == sa.bindparam("_id")).values(
            state=sa.bindparam("_state"), why=sa.bindparam("_why"), attempts=sa.bindparam("_attempts"),
            updated_at=run.when),
        [{"_id": mark.entry.id, "_state": mark.state, "_why": mark.why,
          "_attempts": mark.entry.attempts + (mark.tried and mark.entry.state == "pending")} for mark in marks])
    seen = [{"_key": mark.entry.key, "_remote": mark.remote.remote_id or mark.entry.key, "_sent": mark.sent_hash,
             "_version": mark.remote.version} for mark in marks if mark.remote]
    if seen:
        connection.execute(
            tasks.update().where(tasks.c.key == sa.bindparam("_key")).values(
                remote_id=sa.bindparam("_remote"), remote_version=sa.bindparam("_version"),
                sent_hash=sa.bindparam("_sent")), seen)


def batches(all_: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """A sequence, some at a time."""
    return (all_[start:start + size] for start in range(0, len(all_), size))
