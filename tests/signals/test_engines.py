"""Every feature on Spark equals the same one on DuckDB: random books, cutoffs of all shapes, the golden workspace."""

from __future__ import annotations

import sys

import pandas as pd
import pytest
from engine_books import SHAPES, book, catalog, features, on, points, same
from test_golden import CUTOFFS, MAPPING

from churnkit.errors import FeatureError, SettingsError
from churnkit.settings import from_mapping
from churnkit.signals.compute import compute_features, compute_group
from churnkit.signals.engines import opened
from churnkit.signals.features import groups
from churnkit.signals.points import points_at
from churnkit.signals.tables import read_tables

# PySpark leaves the sockets that it reads results from to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning",
                                        "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")


@pytest.mark.spark
@pytest.mark.parametrize(("seed", "shape"), [(1, "few"), (2, "weekly"), (3, "anywhen")])
def test_every_feature_on_spark_equals_the_one_on_duckdb(seed, shape, spark, tmp_path):
    """All groups, ours and a workspace's own, value by value."""
    tables = book(seed, tmp_path)
    expected = features(tables, shape)
    same(features(on(tables, "spark"), shape), expected)


@pytest.mark.spark
def test_the_golden_workspace_on_spark(spark, golden, monkeypatch, tmp_path):
    """The worked example, with Spark's settings as they come."""
    monkeypatch.setenv("CHURNKIT_GOLDEN", str(golden))
    tables = read_tables(MAPPING, at="2026-02-01")
    asked = pd.concat([points_at(tables, entity, CUTOFFS) for entity in ("account", "asset")], ignore_index=True)
    expected = compute_features(tables, asked)
    for name in ("spark.sql.adaptive.enabled", "spark.sql.codegen.wholeStage"):
        spark.conf.set(name, "true")
    same(compute_features(on(tables, "spark", engine_folder=str(tmp_path)), asked), expected)


@pytest.mark.spark
def test_what_was_brought_to_spark_is_removed(spark, tmp_path):
    """Neither files nor views stay behind, nor texts while it runs; a session that ran before runs on."""
    tables = on(book(1, tmp_path), "spark")
    with opened(tables) as engine:
        assert "body" not in engine.tables.expr("support_tickets").columns
        assert [*(tmp_path / "state" / "engine").rglob("*.parquet")] != []
    assert [*(tmp_path / "state" / "engine").iterdir()] == []
    assert [] == spark.catalog.listTables()
    assert 1 == spark.sql("SELECT 1 AS one").collect()[0]["one"]


def test_books_leave_no_feature_without_values(tmp_path):
    """What engines are compared by is not empty: every feature has several different values in one book or another."""
    alike = []
    for seed in (1, 3):
        tables = book(seed, tmp_path)
        found = compute_features(tables, points(SHAPES["weekly"]), catalog(tables))
        names = [name for group in groups(catalog(tables)).values() for name in group.names]
        alike.append({name for name in names if found[name].nunique() < 2})
    assert set() == set.intersection(*alike)


def test_an_engine_that_is_none_is_named(tmp_path):
    """The mend names those that there are."""
    with pytest.raises(SettingsError, match=r"'engine'.*is no engine\. Write 'duckdb', 'spark' or 'postgresql://"):
        from_mapping({"engine": "presto"})
    assert "spark" == from_mapping({"engine": "spark"}).engine


def test_spark_that_is_not_there_is_said_with_its_mend(tmp_path, monkeypatch):
    """One sentence, whatever pyspark says."""
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    tables = on(book(1, tmp_path, rows=4), "spark")
    group = groups(catalog(tables))["survey"]
    with pytest.raises(FeatureError, match=r"engine = 'spark' cannot be used \(ModuleNotFoundError\)\. "
                                           r"It needs Java 17.*churnkit-outreach\[spark\]"):
        compute_group(tables, points(SHAPES["few"])[:1], group, catalog(tables))


def test_within_a_block_that_has_opened_the_engine_it_is_the_same_one(tmp_path):
    """A backfill of many chunks brings its tables to the engine once."""
    tables = book(1, tmp_path, rows=4)
    with opened(tables) as outer, opened(tables) as inner:
        assert outer is inner
    with opened(tables) as later:
        assert outer is not later
