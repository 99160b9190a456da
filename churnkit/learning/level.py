"""Does the level of today's scores still hold? Against what came of an earlier day's, and against the shares that were
ever seen.

A moved level is flagged and not corrected. From scores alone the new share of positives can be guessed (Saerens,
Latinne and Decaestecker, "Adjusting the outputs of a classifier to new a priori probabilities", Neural Computation
2002) only if what a positive looks like has not changed. Where the customers changed and the risks given what is known
of them did not, or nothing changed, that correction does harm, and scores cannot tell these apart
(tests/learning/test_level.py shows it). Another training follows the outcomes instead.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from churnkit.learning.calibrate import Floats
from churnkit.learning.model import Model
from churnkit.learning.resample import FEWEST, LEVEL

LEAST = 1.25
"""A level that moved by less than a quarter is not spoken of."""
FEWEST_ROWS = 100


def moved(model: Model, p: Floats) -> str:
    """A sentence if the mean of a day's probabilities lies surely, and by more than a quarter, outside the shares of
    positives that the model's training saw at its cutoffs; otherwise empty.
    """
    if not model.shares or len(p) < FEWEST_ROWS:
        return ""
    low, high = model.shares
    mean, error = float(p.mean()), float(stats.norm.ppf(LEVEL)) * float(np.std(p) / np.sqrt(len(p)))
    if low / LEAST <= mean + error and mean - error <= high * LEAST:
        return ""
    return (f"{model.target.name}: the mean probability of the day is {mean:.2%}; at the cutoffs that the model learnt "
            f"from, {low:.2%} to {high:.2%} were positive. The customers, the records or the feeds have changed: see "
            "churnkit check and churnkit audit features, then train again.")


def missed(scores: pd.DataFrame, labels: pd.DataFrame) -> str:
    """A sentence if surely more or fewer outcomes came of a day's scores than they foretold, by more than a quarter;
    otherwise empty.

    Who was treated is left aside: a good outreach makes scores come untrue.

    Args:
        scores: Of one day, `schemas.SCORES`.
        labels: Of the same points, `schemas.LABELS`.
    """
    both = labels[labels["label"].notna() & ~labels["treated"]].merge(scores[["entity_id", "probability"]],
                                                                      on="entity_id")
    p, seen = both["probability"].to_numpy(dtype=float), float(both["label"].sum())
    foretold = float(p.sum())
    if max(foretold, seen) < FEWEST or max(foretold, seen) <= LEAST * min(foretold, seen):
        return ""
    off = abs(seen - foretold) / np.sqrt(float((p * (1 - p)).sum()))
    if stats.norm.sf(off) > 1 - LEVEL:
        return ""
    first = scores.iloc[0]
    return (f"{first['target']}: of the {len(both)} untreated that {first['model_version']} scored on "
            f"{first['cutoff']:%Y-%m-%d}, {foretold:.0f} were foretold to be positive and {seen:.0f} were: its "
            "probabilities no longer hold their level. Train again: churnkit train")
