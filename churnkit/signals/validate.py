"""Validation at the door: pandera holds each staged table against the contract; what breaks it is raised or set aside.

One pandera schema per table asks DuckDB a single question: does any row break any rule? Only where the answer is yes
are the rules counted one by one, which keeps the good case quick and the findings exact.
"""

# ruff: noqa: S608 - SQL is built from contract names, quoted identifiers and quoted literals only

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ibis
import pandera.ibis as pa
from ibis.expr import types as ir
from pandera.errors import SchemaErrors

from churnkit.errors import DataError
from churnkit.schemas import RAW_TABLES, Table
from churnkit.settings import Settings, TableMap
from churnkit.signals import changes, quarantine, versions
from churnkit.signals.mapping import HELPERS, NUMBER, PART, Staged
from churnkit.signals.relation import FILE, ROW, quoted
from churnkit.signals.rules import Rule, Severity, Surroundings, rules

_PARENTS_FIRST = ("owners", "accounts", "support_tickets", "assets")
_DTYPES = {"time": "timestamp('UTC', 6)", "int": "int64", "float": "float64", "bool": "boolean"}
_SHOWN = 4
_ONE = {"have": "has", "are": "is", "repeat": "repeats"}
BROKEN = "#broken"
"""The helper column that says whether a row breaks any rule."""


@dataclass(frozen=True)
class Finding:
    """One thing that validation found in one table.

    `first_row` is the number of the first such row in its file, from 1 for the first row after the header (0: the table
    as a whole). `says` completes 'N rows ...', `mend` tells what to do. An error's rows are raised, dropped or
    quarantined as `[tables] invalid` says; a warning's rows are kept.
    """

    table: str
    column: str
    check: str
    count: int
    first_row: int
    example: str
    says: str
    mend: str
    severity: Severity = "error"
    file: str = ""

    @property
    def text(self) -> str:
        """What was found, in one sentence without its mend."""
        if not self.first_row:
            return f"{self.table}: {self.says}."
        verb, rest = re.sub(r"\ba (?=[aeio])", "an ", self.says).split(" ", 1)
        what = f"1 row {_ONE[verb]} {rest}" if self.count == 1 else f"{self.count:,} rows {verb} {rest}"
        where = f"row {self.first_row:,}" + (f" of {self.file}" if self.file else "")
        return f"{self.table}: {what} (first: {where}{', ' + self.example if self.example else ''})."


@dataclass(frozen=True)
class Counts:
    """What became of the rows of one table: read = kept + the sum of `dropped`, which is by reason."""

    read: int
    kept: int
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Checked:
    """The outcome of validating all tables."""

    findings: tuple[Finding, ...]
    counts: dict[str, Counts]


def validate(
    con: Any,
    staged: Mapping[str, Staged],
    settings: Settings,
    covers_until: Mapping[str, dt.datetime],
    at: dt.datetime | None,
) -> Checked:
    """Checks the staged tables and creates those of the contract on `con` from the rows that pass.

    Raises:
        DataError: If rows break the contract and `settings.invalid` is 'raise'; all findings in one paragraph.
    """
    unrated = _unrated(con, staged, settings)
    parents: dict[str, str] = {}
    findings: dict[str, list[Finding]] = {}
    counts: dict[str, Counts] = {}
    bad: dict[str, str] = {}
    for name in sorted(staged, key=lambda name: _PARENTS_FIRST.index(name) if name in _PARENTS_FIRST else 9):
        one, limit = staged[name], covers_until[name]
        around = Surroundings(parents, one.given, max(limit, at or limit), unrated)
        demanded = [*rules(one.table, around), *changes.demands(one.table, settings)]
        found, aside = _check(con, one.relation, one, demanded, split=settings.invalid != "raise")
        findings[name] = [*_whole(con, one, settings.tables.get(name, TableMap())), *found]
        parents[name] = one.relation
        if aside:
            bad[name] = aside
            parents[name] = (
                f"(FROM {one.relation} WHERE {quoted(NUMBER)} NOT IN (SELECT {quoted(NUMBER)} FROM {aside}))"
            )
    ordered = [finding for name in {**RAW_TABLES, **staged} if name in findings for finding in findings[name]]
    errors = [finding for finding in ordered if finding.severity == "error"]
    if errors and (settings.invalid == "raise" or any(not finding.first_row for finding in errors)):
        raise DataError(paragraph(errors, settings.invalid))
    reasons = {name: quarantine.reasons(con, broken) for name, broken in bad.items()}
    if settings.invalid == "quarantine":
        quarantine.write(con, staged, bad, settings.state / "quarantine")
    for name, one in staged.items():
        kept = _create(con, one, bad.get(name, ""), settings)
        left_out = {"not among the rows to keep": one.not_kept} if one.not_kept else {}
        counts[name] = Counts(one.read, kept, {**left_out, **reasons.get(name, {})})
    return Checked(tuple(ordered), counts)


def schema(table: Table) -> pa.DataFrameSchema:
    """The pandera schema of a flagged table: every contract column with its type, and no row that breaks a rule."""
    columns = {
        column.name: pa.Column(ibis.dtype(_DTYPES.get(column.kind, "string")), nullable=True)
        for column in table.columns
    }
    passes = pa.Check(lambda data: ~data.table[BROKEN].any().fill_null(False), error="a row breaks a rule")
    return pa.DataFrameSchema({**columns, BROKEN: pa.Column(bool, nullable=True)}, checks=[passes], name=table.name)


def flagged(con: Any, relation: str, demands: Sequence[Rule]) -> ir.Table:
    """The relation with one boolean per demand, whether the row breaks it, and BROKEN where it breaks any."""
    flags = [f"coalesce({rule.fails}, false) AS {flag}" for rule, flag in zip(demands, _flags(demands), strict=True)]
    any_of = " OR ".join(_flags(demands)) or "false"
    con.raw_sql(
        f"CREATE OR REPLACE VIEW flagged_{relation} AS SELECT *, {any_of} AS {quoted(BROKEN)} FROM "
        f"(SELECT {', '.join(['*', *flags])} FROM {relation})"
    )
    return con.table(f"flagged_{relation}")


def paragraph(errors: Sequence[Finding], invalid: str) -> str:
    """The findings as one error text: what and where for the first few, the mend for each, and how to go on without."""
    shown = " ".join(f"{finding.text} {finding.mend}." for finding in errors[:_SHOWN])
    more = f" And {len(errors) - _SHOWN} more findings: churnkit check lists them." if len(errors) > _SHOWN else ""
    drop = (
        ""
        if invalid != "raise" or any(not finding.first_row for finding in errors)
        else " Or go on without these rows: [tables] invalid = 'drop' (or 'quarantine')."
    )
    return shown + more + drop


def _flags(demands: Sequence[Rule]) -> list[str]:
    return [f"broken_{place}" for place in range(len(demands))]


def _check(con: Any, relation: str, one: Staged, demands: list[Rule], *, split: bool) -> tuple[list[Finding], str]:
    """The findings of one table and, where rows are to be set aside, the table of their NUMBERs and first reasons."""
    broken = flagged(con, relation, demands)
    try:
        schema(one.table).validate(broken, lazy=True)
    except SchemaErrors:
        pass  # counted below, rule by rule
    else:
        return [], ""
    flags = _flags(demands)
    sums = broken.aggregate([broken[flag].sum().name(flag) for flag in flags]).to_pyarrow().to_pylist()[0]
    hit = [(rule, flag, int(sums[flag])) for rule, flag in zip(demands, flags, strict=True) if sums[flag]]
    findings = [_finding(con, broken, one, rule, flag, number) for rule, flag, number in hit]
    errors = [(flag, rule) for rule, flag, _ in hit if rule.severity == "error"]
    if not errors or not split:
        return findings, ""
    reason = ibis.cases(*((broken[flag], f"{rule.check}: {rule.column}") for flag, rule in errors))
    aside = f"aside_{one.relation}"
    con.create_table(
        aside, broken.filter(ibis.or_(*(broken[flag] for flag, _ in errors))).select(NUMBER, reason=reason)
    )
    return findings, aside


def _finding(con: Any, broken: ir.Table, one: Staged, rule: Rule, flag: str, number: int) -> Finding:
    row = broken.filter(broken[flag]).order_by(NUMBER).limit(1).to_pyarrow().to_pylist()[0]
    source = one.sources[row[PART]]
    file = source.files[row[FILE]] if len(source.files) > 1 or len(one.sources) > 1 else ""
    says, example = rule.says, _example(row, rule)
    if rule.check == "type":
        example = f"'{_clean(_raw_cell(con, one, row, rule.column))}'"
        if one.table.by_name[rule.column].kind == "time" and broken[rule.column].notnull().any().to_pyarrow().as_py():
            says = f"have a {rule.column} that is written in another format than the rest (mixed date formats)"
    return Finding(
        rule.table, rule.column, rule.check, number, row[ROW], example, says, rule.mend, rule.severity, file
    )


def _example(row: Mapping[str, Any], rule: Rule) -> str:
    """The first row's id and value, as short as they can be."""
    ids = next((name for name in ("account_id", "asset_id", "ticket_id", "owner") if row.get(name) is not None), "")
    shown = [f"{ids.removesuffix('_id')} '{_clean(row[ids])}'"] if ids and ids != rule.column else []
    value = row.get(rule.column)
    if value is not None:
        shown.append(
            f"{rule.column} {value:%Y-%m-%d %H:%M}" if isinstance(value, dt.datetime) else f"'{_clean(value)}'"
        )
    return ", ".join(shown)


def _raw_cell(con: Any, one: Staged, row: Mapping[str, Any], column: str) -> object:
    found = con.raw_sql(
        f"SELECT {quoted(column)} FROM {one.raws[row[PART]]} WHERE {quoted(ROW)} = {row[ROW]} AND "
        f"{quoted(FILE)} = {row[FILE]}"
    ).fetchall()
    return found[0][0] if found else ""


def _clean(value: object) -> str:
    """A value as short printable text."""
    text = "".join(char if char.isprintable() else "?" for char in str(value))
    return text if len(text) <= 40 else f"{text[:37]}..."


def _whole(con: Any, one: Staged, how: TableMap) -> Iterable[Finding]:
    """What is to be said of a table as a whole: no rows, ids read as numbers, identical rows."""
    name = one.table.name
    rows = con.raw_sql(f"SELECT count(*) FROM {one.relation}").fetchall()[0][0]
    if not rows:
        yield Finding(
            name,
            "",
            "empty",
            0,
            0,
            "",
            f"'{one.sources[0].label}' holds no rows",
            "Export it again, or remove the table",
            "error" if name == "accounts" else "warning",
        )
    for column in one.numeric_ids if rows else ():
        yield Finding(
            name,
            column,
            "numeric id",
            rows,
            0,
            "",
            f"'{one.sources[0].label}' holds {column} as numbers; leading zeros, if there were any, are lost",
            "Export ids as text",
            "warning",
        )
    if not one.table.key and rows and how.duplicates != "keep":
        yield from _identical(con, one, rows, "error" if how.duplicates == "error" else "warning")


def _identical(con: Any, one: Staged, rows: int, severity: Severity) -> Iterable[Finding]:
    """Fully identical rows of a table without a key: two events of one moment, or an export loaded twice."""
    cells = f"hash({', '.join(quoted(name) for name in one.given)})"
    distinct = con.raw_sql(f"SELECT count(DISTINCT {cells}) FROM {one.relation}").fetchall()[0][0]
    if distinct == rows:
        return
    _, row, file, part = con.raw_sql(
        f"SELECT n, {quoted(ROW)}, {quoted(FILE)}, {quoted(PART)} "
        f"FROM (SELECT *, {quoted(NUMBER)} AS n, row_number() OVER (PARTITION BY "
        f"{cells} ORDER BY {quoted(NUMBER)}) AS nth FROM {one.relation}) WHERE nth > 1 ORDER BY n LIMIT 1"
    ).fetchall()[0]
    source = one.sources[part]
    yield Finding(
        one.table.name,
        "",
        "identical rows",
        rows - distinct,
        row,
        "",
        "are identical to an earlier row",
        f"If the export was loaded twice, load it once; if they are real, say [tables.{one.table.name}] duplicates = "
        "'keep'",
        severity,
        source.files[file] if len(source.files) > 1 else "",
    )


def _unrated(con: Any, staged: Mapping[str, Staged], settings: Settings) -> tuple[str, ...]:
    """The currencies that have no rate, where several are mixed."""
    seen: set[str] = set()
    for one in staged.values():
        if "currency" in one.table.by_name:
            rows = (
                con.raw_sql(f"SELECT DISTINCT currency FROM {one.relation}").fetchall()
                if "currency" in one.given
                else [(None,)]
            )
            seen |= {row[0] or settings.currency for row in rows}
    return tuple(sorted(seen - {settings.currency, *settings.rates})) if len(seen) > 1 else ()


def _create(con: Any, one: Staged, bad: str, settings: Settings) -> int:
    """The contract's table from the rows that passed, in the workspace's currency where a rate is set; their number."""
    name, cells = one.table.name, [quoted(column) for column in (*one.table.names, "known_at")]
    money = next((column for column in ("mrr", "amount") if column in one.table.by_name), None)
    if "currency" in one.table.by_name and money and settings.rates:
        rate = " ".join(
            f"WHEN '{code}' THEN {float(worth)!r}" for code, worth in sorted(settings.rates.items()) if code.isalpha()
        )
        known = ", ".join(f"'{code}'" for code in sorted(settings.rates) if code.isalpha())
        cells[one.table.names.index(money)] = (
            f"{quoted(money)} * CASE currency {rate} ELSE 1.0 END AS {quoted(money)}"
        )
        cells[one.table.names.index("currency")] = (
            f"CASE WHEN currency IN ({known}) THEN '{settings.currency}' ELSE currency END AS currency"
        )
        cells.append(f"currency AS {quoted(versions.ORIGINAL)}")  # for changes of prices; gone when they are replayed
    if not bad and all(not cell.endswith(f"AS {quoted(money or '')}") for cell in cells):
        for helper in HELPERS:
            con.raw_sql(f"ALTER TABLE {one.relation} DROP COLUMN {quoted(helper)}")
        con.raw_sql(f"ALTER TABLE {one.relation} RENAME TO {quoted(name)}")
    else:
        aside = f"WHERE {quoted(NUMBER)} NOT IN (SELECT {quoted(NUMBER)} FROM {bad})" if bad else ""
        con.raw_sql(
            f"CREATE TABLE {quoted(name)} AS SELECT {', '.join(cells)} FROM {one.relation} {aside} "
            f"ORDER BY {quoted(NUMBER)}"
        )
        con.raw_sql(f"DROP TABLE {one.relation}")
    con.raw_sql(f"DROP TABLE IF EXISTS aside_{one.relation}; DROP VIEW IF EXISTS flagged_{one.relation}")
    return int(con.raw_sql(f"SELECT count(*) FROM {quoted(name)}").fetchall()[0][0])
