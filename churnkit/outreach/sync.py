"""The sync: what waits in the outbox goes to the CRM, each task once, and people's answers come home."""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import io
import json
import logging
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa

from churnkit.errors import OutreachError
from churnkit.outreach import home, ledger
from churnkit.outreach.budget import Budget, alone_until, leave_alone
from churnkit.outreach.chain import record
from churnkit.outreach.crm.base import Crm, Metered, Remote
from churnkit.outreach.crm.files import write_atomically
from churnkit.outreach.crm.words import cell, plain
from churnkit.outreach.lease import Lease
from churnkit.outreach.ledger import stamp, tasks, writing
from churnkit.outreach.look import changed_at, keep_newest, look, take_deletion
from churnkit.outreach.moves import CHUNK, Answer, answer, closing_words, recognise, suppressed
from churnkit.outreach.outbox import Outbox
from churnkit.outreach.push import arrived, push
from churnkit.outreach.runs import Clock, Enough, Run, SyncReport, batches, patiently
from churnkit.outreach.status import Rules, remember
from churnkit.outreach.task import CLOSED
from churnkit.schemas import raw_table

log = logging.getLogger("churnkit")
_EVERY = 5.0
"""Seconds between two words about how far a run has come."""


class SystemClock:
    """The real one."""

    def now(self) -> dt.datetime:
        """The moment, in UTC."""
        return dt.datetime.now(dt.UTC)

    def monotonic(self) -> float:
        """Seconds that only go on, whatever happens to the wall clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Waits."""
        time.sleep(seconds)


def sync(outbox: Outbox, crm: Crm, *, at: dt.datetime, clock: Clock | None = None, dry_run: bool = False,
         rules: Rules | None = None) -> SyncReport:
    """Brings the CRM and the outbox together; a second run with nothing changed writes nothing.

    First comes a look whether what was sent is still there, then answers are pulled, then what an earlier run left in
    doubt is looked up by key and adopted or queued again, then what is pending is sent.

    Args:
        outbox: Where tasks wait.
        crm: Where they go.
        at: The run's moment, for audit and outcomes: nothing is recorded as later than it.
        clock: For the lease and for waits.
        dry_run: Write nothing, here or there; the report's `differences` say what would be done.
        rules: Which portal is meant, and what else the workspace says of its sync.

    Raises:
        BusyError: If another sync holds the lease.
        OutreachError: If the CRM is another portal than the one that is meant, or cannot be used at all.
    """
    clock, rules = clock or SystemClock(), rules or Rules()
    if dry_run:
        with metered(outbox, crm, clock):
            portal = crm.check()
            rules.refuse_other(portal)
            with outbox.engine.connect() as connection:
                home.refuse_other(connection, crm, portal)
                quiet = suppressed(connection, stamp(at), now=stamp(clock.now()))
            return SyncReport(where=portal.name, differences=_differences(outbox, crm, quiet))
    with opened(outbox, crm, at=at, clock=clock) as run:
        report, began, whole = run.report, run.clock.now(), False
        if alone := alone_until(outbox.engine, crm.name, began):
            report.problems.append(f"The CRM wants to be left alone until {alone[:19]}. What is left waits for a run "
                                   "after that.")
            if not crm.capabilities.finds:  # its answers come to us: they ask nothing of it
                with contextlib.suppress(Enough):
                    patiently(run, lambda: _pull(run, rules.snooze_for))
        else:
            with contextlib.suppress(Enough):
                patiently(run, lambda: _check(run, rules))
                patiently(run, lambda: look(run))
                patiently(run, lambda: _pull(run, rules.snooze_for))
                patiently(run, lambda: push(run))
                whole = _all_went(run)
        if run.down is not None:
            leave_alone(outbox.engine, crm.name, run.clock.now(), run.down)
        remember(outbox, crm.name, began, whole=whole)
    report.again = outbox.waiting()
    return report


@contextlib.contextmanager
def opened(outbox: Outbox, crm: Crm, *, at: dt.datetime, clock: Clock | None = None) -> Iterator[Run]:
    """A run that holds the lease, with the connector's budget where the CRM has a limit; the connector is closed after.

    Raises:
        BusyError: If another run holds the lease.
    """
    clock = clock or SystemClock()
    with Lease(outbox.engine, crm.name, clock.now).held() as lease, metered(outbox, crm, clock):
        try:
            yield Run(outbox, crm, at, clock, lease, SyncReport(where=crm.name), Progress(outbox, clock))
        except BaseException:
            with contextlib.suppress(OutreachError):  # what went wrong first is what is told
                crm.close()
            raise
        crm.close()


class Progress:
    """Says every few seconds how far a run has come, so that nobody wonders whether it hangs."""

    def __init__(self, outbox: Outbox, clock: Clock) -> None:
        self._outbox, self._clock, self._said = outbox, clock, clock.monotonic()

    def __call__(self, report: SyncReport) -> None:
        """After each batch."""
        if self._clock.monotonic() - self._said < _EVERY:
            return
        self._said = self._clock.monotonic()
        log.info("sync to %s: %d sent, %d answers taken over, %d wait", report.where, report.writes, report.answers,
                 self._outbox.waiting())


@contextlib.contextmanager
def metered(outbox: Outbox, crm: Crm, clock: Clock) -> Iterator[None]:
    """Gives the connector its budget, where the CRM has a limit."""
    if crm.capabilities.rate is None:
        yield
        return
    budget = Budget(outbox.engine, crm.name, crm.capabilities.rate, clock)
    cast(Metered, crm).spend = budget.spend
    try:
        yield
    finally:
        budget.done()


def _check(run: Run, rules: Rules) -> None:
    portal = run.crm.check()
    run.report.where = portal.name
    rules.refuse_other(portal)
    with writing(run.box.engine) as connection:
        home.refuse_other(connection, run.crm, portal)
        home.settle(connection, run.crm, portal)


def _all_went(run: Run) -> bool:
    """Whether nothing waits any more; says else how much does, and why."""
    left = run.box.waiting()
    if left:
        waits = ledger.outbox.c.state.in_(ledger.WAITING)
        with run.box.engine.connect() as connection:
            why = connection.scalar(sa.select(ledger.outbox.c.why).where(waits).order_by(
                ledger.outbox.c.id.desc()).limit(1))
        run.report.problems.append(f"{left} writes did not go through, and wait for the next run. The newest reason: "
                                   f"{why or 'none was given'}.")
    return left == 0


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
    if not rows and not path.exists():
        return 0  # no table is better than an empty one
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(names)
    for row in rows:  # only the note is free text; an id with a quotation mark before it would be another id
        table.writerow([cell(row.note) if name == "note" else getattr(row, name) for name in names])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.getvalue())
    return len(rows)


def _pull(run: Run, snooze_for: dt.timedelta) -> None:
    """People's answers and edits, each kept once: what is known already is no news."""
    name = f"cursor:{run.crm.name}"
    with run.box.engine.connect() as connection:
        cursor = ledger.noted(connection, name)
    for page in run.crm.changes(cursor):
        with writing(run.box.engine) as connection:
            run.lease.renew(connection)
            for batch in batches(page.remotes, CHUNK):
                keys = [remote.key for remote in batch]
                known = {row.key: row for row in connection.execute(sa.select(tasks).where(tasks.c.key.in_(keys)))}
                for remote in map(_clean, batch):
                    if remote.problem:
                        run.report.problems.append(remote.problem)
                    elif remote.key in known and remote.deleted:
                        run.report.gone += take_deletion(run, connection, remote.key)
                    elif remote.key in known:  # else it is not of this outbox
                        if known[remote.key].remote_id is None and run.crm.capabilities.finds:
                            recognise(connection, remote.key, run.when, f"sync:{run.crm.name}")
                        _take_answer(run, connection, remote, known[remote.key], snooze_for)
                        _take_edit(run, connection, remote, known[remote.key])
            ledger.note(connection, name, page.cursor)
            keep_newest(connection, run.crm.name, changed_at(page.remotes))
        run.told(run.report)


def _take_answer(run: Run, connection: sa.Connection, remote: Remote, row: sa.Row[Any],
                 snooze_for: dt.timedelta) -> None:
    """What the CRM says of a task, where it is news: neither what the ledger holds, nor what it said the last time.

    The ledger may have moved on since, by a command or by waking: then the CRM repeats itself, and nobody answered.
    """
    said = [remote.status, remote.disposition, remote.note]
    before = json.loads(row.seen) if row.seen else ["open", None, None]
    echo = row.status in CLOSED and said[:2] == ["dismissed", None] and _same_words(
        remote.note, closing_words(row.status, row.disposition, row.note))
    if said not in (before, [row.status, row.disposition, row.note]) and not echo:
        when = max(min(stamp(remote.modified_at or run.at), run.when), row.created_at)  # never before it was planned
        until = stamp(run.at + snooze_for) if remote.status == "snoozed" else None
        given = Answer(remote.status, remote.disposition, remote.note, when, run.when, remote.by or run.crm.name, until)
        try:
            with connection.begin_nested():  # of what may not be nothing stays
                run.report.answers += answer(connection, remote.key, given)
        except OutreachError as error:
            run.report.problems.append(str(error))
            return
    if said != before:
        connection.execute(tasks.update().where(tasks.c.key == remote.key).values(seen=json.dumps(said)))


def _take_edit(run: Run, connection: sa.Connection, remote: Remote, row: sa.Row[Any]) -> None:
    before = {"owner": row.owner, "due": row.due}
    after = {"owner": remote.owner or row.owner, "due": remote.due.isoformat() if remote.due else row.due}
    if before != after:
        connection.execute(tasks.update().where(tasks.c.key == remote.key).values(**after, updated_at=run.when))
        record(connection, run.when, remote.by or run.crm.name, "edit",
               [{"key": remote.key, "before": before, "after": after}])
        run.report.edits += 1


def _clean(remote: Remote) -> Remote:
    """The same without signs that no database can hold: a person may write anything."""
    texts = {name: getattr(remote, name) for name in ("note", "by", "owner", "problem")}
    words: dict[str, Any] = {name: plain(text) for name, text in texts.items() if text}
    return replace(remote, **words)


def _same_words(theirs: str | None, ours: str) -> bool:
    """Whether a note is ours, as a CRM gives it back: on one line or several, and perhaps cut."""
    said, meant = " ".join((theirs or "").split()), " ".join(plain(ours).split())
    cut = said.removesuffix("[...]").rstrip()
    return said == meant or (said.endswith("[...]") and meant.startswith(cut))


def _differences(outbox: Outbox, crm: Crm, quiet: Collection[str]) -> list[dict[str, str]]:
    """What a run would do, read only; to the `quiet` accounts nothing new is sent."""
    waiting, table = outbox.pending(), []
    found: dict[str, Remote] = {}
    for batch in batches(waiting, crm.capabilities.batch) if crm.capabilities.finds else ():
        found.update(crm.find([entry.key for entry in batch]))
    for entry in waiting:
        there = entry.key in found
        todo = "close" if entry.action == "close" else "update" if there else "create"
        if there and arrived(entry, found[entry.key]):
            todo = "adopt"
        elif not there and entry.remote_id is None and (entry.task.status in CLOSED or entry.task.account_id in quiet):
            todo = "withhold"
        table.append({"action": todo, "key": entry.key, "account_id": entry.task.account_id, "play": entry.task.play,
                      "owner": entry.task.owner, "due": entry.task.due.isoformat(), "title": entry.task.title})
    return table
