"""Which spans of seven days can hold anybody back, and which of them nest: the constraints of an allocation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

WEEK = 7
_PEOPLE = 256  # looked at together: the tables of spans against spans stay within some 20 MB

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Pairs:
    """What may be given to whom, by candidate and then by person; every gain is above 0, in whole units.

    `cell` is the pair's place among all people, kinds and days: (person * 2 + urgent) * days + place of the day.
    """

    candidate: Ints
    person: Ints
    gain: Ints
    urgent: Mask
    cell: Ints

    def pick(self, which: Mask | Ints) -> Pairs:
        """Some of the pairs."""
        return Pairs(self.candidate[which], self.person[which], self.gain[which], self.urgent[which], self.cell[which])


@dataclass(frozen=True, eq=False)
class Spans:
    """Every span that can bind, as the set of cells in which it counts.

    A span is dropped where it cannot bind: more room than pairs, or inside another span with no more room. What is left
    says exactly what all spans said. `nested` marks, per person, a family in which any two spans are apart or one
    within the other; it is all of the person's spans wherever they nest.
    """

    person: Ints
    room: Ints
    nested: Mask
    row: Ints
    """With `cell`, which cells each span holds: one entry each."""
    cell: Ints
    cells: int

    @property
    def crossing(self) -> Ints:
        """The people of whom some spans cross."""
        return np.unique(self.person[~self.nested])


def rooms(capacity: Ints, kept_back: Ints, busy: Ints, rushed: Ints, starts: Ints) -> Ints:
    """New tasks that fit into each span, for all and for ordinary ones alone; never below 0, shape (m, 2, starts)."""
    def due(tasks: Ints) -> Ints:
        sums = np.concatenate([np.zeros((len(tasks), 1), np.int64), np.cumsum(tasks, axis=1)], axis=1)
        last = tasks.shape[1]
        found: Ints = sums[:, np.minimum(starts + WEEK, last)] - sums[:, np.minimum(starts, last)]
        return found

    every = capacity[:, None] - due(busy)
    ordinary = (capacity - kept_back)[:, None] - due(busy - rushed)
    return np.maximum(np.stack([every, ordinary], axis=1), 0)


def binding(room: Ints, starts: Ints, days: Ints, counts: Ints) -> Spans:
    """The spans that can bind, from the room in all of them.

    Args:
        room: New tasks per person, kind (all, ordinary alone) and span, shape (m, 2, s).
        starts: First day of each span, shape (s,).
        days: The days on which candidates are due, rising, shape (d,).
        counts: Pairs per person, kind (ordinary, urgent) and day, shape (m, 2, d).
    """
    inside = (days >= starts[:, None]) & (days < starts[:, None] + WEEK)
    every, ordinary = np.concatenate([inside, inside], axis=1), np.concatenate([inside, 0 * inside], axis=1)
    holds = np.concatenate([every, ordinary]).astype(bool)
    parts = [_binding(room[first:first + _PEOPLE].reshape(-1, 2 * len(starts)), holds,
                      counts[first:first + _PEOPLE].reshape(-1, 2 * len(days)), first)
             for first in range(0, len(room), _PEOPLE)]
    before = np.cumsum([0, *(len(part[0]) for part in parts)])
    person, left, nested = (np.concatenate([part[place] for part in parts]) for place in range(3))
    row = np.concatenate([part[3] + start for part, start in zip(parts, before, strict=False)])
    cell = np.concatenate([part[4] for part in parts])
    return Spans(person, left, nested, row, cell, counts.size)


def _binding(room: Ints, holds: Mask, counts: Ints, first: int) -> tuple[Any, ...]:
    """The same for some people; `holds` says which cells of a person each span would hold."""
    filled = holds[None] & (counts > 0)[:, None, :]
    sets = filled.astype(np.float32)
    common = sets @ sets.transpose(0, 2, 1)                     # cells that two spans share; small whole numbers
    size = np.diagonal(common, axis1=1, axis2=2)
    within = common == size[:, :, None]                         # [p, a, b]: a lies within b
    tighter, equal = room[:, None, :] < room[:, :, None], room[:, None, :] == room[:, :, None]
    wider, same = size[:, None, :] > size[:, :, None], size[:, None, :] == size[:, :, None]
    earlier = np.tri(len(holds), k=-1, dtype=bool)[None]
    idle = (within & (tighter | (equal & (wider | (same & earlier))))).any(axis=2)
    asked = (filled * counts[:, None, :]).sum(axis=2)
    kept = ~idle & (size > 0) & (room < asked)
    cross = (common > 0) & ~within & ~within.transpose(0, 2, 1) & kept[:, :, None] & kept[:, None, :]
    nested = _nested(kept, cross, room - asked)
    people, spans = np.nonzero(kept)
    row, cell = np.nonzero(filled[people, spans])
    return (people + first, room[people, spans], nested[people, spans], row,
            (people[row] + first) * holds.shape[1] + cell)


def _nested(kept: Mask, cross: Mask, tightness: Ints) -> Mask:
    """Spans that do not cross one another, the tightest first."""
    chosen = np.zeros_like(kept)
    order, people = np.argsort(tightness, axis=1, kind="stable"), np.arange(len(kept))
    for place in order.T:
        free = ~(cross[people, place] & chosen).any(axis=1)
        chosen[people, place] = kept[people, place] & free
    return chosen


def tree(spans: Spans, which: Mask) -> tuple[Ints, Ints, Ints]:
    """Nested spans as a tree: the span above each (-1: none), each one's place, and the smallest span of every cell.

    Args:
        spans: All spans.
        which: Those to take; any two must be apart or one within the other.

    Returns:
        `above` among the taken ones, their places among all, and per cell the smallest taken span or -1.
    """
    places = np.flatnonzero(which)
    entry = np.flatnonzero(which[spans.row])
    number = np.cumsum(which) - 1
    row, cell = number[spans.row[entry]], spans.cell[entry]
    size = np.bincount(row, minlength=len(places))
    order = np.lexsort((row, size[row], cell))
    row, cell = row[order], cell[order]
    above, smallest = np.full(len(places), -1), np.full(spans.cells, -1)
    inner = np.flatnonzero(cell[1:] == cell[:-1])               # in one cell the next larger span is the one above
    above[row[inner]] = row[inner + 1]
    first = np.flatnonzero(np.append(True, cell[1:] != cell[:-1])) if len(cell) else np.zeros(0, np.int64)
    smallest[cell[first]] = row[first]
    return above, places, smallest
