"""Trees, the logistic regression or a blend, and which calibration: what did best out of time is taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from churnkit.learning import calibrate
from churnkit.learning.calibrate import KINDS, Calibration, Floats, Kind

__all__ = ["FORMS", "Blend", "blend", "kind", "share"]

FORMS: Final = {"logistic regression": 0.0, "blend": 0.5, "trees": 1.0}
"""The share of the trees in a model's raw score; the rest is the logistic regression's. The plainest first.

The blend has halves: a fitted share would follow the noise of the few positives there are."""
T = TypeVar("T")
USUAL: Kind = "platt"
FEWEST = 30
"""With fewer positives or negatives out of time nothing is chosen: the blend and Platt's map stand."""
ENOUGH = 200
"""Isotonic steps follow the noise of fewer positives than these."""


@dataclass(frozen=True)
class Blend:
    """How two raw scores become one, in log-odds: `trees * the trees' + logistic * the logistic regression's`.

    Contributions blend likewise, because log-odds add up.
    """

    share: float = 0.5
    trees: float = 0.5
    logistic: float = 0.5

    def of(self, trees: Floats, logistic: Floats) -> Floats:
        """Raw scores of the blend, shape (n,)."""
        return self.trees * trees + self.logistic * logistic


def blend(share: float, trees: Floats, logistic: Floats, y: Floats, weights: Floats) -> Blend:
    """The blend with that share of trees, each side first brought to the scale of outcomes by the slope of Platt's map.

    Trees that were stopped after a few rounds are timid, and a regression on few rows is bold: without it the bold one
    would speak alone. Without outcomes out of time the scales stay as they are.
    """
    if not 0 < y.sum() < len(y):
        return Blend(share, share, 1 - share)
    slopes = [calibrate.fit(USUAL, raw, y, weights).x[0] for raw in (trees, logistic)]
    return Blend(share, share * slopes[0], (1 - share) * slopes[1])


def share(trees: Floats, logistic: Floats, y: Floats, folds: NDArray[Any], weights: Floats) -> float:
    """The share of trees with the lowest log loss out of time, each form with Platt's map fitted on earlier folds.

    Another than the blend must beat it by more than two standard errors of the rows' differences.

    Args:
        trees: The trees' raw scores by fits whose own rows had closed before, shape (n,).
        logistic: The logistic regression's, likewise.
        y: Outcomes, 0 or 1, shape (n,).
        folds: The number of each row's fold in time, from 0, shape (n,).
        weights: How much each row counts, shape (n,).
    """
    if min(y.sum(), len(y) - y.sum()) < FEWEST:
        return FORMS["blend"]
    losses = {value: _losses(USUAL, blend(value, trees, logistic, y, weights).of(trees, logistic), y, folds, weights)
              for value in FORMS.values()}
    return _better(losses, FORMS["blend"])


def kind(raw: Floats, y: Floats, folds: NDArray[Any], weights: Floats) -> Kind:
    """The calibration with the lowest log loss on folds later than those that it was fitted on.

    Another than Platt's must beat it by more than two standard errors of the rows' differences.
    """
    if min(y.sum(), len(y) - y.sum()) < FEWEST or folds.max(initial=0) == 0:
        return USUAL
    kinds = [one for one in KINDS if one != "isotonic" or y.sum() >= ENOUGH]
    return _better({one: _losses(one, raw, y, folds, weights) for one in kinds}, USUAL)


def _better(losses: Mapping[T, Floats], usual: T) -> T:
    """The key with the least loss among those that beat the usual one by two standard errors; else that one."""
    best, least = usual, 0.0
    for name, loss in losses.items():
        gain = loss - losses[usual]
        total, error = float(gain.sum()), float(gain.std() * np.sqrt(len(gain)))
        if total < min(least, -2 * error):
            best, least = name, total
    return best


def _losses(of: Kind, raw: Floats, y: Floats, folds: NDArray[Any], weights: Floats) -> Floats:
    """The weighted log loss of each row of a later fold, by the map fitted on the folds before it.

    With one fold alone the map is fitted on its own rows: two numbers hardly follow them.
    """
    if folds.max(initial=0) == 0:
        return _loss(calibrate.fit(of, raw, y, weights), raw, y, weights)
    parts = []
    for fold in range(1, int(folds.max()) + 1):
        before, here = folds < fold, folds == fold
        if not 0 < y[before].sum() < before.sum():
            continue
        parts.append(_loss(calibrate.fit(of, raw[before], y[before], weights[before]), raw[here], y[here],
                           weights[here]))
    return np.concatenate(parts) if parts else _loss(calibrate.fit(of, raw, y, weights), raw, y, weights)


def _loss(by: Calibration, raw: Floats, y: Floats, weights: Floats) -> Floats:
    p = by.apply(raw)
    found: Floats = -weights * (y * np.log(p) + (1 - y) * np.log1p(-p))
    return found
