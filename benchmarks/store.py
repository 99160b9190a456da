"""Point-in-time retrieval and materializing through Feast, against Feast's own stores and a hand-written ASOF join.

    python benchmarks/store.py [--small] [--json] [--groups 1]

The points fall at random times after weekly feature rows with a time to live, so that the join is a real as-of; some
ask for entities without rows. Every peer reads the same Parquet files and its result is compared with ours, value by
value. Feast's default store would need more memory than there is: it runs on two stated fractions of the points, and
the line through both is drawn on (the small size is run whole). Each peer runs in a process of its own; the best of
the rounds counts.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import importlib.metadata
import io
import json
import resource
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from churnkit.signals import partitions

ASOF = "churnkit.signals.asof.AsofOfflineStore"
BULK = {"type": "churnkit.signals.online.BulkComputeEngine"}
FIRST = pd.Timestamp("2025-01-06", tz="UTC").as_unit("us")
TTL = dt.timedelta(days=10)
STORES = {"ours": (ASOF, BULK), "default": ("file", "local"), "duckdb": ("duckdb", "local")}


@dataclass(frozen=True)
class Size:
    """How much: entities with a row in most weeks, points, features over groups, and the default store's points."""

    entities: int
    weeks: int
    points: int
    default_points: int
    served: int
    rounds: int
    groups: int
    features: int = 40
    served_features: int = 60

    @property
    def names(self) -> dict[str, list[str]]:
        """The features of every group."""
        each = self.features // self.groups
        return {f"group{group}": [f"f{group * each + n:02d}" for n in range(each)] for group in range(self.groups)}


def values(rng: np.random.Generator, rows: int) -> np.ndarray:
    """One feature: a count or a measurement, five in a hundred missing."""
    column = rng.poisson(6, rows).astype(float) if rng.random() < 0.6 else rng.normal(size=rows).round(3)
    column[rng.random(rows) < 0.05] = np.nan
    return column


def lay_out(home: Path, size: Size) -> None:
    """Writes the feature files, the points, and the files to be materialized."""
    rng = np.random.default_rng(7)
    ids = np.array([f"A{n:06d}" for n in range(size.entities)])
    for group, names in size.names.items():
        schema = partitions.schema("account_id", dict.fromkeys(names, "number"))
        for week in range(size.weeks):
            mine = ids[rng.random(size.entities) < 0.9]
            at = [FIRST + pd.Timedelta(weeks=week)] * len(mine)
            columns = {"account_id": mine, partitions.TIME: at, partitions.CREATED: at}
            frame = pd.DataFrame({**columns, **{name: values(rng, len(mine)) for name in names}})
            partitions.write(home / "data" / group, frame, schema)
    span = size.weeks * 7 * 86_400 * 10**6
    asked = pa.table({
        "account_id": np.append(ids, ["nobody"])[rng.integers(0, size.entities + 1, size.points)].astype(str),
        "row_id": [str(n) for n in range(size.points)],
        partitions.TIME: pa.array(FIRST.value // 1000 + rng.integers(0, span, size.points), pa.timestamp("us", "UTC")),
    })
    pq.write_table(asked, home / "points.parquet")
    served = [f"s{n:02d}" for n in range(size.served_features - 1)]
    frame = pd.DataFrame({
        "account_id": [f"A{n:06d}" for n in range(size.served)], partitions.TIME: FIRST, partitions.CREATED: FIRST,
        **{name: values(rng, size.served) for name in served},
        "plan": rng.choice(["small", "large", None], size.served)})
    kinds = {**dict.fromkeys(served, "number"), "plan": "category"}
    partitions.write(home / "data" / "served", frame, partitions.schema("account_id", kinds))


def feast_store(home: Path, peer: str, views: dict[str, list[str]]) -> Any:
    """A Feast repo of its own for a peer, over the same files; its service is 'all'."""
    from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.data_format import ParquetFormat
    from feast.types import Float64, String

    offline, engine = STORES[peer]
    place = home / f"{peer}-{len(views)}-{next(iter(views))}"
    place.mkdir()
    store = FeatureStore(config=RepoConfig(
        project="bench", provider="local", registry=str(place / "registry.db"), repo_path=home,
        online_store={"type": "sqlite", "path": str(place / "online.db")}, offline_store={"type": offline},
        batch_engine=engine, entity_key_serialization_version=3))
    account = Entity(name="account", join_keys=["account_id"], value_type=ValueType.STRING)
    made = []
    for name, columns in views.items():
        files = home / "data" / name / ("2*.parquet" if peer == "duckdb" else "")  # without the file that has no rows
        source = FileSource(name=f"{name}_files", path=str(files), file_format=ParquetFormat(),
                            timestamp_field=partitions.TIME, created_timestamp_column=partitions.CREATED)
        fields = [Field(name=column, dtype=String if column == "plan" else Float64) for column in columns]
        made.append(FeatureView(name=name, entities=[account], ttl=TTL, source=source,
                                schema=[Field(name="account_id", dtype=String), *fields]))
    store.apply([account, *made, FeatureService(name="all", features=made)])
    return store


def timed(work: Callable[[], Any], rounds: int) -> tuple[Any, float]:
    """The result and the best time of several."""
    best, result = float("inf"), None
    for _ in range(rounds):
        result = None  # its memory is free before the next round
        clock = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - clock)
    return result, best


def peak_mb() -> int:
    """The most memory that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def raw_join(home: Path, size: Size) -> dict[str, Any]:
    """What a careful hand would write in DuckDB: one ASOF join per group, the time to live, and the points' order."""
    import duckdb

    columns, joins = [], []
    for group, names in size.names.items():
        joins.append(f"ASOF LEFT JOIN read_parquet('{home}/data/{group}/2*.parquet') AS {group} ON "
                     f"p.account_id = {group}.account_id AND p.event_timestamp >= {group}.event_timestamp")
        fresh = f"{group}.event_timestamp >= p.event_timestamp - INTERVAL {TTL.days} DAY"
        columns += [f"CASE WHEN {fresh} THEN {group}.{name} END AS {name}" for name in names]
    points = pq.read_table(home / "points.parquet").to_pandas()

    def join() -> pa.Table:
        with duckdb.connect() as con:
            con.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
            con.register("points", pa.Table.from_pandas(points, preserve_index=False))
            return con.sql(f"WITH p AS MATERIALIZED (SELECT *, row_number() OVER () AS n FROM points) SELECT "
                           f"p.account_id, p.row_id, p.event_timestamp, {', '.join(columns)} FROM p {' '.join(joins)} "
                           "ORDER BY n").to_arrow_table()

    table, seconds = timed(join, size.rounds)
    frame_seconds = timed(lambda: join().to_pandas(), 1)[1]
    pq.write_table(table, home / "raw.parquet", compression="none")
    return {"seconds": seconds, "frame_seconds": frame_seconds, "peak_mb": peak_mb(), "points": len(points)}


def retrieval(home: Path, size: Size, peer: str) -> dict[str, Any]:
    """The features at the points through Feast, with a peer's offline store."""
    quiet()
    store = feast_store(home, peer, size.names)
    points = pq.read_table(home / "points.parquet").to_pandas()
    service = store.get_feature_service("all")

    def job(asked: pd.DataFrame) -> Any:
        return store.get_historical_features(asked, service)

    job(points.iloc[:10]).to_arrow()  # what is loaded at the first use is not retrieval
    result: dict[str, Any] = {}
    if peer == "default":
        fraction, rounds = points.iloc[:size.default_points], 1
        part = points.iloc[:size.default_points // 4]
        result["part_points"], result["part_seconds"] = len(part), timed(lambda: job(part).to_arrow(), 1)[1]
    else:
        fraction, rounds = points, size.rounds
    table, seconds = timed(lambda: job(fraction).to_arrow(), rounds)
    pq.write_table(table, home / f"{peer}.parquet", compression="none")
    result |= {"seconds": seconds, "points": len(fraction), "peak_mb": peak_mb()}
    if peer == "ours":
        result["frame_seconds"] = timed(lambda: job(points).to_df(), 1)[1]
    return result


def materializing(home: Path, size: Size, peer: str) -> dict[str, Any]:
    """The newest row of every entity into SQLite, into an empty store and then into one that holds them."""
    quiet()
    served = [f"s{n:02d}" for n in range(size.served_features - 1)] + ["plan"]
    store = feast_store(home, peer, {"served": served})
    start, end = FIRST.to_pydatetime() - TTL, FIRST.to_pydatetime() + TTL
    with contextlib.redirect_stdout(io.StringIO()):
        first = timed(lambda: store.materialize(start_date=start, end_date=end), 1)[1]
        again = timed(lambda: store.materialize(start_date=start, end_date=end), 1)[1]
    return {"seconds": first, "again_seconds": again, "peak_mb": peak_mb()}


def quiet() -> None:
    """Feast and Ibis warn of their own affairs and draw bars."""
    import ibis

    warnings.simplefilter("ignore")
    ibis.set_backend(ibis.duckdb.connect())
    ibis.get_backend().raw_sql("SET enable_progress_bar = false")


def equal_tables(home: Path) -> dict[str, bool]:
    """Whether each peer's result has our values: the raw join's in our order, the others' by the points' ids."""
    ours = pq.read_table(home / "ours.parquet")
    by_id = ours.to_pandas().set_index("row_id")
    equal = {"raw": pq.read_table(home / "raw.parquet").equals(ours.replace_schema_metadata(None))}
    for peer in ("duckdb", "default"):
        frame = pd.read_parquet(home / f"{peer}.parquet").set_index("row_id")
        asked = by_id.loc[frame.index] if len(frame) == len(by_id) else by_id.loc[[
            str(n) for n in range(pq.read_metadata(home / "points.parquet").num_rows) if str(n) in frame.index]]
        names = [name for name in ours.column_names if name.startswith("f")]
        equal[peer] = frame.loc[asked.index, names].equals(asked[names])
    return equal


def equal_served(home: Path) -> bool:
    """Whether both online stores hold the same rows, byte for byte."""
    query = "SELECT * FROM bench_served ORDER BY entity_key, feature_name"
    with contextlib.ExitStack() as stack:
        rows = [stack.enter_context(contextlib.closing(sqlite3.connect(home / f"{peer}-1-served" / "online.db")))
                .execute(query) for peer in ("ours", "duckdb")]
        return all(mine == theirs for mine, theirs in zip(*rows, strict=True))


def measure(size: Size) -> dict[str, Any]:
    """Every peer in turn, and the ratios."""
    peers = {"raw": raw_join, "ours": retrieval, "duckdb": retrieval, "default": retrieval}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        alone(lay_out, home, size)
        runs = {peer: alone(work, home, size, *([] if peer == "raw" else [peer])) for peer, work in peers.items()}
        served = {"ours": alone(materializing, home, size, "ours"), "stock": alone(materializing, home, size, "duckdb")}
        equal = {**equal_tables(home), "materialize": equal_served(home)}
    default = extrapolated(runs["default"], size.points)
    ours = runs["ours"]
    return {
        "benchmark": "store", "points": size.points, "features": size.features, "groups": size.groups,
        "entities": size.entities, "feature_rows": size.groups * size.entities * size.weeks * 9 // 10,
        "retrieval": runs, "default_extrapolated_seconds": default, "served": size.served,
        "served_features": size.served_features, "materialize": served,
        "ratio_raw": ours["seconds"] / runs["raw"]["seconds"],
        "ratio_raw_frame": ours["frame_seconds"] / runs["raw"]["frame_seconds"],
        "ratio_duckdb": runs["duckdb"]["seconds"] / ours["seconds"], "ratio_default": default / ours["seconds"],
        "ratio_materialize": served["ours"]["seconds"] / served["stock"]["seconds"],
        "ratio_materialize_again": served["ours"]["again_seconds"] / served["stock"]["again_seconds"],
        "versions": {name: importlib.metadata.version(name) for name in ("feast", "duckdb", "pyarrow", "dask")},
        "equal_by_peer": equal, "equal": all(equal.values()),
    }


def extrapolated(run: dict[str, Any], points: int) -> float:
    """The seconds for all points, on the line through the two fractions that were measured."""
    slope = (run["seconds"] - run["part_seconds"]) / (run["points"] - run["part_points"])
    return float(run["seconds"] + max(slope, 0.0) * (points - run["points"]))


def alone(work: Callable[..., Any], *arguments: Any) -> Any:
    """Runs one measurement in a process of its own, so that its memory is its own."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["churnkit.signals.asof", "churnkit.signals.online"])  # Feast is imported once
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work, *arguments).result()


def main() -> None:
    """One size; --small makes it one that takes less than a minute."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", action="store_true")
    options.add_argument("--small", action="store_true")
    options.add_argument("--groups", type=int, default=1, help="over how many feature views the features are spread")
    asked = options.parse_args()
    size = (Size(2_000, 12, 50_000, 50_000, 1_000, 1, asked.groups) if asked.small else
            Size(20_000, 52, 1_000_000, 100_000, 100_000, 2, asked.groups))
    result = measure(size)
    if asked.json:
        print(json.dumps(result))
        return
    print(f"{size.points} points x {size.features} features in {size.groups} groups")
    for peer, run in result["retrieval"].items():
        note = (f"  on {run['points']} points ({run['part_seconds']:.2f} s on {run['part_points']}): "
                f"{result['default_extrapolated_seconds']:.0f} s extrapolated" if peer == "default" else "")
        print(f"  {peer:10}{run['seconds']:8.2f} s{run['peak_mb']:7} MB{note}")
    print(f"{size.served} entities x {size.served_features} features into SQLite")
    for peer, run in result["materialize"].items():
        print(f"  {peer:10}{run['seconds']:8.2f} s{run['peak_mb']:7} MB  again {run['again_seconds']:.2f} s")
    for name, value in result.items():
        if name.startswith("ratio"):
            print(f"{name} {value:.2f}")
    print(f"equal {result['equal']} {result['equal_by_peer']}")


if __name__ == "__main__":
    main()
