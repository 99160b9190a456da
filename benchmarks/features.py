"""Windowed features of many accounts at many cutoffs: this package against hand-written SQL, pandas and featuretools.

    python benchmarks/features.py [--small] [--json] [--growth]

Twelve columns (rows, a sum, a maximum and active days over 7, 28 and 84 days) of 20,000 accounts at 40 weekly cutoffs,
from 5,000,000 events. The hand-written SQL rolls events up by day in DuckDB and takes RANGE windows over the days.
pandas and featuretools get a stated fraction of the accounts; their time is scaled up by it, which is fair to them: it
leaves out what they lose by memory. Each contender runs in a process of its own, which also gives its peak memory; all
results are compared. Irregular cutoffs are 40 random moments for each account by itself. featuretools is measured where
it is installed; it is no dependency.

--growth measures how time and memory grow from 1 to 100 million events, accounts growing along, and writes a plot.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

DAY = 86_400_000_000
WINDOWS = (7, 28, 84)
CUTOFFS = 40
FIRST = 20_000  # days since 1970
SPAN = 84 + 7 * (CUTOFFS - 1)
NAMES = [f"{name}_{window}d" for window in WINDOWS for name in ("rows", "minutes", "longest", "active_days")]
FRACTION = {"pandas": 0.05, "featuretools": 0.0025}
MEMORY = "5GB"


@dataclass(frozen=True)
class Case:
    """What is asked: the events' file, how many accounts of it, and whether each has cutoffs of its own."""

    file: str
    accounts: int
    irregular: bool = False
    users: bool = False


def make(folder: Path, events: int, accounts: int, seed: int = 7) -> str:
    """Random events of the accounts over the whole span as Parquet, in the order in which they happened."""
    file = folder / "events.parquet"
    with duckdb.connect() as con:
        con.execute(f"SELECT setseed({seed / 100})")
        con.execute("SET memory_limit = '5GB'")
        con.execute(f"""COPY (
            SELECT 'A' || lpad(a::VARCHAR, 7, '0') AS account_id, make_timestamptz(t) AS occurred_at, 'open' AS event,
              'U' || u::VARCHAR AS user_id, (1 + n % 9) * 60.0 AS duration_s
            FROM (SELECT floor(random() * {accounts})::INT AS a, floor(random() * 20)::INT AS u, i AS n,
              {FIRST * DAY} + ((i + random()) * {SPAN * DAY / events})::BIGINT AS t FROM range({events}) r(i))
        ) TO '{file}' (FORMAT parquet)""")
    return str(file)


def points(case: Case) -> pd.DataFrame:
    """Each account at each of its cutoffs."""
    ids = np.array([f"A{number:07d}" for number in range(case.accounts)], dtype=object)
    weeks = (FIRST + 84 + 7 * np.arange(CUTOFFS)) * DAY
    cutoffs = np.tile(weeks, case.accounts)
    if case.irregular:
        cutoffs = np.random.default_rng(5).integers(weeks[0], weeks[-1], case.accounts * CUTOFFS)
    owners = np.repeat(ids, CUTOFFS)
    return pd.DataFrame({
        "row_id": pd.Series(np.arange(len(owners))).astype("string[pyarrow]"), "entity": "account", "entity_id": owners,
        "account_id": owners, "cutoff": pd.to_datetime(cutoffs, unit="us", utc=True).as_unit("us")})


def churnkit(case: Case) -> tuple[pd.DataFrame, float]:
    """This package: validated tables are there; computing is timed."""
    from churnkit.signals.catalog import Catalog
    from churnkit.signals.compute import compute_group
    from churnkit.signals.groups import FeatureGroup, count, distinct, highest, total
    from churnkit.signals.tables import Tables

    tables = Tables.from_frames(at="2030-01-01", accounts=pd.DataFrame(
        {"account_id": ["A"], "created_at": "2020-01-01"}), usage_events=pd.DataFrame(
        {"account_id": ["A"], "occurred_at": "2020-01-01", "event": "open"}))
    tables.raw.execute(f"SET memory_limit = '{MEMORY}'; SET temp_directory = '{Path(case.file).parent / 'spill'}'")
    names = [row[0] for row in tables.raw.execute("DESCRIBE usage_events").fetchall()]
    have = {"known_at": "occurred_at", "account_id": "account_id", "occurred_at": "occurred_at", "event": "event",
            "user_id": "user_id", "duration_s": "duration_s"}
    tables.raw.execute("DELETE FROM usage_events; INSERT INTO usage_events SELECT "
                       + ", ".join(have.get(name, "NULL") for name in names) + f" FROM '{case.file}'; CHECKPOINT")
    group = FeatureGroup("bench", "account", (
        *count("rows", "usage", WINDOWS), *total("minutes", "usage", "minutes", WINDOWS),
        *highest("longest", "usage", "minutes", WINDOWS), *distinct("active_days", "usage", "day", WINDOWS)))
    if case.users:
        group = FeatureGroup("bench", "account", distinct("users", "usage", "user", WINDOWS))
    asked = points(case)
    clock = time.perf_counter()
    values = compute_group(tables, asked, group, Catalog())
    return values, time.perf_counter() - clock


def sql(case: Case) -> tuple[pd.DataFrame, float]:
    """The SQL that an expert writes for cutoffs at midnight: a daily roll-up, then RANGE windows over it."""
    con = duckdb.connect()
    con.execute(f"SET memory_limit = '{MEMORY}'; SET temp_directory = '{Path(case.file).parent / 'spill'}'; "
                "SET TimeZone = 'UTC'; SET enable_progress_bar = false")
    con.execute(f"CREATE TABLE events AS FROM '{case.file}'")
    asked = points(case)
    clock = time.perf_counter()
    con.register("asked", pd.DataFrame({"rid": np.arange(len(asked)), "account_id": asked["entity_id"],
                                        "cutoff": asked["cutoff"]}))
    columns = ", ".join(
        f"coalesce(sum(n) OVER w{w}, 0)::DOUBLE AS rows_{w}d, coalesce(sum(s) OVER w{w}, 0)::DOUBLE AS minutes_{w}d, "
        f"(max(m) OVER w{w})::DOUBLE AS longest_{w}d, coalesce(sum(d) OVER w{w}, 0)::DOUBLE AS active_days_{w}d"
        for w in WINDOWS)
    windows = ", ".join(f"w{w} AS (PARTITION BY account_id ORDER BY day RANGE BETWEEN {w} PRECEDING AND 1 PRECEDING)"
                        for w in WINDOWS)
    found = con.sql(f"""
        WITH days AS (SELECT account_id, occurred_at::DATE - DATE '1970-01-01' AS day, count(*) AS n,
            sum(duration_s / 60) AS s, max(duration_s / 60) AS m, 1 AS d FROM events GROUP BY ALL),
        line AS (SELECT account_id, day, n, s, m, d, NULL::BIGINT AS rid FROM days
            UNION ALL SELECT account_id, cutoff::DATE - DATE '1970-01-01', NULL, NULL, NULL, NULL, rid FROM asked),
        swept AS (SELECT rid, {columns} FROM line WINDOW {windows})
        SELECT * FROM swept WHERE rid IS NOT NULL ORDER BY rid""").to_arrow_table().to_pandas()
    return found[NAMES], time.perf_counter() - clock


def in_pandas(case: Case) -> tuple[pd.DataFrame, float]:
    """Pandas as it is written in notebooks: for each cutoff and window, filter, group, aggregate."""
    events = _events(case)
    asked = points(case)
    clock = time.perf_counter()
    events["day"] = events["occurred_at"].dt.floor("D")
    events["minutes"] = events["duration_s"] / 60
    parts = []
    for cutoff, rows in asked.groupby("cutoff", sort=False):
        made = pd.DataFrame(index=rows["entity_id"])
        for window in WINDOWS:
            seen = events[(events["occurred_at"] >= cutoff - pd.Timedelta(days=window))
                          & (events["occurred_at"] < cutoff)].groupby("account_id")
            made[f"rows_{window}d"] = seen.size()
            made[f"minutes_{window}d"] = seen["minutes"].sum()
            made[f"longest_{window}d"] = seen["minutes"].max()
            made[f"active_days_{window}d"] = seen["day"].nunique()
        parts.append(made.set_index(rows.index))
    found = pd.concat(parts).sort_index()
    return _zeros(found), time.perf_counter() - clock


def in_featuretools(case: Case) -> tuple[pd.DataFrame, float]:
    """Featuretools with cutoff times and training windows, one call per window as its documentation has it."""
    import warnings

    warnings.simplefilter("ignore")
    import featuretools as ft
    from woodwork.column_schema import ColumnSchema
    from woodwork.logical_types import Datetime

    events = _events(case).reset_index(names="event_id")
    events["occurred_at"] = events["occurred_at"].dt.tz_localize(None)
    events["minutes"] = events["duration_s"] / 60
    asked = points(case)
    clock = time.perf_counter()

    class Days(ft.primitives.AggregationPrimitive):
        """Different days among times; featuretools ships none that stays inside the window."""

        name = "days"
        input_types = (ColumnSchema(logical_type=Datetime),)
        return_type = ColumnSchema(semantic_tags={"numeric"})

        def get_function(self) -> Callable[[pd.Series], int]:
            return lambda times: times.dt.floor("D").nunique()

    book = ft.EntitySet("book")
    book.add_dataframe(dataframe_name="events", dataframe=events[["event_id", "account_id", "occurred_at", "minutes"]],
                       index="event_id", time_index="occurred_at")
    owners = pd.DataFrame({"account_id": asked["entity_id"].unique()})
    book.add_dataframe(dataframe_name="accounts", dataframe=owners, index="account_id")
    book.add_relationship("accounts", "account_id", "events", "account_id")
    base = [ft.Feature(book["events"].ww["event_id"], parent_dataframe_name="accounts", primitive=ft.primitives.Count),
            ft.Feature(book["events"].ww["minutes"], parent_dataframe_name="accounts", primitive=ft.primitives.Sum),
            ft.Feature(book["events"].ww["minutes"], parent_dataframe_name="accounts", primitive=ft.primitives.Max),
            ft.Feature(book["events"].ww["occurred_at"], parent_dataframe_name="accounts", primitive=Days)]
    times = pd.DataFrame({"account_id": asked["entity_id"], "time": asked["cutoff"].dt.tz_localize(None)})
    # featuretools takes rows at the cutoff too, and leaves out those at the window's start: a microsecond mends both.
    times["time"] -= pd.Timedelta(microseconds=1)
    made = []
    for window in WINDOWS:
        found = ft.calculate_feature_matrix(base, book, cutoff_time=times, training_window=f"{window} days",
                                            cutoff_time_in_index=True)
        found = found.set_axis([f"{name}_{window}d" for name in ("rows", "minutes", "longest", "active_days")], axis=1)
        made.append(found)
    matrix = pd.concat(made, axis=1)
    matrix = matrix.loc[list(times.itertuples(index=False, name=None))].reset_index(drop=True)
    return _zeros(matrix), time.perf_counter() - clock


def _events(case: Case) -> pd.DataFrame:
    last = f"A{case.accounts - 1:07d}"
    found: pd.DataFrame = duckdb.sql(f"SET TimeZone = 'UTC'; FROM '{case.file}' WHERE account_id <= '{last}'").df()
    return found


def _zeros(found: pd.DataFrame) -> pd.DataFrame:
    counts = [name for name in NAMES if not name.startswith("longest")]
    return found.assign(**{name: found[name].astype("float64").fillna(0.0) for name in counts})[NAMES].astype("float64")


CONTENDERS = {"churnkit": churnkit, "sql": sql, "pandas": in_pandas, "featuretools": in_featuretools}


def _alone(name: str, case: Case, file: str, send: Any) -> None:
    sys.stderr.write(f"  {name} {'irregular ' if case.irregular else ''}{case.accounts} accounts\n")
    values, seconds = CONTENDERS[name](case)
    send.send((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
    values.to_parquet(file)


def run(name: str, case: Case) -> tuple[pd.DataFrame, float, float]:
    """One contender in a process of its own: its values, seconds, and peak memory in MB."""
    context = multiprocessing.get_context("spawn")
    take, send = context.Pipe(duplex=False)
    file = f"{case.file}.{name}.values"
    process = context.Process(target=_alone, args=(name, case, file, send))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{name} failed; see above")
    seconds, memory = take.recv()
    return pd.read_parquet(file), seconds, memory


def equal(values: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether another contender's rows, the first of ours, are the same."""
    ours = values.iloc[:len(other)].reset_index(drop=True)
    return bool(np.allclose(ours[other.columns], other, rtol=1e-9, equal_nan=True))


def measure(events: int, accounts: int) -> dict[str, Any]:
    """All contenders on one book."""
    with tempfile.TemporaryDirectory() as home:
        file = make(Path(home), events, accounts)
        case = Case(file, accounts)
        ours, seconds, memory = run("churnkit", case)
        theirs, by_hand, by_hand_memory = run("sql", case)
        uneven, irregular, _ = run("churnkit", Case(file, accounts, irregular=True))
        _, users, _ = run("churnkit", Case(file, accounts, users=True))
        result: dict[str, Any] = {
            "benchmark": "features", "events": events, "accounts": accounts, "points": len(ours),
            "seconds": {"churnkit": seconds, "sql": by_hand, "churnkit irregular": irregular, "distinct users": users},
            "peak_mb": {"churnkit": round(memory), "sql": round(by_hand_memory)},
            "ratio_sql": seconds / by_hand, "ratio_sql_irregular": irregular / by_hand,
            "ratio_memory": memory / by_hand_memory, "fractions": {}, "equal": {"sql": equal(ours, theirs)}}
        peers = ["pandas", *(["featuretools"] if importlib.util.find_spec("featuretools") else [])]
        for peer in peers:
            few = max(round(accounts * FRACTION[peer]), 10)
            values, taken, _ = run(peer, Case(file, few))
            result["seconds"][peer] = taken * accounts / few
            result["fractions"][peer] = few / accounts
            result[f"ratio_{peer}"] = taken * accounts / few / seconds
            result["equal"][peer] = equal(ours, values)
        few = max(accounts // 1000, 10)
        values, taken, _ = run("pandas", Case(file, few, irregular=True))
        result["seconds"]["pandas irregular"] = taken * accounts / few
        result["fractions"]["pandas irregular"] = few / accounts
        result["ratio_pandas_irregular"] = taken * accounts / few / irregular
        result["equal"]["irregular"] = equal(uneven, values)
    result["versions"] = {name: importlib.metadata.version(name) for name in ("duckdb", "pandas", *peers[1:])}
    return result


def growth(sizes: list[int], plot: str) -> list[dict[str, float]]:
    """Seconds and memory as events and accounts grow together, 250 events an account."""
    rows = []
    for events in sizes:
        with tempfile.TemporaryDirectory() as home:
            accounts = max(events // 250, 10)
            _, seconds, memory = run("churnkit", Case(make(Path(home), events, accounts), accounts))
        rows.append({"events": events, "accounts": accounts, "seconds": round(seconds, 1), "peak_mb": round(memory)})
        sys.stderr.write(f"{rows[-1]}\n")
    if plot:
        _draw(pd.DataFrame(rows), plot)
    return rows


def _draw(rows: pd.DataFrame, file: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    left.loglog(rows["events"], rows["seconds"], "o-", color="#2a6f97")
    linear = rows["seconds"].iloc[0] * rows["events"] / rows["events"].iloc[0]
    left.loglog(rows["events"], linear, ":", color="#888888", label="in proportion")
    left.set(xlabel="events", title="seconds")
    left.legend(frameon=False)
    right.semilogx(rows["events"], rows["peak_mb"] / 1024, "o-", color="#2a6f97")
    right.axhline(8, color="#888888", linestyle=":")
    right.set(xlabel="events", title="peak memory, GB", ylim=(0, 8.5))
    figure.savefig(file)


def main() -> None:
    """One table; --small takes a twentieth of everything, --growth draws the curve instead."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", action="store_true")
    options.add_argument("--small", action="store_true")
    options.add_argument("--growth", action="store_true")
    options.add_argument("--plot", default="", help="with --growth: where to draw the curve, such as growth.svg")
    asked = options.parse_args()
    if asked.growth:
        sizes = [10_000, 100_000] if asked.small else [1_000_000, 10_000_000, 100_000_000]
        print(json.dumps(growth(sizes, asked.plot)))
        return
    result = measure(250_000, 1000) if asked.small else measure(5_000_000, 20_000)
    if asked.json:
        print(json.dumps(result))
        return
    for name, seconds in result["seconds"].items():
        fraction = result["fractions"].get(name)
        scaled = f"  (measured on {fraction:.2%} of the accounts)" if fraction else ""
        print(f"{name:20}{seconds:10.1f} s{scaled}")
    for name in sorted(key for key in result if key.startswith("ratio_")):
        print(f"{name} {result[name]:.2f}")
    print(f"peak memory: {result['peak_mb']} MB; equal results: {result['equal']}")


if __name__ == "__main__":
    main()
