"""Profit, capacity and lead time against brute force over thresholds, dense integrals and plain loops."""

from __future__ import annotations

import datetime as dt
import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta

from churnkit.errors import ModelError, SettingsError
from churnkit.learning.profit import (
    ALARMS,
    PROFITS,
    WEIGHT,
    Terms,
    alarms,
    contacted,
    lead_times,
    profit_curve,
    profits,
    terms,
)
from churnkit.learning.resample import draws
from churnkit.learning.targets import CHURN, MAINTENANCE, Target
from churnkit.settings import Settings, from_mapping

TERMS = [Terms(200, 1, 10), Terms(1000, 50), Terms(300, 80), Terms(1000, 50, 20, effect=0.6)]


def scored(n=300, seed=1, entities=40):
    """Scores with ties, outcomes that follow them, and entities with several rows."""
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 4, n).round(2).clip(0.01, 0.99)
    return (rng.random(n) < p).astype(float), p, rng.integers(0, entities, n)


def brute(y, p, some, effect):
    """The best profit per row and its share over every threshold there is, contacting nobody included."""
    choices = [(0.0, 0.0)]
    for threshold in np.unique(p):
        to = p >= threshold
        made = sum((effect * (some.value - some.incentive) if one else -some.incentive) - some.contact_cost
                   for one in y[to])
        choices.append((made / len(y), to.mean()))
    return max(choices)


@pytest.mark.parametrize("some", TERMS)
def test_the_best_share_is_what_trying_every_threshold_finds(some):
    y, p, codes = scored()
    found = dict(zip(PROFITS, profits(y, p, codes, draws(40, 1, 1), some)[0], strict=True))
    profit, share = brute(y, p, some, some.effect)
    assert profit == pytest.approx(found["profit"])
    assert share == pytest.approx(found["best_share"])
    curve = profit_curve(y, p, some)
    assert profit == pytest.approx(curve["profit"].max())
    assert len(np.unique(p)) + 1 == len(curve)


def empc(y, p, some):
    """Verbraken's closed form over the vertices of the ROC curve's convex hull, in his symbols."""
    value, delta, phi = some.value, some.incentive / some.value, some.contact_cost / some.value
    a, b = WEIGHT * some.effect, WEIGHT * (1 - some.effect)
    pi0, pi1 = y.mean(), 1 - y.mean()  # his class 0 are the churners
    thresholds = np.unique(p)[::-1]
    roc = [(0.0, 0.0)] + [(((p >= t) & (y == 1)).sum() / y.sum(), ((p >= t) & (y == 0)).sum() / (1 - y).sum())
                          for t in thresholds]
    hull = []  # upper hull of F0 against F1
    for f0, f1 in roc:
        while len(hull) >= 2 and (hull[-1][0] - hull[-2][0]) * (f1 - hull[-2][1]) <= (
                f0 - hull[-2][0]) * (hull[-1][1] - hull[-2][1]):
            hull.pop()
        hull.append((f0, f1))
    switch = [0.0]
    for (f0, f1), (g0, g1) in itertools.pairwise(hull):
        steep = (g1 - f1) / (g0 - f0) if g0 > f0 else np.inf
        switch.append(float(np.clip((pi1 * (delta + phi) * steep / pi0 + phi) / (1 - delta), 0, 1)))
    switch.append(1.0)
    total = 0.0
    for (f0, f1), low, high in zip(hull, switch, switch[1:], strict=False):
        mass = beta.cdf(high, a, b) - beta.cdf(low, a, b)
        mean = a / (a + b) * (beta.cdf(high, a + 1, b) - beta.cdf(low, a + 1, b))
        total += value * ((1 - delta) * pi0 * f0 * mean - (phi * pi0 * f0 + (delta + phi) * pi1 * f1) * mass)
    return total


@pytest.mark.parametrize("some", TERMS)
def test_the_expected_maximum_profit_is_verbrakens(some):
    """By his closed form, and by the best threshold for each of many drawn effects."""
    y, p, codes = scored()
    found = profits(y, p, codes, draws(40, 1, 1), some)[0][PROFITS.index("expected_max_profit")]
    assert empc(y, p, some) == pytest.approx(found, rel=3e-3)
    drawn = beta.ppf((np.arange(200) + 0.5) / 200, WEIGHT * some.effect, WEIGHT * (1 - some.effect))
    assert np.mean([brute(y, p, some, effect)[0] for effect in drawn]) == pytest.approx(found, rel=1e-2)


def test_not_knowing_the_effect_is_worth_no_less_on_average():
    """The maximum of each effect beats the maximum at their mean (Jensen)."""
    y, p, codes = scored()
    for some in TERMS:
        profit, _, expected = profits(y, p, codes, draws(40, 1, 1), some)[0]
        assert expected >= profit - 1e-3 * abs(profit)


def test_a_resample_is_the_rows_repeated():
    y, p, codes = scored()
    weights = draws(40, 4, seed=3)
    keys = pd.DataFrame({"entity_id": codes.astype(str), "cutoff": pd.Timestamp("2026-01-01", tz="UTC")})
    _, spread = profits(y, p, codes, weights, TERMS[1])
    for drawn, found in zip(weights, spread, strict=True):
        rows = np.repeat(np.arange(len(y)), drawn[codes].astype(int))
        assert brute(y[rows], p[rows], TERMS[1], 0.3) == pytest.approx(tuple(found[:2]))
    order, names = pd.factorize(keys["entity_id"])
    weights = draws(len(names), 4, seed=3)
    _, spread = alarms(keys, y, p, weights, 50, CHURN)
    part = contacted(keys["cutoff"], p, 50)
    for drawn, found in zip(weights, spread[:, 0], strict=True):
        rows = np.repeat(np.arange(len(y)), drawn[order].astype(int))
        assert (y[rows] * part[rows]).sum() / y[rows].sum() == pytest.approx(found)


@pytest.mark.parametrize("capacity", [1, 7, 30, 500])
def test_recall_at_capacity_is_what_contacting_the_first_of_each_cutoff_catches(capacity):
    """Without ties: the first so many of each cutoff's ranking, counted by hand."""
    rng = np.random.default_rng(6)
    y, p = (rng.random(400) < 0.2).astype(float), rng.permutation(400) / 400
    keys = pd.DataFrame({"entity_id": [f"e{place % 50}" for place in range(400)],
                         "cutoff": pd.date_range("2026-01-01", periods=8, tz="UTC").repeat(50)})
    found = alarms(keys, y, p, draws(50, 1, 1), capacity, CHURN)[0][ALARMS.index(
        "recall_at_capacity")]
    caught = 0.0
    for rows in keys.groupby("cutoff").indices.values():
        caught += y[sorted(rows, key=lambda row: -p[row])[:capacity]].sum()
    assert caught / y.sum() == pytest.approx(found)


def test_contacts_are_never_more_than_the_capacity_even_with_ties():
    _, p, _ = scored()
    cutoff = pd.Series(pd.date_range("2026-01-01", periods=3, tz="UTC").repeat(100))
    parts = pd.Series(contacted(cutoff, p, 17)).groupby(cutoff).sum()
    assert [17.0] * 3 == pytest.approx(parts.tolist())
    assert 30 == pytest.approx(contacted(cutoff, p, None).sum())


def test_lead_times_by_hand():
    """From the first alarm to the earliest moment at which the event can be; unalarmed events are kept, blank."""
    weekly = Target("maintenance", "asset", horizon=dt.timedelta(days=21), lead=dt.timedelta(days=2))
    day = pd.date_range("2026-01-05", periods=8, freq="7D", tz="UTC")
    keys = pd.DataFrame({"entity_id": ["a"] * 8 + ["b"] * 3, "cutoff": [*day, *day[[0, 6, 7]]]})
    y = np.array([0, 1, 1, 1, 0, 0, 1, 0, 1, 1, 1], dtype=float)
    alarm = np.array([1, 0, 1, 1, 1, 0, 0, 0, 1, 1, 0], dtype=bool)
    found = lead_times(keys, y, alarm, weekly)
    # a: alarmed at day[2], goes on to day[3]; then one unalarmed. b: six weeks apart are two events
    assert ["a", "a", "b", "b"] == found["entity_id"].tolist()
    assert [day[1], day[6], day[0], day[6]] == found["first"].tolist()
    assert [7 + 2, None, 2, 7 + 2] == [None if np.isnan(days) else days for days in found["days"]]
    shuffled = np.random.default_rng(1).permutation(11)
    again = lead_times(keys.iloc[shuffled], y[shuffled], alarm[shuffled], weekly)
    pd.testing.assert_frame_equal(found, again)


def test_lead_times_reach_to_the_event_where_its_time_is_known():
    """Rows that foresee one moment are one event, and two within a horizon are two; no row may lack its time."""
    weekly = Target("maintenance", "asset", horizon=dt.timedelta(days=21), lead=dt.timedelta(days=2))
    day = pd.date_range("2026-01-05", periods=6, freq="7D", tz="UTC")
    failed = [day[2] + dt.timedelta(days=3), day[4] + dt.timedelta(days=6.5)]
    keys = pd.DataFrame({"entity_id": "a", "cutoff": day})
    after = [next(((when - one) / dt.timedelta(days=1) - 2 for when in failed if when >= one + dt.timedelta(days=2)),
                  np.nan) for one in day]
    y = np.array([0.0 <= days < 21 for days in after], dtype=float)
    keys = keys.assign(after_days=np.where(y > 0, after, np.nan))
    assert [1, 1, 1, 1, 1, 0] == y.tolist()
    found = lead_times(keys, y, np.array([0, 1, 0, 0, 1, 1], dtype=bool), weekly)
    assert [(day[0], 7 + 3.0), (day[3], 6.5)] == list(zip(found["first"], found["days"], strict=True))
    runs = lead_times(keys.assign(after_days=keys["after_days"].where(keys.index > 0)), y, y > 0, weekly)
    assert [(day[0], 28 + 2.0)] == list(zip(runs["first"], runs["days"], strict=True))


def test_earlier_alarms_lead_by_more():
    """Alarming every row never shortens a lead time, and no lead time exceeds lead and horizon."""
    rng = np.random.default_rng(2)
    keys = pd.DataFrame({"entity_id": np.repeat([f"e{place}" for place in range(30)], 20),
                         "cutoff": np.tile(pd.date_range("2026-01-01", periods=20, freq="D", tz="UTC"), 30)})
    y, alarm = (rng.random(600) < 0.4).astype(float), rng.random(600) < 0.3
    some, every = (lead_times(keys, y, one, MAINTENANCE) for one in (alarm, np.ones(600, dtype=bool)))
    assert (every["days"] >= some["days"])[some["days"].notna()].all()
    assert some["days"].isna().sum() > 0
    assert every["days"].notna().all()


def test_terms_come_from_the_settings():
    """What is not set keeps its default; without a value the mean stake counts."""
    given = Settings(targets={"churn": {"contact_cost": 80, "effect": 0.2, "capacity": 12}})
    assert Terms(5000.0, 80.0, 0.0, 0.2, 12) == terms(CHURN, given, 5000.0)
    assert Terms(900.0) == terms(CHURN, Settings(targets={"churn": {"value": 900}}), 5000.0)
    assert Terms(700.0) == terms(MAINTENANCE, given, 700.0)


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ModelError, match=r"Set value in \[targets\.<name>\]"):
        terms(CHURN, Settings(), float("nan"))
    with pytest.raises(SettingsError, match=r"targets\.churn\.effect"):
        from_mapping({"targets": {"churn": {"effect": 1.5}}})
