"""Training and backtests on an open workspace and read tables: history, labels, models and what stands beside them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from churnkit.errors import FeatureError, ModelError, did_you_mean
from churnkit.jobs.act import policy_of
from churnkit.jobs.learn import ensure
from churnkit.jobs.report import HELD_BACK
from churnkit.jobs.workspace import NOW, log, open_registry, open_store, targets
from churnkit.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from churnkit.learning.backtest import Backtest
    from churnkit.learning.beside import Beside
    from churnkit.learning.durations import Durations
    from churnkit.learning.profit import Terms
    from churnkit.learning.splits import TrainingSet
    from churnkit.learning.targets import Target
    from churnkit.learning.training import Trained
    from churnkit.signals.catalog import Catalog
    from churnkit.signals.store import Store
    from churnkit.signals.tables import Tables


def history(tables: Tables, store: Store, target: Target, at: dt.datetime,
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
    from churnkit.learning.attributes import attributes
    from churnkit.learning.card import About
    from churnkit.learning.durations import durations, edges, horizons
    from churnkit.learning.labels import label
    from churnkit.learning.training import train as fit
    from churnkit.learning.training import training_set
    from churnkit.learning.treated import taken

    store, days = open_store(settings), horizons(target, settings)
    points, followed = history(tables, store, target, at, days)
    features = store.read(followed, target)
    ask = settings.training
    groups = attributes(features, [*ask.segments, *ask.fairness], tables)
    dataset = training_set(target, features, label(target, tables, points), groups, ask.fairness)
    found = suspected(dataset)
    suspects = [name for name in found["feature"] if name not in settings.features.allow]
    dataset, outreach = taken(dataset, ask.treated, control=policy_of(settings).control.share, seed=ask.seed)
    log.info("training %s on %d labelled rows", target.name, len(dataset.y))
    trained = fit(target, dataset, seed=ask.seed, test_share=ask.test_share, trials=ask.tune,
                  storage=f"sqlite:///{(settings.state / 'tuning.db').resolve()}")
    shut = ", ".join(_protected(store, target))
    said = [f"{target.name}: protected, so neither inputs nor reasons: {shut}"] if shut else []
    said = [*filter(None, [outreach]), *said]
    notes = [dataset.says(), *said, *_absent(store, settings, groups), trained.evaluation.says(),
             *filter(None, [trained.evaluation.weak()]), *_tuned(trained, ask.tune)]
    if days:
        log.info("training the risk curve of %s over %s days", target.name, ", ".join(f"{day:g}" for day in days))
        spans = durations(target, tables, followed, edges(days))
        inputs = features.set_index("row_id").loc[spans.keys["row_id"], list(dataset.X)].reset_index(drop=True)
        trained, said = _curved(trained, spans, inputs, days, settings.training.seed, store.catalog)
        notes += said
    if target.name == "expansion":
        log.info("training how much and which kind of %s", target.name)
        trained, said = _offered(trained, settings)
        notes += said
    pay, said = _terms(settings, tables, dataset.since(trained.splits.test_at))
    registry = open_registry(settings)
    version = registry.register(trained, at=at, suspects=suspects, terms=pay, now=NOW.get(), about=About(
        at, {name: when for name, when in tables.covers_until.items() if tables.has(name)}, _protected(store, target),
        suspects, store.catalog))
    decided = registry.decision(version)
    notes += [*said, *([f"{target.name}: {decided.says(version)}"] if decided else [])]
    row = {"target": target.name, "version": version, **trained.evaluation.summary(),
           "promotion": decided.to_dict() if decided else None,
           "curve": trained.curve.evaluation.summary() if trained.curve else None,
           **{one.what: one.summary() for one in trained.beside}}
    if suspects:
        row["suspects"] = suspects
        notes += [f"{target.name}: '{one.feature}': {one.says}." for one in found.itertuples()
                  if one.feature in suspects]
        notes.append(f"{target.name}: {version} is held back, because such features may know the outcome; the champion "
                     "goes on scoring. See churnkit audit time. What is right to be that good, let pass by name in "
                     f"[features] of churnkit.toml: allow = {json.dumps(suspects)}")
    return row, notes


def _curved(trained: Trained, spans: Durations, inputs: pd.DataFrame, days: Sequence[float], seed: int,
            catalog: Catalog | None) -> tuple[Trained, list[str]]:
    """The training with its curve, and for assets with components and remaining life; what cannot be is said."""
    from churnkit.learning.curves import train_curve
    from churnkit.learning.upkeep import train_components, train_life
    from churnkit.signals.features import planned

    test_at, name = trained.splits.test_at.to_pydatetime(), spans.target.name
    try:
        ahead = planned(catalog) if catalog else ()
        found = train_curve(spans, inputs, days, test_at=test_at, seed=seed, planned=ahead)
    except ModelError as error:
        return trained, [f"{name} curve: not trained. {str(error).removeprefix(f'{name}: ')}"]
    trained = replace(trained, curve=found)
    more: dict[str, Callable[[], Beside]] = {
        "components": lambda: train_components(spans, inputs, test_at=test_at, seed=seed),
        "life": lambda: train_life(spans, inputs, test_at=test_at, seed=seed)}
    trained, notes = _beside(trained, more if spans.target.entity == "asset" else {})
    return trained, [found.evaluation.says(), *notes]


def _offered(trained: Trained, settings: Settings) -> tuple[Trained, list[str]]:
    """The training of an expansion with how much it brings and which kind it is; what cannot be is said."""
    from churnkit.learning.offers import train_gains, train_kinds

    rows, test_at, seed = trained.data, trained.splits.test_at.to_pydatetime(), settings.training.seed
    prior = settings.value.expansion_share
    return _beside(trained, {"gains": lambda: train_gains(rows, test_at=test_at, prior=prior, seed=seed),
                             "kinds": lambda: train_kinds(rows, test_at=test_at, seed=seed)})


def _beside(trained: Trained, more: Mapping[str, Callable[[], Beside]]) -> tuple[Trained, list[str]]:
    """The training with what else is told; one that cannot be trained stops no other."""
    notes, name = [], trained.model.target.name
    for what, fit in more.items():
        try:
            one = fit()
        except ModelError as error:
            notes.append(f"{name} {what}: not trained. {str(error).removeprefix(f'{name}: ')}")
        else:
            trained = replace(trained, beside=(*trained.beside, one))
            notes.append(one.says())
    return trained, notes


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


def dataset_of(settings: Settings, tables: Tables, target: Target, at: dt.datetime) -> TrainingSet:
    """All rows of the past with features and a mature label."""
    from churnkit.learning.labels import label
    from churnkit.learning.training import training_set
    from churnkit.learning.treated import taken

    store, ask = open_store(settings), settings.training
    points, _ = history(tables, store, target, at, ())
    rows = training_set(target, store.read(points, target), label(target, tables, points))
    return taken(rows, ask.treated, control=policy_of(settings).control.share, seed=ask.seed).rows


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

    seed = settings.training.seed
    rows = dataset_of(settings, tables, target, at)
    pay, notes = _terms(settings, tables, rows)
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


def _terms(settings: Settings, tables: Tables, rows: TrainingSet) -> tuple[Terms | None, list[str]]:
    """What a contact costs and brings, by the settings and the mean of what is at stake in the rows; or why not."""
    from churnkit.learning.profit import terms
    from churnkit.learning.value import stakes

    name = rows.target.name
    points = rows.keys[["entity_id", "account_id", "cutoff"]].assign(target=name)
    stake = float(stakes(points, rows.X.assign(entity_id=points["entity_id"]), tables)["value"].mean())
    try:
        return terms(rows.target, settings, stake), []
    except ModelError as error:
        return None, [f"{name}: no figures of profit. {error}"]


def _absent(store: Store, settings: Settings, groups: pd.DataFrame) -> list[str]:
    """What is named in [training] segments or fairness and is neither a feature of any target nor a column."""
    from churnkit.learning.attributes import COLUMNS
    from churnkit.signals.catalog import Catalog
    from churnkit.signals.features import groups as features

    known = {*COLUMNS, *(name for group in features(store.catalog or Catalog()).values() for name in group.names)}
    asked = dict.fromkeys([*settings.training.segments, *settings.training.fairness])
    return [f"[training] of churnkit.toml names '{name}' among segments or fairness, which is no feature and no column "
            f"of accounts.{did_you_mean(name, known)} See churnkit features list."
            for name in asked if name not in groups and name not in known]


def _protected(store: Store, target: Target) -> list[str]:
    """The features among the target's groups that protection keeps from its model."""
    from churnkit.learning.targets import TARGETS
    from churnkit.signals.catalog import Catalog
    from churnkit.signals.features import groups

    known = groups(store.catalog or Catalog())
    seen = {name for group in target.groups for name in known[group].names}
    return sorted(seen & set(target.never) - set(TARGETS[target.name].never))
