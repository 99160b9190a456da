"""Random books, policies and pasts, and the rules that no plan may break, told by plain loops that share no code."""

import datetime as dt
from dataclasses import dataclass

import numpy as np
import pandas as pd
from small_book import ago, scores
from small_tasks import AT

from churnkit.outreach.limits import Before
from churnkit.outreach.plan import Plan, plan
from churnkit.outreach.policy import Policy
from churnkit.outreach.task import Task, task_key

IDS = [f"A{n:02d}" for n in range(14)]
AIM = {"churn": "saving", "maintenance": "serving", "expansion": "selling"}
HOLIDAY = dt.date(2026, 11, 11)  # France; the only one within the dues of these plans
DEFAULT = Policy.default().model_dump()
UPSET = {"escalated_at": "open_escalation", "human_requested_at": "person_asked"}


@dataclass(frozen=True)
class Made:
    """What went into a plan."""

    scores: pd.DataFrame
    tables: dict
    policy: Policy
    before: Before


def made(seed: int) -> Made:
    """One random case."""
    dice = np.random.default_rng(seed)
    policy = _policy(dice)
    tables = _tables(dice)
    parts = [scores(dict(zip(IDS, dice.random(len(IDS)), strict=True)), target, value)
             for target, value in (("churn", 9600.0), ("expansion", 20000.0))]
    parts.append(scores({f"{one}/{n}": dice.random() for one in IDS[:4] for n in range(2)}, "maintenance", 5000.0))
    found = pd.concat(parts, ignore_index=True)
    found["value"] *= dice.choice([0.01, 0.5, 1.0, 3.0], len(found))
    tasks = _tasks(dice, tables)
    tables["outreach_outcomes"] = _outcomes(dice, tasks)
    stopped = {"expansion": "a feed is late"} if dice.random() < 0.2 else {}
    arms = None
    if dice.random() < 0.5:  # an earlier draw, as the outbox keeps it
        arms = plan(None, None, {**tables, "support_tickets": tables["support_tickets"].iloc[:0]}, policy,
                    at=ago(20)).arms
        arms["exposed_at"] = arms["exposed_at"].mask(dice.random(len(arms)) < 0.5, ago(20))
        policy = Policy(**{**policy.model_dump(), "control": {"share": dice.choice([0.1, 0.5]), "salt": "another"}})
    return Made(found, tables, policy, Before(tuple(tasks), arms, None, {}, stopped))


def planned(case: Made) -> Plan:
    """Its plan."""
    return plan(case.scores, None, case.tables, case.policy, case.before, at=AT)


def broken(case: Made, plan_: Plan) -> list[str]:
    """Every rule that the plan breaks, in words; none is an empty list."""
    rules = (_people, _hands, _groups, _peace, _order, _answered)
    return [words for rule in rules for words in rule(case, plan_)]


def _policy(dice) -> Policy:
    return Policy(**{
        **DEFAULT, "control": {"share": float(dice.choice([0.0, 0.3, 0.9])), "salt": f"s{dice.integers(5)}"},
        "pilot": {"on": bool(dice.random() < 0.5), "max_new_per_run": int(dice.integers(0, 12))},
        "capacity": {"colleagues": int(dice.integers(0, 3)), "slack": float(dice.choice([0.0, 0.1, 0.4]))},
        "caps": {"touches": int(dice.integers(1, 4)), "span_days": 30},
        "suppressions": [{"account": "A13", "reason": "asked", "until": dice.choice([None, "2026-12-01"])}],
        "human_first": {**DEFAULT["human_first"], "top_share": float(dice.choice([0.0, 0.2]))}})


def _tables(dice) -> dict:
    accounts = pd.DataFrame({
        "account_id": IDS, "created_at": ago(700), "name": IDS, "segment": dice.choice(["mid", "small"], len(IDS)),
        "owner": dice.choice(["ann", "bob", "cid"], len(IDS)), "known_at": ago(700),
        "parent_account_id": [None if dice.random() < 0.8 else "A00" for _ in IDS],
        "country": dice.choice(["FR", "US"], len(IDS)), "language": dice.choice(["fr", "en"], len(IDS))})
    accounts.loc[0, "parent_account_id"] = None
    owners = pd.DataFrame({
        "owner": ["ann", "bob", "cid", "max"], "email": [f"{one}@us.example" for one in ("ann", "bob", "cid", "max")],
        "capacity_per_week": dice.integers(0, 5, 4), "active": [True, True, bool(dice.random() < 0.5), True],
        "manager": ["max", "max", "max", None], "languages": ["en,fr", "en", "fr", None],
        "timezone": ["Europe/Paris", "Asia/Tokyo", "America/New_York", None]})
    subscriptions = pd.DataFrame({
        "account_id": IDS, "subscription_id": IDS, "started_at": ago(600), "known_at": ago(600),
        "mrr": dice.choice([100.0, 1000.0], len(IDS)), "currency": "EUR", "renews_at": ago(-41)})
    tickets = [{"ticket_id": f"T{one}", "account_id": one, "opened_at": ago(6), "channel": "email", "known_at": ago(6),
                dice.choice(list(UPSET)): ago(int(dice.integers(1, 4)))}
               for one in dice.choice(IDS, dice.integers(0, 5), replace=False)]
    deals = [{"account_id": one, "kind": dice.choice(["renewal", "expansion"]), "opened_at": ago(30),
              "known_at": ago(30), "closed_at": None if dice.random() < 0.7 else ago(3)}
             for one in dice.choice(IDS, dice.integers(0, 5), replace=False)]
    quiet = [{"account_id": one, "reason": "asked", "starts_at": ago(9), "until": dice.choice([None, ago(2), ago(-9)])}
             for one in dice.choice(IDS, dice.integers(0, 3), replace=False)]
    touches = [{"account_id": one, "occurred_at": ago(int(dice.integers(0, 40)) + 0.5), "direction": "outbound",
                "channel": "email", "by": dice.choice(["human", "bot"])} for one in dice.choice(IDS, 12)]
    frames = {"accounts": accounts, "owners": owners, "subscriptions": subscriptions, "touches": pd.DataFrame(touches),
              "support_tickets": pd.DataFrame(tickets, columns=["ticket_id", "account_id", "opened_at", "channel",
                                                                "known_at", *UPSET]),
              "opportunities": pd.DataFrame(deals), "suppressions": pd.DataFrame(quiet)}
    return {name: frame for name, frame in frames.items() if len(frame.columns)}


def _tasks(dice, tables) -> list[Task]:
    """Open and closed work of before, each person's within their capacity or a little over it."""
    owner = dict(zip(tables["accounts"]["account_id"], tables["accounts"]["owner"], strict=True))
    found = []
    for one in dice.choice(IDS, dice.integers(0, 8), replace=False):
        play = str(dice.choice(["save_call", "expand_talk", "escalation"]))
        episode = f"{ago(int(dice.integers(3, 25))):%Y-%m-%d}"
        status = str(dice.choice(["open", "in_progress", "snoozed", "completed", "dismissed"]))
        found.append(Task(
            key=task_key(one, play, episode), target="expansion" if play == "expand_talk" else "churn", play=play,
            episode=episode, opened_by="rule" if play == "escalation" else "model", account_id=str(one), type="call",
            title="t", body="b", priority="normal", due=AT.date() + dt.timedelta(days=int(dice.integers(-5, 12))),
            owner=f"{owner[one]}@us.example", score=float(dice.random()), scored_at=f"{episode}T06:00:00+00:00",
            status=status, expires_at=AT.date() + dt.timedelta(days=int(dice.integers(-3, 20))),
            ghost=bool(dice.random() < 0.2 and play != "escalation")))
    return found


def _outcomes(dice, tasks) -> pd.DataFrame:
    rows = [{"key": task.key, "account_id": task.account_id, "play": task.play, "occurred_at": ago(2),
             "status": task.status, "known_at": ago(2),
             "disposition": dice.choice(["saved", "no_response", "do_not_contact", None])}
            for task in tasks if task.status in {"completed", "dismissed"} and dice.random() < 0.7]
    return pd.DataFrame(rows, columns=["key", "account_id", "play", "occurred_at", "status", "known_at", "disposition"])


def _people(case: Made, plan_: Plan) -> list[str]:
    """Capacity with what is open already, the slack, and the pilot's cap."""
    owners = case.tables["owners"].set_index("owner")
    wrong = []
    for owner, row in owners.iterrows():
        mine = [task for task in plan_.tasks if task.owner == row["email"]]
        busy = [max(task.due, AT.date()) for task in case.before.tasks
                if task.owner == row["email"] and not task.ghost and task.status not in {"completed", "dismissed"}]
        room = int(row["capacity_per_week"])
        back = max(min(int(case.policy.capacity.slack * room + 0.5), room - 1), 0)
        for start in {task.due - dt.timedelta(days=back_) for task in mine for back_ in range(7)}:
            def in_span(day, start=start):
                return start <= day < start + dt.timedelta(days=7)
            new = sum(in_span(task.due) for task in mine)
            old = sum(map(in_span, busy))
            if new and new + old > room:
                wrong.append(f"capacity of {owner}: {new} new and {old} open in a week of {room}")
            usual = sum(in_span(task.due) and not _urgent(case, task) for task in mine)
            if usual and usual + old > room - back:
                wrong.append(f"slack of {owner}: {usual} usual ones and {old} open in {room} less {back}")
    if case.policy.pilot.on and len(plan_.tasks) > case.policy.pilot.max_new_per_run:
        wrong.append("more than the pilot's cap")
    return wrong


def _hands(case: Made, plan_: Plan) -> list[str]:
    """Who may do what for whom."""
    owners = case.tables["owners"].set_index("owner")
    accounts = case.tables["accounts"].set_index("account_id")
    wrong = []
    for task in plan_.tasks:
        owner, own = task.owner.split("@")[0], accounts.loc[task.account_id, "owner"]
        if not owners.loc[owner, "active"]:
            wrong.append(f"{owner} has left and gets a task")
        if owner not in {own, "max"}:
            speaks = set((owners.loc[owner, "languages"] or "").split(","))
            if not case.policy.capacity.colleagues or accounts.loc[task.account_id, "language"] not in speaks:
                wrong.append(f"{owner} does not speak the language of {task.account_id}, or may not help")
        if owner == "max" and owners.loc[own, "active"] and not case.policy.plays[task.play].always:
            wrong.append(f"the manager gets {task.account_id} though {own} works")
    return wrong


def _urgent(case: Made, task: Task) -> bool:
    if case.policy.plays[task.play].always:
        return True
    upset = bool(_signals(case, task.account_id) & set(case.policy.human_first.signals))
    return task.target == "churn" and (upset or task.account_id in _paying(case))


def _paying(case: Made) -> set[str]:
    paid = case.tables["subscriptions"].sort_values(["mrr", "account_id"], ascending=[False, True])
    return set(paid["account_id"].head(int(len(paid) * case.policy.human_first.top_share)))


def _signals(case: Made, account: str) -> set[str]:
    rows = case.tables["support_tickets"]
    rows = rows[rows["account_id"] == account]
    return {name for column, name in UPSET.items() if rows[column].notna().any()}


def _groups(case: Made, plan_: Plan) -> list[str]:
    """Control: whole groups, only ghosts, frozen once exposed."""
    parent = dict(zip(case.tables["accounts"]["account_id"], case.tables["accounts"]["parent_account_id"], strict=True))
    arm = dict(zip(plan_.arms["top"], plan_.arms["arm"], strict=True))
    wrong = []
    for task in (*plan_.tasks, *plan_.ghosts):
        held = arm[parent[task.account_id] or task.account_id] == "control"
        if task.ghost != (held and not case.policy.plays[task.play].always):
            wrong.append(f"{task.account_id}: ghost {task.ghost}, control {held}")
    if case.before.arms is not None:
        wrong += [f"the arm of {row.top} moved after exposure"
                  for row in case.before.arms.dropna(subset=["exposed_at"]).itertuples() if arm[row.top] != row.arm]
    return wrong


def _peace(case: Made, plan_: Plan) -> list[str]:
    """Suppressions, talks, cool-downs, touches and days off."""
    wrong, policy = [], case.policy
    quiet = {row.account_id for row in case.tables.get("suppressions", pd.DataFrame()).itertuples()
             if row.until is None or pd.isna(row.until) or row.until > pd.Timestamp(AT)} | {"A13"}
    answers = case.tables["outreach_outcomes"]
    quiet |= set(answers["account_id"][answers["disposition"] == "do_not_contact"])
    country = dict(zip(case.tables["accounts"]["account_id"], case.tables["accounts"]["country"], strict=True))
    for task in (*plan_.tasks, *plan_.ghosts):
        play = policy.plays[task.play]
        if task.account_id in quiet:
            wrong.append(f"{task.account_id} is suppressed")
        if task.due.weekday() > 4 or (country[task.account_id] == "FR" and task.due == HOLIDAY):
            wrong.append(f"{task.due} is a day off for {task.account_id}")
        if task.target in case.before.stopped and not play.always:
            wrong.append(f"{task.target} is stopped")
        if not play.always:
            wrong += [*_talks(case, task), *_rests(case, task), *_touched(case, task)]
    return wrong


def _talks(case: Made, task: Task) -> list[str]:
    aim, policy = AIM[task.target], case.policy
    waits = {"renewal": policy.quiet.renewal, "expansion": policy.quiet.expansion}
    deals = case.tables.get("opportunities", pd.DataFrame(columns=["account_id"]))
    wrong = [f"{task.account_id} has an open {deal.kind}" for deal in deals.itertuples()
             if deal.account_id == task.account_id and pd.isna(deal.closed_at) and aim in waits[deal.kind]]
    if "open_escalation" in _signals(case, task.account_id) and aim in policy.quiet.escalation:
        wrong.append(f"{task.account_id} has an open escalation")
    return wrong


def _rests(case: Made, task: Task) -> list[str]:
    wrong, cooldown = [], case.policy.cooldown
    answers = case.tables["outreach_outcomes"]
    for row in answers[answers["account_id"] == task.account_id].itertuples():
        own = AIM["expansion" if row.play == "expand_talk" else "churn"] == AIM[task.target]
        days = cooldown.after.get(row.disposition, cooldown.days)
        days = days if own else min(days, cooldown.days)
        if row.occurred_at + pd.Timedelta(days=days) > pd.Timestamp(AT) and not task.reopens:
            wrong.append(f"{task.account_id} is in its cool-down")
    return wrong


def _touched(case: Made, task: Task) -> list[str]:
    days = [one.due for one in case.before.tasks
            if one.account_id == task.account_id and not one.ghost
            and (one.status not in {"completed", "dismissed"} or one.status == "completed" or one.disposition)]
    own = list(days)
    for touch in case.tables["touches"].itertuples():
        day = touch.occurred_at.date()
        near = any(abs((day - due).days) <= 3 for due in own)
        if touch.account_id == task.account_id and touch.by == "human" and not near and touch.occurred_at >= ago(30):
            days.append(day)
    spans = {task.due - dt.timedelta(days=back) for back in range(30)}
    most = max(sum(start <= day < start + dt.timedelta(days=30) for day in [*days, task.due]) for start in spans)
    return [f"{task.account_id} is touched {most} times"] if most > case.policy.caps.touches else []


def _order(case: Made, plan_: Plan) -> list[str]:
    """Precedence: one usual task per account, and nobody is sold to while being saved or upset."""
    wrong = []
    everything = (*plan_.tasks, *plan_.ghosts)
    shut = {task.key for task in case.before.tasks if task.status in {"completed", "dismissed"}}
    saved = {task.account_id for task in (*everything, *case.before.tasks)
             if task.target == "churn" and task.key not in shut}
    for task in everything:
        if task.target == "expansion" and (task.account_id in saved or _signals(case, task.account_id)):
            wrong.append(f"{task.account_id} is sold to while being saved or upset")
        same = [one for one in everything if one.account_id == task.account_id
                and not case.policy.plays[one.play].always]
        if len(same) > 1:
            wrong.append(f"{task.account_id} gets {len(same)} usual tasks")
        if any(one.account_id == task.account_id and one.play == task.play and one.key not in shut
               for one in case.before.tasks):
            wrong.append(f"{task.account_id} has '{task.play}' open already")
    if len({task.key for task in (*everything, *case.before.tasks)}) < len(everything) + len(case.before.tasks):
        wrong.append("a key comes twice")
    return wrong


def _answered(case: Made, plan_: Plan) -> list[str]:
    """Every scored entity has a task, or a reason why it has none."""
    held = set(zip(plan_.held["target"], plan_.held["entity_id"], strict=True))
    tasks = {(task.target, entity) for task in plan_.tasks for entity in task.asset_ids or (task.account_id,)}
    lost = set(zip(case.scores["target"], case.scores["entity_id"], strict=True)) - held - tasks
    return [f"{target} {entity} has neither a task nor a reason" for target, entity in sorted(lost)]
