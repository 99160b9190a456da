"""How fast the simulator writes a book, beside a plain loop over accounts and days that writes usage rows alone.

    python benchmarks/simulate.py [--small] [--json]

The peer is what a first script would be: a Python loop, one row at a time, through csv. It runs on a stated fraction of
the accounts; the ratio compares rows a second, the simulator's with all sixteen tables and the truth.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import random
import resource
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from churnkit.simulate import best_auc, simulate

EVENTS = ("login", "report_view", "dashboard_edit", "export", "api_call")


def naive(file: Path, accounts: int, days: int) -> int:
    """Usage rows of `accounts` customers, one row at a time; returns how many."""
    dice, first, rows = random.Random(7), date(2024, 11, 1), 0
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["account_id", "occurred_at", "event", "quantity", "duration_s", "users"])
        for account in range(accounts):
            for day in range(days):
                when = first + timedelta(days=day)
                users = sum(dice.random() < (0.4 if when.weekday() < 5 else 0.03) for _ in range(20))
                for event in EVENTS:
                    quantity = sum(dice.random() < 0.5 for _ in range(users))
                    if quantity:
                        writer.writerow([f"A{account:05d}", when.isoformat(), event, quantity, quantity * 60, users])
                        rows += 1
    return rows


def measure(accounts: int, months: int, fraction: float) -> dict[str, object]:
    """One book and its peer: sizes, seconds, rows a second and their ratio."""
    with tempfile.TemporaryDirectory() as scratch:
        began, used = time.perf_counter(), time.process_time()
        book = simulate(Path(scratch) / "raw", accounts=accounts, months=months)
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
        few = max(1, int(accounts * fraction))
        began = time.perf_counter()
        written = naive(Path(scratch) / "naive.csv", few, round(months * 30.44))
        peer = time.perf_counter() - began
        rows = sum(book.rows.values())
        return {
            "accounts": accounts, "months": months, "rows": rows, "seconds": round(seconds, 2),
            "cpu_seconds": round(cpu, 2), "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "peer_accounts": few, "peer_fraction": fraction, "peer_rows": written, "peer_seconds": round(peer, 2),
            "times_the_peers_rows_a_second": round((rows / seconds) / (written / peer), 1),
            "best_auc": {target: round(best_auc(book, target), 3) for target in ("churn", "expansion", "maintenance")},
        }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="under a minute")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    asked = parser.parse_args()
    sizes = ((400, 18), (1000, 24)) if asked.small else ((400, 18), (2000, 24), (10_000, 24))
    figures = [measure(accounts, months, fraction=0.005) for accounts, months in sizes]
    versions = {"python": platform.python_version(), "numpy": np.__version__, "pyarrow": pa.__version__}
    if asked.json:
        ratios = {str(one["accounts"]): one["times_the_peers_rows_a_second"] for one in figures}
        print(json.dumps({"benchmark": "simulate", "figures": figures, "ratios": ratios, "versions": versions,
                          "peer": "a Python loop writing usage rows with csv", "equal": None}))
        return
    print(f"{'accounts':>9} {'months':>7} {'rows':>12} {'seconds':>8} {'cpu s':>7} {'peak MB':>8} {'x peer':>7}")
    for one in figures:
        print(f"{one['accounts']:>9,} {one['months']:>7} {one['rows']:>12,} {one['seconds']:>8} "
              f"{one['cpu_seconds']:>7} {one['peak_mb']:>8,} {one['times_the_peers_rows_a_second']:>7}")
    print("x peer: rows a second against a Python loop that writes usage rows of 0.5% of the accounts with csv")


if __name__ == "__main__":
    main()
