"""A backtest as people and machines read it: two tables on the screen, everything in JSON."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from churnkit.jobs.report import Report

if TYPE_CHECKING:
    import pandas as pd

    from churnkit.learning.backtest import Backtest

_BY_PART = ("auc", "log_loss", "lift_10", "profit")


def report(found: Sequence[Backtest], notes: list[str], at: dt.datetime) -> Report:
    """Per target every pooled figure with its differences, then per fold and segment the chief ones."""
    rows = [row for one in found for row in (*_pooled(one), *_parts(one))]
    return Report("backtest", rows=rows, notes=notes, data={"at": at.isoformat(), "targets": [_data(o) for o in found]})


def _pooled(one: Backtest) -> list[dict[str, Any]]:
    """One row per metric; every number with the interval that holds 95% of the resamples."""
    columns = [name for name in ("model", "baseline", "minus_baseline", "minus_champion") if name in one.table]
    table = one.table[one.table["part"] == "pooled"].to_dict("records")
    return [{one.target.name: str(row["metric"]).replace("_", " "),
             **{name: _told(row, name, interval=name != "baseline") for name in columns}} for row in table]


def _parts(one: Backtest) -> list[dict[str, Any]]:
    """One row per fold and segment."""
    rows = []
    for part, table in one.table.groupby("part", sort=False):
        metrics = {row["metric"]: row for row in table.to_dict("records")}
        first = metrics["auc"]
        rows.append({f"{one.target.name}_by_part": part, "rows": first["rows"], "positive": first["positives"],
                     **{name: _told(metrics[name], "model", interval=False) for name in _BY_PART},
                     "auc_minus_baseline's": _told(first, "minus_baseline", interval=True)})
    return rows


def _told(row: dict[Any, Any], name: str, *, interval: bool) -> str:
    sign = "+" if name.startswith("minus_") else ""
    if _none(row[name]) is None:
        return ""
    return _number(row[name], sign) + (f" ({_number(row[f'{name}_low'], sign)} to {_number(row[f'{name}_high'], sign)})"
                                       if interval else "")


def _number(value: float, sign: str) -> str:
    return "?" if _none(value) is None else f"{value:{sign},.0f}" if abs(value) >= 100 else f"{value:{sign}.3f}"


def _data(one: Backtest) -> dict[str, Any]:
    """The same as plain values; what is undefined is None, because JSON knows no NaN."""
    return {"target": one.target.name, "terms": asdict(one.terms) if one.terms is not None else None,
            "folds": _records(one.folds), "figures": _records(one.table)}


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): _none(value) for key, value in row.items()} for row in frame.to_dict("records")]


def _none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
