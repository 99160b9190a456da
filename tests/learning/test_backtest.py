"""The backtest: nothing from after an origin, no entity on both sides where asked, and figures that add up."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_rows import made
from sklearn import metrics

from churnkit.errors import ModelError
from churnkit.jobs.backtests import report
from churnkit.learning.backtest import FIGURES, backtest, folds_of
from churnkit.learning.model import Model
from churnkit.learning.profit import Terms, profit_curve
from churnkit.learning.resample import METRICS, draws
from churnkit.learning.targets import CHURN
from churnkit.learning.training import training_set

PAY = Terms(1000.0, 50.0, capacity=10)


@pytest.fixture(scope="module")
def rows():
    """120 accounts at 16 cutoffs, in two segments."""
    features, labels = made(entities=120, months=16, strength=1.5)
    features["segment"] = np.where(features["entity_id"] < "0060", "small", "large")
    return training_set(CHURN, features, labels)


def quick(train):
    """A small fit: forty trees."""
    return Model(CHURN).fit(train, rounds=40)


def other(train):
    """Another recipe, without the inputs that matter."""
    return quick(training_set_of(train, [name for name in train.X if not name.startswith(("events", "tickets"))]))


def training_set_of(train, names):
    return replace(train, X=train.X[names])


@pytest.fixture(scope="module")
def tested(rows):
    return backtest(rows, folds=3, terms=PAY, recipe=quick, champion=other, resamples=100)


@pytest.mark.parametrize("by_entity", [False, True])
@pytest.mark.parametrize("folds", [1, 3, 50])
def test_no_label_that_is_learnt_closes_after_its_folds_start(rows, folds, by_entity):
    """Purged by lead, horizon and grace; and every tested cutoff is tested once."""
    found = folds_of(rows, folds, by_entity=by_entity)
    for fold in found:
        assert (rows.keys.loc[fold.train, "cutoff"] + CHURN.window <= fold.start).all()
        assert (rows.keys.loc[fold.test, "cutoff"] >= fold.start).all()
    times = np.sum([fold.test for fold in found], axis=0)
    assert times.max() == 1
    last = rows.keys["cutoff"] >= found[0].start
    assert by_entity or times[last].min() == 1


def test_grouped_folds_share_no_entity(rows):
    """Neither a fold with itself, nor what is tested between folds; together they test everybody."""
    entity = rows.keys["entity_id"]
    found = folds_of(rows, 4, by_entity=True)
    tested = [set(entity[fold.test]) for fold in found]
    for fold, mine in zip(found, tested, strict=True):
        assert not mine & set(entity[fold.train])
    assert entity.nunique() == sum(map(len, tested)) == len(set.union(*tested))


def test_identical_models_differ_by_nothing(rows):
    """The paired difference of a recipe from itself is 0, and so are its bounds, in every part."""
    same = backtest(rows, folds=2, terms=PAY, recipe=quick, champion=quick, resamples=50).table
    differences = same[[name for name in same if name.startswith("minus_champion")]]
    assert ((differences == 0) | differences.isna()).all(axis=None)
    assert differences.notna().any(axis=None)
    assert (same["minus_baseline_high"] > same["minus_baseline_low"]).mean() > 0.8


def test_pooled_figures_are_those_of_all_tested_rows(tested):
    """Against scikit-learn and a plain reckoning on the rows laid end to end."""
    y, p, b = (tested.scored[name].to_numpy(dtype=float) for name in ("y", "model", "baseline"))
    assert metrics.roc_auc_score(y, p) == pytest.approx(tested.figure("auc"))
    assert metrics.log_loss(y, p) == pytest.approx(tested.figure("log_loss"))
    assert metrics.roc_auc_score(y, p) - metrics.roc_auc_score(y, b) == pytest.approx(
        tested.figure("auc", "minus_baseline"))
    assert profit_curve(y, p, PAY)["profit"].max() == pytest.approx(tested.figure("profit"))
    caught = 0.0
    for _, part in tested.scored.groupby("cutoff"):
        caught += part.sort_values("model", ascending=False, kind="stable")["y"].iloc[:10].sum()
    assert caught / y.sum() == pytest.approx(tested.figure("recall_at_capacity"), abs=2 / y.sum())  # ties share


def test_every_part_stands_with_every_figure_and_its_bounds(tested):
    """Pooled, three folds, two segments; the parts' rows add up; figures lie within their bounds."""
    table = tested.table
    assert ["pooled", "fold", "fold", "fold", "segment", "segment"] == [
        part.split()[0] for part in table["part"].unique()]
    assert (table.groupby("part")["metric"].agg(tuple) == FIGURES).all()
    rows_of = table.drop_duplicates("part").set_index("part")["rows"]
    assert rows_of["pooled"] == rows_of.filter(like="fold").sum() == rows_of.filter(like="segment").sum()
    plain = table[table["metric"].isin(set(METRICS) - {"calibration_error"}) & (table["part"] == "pooled")]
    for name in ("model", "baseline", "champion", "minus_baseline", "minus_champion"):
        assert plain[name].between(plain[f"{name}_low"], plain[f"{name}_high"]).all()


def test_bounds_are_clustered_by_entity(rows, tested):
    """The interval is that of whole accounts drawn again, one by one, by hand."""
    scored = tested.scored
    codes, names = pd.factorize(scored["entity_id"])
    found = []
    for drawn in draws(len(names), 100, 7):
        again = scored.iloc[np.repeat(np.arange(len(scored)), drawn[codes].astype(int))]
        found.append(metrics.roc_auc_score(again["y"], again["model"]) - metrics.roc_auc_score(
            again["y"], again["champion"]))
    bounds = [tested.figure("auc", f"minus_champion_{end}") for end in ("low", "high")]
    assert np.quantile(found, [0.025, 0.975]).tolist() == pytest.approx(bounds)


def test_dropping_what_matters_shows_in_the_difference(tested):
    """The champion without the signal is worse, and the interval says so."""
    assert tested.figure("auc", "minus_champion_low") > 0
    assert tested.figure("log_loss", "minus_champion_high") < 0


def test_without_terms_there_is_no_profit_but_all_else(rows):
    table = backtest(rows, folds=1, recipe=quick, resamples=20).table
    blank = table[table["part"] == "pooled"].set_index("metric")["model"].isna()
    assert {"profit", "best_share", "expected_max_profit"} == set(blank.index[blank])


def test_the_report_is_plain_values_and_readable_rows(tested):
    """JSON without NaN, and one row per pooled figure, fold and segment."""
    shown = report([tested], [tested.says()], pd.Timestamp("2026-11-01", tz="UTC"))
    data = json.loads(json.dumps(shown.data, default=str, allow_nan=False))
    assert len(tested.table) == len(data["targets"][0]["figures"])
    assert 3 == len(data["targets"][0]["folds"])
    assert len(FIGURES) + 6 == len(shown.rows)
    auc = shown.rows[0]
    assert f"{tested.figure('auc'):.3f} (" in auc["model"]
    assert f"{tested.figure('auc', 'minus_champion'):+.3f} (" in auc["minus_champion"]
    assert "over 3 folds" in tested.says()


def test_a_recipe_is_made_anew_on_other_rows(rows):
    """It keeps inputs, seed and kind; from an unfitted model it takes all inputs."""
    model = Model(CHURN, seed=3, calibration="isotonic").fit(training_set_of(rows, ["tickets_open", "mrr"]))
    again = model.refit(rows)
    assert model.to_parts() == again.to_parts()
    assert tuple(rows.X) == Model(CHURN).refit(rows).features


def test_what_cannot_be_tested_is_said(rows):
    short = rows.take((rows.keys["cutoff"] < "2024-03-01").to_numpy())
    with pytest.raises(ModelError, match=r"Give a longer history, or set a shorter horizon"):
        backtest(short)
    with pytest.raises(ModelError, match="at least one fold"):
        backtest(rows, folds=0)
    with pytest.raises(ModelError, match="no fold can be tested"):
        backtest(rows.take((rows.y == 0).to_numpy()), recipe=quick)
