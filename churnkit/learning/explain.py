"""From SHAP values to reasons that a person can read: a few per entity, in words, of different kinds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from churnkit.learning.calibrate import Floats
from churnkit.learning.families import Families, clearness, family
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
GAP = 0.05
"""Below that gap (log-odds) between a score and its base, points are told by the slope over as much either way."""


@dataclass(frozen=True, eq=False)
class Shap:
    """SHAP values of n rows and k inputs, in log-odds: names (k), contributions (n, k), raw scores (n), and the
    calibration from raw scores to probabilities.
    """

    names: tuple[str, ...]
    contributions: Floats
    raw: Floats
    probability: Callable[[Floats], Floats]

    @property
    def base(self) -> Floats:
        """The raw score that the contributions start from, shape (n,)."""
        return np.asarray(self.raw - self.contributions.sum(axis=1))


@dataclass(frozen=True)
class About:
    """What the words need to know of a feature."""

    name: str
    family: str
    clear: float
    mutable: bool
    compare: str | None
    group: str
    phrase: Callable[[Any, Any], str]


def reasons(
    target: Target, features: pd.DataFrame, shap: Shap, top: int, catalog: Catalog | None = None
) -> pd.DataFrame:
    """Up to `top` reasons per row: `schemas.REASONS`.

    A family (one signal over several windows, or a signal and what it is compared with) is one reason: its
    contributions are added, and the feature that says it most clearly is named. What people can change is preferred
    and comes first; where anything works the other way, the last place is its own.

    Args:
        target: Whose reasons these are.
        features: The points and features, n rows.
        shap: The same rows' contributions.
        top: How many reasons a row may have.
        catalog: The feature store's, for the words.
    """
    about, contributions = about_features(shap.names, catalog), shap.contributions
    if features.empty or not about or top < 1:
        return pd.DataFrame(columns=list(REASONS))
    families = Families([one.family for one in about])
    added = families.added(contributions)
    spoken = families.spoken(contributions, added, np.array([one.clear for one in about]))
    row, rank, place = _chosen(added, np.array([one.mutable for one in about])[spoken], top)
    given, feature = added[row, place], spoken[row, place]
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
        "contribution": given, "points": given * per_log_odds(shap)[row],
        "direction": np.where(given > 0, "raises", "lowers"),
        "phrase": [one.phrase(mine, other) for one, mine, other in zip(picked, value, partner, strict=True)],
        "mutable": [one.mutable for one in picked], "changed": "",
        "group": [one.group for one in picked],
    })
    return found[list(REASONS)]


def per_log_odds(shap: Shap) -> Floats:
    """What one unit of log-odds is worth in points of probability, row by row, shape (n,), so that the points of all
    families add up to 100 x (p - base): (p - base) / (raw - raw base), where base is the probability of the raw base.

    Where that gap is small, what speaks for and against cancels out, and it is the calibration's slope between the two:
    a step of an isotonic map right there must not tell every reason a hundredfold.

    >>> half = Shap(("a",), np.array([[2.0]]), np.array([1.0]), lambda raw: np.clip(0.5 + raw / 10, 0, 1))
    >>> per_log_odds(half).round(6).tolist()
    [10.0]
    """
    base = shap.base
    gap = shap.raw - base
    near = np.abs(gap) < GAP
    middle = base + gap / 2
    slope = (shap.probability(middle + GAP) - shap.probability(middle - GAP)) / (2 * GAP)
    ratio = (shap.probability(shap.raw) - shap.probability(base)) / np.where(near, 1.0, gap)
    return np.asarray(100 * np.where(near, slope, ratio))


def effect(points: float, probability: float, target: str = "churn") -> str:
    """Points in words, beside the probability that they are part of; what is hoped for is a chance, else it is a risk.

    >>> effect(12.3, 0.41), effect(-0.2, 0.41, "expansion")
    ('adds about 12 points to a risk of 41%', 'takes under 1 point off a chance of 41%')
    """
    joint, what = "" if points <= 0 else "to ", "chance" if target == "expansion" else "risk"
    return f"{in_points(points)} {joint}a {what} of {probability:.0%}"


def in_points(points: float) -> str:
    """Points in words.

    >>> in_points(12.3), in_points(0.9), in_points(-3.4)
    ('adds about 12 points', 'adds about 1 point', 'takes about 3 points off')
    """
    size = abs(round(points))
    about = f"about {size} point{'s' if size > 1 else ''}" if size else "under 1 point"
    return f"adds {about}" if points > 0 else f"takes {about} off"


def _chosen(
    added: Floats, mutable: np.ndarray[Any, np.dtype[np.bool_]], top: int
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Row, rank (from 1) and family of each reason told, ordered by row and rank.

    Args:
        added: The families' contributions, shape (n, families).
        mutable: Whether people can change what speaks for each, shape (n, families).
        top: How many reasons a row may have.
    """
    size = np.where(np.abs(added) >= SMALL, np.abs(added) * np.where(mutable, 1.0, FIXED), 0.0)
    top = min(top, added.shape[1])
    first = np.argsort(-size, axis=1, kind="stable")[:, :top]
    sign = np.sign(np.take_along_axis(added, first, axis=1)) * (np.take_along_axis(size, first, axis=1) > 0)
    if top > 1:  # one place for the strongest that works the other way
        for direction in (1, -1):
            lonely = ~(sign == -direction).any(axis=1) & (sign == direction).all(axis=1)
            other = np.where(np.sign(added) == -direction, size, 0.0)
            best = other.argmax(axis=1)
            swap = lonely & (other[np.arange(len(other)), best] > 0)
            first[swap, -1] = best[swap]
    score = np.take_along_axis(size, first, axis=1)
    given = np.take_along_axis(added, first, axis=1)
    rows = np.repeat(np.arange(len(first)), first.shape[1])
    flat = pd.DataFrame({"row": rows, "family": first.ravel(), "score": score.ravel(), "lowers": (given < 0).ravel(),
                         "fixed": ~np.take_along_axis(mutable, first, axis=1).ravel()})
    flat = flat[flat["score"] > 0].sort_values(["row", "lowers", "fixed", "score"], ascending=[True, True, True, False],
                                               kind="stable")
    return flat["row"].to_numpy(), flat.groupby("row").cumcount().to_numpy() + 1, flat["family"].to_numpy()


def about_features(names: tuple[str, ...], catalog: Catalog | None) -> list[About]:
    """What the feature definitions say of each feature; one they do not know is told plainly."""
    catalog = catalog or Catalog()
    known = {one.name: one for group in groups(catalog).values() for one in group.features}
    compared = {one.compare for one in known.values()}
    about = []
    for name in names:
        one, clear = known.get(name), clearness(known.get(name), name in compared)
        if one is None:
            about.append(About(name, family(name), clear, False, None, "", _plain(name)))
        else:
            about.append(About(name, family(name, one), clear, one.mutable, one.compare,
                               one.group, _told(one, catalog.currency)))
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
