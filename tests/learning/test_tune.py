"""The search: folds in time, the default as a floor, pruned and resumed without a trace, every trial kept."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from made_rows import made

from churnkit.cutoffs import moment
from churnkit.errors import ModelError
from churnkit.jobs.fitting import _tuned
from churnkit.learning import tune as tuning
from churnkit.learning.model import Model
from churnkit.learning.targets import CHURN
from churnkit.learning.training import train, training_set
from churnkit.learning.trees import parameters
from churnkit.learning.tune import FREE, SPACE, Trial, tune

TRIALS = 7


@pytest.fixture(scope="module")
def rows():
    """100 accounts at 18 cutoffs."""
    return training_set(CHURN, *made(entities=100, months=18, strength=1.5))


@pytest.fixture(scope="module")
def search(rows):
    return tune(rows, TRIALS)


def test_folds_learn_from_what_had_closed_before(rows):
    """Purged, in order of time, and no row measured twice."""
    folds = tuning._folds(rows)
    assert 3 == len(folds)
    for fitted, held in folds:
        assert (rows.keys.loc[fitted, "cutoff"] + CHURN.window).max() <= rows.keys.loc[held, "cutoff"].min()
    assert 1 == np.sum([held for _, held in folds], axis=0).max()
    for (_, one), (_, other) in pairwise(folds):
        assert rows.keys.loc[one, "cutoff"].max() < rows.keys.loc[other, "cutoff"].min()


def test_the_default_is_the_first_trial_and_the_best_is_no_worse(rows, search):
    first = search.trials[0]
    given = parameters(rows.positives, len(rows), 7)
    assert {name: given[name] for name in SPACE} == first.params
    whole = [trial for trial in search.trials if not trial.pruned]
    best = min(whole, key=lambda trial: trial.losses[-1])
    assert search.best == ({} if best is first else best.params)
    assert best.losses[-1] <= first.losses[-1]


def test_the_loss_of_a_trial_is_the_mean_over_its_folds(rows, search):
    """Grown anew with its parameters, weighed by the folds' rows."""
    trial = next(one for one in search.trials[1:] if not one.pruned)
    folds = tuning._folds(rows)
    losses = list(Model(CHURN, 7, params=trial.params).losses(rows, folds))
    assert np.average(losses, weights=[held.sum() for _, held in folds]) == pytest.approx(trial.losses[-1])
    assert losses[0] == pytest.approx(trial.losses[0])


def test_a_pruned_trial_was_above_the_median_of_those_before_it(rows):
    """And none of the first few is pruned."""
    found = tune(rows, 14, seed=2).trials
    assert not any(trial.pruned for trial in found[:FREE])
    pruned = [trial for trial in found if trial.pruned]
    assert pruned
    for trial in pruned:
        step = len(trial.losses) - 1
        before = [other.losses[step] for other in found[:trial.number] if not other.pruned]
        assert trial.losses[step] > np.median(before)
        assert len(trial.losses) < 3


def test_a_search_that_was_stopped_ends_as_if_it_had_not_been(rows, search, tmp_path, monkeypatch):
    """Killed within its fifth trial, after the first fold; the same trials come out, none twice."""
    storage = f"sqlite:///{tmp_path / 'tuning.db'}"
    grown, losses = [], Model.losses

    def dies(self, rows, folds):
        for loss in losses(self, rows, folds):
            grown.append(loss)
            if len(grown) > 13:
                raise KeyboardInterrupt
            yield loss

    with monkeypatch.context() as patch:
        patch.setattr(Model, "losses", dies)
        with pytest.raises(KeyboardInterrupt):
            tune(rows, TRIALS, storage=storage)
    again = tune(rows, TRIALS, storage=storage)
    assert search == again
    monkeypatch.setattr(Model, "losses", lambda *_: pytest.fail("a finished search grows nothing"))
    assert search == tune(rows, TRIALS, storage=storage)
    assert search.trials[:3] == tune(rows, 3, storage=storage).trials


def test_other_rows_begin_another_search(rows, search, tmp_path):
    storage = f"sqlite:///{tmp_path / 'tuning.db'}"
    tune(rows, 2, storage=storage)
    other = rows.take((rows.keys["entity_id"] != "0007").to_numpy())
    assert tune(other, 1, storage=storage).trials[0].losses != search.trials[0].losses


def test_no_parameter_weighs_one_outcome_more():
    """What would break the calibration is neither searched nor set."""
    weighing = {"scale_pos_weight", "is_unbalance", "pos_bagging_fraction", "neg_bagging_fraction"}
    assert not weighing & {*SPACE, *parameters(100, 1000, 7)}


def test_a_training_run_keeps_the_best_parameters_and_every_trial(rows, registry, search):
    """In model.json, which gives the same model again; and as nested runs of the registered one."""
    trained = train(CHURN, rows, trials=TRIALS)
    assert trained.trials == tune(rows.closed(trained.splits.test_at), TRIALS).trials
    parts = trained.model.to_parts()
    assert trained.model.params == json.loads(parts["model.json"])["params"] == Model.from_parts(parts).params
    assert trained.holdout.params == trained.model.params
    registry.register(trained, at=moment("2026-01-01"))
    runs = registry.tracking.client.search_runs([registry.tracking._experiment()], order_by=["attributes.start_time"])
    parent = next(run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    nested = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert TRIALS == len(nested) == int(parent.data.params["trials"])
    found = {(run.info.run_name.split()[1], run.data.tags["state"], round(run.data.metrics["loss"], 9))
             for run in nested}
    assert {(str(trial.number), "pruned" if trial.pruned else "complete", round(trial.losses[-1], 9))
            for trial in trained.trials} == found


def test_what_a_search_came_to_is_said(rows):
    """How many trials, how many pruned, and whether the default stands."""
    trained = train(CHURN, rows)
    assert [] == _tuned(trained, 0)
    assert "no fold in time has both outcomes" in _tuned(trained, 3)[0]
    tried = (Trial(0, {}, (0.3, 0.2), pruned=False), Trial(1, {}, (0.4,), pruned=True))
    assert ["churn: 2 trials before the test period, 1 pruned; none beat the default."] == _tuned(
        replace(trained, trials=tried), 2)


def test_parameters_change_the_trees_and_travel_with_a_recipe(rows):
    few = Model(CHURN, params={"num_leaves": 4, "learning_rate": 0.1}).fit(rows, rounds=10)
    assert all(tree["num_leaves"] <= 4 for tree in few.booster_.dump_model()["tree_info"])
    assert few.params == few.refit(rows).params
    plain = json.loads(few.to_parts()["model.json"])
    del plain["params"]  # as a model of before there was a search
    assert {} == Model.from_parts({**few.to_parts(), "model.json": json.dumps(plain)}).params


def test_without_room_in_time_the_default_stands(rows):
    short = rows.take((rows.keys["cutoff"] < "2024-04-01").to_numpy())
    assert ((), {}) == (tune(short, 3).trials, tune(short, 3).best)


def test_a_storage_that_cannot_be_written_is_said(rows, tmp_path):
    with pytest.raises(ModelError, match="folder may be written"):
        tune(rows, 1, storage=f"sqlite:///{tmp_path / 'missing' / 'tuning.db'}")
