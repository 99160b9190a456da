"""Labels: the golden folder value by value, a naive oracle on random tables, and nothing from after the close."""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnkit.cutoffs import moment
from churnkit.errors import ModelError, SettingsError
from churnkit.learning.labels import label
from churnkit.learning.targets import CHURN, MAINTENANCE, TARGETS, configured
from churnkit.schemas import LABELS
from churnkit.settings import Settings
from churnkit.signals.tables import Tables

GOLDEN = Path(os.environ.get("CHURNKIT_GOLDEN", Path(__file__).parents[2].parent / "shared" / "golden"))
DAY = dt.timedelta(days=1)
SHORT = replace(CHURN, lead=2 * DAY, horizon=10 * DAY, grace=4 * DAY)


def at(day):
    return moment("2025-01-01") + day * DAY


def points(entities, cutoffs, entity="account"):
    rows = [(f"{entity}:{e}@{c.isoformat()}", entity, e, e, c) for c in cutoffs for e in entities]
    frame = pd.DataFrame(rows, columns=["row_id", "entity", "entity_id", "account_id", "cutoff"])
    return frame.assign(cutoff=pd.to_datetime(frame["cutoff"], utc=True).dt.as_unit("us"))


def tables(reach=400, said=None, **frames):
    accounts = pd.DataFrame({"account_id": ["a", "b"], "created_at": [at(-900)] * 2})
    return Tables.from_frames(Settings(covers_until=at(reach), **(said or {})), accounts=accounts, **frames)


def subscriptions(*rows):
    """(account, start, end, notice, seats, plan, mrr) by day numbers; None is blank."""
    return pd.DataFrame(
        [
            {
                "account_id": a,
                "subscription_id": str(k),
                "started_at": at(s),
                "ended_at": None if e is None else at(e),
                "end_recorded_at": None if n is None else at(n),
                "seats": seats,
                "plan": plan,
                "mrr": mrr,
                "currency": "EUR",
            }
            for k, (a, s, e, n, seats, plan, mrr) in enumerate(rows)
        ]
    )


def sub(start, end=None, notice=None, *, seats=10.0, plan="team", mrr=100.0, account="a"):
    return account, start, end, notice, seats, plan, mrr


def told(target, rows, day=0, **given_tables):
    """(label, why, kind, value) of account a at one day."""
    book = tables(subscriptions=subscriptions(*rows), **given_tables)
    one = label(target, book, points(["a"], [at(day)])).iloc[0]
    return None if pd.isna(one["label"]) else int(one["label"]), one["why_none"], one["kind"], one["value"]


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the golden folder is absent; set CHURNKIT_GOLDEN")
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_the_golden_labels_value_by_value(name):
    """Every expected label and reason, blank for missing."""
    frames = {one: pd.read_csv(GOLDEN / f"{one}.csv", dtype=str)
              for one in ("accounts", "subscriptions", "assets", "asset_events")}
    frames["subscriptions"] = frames["subscriptions"].astype({"seats": float, "mrr": float})
    book = Tables.from_frames(Settings(covers_until=moment("2026-02-01")), **frames)
    expected = pd.read_csv(GOLDEN / "expected_labels.csv", dtype=str, keep_default_na=False).query("target == @name")
    target = TARGETS[name]
    asked = pd.DataFrame(
        {
            "row_id": expected["id"] + expected["cutoff"],
            "entity": target.entity,
            "entity_id": expected["id"],
            "account_id": expected["id"],
            "cutoff": pd.to_datetime(expected["cutoff"], utc=True).dt.as_unit("us"),
        }
    )
    found = label(target, book, asked)
    assert expected["label"].tolist() == ["" if pd.isna(one) else str(one) for one in found["label"]]
    assert expected["why_none"].tolist() == found["why_none"].tolist()
    assert list(LABELS) == list(found.columns)


@pytest.mark.parametrize(("rows", "expected"), [
    ([sub(-50)], (0, "")),
    ([sub(-50, 5)], (1, "")),
    ([sub(-50, 2)], (1, "")),  # the window's first instant
    ([sub(-50, 12)], (0, "")),  # its end is not in it
    ([sub(-50, 1)], (None, "in the lead")),
    ([sub(-50, 5, -1)], (None, "not in the population")),  # notice
    ([sub(-50, 5, -50)], (1, "")),  # a billing period's own end is no notice
    ([sub(-50, 5), sub(9)], (0, "")),  # healed on the last day of the grace
    ([sub(-50, 5), sub(10)], (1, "")),
    ([sub(-50, 5), sub(-20)], (0, "")),  # another one goes on
    ([sub(-50, -1)], (None, "not in the population")),
    ([sub(3)], (None, "not in the population")),
    ([sub(-50, 5, -1), sub(5, None, None)], (None, "not in the population")),  # its successor was not known yet
    ([sub(-50, 5, 30)], (0, "")),  # the end was recorded after the label's close
])
def test_churn_follows_the_spans_of_coverage(rows, expected):
    """Window, lead, grace, notice, billing periods and overlaps."""
    assert expected == told(SHORT, rows)[:2]


def test_a_label_that_is_not_mature_is_censored():
    """Window plus grace may not reach past what the table covers."""
    assert told(SHORT, [sub(-50, 5)], reach=15)[:2] == (None, "censored")
    assert told(SHORT, [sub(-50, 5)], reach=16)[:2] == (1, "")


@pytest.mark.parametrize(("rows", "expected"), [
    ([sub(-50)], (0, None)),
    ([sub(-50, 5), sub(5, seats=20.0, mrr=200.0)], (1, "seats")),
    ([sub(-50, 1), sub(1, seats=20.0, mrr=200.0)], (0, None)),  # inside the lead
    ([sub(-50, 5), sub(5, mrr=150.0)], (0, None)),  # a price rise alone
    ([sub(-50, 5), sub(5, plan="enterprise", mrr=300.0)], (1, "plan")),
    ([sub(-50, 5, plan="enterprise", mrr=300.0), sub(5)], (0, None)),  # a step down
    ([sub(-50), sub(6, plan="sms", seats=None, mrr=20.0)], (1, "addon")),
    ([sub(-50), sub(12, plan="sms", seats=None, mrr=20.0)], (0, None)),
    ([sub(-50, 5), sub(5, 8, seats=20.0)], (0, None)),  # grew, then left
    ([sub(-50, 5), sub(8, seats=30.0, mrr=300.0)], (1, "seats")),  # across a healed gap
    ([sub(-50, 8), sub(5)], (0, None)),  # a renewal that overlaps the row it follows for three days
    ([sub(-50, 8), sub(5, seats=15.0, mrr=150.0)], (1, "seats")),  # one that overlaps, with more seats
    ([sub(-50), sub(6, 9, plan="sms", seats=None, mrr=20.0)], (0, None)),  # an add-on for three days stands too short
    ([sub(-50, 5), sub(5, 7, seats=20.0), sub(7)], (0, None)),  # more seats for two days
    ([sub(-50, 11), sub(11, 13, seats=20.0), sub(13)], (0, None)),  # gone again after the window's end
    ([sub(-50, 11), sub(11, seats=20.0)], (1, "seats")),
])
def test_expansion_is_more_of_something_at_constant_price(rows, expected):
    """Seats, plan and add-on count, a price does not, and the account must stay."""
    found = told(replace(SHORT, name="expansion"), rows)
    assert expected == (found[0], found[2])


def test_the_gain_is_counted_at_the_price_the_account_paid():
    """Ten more seats at half the list price bring half the list price."""
    rows = [sub(-50, 5, mrr=50.0), sub(5, seats=20.0, mrr=150.0), sub(-90, account="b"), sub(-90, account="b")]
    gain = told(replace(SHORT, name="expansion"), rows)[3]
    assert gain == pytest.approx(50.0)


@pytest.mark.parametrize("seats", [None, 0.0])
def test_an_add_on_without_seats_gains_what_the_account_pays_for_it(seats):
    """Whatever others pay for theirs, and whatever it costs the account later."""
    said = {"features": {"plans": ["team"], "addons": ["sms"]}}
    added = [sub(-50, mrr=50.0), sub(6, 8, plan="sms", seats=seats, mrr=20.0),
             sub(8, plan="sms", seats=seats, mrr=35.0)]
    others = [sub(-90, account="b"), sub(-90, plan="sms", seats=seats, mrr=400.0, account="b")]
    target = replace(SHORT, name="expansion")
    assert (1, "addon", 20.0) == tuple(told(target, [*added, *others], said=said)[i] for i in (0, 2, 3))
    assert (0, None) == tuple(told(target, [sub(-50), sub(-50, 8, plan="sms", seats=seats), added[2]], said=said)[i]
                              for i in (0, 2)), "a dearer one is no more than it was"
    both = [sub(-50, 5), sub(5, seats=20.0, mrr=200.0), sub(5, plan="sms", seats=seats, mrr=20.0)]
    assert told(target, both, said=said)[3] == pytest.approx(120.0)


def test_a_gain_of_which_no_price_is_known_is_unknown_and_not_nothing():
    target = replace(SHORT, name="expansion")
    grown = told(target, [sub(-50, 5, mrr=None), sub(5, seats=20.0, mrr=None)])
    assert (1, "seats") == (grown[0], grown[2])
    assert np.isnan(grown[3])
    said = {"features": {"plans": ["team"], "addons": ["sms"]}}
    assert np.isnan(told(target, [sub(-50), sub(6, plan="sms", seats=None, mrr=None)], said=said)[3])


def test_plans_in_the_settings_order_win_over_prices():
    """A plan that costs less but stands higher is still a step up."""
    said = {"features": {"plans": ["gold", "silver"], "addons": ["sms"]}}
    rows = [sub(-50, 5, plan="gold", mrr=300.0), sub(5, plan="silver")]
    assert tuple(told(replace(SHORT, name="expansion"), rows, said=said)[i] for i in (0, 2)) == (1, "plan")


@pytest.mark.parametrize(("name", "rows", "expected"), [
    ("churn", [sub(-50, 5)], 3.0),
    ("expansion", [sub(-50, 5), sub(5, seats=20.0, mrr=200.0)], 3.0),
    ("expansion", [sub(-50, 6), sub(6, 9, seats=12.0), sub(9, seats=30.0)], 7.0),  # the largest gain's
    ("expansion", [sub(-50)], None),
])
def test_a_label_says_how_long_after_the_windows_start_it_happened(name, rows, expected):
    """In days from cutoff + lead; blank without an event."""
    book = tables(subscriptions=subscriptions(*rows))
    found = label(replace(SHORT, name=name), book, points(["a"], [at(0)]))["after_days"].tolist()
    assert [expected] == [None if np.isnan(one) else one for one in found]


def test_gains_are_in_the_workspaces_currency():
    """Twice the seats at 100 dollars a month gain 90 euros."""
    both = subscriptions(sub(-50, 5), sub(5, seats=20.0, mrr=200.0), sub(-50, account="b"))
    both.loc[[0, 1], "currency"] = "USD"
    book = tables(subscriptions=both, said={"rates": {"USD": 0.9}})
    assert [pytest.approx(90.0)] == label(replace(SHORT, name="expansion"), book, points(["a"], [at(0)]))[
        "value"
    ].tolist()


@pytest.mark.parametrize(("used", "expected"), [
    ([-3, 1, 4, 8, 11, 14], (0, "")),
    ([-3, 1, 4], (1, "")),
    ([-3, 1], (None, "in the lead")),
    ([-9], (None, "not in the population")),
    ([-3, 1, 4, 9, 13, 17], (1, "")),  # five days of silence after day 4
])
def test_without_subscriptions_a_span_of_no_use_is_churn(used, expected):
    """The silence begins at the last use before it."""
    events = pd.DataFrame({"account_id": "a", "occurred_at": [at(day) for day in used], "event": "x"})
    book = tables(usage_events=events, said={"targets": {"churn": {"inactivity": "4d"}}})
    one = label(SHORT, book, points(["a"], [at(0)])).iloc[0]
    assert expected == (None if pd.isna(one["label"]) else int(one["label"]), one["why_none"])


def test_an_inactivity_longer_than_the_grace_is_refused():
    """Because the label would close before the silence is over."""
    events = pd.DataFrame({"account_id": ["a"], "occurred_at": [at(0)], "event": ["x"]})
    with pytest.raises(SettingsError, match="Set grace = '30d'"):
        label(SHORT, tables(usage_events=events), points(["a"], [at(0)]))


def test_a_named_failure_code_counts_alone():
    """[targets.maintenance] code = 'pump' makes a fan's failure no positive."""
    events = pd.DataFrame(
        {"asset_id": ["m", "m"], "occurred_at": [at(1), at(40)], "kind": "failure", "code": ["fan", "pump"]}
    )
    assets = pd.DataFrame({"asset_id": ["m"], "account_id": ["a"], "installed_at": [at(-9)]})
    book = tables(
        assets=assets, asset_events=events, said={"targets": {"maintenance": {"code": "pump", "horizon": "5d"}}}
    )
    target = configured(MAINTENANCE, book.settings)
    found = label(target, book, points(["m"], [at(0), at(38)], "asset"))
    assert found["label"].tolist() == [0, 1]
    assert found["kind"].tolist() == [None, "pump"]


def test_treated_accounts_are_marked():
    """A task that stood inside the window marks the row, and the cutoff's share of marked rows is the propensity."""
    outcomes = pd.DataFrame(
        {"key": ["k"], "account_id": ["a"], "play": ["save"], "occurred_at": [at(3)], "status": ["completed"]}
    )
    book = tables(subscriptions=subscriptions(sub(-50), sub(-50, account="b")), outreach_outcomes=outcomes)
    found = label(SHORT, book, points(["a", "b"], [at(0), at(20)]))
    assert found["treated"].tolist() == [True, False, False, False]
    assert found["propensity"].tolist() == [0.5, 0.5, 0.0, 0.0]


def test_a_task_that_still_stands_at_the_cutoff_treats():
    """One opened before the cutoff counts until it is completed or dismissed; one dismissed inside the window stood."""
    steps = [("old", -9, "open"), ("done", -9, "open"), ("done", -1, "completed"), ("shut", -9, "snoozed"),
             ("shut", 3, "dismissed"), ("new", 3, "dismissed")]
    accounts = ["old", "done", "shut", "new"]
    outcomes = pd.DataFrame([{"key": key, "account_id": key, "play": "save", "occurred_at": at(day), "status": status}
                             for key, day, status in steps])
    book = Tables.from_frames(
        Settings(covers_until=at(400)), outreach_outcomes=outcomes,
        accounts=pd.DataFrame({"account_id": accounts, "created_at": [at(-900)] * 4}),
        subscriptions=subscriptions(*(sub(-50, account=one) for one in accounts)))
    assert label(SHORT, book, points(accounts, [at(0)]))["treated"].tolist() == [True, False, True, False]


def test_points_of_another_entity_are_refused():
    """An account's label cannot be asked of an asset."""
    with pytest.raises(ModelError, match="entity='account'"):
        label(CHURN, tables(subscriptions=subscriptions(sub(-50))), points(["m"], [at(0)], "asset"))


def random_spans(rng, accounts):
    """(account, start, length or None, notice or None, seats, days until recorded), one to five rows each."""
    return [(f"{account:03d}", int(rng.integers(-30, 31)), int(rng.integers(1, 26)) if rng.random() < 0.8 else None,
             int(rng.integers(-20, 26)) if rng.random() < 0.4 else None, float(rng.choice([5, 10])),
             int(rng.integers(0, 13)) if rng.random() < 0.5 else 0)
            for account in range(accounts) for _ in range(int(rng.integers(1, 6)))]


def as_book(made, accounts):
    frame = pd.DataFrame(made).assign(plan="team", currency="EUR")
    for name in ("started_at", "ended_at", "end_recorded_at", "recorded_at"):
        frame[name] = pd.to_datetime(
            pd.Series([None if pd.isna(day) else at(int(day)) for day in frame[name]]), utc=True
        )
    known = pd.DataFrame({"account_id": [f"{account:03d}" for account in range(accounts)], "created_at": at(-900)})
    return Tables.from_frames(
        Settings(covers_until=at(400)), accounts=known, subscriptions=frame.assign(mrr=frame["seats"] * 10)
    )


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_nothing_recorded_after_the_close_changes_a_label(seed):
    """Scrambling every row and every end known only after the close leaves both labels as they were."""
    rng = np.random.default_rng(seed)
    close, plain, scrambled = SHORT.window // DAY, [], []
    for account, start, length, notice, seats, late in random_spans(rng, 80):
        known, end = start + late, None if length is None else start + length
        row = {"account_id": account, "started_at": start, "ended_at": end, "seats": seats,
               "end_recorded_at": None if end is None else notice,
               "recorded_at": known}
        plain.append(row)
        if known > close:
            row = {
                **row,
                "started_at": int(rng.integers(-60, close)),
                "ended_at": None,
                "end_recorded_at": None,
                "seats": 99.0,
            }
        elif end is not None and max(known, end if notice is None else notice) > close:
            row = {**row, "ended_at": None, "end_recorded_at": None} if rng.random() < 0.5 else {
                **row, "ended_at": end + 40, "end_recorded_at": close + 1}
        scrambled.append(row)
    scrambled += [
        {**row, "started_at": 4, "ended_at": None, "end_recorded_at": None, "seats": 500.0, "recorded_at": close + 1}
        for row in scrambled[:20]
    ]
    asked = points([f"{account:03d}" for account in range(80)], [at(0)])
    first, second = as_book(plain, 80), as_book(scrambled[::-1], 80)
    for target in (SHORT, replace(SHORT, name="expansion")):
        found = label(target, first, asked)
        assert {0, 1} <= set(found["label"].dropna())  # the comparison says something
        pd.testing.assert_frame_equal(found, label(target, second, asked))


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_churn_agrees_with_a_walk_through_the_days(seed):
    """The oracle counts covered days one by one."""
    rows = random_spans(np.random.default_rng(seed), 120)
    book = as_book([{"account_id": account, "started_at": start, "ended_at": None if length is None else start + length,
                     "end_recorded_at": None, "seats": seats, "recorded_at": start}
                    for account, start, length, _, seats, _ in rows], 120)
    found = label(SHORT, book, points([f"{account:03d}" for account in range(120)], [at(0)]))
    for one in found.itertuples():
        mine = [(start, length) for account, start, length, *_ in rows if account == one.entity_id]
        assert walked(mine) == (None if pd.isna(one.label) else int(one.label), one.why_none), mine


def walked(mine):
    """Label and reason by counting days: lead 2, horizon 10, grace 4."""
    def covered(day):
        return any(start <= day and (length is None or day < start + length) for start, length in mine)

    if not covered(0):
        return None, "not in the population"
    end, last = None, 0
    for day in range(200):
        last = day + 1 if covered(day) else last
        if day + 1 - last > 4:
            end = last
            break
    if end is None or end >= 12:
        return 0, ""
    return (None, "in the lead") if end < 2 else (1, "")
