"""The worked example: every feature and every point equals what stands in the golden folder, value by value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from churnkit.cutoffs import moment
from churnkit.signals.compute import compute_features
from churnkit.signals.points import points_at
from churnkit.signals.tables import read_tables

CUTOFFS = [moment(day) for day in ("2025-06-01", "2025-09-01", "2025-11-20")]
MAPPING = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="module")
def tables(golden):
    """The golden workspace, read through its mapping."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHURNKIT_GOLDEN", str(golden))
        yield read_tables(MAPPING, at="2026-02-01")


@pytest.mark.parametrize("entity", ["account", "asset"])
def test_points_and_features_are_the_golden_ones(tables, golden, entity):
    """Not a point more or less, and not a value that differs."""
    expected = pd.read_csv(golden / f"expected_{entity}_features.csv", dtype={"id": str})
    expected["cutoff"] = pd.to_datetime(expected["cutoff"], utc=True)
    columns = list(expected.columns[3:])

    points = points_at(tables, entity, CUTOFFS)
    assert sorted(zip(expected["id"], expected["cutoff"], strict=True)) == sorted(
        zip(points["entity_id"], points["cutoff"], strict=True))

    features = compute_features(tables, points).set_index(["entity_id", "cutoff"])
    keys = pd.MultiIndex.from_frame(expected[["id", "cutoff"]])
    for column in columns:
        np.testing.assert_allclose(features.loc[keys, column].to_numpy(), expected[column].to_numpy(float),
                                   rtol=0, atol=1e-9, err_msg=column)


def test_ids_with_leading_zeros_are_accounts_of_their_own(tables):
    """'007' and '7' are two accounts with their own use."""
    points = points_at(tables, "account", CUTOFFS[:1])
    features = compute_features(tables, points).set_index("entity_id")
    assert (features.loc["007", "active_users_28d"], features.loc["7", "active_users_28d"]) == (1, 4)


def test_notice_is_known_from_the_day_that_it_was_given(tables):
    """A04 gave notice in May; A01's billing periods end each month and are none; A02 has not said anything yet."""
    points = points_at(tables, "account", CUTOFFS[:1])
    given = compute_features(tables, points).set_index("entity_id")["notice_given"]
    assert {"A04"} == set(given[given == 1].index)
