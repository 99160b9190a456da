"""Dead letters: listed with their reason, sent again or dropped by a person, and audited."""

import datetime as dt
import json

import pytest
from small_clock import Clock
from small_tasks import AT, task
from typer.testing import CliRunner

from churnkit import cli
from churnkit.errors import OutreachError
from churnkit.jobs import setup
from churnkit.jobs.workspace import open_outbox
from churnkit.outreach import dead
from churnkit.outreach.crm.base import Capabilities
from churnkit.outreach.crm.memory import MemoryCrm
from churnkit.outreach.sync import sync
from churnkit.settings import load

LATER = AT + dt.timedelta(days=1)


@pytest.fixture
def crm():
    return MemoryCrm(Capabilities(batch=4), poison={task(1).key, task(3).key})


def test_a_refused_task_waits_for_a_person(outbox, crm):
    """It is listed with the CRM's reason, no run tries it again, and once it is put back it is sent."""
    outbox.put([task(n) for n in range(5)], at=AT)
    sync(outbox, crm, at=AT, clock=Clock())
    assert [(one.key, one.why, one.state) for one in dead.letters(outbox)] == [
        (task(n).key, "not valid", "rejected") for n in (1, 3)]
    crm.poison = set()
    assert sync(outbox, crm, at=AT, clock=Clock()).writes == 0
    assert dead.retry(outbox, [task(1).key], "ada", LATER) == [task(1).key]
    assert [one.key for one in dead.letters(outbox)] == [task(3).key]
    assert sync(outbox, crm, at=LATER, clock=Clock()).created == 1
    assert outbox.audit(task(1).key)[-3]["what"] == "retry"
    assert outbox.audit(task(1).key)[-3]["actor"] == "ada"
    assert outbox.check_audit().wrong == {}


def test_a_dropped_task_is_closed(outbox, crm):
    """What never came into the CRM is closed with the reason; it is not listed any more and never sent."""
    outbox.put([task(n) for n in range(2)], at=AT)
    sync(outbox, crm, at=AT, clock=Clock())
    dead.drop(outbox, [task(1).key], "ada", "a test account", LATER)
    crm.poison = set()
    assert dead.letters(outbox) == []
    assert outbox.stages()[task(1).key] == "dismissed"
    assert sync(outbox, crm, at=LATER, clock=Clock()).writes == 0
    assert outbox.audit(task(1).key)[-1]["after"]["why"] == "dropped by ada: a test account"
    assert outbox.check_audit().wrong == {}


def test_a_dropped_update_leaves_the_task(outbox, crm):
    """A task that is in the CRM stays there and open, without the write that was refused."""
    crm.poison = set()
    outbox.put([task(0)], at=AT)
    sync(outbox, crm, at=AT, clock=Clock())
    crm.poison = {task(0).key}
    outbox.put([task(0, body="Why: more.")], at=LATER)
    sync(outbox, crm, at=LATER, clock=Clock())
    assert [(one.action, one.there) for one in dead.letters(outbox)] == [("update", True)]
    dead.drop(outbox, [task(0).key], "ada", "as it is", LATER)
    assert dead.letters(outbox) == []
    assert outbox.stages()[task(0).key] == "synced"
    assert outbox.check_audit().wrong == {}


def test_a_replaced_or_closed_letter_is_none(outbox, crm):
    """New content takes a refused write's place; a task that the plan closed is nobody's business any more."""
    outbox.put([task(1), task(3)], at=AT)
    sync(outbox, crm, at=AT, clock=Clock())
    outbox.put([task(1, body="Why: more.")], at=LATER)
    outbox.close_tasks([task(3).key], at=LATER)
    assert dead.letters(outbox) == []
    with pytest.raises(OutreachError, match="churnkit sync dead list"):
        dead.retry(outbox, [task(1).key], "ada", LATER)


def test_withheld_tasks_are_no_letters(outbox, crm):
    """What was rightly not sent needs nobody."""
    outbox.put([task(0)], at=AT)
    outbox.suppress("A00", "asked for it", AT)
    assert sync(outbox, crm, at=LATER, clock=Clock()).withheld == 1
    assert dead.letters(outbox) == []


def test_the_commands(tmp_path):
    """List, retry and drop by the beginning of a key; a wrong one is told; the bare form still syncs."""
    setup.init(tmp_path)
    (tmp_path / "state").mkdir()
    box = open_outbox(load(tmp_path))
    box.put([task(n) for n in range(3)], at=AT)
    bad = MemoryCrm(poison={task(n).key for n in range(3)})
    bad.name = "files"
    sync(box, bad, at=AT, clock=Clock())

    def call(*words):
        done = CliRunner().invoke(cli.app, ["sync", *words])
        return done.exit_code, done.stdout + done.stderr

    folder = str(tmp_path)
    code, said = call("dead", "list", folder, "--json")
    assert (code, [one["why"] for one in json.loads(said)["letters"]]) == (0, ["not valid"] * 3)
    assert call("dead", "drop", folder, "--key", task(0).key[:8], "--by", "ada", "--why", "test")[0] == 0
    assert "'zz'" in call("dead", "retry", folder, "--key", "zz", "--by", "ada")[1]
    assert call("dead", "retry", folder, "--by", "ada")[0] == 0
    assert "2 created" in call(folder, "--at", "2026-11-02")[1]
    assert "Dead letters: 0" in call("dead", "list", folder)[1]
    box.close()
