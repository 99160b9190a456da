"""What the day's files say of an account or an asset beside its scores, a sentence each."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from churnkit.jobs.workspace import load_day
from churnkit.settings import Settings

if TYPE_CHECKING:
    import pandas as pd


def beside(settings: Settings, at: dt.datetime, ids: pd.Series) -> list[str]:
    """When, which component, how long, how much and of what, as far as there are files of the day; each says where its
    skill is not proven.
    """
    notes = []
    for folder, tell in (("curves", _curves), ("components", _components), ("lives", _lives), ("offers", _offers)):
        rows = load_day(settings, folder, at)
        if rows is not None:
            notes += tell(rows[rows["entity_id"].isin(ids)])
    return notes


def _curves(rows: pd.DataFrame) -> list[str]:
    """Each entity's risk over the horizons."""
    notes = []
    for (entity, target), mine in rows.groupby(["entity_id", "target"], sort=False):
        told = ", ".join(f"{row.probability:.1%} in {row.horizon_days:g} days" for row in mine.itertuples())
        first = mine.iloc[0]
        half = f"; it comes to half of such by day {first['median_days']:.0f}" if first["median_days"] > 0 else ""
        notes.append(f"{target} of {entity}: {told}{half}{_doubt(first['skill'])}")
    return notes


def _components(rows: pd.DataFrame) -> list[str]:
    """The component that would fail most likely, given that one does: its shares are the same at every horizon."""
    notes = []
    last = rows[rows["horizon_days"] == rows["horizon_days"].max()]
    for (entity, target), mine in last.groupby(["entity_id", "target"], sort=False):
        first, whole = mine.sort_values("probability", kind="stable").iloc[-1], mine["probability"].sum()
        named = "of a component that failures do not name" if first["component"] == "failure" else (
            f"the {str(first['component']).replace('_', ' ')}")
        if whole > 0:
            notes.append(f"{target} of {entity}: if it fails, most likely {named} ({first['probability'] / whole:.0%})"
                         f"{_doubt(first['skill'])}")
    return notes


def _lives(rows: pd.DataFrame) -> list[str]:
    """The days left, and how far they are looked ahead."""
    return [f"{row.target} of {row.entity_id}: about {row.life_days:.0f} days left (up to {row.cap_days:g})"
            f"{_doubt(row.skill)}" for row in rows.itertuples()]


def _offers(rows: pd.DataFrame) -> list[str]:
    """What an account would buy."""
    from churnkit.outreach.offer import Offer

    told = {f"{row['target']} of {row['entity_id']}": Offer.of(row).told() for row in rows.to_dict("records")}
    return [f"{whose}: {says}" for whose, says in told.items() if says]


def _doubt(skill: object) -> str:
    return "" if skill else "; no proven skill"
