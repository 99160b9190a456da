"""Labelled rows, and how time cuts them: what is learned from had closed before what is tested began."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from churnkit.cutoffs import moment
from churnkit.errors import ModelError
from churnkit.learning.targets import Target

Mask = NDArray[np.bool_]
KEYS = ("row_id", "entity_id", "account_id", "cutoff", "kind", "value", "after_days", "treated")


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Rows with a label, ordered by cutoff and entity.

    `X` holds the model's inputs (float64, or object for categories), `y` the labels (0 or 1), `keys` whose row it is
    (`KEYS`), `weights` how much it counts. `dropped` counts the points that have no label, by reason. `groups` holds
    attributes as words, by which an evaluation parts the rows, and `fairness` names those among them that are looked at
    for fairness; none is an input for being there.
    """

    target: Target
    X: pd.DataFrame
    y: pd.Series
    keys: pd.DataFrame
    weights: pd.Series
    dropped: Mapping[str, int]
    groups: pd.DataFrame = field(default_factory=pd.DataFrame)
    fairness: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.groups.empty:
            object.__setattr__(self, "groups", pd.DataFrame(index=self.y.index))

    def __len__(self) -> int:
        return len(self.y)

    def says(self) -> str:
        """What a run says about it, in one sentence."""
        dropped = ", ".join(f"{count} {why}" for why, count in self.dropped.items())
        return (f"{self.target.name}: {len(self)} rows, {self.positives} positive; "
                f"without a label: {dropped or 'none'}")

    @property
    def positives(self) -> int:
        """How many rows have label 1."""
        return int(self.y.sum())

    @property
    def cutoffs(self) -> pd.DatetimeIndex:
        """The distinct cutoffs, ascending."""
        return pd.DatetimeIndex(np.sort(self.keys["cutoff"].unique()))

    def take(self, mask: Mask) -> TrainingSet:
        """The rows where the mask is true."""
        return replace(self, X=self.X[mask], y=self.y[mask], keys=self.keys[mask], weights=self.weights[mask],
                       groups=self.groups[mask])

    def closed(self, at: str | dt.datetime) -> TrainingSet:
        """The rows whose label had closed by `at`: cutoff + lead + horizon + grace <= at."""
        return self.take((self.keys["cutoff"] + self.target.window <= moment(at)).to_numpy())

    def since(self, at: str | dt.datetime) -> TrainingSet:
        """The rows with a cutoff at `at` or later."""
        return self.take((self.keys["cutoff"] >= moment(at)).to_numpy())

    def split(self, at: str | dt.datetime) -> tuple[TrainingSet, TrainingSet]:
        """Train and test around a moment: labels that had closed by `at`, and cutoffs from `at` on.

        Raises:
            ModelError: If either side is empty; says which dates would do.
        """
        train, test = self.closed(at), self.since(at)
        if not len(train) or not len(test):
            side, span = ("training", train) if not len(train) else ("test", test)
            known = self.cutoffs
            reach = f"{known[0]:%Y-%m-%d} to {known[-1]:%Y-%m-%d}" if len(known) else "none"
            raise ModelError(
                f"{self.target.name}: no {side} rows ({len(span)}) for a split at {moment(at):%Y-%m-%d}. The labelled "
                f"cutoffs are "
                f"{reach}, and a label closes {self.target.window.days} days after its cutoff. Choose an `at` "
                f"between them, or "
                f"give a longer history."
            )
        return train, test


@dataclass(frozen=True)
class Timeline:
    """Where time is cut: fit | gap | stop and calibrate | gap | test. Without `stop_at` it has no room."""

    stop_at: pd.Timestamp | None
    test_at: pd.Timestamp
    gap: dt.timedelta

    def to_dict(self) -> dict[str, str | None]:
        """Plain values: ISO times and days."""
        return {"stop_at": self.stop_at.isoformat() if self.stop_at is not None else None,
                "test_at": self.test_at.isoformat(), "gap": f"{self.gap / dt.timedelta(days=1):g}d"}


def timeline(rows: TrainingSet, test_share: float = 0.25, stop_share: float = 0.25) -> Timeline:
    """Cuts for fit | gap | stop | gap | test; the shares are of the time that the two gaps leave over.

    A history too short for two gaps is cut once, without a stop part.

    Raises:
        ModelError: If it is too short even for one gap.
    """
    cutoffs, gap = rows.cutoffs, rows.target.window
    span = cutoffs[-1] - cutoffs[0]
    room = span - 2 * gap
    if room > dt.timedelta(0):
        test_at = _at_or_after(cutoffs, cutoffs[-1] - test_share * room)
        stop_at = _at_or_after(cutoffs, test_at - gap - stop_share * room)
        if stop_at + gap <= test_at and cutoffs[0] + gap <= stop_at:
            return Timeline(stop_at, test_at, gap)
    if span < gap or len(cutoffs) < 2:
        raise ModelError(
            f"{rows.target.name}: the labelled cutoffs span {span.days} days "
            f"({cutoffs[0]:%Y-%m-%d} to {cutoffs[-1]:%Y-%m-%d}), but "
            f"training and test need {gap.days} days between them. Give a longer history, or set a shorter "
            f"horizon, lead or "
            f"grace in [targets.{rows.target.name}]."
        )
    return Timeline(None, _at_or_after(cutoffs, max(cutoffs[-1] - test_share * (span - gap), cutoffs[0] + gap)), gap)


class Timed(Protocol):
    """Rows of a target at some cutoffs: a training set, or durations."""

    @property
    def target(self) -> Target: ...  # noqa: D102

    @property
    def cutoffs(self) -> pd.DatetimeIndex: ...  # noqa: D102

    @property
    def keys(self) -> pd.DataFrame: ...  # noqa: D102


LATER = 1 / 2
"""The part of the time that a backtest and a search look at."""


def stop_cut(rows: Timed, share: float = 1 / 3) -> pd.Timestamp | None:
    """Where rows are cut into fit | gap | stop, which has `share` of the time the gap leaves. None without room."""
    cutoffs, gap = rows.cutoffs, rows.target.window
    room = cutoffs[-1] - cutoffs[0] - gap
    if room < dt.timedelta(0) or len(cutoffs) < 2:
        return None
    return _at_or_after(cutoffs, max(cutoffs[-1] - share * room, cutoffs[0] + gap))


@dataclass(frozen=True, eq=False)
class Span:
    """A span of cutoffs that begins at `start`: the rows in it, and those whose label had closed before it."""

    start: pd.Timestamp
    closed: Mask
    held: Mask


def rolling(rows: Timed, folds: int, share: float = 1 / 3) -> list[Span]:
    """Consecutive spans over the last `share` of the time that the gap leaves, with as many cutoffs each as there can
    be; none without room.
    """
    first = stop_cut(rows, share)
    if first is None:
        return []
    later = rows.cutoffs[rows.cutoffs >= first]
    starts = [part[0] for part in np.array_split(later, min(folds, len(later)))]
    cutoff, closes = rows.keys["cutoff"], rows.keys["cutoff"] + rows.target.window
    return [Span(start, (closes <= start).to_numpy(),
                 ((cutoff >= start) & ((cutoff < end) if end is not None else True)).to_numpy())
            for start, end in zip(starts, [*starts[1:], None], strict=True)]


def _at_or_after(cutoffs: pd.DatetimeIndex, when: pd.Timestamp) -> pd.Timestamp:
    """The first cutoff that is not before `when`."""
    return cutoffs[min(int(cutoffs.searchsorted(when)), len(cutoffs) - 1)]
