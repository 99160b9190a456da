"""Each plain signal: when it holds, when it does not any more, and that nothing from after the moment is seen."""

import datetime as dt

import pandas as pd
import pytest
from small_book import ago, frames
from small_tasks import AT

from churnkit.outreach.policy import Policy
from churnkit.outreach.rules import find_signals
from churnkit.schemas import SIGNALS


def found(at=AT, policy=None, **tables):
    rows = find_signals(frames(**{name: pd.DataFrame(rows) for name, rows in tables.items()}),
                        policy or Policy.default(), at)
    assert list(rows.columns) == list(SIGNALS)
    return list(zip(rows["account_id"], rows["signal"], rows["occurred_at"], strict=True))


def ticket(n=1, **values):
    return {"ticket_id": f"T{n}", "account_id": "A01", "opened_at": ago(5), "known_at": ago(5), **values}


@pytest.mark.parametrize(("values", "signal"), [
    ({"human_requested_at": ago(2)}, "person_asked"),
    ({"human_requested_at": ago(2), "resolved_at": ago(1)}, None),
    ({"human_requested_at": ago(2), "resolved_at": ago(-1)}, "person_asked"),
    ({"human_requested_at": ago(-1)}, None),
    ({"human_requested_at": ago(0)}, None),
    ({"human_requested_at": ago(2), "known_at": ago(-1)}, None),
    ({"human_requested_at": ago(2), "known_at": ago(0)}, "person_asked"),
    ({"escalated_at": ago(2)}, "open_escalation"),
    ({"escalated_at": ago(4), "resolved_at": ago(3), "reopened_at": ago(2)}, "open_escalation"),
    ({"escalated_at": ago(90), "opened_at": ago(91), "known_at": ago(91)}, None),
    ({"csat": 2.0, "rated_at": ago(1), "resolved_at": ago(2)}, "low_csat"),
    ({"csat": 2.0, "rated_at": ago(-1), "resolved_at": ago(2)}, None),
    ({"csat": 2.0, "resolved_at": ago(2)}, "low_csat"),
    ({"csat": 3.0, "rated_at": ago(1)}, None),
    ({"effort": 1.0, "rated_at": ago(1)}, "low_effort"),
])
def test_tickets(values, signal):
    """A ticket gives its signal from the known moment on, for as long as it holds."""
    assert [row[1] for row in found(support_tickets=[ticket(**values)])] == ([signal] if signal else [])


def test_repeat_contact_keeps_its_date():
    """Three tickets in a week are one signal, dated by the third, for as long as the burst goes on."""
    tickets = [ticket(n, opened_at=ago(day), known_at=ago(day)) for n, day in enumerate([20, 8, 7, 6, 5, 2])]
    assert found(support_tickets=tickets) == [("A01", "repeat_contact", ago(6))]
    assert found(support_tickets=tickets[:3]) == []
    assert found(AT - dt.timedelta(days=5), support_tickets=tickets) == [("A01", "repeat_contact", ago(6))]


def test_a_burst_that_goes_on_stays_news():
    """A customer who has written every other day for weeks still shows the signal; one who stopped does not."""
    tickets = [ticket(n, opened_at=ago(day), known_at=ago(day)) for n, day in enumerate(range(24, 0, -2))]
    assert found(support_tickets=tickets) == [("A01", "repeat_contact", ago(20))]
    assert found(AT + dt.timedelta(days=13), support_tickets=tickets) == []


@pytest.mark.parametrize(("kind", "score", "signal"), [
    ("nps", 6, "low_nps"), ("nps", 7, None), ("csat", 2, "low_csat"), ("ces", 2, "low_effort"), ("ces", 3, None)])
def test_surveys(kind, score, signal):
    """A low answer is a signal of its kind."""
    row = {"account_id": "A01", "responded_at": ago(3), "kind": kind, "score": float(score), "known_at": ago(3)}
    assert [one[1] for one in found(surveys=[row])] == ([signal] if signal else [])


@pytest.mark.parametrize(("values", "holds"), [
    ({"failed_attempts": 2}, True),
    ({"failed_attempts": 0}, False),
    ({"failed_attempts": 0, "due_at": ago(20)}, True),
    ({"failed_attempts": 2, "paid_at": ago(1)}, False),
    ({"failed_attempts": 2, "paid_at": ago(-1)}, False),
    ({"failed_attempts": 2, "due_at": ago(-3)}, False),
])
def test_payments(values, holds):
    """An unpaid invoice counts once a collection failed or it is long overdue; a later count is not known yet."""
    row = {"invoice_id": "I1", "account_id": "A01", "issued_at": ago(30), "due_at": ago(3), "known_at": ago(30)}
    row |= values
    assert [one[1] for one in found(invoices=[row])] == (["failed_payment"] if holds else [])


@pytest.mark.parametrize(("values", "holds"), [
    ({"role": "champion", "left_at": ago(3)}, True), ({"role": "user", "left_at": ago(3)}, False),
    ({"role": "sponsor", "left_at": ago(-3)}, False), ({"role": "champion", "left_at": ago(80)}, False)])
def test_champions(values, holds):
    """A champion or sponsor who left is a signal for a while."""
    row = {"contact_id": "C1", "account_id": "A01", "name": "Eve", "known_at": pd.NaT, **values}
    assert [one[1] for one in found(contacts=[row])] == (["champion_left"] if holds else [])


@pytest.mark.parametrize(("rows", "holds"), [
    ([{"ended_at": ago(-30), "end_recorded_at": ago(4)}], True),
    ([{"ended_at": ago(-30), "end_recorded_at": ago(-4)}], False),
    ([{"ended_at": ago(1), "end_recorded_at": ago(4)}], False),
    ([{"ended_at": ago(-30), "end_recorded_at": ago(4)}, {}], False),
    ([{"ended_at": ago(-30), "end_recorded_at": ago(4)}, {"started_at": ago(-30), "known_at": ago(4)}], False),
    ([{"ended_at": ago(-30), "end_recorded_at": ago(4)}, {"started_at": ago(-30), "known_at": ago(-1)}], True),
    ([{"started_at": ago(25), "ended_at": ago(-5), "end_recorded_at": ago(25), "known_at": ago(25)}], False),
])
def test_notice(rows, holds):
    """Notice on the last contract is a signal until it ends; not beside or before another, nor a period's own end."""
    given = [{"account_id": "A01", "subscription_id": str(n), "started_at": ago(300), "ended_at": pd.NaT,
              "end_recorded_at": pd.NaT, "known_at": ago(300), **row} for n, row in enumerate(rows)]
    assert [one[1] for one in found(subscriptions=given)] == (["notice_given"] if holds else [])


def test_error_codes_are_those_named():
    """An asset's error is a signal if its code is named, as often as is asked for."""
    data = Policy.default().model_dump()
    data["signals"]["error_code"] |= {"codes": ("E7",), "count": 2}
    events = [{"asset_id": "P1", "occurred_at": ago(day), "kind": "error", "code": code, "known_at": ago(day)}
              for day, code in ((3, "E7"), (2, "E7"), (1, "E8"), (1, "E8"))]
    assets = [{"asset_id": "P1", "account_id": "A01", "model": "m", "installed_at": ago(90), "known_at": ago(90)}]
    assert found(policy=Policy(**data), asset_events=events, assets=assets) == [("A01", "error_code", ago(2))]
    assert found(asset_events=events, assets=assets) == []


def test_no_tables_no_signals():
    """Without tables there is an empty frame with the contract's columns."""
    assert found() == []
