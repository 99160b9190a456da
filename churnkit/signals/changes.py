"""What record_changes says: of which field of which table a change is, how its value is read, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from churnkit.schemas import RAW_TABLES, Column, Table
from churnkit.settings import Settings, TableMap
from churnkit.signals import cells
from churnkit.signals.mapping import NUMBER
from churnkit.signals.relation import literal, quoted
from churnkit.signals.rules import Rule

CHANGES, SPANS = "record_changes", "subscriptions"
SPAN_KEY = ("account_id", "subscription_id", "started_at")
"""What tells one span of contract from another, where the export names subscriptions."""

_FIXED = frozenset({"recorded_at", "currency"})
"""What no change moves: when a row was recorded, and what its money is in."""
_KINDS = {"time": "time", "float": "finite number", "int": "whole number", "bool": "true or false"}


@dataclass(frozen=True)
class Field:
    """One field of one table that changes may be recorded of, with the words by which an export may name it."""

    table: Table
    column: Column
    how: TableMap
    formats: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """What a change calls the field: by its column's name, or by the one that the source has for it."""
        return tuple(sorted({self.column.name, self.how.columns.get(self.column.name, self.column.name)}))

    @property
    def is_meant(self) -> str:
        """SQL: whether a row of record_changes speaks of this field."""
        return f"(\"table\" = {literal(self.table.name)} AND field IN ({', '.join(map(literal, self.words))}))"

    @property
    def text(self) -> str:
        """SQL: the change's value as text, renamed as the table's own column is; blanks are no value."""
        text = "NULLIF(value, '')" if self.column.kind == "text" else "NULLIF(trim(value), '')"
        renames = self.how.values.get(self.column.name, {})
        cases = " ".join(f"WHEN {literal(old)} THEN {literal(new)}" for old, new in renames.items())
        return f"(CASE {text} {cases} ELSE {text} END)" if renames else text

    @property
    def read(self) -> str:
        """SQL: the change's value as its column's kind; missing where it cannot be read."""
        if self.column.kind == "time":
            return cells.time(self.text, "VARCHAR", list(self.formats))
        return cells.READ[self.column.kind](self.text, "VARCHAR")


def demands(table: Table, settings: Settings) -> list[Rule]:
    """What is asked of a table beside its contract: readable changes, and no subscription told twice at once."""
    if table.name == SPANS:
        return [_told_once()]
    if table.name != CHANGES:
        return []
    return _readable([field for one in replayed(RAW_TABLES) for field in fields_of(one, settings)])


def replayed(names: Iterable[str]) -> list[Table]:
    """The tables of records: those with a key, and subscriptions, whose id may be left out."""
    return [RAW_TABLES[name] for name in RAW_TABLES if name in names and (RAW_TABLES[name].key or name == SPANS)]


def fields_of(table: Table, settings: Settings) -> list[Field]:
    """The fields of a table that may change."""
    how, changes = settings.tables.get(table.name, TableMap()), settings.tables.get(CHANGES, TableMap())
    fixed = {*_FIXED, "subscription_id", "started_at"} if table.name == SPANS else {*_FIXED, table.key[0]}
    return [Field(table, column, how, tuple(changes.formats)) for column in table.columns if column.name not in fixed]


def _readable(fields: Sequence[Field]) -> list[Rule]:
    """Each change's value can be read as its field's kind, lies in its range, and is one of its words."""
    found = []
    for kind, said in _KINDS.items():
        broken = [f"{one.is_meant} AND {one.text} IS NOT NULL AND {one.read} IS NULL" for one in fields
                  if one.column.kind == kind]
        found.append(_rule(f"changed to no {said}", broken, f"have a value that is no {said}, as their field is",
                           "Correct the value, or say how the change log writes it: [tables.record_changes] formats"
                           if kind == "time" else "Correct the value, or map it: [tables.record_changes.values] value"))
    bounds = [f"{one.is_meant} AND ({' OR '.join(_beyond(one))})" for one in fields if _beyond(one)]
    words = [f"{one.is_meant} AND {one.text} NOT IN ({', '.join(map(literal, one.column.values))})" for one in fields
             if one.column.values]
    needed = [f"{one.is_meant} AND {one.text} IS NULL" for one in fields if one.column.required]
    return [*found,
            _rule("changed out of range", bounds, "have a value outside what their field may be", "Correct the value"),
            _rule("changed to another word", words, "have a value that is none of their field's words",
                  "Map it under the field's own table, as [tables.contacts.values] role = { theirs = 'champion' }"),
            _rule("changed to nothing", needed, "have no value for a field that must have one", "Fill in the value")]


def _beyond(field: Field) -> list[str]:
    sides = (("<", field.column.low), (">", field.column.high))
    return [f"{field.read} {sign} {bound!r}" for sign, bound in sides if bound is not None]


def _rule(check: str, broken: Sequence[str], says: str, mend: str) -> Rule:
    return Rule(CHANGES, "value", check, " OR ".join(f"({one})" for one in broken), says, mend)


def _told_once() -> Rule:
    again = (f"subscription_id IS NOT NULL AND row_number() OVER (PARTITION BY {', '.join(SPAN_KEY)}, plan, known_at "
             f"ORDER BY {quoted(NUMBER)} DESC) > 1")
    return Rule(SPANS, "subscription_id", "told again", again,
                "are told again by a later row with the same start, plan and recorded_at, which counts instead",
                "Load each export once; versions of a subscription need a recorded_at of their own", "warning")


