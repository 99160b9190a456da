"""The one door to econml: its T-, X- and DR-learners, fitted on our estimators, and what of them foretells the uplift.

What is kept are the estimators that econml fitted, each with its share in the answer, so that predicting needs LightGBM
or plain coefficients alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import lightgbm as lgb
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from churnkit.errors import ModelError
from churnkit.learning import baseline
from churnkit.learning.baseline import Baseline
from churnkit.learning.calibrate import Floats
from churnkit.learning.trees import DEFAULT_ROUNDS, THREADS, fitted, grow, parameters

LEARNERS: Final = ("logistic T-learner", "T-learner", "X-learner", "DR-learner")
"""The plainest first. T: one model of the outcome per arm, and their difference. X: two models of the effect, each
learnt in one arm from what the other arm's outcome model says (Kuenzel, Sekhon, Bickel and Yu, Metalearners for
estimating heterogeneous treatment effects using machine learning, 2019). DR: one model of the doubly robust
pseudo-outcomes (Kennedy, Towards optimal doubly robust estimation of heterogeneous causal effects, 2020)."""
BLEND = "blend"
"""The mean of them all: they err in different ways, and where one fails the others stand."""
EFFECT_ROUNDS, EFFECT_LEAVES = 40, 4
_FOLDS = 3  # of the DR-learner's own outcome model
Part = tuple[float, lgb.Booster | Baseline]
"""A fitted estimator and how much of it the uplift takes: the difference of two is (1, a) and (-1, b)."""


@dataclass(frozen=True, eq=False)
class Rows:
    """What a learner takes: inputs as numbers, with the words of those that are categories, and what came of whom."""

    x: Floats
    features: tuple[str, ...]
    levels: Mapping[str, tuple[str, ...]]
    y: Floats
    treated: NDArray[np.bool_]
    propensity: Floats
    codes: NDArray[np.intp]

    def take(self, mask: NDArray[np.bool_]) -> Rows:
        """The rows where the mask is true."""
        return Rows(self.x[mask], self.features, self.levels, self.y[mask], self.treated[mask], self.propensity[mask],
                    self.codes[mask])


def folds(rows: Rows, parts: int, seed: int) -> NDArray[np.intp]:
    """Each row's fold: groups stay whole, and each fold has its share of either arm and outcome."""
    kind = 2 * rows.treated + rows.y
    groups, first = np.unique(rows.codes, return_index=True)
    order = np.lexsort((np.random.default_rng(seed).random(len(groups)), kind[first]))
    fold = np.empty(int(groups.max(initial=-1)) + 1, dtype=np.intp)
    fold[groups[order]] = np.arange(len(groups)) % parts
    return fold[rows.codes]


def learn(learner: str, rows: Rows, seed: int) -> Any:
    """Econml's learner of that name, fitted on the rows.

    Raises:
        ModelError: If econml is not installed.
    """
    try:
        from econml.dr import DRLearner
        from econml.metalearners import TLearner, XLearner
    except ImportError as error:
        raise ModelError(f"Uplift models need econml, which cannot be imported ({error}). Install the extra: "
                         "pip install 'churnkit-outreach[uplift]'.") from None
    told, outcome = {"X": rows.x}, Trees(rows.features, rows.levels, seed=seed)
    change = Trees(rows.features, rows.levels, seed=seed, of_effect=True)
    if learner == "DR-learner":
        fold = folds(rows, _FOLDS, seed)
        cuts = [(np.flatnonzero(fold != one), np.flatnonzero(fold == one)) for one in range(_FOLDS)]
        made = DRLearner(model_propensity=_Known(), model_regression=outcome, model_final=change, cv=cuts,
                         random_state=seed, allow_missing=True, min_propensity=1e-6)
        told["W"] = rows.propensity[:, None]
    elif learner == "X-learner":
        made = XLearner(models=outcome, cate_models=change, propensity_model=_Share(), allow_missing=True)
    else:
        plain = learner == "logistic T-learner"
        made = TLearner(models=Logistic(rows.features, rows.levels) if plain else outcome, allow_missing=True)
    with warnings.catch_warnings():  # the treatment was drawn by lot: what is missing says nothing of it
        warnings.filterwarnings("ignore", r".*contains NaN\. Causal", UserWarning)
        return made.fit(rows.y, rows.treated.astype(int), **told)


def parts(learner: str, rows: Rows, seed: int) -> tuple[Part, ...]:
    """What foretells the uplift, of a learner or of their blend, fitted on the rows."""
    if learner != BLEND:
        return taken_out(learner, learn(learner, rows, seed))
    return tuple((share / len(LEARNERS), part) for one in LEARNERS for share, part in parts(one, rows, seed))


def taken_out(learner: str, made: Any) -> tuple[Part, ...]:
    """What of econml's fitted learner foretells the uplift."""
    if learner == "DR-learner":
        return ((1.0, made.model_cate(T=1).kept),)
    if learner == "X-learner":
        share = made.propensity_models[0].share_
        return (share, made.cate_controls_models[0].kept), (1 - share, made.cate_treated_models[0].kept)
    return (1.0, made.models[1].kept), (-1.0, made.models[0].kept)


def uplift(of: Sequence[Part], x: Floats, features: Sequence[str], levels: Mapping[str, Sequence[str]]) -> Floats:
    """The raw uplift of rows of inputs, shape (n,)."""
    if not len(x):
        return np.empty(0)
    found = np.zeros(len(x))
    for share, part in of:
        found += share * (part.predict(_words(x, features, levels)) if isinstance(part, Baseline)
                          else np.asarray(part.predict(x, num_threads=THREADS), dtype=float))
    return found


class Trees(BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """LightGBM as econml takes it: of an outcome, 0 or 1, of which it tells the probability, or of an effect, which is
    smaller than its noise: there the trees are fewer and coarser.
    """

    def __init__(self, features: tuple[str, ...] = (), levels: Mapping[str, tuple[str, ...]] | None = None, *,
                 seed: int = 7, of_effect: bool = False) -> None:
        self.features = features
        self.levels = levels
        self.seed = seed
        self.of_effect = of_effect

    def fit(self, X: Floats, y: Floats) -> Trees:  # noqa: N803 - econml's word
        """Grows the trees; columns after the features are what econml adds."""
        y = np.asarray(y, dtype=float).ravel()
        params = parameters(int(min(y.sum(), (1 - y).sum())) if not self.of_effect else 0, len(y), self.seed)
        if self.of_effect:
            params |= {"objective": "regression", "num_leaves": EFFECT_LEAVES,
                       "min_data_in_leaf": int(np.clip(len(y) // 30, 20, 1000))}
        added = [f"added {place}" for place in range(X.shape[1] - len(self.features))]
        self.booster_ = grow(params, {"data": X, "label": y}, self.features, self.levels or {},
                             EFFECT_ROUNDS if self.of_effect else DEFAULT_ROUNDS, last=added)
        return self

    def predict(self, X: Floats) -> Floats:  # noqa: N803 - econml's word
        """Probabilities or effects, shape (n,)."""
        return np.asarray(self.kept.predict(X, num_threads=THREADS), dtype=float)

    @property
    def kept(self) -> lgb.Booster:
        """LightGBM's own model."""
        return fitted(getattr(self, "booster_", None), "trees are")


class Logistic(BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """The logistic regression of baseline.py as econml takes it."""

    def __init__(self, features: tuple[str, ...] = (), levels: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self.features = features
        self.levels = levels

    def fit(self, X: Floats, y: Floats) -> Logistic:  # noqa: N803 - econml's word
        """Finds the coefficients."""
        levels = dict(self.levels or {})
        self.kept = baseline.fit(_words(X, self.features, levels), np.asarray(y, dtype=float).ravel(), levels)
        return self

    def predict(self, X: Floats) -> Floats:  # noqa: N803 - econml's word
        """Probabilities, shape (n,)."""
        return self.kept.predict(_words(X, self.features, self.levels or {}))


class _Known(BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """The logged propensity, which stands in the last column: nothing is left to learn."""

    def fit(self, X: Floats, y: Floats) -> _Known:  # noqa: N803 - econml's word
        """Nothing but the classes."""
        self.classes_ = np.unique(y)
        self.inputs_ = X.shape[1]
        return self

    def predict_proba(self, X: Floats) -> Floats:  # noqa: N803 - econml's word
        """The chance of control and of treatment, shape (n, 2)."""
        return np.column_stack([1 - X[:, -1], X[:, -1]])


class _Share(BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """The share of rows that were treated, for all: it weighs the X-learner's two models, each by its arm's rows."""

    def fit(self, X: Floats, y: Floats) -> _Share:  # noqa: N803 - econml's word
        """The share."""
        self.inputs_ = X.shape[1]
        self.share_ = float(np.mean(y))
        return self

    def predict_proba(self, X: Floats) -> Floats:  # noqa: N803 - econml's word
        """The same for every row, shape (n, 2)."""
        return np.tile([1 - self.share_, self.share_], (len(X), 1))


def _words(x: Floats, features: Sequence[str], levels: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Inputs as a frame again: codes become the words they stand for."""
    found: dict[str, Any] = {name: x[:, place] for place, name in enumerate(features)}
    for name in set(levels) & set(features):
        words = np.array([*levels[name], None], dtype=object)
        found[name] = words[np.where(np.isfinite(found[name]), found[name], len(levels[name])).astype(int)]
    return pd.DataFrame(found)
