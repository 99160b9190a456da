"""How much an expansion would bring a month, if it comes: the second half of a hurdle, whose first is the model."""

from __future__ import annotations

from collections.abc import Mapping

import lightgbm as lgb
import numpy as np
import pandas as pd

from churnkit.errors import ModelError
from churnkit.learning.calibrate import Floats
from churnkit.learning.resample import FEWEST
from churnkit.learning.splits import Mask, TrainingSet, rolling
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

POWER = 1.5
"""Of the Tweedie variance: between counting every euro alike (1) and every per cent alike (2); a gain may be zero."""
PRIOR = 20
"""The expansion share of the settings counts as much as this many observed expansions."""
MOST = 3.0
"""A gain counts as so many times the MRR at most in the usual share: a few that grew out of nothing must not set it."""
SHARE = 1 / 2
"""The part of the time on which it is seen when to stop: expansions are few."""
_OUTER = 0.01
_EDGE = 0.01  # of the currency: the logarithm of an amount needs one


class Gains:
    """The MRR that an expansion is expected to gain, given that it comes: `Gains("expansion")`.

    One Tweedie model on all rows, most of which gain nothing, loses more than probability x gain (mean deviance 40.9
    against 21.4 on crm6) or as much (21.4 against 21.2 on the simulated book): `benchmarks/offers.py`.

    LightGBM with Tweedie loss and a logarithmic link, on the expansions alone. It starts from the account's MRR times
    the usual share (then the trees learn the share), or from one amount for all (then they learn the amount): what
    loses less out of time is taken. The sum over the rows that it learnt from is that of the gains (the balance that a
    linear model would have by itself; Denuit, Charpentier and Trufin, Autocalibration and Tweedie-dominance for
    insurance pricing with machine learning, 2021). Before that it is kept within the shares of MRR that were seen, but
    for the outermost 1% at either end, so that no odd row is told an absurd gain.

    After `fit`: `share` (the usual one of MRR), `by_share` (whether it starts from the MRR), `amount` (where it starts
    otherwise), `bounds` (shares of MRR), `least` (an MRR below counts as this), `level`, `rounds`.
    """

    def __init__(self, name: str, seed: int = 7) -> None:
        self.name = name
        self.seed = seed
        self.features: tuple[str, ...] = ()
        self.levels: dict[str, tuple[str, ...]] = {}
        self.share = self.amount = self.least = float("nan")
        self.bounds = (0.0, MOST)
        self.by_share = True
        self.level = 1.0
        self.rounds = 0
        self._booster: lgb.Booster | None = None

    @property
    def booster_(self) -> lgb.Booster:
        """LightGBM's own model; a ModelError until it is fitted."""
        return fitted(self._booster, f"{self.name} gains are")

    @one_order()
    def fit(self, rows: TrainingSet, prior: float, found: Gains | None = None) -> Gains:
        """Finds form and iterations out of time (or takes those `found` before), then fits on all expansions.

        Args:
            rows: Labelled rows; those that expanded, with a known gain and MRR, are learnt from.
            prior: The usual share of MRR where nothing was seen; it counts as `PRIOR` expansions.
            found: A fit whose form and iterations are taken.

        Raises:
            ModelError: If there are too few such rows.
        """
        rows = rows.take(gained(rows))
        if len(rows) < FEWEST:
            raise ModelError(f"{self.name}: {len(rows)} expansions have a known gain, and {FEWEST} are needed to learn "
                             "how much they bring. Give mrr in subscriptions, or a longer history.")
        y, paid = rows.keys["value"].to_numpy(dtype=float), rows.X["mrr"].to_numpy(dtype=float)
        weights = rows.weights.to_numpy(dtype=float)
        self.features, self.levels = tuple(map(str, rows.X.columns)), word_levels(rows.X)
        self.share, self.amount = usual_share(y, paid, prior), max(float(np.average(y, weights=weights)), _EDGE)
        self.least = float(np.quantile(paid[paid > 0], _OUTER)) if (paid > 0).any() else 1.0
        lowest, highest = np.quantile(y / self._mrr(rows.X), [_OUTER, 1 - _OUTER])
        self.bounds = float(lowest), float(highest)
        inputs = matrix(self.name, rows.X, self.features, self.levels)
        self.by_share, self.rounds = (found.by_share, found.rounds) if found else self._form(rows, inputs, y)
        start = self._start(rows.X, self.by_share)
        self._booster = self._boost({"data": inputs, "label": y, "weight": weights, "init_score": start}, self.rounds)
        self.level = 1.0
        self.level = float(np.average(y, weights=weights) / np.average(self.predict(rows.X), weights=weights))
        return self

    def predict(self, features: pd.DataFrame) -> Floats:
        """What each would gain a month if it expanded, shape (n,); NaN where its MRR is not known."""
        inputs = matrix(self.name, features, self.features, self.levels)
        if not len(inputs):
            return np.empty(0)
        raw = np.asarray(self.booster_.predict(inputs, raw_score=True, num_threads=THREADS), dtype=float)
        paid = self._mrr(features)
        told = np.exp(raw + self._start(features, self.by_share))
        return np.asarray(np.clip(told, self.bounds[0] * paid, self.bounds[1] * paid) * self.level, dtype=float)

    def usual(self, features: pd.DataFrame) -> Floats:
        """The same by the usual share of MRR alone, shape (n,)."""
        return self.share * self._mrr(features)

    def to_parts(self) -> dict[str, str]:
        """Two texts: gains.txt (LightGBM's) and gains.json (everything else)."""
        return write_parts("gains", self.booster_, {
            "name": self.name, "seed": self.seed, "rounds": self.rounds, "share": self.share, "amount": self.amount,
            "least": self.least, "bounds": list(self.bounds), "by_share": self.by_share, "level": self.level,
            "features": list(self.features), "levels": {name: list(words) for name, words in self.levels.items()}})

    @classmethod
    def from_parts(cls, parts: Mapping[str, str]) -> Gains:
        """The reverse of `to_parts`; parses text and JSON, executes nothing.

        Raises:
            ModelError: If a part is missing or was written by a newer churnkit, or the two do not fit together.
        """
        with readable("gains"):
            data, booster = read_parts(parts, "gains")
            found = cls(data["name"], data["seed"])
            found.features, found.levels, found.rounds = data["features"], data["levels"], data["rounds"]
            found.share, found.amount, found.least = data["share"], data["amount"], data["least"]
            found.by_share, found.level = data["by_share"], data["level"]
            found.bounds = float(data["bounds"][0]), float(data["bounds"][1])
        found._booster = booster
        return found

    def _form(self, rows: TrainingSet, inputs: Floats, y: Floats) -> tuple[bool, int]:
        """Whether to start from the MRR, and the iterations, by the loss on the later half of the time."""
        losses: dict[float, tuple[bool, int]] = {}
        weights = rows.weights.to_numpy(dtype=float)
        for one in rolling(rows, 1, SHARE):
            if one.closed.sum() < FEWEST or one.held.sum() < FEWEST:
                continue
            for by_share in (False, True):  # of equal losses the share's stands
                start = self._start(rows.X, by_share)
                fitted, held = ({"data": inputs[some], "label": y[some], "weight": weights[some],
                                 "init_score": start[some]} for some in (one.closed, one.held))
                booster = self._boost(fitted, MAX_ROUNDS, held)
                losses[booster.best_score["valid_0"]["tweedie"]] = by_share, booster.best_iteration
        return losses[min(losses)] if losses else (True, DEFAULT_ROUNDS)

    def _mrr(self, features: pd.DataFrame) -> Floats:
        """Each row's MRR, at least the least; NaN stays."""
        paid = matrix(self.name, features, ["mrr"], {})[:, 0]
        return np.asarray(np.maximum(paid, self.least), dtype=float)

    def _start(self, features: pd.DataFrame, by_share: bool) -> Floats:
        """The logarithm of what the trees start from, shape (n,)."""
        if not by_share:
            return np.full(len(features), np.log(self.amount))
        return np.asarray(np.log(np.maximum(self.usual(features), _EDGE)), dtype=float)

    def _boost(self, rows: Mapping[str, Floats], rounds: int, stop: Mapping[str, Floats] | None = None) -> lgb.Booster:
        params = {**parameters(len(rows["label"]), len(rows["label"]), self.seed), "objective": "tweedie",
                  "metric": "tweedie", "tweedie_variance_power": POWER}
        return grow(params, rows, self.features, self.levels, rounds, stop)


def gained(rows: TrainingSet) -> Mask:
    """Which rows expanded with a known gain and a known MRR."""
    paid = rows.X["mrr"] if "mrr" in rows.X else pd.Series(np.nan, rows.X.index)
    found: Mask = ((rows.y == 1) & rows.keys["value"].notna() & paid.notna()).to_numpy()
    return found


def usual_share(gains: Floats, mrr: Floats, prior: float) -> float:
    """The mean gain as a share of MRR, drawn to a prior that counts as `PRIOR` expansions.

    >>> usual_share(np.array([100.0]), np.array([100.0]), 0.3) == (1 + 20 * 0.3) / 21
    True
    """
    shares = np.minimum(gains[mrr > 0] / mrr[mrr > 0], MOST)
    return float((shares.sum() + PRIOR * prior) / (len(shares) + PRIOR))


def deviance(gains: Floats, told: Floats) -> Floats:
    """Tweedie deviance of power 1.5 of each row, shape (n,): 4 (sqrt(y) - sqrt(m))^2 / sqrt(m); least for the mean.

    >>> deviance(np.array([100.0]), np.array([400.0])).tolist()
    [20.0]
    """
    root = np.sqrt(np.maximum(told, _EDGE))
    return np.asarray(4 * (np.sqrt(gains) - root) ** 2 / root, dtype=float)
