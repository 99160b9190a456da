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
@settings(max_examples=150, deadline=None)
def test_no_assignment_is_better(case):
    """Over three weeks, with crossing spans, busy people, slack and a cap: the very assignment of the brute force."""
    offers, room = case
    made = allocate(offers, room)
    assert broken(offers, room, made.person) is None
    best = every(offers, room)
    assert rank(offers, room, best) == rank(offers, room, made.person)
    assert made.total == pytest.approx(worth(offers, best), abs=1e-9 + made.tolerance)


def whole(offers, room):
    """The greatest number of urgent candidates served, and then the greatest total, by HiGHS on all pairs and spans."""
    pairs, held = len(offers.candidate), room.held()
    last = max(room.busy.shape[1], int(offers.due.max()) + 1)
    entries = [[(int(one), 1) for one in np.flatnonzero(offers.candidate == c)] for c in range(len(offers.due))]
    most = [1.0] * len(entries)
    due, urgent = offers.due[offers.candidate], offers.urgent[offers.candidate]
    for one, start in itertools.product(range(len(room.capacity)), range(last)):
        inside = (offers.person == one) & (due >= start) & (due < start + 7)
        busy = room.busy[one, start:start + 7].sum()
        entries += [[(int(pair), 1) for pair in np.flatnonzero(inside & kind)] for kind in (inside, ~urgent)]
        most += [max(room.capacity[one] - busy, 0), max(room.capacity[one] - held[one] - busy, 0)]
    entries.append([(pair, 1) for pair in range(pairs)])
    most.append(pairs if room.total is None else room.total)
    row, column = [k for k, row in enumerate(entries) for _ in row], [pair for row in entries for pair, _ in row]
    matrix = coo_array((np.ones(len(row)), (row, column)), shape=(len(entries), pairs)).tocsr()
    limits, upper = LinearConstraint(matrix, -np.inf, np.array(most, float)), (offers.value > 0).astype(float)
    exact = {"integrality": np.ones(pairs, int), "bounds": Bounds(0, upper), "options": {"mip_rel_gap": 0.0}}
    served = round(-milp(-urgent.astype(float), constraints=limits, **exact).fun)
    first = LinearConstraint(urgent[None].astype(float), served, np.inf)
    return served, -milp(-offers.value, constraints=[limits, first], **exact).fun


def drawn(n, m, seed, *, far=20, capacity=(2, 6), each=3, urgent=0.1, busy=0.03, total=None, slack=0.2):
    """Candidates with some eligible people each, as a book of business would give them."""
    rng = np.random.default_rng(seed)
    person = np.stack([rng.permutation(m)[:each] for _ in range(n)])
    value = np.round(rng.lognormal(6, 1, n)[:, None] * rng.uniform(0.6, 1, (n, each)), 2)
    offers = Offers(np.repeat(np.arange(n), each), person.ravel(), value.ravel(), rng.integers(0, far, n),
                    rng.random(n) < urgent)
    return offers, Room(rng.integers(*capacity, m), rng.binomial(1, busy, (m, far + 7)), slack, total)


@pytest.mark.parametrize(("far", "total"), [(6, None), (6, 25), (10, None), (21, None), (21, 60)])
def test_agrees_with_highs_on_the_whole(far, total):
    """200 candidates, 10 people: the totals of HiGHS given everything at once, which knows of no flow and no prices."""
    offers, room = drawn(200, 10, far, far=far, total=total)
    made, (served, best) = allocate(offers, room), whole(offers, room)
    assert broken(offers, room, made.person) is None
    assert served == (offers.urgent & (made.person >= 0)).sum()
    assert made.total == pytest.approx(best, rel=1e-9)
    assert made.tolerance < 1e-6 * best


def split(seed):
    """A case whose relaxation halves a task: people with one task a week, equal values, dues over three weeks."""
    offers, room = drawn(40, 4, seed, far=18, capacity=(1, 2), each=2, urgent=0.0, busy=0.0)
    rng = np.random.default_rng(seed)
    return dataclasses.replace(offers, value=rng.integers(1, 4, len(offers.value)).astype(float)), room


def test_halved_tasks_are_made_whole(monkeypatch):
    """Where the relaxation is not whole the integer problem is solved on what is left, and is the best of all."""
    from churnkit.outreach import crossing

    asked = []
    solve = crossing._whole
    monkeypatch.setattr(crossing, "_whole", lambda *given_: asked.append(1) or solve(*given_))
    offers, room = split(26)
    made = allocate(offers, room)
    assert asked
    assert broken(offers, room, made.person) is None
    assert made.total == pytest.approx(whole(offers, room)[1], rel=1e-9)


def shuffled(offers, seed):
    order = np.random.default_rng(seed).permutation(len(offers.candidate))
    return dataclasses.replace(offers, candidate=offers.candidate[order], person=offers.person[order],
                               value=offers.value[order])


@pytest.mark.parametrize("far", [6, 12])
@pytest.mark.parametrize("equal", [False, True])
def test_rows_may_come_in_any_order(far, equal):
    """Also where most totals are equal, and again on a second run."""
    offers, room = drawn(150, 8, 3, far=far)
    if equal:
        offers = dataclasses.replace(offers, value=np.ceil(offers.value / 2000))
    first = allocate(offers, room).person
    for seed in range(4):
        assert list(first) == list(allocate(shuffled(offers, seed), room).person)


def test_equals_go_to_the_lowest_candidate_and_the_lowest_person():
    """Ten candidates of one value, two people with room for two each: the first four, in turn."""
    offers = Offers(np.repeat(np.arange(10), 2), np.tile([0, 1], 10), np.full(20, 50.0), np.full(10, 3),
                    np.zeros(10, bool))
    made = allocate(offers, Room(np.array([2, 2]), np.zeros((2, 1), int)))
    assert [0, 0, 1, 1, *[-1] * 6] == list(made.person)


def test_urgent_ones_come_first_at_any_price():
    """One slot: a person asked for goes before a million."""
    offers = Offers(np.array([0, 1]), np.array([0, 0]), np.array([1e6, 0.01]), np.array([2, 4]),
                    np.array([False, True]))
    room = Room(np.array([1]), np.zeros((1, 1), int))
    assert [-1, 0] == list(allocate(offers, room).person)
    assert [0, -1] == list(allocate(dataclasses.replace(offers, urgent=np.zeros(2, bool)), room).person)


def test_slack_is_for_urgent_ones_alone():
    """Of ten places two are held back: eight ordinary ones get in, and two urgent ones after them."""
    offers = Offers(np.arange(14), np.zeros(14, int), np.arange(14, 0, -1.0), np.full(14, 2), np.arange(14) > 10)
    made = allocate(offers, Room(np.array([10]), np.zeros((1, 1), int), slack=0.2))
    assert [0, 1, 2, 3, 4, 5, 6, 11, 12, 13] == list(np.flatnonzero(made.person == 0))
    ordinary = dataclasses.replace(offers, urgent=np.zeros(14, bool))
    assert 8 == (allocate(ordinary, Room(np.array([10]), np.zeros((1, 1), int), slack=0.2)).person == 0).sum()


def test_people_who_are_over_full_get_nothing():
    """Nine open tasks for a capacity of five: nothing near them, but what is due a week later still fits."""
    offers = Offers(np.arange(3), np.zeros(3, int), np.full(3, 10.0), np.array([0, 6, 9]),
                    np.array([True, False, False]))
    room = Room(np.array([5]), np.array([[0, 0, 9]]))
    assert [-1, -1, 0] == list(allocate(offers, room).person)


@pytest.mark.parametrize("far", [6, 10])
def test_sifting_changes_nothing(far):
    """What is left aside at first could not have been chosen: the same assignment, person by person."""
    offers, room = drawn(6000, 20, 4, far=far, each=2)
    assert list(allocate(offers, room, sift=False).person) == list(allocate(offers, room).person)


def test_groups_without_shared_candidates_are_apart():
    """Only the team whose spans are broken goes to HiGHS, and the whole is still the best; a cap joins them again."""
    near, _ = drawn(60, 4, 1, far=5)
    far, _ = drawn(60, 4, 2, far=12)
    both = Offers(*(np.concatenate([a, b]) for a, b in (
        (near.candidate, far.candidate + 60), (near.person, far.person + 4), (near.value, far.value),
        (near.due, far.due), (near.urgent, far.urgent))))
    room = Room(np.full(8, 3), np.zeros((8, 20), int), 0.2)
    made = allocate(both, room)
    assert made.solver == "flow and HiGHS"
    assert made.total == pytest.approx(whole(both, room)[1], rel=1e-9)
    tight = dataclasses.replace(room, total=15)
    capped = allocate(both, tight)
    assert capped.total == pytest.approx(whole(both, tight)[1], rel=1e-9)


def test_small_changes_in_scores_leave_people_their_queues():
    """1% of noise: with a penalty under 1% of the total few change, and the total loses no more than was said."""
    rng = np.random.default_rng(8)
    offers, room = drawn(2000, 20, 5, far=6, urgent=0.0, capacity=(15, 25))
    before = allocate(offers, room).person
    noisy = dataclasses.replace(offers, value=offers.value * rng.normal(1, 0.01, len(offers.value)))
    penalty = 0.03 * float(np.median(offers.value[before[offers.candidate] == offers.person]))
    free, kept = allocate(noisy, room).person, allocate(steady(noisy, before, penalty), room).person
    loose, few = changed(before, free), changed(before, kept)
    assert few.count < 0.03 * (before >= 0).sum() < loose.count
    gone = len(loose.moved) + len(loose.dropped) - len(few.moved) - len(few.dropped)
    assert 0 <= worth(noisy, free) - worth(noisy, kept) <= penalty * gone + 1e-6


def test_changes_are_reported():
    """Moved, dropped and added are told apart."""
    found = changed(np.array([0, 1, 2, -1, -1]), np.array([0, 2, -1, 1, -1]))
    assert ([1], [2], [3]) == (list(found.moved), list(found.dropped), list(found.added))
    assert 3 == found.count


@given(small(far=12), st.integers(0, 63))
@settings(max_examples=40, deadline=None)
def test_slots_are_passed_on(case, control):
    """Choices that stand are busy; what control accounts had is free again; together no limit is broken."""
    offers, room = case
    ghosts = np.array([bool(control >> place & 1) for place in range(len(offers.due))])
    first = allocate(offers, room)
    stand = np.where(ghosts, -1, first.person)
    rest = np.flatnonzero((first.person[offers.candidate] < 0) & ~ghosts[offers.candidate])
    others = dataclasses.replace(offers, candidate=offers.candidate[rest], person=offers.person[rest],
                                 value=offers.value[rest])
    left = taken(room, offers, stand)
    second = allocate(others, left)
    both = np.where(stand >= 0, stand, second.person)
    assert broken(offers, room, both) is None
    assert every(others, left) is not None
    assert rank(others, left, every(others, left)) == rank(others, left, second.person)
    if not ghosts.any():
        assert (second.person < 0).all()


@pytest.mark.parametrize(("change", "words"), [
    ({"value": np.array([1.0, np.nan])}, "pair 1 has no finite value. Leave out"),
    ({"person": np.array([0, 2])}, "person 0 to 2 of 2. Number them from 0"),
    ({"candidate": np.array([0, 0])}, "candidate 0 goes to person 0 twice. Give a pair once"),
    ({"urgent": np.array([True])}, "2 due days and 1 urgent. Give as many of each"),
])
def test_wrong_arrays_are_named(change, words):
    """What, where, the mend."""
    offers = Offers(np.array([0, 1]), np.array([0, 0]), np.array([1.0, 2.0]), np.array([1, 2]), np.zeros(2, bool))
    room = Room(np.array([1, 1]), np.zeros((2, 3), int))
    with pytest.raises(OutreachError, match=words):
        allocate(dataclasses.replace(offers, **change), room)


def test_wrong_room_is_named():
    offers = Offers(np.array([0]), np.array([0]), np.array([1.0]), np.array([1]), np.zeros(1, bool))
    with pytest.raises(OutreachError, match=r"for 1 people\. Give a row per person"):
        allocate(offers, Room(np.array([1]), np.zeros((2, 3), int)))
    with pytest.raises(OutreachError, match=r"slack is 2\. Give a share"):
        allocate(offers, Room(np.array([1]), np.zeros((1, 3), int), slack=2))


def test_nothing_to_give_is_no_error():
    empty = Offers(np.zeros(0, int), np.zeros(0, int), np.zeros(0), np.array([3]), np.zeros(1, bool))
    assert [-1] == list(allocate(empty, Room(np.array([1]), np.zeros((1, 1), int))).person)
