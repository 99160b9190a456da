"""Truncation: what is computed at a cutoff must not change when all that came later is cut from the raw tables."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from churnkit.audit.cut import cut
from churnkit.audit.finding import Finding, Verdict, shown
from churnkit.audit.sample import points_of, rounds
from churnkit.learning.history import training_cutoffs
from churnkit.learning.labels import label
from churnkit.learning.targets import Target
from churnkit.schemas import POINTS
from churnkit.signals.catalog import Catalog
from churnkit.signals.compute import compute_features
from churnkit.signals.features import groups
from churnkit.signals.points import points_at
from churnkit.signals.streams import stream
from churnkit.signals.tables import Tables

LABEL_CUTOFFS = 2
"""How many cutoffs the labels of each target are looked at: the first and the last with a mature label."""
_LOOSE = 1e-6
"""Features are rounded sums of floats: what differs by less, absolutely or as a share, is equal."""
_JUDGED = ("label", "why_none", "kind", "value")


def truncation(tables: Tables, at: dt.datetime, catalog: Catalog, targets: Sequence[Target] = (),
               points: int = 200) -> Verdict:
    """Compares features, populations and labels with those of tables cut at the cutoff, or at the label's close.

    Args:
        tables: The raw tables.
        at: The latest cutoff.
        catalog: The workspace's words.
        targets: Whose labels to look at.
        points: How many account points to look at; their assets come along.

    Returns:
        One finding per feature, population or label column that differs.
    """
    sampled = rounds(tables, at, points)
    findings, looked = _features(tables, sampled, catalog, points)
    judged, labels = _labels(tables, targets, at)
    cutoffs = pd.concat([cuts["cutoff"] for cuts in sampled]).nunique() if sampled else 0
    return Verdict("truncation", (*findings, *judged),
                   f"{looked:,} points at {cutoffs} cutoffs and {labels:,} labels" if looked else "",
                   "" if looked else "No account has lived a day yet.")


def _features(tables: Tables, sampled: list[pd.DataFrame], catalog: Catalog,
              most: int) -> tuple[list[Finding], int]:
    if not sampled or not sum(len(cuts) for cuts in sampled):
        return [], 0
    everybody = pd.concat(sampled).drop_duplicates("account_id")
    whole = cut(tables, everybody, "all")
    then, asked, served = [], [], set[str]()
    for cuts in sampled:
        asked.append(points_of(whole, cuts, most))
        past = cut(tables, cuts)
        then.append(compute_features(past, asked[-1], catalog))
        served |= _served(past, asked[-1])
    every = pd.concat(asked, ignore_index=True)
    later = compute_features(whole, every, catalog)
    made = _differing(pd.concat(then, ignore_index=True), later, catalog)
    members = every.assign(then=every["row_id"].isin(served), later=every["row_id"].isin(_served(whole, every)))
    return [*made, *_population(members)], len(every)


def _differing(then: pd.DataFrame, later: pd.DataFrame, catalog: Catalog) -> Iterator[Finding]:
    """One finding per feature that differs, those that differ most often first."""
    found = []
    for name in (str(column) for column in later if column not in POINTS):
        differs = _unequal(then[name], later[name])
        if differs.any():
            found.append((int(differs.sum()), name, int(np.flatnonzero(differs)[0])))
    for count, name, row in sorted(found, key=lambda one: (-one[0], one[1])):
        table, mine = tables_of(name, catalog), later["entity"] == later["entity"].iloc[row]
        where = _point(later.iloc[row])
        yield Finding(
            "truncation", table, name, where, shown(then[name].iloc[row]), shown(later[name].iloc[row]), count,
            f"the feature '{name}' (from {table}) reads what was not known at the cutoff, at {count} of "
            f"{int(mine.sum())} points; first {where}: {shown(then[name].iloc[row])} by the rows of that day, "
            f"{shown(later[name].iloc[row])} by all rows.",
            "Compare every time that its stream reads, and known_at, with the cutoff; a value without a time of its "
            "own is known at the record's end only, or needs record_changes.")


def _unequal(one: pd.Series, other: pd.Series) -> NDArray[np.bool_]:
    """Where two columns differ; missing equals missing."""
    if "O" in {one.dtype.kind, other.dtype.kind}:
        texts = [column.where(column.notna(), "").astype(str).to_numpy() for column in (one, other)]
        return np.asarray(texts[0] != texts[1], dtype=np.bool_)
    differs: NDArray[np.bool_] = ~np.isclose(one.to_numpy(dtype=float), other.to_numpy(dtype=float), rtol=_LOOSE,
                                             atol=_LOOSE, equal_nan=True)
    return differs


def _served(tables: Tables, asked: pd.DataFrame) -> set[str]:
    """Which of the points belong to the population, by these tables."""
    found = {row for entity, rows in asked.groupby("entity") for row in points_at(
        tables, str(entity), [cutoff.to_pydatetime() for cutoff in rows["cutoff"].unique()])["row_id"]}
    return found & set(asked["row_id"])


def _population(members: pd.DataFrame) -> Iterator[Finding]:
    for entity, rows in members.groupby("entity"):
        wrong = rows[rows["then"] != rows["later"]]
        if len(wrong):
            first, where = wrong.iloc[0], _point(wrong.iloc[0])
            told = [("served" if yes else "not served") for yes in (first["then"], first["later"])]
            yield Finding(
                "truncation", f"{entity}s", "(population)", where, told[0], told[1], len(wrong),
                f"whether an {entity} is asked about depends on later rows, at {len(wrong)} of {len(rows)} points; "
                f"first {where}: {told[0]} by the rows of that day, {told[1]} by all rows.",
                "Let the population see only rows known at the cutoff.")


def _labels(tables: Tables, targets: Sequence[Target], at: dt.datetime) -> tuple[list[Finding], int]:
    """Labels against those of tables cut at their close; targets with the same windows share a copy."""
    found, looked = list[Finding](), 0
    everybody = tables.raw.execute("SELECT DISTINCT account_id FROM accounts WHERE account_id IS NOT NULL").df()
    wanted = [(cutoff + target.window, cutoff, target) for target in targets
              for cutoff in _ends(training_cutoffs(target, tables, at))]
    rows: dict[str, list[pd.DataFrame]] = {}
    for close, same in itertools.groupby(sorted(wanted, key=lambda one: one[0]), key=lambda one: one[0]):
        past = cut(tables, everybody.assign(cutoff=close), "labels")
        for _, cutoff, target in same:
            asked = points_at(tables, target.entity, [cutoff])
            then, later = label(target, past, asked), label(target, tables, asked)
            rows.setdefault(target.name, []).append(then.join(later[list(_JUDGED)], rsuffix="_later"))
            looked += len(asked)
    for name, parts in rows.items():
        found += _judged(name, pd.concat(parts, ignore_index=True))
    return found, looked


def _judged(target: str, rows: pd.DataFrame) -> Iterator[Finding]:
    for column in _JUDGED:
        one, other = rows[column], rows[f"{column}_later"]
        differs = _unequal(one, other) if column == "value" else _unequal(one.astype(object), other.astype(object))
        if differs.any():
            place = int(np.flatnonzero(differs)[0])
            where, values = _point(rows.iloc[place]), (shown(one.iloc[place]), shown(other.iloc[place]))
            yield Finding(
                "truncation", f"labels of {target}", column, where, values[0], values[1], int(differs.sum()),
                f"the {column} of {target} still changes after the label has closed, at {int(differs.sum())} of "
                f"{len(rows)} points; first {where}: {values[0]} by the rows up to the close, {values[1]} by all rows.",
                "Let the label see only rows known at its close, or give it a longer grace.")


def _ends(cutoffs: list[dt.datetime]) -> list[dt.datetime]:
    """The first and the last of the cutoffs."""
    return sorted({cutoffs[0], cutoffs[-1]})[:LABEL_CUTOFFS] if cutoffs else []


def tables_of(name: str, catalog: Catalog) -> str:
    """The raw tables that a feature is computed from, by its definition.

    >>> tables_of("seats_active_share_28d", Catalog())
    'subscriptions, usage_events'
    """
    for group in groups(catalog).values():
        if name in group.by_name:
            every, ask, needs = group.all_by_name, [name], list[str]()
            while ask:
                item = every[ask.pop(0)]
                ask += item.parts
                needs += [stream(item.stream, catalog).needs] if item.stream else []
            return ", ".join(dict.fromkeys(needs))
    return ""


def _point(row: pd.Series) -> str:
    kind = f"{row['entity']} " if "entity" in row else ""
    return f"{kind}{row['entity_id']} at {shown(row['cutoff'])}"
