"""What its own past explains of a day: the same weekday of the weeks before, the days just before, and the year before.

Three explanations are tried, and a day is odd only where none holds:

- the median of the same weekday over the last weeks;
- that, moved as far as the days just before were off it, so that what builds up over days is no surprise;
- that, moved as far as the season moved it a year ago.

Counts are compared as 2 * sqrt(n + 3/8), whose variance is about 1 for a Poisson count (Anscombe 1948, Biometrika 35,
246-254). The scale is how well the second explanation fitted the last half year: the greatest of 1, the normalised
median absolute deviation, and a quarter of the third largest miss, which is what bursts that come back leave behind.
A day is odd beyond `LIMIT` scales: for normal misses one in about 1.7 million days and series, and by the third part of
the scale never for a miss smaller than 1.25 times one that was seen three times. It must matter, too: see `Bounds`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from churnkit.watch.counts import AGES, Numbers

LIMIT = 5.0
"""Scales beyond which a miss is odd."""
WEEKS, NEAR, NEAR_SPAN, POOL = 5, 5, 14, 182
"""Weeks of the same weekday; days just before, and how far back they are sought; days whose misses give the scale."""
LEAST, LEAST_POOL = 3, 28
"""Same weekdays, and misses, that there must be; with fewer there is no history yet."""
JUDGED = 28
"""Days that are judged in their order, so that what followed a fault is not compared with the fault."""


@dataclass(frozen=True)
class Bounds:
    """What matters: shares of what is explained below and above which a day may be odd, and the least difference.

    `least` is in rows, or in shares of the base where there is one.
    """

    down: float
    up: float
    least: float = 0.0


@dataclass(frozen=True)
class Odd:
    """A day that nothing explains: what it held, the least and the most that was explained, and how many scales off."""

    place: int
    value: float
    low: float
    high: float
    scales: float


@dataclass(frozen=True)
class Series:
    """Counts by day and age, (days, AGES); with a base, such as all rows of the day, their share of it is judged.

    `span` is over how many days each count is summed: the days just before share rows with it, and explain nothing.
    """

    counts: Numbers
    base: Numbers | None = None
    span: int = 1

    def share(self, age: int) -> Numbers:
        """The counts of one age, or their shares."""
        if self.base is None:
            return self.counts[:, age]
        base = self.base[:, age]
        return np.where(base > 0, self.counts[:, age] / np.where(base > 0, base, 1.0), np.nan)

    def weight(self, age: int) -> Numbers:
        """What makes a share a count."""
        return np.ones(len(self.counts)) if self.base is None else self.base[:, age]


def odd(series: Series, bounds: Bounds, left_out: npt.NDArray[np.bool_], judged: int = JUDGED,
        accepted: frozenset[int] = frozenset()) -> list[Odd]:
    """The odd days among the last ones, in their order.

    Args:
        series: The counts; missing before they begin.
        bounds: What matters.
        left_out: Days that are no history, because something was wrong with them.
        judged: How many days, counted from the last.
        accepted: Days that are history though they are odd, because a person said so.

    >>> days = np.full((84, AGES), 100.0)
    >>> days[-1] = 0.0
    >>> [one.value for one in odd(Series(days), Bounds(down=0.8, up=1.4), np.zeros(84, dtype=bool))]
    [0.0]
    """
    size = len(series.counts)
    found: list[Odd] = []
    out = left_out.copy()
    for place in range(max(size - judged, 7 * LEAST), size):
        age = min(size - 1 - place, AGES - 1)
        known = np.where(out, np.nan, series.share(age))
        value = series.share(age)[place]
        usual = _median(known[[place - 7 * week for week in range(1, WEEKS + 1) if place >= 7 * week]], LEAST)
        if np.isnan(value) or np.isnan(usual) or not _matters(value, usual, usual, bounds):
            continue  # the other explanations only widen what is explained
        one = _judge(known, series, place, bounds)
        if one is not None:
            found.append(one)
            out[place] = place not in accepted
    return found


def history(series: Series) -> bool:
    """Whether there are enough days, and enough rows in them, to judge the last one."""
    past = series.counts[:-1, -1]
    return int(np.isfinite(past).sum()) >= 7 * WEEKS + LEAST_POOL and float(np.nansum(past)) >= LEAST_POOL


def explained(known: Numbers, span: int = 1) -> tuple[Numbers, Numbers, Numbers]:
    """For every day, what the weekday, the days just before and the year before make of it; missing where unknown."""
    usual = _medians(np.stack([_back(known, 7 * week) for week in range(1, WEEKS + 1)]), LEAST)
    tiny = 0.5 if np.nanmax(known, initial=0.0) > 1 else 1e-4
    off = (known + tiny) / (usual + tiny)
    near = np.stack([_back(off, day) for day in range(span, span + NEAR_SPAN)])
    near[np.cumsum(np.isfinite(near), axis=0) > NEAR] = np.nan
    moved = _medians(near, 2)
    season = _medians(np.stack([_back(known, days) for days in (357, 364, 371)]), 2)
    last_year = (season + tiny) / (_back(usual, 364) + tiny)
    return usual, usual * moved, usual * last_year


def _judge(known: Numbers, series: Series, place: int, bounds: Bounds) -> Odd | None:
    """One day against all three explanations; `known` may lack the day itself."""
    age = min(len(known) - 1 - place, AGES - 1)
    value = float(series.share(age)[place])
    part, here = np.append(known[:place], value), series.weight(age)[:place + 1]
    ways = explained(part, series.span)
    told = [float(way[-1]) for way in ways if np.isfinite(way[-1])]
    low, high = min(told), max(told)
    if not _matters(value, low, high, bounds):
        return None
    best = np.where(np.isfinite(ways[1]), ways[1], ways[0])
    miss = (_even(part * here) - _even(best * here))[:-1][-POOL:]
    miss = miss[np.isfinite(miss)]
    if len(miss) < LEAST_POOL:
        return None
    edge = low if value < low else high
    scales = float(_even(value * here[-1]) - _even(edge * here[-1])) / scale(miss)
    return Odd(place, value, low, high, scales) if abs(scales) > LIMIT else None


def scale(miss: Numbers, least: float = 1.0) -> float:
    """How far off is usual: the greatest of `least`, 1.4826 x the median absolute miss, and a quarter of the third
    largest.

    >>> scale(np.array([0.1, -0.2, 0.3, -0.1]))
    1.0
    """
    size = np.sort(np.abs(miss))[::-1]
    third = size[2] / 4 if len(size) > 2 else 0.0
    return float(max(least, 1.4826 * np.median(size), third))


def _matters(value: float, low: float, high: float, bounds: Bounds) -> bool:
    return bool((value < bounds.down * low and low - value >= bounds.least)
                or (value > bounds.up * high and value - high >= bounds.least))


def _even(counts: Numbers | float) -> Numbers:
    """Counts with an even variance (Anscombe)."""
    return np.asarray(2 * np.sqrt(np.maximum(counts, 0.0) + 0.375))


def _back(values: Numbers, days: int) -> Numbers:
    """For every day the value so many days before."""
    return np.concatenate([np.full(min(days, len(values)), np.nan), values[:-days]])


def _median(values: Numbers, least: int) -> float:
    there = values[np.isfinite(values)]
    return float(np.median(there)) if len(there) >= least else float("nan")


def _medians(stack: Numbers, least: int) -> Numbers:
    """Medians over the first axis, missing where there are fewer than `least` values: a quick nanmedian."""
    ordered = np.sort(stack, axis=0)  # what is missing comes last
    many = np.isfinite(stack).sum(axis=0)
    low, high = np.maximum((many - 1) // 2, 0), many // 2
    high = np.minimum(high, len(stack) - 1)
    columns = np.arange(stack.shape[1])
    return np.where(many >= least, (ordered[low, columns] + ordered[high, columns]) / 2, np.nan)
