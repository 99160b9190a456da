"""Does the proof hold? The measuring and the learning of effects on simulated experiments whose truth is known."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from churnkit.errors import ModelError
from churnkit.outreach.control import systematic
from churnkit.outreach.estimate import Data, compare
from churnkit.outreach.rates import Limits
from churnkit.simulate.experiment import Design, Experiments, experiments
from churnkit.simulate.world import Array

OPENS = 0.12
"""The score at which the simulated play opens."""
CHUNK = 50


@dataclass(frozen=True)
class Coverage:
    """How often intervals held the truth, over runs; `at_every_look` counts runs in which none of the looks missed.

    `fixed` and `adjusted` are the intervals at the planned date, by triggered customers, `enrolled` the one over all
    customers that were drawn. `fixed_at_every_look` is what comes of reading the fixed one at every look.
    """

    runs: int
    looks: int
    triggered: float
    control: float
    events: float
    effect: float
    fixed: float
    adjusted: float
    enrolled: float
    at_every_look: float
    fixed_at_every_look: float
    gain: float
    bias: float
    seconds: float


def coverage(design: Design, runs: int = 1000, *, share: float = 0.1, looks: int = 10, seed: int = 1) -> Coverage:
    """Runs experiments and measures each, as a report would, at a row of dates and at the planned one, the last.

    The truth that an interval must hold is the mean of the true effects of the customers that it is about.

    Args:
        design: The world.
        runs: How many experiments.
        share: Of the control group.
        looks: How often somebody looks, evenly over the time in which outcomes come in.
        seed: Of everything.
    """
    began, found = time.perf_counter(), []
    for start in range(0, runs, CHUNK):
        made = experiments(design, min(CHUNK, runs - start), seed * 10_000 + start)
        arms = ~control(made, share, np.random.default_rng([seed, start]))
        found += [_looked(made.run(number), arms[number], looks, design.days) for number in range(len(arms))]
    means = {name: float(np.mean([one[name] for one in found])) for name in found[0]}
    return Coverage(runs, looks, seconds=time.perf_counter() - began, **means)


def control(made: Experiments, share: float, dice: np.random.Generator) -> Array:
    """The control group of every experiment, by the rule of control.py: systematic within segment and band of value."""
    band = np.floor(np.log10(np.maximum(made.value, 1)) * 2).astype(int)
    stratum = ((np.arange(len(band))[:, None] * 3 + made.segment) * 20 + band).ravel()
    order = np.lexsort((dice.random(len(stratum)), stratum))  # a random number is what a salted hash is
    first = np.append(True, np.diff(stratum[order]) > 0)
    group = np.cumsum(first) - 1
    place = np.arange(len(order)) - np.flatnonzero(first)[group]
    held = np.empty(len(order), bool)
    held[order] = systematic(place.astype(float), dice.random(group[-1] + 1)[group], share)
    return held.reshape(band.shape)


def _looked(one: Experiments, treated: Array, looks: int, days: int) -> dict[str, float]:
    """One experiment, looked at again and again, from the first look at which either arm has two customers."""
    opened = one.score >= OPENS
    y = np.where(opened, one.seen(treated), one.left).astype(float)  # those for whom nothing opened are left alone
    held, held_fixed, truth, last = True, True, 0.0, None
    for day in np.linspace(0, days, looks + 1)[1:]:
        rows = opened & (one.day < day)
        if min((rows & treated).sum(), (rows & ~treated).sum()) < 2:
            continue
        last = compare(Data(y[rows], treated[rows], one.score[rows, None]), planned=float(opened.sum()))
        truth = -float(one.uplift[rows].mean())
        held &= _holds(last.always, truth)
        held_fixed &= _holds(last.closer, truth)
    if last is None:
        raise ModelError("An experiment has no customers in one of its arms. Give the design more accounts.")
    whole = compare(Data(y, treated, one.score[:, None]), planned=float(len(y)))
    return {"triggered": float(opened.sum()), "control": float((opened & ~treated).sum()),
            "events": float(y[opened & ~treated].sum()), "effect": truth,
            "fixed": _holds(last.fixed, truth), "adjusted": _holds(last.closer, truth),
            "enrolled": _holds(whole.closer, -float((one.uplift * opened).mean())),
            "at_every_look": held, "fixed_at_every_look": held_fixed,
            "gain": last.gain, "bias": last.adjusted.value - truth}


def _holds(limits: Limits, truth: float) -> bool:
    return bool(limits.low <= truth <= limits.high)
