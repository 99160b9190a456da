"""What maintenance asks beyond when: which component would fail, and how many days are left; each judged on its own."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd

from churnkit.errors import ModelError
from churnkit.learning.calibrate import EDGE, Floats
from churnkit.learning.durations import Durations, Mask, ordered
from churnkit.learning.estimators import SHARE, CappedLife
from churnkit.learning.resample import FEWEST, LEVEL, draws
from churnkit.learning.splits import rolling
from churnkit.learning.survival import ratios
from churnkit.learning.trees import (
    DEFAULT_ROUNDS,
    MAX_ROUNDS,
    THREADS,
    grow,
    matrix,
    one_order,
    parameters,
    read_parts,
    readable,
    word_levels,
    write_parts,
)
from churnkit.schemas import COMPONENTS, LIVES

UNNAMED = "failure"
"""The component of failures that name none, and of those whose component failed too seldom to be learnt."""
RESAMPLES = 500


class Components:
    """Which component a failure would be of, if it comes: `Components("maintenance")`.

    A LightGBM softmax on the rows that failed. A component's probability by a horizon is its share times the curve's,
    so that the components add up to the curve; the shares are taken to be the same at every horizon.

    After `fit`: `words` (the components), `usual` (their shares among all failures), `rounds`.
    """

    def __init__(self, name: str, seed: int = 7) -> None:
        self.name = name
        self.seed = seed
        self.words: tuple[str, ...] = ()
        self.usual: Floats = np.empty(0)
        self.features: tuple[str, ...] = ()
        self.levels: dict[str, tuple[str, ...]] = {}
        self.rounds = 0
        self._booster: lgb.Booster | None = None

    @property
    def booster_(self) -> lgb.Booster:
        """LightGBM's own model.

        Raises:
            ModelError: If it was not fitted yet.
        """
        if self._booster is None:
            raise ModelError(f"The {self.name} components are not fitted. Call fit(features, durations) first.")
        return self._booster

    @one_order()
    def fit(self, x: pd.DataFrame, spans: Durations, rounds: int | None = None) -> Components:
        """Finds the iterations out of time (where `rounds` are not given), then fits on all failures.

        Raises:
            ModelError: If fewer than two components have failed often enough.
        """
        x, spans = ordered(x, spans, spans.event)
        counts = pd.Series(spans.kind, dtype=object).value_counts()
        named = sorted(word for word in counts.index if word != UNNAMED and counts[word] >= FEWEST)
        if len(named) < 2:
            raise ModelError(f"{self.name}: {len(named)} components have {FEWEST} failures or more, so there are none "
                             "to tell apart. Give the failures' component as `code` in asset_events.")
        self.words = tuple(named) if counts[named].sum() == len(spans) else (*named, UNNAMED)
        y = self.codes(spans)
        self.usual = np.bincount(y, minlength=len(self.words)) / len(y)
        self.features, self.levels = tuple(map(str, x.columns)), word_levels(x)
        inputs = matrix(self.name, x, self.features, self.levels)
        for one in rolling(spans, 1, SHARE) if rounds is None else ():
            before, held = spans.until(one.start.to_pydatetime()).event, one.held
            if before.any() and held.any():
                rounds = self._boost(inputs[before], y[before], MAX_ROUNDS, (inputs[held], y[held])).best_iteration
        self.rounds = rounds or DEFAULT_ROUNDS
        self._booster = self._boost(inputs, y, self.rounds)
        return self

    def codes(self, spans: Durations) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Each row's component as its place in `words`; what is not among them is unnamed, or -1 without such."""
        places = {word: place for place, word in enumerate(self.words)}
        other = places.get(UNNAMED, -1)
        return np.array([places.get(kind, other) for kind in spans.kind], dtype=np.int64)

    def shares(self, features: pd.DataFrame) -> Floats:
        """The chance of each component, given that one fails, shape (n, C); a row's sum is 1."""
        inputs = matrix(self.name, features, self.features, self.levels)
        if not len(inputs):
            return np.empty((0, len(self.words)))
        return np.asarray(self.booster_.predict(inputs, num_threads=THREADS), dtype=float)

    def predict(self, features: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
        """The probability by component at each horizon of the curves of the same rows: `schemas.COMPONENTS`."""
        many = len(curves) // max(len(features), 1)
        shares = np.repeat(self.shares(features), many, axis=0)
        rows = np.repeat(np.arange(len(curves)), len(self.words))
        found = curves.iloc[rows].reset_index(drop=True).assign(component=list(self.words) * len(curves))
        return found.assign(probability=found["probability"].to_numpy() * shares.ravel())[list(COMPONENTS)]

    def to_parts(self) -> dict[str, str]:
        """Two texts: components.txt (LightGBM's) and components.json (everything else)."""
        return write_parts("components", self.booster_, {
            "name": self.name, "seed": self.seed, "rounds": self.rounds, "words": list(self.words),
            "usual": self.usual.tolist(), "features": list(self.features),
            "levels": {name: list(words) for name, words in self.levels.items()}})

    @classmethod
    def from_parts(cls, parts: Mapping[str, str]) -> Components:
        """The reverse of `to_parts`; parses text and JSON, executes nothing.

        Raises:
            ModelError: If a part is missing or was written by a newer churnkit, or the two do not fit together.
        """
        with readable("components"):
            data, booster = read_parts(parts, "components")
            found = cls(data["name"], data["seed"])
            found.words, found.usual = tuple(data["words"]), np.array(data["usual"], dtype=float)
            found.features, found.levels, found.rounds = data["features"], data["levels"], data["rounds"]
        found._booster = booster
        return found

    def _boost(self, inputs: Floats, y: np.ndarray[Any, Any], rounds: int,
               stop: tuple[Floats, np.ndarray[Any, Any]] | None = None) -> lgb.Booster:
        params = {**parameters(len(y) // len(self.words), len(y), self.seed), "objective": "multiclass",
                  "num_class": len(self.words), "metric": "multi_logloss"}
        held = {"data": stop[0], "label": stop[1]} if stop else None
        return grow(params, {"data": inputs, "label": y}, self.features, self.levels, rounds, held)


@dataclass(frozen=True, eq=False)
class Beside:
    """An estimator beside the model and what its test period says: `holdout` knew nothing of it.

    `error` is the mean error on the test rows, `usual` that of what the training rows give everybody; for components
    the log loss of the component that failed, for lives the root of the mean squared error in days. Skill is proven
    when the 99% upper bound of the difference is below 0.
    """

    what: str
    estimator: CappedLife | Components
    holdout: CappedLife | Components
    error: float
    usual: float
    skill: bool
    rows: int

    def says(self) -> str:
        """The verdict in one sentence."""
        unit = "root mean squared error in days" if self.what == "life" else "log loss"
        return (f"{self.estimator.name} {self.what}: {'skill proven' if self.skill else 'no skill'}: on {self.rows} "
                f"test rows the {unit} is {self.error:.3f}, against {self.usual:.3f} of what is usual.")

    def summary(self) -> dict[str, Any]:
        """The figures that a run reports."""
        return {"skill": "proven" if self.skill else "no skill", "error": round(self.error, 5),
                "usual": round(self.usual, 5), "test_rows": self.rows}

    def metrics(self) -> dict[str, float]:
        """Every figure by a flat name, for a log."""
        return {f"{self.what}.error": self.error, f"{self.what}.usual": self.usual,
                f"{self.what}.skill": float(self.skill)}


def train_life(spans: Durations, x: pd.DataFrame, *, test_at: dt.datetime, seed: int = 7) -> Beside:
    """Days left up to the last edge: fitted before the test period and judged on it, then fitted on all rows.

    Raises:
        ModelError: If there is nothing to learn from, or no test row can be followed to the last edge.
    """
    name, cap = spans.target.name, spans.edges[-1]
    holdout = CappedLife(name, cap, seed).fit(x, spans.until(test_at))
    test = _tested(spans, spans.within(cap)[1], test_at, f"can be followed to {cap:g} days")
    truth = np.minimum(spans.days[test], cap)
    mine, usual = (holdout.predict(x[test]) - truth) ** 2, (holdout.mean - truth) ** 2
    skill = _better(mine, usual, spans.take(test), seed)
    estimator = CappedLife(name, cap, seed).fit(x, spans, rounds=holdout.rounds)
    return Beside("life", estimator, holdout, float(np.sqrt(mine.mean())), float(np.sqrt(usual.mean())), skill,
                  int(test.sum()))


def train_components(spans: Durations, x: pd.DataFrame, *, test_at: dt.datetime, seed: int = 7) -> Beside:
    """Components of failures: fitted before the test period and judged on its failures, then fitted on all.

    Raises:
        ModelError: If fewer than two components have failed often enough, or none of the test rows.
    """
    name = spans.target.name
    holdout = Components(name, seed).fit(x, spans.until(test_at))
    some = spans.event & (holdout.codes(spans) >= 0)
    test = _tested(spans, some, test_at, "has failed")
    found = spans.take(test)
    place, rows = holdout.codes(found), np.arange(len(found))
    mine = -np.log(np.clip(holdout.shares(x[test])[rows, place], EDGE, 1))
    usual = -np.log(np.clip(holdout.usual[place], EDGE, 1))
    skill = _better(mine, usual, found, seed)
    estimator = Components(name, seed).fit(x, spans, rounds=holdout.rounds)
    return Beside("components", estimator, holdout, float(mine.mean()), float(usual.mean()), skill, len(found))


def lives(life: CappedLife, features: pd.DataFrame) -> pd.DataFrame:
    """Days left of each row: `schemas.LIVES`."""
    keys = features[["entity_id", "account_id", "cutoff"]].reset_index(drop=True)
    return keys.assign(target=life.name, life_days=life.predict(features), cap_days=life.cap)[list(LIVES)]


def _tested(spans: Durations, some: Mask, test_at: dt.datetime, what: str) -> Mask:
    """The rows of the test period among some, or an error that there are none."""
    test: Mask = (spans.keys["cutoff"] >= pd.Timestamp(test_at)).to_numpy() & some
    if not test.any():
        raise ModelError(f"{spans.target.name}: no row of the test period (from {test_at:%Y-%m-%d}) {what}. Give data "
                         "that reach further.")
    return test


def _better(mine: Floats, usual: Floats, spans: Durations, seed: int) -> bool:
    """Whether the mean error is below the usual one on 99% of the resamples of entities."""
    codes, names = pd.factorize(spans.keys["entity_id"])
    _, spread = ratios(mine - usual, np.ones(len(mine)), codes, draws(len(names), RESAMPLES, seed))
    return len(mine) >= FEWEST and float(np.nanquantile(spread, LEVEL)) < 0
