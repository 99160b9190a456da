"""The breaker: before a plan makes tasks, is today such a day as the past explains? Pure; the job reads and keeps.

    look(feeds, features, scores, alerts, history, at) -> Verdict

The rule in words. A fault of a feed holds every target that hangs on it: a day without rows or with far fewer or
more, accounts that are not heard of, rows that stand twice, a kind of event that vanished, hours that moved, ids that
no longer match, days that are no longer what an earlier run saw. A jump in missing values, scores or alerts holds its
target. What builds up is no jump: where scores rise while the feeds' structure is whole, and the records of those who
newly alert have moved away from the others' over three days or more, customers have truly changed. That is said, and
holds nothing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from churnkit.watch.counts import Days
from churnkit.watch.drift import LEAST_RUNS, Spread, alarmed, missing_jumps, shifted
from churnkit.watch.evidence import Evidence
from churnkit.watch.feeds import HOLDING, found_in, judged
from churnkit.watch.memory import Memory
from churnkit.watch.rewritten import rewritten
from churnkit.watch.usual import JUDGED

BUILT_UP = 3
"""Days over which a true wave builds up, at least."""


@dataclass(frozen=True)
class History:
    """What is known of the past.

    `memory` is what earlier runs kept and people released. By target, oldest first, `spreads` are the scores of earlier
    runs and `missing` the features' shares of missing values at earlier cutoffs. `hangs` says which targets hang on
    which table.
    """

    memory: Memory = field(default_factory=Memory)
    spreads: Mapping[str, Sequence[Spread]] = field(default_factory=dict)
    missing: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)
    hangs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """Which targets are held, by what evidence; what was released; and what is to be said besides."""

    at: dt.datetime
    held: Mapping[str, tuple[Evidence, ...]]
    released: Mapping[str, tuple[Evidence, ...]]
    notes: tuple[str, ...]

    def words(self, target: str) -> tuple[str, ...]:
        """Why a target is held, a sentence each."""
        return tuple(one.says for one in self.held.get(target, ()))


def look(feeds: Mapping[str, Days], features: Mapping[str, Mapping[str, float]], scores: Mapping[str, Spread],
         alerts: Mapping[str, int | None], history: History, at: dt.datetime) -> Verdict:
    """The verdict on a run.

    Args:
        feeds: Every feed's days before `at`.
        features: By target, the share of missing values of each feature at `at`.
        scores: By target, the spread of its scores at `at`, with its alerts.
        alerts: By target, over how many days the records of those who newly alert moved away from the others'
            (`drift.built_up`); None where they did not, or where nobody newly alerts.
        history: What is known of the past.
        at: The moment of the plan.
    """
    targets = sorted({*features, *scores, *(name for names in history.hangs.values() for name in names)})
    found, notes = _of_feeds(feeds, history, at)
    thin = []
    for target in targets:
        found += missing_jumps(target, features.get(target, {}), history.missing.get(target, ()), at.date())
        spread, spreads = scores.get(target), history.spreads.get(target, ())
        if spread is None:
            continue
        if len(spreads) < LEAST_RUNS:
            thin.append(target)
        jumps = [*shifted(target, spread, spreads), *alarmed(target, spread, spreads)]
        whole = not any(target in one.targets for one in found)
        days = alerts.get(target)
        if jumps and whole and days is not None and days >= BUILT_UP:
            notes.append(f"{jumps[-1].says} The feeds are whole, and those who newly alert changed over {days} days: "
                         "customers have truly changed, so nothing is held for it.")
            continue
        found += jumps
    if thin:
        notes.append(f"{', '.join(thin)}: fewer than {LEAST_RUNS} earlier runs to compare scores and alerts with; the "
                     "pilot's cap of new tasks a run stands in for it.")
    return _verdict(found, notes, history.memory, targets, at)


def _of_feeds(feeds: Mapping[str, Days], history: History, at: dt.datetime) -> tuple[list[Evidence], list[str]]:
    found: list[Evidence] = []
    young = []
    last = history.memory.runs[-1].at if history.memory.runs else at
    since = min(max(HOLDING, (at - last).days), JUDGED)
    for name, days in feeds.items():
        targets = history.hangs.get(name, ())
        if not targets:
            continue
        free = frozenset.intersection(*(history.memory.released(target) for target in targets))
        mine = found_in(days, targets, since, free) if judged(days) else []
        runs = [run for run in history.memory.runs if all(run in history.memory.trusted(one) for one in targets)]
        mine += rewritten(days, targets, runs, at.date())
        if not judged(days) and not runs:
            young.append(name)
        found += mine
    if not young:
        return found, []
    names = ", ".join(young)
    return found, [f"{names}: too few days to say what is usual; the pilot's cap of new tasks a run stands in for it."]


def _verdict(found: Sequence[Evidence], notes: Sequence[str], memory: Memory, targets: Sequence[str],
             at: dt.datetime) -> Verdict:
    held, released = {}, {}
    for target in targets:
        free = memory.released(target)
        mine = [one for one in found if target in one.targets]
        stopping = tuple(one for one in mine if one.key not in free)
        if stopping:
            held[target] = stopping
        if len(stopping) < len(mine):
            released[target] = tuple(one for one in mine if one.key in free)
    return Verdict(at, held, released, tuple(notes))
