"""What an expansion would be: how much a month and of which kind, each judged on its own, and told per account."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection

import numpy as np
import pandas as pd

from churnkit.learning.beside import RESAMPLES, Beside, better, tested
from churnkit.learning.calibrate import Floats
from churnkit.learning.gains import SHARE, Gains, deviance, gained
from churnkit.learning.kinds import Kinds
from churnkit.learning.resample import draws
from churnkit.learning.splits import TrainingSet, rolling
from churnkit.learning.survival import ratios
from churnkit.schemas import OFFER_KINDS, OFFERS


def train_gains(rows: TrainingSet, *, test_at: dt.datetime, prior: float, seed: int = 7) -> Beside:
    """Gains fitted before the test period and judged on its expansions against the usual share of MRR, then on all.

    Besides the loss it is told how the sum of the gains compares with what was foreseen.

    Raises:
        ModelError: If there are too few expansions with a known gain, or none in the test period.
    """
    name = rows.target.name
    holdout = Gains(name, seed).fit(rows.closed(test_at), prior)
    test = rows.take(tested(rows, gained(rows), test_at, "expanded with a known gain"))
    y, told, entities = test.keys["value"].to_numpy(dtype=float), holdout.predict(test.X), test.keys["entity_id"]
    mine, usual = deviance(y, told), deviance(y, holdout.usual(test.X))
    skill = better(mine, usual, entities, seed)
    sums = _sums(told, y, entities, seed)
    words = (f"Foreseen was {sums['foreseen']:.2f} times what they gained ({sums['foreseen_low']:.2f} to "
             f"{sums['foreseen_high']:.2f}).")
    if not skill:
        words += " The usual share of MRR stands in."
    return Beside("gains", Gains(name, seed).fit(rows, prior, holdout), holdout, "Tweedie deviance of the monthly gain",
                  float(mine.mean()), float(usual.mean()), skill, len(test), sums, words)


def train_kinds(rows: TrainingSet, *, test_at: dt.datetime, seed: int = 7) -> Beside:
    """Kinds of expansions: fitted before the test period and judged on its expansions, then fitted on all.

    Raises:
        ModelError: If fewer than two kinds came often enough, or no test row expanded.
    """
    holdout = _fitted(rows.closed(test_at), seed)
    codes = holdout.codes(rows.keys["kind"].to_numpy(dtype=object))
    some = tested(rows, (rows.y == 1).to_numpy() & (codes >= 0), test_at, "expanded")
    mine, usual = holdout.losses(rows.X[some], codes[some])
    skill = better(mine, usual, rows.keys["entity_id"][some], seed)
    return Beside("kinds", _fitted(rows, seed, holdout.rounds), holdout, "log loss", float(mine.mean()),
                  float(usual.mean()), skill, int(some.sum()))


def offers(scores: pd.DataFrame, features: pd.DataFrame, worth: float, kinds: Kinds | None,
           proven: Collection[str]) -> pd.DataFrame:
    """What each scored account would buy: `schemas.OFFERS`.

    Where the skill of the kinds is not proven, everybody has the usual shares.

    Args:
        scores: `stakes()` of the target's scores.
        features: What was scored, row by row.
        worth: What a month's gain is multiplied with to be a value: margin x months.
        kinds: The estimator of kinds; without one they are blank.
        proven: What is proven of gains and kinds.
    """
    found = scores[["entity_id", "account_id", "cutoff", "target", "currency"]].reset_index(drop=True)
    found = found.assign(gain_monthly=scores["value"].to_numpy(dtype=float) / worth, gain_skill="gains" in proven,
                         kind_skill="kinds" in proven)
    shares = {} if kinds is None else dict(zip(kinds.words, _shares(kinds, features, proven).T, strict=True))
    return found.assign(**{one: shares.get(one, 0.0 if shares else np.nan) for one in OFFER_KINDS})[list(OFFERS)]


def _shares(kinds: Kinds, features: pd.DataFrame, proven: Collection[str]) -> Floats:
    """The chance of each kind, shape (n, C): the account's own, or the usual ones."""
    return kinds.shares(features) if "kinds" in proven else np.tile(kinds.usual, (len(features), 1))


def _fitted(rows: TrainingSet, seed: int, rounds: int | None = None) -> Kinds:
    """Kinds fitted on the rows that expanded."""
    rows = rows.take((rows.y == 1).to_numpy())
    spans = ((one.closed, one.held) for one in rolling(rows, 1, SHARE))
    return Kinds(rows.target.name, "kinds", seed).fit(rows.X, rows.keys["kind"].to_numpy(dtype=object), spans, rounds)


def _sums(told: Floats, gains: Floats, entities: pd.Series, seed: int) -> dict[str, float]:
    """The sum foreseen over the sum gained, and between what it lies on 95% of the resamples of entities."""
    codes, names = pd.factorize(entities)
    ratio, spread = ratios(told, gains, codes, draws(len(names), RESAMPLES, seed))
    low, high = np.nanquantile(spread, [0.025, 0.975])
    return {"foreseen": ratio, "foreseen_low": float(low), "foreseen_high": float(high)}
