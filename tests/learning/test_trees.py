"""Fits that grow side by side stop together, where the mean of their losses was least."""

from __future__ import annotations

import lightgbm as lgb
import numpy as np

from churnkit.learning.trees import PATIENCE, STEP, grow, grow_in_step, levelled_loss, parameters


def drawn(rows, shift, seed):
    """Five numbers, two of which tell the outcome."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 5))
    return x, (rng.random(rows) < 1 / (1 + np.exp(1 - shift - x[:, 0] - np.sin(2 * x[:, 1])))).astype(float)


def test_the_iterations_are_those_of_the_least_mean_loss():
    """Against fits grown one by one and measured at every step; a fit counts by its measured rows."""
    fits, sizes = [], (300, 900)
    for number, size in enumerate(sizes):
        (x, y), (other, outcome) = drawn(800, 0, number), drawn(size, number, 10 + number)
        params = parameters(int(y.sum()), len(y), 7)
        fits.append((params, {"data": x, "label": y}, {"data": other, "label": outcome}))
    names = list("abcde")
    boosters, found = grow_in_step(fits, names, {}, levelled_loss)
    grown = [grow(params, rows, names, {}, found + 2 * PATIENCE) for params, rows, _ in fits]
    means = {}
    for rounds in range(STEP, found + PATIENCE, STEP):
        losses = [levelled_loss(booster.predict(held["data"], num_iteration=rounds), lgb.Dataset(**held).construct())[1]
                  for booster, (_, _, held) in zip(grown, fits, strict=True)]
        means[rounds] = np.average(losses, weights=sizes)
    assert found == min(means, key=means.get)
    for booster, alone, (_, _, held) in zip(boosters, grown, fits, strict=True):
        np.testing.assert_allclose(booster.predict(held["data"], num_iteration=found),
                                   alone.predict(held["data"], num_iteration=found))
