"""What changed since the run before: new reasons, other values, and nothing where nothing or only time moved."""

from __future__ import annotations

import pandas as pd
import pytest

from churnkit.learning.changes import Earlier, since
from churnkit.schemas import REASONS

NOW, THEN = pd.Timestamp("2026-11-01", tz="UTC"), pd.Timestamp("2026-10-04", tz="UTC")


def reasons(cutoff, *told):
    """Reasons as (entity, feature, direction)."""
    frame = pd.DataFrame([{"entity_id": entity, "feature": feature, "direction": direction}
                          for entity, feature, direction in told], columns=["entity_id", "feature", "direction"])
    return frame.assign(cutoff=cutoff, target="churn").reindex(columns=list(REASONS))


def features(cutoff, **values):
    return pd.DataFrame({"entity_id": ["A"], "cutoff": cutoff, **{name: [value] for name, value in values.items()}})


@pytest.mark.parametrize(("feature", "now", "then", "told_then", "expected"), [
    ("events_28d", 9.0, 31.0, "events_84d", "was 31 on 4 October"),
    ("events_28d", 9.0, 31.0, "mrr", "new since 4 October, was 31"),
    ("events_28d", 31.0, 31.0, "mrr", "new since 4 October"),
    ("events_28d", 31.0, 31.0, "events_28d", ""),
    ("events_28d", 100.0, 101.0, "events_28d", ""),
    ("events_vs_usual_28d", -0.71, -0.1, "events_28d", "was down 10% on 4 October"),
    ("csat_last", 2.0, float("nan"), "csat_last", "was not known on 4 October"),
    ("csat_last", float("nan"), float("nan"), "csat_last", ""),
    ("plan", "solo", "team", "plan", "was team on 4 October"),
    ("days_to_renewal", 20.0, 48.0, "days_to_renewal", ""),
    ("days_since_touch", 40.0, 2.0, "days_since_touch", "was 2 days on 4 October"),
    ("mrr", 900.0, 300.0, "mrr", "was EUR 300 on 4 October"),
    ("unknown_thing", 5.0, 2.0, "unknown_thing", "was 2 on 4 October"),
])
def test_it_is_said_in_a_few_words(feature, now, then, told_then, expected):
    """A family that was told then is not new; what the calendar alone moves did not change."""
    told = reasons(NOW, ("A", feature, "raises"))
    earlier = Earlier(THEN, reasons(THEN, ("A", told_then, "raises")), features(THEN, **{feature: then}))
    assert [expected] == since(told, features(NOW, **{feature: now}), earlier)["changed"].tolist()


def test_a_reason_that_turned_round_is_new():
    told = reasons(NOW, ("A", "mrr", "lowers"))
    earlier = Earlier(THEN, reasons(THEN, ("A", "mrr", "raises")), features(THEN, mrr=5.0))
    assert ["new since 4 October"] == since(told, features(NOW, mrr=5.0), earlier)["changed"].tolist()


def test_who_was_not_explained_then_has_no_new_reasons():
    """But its values are known, whoever was told; and who was not there at all has none."""
    told = reasons(NOW, ("A", "mrr", "raises"))
    here = features(NOW, mrr=9.0)
    others = reasons(THEN, ("B", "mrr", "raises"))
    seen, nobody = (Earlier(THEN, others, features(THEN, mrr=5.0).assign(entity_id=name)) for name in "AB")
    assert ["was EUR 5 on 4 October"] == since(told, here, seen)["changed"].tolist()
    assert [""] == since(told, here, nobody)["changed"].tolist()
    assert [] == since(told.head(0), here, seen)["changed"].tolist()
