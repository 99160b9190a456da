"""The one model that all targets share: boosted trees with a calibrated probability, a baseline beside them."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd

from churnkit.errors import ModelError
from churnkit.learning import baseline as logistic
from churnkit.learning import calibrate
from churnkit.learning.calibrate import Calibration, Floats, Kind
from churnkit.learning.explain import Shap, reasons
from churnkit.learning.splits import TrainingSet, stop_cut
from churnkit.learning.targets import Target
from churnkit.learning.trees import (
    DEFAULT_ROUNDS,
    MAX_ROUNDS,
    PATIENCE,
    THREADS,
    levelled_loss,
    matrix,
    parameters,
    safe_names,
    word_levels,
)
from churnkit.schemas import SCORES
from churnkit.signals.catalog import Catalog

FORMAT = 1
FOLDS = 3
BANDS = (("high", 3.0), ("medium", 1.5))
"""A band begins where the odds are that many times the training rows' odds; below all of them it is low."""


class Model:
    """A target's model: `Model(CHURN).fit(train)`, then `predict` and `explain` on any features frame.

    After `fit`: `booster_` is LightGBM's, `features` its inputs in order, `levels` the categories' words, `rounds` the
    iterations, `calibration` the map from raw score to probability, `baseline` the logistic regression, `base_rate` the
    share of positives, `notes` what a reader should know about the fit.
    """

    def __init__(self, target: Target, seed: int = 7, calibration: Kind = "platt") -> None:
        self.target = target
        self.seed = seed
        self.kind: Kind = calibration
        self.version = f"{target.name} (unregistered)"
        self.features: tuple[str, ...] = ()
        self.levels: dict[str, tuple[str, ...]] = {}
        self.rounds = 0
        self.base_rate = float("nan")
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

    def fit(self, train: TrainingSet, rounds: int | None = None) -> Model:
        """Finds iterations and calibration out of time, then fits on all rows of `train`.

        Without `rounds` the rows are cut into fit | gap | stop: the stop part decides when to stop and calibrates. With
        `rounds` (found before) the calibration comes from rolling out-of-time predictions over the last third. A
        history too short for either is fitted with a default number of iterations and left uncalibrated, which
        `notes` says.

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
        self.base_rate = float(y.mean())
        x = self._matrix(train.X)
        weights = train.weights.to_numpy(dtype=float)
        raw, seen, self.rounds = self._out_of_time(train, x, y, weights, rounds)
        notes = [] if seen.any() else ["the history is too short to stop and calibrate out of time"]
        self.calibration = calibrate.fit(self.kind, raw[seen], y[seen])
        self.notes = tuple(notes)
        self._booster = self._boost(x, y, weights, self.rounds)
        self._baseline = logistic.fit(train.X, y, self.levels)
        return self

    def raw(self, features: pd.DataFrame) -> Floats:
        """The booster's raw scores (log-odds before calibration), shape (n,).

        Raises:
            ModelError: If a feature is missing; names the nearest.
        """
        if features.empty:
            return np.empty(0)
        return np.asarray(
            self.booster_.predict(self._matrix(features), raw_score=True, num_threads=THREADS), dtype=float
        )

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
        found = np.asarray(self.booster_.predict(self._matrix(features), pred_contrib=True, num_threads=THREADS),
                           dtype=float)
        return found[:, :-1], found[:, -1]

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
            "format": FORMAT,
            "target": target,
            "seed": self.seed,
            "version": self.version,
            "features": list(self.features),
            "columns": safe_names(self.features),
            "levels": {name: list(words) for name, words in self.levels.items()},
            "calibration": self.calibration.to_dict(),
            "rounds": self.rounds,
            "base_rate": self.base_rate,
            "notes": list(self.notes),
            "baseline": self.baseline.to_dict(),
            "lightgbm": lgb.__version__,
        }
        return {
            "model.txt": self.booster_.model_to_string(),
            "model.json": json.dumps(data, indent=1, sort_keys=True) + "\n",
        }

    @classmethod
    def from_parts(cls, parts: Mapping[str, str]) -> Model:
        """The reverse of `to_parts`; parses text and JSON, executes nothing.

        Raises:
            ModelError: If a part is missing or was written by a newer churnkit, or its two parts do not fit together.
        """
        try:
            data = json.loads(parts["model.json"])
            if data["format"] > FORMAT:
                raise ModelError(
                    f"The model has format {data['format']}, newer than this churnkit knows ({FORMAT}). Upgrade "
                    f"churnkit."
                )
            spans = {name: dt.timedelta(seconds=data["target"][name]) for name in ("horizon", "lead", "grace")}
            lists = {name: tuple(data["target"][name]) for name in ("groups", "never")}
            model = cls(Target(**{**data["target"], **spans, **lists}), data["seed"])
            booster = lgb.Booster(model_str=parts["model.txt"])
            model.calibration = Calibration.from_dict(data["calibration"])
            model._baseline = logistic.Baseline.from_dict(data["baseline"])
            model.features, model.rounds, model.base_rate = tuple(data["features"]), data["rounds"], data["base_rate"]
        except (KeyError, TypeError, ValueError, lgb.basic.LightGBMError) as error:
            raise ModelError(f"The model's files cannot be read ({error!r}). Train it again: churnkit train.") from None
        if booster.feature_name() != safe_names(model.features):
            raise ModelError(
                "model.txt and model.json name different features: they are not of one model. Train it again: "
                "churnkit train."
            )
        model.kind = model.calibration.kind
        model.levels = {name: tuple(words) for name, words in data["levels"].items()}
        model.version, model.notes, model._booster = data["version"], tuple(data["notes"]), booster
        return model

    def _matrix(self, features: pd.DataFrame) -> Floats:
        """The inputs in order, categories as codes; a word that training did not know is missing."""
        return matrix(self.target.name, features, self.features, self.levels)

    def _out_of_time(self, train: TrainingSet, x: Floats, y: Floats, weights: Floats,
                     rounds: int | None) -> tuple[Floats, np.ndarray[Any, np.dtype[np.bool_]], int]:
        """Raw scores of rows by fits whose own rows had closed before; which rows have one; and the iterations."""
        raw, seen = np.zeros(len(y)), np.zeros(len(y), dtype=bool)
        stop_at = stop_cut(train)
        cutoff = train.keys["cutoff"]
        if stop_at is None:
            return raw, seen, rounds or DEFAULT_ROUNDS
        later = train.cutoffs[train.cutoffs >= stop_at]
        folds = [stop_at] if rounds is None else [part[0] for part in np.array_split(later, min(FOLDS, len(later)))]
        for start, end in zip(folds, [*folds[1:], None], strict=True):
            fitted = (cutoff + self.target.window <= start).to_numpy()
            held = ((cutoff >= start) & ((cutoff < end) if end is not None else True)).to_numpy()
            if not 0 < y[fitted].sum() < fitted.sum():
                continue
            if rounds is None and not 0 < y[held].sum() < held.sum():
                continue
            stop = (x[held], y[held]) if rounds is None else None
            booster = self._boost(x[fitted], y[fitted], weights[fitted], rounds or MAX_ROUNDS, stop)
            rounds = rounds or booster.best_iteration or MAX_ROUNDS
            raw[held] = np.asarray(booster.predict(x[held], raw_score=True, num_iteration=rounds, num_threads=THREADS))
            seen |= held
        return raw, seen, rounds or DEFAULT_ROUNDS

    def _boost(self, x: Floats, y: Floats, weights: Floats, rounds: int,
               stop: tuple[Floats, Floats] | None = None) -> lgb.Booster:
        """One LightGBM fit; with stop rows it ends when they have not improved for a while."""
        words = [place for place, name in enumerate(self.features) if name in self.levels]
        params = parameters(int(y.sum()), len(y), self.seed)
        data = lgb.Dataset(
            x, y, weight=weights, feature_name=safe_names(self.features), categorical_feature=words, params=params
        )
        if stop is None:
            return lgb.train(params, data, num_boost_round=rounds)
        held = data.create_valid(*stop, params=params)
        return lgb.train(params, data, num_boost_round=rounds, valid_sets=[held], feval=levelled_loss,
                         callbacks=[lgb.early_stopping(PATIENCE, verbose=False)])


def data_hash(features: pd.DataFrame) -> str:
    """16 hexadecimal digits that change with any value of the frame, and not with the order of rows or columns."""
    ordered = features.reindex(columns=sorted(map(str, features.columns)))
    rows = pd.util.hash_pandas_object(ordered, index=False).sort_values().to_numpy()
    return hashlib.sha256(",".join(ordered.columns).encode() + rows.tobytes()).hexdigest()[:16]
