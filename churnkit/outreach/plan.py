"""The plan: who gets which task, who would have but for the control group, and why all the others get none. Pure."""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from churnkit.outreach import control
from churnkit.outreach.assign import Slot, assign
from churnkit.outreach.book import Book, utc
from churnkit.outreach.brief import brief, title
from churnkit.outreach.candidates import Candidate, causes_of, current_scores, expiry, from_scores, from_signals
from churnkit.outreach.cases import File, also_of, case_of, languages_of, open_file, reasons_of
from churnkit.outreach.desk import Desk
from churnkit.outreach.limits import Before, Held, State, forbidden, gather, not_to_be_sold_to, reopened
from churnkit.outreach.policy import Policy
from churnkit.outreach.rules import signals_in
from churnkit.outreach.task import Task
from churnkit.outreach.wording import Wording
from churnkit.outreach.words import day
from churnkit.outreach.worth import Effects
from churnkit.schemas import DECISIONS, HELD


@dataclass(frozen=True)
class Plan:
    """What one run would have people do.

    `ghosts` are the tasks of control accounts: kept, never sent. `held` has one row (schemas.HELD) for every scored
    entity and every rule play without a task, with the reason. `closings` are the open tasks that nobody has begun and
    that have lost their reason, each with why: the cause is gone, the play was taken out, the account has left, the
    task has expired, or it would sell to an account which is now being saved. `arms` says who belongs to the control
    group (control.ARMS), to be kept. `decisions` has one row (schemas.DECISIONS) for every candidate: what it was
    worth, by what, and what became of it. `load` says by person how many open tasks there were, how many
    are new, how many then fall due in the fullest seven days, and the capacity.
    """

    tasks: tuple[Task, ...]
    ghosts: tuple[Task, ...]
    held: pd.DataFrame
    closings: Mapping[str, str] = field(default_factory=dict)
    arms: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(control.ARMS)))
    decisions: pd.DataFrame = field(default_factory=pd.DataFrame)
    load: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def moot(self) -> tuple[str, ...]:
        """The keys of the tasks that are to be closed."""
        return tuple(sorted(self.closings))


def plan(scores: pd.DataFrame | None, reasons: pd.DataFrame | None, tables: Mapping[str, pd.DataFrame], policy: Policy,
         before: Before | Iterable[Task] = (), *, at: str | dt.date | dt.datetime) -> Plan:
    """Ranks what could be done by expected net value and gives it to people within every limit of the policy.

    Args:
        scores: schemas.SCORES, of any targets; None or empty leaves the rule plays. A column `skill` that is false
            keeps those scores from opening tasks; `uplift` ranks where `uplift_skill` is true.
        reasons: schemas.REASONS for the briefs; may be None.
        tables: The raw tables by name.
        policy: The limits.
        before: What earlier runs left: the tasks of the outbox (`Outbox.tasks()`: ghosts and closed ones too), or a
            `Before` with the control group, measured effects and stopped targets as well.
        at: The moment of planning; nothing after it is seen.

    Returns:
        The plan. Planning again at the same moment with the first plan's tasks open adds nothing.
    """
    book, before = Book(utc(at), tables), Before.of(before)
    current, signals = current_scores(scores, book.at), signals_in(book, policy)
    state = gather(book, policy, before, signals)
    effects = Effects.read(before.effects, policy.ranking)
    found, below = from_scores(current, causes_of(reasons), book, policy, effects)
    found += from_signals(signals, current, book, policy, effects, answered=set(state.answered))
    found = [reopened(one, state) for one in found]
    state = replace(state, saving=frozenset(one.account_id for one in found if one.play.aim == "saving"))
    stopped = {one.key: stop for one in found if (stop := forbidden(one, state))}
    leaders, waiting = _one_per_account([one for one in found if one.key not in stopped])
    arms = _drawn(book, policy, before)
    desk = Desk(book, policy, before.tasks)
    slots, full = assign(leaders, _arm_of(state, arms), state, desk)
    triggered = {state.top.get(slot.candidate.account_id, "") for slot in slots if not slot.candidate.play.always}
    arms = control.expose(arms, triggered, at=book.at)
    held = [*stopped.values(), *waiting, *full]
    tasks = _write(slots, state, reasons, waiting, arms)
    frames = [frame for frame in (below, _held_rows(held)) if len(frame)]
    rows = pd.concat(frames) if frames else below
    return Plan(
        tasks=tuple(task for task in tasks if not task.ghost), ghosts=tuple(task for task in tasks if task.ghost),
        held=rows.sort_values(["target", "entity_id", "play"], kind="stable").reset_index(drop=True),
        closings=_closings(state, current), arms=arms, decisions=_decisions(slots, held), load=_load(desk, slots))


def _drawn(book: Book, policy: Policy, before: Before) -> pd.DataFrame:
    """The arm of every topmost parent account in the book."""
    accounts = book.accounts()[["account_id", "top", "segment"]].assign(value=book.mrr().reindex(book.accounts().index))
    rule = control.Rule(policy.control.share, policy.control.salt, policy.control.exempt_value)
    return control.draw(control.tops_of(accounts.reset_index(drop=True)), rule, before.arms, at=book.at)


def _arm_of(state: State, arms: pd.DataFrame) -> dict[str, str]:
    """The arm of each account: its topmost parent's."""
    of = dict(zip(arms["top"], arms["arm"], strict=True))
    return {account: of.get(top, "treated") for account, top in state.top.items()}


def _one_per_account(ready: Sequence[Candidate]) -> tuple[list[Candidate], list[Held]]:
    """Per account the first by precedence, plus what must always be done and rests on other evidence."""
    leaders: list[Candidate] = []
    waiting: list[Held] = []
    homes: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in ready:
        homes[candidate.account_id].append(candidate)
    for home in homes.values():
        first, *others = sorted(home, key=lambda one: one.rank_at_home)
        leaders.append(first)
        told = set(first.evidence_ids)
        for other in others:
            if other.play.always and not told & set(other.evidence_ids):
                leaders.append(other)
                told |= set(other.evidence_ids)
            else:
                waiting.append(Held(other, "precedence", f"one new task per account: '{first.name}' goes first"))
    return sorted(leaders, key=lambda one: one.rank), waiting


def _write(slots: Sequence[Slot], state: State, reasons: pd.DataFrame | None, waiting: Sequence[Held],
           arms: pd.DataFrame) -> list[Task]:
    """The work objects, with their briefs in their owners' languages."""
    file = open_file(state.book, reasons, [slot.candidate for slot in slots], state.before.tasks)
    contacts, speaks = state.book.contacts()[0], languages_of(state.book)
    drawn = arms.set_index("top")[["stratum", "propensity"]].to_dict("index")
    also = also_of(held.candidate for held in waiting)
    tasks = []
    for slot in slots:
        one = slot.candidate
        contact, wording = contacts.get(one.account_id), Wording.load(state.before.folder, speaks.get(slot.owner))
        case = replace(case_of(one, file, contact), act=_act(slot, state), also=also.get(one.account_id, ()),
                       due=slot.due)
        draw = drawn.get(state.top.get(one.account_id, one.account_id), {})
        tasks.append(replace(_task(slot, state, file), contact_id=contact, title=title(case, wording),
                             body=brief(case, wording=wording), stratum=str(draw.get("stratum", "")),
                             propensity=1 - draw.get("propensity", 0.0)))
    return tasks


def _act(slot: Slot, state: State) -> str:
    return "call" if state.human_first(slot.candidate) else slot.candidate.play.type


def _task(slot: Slot, state: State, file: File) -> Task:
    """All of the work object but its words."""
    one, play, urgent = slot.candidate, slot.candidate.play, state.human_first(slot.candidate)
    model = play.opened_by == "model"
    return Task(
        key=one.key, target=play.target, play=one.name, episode=one.episode, opened_by=play.opened_by,
        account_id=one.account_id, type="call" if urgent else play.type, title="", body="",
        priority="high" if urgent else play.priority, due=slot.due, owner=slot.owner, asset_ids=one.asset_ids,
        score=one.probability if model else None, band=one.band,
        reason_codes=reasons_of(one, file)[2][:3] if model else (play.signal or "", *one.evidence_ids),
        model_version=one.model_version, scored_at=one.scored_at, value=one.value, currency=one.currency or None,
        expires_at=expiry(one), ghost=slot.ghost, approval="pending" if play.approval else "none", cause=one.cause,
        passed_on=slot.passed_on, rank_by=one.worth.by, data_hash=one.data_hash,
        policy_hash=state.policy.fingerprint, reopens=one.reopens, effect=one.worth.effect)


def _held_rows(held: Sequence[Held]) -> pd.DataFrame:
    """One row per scored entity of a held candidate; a rule play's row names the account."""
    rows = [
        {"entity_id": entity, "account_id": one.candidate.account_id, "target": one.candidate.play.target,
         "play": one.candidate.name, "why": one.why, "until": one.until, "detail": one.detail}
        for one in held for entity in (one.candidate.entity_ids or (one.candidate.account_id,))]
    frame = pd.DataFrame(rows, columns=list(HELD))
    return frame.assign(until=pd.to_datetime(frame["until"], utc=True).astype("datetime64[us, UTC]"))


def _decisions(slots: Sequence[Slot], held: Sequence[Held]) -> pd.DataFrame:
    """What became of every candidate, the most valuable first."""
    became: list[tuple[Candidate, str, str, str, dt.date | None, Any, str]] = [
        (slot.candidate, "ghost" if slot.ghost else "task", "passed on" if slot.passed_on else "", slot.owner, slot.due,
         None, slot.had) for slot in slots]
    became += [(one.candidate, one.why, one.detail, "", None, one.until, "") for one in held if one.why != "control"]
    rows = [
        {"account_id": one.account_id, "target": one.play.target, "play": one.name, "cause": one.cause,
         "probability": one.probability, "value": one.value, "currency": one.currency, "by": one.worth.by,
         "effect": one.worth.effect, "uplift": one.worth.uplift, "net": one.net, "became": what, "detail": detail,
         "owner": owner, "due": due, "until": until, "had": had}
        for one, what, detail, owner, due, until, had in sorted(became, key=lambda row: row[0].rank)]
    return pd.DataFrame(rows, columns=list(DECISIONS))


def _load(desk: Desk, slots: Sequence[Slot]) -> pd.DataFrame:
    """By person: open tasks before this plan, new ones, how many fall due in the fullest week, and the capacity."""
    given = [(desk.person(slot.owner), slot.due) for slot in slots if not slot.ghost]
    before, new, fullest = desk.load(), Counter(person for person, _ in given), desk.fullest(given)
    return pd.DataFrame([{"owner": desk.address(one), "name": desk.name(one), "open": before.get(one, 0),
                          "new": new[one], "fullest": fullest[one], "per_week": desk.capacity(one)}
                         for one in sorted({*before, *new})],
                        columns=["owner", "name", "open", "new", "fullest", "per_week"])


def _closings(state: State, scores: pd.DataFrame) -> dict[str, str]:
    """Open tasks that nobody has begun and that have lost their reason, each with why."""
    best = scores[scores["skill"]].groupby(["target", "account_id"])["probability"].max().to_dict()
    lost = _lost(state)
    return {task.key: why for task in state.open_tasks
            if task.status == "open" and (why := _over(task, state, best.get((task.target, task.account_id)), lost))}


def _over(task: Task, state: State, score: float | None, lost: set[str]) -> str:
    """Why a task has lost its reason, or an empty string."""
    play = state.policy.active.get(task.play)
    if play is None:
        return f"the play '{task.play}' was taken out of the policy"
    if task.account_id in lost:
        return "the account has left"
    if task.expires_at is not None and task.expires_at < state.book.at.date():
        return f"it expired on {day(task.expires_at)}"
    if play.opened_by == "model" and score is not None and score < play.closes_below:
        return f"the cause is gone: {score:.0%} now, closes below {play.closes_below:.0%}"
    if play.opened_by == "rule" and play.signal not in state.signals.get(task.account_id, frozenset()):
        return "the cause is gone: the signal does not hold any more"
    selling = not_to_be_sold_to(task.account_id, state) if play.aim == "selling" else ""
    return f"nothing is sold now: {selling}" if selling else ""


def _lost(state: State) -> set[str]:
    """The accounts that had a contract and have none any more."""
    had = set(state.book["subscriptions"]["account_id"])
    return had - set(state.book.active_subscriptions()["account_id"]) - state.book.agreed_ahead()
