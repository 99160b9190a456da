"""Trees, the logistic regression or a blend, and which calibration: what did best out of time is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from churnkit.learning import calibrate
from churnkit.learning.calibrate import EDGE, KINDS, Floats, Kind, level, sigmoid

__all__ = ["FORMS", "Blend", "blend", "kind", "share"]

FORMS: Final = {"logistic regression": 0.0, "mostly logistic regression": 0.25, "blend": 0.5, "mostly trees": 0.75,
                "trees": 1.0}
"""The share of the trees in a model's raw score; the rest is the logistic regression's. The plainest first.

Shares come in quarters: a fitted one would follow the noise of the few positives there are."""
T = TypeVar("T")
USUAL: Kind = "platt"
FEWEST = 30
"""With fewer positives or negatives out of time nothing is chosen: the blend and Platt's map stand."""
LEAST_SLOPE = 0.1
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


def blend(share: float, trees: Floats, logistic: Floats, y: Floats, folds: NDArray[Any], weights: Floats) -> Blend:
    """The blend with that share of trees, each side first brought to the scale of outcomes by its slope out of time.

    Trees that were stopped after a few rounds are timid, and a regression on few rows is bold: without it the bold one
    would speak alone. No slope is less than a tenth: two sides that ranked one time wrongly still rank the next.
    Without outcomes out of time the scales stay as they are.
    """
    if not 0 < y.sum() < len(y):
        return Blend(share, share, 1 - share)
    slopes = [max(calibrate.slope(raw, y, folds, weights), LEAST_SLOPE) for raw in (trees, logistic)]
    return Blend(share, share * slopes[0], (1 - share) * slopes[1])


def share(trees: Floats, logistic: Floats, y: Floats, folds: NDArray[Any], weights: Floats) -> float:
    """The share of trees with the lowest log loss out of time, the level set right in each fold: what moves the level
    from one time to the next moves it for every form alike.

    Another than the blend must beat it by more than two standard errors of the rows' differences, and in the latest
    fold too, which is nearest to use. The blend is the hedge: where the world shifts, either form can fail alone.

    Args:
        trees: The trees' raw scores by fits whose own rows had closed before, shape (n,).
        logistic: The logistic regression's, likewise.
        y: Outcomes, 0 or 1, shape (n,).
        folds: The number of each row's fold in time, from 0, shape (n,).
        weights: How much each row counts, shape (n,).
    """
    if min(y.sum(), len(y) - y.sum()) < FEWEST:
        return FORMS["blend"]
    parts = [folds == fold for fold in np.unique(folds)]
    losses = {}
    for value in FORMS.values():
        raw = blend(value, trees, logistic, y, folds, weights).of(trees, logistic)
        losses[value] = [_loss(sigmoid(raw[one] + level(raw[one], y[one])), y[one], weights[one]) for one in parts]
    return _better(losses, FORMS["blend"])


def kind(raw: Floats, y: Floats, folds: NDArray[Any], weights: Floats) -> Kind:
    """The calibration with the lowest log loss on folds later than those that it was fitted on.

    Another than Platt's must beat it by more than two standard errors of the rows' differences, and in the latest fold
    too.
    """
    if min(y.sum(), len(y) - y.sum()) < FEWEST or folds.max(initial=0) == 0:
        return USUAL
    kinds = [one for one in KINDS if one != "isotonic" or y.sum() >= ENOUGH]
    losses: dict[Kind, list[Floats]] = {one: [] for one in kinds}
    for fold in range(1, int(folds.max()) + 1):
        before, here = folds < fold, folds == fold
        if 0 < y[before].sum() < before.sum():
            for one in kinds:
                p = calibrate.fit(one, raw[before], y[before], weights[before]).apply(raw[here])
                losses[one].append(_loss(p, y[here], weights[here]))
    return _better(losses, USUAL)


def _better(losses: Mapping[T, Sequence[Floats]], usual: T) -> T:
    """The key with the least loss among those that beat the usual one in the latest fold and, over all, by two standard
    errors; else that one.
    """
    best, least = usual, 0.0
    for name, parts in losses.items():
        gains = [one - other for one, other in zip(parts, losses[usual], strict=True)]
        if gains and gains[-1].sum() < 0:
            gain = np.concatenate(gains)
            total, error = float(gain.sum()), float(gain.std() * np.sqrt(len(gain)))
            if total < min(least, -2 * error):
                best, least = name, total
    return best


def _loss(p: Floats, y: Floats, weights: Floats) -> Floats:
    """The weighted log loss of each row."""
    held = np.clip(p, EDGE, 1 - EDGE)
    found: Floats = -weights * (y * np.log(held) + (1 - y) * np.log1p(-held))
    return found
