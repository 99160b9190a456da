"""CSV files, gzipped or not: read as text through DuckDB, and what is wrong with one that cannot be read."""

# ruff: noqa: S608 - SQL is built from contract names, quoted identifiers and quoted literals only

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

import duckdb

from churnkit.errors import DataError
from churnkit.settings import TableMap
from churnkit.signals.relation import FILE, ROW, Source, first_line, literal, new_relation, quoted

_DELIMITERS = ",;\t|"
_LONGEST_LINE = 16 * 2**20


def open_csv(con: duckdb.DuckDBPyConnection, name: str, mapping: TableMap, files: list[Path]) -> Source:
    """CSV files of one table as one relation, every column as text; columns that a file lacks are missing there."""
    headers = [_header(file, name, mapping.delimiter) for file in files]
    columns = list(dict.fromkeys(column for header, _ in headers for column in header))
    selects = []
    for place, (file, (header, delimiter)) in enumerate(zip(files, headers, strict=True)):
        kinds = ", ".join(f"{literal(column)}: 'VARCHAR'" for column in header)
        cells = ", ".join(
            quoted(column) if column in header else f"NULL::VARCHAR AS {quoted(column)}" for column in columns
        )
        selects.append(
            f"SELECT {place}::SMALLINT AS {quoted(FILE)}, row_number() OVER () AS {quoted(ROW)}, {cells} FROM read_csv("
            f"{literal(escaped(file))}, columns = {{{kinds}}}, header = true, auto_detect = false, "
            f"delim = {literal(delimiter)}, quote = '\"', escape = '\"', nullstr = '', null_padding = false, "
            f"max_line_size = {_LONGEST_LINE}, compression = {literal('gzip' if _gzipped(file) else 'none')})"
        )
    relation = new_relation()
    explain = partial(_csv_error, name, files)
    try:
        con.execute(f"CREATE TEMP VIEW {relation} AS {' UNION ALL '.join(selects)}")
    except duckdb.Error as error:
        raise explain(error) from None
    return Source(
        relation, dict.fromkeys(columns, "VARCHAR"), tuple(file.name for file in files), mapping.source, explain
    )


def escaped(file: Path) -> str:
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
        raise DataError(
            f"{name}: '{file.name}' is empty: not even a header. Export it again with its column names in the "
            "first line."
        )
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
    named = [file for file in files if str(file) in text or escaped(file) in text] or files
    for file in named:
        trouble = _undecodable(file, name)
        if trouble:
            return trouble
    line = re.search(r"(?:CSV Error on Line|Line): (\d+)", text)
    where = f"'{named[0].name}'" + (f", line {line[1]}" if line else "")
    wanted = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", text)
    if wanted:
        return DataError(
            f"{name}: {where} has {wanted[2]} columns where the header has {wanted[1]}. Quote texts that hold "
            "the delimiter, or export the file again."
        )
    if "aximum line size" in text:
        return DataError(
            f"{name}: {where} is longer than {_LONGEST_LINE // 2**20} MiB. Look for a quote that is never closed, "
            "or shorten the text."
        )
    if "quote" in text.lower():
        return DataError(
            f"{name}: {where} has a quote that is not closed. Double the quotes inside texts, or export the file "
            "again."
        )
    return DataError(
        f"{name}: {where} is no readable CSV ({first_line(text)}). Export it again as CSV with one header line."
    )


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
    return DataError(
        f"{name}: '{file.name}' is not UTF-8: byte {place} is 0x{byte:02X}. Save it as UTF-8, for instance with "
        f"iconv -f WINDOWS-1252 -t UTF-8."
    )


def _gzip_error(file: Path, name: str, error: Exception) -> DataError:
    if _gzipped(file):
        return DataError(
            f"{name}: '{file.name}' is a broken or cut-off gzip file. Copy it again from where it came from."
        )
    return DataError(f"{name}: '{file.name}' cannot be read ({first_line(str(error))}). Make it a readable file.")
