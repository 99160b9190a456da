"""How long the allocation takes: 20,000 candidates x 3 eligible people, 100,000 x 3 of 500 people, 1,000,000 x 3.

    python benchmarks/plan.py [--small] [--json]

The peer is the bare solver on the very same problem, given arrays that are ready: OR-tools' min-cost flow where all is
due within a week (`ratio_solver`; `ratio_solver_unsifted` is without leaving unlikely candidates aside at first). Where
dues lie over ten days and people are busy, spans cross and no flow can say so: there the peer is HiGHS, its interior
point, on the relaxation of the whole (`ratio_highs`), at the smallest size alone, since more takes it too long; ours is
timed up to 100,000. Beside it, `ratio_flow` is to the flow that knows the first week and the rest alone: an easier
problem, not the same. Ours is from Offers to Assignment. `equal` says whether the totals are.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from ortools.graph.python.min_cost_flow import SimpleMinCostFlow
from scipy.optimize import linprog
from scipy.sparse import csr_array

from churnkit.outreach.allocate import Offers, Room, allocate

PEOPLE, EACH = 500, 3


def made(candidates: int, days: int, seed: int) -> tuple[Offers, Room]:
    """Offers of three people each; where dues lie over more than a week, people are busy too."""
    rng = np.random.default_rng(seed)
    people = max(10, min(PEOPLE, candidates // 200))
    first = rng.integers(0, people, candidates)
    half = people // 2
    near, far = rng.integers(1, half, candidates), rng.integers(half, people, candidates)
    person = np.stack([first, first + near, first + far], axis=1) % people
    value = np.round(rng.lognormal(7, 1, candidates)[:, None] * rng.uniform(0.6, 1, (candidates, EACH)), 2)
    busy = np.zeros((people, days + 7), np.int64) if days <= 7 else rng.binomial(3, 0.3, (people, days + 7))
    offers = Offers(np.repeat(np.arange(candidates), EACH), person.ravel(), value.ravel(),
                    rng.integers(1, days + 1, candidates), np.zeros(candidates, bool))
    return offers, Room(rng.integers(8, 21, people), busy, 0.1)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What the work gives, and its seconds of the processor, which a busy machine leaves alone."""
    spent = time.process_time()
    return work(), time.process_time() - spent


def bare(offers: Offers, room: Room) -> tuple[float, float]:
    """OR-tools on ready arrays: the total, and the seconds. A week's room per person, and the week after's."""
    candidates, people = len(offers.due), len(room.capacity)
    week = (offers.due > 7)[offers.candidate] * people + offers.person
    free = [np.maximum(room.capacity - room.held() - room.busy[:, first:first + 7].sum(axis=1), 0) for first in (1, 8)]
    end = candidates + 2 * people
    tails = np.concatenate([offers.candidate, np.arange(end)]).astype(np.int32)
    heads = np.concatenate([candidates + week, np.full(end, end)]).astype(np.int32)
    most = np.concatenate([np.ones(len(week) + candidates, np.int64), *free])
    cost = np.concatenate([-np.rint(offers.value * 100), np.zeros(end)]).astype(np.int64)
    nodes = np.arange(end + 1, dtype=np.int32)
    supply = np.where(nodes < candidates, 1, 0).astype(np.int64)
    supply[-1] = -candidates

    def solve() -> float:
        solver = SimpleMinCostFlow()
        arcs = solver.add_arcs_with_capacity_and_unit_cost(tails, heads, most, cost)
        solver.set_nodes_supplies(nodes, supply)
        assert solver.solve() == solver.OPTIMAL  # noqa: S101 - a benchmark that fails should say so
        return float(offers.value[np.asarray(solver.flows(arcs[:len(week)])) > 0].sum())

    return timed(solve)


def relaxed(offers: Offers, room: Room) -> tuple[float, float]:
    """HiGHS on a ready matrix of every span: the greatest total of the relaxation, and the seconds."""
    candidates, people, pairs = len(offers.due), len(room.capacity), len(offers.candidate)
    due = offers.due[offers.candidate]
    rows, columns, most = [offers.candidate], [np.arange(pairs)], [np.ones(candidates)]
    for place, first in enumerate(range(max(int(due.min()) - 6, 0), int(due.max()) + 1)):
        inside = np.flatnonzero((due >= first) & (due < first + 7))
        rows.append(candidates + place * people + offers.person[inside])
        columns.append(inside)
        most.append(np.maximum(room.capacity - room.held() - room.busy[:, first:first + 7].sum(axis=1), 0))
    limits = np.concatenate(most)
    row, column = np.concatenate(rows), np.concatenate(columns)
    matrix = csr_array((np.ones(len(row)), (row, column)), shape=(len(limits), pairs))

    def solve() -> float:
        return -float(linprog(-offers.value, A_ub=matrix, b_ub=limits, bounds=(0, None), method="highs-ipm").fun)

    return timed(solve)


def measure(candidates: int, *, with_highs: bool) -> dict[str, Any]:
    """One size: dues within a week, then over ten days."""
    offers, room = made(candidates, 7, 5)
    ours, seconds = timed(lambda: allocate(offers, room))
    unsifted, slower = timed(lambda: allocate(offers, room, sift=False))
    total, solver = bare(offers, room)
    row: dict[str, Any] = {
        "candidates": candidates, "people": len(room.capacity), "tasks": int((ours.person >= 0).sum()),
        "seconds": {"churnkit": round(seconds, 2), "unsifted": round(slower, 2), "ortools": round(solver, 2)},
        "ratio_solver": round(seconds / solver, 2), "ratio_solver_unsifted": round(slower / solver, 2),
        "equal": bool(abs(ours.total - total) < 0.005) and bool((ours.person == unsifted.person).all()),
    }
    if candidates > 100_000:
        return row
    offers, room = made(candidates, 10, 6)
    crossed, spent = timed(lambda: allocate(offers, room))
    _, looser = bare(offers, room)
    row["ten_days"] = {"seconds": {"churnkit": round(spent, 2), "looser flow": round(looser, 2)},
                       "solver": crossed.solver, "tasks": int((crossed.person >= 0).sum()),
                       "tolerance": crossed.tolerance, "ratio_flow": round(spent / looser, 2)}
    if with_highs:
        bound, highs = relaxed(offers, room)
        row["ten_days"]["seconds"]["highs"] = round(highs, 2)
        row["ten_days"] |= {"ratio_highs": round(spent / highs, 2),
                            "share_of_bound": round(crossed.total / bound, 9)}
    return row


def main() -> None:
    """Three sizes; --small takes 5,000 and 20,000 candidates."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", action="store_true")
    options.add_argument("--small", action="store_true")
    asked = options.parse_args()
    sizes = (5_000, 20_000) if asked.small else (20_000, 100_000, 1_000_000)
    rows = [measure(size, with_highs=size == sizes[0]) for size in sizes]
    result = {"benchmark": "plan", "sizes": rows, "ratio_solver": max(row["ratio_solver"] for row in rows),
              "ratio_solver_unsifted": max(row["ratio_solver_unsifted"] for row in rows),
              "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
              "versions": {name: importlib.metadata.version(name) for name in ("ortools", "scipy", "numpy")},
              "equal": all(row["equal"] for row in rows)}
    if asked.json:
        print(json.dumps(result))
        return
    for row in rows:
        print(f"{row['candidates']} candidates x {EACH} of {row['people']} people, {row['tasks']} tasks:")
        print(f"    seconds of the processor: {row['seconds']}")
        print(f"    ratio_solver {row['ratio_solver']}, unsifted {row['ratio_solver_unsifted']}; equal: {row['equal']}")
        print(f"    over ten days: {row.get('ten_days', 'not measured at this size')}")
    print(f"ratio_solver at most {result['ratio_solver']}; peak {result['peak_mb']} MB; equal: {result['equal']}")


if __name__ == "__main__":
    main()
