"""From a source's own columns to the contract's: one SQL statement per table, run in DuckDB.

Each cell is first text (or already typed), then renamed by `values`, then read as its kind. A cell that is there but
cannot be read becomes missing and sets a bit in MISREAD, from which validation finds its row again.
"""

# ruff: noqa: S608 - SQL is built from contract names, quoted identifiers and quoted literals only

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count

import duckdb

from churnkit.errors import DataError, did_you_mean
from churnkit.schemas import RAW_TABLES, Table
from churnkit.settings import Join, Settings, TableMap, offset
from churnkit.signals import cells
from churnkit.signals.relation import FILE, ROW, Source, literal, quoted
from churnkit.signals.sources import open_source

MISREAD, PART, NUMBER = "#misread", "#part", "#number"
"""Helper columns of a staged table: unreadable cells as bits over `Table.columns`, the part, and a running number."""

HELPERS = (MISREAD, PART, NUMBER, FILE, ROW)
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_PERIOD = {"instant": "INTERVAL 0 HOUR", "hour": "INTERVAL 1 HOUR", "day": "INTERVAL 1 DAY"}
_NESTED = ("STRUCT", "MAP", "UNION", "BLOB", "INTERVAL")
_serial = count()


@dataclass(frozen=True)
class Staged:
    """A mapped but unchecked table in DuckDB: `relation` has the contract's columns, `known_at` and HELPERS.

    `read` counts the source's rows, `not_kept` those that `keep` and `distinct` left out; `numeric_ids` are the id
    columns that the source held as numbers, `raws` the view of each part that still shows unreadable cells.
    """

    table: Table
    relation: str
    sources: tuple[Source, ...]
    raws: tuple[str, ...]
    read: int
    not_kept: int
    numeric_ids: tuple[str, ...]
    given: tuple[str, ...]


def stage(
    con: duckdb.DuckDBPyConnection,
    table: Table,
    sources: list[tuple[Source, TableMap]],
    settings: Settings,
    others: Mapping[str, Staged],
) -> Staged:
    """Maps the sources of one table; `others` are the tables already staged, for joins.

    Raises:
        DataError: If the mapping names columns that are not there, a required one is missing, or a source breaks off.
    """
    whole = settings.tables.get(table.name, TableMap())
    zone = whole.zone or settings.zone
    _check_formats(con, table.name, [form for _, how in sources for form in how.formats] or whole.formats)
    con.execute(f"SET TimeZone = {literal(zone)}")
    raws, numeric, given, read = [], set(), set(), 0
    relation = f"staged_{next(_serial)}"
    for place, (source, mapping) in enumerate(sources):
        part = _Part(con, table, source, mapping, settings, others)
        raws.append(part.view())
        numeric |= part.numeric_ids()
        given |= set(part.given)
        select = _typed(part, raws[-1], place, mapping.formats or whole.formats, whole)
        try:
            con.execute(f"CREATE TABLE {relation} AS {select}" if place == 0 else f"INSERT INTO {relation} {select}")
            read += _one(con, f"SELECT count(*) FROM {source.relation}")
        except duckdb.Error as error:
            raise source.explain(error) from None
    kept = _one(con, f"SELECT count(*) FROM {relation}")
    if any(mapping.unpivot for _, mapping in sources):
        read = kept  # a wide row is several measurements: count what is there to be checked
    con.execute("SET TimeZone = 'UTC'")
    return Staged(
        table,
        relation,
        tuple(source for source, _ in sources),
        tuple(raws),
        read,
        max(read - kept, 0),
        tuple(sorted(numeric)),
        tuple(name for name in table.names if name in given),
    )


def columns_sql(table: Table) -> str:
    """The columns of a table of the contract, with `known_at`, as CREATE TABLE wants them."""
    return ", ".join(
        [*(f"{quoted(column.name)} {cells.duck_type(column)}" for column in table.columns), "known_at TIMESTAMPTZ"]
    )


def _one(con: duckdb.DuckDBPyConnection, query: str) -> int:
    return int(con.execute(query).fetchall()[0][0])


def _check_formats(con: duckdb.DuckDBPyConnection, name: str, formats: list[str]) -> None:
    """Formats must be formats, and may not read one date in two ways."""
    for one in formats:
        try:
            if one not in {"iso", "epoch_s", "epoch_ms"}:
                con.execute("SELECT try_strptime('x', ?)", [one]).fetchall()
        except duckdb.Error:
            raise DataError(
                f"{name}: formats holds {one!r}, which is no strptime format. Write for instance '%d/%m/%Y' or "
                "'%d.%m.%Y %H:%M'; 'iso', 'epoch_s' and 'epoch_ms' are known too."
            ) from None
    orders = {re.sub("[^dmb]", "", re.sub("%[^dmb]", "", one)) for one in formats} & {"dm", "md"}
    if len(orders) > 1:
        raise DataError(
            f"{name}: formats read day before month and month before day, so that 01/02/2026 is two dates. Keep one "
            "of the two, and split the export if both are true."
        )


class _Part:
    """One source of one table: which of its columns feed which of the contract's."""

    def __init__(
        self,
        con: duckdb.DuckDBPyConnection,
        table: Table,
        source: Source,
        mapping: TableMap,
        settings: Settings,
        others: Mapping[str, Staged],
    ) -> None:
        self.con, self.table, self.source, self.mapping, self.settings = con, table, source, mapping, settings
        self.types = dict(source.types)
        self.joins = [self._join(place, join, others) for place, join in enumerate(mapping.join)]
        if mapping.unpivot:
            self._check(mapping.unpivot, "unpivot")
            value = cells.common_type([self.types[name] for name in mapping.unpivot])
            self.types |= {"sensor": "VARCHAR", "value": value}
        self._check(mapping.columns.values(), "columns")
        self._check(mapping.keep, "keep")
        self.spans = {name: offset(text) for name, text in mapping.offsets.items()}
        self._check((span[1] for span in self.spans.values()), "offsets")
        for name, (base, _, _) in self.spans.items():
            if base not in table.by_name or table.by_name[base].kind != "time" or base in self.spans:
                raise DataError(
                    f"{table.name}: offsets of '{name}' count from '{base}', which is no mapped time of "
                    f"{table.name}. Write for instance '{table.time or name} + hours h'."
                )
        self.given = {name: sql for name in table.names if (sql := self._source_of(name)) is not None}
        missing = [one.name for one in table.columns if (one.required or one.named) and one.name not in self.given]
        if missing:
            raise self._missing(missing)

    def _source_of(self, name: str) -> str | None:
        """The SQL that gives a contract column's raw value, or None where the source has nothing for it."""
        if name in self.spans:
            return quoted(self.spans[name][1])
        if name in self.mapping.constants:
            value = self.mapping.constants[name]
            return literal(str(value).lower() if isinstance(value, bool) else str(value))
        own = self.mapping.columns.get(name, name)
        return quoted(own) if own in self.types else None

    def _missing(self, missing: list[str]) -> DataError:
        name, has = missing[0], list(self.types)
        if not has:
            return DataError(
                f"{self.table.name}: '{self.source.label}' has no columns. Export it again with a header."
            )
        also = f" (and {', '.join(missing[1:])})" if missing[1:] else ""
        return DataError(
            f"{self.table.name}: '{self.source.label}' has no column '{name}'{also}.{did_you_mean(name, has)} It has: "
            f"{', '.join(has[:30])}. Map it: [tables.{self.table.name}.columns] {name} = 'the name there'."
        )

    def _check(self, names: object, key: str) -> None:
        for name in names:  # type: ignore[attr-defined]
            if name not in self.types:
                raise DataError(
                    f"{self.table.name}: [tables.{self.table.name}] {key} names column '{name}', which "
                    f"'{self.source.label}' does not have.{did_you_mean(name, self.types)} It has: "
                    f"{', '.join(list(self.types)[:30])}. Correct {key}."
                )

    def _join(self, place: int, join: Join, others: Mapping[str, Staged]) -> str:
        """The join clause of one look-up; its columns count as the source's own from here on."""
        self._check([join.on], "join")
        their = join.their or join.on
        if join.table:
            if join.table not in others:
                raise DataError(
                    f"{self.table.name}: join looks in '{join.table}', which is not given. Give that table, or join "
                    "with source = '...'."
                )
            relation, types = (
                others[join.table].relation,
                {column.name: cells.duck_type(column) for column in RAW_TABLES[join.table].columns},
            )
        else:
            other = open_source(self.con, TableMap(source=join.source), self.settings, self.table.name)
            relation, types = other.relation, other.types
        for name in (their, *join.take.values()):
            if name not in types:
                raise DataError(
                    f"{self.table.name}: join names column '{name}', which '{join.table or join.source}' does not "
                    f"have.{did_you_mean(name, types)} It has: {', '.join(list(types)[:30])}. Correct the join."
                )
        alias, key = f"join_{place}", f"{quoted(their)}::VARCHAR"
        pick = "max" if join.pick == "last" else "min"
        taken = ", ".join(f"{pick}({quoted(name)}) AS {quoted(new)}" for new, name in join.take.items())
        if join.pick == "only":
            self._only(join, relation, their)
        self.types |= {new: types[name] for new, name in join.take.items()}
        return (
            f'LEFT JOIN (SELECT {key} AS "#key", {taken} FROM {relation} GROUP BY ALL) AS {alias} '
            f'ON source.{quoted(join.on)}::VARCHAR = {alias}."#key"'
        )

    def _only(self, join: Join, relation: str, their: str) -> None:
        differing = " OR ".join(f"count(DISTINCT {quoted(name)}) > 1" for name in join.take.values())
        found = self.con.execute(
            f"SELECT {quoted(their)}::VARCHAR FROM {relation} WHERE {quoted(their)} IS NOT NULL GROUP BY 1 "
            f"HAVING {differing} ORDER BY 1 LIMIT 1"
        ).fetchall()
        if found:
            raise DataError(
                f"{self.table.name}: join finds several values of {', '.join(join.take.values())} for {their} "
                f"{found[0][0][:40]!r} in '{join.table or join.source}'. Say which: pick = 'first' or 'last'."
            )

    def numeric_ids(self) -> set[str]:
        """The id columns that the source holds as numbers; leading zeros, if there were any, are gone."""
        return {
            name
            for name in self.given
            if self.table.by_name[name].kind == "id"
            and name not in self.mapping.constants
            and self.types[self.mapping.columns.get(name, name)].startswith((*cells.NUMBERS, *cells.FRACTIONS))
        }

    def view(self) -> str:
        """A view with each given contract column as the source holds it, after keep, joins and unpivot."""
        taken = {new for join in self.mapping.join for new in join.take}
        own = ", ".join(f"source.{quoted(name)}" for name in (ROW, FILE, *self.source.types) if name not in taken)
        looked_up = "".join(f", {quoted(new)}" for new in taken)
        inner = f"SELECT {own}{looked_up} FROM {self.source.relation} AS source {' '.join(self.joins)}"
        if self.mapping.unpivot:
            sensors = ", ".join(quoted(name) for name in self.mapping.unpivot)
            inner = f"SELECT * FROM (UNPIVOT ({inner}) ON {sensors} INTO NAME sensor VALUE value)"
        keep = (
            " AND ".join(
                f"trim({quoted(name)}::VARCHAR) IN ({', '.join(map(literal, values)) or 'NULL'})"
                for name, values in self.mapping.keep.items()
            )
            or "true"
        )
        raw_cells = ", ".join(f"{_raw(self, name)} AS {quoted(name)}" for name in self.given)
        relation = f"raw_{next(_serial)}"
        self.con.execute(
            f"CREATE TEMP VIEW {relation} AS SELECT {quoted(ROW)}, {quoted(FILE)}, {raw_cells} FROM ({inner}) "
            f"WHERE {keep}"
        )
        return relation


def _raw(part: _Part, name: str) -> str:
    """A contract column's raw value: text without surrounding blanks and empty cells, renamed by `values`."""
    column, source = part.table.by_name[name], part.given[name]
    own = part.spans[name][1] if name in part.spans else part.mapping.columns.get(name, name)
    kind = "VARCHAR" if name in part.mapping.constants else part.types[own]
    if kind.endswith("]") or kind.startswith(_NESTED):
        raise DataError(
            f"{part.table.name}: column '{own}' of '{part.source.label}' holds {kind.lower()[:40]}, not single "
            "values. Export it as one value per row."
        )
    renames = part.mapping.values.get(name, {})
    if kind.startswith("ENUM") or kind == "UUID":
        kind, source = "VARCHAR", f"{source}::VARCHAR"
    if (column.kind in {"id", "text", "category"} and kind != "VARCHAR") or renames:
        integral = f"{source} = trunc({source}) AND abs({source}) < 1e15"
        whole = f"CASE WHEN {integral} THEN {source}::BIGINT::VARCHAR ELSE {source}::VARCHAR END"
        kind, source = "VARCHAR", whole if kind.startswith(cells.FRACTIONS) else f"{source}::VARCHAR"
    if kind == "VARCHAR":
        source = f"NULLIF({source}, '')" if column.kind == "text" else f"NULLIF(trim({source}, ' \t\r\n\u00a0'), '')"
    if name in part.mapping.whole:
        source = f"regexp_replace({source}, '\\.0+$', '')"
    if renames:
        cases = " ".join(f"WHEN {literal(old)} THEN {literal(new)}" for old, new in renames.items())
        source = f"CASE {source} {cases} ELSE {source} END"
    return source


def _typed(part: _Part, raw: str, place: int, formats: list[str], whole: TableMap) -> str:
    """The SELECT that reads each raw cell as its kind and adds `known_at` and the helper columns."""
    table, types = part.table, {name: kind for name, kind, *_ in part.con.execute(f"DESCRIBE {raw}").fetchall()}
    read_cells, misread = [], []
    for bit, column in enumerate(table.columns):
        here = quoted(column.name)
        if column.name not in part.given:
            read_cells.append(f"NULL::{cells.duck_type(column)} AS {here}")
            continue
        source, kind = f"raw.{here}", types[column.name]
        if column.name in part.spans:
            base, _, unit = part.spans[column.name]
            start = cells.time(f"raw.{quoted(base)}", types.get(base, "VARCHAR"), formats)
            read = f"{start} + to_microseconds(round({cells.number(source, kind)} * {_SECONDS[unit] * 1e6!r})::BIGINT)"
            wrong = f"{source} IS NOT NULL AND {cells.number(source, kind)} IS NULL"
        else:
            read = cells.READ[column.kind](source, kind) if column.kind != "time" else cells.time(source, kind, formats)
            wrong = f"{source} IS NOT NULL AND ({read}) IS NULL"
        factor = _SECONDS[part.mapping.units[column.name]] if column.name in part.mapping.units else 1.0
        read = f"({read}) * {factor!r}" if factor != 1.0 else read
        read_cells.append(f"({read})::{cells.duck_type(column)} AS {here}")
        if column.kind in {"time", "float", "int", "bool"}:
            misread.append(f"CASE WHEN {wrong} THEN {1 << bit} ELSE 0 END")
    inner = (
        f"SELECT {', '.join(read_cells)}, ({' + '.join(misread) or '0'})::INTEGER AS {quoted(MISREAD)}, "
        f"{place}::SMALLINT AS "
        f"{quoted(PART)}, {quoted(ROW)}, {quoted(FILE)} FROM {raw} AS raw"
    )
    order = f"{quoted(FILE)}, {quoted(ROW)}" + (', "sensor"' if part.mapping.unpivot else "")
    if part.mapping.distinct:
        names = ", ".join(quoted(name) for name in table.names)
        inner = f"SELECT DISTINCT ON ({names}) * FROM ({inner}) ORDER BY {names}, {order}"
    if part.mapping.distinct or part.mapping.join or part.mapping.unpivot:
        inner = f"SELECT * FROM ({inner}) ORDER BY {order}"
    return (
        f"SELECT *, {_known_at(table, whole)} AS known_at, row_number() OVER () + {place << 40} AS {quoted(NUMBER)} "
        f"FROM ({inner})"
    )


def _known_at(table: Table, whole: TableMap) -> str:
    """When a row could be known: recorded_at, else own time + known_after; never before its period's end."""
    recorded = '"recorded_at"' if "recorded_at" in table.by_name else "NULL::TIMESTAMPTZ"
    if not table.time:
        return f"coalesce({recorded}, TIMESTAMPTZ '1970-01-01 00:00:00+00')"  # no clock of its own: always known
    own, after = quoted(table.time), whole.known_after // dt.timedelta(microseconds=1)
    return (
        f"greatest(coalesce({recorded}, {own} + to_microseconds({after})), {own} + {_PERIOD[whole.grain]})"
        if whole.grain != "instant"
        else f"coalesce({recorded}, {own} + to_microseconds({after}))"
    )
