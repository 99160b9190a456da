"""When: a discrete-time hazard, a linear one first and trees on top of it, for curves over several horizons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd

from churnkit.errors import ModelError
from churnkit.learning import baseline as logistic
from churnkit.learning.calibrate import Calibration, Floats, Kind, sigmoid
from churnkit.learning.durations import DAY, Durations, Mask, Whole, edges, ordered
from churnkit.learning.joint import cumulated, fit_maps, joint, levelled, median
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
FORMAT = 2
_WHEN = "in period"
"""The linear hazard's name for the period; no feature has a space in its name."""
SHARE = 1 / 2
"""The part of the time on which it stops and calibrates: long horizons need rows that lie long enough back."""
AT_MOST = 150_000
"""Person-periods that a fit learns from: every one with the event, and of the quiet ones a share that weighs more."""
AT_MOST_PLAIN = 50_000
"""The same for the linear hazard, whose few weights need no more."""
_AT_ONCE = 200_000


class Hazard:
    """The risk of the event in each period, given that it did not come before: `Hazard("churn", (30, 90))`.

    Each row counts once for every period that it was at risk in (person-periods). A logistic regression with a level
    per period comes first; LightGBM starts from what it says and adds what is not linear or changes with time, which
    the period's index, as one more column, tells it. Of the `planned` features, which count the days to something that
    is known to come, such as a renewal, it sees the days from the period's beginning too: a renewal matters in the
    period that it falls into. What remains after the periods so far is the product of `1 - hazard`, so a curve can
    never fall (Tutz and Schmid, Modeling Discrete Time-to-Event Data, 2016, chapters 3 and 8).

    At each edge a calibration of its own is fitted on out-of-time predictions; the calibrated curve is then the nearest
    one that never falls (least squares), because maps of their own would cross each other on some rows.

    It is read at `horizons`; the periods end at `edges`, which hold these. After `fit`: `features`, `levels`, `rounds`,
    `plain` (the logistic regression), `maps` (a calibration per edge) and `notes`.
    """

    def __init__(self, name: str, horizons: Iterable[float], seed: int = 7, calibration: Kind = "platt",
                 planned: Iterable[str] = ()) -> None:
        self.name = name
        self.planned = tuple(planned)
        self.horizons = tuple(sorted(map(float, horizons)))
        self.edges = edges(self.horizons)
        self.seed = seed
        self.kind: Kind = calibration
        self.features: tuple[str, ...] = ()
        self.levels: dict[str, tuple[str, ...]] = {}
        self.rounds = 0
        self.lead = 0.0
        self.plain = logistic.Baseline(0.0, {}, {})
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
        self.levels, self.lead = word_levels(x), spans.target.lead / DAY
        self.planned = tuple(name for name in self.planned if name in self.features)
        told, seen, self.rounds = self._out_of_time(x, spans, rounds)
        self.maps = fit_maps(self.kind, told, seen, spans)
        self.notes = () if self.maps else ("the history is too short to stop and calibrate out of time",)
        self._booster, self.plain = self._boost(x, spans, self.rounds)
        if self.maps:
            self.maps = levelled(self.maps, cumulated(self.hazards(x[seen])), spans.take(seen))
        return self

    @property
    def last(self) -> list[str]:
        """The inputs of the trees, after the features, that are none."""
        return [PERIOD, *(f"{name}_from_there" for name in self.planned)]

    def hazards(self, features: pd.DataFrame) -> Floats:
        """The risk in each period, given none before and not calibrated, shape (n, K)."""
        return self._hazards(self.booster_, self.plain, features)

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
            "planned": list(self.planned), "last": self.last, "lead": self.lead, "rounds": self.rounds,
            "plain": self.plain.to_dict(), "maps": [one.to_dict() for one in self.maps],
            "notes": list(self.notes)}, FORMAT)

    @classmethod
    def from_parts(cls, parts: Mapping[str, str]) -> Hazard:
        """The reverse of `to_parts`; parses text and JSON, executes nothing.

        Raises:
            ModelError: If a part is missing or was written by a newer churnkit, or the two do not fit together.
        """
        with readable("curve"):
            data, booster = read_parts(parts, "curve", FORMAT)
            found = cls(data["name"], data["horizons"], data["seed"], data["kind"], data["planned"])
            found.features, found.levels, found.rounds = data["features"], data["levels"], data["rounds"]
            found.lead, found.plain = data["lead"], logistic.Baseline.from_dict(data["plain"])
            found.notes = tuple(data["notes"])
            found.maps = tuple(map(Calibration.from_dict, data["maps"]))
        found._booster = booster
        return found

    def _out_of_time(self, x: pd.DataFrame, spans: Durations, rounds: int | None) -> tuple[Floats, Mask, int]:
        """Uncalibrated curves by fits that knew nothing from the rows' time; which rows have one; the iterations."""
        told, seen = np.zeros((len(spans), len(self.edges))), np.zeros(len(spans), dtype=bool)
        for one in rolling(spans, 1 if rounds is None else FOLDS, SHARE):
            before, held = spans.until(one.start.to_pydatetime()), one.held
            if not before.event.any() or not 0 < spans.event[held].sum() < held.sum():
                continue
            stop = (x[held], spans.take(held)) if rounds is None else None
            booster, plain = self._boost(x, before, rounds or MAX_ROUNDS, stop)
            rounds = rounds or booster.best_iteration or MAX_ROUNDS
            told[held] = cumulated(self._hazards(booster, plain, x[held], rounds))
            seen |= held
        return told, seen, rounds or DEFAULT_ROUNDS

    def _boost(self, x: pd.DataFrame, spans: Durations, rounds: int,
               stop: tuple[pd.DataFrame, Durations] | None = None) -> tuple[lgb.Booster, logistic.Baseline]:
        """One LightGBM fit on person-periods, and the logistic regression that it starts from."""
        plain = self._plain(x, spans)
        rows = self._rows(x, spans, plain)
        params = parameters(int(rows["label"].sum()), len(rows["label"]), self.seed)
        held = self._rows(*stop, plain) if stop else None
        return grow(params, rows, self.features, self.levels, rounds, held, levelled_loss, self.last), plain

    def _plain(self, x: pd.DataFrame, spans: Durations) -> logistic.Baseline:
        """A logistic regression on person-periods, with a level per period."""
        rows, period, y = spans.periods()
        kept, weights = _thinned(y, self.seed, AT_MOST_PLAIN)
        periods = np.array([f"{place}" for place in range(len(self.edges))], dtype=object)
        frame = x.iloc[rows[kept]].assign(**{_WHEN: periods[period[kept]]})
        return logistic.fit(frame, y[kept], {**self.levels, _WHEN: tuple(periods)}, weights)

    def _rows(self, x: pd.DataFrame, spans: Durations, plain: logistic.Baseline) -> dict[str, Any]:
        """Person-periods as LightGBM takes them: inputs, whether the event lies there, weights and where to start."""
        rows, period, y = spans.periods()
        kept, weights = _thinned(y, self.seed, AT_MOST)
        rows, period = rows[kept], period[kept]
        inputs = matrix(self.name, x, self.features, self.levels)
        return {"data": self._expanded(inputs, rows, period), "label": y[kept], "weight": weights,
                "init_score": self._starts(plain, x)[rows, period]}

    def _starts(self, plain: logistic.Baseline, x: pd.DataFrame) -> Floats:
        """The linear log-odds of every row in every period, shape (n, K)."""
        level = np.array([plain.words.get(_WHEN, {}).get(f"{place}", 0.0) for place in range(len(self.edges))])
        return np.asarray(plain.raw(x.assign(**{_WHEN: None}))[:, None] + level, dtype=float)

    def _expanded(self, inputs: Floats, rows: Whole, period: Whole) -> Floats:
        """The inputs of person-periods; last the period's index, and the planned features from its beginning."""
        begins = self.lead + np.array([0.0, *self.edges[:-1]])[period]
        planned = inputs[rows][:, [self.features.index(name) for name in self.planned]]
        return np.column_stack([inputs[rows], period.astype(float), planned - begins[:, None]])

    def _hazards(self, booster: lgb.Booster, plain: logistic.Baseline, x: pd.DataFrame,
                 rounds: int | None = None) -> Floats:
        """The hazard of every row in every period, shape (n, K), part by part in bounded memory."""
        inputs, count = matrix(self.name, x, self.features, self.levels), len(self.edges)
        found = self._starts(plain, x)
        step = max(_AT_ONCE // count, 1)
        for first in range(0, len(inputs), step):
            part = inputs[first:first + step]
            where, period = np.repeat(np.arange(len(part)), count), np.tile(np.arange(count), len(part))
            raw = booster.predict(self._expanded(part, where, period), raw_score=True, num_iteration=rounds,
                                  num_threads=THREADS)
            found[first:first + step] += np.asarray(raw, dtype=float).reshape(len(part), count)
        return sigmoid(found)


def _thinned(y: Floats, seed: int, at_most: int) -> tuple[Whole, Floats]:
    """Which person-periods are learnt from, and their weights: all events, and at random as many others as fit."""
    quiet = np.flatnonzero(y == 0)
    many = max(at_most - (len(y) - len(quiet)), len(y) - len(quiet))
    if len(quiet) <= many:
        return np.arange(len(y)), np.ones(len(y))
    drawn = np.random.default_rng(seed).choice(quiet, many, replace=False)
    kept = np.sort(np.concatenate([np.flatnonzero(y == 1), drawn]))
    return kept, np.where(y[kept] == 1, 1.0, len(quiet) / many)
