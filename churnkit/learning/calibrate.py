"""From a raw score (log-odds) to a probability: small maps that are kept as text and never unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression

from churnkit.errors import ModelError

Floats = NDArray[np.float64]
Kind = Literal["none", "platt", "isotonic", "beta"]
KINDS: tuple[Kind, ...] = ("none", "platt", "isotonic", "beta")
EDGE = 1e-6
"""Probabilities stay this far from 0 and 1, so that no log loss is infinite."""
FAR = 1000.0
"""In log-odds: a line to a knot so far away is flat to the eye, and still tells two scores apart."""


@dataclass(frozen=True)
class Calibration:
    """A monotone map: none is the logistic function, platt `sigmoid(x[0] * raw + x[1])`, isotonic knots x -> y, beta
    `sigmoid(x[0] * ln p - x[1] * ln(1 - p) + x[2])` with p = sigmoid(raw) (Kull, Silva Filho and Flach 2017).
    """

    kind: Kind = "none"
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()

    def apply(self, raw: Floats) -> Floats:
        """Probabilities for raw scores, shape (n,).

        >>> Calibration("platt", (2.0, 0.0)).apply(np.array([0.0, 1.0])).round(3).tolist()
        [0.5, 0.881]
        """
        if self.kind == "platt":
            found = sigmoid(self.x[0] * raw + self.x[1])
        elif self.kind == "isotonic":
            found = np.interp(raw, self.x, self.y)
        elif self.kind == "beta":
            found = sigmoid(self.x[2] - self.x[0] * np.logaddexp(0, -raw) + self.x[1] * np.logaddexp(0, raw))
        else:
            found = sigmoid(raw)
        return np.clip(found, EDGE, 1 - EDGE)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"kind": self.kind, "x": list(self.x), "y": list(self.y)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Calibration:
        """The reverse of `to_dict`."""
        return cls(data["kind"], tuple(data["x"]), tuple(data["y"]))


def fit(kind: Kind, raw: Floats, y: Floats, weights: Floats | None = None) -> Calibration:
    """The map of that kind that fits outcomes best; without both outcomes there is nothing to fit: none.

    Args:
        kind: none, platt, isotonic or beta.
        raw: Out-of-time raw scores (log-odds), shape (n,).
        y: Outcomes, 0 or 1, shape (n,).
        weights: How much each row counts, shape (n,).

    Raises:
        ModelError: If there is no such kind.
    """
    if kind not in KINDS:
        raise ModelError(f"There is no calibration '{kind}'. Use none, platt, isotonic or beta.")
    if kind == "none" or not 0 < y.sum() < len(y):
        return Calibration()
    weights = np.ones(len(y)) if weights is None else weights
    if kind == "platt":
        return Calibration("platt", _platt(raw, y, weights))
    if kind == "beta":
        return Calibration("beta", _beta(raw, y, weights))
    return Calibration("isotonic", *_isotonic(raw, y, weights))


def sigmoid(raw: Floats) -> Floats:
    """The logistic function, without overflow."""
    return 1 / (1 + np.exp(-np.clip(raw, -50, 50)))


def log_odds(p: Floats) -> Floats:
    """The reverse of `sigmoid`, for probabilities held off the edges."""
    held = np.clip(p, EDGE, 1 - EDGE)
    return np.log(held / (1 - held))


def slope(raw: Floats, y: Floats, folds: NDArray[Any], weights: Floats) -> float:
    """What the raw scores must be multiplied by to have the scale of the outcomes, each fold with a level of its own:
    what moves the level from one time to the next says nothing of how well rows are told apart within it.

    Folds without both outcomes say nothing; without any that has both, or without a spread, it is 1.
    """
    telling = [fold for fold in np.unique(folds) if 0 < y[folds == fold].sum() < (folds == fold).sum()]
    seen = np.isin(folds, telling)
    raw, y, weights = raw[seen], y[seen], weights[seen]
    scale = float(raw.std()) if len(raw) else 0.0
    if scale == 0:
        return 1.0
    own = (folds[seen][:, None] == np.array(telling)).astype(float)
    x = np.column_stack([(raw - raw.mean()) / scale, own])
    found = _newton(x, _softened(y, weights), weights, np.zeros(x.shape[1]))
    return float(found[0] / scale)


def level(raw: Floats, y: Floats, weights: Floats | None = None) -> float:
    """The shift that, added to the raw scores, makes their mean probability the outcomes' mean."""
    shift, weights = 0.0, np.ones(len(y)) if weights is None else weights
    for _ in range(25):
        p = sigmoid(raw + shift)
        step = float(np.average(y - p, weights=weights) / max(float(np.average(p * (1 - p), weights=weights)), 1e-9))
        shift += float(np.clip(step, -2, 2))
        if abs(step) < 1e-9:
            break
    return shift


def levelled(found: Calibration, raw: Floats, y: Floats, weights: Floats) -> Calibration:
    """The map, its level moved so that these rows' mean probability is their share of positives; none stays none.

    A map from the rolling fits says how far rows are told apart out of time. Its level is that of fits on earlier rows
    alone, and a last fit, which learnt from the later rows too, has come part of the way to theirs by itself.
    """
    if found.kind == "none" or not 0 < y.sum() < len(y):
        return found
    shift = level(log_odds(found.apply(raw)), y, weights)
    if found.kind == "isotonic":
        return Calibration("isotonic", found.x, tuple(map(float, sigmoid(log_odds(np.array(found.y)) + shift))))
    return Calibration(found.kind, (*found.x[:-1], found.x[-1] + shift))


def _isotonic(raw: Floats, y: Floats, weights: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Knots at the middle of each of isotonic regression's steps, so that between them no two scores become one
    (centred isotonic regression, Oron and Flournoy 2017), and a far one at either end, for those beyond the steps.
    """
    steps = IsotonicRegression().fit(raw, y, weights).predict(raw)
    value, step = np.unique(steps, return_inverse=True)
    share = np.bincount(step, weights)
    middle = np.bincount(step, weights * raw) / share
    smallest = 0.5 / len(y)  # a step of pure zeros says no more than 'fewer than one in so many'
    held = np.clip(value, smallest, 1 - smallest)
    x = np.array([middle[0] - FAR, *middle, middle[-1] + FAR])
    return tuple(map(float, x)), tuple(map(float, [min(EDGE, held[0]), *held, max(1 - EDGE, held[-1])]))


def _softened(y: Floats, weights: Floats) -> Floats:
    """Platt's targets: a little off 0 and 1, the more so the fewer the outcomes (Platt 1999)."""
    n1 = float(weights @ y)
    n0 = float(weights.sum()) - n1
    return np.where(y > 0, (n1 + 1) / (n1 + 2), 1 / (n0 + 2))


def _platt(raw: Floats, y: Floats, weights: Floats) -> tuple[float, float]:
    """Slope and intercept for Platt's softened targets; the slope is never negative.

    Newton's steps, each halved until the loss falls: it is convex, so they cannot run away on far-out scores.
    """
    soft = _softened(y, weights)
    flat = float(log_odds(np.array([np.average(soft, weights=weights)]))[0])
    mean, scale = float(raw.mean()), float(raw.std())
    if scale == 0:
        return 0.0, flat
    beta = _newton(np.column_stack([(raw - mean) / scale, np.ones(len(y))]), soft, weights, np.array([0.0, flat]))
    if beta[0] <= 0:
        return 0.0, flat
    return float(beta[0] / scale), float(beta[1] - beta[0] * mean / scale)


def _newton(x: Floats, soft: Floats, weights: Floats, beta: Floats) -> Floats:
    """Coefficients of the logistic regression of the targets on the columns of x, from a first guess."""

    def loss(beta: Floats) -> float:
        z = x @ beta
        return float(weights @ (np.logaddexp(0, z) - soft * z))

    for _ in range(100):
        p = sigmoid(x @ beta)
        curve = (x * (weights * p * (1 - p))[:, None]).T @ x + 1e-9 * np.eye(x.shape[1])
        step = np.linalg.solve(curve, x.T @ (weights * (soft - p)))
        here = loss(beta)
        while loss(beta + step) > here and np.abs(step).max() > 1e-12:
            step = step / 2
        beta = beta + step
        if np.abs(step).max() < 1e-9:
            break
    return beta


def _beta(raw: Floats, y: Floats, weights: Floats) -> tuple[float, float, float]:
    """The beta map's a, b (never negative, so that it is monotone) and c, for softened targets."""
    soft = _softened(y, weights)
    x = np.column_stack([-np.logaddexp(0, -raw), np.logaddexp(0, raw), np.ones(len(y))])

    def loss(beta: Floats) -> tuple[float, Floats]:
        z = x @ beta
        total = weights.sum()
        return float(weights @ (np.logaddexp(0, z) - soft * z)) / total, x.T @ (weights * (sigmoid(z) - soft)) / total

    start = np.array([1.0, 1.0, level(raw, soft)])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None), (0, None), (None, None)])
    a, b, c = map(float, found.x)
    return a, b, c
