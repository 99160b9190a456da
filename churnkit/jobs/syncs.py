"""The sync's stations: a run, dead letters, the state of it all, a run's recall, and mending by hand."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from churnkit.errors import OutreachError, did_you_mean
from churnkit.jobs.report import HELD_BACK, Report
from churnkit.jobs.workspace import open_crm, open_outbox, workspace
from churnkit.settings import Settings, load

_SHORT = 12
"""Digits of a key that are shown."""


def sync(settings: Settings, at: dt.datetime, *, dry_run: bool) -> Report:
    """Pending tasks to the CRM, answers back into the raw table outreach_outcomes."""
    from churnkit.outreach.status import Rules
    from churnkit.outreach.sync import sync as push
    from churnkit.outreach.sync import write_outcomes

    outbox, rules = open_outbox(settings), Rules.of(settings.crm_options)
    crm = open_crm(settings)
    done = push(outbox, crm, at=at, dry_run=dry_run, rules=rules)
    if not dry_run:
        write_outcomes(outbox, settings.path(settings.raw) / "outreach_outcomes.csv")
    counts = asdict(done)
    said = ", ".join(f"{count} {what}" for what, count in counts.items() if isinstance(count, int) and count)
    notes = [f"sync to {done.where}: {said or 'nothing to do'}.", *done.problems]
    if done.refused:
        notes.append("What was refused waits for a person: churnkit sync dead list.")
    return Report("sync", rows=list(done.differences), notes=notes, data=counts, code=HELD_BACK if done.problems else 0)


def poked(settings: Settings) -> bool:
    """Whether a signed message was received since this was asked the last time."""
    from churnkit.outreach.crm.inbox import inbox

    store = inbox(settings.crm_options, settings.root)
    store.lay()
    return store.poked()


def status(folder: Path, now: dt.datetime, every: dt.timedelta | None = None) -> Report:
    """The last run, the lag, what waits, and whether the sync is late; code HELD_BACK where it is, or is held."""
    from churnkit.outreach.status import Rules
    from churnkit.outreach.status import status as look

    settings = load(folder)
    found = look(open_outbox(settings), settings.crm, now, every or Rules.of(settings.crm_options).every)
    code = HELD_BACK if found.late or found.held else 0
    return Report("sync status", notes=found.sentences(), data=asdict(found), code=code)


def recall(folder: Path, run: str, at: dt.datetime, *, by: str) -> Report:
    """A run's untouched tasks are closed here, and by the next sync in the CRM.

    Raises:
        OutreachError: If no task is of that run; names the runs.
    """
    with workspace(folder) as settings:
        outbox = open_outbox(settings)
        runs = outbox.runs()
        if run not in runs:
            raise OutreachError(f"No task is of the run '{run}'.{did_you_mean(run, runs)} The latest runs: "
                                f"{', '.join(runs[-5:]) or 'none'}.")
        done = outbox.recall(run, at, actor=by)
    said = f"Recalled {run} by {by}: {done} closed, what people have begun stays. The next sync tells the CRM."
    return Report("sync recall", notes=[said], data={"run": run, "closed": done})


def repair(folder: Path, at: dt.datetime, *, by: str, deleted: bool = False) -> Report:
    """After the CRM's backup was restored: what is missing there is queued again, or let go where it was `deleted`."""
    from churnkit.outreach.repair import repair as mend
    from churnkit.outreach.status import Rules

    with workspace(folder) as settings:
        crm = open_crm(settings)
        done = mend(open_outbox(settings), crm, at=at, by=by, deleted=deleted, rules=Rules.of(settings.crm_options))
    said = (f"Repaired by {by}: {done.again} to be made again, {done.close} to be closed, {done.update} to be brought "
            f"up to date, {done.deleted} let go. The next sync sends it.")
    return Report("sync repair", notes=[said], data=asdict(done))


def rebuild(folder: Path, at: dt.datetime, *, by: str) -> Report:
    """A lost ledger is made anew from the tasks in the CRM."""
    from churnkit.outreach.repair import rebuild as make
    from churnkit.outreach.status import Rules

    with workspace(folder) as settings:
        crm = open_crm(settings)
        done = make(open_outbox(settings), crm, at=at, by=by, rules=Rules.of(settings.crm_options))
    said = (f"Taken in from the CRM by {by}: {done.rebuilt}. People's answers come with the next sync; the control "
            "group's draws and ghosts come back from a backup of the outbox alone.")
    notes = [said]
    if done.strange:
        notes.append(f"Not understood, and left alone: {len(done.strange)} tasks, such as {done.strange[0]}.")
    return Report("sync rebuild", notes=notes, data=asdict(done))


def dead_list(folder: Path) -> Report:
    """What no run tries again by itself, each with the reason."""
    from churnkit.outreach.dead import letters

    found = letters(open_outbox(load(folder)))  # only read: nobody is kept out
    rows = [{"key": one.key[:_SHORT], "action": one.action, "account": one.task.account_id, "why": one.why}
            for one in found]  # the reason is what counts: it gets the room, and stands whole below
    notes = [f"Dead letters: {len(found)}.", *dict.fromkeys(one.why for one in found)]
    if found:
        notes.append("Mend the reason and then: churnkit sync dead retry --by NAME; or give one up: churnkit sync dead "
                     "drop --key KEY --by NAME --why TEXT.")
    return Report("sync dead list", rows=rows, notes=notes, data={"letters": [
        {"key": one.key, "action": one.action, "state": one.state, "attempts": one.attempts, "why": one.why,
         "since": one.since, "there": one.there, "task": one.task.to_dict()} for one in found]})


def dead_retry(folder: Path, keys: Sequence[str] | None, at: dt.datetime, *, by: str) -> Report:
    """Dead letters, or all of them, wait to be sent again."""
    from churnkit.outreach import dead

    with workspace(folder) as settings:
        outbox = open_outbox(settings)
        done = dead.retry(outbox, _whole([one.key for one in dead.letters(outbox)], keys), by, at)
    return Report("sync dead retry", notes=[f"Put back by {by}: {len(done)}. The next sync sends them."],
                  data={"keys": done})


def dead_drop(folder: Path, keys: Sequence[str], at: dt.datetime, *, by: str, why: str) -> Report:
    """Dead letters are given up, and tasks that never came into the CRM are closed."""
    from churnkit.outreach import dead

    with workspace(folder) as settings:
        outbox = open_outbox(settings)
        done = dead.drop(outbox, _whole([one.key for one in dead.letters(outbox)], keys), by, why, at)
    return Report("sync dead drop", notes=[f"Dropped by {by}: {len(done)}. They are not sent any more."],
                  data={"keys": done})


def _whole(known: Sequence[str], beginnings: Sequence[str] | None) -> list[str]:
    """The dead letters' keys that begin so, one each; all of them where none is named."""
    if beginnings is None:
        return list(known)
    found = []
    for beginning in beginnings:
        keys = [key for key in known if beginning and key.startswith(beginning)]
        if len(keys) != 1:
            said = f"{len(keys)} dead letters begin with" if keys else "There is no dead letter"
            raise OutreachError(f"{said} '{beginning}'. {'Write more of the key' if keys else 'Look it up'}: "
                                "churnkit sync dead list.")
        found += keys
    return found
