"""Are the reasons true? On a simulated book, whose causes are known: is the true cause among the first three reasons of
those rightly flagged; does masking the named reasons take the score home; does small noise leave the first in place?

    python benchmarks/reasons.py [--small] [--json]

The churn model learns from what had closed before the test period; flagged is the tenth of the test rows that it scores
highest, rightly those who left. A cause counts as told if a raising reason among the first three is of a family that is
drawn from it (`churnkit.simulate.truth.TELLS`). The peer is chance: as many of the row's families, drawn by lot.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from churnkit.cutoffs import moment
from churnkit.jobs import setup
from churnkit.jobs.fitting import history
from churnkit.jobs.workspace import open_store, read, targets
from churnkit.learning.explain import about_features
from churnkit.learning.faithful import rates
from churnkit.learning.labels import label
from churnkit.learning.model import Model
from churnkit.learning.training import train, training_set
from churnkit.settings import load
from churnkit.signals.catalog import Catalog
from churnkit.simulate.truth import TELLS, read_causes

AT = moment("2026-11-01")
FIRST, FLAGGED = 3, 0.1


def learnt(book: Path) -> tuple[Model, pd.DataFrame, Catalog | None]:
    """The holdout's model, and the rows of its test period with their labels."""
    settings = load(book)
    tables = read(settings, AT)
    churn = next(target for target in targets(settings, tables) if target.name == "churn")
    store = open_store(settings)
    points, _ = history(tables, store, churn, AT, ())
    frame, labels = store.read(points, churn), label(churn, tables, points)
    trained = train(churn, training_set(churn, frame, labels))
    frame = frame.assign(left=frame["row_id"].map(labels.set_index("row_id")["label"]))
    test = frame[(frame["cutoff"] >= trained.splits.test_at) & frame["left"].notna()].reset_index(drop=True)
    return trained.holdout, test, store.catalog


def told(model: Model, rows: pd.DataFrame, truth: pd.DataFrame, catalog: Catalog | None) -> pd.DataFrame:
    """Per row and cause at work within two weeks: whether the first reasons tell it, and whether a lot would have."""
    known = {one.name: one.family for one in about_features(model.features, catalog)}
    families = sorted(set(known.values()))
    dice = np.random.default_rng(7)
    why = model.explain(rows, top=6, catalog=catalog)
    first = why[why["direction"] == "raises"].groupby(["entity_id", "cutoff"]).head(FIRST)
    named = first.assign(family=first["feature"].map(known)).groupby(["entity_id", "cutoff"])["family"].agg(set)
    nearest = pd.merge_asof(
        rows[["entity_id", "cutoff"]].sort_values("cutoff"),
        truth[["account_id", "cutoff"]].drop_duplicates().rename(columns={"account_id": "entity_id"})
        .assign(at=lambda one: one["cutoff"]).sort_values("cutoff"),
        on="cutoff", by="entity_id", direction="nearest", tolerance=pd.Timedelta(14, "D"))
    both = nearest.dropna().merge(truth, left_on=["entity_id", "at"], right_on=["account_id", "cutoff"],
                                  suffixes=("", "_of_truth"))
    found = []
    for entity, cutoff, cause in zip(both["entity_id"], both["cutoff"], both["cause"], strict=True):
        mine = named.get((entity, cutoff), set())
        lot = set(dice.choice(families, len(mine), replace=False))
        found.append((entity, cutoff, cause, bool(mine & set(TELLS[cause])), bool(lot & set(TELLS[cause]))))
    return pd.DataFrame(found, columns=["entity_id", "cutoff", "cause", "told", "by_lot"])


def measure(accounts: int, months: int) -> dict[str, Any]:
    """Simulates a book, learns from it and holds the reasons against the truth."""
    with tempfile.TemporaryDirectory() as home:
        book = Path(home) / "book"
        setup.simulate(book, accounts=accounts, months=months)
        model, test, catalog = learnt(book)
        truth = read_causes(book / "data" / "truth").to_pandas()
    truth["cutoff"] = truth["cutoff"].astype(test["cutoff"].dtype)
    p = model.probability(test)
    if np.ptp(p) == 0:
        raise SystemExit("The model tells nobody apart on so small a book, so there are no reasons to hold against the "
                         "truth. Take more accounts.")
    flagged = p >= np.quantile(p, 1 - FLAGGED)
    right = flagged & (test["left"] == 1).to_numpy(dtype=bool)
    found = told(model, test[right].reset_index(drop=True), truth, catalog)
    any_of_them = found.groupby(["entity_id", "cutoff"])[["told", "by_lot"]].any()
    faith = rates(model, test, catalog)
    return {
        "benchmark": "reasons", "accounts": accounts, "months": months, "flagged": int(flagged.sum()),
        "rightly": int(right.sum()), "with_a_cause": len(any_of_them), "says": faith.says(),
        "told": round(float(any_of_them["told"].mean()), 3),
        "told_by_lot": round(float(any_of_them["by_lot"].mean()), 3),
        "by_cause": {cause: f"{int(one.sum())} of {len(one)}" for cause, one in found.groupby("cause")["told"]},
        "faithful": {name: round(value, 3) for name, value in faith.to_dict().items()},
    }


def main() -> None:
    """One book; --small makes it one that takes less than a minute or two."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", action="store_true")
    options.add_argument("--small", action="store_true")
    asked = options.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR)
    result = measure(1000, 24) if asked.small else measure(2000, 24)
    if asked.json:
        print(json.dumps(result))
        return
    print(f"of {result['with_a_cause']} rightly flagged with a cause, {result['told']:.1%} have it among the first "
          f"{FIRST} reasons (by lot {result['told_by_lot']:.1%})")
    for cause, share in result["by_cause"].items():
        print(f"  {cause:18}{share:>12}")
    print(result["says"])


if __name__ == "__main__":
    main()
