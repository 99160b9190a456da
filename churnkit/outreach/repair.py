"""Mending by hand: after the CRM's backup was restored, and after the ledger itself was lost."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from churnkit.errors import OutreachError
from churnkit.outreach import home, look, moves
from churnkit.outreach.chain import record
from churnkit.outreach.crm.base import Crm, Remote
from churnkit.outreach.ledger import note, outbox, stamp, tasks, writing
from churnkit.outreach.life import lawful
from churnkit.outreach.outbox import Outbox
from churnkit.outreach.runs import Clock, Run
from churnkit.outreach.status import Rules
from churnkit.outreach.sync import opened
from churnkit.outreach.task import CLOSED, LOCAL, THEIRS, Task


@dataclass
class Mended:
    """What was mended, by number of tasks: queued to be made again, closed or brought up to date there, or let go."""

    again: int = 0
    close: int = 0
    update: int = 0
    deleted: int = 0
    rebuilt: int = 0
    strange: list[str] = field(default_factory=list)


def repair(box: Outbox, crm: Crm, *, at: dt.datetime, by: str, deleted: bool = False,  # noqa: PLR0913 - by name
           clock: Clock | None = None, rules: Rules | None = None) -> Mended:
    """Brings a CRM that was set back to what the ledger knows; the next sync sends it.

    An open task that is missing is queued to be made again, with the owner and the due date that people had given it.
    One that a person had ended and that is open there again is queued to be closed. Older content is queued to be
    brought up to date. Owners and due dates of tasks that are there are the CRM's.

    Args:
        box: The outbox.
        crm: The CRM as it is now.
        at: The moment, for the audit.
        by: Who decides; it is kept with every task.
        deleted: The missing ones were deleted on purpose: they are dismissed and not made again.
        clock: For the lease and for waits.
        rules: Which portal is meant.

    Raises:
        OutreachError: If the CRM cannot be asked what it holds.
    """
    mended = Mended()
    with opened(box, crm, at=at, clock=clock) as run:
        portal = crm.check()
        (rules or Rules()).refuse_other(portal)
        with writing(box.engine) as connection:  # where it is broken off, the rest is no person's deletion
            moved = home.away_from(connection, crm, portal)
            if not moved:
                _refuse_blind(crm, "what is missing there cannot be told, so nothing is made again or let go.")
            if moved and deleted:
                raise OutreachError(f"The tasks stand in {moved}, and this is another portal: there nobody deleted "
                                    "them. Repair without --deleted makes them again here.")
            if moved:
                home.leave(connection, crm, run.when, by)
            look.hold(connection, crm.name, run.when, "a repair was begun and not ended")
        newest: dict[str, str] = {}
        for rows in look.sent(run):
            found = crm.find([row.key for row in rows]) if crm.capabilities.finds else {}
            newest |= look.changed_at(found.values())
            _mend(run, rows, found, by, mended, deleted=deleted)
        with writing(box.engine) as connection:
            home.settle(connection, crm, portal)
            look.release(connection, crm.name)
            look.keep_newest(connection, crm.name, newest, anew=True)
            note(connection, f"cursor:{crm.name}", None)
    return mended


def rebuild(box: Outbox, crm: Crm, *, at: dt.datetime, by: str, clock: Clock | None = None,
            rules: Rules | None = None) -> Mended:
    """Makes a lost ledger anew from the CRM, by key; what is in the ledger stays, and people's answers come with the
    next sync.

    The control group's draws and their ghosts are in no CRM: they come back from a backup of the outbox alone.

    Args:
        box: The outbox, as a rule an empty one.
        crm: The CRM that holds the tasks.
        at: The moment, for the audit.
        by: Who decides.
        clock: For the lease and for waits.
        rules: Which portal is meant.

    Raises:
        OutreachError: If the CRM cannot be read back at all.
    """
    _refuse_blind(crm, "the ledger cannot be made anew from it. Restore the outbox from a backup.")
    mended = Mended()
    with opened(box, crm, at=at, clock=clock) as run:
        portal = crm.check()
        (rules or Rules()).refuse_other(portal)
        with writing(box.engine) as connection:
            home.refuse_other(connection, crm, portal)
            home.settle(connection, crm, portal)
        for page in crm.changes(None):
            _take_in(run, page.remotes, by, mended)
        with writing(box.engine) as connection:
            note(connection, f"cursor:{crm.name}", None)
    return mended


def _refuse_blind(crm: Crm, so: str) -> None:
    if not crm.capabilities.finds:
        raise OutreachError(f"'{crm.name}' cannot be asked for its tasks: {so}")


def _mend(run: Run, rows: Sequence[Any], found: Mapping[str, Remote], by: str, mended: Mended, *,
          deleted: bool) -> None:
    """What is to be done about one batch, in one transaction."""
    missing = [row for row in rows if row.key not in found and row.status not in CLOSED]
    there = [(row, found[row.key]) for row in rows if row.key in found and not found[row.key].problem]
    with writing(run.box.engine) as connection:
        run.lease.renew(connection)
        if deleted:
            mended.deleted += sum(look.take_deletion(run, connection, row.key) for row in missing)
        else:
            _make_again(run, connection, missing, by)
            mended.again += len(missing)
        for row, remote in there:
            # What goes further there than here was said since: the next sync takes it over.
            news = row.status == "open" != remote.status or (row.status not in CLOSED and remote.status in CLOSED)
            said = row.seen if news else json.dumps([remote.status, remote.disposition, remote.note])
            connection.execute(tasks.update().where(tasks.c.key == row.key).values(
                seen=said, sent_hash=remote.content_hash, remote_id=remote.remote_id, remote_version=remote.version))
            if row.status in CLOSED and remote.status not in CLOSED:
                moves.queue(connection, row.key, "close", row.content_hash, run.when)
                mended.close += 1
            elif row.status not in CLOSED and remote.content_hash not in {None, row.content_hash}:
                moves.queue(connection, row.key, "update", row.content_hash, run.when)
                mended.update += 1


def _make_again(run: Run, connection: sa.Connection, missing: Sequence[Any], by: str) -> None:
    """Forgets that these were sent, and queues them."""
    keys = [row.key for row in missing]
    with lawful(connection, keys, "person"):
        connection.execute(tasks.update().where(tasks.c.key.in_(keys)).values(
            remote_id=None, remote_version=None, sent_hash=None, seen=None))
        for row in missing:
            moves.queue(connection, row.key, "create", row.content_hash, run.when)
    record(connection, run.when, by, "repair", [
        {"key": row.key, "before": {"remote_id": row.remote_id},
         "after": {"action": "create", "why": "the CRM was set back, and it is missing there"}} for row in missing])


def _take_in(run: Run, remotes: Iterable[Remote], by: str, mended: Mended) -> None:
    """The tasks of one page that the ledger does not hold."""
    given = {one.key: one for one in remotes if not one.problem}
    with writing(run.box.engine) as connection:
        run.lease.renew(connection)
        there = sa.select(tasks.c.key, tasks.c.remote_id).where(tasks.c.key.in_(list(given)))
        known = {row.key: row.remote_id for row in connection.execute(there)}
        for key in sorted(key for key, number in known.items() if number is None):
            moves.recognise(connection, key, run.when, by)
        for key in sorted(set(given) - set(known)):
            task = _told(given[key])
            if task is None:
                mended.strange.append(key)
                continue
            _adopt(run, connection, task, given[key], by)
            mended.rebuilt += 1


def _told(remote: Remote) -> Task | None:
    """The task as churnkit wrote it, open; None where the CRM does not hold enough to say."""
    content = {name: value for name, value in (remote.content or {}).items() if name not in THEIRS | LOCAL}
    try:
        task = Task.from_dict({**content, "key": remote.key, "status": "open"})
    except (TypeError, ValueError):
        return None
    words = (task.account_id, task.play, task.target, task.title, task.body, task.owner)
    return task if isinstance(task.due, dt.date) and all(isinstance(word, str) for word in words) else None


def _adopt(run: Run, connection: sa.Connection, task: Task, remote: Remote, by: str) -> None:
    """One task into the ledger, as sent; what people said of it is news to the next sync."""
    when = min(stamp(dt.datetime.fromisoformat(task.scored_at)) if task.scored_at else run.when, run.when)
    moves.insert(connection, [task], when, "rebuilt")
    record(connection, run.when, by, "put", [{"key": task.key, "before": None, "after": {
        **task.to_dict(), "run": "rebuilt"}}])
    with lawful(connection, [task.key], "crm"):
        connection.execute(outbox.update().where(outbox.c.key == task.key).values(
            state="confirmed", why="found in the CRM", updated_at=run.when))
        connection.execute(tasks.update().where(tasks.c.key == task.key).values(
            remote_id=remote.remote_id, remote_version=remote.version, sent_hash=remote.content_hash))
    record(connection, run.when, f"sync:{run.crm.name}", "confirmed", [
        {"key": task.key, "before": {"state": "pending"}, "after": {
            "action": "create", "content_hash": task.content_hash(), "why": "found in the CRM"}}])
    if (remote.status, remote.disposition) == ("dismissed", None) and remote.note and remote.by in {None, "churnkit"}:
        _closed_by_us(run, connection, task.key, remote)


def _closed_by_us(run: Run, connection: sa.Connection, key: str, remote: Remote) -> None:
    """What churnkit closed itself is nobody's answer: so it is told apart from what people dismissed."""
    with lawful(connection, [key], "churnkit"):
        moves.dismiss(connection, {key: remote.note or ""}, run.when)
        connection.execute(tasks.update().where(tasks.c.key == key).values(
            seen=json.dumps([remote.status, remote.disposition, remote.note])))
    record(connection, run.when, f"sync:{run.crm.name}", "close", [
        {"key": key, "before": {"status": "open"}, "after": {"status": "dismissed", "note": remote.note}}])
