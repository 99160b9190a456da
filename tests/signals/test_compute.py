"""Features from small hand-written tables, group by group, and windows against a naive loop."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest

from churnkit.cutoffs import moment
from churnkit.errors import FeatureError
from churnkit.settings import from_mapping
from churnkit.signals import compute
from churnkit.signals.catalog import Catalog, discover
from churnkit.signals.compute import compute_features
from churnkit.signals.features import groups
from churnkit.signals.points import points_at
from churnkit.signals.tables import Tables

CUTOFF = moment("2025-06-01")
LONG_AGO = "2024-01-01T00:00:00Z"
CATALOG = Catalog(events=("open", "export"), sensors=("heat",), error_codes=("e1",), components=("pump",),
                  plans=("small", "large"), addons=("extra",))


def before(days: float, cutoff: dt.datetime = CUTOFF) -> dt.datetime:
    """A time so many days before the cutoff."""
    return cutoff - dt.timedelta(days=days)


def book(settings=None, **frames):
    """Tables of one account 'A', with whatever is given beside it."""
    base = {
        "accounts": pd.DataFrame({"account_id": ["A"], "created_at": [LONG_AGO]}),
        "subscriptions": pd.DataFrame({"account_id": ["A"], "started_at": [LONG_AGO], "plan": ["small"],
                                       "seats": [10.0],
                                       "mrr": [100.0], "currency": ["EUR"]}),
    }
    return Tables.from_frames(from_mapping({"covers_until": "2026-02-01", "invalid": "drop", **(settings or {})}),
                              **{**base, **frames})


def at(tables, *cutoffs, entity="account"):
    """The features of the one account (or asset) at the cutoffs."""
    return compute_features(tables, points_at(tables, entity, list(cutoffs or [CUTOFF])), CATALOG)


def one(tables, entity="account"):
    """The one row at the one cutoff."""
    found = at(tables, entity=entity)
    assert len(found) == 1
    return found.iloc[0]


def test_windows_are_half_open_and_know_when_a_row_was_recorded():
    """An event at the cutoff is out, one exactly a window ago is in, one recorded at the cutoff is in, later is out."""
    micro = dt.timedelta(microseconds=1)
    rows = [(CUTOFF, None), (CUTOFF - micro, None), (before(28), None), (before(28) - micro, None),
            (before(1), CUTOFF), (before(1), CUTOFF + micro)]
    events = pd.DataFrame(rows, columns=["occurred_at", "recorded_at"]).assign(account_id="A", event="open")
    row = one(book(usage_events=events))
    assert (row["events_7d"], row["events_28d"], row["events_84d"]) == (2, 3, 4)
    assert row["days_since_last_event"] == pytest.approx(1 / 86_400_000_000, abs=1e-9)


def test_last_use_is_found_however_long_ago():
    """An account that sees nothing within the longest window still has its last event; its counts are 0."""
    events = pd.DataFrame({"account_id": ["A", "A"], "event": ["open", "open"],
                           "occurred_at": [before(300), before(250)]})
    row = one(book(usage_events=events))
    assert (row["days_since_last_event"], row["events_84d"], row["active_users_28d"]) == (250, 0, 0)


def test_usage_says_what_it_does_not_know():
    """Rows without users or durations leave those features missing, not 0; without rows they are 0."""
    events = pd.DataFrame({"account_id": ["A"], "event": ["open"], "occurred_at": [before(10)]})
    row = one(book(usage_events=events))
    assert np.isnan(row["active_users_28d"])
    assert np.isnan(row["minutes_28d"])
    assert (row["active_users_7d"], row["minutes_7d"]) == (0, 0)


def test_summed_usage_counts_quantities_and_whole_periods():
    """A row per day counts its quantity, and the cutoff's own day is not known yet."""
    events = pd.DataFrame({"account_id": "A", "event": "open", "quantity": [5.0, 7.0], "users": [3.0, 4.0],
                           "occurred_at": [before(1), before(0.5)]})
    row = one(book({"tables": {"usage_events": {"grain": "day"}}}, usage_events=events))
    assert (row["events_7d"], row["peak_users_28d"], row["seats_active_share_28d"]) == (5, 3, 0.3)


def test_usage_against_its_usual_level_and_first_uses():
    """The usual level is the median over the blocks of 28 days before, from the first with anything in it."""
    days = [1, 2] + [30] * 4 + [90] * 6 + [120] * 8  # blocks 0: 2, 1: 4, 2: none, 3: 6, 4: 8
    events = pd.DataFrame({"account_id": "A", "event": "open", "user_id": "u",
                           "occurred_at": [before(d) for d in days]})
    events.loc[0, "event"] = "export"
    row = one(book(usage_events=events))
    assert (row["events_28d"], row["events_28d_before"], row["events_usual_28d"]) == (2, 4, 5)
    assert (row["events_change_28d"], row["events_vs_usual_28d"]) == (-0.5, -0.6)
    assert (row["new_features_28d"], row["new_features_84d"], row["event_export_28d"]) == (1, 1, 1)


def test_a_ticket_is_what_it_was_at_the_cutoff():
    """Open until resolved, rated only when rated, passed on only when closed; a reopened one is open again."""
    tickets = pd.DataFrame({
        "ticket_id": ["T1", "T2", "T3"], "account_id": "A",
        "opened_at": [before(20), before(18), before(30)], "first_replied_at": [before(19), None, before(29)],
        "resolved_at": [CUTOFF, None, before(25)], "reopened_at": [None, None, before(2)],
        "escalated_at": [None, before(1), None], "human_requested_at": [None, before(3), None],
        "reassigned_count": [2, None, 1], "csat": [1.0, None, 5.0], "effort": [7.0, None, 2.0],
        "rated_at": [CUTOFF, None, before(24)], "handed_over_at": [None, before(2), None],
    })
    row = one(book(support_tickets=tickets))
    expected = {
        "tickets_opened_28d": 2, "tickets_open": 3, "oldest_ticket_days": 30, "tickets_escalated_28d": 1,
        "human_requested_28d": 1, "tickets_reopened_28d": 1, "tickets_reassigned_84d": 1, "bot_handovers_28d": 1,
        "first_reply_hours_median_84d": 24, "resolution_hours_worst_84d": 120, "first_contact_share_84d": 0,
        "csat_last": 5, "csat_mean_84d": 5, "csat_low_84d": 0, "effort_last": 2, "effort_low_84d": 1,
        "repeat_contacts_28d": 1,
    }
    assert expected == {name: row[name] for name in expected}


def test_a_ticket_reopened_after_its_end_was_not_solved_at_the_first_contact():
    """From the reopening on, not before it, and not for a version of the ticket that has superseded it."""
    tickets = pd.DataFrame({"ticket_id": ["T1", "T2"], "account_id": "A", "opened_at": before(30),
                            "resolved_at": before(25), "reopened_at": [before(2), None]})
    found = at(book(support_tickets=tickets), before(2), CUTOFF)
    assert list(found["first_contact_share_84d"]) == [1, 0.5]
    again = pd.DataFrame({"ticket_id": ["T1", "T2"] * 2, "account_id": "A", "opened_at": before(30),
                          "resolved_at": before(25), "reopened_at": [before(2), None, None, None],
                          "recorded_at": [before(30), before(30), before(1), before(1)]})
    found = at(book(support_tickets=again), before(1.5), CUTOFF)
    assert list(found["first_contact_share_84d"]) == [0.5, 1]
    assert list(found["tickets_opened_84d"]) == [2, 2]


def test_a_tickets_text_is_one_message_whatever_the_versions_of_the_ticket():
    """An angry ticket that was exported three times weighs as much as a glad one that was exported once."""
    tickets = pd.DataFrame({"ticket_id": ["T1"] * 3 + ["T2"], "account_id": "A", "opened_at": before(9),
                            "recorded_at": [before(9), before(8), before(7), before(9)],
                            "body": ["Terrible. I hate this awful, broken product."] * 3 + ["Wonderful, thank you!"]})
    once = book(support_tickets=tickets.drop_duplicates("ticket_id"))
    assert one(book(support_tickets=tickets))["mood_mean_28d"] == one(once)["mood_mean_28d"]


def test_of_the_versions_of_a_record_the_latest_known_counts():
    """A ticket exported anew with its end is open before that export and closed after it."""
    tickets = pd.DataFrame({
        "ticket_id": "T1", "account_id": "A", "opened_at": before(5), "resolved_at": [None, before(1)],
        "recorded_at": [before(5), before(-1)],
    })
    found = at(book(support_tickets=tickets), CUTOFF, before(-2))
    assert list(found["tickets_open"]) == [1, 0]
    assert list(found["tickets_opened_28d"]) == [1, 1]


def test_reassignments_from_the_history_of_changes_are_known_one_by_one():
    """A count is known at the record's end only; record_changes say more, sooner."""
    tickets = pd.DataFrame({"ticket_id": ["T1"], "account_id": ["A"], "opened_at": [before(5)],
                            "reassigned_count": [3], "resolved_at": [before(-5)]})
    changes = pd.DataFrame({"table": "support_tickets", "id": "T1", "field": "reassigned_count", "value": ["1", "2"],
                            "changed_at": [before(4), before(-1)]})
    assert one(book(support_tickets=tickets))["tickets_reassigned_84d"] == 0
    assert one(book(support_tickets=tickets, record_changes=changes))["tickets_reassigned_84d"] == 1


def test_surveys_remember_the_last_and_the_one_before():
    """Of each kind by itself; the detractor follows from the last score."""
    surveys = pd.DataFrame({"account_id": "A", "kind": ["nps", "nps", "csat", "nps"], "score": [9.0, 4.0, 3.0, 10.0],
                            "responded_at": [before(90), before(10), before(5), before(-1)]})
    row = one(book(surveys=surveys))
    expected = {"nps_last": 4, "nps_before": 9, "nps_change": -5, "nps_detractor": 1, "days_since_survey": 5,
                "survey_csat_last": 3}
    assert expected == {name: row[name] for name in expected}


def test_invoices_are_overdue_until_they_are_paid():
    """Due yesterday counts, due tomorrow or paid does not; failed attempts are known with the payment."""
    invoices = pd.DataFrame({
        "invoice_id": ["I1", "I2", "I3", "I4"], "account_id": "A", "issued_at": [before(40)] * 4,
        "due_at": [before(10), before(3), before(-1), before(20)], "paid_at": [None, CUTOFF, None, before(2)],
        "amount": [100.0, 50.0, 7.0, 3.0], "currency": "EUR", "failed_attempts": [5, 2, 0, 1],
    })
    row = one(book(invoices=invoices))
    assert (row["overdue_amount"], row["overdue_days"], row["failed_payments_84d"]) == (150, 10, 1)


def test_contract_follows_spans_prices_and_notice():
    """Seats of the main plan, money of all, its price per seat against twelve weeks ago, and the next renewal."""
    spans = pd.DataFrame({
        "account_id": "A", "started_at": [LONG_AGO, before(30), before(30)], "ended_at": [before(30), None, None],
        "plan": ["small", "large", "extra"], "seats": [10.0, 10.0, 1.0], "mrr": [100.0, 150.0, 10.0],
        "currency": ["EUR", "USD", "EUR"], "renews_at": [None, before(-40), None], "auto_renew": [None, True, None],
    })
    row = one(book({"rates": {"USD": 0.8}, "features": {"addons": ["extra"]}}, subscriptions=spans))
    expected = {"mrr": 130, "mrr_84d_before": 100, "mrr_change_84d": 30, "seats": 10, "seats_change_84d": 0,
                "plan": "large", "plan_rank": 2, "days_to_renewal": 40, "auto_renew": 1, "notice_given": 0}
    assert expected == {name: row[name] for name in expected}
    assert row["price_change_84d"] == pytest.approx(0.2)  # the add-on's money is no price of a seat


def test_money_is_named_in_the_customers_own_currency():
    """A book in one currency that is not the workspace's is told in it; of several the workspace's is meant."""
    spans = pd.DataFrame({"account_id": "A", "started_at": [LONG_AGO, LONG_AGO], "mrr": 1.0, "currency": "USD"})
    assert discover(book(subscriptions=spans)).currency == "USD"
    mixed = spans.assign(currency=["USD", "EUR"])
    assert discover(book({"rates": {"USD": 0.8}}, subscriptions=mixed)).currency == "EUR"


@pytest.mark.parametrize(("months", "ahead", "days"), [(12, 40, 40), (12, 40 + 2 * 365.25, 40), (None, 40 + 365.25, 40),
                                                     (1, 31, 31), (12, 366, 366), (3, -1, 90.3125)])
def test_a_renewal_shown_by_a_later_export_does_not_tell_that_the_customer_stayed(months, ahead, days):
    """The next renewal of two years later would give away that there was one in between."""
    spans = pd.DataFrame({"account_id": "A", "started_at": [LONG_AGO], "mrr": 1.0, "currency": "EUR",
                          "renews_at": [before(-ahead)], "billing_months": pd.array([months], dtype="Int64")})
    assert days == pytest.approx(one(book(subscriptions=spans))["days_to_renewal"])


@pytest.mark.parametrize(("months", "ahead", "coming"), [(12, 104.9, 12), (12, 105, 0), (1, 20, 1), (3, 0, 3),
                                                       (None, 40, np.nan), (12, None, np.nan)])
def test_what_comes_up_for_renewal_is_as_long_as_it_is_billed_for(months, ahead, coming):
    """A year that ends within the window weighs more than a month; what is not known stays missing."""
    spans = pd.DataFrame({"account_id": "A", "started_at": [LONG_AGO], "mrr": 1.0, "currency": "EUR",
                          "renews_at": [before(-ahead) if ahead is not None else None],
                          "billing_months": pd.array([months], dtype="Int64")})
    row = one(book(subscriptions=spans))
    assert row["billing_months"] == pytest.approx(months or np.nan, nan_ok=True)
    if ahead is not None:
        assert row["renewing_months_105d"] == pytest.approx(coming, nan_ok=True)


@pytest.mark.parametrize(
    ("ended", "told", "follows", "notice"),
    [
        (before(-30), before(1), None, 1),  # told before the cutoff
        (before(-30), before(-1), None, 0),  # told after it
        (before(-30), None, None, 0),  # known when it happens
        (before(-30), LONG_AGO, None, 0),  # a billing period's own end
        (before(-30), before(1), before(2), 0),  # something else runs on
        (None, None, None, 0),
    ],
)
def test_notice_is_an_end_that_was_told_and_nothing_follows(ended, told, follows, notice):
    """Every way in which a subscription may end."""
    spans = [{"account_id": "A", "started_at": LONG_AGO, "ended_at": ended, "end_recorded_at": told,
              "recorded_at": LONG_AGO}]
    if follows:
        spans.append({"account_id": "A", "started_at": follows, "recorded_at": follows})
    frame = pd.DataFrame(spans, columns=["account_id", "started_at", "ended_at", "end_recorded_at", "recorded_at"])
    assert notice == one(book({"invalid": "drop"}, subscriptions=frame))["notice_given"]


def test_relationship_counts_people_and_tasks():
    """Machines are no touches; a champion who left is told from one who stays; a task is counted once."""
    touches = pd.DataFrame({"account_id": "A", "occurred_at": [before(3), before(2), before(40)],
                            "by": ["kim", "bot", "kim"], "channel": "call", "direction": "outbound"})
    contacts = pd.DataFrame({"contact_id": ["C1", "C2", "C3"], "account_id": "A",
                             "role": ["champion", "champion", "user"],
                             "left_at": [before(10), None, before(5)]})
    outcomes = pd.DataFrame({"key": ["k1", "k1", "k2"], "account_id": "A", "play": "save",
                             "occurred_at": [before(9), before(8), before(7)],
                             "status": ["completed", "completed", "dismissed"]})
    row = one(book(touches=touches, contacts=contacts, outreach_outcomes=outcomes))
    expected = {"touches_7d": 1, "touches_84d": 2, "days_since_touch": 3, "champion_left_84d": 1, "champions": 1,
                "tasks_completed_84d": 1, "tasks_dismissed_84d": 1}
    assert expected == {name: row[name] for name in expected}


EQUIPMENT = {
    "assets": pd.DataFrame({"asset_id": ["M1", "M2", "M3"], "account_id": "A", "model": "x", "installed_at": LONG_AGO,
                            "retired_at": [None, None, before(1)]}),
    "telemetry": pd.DataFrame({"asset_id": "M1", "sensor": "heat", "value": [10.0, 12.0, 14.0, 99.0],
                               "occurred_at": [before(3), before(2), before(1), CUTOFF]}),
    "asset_events": pd.DataFrame({
        "asset_id": ["M1", "M1", "M2", "M3", "M1"], "kind": ["error", "error", "maintenance", "error", "failure"],
        "code": ["e1", "e2", "pump", "e1", "pump"],
        "occurred_at": [before(1), before(6), before(50), before(2), before(20)]}),
}


def test_equipment_by_sensor_code_and_component():
    """Readings, errors and services of one asset, and none of another's."""
    found = at(book(**EQUIPMENT), entity="asset").set_index("entity_id")
    assert list(found.index) == ["M1", "M2"]
    expected = {"heat_mean_7d": 12, "heat_min_7d": 10, "heat_max_7d": 14, "heat_slope_7d": 2, "heat_mean_1d": 14,
                "errors_7d": 2, "errors_1d": 1, "errors_e1_7d": 1, "days_since_failure": 20,
                "days_since_failure_pump": 20,
                "failures_84d": 1, "age_days": 517}
    assert expected == {name: found.loc["M1", name] for name in expected}
    assert found.loc["M1", "heat_spread_7d"] == pytest.approx(np.std([10, 12, 14]))
    assert (found.loc["M2", "errors_7d"], found.loc["M2", "days_since_maintenance_pump"]) == (0, 50)
    assert np.isnan(found.loc["M2", "heat_mean_7d"])


def test_an_account_has_its_worst_asset_in_service():
    """A retired asset's errors count no more."""
    row = one(book(**EQUIPMENT))
    expected = {"assets_in_service": 2, "worst_errors_7d": 2, "worst_failures_84d": 1,
                "worst_days_since_maintenance": 50,
                "worst_heat_max_7d": 14, "oldest_asset_days": 517}
    assert expected == {name: row[name] for name in expected}


def test_absent_tables_give_missing_features_and_given_ones_zeros():
    """Nobody may read 'no tickets' where nobody looked."""
    row = one(book(support_tickets=pd.DataFrame({"ticket_id": ["T"], "account_id": ["A"], "opened_at": [before(-5)]})))
    assert row["tickets_opened_28d"] == 0
    for name in ("events_28d", "overdue_amount", "touches_28d", "champion_left_84d", "assets_in_service", "nps_last",
                 "worst_errors_7d"):
        assert np.isnan(row[name]), name


def test_sentiment_comes_from_what_customers_wrote():
    """A grateful message lifts the mean, an angry one makes the worst."""
    tickets = pd.DataFrame({"ticket_id": ["T"], "account_id": ["A"], "opened_at": [before(9)]})
    texts = ["This is wonderful, thank you so much!", "Terrible. I hate this awful, broken product."]
    messages = pd.DataFrame({"ticket_id": "T", "account_id": "A", "occurred_at": [before(40), before(2)],
                             "author": "customer", "text": texts})
    row = one(book(support_tickets=tickets, ticket_messages=messages))
    assert row["mood_worst_28d"] < 0 < row["mood_mean_84d"] - row["mood_worst_84d"]
    assert row["mood_trend_84d"] < 0


def test_features_keep_rows_order_and_index_whatever_the_points():
    """Shuffled points of both kinds come back as they were, in chunks or whole."""
    tables = book(**EQUIPMENT)
    points = pd.concat([points_at(tables, "account", [CUTOFF, before(7)]), points_at(tables, "asset", [CUTOFF])])
    mixed = points.sample(frac=1, random_state=3)
    found = compute_features(tables, mixed, CATALOG)
    assert list(found["row_id"]) == list(mixed["row_id"])
    assert list(found.columns[5:]) == [name for group in groups(CATALOG).values() for name in group.names]
    whole = compute_features(tables, points, CATALOG).set_index("row_id").loc[list(mixed["row_id"])].reset_index()
    pd.testing.assert_frame_equal(found[whole.columns], whole)


def test_chunks_change_nothing(monkeypatch):
    """Computed one point at a time the features are the same."""
    tables = book(**EQUIPMENT)
    whole = at(tables, CUTOFF, before(7), before(60))
    monkeypatch.setattr(compute, "CHUNK", 1)
    pd.testing.assert_frame_equal(whole, at(tables, CUTOFF, before(7), before(60)))


def test_wrong_points_are_refused():
    """A column too few or a row twice: the error names the mend."""
    tables = book()
    points = points_at(tables, "account", [CUTOFF])
    with pytest.raises(FeatureError, match="Make them with prediction_points"):
        compute_features(tables, points.drop(columns="cutoff"))
    with pytest.raises(FeatureError, match="drop_duplicates"):
        compute_features(tables, pd.concat([points, points]))


def test_no_points_give_no_rows():
    """An empty frame of points has the columns and no rows."""
    tables = book()
    found = compute_features(tables, points_at(tables, "account", [moment("2020-01-01")]), CATALOG)
    assert found.shape[0] == 0
    assert "events_28d" in found
