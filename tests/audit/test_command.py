"""The commands as a user runs them, on a simulated book: silence where all is right, evidence where it is not."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest
from typer.testing import CliRunner

from churnkit.audit.finding import METHODS
from churnkit.cli import app
from churnkit.cutoffs import moment
from churnkit.jobs import audits, setup
from churnkit.jobs.report import HELD_BACK

AT, BEFORE = "2026-11-01", pd.Timestamp("2026-07-15", tz="UTC")
LATER = ("first_replied_at", "escalated_at", "human_requested_at", "reopened_at", "resolved_at", "handed_over_at",
         "rated_at", "paid_at", "closed_at", "retired_at", "left_at")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A simulated workspace."""
    folder = tmp_path_factory.mktemp("audit") / "book"
    setup.simulate(folder, accounts=100, months=14, seed=5)
    return folder


@pytest.fixture(scope="module")
def earlier(workspace, tmp_path_factory):
    """The files that an export in July would have given: rows known by then, without what came later."""
    folder = tmp_path_factory.mktemp("earlier")
    for file in (workspace / "data" / "raw").iterdir():
        rows = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file, dtype=object)
        own = next((name for name in ("recorded_at", "changed_at", "occurred_at", "starts_at") if name in rows), None)
        if own is not None:
            rows = rows[pd.to_datetime(rows[own], utc=True, format="ISO8601") <= BEFORE].copy()
        for name in [name for name in LATER if name in rows]:
            later = pd.to_datetime(rows[name], utc=True, format="ISO8601") > BEFORE
            rows.loc[later, name] = None
            if name == "rated_at":
                rows.loc[later, ["csat", "effort"]] = None
        if "ended_at" in rows:
            told = pd.to_datetime(rows["end_recorded_at"].fillna(rows["ended_at"]), utc=True, format="ISO8601")
            rows.loc[told > BEFORE, ["ended_at", "end_recorded_at"]] = None
        if file.suffix == ".parquet":
            rows.to_parquet(folder / file.name, index=False)
        else:
            rows.to_csv(folder / file.name, index=False)
    return folder


def invoke(*arguments):
    """Exit code and output of a command."""
    result = CliRunner().invoke(app, ["audit", *map(str, arguments)], catch_exceptions=False)
    return result.exit_code, result.output


@pytest.mark.slow
def test_a_clean_book_raises_no_alarm_by_any_method(workspace, earlier):
    """All four methods look, at all features, populations and labels, and none finds anything; nothing is written."""
    stood = sorted(workspace.rglob("*"))
    report = audits.audit_time(workspace, moment(AT), before=earlier, points=60)
    assert report.data["leaks"] == 0, report.notes
    assert report.code == 0
    assert [one["method"] for one in report.data["methods"]] == list(METHODS)
    assert all(one["looked"] for one in report.data["methods"])
    assert sorted(workspace.rglob("*")) == stood


def test_a_leak_ends_with_code_3_and_its_evidence(workspace, tmp_path):
    """Ratings stamped with the opening: table, column, rows and mend, as text and as JSON."""
    shutil.copytree(workspace, tmp_path / "book")
    file = tmp_path / "book" / "data" / "raw" / "support_tickets.csv"
    rows = pd.read_csv(file, dtype=object)
    rows.assign(rated_at=rows["opened_at"].where(rows["rated_at"].notna())).to_csv(file, index=False)
    code, shown = invoke("time", tmp_path / "book", "--at", AT, "--method", "versions")
    assert code == HELD_BACK
    assert "rated_at equals opened_at" in " ".join(shown.split())
    code, shown = invoke("time", tmp_path / "book", "--at", AT, "--method", "versions", "--json")
    [method] = json.loads(shown.splitlines()[-1])["methods"]
    assert code == HELD_BACK
    assert [(one["table"], one["column"]) for one in method["findings"]] == [("support_tickets", "rated_at")]
    assert {"sees", "cannot_see", "looked"} <= set(method)


def test_without_an_earlier_extract_the_method_says_what_it_needs(workspace):
    """It is named as not looked at, which is no leak."""
    code, shown = invoke("time", workspace, "--at", AT, "--method", "extracts")
    assert code == 0
    assert "extracts: not looked at. Give an earlier extract of the same sources: --before FOLDER." in shown


@pytest.mark.parametrize(("arguments", "says"), [
    (("--method", "truncate"), "Did you mean 'truncation'?"), (("--before", "nowhere"), "There is no folder")])
def test_mistakes_are_said_with_their_mend(workspace, arguments, says):
    """An unknown method and a folder that is not there."""
    extra = ("--method", "extracts") if "--before" in arguments else ()
    code, shown = invoke("time", workspace, "--at", AT, *arguments, *extra)
    assert code == 1
    assert says in shown


@pytest.mark.slow
def test_features_are_judged_for_both_entities(workspace):
    """Worst first, a sentence each, and no feature of ours predicts too well."""
    report = audits.audit_features(workspace, moment(AT))
    found = {(row["of"], row["suspicion"]) for row in report.rows}
    assert report.code == 0
    assert {"account", "asset"} == {of for of, _ in found}
    assert {suspicion for _, suspicion in found} <= {"missing", "constant", "copy", "shift", "frozen"}
    assert all(row["says"] for row in report.rows)
    [frozen] = [row for row in report.rows if row["suspicion"] == "frozen" and row["feature"] == "model"]
    assert frozen["of"] == "asset"
