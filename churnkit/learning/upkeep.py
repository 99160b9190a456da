"""What maintenance asks beyond when: which component would fail, and how many days are left; each judged on its own."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import numpy as np
import pandas as pd

from churnkit.learning.beside import Beside, better, tested
from churnkit.learning.durations import Durations, ordered
from churnkit.learning.hazard import SHARE
from churnkit.learning.kinds import Kinds
from churnkit.learning.life import CappedLife
from churnkit.learning.splits import Mask, rolling
from churnkit.schemas import COMPONENTS, LIVES


def train_life(spans: Durations, x: pd.DataFrame, *, test_at: dt.datetime, seed: int = 7) -> Beside:
    """Days left up to the last edge: fitted before the test period and judged on it, then fitted on all rows.

    Raises:
        ModelError: If there is nothing to learn from, or no test row can be followed to the last edge.
    """
    name, cap = spans.target.name, spans.edges[-1]
    holdout = CappedLife(name, cap, seed).fit(x, spans.until(test_at))
    test = tested(spans, spans.within(cap)[1], test_at, f"can be followed to {cap:g} days")
    truth = np.minimum(spans.days[test], cap)
    mine, usual = (holdout.predict(x[test]) - truth) ** 2, (holdout.mean - truth) ** 2
    skill = better(mine, usual, spans.keys["entity_id"][test], seed)
    estimator = CappedLife(name, cap, seed).fit(x, spans, rounds=holdout.rounds)
    return Beside("life", estimator, holdout, "root mean squared error in days", float(np.sqrt(mine.mean())),
                  float(np.sqrt(usual.mean())), skill, int(test.sum()))


def train_components(spans: Durations, x: pd.DataFrame, *, test_at: dt.datetime, seed: int = 7) -> Beside:
    """Components of failures: fitted before the test period and judged on its failures, then fitted on all.

    Raises:
        ModelError: If fewer than two components have failed often enough, or none of the test rows.
    """
    holdout = _fitted(x, spans.until(test_at), seed)
    test = tested(spans, spans.event & (holdout.codes(spans.kind) >= 0), test_at, "has failed")
    found = spans.take(test)
    mine, usual = holdout.losses(x[test], holdout.codes(found.kind))
    skill = better(mine, usual, found.keys["entity_id"], seed)
    estimator = _fitted(x, spans, seed, holdout.rounds)
    return Beside("components", estimator, holdout, "log loss", float(mine.mean()), float(usual.mean()), skill,
                  len(found))


def components(kinds: Kinds, features: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """The probability by component at each horizon of the curves of the same rows: `schemas.COMPONENTS`."""
    many = len(curves) // max(len(features), 1)
    shares = np.repeat(kinds.shares(features), many, axis=0)
    rows = np.repeat(np.arange(len(curves)), len(kinds.words))
    found = curves.iloc[rows].reset_index(drop=True).assign(component=list(kinds.words) * len(curves))
    return found.assign(probability=found["probability"].to_numpy() * shares.ravel())[list(COMPONENTS)]


def lives(life: CappedLife, features: pd.DataFrame) -> pd.DataFrame:
    """Days left of each row: `schemas.LIVES`."""
    keys = features[["entity_id", "account_id", "cutoff"]].reset_index(drop=True)
    return keys.assign(target=life.name, life_days=life.predict(features), cap_days=life.cap)[list(LIVES)]


def _fitted(x: pd.DataFrame, spans: Durations, seed: int, rounds: int | None = None) -> Kinds:
    """Components fitted on the rows that failed."""
    x, spans = ordered(x, spans, spans.event)
    return Kinds(spans.target.name, "components", seed).fit(x, spans.kind, _spans(spans), rounds)


def _spans(spans: Durations) -> Iterator[tuple[Mask, Mask]]:
    """Which failures were known before the later half of the time, and which lie in it."""
    for one in rolling(spans, 1, SHARE):
        yield spans.until(one.start.to_pydatetime()).event, one.held
