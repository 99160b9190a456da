"""Sending: what waits goes to the CRM in batches, each task once whatever breaks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from churnkit.outreach.chain import record
from churnkit.outreach.crm.base import CrmDownError, CrmRefusedError, CrmUnsureError, Item, Remote, Result
from churnkit.outreach.ledger import outbox as rows_of
from churnkit.outreach.ledger import stamp, tasks, writing
from churnkit.outreach.life import lawful
from churnkit.outreach.look import take_deletion
from churnkit.outreach.moves import Entry, closing_words, dismiss, entries, queue, suppressed
from churnkit.outreach.runs import ROUNDS, Run, pause
from churnkit.outreach.task import CLOSED

_IN_DOUBT = ("in_flight", "ambiguous")
GIVE_UP = 20
"""After so many attempts a row is dead: a person must look at it."""


def settle_doubts(run: Run) -> None:
    """What was sent without a clear reply is looked up by key: found, it is adopted; not found, it is sent again.

    A CRM that shows a new task late is given the time for it first. One that cannot be asked takes a write that comes
    twice for one, so there it is simply sent again.
    """
    waited = False
    for batch in _rows(run, _IN_DOUBT):
        if run.crm.capabilities.lag and not waited:
            run.clock.sleep(run.crm.capabilities.lag.total_seconds())
            waited = True
        _settle(run, batch)


def _settle(run: Run, batch: Sequence[Entry]) -> list[Entry]:
    """Adopts those of a batch that are in the CRM; returns the others, which wait to be sent again."""
    found = run.crm.find([entry.key for entry in batch]) if run.crm.capabilities.finds else {}
    marks, absent = [], []
    for entry in batch:
        remote = found.get(entry.key)
        if remote is None:
            why = "not in the CRM" if run.crm.capabilities.finds else "sent again: the CRM takes both for one"
            marks.append(_Mark(entry, "pending", why))
            absent.append(entry)
            continue
        done = arrived(entry, remote)
        run.report.adopted += done
        marks.append(_Mark(entry, "confirmed" if done else "pending", "found in the CRM", remote,
                           entry.content_hash if done else remote.content_hash))
    _keep(run, marks)
    return absent


def _rows(run: Run, states: Sequence[str]) -> Iterator[list[Entry]]:
    """The outbox's rows in these states, a batch at a time."""
    last = 0
    while True:
        with run.box.engine.connect() as connection:
            batch = entries(connection, states, last, run.crm.capabilities.batch)
        if not batch:
            return
        last = batch[-1].id
        yield batch


def arrived(entry: Entry, remote: Remote) -> bool:
    """Whether the CRM's copy shows that the write was done."""
    if _shuts(entry):
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
            run.told(run.report)
        if attempt == ROUNDS - 1 or run.box.waiting() == 0:
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
            _halve(run, batch, str(refused))
            return
        results = [Result(batch[0].key, "refused", why=str(refused))]
    said = {result.key: result for result in results}
    _keep(run, [_became(run, entry, said.get(entry.key)) for entry in batch])


def _halve(run: Run, batch: Sequence[Entry], why: str) -> None:
    """Sends a batch that was refused as a whole in two halves, without those rows that the CRM took all the same."""
    _keep(run, [_Mark(entry, "ambiguous", why, tried=False) for entry in batch])
    rest = list(batch)
    if run.crm.capabilities.finds and batch[0].remote_id is None:
        if lag := run.crm.capabilities.lag.total_seconds():  # what it took may not be to be seen yet
            run.clock.sleep(lag)
        rest = _settle(run, batch)
    _keep(run, [_Mark(entry, "in_flight", why, tried=False) for entry in rest])
    middle = max(1, len(rest) // 2)
    for half in (rest[:middle], rest[middle:]):
        _send(run, half)


def _closing(entry: Entry) -> str:
    """The words with which the CRM's copy is closed; empty where it is not."""
    return closing_words(entry.task.status, entry.task.disposition, entry.note) if _shuts(entry) else ""


def _shuts(entry: Entry) -> bool:
    """Whether it is still to be closed: a person may have taken it up again since that was queued."""
    return entry.action == "close" and entry.task.status in CLOSED


def _became(run: Run, entry: Entry, result: Result | None) -> _Mark:
    """What a result means for its row, counted in the report."""
    if result is None:
        return _Mark(entry, "ambiguous", "the CRM did not say what became of it")
    if result.state in {"again", "unsent"}:
        return _Mark(entry, "pending", result.why, tried=result.state == "again")
    if result.state == "doubt":
        return _Mark(entry, "ambiguous", result.why)
    if result.state == "gone":  # whether a person deleted it is for the next look to say
        return _Mark(entry, "dropped", result.why or "it is not in the CRM any more", gone=True)
    if result.state == "refused":
        run.report.refused += 1
        return _Mark(entry, "rejected", result.why)
    run.report.closed += _shuts(entry)
    run.report.created += not _shuts(entry) and entry.remote_id is None
    run.report.updated += not _shuts(entry) and entry.remote_id is not None
    return _Mark(entry, "confirmed", None, result.remote or Remote(entry.key, entry.key, ""), entry.content_hash)


def _claim(run: Run, after: int) -> tuple[list[Entry], int]:
    """The next batch, marked as being under way, and the last row looked at; below 0 where there is none.

    What must not be sent any more is taken out of the queue.
    """
    claimed: dict[str, Entry] = {}
    marks: list[_Mark] = []
    perhaps: list[Entry] = []
    with writing(run.box.engine) as connection:
        run.lease.renew(connection)
        waiting = entries(connection, ("pending",), after, run.crm.capabilities.batch)
        quiet = suppressed(connection, run.when, {entry.task.account_id for entry in waiting}, stamp(run.clock.now()))
        doubtful = _in_doubt(connection, waiting)
        for entry in waiting:
            if entry.key in claimed or entry.key in doubtful or entry.task.approval == "pending":
                continue  # an earlier row of the task is on its way, or nobody approved it: its turn comes after that
            blind = not run.crm.capabilities.finds and (entry.action == "close" or entry.attempts > 0)
            stopped = entry.task.account_id in quiet or entry.task.status in CLOSED
            if entry.remote_id is None and stopped and not (blind and entry.action == "close"):
                perhaps += [entry] if blind else []
                why = f"not sent: {quiet.get(entry.task.account_id, 'it was closed before it was sent')}"
                run.report.withheld += 1
                begun = entry.task.status not in {"open", *CLOSED}  # then it is a person's, and theirs to end
                marks.append(_Mark(entry, "rejected" if begun else "dead", why, withheld=not begun))
            elif entry.action != "close" and entry.task.status in CLOSED:
                marks.append(_Mark(entry, "dropped", "it is closed: what a person ended stays as it is", tried=False))
            elif not _shuts(entry) and entry.sent_hash == entry.content_hash:
                run.report.unchanged += 1
                marks.append(_Mark(entry, "confirmed", "nothing had changed"))
            elif entry.attempts >= GIVE_UP:
                run.report.refused += 1
                marks.append(_Mark(entry, "dead", f"given up after {entry.attempts} attempts: {entry.why}"))
            else:
                marks.append(_Mark(entry, "in_flight", None))
                claimed[entry.key] = entry
        _write_marks(run, connection, marks)
        for entry in perhaps:  # it was sent, and nobody can ask whether it arrived: then it must not stay open there
            queue(connection, entry.key, "close", entry.content_hash, run.when)
    return list(claimed.values()), waiting[-1].id if waiting else -1


def _in_doubt(connection: sa.Connection, waiting: Sequence[Entry]) -> set[str]:
    """The tasks among these that were sent without a clear reply: sent again now, they could stand there twice."""
    keys = [entry.key for entry in waiting]
    states = rows_of.c.state.in_(_IN_DOUBT)
    return set(connection.scalars(sa.select(rows_of.c.key).where(states, rows_of.c.key.in_(keys))))


@dataclass(frozen=True)
class _Mark:
    """A row's new state, why, and, where the CRM showed the task, what it holds; `tried` where that was an attempt.

    `withheld` closes a task that may not be sent any more; `gone` is one that a person deleted in the CRM.
    """

    entry: Entry
    state: str
    why: str | None
    remote: Remote | None = None
    sent_hash: str | None = None
    tried: bool = True
    withheld: bool = False
    gone: bool = False


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
    if not run.crm.capabilities.finds:  # else it is the next look that tells a deletion from a restored backup
        run.report.gone += sum(take_deletion(run, connection, mark.entry.key) for mark in marks if mark.gone)
    record(connection, run.when, f"sync:{run.crm.name}", "", [
        {"what": "withheld" if mark.withheld else mark.state, "key": mark.entry.key,
         "before": {"state": mark.entry.state}, "after": {
             "action": mark.entry.action, "content_hash": mark.entry.content_hash, "why": mark.why,
             **({"remote_id": mark.remote.remote_id, "version": mark.remote.version} if mark.remote else {})}}
        for mark in marks])


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
