"""Does the proof hold? Intervals, the learning of effects and the regression beside its peer, on known truths.

    python benchmarks/impact.py [--small] [--json]

1,000 simulated experiments (100 with --small) in a world whose causes and contact effects are those of the simulated
book: how often the fixed-date 95% interval holds the true effect, and in how many runs the interval for every look
holds it at all looks. Then quarters of working and learning: what ranking by learnt effects keeps of the oracle's value
at the same capacity, beside ranking by the prior effect and by probability alone; with outreach planted that harms one
cause, how many calls still go to it. And the adjusted difference beside statsmodels' OLS with HC3 errors: how far they
lie apart, and the ratio of times, medians of alternating runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict
from typing import Any

import numpy as np
from statsmodels.api import OLS

from churnkit.audit.policies import RANKINGS, kept
from churnkit.audit.trials import coverage
from churnkit.outreach.adjust import difference
from churnkit.simulate.experiment import Design

DOGS = {"payment_trouble": 0.5}
"""Outreach that raises the log hazard of those with trouble paying by a half times the trouble's size."""
LATE = 4
"""The last quarters, over which what was learnt is judged."""


def intervals(small: bool) -> list[dict[str, Any]]:
    """Coverage with small and larger control groups."""
    runs = 100 if small else 1000
    found = []
    for accounts, share in ((6000, 0.1), (6000, 0.2), (16_000, 0.1)):
        if small and accounts > 6000:
            continue
        one = asdict(coverage(Design(accounts=accounts), runs=runs, share=share))
        found.append({"accounts": accounts, "share": share, **{name: round(value, 4) for name, value in one.items()}})
    return found


def learning(small: bool) -> list[dict[str, Any]]:
    """What each ranking keeps of the oracle's value, as means over runs, with the interval of that mean."""
    found = []
    for name, contact in (("as the book", {}), ("one cause harmed", DOGS)):
        runs = [kept(Design(accounts=12_000, contact=contact), seed=seed) for seed in range(1, 4 if small else 21)]
        row: dict[str, Any] = {"world": name, "runs": len(runs)}
        for ranking in RANKINGS:
            late = [float(np.mean(run.value[ranking][-LATE:])) for run in runs]
            error = statistics.stdev(late) / len(late) ** 0.5
            row[ranking] = {"kept": round(statistics.mean(late), 4), "low": round(statistics.mean(late) - 2 * error, 4),
                            "high": round(statistics.mean(late) + 2 * error, 4), "least": round(min(late), 4),
                            "first": round(float(np.mean([run.value[ranking][0] for run in runs])), 4)}
        row["calls_to_harmed"] = {ranking: [round(float(np.mean([run.dogs[ranking][quarter] for run in runs])), 4)
                                            for quarter in range(runs[0].quarters)] for ranking in RANKINGS}
        found.append(row)
    return found


def peer(small: bool) -> dict[str, Any]:
    """The adjusted difference beside statsmodels, on the same rows."""
    rng = np.random.default_rng(1)
    rows = 2000 if small else 20_000
    x = rng.normal(size=(rows, 2))
    treated = rng.random(rows) >= 0.1
    y = (rng.random(rows) < 1 / (1 + np.exp(1.5 - x[:, 0]))).astype(float)

    def ours() -> tuple[float, float]:
        found = difference(y, treated, x)
        return found.value, found.error

    def theirs() -> tuple[float, float]:
        around = x - x.mean(axis=0)
        fit = OLS(y, np.column_stack([np.ones(rows), treated, around, treated[:, None] * around])).fit(cov_type="HC3")
        return float(fit.params[1]), float(fit.bse[1])

    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    answers = {}
    for _ in range(15):
        for name, call in (("ours", ours), ("theirs", theirs)):
            began = time.perf_counter()
            answers[name] = call()
            times[name].append(time.perf_counter() - began)
    ours_ms, theirs_ms = (1000 * statistics.median(times[name]) for name in ("ours", "theirs"))
    apart = max(abs(one - other) / abs(other) for one, other in zip(answers["ours"], answers["theirs"], strict=True))
    return {"rows": rows, "largest_relative_difference": apart, "ours_ms": round(ours_ms, 3),
            "statsmodels_ms": round(theirs_ms, 3), "ratio_statsmodels": round(ours_ms / theirs_ms, 3)}


def main() -> None:
    """All of it, or a small part."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", action="store_true")
    options.add_argument("--small", action="store_true")
    asked = options.parse_args()
    result = {"benchmark": "impact", "coverage": intervals(asked.small), "learning": learning(asked.small),
              "peer": peer(asked.small)}
    if asked.json:
        print(json.dumps(result))
        return
    for one in result["coverage"]:
        print(f"{one['runs']} runs, {one['triggered']:.0f} triggered, {one['control']:.0f} of them kept apart "
              f"({one['events']:.0f} left): fixed-date {one['adjusted']:.1%} (unadjusted {one['fixed']:.1%}, everybody "
              f"drawn {one['enrolled']:.1%}); at all {one['looks']} looks {one['at_every_look']:.1%}, where the "
              f"fixed-date one would {one['fixed_at_every_look']:.1%}; the score saves {one['gain']:.1%} of variance")
    for row in result["learning"]:
        print(f"{row['world']}, {row['runs']} runs, last {LATE} of 8 quarters, of the oracle's value:")
        for ranking in RANKINGS:
            one = row[ranking]
            calls = row["calls_to_harmed"][ranking]
            print(f"  by {ranking:12}{one['kept']:7.1%} ({one['low']:.1%} to {one['high']:.1%}; least run "
                  f"{one['least']:.1%}); calls to those it harms {calls[0]:.1%} at first, {calls[-1]:.1%} at last")
    beside = result["peer"]
    print(f"adjusted difference, {beside['rows']} rows: {beside['ours_ms']} ms, statsmodels {beside['statsmodels_ms']} "
          f"ms (ratio {beside['ratio_statsmodels']}), apart by {beside['largest_relative_difference']:.1e}")


if __name__ == "__main__":
    main()
