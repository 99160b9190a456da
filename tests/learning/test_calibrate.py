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


def test_platt_holds_out_against_far_scores():
    """A few raw scores far out once sent Newton's steps off and the slope to zero."""
    raw, y = drawn(1.0, -4.0)
    raw[:50] -= 400
    assert calibrate.fit("platt", raw, y).x[0] > 0.005


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
def test_a_score_that_ranks_backwards_is_flattened_not_turned(kind):
    raw, y = drawn(-1.0, 0.0)
    assert np.ptp(calibrate.fit(kind, raw, y).apply(np.array([-3.0, 0.0, 3.0]))) < 0.05


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(["none", "platt", "isotonic"]),
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


def test_one_outcome_alone_calibrates_nothing():
    assert Calibration() == calibrate.fit("platt", np.arange(5.0), np.zeros(5))


def test_an_unknown_map_is_refused():
    with pytest.raises(ModelError, match="Use none, platt or isotonic"):
        calibrate.fit("beta", np.zeros(2), np.array([0.0, 1.0]))
