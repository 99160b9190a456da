"""Features, training and scoring on an open workspace and read tables."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from churnkit.cutoffs import every
from churnkit.errors import FeatureError, ModelError
from churnkit.jobs.workspace import log, open_registry, open_store, save, targets
from churnkit.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from churnkit.learning.targets import Target
    from churnkit.signals.store import Store
    from churnkit.signals.tables import Tables

_ANCHOR = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)  # a Monday; all training cutoffs lie on one grid


def grid(step: dt.timedelta, start: dt.datetime, end: dt.datetime) -> list[dt.datetime]:
    """The cutoffs of one fixed grid between two moments, so that every training uses the same ones."""
    first = start + (-(start - _ANCHOR)) % step
    return every(first, end, step) if first <= end else []


def ensure(tables: Tables, store: Store, entity: str, cutoffs: list[dt.datetime], *,
            restate: bool = False) -> dict[str, Any]:
    """Feature files at these cutoffs: what stands already is kept, because a late row never changes a past feature."""
    from churnkit.signals.catalog import discover
    from churnkit.signals.compute import compute_features
    from churnkit.signals.points import points_at

    catalog = store.catalog or discover(tables)
    there = set() if restate else store.cutoffs(entity)
    missing = [cutoff for cutoff in cutoffs if cutoff not in there]
    points = points_at(tables, entity, missing)
    if len(points):
        log.info("computing %s features at %d cutoffs (%d rows)", entity, len(missing), len(points))
        store.write(compute_features(tables, points, catalog), catalog)
    return {"entity": entity, "cutoffs": len(cutoffs), "computed": len(missing), "rows": len(points)}


def _history(tables: Tables, store: Store, target: Target, at: dt.datetime) -> pd.DataFrame:
    """Prediction points of the past at which this target's label is mature, with their features in the store."""
    from churnkit.signals.points import points_at

    training = tables.settings.training
    step = training.every if target.entity == "account" else training.asset_every
    start = training.start or _first_signal(tables, target.entity) + dt.timedelta(days=28)
    cutoffs = [cutoff for cutoff in grid(step, start, at) if cutoff + target.window <= at]
    if not cutoffs:
        raise ModelError(f"{target.name}: no cutoff between {start:%Y-%m-%d} and {at:%Y-%m-%d} has a label yet, "
                         f"because a label needs {target.window.days} days to mature. Wait, or shorten "
                         f"[targets.{target.name}].")
    ensure(tables, store, target.entity, cutoffs)
    return points_at(tables, target.entity, cutoffs)


def _first_signal(tables: Tables, entity: str) -> dt.datetime:
    """The first time in the tables that tell of this entity: before it there is nothing to learn from.

    Raises:
        ModelError: If none of them holds a row.
    """
    sources = {"account": {"usage_events": "occurred_at", "support_tickets": "opened_at", "subscriptions": "started_at"},
               "asset": {"telemetry": "occurred_at", "asset_events": "occurred_at"}}[entity]
    for table, column in sources.items():  # the first that is given: a later one may reach back for decades
        first = tables.expr(table)[column].min().execute() if tables.has(table) else None
        if first is not None and first == first:  # noqa: PLR0124 - NaT is not itself
            found: dt.datetime = first.to_pydatetime()
            return found
    raise ModelError(f"No table tells of any {entity} yet. Give at least one of: {', '.join(sources)}.")


def train_all(settings: Settings, tables: Tables, at: dt.datetime,
               names: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Trains and registers the named targets (all without names); one that cannot be trained does not stop the others."""
    rows, notes = [], []
    for target in targets(settings, tables):
        if names and target.name not in names:
            continue
        try:
            row, said = _train(settings, tables, target, at)
        except (ModelError, FeatureError) as error:
            row, said = {"target": target.name, "skill": "no skill"}, [f"{target.name}: not trained. {error}"]
        rows.append(row)
        notes.extend(said)
    return rows, notes


def _train(settings: Settings, tables: Tables, target: Target, at: dt.datetime) -> tuple[dict[str, Any], list[str]]:
    from churnkit.learning.labels import label
    from churnkit.learning.training import train as fit
    from churnkit.learning.training import training_set

    store = open_store(settings)
    points = _history(tables, store, target, at)
    dataset = training_set(target, store.read(points, target), label(target, tables, points))
    log.info("training %s on %d labelled rows", target.name, len(dataset.y))
    trained = fit(target, dataset, seed=settings.training.seed, test_share=settings.training.test_share)
    version = open_registry(settings).register(trained, at=at)
    row = {"target": target.name, "version": version, **trained.evaluation.summary()}
    return row, [dataset.says(), trained.evaluation.says()]


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
        points = prediction_points(tables, target.entity, at=at)
        frame = store.read(points, target)
        log.info("scoring %d rows for %s with %s", len(frame), target.name, champion.version)
        scores = stakes(champion.model.predict(frame), frame, tables).assign(skill=champion.skill)
        save(settings, "scores", target.name, at, scores)
        save(settings, "reasons", target.name, at, champion.model.explain(frame, top=6, catalog=store.catalog))
        rows.append({"target": target.name, "version": champion.version, "scored": len(scores),
                     "high": int((scores["band"] == "high").sum()), "skill": "proven" if champion.skill else "no skill"})
    return rows, notes
