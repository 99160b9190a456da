"""AUCs of single columns against scikit-learn's, and their bounds against what resampling entities gives."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from churnkit.audit.ranks import aucs


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_auc_equals_scikit_learns(seed, kinds):
    """With ties and missing values (which rank lowest), in the better direction."""
    dice = np.random.default_rng(seed)
    x = dice.integers(0, kinds, (120, 3)).astype(float)
    x[dice.random((120, 3)) < 0.1] = np.nan
    y = dice.integers(0, 2, 120)
    found = aucs(pd.DataFrame(x, columns=list("abc")), y, np.arange(120))
    for place, name in enumerate("abc"):
        expected = roc_auc_score(y, np.nan_to_num(x[:, place], nan=-1.0))
        np.testing.assert_allclose(found.loc[name, "auc"], max(expected, 1 - expected), atol=1e-12)
        assert found.loc[name, "sign"] == (1.0 if expected >= 0.5 else -1.0)


def test_bounds_hold_what_they_say_with_rows_in_clusters():
    """Over 50 books of 60 entities with ten alike rows each, the true AUC lies within the bounds nearly always.

    Bounds that took the rows for independent would hold it far less often.
    """
    inside, naive = 0, 0
    for seed in range(50):
        dice = np.random.default_rng(seed)
        trait, whose = dice.normal(size=60), np.repeat(np.arange(60), 10)
        y = (dice.random(60) < 0.5)[whose]
        x = trait[whose] + 0.3 * dice.normal(size=600)  # says nothing of y: the true AUC is 0.5
        frame = pd.DataFrame({"x": x})
        for clusters, counted in ((whose, True), (np.arange(600), False)):
            found = aucs(frame, y, clusters).loc["x"]
            # in the better direction the AUC is at least 0.5, so that only the low bound can miss it
            held = found["low"] <= 0.5
            inside, naive = inside + (held and counted), naive + (held and not counted)
    assert inside >= 45
    assert naive <= 30


def test_a_category_is_ranked_by_others_outcomes():
    """A name of one's own foretells nothing, a kind that leaves does."""
    whose = np.repeat(np.arange(100), 4)
    y = np.repeat(np.arange(100) % 4 == 0, 4)
    frame = pd.DataFrame({"own": [f"n{one}" for one in whose], "kind": np.where(y, "leaver", "stayer")}, dtype=object)
    found = aucs(frame, y, whose)
    assert found.loc["kind", "low"] > 0.9
    assert found.loc["own", "low"] <= 0.5


def test_without_both_outcomes_nothing_is_known():
    """All the same: an AUC of 0.5 with bounds from 0 to 1."""
    found = aucs(pd.DataFrame({"x": [1.0, 2.0]}), np.array([0, 0]), np.arange(2))
    assert found[["auc", "low", "high"]].to_numpy().tolist() == [[0.5, 0.0, 1.0]]
