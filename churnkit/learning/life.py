"""How many days are left, up to a cap."""

from __future__ import annotations

from collections.abc import Mapping

import lightgbm as lgb
import numpy as np
import pandas as pd

from churnkit.errors import ModelError
from churnkit.learning.calibrate import Floats
from churnkit.learning.durations import Durations, ordered
from churnkit.learning.splits import rolling
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


class CappedLife:
    """Days left, and beyond a cap only that it is more: `CappedLife("maintenance", 30)`.

    A LightGBM regression on life up to the cap, on the rows that can be followed so far: far-out lives are noise that
    would be learnt instead of the near ones (Heimes, Recurrent neural networks for remaining useful life, 2008).
    """

    def __init__(self, name: str, cap: float, seed: int = 7) -> None:
        self.name = name
        self.cap = float(cap)
        self.seed = seed
        self.features: tuple[str, ...] = ()
        self.levels: dict[str, tuple[str, ...]] = {}
        self.rounds = 0
        self.mean = float("nan")
        self._booster: lgb.Booster | None = None

    @property
    def booster_(self) -> lgb.Booster:
        """LightGBM's own model; a ModelError until it is fitted."""
        return fitted(self._booster, f"{self.name} life is")

    @one_order()
    def fit(self, x: pd.DataFrame, spans: Durations, rounds: int | None = None) -> CappedLife:
        """Finds the iterations out of time (where `rounds` are not given), then fits on all rows that are known.

        Args:
            x: The inputs, one row per duration, in their order.
            spans: Time to event or censoring, with an edge at the cap.
            rounds: Iterations found before.

        Raises:
            ModelError: If no row can be followed to the cap, or none has the event before.
        """
        x, spans = ordered(x, spans, spans.within(self.cap)[1])
        y = np.minimum(spans.days, self.cap) / self.cap
        if not (y < 1).any():
            raise ModelError(f"{self.name}: none of {len(y)} rows that are followed to {self.cap:g} days ends before, "
                             "so there is no remaining life to learn. Give a longer history.")
        self.features, self.levels, self.mean = tuple(map(str, x.columns)), word_levels(x), float(y.mean()) * self.cap
        inputs = matrix(self.name, x, self.features, self.levels)
        for one in rolling(spans, 1) if rounds is None else ():
            before = spans.until(one.start.to_pydatetime()).within(self.cap)[1]
            if before.any():
                found = self._boost(inputs[before], y[before], MAX_ROUNDS, (inputs[one.held], y[one.held]))
                rounds = found.best_iteration
        self.rounds = rounds or DEFAULT_ROUNDS
        self._booster = self._boost(inputs, y, self.rounds)
        return self

    def predict(self, features: pd.DataFrame) -> Floats:
        """Days left, between 0 and the cap, shape (n,)."""
        inputs = matrix(self.name, features, self.features, self.levels)
        if not len(inputs):
            return np.empty(0)
        share = np.asarray(self.booster_.predict(inputs, num_threads=THREADS), dtype=float)
        return np.asarray(np.clip(share, 0, 1) * self.cap, dtype=float)

    def to_parts(self) -> dict[str, str]:
        """The estimator as two texts: life.txt (LightGBM's) and life.json (everything else)."""
        return write_parts("life", self.booster_, {
            "name": self.name, "cap": self.cap, "seed": self.seed, "rounds": self.rounds, "mean": self.mean,
            "features": list(self.features), "levels": {name: list(words) for name, words in self.levels.items()}})

    @classmethod
    def from_parts(cls, parts: Mapping[str, str]) -> CappedLife:
        """The reverse of `to_parts`; parses text and JSON, executes nothing.

        Raises:
            ModelError: If a part is missing or was written by a newer churnkit, or the two do not fit together.
        """
        with readable("life"):
            data, booster = read_parts(parts, "life")
            found = cls(data["name"], data["cap"], data["seed"])
            found.features, found.levels = data["features"], data["levels"]
            found.rounds, found.mean = data["rounds"], data["mean"]
        found._booster = booster
        return found

    def _boost(self, inputs: Floats, y: Floats, rounds: int, stop: tuple[Floats, Floats] | None = None) -> lgb.Booster:
        params = {**parameters(int((y < 1).sum()), len(y), self.seed), "objective": "regression", "metric": "l2"}
        held = {"data": stop[0], "label": stop[1]} if stop else None
        return grow(params, {"data": inputs, "label": y}, self.features, self.levels, rounds, held)
