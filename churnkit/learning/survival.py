"""What tells a good curve from a bad one where some rows are censored: Kaplan-Meier, C-index, integrated Brier score.

A row has `days` to its event, or to where it was last followed (then it had none up to and with that day).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from churnkit.learning.calibrate import Floats
from churnkit.learning.durations import Mask

_CELLS = 4_000_000  # pairs compared at once: 32 MB


def kaplan_meier(days: Floats, event: Mask) -> tuple[Floats, Floats]:
    """The share that remains after each day with an event (Kaplan and Meier 1958).

    Returns:
        The distinct days with an event, ascending, and the share that has had none up to and with each.

    >>> times, left = kaplan_meier(np.array([1.0, 2.0, 2.0, 3.0]), np.array([True, True, False, True]))
    >>> times.tolist(), left.round(3).tolist()
    ([1.0, 2.0, 3.0], [0.75, 0.5, 0.0])
    """
    times, counts = np.unique(days[event], return_counts=True)
    at_risk = len(days) - np.searchsorted(np.sort(days), times, side="left")
    return times, np.asarray(np.cumprod(1 - counts / at_risk), dtype=float)


def happened(days: Floats, event: Mask, at: Floats) -> Floats:
    """Kaplan-Meier's share with the event by each day of `at`, shape of `at`."""
    times, left = kaplan_meier(days, event)
    return 1 - np.concatenate([[1.0], left])[np.searchsorted(times, at, side="right")]


def followed(days: Floats, event: Mask, at: Floats) -> Floats:
    """The share that would be followed to each day of `at` at least, were there no events: Kaplan-Meier of censoring.

    Of a day's rows the events come before the censored ones, so they were not at risk of being censored on it.
    """
    times, counts = np.unique(days[~event], return_counts=True)
    at_risk = len(days) - np.searchsorted(np.sort(days), times, side="left")
    ended = np.sort(days[event])
    at_risk = at_risk - (np.searchsorted(ended, times, side="right") - np.searchsorted(ended, times, side="left"))
    left = np.concatenate([[1.0], np.cumprod(1 - counts / np.maximum(at_risk, 1))])
    found: Floats = left[np.searchsorted(times, at, side="left")]
    return found


def concordance(days: Floats, event: Mask, risk: Floats) -> tuple[Floats, Floats]:
    """Harrell's C in parts: for each row its right pairs and its comparable pairs, shape (n,) each.

    A pair is comparable if one row had its event while the other was still followed without one; it is right if that
    row has the higher risk, and counts half where both risks are equal (Harrell, Lee and Mark 1996). The C-index is the
    sum of the first over the sum of the second.

    >>> right, pairs = concordance(np.array([1.0, 2.0, 3.0]), np.array([True, True, False]), np.array([.9, .1, .2]))
    >>> float(right.sum() / pairs.sum())
    0.6666666666666666
    """
    right, pairs = np.zeros(len(days)), np.zeros(len(days))
    first = np.flatnonzero(event)
    step = max(_CELLS // max(len(days), 1), 1)
    for start in range(0, len(first), step):
        one = first[start:start + step]
        later = (days > days[one][:, None]) | ((days == days[one][:, None]) & ~event)
        better = later * ((risk[one][:, None] > risk) + 0.5 * (risk[one][:, None] == risk))
        right[one] += better.sum(axis=1) / 2  # half of each pair belongs to either row
        pairs[one] += later.sum(axis=1) / 2
        right += better.sum(axis=0) / 2
        pairs += later.sum(axis=0) / 2
    return right, pairs


def brier(days: Floats, event: Mask, probability: Floats, at: Floats) -> Floats:
    """Each row's squared error at each day of `at`, shape (n, K), weighted for those who were not followed so far.

    A row with the event weighs one over the share followed to its own day, one without it one over the share followed
    to the day asked about, one that was lost before nothing (Graf, Schmoor, Sauerbrei and Schumacher 1999). The mean of
    a column is the Brier score at that day.

    Args:
        days: Days to the event, or to where the row was last followed, shape (n,).
        event: Whether it was the event, shape (n,).
        probability: Of the event by each day of `at`, shape (n, K).
        at: Days, ascending, at which some row is followed still, shape (K,).
    """
    gone = event[:, None] & (days[:, None] <= at)
    stands = ~gone & (days[:, None] >= at)
    own = followed(days, event, days)[:, None]
    found: Floats = (gone * (1 - probability) ** 2 / np.maximum(own, 1e-12)
                     + stands * probability ** 2 / np.maximum(followed(days, event, at), 1e-12))
    return found


def integrated(scores: Floats, at: Floats) -> Floats:
    """Each row's Brier score over the time from 0, where it is 0, to the last day (trapezoid rule), shape (n,)."""
    return np.asarray(np.trapezoid(np.hstack([np.zeros((len(scores), 1)), scores]), [0.0, *at], axis=1) / at[-1])


def ratios(top: Floats, bottom: Floats, codes: NDArray[Any], weights: Floats) -> tuple[float, Floats]:
    """The sum of `top` over the sum of `bottom`, and on each resample of entities, shape (resamples,).

    Args:
        top: One value per row, shape (n,).
        bottom: One value per row, shape (n,).
        codes: Each row's entity, from 0, shape (n,).
        weights: Draws per resample and entity, as of resample.draws().
    """
    entities = weights.shape[1]
    tops, bottoms = np.bincount(codes, top, entities), np.bincount(codes, bottom, entities)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(tops.sum() / bottoms.sum()), np.asarray(weights @ tops / (weights @ bottoms), dtype=float)


def concordances(right: Floats, pairs: Floats, codes: NDArray[Any], weights: Floats) -> tuple[float, Floats]:
    """The C-index, and on each resample of entities.

    A pair is drawn as often as both its rows together; the resamples take this to first order (the projection of
    Hájek), where each row moves the index by twice its half of the pairs.
    """
    index, spread = ratios(right, pairs, codes, weights)
    return index, index + 2 * (spread - index)
