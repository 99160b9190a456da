"""Who is left in peace: talks, caps, days off, hours, the policy's suppressions, and cases that are opened again."""

import dataclasses
import datetime as dt

import pandas as pd
import pytest
from small_book import ago, frames, scores
from small_tasks import AT

from churnkit.outreach.limits import Before
from churnkit.outreach.plan import plan
from churnkit.outreach.policy import Policy


def why(made, account="A00", target="churn"):
    rows = made.held[(made.held["account_id"] == account) & (made.held["target"] == target)]
    return list(zip(rows["why"], rows["detail"], strict=True))


def deal(**values):
    return pd.DataFrame([{"account_id": "A00", "kind": "renewal", "opened_at": ago(29), "known_at": ago(29),
                          "closed_at": None, **values}])


@pytest.mark.parametrize(("row", "target", "held"), [
    ({}, "churn", True), ({}, "expansion", True), ({"kind": "expansion"}, "churn", False),
    ({"kind": "expansion"}, "expansion", True), ({"closed_at": ago(1)}, "churn", False),
    ({"closed_at": ago(-1)}, "churn", True), ({"opened_at": ago(200), "known_at": ago(200)}, "churn", False)])
def test_an_open_talk_is_not_disturbed(policy, row, target, held):
    """Somebody leads it already; one that was forgotten for half a year counts no more."""
    given = scores({"A00": 0.9}, target, 90000.0)
    made = plan(given, None, frames(opportunities=deal(**row)), policy, at=AT)
    assert bool(made.tasks) != held
    assert why(made, target=target) == ([("quiet", why(made, target=target)[0][1])] if held else [])


def test_who_asked_for_a_person_is_answered_in_any_talk(policy):
    """`always` plays are answers; other saving waits for the escalation to be settled."""
    ticket = pd.DataFrame([{"ticket_id": "T1", "account_id": "A00", "opened_at": ago(5), "known_at": ago(5),
                            "escalated_at": ago(2)}])
    made = plan(scores({"A00": 0.9}), None, frames(opportunities=deal(), support_tickets=ticket), policy, at=AT)
    assert [task.play for task in made.tasks] == ["escalation"]
    assert [one[0] for one in why(made)] == ["quiet"]


def touches(*days, **values):
    return pd.DataFrame([{"account_id": "A00", "occurred_at": ago(one), "direction": "outbound", "channel": "call",
                          "by": "human", "known_at": ago(one), **values} for one in days])


@pytest.mark.parametrize(("rows", "held"), [
    (touches(1, 5, 9, 14), True), (touches(1, 5, 9), False), (touches(1, 5, 9, 14, by="bot"), False),
    (touches(1, 5, 9, 14, direction="inbound"), False), (touches(1, 5, 9, 26), False)])
def test_nobody_is_pestered(policy, rows, held):
    """Four approaches in any thirty days are enough, whoever makes them; a bot's message is none, nor is an answer."""
    made = plan(scores({"A00": 0.9}), None, frames(touches=rows), policy, at=AT)
    assert [one[0] for one in why(made)] == (["touches"] if held else [])


def test_a_task_and_its_own_call_count_once(policy):
    """The call that a task asked for is no further approach."""
    first = plan(scores({"A00": 0.9}).assign(cutoff=ago(20)), None, frames(), policy, at=ago(20)).tasks[0]
    done = dataclasses.replace(first, status="completed", disposition="no_change", due=ago(14).date())
    outcome = pd.DataFrame([{"key": done.key, "account_id": "A00", "play": "save_call", "occurred_at": ago(14),
                             "status": "completed", "disposition": "wrong_contact", "known_at": ago(14)}])
    tables = frames(touches=touches(2, 6, 14), outreach_outcomes=outcome)
    made = plan(scores({"A00": 0.9}), None, tables, policy, [done], at=AT)
    assert [task.account_id for task in made.tasks] == ["A00"]
    tables["touches"] = touches(2, 6, 8, 14)
    assert [one[0] for one in why(plan(scores({"A00": 0.9}), None, tables, policy, [done], at=AT))] == ["touches"]


@pytest.mark.parametrize(("country", "at", "due"), [
    ("FR", dt.datetime(2026, 11, 6, 9, tzinfo=dt.UTC), dt.date(2026, 11, 12)),  # the fifth day is Armistice Day
    ("US", dt.datetime(2026, 11, 5, 9, tzinfo=dt.UTC), dt.date(2026, 11, 10)),
    ("XX", dt.datetime(2026, 11, 2, 9, tzinfo=dt.UTC), dt.date(2026, 11, 9)),  # the seventh is a Saturday
])
def test_nothing_is_due_on_a_day_off(policy, country, at, due):
    """Weekends and the holidays of the account's country are passed over; a country that is not known has none."""
    tables = frames()
    tables["accounts"]["country"] = country
    [task] = plan(scores({"A00": 0.9}).assign(cutoff=pd.Timestamp(at)), None, tables, policy, at=at).tasks
    assert task.due == due


def test_days_count_in_the_owners_zone(policy):
    """At nine in the evening of Friday in Tokyo the work begins on Monday."""
    tables = frames()
    at = dt.datetime(2026, 11, 6, 12, tzinfo=dt.UTC)
    due = {}
    for zone in ("Asia/Tokyo", "America/New_York"):
        tables["owners"]["timezone"] = zone
        [task] = plan(scores({"A00": 0.9}).assign(cutoff=pd.Timestamp(at)), None, tables, policy, at=at).tasks
        due[zone] = task.due
    assert due == {"Asia/Tokyo": dt.date(2026, 11, 16), "America/New_York": dt.date(2026, 11, 11)}


def test_the_policy_silences_an_account(policy):
    """With its reason, until its day."""
    quiet = Policy(**{**policy.model_dump(), "suppressions": [
        {"account": "A00", "reason": "legal dispute", "until": "2026-11-20"}]})
    assert why(plan(scores({"A00": 0.9}), None, frames(), quiet, at=AT)) == [("suppressed", "legal dispute")]
    later = AT + dt.timedelta(days=19)
    given = scores({"A00": 0.9}).assign(cutoff=pd.Timestamp(later))
    assert len(plan(given, None, frames(), quiet, at=later).tasks) == 1


def test_what_the_crm_silenced_stays_silent(policy):
    """A suppression that the outbox knows holds before it comes back as a raw table."""
    made = plan(scores({"A00": 0.9}), None, frames(), policy, Before(suppressed={"A00": "do_not_contact"}), at=AT)
    assert why(made) == [("suppressed", "do_not_contact")]


def test_a_case_that_grew_worse_is_opened_again(policy):
    """Much likelier than when it was closed, a case passes its cool-down, and says which one it opens again."""
    tables = frames()
    early = scores({"A00": 0.4}).assign(cutoff=ago(20))
    task = plan(early, None, tables, policy, at=ago(20)).tasks[0]
    done = dataclasses.replace(task, status="completed")
    tables["outreach_outcomes"] = pd.DataFrame([{
        "key": task.key, "account_id": "A00", "play": "save_call", "occurred_at": ago(10), "status": "completed",
        "disposition": "saved", "known_at": ago(10)}])
    assert why(plan(scores({"A00": 0.5}), None, tables, policy, [done], at=AT)) == [
        ("cool-down", "a task was closed lately")]
    [again] = plan(scores({"A00": 0.56}), None, tables, policy, [done], at=AT).tasks
    assert (again.reopens, again.key != task.key) == (task.key, True)
    tables["outreach_outcomes"]["disposition"] = "do_not_contact"
    assert plan(scores({"A00": 0.99}), None, tables, policy, [done], at=AT).tasks == ()


def test_the_breaker_holds_new_tasks_alone(policy):
    """What must always be done goes on."""
    ticket = pd.DataFrame([{"ticket_id": "T1", "account_id": "A01", "opened_at": ago(5), "known_at": ago(5),
                            "escalated_at": ago(2)}])
    made = plan(scores({"A00": 0.9}), None, frames(support_tickets=ticket), policy,
                Before(stopped={"churn": "usage is a day late"}), at=AT)
    assert [task.play for task in made.tasks] == ["escalation"]
    assert why(made) == [("breaker", "usage is a day late")]


def test_those_who_pay_most_are_called_soon(policy):
    """The top share's saving is urgent."""
    tables = frames()
    tables["subscriptions"].loc[3, "mrr"] = 90000.0
    first = Policy(**{**policy.model_dump(), "human_first": {**policy.human_first.model_dump(), "top_share": 0.1}})
    tasks = {task.account_id: task for task in plan(scores({"A03": 0.5, "A02": 0.5}), None, tables, first, at=AT).tasks}
    assert (tasks["A03"].due, tasks["A03"].priority) == (dt.date(2026, 11, 2), "high")
    assert tasks["A02"].due == dt.date(2026, 11, 6)


@pytest.mark.parametrize(("change", "reason"), [
    ({"expires_at": dt.date(2026, 10, 30)}, "it expired on 30 October 2026"),
    ({"play": "gone"}, "the play 'gone' was taken out of the policy")])
def test_a_closing_says_why(policy, change, reason):
    """Each moot task is closed with its own reason."""
    [task] = plan(scores({"A00": 0.9}), None, frames(), policy, at=AT).tasks
    old = dataclasses.replace(task, **change)
    assert plan(scores({"A00": 0.9}), None, frames(), policy, [old], at=AT).closings == {task.key: reason}


def test_a_lost_account_ends_its_tasks(policy):
    """Where no contract runs any more, nothing is left to be done."""
    [task] = plan(scores({"A00": 0.9}), None, frames(), policy, at=AT).tasks
    tables = frames()
    tables["subscriptions"].loc[0, "ended_at"] = ago(1)
    made = plan(None, None, tables, policy, [task], at=AT)
    assert made.closings == {task.key: "the account has left"}
