"""What is wrong with features as columns: dead, frozen, missing for some, too good alone, copies, shifted by now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import chi2, rankdata

from churnkit.audit.finding import shown
from churnkit.audit.ranks import Floats, aucs
from churnkit.schemas import POINTS

COLUMNS = ("feature", "suspicion", "worse", "figure", "says")
"""Of a table of suspects: `worse` orders suspicions from 1 (look at once) to 0, `figure` is the measured quantity."""
TOO_GOOD = 0.9
"""A feature whose AUC alone is surely above this is suspected of knowing the outcome."""
ALIKE = 0.999
"""A rank correlation beyond this, either way, makes two features copies for all that trees can tell."""
SHIFT = 0.25
"""Population stability index beyond which a shift is called major (Siddiqi, Credit Risk Scorecards, 2006, ch. 9). It
must also exceed what chance gives in 1 of 1,000 such samples: without a shift, PSI / (1/n + 1/m) is chi-squared with
bins - 1 degrees of freedom (Yurdakul and Naranjo, Journal of Risk Model Validation 14(4), 2020)."""
GONE = 0.99
"""The share of missing values from which a feature counts as missing."""
SMALLEST = 30
"""Rows of a segment, or of today, below which nothing is said of it."""
_APART = 0.25
"""How much less is missing in the other segments than in the one that lacks a feature."""
_BINS = 10
_PAIRED = 20_000


MEANS: Mapping[str, str] = MappingProxyType({
    "alone": f"its AUC alone is surely above {TOO_GOOD:g}, by the lower 95% bound: look whether it knows the outcome",
    "missing": f"at least {GONE:.0%} have no value: a table that was not given, or that one segment does not have",
    "shift": f"population stability index above {SHIFT:g} and above chance; what was learnt may not hold now",
    "constant": "it can teach nothing",
    "copy": f"rank correlation beyond {ALIKE:g}: one of the two will do",
    "frozen": "it never changed for anybody: fine for a trait, wrong for what is meant to move",
})
"""What each suspicion means, for the notes of a report."""


@dataclass(frozen=True)
class _Suspect:
    feature: str
    suspicion: str
    worse: float
    figure: float
    says: str


def suspects(frame: pd.DataFrame, y: pd.Series | None = None, *, segment: pd.Series | None = None,
             now: pd.DataFrame | None = None) -> pd.DataFrame:
    """The features that deserve a look before anybody learns from them, worst first.

    Args:
        frame: One row per point of the past. Where it has them, `entity_id` and `cutoff` say whose row it is and when;
            other columns of `schemas.POINTS` are skipped, all remaining ones are judged.
        y: Outcomes, 0 or 1, in the frame's order, missing where there is none; without it nothing is said of foresight.
        segment: The segment of each row, in the frame's order.
        now: The same columns today, to compare with the past.

    Returns:
        Columns COLUMNS. Suspicions: alone (predicts suspiciously well), missing (for everybody or a segment), constant,
        copy, shift, frozen (never changes between cutoffs).

    >>> rows = pd.DataFrame({"used": range(50), "twice": range(0, 100, 2), "dead": 3.0})
    >>> suspects(rows)[["feature", "suspicion"]].values.tolist()
    [['dead', 'constant'], ['twice', 'copy']]
    """
    names = [name for name in frame if name not in POINTS]
    if not len(frame) or not names:
        return _table([])
    columns = frame[names].reset_index(drop=True)
    entities = frame["entity_id"].to_numpy() if "entity_id" in frame else np.arange(len(frame))
    empty, constant = _dead(columns)
    alive = columns[[name for name in names if name not in empty and name not in constant]]
    found = [*(_Suspect(name, "missing", 0.1, 1.0, "no value for anybody") for name in empty),
             *(_Suspect(name, "constant", 0.4, 1.0, f"the same everywhere: {shown(value)}")
               for name, value in constant.items())]
    if y is not None:
        found += _alone(alive, y.reset_index(drop=True), entities)
    if segment is not None:
        found += _segments(alive, segment.reset_index(drop=True).astype(object))
    found += _copies(alive)
    if "cutoff" in frame and "entity_id" in frame:
        found += _frozen(alive, pd.factorize(entities)[0], pd.to_datetime(frame["cutoff"], utc=True).to_numpy())
    if now is not None:
        found += _shifted(alive, now, len(pd.unique(entities)))
    return _table(found)


def foreseeing(frame: pd.DataFrame, y: pd.Series) -> pd.DataFrame:
    """Of `suspects` those alone that predict an outcome suspiciously well: for one more target on the same frame."""
    names = [name for name in frame if name not in POINTS and frame[name].notna().any()]
    entities = frame["entity_id"].to_numpy() if "entity_id" in frame else np.arange(len(frame))
    return _table(list(_alone(frame[names].reset_index(drop=True), y.reset_index(drop=True), entities)))


def _table(found: list[_Suspect]) -> pd.DataFrame:
    table = pd.DataFrame([vars(one) for one in found], columns=list(COLUMNS))
    return table.sort_values(["worse", "figure", "feature"], ascending=[False, False, True], ignore_index=True)


def _dead(columns: pd.DataFrame) -> tuple[list[str], dict[str, object]]:
    """Columns without any value, and columns with one value and nothing else."""
    filled = columns.notna()
    names = [str(name) for name in columns]
    empty = [name for name in names if not filled[name].any()]
    constant: dict[str, object] = {name: columns[name].iloc[0] for name in names
                                   if filled[name].all() and (columns[name] == columns[name].iloc[0]).all()}
    return empty, constant


def _alone(columns: pd.DataFrame, y: pd.Series, entities: NDArray[Any]) -> Iterator[_Suspect]:
    has = y.notna().to_numpy()
    table = aucs(columns[has], y[has].to_numpy(dtype=float), entities[has])
    for name, row in table[table["low"] > TOO_GOOD].iterrows():
        yield _Suspect(str(name), "alone", 1.0, float(row["auc"]),
                       f"alone it predicts with an AUC of {row['low']:.3f} to {row['high']:.3f}")


def _segments(columns: pd.DataFrame, segment: pd.Series) -> Iterator[_Suspect]:
    """Missing in one segment and not in the others."""
    missing = columns.isna()
    by = missing.groupby(segment, sort=True)
    shares, sizes, overall = by.mean(), by.size(), missing.mean()
    for name in map(str, columns):
        for kind in shares.index[(shares[name] >= GONE) & (sizes >= SMALLEST)]:
            gone, rows = float(shares[name][kind]), int(sizes[kind])
            rest = (float(overall[name]) * len(columns) - gone * rows) / max(len(columns) - rows, 1)
            if rest < GONE - _APART:
                yield _Suspect(name, "missing", 0.7, gone,
                               f"missing for {gone:.0%} of segment '{shown(kind)}', {rest:.0%} of the others")


def _coded(columns: pd.DataFrame) -> Floats:
    """Columns as numbers, shape (n, k): categories by their first appearance, missing below everything."""
    made = np.empty(columns.shape)
    for place, name in enumerate(columns):
        column = columns[name]
        values = (pd.factorize(column)[0].astype(float) if column.dtype == object
                  else column.to_numpy(dtype=float, na_value=np.nan))
        made[:, place] = np.where(np.isnan(values), -np.inf, values)
    return made


def _copies(columns: pd.DataFrame) -> Iterator[_Suspect]:
    """Columns that say the same as an earlier one, up to scale and direction."""
    if len(columns) < 2 or columns.shape[1] < 2:
        return
    values = _coded(columns.iloc[np.random.default_rng(7).permutation(len(columns))[:_PAIRED]])
    ranks = _centred(values)
    alike, names, taken = np.abs(ranks.T @ ranks), list(columns), set[int]()
    for one, other in zip(*np.nonzero(np.triu(alike >= ALIKE, k=1)), strict=True):
        if other not in taken:
            equal = columns[names[one]].equals(columns[names[other]])
            if equal or _alike(values[:, one], values[:, other]):
                taken.add(int(other))
                yield _Suspect(names[other], "copy", 0.3, float(alike[one, other]),
                               f"{'equals' if equal else 'ranks everybody as'} '{names[one]}'")


def _centred(values: Floats) -> Floats:
    """Ranks per column, centred and of length 1, so that products are rank correlations."""
    ranks = rankdata(values, axis=0)
    ranks -= ranks.mean(axis=0)
    made: Floats = ranks / np.maximum(np.sqrt((ranks**2).sum(axis=0)), 1e-9)
    return made


def _alike(one: Floats, other: Floats) -> bool:
    """Whether two columns go together also where they are not at their commonest value, as most rows of a count are."""
    kept = (one != _commonest(one)) | (other != _commonest(other))
    if kept.sum() < SMALLEST:
        return bool(np.array_equal(one, other))
    ranks = _centred(np.column_stack([one[kept], other[kept]]))
    return bool(abs(ranks[:, 0] @ ranks[:, 1]) >= ALIKE)


def _commonest(values: Floats) -> float:
    found, counts = np.unique(values, return_counts=True)
    return float(found[np.argmax(counts)])


def _frozen(columns: pd.DataFrame, codes: NDArray[np.int64], cutoffs: NDArray[Any]) -> Iterator[_Suspect]:
    """Columns that never change from one cutoff to the next, for anybody."""
    order = np.lexsort((cutoffs, codes))
    follows = codes[order][1:] == codes[order][:-1]
    if follows.sum() < SMALLEST or not len(columns.columns):
        return
    values = _coded(columns)[order]
    changes = ((values[1:] != values[:-1]) & follows[:, None]).any(axis=0)
    for name in columns.columns[~changes]:
        yield _Suspect(str(name), "frozen", 0.2, float(follows.sum()),
                       f"no change in {int(follows.sum()):,} pairs of an entity's cutoffs")


def _shifted(columns: pd.DataFrame, now: pd.DataFrame, entities: int) -> Iterator[_Suspect]:
    """Columns whose values today are spread otherwise than in the past."""
    if len(now) < SMALLEST or not len(columns):
        return
    for name in (str(column) for column in columns if column in now):
        then, today = _shares(columns[name], now[name])
        psi = float(((today - then) * np.log(today / then)).sum())
        chance = float(chi2.ppf(0.999, max(len(then) - 1, 1))) * (1 / entities + 1 / len(now))
        if psi > max(SHIFT, chance):
            most = int(np.argmax(np.abs(today - then)))
            yield _Suspect(name, "shift", 0.5, psi,
                           f"its most changed tenth holds {today[most]:.0%} now, {then[most]:.0%} before")


def _shares(then: pd.Series, now: pd.Series) -> tuple[Floats, Floats]:
    """The shares of the past's tenths, and of missing, in the past and today; a half is added to each count."""
    if then.dtype == object:
        kinds = then.fillna("").astype(str).value_counts().index[:_BINS]
        cells = [kinds.get_indexer(pd.Index(column.fillna("").astype(str))) + 1 for column in (then, now)]
        size = len(kinds) + 1
    else:
        past, today = (column.to_numpy(dtype=float, na_value=np.nan) for column in (then, now))
        edges = np.unique(np.nanquantile(past, np.linspace(0, 1, _BINS + 1)[1:-1]))
        cells = [np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values, side="left"))
                 for values in (past, today)]
        size = len(edges) + 2
    counts = [np.bincount(cell, minlength=size) for cell in cells]
    used = (counts[0] + counts[1]) > 0
    shares = [(count[used] + 0.5) / (count[used] + 0.5).sum() for count in counts]
    return shares[0], shares[1]
