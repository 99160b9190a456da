"""What forbids a task whatever it is worth: open ones, suppressions, cool-downs, talks, caps, precedence, the pilot."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from churnkit.outreach import days, peace
from churnkit.outreach.book import Book
from churnkit.outreach.candidates import Candidate, expiry
from churnkit.outreach.peace import Talk
from churnkit.outreach.policy import AIMS, Policy
from churnkit.outreach.task import CLOSED, Task

_FINAL = {"do_not_contact"}
"""After these answers even a case that has become worse is not opened again."""


@dataclass(frozen=True, eq=False)
class Before:
    """What earlier runs left behind, for a plan to heed.

    `tasks` are all that the outbox knows, closed ones and ghosts too. `arms` are the control group's rows
    (control.ARMS) and `effects` what was measured of plays, both perhaps None. `suppressed` says why an account may not
    be approached, `stopped` why a target may get no new tasks (the breaker's words).
    """

    tasks: tuple[Task, ...] = ()
    arms: pd.DataFrame | None = None
    effects: pd.DataFrame | None = None
    suppressed: Mapping[str, str] = field(default_factory=dict)
    stopped: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, before: Before | Iterable[Task]) -> Before:
        """Itself, or one of tasks alone."""
        return before if isinstance(before, Before) else cls(tuple(before))


@dataclass(frozen=True)
class Held:
    """A candidate that comes to nothing: why, until when, and what a person would want to know."""

    candidate: Candidate
    why: str
    detail: str = ""
    until: Any = None


@dataclass(frozen=True)
class State:
    """All that may stand in a candidate's way, gathered once."""

    book: Book
    policy: Policy
    before: Before
    open_tasks: tuple[Task, ...]
    answered: frozenset[str]
    quiet_until: Mapping[str, Mapping[str, pd.Timestamp]]
    suppressed: Mapping[str, tuple[str, Any]]
    talks: Mapping[str, tuple[Talk, ...]]
    touched: Mapping[str, tuple[dt.date, ...]]
    signals: Mapping[str, frozenset[str]]
    top: Mapping[str, str]
    segment: Mapping[str, str]
    owner: Mapping[str, str]
    country: Mapping[str, str]
    zone: Mapping[str, str]
    by_account: Mapping[str, tuple[Task, ...]]
    last: Mapping[tuple[str, str], Task]
    paying: frozenset[str] = frozenset()
    saving: frozenset[str] = frozenset()

    def planned_now(self, task: Task) -> bool:
        """Whether the task was planned on this very day: see a model's episode, a rule's `scored_at`."""
        day = task.episode if task.opened_by == "model" else (task.scored_at or "")[:10]
        return day == f"{self.book.at:%Y-%m-%d}"

    def human_first(self, candidate: Candidate) -> bool:
        """Whether a person must call, soon: for those who show frustration and those who pay most."""
        shown = self.signals.get(candidate.account_id, frozenset()) & set(self.policy.human_first.signals)
        return candidate.play.aim == "saving" and (bool(shown) or candidate.account_id in self.paying)

    def due(self, candidate: Candidate) -> dt.date | None:
        """The working day by which the candidate's task is due; None where it would expire on days off alone."""
        play, hours, account = candidate.play, self.policy.hours, candidate.account_id
        country = self.country.get(account) if self.policy.quiet.holidays else None
        wait = min(play.due_days, self.policy.human_first.due_days) if self.human_first(candidate) else play.due_days
        today = days.first_day(self.book.at, self.zone.get(self.owner.get(account, "")), hours, country)
        due, last = days.after(today, wait, hours, country), max(expiry(candidate), today)
        return due if due <= last else days.before(last, today, hours, country)


def gather(book: Book, policy: Policy, before: Before, signals: pd.DataFrame) -> State:
    """The state of every account at the book's moment."""
    accounts, outcomes, owners = book.accounts(), book["outreach_outcomes"], book["owners"]
    closings = outcomes[outcomes["status"].isin(CLOSED)].sort_values("occurred_at", kind="stable")
    shut = {task.key for task in before.tasks if task.status in CLOSED}
    open_tasks = tuple(task for task in before.tasks if task.key not in shut)
    by_account: dict[str, tuple[Task, ...]] = defaultdict(tuple)
    for task in open_tasks:
        by_account[task.account_id] += (task,)
    answers = dict(zip(closings["key"], closings["disposition"], strict=True))
    last = {(task.account_id, task.play): replace(task, disposition=answers.get(task.key) or task.disposition)
            for task in sorted(before.tasks, key=lambda task: (task.episode, task.key))
            if task.key in shut or task.key in answers}
    return State(
        book=book, policy=policy, before=before, open_tasks=open_tasks, answered=frozenset(closings["key"]) | shut,
        quiet_until=peace.quiet_until(closings, policy),
        suppressed=peace.suppressed(book, policy, outcomes, before.suppressed),
        talks=peace.talks(book, policy, signals), touched=peace.touched(book, before.tasks, policy),
        by_account=by_account, last=last,
        signals={str(account): frozenset(rows["signal"]) for account, rows in signals.groupby("account_id")},
        top=_column(accounts, "top"), segment=_column(accounts, "segment"), owner=_column(accounts, "owner"),
        country=_column(accounts, "country"), zone=_column(owners.set_index("owner"), "timezone"),
        paying=_paying_most(book, policy.human_first.top_share))


def _paying_most(book: Book, share: float) -> frozenset[str]:
    """The accounts of the top share by what they pay a month, whole accounts, rounded down."""
    mrr = book.mrr().dropna().sort_index()
    most = int(len(mrr) * share)
    return frozenset(str(account) for account in mrr.sort_values(ascending=False, kind="stable").index[:most])


def forbidden(candidate: Candidate, state: State) -> Held | None:
    """The first thing that forbids the candidate, or None."""
    for check in _CHECKS:
        if held := check(candidate, state):
            return held
    return None


def not_to_be_sold_to(account: str, state: State) -> str:
    """Why nobody may sell to the account now, or an empty string."""
    if account in state.saving or any(task.target == "churn" for task in state.by_account.get(account, ())):
        return "the account is being saved"
    upset = sorted(state.signals.get(account, frozenset()) & set(state.policy.precedence.frustrated))
    return f"the account shows {upset[0].replace('_', ' ')}" if upset else ""


def _column(accounts: pd.DataFrame, name: str) -> dict[str, str]:
    return {str(account): value for account, value in accounts[name].items() if isinstance(value, str)}


def _already_open(candidate: Candidate, state: State) -> Held | None:
    play = candidate.play
    for task in state.by_account.get(candidate.account_id, ()):
        if task.ghost and play.always and task.play != candidate.name:
            continue  # a ghost is nobody's work: what must always be done is not covered by it
        same_aim = AIMS.get(task.target) == play.aim and not play.always
        if task.play == candidate.name:
            return Held(candidate, "already open", f"since {task.episode}")
        if same_aim or set(task.reason_codes) & set(candidate.evidence_ids):
            return Held(candidate, "already open", f"'{task.play}' since {task.episode} covers it")
        if not play.always and state.planned_now(task):
            return Held(candidate, "precedence", f"one new task per account: '{task.play}' went first")
    return None


def _suppression(candidate: Candidate, state: State) -> Held | None:
    reason, until = state.suppressed.get(candidate.account_id, ("", pd.NaT))
    return Held(candidate, "suppressed", reason, until) if reason else None


def _cool_down(candidate: Candidate, state: State) -> Held | None:
    if candidate.key in state.answered:
        return Held(candidate, "cool-down", "this episode was answered already")
    until = state.quiet_until.get(candidate.account_id, {}).get(candidate.play.aim)
    if until is None or until <= state.book.at or candidate.play.always or candidate.reopens:
        return None
    return Held(candidate, "cool-down", "a task was closed lately", until)


def _talk(candidate: Candidate, state: State) -> Held | None:
    """Somebody leads a talk with them already, or it is a day off until the task would be moot."""
    for talk in state.talks.get(candidate.account_id, ()):
        if candidate.play.aim in talk.aims and not candidate.play.always:
            return Held(candidate, "quiet", talk.says)
    if state.due(candidate) is None:
        return Held(candidate, "quiet", "no working day before it would be moot")
    return None


def _cap(candidate: Candidate, state: State) -> Held | None:
    """Nobody is pestered; what must always be done is an answer and not an approach."""
    due, contacts = state.due(candidate), state.touched.get(candidate.account_id, ())
    if due is None or candidate.play.always or candidate.play.type == "review":
        return None
    if not peace.too_often(contacts, due, state.policy):
        return None
    caps = state.policy.caps
    return Held(candidate, "touches", f"approached {caps.touches} times within {caps.span_days} days already")


def _breaker(candidate: Candidate, state: State) -> Held | None:
    words = state.before.stopped.get(candidate.play.target, "")
    return Held(candidate, "breaker", words) if words and not candidate.play.always else None


def _precedence(candidate: Candidate, state: State) -> Held | None:
    """Nobody is sold to while being saved, or while showing frustration."""
    why = not_to_be_sold_to(candidate.account_id, state) if candidate.play.aim == "selling" else ""
    return Held(candidate, "precedence", why) if why else None


def _worth(candidate: Candidate, _state: State) -> Held | None:
    worth, play = candidate.worth, candidate.play
    if play.always:
        return None
    if (worth.by == "uplift" and worth.uplift <= 0) or (worth.by == "effect" and worth.effect <= 0):
        return Held(candidate, "below threshold", "contacting such customers did not help, or did harm")
    if play.opened_by == "rule" or not candidate.net <= 0:
        return None
    return Held(candidate, "below threshold", "costs more than it is expected to bring")


def _pilot(candidate: Candidate, state: State) -> Held | None:
    pilot, account = state.policy.pilot, candidate.account_id
    if pilot.on and pilot.segments and state.segment.get(account) not in pilot.segments:
        return Held(candidate, "pilot", "the segment is not in the pilot")
    if pilot.on and pilot.owners and state.owner.get(account) not in pilot.owners:
        return Held(candidate, "pilot", "the owner is not in the pilot")
    return None


_CHECKS: tuple[Callable[[Candidate, State], Held | None], ...] = (
    _already_open, _suppression, _cool_down, _talk, _cap, _precedence, _worth, _pilot, _breaker)


def reopened(candidate: Candidate, state: State) -> Candidate:
    """The candidate as a new episode of the one that was closed, where its probability rose by the policy's `worse`."""
    earlier = state.last.get((candidate.account_id, candidate.name))
    if earlier is None or earlier.score is None or candidate.play.opened_by == "rule":
        return candidate
    worse = candidate.probability - earlier.score >= state.policy.cooldown.worse
    return replace(candidate, reopens=earlier.key) if worse and earlier.disposition not in _FINAL else candidate
