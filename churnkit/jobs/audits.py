"""Audits of a workspace: whether its features are right in time, and worth having. Nothing is written."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from churnkit.errors import SettingsError, did_you_mean
from churnkit.jobs.report import HELD_BACK, Report
from churnkit.jobs.workspace import entities, log, read, targets
from churnkit.schemas import POINTS
from churnkit.settings import FILE, Settings, load

if TYPE_CHECKING:
    import pandas as pd

    from churnkit.audit.finding import Verdict
    from churnkit.learning.targets import Target
    from churnkit.signals.catalog import Catalog
    from churnkit.signals.tables import Tables

_CUTOFFS = 12
"""How many cutoffs of the past `audit features` looks at."""
_ROWS = 100_000
"""How many rows of the past it judges at most, drawn by entity."""


def audit_time(folder: Path, at: dt.datetime, *, before: Path | None = None, points: int = 200,
               methods: Sequence[str] = ()) -> Report:
    """Looks for leaks of later knowledge, by up to four methods; see docs/audits.md.

    Args:
        folder: The workspace.
        at: The cutoff of today.
        before: An earlier extract of the same sources: a workspace, or a folder with files of the same names.
        points: How many account points the method truncation looks at.
        methods: Only these; without any, all.

    Returns:
        One row per leak, first evidence first; code HELD_BACK where there is any.

    Raises:
        SettingsError: If a method is unknown.
    """
    from churnkit.audit.finding import METHODS

    for name in methods:
        if name not in METHODS:
            raise SettingsError(f"There is no method '{name}'.{did_you_mean(name, METHODS)} Known: "
                                f"{', '.join(METHODS)}.")
    settings = load(folder)
    calls = _methods(settings, at, before, points)
    verdicts = []
    for name in methods or METHODS:
        log.info("looking for leaks by %s", name)
        verdicts.append(calls[name]())
    findings = [finding for verdict in verdicts for finding in verdict.findings]
    notes = [line for verdict in verdicts for line in verdict.lines()]
    data = {"at": at.isoformat(), "leaks": len(findings), "methods": [verdict.to_dict() for verdict in verdicts]}
    return Report("audit time", rows=[finding.row() for finding in findings], notes=notes, data=data,
                  code=HELD_BACK if findings else 0)


def _methods(settings: Settings, at: dt.datetime, before: Path | None, points: int) -> dict[str, Callable[[], Verdict]]:
    """Each method as a call; the tables are read by the first one that needs them."""
    from churnkit.audit.decay import decay
    from churnkit.audit.extracts import extracts
    from churnkit.audit.finding import Verdict
    from churnkit.audit.truncation import truncation
    from churnkit.audit.versions import versions
    from churnkit.signals.tables import read_tables

    tables = cache(lambda: read(settings, at))
    catalog, wanted = cache(lambda: _catalog(settings, tables())), cache(lambda: targets(settings, tables()))
    return {
        "truncation": lambda: truncation(tables(), at, catalog(), wanted(), points),
        "extracts": lambda: (extracts(read_tables(_earlier(settings, before)), tables()) if before else
                             Verdict("extracts", why="Give an earlier extract of the same sources: --before FOLDER.")),
        "versions": lambda: versions(settings),
        "decay": lambda: decay(tables(), at, catalog(), wanted()),
    }


def _earlier(settings: Settings, before: Path) -> Settings:
    """How an earlier extract is read: by its own churnkit.toml, else as the workspace's files of the same names."""
    if not before.is_dir():
        raise SettingsError(f"There is no folder '{before}'. Name the folder of an earlier extract: --before FOLDER.")
    if (before / FILE).is_file():
        return load(before)
    moved = {name: how.model_copy(update={
        "source": _moved(how.source, before),
        "parts": tuple(part.model_copy(update={"source": _moved(part.source, before)}) for part in how.parts)})
        for name, how in settings.tables.items()}
    return settings.model_copy(update={"raw": str(before.resolve()), "tables": moved, "covers_until": None})


def _moved(source: str, folder: Path) -> str:
    return str(folder.resolve() / Path(source).name) if source and "://" not in source else source


def _catalog(settings: Settings, tables: Tables) -> Catalog:
    """The catalog that the workspace keeps, else the one that its tables give."""
    from churnkit.signals.catalog import discover, kept

    return kept(settings.path(settings.store), settings) or discover(tables)


def audit_features(folder: Path, at: dt.datetime) -> Report:
    """Looks for features that are dead, frozen, missing for some, too good alone, copies of others, or shifted by now.

    Returns:
        One row per suspicion, worst first; code HELD_BACK where a feature alone predicts suspiciously well.
    """
    from churnkit.audit.features import MEANS

    settings = load(folder)
    tables = read(settings, at)
    catalog = _catalog(settings, tables)
    wanted = targets(settings, tables)
    rows: list[dict[str, Any]] = []
    notes = []
    for entity in entities(tables):
        mine = [target for target in wanted if target.entity == entity]
        past, now = _frames(tables, catalog, entity, mine, at)
        if past.empty:
            notes.append(f"{entity}: nobody was in the population at the past cutoffs, so there is nothing to judge.")
            continue
        notes.append(f"{entity}: {len(past.columns) - len(POINTS)} features, {len(past):,} rows of "
                     f"{past['cutoff'].nunique()} past cutoffs, {len(now):,} rows at {at:%Y-%m-%d}.")
        rows += _suspicions(tables, past, now, entity, mine)
    rows.sort(key=lambda row: -row.pop("worse"))
    alone = sum(row["suspicion"] == "alone" for row in rows)
    notes += [f"{suspicion}: {means}." for suspicion, means in MEANS.items()
              if any(row["suspicion"] == suspicion for row in rows)]
    notes.append(f"{alone} features predict suspiciously well." if alone else "No feature predicts suspiciously well.")
    return Report("audit features", rows=rows, notes=notes, data={"at": at.isoformat(), "suspects": rows},
                  code=HELD_BACK if alone else 0)


def _frames(tables: Tables, catalog: Catalog, entity: str, wanted: list[Target],
            at: dt.datetime) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The features of the past's cutoffs, and of today."""
    from churnkit.learning.history import training_cutoffs
    from churnkit.signals.compute import compute_features
    from churnkit.signals.points import points_at

    known = sorted({cutoff for target in wanted for cutoff in training_cutoffs(target, tables, at)})
    chosen = known[::max(1, -(-len(known) // _CUTOFFS))] or [at - dt.timedelta(days=28 * n) for n in (3, 2, 1)]
    points = points_at(tables, entity, chosen)
    most = max(1, round(len(points) / _ROWS))
    if most > 1:  # every n-th entity, with all of its cutoffs
        codes = points["entity_id"].map({name: n for n, name in enumerate(sorted(points["entity_id"].unique()))})
        points = points[codes % most == 0].reset_index(drop=True)
    log.info("computing %s features at %d cutoffs (%d rows)", entity, len(chosen), len(points))
    today = points_at(tables, entity, [at])
    mine = [name for name, group in _groups(catalog).items() if group.entity == entity]
    names = [name for group in mine for name in _groups(catalog)[group].names]
    past, now = (compute_features(tables, asked, catalog) for asked in (points, today))
    keep = [*POINTS, *(name for name in names if name in past)]
    return past[keep], now[[name for name in keep if name in now]]


def _groups(catalog: Catalog) -> Any:
    from churnkit.signals.features import groups

    return groups(catalog)


def _suspicions(tables: Tables, past: pd.DataFrame, now: pd.DataFrame, entity: str,
                wanted: list[Target]) -> list[dict[str, Any]]:
    """What is suspicious, as rows; for each target those features that foretell it too well."""
    from churnkit.audit.features import foreseeing, suspects
    from churnkit.learning.labels import label

    segments = tables.raw.sql("SELECT account_id, arg_max(segment, known_at) AS segment FROM accounts WHERE segment IS "
                              "NOT NULL GROUP BY account_id").df().set_index("account_id")["segment"]
    points = past[list(POINTS)]
    found = [suspects(past, segment=points["account_id"].map(segments), now=now).assign(target="")]
    found += [foreseeing(past.drop(columns=list(target.never), errors="ignore"),
                         label(target, tables, points)["label"]).assign(target=target.name) for target in wanted]
    return [{"feature": row["feature"], "of": row["target"] or entity, "suspicion": row["suspicion"],
             "figure": row["figure"], "worse": row["worse"], "says": row["says"]}
            for table in found for row in table.to_dict("records")]
