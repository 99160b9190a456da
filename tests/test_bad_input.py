"""Whatever somebody puts into a workspace: one paragraph with the mend, no traceback, nothing touched."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from churnkit.errors import ChurnkitError
from churnkit.signals.tables import Tables, read_tables

ACCOUNTS = "account_id,created_at\nA1,2024-01-01\nA2,2024-02-01\n007,2024-02-01\n"
USAGE = "account_id,occurred_at,event\nA1,2024-03-01,open\nA2,2024-03-02T10:00:00+01:00,save\n"
TICKETS = "ticket_id,account_id,opened_at,resolved_at,csat\nT1,A1,2024-03-01,2024-03-02,4\n"
SUBSCRIPTIONS = (
    "account_id,started_at,ended_at,mrr,currency\nA1,2024-01-01,,100,EUR\nA2,2024-01-01,2024-06-01,50,EUR\n"
)

Files = Mapping[str, str | bytes | None]


def parquet(**columns) -> bytes:
    """Columns as a Parquet file's bytes."""
    out = io.BytesIO()
    pd.DataFrame(columns).to_parquet(out)
    return out.getvalue()


def lay(root: Path, files: Files) -> Path:
    """A workspace with good accounts and usage, in which some files are replaced; None leaves a file out."""
    for name, content in {"accounts.csv": ACCOUNTS, "usage_events.csv": USAGE, **files}.items():
        if content is None:
            continue
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def tree(root: Path) -> dict[str, str]:
    """A hash of each file below a folder."""
    return {
        str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "folder"
        for file in sorted(root.rglob("*"))
    }


def toml(body: str) -> Files:
    """A workspace whose churnkit.toml has this body; the tables lie beside it."""
    return {"churnkit.toml": f'raw = "."\n{body}'}


BAD: dict[str, tuple[Files, str]] = {
    # --- files
    "no accounts": ({"accounts.csv": None}, "accounts.csv"),
    "accounts alone": ({"usage_events.csv": None}, "usage_events.csv"),
    "nothing": ({"accounts.csv": None, "usage_events.csv": None}, "init --from"),
    "empty file": ({"accounts.csv": ""}, "not even a header"),
    "blank header": ({"accounts.csv": "\n\n"}, "not even a header"),
    "header alone": ({"accounts.csv": "account_id,created_at\n"}, "Export it again"),
    "UTF-16": ({"accounts.csv": ACCOUNTS.encode("utf-16")}, "CSV UTF-8"),
    "Latin-1 cell": ({"accounts.csv": (ACCOUNTS + "M\u00fcller,2024-01-01\n").encode("latin-1")}, "byte 66 is 0xFC"),
    "Latin-1 header": ({"accounts.csv": "account_id,created_at,na\u00efve\n".encode("latin-1")}, "Save it as UTF-8"),
    "Latin-1 after a megabyte": (
        {"usage_events.csv": USAGE.encode() + b"A1,2024-01-01,open\n" * 60_000 + b"A1,2024-01-01,\xe9\n"},
        "byte 1140096 is 0xE9",
    ),
    "binary": ({"accounts.csv": b"\x00\x01\x02\x03" * 20}, "CSV UTF-8"),
    "cut-off gzip": (
        {"accounts.csv": None, "accounts.csv.gz": gzip.compress(ACCOUNTS.encode() * 50)[:60]},
        "Copy it again",
    ),
    "gzip that is none": ({"accounts.csv": None, "accounts.csv.gz": b"\x1f\x8bnonsense"}, "Copy it again"),
    "broken Parquet": ({"accounts.csv": None, "accounts.parquet": b"PAR1 but not really PAR1"}, "copy it again"),
    "cut-off Parquet": (
        {"accounts.csv": None, "accounts.parquet": parquet(account_id=["A1"])[:-20]},
        "copy it again",
    ),
    "CSV named Parquet": ({"accounts.csv": None, "accounts.parquet": ACCOUNTS}, "copy it again"),
    "two candidates": ({"accounts.parquet": parquet(account_id=["A1"])}, "Remove one"),
    "empty folder in place of a file": (
        {"accounts.csv": None, "accounts/readme.md": "hello"},
        "holds no CSV or Parquet",
    ),
    "a folder named like the file": (
        {"accounts.csv": None, "accounts.csv/readme.md": "hello"},
        "holds no CSV or Parquet",
    ),
    "mixed folder": (
        {"accounts.csv": None, "accounts/a.csv": ACCOUNTS, "accounts/b.parquet": parquet(account_id=["A"])},
        "one kind",
    ),
    # --- shape
    "one column too many": ({"accounts.csv": ACCOUNTS + "A3,2024-01-01,extra\n"}, "Quote texts"),
    "one column too few": ({"accounts.csv": ACCOUNTS + "A3\n"}, "Quote texts"),
    "open quote": ({"accounts.csv": ACCOUNTS + '"A3,2024-01-01\n'}, "Double the quotes"),
    "twice the same column": ({"accounts.csv": "account_id,created_at,account_id\nA1,2024-01-01,A1\n"}, "Rename one"),
    "no account_id": ({"accounts.csv": "acount_id,created_at\nA1,2024-01-01\n"}, "Did you mean 'acount_id'?"),
    "no time": ({"usage_events.csv": "account_id,event\nA1,open\n"}, "[tables.usage_events.columns] occurred_at"),
    "shifted columns": ({"accounts.csv": "account_id,created_at\n2024-01-01,A1\n2024-02-01,A2\n"}, "formats = "),
    "another delimiter in the rows": ({"accounts.csv": "account_id,created_at\nA1;2024-01-01\n"}, "Quote texts"),
    "a line of 20 MB": (
        {"accounts.csv": ACCOUNTS + "A3" + "x" * 20_000_000 + ",2024-01-01\n"},
        "quote that is never closed",
    ),
    # --- ids
    "an id missing": ({"accounts.csv": ACCOUNTS + ",2024-01-01\n"}, "Fill in account_id"),
    "an account twice": ({"accounts.csv": ACCOUNTS + "A1,2024-01-01\n"}, "recorded_at of their own"),
    "an unknown account": ({"usage_events.csv": USAGE + "A9,2024-01-01,open\n"}, "Export accounts whole"),
    "lost leading zeros": ({"usage_events.csv": USAGE + "7,2024-01-01,open\n"}, "Export ids as text"),
    "ids as fractions": (
        {"accounts.csv": ACCOUNTS + "5,2024-01-01\n", "usage_events.csv": USAGE + "5.0,2024-01-01,open\n"},
        "whole = ['account_id']",
    ),
    "a huge id": ({"accounts.csv": ACCOUNTS + "A" * 5000 + ",2024-01-01\n"}, "unclosed quote"),
    "NUL in an id": ({"accounts.csv": ACCOUNTS + "A\0B,2024-01-01\n"}, "Clean the export"),
    "nested ids": (
        {"accounts.csv": None, "accounts.parquet": parquet(account_id=[["A1"]], created_at=["2024-01-01"])},
        "one value per row",
    ),
    # --- times
    "mixed date formats": ({"accounts.csv": ACCOUNTS + "A3,31/01/2024\n"}, "formats = ['iso', '%d/%m/%Y']"),
    "no such day": ({"accounts.csv": ACCOUNTS + "A3,2024-02-30\n"}, "Write times as"),
    "year 0001": ({"accounts.csv": ACCOUNTS + "A3,0001-01-01\n"}, "Write times as"),
    "infinity as a time": ({"accounts.csv": ACCOUNTS + "A3,infinity\n"}, "Write times as"),
    "a number as a time": (
        {"accounts.csv": None, "accounts.parquet": parquet(account_id=["A1"], created_at=[20240101])},
        "Write times as",
    ),
    "resolved before opened": ({"support_tickets.csv": TICKETS + "T2,A1,2024-03-05,2024-03-01,\n"}, "zones mixed up"),
    "ended before started": (
        {"subscriptions.csv": SUBSCRIPTIONS + "A1,2024-05-01,2024-04-01,10,EUR\n"},
        "columns swapped",
    ),
    "recorded before it occurred": (
        {"usage_events.csv": "account_id,occurred_at,event,recorded_at\nA1,2024-03-01,open,2024-02-01\n"},
        "Fix the export",
    ),
    "in the future of the run": ({"usage_events.csv": USAGE + "A1,2062-01-01,open\n"}, "Fix the clock"),
    # --- numbers and words
    "text as a number": ({"support_tickets.csv": TICKETS + "T2,A1,2024-03-05,,good\n"}, "leave unknown ones empty"),
    "a decimal comma": (
        {"subscriptions.csv": SUBSCRIPTIONS + 'A1,2024-05-01,,"1.234,5",EUR\n'},
        "thousands separators",
    ),
    "infinity": ({"subscriptions.csv": SUBSCRIPTIONS + "A1,2024-05-01,,inf,EUR\n"}, "leave unknown ones empty"),
    "NaN": ({"subscriptions.csv": SUBSCRIPTIONS + "A1,2024-05-01,,nan,EUR\n"}, "leave unknown ones empty"),
    "a rating of 11": ({"support_tickets.csv": TICKETS + "T2,A1,2024-03-05,,11\n"}, "Correct csat"),
    "a negative price": ({"subscriptions.csv": SUBSCRIPTIONS + "A1,2024-05-01,,-5,EUR\n"}, "Correct mrr"),
    "half a whole number": (
        {"invoices.csv": "invoice_id,account_id,issued_at,failed_attempts\nI1,A1,2024-01-01,1.5\n"},
        "Write numbers as",
    ),
    "an unknown word": (
        {"surveys.csv": "account_id,responded_at,kind,score\nA1,2024-03-01,NetPromoter,9\n"},
        '[tables.surveys.values] kind = { "theirs" = "nps" }',
    ),
    "neither true nor false": (
        {"contacts.csv": "contact_id,account_id,do_not_contact\nC1,A1,vielleicht\n"},
        "Write true or false",
    ),
    "mixed currencies": ({"subscriptions.csv": SUBSCRIPTIONS + "A1,2024-05-01,,5,USD\n"}, "[rates] USD = 1.0"),
    "no currency code": (
        {"subscriptions.csv": SUBSCRIPTIONS + "A1,2024-05-01,,5,Euro\n"},
        "[tables.subscriptions.values] currency",
    ),
    "a ticket of nobody": (
        {
            "support_tickets.csv": TICKETS,
            "ticket_messages.csv": "ticket_id,account_id,occurred_at\nT9,A1,2024-03-01\n",
        },
        "support_tickets whole",
    ),
    "an unknown machine": (
        {
            "assets.csv": "asset_id,account_id,installed_at\nM1,A1,2024-01-01\n",
            "telemetry.csv": "asset_id,occurred_at,sensor,value\nM2,2024-01-01,v,1\n",
        },
        "Export assets whole",
    ),
    # --- churnkit.toml
    "no TOML": (toml("zone = UTC"), "strings need quotes"),
    "TOML in Latin-1": ({"churnkit.toml": 'name = "M\u00fcller"'.encode("latin-1")}, "Save the file as UTF-8"),
    "a number for a date": (toml("covers_until = 5"), "write it as text in quotes"),
    "a step of no time": (toml("[training]\nevery = '0d'"), "must be more than no time"),
    "a horizon of ages": (toml("[targets.churn]\nhorizon = '999999999d'"), "too long a span"),
    "a target that there is not": (toml("[targets.chrun]\nhorizon = '9d'"), "Did you mean 'churn'?"),
    "a rate of nothing": (toml("[rates]\nUSD = 0"), "greater than 0"),
    "an unknown key": (toml('zoen = "UTC"'), "Did you mean 'zone'?"),
    "an unknown zone": (toml('zone = "Mars/Base"'), "Europe/Berlin"),
    "an unknown table": (toml("[tables.acounts]"), "Did you mean 'accounts'?"),
    "an unknown column of the contract": (
        toml('[tables.accounts.columns]\ncreatedat = "x"'),
        "Did you mean 'created_at'?",
    ),
    "a column the source has not": (toml('[tables.accounts.columns]\nname = "nmae"'), "Correct columns"),
    "a source that is not there": (
        toml('[tables.accounts]\nsource = "elsewhere.csv"'),
        "Correct [tables.accounts] source",
    ),
    "a glob that matches nothing": (toml('[tables.accounts]\nsource = "x*.csv"'), "Correct [tables.accounts] source"),
    "a section without a table": (toml('[tables.surveys]\ngrain = "day"'), "remove the section"),
    "a wrong grain": (toml('[tables.usage_events]\ngrain = "week"'), "Mend that key"),
    "a wrong span": (toml('[tables.usage_events]\nknown_after = "soon"'), "'72h', '28d' or '4w'"),
    "a variable that is not set": (
        toml('[tables.accounts]\nsource = "${CHURNKIT_NOT_SET}/a.csv"'),
        "export CHURNKIT_NOT_SET=",
    ),
    "a wrong offset": (
        toml('[tables.support_tickets.offsets]\nresolved_at = "opened_at plus hours"'),
        "Write 'opened_at + ",
    ),
    "an offset from nothing": (
        {
            **toml('[tables.support_tickets.offsets]\nresolved_at = "openedat + csat h"'),
            "support_tickets.csv": TICKETS,
        },
        "Write for instance 'opened_at + hours h'",
    ),
    "a join to nothing": (
        toml('[tables.usage_events]\njoin = { table = "surveys", on = "account_id", take = "score" }'),
        "Give that table",
    ),
    "a join of two minds": (
        toml('[tables.usage_events]\njoin = { on = "account_id", take = "score" }'),
        "either table",
    ),
    "a join in a circle": (
        toml(
            '[tables.usage_events]\njoin = { table = "accounts", on = "account_id", take = "name" }\n'
            '[tables.accounts]\njoin = { table = "usage_events", on = "account_id", take = "event" }'
        ),
        "circle",
    ),
    "an ambiguous join": (
        {
            **toml('[tables.accounts]\njoin = { table = "usage_events", on = "account_id", take = "event" }'),
            "usage_events.csv": USAGE + "A1,2024-03-01,save\n",
        },
        "pick = 'first' or 'last'",
    ),
    "a format that is none": (toml('[tables.accounts]\nformats = ["%Q"]'), "strptime"),
    "formats that contradict": (toml('[tables.accounts]\nformats = ["%d/%m/%Y", "%m/%d/%Y"]'), "Keep one"),
    "a database that cannot be reached": (
        toml('[tables.accounts]\nsource = "postgresql://u:${CHURNKIT_PASSWORD}@127.0.0.1:9/x"'),
        "Check host",
    ),
    "a source of no kind": (toml('[tables.accounts]\nsource = "s3://bucket/a.csv"'), "Use CSV, Parquet"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_paragraph_with_its_mend(case, tmp_path, monkeypatch):
    """Each is a ChurnkitError in one paragraph that names the mend, tells no secret, and leaves the workspace alone."""
    monkeypatch.setenv("CHURNKIT_PASSWORD", "hunter2")
    files, mend = BAD[case]
    root = lay(tmp_path, files)
    before = tree(root)
    with pytest.raises(ChurnkitError) as caught:
        read_tables(root, at="2026-01-01")
    text = str(caught.value)
    assert mend in text
    assert "\n" not in text
    assert "hunter2" not in text
    assert len(text) < 1500
    assert tree(root) == before


def test_there_are_at_least_sixty_cases():
    """What the product promises."""
    assert len(BAD) >= 60


@pytest.mark.parametrize(
    ("name", "content", "mend"),
    [
        ("accounts.pkl", pickle.dumps([1]), "pickle"),
        ("accounts.xlsx", b"PK\x03\x04", "Save the sheet as CSV"),
        ("accounts.json", b"{}", "Use .csv"),
    ],
)
def test_other_kinds_of_files_are_refused(name, content, mend, tmp_path):
    """No pickle is read, and a spreadsheet's owner is told what to do."""
    lay(tmp_path, {**toml(f'[tables.accounts]\nsource = "{name}"'), name: content})
    with pytest.raises(ChurnkitError, match=mend):
        read_tables(tmp_path)


def test_a_database_without_the_table_says_which_it_has(tmp_path):
    """DuckDB and SQLite files name what they hold."""
    with duckdb.connect(str(tmp_path / "a.duckdb")) as con:
        con.execute("CREATE TABLE kunden AS SELECT 'A1' AS account_id, '2024-01-01' AS created_at")
    with sqlite3.connect(tmp_path / "a.sqlite") as con:
        con.execute("CREATE TABLE kunden (account_id TEXT, created_at TEXT)")
    con.close()
    for file in ("a.duckdb", "a.sqlite"):
        lay(tmp_path, toml(f'[tables.accounts]\nsource = "{file}"\ntable = "kundne"'))
        with pytest.raises(ChurnkitError, match="Did you mean 'kunden'"):
            read_tables(tmp_path)


@pytest.mark.parametrize(
    "frame",
    [
        [1, 2],
        pd.DataFrame(),
        pd.DataFrame({"account_id": ["A1"]}),
        pd.DataFrame([["A", "B"]], columns=["account_id", "account_id"]),
        pd.DataFrame({"account_id": ["A1"], "created_at": [object()]}),
        pd.DataFrame({"account_id": [None], "created_at": ["2024-01-01"]}),
    ],
    ids=["a list", "nothing", "no time", "twice a column", "an object as a time", "no id"],
)
def test_bad_frames_get_a_paragraph_too(frame):
    """from_frames goes through the same door."""
    with pytest.raises(ChurnkitError) as caught:
        Tables.from_frames(accounts=frame)
    assert "\n" not in str(caught.value)


HOSTILE = [
    "'; DROP TABLE accounts; --",
    '"quoted"',
    "<script>alert(1)</script>",
    "=cmd|' /C calc'!A0",
    "${HOME}",
    "{{ 7*7 }}",
    "..\\..\\etc",
    "\u202egnihtemos",
    "Zo\u00eb \U0001f680",
    "%s%n",
    "a,b;c d",
    "NULL",
    "nan",
    "-1",
    "1e5",
    "007",
]


def test_hostile_strings_that_are_legal_data_pass_unchanged(tmp_path):
    """Ids, names and events come out as they went in, from frames and from files."""
    accounts = pd.DataFrame({"account_id": HOSTILE, "created_at": "2024-01-01", "name": HOSTILE})
    usage = pd.DataFrame({"account_id": HOSTILE, "occurred_at": "2024-03-01", "event": HOSTILE})
    accounts.to_csv(tmp_path / "accounts.csv", index=False)
    usage.to_csv(tmp_path / "usage_events.csv", index=False)
    for tables in (Tables.from_frames(accounts=accounts, usage_events=usage), read_tables(tmp_path)):
        assert tables["accounts"]["account_id"].tolist() == HOSTILE
        assert tables["accounts"]["name"].tolist() == HOSTILE
        assert tables["usage_events"]["event"].tolist() == HOSTILE


def test_hostile_names_of_columns_are_only_names(tmp_path):
    """A mapping's identifiers are quoted."""
    name = 'x" FROM accounts; DROP TABLE "y'
    pd.DataFrame({name: ["A1"], "created_at": ["2024-01-01"]}).to_csv(tmp_path / "accounts.csv", index=False)
    lay(
        tmp_path,
        {
            "accounts.csv": None,
            "churnkit.toml": f"raw = '.'\n[tables.accounts.columns]\naccount_id = '{name}'",
            "usage_events.csv": "account_id,occurred_at,event\nA1,2024-03-01,open\n",
        },
    )
    assert read_tables(tmp_path)["accounts"]["account_id"].tolist() == ["A1"]
