"""Reasons: families are one, their points add up to the probability, and the clearest of a family is spoken."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnkit.learning import calibrate
from churnkit.learning.calibrate import Calibration
from churnkit.learning.explain import GAP, Shap, per_log_odds, reasons
from churnkit.learning.families import Families
from churnkit.learning.targets import CHURN

PLATT = Calibration("platt", (0.9, -0.2))


@pytest.fixture(scope="module")
def frame(book):
    """The features of the last cutoff."""
    return book[0].tail(300).reset_index(drop=True)


def reasons_by_hand(shap, frame, top=50):
    return reasons(CHURN, frame, shap, top)


@pytest.mark.parametrize("kind", ["platt", "none", "isotonic"])
def test_the_points_of_all_families_add_up_to_the_probability_less_the_base(trained, frame, rows, kind):
    """Whatever the calibration, within rounding; and SMALL apart, the told reasons are all there are."""
    model = trained.model
    contributions, base = model.contributions(frame)
    raw = model.raw(frame)
    y = np.random.default_rng(1).random(len(raw)) < calibrate.sigmoid(raw)
    probability = calibrate.fit(kind, raw, y.astype(float)).apply
    shap = Shap(model.features, contributions, raw, probability)
    expected = 100 * (probability(raw) - probability(base))
    families = Families([name.split("_")[0] for name in shap.names])
    points = families.added(contributions) * per_log_odds(shap)[:, None]
    clear = np.abs(raw - base) >= GAP
    np.testing.assert_allclose(expected[clear], points.sum(axis=1)[clear], atol=1e-9)
    told = reasons_by_hand(shap, frame).groupby("entity_id")["points"].sum().reindex(frame["entity_id"]).to_numpy()
    assert np.abs(told - expected).max() < 5  # contributions below SMALL are no reasons


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6), st.floats(-4, 4))
def test_points_add_up_for_any_contributions(parts, base):
    """Also where they cancel out: then the slope takes over, and no reason is told a hundredfold."""
    contributions = np.array([parts])
    shap = Shap(tuple(map(str, parts)), contributions, base + contributions.sum(axis=1), PLATT.apply)
    points = contributions * per_log_odds(shap)[:, None]
    expected = 100 * (PLATT.apply(shap.raw) - PLATT.apply(np.array([base])))
    assert points.sum() == pytest.approx(expected[0], abs=0.01)
    assert np.abs(points).max() <= 100 * 0.9 / 4 * np.abs(contributions).max() + 1e-6  # the logistic's greatest slope


def test_points_stay_small_where_steps_cancel_out():
    """An isotonic step between base and score is no reason to tell any family as a hundred points."""
    steps = Calibration("isotonic", (-1.0, 0.0, 1e-6, 1.0), (0.1, 0.2, 0.6, 0.7))
    shap = Shap(("a", "b"), np.array([[1.0, -1.0 + 1e-6]]), np.array([1e-6]), steps.apply)
    assert per_log_odds(shap)[0] < 100 / (2 * GAP)


def test_a_family_is_one_reason_with_its_members_added(trained, frame):
    """An oracle: a loop over the rows and names."""
    model = trained.model
    contributions, _ = model.contributions(frame)
    shap = Shap(model.features, contributions, model.raw(frame), model.calibration.apply)
    why = reasons_by_hand(shap, frame)
    events = [place for place, name in enumerate(model.features) if name.startswith("events_")]
    assert len(events) == 3
    told = why[why["feature"].str.startswith("events_")].set_index("entity_id")["contribution"]
    for entity, one in zip(frame["entity_id"], contributions[:, events], strict=True):
        assert told.get(entity, 0.0) == pytest.approx(one.sum() if abs(one.sum()) >= 0.02 else 0.0)


def test_the_clearest_of_those_that_work_the_familys_way_is_spoken():
    """A comparison's value is spoken only where it outweighs by far, and what works against the family never."""
    names = ("events_28d", "events_28d_before", "events_84d", "csat_mean_84d", "csat_last")
    clear = np.array([1.5, 0.5, 1.5, 1.0, 1.0])
    families = Families(["events", "events", "events", "csat", "csat"])
    contributions = np.array([
        [0.5, 0.9, 0.1, 0.2, 0.3],
        [0.1, 0.9, 0.1, -0.5, 0.3],
        [0.4, 2.0, -1.0, 0.0, 0.1],
    ])
    spoken = families.spoken(contributions, families.added(contributions), clear)
    expected = [("events_28d", "csat_last"), ("events_28d_before", "csat_mean_84d"), ("events_28d_before", "csat_last")]
    assert expected == [tuple(names[place] for place in row) for row in spoken]


def test_what_people_can_change_comes_before_fixed_facts(book):
    """Within one direction, and where it weighs half as much it still takes the place."""
    frame = book[0].tail(1).reset_index(drop=True).assign(tenure_days=100.0)
    names = ("tenure_days", "tickets_open", "mrr")
    shap = Shap(names, np.array([[1.5, 1.0, 0.4]]), np.array([2.9]), PLATT.apply)
    assert ["tickets_open", "mrr", "tenure_days"] == list(reasons(CHURN, frame, shap, 3)["feature"])
    assert ["tickets_open"] == list(reasons(CHURN, frame, shap, 1)["feature"])
