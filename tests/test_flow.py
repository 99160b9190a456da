"""The whole line, end to end, on one small simulated book: what a user runs, run as a user would."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from churnkit import jobs
from churnkit.cli import app
from churnkit.cutoffs import moment
from churnkit.jobs import setup
from churnkit.outreach.outbox import Outbox
from churnkit.schemas import CURVES

AT = "2026-11-01"


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> tuple[Path, jobs.Report]:
    """A small simulated workspace after its first day, and what that day said."""
    folder = tmp_path_factory.mktemp("flow") / "book"
    setup.simulate(folder, accounts=250, months=14, seed=3)
    return folder, jobs.run(folder, moment(AT))


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    return result.exit_code, result.output


def test_the_day_ends_with_tasks_a_person_can_read(done):
    """Each task names its account in words and says what opened it."""
    _, report = done
    tasks = report.data["plan"]["tasks"]
    assert tasks
    for task in tasks:
        assert task["title"]
        assert re.search(r"\nSuggested .*by", task["body"])
        assert len(task["body"].split()) <= 220


def test_every_target_says_what_it_can(done):
    """Each of the three was trained, or says why not; without skill there is no model-driven task."""
    _, report = done
    models = {row["target"]: row for row in report.data["models"]}
    assert set(models) == {"churn", "expansion", "maintenance"}
    unskilled = {name for name, row in models.items() if row["skill"] != "proven"}
    assert [task for task in report.data["plan"]["tasks"]
            if task["opened_by"] == "model" and task["target"] in unskilled] == []


def test_when_stands_beside_whether(done):
    """A trained target with horizons has a curve for everybody it scored, which never falls; unproven ones say so."""
    folder, report = done
    trained = {row["target"]: row for row in report.data["models"] if row.get("curve")}
    assert trained
    notes = " ".join(report.notes)
    for name, row in trained.items():
        [file] = (folder / "state" / "curves" / name).glob("*.parquet")
        curves = pd.read_parquet(file)
        assert list(CURVES) == list(curves.columns)[:len(CURVES)]
        scores = pd.read_parquet(folder / "state" / "scores" / name / file.name)
        assert set(scores["entity_id"]) == set(curves["entity_id"])
        assert [one["horizon_days"] for one in row["curve"]["horizons"]] == sorted(curves["horizon_days"].unique())
        assert (curves.groupby("entity_id")["probability"].diff().dropna() >= 0).all()
        assert (row["curve"]["skill"] == "proven") == bool(curves["skill"].all())
        assert f"{name} curve: " in notes
        if row["curve"]["skill"] != "proven":
            assert f"{name}: the risk curve of {row['version']} has no proven skill." in notes
        assert ("life" in row) == (name == "maintenance")
        if "components" in row:
            parts = pd.read_parquet(folder / "state" / "components" / name / file.name)
            total = parts.groupby(["entity_id", "horizon_days"])["probability"].sum()
            whole = curves.set_index(["entity_id", "horizon_days"])["probability"]
            pd.testing.assert_series_equal(whole.sort_index(), total.sort_index(), check_names=False)
        if "life" in row:
            left = pd.read_parquet(folder / "state" / "lives" / name / file.name)
            assert left["life_days"].between(0, left["cap_days"]).all()
        code, shown = invoke("explain", curves["entity_id"].iloc[0], str(folder), "--at", AT)
        assert code == 0
        assert f"in {curves['horizon_days'].max():g} days" in " ".join(shown.split())


def test_a_second_run_of_the_day_adds_nothing(done):
    """The same day again: no new task, no write in the CRM."""
    folder, _ = done
    outbox = Outbox(f"sqlite:///{folder / 'state' / 'outbox.db'}")
    before = sorted(task.key for task in outbox.tasks())
    again = jobs.run(folder, moment(AT))
    assert again.data["models"] == []
    assert again.data["plan"]["tasks"] == []
    assert again.data["sync"]["created"] == again.data["sync"]["updated"] == 0
    assert sorted(task.key for task in outbox.tasks()) == before


def test_a_dry_plan_changes_nothing(done):
    """`plan --dry-run` reports and leaves the outbox as it is."""
    folder, _ = done
    outbox = Outbox(f"sqlite:///{folder / 'state' / 'outbox.db'}")
    before = [(task.key, task.status) for task in outbox.tasks()]
    jobs.plan(folder, moment(AT), dry_run=True)
    assert [(task.key, task.status) for task in outbox.tasks()] == before


def test_answers_come_home_as_a_raw_table(done):
    """A disposition written into the CRM's file becomes a row of outreach_outcomes."""
    folder, _ = done
    file = min((folder / "crm" / "tasks").glob("*.json"))
    task = json.loads(file.read_text())
    file.write_text(json.dumps({**task, "status": "completed", "disposition": "no_response"}))
    assert invoke("sync", str(folder), "--at", "2026-11-02")[0] == 0
    rows = pd.read_csv(folder / "data" / "raw" / "outreach_outcomes.csv", dtype=str)
    mine = rows[rows["key"] == task["key"]]
    assert mine["disposition"].tolist() == ["no_response"]
    assert mine["account_id"].tolist() == [task["account_id"]]


def test_explain_says_why(done):
    """A scored account's reasons are told in words; an unknown one is an error that says what to run."""
    folder, report = done
    account = report.data["plan"]["tasks"][0]["account_id"]
    code, shown = invoke("explain", account, str(folder), "--at", AT, "--json")
    assert code == 0
    assert {"lowers", "raises"} >= {reason["direction"] for reason in json.loads(shown.splitlines()[-1])["reasons"]}
    code, shown = invoke("explain", "nobody", str(folder), "--at", AT)
    assert code == 1
    assert "churnkit score" in shown


def test_check_gives_a_verdict_per_target(done):
    """Feeds, missing tables and a verdict for each of the three."""
    folder, _ = done
    code, shown = invoke("check", str(folder), "--at", AT, "--json")
    assert code == 0
    verdicts = json.loads(shown.splitlines()[-1])["verdicts"]
    assert [one["target"] for one in verdicts] == ["churn", "expansion", "maintenance"]


def test_doctor_finds_a_healthy_workspace(done):
    """Everything that doctor looks at is well, and an upgrade finds nothing to do."""
    folder, _ = done
    assert invoke("doctor", str(folder))[0] == 0
    assert jobs.setup.upgrade(folder, moment(AT)).notes == ["Everything is up to date."]


def test_the_online_store_answers_after_features(done):
    """`features` brings the newest values of an account into the online store."""
    from churnkit.learning.targets import CHURN
    from churnkit.signals.store import Store

    folder, report = done
    assert invoke("features", str(folder), "--at", AT)[0] == 0
    account = report.data["plan"]["tasks"][0]["account_id"]
    assert Store(folder / "features").online(account, CHURN)["cutoff"] == moment(AT)


def test_a_run_refuses_to_run_beside_itself(done):
    """While one process holds the workspace another ends with code 4 and says so."""
    folder, _ = done
    with jobs.workspace(folder):
        code, shown = invoke("sync", str(folder), "--at", AT)
    assert code == 4
    assert "Wait until it ends" in shown


@pytest.mark.parametrize("script", ["crm_sync.py", "monthly_impact.py"])
def test_a_pipeline_runs_from_the_workspace_twice(done, script):
    """The scripts that `init` lays down run for a workspace and a date, and again."""
    folder, _ = done
    for _ in range(2):
        ended = subprocess.run([sys.executable, f"pipelines/{script}", ".", "--at", AT, "--json"], cwd=folder,
                               capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr


def test_demo_refuses_a_folder_with_other_things(tmp_path):
    """A folder that holds anything but an earlier demo is left alone."""
    (tmp_path / "mine.txt").write_text("mine")
    code, shown = invoke("demo", str(tmp_path))
    assert code == 1
    assert "Name an empty folder" in shown
    assert (tmp_path / "mine.txt").read_text() == "mine"
