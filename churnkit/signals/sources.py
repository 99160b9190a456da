"""Where raw tables come from: files, folders, globs, DuckDB, SQLite and PostgreSQL, with row numbers.

A row's number is its place in its file, counted from 1 for the first row after the header.
"""

# ruff: noqa: S608 - SQL is built from contract names, quoted identifiers and quoted literals only

from __future__ import annotations

import glob
import re
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import ibis
import pyarrow as pa

from churnkit.errors import DataError, did_you_mean
from churnkit.settings import Settings, TableMap, fill
from churnkit.signals.csvfile import escaped, open_csv
from churnkit.signals.relation import FILE, ROW, Source, first_line, literal, new_relation, quoted

_CSV = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
_PARQUET = (".parquet", ".pq")


def locate(name: str, settings: Settings) -> str | None:
    """The source of a table that the settings give none for: its file or folder in `raw`, or None.

    Raises:
        DataError: If several candidates lie there.
    """
    folder = settings.path(fill(settings.raw))
    found = [path for ending in (*_CSV, *_PARQUET, "") if (path := folder / f"{name}{ending}").exists()]
    if len(found) > 1:
        raise DataError(
            f"{name}: both '{found[0].name}' and '{found[1].name}' lie in '{settings.raw}'. Remove one, or say "
            f"which: [tables.{name}] source = '{settings.raw}/{found[0].name}'."
        )
    return f"{settings.raw.rstrip('/')}/{found[0].name}" if found else None


def open_source(con: duckdb.DuckDBPyConnection, mapping: TableMap, settings: Settings, name: str) -> Source:
    """One source as a relation of `con`, in the source's own columns plus ROW and FILE.

    Raises:
        DataError: If it is missing, unreadable, malformed or of no known kind; the text names the mend.
        SettingsError: If a ${NAME} in it is not set.
    """
    filled = fill(mapping.source)
    if re.match(r"postgres(ql)?(\+\w+)?://", filled):
        return _database(con, name, mapping, filled)
    if filled.startswith("sqlite://"):
        filled = filled.removeprefix("sqlite:///")
    elif "://" in filled:
        raise DataError(
            f"{name}: '{mapping.source}' is a source of no kind that is read here. Use CSV, Parquet, DuckDB, "
            "SQLite or postgresql://${USER}:${PASSWORD}@host/database."
        )
    files = _files(settings.path(filled), name, mapping.source)
    kinds = {_kind(file, name) for file in files}
    if len(kinds) > 1:
        raise DataError(
            f"{name}: '{mapping.source}' mixes kinds of files ({', '.join(sorted(kinds))}). "
            "Narrow it to one kind, for instance 'folder/*.parquet'."
        )
    kind = kinds.pop()
    if kind == "csv":
        return open_csv(con, name, mapping, files)
    if kind == "parquet":
        return _parquet(con, name, mapping, files)
    if len(files) > 1:
        raise DataError(f"{name}: '{mapping.source}' names {len(files)} databases. Name one file.")
    return (_duckdb if kind == "duckdb" else _sqlite)(con, name, mapping, files[0])


def wrong_table(name: str, table: str, known: list[str], label: str) -> DataError:
    """The error for a database that does not hold the table that the mapping names."""
    asked = f"holds no table '{table}'.{did_you_mean(table, known)}" if table else "holds several tables; say which."
    return DataError(
        f"{name}: '{label}' {asked} Set [tables.{name}] table = '...', one of: "
        f"{', '.join(sorted(known)[:20]) or 'none there'}."
    )


def _files(path: Path, name: str, label: str) -> list[Path]:
    """The files that a path, a folder or a glob stands for, sorted."""
    if path.is_dir():
        found = sorted(
            file for file in path.rglob("*") if file.is_file() and file.name.lower().endswith((*_CSV, *_PARQUET))
        )
        if not found:
            raise DataError(
                f"{name}: the folder '{label}' holds no CSV or Parquet file. Put the export there, or name a "
                f"file: [tables.{name}] source = '...'."
            )
        return found
    if path.is_file():
        return [path]
    if glob.has_magic(str(path)):
        named = glob.glob(str(path), recursive=True)  # noqa: PTH207 - the pattern may be absolute, unlike Path.glob's
        found = sorted(Path(file) for file in named if Path(file).is_file())
        if found:
            return found
    raise DataError(f"{name}: there is no file '{label}'. Correct [tables.{name}] source, or put the export there.")


def _kind(file: Path, name: str) -> str:
    low = file.name.lower()
    if low.endswith((".pkl", ".pickle", ".joblib")):
        raise DataError(
            f"{name}: '{file.name}' is a pickle, which can run code when read. Export it as CSV or Parquet."
        )
    if low.endswith((".xlsx", ".xls", ".ods")):
        raise DataError(f"{name}: '{file.name}' is a spreadsheet. Save the sheet as CSV (UTF-8).")
    try:
        with file.open("rb") as opened:
            head = opened.read(16)
    except OSError as error:
        raise DataError(
            f"{name}: '{file.name}' cannot be read ({error.strerror}). Make it a readable file."
        ) from None
    if head.startswith(b"SQLite format 3\0"):
        return "sqlite"
    if head[8:12] == b"DUCK":
        return "duckdb"
    if low.endswith(_PARQUET) or head.startswith(b"PAR1"):
        return "parquet"
    if low.endswith(_CSV):
        return "csv"
    raise DataError(
        f"{name}: '{file.name}' is of no kind that is read here. Use .csv, .csv.gz, .parquet, DuckDB or SQLite."
    )


def _parquet(con: duckdb.DuckDBPyConnection, name: str, mapping: TableMap, files: list[Path]) -> Source:
    relation, paths = new_relation(), [escaped(file) for file in files]
    explain = partial(_unreadable, name, mapping.source)
    listed = ", ".join(literal(path) for path in paths)
    names = ", ".join(literal(str(file)) for file in files)
    try:
        con.execute(
            f"CREATE TEMP VIEW {relation} AS SELECT (list_position([{names}], filename) - 1)::SMALLINT "
            f"AS {quoted(FILE)}, "
            f"file_row_number + 1 AS {quoted(ROW)}, * EXCLUDE (filename, file_row_number) "
            f"FROM read_parquet([{listed}], "
            f"union_by_name = true, filename = true, file_row_number = true, hive_partitioning = {len(files) > 1}, "
            f"hive_types_autocast = false)"
        )
        types = _types(con, relation)
    except duckdb.Error as error:
        raise explain(error) from None
    return Source(relation, types, tuple(file.name for file in files), mapping.source, explain)


def _unreadable(name: str, label: str, error: duckdb.Error) -> DataError:
    reason = re.sub(r"'?/[^ ']*/", "'", first_line(str(error)))  # file names, not this machine's folders
    return DataError(
        f"{name}: '{label}' cannot be read ({reason}). Write it again, or copy it again from where it came from."
    )


def _duckdb(con: duckdb.DuckDBPyConnection, name: str, mapping: TableMap, file: Path) -> Source:
    relation = new_relation()
    database = f"attached_{relation}"
    try:
        con.execute(f"ATTACH {literal(str(file))} AS {database} (READ_ONLY)")
        known = [
            row[0]
            for row in con.execute(
                "SELECT table_name FROM information_schema.tables WHERE table_catalog = ?", [database]
            ).fetchall()
        ]
        table = mapping.table or (known[0] if len(known) == 1 else "")
        if table not in known:
            raise wrong_table(name, mapping.table, known, mapping.source)
        con.execute(
            f"CREATE TEMP VIEW {relation} AS SELECT 0::SMALLINT AS {quoted(FILE)}, row_number() OVER () AS "
            f"{quoted(ROW)}, * FROM {database}.{quoted(table)}"
        )
        return Source(
            relation, _types(con, relation), (file.name,), mapping.source, partial(_unreadable, name, mapping.source)
        )
    except duckdb.Error as error:
        raise DataError(
            f"{name}: '{mapping.source}' cannot be read as a DuckDB file ({first_line(str(error))}). Close the "
            "program that writes to it, or export the table as Parquet."
        ) from None


def _sqlite(con: duckdb.DuckDBPyConnection, name: str, mapping: TableMap, file: Path) -> Source:
    return _through_ibis(con, name, mapping, lambda: ibis.sqlite.connect(file), as_text=True)


def _database(con: duckdb.DuckDBPyConnection, name: str, mapping: TableMap, url: str) -> Source:
    return _through_ibis(con, name, mapping, lambda: ibis.postgres.from_connection(connected(url)), as_text=False)


def connected(url: str) -> Any:
    """A connection of psycopg; libpq reads the URL, with whatever options and escapes it allows."""
    import psycopg

    return psycopg.connect(re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", url), autocommit=True,
                           connect_timeout=_PATIENCE)


_PATIENCE = 15
"""Seconds until a server that says nothing counts as not there."""
_PLAIN = ("is_string", "is_boolean", "is_integer", "is_floating", "is_timestamp", "is_date")


def _through_ibis(
    con: duckdb.DuckDBPyConnection, name: str, mapping: TableMap, connect: Any, *, as_text: bool
) -> Source:
    """A database table copied into DuckDB through Ibis's own backend; its errors are told without the URL's secrets."""
    try:
        backend = connect()
    except Exception as error:  # noqa: BLE001 - every driver has errors of its own; none may show the URL
        raise DataError(
            f"{name}: cannot connect to '{mapping.source}' ({type(error).__name__}). Check host, database and the "
            "${...} variables, and that the driver is installed (churnkit-outreach[postgres])."
        ) from None
    try:
        schema, _, plain = mapping.table.rpartition(".")
        known = list(backend.list_tables(database=schema or None))
        table = plain or (known[0] if len(known) == 1 else "")
        if table not in known:
            raise wrong_table(name, mapping.table, known, mapping.source)  # noqa: TRY301 - told apart just below
        expr = backend.table(table, database=schema or None)
        # SQLite's columns hold anything, PostgreSQL's decimals, ids and documents: they are read as they are written.
        expr = expr.select(**{column: expr[column].cast("string") if as_text or not any(
            getattr(kind, name)() for name in _PLAIN) else expr[column] for column, kind in expr.schema().items()})
        relation = new_relation()
        _copy(con, relation, expr.to_pyarrow_batches())
        return Source(
            relation, _types(con, relation), (table,), mapping.source, partial(_unreadable, name, mapping.source)
        )
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        raise DataError(
            f"{name}: reading '{table}' from '{mapping.source}' failed ({type(error).__name__}). Check that the "
            "table can be selected from, or export it as Parquet."
        ) from None
    finally:
        backend.disconnect()


def from_arrow(con: duckdb.DuckDBPyConnection, data: pa.Table, label: str) -> Source:
    """An Arrow table as a source; rows count from 1."""
    relation = new_relation()
    _copy(con, relation, data)
    return Source(relation, _types(con, relation), (label,), label, partial(_unreadable, label, label))


def _copy(con: duckdb.DuckDBPyConnection, relation: str, data: pa.Table | pa.RecordBatchReader) -> None:
    con.register("incoming", data)
    con.execute(
        f"CREATE TEMP TABLE {relation} AS SELECT 0::SMALLINT AS {quoted(FILE)}, row_number() OVER () AS {quoted(ROW)}, "
        "* FROM incoming"
    )
    con.unregister("incoming")


def _types(con: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    rows = con.execute(f"DESCRIBE {relation}").fetchall()
    return {row[0]: row[1] for row in rows if row[0] not in {ROW, FILE}}
