"""The job that learns whom a contact helps: from tasks and ghosts to a file of text, and from there to the scores."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from churnkit.cutoffs import moment
from churnkit.errors import ModelError
from churnkit.jobs import setup
from churnkit.jobs import whom as job
from churnkit.jobs.whom import SCORE, TRIGGERED, Kept, joined, keep, kept, told, triggered
from churnkit.jobs.workspace import open_outbox, read, workspace
from churnkit.learning.uplift import LEAST_ROWS, Trial, UpliftModel
from churnkit.outreach.task import Task, task_key
from churnkit.settings import load
from churnkit.simulate.responses import UNSEEN, responses

DAY, LATER = "2026-05-01", "2026-06-01"


def task(account, day=DAY, **changed):
    """A task of the churn play for an account, or its ghost."""
    given = {"key": task_key(account, "save", day), "target": "churn", "play": "save", "episode": day,
             "opened_by": "model", "account_id": account, "type": "call", "title": "Call", "body": "", "score": 0.4,
             "priority": "normal", "due": dt.date.fromisoformat(day), "owner": "ann",
             "scored_at": f"{day}T00:00:00+00:00"}
    return Task(**{**given, **changed})


def arm(top, arm="treated", propensity=0.1):
    """A row of the control group's draw: the propensity is that of control."""
    return {"top": top, "arm": arm, "propensity": propensity, "stratum": "", "share": propensity, "salt": "s"}


def test_first_triggers_are_taken_with_their_arm():
    """A ghost is control; the propensity of treatment is what control leaves; siblings share their top."""
    found = triggered([task("A1"), task("A2", ghost=True), task("A1", LATER, ghost=True)],
                      [arm("T1"), arm("A2", "control", 0.25)], {"A1": "T1"}, "churn")
    assert tuple(found) == TRIGGERED
    assert found[["entity_id", "top", "treated", "propensity", SCORE]].to_numpy().tolist() == [
        ["A1", "T1", True, 0.9, 0.4], ["A2", "A2", False, 0.75, 0.4]]
    assert found["cutoff"].eq(pd.Timestamp(DAY, tz="UTC")).all()


@pytest.mark.parametrize("left_out", [
    task("A1", passed_on=True), task("A1", opened_by="rule"), task("A1", target="expansion"), task("A1", play="urgent"),
    task("A1", scored_at=None), task("R1"), task("N1"),
])
def test_what_is_no_fair_comparison_is_left_out(left_out):
    """Passed-on slots, rules, other targets, plays that are always done, the reserve, and who was never drawn."""
    found = triggered([task("A2"), left_out], [arm("A1"), arm("A2"), arm("R1", "reserve")], {}, "churn", ["urgent"])
    assert found["account_id"].tolist() == ["A2"]


def test_a_later_task_does_not_stand_in_for_a_first_one_that_is_left_out():
    """Its account was touched by then."""
    assert triggered([task("A1", passed_on=True), task("A1", LATER)], [arm("A1")], {}, "churn").empty


def test_each_asset_of_a_task_is_a_row():
    found = triggered([task("A1", target="maintenance", asset_ids=("M1", "M2"))], [arm("A1")], {}, "maintenance")
    assert found[["entity_id", "account_id"]].to_numpy().tolist() == [["M1", "A1"], ["M2", "A1"]]


@pytest.mark.parametrize(("good", "y"), [(0, [1, 0]), (1, [0, 1])])
def test_outcomes_count_as_hoped_for(good, y):
    """A loss that did not come is good, a sale that came is; an account without an outcome yet is left out."""
    first = triggered([task(name) for name in ("A1", "A2", "A3")], map(arm, ("A1", "A2", "A3")), {}, "churn")
    labels = first[["entity_id", "cutoff"]].assign(label=pd.array([0, 1, None], dtype="Int64"))
    features = first[["entity_id", "account_id", "cutoff"]].assign(row_id="r", entity="account", seats=[1.0, 2.0, 3.0])
    found = joined(first, features.iloc[::-1], labels, good=good)
    assert found.y.tolist() == y
    assert found.X.to_dict("list") == {"seats": [1.0, 2.0], SCORE: [0.4, 0.4]}
    assert found.propensity.tolist() == [0.9, 0.9]


def inputs(made):
    """The features of made-up accounts, and scores as a model would give them."""
    points = made.drop(columns=list(UNSEEN)).reset_index(drop=True)
    scores = pd.DataFrame({"entity_id": [f"A{n}" for n in range(len(made))], "probability": made["risk"].to_numpy()})
    return points, scores


@pytest.fixture(scope="module")
def learnt():
    """A model of churn that counts as proven, learnt from accounts whose probability was 0.2 or more."""
    made = responses(3000)
    made = made[made["risk"] >= 0.2]
    x = made.drop(columns=list(UNSEEN)).assign(**{SCORE: made["risk"]})
    trial = Trial(x, made["treated"], made["stayed"], made["propensity"], made.index)
    model = UpliftModel.fit("churn", trial)
    return Kept(replace(model, verdict=replace(model.verdict, bound=0.01)), moment(DAY), 0.2)


@pytest.fixture
def settings(tmp_path):
    setup.init(tmp_path / "book")
    return load(tmp_path / "book")


def test_scores_tell_uplift_where_it_is_known(settings, learnt):
    """Of accounts below all that were learnt from nothing is said; the others' uplift is the model's."""
    keep(settings, "churn", learnt)
    points, scores = inputs(responses(400, 5))
    found, said = told(settings, "churn", scores, points, moment(LATER))
    known = scores["probability"] >= 0.2
    assert found["uplift"].notna().tolist() == known.tolist()
    assert found["uplift_skill"].tolist() == known.tolist()
    expected = learnt.model.predict(points.assign(**{SCORE: scores["probability"]}))
    assert found["uplift"][known].to_numpy() == pytest.approx(expected[known.to_numpy()], abs=0)
    assert f"harm {int((found['uplift'] < 0).sum())} of them" in said[0]
    assert found.drop(columns=["uplift", "uplift_skill"]).equals(scores)


def test_without_skill_the_probability_ranks(settings, learnt):
    """The uplift is told, for who wants to look, and the columns say that it ranks nobody."""
    unproven = replace(learnt.model, verdict=replace(learnt.model.verdict, bound=-0.01))
    keep(settings, "churn", replace(learnt, model=unproven))
    points, scores = inputs(responses(50, 5))
    found, said = told(settings, "churn", scores, points, moment(LATER))
    assert not found["uplift_skill"].any()
    assert "the probability ranks, no usable heterogeneity: " in said[0]


@pytest.mark.parametrize(("at", "spoil", "word"), [
    (LATER, lambda points: points.drop(columns="tickets_open"), "tickets_open"),
    ("2026-04-01", lambda points: points, "knows what came after 2026-04-01"),
])
def test_what_cannot_be_told_is_said_and_left_blank(settings, learnt, at, spoil, word):
    """A feature that is gone, or a look back; scoring goes on."""
    keep(settings, "churn", learnt)
    points, scores = inputs(responses(50, 5))
    found, said = told(settings, "churn", scores, spoil(points), moment(at))
    assert found["uplift"].isna().all()
    assert not found["uplift_skill"].any()
    assert word in said[0]


def test_without_a_model_nothing_is_said(settings):
    points, scores = inputs(responses(5))
    found, said = told(settings, "churn", scores, points, moment(DAY))
    assert said == []
    assert found["uplift"].isna().all()
    assert kept(settings, "churn") is None


def test_a_kept_model_is_text_and_comes_back(settings, learnt):
    """A half-written file beside it is of no consequence."""
    file = keep(settings, "churn", learnt)
    file.with_suffix(".part").write_text("{", encoding="utf-8")
    again = kept(settings, "churn")
    assert again.at == learnt.at
    assert again.model.to_parts() == learnt.model.to_parts()
    keep(settings, "churn", learnt)
    assert [one.name for one in file.parent.iterdir()] == ["model.json"]


@pytest.mark.parametrize(("spoil", "mend"), [
    (lambda text: text.replace('"least": 0.2', '"least": 0.2, "format": 99'), "Upgrade churnkit"),
    (lambda text: text.replace("tickets_open", "tickets_shut"), "was changed since it was written"),
    (lambda text: text[:1000], "Learn it again: churnkit uplift"),
    (lambda _: "[]", "Learn it again: churnkit uplift"),
])
def test_a_file_that_was_changed_is_not_trusted(settings, learnt, spoil, mend):
    file = keep(settings, "churn", learnt)
    data = spoil(file.read_text(encoding="utf-8"))
    if "Upgrade" in mend:
        data = json.dumps({**json.loads(file.read_text(encoding="utf-8")), "format": 99})
    file.write_text(data, encoding="utf-8")
    with pytest.raises(ModelError, match=mend):
        kept(settings, "churn")


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A simulated workspace whose accounts all had a task or a ghost half a year ago."""
    folder = tmp_path_factory.mktemp("uplift") / "book"
    setup.simulate(folder, accounts=100, months=10, seed=3)
    with workspace(folder) as settings:
        accounts = sorted(read(settings, moment("2026-11-01"))["accounts"]["account_id"].unique())
        outbox = open_outbox(settings)
    rng = np.random.default_rng(0)
    ghosts = dict(zip(accounts, (rng.random(len(accounts)) < 0.5).tolist(), strict=True))
    outbox.keep_arms([arm(name, "control" if ghosts[name] else "treated", 0.5) for name in accounts], moment(DAY))
    outbox.put([task(name, ghost=ghost) for name, ghost in ghosts.items()], at=moment(DAY))
    outbox.close()
    return folder


@pytest.mark.slow
def test_too_few_accounts_are_an_answer(book):
    """No model, no file; the report says how many there are and how many are needed."""
    report = job.uplift(book, moment("2026-11-01"), ["churn"])
    assert report.rows == [{"target": "churn", "skill": "no model"}]
    assert f"{LEAST_ROWS} are needed" in report.notes[0]
    assert not (book / "state" / "uplift").exists()


@pytest.mark.slow
def test_before_an_outcome_is_known_it_says_when(book):
    report = job.uplift(book, moment(LATER), ["churn"])
    assert "no task or ghost has an outcome yet; an outcome needs 134 days" in report.notes[0]


@pytest.mark.slow
def test_with_enough_accounts_a_model_is_kept(book, monkeypatch):
    """From the outbox, the store and the tables: features at the trigger, outcomes after it, and a verdict."""
    monkeypatch.setattr("churnkit.learning.uplift.LEAST_ROWS", 20)
    monkeypatch.setattr("churnkit.learning.uplift.LEAST_OUTCOMES", 2)
    report = job.uplift(book, moment("2026-11-01"), ["churn"])
    [row] = report.data["models"]
    found = kept(load(book), "churn")
    assert found.model.features[-1] == SCORE
    assert found.least == pytest.approx(0.4)
    assert row["treated"] + row["control"] <= 100
    assert row["skill"] == ("proven" if found.model.skill else "no skill")
    assert report.notes[0].startswith("churn: ")
