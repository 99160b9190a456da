"""From an outbox and the raw tables to the report: each outcome against a plain reading of the tables."""

import datetime as dt
import json

import numpy as np
import pandas as pd
import pytest

from churnkit.errors import OutreachError
from churnkit.jobs import proof, setup
from churnkit.jobs.units import SPAN, by_chance, enrolled_of, units_of
from churnkit.jobs.workspace import open_outbox, read
from churnkit.outreach.control import Rule, draw, tops_of
from churnkit.outreach.impact import ENROLLED, UNITS
from churnkit.outreach.policy import Policy
from churnkit.outreach.task import Task, task_key
from churnkit.settings import load

AT = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
DRAWN = dt.datetime(2025, 12, 1, tzinfo=dt.UTC)
DAY = pd.Timedelta(days=1)


def make(account, play, target, episode, **more):
    return Task(key=task_key(account, play, episode), target=target, play=play, episode=episode, opened_by="model",
                account_id=account, type="call", title="t", body="b", priority="low", due=dt.date(2026, 1, 9),
                owner="o@x.com", **more)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A workspace whose accounts were approached, or kept apart, at one of three dates; and its tables and arms."""
    folder = tmp_path_factory.mktemp("proof") / "book"
    setup.simulate(folder, accounts=350, months=16)
    settings = load(folder)
    tables = read(settings, AT)
    accounts = tables["accounts"].drop_duplicates("account_id", keep="last")
    accounts = accounts.assign(top=accounts["parent_account_id"].fillna(accounts["account_id"]), value=1000.0)
    arms = draw(tops_of(accounts), Rule(0.3), at=DRAWN)
    held = set(arms["top"][arms["arm"] == "control"])
    rng = np.random.default_rng(3)
    tasks = []
    for account, top in zip(accounts["account_id"], accounts["top"], strict=True):
        for play, target in (("save_call", "churn"), ("expand_talk", "expansion"), ("answer_person", "churn")):
            if rng.random() < 0.5:
                tasks.append(make(account, play, target, str(rng.choice(["2026-01-05", "2026-03-02", "2026-09-28"])),
                                  score=float(rng.uniform(0.2, 0.6)), value=5000.0, ghost=top in held))
    for asset, account in tables["assets"][["asset_id", "account_id"]].drop_duplicates("asset_id").head(120).to_numpy():
        top = accounts.set_index("account_id")["top"].get(account, account)
        tasks.append(make(account, "service_visit", "maintenance", "2026-03-02", score=0.4, asset_ids=(asset,),
                          ghost=top in held))
    settings.state.mkdir(parents=True, exist_ok=True)
    outbox = open_outbox(settings)
    outbox.put({task.key: task for task in tasks}.values(), at=DRAWN)
    return settings, tables, arms, accounts


@pytest.fixture(scope="module")
def units(home):
    settings, tables, arms, _ = home
    found = units_of(tables, open_outbox(settings).tasks(), arms, Policy.default().plays, AT)
    assert list(found.columns) == list(UNITS)
    return found


def account_of(home, units):
    """Each unit's account, found by its top and trigger among the tasks."""
    top, found = home[3].set_index("account_id")["top"], {}
    for task in open_outbox(home[0]).tasks():  # by account
        found.setdefault((top[task.account_id], task.play, task.episode), task)
    return found, top


def test_a_customer_has_one_row_per_play_at_its_first_trigger(home, units):
    """And one over all plays; what is always done is not measured, since nobody is kept apart from it."""
    assert not units.duplicated(["top", "play"]).any()
    assert set(units["play"]) == {"", "save_call", "expand_talk", "service_visit"}
    first = units[units["play"] != ""].groupby("top")["triggered_at"].min()
    whole = units[units["play"] == ""].set_index("top")["triggered_at"]
    pd.testing.assert_series_equal(first.sort_index(), whole.sort_index(), check_names=False)
    arms = home[2].set_index("top")["arm"]
    assert (units["arm"].to_numpy() == arms[units["top"]].to_numpy()).all()


def test_who_left_is_read_off_the_subscriptions(home, units):
    """A plain loop: the last active subscription ends within the span after the trigger, and none follows."""
    tasks, _ = account_of(home, units)
    subscriptions = home[1]["subscriptions"]
    newest = subscriptions.sort_values("known_at").drop_duplicates(["account_id", "subscription_id", "started_at"],
                                                                   keep="last")
    checked, left = 0, 0
    for unit in units[(units["play"] == "save_call") & units["churned"].notna()].itertuples():
        rows = newest[newest["account_id"] == tasks[unit.top, unit.play, f"{unit.triggered_at:%Y-%m-%d}"].account_id]
        ends = rows["ended_at"].where(rows["ended_at"] <= AT).fillna(pd.Timestamp(AT) + 999 * DAY)
        gone = ends.max() < unit.triggered_at + SPAN
        assert unit.churned == float(gone), unit
        checked, left = checked + 1, left + gone
    assert checked > 50
    assert left > 1
    recent = units["triggered_at"] > pd.Timestamp(AT) - SPAN
    assert recent.any()
    assert units.loc[recent, ["churned", "expanded", "mrr", "mrr_kept", "csat"]].isna().all(axis=None)


def test_mrr_is_what_was_paid_before_and_after(home, units):
    """By a loop over subscriptions as they were known at each moment; who has left pays nothing."""
    tasks, _ = account_of(home, units)
    subscriptions = home[1]["subscriptions"]

    def paid(account, moment):
        rows = subscriptions[(subscriptions["account_id"] == account) & (subscriptions["known_at"] <= moment)
                             & (subscriptions["started_at"] < moment)]
        rows = rows.sort_values("known_at").drop_duplicates(["subscription_id", "started_at"], keep="last")
        told = rows["end_recorded_at"].fillna(rows["ended_at"])
        over = (rows["ended_at"] < moment) & (told < moment)
        return rows["mrr"][~over].sum()

    some = units[(units["play"] == "save_call") & units["mrr"].notna()].head(60)
    assert len(some) == 60
    for unit in some.itertuples():
        account = tasks[unit.top, unit.play, f"{unit.triggered_at:%Y-%m-%d}"].account_id
        assert unit.mrr_before == pytest.approx(paid(account, unit.triggered_at))
        assert unit.mrr == pytest.approx(paid(account, unit.triggered_at + SPAN))
        assert unit.mrr_kept == pytest.approx(unit.mrr / unit.mrr_before)


def test_touches_and_ratings_fall_inside_the_span(home, units):
    """Outbound and by a person; ratings by their mean."""
    tasks, _ = account_of(home, units)
    touches, tickets = home[1]["touches"], home[1]["support_tickets"].drop_duplicates("ticket_id", keep="last")
    seen = set()
    for unit in units[units["play"] == "expand_talk"].head(150).itertuples():
        account, end = tasks[unit.top, unit.play, f"{unit.triggered_at:%Y-%m-%d}"].account_id, unit.triggered_at + SPAN
        mine = touches[(touches["account_id"] == account) & (touches["direction"] == "outbound")
                       & ~touches["by"].isin(["automation", "bot"])]["occurred_at"]
        assert unit.touched == ((mine > unit.triggered_at) & (mine <= end)).any()
        rated = tickets[(tickets["account_id"] == account) & (tickets["rated_at"] > unit.triggered_at)
                        & (tickets["rated_at"] <= end)]["csat"].dropna()
        if end <= AT and len(rated):
            assert unit.csat == pytest.approx(rated.mean())
        seen.add(bool(unit.touched))
    assert seen == {True, False}


def test_failures_are_those_of_the_tasks_equipment(home, units):
    """Within a week of the trigger."""
    tasks, _ = account_of(home, units)
    events = home[1]["asset_events"].query("kind == 'failure'")
    rows = units[(units["play"] == "service_visit") & units["failures"].notna()]
    assert len(rows) > 20
    for unit in rows.itertuples():
        asset = tasks[unit.top, unit.play, "2026-03-02"].asset_ids[0]
        at = events[events["asset_id"] == asset]["occurred_at"]
        assert unit.failures == ((at >= unit.triggered_at) & (at < unit.triggered_at + 7 * DAY)).any()


def test_everybody_that_was_drawn_is_followed_until_now(home):
    """Intention to treat: with or without a task."""
    settings, tables, arms, _ = home
    found = enrolled_of(settings, tables, arms, AT).set_index("top")
    assert list(found.reset_index().columns) == list(ENROLLED)
    assert set(found.index) == set(arms["top"])
    assert found["churned"].notna().sum() > 100
    assert 0.05 < found["churned"].mean() < 0.5


def test_the_report_speaks_keeps_effects_and_draws(home):
    """Words, rows, a plot, and the effects that the next plan reads, as plain JSON."""
    settings, tables, arms, _ = home
    report = proof.impact(settings, tables, AT, arms)
    assert any(text.startswith("save_call: of ") for text in report.texts)
    assert any(text.startswith("everybody: of ") for text in report.texts)
    assert {"of", "difference", "at any look", "says"} <= set(report.rows[0])
    json.dumps(report.data, allow_nan=False)
    assert (settings.state / "impact.svg").read_text().startswith("<?xml")
    effects = proof.load_effects(settings)
    assert {"save_call", "payment"} <= set(effects["play"])
    assert "answer_person" not in set(effects["play"])
    assert effects.query("play == 'payment' and cause == ''")["effect"].item() == pytest.approx(0.30)
    (settings.state / "effects.json").write_text("{}")
    with pytest.raises(OutreachError, match="churnkit impact"):
        proof.load_effects(settings)


def test_without_a_control_group_the_report_says_so(home):
    """And still counts the tasks."""
    settings, tables, arms, _ = home
    report = proof.impact(settings, tables, AT, arms[:0])
    assert "share = 0.1" in report.notes[0]
    assert report.rows[0]["tasks"] > 0


def test_who_was_drawn_while_nobody_was_kept_apart_is_left_out():
    """A share of 0 makes no experiment, and neither does the reserve."""
    arms = pd.DataFrame({"top": list("ABCD"), "arm": ["treated", "treated", "reserve", "control"],
                         "propensity": [0.0, 0.1, 0.0, 0.1]})
    assert list(by_chance(arms)["top"]) == ["B", "D"]
