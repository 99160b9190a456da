"""Where tables come from: each kind of source gives the same table, and rows keep their numbers."""

from __future__ import annotations

import datetime as dt
import gzip
import sqlite3

import duckdb
import pandas as pd
import pytest

from churnkit.errors import DataError
from churnkit.settings import Settings, TableMap, from_mapping
from churnkit.signals.sources import locate
from churnkit.signals.tables import read_tables

ROWS = pd.DataFrame(
    {"account_id": ["007", "A2"], "created_at": ["2024-01-01", "2024-02-01"], "name": ["Ann, Inc.", 'the "B"']}
)
SURVEYS = "account_id,responded_at,kind,score\n"


def read(root, **accounts):
    """The accounts of a workspace whose accounts are mapped so."""
    (root / "surveys.csv").write_text(SURVEYS)
    return read_tables(from_mapping({"raw": ".", "tables": {"accounts": accounts}}, root=root))["accounts"]


def write(root, kind):
    """The rows in one of the kinds of source; returns its mapping."""
    if kind == "parquet":
        ROWS.to_parquet(root / "a.parquet")
    elif kind == "semicolons":
        ROWS.to_csv(root / "a.csv", sep=";", index=False)
    elif kind == "tabs with BOM":
        (root / "a.tsv").write_bytes(b"\xef\xbb\xbf" + ROWS.to_csv(sep="\t", index=False).encode())
    elif kind == "gzip":
        (root / "a.csv.gz").write_bytes(gzip.compress(ROWS.to_csv(index=False).encode()))
    elif kind == "glob":
        ROWS[:1].to_csv(root / "a1.csv", index=False)
        ROWS[1:].to_csv(root / "a2.csv", index=False)
        return {"source": "a?.csv"}
    elif kind == "partitioned folder":
        for place in (0, 1):
            (root / "parts" / f"year=202{place}").mkdir(parents=True)
            ROWS[place : place + 1].to_parquet(root / "parts" / f"year=202{place}" / "p.parquet")
        return {"source": "parts"}
    elif kind == "duckdb":
        with duckdb.connect(str(root / "a.db")) as con:
            con.register("rows", ROWS)
            con.execute("CREATE TABLE clients AS SELECT * FROM rows")
        return {"source": "a.db", "table": "clients"}
    elif kind in {"sqlite", "sqlite url"}:
        con = sqlite3.connect(root / "a.db")
        ROWS.to_sql("clients", con, index=False)
        con.close()
        return {"source": "sqlite:///a.db" if "url" in kind else "a.db", "table": "clients"}
    return {"source": next(file.name for file in sorted(root.iterdir()) if file.name.startswith("a."))}


@pytest.mark.parametrize(
    "kind",
    [
        "parquet",
        "semicolons",
        "tabs with BOM",
        "gzip",
        "glob",
        "partitioned folder",
        "duckdb",
        "sqlite",
        "sqlite url",
    ],
)
def test_every_kind_of_source_gives_the_same_rows(kind, tmp_path):
    """Ids stay text, quotes and delimiters in texts survive."""
    found = read(tmp_path, **write(tmp_path, kind))
    assert ROWS["account_id"].tolist() == found["account_id"].tolist()
    assert ROWS["name"].tolist() == found["name"].tolist()
    assert [dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.datetime(2024, 2, 1, tzinfo=dt.UTC)] == found[
        "created_at"
    ].tolist()


def test_a_source_may_be_named_by_the_environment(tmp_path, monkeypatch):
    """${NAME} is filled in."""
    monkeypatch.setenv("CHURNKIT_TEST_FILE", "a")
    write(tmp_path, "parquet")
    assert len(read(tmp_path, source="${CHURNKIT_TEST_FILE}.parquet")) == 2


def test_a_folder_with_brackets_in_its_name_is_no_pattern(tmp_path):
    """Only what the mapping writes as a glob is one."""
    root = tmp_path / "w[1]"
    root.mkdir()
    write(root, "semicolons")
    assert len(read(root, source="a.csv")) == 2


def test_findings_count_rows_per_file(tmp_path):
    """Row 2 is the second row after the header of its own file."""
    (tmp_path / "a1.csv").write_text("account_id,created_at\nA1,2024-01-01\n")
    (tmp_path / "a2.csv").write_text("account_id,created_at\nA2,2024-01-01\nA3,never\n")
    with pytest.raises(DataError, match=r"first: row 2 of a2.csv, 'never'"):
        read(tmp_path, source="a?.csv")


def test_files_of_a_glob_may_differ_in_columns(tmp_path):
    """A column that one file lacks is missing there."""
    (tmp_path / "a1.csv").write_text("account_id,created_at,name\nA1,2024-01-01,x\n")
    (tmp_path / "a2.csv").write_text("created_at,account_id\n2024-01-01,A2\n")
    found = read(tmp_path, source="a?.csv")
    assert found["account_id"].tolist() == ["A1", "A2"]
    assert found["name"].tolist() == ["x", None]


def test_locate_finds_files_and_folders(tmp_path):
    """A table without a section lies in `raw` under its own name."""
    settings = Settings(root=tmp_path, raw="raw")
    (tmp_path / "raw").mkdir()
    assert locate("accounts", settings) is None
    (tmp_path / "raw" / "accounts.csv.gz").write_bytes(b"")
    assert locate("accounts", settings) == "raw/accounts.csv.gz"


def test_rows_keep_the_order_of_a_large_file(tmp_path):
    """Row numbers are places in the file, however many threads read it."""
    rows = 300_000
    lines = "\n".join(f"A1,2024-01-01T00:00:00+00:00,e{n:07d}" for n in range(rows))
    (tmp_path / "accounts.csv").write_text("account_id,created_at\nA1,2024-01-01\n")
    (tmp_path / "usage_events.csv").write_text(f"account_id,occurred_at,event\n{lines}\nA1,never,x\n")
    settings = Settings(root=tmp_path, raw=".", invalid="drop")
    tables = read_tables(settings)
    assert rows + 1 == next(finding.first_row for finding in tables.findings if finding.check == "type")
    assert tables["usage_events"]["event"].is_monotonic_increasing


def test_mapping_of_a_plain_source_needs_no_settings():
    """A TableMap stands for itself."""
    assert TableMap(source="x.csv").grain == "instant"
