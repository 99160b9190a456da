"""Equipment: a worn component drifts, shows errors and fails unless it is serviced; some failures come unannounced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from churnkit.simulate.contracts import Contracts
from churnkit.simulate.frames import Frame, frame, ids, keep, words
from churnkit.simulate.world import DAY, NAT, Array, World, days, labels, seconds

PART = 2000
"""Assets per part of the telemetry."""
SENSORS = ("vibration", "temperature", "pressure")
MODELS = ("x1", "x2", "press-a")
COMPONENTS = ("bearing", "pump", "seal")
WORN = 0.9
"""Components that begin to wear, per asset and year."""
SUDDEN = 0.12
"""Failures out of nowhere, per asset and year."""
HORIZON = 7
_WARM_DAYS = 60
MENDS = 0.7
"""Chance that a visit finds the worn component and mends it."""
SERVICE = 150
"""Days between planned services, about."""


@dataclass(frozen=True)
class Machines:
    """The assets, their events, and the true risk. Daily arrays have the shape (days of the book + HORIZON, assets)."""

    ids: Array
    account: Array
    model: Array
    installed: Array
    retired: Array
    wear: Array
    """0 sound, 1 worn out; at the day's beginning."""
    component: Array
    """Index of the component that wears, by day."""
    failed: Array
    serviced: Array
    risk: Array
    """True chance to fail within HORIZON days, seen from the day's beginning."""

    def alone(self, which: Array) -> Machines:
        """One account's assets, as those of the only account there is."""
        cut = {name: values[..., which] for name, values in vars(self).items()}
        return Machines(**{**cut, "account": np.zeros(len(which), dtype=int)})


def machines(world: World, deal: Contracts, after: Contracts | None = None, visits: Array | None = None) -> Machines:
    """Draws assets for two accounts in five, and lives through their days.

    Args:
        world: The setting.
        deal: The contracts as they would have gone without outreach: assets are installed while those run.
        after: The contracts as they went, if that is another way: assets are retired when those end.
        visits: The days on which outreach sends a technician to an asset; (days of the book + HORIZON, assets).
    """
    dice, clock = world.dice("machines"), world.clock
    count = np.where(dice.random(world.size) < 0.4, 1 + dice.binomial(5, 0.3, world.size), 0)
    account = np.repeat(np.arange(world.size), count)
    size = len(account)
    stop = deal.ends(clock.end)[account]
    opens = world.joined[account]
    room = np.maximum(0, ((stop - opens) / DAY).astype(int) - 30)
    installed = opens + days(dice.random(size) ** 2 * room)
    old = dice.random(size) < 0.05
    retired = np.where(old, installed + days(dice.random(size) * ((stop - installed) / DAY)), NAT)
    left = (after or deal).left[account]
    gone = np.where(left < clock.end, left, NAT)
    retired = np.where(np.isnat(retired) | (retired <= installed), gone, np.fmin(retired, gone))
    if after is not None:  # who leaves sooner has no more of them
        installed = np.where(np.isnat(gone) | (installed < gone), installed, clock.end)
    wear, component, failed, serviced, risk = _live(world, dice, size, visits)
    return Machines(labels("M", size), account, dice.integers(0, len(MODELS), size), installed, retired,
                    wear, component, failed, serviced, risk)


def _live(world: World, dice: np.random.Generator, size: int, visits: Array | None) -> tuple[Array, ...]:
    lived = world.clock.days + HORIZON
    skill = None if visits is None else world.dice("visits").random((lived, size)) < MENDS
    wear, rate = np.zeros(size), np.zeros(size)
    part = dice.integers(0, len(COMPONENTS), size)
    due = dice.integers(0, SERVICE, size)
    shape = (lived, size)
    worn, parts = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=np.int8)
    failed, serviced = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    risk = np.zeros(shape, dtype=np.float32)
    for day in range(-_WARM_DAYS, lived):
        starts = (rate == 0) & (dice.random(size) < WORN / 365)
        rate = np.where(starts, 1 / dice.uniform(20, 60, size), rate)
        part = np.where(starts, dice.integers(0, len(COMPONENTS), size), part)
        fails = dice.random(size) < _daily(wear)
        service = (day >= due) & ~fails
        mended = fails | (service & (dice.random(size) < 0.45))
        if visits is not None and skill is not None and day >= 0:
            visited = visits[day] & ~fails
            service, mended = service | visited, mended | (visited & skill[day])
        if day >= 0:
            worn[day], parts[day], failed[day], serviced[day] = wear, part, fails, service
            risk[day] = _risk(wear, rate)
        due = np.where(service, day + SERVICE + dice.integers(-20, 21, size), due)
        wear, rate = np.where(mended, 0, np.minimum(wear + rate, 1.5)), np.where(mended, 0, rate)
    return worn, parts, failed, serviced, risk


def _risk(wear: Array, rate: Array) -> Array:
    """Chance of failing within HORIZON days at that wear and rate of it."""
    ahead = wear + np.arange(HORIZON)[:, None] * rate
    return np.asarray(1 - np.exp(np.log1p(-_daily(ahead)).sum(axis=0)))


def visited_risk(risk: Array) -> Array:
    """True chance of failing within HORIZON days if a technician comes at once."""
    sound = _risk(np.zeros(1), np.zeros(1))
    return np.asarray(MENDS * sound + (1 - MENDS) * risk)


def _daily(wear: Array) -> Array:
    """Chance of failing on one day."""
    return np.asarray(SUDDEN / 365 + 0.05 * np.clip(wear - 0.3, 0, 1.0) ** 2)


def assets(world: World, drawn: Machines) -> Frame:
    """The table of assets."""
    inside = drawn.installed < world.clock.end
    return frame(
        "assets", asset_id=pa.array(drawn.ids[inside]), account_id=ids(world.ids, drawn.account[inside]),
        model=words(MODELS, drawn.model[inside]),
        installed_at=drawn.installed[inside], retired_at=drawn.retired[inside],
        recorded_at=np.minimum(drawn.installed[inside] + DAY, world.clock.end),
    )


def alive(world: World, drawn: Machines) -> Array:
    """Whole days in service, (days of the book, assets)."""
    dates = world.clock.start + np.arange(world.clock.days) * DAY
    stop = np.where(np.isnat(drawn.retired), world.clock.end, drawn.retired)
    return np.asarray((dates[:, None] >= drawn.installed) & (dates[:, None] + DAY <= stop))


def telemetry(world: World, drawn: Machines, at_home: Array | None = None) -> Iterator[Frame]:
    """Daily means per sensor, in parts of PART assets: wear shows in vibration, then heat, and seals lose pressure.

    `at_home` is each sensor's own level, (3, assets), where another course of things drew it.
    """
    clock = world.clock
    dates = clock.start + np.arange(clock.days) * DAY
    level, spread = np.array([4.0, 61.0, 6.2]), np.array([0.35, 1.8, 0.15])
    there = alive(world, drawn)
    year = np.sin(2 * np.pi * (np.arange(clock.days) - 110) / 365.25)[:, None]
    for part, first in enumerate(range(0, max(1, len(drawn.ids)), PART)):
        rows = slice(first, first + PART)
        dice = world.dice("telemetry", part)
        wear = np.minimum(drawn.wear[:clock.days, rows], 1.2) * world.dials.wear
        size = wear.shape[1]
        which = drawn.component[:clock.days, rows]
        own = dice.standard_normal((3, size)) if at_home is None else at_home
        own = level[:, None] * (1 + 0.08 * own)
        pulls = (1.6 * wear * np.where(which == 0, 1.3, 0.7), 7 * wear + 2.0 * year,
                 -0.7 * wear * np.where(which == 0, 0.5, 1.2))
        day, asset = np.nonzero(there[:, rows] & (dice.random(wear.shape, dtype=np.float32) > 0.01))
        sensors = []
        for number in range(len(SENSORS)):
            noise = spread[number] * dice.standard_normal(len(day), dtype=np.float32)
            sensors.append(own[number][asset] + pulls[number][day, asset] + noise)
        value = np.round(np.stack(sensors, axis=1).ravel(), 2)
        yield frame(
            "telemetry", asset_id=ids(drawn.ids, np.repeat(asset + first, 3)), occurred_at=np.repeat(dates[day], 3),
            sensor=words(SENSORS, np.tile(np.arange(3), len(day))), value=value,
        )


def asset_events(world: World, drawn: Machines) -> Frame:
    """Errors, which wear makes frequent; services; failures, each mended the day after."""
    dice, clock = world.dice("asset_events"), world.clock
    there = alive(world, drawn)
    wear = np.minimum(drawn.wear[:clock.days], 1.2) * min(world.dials.wear, 1.0)
    errors = dice.poisson(np.where(there, 0.012 + 0.35 * wear**1.5, 0.0))
    day, asset = np.nonzero(errors)
    day, asset = np.repeat(day, errors[day, asset]), np.repeat(asset, errors[np.nonzero(errors)])
    told = dice.random(len(day)) < 0.75
    code = np.where(told, drawn.component[day, asset], dice.integers(0, 4, len(day)))
    fail_day, failing = np.nonzero(drawn.failed[:clock.days] & there)
    serve_day, serving = np.nonzero(drawn.serviced[:clock.days] & there)
    failed_at = clock.start + fail_day * DAY + seconds(dice.integers(0, 86400, len(fail_day)))
    mended_at = failed_at + seconds(dice.integers(3 * 3600, 30 * 3600, len(fail_day)))
    codes = ("E-bearing", "E-pump", "E-seal", "E-comms", *COMPONENTS, "service")
    at = np.concatenate([
        clock.start + day * DAY + seconds(dice.integers(0, 86400, len(day))), failed_at, mended_at,
        clock.start + serve_day * DAY + seconds(dice.integers(7 * 3600, 17 * 3600, len(serve_day)))])
    rows = np.concatenate([asset, failing, failing, serving])
    broken = drawn.component[fail_day, failing]
    what = np.repeat([0, 2, 1, 1], [len(day), len(failing), len(failing), len(serving)])
    code = np.concatenate([code, 4 + broken, 4 + broken, np.full(len(serving), 7)])
    stop = np.where(np.isnat(drawn.retired), clock.end, drawn.retired)[rows]
    inside = at < stop
    at, rows, what, code = at[inside], rows[inside], what[inside], code[inside]
    return keep(frame(
        "asset_events", asset_id=ids(drawn.ids, rows), occurred_at=at,
        kind=words(("error", "maintenance", "failure"), what), code=words(codes, code),
    ))
