"""Training sets and how time cuts them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_rows import made

from churnkit.errors import ModelError
from churnkit.learning.splits import stop_cut, timeline
from churnkit.learning.targets import CHURN, EXPANSION
from churnkit.learning.training import train, training_set


def test_rows_without_a_label_are_dropped_and_counted(book):
    """The reasons and counts are kept and said."""
    features, labels = book
    gone = labels.assign(
        label=labels["label"].mask(labels.index < 5), why_none=np.where(labels.index < 5, "censored", "")
    )
    found = training_set(CHURN, features, gone)
    assert dict(found.dropped) == {"censored": 5}
    assert len(labels) - 5 == len(found)
    assert "without a label: 5 censored" in found.says()


def test_what_the_target_may_never_see_is_no_input(rows):
    """Notice given is left out, and so are the points' own columns."""
    assert {"notice_given", "account_id", "row_id", "label"}.isdisjoint(rows.X.columns)


def test_the_order_of_rows_is_irrelevant(book, rows):
    """Shuffled features and labels give the same training set."""
    features, labels = (frame.sample(frac=1, random_state=1) for frame in book)
    shuffled = training_set(CHURN, features, labels)
    pd.testing.assert_frame_equal(rows.X, shuffled.X)
    pd.testing.assert_series_equal(rows.y, shuffled.y)


@pytest.mark.parametrize(("change", "mend"), [
    (lambda f, y: (f, pd.concat([y, y.head(1)])), "more than once"),
    (lambda f, y: (f.iloc[5:], y), "Compute and store features for the same points"),
    (lambda f, y: (f, y.assign(target="expansion")), r"Call label\(CHURN"),
    (lambda f, y: (f, y.assign(label=pd.NA, why_none="censored")), "give older cutoffs"),
    (lambda f, y: (f.drop(columns="row_id"), y), "prediction_points"),
])
def test_frames_that_do_not_fit_name_the_mend(book, change, mend):
    """Repeated, missing, foreign or unlabelled rows."""
    with pytest.raises(ModelError, match=mend):
        training_set(CHURN, *change(*book))


def test_split_is_purged_by_lead_horizon_and_grace(rows):
    """No training label was still open when the test began."""
    early, late = rows.split("2025-03-01")
    assert (early.keys["cutoff"] + CHURN.window).max() <= pd.Timestamp("2025-03-01", tz="UTC")
    assert late.keys["cutoff"].min() >= pd.Timestamp("2025-03-01", tz="UTC")
    with pytest.raises(ModelError, match=r"no training rows.*Choose an `at`"):
        rows.split("2024-01-15")


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(1, 60), st.floats(0.1, 0.6))
def test_the_timeline_keeps_both_gaps(months, window, share):
    """Whatever the history, fit, stop and test are apart by the whole window, or it is said to be too short."""
    features, labels = made(entities=2, months=months)
    target = replace(
        CHURN, lead=CHURN.lead * 0, grace=CHURN.grace * 0, horizon=pd.Timedelta(days=window * 3).to_pytimedelta()
    )
    some = training_set(target, features, labels)
    try:
        cut = timeline(some, share)
    except ModelError as error:
        assert "Give a longer history" in str(error)  # noqa: PT017  either outcome is right
        return
    pool, test = some.split(cut.test_at)
    assert len(pool)
    assert len(test)
    if cut.stop_at is not None:
        assert len(pool.closed(cut.stop_at))
        assert len(pool.since(cut.stop_at))
    inner = stop_cut(pool)
    if inner is not None:
        assert len(pool.closed(inner))
        assert len(pool.since(inner))


def test_the_test_period_touches_nothing_of_the_holdout(book, rows, trained):
    """Other features and labels in the test period leave the holdout model as it was, to the last tree."""
    features, labels = book
    late = labels["cutoff"] >= trained.splits.test_at
    other = training_set(CHURN, features.assign(events_28d=features["events_28d"].where(~late, 0.0)),
                         labels.assign(label=labels["label"].where(~late, 1 - labels["label"])))
    again = train(CHURN, other)
    assert trained.holdout.to_parts() == again.holdout.to_parts()
    assert trained.evaluation.auc_lower != again.evaluation.auc_lower


def test_the_logged_cuts_are_those_of_the_fit():
    """Where fit and stop were parted stands in the splits as the holdout's fit parted them."""
    found = train(CHURN, training_set(CHURN, *made(entities=60, months=15)))
    assert stop_cut(found.data.closed(found.splits.test_at)) == found.splits.stop_at


def test_one_outcome_alone_cannot_be_learned(book):
    """It is an error that says how to get both."""
    features, labels = book
    with pytest.raises(ModelError, match="no positives among 6000 labelled rows"):
        train(CHURN, training_set(CHURN, features, labels.assign(label=labels["label"] * 0)))


def test_a_training_set_of_another_target_is_refused(rows):
    with pytest.raises(ModelError, match="Make it anew"):
        train(EXPANSION, rows)
