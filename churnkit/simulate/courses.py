"""Where outreach turns the course of things: what comes of everybody with each contact and without it, on one throw.

Contacts are added one round after the other: every account's first, its second, and so on. Where a round changes what
comes of an account, its rows are the old ones up to that moment and drawn for it alone from there on. So what comes
before a contact is the same with and without it, and whoever outreach does not change has the same rows to the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from churnkit.simulate import contacted, contracts
from churnkit.simulate.causes import States
from churnkit.simulate.contacted import Made
from churnkit.simulate.contracts import NO_PUSH, Contracts, Months, Push
from churnkit.simulate.machines import Machines, machines
from churnkit.simulate.world import DAY, Array, World

FAR = np.datetime64("9999-01-01", "s")


@dataclass(frozen=True)
class Turn:
    """One account's other course: from `since` to `until` it goes as in these contracts and assets."""

    account: int
    number: int
    """By which of the account's contacts, from 1 on."""
    since: np.datetime64
    until: np.datetime64
    deal: Contracts
    equipment: Machines


@dataclass(frozen=True)
class Course:
    """A turn with the world of its account alone, in which its rows are drawn."""

    turn: Turn
    world: World
    states: States
    deal: Contracts


@dataclass(frozen=True)
class Lives:
    """What would have come of everybody without outreach (`first`, `untouched`), and what did come of them."""

    first: Contracts
    untouched: Machines
    deal: Contracts
    equipment: Machines
    push: Push = NO_PUSH
    turns: tuple[Turn, ...] = ()
    """Where contracts go another way, by account and time."""
    repairs: tuple[Turn, ...] = ()
    """Where assets do."""


def live(world: World, states: States, ends: Months, made: Made | None = None) -> Lives:
    """Lives through the book once without contacts, and once more for each round of them."""
    first = deal = contracts.live(world, states, ends)
    untouched = equipment = machines(world, first)
    push, turns, repairs = NO_PUSH, list[Turn](), list[Turn]()
    if made is None:
        return Lives(first, untouched, deal, equipment)
    for number in range(made.rounds):
        now, so_far = made.take(made.number == number), made.take(made.number <= number)
        pushed = contacted.push(world, states, now, push)
        before = (deal, equipment)
        if pushed is not push:
            push, deal = pushed, contracts.live(world, states, ends, pushed)
        if (now.target == 2).any() or (_first(before[0].left, deal.left) < FAR).any():
            equipment = machines(world, first, deal, contacted.visits(world, so_far, untouched))
        turns = _turn(turns, number + 1, _parted(before[0], deal), (deal, equipment))
        repairs = _turn(repairs, number + 1, _repaired(world, before[1], equipment), (deal, equipment))
    return Lives(first, untouched, deal, equipment, push, tuple(turns), tuple(repairs))


def courses(world: World, states: States, turns: Sequence[Turn]) -> list[Course]:
    """The turns with a world for each."""
    found = []
    for turn in turns:
        here = np.array([turn.account])
        alone = world.some(here, (turn.account, turn.number))
        found.append(Course(turn, alone, states.some(here), turn.deal.some(here)))
    return found


def _first(before: Array, after: Array) -> Array:
    """The earlier of two times where they differ, FAR elsewhere."""
    same = (before == after) | (np.isnat(before) & np.isnat(after))
    return np.asarray(np.where(same, FAR, np.fmin(before, after)))


def _parted(before: Contracts, after: Contracts) -> Array:
    """When each account's contract first goes another way; FAR where it never does."""
    if before is after:
        return np.full(len(before.left), FAR)
    bought = np.where(before.bought != after.bought, after.bought_at, FAR).min(axis=0)
    return np.asarray(np.minimum(_first(before.left, after.left), bought))


def _repaired(world: World, before: Machines, after: Machines) -> Array:
    """When an account's assets first go another way."""
    found = np.full(world.size, FAR)
    if before is after or not len(before.ids):
        return found
    other = np.zeros(before.wear.shape, dtype=bool)
    for name in ("wear", "component", "failed", "serviced"):
        other |= getattr(before, name) != getattr(after, name)
    lived = np.where(other.any(axis=0), world.clock.start + other.argmax(axis=0) * DAY, FAR)
    when = np.minimum(np.minimum(lived, _first(before.retired, after.retired)),
                      _first(before.installed, after.installed))
    np.minimum.at(found, before.account, when)
    return found


def _turn(turns: Sequence[Turn], number: int, since: Array, to: tuple[Contracts, Machines]) -> list[Turn]:
    """The turns with those of one more round, sorted; a later round's takes over whatever came after it began."""
    new = {int(account): since[account] for account in np.nonzero(since < FAR)[0]}
    kept = [replace(turn, until=min(turn.until, new.get(turn.account, FAR))) for turn in turns
            if turn.since < new.get(turn.account, FAR)]
    kept += [Turn(account, number, when, FAR, *to) for account, when in new.items()]
    return sorted(kept, key=lambda turn: (turn.account, turn.since))
