"""Calibration maps: right on known cases, monotone, and the same after a trip through JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnkit.errors import ModelError
from churnkit.learning import calibrate
from churnkit.learning.calibrate import Calibration


def drawn(slope, shift, n=20_000, seed=1):
    rng = np.random.default_rng(seed)
    raw = rng.normal(0, 2, n)
    return raw, (rng.random(n) < calibrate.sigmoid(slope * raw + shift)).astype(float)


def test_platt_finds_the_slope_and_shift_that_made_the_outcomes():
    found = calibrate.fit("platt", *drawn(0.6, -1.5))
    assert pytest.approx(found.x, abs=0.05) == (0.6, -1.5)


def test_beta_finds_the_map_that_made_the_outcomes():
    """Kull's three numbers; and Platt's map is among them, with a = b."""
    rng = np.random.default_rng(2)
    raw = rng.normal(0, 2, 300_000)
    made = Calibration("beta", (0.5, 1.5, -0.4))
    found = calibrate.fit("beta", raw, (rng.random(len(raw)) < made.apply(raw)).astype(float))
    assert pytest.approx(made.x, abs=0.05) == found.x
    same = Calibration("beta", (0.7, 0.7, 0.2)).apply(raw)
    np.testing.assert_allclose(Calibration("platt", (0.7, 0.2)).apply(raw), same)


@pytest.mark.parametrize("kind", ["platt", "isotonic", "beta"])
def test_a_row_of_weight_two_counts_as_two_rows(kind):
    raw, y = drawn(0.8, -1, n=400)
    weights = np.where(np.arange(400) < 150, 2.0, 1.0)
    twice = np.concatenate([np.arange(400), np.arange(150)])
    p = calibrate.fit(kind, raw, y, weights).apply(raw)
    np.testing.assert_allclose(calibrate.fit(kind, raw[twice], y[twice]).apply(raw), p, atol=2e-3)


def test_platt_holds_out_against_far_scores():
    """A few raw scores far out once sent Newton's steps off and the slope to zero."""
    raw, y = drawn(1.0, -4.0)
    raw[:50] -= 400
    assert calibrate.fit("platt", raw, y).x[0] > 0.005


@pytest.mark.parametrize("kind", ["platt", "isotonic", "beta"])
def test_a_score_that_ranks_backwards_is_flattened_not_turned(kind):
    raw, y = drawn(-1.0, 0.0)
    assert np.ptp(calibrate.fit(kind, raw, y).apply(np.array([-3.0, 0.0, 3.0]))) < 0.05


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["none", "platt", "isotonic", "beta"]),
    st.lists(st.floats(-20, 20), min_size=2, max_size=30),
    st.integers(0, 99),
)
def test_maps_are_monotone_and_survive_json(kind, scores, seed):
    """Order is never turned round, probabilities are inside (0, 1), and JSON changes no digit."""
    found = calibrate.fit(kind, *drawn(0.8, -1, n=300, seed=seed))
    p = found.apply(np.sort(scores))
    assert (np.diff(p) >= 0).all()
    assert ((p > 0) & (p < 1)).all()
    again = Calibration.from_dict(json.loads(json.dumps(found.to_dict())))
    assert p.tolist() == again.apply(np.sort(scores)).tolist()


def test_isotonic_steps_make_no_two_scores_one():
    """Nor beyond the outermost of them: a map must not cost any ranking."""
    raw, y = drawn(0.8, -1, n=300)
    p = calibrate.fit("isotonic", raw, y).apply(np.linspace(raw.min() - 5, raw.max() + 5, 200))
    assert (np.diff(p) > 0).all()


def test_one_outcome_alone_calibrates_nothing():
    assert Calibration() == calibrate.fit("platt", np.arange(5.0), np.zeros(5))


def test_an_unknown_map_is_refused():
    with pytest.raises(ModelError, match="Use none, platt, isotonic or beta"):
        calibrate.fit("gamma", np.zeros(2), np.array([0.0, 1.0]))


@pytest.mark.parametrize("kind", calibrate.KINDS)
def test_a_level_is_moved_to_the_outcomes_and_the_order_stays(kind):
    """What the earlier fits needed is not what the last one does: its mean becomes the share of positives."""
    rng = np.random.default_rng(4)
    raw = rng.normal(-1, 1.2, 4000)
    y = (rng.random(4000) < calibrate.sigmoid(0.7 * raw - 1)).astype(float)
    weights = rng.uniform(0.5, 2, 4000)
    found = calibrate.fit(kind, raw, y, weights)
    moved = calibrate.levelled(found, raw + 0.8, y, weights)
    if kind == "none":
        assert moved == found
        return
    told = moved.apply(raw + 0.8)
    assert np.average(told, weights=weights) == pytest.approx(np.average(y, weights=weights), abs=1e-3)
    assert (np.argsort(told, kind="stable") == np.argsort(found.apply(raw + 0.8), kind="stable")).all()
    assert calibrate.levelled(found, raw, np.zeros(4000), weights) == found
