"""What `churnkit check` calls enough is enough: learning curves on the simulated book, by accounts drawn from it."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
from made_rows import lived
from sklearn.metrics import roc_auc_score

from churnkit.cutoffs import moment
from churnkit.jobs import setup
from churnkit.jobs.fitting import history
from churnkit.jobs.workspace import open_store, read, targets
from churnkit.learning.labels import label
from churnkit.learning.sufficiency import positives
from churnkit.learning.targets import CHURN
from churnkit.learning.training import train, training_set
from churnkit.settings import Settings, load


def enough(target, labels):
    """Whether check calls these labels enough."""
    return all(check.ok for check in positives(target, labels[labels["label"].notna()], Settings(), ""))


@pytest.mark.parametrize(("entities", "strength", "expected"), [(150, 1.0, False), (1500, 1.3, True)])
def test_a_small_book_is_too_little_and_a_large_one_enough(entities, strength, expected):
    """The verdict, and whether skill is then proven."""
    features, labels = lived(entities=entities, strength=strength, seed=4)
    assert enough(CHURN, labels) == expected
    assert train(CHURN, training_set(CHURN, features, labels)).evaluation.skill == expected


AT = moment("2026-11-01")
SIZES, DRAWS = (100, 200, 350, 650, 800, 950), 4


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """Features and churn labels of 1,500 simulated accounts over two years."""
    folder = tmp_path_factory.mktemp("enough") / "book"
    setup.simulate(folder, accounts=1500, months=24, seed=5)
    settings = load(folder)
    tables = read(settings, AT)
    churn = next(one for one in targets(settings, tables) if one.name == "churn")
    store = open_store(settings)
    points, _ = history(tables, store, churn, AT, ())
    return churn, store.read(points, churn), label(churn, tables, points)


@pytest.mark.slow
def test_what_is_called_enough_is_enough(book):
    """Of 24 books: skill is proven in most that are called enough and in none of a few accounts; and a model of a book
    that is enough ranks accounts that none of them saw about as well as one of the largest books does.
    """
    churn, features, labels = book
    rng, told = np.random.default_rng(1), []
    ids = rng.permutation(np.sort(features["account_id"].unique()))
    other = labels["label"].notna() & labels["account_id"].isin(ids[max(SIZES):])
    for size in np.repeat(SIZES, DRAWS):
        some = set(rng.choice(ids[:max(SIZES)], size, replace=False))
        mine = labels["account_id"].isin(some)
        trained = train(churn, training_set(churn, features[features["account_id"].isin(some)], labels[mine]))
        late = labels[other & (labels["cutoff"] >= trained.splits.test_at)]
        p = trained.holdout.probability(features.set_index("row_id").loc[late["row_id"]].reset_index())
        told.append({"accounts": size, "enough": enough(churn, labels[mine]), "proven": trained.evaluation.skill,
                     "auc_of_others": roc_auc_score(late["label"].astype(int), p)})
    found = pd.DataFrame(told)
    sys.stdout.write(f"\n{found.groupby(['accounts', 'enough']).mean().round(3).to_string()}\n")
    yes, no = found[found["enough"]], found[~found["enough"]]
    sys.stdout.write(f"enough: {yes['proven'].sum()} of {len(yes)} proven; not: {no['proven'].sum()} of {len(no)}\n")
    assert min(len(yes), len(no)) >= 6
    assert yes["proven"].mean() >= 0.75
    assert no["proven"].mean() < yes["proven"].mean()
    assert found.loc[found["accounts"] <= 200, "proven"].mean() <= 1 / 8
    assert yes["auc_of_others"].mean() > no["auc_of_others"].mean() + 0.02
    assert yes["auc_of_others"].mean() > found.loc[found["accounts"] == max(SIZES), "auc_of_others"].mean() - 0.03
