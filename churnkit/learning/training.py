"""Features and labels side by side, and a training run: holdout fit, evaluation, then the fit on all matured rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import pandas as pd

from churnkit.errors import ModelError
from churnkit.learning.attributes import attributes
from churnkit.learning.beside import Beside, Estimator
from churnkit.learning.curves import Curved
from churnkit.learning.doubts import doubted
from churnkit.learning.evaluate import Evaluation, evaluate
from churnkit.learning.model import Model
from churnkit.learning.splits import KEYS, Timeline, TrainingSet, stop_cut, timeline
from churnkit.learning.targets import Target
from churnkit.schemas import POINTS

if TYPE_CHECKING:
    from churnkit.learning.tune import Trial

__all__ = ["Trained", "TrainingSet", "train", "training_set"]


@dataclass(frozen=True, eq=False)
class Trained:
    """What a training run gives: `model` was fitted on all matured rows, `holdout` on those that had closed before the
    test period; `evaluation` is the holdout's on the test period, used for nothing else. `curve` says when: the same
    over several horizons, for targets that have them; `beside` holds what else is told: components and life of assets,
    gains and kinds of expansions. `trials` are those of the search for parameters, where there was one.
    """

    model: Model
    holdout: Model
    evaluation: Evaluation
    splits: Timeline
    data: TrainingSet
    curve: Curved | None = None
    beside: tuple[Beside, ...] = ()
    trials: tuple[Trial, ...] = ()

    def to_parts(self) -> dict[str, str]:
        """The texts of the model and of all that stands beside it."""
        more: list[Estimator] = [self.curve.curve] if self.curve else []
        return _parts([self.model, *more, *(one.estimator for one in self.beside)])

    def holdout_parts(self) -> dict[str, str]:
        """The same of the fits that the test period was kept from."""
        more: list[Estimator] = [self.curve.holdout] if self.curve else []
        return _parts([self.holdout, *more, *(one.holdout for one in self.beside)])


def training_set(target: Target, features: pd.DataFrame, labels: pd.DataFrame, groups: pd.DataFrame | None = None,
                 fairness: Iterable[str] = ()) -> TrainingSet:
    """Joins features (points + columns) and labels by row_id; rows without a label are dropped and counted.

    The target's `never` features are left out. `groups` are what `attributes()` gives, and left out those that the
    features hold: an evaluation looks at each of their values by itself, for `fairness` too.

    Raises:
        ModelError: If row ids repeat, a labelled row has no features, or no row is left.
    """
    for name, frame in (("features", features), ("labels", labels)):
        if "row_id" not in frame:
            raise ModelError(f"The {name} have no column 'row_id'. Make them from prediction_points().")
        if frame["row_id"].duplicated().any():
            first = frame.loc[frame["row_id"].duplicated(), "row_id"].iloc[0]
            raise ModelError(f"The {name} hold row '{first}' more than once. Give one row per point.")
    foreign = labels.loc[labels["target"] != target.name, "target"]
    if len(foreign):
        raise ModelError(
            f"The labels are of '{foreign.iloc[0]}', not of '{target.name}'. Call label({target.name.upper()}, ...)."
        )
    has = labels["label"].notna()
    dropped = labels.loc[~has, "why_none"].value_counts().sort_index()
    absent = ~labels.loc[has, "row_id"].isin(features["row_id"])
    if absent.any():
        first = labels.loc[has, "row_id"][absent].iloc[0]
        raise ModelError(f"{int(absent.sum())} labelled rows have no features (first: '{first}'). Compute and store "
                         f"features for the same points as the labels.")
    if not has.any():
        reasons = ", ".join(f"{count} {why}" for why, count in dropped.items()) or "there are no points"
        raise ModelError(
            f"{target.name}: no point has a label ({reasons}). Labels need {target.window.days} days after a "
            f"cutoff: give older cutoffs, or data that reach further."
        )
    both = labels.loc[has, [*KEYS, "label"]].merge(
        features.drop(columns=[name for name in POINTS if name in features and name != "row_id"]), on="row_id")
    both = both.sort_values(["cutoff", "entity_id"], kind="stable", ignore_index=True)
    groups = (attributes(features) if groups is None else groups).set_index("row_id")
    keep = [name for name in both if name not in {*KEYS, "label", *target.never}]
    return TrainingSet(target, both[keep], both["label"].astype("int64"), both[list(KEYS)],
                       pd.Series(1.0, both.index), MappingProxyType({str(k): int(v) for k, v in dropped.items()}),
                       groups.loc[both["row_id"]].set_axis(both.index), tuple(fairness))


def train(target: Target, rows: TrainingSet, *, seed: int = 7, test_share: float = 0.25, trials: int = 0,
          storage: str | None = None) -> Trained:
    """Holdout fit and evaluation, then a fit on all rows with the iterations, the form and the calibration found.

    With `trials` the parameters are searched first, on what had closed before the test period; `storage` keeps the
    trials, so that a search that was stopped goes on.

    Raises:
        ModelError: If the rows are too few or too short in time, or hold one outcome alone.
    """
    if rows.target != target:
        raise ModelError(
            f"The training set was made for {rows.target}, not for {target}. Make it anew with training_set()."
        )
    if not 0 < rows.positives < len(rows):
        seen = "positives" if not rows.positives else "negatives"
        raise ModelError(
            f"{target.name}: no {seen} among {len(rows)} labelled rows, so there is nothing to learn. Give a "
            f"longer history, or a longer horizon in [targets.{target.name}]."
        )
    cut = timeline(rows, test_share)
    pool, test = rows.split(cut.test_at)
    cut = replace(cut, stop_at=stop_cut(pool))  # as the holdout's fit cuts the rows that remain to it
    params, tried = _searched(pool, trials, seed, storage)
    holdout = Model(target, seed=seed, params=params).fit(pool)
    evaluation = doubted(evaluate(holdout, test), holdout, pool, test, seed=seed)
    model = Model(target, seed, holdout.kind, holdout.blend.share, params=params).fit(rows, rounds=holdout.rounds)
    return Trained(model, holdout, evaluation, cut, rows, trials=tried)


def _parts(made: Iterable[Model | Estimator]) -> dict[str, str]:
    """The texts of all of these, by their files' names."""
    return {name: text for one in made for name, text in one.to_parts().items()}


def _searched(pool: TrainingSet, trials: int, seed: int,
              storage: str | None) -> tuple[dict[str, float], tuple[Trial, ...]]:
    """The parameters to use instead of the default, if any, and what was tried."""
    if not trials:
        return {}, ()
    from churnkit.learning.tune import tune

    search = tune(pool, trials, seed=seed, storage=storage)
    return search.best, search.trials
