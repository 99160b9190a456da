"""How good a model is on rows it never saw, with intervals, beside baseline and base rate; and whether it has skill."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from churnkit.errors import ModelError
from churnkit.learning.calibrate import EDGE, Floats
from churnkit.learning.resample import FEWEST, LEVEL, METRICS, draws, quantiles, resampled
from churnkit.learning.segments import COLUMNS, segments, weak
from churnkit.learning.splits import TrainingSet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from churnkit.learning.doubts import Doubt
    from churnkit.learning.model import Model


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model on a test period.

    `table` has one row per metric and the columns model, model_low, model_high, baseline, baseline_low, baseline_high
    and base_rate; the bounds hold 95% of the resamples of entities. `skill` says whether the model's skill is proven,
    `why` on what grounds. `scored` holds y, model and baseline per test row, for plots. `segments` says the same of
    each segment of the test rows; see `segments.segments`. `doubt` is the likeliest reason where no skill is
    proven, once `doubts.doubted` has looked for it.
    """

    target: str
    table: pd.DataFrame
    skill: bool
    why: str
    auc_lower: float
    loss_upper: float
    rows: int
    positives: int
    entities: int
    scored: pd.DataFrame
    segments: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(COLUMNS)))
    doubt: Doubt | None = None

    def figure(self, metric: str, column: str = "model") -> float:
        """One cell of the table: a metric of the model, the baseline or the base_rate."""
        return float(self.table[column].to_numpy(dtype=float)[METRICS.index(metric)])

    def says(self) -> str:
        """The verdict in one sentence."""
        auc, base = self.figure("auc", "model"), self.figure("auc", "baseline")
        better = "better than" if auc > base else "not better than"
        told = (f"On {self.rows} test rows with {self.positives} positives the AUC is {auc:.3f}, {better} the logistic "
                f"baseline's {base:.3f}." if np.isfinite(auc) and np.isfinite(base) else
                f"{self.positives} of {self.rows} test rows are positive, so that there is no AUC.")
        likely = f" The likeliest reason is {self.doubt.why}" if self.doubt else ""
        return f"{self.target}: {'skill proven' if self.skill else 'no skill'}: {self.why} {told}{likely}"

    def weak(self) -> str:
        """The segments in which the model is weak, in a sentence; empty where there are no segments."""
        return weak(self.target, self.segments)

    def summary(self) -> dict[str, Any]:
        """The figures that a run reports; None where one is undefined, because JSON knows no NaN."""
        figures = {**{metric: self.figure(metric, "model") for metric in METRICS},
                   "baseline_auc": self.figure("auc", "baseline"), "auc_lower_99": self.auc_lower,
                   "log_loss_gain_upper_99": self.loss_upper}
        shown = {name: round(value, 5) if np.isfinite(value) else None for name, value in figures.items()}
        return {"skill": "proven" if self.skill else "no skill", "reason": self.doubt.reason if self.doubt else "",
                **shown, "test_rows": self.rows,
                "test_positives": self.positives, **self._counted()}

    def metrics(self) -> dict[str, float]:
        """Every figure by a flat name, for a log; undefined ones are left out."""
        found = {
            f"{metric}.{column}": self.figure(metric, column)
            for metric in METRICS
            for column in map(str, self.table.columns)
        }
        found |= {"auc_lower_99": self.auc_lower, "log_loss_gain_upper_99": self.loss_upper, "skill": float(self.skill),
                  "test_rows": float(self.rows), "test_positives": float(self.positives),
                  **{name: float(count) for name, count in self._counted().items()}}
        return {name: value for name, value in found.items() if np.isfinite(value)}

    def _counted(self) -> dict[str, int]:
        """How many segments there are, how many of them have outcomes enough, and in how many the model is weak."""
        enough = self.segments["enough"].astype(bool)
        off = ~self.segments["calibrated"].astype(bool)
        return {"segments": len(self.segments), "segments_judged": int(enough.sum()),
                "segments_weak": int((enough & ~self.segments["skill"].astype(bool) | off).sum())}

    def _repr_html_(self) -> str:
        """Tables and verdicts, as a notebook shows them."""
        shown = f"<p>{self.says()}</p>{self.table.round(4).to_html()}"
        return shown if self.segments.empty else (
            f"{shown}<p>{self.weak()}</p>{self.segments.round(4).to_html(index=False)}")

    def plot(self) -> Figure:
        """Calibration, lift by share contacted, and the distribution of risk."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(13, 3.8), layout="constrained")
        one, two, three = figure.subplots(1, 3)
        y = self.scored["y"].to_numpy(dtype=float)
        for name, colour in (("model", "C0"), ("baseline", "C7")):
            p = self.scored[name].to_numpy(dtype=float)
            bins = pd.Series(p).rank(method="first").mul(10).div(len(p) + 1).astype(int)
            binned = pd.DataFrame({"p": p, "y": y}).groupby(bins.to_numpy()).mean()
            one.plot(binned["p"], binned["y"], "o-", color=colour, label=name)
            caught = np.cumsum(y[np.argsort(-p, kind="stable")]) / max(y.sum(), 1)
            share = np.arange(1, len(y) + 1) / len(y)
            two.plot(share, caught / share, color=colour, label=name)
            three.hist(p, bins=40, histtype="step", color=colour, label=name)
        top = max(float(self.scored["model"].max()), float(y.mean()))
        one.plot([0, top], [0, top], "k:", lw=1)
        two.axhline(1, color="k", ls=":", lw=1)
        one.set(xlabel="predicted", ylabel="observed", title="calibration (ten equal groups)")
        two.set(xlabel="share contacted", ylabel="lift", title="lift", xlim=(0.01, 1))
        three.set(xlabel="probability", ylabel="rows", title="risk distribution", yscale="log")
        for axis in (one, two, three):
            axis.legend()
        return figure


def evaluate(model: Model, test: TrainingSet, *, resamples: int = 1000, seed: int = 7) -> Evaluation:
    """The model on the test rows, with a bootstrap over entities.

    Raises:
        ModelError: If there are no test rows.
    """
    if not len(test):
        raise ModelError(f"{test.target.name}: no test rows. Split at an earlier date.")
    y = test.y.to_numpy(dtype=float)
    p, other = model.probability(test.X), model.baseline.predict(test.X)
    predictions = {"model": p, "baseline": other, "base_rate": np.full(len(y), model.base_rate)}
    entities, weights = test.keys["entity_id"].to_numpy(dtype=object), test.weights.to_numpy(dtype=float)
    found = compare(test.target.name, y, predictions, entities, weights=weights, resamples=resamples, seed=seed)
    return replace(found, segments=segments(y, p, predictions["base_rate"], test.groups, entities, weights=weights,
                                            fairness=test.fairness, seed=seed))


def compare(target: str, y: Floats, predictions: Mapping[str, Floats], entities: np.ndarray[Any, Any],  # noqa: PLR0913
            *, weights: Floats | None = None, resamples: int = 1000, seed: int = 7) -> Evaluation:
    """Three predictions of the same outcomes: model, baseline, and the training rows' base_rate.

    `weights` says how much each row counts; left out: all the same.

    Skill is proven when the one-sided 99% lower bound of the model's AUC is above 0.5 and the upper bound of its log
    loss minus the base rate's is below 0.
    """
    codes, names = pd.factorize(entities)
    drawn = draws(len(names), resamples, seed)
    table: dict[str, Any] = {}
    spread = {}
    for name in ("model", "baseline", "base_rate"):
        table[name], spread[name] = resampled(y, np.clip(predictions[name], EDGE, 1 - EDGE), codes, drawn,
                                              weights)
        if name != "base_rate":
            table[f"{name}_low"], table[f"{name}_high"] = (
                quantiles(spread[name], 0.025),
                quantiles(spread[name], 0.975),
            )
    loss = METRICS.index("log_loss")
    auc_lower = float(quantiles(spread["model"], 1 - LEVEL)[METRICS.index("auc")])
    loss_upper = float(np.quantile(spread["model"][:, loss] - spread["base_rate"][:, loss], LEVEL))
    positives = int(y.sum())
    skill, why = _verdict(positives, len(y) - positives, auc_lower, loss_upper)
    return Evaluation(
        target,
        pd.DataFrame(table, index=pd.Index(METRICS, name="metric")),
        skill,
        why,
        auc_lower,
        loss_upper,
        len(y),
        positives,
        len(names),
        pd.DataFrame({"y": y, "model": predictions["model"], "baseline": predictions["baseline"]}),
    )


def _verdict(positives: int, negatives: int, auc_lower: float, loss_upper: float) -> tuple[bool, str]:
    """Whether skill is proven, and a sentence with the figures."""
    if min(positives, negatives) < FEWEST:
        return False, (f"too few {'positives' if positives < FEWEST else 'negatives'} in the test period "
                       f"({min(positives, negatives)}, at least {FEWEST} are needed).")
    shown = (
        f"the lower 99% bound of the AUC is {auc_lower:.3f} (must exceed 0.5), the upper bound of the log loss "
        f"against the "
        f"base rate's {loss_upper:+.4f} (must be below 0)."
    )
    return auc_lower > 0.5 and loss_upper < 0, shown

