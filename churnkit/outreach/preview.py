"""A plan in words before anything is done: who gets what, what each limit costs, how full people are, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from churnkit.outreach.plan import Plan
from churnkit.outreach.task import CLOSED, Task
from churnkit.outreach.words import clean, day, listed, money, plural

_BASIS = {"effect": "the measured effect of the play", "prior": "what is believed of the play"}
_LIMITS = {
    "capacity": "Full weeks hold", "max new per run": "The pilot's cap holds", "touches": "The cap on touches holds",
    "quiet": "Open talks and days off hold", "cool-down": "Cool-downs hold",
    "precedence": "Precedence (one new task per account, saving before serving before selling) holds",
    "suppressed": "Suppressions hold", "pilot": "The pilot's list holds", "no owner": "A lack of people holds",
    "breaker": "The breaker holds", "ghost": "The control group holds",
}
_HELD = {
    "below threshold": "below what their play opens at or asks for", "no skill": "as the model's skill is not proven",
    "lead time too short": "as no technician could be there in time", "already open": "as a task of theirs is open",
    "control": "in the control group: kept as ghosts, never sent", "suppressed": "as they are to be left in peace",
    "capacity": "as the weeks of those who could do it are full", "cool-down": "as a task of theirs was closed lately",
    "precedence": "as something else of the same account goes first, or nothing may be sold to it now",
    "touches": "as they were approached often enough lately", "quiet": "as a talk is open, or no working day is left",
    "pilot": "outside the pilot", "max new per run": "by the pilot's cap of new tasks a run",
    "no owner": "as nobody at work could take them", "breaker": "by the breaker",
}


def held(counts: Mapping[str, int]) -> list[str]:
    """How many were held back, by reason, in words.

    >>> held({"capacity": 3})
    ['held: 3 as the weeks of those who could do it are full']
    """
    return [f"held: {count} {_HELD.get(why, why)}" for why, count in counts.items()]


def difference(plan: Plan, tasks: Iterable[Task]) -> list[dict[str, Any]]:
    """Each person's queue now and after the plan: open, new, closed, and what then is on their desk.

    Args:
        plan: What would be done.
        tasks: The outbox's tasks before it.
    """
    here = [task for task in tasks if not task.ghost and task.status not in CLOSED]
    now = pd.Series([task.owner for task in here], dtype=object).value_counts()
    gone = pd.Series([task.owner for task in here if task.key in plan.closings], dtype=object).value_counts()
    new = pd.Series([task.owner for task in plan.tasks], dtype=object).value_counts()
    week = plan.load.set_index("owner")[["fullest", "per_week"]].to_dict("index")
    return [{"owner": owner, "open": int(now.get(owner, 0)), "new": int(new.get(owner, 0)),
             "closing": int(gone.get(owner, 0)),
             "then": int(now.get(owner, 0)) + int(new.get(owner, 0)) - int(gone.get(owner, 0)),
             "fullest week": int(week.get(owner, {}).get("fullest", 0)),
             "may": int(week.get(owner, {}).get("per_week", 0))}
            for owner in sorted({*now.index, *gone.index, *new.index})]


def costs(plan: Plan) -> list[dict[str, Any]]:
    """What each limit holds back: how many candidates, and their expected net value, the dearest limit first.

    A candidate counts for the first limit that holds it; it might have met another one after it.
    """
    rows = plan.decisions
    rows = rows[rows["became"].isin(list(_LIMITS))] if len(rows) else rows
    if rows.empty:
        return []
    worth = rows.assign(net=rows["net"].clip(lower=0).fillna(0))
    found = worth.groupby("became").agg(candidates=("net", "size"), net=("net", "sum"))
    currency = next((one for one in rows["currency"] if one), "")
    return [{"limit": name, "held": int(row["candidates"]), "expected net": money(row["net"], currency)}
            for name, row in found.sort_values(["net", "candidates"], ascending=False, kind="stable").iterrows()]


def sentences(plan: Plan) -> list[str]:
    """What the limits cost, in words."""
    said = [f"{_LIMITS[row['limit']]} back {plural(row['held'], 'candidate')}, expected to bring "
            f"{row['expected net']} net." for row in costs(plan)]
    passed = sum(task.passed_on for task in plan.tasks)
    if passed:
        said.append(f"{plural(passed, 'task')} took a slot that the control group passed on; they are left out of the "
                    "main estimate.")
    moved = plan.decisions[(plan.decisions["became"] == "task") & (plan.decisions["had"] != "")]
    if len(moved):
        said.append(f"{plural(len(moved), 'account')} would go to other hands than its last task: "
                    f"{listed([clean(one, 40) for one in moved['account_id'].head(5)])}"
                    + (f" and {len(moved) - 5} more." if len(moved) > 5 else "."))
    full = plan.load[plan.load["fullest"] >= plan.load["per_week"]] if len(plan.load) else plan.load
    if len(plan.tasks) and len(full):
        names = [clean(one, 40) for one in full["owner"].head(5)]
        more = len(full) - len(names)
        said.append(f"With a full week or more: {listed([*names, *([f'{more} more'] if more > 0 else [])])}.")
    return said


def account(plan: Plan, account_id: str, tasks: Iterable[Task]) -> list[str]:
    """One account's whole reasoning: its group, its open tasks, and what became of every candidate and score.

    Args:
        plan: What would be done.
        account_id: The account.
        tasks: The outbox's tasks before it.
    """
    said = [f"open since {task.episode}: '{task.play}', due {day(task.due)}, with {task.owner}"
            + (" (a ghost: kept, never sent)" if task.ghost else "")
            + (f"; would be closed: {plan.closings[task.key]}" if task.key in plan.closings else "")
            for task in tasks if task.account_id == account_id and task.status not in CLOSED]
    mine = plan.decisions[plan.decisions["account_id"] == account_id] if len(plan.decisions) else plan.decisions
    said += [_decided(row) for row in mine.to_dict("records")]
    told = set(zip(mine["target"], mine["play"], strict=True)) if len(mine) else set()
    for row in plan.held[plan.held["account_id"] == account_id].to_dict("records"):
        if (row["target"], row["play"]) not in told or row["why"] in {"below threshold", "no skill"}:
            what = row["entity_id"] if row["entity_id"] != account_id else row["target"]
            said.append(f"{what}: no task ({row['why']}{'; ' + row['detail'] if row['detail'] else ''})")
    return list(dict.fromkeys(said))


def _decided(row: dict[Any, Any]) -> str:
    currency = row["currency"] or ""
    worth = "its value is not known"
    if row["net"] == row["net"]:
        turn = (f"{row['uplift']:+.1%} by a learnt uplift" if row["by"] == "uplift"
                else f"{row['probability']:.0%} x {row['effect']:.2f}, {_BASIS[row['by']]}")
        worth = f"{turn}, of {money(row['value'] or 0, currency)}: about {money(row['net'], currency)} net of cost"
    cause = f" because of {row['cause'].replace('_', ' ')}" if row["cause"] else ""
    what = {"task": f"a task for {row['owner']}, due {row['due'] and day(row['due'])}",
            "ghost": "a ghost: kept unsent, because the account is in the control group"}.get(
                row["became"], f"held ({row['became']})")
    until = f" until {day(row['until'])}" if row["until"] is not None and row["until"] == row["until"] else ""
    return f"{row['play']}{cause}: {worth} -> {what}{until}{': ' + row['detail'] if row['detail'] else ''}"
