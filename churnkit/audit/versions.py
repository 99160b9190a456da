"""Final values stamped on every version of a record, found in the source's own columns, mapped or not."""

# ruff: noqa: S608 - SQL is built from contract names, quoted identifiers and quoted literals only

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import duckdb

from churnkit.audit.cut import AGREED, GIVEN_WITH
from churnkit.audit.finding import Finding, Verdict, shown
from churnkit.schemas import Table
from churnkit.settings import Settings, TableMap
from churnkit.signals import cells
from churnkit.signals.relation import ROW, Source, literal, quoted
from churnkit.signals.sources import locate, open_source
from churnkit.signals.tables import Tables

FEWEST = 20
"""Records with several versions, or filled cells, below which a column tells nothing."""
NEARLY = 0.95
"""The share of records, of those that could tell, over whose versions a stamped column is constant."""
FORETELLS = 0.8
"""A constant number whose rank correlation with the number of versions is this high counts what was yet to come."""
TELLING = re.compile(r"(?:^|_)(resol\w*|solv\w*|clos(?:ed|ing|ure)\w*|end(?:ed)?|final\w*|complet\w*|finish\w*|"
                     r"outcome|result|won|lost|win|paid|cancel\w*|churn\w*|left|retired|sla|breach\w*|csat|ces|rating|rated|satisf\w*|"
                     r"effort|reopen\w*|reassign\w*|escalat\w*|attempts|duration|elapsed)(?:_|$)")
"""Names of what is known at a record's end, or after something happened to it."""
AGREED_NAMES = re.compile(r"(?:^|_)(due|renew\w*|expir\w*|plan(?:ned)?|expect\w*|target|valid|until|schedul\w*|"
                          r"deadline|next)(?:_|$)")
"""Names of times that are agreed beforehand and may well lie ahead."""
ENDS = ("rated_at", "resolved_at", "closed_at", "ended_at", "retired_at")
"""Times of the contract that come at a record's end; one that repeats the record's own time says nothing."""
_EMPTY = "('', '?', 'null', 'none', 'nan', 'n/a', '-')"
_MEND_STAMPED = ("Leave it out, or read it only from rows written at or after the time it tells of; a true history "
                 "comes from record_changes.")


@dataclass(frozen=True)
class _Log:
    """A source that holds records in several rows, as the table `versions`: id, clock, and all columns as text.

    `named` gives the contract's name of a source column, where it has one. `clock` is the column that tells when a row
    was written ('' where there is none), `mapped` whether the mapping says so.
    """

    con: duckdb.DuckDBPyConnection
    table: Table
    named: Mapping[str, str]
    clock: str
    mapped: bool
    columns: tuple[str, ...]
    records: int


@dataclass(frozen=True)
class _Column:
    """How a column behaves over the versions of a record.

    `constant` is the share of telling records, those with a value other than the usual first one, over whose versions
    it stays the same; `moved` the share of all records that end with another value than they began with; `ahead` the
    share of first versions whose value is a time after them (0 where it is no time); `foretells` the rank correlation
    of a number with how many versions there are.
    """

    name: str
    telling: int
    constant: float
    moved: float
    time: bool
    ahead: float
    foretells: float

    @property
    def stamped(self) -> bool:
        """Whether it is the same from a record's first row to its last, in nearly all records that could tell."""
        return self.telling >= FEWEST and self.constant >= NEARLY


def versions(settings: Settings) -> Verdict:
    """Looks at every table whose source holds the same record in several rows.

    A column is accused when it is the same on all rows of a record, in nearly all records that could tell, and is a
    time that lies after the first row was written, or bears a name of the contract or of everyday use for what is known
    later, or is a number that goes with how many rows are still to come. Columns that move with the rows are right,
    provided that recorded_at says when each row was written.

    Args:
        settings: The workspace, whose sources are read anew, with all their columns.

    Returns:
        One finding per stamped column, and one per table whose rows lack their clock.
    """
    findings: list[Finding] = []
    hints: list[str] = []
    looked = []
    declared = Tables(settings)  # empty: for the tables that the workspace declares beside the contract's
    settings = declared.settings
    for name, table in declared.contract.items():
        for part in _parts(settings, name):
            with duckdb.connect() as con:
                con.execute("SET TimeZone = 'UTC'")
                source = open_source(con, part, settings, name)
                findings += _repeated(con, table, source, part)
                log = _log(con, table, source, part)
                if log is not None:
                    columns = [_column(log, one) for one in log.columns]
                    looked.append(f"{log.records:,} records of {name} that stand in several rows")
                    findings += [*_accused(log, columns), *_unclocked(log, columns)]
                    hints += _running(log, columns)
    return Verdict("versions", tuple(findings), ", ".join(looked) or "tables that hold each record once",
                   hints=tuple(hints))


def _parts(settings: Settings, name: str) -> tuple[TableMap, ...]:
    """The sources of a table, as read_tables finds them; none where it is not given."""
    how = settings.tables.get(name, TableMap())
    if not how.source and not how.parts:
        found = locate(name, settings)
        if found is None:
            return ()
        how = how.model_copy(update={"source": found})
    return tuple(part.model_copy(update={"formats": part.formats or how.formats}) for part in how.parts or (how,))


def _own(part: TableMap, source: Source, column: str) -> str:
    """The source's column for one of the contract's; '' where it is made otherwise, or not given."""
    name = part.columns.get(column, column)
    return name if name in source.types and column not in part.constants and column not in part.offsets else ""


def _log(con: duckdb.DuckDBPyConnection, table: Table, source: Source, part: TableMap) -> _Log | None:
    """The source's rows by record, where enough records have several; None otherwise."""
    key = _own(part, source, table.key[0]) if table.key and table.time and not part.distinct else ""
    if not key or part.unpivot:
        return None
    keep = " AND ".join(f"trim({quoted(name)}::VARCHAR) IN ({', '.join(map(literal, values)) or 'NULL'})"
                        for name, values in part.keep.items()) or "true"
    rows, ids = con.execute(f"SELECT count(*), count(DISTINCT {quoted(key)}) FROM {source.relation} "
                            f"WHERE {keep}").fetchall()[0]
    if rows - ids < FEWEST:
        return None
    columns = tuple(name for name in source.types if name != key)
    texts = ", ".join(f"CASE WHEN lower(trim({text})) NOT IN {_EMPTY} THEN trim({text}) END AS {quoted(name)}"
                      for name in columns for text in (f"{quoted(name)}::VARCHAR",))
    clock = _own(part, source, "recorded_at")
    con.execute(f'CREATE TABLE texts AS SELECT {quoted(key)}::VARCHAR AS "#id", {quoted(ROW)}, {texts} '
                f"FROM {source.relation} WHERE {keep}")
    con.execute(f"CREATE MACRO as_time(x) AS {cells.time('x', 'VARCHAR', part.formats)}")
    mapped, clock = bool(clock), clock or _found_clock(con, columns)
    at = f"as_time({quoted(clock)})" if clock else "NULL::TIMESTAMPTZ"
    con.execute(f'CREATE TABLE versions AS SELECT *, {at} AS "#at", count(*) OVER (PARTITION BY "#id") AS "#rows" '
                "FROM texts")
    records = con.execute('SELECT count(DISTINCT "#id") FROM versions WHERE "#rows" > 1').fetchall()[0][0]
    named = {own: name for name in table.names if (own := _own(part, source, name))}
    return _Log(con, table, named, clock, mapped, tuple(name for name in columns if name != clock), records)


def _found_clock(con: duckdb.DuckDBPyConnection, columns: tuple[str, ...]) -> str:
    """The column that looks most like the time at which a row was written: a time that differs from row to row."""
    best, name = 0.8, ""
    for column in columns:
        here = quoted(column)
        share, parsed = con.execute(
            f"SELECT avg(kinds / rows), avg(parsed / rows) FROM (SELECT count(DISTINCT {here}) AS kinds, count(*) AS "
            f'rows, count(as_time({here})) AS parsed FROM texts GROUP BY "#id" HAVING count(*) > 1)').fetchall()[0]
        if parsed >= NEARLY and share > best:
            best, name = share, column
    return name


def _column(log: _Log, name: str) -> _Column:
    here = quoted(name)
    log.con.execute(
        f'CREATE OR REPLACE TEMP TABLE records AS SELECT "#id", any_value("#rows") AS rows, '
        f'count(DISTINCT coalesce({here}, \'\')) AS kinds, count({here}) AS filled, '
        f"{_end(here, 'min')} AS first, {_end(here, 'max')} AS last, "
        f'min("#at") AS began, min({here}) AS low, max({here}) AS high FROM versions WHERE "#rows" > 1 GROUP BY "#id"')
    usual = "(SELECT mode(first) FROM records)"
    telling, constant, moved = log.con.execute(
        "SELECT count(*) FILTER (WHERE tells), avg((kinds = 1)::INT) FILTER (WHERE tells), avg((first <> last)::INT) "
        f"FROM (SELECT *, filled > 0 AND (low IS DISTINCT FROM {usual} OR high IS DISTINCT FROM {usual}) AS tells "
        "FROM records)"
    ).fetchall()[0]
    parsed, ahead = log.con.execute(
        "SELECT avg((as_time(first) IS NOT NULL)::INT), avg((as_time(first) > began)::INT) FROM records "
        "WHERE first <> ''"
    ).fetchall()[0]
    foretells = log.con.execute(
        "SELECT corr(a, b) FROM (SELECT rank() OVER (ORDER BY TRY_CAST(first AS DOUBLE)) AS a, "
        "rank() OVER (ORDER BY rows) AS b FROM records WHERE TRY_CAST(first AS DOUBLE) IS NOT NULL)").fetchall()[0][0]
    finite = foretells is not None and foretells == foretells  # noqa: PLR0124 - NaN where the column never varies
    return _Column(name, telling, constant or 0.0, moved or 0.0, (parsed or 0.0) >= NEARLY, ahead or 0.0,
                   foretells if finite else 0.0)


def _end(cell: str, end: str) -> str:
    """SQL: what a record's first (min) or last (max) row holds; rows of one time in the order of the source."""
    return f"arg_{end}(coalesce({cell}, ''), (coalesce(\"#at\", TIMESTAMPTZ '1970-01-01'), {quoted(ROW)}))"


def _accused(log: _Log, columns: list[_Column]) -> Iterator[Finding]:
    """Stamped columns that tell of something later than the rows they stand on."""
    for column in columns:
        why = _why(log, column)
        if column.stamped and why:
            where, written, value = log.con.execute(
                f'SELECT "#id", min("#at"), any_value({quoted(column.name)}) FROM versions WHERE "#rows" > 1 AND '
                f'{quoted(column.name)} IS NOT NULL GROUP BY "#id" ORDER BY "#id" LIMIT 1').fetchall()[0]
            named = log.named.get(column.name, column.name)
            also = f" ({named})" if named != column.name else ""
            yield Finding(
                "versions", log.table.name, column.name, f"{log.table.key[0].removesuffix('_id')} {where} at "
                f"{shown(written)}", "not known yet", shown(value), column.telling,
                f"{log.table.name}: '{column.name}'{also} is a final value "
                f"written on every row of a record: the same from first to last in {column.constant:.1%} of "
                f"{column.telling:,} records, and {why}.", _MEND_STAMPED)


def _why(log: _Log, column: _Column) -> str:
    """Why a constant column must tell of something later; '' where nothing says so."""
    named = log.named.get(column.name, "")
    names = (column.name.lower(), named)
    if column.time:
        agreed = named in AGREED or any(AGREED_NAMES.search(name) for name in names)
        return f"on {column.ahead:.0%} of first rows it lies after the row was written" if (
            column.ahead >= 0.5 and not agreed) else ""
    if (log.table.name, named) in GIVEN_WITH or any(TELLING.search(name) for name in names):
        return "its name says that it is known at the end, or after something happened"
    return (f"it goes with how many rows are still to come (rank correlation {column.foretells:.2f})"
            if column.foretells >= FORETELLS else "")


def _unclocked(log: _Log, columns: list[_Column]) -> Iterator[Finding]:
    """Records in several rows of which nothing says when each was written: the last counts as known at the start."""
    moving = sorted((one for one in columns if not one.stamped and one.moved > 0), key=lambda one: -one.moved)
    if log.mapped or not moving:
        return
    first = next((one for one in moving if one.name in log.named), moving[0])
    here = quoted(first.name)
    where, then, last = log.con.execute(
        f'SELECT * FROM (SELECT "#id", {_end(here, "min")} AS first, {_end(here, "max")} AS last FROM versions '
        'GROUP BY "#id") WHERE first <> last ORDER BY "#id" LIMIT 1').fetchall()[0]
    name, table = log.table.name, log.table
    told = ", ".join(f"{one.name} ({one.moved:.0%})" for one in moving)
    clock = f"[tables.{name}.columns] recorded_at = '{log.clock}'" if log.clock else "recorded_at"
    yield Finding(
        "versions", name, first.name, f"{table.key[0].removesuffix('_id')} {where}", shown(then or None),
        shown(last or None), log.records,
        f"{name}: {log.records:,} records stand in several rows and no recorded_at says when each was written, so that "
        f"any row counts as known from {table.time} on. What a record ends with differs from what it began with in "
        f"{told}.",
        f"Map when each row was written: {clock}.")


def _running(log: _Log, columns: list[_Column]) -> Iterator[str]:
    """What is no leak as long as the rows keep their clock, and would be one in an export of last states."""
    moving = [one for one in columns if one.moved > 0 and not one.stamped and (
        TELLING.search(one.name.lower()) or (log.table.name, log.named.get(one.name, "")) in GIVEN_WITH)]
    if moving and log.mapped:
        told = ", ".join(f"{one.name} ({one.moved:.1%})" for one in moving)
        yield (f"{log.table.name}: these columns move with the rows of a record, which is right; an export that shows "
               f"the last row alone would tell their end at the start, wrongly in this share of records: {told}.")


def _repeated(con: duckdb.DuckDBPyConnection, table: Table, source: Source, part: TableMap) -> Iterator[Finding]:
    """Times of a record's end that repeat its own time on nearly every row where they are filled."""
    own = _own(part, source, table.time) if table.time else ""
    for name in ENDS if own else ():
        here = _own(part, source, name) if name in table.by_name else ""
        if not here:
            continue
        filled, same = con.execute(
            f"SELECT count(*), count(*) FILTER (WHERE {quoted(here)}::VARCHAR = {quoted(own)}::VARCHAR) FROM "
            f"{source.relation} WHERE trim({quoted(here)}::VARCHAR) <> ''").fetchall()[0]
        if filled >= FEWEST and same >= NEARLY * filled:
            yield Finding(
                "versions", table.name, name, f"{same:,} of {filled:,} rows", "its own time", f"equals {table.time}",
                same, f"{table.name}: {name} equals {table.time} on {same:,} of the {filled:,} rows where it is "
                f"filled, so that what came with it seems known from {table.time} on.",
                f"Map the true time as {name}, or leave it out: the values then count from the record's end.")
