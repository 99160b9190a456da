"""SHAP values of a whole book: ours beside shap.TreeExplainer, on the same model and rows, one thread each.

    python benchmarks/explain.py [--small] [--json]

100,000 accounts x 60 features, three of them categorical, a tenth of the numbers missing; 300 trees of 31 leaves.
`ratio_shap` is shap's time over ours, `difference` the greatest one between any two values (log-odds), `equal` says
whether it is within 1e-4, and `ratio_reasons` compares with all of `reasons`: values, families, points and words.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import resource
import time
import warnings
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before anything starts a pool: shap lets LightGBM take every core there is

import lightgbm as lgb
import numpy as np
import pandas as pd

from churnkit.learning.calibrate import Calibration, Floats
from churnkit.learning.contributions import by_trees, contributions
from churnkit.learning.explain import Shap, reasons
from churnkit.learning.targets import CHURN

WIDTH, WORDS, LEVELS = 60, (3, 17, 40), 12


def book(rows: int) -> tuple[Floats, Floats]:
    """Inputs and outcomes with steps, interactions, categories and missing values."""
    dice = np.random.default_rng(0)
    x = dice.normal(size=(rows, WIDTH))
    x[dice.random(x.shape) < 0.1] = np.nan
    for place in WORDS:
        x[:, place] = dice.integers(0, LEVELS, rows)
    known = np.nan_to_num(x)
    raw = known[:, 0] + np.sin(2 * known[:, 1]) + (known[:, 3] % 3 == 0) + 0.2 * known[:, 5:20].sum(axis=1)
    raw += (known[:, 17] > 6) * known[:, 2] - 1
    return x, (dice.random(rows) < 1 / (1 + np.exp(-raw))).astype(float)


def learnt(x: Floats, y: Floats, trees: int) -> lgb.Booster:
    """A booster as large as ours become."""
    params = {"objective": "binary", "learning_rate": 0.04, "num_leaves": 31, "min_data_in_leaf": 80,
              "feature_fraction": 0.5, "max_bin": 127, "num_threads": 1, "verbosity": -1, "seed": 7}
    return lgb.train(params, lgb.Dataset(x, y, categorical_feature=list(WORDS), params=params), trees)


def measure(rows: int, trees: int) -> dict[str, Any]:
    """Each way once, on all rows."""
    x, y = book(rows)
    booster = learnt(x[:20_000], y[:20_000], trees)
    with warnings.catch_warnings():  # shap calls what matplotlib is about to deprecate
        warnings.simplefilter("ignore")
        import shap

        peer = shap.TreeExplainer(booster)
    contributions(booster, x[:100])  # either way is warm
    by_trees(booster, x[:100])
    peer.shap_values(x[:100])
    clock = time.perf_counter()
    ours, base = contributions(booster, x)
    took = time.perf_counter() - clock
    clock = time.perf_counter()
    theirs = np.asarray(peer.shap_values(x))
    shap_took = time.perf_counter() - clock
    frame = pd.DataFrame(x, columns=[f"signal{place}_28d" for place in range(WIDTH)])
    frame = frame.assign(entity_id=np.arange(rows).astype(str), cutoff=pd.Timestamp("2026-11-01", tz="UTC"))
    clock = time.perf_counter()
    told = reasons(CHURN, frame, Shap(tuple(frame.columns[:WIDTH]), ours, base + ours.sum(axis=1),
                                      Calibration().apply), top=6)
    words_took = time.perf_counter() - clock
    difference = float(np.abs(ours - theirs).max())
    return {
        "benchmark": "explain", "rows": rows, "features": WIDTH, "trees": trees, "leaves": 31,
        "seconds": {"ours": round(took, 2), "shap": round(shap_took, 2), "reasons in words": round(words_took, 2)},
        "ratio_shap": round(shap_took / took, 2), "ratio_reasons": round(shap_took / (took + words_took), 2),
        "told": len(told), "difference": difference, "equal": difference <= 1e-4,
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "versions": {name: importlib.metadata.version(name) for name in ("lightgbm", "shap", "woodelf-explainer")},
    }


def main() -> None:
    """The whole book; --small makes it one that takes less than a minute."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", action="store_true")
    options.add_argument("--small", action="store_true")
    asked = options.parse_args()
    result = measure(20_000, 300) if asked.small else measure(100_000, 300)
    if asked.json:
        print(json.dumps(result))
        return
    for name, seconds in result["seconds"].items():
        print(f"{name:20}{seconds:>10.2f} s")
    print(f"{result['rows']:,} rows x {result['features']} features, {result['trees']} trees: "
          f"{result['ratio_shap']:.1f} x as fast as shap.TreeExplainer, values within {result['difference']:.1g}; "
          f"peak {result['peak_mb']} MB")


if __name__ == "__main__":
    main()
