"""What a definition's operation means: each over the rows that a point may see, or over other features of the point."""


from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import ibis
from ibis.expr import types as ir

from churnkit.signals.groups import Feature
from churnkit.signals.streams import DAY

_MONTHS_DIFFER = 3.0
"""Days by which a term may be longer than its months on average: no reason to bring a renewal back."""


def within(seen: ir.Table, item: Feature) -> ir.BooleanValue:
    """The rows that a feature counts: in its window, or holding at its moment, and of its kind."""
    moment = seen.cutoff - round(item.before * DAY)
    kept = seen[item.at] < moment
    if item.state:
        still = seen["until"].isnull() | (seen["until"] >= moment)
        kept &= (still | (seen["again"] < moment).fill_null(False)) if "again" in seen.columns else still
    elif item.window_days is not None:
        kept &= seen[item.at] >= moment - round(item.window_days * DAY)
    for column, value in item.where:
        kept &= seen[column] == value
    return kept


def distinct(seen: ir.Table, of: str, wanted: list[Feature], by: tuple[str, ...]) -> ir.Table:
    """Different values per point: first which value lies in which window, then how many do (quicker than sets)."""
    flags = {item.name: within(seen, item).cast("int32").max() for item in wanted}
    values = seen.group_by(*by, value=seen[of]).aggregate(**flags)
    told = values.value.notnull()
    counts = {}
    for item in wanted:
        number = values[item.name].sum(where=told)
        untold = (ibis.coalesce(number, 0) == 0) & (values[item.name].max(where=~told) == 1).fill_null(False)
        counts[item.name] = ibis.ifelse(untold, None, ibis.coalesce(number, 0))
    return values.group_by(*by).aggregate(**counts)


def previous(seen: ir.Table, item: Feature, by: tuple[str, ...]) -> ir.Table:
    """The value before the latest, per point that has one; of several at the same time the greatest comes last."""
    kept = seen.filter(within(seen, item) & seen[item.of].notnull())
    newest = ibis.window(group_by=by, order_by=(kept[item.at].desc(), kept[item.of].desc()))
    kept = kept.select(*by, place=ibis.row_number().over(newest), **{item.name: kept[item.of]})
    return kept.filter(kept.place == 1).drop("place")


def _unless_untold(seen: ir.Table, item: Feature, kept: ir.BooleanValue, value: ir.Value) -> ir.Value:
    """0 where no row counts, but missing where rows count and none of them says anything in the column."""
    rows, told = _rows(seen, kept), seen[item.of].count(where=kept)
    return ibis.cases((rows == 0, 0), (told == 0, None), else_=value)


def _rows(seen: ir.Table, kept: ir.BooleanValue) -> ir.Value:
    """How many rows count; Spark adds them up, and gives nothing for rows of which none is known to count."""
    return ibis.coalesce(seen.count(where=kept), 0)


def _last(seen: ir.Table, item: Feature, kept: ir.BooleanValue) -> ir.Value:
    """The value at the latest time, of several the greatest; all engines compare pairs by their first, then second."""
    place = ibis.struct({"at": seen[item.at], "of": seen[item.of]})
    return seen[item.of].argmax(place, where=kept & seen[item.of].notnull())


def _slope(seen: ir.Table, item: Feature, kept: ir.BooleanValue) -> ir.Value:
    days = (seen[item.at] - seen.cutoff) / DAY
    kept &= seen[item.of].notnull()
    return days.cov(seen[item.of], where=kept, how="pop") / days.var(where=kept, how="pop").nullif(0)


def _renewal(seen: ir.Table, item: Feature, kept: ir.BooleanValue) -> ir.Value:
    """Days to the nearest renewal; one that has passed comes round again with the billing months.

    One that lies more than a term ahead is brought back by whole terms: an export made later shows the renewal of then,
    and that there is one would tell that the customer stayed.
    """
    ahead = (seen[item.of] - seen.cutoff) / DAY
    months = seen.months / DAY
    terms = ibis.ifelse(ahead >= 0, ibis.greatest((ahead - _MONTHS_DIFFER) / months, 0.0), ahead / months).floor()
    return (ahead - months * terms).min(where=kept)


def _notice(seen: ir.Table, _: Feature, __: ir.BooleanValue) -> ir.Value:
    """1 where something is active, and of all that is known to run now or later nothing runs on past a given notice."""
    current = seen["until"].isnull() | (seen["until"] >= seen.cutoff)
    told = (seen["leaves"] <= seen.cutoff).fill_null(False)
    active = _rows(seen, current & (seen["at"] < seen.cutoff))
    return ((active > 0) & (_rows(seen, current & ~told) == 0)).cast("int32")


OPERATIONS: Mapping[str, Callable[[ir.Table, Feature, ir.BooleanValue], ir.Value]] = MappingProxyType({
    "count": lambda seen, _, kept: _rows(seen, kept),
    "flag": lambda seen, _, kept: (_rows(seen, kept) > 0).cast("int32"),
    "total": lambda seen, item, kept: _unless_untold(seen, item, kept, seen[item.of].sum(where=kept)),
    "mean": lambda seen, item, kept: seen[item.of].mean(where=kept),
    "spread": lambda seen, item, kept: seen[item.of].std(where=kept, how="pop"),
    "lowest": lambda seen, item, kept: seen[item.of].min(where=kept),
    "highest": lambda seen, item, kept: seen[item.of].max(where=kept),
    "median": lambda seen, item, kept: ibis.ifelse(kept, seen[item.of], None).median(),  # Ibis' own fails on Spark
    "last": _last,
    "slope": _slope,
    "days_since": lambda seen, item, kept: (seen.cutoff.max() - seen[item.at].max(where=kept)) / DAY,
    "oldest": lambda seen, item, kept: (seen.cutoff.max() - 1 - seen[item.at].min(where=kept)) / DAY,
    "age": lambda seen, item, kept: (seen.cutoff.max() - seen[item.at].min(where=kept)) / DAY,
    "renewal": _renewal,
    "notice": _notice,
})


def _ratio(_: Feature, of: ir.NumericValue, by: ir.NumericValue) -> ir.Value:
    return of.cast("float64") / by.cast("float64").nullif(0.0)


def _rank(item: Feature, plan: ir.StringValue) -> ir.Value:
    plans = item.of.split("|") if item.of else []
    branches = [(plan == name, float(place)) for place, name in enumerate(plans, start=1)]
    return ibis.cases(*branches, else_=None) if branches else ibis.null("float64")


def _due(item: Feature, of: ir.NumericValue, days: ir.NumericValue) -> ir.Value:
    """The one value where what the other counts down to comes within the feature's window, else 0."""
    return ibis.ifelse(days.isnull(), None, ibis.ifelse(days < float(item.window_days or 0), of, 0.0))


FORMULAS: Mapping[str, Callable[..., ir.Value]] = MappingProxyType({
    "ratio": _ratio,
    "change": lambda item, of, by: _ratio(item, of, by) - 1.0,
    "difference": lambda _, of, by: of.cast("float64") - by.cast("float64"),
    "greatest": lambda _, *parts: ibis.greatest(*(part.cast("float64") for part in parts)),
    "at_most": lambda item, of: ibis.ifelse(of.isnull(), None, (of <= float(item.of)).cast("int32")),
    "rank": _rank,
    "due": _due,
})

