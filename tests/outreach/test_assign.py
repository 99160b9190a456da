"""Who does what: control's slots are passed on, colleagues help within skill and language, nobody is dumped on."""

import dataclasses

import pandas as pd
import pytest
from small_book import ago, frames, scores
from small_tasks import AT

from churnkit.outreach.limits import Before
from churnkit.outreach.plan import plan
from churnkit.outreach.policy import Policy

ALL = [f"A{n:02d}" for n in range(12)]


def arms(*control, **more):
    rows = [{"top": one, "arm": "control" if one in control else "treated", "stratum": "mid", "propensity": 0.1,
             "share": 0.1, "salt": "churnkit", "drawn_at": ago(30), "exposed_at": ago(30), **more} for one in ALL]
    return pd.DataFrame(rows)


@pytest.fixture
def team(change):
    """The default policy with helping colleagues and without control, slack and pilot."""
    base = Policy.default()
    return change(base, control={"share": 0.0}, capacity={"slack": 0.0}, pilot={"on": False})


def held(made):
    return sorted(zip(made.held["account_id"], made.held["why"], strict=True))


def test_control_passes_its_slots_on(change, team):
    """Who would have had a task without the control group is known: ghosts keep their rank, their slots are marked."""
    alone = change(team, capacity={"colleagues": 0})
    given = scores({"A00": 0.9, "A02": 0.8, "A04": 0.7, "A06": 0.6, "A08": 0.5})  # all ann's, who has room for 3
    made = plan(given, None, frames(), alone, Before(arms=arms("A02")), at=AT)
    assert [(task.account_id, task.passed_on) for task in made.tasks] == [
        ("A00", False), ("A04", False), ("A06", True)]
    assert [task.account_id for task in made.ghosts] == ["A02"]
    assert held(made) == [("A02", "control"), ("A08", "capacity")]
    assert [task.propensity for task in made.tasks] == [0.9, 0.9, 0.9]


def test_a_ghost_needs_a_slot_too(change, team):
    """A control account that would have had no task is no ghost: it belongs to nobody's comparison."""
    alone = change(team, capacity={"colleagues": 0})
    given = scores({"A00": 0.9, "A02": 0.8, "A04": 0.7, "A06": 0.6})
    made = plan(given, None, frames(), alone, Before(arms=arms("A06")), at=AT)
    assert (len(made.tasks), made.ghosts) == (3, ())
    assert held(made) == [("A06", "capacity")]


def test_exposure_is_kept(team):
    """Whoever has a task or a ghost is exposed from now on; others are not."""
    made = plan(scores({"A00": 0.9}), None, frames(), team, Before(arms=arms("A00", exposed_at=None)), at=AT)
    exposed = made.arms.set_index("top")["exposed_at"]
    assert (exposed["A00"], exposed.drop("A00").isna().all()) == (pd.Timestamp(AT), True)


def test_a_colleague_helps_out(team):
    """Where the own manager is full the most valuable go where most is won in all; the manager is not dumped on."""
    given = scores(dict.fromkeys(ALL[::2], 0.5), value=20000.0)  # six of ann's; she has room for three, bob for three
    made = plan(given, None, frames(), team, at=AT)
    assert pd.Series([task.owner for task in made.tasks]).value_counts().to_dict() == {
        "ann@us.example": 3, "bob@us.example": 3}
    assert "max@us.example" not in {task.owner for task in made.tasks}


@pytest.mark.parametrize(("column", "value", "helps"), [
    ("languages", "en, fr", True), ("languages", "en", False), ("languages", None, True),
    ("segments", "mid", True), ("segments", "small", False), ("active", False, False), ("manager", "eve", False)])
def test_who_may_help(team, column, value, helps):
    """A colleague of the same team, at work, who has the language and the segment."""
    tables = frames()
    tables["accounts"]["language"] = "fr"
    tables["owners"][column] = tables["owners"][column].astype(object) if column in tables["owners"] else None
    tables["owners"].loc[1, column] = value
    made = plan(scores(dict.fromkeys(ALL[::2], 0.5), value=20000.0), None, tables, team, at=AT)
    assert ("bob@us.example" in {task.owner for task in made.tasks}) == helps


def test_hands_are_not_changed_for_little(team):
    """Who had the account's last task keeps it, unless more than the cost of a change is won."""
    given = scores({"A00": 0.5})
    [first] = plan(given, None, frames(), team, at=AT).tasks
    late = dataclasses.replace(first, owner="bob@us.example", status="completed", episode="2026-09-01", key="ab",
                               due=ago(50).date())
    [again] = plan(given, None, frames(), team, [late], at=AT).tasks
    assert again.owner == "ann@us.example"  # worth 40% more in the own manager's hands
    closer = Policy(**{**team.model_dump(), "capacity": {**team.capacity.model_dump(), "continuity": 0.99}})
    made = plan(given, None, frames(), closer, [late], at=AT)
    assert [(task.owner, had) for task, had in zip(made.tasks, made.decisions["had"], strict=True)] == [
        ("bob@us.example", "")]


def test_skill_and_support_lead(team):
    """A play may ask for a skill; who leads support is one, and without anybody the manager's queue takes it."""
    data = team.model_dump()
    data["plays"]["save_call"] |= {"who": "support_lead"}
    asks = Policy(**data)
    tables = frames()
    tables["owners"]["skills"] = [None, "Support_Lead; german", None]
    assert [task.owner for task in plan(scores({"A00": 0.5}), None, tables, asks, at=AT).tasks] == ["bob@us.example"]
    assert [task.owner for task in plan(scores({"A00": 0.5}), None, frames(), asks, at=AT).tasks] == ["max@us.example"]


def test_slack_is_for_urgent_cases(change, team):
    """A share of each week stays free for those who cannot wait."""
    tight = change(team, capacity={"colleagues": 0, "slack": 0.34})
    given = scores({"A00": 0.9, "A02": 0.8, "A04": 0.7})
    assert len(plan(given, None, frames(), tight, at=AT).tasks) == 2
    ticket = pd.DataFrame([{"ticket_id": "T1", "account_id": "A06", "opened_at": ago(5), "known_at": ago(5),
                            "escalated_at": ago(2)}])
    made = plan(given, None, frames(support_tickets=ticket), tight, at=AT)
    assert sorted(task.account_id for task in made.tasks) == ["A00", "A02", "A06"]


def test_small_changes_do_not_shuffle(team):
    """What is open stays with whom it has; a little noise in the scores moves nobody."""
    given = scores({one: 0.3 + 0.05 * n for n, one in enumerate(ALL)}, value=20000.0)
    first = plan(given, None, frames(), team, at=AT)
    noisy = given.assign(probability=given["probability"] * ([1.01, 0.99] * 6))
    again = plan(noisy, None, frames(), team, at=AT)
    owners = {task.account_id: task.owner for task in first.tasks}
    same = [owners.get(task.account_id) == task.owner for task in again.tasks]
    assert sum(same) >= len(owners) - 1
    assert plan(noisy, None, frames(), team, (*first.tasks, *first.ghosts), at=AT).tasks == ()
