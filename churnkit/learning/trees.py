"""What everything that grows LightGBM trees shares: the inputs as numbers, the parameters, and when to stop."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd

from churnkit.errors import ModelError, did_you_mean
from churnkit.learning import calibrate
from churnkit.learning.calibrate import Floats

FORMAT = 1
"""Of the texts that the estimators beside the model are kept in."""
MAX_ROUNDS, PATIENCE, DEFAULT_ROUNDS = 800, 60, 120
THREADS = 1
"""Two threads that wait for each other on a busy machine took 8 times as long; on an idle one they save a third."""
MAX_LEVELS = 40


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
    """LightGBM's parameters: the fewer positives, the smaller and the more held back the trees."""
    leaves = 31 if positives >= 4000 else 15 if positives >= 1500 else 7
    return {
        "objective": "binary", "metric": "None", "learning_rate": 0.04, "num_leaves": leaves, "lambda_l2": 5.0,
        "min_data_in_leaf": int(np.clip(rows // 100, 10, 80)), "feature_fraction": 0.5, "bagging_fraction": 0.8,
        "bagging_freq": 1, "cat_smooth": 20.0, "min_data_per_group": 50, "seed": seed, "num_threads": THREADS,
        "deterministic": True, "force_row_wise": True, "max_bin": 127, "verbosity": -1,
    }


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


def read_parts(parts: Mapping[str, str], name: str) -> tuple[dict[str, Any], lgb.Booster]:
    """The JSON and the booster of an estimator's two texts.

    Raises:
        ModelError: If one is missing, broken, or was written by a newer churnkit.
    """
    try:
        data: dict[str, Any] = json.loads(parts[f"{name}.json"])
        if data["format"] > FORMAT:
            raise ModelError(f"{name}.json has format {data['format']}, newer than this churnkit knows ({FORMAT}). "
                             "Upgrade churnkit.")
        return data, lgb.Booster(model_str=parts[f"{name}.txt"])
    except (KeyError, TypeError, ValueError, lgb.basic.LightGBMError) as error:
        raise ModelError(f"The {name}'s files cannot be read ({error!r}). Train it again: churnkit train.") from None


def same_features(booster: lgb.Booster, names: Iterable[str], part: str) -> None:
    """Raises ModelError where an estimator's two texts name different inputs."""
    if booster.feature_name() != safe_names(list(names)):
        raise ModelError(f"{part}.txt and {part}.json name different features: they are not of one {part}. Train it "
                         "again: churnkit train.")
