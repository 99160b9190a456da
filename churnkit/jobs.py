"""One function per station: open the workspace, read, call, write, and say what was done.

A CRM job runs `sync` from here and must not pay for pandas, Feast or MLflow: heavy rooms are imported where they are used.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
from collections import ChainMap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from churnkit.cutoffs import every
from churnkit.errors import BusyError, FeatureError, ModelError
from churnkit.settings import Settings, load

if TYPE_CHECKING:
    import pandas as pd

    from churnkit.learning.registry import Registry
    from churnkit.learning.targets import Target
    from churnkit.outreach.outbox import Outbox
    from churnkit.signals.store import Store
    from churnkit.signals.tables import Tables

log = logging.getLogger("churnkit")

HELD_BACK = 3
"""Exit code: the job ran, and its answer is that work may not go on."""

_ANCHOR = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)  # a Monday; all training cutoffs lie on one grid


@dataclass(frozen=True)
class Report:
    """What a job has to say: a table for people, notes in sentences, the same as plain data, and an exit code."""

    title: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    code: int = 0


@contextlib.contextmanager
def workspace(folder: Path) -> Iterator[Settings]:
    """The settings of a workspace, held by this process alone while the block runs.

    Raises:
        BusyError: If another process holds it.
    """
    from filelock import FileLock, Timeout

    settings = load(folder)
    settings.state.mkdir(parents=True, exist_ok=True)
    lock = FileLock(settings.state / "run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BusyError(f"Another churnkit run holds '{settings.root}'. Wait until it ends, then run this "
                        "again.") from None
    try:
        yield settings
    finally:
        lock.release()


def read(settings: Settings, at: dt.datetime) -> Tables:
    """The workspace's raw tables, validated as of `at`."""
    from churnkit.signals.tables import read_tables

    log.info("reading the raw tables of %s", settings.root)
    return read_tables(settings.root, at=at)


def check(folder: Path, at: dt.datetime) -> Report:
    """What was found, what is missing, how far each feed reaches, and whether the data suffice for each target."""
    from churnkit.learning.sufficiency import verdict
    from churnkit.watch import check as look

    with workspace(folder) as settings:
        tables = read(settings, at)
        found = look(tables, at)
        verdicts = [verdict(target, tables, settings, at) for target in _targets(settings, tables)]
    notes = [*found.lines(), *(sentence for one in verdicts for sentence in one.sentences())]
    rows = [*found.rows(), *(row for one in verdicts for row in one.rows())]
    data = {**found.to_dict(), "verdicts": [one.to_dict() for one in verdicts]}
    return Report("check", rows, notes, data, code=0 if found.ok else HELD_BACK)


def features(folder: Path, at: dt.datetime, *, start: dt.datetime | None = None,
             restate: bool = False) -> Report:
    """Features of every account and asset at `at`; with `start`, also at the training grid's cutoffs from there on."""
    with workspace(folder) as settings:
        tables = read(settings, at)
        store = _store(settings)
        cutoffs = [*(_grid(settings.training.every, start, at) if start else []), at]
        rows = [_ensure(tables, store, entity, cutoffs, restate=restate) for entity in _entities(tables)]
        store.materialize(at, *_targets(settings, tables))
    return Report("features", rows, data={"at": at.isoformat(), "features": rows})


def train(folder: Path, at: dt.datetime, names: Sequence[str] = ()) -> Report:
    """One new version of each target's model, from all matured history; says whether its skill is proven."""
    with workspace(folder) as settings:
        tables = read(settings, at)
        rows, notes = _train_all(settings, tables, at, names)
    return Report("train", rows, notes, {"at": at.isoformat(), "models": rows})


def score(folder: Path, at: dt.datetime) -> Report:
    """Scores and reasons of everybody at `at`, by each target's champion."""
    with workspace(folder) as settings:
        rows, notes = _score_all(settings, read(settings, at), at)
    return Report("score", rows, notes, {"at": at.isoformat(), "scores": rows})


def plan(folder: Path, at: dt.datetime, *, dry_run: bool = False) -> Report:
    """Tasks for account managers from the scores and signals at `at`, into the outbox; a dry run writes nothing."""
    with workspace(folder) as settings:
        return _plan(settings, read(settings, at), at, dry_run=dry_run)


def sync(folder: Path, at: dt.datetime, *, dry_run: bool = False) -> Report:
    """What is pending goes to the CRM, and what people answered comes back as the raw table outreach_outcomes."""
    with workspace(folder) as settings:
        return _sync(settings, at, dry_run=dry_run)


def explain(folder: Path, entity: str, at: dt.datetime) -> Report:
    """Why an account or asset scores as it does at `at`, and which tasks it has.

    Raises:
        FeatureError: If it was not scored at `at`; says what to run.
    """
    with workspace(folder) as settings:
        scores, reasons = _load(settings, "scores", at), _load(settings, "reasons", at)
        mine = None if scores is None else scores[(scores["entity_id"] == entity) | (scores["account_id"] == entity)]
        if mine is None or mine.empty or reasons is None:
            raise FeatureError(f"'{entity}' has no score at {at:%Y-%m-%d}. Check the id, or score that day first: "
                               f"churnkit score {folder} --at {at:%Y-%m-%d}")
        tasks = [task for task in open_outbox(settings).open_tasks() if task.account_id in set(mine["account_id"])]
    notes = [f"{row.target}: {row.probability:.1%} ({row.band}), {row.value:,.0f} {row.currency} at stake, by "
             f"{row.model_version}"
             + ("" if row.skill else "; this model has no proven skill") for row in mine.itertuples()]
    notes += [f"open task, due {task.due}: {task.title}" for task in tasks if not task.ghost]
    why = reasons[reasons["entity_id"].isin(mine["entity_id"])]
    rows = why[["entity_id", "target", "rank", "direction", "points", "phrase"]].to_dict("records")
    return Report("explain", rows, notes, {"scores": mine.to_dict("records"), "reasons": why.to_dict("records"),
                                           "tasks": [task.to_dict() for task in tasks]})


def impact(folder: Path) -> Report:
    """Tasks counted by play, status and control."""
    from churnkit.outreach.impact import counts

    with workspace(folder) as settings:
        rows = counts(open_outbox(settings))
    return Report("impact", rows, data={"counts": rows})


def run(folder: Path, at: dt.datetime) -> Report:
    """All of a day's stations: features, a first training where there is no model yet, scores, plan, sync."""
    with workspace(folder) as settings:
        tables = read(settings, at)
        registry = _registry(settings)
        untrained = [target.name for target in _targets(settings, tables) if registry.champion(target.name) is None]
        trained, notes = _train_all(settings, tables, at, untrained) if untrained else ([], [])
        store = _store(settings)
        for entity in _entities(tables):
            _ensure(tables, store, entity, [at])
        scored, more = _score_all(settings, tables, at)
        planned = _plan(settings, tables, at, dry_run=False)
        synced = _sync(settings, at, dry_run=False)
    notes = [*notes, *more, *planned.notes, *synced.notes]
    data = {"at": at.isoformat(), "models": trained, "scores": scored, "plan": planned.data, "sync": synced.data}
    return Report("run", planned.rows, notes, data, code=planned.code or synced.code)


# One step of each station, on open settings and read tables.


def _targets(settings: Settings, tables: Tables) -> list[Target]:
    """The targets that the workspace asks for and its tables can feed."""
    from churnkit.learning.targets import TARGETS, configured

    able = {"churn": True, "expansion": tables.has("subscriptions"), "maintenance": tables.has("asset_events")}
    wanted = [name for name in TARGETS if name not in settings.targets or settings.targets[name].enabled]
    return [configured(TARGETS[name], settings) for name in wanted if able[name]]


def _entities(tables: Tables) -> list[str]:
    return ["account", "asset"] if tables.has("assets") else ["account"]


def _store(settings: Settings) -> Store:
    from churnkit.signals.store import Store

    return Store(settings.path(settings.store), settings)


def _registry(settings: Settings) -> Registry:
    from churnkit.learning.registry import Registry

    return Registry(settings.url(settings.mlflow), settings.state / "artifacts")


def open_outbox(settings: Settings) -> Outbox:
    """The workspace's outbox."""
    from churnkit.outreach.outbox import Outbox

    return Outbox(settings.url(settings.outbox))


def _grid(step: dt.timedelta, start: dt.datetime, end: dt.datetime) -> list[dt.datetime]:
    """The cutoffs of one fixed grid between two moments, so that every training uses the same ones."""
    first = start + (-(start - _ANCHOR)) % step
    return every(first, end, step) if first <= end else []


def _ensure(tables: Tables, store: Store, entity: str, cutoffs: list[dt.datetime], *,
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
    cutoffs = [cutoff for cutoff in _grid(step, start, at) if cutoff + target.window <= at]
    if not cutoffs:
        raise ModelError(f"{target.name}: no cutoff between {start:%Y-%m-%d} and {at:%Y-%m-%d} has a label yet, "
                         f"because a label needs {target.window.days} days to mature. Wait, or shorten "
                         f"[targets.{target.name}].")
    _ensure(tables, store, target.entity, cutoffs)
    return points_at(tables, target.entity, cutoffs)


def _first_signal(tables: Tables, entity: str) -> dt.datetime:
    """The first time in the tables that tell of this entity: before it there is nothing to learn from.

    Raises:
        ModelError: If none of them holds a row.
    """
    sources = {"account": {"usage_events": "occurred_at", "support_tickets": "opened_at", "subscriptions": "started_at"},
               "asset": {"telemetry": "occurred_at", "asset_events": "occurred_at"}}[entity]
    for table, column in sources.items():  # the first that is given; a later one may reach back to the company's founding
        first = tables.expr(table)[column].min().execute() if tables.has(table) else None
        if first is not None and first == first:  # noqa: PLR0124 - NaT is not itself
            return first.to_pydatetime()
    raise ModelError(f"No table tells of any {entity} yet. Give at least one of: {', '.join(sources)}.")


def _train_all(settings: Settings, tables: Tables, at: dt.datetime,
               names: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Trains and registers the named targets (all without names); one that cannot be trained does not stop the others."""
    rows, notes = [], []
    for target in _targets(settings, tables):
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

    store = _store(settings)
    points = _history(tables, store, target, at)
    dataset = training_set(target, store.read(points, target), label(target, tables, points))
    log.info("training %s on %d labelled rows", target.name, len(dataset.y))
    trained = fit(target, dataset, seed=settings.training.seed, test_share=settings.training.test_share)
    version = _registry(settings).register(trained, at=at)
    row = {"target": target.name, "version": version, **trained.evaluation.summary()}
    return row, [dataset.says(), trained.evaluation.says()]


def _score_all(settings: Settings, tables: Tables, at: dt.datetime) -> tuple[list[dict[str, Any]], list[str]]:
    from churnkit.learning.value import stakes
    from churnkit.signals.points import prediction_points

    store, registry = _store(settings), _registry(settings)
    rows, notes = [], []
    for target in _targets(settings, tables):
        champion = registry.champion(target.name)
        if champion is None:
            notes.append(f"{target.name}: no model yet, so no scores. Train one with: churnkit train")
            continue
        points = prediction_points(tables, target.entity, at=at)
        frame = store.read(points, target)
        log.info("scoring %d rows for %s with %s", len(frame), target.name, champion.version)
        scores = stakes(champion.model.predict(frame), frame, tables).assign(skill=champion.skill)
        _save(settings, "scores", target.name, at, scores)
        _save(settings, "reasons", target.name, at, champion.model.explain(frame, top=6))
        rows.append({"target": target.name, "version": champion.version, "scored": len(scores),
                     "high": int((scores["band"] == "high").sum()), "skill": "proven" if champion.skill else "no skill"})
    return rows, notes


def _save(settings: Settings, what: str, target: str, at: dt.datetime, frame: pd.DataFrame) -> None:
    """One parquet file per target and cutoff, whole or not at all."""
    path = _path(settings, what, target, at)
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".part")
    frame.to_parquet(half, index=False)
    half.replace(path)


def _path(settings: Settings, what: str, target: str, at: dt.datetime) -> Path:
    return settings.state / what / target / f"{at:%Y%m%dT%H%M%SZ}.parquet"


def _load(settings: Settings, what: str, at: dt.datetime) -> pd.DataFrame | None:
    """The scores or reasons of all targets at a cutoff, or None where none were made."""
    import pandas as pd

    files = sorted((settings.state / what).glob(f"*/{at:%Y%m%dT%H%M%SZ}.parquet"))
    return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True) if files else None


def _plan(settings: Settings, tables: Tables, at: dt.datetime, *, dry_run: bool) -> Report:
    from churnkit.outreach.plan import plan as make
    from churnkit.outreach.policy import Policy

    outbox = open_outbox(settings)
    policy = Policy.load(settings.path(settings.policy))
    known = ChainMap({"moods": _moods(tables, at)}, dict(tables))
    made = make(_load(settings, "scores", at), _load(settings, "reasons", at), known, policy,
                open_tasks=outbox.open_tasks(), at=at)
    if not dry_run:
        outbox.put([*made.tasks, *made.ghosts], at=at, run=f"plan {at:%Y-%m-%d}")
        outbox.close_tasks(made.moot, at=at)
    rows = [{"due": task.due, "owner": task.owner, "account": task.account_id, "priority": task.priority,
             "by": task.opened_by, "task": task.title} for task in made.tasks]
    held = made.held["why"].value_counts().to_dict() if len(made.held) else {}
    verb = "would be new" if dry_run else "new"
    notes = [f"{len(made.tasks)} {verb} tasks, {len(made.ghosts)} ghosts of control accounts.",
             *(f"held: {count} {why}" for why, count in held.items())]
    data = {"tasks": [task.to_dict() for task in made.tasks], "ghosts": len(made.ghosts), "held": held}
    return Report("plan", rows, notes, data)


def _moods(tables: Tables, at: dt.datetime) -> pd.DataFrame:
    """The mood of what a customer wrote last in each ticket, as far as it was known at `at`."""
    moods = tables.moods().to_pandas()
    seen = moods[(moods["known_at"] <= at) & moods["ticket_id"].notna()].sort_values("occurred_at", kind="stable")
    return seen.drop_duplicates("ticket_id", keep="last")


def _sync(settings: Settings, at: dt.datetime, *, dry_run: bool) -> Report:
    from churnkit.outreach.crm.base import connect
    from churnkit.outreach.sync import sync as push
    from churnkit.outreach.sync import write_outcomes

    outbox = open_outbox(settings)
    done = push(outbox, connect(settings.crm, settings.crm_options, settings.root), at=at, dry_run=dry_run)
    if not dry_run:
        write_outcomes(outbox, settings.path(settings.raw) / "outreach_outcomes.csv")
    counts = asdict(done)
    said = ", ".join(f"{count} {what}" for what, count in counts.items() if isinstance(count, int) and count)
    return Report("sync", done.differences, [f"sync to {done.where}: {said or 'nothing to do'}.", *done.problems], counts,
                  code=HELD_BACK if done.problems else 0)
