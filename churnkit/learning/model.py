"""The one model that all targets share: boosted trees with a calibrated probability, a baseline beside them."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd

from churnkit.errors import ModelError, did_you_mean
from churnkit.learning import baseline as logistic
from churnkit.learning import calibrate
from churnkit.learning.calibrate import Calibration, Floats, Kind
from churnkit.learning.explain import Shap, reasons
from churnkit.learning.splits import Mask, TrainingSet, stop_cut
from churnkit.learning.targets import Target
from churnkit.schemas import SCORES
from churnkit.signals.catalog import Catalog

FORMAT = 1
MAX_ROUNDS, PATIENCE, DEFAULT_ROUNDS = 800, 60, 120
FEWEST_ROUNDS = 20
"""Trees that would stop before this met a shift: a map from one or two of them has a slope that magnifies the next."""
FOLDS = 3
THREADS = 1
"""Two threads that wait for each other on a busy machine took 8 times as long; on an idle one they save a third."""
MAX_LEVELS = 40
BANDS = (("high", 3.0), ("medium", 1.5))
"""A band begins where the odds are that many times the training rows' odds; below all of them it is low."""


class Model:
    """A target's model: `Model(CHURN).fit(train)`, then `predict` and `explain` on any features frame.

    After `fit`: `booster_` is LightGBM's, `features` its inputs in order, `levels` the categories' words, `rounds` the
    iterations, `calibration` the map from raw score to probability, `baseline` the logistic regression, `base_rate` the
    share of positives, `notes` what a reader should know about the fit. `params` are LightGBM's, where a search found
    better ones than the default.
    """

    def __init__(self, target: Target, seed: int = 7, calibration: Kind = "platt",
                 params: Mapping[str, float] | None = None) -> None:
        self.target = target
        self.seed = seed
        self.kind: Kind = calibration
        self.params: dict[str, float] = dict(params or {})
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
        self.levels = _levels(train.X)
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

    def refit(self, train: TrainingSet) -> Model:
        """A new model made as this one was, on other rows: the same inputs (all, if it has none yet), seed, kind of
        calibration and parameters; iterations and calibration are found anew.
        """
        chosen = train.X[list(self.features)] if self.features else train.X
        return Model(self.target, self.seed, self.kind, self.params).fit(replace(train, X=chosen))

    def losses(self, rows: TrainingSet, folds: Iterable[tuple[Mask, Mask]]) -> Iterator[float]:
        """Per fold, grown as it is asked for: the levelled log loss, at the iteration that is best on the fold's held
        rows, of trees grown on its fitted ones. For comparing parameters; the model is not fitted by it.
        """
        self.features, self.levels = tuple(rows.X.columns), _levels(rows.X)
        x, y, weights = self._matrix(rows.X), rows.y.to_numpy(dtype=float), rows.weights.to_numpy(dtype=float)
        for fitted, held in folds:
            grown = self._boost(x[fitted], y[fitted], weights[fitted], MAX_ROUNDS, (x[held], y[held]))
            yield float(grown.best_score["valid_0"]["levelled_loss"])

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
            "columns": _safe(self.features),
            "levels": {name: list(words) for name, words in self.levels.items()},
            "calibration": self.calibration.to_dict(),
            "params": self.params,
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
            model = cls(Target(**{**data["target"], **spans, **lists}), data["seed"], params=data.get("params"))
            booster = lgb.Booster(model_str=parts["model.txt"])
            model.calibration = Calibration.from_dict(data["calibration"])
            model._baseline = logistic.Baseline.from_dict(data["baseline"])
            model.features, model.rounds, model.base_rate = tuple(data["features"]), data["rounds"], data["base_rate"]
        except (KeyError, TypeError, ValueError, lgb.basic.LightGBMError) as error:
            raise ModelError(f"The model's files cannot be read ({error!r}). Train it again: churnkit train.") from None
        if booster.feature_name() != _safe(model.features):
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
        missing = [name for name in self.features if name not in features]
        if missing:
            raise ModelError(
                f"{self.target.name.upper()} needs column '{missing[0]}'"
                f"{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}."
                f"{did_you_mean(missing[0], map(str, features.columns))} Compute features with the definitions that "
                f"the model was trained on, or train it again: churnkit train."
            )
        matrix = np.empty((len(features), len(self.features)))
        for place, name in enumerate(self.features):
            if name in self.levels:
                codes = {word: float(code) for code, word in enumerate(self.levels[name])}
                matrix[:, place] = features[name].map(codes).to_numpy(dtype=float, na_value=np.nan)
            else:
                matrix[:, place] = pd.to_numeric(features[name], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
        matrix[np.isinf(matrix)] = np.nan
        return matrix

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
            if rounds is None and 0 < booster.best_iteration < FEWEST_ROUNDS:
                return self._out_of_time(train, x, y, weights, FEWEST_ROUNDS)
            rounds = rounds or booster.best_iteration or MAX_ROUNDS
            raw[held] = np.asarray(booster.predict(x[held], raw_score=True, num_iteration=rounds, num_threads=THREADS))
            seen |= held
        return raw, seen, rounds or DEFAULT_ROUNDS

    def _boost(self, x: Floats, y: Floats, weights: Floats, rounds: int,
               stop: tuple[Floats, Floats] | None = None) -> lgb.Booster:
        """One LightGBM fit; with stop rows it ends when they have not improved for a while."""
        words = [place for place, name in enumerate(self.features) if name in self.levels]
        params = parameters(int(y.sum()), len(y), self.seed) | self.params
        data = lgb.Dataset(
            x, y, weight=weights, feature_name=_safe(self.features), categorical_feature=words, params=params
        )
        if stop is None:
            return lgb.train(params, data, num_boost_round=rounds)
        held = data.create_valid(*stop, params=params)
        return lgb.train(params, data, num_boost_round=rounds, valid_sets=[held], feval=_levelled_loss,
                         callbacks=[lgb.early_stopping(PATIENCE, verbose=False)])


def data_hash(features: pd.DataFrame) -> str:
    """16 hexadecimal digits that change with any value of the frame, and not with the order of rows or columns."""
    ordered = features.reindex(columns=sorted(map(str, features.columns)))
    rows = pd.util.hash_pandas_object(ordered, index=False).sort_values().to_numpy()
    return hashlib.sha256(",".join(ordered.columns).encode() + rows.tobytes()).hexdigest()[:16]


def parameters(positives: int, rows: int, seed: int) -> dict[str, Any]:
    """LightGBM's parameters: the fewer positives, the smaller and the more held back the trees."""
    leaves = 31 if positives >= 4000 else 15 if positives >= 1500 else 7
    return {
        "objective": "binary", "metric": "None", "learning_rate": 0.04, "num_leaves": leaves, "lambda_l2": 5.0,
        "min_data_in_leaf": int(np.clip(rows // 100, 10, 80)), "feature_fraction": 0.5, "bagging_fraction": 0.8,
        "bagging_freq": 1, "cat_smooth": 20.0, "min_data_per_group": 50, "seed": seed, "num_threads": THREADS,
        "deterministic": True, "force_row_wise": True, "max_bin": 127, "verbosity": -1,
    }


def _levelled_loss(predicted: Floats, data: lgb.Dataset) -> tuple[str, float, bool]:
    """Log loss after the level is set right: a base rate that moved since must not stop the trees early."""
    y = np.asarray(data.get_label(), dtype=float)
    raw = calibrate.log_odds(predicted)
    p = np.clip(calibrate.sigmoid(raw + calibrate.level(raw, y)), calibrate.EDGE, 1 - calibrate.EDGE)
    return "levelled_loss", float(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()), False


def _levels(x: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """The words of each categorical column: its commonest, in alphabetical order."""
    found = {}
    for name in x:
        if (x[name].dtype == object or isinstance(x[name].dtype, (pd.CategoricalDtype, pd.StringDtype))) and x[
            name
        ].notna().any():
            counts = x[name].astype(object).dropna().astype(str).value_counts().sort_index()
            common = counts.sort_values(ascending=False, kind="stable").index[:MAX_LEVELS]
            found[str(name)] = tuple(sorted(common))
    return found


def _safe(names: tuple[str, ...]) -> list[str]:
    """Feature names that LightGBM's text can hold: other characters become _, and twins get a number."""
    safe: list[str] = []
    for name in names:
        plain = re.sub(r"[^0-9A-Za-z_]", "_", name)
        safe.append(plain if plain not in safe else f"{plain}__{len(safe)}")
    return safe
