"""Faithful and stable: masking what is named moves the score home, noise does not turn it over, and nonsense shows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from churnkit.errors import ModelError
from churnkit.learning import faithful
from churnkit.learning.faithful import mask, rates
from churnkit.learning.model import Model


@pytest.fixture(scope="module")
def frame(book):
    """The features of the last cutoff."""
    return book[0].tail(300).reset_index(drop=True)


@pytest.fixture(scope="module")
def found(trained, frame):
    return rates(trained.model, frame)


def test_masking_the_named_reasons_moves_the_score_towards_the_base_rate(found):
    """And more than masking as many random ones."""
    assert found.towards >= 0.97
    assert found.more_than_random >= 0.95
    assert found.nearer >= 0.9
    assert found.moved > 3 * abs(found.moved_by_random)


def test_small_noise_does_not_turn_the_first_reason_over(found):
    assert found.stable >= 0.9
    assert "stays the first" in found.says()
    assert found.rows == found.to_dict()["rows"] > 100


def test_random_reasons_would_not_pass(trained, frame, monkeypatch):
    """The rates can fail: reasons drawn by lot move the score no further than chance does."""
    real, dice = trained.model.explain, np.random.default_rng(1)

    def lots(rows, **how):
        why = real(rows, **how)
        return why.assign(feature=dice.choice(trained.model.features, len(why)))

    monkeypatch.setattr(trained.model, "explain", lots)
    bad = rates(trained.model, frame)
    assert bad.more_than_random < 0.7
    assert bad.towards < 0.9
    assert bad.moved < 0.5 * rates_of(trained, frame).moved


def rates_of(trained, frame):
    """Before anybody meddles with it."""
    return rates(Model.from_parts(trained.model.to_parts()), frame)


def test_noise_as_large_as_the_signal_turns_reasons_over(trained, frame):
    assert rates(trained.model, frame, noise=2.0).stable < 0.7


def test_rates_are_the_same_for_a_seed(trained, frame, found):
    assert found == rates(trained.model, frame)


def test_a_mask_leaves_the_rest_alone(frame):
    """Only the masked cells differ, and the frame that came in is as it was."""
    before = frame.copy()
    hidden = np.zeros((len(frame), 2), dtype=bool)
    hidden[:10, 0] = hidden[5:20, 1] = True
    done = mask(frame, ("mrr", "plan"), hidden)
    assert done["mrr"].head(10).eq(frame["mrr"].median()).all()
    pd.testing.assert_frame_equal(done[20:], frame[20:])
    pd.testing.assert_frame_equal(done.drop(columns=["mrr", "plan"]), frame.drop(columns=["mrr", "plan"]))
    pd.testing.assert_frame_equal(before, frame)


def test_rows_at_the_base_rate_have_nothing_to_explain(trained, frame, monkeypatch):
    monkeypatch.setattr(faithful, "FAR", 1e9)
    with pytest.raises(ModelError, match="nothing to explain"):
        rates(trained.model, frame)
