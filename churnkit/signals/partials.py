"""What an aggregation needs to know of each bucket, how buckets add up, and how the feature comes out of the sums."""


from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType

import ibis
from ibis.expr import types as ir

from churnkit.signals.groups import Feature, Where
from churnkit.signals.streams import DAY

USUAL_BLOCKS = 5
"""How many blocks before the last one make an account's usual level."""
_SQUARED = ("spread", "slope")


@dataclass(frozen=True)
class Part:
    """One number kept per bucket: what of which column, over which rows."""

    how: str
    of: str = ""
    where: Where = ()

    @property
    def columns(self) -> list[str]:
        """The stream's columns that it reads."""
        return [*([self.of] if self.of else []), *(column for column, _ in self.where)]


@dataclass(frozen=True)
class Frame:
    """A window `[cutoff - before - span, cutoff - before)` in microseconds; without a span it has no beginning."""

    before: int
    span: int | None


def sweepable(item: Feature) -> bool:
    """Whether a feature comes out of sums over buckets: it has an own time, no state, and an operation that adds up."""
    return item.op in _NEEDS and item.at == "at" and not item.state


def needed(item: Feature) -> list[tuple[Part, Frame]]:
    """The parts that a feature is made of, each with its window.

    >>> from churnkit.signals.groups import mean
    >>> [part.how for part, _ in needed(mean("load", "telemetry", "value", (7,))[0])]
    ['told', 'sum']
    """
    span = None if item.window_days is None else round(item.window_days * DAY)
    before = round(item.before * DAY)
    blocks = range(1, USUAL_BLOCKS + 1) if item.op == "usual" else range(1)
    return [(Part(how, "" if how in _OF_ROWS else item.of, item.where), Frame(before + block * (span or 0), span))
            for block in blocks for how in _NEEDS[item.op]]


def counted(rows: ir.Table, part: Part) -> ir.BooleanValue | None:
    """Which rows a part counts; None for all."""
    kinds = [(rows[column] == value).fill_null(False) for column, value in part.where]
    return ibis.and_(*kinds) if kinds else None


def prepared(rows: ir.Table, wanted: list[Feature]) -> ir.Table:
    """The rows, with centred values beside the columns whose squares are summed.

    Squares of values far from 0 lose the digits that their spread lies in, so that values and times are taken from the
    mean of their entity's rows of that kind; the subtraction is exact, and the mean cancels out.
    """
    squared = [item for item in wanted if item.op in _SQUARED]
    for of in dict.fromkeys(item.of for item in squared):
        kinds = sorted({column for item in squared if item.of == of for column, _ in item.where})
        alike = ibis.window(group_by=["id", *kinds])
        middle = rows["at"].mean().over(alike).floor().cast("int64")
        rows = rows.mutate(**{_centred(of): rows[of] - rows[of].mean().over(alike),
                              _time(of): ibis.ifelse(rows[of].notnull(), (rows["at"] - middle) / DAY, None)})
    return rows


def finished(item: Feature, row: ir.Table, names: Mapping[tuple[Part, Frame], str]) -> ir.Value:
    """The feature out of its parts, the columns of `row` that `names` gives."""
    return _FINISHED[item.op](row, *(row[names[pair]] for pair in needed(item)))


def _centred(of: str) -> str:
    return f"{of}__centred"


def _time(of: str) -> str:
    return f"{of}__time"


PARTS: Mapping[str, Callable[[ir.Table, Part, ir.BooleanValue | None], ir.Value]] = MappingProxyType({
    "rows": lambda rows, _, kept: rows.count(where=kept),
    "latest": lambda rows, _, kept: rows["at"].max(where=kept),
    "earliest": lambda rows, _, kept: rows["at"].min(where=kept),
    "told": lambda rows, part, kept: rows[part.of].count(where=kept),
    "sum": lambda rows, part, kept: rows[part.of].sum(where=kept),
    "min": lambda rows, part, kept: rows[part.of].min(where=kept),
    "max": lambda rows, part, kept: rows[part.of].max(where=kept),
    "first_time": lambda rows, part, kept: rows[_time(part.of)].min(where=kept),
    "last_time": lambda rows, part, kept: rows[_time(part.of)].max(where=kept),
    "centred": lambda rows, part, kept: rows[_centred(part.of)].sum(where=kept),
    "squares": lambda rows, part, kept: (rows[_centred(part.of)] * rows[_centred(part.of)]).sum(where=kept),
    "times": lambda rows, part, kept: rows[_time(part.of)].sum(where=kept),
    "time_squares": lambda rows, part, kept: (rows[_time(part.of)] * rows[_time(part.of)]).sum(where=kept),
    "products": lambda rows, part, kept: (rows[_time(part.of)] * rows[_centred(part.of)]).sum(where=kept),
})
"""Each part of the rows of one bucket; `distinct` is counted apart, by islands."""

LEAST, GREATEST = frozenset({"min", "earliest", "first_time"}), frozenset({"max", "latest", "last_time"})
"""Parts of which the least or greatest is kept; all others are summed."""

_OF_ROWS = frozenset({"rows", "latest", "earliest"})
_NEEDS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "count": ("rows",),
    "flag": ("rows",),
    "total": ("rows", "told", "sum"),
    "mean": ("told", "sum"),
    "lowest": ("min",),
    "highest": ("max",),
    "spread": ("told", "min", "max", "centred", "squares"),
    "slope": ("told", "first_time", "last_time", "times", "time_squares", "centred", "products"),
    "days_since": ("latest",),
    "oldest": ("earliest",),
    "usual": ("rows", "sum"),
    "distinct": ("rows", "distinct"),
})


def _total(_: ir.Table, rows: ir.Value, told: ir.Value, value: ir.Value) -> ir.Value:
    """0 where no row counts, but missing where rows count and none of them says anything in the column."""
    return ibis.cases((ibis.coalesce(rows, 0) == 0, 0.0), (told == 0, None), else_=value.cast("float64"))


def _distinct(_: ir.Table, rows: ir.Value, number: ir.Value) -> ir.Value:
    """Like a total: rows without a value count as nothing said."""
    number = ibis.coalesce(number, 0)
    return ibis.ifelse((number == 0) & (ibis.coalesce(rows, 0) > 0), None, number)


def _spread(_: ir.Table, n: ir.Value, least: ir.Value, most: ir.Value, *sums: ir.Value) -> ir.Value:
    centred, squares = sums
    variance = squares / n - (centred / n) * (centred / n)
    return ibis.cases((ibis.coalesce(n, 0) == 0, None), (least == most, 0.0), else_=ibis.greatest(variance, 0.0).sqrt())


def _slope(_: ir.Table, n: ir.Value, first: ir.Value, last: ir.Value, *sums: ir.Value) -> ir.Value:
    """The least-squares slope: covariance with time over the variance of time."""
    times, time_squares, centred, products = sums
    variance = time_squares / n - (times / n) * (times / n)
    return ibis.ifelse((ibis.coalesce(n, 0) == 0) | (first == last), None,
                       (products / n - (times / n) * (centred / n)) / variance)


def _usual(_: ir.Table, *blocks: ir.Value) -> ir.Value:
    """The median sum of the blocks, from the oldest with anything in it on; the k-th largest of some values is the
    greatest of the least of each k of them.
    """
    rows, sums = blocks[::2], [ibis.coalesce(value, 0.0) for value in blocks[1::2]]

    def largest(values: list[ir.Value], k: int) -> ir.Value:
        leasts = [ibis.least(*some) if k > 1 else some[0] for some in combinations(values, k)]
        return ibis.greatest(*leasts) if len(leasts) > 1 else leasts[0]

    branches = []
    for oldest in range(len(sums), 0, -1):
        seen = sums[:oldest]
        median = (largest(seen, (oldest + 1) // 2) + largest(seen, oldest // 2 + 1)) / 2
        branches.append((ibis.coalesce(rows[oldest - 1], 0) > 0, median))
    return ibis.cases(*branches, else_=None)


_FINISHED: Mapping[str, Callable[..., ir.Value]] = MappingProxyType({
    "count": lambda _, rows: ibis.coalesce(rows, 0),
    "flag": lambda _, rows: (ibis.coalesce(rows, 0) > 0).cast("int32"),
    "total": _total,
    "mean": lambda _, n, value: ibis.ifelse(ibis.coalesce(n, 0) == 0, None, value / n),
    "lowest": lambda _, value: value,
    "highest": lambda _, value: value,
    "spread": _spread,
    "slope": _slope,
    "days_since": lambda row, latest: (row.cutoff - latest) / DAY,
    "oldest": lambda row, earliest: (row.cutoff - 1 - earliest) / DAY,
    "usual": _usual,
    "distinct": _distinct,
})
