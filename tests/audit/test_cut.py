"""The oracle itself: what a copy of the tables shows at a cutoff, cell by cell, by the contract's rules."""

from __future__ import annotations

import pandas as pd
import pytest
from timed_book import START, book, read

from churnkit.audit.cut import cut

CUTOFF = START + pd.Timedelta(days=100)
HOUR = pd.Timedelta(hours=1)


def at(hours):
    """A time around the cutoff."""
    return CUTOFF + hours * HOUR


def shown(name, rows, sight="features", **others):
    """One table's rows as they stood at the cutoff, of one account."""
    accounts = pd.DataFrame({"account_id": ["A"], "created_at": [START]})
    tables = read({"accounts": accounts, name: pd.DataFrame(rows).assign(account_id="A"), **others})
    return cut(tables, pd.DataFrame({"account_id": ["A"], "cutoff": [CUTOFF]}), sight)[name]


@pytest.mark.parametrize(("own", "recorded", "sight", "there"), [
    (-1, -1, "features", True), (-1, 0, "features", True), (-1, 1, "features", False), (0, 0, "features", False),
    (0, 0, "labels", True), (1, 1, "labels", False), (1, 1, "all", True)])
def test_events_before_the_cutoff_and_known_by_then(own, recorded, sight, there):
    """An event at the cutoff lies after it for features, and before it for a label that closes then."""
    rows = {"occurred_at": [at(own)], "recorded_at": [at(recorded)]}
    assert len(shown("touches", rows, sight)) == there


@pytest.mark.parametrize(("notice", "ends", "known"), [
    (None, -1, True), (None, 1, False), (-1, 500, True), (1, 500, False), (0, 0, True)])
def test_a_contracts_end_is_known_from_its_notice(notice, ends, known):
    """Without a notice it is known when it has happened."""
    rows = {"started_at": [START], "ended_at": [at(ends)], "end_recorded_at": [None if notice is None else at(notice)]}
    found = shown("subscriptions", rows)
    assert found["ended_at"].notna().tolist() == [known]


def test_a_ticket_shows_what_had_happened_to_it():
    """Later steps are not there yet, nor what came with them; what was agreed stays."""
    rows = {"ticket_id": ["open", "done", "rated"], "opened_at": [at(-50)] * 3,
            "resolved_at": [at(2), at(-20), at(-20)],
            "rated_at": [at(3), at(1), at(-10)], "csat": [1.0, 2.0, 3.0], "reassigned_count": [4, 5, 6]}
    found = shown("support_tickets", rows).set_index("ticket_id")
    assert found["resolved_at"].isna().to_dict() == {"open": True, "done": False, "rated": False}
    assert found["csat"].fillna(0).to_dict() == {"open": 0, "done": 0, "rated": 3}
    assert found["reassigned_count"].fillna(0).to_dict() == {"open": 0, "done": 5, "rated": 6}


def test_a_field_holds_what_it_held_before_it_was_changed():
    """By record_changes: the earlier value where one is told, missing where none is, today's where nothing changed."""
    rows = {"invoice_id": ["told", "untold", "still"], "issued_at": [at(-50)] * 3, "amount": [30.0, 40.0, 50.0]}
    changes = pd.DataFrame({"table": "invoices", "id": ["told", "told", "untold", "still"], "field": "amount",
                            "changed_at": [at(-40), at(5), at(5), at(-40)], "value": ["20", "30", "40", "50"]})
    found = shown("invoices", rows, record_changes=changes)
    known = found.sort_values("known_at").groupby("invoice_id")["amount"].last()
    assert known.fillna(0).to_dict() == {"told": 20.0, "untold": 0.0, "still": 50.0}


def test_rows_of_other_accounts_and_their_assets_stay_away():
    """A copy for two accounts holds theirs alone, and of the assets those that are or were theirs."""
    two = pd.DataFrame({"account_id": ["A001", "A002"], "cutoff": [CUTOFF, CUTOFF + HOUR]})
    copy = cut(read(book()), two)
    assert set(copy["touches"]["account_id"]) == {"A001", "A002"}
    assert set(copy["telemetry"]["asset_id"]) == {"M001", "M002"}
    assert copy["telemetry"]["occurred_at"].max() < CUTOFF + HOUR
    assert copy.covers_until["touches"] == CUTOFF + HOUR
