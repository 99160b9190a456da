"""Uplift models of a workspace: learnt from what came of treated and control accounts, kept as text, told with scores.

What they learn from are first triggers: the first task or ghost of each account that a model's play opened. What comes
after it has been touched by the treatment. Who took a slot that a control account passed on, who is in the reserve, and
plays that are always done are left out.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from churnkit.errors import FeatureError, ModelError, OutreachError
from churnkit.jobs.report import Report
from churnkit.jobs.workspace import log, open_outbox, open_store, read, targets, workspace
from churnkit.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from churnkit.learning.targets import Target
    from churnkit.learning.uplift import Trial, UpliftModel
    from churnkit.outreach.task import Task
    from churnkit.signals.tables import Tables

FORMAT = 1
SCORE = "model_probability"
"""An input beside the features: the probability at the trigger."""
TRIGGERED = ("entity_id", "account_id", "cutoff", "top", "treated", "propensity", SCORE)


@dataclass(frozen=True, eq=False)
class Kept:
    """An uplift model as it is kept: learnt from what was known `at`, from accounts whose probability was `least` or
    more; of others it knows nothing.
    """

    model: UpliftModel
    at: dt.datetime
    least: float


def uplift(folder: Path, at: dt.datetime, names: Sequence[str] = ()) -> Report:
    """Learns whom a contact helps, for the named targets (all without names), and says whether a ranking by it is
    proven; where there is too little to learn from it says how much is missing.
    """
    with workspace(folder) as settings:
        tables = read(settings, at)
        found = [_learn(settings, tables, target, at) for target in targets(settings, tables)
                 if not names or target.name in names]
    rows = [row for row, _ in found]
    shown = [{name: value for name, value in row.items() if not isinstance(value, dict | list | tuple)} for row in rows]
    return Report("uplift", rows=shown, notes=[said for _, said in found],
                  data={"at": at.isoformat(), "models": rows})


def told(settings: Settings, target: str, scores: pd.DataFrame, features: pd.DataFrame,
         at: dt.datetime) -> tuple[pd.DataFrame, list[str]]:
    """The scores with the columns `uplift` (what a contact adds to the probability of the good outcome; not a number
    where that is not known) and `uplift_skill` (whether a ranking by it is proven), and what is to be said of it.

    Args:
        settings: The workspace's.
        target: Its name.
        scores: One row per entity, with `probability`.
        features: Their features, in the same order.
        at: The moment of scoring; a model that learnt from later outcomes tells nothing.
    """
    import numpy as np

    unknown = scores.assign(uplift=np.nan, uplift_skill=False)
    try:
        one = kept(settings, target)
        if one is None:
            return unknown, []
        if at < one.at:
            said = (f"{target}: the uplift model learnt from outcomes up to {one.at:%Y-%m-%d}, so it knows what came "
                    f"after {at:%Y-%m-%d} and is not asked.")
            return unknown, [said]
        values = one.model.predict(features.assign(**{SCORE: scores["probability"].to_numpy(dtype=float)}))
    except ModelError as error:
        return unknown, [f"{target}: no uplift is told, so the probability ranks. {error}"]
    known = (scores["probability"] >= one.least).to_numpy(dtype=bool)
    found = scores.assign(uplift=np.where(known, values, np.nan), uplift_skill=known & one.model.skill)
    if not one.model.skill:
        return found, [f"{target}: the probability ranks, {one.model.verdict.why}"]
    harmed = int((found["uplift"] < 0).sum())
    said = (f"{target}: uplift ranks the {int(known.sum())} whose probability is {one.least:.0%} or more; a contact is "
            f"expected to harm {harmed} of them.")
    return found, [said]


def keep(settings: Settings, target: str, one: Kept) -> Path:
    """Writes a model as one file of text, whole or not at all; the one before is replaced."""
    from churnkit.learning.artefact import model_hash

    path, parts = _file(settings, target), one.model.to_parts()
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {"format": FORMAT, "at": one.at.isoformat(), "least": one.least, "hash": model_hash(parts), "parts": parts}
    half = path.with_suffix(".part")
    half.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    half.replace(path)
    return path


def kept(settings: Settings, target: str) -> Kept | None:
    """The target's uplift model; None where none was learnt.

    Raises:
        ModelError: If its file was changed, cannot be read, or was written by a newer churnkit.
    """
    from churnkit.learning.artefact import model_hash
    from churnkit.learning.uplift import UpliftModel

    path = _file(settings, target)
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] > FORMAT:
            raise ModelError(f"'{path}' has format {data['format']}, newer than this churnkit knows ({FORMAT}). "
                             "Upgrade churnkit.")
        if model_hash(data["parts"]) != data["hash"]:
            raise ModelError(f"'{path}' was changed since it was written, so it is not trusted. Learn it again: "
                             "churnkit uplift.")
        return Kept(UpliftModel.from_parts(data["parts"]), dt.datetime.fromisoformat(data["at"]), float(data["least"]))
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"'{path}' cannot be read ({error!r}). Learn it again: churnkit uplift.") from None


def triggered(tasks: Iterable[Task], arms: Iterable[Mapping[str, Any]], tops: Mapping[str, str], target: str,
              always: Iterable[str] = ()) -> pd.DataFrame:
    """The first triggers of a target: one row per account, or per asset that its first task was about.

    Args:
        tasks: All tasks and ghosts.
        arms: Who was drawn for what (`Outbox.arms()`): its `propensity` is that of control.
        tops: Each account's topmost account; one that is not there stands for itself.
        target: Its name.
        always: Plays that are always done.

    Returns:
        TRIGGERED, by account and entity; `propensity` is that of treatment.
    """
    import pandas as pd

    drawn, never = {row["top"]: row for row in arms}, frozenset(always)
    rows = []
    for task in tasks:
        if task.target != target or task.opened_by != "model" or not task.scored_at or task.play in never:
            continue
        top = tops.get(task.account_id, task.account_id)
        arm = drawn.get(top, {})
        control = arm.get("propensity")
        drawn_so = task.propensity if control is None else 1 - control
        common = (task.account_id, pd.Timestamp(task.scored_at), top, not task.ghost,
                  float("nan") if drawn_so is None else drawn_so, task.score)
        left_out = task.passed_on or arm.get("arm") == "reserve"
        rows += [(entity, *common, left_out) for entity in task.asset_ids or (task.account_id,)]
    found = pd.DataFrame(rows, columns=[*TRIGGERED, "left_out"])
    found["cutoff"] = pd.to_datetime(found["cutoff"], utc=True).dt.as_unit("us")
    first = found[found["cutoff"] == found.groupby("account_id")["cutoff"].transform("min")]
    inside = first[~first["left_out"].astype(bool) & first["propensity"].between(0, 1, inclusive="neither")]
    return (inside.drop_duplicates(["entity_id", "cutoff"])[list(TRIGGERED)]
            .sort_values(["account_id", "entity_id"], kind="stable", ignore_index=True))


def joined(first: pd.DataFrame, features: pd.DataFrame, labels: pd.DataFrame, *, good: int) -> Trial:
    """First triggers with what was known of them then and what came of them; those without an outcome yet are left out.

    Args:
        first: TRIGGERED.
        features: Points and their features.
        labels: schemas.LABELS of the same points.
        good: The label that is hoped for: 1 for a sale, 0 for a loss or a failure.
    """
    import numpy as np

    from churnkit.learning.uplift import Trial
    from churnkit.schemas import POINTS

    both = first.merge(labels.loc[labels["label"].notna(), ["entity_id", "cutoff", "label"]],
                       on=["entity_id", "cutoff"]).merge(
        features.drop(columns=[name for name in POINTS if name in features and name not in {"entity_id", "cutoff"}]),
        on=["entity_id", "cutoff"])
    names = [name for name in both if name not in {*TRIGGERED, "label"}]
    return Trial(both[[*names, SCORE]], both["treated"].to_numpy(dtype=bool),
                 np.asarray(both["label"].astype(int) == good, dtype=np.float64),
                 both["propensity"].to_numpy(dtype=float),
                 both["top"].to_numpy(dtype=object))


def _learn(settings: Settings, tables: Tables, target: Target, at: dt.datetime) -> tuple[dict[str, Any], str]:
    """Fits, judges and keeps one target's model; its row, and what is to be said."""
    from churnkit.learning.uplift import UpliftModel

    try:
        trial = _trial(settings, tables, target, at)
        log.info("learning whom a contact helps for %s from %d first triggers", target.name, len(trial.y))
        model = UpliftModel.fit(target.name, trial, settings.training.seed)
    except (ModelError, FeatureError, OutreachError) as error:
        why = str(error).removeprefix(f"{target.name} uplift: ")
        return {"target": target.name, "skill": "no model"}, f"{target.name}: no uplift model. {why}"
    keep(settings, target.name, Kept(model, at, float(trial.X[SCORE].min())))
    verdict = model.verdict
    row = {"target": target.name, "skill": "proven" if model.skill else "no skill", **{
        name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(verdict).items()}}
    return row, f"{target.name}: {verdict.says()}"


def _trial(settings: Settings, tables: Tables, target: Target, at: dt.datetime) -> Trial:
    """What came of the first triggers, from the outbox, the feature store and the tables.

    An outcome counts from the trigger on, lead included: whom the treatment did not keep so long is no less lost.
    """
    import pandas as pd

    from churnkit.jobs.act import policy_of
    from churnkit.jobs.learn import ensure
    from churnkit.learning.labels import label
    from churnkit.outreach.book import Book
    from churnkit.signals.points import points_at

    outbox, store = open_outbox(settings), open_store(settings)
    always = [name for name, play in policy_of(settings).plays.items() if play.always]
    tops = {str(name): str(top) for name, top in Book(pd.Timestamp(at), tables).accounts()["top"].items()}
    first = triggered(outbox.tasks(), outbox.arms(), tops, target.name, always)
    whole = replace(target, lead=dt.timedelta(0), horizon=target.lead + target.horizon)
    first = first[first["cutoff"] + whole.window <= at]
    if first.empty:
        raise ModelError(f"{target.name} uplift: no task or ghost has an outcome yet; an outcome needs "
                         f"{whole.window.days} days. Keep a control group, go on planning, and run this again later.")
    cutoffs = sorted(one.to_pydatetime() for one in first["cutoff"].unique())
    ensure(tables, store, target.entity, cutoffs)
    points = points_at(tables, target.entity, cutoffs).merge(first[["entity_id", "cutoff"]], on=["entity_id", "cutoff"])
    features = store.read(points, target).drop(columns=list(target.never), errors="ignore")
    return joined(first, features, label(whole, tables, points), good=int(target.name == "expansion"))


def _file(settings: Settings, target: str) -> Path:
    return settings.state / "uplift" / target / "model.json"
