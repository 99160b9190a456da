"""Points joined with the rows that they may see, one by one: light streams, states, records, and few cutoffs."""


from __future__ import annotations

import ibis
from ibis.expr import types as ir

from churnkit.signals.groups import ZERO_WHEN_NOTHING, Feature
from churnkit.signals.operations import OPERATIONS, distinct, previous, within
from churnkit.signals.partials import USUAL_BLOCKS
from churnkit.signals.streams import DAY

PERIOD = 28 * DAY
"""The grid on which heavy streams meet points: an equality for the join, so that only near rows become pairs."""


def gather(points: ir.Table, rows: ir.Table, wanted: list[Feature], by: tuple[str, ...], *,
           heavy: bool) -> list[ir.Table]:
    """Each feature over its own window, from the rows that each point may see.

    Args:
        points: rid, id and cutoff.
        rows: A stream.
        wanted: Features of that stream.
        by: What tells points apart: rid, or rid and id.
        heavy: Whether to join within the longest window only; what lies further back is then looked up where needed.

    Returns:
        Tables with `by` and a column per feature, each with a row for the points that see anything in it.
    """
    usuals = [_usual(points, rows, item, by) for item in wanted if item.op == "usual"]
    wanted = [item for item in wanted if item.op != "usual"]
    bounded = [item for item in wanted if heavy and item.window_days is not None]
    nearest = [item for item in wanted if heavy and item.window_days is None and item.op == "days_since"
               and not item.where]
    ever = [item for item in wanted if item not in bounded and item not in nearest]
    tables = [_aggregate(_visible(points, rows), ever, by)] if ever else []
    tables += [_near_first(points, rows, bounded, nearest, by)] if bounded or nearest else []
    return [*tables, *usuals]


def _near_first(points: ir.Table, rows: ir.Table, bounded: list[Feature], nearest: list[Feature],
                by: tuple[str, ...]) -> ir.Table:
    """Windows within their reach; the latest row there too, and further back only where nothing nearer is seen."""
    reach = max((_span(item) for item in bounded), default=PERIOD)
    near = _aggregate(_visible_near(points, rows, reach), [*bounded, *nearest], by)
    if not nearest:
        return near
    far = _aggregate(_visible(points.anti_join(near, by), rows), nearest, by)
    nothing = {item.name: ibis.literal(0 if item.op in ZERO_WHEN_NOTHING else None, near[item.name].type())
               for item in bounded}
    return near.union(far.mutate(**nothing).select(near.columns))


def _span(item: Feature) -> int:
    """How far back from its cutoff a feature looks, in microseconds; 0 for what has no window."""
    return round((item.before + (item.window_days or 0)) * DAY)


def _visible(points: ir.Table, rows: ir.Table) -> ir.Table:
    """Each point with the rows that lie before its cutoff and were known by then; of records the latest version."""
    rows = rows.rename(key_id="id")
    seen = points.join(rows, [points.id == rows.key_id, rows.known <= points.cutoff])
    if "key" in rows.columns:
        versions = ibis.window(group_by=(seen.rid, seen.id, seen.key))
        seen = seen.mutate(newest=seen.known.max().over(versions))
        seen = seen.filter(seen.known == seen.newest)
    return seen if "until" in rows.columns else seen.filter(seen["at"] < seen.cutoff)


def _visible_near(points: ir.Table, rows: ir.Table, reach: int) -> ir.Table:
    """The same within `reach`: points are laid on a grid of periods, so that the join has an equality on time."""
    first, final = (points.cutoff - reach) // PERIOD, (points.cutoff - 1) // PERIOD
    grid = points.mutate(period=ibis.range(first, final + 1).unnest())
    rows = rows.rename(key_id="id").mutate(period_of=rows["at"] // PERIOD)
    return grid.join(rows, [grid.id == rows.key_id, grid.period == rows.period_of, rows["at"] < grid.cutoff,
                            rows["at"] >= grid.cutoff - reach, rows.known <= grid.cutoff])


def _aggregate(seen: ir.Table, wanted: list[Feature], by: tuple[str, ...]) -> ir.Table:
    """One row per point that sees anything, with the wanted features."""
    plain = [item for item in wanted if item.op not in {"distinct", "previous"}]
    columns = {item.name: OPERATIONS[item.op](seen, item, within(seen, item)) for item in plain}
    result = seen.group_by(*by).aggregate(**columns)
    for of in dict.fromkeys(item.of for item in wanted if item.op == "distinct"):
        counted = distinct(seen, of, [item for item in wanted if item.op == "distinct" and item.of == of], by)
        result = result.left_join(counted, by).drop(*(f"{key}_right" for key in by))
    for item in (item for item in wanted if item.op == "previous"):
        result = result.left_join(previous(seen, item, by), by).drop(*(f"{key}_right" for key in by))
    return result.select(*by, *(item.name for item in wanted))


def _usual(points: ir.Table, rows: ir.Table, item: Feature, by: tuple[str, ...]) -> ir.Table:
    """The median of a sum over the blocks before the last one, from the first block with anything in it."""
    width = round((item.window_days or 28) * DAY)
    seen = _visible_near(points, rows, (USUAL_BLOCKS + 1) * width)
    block = (seen.cutoff - 1 - seen["at"]) // width
    sums = seen.group_by(*by, block=block).aggregate(value=seen[item.of].sum())
    oldest = sums.group_by(*by).aggregate(oldest=sums.block.max())
    blocks = oldest.mutate(block=ibis.range(1, oldest.oldest + 1).unnest())
    filled = blocks.left_join(sums, [*by, "block"])
    return filled.group_by(*by).aggregate(**{item.name: ibis.coalesce(filled.value, 0.0).median()})
