"""Features, training and scoring on an open workspace and read tables."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from churnkit.errors import FeatureError, ModelError
from churnkit.jobs.workspace import file_of, log, open_registry, open_store, save, targets
from churnkit.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from churnkit.learning.durations import Durations
    from churnkit.learning.registry import Champion
    from churnkit.learning.targets import Target
    from churnkit.learning.training import Trained
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


def _history(tables: Tables, store: Store, target: Target, at: dt.datetime,
             days: Sequence[float]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Prediction points of the past at which this target's label is mature, with their features in the store; and
    those that can be followed for the shortest horizon of `days` at least.
    """
    from churnkit.learning.history import training_cutoffs
    from churnkit.signals.points import points_at

    cutoffs = training_cutoffs(target, tables, at)
    if not cutoffs:
        raise ModelError(f"{target.name}: no cutoff before {at:%Y-%m-%d} has a label yet, because features need 28 "
                         f"days of signals and a label needs {target.window.days} days to mature. Wait, give a longer "
                         f"history, or shorten the windows of [targets.{target.name}].")
    shortest = min(target.horizon, *(dt.timedelta(days=day) for day in days)) if days else target.horizon
    followed = training_cutoffs(replace(target, horizon=shortest), tables, at)
    ensure(tables, store, target.entity, followed)
    points = points_at(tables, target.entity, followed)
    return points[points["cutoff"] <= cutoffs[-1]].reset_index(drop=True), points


def train_all(settings: Settings, tables: Tables, at: dt.datetime,
              names: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Trains and registers the named targets (all without names); one that cannot be trained stops no other."""
    rows, notes = [], []
    for target in targets(settings, tables):
        if names and target.name not in names:
            continue
        try:
            row, said = _train(settings, tables, target, at)
        except (ModelError, FeatureError) as error:
            why = str(error).removeprefix(f"{target.name}: ")
            row, said = {"target": target.name, "skill": "no skill"}, [f"{target.name}: not trained. {why}"]
        rows.append(row)
        notes.extend(said)
    return rows, notes


def _train(settings: Settings, tables: Tables, target: Target, at: dt.datetime) -> tuple[dict[str, Any], list[str]]:
    from churnkit.learning.durations import durations, edges, horizons
    from churnkit.learning.labels import label
    from churnkit.learning.training import train as fit
    from churnkit.learning.training import training_set

    store = open_store(settings)
    days = horizons(target, settings)
    points, followed = _history(tables, store, target, at, days)
    features = store.read(followed, target)
    dataset = training_set(target, features, label(target, tables, points))
    log.info("training %s on %d labelled rows", target.name, len(dataset.y))
    trained = fit(target, dataset, seed=settings.training.seed, test_share=settings.training.test_share)
    notes = [dataset.says(), trained.evaluation.says()]
    if days:
        log.info("training the risk curve of %s over %s days", target.name, ", ".join(f"{day:g}" for day in days))
        spans = durations(target, tables, followed, edges(days))
        inputs = features.set_index("row_id").loc[spans.keys["row_id"], list(dataset.X)].reset_index(drop=True)
        trained, said = _beside(trained, spans, inputs, days, settings.training.seed)
        notes += said
    version = open_registry(settings).register(trained, at=at)
    more = {"curve": trained.curve.evaluation.summary() if trained.curve else None,
            **{one.what: one.summary() for one in trained.beside}}
    return {"target": target.name, "version": version, **trained.evaluation.summary(), **more}, notes


def _beside(trained: Trained, spans: Durations, inputs: pd.DataFrame, days: Sequence[float],
            seed: int) -> tuple[Trained, list[str]]:
    """The training with its curve, and for assets with components and remaining life; what cannot be is said."""
    from churnkit.learning.curves import train_curve
    from churnkit.learning.upkeep import train_components, train_life

    notes, test_at, name = [], trained.splits.test_at.to_pydatetime(), spans.target.name
    try:
        found = train_curve(spans, inputs, days, test_at=test_at, seed=seed)
    except ModelError as error:
        return trained, [f"{name} curve: not trained. {str(error).removeprefix(f'{name}: ')}"]
    trained = replace(trained, curve=found)
    notes.append(found.evaluation.says())
    more = {"components": train_components, "life": train_life} if spans.target.entity == "asset" else {}
    for what, fit in more.items():
        try:
            one = fit(spans, inputs, test_at=test_at, seed=seed)
        except ModelError as error:
            notes.append(f"{name} {what}: not trained. {str(error).removeprefix(f'{name}: ')}")
        else:
            trained = replace(trained, beside=(*trained.beside, one))
            notes.append(one.says())
    return trained, notes


def score_all(settings: Settings, tables: Tables, at: dt.datetime) -> tuple[list[dict[str, Any]], list[str]]:
    """Everybody's scores and reasons at `at` by each target's champion, into the files of that day."""
    from churnkit.learning.value import stakes
    from churnkit.signals.points import prediction_points

    store, registry = open_store(settings), open_registry(settings)
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
        scores = stakes(champion.model.predict(frame), frame, tables).assign(skill=champion.skill)
        save(settings, "scores", target.name, at, scores)
        save(settings, "reasons", target.name, at, champion.model.explain(frame, top=6, catalog=store.catalog))
        notes += _score_beside(settings, champion, frame, at)
        high = int((scores["band"] == "high").sum())
        rows.append({"target": target.name, "version": champion.version, "scored": len(scores), "high": high,
                     "skill": "proven" if champion.skill else "no skill"})
    return rows, notes


def _score_beside(settings: Settings, champion: Champion, frame: pd.DataFrame, at: dt.datetime) -> list[str]:
    """Curves, components and lives of everybody that was scored, into the files of that day; says which lack skill."""
    from churnkit.learning.upkeep import lives

    name, found = champion.model.target.name, {}
    if champion.curve is not None:
        found["curve"] = champion.curve.predict(frame)
        if champion.components is not None:
            found["components"] = champion.components.predict(frame, found["curve"])
    if champion.life is not None:
        found["life"] = lives(champion.life, frame)
    notes = []
    for what, (folder, called) in _BESIDE.items():
        if what not in found:
            file_of(settings, folder, name, at).unlink(missing_ok=True)  # of a version that had one
            continue
        skill = what in champion.proven
        save(settings, folder, name, at, found[what].assign(model_version=champion.version, skill=skill))
        if not skill:
            notes.append(f"{name}: the {called} of {champion.version} has no proven skill.")
    return notes


_BESIDE = {"curve": ("curves", "risk curve"), "components": ("components", "probability by component"),
           "life": ("lives", "remaining life")}
"""What stands beside a model: its folder of the day's files, and what it is called."""
