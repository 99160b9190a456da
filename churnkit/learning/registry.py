"""Versions of models with their figures, who among them scores, and champions verified before they are read."""

from __future__ import annotations

import datetime as dt
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from churnkit.cutoffs import moment
from churnkit.errors import ModelError
from churnkit.learning import artefact, card
from churnkit.learning.artefact import digest, model_hash
from churnkit.learning.card import About
from churnkit.learning.gains import Gains
from churnkit.learning.hazard import Hazard
from churnkit.learning.kinds import Kinds
from churnkit.learning.life import CappedLife
from churnkit.learning.model import Model, data_hash
from churnkit.learning.profit import Terms
from churnkit.learning.promotion import Challenger, Decision, Standing, decide
from churnkit.learning.succession import CHAMPION, LONGEST, RULE, Change, Succession, signed
from churnkit.learning.tracking import ModelVersion, Tracking, quiet, save_scorer
from churnkit.learning.training import Trained

_FILES, _HOLDOUT = "churnkit.files", "churnkit.holdout"
_FINGERPRINT, _SUSPECTS, _DECISION = "churnkit.fingerprint", "churnkit.suspects", "churnkit.decision"
LONGEST_TEXT = 5000
"""Characters of a description that registries hold; the card's file is whole."""
_VERSIONS = ["version", "at", "test_at", "skill", "log_loss_gain", "role", "decided", "model_hash"]


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

    The first version whose skill is proven becomes champion. A later one takes its place if, on the same later period,
    it earns more at capacity and is no worse calibrated: see `promotion.decide`. A person may decide otherwise, with
    `promote` and `rollback`. What was decided, by whom and why, is kept.
    """

    def __init__(self, uri: str, artifacts: Path) -> None:
        with quiet():
            self.tracking = Tracking(uri, artifacts)

    def register(self, trained: Trained, *, at: dt.datetime, suspects: Sequence[str] = (), terms: Terms | None = None,
                 now: dt.datetime | None = None, about: About | None = None) -> str:
        """Logs both fits, figures, plots and hashes; registers the version, decides whether it becomes champion, and
        returns its name, such as 'churn-3'.

        The same training run (data, definitions, seed, libraries) is registered once: again, it gives the same version.

        Args:
            trained: The training run.
            at: Up to when its data reach.
            suspects: Features that may know the outcome; with them it becomes no champion.
            terms: What a contact costs and brings; without them positives reached are compared.
            now: The time of the run, for the history of champions; left out, `at`.
            about: What its card tells beyond the training run.
        """
        name, same = trained.model.target.name, _identity(trained, suspects)
        fingerprint = digest(json.dumps([*same.items(), model_hash(trained.holdout_parts())]).encode())
        with quiet():
            version = self._registered(name, fingerprint)
            if version is None:
                text = card.body(trained, about or About(at, suspects=suspects), same["data_hash"], same["model_hash"])
                version = self._add(trained, at, {**same, _FINGERPRINT: fingerprint}, text)
            if _DECISION not in version.tags:
                self._decide(version, trained, terms)
            self._follow(version, now or at)
            self._approve(name)
            return _called(version)

    def champion(self, name: str) -> Champion | None:
        """The target's champion, or while none has proven skill the newest version; None before the first training.

        Every file of the artefact is held against the hashes in the registry before any is parsed; none is executed.

        Raises:
            ModelError: If a file was changed, added or is missing.
        """
        with quiet():
            version = self.tracking.alias(name, CHAMPION) or next(iter(self.tracking.versions(name)), None)
            if version is None:
                return None
            parts, model = self._read(version)
            curve = Hazard.from_parts(parts) if "curve.json" in parts else None
            components = Kinds.from_parts(parts, "components") if "components.json" in parts else None
            life = CappedLife.from_parts(parts) if "life.json" in parts else None
            gains = Gains.from_parts(parts) if "gains.json" in parts else None
            kinds = Kinds.from_parts(parts) if "kinds.json" in parts else None
        return Champion(model, model.version, _trusted(version.tags), moment(version.tags["at"]), curve, components,
                        life, gains, kinds, frozenset(json.loads(version.tags.get("proven_beside", "[]"))))

    def versions(self, name: str) -> pd.DataFrame:
        """Every version of a target's model, newest first.

        Columns: version, at (how far its data reach), test_at (when its test period begins), skill, log_loss_gain,
        role (champion, challenger or blank), decided (by which rule it became one of them), model_hash.
        """
        with quiet():
            found = [(one, one.tags) for one in self.tracking.versions(name)]
        return pd.DataFrame([{
            "version": _called(one), "at": tags.get("at"), "test_at": tags.get("test_at"), "skill": tags.get("skill"),
            "log_loss_gain": float(tags["log_loss_gain"]), "role": ", ".join(one.aliases),
            "decided": json.loads(tags[_DECISION])["rule"] if _DECISION in tags else None,
            "model_hash": tags.get("model_hash")} for one, tags in found], columns=_VERSIONS)

    def decision(self, version: str) -> Decision | None:
        """Whether a version, such as churn-3, became champion when it was registered, and by which figures."""
        with quiet():
            told = self._version(*named(version)).tags.get(_DECISION)
        return Decision.from_dict(json.loads(told)) if told else None

    def history(self, name: str) -> list[Change]:
        """Every change of champion, oldest first; changes are only ever added."""
        with quiet():
            return Succession(self.tracking, name).history()

    def promote(self, version: str, *, by: str, why: str, now: dt.datetime, anyway: bool = False) -> Change | None:
        """Makes a version, such as churn-3, champion by a person's decision. None where it is the champion already.

        Its files are verified first. See `Succession` for what a kill leaves.

        Args:
            version: Which.
            by: Who decided.
            why: On what grounds.
            now: When.
            anyway: Whether a version without proven skill will do; it scores, but opens no task.

        Raises:
            ModelError: If there is no such version, its files were changed, it learnt from features that may know the
                outcome, or its skill is not proven.
        """
        name, number = named(version)
        by_whom = signed(by, why)
        with quiet():
            self._may(self._version(name, number), anyway=anyway)
            done = Succession(self.tracking, name).promote(number, by_whom, now)
            self._approve(name)
            return done

    def rollback(self, name: str, *, by: str, why: str, now: dt.datetime) -> Change:
        """Makes the champion before this one champion again; each rollback goes one further back.

        Raises:
            ModelError: If there is no champion before, or its files were changed.
        """
        by_whom = signed(by, why)
        with quiet():
            line = Succession(self.tracking, name)
            number = line.before(now)
            if number is None:
                raise ModelError(f"{name}: there was no champion before. See churnkit models, and promote by hand: "
                                 f"churnkit promote {name} VERSION --by NAME --why TEXT")
            self._may(self._version(name, number), anyway=True)
            done = line.roll_back(number, by_whom, now)
            self._approve(name)
            return done

    def card(self, version: str) -> str:
        """The model card of a version, such as churn-3, in Markdown, with who approved it.

        Raises:
            ModelError: If there is no such version, or it was registered without a card.
        """
        with quiet():
            found = self._version(*named(version))
            try:
                text = (self.tracking.folder(found, "") / card.FILE).read_text(encoding="utf-8")
            except OSError:
                raise ModelError(f"{_called(found)} has no card: its file is missing. Restore it from a backup, or "
                                 "train again: churnkit train.") from None
            return card.approved(text, _called(found), self.decision(version),
                                 Succession(self.tracking, found.name).history())

    def _approve(self, name: str) -> None:
        """Writes who approved what into the cards of the target's versions, where it is not there yet."""
        for version in self.tracking.versions(name):
            try:
                text = self.card(f"{name}-{version.version}")
            except ModelError:
                continue  # its files are gone; who asks for the card is told
            if version.description != text[:LONGEST_TEXT]:
                self.tracking.client.log_text(str(version.run_id), text, card.FILE)
                self.tracking.client.update_model_version(name, str(version.version), text[:LONGEST_TEXT])

    def _registered(self, name: str, fingerprint: str) -> ModelVersion | None:
        """The version of just this run, if its files are whole: one whose files were changed is trained anew."""
        for version in self.tracking.versions(name):
            if version.tags.get(_FINGERPRINT) == fingerprint:
                try:
                    self._read(version)
                except ModelError:
                    continue
                return version
        return None

    def _add(self, trained: Trained, at: dt.datetime, tags: Mapping[str, str], text: str) -> ModelVersion:
        """A run with everything that the training found, and the version of it."""
        name = trained.model.target.name
        with (self.tracking.run(f"{name} {at:%Y-%m-%d}", {"target": name, "at": at.isoformat()}) as run_id,
              tempfile.TemporaryDirectory() as folder):
            self.tracking.log(run_id, artefact.params(trained), artefact.metrics(trained), {"skill": tags["skill"]})
            root = Path(folder)
            artefact.write(root, trained)
            (root / card.FILE).write_text(text, encoding="utf-8")
            files = artefact.texts(root / "parts", trained.to_parts())
            save_scorer(root / "model", files, trained.model)
            for file in files.values():
                file.unlink()
            (root / "parts").rmdir()
            held = {_FILES: artefact.hashes(root / "model"), _HOLDOUT: artefact.hashes(root / "holdout")}
            self.tracking.client.log_artifacts(run_id, folder)
            self.tracking.log_trials(run_id, name, trained.trials)
        return self.tracking.add_version(name, run_id, {
            **tags, "at": at.isoformat(), "log_loss_gain": repr(artefact.gain(trained)),
            **{key: json.dumps(found, sort_keys=True) for key, found in held.items()}})

    def _decide(self, version: ModelVersion, trained: Trained, terms: Terms | None) -> None:
        """Champion or challenger: the decision is kept beside the run and on the version."""
        tags = version.tags
        barred = ("" if _trusted(tags) else "it has no proven skill." if not tags.get(_SUSPECTS) else
                  f"it learnt from features that may know the outcome ({tags[_SUSPECTS]}).")
        one = Challenger(trained.holdout, moment(tags["at"]), trained.splits.test_at.to_pydatetime(), trained.data,
                         barred)
        champion = Succession(self.tracking, version.name).champion()
        found = decide(one, self._standing(champion) if champion else None, terms, trained.model.seed).to_dict()
        client = self.tracking.client
        client.log_text(str(version.run_id), json.dumps(found, indent=1, sort_keys=True) + "\n", "promotion.json")
        client.set_model_version_tag(version.name, str(version.version), _DECISION, json.dumps(found, sort_keys=True))

    def _follow(self, version: ModelVersion, now: dt.datetime) -> None:
        """Does what was decided, unless it was done or came to nothing since: a run that was killed is made up for."""
        line, number = Succession(self.tracking, version.name), str(version.version)
        found, champion = self.decision(f"{version.name}-{number}"), line.champion()
        if found is None or number in {one.new for one in line.history()}:
            return
        met = named(found.champion)[1] if found.champion else None
        if found.promoted and (champion is None or str(champion.version) in {met, number}):
            line.promote(number, ("the rule", found.why[:LONGEST]), now, RULE)
        elif not found.promoted and number == str(self.tracking.versions(version.name)[0].version):
            line.challenge(number)

    def _standing(self, version: ModelVersion) -> Standing:
        """The champion as a challenger meets it, with its holdout fit verified before it is parsed."""
        tags, broken, dark, holdout = version.tags, "", "", None
        try:
            self._read(version)
        except ModelError as error:
            broken = str(error)
        try:
            expected = json.loads(tags.get(_HOLDOUT, "{}"))
            files = artefact.verified(self.tracking.folder(version, "holdout"), expected, f"the holdout fit of "
                                                                                          f"{_called(version)}")
            holdout = Model.from_parts({file: text.decode() for file, text in files.items()})
        except ModelError as error:
            dark = str(error)
        return Standing(_called(version), moment(tags["at"]), moment(tags.get("test_at", tags["at"])), holdout, broken,
                        dark, _trusted(tags))

    def _read(self, version: ModelVersion) -> tuple[dict[str, str], Model]:
        """The model's texts in the artefact, after every file has the hash that the registry holds, and the model."""
        found = artefact.verified(self.tracking.folder(version, "model"), json.loads(version.tags.get(_FILES, "{}")),
                                  _called(version))
        parts = {file.removeprefix("artifacts/"): text.decode() for file, text in found.items()
                 if file.startswith("artifacts/")}
        model = Model.from_parts(parts)
        if _definition(model) != version.tags.get("definition"):
            raise ModelError(f"{_called(version)}: its feature list or target differs from what was registered. Train "
                             "it again: churnkit train.")
        model.version = _called(version)
        return parts, model

    def _may(self, version: ModelVersion, *, anyway: bool) -> None:
        """Refuses a version that should not score."""
        called, suspects = _called(version), version.tags.get(_SUSPECTS)
        self._read(version)
        if suspects:
            raise ModelError(f"{called} learnt from features that may know the outcome ({suspects}). See churnkit "
                             f"audit time; what is right to be that good, let pass by name in [features] of "
                             f"churnkit.toml: allow = {json.dumps(suspects.split(', '))}, and train again.")
        if version.tags.get("skill") != "proven" and not anyway:
            raise ModelError(f"{called} has no proven skill: as champion it scores, but opens no task. Promote a "
                             "version whose skill is proven (churnkit models), or insist: --anyway")

    def _version(self, name: str, number: str) -> ModelVersion:
        for one in self.tracking.versions(name):
            if str(one.version) == number:
                return one
        known = ", ".join(f"{name}-{one.version}" for one in reversed(self.tracking.versions(name))) or "none"
        raise ModelError(f"There is no {name}-{number} in the registry. Its versions are: {known}.")


def named(version: str) -> tuple[str, str]:
    """A version's target and number.

    Raises:
        ModelError: If it is no version's name.

    >>> named("churn-3 (no skill)")
    ('churn', '3')
    """
    name, _, number = version.partition(" ")[0].rpartition("-")
    if not name or not number.isdigit():
        raise ModelError(f"'{version}' names no version. Write it like churn-3; churnkit models lists them.")
    return name, number


def _identity(trained: Trained, suspects: Sequence[str]) -> dict[str, str]:
    """The tags that two registrations of one training run share."""
    return {
        "target": trained.model.target.name,
        "test_at": trained.splits.test_at.isoformat(),
        "skill": "proven" if trained.evaluation.skill else "no skill",
        "proven_beside": json.dumps(artefact.proven(trained)),
        "definition": _definition(trained.model),
        "data_hash": data_hash(trained.data.X.assign(label=trained.data.y)),
        "model_hash": model_hash(trained.to_parts()),
        _SUSPECTS: ", ".join(suspects),
    }


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
