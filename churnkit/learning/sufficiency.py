"""Do the data suffice for the splits that training really needs? One verdict per target, with the thresholds shown."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from churnkit.cutoffs import moment
from churnkit.errors import ModelError
from churnkit.learning.history import step, training_points
from churnkit.learning.labels import label, query
from churnkit.learning.splits import TrainingSet, stop_cut, timeline
from churnkit.learning.targets import Target
from churnkit.settings import Settings
from churnkit.signals.points import prediction_points
from churnkit.signals.tables import Tables

FIT, STOP, TEST = 120, 40, 60
"""Fewest positives per split. Of 48 draws of accounts from the simulated book 16 of 19 with so many proved their skill,
and 9 of 29 with fewer (tests/learning/test_enough.py). Where records tell more of the outcome, fewer may do.
"""
SIGNAL_SHARE = 0.5
"""Fewest share of active entities with any signal."""
SIGNAL_DAYS = 84


@dataclass(frozen=True)
class Check:
    """One thing that was counted against its threshold."""

    what: str
    found: float
    needed: float
    mend: str = ""

    @property
    def ok(self) -> bool:
        """Whether it reaches the threshold."""
        return self.found >= self.needed


@dataclass(frozen=True)
class Verdict:
    """Whether a target can be learned from these data, and what was counted."""

    target: str
    checks: tuple[Check, ...]
    labels: dict[str, int]

    @property
    def ok(self) -> bool:
        """Whether every threshold is reached."""
        return all(check.ok for check in self.checks)

    def rows(self) -> list[dict[str, Any]]:
        """One row per check, for a table on the screen."""
        return [{"target": self.target, "check": check.what, "found": round(check.found, 3), "needed": check.needed,
                 "ok": "yes" if check.ok else "no"} for check in self.checks]

    def sentences(self) -> list[str]:
        """The verdict, then one sentence with the mend for each check that failed."""
        failed = [check for check in self.checks if not check.ok]
        counted = ", ".join(f"{count} {why}" for why, count in self.labels.items()) or "no points at all"
        able = "suffice" if self.ok else "do not suffice"
        return [f"{self.target}: the data {able} to train and to prove skill ({counted}).",
                *(f"{self.target}: {check.what}: {check.found:.3g} found, {check.needed:.3g} needed. {check.mend}"
                  for check in failed)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"target": self.target, "ok": self.ok, "labels": dict(self.labels),
                "checks": [{**asdict(check), "ok": check.ok} for check in self.checks]}


def verdict(target: Target, tables: Tables, settings: Settings, at: dt.datetime) -> Verdict:
    """Labels the cutoffs that a training at `at` would use and counts positives per split, history, and signal."""
    history = training_points(target, tables, at)
    labels = label(target, tables, history) if len(history) else None
    counted = {} if labels is None else {
        "positive": int((labels["label"] == 1).sum()), "negative": int((labels["label"] == 0).sum()),
        **{str(why): int(count) for why, count in labels["why_none"].value_counts().sort_index().items() if why}}
    days = target.window / dt.timedelta(days=1)
    labelled = None if labels is None else labels[labels["label"].notna()]
    span = 0.0 if labelled is None or labelled.empty else (labelled["cutoff"].max() - labelled["cutoff"].min()).days
    longer = f"A longer history, or a shorter horizon, lead or grace in [targets.{target.name}], would do."
    return Verdict(
        target.name,
        (
            Check("days of labelled history", span, 2 * days + 2 * step(target.entity, settings).days, longer),
            *positives(target, labelled, settings, longer),
            Check(
                f"share of active {target.entity}s with signal in {SIGNAL_DAYS} days",
                _signal(target, tables, at),
                SIGNAL_SHARE,
                "Look whether the feeds reach up to now and carry the same ids as the other tables.",
            ),
        ),
        counted,
    )


def positives(target: Target, labelled: pd.DataFrame | None, settings: Settings, mend: str) -> list[Check]:
    """Positives in fit, stop and test, cut as training cuts them, against FIT, STOP and TEST.

    Args:
        target: The target.
        labelled: `schemas.LABELS` of the rows that have a label; None for none.
        settings: For the share of the test.
        mend: What would do, said where there are too few.
    """
    found = {"fit": 0, "stop and calibrate": 0, "test": 0}
    if labelled is not None and len(labelled):
        rows = TrainingSet(
            target, labelled[[]], labelled["label"].astype("int64"), labelled, pd.Series(1.0, labelled.index), {}
        )
        try:
            pool, test = rows.split(timeline(rows, settings.training.test_share).test_at)
        except ModelError:
            found["fit"] = rows.positives
        else:
            stop_at = stop_cut(pool)
            fit, stop = (pool, None) if stop_at is None else (pool.closed(stop_at), pool.since(stop_at))
            found = {"fit": fit.positives, "stop and calibrate": stop.positives if stop else 0, "test": test.positives}
    needed = {"fit": FIT, "stop and calibrate": STOP, "test": TEST}
    return [Check(f"positives to {name}", count, needed[name], mend) for name, count in found.items()]


def _signal(target: Target, tables: Tables, at: dt.datetime) -> float:
    """The share of entities active at `at` with a row of signal in the last days."""
    active = prediction_points(tables, target.entity, at=at)
    if active.empty:
        return 0.0
    spans = pd.DataFrame(
        {"since": [pd.Timestamp(moment(at)) - pd.Timedelta(days=SIGNAL_DAYS)], "until": [pd.Timestamp(moment(at))]}
    )
    seen = query(tables, _ASSET_SIGNAL if target.entity == "asset" else _ACCOUNT_SIGNAL, at=spans)
    return float(active["entity_id"].isin(seen["id"]).mean())


_ACCOUNT_SIGNAL = """
SELECT DISTINCT account_id AS id FROM (
  SELECT account_id, occurred_at AS t FROM usage_events UNION ALL SELECT account_id, opened_at FROM support_tickets
), ck_at a WHERE t >= a.since AND t < a.until
"""
_ASSET_SIGNAL = """
SELECT DISTINCT asset_id AS id FROM (
  SELECT asset_id, occurred_at AS t FROM telemetry UNION ALL SELECT asset_id, occurred_at FROM asset_events
), ck_at a WHERE t >= a.since AND t < a.until
"""
