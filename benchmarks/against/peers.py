"""The other contenders, each at its defaults, on a frame of numbers and words; runs without churnkit.

    python peers.py NAME FOLDER --seed 7 --threads 1 --seconds 120

FOLDER holds fit.parquet (with the outcome as `y_`) and test.parquet; the probabilities go to p.npy and what is to be
known of the fit to about.json.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

Floats = np.ndarray[Any, np.dtype[np.float64]]


def logistic(fit: pd.DataFrame, y: Floats, test: pd.DataFrame, _: Namespace) -> Floats:
    """scikit-learn's, with what a careful hand does before: medians and a mark for blanks, standardised numbers, words
    one-hot with the rare ones together.
    """
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    words = _words(fit)
    numbers = [name for name in fit if name not in words and fit[name].notna().any()]
    made = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler()), numbers),
        (OneHotEncoder(min_frequency=20, handle_unknown="infrequent_if_exist"), words), sparse_threshold=0)
    model = make_pipeline(made, LogisticRegression(max_iter=2000))
    filled = [one.assign(**{name: one[name].fillna("not known") for name in words}) for one in (fit, test)]
    found: Floats = model.fit(filled[0], y).predict_proba(filled[1])[:, 1]
    return found


def lightgbm(fit: pd.DataFrame, y: Floats, test: pd.DataFrame, asked: Namespace) -> Floats:
    """LGBMClassifier() on pandas' categories."""
    from lightgbm import LGBMClassifier

    levels = {name: pd.CategoricalDtype(sorted(fit[name].dropna().unique())) for name in _words(fit)}
    model = LGBMClassifier(n_jobs=asked.threads, random_state=asked.seed, verbosity=-1).fit(fit.astype(levels), y)
    found: Floats = model.predict_proba(test.astype(levels))[:, 1]
    return found


def catboost(fit: pd.DataFrame, y: Floats, test: pd.DataFrame, asked: Namespace) -> Floats:
    """CatBoostClassifier() with the words as its categories."""
    from catboost import CatBoostClassifier

    words = _words(fit)
    filled = [one.assign(**{name: one[name].fillna("not known") for name in words}) for one in (fit, test)]
    with tempfile.TemporaryDirectory() as folder:
        model = CatBoostClassifier(thread_count=asked.threads, random_seed=asked.seed, verbose=False, train_dir=folder)
        found: Floats = model.fit(filled[0], y, cat_features=words).predict_proba(filled[1])[:, 1]
    return found


def autogluon(fit: pd.DataFrame, y: Floats, test: pd.DataFrame, asked: Namespace) -> Floats:
    """TabularPredictor at its defaults, for AUC, within the time."""
    from autogluon.tabular import TabularPredictor

    with tempfile.TemporaryDirectory() as folder:
        model = TabularPredictor(label="y_", problem_type="binary", eval_metric="roc_auc", path=folder, verbosity=0,
                                 learner_kwargs={"random_state": asked.seed})
        model.fit(fit.assign(y_=y.astype(int)), time_limit=asked.seconds, num_cpus=asked.threads)
        found: Floats = model.predict_proba(test)[1].to_numpy(dtype=float)
    return found


Fit = Callable[[pd.DataFrame, Floats, pd.DataFrame, Namespace], Floats]
PEERS: dict[str, Fit] = {"logistic": logistic, "lightgbm": lightgbm, "catboost": catboost, "autogluon": autogluon}
MODULES = {"logistic": "sklearn.compose", "lightgbm": "lightgbm", "catboost": "catboost",
           "autogluon": "autogluon.tabular"}
PACKAGES = {"logistic": "scikit-learn", "lightgbm": "lightgbm", "catboost": "catboost",
            "autogluon": "autogluon.tabular"}


def _words(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame if frame[name].dtype == object]


def main() -> None:
    """One contender on one fold."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("name", choices=PEERS)
    options.add_argument("folder", type=Path)
    options.add_argument("--seed", type=int, default=7)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--seconds", type=float, default=120.0)
    asked = options.parse_args()
    fit, test = (pd.read_parquet(asked.folder / f"{part}.parquet") for part in ("fit", "test"))
    y = fit.pop("y_").to_numpy(dtype=float)
    importlib.import_module(MODULES[asked.name])  # its time is not the fit's
    clock = time.perf_counter()
    p = PEERS[asked.name](fit, y, test, asked)
    taken = time.perf_counter() - clock
    np.save(asked.folder / "p.npy", p)
    package = PACKAGES[asked.name]
    (asked.folder / "about.json").write_text(json.dumps(
        {"seconds": taken, "version": f"{package} {importlib.metadata.version(package)}"}))


if __name__ == "__main__":
    main()
