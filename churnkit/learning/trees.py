"""What everything that grows LightGBM trees shares: the inputs as numbers, the parameters, and when to stop."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from churnkit.errors import ModelError, did_you_mean
from churnkit.learning import calibrate
from churnkit.learning.calibrate import Floats

FORMAT = 1
"""Of the texts that the estimators beside the model are kept in."""
MAX_ROUNDS, PATIENCE, DEFAULT_ROUNDS = 800, 60, 120
STEP = 5
"""Iterations between two measurements of fits that grow side by side: setting the level takes as long as some trees."""
THREADS = 1
"""Two threads that wait for each other on a busy machine took 8 times as long; on an idle one they save a third."""
MAX_LEVELS = 40
Loss = Callable[[Floats, lgb.Dataset], tuple[str, float, bool]]


def matrix(target: str, features: pd.DataFrame, names: Sequence[str],
           levels: Mapping[str, Sequence[str]]) -> Floats:
    """The inputs `names` in order, categories as codes; a word that training did not know is missing.

    Raises:
        ModelError: If a feature is missing; names the nearest.
    """
    missing = [name for name in names if name not in features]
    if missing:
        raise ModelError(
            f"{target.upper()} needs column '{missing[0]}'"
            f"{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}."
            f"{did_you_mean(missing[0], map(str, features.columns))} Compute features with the definitions that "
            f"the model was trained on, or train it again: churnkit train."
        )
    found = np.empty((len(features), len(names)))
    for place, name in enumerate(names):
        if name in levels:
            codes = {word: float(code) for code, word in enumerate(levels[name])}
            found[:, place] = features[name].map(codes).to_numpy(dtype=float, na_value=np.nan)
        else:
            found[:, place] = pd.to_numeric(features[name], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    found[np.isinf(found)] = np.nan
    return found


def parameters(positives: int, rows: int, seed: int) -> dict[str, Any]:
    """LightGBM's parameters: the fewer positives, the smaller and the more held back the trees.

    Histograms are added up by column: by row the threads share the sums, and where weights differ widely another number
    of them grows other trees, `deterministic` or not.
    """
    leaves = 31 if positives >= 4000 else 15 if positives >= 1500 else 7
    return {
        "objective": "binary", "metric": "None", "learning_rate": 0.04, "num_leaves": leaves, "lambda_l2": 5.0,
        "min_data_in_leaf": int(np.clip(rows // 100, 10, 80)), "feature_fraction": 0.5, "bagging_fraction": 0.8,
        "bagging_freq": 1, "cat_smooth": 20.0, "min_data_per_group": 50, "seed": seed, "num_threads": THREADS,
        "deterministic": True, "force_col_wise": True, "max_bin": 127, "verbosity": -1,
    }


@contextmanager
def one_order() -> Iterator[None]:
    """Holds matrix products to one thread: several add in another order, and the last digits of a fit would differ.

    It serves as a decorator too.
    """
    with threadpool_limits(1, user_api="blas"):
        yield


def levelled_loss(predicted: Floats, data: lgb.Dataset) -> tuple[str, float, bool]:
    """Log loss after the level is set right: a base rate that moved since must not stop the trees early."""
    y = np.asarray(data.get_label(), dtype=float)
    raw = calibrate.log_odds(predicted)
    p = np.clip(calibrate.sigmoid(raw + calibrate.level(raw, y)), calibrate.EDGE, 1 - calibrate.EDGE)
    return "levelled_loss", float(-(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()), False


def word_levels(x: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """The words of each categorical column: its commonest, in alphabetical order."""
    found = {}
    for name in x:
        if (x[name].dtype == object or isinstance(x[name].dtype, (pd.CategoricalDtype, pd.StringDtype))) and x[
            name
        ].notna().any():
            counts = x[name].astype(object).dropna().astype(str).value_counts().sort_index()
            common = counts.sort_values(ascending=False, kind="stable").index[:MAX_LEVELS]
            found[str(name)] = tuple(sorted(common))
    return found


def safe_names(names: Sequence[str]) -> list[str]:
    """Feature names that LightGBM's text can hold: other characters become _, and twins get a number."""
    safe: list[str] = []
    for name in names:
        plain = re.sub(r"[^0-9A-Za-z_]", "_", name)
        safe.append(plain if plain not in safe else f"{plain}__{len(safe)}")
    return safe


def grow(params: Mapping[str, Any], rows: Mapping[str, Any], features: Sequence[str],  # noqa: PLR0913, PLR0917
         levels: Mapping[str, Any], rounds: int, stop: Mapping[str, Any] | None = None, loss: Loss | None = None,
         last: Sequence[str] = ()) -> lgb.Booster:
    """One LightGBM fit; with stop rows it ends when they have not improved for a while.

    Args:
        params: LightGBM's.
        rows: What `lightgbm.Dataset` takes: data, label, and where there are any weight and init_score.
        features: The names of the inputs, in order.
        levels: The words of those of them that are categories.
        rounds: Iterations, at most.
        stop: The same as `rows`, of the rows that decide when to stop.
        loss: What is measured on them; left out, the metric of `params`.
        last: Inputs after the features that are none.
    """
    words = [place for place, name in enumerate(features) if name in levels]
    data = lgb.Dataset(**rows, feature_name=safe_names([*features, *last]), categorical_feature=words,
                       params=dict(params))
    if stop is None:
        return lgb.train(dict(params), data, num_boost_round=rounds)
    held = data.create_valid(**stop, params=dict(params))
    return lgb.train(dict(params), data, num_boost_round=rounds, valid_sets=[held], feval=loss,
                     callbacks=[lgb.early_stopping(PATIENCE, verbose=False)])


def grow_in_step(fits: Sequence[tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]],
                 features: Sequence[str], levels: Mapping[str, Any], loss: Loss) -> tuple[list[lgb.Booster], int]:
    """Several LightGBM fits, grown side by side until the mean of their losses has not improved for a while.

    One number of iterations that is good for all of them is a steadier choice than the best of any one.

    Args:
        fits: Parameters, rows to learn from and rows to measure on (as `grow` takes them) of each.
        features: The names of the inputs, in order.
        levels: The words of those of them that are categories.
        loss: What is measured; each fit counts by its measured rows.

    Returns:
        The boosters, and the number of iterations at which the mean was least.
    """
    words = [place for place, name in enumerate(features) if name in levels]
    boosters, sizes = [], []
    for params, rows, held in fits:
        data = lgb.Dataset(**rows, feature_name=safe_names(features), categorical_feature=words, params=dict(params))
        booster = lgb.Booster(dict(params), data)
        booster.add_valid(data.create_valid(**held, params=dict(params)), "held")
        boosters.append(booster)
        sizes.append(len(held["label"]))
    best, least = 0, np.inf
    for done in range(STEP, MAX_ROUNDS + 1, STEP):
        for booster in boosters:
            for _ in range(STEP):
                booster.update()
        mean = float(np.average([booster.eval_valid(loss)[0][2] for booster in boosters], weights=sizes))
        if mean < least:
            best, least = done, mean
        elif done - best >= PATIENCE:
            break
    return boosters, best


def fitted(booster: lgb.Booster | None, what: str) -> lgb.Booster:
    """The booster of an estimator, once there is one.

    Raises:
        ModelError: If there is none yet.
    """
    if booster is None:
        raise ModelError(f"The {what} not fitted. Call fit(...) first.")
    return booster


def write_parts(name: str, booster: lgb.Booster, about: Mapping[str, Any], version: int = FORMAT) -> dict[str, str]:
    """An estimator as two texts: NAME.txt (LightGBM's) and NAME.json (everything else)."""
    data = {**about, "format": version, "lightgbm": lgb.__version__}
    return {f"{name}.txt": booster.model_to_string(),
            f"{name}.json": json.dumps(data, indent=1, sort_keys=True) + "\n"}


def read_parts(parts: Mapping[str, str], name: str, version: int = FORMAT) -> tuple[dict[str, Any], lgb.Booster]:
    """The JSON and the booster of an estimator's two texts; `features` and `levels` are there as tuples.

    `last`, where there is one, names the booster's inputs after the features.

    Raises:
        ModelError: If one is missing, broken, or was written by a newer churnkit, or they name different inputs.
    """
    with readable(name):
        data: dict[str, Any] = json.loads(parts[f"{name}.json"])
        if data["format"] > version:
            raise ModelError(f"{name}.json has format {data['format']}, newer than this churnkit knows ({version}). "
                             "Upgrade churnkit.")
        booster = lgb.Booster(model_str=parts[f"{name}.txt"])
        data["features"] = tuple(data["features"])
        data["levels"] = {of: tuple(words) for of, words in data["levels"].items()}
    if booster.feature_name() != safe_names([*data["features"], *data.get("last", ())]):
        raise ModelError(f"{name}.txt and {name}.json name different features: they are not of one {name}. Train it "
                         "again: churnkit train.")
    return data, booster


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turns what broken texts of an estimator raise into one error that says what to do."""
    try:
        yield
    except (KeyError, TypeError, ValueError, lgb.basic.LightGBMError) as error:
        raise ModelError(f"The {name}'s files cannot be read ({error!r}). Train it again: churnkit train.") from None
