"""The store against compute_features: what was written comes back, in order, or not at all."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from churnkit.cutoffs import duration, moment
from churnkit.errors import FeatureError
from churnkit.learning.targets import CHURN, MAINTENANCE
from churnkit.schemas import POINTS
from churnkit.settings import from_mapping
from churnkit.signals import partitions
from churnkit.signals.catalog import Catalog
from churnkit.signals.compute import compute_features
from churnkit.signals.features import groups
from churnkit.signals.points import points_at
from churnkit.signals.store import Store
from churnkit.signals.tables import Tables

CUTOFFS = [moment(day) for day in ("2025-05-01", "2025-05-29", "2025-06-26")]


@pytest.fixture(scope="module")
def book():
    """Three accounts with a little use and an asset each."""
    ids = ["A", "007", "7"]
    tables = Tables.from_frames(
        from_mapping({"covers_until": "2026-01-01"}),
        accounts=pd.DataFrame({"account_id": ids, "created_at": "2024-01-01"}),
        subscriptions=pd.DataFrame({"account_id": ids, "started_at": "2024-01-01", "plan": ["s", "s", None],
                                    "seats": 2.0,
                                    "mrr": 9.0, "currency": "EUR"}),
        usage_events=pd.DataFrame({"account_id": ["A", "A", "7"], "event": ["open", "x y", "open"],
                                   "occurred_at": ["2025-04-20", "2025-05-20", "2025-06-20"]}),
        assets=pd.DataFrame({"asset_id": ["M1", "M2"], "account_id": ["A", "7"], "installed_at": "2024-01-01"}),
    )
    points = pd.concat([points_at(tables, "account", CUTOFFS), points_at(tables, "asset", CUTOFFS)], ignore_index=True)
    return points, compute_features(tables, points)


@pytest.fixture(scope="module")
def store(book, tmp_path_factory):
    """A store that holds the book's features."""
    store = Store(tmp_path_factory.mktemp("workspace") / "features")
    store.write(book[1])
    return store


def of(frame, entity):
    """The rows of one entity, from 0."""
    return frame[frame["entity"] == entity].reset_index(drop=True)


@pytest.mark.parametrize("target", [CHURN, MAINTENANCE], ids=lambda target: target.name)
def test_what_was_written_comes_back_in_the_order_asked_for(store, book, target):
    """Shuffled points, equal values, the same categories, and nothing that the model may never see."""
    points, features = book
    asked = of(points, target.entity).sample(frac=1, random_state=1)
    found = store.read(asked, target)
    expected = of(features, target.entity).set_index("row_id").loc[list(asked["row_id"])].reset_index()
    definitions = groups(store.catalog)
    names = [name for group in target.groups for name in definitions[group].names if name != "notice_given"]
    assert [*POINTS, *names] == list(found.columns)
    pd.testing.assert_frame_equal(expected[list(found.columns)], found)


def test_a_point_is_served_the_newest_features_within_their_time_to_live(store, book):
    """Five days on the same values still count."""
    points, features = book
    asked = of(points, "account").iloc[[0]]
    later = asked.assign(cutoff=asked["cutoff"] + pd.Timedelta(days=5))
    found = store.read(later, CHURN)
    assert found["events_28d"].iloc[0] == of(features, "account")["events_28d"].iloc[0]
    assert found["cutoff"].iloc[0] == later["cutoff"].iloc[0]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"cutoff": CUTOFFS[2] + duration("8d")}, "the newest are of 2025-06-26, past their time to live of 7 days"),
        ({"entity_id": "nobody"}, "there are none"),
        ({"cutoff": CUTOFFS[0] - duration("1d")}, "there are none"),
    ],
)
def test_missing_and_stale_features_are_refused(store, book, change, why):
    """Feast would give NaN in silence."""
    asked = of(book[0], "account")
    asked = pd.concat([asked.iloc[[0, 1]], asked.iloc[[2]].assign(**change)])
    asked["cutoff"] = pd.to_datetime(asked["cutoff"], utc=True)
    with pytest.raises(FeatureError, match=f"1 of 3 points.*{why}.*churnkit features --at"):
        store.read(asked, CHURN)


def test_computed_and_empty_is_not_missing(store, book):
    """An account that was never used has a missing last use, and is served."""
    points, _ = book
    asked = of(points, "account")
    found = store.read(asked[asked["entity_id"] == "007"], CHURN)
    assert found["days_since_last_event"].isna().all()


def test_writing_twice_is_writing_once(book, tmp_path):
    """A row that is written again is replaced; another of the same day stays."""
    _, features = book
    store = Store(tmp_path / "features")
    store.write(features)
    store.write(features)
    folder = store.path / "data" / "usage"
    assert sum(pq.read_metadata(file).num_rows for file in partitions.files(folder)) == len(of(features, "account"))
    noon = of(features, "account").assign(cutoff=lambda frame: frame["cutoff"] + pd.Timedelta(hours=12), events_7d=99.0)
    store.write(noon)
    found = store.read(noon[["row_id", "entity", "entity_id", "account_id", "cutoff"]], CHURN)
    assert set(found["events_7d"]) == {99.0}
    assert not set(store.read(of(features, "account"), CHURN)["events_7d"]) & {99.0}
    assert [file for file in folder.iterdir() if file.name.startswith(".")] == []


def check_half_written(store, book, files):
    """What a writer left behind is whole, what lacks is known, and a second run completes it."""
    points, features = book
    there = sorted((store.path / "data").glob("*/*.parquet"))
    assert files == len(there)
    for file in there:
        partitions.read(file)
    assert len(points) == len(store.lacking(points))  # no point has all its groups yet
    store.write(features, keep=True)
    assert 0 == len(store.lacking(points))
    expected = of(features, "account")
    assert expected["events_28d"].tolist() == store.read(of(points, "account"), CHURN)["events_28d"].tolist()


@pytest.mark.parametrize("files", [0, 1, 4, 20])
def test_a_writer_that_fails_between_files_leaves_whole_ones(book, tmp_path, monkeypatch, files):
    """After so many files; the one that was being written is not there, nor any rest of it."""
    store = Store(tmp_path / "features")
    written, replace = [], Path.replace

    def replace_or_fail(self, target):
        if target.suffix == ".parquet":
            if len(written) == files:
                raise OSError("no space left on device")
            written.append(target)
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace_or_fail)
        with pytest.raises(OSError, match="no space left"):
            store.write(book[1])
    assert [] == list((store.path / "data").glob("*/.*"))
    check_half_written(store, book, files)


@pytest.mark.slow
def test_a_writer_killed_between_files_leaves_whole_ones(book, tmp_path):
    """The process dies without a chance to tidy up; its half-written file is never taken for a feature file."""
    store = Store(tmp_path / "features")
    Catalog(**book[1].attrs["catalog"]).save(store.path / "catalog.json")
    book[1].to_parquet(tmp_path / "features.parquet")
    code = f"""
import os, pathlib
import pandas as pd
from churnkit.signals.store import Store
written, replace = [], pathlib.Path.replace
def replace_or_die(self, target):
    if len(written) == 11:
        os._exit(9)
    written.append(target)
    return replace(self, target)
pathlib.Path.replace = replace_or_die
Store({str(store.path)!r}).write(pd.read_parquet({str(tmp_path / "features.parquet")!r}))
"""
    assert 9 == subprocess.run([sys.executable, "-c", code], check=False).returncode
    assert 1 == len(list((store.path / "data").glob("*/.*")))
    check_half_written(store, book, 11)


def test_an_entity_that_came_late_is_lacking_and_is_added_beside_the_others(book, tmp_path):
    """An account that an export forgot gets its features at old cutoffs, and no other row moves."""
    points, features = book
    store = Store(tmp_path / "features")
    assert len(points) == len(store.lacking(points))
    late = features["entity_id"] == "007"
    store.write(features[~late])
    lacking = store.lacking(points)
    assert list(points.loc[points["entity_id"] == "007", "row_id"]) == list(lacking["row_id"])
    store.write(features[late])
    assert len(store.lacking(points)) == 0
    found = store.read(of(points, "account"), CHURN)
    expected = of(features, "account")
    assert expected["events_28d"].tolist() == found["events_28d"].tolist()


def test_a_damaged_feature_file_says_what_to_do(book, tmp_path):
    """Reading, looking what is there, and writing beside it name the file and the mend."""
    points, features = book
    store = Store(tmp_path / "features")
    store.write(features)
    day = store.path / "data" / "usage" / "2025-05-29.parquet"
    day.write_bytes(b"half a fi")
    for call in (lambda: store.lacking(points), lambda: store.write(features),
                 lambda: store.read(of(points, "account"), CHURN)):
        with pytest.raises(FeatureError, match=r"2025-05-29\.parquet.*Delete it and compute that day again"):
            call()


def test_damaged_registries_and_catalogs_say_what_to_do(book, tmp_path):
    """Feast's registry and online store, and our catalog: each names its mend, and none ends in a bare error."""
    _, features = book
    for file, mend in (("data/online.db", "Delete it there"), ("data/registry.db", r"delete data/registry\.db"),
                       ("feature_store.yaml", r"Restore its feature_store\.yaml"), ("catalog.json", "Restore")):
        store = Store(tmp_path / file.replace("/", "_") / "features")
        store.write(features)
        store.apply(CHURN)
        junk = '{"schema_version": 1, "sensors": [1]}' if "catalog" in file else "junk: :" * 9
        (store.path / file).write_text(junk)
        with pytest.raises(FeatureError, match=mend):
            Store(store.path).materialize("2025-06-27", CHURN)


def test_the_catalog_is_frozen_with_the_first_write(store, book):
    """Features of another catalog are refused, with the mend."""
    _, features = book
    assert store.catalog.events == ("open", "x y")
    with pytest.raises(FeatureError, match=r"catalog=store\.catalog"):
        store.write(features.drop(columns="event_x_y_28d"))


def test_a_store_without_a_catalog_asks_for_one(book, tmp_path):
    """A frame that lost its catalog on the way cannot be the first to be written."""
    features = book[1].copy()
    features.attrs = {}
    with pytest.raises(FeatureError, match="catalog=discover"):
        Store(tmp_path / "features").write(features)


def test_newer_feature_files_are_refused(book, tmp_path, monkeypatch):
    """An older program says so instead of reading what it does not understand."""
    points, features = book
    store = Store(tmp_path / "features")
    with monkeypatch.context() as patch:
        patch.setattr(partitions, "SCHEMA_VERSION", partitions.SCHEMA_VERSION + 1)
        store.write(features)
    with pytest.raises(FeatureError, match="Upgrade churnkit"):
        store.read(of(points, "account"), CHURN)


def test_a_target_sees_its_own_groups_alone(store, book):
    """A service is derived from the target's groups and what it may never see."""
    small = replace(CHURN, name="small", groups=("usage", "contract"), never=("plan", "notice_given"))
    found = store.read(of(book[0], "account"), small)
    assert "mrr" in found
    assert "plan" not in found
    assert "tickets_open" not in found


def test_online_serving_answers_the_newest_features_of_one_account(store, book):
    """After materialize; someone unknown is refused."""
    _, features = book
    store.materialize("2025-06-27", CHURN)
    served = store.online("7", CHURN)
    expected = of(features, "account").query("entity_id == '7'").iloc[-1]
    assert served["cutoff"] == CUTOFFS[2]
    assert (served["events_28d"], served["plan"], served["mrr"]) == (expected["events_28d"], None, 9.0)
    assert store.online("A", CHURN)["plan"] == "s"
    with pytest.raises(FeatureError, match=r"store\.materialize"):
        store.online("nobody", CHURN)


def test_online_serving_stands_beside_a_package_that_keeps_times_otherwise(store, book, tmp_path):
    """`DataFrame.to_sql` sets how times are kept in SQLite for the whole process; Feast has its own while it works."""
    with contextlib.closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        pd.DataFrame({"at": [1]}).to_sql("others", connection)
        store.materialize("2025-06-27", CHURN)
        assert store.online("A", CHURN)["cutoff"] == CUTOFFS[2]
        kept = connection.execute("SELECT ?", [CUTOFFS[2].replace(tzinfo=None)]).fetchone()
    assert kept == (CUTOFFS[2].replace(tzinfo=None).isoformat(" "),)


def test_no_points_give_no_rows(store, book):
    """The columns stand, the rows are none."""
    found = store.read(of(book[0], "account").iloc[:0], CHURN)
    assert len(found) == 0
    assert "events_28d" in found


@pytest.mark.slow
def test_feast_works_by_hand_in_the_folder(book, tmp_path):
    """`feast apply` and `feast materialize` in features/, with nothing but the folder's own files."""
    store = Store(tmp_path / "features")
    store.write(book[1])
    feast = str(Path(sys.executable).with_name("feast"))
    applied = subprocess.run([feast, "apply"], cwd=store.path, capture_output=True, text=True, check=True)
    for name in ("account", "asset", "usage", "account_assets", "churn", "expansion", "maintenance"):
        assert f" {name}\n" in applied.stdout
    subprocess.run([feast, "materialize", "2025-06-20T00:00:00", "2025-06-27T00:00:00"], cwd=store.path, check=True,
                   capture_output=True)
    assert store.online("A", CHURN)["cutoff"] == CUTOFFS[2]
