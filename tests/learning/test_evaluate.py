"""Metrics against scikit-learn, resamples against a naive loop, and the skill gate."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made_rows import made
from sklearn import metrics

from churnkit.learning import training
from churnkit.learning.evaluate import compare, evaluate
from churnkit.learning.resample import METRICS, draws, resampled
from churnkit.learning.targets import CHURN


def scored(n=600, entities=60, strength=1.0, seed=1, ties=False):
    rng = np.random.default_rng(seed)
    raw = rng.normal(-1, 1, n)
    p = 1 / (1 + np.exp(-strength * raw))
    p = np.round(p, 1).clip(0.05, 0.95) if ties else p
    y = (rng.random(n) < 1 / (1 + np.exp(-raw))).astype(float)
    return y, p, rng.integers(0, entities, n)


@pytest.mark.parametrize("ties", [False, True])
def test_metrics_are_those_of_scikit_learn(ties):
    """Equal scores included."""
    y, p, codes = scored(ties=ties)
    found = dict(zip(METRICS, resampled(y, p, codes, draws(60, 1, 1))[0], strict=True))
    assert metrics.roc_auc_score(y, p) == pytest.approx(found["auc"])
    assert metrics.average_precision_score(y, p) == pytest.approx(found["average_precision"])
    assert metrics.log_loss(y, p) == pytest.approx(found["log_loss"])
    assert metrics.brier_score_loss(y, p) == pytest.approx(found["brier"])


def test_a_resample_is_the_rows_repeated():
    """The weights give what repeating each entity's rows as often as it was drawn gives."""
    y, p, codes = scored(ties=True)
    weights = draws(60, 5, seed=3)
    _, spread = resampled(y, p, codes, weights)
    for drawn, found in zip(weights, spread, strict=True):
        rows = np.repeat(np.arange(len(y)), drawn[codes].astype(int))
        assert metrics.roc_auc_score(y[rows], p[rows]) == pytest.approx(found[METRICS.index("auc")])
        assert metrics.average_precision_score(y[rows], p[rows]) == pytest.approx(
            found[METRICS.index("average_precision")]
        )
        assert metrics.brier_score_loss(y[rows], p[rows]) == pytest.approx(found[METRICS.index("brier")])


def test_lift_counts_the_positives_caught():
    """One of the two positives is among the top tenth of twenty."""
    y, p = np.zeros(20), np.linspace(0.9, 0.1, 20)
    y[[0, 9]] = 1
    found = dict(zip(METRICS, resampled(y, p, np.arange(20), draws(20, 1, 1))[0], strict=True))
    assert pytest.approx((found["lift_5"], found["lift_10"], found["lift_20"])) == (10.0, 5.0, 2.5)


def test_equal_scores_are_worth_chance():
    y, _, codes = scored()
    found = dict(zip(METRICS, resampled(y, np.full(len(y), 0.3), codes, draws(60, 1, 1))[0], strict=True))
    assert pytest.approx((found["auc"], found["lift_5"], found["lift_20"])) == (0.5, 1.0, 1.0)


def gate(y, p, codes):
    return compare("churn", y, {"model": p, "baseline": p, "base_rate": np.full(len(y), y.mean())}, codes)


def test_skill_needs_ranking_and_level():
    """A good ranking at a wrong level, noise at the right level, and too few positives prove nothing."""
    y, p, codes = scored(n=3000, entities=500)
    assert gate(y, p, codes).skill
    assert not gate(y, p ** 4, codes).skill  # same order, far too low
    rng = np.random.default_rng(4)
    assert not gate(y, np.clip(y.mean() + rng.normal(0, 0.01, len(y)), 0.01, 0.99), codes).skill
    few = np.zeros(3000)
    few[np.argsort(-p)[:9]] = 1
    assert "too few positives in the test period (9, at least 10 are needed)" in gate(few, p, codes).why


def test_repeated_entities_widen_the_interval():
    """The same rows prove less where they come from few entities."""
    y, p, _ = scored(n=60, entities=60)
    once, often = np.arange(60), np.tile(np.arange(60), 20)
    narrow = gate(np.tile(y, 20), np.tile(p, 20), np.arange(1200))
    wide, alone = gate(np.tile(y, 20), np.tile(p, 20), often), gate(y, p, once)
    assert wide.auc_lower == pytest.approx(alone.auc_lower, abs=0.02)
    assert narrow.auc_lower > wide.auc_lower + 0.05


def test_the_evaluation_shows_itself(trained):
    """A table with intervals round the figures, a sentence, and three plots."""
    found = trained.evaluation
    inside = found.table[
        ["auc" not in name for name in METRICS]
    ]  # the error of calibration is biased upward in resamples
    assert (inside["model_low"].drop("calibration_error") <= inside["model"].drop("calibration_error")).all()
    assert "skill proven" in found.says()
    assert found.says() in found._repr_html_()
    assert len(found.plot().axes) == 3
    assert {"skill", "auc", "baseline_auc"} <= set(found.summary())


def test_evaluation_is_the_same_every_time(trained, rows):
    test = rows.since(trained.splits.test_at)
    pd.testing.assert_frame_equal(trained.evaluation.table, evaluate(trained.holdout, test).table)


@pytest.mark.slow
def test_shuffled_labels_prove_no_skill():
    """Of 200 training runs on labels shuffled within cutoffs at most 5 pass; the true labels do pass."""
    features, labels = made(entities=200, months=18, strength=2.0)
    assert training.train(CHURN, training.training_set(CHURN, features, labels)).evaluation.skill
    passed = 0
    for seed in range(200):
        shuffled = labels.groupby("cutoff")["label"].transform(
            lambda one, s=seed: one.sample(frac=1, random_state=s).to_numpy()
        )
        passed += training.train(
            CHURN, training.training_set(CHURN, features, labels.assign(label=shuffled))
        ).evaluation.skill
    assert passed <= 5
