"""Prediction points: which accounts and assets are asked about, at which cutoffs."""
# ruff: noqa: PD003 - these are Ibis expressions, which have isnull and notnull

from __future__ import annotations

import datetime as dt

import ibis
import pandas as pd
import pyarrow as pa
from ibis.expr import types as ir

from churnkit.cutoffs import duration, moment
from churnkit.cutoffs import every as every_cutoff
from churnkit.errors import FeatureError, did_you_mean
from churnkit.schemas import ENTITIES, POINTS
from churnkit.settings import TargetSettings
from churnkit.signals.catalog import Catalog
from churnkit.signals.streams import STREAMS, micros
from churnkit.signals.tables import Tables

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def prediction_points(
    tables: Tables,
    entity: str = "account",
    *,
    at: str | dt.datetime | None = None,
    start: str | dt.datetime | None = None,
    end: str | dt.datetime | None = None,
    every: str | dt.timedelta = "28d",
) -> pd.DataFrame:
    """The entities that exist and are served at one cutoff, or at each of a row of cutoffs.

    An account is there when it is known, was created by the cutoff, and has a subscription that runs; without a table
    of
    subscriptions,
    when it was used within the inactivity span. An asset is there while it is in service. What is known is
    what was known at the cutoff.

    Args:
        tables: The raw tables.
        entity: account or asset.
        at: One cutoff; give this, or `start` and `end`.
        start: The first cutoff.
        end: The last cutoff, where the step meets it.
        every: The step between cutoffs, such as '28d'.

    Returns:
        Columns `schemas.POINTS`, ordered by cutoff and entity; `cutoff` is UTC with microseconds.

    Raises:
        FeatureError: If there is no such entity, or not exactly one of `at` and `start` with `end` is given.
    """
    if entity not in ENTITIES:
        raise FeatureError(f"There is no entity '{entity}'.{did_you_mean(entity, ENTITIES)} "
                           f"Known: {', '.join(ENTITIES)}.")
    if (at is None) == (start is None or end is None):
        raise FeatureError("Say when: prediction_points(tables, at='2026-11-01'), or start=... and end=... with "
                           "every='28d'.")
    if at is not None:
        cutoffs = [moment(at)]
    else:
        assert start is not None and end is not None  # noqa: S101, PT018 - for the type checker; checked above
        cutoffs = every_cutoff(moment(start), moment(end), duration(every))
    return points_at(tables, entity, cutoffs)


def points_at(tables: Tables, entity: str, cutoffs: list[dt.datetime]) -> pd.DataFrame:
    """The points of an entity at any set of cutoffs; see `prediction_points`."""
    whole = [(cutoff - _EPOCH) // dt.timedelta(microseconds=1) for cutoff in sorted(set(cutoffs))]
    moments = ibis.memtable(pa.table({"cutoff": pa.array(whole, pa.int64())}))
    found = _accounts(tables, moments) if entity == "account" else _assets(tables, moments)
    frame = tables.con.to_pyarrow(found.order_by("cutoff", "entity_id")).to_pandas()
    cutoff = pd.to_datetime(frame["cutoff"], unit="us", utc=True).dt.as_unit("us")
    stamps = {value: value.isoformat() for value in cutoff.unique()}
    frame = frame.assign(
        cutoff=cutoff, entity=entity,
        row_id=entity + ":" + frame["entity_id"].astype(str) + "@" + cutoff.map(stamps).astype(str))
    typed: pd.DataFrame = frame.astype({"entity": object, "row_id": object})
    return typed[list(POINTS)]


def _accounts(tables: Tables, moments: ir.Table) -> ir.Table:
    """Accounts that exist and are active, by cutoff."""
    there = _latest(STREAMS["accounts"].build(tables, Catalog()), moments)
    there = there.filter(there["at"] < there.cutoff).select("id", "cutoff").distinct()
    if tables.has("subscriptions"):
        spans = STREAMS["subscriptions"].build(tables, Catalog())
        held = _latest(spans, moments)
        active = held.filter((held["at"] < held.cutoff) & (held["until"].isnull() | (held["until"] >= held.cutoff)))
    else:
        span = tables.settings.targets.get("churn", TargetSettings()).inactivity // dt.timedelta(microseconds=1)
        table = tables.expr("usage_events")
        used = table.select(id=table.account_id, at=micros(table.occurred_at), known=micros(table.known_at))
        active = used.join(moments, [used["at"] < moments.cutoff, used["at"] >= moments.cutoff - span,
                                     used.known <= moments.cutoff])
    active = active.select("id", "cutoff").distinct()
    both = there.semi_join(active, ["id", "cutoff"])
    return both.select(entity_id=both.id, account_id=both.id, cutoff=both.cutoff)


def _assets(tables: Tables, moments: ir.Table) -> ir.Table:
    """Assets in service, by cutoff."""
    there = _latest(STREAMS["assets"].build(tables, Catalog()), moments)
    there = there.filter((there["at"] < there.cutoff) & (there["until"].isnull() | (there["until"] >= there.cutoff)))
    return there.select(entity_id=there.id, account_id=there.account, cutoff=there.cutoff).distinct()


def _latest(records: ir.Table, moments: ir.Table) -> ir.Table:
    """Of each record the version that was known last at each cutoff."""
    seen = records.join(moments, records.known <= moments.cutoff)
    newest = seen.known.max().over(ibis.window(group_by=(seen.id, seen.key, seen.cutoff)))
    seen = seen.mutate(newest=newest)
    return seen.filter(seen.known == seen.newest)
