"""Trees, the logistic regression or a blend, and which calibration: what did best out of time is taken."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from churnkit.learning import calibrate
from churnkit.learning.calibrate import KINDS, Calibration, Floats, Kind

__all__ = ["FORMS", "blended", "form", "kind", "share"]

FORMS: Final = {"logistic regression": 0.0, "blend": 0.5, "trees": 1.0}
"""The share of the trees' log-odds in a model's raw score; the rest is the logistic regression's. The plainest first.

The blend has halves: a fitted share would follow the noise of the few positives there are."""
USUAL: Kind = "platt"
FEWEST = 30
"""With fewer positives or negatives out of time nothing is chosen: the blend and Platt's map stand."""


def form(share: float) -> str:
    """What a model with that share of trees is called.

    >>> form(0.5)
    'blend'
    """
    return next((name for name, value in FORMS.items() if value == share), f"blend with {share:.0%} trees")


def blended(trees: Floats, logistic: Floats, share: float) -> Floats:
    """Raw scores of the blend, in log-odds, so that contributions blend likewise."""
    return share * trees + (1 - share) * logistic


def share(trees: Floats, logistic: Floats, y: Floats, folds: NDArray[Any], weights: Floats) -> float:
    """The share of trees with the lowest log loss out of time, each form with Platt's map fitted on earlier folds.

    Args:
        trees: The trees' raw scores by fits whose own rows had closed before, shape (n,).
        logistic: The logistic regression's, likewise.
        y: Outcomes, 0 or 1, shape (n,).
        folds: The number of each row's fold in time, from 0, shape (n,).
        weights: How much each row counts, shape (n,).
    """
    if min(y.sum(), len(y) - y.sum()) < FEWEST:
        return FORMS["blend"]
    losses = {value: _losses(USUAL, blended(trees, logistic, value), y, folds, weights) for value in FORMS.values()}
    return min(losses, key=lambda value: float(losses[value].sum()))  # among equals the plainest, which stands first


def kind(raw: Floats, y: Floats, folds: NDArray[Any], weights: Floats) -> Kind:
    """The calibration with the lowest log loss on folds later than those that it was fitted on.

    Another than Platt's must beat it by more than a standard error of the rows' differences.
    """
    if min(y.sum(), len(y) - y.sum()) < FEWEST or folds.max(initial=0) == 0:
        return USUAL
    usual = _losses(USUAL, raw, y, folds, weights)
    best: Kind = USUAL
    least = 0.0
    for other in KINDS:
        if other == USUAL:
            continue
        gain = _losses(other, raw, y, folds, weights) - usual
        total, error = float(gain.sum()), float(gain.std() * np.sqrt(len(gain)))
        if total < min(least, -error):
            best, least = other, total
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
