"""Definitions to columns: one Ibis expression per feature group, exact under the rules of time, at any cutoffs."""
# ruff: noqa: PD003 - these are Ibis expressions, which have isnull and notnull

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
from ibis.expr import types as ir

from churnkit.errors import FeatureError
from churnkit.schemas import POINTS
from churnkit.settings import TableMap
from churnkit.signals.catalog import Catalog, discover
from churnkit.signals.features import groups
from churnkit.signals.groups import ZERO_WHEN_NOTHING, Feature, FeatureGroup
from churnkit.signals.operations import FORMULAS, OPERATIONS, distinct, within
from churnkit.signals.streams import DAY, STREAMS, Stream
from churnkit.signals.tables import Tables

CHUNK = 200_000
"""Points per engine query: bounds memory, whatever the number of cutoffs."""
PERIOD = 28 * DAY
"""The grid on which heavy streams meet points: an equality for the join, so that only near rows become pairs."""
USUAL_BLOCKS = 5
"""How many blocks of 28 days before the last one make an account's usual level."""
_POINTS = "points_asked"
_WRITTEN: dict[tuple[Any, ...], str] = {}
_MOST_WRITTEN = 128
DECIMALS = 9
"""Sums of floats differ in their last bits with the order of rows; results are rounded so that order does not show."""


def compute_features(tables: Tables, points: pd.DataFrame, catalog: Catalog | None = None) -> pd.DataFrame:
    """Every feature of the points' entities at their cutoffs.

    A row counts at a cutoff when its own time lies before the cutoff and it was known by then. Features of tables that
    were not given are missing; on given tables counts are 0 where nothing happened. Any set of cutoffs will do.

    Args:
        tables: The raw tables.
        points: One row per entity and cutoff, columns `schemas.POINTS`; accounts, assets, or both.
        catalog: The workspace's words; found in the tables when left out.

    Returns:
        The points in their order, and one column per definition of the entities among them: float64, categories as
        text.

    Raises:
        FeatureError: If a column of the points is missing or a row id stands twice.
    """
    absent = [name for name in POINTS if name not in points]
    if absent:
        raise FeatureError(f"Points lack the column '{absent[0]}'. Make them with prediction_points(tables, ...).")
    if points["row_id"].duplicated().any():
        twice = points.loc[points["row_id"].duplicated(), "row_id"].iloc[0]
        raise FeatureError(f"Point '{twice}' stands twice. Drop the copies: points.drop_duplicates('row_id').")
    catalog = catalog or discover(tables)
    result = points[list(POINTS)].reset_index(drop=True)
    columns: dict[str, Any] = {}
    for group in groups(catalog).values():
        chosen = result[result["entity"] == group.entity]
        if len(chosen) or not len(result):
            values = compute_group(tables, chosen, group, catalog)
            columns |= {name: values[name].reindex(result.index) for name in group.names}
    features = pd.concat([result, pd.DataFrame(columns, index=result.index)], axis=1)
    features.attrs["catalog"] = asdict(catalog)  # the store keeps it with the first write
    return features


def compute_group(tables: Tables, points: pd.DataFrame, group: FeatureGroup, catalog: Catalog) -> pd.DataFrame:
    """One group's columns for points of its entity, with the points' index."""
    ordered = points.sort_values("cutoff", kind="stable")
    parts = [_query(tables, ordered.iloc[start:start + CHUNK], group, catalog)
             for start in range(0, max(len(ordered), 1), CHUNK)]
    values = pd.concat(parts)
    for item in group.features:
        column = values[item.name]
        if item.kind == "category":
            values[item.name] = [value if isinstance(value, str) else None for value in column]
        else:
            values[item.name] = column.astype("float64").round(DECIMALS) + 0.0
    return values.reindex(points.index)


def expression(tables: Tables, points: ir.Table, group: FeatureGroup, catalog: Catalog) -> ir.Table:
    """One group's features as an Ibis expression.

    Args:
        tables: The raw tables.
        points: An Ibis table with `rid` (a number), `id` (the entity) and `cutoff` (microseconds).
        group: What to compute.
        catalog: The workspace's words.

    Returns:
        `rid` and the group's columns, one row per point.
    """
    result, inner = points.select("rid"), points
    if group.through and tables.has(STREAMS[group.through].needs):
        inner = _parts(tables, points, STREAMS[group.through], catalog)
    for name in group.streams:
        wanted = [item for item in group.all_features if item.stream == name]
        if not _given(tables, name) or (group.through and not tables.has(STREAMS[group.through].needs)):
            empty = {item.name: ibis.null(_type(item)) for item in wanted}
            result = result.mutate(**empty)
            continue
        stream = STREAMS[name]
        rows = stream.build(tables, catalog)
        by = ("rid", "id") if group.through else ("rid",)
        gathered = [_gather(inner, rows, wanted, by, heavy=stream.heavy)] if _plain(wanted) else []
        gathered += [_usual(inner, rows, item, by) for item in wanted if item.op == "usual"]
        for table in gathered:
            columns = [column for column in table.columns if column not in ("rid", "id")]
            if group.through:
                table = _worst(inner, table, [item for item in wanted if item.name in columns])  # noqa: PLW2901
            result = result.left_join(table, "rid")
            counts = [name for name in columns if group.all_by_name[name].op in ZERO_WHEN_NOTHING
                      and not (group.through and not group.all_by_name[name].state)]
            zeros = {name: ibis.ifelse(result.rid_right.isnull(), 0, result[name]) for name in counts}
            result = result.mutate(**zeros).drop("rid_right")
    for item in group.all_features:
        if item.op in FORMULAS:
            result = result.mutate(**{item.name: FORMULAS[item.op](item, *(result[part] for part in item.parts))})
    return result.select("rid", *group.names)


def _query(tables: Tables, points: pd.DataFrame, group: FeatureGroup, catalog: Catalog) -> pd.DataFrame:
    cutoffs = pd.to_datetime(points["cutoff"], utc=True).dt.as_unit("us").astype("int64")
    asked = pa.table({
        "rid": pa.array(np.arange(len(points)), pa.int64()),
        "id": pa.array(points["entity_id"].astype(object), pa.string()),
        "cutoff": pa.array(cutoffs.to_numpy(), pa.int64()),
    })
    tables.raw.register("_asked", asked)
    tables.raw.execute(f"CREATE OR REPLACE TABLE {_POINTS} AS FROM _asked")
    tables.raw.unregister("_asked")
    values: pd.DataFrame = tables.raw.sql(_sql(tables, group, catalog)).to_arrow_table().to_pandas()
    tables.raw.execute(f"DROP TABLE {_POINTS}")
    values = values.set_index("rid").sort_index()
    values.index = points.index
    return values


def _sql(tables: Tables, group: FeatureGroup, catalog: Catalog) -> str:
    """The group's query as text, kept: it depends on which tables there are and on settings, never on what they hold.

    Ibis takes longer to write a query of sixty columns than DuckDB takes to answer it on a small workspace.
    """
    given = tuple(_given(tables, name) for name in group.streams)
    if "moods" in group.streams and given[group.streams.index("moods")]:
        tables.moods()  # scored on first use
    mapping = tables.settings.tables.get("usage_events", TableMap())
    key = (group.name, catalog, given, tables.has("assets"), mapping.grain, tables.settings.currency,
           tuple(sorted(tables.settings.rates.items())))
    if key not in _WRITTEN:
        if len(_WRITTEN) >= _MOST_WRITTEN:
            _WRITTEN.clear()
        _WRITTEN[key] = str(ibis.to_sql(expression(tables, tables.con.table(_POINTS), group, catalog),
                                        dialect="duckdb"))
    return _WRITTEN[key]


def _given(tables: Tables, stream: str) -> bool:
    if stream == "moods":
        return any(tables.has(name) for name in ("support_tickets", "ticket_messages", "surveys")) and hasattr(tables,
                                                                                                               "moods")
    return tables.has(STREAMS[stream].needs)


def _type(item: Feature) -> str:
    return "string" if item.kind == "category" else "float64"


def _plain(wanted: Iterable[Feature]) -> bool:
    return any(item.op != "usual" for item in wanted)


def _gather(points: ir.Table, rows: ir.Table, wanted: list[Feature], by: tuple[str, ...], *, heavy: bool) -> ir.Table:
    """Joins points with the rows that they may see and aggregates each feature over its own window."""
    wanted = [item for item in wanted if item.op != "usual"]
    bounded = [item for item in wanted if item.window_days is not None]
    if not heavy:
        return _aggregate(_visible(points, rows), wanted, by)
    reach = max(item.before + item.window_days for item in bounded if item.window_days is not None)
    near = _aggregate(_visible_near(points, rows, reach), wanted, by)
    # What lies further back than every window matters only to points that see nothing nearer; they are few.
    lost = points.anti_join(near, by)
    beyond = [item for item in wanted if item.window_days is None]
    if not beyond:
        return near
    far = _aggregate(_visible(lost, rows), beyond, by)
    nothing = {item.name: ibis.literal(0 if item.op in ZERO_WHEN_NOTHING else None, near[item.name].type())
               for item in bounded}
    return near.union(far.mutate(**nothing).select(near.columns))


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
    """The same within `reach` days: points are laid on a grid of periods, so that the join has an equality on time."""
    first, final = (points.cutoff - reach * DAY) // PERIOD, (points.cutoff - 1) // PERIOD
    grid = points.mutate(period=ibis.range(first, final + 1).unnest())
    rows = rows.rename(key_id="id").mutate(period_of=rows["at"] // PERIOD)
    return grid.join(rows, [grid.id == rows.key_id, grid.period == rows.period_of, rows["at"] < grid.cutoff,
                            rows["at"] >= grid.cutoff - reach * DAY, rows.known <= grid.cutoff])


def _aggregate(seen: ir.Table, wanted: list[Feature], by: tuple[str, ...]) -> ir.Table:
    """One row per point that sees anything, with the wanted features."""
    plain = [item for item in wanted if item.op != "distinct"]
    columns = {item.name: OPERATIONS[item.op](seen, item, within(seen, item)) for item in plain}
    result = seen.group_by(*by).aggregate(**columns)
    for of in dict.fromkeys(item.of for item in wanted if item.op == "distinct"):
        counted = distinct(seen, of, [item for item in wanted if item.op == "distinct" and item.of == of], by)
        result = result.left_join(counted, by).drop(*(f"{key}_right" for key in by))
    return result.select(*by, *(item.name for item in wanted))


def _usual(points: ir.Table, rows: ir.Table, item: Feature, by: tuple[str, ...]) -> ir.Table:
    """The median of a sum over the blocks before the last one, from the first block with anything in it."""
    span = (item.window_days or 28) * DAY
    seen = _visible_near(points, rows, (USUAL_BLOCKS + 1) * (item.window_days or 28))
    block = (seen.cutoff - 1 - seen["at"]) // span
    sums = seen.group_by(*by, block=block).aggregate(value=seen[item.of].sum())
    oldest = sums.group_by(*by).aggregate(oldest=sums.block.max())
    blocks = oldest.mutate(block=ibis.range(1, oldest.oldest + 1).unnest())
    filled = blocks.left_join(sums, [*by, "block"])
    return filled.group_by(*by).aggregate(**{item.name: ibis.coalesce(filled.value, 0.0).median()})


def _parts(tables: Tables, points: ir.Table, stream: Stream, catalog: Catalog) -> ir.Table:
    """Each point's assets in service as points of their own: the same `rid`, the asset's id."""
    rows = stream.build(tables, catalog).rename(part="id")
    ever = rows.select(owner=rows.account, owned=rows.key).distinct()
    pairs = points.join(ever, points.id == ever.owner)
    seen = pairs.join(rows, [pairs.owned == rows.key, rows.known <= pairs.cutoff])
    versions = ibis.window(group_by=(seen.rid, seen.key))
    seen = seen.mutate(newest=seen.known.max().over(versions))
    holds = (seen["at"] < seen.cutoff) & (seen["until"].isnull() | (seen["until"] >= seen.cutoff))
    seen = seen.filter((seen.known == seen.newest) & (seen.account == seen.id) & holds)
    return seen.select("rid", "cutoff", id=seen.part)


def _worst(parts: ir.Table, table: ir.Table, wanted: list[Feature]) -> ir.Table:
    """Per point: how many parts hold, and the greatest of their values; a part with no rows counts as 0 in counts."""
    every = parts.select("rid", "id").left_join(table, ["rid", "id"])
    columns = {}
    for item in wanted:
        column = every[item.name]
        if item.op in ZERO_WHEN_NOTHING:
            column = ibis.coalesce(column, 0)
        columns[item.name] = column.sum() if item.state else column.max()
    return every.group_by("rid").aggregate(**columns)
