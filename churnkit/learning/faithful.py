"""Whether reasons are true to the model: masked, the score moves to its base; under small noise, they stay the same."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from churnkit.errors import ModelError
from churnkit.learning.calibrate import Floats
from churnkit.learning.explain import about_features
from churnkit.learning.families import Families
from churnkit.learning.model import Model
from churnkit.signals.catalog import Catalog

Mask = NDArray[np.bool_]
FAR = 0.5
"""Scores nearer to the base than this (log-odds) have little to explain: what speaks for and against holds the scales.
"""
DRAWS = 5
"""Random maskings that the named one is held against."""


@dataclass(frozen=True)
class Rates:
    """Over `rows` rows: the shares whose score moves towards the base when the named reasons are masked, ends nearer to
    it (and not as far beyond), and moves further that way than with as many random ones; how far it moves either way
    (mean, log-odds); and the share whose first reason stays the first under small noise.
    """

    rows: int
    towards: float
    nearer: float
    more_than_random: float
    moved: float
    moved_by_random: float
    stable: float

    def says(self) -> str:
        """The rates in one sentence."""
        return (f"masking the named reasons moves {self.towards:.1%} of {self.rows} scores towards the base rate, by "
                f"{self.moved:.2f} log-odds on average, as many random ones by {self.moved_by_random:.2f}; the first "
                f"reason stays the first for {self.stable:.1%} under small noise")

    def to_dict(self) -> dict[str, float]:
        """Plain values."""
        return asdict(self)


def rates(model: Model, features: pd.DataFrame, catalog: Catalog | None = None, *, top: int = 3, noise: float = 0.05,
          seed: int = 7) -> Rates:
    """How faithful and how stable a model's reasons are on these rows.

    Masked are all features of a named family, by the value that they are compared with: the rows' median, or their
    commonest word. Of a row's reasons those count that push its score away from the base.

    Args:
        model: A fitted model.
        features: Points and features, one row per entity and cutoff.
        catalog: The feature store's.
        top: How many reasons are named.
        noise: As a share of each number, a standard deviation; words, zeros and what is missing stay.
        seed: Of the random maskings and the noise.

    Raises:
        ModelError: If no row lies FAR from the base; says so.
    """
    dice = np.random.default_rng(seed)
    families = Families([one.family for one in about_features(model.features, catalog)])
    contributions, base = model.contributions(features)
    gap = model.raw(features) - base
    far = np.abs(gap) >= FAR
    if not far.any():
        raise ModelError("No score lies away from the base rate, so there is nothing to explain. Give other rows.")
    rows, gap = features[far].reset_index(drop=True), gap[far]
    added = families.added(contributions[far])
    named = _named(model, rows, families, np.sign(gap), catalog, top)

    def moved(masked: Mask) -> Floats:
        left = model.raw(mask(rows, model.features, masked[:, families.of])) - base[far]
        return np.asarray(np.sign(gap) * (gap - left))

    by_name = moved(named)
    by_chance = np.mean([moved(_shuffled(named, dice)) for _ in range(DRAWS)], axis=0)
    again, _ = model.contributions(_noisy(rows, model.features, noise, dice))
    stable = _first(added) == _first(families.added(again))
    nearer = (by_name > 0) & (by_name < 2 * np.abs(gap))
    shares = (by_name > 0, nearer, by_name > by_chance, by_name, by_chance, stable)
    return Rates(len(rows), *(float(one.mean()) for one in shares))


def mask(features: pd.DataFrame, names: tuple[str, ...], masked: Mask) -> pd.DataFrame:
    """The features with the masked cells (n, k of `names`) set to the median, or to the commonest word, of all rows.

    >>> frame = pd.DataFrame({"a": [1.0, 2.0, 9.0], "b": ["x", "x", "y"]})
    >>> mask(frame, ("a", "b"), np.array([[True, False], [False, False], [True, True]])).to_dict("list")
    {'a': [2.0, 2.0, 2.0], 'b': ['x', 'x', 'x']}
    """
    new = {}
    for name, hidden in zip(names, masked.T, strict=True):
        known = features[name].dropna()
        number = pd.api.types.is_numeric_dtype(known) and len(known)
        usual = known.median() if number else next(iter(known.mode()), np.nan)
        new[name] = features[name].mask(hidden, usual)
    return features.assign(**new)


def _named(model: Model, rows: pd.DataFrame, families: Families, away: Floats, catalog: Catalog | None,
           top: int) -> Mask:
    """Which families each row's reasons name that push its score away from the base, shape (n, families)."""
    index = pd.MultiIndex.from_frame(rows[["entity_id", "cutoff"]])
    why = model.explain(rows, top=top, catalog=catalog)
    row = index.get_indexer(pd.MultiIndex.from_frame(why[["entity_id", "cutoff"]]))
    place = families.of[pd.Index(model.features).get_indexer(pd.Index(why["feature"]))]
    found = np.zeros((len(rows), len(families)), dtype=bool)
    found[row, place] = np.sign(why["contribution"].to_numpy(dtype=float)) == away[row]
    return found


def _shuffled(named: Mask, dice: np.random.Generator) -> Mask:
    """As many families per row, drawn at random."""
    order = dice.random(named.shape).argsort(axis=1).argsort(axis=1)
    return np.asarray(order < named.sum(axis=1, keepdims=True))


def _noisy(rows: pd.DataFrame, names: tuple[str, ...], noise: float, dice: np.random.Generator) -> pd.DataFrame:
    numbers = [name for name in names if pd.api.types.is_numeric_dtype(rows[name])]
    return rows.assign(**(rows[numbers] * (1 + noise * dice.normal(size=(len(rows), len(numbers))))))


def _first(added: Floats) -> NDArray[np.intp]:
    """The strongest family of each row, with its direction, as one number."""
    best = np.abs(added).argmax(axis=1)
    return np.asarray(2 * best + (added[np.arange(len(added)), best] > 0), dtype=np.intp)
