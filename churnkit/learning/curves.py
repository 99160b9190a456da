"""A target's risk curve beside its model: on the same features and split of time, held against Kaplan-Meier."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from churnkit.errors import ModelError
from churnkit.learning.calibrate import EDGE, Floats
from churnkit.learning.durations import Durations
from churnkit.learning.hazard import Hazard
from churnkit.learning.resample import FEWEST, LEVEL, METRICS, draws, resampled
from churnkit.learning.survival import brier, concordance, concordances, happened, integrated, ratios

RESAMPLES = 500
SHOWN = ("auc", "average_precision", "log_loss", "brier", "calibration_error")


@dataclass(frozen=True, eq=False)
class CurveEvaluation:
    """A curve on a test period.

    `horizons` has a row per horizon in days: test rows whose label is known there and how many had the event, `SHOWN`
    with bounds (`auc_low`, `auc_high`, and so on), the mean probability `predicted` of all rows, and the share
    `observed` by Kaplan-Meier. `whole` has the rows c_index and integrated_brier and the columns curve, low, high and
    kaplan_meier: the same for the one curve that the training rows give everybody. The bounds hold 95% of the resamples
    of entities. `reach` is the last day that test rows were followed to.
    """

    target: str
    horizons: pd.DataFrame
    whole: pd.DataFrame
    skill: bool
    why: str
    rows: int
    events: int
    reach: float

    def figure(self, metric: str, column: str = "curve") -> float:
        """A figure of the whole curve: c_index or integrated_brier."""
        return float(self.whole.to_dict("index")[metric][column])

    def says(self) -> str:
        """The verdict in one sentence."""
        told = "; ".join(f"{day:g} {'day' if day == 1 else 'days'} AUC {row['auc']:.3f}, calibration error "
                         f"{row['calibration_error']:.3f}" if np.isfinite(row["auc"]) else f"{day:g} days not tested"
                         for day, row in self.horizons.to_dict("index").items())
        return f"{self.target} curve: {'skill proven' if self.skill else 'no skill'}: {self.why} By horizon: {told}."

    def summary(self) -> dict[str, Any]:
        """The figures that a run reports; None where one is undefined, because JSON knows no NaN."""
        def plain(frame: pd.DataFrame) -> list[dict[str, float | None]]:
            names = [str(name) for name in frame]
            return [{name: round(value, 5) if np.isfinite(value) else None
                     for name, value in zip(names, row, strict=True)} for row in frame.to_numpy(dtype=float).tolist()]

        whole = {f"{metric}{suffix}": self.figure(metric, column) for metric in ("c_index", "integrated_brier")
                 for column, suffix in (("curve", ""), ("low", "_low"), ("high", "_high"), ("kaplan_meier", "_km"))}
        return {"skill": "proven" if self.skill else "no skill", **plain(pd.DataFrame([whole]))[0],
                "test_rows": self.rows, "test_events": self.events,
                "horizons": plain(self.horizons.reset_index())}

    def metrics(self) -> dict[str, float]:
        """Every figure by a flat name, for a log; undefined ones are left out."""
        days = [f"{day:g}d" for day in self.horizons.index.to_numpy(dtype=float)]
        found = {f"curve.{name}.{day}": float(value) for name in self.horizons
                 for day, value in zip(days, self.horizons[name].to_numpy(dtype=float), strict=True)}
        found |= {f"curve.{metric}.{name}": float(value) for name, column in self.whole.items()
                  for metric, value in column.items()}
        return {name: value for name, value in {**found, "curve.skill": float(self.skill)}.items()
                if np.isfinite(value)}

    def _repr_html_(self) -> str:
        """Tables and verdict, as a notebook shows them."""
        return f"<p>{self.says()}</p>{self.whole.round(4).to_html()}{self.horizons.round(4).to_html()}"


@dataclass(frozen=True, eq=False)
class Curved:
    """`curve` was fitted on all rows, `holdout` on what was known when the test period began."""

    curve: Hazard
    holdout: Hazard
    evaluation: CurveEvaluation


def train_curve(spans: Durations, x: pd.DataFrame, days: Iterable[float], *, test_at: dt.datetime,
                seed: int = 7, planned: Iterable[str] = ()) -> Curved:
    """Holdout fit and evaluation, then a fit on all rows with the iterations found.

    Args:
        spans: Time to event or censoring, told at `durations.edges(days)`.
        x: The model's inputs, one row per duration, in their order.
        days: The horizons at which the curve is read.
        test_at: When the model's test period begins: the holdout knows nothing that was not known then.
        seed: Of the fits and the resamples.
        planned: The inputs that count the days to something planned, such as a renewal.

    Raises:
        ModelError: If the rows are too few, or hold no event before or after `test_at`.
    """
    before, days, planned = spans.until(test_at), tuple(days), tuple(planned)
    test = (spans.keys["cutoff"] >= pd.Timestamp(test_at)).to_numpy() & spans.known
    if not test.any():
        raise ModelError(f"{spans.target.name}: no row of the test period (from {test_at:%Y-%m-%d}) can be followed "
                         f"for {spans.edges[0]:g} days. Set shorter horizons in [targets.{spans.target.name}], or give "
                         "data that reach further.")
    holdout = Hazard(spans.target.name, days, seed, planned=planned).fit(x, before)
    usual = happened(before.days[before.known], before.event[before.known], np.array(spans.edges))
    evaluation = evaluate_curve(holdout, x[test], spans.take(test), usual, seed=seed)
    curve = Hazard(spans.target.name, days, seed, planned=planned).fit(x, spans, rounds=holdout.rounds)
    return Curved(curve, holdout, evaluation)


def evaluate_curve(curve: Hazard, x: pd.DataFrame, spans: Durations, usual: Floats, *, resamples: int = RESAMPLES,
                   seed: int = 7) -> CurveEvaluation:
    """A curve on rows that it never saw, with a bootstrap over entities.

    Skill is proven when the one-sided 99% lower bound of the C-index is above 0.5 and the upper bound of the integrated
    Brier score minus that of `usual` is below 0.

    Args:
        curve: The curve.
        x: Its inputs, one row per duration, in their order.
        spans: What came of the rows; each is followed to an edge at least.
        usual: The probability by each edge that the training rows give everybody, shape (K,).
        resamples: How many.
        seed: Of the resamples.
    """
    p = curve.probability(x)
    codes, names = pd.factorize(spans.keys["entity_id"])
    weights = draws(len(names), resamples, seed)
    table = {}
    for day in curve.horizons:
        y, known = spans.within(day)
        mine = p[:, curve.edges.index(day)]
        row = {"rows": float(known.sum()), "events": float(y[known].sum()),
               **_figures(y[known], mine[known], codes[known], weights),
               "predicted": float(mine.mean()), "observed": np.nan}
        if known.any():
            row["observed"] = float(happened(spans.days, spans.event, np.array([day]))[0])
        table[day] = row
    followed = np.flatnonzero(np.isfinite(spans.labels).any(axis=0))
    at = np.array(curve.edges)[followed]
    index, low, index_lower = _c_index(spans, p[:, followed], at, codes, weights)
    score = integrated(brier(spans.days, spans.event, p[:, followed], at), at)
    flat = integrated(brier(spans.days, spans.event, np.tile(usual[followed], (len(x), 1)), at), at)
    mean, spread = ratios(score, np.ones(len(x)), codes, weights)
    usual_mean, usual_spread = ratios(flat, np.ones(len(x)), codes, weights)
    upper = float(np.quantile(spread - usual_spread, LEVEL))
    whole = pd.DataFrame({
        "curve": [index, mean], "low": [low[0], float(np.quantile(spread, 0.025))],
        "high": [low[1], float(np.quantile(spread, 0.975))], "kaplan_meier": [0.5, usual_mean],
    }, index=pd.Index(["c_index", "integrated_brier"], name="metric"))
    events = int(spans.event.sum())
    fewest = min(events, len(x) - events)
    why = (f"the lower 99% bound of the C-index ({index:.3f}) is {index_lower:.3f} (must exceed 0.5), the upper bound "
           f"of the integrated Brier score ({mean:.4f}) against Kaplan-Meier's ({usual_mean:.4f}) {upper:+.4f} (must "
           "be below 0)." if fewest >= FEWEST else
           f"too few {'events' if events == fewest else 'rows without one'} in the test period ({fewest}, at least "
           f"{FEWEST} are needed).")
    return CurveEvaluation(
        spans.target.name, pd.DataFrame.from_dict(table, orient="index").rename_axis("horizon_days"), whole,
        bool(fewest >= FEWEST and index_lower > 0.5 and upper < 0), why, len(x), events, float(at[-1]))


def _c_index(spans: Durations, p: Floats, at: Floats, codes: np.ndarray[Any, Any],
             weights: Floats) -> tuple[float, tuple[float, float], float]:
    """The C-index of the mean probability over the time, its 95% bounds and its lower 99% bound."""
    risk = p @ np.diff([0.0, *at])
    index, spread = concordances(*concordance(spans.days, spans.event, risk), codes, weights)
    if not np.isfinite(spread).any():
        return index, (np.nan, np.nan), 0.0
    low, high, lower = np.nanquantile(spread, [0.025, 0.975, 1 - LEVEL])
    return index, (float(low), float(high)), float(lower)


def _figures(y: Floats, p: Floats, codes: np.ndarray[Any, Any], weights: Floats) -> dict[str, float]:
    """The metrics of one horizon with their bounds; blank where no row is known or one outcome alone was seen."""
    if not 0 < y.sum() < len(y):
        return {f"{name}{bound}": np.nan for name in SHOWN for bound in ("", "_low", "_high")}
    point, spread = resampled(y, np.clip(p, EDGE, 1 - EDGE), codes, weights)
    found: dict[str, float] = {}
    for name in SHOWN:
        place = METRICS.index(name)
        low, high = np.nanquantile(spread[:, place], [0.025, 0.975])
        found |= {name: float(point[place]), f"{name}_low": float(low), f"{name}_high": float(high)}
    return found
