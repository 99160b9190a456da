"""Use of the product: summed by account, day and event, following causes, seasons, weekends and chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from churnkit.simulate.causes import CAUSES, States, observed
from churnkit.simulate.contracts import Contracts, seats_by_week
from churnkit.simulate.courses import FAR, Course
from churnkit.simulate.frames import Frame, frame, graft, ids, times, words
from churnkit.simulate.world import DAY, Array, World

PART = 1000
"""Accounts per part: what is in memory at once."""
EVENTS = ("login", "report_view", "dashboard_edit", "export", "api_call", "invite_user", "error_shown", "help_failed")
_RATE = np.array([1.1, 1.6, 0.3, 0.1, 3.0, 0.015, 0.03, 0.02])
_SECONDS = np.array([420.0, 95.0, 240.0, 30.0, 0.0, 45.0, 12.0, 60.0])
_SPECIAL = 5
"""From this event on, rates follow causes of their own."""


def usage_events(world: World, states: States, deal: Contracts, ways: Sequence[Course] = ()) -> Iterator[Frame]:
    """The table in parts of PART accounts, each in the order of time; `ways` are where outreach turned accounts to."""
    share, special = _share(world, states), _special(world, states)
    seats = seats_by_week(world, deal)
    stop = deal.ends(world.clock.end)
    for part, first in enumerate(range(0, world.size, PART)):
        rows = slice(first, min(first + PART, world.size))
        made, taste = _part(world, rows, part, (share[rows], seats[rows], special[:, rows], stop[rows]))
        mine = [way for way in ways if rows.start <= way.turn.account < rows.stop]
        yield _turned(made, world, mine, (share, special, taste, first)) if mine else made


def _turned(made: Frame, world: World, ways: Sequence[Course], habits: tuple[Array, Array, Array, int]) -> Frame:
    """A part with the rows of accounts that outreach turned; their habits stay theirs."""
    share, special, taste, first = habits
    since, grown = np.full(world.size, FAR), []
    for way in ways:
        one, turn = slice(way.turn.account, way.turn.account + 1), way.turn
        since[turn.account] = min(since[turn.account], turn.since)
        hidden = (share[one], seats_by_week(way.world, way.deal), special[:, one], way.deal.ends(world.clock.end))
        table, _ = _part(way.world, slice(0, 1), 0, hidden, taste[:, [turn.account - first]])
        at = times(table["occurred_at"])
        grown.append(table.filter(pa.array((at >= turn.since) & (at < turn.until))))
    return graft(made, "account_id", world.ids, since, grown, "occurred_at")


def season(days: Array) -> Array:
    """How a plain customer's use goes down in July and August and at the year's end, 1 elsewhere. Nobody leaves for it.

    >>> import numpy as np
    >>> season(np.array(["2026-05-05", "2026-08-05"], dtype="datetime64[s]")).round(2).tolist()
    [1.0, 0.64]
    """
    year_day = (days.astype("datetime64[D]") - days.astype("datetime64[Y]").astype("datetime64[D]")).astype(int)
    summer = np.exp(-(((year_day - 212) / 24.0) ** 4))
    turn = np.exp(-((np.minimum(np.abs(year_day - 361), year_day + 4) / 7.0) ** 4))
    return np.asarray(1 - 0.36 * summer - 0.5 * turn)


def _share(world: World, states: States) -> Array:
    """Share of the seats that are active on a plain working day, (accounts, weeks of the book)."""
    dice, weeks = world.dice("usage_share"), world.clock.weeks
    pull = np.array([cause.use for cause in CAUSES])
    moved = np.einsum("wca,c->wa", 0.5 * (states.x + states.y), pull)
    noise, pause = np.zeros((weeks, world.size)), np.zeros((weeks, world.size))
    for week in range(1, weeks):
        noise[week] = 0.75 * noise[week - 1] + 0.07 * dice.standard_normal(world.size)
        pause[week] = 0.7 * pause[week - 1] + (dice.random(world.size) < 0.006) * 0.7  # projects end; it means nothing
    level = np.log(0.38) + 0.2 * world.appetite + 0.05 * world.temper + 0.1 * dice.standard_normal(world.size)
    return np.asarray(np.minimum(0.95, np.exp(level[:, None] + observed(moved, weeks) + noise.T - pause.T)))


def _special(world: World, states: States) -> Array:
    """Factor on the rates of invitations, errors shown and searches that found nothing: (3, accounts, weeks)."""
    weeks = world.clock.weeks
    growth, bugs = states.driver("growth"), states.driver("bug_burst")
    lost = states.driver("never_adopted")
    return np.stack([observed(one, weeks) for one in (1 + 4 * growth, 1 + 10 * bugs, 1 + 3 * lost + 2 * bugs)])


def _part(world: World, rows: slice, part: int, hidden: tuple[Array, Array, Array, Array],
          taste: Array | None = None) -> tuple[Frame, Array]:
    """The rows of some accounts, and their taste for each event, which is drawn if it is not given."""
    share, seats, special, stop = hidden
    dice, clock = world.dice("usage", part), world.clock
    days = clock.start + np.arange(clock.days) * DAY
    weekday = (days.astype("datetime64[D]").astype(int) + 3) % 7
    plain = season(days) * np.where(weekday < 5, 1.0, 0.07)
    week = np.arange(clock.days) // 7
    # A day counts from the first whole one to the last whole one.
    alive = (days >= world.joined[rows, None]) & (days + DAY <= stop[:, None])
    chance = np.where(alive, share[:, week] * plain, 0.0)
    users = dice.binomial(seats[:, week], chance)
    if taste is None:
        taste = _taste(dice, len(share))
    rate = users.T[:, :, None] * (_RATE[:, None] * taste).T
    rate[:, :, _SPECIAL:] *= special.transpose(2, 1, 0)[week]
    counts = dice.poisson(rate)
    day, account, event = np.nonzero(counts)
    sums = (counts[day, account, event], users[account, day])
    return _rows(world, rows.start + account, day, event, sums, dice), taste


def _taste(dice: np.random.Generator, size: int) -> Array:
    shape = (len(EVENTS), size)
    taste = np.where(dice.random(shape) < 0.2, 0.0, np.exp(0.35 * dice.standard_normal(shape)))
    taste[[0, *range(_SPECIAL, len(EVENTS))]] = 1.0
    taste[4] *= dice.random(size) < 0.35  # few use the programming interface
    return np.asarray(taste)


def _rows(world: World, account: Array, day: Array, event: Array, sums: tuple[Array, Array],
          dice: np.random.Generator) -> Frame:
    much, users = sums
    clock = world.clock
    occurred = clock.start + day * DAY
    late = np.where(dice.random(len(day), dtype=np.float32) < 0.004, 1 + day % 5, 0)
    recorded = occurred + (1 + np.minimum(late, clock.days - 1 - day)) * DAY  # written at midnight, a few days late
    active = np.maximum(1, np.round(users * (1 - np.exp(-much / np.maximum(users, 1)))))
    seconds = np.round(much * _SECONDS[event] * (0.7 + 0.6 * dice.random(len(day), dtype=np.float32)))
    return frame(
        "usage_events", account_id=ids(world.ids, account), occurred_at=occurred, event=words(EVENTS, event),
        quantity=much.astype(float), duration_s=seconds.astype(float), users=np.minimum(active, much).astype(float),
        recorded_at=recorded,
    )
