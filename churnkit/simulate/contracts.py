"""Contracts: the months at which an account may leave, whether it did, what it bought more of, and what was billed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from churnkit.simulate.causes import INDEX, States, observed
from churnkit.simulate.frames import Frame, frame, ids, keep, words
from churnkit.simulate.world import (
    ADDONS,
    AHEAD,
    DAY,
    NAT,
    PLANS,
    PRICES,
    TERMS,
    WARM,
    Array,
    World,
    days,
    seconds,
)

REST = 12
"""Weeks after an expansion in which there is no further one."""
_NOTICE = (10, 30, 60)
"""Longest notice in days, by TERMS."""
_WEIGHT = (1.0, 2.6, 7.0)
"""How many monthly chances to leave the end of a term is worth, by TERMS."""
_MIDTERM = 0.12
"""The same for other months of an annual contract."""


@dataclass(frozen=True)
class Months:
    """The ends of the contracts' months inside the book and shortly after it; arrays of shape (accounts, months)."""

    at: Array
    number: Array
    """Whole months since the contract began."""
    weight: Array
    """How many monthly chances to leave this month's end is worth: the most at the end of a term."""
    decided: Array
    """When the decision falls: at once for most, some days before for those who give notice."""
    renewal: Array


@dataclass(frozen=True)
class Push:
    """What outreach adds to log hazards, by week and account; 0 without any."""

    churn: Array | float = 0.0
    growth: Array | float = 0.0


NO_PUSH = Push()


@dataclass(frozen=True)
class Contracts:
    """What became of every account's contract."""

    months: Months
    left: Array
    """When the last subscription ends; NaT where it goes on."""
    notice: Array
    """When that became known."""
    bought: Array
    """What an account bought more of: 0 nothing, 1 seats, 2 a plan, 3 an add-on; (hidden weeks, accounts)."""
    bought_at: Array
    """When in the week that was or would have been; same shape."""
    seats: Array
    """Seats by week, same shape, at the week's end."""
    prices: Array
    """Price level from each month's beginning on, shape (accounts, months); 1 at first."""

    def some(self, accounts: Array) -> Contracts:
        """These accounts alone."""
        ends = Months(**{name: values[accounts] for name, values in vars(self.months).items()})
        cut = {name: getattr(self, name)[accounts] for name in ("left", "notice", "prices")}
        weekly = {name: getattr(self, name)[:, accounts] for name in ("bought", "bought_at", "seats")}
        return replace(self, months=ends, **cut, **weekly)

    def ends(self, end: np.datetime64) -> Array:
        """When each account's rows stop: its last day, or the book's end."""
        return np.where(np.isnat(self.left) | (self.left > end), end, self.left)


def months(world: World) -> Months:
    """The ends of each contract's months, from the warm-up on."""
    clock, dice = world.clock, world.dice("months")
    first = world.joined.astype("datetime64[M]")
    day = np.minimum((world.joined.astype("datetime64[D]") - first.astype("datetime64[D]")).astype(int), 27)
    opening = (clock.start - 7 * WARM * DAY).astype("datetime64[M]")
    skip = np.maximum(1, (opening - first).astype(int))
    count = (clock.all_weeks * 7) // 30 + 2
    number = skip[:, None] + np.arange(count)
    at = ((first[:, None] + number).astype("datetime64[D]") + day[:, None]).astype("datetime64[s]")
    renewal = number % world.term[:, None] == 0
    kind = np.searchsorted(TERMS, world.term)
    midterm = np.where(world.term == 12, _MIDTERM, 0.0)
    weight = np.where(renewal, np.array(_WEIGHT)[kind][:, None], midterm[:, None])
    ahead = np.where(dice.random(world.size) < 0.4, 0, dice.integers(1, np.array(_NOTICE)[kind] + 1))
    decided = at - np.where(renewal, days(ahead - (ahead > 0) * 11 / 24)[:, None], np.timedelta64(0, "s"))
    return Months(at, number, weight, np.maximum(decided, world.joined[:, None]), renewal)


def price_weeks(world: World, ends: Months) -> Array:
    """True, by week and account, where a contract's month begins."""
    marks = np.zeros((world.clock.all_weeks, world.size), dtype=bool)
    marks[world.clock.week(ends.at), np.arange(world.size)[:, None]] = True
    return marks


def live(world: World, states: States, ends: Months, push: Push = NO_PUSH) -> Contracts:
    """Draws who leaves, and who buys more and what; the same dice fall whatever `push` outreach gives."""
    clock = world.clock
    left, notice = _leaving(world, states, ends, push.churn)
    bought, seats = _buying(world, states, push.growth)
    gone = clock.week(np.where(np.isnat(left), clock.end + 400 * DAY, left))
    bought[np.arange(clock.all_weeks)[:, None] >= gone[None, :]] = 0
    monday = clock.start + (np.arange(clock.all_weeks)[:, None] - WARM) * 7 * DAY
    bought_at = monday + seconds(world.dice("bought_at").integers(8 * 3600, 7 * 86400, bought.shape))
    begins = (ends.at >= clock.start) & (ends.at < clock.end) & (ends.at > world.joined[:, None])
    shock = states.shocks[clock.week(ends.at), INDEX["price_rise"], np.arange(world.size)[:, None]]
    rise = np.where(begins, 1 + 0.13 * shock, 1)
    return Contracts(ends, left, notice, bought, bought_at, seats, np.cumprod(rise, axis=1))


def _leaving(world: World, states: States, ends: Months, push: Array | float) -> tuple[Array, Array]:
    clock = world.clock
    hazard = np.exp(states.log_hazard(states.churn, states.base_churn) + push)
    felt = hazard[clock.week(ends.decided), np.arange(world.size)[:, None]]
    chance = 1 - np.exp(-world.dials.leaving * ends.weight * felt)
    open_ = (ends.decided >= clock.start) & (ends.at < clock.end + 7 * AHEAD * DAY)
    leaves = open_ & (world.dice("leaving").random(chance.shape) < chance)
    which, ever = leaves.argmax(axis=1), leaves.any(axis=1)
    every = np.arange(world.size)
    return np.where(ever, ends.at[every, which], NAT), np.where(ever, ends.decided[every, which], NAT)


def _buying(world: World, states: States, push: Array | float) -> tuple[Array, Array]:
    dice, weeks = world.dice("buying"), world.clock.all_weeks
    hazard = np.exp(states.log_hazard(states.growth, states.base_growth) + push)
    wants = dice.random(hazard.shape) < 1 - np.exp(-world.dials.growing * hazard)
    kind = dice.choice(np.array([1, 2, 3], dtype=np.int8), hazard.shape, p=[0.65, 0.17, 0.18])
    more = 1 + 0.12 + 0.3 * dice.random(hazard.shape)
    bought, seats = np.zeros(hazard.shape, dtype=np.int8), np.empty(hazard.shape, dtype=np.int64)
    joined, last = world.clock.week(world.joined), np.full(world.size, -REST)
    plan, addons, now = world.plan.copy(), np.zeros(world.size, dtype=int), world.seats.copy()
    for week in range(weeks):
        buys = wants[week] & (week - last >= REST) & (week > joined) & (week >= WARM)
        what = np.where(buys, kind[week], 0)
        what = np.where((what == 2) & (plan == 2) | (what == 3) & (addons == len(ADDONS)), 1, what)
        plan, addons = plan + (what == 2), addons + (what == 3)
        now = np.where(what == 1, np.maximum(now + 1, np.round(now * more[week])).astype(int), now)
        last = np.where(buys, week, last)
        bought[week], seats[week] = what, now
    return bought, seats


@dataclass(frozen=True)
class _Steps:
    """One row per state of a main contract: the account, when it began, and what it was then."""

    account: Array
    at: Array
    plan: Array
    seats: Array
    mrr: Array


def subscriptions(world: World, deal: Contracts) -> Frame:
    """Main contracts (a row per state: term, expansion or price rise) and add-ons as rows of their own."""
    steps = _steps(world, deal)
    end = world.clock.end
    follows = np.append(steps.account[1:] == steps.account[:-1], False)
    last = deal.left[steps.account]
    ended = np.where(follows, np.append(steps.at[1:], NAT), last)
    added = _addons(world, deal)
    account = np.concatenate([steps.account, added.account])
    at = np.concatenate([steps.at, added.at])
    ended = np.concatenate([ended, deal.left[added.account]])
    notice = np.concatenate([np.where(follows, NAT, deal.notice[steps.account]), deal.notice[added.account]])
    known = ~np.isnat(ended) & ((ended <= end) | (notice <= end))
    ended, notice = np.where(known, ended, NAT), np.where(known & (notice < ended), notice, NAT)
    recorded = np.minimum(at + seconds(world.dice("subscriptions").integers(0, 3 * 3600, len(at))), end)
    table = frame(
        "subscriptions", account_id=ids(world.ids, account), subscription_id=_numbered(world, account, at),
        started_at=at, ended_at=ended, end_recorded_at=notice,
        plan=words([*PLANS, *ADDONS], np.concatenate([steps.plan, added.plan])),
        seats=np.concatenate([steps.seats, np.zeros(len(added.at))]).astype(float),
        mrr=np.concatenate([steps.mrr, added.mrr]), currency=words(["EUR"], np.zeros(len(account), int)),
        billing_months=world.term[account], renews_at=_renews(world, deal, account, at),
        auto_renew=world.own("auto_renew", np.random.Generator.random)[account] < 0.7,
        recorded_at=np.maximum(recorded, at),
    )
    return keep(table)


def _steps(world: World, deal: Contracts) -> _Steps:
    """The first row of each account, and one at each renewal of a long term, seat or plan expansion and price rise."""
    clock, every = world.clock, np.arange(world.size)
    stop = deal.ends(clock.end)
    week, buyer = np.nonzero((deal.bought == 1) | (deal.bought == 2))
    account, month = np.nonzero(deal.months.renewal & (world.term > 1)[:, None])
    priced, when = np.nonzero(np.diff(deal.prices, axis=1, prepend=1) > 0)
    rows = np.concatenate([every, buyer, account, priced])
    at = np.concatenate([world.joined, deal.bought_at[week, buyer], deal.months.at[account, month],
                         deal.months.at[priced, when]])
    inside = (at <= clock.end) & ((at < stop[rows]) | (at == world.joined[rows])) & (at >= world.joined[rows])
    rows, at = rows[inside], at[inside]
    order = np.lexsort((at, rows))
    rows, at = rows[order], at[order]
    once = np.append(True, (rows[1:] != rows[:-1]) | (at[1:] != at[:-1]))
    rows, at = rows[once], at[once]
    return _Steps(rows, at, *_state(world, deal, rows, at))


def _state(world: World, deal: Contracts, rows: Array, at: Array) -> tuple[Array, Array, Array]:
    """Plan, seats and monthly price of an account at a time: what it had before the week, and what the week brought."""
    week = world.clock.week(at)
    came = (deal.bought_at[week, rows] <= at) & (at > world.joined[rows])
    week = np.where(came, week, np.maximum(week - 1, 0))
    plans = world.plan + np.cumsum(deal.bought == 2, axis=0)
    plan, seats = plans[week, rows], deal.seats[week, rows]
    month = (deal.months.at[rows] <= at[:, None]).sum(axis=1)
    level = np.where(month > 0, deal.prices[rows, np.maximum(month - 1, 0)], 1)
    discount = 1 - 0.25 * world.own("discount", np.random.Generator.random)[rows]
    return plan, seats, np.round(seats * PRICES[plan] * level * discount, 2)


def _addons(world: World, deal: Contracts) -> _Steps:
    """Add-ons bought: each a row of its own plan, at a fifth of the main price of the time."""
    week, account = np.nonzero(deal.bought == 3)
    at = deal.bought_at[week, account]
    number = (np.cumsum(deal.bought == 3, axis=0)[week, account] - 1) % len(ADDONS)
    inside = (at <= world.clock.end) & (at < deal.ends(world.clock.end)[account])
    week, account, at, number = (part[inside] for part in (week, account, at, number))
    _, seats, mrr = _state(world, deal, account, at)
    return _Steps(account, at, len(PLANS) + number, seats, np.round(0.2 * mrr, 2))


def _renews(world: World, deal: Contracts, account: Array, at: Array) -> Array:
    """The next end of term after each row's start; one past the months that were drawn lies a term after the last."""
    never = world.clock.end + 9999 * DAY
    ends = np.where(deal.months.renewal, deal.months.at, never)[account]
    ahead = ends > at[:, None]
    last = np.where(ahead, world.joined[account][:, None], ends).max(axis=1)
    later = last + np.round(world.term[account] * 365.25 / 12).astype(int) * DAY
    later = np.where(later > at, later, at + np.round(world.term[account] * 365.25 / 12).astype(int) * DAY)
    return np.asarray(np.where(ahead & (ends < never), ends, later[:, None]).min(axis=1))


def _numbered(world: World, account: Array, at: Array) -> Array:
    order = np.lexsort((at, account))
    starts = np.append(0, np.nonzero(np.diff(account[order]))[0] + 1)
    within = np.arange(len(account)) - np.repeat(starts, np.diff(np.append(starts, len(account))))
    numbers = np.empty(len(account), dtype=object)
    known = zip(world.ids[account[order]], within.tolist(), strict=True)
    numbers[order] = [f"{one}-S{number + 1}" for one, number in known]
    return numbers


def invoices(world: World, states: States, deal: Contracts) -> Frame:
    """Invoices from the book's start on: monthly, quarterly for annual contracts; payment trouble makes them late."""
    clock, dice = world.clock, world.dice("invoices")
    stop = deal.ends(clock.end)
    every = np.where(world.term == 12, 3, 1)
    billed = deal.months.number % every[:, None] == 0
    account, month = np.nonzero(billed & (deal.months.at >= clock.start) & (deal.months.at < stop[:, None]))
    issued = np.concatenate([deal.months.at[account, month], world.joined])
    account = np.concatenate([account, np.arange(world.size)])
    inside = (issued >= clock.start) & (issued < clock.end)
    account, issued = account[inside], issued[inside]
    _, _, mrr = _state(world, deal, account, issued)
    week = clock.week(issued)
    trouble = states.driver("payment_trouble")[week, account]
    due = issued + 30 * DAY
    late = dice.random(len(issued)) < 0.06 + 0.85 * np.minimum(trouble, 1)
    lateness = np.where(late, dice.gamma(2.0, 6 + 14 * np.minimum(trouble, 1.5)), -dice.random(len(issued)) * 25)
    failed = dice.poisson(0.03 + 2.0 * trouble)
    paid = due + days(lateness)
    recorded = np.minimum(issued + seconds(dice.integers(60, 7200, len(issued))), clock.end)
    table = frame(
        "invoices", account_id=ids(world.ids, account), issued_at=issued, due_at=due,
        paid_at=np.where(paid < clock.end, np.maximum(paid, issued + 3600), NAT),
        amount=np.round(mrr * every[account], 2), currency=words(["EUR"], np.zeros(len(issued), int)),
        failed_attempts=failed, recorded_at=recorded,
    )
    return keep(table, number="invoice_id", prefix=f"{world.mark}I")


def seats_by_week(world: World, deal: Contracts) -> Array:
    """Seats as (accounts, weeks) of the book."""
    return observed(deal.seats, world.clock.weeks)
