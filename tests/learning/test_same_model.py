"""The same data, definitions and settings give the same trees and JSON, however many threads reckon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pandas as pd
import pytest
from made_rows import made
from threadpoolctl import threadpool_limits

from churnkit.learning import trees
from churnkit.learning.artefact import model_hash
from churnkit.learning.model import Model
from churnkit.learning.targets import CHURN
from churnkit.learning.training import train, training_set

WHOLE_RUN = """
import json, sys
from churnkit.learning import trees
trees.THREADS = int(sys.argv[1])
from made_rows import made
from test_estimators import lived
from churnkit.learning.artefact import model_hash
from churnkit.learning.curves import train_curve
from churnkit.learning.targets import CHURN
from churnkit.learning.training import train, training_set
from churnkit.learning.upkeep import train_components, train_life
run = train(CHURN, training_set(CHURN, *made(entities=200)))
x, spans, _ = lived(entities=100)
when = spans.cutoffs[10].to_pydatetime()
parts = [run.to_parts(), run.holdout_parts()]
for fit in (train_components, train_life):
    parts += [fit(spans, x, test_at=when).estimator.to_parts()]
parts += [train_curve(spans, x, (30, 60, 90, 180), test_at=when).curve.to_parts()]
print(json.dumps([model_hash(one) for one in parts]))
"""


def ran(threads):
    """The hashes of a whole training in a process with so many threads for trees and for matrices."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent),
           **{name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")},
           "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run([sys.executable, "-c", WHOLE_RUN, str(threads)], env=env, check=True, capture_output=True,
                          text=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_one_thread_and_two_give_the_same_model():
    """Model, holdout, components, life and curve, each on its own."""
    one, two = ran(1), ran(2)
    assert one == two
    assert len({*one}) == 5


@pytest.mark.parametrize("kind", ["platt", "beta"])
def test_matrix_products_on_one_thread_and_on_two_give_the_same_model(kind):
    """Weights that are no whole numbers show the order in which sums are added up, above ten thousand rows."""
    rows = training_set(CHURN, *made(entities=2000))
    rows = replace(rows, weights=rows.weights * np.random.default_rng(0).uniform(1, 3, len(rows)))
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, user_api="blas"):
            found.append(Model(CHURN, calibration=kind).fit(rows, rounds=5).to_parts())
    assert model_hash(found[0]) == model_hash(found[1])


@pytest.mark.parametrize("threads", [2, 3])
def test_rows_of_very_different_weight_give_the_same_trees(threads):
    """LightGBM's histograms by rows add in an order that follows the threads; such weights show it."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60_000, 12))
    y = (rng.random(len(x)) < 1 / (1 + np.exp(3 - x[:, 0]))).astype(float)
    rows = {"data": x, "label": y, "weight": rng.gamma(2, 1, len(x)) * np.where(rng.random(len(x)) < 0.01, 1e6, 1)}
    names = [f"f{place}" for place in range(x.shape[1])]

    def grown(many):
        booster = trees.grow({**trees.parameters(5000, len(x), 7), "num_threads": many}, rows, names, {}, 15)
        return booster, model_hash(trees.write_parts("model", booster, {"rounds": 15}))

    one, other = grown(1), grown(threads)
    assert one[0].model_to_string() != other[0].model_to_string()  # the parameters say how many
    assert one[1] == other[1]


def test_another_seed_row_or_definition_gives_another_hash(trained, rows):
    """The hash follows everything that the model is."""
    mine = model_hash(trained.to_parts())
    assert mine == model_hash(train(CHURN, rows).to_parts())
    fewer = rows.take(np.arange(len(rows)) > 0)
    narrow = replace(rows, X=rows.X.drop(columns="mrr"))
    others = [train(CHURN, rows, seed=8), train(CHURN, fewer), train(CHURN, narrow)]
    assert len({mine, *(model_hash(one.to_parts()) for one in others)}) == 4


def test_the_hash_follows_each_number_of_the_trees_and_the_json(trained):
    """Only LightGBM's block of parameters does not count."""
    parts = trained.to_parts()
    mine = model_hash(parts)
    text, data = parts["model.txt"], json.loads(parts["model.json"])
    head, _, rest = text.partition("\nparameters:")
    assert "[num_threads: 1]" in rest
    assert mine == model_hash({**parts, "model.txt": text.replace("[num_threads: 1]", "[num_threads: 9]")})
    assert mine == model_hash(dict(reversed(parts.items())))
    leaf = head.index("leaf_value=") + len("leaf_value=")
    assert mine != model_hash({**parts, "model.txt": f"{text[:leaf]}9{text[leaf:]}"})
    data["base_rate"] += 1e-12
    assert mine != model_hash({**parts, "model.json": json.dumps(data)})
    assert pd.Series([mine]).str.fullmatch("[0-9a-f]{64}").all()
    assert lgb.Booster(model_str=text).num_trees() == trained.model.rounds
