"""Late data: a late row never changes a past feature, it is counted, and a restatement says what it changed."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from churnkit import jobs
from churnkit.cutoffs import moment
from churnkit.jobs.learn import ensure
from churnkit.jobs.workspace import save
from churnkit.learning.targets import CHURN
from churnkit.settings import from_mapping, load
from churnkit.signals import partitions
from churnkit.signals.points import points_at
from churnkit.signals.store import Store
from churnkit.signals.tables import Tables

FIRST, SECOND, THIRD = moment("2025-06-01"), moment("2025-06-08"), moment("2025-06-15")
IDS = ["A", "B", "C"]


def use(rng, rows):
    """Events that claim to have been known when they happened."""
    when = [FIRST - dt.timedelta(hours=int(hours)) for hours in rng.integers(1, 2000, rows)]
    return pd.DataFrame({"account_id": rng.choice(IDS, rows), "event": rng.choice(["open", "export"], rows),
                         "user_id": rng.choice(["u", "v"], rows), "occurred_at": when})


def book(events, **frames):
    """Three accounts and their use."""
    return Tables.from_frames(
        from_mapping({"covers_until": "2026-01-01", "tables": {"usage_events": {"duplicates": "keep"}}}),
        accounts=pd.DataFrame({"account_id": IDS, "created_at": "2024-01-01"}),
        subscriptions=pd.DataFrame({"account_id": IDS, "started_at": "2024-01-01", "seats": 2.0}),
        usage_events=events, **frames)


def contents(store, day):
    """The bytes of every group's file of a day."""
    files = sorted((store.path / "data").glob(f"*/{day:%Y-%m-%d}.parquet"))
    return {file.parent.name: file.read_bytes() for file in files}


@settings(max_examples=2, phases=(Phase.explicit, Phase.reuse, Phase.generate), deadline=None,
          suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32 - 1))
def test_late_rows_never_change_a_past_feature(tmp_path_factory, seed):
    """Whatever comes in later about a time before a cutoff, its files and what is read from them stay, to the byte."""
    rng = np.random.default_rng(seed)
    store = Store(tmp_path_factory.mktemp("late") / "features")
    events = use(rng, 60)
    first = book(events)
    ensure(first, store, "account", [FIRST])
    asked = points_at(first, "account", [FIRST])
    files, read = contents(store, FIRST), store.read(asked, CHURN)
    tickets = pd.DataFrame({"ticket_id": ["T"], "account_id": ["A"], "opened_at": [FIRST - dt.timedelta(days=3)]})
    second = book(pd.concat([events, use(rng, 30)]), support_tickets=tickets)
    ensure(second, store, "account", [FIRST, SECOND])
    assert files == contents(store, FIRST)
    pd.testing.assert_frame_equal(read, store.read(asked, CHURN))
    later = store.read(points_at(second, "account", [SECOND]), CHURN)
    assert later["events_84d"].sum() > read["events_84d"].sum()  # the late rows do count from then on


@pytest.fixture(scope="module")
def restated(tmp_path_factory):
    """A store with features at two cutoffs, restated a week later: the store, its points, and what changed."""
    store = Store(tmp_path_factory.mktemp("restated") / "features")
    events = pd.DataFrame({"account_id": ["A", "B"], "event": "open", "user_id": "u",
                           "occurred_at": [FIRST - dt.timedelta(days=1)] * 2})
    ensure(book(events), store, "account", [FIRST, SECOND])
    late = pd.concat([events, events.iloc[:1].assign(occurred_at=FIRST - dt.timedelta(days=2))])
    changed = ensure(book(late), store, "account", [FIRST, SECOND], restated=THIRD)
    return store, points_at(book(late), "account", [FIRST, SECOND]), changed


def test_a_restatement_marks_what_differs_and_leaves_the_rest(restated):
    """A's rows at both cutoffs are marked with the run's time and created then; B's and C's stay unmarked."""
    store, _, changed = restated
    rows = pd.concat([partitions.read(file).to_pandas() for file in partitions.files(store.path / "data" / "usage")])
    marked = rows[rows[partitions.RESTATED].notna()]
    assert (changed["rows"], changed["restated"]) == (6, 2)
    assert len(rows) == 6 + 2
    assert list(zip(marked["account_id"], marked[partitions.TIME], strict=True)) == [("A", FIRST), ("A", SECOND)]
    assert {*marked[partitions.RESTATED], *marked[partitions.CREATED]} == {pd.Timestamp(THIRD)}
    before = rows[(rows["account_id"] == "A") & rows[partitions.RESTATED].isna()].set_index(partitions.TIME)
    after = marked.set_index(partitions.TIME)
    others = {"account_id", partitions.TIME, partitions.CREATED, partitions.RESTATED}
    names = [name for name in rows if name not in others]
    differing = sum(not (a == b or (pd.isna(a) and pd.isna(b))) for name in names
                    for a, b in zip(before[name], after[name], strict=True))
    assert differing == changed["values_changed"] > 0
    assert partitions.restatements(store.path / "data", "A", pd.Timestamp(FIRST)) == {"usage": pd.Timestamp(THIRD)}
    assert partitions.restatements(store.path / "data", "B", pd.Timestamp(FIRST)) == {}


def test_what_is_restated_is_served_and_was_not_known_then(restated):
    """By default the restated value; with Feast's known-at filter the one that was known at the cutoff."""
    store, points, _ = restated
    asked = points[points["entity_id"] == "A"].reset_index(drop=True)
    assert store.read(asked, CHURN)["events_28d"].tolist() == [2, 2]
    keys = pd.DataFrame({"account_id": asked["entity_id"].astype(object), partitions.TIME: asked["cutoff"]})
    service = store._service(CHURN)
    then = store._open().get_historical_features(keys, service, filter_by_created_timestamp=True).to_df()
    assert then["events_28d"].tolist() == [1, 1]
    store.materialize(THIRD, CHURN)
    assert store.online("A", CHURN)["events_28d"] == 2


def test_restating_again_changes_nothing(restated):
    """The same data a second time differ in nothing from what stands; a later restatement lies beside the others."""
    store, _, _ = restated
    late = pd.DataFrame({"account_id": ["A", "B", "A"], "event": "open", "user_id": "u", "occurred_at": [
        FIRST - dt.timedelta(days=days) for days in (1, 1, 2)]})
    files = contents(store, FIRST)
    again = ensure(book(late), store, "account", [FIRST, SECOND], restated=THIRD + dt.timedelta(days=1))
    assert (again["restated"], again["values_changed"]) == (0, 0)
    assert files == contents(store, FIRST)


CONFIG = 'covers_until = 2026-01-01\n[tables.usage_events]\nduplicates = "keep"\n'


@pytest.mark.slow
def test_the_jobs_report_late_rows_and_restatements(tmp_path, caplog):
    """`features` says what came late and what a restatement changed; `explain` tells of restated features."""
    (tmp_path / "data").mkdir()
    (tmp_path / "churnkit.toml").write_text(CONFIG)
    raw = load(tmp_path).path(load(tmp_path).raw)
    raw.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"account_id": IDS, "created_at": "2024-01-01"}).to_csv(raw / "accounts.csv", index=False)
    pd.DataFrame({"account_id": IDS, "started_at": "2024-01-01"}).to_csv(raw / "subscriptions.csv", index=False)
    events = pd.DataFrame({"account_id": ["A", "B"], "event": "open", "occurred_at": "2025-05-30T10:00:00Z"})
    events.to_csv(raw / "usage_events.csv", index=False)
    assert jobs.features(tmp_path, FIRST).notes == []
    pd.concat([events, events.iloc[:1]]).to_csv(raw / "usage_events.csv", index=False)
    done = jobs.features(tmp_path, SECOND)
    assert done.notes == [
        "usage_events: 1 row came into past days since an earlier run; known_after = '48h' would be honest."]
    assert "restated" not in done.data["features"][0]
    with caplog.at_level("INFO", "churnkit"):
        counted = jobs.features(tmp_path, FIRST, restate=True).data["features"][0]
    assert counted["restated"] == 1
    assert f"restated 1 rows of account features: {counted['values_changed']} values differ" in caplog.text
    scores = pd.DataFrame({"entity_id": ["A"], "account_id": ["A"], "target": "churn", "probability": 0.5,
                           "band": "high", "value": 1.0, "currency": "EUR", "model_version": "churn-1", "skill": True})
    save(load(tmp_path), "scores", "churn", FIRST, scores)
    save(load(tmp_path), "reasons", "churn", FIRST, pd.DataFrame(
        columns=["entity_id", "target", "direction", "points", "phrase"]))
    notes = jobs.explain(tmp_path, "A", FIRST).notes
    assert any("features of A at 2025-06-01 were computed anew on 2025-06-01 (usage)" in note for note in notes), notes
