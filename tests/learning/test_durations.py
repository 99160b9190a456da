"""Durations: what they say is what the labels say, at every horizon, on random books and on the golden one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_labels import DAY, SHORT, as_book, at, points, random_spans, sub, subscriptions, tables

from churnkit.cutoffs import moment
from churnkit.errors import ModelError, SettingsError
from churnkit.learning.durations import HORIZONS, durations, edges, horizons
from churnkit.learning.labels import label
from churnkit.learning.targets import CHURN, EXPANSION, MAINTENANCE, TARGETS
from churnkit.settings import Settings, from_mapping
from churnkit.signals.tables import Tables

ENDS = (3.0, 5.0, 10.0, 20.0)


def agree(target, book, asked, found):
    """Every label that is known says what the duration says; gives how many were compared."""
    compared = 0
    for end in found.edges:
        labels = label(replace(target, horizon=end * DAY), book, asked)["label"].astype("float64").to_numpy()
        event, known = found.within(end)
        np.testing.assert_array_equal(~np.isnan(labels), known)
        np.testing.assert_array_equal(labels[known], event[known])
        compared += int(known.sum())
    return compared


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_event_within_the_horizon_is_the_label(seed):
    """On random books of overlapping, ending, healing subscriptions, at several cutoffs, some of them censored."""
    rng = np.random.default_rng(seed)
    book = as_book([{"account_id": account, "started_at": start, "ended_at": None if length is None else start + length,
                     "end_recorded_at": None, "seats": seats, "recorded_at": start}
                    for account, start, length, _, seats, _ in random_spans(rng, 60)], 60)
    book.covers_until["subscriptions"] = at(30)
    asked = points([f"{account:03d}" for account in range(60)], [at(0), at(9), at(14)])
    found = durations(SHORT, book, asked, ENDS)
    assert agree(SHORT, book, asked, found) > 100
    assert found.revised == 0
    assert len({*found.last[found.event]}) > 1  # events in several periods


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_with_rows_that_came_late_the_label_that_knows_most_stands(seed):
    """A late record may contradict an earlier label; those that nothing contradicts are said as they are."""
    rows = random_spans(np.random.default_rng(seed), 80)
    book = as_book([{"account_id": account, "started_at": start, "ended_at": None if length is None else start + length,
                     "end_recorded_at": None if length is None else notice, "seats": seats,
                     "recorded_at": start + late} for account, start, length, notice, seats, late in rows], 80)
    asked = points([f"{account:03d}" for account in range(80)], [at(0), at(7)])
    found = durations(SHORT, book, asked, ENDS)
    told = np.column_stack([label(replace(SHORT, horizon=end * DAY), book, asked)["label"].astype("float64")
                            for end in ENDS])
    falls = np.array([(np.diff(row[~np.isnan(row)]) < 0).any() for row in told])
    assert falls.sum() == found.revised
    said = np.column_stack([found.within(end)[0] for end in ENDS])
    same = np.isnan(told) | (told == said)
    assert same[~falls].all()
    latest = found.known
    widest = [row[~np.isnan(row)][-1] for row in told[latest]]
    assert widest == found.event[latest].astype(float).tolist()


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_failures_and_retirements_agree_with_the_labels(seed):
    """Assets that fail, retire first, or go on."""
    rng = np.random.default_rng(seed)
    names = [f"m{k}" for k in range(60)]
    failures = pd.DataFrame([{"asset_id": one, "occurred_at": at(0) + float(rng.uniform(-5, 40)) * DAY,
                              "kind": "failure", "code": str(rng.choice(["fan", "pump"]))}
                             for one in names for _ in range(int(rng.integers(0, 3)))])
    retired = [at(int(rng.integers(1, 40))) if rng.random() < 0.4 else None for _ in names]
    book = tables(assets=pd.DataFrame({"asset_id": names, "account_id": "a", "installed_at": at(-90),
                                       "retired_at": pd.to_datetime(pd.Series(retired), utc=True)}),
                  asset_events=failures)
    book.covers_until["asset_events"] = at(30)
    asked = points(names, [at(0), at(5)], "asset")
    found = durations(MAINTENANCE, book, asked, ENDS)
    assert agree(MAINTENANCE, book, asked, found) > 100
    first = failures[failures["occurred_at"] >= at(0)].groupby("asset_id")["occurred_at"].min()
    mine = found.event & (found.keys["cutoff"] == at(0)).to_numpy()
    expected = (first.loc[found.keys["entity_id"][mine]] - at(0)) / DAY
    np.testing.assert_allclose(expected, found.days[mine], atol=1e-6)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_without_subscriptions_silence_agrees_with_the_labels(seed):
    """The event is the last use before a span of no use, at the same instant as a walk through the uses finds it."""
    rng = np.random.default_rng(seed)
    names = [f"u{k}" for k in range(60)]
    used = {name: np.sort(rng.uniform(-3, 45, int(rng.integers(1, 30)))) for name in names}
    events = pd.DataFrame([{"account_id": name, "occurred_at": at(0) + float(day) * DAY, "event": "x"}
                           for name in names for day in used[name]])
    book = Tables.from_frames(
        Settings(covers_until=at(400), targets={"churn": {"inactivity": "4d"}}), usage_events=events,
        accounts=pd.DataFrame({"account_id": names, "created_at": [at(-900)] * 60}))
    book.covers_until["usage_events"] = at(30)
    asked = points(names, [at(0), at(6)])
    found = durations(SHORT, book, asked, ENDS)
    assert agree(SHORT, book, asked, found) > 20
    assert found.event.any()
    for row in np.flatnonzero(found.event):
        cutoff = (found.keys["cutoff"][row] - at(0)) / DAY
        mine = used[found.keys["entity_id"][row]]
        mine = mine[mine >= cutoff - 4]
        last = next(day for day, following in zip(mine, [*mine[1:], np.inf], strict=True) if following > day + 4)
        assert last - cutoff - 2 == pytest.approx(found.days[row], abs=1e-6)


@pytest.mark.parametrize("name", ["churn", "maintenance"])
def test_the_golden_book_agrees_with_its_labels(golden, name):
    """At every cutoff of the worked example."""
    frames = {one: pd.read_csv(golden / f"{one}.csv", dtype=str)
              for one in ("accounts", "subscriptions", "assets", "asset_events")}
    frames["subscriptions"] = frames["subscriptions"].astype({"seats": float, "mrr": float})
    book = Tables.from_frames(Settings(covers_until=moment("2026-02-01")), **frames)
    expected = pd.read_csv(golden / "expected_labels.csv", dtype=str, keep_default_na=False).query("target == @name")
    target = TARGETS[name]
    asked = pd.DataFrame({
        "row_id": expected["id"] + expected["cutoff"], "entity": target.entity, "entity_id": expected["id"],
        "account_id": expected["id"], "cutoff": pd.to_datetime(expected["cutoff"], utc=True).dt.as_unit("us")})
    found = durations(target, book, asked, [*HORIZONS[name], target.horizon / DAY])
    assert agree(target, book, asked, found) > len(HORIZONS[name])
    said, known = found.within(target.horizon / DAY)
    assert expected["label"].tolist() == [f"{one:.0f}" if has else "" for one, has in zip(said, known, strict=True)]


def one(rows, ends=ENDS, reach=400):
    """Days and event of account a at day 0: lead 2, grace 4."""
    found = durations(SHORT, tables(subscriptions=subscriptions(*rows), reach=reach), points(["a"], [at(0)]), ends)
    return round(float(found.days[0]), 6), bool(found.event[0]), bool(found.known[0])


@pytest.mark.parametrize(("rows", "reach", "expected"), [
    ([sub(-50, 9)], 400, (7.0, True, True)),
    ([sub(-50)], 400, (20.0, False, True)),
    ([sub(-50, 2)], 400, (0.0, True, True)),  # at the window's first instant
    ([sub(-50, 5)], 400, (3.0, True, True)),  # at the first edge: in the second period
    ([sub(-50, 1)], 400, (0.0, False, False)),  # in the lead
    ([sub(-50)], 12, (5.0, False, True)),  # followed to 12 - 2 - 4 = 6 days
    ([sub(-50, 11)], 12, (5.0, False, True)),
    ([sub(-50)], 8, (0.0, False, False)),
])
def test_days_count_from_the_leads_end_and_stop_where_the_grace_does(rows, reach, expected):
    assert expected == one(rows, reach=reach)


def test_what_is_known_at_a_date_is_what_the_data_told_then():
    """Cutting back equals durations from data that reach no further, where nothing came late."""
    rng = np.random.default_rng(4)
    made = [{"account_id": account, "started_at": start, "ended_at": None if length is None else start + length,
             "end_recorded_at": None, "seats": seats, "recorded_at": start}
            for account, start, length, _, seats, _ in random_spans(rng, 80)]
    asked = points([f"{account:03d}" for account in range(80)], [at(0), at(8)])
    whole, early = as_book(made, 80), as_book(made, 80)
    early.covers_until["subscriptions"] = at(18)
    cut, told = durations(SHORT, whole, asked, ENDS).until(at(18)), durations(SHORT, early, asked, ENDS)
    pd.testing.assert_frame_equal(told.frame(), cut.frame())
    assert not cut.frame().equals(durations(SHORT, whole, asked, ENDS).frame())


def test_person_periods_are_those_of_a_loop():
    """One row for each period at risk, the last one with the event."""
    rng = np.random.default_rng(6)
    book = as_book([{"account_id": account, "started_at": start, "ended_at": None if length is None else start + length,
                     "end_recorded_at": None, "seats": seats, "recorded_at": start}
                    for account, start, length, _, seats, _ in random_spans(rng, 50)], 50)
    found = durations(SHORT, book, points([f"{account:03d}" for account in range(50)], [at(0)]), ENDS)
    expected = [(row, period, float(bool(found.event[row]) and start < found.days[row] <= end))
                for row in range(50) if found.known[row]
                for period, (start, end) in enumerate(zip((0, *ENDS[:-1]), ENDS, strict=True))
                if found.days[row] > start]
    assert expected == list(zip(*(column.tolist() for column in found.periods()), strict=True))


def test_periods_are_no_longer_than_the_middle_one():
    """The horizons stay edges, and long ways between them are parted."""
    assert edges(HORIZONS["maintenance"]) == (1, 3, 7, 10.5, 14, 18, 22, 26, 30)
    assert edges([90]) == (90,)


def test_horizons_come_from_the_settings():
    """Expansion has no curve, and an empty list asks for none."""
    assert horizons(CHURN, Settings()) == (30, 60, 90, 180)
    assert horizons(CHURN, Settings(targets={"churn": {"horizons": ["45d", "2w"]}})) == (14, 45)
    assert horizons(CHURN, Settings(targets={"churn": {"horizons": []}})) == ()
    assert horizons(EXPANSION, Settings()) == ()
    with pytest.raises(SettingsError, match=r"expansion has no risk curve.*Delete its horizons"):
        from_mapping({"targets": {"expansion": {"horizons": ["30d"]}}})


def test_a_horizon_that_is_no_edge_is_refused():
    found = durations(SHORT, tables(subscriptions=subscriptions(sub(-50))), points(["a"], [at(0)]), ENDS)
    with pytest.raises(ModelError, match=r"No period ends at 4 days, only at 3, 5, 10, 20"):
        found.within(4)
    with pytest.raises(ModelError, match=r"Set for instance horizons"):
        durations(SHORT, tables(subscriptions=subscriptions(sub(-50))), points(["a"], [at(0)]), ())
