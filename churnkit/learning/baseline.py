"""The logistic regression that every model must stand beside: plain coefficients, kept as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

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
    feature to a weight per level. An unknown level weighs nothing. `centres` holds what each feature adds on average
    over the training rows.
    """

    intercept: float
    numbers: Mapping[str, tuple[float, float, float, float, float]]
    words: Mapping[str, Mapping[str, float]]
    centres: Mapping[str, float] = field(default_factory=dict)

    def predict(self, x: pd.DataFrame) -> Floats:
        """Probabilities, shape (n,)."""
        return sigmoid(self.raw(x))

    def raw(self, x: pd.DataFrame) -> Floats:
        """Log-odds, shape (n,)."""
        raw = np.full(len(x), self.intercept)
        for _, added in self.added(x):
            raw += added
        return raw

    def contributions(self, x: pd.DataFrame, features: Sequence[str]) -> tuple[Floats, Floats]:
        """SHAP values (n, features), exact for a linear model whose inputs are taken as independent, and the expected
        value (n,), in log-odds: what a feature adds here, less what it adds on average (Lundberg and Lee 2017, 4.1).
        """
        place = {name: number for number, name in enumerate(features)}
        given = np.zeros((len(x), len(place)))
        for name, added in self.added(x):
            given[:, place[name]] = added - self.centres.get(name, 0.0)
        return given, np.full(len(x), self.intercept + sum(self.centres.values()))

    def added(self, x: pd.DataFrame) -> Iterator[tuple[str, Floats]]:
        """What each feature adds to the log-odds of each row."""
        for name, (median, mean, deviation, weight, missing) in sorted(self.numbers.items()):
            values = pd.to_numeric(x[name], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
            blank = ~np.isfinite(values)
            standard = _standard(np.where(blank, median, values), mean, deviation)
            yield name, cast("Floats", weight * standard + missing * blank)
        for name, weights in sorted(self.words.items()):
            yield name, np.asarray(x[name].map(dict(weights)).astype("float64").fillna(0.0), dtype=float)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"intercept": self.intercept, "numbers": {name: list(values) for name, values in self.numbers.items()},
                "words": {name: dict(weights) for name, weights in self.words.items()}, "centres": dict(self.centres)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Baseline:
        """The reverse of `to_dict`."""
        return cls(
            float(data["intercept"]), {name: tuple(values) for name, values in data["numbers"].items()}, data["words"],
            data.get("centres", {}))


def fit(x: pd.DataFrame, y: Floats, levels: Mapping[str, tuple[str, ...]], weights: Floats | None = None) -> Baseline:
    """A ridge-penalised logistic regression on standardised inputs (clipped at 5 deviations), one-hot categories.

    Args:
        x: One column per feature, shape (n, k).
        y: Outcomes, 0 or 1, shape (n,).
        levels: The categorical features' levels.
        weights: How much each row counts, shape (n,).
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
        blank = ~np.isfinite(values)
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
    found = LogisticRegression(C=0.1, solver="lbfgs", max_iter=300, tol=1e-3).fit(np.column_stack(columns), y, weights)
    weight = dict(zip(owners, map(float, found.coef_[0]), strict=True))
    numbers = {
        name: (*three, weight.get((name, "value"), 0.0), weight.get((name, "missing"), 0.0))
        for name, three in plain.items()
    }
    words = {name: {word: weight[name, word] for word in found_levels} for name, found_levels in levels.items()}
    fitted = Baseline(float(found.intercept_[0]), numbers, words)
    return replace(fitted, centres={name: float(np.average(one, weights=weights)) for name, one in fitted.added(x)})


def _standard(values: Floats, mean: float, deviation: float) -> Floats:
    found: Floats = np.clip((values - mean) / deviation, -5, 5)
    return found
