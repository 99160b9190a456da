"""Features and scoring on an open workspace and read tables; training is in fitting.py."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from churnkit.errors import FeatureError
from churnkit.jobs.act import policy_of
from churnkit.jobs.whom import told as uplifts
from churnkit.jobs.workspace import file_of, load_before, log, open_registry, open_store, save, targets
from churnkit.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from churnkit.learning.registry import Champion
    from churnkit.learning.targets import Target
    from churnkit.signals.catalog import Catalog
    from churnkit.signals.store import Store
    from churnkit.signals.tables import Tables


def ensure(tables: Tables, store: Store, entity: str, cutoffs: list[dt.datetime], *,
            restated: dt.datetime | None = None) -> dict[str, Any]:
    """Features at these cutoffs: what stands already is kept, because a late row never changes a past feature.

    An entity that only came to light since, in an export without `recorded_at`, is added at the cutoffs it lacks. With
    `restated`, the moment of the run, everything is computed anew, and what differs is marked with it.
    """
    from churnkit.signals.catalog import discover
    from churnkit.signals.points import points_at

    catalog = store.catalog or discover(tables)
    counts: dict[str, Any] = {"entity": entity, "cutoffs": len(cutoffs), "computed": 0, "rows": 0}
    chunks = _chunks(tables, entity, sorted(set(cutoffs)))
    for number, some in enumerate(chunks, start=1):
        points = points_at(tables, entity, some)
        points = points if restated else store.lacking(points)
        if len(points):
            part = f", part {number} of {len(chunks)}" if len(chunks) > 1 else ""
            computed = points["cutoff"].nunique()
            log.info("computing %s features at %d cutoffs (%d rows)%s", entity, computed, len(points), part)
            for key, value in _computed(tables, store, points, catalog, restated).items():
                counts[key] = counts.get(key, 0) + value
    return counts


AT_ONCE = 500_000
"""Points that are computed and written together; a longer backfill goes part by part, and resumes after the last."""


def _chunks(tables: Tables, entity: str, cutoffs: list[dt.datetime]) -> list[list[dt.datetime]]:
    """Neighbouring cutoffs, as many together as memory should hold."""
    number = tables.raw.execute(f"SELECT count(DISTINCT {entity}_id) FROM {entity}s").fetchall()[0][0]  # noqa: S608
    many = max(AT_ONCE // max(int(number), 1), 1)
    return [cutoffs[start:start + many] for start in range(0, len(cutoffs), many)]


def _computed(tables: Tables, store: Store, points: pd.DataFrame, catalog: Catalog,
              restated: dt.datetime | None) -> dict[str, int]:
    """Computes and writes features; how many cutoffs and rows, and what a restatement changed."""
    from churnkit.signals.compute import compute_features

    found = compute_features(tables, points, catalog)
    counts = {"computed": int(points["cutoff"].nunique()), "rows": len(points)}
    if not restated:
        store.write(found, catalog, keep=True)
        return counts
    anew = store.restate(found, restated, catalog)
    log.info("restated %d rows of %s features: %d values differ from what stood there", anew.rows,
             points["entity"].iloc[0], anew.changed)
    return {**counts, "restated": anew.rows, "values_changed": anew.changed}


def late(tables: Tables, at: dt.datetime) -> list[str]:
    """What came late since the run before, said in the log and in sentences for the report."""
    from churnkit.watch import late as came_late

    said = came_late(tables, at)
    for sentence in said:
        log.warning(sentence)
    return said


def restatements(settings: Settings, entity_id: str, at: dt.datetime) -> list[tuple[dt.datetime, str]]:
    """When which groups' features of an entity at a cutoff were restated, read off the feature files."""
    import pandas as pd

    from churnkit.signals.partitions import restatements as marks

    found = marks(settings.path(settings.store) / "data", entity_id, pd.Timestamp(at))
    return [(when.to_pydatetime(), ", ".join(sorted(name for name in found if found[name] == when)))
            for when in sorted(set(found.values()))]


def score_all(settings: Settings, tables: Tables, at: dt.datetime, *,
              explain_all: bool = False) -> tuple[list[dict[str, Any]], list[str]]:
    """Everybody's scores at `at` by each target's champion, and why of those who can become tasks, into the files of
    that day; with `explain_all` everybody's reasons.
    """
    from churnkit.learning.value import stakes
    from churnkit.signals.points import prediction_points

    store, registry = open_store(settings), open_registry(settings)
    policy = None if explain_all else policy_of(settings)
    rows, notes = [], []
    for target in targets(settings, tables):
        champion = registry.champion(target.name)
        if champion is None:
            notes.append(f"{target.name}: no model yet, so no scores. Train one with: churnkit train")
            continue
        if at < champion.at:
            notes.append(f"{target.name}: {champion.version} learnt from data up to {champion.at:%Y-%m-%d}, so it "
                         f"knows what came after {at:%Y-%m-%d}. Its scores of that day are no fair look back.")
        points = prediction_points(tables, target.entity, at=at)
        frame = store.read(points, target)
        log.info("scoring %d rows for %s with %s", len(frame), target.name, champion.version)
        gains = champion.gains.predict(frame) if champion.gains and "gains" in champion.proven else None
        scores = stakes(champion.model.predict(frame), frame, tables, gains).assign(skill=champion.skill)
        scores, said = uplifts(settings, target.name, scores, frame, at)
        notes += said
        save(settings, "scores", target.name, at, scores)
        told = frame
        if policy is not None:  # a model without proven skill opens no task, whatever it says
            can = (scores["probability"] >= policy.opens_at(target.name)) & champion.skill
            told = frame[can.to_numpy()].reset_index(drop=True)
        why = champion.model.explain(told, top=6, catalog=store.catalog)
        why = _with_changes(settings, tables, store, target, why, told)
        save(settings, "reasons", target.name, at, why)
        notes += [*_level(settings, tables, champion, scores, at),
                  *_score_beside(settings, champion, frame, scores, at)]
        high = int((scores["band"] == "high").sum())
        rows.append({"target": target.name, "version": champion.version, "scored": len(scores), "high": high,
                     "explained": len(told), "skill": "proven" if champion.skill else "no skill"})
    return rows, notes


def _level(settings: Settings, tables: Tables, champion: Champion, scores: pd.DataFrame, at: dt.datetime) -> list[str]:
    """Whether the day's scores hold their level, and those that the same version gave on the newest day whose outcomes
    are known.
    """
    from churnkit.learning.labels import label
    from churnkit.learning.level import missed, moved
    from churnkit.signals.points import prediction_points

    target = champion.model.target
    said = [moved(champion.model, scores["probability"].to_numpy(dtype=float))]
    try:
        before = load_before(settings, "scores", target.name, at - target.window + dt.timedelta(seconds=1))
    except FeatureError as error:
        log.warning("what came of earlier scores for %s is not told: %s", target.name, error)
        before = None
    if before is not None and champion.version in set(before[1]["model_version"]):
        points = prediction_points(tables, target.entity, at=before[0].to_pydatetime())
        said.append(missed(before[1], label(target, tables, points)))
    return [one for one in said if one]


def _with_changes(settings: Settings, tables: Tables, store: Store, target: Target,
                  why: pd.DataFrame, features: pd.DataFrame) -> pd.DataFrame:
    """The reasons of these features with what changed since the run before, where there was one."""
    from churnkit.learning.changes import Earlier, since
    from churnkit.signals.points import prediction_points

    if why.empty:
        return why
    try:
        before = load_before(settings, "reasons", target.name, features["cutoff"].iloc[0])
        if before is None:
            return why
        points = prediction_points(tables, target.entity, at=before[0])
        points = points[points["entity_id"].isin(features["entity_id"])].reset_index(drop=True)
        then = store.read(points, target) if len(points) else points
    except FeatureError as error:  # what was then may be gone: the reasons of now stand without it
        log.warning("what changed in the reasons for %s is not told: %s", target.name, error)
        return why
    return since(why, features, Earlier(*before, then), store.catalog)


def _score_beside(settings: Settings, champion: Champion, frame: pd.DataFrame, scores: pd.DataFrame,
                  at: dt.datetime) -> list[str]:
    """What stands beside the scores of everybody, into the files of that day; says what lacks skill."""
    from churnkit.learning.offers import offers
    from churnkit.learning.upkeep import components, lives

    name, found = champion.model.target.name, {}
    if champion.curve is not None:
        found["curves"] = champion.curve.predict(frame).assign(skill="curve" in champion.proven)
        if champion.components is not None:
            parts = components(champion.components, frame, found["curves"])
            found["components"] = parts.assign(skill="components" in champion.proven)
    if champion.life is not None:
        found["lives"] = lives(champion.life, frame).assign(skill="life" in champion.proven)
    if name == "expansion":
        worth = settings.value.margin * settings.value.months
        found["offers"] = offers(scores, frame, worth, champion.kinds, champion.proven)
    for folder in _BESIDE:
        if folder in found:
            save(settings, folder, name, at, found[folder].assign(model_version=champion.version))
        else:
            file_of(settings, folder, name, at).unlink(missing_ok=True)  # of a version that had one
    told = {what: said for what, said in _DOUBTS.items() if getattr(champion, what) is not None}
    return [f"{name}: {said.format(version=champion.version)}" for what, said in told.items()
            if what not in champion.proven]


_BESIDE = ("curves", "components", "lives", "offers")
"""Folders of the day's files that stand beside the scores."""
_DOUBTS = {"curve": "the risk curve of {version} has no proven skill.",
           "components": "the probability by component of {version} has no proven skill.",
           "life": "the remaining life of {version} has no proven skill.",
           "gains": "how much {version} foresees has no proven skill; the usual share of MRR stands in.",
           "kinds": "the kinds of {version} have no proven skill; their usual shares stand in."}
"""What is said of what stands beside a model where its skill is not proven."""
