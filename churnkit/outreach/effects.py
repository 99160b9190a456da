"""What works: each play's effect by cause and segment, learnt from the control group and shrunk where little is known.

A play's effect is the share of the expected outcome that it turns. In each cell (cause and segment) the control group
shows how far outcomes lie from their scores, and the treated how far with outreach; the difference is the effect. One
linear model over all cells says how much to believe of it: both the scores' error and the effect are sums of the
play's own, the cause's and the segment's within the cause, each normal around the one above (Lindley and Smith, "Bayes
estimates for the linear model", Journal of the Royal Statistical Society B 1972). How far causes and segments differ is
averaged over, with half-normal priors (Gelman, "Prior distributions for variance parameters in hierarchical models",
Bayesian Analysis 2006). Without scores each cell's own control customers are all that counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd

from churnkit.errors import OutreachError
from churnkit.outreach.impact import OUTCOMES, OWN
from churnkit.outreach.rates import Floats, z_of

EFFECTS = ("play", "cause", "segment", "effect", "sd", "low", "high", "n_treated", "n_control", "prior")
"""One row per play, per cause of it (segment ""), and per segment of that: `effect` is the posterior mean of the share
that the play turns, below zero where it harms, `low` and `high` hold it with 95%, `prior` is what the policy says."""
SPREADS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {"cause": (0.04, 0.12, 0.24, 0.40), "segment": (0.03, 0.10, 0.20), "score": (0.04, 0.12, 0.24)})
"""How far causes, segments within one, and the scores' errors between causes may differ: standard deviations, as shares
of what is expected, to be averaged over."""
SCALE: Mapping[str, float] = MappingProxyType({"cause": 0.25, "segment": 0.12, "score": 0.15})
"""Scale of the half-normal priors on these."""
LEVEL_SPREAD, UNSCORED = 0.3, 1.0
"""How far all of a play's scores together may be off, and how far causes lie apart where there are no scores."""
_COLUMNS = ("play", "target", "cause", "segment", "arm", "score")


@dataclass(frozen=True)
class Prior:
    """What is believed of a play before any customer: its effect, and how much that belief is worth.

    `weight` is in control customers, with all the treated ones that it takes. With much less than the default, the
    first few customers decide what is tried at all, and what is no longer tried is no longer learnt of.
    """

    effect: float
    weight: float = 200.0


class _Cells(NamedTuple):
    """A play's outcomes by cell, as shares of what was expected: first the control's, then the treated's.

    `off` is how far they lie from it and `noise` the variance of that, both of shape (2, cells), as `many` is.
    """

    keys: pd.DataFrame
    many: Floats
    off: Floats
    noise: Floats
    base: float
    good: int
    scored: bool


def learn(units: pd.DataFrame, priors: Mapping[str, Prior]) -> pd.DataFrame:
    """Each play's effect, by cause and segment.

    Args:
        units: impact.UNITS; rows whose outcome is not known yet, of the reserve, and those that took a slot which was
            passed on, are left out. Scores, where there are any, make the arms comparable.
        priors: What the policy believes of each play.

    Returns:
        EFFECTS for every play of the priors, those without a customer too.

    Raises:
        OutreachError: If a column is missing.
    """
    lacking = [name for name in _COLUMNS if name not in units]
    if lacking:
        raise OutreachError(f"Effects cannot be learnt: the customers lack the column '{lacking[0]}'.")
    rows = units[units["arm"].isin(["treated", "control"]) & units["play"].isin(list(priors))]
    if "passed_on" in rows:
        rows = rows[~rows["passed_on"].astype("boolean").fillna(value=False).to_numpy(dtype=bool)]
    found = []
    for play, prior in priors.items():
        mine = rows[rows["play"] == play]
        outcome = OWN[mine["target"].iloc[0]] if len(mine) else ""
        mine = mine[mine[outcome].notna()] if outcome in mine else mine.iloc[:0]
        found.append(_posterior(_cells(mine, outcome), prior).assign(play=play, prior=prior.effect))
    frame = pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=list(EFFECTS))
    return frame[list(EFFECTS)]


def effect_of(effects: pd.DataFrame, play: pd.Series, cause: pd.Series, segment: pd.Series) -> pd.Series:
    """The effect of each candidate's play for its cause and segment; where one is not known, that of what holds it.

    Args:
        effects: EFFECTS.
        play: Each candidate's play.
        cause: Why it opened; may be blank.
        segment: Whose; may be blank.

    Returns:
        Effects with the index of `play`; NaN for plays that are not in `effects`.
    """
    known = effects.set_index(["play", "cause", "segment"])["effect"]
    blank = pd.Series("", play.index)
    why, who = cause.fillna("").astype(str), segment.fillna("").astype(str)
    found = pd.Series(np.nan, play.index, dtype=float)
    for keys in ((play, why, who), (play, why, blank), (play, blank, blank)):
        wanted = pd.MultiIndex.from_arrays(keys)
        found = found.fillna(pd.Series(known.reindex(wanted).to_numpy(dtype=float), play.index))
    return found


def _cells(rows: pd.DataFrame, outcome: str) -> _Cells:
    """What was expected and what came, by cell."""
    if rows.empty:
        nothing = np.empty((2, 0))
        return _Cells(pd.DataFrame(columns=["cause", "segment"]), nothing, nothing, nothing, 0.2, 1, scored=True)
    y = np.minimum(rows[outcome].to_numpy(dtype=float), 1.0)  # whether, not how often
    treated = (rows["arm"] == "treated").to_numpy()
    score = rows["score"].to_numpy(dtype=float)
    scored = bool(np.isfinite(score).any())
    left_alone = (y[~treated].sum() + max(y.mean(), 1 / len(y))) / ((~treated).sum() + 1)
    score = np.where(np.isfinite(score), score, np.nanmean(score) if scored else left_alone)
    codes, index = pd.factorize(pd.MultiIndex.from_frame(rows[["cause", "segment"]].fillna("").astype(str)), sort=True)
    sums = [[np.bincount(codes, arm * one, len(index)) for arm in (~treated, treated)] for one in (1.0, y, score)]
    many, came, expected = (np.stack(one).astype(float) for one in sums)
    base = expected.sum(axis=0) / many.sum(axis=0)
    rate = (came + 4 * base) / (many + 4)  # so that a cell without an event is not certain of it
    counts = np.maximum(many, 1)
    noise = np.where(many > 0, rate * (1 - rate) / counts / base**2, np.inf)
    keys = pd.DataFrame({"cause": [key[0] for key in index], "segment": [key[1] for key in index]})
    return _Cells(keys, many, (came - expected) / counts / base, noise, float(score.mean()), OUTCOMES[outcome].good,
                  scored)


def _posterior(cells: _Cells, prior: Prior) -> pd.DataFrame:
    """The play, its causes and their segments, averaged over how far they may differ."""
    keys = cells.keys
    causes, codes = np.unique(keys["cause"].to_numpy(dtype=str), return_inverse=True)
    tree = np.hstack([np.ones((len(keys), 1)), np.eye(len(causes))[codes] if len(keys) else np.empty((0, 0)),
                      np.eye(len(keys))])
    nothing = np.zeros_like(tree)
    told = np.isfinite(cells.noise).ravel()
    design = np.vstack([np.hstack([tree, nothing]), np.hstack([tree, cells.good * tree])])[told]
    seen = (cells.off - np.array([[0.0], [cells.good * prior.effect]])).ravel()[told]
    above = np.zeros((1 + len(causes), tree.shape[1]))  # the play, and each cause
    above[:, 0], above[1:, 1:1 + len(causes)] = 1, np.eye(len(causes))
    wanted = np.vstack([above, tree])
    wanted = np.hstack([np.zeros_like(wanted), wanted])
    start = (1 - cells.base) / cells.base / max(prior.weight, 1e-9)
    logs, means, variances = [], [], []
    for between, within, score in itertools.product(*SPREADS.values()):
        sizes = (1, len(causes), len(keys))
        off = (LEVEL_SPREAD, score, score / 2) if cells.scored else (UNSCORED, UNSCORED, UNSCORED)
        spread = np.concatenate([np.repeat(off, sizes), np.repeat([np.sqrt(start), between, within], sizes)]) ** 2
        log, mean, variance = _solve(design, spread, wanted, (seen, cells.noise.ravel()[told]))
        logs.append(log - 0.5 * sum((one / SCALE[name]) ** 2 for name, one in
                                    zip(SPREADS, (between, within, score), strict=True)))
        means.append(prior.effect + mean)
        variances.append(variance)
    weights = np.exp(np.array(logs) - max(logs)) * _steps()
    weights /= weights.sum()
    mean = weights @ np.array(means)
    sd = np.sqrt(weights @ (np.array(variances) + (np.array(means) - mean) ** 2))
    many = np.vstack([cells.many.sum(axis=1), *(cells.many[:, codes == one].sum(axis=1) for one in range(len(causes))),
                      cells.many.T]).astype(int)
    frame = pd.DataFrame({"cause": ["", *causes, *keys["cause"]], "segment": [*[""] * len(above), *keys["segment"]],
                          "effect": np.minimum(mean, 1.0), "sd": sd, "low": mean - z_of() * sd,
                          "high": np.minimum(mean + z_of() * sd, 1.0), "n_treated": many[:, 1],
                          "n_control": many[:, 0]})
    return frame.drop_duplicates(["cause", "segment"], ignore_index=True)  # where cause or segment is not known


def _solve(design: Floats, spread: Floats, wanted: Floats, data: tuple[Floats, Floats]) -> tuple[float, Floats, Floats]:
    """Log evidence, and the posterior mean and variance of the wanted sums, of a linear model with known variances."""
    y, noise = data
    around = (design * spread) @ design.T + np.diag(noise)
    cross = (wanted * spread) @ design.T
    solved = np.linalg.solve(around, np.column_stack([y, cross.T])) if len(y) else np.empty((0, 1 + len(wanted)))
    log = -0.5 * float(y @ solved[:, 0]) - 0.5 * float(np.linalg.slogdet(around)[1]) if len(y) else 0.0
    return (log, cross @ solved[:, 0],
            (wanted**2 * spread).sum(axis=1) - (cross * solved[:, 1:].T).sum(axis=1))


def _steps() -> Floats:
    """The width that each combination of SPREADS stands for."""
    found: Floats = np.array([np.prod(one) for one in itertools.product(*map(np.gradient, SPREADS.values()))])
    return found
