"""A model on the segments of its test rows: does it rank within each, and are its probabilities right there?

Skill within a segment is proven as for the whole: its AUC surely above 0.5 and its log loss surely below the base
rate's. Of many segments some pass or fail by chance, so that both verdicts, skill and calibration, hold for all of them
together (Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979): the
chance that any is wrongly called proven is 1%, and so it is for wrongly called off the level.

A segment without proven skill is said, and its tasks are not held: the level of its probabilities still tells it from
other segments, and lack of proof in a part with few positives is no proof of lack.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from churnkit.learning.attributes import UNKNOWN
from churnkit.learning.calibrate import EDGE, Floats
from churnkit.learning.resample import FEWEST, LEVEL, aucs, draws, quantiles
from churnkit.learning.splits import Mask

COLUMNS = ("by", "segment", "rows", "positives", "predicted", "observed", "observed_low", "observed_high", "auc",
           "auc_low", "auc_high", "flagged", "caught", "skill", "calibrated", "enough", "fairness", "why", "reason")
OTHER = "other"
MOST = 8
"""An attribute has at most so many segments and OTHER."""
SHARE = 0.02
"""Values of fewer of the test rows are pooled as OTHER."""
RESAMPLES = 400
TOP = 0.10
"""The share of highest scores that counts as flagged."""
NAMED = 5
_Z = float(stats.norm.ppf(0.975))


def segments(y: Floats, p: Floats, base: Floats, groups: pd.DataFrame, entities: np.ndarray[Any, Any],  # noqa: PLR0913
             *, weights: Floats | None = None, fairness: tuple[str, ...] = (), resamples: int = RESAMPLES,
             seed: int = 7) -> pd.DataFrame:
    """One row per attribute and segment, with the columns COLUMNS.

    `predicted` is the mean probability, `observed` the share of positives; bounds hold 95% for the segment by itself.
    `flagged` is the share of rows among the highest tenth of all scores, `caught` the share of positives there. `skill`
    and `calibrated` are the verdicts, `enough` whether there were outcomes enough to judge, `why` says it in words, and
    `reason` stays empty until `doubts.doubted` names the likeliest one for which there is no skill.
    `fairness` marks the attributes that were asked for as such.

    Args:
        y: Outcomes, 0 or 1, shape (n,).
        p: Probabilities, shape (n,).
        base: The training rows' base rate for each row, shape (n,).
        groups: The attributes as words, a column each, n rows.
        entities: Whose row it is, shape (n,).
        weights: How much each row counts; left out: all the same.
        fairness: Those of the attributes.
        resamples: How many resamples of entities the bounds come from.
        seed: Of the resamples.
    """
    weights = np.ones(len(y)) if weights is None else weights
    codes, names = pd.factorize(entities)
    drawn = draws(len(names), resamples, seed)
    p, base = np.clip(p, EDGE, 1 - EDGE), np.clip(base, EDGE, 1 - EDGE)
    top = np.zeros(len(y), dtype=bool)
    top[np.argsort(-p, kind="stable")[: int(np.ceil(TOP * len(y)))]] = True
    rows, p_skill, p_level = [], [], []
    around = clinging(y, p, weights, codes, drawn)
    for by, segment, here in parts(groups):
        one = figures((y[here], p[here], base[here], weights[here]), codes[here], drawn, around)
        caught = here & (y == 1)
        rows.append({"by": by, "segment": segment, "rows": one.rows, "positives": one.positives,
                     "predicted": one.predicted, "observed": one.observed, "observed_low": one.bounds[0],
                     "observed_high": one.bounds[1], "auc": one.auc, "auc_low": one.auc_bounds[0],
                     "auc_high": one.auc_bounds[1], "flagged": float(top[here].mean()),
                     "caught": float(top[caught].mean()) if caught.any() else np.nan, "enough": one.enough,
                     "fairness": by in fairness})
        p_skill.append(one.p_skill)
        p_level.append(one.p_level)
    told = {"skill", "calibrated", "why", "reason"}
    found = pd.DataFrame(rows, columns=[name for name in COLUMNS if name not in told])
    found["skill"] = holm(np.array(p_skill)) & found["enough"].to_numpy(dtype=bool)
    found["calibrated"] = ~holm(np.array(p_level))
    found["why"] = [_why({str(name): one for name, one in row.items()}) for row in found.to_dict("records")]
    return found.assign(reason="")[list(COLUMNS)]


def holm(p: Floats, alpha: float = 1 - LEVEL) -> Mask:
    """Which hypotheses fall when the chance that any falls wrongly may be `alpha`, whatever their dependence.

    >>> holm(np.array([0.001, 0.2, 0.004]), alpha=0.01).tolist()
    [True, False, True]
    """
    order = np.argsort(p, kind="stable")
    passed = np.logical_and.accumulate(p[order] <= alpha / np.arange(len(p), 0, -1))
    found = np.zeros(len(p), dtype=bool)
    found[order] = passed
    return found


def weak(target: str, found: pd.DataFrame) -> str:
    """In how many segments skill is proven and in which it is not, where the level is surely off, and how many have too
    few outcomes; empty without segments.
    """
    if found.empty:
        return ""
    judged = found[found["enough"]]
    without, off = judged[~judged["skill"]], found[~found["calibrated"]]
    told = f"{target}: skill is proven in {int(judged['skill'].sum())} of {len(judged)} segments"
    if 0 < len(without) < len(judged):
        likely = ", {reason}" if (without["reason"] != "").all() else ""
        told += f", not in {_named(without, 'AUC {auc:.2f}, {auc_low:.2f} to {auc_high:.2f}' + likely)}"
    told += "."
    if len(off):
        told += f" The probabilities are off in {_named(off, '{predicted:.1%} predicted, {observed:.1%} observed')}."
    few = len(found) - len(judged)
    return told + (f" {few} {'has' if few == 1 else 'have'} too few outcomes to judge." if few else "")


def _named(some: pd.DataFrame, figures: str) -> str:
    """The largest of some segments by name, with figures."""
    largest = some.sort_values("rows", ascending=False, kind="stable").head(NAMED).to_dict("records")
    more = f" and {len(some) - NAMED} more" if len(some) > NAMED else ""
    return ", ".join(f"{row['by']} '{row['segment']}' ({figures.format_map(row)})" for row in largest) + more


def parts(groups: pd.DataFrame) -> Iterator[tuple[str, str, Mask]]:
    """Each attribute's segments, the largest first; an attribute with one value alone parts nothing."""
    for by in map(str, groups.columns):
        words = groups[by].to_numpy(dtype=object)
        counts = pd.Series(words).value_counts()
        ordered = counts.sort_index().sort_values(ascending=False, kind="stable")
        kept = [word for word in ordered.index if ordered[word] >= SHARE * len(words)][:MOST]
        told = np.where(np.isin(words, kept), words, OTHER).astype(object)
        parts = [*kept, *([OTHER] if len(kept) < len(ordered) and OTHER not in kept else [])]
        if len([word for word in parts if word != UNKNOWN]) > 1:
            yield from ((by, str(word), told == word) for word in parts)


def clinging(y: Floats, p: Floats, weights: Floats, codes: np.ndarray[Any, Any], drawn: Floats) -> float:
    """How many times the standard error of rows that stand alone the one of resampled entities is, over all rows: 1 or
    more, because the outcomes of an entity cling together.
    """
    total, off = (drawn @ np.bincount(codes, weights * values, minlength=drawn.shape[1])
                  for values in (np.ones(len(y)), y - p))
    return max(float(np.std(off / total)) / _alone(p, weights), 1.0)


def _alone(p: Floats, weights: Floats) -> float:
    """The standard error of a mean of outcomes that have these probabilities and nothing to do with each other."""
    return float(np.sqrt((weights ** 2 * p * (1 - p)).sum()) / weights.sum())


@dataclass(frozen=True)
class Figures:
    """A model on some rows: ranks (`auc`), level (`off`, observed less predicted) and log loss less than the base
    rate's (`gain`), each with its standard error.

    The errors come from resamples of entities and are no less than those that hold without any skill or distance,
    because resamples of a handful of positives are all too sure. `with_yes` and `with_no` count the entities that have
    a positive row and those that have a negative one.
    """

    rows: int
    positives: int
    with_yes: int
    with_no: int
    predicted: float
    observed: float
    bounds: tuple[float, float]
    off: float
    off_error: float
    gain: float
    gain_error: float
    auc: float = np.nan
    auc_error: float = np.nan
    auc_bounds: tuple[float, float] = (np.nan, np.nan)

    @property
    def enough(self) -> bool:
        """Whether there are entities enough of each outcome to judge."""
        return min(self.with_yes, self.with_no) >= FEWEST

    @property
    def p_skill(self) -> float:
        """How likely ranks and gain like these are without skill."""
        if not np.isfinite(self.auc):
            return 1.0
        return float(max(stats.norm.sf((self.auc - 0.5) / self.auc_error),
                         stats.norm.sf(self.gain / max(self.gain_error, EDGE))))

    @property
    def p_level(self) -> float:
        """How likely a level so far off is of probabilities that are right."""
        return float(2 * stats.norm.sf(abs(self.off) / max(self.off_error, EDGE)))


def figures(part: tuple[Floats, Floats, Floats, Floats], codes: np.ndarray[Any, Any], drawn: Floats,
            around: float) -> Figures:
    """The figures of some rows.

    Args:
        part: Outcomes, probabilities, base rate and weight of each row.
        codes: Each row's entity, from 0.
        drawn: How often each entity is drawn in each resample.
        around: What `clinging` finds over all rows that these are a part of.
    """
    y, p, base, weights = part
    if not len(y):
        return Figures(0, 0, 0, 0, np.nan, np.nan, (np.nan, np.nan), 0.0, EDGE, 0.0, EDGE)
    local, present = pd.factorize(codes)
    drawn, n, entities = drawn[:, present], len(y), len(present)
    with_yes, with_no = (len(np.unique(local[y == outcome])) for outcome in (1, 0))
    gain = _loss(y, base) - _loss(y, p)
    sums = [np.bincount(local, weights * values, minlength=entities) for values in (np.ones(n), y, y - p, gain)]
    with np.errstate(divide="ignore", invalid="ignore"):
        total = drawn @ sums[0]
        errors = [float(np.nanstd(drawn @ one / total)) for one in sums[1:]]
    observed, off, better = (float(one.sum() / sums[0].sum()) for one in sums[1:])
    plain = float(np.sqrt((weights ** 2).sum()) / weights.sum())
    found = Figures(n, int(y.sum()), with_yes, with_no, observed - off, observed,
                    _wilson(observed, errors[0], plain, entities), off, max(errors[1], around * _alone(p, weights)),
                    better, max(errors[2], plain * float(gain.std())))
    if not 0 < found.positives < n:
        return found
    auc, spread = aucs(y, p, local, drawn, weights)
    by_chance = around * np.sqrt((n + 1) / (12 * found.positives * (n - found.positives)))  # Mann and Whitney 1947
    low, high = (float(quantiles(spread[:, None], q)[0]) for q in (0.025, 0.975))
    return replace(found, auc=auc, auc_error=max(float(np.nanstd(spread)), by_chance), auc_bounds=(low, high))


def _loss(y: Floats, p: Floats) -> Floats:
    found: Floats = -(y * np.log(p) + (1 - y) * np.log1p(-p))
    return found


def _wilson(share: float, error: float, plain: float, entities: int) -> tuple[float, float]:
    """Wilson's 95% bounds of a share at the number of rows that its clustered error is worth.

    Where every outcome is the same there is no error, and each entity counts once.
    """
    alone = share * (1 - share)
    worth = min(alone / max(error ** 2, 1e-12), 1 / plain ** 2) if alone else float(entities)
    middle = (share + _Z ** 2 / (2 * worth)) / (1 + _Z ** 2 / worth)
    half = _Z / (1 + _Z ** 2 / worth) * float(np.sqrt(alone / worth + _Z ** 2 / (4 * worth ** 2)))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _why(row: dict[str, Any]) -> str:
    """The verdict of a segment in words, with its figures."""
    auc = f"AUC {row['auc']:.2f} ({row['auc_low']:.2f} to {row['auc_high']:.2f})"
    skill = ("skill proven, " + auc if row["skill"] else
             f"too few outcomes to judge ({row['positives']} positives in {row['rows']} rows)" if not row["enough"] else
             "no proven skill, " + auc)
    level = "" if row["calibrated"] else (
        f", predicted {row['predicted']:.1%} where {row['observed']:.1%} was observed ({row['observed_low']:.1%} to "
        f"{row['observed_high']:.1%})")
    return skill + level
