"""The rows of accounts that outreach set on another course, put in the place of those that will not come now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from churnkit.simulate import contacted, contracts, machines, people, support
from churnkit.simulate.causes import States
from churnkit.simulate.contacted import Made
from churnkit.simulate.courses import FAR, Course, Lives, Turn, courses
from churnkit.simulate.frames import Frame, graft, joined, keep, mended, put_times, times
from churnkit.simulate.world import DAY, NAT, Array, World

_OWN = {"support_tickets": "opened_at", "surveys": "responded_at", "invoices": "issued_at", "touches": "occurred_at",
        "opportunities": "opened_at", "contacts": "recorded_at", "subscriptions": "started_at"}


def grafted(world: World, states: States, lives: Lives, made: Made, base: Mapping[str, Frame]) -> dict[str, Frame]:
    """Every table but usage and telemetry as outreach makes it, from those that came without it."""
    ways = courses(world, states, lives.turns)
    drawn = [_drawn(way) for way in ways]
    tables = dict(base)
    for name, own in _OWN.items():
        tables[name] = _replaced(world, base[name], ways, [one[name] for one in drawn], own)
    tables["subscriptions"] = _ended(tables["subscriptions"], ways, [one["subscriptions"] for one in drawn])
    tables["contacts"] = _left(tables["contacts"], ways, [one["contacts"] for one in drawn])
    tables["opportunities"] = _closed(world, tables["opportunities"], lives)
    messages = joined([base["ticket_messages"], *(one["ticket_messages"] for one in drawn)])
    there = pc.is_in(messages["ticket_id"].cast(pa.string()), value_set=tables["support_tickets"]["ticket_id"])
    tables["ticket_messages"] = keep(messages.filter(there))
    alive = (made.at >= world.joined[made.account]) & (made.at < lives.deal.ends(world.clock.end)[made.account])
    tables["touches"] = keep(joined([tables["touches"], contacted.touched(world, made.take(alive))]))
    tables["assets"] = machines.assets(world, lives.equipment)
    tables["asset_events"] = _events(world, states, lives, base["asset_events"])
    return tables


def telemetry(world: World, states: States, lives: Lives, parts: Iterable[Frame]) -> Iterator[Frame]:
    """The parts of the telemetry, each with its assets' new rows."""
    since, known = _since_assets(world, lives), lives.untouched.ids
    ways = courses(world, states, lives.repairs)
    for part, frame in enumerate(parts):
        rows = slice(part * machines.PART, (part + 1) * machines.PART)
        grown = []
        for way in ways:
            mine = np.nonzero(lives.untouched.account == way.turn.account)[0]
            mine = mine[(mine >= rows.start) & (mine < rows.stop)]
            if len(mine):
                levels = world.dice("telemetry", part).standard_normal((3, len(known[rows])))[:, mine - rows.start]
                own = way.turn.equipment.alone(mine)
                grown += [_window(one, way, "occurred_at") for one in machines.telemetry(way.world, own, levels)]
        yield graft(frame, "asset_id", known, since, grown, "occurred_at")


def _drawn(way: Course) -> dict[str, Frame]:
    """One account's tables on its new course, from the first day on."""
    world, states, deal = way.world, way.states, way.deal
    asked = support.tickets(world, states, deal)
    served = support.serve(world, asked)
    return {
        "subscriptions": contracts.subscriptions(world, deal), "support_tickets":
        support.support_tickets(world, asked, served), "ticket_messages": support.messages(world, asked, served),
        "surveys": support.surveys(world, states, deal), "invoices": contracts.invoices(world, states, deal),
        "contacts": people.contacts(world, states, deal), "touches": people.touches(world, states, deal),
        "opportunities": people.opportunities(world, states, deal),
    }


def _window(table: Frame, way: Course, own: str) -> Frame:
    """The rows whose time falls into the turn's."""
    at = times(table[own])
    return table.filter(pa.array((at >= way.turn.since) & (at < way.turn.until)))


def _replaced(world: World, base: Frame, ways: Sequence[Course], drawn: Sequence[Frame], own: str) -> Frame:
    """The base's rows up to each account's first turn, and the new ones from there on."""
    since = _since(world, [way.turn for way in ways])
    grown = [_window(table, way, own) for way, table in zip(ways, drawn, strict=True)]
    return graft(base, "account_id", world.ids, since, grown, own)


def _ended(table: Frame, ways: Sequence[Course], drawn: Sequence[Frame]) -> Frame:
    """The subscriptions' ends and notices as they came to be, in rows of before the turn too."""
    last = {way.turn.account: rows for way, rows in zip(ways, drawn, strict=True)}
    return mended(table, "subscription_id", joined([table.slice(0, 0), *last.values()]),
                   ("ended_at", "end_recorded_at"))


def _left(table: Frame, ways: Sequence[Course], drawn: Sequence[Frame]) -> Frame:
    """A champion in place at the turn leaves when the new course says so."""
    account = table["account_id"].cast(pa.string()).to_numpy(zero_copy_only=False)
    role = table["role"].cast(pa.string()).to_numpy(zero_copy_only=False)
    left, known = times(table["left_at"]), times(table["recorded_at"])
    for way, rows in zip(ways, drawn, strict=True):
        since = way.turn.since
        here = np.nonzero((account == way.world.ids[0]) & (role == "champion") & (known < since)
                          & ~(left < since))[0]
        goes = times(rows["left_at"])[(times(rows["recorded_at"]) < since) & (times(rows["left_at"]) >= since)]
        left[here] = NAT
        left[here[-1:]] = goes[:1] if len(goes) else NAT
    return put_times(table, "left_at", left)


def _closed(world: World, table: Frame, lives: Lives) -> Frame:
    """Talks that were open at the turn end as the contracts do now."""
    deal, end = lives.deal, world.clock.end
    turned = _since(world, lives.turns)
    account = pc.index_in(table["account_id"].cast(pa.string()), value_set=pa.array(world.ids)).to_numpy()
    opened, closed = times(table["opened_at"]), times(table["closed_at"])
    rows = np.nonzero((turned[account] < FAR) & ~(closed < turned[account]))[0]
    mine, start, old = account[rows], opened[rows], closed[rows]
    renewal = table["kind"].cast(pa.string()).to_numpy(zero_copy_only=False)[rows] == "renewal"
    ahead = deal.months.renewal[mine] & (deal.months.at[mine] > start[:, None])
    term_end = np.where(ahead, deal.months.at[mine], FAR).min(axis=1)
    lost = deal.left[mine] <= term_end
    renewed = np.where(lost, np.fmax(deal.notice[mine], start), term_end)
    buys = people.next_buy(world, deal, mine, start)
    won = np.where(renewal, ~lost, buys < start + 90 * DAY)
    given_up = np.where(np.isnat(old), start + 90 * DAY, np.maximum(old, start + 60 * DAY))
    done = np.where(renewal, renewed, np.where(won, buys, given_up))
    over = (done < end) & (done >= start)
    closed[rows] = np.where(over, done, NAT)
    stage = table["stage"].cast(pa.string()).to_numpy(zero_copy_only=False).astype(object)
    stage[rows] = np.where(over, np.where(won, "won", "lost"), "talking")
    is_won = table["won"].to_numpy(zero_copy_only=False).astype(object)
    is_won[rows] = won
    is_won[rows[~over]] = None
    table = put_times(table, "closed_at", closed)
    table = table.set_column(table.column_names.index("stage"), "stage", pa.array(stage, pa.string()))
    return table.set_column(table.column_names.index("won"), "won", pa.array(list(is_won), pa.bool_()))


def _events(world: World, states: States, lives: Lives, base: Frame) -> Frame:
    """The assets' events, with the visits that were made and the failures that came or did not."""
    grown = []
    for way in courses(world, states, lives.repairs):
        own = way.turn.equipment.alone(np.nonzero(lives.untouched.account == way.turn.account)[0])
        grown.append(_window(machines.asset_events(way.world, own), way, "occurred_at"))
    return graft(base, "asset_id", lives.untouched.ids, _since_assets(world, lives), grown, "occurred_at")


def _since_assets(world: World, lives: Lives) -> Array:
    return _since(world, lives.repairs)[lives.untouched.account]


def _since(world: World, turns: Sequence[Turn]) -> Array:
    """Each account's first turn; FAR where there is none."""
    since = np.full(world.size, FAR)
    for turn in turns:
        since[turn.account] = min(since[turn.account], turn.since)
    return since
