"""One function per station: open the workspace, read, call, write, and say what was done.

A CRM job runs `sync` from here and must not pay for pandas, Feast or MLflow: heavy rooms are imported where they are
used.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

from churnkit.errors import FeatureError
from churnkit.jobs import act, fitting, learn, syncs, told
from churnkit.jobs.report import HELD_BACK, Report
from churnkit.jobs.workspace import entities, load_day, open_outbox, open_registry, open_store, read, targets, workspace
from churnkit.settings import load

__all__ = ["Report", "backtest", "check", "explain", "features", "impact", "plan", "run", "score", "sync", "train",
           "uplift", "workspace"]


def check(folder: Path, at: dt.datetime) -> Report:
    """What was found, what is missing, how far each feed reaches, and whether the data suffice for each target."""
    from churnkit.learning.sufficiency import verdict
    from churnkit.watch import check as look

    with workspace(folder) as settings:
        tables = read(settings.model_copy(update={"invalid": "drop"}), at)  # to say all that is wrong, not the first
        found = look(tables, at)
        wrong = settings.invalid == "raise" and any(finding.severity == "error" for finding in found.findings)
        verdicts = [verdict(target, tables, settings, at) for target in targets(settings, tables)]
    notes = [*found.lines(), *(sentence for one in verdicts for sentence in one.sentences())]
    rows = [*found.rows(), *(row for one in verdicts for row in one.rows())]
    data = {**found.to_dict(), "verdicts": [one.to_dict() for one in verdicts]}
    return Report("check", rows=rows, notes=notes, data=data, code=0 if found.ok and not wrong else HELD_BACK)


def features(folder: Path, at: dt.datetime, *, start: dt.datetime | None = None, every: dt.timedelta | None = None,
             restate: bool = False) -> Report:
    """Features of every account and asset at `at`; with `start`, also from there on, at the training grid's cutoffs or
    `every` so often. A backfill that was stopped goes on where it was.
    """
    from churnkit.learning.history import grid, step

    with workspace(folder) as settings:
        tables = read(settings, at)
        store = open_store(settings)
        rows = []
        for entity in entities(tables):
            past = grid(every or step(entity, settings), start, at) if start else []
            rows.append(learn.ensure(tables, store, entity, [*past, at], restated=at if restate else None))
        store.materialize(at, *targets(settings, tables))
        notes = learn.late(tables, at)
    return Report("features", rows=rows, notes=notes, data={"at": at.isoformat(), "features": rows, "late": notes})


def train(folder: Path, at: dt.datetime, names: Sequence[str] = ()) -> Report:
    """One new version of each target's model, from all matured history; says whether its skill is proven.

    Code HELD_BACK where a feature that alone predicts suspiciously well keeps a version from being promoted.
    """
    with workspace(folder) as settings:
        tables = read(settings, at)
        rows, notes, code = fitting.train_all(settings, tables, at, names)
    shown = [{name: value for name, value in row.items() if not isinstance(value, dict) and name != "curve"}
             for row in rows]
    return Report("train", rows=shown, notes=notes, data={"at": at.isoformat(), "models": rows}, code=code)


def backtest(folder: Path, at: dt.datetime, names: Sequence[str] = (), *, folds: int = 5,
             by_entity: bool = False) -> Report:
    """Each target's model on rolling origins of the past, beside the logistic baseline and the champion; keeps nothing.

    With `by_entity` no account or asset is both learnt from and tested.
    """
    from churnkit.jobs.backtests import report

    with workspace(folder) as settings:
        found, notes = fitting.backtest_all(settings, read(settings, at), at, names, folds, by_entity=by_entity)
    return report(found, notes, at)


def score(folder: Path, at: dt.datetime, *, explain_all: bool = False) -> Report:
    """Scores of everybody at `at`, by each target's champion, and reasons of those who can become tasks, or of all."""
    with workspace(folder) as settings:
        rows, notes = learn.score_all(settings, read(settings, at), at, explain_all=explain_all)
    return Report("score", rows=rows, notes=notes, data={"at": at.isoformat(), "scores": rows})


def plan(folder: Path, at: dt.datetime, *, dry_run: bool = False, account: str | None = None) -> Report:
    """Tasks for account managers from the scores and signals at `at`, into the outbox; a dry run writes nothing.

    With `account` nothing is written either, and that account's whole reasoning is told.
    """
    with workspace(folder) as settings:
        act.policy_of(settings)
        return act.plan(settings, read(settings, at), at, dry_run=dry_run, account=account)


def sync(folder: Path, at: dt.datetime, *, dry_run: bool = False, if_poked: bool = False) -> Report:
    """What is pending goes to the CRM, and what people answered comes back as the raw table outreach_outcomes.

    With `if_poked` only where `churnkit crm receive` has taken a message since that was asked the last time.
    """
    with workspace(folder) as settings:
        if if_poked and not syncs.poked(settings):
            return Report("sync", notes=["No message was received since the last time: nothing is synced."])
        return syncs.sync(settings, at, dry_run=dry_run)


def explain(folder: Path, entity: str, at: dt.datetime) -> Report:
    """Why an account or asset scores as it does at `at`, and which tasks it has.

    Raises:
        FeatureError: If it was not scored at `at`; says what to run.
    """
    from churnkit.learning.explain import effect, in_points

    settings = load(folder)  # only read: nobody is kept out
    scores, reasons = load_day(settings, "scores", at), load_day(settings, "reasons", at)
    mine = None if scores is None else scores[(scores["entity_id"] == entity) | (scores["account_id"] == entity)]
    if mine is None or mine.empty or reasons is None:
        raise FeatureError(f"'{entity}' has no score at {at:%Y-%m-%d}. Check the id, or score that day first: "
                           f"churnkit score {folder} --at {at:%Y-%m-%d}")
    tasks = [task for task in open_outbox(settings).open_tasks() if task.account_id in set(mine["account_id"])]
    notes = [f"{row.target}: {row.probability:.1%} ({row.band}), {row.value:,.0f} {row.currency} at stake, by "
             f"{row.model_version}"
             + ("" if row.skill else "; this model has no proven skill") for row in mine.itertuples()]
    notes += told.beside(settings, at, mine["entity_id"])
    notes += [f"open task, due {task.due}: {task.title}" for task in tasks if not task.ghost]
    notes += [f"the features of {one} at {at:%Y-%m-%d} were computed anew on {when:%Y-%m-%d} ({names}), from data that "
              "came later; if it was scored before that, score the day again"
              for one in mine["entity_id"].unique() for when, names in learn.restatements(settings, one, at)]
    why = reasons[reasons["entity_id"].isin(mine["entity_id"])]
    dark = mine[~mine["target"].isin(why["target"])]
    notes += [f"no reasons for {name}: only those for whom a play can open a task are explained. For everybody's: "
              f"churnkit score {folder} --at {at:%Y-%m-%d} --explain-all" for name in dark["target"].unique()]
    both = why.merge(mine[["entity_id", "target", "probability"]], on=["entity_id", "target"])
    both["effect"] = list(map(effect, both["points"], both["probability"], both["target"]))
    changes = both["changed"].fillna("") if "changed" in both else [""] * len(both)  # no column in files of before
    rows = [{"entity": row.entity_id, "target": row.target, "effect": in_points(points),
             "reason": f"{row.phrase!s} ({changed})" if changed else row.phrase}
            for row, points, changed in zip(both.itertuples(), both["points"], changes, strict=True)]
    data = {"scores": mine.to_dict("records"), "reasons": both.to_dict("records"),
            "tasks": [task.to_dict() for task in tasks]}
    return Report("explain", rows=rows, notes=notes, data=data)


def impact(folder: Path, at: dt.datetime) -> Report:
    """Contacted accounts against those kept apart, as of `at`; what each play does is kept for the next plan."""
    from churnkit.jobs import proof

    with workspace(folder) as settings:
        return proof.impact(settings, read(settings, at), at)


def uplift(folder: Path, at: dt.datetime, names: Sequence[str] = ()) -> Report:
    """Learns whom a contact helps and whom it harms; needs the extra [uplift]."""
    from churnkit.jobs import whom

    return whom.uplift(folder, at, names)


def run(folder: Path, at: dt.datetime) -> Report:
    """All of a day's stations: features, a first training where there is no model yet, scores, plan, sync."""
    with workspace(folder) as settings:
        act.policy_of(settings)
        tables = read(settings, at)
        registry = open_registry(settings)
        untrained = [target.name for target in targets(settings, tables) if registry.champion(target.name) is None]
        trained, notes, held = fitting.train_all(settings, tables, at, untrained) if untrained else ([], [], 0)
        store = open_store(settings)
        for entity in entities(tables):
            learn.ensure(tables, store, entity, [at])
        notes += learn.late(tables, at)
        scored, more = learn.score_all(settings, tables, at)
        planned = act.plan(settings, tables, at, dry_run=False)
        synced = syncs.sync(settings, at, dry_run=False)
    notes = [*notes, *more, *planned.notes, *synced.notes]
    data = {"at": at.isoformat(), "models": trained, "scores": scored, "plan": planned.data, "sync": synced.data}
    return Report("run", planned.texts, planned.rows, notes, data, code=planned.code or synced.code or held)
