"""From candidates to slots: who does what by when, at the greatest total value; control's slots are passed on."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from churnkit.outreach.allocate import Offers, Room, allocate, steady
from churnkit.outreach.candidates import Candidate
from churnkit.outreach.desk import Desk
from churnkit.outreach.limits import Held, State
from churnkit.outreach.spans import WEEK

_LEAST = 1e-3
"""What a task of unknown or small value counts at least, so that free hands are used: a tenth of a cent."""


@dataclass(frozen=True)
class Slot:
    """A candidate that came through: for whom, by when, and whether it is only kept (a ghost).

    `passed_on` marks a slot that was free only because a control account's task is not sent; `had` is who had the
    account's last task, where that is somebody else.
    """

    candidate: Candidate
    owner: str
    due: dt.date
    ghost: bool
    passed_on: bool = False
    had: str = ""


def assign(leaders: Sequence[Candidate], arms: Mapping[str, str], state: State,
           desk: Desk) -> tuple[list[Slot], list[Held]]:
    """Slots for the candidates that people have room for, chosen so that the total expected value is the greatest.

    It is solved twice. First as if there were no control group: whoever of it gets a slot is kept as a ghost. Then for
    all others on the desks as they are: whoever got no slot before has one that was passed on.

    Args:
        leaders: The candidates that nothing forbids, one per account but for `always` plays.
        arms: The arm of each account: treated, control or reserve.
        state: What else is known.
        desk: The people.
    """
    ready = sorted(leaders, key=lambda one: (one.account_id, one.name))
    able = [desk.people(one.account_id, one.play) for one in ready]
    held = [Held(one, "no owner", "no active owner, and no manager to take it")
            for one, people in zip(ready, able, strict=True) if not people]
    made = _Case(ready, able, state, desk)
    kept = np.array([arms.get(one.account_id) == "control" and not one.play.always for one in ready], dtype=bool)
    first = allocate(made.offers, made.room(alike=True)).person
    room = made.room()
    then = allocate(made.some(~kept), room).person
    all_sent = room.total is not None and int((then >= 0).sum()) >= room.total
    slots: list[Slot] = []
    for place, one in enumerate(ready):
        ghost = bool(kept[place] and first[place] >= 0)
        person = first[place] if ghost else then[place]
        if person >= 0:
            slots.append(Slot(one, desk.address(made.people[person]), made.due[place], ghost,
                              passed_on=not ghost and bool(first[place] < 0), had=made.had(place, int(person))))
        elif able[place]:
            held.append(made.unmet(place, all_sent=all_sent))
    held += [Held(slot.candidate, "control", "kept as a ghost, never sent") for slot in slots if slot.ghost]
    return sorted(slots, key=lambda slot: slot.candidate.rank), held


class _Case:
    """The candidates as the solver's arrays."""

    def __init__(self, ready: Sequence[Candidate], able: Sequence[Sequence[tuple[str, float]]], state: State,
                 desk: Desk) -> None:
        self.ready, self.able, self.state, self.desk = ready, able, state, desk
        self.due = [state.due(one) or state.book.at.date() for one in ready]
        self.people = sorted({person for people in able for person, _ in people})
        rank = {person: place for place, person in enumerate(self.people)}
        candidate = np.array([place for place, people in enumerate(able) for _ in people], dtype=np.int64)
        share = np.array([share for people in able for _, share in people], dtype=float)
        worth = np.array([max(one.net, _LEAST) if math.isfinite(one.net) else _LEAST for one in ready], dtype=float)
        self.before = np.array([rank.get(desk.last(one.account_id), -1) for one in ready], dtype=np.int64)
        offers = Offers(
            candidate, np.array([rank[person] for people in able for person, _ in people], dtype=np.int64),
            (worth[candidate] if len(ready) else np.zeros(0)) * share,
            due=np.array([(due - state.book.at.date()).days for due in self.due], dtype=np.int64),
            urgent=np.array([one.play.always or state.human_first(one) for one in ready], dtype=bool))
        self.offers = steady(offers, self.before, state.policy.capacity.change)

    def room(self, *, alike: bool = False) -> Room:
        """What people can still do; `alike`: as it would be without a control group."""
        pilot, days = self.state.policy.pilot, int(self.offers.due.max(initial=0)) + WEEK
        new = sum(not (task.passed_on if alike else task.ghost) and self.state.planned_now(task)
                  for task in self.state.open_tasks)
        return Room(
            np.array([self.desk.capacity(person) for person in self.people], dtype=np.int64),
            self.desk.busy(self.people, days, alike=alike), slack=self.state.policy.capacity.slack,
            total=max(pilot.max_new_per_run - new, 0) if pilot.on else None)

    def some(self, which: np.ndarray) -> Offers:
        """The offers of some candidates alone."""
        pairs = which[self.offers.candidate]
        return replace(self.offers, candidate=self.offers.candidate[pairs], person=self.offers.person[pairs],
                       value=self.offers.value[pairs])

    def had(self, place: int, person: int) -> str:
        """Who had the account's last task, where it is not this person; else an empty string."""
        before = int(self.before[place])
        return self.desk.address(self.people[before]) if before >= 0 and before != person else ""

    def unmet(self, place: int, *, all_sent: bool) -> Held:
        """Why a candidate that somebody could have done waits; `all_sent`: the pilot's cap is reached."""
        one, pilot = self.ready[place], self.state.policy.pilot
        if all_sent:
            return Held(one, "max new per run", f"{pilot.max_new_per_run} a run while the pilot is on")
        return Held(one, "capacity", f"{self.desk.address(self.able[place][0][0])} is full around {self.due[place]}")
