"""Two extracts of one source compared: what was known at the first may not read differently in the second."""

# ruff: noqa: S608 - SQL is built from contract names, quoted identifiers and quoted literals only

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import duckdb

from churnkit.audit.cut import contract, record_id, stood
from churnkit.audit.finding import Finding, Verdict, shown
from churnkit.schemas import Table
from churnkit.signals.relation import literal, quoted
from churnkit.signals.tables import Tables

_HARMLESS = frozenset({"name", "url", "crm_id", "email", "note"})
"""Columns that no feature reads and that may be mended at any time."""
_FARTHEST = dt.timedelta(hours=26)
"""No two zones lie further apart; all lie a multiple of 15 minutes apart."""
_MOSTLY = 0.8
"""The share of differing rows that must agree on one or two offsets to be called a matter of zones."""
_MEND_CLOCK = ("Say in which zone each export is written ([tables.{table}] zone = '...'), or write times with their "
               "offset.")


@dataclass(frozen=True)
class _Table:
    """One table in both extracts, in one database: `gone` are rows of the first alone, `fresh` of the second alone.

    Rows that are the same in both are in neither. `names` are the columns compared, `rows` is how many the first has.
    """

    con: duckdb.DuckDBPyConnection
    table: Table
    names: tuple[str, ...]
    rows: int
    moment: dt.datetime

    def one(self, query: str) -> tuple[object, ...]:
        """The first row of a query's answer."""
        row: tuple[object, ...] = self.con.execute(query).fetchall()[0]
        return row

    def count(self, relation: str) -> int:
        """How many rows a relation has."""
        return int(str(self.one(f"SELECT count(*) FROM {relation}")[0]))


def extracts(first: Tables, second: Tables) -> Verdict:
    """Compares two extracts of one source, each table as it stood when the first was taken.

    The moment is the first extract's `covers_until`, or the latest time at which a row of the table was known if that
    is earlier. Times that came after it, values that came with them, and changes that `record_changes` tells, may
    differ.

    Args:
        first: The earlier extract.
        second: The later extract.

    Returns:
        Findings per table: clocks moved, cells overwritten, rows filled in later, rows taken out.
    """
    findings: list[Finding] = []
    rows, seen = 0, 0
    for name, table in contract(first).items():
        if table.key == ("owner",) or not (first.has(name) and second.has(name)):
            continue
        found = first.raw.execute(f"SELECT max(known_at) FROM {quoted(name)}").fetchall()[0][0]
        if found is None:
            continue
        moment = min(found, first.covers_until.get(name, found)) - dt.timedelta(microseconds=1)
        with duckdb.connect() as con:
            con.execute("SET TimeZone = 'UTC'")
            stood(first, name, moment, con, "first")
            stood(second, name, moment, con, "second")
            here = _laid(con, table, moment)
            findings += [*_clock(here), *_overwritten(here, second), *_rows(here)]
        rows, seen = rows + here.rows, seen + 1
    return Verdict("extracts", tuple(findings), f"{rows:,} rows of {seen} tables" if seen else "",
                   "" if seen else "The two extracts have no table with rows in common.")


def _laid(con: duckdb.DuckDBPyConnection, table: Table, moment: dt.datetime) -> _Table:
    names = tuple(column.name for column in table.columns if column.name not in _HARMLESS)
    cells = ", ".join(f"round({quoted(name)}, 6) AS {quoted(name)}" if table.by_name[name].kind == "float"
                      else quoted(name) for name in names)
    for here, other, called in (("first", "second", "gone"), ("second", "first", "fresh")):
        con.execute(f"CREATE TABLE {called} AS SELECT row_number() OVER () AS n, * FROM (SELECT {cells} FROM "
                    f"{quoted(here)} EXCEPT ALL SELECT {cells} FROM {quoted(other)})")
    rows = int(con.execute('SELECT count(*) FROM "first"').fetchall()[0][0])
    return _Table(con, table, names, rows, moment)


def _clock(here: _Table) -> Iterator[Finding]:
    """Rows that are the same but for their own time, moved by one or two whole offsets; they leave `gone` and `fresh`.

    The other times of the row may have moved with it, so rows are matched by what is no time.
    """
    time, differing = quoted(here.table.time), here.count("gone")
    if not here.table.time or not differing:
        return
    keys = _same(name for name in here.names if here.table.by_name[name].kind != "time")
    far = f"INTERVAL {int(_FARTHEST.total_seconds())} SECOND"
    matched = (f"SELECT a.n, b.n AS m, epoch_us(b.{time}) - epoch_us(a.{time}) AS moved FROM gone a JOIN fresh b "
               f"ON {keys} AND b.{time} BETWEEN a.{time} - {far} AND a.{time} + {far} WHERE b.{time} <> a.{time} "
               "AND moved % 900000000 = 0")
    here.con.execute(f"CREATE TABLE matched AS {matched}")
    best = here.con.execute("SELECT moved, count(DISTINCT n) AS rows FROM matched GROUP BY moved ORDER BY rows DESC, "
                            "abs(moved) LIMIT 2").fetchall()
    kept = [one for one in best if one[1] >= 0.02 * differing]
    if not kept:
        return
    offsets = ", ".join(str(moved) for moved, _ in kept)
    moved = here.count(f"(SELECT DISTINCT n FROM matched WHERE moved IN ({offsets}))")
    if moved < _MOSTLY * differing and moved < _MOSTLY * here.count("fresh"):
        return
    yield _moved(here, [moved for moved, _ in kept], moved)
    here.con.execute(f"DELETE FROM fresh WHERE n IN (SELECT m FROM matched WHERE moved IN ({offsets})); "
                     f"DELETE FROM gone WHERE n IN (SELECT n FROM matched WHERE moved IN ({offsets}))")
    # Rows near the moment were moved over it, and stand in one of the two alone.
    edge = f"TIMESTAMPTZ {literal((here.moment - _FARTHEST).isoformat())}"
    here.con.execute(f"DELETE FROM gone WHERE {time} >= {edge}; DELETE FROM fresh WHERE {time} >= {edge}")


def _moved(here: _Table, offsets: list[int], moved: int) -> Finding:
    name, time = here.table.name, here.table.time
    hours = " and ".join(f"{offset / 3.6e9:+g} h" for offset in offsets)
    summer = len(offsets) == 2 and abs(offsets[0] - offsets[1]) == 3_600_000_000
    alone = len(offsets) == 1 and abs(offsets[0]) == 3_600_000_000 and moved < 0.95 * here.rows
    cause = ("a zone with daylight saving" if summer else
             "daylight saving: rows of other months stand as they stood" if alone else "another zone")
    where, before, after = here.one(
        f"SELECT {_label(here)}, a.{quoted(time)}, b.{quoted(time)} FROM matched JOIN gone a USING (n) JOIN fresh b "
        f"ON b.n = m WHERE moved = {offsets[0]} ORDER BY a.{quoted(time)}, n LIMIT 1")
    return Finding(
        "extracts", name, time, str(where), shown(before), shown(after), moved,
        f"{name}: {moved:,} of {here.rows:,} rows have their {time} moved by {hours}, which is {cause}; first {where}: "
        f"{shown(before)} in the first extract, {shown(after)} in the second.", _MEND_CLOCK.format(table=name))


def _overwritten(here: _Table, second: Tables) -> Iterator[Finding]:
    """Cells of the same record that differ; changes that the second extract tells of are no finding."""
    con, key = here.con, record_id(here.table)
    keyed = bool(key) and not here.count(f"gone WHERE {quoted(key)} IS NULL")
    same = [key] if keyed else [name for name in here.names if here.table.by_name[name].kind == "id"]
    same += [here.table.time] if here.table.time and not keyed else []
    order = ", ".join(quoted(name) for name in ("recorded_at", *here.names) if name in here.names)
    by = ", ".join(quoted(name) for name in same)
    for side in ("gone", "fresh"):
        con.execute(f"CREATE TABLE numbered_{side} AS SELECT *, row_number() OVER (PARTITION BY {by} ORDER BY {order}) "
                    f"AS nth FROM {side}")
    con.execute("CREATE TABLE paired AS SELECT a.n, b.n AS m FROM numbered_gone a JOIN numbered_fresh b "
                f"ON {_same(same)} AND a.nth = b.nth")
    told = second.raw.sql(f'SELECT id, field FROM record_changes WHERE "table" = {literal(here.table.name)} AND '
                          f"greatest(changed_at, known_at) > TIMESTAMPTZ {literal(here.moment.isoformat())}")
    con.register("told", told.to_arrow_table())
    for name in (one for one in here.names if one not in same):
        cell = quoted(name)
        known = f"AND a.{quoted(key)} NOT IN (SELECT id FROM told WHERE field = {literal(name)})" if keyed else ""
        differing = (f"paired JOIN gone a USING (n) JOIN fresh b ON b.n = m WHERE a.{cell} IS DISTINCT FROM b.{cell} "
                     f"{known}")
        count = here.count(differing)
        if count:
            where, before, after = here.one(f"SELECT {_label(here)}, a.{cell}, b.{cell} FROM {differing} "
                                            "ORDER BY n LIMIT 1")
            kind = here.table.by_name[name].kind
            yield Finding(
                "extracts", here.table.name, name, str(where), shown(before, kind), shown(after, kind), count,
                f"{here.table.name}: {name} of {count:,} rows that were known at {here.moment:%Y-%m-%d} reads "
                f"differently in the second extract; first {where}: {shown(before, kind)}, then {shown(after, kind)}.",
                "It was overwritten: map its history (record_changes, or versions with recorded_at), or do not use it.")
    con.unregister("told")
    con.execute("DELETE FROM gone WHERE n IN (SELECT n FROM paired); "
                "DELETE FROM fresh WHERE n IN (SELECT m FROM paired)")


def _rows(here: _Table) -> Iterator[Finding]:
    """Rows that only one of the two extracts holds."""
    own = here.table.time or ("recorded_at" if "recorded_at" in here.table.by_name else here.names[0])
    for side, says, mend in (
        ("fresh", "were not in the first extract, though by their own times they were known when it was taken",
         "They were filled in later: map when rows are written as recorded_at, or say the honest known_after."),
        ("gone", "were in the first extract and are not in the second",
         "What was known then must stay: export deleted rows too, or mark them with a time.")):
        count = here.count(side)
        if count:
            where, when = here.one(f"SELECT {_label(here)}, a.{quoted(own)} FROM {side} a "
                                   f"ORDER BY a.{quoted(own)}, n LIMIT 1")
            told = ("missing", shown(when)) if side == "fresh" else (shown(when), "missing")
            yield Finding("extracts", here.table.name, own, str(where), *told, count,
                          f"{here.table.name}: {count:,} rows {says}; first {where}, {own} {shown(when)}.", mend)


def _same(names: Iterable[str]) -> str:
    return " AND ".join(f"a.{quoted(name)} IS NOT DISTINCT FROM b.{quoted(name)}" for name in names) or "true"


def _label(here: _Table) -> str:
    """SQL: a row's name for people, of its record or of whose it is."""
    keys = (record_id(here.table), "account_id", "asset_id", here.names[0])
    key = next(name for name in keys if name in here.names)
    return f"{literal(key.removesuffix('_id') + ' ')} || coalesce(a.{quoted(key)}, 'without id')"
