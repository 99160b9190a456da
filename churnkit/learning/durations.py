"""When it happened, not only whether: the time to the event of each point, and how far each point can be followed.

It is made from the labels themselves, at the edge of every period: what labels.py says of a window that is as long,
that is what a duration says, so the two cannot tell different stories.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from churnkit.cutoffs import moment
from churnkit.errors import ModelError
from churnkit.learning.calibrate import Floats
from churnkit.learning.labels import verdicts, window
from churnkit.learning.targets import Target
from churnkit.settings import Settings, TargetSettings
from churnkit.signals.tables import Tables

DAY = dt.timedelta(days=1)
HORIZONS = {"churn": (30, 60, 90, 180), "maintenance": (1, 3, 7, 14, 30)}
"""Days at which a target's curve is read, where the settings say nothing; a target without them has no curve."""
_AT_ONCE = 500_000
_MICROSECOND = 1 / 86_400_000_000  # in days
KEYS = ("row_id", "entity_id", "account_id", "cutoff")
Mask = NDArray[np.bool_]
Whole = NDArray[np.int64]


def horizons(target: Target, settings: Settings) -> tuple[float, ...]:
    """The days at which the target's curve is read, ascending; empty where it has no curve.

    An expansion has none: one that was undone in between is an expansion at the shorter horizon and none at the longer.

    >>> from churnkit.learning.targets import MAINTENANCE
    >>> horizons(MAINTENANCE, Settings(targets={"maintenance": {"horizons": ["12h", "7d"]}}))
    (0.5, 7.0)
    """
    given = settings.targets.get(target.name, TargetSettings()).horizons
    if given is None:
        return tuple(map(float, HORIZONS.get(target.name, ())))
    return tuple(sorted({span / DAY for span in given}))


def edges(days: Iterable[float]) -> tuple[float, ...]:
    """Where the periods of a hazard end: at each horizon, and between two where they lie far apart.

    No period is longer than the middle one of those between the horizons, so that a point that can be followed for part
    of a long way counts for that part.

    >>> edges((30, 60, 90, 180))
    (30.0, 60.0, 90.0, 120.0, 150.0, 180.0)
    """
    ends = sorted({float(day) for day in days})
    gaps = np.diff([0.0, *ends])
    parts = np.ceil(gaps / np.median(gaps) - 1e-9).astype(int)
    return tuple(float(end - gap * (1 - step / part)) for end, gap, part in zip(ends, gaps, parts, strict=True)
                 for step in range(1, part + 1))


@dataclass(frozen=True, eq=False)
class Durations:
    """Time to event or censoring of points, shape (n,), told at the edges of K periods.

    `keys` says whose row it is (`KEYS`), in the points' order; `edges` are days from `cutoff + lead`. `labels` holds
    the label at each edge (0, 1, or NaN where it cannot be known), shape (n, K), and `moments` the days to what made
    it positive. A point followed to no edge at all has none but NaN: see `known`.

    `kinds` says what happened, such as the code of a failure, shape (n, K). Where a record that came late contradicts
    an earlier label, the label that knows most stands.
    """

    target: Target
    edges: tuple[float, ...]
    keys: pd.DataFrame
    labels: Floats
    moments: Floats
    kinds: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def known(self) -> Mask:
        """Which points can be followed to the first edge or further."""
        return np.asarray(np.isfinite(self.labels).any(axis=1))

    @cached_property
    def last(self) -> Whole:
        """The last period whose end each point was followed to, or where its event lies; -1 where there is none."""
        count = len(self.edges)
        reached = np.where(self.known, count - 1 - np.argmax(~np.isnan(self.labels)[:, ::-1], axis=1), -1)
        survived = self.labels == 0
        after = np.where(survived.any(axis=1), count - np.argmax(survived[:, ::-1], axis=1), 0)
        ones = (self.labels == 1) & (np.arange(count) >= after[:, None])
        found: Whole = np.where(ones.any(axis=1), np.argmax(ones, axis=1), reached).astype(np.int64)
        return found

    @cached_property
    def event(self) -> Mask:
        """Whether the event was seen: the label that knows most is 1."""
        found: Mask = np.nan_to_num(self._at(self.labels, self.last)) == 1
        return found

    @cached_property
    def kind(self) -> NDArray[np.object_]:
        """What each event was; None without one, or where nothing tells."""
        found = np.full(len(self), None, dtype=object)
        found[self.event] = self._at(self.kinds, self.last)[self.event]
        return found

    @cached_property
    def days(self) -> Floats:
        """Days from `cutoff + lead` to the event or to the last edge that the point was followed to; 0 if to none.

        An event counts to the end of its microsecond: `days <= edge` is what a label's half-open window says.
        """
        ends = np.array([0.0, *self.edges])
        start, end = ends[np.maximum(self.last, 0)], ends[self.last + 1]
        happened = self._at(self.moments, self.last)
        exact = np.clip(np.where(np.isnan(happened), end, happened + _MICROSECOND), start + _MICROSECOND, end)
        return np.where(self.event, exact, end)

    @property
    def cutoffs(self) -> pd.DatetimeIndex:
        """The distinct cutoffs, ascending."""
        return pd.DatetimeIndex(np.sort(self.keys["cutoff"].unique()))

    @property
    def revised(self) -> int:
        """How many points have a label that a later one contradicts."""
        had = np.fmax.accumulate(np.where(np.isnan(self.labels), -1.0, self.labels), axis=1)
        return int(((had == 1) & (self.labels == 0)).any(axis=1).sum())

    def take(self, some: Mask | Whole) -> Durations:
        """The points where a mask is true, or those at some places."""
        return replace(self, keys=self.keys.iloc[some].reset_index(drop=True), labels=self.labels[some],
                       moments=self.moments[some], kinds=self.kinds[some])

    def until(self, at: str | dt.datetime) -> Durations:
        """What was known at `at`: a label that had not closed by then is not known."""
        spent = pd.DatetimeIndex(self.keys["cutoff"]) - pd.Timestamp(moment(at) - self.target.lead - self.target.grace)
        room = -np.asarray(spent / DAY, dtype=float)
        closed = np.array(self.edges) <= room[:, None]
        return replace(self, labels=np.where(closed, self.labels, np.nan))

    def within(self, day: float) -> tuple[Floats, Mask]:
        """The label at an edge, shape (n,), and for which points it is known."""
        if day not in self.edges:
            raise ModelError(f"No period ends at {day:g} days, only at {', '.join(f'{one:g}' for one in self.edges)}. "
                             "Name one of these, or make the durations with that horizon.")
        found = self.labels[:, self.edges.index(day)]
        return np.where(self.event & (self.days <= day), 1.0, 0.0), ~np.isnan(found)

    def periods(self) -> tuple[Whole, Whole, Floats]:
        """Person-periods: each point once for every period it was at risk in and followed through.

        Returns:
            The point's place, the period's (from 0), and whether the event lies in it.
        """
        many = self.last + 1
        rows = np.repeat(np.arange(len(self)), many)
        period = np.arange(len(rows)) - np.repeat(np.cumsum(many) - many, many)
        return rows, period, (self.event[rows] & (period == self.last[rows])).astype(float)

    def frame(self) -> pd.DataFrame:
        """The keys with `days`, `event` and `known`."""
        return self.keys.assign(days=self.days, event=self.event, known=self.known)

    def _at(self, values: NDArray[Any], place: Whole) -> NDArray[Any]:
        """One value per point."""
        return np.asarray(np.take_along_axis(values, np.maximum(place, 0)[:, None], axis=1)[:, 0])


def durations(target: Target, tables: Tables, points: pd.DataFrame, ends: Iterable[float]) -> Durations:
    """How long until each point's event, told at the days `ends`, from `cutoff + lead`.

    Without an event a point is censored at the last edge whose label (with its grace) the table `covers_until`. One
    that left in another way (an asset retired without failing) is censored at the edge before.

    Args:
        target: What is predicted.
        tables: The raw tables.
        points: Prediction points of the target's entity.
        ends: The periods' ends in days, more than 0.

    Raises:
        ModelError: If the points are of another entity, or there is no end.
    """
    days = tuple(sorted({float(end) for end in ends}))
    if not days or days[0] <= 0:
        raise ModelError(f"{target.name}: a curve needs periods that end after 0 days, not {days}. Set for instance "
                         f"horizons = ['30d', '90d'] in [targets.{target.name}].")
    spans = [window(replace(target, horizon=day * DAY), points) for day in days]
    labels, moments = np.full((len(points), len(days)), np.nan), np.full((len(points), len(days)), np.nan)
    kinds = np.full((len(points), len(days)), None, dtype=object)
    step = max(_AT_ONCE // len(days), 1)
    for start in range(0, len(points), step):
        part = pd.concat([one.iloc[start:start + step] for one in spans], ignore_index=True)
        found = verdicts(target, tables, part.assign(n=range(len(part))))
        shape = len(days), len(part) // len(days)
        rows = slice(start, start + shape[1])
        labels[rows] = found["label"].to_numpy(dtype=float, na_value=np.nan).reshape(shape).T
        moments[rows] = found["after_us"].to_numpy(dtype=float).reshape(shape).T * _MICROSECOND
        kinds[rows] = found["kind"].to_numpy(dtype=object).reshape(shape).T
    cutoff = pd.to_datetime(points["cutoff"], utc=True).dt.as_unit("us")
    keys = points[["row_id", "entity_id", "account_id"]].assign(cutoff=cutoff).reset_index(drop=True)
    return Durations(target, days, keys, labels, moments, kinds)


def ordered(x: pd.DataFrame, spans: Durations, some: Mask) -> tuple[pd.DataFrame, Durations]:
    """Some of the rows, by cutoff and entity, so that the order in which they came is no matter."""
    keys = spans.keys[["cutoff", "entity_id", "row_id"]].assign(place=range(len(spans)))[some]
    places = keys.sort_values(["cutoff", "entity_id", "row_id"])["place"].to_numpy()
    return x.iloc[places], spans.take(places)
