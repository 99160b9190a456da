"""Simulated account managers: what they do with their tasks and when, and what they say came of it.

They are people. Some tasks they never begin, some they put off, some they think wrong; some customers cannot be
reached, and now and then they call one who was to be left alone for comparison. What they say agrees with the book's
truth as far as they could know it: nobody is `bought` who does not buy, and a visit that changed a worn part says so.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from churnkit.simulate import causes, contacted, contracts, courses, world
from churnkit.simulate.causes import CAUSES, HARM
from churnkit.simulate.contacted import CHANNELS, Contacts, Made
from churnkit.simulate.courses import Lives
from churnkit.simulate.world import DAY, Array, World, days

if TYPE_CHECKING:
    import pandas as pd

    from churnkit.simulate import Book

Asked: TypeAlias = Any  # a task as outreach makes it; the two rooms meet as values alone
ANSWERS = ("key", "answered_at", "status", "disposition", "note", "by")
"""Columns of answers, in the words of the work object."""
CONTACTS = (*contacted.COLUMNS, "key")
"""Columns of contacts; `key` is the task's, or empty where nobody asked for it."""
_NOTES = {
    "saved": "agreed on a next step", "no_change": "spoke with them; nothing moved", "not_a_risk": "all is well there",
    "bought": "signed", "open_deal": "offer is out", "later": "next budget", "no_need": "enough as it is",
    "serviced": "cleaned and adjusted", "part_replaced": "worn part replaced", "no_fault_found": "nothing wrong",
    "no_response": "tried twice", "wrong_contact": "has another job now", "do_not_contact": "does not want our calls",
}


@dataclass(frozen=True)
class Habits:
    """How these account managers work, as shares of tasks."""

    never: float = 0.12
    """Never begun."""
    dismissed: float = 0.06
    """Dismissed at sight."""
    snoozed: float = 0.10
    """Put off by two weeks first."""
    unreached: float = 0.12
    """Tried, and nobody reached."""
    by_hand: float = 0.05
    """Of control accounts: called all the same."""
    pace: float = 0.7
    """Median time to the contact, as a share of the days until due."""


@dataclass(frozen=True)
class Work:
    """What was done: answers (ANSWERS) by time, and contacts (CONTACTS) for `simulate`."""

    answers: pd.DataFrame
    contacts: pd.DataFrame


@dataclass(frozen=True)
class _Done:
    """What becomes of each task, one value each."""

    when: Array
    contacted: Array
    reached: Array
    answers: Array
    snoozed: Array
    dice: Array


def work(book: Book, tasks: Iterable[Asked], *, at: dt.datetime, contacts: Contacts | None = None,
         habits: Habits = Habits(), seed: int = 7) -> Work:
    """What account managers do with these tasks from `at` on; the same task always meets the same luck.

    Args:
        book: The simulated book that the tasks were planned from.
        tasks: New tasks as the outbox holds them, ghosts too: of those a few are called by hand.
        at: When the tasks came.
        contacts: What was done before (`Work.contacts`), whose effects go on.
        habits: How they work.
        seed: Of their luck.

    Returns:
        Answers and contacts up to the book's end; the contacts are the new ones alone.
    """
    import pandas as pd

    asked = sorted({task.key: task for task in tasks}.values(), key=lambda task: task.key)
    here = world.build(book.accounts, book.months, book.seed, f"{book.end:%Y-%m-%d}", book.difficulty)
    done = _do(asked, np.datetime64(at.replace(tzinfo=None), "s"), habits, seed)
    made = pd.DataFrame([_contact(task, done, row) for row, task in enumerate(asked) if done.contacted[row]],
                        columns=list(CONTACTS))
    made = made[made["contacted_at"] < book.end] if len(made) else made
    before = None if contacts is None or not len(contacts) else contacts
    every = made if before is None else pd.concat([before[list(CONTACTS)], made]) if len(made) else before
    rows = _Sayings(here, before, every).answers(asked, done) if asked else []
    answers = pd.DataFrame(rows, columns=list(ANSWERS))
    answers = answers[answers["answered_at"] < book.end] if len(answers) else answers
    order = ["answered_at", "key"]
    return Work(answers.sort_values(order, ignore_index=True, kind="stable"),
                made.sort_values(["contacted_at", "key"], ignore_index=True, kind="stable"))


def _do(asked: Sequence[Asked], at: np.datetime64, habits: Habits, seed: int) -> _Done:
    """Draws who is called, when, and who is reached."""
    dice = np.array([np.random.default_rng([seed, int(task.key[:12], 16)]).random(8) for task in asked]).reshape(-1, 8)
    ghost = np.array([task.ghost for task in asked], dtype=bool)
    due = np.array([task.due for task in asked], dtype="datetime64[D]").astype("datetime64[s]")
    until = np.maximum((due - at) / DAY, 1.0)
    late = np.exp(0.6 * np.sqrt(2) * _normal(dice[:, 1]))
    snoozed = ~ghost & (dice[:, 2] < habits.snoozed)
    wait = habits.pace * until * late + 14 * snoozed
    when = _office(at + days(np.where(ghost, 2 + 28 * dice[:, 1], np.minimum(wait, 60))), dice[:, 3])
    begun = np.where(ghost, dice[:, 0] < habits.by_hand, dice[:, 0] >= habits.never)
    dismissed = ~ghost & begun & (dice[:, 0] < habits.never + habits.dismissed)
    calls = begun & ~dismissed
    return _Done(when, calls, calls & (dice[:, 4] >= habits.unreached), begun & ~ghost, snoozed & calls, dice)


def _normal(uniform: Array) -> Array:
    """About normal from uniform (logistic, scaled): enough for how long people take."""
    inside = np.clip(uniform, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(inside / (1 - inside)) / 2.56)


def _office(at: Array, part: Array) -> Array:
    """The same days between 8 and 17 o'clock, weekends on the Monday after; never before `at`."""
    day = at.astype("datetime64[D]") + 1
    weekday = (day.astype(int) + 3) % 7
    day = day + np.where(weekday > 4, 7 - weekday, 0)
    return day.astype("datetime64[s]") + days((8 + 9 * part) / 24)


def _contact(task: Asked, done: _Done, row: int) -> tuple[object, ...]:
    import pandas as pd

    channel = task.type if task.type in CHANNELS else "visit" if task.target == "maintenance" else "call"
    return (task.account_id, pd.Timestamp(done.when[row], tz="UTC"), task.target, channel, bool(done.reached[row]),
            ";".join(task.asset_ids), "" if task.ghost else task.key)


class _Sayings:
    """What a person can say of a task, from what comes of the account with all contacts and without the new ones."""

    def __init__(self, here: World, before: Contacts | None, every: Contacts) -> None:
        self.world, self.ends = here, contracts.months(here)
        self.states = causes.strike(here, contracts.price_weeks(here, self.ends))
        self.without, self.now = self._live(before), self._live(every)
        self.place = {one: place for place, one in enumerate(here.ids.tolist())}

    def _live(self, contacts: Contacts | None) -> Lives:
        made: Made | None = None if contacts is None or not len(contacts) else contacted.read(self.world, contacts)
        return courses.live(self.world, self.states, self.ends, made)

    def answers(self, asked: Sequence[Asked], done: _Done) -> list[tuple[object, ...]]:
        """The rows of ANSWERS."""
        import pandas as pd

        rows: list[tuple[object, ...]] = []
        for row, task in enumerate(asked):
            if not done.answers[row]:
                continue
            spoken, luck = done.when[row], done.dice[row]
            if done.snoozed[row]:
                first = pd.Timestamp(spoken - 14 * DAY, tz="UTC")
                rows.append((task.key, first, "snoozed", None, "call back in two weeks", task.owner))
            logged = spoken + days(np.array(0.02 + 1.5 * luck[5] ** 3))
            if not done.contacted[row]:
                said, status = ("not_a_risk" if task.target == "churn" and luck[6] < 0.5 else None), "dismissed"
            elif not done.reached[row]:
                said, status = ("no_response" if luck[6] < 0.8 else "wrong_contact"), "completed"
            else:
                said, status = self._said(task, spoken, luck[6]), "completed"
            if said == "bought":
                rows.append((task.key, pd.Timestamp(logged, tz="UTC"), "in_progress", None, "offer is out", task.owner))
                logged = self._buys(self.place[task.account_id], spoken) + DAY
            note = _NOTES[said] if said else "has no time for this one"
            rows.append((task.key, pd.Timestamp(logged, tz="UTC"), status, said, note, task.owner))
        return rows

    def _said(self, task: Asked, at: np.datetime64, luck: float) -> str:
        account = self.place[task.account_id]
        if task.target == "maintenance":
            return self._of_visit(task, account, at, luck)
        return (self._of_sale if task.target == "expansion" else self._of_risk)(account, at, luck)

    def _of_risk(self, account: int, at: np.datetime64, luck: float) -> str:
        week = self.world.clock.week(np.array([at]))
        effect = float(causes.contact_effect(self.world, self.states, np.array([account]), week)[0])
        gone = self.now.deal.left[account] < at + 120 * DAY
        if effect == HARM:
            return "do_not_contact" if luck < 0.15 else "not_a_risk" if luck < 0.5 else "no_change"
        if gone:
            return "no_change" if luck < 0.9 else "saved"
        if self.without.deal.left[account] < at + 120 * DAY:
            return "saved"
        pull = np.array([max(cause.churn, 0) > 0 for cause in CAUSES])
        if (self.states.x[week[0] - 1, :, account] * pull).sum() < 0.3:
            return "not_a_risk" if luck < 0.7 else "no_change"
        return "saved" if luck < min(0.75, -1.2 * effect) else "no_change"

    def _of_sale(self, account: int, at: np.datetime64, luck: float) -> str:
        buys = self._buys(account, at)
        if buys < at + 30 * DAY:
            return "bought"
        if buys < at + 120 * DAY:
            return "open_deal"
        week = int(self.world.clock.week(np.array([at]))[0])
        grows = self.states.effect("growth")[week - 1, account] > 0.4
        return "later" if grows or luck < 0.3 else "no_need"

    def _buys(self, account: int, at: np.datetime64) -> np.datetime64:
        deal = self.now.deal
        after = (deal.bought[:, account] > 0) & (deal.bought_at[:, account] > at)
        return np.datetime64(np.where(after, deal.bought_at[:, account], courses.FAR).min())

    def _of_visit(self, task: Asked, account: int, at: np.datetime64, luck: float) -> str:
        drawn, day = self.now.equipment, int((at - self.world.clock.start) // DAY) + 1
        mine = np.nonzero((drawn.account == account) & (np.isin(drawn.ids, task.asset_ids) | (not task.asset_ids)))[0]
        if not len(mine) or day + 1 >= len(drawn.wear):
            return "no_fault_found"
        worn = drawn.wear[day, mine] > 0.1
        if (worn & (drawn.wear[day + 1, mine] == 0) & drawn.serviced[day, mine]).any():
            return "part_replaced"
        return "serviced" if worn.any() or luck < 0.4 else "no_fault_found"
