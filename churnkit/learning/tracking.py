"""The one door to MLflow: runs, versions, aliases and tags, and artefacts that lie in a folder."""

from __future__ import annotations

import datetime as dt
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import sqlalchemy.exc

from churnkit.errors import ModelError
from churnkit.learning.model import Model
from churnkit.learning.tune import Trial

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mlflow
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.exceptions import MlflowException
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, DataType, Schema

for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.ERROR)

__all__ = ["ModelVersion", "Tracking", "quiet", "save_scorer"]

EXPERIMENT = "churnkit"
_SCORER = Path(__file__).with_name("scorer.py")


class Tracking:
    """MLflow's runs and registered models at a URI; artefacts lie in a folder."""

    def __init__(self, uri: str, artifacts: Path) -> None:
        self.uri = uri
        self.artifacts = Path(artifacts)
        if uri.startswith("sqlite:///"):
            _lay(Path(uri.removeprefix("sqlite:///")))
        self.client = MlflowClient(tracking_uri=uri, registry_uri=uri)

    @contextmanager
    def run(self, name: str, tags: Mapping[str, str]) -> Iterator[str]:
        """A new run, by its id; it is marked as failed where the block is left by an error."""
        run = self.client.create_run(self._experiment(), run_name=name, tags=dict(tags))
        try:
            yield run.info.run_id
        except BaseException:
            self.client.set_terminated(run.info.run_id, status="FAILED")
            raise
        self.client.set_terminated(run.info.run_id)

    def log(self, run_id: str, params: Mapping[str, Any], metrics: Mapping[str, float],
            tags: Mapping[str, str]) -> None:
        """Params, cut to what databases hold, metrics and tags of a run."""
        self.client.log_batch(run_id, [Metric(key, value, _now(), 0) for key, value in metrics.items()],
                              [Param(key, str(value)[:5000]) for key, value in params.items()],
                              [RunTag(key, value) for key, value in tags.items()])

    def log_trials(self, parent: str, target: str, trials: tuple[Trial, ...]) -> None:
        """One nested run per trial of a search: its parameters, its loss after each fold, and how it ended."""
        for trial in trials:
            run = self.client.create_run(
                self._experiment(), run_name=f"trial {trial.number}{'' if trial.number else ' (the default)'}",
                tags={"mlflow.parentRunId": parent, "target": target,
                      "state": "pruned" if trial.pruned else "complete"})
            self.client.log_batch(
                run.info.run_id, [Metric("loss", loss, _now(), fold) for fold, loss in enumerate(trial.losses)],
                [Param(key, str(value)) for key, value in trial.params.items()])
            self.client.set_terminated(run.info.run_id, status="KILLED" if trial.pruned else "FINISHED")

    def add_version(self, name: str, run_id: str, tags: Mapping[str, str]) -> ModelVersion:
        """A new version of a registered model, whose files are the run's folder `model`."""
        if not self.known(name):
            self.client.create_registered_model(name)
        source = f"{self.client.get_run(run_id).info.artifact_uri}/model"
        return self.client.create_model_version(name, source, run_id, tags=dict(tags))

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a registered model, newest first, with their aliases."""
        if not self.known(name):
            return []
        found = self.client.search_model_versions(f"name='{name}'", max_results=1000)
        return sorted((self.client.get_model_version(name, one.version) for one in found),
                      key=lambda one: int(one.version), reverse=True)

    def known(self, name: str) -> bool:
        """Whether any version of the model was registered."""
        return any(one.name == name for one in self.client.search_registered_models(f"name='{name}'"))

    def alias(self, name: str, alias: str) -> ModelVersion | None:
        """The version that an alias names; None where there is none."""
        try:
            return self.client.get_model_version_by_alias(name, alias)
        except MlflowException:
            return None

    def folder(self, version: ModelVersion, what: str) -> Path:
        """Where the files of a version's run lie, under `what`; fetched from elsewhere where they are not here.

        Raises:
            ModelError: If they cannot be fetched.
        """
        here = self.artifacts / str(version.run_id) / "artifacts" / what  # also where the workspace was moved
        if here.is_dir():
            return here
        try:
            return Path(mlflow.artifacts.download_artifacts(run_id=version.run_id, artifact_path=what,
                                                            tracking_uri=self.uri))
        except (MlflowException, OSError) as error:
            raise ModelError(f"{version.name}-{version.version}: its files cannot be fetched from '{version.source}' "
                             f"({error}). Restore them, or train again: churnkit train.") from None

    def _experiment(self) -> str:
        """The id of our experiment, made on first use with its artefacts in our folder.

        MLflow keeps the folder's full path: a workspace that was copied or moved gets an experiment of its own, lest it
        write into the folder that it came from.
        """
        ours = self.artifacts.resolve().as_uri()
        for name in (EXPERIMENT, f"{EXPERIMENT} in {self.artifacts.resolve()}"):
            found = self.client.get_experiment_by_name(name)
            if found is None:
                self.artifacts.mkdir(parents=True, exist_ok=True)
                return str(self.client.create_experiment(name, artifact_location=ours))
            if found.artifact_location == ours or not found.artifact_location.startswith("file:"):
                return str(found.experiment_id)
        raise ModelError(f"The experiments of '{self.uri}' keep their files elsewhere than '{self.artifacts}'. Move "
                         "the workspace back, or name another registry: mlflow = '...' in churnkit.toml.")


def save_scorer(folder: Path, files: Mapping[str, Path], model: Model) -> None:
    """Writes MLflow's pyfunc to a new folder: the model's texts, scorer.py and MLmodel, with its requirements named."""
    inputs = Schema([ColSpec(DataType.string if name in model.levels else DataType.double, name, required=False)
                     for name in model.features])
    mlflow.pyfunc.save_model(
        folder,
        python_model=str(_SCORER),
        artifacts={name: str(path) for name, path in files.items()},
        signature=ModelSignature(inputs=inputs, outputs=Schema([ColSpec(DataType.double, "probability")])),
        pip_requirements=[
            f"mlflow=={mlflow.__version__}",
            f"lightgbm=={lightgbm.__version__}",
            f"numpy=={np.__version__}",
            f"pandas=={pd.__version__}",
        ],
    )
    _forget(folder / "MLmodel")


def _forget(file: Path) -> None:
    """Takes the paths of this machine out of MLmodel: MLflow keeps where each file came from, and reads only names."""
    kept = mlflow.models.Model.load(str(file))
    flavor = kept.flavors["python_function"]
    flavor["model_code_path"] = _SCORER.name
    for one in flavor["artifacts"].values():
        one["uri"] = one["path"]
    kept.save(str(file))


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps MLflow's and Alembic's remarks off the screen; an error of the database comes through in one paragraph."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (sqlalchemy.exc.SQLAlchemyError, MlflowException) as error:
            reason = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise ModelError(
                f"The model registry cannot be used ({reason}). See that its database exists and may be written; a "
                "damaged one restore from a backup, or move it away and train again: churnkit train."
            ) from None


def _now() -> int:
    """MLflow's own clock, not data time."""
    return int(dt.datetime.now(dt.UTC).timestamp() * 1000)


def _lay(file: Path) -> None:
    """Makes a new tracking database beside its place and moves it there whole.

    MLflow's migrations take seconds, and a kill in their midst would leave a database that nothing opens again.
    """
    if file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=file.parent) as folder:
        part = Path(folder) / file.name
        MlflowClient(tracking_uri=f"sqlite:///{part}").search_experiments(max_results=1)
        part.replace(file)
