"""Materializing in bulk against Feast's own way: the same online tables byte for byte, and so the same answers."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import sqlite3
import warnings

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from churnkit.signals import online
from churnkit.signals.clocks import feast_clocks

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Bool, Float32, Float64, Int32, Int64, String, UnixTimestamp

AT = pd.Timestamp("2026-03-01", tz="UTC").as_unit("us")
NEXT = AT + dt.timedelta(days=1)
ACCOUNT = Entity(name="account", join_keys=["account_id"], value_type=ValueType.STRING)
SEAT = Entity(name="seat", join_keys=["seat_id"], value_type=ValueType.INT64)
ROWS = pa.table({
    "account_id": ["A", "ß", "", "long " * 30, "A", "7", "007"], "seat_id": [3, 1, 2, -1, 3, 2**40, 0],
    "event_timestamp": pa.array([AT, AT, AT, AT, AT + pd.Timedelta(1, unit="us"), AT, AT], pa.timestamp("us", "UTC")),
    "created": pa.array([AT, AT, AT + pd.Timedelta(1, unit="s"), AT, AT, AT, AT], pa.timestamp("us", "UTC")),
    "double": pa.array([1.5, None, float("nan"), 1e300, -2.25, float("inf"), 0.1], pa.float64()),
    "whole": pa.array([6.0, 6.0, 0.0, 6.0, 12.0, None, 6.0], pa.float64()),
    "single": pa.array([1.5, None, 0.1, 3.0, 4.0, 5.0, 6.0], pa.float32()),
    "count": pa.array([1, 2, -3, 2**50, 5, 6, 0], pa.int64()),
    "small": pa.array([1, 2, -3, 4, 5, 6, 0], pa.int32()),
    "word": pa.array(["a", None, "", "it's \"ß\"", "b", "a", "\n"], pa.string()),
    "flag": pa.array([True, False, None, True, False, True, False], pa.bool_()),
    "since": pa.array([AT] * 7, pa.timestamp("us", "UTC")),
    "it's": pa.array([1.0] * 7, pa.float64()),
})
TYPES = {"double": Float64, "whole": Float64, "single": Float32, "count": Int64, "small": Int32, "word": String,
         "flag": Bool, "since": UnixTimestamp, "it's": Float64}


@pytest.fixture
def shop(tmp_path):
    """Makes a Feast repo with an engine of a name, over the same rows; one view by account, one by account and seat."""

    def make(name, engine):
        home = tmp_path / name
        home.mkdir()
        pq.write_table(ROWS, home / "rows.parquet")
        store = FeatureStore(config=RepoConfig(
            project="shop", provider="local", registry=str(home / "registry.db"), repo_path=home, batch_engine=engine,
            offline_store={"type": "churnkit.signals.asof.AsofOfflineStore"},
            online_store={"type": "sqlite", "path": "online.db"}, entity_key_serialization_version=3))
        source = FileSource(name="rows", path="rows.parquet", timestamp_field="event_timestamp",
                            created_timestamp_column="created")
        fields = [Field(name=column, dtype=kind) for column, kind in TYPES.items()]
        keys = [Field(name="account_id", dtype=String), Field(name="seat_id", dtype=Int64)]
        store.apply([ACCOUNT, SEAT,
                     FeatureView(name="one", entities=[ACCOUNT], schema=[keys[0], *fields], source=source),
                     FeatureView(name="both", entities=[ACCOUNT, SEAT], schema=[*keys, *fields], source=source)])
        return store, home

    return make


def materialize(store, end=NEXT):
    """Brings the day up to an end into the online store."""
    with contextlib.redirect_stdout(io.StringIO()), feast_clocks():
        store.materialize(start_date=(AT - pd.Timedelta(days=1)).to_pydatetime(), end_date=end.to_pydatetime())


def tables(home):
    """All that the online store holds."""
    with contextlib.closing(sqlite3.connect(home / "online.db")) as connection:
        return {name: connection.execute(f"SELECT * FROM {name} ORDER BY entity_key, feature_name").fetchall()
                for name in ("shop_one", "shop_both")}


def test_the_online_tables_are_those_that_feast_writes(shop, monkeypatch):
    """Every type of value, missing ones, strange names and keys; in several parts; and once more over what is there."""
    monkeypatch.setattr(online, "_ENTITIES", 4)
    ours, theirs = shop("ours", {"type": online.NAME}), shop("theirs", "local")
    for end in (AT, NEXT, NEXT):
        for store, _ in (ours, theirs):
            materialize(store, end)
        assert tables(theirs[1]) == tables(ours[1])
    assert {"shop_one": 6 * len(TYPES), "shop_both": 6 * len(TYPES)} == {
        name: len(rows) for name, rows in tables(ours[1]).items()}
    asked = [{"account_id": name} for name in (*ROWS["account_id"].to_pylist(), "nobody")]
    with feast_clocks():
        answers = [store.get_online_features([f"one:{name}" for name in TYPES], asked).to_dict()
                   for store, _ in (ours, theirs)]
    assert repr(answers[1]) == repr(answers[0])
    assert [-2.25, None, None, 1e300, -2.25, float("inf"), 0.1, None] == answers[0]["double"]


def test_it_is_whole_or_not_at_all(shop, monkeypatch):
    """Cut off between two parts, a view keeps what it had; and Feast hears of it."""
    store, home = shop("ours", {"type": online.NAME})
    materialize(store, AT)
    before = tables(home)
    monkeypatch.setattr(online, "_ENTITIES", 4)
    whole = online._entity_keys
    calls = []

    def broken(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError("cut off")
        return whole(*arguments)

    monkeypatch.setattr(online, "_entity_keys", broken)
    with pytest.raises(OSError, match="cut off"):
        materialize(store)
    assert before == tables(home)


def test_other_stores_and_vectors_go_the_way_of_feast(shop, monkeypatch):
    """What is not plain is left to Feast's own node."""
    written = []
    monkeypatch.setattr(online, "_write", lambda *arguments: written.append(arguments))
    store, home = shop("vectors", {"type": online.NAME})
    store.config.online_store.enable_openai_compatible_store = True
    materialize(store)
    assert ([], 6 * len(TYPES)) == (written, len(tables(home)["shop_one"]))
