"""Days and their counts against naive loops, and what little data, or none, make of the breaker."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnkit.cutoffs import moment
from churnkit.settings import Settings
from churnkit.signals.tables import Tables
from churnkit.watch.counts import AGES, SPAN, count
from churnkit.watch.drift import Spread, alarmed, missing_jumps, shifted
from churnkit.watch.feeds import found_in, judged
from churnkit.watch.usual import Bounds, Series, explained, odd
from churnkit.watch.verdict import History, look

AT = moment("2026-10-29T06:00:00")
ACCOUNTS = pd.DataFrame({"account_id": ["A1", "A2", "A3"], "created_at": "2024-01-01"})
NONE = np.zeros(SPAN, dtype=bool)


def tables(root, **frames):
    """Three accounts, and what else is given."""
    return Tables.from_frames(Settings(root=root, covers_until="2026-12-01"), **{"accounts": ACCOUNTS, **frames})


def events(number, seed=7):
    """Rows of the last days, some of them twice, some known late."""
    dice = np.random.default_rng(seed)
    own = pd.Timestamp(AT) - pd.to_timedelta(dice.integers(0, 12 * 86_400, number), unit="s")
    rows = pd.DataFrame({"account_id": dice.choice(["A1", "A2", "A3"], number), "occurred_at": own,
                         "event": dice.choice(["x", "y", "z"], number),
                         "recorded_at": own + pd.to_timedelta(dice.integers(0, 4 * 86_400, number), unit="s")})
    return pd.concat([rows, rows.sample(number // 5, random_state=seed)], ignore_index=True)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_counts_are_those_of_a_naive_loop(tmp_path, seed):
    """Rows, accounts, kinds, hours and repeated rows of each day, as they could be known at each age."""
    frame = events(400, seed)
    days = count(tables(tmp_path, usage_events=frame), AT)["usage_events"]
    midnight = pd.Timestamp(AT).floor("D")
    for place in range(SPAN - 13, SPAN):
        start = pd.Timestamp(days.day(place), tz="UTC")
        for age in range(AGES):
            then = start + pd.Timedelta(days=1 + age) + (AT - midnight)
            seen_at = min(then, pd.Timestamp(AT)) if age < AGES - 1 else pd.Timestamp(AT)
            mine = frame[(frame["occurred_at"] >= start) & (frame["occurred_at"] < start + pd.Timedelta(days=1))
                         & (frame["recorded_at"] <= seen_at)]
            if not days.rows[place, -1] > 0:
                continue
            assert len(mine) == days.rows[place, age]
            assert mine["account_id"].nunique() == days.entities[place, age]
            assert int(mine.duplicated().sum()) == days.repeated[place, age]
            assert all((mine["event"] == name).sum() == rows[place, age] for name, rows in days.kinds.items())
            hours = mine["occurred_at"].dt.hour.to_numpy() * np.pi / 12
            assert np.exp(1j * hours).sum() == pytest.approx(days.clock[place, age])


def test_later_rows_never_change_a_day_that_was_seen(tmp_path):
    """Rows that come after the run are not counted in it."""
    frame = events(300)
    before = count(tables(tmp_path, usage_events=frame[frame["recorded_at"] <= AT]), AT)["usage_events"]
    after = count(tables(tmp_path, usage_events=frame), AT)["usage_events"]
    assert np.array_equal(before.rows, after.rows, equal_nan=True)


def naive(known, day):
    """The three explanations of a day, by loops."""
    def usual(place):
        there = [known[place - 7 * week] for week in range(1, 6) if place - 7 * week >= 0]
        there = [one for one in there if not np.isnan(one)]
        return np.median(there) if len(there) >= 3 else np.nan

    off = []
    for back in range(1, 15):
        if len(off) < 5 and day - back >= 0 and not np.isnan(known[day - back]) and not np.isnan(usual(day - back)):
            off.append((known[day - back] + 0.5) / (usual(day - back) + 0.5))
    moved = np.median(off) if len(off) >= 2 else np.nan
    season = [known[day - back] for back in (357, 364, 371) if day >= back and not np.isnan(known[day - back])]
    year = np.median(season) if len(season) >= 2 else np.nan
    base = usual(day - 364) if day >= 364 else np.nan
    return usual(day), usual(day) * moved, usual(day) * (year + 0.5) / (base + 0.5)


@given(st.integers(0, 10_000), st.floats(0, 0.4))
@settings(max_examples=30, deadline=None)
def test_explanations_are_those_of_a_naive_loop(seed, gaps):
    """For any day, with any days missing."""
    dice = np.random.default_rng(seed)
    known = dice.poisson(40, SPAN).astype(float)
    known[dice.random(SPAN) < gaps] = np.nan
    ways = explained(known)
    for day in (SPAN - 1, SPAN - 30, 60, 20, 3):
        assert np.allclose(naive(known, day), [way[day] for way in ways], equal_nan=True)


def test_chance_alone_is_hardly_ever_odd():
    """Of 8,960 days of chance, none; every day without a row is odd."""
    dice, found = np.random.default_rng(7), 0
    for level in (15, 60, 400, 5_000):
        for _ in range(80):
            week = np.where(np.arange(SPAN) % 7 < 5, 1.0, 0.3) * level
            days = np.repeat(dice.poisson(week).astype(float)[:, None], AGES, axis=1)
            found += len(odd(Series(days), Bounds(0.8, 1.4, 8), NONE))
    assert found == 0
    days[-1] = 0
    assert [0.0] == [one.value for one in odd(Series(days), Bounds(0.8, 1.4, 8), NONE)]


@pytest.mark.parametrize("frames", [
    {}, {"usage_events": events(0)}, {"usage_events": events(5).iloc[:1]}, {"usage_events": events(300)},
    {"surveys": pd.DataFrame({"account_id": ["A1"], "responded_at": "2026-10-01", "kind": "nps", "score": 3})},
    {"telemetry": pd.DataFrame({"asset_id": ["M1"], "occurred_at": "2026-10-01", "sensor": "heat", "value": 1.0}),
     "assets": pd.DataFrame({"asset_id": ["M1"], "account_id": "A1", "installed_at": "2026-01-01"})},
], ids=["none", "empty", "one row", "young", "no usage", "one asset"])
def test_little_data_hold_nothing_and_say_so(tmp_path, frames):
    """Whatever is missing."""
    feeds = count(tables(tmp_path, **frames), AT)
    found = look(feeds, {}, {}, {}, History(hangs=dict.fromkeys(feeds, ("churn",))), AT)
    assert dict(found.held) == {}
    assert not any(judged(days) and name != "accounts" for name, days in feeds.items())
    assert any("pilot's cap" in note for note in found.notes)


def test_a_thin_feed_is_judged_by_the_week(tmp_path):
    """Four rows a day that stay away for a week; no single day of them says much."""
    dice = np.random.default_rng(2)
    days = pd.date_range("2025-06-01", "2026-10-28", freq="D", tz="UTC")
    own = np.repeat(days, dice.poisson(4, len(days)))
    own = own + pd.to_timedelta(dice.integers(6 * 3600, 20 * 3600, len(own)), unit="s")
    rows = pd.DataFrame({"account_id": "A1", "occurred_at": own, "event": "x",
                         "user_id": np.arange(len(own)).astype(str)})
    whole = count(tables(tmp_path, usage_events=rows), AT)["usage_events"]
    assert [] == found_in(whole, ("churn",))
    cut = rows[rows["occurred_at"] < AT - dt.timedelta(days=8)]
    found = found_in(count(tables(tmp_path, usage_events=cut), AT)["usage_events"], ("churn",))
    assert any("in the seven days" in one.says for one in found)


def test_features_that_go_missing_are_named():
    """Beyond what the runs before explain, and not where they were missing all along."""
    past = [{"csat_last": 0.30 + 0.01 * (run % 2), "nps_last": 0.8} for run in range(5)]
    found = missing_jumps("churn", {"csat_last": 0.62, "nps_last": 0.82}, past, AT.date())
    assert len(found) == 1
    assert "used to be there: csat_last 62% (usually 30%). Did a table" in found[0].says
    assert [] == missing_jumps("churn", {"csat_last": 0.62}, past[:2], AT.date())
    assert [] == missing_jumps("churn", {"csat_last": 0.62}, [*past, {"csat_last": 0.6}], AT.date())


def spread(low, high, version="churn-1", number=1_000, day=1):
    """Scores that spread evenly."""
    return Spread.of(dt.date(2026, 10, day), np.linspace(low, high, number), version, 0.2)


def test_another_models_scores_are_no_history():
    """A new champion may score at another level; alerts are still compared, because tasks come from them."""
    past = [spread(0.0, 0.2 + 0.002 * run, day=1 + run) for run in range(5)]
    now = spread(0.1, 0.5, day=9)
    assert ["scores"] == [one.kind for one in shifted("churn", now, past)]
    assert ["alerts"] == [one.kind for one in alarmed("churn", now, past)]
    assert [] == shifted("churn", spread(0.1, 0.5, "churn-2", day=9), past)
    assert [] == shifted("churn", now, past[:2])
    assert [] == alarmed("churn", now, [*past, spread(0.09, 0.49, day=8)])
