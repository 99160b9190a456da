"""Kaplan-Meier, C-index and integrated Brier score, each against a naive loop, and what they are there for."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnkit.learning.resample import draws
from churnkit.learning.survival import (
    brier,
    concordance,
    concordances,
    followed,
    happened,
    integrated,
    kaplan_meier,
    ratios,
)

AT = np.array([2.0, 4.0, 6.0])
SEEDS = given(st.integers(0, 2**32 - 1))


def drawn(seed, n=60, ties=True):
    """Days, events and risks with many ties; some rows are followed to the last day."""
    rng = np.random.default_rng(seed)
    days = rng.integers(1, 9, n).astype(float) if ties else rng.uniform(0.1, 8, n)
    days = np.append(days, [9.0, 9.0])
    event = np.append(rng.random(n) < 0.5, [False, False])
    return days, event, np.round(rng.random(n + 2), 1)


@SEEDS
@settings(max_examples=25, deadline=None)
def test_kaplan_meier_is_the_loop(seed):
    days, event, _ = drawn(seed)
    left, expected = 1.0, {}
    for day in sorted(set(days[event])):
        at_risk = sum(1 for one in days if one >= day)
        left *= 1 - sum(1 for one, had in zip(days, event, strict=True) if had and one == day) / at_risk
        expected[day] = left
    times, found = kaplan_meier(days, event)
    assert list(expected) == times.tolist()
    np.testing.assert_allclose(list(expected.values()), found)
    by = [1 - min([left for day, left in expected.items() if day <= at], default=1.0) for at in AT]
    np.testing.assert_allclose(by, happened(days, event, AT))


@SEEDS
@settings(max_examples=25, deadline=None)
def test_the_c_index_is_the_loop_over_all_pairs(seed):
    days, event, risk = drawn(seed)
    right = pairs = 0.0
    for one in range(len(days)):
        for other in range(len(days)):
            longer = days[other] > days[one] or (days[other] == days[one] and not event[other])
            if event[one] and longer:
                pairs += 1
                right += 1.0 if risk[one] > risk[other] else 0.5 if risk[one] == risk[other] else 0.0
    rights, comparable = concordance(days, event, risk)
    assert pairs == pytest.approx(comparable.sum())
    assert right == pytest.approx(rights.sum())


def looped_brier(days, event, p, at):
    """Graf's score, a row and a day at a time."""
    def share(day):
        left = 1.0
        for time in sorted({one for one, had in zip(days, event, strict=True) if not had and one < day}):
            risk = sum(1 for one, had in zip(days, event, strict=True) if one > time or (one == time and not had))
            left *= 1 - sum(1 for one, had in zip(days, event, strict=True) if one == time and not had) / risk
        return left

    scores = []
    for place, day in enumerate(at):
        total = 0.0
        for row in range(len(days)):
            if event[row] and days[row] <= day:
                total += (1 - p[row, place]) ** 2 / share(days[row])
            elif days[row] >= day:
                total += p[row, place] ** 2 / share(day)
        scores.append(total / len(days))
    return scores


@SEEDS
@settings(max_examples=15, deadline=None)
def test_the_brier_score_is_grafs_loop(seed):
    days, event, risk = drawn(seed)
    p = np.clip(risk[:, None] * np.array([0.4, 0.7, 1.0]), 0, 1)
    expected = looped_brier(days, event, p, AT)
    scores = brier(days, event, p, AT)
    np.testing.assert_allclose(expected, scores.mean(axis=0))
    steps = [(0.0, 0.0), *zip(AT, expected, strict=True)]
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(steps)) / AT[-1]
    assert area == pytest.approx(integrated(scores, AT).mean())


def test_without_censoring_the_brier_score_is_the_plain_one():
    """The mean squared error of predicted from observed, at each day."""
    days = np.random.default_rng(2).uniform(0, 10, 500)
    p = np.random.default_rng(3).random((500, 3))
    plain = ((p - (days[:, None] <= AT)) ** 2).mean(axis=0)
    np.testing.assert_allclose(plain, brier(days, np.ones(500, dtype=bool), p, AT).mean(axis=0))
    assert followed(days, np.ones(500, dtype=bool), AT).tolist() == [1.0, 1.0, 1.0]


def test_weights_make_up_for_the_rows_that_were_lost():
    """With half of the rows censored at random, the score comes out as without; dropping them does not."""
    rng = np.random.default_rng(4)
    n = 20_000
    rate = np.exp(rng.normal(size=n) * 0.8) / 6
    life, lost = rng.exponential(1 / rate), rng.uniform(0, 12, n)
    p = -np.expm1(-rate[:, None] * AT)
    whole = brier(life, np.ones(n, dtype=bool), p, AT).mean(axis=0)
    days, event = np.minimum(life, lost), life <= lost
    assert 0.3 < event.mean() < 0.7
    np.testing.assert_allclose(whole, brier(days, event, p, AT).mean(axis=0), atol=0.006)
    seen = ((p - (days[:, None] <= AT)) ** 2)[event].mean(axis=0)
    assert np.abs(seen - whole).max() > 0.03


def test_resampled_c_indices_spread_as_those_of_drawn_pairs():
    """The first-order resamples against the index of every resample, pair by pair, on entities with several rows."""
    rng = np.random.default_rng(5)
    codes = np.repeat(np.arange(60), 4)
    skill = rng.normal(size=60)[codes]
    days, event = rng.exponential(np.exp(-skill)), rng.random(240) < 0.7
    risk = skill + rng.normal(size=240)
    weights = draws(60, 300, 1)
    index, spread = concordances(*concordance(days, event, risk), codes, weights)
    later = event[:, None] & ((days > days[:, None]) | ((days == days[:, None]) & ~event))
    better = later * ((risk[:, None] > risk) + 0.5 * (risk[:, None] == risk))
    rows = weights[:, codes]
    exact = ((rows @ better) * rows).sum(axis=1) / ((rows @ later) * rows).sum(axis=1)
    assert index == pytest.approx(better.sum() / later.sum())
    assert np.std(exact) == pytest.approx(np.std(spread), rel=0.1)
    assert np.corrcoef(exact, spread)[0, 1] > 0.98


def test_ratios_are_resampled_by_entity():
    """The mean of a resample is that of its entities' rows, each as often as it was drawn."""
    values, codes = np.array([1.0, 2.0, 6.0]), np.array([0, 0, 1])
    mean, spread = ratios(values, np.ones(3), codes, np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]]))
    assert [1.5, 6.0, 3.0] == spread.tolist()
    assert mean == 3.0
