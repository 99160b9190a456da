"""What the sync says of itself: its last run, its lag, its backlog; a run's recall; and the portal that is meant."""

import datetime as dt
import json

import pytest
from small_clock import Clock
from small_tasks import AT, task
from typer.testing import CliRunner

from churnkit import cli
from churnkit.errors import OutreachError, SettingsError
from churnkit.jobs import setup
from churnkit.jobs.workspace import open_outbox
from churnkit.outreach.crm.base import connect
from churnkit.outreach.crm.memory import MemoryCrm
from churnkit.outreach.status import Rules, status
from churnkit.outreach.sync import sync
from churnkit.settings import load

HOUR = dt.timedelta(hours=1)


@pytest.mark.parametrize(("ago", "late"), [(0.5, False), (1.4, False), (1.6, True), (48, True)])
def test_late_against_the_schedule(outbox, ago, late):
    """A run that was due and did not come is late; the lag is the time since the last whole run began."""
    sync(outbox, MemoryCrm(), at=AT, clock=Clock())
    found = status(outbox, "memory", AT + ago * HOUR, HOUR)
    assert (found.late, found.lag_seconds) == (late, ago * 3600)
    assert ("LATE" in " ".join(found.sentences())) is late


def test_a_sync_that_never_ran_is_late(outbox):
    """Where there is a schedule; where there is none, nothing is late."""
    assert status(outbox, "memory", AT, HOUR).late
    assert not status(outbox, "memory", AT).late


def test_a_run_that_was_cut_short_is_not_whole(outbox):
    """A CRM that is down for a day makes the sync late, though it ran; what waits is counted by its state."""
    clock, crm = Clock(), MemoryCrm(faults=["down"] * 4)
    sync(outbox, crm, at=AT, clock=clock)
    outbox.put([task(n) for n in range(3)], at=AT)
    clock.time = AT + 24 * HOUR
    sync(outbox, crm, at=AT + 24 * HOUR, clock=clock)
    found = status(outbox, "memory", clock.time, HOUR)
    assert found.late
    assert (found.backlog, found.dead) == ({"pending": 3}, 0)
    assert found.ran[:10] == "2026-11-02"
    assert found.whole[:10] == found.oldest[:10] == "2026-11-01"


def test_dead_letters_are_counted(outbox):
    """They wait for a person, not for a run."""
    outbox.put([task(0), task(1)], at=AT)
    sync(outbox, MemoryCrm(poison={task(0).key}), at=AT, clock=Clock())
    found = status(outbox, "memory", AT, HOUR)
    assert (found.backlog, found.dead) == ({}, 1)


def test_another_portal_is_never_written_to(outbox):
    """The portal that is named, and no other; refused before the first write, and without a note of a whole run."""
    outbox.put([task(0)], at=AT)
    crm = MemoryCrm()
    crm.portal = "4711"
    with pytest.raises(OutreachError, match=r"portal names '815'.*nothing was written"):
        sync(outbox, crm, at=AT, clock=Clock(), rules=Rules.of({"portal": "815"}))
    with pytest.raises(OutreachError, match="portal names '711'"):
        sync(outbox, crm, at=AT, clock=Clock(), rules=Rules("711"))
    assert (crm.tasks, status(outbox, "memory", AT).ran) == ([], None)
    assert sync(outbox, crm, at=AT, clock=Clock(), rules=Rules("4711")).created == 1


def test_the_syncs_options_are_not_the_connectors(tmp_path):
    """`portal` and `every` stand beside the connector's own options; a wrong span is named."""
    assert connect("files", {"folder": "out", "portal": "x", "every": "1h"}, tmp_path).folder == tmp_path / "out"
    assert Rules.of({"every": "1h"}).every == HOUR
    with pytest.raises(SettingsError, match=r"\[crm_options\] every"):
        Rules.of({"every": "soon"})


def test_the_commands(tmp_path):
    """Status ends with 3 where the sync is late, and recall closes a run's tasks in the CRM too."""
    setup.init(tmp_path)
    (tmp_path / "state").mkdir()
    box, folder = open_outbox(load(tmp_path)), str(tmp_path)
    box.put([task(0), task(1)], at=AT, run="plan 2026-11-01")

    def call(*words):
        done = CliRunner().invoke(cli.app, ["sync", *words])
        return done.exit_code, done.stdout + done.stderr

    assert call("status", folder, "--every", "1h")[0] == 3
    assert call(folder, "--at", "2026-11-02")[0] == 0
    code, said = call("status", folder, "--every", "1h", "--json")
    assert (code, json.loads(said)["late"], json.loads(said)["backlog"]) == (0, False, {})
    assert "Did you mean 'plan 2026-11-01'?" in call("recall", folder, "--run", "plan 2026-11-02", "--by", "ada")[1]
    assert "2 closed" in call("recall", folder, "--run", "plan 2026-11-01", "--by", "ada")[1]
    assert "2 closed" in call(folder, "--at", "2026-11-03")[1]
    files = (tmp_path / "crm" / "tasks").glob("*.json")
    assert {json.loads(file.read_text())["status"] for file in files} == {"dismissed"}
    assert {row["actor"] for row in box.audit(task(0).key) if row["what"] == "close"} == {"ada"}
    box.close()
