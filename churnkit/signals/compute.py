"""Definitions to columns: one Ibis expression per feature group, exact under the rules of time, at any cutoffs."""
# ruff: noqa: PD003 - these are Ibis expressions, which have isnull and notnull

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import ibis
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from ibis.expr import types as ir

from churnkit.errors import FeatureError
from churnkit.schemas import POINTS
from churnkit.settings import TableMap
from churnkit.signals.catalog import Catalog, discover
from churnkit.signals.engines import Engine, opened
from churnkit.signals.features import groups
from churnkit.signals.groups import ZERO_WHEN_NOTHING, Feature, FeatureGroup
from churnkit.signals.join import gather
from churnkit.signals.operations import FORMULAS
from churnkit.signals.partials import sweepable
from churnkit.signals.streams import Stream, stream
from churnkit.signals.sweep import Grid, grid_of, sweep
from churnkit.signals.tables import Tables

CHUNK = 2_000_000
"""Points per engine query: bounds memory. A chunk keeps entities whole, so that each meets all its cutoffs at once."""
FEW = 2
"""Up to so many cutoffs an entity, rows meet points one by one; at more, buckets are swept (see sweep.py)."""
DECIMALS = ((1e3, 9), (1e6, 6), (1e9, 3), (np.inf, 0))
"""Sums of floats differ in their last bits with the order of rows; results are rounded, to so many decimals below each
size, so that order does not show."""


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
    with opened(tables):  # once for all groups
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
    order = np.arange(len(points))
    if len(points) > CHUNK:
        order = pd.factorize(points["entity_id"])[0].argsort(kind="stable")
    columns = {item.name: np.empty(len(points), object if item.kind == "category" else "float64")
               for item in group.features}
    with opened(tables) as engine:
        for start in range(0, max(len(points), 1), CHUNK):
            here = order[start:start + CHUNK]
            for name, values in _query(engine, points.iloc[here], group, catalog):
                columns[name][here] = values
    return pd.DataFrame(columns, index=points.index, copy=False)


def _rounded(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Twelve digits or so, and no negative zero."""
    size = np.abs(values)
    result = values.round(DECIMALS[0][1])
    for (low, _), (_, decimals) in pairwise(DECIMALS):
        if (large := size >= low).any():
            result[large] = values[large].round(decimals)
    return result + 0.0


@dataclass(frozen=True)
class Shape:
    """How the points lie in time, which is all that the choice of a path depends on.

    `cutoffs` are the different cutoffs, `many` says that an entity has more than FEW of them, `shared` that all
    entities have the same few.
    """

    cutoffs: tuple[int, ...]
    many: bool
    shared: bool

    @classmethod
    def of(cls, ids: pa.ChunkedArray, cutoffs: npt.NDArray[np.int64]) -> Shape:
        """The shape of points, by their entities and their cutoffs in microseconds."""
        different = np.unique(cutoffs)
        many = len(cutoffs) > FEW * max(pc.count_distinct(ids).as_py(), 1)
        return cls(tuple(different.tolist()) if many else (), many, len(different) <= SHARED)

    def grid(self, wanted: list[Feature]) -> Grid:
        """The grid of buckets for these features."""
        return grid_of(np.array(self.cutoffs, dtype="int64"), wanted, shared=self.shared)


SHARED = 1000
"""Up to so many different cutoffs, all entities' buckets are parted at all of them."""


def expression(tables: Tables, points: ir.Table, group: FeatureGroup, catalog: Catalog, shape: Shape) -> ir.Table:
    """One group's features as an Ibis expression.

    Args:
        tables: The raw tables.
        points: An Ibis table with `rid` (a number), `id` (the entity) and `cutoff` (microseconds).
        group: What to compute.
        catalog: The workspace's words.
        shape: How the points lie in time.

    Returns:
        `rid` and the group's columns, one row per point.
    """
    by: tuple[str, ...] = ("rid",)
    result, inner = points.select("rid"), points
    lacking = bool(group.through) and not tables.has(stream(group.through, catalog).needs)
    if group.through and not lacking:
        inner, by = _parts(tables, points, stream(group.through, catalog), catalog), ("rid", "id")
    for name in group.streams:
        wanted = [item for item in group.all_features if item.stream == name]
        if lacking or not _given(tables, name, catalog):
            result = result.mutate(**{item.name: ibis.null(_type(item)) for item in wanted})
            continue
        for table in _gathered(tables, inner, stream(name, catalog), wanted, by, catalog, shape):
            columns = [column for column in table.columns if column not in {"rid", "id"}]
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


def _gathered(tables: Tables, points: ir.Table, source: Stream, wanted: list[Feature],  # noqa: PLR0913, PLR0917
              by: tuple[str, ...], catalog: Catalog, shape: Shape) -> list[ir.Table]:
    """One stream's features: swept where the stream is heavy and cutoffs are many, else joined."""
    rows = source.build(tables, catalog)
    swept = [item for item in wanted if source.heavy and shape.many and sweepable(item)]
    joined = [item for item in wanted if item not in swept]
    found = gather(points, rows, joined, by, heavy=source.heavy) if joined else []
    if swept:
        table = sweep(points.select("id", "cutoff").distinct(), rows, swept, shape.grid(swept))
        here = points.inner_join(table, ["id", "cutoff"]).select(*by, *(item.name for item in swept))
        found.append(here)
    return found


def _query(engine: Engine, points: pd.DataFrame, group: FeatureGroup,
           catalog: Catalog) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Each feature's values, in the points' order; one by one, because a whole frame would be held twice."""
    cutoffs = pd.to_datetime(points["cutoff"], utc=True).dt.as_unit("us").to_numpy(dtype="int64")
    asked = pa.table({
        "rid": pa.array(np.arange(len(points)), pa.int64()),
        "id": pa.array(points["entity_id"].astype(object), pa.string()),
        "cutoff": pa.array(cutoffs, pa.int64()),
    })
    shape = Shape.of(asked["id"], cutoffs)
    found = engine.run(asked, lambda table: expression(engine.tables, table, group, catalog, shape),
                       _key(engine.tables, group, catalog, shape))
    place = np.empty(len(points), dtype="int64")
    place[found["rid"].to_numpy()] = np.arange(len(points))
    for item in group.features:
        column = found[item.name]
        if item.kind == "category":
            yield item.name, column.cast(pa.string()).to_numpy()[place]
        else:  # some come as decimals: a sum of counts
            yield item.name, _rounded(column.cast(pa.float64(), safe=False).to_numpy()[place])


def _key(tables: Tables, group: FeatureGroup, catalog: Catalog, shape: Shape) -> tuple[Any, ...]:
    """What the group's query depends on: which tables there are and settings, never what the tables hold."""
    given = tuple(_given(tables, name, catalog) for name in group.streams)
    if "moods" in group.streams and given[group.streams.index("moods")]:
        tables.moods()  # scored on first use
    mapping = tables.settings.tables.get("usage_events", TableMap())
    words = catalog if group.version else replace(catalog, own="")  # our own groups know nothing of a workspace's
    return (group.name, words, given, tables.has("assets"), mapping.grain, tables.settings.currency,
            tuple(sorted(tables.settings.rates.items())), shape)


def _given(tables: Tables, name: str, catalog: Catalog) -> bool:
    if name == "moods":
        return any(tables.has(name) for name in ("support_tickets", "ticket_messages", "surveys")) and hasattr(tables,
                                                                                                               "moods")
    return tables.has(stream(name, catalog).needs)


def _type(item: Feature) -> str:
    return "string" if item.kind == "category" else "float64"


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
