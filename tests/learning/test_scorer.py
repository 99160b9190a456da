"""The artefact in other people's hands: MLflow's loader and Spark give our scores; no trace of this machine in it."""

from __future__ import annotations

import datetime as dt
import getpass
import os
import socket
import warnings
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from churnkit.learning.model import Model

AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
FORMS = {"trees": ("platt", 1.0), "logistic": ("beta", 0.0), "blend": ("isotonic", 0.5)}


@pytest.fixture(params=FORMS)
def kept(request, registry, trained, rows):
    """A registered run of each form and calibration, and its artefact's folder."""
    kind, share = FORMS[request.param]
    model = Model(rows.target, calibration=kind, share=share).fit(rows, rounds=trained.model.rounds)
    registry.register(replace(trained, model=model), at=AT)
    return registry, model, next(registry.tracking.artifacts.rglob("MLmodel")).parent


def hard(book, model):
    """Rows as they come from elsewhere: blanks in every column, words that training did not know, far-out numbers."""
    inputs = book[0][list(model.features)].head(400).reset_index(drop=True)
    for place, name in enumerate(inputs):
        inputs.loc[place % 7::7, name] = None if inputs[name].dtype == object else np.nan
    inputs.loc[3, "plan"] = "never seen"
    inputs.loc[5, "events_28d"] = 1e9
    return inputs


def test_mlflows_own_loader_gives_our_scores(kept, book):
    """It runs scorer.py from the artefact, which knows nothing of churnkit."""
    _, model, folder = kept
    inputs = hard(book, model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import pyfunc

        found = pyfunc.load_model(str(folder)).predict(inputs)
    np.testing.assert_allclose(model.probability(inputs), found["probability"], atol=1e-12)


@pytest.mark.spark
@pytest.mark.filterwarnings("ignore")
def test_spark_gives_our_scores(kept, book, spark):
    """The registered champion by `mlflow.pyfunc.spark_udf`, over several partitions, nulls and unknown words among the
    rows.
    """
    import mlflow
    from pyspark.sql import functions, types

    registry, model, _ = kept
    inputs = hard(book, model)
    words = {name: types.StringType() if name in model.levels else types.DoubleType() for name in inputs}
    schema = types.StructType([types.StructField("place", types.LongType()),
                               *(types.StructField(name, kind) for name, kind in words.items())])
    plain = inputs.astype(object).where(inputs.notna(), None)
    frame = spark.createDataFrame([(place, *row) for place, row in enumerate(plain.itertuples(index=False))], schema)
    mlflow.set_tracking_uri(registry.tracking.uri)
    mlflow.set_registry_uri(registry.tracking.uri)
    score = mlflow.pyfunc.spark_udf(spark, "models:/churn@champion", result_type="double", env_manager="local")
    found = (frame.repartition(3).withColumn("p", score(functions.struct(*model.features)))
             .select("place", "p").toPandas().sort_values("place"))
    np.testing.assert_allclose(model.probability(inputs), found["p"], atol=1e-12)


def test_no_trace_of_the_training_machine_is_in_the_artefact(kept, tmp_path):
    """Neither the workspace's folder nor home, user, host or the place that it was run from."""
    registry, _, folder = kept
    traces = {str(tmp_path), str(registry.tracking.artifacts), str(Path.home()), str(Path.cwd()), os.sep + "tmp",
              socket.gethostname(), str(Path(__file__).parents[2])}
    user = getpass.getuser()
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 6
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert [] == [trace for trace in traces if len(trace) > 1 and trace in text], path.name
        assert f"/{user}/" not in text
        assert f"user: {user}" not in text


def test_the_requirements_are_those_given(kept):
    """What scorer.py imports, at the versions that trained; nothing is guessed."""
    _, _, folder = kept
    expected = {f"{name}=={version(name)}" for name in ("mlflow", "lightgbm", "numpy", "pandas")}
    assert expected == set((folder / "requirements.txt").read_text(encoding="utf-8").split())
    imported = {line.split()[1].split(".")[0] for line in (folder / "scorer.py").read_text().splitlines()
                if line.startswith(("import ", "from "))}
    assert {"lightgbm", "mlflow", "numpy", "pandas"} == imported - {"__future__", "json", "pathlib", "typing"}
