"""SHAP values: both ways equal shap's and a brute force over all subsets, and one that cannot is left for the other."""

from __future__ import annotations

import itertools
import logging
import math
import warnings

import lightgbm as lgb
import numpy as np
import pytest

from churnkit.errors import ModelError
from churnkit.learning import contributions as subject
from churnkit.learning.contributions import MANY, TOLERANCE, by_trees, contributions

WORDS = 2


def made(n=2000, k=6, seed=5, *, holes=True):
    """Inputs with a categorical column, missing values and many zeros; and outcomes."""
    dice = np.random.default_rng(seed)
    x = dice.normal(size=(n, k))
    x[dice.random(x.shape) < 0.2] = 0.0
    x[:, WORDS] = dice.integers(0, 9, n)
    known = x.copy()
    if holes:
        x[dice.random(x.shape) < 0.15] = np.nan
    raw = known[:, 0] + (known[:, WORDS] % 3 == 0) * 1.5 + known[:, 1] * known[:, 3] - 0.5
    return x, (dice.random(n) < 1 / (1 + np.exp(-raw))).astype(float)


def learnt(x, y, trees=30, **more):
    params = {"objective": "binary", "num_leaves": 15, "min_data_in_leaf": 10, "min_data_per_group": 10,
              "verbosity": -1, "num_threads": 1, "seed": 3, **more}
    return lgb.train(params, lgb.Dataset(x, y, categorical_feature=[WORDS], params=params), trees)


@pytest.fixture(scope="module")
def rows():
    return made()


@pytest.fixture(scope="module")
def booster(rows):
    return learnt(*rows)


def shaps(booster, x):
    """The shap package's own answer."""
    with warnings.catch_warnings():  # shap calls what matplotlib is about to deprecate, and says how it answers
        warnings.simplefilter("ignore")
        import shap

        return np.asarray(shap.TreeExplainer(booster).shap_values(x))


def value(node, row, known):
    """What a tree expects of a row of which only some inputs are known: shares of the training rows elsewhere."""
    if "leaf_value" in node:
        return node["leaf_value"]
    sides = [node["left_child"], node["right_child"]]
    place = node["split_feature"]
    if place not in known:
        cover = [side.get("internal_count", side.get("leaf_count")) for side in sides]
        return sum(value(side, row, known) * one for side, one in zip(sides, cover, strict=True)) / sum(cover)
    if node["decision_type"] == "==":
        left = not math.isnan(row[place]) and int(row[place]) in {int(one) for one in node["threshold"].split("||")}
    elif math.isnan(row[place]) and node["missing_type"] == "NaN":
        left = node["default_left"]
    else:
        left = np.nan_to_num(row[place]) <= node["threshold"]
    return value(sides[0] if left else sides[1], row, known)


def brute(booster, row):
    """Shapley's formula over all subsets of the inputs."""
    k = booster.num_feature()
    trees = [one["tree_structure"] for one in booster.dump_model()["tree_info"]]
    known = {some: sum(value(tree, row, some) for tree in trees)
             for size in range(k + 1) for some in map(frozenset, itertools.combinations(range(k), size))}
    return [sum(math.factorial(len(some)) * math.factorial(k - len(some) - 1) / math.factorial(k)
                * (known[some | {place}] - known[some]) for some in known if place not in some) for place in range(k)]


def test_both_ways_equal_a_brute_force_over_all_subsets(rows):
    """Categories, missing values and words that training did not know among them."""
    x, y = rows
    small = learnt(x, y, trees=4)
    some = x[:6].copy()
    some[0, WORDS], some[1, WORDS] = 40, np.nan
    expected = np.array([brute(small, row) for row in some])
    np.testing.assert_allclose(expected, by_trees(small, some), atol=1e-5)
    np.testing.assert_allclose(expected, contributions(small, some)[0], atol=1e-9)
    assert np.abs(expected[:, WORDS]).max() > 0.05


def test_by_trees_equals_shap(rows, booster):
    x, _ = rows
    np.testing.assert_allclose(shaps(booster, x), by_trees(booster, x), atol=TOLERANCE / 4)


def test_a_value_that_training_never_lacked_is_read_as_zero():
    """As LightGBM itself does."""
    x, y = made(holes=False)
    trained = learnt(x, y)
    holes = x.copy()
    holes[::3, 0] = holes[::4, 3] = holes[::5, WORDS] = np.nan
    np.testing.assert_allclose(shaps(trained, holes), by_trees(trained, holes), atol=TOLERANCE / 4)


def test_many_rows_add_up_to_their_raw_scores(rows, booster, caplog):
    """And go by trees, in chunks, without a word in the log."""
    x = np.vstack([rows[0]] * 2)
    assert len(x) >= MANY
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(subject, "AT_ONCE", 1500)
        found, base = contributions(booster, x)
    assert [] == caplog.records
    np.testing.assert_allclose(booster.predict(x, raw_score=True), found.sum(axis=1) + base, atol=TOLERANCE)
    np.testing.assert_array_equal(found[:2000], found[2000:])


def test_few_rows_take_the_direct_way(rows, booster, monkeypatch):
    def never(*_):
        raise AssertionError

    monkeypatch.setattr(subject, "by_trees", never)
    expected = booster.predict(rows[0][:50], pred_contrib=True)
    np.testing.assert_array_equal(expected[:, :-1], contributions(booster, rows[0][:50])[0])


@pytest.mark.parametrize("wrong", [np.zeros_like, lambda x: x[:, :2], lambda x: np.full(x.shape, np.nan)])
def test_a_quick_way_that_errs_is_noticed_and_left(rows, booster, monkeypatch, caplog, wrong):
    """A silent mistake of the library's is none of ours."""
    x = np.vstack([rows[0]] * 2)
    monkeypatch.setattr(subject, "by_trees", lambda _, matrix: wrong(matrix))
    expected = booster.predict(x, pred_contrib=True)
    np.testing.assert_array_equal(expected[:, :-1], contributions(booster, x)[0])
    assert "explaining 4000 rows the slow way" in caplog.text


def test_zero_as_missing_is_refused_and_goes_the_direct_way(rows, caplog):
    """The trap of the library: it would be silently wrong there."""
    x, y = rows
    strange = learnt(x, y, zero_as_missing=True)
    with pytest.raises(ModelError, match="zero_as_missing"):
        by_trees(strange, x)
    many = np.vstack([x] * 2)
    np.testing.assert_array_equal(strange.predict(many, pred_contrib=True)[:, :-1], contributions(strange, many)[0])
    assert "zero_as_missing" in caplog.text


def test_trees_without_a_split_contribute_nothing(rows):
    x, y = rows
    stumps = learnt(x, y, trees=2, min_data_in_leaf=len(x))
    np.testing.assert_array_equal(np.zeros(x.shape), by_trees(stumps, x))
