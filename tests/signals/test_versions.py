"""Versions of records against a naive replay of their changes: what a cutoff sees is what was known by then."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from churnkit.cutoffs import moment
from churnkit.errors import DataError
from churnkit.learning.labels import label
from churnkit.learning.targets import EXPANSION
from churnkit.schemas import POINTS
from churnkit.settings import from_mapping
from churnkit.signals.catalog import Catalog
from churnkit.signals.compute import compute_features, compute_group
from churnkit.signals.features import groups
from churnkit.signals.points import points_at
from churnkit.signals.tables import Tables

START = moment("2025-01-01")
DAY = dt.timedelta(days=1)
CUTOFFS = [START + days * DAY for days in (20, 100, 101, 180)]
CATALOG = Catalog(plans=("small", "large"))
SETTINGS = from_mapping({"covers_until": "2026-01-01"})
FEW = settings(max_examples=2, phases=(Phase.explicit, Phase.reuse, Phase.generate), deadline=None,
               suppress_health_check=list(HealthCheck))
WORDS = {"segment": ["mid", "large", ""], "owner": ["kim", "lee"], "plan": ["small", "large"], "seats": ["5", "10", ""],
         "mrr": ["50", "99.5"], "auto_renew": ["true", "no"], "role": ["champion", "user"], "model": ["x", "y"]}
STATE = ("plan", "seats", "mrr", "auto_renew")


def at(day):
    """A day of the book as a time."""
    return START + int(day) * DAY


def text(value):
    return None if value is None else value.isoformat() if isinstance(value, dt.datetime) else str(value)


def drawn(rng, fields):
    return {name: str(rng.choice(WORDS[name])) or None for name in fields}


def records(rng, table, key, own, fields, size=40):
    """Rows by day numbers: one for most records, some told again later with a recorded_at."""
    rows = []
    for n in range(size):
        start = int(rng.integers(-60, 60))
        days = [None] if rng.random() < 0.7 else sorted(rng.choice(np.arange(start, 180), 3, replace=False).tolist())
        ended = start + int(rng.integers(1, 250)) if table == "subscriptions" and rng.random() < 0.4 else None
        rows += [{"key": f"{key}{n}", "account": f"A{n % 30}", "start": start, "recorded": day, "ended": ended,
                  **drawn(rng, fields)} for day in days]
    own_name = {"own": own, "key": key}
    return rows, own_name


def changes_of(rng, table, rows, fields):
    """Changes on any day from before the record's start on, known at once, or some days later."""
    made = []
    for row in rows:
        for _ in range(int(rng.integers(0, 4))):
            day, field = int(rng.integers(row["start"] - 5, 200)), str(rng.choice(fields))
            known = day + (int(rng.integers(0, 60)) if rng.random() < 0.4 else 0)
            made.append({"table": table, "id": row["key"], "day": day, "field": field, "known": known,
                         "value": str(rng.choice(WORDS[field])) or None})
    return made


def made_book(seed):
    """Rows and changes of four tables, as the loops below read them."""
    rng = np.random.default_rng(seed)
    shapes = {"accounts": ("A", ("segment", "owner")), "subscriptions": ("S", STATE), "contacts": ("C", ("role",)),
              "assets": ("M", ("model",))}
    rows = {table: records(rng, table, key, "", fields)[0] for table, (key, fields) in shapes.items()}
    changes = [one for table, (_, fields) in shapes.items() for one in changes_of(rng, table, rows[table], fields)]
    return rows, changes


NAMES = {"accounts": ("account_id", "created_at"), "subscriptions": ("subscription_id", "started_at"),
         "contacts": ("contact_id", None), "assets": ("asset_id", "installed_at")}


def read(rows, changes):
    """The book as Tables."""
    frames = {}
    for table, (key, own) in NAMES.items():
        frame = pd.DataFrame(rows[table])
        frame = frame.rename(columns={"key": key} | ({} if table == "accounts" else {"account": "account_id"}))
        frame["recorded_at"] = [None if pd.isna(day) else at(day).isoformat() for day in frame["recorded"]]
        if own:
            frame[own] = [at(day).isoformat() for day in frame["start"]]
        if table == "subscriptions":
            frame["ended_at"] = [None if pd.isna(day) else at(day).isoformat() for day in frame["ended"]]
        frames[table] = frame.drop(columns=["start", "recorded", "ended", "account"], errors="ignore")
    log = pd.DataFrame(changes, columns=["table", "id", "day", "field", "known", "value"])
    frames["record_changes"] = log.assign(changed_at=[at(day).isoformat() for day in log["day"]],
                                          recorded_at=[at(day).isoformat() for day in log["known"]]).drop(
        columns=["day", "known"])
    return Tables.from_frames(SETTINGS, at="2026-01-01", **frames)


def replayed(rows, changes, fields, until):
    """(known, said, state) of one record, in the order in which they were known by a day: a loop over what was told."""
    several = len(rows) > 1
    told = []
    for n, row in enumerate(rows):
        day = row["start"] if row["recorded"] is None else row["recorded"]
        known = -10_000 if row["recorded"] is None and row["key"].startswith("C") else day
        said = known if row["key"].startswith("C") and row["recorded"] is None else day
        told.append((known, 0, said, n, {f: row[f] for f in fields
                                         if several or not any(c["field"] == f for c in changes)}))
    told += [(max(c["day"], c["known"]), 1, c["day"], n, {c["field"]: c["value"]}) for n, c in enumerate(changes)]
    state, latest, seen, timeline = dict.fromkeys(fields), {}, False, []
    for known, kind, said, _, values in sorted(told, key=lambda one: one[:4]):
        if known > until:
            break
        seen |= kind == 0
        for field, value in values.items():
            if said >= latest.get(field, -20_000):
                state, latest[field] = {**state, field: value}, said
        if seen:
            timeline = [one for one in timeline if one[0] != known]  # what came at once counts together
            timeline.append((known, said, dict(state)))
    return timeline


def of(changes, table, row):
    return [c for c in changes if c["table"] == table and c["id"] == row["key"]]


def by_key(rows):
    found = {}
    for row in rows:
        found.setdefault(row["key"], []).append(row)
    return found


def lines(rows, changes, cutoff, moment_):
    """The states of an account's subscriptions at a moment, as known at the cutoff."""
    for mine in by_key(rows).values():
        timeline = replayed(mine, of(changes, "subscriptions", mine[0]), STATE, cutoff)
        start, ended = mine[0]["start"], mine[0]["ended"]
        if not timeline or start > moment_ or (ended is not None and ended <= moment_):
            continue
        since, spans = start, []
        for place, (_, said, state) in enumerate(timeline):
            over = place and ended is not None and ended <= max(said, start)
            if not over and (not spans or state != spans[-1][1]):
                since = max(since, said) if spans else start
                spans.append((since, state))
        yield [state for since, state in spans if since <= moment_][-1]


def points(ids, cutoffs, entity="account"):
    made = [{"row_id": f"{one}@{cutoff}", "entity": entity, "entity_id": one, "account_id": one, "cutoff": cutoff}
            for cutoff in cutoffs for one in ids]
    return pd.DataFrame(made, columns=list(POINTS))


def summed(values):
    numbers = [float(value) for value in values if value is not None]
    return sum(numbers) if numbers else float("nan")


@FEW
@given(st.integers(0, 2**32 - 1))
def test_features_equal_a_replay_of_the_changes(seed):
    """Segment, handovers, plan, seats now and twelve weeks ago, price, renewal, champions and model at any cutoff."""
    rows, changes = made_book(seed)
    tables = read(rows, changes)
    ids = sorted({row["account"] for row in rows["subscriptions"]})
    asked = points(ids, CUTOFFS)
    contract = compute_group(tables, asked, groups(CATALOG)["contract"], CATALOG)
    relation = compute_group(tables, asked, groups(CATALOG)["relationship"], CATALOG)
    for row in asked.assign(**contract, **relation).to_dict("records"):
        day = (row["cutoff"] - START) // DAY
        mine = [one for one in rows["accounts"] if one["key"] == row["entity_id"]]
        spans = [one for one in rows["subscriptions"] if one["account"] == row["entity_id"]]
        known = replayed(mine, of(changes, "accounts", mine[0]), ("segment", "owner"), day)
        there = known and mine[0]["start"] <= day
        now, then = list(lines(spans, changes, day, day)), list(lines(spans, changes, day, day - 84))
        owners = [(when, state["owner"]) for when, _, state in known]
        handed = [b[0] for a, b in pairwise(owners) if a[1] and b[1] and a[1] != b[1]]
        people = by_key([one for one in rows["contacts"] if one["account"] == row["entity_id"]]).values()
        roles = [(replayed(one, of(changes, "contacts", one[0]), ("role",), day) or [(0, 0, {})])[-1][2].get("role")
                 for one in people]
        renews = [{"true": 1.0, "no": 0.0}[one["auto_renew"]] for one in now if one["auto_renew"]]
        expected = {
            "segment": known[-1][2]["segment"] if there else None,
            "owner_changes_84d": sum(day - 84 < when <= day for when in handed),
            "seats": summed(one["seats"] for one in now) if now else 0,
            "seats_84d_before": summed(one["seats"] for one in then) if then else 0,
            "mrr": summed(one["mrr"] for one in now) if now else 0,
            "auto_renew": max(renews, default=float("nan")),
            "champions": sum(role == "champion" for role in roles),
        }
        for name, value in expected.items():
            found = row[name]
            if isinstance(found, float):
                np.testing.assert_allclose(found, value, err_msg=f"{name} of {row['entity_id']} on day {day}")
            else:
                assert found == value, (name, row["entity_id"], day)


@FEW
@given(st.integers(0, 2**32 - 1))
def test_changes_known_later_move_no_feature_and_no_point(seed):
    """Whatever the changes known after a cutoff say, and of when they are, all features at it stay."""
    rows, changes = made_book(seed)
    rng, cutoff = np.random.default_rng(seed), 100
    scrambled = [{**c, "value": str(rng.choice(WORDS[c["field"]])) or None, "day": int(rng.integers(-60, 200)),
                  "known": int(rng.integers(cutoff + 1, 300))} if max(c["day"], c["known"]) > cutoff else c
                 for c in changes]
    assert scrambled != changes
    scrambled = [{**c, "known": max(c["known"], c["day"])} for c in scrambled]
    first, second = read(rows, changes), read(rows, scrambled)
    for entity in ("account", "asset"):
        asked = points_at(first, entity, CUTOFFS[:2])
        pd.testing.assert_frame_equal(asked, points_at(second, entity, CUTOFFS[:2]))
        assert len(asked) > 20
        pd.testing.assert_frame_equal(compute_features(first, asked, CATALOG), compute_features(second, asked, CATALOG),
                                      check_exact=False, rtol=0, atol=2e-9)


@FEW
@given(st.integers(0, 2**32 - 1))
def test_reading_the_versions_again_changes_nothing(seed):
    """Tables made of a book's own versions and changes are the same book: a copy may be cut and read anew.

    Changes are known at once here. One that comes in after a later one of its record counts, in the first reading, from
    that later one on, and in the second, where a version has come between, from when it was known.
    """
    rows, changes = made_book(seed)
    changes = [{**change, "known": change["day"]} for change in changes]
    first = read(rows, changes)
    second = Tables.from_frames(SETTINGS, at="2026-01-01", **{name: first[name] for name in (*NAMES, "record_changes")})
    asked = points_at(first, "account", CUTOFFS)
    pd.testing.assert_frame_equal(asked, points_at(second, "account", CUTOFFS))
    for group in ("contract", "relationship", "billing"):
        pd.testing.assert_frame_equal(compute_group(first, asked, groups(CATALOG)[group], CATALOG),
                                      compute_group(second, asked, groups(CATALOG)[group], CATALOG))


SHORT = replace(EXPANSION, lead=2 * DAY, horizon=10 * DAY, grace=4 * DAY)


@FEW
@given(st.integers(0, 2**32 - 1))
def test_expansion_of_a_running_subscription_equals_a_walk_through_its_changes(seed):
    """More seats than at the window's start, by the changes known at the close, for four days on."""
    rng = np.random.default_rng(seed)
    rows, changes = [], []
    for n in range(60):
        rows.append({"key": f"S{n}", "account": f"A{n}", "start": -50, "recorded": None, "ended": None, "plan": "small",
                     "seats": "7", "mrr": "70", "auto_renew": "no"})
        days = [-50, *rng.integers(-10, 20, int(rng.integers(0, 4))).tolist()][int(rng.random() < 0.1):]
        changes += [{"table": "subscriptions", "id": f"S{n}", "day": day, "field": "seats",
                     "value": str(rng.integers(5, 9)), "known": day + int(rng.choice([0, 0, 0, 3, 12]))}
                    for day in days]
    accounts = [{"key": row["account"], "account": "", "start": -90, "recorded": None, "ended": None, "segment": "mid",
                 "owner": "kim"} for row in rows]
    tables = read({"accounts": accounts, "subscriptions": rows, "contacts": [], "assets": []} | {
        name: made_book(1)[0][name][:1] for name in ("contacts", "assets")}, changes)
    found = label(SHORT, tables, points([row["account"] for row in rows], [START]))
    assert {0, 1} <= set(found["label"].dropna())
    for one, row in zip(found.itertuples(), rows, strict=True):
        assert walked([row], of(changes, "subscriptions", row)) == one.label, of(changes, "subscriptions", row)


def walked(rows, changes):
    """0 or 1: lead 2, horizon 10, grace 4; seats day by day."""
    spans = []
    for _, said, state in replayed(rows, changes, STATE, 16):
        if not spans or state != spans[-1][1]:
            spans.append((max(said, spans[-1][0]) if spans else -50, state))

    def seats(day):
        value = [state["seats"] for since, state in spans if since <= day][-1]
        return None if value is None else int(value)

    def more(day):
        return seats(2) is not None and seats(day) is not None and seats(day) > seats(2)

    return int(any(all(more(day) for day in range(since, since + 5)) for since, _ in spans if 2 < since < 12))


def book(how=None, changes=(), **frames):
    """One account with whatever is given; changes as (table, id, changed_at, field, value)."""
    base = {"accounts": pd.DataFrame({"account_id": ["A"], "created_at": ["2024-01-01"]})}
    log = pd.DataFrame(changes, columns=["table", "id", "changed_at", "field", "value"])
    return Tables.from_frames(from_mapping({"covers_until": "2026-01-01", **(how or {})}), record_changes=log,
                              **{**base, **frames})


def subscription(**said):
    return pd.DataFrame([{"account_id": "A", "subscription_id": "S", "started_at": "2024-01-01", "plan": "team",
                          "seats": 30.0, "mrr": 300.0, "currency": "EUR", **said}])


def seen(tables, cutoff, *names):
    row = compute_group(tables, points(["A"], [moment(cutoff)]), groups(CATALOG)["contract"], CATALOG).iloc[0]
    return tuple(None if pd.isna(row[name]) else row[name] for name in names)


def test_of_a_field_with_changes_nothing_is_known_before_the_first():
    """Seats were 20 from March and 30 from July; the export's 30 tells nothing of January. The plan is as exported."""
    tables = book(changes=[("subscriptions", "S", "2024-03-01", "seats", "20"),
                           ("subscriptions", "S", "2024-07-01", "seats", "30")], subscriptions=subscription())
    assert [seen(tables, day, "seats", "plan") for day in ("2024-02-01", "2024-03-01", "2024-07-01")] == [
        (None, "team"), (20, "team"), (30, "team")]
    assert seen(tables, "2024-07-02", "seats_84d_before", "seats_change_84d") == (20, 10)


def test_bad_values_of_changes_are_findings_with_their_rows():
    """A number, a bound, a word, a time and a must: each is said with its row and mend, and dropped where asked for."""
    bad = [("subscriptions", "S", "2024-03-01", "seats", "many"), ("subscriptions", "S", "2024-03-01", "mrr", "-1"),
           ("contacts", "C", "2024-03-01", "role", "chief"), ("subscriptions", "S", "2024-03-01", "renews_at", "soon"),
           ("accounts", "A", "2024-03-01", "created_at", ""), ("tickets", "T", "2024-03-01", "seats", "x")]
    contacts = pd.DataFrame({"contact_id": ["C"], "account_id": ["A"], "role": ["user"]})
    with pytest.raises(DataError, match=r"value that is no finite number.*row 1, .*'many'.*Correct the value"):
        book(changes=bad, subscriptions=subscription(), contacts=contacts)
    tables = book({"invalid": "drop"}, changes=bad, subscriptions=subscription(), contacts=contacts)
    assert {finding.check: (finding.count, finding.first_row) for finding in tables.findings} == {
        "changed to no finite number": (1, 1), "changed out of range": (1, 2), "changed to another word": (1, 3),
        "changed to no time": (1, 4), "changed to nothing": (1, 5)}
    assert len(tables["record_changes"]) == 1
    assert seen(tables, "2024-04-01", "seats") == (30,)


def test_changes_speak_the_words_of_the_export():
    """The table's own column names and values, the log's zone and the row's currency apply to what changes say."""
    how = {"zone": "America/New_York", "rates": {"USD": 0.5},
           "tables": {"subscriptions": {"columns": {"seats": "licences"}, "values": {"plan": {"Team+": "large"}}}}}
    spans = subscription(currency="USD").rename(columns={"seats": "licences"})
    tables = book(how, subscriptions=spans, changes=[
        ("subscriptions", "S", "2024-03-01", "licences", "20"), ("subscriptions", "S", "2024-03-01", "plan", "Team+"),
        ("subscriptions", "S", "2024-03-01", "mrr", "200"),
        ("subscriptions", "S", "2024-03-01", "renews_at", "2024-04-05")])
    told = seen(tables, "2024-03-01T05:00Z", "seats", "plan", "mrr", "days_to_renewal")
    assert told == (20, "large", 100, 34.958333333)  # an hour less than 35 days, by the change of the clocks
    assert list(tables["subscriptions"].columns)[-1] == "known_at"


def test_two_exports_of_one_subscription_count_once():
    """The later row closes the earlier one; rows without an id stay two, and lines of one export stay lines."""
    twice = pd.concat([subscription(recorded_at="2024-01-01"),
                       subscription(recorded_at="2024-05-01", ended_at="2024-06-01", seats=40.0)])
    tables = book(subscriptions=twice)
    assert [seen(tables, day, "seats", "mrr") for day in ("2024-04-01", "2024-05-02", "2024-06-02")] == [
        (30, 300), (40, 300), (0, 0)]
    assert seen(book(subscriptions=twice.assign(subscription_id=None)), "2024-05-02", "mrr") == (600,)
    lines_ = book(subscriptions=pd.concat([subscription(), subscription(plan="sms", seats=0.0, mrr=5.0)]))
    assert seen(lines_, "2024-05-02", "mrr") == (305,)
    again = book(subscriptions=pd.concat([subscription(), subscription(mrr=310.0)]))
    assert seen(again, "2024-05-02", "mrr") == (310,)
    assert ["told again"] == [finding.check for finding in again.findings if finding.table == "subscriptions"]


def test_renewals_keep_their_anniversary_when_a_contract_changes():
    """More seats in March move no renewal: neither one that is named nor the one that follows from the start."""
    change = [("subscriptions", "S", "2024-03-11", "seats", "40")]
    for given_ in ({"billing_months": 12}, {"renews_at": "2024-02-01", "billing_months": 1}):
        plain, changed = (seen(book(subscriptions=subscription(**given_), changes=log), "2024-09-01", "days_to_renewal")
                          for log in ((), change))
        assert plain == changed


def test_a_record_that_went_to_another_account_leaves_the_first():
    """A champion who moved from A to B in May is B's from then on."""
    accounts = pd.DataFrame({"account_id": ["A", "B"], "created_at": "2024-01-01"})
    contacts = pd.DataFrame({"contact_id": "C", "account_id": ["A", "B"], "role": "champion",
                             "recorded_at": ["2024-01-01", "2024-05-01"]})
    tables = book(accounts=accounts, contacts=contacts)
    asked = points(["A", "B"], [moment("2024-04-01"), moment("2024-06-01")])
    found = compute_group(tables, asked, groups(CATALOG)["relationship"], CATALOG)
    assert found["champions"].tolist() == [1, 0, 0, 1]
