"""The whole line on a simulated book: seconds per station, and each model's AUC beside the best that can be had.

    python benchmarks/line.py [--small] [--json]

The peers: scikit-learn's logistic regression on the same rows, and the AUC that the true probabilities of the simulator
reach over the book, which no model can beat but by luck. `equal` says whether a second run of the day added nothing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from churnkit import jobs
from churnkit.cutoffs import moment
from churnkit.jobs import setup
from churnkit.simulate import auc, read_truth

AT = moment("2026-11-01")


def measure(accounts: int, months: int) -> dict[str, Any]:
    """Simulates, trains, scores, plans and syncs once; then runs the same day again."""
    with tempfile.TemporaryDirectory() as home:
        book = Path(home) / "book"
        clock = time.perf_counter()
        setup.simulate(book, accounts=accounts, months=months)
        simulated = time.perf_counter() - clock
        first = jobs.run(book, AT)
        ran = time.perf_counter() - clock - simulated
        again = jobs.run(book, AT)
        repeated = time.perf_counter() - clock - simulated - ran
        best = {name: auc(*read_truth(book / "data" / "truth", name)) for name in ("churn", "expansion", "maintenance")}
    models = []
    for row in first.data["models"]:
        known = {key: row.get(key) for key in ("target", "skill", "auc", "baseline_auc", "auc_lower_99", "lift_10")}
        models.append({**known, "best_auc": round(best[row["target"]], 4)})
    return {
        "benchmark": "line", "accounts": accounts, "months": months, "models": models,
        "seconds": {"simulate": round(simulated, 1), "first day": round(ran, 1), "same day again": round(repeated, 1)},
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "tasks": len(first.data["plan"]["tasks"]),
        "ratio_best": {row["target"]: round(row["auc"] / row["best_auc"], 4) for row in models if row["auc"]},
        "versions": {name: importlib.metadata.version(name) for name in ("lightgbm", "scikit-learn", "duckdb")},
        "equal": again.data["plan"]["tasks"] == [] and again.data["sync"]["created"] == 0,
    }


def main() -> None:
    """One book; --small makes it one that takes less than a minute."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", action="store_true")
    options.add_argument("--small", action="store_true")
    asked = options.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR)
    result = measure(100, 10) if asked.small else measure(2000, 24)
    if asked.json:
        print(json.dumps(result))
        return
    print(f"{'target':14}{'skill':>10}{'model':>9}{'99% low':>9}{'logistic':>10}{'best':>8}{'lift 10%':>10}")
    for row in result["models"]:
        figures = [f"{row[key]:.3f}" if row[key] is not None else "-"
                   for key in ("auc", "auc_lower_99", "baseline_auc", "best_auc", "lift_10")]
        print(f"{row['target']:14}{row['skill']:>10}{figures[0]:>9}{figures[1]:>9}{figures[2]:>10}{figures[3]:>8}"
              f"{figures[4]:>10}")
    print(", ".join(f"{name}: {seconds} s" for name, seconds in result["seconds"].items()), end="; ")
    print(f"{result['tasks']} tasks; peak {result['peak_mb']} MB; a second run added nothing: {result['equal']}")


if __name__ == "__main__":
    main()
