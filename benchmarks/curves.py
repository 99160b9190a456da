"""Right about when, and as right as can be? Models and curves on a simulated book, whose hazards are known.

    python benchmarks/curves.py [--small] [--json]

Fitted on what had closed before the test period, told on the test period: the calibration error of every target and
horizon; the AUC beside the one that the true probabilities reach on the same rows, which knows what no feature shows
(how content or how hungry an account is by nature); and the integrated Brier score of the curves beside Cox's
proportional hazards (lifelines, in an environment of its own, on at most 40,000 rows) and beside Kaplan-Meier.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from against.environment import apart

from churnkit.cutoffs import moment
from churnkit.jobs import setup
from churnkit.jobs.fitting import history
from churnkit.jobs.workspace import open_store, read, targets
from churnkit.learning.calibrate import Floats
from churnkit.learning.curves import Curved, train_curve
from churnkit.learning.durations import Durations, durations, edges, horizons
from churnkit.learning.labels import label
from churnkit.learning.resample import draws
from churnkit.learning.survival import brier, concordance, integrated, ratios
from churnkit.learning.targets import Target
from churnkit.learning.training import Trained, train, training_set
from churnkit.settings import load
from churnkit.signals.compute import compute_features
from churnkit.signals.features import planned
from churnkit.signals.points import points_at
from churnkit.signals.store import Store
from churnkit.signals.tables import Tables
from churnkit.simulate import auc

AT = moment("2026-11-01")
TRUTH = {"churn": "churn_probability", "expansion": "expansion_probability", "maintenance": "failure_probability"}
HERE, AT_MOST = Path(__file__).parent, 40_000


Learnt = tuple[Trained, Curved | None, Durations | None, pd.DataFrame]


def learnt(tables: Tables, store: Store, target: Target) -> Learnt:
    """The target's training, its curve where it has one, and what that learnt from."""
    days = horizons(target, tables.settings)
    points, followed = history(tables, store, target, AT, days)
    features = store.read(followed, target)
    rows = training_set(target, features, label(target, tables, points))
    trained = train(target, rows)
    if not days:
        return trained, None, None, rows.X
    spans = durations(target, tables, followed, edges(days))
    x = features.set_index("row_id").loc[spans.keys["row_id"], list(rows.X)].reset_index(drop=True)
    when = trained.splits.test_at.to_pydatetime()
    return trained, train_curve(spans, x, days, test_at=when, planned=planned(store.catalog)), spans, x


def beside_truth(book: Path, tables: Tables, store: Store, target: Target, trained: Trained) -> dict[str, Any]:
    """AUCs on the rows of the test period for which the simulator told the truth: ours, logistic, true; and how far
    ours may lie below the true one, at 95% of the resamples of entities.
    """
    kind = "accounts" if target.entity == "account" else "assets"
    truth = pd.read_parquet(book / "data" / "truth" / f"{kind}.parquet")
    truth["cutoff"] = pd.to_datetime(truth["cutoff"], utc=True).astype("datetime64[us, UTC]")
    last = pd.Timestamp(AT) - target.window
    truth = truth[(truth["cutoff"] >= trained.splits.test_at) & (truth["cutoff"] <= last)]
    points = points_at(tables, target.entity, [one.to_pydatetime() for one in sorted(truth["cutoff"].unique())])
    rows = compute_features(tables, points, store.catalog).assign(
        y=label(target, tables, points)["label"].to_numpy(dtype=float, na_value=np.nan))
    known = truth.rename(columns={target.id_column: "entity_id", TRUTH[target.name]: "true"})
    rows = rows.merge(known[["entity_id", "cutoff", "true"]], on=["entity_id", "cutoff"]).dropna(subset=["y", "true"])
    y, model = rows["y"].to_numpy(), trained.holdout
    told = {"model": model.probability(rows), "logistic": model.baseline.predict(rows), "true": rows["true"].to_numpy()}
    found = {name: round(auc(p, y), 4) for name, p in told.items()}
    return {"rows": len(rows), "positive": int(y.sum()), **found, "gap": round(found["true"] - found["model"], 4)}


def beside_cox(curved: Curved, spans: Durations, x: pd.DataFrame, when: pd.Timestamp) -> dict[str, Any]:
    """Integrated Brier score and C-index of the holdout's curve and of Cox's on the same test rows, and the paired
    difference of the scores with its 95% interval over entities.
    """
    before = spans.until(when.to_pydatetime())
    fit = np.flatnonzero(before.known)
    fit = np.sort(np.random.default_rng(7).choice(fit, min(len(fit), AT_MOST), replace=False))
    test = (spans.keys["cutoff"] >= when).to_numpy() & spans.known
    mine, seen = before.take(fit), spans.take(test)
    followed = np.flatnonzero(np.isfinite(seen.labels).any(axis=0))
    at = np.array(spans.edges)[followed]
    with tempfile.TemporaryDirectory() as home:
        x.iloc[fit].assign(days_=mine.days, event_=mine.event).to_parquet(f"{home}/fit.parquet", index=False)
        x[test].to_parquet(f"{home}/test.parquet", index=False)
        np.save(f"{home}/at.npy", at)
        subprocess.run([apart("peers_cox", "cox_requirements.txt"), HERE / "against" / "cox.py", home], check=True,
                       stdout=sys.stderr, stderr=subprocess.DEVNULL)
        cox = np.load(f"{home}/p.npy")
    codes, names = pd.factorize(seen.keys["entity_id"])
    weights = draws(len(names), 500, 7)
    told = {"curve": curved.holdout.probability(x[test])[:, followed], "cox": cox}
    scores = {name: integrated(brier(seen.days, seen.event, p, at), at) for name, p in told.items()}
    _, spread = ratios(scores["curve"] - scores["cox"], np.ones(len(seen)), codes, weights)
    return {**{f"brier_{name}": round(float(score.mean()), 5) for name, score in scores.items()},
            "difference_95": [round(float(one), 5) for one in np.quantile(spread, [0.025, 0.975])],
            **{f"c_{name}": round(_c_index(seen, p, at), 4) for name, p in told.items()}}


def _c_index(spans: Durations, p: Floats, at: Floats) -> float:
    right, pairs = concordance(spans.days, spans.event, p @ np.diff([0.0, *at]))
    return float(right.sum() / pairs.sum())


def measure(accounts: int, months: int, names: list[str]) -> dict[str, Any]:
    """Simulates a book and learns from it."""
    found = []
    with tempfile.TemporaryDirectory() as home:
        book = Path(home) / "book"
        setup.simulate(book, accounts=accounts, months=months)
        settings = load(book)
        tables, store = read(settings, AT), open_store(settings)
        for target in targets(settings, tables):
            if target.name not in names:
                continue
            trained, curved, spans, x = learnt(tables, store, target)
            row: dict[str, Any] = {
                "target": target.name, "skill": trained.evaluation.skill,
                "calibration_error": round(trained.evaluation.figure("calibration_error"), 4),
                "truth": beside_truth(book, tables, store, target, trained)}
            if curved is not None and spans is not None:
                by = curved.evaluation.horizons
                row["horizons"] = {f"{day:g} d": [round(float(one), 4) for one in pair] for day, pair in
                                   zip(by.index, by[["calibration_error", "auc"]].to_numpy(), strict=True)
                                   if np.isfinite(pair).all()}
                row["kaplan_meier"] = round(curved.evaluation.figure("integrated_brier", "kaplan_meier"), 5)
                row["cox"] = beside_cox(curved, spans, x, trained.splits.test_at)
            found.append(row)
    return {"benchmark": "curves", "accounts": accounts, "months": months, "targets": found}


def main() -> None:
    """One book; --small takes one that takes a minute or two, and the churn model alone."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", action="store_true")
    options.add_argument("--small", action="store_true")
    options.add_argument("--accounts", type=int, default=2000)
    options.add_argument("--months", type=int, default=36)
    options.add_argument("--targets", default="churn,expansion,maintenance")
    asked = options.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR)
    result = measure(600, 24, ["churn"]) if asked.small else measure(asked.accounts, asked.months,
                                                                      asked.targets.split(","))
    if asked.json:
        print(json.dumps(result))
        return
    for row in result["targets"]:
        true = row["truth"]
        print(f"{row['target']}: calibration error {row['calibration_error']:.4f}; on {true['rows']} rows with a known "
              f"truth ({true['positive']} positive) AUC {true['model']:.3f}, logistic {true['logistic']:.3f}, the true "
              f"probabilities {true['true']:.3f}")
        if "cox" in row:
            cox = row["cox"]
            print("  " + "; ".join(f"{day} calibration error {pair[0]:.4f}, AUC {pair[1]:.3f}"
                                   for day, pair in row["horizons"].items()))
            print(f"  integrated Brier score {cox['brier_curve']:.5f}, Cox {cox['brier_cox']:.5f} (difference "
                  f"{cox['difference_95'][0]:+.5f} to {cox['difference_95'][1]:+.5f}), Kaplan-Meier "
                  f"{row['kaplan_meier']:.5f}; C-index {cox['c_curve']:.3f}, Cox {cox['c_cox']:.3f}")


if __name__ == "__main__":
    main()
