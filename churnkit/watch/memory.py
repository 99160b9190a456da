"""What earlier runs saw, and what people released: small files in state/watch/, each written in one step."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from churnkit.cutoffs import moment
from churnkit.errors import ChurnkitError, DataError
from churnkit.watch.counts import Days

VERSION = 1
KEPT_DAYS = 14
"""How many of a feed's days a run keeps: a later run looks whether they are still what they were."""
LOOKED_AT = 60
"""How many of the last runs are looked at."""
_FOREVER = dt.timedelta(days=400)


@dataclass(frozen=True)
class SeenDay:
    """One day of a feed as a run saw it: rows, who, the sum of its hours as a vector, and the rows of each kind."""

    rows: float
    entities: float
    cos: float
    sin: float
    kinds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, days: Days, place: int, age: int) -> SeenDay:
        """A day of a feed at an age."""
        hours = days.clock[place, age]
        return cls(float(np.nan_to_num(days.rows[place, age])), float(np.nan_to_num(days.entities[place, age])),
                   round(float(hours.real), 3), round(float(hours.imag), 3),
                   {name: float(rows[place, age]) for name, rows in days.kinds.items() if rows[place, age] > 0})


@dataclass(frozen=True)
class SeenFeed:
    """A feed as a run saw it."""

    read: int
    known: int
    kept: int
    days: Mapping[str, SeenDay] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One run: its feeds, and what it held by target: the evidence's keys, and its words."""

    at: dt.datetime
    feeds: Mapping[str, SeenFeed] = field(default_factory=dict)
    held: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Release:
    """A person's word that work on a target may go on in spite of this evidence."""

    target: str
    at: dt.datetime
    by: str
    why: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Memory:
    """The runs before a moment, oldest first, and every release."""

    runs: tuple[Run, ...] = ()
    releases: tuple[Release, ...] = ()

    def released(self, target: str) -> frozenset[str]:
        """The evidence that people released for a target."""
        return frozenset(key for one in self.releases if one.target == target for key in one.keys)

    def trusted(self, target: str) -> list[Run]:
        """The runs that held nothing of this target, or whose evidence was released: they are history."""
        free = self.released(target)
        return [run for run in self.runs if set(run.held.get(target, ())) <= free]

    def barred(self, target: str) -> frozenset[dt.datetime]:
        """When the runs were that are no history of this target."""
        return frozenset(run.at for run in self.runs) - {run.at for run in self.trusted(target)}


def seen(feeds: Mapping[str, Days]) -> dict[str, SeenFeed]:
    """What a run keeps of its feeds: totals, and the last days."""
    return {name: SeenFeed(days.read, days.known, days.kept, {
        f"{days.day(place)}": SeenDay.of(days, place, days.age(place))
        for place in range(max(0, days.size - KEPT_DAYS), days.size) if np.isfinite(days.rows[place, 0])
    }) for name, days in feeds.items()}


def recall(state: Path, at: dt.datetime, last: int = LOOKED_AT) -> Memory:
    """What stands in state/watch/ from before `at`.

    Raises:
        DataError: If a file cannot be read; says which to remove.
    """
    files = sorted(file for file in _runs(state).glob("*.json") if file.stem < _stem(at))[-last:]
    return Memory(tuple(_run(file) for file in files), releases(state))


def newest(state: Path) -> Run | None:
    """The newest run that is kept.

    Raises:
        DataError: If its file cannot be read.
    """
    files = sorted(_runs(state).glob("*.json"))
    return _run(files[-1]) if files else None


def remember(state: Path, run: Run) -> None:
    """Keeps a run, whole or not at all; the same run again replaces it, and very old ones go."""
    file = _runs(state) / f"{_stem(run.at)}.json"
    _write(file, {"schema_version": VERSION, **asdict(run), "at": run.at.isoformat()})
    for old in sorted(file.parent.glob("*.json")):
        if old.stem < _stem(run.at - _FOREVER):
            old.unlink(missing_ok=True)


def releases(state: Path) -> tuple[Release, ...]:
    """Every release, the oldest first.

    Raises:
        DataError: If the file cannot be read.
    """
    file = state / "watch" / "releases.json"
    if not file.exists():
        return ()
    return tuple(_parsed(file, lambda data: [
        Release(str(one["target"]), moment(one["at"]), str(one["by"]), str(one["why"]),
                tuple(map(str, one["keys"]))) for one in data["releases"]]))


def release(state: Path, one: Release) -> None:
    """Adds a release to those that stand; none is ever changed."""
    rows = [{**asdict(each), "at": each.at.isoformat()} for each in (*releases(state), one)]
    _write(state / "watch" / "releases.json", {"schema_version": VERSION, "releases": rows})


def _runs(state: Path) -> Path:
    return state / "watch" / "runs"


def _stem(at: dt.datetime) -> str:
    return f"{at.astimezone(dt.UTC):%Y%m%dT%H%M%SZ}"


def _write(file: Path, data: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(f"{file.name}.{os.getpid()}.part")
    half.write_text(json.dumps(data, sort_keys=True), encoding="utf-8")
    half.replace(file)


def _run(file: Path) -> Run:
    run: Run = _parsed(file, lambda data: Run(
        moment(data["at"]), {name: _feed(one) for name, one in data["feeds"].items()},
        {target: tuple(map(str, keys)) for target, keys in data["held"].items()},
        {target: tuple(map(str, words)) for target, words in data["words"].items()}))
    return run


def _feed(one: Mapping[str, Any]) -> SeenFeed:
    return SeenFeed(int(one["read"]), int(one["known"]), int(one["kept"]),
                    {day: SeenDay(float(was["rows"]), float(was["entities"]), float(was["cos"]), float(was["sin"]),
                                  {name: float(rows) for name, rows in was["kinds"].items()})
                     for day, was in one["days"].items()})


def _parsed(file: Path, parse: Any) -> Any:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["schema_version"] > VERSION:
            raise ChurnkitError(f"'{file.name}' was written by a newer churnkit. Upgrade this one.")
        return parse(data)
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        raise DataError(f"'{file}' is damaged. Remove it: the breaker then goes on without what it kept.") from None


def last_of(runs: Sequence[Run], name: str) -> SeenFeed | None:
    """A feed as the newest of these runs saw it."""
    return next((run.feeds[name] for run in reversed(runs) if name in run.feeds), None)
