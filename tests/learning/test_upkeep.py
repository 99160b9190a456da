"""Which component, and how many days: judged on their own, adding up to the curve, kept as text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from test_estimators import START, lived

from churnkit.errors import ModelError
from churnkit.learning.durations import DAY
from churnkit.learning.hazard import Hazard
from churnkit.learning.kinds import Kinds
from churnkit.learning.upkeep import components as by_component
from churnkit.learning.upkeep import lives, train_components, train_life
from churnkit.schemas import COMPONENTS, LIVES

TEST_AT = START + 28 * 12 * DAY


@pytest.fixture(scope="module")
def book():
    return lived(entities=300)


@pytest.fixture(scope="module")
def components(book):
    x, spans, _ = book
    return train_components(spans, x, test_at=TEST_AT)


def test_components_learn_what_drives_them(book, components):
    """A solo plan's failures are fans in four of five; the shares say so, out of time."""
    x, spans, _ = book
    late = (spans.keys["cutoff"] >= pd.Timestamp(TEST_AT)).to_numpy()
    shares = pd.DataFrame(components.holdout.shares(x[late]), columns=components.holdout.words)
    means = shares["fan"].groupby(x["plan"][late].to_numpy()).mean()
    assert means["solo"] == pytest.approx(0.8, abs=0.07)
    assert means["team"] == pytest.approx(0.3, abs=0.07)
    assert components.skill
    assert components.error < components.usual
    assert components.says().startswith("churn components: skill proven")


def test_components_add_up_to_the_curve(book, components):
    """Row by row and horizon by horizon."""
    x, spans, _ = book
    frame = pd.concat([spans.keys, x], axis=1).head(20)
    curves = Hazard("churn", (30, 60, 90, 180)).fit(x, spans, rounds=10).predict(frame)
    found = by_component(components.estimator, frame, curves)
    assert list(COMPONENTS) == list(found.columns)
    assert len(curves) * 2 == len(found)
    total = found.groupby(["entity_id", "horizon_days"], sort=False)["probability"].sum()
    np.testing.assert_allclose(curves["probability"], total)
    assert {"fan", "pump"} == set(found["component"])


def test_seldom_and_unnamed_components_are_one(book):
    """They are still counted, as failures that name none."""
    x, spans, _ = book
    x, kinds = x[spans.event], spans.kind[spans.event]
    kinds[:5] = "belt"
    kinds[5:40] = None
    found = Kinds("maintenance", "components").fit(x, kinds, rounds=10)
    assert ("fan", "pump", "failure") == found.words
    assert 40 / len(kinds) == pytest.approx(found.usual[2])
    np.testing.assert_allclose(1, found.shares(x).sum(axis=1))
    with pytest.raises(ModelError, match=r"fewer than two components came 10 times or more \(none\).*as `code`"):
        Kinds("maintenance", "components").fit(x, np.full(len(x), "failure", dtype=object))


def test_inputs_that_tell_nothing_have_no_skill(book):
    """Neither of components nor of lives, and both say so."""
    x, spans, _ = book
    for fit in (train_components, train_life):
        found = fit(spans, x[["noise"]], test_at=TEST_AT)
        assert not found.skill
        assert "no skill" in found.says()
        assert found.error == pytest.approx(found.usual, rel=0.05)


def test_lives_are_judged_in_days(book):
    """The error is the root of the mean square on rows that can be followed to the cap, below that of the mean."""
    x, spans, _ = book
    found = train_life(spans, x, test_at=TEST_AT)
    late = (spans.keys["cutoff"] >= pd.Timestamp(TEST_AT)).to_numpy()
    error = np.minimum(spans.days[late], 180) - found.holdout.predict(x[late])
    assert np.sqrt((error**2).mean()) == pytest.approx(found.error)
    assert found.skill
    assert found.error < found.usual - 1
    assert {"skill": "proven", "error": round(found.error, 5), "usual": round(found.usual, 5),
            "test_rows": int(late.sum())} == found.summary()
    shown = lives(found.estimator, pd.concat([spans.keys, x], axis=1).head(5))
    assert list(LIVES) == list(shown.columns)
    assert shown["life_days"].between(0, 180).all()


def test_the_test_period_touches_nothing_of_either_holdout(book, components):
    """Another fate of what was not known at the cut leaves both as they were."""
    x, spans, _ = book
    hidden = np.isnan(spans.until(TEST_AT).labels)
    other = replace(spans, labels=np.where(hidden, 1.0, spans.labels), kinds=np.where(hidden, "pump", spans.kinds))
    assert components.holdout.to_parts() == train_components(other, x, test_at=TEST_AT).holdout.to_parts()
    one, two = (train_life(some, x, test_at=TEST_AT).holdout.to_parts() for some in (spans, other))
    assert one == two


def test_components_are_kept_as_text(book, components):
    x, _, _ = book
    parts = components.estimator.to_parts()
    again = Kinds.from_parts(parts, "components")
    assert parts == again.to_parts()
    assert components.estimator.shares(x).tolist() == again.shares(x).tolist()
    with pytest.raises(ModelError, match="not of one components"):
        Kinds.from_parts({**parts, "components.json": parts["components.json"].replace("speed", "pace")}, "components")
    with pytest.raises(ModelError, match="not fitted"):
        Kinds("maintenance", "components").shares(x)


def test_no_test_rows_are_an_error_with_the_mend(book):
    x, spans, _ = book
    with pytest.raises(ModelError, match=r"can be followed to 180 days. Give data that reach further"):
        train_life(spans.until(TEST_AT + 60 * DAY), x, test_at=TEST_AT)
