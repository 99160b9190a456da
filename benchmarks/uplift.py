"""Whom a contact helps: what a ranking by learnt uplift is worth, whom it harms, how often it claims what is not so.

    python benchmarks/uplift.py [--small] [--json]

On made-up experiments with known uplift, in which a fifth of the accounts are driven out by a contact, and those are
the riskiest. Each way of ranking learns from one half-and-half experiment and picks a fifth of 20,000 new accounts: its
value is the share of what the true uplift would keep at the same capacity. The peers: econml's X- and DR-learner used
directly with LightGBM's defaults, and the two-model approach of scikit-uplift (a classifier per arm); and the true
probability to leave, by which most programmes rank. False claims: how often skill is claimed where a contact does
nothing, or as much for everybody.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier, LGBMRegressor

from churnkit.learning.calibrate import Floats
from churnkit.learning.qini import Arms, qini
from churnkit.learning.trees import matrix, word_levels
from churnkit.learning.uplift import Trial, UpliftModel, contacted
from churnkit.simulate.responses import UNSEEN, responses

CAPACITY, NEW, SEED_OF_NEW = 0.2, 20_000, 999
Learn = Callable[[pd.DataFrame, pd.DataFrame], tuple[Floats, bool | None]]


def trial(made: pd.DataFrame) -> Trial:
    """The experiment as a model sees it."""
    return Trial(made.drop(columns=list(UNSEEN)), made["treated"], made["stayed"], made["propensity"], made.index)


def ours(made: pd.DataFrame, new: pd.DataFrame) -> tuple[Floats, bool | None]:
    """This package: learner chosen, judged and brought to scale."""
    model = UpliftModel.fit("churn", trial(made))
    return model.predict(new), model.skill


def two_models(made: pd.DataFrame, new: pd.DataFrame) -> tuple[Floats, bool | None]:
    """A classifier per arm, with LightGBM's defaults."""
    x, there = _numbers(made, made), _numbers(new, made)
    treated, y = made["treated"].to_numpy(), made["stayed"].to_numpy()
    told = [LGBMClassifier(n_jobs=1, verbosity=-1).fit(x[arm], y[arm]).predict_proba(there)[:, 1]
            for arm in (treated, ~treated)]
    return told[0] - told[1], None


def x_learner(made: pd.DataFrame, new: pd.DataFrame) -> tuple[Floats, bool | None]:
    """econml's, on LightGBM's defaults."""
    from econml.metalearners import XLearner

    learner = XLearner(models=LGBMRegressor(n_jobs=1, verbosity=-1), allow_missing=True,
                       propensity_model=LGBMClassifier(n_jobs=1, verbosity=-1))
    learner.fit(made["stayed"].to_numpy(), made["treated"].to_numpy().astype(int), X=_numbers(made, made))
    return learner.effect(_numbers(new, made)).ravel(), None


def dr_learner(made: pd.DataFrame, new: pd.DataFrame) -> tuple[Floats, bool | None]:
    """econml's, on LightGBM's defaults."""
    from econml.dr import DRLearner

    trees = LGBMRegressor(n_jobs=1, verbosity=-1)
    learner = DRLearner(model_propensity=LGBMClassifier(n_jobs=1, verbosity=-1), model_regression=trees,
                        model_final=trees, random_state=7, allow_missing=True, min_propensity=0.01)
    learner.fit(made["stayed"].to_numpy(), made["treated"].to_numpy().astype(int), X=_numbers(made, made))
    return learner.effect(_numbers(new, made)).ravel(), None


def by_probability(_: pd.DataFrame, new: pd.DataFrame) -> tuple[Floats, bool | None]:
    """The true chance to leave: no model of it could be better."""
    return new["risk"].to_numpy(), None


WAYS: dict[str, Learn] = {
    "churnkit": ours, "econml X-learner": x_learner, "econml DR-learner": dr_learner, "two models": two_models,
    "probability": by_probability}


def policies(rows: int, seeds: int) -> dict[str, dict[str, Any]]:
    """Value, harm, Qini and seconds of each way, over some experiments."""
    new = responses(NEW, SEED_OF_NEW)
    truth, capacity = new["uplift"].to_numpy(), int(CAPACITY * NEW)
    best = truth[contacted(truth, capacity)].sum()
    arms = Arms.of(new["stayed"].to_numpy(), new["treated"].to_numpy())
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in WAYS}
    for seed in range(seeds):
        made = responses(rows, seed)
        for name, learn in WAYS.items():
            clock = time.process_time()
            told, skill = learn(made, new)
            chosen = contacted(told, capacity)
            found[name].append({
                "value": truth[chosen].sum() / best, "harmed": (truth[chosen] < 0).mean(), "qini": qini(arms, told),
                "cpu_seconds": time.process_time() - clock, "skill": skill})
    return {name: {"value": _mean(some, "value"), "least_value": round(min(one["value"] for one in some), 4),
                   "harmed": _mean(some, "harmed"), "qini": _mean(some, "qini"),
                   "cpu_seconds": _mean(some, "cpu_seconds"),
                   "proven": None if some[0]["skill"] is None else sum(one["skill"] for one in some)}
            for name, some in found.items()}


def false_claims(rows: int, runs: int) -> dict[str, Any]:
    """How many runs claim skill where there is none."""
    return {kind: sum(UpliftModel.fit("churn", trial(responses(rows, seed, kind=kind))).skill for seed in range(runs))
            for kind in ("none", "same")} | {"rows": rows, "runs": runs}


def _numbers(rows: pd.DataFrame, learnt: pd.DataFrame) -> Floats:
    """The inputs as numbers; words are coded as in the experiment."""
    x = learnt.drop(columns=list(UNSEEN))
    return matrix("churn", rows, list(x), word_levels(x))


def _mean(some: list[dict[str, Any]], name: str) -> float:
    return round(float(np.mean([one[name] for one in some])), 4)


def main() -> None:
    """Five experiments of 8,000 accounts and 30 runs of either kind without heterogeneity, or fewer."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", action="store_true")
    options.add_argument("--small", action="store_true")
    options.add_argument("--runs", type=int, help="runs of either kind; 30, or 2 when small")
    asked = options.parse_args()
    logging.basicConfig(level=logging.ERROR)
    warnings.simplefilter("ignore", UserWarning)  # econml's, of blanks; scikit-learn's, of names
    rows, seeds, runs = (3000, 1, 2) if asked.small else (8000, 5, 30)
    result = {"benchmark": "uplift", "rows": rows, "experiments": seeds, "policies": policies(rows, seeds),
              "false_claims": false_claims(1500, asked.runs if asked.runs is not None else runs),
              "versions": {name: importlib.metadata.version(name) for name in ("econml", "lightgbm")}}
    result["ratio_two_models"] = round(
        result["policies"]["churnkit"]["value"] / result["policies"]["two models"]["value"], 4)
    if asked.json:
        print(json.dumps(result))
        return
    print(f"{seeds} experiments of {rows:,} accounts; {CAPACITY:.0%} of {NEW:,} new ones contacted")
    print(f"{'ranked by':20}{'value':>9}{'least':>9}{'harmed':>9}{'Qini':>9}{'CPU s':>8}")
    for name, one in result["policies"].items():
        print(f"{name:20}{one['value']:9.1%}{one['least_value']:9.1%}{one['harmed']:9.2%}{one['qini']:9.4f}"
              f"{one['cpu_seconds']:8.1f}")
    claims, proven = result["false_claims"], result["policies"]["churnkit"]["proven"]
    print(f"skill proven in {proven} of {seeds}; claimed where a contact does nothing: "
          f"{claims['none']} of {claims['runs']}, where it helps all alike: {claims['same']} of {claims['runs']} "
          f"({claims['rows']:,} accounts each)")


if __name__ == "__main__":
    main()
