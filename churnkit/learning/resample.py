"""Metrics of predictions on many resamples of entities at once: each resample is a row of whole-number weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from churnkit.learning.calibrate import Floats

METRICS = ("auc", "average_precision", "log_loss", "brier", "calibration_error", "lift_5", "lift_10", "lift_20")
LEVEL = 0.99
"""One-sided confidence at which skill counts as proven."""
FEWEST = 10
"""Fewer positives or negatives in the test period prove nothing, whatever the bounds say."""
_SHARES = (0.05, 0.10, 0.20)
_BINS = 10
_CELLS = 4_000_000  # numbers held at once per working array: 32 MB


def draws(entities: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """How often each entity is drawn in each resample, shape (resamples, entities); each row sums to the entities."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(entities, np.full(entities, 1 / entities), size=resamples).astype(float)


def resampled(y: Floats, p: Floats, codes: NDArray[Any], weights: Floats,
              counts: Floats | None = None) -> tuple[Floats, Floats]:
    """The metrics on the rows themselves, shape (m,), and on each resample, (resamples, m); undefined is NaN.

    Args:
        y: Outcomes, 0 or 1, shape (n,).
        p: Probabilities, shape (n,).
        codes: Each row's entity, from 0, shape (n,).
        weights: Draws per resample and entity.
        counts: How much each row counts, shape (n,); left out: all the same.
    """
    order, ends = ordered(p)
    y, p, codes = y[order], p[order], codes[order]
    counts = np.ones(len(y)) if counts is None else counts[order]
    point = _metrics(y, p, counts[None, :], ends)[0]
    parts = [_metrics(y, p, weights[part][:, codes] * counts, ends) for part in chunks(len(y), len(weights))]
    return point, np.vstack(parts)


def aucs(y: Floats, p: Floats, codes: NDArray[Any], weights: Floats, counts: Floats) -> tuple[float, Floats]:
    """The first metric alone: on the rows themselves, and on each resample, (resamples,)."""
    order, ends = ordered(p)
    y, codes, counts = y[order], codes[order], counts[order]
    point = _auc(*curves(y, counts[None, :], ends))[0]
    parts = [_auc(*curves(y, weights[part][:, codes] * counts, ends)) for part in chunks(len(y), len(weights))]
    return float(point), np.concatenate(parts)


def quantiles(spread: Floats, q: float) -> Floats:
    """A quantile per column over the resamples in which it is defined."""
    undefined = np.asarray(np.isnan(spread).all(axis=0))
    filled = np.where(undefined.reshape(1, -1), 0.0, spread)
    found: Floats = np.nanquantile(filled, q, axis=0)
    return np.where(undefined, np.nan, found)


def ordered(p: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The order by falling score, and in it the last place of each group of equal scores."""
    order = np.argsort(-p, kind="stable")
    fallen = p[order]
    return order, np.flatnonzero(np.append(fallen[1:] != fallen[:-1], True))


def curves(y: Floats, row: Floats, ends: NDArray[Any]) -> tuple[Floats, Floats]:
    """Positives caught and rows passed at each group's end, (resamples, groups); `row` weighs the ordered rows."""
    return np.cumsum(row * y, axis=1)[:, ends], np.cumsum(row, axis=1)[:, ends]


def chunks(rows: int, resamples: int) -> list[slice]:
    """As many resamples at once as memory should hold."""
    step = max(1, _CELLS // max(rows, 1))
    return [slice(start, start + step) for start in range(0, resamples, step)]


def _auc(caught: Floats, passed: Floats) -> Floats:
    """Each negative is outranked by the positives before it, and by half of those with its score."""
    gained, before = np.diff(caught, axis=1, prepend=0.0), np.hstack([np.zeros((len(caught), 1)), caught[:, :-1]])
    negatives = np.diff(passed, axis=1, prepend=0.0) - gained
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = (negatives * (before + gained / 2)).sum(axis=1) / (
            caught[:, -1] * (passed[:, -1] - caught[:, -1]))
    return found


def _metrics(y: Floats, p: Floats, row: Floats, ends: NDArray[Any]) -> Floats:
    """All metrics for some resamples, each a row of weights; the rows are ordered by falling score."""
    total = row.sum(axis=1)
    caught, passed = curves(y, row, ends)
    positives = caught[:, -1]
    with np.errstate(divide="ignore", invalid="ignore"):
        gained = np.diff(caught, axis=1, prepend=0.0)
        average_precision = np.where(gained > 0, gained * caught / passed, 0.0).sum(axis=1) / positives
        lifts = [_lift(caught, passed, total, share) for share in _SHARES]
    loss = row @ -(y * np.log(p) + (1 - y) * np.log1p(-p)) / total
    brier = row @ (p - y) ** 2 / total
    error = _calibration_error(y, p, row, total)
    return np.column_stack([_auc(caught, passed), average_precision, loss, brier, error, *lifts])


def _lift(caught: Floats, passed: Floats, total: Floats, share: float) -> Floats:
    """Positives in the top share relative to chance; equal scores count in part."""
    wanted = share * total
    place = (passed < wanted[:, None]).sum(axis=1)
    rows = np.arange(len(total))
    before = np.where(place > 0, passed[rows, place - 1], 0.0)
    had = np.where(place > 0, caught[rows, place - 1], 0.0)
    part = (wanted - before) / (passed[rows, place] - before)
    found: Floats = (had + part * (caught[rows, place] - had)) / caught[:, -1] / share
    return found


def _calibration_error(y: Floats, p: Floats, row: Floats, total: Floats) -> Floats:
    """Mean distance of predicted from observed over ten groups of equal size on the rows themselves (ECE)."""
    group = np.minimum(np.arange(len(y)) * _BINS // max(len(y), 1), _BINS - 1)
    starts = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
    gaps = np.add.reduceat(row * (p - y), starts, axis=1)
    found: Floats = np.abs(gaps).sum(axis=1) / total
    return found
