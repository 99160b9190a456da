"""What the alarm-storm breaker costs, what it finds, and how often it cries wolf.

    python benchmarks/breaker.py [--small] [--json]

The peer is pandas, which counts the same from frames that are in memory already: rows by day, age and kind with their
hours, who was heard of, and rows that stand twice. Both count all tables without a key, in one run, and must agree.
Detection: the six faults, each on the last two days before ten cutoffs. False alarms: 60 runs, one a day, on the book
as it is, over all its feeds. Scores, alerts and features are not in these figures; the tests look at them.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from churnkit.cutoffs import moment
from churnkit.settings import from_mapping
from churnkit.signals.tables import Tables, read_tables
from churnkit.simulate import simulate
from churnkit.watch.counts import AGES, SPAN, TWINS, Days, assets, count
from churnkit.watch.feeds import feeds_of
from churnkit.watch.verdict import History, Verdict, look

END = moment("2026-11-01")
RUNS, CUTOFFS = 60, 10
KINDS = {"usage_events": "event", "telemetry": "sensor", "surveys": "kind", "opportunities": "kind",
         "touches": "channel", "ticket_messages": "author"}
ENTITIES = {"churn": "account", "expansion": "account", "maintenance": "asset"}
LATELY = "occurred_at >= $at - INTERVAL 2 DAY AND occurred_at < $at"
THIRD = "right(account_id, 2)::INTEGER % 3 = 0"
FAULTS = {
    "missing day": "FROM whole WHERE NOT (occurred_at >= $at - INTERVAL 1 DAY AND occurred_at < $at)",
    "dropped partition": f"FROM whole WHERE NOT ({LATELY} AND {THIRD})",
    "duplicated events": f"FROM whole UNION ALL FROM whole WHERE {LATELY}",
    "renamed event": f"SELECT * REPLACE (CASE WHEN {LATELY} AND event = 'report_view' THEN 'report_opened' ELSE event "
                     "END AS event) FROM whole",
    "time-zone slip": f"SELECT * REPLACE (CASE WHEN {LATELY} THEN occurred_at - INTERVAL 5 HOUR ELSE occurred_at END "
                      "AS occurred_at) FROM whole",
    "broken join": f"FROM whole WHERE NOT ({LATELY})",  # rows of unknown accounts are left out at the door
}


def pandas_counts(frame: pd.DataFrame, own: str, who: str, kind: str | None, at: dt.datetime) -> dict[str, Any]:
    """The same counts as churnkit.watch.counts, the plain way."""
    midnight = pd.Timestamp(at).floor("D")
    past = frame[(frame[own] < midnight) & (frame[own] >= midnight - pd.Timedelta(days=SPAN))
                 & (frame["known_at"] <= at)]
    day = past[own].dt.floor("D")
    behind = past["known_at"] - day - pd.Timedelta(days=1) - (at - midnight)
    past = past.assign(place=SPAN - (midnight - day).dt.days, hour=past[own].dt.hour, kind=past[kind] if kind else "",
                       age=np.clip(np.ceil(behind / pd.Timedelta(days=1)), 0, AGES - 1).astype(int))
    rows = past.groupby(["place", "age", "kind", "hour"], dropna=False).size()
    heard = past.groupby(["place", who])["age"].min().groupby("place").value_counts()
    late = past[past["place"] >= SPAN - TWINS]
    twice = late[late.duplicated([name for name in frame.columns if name != "known_at"] + ["place"])]
    return {"rows": rows.groupby("place").sum(), "entities": heard.groupby("place").sum(),
            "repeated": twice.groupby("place").size()}


def equal(days: Days, plain: Mapping[str, Any]) -> bool:
    """Whether both counted the same rows, entities and repeated rows on every day."""
    return all(np.array_equal(np.nan_to_num(ours[:, -1]), plain[name].reindex(range(SPAN), fill_value=0).to_numpy())
               for name, ours in (("rows", days.rows), ("entities", days.entities), ("repeated", days.repeated)))


def cost(tables: Tables) -> dict[str, Any]:
    """Seconds for all feeds, the verdict included; and for those without a key beside pandas."""
    began, used = time.perf_counter(), time.process_time()
    feeds = count(tables, END)
    counted = time.perf_counter() - began
    verdict(tables, feeds, END)
    whole, cpu = time.perf_counter() - began, time.process_time() - used
    names = [name for name in feeds if not tables.contract[name].key and name != "subscriptions"]
    ours = theirs = 0.0
    same = True
    for name in names:
        table, frame = tables.contract[name], tables[name]
        began = time.perf_counter()
        who = "asset_id" if assets(table) else "account_id" if "account_id" in frame else table.names[0]
        plain = pandas_counts(frame, table.time, who, KINDS.get(name), END)
        theirs += time.perf_counter() - began
        only = _only(tables, name)
        began = time.perf_counter()
        mine = count(only, END)[name]
        ours += time.perf_counter() - began
        same &= equal(mine, plain)
    rows = sum(tables.counts[name].kept for name in feeds)
    return {"rows": rows, "seconds": round(whole, 2), "cpu_seconds": round(cpu, 2),
            "counting_seconds": round(counted, 2), "compared": names,
            "ours_seconds": round(ours, 2), "pandas_seconds": round(theirs, 2), "ratio_pandas": round(theirs / ours, 2),
            "equal": same}


def _only(tables: Tables, name: str) -> Tables:
    """The same tables with one of them alone in the contract, on the same connection."""
    only = object.__new__(Tables)
    only.__dict__ = {**tables.__dict__, "contract": {name: tables.contract[name]}}
    return only


def verdict(tables: Tables, feeds: Mapping[str, Days], at: dt.datetime) -> Verdict:
    """The verdict on the feeds alone."""
    hangs = feeds_of(ENTITIES, {name: assets(tables.contract[name]) for name in feeds})
    return look(feeds, {}, {}, {}, History(hangs=hangs), at)


def false_alarms(tables: Tables) -> dict[str, Any]:
    """One run a day on a book with no fault."""
    said = []
    for back in range(RUNS):
        at = END - dt.timedelta(days=back)
        held = verdict(tables, count(tables, at), at).held
        found = {one.key: one.says for evidence in held.values() for one in evidence}
        said += [f"{at:%Y-%m-%d}: {says}" for says in found.values()]
    return {"runs": RUNS, "runs_held": len({one[:10] for one in said}), "words": said}


def detection(tables: Tables) -> dict[str, str]:
    """How many of ten harmed runs each fault holds."""
    found = {}
    only = _only(tables, "usage_events")
    only.raw.execute("ALTER TABLE usage_events RENAME TO whole")
    for name, sql in FAULTS.items():
        held = 0
        for place in range(CUTOFFS):
            at = END - dt.timedelta(days=5 * place)  # every day of the week is among them
            harmed = sql.replace("$at", f"TIMESTAMPTZ '{at}'")
            only.raw.execute(f"CREATE OR REPLACE TABLE usage_events AS {harmed}")
            held += "churn" in verdict(only, count(only, at), at).held
        found[name] = f"{held}/{CUTOFFS}"
    only.raw.execute("DROP TABLE usage_events; ALTER TABLE whole RENAME TO usage_events")
    return found


def measure(accounts: int, small: int) -> dict[str, Any]:
    """The cost on a book of `accounts`, detection and false alarms on one of `small`."""
    with tempfile.TemporaryDirectory() as scratch:
        sized = {}
        for size in {accounts, small}:
            home = Path(scratch) / str(size)
            book = simulate(home / "raw", accounts=size, months=24)
            sized[size] = read_tables(from_mapping({**book.settings, "raw": "raw"}, root=home), at=END)
        return {"benchmark": "breaker", "accounts": accounts, "cost": cost(sized[accounts]), "small": small,
                "detected": detection(sized[small]), "false_alarms": false_alarms(sized[small]),
                "versions": {name: version(name) for name in ("duckdb", "pandas", "numpy")}}


def main() -> None:
    """One size; --small makes it one of minutes."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", action="store_true")
    options.add_argument("--small", action="store_true")
    asked = options.parse_args()
    result = measure(300 if asked.small else 2_000, 300)
    if asked.json:
        print(json.dumps(result))
        return
    cost_of = result["cost"]
    print(f"{result['accounts']:,} accounts, {cost_of['rows']:,} rows with a time: {cost_of['seconds']} s, "
          f"{cost_of['cpu_seconds']} s of a processor")
    print(f"  {len(cost_of['compared'])} tables without a key: ours {cost_of['ours_seconds']} s, pandas "
          f"{cost_of['pandas_seconds']} s, ratio_pandas {cost_of['ratio_pandas']}, equal {cost_of['equal']}")
    print(f"detected, {result['small']} accounts: "
          + ", ".join(f"{name} {many}" for name, many in result["detected"].items()))
    print(f"false alarms: {result['false_alarms']['runs_held']} of {result['false_alarms']['runs']} daily runs held")
    for words in result["false_alarms"]["words"]:
        print(f"  {words}")


if __name__ == "__main__":
    main()
