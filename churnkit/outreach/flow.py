"""The greatest total where rooms nest: a min-cost flow, its prices, and the lowest of all equal answers.

Every candidate sends one unit: to the smallest span that it would be due in at one of its people, or past everybody.
Spans nest, so each hands what it holds to the one span above it, and the last to the run as a whole. That is a network
with whole capacities; its best flow is whole (Ahuja, Magnanti and Orlin, Network Flows, 1993, theorem 9.10), and each
answer is checked against the prices of the rooms, in whole numbers, so that it proves itself (their theorem 9.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ortools.graph.python.min_cost_flow import SimpleMinCostFlow

from churnkit.errors import OutreachError
from churnkit.outreach.spans import Ints, Mask, Pairs

_FAR = np.int64(1) << 61  # more than any way through the network costs
_FREE, _FULL, _EMPTY = 0, 1, -1


@dataclass(frozen=True, eq=False)
class Net:
    """Arcs from candidates to rooms, by candidate, and from each room to the one above; the last node is the end."""

    candidate: Ints
    node: Ints
    above: Ints
    room: Ints
    candidates: int
    real: Ints
    """Which arcs are pairs: every candidate has one more, past everybody."""

    @property
    def end(self) -> int:
        """Where every unit arrives."""
        return len(self.above)

    def spread(self, values: Ints) -> Ints:
        """A number per pair as one per arc; going past everybody counts nothing."""
        every = np.zeros(len(self.node), np.int64)
        every[self.real] = values
        return every


@dataclass(frozen=True, eq=False)
class _State:
    """What is still open after a level: arcs that may be used, and rooms that are neither full nor empty for good."""

    alive: Mask
    rooms: Ints

    def choices(self, net: Net) -> bool:
        """Whether anybody can still go two ways."""
        return bool((np.bincount(net.candidate[self.alive], minlength=net.candidates) > 1).any())


@dataclass(frozen=True, eq=False)
class Nest:
    """The nested rooms of all people.

    `leaf` names the smallest room of every cell, `run` the room of the run as a whole, which stands above all others;
    `spare` is the room for urgent candidates whom nobody can take.
    """

    above: Ints
    room: Ints
    leaf: Ints

    @property
    def run(self) -> int:
        """The room above all others; the spare one follows it."""
        return len(self.above) - 2


def nest(above: Ints, room: Ints, smallest: Ints, total: int) -> Nest:
    """Adds the room of the whole run above a forest of rooms, and the spare one (closed) beside it."""
    run = len(above)
    return Nest(np.concatenate([np.where(above < 0, run, above), [run + 2, run + 2]]),
                np.concatenate([room, [total, 0]]), np.where(smallest < 0, run, smallest))


@dataclass(frozen=True, eq=False)
class Best:
    """Which pairs are used, and what one place less in each room would cost (the last is the end: 0)."""

    used: Mask
    price: Ints


def best(pairs: Pairs, rooms: Nest, levels: Sequence[Ints], most: int, *, sift: bool = True) -> Best:
    """The pairs of the greatest total; of equal ones those of the greatest second total, and so on.

    Sifting solves for some candidates, and lets in those of the others that would better or equal the total at the
    prices of the rooms, until there are none: then the prices prove the answer for all, and whoever stayed out is in no
    answer as good (a reduced cost above 0). Every urgent candidate is in at once.

    Args:
        pairs: What may be given to whom.
        rooms: The nested rooms.
        levels: What each pair counts at each level, above 0; the first is the gain.
        most: No more tasks than this fit, whoever takes them.
        sift: Whether to begin with some candidates only.
    """
    starts = beginnings(pairs.candidate)
    owner = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(pairs.candidate))))
    urgent, leaf = pairs.urgent[starts], rooms.leaf[pairs.cell]
    rooms = _with_spare(rooms, leaf, owner, urgent)
    core, step = np.ones(len(starts), bool), 2 * most + 1000
    if sift and len(starts) > 2 * step:
        top = np.maximum.reduceat(pairs.gain, starts)
        core = urgent | (top >= np.partition(top, len(top) - step)[len(top) - step])
    while True:
        which = np.flatnonzero(core[owner]) if not core.all() else np.arange(len(owner))
        net = _net(rooms, leaf[which], (np.cumsum(core) - 1)[owner[which]], urgent[core])
        state = _State(np.ones(len(net.node), bool), np.zeros(net.end, np.int64))
        gain = net.spread(pairs.gain[which])
        used = _flow(net, gain, state)
        price = _prices(net, gain, state, used)
        better = np.where(core, -1, np.maximum.reduceat(pairs.gain - price[leaf], starts)) if not core.all() else None
        if better is None or not (better >= 0).any():
            break
        others = np.flatnonzero(better >= 0)
        step *= 2
        core[others[np.argsort(-better[others], kind="stable")[:step]]] = True
    cost = price
    for level in levels[1:]:
        state = _tight(net, gain, state, used, cost)
        if not state.choices(net):
            break
        gain = net.spread(level[which])
        used = _flow(net, gain, state)
        cost = _prices(net, gain, state, used)
    found = np.zeros(len(owner), bool)
    found[which] = used[net.real]
    return Best(found, price)


def beginnings(rising: Ints) -> Ints:
    """Where each new number begins in a rising array.

    >>> beginnings(np.array([2, 2, 5])).tolist()
    [0, 2]
    """
    return np.flatnonzero(np.append(True, rising[1:] != rising[:-1])) if len(rising) else np.zeros(0, np.int64)


def _with_spare(rooms: Nest, leaf: Ints, owner: Ints, urgent: Mask) -> Nest:
    """Opens the way past everybody for as many urgent candidates as cannot be served, so that the rest must be.

    As many as can be are served in every answer, and which ones is left to the total: no bonus is needed that would
    have to outweigh all the money there is.
    """
    if not urgent.any():
        return rooms
    mine = np.flatnonzero(urgent[owner])
    number = np.cumsum(urgent) - 1
    alone = _net(rooms, leaf[mine], number[owner[mine]], np.zeros(int(urgent.sum()), bool))
    state = _State(np.ones(len(alone.node), bool), np.zeros(alone.end, np.int64))
    served = int(_flow(alone, alone.spread(np.ones(len(mine), np.int64)), state)[alone.real].sum())
    return Nest(rooms.above, np.append(rooms.room[:-1], len(number[urgent]) - served), rooms.leaf)


def _net(rooms: Nest, node: Ints, candidate: Ints, urgent: Mask) -> Net:
    """The arcs of some pairs, each candidate's followed by the one past everybody."""
    count = len(urgent)
    real = np.arange(len(node)) + candidate
    every = np.empty(len(node) + count, np.int64)
    last = np.cumsum(np.bincount(candidate, minlength=count)) + np.arange(count)
    every[real], every[last] = node, np.where(urgent, rooms.run + 1, rooms.run + 2)
    owner = np.empty(len(every), np.int64)
    owner[real], owner[last] = candidate, np.arange(count)
    return Net(owner, every, rooms.above, rooms.room, count, real)


def _flow(net: Net, gain: Ints, state: _State) -> Mask:
    """The arcs that the best flow uses; who has one arc left, and rooms known to be full or empty, are out of it."""
    ways = np.bincount(net.candidate[state.alive], minlength=net.candidates)
    one = ways == 1
    used: Mask = state.alive & one[net.candidate]
    asked = np.flatnonzero(state.alive & ~one[net.candidate])
    supply = np.bincount(net.node[used], minlength=net.end + 1)
    full, free = np.flatnonzero(state.rooms == _FULL), np.flatnonzero(state.rooms == _FREE)
    np.subtract.at(supply, full, net.room[full])
    np.add.at(supply, net.above[full], net.room[full])
    supply[net.end] -= net.candidates
    number = net.end + np.cumsum(~one)
    solver = SimpleMinCostFlow()
    arcs = solver.add_arcs_with_capacity_and_unit_cost(
        np.concatenate([number[net.candidate[asked]], free]).astype(np.int32),
        np.concatenate([net.node[asked], net.above[free]]).astype(np.int32),
        np.concatenate([np.ones(len(asked), np.int64), net.room[free]]),
        np.concatenate([-gain[asked], np.zeros(len(free), np.int64)]))
    nodes = np.arange(net.end + 1 + int((~one).sum()), dtype=np.int32)
    solver.set_nodes_supplies(nodes, np.concatenate([supply, np.ones(len(nodes) - net.end - 1, np.int64)]))
    status = solver.solve()
    if status != solver.OPTIMAL:
        raise OutreachError(f"The allocation found no best flow ({status.name}). Report this with the policy.")
    used[asked] = solver.flows(arcs[:len(asked)]) > 0
    return used


def _prices(net: Net, gain: Ints, state: _State, used: Mask) -> Ints:
    """What freeing one place in each room costs at the least: shortest ways to the end over what could still change.

    A used arc can be given up for another of the same candidate; a room that is not full passes one more on, and one
    that holds somebody can pass one less. Bellman and Ford's rounds over all of these at once.
    """
    mine = np.full(net.candidates, -1)
    mine[net.candidate[used]] = np.flatnonzero(used)
    current = mine[net.candidate]
    moves = np.flatnonzero(state.alive & ~used & (net.node[current] != net.end))
    here = current[moves]
    held = _held(net, used)
    rooms = np.arange(net.end)
    more = np.flatnonzero((state.rooms == _FREE) & (held < net.room))
    less = np.flatnonzero((state.rooms == _FREE) & (held > 0) & (net.above != net.end))
    tail = np.concatenate([net.node[here], more, net.above[less]])
    head = np.concatenate([net.node[moves], net.above[more], rooms[less]])
    cost = np.concatenate([gain[here] - gain[moves], np.zeros(len(more) + len(less), np.int64)])
    order = np.lexsort((cost, head, tail))
    tail, head, cost = tail[order], head[order], cost[order]
    first = np.append(True, (tail[1:] != tail[:-1]) | (head[1:] != head[:-1])) if len(tail) else np.zeros(0, bool)
    tail, head, cost = tail[first], head[first], cost[first]
    starts = beginnings(tail)
    price = np.full(net.end + 1, _FAR)
    price[net.end] = 0
    for _ in range(net.end + 2):
        if not len(starts):
            break
        lower = np.minimum(price[tail[starts]], np.minimum.reduceat(cost + price[head], starts))
        if (lower == price[tail[starts]]).all():
            break
        price[tail[starts]] = lower
    return price


def _held(net: Net, used: Mask) -> Ints:
    """What passes each room."""
    own = np.bincount(net.node[used], minlength=net.end + 1)
    held = own
    while True:
        passed = own.copy()
        np.add.at(passed, net.above, held[:-1])
        if (passed == held)[:-1].all():
            return held[:-1]
        held = passed


def _tight(net: Net, gain: Ints, state: _State, used: Mask, price: Ints) -> _State:
    """What every best answer may use: arcs of no reduced cost, rooms full where they have a price of their own."""
    pull = np.where(state.alive, gain - price[net.node], -2 * _FAR)
    top = np.maximum.reduceat(pull, beginnings(net.candidate))
    alive = state.alive & (pull == top[net.candidate])
    own = price[:-1] - price[net.above]
    held = _held(net, used)
    fixed = np.where(own > 0, _FULL, np.where(own < 0, _EMPTY, _FREE))
    wrong = (used & ~alive).any() or ((fixed == _FULL) & (held != net.room) & (state.rooms == _FREE)).any()
    if wrong or ((fixed == _EMPTY) & (held != 0) & (state.rooms == _FREE)).any():
        raise OutreachError("The allocation's prices do not prove its flow. Report this with the policy and the plan.")
    return _State(alive, np.where(state.rooms == _FREE, fixed, state.rooms))
