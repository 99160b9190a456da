"""Whether a ranking by uplift is proven to beat chance: learners are cross-fitted over groups, compared and judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from churnkit.learning import metalearners
from churnkit.learning.calibrate import Floats
from churnkit.learning.metalearners import BLEND, LEARNERS, Rows
from churnkit.learning.qini import TOP, Arms, effect, qini, resampled, top_effect
from churnkit.learning.resample import LEVEL

FOLDS = 5
RESAMPLES = 1000
STEEPEST = 2.0
"""Differences in uplift are stretched so far at most: trees that were held back are timid, not mute."""
TAUGHT_BACK = 2.0
"""How much larger the variance of a cross-fitted sum is than resamples of its fixed predictions show, where there is
nothing to find: what fold j teaches about fold k, fold k teaches back about j, so that each of the K (K - 1) terms
z_j z_k comes twice, and 2 K (K - 1) of their variances is added up, not K (K - 1)."""
_BOUNDS = 0.025, 0.975


@dataclass(frozen=True)
class Verdict:
    """What a ranking by uplift is worth on rows that its model did not see, by cross-fitting over groups.

    `qini` is that of the chosen learner, `low` and `high` its 95% interval, `bound` the one-sided 99% lower bound,
    which allows for the choice among learners. `effect` is the average one and `top` the one on the 30% with the
    highest uplift, each with 95% bounds. `by_learner` has the Qini of all.
    """

    learner: str
    qini: float
    low: float
    high: float
    bound: float
    effect: float
    effect_bounds: tuple[float, float]
    top: float
    top_bounds: tuple[float, float]
    by_learner: Mapping[str, float]
    treated: int
    control: int

    @property
    def skill(self) -> bool:
        """Whether the lower bound of the Qini is above zero."""
        return self.bound > 0

    @property
    def why(self) -> str:
        """The verdict in words."""
        said = (f"the lower 99% bound of the cross-fitted Qini ({self.qini:+.4f}, 95% interval {self.low:+.4f} to "
                f"{self.high:+.4f}) is {self.bound:+.4f} (must exceed 0).")
        return said if self.skill else f"no usable heterogeneity: {said} Nobody is ranked by it."

    def says(self) -> str:
        """Verdict and effects in one paragraph."""
        mean, top = (f"{100 * one:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})" for one, (low, high) in (
            (self.effect, self.effect_bounds), (self.top, self.top_bounds)))
        return (f"{'skill proven' if self.skill else 'no skill'}: {self.why} Learner: {self.learner}. On average a "
                f"contact adds {mean} points; among the {TOP:.0%} with the highest uplift {top}. {self.treated} "
                f"treated and {self.control} control rows.")


def crossfitted(rows: Rows, seed: int) -> tuple[dict[str, Floats], NDArray[np.intp]]:
    """The raw uplift of each row by the blend and by every learner, fitted on other groups than the row's; and each
    row's fold.
    """
    fold = metalearners.folds(rows, FOLDS, seed)
    found = {learner: np.empty(len(rows.y)) for learner in LEARNERS}
    for held in (fold == one for one in range(FOLDS)):
        rest = rows.take(~held)
        for learner, told in found.items():
            parts = metalearners.parts(learner, rest, seed)
            told[held] = metalearners.uplift(parts, rows.x[held], rows.features, rows.levels)
    return {BLEND: np.mean(list(found.values()), axis=0), **found}, fold


def ranks(told: Floats, fold: NDArray[np.intp]) -> Floats:
    """Each row's rank within its fold, between 0 and 1: fits of different folds differ in level, which says nothing."""
    return np.asarray(pd.Series(told).groupby(fold).rank(pct=True), dtype=np.float64)


def judged(rows: Rows, told: Mapping[str, Floats], seed: int, resamples: int = RESAMPLES) -> Verdict:
    """Which learner to take, and whether its Qini is above zero by a bootstrap over groups.

    The best of several is above zero by luck more often than one. The lower bound therefore takes off what the luckiest
    learner gained on the resamples (White, A reality check for data snooping, 2000). All deviations of the resamples
    are widened by the root of `TAUGHT_BACK`.
    """
    arms = Arms.of(rows.y, rows.treated, rows.propensity)
    found = np.array([qini(arms, one) for one in told.values()])
    spread = resampled(arms, list(told.values()), rows.codes, resamples, seed)
    moved = np.nan_to_num(spread.qinis - found) * np.sqrt(TAUGHT_BACK)
    best = _chosen(found, moved)
    name = list(told)[best]
    low, high = found[best] - np.quantile(moved[:, best], _BOUNDS[::-1])
    bound = found[best] - np.quantile(moved.max(axis=1), LEVEL)
    return Verdict(name, float(found[best]), float(low), float(high), float(bound), effect(arms),
                   _bounds(spread.effects), top_effect(arms, told[name]), _bounds(spread.tops[:, best]),
                   {one: float(value) for one, value in zip(told, found, strict=True)},
                   int(rows.treated.sum()), int((~rows.treated).sum()))


def slope(rows: Rows, told: Floats) -> float:
    """How far differences in told uplift show in the outcomes of rows that the fits did not see, from 0 to `STEEPEST`.

    Weighted least squares on the told uplift, the treatment less its propensity, and the product of both.
    """
    weights = np.sqrt(1 / (rows.propensity * (1 - rows.propensity)))
    apart = told - told.mean()
    drawn = rows.treated - rows.propensity
    inputs = np.column_stack([np.ones(len(told)), apart, drawn, drawn * apart]) * weights[:, None]
    found = np.linalg.lstsq(inputs, rows.y * weights, rcond=None)[0]
    return float(np.clip(found[3], 0.0, STEEPEST))


def _chosen(found: Floats, moved: Floats) -> int:
    """The blend, which is the first, unless the best beats it by more than a standard error of the difference."""
    best = int(np.argmax(found))
    error = float((moved[:, best] - moved[:, 0]).std())
    return best if found[best] - found[0] > error else 0


def _bounds(spread: Floats) -> tuple[float, float]:
    low, high = np.nanquantile(spread, _BOUNDS)
    return float(low), float(high)
