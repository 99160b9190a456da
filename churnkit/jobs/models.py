"""The models of a workspace: their versions, who scores, and changes of it by hand."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from churnkit.errors import ModelError, did_you_mean
from churnkit.jobs.report import Report
from churnkit.jobs.workspace import NOW, open_registry, workspace
from churnkit.settings import load

if TYPE_CHECKING:
    from churnkit.learning.succession import Change


def models(folder: Path, names: Sequence[str] = ()) -> Report:
    """Every version of each target's model, newest first, with its role; and every change of champion."""
    from churnkit.learning.targets import TARGETS

    registry = open_registry(load(folder))  # only read: nobody is kept out
    rows: list[dict[str, Any]] = []
    changes: list[dict[str, Any]] = []
    for name in names or TARGETS:
        found = registry.versions(_known(name)).to_dict("records")
        rows += [{"version": one["version"], "data_until": str(one["at"])[:10], "role": one["role"],
                  "decided": one["decided"] or "", "model_hash": str(one["model_hash"])[:12]} for one in found]
        changes += [{"target": name, **asdict(one)} for one in registry.history(name)]
    told = [{"when": one["when"], "change": f"{one['target']}: {one['old'] or 'none'} to {one['new']}",
             "how": one["how"], "by": one["by"], "why": one["why"]} for one in changes]
    notes = [] if rows else ["No model was trained yet. Train with: churnkit train"]
    return Report("models", rows=[*rows, *told], notes=notes, data={"versions": rows, "history": changes})


def promote(folder: Path, target: str, version: str, *, by: str, why: str, anyway: bool = False) -> Report:
    """Makes a version champion by a person's decision; its files are verified first.

    Raises:
        ModelError: If it may not be; says what would help.
    """
    name = f"{_known(target)}-{version.removeprefix(f'{target}-')}"
    with workspace(folder) as settings:
        registry = open_registry(settings)
        done = registry.promote(name, by=by, why=why, now=_now(), anyway=anyway)
        told = registry.champion(target)
    assert told is not None  # noqa: S101 - it was promoted
    notes = [_said(target, done) if done else f"{target}: {told.version} is the champion already."]
    if not told.skill:
        notes.append(f"{target}: its skill is not proven, so it opens no task.")
    return Report("promote", notes=notes, data={"target": target, "champion": told.version,
                                                "change": asdict(done) if done else None})


def rollback(folder: Path, target: str, *, by: str, why: str) -> Report:
    """Makes the champion before this one champion again.

    Raises:
        ModelError: If there is none, or its files were changed.
    """
    with workspace(folder) as settings:
        done = open_registry(settings).rollback(_known(target), by=by, why=why, now=_now())
    return Report("rollback", notes=[_said(target, done)],
                  data={"target": target, "champion": f"{target}-{done.new}", "change": asdict(done)})


def card(folder: Path, target: str, version: str | None = None, out: Path | None = None) -> Report:
    """The model card of a version; left out, of the one that scores. With `out`, into a file.

    Raises:
        ModelError: If there is no such version or card, or the file cannot be written.
    """
    registry = open_registry(load(folder))  # only read: nobody is kept out
    champion = None if version else registry.champion(_known(target))
    if not version and champion is None:
        raise ModelError(f"{target}: no model was trained yet. Train one with: churnkit train")
    name = champion.version if champion else f"{_known(target)}-{str(version).removeprefix(f'{target}-')}"
    text = registry.card(name)
    if out is None:
        return Report("card", texts=[text], data={"version": name, "card": text})
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ModelError(f"'{out}' cannot be written ({error.strerror}). Name another file with --out.") from None
    return Report("card", notes=[f"The card of {name} is in '{out}'."], data={"version": name, "file": str(out)})


def _said(target: str, change: Change) -> str:
    before = f"{target}-{change.old}" if change.old else "none"
    return (f"{target}: {target}-{change.new} is the champion now, {before} was before; decided by {change.by}: "
            f"{change.why}. From the next churnkit score on it scores.")


def _known(target: str) -> str:
    """The target's name.

    Raises:
        ModelError: If there is none of that name.
    """
    from churnkit.learning.targets import TARGETS

    if target not in TARGETS:
        raise ModelError(f"There is no target '{target}'.{did_you_mean(target, TARGETS)} Known: {', '.join(TARGETS)}.")
    return target


def _now() -> dt.datetime:
    """The time of the run."""
    now = NOW.get()
    if now is None:
        raise ModelError("A change of champion needs its time: run it as churnkit promote or churnkit rollback.")
    return now
