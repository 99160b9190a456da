"""The audits on third-party data: silence where the mapping is honest, names where final values stand on every row."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from churnkit.audit.versions import versions
from churnkit.cutoffs import moment
from churnkit.jobs import audits
from churnkit.jobs.report import HELD_BACK
from churnkit.settings import load

pytestmark = pytest.mark.realdata  # prints what each audit looked at
HERE = Path(__file__).parent
SETS = {"ravenstack": "2025-01-01", "azure_pdm": "2016-01-01", "crm6": "2023-06-30", "socialnet7": "2020-07-01"}


@pytest.fixture(autouse=True)
def _data(monkeypatch, real_data):
    """The mappings name their data by this variable; audits write nothing, so that they run where the mappings lie."""
    monkeypatch.setenv("CHURNKIT_REAL_DATA", str(real_data.resolve()))


def show(name, report, begun):
    """Prints what was looked at and found, with the processor's seconds."""
    notes = [note for note in report.notes if " sees " not in note]
    sys.stdout.write("\n".join(["", f"== {name}: {time.process_time() - begun:.0f} s of processor time", *notes, ""]))


def looked(report):
    """What each method looked at."""
    return {one["method"]: one["looked"] for one in report.data["methods"]}


@pytest.mark.parametrize("name", SETS)
def test_no_method_raises_an_alarm(name):
    """Hundreds of points at cutoffs of their own, thousands of labels, every feature alone: no leak."""
    begun = time.process_time()
    report = audits.audit_time(HERE / name, moment(SETS[name]))
    show(name, report, begun)
    assert report.data["leaks"] == 0
    assert report.code == 0
    assert looked(report)["truncation"].startswith(("200 points", "404 points"))
    assert looked(report)["decay"]


@pytest.mark.parametrize("name", SETS)
def test_no_feature_predicts_suspiciously_well(name):
    """Signals of one kind are missing or constant in each of these sets, but none knows an outcome."""
    begun = time.process_time()
    report = audits.audit_features(HERE / name, moment(SETS[name]))
    show(name, report, begun)
    assert [row for row in report.rows if row["suspicion"] == "alone"] == []
    assert report.rows


def test_crm6_finds_the_columns_that_say_the_same_there():
    """No durations and no users by name in the source, and every plan has its seats: copies, and nothing else."""
    report = audits.audit_features(HERE / "crm6", moment(SETS["crm6"]))
    assert "seats" in {row["feature"] for row in report.rows if row["suspicion"] == "copy"}
    assert "segment" in {row["feature"] for row in report.rows if row["suspicion"] == "frozen"}


def test_the_incident_logs_final_values_are_named_and_its_running_ones_are_not():
    """resolved_at, resolved_by, closed_at and closed_code stand on every row, from the first on.

    made_sla, reassignment_count and reopen_count do not: they start at true, 0 and 0 on (all but one of) 24,918 first
    rows and move. They are told of as what an export of last rows would get wrong.
    """
    report = audits.audit_time(HERE / "uci_incident_log", moment("2017-02-19"))
    assert report.code == HELD_BACK
    assert {row["column"] for row in report.rows} == {"resolved_at", "resolved_by", "closed_at", "closed_code"}
    assert {row["method"] for row in report.rows} == {"versions"}
    assert looked(report)["versions"] == "24,918 records of support_tickets that stand in several rows"
    [method] = [one for one in report.data["methods"] if one["method"] == "versions"]
    [hint] = method["hints"]
    assert "reassignment_count (45.6%), reopen_count (1.1%), made_sla (36.6%)" in hint
    assert "incident_state" not in hint
    assert "sys_mod_count" not in hint


def test_the_incident_log_without_its_clock_uses_final_values_at_creation(tmp_path):
    """Mapped without recorded_at, every row counts as known when the incident was opened: all that move are named."""
    text = (HERE / "uci_incident_log" / "churnkit.toml").read_text()
    (tmp_path / "churnkit.toml").write_text(text.replace('recorded_at = "sys_updated_at", ', ""))
    findings = {one.column: one for one in versions(load(tmp_path)).findings}
    assert set(findings) == {"resolved_at", "resolved_by", "closed_at", "closed_code", "reassignment_count"}
    unclocked = findings["reassignment_count"]
    assert (unclocked.then, unclocked.foresight) == ("0", "1")
    assert "Map when each row was written: [tables.support_tickets.columns] recorded_at = 'sys_updated_at'" in (
        unclocked.mend)
    for column in ("made_sla (37%)", "reassignment_count (46%)", "reopen_count (1%)"):
        assert column in unclocked.says
