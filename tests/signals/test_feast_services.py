"""Feast at scale is configuration only: the files in docs/feast.md, on real servers, against the same rows in files."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
import pytest
import sqlalchemy as sa

from churnkit.cutoffs import moment
from churnkit.errors import FeatureError
from churnkit.learning.targets import CHURN, MAINTENANCE
from churnkit.settings import from_mapping
from churnkit.signals.compute import compute_features
from churnkit.signals.points import points_at
from churnkit.signals.store import Store
from churnkit.signals.tables import Tables

DOCS = Path(__file__).parents[2] / "docs" / "feast.md"
CUTOFFS = [moment(day) for day in ("2025-05-29", "2025-06-26")]


@pytest.fixture(scope="module")
def book():
    """Points and features of three accounts and two assets at two cutoffs."""
    ids = ["A", "007", "7"]
    tables = Tables.from_frames(
        from_mapping({"covers_until": "2026-01-01"}),
        accounts=pd.DataFrame({"account_id": ids, "created_at": "2024-01-01"}),
        subscriptions=pd.DataFrame({"account_id": ids, "started_at": "2024-01-01", "plan": ["s", "ß'\\t", None],
                                    "seats": 2.0, "mrr": 9.5, "currency": "EUR"}),
        usage_events=pd.DataFrame({"account_id": ["A", "A", "7"], "event": ["open", "x y", "open"],
                                   "occurred_at": ["2025-04-20", "2025-05-20", "2025-06-20"]}),
        assets=pd.DataFrame({"asset_id": ["M1", "M2"], "account_id": ["A", "7"], "installed_at": "2024-01-01"}),
    )
    points = pd.concat([points_at(tables, kind, CUTOFFS) for kind in ("account", "asset")], ignore_index=True)
    return points, compute_features(tables, points)


@pytest.fixture
def configured(tmp_path):
    """Makes stores whose feature_store.yaml is the block of a name in the docs; closes their connections after."""
    made = []

    def make(name):
        (text,) = re.findall(rf"^```yaml {name}\n(.*?)^```", DOCS.read_text(), re.DOTALL | re.MULTILINE)
        folder = tmp_path / name / "features"
        folder.mkdir(parents=True)
        (folder / "feature_store.yaml").write_text(text)
        made.append(Store(folder))
        return made[-1]

    yield make
    for feast in [store._feast for store in made if store._feast is not None]:  # Feast itself leaves them to chance
        connection = getattr(feast._get_provider().online_store, "_conn", None)
        if connection is not None:
            connection.close()
        if hasattr(feast.registry, "write_engine"):
            feast.registry.write_engine.dispose()


@pytest.fixture
def pg(postgres, monkeypatch):
    """The variables of the docs' file, for a PostgreSQL database of one's own."""
    url = sa.make_url(postgres)
    values = {"PGHOST": url.host, "PGPORT": url.port or 5432, "PGDATABASE": url.database, "PGUSER": url.username,
              "PGPASSWORD": url.password or "", "PGSSLMODE": "prefer"}
    for name, value in values.items():
        monkeypatch.setenv(name, str(value))
    return postgres


@pytest.fixture
def redis_db(monkeypatch):
    """The variable of the docs' file, for an empty Redis database, which is emptied again; skips where none answers."""
    redis = pytest.importorskip("redis")
    url = urlsplit(os.environ.get("CHURNKIT_TEST_REDIS", "redis://127.0.0.1:6379"))
    for number in range(15, 0, -1):
        client = redis.Redis(host=url.hostname, port=url.port or 6379, db=number, password=url.password,
                             socket_connect_timeout=3)
        try:
            free = client.set("churnkit-test", "1", nx=True, ex=600) and client.dbsize() == 1
        except redis.RedisError as error:
            pytest.skip(f"no Redis at CHURNKIT_TEST_REDIS: {error}")
        if free:
            break
    else:
        pytest.skip("no empty database in the Redis at CHURNKIT_TEST_REDIS")
    password = f",password={url.password}" if url.password else ""
    monkeypatch.setenv("REDIS_ADDRESS", f"{url.hostname}:{url.port or 6379},db={number}{password}")
    yield client
    client.flushdb()
    client.close()


def of(frame, entity):
    """The rows of one entity, from 0."""
    return frame[frame["entity"] == entity].reset_index(drop=True)


def check_served(store, book):
    """Materialized features are those of the newest cutoff, for an account and an asset, and for nobody else."""
    features = book[1]
    store.materialize("2025-06-27", CHURN, MAINTENANCE)
    for target, entity_id in ((CHURN, "007"), (CHURN, "A"), (MAINTENANCE, "M1")):
        served = store.online(entity_id, target)
        row = of(features, target.entity).query("entity_id == @entity_id and cutoff == @CUTOFFS[1]").iloc[0]
        assert CUTOFFS[1] == served.pop("cutoff")
        assert [None if pd.isna(row[name]) else row[name] for name in served] == list(served.values())
    with pytest.raises(FeatureError, match=r"store\.materialize"):
        store.online("nobody", CHURN)


def check_read(store, book):
    """Shuffled and repeated points, and points between cutoffs, get what the files give."""
    points, features = book
    for target in (CHURN, MAINTENANCE):
        asked = of(points, target.entity).sample(frac=1, random_state=1)
        later = asked.assign(cutoff=asked["cutoff"] + pd.Timedelta(days=6, hours=23), row_id="later" + asked["row_id"])
        asked = pd.concat([later, asked])
        found = store.read(asked, target)
        row_ids = asked["row_id"].str.removeprefix("later")
        expected = of(features, target.entity).set_index("row_id").loc[list(row_ids)].reset_index()
        names = list(found.columns[found.columns.get_loc("cutoff") + 1:])
        assert list(asked["row_id"]) == list(found["row_id"])
        pd.testing.assert_frame_equal(expected[names], found[names], check_dtype=False)
    with pytest.raises(FeatureError, match="the newest are of 2025-06-26, past their time to live of 7 days"):
        store.read(of(points, "account").tail(1).assign(cutoff=CUTOFFS[1] + pd.Timedelta(days=8)), CHURN)


def test_redis_serves_what_was_materialized(configured, redis_db, book):
    """The features in files, the online store in Redis."""
    store = configured("redis")
    store.write(book[1])
    check_served(store, book)
    check_read(store, book)
    assert redis_db.dbsize() > 1


def test_postgresql_keeps_joins_and_serves(configured, pg, book):
    """Offline store, online store and registry; nothing but the catalog is written into the folder."""
    store = configured("postgres")
    store.write(book[1])
    check_served(store, book)
    check_read(store, book)
    assert [] == [file for file in (store.path / "data").rglob("*") if file.is_file()]
    with sa.create_engine(pg, poolclass=sa.NullPool).connect() as connection:
        services = connection.exec_driver_sql("SELECT feature_service_name FROM feature_services").scalars()
        assert {"churn", "maintenance"} == set(services)


def test_writing_to_postgresql_twice_is_writing_once(configured, pg, book):
    """Rows are replaced by their key, others stay; what is there is not lacking, and rows of other definitions are."""
    points, features = book
    store = configured("postgres")
    late = features["entity_id"] == "007"
    store.write(features[~late])
    assert set(points.loc[points["entity_id"] == "007", "row_id"]) == set(store.lacking(points)["row_id"])
    store.write(features.assign(events_7d=99.0))
    store.write(features)
    assert 0 == len(store.lacking(points))
    found = store.read(of(points, "account"), CHURN)
    assert of(features, "account")["events_7d"].tolist() == found["events_7d"].tolist()
    with sa.create_engine(pg, poolclass=sa.NullPool).begin() as connection:
        assert 6 == connection.exec_driver_sql("SELECT count(*) FROM features_usage").scalar()
        connection.exec_driver_sql("UPDATE features_usage SET definition = 'an earlier one' WHERE account_id = 'A'")
    assert {"A"} == set(store.lacking(points)["entity_id"])


def test_a_write_to_postgresql_is_whole_or_not_at_all(configured, pg, book, monkeypatch):
    """Cut off amid the rows, a group keeps its earlier ones."""
    points, features = book
    store = configured("postgres")
    store.write(features)

    spoilt = features.assign(events_7d=features["events_7d"].astype(object).where(features.index > 0, "many"))
    with pytest.raises(Exception, match="many"):
        store.write(spoilt)
    found = store.read(of(points, "account"), CHURN)
    assert of(features, "account")["events_7d"].tolist() == found["events_7d"].tolist()


@pytest.mark.parametrize("name", ["redis", "postgres"])
def test_a_server_that_does_not_answer_is_told_in_words(name, configured, book, monkeypatch):
    """One paragraph with the file to look into, whichever database it is."""
    pytest.importorskip({"redis": "redis", "postgres": "psycopg_pool"}[name])
    monkeypatch.setattr("time.sleep", lambda _: None)  # the Redis client tries again after some seconds
    for variable in ("PGUSER", "PGPASSWORD", "PGDATABASE"):
        monkeypatch.setenv(variable, "nobody")
    for variable, value in {"PGHOST": "127.0.0.1", "PGPORT": "9", "PGSSLMODE": "prefer",
                            "REDIS_ADDRESS": "127.0.0.1:9"}.items():
        monkeypatch.setenv(variable, value)
    store = configured(name)

    def use():
        store.write(book[1])
        store.materialize("2025-06-27", CHURN)

    with pytest.raises(FeatureError, match=r"feature_store\.yaml' names cannot be used .*See that it runs"):
        use()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_spark_joins_and_redis_serves(configured, redis_db, book, monkeypatch, tmp_path):
    """The features in files, joined by Spark in local mode, served from Redis."""
    if importlib.util.find_spec("pyspark") is None or shutil.which("java") is None:
        pytest.skip("needs pyspark (the extra 'spark') and Java 17")
    monkeypatch.setenv("SPARK_MASTER", "local[2]")
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    (tmp_path / "spark-defaults.conf").write_text("spark.sql.shuffle.partitions 2\nspark.ui.enabled false\n")
    store = configured("spark")
    store.write(book[1])
    check_read(store, book)
    check_served(store, book)


@pytest.mark.usefixtures("pg")
def test_a_restatement_lies_beside_the_row_that_was_known_in_postgresql_as_in_files(configured, book, tmp_path):
    """The same count of rows and values, the restated value served by default, and nothing to restate a second time."""
    points, features = book
    anew = features.assign(events_28d=features["events_28d"].where(features["entity_id"] != "A", 99.0))
    asked = of(points, "account")
    for store in (configured("postgres"), Store(tmp_path / "files" / "features")):
        store.write(features)
        assert tuple(store.restate(anew, "2025-07-10")) == (2, 2)
        found = store.read(asked, CHURN)
        assert found["events_28d"].tolist() == of(anew, "account")["events_28d"].tolist()
        assert tuple(store.restate(anew, "2025-07-11")) == (0, 0)
        store.write(features)  # an ordinary write replaces both
        assert store.read(asked, CHURN)["events_28d"].tolist() == of(features, "account")["events_28d"].tolist()
