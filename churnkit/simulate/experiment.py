"""Many seeded experiments at once: customers with causes, scores, and what comes of each with outreach and without.

The causes, their pull on the hazard and what contact does about them are those of the simulated book. Both outcomes of
each customer are drawn, so that the truth is known; the caller draws the arms and may look only at the one outcome that
the arm shows. Arrays have the shape (runs, accounts).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np

from churnkit.simulate.causes import CAUSES
from churnkit.simulate.world import SEGMENTS, Array

NAMES = (*(cause.name for cause in CAUSES if cause.contact), "none")
"""What may be at work: one of the causes that a person can do something about, or none."""
_PULL = np.array([*(cause.churn for cause in CAUSES if cause.contact), 0.0])
_CONTACT = np.array([*(cause.contact for cause in CAUSES if cause.contact), 0.0])
_OFTEN = np.array([*(cause.yearly or 0.2 for cause in CAUSES if cause.contact)])
_BY_SEGMENT = np.array([0.6, 1.0, 1.3])
"""How much of what contact does it does in each segment: larger customers are easier to reach."""


@dataclass(frozen=True)
class Design:
    """The setting of the experiments.

    `rate` is the share of all that leave within 90 days without outreach. `contact` replaces causes' change of
    the log hazard; above zero outreach harms. `noise` blurs the log hazard that the score sees. `strength` is a factor
    on what contact does. `days` is how long triggers come in.
    """

    accounts: int = 6000
    rate: float = 0.06
    noise: float = 0.6
    strength: float = 1.0
    days: int = 540
    contact: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiments:
    """Customers, their scores and both their outcomes; `day` is when a play would open for each.

    `untouched` and `contacted` are the true probabilities to leave, `left` and `left_contacted` what comes of each.
    """

    segment: Array
    cause: Array
    value: Array
    mrr: Array
    day: Array
    score: Array
    untouched: Array
    contacted: Array
    left: Array
    left_contacted: Array

    @property
    def uplift(self) -> Array:
        """How much less likely each is to leave if contacted; below zero for those whom outreach drives away."""
        return self.untouched - self.contacted

    def seen(self, treated: Array) -> Array:
        """What is observed once the arms are drawn."""
        return np.where(treated, self.left_contacted, self.left)

    def run(self, number: int) -> Experiments:
        """One of the experiments; its arrays have the shape (accounts,)."""
        return Experiments(*(getattr(self, one.name)[number] for one in fields(self)))


def experiments(design: Design, runs: int, seed: int) -> Experiments:
    """Draws `runs` experiments; the same arguments give the same numbers.

    >>> made = experiments(Design(accounts=500), runs=2, seed=1)
    >>> made.score.shape
    (2, 500)
    """
    dice = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(5,)))
    shape = (runs, design.accounts)
    segment = dice.choice(len(SEGMENTS), shape, p=[0.5, 0.34, 0.16])
    cause = np.where(dice.random(shape) < 0.4, dice.choice(len(_OFTEN), shape, p=_OFTEN / _OFTEN.sum()), len(_OFTEN))
    size = np.where(cause < len(_OFTEN), dice.uniform(0.4, 1.3, shape), 0.0)
    temper = dice.standard_normal(shape)
    log_hazard = 1.25 * (_PULL[cause] * size - 0.35 * temper + np.array([0.25, 0.0, -0.3])[segment])
    for _ in range(4):  # to the rate that was asked for
        log_hazard += np.log(design.rate / -np.expm1(-np.exp(log_hazard)).mean())
    contact = np.array([design.contact.get(name, one) for name, one in zip(NAMES, _CONTACT, strict=True)])
    quiet = (cause == len(_OFTEN)) & (temper > -0.3) & (dice.random(shape) < 0.5)
    effect = design.strength * (contact[cause] * size * _BY_SEGMENT[segment] - 0.05 + np.where(quiet, 0.4, 0.0))
    untouched, contacted = (-np.expm1(-np.exp(log)) for log in (log_hazard, log_hazard + effect))
    chance = dice.random(shape)  # one die for both outcomes, so that contact changes as few of them as it can
    mrr = np.exp(np.log([300.0, 1500.0, 8000.0])[segment] + 0.6 * dice.standard_normal(shape))
    return Experiments(
        segment, cause, value=mrr * 12 * 0.8, mrr=mrr, day=dice.integers(design.days, size=shape),
        score=_score(log_hazard, design.noise, dice), untouched=untouched, contacted=contacted,
        left=chance < untouched, left_contacted=chance < contacted)


def _score(log_hazard: Array, noise: float, dice: np.random.Generator) -> Array:
    """A calibrated model's probability that sees the log hazard through noise: about its mean given what it sees."""
    seen = log_hazard + noise * dice.standard_normal(log_hazard.shape)
    mean, spread = log_hazard.mean(), log_hazard.var()
    slope = spread / (spread + noise**2)
    return np.asarray(-np.expm1(-np.exp(mean + slope * (seen - mean) + slope * noise**2 / 2)))
