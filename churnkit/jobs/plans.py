"""What each plan was made from, kept beside the scores, so that any of its tasks can be made again and compared."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections import ChainMap
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

from churnkit.jobs.workspace import file_of, load_day, open_registry, read
from churnkit.outreach.chain import Retold, retell
from churnkit.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from churnkit.outreach.limits import Before
    from churnkit.outreach.outbox import Outbox
    from churnkit.outreach.policy import Policy
    from churnkit.outreach.task import Task
    from churnkit.signals.tables import Tables

SCHEMA_VERSION = 1
_INPUTS = ("scores", "reasons", "offers")
_OF_THE_RUN = ("status", "disposition", "snoozed_until")
"""What a plan does not decide."""


@dataclass(frozen=True)
class Rebuilt:
    """What came of making a task again: whether it came out the same (None: it could not be made), and in words."""

    key: str
    same: bool | None
    sentences: tuple[str, ...]


def keep(settings: Settings, at: dt.datetime, policy: Policy, before: Before, outbox: Outbox,
         model_hashes: Mapping[str, str] | None = None) -> Path:
    """Keeps what a plan at `at` is about to be made from; call it just before `Outbox.carry_out`.

    The same plan again writes nothing; another one of the same moment is kept beside the first.

    Args:
        settings: The workspace's.
        at: The plan's moment.
        policy: Its policy, kept whole.
        before: What it heeds of earlier runs; its tasks are in the audit and are not kept again.
        outbox: Where the tasks will go: how long its audit is says which tasks were there before.
        model_hashes: By model version, where known (`model_hashes`).
    """
    record = {
        "schema_version": SCHEMA_VERSION, "at": at.isoformat(), "audit_rows": outbox.audit_length(),
        "policy_hash": policy.fingerprint, "policy": policy.model_dump(mode="json"),
        "files": {name: _digest(path) for name, path in _files(settings, at)}, "models": dict(model_hashes or {}),
        "before": {"arms": _rows(before.arms), "effects": _rows(before.effects), "suppressed": dict(before.suppressed),
                   "stopped": dict(before.stopped)}}
    text = json.dumps(record, indent=1, default=str) + "\n"  # the order of plays counts
    folder = settings.state / "plans"
    folder.mkdir(parents=True, exist_ok=True)
    known = _records(settings, at)
    if known and json.loads(text) == known[-1]:
        return _named(settings, at, len(known) - 1)
    path = _named(settings, at, len(known))
    half = path.with_suffix(".part")
    half.write_text(text, encoding="utf-8")
    half.replace(path)
    return path


def model_hashes(settings: Settings, scores: pd.DataFrame | None) -> dict[str, str]:
    """The registry's hash of each model that gave these scores, by version; opens the registry."""
    found: dict[str, str] = {}
    if scores is None or scores.empty or "model_version" not in scores:
        return found
    registry = open_registry(settings)
    for target, rows in scores.groupby("target"):
        versions = registry.versions(str(target))
        used = versions[versions["version"].isin(rows["model_version"]) & versions["model_hash"].notna()]
        found |= dict(zip(used["version"].astype(str), used["model_hash"].astype(str), strict=True))
    return found


def known(settings: Settings, tables: Tables, at: dt.datetime) -> ChainMap[str, pd.DataFrame]:
    """The raw tables with what the plan reads beside them: moods as far as known at `at`, and what to offer."""
    offers, moods = load_day(settings, "offers", at), tables.moods().to_pandas()
    moods = moods[moods["known_at"] <= at].sort_values("occurred_at", kind="stable")
    more = {"moods": moods, **({} if offers is None else {"offers": offers})}
    return ChainMap(more, cast("MutableMapping[str, pd.DataFrame]", tables))  # only read


def rebuild(settings: Settings, outbox: Outbox, told: Retold) -> Rebuilt:
    """Makes a task again from the kept policy and scores, and the raw tables as of its plan's moment.

    Where one of the three hashes (data, model, policy) does not match any more it is not made: the words say which.
    """
    put = next(row for row in outbox.audit(told.key) if row["what"] in {"put", "change"} and row["after"] ==
               {**told.content, **({"run": told.run} if row["what"] == "put" else {})})
    at = dt.datetime.fromisoformat(put["at"])
    records = [one for one in _records(settings, at) if one["audit_rows"] < put["seq"]]
    if not records:
        why = f"What the plan of {at:%Y-%m-%d} was made from is not kept in {settings.state / 'plans'}."
        return Rebuilt(told.key, None, (why,))
    record, task = records[-1], told.planned if put["what"] == "put" else told.content
    wrong = [*_policy_moved(record, task), *_data_moved(settings, record, task, at),
             *_model_moved(settings, record, task, at)]
    if wrong:
        return Rebuilt(told.key, None, tuple(wrong))
    return _compared(told.key, task, _again(settings, outbox, record, at).get(told.key), at)


def _compared(key: str, task: Mapping[str, Any], made: Task | None, at: dt.datetime) -> Rebuilt:
    """The task that was planned beside the one made again."""
    moved = f"the raw tables tell something else of {at:%Y-%m-%d} now, or the words of briefs were changed."
    if made is None:
        return Rebuilt(key, False, (f"The hashes match, and the plan made again has no such task: {moved}",))
    names = sorted(name for name, value in made.to_dict().items()
                   if name not in _OF_THE_RUN and value != task.get(name))
    if names:
        return Rebuilt(key, False, (f"The hashes match, and made again it differs in {', '.join(names)}: {moved}",))
    hashes = (f"data {made.data_hash or 'none (by rule)'}, model {made.model_version or 'none'}, policy "
              f"{made.policy_hash}")
    return Rebuilt(key, True, (f"Made again from the plan of {at:%Y-%m-%d} it comes out the same: {hashes}.",))


def _policy_moved(record: Mapping[str, Any], task: Mapping[str, Any]) -> Iterator[str]:
    from churnkit.outreach.policy import Policy

    try:
        found = Policy(**record["policy"]).fingerprint
    except ValidationError:
        yield "The policy hash does not match: this churnkit cannot read the kept policy."
        return
    if found != record["policy_hash"]:
        yield f"The policy hash does not match: the kept policy hashes to {found}, not {record['policy_hash']}."
    elif task.get("policy_hash") not in {None, found}:
        yield f"The policy hash does not match: the task was planned by {task['policy_hash']}, the record has {found}."


def _data_moved(settings: Settings, record: Mapping[str, Any], task: Mapping[str, Any],
                at: dt.datetime) -> Iterator[str]:
    there = {name: _digest(path) for name, path in _files(settings, at)}
    for name in sorted({*there, *record["files"]}):
        if name not in there:
            yield f"The data hash does not match: the file of {name} at {at:%Y-%m-%d} is gone."
        elif there[name] != record["files"].get(name):
            yield f"The data hash does not match: the file of {name} at {at:%Y-%m-%d} is not what it was."
    if task.get("opened_by") == "model" and task.get("data_hash"):
        rows = _scored(settings, task, at)
        if rows is not None and "data_hash" in rows and task["data_hash"] not in set(rows["data_hash"]):
            yield f"The data hash does not match: the account's scores are of other data than {task['data_hash']}."


def _model_moved(settings: Settings, record: Mapping[str, Any], task: Mapping[str, Any],
                 at: dt.datetime) -> Iterator[str]:
    version = task.get("model_version")
    if not version:
        return
    rows = _scored(settings, task, at)
    if rows is not None and version not in set(rows["model_version"]):
        yield f"The model hash does not match: the account's scores of {at:%Y-%m-%d} are not by {version}."
    then = record["models"].get(version)
    if then and rows is not None:
        now = model_hashes(settings, rows).get(version)
        if now != then:
            yield f"The model hash does not match: {version} was {then[:16]}, the registry has {(now or 'none')[:16]}."


def _scored(settings: Settings, task: Mapping[str, Any], at: dt.datetime) -> pd.DataFrame | None:
    """The scores of the task's account and target on that day."""
    scores = load_day(settings, "scores", at)
    if scores is None:
        return None
    mine: pd.DataFrame = scores[(scores["account_id"] == task["account_id"]) & (scores["target"] == task["target"])]
    return mine


def _again(settings: Settings, outbox: Outbox, record: Mapping[str, Any], at: dt.datetime) -> dict[str, Task]:
    """The plan's tasks and ghosts, made again."""
    import pandas as pd

    from churnkit.outreach.limits import Before
    from churnkit.outreach.plan import plan
    from churnkit.outreach.policy import Policy

    kept = record["before"]
    arms, effects = (None if kept[name] is None else pd.DataFrame(kept[name]) for name in ("arms", "effects"))
    tasks = [one.task() for one in retell(outbox.audit()[:record["audit_rows"]]).values()]
    before = Before(
        tasks=tuple(sorted(tasks, key=lambda one: (one.account_id, one.key))), arms=arms, effects=effects,
        suppressed=kept["suppressed"], stopped=kept["stopped"], folder=settings.root)
    made = plan(load_day(settings, "scores", at), load_day(settings, "reasons", at),
                known(settings, read(settings, at), at), Policy(**record["policy"]), before, at=at)
    return {task.key: task for task in (*made.tasks, *made.ghosts)}


def _files(settings: Settings, at: dt.datetime) -> Iterator[tuple[str, Path]]:
    """The day's files that a plan reads, by folder and target."""
    for what in _INPUTS:
        name = file_of(settings, what, "x", at).name
        for path in sorted((settings.state / what).glob(f"*/{name}")):
            yield f"{what}/{path.parent.name}", path


def _records(settings: Settings, at: dt.datetime) -> list[dict[str, Any]]:
    """The records of that moment, in the order in which they were kept."""
    found: list[dict[str, Any]] = []
    while (path := _named(settings, at, len(found))).is_file():
        found.append(json.loads(path.read_text(encoding="utf-8")))
    return found


def _named(settings: Settings, at: dt.datetime, number: int) -> Path:
    more = f".{number + 1}" if number else ""
    return settings.state / "plans" / f"{at.astimezone(dt.UTC):%Y%m%dT%H%M%SZ}{more}.json"


def _rows(frame: pd.DataFrame | None) -> Any:
    """A frame's rows with every digit of their numbers; what is missing is None."""
    if frame is None:
        return None
    rows: Any = frame.astype(object)
    return rows.where(frame.notna(), None).to_dict("records")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
