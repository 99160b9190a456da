"""The brief, read for many causes: true, short, in plain words, and harmless whatever the data say."""

import re

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_book import ago, frames, scores
from small_tasks import AT

from churnkit.outreach.brief import WORDS, Case, Ticket, brief, title
from churnkit.outreach.plan import plan
from churnkit.outreach.policy import Policy

PLAYS = Policy.default().plays
TODAY = AT.date()
BODY = "SECRET the customer wrote this"


def ticket(n=1, **values):
    return {"ticket_id": f"T-{n}", "account_id": "A01", "opened_at": ago(5), "known_at": ago(5), "channel": "phone",
            "category": "billing", "subject": BODY, "body": BODY, "url": f"https://desk.example/t/{n}", **values}


def survey(kind, score):
    return pd.DataFrame([{"account_id": "A01", "responded_at": ago(3), "kind": kind, "score": score, "known_at": ago(3),
                          "text": BODY}])


def reasons(entity, *rows):
    return pd.DataFrame([
        {"entity_id": entity, "cutoff": pd.Timestamp(AT), "target": target, "rank": n, "feature": f"f_{n}",
         "direction": direction, "phrase": phrase} for n, (target, direction, phrase) in enumerate(rows, start=1)])


USE = reasons("A01", ("churn", "raises", "9 sessions in the last 28 days, 31 in the 28 days before"),
              ("churn", "raises", "6 of 20 seats active"), ("churn", "lowers", "a customer for 23 months"))
MORE = reasons("A01", ("expansion", "raises", "19 of 20 seats active"))
HOT = reasons("A01/7", ("maintenance", "raises", "vibration 42 mm/s on average in the last 7 days, 30 before"))
SUBSCRIPTION = {"account_id": "A01", "subscription_id": "S1", "started_at": ago(300), "mrr": 1000.0,
                "known_at": ago(300)}
CAUSES = {
    "use fell": (scores({"A01": 0.34}), USE, {},
                 "Call Customer A01: may be about to leave; 9 sessions in the last 28 days"),
    "growth": (scores({"A01": 0.6}, "expansion"), MORE, {},
                 "Meet Customer A01: may be ready for more; 19 of 20 seats active"),
    "worn part": (scores({"A01/7": 0.8}, "maintenance"), HOT, {},
                 "Visit Customer A01: has equipment that may fail; vibration 42 mm/s"),
    "asked for a person": (None, None, {"support_tickets": pd.DataFrame([ticket(human_requested_at=ago(2))])},
                           "Call Customer A01: asked for a person on 30 October 2026, ticket T-1 (phone, billing)"),
    "escalation": (None, None, {"support_tickets": pd.DataFrame([ticket(escalated_at=ago(2))])},
                   "Call Customer A01: ticket T-1 (phone, billing) was escalated on 30 October 2026"),
    "repeat contact": (None, None, {"support_tickets": pd.DataFrame([ticket(n) for n in range(3)])},
                       "Call Customer A01: 3 or more tickets within 7 days by 27 October 2026"),
    "low csat": (None, None, {"support_tickets": pd.DataFrame([ticket(csat=1.0, resolved_at=ago(1))])},
                 "Call Customer A01: rated ticket T-1"),
    "low effort": (None, None, {"surveys": survey("ces", 1.0)}, "Call Customer A01: gave 1 of 7 for how easy"),
    "low nps": (None, None, {"surveys": survey("nps", 3.0)}, "Call Customer A01: gave 3 of 10 for recommending us"),
    "failed payment": (None, None, {"invoices": pd.DataFrame([{
        "invoice_id": "I-9", "account_id": "A01", "issued_at": ago(30), "due_at": ago(3), "failed_attempts": 1,
        "known_at": ago(30)}])},
        "Write to Customer A01: invoice I-9, due on 29 October 2026, is unpaid after 1 failed payment"),
    "champion left": (None, None, {"contacts": pd.DataFrame([
        {"contact_id": "C1", "account_id": "A01", "role": "champion", "left_at": ago(3), "name": "Eve Ng",
         "known_at": ago(400)},
        {"contact_id": "C2", "account_id": "A01", "role": "user", "left_at": pd.NaT, "name": "Kim Oh",
         "known_at": ago(400)}])}, "Call Customer A01: Eve Ng, champion, left on 29 October 2026"),
    "notice given": (None, None, {"subscriptions": pd.DataFrame([
        {**SUBSCRIPTION, "end_recorded_at": ago(2), "ended_at": ago(-30)}])},
        "Call Customer A01: gave notice on 30 October 2026; the contract ends on 1 December 2026"),
}


def made(cause):
    given_, why, tables, _ = CAUSES[cause]
    data = Policy.default().model_dump()
    policy = Policy(**{**data, "control": {"share": 0.0}})
    assets = pd.DataFrame({"asset_id": ["A01/7"], "account_id": "A01", "model": "P", "installed_at": ago(400),
                           "known_at": ago(400)})
    tasks = plan(given_, why, frames(assets=assets, **tables), policy, at=AT).tasks
    assert len(tasks) == 1
    return tasks[0]


@pytest.mark.parametrize("cause", CAUSES)
def test_reads_for_each_cause(cause):
    """Each cause has its title, its why and its source; short, and free of text and of feature names."""
    task = made(cause)
    assert task.title.startswith(CAUSES[cause][3])
    assert len(task.title) <= 200
    assert len(task.body.split()) <= WORDS
    assert "Customer A01" in task.body
    assert "Why:" in task.body
    assert "Answer with:" in task.body
    assert ("Suggested by the" in task.body) == (task.opened_by == "model")
    assert ("by rule (" in task.body) == (task.opened_by == "rule")
    assert not re.search(r"SECRET|f_\d|_\d+d\b|\bnan\b|NaT|None|\b1 (days|tickets|seats)\b", task.body + task.title)


def test_reads_as_a_whole():
    """One brief word for word."""
    assert made("use fell").body == """\
**Customer A01** (mid) may be about to leave. Leaving within the next months is quite possible (34%). At stake: \
about 9,600 EUR. Renewal in 41 days.

Why:
- 9 sessions in the last 28 days, 31 in the 28 days before
- 6 of 20 seats active

On the other hand: a customer for 23 months.

Suggested, by 6 November 2026:
1. Call and ask what has changed for them, before speaking of the contract.
2. Take up the first reason above with an example from their own use.
3. Agree on one next step and a date.

Answer with: saved, no change, not a risk, no response, wrong contact or do not contact.

Suggested by the model v3, from data up to 1 November 2026."""


def test_lately_shows_tickets_with_state_mood_and_link():
    """Tickets come with date, channel, category, state, mood and link, the newest first; the last touch too."""
    tables = frames(
        support_tickets=pd.DataFrame([
            ticket(1, resolved_at=ago(2), csat=1.0), ticket(2, opened_at=ago(3), escalated_at=ago(2)),
            ticket(3, opened_at=ago(200), known_at=ago(200))]),
        touches=pd.DataFrame([{"account_id": "A01", "occurred_at": ago(9), "channel": "call", "direction": "outbound",
                               "by": "ann", "known_at": ago(9)}]),
        moods=pd.DataFrame({"ticket_id": ["T-2"], "polarity": [-0.7]}))
    body = plan(scores({"A01": 0.34}), USE, tables, Policy.default(), at=AT).tasks[0].body
    assert """\
Lately:
- 29 October 2026: ticket T-2 (phone, billing), escalated on 30 October 2026, still open, mood bad, https://desk.example/t/2
- 27 October 2026: ticket T-1 (phone, billing), resolved on 30 October 2026, mood bad, https://desk.example/t/1
- last touch on 23 October 2026: outbound call by ann
""" in body


@pytest.mark.parametrize(("points", "changed", "expected"), [
    (12.3, "was 31 on 4 October", "31 in the 28 days before (adds about 12 points; was 31 on 4 October)\n"),
    (0.7, "", "31 in the 28 days before (adds about 1 point)\n"),
    (0.2, "new since 4 October", "31 in the 28 days before (new since 4 October)\n"),
    (float("nan"), None, "31 in the 28 days before\n"),
])
def test_a_reason_says_what_it_adds_and_what_is_new(points, changed, expected):
    """In the brief, and not in the title; day-files of before know of neither."""
    why = USE.assign(points=points, changed=changed)
    task = plan(scores({"A01": 0.34}), why, frames(), Policy.default(), at=AT)
    task = (task.tasks or task.ghosts)[0]
    assert expected in task.body
    assert "adds" not in task.title
    assert "October" not in task.title


HOSTILE = st.text(min_size=0, max_size=300) | st.sampled_from([
    "<script>alert(1)</script>", "Acme\r\n\n# Heading\n- item", "=cmd|' /C calc'!A0", "[x](javascript:alert(1))",
    "{{ 7 * 7 }}{% for x in y %}", "\u202egnp.exe", "a" * 5000, "\x00\x1b[31mred", "word " * 400, "```", "<" * 50])


PLAYS_ANY = st.builds(lambda name, step: PLAYS[name].model_copy(update={"steps": (step,) * 3}),
                      st.sampled_from(sorted(PLAYS)), HOSTILE)
MANY = st.lists(HOSTILE, max_size=6).map(tuple)
CASES = st.builds(
    Case, account=HOSTILE, play=PLAYS_ANY, play_name=HOSTILE, today=st.just(TODAY), segment=HOSTILE, contact=HOSTILE,
    probability=st.none() | st.floats(0, 1), value=st.none() | st.floats(0, 1e9), currency=HOSTILE, why=MANY,
    news=MANY, against=MANY, assets=MANY, also=MANY, touches=MANY, suggested_by=HOSTILE, renews=st.none() | st.dates(),
    tickets=st.lists(st.builds(Ticket, HOSTILE, st.just(AT), HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE)).map(tuple))


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_harmless_whatever_the_data_say(case):
    """No control characters, no HTML, no links but plain ones, no broken lines, never too long."""
    text, line = brief(case), title(case)
    assert len(text.split()) <= WORDS
    assert len(line) <= 200
    assert "\n" not in line
    assert not re.search(r"[<>\x00-\x09\x0b-\x1f\x7f\u202e`\[\]]", text + line)
    assert not line.startswith(("=", "+", "-", "@"))
