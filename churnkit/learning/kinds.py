"""Of which kind it would be, if it comes: the component of a failure, or seats, plan or add-on of an expansion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from churnkit.errors import ModelError
from churnkit.learning.calibrate import EDGE, Floats
from churnkit.learning.resample import FEWEST
from churnkit.learning.splits import Mask
from churnkit.learning.trees import (
    DEFAULT_ROUNDS,
    MAX_ROUNDS,
    THREADS,
    fitted,
    grow,
    matrix,
    one_order,
    parameters,
    read_parts,
    readable,
    word_levels,
    write_parts,
)

UNNAMED = {"components": "failure", "kinds": "other"}
"""The kind of what names none, and of kinds that came too seldom to be learnt."""
_GIVE = {"components": "give the failures' component as `code` in asset_events.",
         "kinds": "give plan and seats in subscriptions, and name plans and addons in order in [features]."}


class Kinds:
    """The chance of each kind, given that it comes: `Kinds("maintenance", "components")`.

    A LightGBM softmax on the rows where it came. A kind's probability by a horizon is its share times the probability
    that it comes at all, so that the kinds add up to that; the shares are taken to be the same at every horizon.

    `what` is what the kinds are called, components or kinds, and the name of the files they are kept in. After `fit`:
    `words` (the kinds), `usual` (their shares among all rows), `rounds`.
    """

    def __init__(self, name: str, what: str = "kinds", seed: int = 7) -> None:
        self.name = name
        self.what = what
        self.unnamed = UNNAMED[what]
        self.seed = seed
        self.words: tuple[str, ...] = ()
        self.usual: Floats = np.empty(0)
        self.features: tuple[str, ...] = ()
        self.levels: dict[str, tuple[str, ...]] = {}
        self.rounds = 0
        self._booster: lgb.Booster | None = None

    @property
    def booster_(self) -> lgb.Booster:
        """LightGBM's own model; a ModelError until it is fitted."""
        return fitted(self._booster, f"{self.name} {self.what} are")

    @one_order()
    def fit(self, x: pd.DataFrame, kinds: NDArray[np.object_], spans: Iterable[tuple[Mask, Mask]] = (),
            rounds: int | None = None) -> Kinds:
        """Finds the iterations out of time (where `rounds` are not given), then fits on all rows.

        Args:
            x: The inputs of the rows where it came, in an order that does not depend on how they were given.
            kinds: What each was, or None where nothing tells, shape (n,).
            spans: Rows that were known before a moment, and rows from then on, on which it is seen when to stop.
            rounds: Iterations found before.

        Raises:
            ModelError: If fewer than two kinds came often enough.
        """
        counts = pd.Series(kinds, dtype=object).value_counts()
        named = sorted(word for word in counts.index if word != self.unnamed and counts[word] >= FEWEST)
        if len(named) < 2:
            raise ModelError(f"{self.name}: fewer than two {self.what} came {FEWEST} times or more "
                             f"({', '.join(named) or 'none'}), so there are none to tell apart. If there are more: "
                             f"{_GIVE[self.what]}")
        self.words = tuple(named) if counts[named].sum() == len(kinds) else (*named, self.unnamed)
        y = self.codes(kinds)
        self.usual = np.bincount(y, minlength=len(self.words)) / len(y)
        self.features, self.levels = tuple(map(str, x.columns)), word_levels(x)
        inputs = matrix(self.name, x, self.features, self.levels)
        for before, held in spans if rounds is None else ():
            if before.any() and held.any():
                rounds = self._boost(inputs[before], y[before], MAX_ROUNDS, (inputs[held], y[held])).best_iteration
        self.rounds = rounds or DEFAULT_ROUNDS
        self._booster = self._boost(inputs, y, self.rounds)
        return self

    def codes(self, kinds: NDArray[np.object_]) -> NDArray[np.int64]:
        """Each row's kind as its place in `words`; what is not among them is unnamed, or -1 without such."""
        places = {word: place for place, word in enumerate(self.words)}
        other = places.get(self.unnamed, -1)
        return np.array([places.get(kind, other) for kind in kinds], dtype=np.int64)

    def shares(self, features: pd.DataFrame) -> Floats:
        """The chance of each kind, given that it comes, shape (n, C); a row's sum is 1."""
        inputs = matrix(self.name, features, self.features, self.levels)
        if not len(inputs):
            return np.empty((0, len(self.words)))
        return np.asarray(self.booster_.predict(inputs, num_threads=THREADS), dtype=float)

    def losses(self, features: pd.DataFrame, codes: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Log loss of each row by its own shares and by the usual ones, shape (n,) each; `codes` are all from 0."""
        own = self.shares(features)[np.arange(len(codes)), codes]
        return -np.log(np.clip(own, EDGE, 1)), -np.log(np.clip(self.usual[codes], EDGE, 1))

    def to_parts(self) -> dict[str, str]:
        """Two texts, named as what they tell: such as components.txt (LightGBM's) and components.json (the rest)."""
        return write_parts(self.what, self.booster_, {
            "name": self.name, "seed": self.seed, "rounds": self.rounds, "words": list(self.words),
            "usual": self.usual.tolist(), "features": list(self.features),
            "levels": {name: list(words) for name, words in self.levels.items()}})

    @classmethod
    def from_parts(cls, parts: Mapping[str, str], what: str = "kinds") -> Kinds:
        """The reverse of `to_parts`; parses text and JSON, executes nothing.

        Raises:
            ModelError: If a part is missing or was written by a newer churnkit, or the two do not fit together.
        """
        with readable(what):
            data, booster = read_parts(parts, what)
            found = cls(data["name"], what, data["seed"])
            found.words, found.usual = tuple(data["words"]), np.array(data["usual"], dtype=float)
            found.features, found.levels, found.rounds = data["features"], data["levels"], data["rounds"]
        found._booster = booster
        return found

    def _boost(self, inputs: Floats, y: NDArray[np.int64], rounds: int,
               stop: tuple[Floats, NDArray[np.int64]] | None = None) -> lgb.Booster:
        params: dict[str, Any] = {**parameters(len(y) // len(self.words), len(y), self.seed), "objective": "multiclass",
                                  "num_class": len(self.words), "metric": "multi_logloss"}
        held = {"data": stop[0], "label": stop[1]} if stop else None
        return grow(params, {"data": inputs, "label": y}, self.features, self.levels, rounds, held)
