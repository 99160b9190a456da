"""The plan: who gets which task, who would have but for the control group, and why all the others get none. Pure."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from churnkit.outreach.book import Book, utc
from churnkit.outreach.brief import brief, title
from churnkit.outreach.candidates import Candidate, current_scores, expiry, from_scores, from_signals
from churnkit.outreach.cases import case_of, open_file, reasons_of
from churnkit.outreach.desk import Desk
from churnkit.outreach.limits import Held, State, forbidden, gather, not_to_be_sold_to
from churnkit.outreach.policy import Policy
from churnkit.outreach.rules import signals_in
from churnkit.outreach.task import Task
from churnkit.schemas import HELD


@dataclass(frozen=True)
class Plan:
    """What one run would have people do.

    `ghosts` are the tasks of control accounts: kept, never sent. `held` has one row (schemas.HELD) for every scored
    entity and every rule play without a task, with the reason. `moot` are the keys of open tasks that nobody has begun
    and whose cause is gone, whose play was taken out, that have expired, or that would sell to an account which is now
    being saved: close them with `Outbox.close_tasks`.
    """

    tasks: tuple[Task, ...]
    ghosts: tuple[Task, ...]
    held: pd.DataFrame
    moot: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Slot:
    """A candidate that came through: for whom, by when, and whether it is only kept."""

    candidate: Candidate
    owner: str
    due: dt.date
    ghost: bool


def plan(scores: pd.DataFrame | None, reasons: pd.DataFrame | None, tables: Mapping[str, pd.DataFrame], policy: Policy,
         open_tasks: Iterable[Task] = (), *, at: str | dt.date | dt.datetime) -> Plan:
    """Ranks what could be done by expected net value and gives it to people within every limit of the policy.

    Args:
        scores: schemas.SCORES, of any targets; None or empty leaves the rule plays. A column `skill` that is false
            keeps those scores from opening tasks.
        reasons: schemas.REASONS for the briefs; may be None.
        tables: The raw tables by name.
        policy: The limits.
        open_tasks: What is open already, ghosts too (`Outbox.open_tasks()`). Closed ones among them are not planned
            again: give `Outbox.tasks()` where churnkit itself may have closed some.
        at: The moment of planning; nothing after it is seen.

    Returns:
        The plan. Planning again at the same moment with the first plan's tasks open adds nothing.
    """
    book = Book(utc(at), tables)
    current, signals = current_scores(scores, book.at), signals_in(book, policy)
    state = gather(book, policy, tuple(open_tasks), signals)
    found, below = from_scores(current, book, policy)
    found += from_signals(signals, current, book, policy, set(state.answered))
    state = replace(state, saving=frozenset(one.account_id for one in found if one.play.aim == "saving"))
    stopped = {one.key: stop for one in found if (stop := forbidden(one, state))}
    leaders, waiting = _one_per_account([one for one in found if one.key not in stopped])
    slots, full = _allot(leaders, state)
    tasks = _write(slots, state, reasons, waiting)
    frames = [frame for frame in (below, _held_rows([*stopped.values(), *waiting, *full])) if len(frame)]
    held = pd.concat(frames) if frames else below
    return Plan(
        tasks=tuple(task for task in tasks if not task.ghost), ghosts=tuple(task for task in tasks if task.ghost),
        held=held.sort_values(["target", "entity_id", "play"], kind="stable").reset_index(drop=True),
        moot=_moot(state, current))


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


def _allot(leaders: Sequence[Candidate], state: State) -> tuple[list[_Slot], list[Held]]:
    """Down the ranking, one slot each, until people or the run are full; control accounts take none."""
    desk, pilot = Desk(state.book, state.policy, state.open_tasks), state.policy.pilot
    new = sum(not task.ghost and state.planned_now(task) for task in state.open_tasks)
    slots: list[_Slot] = []
    held: list[Held] = []
    for candidate in leaders:
        if pilot.on and new >= pilot.max_new_per_run:
            held.append(Held(candidate, "max new per run", f"{pilot.max_new_per_run} a run while the pilot is on"))
            continue
        people, due = desk.people(candidate.account_id, candidate.play), _due(candidate, state)
        person = next((person for person in people if desk.free(person, due)), None)
        if person is None:
            held.append(Held(candidate, "capacity", f"{desk.address(people[0])} is full around {due}") if people
                        else Held(candidate, "no owner", "no active owner, and no manager to take it"))
            continue
        top = state.top.get(candidate.account_id, candidate.account_id)
        ghost = state.policy.control.holds(top) and not candidate.play.always
        if ghost:
            held.append(Held(candidate, "control", "kept as a ghost, never sent"))
        else:
            desk.take(person, due)
            new += 1
        slots.append(_Slot(candidate, desk.address(person), due, ghost))
    return slots, held


def _due(candidate: Candidate, state: State) -> dt.date:
    days, today = candidate.play.due_days, state.book.at.date()
    if state.human_first(candidate):
        days = min(days, state.policy.human_first.due_days)
    return min(today + dt.timedelta(days=days), max(expiry(candidate), today))


def _write(slots: Sequence[_Slot], state: State, reasons: pd.DataFrame | None, waiting: Sequence[Held]) -> list[Task]:
    """The work objects, with their briefs."""
    file = open_file(state.book, reasons, [slot.candidate for slot in slots])
    contacts = state.book.contacts()[0]
    also: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for held in waiting:
        one = held.candidate
        also[one.account_id] += one.evidence[:1] or (f"by the {one.play.target} model it {one.play.says}",)
    tasks = []
    for slot in slots:
        one, play, urgent = slot.candidate, slot.candidate.play, state.human_first(slot.candidate)
        contact = contacts.get(one.account_id)
        case = replace(case_of(one, file, contact), act="call" if urgent else play.type, also=also[one.account_id],
                       due=slot.due)
        model = play.opened_by == "model"
        tasks.append(Task(
            key=one.key, target=play.target, play=one.name, episode=one.episode, opened_by=play.opened_by,
            account_id=one.account_id, type="call" if urgent else play.type, title=title(case), body=brief(case),
            priority="high" if urgent else play.priority, due=slot.due, owner=slot.owner, asset_ids=one.asset_ids,
            contact_id=contact, score=one.probability if model else None, band=one.band,
            reason_codes=reasons_of(one, file)[2][:3] if model else (play.signal or "", *one.evidence_ids),
            model_version=one.model_version, scored_at=one.scored_at, value=one.value, currency=one.currency or None,
            expires_at=expiry(one), ghost=slot.ghost))
    return tasks


def _held_rows(held: Sequence[Held]) -> pd.DataFrame:
    """One row per scored entity of a held candidate; a rule play's row names the account."""
    rows = [
        {"entity_id": entity, "account_id": one.candidate.account_id, "target": one.candidate.play.target,
         "play": one.candidate.name, "why": one.why, "until": one.until, "detail": one.detail}
        for one in held for entity in (one.candidate.entity_ids or (one.candidate.account_id,))]
    frame = pd.DataFrame(rows, columns=list(HELD))
    return frame.assign(until=pd.to_datetime(frame["until"], utc=True).astype("datetime64[us, UTC]"))


def _moot(state: State, scores: pd.DataFrame) -> tuple[str, ...]:
    """Open tasks that nobody has begun and that have lost their reason."""
    best = scores[scores["skill"]].groupby(["target", "account_id"])["probability"].max().to_dict()
    gone = []
    for task in state.open_tasks:
        play, score = state.policy.active.get(task.play), best.get((task.target, task.account_id))
        expired = task.expires_at is not None and task.expires_at < state.book.at.date()
        if play is None or expired:
            over = True
        elif play.opened_by == "model":
            over = score is not None and score < play.closes_below
        else:
            over = play.signal not in state.signals.get(task.account_id, frozenset())
        selling = play is not None and play.aim == "selling"
        if (over or (selling and not_to_be_sold_to(task.account_id, state))) and task.status == "open":
            gone.append(task.key)
    return tuple(sorted(gone))
