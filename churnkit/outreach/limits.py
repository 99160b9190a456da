"""What forbids a task whatever it is worth: open ones, suppressions, cool-downs, precedence and the pilot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from churnkit.outreach.book import Book, utc
from churnkit.outreach.candidates import Candidate
from churnkit.outreach.policy import AIMS, Policy
from churnkit.outreach.task import CLOSED, Task
from churnkit.outreach.words import clean

_AIMS = list(AIMS.values())


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
    open_tasks: tuple[Task, ...]
    answered: frozenset[str]
    quiet_until: Mapping[str, Mapping[str, pd.Timestamp]]
    suppressed: Mapping[str, tuple[str, Any]]
    signals: Mapping[str, frozenset[str]]
    top: Mapping[str, str]
    segment: Mapping[str, str]
    owner: Mapping[str, str]
    by_account: Mapping[str, tuple[Task, ...]]
    saving: frozenset[str] = frozenset()

    def planned_now(self, task: Task) -> bool:
        """Whether the task was planned on this very day: see a model's episode, a rule's `scored_at`."""
        day = task.episode if task.opened_by == "model" else (task.scored_at or "")[:10]
        return day == f"{self.book.at:%Y-%m-%d}"

    def human_first(self, candidate: Candidate) -> bool:
        """Whether a person must call, soon."""
        shown = self.signals.get(candidate.account_id, frozenset()) & set(self.policy.human_first.signals)
        return bool(shown) and candidate.play.aim == "saving"


def gather(book: Book, policy: Policy, open_tasks: tuple[Task, ...], signals: pd.DataFrame) -> State:
    """The state of every account at the book's moment."""
    accounts, outcomes = book.accounts(), book["outreach_outcomes"]
    closings = outcomes[outcomes["status"].isin(CLOSED)].sort_values("occurred_at", kind="stable")
    shut = {task.key for task in open_tasks if task.status in CLOSED}
    open_tasks = tuple(task for task in open_tasks if task.key not in shut)
    by_account: dict[str, tuple[Task, ...]] = defaultdict(tuple)
    for task in open_tasks:
        by_account[task.account_id] += (task,)
    return State(
        book=book, policy=policy, open_tasks=open_tasks, answered=frozenset(closings["key"]) | shut,
        quiet_until=_quiet(closings, policy), suppressed=_suppressed(book, outcomes), by_account=by_account,
        signals={str(account): frozenset(rows["signal"]) for account, rows in signals.groupby("account_id")},
        top=_column(accounts, "top"), segment=_column(accounts, "segment"), owner=_column(accounts, "owner"))


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


def _quiet(closings: pd.DataFrame, policy: Policy) -> dict[str, dict[str, pd.Timestamp]]:
    """Until when an account is left in peace, by aim.

    A refusal of one kind of talk quiets the other kinds for no longer than the usual span.
    """
    quiet: dict[str, dict[str, pd.Timestamp]] = defaultdict(dict)
    for account, name, when, disposition in zip(closings["account_id"], closings["play"], closings["occurred_at"],
                                                closings["disposition"], strict=True):
        play, cooldown = policy.plays.get(name), policy.cooldown
        own, usual = utc(cooldown.until(when, disposition)), utc(cooldown.until(when, None))
        for aim in _AIMS:
            until = own if play is None or play.aim == aim else min(own, usual)
            quiet[account][aim] = max(until, quiet[account].get(aim, until))
    return quiet


def _suppressed(book: Book, outcomes: pd.DataFrame) -> dict[str, tuple[str, Any]]:
    found: dict[str, tuple[str, Any]] = {}
    for account in sorted(book.contacts()[1]):
        found[account] = ("no contact may be contacted", pd.NaT)
    rows = book.suppressions()
    rows = rows[rows["contact_id"].isna()].sort_values("until", kind="stable", na_position="last")
    for account, reason, until in zip(rows["account_id"], rows["reason"], rows["until"], strict=True):
        found[account] = (clean(reason), until)
    for account in outcomes[outcomes["disposition"] == "do_not_contact"]["account_id"]:
        found[account] = ("do_not_contact", pd.NaT)
    return found


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
    if until is None or until <= state.book.at or candidate.play.always:
        return None
    return Held(candidate, "cool-down", "a task was closed lately", until)


def _precedence(candidate: Candidate, state: State) -> Held | None:
    """Nobody is sold to while being saved, or while showing frustration."""
    why = not_to_be_sold_to(candidate.account_id, state) if candidate.play.aim == "selling" else ""
    return Held(candidate, "precedence", why) if why else None


def _worth(candidate: Candidate, _state: State) -> Held | None:
    if candidate.play.opened_by == "rule" or not candidate.net <= 0:
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
    _already_open, _suppression, _cool_down, _precedence, _worth, _pilot)
