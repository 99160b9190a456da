"""Who is asked about, and when."""

from __future__ import annotations

import pandas as pd
import pytest

from churnkit.cutoffs import moment
from churnkit.errors import FeatureError
from churnkit.schemas import POINTS
from churnkit.settings import from_mapping
from churnkit.signals.points import points_at, prediction_points
from churnkit.signals.tables import Tables

ACCOUNTS = pd.DataFrame({"account_id": ["B", "A", "007", "7", "N"], "created_at": ["2024-01-01"] * 4 + ["2025-08-01"]})
SPANS = pd.DataFrame({
    "account_id": ["A", "B", "007", "7", "N"], "started_at": ["2024-01-01"] * 4 + ["2025-08-01"],
    "ended_at": [None, "2025-06-01", None, "2025-05-31", None],
    "end_recorded_at": [None, None, None, "2025-06-02", None],
})
SETTINGS = from_mapping({"covers_until": "2026-01-01"})


def test_points_are_the_accounts_that_run_as_known_at_the_cutoff():
    """B ends at the cutoff and is gone; 7's end was told a day late, so it seemed to run; N does not exist yet."""
    tables = Tables.from_frames(SETTINGS, accounts=ACCOUNTS, subscriptions=SPANS)
    found = prediction_points(tables, at="2025-06-01")
    assert list(found.columns) == list(POINTS)
    assert list(found["entity_id"]) == ["007", "7", "A"]
    assert found["row_id"].iloc[0] == "account:007@2025-06-01T00:00:00+00:00"
    assert str(found["cutoff"].dtype) == "datetime64[us, UTC]"


def test_a_row_of_cutoffs_is_half_a_calendar():
    """From start to end in steps, ordered by cutoff and then by account."""
    tables = Tables.from_frames(SETTINGS, accounts=ACCOUNTS, subscriptions=SPANS)
    found = prediction_points(tables, start="2025-05-01", end="2025-06-30", every="30d")
    assert [(row.entity_id, row.cutoff.strftime("%m-%d")) for row in found.itertuples()] == [
        ("007", "05-01"), ("7", "05-01"), ("A", "05-01"), ("B", "05-01"),
        ("007", "05-31"), ("7", "05-31"), ("A", "05-31"), ("B", "05-31"),
        ("007", "06-30"), ("A", "06-30")]
    assert found["row_id"].is_unique


def test_without_subscriptions_use_makes_an_account_active():
    """Used within the inactivity span, as known by then."""
    events = pd.DataFrame({"account_id": ["A", "B", "7"], "event": "open", "recorded_at": [None, None, "2025-06-02"],
                           "occurred_at": ["2025-05-20", "2025-04-01", "2025-05-30"]})
    tables = Tables.from_frames(SETTINGS, accounts=ACCOUNTS, usage_events=events)
    assert list(prediction_points(tables, at="2025-06-01")["entity_id"]) == ["A"]
    longer = from_mapping({"covers_until": "2026-01-01", "targets": {"churn": {"inactivity": "90d"}}})
    tables = Tables.from_frames(longer, accounts=ACCOUNTS, usage_events=events)
    assert list(prediction_points(tables, at="2025-06-01")["entity_id"]) == ["A", "B"]


def test_assets_are_points_while_in_service_and_know_their_account():
    """By their latest known version: M2 moved from A to B, which became known in May."""
    assets = pd.DataFrame({
        "asset_id": ["M1", "M2", "M2", "M3"], "account_id": ["A", "A", "B", "B"], "installed_at": "2024-01-01",
        "retired_at": ["2025-06-01", None, None, "2025-06-02"],
        "recorded_at": ["2024-01-01", "2024-01-01", "2025-05-01", "2024-01-01"]})
    tables = Tables.from_frames(SETTINGS, accounts=ACCOUNTS, subscriptions=SPANS, assets=assets)
    found = points_at(tables, "asset", [moment("2025-04-01"), moment("2025-06-01")])
    assert list(zip(found["entity_id"], found["account_id"], strict=True)) == [
        ("M1", "A"), ("M2", "A"), ("M3", "B"), ("M2", "B"), ("M3", "B")]


@pytest.mark.parametrize(
    ("asked", "mend"),
    [
        ({"entity": "acount", "at": "2025-06-01"}, "Did you mean 'account'"),
        ({}, "Say when"),
        ({"at": "2025-06-01", "start": "2025-01-01", "end": "2025-06-01"}, "Say when"),
        ({"start": "2025-01-01"}, "Say when"),
    ],
)
def test_a_question_that_is_not_one_is_refused(asked, mend):
    """Exactly one of `at`, and `start` with `end`."""
    tables = Tables.from_frames(SETTINGS, accounts=ACCOUNTS, subscriptions=SPANS)
    with pytest.raises(FeatureError, match=mend):
        prediction_points(tables, **asked)
