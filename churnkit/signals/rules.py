"""What a row of each raw table must satisfy, by the contract: each rule is an SQL condition for its breach."""

# ruff: noqa: S608 - SQL is built from contract names, quoted identifiers and quoted literals only

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from churnkit.schemas import Column, Table
from churnkit.signals.mapping import MISREAD, NUMBER
from churnkit.signals.relation import literal, quoted

Severity = Literal["error", "warning"]

LONGEST = {"id": 256, "category": 256, "text": 100_000}
PLANNED = frozenset({"ended_at", "renews_at", "due_at", "until", "starts_at", "left_at", "retired_at", "closed_at"})
"""Times that may lie ahead of a run: they were agreed, and have not happened."""

_FORGIVEN: Mapping[str, Severity] = {"owners": "warning"}
"""An account whose owner is not in the list is still an account; its tasks will wait for one."""

_ISO_4217 = "[A-Z]{3}"


@dataclass(frozen=True)
class Rule:
    """One demand on the rows of one table: `fails` is SQL, true where a row breaks it; `says` ends 'N rows'."""

    table: str
    column: str
    check: str
    fails: str
    says: str
    mend: str
    severity: Severity = "error"


@dataclass(frozen=True)
class Surroundings:
    """What rules need beside the table: the relations of others, the limit of time, the money, and what was given."""

    parents: Mapping[str, str]
    given: tuple[str, ...]
    limit: dt.datetime
    unrated: tuple[str, ...]


def happened(column: Column) -> bool:
    """Whether the column is a time of something that has taken place, and not of something agreed."""
    return column.kind == "time" and column.name not in PLANNED and not column.planned


def rules(table: Table, around: Surroundings) -> list[Rule]:
    """All rules of a table, the plainest first."""
    found: list[Rule] = []
    for bit, column in enumerate(table.columns):
        if column.name in around.given:
            found += [*_cell(table, column, bit), *_order(table, column), *_future(table, column, around)]
            found += [*_words(table, column), *_reference(table, column, around)]
    if table.key:
        found.append(_unique(table))
    if "currency" in around.given:
        found += _currency(table, around)
    return found


def _cell(table: Table, column: Column, bit: int) -> list[Rule]:
    """Required, readable, and within its range."""
    name, found = column.name, []
    if column.required:
        found.append(
            Rule(
                table.name,
                name,
                "required",
                f"{quoted(name)} IS NULL AND ({quoted(MISREAD)} & {1 << bit}) = 0",
                f"have no {name}",
                f"Fill in {name}, or map another column to it",
            )
        )
    if column.kind in {"time", "float", "int", "bool"}:
        found.append(
            Rule(
                table.name,
                name,
                "type",
                f"({quoted(MISREAD)} & {1 << bit}) <> 0",
                f"have a {name} that is no {_KINDS[column.kind]}",
                _mend_type(table, column),
            )
        )
    low, high = column.low, column.high
    if low is not None or high is not None:
        bounds = f"{low:g} to {high:g}" if low is not None and high is not None else f"{low:g} or more"
        found.append(
            Rule(
                table.name,
                name,
                "range",
                _outside(name, low, high),
                f"have a {name} outside {bounds}",
                f"Correct {name}, or map its unit",
            )
        )
    return found


_KINDS = {"time": "time", "float": "finite number", "int": "whole number", "bool": "true or false"}


def _mend_type(table: Table, column: Column) -> str:
    section = f"[tables.{table.name}]"
    if column.kind == "time":
        return (
            f"Write times as 2026-11-01T06:00:00+00:00, or say how they are written: {section} "
            "formats = ['iso', '%d/%m/%Y']"
        )
    if column.kind == "bool":
        return (
            f"Write true or false, or map the words: [tables.{table.name}.values] {column.name} = {{ ja = 'true' }}"
        )
    return "Write numbers as 1234.5, without thousands separators, and leave unknown ones empty"


def _outside(name: str, low: float | None, high: float | None) -> str:
    sides = [f"{quoted(name)} {sign} {bound!r}" for sign, bound in (("<", low), (">", high)) if bound is not None]
    return " OR ".join(sides)


def _order(table: Table, column: Column) -> list[Rule]:
    """A later time may not precede the time that it follows."""
    name, first = column.name, column.after
    if not first:
        return []
    return [
        Rule(
            table.name,
            name,
            "order",
            f"{quoted(name)} < {quoted(first)}",
            f"have {name} before {first}",
            "Fix the export (zones mixed up, columns swapped)",
        )
    ]


def _future(table: Table, column: Column, around: Surroundings) -> list[Rule]:
    """What happened cannot lie after the run; a subscription may be agreed ahead, and is then only said."""
    if not happened(column):
        return []
    name, limit = column.name, around.limit
    ahead = table.name == "subscriptions" and name == "started_at"
    return [
        Rule(
            table.name,
            name,
            "future",
            f"{quoted(name)} > TIMESTAMPTZ '{limit.isoformat()}'",
            f"have {name} in the future of the run (after {limit:%Y-%m-%d %H:%M})",
            "Fix the clock or the zone of the export; if the run looks back on purpose, or the data reach further, set "
            f"covers_until under [tables.{table.name}] or for the workspace",
            "warning" if ahead else "error",
        )
    ]


def _words(table: Table, column: Column) -> list[Rule]:
    """Text within its length, without control characters; categories among the allowed ones."""
    name = column.name
    found: list[Rule] = []
    if column.kind not in LONGEST:
        return found
    longest, strict = LONGEST[column.kind], column.kind != "text"
    found.append(
        Rule(
            table.name,
            name,
            "length",
            f"length({quoted(name)}) > {longest}",
            f"have a {name} longer than {longest:,} characters",
            "Look for an unclosed quote or shifted columns",
            "error" if strict else "warning",
        )
    )
    control = "[\\x00-\\x1F\\x7F]" if strict else "[\\x00-\\x08\\x0E-\\x1F\\x7F]"
    found.append(
        Rule(
            table.name,
            name,
            "control characters",
            f"regexp_matches({quoted(name)}, {literal(control)})",
            f"have control characters in {name}",
            "Clean the export",
            "error" if strict else "warning",
        )
    )
    if column.values:
        allowed = ", ".join(column.values)
        found.append(
            Rule(
                table.name,
                name,
                "values",
                f"{quoted(name)} NOT IN ({', '.join(map(literal, column.values))})",
                f"have a {name} that is none of {allowed}",
                f'Map them: [tables.{table.name}.values] {name} = {{ "theirs" = "{column.values[0]}" }}',
            )
        )
    return found


def _reference(table: Table, column: Column, around: Surroundings) -> list[Rule]:
    """An id must exist in the table it refers to; one that matches only without leading zeros has lost them."""
    if column.refers not in around.parents:
        return []
    name, severity = column.name, _FORGIVEN.get(column.refers, "error")
    here, keys = (
        quoted(name),
        f"SELECT {quoted(name)} FROM {around.parents[column.refers]} WHERE {quoted(name)} IS NOT NULL",
    )
    unknown = f"{here} IS NOT NULL AND {here} NOT IN ({keys})"
    pointed = f"{here} IN (SELECT {here} || '.0' FROM ({keys}))"
    shorn = f"{here} IN (SELECT ltrim({here}, '0') FROM ({keys}) WHERE starts_with({here}, '0'))"
    return [
        Rule(
            table.name,
            name,
            "leading zeros",
            f"{unknown} AND {shorn}",
            f"have a {name} that lost its leading zeros ({column.refers} has them)",
            "Export ids as text, not as numbers",
            severity,
        ),
        Rule(
            table.name,
            name,
            "decimal point",
            f"{unknown} AND {pointed}",
            f"have a {name} that was written as a number with a decimal point ({column.refers} has it without)",
            f"Export ids as text, or say [tables.{table.name}] whole = ['{name}']",
            severity,
        ),
        Rule(
            table.name,
            name,
            "reference",
            f"{unknown} AND NOT {shorn} AND NOT {pointed}",
            f"have a {name} that {column.refers} does not hold",
            f"Export {column.refers} whole, or correct the ids",
            severity,
        ),
    ]


def _unique(table: Table) -> Rule:
    """A key stands once."""
    key, ids = list(table.key), table.key[0]
    said = f"repeat the {ids} of an earlier row" + (" with the same recorded_at" if "recorded_at" in key else "")

    again = (
        f"{quoted(ids)} IS NOT NULL AND row_number() OVER (PARTITION BY {', '.join(map(quoted, key))} "
        f"ORDER BY {quoted(NUMBER)}) > 1"
    )
    return Rule(
        table.name,
        ids,
        "duplicate",
        again,
        said,
        "Export each once; versions of a record need a recorded_at of their own",
    )


def _currency(table: Table, around: Surroundings) -> list[Rule]:
    money = next(name for name in ("mrr", "amount") if name in table.by_name)
    found = [
        Rule(
            table.name,
            "currency",
            "currency",
            f"NOT regexp_full_match(currency, '{_ISO_4217}')",
            "have a currency that is no three-letter ISO code",
            f'Map them: [tables.{table.name}.values] currency = {{ "theirs" = "EUR" }}',
        )
    ]
    if around.unrated:
        named = ", ".join(around.unrated)
        found.append(
            Rule(
                table.name,
                "currency",
                "mixed currencies",
                f"currency IN ({', '.join(map(literal, around.unrated))})",
                f"have a {money} in a currency without a rate ({named}) where currencies are mixed",
                f"Say what each is worth: [rates] {around.unrated[0]} = 1.0",
            )
        )
    return found
