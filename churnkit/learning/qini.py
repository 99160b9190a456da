"""How well a ranking by uplift finds those whom a contact helps: the Qini coefficient, with propensities and resamples.

The Qini curve follows a ranking from the highest uplift down: at each place, how many more good outcomes the treated
had so far than as many untreated (Radcliffe, Using control groups to target on predicted lift, 2007). The coefficient
is the area between it and the straight line of a random ranking, as a share of the same area of the best ranking there
could be: scikit-uplift's `qini_auc_score`, with which these figures can be compared.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from churnkit.learning.calibrate import Floats
from churnkit.learning.resample import draws, ordered

TOP = 0.3
"""The share of the rows, from the highest uplift down, whose effect is told."""
PLACES = 1000
"""Places at which resamples read a curve; between them it is taken for straight."""
_AT_ONCE = 100  # resamples


class Arms(NamedTuple):
    """What came of some rows (`y`, 0 or 1) by whether they were treated, and how much each counts (`weights`)."""

    y: Floats
    treated: NDArray[np.bool_]
    weights: Floats

    @classmethod
    def of(cls, y: Floats, treated: NDArray[np.bool_], propensity: Floats | None = None) -> Arms:
        """Rows weighted so that both arms stand for the same people: those treated count share / propensity, the others
        (1 - share) / (1 - propensity); without propensities all count alike.

        >>> Arms.of(np.ones(4), np.array([True, True, True, False]), np.array([0.75] * 4)).weights.tolist()
        [1.0, 1.0, 1.0, 1.0]
        """
        if propensity is None:
            return cls(y, treated, np.ones(len(y)))
        share = float(treated.mean())
        return cls(y, treated, np.where(treated, share / propensity, (1 - share) / (1 - propensity)))


def qini(arms: Arms, uplift: Floats) -> float:
    """The Qini coefficient of a ranking: 1 is the best there could be, 0 a random one, below 0 worse than that.

    Rows of equal uplift are taken together. NaN where the rows cannot tell: an arm is empty, or nobody or everybody has
    the outcome.

    Args:
        arms: What came of the rows, shape (n,).
        uplift: The higher, the more a contact is said to help, shape (n,).

    >>> arms = Arms.of(np.array([1.0, 0.0, 0.0, 1.0]), np.array([True, False, True, False]))
    >>> qini(arms, np.array([0.4, 0.3, 0.2, 0.1])), qini(arms, np.zeros(4))
    (1.0, 0.0)
    """
    if not len(uplift):
        return float("nan")
    return float(_qini(_sums(arms, uplift, np.zeros(len(uplift), dtype=np.intp), len(uplift)), np.ones((1, 1)))[0])


def effect(arms: Arms) -> float:
    """How much higher the treated rows' rate of good outcomes is."""
    return float(_effect(arms, np.zeros(len(arms.y), dtype=np.intp), np.ones((1, 1)))[0])


def top_effect(arms: Arms, uplift: Floats, share: float = TOP) -> float:
    """The effect on the rows whose uplift is among the highest `share`; of equal ones the earlier rows."""
    return effect(_take(arms, _top(uplift, share)))


class Spread(NamedTuple):
    """What resamples of groups give: Qini coefficients by ranking, shape (resamples, rankings), and the effects on all
    rows, (resamples,), and on each ranking's top, (resamples, rankings).
    """

    qinis: Floats
    effects: Floats
    tops: Floats


def resampled(arms: Arms, rankings: list[Floats], codes: NDArray[np.intp], resamples: int, seed: int) -> Spread:
    """Every figure on the same resamples of groups, so that rankings can be compared draw by draw.

    Args:
        arms: What came of the rows.
        rankings: The uplift that each of some models tells.
        codes: Each row's group, from 0.
        resamples: How many.
        seed: Of the draws.
    """
    groups = int(codes.max()) + 1
    sums = [_sums(arms, one, codes, PLACES) for one in rankings]
    tops = [_top(one, TOP) for one in rankings]
    found = []
    for start in range(0, resamples, _AT_ONCE):
        drawn = draws(groups, min(_AT_ONCE, resamples - start), seed + start)
        found.append((np.column_stack([_qini(one, drawn) for one in sums]), _effect(arms, codes, drawn),
                      np.column_stack([_effect(_take(arms, top), codes[top], drawn) for top in tops])))
    return Spread(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _sums(arms: Arms, uplift: Floats, codes: NDArray[np.intp], places: int) -> csr_array:
    """What each group adds between the places of a curve: rows, the arms' weights, and their weights with the outcome;
    and at last how many treated and how many untreated rows have it. Shape (5 x places + 2, groups).
    """
    y, treated, weights = arms
    order, ends = ordered(uplift)
    if len(ends) > places:  # ties stay whole
        ends = np.unique(ends[np.searchsorted(ends, np.linspace(0, len(y) - 1, places))])
    place = np.empty(len(y), dtype=np.intp)
    place[order] = np.searchsorted(ends, np.arange(len(y)))
    parts = (np.ones(len(y)), weights * treated, weights * ~treated, weights * treated * y, weights * ~treated * y)
    at = [number * len(ends) + place for number in range(len(parts))]
    last = [np.full(len(y), len(parts) * len(ends) + number) for number in (0, 1)]
    values = np.concatenate([*parts, treated * y, ~treated * y])
    found = csr_array((values, (np.concatenate([*at, *last]), np.tile(codes, len(parts) + 2))),
                      shape=(len(parts) * len(ends) + 2, int(codes.max()) + 1))
    found.eliminate_zeros()
    return found


def _qini(sums: csr_array, drawn: Floats) -> Floats:
    """The coefficient of one ranking when each group is taken so often, (resamples, groups)."""
    added = np.asarray(sums @ drawn.T)
    rows, treated, control, won, had = np.cumsum(added[:-2].reshape(5, -1, len(drawn)), axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        curve = won - had * np.where(control > 0, treated / control, 0.0)
        before = np.vstack([np.zeros(len(drawn)), curve[:-1]])
        random = rows[-1] * curve[-1] / 2
        area = (np.diff(rows, axis=0, prepend=0.0) * (curve + before) / 2).sum(axis=0) - random
        # the best ranking: the treated with the outcome, then all without it, then the untreated who had it anyway
        first, last = added[-2:]
        best = (rows[-1] - first / 2 - last) * won[-1] + last * (won[-1] + curve[-1]) / 2 - random
        known = (treated[-1] > 0) & (control[-1] > 0) & (best > 0)
        found: Floats = np.where(known, area / best, np.nan)
    return found


def _effect(arms: Arms, codes: NDArray[np.intp], drawn: Floats) -> Floats:
    """The weighted difference of the arms' rates when each group is taken so often, (resamples, groups)."""
    found = []
    for arm in (arms.treated, ~arms.treated):
        counts = arms.weights * arm
        good, rows = (drawn @ np.bincount(codes, one, minlength=drawn.shape[1]) for one in (counts * arms.y, counts))
        with np.errstate(invalid="ignore"):
            found.append(good / rows)
    return np.asarray(found[0] - found[1], dtype=float)


def _take(arms: Arms, places: NDArray[np.intp]) -> Arms:
    return Arms(arms.y[places], arms.treated[places], arms.weights[places])


def _top(uplift: Floats, share: float) -> NDArray[np.intp]:
    """The places of the highest `share` of the rows."""
    return ordered(uplift)[0][:max(int(len(uplift) * share), 1)]
