"""Rows of treated accounts: who was treated is estimated rightly, and training sees the risk without outreach."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_rows import made
from sklearn.metrics import roc_auc_score

from churnkit.learning.targets import CHURN
from churnkit.learning.training import train, training_set
from churnkit.learning.treated import propensity, taken

CONTROL, SAVED = 0.2, 0.6


def called(seed, entities=300, months=20, share=0.3):
    """A book in which the riskiest by a noisy score are called, but for the control group, from its second quarter on,
    and a call saves six of ten who would have left: labels as seen, with the risk and the outcome if nobody is called.
    """
    features, labels = made(entities=entities, months=months, seed=seed)
    rng = np.random.default_rng(seed + 1000)
    raw = (-2.2 + 1.2 * (0.9 * (features["tickets_open"] - 1) - 0.15 * (features["events_28d"] - 20) +
                         0.4 * (features["plan"] == "solo"))).to_numpy()
    risk = 1 / (1 + np.exp(-raw))
    leaves = rng.random(len(risk)) < risk
    score = raw + rng.normal(0, 0.5, len(risk))
    begun = (features["cutoff"] >= features["cutoff"].unique()[months // 4]).to_numpy()
    control = (rng.random(entities) < CONTROL)[features["entity_id"].astype(int)]
    got = (score > np.quantile(score, 1 - share)) & begun & ~control
    left = leaves & ~(got & (rng.random(len(risk)) < SAVED))
    return features, labels.assign(label=pd.array(left.astype(int), dtype="Int64"), treated=got), risk, leaves


def of_book(seed):
    """The training set of such a book, with the risk and the outcome without outreach in its order."""
    features, labels, risk, leaves = called(seed)
    rows = training_set(CHURN, features, labels)
    place = pd.Series(range(len(features)), features["row_id"])[rows.keys["row_id"]].to_numpy()
    return rows, risk[place], leaves[place]


def test_nobody_treated_changes_nothing():
    """Whatever is asked for."""
    rows = training_set(CHURN, *made(entities=30))
    for how in ("weigh", "drop", "keep"):
        assert taken(rows, how).rows is rows
        assert taken(rows, how).says == ""


def test_weights_are_those_of_the_propensity_and_bounded_by_the_control_group():
    """Between 1 and 1 / control; 1 before any outreach; together they stand for all rows."""
    rows, _, _ = of_book(1)
    found = taken(rows, control=CONTROL)
    weights = found.rows.weights
    assert not found.rows.keys["treated"].any()
    assert weights.between(1, 1 / CONTROL + 1e-9).all()
    assert (weights[found.rows.keys["cutoff"] < rows.cutoffs[5]] == 1).all()
    assert weights.sum() == pytest.approx(len(rows), rel=0.05)
    assert f"{int(rows.keys['treated'].sum())} of {len(rows)} rows were treated; the untreated count for them, 1.0 to" \
        in found.says
    assert taken(rows, control=0.0).rows.weights.max() < 20.1  # without a control group there is a bound still
    dropped, kept = taken(rows, "drop").rows, taken(rows, "keep").rows
    assert len(dropped) == len(found.rows)
    assert (dropped.weights == 1).all()
    assert kept is rows


def test_the_propensity_finds_who_is_called():
    """It tells the treated apart as the policy does, is right on the mean of each tenth, and knows no order of rows."""
    rows, _, _ = of_book(2)
    p, treated = propensity(rows, CONTROL), rows.keys["treated"].to_numpy(dtype=float)
    assert roc_auc_score(treated, p) > 0.9
    tenths = pd.DataFrame({"p": p, "treated": treated}).groupby((pd.Series(p).rank(method="first") - 1) // 600).mean()
    assert (tenths["p"] - tenths["treated"]).abs().max() < 0.15
    order = np.random.default_rng(1).permutation(len(rows))
    shuffled = replace(rows, **{name: getattr(rows, name).iloc[order] for name in ("X", "y", "keys", "weights",
                                                                                   "groups")})
    np.testing.assert_allclose(propensity(shuffled, CONTROL), p[order], atol=1e-6)


def test_weighing_shows_the_risk_without_outreach():
    """Over three books: the level and the AUC of the evaluation come near to those of a world without calls; leaving
    the treated out misses both, and keeping them makes the model itself too calm about the riskiest.
    """
    off = {how: {"level": [], "auc": [], "riskiest": []} for how in ("weigh", "drop", "keep")}
    for seed in range(3):
        rows, risk, leaves = of_book(seed)
        fresh, _, true, _ = called(seed + 500)
        top = true > np.quantile(true, 0.9)
        for how, found in off.items():
            trained = train(CHURN, taken(rows, how, control=CONTROL).rows)
            late = (rows.keys["cutoff"] >= trained.splits.test_at).to_numpy()
            auc = roc_auc_score(leaves[late], trained.holdout.probability(rows.X[late]))
            found["level"].append(trained.model.base_rate - risk.mean())
            found["auc"].append(trained.evaluation.figure("auc") - auc)
            found["riskiest"].append(trained.model.probability(fresh)[top].mean() - true[top].mean())
    mean = {how: {what: float(np.mean(one)) for what, one in found.items()} for how, found in off.items()}
    assert abs(mean["weigh"]["level"]) < 0.015
    assert max(mean["drop"]["level"], mean["keep"]["level"]) < -0.03
    assert abs(mean["weigh"]["auc"]) < 0.02
    assert max(mean["drop"]["auc"], mean["keep"]["auc"]) < -0.03
    assert abs(mean["weigh"]["riskiest"]) < 0.1
    assert mean["keep"]["riskiest"] < -0.25
