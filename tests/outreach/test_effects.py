"""What works: effects by cause and segment, shrunk to the prior where little is known."""

import numpy as np
import pandas as pd
import pytest

from churnkit.errors import OutreachError
from churnkit.outreach.effects import EFFECTS, Prior, effect_of, learn
from churnkit.simulate.experiment import NAMES, Design, experiments
from churnkit.simulate.world import SEGMENTS

PRIORS = {"save": Prior(0.15)}


def made(n, effects, seed=1, share=0.1, rate=0.25, error=None):
    """Customers of these causes with their true effects; `error` is how far each cause's scores are off."""
    rng = np.random.default_rng(seed)
    cause = rng.choice(list(effects), n)
    score = np.clip(rng.beta(4, 4 / rate - 4, n), 0.02, 0.9)
    treated = rng.random(n) >= share
    off = np.array([(error or {}).get(one, 1.0) for one in cause])
    p = score * off - score * np.where(treated, [effects[one] for one in cause], 0.0)
    return pd.DataFrame({"play": "save", "target": "churn", "cause": cause,
                         "arm": np.where(treated, "treated", "control"), "segment": rng.choice(["small", "mid"], n),
                         "score": score,
                         "churned": (rng.random(n) < p).astype(float)})


def row(found, cause="", segment=""):
    return found.query("cause == @cause and segment == @segment").iloc[0]


def test_without_customers_the_prior_stands():
    """With an interval that says how little is known."""
    found = learn(made(10, {"usage": 0.1})[:0], PRIORS)
    assert list(found.columns) == list(EFFECTS)
    assert len(found) == 1
    assert row(found)["effect"] == pytest.approx(0.15)
    assert row(found)["low"] < 0 < row(found)["high"]
    assert row(found)["n_treated"] == 0


def test_with_many_customers_the_truth_comes_out():
    """By cause, harm below zero, whatever the prior."""
    truth = {"usage": 0.5, "support": 0.1, "billing": -0.4}
    found = learn(made(60_000, truth), {"save": Prior(0.15)})
    for cause, effect in truth.items():
        assert row(found, cause)["effect"] == pytest.approx(effect, abs=0.06)
        assert row(found, cause)["low"] < effect < row(found, cause)["high"]
    assert row(found, "billing")["high"] < 0


def test_scores_that_are_off_do_not_pass_for_an_effect():
    """The control group shows where a cause's scores are too high: with enough of it nothing is learnt from them."""
    truth = {"usage": 0.0, "support": 0.0, "billing": 0.0}
    found = learn(made(60_000, truth, share=0.3, error={"usage": 0.6}), PRIORS)
    assert abs(row(found, "usage")["effect"]) < 0.08


def test_few_customers_move_little():
    """Thirty customers leave the belief nearly where it was, a thousand move it, and each more narrows the interval."""
    few, many = (learn(made(n, {"usage": 0.6}), PRIORS) for n in (30, 3000))
    assert abs(row(few)["effect"] - 0.15) < 0.12
    assert row(many, "usage")["effect"] > 0.35
    assert row(many, "usage")["sd"] < row(few, "usage")["sd"]


def test_a_cause_that_is_hardly_known_is_near_the_play():
    """What the other causes show is borrowed."""
    frame = made(20_000, {"usage": 0.5, "support": 0.5, "contract": 0.5})
    rare = frame["cause"] == "contract"
    found = learn(frame[~rare | (np.cumsum(rare) <= 5)], PRIORS)
    assert 0.3 < row(found, "contract")["effect"] < 0.6
    assert row(found, "contract")["sd"] > row(found, "usage")["sd"]


def test_a_heavier_prior_gives_way_more_slowly():
    """The weight is in customers."""
    light, heavy = (learn(made(2000, {"usage": 0.6}), {"save": Prior(0.1, weight)}) for weight in (10, 10_000))
    assert row(heavy)["effect"] < row(light)["effect"]


def test_without_scores_the_control_group_alone_counts():
    """A rule play has none; the effect is still found, with less certainty."""
    frame = made(30_000, {"usage": 0.4, "support": 0.4})
    with_scores, without = learn(frame, PRIORS), learn(frame.assign(score=np.nan), PRIORS)
    assert row(without, "usage")["effect"] == pytest.approx(0.4, abs=0.12)
    assert row(without, "usage")["sd"] > row(with_scores, "usage")["sd"]


def test_a_sale_is_turned_the_other_way():
    """An effect on expansion raises its rate."""
    frame = made(30_000, {"usage": -0.5}).rename(columns={"churned": "expanded"}).assign(target="expansion")
    assert row(learn(frame, PRIORS), "usage")["effect"] == pytest.approx(0.5, abs=0.08)


def test_intervals_hold_the_truth_in_the_simulated_world():
    """Over experiments, cells and causes: about 95%, where scores are made by a model that errs by cause."""
    held, count = 0, 0
    truth_of = experiments(Design(accounts=200_000), 1, seed=77).run(0)
    for seed in range(12):
        one = experiments(Design(accounts=8000), 1, seed=seed).run(0)
        opened, treated = one.score >= 0.12, np.random.default_rng(seed).random(8000) >= 0.1
        frame = pd.DataFrame({"play": "save", "target": "churn", "cause": np.array(NAMES)[one.cause],
                              "segment": np.array(SEGMENTS)[one.segment], "score": one.score,
                              "arm": np.where(treated, "treated", "control"),
                              "churned": one.seen(treated).astype(float)})[opened]
        found = learn(frame, PRIORS).query("cause != '' and segment == ''").set_index("cause")
        for number, cause in enumerate(NAMES):
            rows = (truth_of.cause == number) & (truth_of.score >= 0.12)
            truth = truth_of.uplift[rows].sum() / truth_of.score[rows].sum()
            held += found["low"][cause] <= truth <= found["high"][cause]
            count += 1
    assert held / count >= 0.9


def test_candidates_take_the_nearest_effect_that_is_known():
    """Their own cause and segment, else the cause, else the play; a play that is not there has none."""
    found = learn(made(3000, {"usage": 0.5, "support": 0.1}), PRIORS)
    play = pd.Series(["save", "save", "save", "save", "other"], index=[4, 3, 2, 1, 0])
    cause = pd.Series(["usage", "usage", "weather", None, "usage"], play.index)
    segment = pd.Series(["mid", "huge", "mid", "", "mid"], play.index)
    effects = effect_of(found, play, cause, segment)
    expected = [row(found, "usage", "mid"), row(found, "usage"), row(found), row(found)]
    assert [one["effect"] for one in expected] == effects.tolist()[:4]
    assert np.isnan(effects[0])


def test_open_windows_reserves_and_passed_on_slots_teach_nothing():
    """The same rows as in the main estimate."""
    frame = made(2000, {"usage": 0.5})
    extra = [frame.head(200).assign(churned=np.nan), frame.head(200).assign(arm="reserve", churned=1.0),
             frame.head(200).assign(passed_on=True, arm="treated", churned=1.0)]
    pd.testing.assert_frame_equal(learn(frame.assign(passed_on=False), PRIORS),
                                  learn(pd.concat([frame.assign(passed_on=False), *extra]), PRIORS))


def test_a_missing_column_is_named():
    """So that who calls it knows what to give."""
    with pytest.raises(OutreachError, match="'cause'"):
        learn(made(10, {"usage": 0.1}).drop(columns="cause"), PRIORS)
