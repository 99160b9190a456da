"""Whom a contact helps: what a ranking by learnt uplift is worth, whom it harms, how often it claims what is not so.

    python benchmarks/uplift.py [--small] [--json]

On made-up experiments with known uplift, in which a fifth of the accounts are driven out by a contact, and those are
the riskiest. Each way of ranking learns from one experiment and picks a fifth of 20,000 new accounts: its value is the
share of what the true uplift would keep at the same capacity. The peers learn from half-and-half experiments: econml's
X- and DR-learner used directly with LightGBM's defaults, and the two-model approach of scikit-uplift (a classifier per
arm); and the true probability to leave, by which most programmes rank. Then sizes and shares of control: how many
accounts 90% takes. False claims: how often skill is claimed where a contact does nothing, or as much for everybody.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier, LGBMRegressor

from churnkit.learning.calibrate import Floats
from churnkit.learning.qini import Arms, qini
from churnkit.learning.trees import matrix, word_levels
from churnkit.learning.uplift import Trial, UpliftModel, contacted
from churnkit.simulate.responses import UNSEEN, Kind, responses

CAPACITY, NEW, SEED_OF_NEW = 0.2, 20_000, 999
ENOUGH = 0.9
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


def experiment(rows: int, control: float, seed: int, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Value, harm, Qini and seconds of each way that is named, in one experiment."""
    _quiet()
    made, new = responses(rows, seed, control=control), responses(NEW, SEED_OF_NEW)
    truth, capacity = new["uplift"].to_numpy(), int(CAPACITY * NEW)
    best = truth[contacted(truth, capacity)].sum()
    arms = Arms.of(new["stayed"].to_numpy(), new["treated"].to_numpy())
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        clock = time.process_time()
        told, skill = WAYS[name](made, new)
        spent, chosen = time.process_time() - clock, contacted(told, capacity)
        found[name] = {"value": truth[chosen].sum() / best, "harmed": (truth[chosen] < 0).mean(),
                       "qini": qini(arms, told), "cpu_seconds": spent, "skill": skill}
    return found


def policies(pool: Executor, rows: int, control: float, seeds: int, names: tuple[str, ...]) -> dict[str, Any]:
    """The ways' figures over some experiments: means, and of the value its spread, its least and how often it is 90% or
    more.
    """
    each = pool.map(experiment, *zip(*((rows, control, seed, names) for seed in range(seeds)), strict=True))
    runs = list(each)
    return {"rows": rows, "control": control, "experiments": seeds, "ways": {
        name: _over([run[name] for run in runs]) for name in names}}


def _over(some: list[dict[str, Any]]) -> dict[str, Any]:
    values = np.array([one["value"] for one in some])
    return {"value": _mean(some, "value"), "spread": round(float(values.std()), 4),
            "least_value": round(float(values.min()), 4), "at_90": int((values >= ENOUGH).sum()),
            "harmed": _mean(some, "harmed"), "qini": _mean(some, "qini"), "cpu_seconds": _mean(some, "cpu_seconds"),
            "proven": None if some[0]["skill"] is None else sum(one["skill"] for one in some)}


def claims(kind: Kind, rows: int, seed: int) -> bool:
    """Whether skill is claimed in an experiment in which nobody differs."""
    _quiet()
    return UpliftModel.fit("churn", trial(responses(rows, seed, kind=kind))).skill


def false_claims(pool: Executor, rows: int, runs: int) -> dict[str, Any]:
    """How many runs claim skill where there is none."""
    kinds: tuple[Kind, ...] = ("none", "same")
    return {kind: sum(pool.map(claims, [kind] * runs, [rows] * runs, range(runs))) for kind in kinds} | {
        "rows": rows, "runs": runs}


def _numbers(rows: pd.DataFrame, learnt: pd.DataFrame) -> Floats:
    """The inputs as numbers; words are coded as in the experiment."""
    x = learnt.drop(columns=list(UNSEEN))
    return matrix("churn", rows, list(x), word_levels(x))


def _mean(some: list[dict[str, Any]], name: str) -> float:
    return round(float(np.mean([one[name] for one in some])), 4)


def _quiet() -> None:
    logging.basicConfig(level=logging.ERROR)
    warnings.simplefilter("ignore", UserWarning)  # econml's, of blanks; scikit-learn's, of names


def main() -> None:
    """Ten experiments of each size and 40 runs of either kind without heterogeneity, or fewer."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", action="store_true")
    options.add_argument("--small", action="store_true")
    options.add_argument("--runs", type=int, help="runs of either kind; 40, or 2 when small")
    asked = options.parse_args()
    rows, seeds, runs = (3000, 1, 2) if asked.small else (8000, 10, 40)
    sizes = ((3000, 0.1),) if asked.small else ((4000, 0.5), (8000, 0.1), (16_000, 0.1), (32_000, 0.1))
    runs = runs if asked.runs is None else asked.runs
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        result = {"benchmark": "uplift", "policies": policies(pool, rows, 0.5, seeds, tuple(WAYS)),
                  "sizes": [policies(pool, *one, seeds, ("churnkit", "probability")) for one in sizes],
                  "false_claims": false_claims(pool, 1500, runs),
                  "versions": {name: importlib.metadata.version(name) for name in ("econml", "lightgbm")}}
    ways = result["policies"]["ways"]
    result["ratio_two_models"] = round(ways["churnkit"]["value"] / ways["two models"]["value"], 4)
    print(json.dumps(result) if asked.json else _words(result))


def _words(result: dict[str, Any]) -> str:
    """The figures as tables, and in sentences what they come to."""
    said = [f"{CAPACITY:.0%} of {NEW:,} new accounts contacted; value: share of what the true uplift would keep"]
    for found in (result["policies"], *result["sizes"]):
        count = found["experiments"]
        said += [f"\n{count} experiments of {found['rows']:,} accounts, {found['control']:.0%} of them control",
                 f"{'ranked by':20}{'value':>9}{'spread':>9}{'least':>9}{'harmed':>9}{'Qini':>9}{'CPU s':>8}"]
        said += [f"{name:20}{one['value']:9.1%}{one['spread']:9.1%}{one['least_value']:9.1%}{one['harmed']:9.2%}"
                 f"{one['qini']:9.4f}{one['cpu_seconds']:8.1f}" for name, one in found["ways"].items()]
        mine = found["ways"]["churnkit"]
        kept = "is kept" if mine["value"] >= ENOUGH else "is NOT kept"
        said.append(f"90% {kept} on average, and in {mine['at_90']} of {count}; skill is proven in {mine['proven']}, "
                    "else the probability ranks")
    told = result["false_claims"]
    said.append(f"\nskill claimed where a contact does nothing: {told['none']} of {told['runs']}; where it helps all "
                f"alike: {told['same']} of {told['runs']} ({told['rows']:,} accounts each)")
    return "\n".join(said)


if __name__ == "__main__":
    main()
