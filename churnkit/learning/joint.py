"""Curves over horizons: calibrated at all edges together, never falling, and read for the median time left."""

from __future__ import annotations

import numpy as np

from churnkit.learning import calibrate
from churnkit.learning.calibrate import EDGE, Calibration, Floats, Kind, log_odds
from churnkit.learning.durations import Durations, Mask

FEWEST, ENOUGH = 10, 50
"""With fewer outcomes of either kind there is no calibration; with so many of them an edge counts half for itself."""


def fit_maps(kind: Kind, told: Floats, seen: Mask, spans: Durations) -> tuple[Calibration, ...]:
    """A calibration per edge, from the rows whose label is known there; none at all where too few are.

    One slope for all edges, and a level for each as far as its own outcomes carry: few of them, as the longest horizons
    have, lean on what all edges say together. Other kinds than platt have a map of their own where there is enough.
    """
    known = np.isfinite(spans.labels) & seen[:, None]
    y, raw = np.column_stack([spans.within(edge)[0] for edge in spans.edges]), log_odds(told)
    if kind == "none" or min(y[known].sum(), (1 - y[known]).sum()) < FEWEST:
        return ()
    slope, base = calibrate.fit("platt", raw[known], y[known]).x
    found = []
    for place in range(len(spans.edges)):
        mine, here = raw[known[:, place], place], y[known[:, place], place]
        fewest = min(here.sum(), (1 - here).sum())
        if kind != "platt" and fewest >= ENOUGH:
            found.append(calibrate.fit(kind, mine, here))
            continue
        shift = calibrate.level(slope * mine + base, here) * fewest / (fewest + ENOUGH) if fewest else 0.0
        found.append(Calibration("platt", (slope, float(base + shift))))
    return tuple(found)


def levelled(maps: tuple[Calibration, ...], told: Floats, spans: Durations) -> tuple[Calibration, ...]:
    """The maps, their levels moved to what came of these rows by each edge; see `calibrate.levelled`.

    Args:
        maps: One per edge, from `fit_maps`.
        told: What the last fit says of the rows that they come from, shape (n, K).
        spans: What came of them.
    """
    found = []
    for place, (one, edge) in enumerate(zip(maps, spans.edges, strict=True)):
        y, known = spans.within(edge)
        here = y[known]
        moved = calibrate.levelled(one, log_odds(told[known, place]), here, np.ones(len(here)))
        found.append(moved if min(here.sum(), (1 - here).sum()) >= ENOUGH else one)
    return tuple(found)


def cumulated(hazards: Floats) -> Floats:
    """The probability of the event by each edge, from the hazards of the periods, shape (n, K).

    >>> cumulated(np.array([[0.5, 0.5]])).tolist()
    [[0.5, 0.75]]
    """
    return np.asarray(1 - np.cumprod(1 - hazards, axis=1), dtype=float)


def joint(maps: tuple[Calibration, ...], probability: Floats) -> Floats:
    """Curves through a map per edge, then to the nearest that never falls, shape (n, K)."""
    if not maps:
        return np.clip(probability, EDGE, 1 - EDGE)
    raw = log_odds(probability)
    return rising(np.column_stack([one.apply(raw[:, place]) for place, one in enumerate(maps)]))


def rising(curves: Floats) -> Floats:
    """The nearest curves (least squares) that never fall, row by row, shape (n, K).

    The min-max formula of isotonic regression: at k the greatest over i <= k of the least over j >= k of the mean from
    i to j (Robertson, Wright and Dykstra, Order Restricted Statistical Inference, 1988, theorem 1.4.4).

    >>> rising(np.array([[0.1, 0.4, 0.2]])).round(3).tolist()
    [[0.1, 0.3, 0.3]]
    """
    falls = (np.diff(curves, axis=1) < 0).any(axis=1)
    some, count = curves[falls], curves.shape[1]
    sums = np.hstack([np.zeros((len(some), 1)), np.cumsum(some, axis=1)])
    nearest = np.full(some.shape, -np.inf)
    for first in range(count):
        means = (sums[:, first + 1:] - sums[:, [first]]) / np.arange(1, count - first + 1)
        least = np.minimum.accumulate(means[:, ::-1], axis=1)[:, ::-1]
        nearest[:, first:] = np.maximum(nearest[:, first:], least)
    found = curves.copy()
    found[falls] = np.maximum.accumulate(nearest, axis=1)
    return found


def median(edges: tuple[float, ...], probability: Floats) -> Floats:
    """Days at which a curve reaches a half, with an even risk inside a period; NaN where it does not.

    >>> median((10.0, 20.0), np.array([[0.2, 0.8], [0.1, 0.2]])).round(1).tolist()
    [13.4, nan]
    """
    left = np.hstack([np.zeros((len(probability), 1)), -np.log1p(-probability)])
    place = (left[:, 1:] < np.log(2)).sum(axis=1)
    inside = np.minimum(place, len(edges) - 1)
    rows, ends = np.arange(len(probability)), np.array([0.0, *edges])
    low, high = left[rows, inside], left[rows, inside + 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        part = (np.log(2) - low) / (high - low)
        found = ends[inside] + part * (ends[inside + 1] - ends[inside])
    return np.where(place < len(edges), found, np.nan)
