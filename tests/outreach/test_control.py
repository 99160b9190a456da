"""The control group: its share in every stratum, its chance for every account, and that it never changes its mind."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from churnkit.errors import OutreachError
from churnkit.outreach.control import ARMS, Rule, arm_of, draw, expose, number, strata, systematic, tops_of

AT = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
LATER = dt.datetime(2026, 12, 1, tzinfo=dt.UTC)


def made(n, seed=1, first=0):
    """So many tops, of three segments and many values, some of them blank."""
    rng = np.random.default_rng(seed)
    value = np.exp(rng.normal(8, 1.2, n))
    return pd.DataFrame({"top": [f"T{number:05d}" for number in range(first, first + n)],
                         "segment": rng.choice(["small", "mid", "large", None], n, p=[0.5, 0.3, 0.15, 0.05]),
                         "value": np.where(rng.random(n) < 0.05, np.nan, value)})


@pytest.mark.parametrize("share", [0.05, 0.1, 0.25, 1 / 3])
def test_each_stratum_keeps_its_share_to_within_one_however_accounts_arrive(share):
    """All at once, or in waves of a few: no stratum is ever an account off its share."""
    rule = Rule(share, "winter")
    tops, arms = made(900), None
    for upto in (3, 10, 11, 60, 300, 900):
        arms = draw(tops[:upto], rule, arms, at=AT)
        held = (arms["arm"] == "control").groupby(arms["stratum"]).agg(["sum", "size"])
        assert (held["sum"] - share * held["size"]).abs().max() < 1
    assert len(arms) == 900


def test_the_same_accounts_give_the_same_arms_whatever_their_order():
    """Rows may come in any order, and again."""
    tops = made(400)
    first = draw(tops, Rule(), at=AT)
    pd.testing.assert_frame_equal(first, draw(tops.sample(frac=1, random_state=3), Rule(), at=AT))
    pd.testing.assert_frame_equal(first, draw(tops, Rule(), first, at=LATER))
    assert list(first.columns) == list(ARMS)


def test_another_salt_draws_others():
    """The salt decides who, not how many."""
    tops = made(2000)
    one, other = (draw(tops, Rule(salt=salt), at=AT)["arm"] == "control" for salt in ("a", "b"))
    assert one.sum() == pytest.approx(other.sum(), abs=25)
    assert (one & other).sum() < 0.3 * one.sum()


def test_every_account_has_the_same_chance_over_salts():
    """Also the ones that come late, and those of small strata: counted over salts, against the binomial."""
    tops, share, salts = made(60), 0.2, 40
    counts = np.zeros(60)
    for salt in range(salts):
        early = draw(tops[:35], Rule(share, f"s{salt}"), at=AT)
        counts += (draw(tops, Rule(share, f"s{salt}"), early, at=LATER)["arm"] == "control").to_numpy()
    p = [stats.binomtest(int(count), salts, share).pvalue for count in counts]
    assert min(p) > 0.001 / len(p)
    assert abs(counts.sum() / (salts * 60) - share) < 0.02


def test_every_place_has_the_same_chance_over_starts():
    """For every place in a stratum, early or late, exactly the share of starts make it control."""
    starts = np.tile((np.arange(100_000) + 0.5) / 100_000, (7, 1))
    held = systematic(np.array([0.0, 1, 2, 9, 10, 57, 1234])[:, None], starts, 0.13)
    assert held.mean(axis=1) == pytest.approx(0.13, abs=2e-5)


def test_an_exposed_account_never_changes_its_arm():
    """Another share or salt draws the others anew, and only them."""
    tops = made(600)
    before = expose(draw(tops, Rule(0.1, "a"), at=AT), tops["top"][:200], at=AT)
    after = draw(tops, Rule(0.3, "b"), before, at=LATER)
    seen = before["top"].isin(tops["top"][:200])
    pd.testing.assert_frame_equal(before[seen], after[seen])
    assert set(after.loc[~seen, "salt"]) == {"b"}
    assert set(after.loc[~seen, "propensity"]) == {0.3}
    assert (after.loc[~seen, "arm"] == "control").mean() == pytest.approx(0.3, abs=0.04)


def test_an_account_that_was_not_exposed_stays_while_the_rule_does():
    """New accounts change nothing for those that were drawn."""
    first = draw(made(100), Rule(), at=AT)
    both = draw(pd.concat([made(100), made(150, 2, 100)]), Rule(), first, at=LATER)
    pd.testing.assert_frame_equal(first, both[both["top"].isin(first["top"])].reset_index(drop=True))
    assert set(both["drawn_at"]) == {pd.Timestamp(AT), pd.Timestamp(LATER)}


def test_the_first_exposure_counts():
    """A second one does not move it."""
    arms = draw(made(5), Rule(), at=AT)
    once = expose(arms, ["T00001"], at=AT)
    assert expose(once, ["T00001"], at=LATER).equals(once)
    assert once["exposed_at"].notna().sum() == 1


def test_very_high_values_are_a_reserve_and_count_in_no_stratum():
    """They are never control, and the others keep their share."""
    tops = made(800)
    arms = draw(tops, Rule(0.2, exempt_value=5000.0), at=AT).set_index("top")
    rich = tops.set_index("top")["value"] > 5000
    assert set(arms["arm"][rich]) == {"reserve"}
    assert set(arms["propensity"][rich]) == {0.0}
    rest = arms[~rich]
    held = (rest["arm"] == "control").groupby(rest["stratum"]).agg(["sum", "size"])
    assert set(rest["arm"]) == {"treated", "control"}
    assert (held["sum"] - 0.2 * held["size"]).abs().max() < 1


def test_a_share_of_nought_treats_everybody():
    """And nobody is kept apart by accident of rounding."""
    assert set(draw(made(300), Rule(0.0), at=AT)["arm"]) == {"treated"}


def test_a_child_shares_its_tops_arm():
    """One customer is never in both arms."""
    rng = np.random.default_rng(4)
    accounts = pd.DataFrame({"account_id": [f"A{n:04d}" for n in range(900)], "value": rng.uniform(0, 9000, 900),
                             "segment": rng.choice(["small", "mid"], 900)})
    accounts["top"] = "A" + pd.Series(rng.integers(0, 250, 900)).map("{:04d}".format)
    arms = draw(tops_of(accounts), Rule(0.3), at=AT)
    found = accounts.assign(arm=arm_of(accounts, arms)).groupby("top")["arm"].nunique()
    assert set(found) == {1}
    assert arm_of(accounts, arms[:0]).isna().all()


def test_a_top_has_its_own_segment_and_all_its_childrens_value():
    """One that is no account of the book takes its most valuable account's segment."""
    accounts = pd.DataFrame({"account_id": ["A", "B", "C", "D"], "top": ["A", "A", "X", "X"],
                             "segment": ["mid", "small", "large", "small"], "value": [1.0, 9.0, np.nan, 2.0]})
    found = tops_of(accounts).to_dict("records")
    assert [{"top": "A", "segment": "mid", "value": 10.0}, {"top": "X", "segment": "small", "value": 2.0}] == found


def test_a_band_does_not_depend_on_who_else_is_there():
    """An account is of the same stratum whenever it comes."""
    tops = made(300)
    whole = strata(tops["segment"], tops["value"])
    assert whole[7:9].tolist() == strata(tops["segment"][7:9], tops["value"][7:9]).tolist()
    assert strata(pd.Series(["a"] * 3), pd.Series([99.0, 100.0, 30_000.0])).tolist() == [
        "a under 100", "a from 100", "a from 30,000"]


def test_systematic_places_are_spread_evenly():
    """Any run of 1 / share places holds one."""
    held = systematic(np.arange(1000.0), np.full(1000, number("s", "x")), 0.1)
    assert set(np.convolve(held, np.ones(10), "valid")) == {1.0}


def test_a_top_that_comes_twice_is_refused():
    """Two rows of one customer would be drawn twice."""
    with pytest.raises(OutreachError, match="tops_of"):
        draw(pd.concat([made(2), made(1)]), Rule(), at=AT)
