"""How long a training and a large scoring take: 100,000 rows x 80 features, then 1,000,000 rows.

    python benchmarks/fit.py [--small] [--json]

A training here is `train`: the fit on what had closed before the test period, with its rolling folds, choice and
calibration, its evaluation with 1,000 resamples, and the same again on all rows. The peers, on the same pool and test
rows: LightGBM's defaults, which fit once and neither stop nor calibrate, and CalibratedClassifierCV of scikit-learn
around its own boosted trees, three folds. Scoring is `predict`, from a frame to a table of scores; its floor is what
the booster alone needs for the same rows as one ready matrix. Five features are words, a tenth of the numbers blank.
All take as many threads as this package does. Ratios are of the processor's seconds, which a busy machine leaves alone.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import json
import resource
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from churnkit.learning.splits import KEYS, TrainingSet
from churnkit.learning.targets import Target
from churnkit.learning.training import train
from churnkit.learning.trees import THREADS

FEATURES, WORDS, CUTOFFS = 80, 5, 25
TARGET = Target("churn", "account", horizon=dt.timedelta(days=60))


def made(rows: int, seed: int) -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    """Features as they come from the store, and outcomes (5%) that a few of them tell of."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(rows, FEATURES - WORDS))
    numbers[:, ::3] = np.round(np.exp(numbers[:, ::3]), 1)
    words = rng.integers(0, 8, (rows, WORDS))
    raw = numbers[:, 1] - 0.4 * numbers[:, 0] + np.sin(2 * numbers[:, 2]) + 0.5 * (words[:, 0] > 5) - 3.8
    y = (rng.random(rows) < 1 / (1 + np.exp(-raw))).astype("int64")
    numbers[rng.random(numbers.shape) < 0.1] = np.nan
    frame = pd.DataFrame(numbers, columns=[f"number_{place}" for place in range(FEATURES - WORDS)])
    levels = np.array([f"word {place}" for place in range(8)], dtype=object)
    return frame.assign(**{f"word_{place}": levels[words[:, place]] for place in range(WORDS)}), y


def labelled(rows: int) -> TrainingSet:
    """Accounts at monthly cutoffs."""
    x, y = made(rows, 7)
    cutoff = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(np.arange(rows) * CUTOFFS // rows * 30, unit="D")
    keys = pd.DataFrame({"row_id": np.arange(rows).astype(str), "cutoff": cutoff})
    keys["entity_id"] = keys["account_id"] = [f"A{place % (rows // CUTOFFS)}" for place in range(rows)]
    return TrainingSet(TARGET, x, pd.Series(y), keys.reindex(columns=list(KEYS)), pd.Series(1.0, x.index), {})


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What the work gives, and its seconds by the clock and by the processor."""
    clock, spent = time.perf_counter(), time.process_time()
    found = work()
    return found, {"seconds": round(time.perf_counter() - clock, 2), "cpu": round(time.process_time() - spent, 2)}


def measure(rows: int, scored: int) -> dict[str, Any]:
    """Trains and scores with this package and with its peers."""
    labels = labelled(rows)
    trained, fit = timed(lambda: train(TARGET, labels))
    pool, test = labels.split(trained.splits.test_at)
    typed = {name: pd.CategoricalDtype(sorted(labels.X[name].unique())) for name in labels.X if
             labels.X[name].dtype == object}
    known, asked = pool.X.astype(typed), test.X.astype(typed)

    def alone() -> Any:
        return LGBMClassifier(n_jobs=THREADS, verbosity=-1).fit(known, pool.y).predict_proba(asked)[:, 1]

    def calibrated() -> Any:
        trees = HistGradientBoostingClassifier(categorical_features="from_dtype", random_state=7)
        return CalibratedClassifierCV(trees, cv=3).fit(known, pool.y).predict_proba(asked)[:, 1]

    plain, lightgbm = timed(alone)
    other, sklearn = timed(calibrated)
    frame, _ = made(scored, 8)
    frame = frame.assign(entity_id=[f"A{place}" for place in range(scored)], entity="account", cutoff="2026-02-01")
    frame = frame.assign(account_id=frame["entity_id"], cutoff=pd.to_datetime(frame["cutoff"], utc=True))
    scores, predict = timed(lambda: trained.model.predict(frame))
    matrix = np.column_stack([frame[name].to_numpy(dtype=float) if name not in typed else
                              pd.Categorical(frame[name], typed[name].categories).codes.astype(float)
                              for name in trained.model.features])
    raw, floor = timed(lambda: trained.model.booster_.predict(matrix, raw_score=True, num_threads=THREADS))
    same = trained.model.blend.trees == 0 or bool(np.corrcoef(raw, scores["probability"].rank())[0, 1] > 0.5)
    auc = {"churnkit": trained.evaluation.figure("auc"), "lightgbm": float(roc_auc_score(test.y, plain)),
           "sklearn": float(roc_auc_score(test.y, other))}
    return {
        "benchmark": "fit", "rows": rows, "features": FEATURES, "scored": scored, "threads": THREADS,
        "trees": trained.model.rounds, "share": trained.model.blend.share,
        "train": {"churnkit": fit, "lightgbm": lightgbm, "sklearn": sklearn},
        "score": {"churnkit": predict, "booster alone": floor},
        "auc": {name: round(value, 4) for name, value in auc.items()}, "equal": same,
        "ratio_lightgbm": round(fit["cpu"] / lightgbm["cpu"], 2),
        "ratio_sklearn": round(fit["cpu"] / sklearn["cpu"], 2),
        "ratio_booster": round(predict["cpu"] / floor["cpu"], 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "versions": {name: importlib.metadata.version(name) for name in ("lightgbm", "scikit-learn", "pandas")},
    }


def main() -> None:
    """One table; --small takes a twentieth of all rows."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", action="store_true")
    options.add_argument("--small", action="store_true")
    asked = options.parse_args()
    warnings.simplefilter("ignore")
    with threadpool_limits(THREADS):
        result = measure(5_000, 50_000) if asked.small else measure(100_000, 1_000_000)
    if asked.json:
        print(json.dumps(result))
        return
    print(f"{result['rows']} rows x {result['features']} features, {result['trees']} trees, {result['threads']} thread")
    for part in ("train", "score"):
        for name, one in result[part].items():
            auc = f"  AUC {result['auc'][name]:.4f}" if part == "train" else ""
            print(f"{part:6}{name:16}{one['seconds']:>9.1f} s{one['cpu']:>9.1f} s of the processor{auc}")
    print(", ".join(f"{name} {result[name]}" for name in sorted(result) if name.startswith("ratio_")), end="; ")
    print(f"{result['scored']} rows scored; peak {result['peak_mb']} MB; equal ranking: {result['equal']}")


if __name__ == "__main__":
    main()
