"""The level of a day's scores: flagged where it surely moved, and not corrected, because that can do harm."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made_rows import made

from churnkit.learning.level import missed, moved
from churnkit.learning.model import Model
from churnkit.learning.targets import CHURN


@pytest.fixture(scope="module")
def model(rows):
    """A model of the book, fitted on what had closed before its last months."""
    return Model(CHURN).fit(rows.closed("2025-04-01"))


def corrected(p, base):
    """The probabilities at the share of positives that expectation and maximisation find, as Saerens et al. (2002)."""
    share = base
    for _ in range(500):
        yes, no = p * share / base, (1 - p) * (1 - share) / (1 - base)
        share = float((yes / (yes + no)).mean())
    return yes / (yes + no)


def loss(y, p):
    return float(-(y * np.log(p) + (1 - y) * np.log1p(-p)).mean())


def worlds(model, seed):
    """Outcomes and probabilities of worlds that differ from the one learnt from in one way each."""
    rng = np.random.default_rng(seed)
    features, labels = made(seed=seed + 50)
    y, p = labels["label"].to_numpy(dtype=float), model.probability(features)
    more = rng.choice(len(y), len(y), p=np.where(y == 1, 3.0, 1.0) / np.where(y == 1, 3.0, 1.0).sum())
    busy = features.assign(events_28d=(features["events_28d"] - 4).clip(lower=0))
    raw = -2.2 + 1.2 * (0.9 * (busy["tickets_open"] - 1) - 0.15 * (busy["events_28d"] - 20) +
                        0.4 * (busy["plan"] == "solo"))
    left = (rng.random(len(y)) < 1 / (1 + np.exp(-raw))).to_numpy(dtype=float)
    return {"nothing": (y, p), "more positives": (y[more], p[more]), "other customers": (left, model.probability(busy))}


def test_correcting_by_scores_alone_does_harm(model):
    """It helps where positives became more frequent and nothing else changed, and harms where the customers did."""
    for seed in (1, 2, 3):
        gain = {name: loss(y, p) - loss(y, corrected(p, model.base_rate))
                for name, (y, p) in worlds(model, seed).items()}
        assert gain["more positives"] > 0.02
        assert gain["other customers"] < -0.02
        assert gain["nothing"] < 0


def test_a_moved_level_is_flagged(model):
    """Customers like those of before are no news; with the use of all of them down the mean is told."""
    for seed in (1, 2, 3):
        features = made(seed=seed + 50)[0]
        assert moved(model, model.probability(features)) == ""
    gone = features.assign(events_28d=(features["events_28d"] - 10).clip(lower=0))
    said = moved(model, model.probability(gone))
    assert "the mean probability of the day is" in said
    assert f"{model.shares[0]:.2%} to {model.shares[1]:.2%} were positive" in said
    assert "train again" in said
    assert moved(model, np.full(20, 0.9)) == ""  # too few to tell


def test_the_shares_last_as_long_as_the_model(model):
    """A stored model knows them."""
    assert model.shares == Model.from_parts(model.to_parts()).shares
    assert model.shares[0] < model.base_rate < model.shares[1]


def day(n, seed, times=1.0, treated=0.0):
    """Scores of one day, and what came of them: outcomes `times` as likely as foretold, none where treated."""
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-rng.normal(-3, 0.7, n)))
    scores = pd.DataFrame({"entity_id": [f"{k}" for k in range(n)], "probability": p, "target": "churn",
                           "model_version": "churn-1", "cutoff": pd.Timestamp("2026-05-01", tz="UTC")})
    got = p > np.quantile(p, 1 - treated) if treated else np.zeros(n, dtype=bool)
    y = (rng.random(n) < np.clip(times * p, 0, 1)) & ~got
    labels = pd.DataFrame({"entity_id": scores["entity_id"], "label": pd.array(y.astype(int), dtype="Int64"),
                           "treated": got}).sample(frac=1, random_state=seed)
    return scores, labels


def test_scores_that_did_not_come_true_are_told():
    """Twice as many as foretold are, in each of ten books; as many as foretold are not, in two hundred."""
    said = [missed(*day(2000, seed, times=2)) for seed in range(10)]
    assert all("foretold to be positive and" in one and "Train again: churnkit train" in one for one in said)
    assert sum(missed(*day(2000, seed)) != "" for seed in range(200)) <= 2
    assert missed(*day(50, 1, times=3)) == ""  # a handful proves nothing


def test_outreach_that_helped_is_no_fault_of_the_scores():
    """The riskiest tenth were called and stayed: what was foretold of the others came true."""
    assert [missed(*day(2000, seed, treated=0.1)) for seed in range(20)].count("") >= 19


def test_a_row_without_a_label_counts_on_neither_side():
    scores, labels = day(2000, 3)
    blank = labels.assign(label=labels["label"].mask(np.arange(len(labels)) % 2 == 0))
    assert missed(scores, blank) == ""


def test_a_model_before_its_fit_says_nothing():
    assert moved(Model(CHURN), np.full(500, 0.5)) == ""
