"""How well each column alone ranks outcomes: the AUC with bounds, for many columns and clustered rows at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Z = 1.96
"""Bounds hold 95%."""
FEWEST = 20
"""Fewer entities with, or without, the outcome bound nothing: their bounds are those of no knowledge, 0 and 1."""
_FOLDS = 5
_AT_ONCE = 16


def aucs(frame: pd.DataFrame, y: NDArray[Any], entities: NDArray[Any]) -> pd.DataFrame:
    """The AUC of each column for an outcome, in the direction in which it ranks better, with 95% bounds.

    A missing value ranks below all others, so that a column that is filled only where something happened is seen. A
    category is ranked by the outcome's rate among the other entities of its value.

    The variance is Obuchowski's for clustered rows (Biometrics 53, 1997, 567-578), no smaller than that of Hanley and
    McNeil (Radiology 143, 1982, 29-36) at the number of entities, taken at an AUC that one more positive at 0.5 would
    give: else a perfect ranking of few would seem certain.

    Args:
        frame: Columns to judge, n rows; numbers, or object for categories.
        y: Outcomes, 0 or 1, shape (n,).
        entities: Whose row it is, shape (n,).

    Returns:
        Index: the columns. Columns: auc, low, high, sign (1 or -1: whether more of it means the outcome).

    >>> rows = pd.DataFrame({"knows": [0.0, 1.0] * 40, "noise": [0.0, 0.0, 1.0, 1.0] * 20})
    >>> aucs(rows, np.array([0, 1] * 40), np.arange(80)).round(2).to_dict("index")["knows"]
    {'auc': 1.0, 'low': 0.98, 'high': 1.0, 'sign': 1.0}
    """
    outcome, (codes, names) = np.asarray(y, dtype=float), pd.factorize(entities)
    parts = [_some(frame.iloc[:, start:start + _AT_ONCE], outcome, codes, len(names))
             for start in range(0, frame.shape[1], _AT_ONCE)]
    return pd.concat(parts) if parts else pd.DataFrame(columns=["auc", "low", "high", "sign"], dtype=float)


def numbers(frame: pd.DataFrame, y: Floats, codes: NDArray[Any]) -> Floats:
    """The columns as numbers to rank, shape (n, k): missing is below everything, a category is its rate elsewhere."""
    made = np.empty(frame.shape)
    for place, name in enumerate(frame):
        column = frame[name]
        made[:, place] = _rates(column, y, codes) if column.dtype == object else column.to_numpy(dtype=float,
                                                                                                na_value=np.nan)
    return np.where(np.isnan(made), -np.inf, made)


def _rates(column: pd.Series, y: Floats, codes: NDArray[Any]) -> Floats:
    """Each row's category as the outcome's rate among entities of other folds, drawn to the overall rate."""
    kinds, fold, mean = pd.factorize(column.fillna(""))[0], codes % _FOLDS, y.mean()
    n = np.zeros((kinds.max() + 1, _FOLDS))
    hits = n.copy()
    np.add.at(n, (kinds, fold), 1.0)
    np.add.at(hits, (kinds, fold), y)
    others, seen = hits.sum(axis=1, keepdims=True) - hits, n.sum(axis=1, keepdims=True) - n
    rates: Floats = ((others + 10 * mean) / (seen + 10))[kinds, fold]
    return rates


def _some(frame: pd.DataFrame, y: Floats, codes: NDArray[Any], clusters: int) -> pd.DataFrame:
    yes = y > 0
    m, n = int(yes.sum()), int((~yes).sum())
    result = pd.DataFrame({"auc": 0.5, "low": 0.0, "high": 1.0, "sign": 1.0}, index=frame.columns)
    if not m or not n:
        return result
    placed = [_placed(column, yes, codes, clusters) for column in numbers(frame, y, codes).T]
    auc, v10, v01 = (np.array([one[part] for one in placed]) for part in range(3))
    with_yes, with_no = len(np.unique(codes[yes])), len(np.unique(codes[~yes]))
    if min(with_yes, with_no) >= FEWEST:
        variance = (with_yes / (with_yes - 1) * (v10**2).sum(axis=1) / m**2
                    + with_no / (with_no - 1) * (v01**2).sum(axis=1) / n**2
                    + 2 * clusters / (clusters - 1) * (v10 * v01).sum(axis=1) / (m * n))
        spread = np.sqrt(np.maximum(variance, _hanley_mcneil(auc, with_yes, with_no)))
        result["low"], result["high"] = np.clip(auc - Z * spread, 0, 1), np.clip(auc + Z * spread, 0, 1)
    result["auc"] = auc
    turned = result.assign(auc=1 - result["auc"], low=1 - result["high"], high=1 - result["low"], sign=-1.0)
    result[auc < 0.5] = turned[auc < 0.5]
    return result


def _placed(values: Floats, yes: NDArray[np.bool_], codes: NDArray[Any], clusters: int) -> tuple[float, Floats, Floats]:
    """The AUC, and per cluster the placements of its positives and of its negatives, each less the AUC, summed.

    A positive's placement is the share of negatives that it outranks, a negative's the share of positives that outrank
    it; equals count half. One sort per column gives all of them.
    """
    order = np.argsort(values, kind="stable")
    ranked, positive = values[order], yes[order]
    first = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))  # where each group of equals begins
    sizes = np.diff(np.append(first, len(ranked)))
    hits = np.add.reduceat(positive.astype(float), first)
    misses = sizes - hits
    m, n = hits.sum(), misses.sum()
    above = np.repeat((np.cumsum(misses) - misses / 2) / n, sizes)
    below = np.repeat((m - np.cumsum(hits) + hits / 2) / m, sizes)
    auc, whose = float(above[positive].mean()), codes[order]
    sums = [np.bincount(whose[kept], weights=side[kept] - auc, minlength=clusters).astype(float)
            for kept, side in ((positive, above), (~positive, below))]
    return auc, sums[0], sums[1]


def _hanley_mcneil(auc: Floats, m: int, n: int) -> Floats:
    best = np.maximum(auc, 1 - auc)
    a = (best * m + 0.5) / (m + 1)
    q1, q2 = a / (2 - a), 2 * a**2 / (1 + a)
    found: Floats = (a * (1 - a) + (m - 1) * (q1 - a**2) + (n - 1) * (q2 - a**2)) / (m * n)
    return found
