"""The likeliest reason for no skill: books with one fault planted each, and the figures behind it against oracles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_rows import lived, made
from scipy import stats

from churnkit.learning.doubts import SURE, contradicted, detectable, hanley
from churnkit.learning.targets import CHURN
from churnkit.learning.training import train, training_set

FAULTS = {
    "no signal": {"fault": "no signal"},
    "shifted population": {"fault": "shifted population"},
    "label noise": {"fault": "label noise", "strength": 0.4},
    "too few positives": {"entities": 70},
}


def named(fault, seed):
    """What a training on a book with that fault calls the likeliest reason."""
    found = train(CHURN, training_set(CHURN, *lived(seed=seed, **FAULTS[fault]))).evaluation
    return "" if found.skill else found.doubt.reason


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(fault):
    """One book of each."""
    assert named(fault, seed=1) == fault


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named_in_most_books(fault):
    """At least eight of ten."""
    assert sum(named(fault, seed) == fault for seed in range(20, 30)) >= 8


def test_a_model_with_skill_has_no_doubt():
    """And the segments without any have a reason each."""
    found = train(CHURN, training_set(CHURN, *made())).evaluation
    assert found.skill
    assert found.doubt is None
    few = made(entities=120, months=20, rate=-3.5)
    found = train(CHURN, training_set(CHURN, *few)).evaluation
    without = ~found.segments["skill"].astype(bool)
    assert without.any()
    assert (found.segments.loc[without, "reason"] != "").all()
    assert (found.segments.loc[~without, "reason"] == "").all()


def test_a_segment_that_training_never_saw_has_a_reason_too():
    """A plan that began in the test period: there is nothing to learn it from."""
    features, labels = lived()
    late = features["cutoff"] >= features["cutoff"].max() - pd.Timedelta(days=100)
    new = late & (features["entity_id"] < "0200")
    found = train(CHURN, training_set(CHURN, features.assign(plan=features["plan"].mask(new, "new")), labels))
    row = found.evaluation.segments.set_index("segment").loc["new"]
    assert row["rows"] > 100
    assert bool(row["skill"]) == (row["reason"] == "")


def test_no_skill_is_said_with_its_reason_and_what_to_do():
    """In the verdict and in the figures of a run."""
    found = train(CHURN, training_set(CHURN, *lived(**FAULTS["no signal"]))).evaluation
    assert "The likeliest reason is no signal: an AUC of 0." in found.says()
    assert "features of your own" in found.says()
    assert found.summary()["reason"] == "no signal"


def test_what_could_be_proven_is_proven_in_four_of_five_books():
    """Normal scores whose AUC is the least detectable one: Hanley and McNeil's error is about that of the draws."""
    rng = np.random.default_rng(1)
    for yes, no in ((20, 400), (60, 200)):
        auc = detectable(yes, no)
        apart = np.sqrt(2) * _quantile(auc)
        found = np.array([_auc(rng.normal(apart, 1, yes), rng.normal(0, 1, no)) for _ in range(2000)])
        assert found.std() == pytest.approx(hanley(auc, yes, no), rel=0.15)
        assert (found - SURE * found.std() > 0.5).mean() == pytest.approx(0.8, abs=0.1)
    assert detectable(200, 5000) < detectable(20, 500) < detectable(5, 500)
    assert detectable(0, 100) == 1.0


def _quantile(auc):
    return stats.norm.ppf(auc)


def _auc(yes, no):
    return float((yes[:, None] > no[None, :]).mean())


def test_labels_of_lives_do_not_contradict_each_other():
    """However strong or weak the signal: the bound of wrong positives stays at nothing; with a third turned over most
    of the positives are wrong, and about so many are found.
    """
    for seed in (1, 2):
        for strength in (0.0, 1.0):
            assert contradicted(training_set(CHURN, *lived(seed=seed, strength=strength))) < 0.1
        clean, noisy = (training_set(CHURN, *lived(seed=seed, fault=fault)) for fault in ("", "label noise"))
        wrong = ((noisy.y == 1) & (clean.y == 0)).sum() / noisy.y.sum()
        found = contradicted(noisy)
        assert found == pytest.approx(wrong, abs=0.12)


def test_windows_that_do_not_overlap_contradict_nothing():
    """Independent labels at cutoffs further apart than the horizon say nothing of each other; order is irrelevant."""
    rows = training_set(CHURN, *lived(every=120, months=8, fault="label noise"))
    assert np.isnan(contradicted(rows))
    rows = training_set(CHURN, *lived(fault="label noise", entities=200))
    order = np.random.default_rng(1).permutation(len(rows))
    shuffled = replace(rows, **{name: getattr(rows, name).iloc[order] for name in ("X", "y", "keys", "weights",
                                                                                   "groups")})
    assert contradicted(rows) == pytest.approx(contradicted(shuffled), abs=0.02)
