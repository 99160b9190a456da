"""The search for better trees, for who asks for it: Optuna's trials on temporal folds, pruned and resumable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from churnkit.errors import ModelError
from churnkit.learning.model import Model, data_hash
from churnkit.learning.splits import LATER, Mask, TrainingSet, rolling
from churnkit.learning.trees import parameters

FOLDS = 3
FREE = 4
"""So many trials are not pruned, lest a lucky first one decide."""
SPACE: dict[str, BaseDistribution] = {
    "learning_rate": FloatDistribution(0.01, 0.1, log=True), "num_leaves": IntDistribution(4, 63, log=True),
    "min_data_in_leaf": IntDistribution(5, 200, log=True), "lambda_l2": FloatDistribution(0.1, 50.0, log=True),
    "feature_fraction": FloatDistribution(0.2, 1.0), "bagging_fraction": FloatDistribution(0.5, 1.0),
}
"""What a trial may change. Nothing in it weighs one outcome more than the other: that would break the calibration."""
_VERSION = 1  # of what a trial means; another one begins a new search


@dataclass(frozen=True)
class Trial:
    """One trial: its parameters, the loss after each fold (a running mean), and whether it was pruned."""

    number: int
    params: dict[str, float]
    losses: tuple[float, ...]
    pruned: bool


@dataclass(frozen=True)
class Search:
    """All trials; the first is the default. `best` is empty where no trial beat it; without a fold there are none."""

    trials: tuple[Trial, ...]
    best: dict[str, float]


def tune(rows: TrainingSet, trials: int, *, seed: int = 7, storage: str | None = None,
         folds: list[tuple[Mask, Mask]] | None = None) -> Search:
    """Searches the parameters that lose least on rolling origins of these rows; the first trial is the default.

    Every fold learns from rows whose labels had closed before it begins. The loss is the log loss after the level is
    set right, at the best iteration. After each fold a trial whose running mean is above the median of those before it
    is pruned. With a storage the finished trials are kept there: a search that was stopped goes on after the last of
    them and ends as if it had not been stopped, and one on other rows begins anew.

    Args:
        rows: Labelled rows; none of the test period.
        trials: How many trials there are to be in all.
        seed: Of the trials and the trees.
        storage: A database URL, such as sqlite:///tuning.db; without it nothing is kept.
        folds: Masks of what is learnt from and what is measured on, for rows that know no time; left out, the rolling
            origins.

    Raises:
        ModelError: If the storage cannot be used.
    """
    folds = _folds(rows) if folds is None else folds
    if not folds or trials < 1:
        return Search((), {})
    with _study(rows, seed, storage) as study:
        done = _finished(study)
        while len(done) < trials:
            if done:
                _try(study, rows, folds, seed, len(done))
            else:
                _try_default(study, rows, folds, seed)
            done = _finished(study)
        best = min((one for one in done[:trials] if one.state == TrialState.COMPLETE), key=lambda one: one.values[0])
        found = tuple(Trial(number, dict(one.params), tuple(one.intermediate_values.values()),
                            one.state == TrialState.PRUNED) for number, one in enumerate(done[:trials]))
        return Search(found, {} if best is done[0] else dict(best.params))


def _folds(rows: TrainingSet) -> list[tuple[Mask, Mask]]:
    """Masks of what each origin learns from and is measured on; none where time is short or a side has one outcome."""
    y = rows.y.to_numpy()
    return [(one.closed, one.held) for one in rolling(rows, FOLDS, LATER)
            if all(0 < y[part].sum() < part.sum() for part in (one.closed, one.held))]


def _try(study: optuna.Study, rows: TrainingSet, folds: list[tuple[Mask, Mask]], seed: int, number: int) -> None:
    """One drawn trial. Its draws depend on its number and the trials before it alone, not on when the run began."""
    study.sampler = optuna.samplers.TPESampler(seed=seed * 10_000 + number, n_startup_trials=FREE)
    trial = study.ask(SPACE)
    for step, loss in enumerate(_running(rows, folds, seed, trial.params)):
        trial.report(loss, step)
        if step + 1 < len(folds) and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return
    study.tell(trial, loss)


def _try_default(study: optuna.Study, rows: TrainingSet, folds: list[tuple[Mask, Mask]], seed: int) -> None:
    given = parameters(rows.positives, len(rows), seed)
    losses = list(_running(rows, folds, seed, {}))
    study.add_trial(optuna.create_trial(
        state=TrialState.COMPLETE, value=losses[-1], params={name: given[name] for name in SPACE}, distributions=SPACE,
        intermediate_values=dict(enumerate(losses))))


def _running(rows: TrainingSet, folds: list[tuple[Mask, Mask]], seed: int, params: dict[str, Any]) -> Iterator[float]:
    """The mean loss over the folds so far, each counted by its rows."""
    losses: list[float] = []
    for loss in Model(rows.target, seed, params=params).losses(rows, folds):
        losses.append(loss)
        yield float(np.average(losses, weights=[held.sum() for _, held in folds[:len(losses)]]))


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that ran to their end or were pruned; one that a kill left running does not count."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


@contextmanager
def _study(rows: TrainingSet, seed: int, storage: str | None) -> Iterator[optuna.Study]:
    """The search of just these rows, target and seed."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data = data_hash(rows.X.assign(cutoff_=rows.keys["cutoff"].to_numpy(), label_=rows.y.to_numpy()))
    name = hashlib.sha256(repr((_VERSION, rows.target, seed, data, sorted(SPACE.items()))).encode()).hexdigest()[:16]
    try:
        kept = optuna.storages.RDBStorage(storage) if storage else optuna.storages.InMemoryStorage()
        try:
            yield optuna.create_study(
                storage=kept, study_name=f"{rows.target.name} {name}", direction="minimize", load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(n_startup_trials=FREE, n_warmup_steps=0))
        finally:
            if isinstance(kept, optuna.storages.RDBStorage):
                kept.remove_session()
                kept.engine.dispose()
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError) as error:
        raise ModelError(f"The trials cannot be kept in '{storage}' ({str(error).splitlines()[0]}). See that the "
                         f"folder may be written; a damaged file move away, and the search begins anew.") from None
