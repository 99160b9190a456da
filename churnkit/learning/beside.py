"""What stands beside a model and is judged on its own: an estimator with its verdict on the test period."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd

from churnkit.errors import ModelError
from churnkit.learning.calibrate import Floats
from churnkit.learning.resample import FEWEST, LEVEL, draws
from churnkit.learning.splits import Mask, Timed
from churnkit.learning.survival import ratios

RESAMPLES = 500


class Estimator(Protocol):
    """What can stand beside a model: it has a name and is kept as texts."""

    name: str

    def to_parts(self) -> dict[str, str]:
        """Each text by its file's name."""


@dataclass(frozen=True, eq=False)
class Beside:
    """An estimator beside the model and what its test period says: `holdout` knew nothing of it.

    `error` is the mean loss on the test rows, named by `loss`, and `usual` that of what the training rows give
    everybody. Skill is proven when the 99% upper bound of the difference is below 0. `more` are further figures by
    name, and `told` says them in a sentence.
    """

    what: str
    estimator: Estimator
    holdout: Estimator
    loss: str
    error: float
    usual: float
    skill: bool
    rows: int
    more: Mapping[str, float] = field(default_factory=dict)
    told: str = ""

    def says(self) -> str:
        """The verdict in one sentence, and the further figures in another."""
        return (f"{self.estimator.name} {self.what}: {'skill proven' if self.skill else 'no skill'}: on {self.rows} "
                f"test rows the {self.loss} is {self.error:.3f}, against {self.usual:.3f} of what is usual."
                + (f" {self.told}" if self.told else ""))

    def summary(self) -> dict[str, Any]:
        """The figures that a run reports."""
        return {"skill": "proven" if self.skill else "no skill", "error": round(self.error, 5),
                "usual": round(self.usual, 5), "test_rows": self.rows,
                **{name: round(value, 5) for name, value in self.more.items()}}

    def metrics(self) -> dict[str, float]:
        """Every figure by a flat name, for a log."""
        return {f"{self.what}.error": self.error, f"{self.what}.usual": self.usual,
                f"{self.what}.skill": float(self.skill),
                **{f"{self.what}.{name}": value for name, value in self.more.items()}}


def tested(rows: Timed, some: Mask, test_at: dt.datetime, what: str) -> Mask:
    """The rows of the test period among some, or an error that there are none."""
    test: Mask = (rows.keys["cutoff"] >= pd.Timestamp(test_at)).to_numpy() & some
    if not test.any():
        raise ModelError(f"{rows.target.name}: no row of the test period (from {test_at:%Y-%m-%d}) {what}. Give data "
                         "that reach further.")
    return test


def better(mine: Floats, usual: Floats, entities: pd.Series, seed: int) -> bool:
    """Whether the mean loss is below the usual one on 99% of the resamples of entities."""
    codes, names = pd.factorize(entities)
    _, spread = ratios(mine - usual, np.ones(len(mine)), codes, draws(len(names), RESAMPLES, seed))
    return len(mine) >= FEWEST and float(np.nanquantile(spread, LEVEL)) < 0
