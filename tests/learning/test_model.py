"""The model: what it finds, that it is the same every time, what it refuses, and its reasons."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from churnkit.errors import ModelError
from churnkit.learning.model import Model, data_hash
from churnkit.learning.targets import CHURN
from churnkit.learning.training import training_set
from churnkit.schemas import REASONS, SCORES


@pytest.fixture(scope="module")
def frame(book):
    """The features of the last cutoff."""
    return book[0].tail(300).reset_index(drop=True)


def test_scores_keep_the_frames_rows_and_order(trained, frame):
    scores = trained.model.predict(frame)
    assert list(SCORES) == list(scores.columns)
    assert frame["entity_id"].tolist() == scores["entity_id"].tolist()
    assert scores["probability"].between(0, 1, inclusive="neither").all()
    assert scores["percentile"].max() == pytest.approx(100)


def test_bands_follow_the_probability(trained, frame):
    """No lower band has a higher probability than a higher band."""
    scores = trained.model.predict(frame).groupby("band")["probability"].agg(["min", "max"])
    assert {"low", "medium", "high"} == set(scores.index)
    assert (
        scores.loc["low", "max"]
        <= scores.loc["medium", "min"]
        <= scores.loc["medium", "max"]
        <= scores.loc["high", "min"]
    )


def test_the_same_rows_in_any_order_give_the_same_model(book, trained):
    """Bit for bit, both texts."""
    shuffled = training_set(CHURN, *(one.sample(frac=1, random_state=2) for one in book))
    model = trained.model
    again = Model(CHURN, calibration=model.kind, share=model.blend.share).fit(shuffled, rounds=model.rounds)
    assert trained.model.to_parts() == again.to_parts()


def test_text_and_json_hold_the_whole_model(trained, frame):
    again = Model.from_parts(trained.model.to_parts())
    assert trained.model.predict(frame).equals(again.predict(frame))
    assert trained.model.baseline.predict(frame).tolist() == again.baseline.predict(frame).tolist()
    assert trained.model.explain(frame).equals(again.explain(frame))


@pytest.mark.parametrize(
    ("change", "mend"),
    [
        (lambda parts: {**parts, "model.json": "{"}, "Train it again"),
        (lambda parts: {"model.json": parts["model.json"]}, "Train it again"),
        (
            lambda parts: {**parts, "model.json": parts["model.json"].replace('"format": 2', '"format": 9')},
            "Upgrade churnkit",
        ),
        (lambda parts: {**parts, "model.json": parts["model.json"].replace('"mrr"', '"arr"')}, "not of one model"),
    ],
)
def test_broken_parts_are_refused(trained, change, mend):
    with pytest.raises(ModelError, match=mend):
        Model.from_parts(change(trained.model.to_parts()))


def test_a_missing_feature_is_named_with_its_nearest(trained, frame):
    with pytest.raises(ModelError, match=r"CHURN needs column 'tickets_open'\. Did you mean 'tickets_opened'\?"):
        trained.model.predict(frame.rename(columns={"tickets_open": "tickets_opened"}))


def test_an_unknown_word_counts_as_missing(trained, frame):
    strange, blank = frame.assign(plan="never seen"), frame.assign(plan=None)
    assert trained.model.raw(strange).tolist() == trained.model.raw(blank).tolist()


def test_an_unfitted_model_says_so(frame):
    with pytest.raises(ModelError, match=r"Call fit\(train\) first"):
        Model(CHURN).predict(frame)


def test_no_rows_give_no_scores(trained, frame):
    assert len(trained.model.predict(frame.head(0))) == 0
    assert list(REASONS) == list(trained.model.explain(frame.head(0)).columns)


def test_contributions_add_up_to_the_raw_score(trained, frame):
    given, base = trained.model.contributions(frame)
    np.testing.assert_allclose(given.sum(axis=1) + base, trained.model.raw(frame), atol=1e-9)


def test_contributions_are_those_of_the_shap_package(frame):
    """An independent path: shap's own algorithm on the booster's trees, which knows no categorical splits."""
    model = Model(CHURN, share=1.0).fit(training_set(CHURN, frame.drop(columns="plan"), labels_of(frame)))
    given, _ = model.contributions(frame)
    with warnings.catch_warnings():  # shap calls what matplotlib is about to deprecate
        warnings.simplefilter("ignore")
        import shap

        explainer = shap.TreeExplainer(model.booster_)
        explainer.model.model_type = "internal"  # else it asks LightGBM, as we do
        found = explainer.shap_values(model._matrix(frame), check_additivity=False)
    np.testing.assert_allclose(given, found, atol=1e-6)
    assert np.abs(found).max() > 0.1


def labels_of(frame):
    rng = np.random.default_rng(1)
    y = (rng.random(len(frame)) < 1 / (1 + np.exp(-(frame["tickets_open"] - 1)))).astype(int)
    return pd.DataFrame(
        {
            "row_id": frame["row_id"],
            "entity_id": frame["entity_id"],
            "account_id": frame["account_id"],
            "cutoff": frame["cutoff"],
            "target": "churn",
            "label": pd.array(y, dtype="Int64"),
            "why_none": "",
            "kind": None,
            "value": np.nan,
            "after_days": np.nan,
            "treated": False,
            "propensity": 0.0,
        }
    )


def test_reasons_are_few_ranked_and_of_different_families(trained, frame):
    """Up to three, raising before lowering, and never one signal twice."""
    why = trained.model.explain(frame, top=3)
    assert list(REASONS) == list(why.columns)
    assert why.groupby("entity_id").size().max() <= 3
    assert why.groupby("entity_id")["rank"].apply(lambda one: one.tolist() == list(range(1, len(one) + 1))).all()
    assert why.groupby("entity_id")["direction"].apply(lambda one: one.tolist() == sorted(one, reverse=True)).all()
    events = why[why["feature"].str.startswith("events_")].groupby("entity_id").size()
    assert events.max() == 1
    assert ((why["contribution"] > 0) == (why["direction"] == "raises")).all()
    assert ((why["points"] > 0) == (why["contribution"] > 0)).all()


def test_both_directions_are_told_where_both_exist(rows, frame):
    """Whoever has something that raises and something that lowers the risk, of different signals, is told of both."""
    model = Model(CHURN, share=1.0).fit(rows, rounds=40)
    kinds = model.explain(frame, top=3).groupby("entity_id")["direction"].nunique().to_numpy()
    clear = [model.features.index(name) for name in ("tickets_open", "events_28d", "mrr", "plan")]
    given = model.contributions(frame)[0][:, clear]
    both = (given.max(axis=1) > 0.3) & (given.min(axis=1) < -0.3)
    assert both.sum() > 20
    assert (kinds[both] == 2).all()


def test_reasons_are_in_words_with_what_they_are_compared_with(trained, frame):
    why = trained.model.explain(frame, top=6)
    one = why[why["feature"] == "events_28d"].iloc[0]
    assert f"{float(one['value']):.0f} actions in the last 28 days, {float(one['compared_with']):.0f}" in one["phrase"]


def test_the_data_hash_changes_with_a_value_and_not_with_order(frame):
    assert data_hash(frame) == data_hash(frame.sample(frac=1, random_state=1)[frame.columns[::-1]])
    assert data_hash(frame) != data_hash(frame.assign(mrr=frame["mrr"] + 1e-9))
