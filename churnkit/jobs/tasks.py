"""Tasks as people see and move them by a command, and the audit of all that ever happened to them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from churnkit.errors import OutreachError, did_you_mean
from churnkit.jobs.report import HELD_BACK, Report
from churnkit.jobs.workspace import open_outbox, workspace
from churnkit.outreach.life import STAGES
from churnkit.outreach.outbox import Outbox
from churnkit.outreach.sync import write_outcomes
from churnkit.outreach.task import CLOSED
from churnkit.settings import load

_SHORT = 12
"""Digits of a key that are shown; any beginning that only one task has will do."""


def listing(folder: Path, *, stages: Sequence[str] = (), account: str | None = None,
            owner: str | None = None) -> Report:
    """The tasks in these stages, or all that are not closed, by due date."""
    unknown = [stage for stage in stages if stage not in STAGES or not stage]
    if unknown:
        raise OutreachError(f"'{unknown[0]}' is no stage of a task.{did_you_mean(unknown[0], STAGES)} Known: "
                            f"{', '.join(filter(None, STAGES))}.")
    outbox = open_outbox(load(folder))  # only read: nobody is kept out
    at, wanted = outbox.stages(), set(stages) or set(STAGES) - set(CLOSED)
    tasks = [task for task in outbox.tasks(account_id=account) if at[task.key] in wanted
             and owner in {None, task.owner}]
    rows = [{"key": task.key[:_SHORT], "stage": at[task.key], "due": task.due, "owner": task.owner,
             "account": task.account_id, "play": task.play, "until": (task.snoozed_until or "")[:10],
             "task": task.title} for task in sorted(tasks, key=lambda task: (task.due, task.account_id, task.key))]
    counted = {stage: sum(at[task.key] == stage for task in tasks) for stage in STAGES if stage}
    said = ", ".join(f"{count} {STAGES[stage]}" for stage, count in counted.items() if count)
    return Report("tasks", rows=rows, notes=[f"Tasks: {said or 'none'}."],
                  data={"tasks": [{**task.to_dict(), "stage": at[task.key]} for task in tasks]})


def show(folder: Path, key: str) -> Report:
    """One task in full: its brief, where it stands, and each thing that happened to it."""
    outbox = open_outbox(load(folder))
    key = _whole(outbox, key)
    [task] = [one for one in outbox.tasks() if one.key == key]
    stage, happened = outbox.stages()[key], outbox.audit(key)
    rows = [{"when": row["at"][:16].replace("T", " "), "who": row["actor"], "what": row["what"],
             "detail": _detail(row["after"])} for row in happened]
    until = f" until {task.snoozed_until[:10]}" if task.snoozed_until else ""
    notes = [f"Task {key} is {STAGES[stage]}{until}; due {task.due}, owner {task.owner}."]
    return Report("task", [f"### {task.title}\n\n{task.body}"], rows, notes,
                  {"task": task.to_dict(), "stage": stage, "audit": happened})


def approve(folder: Path, key: str, at: dt.datetime, *, by: str) -> Report:
    """Lets a task that waits for approval be sent by the next sync."""
    return _moved(folder, key, lambda outbox, whole: outbox.approve(whole, by, at),
                  "Approved by {by}; the next sync sends it.", by)


def reject(folder: Path, key: str, at: dt.datetime, *, by: str, why: str, disposition: str | None = None) -> Report:
    """Closes a task that waits for approval; the account's cool-down begins."""
    return _moved(folder, key, lambda outbox, whole: outbox.reject(whole, by, why, at, disposition),
                  "Rejected by {by}: " + why + ". It is never sent, and the account's cool-down begins.", by)


def snooze(folder: Path, key: str, at: dt.datetime, *, until: dt.datetime, by: str, why: str) -> Report:
    """Lets a task sleep; its play asks nothing of the account until then."""
    return _moved(folder, key, lambda outbox, whole: outbox.snooze(whole, until, why, by, at),
                  f"Snoozed by {{by}} until {until:%Y-%m-%d}: {why}.", by)


def close(folder: Path, key: str, at: dt.datetime, *, by: str, status: str = "completed",  # noqa: PLR0913 - an answer
          disposition: str | None = None, note: str | None = None) -> Report:
    """Closes a task by a person's word; where it was sent, the next sync closes it in the CRM too."""
    return _moved(folder, key, lambda outbox, whole: outbox.finish(
        whole, status=status, by=by, at=at, disposition=disposition, note=note),
        f"Closed by {{by}} as {status}{f' ({disposition})' if disposition else ''}.", by)


def audit(folder: Path, key: str | None = None) -> Report:
    """The chain of the audit, and every task made again from it alone; one task also from its data, model and policy.

    Code HELD_BACK where the chain is broken, or a task is not as the audit tells.
    """
    from churnkit.jobs import plans

    settings = load(folder)
    outbox = open_outbox(settings)
    whole = None if key is None else _whole(outbox, key)
    try:
        found = outbox.check_audit()
    except OutreachError as broken:
        return Report("audit tasks", notes=[str(broken)], data={"ok": False, "broken": str(broken)}, code=HELD_BACK)
    wrong = {one: said for one, said in found.wrong.items() if whole in {None, one}}
    rows = [{"key": one[:_SHORT], "problem": sentence} for one, all_ in wrong.items() for sentence in all_]
    count = len(found.told) if whole is None else 1
    said = (f"The chain of {found.rows} audit rows holds. Tasks made again from it alone: {count}, of which "
            f"{count - len(wrong)} are as the ledger holds them and {len(wrong)} are not.")
    notes = [said]
    data: dict[str, Any] = {"rows": found.rows, "tasks": count, "wrong": wrong}
    code = HELD_BACK if wrong else 0
    if whole is not None and whole in found.told:
        again = plans.rebuild(settings, outbox, found.told[whole])
        notes += [*again.sentences,
                  "Its life: " + ", ".join(f"{STAGES[stage]} (row {seq})" for seq, stage in found.told[whole].steps)]
        data |= {"same": again.same, "rebuild": again.sentences, "steps": found.told[whole].steps}
        code = code or (HELD_BACK if again.same is False else 0)
    return Report("audit tasks", rows=rows, notes=notes, data={"ok": not code, **data}, code=code)


def _moved(folder: Path, key: str, move: Callable[[Outbox, str], bool | None], words: str, by: str) -> Report:
    """One person's decision, kept, and told to the next plan by way of the raw table of outcomes."""
    with workspace(folder) as settings:
        outbox = open_outbox(settings)
        whole = _whole(outbox, key)
        done = move(outbox, whole) is not False
        write_outcomes(outbox, settings.path(settings.raw) / "outreach_outcomes.csv")
        stage = outbox.stages()[whole]
    said = words.format(by=by) if done else "Nothing changed: that was so already."
    return Report("tasks", notes=[f"Task {whole[:_SHORT]}: {said} It is {STAGES[stage]} now."],
                  data={"key": whole, "stage": stage, "changed": done})


def _whole(outbox: Outbox, beginning: str) -> str:
    """The one key that begins so."""
    keys = [key for key in outbox.stages() if key.startswith(beginning)]
    if len(keys) != 1 or not beginning:
        said = f"{len(keys)} tasks begin with" if keys else "There is no task"
        raise OutreachError(f"{said} '{beginning}'. {'Write more of the key' if keys else 'Look it up'}: "
                            "churnkit tasks list.")
    return keys[0]


def _detail(after: Any) -> str:
    """What one row of the audit changed, shortly."""
    shown = ("status", "disposition", "note", "why", "approval", "snoozed_until", "snooze_reason", "owner", "due")
    return ", ".join(f"{name} {after[name]}" for name in shown if isinstance(after, dict) and after.get(name))
