"""Training and judging a curve: what the test period says, and that nothing from it is known before."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from test_estimators import EDGES, START, lived

from churnkit.errors import ModelError
from churnkit.learning.curves import evaluate_curve, train_curve
from churnkit.learning.durations import DAY
from churnkit.learning.survival import concordance, happened

DAYS = (30, 60, 90, 180)
TEST_AT = START + 28 * 12 * DAY


@pytest.fixture(scope="module")
def book():
    return lived(entities=350)


@pytest.fixture(scope="module")
def found(book):
    x, spans, _ = book
    return train_curve(spans, x, DAYS, test_at=TEST_AT)


def test_each_horizon_has_its_own_figures(book, found):
    """AUC as scikit-learn counts it, the observed share as Kaplan-Meier does."""
    x, spans, _ = book
    late = (spans.keys["cutoff"] >= pd.Timestamp(TEST_AT)).to_numpy()
    p = found.holdout.probability(x[late])
    table = found.evaluation.horizons
    assert list(map(float, DAYS)) == table.index.tolist()
    for day in table.index:
        y, _ = spans.take(late).within(day)
        assert roc_auc_score(y, p[:, EDGES.index(day)]) == pytest.approx(table.loc[day, "auc"])
        assert y.mean() == pytest.approx(table.loc[day, "observed"])
        assert table.loc[day, "auc_low"] < table.loc[day, "auc"] < table.loc[day, "auc_high"]
        assert abs(table.loc[day, "predicted"] - table.loc[day, "observed"]) < 0.04
        assert table.loc[day, "calibration_error"] < 0.06


def test_the_whole_curve_beats_kaplan_meier(book, found):
    """Its integrated Brier score is below that of one curve for everybody, and its C-index well above chance."""
    x, spans, _ = book
    late = (spans.keys["cutoff"] >= pd.Timestamp(TEST_AT)).to_numpy()
    seen = found.evaluation
    assert seen.skill
    assert seen.figure("integrated_brier") < seen.figure("integrated_brier", "kaplan_meier") - 0.01
    rank = concordance(spans.days[late], spans.event[late], x["speed"].to_numpy()[late])
    assert abs(seen.figure("c_index") - rank[0].sum() / rank[1].sum()) < 0.06
    assert seen.figure("c_index", "low") < seen.figure("c_index") < seen.figure("c_index", "high")
    assert seen.says().startswith("churn curve: skill proven: the lower 99% bound of the C-index")


def test_noise_has_no_skill_and_says_so(book):
    """Inputs that tell nothing give a curve that is no better than Kaplan-Meier's."""
    x, spans, _ = book
    noise = x[["noise"]].reset_index(drop=True)
    seen = train_curve(spans, noise, DAYS, test_at=TEST_AT).evaluation
    assert not seen.skill
    assert seen.says().startswith("churn curve: no skill")
    assert seen.figure("c_index") == pytest.approx(0.5, abs=0.05)


def test_the_test_period_touches_nothing_of_the_holdout(book, found):
    """Other inputs and another fate of what was not known at the cut leave the holdout as it was."""
    x, spans, _ = book
    before = spans.until(TEST_AT)
    hidden = np.isnan(before.labels)
    other = replace(spans, labels=np.where(hidden, 1.0, spans.labels))
    late = (spans.keys["cutoff"] >= pd.Timestamp(TEST_AT)).to_numpy()
    changed = x.assign(speed=x["speed"].where(~late, 0.0))
    again = train_curve(other, changed, DAYS, test_at=TEST_AT)
    assert found.holdout.to_parts() == again.holdout.to_parts()
    assert found.evaluation.metrics() != again.evaluation.metrics()


def test_a_horizon_that_nobody_was_followed_to_is_not_tested():
    """It says so, its figures are blank, and the summary is plain JSON."""
    x, spans, _ = lived(entities=250, follow=28 * 15 + 45)
    seen = train_curve(spans, x, DAYS, test_at=TEST_AT).evaluation
    assert "180 days not tested" in seen.says()
    assert np.isnan(seen.horizons.loc[180.0, "auc"])
    assert seen.reach < 180
    summary = json.loads(json.dumps(seen.summary(), allow_nan=False))
    assert summary["horizons"][3]["auc"] is None
    assert seen.horizons.loc[30.0, "auc"] == pytest.approx(summary["horizons"][0]["auc"], abs=1e-5)
    assert all(np.isfinite(list(seen.metrics().values())))


def test_a_test_period_that_nobody_was_followed_into_is_refused(book):
    x, spans, _ = book
    with pytest.raises(ModelError, match=r"can be followed for 30 days. Set shorter horizons"):
        train_curve(spans.until(TEST_AT), x, DAYS, test_at=TEST_AT)


def test_few_events_prove_nothing(book, found):
    x, spans, _ = book
    few = np.flatnonzero(spans.event)[:5]
    some = np.concatenate([few, np.flatnonzero(~spans.event)[:200]])
    usual = happened(spans.days, spans.event, np.array(EDGES))
    seen = evaluate_curve(found.holdout, x.iloc[some], spans.take(some), usual, resamples=50)
    assert (seen.skill, "too few events in the test period (5" in seen.why) == (False, True)
