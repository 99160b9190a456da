"""The one model that all targets share: boosted trees, a logistic regression or a blend of both, calibrated."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd

from churnkit.errors import ModelError
from churnkit.learning import baseline as logistic
from churnkit.learning import calibrate, choice
from churnkit.learning.calibrate import Calibration, Floats, Kind
from churnkit.learning.contributions import contributions as tree_contributions
from churnkit.learning.explain import Shap, reasons
from churnkit.learning.splits import Mask, TrainingSet, rolling
from churnkit.learning.targets import Target
from churnkit.learning.trees import (
    DEFAULT_ROUNDS,
    MAX_ROUNDS,
    THREADS,
    grow,
    grow_in_step,
    levelled_loss,
    matrix,
    one_order,
    parameters,
    read_parts,
    readable,
    safe_names,
    word_levels,
    write_parts,
)
from churnkit.schemas import SCORES
from churnkit.signals.catalog import Catalog

FORMAT = 2
FEWEST_ROUNDS = 20
"""Trees that would stop before this met a shift: a map from one or two of them has a slope that magnifies the next."""
FOLDS = 3
BANDS = (("high", 3.0), ("medium", 1.5))
"""A band begins where the odds are that many times the training rows' odds; below all of them it is low."""


class Model:
    """A target's model: `Model(CHURN).fit(train)`, then `predict` and `explain` on any features frame.

    After `fit`: `booster_` is LightGBM's, `features` its inputs in order, `levels` the categories' words, `rounds` the
    iterations, `blend` how trees and logistic regression make the raw score, `calibration` the map from raw score to
    probability, `baseline` the logistic regression, `base_rate` the share of positives, `shares` the lowest and the
    highest of a cutoff,
    `notes` what a reader should know about the fit. Which share and which calibration, unless given, is chosen by what
    did best out of time. `params` are LightGBM's, where a search found better ones than the default.
    """

    def __init__(self, target: Target, seed: int = 7, calibration: Kind | None = None, share: float | None = None, *,
                 params: Mapping[str, float] | None = None) -> None:
        self.target = target
        self.seed = seed
        self.kind = calibration
        self.share = share
        self.params: dict[str, float] = dict(params or {})
        self.blend = choice.Blend()
        self.version = f"{target.name} (unregistered)"
        self.features: tuple[str, ...] = ()
        self.levels: dict[str, tuple[str, ...]] = {}
        self.rounds = 0
        self.base_rate = float("nan")
        self.shares: tuple[float, ...] = ()
        self.calibration = Calibration()
        self.notes: tuple[str, ...] = ()
        self._booster: lgb.Booster | None = None
        self._baseline: logistic.Baseline | None = None

    @property
    def booster_(self) -> lgb.Booster:
        """LightGBM's own model, for people who want it.

        Raises:
            ModelError: If the model was not fitted yet.
        """
        if self._booster is None:
            raise ModelError(f"The {self.target.name} model is not fitted. Call fit(train) first.")
        return self._booster

    @property
    def baseline(self) -> logistic.Baseline:
        """The logistic regression fitted on the same rows."""
        if self._baseline is None:
            raise ModelError(f"The {self.target.name} model is not fitted. Call fit(train) first.")
        return self._baseline

    @one_order()
    def fit(self, train: TrainingSet, rounds: int | None = None) -> Model:
        """Finds iterations, the share of trees and the calibration out of time, then fits on all rows of `train`.

        Rolling predictions over the last third, by fits whose own rows had closed before, choose and calibrate; without
        `rounds` these fits grow side by side until the mean of their losses improves no more. The level is then set by
        what the last fit says of that third. A history too short for it is fitted with a default number of iterations
        and left uncalibrated, which `notes` says.

        Raises:
            ModelError: If the rows hold one outcome alone.
        """
        y = train.y.to_numpy(dtype=float)
        if not 0 < y.sum() < len(y):
            raise ModelError(
                f"{self.target.name}: {int(y.sum())} of {len(y)} training rows are positive; a model needs both "
                f"outcomes. Give a longer history."
            )
        self.features = tuple(train.X.columns)
        self.levels = word_levels(train.X)
        self.base_rate = float(np.average(y, weights=train.weights))
        shares = train.y.groupby(train.keys["cutoff"].to_numpy()).mean()
        self.shares = float(shares.min()), float(shares.max())
        x = self._matrix(train.X)
        weights = train.weights.to_numpy(dtype=float)
        trees, logit, folds = self._out_of_time(train, x, y, weights, rounds)
        seen = folds >= 0
        late = y[seen], folds[seen], weights[seen]
        share = choice.share(trees[seen], logit[seen], *late) if self.share is None else self.share
        self.blend = choice.blend(share, trees[seen], logit[seen], *late)
        raw = self.blend.of(trees[seen], logit[seen])
        self.kind = self.kind or (choice.kind(raw, *late) if seen.any() else None)
        self.calibration = calibrate.fit(self.kind or "none", raw, y[seen], weights[seen])
        self.notes = _notes(y, seen)
        self._booster = self._boost(x, y, weights, self.rounds)
        self._baseline = logistic.fit(train.X, y, self.levels, weights)
        if seen.any():
            self.calibration = calibrate.levelled(self.calibration, self.raw(train.X[seen]), y[seen], weights[seen])
        return self

    def refit(self, train: TrainingSet) -> Model:
        """A new model made as this one was, on other rows: the same inputs (all, if it has none yet), seed, form, kind
        of calibration and parameters; iterations and calibration are found anew.
        """
        chosen = train.X[list(self.features)] if self.features else train.X
        again = Model(self.target, self.seed, self.kind, self.share, params=self.params)
        return again.fit(replace(train, X=chosen))

    def losses(self, rows: TrainingSet, folds: Iterable[tuple[Mask, Mask]]) -> Iterator[float]:
        """Per fold, grown as it is asked for: the levelled log loss, at the iteration that is best on the fold's held
        rows, of trees grown on its fitted ones. For comparing parameters; the model is not fitted by it.
        """
        self.features, self.levels = tuple(rows.X.columns), word_levels(rows.X)
        x, y, weights = self._matrix(rows.X), rows.y.to_numpy(dtype=float), rows.weights.to_numpy(dtype=float)
        for fitted, held in folds:
            grown = self._boost(x[fitted], y[fitted], weights[fitted], MAX_ROUNDS, (x[held], y[held]))
            yield float(grown.best_score["valid_0"]["levelled_loss"])

    def raw(self, features: pd.DataFrame) -> Floats:
        """Raw scores (log-odds before calibration) of the trees, the logistic regression or their blend, shape (n,).

        Raises:
            ModelError: If a feature is missing; names the nearest.
        """
        if features.empty:
            return np.empty(0)
        matrix, nothing = self._matrix(features), np.zeros(len(features))
        trees = self.booster_.predict(matrix, raw_score=True, num_threads=THREADS) if self.blend.trees else nothing
        plain = self.baseline.raw(features) if self.blend.logistic else nothing
        return self.blend.of(np.asarray(trees, dtype=float), plain)

    def probability(self, features: pd.DataFrame) -> Floats:
        """Calibrated probabilities, shape (n,)."""
        return self.calibration.apply(self.raw(features))

    def predict(self, features: pd.DataFrame) -> pd.DataFrame:
        """Scores of a features frame (points + features): `schemas.SCORES`, one row per row, in its order.

        `percentile` is the rank within this frame, 100 for the highest. `value` and `currency` are blank: see stakes().
        """
        p = self.probability(features)
        scores = pd.DataFrame({
            "entity_id": features["entity_id"], "account_id": features["account_id"], "cutoff": features["cutoff"],
            "target": self.target.name, "probability": p,
            "percentile": pd.Series(p, features.index).rank(pct=True, method="average") * 100,
            "band": self.bands(p), "value": np.nan, "currency": pd.Series(None, features.index, dtype=object),
            "model_version": self.version, "data_hash": data_hash(features),
        })
        return scores[list(SCORES)]

    def bands(self, p: Floats) -> list[str]:
        """low, medium or high, by the odds against those of the training rows."""
        times = (p / (1 - p)) / (self.base_rate / (1 - self.base_rate))
        names = np.full(len(p), "low", dtype=object)
        for name, least in reversed(BANDS):
            names[times >= least] = name
        return list(names)

    def contributions(self, features: pd.DataFrame) -> tuple[Floats, Floats]:
        """SHAP values (n, features) and the expected value (n,), in log-odds; a row's sum is its raw score."""
        if features.empty:
            return np.empty((0, len(self.features))), np.empty(0)
        given, base = np.zeros((len(features), len(self.features))), np.zeros(len(features))
        if self.blend.trees:
            grown, level = tree_contributions(self.booster_, self._matrix(features), THREADS)
            given, base = self.blend.trees * grown, self.blend.trees * level
        if self.blend.logistic:
            linear, level = self.baseline.contributions(features, self.features)
            given, base = given + self.blend.logistic * linear, base + self.blend.logistic * level
        return given, base

    def explain(self, features: pd.DataFrame, top: int = 3, catalog: Catalog | None = None) -> pd.DataFrame:
        """Why each row scores as it does: `schemas.REASONS`, up to `top` rows each, what raises before what lowers.

        `catalog` is the feature store's, for the words of features that differ from workspace to workspace.
        """
        contributions, _ = self.contributions(features)
        shap = Shap(self.features, contributions, self.raw(features), self.calibration.apply)
        return reasons(self.target, features, shap, top, catalog)

    def to_parts(self) -> dict[str, str]:
        """The model as two texts: model.txt (LightGBM's) and model.json (everything else)."""
        target = {**asdict(self.target), **{name: getattr(self.target, name).total_seconds()
                                            for name in ("horizon", "lead", "grace")}}
        data = {
            "target": target,
            "seed": self.seed,
            "version": self.version,
            "features": list(self.features),
            "columns": safe_names(self.features),
            "levels": {name: list(words) for name, words in self.levels.items()},
            "calibration": self.calibration.to_dict(),
            "blend": asdict(self.blend),
            "params": self.params,
            "rounds": self.rounds,
            "base_rate": self.base_rate,
            "shares": list(self.shares),
            "notes": list(self.notes),
            "baseline": self.baseline.to_dict(),
        }
        return write_parts("model", self.booster_, data, FORMAT)

    @classmethod
    def from_parts(cls, parts: Mapping[str, str]) -> Model:
        """The reverse of `to_parts`; parses text and JSON, executes nothing.

        Raises:
            ModelError: If a part is missing or was written by a newer churnkit, or its two parts do not fit together.
        """
        with readable("model"):
            data, booster = read_parts(parts, "model", FORMAT)
            spans = {name: dt.timedelta(seconds=data["target"][name]) for name in ("horizon", "lead", "grace")}
            lists = {name: tuple(data["target"][name]) for name in ("groups", "never")}
            model = cls(Target(**{**data["target"], **spans, **lists}), data["seed"], params=data.get("params"))
            model.calibration = Calibration.from_dict(data["calibration"])
            model._baseline = logistic.Baseline.from_dict(data["baseline"])
            model.blend = choice.Blend(**data.get("blend", {"share": 1.0, "trees": 1.0, "logistic": 0.0}))
            model.features, model.levels, model.rounds = data["features"], data["levels"], data["rounds"]
            model.shares = tuple(data.get("shares", ()))
            model.base_rate, model.version, model.notes = data["base_rate"], data["version"], tuple(data["notes"])
        model.kind, model.share, model._booster = model.calibration.kind, model.blend.share, booster
        return model

    def _matrix(self, features: pd.DataFrame) -> Floats:
        """The inputs in order, categories as codes; a word that training did not know is missing."""
        return matrix(self.target.name, features, self.features, self.levels)

    def _out_of_time(self, train: TrainingSet, x: Floats, y: Floats, weights: Floats,
                     rounds: int | None) -> tuple[Floats, Floats, np.ndarray[Any, np.dtype[np.int64]]]:
        """Raw scores of rows by trees and by logistic regressions whose own rows had closed before; and each row's fold
        in time, -1 where there is none. Without `rounds` the iterations are found on the way.
        """
        trees, logit, folds = np.zeros(len(y)), np.zeros(len(y)), np.full(len(y), -1)
        splits = self._splits(train, y)
        boosters, self.rounds = self._fold_trees(splits, x, y, weights, rounds)
        for fold, ((fitted, held), booster) in enumerate(zip(splits, boosters, strict=True)):
            trees[held] = np.asarray(booster.predict(x[held], raw_score=True, num_iteration=self.rounds,
                                                     num_threads=THREADS))
            logit[held] = logistic.fit(train.X[fitted], y[fitted], self.levels, weights[fitted]).raw(train.X[held])
            folds[held] = fold
        return trees, logit, folds

    def _fold_trees(self, splits: list[tuple[Mask, Mask]], x: Floats, y: Floats, weights: Floats,
                    rounds: int | None) -> tuple[list[lgb.Booster], int]:
        """Each fold's trees, and the iterations: those given, else those after which the folds' held rows improve no
        more, else (no fold holds both outcomes) the default.
        """
        telling = all(0 < y[held].sum() < held.sum() for _, held in splits)
        if rounds or not splits or not telling:
            rounds = rounds or DEFAULT_ROUNDS
            return [self._boost(x[fitted], y[fitted], weights[fitted], rounds) for fitted, _ in splits], rounds
        fits = [(self._parameters(y[fitted]), {"data": x[fitted], "label": y[fitted], "weight": weights[fitted]},
                 {"data": x[held], "label": y[held]}) for fitted, held in splits]
        boosters, best = grow_in_step(fits, self.features, self.levels, levelled_loss)
        return boosters, max(best, FEWEST_ROUNDS)

    def _splits(self, train: TrainingSet, y: Floats) -> list[tuple[Mask, Mask]]:
        """Rolling pairs over the last third: rows that had closed before, and the rows of a span that begins then."""
        return [(one.closed, one.held) for one in rolling(train, FOLDS) if 0 < y[one.closed].sum() < one.closed.sum()]

    def _parameters(self, y: Floats) -> dict[str, Any]:
        return parameters(int(y.sum()), len(y), self.seed) | self.params

    def _boost(self, x: Floats, y: Floats, weights: Floats, rounds: int,
               stop: tuple[Floats, Floats] | None = None) -> lgb.Booster:
        """One LightGBM fit; with stop rows it ends when they have not improved for a while."""
        held = {"data": stop[0], "label": stop[1]} if stop else None
        return grow(self._parameters(y), {"data": x, "label": y, "weight": weights}, self.features, self.levels, rounds,
                    held, levelled_loss)


def data_hash(features: pd.DataFrame) -> str:
    """16 hexadecimal digits that change with any value of the frame, and not with the order of rows or columns."""
    ordered = features.reindex(columns=sorted(map(str, features.columns)))
    rows = pd.util.hash_pandas_object(ordered, index=False).sort_values().to_numpy()
    return hashlib.sha256(",".join(ordered.columns).encode() + rows.tobytes()).hexdigest()[:16]


def _notes(y: Floats, seen: Mask) -> tuple[str, ...]:
    """What a reader should know: no calibration out of time, or a share of positives that moved."""
    if not seen.any():
        return ("the history is too short to stop and calibrate out of time",)
    before, late = y[~seen], y[seen]
    if not len(before):
        return ()
    shares = float(before.mean()), float(late.mean())
    error = np.sqrt(sum(share * (1 - share) / len(part) for share, part in zip(shares, (before, late), strict=True)))
    if abs(shares[1] - shares[0]) <= max(3 * error, 0.25 * shares[0]):
        return ()
    said = (f"the share of positives moved from {shares[0]:.1%} to {shares[1]:.1%}; the calibration follows the later "
            "rows, and a further move would need another training")
    return (said,)
