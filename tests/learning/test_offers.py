"""How much and which kind: judged on their own, right on the whole, bounded, ranked by money, and kept as text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_rows import made
from sklearn.metrics import mean_tweedie_deviance

from churnkit.errors import ModelError
from churnkit.learning.gains import POWER, Gains, deviance, gained
from churnkit.learning.kinds import Kinds
from churnkit.learning.model import Model
from churnkit.learning.offers import offers, train_gains, train_kinds
from churnkit.learning.profit import contacted
from churnkit.learning.resample import draws
from churnkit.learning.splits import timeline
from churnkit.learning.survival import ratios
from churnkit.learning.targets import EXPANSION
from churnkit.learning.training import training_set
from churnkit.schemas import OFFER_KINDS, OFFERS

SHARES = {"solo": 1.2, "team": 0.4, "enterprise": 0.15}
"""What an expansion gains, as a share of MRR, by plan."""


def sold(share=SHARES, amount=0.0, seed=3, **how):
    """Labelled rows: each expansion gains a share of MRR by plan and an amount; add-ons are for the smallest plan."""
    frame, labels = made(target=EXPANSION, seed=seed, rate=-1.6, **how)
    dice, n = np.random.default_rng(seed), len(frame)
    mean = frame["plan"].map(share) * frame["mrr"] + amount
    solo = (frame["plan"] == "solo").to_numpy()
    kind = np.where(dice.random(n) < np.where(solo, 0.8, 0.2), "addon", np.where(dice.random(n) < 0.7, "seats", "plan"))
    yes = (labels["label"] == 1).to_numpy()
    labels["value"] = np.where(yes, mean * dice.gamma(4, 1 / 4, n), np.nan)
    labels["kind"] = np.where(yes, kind, None)
    return training_set(EXPANSION, frame, labels)


@pytest.fixture(scope="module")
def rows():
    return sold()


@pytest.fixture(scope="module")
def test_at(rows):
    return timeline(rows).test_at.to_pydatetime()


@pytest.fixture(scope="module")
def gains(rows, test_at):
    return train_gains(rows, test_at=test_at, prior=0.3)


@pytest.fixture(scope="module")
def kinds(rows, test_at):
    return train_kinds(rows, test_at=test_at)


def test_the_deviance_is_scikit_learns():
    y, told = np.array([0.0, 3.0, 250.0]), np.array([5.0, 4.0, 90.0])
    assert mean_tweedie_deviance(y, told, power=POWER) == pytest.approx(deviance(y, told).mean())


def test_gains_learn_what_drives_them(rows, gains, test_at):
    """On later expansions, by plan, within three tenths of the truth; much better than one share for all."""
    late = rows.since(test_at)
    told = pd.Series(gains.holdout.predict(late.X) / late.X["mrr"], late.X.index)
    for plan, share in SHARES.items():
        assert told[late.X["plan"] == plan].mean() == pytest.approx(share, rel=0.3)
    assert (True, True) == (gains.skill, gains.error < gains.usual * 0.7)
    assert gains.estimator.by_share
    assert gains.says().startswith("expansion gains: skill proven: on ")
    assert gains.says().endswith(f"({gains.more['foreseen_low']:.2f} to {gains.more['foreseen_high']:.2f}).")


@pytest.mark.parametrize("seed", range(3, 7))
def test_gains_are_right_on_the_whole(seed):
    """The sum foreseen of the test period is that gained, within its interval, and on the learnt rows to the cent."""
    rows = sold(seed=seed)
    found = train_gains(rows, test_at=timeline(rows).test_at.to_pydatetime(), prior=0.3)
    assert found.more["foreseen_low"] <= 1 <= found.more["foreseen_high"]
    assert found.more["foreseen_high"] - found.more["foreseen_low"] < 0.5
    learnt = rows.take(gained(rows))
    assert learnt.keys["value"].sum() == pytest.approx(found.estimator.predict(learnt.X).sum())


def test_where_a_gain_has_a_price_of_its_own_the_mrr_is_no_start():
    """An add-on of 100 for whoever buys it: told as an amount, with skill over a share of MRR."""
    rows = sold(dict.fromkeys(SHARES, 0.0), amount=100.0)
    found = train_gains(rows, test_at=timeline(rows).test_at.to_pydatetime(), prior=0.3)
    assert (True, False) == (found.skill, found.estimator.by_share)
    usual = rows.X["mrr"].between(200, 800)
    assert found.estimator.predict(rows.X[usual]).mean() == pytest.approx(100, rel=0.1)


def test_gains_of_odd_rows_are_bounded_and_of_unknown_ones_unknown(rows, gains):
    """By shares of MRR that were seen; an MRR of nothing counts as the least seen."""
    odd = pd.concat([rows.X.head(1)] * 4, ignore_index=True).assign(mrr=[1e9, 0.0, 1e-9, np.nan])
    told = gains.estimator.predict(odd)
    lowest, highest = (gains.estimator.level * bound for bound in gains.estimator.bounds)
    assert lowest * 1e9 * (1 - 1e-9) <= told[0] <= highest * 1e9 * (1 + 1e-9)
    assert 0 < told[1] == told[2] <= highest * gains.estimator.least * (1 + 1e-9)
    assert np.isnan(told[3])


def test_what_nothing_tells_has_no_skill(rows, test_at):
    """Gains and kinds by lot: the usual stands in, and it is said."""
    blind = sold(dict.fromkeys(SHARES, 0.5))
    found = train_gains(blind, test_at=test_at, prior=0.5)
    assert not found.skill
    assert found.error == pytest.approx(found.usual, rel=0.1)
    assert found.says().endswith("The usual share of MRR stands in.")
    keys = rows.keys.assign(kind=np.random.default_rng(1).permutation(rows.keys["kind"].where(rows.y == 1, "seats")))
    assert not train_kinds(replace(rows, keys=keys), test_at=test_at).skill


def test_kinds_learn_what_drives_them(rows, kinds, test_at):
    """Four of five expansions of the smallest plan are add-ons, one of five of the others."""
    late = rows.since(test_at).X
    shares = pd.DataFrame(kinds.holdout.shares(late), late.index, kinds.holdout.words)
    assert ("addon", "plan", "seats") == kinds.holdout.words
    assert shares.loc[late["plan"] == "solo", "addon"].mean() == pytest.approx(0.8, abs=0.12)
    assert shares.loc[late["plan"] != "solo", "addon"].mean() == pytest.approx(0.2, abs=0.07)
    assert kinds.skill
    assert kinds.says().startswith("expansion kinds: skill proven")


def test_the_test_period_touches_nothing_of_either_holdout(rows, gains, kinds, test_at):
    """Other gains and kinds of what had not closed at the cut leave both as they were."""
    open_ = (rows.keys["cutoff"] + EXPANSION.window > test_at) & (rows.y == 1)
    keys = rows.keys.assign(value=rows.keys["value"].mask(open_, 1e6), kind=rows.keys["kind"].mask(open_, "plan"))
    other = replace(rows, keys=keys)
    assert gains.holdout.to_parts() == train_gains(other, test_at=test_at, prior=0.3).holdout.to_parts()
    assert kinds.holdout.to_parts() == train_kinds(other, test_at=test_at).holdout.to_parts()


def test_one_kind_or_no_price_is_an_error_with_the_mend(rows, test_at):
    with pytest.raises(ModelError, match=r"fewer than two kinds came 10 times or more \(plan\).*name plans and addons"):
        train_kinds(replace(rows, keys=rows.keys.assign(kind="plan")), test_at=test_at)
    with pytest.raises(ModelError, match=r"0 expansions have a known gain.*Give mrr in subscriptions"):
        train_gains(replace(rows, keys=rows.keys.assign(value=np.nan)), test_at=test_at, prior=0.3)
    with pytest.raises(ModelError, match=r"expanded with a known gain\. Give data that reach further"):
        train_gains(rows, test_at=rows.cutoffs[-1] + pd.Timedelta(days=1), prior=0.3)


def test_gains_are_kept_as_text(rows, gains):
    parts = gains.estimator.to_parts()
    again = Gains.from_parts(parts)
    assert parts == again.to_parts()
    assert gains.estimator.predict(rows.X).tolist() == again.predict(rows.X).tolist()
    with pytest.raises(ModelError, match="not of one gains"):
        Gains.from_parts({**parts, "gains.json": parts["gains.json"].replace("events_7d", "events_8d")})
    with pytest.raises(ModelError, match="not fitted"):
        Gains("expansion").predict(rows.X)


def test_an_offer_says_what_is_proven_and_else_what_is_usual(rows, kinds):
    """A month's gain is the value without margin and months; kinds add up to one."""
    frame = pd.concat([rows.keys, rows.X], axis=1).head(50)
    scores = frame[["entity_id", "account_id", "cutoff"]].assign(target="expansion", value=960.0, currency="EUR")
    own = offers(scores, frame, 9.6, kinds.estimator, {"gains", "kinds"})
    assert list(OFFERS) == list(own.columns)
    assert own["gain_monthly"].tolist() == [100.0] * 50
    np.testing.assert_allclose(1, own[list(OFFER_KINDS)].sum(axis=1))
    assert np.ptp(own["addon"]) > 0.1
    usual = offers(scores, frame, 9.6, kinds.estimator, set())
    assert usual["addon"].unique().tolist() == [kinds.estimator.usual[0]]
    assert not usual[["gain_skill", "kind_skill"]].to_numpy().any()
    assert offers(scores, frame, 9.6, None, {"gains"})[list(OFFER_KINDS)].isna().all(axis=None)
    assert offers(scores.head(0), frame.head(0), 9.6, Kinds("expansion"), set()).empty


def test_ranking_by_money_catches_more_of_it_than_by_probability(rows, gains, test_at):
    """The same number contacted at each cutoff of the test period; the difference is sure over accounts."""
    early, late = rows.split(test_at)
    p = Model(EXPANSION).fit(early).probability(late.X)
    gain = late.keys["value"].fillna(0.0).to_numpy()
    money = p * gains.holdout.predict(late.X)
    by_money, by_chance = (contacted(late.keys["cutoff"], rank, None) for rank in (money, p))
    codes, names = pd.factorize(late.keys["entity_id"])
    more, spread = ratios((by_money - by_chance) * gain, gain, codes, draws(len(names), 500, seed=1))
    assert more > 0.05
    assert np.quantile(spread, 0.025) > 0
