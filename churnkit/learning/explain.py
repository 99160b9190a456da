"""From SHAP values to reasons that a person can read: a few per entity, in words, of different kinds."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from churnkit.learning.calibrate import Floats
from churnkit.learning.targets import Target
from churnkit.schemas import REASONS
from churnkit.signals.catalog import Catalog
from churnkit.signals.features import groups
from churnkit.signals.groups import Feature
from churnkit.signals.words import sentence

SMALL = 0.02
"""A contribution below this (log-odds) is no reason."""
FIXED = 0.5
"""What nobody can change counts this much when the few places for reasons are given out."""


@dataclass(frozen=True, eq=False)
class Shap:
    """SHAP values of n rows and k inputs, in log-odds: names (k), contributions (n, k), raw scores (n), and the
    calibration
    from raw scores to probabilities.
    """

    names: tuple[str, ...]
    contributions: Floats
    raw: Floats
    probability: Callable[[Floats], Floats]


@dataclass(frozen=True)
class About:
    """What the words need to know of a feature."""

    name: str
    family: str
    mutable: bool
    compare: str | None
    phrase: Callable[[Any, Any], str]


def reasons(
    target: Target, features: pd.DataFrame, shap: Shap, top: int, catalog: Catalog | None = None
) -> pd.DataFrame:
    """Up to `top` reasons per row: `schemas.REASONS`.

    Of a family (one signal over several windows, or a signal and what it is compared with) only the strongest is
    told. What people can change is preferred and comes first; where anything works the other way, the last place is
    its own.

    Args:
        target: Whose reasons these are.
        features: The points and features, n rows.
        shap: The same rows' contributions.
        top: How many reasons a row may have.
        catalog: The feature store's, for the words.
    """
    about, contributions = _about(shap.names, catalog), shap.contributions
    if features.empty or not about or top < 1:
        return pd.DataFrame(columns=list(REASONS))
    strongest = _strongest(contributions, [one.family for one in about])
    row, rank, feature = _chosen(contributions, strongest, np.array([one.mutable for one in about]), top)
    given = contributions[row, feature]
    points = 100 * (shap.probability(shap.raw[row]) - shap.probability(shap.raw[row] - given))
    values = {one.name: features[one.name].to_numpy(dtype=object) for one in about}
    compared = {one.compare: features[one.compare].to_numpy(dtype=object)
                for one in about if one.compare is not None and one.compare in features}
    picked = [about[place] for place in feature]
    value = [values[one.name][at] for one, at in zip(picked, row, strict=True)]
    partner = [
        compared[one.compare][at] if one.compare in compared else None for one, at in zip(picked, row, strict=True)
    ]
    found = pd.DataFrame({
        "entity_id": features["entity_id"].to_numpy()[row], "cutoff": features["cutoff"].array.take(row),
        "target": target.name, "rank": rank, "feature": [one.name for one in picked],
        "value": [_text(one) for one in value], "compared_with": [_text(one) for one in partner],
        "contribution": given, "points": points, "direction": np.where(given > 0, "raises", "lowers"),
        "phrase": [one.phrase(mine, other) for one, mine, other in zip(picked, value, partner, strict=True)],
        "mutable": [one.mutable for one in picked],
    })
    return found[list(REASONS)]


def family(name: str, compare: str | None = None) -> str:
    """The signal that a feature is about, whatever its window.

    >>> family("events_7d") == family("events_84d") == family("events_28d_change")
    True
    >>> family("events_28d") == family("events_vs_usual_28d"), family("nps_last") == family("nps_change")
    (True, True)
    """
    own = re.sub(r"_(?:\d+[dh])(?=_|$)", "", name)
    own = re.sub(r"_(?:change|trend|ratio|before|last|detractor|vs_usual|usual)(?=_|$)", "", own)
    return own or compare or name


def _strongest(contributions: Floats, families: list[str]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """True where a feature's contribution is the largest of its family in that row, shape (n, k)."""
    keep = np.ones(contributions.shape, dtype=bool)
    size = np.abs(contributions)
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(families):
        groups.setdefault(name, []).append(place)
    for places in groups.values():
        if len(places) > 1:
            best = size[:, places].argmax(axis=1)
            keep[:, places] = best[:, None] == np.arange(len(places))[None, :]
    return keep


def _chosen(
    contributions: Floats,
    allowed: np.ndarray[Any, np.dtype[np.bool_]],
    mutable: np.ndarray[Any, np.dtype[np.bool_]],
    top: int,
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Row, rank (from 1) and feature of each reason told, ordered by row and rank."""
    size = np.where(
        allowed & (np.abs(contributions) >= SMALL), np.abs(contributions) * np.where(mutable, 1.0, FIXED), 0.0
    )
    top = min(top, contributions.shape[1])
    order = np.argsort(-size, axis=1, kind="stable")
    first = order[:, :top]
    sign = np.sign(np.take_along_axis(contributions, first, axis=1)) * (np.take_along_axis(size, first, axis=1) > 0)
    if top > 1:  # one place for the strongest that works the other way
        for direction in (1, -1):
            lonely = ~(sign == -direction).any(axis=1) & (sign == direction).all(axis=1)
            other = np.where(np.sign(contributions) == -direction, size, 0.0)
            best = other.argmax(axis=1)
            swap = lonely & (other[np.arange(len(other)), best] > 0)
            first[swap, -1] = best[swap]
    score = np.take_along_axis(size, first, axis=1)
    given = np.take_along_axis(contributions, first, axis=1)
    rows = np.repeat(np.arange(len(first)), first.shape[1])
    flat = pd.DataFrame({"row": rows, "feature": first.ravel(), "score": score.ravel(), "lowers": (given < 0).ravel(),
                         "fixed": ~mutable[first].ravel()})
    flat = flat[flat["score"] > 0].sort_values(["row", "lowers", "fixed", "score"], ascending=[True, True, True, False],
                                               kind="stable")
    return flat["row"].to_numpy(), flat.groupby("row").cumcount().to_numpy() + 1, flat["feature"].to_numpy()


def _about(names: tuple[str, ...], catalog: Catalog | None) -> list[About]:
    """What the feature definitions say of each feature; one they do not know is told plainly."""
    catalog = catalog or Catalog()
    known = {one.name: one for group in groups(catalog).values() for one in group.features}
    about = []
    for name in names:
        one = known.get(name)
        if one is None:
            about.append(About(name, family(name), False, None, _plain(name)))
        else:
            about.append(About(name, family(name, one.compare), one.mutable, one.compare, _told(one, catalog.currency)))
    return about


def _plain(name: str) -> Callable[[Any, Any], str]:
    return lambda value, _: f"{name.replace('_', ' ')}: {_text(value) or 'not known'}"


def _told(feature: Feature, currency: str) -> Callable[[Any, Any], str]:
    return lambda value, compared: sentence(feature, value, compared, currency)


def _text(value: Any) -> str | None:
    """A value as short text; blank is None."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return None
    return f"{value:.6g}" if isinstance(value, (float, np.floating)) else str(value)
