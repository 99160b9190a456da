"""What the simulated book is made of before any row is written: its clock, dials, dice, and its accounts' traits."""

from __future__ import annotations

import datetime as dt
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from churnkit.cutoffs import moment
from churnkit.errors import SettingsError, did_you_mean

Array = npt.NDArray[Any]
Difficulty = Literal["easy", "normal", "hard"]

WARM = 40
"""Weeks of hidden history before the first row, so that causes are under way when the book opens."""
AHEAD = 16
"""Weeks simulated past the end: the outcomes of the last cutoffs, known to the truth alone."""
_TRAITS = ("ids", "segment", "industry", "country", "owner", "joined", "term", "plan", "seats", "temper", "appetite")
DAY = np.timedelta64(86400, "s")
NAT = np.datetime64("NaT", "s")

SEGMENTS = ("small", "mid", "large")
INDUSTRIES = ("logistics", "manufacturing", "retail", "food", "energy", "software", "healthcare", "construction")
COUNTRIES = ("DE", "FR", "ES", "GB", "NL", "SE", "AT", "US")
LANGUAGES = ("en", "de", "fr", "es")
LANGUAGE_OF = np.array([1, 2, 3, 0, 0, 0, 1, 0])
ZONES = ("Europe/Berlin", "Europe/Paris", "Europe/Madrid", "Europe/London", "Europe/Amsterdam", "Europe/Stockholm",
         "Europe/Vienna", "America/New_York")
TERMS = (1, 3, 12)
"""Months of a contract's term."""
PLANS = ("team", "business", "enterprise")
ADDONS = ("analytics", "priority-support")
PRICES = np.array([19.0, 32.0, 49.0])
"""Euros a seat and month, by plan."""


@dataclass(frozen=True)
class Dials:
    """How strongly causes act on what is to be predicted, and how much chance and habit blur it."""

    causes: float
    """Factor on what causes and traits do to log hazards."""
    annual: float
    """Factor on the share of annual contracts, whose known end gives much away."""
    wear: float
    """Factor on how plainly wear shows in the sensors."""
    leaving: float
    """Chance that an untroubled account on a monthly contract leaves at a month's end."""
    growing: float
    """Chance that an average account expands in a week."""


DIALS: dict[str, Dials] = {
    "easy": Dials(causes=1.7, annual=1.0, wear=1.6, leaving=0.0011, growing=0.0004),
    "normal": Dials(causes=1.25, annual=0.8, wear=1.0, leaving=0.0024, growing=0.0008),
    "hard": Dials(causes=0.7, annual=0.3, wear=0.35, leaving=0.0056, growing=0.0018),
}


@dataclass(frozen=True)
class Clock:
    """The grid of weeks: week `WARM` begins at `start`; data end at `end`, `weeks` later."""

    start: np.datetime64
    end: np.datetime64
    weeks: int

    @property
    def all_weeks(self) -> int:
        """Weeks of the hidden grid: warm-up, the book, and those past its end."""
        return WARM + self.weeks + AHEAD + 1

    @property
    def days(self) -> int:
        """Days of the book."""
        return 7 * self.weeks

    def week(self, times: Array) -> Array:
        """The hidden grid's week of each time, kept inside the grid."""
        return np.clip((times - self.start) // (7 * DAY) + WARM, 0, self.all_weeks - 1).astype(np.int64)

    def cutoffs(self, step: int) -> Array:
        """Cutoffs from the book's 12th week to its end, `step` days apart, the last one at the end."""
        count = (self.days - 84) // step + 1
        return self.end - np.arange(count)[::-1] * step * DAY


@dataclass(frozen=True)
class World:
    """The hidden setting that every table is drawn from. Arrays hold one value an account."""

    clock: Clock
    dials: Dials
    seed: int
    ids: Array
    segment: Array
    industry: Array
    country: Array
    owner: Array
    owners: int
    joined: Array
    term: Array
    plan: Array
    seats: Array
    temper: Array
    """Standing satisfaction, about normal: high is content. It shows in ratings and moods, and lowers the hazard."""
    appetite: Array
    """Standing wish to grow, about normal. It shows in the share of seats in use."""
    stream: tuple[int, ...] = ()
    """Which other course of things this is; the world itself has none. Each throws dice of its own."""
    place: Array | None = None
    """Where these accounts stand in the whole world, if they are some of it."""
    whole: int = 0
    """How many accounts the whole world has, if these are some of it."""

    @property
    def size(self) -> int:
        """How many accounts."""
        return len(self.ids)

    @property
    def language(self) -> Array:
        """Index into LANGUAGES."""
        return LANGUAGE_OF[self.country]

    def dice(self, topic: str, part: int = 0) -> np.random.Generator:
        """Random numbers for one topic alone, so that a new table never changes another."""
        key = (zlib.crc32(topic.encode()), part, *self.stream)
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))

    def own(self, topic: str, draw: Callable[[np.random.Generator, int], Array]) -> Array:
        """What every account has for good, the first that the topic's dice give: the same on any course of things."""
        dice = replace(self, stream=()).dice(topic) if self.stream else self.dice(topic)
        drawn = draw(dice, self.whole or self.size)
        return drawn if self.place is None else drawn[self.place]

    @property
    def mark(self) -> str:
        """What ids of rows begin with that another course of things brings, so that they are nobody else's."""
        return f"{self.ids[0]}.{self.stream[-1]}-" if self.stream else ""

    @property
    def sleeping(self) -> Array:
        """Sleeping dogs, whom any call reminds that they could leave: mostly small, content ones who want no more.

        It cannot be seen. What goes with it can: few seats and so few tickets, few touches, good ratings.
        """
        calm = (self.segment == 0) & (self.temper > -0.2) & (self.appetite < 0.4)
        return np.asarray(self.own("sleeping", np.random.Generator.random) < np.where(calm, 0.45, 0.02))

    def some(self, place: Array, stream: tuple[int, ...]) -> World:
        """These accounts alone, on a course of things of their own."""
        traits = {name: getattr(self, name)[place] for name in _TRAITS}
        return replace(self, **traits, stream=stream, place=place, whole=self.size)


def build(accounts: int, months: int, seed: int, end: str | dt.date, difficulty: str) -> World:
    """Draws the setting.

    Raises:
        SettingsError: If a size is out of bounds or the difficulty is unknown.
    """
    if accounts < 1 or accounts > 1_000_000:
        raise SettingsError(f"accounts = {accounts} cannot be simulated. Choose between 1 and 1,000,000.")
    if months < 6 or months > 120:
        raise SettingsError(f"months = {months} cannot be simulated: labels need about 5 months. "
                            "Choose between 6 and 120.")
    if difficulty not in DIALS:
        raise SettingsError(f"There is no difficulty '{difficulty}'.{did_you_mean(difficulty, DIALS)} "
                            f"Known: {', '.join(DIALS)}.")
    if seed < 0:
        raise SettingsError(f"seed = {seed} is negative. Choose a whole number from 0.")
    until = np.datetime64(moment(end).replace(tzinfo=None), "D").astype("datetime64[s]")
    weeks = round(months * 365.25 / 12 / 7)
    clock = Clock(until - weeks * 7 * DAY, until, weeks)
    dice = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    segment = dice.choice(3, accounts, p=[0.5, 0.34, 0.16])
    owners = max(2, accounts // 40)
    seats = np.exp(np.log([8.0, 35.0, 120.0])[segment] + 0.5 * dice.standard_normal(accounts))
    gone = dice.random(accounts) < 0.01  # still in the name of the account manager who is no longer there
    return World(
        clock, DIALS[difficulty], seed, ids=labels("A", accounts),
        segment=segment, industry=dice.integers(len(INDUSTRIES), size=accounts),
        country=dice.choice(len(COUNTRIES), accounts, p=[0.32, 0.16, 0.12, 0.12, 0.08, 0.06, 0.06, 0.08]),
        owner=np.where(gone, owners + 1, dice.integers(owners, size=accounts)), owners=owners,
        joined=_joined(clock, dice, accounts),
        term=_term(DIALS[difficulty], segment, dice), plan=np.minimum(2, segment // 2 + (dice.random(accounts) < 0.35)),
        seats=np.maximum(2, seats).astype(int),
        temper=dice.standard_normal(accounts), appetite=dice.standard_normal(accounts),
    )


def labels(prefix: str, count: int) -> Array:
    """Ids such as A00017: as wide as the largest, at least five digits, so that text order is number order.

    >>> labels("A", 2).tolist()
    ['A00001', 'A00002']
    """
    width = max(5, len(str(count)))
    return np.array([f"{prefix}{number:0{width}d}" for number in range(1, count + 1)], dtype=object)


def seconds(count: Array) -> Array:
    """Spans of time, cut to whole seconds."""
    return np.asarray(count).astype("timedelta64[s]")


def since(start: Array, end: Array | np.datetime64) -> Array:
    """Days from `start` to `end`, as floats."""
    return np.asarray((end - start).astype("timedelta64[s]").astype(float) / 86400)


def days(count: Array) -> Array:
    """Spans of time from days, whole or not, cut to whole seconds."""
    return seconds(np.asarray(count) * 86400.0)


def _joined(clock: Clock, dice: np.random.Generator, accounts: int) -> Array:
    """First contract's start: two thirds before the book opens (up to four years), the others all along it."""
    before = clock.start - days(dice.random(accounts) * 4 * 365)
    during = clock.start + days(dice.random(accounts) * (clock.days - 28))
    return np.where(dice.random(accounts) < 0.66, before, during).astype("datetime64[s]")


def _term(dials: Dials, segment: Array, dice: np.random.Generator) -> Array:
    """Months of a contract's term: 1, 3 or 12; larger customers bind themselves longer."""
    annual = dials.annual * np.array([0.3, 0.5, 0.75])[segment]
    drawn = dice.random(len(segment))
    return np.where(drawn < annual, 12, np.where(drawn < annual + 0.4 * (1 - annual), 3, 1))
