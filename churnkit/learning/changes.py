"""What changed since the run before: which reasons are new, and what the values of the others were then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from churnkit.learning.families import family
from churnkit.signals.catalog import Catalog
from churnkit.signals.features import groups
from churnkit.signals.groups import Feature
from churnkit.signals.words import short

NOTABLE = 0.1
"""A number that moved by less than this share of itself did not change."""


@dataclass(frozen=True, eq=False)
class Earlier:
    """The run before: its cutoff, its reasons (`schemas.REASONS`) and the same entities' features at that cutoff."""

    at: pd.Timestamp
    reasons: pd.DataFrame
    features: pd.DataFrame


def since(told: pd.DataFrame, features: pd.DataFrame, earlier: Earlier, catalog: Catalog | None = None) -> pd.DataFrame:
    """The reasons with `changed` filled in: 'new since 4 October', 'was 31 on 4 October', both, or nothing.

    A reason is new where its entity had reasons then, and none of its family that worked the same way. A value that
    moved by less than NOTABLE, or by the days that went by alone, did not change.

    Args:
        told: Reasons of now: `schemas.REASONS`.
        features: The features that they are of, one row per entity.
        earlier: What there was at the run before.
        catalog: The feature store's, for the words.
    """
    catalog = catalog or Catalog()
    known = {one.name: one for group in groups(catalog).values() for one in group.features}
    day = f"{earlier.at.day} {earlier.at:%B}"
    days = (pd.to_datetime(told["cutoff"], utc=True) - earlier.at).dt.total_seconds().to_numpy() / 86400
    new = _new(told, earlier.reasons, known)
    now, then, there = _values(told, features), _values(told, earlier.features), _known(told, earlier.features)
    words = []
    for name, fresh, mine, past, had, gone in zip(told["feature"], new, now, then, there, days, strict=True):
        moved = had and _moved(known.get(name), mine, past, gone)
        was = f"was {short(known.get(name), past, catalog.currency)}" if moved else ""
        words.append(", ".join([f"new since {day}", *([was] if was else [])]) if fresh else was and f"{was} on {day}")
    return told.assign(changed=words)


def _new(told: pd.DataFrame, before: pd.DataFrame, known: dict[str, Feature]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Whether each reason's family was not told then, though its entity was."""

    def keys(frame: pd.DataFrame) -> pd.Series:
        of = [family(name, known.get(name)) for name in frame["feature"]]
        return frame["entity_id"] + "\x1f" + frame["direction"] + "\x1f" + pd.Series(of, frame.index, dtype=object)

    if before.empty or told.empty:
        return np.zeros(len(told), dtype=bool)
    return (told["entity_id"].isin(before["entity_id"]) & ~keys(told).isin(keys(before))).to_numpy()


def _values(told: pd.DataFrame, features: pd.DataFrame) -> list[Any]:
    """Each reason's value of its feature there; None where there is none."""
    wide = features.set_index("entity_id")
    rows = wide.index.get_indexer(pd.Index(told["entity_id"]))
    columns = {name: wide[name].to_numpy(dtype=object) for name in set(told["feature"]) if name in wide}
    return [columns[name][row] if row >= 0 and name in columns else None
            for name, row in zip(told["feature"], rows, strict=True)]


def _known(told: pd.DataFrame, features: pd.DataFrame) -> list[bool]:
    return list(told["entity_id"].isin(features["entity_id"]) & told["feature"].isin(features.columns))


def _moved(feature: Feature | None, now: Any, then: Any, days: float) -> bool:
    """Whether a value is another than it was, but for the days that went by."""
    blank = [bool(pd.isna(one)) for one in (now, then)]
    if any(blank) or isinstance(now, str) or isinstance(then, str):
        return blank[0] != blank[1] or (not all(blank) and now != then)
    step = abs(float(now) - float(then))
    if feature is not None and feature.unit == "days" and abs(step - days) < 1:
        return False
    return step > NOTABLE * max(abs(float(now)), abs(float(then)))
