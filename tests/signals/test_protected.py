"""Protected attributes: found by name, column, formula and mapping; no input and so no reason, unless allowed."""

from __future__ import annotations

import pandas as pd
import pytest

from churnkit.cutoffs import moment
from churnkit.learning.labels import label
from churnkit.learning.targets import CHURN, configured
from churnkit.learning.training import training_set
from churnkit.settings import from_mapping
from churnkit.signals.compute import compute_features
from churnkit.signals.points import points_at
from churnkit.signals.protected import protected
from churnkit.signals.tables import Tables

OWN = """
[tables.people]
at = "noted_at"
types = { gender = "category", belief = "category", religion = "flag", seats = "number" }
[groups.people]
table = "people"
targets = ["churn"]
features.shown_as = { op = "last", of = "gender" }
features.faith = { op = "share", where = { religion = true }, windows = [28] }
features.belief_last = { op = "last", of = "belief" }
features.desks = { op = "last", of = "seats" }
"""


def workspace(folder, **features):
    (folder / "features.toml").write_text(OWN)
    return from_mapping({"features": {"own": "features.toml", **features}, "covers_until": "2026-01-01"}, root=folder)


def test_nothing_of_ours_is_protected_by_default(tmp_path):
    """Neither an asset's age nor an account's segment tells of a person."""
    assert configured(CHURN, from_mapping({}, root=tmp_path)) == CHURN


@pytest.mark.parametrize(("features", "expected"), [
    ({}, ("faith_28d", "shown_as")),
    ({"protected": ["belief"]}, ("belief", "belief_last", "faith_28d", "shown_as")),
    ({"protected": ["Belief Last"]}, ("belief_last", "faith_28d", "shown_as")),
    ({"allow": ["shown_as"]}, ("faith_28d",)),
    ({"allow": ["religion", "gender"]}, ()),
    ({"protected": ["segment", "event_login_28d"], "allow": ["faith_28d", "shown_as"]}, ("event_login_28d", "segment")),
    ({"protected": ["des", "seat"]}, ("des", "faith_28d", "seat", "shown_as")),
])
def test_what_tells_of_a_protected_attribute_is_found(tmp_path, features, expected):
    """By the column it takes and the condition it sets, whatever it is called; words count whole."""
    assert expected == protected(workspace(tmp_path, **features))


def test_a_column_is_known_by_its_name_at_the_source_too(tmp_path):
    """A segment that is really a nationality."""
    settings = from_mapping({"tables": {"accounts": {"columns": {"segment": "Nationality"}}}}, root=tmp_path)
    assert ("segment",) == protected(settings)


def test_protected_features_are_no_inputs(tmp_path):
    """They are computed, for audits, and then kept from the model; who allows one gets it."""
    frames = {
        "accounts": pd.DataFrame({"account_id": ["A", "B"], "created_at": "2024-01-01"}),
        "usage_events": pd.DataFrame({"account_id": ["A", "B"], "occurred_at": "2025-05-20", "event": "login"}),
        "people": pd.DataFrame({"account_id": ["A", "B"], "noted_at": "2025-05-20", "gender": ["f", "m"],
                                "belief": "x", "religion": [True, False], "seats": [1.0, 2.0]}),
    }

    def inputs(**features):
        settings = workspace(tmp_path, **features)
        tables = Tables.from_frames(settings, **frames)
        points = points_at(tables, "account", [moment("2025-06-01")])
        target = configured(CHURN, settings)
        labels = label(target, tables, points).assign(label=pd.array([0, 1], dtype="Int64"))
        return set(training_set(target, compute_features(tables, points), labels).X)

    assert {"shown_as", "faith_28d", "belief_last", "desks"} & inputs() == {"belief_last", "desks"}
    assert {"shown_as", "faith_28d"} & inputs(allow=["shown_as"]) == {"shown_as"}
