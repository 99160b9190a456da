"""The flat face: scikit-learn's own checks, tables as they come, probabilities that stay probabilities."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_predict
from sklearn.utils.estimator_checks import check_dataframe_column_names_consistency, parametrize_with_checks

from churnkit.learning import model as fitting
from churnkit.learning.model import FEWEST_ROUNDS, Model
from churnkit.learning.sklearn import ChurnClassifier

EXCEPTIONS: dict[str, str] = {}
"""Check -> why it cannot pass. None: without sample_weight no check asks for weights that act like repeated rows, and
the array API check skips itself, because nothing here claims to take arrays of other libraries."""


@parametrize_with_checks([ChurnClassifier()], expected_failed_checks=lambda _: EXCEPTIONS, xfail_strict=True)
def test_estimator_checks(estimator, check):
    """Every check of scikit-learn's, without an exception."""
    check(estimator)


def test_the_names_of_a_frames_columns_are_held_to():
    """scikit-learn's own check of it, which the list above leaves out."""
    check_dataframe_column_names_consistency("ChurnClassifier", ChurnClassifier())


def table(n=800, seed=5):
    """A user's table with everything that users have: categories, text, dates, booleans, blanks, numbers as text."""
    rng = np.random.default_rng(seed)
    tenure = rng.exponential(30, n).round()
    plan = rng.choice(["solo", "team", "enterprise"], n)
    frame = pd.DataFrame({
        "tenure": tenure, "plan": pd.Categorical(plan), "city": rng.choice(["Bonn", "Köln", None], n),
        "joined": pd.Timestamp("2026-01-01") - pd.to_timedelta(tenure, unit="D"),
        "charges": [f"{one:.2f}" if one > 20 else " " for one in rng.normal(60, 30, n)],
        "paperless": pd.array(rng.choice([True, False, None], n), dtype="boolean"), "rating": rng.integers(1, 6, n),
    }, index=pd.Index([f"c{place}" for place in range(n)]))
    frame.loc[rng.random(n) < 0.2, "rating"] = np.nan
    frame.loc[rng.random(n) < 0.1, "plan"] = np.nan
    raw = 1.0 - tenure / 20 + 1.0 * (plan == "solo")
    return frame, pd.Series(np.where(rng.random(n) < 1 / (1 + np.exp(-raw)), "left", "a customer"), frame.index)


@pytest.fixture(scope="module")
def fitted():
    x, y = table()
    return ChurnClassifier().fit(x, y), x, y


def test_a_users_table_is_taken_as_it_comes(fitted):
    """Numbers that a blank turned into text are numbers; words are words; unknown ones count as missing."""
    model, x, y = fitted
    assert {"plan", "city"} == set(model.model_.levels)
    assert ["a customer", "left"] == model.classes_.tolist()
    assert list(x) == model.feature_names_in_.tolist()
    assert (model.predict(x) == y).mean() > 0.75
    strange, blank = x.assign(plan="never seen"), x.assign(plan=None)
    assert model.predict_proba(strange).tolist() == model.predict_proba(blank).tolist()


def test_how_a_column_is_held_does_not_matter(fitted):
    """The same values as categories, as text, as strings or as objects give the same probabilities."""
    model, x, y = fitted
    told = model.predict_proba(x)[:, 1].tolist()
    other = x.astype({"plan": object, "city": "string", "rating": "Int64", "paperless": object})
    other["charges"] = pd.to_numeric(other["charges"], errors="coerce")
    assert told == model.predict_proba(other)[:, 1].tolist()
    assert told == ChurnClassifier().fit(other, y).predict_proba(x)[:, 1].tolist()


@pytest.mark.parametrize("calibration", ["platt", "isotonic"])
def test_probabilities_stay_probabilities_when_one_outcome_is_rare(calibration):
    """Nothing is rebalanced: at 3% the mean probability of new rows is 3% too, within what chance allows."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(6000, 4))
    y = rng.random(6000) < 1 / (1 + np.exp(4 - x[:, 0]))
    p = cross_val_predict(ChurnClassifier(calibration=calibration), x, y, cv=3, method="predict_proba")[:, 1]
    assert y.mean() == pytest.approx(p.mean(), abs=3 * np.sqrt((p * (1 - p)).sum()) / len(p))
    top = p >= np.quantile(p, 0.9)
    assert y[top].mean() == pytest.approx(p[top].mean(), rel=0.25)


def test_with_time_only_the_past_is_learnt_from(monkeypatch):
    """Rows that stop and calibrate are later than those learnt from, by the horizon too, whatever the rows' order."""
    x, y = table(600)
    days = np.arange(600) // 3
    seen = []
    grow = fitting.grow_in_step

    def spy(fits, *rest):
        seen.extend((rows["data"][:, place].max(), held["data"][:, place].min()) for _, rows, held in fits)
        return grow(fits, *rest)

    monkeypatch.setattr(fitting, "grow_in_step", spy)
    x = x.assign(day=days)
    place = list(x).index("day")
    shuffled = np.random.default_rng(1).permutation(600)
    model = ChurnClassifier(horizon="10d").fit(x.iloc[shuffled], y.iloc[shuffled], time=days[shuffled])
    assert 3 == len(seen)
    assert all(learnt + 10 <= held for learnt, held in seen)
    ordered = ChurnClassifier(horizon="10d").fit(x, y, time=pd.Timestamp("2026-01-01") + pd.to_timedelta(days, "D"))
    assert ordered.predict_proba(x).mean() == pytest.approx(model.predict_proba(x).mean(), abs=0.02)


def test_a_shift_in_time_does_not_blow_the_map_up():
    """What ranked the past wrongs the later rows, so that trees would stop at once: their map must not magnify that."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(3000, 3))
    late = np.arange(3000) > 1500
    y = rng.random(3000) < 1 / (1 + np.exp(3 - 2 * late - np.where(late, -0.2, 1) * x[:, 0]))
    model = ChurnClassifier().fit(x, y, time=np.arange(3000)).model_
    assert model.rounds >= FEWEST_ROUNDS
    assert 0 <= model.calibration.x[0] < 5


def test_reasons_carry_the_rows_index_value_and_direction(fitted):
    """What raises comes first, and a new customer's short tenure is told with its value."""
    model, x, _ = fitted
    new = x.sort_values("tenure").head(20)
    why = model.explain(new, top=3)
    assert set(new.index) == set(why.index)
    assert why.groupby(level=0).size().max() <= 3
    tenure = why[why["feature"] == "tenure"]
    assert ((tenure["direction"] == "raises") == (tenure["contribution"] > 0)).all()
    told = "tenure: " + new.loc[tenure.index, "tenure"].map(lambda one: f"{one:.6g}")
    assert told.tolist() == tenure["phrase"].tolist()
    assert tenure["value"].tolist() == new.loc[tenure.index, "tenure"].map(lambda one: f"{one:.6g}").tolist()
    assert model.explain(new.head(0)).empty


def test_columns_may_be_called_as_our_keys_are():
    """A table of one's own may well have an entity_id or a cutoff; reasons tell their values, not ours."""
    x, y = table(300)
    x = x.rename(columns={"tenure": "cutoff", "rating": "entity_id"})
    why = ChurnClassifier().fit(x, y).explain(x, top=2)
    mine = why[why["feature"] == "cutoff"]
    assert x.loc[mine.index, "cutoff"].map(lambda one: f"{one:.6g}").tolist() == mine["value"].tolist()


def test_the_model_inside_is_kept_as_text(fitted):
    model, *_ = fitted
    again = clone(model).fit(*fitted[1:])
    assert model.model_.to_parts() == again.model_.to_parts()
    model, copy = model.model_, Model.from_parts(model.model_.to_parts())
    assert model.features == copy.features


@pytest.mark.parametrize(("change", "mend"), [
    (lambda x, y: (x, y.where(y == "left", "left"), None), "Give rows of the other class"),
    (lambda x, y: (pd.concat([x, x[["plan"]]], axis=1), y, None), "Expected unique column names"),
    (lambda x, y: (x, y, [None] * len(y)), "time has 800 blanks"),
    (lambda x, y: (x, y.mask(x["tenure"] > 40, "other"), None), "Only binary classification is supported"),
])
def test_what_cannot_be_learnt_is_said(fitted, change, mend):
    x, y, time = change(*fitted[1:])
    with pytest.raises(ValueError, match=mend):
        ChurnClassifier().fit(x, y, time=time)
