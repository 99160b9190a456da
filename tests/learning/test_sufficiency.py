"""The verdict that `churnkit check` shows for each target."""

from __future__ import annotations

import pandas as pd
import pytest
from test_labels import at

from churnkit.learning.sufficiency import verdict
from churnkit.learning.targets import CHURN, EXPANSION
from churnkit.settings import Settings
from churnkit.signals.tables import Tables


@pytest.fixture(scope="module")
def tables():
    """400 accounts, 700 days; every second leaves at some time, nobody grows, three quarters use it."""
    accounts = pd.DataFrame({"account_id": [f"{k:03d}" for k in range(400)], "created_at": at(-900)})
    held = accounts.assign(
        started_at=at(-50),
        ended_at=[at(20 + 3 * k // 2) if k % 2 else None for k in range(400)],
        seats=5.0,
        mrr=50.0,
        plan="team",
        currency="EUR",
    ).drop(columns="created_at")
    used = pd.DataFrame([(f"{k:03d}", at(day), "x") for k in range(300) for day in range(0, 700, 20)],
                        columns=["account_id", "occurred_at", "event"])
    return Tables.from_frames(Settings(covers_until=at(700)), accounts=accounts, subscriptions=held, usage_events=used)


def test_data_that_suffice(tables):
    found = verdict(CHURN, tables, tables.settings, at(700))
    assert found.ok, found.sentences()
    assert all(row["ok"] == "yes" for row in found.rows())
    assert "suffice" in found.sentences()[0]


def test_data_that_do_not_name_the_threshold_and_the_mend(tables):
    """Nobody grew, so there is nothing to learn an expansion from."""
    found = verdict(EXPANSION, tables, tables.settings, at(700))
    assert not found.ok
    assert found.labels["positive"] == 0
    assert "expansion: positives to fit: 0 found, 120 needed. A longer history" in "\n".join(found.sentences())
    assert found.to_dict()["checks"][1]["ok"] is False


def test_no_history_at_all_is_a_verdict_and_no_error(tables):
    found = verdict(CHURN, tables, tables.settings, at(30))
    assert not found.ok
    assert "no points at all" in found.sentences()[0]
