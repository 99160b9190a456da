"""The main job on third-party data, through workspaces that hold nothing but mappings: `make real`."""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from churnkit import jobs
from churnkit.cutoffs import moment
from churnkit.jobs import setup
from churnkit.jobs.workspace import open_registry, open_store, read, targets
from churnkit.settings import load
from churnkit.signals.points import prediction_points

pytestmark = pytest.mark.realdata  # prints its figures: they stand in the README
HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def made(tmp_path_factory, real_data):
    """A function that lays a workspace from its mapping and runs all of a day's stations in it, once per session."""
    done: dict[str, tuple[Path, jobs.Report]] = {}

    def make(name: str, at: str) -> tuple[Path, jobs.Report]:
        if name not in done:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("CHURNKIT_REAL_DATA", str(real_data.resolve()))
                folder = tmp_path_factory.mktemp(name) / name
                setup.init(folder)
                for file in (HERE / name).glob("*.toml"):
                    shutil.copy(file, folder / file.name)
                logging.getLogger("churnkit").setLevel(logging.INFO)
                done[name] = folder, jobs.run(folder, moment(at))
                show(name, done[name][1])
        return done[name]

    return make


def show(name: str, report: jobs.Report) -> None:
    """Prints the figures that the README quotes."""
    figures = pd.DataFrame(report.data["models"]).T.to_string(header=False)
    sys.stdout.write("\n".join(["", f"== {name}", figures, *report.notes, ""]))


def model(report: jobs.Report, target: str) -> dict:
    """The figures of one target's model."""
    return next(row for row in report.data["models"] if row["target"] == target)


def test_crm6_expansion(made):
    """Upgrades are foreseen on the later period: AUC at least 0.72."""
    _, report = made("crm6", "2023-06-30")
    assert model(report, "expansion")["auc"] >= 0.72


def test_crm6_claims_no_churn_skill_it_cannot_prove(made):
    """Usage says next to nothing of churn there: what the test period does not prove is not claimed, nor acted upon."""
    _, report = made("crm6", "2023-06-30")
    row = model(report, "churn")
    proven = row["auc_lower_99"] > 0.5 and row["log_loss_gain_upper_99"] < 0
    assert (row["skill"] == "proven") == proven
    tasks = [task for task in report.data["plan"]["tasks"]
             if task["target"] == "churn" and task["opened_by"] == "model"]
    assert proven or tasks == []


def test_azure_pdm_failures(made):
    """Failures within 72 hours: AUC at least 0.95 and average precision at least 0.70 on the test months."""
    _, report = made("azure_pdm", "2016-01-01")
    row = model(report, "maintenance")
    assert row["auc"] >= 0.95
    assert row["average_precision"] >= 0.70


def test_ravenstack_is_read_whole_and_its_oddities_are_said(made, real_data, monkeypatch):
    """All five tables are validated, what is odd is reported, and the verdict is honest."""
    monkeypatch.setenv("CHURNKIT_REAL_DATA", str(real_data.resolve()))
    folder, _ = made("ravenstack", "2025-01-01")
    report = jobs.check(folder, moment("2025-01-01"))
    given = {row["table"] for row in report.rows if "table" in row}
    assert {"accounts", "subscriptions", "usage_events", "support_tickets", "record_changes"} <= given
    sys.stdout.write("\n".join([*report.notes, ""]))
    assert load(folder).invalid == "quarantine"


def test_ravenstack_rule_plays(made):
    """Its tickets open rule plays, whatever the models can do."""
    _, report = made("ravenstack", "2025-01-01")
    assert [task for task in report.data["plan"]["tasks"] if task["opened_by"] == "rule"]


def test_socialnet7_each_behaviour_works_in_its_true_direction(made, real_data, monkeypatch):
    """What makes members stay lowers the risk the more of it there is, what makes them leave raises it: by the truth
    file's utilities, the correlation of each behaviour's contribution with its (logarithmic) count.
    """
    monkeypatch.setenv("CHURNKIT_REAL_DATA", str(real_data.resolve()))
    folder, _ = made("socialnet7", "2020-07-01")
    settings = load(folder)
    tables = read(settings, moment("2020-07-01"))
    churn = next(target for target in targets(settings, tables) if target.name == "churn")
    frame = open_store(settings).read(prediction_points(tables, "account", at="2020-07-01"), churn)
    learnt = open_registry(settings).champion("churn").model
    contributions, _ = learnt.contributions(frame)
    utility = yaml.safe_load((real_data / "fightchurn_socialnet7" / "socialnet7.yaml").read_text())["utility"]
    found = {}
    for behaviour in sorted(set(utility) - {"mrr"}):
        columns = [f"event_{behaviour}_28d", f"event_{behaviour}_28d_before"]
        given = contributions[:, [learnt.features.index(column) for column in columns]].sum(axis=1)
        found[behaviour] = float(np.corrcoef(given, np.log1p(frame[columns].sum(axis=1)))[0, 1])
    show_directions(found, utility)
    assert {name: -np.sign(utility[name]) for name in found} == {name: np.sign(one) for name, one in found.items()}


def show_directions(found: dict[str, float], utility: dict[str, float]) -> None:
    """Prints the figures that the README quotes."""
    lines = (f"{name:12}utility {utility[name]:>6}  correlation with risk {one:+.2f}" for name, one in found.items())
    sys.stdout.write("\n".join(["", *lines, ""]))
