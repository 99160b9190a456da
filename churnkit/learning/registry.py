"""The one door to MLflow: versions of models with their figures, champions verified before they are read."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import lightgbm
import numpy as np
import pandas as pd
import sqlalchemy.exc

from churnkit.cutoffs import moment
from churnkit.errors import ModelError
from churnkit.learning.artefact import digest, hashes, model_hash, verified
from churnkit.learning.estimators import CappedLife, Hazard
from churnkit.learning.gains import Gains
from churnkit.learning.kinds import Kinds
from churnkit.learning.model import Model, data_hash
from churnkit.learning.training import Trained

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

EXPERIMENT = "churnkit"
CHAMPION, CHALLENGER = "champion", "challenger"
_SCORER = Path(__file__).with_name("scorer.py")
_FILES, _HOLDOUT = "churnkit.files", "churnkit.holdout"
_FINGERPRINT, _SUSPECTS = "churnkit.fingerprint", "churnkit.suspects"


class Champion(NamedTuple):
    """The model that scores: verified, with its version's name, whether its skill is proven, and what it has seen.

    It learnt from data up to `at`: scores for an earlier day are no fair look back. `curve`, `components`, `life`,
    `gains` and `kinds` stand beside it where the target has them; `proven` names those of them whose skill is.
    """

    model: Model
    version: str
    skill: bool
    at: dt.datetime
    curve: Hazard | None = None
    components: Kinds | None = None
    life: CappedLife | None = None
    gains: Gains | None = None
    kinds: Kinds | None = None
    proven: frozenset[str] = frozenset()


class Registry:
    """Versions of each target's model in MLflow, at a tracking URI; artefacts lie in a folder.

    The first version whose skill is proven becomes champion. A later one follows it if its skill is proven and it
    gains no less log loss over the base rate than the champion did, each on its own test period; otherwise it is the
    challenger.
    """

    def __init__(self, uri: str, artifacts: Path) -> None:
        self.uri = uri
        self.artifacts = Path(artifacts)
        with _quiet():
            if uri.startswith("sqlite:///"):
                _lay(Path(uri.removeprefix("sqlite:///")))
            self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)

    def register(self, trained: Trained, *, at: dt.datetime, suspects: Sequence[str] = ()) -> str:
        """Logs both fits, figures, plots and hashes; registers the version and returns its name, such as 'churn-3'.

        With `suspects`, features that may know the outcome, it becomes no champion. The same training run (data,
        definitions, seed, libraries) is registered once: again, it gives the same version.
        """
        name, evaluation = trained.model.target.name, trained.evaluation
        parts, held = trained.to_parts(), trained.holdout_parts()
        same = {
            "target": name,
            "test_at": trained.splits.test_at.isoformat(),
            "skill": "proven" if evaluation.skill else "no skill",
            "proven_beside": json.dumps(_proven(trained)),
            "definition": _definition(trained.model),
            "data_hash": data_hash(trained.data.X.assign(label=trained.data.y)),
            "model_hash": model_hash(parts),
            _SUSPECTS: ", ".join(suspects),
        }
        fingerprint = digest(json.dumps([*same.items(), model_hash(held)]).encode())
        with _quiet():
            for version in self._versions(name):
                if version.tags.get(_FINGERPRINT) == fingerprint:
                    if not version.aliases:  # a run that was killed between the two steps left it without a role
                        self._crown(name, version.version, version.tags)
                    return _called(version)
            run = self._client.create_run(self._experiment(), run_name=f"{name} {at:%Y-%m-%d}",
                                          tags={"target": name, "at": at.isoformat()})
            try:
                files = self._log(run.info.run_id, trained, parts)
                self._log_trials(run.info.run_id, trained)
            except BaseException:
                self._client.set_terminated(run.info.run_id, status="FAILED")
                raise
            self._client.set_terminated(run.info.run_id)
            tags = {
                **same,
                "at": at.isoformat(),
                "log_loss_gain": repr(_gain(trained)),
                _FILES: json.dumps(files, sort_keys=True),
                _HOLDOUT: json.dumps({file: digest(text.encode()) for file, text in held.items()}, sort_keys=True),
                _FINGERPRINT: fingerprint,
            }
            if not self._known(name):
                self._client.create_registered_model(name)
            version = self._client.create_model_version(
                name, f"{run.info.artifact_uri}/model", run.info.run_id, tags=tags
            )
            self._crown(name, version.version, tags)
            return _called(self._client.get_model_version(name, version.version))

    def champion(self, name: str) -> Champion | None:
        """The target's champion, or while none has proven skill the newest version; None before the first training.

        Every file of the artefact is held against the hashes in the registry before any is parsed; none is executed.

        Raises:
            ModelError: If a file was changed, added or is missing.
        """
        with _quiet():
            version = self._alias(name, CHAMPION) or next(iter(self._versions(name)), None)
            if version is None:
                return None
            parts = self._verified(version)
            model = Model.from_parts(parts)
            curve = Hazard.from_parts(parts) if "curve.json" in parts else None
            components = Kinds.from_parts(parts, "components") if "components.json" in parts else None
            life = CappedLife.from_parts(parts) if "life.json" in parts else None
            gains = Gains.from_parts(parts) if "gains.json" in parts else None
            kinds = Kinds.from_parts(parts) if "kinds.json" in parts else None
        if _definition(model) != version.tags.get("definition"):
            raise ModelError(
                f"{_called(version)}: its feature list or target differs from what was registered. Train it again: "
                "churnkit train."
            )
        model.version = _called(version)
        return Champion(model, model.version, _trusted(version.tags), moment(version.tags["at"]), curve, components,
                        life, gains, kinds, frozenset(json.loads(version.tags.get("proven_beside", "[]"))))

    def versions(self, name: str) -> pd.DataFrame:
        """Every version of a target's model, newest first: version, at, skill, log_loss_gain, role, model_hash."""
        with _quiet():
            return pd.DataFrame(
                [
                    {
                        "version": _called(one),
                        "at": one.tags.get("at"),
                        "skill": one.tags.get("skill"),
                        "log_loss_gain": float(one.tags["log_loss_gain"]),
                        "role": ", ".join(one.aliases),
                        "model_hash": one.tags.get("model_hash"),
                    }
                    for one in self._versions(name)
                ],
                columns=["version", "at", "skill", "log_loss_gain", "role", "model_hash"],
            )

    def _log(self, run_id: str, trained: Trained, parts: dict[str, str]) -> dict[str, str]:
        """Params, metrics, plots and both fits; returns the hash of each file of the model's artefact."""
        evaluation, holdout = trained.evaluation, trained.holdout
        now = int(dt.datetime.now(dt.UTC).timestamp() * 1000)  # MLflow's own clock, not data time
        params = {
            **trained.splits.to_dict(), "seed": trained.model.seed,
            "rounds": trained.model.rounds, "features": len(trained.model.features), "rows": len(trained.data),
            "positives": trained.data.positives, "calibration": trained.model.calibration.kind,
            "dropped": json.dumps(dict(trained.data.dropped)), "lightgbm": lightgbm.__version__,
            "trials": len(trained.trials),
            **{f"lightgbm.{key}": value for key, value in holdout.booster_.params.items()},
            "notes": "; ".join(trained.model.notes), "verdict": evaluation.says(),
        }
        metrics = evaluation.metrics()
        if trained.curve:
            metrics |= trained.curve.evaluation.metrics()
            params["curve.verdict"] = trained.curve.evaluation.says()
            params["curve.rounds"] = trained.curve.curve.rounds
        for one in trained.beside:
            metrics |= one.metrics()
            params[f"{one.what}.verdict"] = one.says()
        self._client.log_batch(run_id, [Metric(key, value, now, 0) for key, value in metrics.items()],
                               [Param(key, str(value)[:5000]) for key, value in params.items()],
                               [RunTag("skill", "proven" if evaluation.skill else "no skill")])
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "holdout").mkdir()
            for file, text in trained.holdout_parts().items():
                (root / "holdout" / file).write_text(text, encoding="utf-8")
            evaluation.table.to_csv(root / "evaluation.csv")
            evaluation.plot().savefig(root / "evaluation.png", dpi=90)
            if trained.curve:
                trained.curve.evaluation.horizons.to_csv(root / "curve.csv")
            files = _artefact(root, trained, parts)
            self._client.log_artifacts(run_id, folder)
        return files

    def _log_trials(self, parent: str, trained: Trained) -> None:
        """One nested run per trial of the search: its parameters, its loss after each fold, and how it ended."""
        now = int(dt.datetime.now(dt.UTC).timestamp() * 1000)
        for trial in trained.trials:
            run = self._client.create_run(
                self._experiment(), run_name=f"trial {trial.number}{'' if trial.number else ' (the default)'}",
                tags={"mlflow.parentRunId": parent, "target": trained.model.target.name,
                      "state": "pruned" if trial.pruned else "complete"})
            self._client.log_batch(
                run.info.run_id, [Metric("loss", loss, now, fold) for fold, loss in enumerate(trial.losses)],
                [Param(key, str(value)) for key, value in trial.params.items()])
            self._client.set_terminated(run.info.run_id, status="KILLED" if trial.pruned else "FINISHED")

    def _crown(self, name: str, version: str, tags: dict[str, str]) -> None:
        """Makes the version champion or challenger."""
        champion = self._alias(name, CHAMPION)
        proven = _trusted(tags)
        better = champion is None or champion.tags.get("definition") != tags["definition"] or (
            float(tags["log_loss_gain"]) >= float(champion.tags["log_loss_gain"]))
        self._client.set_registered_model_alias(name, CHAMPION if proven and better else CHALLENGER, version)

    def _verified(self, version: ModelVersion) -> dict[str, str]:
        """The model's texts in the artefact, after every file has the hash that the registry holds."""
        expected: dict[str, str] = json.loads(version.tags.get(_FILES, "{}"))
        uri = self._client.get_model_version_download_uri(version.name, version.version)
        here = self.artifacts / str(version.run_id) / "artifacts" / "model"  # also where the workspace was moved
        try:
            root = here if here.is_dir() else Path(
                mlflow.artifacts.download_artifacts(artifact_uri=uri, tracking_uri=self.uri))
        except (MlflowException, OSError) as error:
            raise ModelError(
                f"{_called(version)}: its files cannot be fetched from '{uri}' ({error}). Restore them, or train "
                "again: churnkit train."
            ) from None
        found = verified(root, expected, _called(version))
        return {file.removeprefix("artifacts/"): text.decode() for file, text in found.items()
                if file.startswith("artifacts/")}

    def _experiment(self) -> str:
        """The id of our experiment, made on first use with its artefacts in our folder.

        MLflow keeps the folder's full path: a workspace that was copied or moved gets an experiment of its own, lest it
        write into the folder that it came from.
        """
        ours = self.artifacts.resolve().as_uri()
        for name in (EXPERIMENT, f"{EXPERIMENT} in {self.artifacts.resolve()}"):
            found = self._client.get_experiment_by_name(name)
            if found is None:
                self.artifacts.mkdir(parents=True, exist_ok=True)
                return str(self._client.create_experiment(name, artifact_location=ours))
            if found.artifact_location == ours or not found.artifact_location.startswith("file:"):
                return str(found.experiment_id)
        raise ModelError(f"The experiments of '{self.uri}' keep their files elsewhere than '{self.artifacts}'. Move "
                         "the workspace back, or name another registry: mlflow = '...' in churnkit.toml.")

    def _versions(self, name: str) -> list[ModelVersion]:
        """All versions of a registered model, newest first, with their aliases."""
        if not self._known(name):
            return []
        found = self._client.search_model_versions(f"name='{name}'", max_results=1000)
        return sorted((self._client.get_model_version(name, one.version) for one in found),
                      key=lambda one: int(one.version), reverse=True)

    def _known(self, name: str) -> bool:
        return any(one.name == name for one in self._client.search_registered_models(f"name='{name}'"))

    def _alias(self, name: str, alias: str) -> ModelVersion | None:
        try:
            return self._client.get_model_version_by_alias(name, alias)
        except MlflowException:
            return None


def _artefact(root: Path, trained: Trained, parts: dict[str, str]) -> dict[str, str]:
    """Writes the pyfunc to `root / model`: text, JSON, scorer.py and MLmodel; returns the hash of each file."""
    for file, text in parts.items():
        (root / file).write_text(text, encoding="utf-8")
    model = trained.model
    inputs = Schema([ColSpec(DataType.string if name in model.levels else DataType.double, name, required=False)
                     for name in model.features])
    mlflow.pyfunc.save_model(
        root / "model",
        python_model=str(_SCORER),
        artifacts={{"model.txt": "text", "model.json": "json"}.get(file, file): str(root / file) for file in parts},
        signature=ModelSignature(inputs=inputs, outputs=Schema([ColSpec(DataType.double, "probability")])),
        pip_requirements=[
            f"mlflow=={mlflow.__version__}",
            f"lightgbm=={lightgbm.__version__}",
            f"numpy=={np.__version__}",
            f"pandas=={pd.__version__}",
        ],
    )
    for file in parts:
        (root / file).unlink()
    folder = root / "model"
    return hashes(folder)


def _gain(trained: Trained) -> float:
    """How much lower the model's log loss is than the base rate's, on its test period."""
    losses = trained.evaluation.table.loc["log_loss"]
    return float(losses["base_rate"]) - float(losses["model"])


def _proven(trained: Trained) -> list[str]:
    """What stands beside the model and has proven skill, by name."""
    curve = ["curve"] if trained.curve and trained.curve.evaluation.skill else []
    return [*curve, *(one.what for one in trained.beside if one.skill)]


def _definition(model: Model) -> str:
    """A hash of what the model predicts and from what."""
    return digest(
        json.dumps([asdict(model.target), model.features, model.levels], sort_keys=True, default=str).encode()
    )


def _called(version: ModelVersion) -> str:
    """A version's name as scores carry it; one without proven skill, or with features under suspicion, says so."""
    doubt = "" if version.tags.get("skill") == "proven" else " (no skill)"
    doubt = doubt or (" (suspect features)" if version.tags.get(_SUSPECTS) else "")
    return f"{version.name}-{version.version}{doubt}"


def _trusted(tags: Mapping[str, str]) -> bool:
    """Whether the skill is proven, and by features above suspicion."""
    return tags.get("skill") == "proven" and not tags.get(_SUSPECTS)


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


@contextmanager
def _quiet() -> Iterator[None]:
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
