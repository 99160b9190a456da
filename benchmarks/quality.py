"""Is the default model as good as the best of the others, on the same rows? On the visible real sets, in one run.

    python benchmarks/quality.py [--set NAME] [--minutes N] [--keep FILE] [--small] [--json]

The contenders: ChurnClassifier as it comes, and with `tune`; logistic regression with careful preparation, LightGBM's
and CatBoost's defaults, and AutoGluon for two minutes a fit (`--minutes`). All get one feature matrix, the same rows
and as many threads as this package takes. The sets lie at CHURNKIT_REAL_DATA (../shared/data without it); where they
are absent this says so and ends.

CatBoost and AutoGluon live in an environment of their own, `.peers`, which is made at the first need. What they
answered is kept in quality.json beside this file, with seed and versions: it is used as long as the rows are the same,
so that a later run need not fit them again. Delete the file, or name another with --keep, to have them measured anew.

Intervals hold 95% of 1,000 resamples of entities; a difference is taken on the same resamples. The aim: ours less the
best other's AUC reaches -0.005 or better, at a tenth of the AutoML's time, and above every reference of the data's own
README (whose features were others where the set is not flat).
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from against.environment import apart
from against.sets import SETS, Case, data
from threadpoolctl import threadpool_limits

from churnkit.learning.calibrate import Floats, sigmoid
from churnkit.learning.resample import METRICS, draws, resampled
from churnkit.learning.sklearn import ChurnClassifier
from churnkit.learning.trees import THREADS

PEERS = "peers", "requirements.txt"
HERE = Path(__file__).parent
SEED = 7
TRIALS = 10
AIM, TIME = -0.005, 0.1
OURS, TUNED, AUTOML = "churnkit", "churnkit tuned", "autogluon"
IN_HOUSE, APART = ("logistic", "lightgbm"), ("catboost", AUTOML)
TINY = 1e-12
"""Probabilities stay this far from 0 and 1: not further, because ties would cost a bold contender its ranking."""
SHOWN = ("auc", "average_precision", "log_loss")


@dataclass(frozen=True, eq=False)
class Answer:
    """What one contender said of each fold's test rows, in how many seconds of fitting and predicting, by what."""

    p: list[Floats]
    seconds: float
    version: str


def ours(case: Case, trials: int) -> Answer:
    """The package's own classifier."""
    p, clock = [], time.perf_counter()
    with threadpool_limits(THREADS):
        for fitted, held in case.folds:
            model = ChurnClassifier(horizon=case.horizon, tune=trials, random_state=SEED)
            when = None if case.time is None else case.time.iloc[fitted]
            model.fit(case.x.iloc[fitted], case.y[fitted], time=when)
            p.append(model.predict_proba(case.x.iloc[held])[:, 1])
    return Answer(p, time.perf_counter() - clock, f"churnkit {importlib.metadata.version('churnkit-outreach')}")


def peer(name: str, case: Case, python: Path, seconds: float) -> Answer:
    """Another contender, in a process of its own: against/peers.py."""
    p, taken, version = [], 0.0, ""
    few = {f"{one}_NUM_THREADS": str(THREADS) for one in ("OMP", "OPENBLAS", "MKL")}
    for fitted, held in case.folds:
        with tempfile.TemporaryDirectory() as home:
            case.x.iloc[fitted].assign(y_=case.y[fitted]).to_parquet(f"{home}/fit.parquet", index=False)
            case.x.iloc[held].to_parquet(f"{home}/test.parquet", index=False)
            subprocess.run([python, HERE / "against" / "peers.py", name, home, "--seed", str(SEED), "--threads",
                            str(THREADS), "--seconds", str(seconds)], check=True, env={**os.environ, **few},
                           stdout=sys.stderr)
            about = json.loads(Path(f"{home}/about.json").read_text(encoding="utf-8"))
            p.append(np.load(f"{home}/p.npy"))
        taken, version = taken + about["seconds"], about["version"]
    return Answer(p, taken, version)


def apart_fit(name: str, case: Case, minutes: float) -> Answer:
    """A contender of the environment of its own."""
    return peer(name, case, apart(*PEERS), minutes * 60)


class Kept:
    """The answers of the contenders that live apart, in a file: the log-odds in two bytes each."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}

    def get(self, name: str, case: Case, make: Callable[[], Answer], **about: object) -> Answer:
        """The kept answer for just these rows and settings, or a new one, which is kept."""
        asked = {"rows": _digest(case), "seed": SEED, "threads": THREADS, **about}
        known = self.rows.get(f"{case.name}: {name}", {})
        if {key: known.get(key) for key in asked} != asked:
            made = make()
            bytes_ = [np.round((_log_odds(p) + 32) * 1024).clip(0, 65535).astype("<u2").tobytes() for p in made.p]
            known = {**asked, "seconds": round(made.seconds, 1), "version": made.version,
                     "p": [base64.b64encode(one).decode() for one in bytes_]}
            self.rows[f"{case.name}: {name}"] = known
            self.file.write_text(json.dumps(self.rows, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        p = [sigmoid(np.frombuffer(base64.b64decode(one), "<u2").astype(float) / 1024 - 32) for one in known["p"]]
        return Answer(p, known["seconds"], known["version"])


def _log_odds(p: Floats) -> Floats:
    held = np.clip(np.asarray(p, dtype=float), TINY, 1 - TINY)
    found: Floats = np.log(held / (1 - held))
    return found


def _digest(case: Case) -> str:
    """What tells these rows, outcomes and folds from others."""
    found = hashlib.sha256(pd.util.hash_pandas_object(case.x, index=False).to_numpy().tobytes())
    for part in (case.y, *(index for fold in case.folds for index in fold)):
        found.update(np.ascontiguousarray(part).tobytes())
    return found.hexdigest()[:16]


def spread(case: Case, p: list[Floats]) -> tuple[Floats, Floats]:
    """Each metric, as the mean over the folds: on the rows themselves, and on each resample of entities."""
    points, resamples = [], []
    for (_, held), one in zip(case.folds, p, strict=True):
        codes, names = pd.factorize(case.entity[held] if case.entity is not None else held)
        found = resampled(case.y[held].astype(float), np.clip(one, TINY, 1 - TINY), codes,
                          draws(len(names), 1000, SEED))
        points.append(found[0])
        resamples.append(found[1])
    return np.mean(points, axis=0), np.mean(resamples, axis=0)


def judge(case: Case, answers: dict[str, Answer], minutes: float) -> dict[str, Any]:
    """The figures of one case: metrics with their intervals, the difference from the best other, the time's ratio."""
    found = {name: spread(case, one.p) for name, one in answers.items()}
    table = {}
    for name, (point, drawn) in found.items():
        low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0)
        table[name] = {"seconds": round(answers[name].seconds, 1), "version": answers[name].version,
                       **{metric: [round(float(part[METRICS.index(metric)]), 4) for part in (point, low, high)]
                          for metric in SHOWN}}
    others = [name for name in answers if name not in {OURS, TUNED}]
    best = max(others, key=lambda name: float(found[name][0][0]))
    told = {"set": case.name, "rows": len(case.x), "tested": sum(len(held) for _, held in case.folds),
            "positive": int(sum(case.y[held].sum() for _, held in case.folds)), "contenders": table, "best": best,
            "against_reference": {f"{name} {figure}": bool(found[OURS][0][0] >= figure - 0.0005)
                                  for name, figure in case.reference.items()}}
    for name in (OURS, TUNED):
        if name in answers:
            gap = found[name][1][:, 0] - found[best][1][:, 0]
            low, high = (float(one) for one in np.nanquantile(gap, [0.025, 0.975]))
            told[f"{name} less best"] = [round(float(found[name][0][0] - found[best][0][0]), 4), round(low, 4),
                                         round(high, 4)]
            told[f"{name} as good"] = high >= AIM
    if AUTOML in answers:
        given = min(answers[AUTOML].seconds, minutes * 60 * len(case.folds))  # no merit of ours if it overran
        told["ratio_automl"] = round(answers[OURS].seconds / given, 3)
    return told


def measure(cases: list[Case], keep: Path, minutes: float, *, small: bool) -> list[dict[str, Any]]:
    """All contenders on each case; small: those that live in this environment, without the search."""
    kept, results = Kept(keep), []
    for case in cases:
        sys.stderr.write(f"{case.name}\n")
        answers = {OURS: ours(case, 0)}
        if not small:
            answers[TUNED] = ours(case, TRIALS)
        for name in IN_HOUSE:
            answers[name] = peer(name, case, Path(sys.executable), 0)
        for name in () if small else APART:
            limit = {"minutes": minutes} if name == AUTOML else {}
            answers[name] = kept.get(name, case, partial(apart_fit, name, case, minutes), **limit)
        results.append(judge(case, answers, minutes))
        if not small:
            show(results[-1])
    return results


def show(told: dict[str, Any]) -> None:
    """One case as a table with its verdicts."""
    print(f"\n{told['set']}: {told['rows']} rows, {told['tested']} tested, {told['positive']} of them positive")
    print(f"{'':16}{'AUC':>8}{'95%':>16}{'average precision':>20}{'log loss':>10}{'seconds':>10}")
    for name, row in told["contenders"].items():
        auc, low, high = row["auc"]
        print(f"{name:16}{auc:>8.4f}{f'{low:.4f}-{high:.4f}':>16}{row['average_precision'][0]:>20.4f}"
              f"{row['log_loss'][0]:>10.4f}{row['seconds']:>10.1f}")
    for name in (OURS, TUNED):
        if f"{name} as good" in told:
            gap, low, high = told[f"{name} less best"]
            print(f"{name} less {told['best']}: {gap:+.4f} ({low:+.4f} to {high:+.4f}): "
                  f"{'as good' if told[f'{name} as good'] else 'WORSE'}")
    if "ratio_automl" in told:
        print(f"ratio_automl {told['ratio_automl']} ({'within' if told['ratio_automl'] <= TIME else 'ABOVE'} {TIME})")
    for reference, reached in told["against_reference"].items():
        print(f"reference {reference}: {'reached' if reached else 'NOT reached'}")


def main() -> None:
    """All sets; --small takes two folds of one set and the contenders that need no environment of their own."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", action="store_true")
    options.add_argument("--small", action="store_true")
    options.add_argument("--set", choices=SETS, action="append", help="one of the sets; may be given several times")
    options.add_argument("--minutes", type=float, default=2.0, help="of the AutoML, for each fit")
    options.add_argument("--keep", type=Path, default=HERE / "quality.json")
    asked = options.parse_args()
    if not data().is_dir():
        print(f"The third-party data are not at {data()}. Set CHURNKIT_REAL_DATA to their folder to run this.")
        return
    warnings.simplefilter("ignore")
    names = asked.set or (["telco"] if asked.small else list(SETS))
    cases = [case for name in names for case in SETS[name]()]
    if asked.small:
        cases = [replace(case, folds=case.folds[:2], reference={}) for case in cases]
    results = measure(cases, asked.keep, asked.minutes, small=asked.small)
    if asked.json:
        print(json.dumps({"benchmark": "quality", "threads": THREADS, "seed": SEED, "sets": results}))
        return
    if asked.small:
        show(results[0])


if __name__ == "__main__":
    main()
