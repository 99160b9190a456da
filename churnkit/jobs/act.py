"""Planning and syncing on an open workspace."""

from __future__ import annotations

import datetime as dt
from collections import ChainMap
from collections.abc import MutableMapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, cast

from churnkit.jobs.report import HELD_BACK, Report
from churnkit.jobs.workspace import load_day, open_outbox
from churnkit.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from churnkit.outreach.policy import Policy
    from churnkit.outreach.task import Task
    from churnkit.signals.tables import Tables


def policy_of(settings: Settings) -> Policy:
    """The workspace's policy; read before any long work, so that a mistake in it costs nobody an hour."""
    from churnkit.outreach.policy import Policy

    return Policy.load(settings.path(settings.policy))


def plan(settings: Settings, tables: Tables, at: dt.datetime, *, dry_run: bool) -> Report:
    """New tasks and ghosts into the outbox, and moot ones closed, in what the policy and the open tasks allow."""
    from churnkit.outreach.plan import plan as make

    outbox = open_outbox(settings)
    offers = load_day(settings, "offers", at)
    more = {"moods": _moods(tables, at), **({} if offers is None else {"offers": offers})}
    known = ChainMap(more, cast("MutableMapping[str, pd.DataFrame]", tables))  # only read
    made = make(load_day(settings, "scores", at), load_day(settings, "reasons", at), known, policy_of(settings),
                open_tasks=outbox.tasks(), at=at)
    if not dry_run:
        outbox.put([*made.tasks, *made.ghosts], at=at, run=f"plan {at:%Y-%m-%d}")
        outbox.close_tasks(made.moot, at=at)
    rows = [{"due": task.due, "by": task.opened_by, "owner": task.owner, "task": task.title} for task in made.tasks]
    held = made.held["why"].value_counts().to_dict() if len(made.held) else {}
    verb = "would be made" if dry_run else "made"
    counted = (f"New tasks {verb}: {len(made.tasks)}. Kept unsent because their accounts are the control group: "
               f"{len(made.ghosts)}.")
    notes = [counted, *(f"held: {count} {why}" for why, count in held.items())]
    data = {"tasks": [task.to_dict() for task in made.tasks], "ghosts": len(made.ghosts), "held": held}
    texts = [f"### {task.title}\n\n{task.body}" for task in _foremost(made.tasks)]
    return Report("plan", texts, rows, notes, data)


def _foremost(tasks: Sequence[Task], most: int = 3) -> list[Task]:
    """A few tasks to read in full: the first of each target, in the plan's order."""
    first: dict[tuple[str, str], Task] = {}
    for task in tasks:
        first.setdefault((task.target, task.opened_by), task)
    return sorted(first.values(), key=lambda task: task.opened_by)[:most]


def _moods(tables: Tables, at: dt.datetime) -> pd.DataFrame:
    """The mood of what a customer wrote last in each ticket, as far as it was known at `at`."""
    moods = tables.moods().to_pandas()
    seen = moods[(moods["known_at"] <= at) & moods["ticket_id"].notna()].sort_values("occurred_at", kind="stable")
    last: pd.DataFrame = seen.drop_duplicates("ticket_id", keep="last")
    return last


def sync(settings: Settings, at: dt.datetime, *, dry_run: bool) -> Report:
    """Pending tasks to the CRM, answers back into the raw table outreach_outcomes."""
    from churnkit.outreach.crm.base import connect
    from churnkit.outreach.sync import sync as push
    from churnkit.outreach.sync import write_outcomes

    outbox = open_outbox(settings)
    done = push(outbox, connect(settings.crm, settings.crm_options, settings.root), at=at, dry_run=dry_run)
    if not dry_run:
        write_outcomes(outbox, settings.path(settings.raw) / "outreach_outcomes.csv")
    counts = asdict(done)
    said = ", ".join(f"{count} {what}" for what, count in counts.items() if isinstance(count, int) and count)
    notes = [f"sync to {done.where}: {said or 'nothing to do'}.", *done.problems]
    return Report("sync", rows=list(done.differences), notes=notes, data=counts, code=HELD_BACK if done.problems else 0)
