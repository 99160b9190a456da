"""From a source's columns to the contract's: types, zones, clocks, grain, joins, offsets and the rest."""

from __future__ import annotations

import datetime as dt

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from churnkit.errors import DataError
from churnkit.schemas import RAW_TABLES
from churnkit.settings import Settings, from_mapping
from churnkit.signals.tables import Tables, read_tables

ACCOUNTS = pd.DataFrame({"account_id": ["A1", "A2"], "created_at": ["2024-01-01", "2024-01-01"]})


def utc(*parts: int) -> dt.datetime:
    """A UTC time."""
    return dt.datetime(*parts, tzinfo=dt.UTC)


def mapped(root, name, text, **mapping):
    """One table of a workspace, read from CSV text through a mapping."""
    if name != "accounts":
        ACCOUNTS.to_csv(root / "accounts.csv", index=False)
    (root / f"{name}.csv").write_text(text)
    if name != "usage_events" and not (root / "usage_events.csv").exists():
        (root / "usage_events.csv").write_text("account_id,occurred_at,event\nA1,2024-01-01,open\n")
    return read_tables(
        from_mapping({"raw": ".", "zone": mapping.pop("workspace_zone", "UTC"), "tables": {name: mapping}}, root=root)
    )


def test_frames_have_the_contracts_columns_and_types():
    """Every table has all columns; times are UTC microseconds, ints Int64, bools boolean, absent tables are empty."""
    tables = Tables.from_frames(accounts=ACCOUNTS)
    for name, table in RAW_TABLES.items():
        frame = tables[name]
        assert [*table.names, "known_at"] == list(frame.columns)
        kinds = {"time": "datetime64[us, UTC]", "int": "Int64", "float": "float64", "bool": "boolean"}
        assert {column.name: kinds.get(column.kind, "object") for column in table.columns} == {
            column: str(kind) for column, kind in frame.dtypes.items() if column != "known_at"
        }
    assert tables.has("accounts")
    assert not tables.has("surveys")
    assert len(tables["surveys"]) == 0


def test_inputs_are_untouched():
    """from_frames does not change the frames that it is given."""
    before = ACCOUNTS.copy()
    Tables.from_frames(accounts=ACCOUNTS)
    pd.testing.assert_frame_equal(before, ACCOUNTS)


@pytest.mark.parametrize(
    ("zone", "written", "expected"),
    [
        ("UTC", "2024-07-01T12:00:00", utc(2024, 7, 1, 12)),
        ("Europe/Berlin", "2024-07-01T12:00:00", utc(2024, 7, 1, 10)),
        ("Europe/Berlin", "2024-01-01", utc(2023, 12, 31, 23)),
        ("Europe/Berlin", "2024-07-01T12:00:00Z", utc(2024, 7, 1, 12)),
        ("Europe/Berlin", "2024-07-01 12:00:00-0500", utc(2024, 7, 1, 17)),
        ("America/New_York", "2024-07-01 12:00:00.123456", utc(2024, 7, 1, 16, 0, 0, 123456)),
    ],
)
def test_times_without_a_zone_are_read_in_the_workspaces(zone, written, expected, tmp_path):
    """A naive time is converted once, at the door; one that names its zone is kept."""
    tables = mapped(tmp_path, "usage_events", f"account_id,occurred_at,event\nA1,{written},x\n", workspace_zone=zone)
    assert [expected] == tables["usage_events"]["occurred_at"].tolist()


def test_formats_are_tried_in_order(tmp_path):
    """Other people's dates are read as they say."""
    text = "account_id,occurred_at,event\nA1,31/01/2024,x\nA1,2024-02-01,x\nA1,1706745600,x\n"
    tables = mapped(tmp_path, "usage_events", text, formats=["%d/%m/%Y", "iso", "epoch_s"])
    assert [utc(2024, 1, 31), utc(2024, 2, 1), utc(2024, 2, 1)] == tables["usage_events"]["occurred_at"].tolist()


@pytest.mark.parametrize(
    ("grain", "known_after", "recorded", "expected"),
    [
        ("instant", "0d", "", utc(2024, 3, 1)),
        ("instant", "2d", "", utc(2024, 3, 3)),
        ("instant", "2d", "2024-03-01T05:00", utc(2024, 3, 1, 5)),
        ("hour", "0d", "", utc(2024, 3, 1, 1)),
        ("day", "0d", "", utc(2024, 3, 2)),
        ("day", "3d", "", utc(2024, 3, 4)),
        ("day", "0d", "2024-03-01T05:00", utc(2024, 3, 2)),
        ("day", "0d", "2024-03-05T05:00", utc(2024, 3, 5, 5)),
    ],
)
def test_known_at_follows_the_rules_of_time(grain, known_after, recorded, expected, tmp_path):
    """recorded_at, else own time + known_after, and never before the period's end."""
    text = f"account_id,occurred_at,event,recorded_at\nA1,2024-03-01,x,{recorded}\n"
    tables = mapped(tmp_path, "usage_events", text, grain=grain, known_after=known_after)
    assert [expected] == tables["usage_events"]["known_at"].tolist()


def test_a_day_ends_at_midnight_of_its_own_zone(tmp_path):
    """The day on which the clocks go forward has 23 hours."""
    tables = mapped(
        tmp_path, "usage_events", "account_id,occurred_at,event\nA1,2024-03-31,x\n", grain="day", zone="Europe/Berlin"
    )
    row = tables["usage_events"].iloc[0]
    assert dt.timedelta(hours=23) == row["known_at"] - row["occurred_at"]


def test_a_table_without_a_clock_is_always_known():
    """A contact without recorded_at was known from the start."""
    tables = Tables.from_frames(accounts=ACCOUNTS, contacts=pd.DataFrame({"contact_id": ["C"], "account_id": ["A1"]}))
    assert [utc(1970, 1, 1)] == tables["contacts"]["known_at"].tolist()


def test_columns_constants_values_units_and_keep(tmp_path):
    """A foreign export becomes the contract's table; the rows that are not kept are counted."""
    text = "customer,when,what,mins,status\nA1,2024-03-01,OPEN,2,live\nA2,2024-03-02,SAVE,3,test\n"
    tables = mapped(
        tmp_path,
        "usage_events",
        text,
        columns={"account_id": "customer", "occurred_at": "when", "event": "what", "duration_s": "mins"},
        constants={"users": 1},
        values={"event": {"OPEN": "open"}},
        units={"duration_s": "min"},
        keep={"status": ["live"]},
    )
    found = tables["usage_events"]
    assert list(
        zip(found.account_id, found.event, found.duration_s, found.users, strict=True)
    ) == [("A1", "open", 120.0, 1.0)]
    assert dict(tables.counts["usage_events"].dropped) == {"not among the rows to keep": 1}
    assert (tables.counts["usage_events"].read, tables.counts["usage_events"].kept) == (2, 1)


def test_a_wide_export_is_unpivoted(tmp_path):
    """One row per sensor; an empty cell is no measurement."""
    (tmp_path / "assets.csv").write_text("asset_id,account_id,installed_at\nM1,A1,2024-01-01\n")
    tables = mapped(
        tmp_path,
        "telemetry",
        "asset_id,occurred_at,volt,heat\nM1,2024-03-01,1.5,\nM1,2024-03-02,2,30\n",
        unpivot=["volt", "heat"],
    )
    found = tables["telemetry"]
    assert {("volt", 1.5), ("volt", 2.0), ("heat", 30.0)} == set(zip(found.sensor, found.value, strict=True))


def test_a_join_takes_ids_from_another_table(tmp_path):
    """An export keyed by subscription gets its account; one without a match has none."""
    (tmp_path / "subscriptions.csv").write_text(
        "account_id,subscription_id,started_at\nA1,S1,2024-01-01\nA2,S2,2024-01-01\n"
    )
    tables = mapped(
        tmp_path,
        "usage_events",
        "subscription_id,occurred_at,event\nS2,2024-03-01,x\nS1,2024-03-02,y\n",
        join={"table": "subscriptions", "on": "subscription_id", "take": "account_id"},
    )
    assert tables["usage_events"]["account_id"].tolist() == ["A2", "A1"]
    with pytest.raises(DataError, match="has no account_id"):
        mapped(
            tmp_path,
            "usage_events",
            "subscription_id,occurred_at,event\nS9,2024-03-01,x\n",
            join={"table": "subscriptions", "on": "subscription_id", "take": "account_id"},
        )


def test_a_join_may_look_in_a_file_and_pick_the_first(tmp_path):
    """Names of event types from a list; a creation date from the first subscription."""
    (tmp_path / "types.csv").write_text("id,label\n1,open\n2,save\n")
    tables = mapped(
        tmp_path,
        "usage_events",
        "account_id,occurred_at,type\nA1,2024-03-01,2\n",
        columns={"event": "label"},
        join={"source": "types.csv", "on": "type", "their": "id", "take": "label"},
    )
    assert tables["usage_events"]["event"].tolist() == ["save"]
    (tmp_path / "usage_events.csv").unlink()
    (tmp_path / "subscriptions.csv").write_text(
        "account_id,started_at\nA1,2024-02-01\nA1,2024-01-15\nA2,2024-03-01\n"
    )
    tables = mapped(
        tmp_path,
        "accounts",
        "account_id\nA1\nA2\n",
        join={"table": "subscriptions", "on": "account_id", "take": {"created_at": "started_at"}, "pick": "first"},
    )
    assert [utc(2024, 1, 15), utc(2024, 3, 1)] == tables["accounts"]["created_at"].tolist()


def test_offsets_count_from_another_time(tmp_path):
    """Hours until resolved become a time; an empty span none."""
    tables = mapped(
        tmp_path,
        "support_tickets",
        "ticket_id,account_id,opened_at,hours\nT1,A1,2024-03-01,27.5\nT2,A1,2024-03-01,\n",
        offsets={"resolved_at": "opened_at + hours h"},
    )
    assert [utc(2024, 3, 2, 3, 30), pd.NaT] == tables["support_tickets"]["resolved_at"].tolist()


def test_parts_make_one_table(tmp_path):
    """Errors and failures from two files, each mapped by itself."""
    (tmp_path / "assets.csv").write_text("asset_id,account_id,installed_at\n1,A1,2024-01-01\n")
    (tmp_path / "errors.csv").write_text("machine,at,error\n1,2024-03-01,e1\n")
    (tmp_path / "failures.csv").write_text("machine,at\n1,2024-03-02\n")
    ACCOUNTS.to_csv(tmp_path / "accounts.csv", index=False)
    names = {"asset_id": "machine", "occurred_at": "at"}
    tables = read_tables(
        from_mapping(
            {
                "raw": ".",
                "tables": {
                    "asset_events": {
                        "parts": [
                            {
                                "source": "errors.csv",
                                "columns": {**names, "code": "error"},
                                "constants": {"kind": "error"},
                            },
                            {"source": "failures.csv", "columns": names, "constants": {"kind": "failure"}},
                        ]
                    }
                },
            },
            root=tmp_path,
        )
    )
    found = tables["asset_events"]
    assert list(zip(found.kind, found.code, strict=True)) == [("error", "e1"), ("failure", None)]


def test_a_distinct_table_from_a_wider_one(tmp_path):
    """Accounts from a list of machines; the repeats are counted."""
    tables = mapped(
        tmp_path,
        "accounts",
        "plant,machine\nP1,1\nP1,2\nA1,3\n",
        columns={"account_id": "plant"},
        constants={"created_at": "2024-01-01"},
        distinct=True,
    )
    assert {"A1", "P1"} == set(tables["accounts"]["account_id"])
    assert sum(tables.counts["accounts"].dropped.values()) == 1


def test_covers_until_is_declared_or_the_run_or_the_latest_known_time():
    """Never the last event of one account or one table."""
    usage = pd.DataFrame({"account_id": ["A1"], "occurred_at": ["2024-05-01"], "event": ["x"]})
    derived = Tables.from_frames(accounts=ACCOUNTS, usage_events=usage)
    assert {"accounts": utc(2024, 5, 1), "usage_events": utc(2024, 5, 1)} == derived.covers_until
    run = Tables.from_frames(accounts=ACCOUNTS, usage_events=usage, at="2024-06-01")
    assert {utc(2024, 6, 1)} == set(run.covers_until.values())
    declared = Settings(covers_until="2024-07-01", tables={"accounts": {"covers_until": "2024-08-01"}})
    said = Tables.from_frames(declared, accounts=ACCOUNTS, usage_events=usage, at="2024-06-01")
    assert {"accounts": utc(2024, 8, 1), "usage_events": utc(2024, 7, 1)} == said.covers_until


def test_currencies_are_converted_with_the_rates():
    """Amounts are in the workspace's currency; what has no currency is in it already."""
    rows = pd.DataFrame(
        {
            "account_id": ["A1"] * 3,
            "started_at": ["2024-01-01"] * 3,
            "mrr": [10.0, 10.0, 10.0],
            "currency": ["EUR", "USD", None],
        }
    )
    found = Tables.from_frames(Settings(rates={"USD": 0.9}), accounts=ACCOUNTS, subscriptions=rows)["subscriptions"]
    assert found["mrr"].tolist() == [10.0, 9.0, 10.0]
    assert found["currency"].tolist() == ["EUR", "EUR", None]


def test_the_golden_workspace_reads_without_a_finding(golden, monkeypatch):
    """Every table of the worked example, through its mapping."""
    monkeypatch.setenv("CHURNKIT_GOLDEN", str(golden))
    tables = read_tables("tests/golden")
    assert tables.findings == ()
    assert {"007", "7"} <= set(tables["accounts"]["account_id"])
    assert {utc(2026, 2, 1)} == set(tables.covers_until.values())
    assert (tables["telemetry"]["known_at"] - tables["telemetry"]["occurred_at"] == pd.Timedelta(days=1)).all()


MOMENTS = st.datetimes(dt.datetime(1971, 1, 1), dt.datetime(2200, 1, 1), timezones=st.just(dt.UTC))  # noqa: DTZ001


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            MOMENTS,
            st.text(
                st.characters(min_codepoint=33, max_codepoint=0x2FFF, exclude_categories=["Cs", "Cc", "Zs"]),
                min_size=1,
                max_size=20,
            ),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_what_goes_in_comes_out(rows):
    """Any time to the microsecond and any printable text survive, in order."""
    usage = pd.DataFrame(
        {
            "account_id": "A1",
            "occurred_at": [time.isoformat() for time, _ in rows],
            "event": [text for _, text in rows],
        }
    )
    found = Tables.from_frames(accounts=ACCOUNTS, usage_events=usage)["usage_events"]
    assert [time for time, _ in rows] == found["occurred_at"].tolist()
    assert [text for _, text in rows] == found["event"].tolist()
