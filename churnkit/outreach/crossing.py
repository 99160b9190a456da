"""The greatest total where spans of seven days cross: HiGHS, on those pairs alone that can be part of it.

Crossing spans make no network: people with one task in any week, and candidates who may each go to some of them, are a
list colouring of a unit interval graph, NP-hard in general (Marx, Precoloring extension on unit interval graphs,
Discrete Applied Mathematics 154, 2006). The relaxation is mostly whole all the same: for one person and one kind alone
the spans' matrix has its ones in a row and is totally unimodular, so that only what people share can split a task.

Any prices of the spans, 0 or more, bound the total from above (weak duality), and a pair that falls short of its
candidate's best by more than the distance of an answer from that bound is in no better answer. So the relaxation is
solved on a growing part of the pairs until the prices show nothing better outside, and where it is not whole, the
integer problem is solved on the pairs within that distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import csr_array, vstack

from churnkit.errors import OutreachError
from churnkit.outreach.flow import beginnings
from churnkit.outreach.spans import Ints, Mask, Pairs, Spans

Floats = NDArray[np.float64]
_LARGEST = 1e4    # the largest gain as HiGHS sees it: its tolerance of 1e-7 is then 1e-11 of that
_NEAR = 1e-6      # as HiGHS sees it: what counts as no difference
_CLOSE = 1e-10    # of the bound: an answer this near is the best but for rounding
_NODES = 2000     # of the search among equal totals; what it has not settled by then stays as it is


@dataclass(frozen=True, eq=False)
class Answer:
    """The pairs used, and how far their total may lie below the greatest, in units of gain (rounding apart: 0)."""

    used: Mask
    short: float


@dataclass(frozen=True, eq=False)
class _Case:
    """A problem with its matrix; `need` urgent tasks at least, `total` tasks at most."""

    pairs: Pairs
    spans: Spans
    holds: csr_array
    owner: Ints
    total: int | None
    need: int

    @property
    def gain(self) -> Floats:
        """Gains as HiGHS sees them."""
        found: Floats = self.pairs.gain * (_LARGEST / self.pairs.gain.max())
        return found


@dataclass(frozen=True, eq=False)
class _Prices:
    """The bound that prices prove, what each pair brings above them, and how far that is below its candidate's best.

    A pair that is known to be in no better answer falls short without end.
    """

    bound: float
    short: Floats
    pull: Floats


def cross(pairs: Pairs, spans: Spans, levels: Sequence[Ints], total: int | None, hint: Ints) -> Answer:
    """The pairs of the greatest total; urgent candidates first, equal totals by the next levels.

    Args:
        pairs: What may be given to whom.
        spans: The spans that bind; those of people without pairs here are idle.
        levels: What each pair counts at each level, above 0; the first is the gain.
        total: No more tasks than this; None: as many as fit.
        hint: Prices of the cells to begin with, as a looser problem had them, shape (cells,).
    """
    cells = csr_array((np.ones(len(spans.row)), (spans.row, spans.cell)), shape=(len(spans.person), spans.cells))
    starts = beginnings(pairs.candidate)
    owner = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(pairs.candidate))))
    holds = cells.tocsc()[:, pairs.cell].tocsr()
    kept = np.flatnonzero(np.diff(holds.indptr) > spans.room)
    case = _Case(pairs, replace(spans, room=spans.room[kept]), holds[kept], owner, total, 0)
    if pairs.urgent.any():
        rush = np.flatnonzero(pairs.urgent)
        alone = _part(case, rush)
        alone = replace(alone, pairs=replace(alone.pairs, gain=np.ones(len(rush), np.int64)))
        case = replace(case, need=int(_greatest(alone, np.arange(len(rush)))[0].sum()))
    short = pairs.gain - hint[pairs.cell]
    best = np.maximum(np.maximum.reduceat(short, starts), 0)[owner]
    near = (short >= best - pairs.gain.max() // 100) | pairs.urgent
    used, prices = _greatest(case, np.flatnonzero(near))
    gap = max(prices.bound - float(case.gain[used].sum()), 0.0)
    unit = pairs.gain.max() / _LARGEST
    return Answer(_settle(case, used, prices, gap, levels), gap * unit)


def _part(case: _Case, which: Ints) -> _Case:
    """The case of some pairs."""
    owner = np.unique(case.owner[which], return_inverse=True)[1]
    return replace(case, pairs=case.pairs.pick(which), holds=case.holds[:, which], owner=owner)


def _rows(case: _Case, which: Ints) -> tuple[Any, Floats]:
    """Everything that must hold for some pairs: A x <= b. Spans first, then the run, the urgent ones, candidates."""
    count = len(which)
    ones, urgent = np.ones(count), case.pairs.urgent[which].astype(float)
    run = count if case.total is None else min(case.total, count)
    firsts, number = np.unique(case.owner[which], return_inverse=True)
    each = csr_array((ones, (number, np.arange(count))), shape=(len(firsts), count))
    matrix = vstack([case.holds[:, which], csr_array(ones[None]), csr_array(-urgent[None]), each], format="csr")
    return matrix, np.concatenate([case.spans.room, [run, -case.need], np.ones(len(firsts))])


def _greatest(case: _Case, near: Ints) -> tuple[Mask, _Prices]:
    """The best pairs and the prices that bound them; `near` is where to begin."""
    gain = case.gain
    best, worth = np.zeros(len(gain), bool), -np.inf
    core, open_ = best.copy(), ~best
    core[near] = True
    while True:
        which = np.flatnonzero(core)
        matrix, most = _rows(case, which)
        found = linprog(-gain[which], A_ub=matrix, b_ub=most, bounds=(0, None), method="highs-ipm")
        if found.x is None or found.status:
            raise OutreachError(f"HiGHS found no allocation ({found.message}). Report this with the policy.")
        prices = _priced(case, -found.ineqlin.marginals, open_)
        used = np.zeros(len(gain), bool)
        used[which[np.asarray(found.x) > 1 - _NEAR]] = True
        if gain[used].sum() > worth and _fits(case, used):
            best, worth = used, float(gain[used].sum())
        gap = prices.bound - worth
        if gap <= _CLOSE * prices.bound:
            return best, prices
        inside = np.zeros(case.owner[-1] + 1)
        np.maximum.at(inside, case.owner[which], prices.pull[which])
        better = ~core & (prices.pull > inside[case.owner] + _NEAR)
        if not better.any():
            return _searched(case, prices, best)
        within = prices.short <= gap + _NEAR
        if within.sum() <= core.sum():  # all that a better answer may use: nothing else has to be looked at again
            core = open_ = within
        else:
            core |= better


def _searched(case: _Case, prices: _Prices, best: Mask) -> tuple[Mask, _Prices]:
    """The best whole answer, where the relaxation halves some tasks; first among few pairs, then among enough."""
    guess = _LARGEST / 1000
    while True:
        which = np.flatnonzero(prices.short <= guess)
        used, under = _whole(case, which)
        worth = max(float(case.gain[used].sum()), float(case.gain[best].sum()))
        gap = prices.bound - worth if _fits(case, used) else np.inf
        if gap <= guess or len(which) == np.isfinite(prices.short).sum():
            return used, replace(prices, bound=min(prices.bound, under))
        guess = min(gap * 1.01, 8 * guess)


def _priced(case: _Case, duals: Floats, open_: Mask) -> _Prices:
    """What prices, made 0 or more, prove about the pairs that are still open."""
    duals = np.maximum(duals, 0)
    count, pairs = len(case.spans.room), len(case.owner)
    spans, run, rush = duals[:count], duals[count], duals[count + 1]
    total = pairs if case.total is None else min(case.total, pairs)
    if total == pairs:
        run = 0.0
    pull = np.where(open_, case.gain - case.holds.T @ spans - run + rush * case.pairs.urgent, -np.inf)
    top = np.maximum(np.maximum.reduceat(pull, beginnings(case.owner)), 0)
    bound = float(spans @ case.spans.room + run * total - rush * case.need + top.sum())
    return _Prices(bound, top[case.owner] - pull, pull)


def _whole(case: _Case, which: Ints) -> tuple[Mask, float]:
    """The best whole answer on some pairs, and the bound that HiGHS proved on them."""
    matrix, most = _rows(case, which)
    found = milp(-case.gain[which], constraints=LinearConstraint(matrix, -np.inf, most), bounds=Bounds(0, 1),
                 integrality=np.ones(len(which), np.int64), options={"mip_rel_gap": 0.0})
    used = np.zeros(len(case.owner), bool)
    if found.x is None:
        return used, np.inf
    used[which[found.x > 0.5]] = True
    return used, -float(found.mip_dual_bound)


def _fits(case: _Case, used: Mask) -> bool:
    """Whether an answer keeps everything, counted in whole numbers."""
    matrix, most = _rows(case, np.arange(len(case.owner)))
    return bool((matrix @ used.astype(float) <= most).all())


def _settle(case: _Case, used: Mask, prices: _Prices, gap: float, levels: Sequence[Ints]) -> Mask:
    """The lowest of equal totals, searched among the pairs that may be part of one."""
    which = np.flatnonzero(prices.short <= gap + _NEAR)
    if not (~used[which]).any():
        return used
    matrix, most = _rows(case, which)
    reached = [level[used].sum() for level in levels]
    floor, held = [levels[0]], [reached[0]]
    for place in range(1, len(levels)):
        weights = np.stack([level[which] * (_LARGEST / level[which].max()) for level in floor])
        least = [total * (_LARGEST / level[which].max()) for level, total in zip(floor, held, strict=True)]
        aim = levels[place][which] * (_LARGEST / levels[place][which].max())
        found = milp(-aim, constraints=[LinearConstraint(matrix, -np.inf, most),
                                        LinearConstraint(weights, np.array(least) - _NEAR, np.inf)],
                     bounds=Bounds(0, 1), integrality=np.ones(len(which), np.int64),
                     options={"mip_rel_gap": 0.0, "node_limit": _NODES})
        if found.x is None:
            return used
        other = np.zeros(len(used), bool)
        other[which[found.x > 0.5]] = True
        if _fits(case, other) and [level[other].sum() for level in levels] > [level[used].sum() for level in levels]:
            used = other
        floor.append(levels[place])
        held.append(levels[place][used].sum())
    return used
