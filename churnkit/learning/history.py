"""The past cutoffs that a training learns from: one grid, whatever the date of the run."""

from __future__ import annotations

import datetime as dt

import pandas as pd

from churnkit.cutoffs import every, moment
from churnkit.learning.labels import query
from churnkit.learning.targets import Target
from churnkit.settings import Settings
from churnkit.signals.points import points_at
from churnkit.signals.tables import Tables

_ANCHOR = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)  # a Monday
_WARM_UP = dt.timedelta(days=28)
_SIGNALS = {"account": {"usage_events": "occurred_at", "support_tickets": "opened_at", "subscriptions": "started_at"},
            "asset": {"telemetry": "occurred_at", "asset_events": "occurred_at"}}


def grid(step: dt.timedelta, start: dt.datetime, end: dt.datetime) -> list[dt.datetime]:
    """The cutoffs of one fixed grid between two moments, so that every training uses the same ones.

    >>> [day.day for day in grid(dt.timedelta(days=7), moment("2026-11-01"), moment("2026-11-16"))]
    [2, 9, 16]
    """
    first = start + (-(start - _ANCHOR)) % step
    return every(first, end, step) if first <= end else []


def step(entity: str, settings: Settings) -> dt.timedelta:
    """How far apart the training cutoffs of an entity lie."""
    return settings.training.every if entity == "account" else settings.training.asset_every


def training_cutoffs(target: Target, tables: Tables, at: dt.datetime) -> list[dt.datetime]:
    """The cutoffs whose labels are mature at `at`, from four weeks after the first signal on; may be empty."""
    start = tables.settings.training.start or _first_signal(target, tables)
    return grid(step(target.entity, tables.settings), start, moment(at) - target.window) if start is not None else []


def training_points(target: Target, tables: Tables, at: dt.datetime) -> pd.DataFrame:
    """The prediction points at `training_cutoffs`, columns `schemas.POINTS`."""
    return points_at(tables, target.entity, training_cutoffs(target, tables, at))


def _first_signal(target: Target, tables: Tables) -> dt.datetime | None:
    """When there is enough to look back on; None where no table tells of this entity.

    The first of the tables that holds rows decides: a later one may reach back for decades.
    """
    for table, column in _SIGNALS[target.entity].items():
        first = query(tables, f"SELECT min({column}) AS first FROM {table}")["first"].iloc[0]  # noqa: S608 - our names
        if not pd.isna(first):
            found: dt.datetime = pd.Timestamp(first).to_pydatetime()
            return found + _WARM_UP
    return None
