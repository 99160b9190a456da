"""Each table's days, counted in DuckDB as they could be known then: rows, who, which kinds, what hours, what twice.

A day is seen some days after its end, when late rows are still on their way. Every count is therefore kept by age: how
many rows of a day could be known that many days after its end. A young day is compared with days of the same age.
"""

# ruff: noqa: S608 - SQL is built from contract names, quoted identifiers and numbers only

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from churnkit.schemas import Table
from churnkit.signals.relation import quoted
from churnkit.signals.tables import Tables
from churnkit.watch.report import firsts

Numbers = npt.NDArray[np.float64]

AGES = 4
"""Days are seen 0, 1 or 2 days after their end; the last age is three or more, when nearly all that comes has come."""
SPAN = 364 + 84
"""Days that are counted: the season of the year before, and the weeks before that season."""
TWINS = 70
"""Days in which repeated rows are looked for; it costs more than all else."""
KINDS = 40
"""Names, such as events, that are counted one by one; rarer ones are not."""
_KIND: Mapping[str, str] = MappingProxyType({
    "usage_events": "event", "telemetry": "sensor", "asset_events": "kind", "surveys": "kind",
    "support_tickets": "channel", "ticket_messages": "author", "opportunities": "kind", "touches": "channel"})
_DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Days:
    """One table's days up to the last whole one before a moment; arrays are (days, AGES), and cumulate over ages.

    `clock` is the sum of the rows' hours as unit vectors, so that its angle is the mean hour. A day before the table's
    first row is missing (nan), not empty. `read`, `known` and `kept` are of the whole table: rows read, rows whose
    references were known, rows that passed.
    """

    table: str
    noun: str
    first: dt.date
    rows: Numbers
    entities: Numbers
    repeated: Numbers
    clock: npt.NDArray[np.complex128]
    kinds: Mapping[str, Numbers]
    read: int = 0
    known: int = 0
    kept: int = 0
    lost: Mapping[str, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many days."""
        return len(self.rows)

    def day(self, place: int) -> dt.date:
        """The date of a day, from the first (0) on."""
        return self.first + dt.timedelta(days=place % self.size)

    def age(self, place: int) -> int:
        """How old that day is now, in whole days."""
        return min(self.size - 1 - place % self.size, AGES - 1)


def count(tables: Tables, at: dt.datetime) -> dict[str, Days]:
    """The days before `at` of every table that was given and has a time of its own."""
    return {name: _count(tables, table, at) for name, table in tables.contract.items()
            if tables.has(name) and table.time}


def assets(table: Table) -> bool:
    """Whether a table tells of equipment rather than of accounts.

    >>> from churnkit.schemas import RAW_TABLES
    >>> assets(RAW_TABLES["telemetry"]), assets(RAW_TABLES["surveys"])
    (True, False)
    """
    return "asset_id" in table.by_name


def _count(tables: Tables, table: Table, at: dt.datetime) -> Days:
    midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
    first = (midnight - dt.timedelta(days=SPAN)).date()
    seen = _seen(table, at, midnight)
    who, kind = ("asset_id" if assets(table) else "account_id"), _KIND.get(table.name)
    who = who if who in table.by_name else table.names[0]
    named = quoted(kind) if kind else "''"
    by_kind = tables.raw.execute(
        f"SELECT place, age, {named}, count(*), sum(cos(hour * {math.pi / 12})), sum(sin(hour * {math.pi / 12})) FROM "
        f"({seen}) GROUP BY ALL").fetchnumpy()
    by_who = tables.raw.execute(
        f"SELECT place, age, count(*) FROM (SELECT place, {quoted(who)}, min(age) AS age FROM ({seen}) GROUP BY ALL) "
        "GROUP BY ALL").fetchnumpy()
    place, age, names, rows, cos, sin = by_kind.values()
    counts = _grid(place, age, rows)
    begun = np.cumsum(counts[:, -1]) > 0
    clock = _grid(place, age, cos) + 1j * _grid(place, age, sin)
    number = tables.counts[table.name]
    lost = {why: many for why, many in number.dropped.items() if why.split(":")[0] in _UNJOINED}
    return Days(
        table.name, "assets" if who == "asset_id" else "accounts", first, _from(begun, counts),
        _from(begun, _grid(*by_who.values())), _from(begun, _repeated(tables, table, seen)), clock,
        _kinds(place, age, np.asarray(names, dtype=object), rows, begun) if kind else {},
        number.read, number.read - sum(lost.values()), number.kept, lost)


_UNJOINED = ("reference", "leading zeros", "decimal point")
"""Why rows are set aside whose account, asset or ticket is not known: see signals/rules.py."""


def _seen(table: Table, at: dt.datetime, midnight: dt.datetime) -> str:
    """SQL of the rows that count, with the place of their day and the age at which it held them."""
    own = quoted(table.time)
    past, end = int(at.timestamp() * 1e6), int(midnight.timestamp() * 1e6)
    since = end - SPAN * _DAY_US
    age = f"ceil((epoch_us(known_at) - {past - end} - {since} - (place + 1) * {_DAY_US}) / {_DAY_US})"
    return (f"SELECT *, hour({own}) AS hour, greatest(0, least({AGES - 1}, {age}))::INTEGER AS age FROM (SELECT *, "
            f"((epoch_us({own}) - {since}) // {_DAY_US})::INTEGER AS place FROM ({firsts(table)}) WHERE "
            f"{own} >= make_timestamptz({since}) AND {own} < make_timestamptz({end}) AND "
            f"known_at <= make_timestamptz({past}))")


def _repeated(tables: Tables, table: Table, seen: str) -> Numbers:
    """Rows that are the same as an earlier one of their day in every column; a table with a key has none."""
    if table.key:
        return np.zeros((SPAN, AGES))
    cells = ", ".join(quoted(name) for name in table.names)
    found = tables.raw.execute(
        f"SELECT place, age, sum(more) FROM (SELECT place, max(age) AS age, count(*) - 1 AS more FROM ({seen}) WHERE "
        f"place >= {SPAN - TWINS} GROUP BY place, hash({cells}) HAVING more > 0) GROUP BY ALL").fetchnumpy()
    return _grid(*found.values())


def _grid(place: Any, age: Any, values: Any) -> Numbers:
    """Sums by day and age, cumulated over ages."""
    grid = np.zeros((SPAN, AGES))
    np.add.at(grid, (np.asarray(place, dtype=int), np.asarray(age, dtype=int)), np.asarray(values, dtype=float))
    return np.cumsum(grid, axis=1)


def _from(begun: npt.NDArray[np.bool_], grid: Numbers) -> Numbers:
    return np.where(begun[:, None], grid, np.nan)


def _kinds(place: Any, age: Any, names: Any, rows: Any, begun: npt.NDArray[np.bool_]) -> dict[str, Numbers]:
    """The most frequent names' rows, those of the last weeks first, so that a new name is among them."""
    weights = np.asarray(rows, dtype=float) * np.where(np.asarray(place) >= SPAN - 28, 1 + SPAN / 28, 1)
    labels, which = np.unique(np.array([str(name) for name in names], dtype=object), return_inverse=True)
    order = np.argsort(-np.bincount(which, weights, len(labels)), kind="stable")[:KINDS]
    return {str(labels[one]): _from(begun, _grid(place[which == one], age[which == one], rows[which == one]))
            for one in order}
