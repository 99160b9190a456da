"""The logistic regression that every model must stand beside: plain coefficients, kept as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from churnkit.learning.calibrate import Floats, log_odds, sigmoid

MISSING_SHARE = 0.005
"""A feature that is blank in at least this share of the rows gets a column that says so."""


@dataclass(frozen=True)
class Baseline:
    """Standardised, imputed inputs times coefficients.

    `numbers` maps a numeric feature to (median, mean, deviation, weight, weight if missing); `words` maps a categorical
    feature to a weight per level. An unknown level weighs nothing.
    """

    intercept: float
    numbers: Mapping[str, tuple[float, float, float, float, float]]
    words: Mapping[str, Mapping[str, float]]

    def predict(self, x: pd.DataFrame) -> Floats:
        """Probabilities, shape (n,)."""
        raw = np.full(len(x), self.intercept)
        for name, (median, mean, deviation, weight, missing) in sorted(self.numbers.items()):
            values = pd.to_numeric(x[name], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
            blank = np.isnan(values)
            raw += weight * _standard(np.where(blank, median, values), mean, deviation) + missing * blank
        for name, weights in sorted(self.words.items()):
            raw += x[name].map(dict(weights)).astype("float64").fillna(0.0).to_numpy()
        return sigmoid(raw)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"intercept": self.intercept, "numbers": {name: list(values) for name, values in self.numbers.items()},
                "words": {name: dict(weights) for name, weights in self.words.items()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Baseline:
        """The reverse of `to_dict`."""
        return cls(
            float(data["intercept"]), {name: tuple(values) for name, values in data["numbers"].items()}, data["words"]
        )


def fit(x: pd.DataFrame, y: Floats, levels: Mapping[str, tuple[str, ...]]) -> Baseline:
    """A ridge-penalised logistic regression on standardised inputs (clipped at 5 deviations), one-hot categories.

    Args:
        x: One column per feature, shape (n, k).
        y: Outcomes, 0 or 1, shape (n,).
        levels: The categorical features' levels.
    """
    columns: list[NDArray[np.float64]] = []
    owners: list[tuple[str, str]] = []
    plain: dict[str, tuple[float, float, float]] = {}
    for name in map(str, x.columns):
        if name in levels:
            for word in levels[name]:
                columns.append((x[name] == word).to_numpy().astype(float))
                owners.append((name, word))
            continue
        values = pd.to_numeric(x[name], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
        blank = np.isnan(values)
        if blank.all():
            continue
        median = float(np.median(values[~blank]))
        filled = np.where(blank, median, values)
        mean, deviation = float(filled.mean()), float(filled.std())
        if deviation > 0:
            plain[name] = (median, mean, deviation)
            columns.append(_standard(filled, mean, deviation))
            owners.append((name, "value"))
        if MISSING_SHARE <= blank.mean() < 1:
            plain.setdefault(name, (median, mean, 1.0))
            columns.append(blank.astype(float))
            owners.append((name, "missing"))
    if not columns:
        return Baseline(float(log_odds(np.array([y.mean()]))[0]), {}, {})
    found = LogisticRegression(C=0.1, solver="lbfgs", max_iter=300, tol=1e-3).fit(np.column_stack(columns), y)
    weight = dict(zip(owners, map(float, found.coef_[0]), strict=True))
    numbers = {
        name: (*three, weight.get((name, "value"), 0.0), weight.get((name, "missing"), 0.0))
        for name, three in plain.items()
    }
    words = {name: {word: weight[name, word] for word in found_levels} for name, found_levels in levels.items()}
    return Baseline(float(found.intercept_[0]), numbers, words)


def _standard(values: Floats, mean: float, deviation: float) -> Floats:
    return np.clip((values - mean) / deviation, -5, 5)
