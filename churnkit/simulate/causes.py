"""The known causes: when each strikes, how it builds up and fades, and what it does to use, churn and growth.

A cause is a pair of linear states per account and week. A shock raises the driver `y`, which fades by half every
`fades` weeks; the effect `x` follows it with a lag, so that signals (drawn from `y`) precede hazards (drawn from `x`).
Because both are linear, what the state at a cutoff says of any later week has a closed form: that is the truth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from churnkit.simulate.world import AHEAD, WARM, Array, World, since


@dataclass(frozen=True)
class Cause:
    """One cause: how often a year, how it fades and lags (weeks), and its pull on log hazards and log use."""

    name: str
    yearly: float
    fades: float
    lags: float
    churn: float
    use: float = 0.0
    growth: float = 0.0
    contact: float = 0.0
    """Change of the log churn hazard that outreach brings while the cause is at work; below zero helps."""
    sale: float = 0.0
    """Change of the log hazard of expanding that a sales talk brings then; above zero helps."""


CAUSES = (
    Cause("champion_left", 0.22, fades=20, lags=3, churn=2.0, use=-1.0, growth=-0.5, contact=-0.7, sale=-0.2),
    Cause("price_rise", 0.2, fades=18, lags=1.5, churn=1.6, use=-0.15, growth=-0.2, contact=-0.2),
    Cause("bug_burst", 0.35, fades=9, lags=3, churn=1.7, use=-0.35, growth=-0.3, contact=-0.5, sale=-0.3),
    Cause("slow_support", 0.22, fades=12, lags=3, churn=1.4, use=-0.2, growth=-0.2, contact=-0.6, sale=-0.3),
    Cause("payment_trouble", 0.17, fades=12, lags=3, churn=1.8, use=-0.15, growth=-0.6, contact=0.1, sale=-0.3),
    Cause("never_adopted", 0.0, fades=60, lags=0.5, churn=1.8, use=-1.4, growth=-1.0, contact=-0.4, sale=-0.2),
    Cause("growth", 0.4, fades=20, lags=2, churn=-0.8, use=0.7, growth=2.9, sale=0.5),
)
FELT = 1.5
"""How much of a cause a contact can take up at most; a cause's usual peak is 1."""
HARM = 0.5
"""Change of a sleeping dog's log churn hazard by any contact, whatever is at work."""
FADES = 8
"""Weeks in which half of a contact's effect is gone."""
SURPRISES = 64
"""Paths of shocks yet to come over which the truth averages."""
INDEX = {cause.name: number for number, cause in enumerate(CAUSES)}
_ADOPTION = INDEX["never_adopted"]
_PRICE = INDEX["price_rise"]


@dataclass(frozen=True)
class States:
    """Driver and effect of every cause, arrays of shape (weeks, causes, accounts), and the shocks that raised them."""

    y: Array
    x: Array
    shocks: Array
    ry: Array
    rx: Array
    gain: Array
    churn: Array
    growth: Array
    base_churn: Array
    base_growth: Array

    def driver(self, name: str) -> Array:
        """The driver of one cause, shape (weeks, accounts); a fresh shock of usual size is 1."""
        return self.y[:, INDEX[name]]

    def effect(self, name: str) -> Array:
        """The effect of one cause, shape (weeks, accounts); its peak after a shock of usual size is 1."""
        return self.x[:, INDEX[name]]

    def some(self, accounts: Array) -> States:
        """These accounts alone."""
        cut = {name: getattr(self, name)[:, :, accounts] for name in ("y", "x", "shocks")}
        return replace(self, **cut, base_churn=self.base_churn[accounts], base_growth=self.base_growth[accounts])

    def log_hazard(self, pull: Array, base: Array) -> Array:
        """Log hazard by week and account, up to a constant."""
        return np.asarray(np.einsum("wca,c->wa", self.x, pull) + base)

    def foreseen(self, week: int, pull: Array, base: Array) -> Array:
        """The log hazard that the state at the beginning of `week` foresees for it and the AHEAD next weeks.

        Shape (AHEAD + 1, accounts). Shocks yet to come are unforeseen; `surprises` draws what they may add.
        """
        lags = np.arange(1, AHEAD + 2)[:, None]
        held = self.rx**lags
        lag = (1 - self.rx) * self.ry * (self.ry**lags - self.rx**lags) / (self.ry - self.rx)
        seen_x, seen_y = self.x[week - 1], self.y[week - 1]
        return np.asarray((held * pull) @ seen_x + (lag * pull * self.gain) @ seen_y + base)

    def surprises(self, week: int, log_hazard: Array, foreseen: Array, dice: np.random.Generator) -> Array:
        """What shocks yet to come may add to the foreseen log hazard: SURPRISES paths, shape (AHEAD + 1, SURPRISES).

        New shocks do not depend on the state at the cutoff, so what they brought to accounts drawn at random is a fair
        sample of what they may bring to any.
        """
        some = dice.integers(0, log_hazard.shape[1], SURPRISES)
        return np.asarray(log_hazard[week:week + AHEAD + 1, some] - foreseen[:, some])


def strike(world: World, price_weeks: Array) -> States:
    """Draws the shocks and runs the states through all weeks.

    `price_weeks` (weeks, accounts) is True where a contract's month begins: prices rise then only.
    """
    dice = world.dice("causes")
    weeks, size = world.clock.all_weeks, world.size
    yearly = np.array([cause.yearly for cause in CAUSES])
    chance = np.broadcast_to((yearly / 52.18)[None, :, None], (weeks, len(CAUSES), size)).copy()
    chance[:, _PRICE] = np.where(price_weeks, yearly[_PRICE] / 12, 0.0)
    struck = dice.random(chance.shape, dtype=np.float32) < chance
    sizes = 0.6 + 0.8 * dice.random(chance.shape, dtype=np.float32)
    shocks = np.where(struck, sizes, 0).astype(np.float32)
    joined = world.clock.week(world.joined)
    alive = np.arange(weeks)[:, None] >= joined[None, :]
    shocks *= alive[:, None, :]
    age = np.maximum(0, since(world.joined, world.clock.start) / 7 - WARM)
    unused = np.where(dice.random(size) < 0.16, 0.8 + 0.4 * dice.random(size), 0)
    shocks[joined, _ADOPTION, np.arange(size)] = unused * 0.5 ** (age / CAUSES[_ADOPTION].fades)
    return _run(world, shocks)


def _run(world: World, shocks: Array) -> States:
    ry = 0.5 ** (1 / np.array([cause.fades for cause in CAUSES]))
    rx = np.exp(-1 / np.array([cause.lags for cause in CAUSES]))
    steps = np.arange(1, 60)[:, None]
    gain = 1 / ((1 - rx) * (ry**steps - rx**steps) / (ry - rx)).max(axis=0)
    y, x = np.zeros_like(shocks), np.zeros_like(shocks)
    for week in range(len(shocks)):
        y[week] = ry[:, None] * y[week - 1] + shocks[week] if week else shocks[week]
        x[week] = (rx[:, None] * x[week - 1] if week else 0) + ((1 - rx) * gain)[:, None] * y[week]
    strength = world.dials.causes
    churn = strength * np.array([cause.churn for cause in CAUSES])
    growth = strength * np.array([cause.growth for cause in CAUSES])
    base_churn = strength * (-0.35 * world.temper + np.array([0.25, 0.0, -0.3])[world.segment])
    base_growth = strength * (0.45 * world.appetite + 0.1 * world.temper)
    return States(y, x, shocks, ry, rx, gain, churn, growth, base_churn, base_growth)


def contact_effect(world: World, states: States, accounts: Array, week: Array) -> Array:
    """True change of an account's log churn hazard if a person speaks with it in that week; one value a pair.

    Causes that a person can mend pull it below zero; a sleeping dog is woken whatever is at work.
    """
    helped = _by_cause(states, accounts, week, [cause.contact for cause in CAUSES]) - 0.05
    return np.where(world.sleeping[accounts], HARM, helped)


def sale_effect(states: States, accounts: Array, week: Array) -> Array:
    """The same of the log hazard of expanding, by a sales talk: it moves those who grow, and tires the troubled."""
    return _by_cause(states, accounts, week, [cause.sale for cause in CAUSES]) + 0.08


def _by_cause(states: States, accounts: Array, week: Array, pull: list[float]) -> Array:
    return np.asarray(np.minimum(states.x[week - 1, :, accounts], FELT) @ np.array(pull))


def fading(weeks: Array) -> Array:
    """What is left of a contact's effect, so many weeks after its first one; nothing before it.

    >>> fading(np.array([-1, 0, 8])).tolist()
    [0.0, 1.0, 0.5]
    """
    return np.where(weeks < 0, 0.0, 0.5 ** (np.maximum(weeks, 0) / FADES))


def active(states: States, week: int) -> list[str]:
    """The causes at work at the beginning of a week, one text per account, joined by `;`."""
    on = states.x[week - 1] + states.y[week - 1] > 0.4
    texts: dict[tuple[bool, ...], str] = {}
    rows = [tuple(row) for row in on.T.tolist()]
    for row in set(rows):
        texts[row] = ";".join(cause.name for cause, there in zip(CAUSES, row, strict=True) if there)
    return [texts[row] for row in rows]


def observed(weekly: Array, weeks: int) -> Array:
    """The book's own weeks of a (weeks, accounts) array, as (accounts, weeks)."""
    return weekly[WARM:WARM + weeks].T
