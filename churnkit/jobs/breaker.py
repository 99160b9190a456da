"""The alarm-storm breaker on an open workspace: the verdict before a plan, and a person's release."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from churnkit.errors import OutreachError, did_you_mean
from churnkit.jobs.act import policy_of
from churnkit.jobs.report import HELD_BACK, Report
from churnkit.jobs.workspace import NOW, file_of, log, targets, workspace
from churnkit.settings import Settings, load

if TYPE_CHECKING:
    import pandas as pd

    from churnkit.learning.targets import Target
    from churnkit.signals.tables import Tables
    from churnkit.watch.drift import Spread
    from churnkit.watch.memory import Memory, Run
    from churnkit.watch.verdict import Verdict

_RUNS = 12
"""Earlier days of scores that are looked at."""


def verdict(settings: Settings, tables: Tables, scores: pd.DataFrame | None, at: dt.datetime, *,
            remember: bool = True) -> Verdict:
    """Which targets' new tasks wait for a person, and why in words: `Verdict.held` by target, `Verdict.words(target)`.

    With `remember`, what this run saw is kept for the runs after it, and a plot is drawn for each target that is held.

    Args:
        settings: The workspace's.
        tables: Its tables, read at `at`.
        scores: The scores of all targets at `at`; None where there are none.
        at: The moment of the plan.
        remember: False for a dry run, which leaves no trace.

    Raises:
        DataError: If what earlier runs kept cannot be read.
    """
    from churnkit.watch import memory
    from churnkit.watch.counts import assets, count
    from churnkit.watch.feeds import feeds_of
    from churnkit.watch.verdict import History, look

    asked, kept = targets(settings, tables), memory.recall(settings.state, at)
    feeds = count(tables, at)
    hangs = feeds_of({one.name: one.entity for one in asked}, {name: assets(tables.contract[name]) for name in feeds})
    today, spreads, built = _scores(settings, tables, scores, at, kept)
    missing, before = _missing(settings, asked, at, kept)
    found = look(feeds, missing, today, built, History(kept, spreads, before, hangs), at)
    if remember:
        keys = {name: tuple(one.key for one in evidence) for name, evidence in found.held.items()}
        words = {name: found.words(name) for name in found.held}
        memory.remember(settings.state, memory.Run(at, memory.seen(feeds), keys, words))
        _draw(settings, found, at)
    for name in found.held:
        log.warning("%s: new tasks are held until a person releases them. %s", name, " ".join(found.words(name)))
    return found


def release(folder: Path, target: str, *, by: str, why: str, at: dt.datetime | None = None) -> Report:
    """Lets work on a target go on in spite of the evidence that holds it, by a person's word; other evidence holds on.

    Args:
        folder: The workspace.
        target: Which target.
        by: Who decides.
        why: On what grounds.
        at: The run whose evidence it is; left out, the newest.

    Raises:
        OutreachError: If nothing is held, or nobody says who or why.
    """
    from churnkit.watch import memory

    if not by.strip() or not why.strip():
        raise OutreachError("A release needs a name and a reason, because somebody will ask. Say --by NAME --why TEXT.")
    with workspace(folder) as settings:
        run = _run_of(settings, at)
        keys = _still(run, settings).get(_known(target), ()) if run else ()
        if run is None or not keys:
            when = f" at {at:%Y-%m-%d}" if at else ""
            raise OutreachError(f"{target}: nothing is held{when}. To see what is: churnkit release {folder}")
        one = memory.Release(target, NOW.get() or run.at, by, why, tuple(key for key, _ in keys))
        memory.release(settings.state, one)
    notes = [f"{target}: released by {by}: {why}.", *(f"- {said}" for _, said in keys),
             f"New evidence would hold it again. To plan now: churnkit plan {folder} --at {run.at:%Y-%m-%d}"]
    return Report("release", notes=notes, data={"target": target, "by": by, "why": why, "at": run.at.isoformat(),
                                                "released": list(one.keys)})


def held(folder: Path, at: dt.datetime | None = None) -> Report:
    """What the newest run, or that at `at`, holds, and why; code HELD_BACK where anything is."""
    settings = load(folder)  # only read: nobody is kept out
    run = _run_of(settings, at)
    open_now = _still(run, settings) if run else {}
    rows = [{"target": name, "since": f"{run.at:%Y-%m-%d}", "why": said} for name, keys in open_now.items()
            for _, said in keys] if run else []
    notes = [f"{name}: the plot is {_picture(settings, name, run.at)}. To let its tasks go: churnkit release {name} "
             f"{folder} --by NAME --why TEXT" for name in open_now] if run else []
    notes = notes or ["Nothing is held." if run else "Nothing is held: no plan has been made here yet."]
    data = {"at": run.at.isoformat() if run else None,
            "held": {name: [{"key": key, "why": said} for key, said in keys] for name, keys in open_now.items()}}
    return Report("release", rows=rows, notes=notes, data=data, code=HELD_BACK if open_now else 0)


def _run_of(settings: Settings, at: dt.datetime | None) -> Run | None:
    """The run at a moment, or the newest."""
    from churnkit.watch import memory

    if at is None:
        return memory.newest(settings.state)
    runs = memory.recall(settings.state, at + dt.timedelta(seconds=1), last=1).runs
    return runs[0] if runs and runs[0].at == at else None


def _still(run: Run, settings: Settings) -> dict[str, list[tuple[str, str]]]:
    """By target, the evidence of a run that nobody has released: key and words."""
    from churnkit.watch import memory

    kept = memory.Memory(releases=memory.releases(settings.state))
    found = {name: [(key, said) for key, said in zip(keys, run.words.get(name, keys), strict=True)
                    if key not in kept.released(name)] for name, keys in run.held.items()}
    return {name: keys for name, keys in found.items() if keys}


def _known(target: str) -> str:
    from churnkit.learning.targets import TARGETS

    if target not in TARGETS:
        raise OutreachError(f"There is no target '{target}'.{did_you_mean(target, TARGETS)} Known: "
                            f"{', '.join(TARGETS)}.")
    return target


@dataclass(frozen=True)
class _Day:
    """One target's scores of one day: who, how probable, by which model."""

    at: dt.datetime
    frame: pd.DataFrame

    def spread(self, bar: float) -> Spread:
        """How they spread."""
        from churnkit.watch.drift import Spread

        version = str(self.frame["model_version"].iloc[0]) if len(self.frame) else ""
        return Spread.of(self.at.date(), self.frame["probability"].to_numpy(dtype=float), version,
                         bar if self._able else float("inf"))

    def alert(self, bar: float) -> set[str]:
        """The accounts that pass the bar."""
        return set(self.frame.loc[self.frame["probability"] >= bar, "account_id"]) if self._able else set()

    @property
    def _able(self) -> bool:
        return "skill" not in self.frame or bool(self.frame["skill"].all())


def _scores(settings: Settings, tables: Tables, scores: pd.DataFrame | None, at: dt.datetime, kept: Memory,
            ) -> tuple[dict[str, Spread], dict[str, list[Spread]], dict[str, int | None]]:
    """Today's spread of each target's scores, those of its earlier runs, and over how many days it built up."""
    policy = policy_of(settings)
    today: dict[str, Spread] = {}
    past: dict[str, list[Spread]] = {}
    built: dict[str, int | None] = {}
    if scores is None:
        return today, past, built
    for name, frame in scores.groupby("target", sort=True):
        bar, now = policy.opens_at(str(name)), _Day(at, frame)
        before = _earlier(settings, str(name), at, kept)
        today[str(name)], past[str(name)] = now.spread(bar), [day.spread(bar) for day in before]
        known = before[-1].alert(bar) if before else set()
        built[str(name)] = _built_up(tables, now.alert(bar) - known, at) if before else None
    return today, past, built


def _earlier(settings: Settings, target: str, at: dt.datetime, kept: Memory) -> list[_Day]:
    """The last days of scores before this one, without those of runs that were held for a fault nobody released."""
    import pandas as pd

    here = file_of(settings, "scores", target, at)
    barred = {file_of(settings, "scores", target, when).name for when in kept.barred(target)}
    days = []
    for file in sorted(file for file in here.parent.glob("*.parquet") if file.name < here.name)[-_RUNS:]:
        try:
            frame = pd.read_parquet(file)
        except (OSError, ValueError) as error:
            log.warning("'%s' cannot be read, and is no history: %s", file, error)
            continue
        if file.name not in barred and len(frame):
            days.append(_Day(pd.Timestamp(file.stem).to_pydatetime(), frame))
    return days


def _built_up(tables: Tables, accounts: set[str], at: dt.datetime) -> int | None:
    """Over how many days these accounts' use moved away from all others'."""
    import numpy as np

    from churnkit.watch.drift import built_up

    if not accounts or not tables.has("usage_events"):
        return None
    rows = tables.raw.execute(
        "SELECT date_diff('day', occurred_at::DATE, $at::DATE) AS back, account_id = ANY($ids) AS risen, "
        "sum(coalesce(quantity, 1)) AS much FROM usage_events WHERE occurred_at >= $at::DATE - INTERVAL 84 DAY AND "
        "occurred_at < $at::DATE AND known_at <= $at GROUP BY ALL", {"at": at, "ids": sorted(accounts)}).fetchall()
    series = np.zeros((2, 84))
    for back, risen, much in rows:
        series[int(risen), 84 - int(back)] += float(much)
    return built_up(series[1], series[0])


def _missing(settings: Settings, asked: Sequence[Target], at: dt.datetime, kept: Memory,
             ) -> tuple[dict[str, Mapping[str, float]], dict[str, list[Mapping[str, float]]]]:
    """By target, each feature's share of missing values at `at`, and at the cutoffs before it that nothing speaks
    against.
    """
    from churnkit.watch.gaps import shares

    now: dict[str, Mapping[str, float]] = {}
    before: dict[str, list[Mapping[str, float]]] = {}
    for target in asked:
        barred = kept.barred(target.name)
        found = shares(settings.path(settings.store) / "data", target.groups, at)
        now[target.name] = found.get(at, {})
        before[target.name] = [one for when, one in found.items() if when < at and when not in barred]
    return now, before


def _draw(settings: Settings, found: Verdict, at: dt.datetime) -> None:
    for name, evidence in found.held.items():
        from churnkit.watch.picture import draw

        draw(evidence, _picture(settings, name, at))


def _picture(settings: Settings, target: str, at: dt.datetime) -> Path:
    return settings.state / "held" / f"{at:%Y%m%dT%H%M%SZ}-{target}.svg"
