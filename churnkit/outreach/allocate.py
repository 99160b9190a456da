"""Who takes which task, so that the total is the greatest that people's weeks allow: arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from churnkit.errors import OutreachError
from churnkit.outreach.crossing import Answer, cross
from churnkit.outreach.flow import best, nest
from churnkit.outreach.spans import WEEK, Ints, Mask, Pairs, Spans, binding, rooms, tree

Floats = NDArray[np.float64]
_BITS = 61  # of a whole number that the solver may fill with a gain times the nodes of the network
_FINEST = 40  # of a gain: sums of a million of them stay whole


@dataclass(frozen=True, eq=False)
class Offers:
    """What could be given to whom: n candidates, k pairs of a candidate and a person.

    Candidates are numbered as the caller sorts them, by an id that stays: the lowest go first among equals.
    """

    candidate: Ints
    """The pair's candidate, 0 to n - 1, shape (k,)."""
    person: Ints
    """The pair's person, 0 to m - 1, shape (k,)."""
    value: Floats
    """Expected net money of giving it to this person, shape (k,); a pair of 0 or less is never used."""
    due: Ints
    """Days from today on which each candidate's task is due, shape (n,); overdue counts as today."""
    urgent: Mask
    """Whether a candidate goes first and may use what is held back, shape (n,)."""


@dataclass(frozen=True, eq=False)
class Room:
    """What people can still do: m people."""

    capacity: Ints
    """Tasks due in any seven days running, shape (m,)."""
    busy: Ints
    """Open tasks due on each day from today on, shape (m, days); overdue ones count as today's."""
    slack: float = 0.0
    """The share of every capacity that is held back for urgent candidates; the last task of a week never is."""
    total: int | None = None
    """So many new tasks in all; None: as many as fit."""
    rushed: Ints | None = None
    """How many of the busy tasks stand in what was held back, shape (m, days): they take nothing from ordinary ones."""

    def held(self) -> Ints:
        """Tasks of each person's week that are kept for urgent candidates.

        >>> Room(np.array([1, 2, 15]), np.zeros((3, 1), int), slack=0.2).held().tolist()
        [0, 0, 3]
        """
        share = np.floor(self.slack * self.capacity + 0.5).astype(np.int64)
        held: Ints = np.maximum(np.minimum(share, self.capacity - 1), 0)
        return held


@dataclass(frozen=True, eq=False)
class Assignment:
    """Each candidate's person.

    `total` lies at most `tolerance` below the greatest that there is; `solver` says what proved it: "flow", "HiGHS",
    or both for different people.
    """

    person: Ints
    """The person, or -1 where the candidate waits, shape (n,)."""
    total: float
    solver: str
    tolerance: float


@dataclass(frozen=True, eq=False)
class Changes:
    """Candidates whose person differs between two plans: numbers, rising."""

    moved: Ints
    """To somebody else."""
    dropped: Ints
    """From somebody to nobody."""
    added: Ints
    """From nobody to somebody."""

    @property
    def count(self) -> int:
        """All of them."""
        return len(self.moved) + len(self.dropped) + len(self.added)


def allocate(offers: Offers, room: Room, *, sift: bool = True) -> Assignment:
    """Gives candidates to people so that the total value is the greatest under every limit.

    The limits: one person per candidate; in every seven days running no more tasks due than the person's capacity,
    busy ones counted; ordinary candidates never in what is held back; at most `room.total` in all. Where busy tasks
    fill a span already, nothing new fits. As many urgent candidates as can be served are served, whatever ordinary ones
    would bring; then the sum over all decides. Of equal sums the one with the greatest sum of n - candidate is taken
    (more tasks, and the lowest candidates), then of (n - candidate) * (m - person) (the lowest people, first for the
    lowest candidates). The order of the pairs does not matter.

    Money becomes whole numbers before it is compared: whole cents stay exact, and no pair moves by more than one unit
    of the scale. An answer that is best in units lies below the best in money by a unit per task at most:
    that is `tolerance` (of the order of 1e-9 of the total), together with what HiGHS leaves open where it is asked.

    Where a person's spans nest, or only those that nest turn out to bind, the problem is a network (see flow.py);
    people of whom others are broken, with everybody who shares candidates with them, go to HiGHS (see crossing.py).

    Args:
        offers: Candidates and pairs.
        room: People and limits.
        sift: Whether to leave aside, at first, candidates that most likely wait; the answer is the same.

    Raises:
        OutreachError: If arrays do not fit together, a pair comes twice, or a value is not a finite number.

    >>> offers = Offers(np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([90.0, 70.0, 80.0]),
    ...                 due=np.array([3, 3]), urgent=np.array([False, False]))
    >>> allocate(offers, Room(np.array([1, 1]), np.zeros((2, 1), int))).person.tolist()
    [1, 0]
    """
    _check(offers, room)
    person = np.full(len(offers.due), -1, np.int64)
    pairs, spans, scale, most = _prepared(offers, room)
    if not len(pairs.candidate) or most == 0:
        return Assignment(person, 0.0, "flow", 0.0)
    first, last = len(offers.due) - pairs.candidate, len(room.capacity) - pairs.person
    levels = (pairs.gain, first, first * last)
    above, places, smallest = tree(spans, spans.nested)
    nested = nest(above, spans.room[places], smallest, most)
    found = best(pairs, nested, levels, most, sift=sift)
    broken = _broken(spans, pairs, found.used)
    answer, solver = Answer(found.used, 0.0), "flow"
    if len(broken):
        hint = found.price[nested.leaf]
        answer, solver = _repaired(pairs, spans, levels, room.total, (found.used, hint, broken))
    used = np.flatnonzero(answer.used)
    person[pairs.candidate[used]] = pairs.person[used]
    return Assignment(person, worth(offers, person), solver, float(most + answer.short) / scale)


def worth(offers: Offers, person: Ints) -> float:
    """The value of an assignment by these offers; what they do not offer counts nothing."""
    return float(offers.value[person[offers.candidate] == offers.person].sum())


def steady(offers: Offers, previous: Ints, penalty: float) -> Offers:
    """Offers under which a candidate leaves the person it had only for more than `penalty`.

    Staying is worth that much more, so the true value of what `allocate` then finds lies below the greatest by no more
    than `penalty` times the changes that it spares. A pair of 0 or less stays one.

    Args:
        offers: The offers as they are.
        previous: Each candidate's person so far, or -1, shape (n,).
        penalty: Money per candidate that is taken from its person.
    """
    stays = (previous[offers.candidate] == offers.person) & (offers.value > 0)
    return replace(offers, value=offers.value + penalty * stays)


def changed(previous: Ints, now: Ints) -> Changes:
    """What differs between two assignments of the same candidates.

    >>> changed(np.array([0, 1, -1, 2]), np.array([0, 2, 1, -1])).moved.tolist()
    [1]
    """
    had, has = previous >= 0, now >= 0
    return Changes(np.flatnonzero(had & has & (previous != now)), np.flatnonzero(had & ~has),
                   np.flatnonzero(~had & has))


def taken(room: Room, offers: Offers, person: Ints) -> Room:
    """The room that is left once these assignments stand: they become busy, and count towards the total.

    Call `allocate` with the control group in it, keep the choices that stand, and give the rest of the candidates what
    this leaves: that passes the slots of the others on.

    Args:
        room: The room before.
        offers: The offers that the assignment comes from.
        person: Each candidate's person, or -1 where nothing is to be kept, shape (n,).
    """
    kept = np.flatnonzero(person >= 0)
    days = max(room.busy.shape[1], int(offers.due[kept].max(initial=0)) + 1)
    wider = ((0, 0), (0, days - room.busy.shape[1]))
    busy = np.pad(room.busy, wider)
    rushed = np.zeros_like(busy) if room.rushed is None else np.pad(room.rushed, wider)
    due = np.maximum(offers.due[kept], 0)
    np.add.at(busy, (person[kept], due), 1)
    np.add.at(rushed, (person[kept], due), offers.urgent[kept].astype(np.int64))
    total = None if room.total is None else max(room.total - len(kept), 0)
    return replace(room, busy=busy, rushed=rushed, total=total)


def _check(offers: Offers, room: Room) -> None:
    """Arrays that do not fit together are the caller's mistake, and are named."""
    pairs, people = len(offers.candidate), len(room.capacity)
    if len(offers.person) != pairs or len(offers.value) != pairs or len(offers.urgent) != len(offers.due):
        raise OutreachError(f"Offers: {pairs} candidates, {len(offers.person)} people and {len(offers.value)} values, "
                            f"or {len(offers.due)} due days and {len(offers.urgent)} urgent. Give as many of each.")
    for name, numbers, count in (("candidate", offers.candidate, len(offers.due)), ("person", offers.person, people)):
        if pairs and not 0 <= numbers.min() <= numbers.max() < count:
            raise OutreachError(f"Offers: {name} {numbers.min()} to {numbers.max()} of {count}. Number them from 0.")
    if not np.isfinite(offers.value).all():
        raise OutreachError(f"Offers: pair {np.flatnonzero(~np.isfinite(offers.value))[0]} has no finite value. "
                            "Leave out pairs without one.")
    shapes = {room.busy.shape} | ({room.rushed.shape} if room.rushed is not None else set())
    if len(shapes) > 1 or room.busy.ndim != 2 or len(room.busy) != people:
        raise OutreachError(f"Room: busy tasks of shape {sorted(shapes)} for {people} people. Give a row per person.")
    if not 0 <= room.slack <= 1:
        raise OutreachError(f"Room: slack is {room.slack}. Give a share from 0 to 1.")


def _prepared(offers: Offers, room: Room) -> tuple[Pairs, Spans, float, int]:
    """Pairs in order and in whole units, the spans that can bind, units per money, and the most tasks that fit."""
    places = np.flatnonzero(offers.value > 0)
    key = offers.candidate[places].astype(np.int64) * len(room.capacity) + offers.person[places]
    if not (key[1:] > key[:-1]).all():
        order = np.argsort(key, kind="stable")
        key, places = key[order], places[order]
        twice = np.flatnonzero(key[1:] == key[:-1])
        if len(twice):
            again = divmod(int(key[twice[0]]), len(room.capacity))
            raise OutreachError(f"Offers: candidate {again[0]} goes to person {again[1]} twice. Give a pair once.")
    candidate, person = offers.candidate[places].astype(np.int64), offers.person[places].astype(np.int64)
    due = np.maximum(offers.due, 0).astype(np.int64)
    present = np.bincount(due[candidate]) if len(places) else np.zeros(0, np.int64)
    days = np.flatnonzero(present)
    place = np.cumsum(present > 0) - 1
    urgent = offers.urgent[candidate].astype(bool)
    cell = (person * 2 + urgent) * len(days) + place[due[candidate]]
    shape = (len(room.capacity), 2, len(days))
    counts = np.bincount(cell, minlength=int(np.prod(shape))).reshape(shape)
    if not len(places):
        return Pairs(candidate, person, candidate, urgent, cell), _no_spans(), 1.0, 0
    starts = np.arange(max(int(days[0]) - WEEK + 1, 0), int(days[-1]) + 1)
    rushed = np.zeros_like(room.busy) if room.rushed is None else room.rushed
    left = rooms(room.capacity.astype(np.int64), room.held(), room.busy.astype(np.int64), rushed, starts)
    spans = binding(left, starts, days, counts)
    blocks = int(left[:, 0, int(days[0] - starts[0])::WEEK].sum())
    most = min(len(due), blocks, len(due) if room.total is None else max(room.total, 0))
    scale = _scale(offers.value[places], len(due) + len(spans.person))
    gain = np.maximum(np.rint(offers.value[places] * scale), 1).astype(np.int64)
    return Pairs(candidate, person, gain, urgent, cell), spans, scale, most


def _no_spans() -> Spans:
    none = np.zeros(0, np.int64)
    return Spans(none, none, none.astype(bool), none, none, 0)


def _scale(value: Floats, nodes: int) -> float:
    """Units per money: 100 times a power of two: whole cents are whole units, as fine as the solver holds."""
    bits = min(_FINEST, _BITS - int(nodes + 4).bit_length())
    return float(100 * 2.0 ** np.floor(bits - np.log2(100 * value.max())))


def _broken(spans: Spans, pairs: Pairs, used: Mask) -> Ints:
    """People of whom a span holds more than it has room for."""
    held = np.bincount(pairs.cell[used], minlength=spans.cells)
    load = np.bincount(spans.row, weights=held[spans.cell], minlength=len(spans.room))
    return np.unique(spans.person[load > spans.room])


def _repaired(pairs: Pairs, spans: Spans, levels: tuple[Ints, ...], total: int | None,
              so_far: tuple[Mask, Ints, Ints]) -> tuple[Answer, str]:
    """Hands the people with broken spans, and all who share candidates with them or with one another, to HiGHS.

    Groups that share no candidate meet in the run's total alone. Where that has room to spare in the flow's answer, the
    answer is the best without it too; so each group may be solved without it, and if all then keep it, it is the best.
    """
    used, hint, broken = so_far
    if total is None or used.sum() < total:
        group = _groups(pairs)
        which = np.flatnonzero(np.isin(group[pairs.person], group[broken]))
        part = cross(pairs.pick(which), spans, [level[which] for level in levels], None, hint)
        whole = used.copy()
        whole[which] = part.used
        if total is None or whole.sum() <= total:
            return Answer(whole, part.short), "HiGHS" if len(which) == len(used) else "flow and HiGHS"
    return cross(pairs, spans, levels, total, hint), "HiGHS"


def _groups(pairs: Pairs) -> Ints:
    """A number per person, the same for people who share candidates directly or through others."""
    people = int(pairs.person.max()) + 1
    same = np.flatnonzero(pairs.candidate[1:] == pairs.candidate[:-1])
    near = coo_array((np.ones(len(same), bool), (pairs.person[same], pairs.person[same + 1])), shape=(people, people))
    return np.asarray(connected_components(near, directed=False)[1], np.int64)
