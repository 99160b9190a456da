"""The offline store as Feast's plug-in interface means it, against a naive loop over points and rows."""

from __future__ import annotations

import datetime as dt
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from churnkit.errors import FeatureError
from churnkit.signals import partitions
from churnkit.signals.newest import Keyed, latest, newest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.data_format import DeltaFormat
    from feast.errors import SavedDatasetLocationAlreadyExists
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
    from feast.on_demand_feature_view import on_demand_feature_view
    from feast.types import Float64, Int64, String

TTL = dt.timedelta(seconds=2, microseconds=5)
START = pd.Timestamp("2026-03-29 00:30", tz="UTC").as_unit("us")  # an hour before Berlin's clocks go forward
ASOF = "churnkit.signals.asof.AsofOfflineStore"
ACCOUNT = Entity(name="account", join_keys=["account_id"], value_type=ValueType.STRING)
ASSET = Entity(name="asset", join_keys=["asset_id"], value_type=ValueType.STRING)
QUIET = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def at(micros):
    """A time so many microseconds after the start."""
    return START + pd.Timedelta(int(micros), unit="us")


def stamps(micros, unit="us"):
    """A column of such times; None is missing."""
    start = START.value // 1000
    scale = 1000 if unit == "ns" else 1
    return pa.array([None if value is None else (start + value) * scale for value in micros],
                    pa.timestamp(unit, "UTC"))


def view(name, entities, fields, ttl=TTL, **source):
    """A view over the Parquet file or folder of its name."""
    files = FileSource(**{"name": f"{name}_files", "path": f"data/{name}", "timestamp_field": "event_timestamp",
                          "created_timestamp_column": "created", **source})
    keys = [Field(name=f"{entity.name}_id", dtype=String) for entity in entities]
    return FeatureView(name=name, entities=entities, ttl=ttl, source=files,
                       schema=[*keys, *(Field(name=field, dtype=kind) for field, kind in fields.items())])


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A Feast repo with a view of accounts, one of assets, one of both, one whose columns have other names, and an
    on-demand view.
    """
    home = tmp_path_factory.mktemp("repo")
    (home / "data").mkdir()
    store = FeatureStore(config=RepoConfig(
        project="shop", provider="local", registry=str(home / "data/registry.db"), repo_path=home,
        offline_store={"type": ASOF},
        online_store={"type": "sqlite", "path": "data/online.db"}, entity_key_serialization_version=3))
    usage = view("usage", [ACCOUNT], {"x": Float64, "word": String, "n": Int64})
    mapped = view("mapped", [ACCOUNT], {"score": Float64}, path="data/mapped.parquet",
                  field_mapping={"s": "score", "who": "account_id", "happened": "event_timestamp"})
    views = [usage, view("repair", [ASSET], {"hours": Float64}),
             view("both", [ACCOUNT, ASSET], {"share": Float64}, ttl=None, created_timestamp_column=""), mapped]

    def double(frame: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"twice": frame["x"] * 2})

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        doubled = on_demand_feature_view(sources=[usage], schema=[Field(name="twice", dtype=Float64)])(double)
        store.apply([ACCOUNT, ASSET, *views, doubled])
    return SimpleNamespace(home=home, store=store, views={each.name: each for each in views})


def put(shop, name, **columns):
    """Writes the rows of one view as a plain Parquet file in its folder."""
    file = shop.home / "data" / name
    file = file if file.suffix else file / "rows.parquet"
    file.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), file)


def put_usage(shop, rows):
    """Rows of (key, time, created, x); the other columns follow from their number."""
    put(shop, "usage", account_id=pa.array([row[0] for row in rows], pa.string()),
        event_timestamp=stamps([row[1] for row in rows]), created=stamps([row[2] for row in rows]),
        x=pa.array([row[3] for row in rows], pa.float64()),
        word=pa.array([None if n % 3 == 2 else f"w{n}" for n in range(len(rows))], pa.string()),
        n=pa.array([None if n % 4 == 3 else 2**60 + n for n in range(len(rows))], pa.int64()))


def ask(shop, points, features, **how):
    """What Feast answers, as a frame of Arrow's values."""
    return shop.store.get_historical_features(points, features, **how).to_arrow()


def oracle(rows, key, when, ttl, *, known):
    """The number of the row that must be served, by looking at every row."""
    best = None
    for number, (own, time, created, *_) in enumerate(rows):
        if own is None or own != key or time is None or time > when:
            continue
        if known and (created is None or created > when):
            continue
        order = (time, -np.inf if created is None else created)
        if best is None or order >= best[0]:
            best = (order, number)
    if best is None or (ttl is not None and when - best[0][0] > ttl):
        return -1
    return best[1]


KEYS = st.sampled_from(["007", "7", "A", None])
TIMES = st.sampled_from([0, 1, 2, 1_000_000, 2_000_004, 2_000_005, 2_000_006, 4_000_010])
ROWS = st.lists(st.tuples(KEYS, st.one_of(TIMES, st.none()), st.one_of(TIMES, st.none()),
                          st.sampled_from([None, float("nan"), 1.5, -2.0])), max_size=12)
POINTS = st.lists(st.tuples(KEYS, TIMES), min_size=1, max_size=12)


@QUIET
@given(ROWS, POINTS, st.booleans())
def test_every_point_is_served_what_a_loop_finds(shop, rows, points, known):
    """Ties, duplicates of points, keys that are missing, the last microsecond of the time to live, late rows: the
    newest row, in the points' own order and with their own ids.
    """
    put_usage(shop, rows)
    asked = pd.DataFrame({"row_id": [f"p{n}" for n in range(len(points))][::-1],
                          "account_id": [key for key, _ in points],
                          "event_timestamp": [at(when) for _, when in points]})
    found = ask(shop, asked, ["usage:n", "usage:x", "usage:word"], filter_by_created_timestamp=known)
    numbers = [oracle(rows, key, when, TTL // dt.timedelta(microseconds=1), known=known) for key, when in points]
    assert list(asked["row_id"]) == found["row_id"].to_pylist()
    assert ["row_id", "account_id", "event_timestamp", "n", "x", "word"] == found.column_names
    assert [None if n < 0 or n % 4 == 3 else 2**60 + n for n in numbers] == found["n"].to_pylist()
    assert [None if n < 0 or n % 3 == 2 else f"w{n}" for n in numbers] == found["word"].to_pylist()
    assert [repr(rows[n][3]) if n >= 0 else "None" for n in numbers] == [repr(x) for x in found["x"].to_pylist()]


@QUIET
@given(st.lists(st.tuples(KEYS, KEYS, TIMES), max_size=10), st.lists(st.tuples(KEYS, KEYS, TIMES), min_size=1,
                                                                      max_size=10))
def test_keys_of_two_columns_match_in_both(rows, points):
    """Without a time to live and without creation times; the last of equal rows is taken."""
    keyed, asked = (Keyed((pa.chunked_array([pa.array([row[0] for row in part], pa.string())]),
                           pa.chunked_array([pa.array([row[1] for row in part], pa.string())])),
                          np.array([row[2] for row in part], np.int64)) for part in (rows, points))
    pairs = [(None if None in row[:2] else row[:2], row[2], None) for row in rows]
    expected = [oracle(pairs, None if None in point[:2] else point[:2], point[2], None, known=False)
                for point in points]
    assert expected == newest(keyed, asked).tolist()


@QUIET
@given(ROWS, TIMES, TIMES)
def test_the_latest_row_of_each_key_in_a_span(rows, first, last):
    """What is materialized: by the same rules, both ends of the span included."""
    keyed = Keyed((pa.chunked_array([pa.array([row[0] for row in rows], pa.string())]),),
                  *(np.array([-2**63 if row[n] is None else row[n] for row in rows], np.int64) for n in (1, 2)))
    inside = [(key if time is not None and first <= time <= last else None, time, created, x)
              for key, time, created, x in rows]
    served = {oracle(inside, key, 10**9, None, known=False) for key in ("007", "7", "A")} - {-1}
    assert sorted(served) == latest(keyed, first, last).tolist()


def test_feasts_own_store_serves_the_same(shop):
    """The DuckDB store that Feast brings: equal values, once its rows are put in order."""
    rng = np.random.default_rng(1)
    rows = [(f"k{rng.integers(9)}", n * 100_000, n * 100_000 + int(rng.integers(0, 500_000)), float(n))
            for n in range(90)]
    put_usage(shop, rows)
    asked = pd.DataFrame({"row_id": range(60), "account_id": [f"k{rng.integers(10)}" for _ in range(60)],
                          "event_timestamp": [at(rng.integers(0, 12_000_000)) for _ in range(60)]})
    config = shop.store.config.model_copy(deep=True)
    config.offline_config, config._offline_store = {"type": "duckdb"}, None
    for known in (False, True):
        from feast.infra.offline_stores.duckdb import DuckDBOfflineStore

        theirs_view = shop.views["usage"]
        absolute = FileSource(name="absolute", path=str(shop.home / "data" / "usage" / "rows.parquet"),
                              timestamp_field="event_timestamp", created_timestamp_column="created")
        copied = view("usage", [ACCOUNT], {"x": Float64}, path=absolute.path)
        copied.entity_columns = theirs_view.entity_columns
        theirs = DuckDBOfflineStore.get_historical_features(
            config, [copied], ["usage:x"], asked, shop.store.registry, "shop",
            filter_by_created_timestamp=known).to_df().sort_values("row_id")
        ours = ask(shop, asked, ["usage:x"], filter_by_created_timestamp=known).to_pandas()
        pd.testing.assert_series_equal(theirs["x"].reset_index(drop=True), ours["x"])


def test_several_views_of_two_entities_at_once(shop):
    """Each view is joined by its own keys; the points' other columns pass through."""
    put_usage(shop, [("A", 0, 0, 1.0), ("B", 5, 5, 2.0)])
    put(shop, "repair", asset_id=["M"], event_timestamp=stamps([1]), created=stamps([1]), hours=[7.0])
    put(shop, "both", account_id=["A", "B"], asset_id=["M", "M"], event_timestamp=stamps([1, 2]), share=[0.1, 0.2])
    asked = pd.DataFrame({"asset_id": ["M", "M", "N"], "note": ["a", "b", "c"], "account_id": ["B", "A", "A"],
                          "event_timestamp": [at(10)] * 3})
    found = ask(shop, asked, ["both:share", "repair:hours", "usage:x"])
    assert {"share": [0.2, 0.1, None], "hours": [7.0, 7.0, None], "x": [2.0, 1.0, 1.0]} == {
        name: found[name].to_pylist() for name in ("share", "hours", "x")}
    assert ["a", "b", "c"] == found["note"].to_pylist()


def test_a_view_can_be_joined_by_another_column_and_under_another_name(shop):
    """Feast's `with_name` and `with_join_key_map`: the parent's features beside one's own, by their full names."""
    put_usage(shop, [("A", 0, 0, 1.0), ("P", 0, 0, 9.0)])
    parent = shop.views["usage"].with_name("parent").with_join_key_map({"account_id": "parent_id"})[["x"]]


    own = shop.views["usage"].with_name("own")[["x", "n"]]  # Feast cannot compare a view with an alias to one without
    service = FeatureService(name="family", features=[own, parent])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shop.store.apply([service])
    asked = pd.DataFrame({"account_id": ["A", "P"], "parent_id": ["P", None], "event_timestamp": [at(1)] * 2})
    found = ask(shop, asked, shop.store.get_feature_service("family"), full_feature_names=True)
    assert {"own__x": [1.0, 9.0], "own__n": [2**60, 2**60 + 1], "parent__x": [9.0, None]} == {
        name: found[name].to_pylist() for name in found.column_names[3:]}


def test_columns_of_other_names_are_mapped(shop):
    """Features, keys and times, in a single file."""
    put(shop, "mapped.parquet", who=["A"], happened=stamps([3]), created=stamps([3]), s=[4.0])
    asked = pd.DataFrame({"account_id": ["A", "A"], "event_timestamp": [at(2), at(3)]})
    assert [None, 4.0] == ask(shop, asked, ["mapped:score"])["score"].to_pylist()


def test_on_demand_features_are_computed_from_what_is_served(shop):
    """Feast does that from our result; a feature that is only their input comes along, as with Feast's own stores."""
    put_usage(shop, [("A", 0, 0, 1.5)])
    asked = pd.DataFrame({"account_id": ["A", "B"], "event_timestamp": [at(1)] * 2})
    found = shop.store.get_historical_features(asked, ["double:twice"]).to_df()
    assert [3.0] == found["twice"].dropna().tolist()


@pytest.mark.parametrize("kind", ["naive", "Berlin", "nanoseconds", "text", "seconds"])
def test_points_in_any_kind_of_time(shop, kind):
    """Naive times are UTC, others are converted; a nanosecond more is the same microsecond."""
    put_usage(shop, [("A", 0, 0, 1.0), ("A", 3_600_000_000, 3_600_000_000, 2.0)])
    utc = pd.Series([at(0), at(3_600_000_000)])
    asked = {"naive": utc.dt.tz_localize(None), "Berlin": utc.dt.tz_convert("Europe/Berlin"),
             "nanoseconds": utc.dt.as_unit("ns") + pd.Timedelta(1, unit="ns"), "seconds": utc.dt.as_unit("s"),
             "text": utc.astype(str)}[kind]
    points = pd.DataFrame({"account_id": ["A", "A"], "event_timestamp": asked})
    found = ask(shop, points, ["usage:x"])
    assert [1.0, 2.0] == found["x"].to_pylist()
    assert list(pd.to_datetime(asked, utc=True)) == list(found["event_timestamp"].to_pandas())


def test_rows_in_nanoseconds_and_of_older_columns(shop):
    """Files of another hand: finer times, whole numbers where now are fractions, and a column that came later."""
    put(shop, "usage", account_id=["A"], event_timestamp=stamps([0], "ns"), created=stamps([0], "ns"), x=[1])
    newer = pa.table({"account_id": ["B"], "event_timestamp": stamps([0]), "created": stamps([0]), "x": [1.5],
                      "word": ["w"]})
    pq.write_table(newer, shop.home / "data" / "usage" / "second.parquet")
    try:
        asked = pd.DataFrame({"account_id": ["B", "A"], "event_timestamp": [at(0)] * 2})
        found = ask(shop, asked, ["usage:x", "usage:word"])
    finally:
        (shop.home / "data" / "usage" / "second.parquet").unlink()
    assert ([1.5, 1.0], ["w", None]) == (found["x"].to_pylist(), found["word"].to_pylist())


def test_no_points_give_no_rows(shop):
    """The columns stand."""
    put_usage(shop, [("A", 0, 0, 1.0)])
    points = pd.DataFrame({"account_id": pd.Series([], dtype=object),
                           "event_timestamp": pd.Series([], dtype="datetime64[us, UTC]")})
    found = ask(shop, points, ["usage:x", "usage:word"])
    assert (["account_id", "event_timestamp", "x", "word"], 0) == (found.column_names, len(found))


def test_points_by_a_query(shop):
    """DuckDB's SQL; a file in it is relative to the repo."""
    put_usage(shop, [("A", 0, 0, 1.0)])
    pq.write_table(pa.table({"account_id": ["B", "A"], "event_timestamp": stamps([1, 1])}), shop.home / "asked.parquet")
    found = ask(shop, "SELECT * FROM 'asked.parquet' ORDER BY account_id", ["usage:x"])
    assert ([1.0, None], ["A", "B"]) == (found["x"].to_pylist(), found["account_id"].to_pylist())


def test_a_result_is_kept_as_a_saved_dataset_and_pulled_again(shop):
    """In the repo, not in the working directory; not over another without being told to."""
    put_usage(shop, [("A", 0, 0, 1.0), ("B", 0, 0, None)])
    asked = pd.DataFrame({"account_id": ["A", "B"], "event_timestamp": [at(1)] * 2})
    storage = SavedDatasetFileStorage(path="data/saved.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        saved = shop.store.create_saved_dataset(shop.store.get_historical_features(asked, ["usage:x"]), "saved",
                                                storage)
        assert [1.0, None] == saved.to_arrow()["x"].to_pylist()
        with pytest.raises(SavedDatasetLocationAlreadyExists):
            shop.store.create_saved_dataset(shop.store.get_historical_features(asked, ["usage:x"]), "saved", storage)
    assert 2 == pq.read_metadata(shop.home / "data" / "saved.parquet").num_rows


@pytest.mark.parametrize(
    ("points", "mend"),
    [
        ({"account_id": [7]}, r"'account_id' is of type int64, the features' of string.*'007' is not 7"),
        ({"asset_id": ["M"]}, r"no column 'account_id', by which the features are joined\. Add it"),
        ({"account_id": ["A"], "x": [1.0]}, "have a column 'x', which is a feature's name too. Rename it"),
    ],
)
def test_points_that_do_not_fit_are_refused(shop, points, mend):
    """With what to change."""
    put_usage(shop, [("A", 0, 0, 1.0)])
    with pytest.raises(ValueError, match=mend):
        ask(shop, pd.DataFrame({**points, "event_timestamp": [at(1)]}), ["usage:x"])


def test_what_cannot_be_read_is_said(shop):
    """No points, no files, files elsewhere, another format, a column that no file has."""
    asked = pd.DataFrame({"account_id": ["A"], "event_timestamp": [at(1)]})
    with pytest.raises(ValueError, match="pass entity_df"):
        shop.store.get_historical_features(features=["usage:x"], start_date=at(0), end_date=at(1))
    from churnkit.signals.asof import AsofOfflineStore

    def serve(**source):
        made = view("usage", [ACCOUNT], {"x": Float64}, **source)
        return AsofOfflineStore.get_historical_features(shop.store.config, [made], ["usage:x"], asked,
                                                        shop.store.registry, "shop").to_arrow()

    with pytest.raises(ValueError, match=r"no Parquet files at .*nowhere"):
        serve(path="data/nowhere")
    with pytest.raises(ValueError, match=r"not on this machine.*docs/feast\.md"):
        serve(path="s3://bucket/usage")
    with pytest.raises(ValueError, match="no source of Parquet files"):
        serve(path="data/usage", file_format=DeltaFormat())
    put(shop, "usage", account_id=["A"], event_timestamp=stamps([0]), created=stamps([0]))
    with pytest.raises(ValueError, match="'usage_files' have no column 'x'"):
        serve()


def test_only_the_days_that_can_matter_are_opened(shop, tmp_path):
    """A damaged file of a day before the time to live does no harm; one inside it does."""
    schema = partitions.schema("account_id", {"x": "number", "word": "category", "n": "moment"})
    days = [START + pd.Timedelta(days=n) for n in range(5)]
    frame = pd.DataFrame({"account_id": "A", partitions.TIME: days, partitions.CREATED: days, "x": range(5),
                          "word": None, "n": 1})
    from churnkit.signals.asof import AsofOfflineStore

    partitions.write(tmp_path / "usage", frame, schema)
    made = view("usage", [ACCOUNT], {"x": Float64}, ttl=dt.timedelta(days=1), path=str(tmp_path / "usage"))
    asked = pd.DataFrame({"account_id": ["A"], "event_timestamp": [days[3]]})

    def serve():
        return AsofOfflineStore.get_historical_features(shop.store.config, [made], ["usage:x"], asked,
                                                        shop.store.registry, "shop").to_arrow()["x"].to_pylist()

    for day in (0, 1, 4):
        (tmp_path / "usage" / f"{days[day]:%Y-%m-%d}.parquet").write_bytes(b"half a fi")
    assert [3.0] == serve()
    (tmp_path / "usage" / f"{days[2]:%Y-%m-%d}.parquet").write_bytes(b"half a fi")
    with pytest.raises(FeatureError, match="Delete it and compute that day again"):
        serve()
