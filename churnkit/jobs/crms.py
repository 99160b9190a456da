"""The stations of a CRM itself: getting it ready, and trying it with one task."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from churnkit.errors import OutreachError
from churnkit.jobs.report import HELD_BACK, Report
from churnkit.jobs.workspace import open_outbox
from churnkit.settings import Settings, load

if TYPE_CHECKING:
    from churnkit.outreach.crm.base import Crm, Portal
    from churnkit.outreach.task import Task

TITLE = "churnkit test - please ignore, it goes away by itself"


def setup(folder: Path, name: str) -> Report:
    """Sees what the token may do, makes what is missing in the CRM, and says what an administrator must still do.

    Code HELD_BACK while something is left to do.
    """
    with _connected(folder, name) as (settings, crm):
        portal = crm.check()
        _refuse_other(settings, name, portal)
        portal = crm.check(mend=True)
    kind = f", {portal.kind}" if portal.kind else ""
    notes = [f"{portal.name}{f' (portal {portal.id!r}{kind})' if portal.id else ''}.",
             *(f"Done: {sentence}" for sentence in portal.made)]
    notes += [f"To do, by an administrator of the CRM: {sentence}" for sentence in portal.todo]
    if not portal.todo:
        wanted = [f"crm = '{name}'"] if settings.crm != name else []
        if portal.id and _named(settings, name) != portal.id:
            wanted.append(f"[crm_options] portal = '{portal.id}'")
        notes.append(f"It is ready. Write into churnkit.toml: {' and '.join(wanted)}." if wanted else "It is ready.")
        notes.append(f"Try it with one task in a sandbox: churnkit crm test {name}")
    data = {"portal": portal.id, "kind": portal.kind, "name": portal.name, "made": list(portal.made),
            "todo": list(portal.todo)}
    return Report("crm setup", notes=notes, data=data, code=HELD_BACK if portal.todo else 0)


def question(folder: Path, name: str, *, production: bool = False) -> str:
    """What is asked before a trial.

    Raises:
        OutreachError: If it is no sandbox and `production` is not said, or it is not set up.
    """
    with _connected(folder, name) as (settings, crm):
        portal = crm.check()
    _refuse_other(settings, name, portal)
    if portal.todo:
        raise OutreachError(f"{portal.name} is not set up yet. Run: churnkit crm setup {name}")
    if portal.kind == "production" and not production:
        raise OutreachError(f"{portal.name} is no sandbox: nothing was written. Use a sandbox's token, or say "
                            "--production.")
    return f"Write one task titled '{TITLE}' to {portal.name}, read it back, and remove it?"


def trial(folder: Path, name: str, now: dt.datetime, *, owner: str, account: str) -> Report:
    """Writes one task, reads it back, changes it, and removes it; removed too where one of the steps fails."""
    rows: list[dict[str, str]] = []
    with _connected(folder, name) as (_, crm):
        crm.check()
        _try(crm, _task(now, owner, account), rows)
    return Report("crm test", rows=rows, notes=["The CRM takes tasks, tells them back, and none is left behind."],
                  data={"steps": rows})


def _try(crm: Crm, task: Task, rows: list[dict[str, str]]) -> None:
    from churnkit.outreach.crm.base import Item

    asks, remote_id = crm.capabilities.finds, task.key
    try:
        [result] = crm.write([Item(task, task.content_hash())])
        _expect(rows, "write", result.state == "written", result.why or result.state)
        remote_id = result.remote.remote_id if result.remote and result.remote.remote_id else task.key
        if asks:
            remote = crm.find([task.key]).get(task.key)
            _expect(rows, "read back", remote is not None, "it is not found by its key")
            if remote is not None:
                remote_id = remote.remote_id
                _expect(rows, "due date", remote.due == task.due, f"{remote.due} came back for {task.due}")
                _expect(rows, "owner", remote.owner == task.owner, f"{remote.owner} came back for {task.owner}")
                _expect(rows, "status", remote.status == "open", f"{remote.status} came back for open")
        changed = replace(task, body="Changed once.")
        [result] = crm.write([Item(changed, changed.content_hash(), remote_id)])
        _expect(rows, "change", result.state == "written", result.why or result.state)
    finally:
        crm.remove([remote_id])
    if asks:
        _expect(rows, "remove", task.key not in crm.find([task.key]), "it is still there: remove it by hand")


def _expect(rows: list[dict[str, str]], what: str, held: object, otherwise: str) -> None:
    if not held:
        raise OutreachError(f"Trying the CRM, '{what}': {otherwise}. Steps that went well: "
                            f"{', '.join(row['step'] for row in rows) or 'none'}.")
    rows.append({"step": what, "result": "as it should be"})


def _task(now: dt.datetime, owner: str, account: str) -> Task:
    from churnkit.outreach.task import Task

    return Task(key=uuid.uuid4().hex, target="churn", play="test", episode=f"{now:%Y-%m-%d}", opened_by="rule",
                account_id=account, type="call", title=TITLE, body="Written by churnkit crm test.", priority="low",
                due=now.date() + dt.timedelta(days=7), owner=owner)


@contextmanager
def _connected(folder: Path, name: str) -> Iterator[tuple[Settings, Crm]]:
    """The workspace and its CRM, within the budget that syncs have too."""
    from churnkit.outreach.crm.base import connect
    from churnkit.outreach.sync import SystemClock, metered

    settings = load(folder)
    settings.state.mkdir(parents=True, exist_ok=True)
    crm = connect(name, settings.crm_options if settings.crm == name else {}, settings.root)
    try:
        with metered(open_outbox(settings), crm, SystemClock()):
            yield settings, crm
    finally:
        crm.close()


def _named(settings: Settings, name: str) -> str:
    return settings.crm_options.get("portal", "") if settings.crm == name else ""


def _refuse_other(settings: Settings, name: str, portal: Portal) -> None:
    from churnkit.outreach.status import Rules

    Rules(_named(settings, name) or portal.id).refuse_other(replace(portal, todo=()))
