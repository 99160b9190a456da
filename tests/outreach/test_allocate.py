"""The allocation against every possible one, against HiGHS on the whole, and its limits as properties."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from churnkit.errors import OutreachError
from churnkit.outreach.allocate import Offers, Room, allocate, changed, steady, taken, worth


def broken(offers, room, person):
    """The first limit that an assignment breaks, in words; None if it keeps all. A naive loop over people and spans."""
    if room.total is not None and (person >= 0).sum() > max(room.total, 0):
        return "more than in all"
    worths = {(int(c), int(p)): v for c, p, v in zip(offers.candidate, offers.person, offers.value, strict=True)}
    for candidate, one in enumerate(person):
        if one >= 0 and worths.get((candidate, int(one)), 0) <= 0:
            return f"{candidate} was not offered to {one}"
    rushed = np.zeros_like(room.busy) if room.rushed is None else room.rushed
    last = max(room.busy.shape[1], int(offers.due.max(initial=0)) + 1)
    for one, capacity in enumerate(room.capacity):
        held = 0 if capacity < 1 else min(int(room.slack * capacity + 0.5), capacity - 1)
        mine = np.flatnonzero(person == one)
        for start in range(last):
            week = range(start, start + 7)
            busy = sum(int(room.busy[one, day]) for day in week if day < room.busy.shape[1])
            quick = sum(int(rushed[one, day]) for day in week if day < room.busy.shape[1])
            new = [candidate for candidate in mine if max(offers.due[candidate], 0) in week]
            ordinary = [candidate for candidate in new if not offers.urgent[candidate]]
            if new and busy + len(new) > capacity:
                return f"{one} has {busy} + {len(new)} due from day {start}, not {capacity}"
            if ordinary and busy - quick + len(ordinary) > capacity - held:
                return f"{one} has {len(ordinary)} ordinary ones from day {start} in what is held back"
    return None


def rank(offers, room, person):
    """What makes one assignment better than another, most important first."""
    n, m = len(offers.due), len(room.capacity)
    chosen = np.flatnonzero(person >= 0)
    return (int(offers.urgent[chosen].sum()), round(worth(offers, person), 6), int((n - chosen).sum()),
            int(((n - chosen) * (m - person[chosen])).sum()))


def every(offers, room):
    """The best of all assignments that keep the limits: brute force."""
    people = [[-1, *offers.person[(offers.candidate == one) & (offers.value > 0)]] for one in range(len(offers.due))]
    possible = (np.array(person, dtype=int) for person in itertools.product(*people))
    return max((person for person in possible if broken(offers, room, person) is None),
               key=lambda person: rank(offers, room, person))


@st.composite
def small(draw, far=20, money=None):
    """At most 6 candidates and 3 people; few different values, so that totals are often equal."""
    n, m = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    pairs = draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, m - 1)), unique=True, max_size=n * m))
    money = money or st.one_of(st.integers(-1, 4).map(float), st.floats(-10, 1000).map(lambda value: round(value, 2)))
    value = [draw(money) for _ in pairs]
    days = draw(st.integers(1, far + 8))
    tasks = st.lists(st.sampled_from([0, 0, 0, 0, 1, 2]), min_size=days, max_size=days)
    busy = np.array([draw(tasks) for _ in range(m)])
    rushed = np.minimum(busy, draw(st.integers(0, 1))) if draw(st.booleans()) else None
    offers = Offers(np.array([pair[0] for pair in pairs], int), np.array([pair[1] for pair in pairs], int),
                    np.array(value, float), np.array(draw(st.lists(st.integers(-1, far), min_size=n, max_size=n))),
                    np.array(draw(st.lists(st.sampled_from([False, False, True]), min_size=n, max_size=n))))
    room = Room(np.array(draw(st.lists(st.integers(0, 5), min_size=m, max_size=m))), busy,
                draw(st.sampled_from([0.0, 0.2, 0.5, 1.0])), draw(st.sampled_from([None, None, 0, 1, 2, 4])), rushed)
    return offers, room


@given(small())
@settings(max_examples=400, deadline=None)
def test_no_assignment_is_better(case):
    """Over three weeks, with crossing spans, busy people, slack and a cap: the very assignment of the brute force."""
    offers, room = case
    made = allocate(offers, room)
    assert broken(offers, room, made.person) is None
    best = every(offers, room)
    assert rank(offers, room, best) == rank(offers, room, made.person)
    assert made.total == pytest.approx(worth(offers, best), abs=1e-9 + made.tolerance)
