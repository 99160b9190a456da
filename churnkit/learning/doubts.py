"""Why is no skill proven? The likeliest of four reasons, from the figures of the test and of the training rows.

- **label noise**: labels of windows that overlap contradict each other. A row that is positive, and the next one whose
  window holds most of the same days is not: that may be, where what happened lay in the days before the next window
  opens, but no more often than those days' share. What goes beyond is wrong labels.
- **shifted population**: rows of the training period that were kept from a fit are told apart, and better than those of
  the test period (with 95% confidence, or so well that the test period would have proven it in four of five cases); or
  those of the test period are told apart, and the level of the probabilities is surely off.
- **too few positives**: so many could not prove, with 99% confidence in four of five cases, the skill that shows in
  the training period or, where none shows, not even one of FAIR.
- **no signal**: a fair skill would have been proven, and none is there.

What could be proven follows from the standard error of an AUC (Hanley and McNeil, "The meaning and use of the area
under a receiver operating characteristic curve", Radiology 1982), with entities for rows, because those of one entity
tell the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, stats

from churnkit.learning import baseline as logistic
from churnkit.learning.calibrate import EDGE, Floats, sigmoid
from churnkit.learning.evaluate import Evaluation
from churnkit.learning.model import Model
from churnkit.learning.resample import FEWEST, LEVEL, draws
from churnkit.learning.segments import RESAMPLES, Figures, clinging, figures, parts
from churnkit.learning.splits import TrainingSet
from churnkit.learning.trees import THREADS, grow, matrix, parameters

FAIR = 0.65
"""The AUC of a model that is of some use."""
POWER = 0.8
WRONG = 0.3
"""When surely more than this share of the positive labels is wrong, it is label noise."""
MORE = 5
FOLDS = 2
SURE, LIKELY = float(stats.norm.ppf(LEVEL)), float(stats.norm.ppf(0.95))


@dataclass(frozen=True)
class Doubt:
    """The likeliest reason for which no skill is proven, in words with its figures."""

    reason: str
    why: str


def doubted(evaluation: Evaluation, model: Model, pool: TrainingSet, test: TrainingSet, *,
            seed: int = 7) -> Evaluation:
    """The evaluation with the likeliest reason for which it proves no skill, and so for each segment without any.

    Args:
        evaluation: The model on the test rows.
        model: The one evaluated.
        pool: What it was fitted on.
        test: The test rows.
        seed: Of the resamples and the folds.
    """
    without = ~evaluation.segments["skill"].astype(bool)
    if evaluation.skill and not without.any():
        return evaluation
    inside = _kept_out(model, pool, seed) if min(pool.positives, len(pool) - pool.positives) >= FEWEST else None
    sides = (_Side.of(pool, inside, model.base_rate, seed),
             _Side.of(test, model.probability(test.X), model.base_rate, seed))
    reasons = pd.Series("", evaluation.segments.index, dtype=object)
    for place, pair in zip(reasons.index, _pairs(evaluation, *sides), strict=True):
        reasons[place] = likeliest(*pair).reason if without[place] else ""
    found = None if evaluation.skill else likeliest(sides[0].judged(), sides[1].judged(),
                                                            contradicted(pool, seed=seed))
    return replace(evaluation, segments=evaluation.segments.assign(reason=reasons), doubt=found)


def likeliest(train: Figures, test: Figures, wrong: float = np.nan) -> Doubt:
    """The likeliest reason why the test rows prove no skill.

    Args:
        train: The figures of training rows by a fit that they were kept from.
        test: Those of the test rows.
        wrong: What share of the positive labels is wrong at least, where that could be told.
    """
    if not test.enough:
        fewest = min(test.with_yes, test.with_no)
        what = "positives" if test.with_yes == fewest else "negatives"
        return Doubt(f"too few {what}", f"too few {what}: counted by entity the test period has {fewest}, and {FEWEST} "
                                        "are needed. A longer history or a longer horizon gives more.")
    if wrong > WRONG:
        return Doubt("label noise", f"label noise: at least {wrong:.0%} of the positive labels are contradicted by the "
                                    "next label of the same entity, whose window holds most of the same days. See how "
                                    "ends, plans or failures are recorded: churnkit audit time.")
    shows = bool(train.auc - SURE * train.auc_error > 0.5)
    ranks = bool(test.auc - SURE * test.auc_error > 0.5)
    provable = detectable(test.with_yes, test.with_no)
    if shows and not ranks and (train.auc >= provable or
                                train.auc - test.auc > LIKELY * np.hypot(train.auc_error, test.auc_error)):
        return Doubt("shifted population", "shifted population: within the training period the AUC is "
                                           f"{train.auc:.2f}, in the test period {test.auc:.2f}. What told them apart "
                                           "does so no longer: see churnkit audit features for what changed.")
    if ranks and test.p_level <= 1 - LEVEL:
        return Doubt("shifted population", f"shifted population: the ranks hold (AUC {test.auc:.2f}), the level does "
                                           f"not: {test.predicted:.1%} were predicted and {test.observed:.1%} "
                                           "observed. Another training follows the new level.")
    return _power(train, test, provable, shows=shows, ranks=ranks)


def _power(train: Figures, test: Figures, provable: float, *, shows: bool, ranks: bool) -> Doubt:
    """Whether the outcomes were too few for what there is to prove, or there is nothing."""
    few = "too few positives" if test.with_yes <= test.with_no else "too few negatives"
    if ranks and test.gain > 0:
        times = max((SURE * test.gain_error / test.gain) ** 2, 1.0)
        more = f"about {times:.1f} times as many would do" if times <= MORE else "many times as many would be needed"
        return Doubt(few, f"{few}: the ranks are proven (AUC {test.auc:.2f}) and the log loss is lower than the base "
                          f"rate's, by too little to be sure of with {test.positives} positives; {more}.")
    inside = detectable(train.with_yes, train.with_no)
    if shows or min(provable, inside) > FAIR:
        return Doubt(few, f"{few}: the {test.with_yes} that are positive in the test period could prove an AUC of "
                          f"{provable:.2f} or more; within the training period it is {train.auc:.2f}, where "
                          f"{inside:.2f} could be proven. A longer history or a longer horizon gives more.")
    return Doubt("no signal", f"no signal: an AUC of {min(provable, inside):.2f} would have been proven, and what "
                              f"these records say of the outcome comes to {test.auc:.2f} ({test.auc_bounds[0]:.2f} to "
                              f"{test.auc_bounds[1]:.2f}). Other tables or features of your own may know more.")


def detectable(positives: int, negatives: int) -> float:
    """The least AUC that so many outcomes prove to be above 0.5 in four of five cases; 1 where none would be.

    >>> round(detectable(20, 500), 2), round(detectable(200, 5000), 2)
    (0.71, 0.57)
    """
    def short(auc: float) -> float:
        return auc - 0.5 - (SURE + float(stats.norm.ppf(POWER))) * hanley(auc, positives, negatives)

    if min(positives, negatives) < 1 or short(1 - EDGE) < 0:
        return 1.0
    return float(optimize.brentq(short, 0.5, 1 - EDGE))


def hanley(auc: float, positives: int, negatives: int) -> float:
    """The standard error of an AUC, after Hanley and McNeil (1982)."""
    one, two = auc / (2 - auc), 2 * auc ** 2 / (1 + auc)
    return float(np.sqrt((auc * (1 - auc) + (positives - 1) * (one - auc ** 2) + (negatives - 1) * (two - auc ** 2)) / (
        positives * negatives)))


def contradicted(rows: TrainingSet, *, resamples: int = 200, seed: int = 7) -> float:
    """The lower 99% bound of the share of positive labels that the next label of the same entity shows to be wrong.

    Of two windows that overlap, what makes the first positive lies in the days before the second opens, or in both. By
    chance the next label is 0 after a wrong one as often as among all. Not a number where fewer than FEWEST entities
    have two such labels.
    """
    order = np.lexsort((rows.keys["cutoff"].to_numpy(), rows.keys["entity_id"].to_numpy(dtype=str)))
    entity = rows.keys["entity_id"].to_numpy(dtype=object)[order]
    after = (rows.keys["cutoff"] - rows.keys["cutoff"].min()).dt.total_seconds().to_numpy()[order]
    y = rows.y.to_numpy(dtype=float)[order]
    apart = np.diff(after) / rows.target.horizon.total_seconds()
    pair = (entity[1:] == entity[:-1]) & (apart < 1) & (y[:-1] == 1)
    codes, names = pd.factorize(entity[1:][pair])
    if len(names) < FEWEST:
        return float("nan")
    sums = [np.bincount(codes, values[pair]) for values in (1 - y[1:], apart, np.ones(len(apart)))]
    turned, before, total = (draws(len(names), resamples, seed) @ one for one in sums)
    room = np.maximum(1 - before / total - float(y.mean()), 1e-3)
    return float(np.quantile((turned - before) / total / room, 1 - LEVEL))


@dataclass(frozen=True)
class _Side:
    """The rows of one side of the test's beginning, with what a fit that they were kept from says of them."""

    y: Floats
    p: Floats
    weights: Floats
    base: float
    entities: np.ndarray[Any, Any]
    groups: pd.DataFrame
    drawn: Floats
    around: float

    @classmethod
    def of(cls, rows: TrainingSet, p: Floats | None, base: float, seed: int) -> _Side:
        y, weights = rows.y.to_numpy(dtype=float), rows.weights.to_numpy(dtype=float)
        codes, names = pd.factorize(rows.keys["entity_id"])
        drawn = draws(len(names), RESAMPLES // 2, seed)
        p = np.full(len(y), base) if p is None else np.clip(p, EDGE, 1 - EDGE)
        return cls(y, p, weights, base, codes, rows.groups, drawn, clinging(y, p, weights, codes, drawn))

    def judged(self, here: np.ndarray[Any, Any] | None = None) -> Figures:
        """The figures of all rows, or of some."""
        here = np.ones(len(self.y), dtype=bool) if here is None else here
        base = np.full(int(here.sum()), self.base)
        return figures((self.y[here], self.p[here], base, self.weights[here]), self.entities[here], self.drawn,
                       self.around)


def _pairs(evaluation: Evaluation, pool: _Side, test: _Side) -> Iterator[tuple[Figures, Figures]]:
    """Of each segment of the evaluation the figures in training and in test."""
    kept = evaluation.segments.groupby("by")["segment"].agg(set).to_dict()
    for by, segment, here in parts(test.groups):
        words = pool.groups[by].to_numpy(dtype=object)
        inside = words == segment if segment in set(words) else ~np.isin(words, list(kept[by]))
        yield pool.judged(inside), test.judged(here)


def _kept_out(model: Model, pool: TrainingSet, seed: int) -> Floats:
    """Probabilities of training rows by fits, made as the model was, on the other half of the entities."""
    y, weights = pool.y.to_numpy(dtype=float), pool.weights.to_numpy(dtype=float)
    codes, names = pd.factorize(pool.keys["entity_id"], sort=True)
    fold = (np.random.default_rng(seed).permutation(len(names)) % FOLDS)[codes]
    x = matrix(model.target.name, pool.X, model.features, model.levels)
    p = np.full(len(y), model.base_rate)
    for held in (fold == one for one in range(FOLDS)):
        rest = ~held
        if not 0 < y[rest].sum() < rest.sum():
            continue
        params = parameters(int(y[rest].sum()), int(rest.sum()), seed) | model.params
        rows = {"data": x[rest], "label": y[rest], "weight": weights[rest]}
        booster = grow(params, rows, model.features, model.levels, model.rounds)
        trees = np.asarray(booster.predict(x[held], raw_score=True, num_threads=THREADS))
        plain = logistic.fit(pool.X[rest], y[rest], model.levels, weights[rest]).raw(pool.X[held])
        p[held] = sigmoid(model.blend.of(trees, plain))
    return p
