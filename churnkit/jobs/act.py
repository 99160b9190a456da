"""Planning on an open workspace."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from churnkit.errors import OutreachError
from churnkit.jobs.report import HELD_BACK, Report
from churnkit.jobs.workspace import load_day, open_outbox
from churnkit.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from churnkit.outreach.limits import Before
    from churnkit.outreach.outbox import Outbox
    from churnkit.outreach.policy import Policy
    from churnkit.outreach.task import Task
    from churnkit.signals.tables import Tables


def policy_of(settings: Settings) -> Policy:
    """The workspace's policy; read before any long work, so that a mistake in it costs nobody an hour."""
    from churnkit.outreach.policy import Policy

    return Policy.load(settings.path(settings.policy))


def plan(settings: Settings, tables: Tables, at: dt.datetime, *, dry_run: bool, account: str | None = None) -> Report:
    """New tasks and ghosts into the outbox, and moot ones closed, in what the policy and the open tasks allow.

    A dry run writes nothing and says what would be done: who gets what and why, each person's queue now and then, and
    what each limit costs. With `account`, that account's whole reasoning.
    """
    from churnkit.jobs import breaker, plans, proof
    from churnkit.outreach import preview
    from churnkit.outreach.plan import plan as make

    outbox, policy, scores = open_outbox(settings), policy_of(settings), load_day(settings, "scores", at)
    if not dry_run and account is None:
        outbox.wake(at)
    found = breaker.verdict(settings, tables, scores, at, remember=not dry_run and account is None)
    before = replace(_before(outbox, at), folder=settings.root, effects=proof.load_effects(settings),
                     stopped={target: " ".join(found.words(target)) for target in found.held})
    made = make(scores, load_day(settings, "reasons", at), plans.known(settings, tables, at), policy, before, at=at)
    if account is not None:
        said = preview.account(made, account, before.tasks)
        if not said:
            raise OutreachError(f"'{account}' has no score, signal or task at {at:%Y-%m-%d}. Check the id, or score "
                                f"that day first: churnkit score --at {at:%Y-%m-%d}")
        return Report("plan", notes=said, data={"account_id": account, "reasoning": said})
    if not dry_run:
        plans.keep(settings, at, policy, before, outbox, plans.model_hashes(settings, scores))
        outbox.carry_out([*made.tasks, *made.ghosts], made.closings, _plain(made.arms), at,
                         run=f"plan {at:%Y-%m-%d}")
    rows = [{"due": task.due, "by": task.opened_by, "owner": task.owner, "task": task.title} for task in made.tasks]
    held = {str(why): int(count) for why, count in made.held["why"].value_counts().items()}
    verb = "would be made" if dry_run else "made"
    counted = (f"New tasks {verb}: {len(made.tasks)}. Kept unsent because their accounts are the control group: "
               f"{len(made.ghosts)}.")
    notes = [counted, *preview.held(held), *found.notes]
    notes += [f"{target}: new tasks wait for a person. {words} To let them go: churnkit release {target} "
              f"{settings.root} --by NAME --why TEXT" for target, words in before.stopped.items()]
    data = {"tasks": [task.to_dict() for task in made.tasks], "ghosts": len(made.ghosts), "held": held,
            "closings": dict(made.closings), "costs": preview.costs(made)}
    texts = [f"### {task.title}\n\n{task.body}" for task in _foremost(made.tasks)]
    if dry_run:
        queues = preview.difference(made, before.tasks)
        rows = [*rows, *queues, *preview.costs(made)]
        notes += preview.sentences(made)
        data |= {"queues": queues, "decisions": json.loads(made.decisions.to_json(orient="records", date_format="iso"))}
    return Report("plan", texts, rows, notes, data, code=HELD_BACK if before.stopped else 0)


def _before(outbox: Outbox, at: dt.datetime) -> Before:
    """What the outbox knows that a plan must heed."""
    import pandas as pd

    from churnkit.outreach.limits import Before

    arms = outbox.arms()
    return Before(tasks=tuple(outbox.tasks()), arms=pd.DataFrame(arms) if arms else None,
                  suppressed=outbox.suppressed(at))


def _foremost(tasks: Sequence[Task], most: int = 3) -> list[Task]:
    """A few tasks to read in full: the first of each target, in the plan's order."""
    first: dict[tuple[str, str], Task] = {}
    for task in tasks:
        first.setdefault((task.target, task.opened_by), task)
    return sorted(first.values(), key=lambda task: task.opened_by)[:most]


def _plain(arms: pd.DataFrame) -> list[dict[str, Any]]:
    """The control group's rows as the outbox keeps them; a time that is missing is None."""
    import pandas as pd

    return [{str(name): None if pd.isna(value) else value for name, value in row.items()}
            for row in arms.to_dict("records")]
