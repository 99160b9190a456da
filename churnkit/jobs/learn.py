"""Features, training and scoring on an open workspace and read tables."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from churnkit.errors import FeatureError, ModelError
from churnkit.jobs.act import policy_of
from churnkit.jobs.report import HELD_BACK
from churnkit.jobs.workspace import file_of, load_before, log, open_registry, open_store, save, targets
from churnkit.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from churnkit.learning.backtest import Backtest
    from churnkit.learning.splits import TrainingSet
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


class Training(NamedTuple):
    """What a training of several targets gives: a row each, sentences, and HELD_BACK where a version was held back."""

    rows: list[dict[str, Any]]
    notes: list[str]
    code: int


NONE = Training([], [], 0)

def train_all(settings: Settings, tables: Tables, at: dt.datetime, names: Sequence[str]) -> Training:
    """Trains and registers the named targets (all without names); one that cannot be trained stops no other.

    A version that learnt from a feature which alone predicts suspiciously well is held back: the champion goes on.
    """
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    code = 0
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
        code = HELD_BACK if row.get("suspects") else code
    return Training(rows, notes, code)


def _train(settings: Settings, tables: Tables, target: Target, at: dt.datetime) -> tuple[dict[str, Any], list[str]]:
    from churnkit.learning.durations import horizons
    from churnkit.learning.labels import label
    from churnkit.learning.training import train as fit
    from churnkit.learning.training import training_set

    store, days = open_store(settings), horizons(target, settings)
    points, followed = _history(tables, store, target, at, days)
    features = store.read(followed, target)
    dataset = training_set(target, features, label(target, tables, points))
    found = suspected(dataset)
    suspects = [name for name in found["feature"] if name not in settings.features.allow]
    log.info("training %s on %d labelled rows", target.name, len(dataset.y))
    ask = settings.training
    trained = fit(target, dataset, seed=ask.seed, test_share=ask.test_share, trials=ask.tune,
                  storage=f"sqlite:///{(settings.state / 'tuning.db').resolve()}")
    shut = ", ".join(_protected(store, target))
    said = [f"{target.name}: protected, so neither inputs nor reasons: {shut}"] if shut else []
    notes = [dataset.says(), *said, trained.evaluation.says(), *_tuned(trained, ask.tune)]
    if days:
        trained, more = _with_curve(settings, tables, trained, features, followed, days)
        notes.append(more)
    version = open_registry(settings).register(trained, at=at, suspects=suspects)
    row = {"target": target.name, "version": version, **trained.evaluation.summary(),
           "curve": trained.curve.evaluation.summary() if trained.curve else None}
    if suspects:
        row["suspects"] = suspects
        notes += [f"{target.name}: '{one.feature}': {one.says}." for one in found.itertuples()
                  if one.feature in suspects]
        notes.append(f"{target.name}: {version} is held back, because such features may know the outcome; the champion "
                     "goes on scoring. See churnkit audit time. What is right to be that good, let pass by name in "
                     f"[features] of churnkit.toml: allow = {json.dumps(suspects)}")
    return row, notes


def _with_curve(settings: Settings, tables: Tables, trained: Trained, features: pd.DataFrame,
                followed: pd.DataFrame, days: Sequence[float]) -> tuple[Trained, str]:
    """The training run with a risk curve on the same features and split, and what is said of it."""
    from churnkit.learning.curves import train_curve
    from churnkit.learning.durations import durations, edges

    target = trained.model.target
    log.info("training the risk curve of %s over %s days", target.name, ", ".join(f"{day:g}" for day in days))
    spans = durations(target, tables, followed, edges(days))
    inputs = features.set_index("row_id").loc[spans.keys["row_id"], list(trained.data.X)].reset_index(drop=True)
    try:
        found = train_curve(spans, inputs, days, test_at=trained.splits.test_at.to_pydatetime(),
                            seed=settings.training.seed)
    except ModelError as error:
        return trained, f"{target.name} curve: not trained. {str(error).removeprefix(f'{target.name}: ')}"
    return replace(trained, curve=found), found.evaluation.says()


def suspected(rows: TrainingSet) -> pd.DataFrame:
    """The inputs that alone predict suspiciously well, as `churnkit audit features` finds them."""
    from churnkit.audit.features import foreseeing

    return foreseeing(rows.X.assign(entity_id=rows.keys["entity_id"]), rows.y)


def _tuned(trained: Trained, trials: int) -> list[str]:
    """What the search for parameters came to, where one was asked for."""
    name, tried = trained.model.target.name, trained.trials
    if not trials:
        return []
    if not tried:
        return [f"{name}: not tuned, because no fold in time has both outcomes on both sides. The default stands."]
    best = min(one.losses[-1] for one in tried if not one.pruned)
    told = (f"one beat the default ({best:.5f} against {tried[0].losses[-1]:.5f} log loss at the right level)"
            if trained.model.params else "none beat the default")
    return [f"{name}: {len(tried)} trials before the test period, {sum(one.pruned for one in tried)} pruned; {told}."]


def _dataset(settings: Settings, tables: Tables, target: Target, at: dt.datetime) -> TrainingSet:
    """All rows of the past with features and a mature label."""
    from churnkit.learning.labels import label
    from churnkit.learning.training import training_set

    store = open_store(settings)
    points, _ = _history(tables, store, target, at, ())
    return training_set(target, store.read(points, target), label(target, tables, points))


def backtest_all(settings: Settings, tables: Tables, at: dt.datetime, names: Sequence[str], folds: int, *,
                 by_entity: bool) -> tuple[list[Backtest], list[str]]:
    """A backtest of each named target (all without names); one that cannot be tested stops no other."""
    found, notes = [], []
    for target in targets(settings, tables):
        if names and target.name not in names:
            continue
        try:
            one, said = _backtest(settings, tables, target, at, folds, by_entity=by_entity)
        except (ModelError, FeatureError) as error:
            notes.append(f"{target.name}: no backtest. {str(error).removeprefix(f'{target.name}: ')}")
            continue
        found.append(one)
        notes += [*said, *one.notes, one.says()]
    return found, notes


def _backtest(settings: Settings, tables: Tables, target: Target, at: dt.datetime, folds: int, *,
              by_entity: bool) -> tuple[Backtest, list[str]]:
    from churnkit.learning.backtest import backtest
    from churnkit.learning.model import Model
    from churnkit.learning.profit import terms
    from churnkit.learning.value import stakes

    seed = settings.training.seed
    rows = _dataset(settings, tables, target, at)
    points = rows.keys[["entity_id", "account_id", "cutoff"]].assign(target=target.name)
    stake = float(stakes(points, rows.X.assign(entity_id=points["entity_id"]), tables)["value"].mean())
    notes = []
    try:
        pay = terms(target, settings, stake)
    except ModelError as error:
        pay, notes = None, [f"{target.name}: no figures of profit. {error}"]
    champion = open_registry(settings).champion(target.name)
    made = champion.model.refit if champion is not None and {*champion.model.features} <= {*rows.X} else None
    if champion is not None:
        notes.append(f"{target.name}: {champion.version} is the champion; it was made anew for each fold, because it "
                     "has seen the outcomes." if made else
                     f"{target.name}: {champion.version} is not compared, because its inputs are no longer computed. "
                     "Train again: churnkit train.")
    log.info("backtesting %s on %d labelled rows", target.name, len(rows))
    recipe = Model(target, seed=seed)
    return backtest(rows, folds=folds, by_entity=by_entity, terms=pay, champion=made, recipe=recipe.refit,
                    seed=seed), notes


def _protected(store: Store, target: Target) -> list[str]:
    """The features among the target's groups that protection keeps from its model."""
    from churnkit.learning.targets import TARGETS
    from churnkit.signals.catalog import Catalog
    from churnkit.signals.features import groups

    known = groups(store.catalog or Catalog())
    seen = {name for group in target.groups for name in known[group].names}
    return sorted(seen & set(target.never) - set(TARGETS[target.name].never))


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
        scores = stakes(champion.model.predict(frame), frame, tables).assign(skill=champion.skill)
        save(settings, "scores", target.name, at, scores)
        told = frame
        if policy is not None:  # a model without proven skill opens no task, whatever it says
            can = (scores["probability"] >= policy.opens_at(target.name)) & champion.skill
            told = frame[can.to_numpy()].reset_index(drop=True)
        why = champion.model.explain(told, top=6, catalog=store.catalog)
        why = _with_changes(settings, tables, store, target, why, told)
        save(settings, "reasons", target.name, at, why)
        if champion.curve is None:
            file_of(settings, "curves", target.name, at).unlink(missing_ok=True)
        else:
            save(settings, "curves", target.name, at, champion.curve.predict(frame).assign(
                model_version=champion.version, skill=champion.curve_skill))
            if not champion.curve_skill:
                notes.append(f"{target.name}: the risk curve of {champion.version} has no proven skill.")
        high = int((scores["band"] == "high").sum())
        rows.append({"target": target.name, "version": champion.version, "scored": len(scores), "high": high,
                     "explained": len(told), "skill": "proven" if champion.skill else "no skill"})
    return rows, notes


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
