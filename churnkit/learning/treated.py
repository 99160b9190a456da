"""Rows of accounts that outreach was spent on: what they say of the risk without it, and how training takes them.

What training wants to know is the risk of everybody if nobody were called, because that is what a call is decided on.
A treated row does not show it. Left in, the calls that helped make the riskiest look safe. Left out, the riskiest are
missing, since tasks go to them: the level and the metrics are those of the calm, and so is a model that cannot bend as
the risk does. An untreated row that counts 1 / (1 - propensity) stands for the treated ones like it as well (inverse
probability weighting; Robins, Rotnitzky and Zhao, "Estimation of regression coefficients when some regressors are not
always observed", Journal of the American Statistical Association 1994). That holds as far as the features tell who is
treated. The control group sees to it that there are untreated rows everywhere, and that no weight need exceed 1 / its
share.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from churnkit.learning import baseline as logistic
from churnkit.learning.calibrate import EDGE, Floats, log_odds, sigmoid
from churnkit.learning.resample import FEWEST
from churnkit.learning.splits import TrainingSet
from churnkit.learning.trees import word_levels

How = Literal["weigh", "drop", "keep"]
LEAST_CONTROL = 0.05
"""The share that bounds the weights where the control group is smaller than this, or there is none."""
FOLDS = 5


class Taken(NamedTuple):
    """The rows that training takes, and what a run says of it; nothing where nobody was treated."""

    rows: TrainingSet
    says: str = ""


def taken(rows: TrainingSet, how: How = "weigh", *, control: float = LEAST_CONTROL, seed: int = 7) -> Taken:
    """The rows with those of treated entities taken as `how` says: 'weigh' leaves them out and lets the untreated count
    1 / (1 - propensity), 'drop' leaves them out alone, 'keep' takes all as they are.

    Args:
        rows: Labelled rows; `keys` say who was treated.
        how: What to do with them.
        control: The share of accounts in the control group, of which no outreach can take hold.
        seed: Of the folds.
    """
    treated = rows.keys["treated"].to_numpy(dtype=bool)
    if not treated.any():
        return Taken(rows)
    name, count = rows.target.name, int(treated.sum())
    of = f"{name}: {count} of {len(rows)} rows were treated"
    if how == "keep":
        return Taken(rows, f"{of} and are learnt from as they are, so that what outreach prevented looks like safety.")
    left = rows.take(~treated)
    if how == "drop":
        return Taken(left, f"{of} and are left out: the risk of those who are treated most may be told too low.")
    p = propensity(rows, control, seed=seed)
    weights = 1 / (1 - p[~treated])
    told = f"{of}; the untreated count for them, {weights.min():.1f} to {weights.max():.1f} times"
    return Taken(replace(left, weights=left.weights * weights), f"{told}.")


def propensity(rows: TrainingSet, control: float = LEAST_CONTROL, *, seed: int = 7) -> Floats:
    """How likely each row was to be treated, by what was known at its cutoff, between 0 and 1 - control.

    From logistic regressions on the features and on the share of the cutoff's rows that were treated, each fitted on
    other entities than the row's. At a cutoff where nobody was treated it is 0. With a handful of treated rows it is
    the cutoff's share.
    """
    treated = rows.keys["treated"].to_numpy(dtype=float)
    cutoff = pd.Series(treated).groupby(rows.keys["cutoff"].to_numpy()).transform("mean").to_numpy(dtype=float)
    x = rows.X.assign(**{"share treated": log_odds(np.clip(cutoff, EDGE, 1 - EDGE))})
    levels, going_on, found = word_levels(x), cutoff > 0, cutoff.copy()
    codes, names = pd.factorize(rows.keys["entity_id"], sort=True)
    fold = (np.random.default_rng(seed).permutation(len(names)) % FOLDS)[codes]
    for held in (going_on & (fold == one) for one in range(FOLDS)):
        rest = going_on & ~held
        if held.any() and min(treated[rest].sum(), (1 - treated[rest]).sum()) >= FEWEST:
            found[held] = sigmoid(logistic.fit(x[rest], treated[rest], levels).raw(x[held]))
    clipped: Floats = np.clip(found, 0.0, 1 - max(control, LEAST_CONTROL))
    return clipped
