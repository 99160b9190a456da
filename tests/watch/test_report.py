"""The report behind `churnkit check`: reach, lateness, what is missing, and what each run saw."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from churnkit.errors import DataError
from churnkit.settings import Settings
from churnkit.signals.tables import Tables
from churnkit.watch import check, late

ACCOUNTS = pd.DataFrame({"account_id": ["A1", "A2"], "created_at": ["2024-01-01"] * 2})


def tables(root, *days, recorded=None, said=None, **frames) -> Tables:
    """Two accounts, and one event of A1 at noon of each day."""
    usage = pd.DataFrame({"account_id": "A1", "occurred_at": [f"{day}T12:00:00" for day in days], "event": "x"})
    if recorded:
        usage["recorded_at"] = recorded
    settings = Settings(root=root, covers_until="2024-12-31", invalid="drop", **(said or {}))
    return Tables.from_frames(settings, **{"accounts": ACCOUNTS, "usage_events": usage, **frames})


def feed(report, name="usage_events"):
    """One table's part of the report."""
    return next(feed for feed in report.feeds if feed.table == name)


def test_reach_and_staleness(tmp_path):
    """First, last, and how far behind the run."""
    found = feed(check(tables(tmp_path, "2024-03-01", "2024-03-09"), "2024-03-11T12:00:00"))
    assert (
        f"{found.first:%Y-%m-%d}",
        f"{found.last:%Y-%m-%d}",
        found.stale_days,
    ) == ("2024-03-01", "2024-03-09", 2.0)


def test_lateness_is_measured_where_recorded_at_is_given(tmp_path):
    """One of two rows came three hours late."""
    found = feed(
        check(tables(tmp_path, "2024-03-01", "2024-03-02", recorded=["2024-03-01T15:00:00", None]), "2024-04-01")
    )
    assert (found.late_share, found.late_p99_hours) == (0.5, 3.0)
    assert feed(check(tables(tmp_path, "2024-03-01"), "2024-04-01")).late_share is None


def test_missing_tables_say_what_they_would_turn_on(tmp_path):
    """Each table that is not given."""
    report = check(tables(tmp_path, "2024-03-01"), "2024-04-01")
    assert "accounts" not in report.missing
    assert report.missing["assets"] == "the maintenance model"
    assert "assets is missing; it would turn on the maintenance model." in report.lines()


def test_share_of_active_accounts_with_signal(tmp_path):
    """A1 was seen within 84 days, A2 never."""
    assert check(tables(tmp_path, "2024-03-01"), "2024-04-01").signal_share == 0.5
    assert check(tables(tmp_path, "2024-03-01"), "2024-12-01").signal_share == 0.0
    subscriptions = pd.DataFrame(
        {"account_id": ["A1", "A2"], "started_at": "2024-01-01", "ended_at": [None, "2024-02-01"]}
    )
    assert check(tables(tmp_path, "2024-03-01", subscriptions=subscriptions), "2024-04-01").signal_share == 1.0


def test_a_past_day_that_grew_is_late(tmp_path):
    """Rows that come into days an earlier run saw whole are counted, with the known_after that would be honest."""
    check(tables(tmp_path, "2024-03-01", "2024-03-02"), "2024-03-05")
    report = check(
        tables(tmp_path, "2024-03-01", "2024-03-02", "2024-03-02", "2024-03-05", "2024-03-06"), "2024-03-07"
    )
    assert feed(report).grown == 1
    assert 72 <= feed(report).known_after_hours <= 96
    assert any("came into past days" in line for line in report.lines())
    assert (
        feed(
            check(
                tables(tmp_path, "2024-03-01", "2024-03-02", "2024-03-02", "2024-03-05", "2024-03-06"), "2024-03-07"
            )
        ).grown
        == 0
    )


def test_lateness_is_remembered_and_what_was_declared_is_none(tmp_path):
    """A later check still knows what would be honest; rows within the declared known_after are not late."""
    days = ["2024-03-01", "2024-03-02"]
    check(tables(tmp_path, *days), "2024-03-05")
    assert [line[:26] for line in late(tables(tmp_path, *days, "2024-03-02"), "2024-03-07")] == [
        "usage_events: 1 row came i"]
    assert late(tables(tmp_path, *days, "2024-03-02"), "2024-03-07") == []
    found = feed(check(tables(tmp_path, *days, "2024-03-02"), "2024-03-08"))
    assert (found.grown, found.known_after_hours) == (0, 72)
    honest = tmp_path / "honest"
    slow = {"tables": {"usage_events": {"known_after": "4d"}}}
    check(tables(honest, *days, said=slow), "2024-03-05")
    assert late(tables(honest, *days, "2024-03-02", said=slow), "2024-03-07") == []


def test_versions_of_a_record_are_one_row_of_its_day(tmp_path):
    """An account that changed hands since is no late account, and its change no lateness."""
    versions = ACCOUNTS.assign(recorded_at="2024-01-01T03:00:00")
    check(tables(tmp_path, "2024-03-01", accounts=versions), "2024-04-01")
    again = pd.concat([versions, versions.iloc[:1].assign(recorded_at="2024-05-01", owner="kim")])
    report = check(tables(tmp_path, "2024-03-01", accounts=again), "2024-06-01")
    assert (feed(report, "accounts").grown, feed(report, "accounts").late_p99_hours) == (0, 3.0)


def test_an_earlier_check_does_not_forget(tmp_path):
    """A report for last week changes nothing of what was seen since, and one may look without leaving a trace."""
    check(tables(tmp_path, "2024-03-01"), "2024-03-05")
    before = (tmp_path / "state" / "seen.json").read_bytes()
    check(tables(tmp_path, "2024-03-01"), "2024-03-02")
    check(tables(tmp_path, "2024-03-01", "2024-03-06"), "2024-03-07", remember=False)
    assert before == (tmp_path / "state" / "seen.json").read_bytes()
    assert [file.name for file in (tmp_path / "state").iterdir()] == ["seen.json"]


def test_a_damaged_memory_is_said(tmp_path):
    """And what to do about it."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "seen.json").write_text("{")
    with pytest.raises(DataError, match="Remove it"):
        check(tables(tmp_path, "2024-03-01"), "2024-03-05")


@pytest.mark.parametrize("tables_seen", [{"usage_events": 5}, {"usage_events": {"at": "soon", "days": {}}}, []])
def test_a_memory_of_another_shape_is_damaged_too(tmp_path, tables_seen):
    """Whatever stands in seen.json, the mend is the same."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "seen.json").write_text(json.dumps({"schema_version": 1, "tables": tables_seen}))
    with pytest.raises(DataError, match="Remove it"):
        check(tables(tmp_path, "2024-03-01"), "2024-04-01")


def test_a_table_without_a_row_is_said(tmp_path):
    """Its features would count nothing and look like silence."""
    said = check(tables(tmp_path), "2024-04-01").lines()
    assert any(line.startswith("usage_events: there, and without a single row") for line in said)


def test_ok_needs_accounts_and_a_signal(tmp_path):
    """What was dropped is counted; a table of nothing is no signal."""
    assert check(tables(tmp_path, "2024-03-01"), "2024-04-01").ok
    report = check(tables(tmp_path, "never"), "2024-04-01")
    assert not report.ok
    assert dict(feed(report).dropped) == {"type: occurred_at": 1}


def test_the_report_is_plain_data(tmp_path):
    """For a terminal and for machines."""
    report = check(tables(tmp_path, "2024-03-01"), "2024-04-01")
    assert {"table", "rows", "last", "behind"} <= set(report.rows()[0])
    again = json.loads(json.dumps(report.to_dict()))
    assert again["ok"] is True
    assert [one["table"] for one in again["feeds"]] == ["accounts", "usage_events"]
