"""Simulated account managers: what they do and say agrees with the book's truth, and their answers come home."""

import datetime as dt
import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from simulated import read

from churnkit import jobs
from churnkit.cutoffs import moment
from churnkit.errors import DataError
from churnkit.jobs import setup
from churnkit.jobs.workspace import open_outbox
from churnkit.jobs.world import hand_in, play_quarter, week_by_week
from churnkit.outreach.task import DISPOSITIONS, Task, task_key
from churnkit.settings import load
from churnkit.simulate import Habits, read_book, simulate, work

AT = moment("2026-05-01")


def tasks(folder, count, *, ghosts=0.3):
    """One task for each of so many accounts, of every target in turn."""
    owned = read(folder, "assets").groupby("account_id")["asset_id"].first()
    made = []
    for number, account in enumerate(read(folder, "accounts")["account_id"][:count]):
        target = ("churn", "expansion", "maintenance")[number % 3 if account in owned.index else number % 2]
        made.append(Task(
            key=task_key(account, target, "2026-05-01"), target=target, play=target, episode="2026-05-01",
            opened_by="model", account_id=account, type="visit" if target == "maintenance" else "call", title="t",
            body="b", priority="normal", due=dt.date(2026, 5, 8), owner="u1@example.com",
            asset_ids=(owned[account],) if target == "maintenance" else (), scored_at="2026-05-01T00:00:00+00:00",
            ghost=number % 10 < 10 * ghosts))
    return made


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A book with half a year to go after AT."""
    return simulate(tmp_path_factory.mktemp("work") / "raw", accounts=600, months=12, difficulty="hard")


@pytest.fixture(scope="module")
def done(book):
    """The tasks and what was done with them."""
    given = tasks(book.folder, 600)
    return given, work(book, given, at=AT)


def test_people_say_only_what_the_contract_knows(done):
    """Status and disposition are the work object's, and fit the task's target."""
    given, found = done
    target = {task.key: task.target for task in given}
    closed = found.answers.dropna(subset=["disposition"])
    for row in closed.itertuples():
        assert row.disposition in (*DISPOSITIONS[target[row.key]], *DISPOSITIONS["any"])
    assert set(found.answers["status"]) == {"completed", "dismissed", "snoozed", "in_progress"}
    assert {"saved", "no_change", "not_a_risk", "later", "no_need", "no_fault_found", "no_response"} <= set(
        closed["disposition"])


def test_shares_are_those_of_the_habits(done):
    """Tasks never begun, those reached, and control accounts called by hand, within three standard errors."""
    given, found = done
    ghosts = {task.key for task in given if task.ghost}
    sent = len(given) - len(ghosts)
    answered = set(found.answers["key"])
    assert not answered & ghosts
    habits = Habits()
    for share, count, of in ((1 - habits.never, len(answered), sent),
                             (habits.by_hand, (found.contacts["key"] == "").sum(), len(ghosts)),
                             (1 - habits.unreached, found.contacts["reached"].sum(), len(found.contacts))):
        assert abs(count - share * of) < 3 * np.sqrt(share * (1 - share) * of) + 1


def test_nothing_is_done_before_it_was_asked_or_out_of_hours(book, done):
    """Contacts fall on working days from 8 to 17 after the plan, answers after their contact."""
    _, found = done
    at = found.contacts["contacted_at"]
    assert at.between(AT, book.end).all()
    assert at.dt.dayofweek.max() < 5
    assert at.dt.hour.between(8, 16).all()
    last = found.answers[found.answers["status"] == "completed"].set_index("key")["answered_at"]
    first = found.contacts[found.contacts["key"] != ""].set_index("key")["contacted_at"]
    both = pd.concat([first, last], axis=1, join="inner")
    assert (both["answered_at"] > both["contacted_at"]).all()
    assert len(both) > 200


def test_the_same_task_meets_the_same_luck(book, done):
    """Whatever other tasks there are, in whatever order."""
    given, found = done
    some = work(book, given[200:100:-1], at=AT).contacts
    keys = {task.key for task in given[101:201]}
    expected = found.contacts[found.contacts["key"].isin(keys)].reset_index(drop=True)
    assert expected.equals(some[some["key"] != ""].reset_index(drop=True))
    assert not found.contacts.equals(work(book, given, at=AT, seed=8).contacts)


def test_nobody_bought_who_does_not_buy(book, done, tmp_path):
    """And who was saved would have left or had trouble: their answers agree with the book as the contacts made it."""
    given, found = done
    after = simulate(tmp_path / "raw", accounts=600, months=12, difficulty="hard", contacts=found.contacts)
    account = {task.key: task.account_id for task in given}
    rows = read(after.folder, "subscriptions")
    going = rows.groupby("account_id")["ended_at"].apply(lambda ends: ends.isna().any())
    steps = rows.groupby("account_id")["started_at"].apply(list)
    bought = found.answers[found.answers["disposition"] == "bought"]
    assert len(bought)
    for row in bought.itertuples():
        assert any(AT < start < row.answered_at for start in steps[account[row.key]])
    saved = found.answers[found.answers["disposition"] == "saved"]["key"].map(account)
    stays = found.answers[found.answers["disposition"] == "no_change"]["key"].map(account)
    assert going[saved].mean() > going[stays].mean()


def test_nothing_to_do_is_nothing_done(book):
    """No tasks, no answers; and the columns are there."""
    found = work(book, [], at=AT)
    assert (len(found.answers), len(found.contacts)) == (0, 0)
    assert {"key", "status"} <= set(found.answers)
    assert {"account_id", "contacted_at"} <= set(found.contacts)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A workspace whose tasks were worked on for six weeks."""
    folder = tmp_path_factory.mktemp("played") / "book"
    setup.simulate(folder, accounts=120, months=10, difficulty="hard")
    settings = load(folder)
    plain = read(settings.path(settings.raw), "touches")
    given = tasks(settings.path(settings.raw), 120)
    with jobs.workspace(folder) as open_:
        open_outbox(open_).put(given, at=AT, run="by hand")
    jobs.sync(folder, AT)
    return folder, given, plain, week_by_week(folder, AT, weeks=6)


def test_the_loop_closes(played):
    """Answers come back as outcomes at their own times, and the raw tables hold the contacts."""
    folder, given, plain, counts = played
    settings = load(folder)
    raw = settings.path(settings.raw)
    outcomes = pd.read_csv(raw / "outreach_outcomes.csv", parse_dates=["occurred_at", "recorded_at"])
    assert counts["worked"] * 0.9 <= outcomes["key"].nunique() <= counts["worked"]
    assert not set(outcomes["key"]) & {task.key for task in given if task.ghost}
    assert (outcomes["occurred_at"] < outcomes["recorded_at"]).all()
    assert outcomes["occurred_at"].nunique() > 0.9 * len(outcomes)
    assert len(read(raw, "touches")) > len(plain)
    kept = pd.read_parquet(read_book(raw).truth / "contacts.parquet")
    assert counts["contacts"] == len(kept)
    status = Counter(task.status for task in open_outbox(settings).tasks())
    assert status["completed"] > 50
    assert status["open"] > 0


def test_the_next_weeks_go_on_from_there(played):
    """Who was worked with is left alone, and the book keeps what was done."""
    folder, _, _, counts = played
    settings = load(folder)
    truth = read_book(settings.path(settings.raw)).truth
    before = pd.read_parquet(truth / "contacts.parquet")
    again = week_by_week(folder, AT + dt.timedelta(weeks=6), weeks=1)
    assert again["contacts"] == 0
    assert before.equals(pd.read_parquet(truth / "contacts.parquet"))
    assert counts["worked"] > 0


def test_people_answer_only_what_is_there_and_open(tmp_path):
    """A task that was never sent, or that churnkit closed, is passed over."""
    (tmp_path / "tasks").mkdir()
    for key, status in (("aa", "open"), ("bb", "dismissed")):
        (tmp_path / "tasks" / f"{key}.json").write_text(json.dumps({"key": key, "status": status}))
    rows = pd.DataFrame({"key": ["aa", "bb", "cc", "aa"], "status": "completed", "disposition": "saved", "note": "n",
                         "by": "u", "answered_at": [AT, AT, AT, AT + dt.timedelta(days=9)]})
    assert hand_in(tmp_path, rows, AT, AT + dt.timedelta(days=7)) == 1
    assert json.loads((tmp_path / "tasks" / "aa.json").read_text())["disposition"] == "saved"
    assert (tmp_path / "tasks" / "aa.json").stat().st_mtime == AT.timestamp()


def test_a_quarter_past_the_books_end_names_its_mend(played):
    """Before anything is planned."""
    with pytest.raises(DataError, match="Start earlier"):
        play_quarter(played[0], moment("2026-09-01"))
