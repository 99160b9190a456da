"""What outreach came to: who is counted, what is said with few customers, and what touches by hand could hide."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from churnkit.errors import OutreachError
from churnkit.outreach.adjust import difference
from churnkit.outreach.estimate import Data, stratified
from churnkit.outreach.impact import HARMS, HELPS, IMPACT, NOTHING, OPEN, TOO_FEW, Asked, impact
from churnkit.outreach.rates import newcombe, z_of
from churnkit.outreach.told import forest, sentences, table

AT = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
ASKED = Asked(AT, effects={"save": 0.3}, window_days={"churned": 134.0})


def made(n=1000, seed=1, effect=0.3, rate=0.25, **more):
    """Customers for whom one play opened, a tenth of them kept apart; the same rows count for all plays together."""
    rng = np.random.default_rng(seed)
    score = np.clip(rng.beta(3, 3 / rate - 3, n), 0.01, 0.95)
    arm = np.where(np.arange(n) % 10 == 0, "control", "treated")
    left = rng.random(n) < score * np.where(arm == "treated", 1 - effect, 1.0)
    value = np.exp(rng.normal(9, 0.6, n))
    rows = pd.DataFrame({
        "top": [f"T{number}" for number in range(n)], "play": "save", "target": "churn", "cause": "usage",
        "segment": "mid", "stratum": rng.choice(["a", "b", "c"], n), "arm": arm, "propensity": 0.1,
        "triggered_at": pd.Timestamp(AT) - pd.to_timedelta(np.linspace(500, 140, n), unit="D"), "score": score,
        "value": value, "mrr_before": value / 10, "passed_on": False, "touched": False,
        "churned": left.astype(float), "mrr": np.where(left, 0, value / 10)})
    rows = rows.assign(**more)
    return pd.concat([rows, rows.assign(play="", target="")], ignore_index=True)


def asked_of(frame, play="save", outcome="churned", asked=ASKED, enrolled=None, level="triggered"):
    found = impact(frame, enrolled, asked)
    assert list(found.columns) == list(IMPACT)
    return found.query("level == @level and play == @play and outcome == @outcome").iloc[-1]


def test_the_plain_difference_is_counted_by_hand():
    """Rates, their difference and Newcombe's limits, from the rows themselves."""
    frame = made()
    rows = frame[frame["play"] == "save"]
    one, other = (rows.loc[rows["arm"] == arm, "churned"] for arm in ("treated", "control"))
    found = asked_of(frame)
    assert (found["n_treated"], found["n_control"]) == (900, 100)
    assert (found["treated"], found["control"]) == (one.mean(), other.mean())
    limits = newcombe((one.sum(), 900), (other.sum(), 100), z_of())
    assert (found["low"], found["high"]) == pytest.approx((limits.low, limits.high))
    assert found["always_low"] < found["adjusted_low"] < found["adjusted_high"] < found["always_high"]


def test_a_play_that_helps_is_said_to_help():
    """And one that harms to harm, at any look; money has the same sign."""
    helped, harmed = asked_of(made(6000, effect=0.5)), asked_of(made(6000, effect=-0.8))
    assert (HELPS, HARMS) == (helped["verdict"], harmed["verdict"])
    assert 0 < helped["money_low"] < helped["money"] < helped["money_high"]
    assert harmed["money_high"] < 0
    assert asked_of(made(6000, effect=0.5), outcome="mrr")["verdict"] == HELPS


def test_too_few_is_an_answer():
    """With 24 kept apart not even half of the loss would be seen; with 40 customers there are too few events at all."""
    assert asked_of(made(240))["verdict"] == TOO_FEW
    assert asked_of(made(40))["verdict"] == TOO_FEW
    assert asked_of(made(1500, effect=0.3))["verdict"] == OPEN
    assert asked_of(made(20_000, effect=0.0))["verdict"] == NOTHING


def test_one_control_customer_gives_no_interval():
    """Nothing can be said of a spread with one."""
    frame = made(200)
    frame = frame[(frame["arm"] == "treated") | (frame["top"] == "T0")]
    found = asked_of(frame)
    assert found["verdict"] == TOO_FEW
    assert np.isnan(found["low"])


def test_whoever_took_a_passed_on_slot_and_the_reserve_are_left_out():
    """Their outcomes change nothing."""
    frame = made()
    extra = frame[frame["arm"] == "treated"].head(50)
    passed = extra.assign(top="P" + extra["top"], passed_on=True, churned=1.0)
    reserve = extra.assign(top="R" + extra["top"], arm="reserve", churned=1.0)
    pd.testing.assert_frame_equal(impact(frame, None, ASKED), impact(pd.concat([frame, passed, reserve]), None, ASKED))


def test_an_open_window_is_not_counted_but_comes_into_the_arrivals():
    """What is not known yet is no outcome; when the sample will suffice follows from how fast customers come."""
    frame = made(1000)
    early = frame.assign(churned=frame["churned"].where(frame["triggered_at"] < AT - dt.timedelta(days=300)))
    found = asked_of(early)
    assert found["n_treated"] + found["n_control"] < 600
    frame["triggered_at"] += pd.Timedelta(days=139)
    later = asked_of(frame)
    pace = 1000 / 360
    expected = (later["needed"] - 1000) / pace + 134
    assert (later["enough_at"] - pd.Timestamp(AT)).days == pytest.approx(expected, rel=0.02)
    enough = asked_of(frame, asked=Asked(AT, {"save": 0.9}, window_days={"churned": 134.0}))
    nth = frame[frame["play"] == "save"]["triggered_at"].sort_values().iloc[int(enough["needed"]) - 1]
    assert enough["enough_at"] == nth + pd.Timedelta(days=134)


def test_a_promise_is_a_share_of_what_the_control_group_shows():
    """And its sample is the usual formula's, with the gain of the adjustment in it."""
    found = asked_of(made(4000))
    assert found["stated"] == pytest.approx(-0.3 * found["control"])
    rows = made(4000)[lambda frame: frame["play"] == "save"]
    fit = difference(rows["churned"].to_numpy(), (rows["arm"] == "treated").to_numpy(), rows[["score"]].to_numpy())
    assert found["detectable"] == pytest.approx((z_of() + stats.norm.ppf(0.8)) * fit.error)
    assert found["needed"] == pytest.approx(4000 * (found["detectable"] / found["stated"]) ** 2, rel=1e-3)


def test_the_adjustment_gains_precision_where_scores_tell_much():
    """With scores that know nearly all, most of the variance goes."""
    frame = made(4000)
    knows = frame.assign(score=frame["churned"] * 0.8 + 0.1 + np.random.default_rng(1).normal(0, 0.05, len(frame)))
    assert asked_of(knows)["gain"] > 0.5
    assert abs(asked_of(frame.assign(score=0.2))["gain"]) < 1e-9
    assert abs(asked_of(frame.assign(score=np.nan))["gain"]) < 1e-9


def test_touched_controls_are_counted_and_bound_the_estimate():
    """Were all of them to have come out worst, or best, without the touch, the difference stays inside; by hand."""
    frame = made(1000)
    control = frame["arm"] == "control"
    frame["touched"] = control & frame["top"].isin(frame.loc[control, "top"].unique()[:20])
    found, rows = asked_of(frame), frame[frame["play"] == "save"]
    assert found["touched"] == 20
    for worst, end in ((1.0, "bound_low"), (0.0, "bound_high")):
        changed = rows["churned"].where(~rows["touched"], worst)
        mean = changed[rows["arm"] == "control"].mean()
        moved = found["adjusted"] - (mean - found["control"])
        assert found["bound_low"] < moved < found["bound_high"]
        reach = found["adjusted"] - found["adjusted_low"] if worst else found["adjusted_high"] - found["adjusted"]
        assert found[end] == pytest.approx(moved - reach if worst else moved + reach)
    assert found["rescaled"] == pytest.approx(found["adjusted"] / 0.8)
    clean = asked_of(made(1000))
    assert (clean["bound_low"], clean["rescaled"]) == (clean["adjusted_low"], clean["adjusted"])


def test_strata_are_weighted_by_their_size():
    """By hand; a stratum with one control customer joins the others that are too small."""
    rng = np.random.default_rng(2)
    stratum = np.repeat(["a", "b", "c", "d"], [200, 100, 21, 22])
    treated = ~np.isin(np.arange(343), [*range(20), *range(200, 210), 300, 321])
    y = rng.binomial(1, np.where(stratum == "a", 0.5, 0.1)).astype(float)
    merged = np.where(np.isin(stratum, ["c", "d"]), "rest", stratum)
    expected = sum((merged == one).mean() * (y[(merged == one) & treated].mean() - y[(merged == one) & ~treated].mean())
                   for one in ("a", "b", "rest"))
    value, limits = stratified(Data(y, treated, np.empty((343, 0))), stratum)
    assert value == pytest.approx(expected)
    assert limits.low < value < limits.high


def test_a_target_counts_a_customer_once_in_its_error():
    """Two plays that opened for the same customers give no more precision than one."""
    frame = made(600)
    other = frame[frame["play"] == "save"].assign(play="other")
    both = impact(pd.concat([frame, other]), None, ASKED).query("target == 'churn' and play == ''").iloc[0]
    one = impact(frame, None, ASKED).query("target == 'churn' and play == ''").iloc[0]
    assert both["n_control"] == 2 * one["n_control"]
    assert both["high"] - both["low"] == pytest.approx(one["high"] - one["low"], rel=0.05)


def test_a_changed_share_does_not_tilt_the_comparison():
    """Customers at risk were drawn first, at another share: those drawn alike are compared, and no effect is none."""
    rng, n = np.random.default_rng(5), 20_000
    early = np.arange(n) < n // 2
    share = np.where(early, 0.1, 0.5)
    frame = made(n, score=np.nan, propensity=share, arm=np.where(rng.random(n) < share, "control", "treated"),
                 churned=(rng.random(n) < np.where(early, 0.5, 0.1)).astype(float))
    found = asked_of(frame)
    assert found["difference"] > 0.1  # the treated are those at risk
    assert abs(found["adjusted"]) < 0.02
    assert found["adjusted_low"] < 0 < found["adjusted_high"]
    assert found["money_low"] < 0 < found["money_high"]


def test_all_that_were_drawn_stand_beside_the_triggered():
    """Intention to treat: the same outcomes over everybody, diluted by those for whom nothing opened."""
    enrolled = made(5000, effect=0.05).query("play == ''")[["top", "arm", "stratum", "score", "churned"]]
    found = asked_of(made(), play="", enrolled=enrolled, level="enrolled")
    assert found["n_treated"] == 4500
    assert pd.isna(found["enough_at"])


def test_the_report_is_read_for_sense():
    """Counts, rates and both intervals as they stand in the table, and plain words where nothing can be said."""
    frame = made(236, seed=4)
    control = frame["arm"] == "control"
    frame["touched"] = control & (frame["top"] == "T0")
    found = impact(frame, None, ASKED)
    row = found.query("play == 'save' and outcome == 'churned'").iloc[0]
    text = next(one for one in sentences(found, "EUR") if one.startswith("save: "))
    for words in ("of 236 customers for whom it opened", f"{row['treated']:.1%} left among the 212",
                  f"{row['control']:.1%} among the 24 kept apart", f"{100 * row['adjusted']:+.1f} points",
                  f"{100 * row['always_low']:+.1f} to {100 * row['always_high']:+.1f} whenever one looks",
                  "Too few accounts yet", f"it takes {row['needed']:,.0f} customers",
                  "1 customer kept apart was approached by hand",
                  f"between {100 * row['bound_low']:+.1f} and {100 * row['bound_high']:+.1f}."):
        assert words in text
    assert "nan" not in " ".join(sentences(found, "EUR")).lower()
    assert len(table(found)) == len(found)


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_plot_is_drawn(tmp_path, suffix):
    """Also of an empty answer."""
    for name, found in (("full", impact(made(), None, ASKED)), ("empty", impact(made()[:0], None, ASKED))):
        assert forest(found, tmp_path / f"{name}.{suffix}").stat().st_size > 1000


def test_no_rows_are_an_empty_answer():
    """Before the first trigger there is nothing to say."""
    assert impact(made()[:0], None, ASKED).empty
    assert impact(made().query("arm == 'treated'"), None, ASKED).empty


def test_what_cannot_be_measured_is_refused():
    """A missing column, and a customer in both arms."""
    with pytest.raises(OutreachError, match="'arm'"):
        impact(made().drop(columns="arm"), None, ASKED)
    frame = made()
    with pytest.raises(OutreachError, match="both arms"):
        impact(pd.concat([frame, frame.head(1).assign(arm="treated")]), None, ASKED)
