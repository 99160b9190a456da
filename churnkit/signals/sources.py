"""Where raw tables come from: files, folders, globs, DuckDB, SQLite and PostgreSQL, as text or typed columns with row numbers.

A row's number is its place in its file, counted from 1 for the first row after the header.
"""

from __future__ import annotations

import codecs
import csv
import glob
import gzip
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, cast

import duckdb
import ibis
import pyarrow as pa

from churnkit.errors import DataError, did_you_mean
from churnkit.settings import Settings, TableMap, fill

ROW, FILE = "#row", "#file"
"""The helper columns that every source carries: the row's number, and the file's place in `Source.files`."""

_CSV = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz")
_PARQUET = (".parquet", ".pq")
_DELIMITERS = ",;\t|"
_LONGEST_LINE = 16 * 2**20
_serial = count()


@dataclass(frozen=True)
class Source:
    """One opened source: the name of its relation in DuckDB, its columns with their DuckDB types, and its files.

    Text sources have VARCHAR columns throughout: nothing is inferred. `label` is how messages name it, without secrets.
    `explain` tells what is wrong with the source when DuckDB cannot read it to its end.
    """

    relation: str
    types: dict[str, str]
    files: tuple[str, ...]
    label: str
    explain: Callable[[duckdb.Error], DataError]


def quoted(name: str) -> str:
    """A name as an SQL identifier.

    >>> quoted('a "b"')
    '"a ""b\"""'
    """
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as an SQL literal.

    >>> literal("o'hara")
    "'o''hara'"
    """
    return "'" + text.replace("'", "''").replace("\0", "") + "'"


def locate(name: str, settings: Settings) -> str | None:
    """The source of a table that the settings give none for: its file or folder in `raw`, or None.

    Raises:
        DataError: If several candidates lie there.
    """
    folder = settings.path(fill(settings.raw))
    found = [path for ending in (*_CSV, *_PARQUET, "") if (path := folder / f"{name}{ending}").exists()]
    if len(found) > 1:
        raise DataError(f"{name}: both '{found[0].name}' and '{found[1].name}' lie in '{settings.raw}'. Remove one, or say "
                        f"which: [tables.{name}] source = '{settings.raw}/{found[0].name}'.")
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
        raise DataError(f"{name}: '{mapping.source}' is a source of no kind that is read here. Use CSV, Parquet, DuckDB, "
                        "SQLite or postgresql://${USER}:${PASSWORD}@host/database.")
    files = _files(settings.path(filled), name, mapping.source)
    kinds = {_kind(file, name) for file in files}
    if len(kinds) > 1:
        raise DataError(f"{name}: '{mapping.source}' mixes kinds of files ({', '.join(sorted(kinds))}). "
                        "Narrow it to one kind, for instance 'folder/*.parquet'.")
    kind = kinds.pop()
    if kind == "csv":
        return _csv(con, name, mapping, files)
    if kind == "parquet":
        return _parquet(con, name, mapping, files)
    if len(files) > 1:
        raise DataError(f"{name}: '{mapping.source}' names {len(files)} databases. Name one file.")
    return (_duckdb if kind == "duckdb" else _sqlite)(con, name, mapping, files[0])


def wrong_table(name: str, table: str, known: list[str], label: str) -> DataError:
    """The error for a database that does not hold the table that the mapping names."""
    asked = f"holds no table '{table}'.{did_you_mean(table, known)}" if table else "holds several tables; say which."
    return DataError(f"{name}: '{label}' {asked} Set [tables.{name}] table = '...', one of: "
                     f"{', '.join(sorted(known)[:20]) or 'none there'}.")


def _files(path: Path, name: str, label: str) -> list[Path]:
    """The files that a path, a folder or a glob stands for, sorted."""
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.is_file() and file.name.lower().endswith((*_CSV, *_PARQUET)))
        if not found:
            raise DataError(f"{name}: the folder '{label}' holds no CSV or Parquet file. Put the export there, or name a "
                            f"file: [tables.{name}] source = '...'.")
        return found
    if path.is_file():
        return [path]
    if glob.has_magic(str(path)):
        found = sorted(Path(file) for file in glob.glob(str(path), recursive=True) if Path(file).is_file())
        if found:
            return found
    raise DataError(f"{name}: there is no file '{label}'. Correct [tables.{name}] source, or put the export there.")


def _kind(file: Path, name: str) -> str:
    low = file.name.lower()
    if low.endswith((".pkl", ".pickle", ".joblib")):
        raise DataError(f"{name}: '{file.name}' is a pickle, which can run code when read. Export it as CSV or Parquet.")
    if low.endswith((".xlsx", ".xls", ".ods")):
        raise DataError(f"{name}: '{file.name}' is a spreadsheet. Save the sheet as CSV (UTF-8).")
    try:
        with file.open("rb") as opened:
            head = opened.read(16)
    except OSError as error:
        raise DataError(f"{name}: '{file.name}' cannot be read ({error.strerror}). Make it a readable file.") from None
    if head.startswith(b"SQLite format 3\0"):
        return "sqlite"
    if head[8:12] == b"DUCK":
        return "duckdb"
    if low.endswith(_PARQUET) or head.startswith(b"PAR1"):
        return "parquet"
    if low.endswith(_CSV):
        return "csv"
    raise DataError(f"{name}: '{file.name}' is of no kind that is read here. Use .csv, .csv.gz, .parquet, DuckDB or SQLite.")


# ---------------------------------------------------------------------------------------------------------------- CSV


def _csv(con: duckdb.DuckDBPyConnection, name: str, mapping: TableMap, files: list[Path]) -> Source:
    headers = [_header(file, name, mapping.delimiter) for file in files]
    columns = list(dict.fromkeys(column for header, _ in headers for column in header))
    selects = []
    for place, (file, (header, delimiter)) in enumerate(zip(files, headers, strict=True)):
        kinds = ", ".join(f"{literal(column)}: 'VARCHAR'" for column in header)
        cells = ", ".join(quoted(column) if column in header else f"NULL::VARCHAR AS {quoted(column)}" for column in columns)
        selects.append(
            f"SELECT {place}::SMALLINT AS {quoted(FILE)}, row_number() OVER () AS {quoted(ROW)}, {cells} FROM read_csv("
            f"{literal(_escaped(file))}, columns = {{{kinds}}}, header = true, auto_detect = false, "
            f"delim = {literal(delimiter)}, quote = '\"', escape = '\"', nullstr = '', null_padding = false, "
            f"max_line_size = {_LONGEST_LINE}, compression = {literal('gzip' if _gzipped(file) else 'none')})")
    relation = f"source_{next(_serial)}"
    explain = partial(_csv_error, name, files)
    try:
        con.execute(f"CREATE TEMP VIEW {relation} AS {' UNION ALL '.join(selects)}")
    except duckdb.Error as error:
        raise explain(error) from None
    return Source(relation, dict.fromkeys(columns, "VARCHAR"), tuple(file.name for file in files), mapping.source, explain)


def _escaped(file: Path) -> str:
    """A path in which DuckDB sees no pattern of its own."""
    return re.sub(r"([*?\[])", r"[\1]", str(file))


def _gzipped(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(2) == b"\x1f\x8b"


def _opened(file: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(file)) if _gzipped(file) else file.open("rb")


def _header(file: Path, name: str, delimiter: str) -> tuple[list[str], str]:
    """The column names of a CSV file and what separates them."""
    try:
        with _opened(file) as opened:
            line = opened.readline(2**20)
    except (OSError, EOFError) as error:
        raise _gzip_error(file, name, error) from None
    if line[:2] in {b"\xff\xfe", b"\xfe\xff"} or b"\0" in line:
        raise DataError(f"{name}: '{file.name}' is not UTF-8 (it looks like UTF-16 or binary). Save it as CSV UTF-8.")
    try:
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise _not_utf8(name, file, error.start, line[error.start]) from None
    if not text.strip():
        raise DataError(f"{name}: '{file.name}' is empty: not even a header. Export it again with its column names in the "
                        "first line.")
    delimiter = delimiter or max(_DELIMITERS, key=re.sub(r'"[^"]*"', "", text).count)
    header = [column.strip() for column in next(csv.reader(io.StringIO(text), delimiter=delimiter))]
    header = [column or f"column {place}" for place, column in enumerate(header, 1)]
    seen: set[str] = set()
    for column in header:
        if column.lower() in seen:
            raise DataError(f"{name}: '{file.name}' has two columns named '{column}'. Rename one in the export.")
        seen.add(column.lower())
    return header, delimiter


def _csv_error(name: str, files: list[Path], error: duckdb.Error) -> DataError:
    """The cause of a CSV file that DuckDB could not read, found by reading it again."""
    text = str(error)
    named = [file for file in files if str(file) in text or _escaped(file) in text] or files
    for file in named:
        trouble = _undecodable(file, name)
        if trouble:
            return trouble
    line = re.search(r"(?:CSV Error on Line|Line): (\d+)", text)
    where = f"'{named[0].name}'" + (f", line {line[1]}" if line else "")
    wanted = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", text)
    if wanted:
        return DataError(f"{name}: {where} has {wanted[2]} columns where the header has {wanted[1]}. Quote texts that hold "
                         "the delimiter, or export the file again.")
    if "aximum line size" in text:
        return DataError(f"{name}: {where} is longer than {_LONGEST_LINE // 2**20} MiB. Look for a quote that is never closed, "
                         "or shorten the text.")
    if "quote" in text.lower():
        return DataError(f"{name}: {where} has a quote that is not closed. Double the quotes inside texts, or export the file "
                         "again.")
    return DataError(f"{name}: {where} is no readable CSV ({_first_line(text)}). Export it again as CSV with one header line.")


def _undecodable(file: Path, name: str) -> DataError | None:
    """What is wrong with a file's bytes, if anything."""
    decoder, place = codecs.getincrementaldecoder("utf-8")(), 0
    try:
        with _opened(file) as opened:
            while chunk := opened.read(2**20):
                held = len(decoder.getstate()[0])
                try:
                    decoder.decode(chunk)
                except UnicodeDecodeError as error:
                    return _not_utf8(name, file, place - held + error.start, error.object[error.start])
                place += len(chunk)
    except (OSError, EOFError) as error:
        return _gzip_error(file, name, error)
    return None


def _not_utf8(name: str, file: Path, place: int, byte: int) -> DataError:
    return DataError(f"{name}: '{file.name}' is not UTF-8: byte {place} is 0x{byte:02X}. Save it as UTF-8, for instance with "
                     f"iconv -f WINDOWS-1252 -t UTF-8.")


def _gzip_error(file: Path, name: str, error: Exception) -> DataError:
    if _gzipped(file):
        return DataError(f"{name}: '{file.name}' is a broken or cut-off gzip file. Copy it again from where it came from.")
    return DataError(f"{name}: '{file.name}' cannot be read ({_first_line(str(error))}). Make it a readable file.")


# ---------------------------------------------------------------------------------------------------- typed sources


def _parquet(con: duckdb.DuckDBPyConnection, name: str, mapping: TableMap, files: list[Path]) -> Source:
    relation, paths = f"source_{next(_serial)}", [_escaped(file) for file in files]
    explain = partial(_unreadable, name, mapping.source)
    listed = ", ".join(literal(path) for path in paths)
    names = ", ".join(literal(str(file)) for file in files)
    try:
        con.execute(
            f"CREATE TEMP VIEW {relation} AS SELECT (list_position([{names}], filename) - 1)::SMALLINT AS {quoted(FILE)}, "
            f"file_row_number + 1 AS {quoted(ROW)}, * EXCLUDE (filename, file_row_number) FROM read_parquet([{listed}], "
            f"union_by_name = true, filename = true, file_row_number = true, hive_partitioning = {len(files) > 1}, "
            f"hive_types_autocast = false)")
        types = _types(con, relation)
    except duckdb.Error as error:
        raise explain(error) from None
    return Source(relation, types, tuple(file.name for file in files), mapping.source, explain)


def _unreadable(name: str, label: str, error: duckdb.Error) -> DataError:
    reason = re.sub(r"'?/[^ ']*/", "'", _first_line(str(error)))  # file names, not this machine's folders
    return DataError(f"{name}: '{label}' cannot be read ({reason}). Write it again, or copy it again from where it came "
                     "from.")


def _duckdb(con: duckdb.DuckDBPyConnection, name: str, mapping: TableMap, file: Path) -> Source:
    number = next(_serial)
    relation, database = f"source_{number}", f"attached_{number}"
    try:
        con.execute(f"ATTACH {literal(str(file))} AS {database} (READ_ONLY)")
        known = [row[0] for row in con.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_catalog = ?", [database]).fetchall()]
        table = mapping.table or (known[0] if len(known) == 1 else "")
        if table not in known:
            raise wrong_table(name, mapping.table, known, mapping.source)
        con.execute(f"CREATE TEMP VIEW {relation} AS SELECT 0::SMALLINT AS {quoted(FILE)}, row_number() OVER () AS "
                    f"{quoted(ROW)}, * FROM {database}.{quoted(table)}")
        return Source(relation, _types(con, relation), (file.name,), mapping.source, partial(_unreadable, name, mapping.source))
    except duckdb.Error as error:
        raise DataError(f"{name}: '{mapping.source}' cannot be read as a DuckDB file ({_first_line(str(error))}). Close the "
                        "program that writes to it, or export the table as Parquet.") from None


def _sqlite(con: duckdb.DuckDBPyConnection, name: str, mapping: TableMap, file: Path) -> Source:
    return _through_ibis(con, name, mapping, lambda: ibis.sqlite.connect(file), as_text=True)


def _database(con: duckdb.DuckDBPyConnection, name: str, mapping: TableMap, url: str) -> Source:
    plain = re.sub(r"^postgres(ql)?(\+\w+)?://", "postgres://", url)
    return _through_ibis(con, name, mapping, lambda: ibis.connect(plain), as_text=False)


def _through_ibis(con: duckdb.DuckDBPyConnection, name: str, mapping: TableMap, connect: Any, *, as_text: bool) -> Source:
    """A database table copied into DuckDB through Ibis's own backend; its errors are told without the URL's secrets."""
    try:
        backend = connect()
    except Exception as error:  # noqa: BLE001 - every driver has errors of its own; none may show the URL
        raise DataError(f"{name}: cannot connect to '{mapping.source}' ({type(error).__name__}). Check host, database and the "
                        "${...} variables, and that the driver is installed (churnkit-outreach[postgres]).") from None
    try:
        known = list(backend.list_tables())
        table = mapping.table or (known[0] if len(known) == 1 else "")
        if table not in known:
            raise wrong_table(name, mapping.table, known, mapping.source)
        expr = backend.table(table)
        if as_text:  # SQLite's columns hold anything: read them as they are written
            expr = expr.select(**{column: expr[column].cast("string") for column in expr.columns})
        relation = f"source_{next(_serial)}"
        _copy(con, relation, expr.to_pyarrow_batches())
        return Source(relation, _types(con, relation), (table,), mapping.source, partial(_unreadable, name, mapping.source))
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - as above
        raise DataError(f"{name}: reading '{table}' from '{mapping.source}' failed ({type(error).__name__}). Check that the "
                        "table can be selected from, or export it as Parquet.") from None
    finally:
        backend.disconnect()


def from_arrow(con: duckdb.DuckDBPyConnection, data: pa.Table, label: str) -> Source:
    """An Arrow table as a source; rows count from 1."""
    relation = f"source_{next(_serial)}"
    _copy(con, relation, data)
    return Source(relation, _types(con, relation), (label,), label, partial(_unreadable, label, label))


def _copy(con: duckdb.DuckDBPyConnection, relation: str, data: pa.Table | pa.RecordBatchReader) -> None:
    con.register("incoming", data)
    con.execute(f"CREATE TEMP TABLE {relation} AS SELECT 0::SMALLINT AS {quoted(FILE)}, row_number() OVER () AS {quoted(ROW)}, "
                "* FROM incoming")
    con.unregister("incoming")


def _types(con: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    rows = con.execute(f"DESCRIBE {relation}").fetchall()
    return {row[0]: row[1] for row in rows if row[0] not in {ROW, FILE}}


def _first_line(text: str) -> str:
    return next(_lines(text), "no reason given")


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if line.strip():
            yield line.strip().rstrip(".")[:200]
