"""Which form and which calibration: what does best later, not on shuffled rows; every form is explained exactly."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from churnkit.learning import calibrate, choice
from churnkit.learning.calibrate import Calibration
from churnkit.learning.model import Model
from churnkit.learning.targets import CHURN
from churnkit.learning.training import train, training_set
from tests.learning.conftest import made


def world(n=9000, seed=4):
    """A linear truth, outcomes drawn from it, and three folds in time."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-1, 1.5, n)
    return truth, (rng.random(n) < calibrate.sigmoid(truth)).astype(float), np.arange(n) * 3 // n, rng


def test_the_form_that_is_right_is_chosen():
    """Noise on one side, then on the other, then on both, where halves cancel some of it."""
    truth, y, folds, rng = world()
    one, other = (truth + rng.normal(0, 1.5, len(truth)) for _ in range(2))
    ones = np.ones(len(y))
    assert choice.FORMS["logistic regression"] == choice.share(one, truth, y, folds, ones)
    assert choice.FORMS["trees"] == choice.share(truth, other, y, folds, ones)
    assert choice.FORMS["blend"] == choice.share(one, other, y, folds, ones)
    assert choice.FORMS["blend"] == choice.share(truth, truth, y, folds, ones)  # among equals


def test_what_was_right_only_at_first_is_not_chosen():
    """Right in the first fold, noise in the later ones: shuffled rows would have it win."""
    truth, y, folds, rng = world()
    fading = np.where(folds == 0, truth * 3, rng.normal(0, 1.5, len(truth)))
    assert choice.FORMS["trees"] != choice.share(fading, truth, y, folds, np.ones(len(y)))


def test_the_timid_side_of_a_blend_is_heard():
    """Trees stopped early say the right thing softly: the blend ranks nearly as well as they do."""
    from sklearn.metrics import roc_auc_score

    truth, y, folds, rng = world()
    timid, bold = 0.05 * (truth + rng.normal(0, 0.5, len(truth))), truth + rng.normal(0, 3, len(truth))
    mixed = choice.blend(0.5, timid, bold, y, folds, np.ones(len(y))).of(timid, bold)
    assert roc_auc_score(y, mixed) > roc_auc_score(y, timid) - 0.01 > roc_auc_score(y, timid + bold) + 0.05


def test_what_moves_the_level_moves_no_choice():
    """Outcomes twice and ten times as common in later folds: the side that ranks rightly within each is chosen still,
    and its slope is the one that it has within them.
    """
    truth, _, folds, rng = world(30_000)
    y = (rng.random(len(truth)) < calibrate.sigmoid(truth + np.array([-1.0, 0.0, 1.5])[folds])).astype(float)
    moved = truth - np.array([0.0, 1.5, 3.0])[folds]  # falls as outcomes rise: pooled, it looks like noise
    noise = rng.normal(-1, 1.5, len(truth))
    assert choice.FORMS["trees"] == choice.share(moved, noise, y, folds, np.ones(len(y)))
    assert calibrate.slope(moved, y, folds, np.ones(len(y))) == pytest.approx(1, abs=0.05)
    assert calibrate.fit("platt", moved, y).x[0] < 0.6


def test_better_before_but_worse_at_last_is_not_chosen():
    """However sure over all folds: the latest is nearest to use."""
    truth, y, folds, rng = world(30_000)
    faded = np.where(folds == 2, rng.normal(0, 1.5, len(truth)), truth)
    other = truth + rng.normal(0, 1.5, len(truth))
    assert choice.FORMS["trees"] != choice.share(faded, other, y, folds, np.ones(len(y)))


def test_sides_that_ranked_the_past_wrongly_still_rank():
    """A slope of nothing would make all customers one."""
    truth, y, folds, _ = world()
    found = choice.blend(0.5, -truth, np.where(folds == 0, -2 * truth, truth), y, folds, np.ones(len(y)))
    assert min(found.trees, found.logistic) == pytest.approx(choice.LEAST_SLOPE / 2)


def test_few_positives_choose_nothing():
    truth, y, folds, _ = world()
    y = np.where(np.cumsum(y) < choice.FEWEST, y, 0.0)
    assert (choice.FORMS["blend"], "platt") == (choice.share(truth, -truth, y, folds, np.ones(len(y))),
                                                choice.kind(truth, y, folds, np.ones(len(y))))


@pytest.mark.parametrize(("by", "kinds"), [
    (Calibration("platt", (0.6, -1.0)), {"platt"}),
    (Calibration("isotonic", (-4.0, -1.0, -0.9, 1.5, 1.6, 5.0), (0.01, 0.01, 0.3, 0.3, 0.95, 0.95)), {"isotonic"}),
    (Calibration("beta", (0.15, 2.5, 0.6)), {"beta", "isotonic"}),
])
def test_the_calibration_that_is_right_is_chosen(by, kinds):
    """Outcomes drawn from each map; Platt's stands unless another is better by more than chance."""
    truth, _, folds, rng = world(30_000)
    y = (rng.random(len(truth)) < by.apply(truth)).astype(float)
    assert choice.kind(truth, y, folds, np.ones(len(y))) in kinds


@pytest.fixture(scope="module", params=[0.0, 0.5])
def plain(request, rows):
    """A logistic model and a blend."""
    return Model(CHURN, share=request.param).fit(rows, rounds=30)


def test_contributions_of_every_form_add_up_and_leave_no_mean(plain, rows):
    given, base = plain.contributions(rows.X)
    np.testing.assert_allclose(given.sum(axis=1) + base, plain.raw(rows.X), atol=1e-4)  # many rows go the fast way
    if plain.blend.share == 0:
        np.testing.assert_allclose(given.mean(axis=0), 0, atol=1e-9)


def test_linear_contributions_are_those_of_the_shap_package(rows):
    """Against shap's own linear explainer, on numbers alone: it knows no words."""
    from churnkit.learning.baseline import MISSING_SHARE, fit

    names = ["events_28d", "tickets_open", "mrr"]
    x, y = rows.X[names], rows.y.to_numpy(dtype=float)
    assert x.isna().to_numpy().mean() < MISSING_SHARE
    plain = fit(x, y, {})
    standard = np.column_stack([np.clip((x[name] - plain.numbers[name][1]) / plain.numbers[name][2], -5, 5)
                                for name in names])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import shap

        weight = np.array([plain.numbers[name][3] for name in names])
        masker = shap.maskers.Independent(standard, max_samples=len(standard))
        explainer = shap.LinearExplainer((weight, plain.intercept), masker)
        expected = explainer.shap_values(standard)
    given, base = plain.contributions(x, names)
    np.testing.assert_allclose(expected, given, atol=1e-9)
    np.testing.assert_allclose(explainer.expected_value, base, atol=1e-9)


def test_every_form_survives_json(plain, rows):
    again = Model.from_parts(plain.to_parts())
    assert plain.blend == again.blend
    assert plain.probability(rows.X).tolist() == again.probability(rows.X).tolist()


def test_a_linear_world_with_few_rows_is_not_left_to_trees():
    """On 60 accounts with a linear truth and noise columns, trees alone are never the choice."""
    frame, labels = made(entities=60, months=30, seed=8, extra=20)
    assert train(CHURN, training_set(CHURN, frame, labels)).model.blend.share < 1
