"""Who is who: accounts, their contacts, the owners who look after them, and how they keep in touch."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from churnkit.simulate.causes import INDEX, States, observed
from churnkit.simulate.contracts import Contracts
from churnkit.simulate.frames import Frame, frame, ids, keep, maybe, words
from churnkit.simulate.world import (
    AHEAD,
    COUNTRIES,
    DAY,
    INDUSTRIES,
    LANGUAGES,
    NAT,
    SEGMENTS,
    WARM,
    ZONES,
    Array,
    World,
    days,
    labels,
    seconds,
    since,
)

_FIRST = ("Alder", "Birk", "Cedar", "Dale", "Elm", "Fern", "Grove", "Hazel", "Iris", "Juniper", "Linden", "Maple",
          "Olive", "Rowan", "Sage", "Willow")
_LAST = ("Aster", "Bramble", "Clover", "Dune", "Ember", "Field", "Glen", "Heath", "Isle", "Knoll", "Lake", "Moor",
         "Orchard", "Pond", "Ridge", "Stone")
_REASONS = ("asked to be left alone", "legal dispute", "pending acquisition")
_KIND = ("Works", "Group", "Systems", "Trading", "Labs", "Partners", "Supply", "Foods")
_SKILLS = ("onboarding,renewal", "renewal,expansion", "technical,onboarding", "technical,renewal,expansion")
_ROLES = ("champion", "sponsor", "billing", "user")


def accounts(world: World) -> Frame:
    """The customers; one in twenty belongs to a larger one."""
    dice, size = world.dice("accounts"), world.size
    parent = dice.integers(size, size=size)
    own = np.arange(size)
    child = (dice.random(size) < 0.05) & (parent < own)
    child &= ~child[parent]  # a parent has none itself
    names = [f"{_LAST[a]} {_FIRST[b]} {_KIND[c]} {n + 1}" for n, (a, b, c) in enumerate(zip(
        dice.integers(len(_LAST), size=size).tolist(), dice.integers(len(_FIRST), size=size).tolist(),
        dice.integers(len(_KIND), size=size).tolist(), strict=True))]
    created = created_at(world)
    return frame(
        "accounts", account_id=pa.array(world.ids), created_at=created, name=pa.array(names),
        segment=words(SEGMENTS, world.segment), industry=words(INDUSTRIES, world.industry),
        country=words(COUNTRIES, world.country), language=words(LANGUAGES, world.language),
        timezone=words(ZONES, world.country), owner=ids(owner_ids(world), world.owner),
        parent_account_id=ids(world.ids, np.where(child, parent, -1)),
        crm_id=pa.array([f"C{number + 500_000}" for number in range(size)]),
        recorded_at=created + np.timedelta64(300, "s"),
    )


def created_at(world: World) -> Array:
    """When an account first stood in the books: up to two weeks before its first contract."""
    ahead = world.own("created", lambda dice, size: dice.integers(600, 14 * 86400, size))
    return np.asarray(world.joined - seconds(ahead))


def owner_ids(world: World) -> Array:
    """The owners' ids; the last two are the manager, who owns no account, and one who has gone."""
    return labels("U", world.owners + 2)


def owners(world: World) -> Frame:
    """Account managers, one per about 40 accounts, their manager, and one who is no longer active."""
    dice, count = world.dice("owners"), world.owners + 2
    known = owner_ids(world)
    names = [f"{_FIRST[n % 16]} {_LAST[(n // 16 + 7 * n) % 16]}" for n in range(count)]
    spoken = dice.integers(0, len(LANGUAGES), count)
    return frame(
        "owners", owner=pa.array(known), name=pa.array(names),
        email=pa.array([f"{one.lower()}@example.com" for one in known.tolist()]),
        crm_id=pa.array([f"O{number + 900}" for number in range(count)]),
        capacity_per_week=np.append(dice.integers(8, 13, count - 2), [4, 0]),
        languages=pa.array(["en" if n == 0 else f"en,{LANGUAGES[n]}" for n in spoken.tolist()]),
        skills=words(_SKILLS, dice.integers(0, len(_SKILLS), count)),
        segments=words(("small,mid", "mid,large", "small,mid,large"), dice.integers(0, 3, count)),
        timezone=words(ZONES, np.zeros(count, int)), active=np.append(np.ones(count - 1, bool), False),
        manager=ids(known, np.append(np.full(count - 2, count - 2), [-1, count - 2])),
    )


def contacts(world: World, states: States, deal: Contracts) -> Frame:
    """Two to five people an account; a champion who leaves is followed by a new one, mostly."""
    dice, clock, size = world.dice("contacts"), world.clock, world.size
    roles = np.repeat([[0, 2, 3, 1, 3]], size, axis=0)
    there = np.arange(5) < (2 + dice.integers(0, 4, size))[:, None]
    account, place = np.nonzero(there)
    recorded = created_at(world)[account] + days(dice.random(len(account)) * 20)
    week, leaver = np.nonzero(states.shocks[:, INDEX["champion_left"]] > 0)
    at = clock.start + (week - WARM) * 7 * DAY + seconds(dice.integers(8 * 3600, 5 * 86400, len(week)))
    real = (since(world.joined[leaver], at) > 25) & (at < deal.ends(clock.end)[leaver])
    at, leaver = at[real], leaver[real]
    order = np.lexsort((at, leaver))
    at, leaver = at[order], leaver[order]
    # The n-th champion leaves at the n-th shock, and the next comes some weeks later.
    start = np.diff(leaver, prepend=-1) != 0
    arrives = at + days(dice.integers(10, 70, len(at)))
    follows = np.diff(leaver, append=-1) == 0
    next_at = np.append(at, NAT)[1:]
    arrives = np.where(follows, np.minimum(arrives, next_at - DAY), arrives)
    left = np.full(len(account), NAT)
    champion = np.full(size, -1)
    champion[account[place == 0]] = np.nonzero(place == 0)[0]
    left[champion[leaver[start]]] = at[start]
    next_left = np.where(follows, next_at, NAT)
    came = (arrives < clock.end) & (arrives < deal.ends(clock.end)[leaver])
    rows = np.concatenate([account, leaver[came]])
    table = frame(
        "contacts", account_id=ids(world.ids, rows),
        role=words(_ROLES, np.concatenate([roles[account, place], np.zeros(came.sum(), int)])),
        left_at=np.concatenate([left, next_left[came]]), do_not_contact=dice.random(len(rows)) < 0.02,
        crm_id=pa.array([f"{world.mark}P{number + 700_000}" for number in range(len(rows))]),
        name=pa.array([f"{_FIRST[a]} {_LAST[b]}" for a, b in dice.integers(0, 16, (len(rows), 2)).tolist()]),
        recorded_at=np.minimum(np.concatenate([recorded, arrives[came]]), clock.end),
    )
    return keep(table, number="contact_id", prefix=f"{world.mark}P", by="recorded_at")


def touches(world: World, states: States, deal: Contracts) -> Frame:
    """Calls, mails and meetings; a few are automatic, and troubled accounts write more by themselves."""
    dice, clock = world.dice("touches"), world.clock
    worry = states.driver("bug_burst") + states.driver("price_rise") + states.driver("payment_trouble")
    eager = states.driver("growth")
    rate = 0.16 * np.array([0.6, 1.0, 1.8])[world.segment] * (1 + 0.5 * worry + 0.6 * eager)
    account, at, week = scatter(world, deal, dice.poisson(observed(rate, clock.weeks)), "touches_at")
    lively = (0.5 * worry + 0.5 * eager)[week, account]
    inbound = dice.random(len(at)) < 0.3 + 0.3 * np.minimum(lively, 1)
    auto = ~inbound & (dice.random(len(at)) < 0.35)
    channel = np.where(auto, 0, dice.choice(4, len(at), p=[0.5, 0.3, 0.12, 0.08]))
    return keep(frame(
        "touches", account_id=ids(world.ids, account), occurred_at=at,
        channel=words(("email", "call", "meeting", "chat"), channel),
        direction=words(("inbound", "outbound"), np.where(inbound, 0, 1)),
        by=words(("human", "automation"), auto.astype(int)), recorded_at=slow(at, clock.end, dice),
    ))


def scatter(world: World, deal: Contracts, counts: Array, topic: str) -> tuple[Array, Array, Array]:
    """Moments from counts by (account, week of the book), inside each account's contract.

    Returns account, time, and week of the hidden grid, one value a moment.
    """
    dice, clock = world.dice(topic), world.clock
    account, week = np.nonzero(counts)
    times = counts[account, week]
    account, week = np.repeat(account, times), np.repeat(week, times)
    day = dice.choice(7, len(week), p=[0.2, 0.2, 0.2, 0.19, 0.15, 0.03, 0.03])
    monday = (clock.start.astype("datetime64[D]").astype(int) + 3) % 7  # days since Monday of the first day
    day = (day - monday) % 7
    hour = np.clip(13 + 3.2 * dice.standard_normal(len(week)), 0, 23.99)
    at = clock.start + days(week * 7 + day + hour / 24)
    inside = (at >= world.joined[account]) & (at < deal.ends(clock.end)[account])
    return account[inside], at[inside], week[inside] + WARM


def slow(at: Array, end: np.datetime64, dice: np.random.Generator, late: float = 0.01) -> Array:
    """When rows came to be known: minutes later, one in a hundred some days later; never past the book's end."""
    delayed = np.where(dice.random(len(at)) < late, dice.integers(86400, 5 * 86400, len(at)), 0)
    return np.asarray(np.minimum(at + seconds(delayed + dice.integers(0, 600, len(at))), end))


def opportunities(world: World, states: States, deal: Contracts) -> Frame:
    """Renewal talks before a long term ends, and sales talks with those who grow; some of each come to nothing."""
    dice, clock = world.dice("opportunities"), world.clock
    stop = deal.ends(clock.end)
    account, month = np.nonzero(deal.months.renewal & (world.term == 12)[:, None])
    term_end = deal.months.at[account, month]
    opened = term_end - days(dice.integers(50, 95, len(account)))
    real = (opened >= np.maximum(clock.start, world.joined[account])) & (opened < stop[account])
    account, opened, term_end = account[real], opened[real], term_end[real]
    lost = deal.left[account] <= term_end
    closed = np.where(lost, np.maximum(deal.notice[account], opened), term_end)
    rate = observed(0.004 + 0.05 * states.effect("growth"), clock.weeks)
    grows, at, week = scatter(world, deal, dice.poisson(rate), "sales_talks")
    buys = next_buy(world, deal, grows, at)
    won = buys < at + 90 * DAY
    done = np.where(won, buys, at + days(dice.integers(30, 90, len(at))))
    account, opened = np.concatenate([account, grows]), np.concatenate([opened, at])
    closed, won = np.concatenate([closed, done]), np.concatenate([~lost, won])
    over = (closed < clock.end) & (closed >= opened)
    week = clock.week(opened)
    return keep(frame(
        "opportunities", account_id=ids(world.ids, account),
        kind=words(("renewal", "expansion"), np.repeat([0, 1], [len(account) - len(grows), len(grows)])),
        opened_at=opened, closed_at=np.where(over, closed, NAT),
        stage=words(("talking", "won", "lost"), np.where(over, np.where(won, 1, 2), 0)),
        amount=np.round(deal.seats[week, account] * 12 * (20 + 15 * dice.random(len(account))), 2),
        won=maybe(won, over), recorded_at=slow(opened, clock.end, dice),
    ))


def next_buy(world: World, deal: Contracts, account: Array, at: Array) -> Array:
    """The account's next expansion after a time; far off where there is none."""
    far = world.clock.end + 9999 * DAY
    bought = np.where(deal.bought > 0, deal.bought_at, far)
    week = world.clock.week(at)
    found = np.full(len(at), far)
    for ahead in range(AHEAD):
        then = bought[np.minimum(week + ahead, len(bought) - 1), account]
        found = np.minimum(found, np.where(then > at, then, far))
    return found


def suppressions(world: World) -> Frame:
    """One account in fifty is to be left alone, for a while or for good."""
    dice, clock = world.dice("suppressions"), world.clock
    account = np.nonzero(dice.random(world.size) < 0.02)[0]
    starts = clock.end - seconds(dice.integers(1, clock.days * 43200, len(account)))
    account, starts = account[starts >= world.joined[account]], starts[starts >= world.joined[account]]
    until = starts + days(dice.integers(30, 365, len(account)))
    return keep(frame(
        "suppressions", account_id=ids(world.ids, account),
        reason=words(_REASONS, dice.integers(0, len(_REASONS), len(account))),
        starts_at=starts, until=np.where(dice.random(len(account)) < 0.3, NAT, until),
    ))


def record_changes(world: World, deal: Contracts) -> Frame:
    """Accounts that were handed from one owner to another: what was known at first, and the change."""
    dice, clock = world.dice("record_changes"), world.clock
    account = np.nonzero(dice.random(world.size) < 0.08)[0]
    created = created_at(world)[account]
    first = np.maximum(clock.start, created)
    changed = first + days(dice.random(len(account)) * ((deal.ends(clock.end)[account] - first) / DAY))
    known = owner_ids(world)
    old = (world.owner[account] + 1 + dice.integers(0, world.owners - 1, len(account))) % world.owners
    at = np.concatenate([created, changed])
    return keep(frame(
        "record_changes", table=pa.array(["accounts"] * len(at)), id=ids(world.ids, np.tile(account, 2)), changed_at=at,
        field=pa.array(["owner"] * len(at)), value=ids(known, np.concatenate([old, world.owner[account]])),
        recorded_at=at,
    ))
