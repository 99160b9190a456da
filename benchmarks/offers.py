"""How much: does ranking expansions by money catch more of it, and is a hurdle better than one model for all rows?

    python benchmarks/offers.py [--small] [--json] [--accounts N | --book FOLDER --at DATE]

On a simulated book or a workspace of yours, over rolling origins in the later half of its time: everything learns from
what had closed before an origin and is held against what accounts gained after it. At each cutoff the tenth that ranks
highest is contacted: by probability; by probability x the usual share of MRR, and x the model's gain (the package does
the one or the other, by whether the model's skill is proven); by MRR alone. The rival of this hurdle is a Tweedie model
on all rows, most of which gain nothing, with the same trees and the same early stopping. Intervals hold 95% of 1,000
resamples of accounts; the verdicts on gains and kinds are those of a training, on its test period.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import logging
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from churnkit.cutoffs import moment
from churnkit.errors import ModelError
from churnkit.jobs import setup
from churnkit.jobs.fitting import dataset_of
from churnkit.jobs.workspace import read, targets
from churnkit.learning.gains import Gains, deviance
from churnkit.learning.model import Model
from churnkit.learning.offers import train_gains, train_kinds
from churnkit.learning.profit import contacted
from churnkit.learning.resample import draws
from churnkit.learning.splits import LATER, TrainingSet, rolling, timeline
from churnkit.learning.survival import ratios
from churnkit.settings import Settings, load

AT = "2026-11-01"
FOLDS = 4
RIVAL = "Tweedie on all rows"
HURDLES = ("probability x usual share", "probability x model's gain")
RANKINGS = ("probability", *HURDLES, RIVAL, "MRR")


def labelled(book: Path, at: str) -> tuple[TrainingSet, Settings]:
    """The labelled rows of the book's expansions, and its settings."""
    settings = load(book)
    tables = read(settings, moment(at))
    target = next(one for one in targets(settings, tables) if one.name == "expansion")
    return dataset_of(settings, tables, target, moment(at)), settings


def on_all(rows: TrainingSet, prior: float) -> Gains:
    """The rival: the same estimator on all rows, where one that did not expand has gained nothing."""
    everybody = replace(rows, y=pd.Series(1, rows.y.index),
                        keys=rows.keys.assign(value=rows.keys["value"].where(rows.y == 1, 0.0)))
    return Gains(rows.target.name).fit(everybody, prior)


def measure(rows: TrainingSet, settings: Settings) -> dict[str, Any]:
    """Everything that is printed."""
    prior = settings.value.expansion_share
    cut = timeline(rows, settings.training.test_share).test_at.to_pydatetime()
    gains = train_gains(rows, test_at=cut, prior=prior)
    both = pd.concat([told(rows.take(one.closed), rows.take(one.held), prior) for one in rolling(rows, FOLDS, LATER)])
    both = both.dropna()
    gain, codes = both["gain"].to_numpy(), pd.factorize(both["entity_id"])[0]
    weights = draws(int(codes.max()) + 1, 1000, seed=7)
    parts = {name: contacted(both["cutoff"], both[name].to_numpy(), None) for name in RANKINGS}
    found = {}
    for name, part in parts.items():
        share, _ = ratios(part * gain, gain, codes, weights)
        more, spread = ratios((part - parts["probability"]) * gain, gain, codes, weights)
        found[name] = {"caught": round(share, 4), "more": round(more, 4), **_interval(spread)}
    losses = {name: deviance(gain, both[name].to_numpy()) for name in (*HURDLES, RIVAL)}
    for name in HURDLES:
        less, spread = ratios(losses[name] - losses[RIVAL], np.ones(len(gain)), codes, weights)
        found[name]["deviance_minus_rival's"] = {"mean": round(less, 4), **_interval(spread)}
    for name, loss in losses.items():
        found[name] |= {"deviance": round(float(loss.mean()), 4),
                        "foreseen": round(float(both[name].sum() / gain.sum()), 3)}
    return {"rows": len(gain), "expanded": int((gain > 0).sum()), "money": round(float(gain.sum())),
            "gains": gains.says(), "kinds": _kinds(rows, cut), "by": found}


def told(before: TrainingSet, after: TrainingSet, prior: float) -> pd.DataFrame:
    """What each ranking foretells of the later rows, by what had closed before them, with what they gained."""
    p, gains = Model(before.target).fit(before).probability(after.X), Gains(before.target.name).fit(before, prior)
    ranks = (p, p * gains.usual(after.X), p * gains.predict(after.X), on_all(before, prior).predict(after.X),
             after.X["mrr"].to_numpy(dtype=float))
    gain = after.keys["value"].astype(float).where(after.y == 1, 0.0)
    return after.keys[["entity_id", "cutoff"]].assign(gain=gain, **dict(zip(RANKINGS, ranks, strict=True)))


def _kinds(rows: TrainingSet, cut: dt.datetime) -> str:
    try:
        return train_kinds(rows, test_at=cut).says()
    except ModelError as error:  # one kind alone is an answer too
        return str(error)


def _interval(spread: Any) -> dict[str, float]:
    low, high = np.nanquantile(spread, [0.025, 0.975])
    return {"low": round(float(low), 4), "high": round(float(high), 4)}


def main() -> None:
    """A simulated book, a small one, or one of yours."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", action="store_true")
    options.add_argument("--small", action="store_true")
    options.add_argument("--accounts", type=int, default=2000)
    options.add_argument("--book", type=Path)
    options.add_argument("--at", default=AT)
    asked = options.parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR)
    with tempfile.TemporaryDirectory() as home:
        book = asked.book or Path(home) / "book"
        if asked.book is None:
            setup.simulate(book, accounts=600 if asked.small else asked.accounts, months=24)
        result = {"benchmark": "offers", **measure(*labelled(book, asked.at))}
    if asked.json:
        print(json.dumps(result))
        return
    print(result["gains"], result["kinds"], sep="\n")
    print(f"a tenth contacted at each cutoff, {result['rows']} rows, {result['expanded']} expanded")
    for name, one in result["by"].items():
        sums = f"; deviance {one['deviance']:.2f}, foreseen over gained {one['foreseen']}" if "deviance" in one else ""
        print(f"  by {name:28}{one['caught']:7.1%} of the money, {one['more']:+.1%} ({one['low']:+.1%} to "
              f"{one['high']:+.1%}) against probability{sums}")
    for name in HURDLES:
        less = result["by"][name]["deviance_minus_rival's"]
        print(f"deviance, {name} minus {RIVAL}: {less['mean']:+.2f} ({less['low']:+.2f} to {less['high']:+.2f})")


if __name__ == "__main__":
    main()
