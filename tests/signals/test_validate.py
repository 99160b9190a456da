"""Validation: every kind of finding is found, named, counted, and treated as `invalid` says."""

from __future__ import annotations

import csv

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from churnkit.errors import DataError
from churnkit.schemas import RAW_TABLES
from churnkit.settings import Settings
from churnkit.signals.tables import Tables
from churnkit.signals.validate import Finding, paragraph

ACCOUNTS = pd.DataFrame({"account_id": ["A1", "A2", "017"], "created_at": ["2024-01-01"] * 3})
GOOD = {"account_id": "A1", "occurred_at": "2024-03-01", "event": "open"}

BROKEN_USAGE = {  # check -> the row that breaks it
    "required": {**GOOD, "account_id": None},
    "type": {**GOOD, "occurred_at": "01/03/2024"},
    "range": {**GOOD, "quantity": -1.0},
    "order": {**GOOD, "recorded_at": "2024-02-01"},
    "future": {**GOOD, "occurred_at": "2031-01-01"},
    "length": {**GOOD, "event": "e" * 1000},
    "control characters": {**GOOD, "user_id": "a\nb"},
    "reference": {**GOOD, "account_id": "A9"},
    "leading zeros": {**GOOD, "account_id": "17"},
}


def usage(*rows) -> pd.DataFrame:
    """Usage rows after one good one."""
    return pd.DataFrame([{**GOOD, "event": "first"}, *rows])


def drop(at="2026-01-01", **frames) -> Tables:
    """Tables of these frames, invalid rows dropped."""
    return Tables.from_frames(Settings(invalid="drop"), at=at, accounts=ACCOUNTS, **frames)


@pytest.mark.parametrize("check", BROKEN_USAGE)
def test_each_check_finds_its_row_and_drops_only_it(check):
    """One finding with table, count and row; the good rows stay."""
    tables = drop(usage_events=usage(BROKEN_USAGE[check]))
    found = next(finding for finding in tables.findings if finding.check == check)
    assert (found.table, found.count, found.first_row, found.severity) == ("usage_events", 1, 2, "error")
    assert found.mend
    assert tables["usage_events"]["event"].tolist() == ["first"]
    counts = tables.counts["usage_events"]
    assert (2, 1, {f"{check}: {found.column}": 1}) == (counts.read, counts.kept, dict(counts.dropped))


@pytest.mark.parametrize("check", BROKEN_USAGE)
def test_by_default_a_broken_row_raises(check):
    """And the error offers to go on without it."""
    with pytest.raises(DataError, match=r"row 2.*invalid = 'drop'"):
        Tables.from_frames(at="2026-01-01", accounts=ACCOUNTS, usage_events=usage(BROKEN_USAGE[check]))


def test_the_text_of_a_finding_reads_like_a_sentence():
    """What, where, the mend."""
    rows = [{**GOOD, "recorded_at": "2024-02-01"}, {**GOOD, "recorded_at": "2024-02-02"}]
    with pytest.raises(DataError) as caught:
        Tables.from_frames(accounts=ACCOUNTS, usage_events=usage(*rows))
    assert str(caught.value) == (
        "usage_events: 2 rows have recorded_at before occurred_at (first: row 2, account 'A1', "
        "recorded_at 2024-02-01 00:00). "
        "Fix the export (zones mixed up, columns swapped). Or go on without these rows: [tables] invalid = 'drop' "
        "(or 'quarantine')."
    )


def test_many_findings_make_one_paragraph():
    """The first few, and how many more there are."""
    one = Finding("t", "c", "type", 1, 1, "'x'", "have a c that is no time", "Mend it")
    text = paragraph([one] * 6, "raise")
    assert text.count("Mend it") == 4
    assert "And 2 more findings" in text


def test_mixed_date_formats_are_told_from_plain_nonsense():
    """Where the other rows are read, the odd one is of another format."""
    tables = drop(usage_events=usage(BROKEN_USAGE["type"]))
    assert "mixed date formats" in tables.findings[0].says
    assert tables.findings[0].example == "'01/03/2024'"


def test_a_row_that_breaks_two_rules_is_counted_once():
    """Read = kept + dropped."""
    tables = drop(usage_events=usage({**GOOD, "account_id": "A9", "quantity": -1.0}))
    counts = tables.counts["usage_events"]
    assert counts.read == counts.kept + sum(counts.dropped.values())
    assert {"range", "reference"} == {finding.check for finding in tables.findings}


def test_versions_of_an_account_are_no_duplicates():
    """The same key at another recorded_at is a version; at the same it is an error."""
    accounts = pd.DataFrame(
        {
            "account_id": ["A1", "A1", "A1"],
            "created_at": ["2024-01-01"] * 3,
            "recorded_at": ["2024-01-01", "2024-02-01", "2024-02-01"],
        }
    )
    tables = Tables.from_frames(Settings(invalid="drop"), accounts=accounts)
    assert [(found.check, found.count, found.first_row) for found in tables.findings] == [("duplicate", 1, 3)]
    assert len(tables["accounts"]) == 2


@pytest.mark.parametrize(("how", "kept", "severities"), [("warn", 3, ["warning"]), ("keep", 3, [])])
def test_identical_events_are_said_and_kept(how, kept, severities):
    """They may be two events of one moment."""
    settings = Settings(tables={"usage_events": {"duplicates": how}})
    tables = Tables.from_frames(settings, accounts=ACCOUNTS, usage_events=usage(GOOD, GOOD))
    assert kept == len(tables["usage_events"])
    assert severities == [finding.severity for finding in tables.findings]


def test_rows_out_of_a_dropped_account_go_too():
    """Accounts are checked first."""
    accounts = pd.DataFrame({"account_id": ["A1", "A2"], "created_at": ["2024-01-01", "never"]})
    tables = Tables.from_frames(
        Settings(invalid="drop"), accounts=accounts, usage_events=usage({**GOOD, "account_id": "A2"})
    )
    assert tables["accounts"]["account_id"].tolist() == ["A1"]
    assert tables["usage_events"]["event"].tolist() == ["first"]


def test_an_unknown_owner_is_said_and_kept():
    """An account whose owner left is still an account."""
    tables = Tables.from_frames(accounts=ACCOUNTS.assign(owner="gone"), owners=pd.DataFrame({"owner": ["kim"]}))
    assert [(found.check, found.severity, found.count) for found in tables.findings] == [("reference", "warning", 3)]
    assert len(tables["accounts"]) == 3


def test_a_subscription_agreed_ahead_is_said_and_kept():
    """It starts after the run, and is not known before."""
    rows = pd.DataFrame({"account_id": ["A1"], "started_at": ["2026-02-01"]})
    tables = Tables.from_frames(at="2026-01-01", accounts=ACCOUNTS, subscriptions=rows)
    assert [(found.check, found.severity) for found in tables.findings] == [("future", "warning")]


def test_looking_back_is_allowed_where_covers_until_is_declared():
    """A run for last year on this year's data."""
    settings = Settings(covers_until="2025-01-01")
    tables = Tables.from_frames(settings, at="2024-02-01", accounts=ACCOUNTS, usage_events=usage())
    assert tables.findings == ()
    with pytest.raises(DataError, match="in the future of the run"):
        Tables.from_frames(at="2024-02-01", accounts=ACCOUNTS, usage_events=usage())


def test_numeric_ids_are_said():
    """A frame with integer ids cannot have kept leading zeros."""
    tables = Tables.from_frames(accounts=pd.DataFrame({"account_id": [1, 2], "created_at": ["2024-01-01"] * 2}))
    assert [found.check for found in tables.findings] == ["numeric id"]
    assert tables["accounts"]["account_id"].tolist() == ["1", "2"]


def test_one_foreign_currency_is_not_mixed():
    """All in dollars is one currency; a rate is needed only to mix."""
    rows = pd.DataFrame(
        {"account_id": ["A1", "A2"], "started_at": ["2024-01-01"] * 2, "mrr": [1.0, 2.0], "currency": ["USD", "USD"]}
    )
    assert Tables.from_frames(accounts=ACCOUNTS, subscriptions=rows).findings == ()
    rows["currency"] = ["USD", "EUR"]
    with pytest.raises(DataError, match=r"\[rates\] USD = 1.0"):
        Tables.from_frames(accounts=ACCOUNTS, subscriptions=rows)


def test_quarantine_keeps_the_rows_as_they_came(tmp_path):
    """With the reason, safe to open in a spreadsheet, and gone once the export is mended."""
    settings = Settings(root=tmp_path, invalid="quarantine")
    bad = {**GOOD, "account_id": "=HYPERLINK(1)", "occurred_at": "2024-03-01T00:00:00", "quantity": -2.0}
    tables = Tables.from_frames(
        settings, accounts=ACCOUNTS, usage_events=usage(bad, {**GOOD, "occurred_at": "01/03/2024"})
    )
    with (tmp_path / "state" / "quarantine" / "usage_events.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["row"] for row in rows] == ["2", "3"]
    assert [row["account_id"] for row in rows] == ["'=HYPERLINK(1)", "A1"]
    assert [row["quantity"] for row in rows] == ["-2.0", ""]
    assert [row["occurred_at"] for row in rows] == ["2024-03-01T00:00:00", "01/03/2024"]
    assert rows[1]["reason"] == "type: occurred_at"
    assert len(tables["usage_events"]) == 1
    Tables.from_frames(settings, accounts=ACCOUNTS, usage_events=usage())
    assert list((tmp_path / "state" / "quarantine").iterdir()) == []


def test_a_missing_column_raises_whatever_the_policy():
    """Structure is no matter of rows."""
    with pytest.raises(DataError, match="no column 'event'"):
        drop(usage_events=pd.DataFrame({"account_id": ["A1"], "occurred_at": ["2024-01-01"]}))


def test_every_contract_table_can_be_validated_empty():
    """A table of the right shape without rows is a warning, but for accounts."""
    for name, table in RAW_TABLES.items():
        frame = pd.DataFrame({column: pd.Series([], dtype=object) for column in table.names})
        if name == "accounts":
            with pytest.raises(DataError, match="no rows"):
                Tables.from_frames(accounts=frame)
        else:
            tables = Tables.from_frames(accounts=ACCOUNTS, **{name: frame})
            assert [(name, "empty", "warning")] == [
                (found.table, found.check, found.severity) for found in tables.findings
            ]


CELLS = st.fixed_dictionaries(
    {
        "account_id": st.sampled_from(["A1", "A2", "A9", None]),
        "occurred_at": st.sampled_from(["2024-01-01", "x", None, "2030-01-01"]),
        "event": st.sampled_from(["open", None]),
        "quantity": st.sampled_from(["1", "-1", "x", None]),
    }
)


def good(row) -> bool:
    """The naive oracle: would a careful reader accept this row?"""
    return (
        row["account_id"] in {"A1", "A2"}
        and row["occurred_at"] == "2024-01-01"
        and row["event"] is not None
        and row["quantity"] in {"1", None}
    )


@settings(max_examples=8, deadline=None)
@given(st.lists(CELLS, min_size=1, max_size=30))
def test_dropping_keeps_exactly_the_good_rows(rows):
    """Against a plain loop; and every row is accounted for."""
    frame = pd.DataFrame(rows, columns=["account_id", "occurred_at", "event", "quantity"], dtype=object)
    tables = drop(usage_events=frame)
    assert [row["account_id"] for row in rows if good(row)] == tables["usage_events"]["account_id"].tolist()
    counts = tables.counts["usage_events"]
    assert len(rows) == counts.read == counts.kept + sum(counts.dropped.values())
