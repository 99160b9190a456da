"""The plan's limits, each shown on a small book, and as properties over random books."""

import dataclasses
import datetime as dt
from collections import ChainMap

import numpy as np
import pandas as pd
import pytest
from random_plans import broken, planned
from random_plans import made as made_up
from small_book import ago, frames, scores
from small_tasks import AT

from churnkit.errors import OutreachError
from churnkit.outreach.plan import plan
from churnkit.outreach.policy import Policy
from churnkit.settings import Settings


def ticket(account, n=1, **times):
    return {"ticket_id": f"T{account}{n}", "account_id": account, "opened_at": ago(5), "channel": "email",
            "category": "billing", "known_at": ago(5), **times}


def held(made, entity, target="churn"):
    rows = made.held[(made.held["entity_id"] == entity) & (made.held["target"] == target)]
    return list(rows["why"])


def outcomes(**row):
    return pd.DataFrame([{"key": "k", "account_id": "A00", "play": "save_call", "occurred_at": ago(3),
                          "status": "completed", "disposition": None, "known_at": ago(3), **row}])


def test_ranks_by_expected_net_value(policy):
    """The most valuable case comes first when there is room for one only."""
    small = policy.model_copy(update={"pilot": policy.pilot.model_copy(update={"max_new_per_run": 1})})
    given_ = pd.concat([scores({"A00": 0.9}, value=2000.0), scores({"A01": 0.3}, value=90000.0)])
    made = plan(given_, None, frames(), small, at=AT)
    assert [task.account_id for task in made.tasks] == ["A01"]
    assert held(made, "A00") == ["max new per run"]


def test_capacity_counts_open_tasks(policy):
    """Three open tasks fill a capacity of three."""
    first = plan(scores({f"A{n:02d}": 0.5 for n in (0, 2, 4)}), None, frames(), policy, at=AT)
    assert len(first.tasks) == 3
    later = plan(scores({"A06": 0.9}), None, frames(), policy, first.tasks, at=AT + dt.timedelta(days=1))
    assert later.tasks == ()
    assert held(later, "A06") == ["capacity"]


def test_no_skill_leaves_rule_plays(policy):
    """A target without proven skill opens nothing, and a rule still does."""
    tables = frames(support_tickets=pd.DataFrame([ticket("A01", escalated_at=ago(2))]))
    made = plan(scores({"A00": 0.9}, skill=False), None, tables, policy, at=AT)
    assert [(task.play, task.opened_by, task.score) for task in made.tasks] == [("escalation", "rule", None)]
    assert held(made, "A00") == ["no skill"]


def test_rules_need_no_scores(policy):
    """Without any scores the rule plays stand."""
    tables = frames(support_tickets=pd.DataFrame([ticket("A01", human_requested_at=ago(2))]))
    assert [task.play for task in plan(None, None, tables, policy, at=AT).tasks] == ["answer_person"]


def test_control_never_withholds_always(change):
    """With everybody in control only `always` plays are sent, and the rest are ghosts."""
    policy = change(Policy.default(), control={"share": 0.999999})
    tables = frames(support_tickets=pd.DataFrame([ticket("A01", escalated_at=ago(2))]))
    made = plan(scores({"A00": 0.9}), None, tables, policy, at=AT)
    assert [task.play for task in made.tasks] == ["escalation"]
    assert [task.account_id for task in made.ghosts] == ["A00"]
    assert held(made, "A00") == ["control"]


def test_nobody_is_sold_to_while_being_saved(policy):
    """A churn candidate, an open churn task or a frustrated signal each block the sale."""
    both = pd.concat([scores({"A00": 0.5}), scores({"A00": 0.9}, target="expansion", value=1e6)])
    made = plan(both, None, frames(), policy, at=AT)
    assert [task.target for task in made.tasks] == ["churn"]
    assert held(made, "A00", "expansion") == ["precedence"]
    sale = scores({"A00": 0.9}, target="expansion", value=1e6)
    assert held(plan(sale, None, frames(), policy, made.tasks, at=AT), "A00", "expansion") == ["precedence"]
    upset = frames(surveys=pd.DataFrame([{
        "account_id": "A00", "responded_at": ago(4), "kind": "nps", "score": 2.0, "known_at": ago(4)}]))
    assert held(plan(sale, None, upset, policy, at=AT), "A00", "expansion") == ["precedence"]


def test_an_open_sale_ends_where_saving_begins(policy):
    """An untouched task that would sell is moot once its account is to be saved; a begun one stays."""
    sale = scores({"A00": 0.9, "A01": 0.9, "A02": 0.9}, target="expansion", value=1e6)
    first = plan(sale, None, frames(), policy, at=AT)
    both = pd.concat([sale, scores({"A00": 0.5, "A02": 0.5})])
    opened = {task.account_id: task for task in first.tasks}
    opened["A02"] = dataclasses.replace(opened["A02"], status="in_progress")
    assert plan(both, None, frames(), policy, opened.values(), at=AT).moot == (opened["A00"].key,)


def test_a_ghost_covers_nothing_that_must_be_done(change, policy):
    """A control account's ghost on a ticket does not keep an `always` play about the same ticket from being sent."""
    control = change(policy, control={"share": 0.999999})
    tickets = [ticket("A01", n, opened_at=ago(4 - n)) for n in range(3)]
    first = plan(None, None, frames(support_tickets=pd.DataFrame(tickets)), control, at=AT)
    assert [task.play for task in first.ghosts] == ["repeat_contact"]
    tickets[2]["escalated_at"] = AT + dt.timedelta(hours=1)
    later = frames(support_tickets=pd.DataFrame(tickets))
    made = plan(None, None, later, control, first.ghosts, at=AT + dt.timedelta(days=1))
    assert [task.play for task in made.tasks] == ["escalation"]


def test_a_task_that_was_closed_takes_no_slot_again(policy):
    """A task that churnkit itself closed, as expired, is not planned anew while its signal lasts."""
    tables = frames(support_tickets=pd.DataFrame([ticket("A01", escalated_at=ago(2))]))
    [task] = plan(None, None, tables, policy, at=AT).tasks
    closed = dataclasses.replace(task, status="dismissed")
    assert plan(None, None, tables, policy, [closed], at=AT + dt.timedelta(days=32)).tasks == ()


def test_a_rule_says_what_is_at_stake_in_the_customers_currency(policy):
    """One currency that is not the workspace's is named as it is."""
    tables = frames(support_tickets=pd.DataFrame([ticket("A01", escalated_at=ago(2))]))
    tables["subscriptions"]["currency"] = "USD"
    [task] = plan(None, None, tables, policy, at=AT).tasks
    assert (task.value, task.currency) == (9600.0, "USD")


def test_an_error_is_worth_a_failure_and_not_the_account(policy):
    """A rule about equipment shows what a failure would cost, by default a month of the account's money."""
    data = policy.model_dump()
    data["signals"]["error_code"] |= {"codes": ("E7",)}
    assets = pd.DataFrame([{"asset_id": "P1", "account_id": "A01", "model": "m", "installed_at": ago(90)}])
    events = pd.DataFrame([{"asset_id": "P1", "occurred_at": ago(1), "kind": "error", "code": "E7"}])
    [task] = plan(None, None, frames(assets=assets, asset_events=events), Policy(**data), at=AT).tasks
    assert (task.play, task.value) == ("error_code", 1000.0)


def test_a_rule_is_valued_by_the_workspaces_settings(policy):
    """Margin and months are the workspace's, also where a job lays a further table over the workspace's own."""

    class Given(dict):
        settings = Settings(value={"margin": 0.5, "months": 6})

    tables = Given(frames(support_tickets=pd.DataFrame([ticket("A01", escalated_at=ago(2))])))
    for whole in (tables, ChainMap({}, tables)):
        assert [task.value for task in plan(None, None, whole, policy, at=AT).tasks] == [3000.0]


def test_a_new_signal_does_not_tell_the_old_one_again(policy):
    """Of two low ratings the first was answered: the second task speaks of the second alone."""
    rated = pd.DataFrame([ticket("A01", 1, opened_at=ago(15), known_at=ago(15), csat=1.0, rated_at=ago(14)),
                          ticket("A01", 2, csat=2.0, rated_at=ago(1))])
    key = plan(None, None, frames(support_tickets=rated), policy, at=ago(13)).tasks[0].key
    done = outcomes(key=key, account_id="A01", play="low_rating", occurred_at=ago(10), disposition="wrong_contact")
    [task] = plan(None, None, frames(support_tickets=rated, outreach_outcomes=done), policy, at=AT).tasks
    assert task.reason_codes == ("low_csat", "TA012")
    assert "TA011" not in task.title


def test_suppressions_hold_everything(policy):
    """A suppression holds a task until it ends, `always` or not."""
    quiet = pd.DataFrame([{"account_id": "A00", "reason": "lawsuit", "starts_at": ago(1), "until": ago(-9)}])
    tables = frames(suppressions=quiet, support_tickets=pd.DataFrame([ticket("A00", escalated_at=ago(2))]))
    made = plan(scores({"A00": 0.9}), None, tables, policy, at=AT)
    assert made.tasks == ()
    assert set(made.held["why"]) == {"suppressed"}
    assert set(made.held["until"]) == {ago(-9)}
    assert plan(scores({"A00": 0.9}), None, tables, policy, at=AT + dt.timedelta(days=10)).tasks != ()


@pytest.mark.parametrize(("row", "why"), [
    ({"disposition": "saved"}, ["cool-down"]),
    ({"disposition": "do_not_contact"}, ["suppressed"]),
    ({"status": "snoozed"}, []),
    ({"occurred_at": ago(300), "disposition": "saved"}, []),
])
def test_answers_give_peace(policy, row, why):
    """A closed task starts a cool-down, `do_not_contact` one without end."""
    made = plan(scores({"A00": 0.9}), None, frames(outreach_outcomes=outcomes(**row)), policy, at=AT)
    assert held(made, "A00") == why


def test_inactive_owner_falls_to_the_manager(policy):
    """The manager's queue takes what has no active owner; without a manager it is held."""
    tables = frames()
    tables["owners"].loc[0, "active"] = False
    made = plan(scores({"A00": 0.9}), None, tables, policy, at=AT)
    assert [task.owner for task in made.tasks] == ["max@us.example"]
    tables["owners"].loc[0, "manager"] = None
    assert held(plan(scores({"A00": 0.9}), None, tables, policy, at=AT), "A00") == ["no owner"]


def test_short_lead_time_is_held(policy):
    """A forecast that ends before a technician can come makes no visit; the account's other asset does."""
    assets = pd.DataFrame({"asset_id": ["A00/1", "A00/2"], "account_id": "A00", "model": ["slow", "quick"],
                           "installed_at": ago(400), "known_at": ago(400)})
    far = policy.model_copy(update={"dispatch": policy.dispatch.model_copy(update={"models": {"slow": 9}})})
    made = plan(scores({"A00/1": 0.9, "A00/2": 0.8}, "maintenance"), None, frames(assets=assets), far, at=AT)
    assert [task.asset_ids for task in made.tasks] == [("A00/2",)]
    assert held(made, "A00/1", "maintenance") == ["lead time too short"]


def test_pilot_names_people_and_segments(change, policy):
    """Only the named owners get tasks while the pilot is on."""
    named = change(policy, pilot={"owners": ("bob",)})
    made = plan(scores({"A00": 0.9, "A01": 0.9}), None, frames(), named, at=AT)
    assert [task.account_id for task in made.tasks] == ["A01"]
    assert held(made, "A00") == ["pilot"]
    lifted = change(named, pilot={"on": False})
    assert len(plan(scores({"A00": 0.9, "A01": 0.9}), None, frames(), lifted, at=AT).tasks) == 2


def test_rule_episode_is_the_signals_date(policy):
    """Planned on three days in a row, one signal gives one key; once answered it gives none."""
    tables = frames(support_tickets=pd.DataFrame([ticket("A01", escalated_at=ago(2))]))
    keys = {plan(None, None, tables, policy, at=AT + dt.timedelta(days=n)).tasks[0].key for n in range(3)}
    assert len(keys) == 1
    answered = frames(**{**tables, "outreach_outcomes": outcomes(key=keys.pop(), account_id="A01", play="escalation")})
    assert plan(None, None, answered, policy, at=AT).tasks == ()


def test_moot_tasks_are_named(policy):
    """A fallen score, a solved ticket and a play taken out make untouched tasks moot; a begun one stays."""
    first = plan(scores({"A00": 0.9, "A01": 0.9}), None, frames(), policy, at=AT)
    begun = [dataclasses.replace(first.tasks[0], status="in_progress"), *first.tasks[1:]]
    later = plan(scores({"A00": 0.01, "A01": 0.01}), None, frames(), policy, begun, at=AT)
    assert later.moot == (first.tasks[1].key,)
    assert plan(scores({"A00": 0.15, "A01": 0.15}), None, frames(), policy, begun, at=AT).moot == ()


def test_scores_must_be_scores(policy):
    """A frame without the needed columns is refused with the column's name."""
    with pytest.raises(OutreachError, match="column 'entity_id' is missing"):
        plan(pd.DataFrame({"x": [1]}), None, frames(), policy, at=AT)


@pytest.mark.parametrize("seed", range(24))
def test_no_limit_is_ever_broken(seed):
    """On a random book, policy and past: people, control, peace and precedence, held against plain loops."""
    case = made_up(seed)
    assert broken(case, planned(case)) == []


@pytest.mark.slow
@pytest.mark.parametrize("thousand", range(10))
def test_no_limit_is_broken_in_ten_thousand_plans(thousand):
    """The same for 10,000 random plans."""
    for seed in range(1000 * (thousand + 1), 1000 * (thousand + 2)):
        case = made_up(seed)
        assert broken(case, planned(case)) == [], seed


@pytest.mark.parametrize("seed", range(100, 108))
def test_planning_twice_adds_nothing(seed):
    """With the first plan's tasks open nothing is added; and the order of rows is irrelevant."""
    case = made_up(seed)
    first = planned(case)
    keys = {task.key for task in case.before.tasks}
    before = dataclasses.replace(case.before, tasks=(*case.before.tasks, *first.tasks, *first.ghosts), arms=first.arms)
    again = plan(case.scores, None, case.tables, case.policy, before, at=AT)
    assert not {task.key for task in (*again.tasks, *again.ghosts)} & keys
    pilot = case.policy.pilot.on and len(first.tasks) >= case.policy.pilot.max_new_per_run
    assert pilot or (again.tasks, again.ghosts) == ((), ())
    order = np.random.default_rng(seed).permutation(len(case.scores))
    shuffled = {name: frame.iloc[::-1] for name, frame in case.tables.items()}
    other = plan(case.scores.iloc[order], None, shuffled, case.policy, case.before, at=AT)
    assert (first.tasks, first.ghosts) == (other.tasks, other.ghosts)
    pd.testing.assert_frame_equal(first.held, other.held)
    pd.testing.assert_frame_equal(first.arms, other.arms)
