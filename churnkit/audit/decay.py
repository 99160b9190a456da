"""Decay: what honestly foretells an outcome does so less well from further away; what knows it does not."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from churnkit.audit.finding import Finding, Verdict, shown
from churnkit.audit.ranks import FEWEST, aucs
from churnkit.audit.truncation import tables_of
from churnkit.learning.history import training_points
from churnkit.learning.labels import label
from churnkit.learning.targets import Target
from churnkit.schemas import POINTS
from churnkit.signals.catalog import Catalog
from churnkit.signals.compute import compute_features
from churnkit.signals.features import groups
from churnkit.signals.tables import Tables

LAGS: Mapping[str, tuple[int, ...]] = {"account": (0, 28, 56, 84), "asset": (0, 7, 14, 28)}
"""How many days before the label's cutoff the features are taken."""
NEAR_ONE = 0.98
"""A single feature whose AUC is surely above this knows the outcome."""
HIGH = 0.85
"""A single feature whose AUC is surely above this at every lag, and falls by at most FALL, is suspicious."""
FALL = 0.05
MOST = 4_000
"""Labelled rows looked at per target: all positives up to half of them, the rest drawn from the others."""
_MEND = ("Look where the column comes from: was it written, or were rows taken away, when the outcome was known? "
         "Leave it out until its times are right.")


def decay(tables: Tables, at: dt.datetime, catalog: Catalog, targets: Sequence[Target]) -> Verdict:
    """Judges each feature alone by how well it foretells each target at its cutoff, and 28, 56 and 84 days before.

    Args:
        tables: The raw tables.
        at: Labels must be mature by then.
        catalog: The workspace's words.
        targets: What to foretell.

    Returns:
        One finding per target and feature that is surely above NEAR_ONE at the cutoff itself, or surely above HIGH at
        every lag and hardly falling.
    """
    found: list[Finding] = []
    looked, skipped = [], []
    for target in targets:
        rows = _labelled(tables, target, at)
        if len(rows) and min(_entities(rows, outcome) for outcome in (0, 1)) >= FEWEST:
            table = curve(tables, rows, catalog, target)
            found += _suspicious(table, target, catalog, len(rows))
            looked.append(f"{len(table)} features of {target.name} ({len(rows):,} rows, {int(rows['label'].sum()):,} "
                          "positive)")
        else:
            skipped.append(f"{target.name} has too few outcomes to judge a feature by: fewer than {FEWEST} entities "
                           "with, or without it, under a mature label.")
    return Verdict("decay", tuple(found), ", ".join(looked), " ".join(skipped) or "There is no target.",
                   hints=tuple(skipped) if looked else ())


def curve(tables: Tables, rows: pd.DataFrame, catalog: Catalog, target: Target) -> pd.DataFrame:
    """Each feature's AUC, low and high bound at every lag: index feature, columns (lag in days, auc | low | high)."""
    names = [name for group in groups(catalog).values() if group.name in target.groups
             for name in group.names if name not in target.never and group.entity == target.entity]
    lags = LAGS[target.entity]
    asked = pd.concat([_shifted(rows, lag) for lag in lags], ignore_index=True)
    features = compute_features(tables, asked.drop_duplicates("row_id", ignore_index=True), catalog).set_index("row_id")
    y, entities = rows["label"].to_numpy(dtype=float), rows["entity_id"].to_numpy()
    parts = {}
    for lag in lags:
        here = features.loc[_shifted(rows, lag)["row_id"], [name for name in names if name in features]]
        parts[lag] = aucs(here, y, entities)
    return pd.concat(parts, axis=1)


def _labelled(tables: Tables, target: Target, at: dt.datetime, seed: int = 7) -> pd.DataFrame:
    """Points with a mature label, all positives up to half of MOST, the rest drawn from the others."""
    points = training_points(target, tables, at)
    if not len(points):
        return points.assign(label=pd.Series(dtype="int64"))
    rows = points.assign(label=label(target, tables, points)["label"].to_numpy()).dropna(subset="label")
    dice = np.random.default_rng(seed)
    order = rows.iloc[dice.permutation(len(rows))]
    yes = order[order["label"] == 1].head(MOST // 2)
    return pd.concat([yes, order[order["label"] == 0].head(MOST - len(yes))]).reset_index(drop=True)


def _entities(rows: pd.DataFrame, outcome: int) -> int:
    return int(rows.loc[rows["label"] == outcome, "entity_id"].nunique())


def _shifted(rows: pd.DataFrame, lag: int) -> pd.DataFrame:
    """The same points so many days earlier."""
    cutoff = (rows["cutoff"] - pd.Timedelta(days=lag)).dt.as_unit("us")
    moved = rows.assign(cutoff=cutoff, row_id=rows["entity"] + ":" + rows["entity_id"].astype(str) + "@"
                        + cutoff.map(lambda one: one.isoformat()))
    return moved[list(POINTS)]


def _suspicious(table: pd.DataFrame, target: Target, catalog: Catalog, rows: int) -> Iterator[Finding]:
    lags = LAGS[target.entity]
    first, last = lags[0], lags[-1]
    lows = np.column_stack([table[lag]["low"] for lag in lags])
    flat = (lows.min(axis=1) >= HIGH) & (table[first]["auc"] - table[last]["auc"] <= FALL).to_numpy()
    knows = (table[first]["low"] >= NEAR_ONE).to_numpy()
    for name, flatly in zip(table.index[flat | knows], flat[flat | knows], strict=True):
        near, far = table.loc[name, first], table.loc[name, last]
        why = (f"hardly falls: {far['auc']:.3f} ({far['low']:.3f} to {far['high']:.3f}) {last} days earlier"
               if flatly else f"is all but perfect ({far['auc']:.3f} {last} days earlier)")
        yield Finding(
            "decay", tables_of(str(name), catalog), str(name), f"{target.name} {last} days earlier", "a lower AUC",
            shown(float(far["auc"])), rows,
            f"'{name}' alone foretells {target.name} with an AUC of {near['auc']:.3f} ({near['low']:.3f} to "
            f"{near['high']:.3f}), and that {why}.", _MEND)
