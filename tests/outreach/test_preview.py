"""A plan in words before it is carried out, and what a case is worth by uplift, by effect and by belief."""

import pandas as pd
import pytest
from small_book import ago, frames, scores
from small_tasks import AT, task

from churnkit.outreach import preview
from churnkit.outreach.limits import Before
from churnkit.outreach.plan import plan
from churnkit.outreach.policy import Policy

EFFECT = {"play": "save_call", "cause": "", "segment": "", "effect": 0.4, "low": 0.1, "high": 0.7,
          "n_control": 60}


def effects(**values):
    return pd.DataFrame([{**EFFECT, **values}])


def reasons(entity, group):
    return pd.DataFrame([{"entity_id": entity, "cutoff": pd.Timestamp(AT), "target": "churn", "rank": 1, "feature": "f",
                          "direction": "raises", "phrase": "9 sessions, 31 before", "points": 8.0, "changed": "",
                          "group": group}])


@pytest.mark.parametrize(("more", "effect", "by", "net"), [
    ({}, None, "prior", 0.5 * 0.15 * 9600 - 60), ({}, effects(), "effect", 0.5 * 0.4 * 9600 - 60),
    ({"uplift": 0.1, "uplift_skill": True}, effects(), "uplift", 0.1 * 9600 - 60),
    ({"uplift": 0.1, "uplift_skill": False}, effects(), "effect", 0.5 * 0.4 * 9600 - 60)])
def test_what_a_case_is_worth(policy, more, effect, by, net):
    """A learnt uplift where it is proven, else the measured effect, else what is believed."""
    made = plan(scores({"A00": 0.5}).assign(**more), None, frames(), policy, Before(effects=effect), at=AT)
    [row] = made.decisions.to_dict("records")
    assert (row["by"], row["became"]) == (by, "task")
    assert row["net"] == pytest.approx(net)
    assert made.tasks[0].rank_by == by


def test_a_few_make_no_measure(policy):
    """With a handful kept apart the belief is mended and stays a belief: nobody is left alone because of it."""
    made = plan(scores({"A00": 0.5}), None, frames(), policy, Before(effects=effects(n_control=5)), at=AT)
    assert list(zip(made.decisions["by"], made.decisions["effect"], strict=True)) == [("prior", 0.4)]


@pytest.mark.parametrize("more", [{"uplift": -0.02, "uplift_skill": True}, {}])
def test_sleeping_dogs_lie(policy, more):
    """Whom contact harms is left alone, whatever the risk."""
    made = plan(scores({"A00": 0.99}, value=1e6).assign(**more), None, frames(), policy,
                Before(effects=effects(effect=-0.05)), at=AT)
    assert made.tasks == ()
    assert list(made.held["detail"]) == ["contacting such customers did not help, or did harm"]


def test_effects_differ_by_cause_and_segment(policy):
    """The closest that is known counts."""
    rows = pd.concat([effects(), effects(cause="support", effect=0.6), effects(segment="mid", effect=0.2)])
    found = [plan(scores({"A00": 0.5}), reasons("A00", group), frames(), policy, Before(effects=rows),
                  at=AT).decisions["effect"].iloc[0] for group in ("support", "usage")]
    assert found == [0.6, 0.2]


def test_believed_only_where_the_policy_says_so(change, policy):
    """`ranking` turns both off."""
    plain = change(policy, ranking={"effects": False, "uplift": False})
    given = scores({"A00": 0.5}).assign(uplift=0.1, uplift_skill=True)
    assert list(plan(given, None, frames(), plain, Before(effects=effects()), at=AT).decisions["by"]) == ["prior"]


@pytest.mark.parametrize(("drivers", "group", "opens"), [
    (["usage"], "usage", True), (["usage"], "support", False), ([], "support", True), (["usage"], "", False)])
def test_a_play_may_wait_for_a_driver(policy, drivers, group, opens):
    """It opens where the first reason is of its groups."""
    data = policy.model_dump()
    data["plays"]["save_call"]["drivers"] = drivers
    made = plan(scores({"A00": 0.5}), reasons("A00", group), frames(), Policy(**data), at=AT)
    assert bool(made.tasks) == opens
    assert [task.cause for task in made.tasks] == ([group] if opens else [])


def test_the_first_play_that_fits_is_taken(policy):
    """By value: the dear ones get the visit, the others the call."""
    data = policy.model_dump()
    visit = {**data["plays"]["save_call"], "type": "visit", "min_value": 50000.0}
    data["plays"] = {"visit": visit, "save_call": {**data["plays"]["save_call"], "max_value": 50000.0}}
    given = pd.concat([scores({"A00": 0.5}, value=90000.0), scores({"A01": 0.5})])
    made = plan(given, None, frames(), Policy(**data), at=AT)
    assert {task.account_id: task.play for task in made.tasks} == {"A00": "visit", "A01": "save_call"}


def test_a_preview_says_what_each_limit_costs(policy):
    """Capacity holds the least valuable back; the figures are sums over the decisions."""
    given = scores({"A00": 0.9, "A02": 0.8, "A04": 0.7, "A06": 0.6, "A01": 0.05})
    made = plan(given, None, frames(), policy, at=AT)
    assert preview.costs(made) == [{"limit": "capacity", "held": 1, "expected net": "804 EUR"}]
    assert preview.sentences(made)[0] == "Full weeks hold back 1 candidate, expected to bring 804 EUR net."
    first = made.tasks[0]
    assert preview.difference(made, [first]) == [
        {"owner": "ann@us.example", "open": 1, "new": 3, "closing": 0, "then": 4, "fullest week": 3, "may": 3}]
    assert preview.sentences(made)[-1] == "With a full week or more: ann@us.example."


def test_a_week_is_full_by_what_falls_due_in_it(policy):
    """Open tasks of different weeks do not add up to a full one."""
    late = [task(n, due=ago(-14 - 10 * n).date()) for n in (2, 4)]  # two weeks of ann's, who has room for three a week
    made = plan(scores({"A00": 0.9}), None, frames(), policy, late, at=AT)
    [ann] = made.load[made.load["owner"] == "ann@us.example"].to_dict("records")
    assert (ann["open"], ann["new"], ann["fullest"], ann["per_week"]) == (2, 1, 1, 3)
    assert not any("full week" in line for line in preview.sentences(made))


def test_one_accounts_reasoning(policy):
    """Every score, signal and open task of the account has its sentence, with money and the reason."""
    ticket = pd.DataFrame([{"ticket_id": "T1", "account_id": "A00", "opened_at": ago(5), "known_at": ago(5),
                            "escalated_at": ago(2)}])
    given = pd.concat([scores({"A00": 0.5, "A01": 0.9}), scores({"A00": 0.01}, "expansion")])
    made = plan(given, None, frames(support_tickets=ticket), policy, at=AT)
    said = preview.account(made, "A00", made.tasks)
    assert any(line.startswith("open since 2026-10-30: 'escalation'") for line in said)
    assert ("save_call: 50% x 0.15, what is believed of the play, of 9,600 EUR: about 660 EUR net of cost -> held "
            "(quiet): an escalation is open since 30 October 2026") in said
    assert "expansion: no task (below threshold; 1.0%, opens at 20%)" in said
    assert not any("A01" in line for line in said)
