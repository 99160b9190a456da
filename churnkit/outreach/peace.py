"""Who is left in peace, by what and until when: suppressions, cool-downs, open talks, and the cap on touches."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import pandas as pd

from churnkit.outreach.book import Book, utc
from churnkit.outreach.policy import AIMS, Policy
from churnkit.outreach.task import CLOSED, Task
from churnkit.outreach.words import clean, day

_AIMS = list(AIMS.values())
MACHINES = ("automation", "bot")
"""Who sends touches that are no approach by a person."""
_SAME = dt.timedelta(days=3)
"""A touch within so many days of a task is that task's own."""


class Talk(NamedTuple):
    """A talk or case that somebody leads already, and the aims that wait for it."""

    aims: tuple[str, ...]
    says: str


def suppressed(book: Book, policy: Policy, outcomes: pd.DataFrame,
               more: Mapping[str, str]) -> dict[str, tuple[str, Any]]:
    """By account: why it may not be approached, and until when (never, where that is missing)."""
    found: dict[str, tuple[str, Any]] = {}
    for account in sorted(book.contacts()[1]):
        found[account] = ("no contact may be contacted", pd.NaT)
    rows = book.suppressions()
    rows = rows[rows["contact_id"].isna()].sort_values("until", kind="stable", na_position="last")
    for account, reason, until in zip(rows["account_id"], rows["reason"], rows["until"], strict=True):
        found[account] = (clean(reason), until)
    for silence in policy.suppressions:
        until = pd.NaT if silence.until is None else utc(silence.until)
        if not until <= book.at:
            found[silence.account] = (clean(silence.reason), until)
    found |= {account: (clean(reason), pd.NaT) for account, reason in more.items()}
    for account in outcomes[outcomes["disposition"] == "do_not_contact"]["account_id"]:
        found[account] = ("do_not_contact", pd.NaT)
    return found


def quiet_until(closings: pd.DataFrame, policy: Policy) -> dict[str, dict[str, pd.Timestamp]]:
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


def talks(book: Book, policy: Policy, signals: pd.DataFrame) -> dict[str, tuple[Talk, ...]]:
    """By account: the renewal talks, deals and escalations that are open."""
    quiet = policy.quiet
    found: dict[str, tuple[Talk, ...]] = defaultdict(tuple)
    deals = book["opportunities"]
    deals = deals[deals["closed_at"].isna() & (deals["opened_at"] >= book.at - pd.Timedelta(days=quiet.deal_days))]
    deals = deals.sort_values(["opened_at", "account_id"], kind="stable")
    for account, kind, opened in zip(deals["account_id"], deals["kind"], deals["opened_at"], strict=True):
        renewal = kind != "expansion"
        words = f"{'a renewal talk' if renewal else 'a deal'} is open since {day(opened)}"
        found[account] += (Talk(quiet.renewal if renewal else quiet.expansion, words),)
    rows = signals[signals["signal"] == "open_escalation"]
    for account, when in zip(rows["account_id"], rows["occurred_at"], strict=True):
        found[account] += (Talk(quiet.escalation, f"an escalation is open since {day(when)}"),)
    return found


def touched(book: Book, tasks: Iterable[Task], policy: Policy) -> dict[str, tuple[dt.date, ...]]:
    """By account: the days on which it was or will be approached, by a task or by people's own outbound touches.

    A touch close to a task of the account is that task's own and counts once; a machine's message is no touch. A task
    that ended without an answer of a person's was never worked on.
    """
    planned: dict[str, list[dt.date]] = defaultdict(list)
    for task in tasks:
        worked = task.status not in CLOSED or task.status == "completed" or task.disposition is not None
        if not task.ghost and worked and task.type != "review":
            planned[task.account_id].append(task.due)
    rows, since = book["touches"], book.at - pd.Timedelta(days=policy.caps.span_days)
    rows = rows[(rows["direction"] == "outbound") & ~rows["by"].isin(MACHINES) & (rows["occurred_at"] >= since)]
    days: dict[str, list[dt.date]] = defaultdict(list, {account: list(dues) for account, dues in planned.items()})
    for account, when in zip(rows["account_id"], rows["occurred_at"].dt.date, strict=True):
        if not any(abs(when - due) <= _SAME for due in planned.get(account, ())):
            days[account].append(when)
    return {account: tuple(sorted(dues)) for account, dues in days.items()}


def too_often(days: Iterable[dt.date], due: dt.date, policy: Policy) -> bool:
    """Whether one more approach on `due` would make a span of the policy's days hold more than the cap.

    >>> nov = [dt.date(2026, 11, n) for n in (1, 2, 3, 4)]
    >>> too_often(nov, dt.date(2026, 11, 30), Policy()), too_often(nov, dt.date(2026, 12, 1), Policy())
    (True, False)
    """
    span, most = dt.timedelta(days=policy.caps.span_days), policy.caps.touches
    near = sorted([*(one for one in days if abs(one - due) < span), due])
    return any(sum(start <= one < start + span for one in near) > most for start in near
               if start <= due < start + span)
