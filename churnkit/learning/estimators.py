"""The small estimators beside the model: a discrete-time hazard for curves over horizons, and life up to a cap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd

from churnkit.errors import ModelError
from churnkit.learning.calibrate import Calibration, Floats, Kind, log_odds, sigmoid
from churnkit.learning.durations import Durations, Mask, Whole, edges, ordered
from churnkit.learning.joint import cumulated, fit_maps, joint, median
from churnkit.learning.splits import rolling
from churnkit.learning.trees import (
    DEFAULT_ROUNDS,
    MAX_ROUNDS,
    THREADS,
    fitted,
    grow,
    levelled_loss,
    matrix,
    one_order,
    parameters,
    read_parts,
    readable,
    word_levels,
    write_parts,
)
from churnkit.schemas import CURVES

FOLDS = 3
PERIOD = "period"
SHARE = 1 / 2
"""The part of the time on which it stops and calibrates: long horizons need rows that lie long enough back."""
AT_MOST = 150_000
"""Person-periods that a fit learns from: every one with the event, and of the quiet ones a share that weighs more."""
_AT_ONCE = 200_000


class Hazard:
    """The risk of the event in each period, given that it did not come before: `Hazard("churn", (30, 90))`.

    Each row counts once for every period that it was at risk in (person-periods), with the period's index as one more
    column and the log-odds of the period's overall hazard as the start; LightGBM learns from that. What remains after
    the periods so far is the product of `1 - hazard`, so a curve can never fall (Tutz and Schmid, Modeling Discrete
    Time-to-Event Data, 2016, chapters 3 and 8).

    At each edge a calibration of its own is fitted on out-of-time predictions; the calibrated curve is then the nearest
    one that never falls (least squares), because maps of their own would cross each other on some rows.

    It is read at `horizons`; the periods end at `edges`, which hold these. After `fit`: `features`, `levels`, `rounds`,
    `starts` (log-odds per period), `maps` (a calibration per edge) and `notes`.
    """

    def __init__(self, name: str, horizons: Iterable[float], seed: int = 7, calibration: Kind = "platt") -> None:
        self.name = name
        self.horizons = tuple(sorted(map(float, horizons)))
        self.edges = edges(self.horizons)
        self.seed = seed
        self.kind: Kind = calibration
        self.features: tuple[str, ...] = ()
        self.levels: dict[str, tuple[str, ...]] = {}
        self.rounds = 0
        self.starts: Floats = np.empty(0)
        self.maps: tuple[Calibration, ...] = ()
        self.notes: tuple[str, ...] = ()
        self._booster: lgb.Booster | None = None

    @property
    def booster_(self) -> lgb.Booster:
        """LightGBM's own model; a ModelError until it is fitted."""
        return fitted(self._booster, f"{self.name} curve is")

    @one_order()
    def fit(self, x: pd.DataFrame, spans: Durations, rounds: int | None = None) -> Hazard:
        """Finds iterations and calibration out of time, then fits on all rows that can be followed to an edge.

        As for `Model.fit`: without `rounds` the later half of the time says when to stop, with `rounds` the calibration
        comes from rolling predictions over it.

        Args:
            x: The inputs, one row per duration, in their order.
            spans: Time to event or censoring, told at this curve's edges.
            rounds: Iterations found before.

        Raises:
            ModelError: If the durations have other edges or other rows, or hold no event or nothing else.
        """
        if spans.edges != self.edges or len(x) != len(spans):
            raise ModelError(f"{self.name}: {len(spans)} durations with the edges {spans.edges} do not fit {len(x)} "
                             f"rows and the curve's {self.edges}. Make them with durations(..., {self.edges}).")
        x, spans = ordered(x, spans, spans.known)
        if not 0 < spans.event.sum() < len(spans):
            raise ModelError(f"{self.name}: {int(spans.event.sum())} of {len(spans)} rows end in the event; a curve "
                             "needs both outcomes. Give a longer history.")
        self.features = tuple(map(str, x.columns))
        self.levels = word_levels(x)
        inputs = matrix(self.name, x, self.features, self.levels)
        told, seen, self.rounds = self._out_of_time(inputs, spans, rounds)
        self.maps = fit_maps(self.kind, told, seen, spans)
        self.notes = () if self.maps else ("the history is too short to stop and calibrate out of time",)
        self._booster, self.starts = self._boost(inputs, spans, self.rounds)
        return self

    def hazards(self, features: pd.DataFrame) -> Floats:
        """The risk in each period, given none before and not calibrated, shape (n, K)."""
        return _hazards(self.booster_, matrix(self.name, features, self.features, self.levels), self.starts)

    def probability(self, features: pd.DataFrame) -> Floats:
        """The calibrated probability of the event by each edge, shape (n, K); never falls along a row."""
        return joint(self.maps, cumulated(self.hazards(features)))

    def median(self, probability: Floats) -> Floats:
        """Days from the window's start until half of such rows had the event; NaN where that lies beyond the last edge.

        Between two edges the risk is taken to be even.
        """
        return median(self.edges, probability)

    def predict(self, features: pd.DataFrame) -> pd.DataFrame:
        """The curve of each row at the horizons: `schemas.CURVES`, row by row."""
        days = self.horizons
        at = [self.edges.index(day) for day in days]
        p = self.probability(features)
        rows = np.repeat(np.arange(len(features)), len(days))
        keys = features[["entity_id", "account_id", "cutoff"]].iloc[rows].reset_index(drop=True)
        found = keys.assign(target=self.name, horizon_days=np.tile(np.array(days, dtype=float), len(features)),
                            probability=p[:, at].ravel(), median_days=np.repeat(self.median(p), len(days)))
        return found[list(CURVES)]

    def to_parts(self) -> dict[str, str]:
        """The curve as two texts: curve.txt (LightGBM's) and curve.json (everything else)."""
        return write_parts("curve", self.booster_, {
            "name": self.name, "horizons": list(self.horizons), "seed": self.seed, "kind": self.kind,
            "features": list(self.features), "levels": {name: list(words) for name, words in self.levels.items()},
            "rounds": self.rounds, "starts": self.starts.tolist(), "maps": [one.to_dict() for one in self.maps],
            "notes": list(self.notes)})

    @classmethod
    def from_parts(cls, parts: Mapping[str, str]) -> Hazard:
        """The reverse of `to_parts`; parses text and JSON, executes nothing.

        Raises:
            ModelError: If a part is missing or was written by a newer churnkit, or the two do not fit together.
        """
        with readable("curve"):
            data, booster = read_parts(parts, "curve", last=[PERIOD])
            found = cls(data["name"], data["horizons"], data["seed"], data["kind"])
            found.features, found.levels, found.rounds = data["features"], data["levels"], data["rounds"]
            found.starts, found.notes = np.array(data["starts"], dtype=float), tuple(data["notes"])
            found.maps = tuple(map(Calibration.from_dict, data["maps"]))
        found._booster = booster
        return found

    def _out_of_time(self, inputs: Floats, spans: Durations, rounds: int | None) -> tuple[Floats, Mask, int]:
        """Uncalibrated curves by fits that knew nothing from the rows' time; which rows have one; the iterations."""
        told, seen = np.zeros((len(spans), len(self.edges))), np.zeros(len(spans), dtype=bool)
        for one in rolling(spans, 1 if rounds is None else FOLDS, SHARE):
            before, held = spans.until(one.start.to_pydatetime()), one.held
            if not before.event.any() or not 0 < spans.event[held].sum() < held.sum():
                continue
            stop = (inputs[held], spans.take(held)) if rounds is None else None
            booster, starts = self._boost(inputs, before, rounds or MAX_ROUNDS, stop)
            rounds = rounds or booster.best_iteration or MAX_ROUNDS
            told[held] = cumulated(_hazards(booster, inputs[held], starts, rounds))
            seen |= held
        return told, seen, rounds or DEFAULT_ROUNDS

    def _boost(self, inputs: Floats, spans: Durations, rounds: int,
               stop: tuple[Floats, Durations] | None = None) -> tuple[lgb.Booster, Floats]:
        """One LightGBM fit on person-periods, and the log-odds it starts from in each period."""
        starts = overall(spans)
        rows = self._rows(inputs, spans, starts)
        params = parameters(int(rows["label"].sum()), len(rows["label"]), self.seed)
        held = self._rows(*stop, starts) if stop else None
        return grow(params, rows, self.features, self.levels, rounds, held, levelled_loss, last=[PERIOD]), starts

    def _rows(self, inputs: Floats, spans: Durations, starts: Floats) -> dict[str, Any]:
        """Person-periods as LightGBM takes them: inputs, whether the event lies there, weights and where to start."""
        rows, period, y = spans.periods()
        kept, weights = _thinned(y, self.seed)
        rows, period = rows[kept], period[kept]
        return {"data": _expanded(inputs, rows, period), "label": y[kept], "weight": weights,
                "init_score": starts[period]}


class CappedLife:
    """Days left, and beyond a cap only that it is more: `CappedLife("maintenance", 30)`.

    A LightGBM regression on life up to the cap, on the rows that can be followed so far: far-out lives are noise that
    would be learnt instead of the near ones (Heimes, Recurrent neural networks for remaining useful life, 2008).
    """

    def __init__(self, name: str, cap: float, seed: int = 7) -> None:
        self.name = name
        self.cap = float(cap)
        self.seed = seed
        self.features: tuple[str, ...] = ()
        self.levels: dict[str, tuple[str, ...]] = {}
        self.rounds = 0
        self.mean = float("nan")
        self._booster: lgb.Booster | None = None

    @property
    def booster_(self) -> lgb.Booster:
        """LightGBM's own model; a ModelError until it is fitted."""
        return fitted(self._booster, f"{self.name} life is")

    @one_order()
    def fit(self, x: pd.DataFrame, spans: Durations, rounds: int | None = None) -> CappedLife:
        """Finds the iterations out of time (where `rounds` are not given), then fits on all rows that are known.

        Args:
            x: The inputs, one row per duration, in their order.
            spans: Time to event or censoring, with an edge at the cap.
            rounds: Iterations found before.

        Raises:
            ModelError: If no row can be followed to the cap, or none has the event before.
        """
        x, spans = ordered(x, spans, spans.within(self.cap)[1])
        y = np.minimum(spans.days, self.cap) / self.cap
        if not (y < 1).any():
            raise ModelError(f"{self.name}: none of {len(y)} rows that are followed to {self.cap:g} days ends before, "
                             "so there is no remaining life to learn. Give a longer history.")
        self.features, self.levels, self.mean = tuple(map(str, x.columns)), word_levels(x), float(y.mean()) * self.cap
        inputs = matrix(self.name, x, self.features, self.levels)
        for one in rolling(spans, 1) if rounds is None else ():
            before = spans.until(one.start.to_pydatetime()).within(self.cap)[1]
            if before.any():
                found = self._boost(inputs[before], y[before], MAX_ROUNDS, (inputs[one.held], y[one.held]))
                rounds = found.best_iteration
        self.rounds = rounds or DEFAULT_ROUNDS
        self._booster = self._boost(inputs, y, self.rounds)
        return self

    def predict(self, features: pd.DataFrame) -> Floats:
        """Days left, between 0 and the cap, shape (n,)."""
        inputs = matrix(self.name, features, self.features, self.levels)
        if not len(inputs):
            return np.empty(0)
        share = np.asarray(self.booster_.predict(inputs, num_threads=THREADS), dtype=float)
        return np.asarray(np.clip(share, 0, 1) * self.cap, dtype=float)

    def to_parts(self) -> dict[str, str]:
        """The estimator as two texts: life.txt (LightGBM's) and life.json (everything else)."""
        return write_parts("life", self.booster_, {
            "name": self.name, "cap": self.cap, "seed": self.seed, "rounds": self.rounds, "mean": self.mean,
            "features": list(self.features), "levels": {name: list(words) for name, words in self.levels.items()}})

    @classmethod
    def from_parts(cls, parts: Mapping[str, str]) -> CappedLife:
        """The reverse of `to_parts`; parses text and JSON, executes nothing.

        Raises:
            ModelError: If a part is missing or was written by a newer churnkit, or the two do not fit together.
        """
        with readable("life"):
            data, booster = read_parts(parts, "life")
            found = cls(data["name"], data["cap"], data["seed"])
            found.features, found.levels = data["features"], data["levels"]
            found.rounds, found.mean = data["rounds"], data["mean"]
        found._booster = booster
        return found

    def _boost(self, inputs: Floats, y: Floats, rounds: int, stop: tuple[Floats, Floats] | None = None) -> lgb.Booster:
        params = {**parameters(int((y < 1).sum()), len(y), self.seed), "objective": "regression", "metric": "l2"}
        held = {"data": stop[0], "label": stop[1]} if stop else None
        return grow(params, {"data": inputs, "label": y}, self.features, self.levels, rounds, held)


def overall(spans: Durations) -> Floats:
    """Log-odds of the event in each period, over all rows at risk, shape (K,); few rows lean on the rate of all."""
    _, period, y = spans.periods()
    count = len(spans.edges)
    events, risk = np.bincount(period, y, count), np.bincount(period, minlength=count)
    lengths = np.diff([0.0, *spans.edges])
    usual = -np.expm1(-lengths * max(events.sum(), 0.5) / max(float((risk * lengths).sum()), 1.0))
    return log_odds((events + 1) / (risk + 1 / usual))


def _thinned(y: Floats, seed: int) -> tuple[Whole, Floats]:
    """Which person-periods are learnt from, and their weights: all events, and at random as many others as fit."""
    quiet = np.flatnonzero(y == 0)
    many = max(AT_MOST - (len(y) - len(quiet)), len(y) - len(quiet))
    if len(quiet) <= many:
        return np.arange(len(y)), np.ones(len(y))
    drawn = np.random.default_rng(seed).choice(quiet, many, replace=False)
    kept = np.sort(np.concatenate([np.flatnonzero(y == 1), drawn]))
    return kept, np.where(y[kept] == 1, 1.0, len(quiet) / many)


def _expanded(inputs: Floats, rows: Whole, period: Whole) -> Floats:
    """The inputs of person-periods, with the period's index as the last column."""
    return np.column_stack([inputs[rows], period.astype(float)])


def _hazards(booster: lgb.Booster, inputs: Floats, starts: Floats, rounds: int | None = None) -> Floats:
    """The hazard of every row in every period, shape (n, K), part by part in bounded memory."""
    count = len(starts)
    found = np.empty((len(inputs), count))
    step = max(_AT_ONCE // count, 1)
    for first in range(0, len(inputs), step):
        part = inputs[first:first + step]
        rows, period = np.repeat(np.arange(len(part)), count), np.tile(np.arange(count), len(part))
        raw = booster.predict(_expanded(part, rows, period), raw_score=True, num_iteration=rounds, num_threads=THREADS)
        found[first:first + step] = sigmoid(np.asarray(raw, dtype=float) + starts[period]).reshape(len(part), count)
    return found
