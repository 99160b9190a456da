"""From candidates to slots: who does what by when, at the greatest total value; control accounts' slots are passed on."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from churnkit.outreach.allocate import Offers, Room, allocate
from churnkit.outreach.candidates import Candidate
from churnkit.outreach.desk import Desk
from churnkit.outreach.limits import Held, State
from churnkit.outreach.words import day, money

_LEAST = 1e-3
"""What a task of unknown or small value counts at least, so that free hands are used: a tenth of a cent."""


@dataclass(frozen=True)
class Slot:
    """A candidate that came through: for whom, by when, and whether it is only kept (a ghost).

    `passed_on` marks a slot that was free only because a control account's task is not sent.
    """

    candidate: Candidate
    owner: str
    due: dt.date
    ghost: bool
    passed_on: bool = False


def assign(leaders: Sequence[Candidate], arms: Mapping[str, str], state: State,
           desk: Desk) -> tuple[list[Slot], list[Held]]:
    """Slots for the candidates that people have room for, chosen so that the total expected value is the greatest.

    Control accounts are allotted like all others first, so that it is known who would have got a task; those are kept
    as ghosts, and their slots go to the next in value.

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
    first = made.solve(np.ones(len(ready), dtype=bool), np.full(len(ready), -1))
    ghosts = kept & (first >= 0)
    then = made.solve(~kept, np.where(kept, -1, first))
    slots: list[Slot] = []
    for place, one in enumerate(ready):
        person = first[place] if ghosts[place] else then[place]
        if person >= 0:
            slots.append(Slot(one, desk.address(made.people[person]), made.due[place], bool(ghosts[place]),
                              passed_on=bool(not ghosts[place] and first[place] < 0)))
        elif able[place]:
            held.append(made.unmet(place, int((then >= 0).sum())))
    held += [Held(slot.candidate, "control", "kept as a ghost, never sent") for slot in slots if slot.ghost]
    return sorted(slots, key=lambda slot: slot.candidate.rank), held


class _Case:
    """The candidates as the solver's arrays."""

    def __init__(self, ready: Sequence[Candidate], able: Sequence[Sequence[tuple[str, float]]], state: State,
                 desk: Desk) -> None:
        self.ready, self.able, self.state, self.desk = ready, able, state, desk
        self.today = state.book.at.date()
        self.due = [state.due(one) or self.today for one in ready]
        self.people = sorted({person for people in able for person, _ in people})
        rank = {person: place for place, person in enumerate(self.people)}
        self.candidate = np.array([place for place, people in enumerate(able) for _ in people], dtype=np.int64)
        self.person = np.array([rank[person] for people in able for person, _ in people], dtype=np.int64)
        share = np.array([share for people in able for _, share in people], dtype=float)
        worth = np.array([max(one.net, _LEAST) if math.isfinite(one.net) else _LEAST for one in ready], dtype=float)
        self.value = worth[self.candidate] * share if len(ready) else np.zeros(0)
        self.days = np.array([(due - self.today).days for due in self.due], dtype=np.int64)
        self.urgent = np.array([one.play.always or state.human_first(one) for one in ready], dtype=bool)
        span = int(self.days.max(initial=0)) + 7
        self.busy = desk.busy(self.people, span)
        self.capacity = np.array([desk.capacity(person) for person in self.people], dtype=np.int64)
        pilot = state.policy.pilot
        new = sum(not task.ghost and state.planned_now(task) for task in state.open_tasks)
        self.total = max(pilot.max_new_per_run - new, 0) if pilot.on else None

    def solve(self, some: np.ndarray, fixed: np.ndarray) -> np.ndarray:
        """The person of each candidate, or -1; `fixed` ones stay with whom they have, of the others only `some` may."""
        ...

    def unmet(self, place: int, sent: int) -> Held:
        """Why a candidate that somebody could have done waits, and what it costs."""
        one, pilot = self.ready[place], self.state.policy.pilot
        if self.total is not None and sent >= self.total:
            return Held(one, "max new per run", f"{pilot.max_new_per_run} a run while the pilot is on")
        names = self.desk.address(self.able[place][0][0])
        return Held(one, "capacity", f"{names} is full around {self.due[place]}")
