"""Contacts in the simulated book: stated effects come true on the same dice, and nothing else moves."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from simulated import read

from churnkit.errors import DataError
from churnkit.simulate import causes, contacted, contracts, courses, machines, read_book, simulate, truth, world
from churnkit.simulate.world import DAY

CSV_OF_60 = "bd5c9920885e362d"
"""What the CSV tables of a small book hash to, from before there were contacts."""
OWN = {"subscriptions": "started_at", "usage_events": "occurred_at", "support_tickets": "opened_at",
       "ticket_messages": "occurred_at", "surveys": "responded_at", "invoices": "issued_at", "contacts": "recorded_at",
       "touches": "occurred_at", "opportunities": "opened_at", "assets": "installed_at", "telemetry": "occurred_at",
       "asset_events": "occurred_at"}
LATER = {"subscriptions": ("ended_at", "end_recorded_at"), "contacts": ("left_at",), "assets": ("retired_at",),
         "opportunities": ("closed_at", "stage", "won")}
"""Columns of a row that may be filled in later, by the time that says when."""


def made(ids, count, seed, start="2026-02-01"):
    """Contacts of some accounts over half a year."""
    dice = np.random.default_rng(seed)
    at = pd.Timestamp(start, tz="UTC") + pd.to_timedelta(dice.integers(0, 200 * 86400, count), unit="s")
    return pd.DataFrame({
        "account_id": dice.choice(ids[: len(ids) // 2], count), "contacted_at": at, "reached": dice.random(count) < 0.9,
        "target": dice.choice(contacted.TARGETS, count), "channel": dice.choice(contacted.CHANNELS, count)})


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A book without contacts, the same with many, with one more round of them, and the contacts."""
    folder = tmp_path_factory.mktemp("contacts")
    dials = {"accounts": 240, "months": 14, "difficulty": "hard"}
    plain = simulate(folder / "plain" / "raw", **dials)
    ids = read(plain.folder, "accounts")["account_id"].to_numpy()
    first = made(ids, 400, 1)
    second = pd.concat([first, made(ids, 60, 2, "2026-08-25")])
    return (plain, simulate(folder / "first" / "raw", contacts=first, **dials),
            simulate(folder / "second" / "raw", contacts=second, **dials), first, second)


def content(folder):
    """Every file's bytes."""
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def by_account(book, name):
    """A table without categories, and each row's account."""
    table = read(book.folder, name)
    if "account_id" not in table:
        owns = read(book.folder, "assets").set_index("asset_id")["account_id"]
        table["account_id"] = table["asset_id"].astype(str).map(owns)
    words = [name for name in table if isinstance(table[name].dtype, pd.CategoricalDtype)]
    return table.astype({"account_id": object, **dict.fromkeys(words, object)})


def as_of(table, name, until):
    """The rows of before each account's moment, and of their later columns what was known by then."""
    table = table[table[OWN[name]] < table["account_id"].map(until)].copy()
    when = table["account_id"].map(until)
    if name in LATER:
        first, *others = LATER[name]
        known = table["end_recorded_at"].fillna(table[first]) if name == "subscriptions" else table[first]
        for column in (*others, first):
            table[column] = table[column].where(known < when)
    return table.reset_index(drop=True)


def test_a_book_without_contacts_is_what_it_was(tmp_path):
    """Bit for bit, with no contacts given and with an empty frame of them."""
    plain = simulate(tmp_path / "a" / "raw", accounts=60, months=8, seed=1)
    none = simulate(tmp_path / "b" / "raw", accounts=60, months=8, seed=1,
                    contacts=pd.DataFrame({"account_id": [], "contacted_at": pd.to_datetime([], utc=True)}))
    assert content(plain.folder) == content(none.folder)
    assert content(plain.truth) == content(none.truth)
    text = b"".join(data for name, data in content(plain.folder).items() if name.endswith(".csv"))
    assert hashlib.sha256(text).hexdigest()[:16] == CSV_OF_60


def test_the_same_contacts_give_the_same_bytes(pair, tmp_path):
    """In whatever order they come."""
    plain, one, _, first, _ = pair
    again = simulate(tmp_path / "raw", accounts=240, months=14, difficulty="hard", contacts=first[::-1])
    assert content(one.folder) == content(again.folder)
    assert content(plain.folder) != content(again.folder)


@pytest.mark.parametrize("name", sorted(OWN))
def test_who_is_never_contacted_has_the_same_rows_to_the_end(pair, name):
    """Others' contacts are nothing to them."""
    plain, one, _, first, _ = pair
    before, after = (by_account(book, name) for book in (plain, one))
    before, after = (table[~table["account_id"].isin(first["account_id"])].reset_index(drop=True)
                     for table in (before, after))
    assert before.equals(after)
    assert len(before)


@pytest.mark.parametrize("name", sorted(OWN))
def test_what_comes_before_a_contact_is_the_same(pair, name):
    """Before the first one against the plain book, before those of a later round against the earlier rounds' book."""
    plain, one, two, first, second = pair
    until = first.groupby("account_id")["contacted_at"].min()
    assert as_of(by_account(plain, name), name, until).equals(as_of(by_account(one, name), name, until))
    new = second[len(first):].groupby("account_id")["contacted_at"].min()
    assert as_of(by_account(one, name), name, new).equals(as_of(by_account(two, name), name, new))


def test_contacts_leave_their_touch_and_their_mark(pair):
    """A touch each while the contract ran, reached or not; and some contracts and assets went another way."""
    plain, one, _, first, _ = pair
    before, after = (read(book.folder, "touches") for book in (plain, one))
    new = after.merge(first, left_on=["account_id", "occurred_at", "channel"],
                      right_on=["account_id", "contacted_at", "channel"])
    assert 0.8 * len(first) < len(new) <= len(first)
    assert set(new["direction"]) == {"outbound"}
    assert len(after) > len(before)
    for name, column in (("subscriptions", "ended_at"), ("asset_events", "kind")):
        assert not by_account(plain, name)[column].astype(str).equals(by_account(one, name)[column].astype(str)), name


def test_every_id_is_its_own(pair):
    """Tickets, invoices and people of another course are nobody else's, and messages belong to tickets that are."""
    for book in pair[:3]:
        for name, key in (("support_tickets", "ticket_id"), ("invoices", "invoice_id"), ("contacts", "contact_id"),
                          ("contacts", "crm_id"), ("subscriptions", "subscription_id")):
            assert read(book.folder, name)[key].is_unique, (name, key)
        tickets = set(read(book.folder, "support_tickets")["ticket_id"])
        assert set(read(book.folder, "ticket_messages")["ticket_id"].astype(str)) <= tickets


def test_the_book_can_be_read_again(pair):
    """Its dials are kept beside the truth."""
    plain = pair[0]
    assert read_book(plain.folder) == plain
    with pytest.raises(DataError, match="churnkit simulate"):
        read_book(plain.folder / "nowhere")


@pytest.fixture(scope="module")
def many():
    """A large world in memory: its states, its lives without contacts, and its truth half a year before the end."""
    here = world.build(5000, 11, 5, "2026-11-01", "hard")
    ends = contracts.months(here)
    states = causes.strike(here, contracts.price_weeks(here, ends))
    lives = courses.live(here, states, ends)
    cutoff = here.clock.end - 168 * DAY
    true = truth._accounts(here, states, lives).to_pandas()
    return here, ends, states, lives, cutoff, true[true["cutoff"] == pd.Timestamp(cutoff, tz="UTC")]


def contact_all(many, target):
    """What comes of everybody if all are contacted at the cutoff."""
    here, ends, states, _, cutoff, true = many
    frame = pd.DataFrame({"account_id": true["account_id"], "target": target,
                          "contacted_at": pd.Timestamp(cutoff, tz="UTC") + pd.Timedelta(hours=10)})
    return courses.live(here, states, ends, contacted.read(here, frame))


def outcomes(many, lives):
    """Who left and who bought in the window, in the truth's order."""
    here, _, _, _, cutoff, true = many
    rows = np.searchsorted(here.ids.astype(str), true["account_id"].astype(str))
    first, last = cutoff + 14 * DAY, cutoff + 104 * DAY
    deal = lives.deal
    left = (deal.left >= first) & (deal.left < last)
    bought = ((deal.bought > 0) & (deal.bought_at >= first) & (deal.bought_at < last)).any(axis=0) & ~left
    return left[rows].astype(int), bought[rows].astype(int), rows


@pytest.mark.parametrize(("target", "column", "sign"), [("churn", "churn_uplift", -1),
                                                        ("expansion", "expansion_uplift", 1)])
def test_the_measured_effect_is_the_stated_one(many, target, column, sign):
    """With and without contacts on the same dice, the difference is the truth's uplift, but for chance."""
    place = 0 if target == "churn" else 1
    differs = outcomes(many, contact_all(many, target))[place] - outcomes(many, many[3])[place]
    error = np.sqrt((differs**2).sum())
    assert abs(sign * differs.sum() - many[5][column].sum()) < 3 * error
    assert sign * differs.sum() > 3 * error


def test_sleeping_dogs_are_harmed_and_nobody_else(many):
    """No dog leaves later than without the call and some leave sooner, whatever it was about; those helped do not."""
    here, _, _, lives, _, true = many
    never = here.clock.end + 9999 * DAY
    for target in ("churn", "expansion"):
        before, after = (np.where(np.isnat(one.deal.left), never, one.deal.left)
                         for one in (lives, contact_all(many, target)))
        dogs = here.sleeping
        assert (after[dogs] <= before[dogs]).all()
        assert (after[dogs] < before[dogs]).sum() >= 5
        helped = np.searchsorted(here.ids.astype(str), true.loc[true["contact_effect"] < 0, "account_id"].astype(str))
        assert (after[helped] >= before[helped]).all()
    assert (true.loc[true["sleeping"], "churn_uplift"] <= 0).all()
    assert true.loc[true["sleeping"], "churn_uplift"].mean() < -0.01


def test_sleeping_dogs_are_rare_and_lie_among_the_calm(many):
    """A model can find them by what goes with it: few seats, content, no wish for more."""
    here = many[0]
    dogs = here.sleeping
    assert 0.05 < dogs.mean() < 0.15
    assert here.seats[dogs].mean() < 0.6 * here.seats[~dogs].mean()
    assert here.temper[dogs].mean() > 0.3
    assert here.appetite[dogs].mean() < -0.3


def test_a_visit_prevents_the_failures_it_says(many):
    """Of assets visited on one day fewer fail in the week after it, by the truth's difference but for chance."""
    here, _, _, lives, _, _ = many
    drawn, day = lives.untouched, here.clock.days - 60
    visits = np.zeros(drawn.wear.shape, dtype=bool)
    visits[day] = True
    visited = machines.machines(here, lives.first, lives.first, visits)
    sound = ~drawn.failed[day]
    week = slice(day + 1, day + 1 + machines.HORIZON)
    differs = (visited.failed[week].any(axis=0).astype(int) - drawn.failed[week].any(axis=0))[sound]
    risk = drawn.risk[day + 1][sound].astype(float)
    assert abs(differs.sum() - (machines.visited_risk(risk) - risk).sum()) < 3 * np.sqrt((differs**2).sum())
    assert differs.sum() < -3 * np.sqrt((differs**2).sum())
    assert visited.serviced[day][sound].all()
    assert (visited.failed[:day + 1] == drawn.failed[:day + 1]).all()


def test_the_effect_fades_and_the_stronger_holds(many):
    """By half in eight weeks; a second call does not add to the first."""
    here, _, states, _, cutoff, true = many
    one = pd.DataFrame({"account_id": true["account_id"][:50], "contacted_at": pd.Timestamp(cutoff, tz="UTC")})
    again = pd.concat([one, one.assign(contacted_at=one["contacted_at"] + pd.Timedelta(hours=1))])
    push = contracts.NO_PUSH
    twice = contacted.read(here, again)
    for number in range(2):
        push = contacted.push(here, states, twice.take(twice.number == number), push)
    week, rows = int(here.clock.week(np.array([cutoff]))[0]), np.unique(twice.account)
    assert (push.churn[: week + 1] == 0).all()
    assert np.allclose(push.churn[week + 1, rows], true["contact_effect"][:50])
    assert np.allclose(push.churn[week + 9], push.churn[week + 1] / 2)


@pytest.mark.parametrize(("frame", "mend"), [
    ({"account": ["A00001"]}, "account_id"),
    ({"account_id": ["A9"], "contacted_at": pd.to_datetime(["2026-05-01"], utc=True)}, "this book"),
    ({"account_id": ["A00001"], "contacted_at": pd.to_datetime(["2026-05-01"])}, "utc=True"),
    ({"account_id": ["A00001"], "contacted_at": pd.to_datetime(["2026-05-01"], utc=True), "target": ["chrun"]},
     "Did you mean 'churn'"),
])
def test_contacts_of_another_book_name_their_mend(tmp_path, frame, mend):
    """Nothing is written then."""
    with pytest.raises(DataError, match=mend):
        simulate(tmp_path / "raw", accounts=20, months=8, contacts=pd.DataFrame(frame))
    assert not (tmp_path / "raw").exists()
