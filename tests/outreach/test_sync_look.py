"""What was sent and is missing: a person's deletion, a restored backup, a lost ledger."""

import datetime as dt
from copy import deepcopy

import pytest
from small_clock import Clock
from small_crm import remove, sent
from small_tasks import AT, task

from churnkit.errors import OutreachError
from churnkit.outreach.crm.base import Capabilities
from churnkit.outreach.crm.memory import MemoryCrm
from churnkit.outreach.outbox import Outbox
from churnkit.outreach.repair import rebuild, repair
from churnkit.outreach.status import status
from churnkit.outreach.sync import sync

HOUR = dt.timedelta(hours=1)


@pytest.fixture
def clock():
    return Clock()


def test_a_deletion_is_respected_and_recorded(outbox, clock):
    """One missing task is dismissed by its person, told once, and never made again, whatever the plan says later."""
    crm = sent(outbox, clock, 8)
    remove(crm, 3)
    outbox.put([task(3, body="Why: worse.")], at=AT + HOUR)
    report = sync(outbox, crm, at=AT + HOUR, clock=clock)
    assert (report.gone, report.writes, report.problems) == (1, 0, [])
    [outcome] = outbox.outcomes()
    assert (outcome.key, outcome.status, outcome.note) == (task(3).key, "dismissed", "deleted in the CRM")
    assert outbox.put([task(3, body="Why: still worse.")], at=AT + HOUR).closed == 1
    again = sync(outbox, crm, at=AT + 2 * HOUR, clock=clock)
    assert (again.gone, again.writes, len(outbox.outcomes()), outbox.pending()) == (0, 0, 1, [])
    assert task(3).key not in {one.key for one in crm.tasks}
    assert outbox.check_audit().wrong == {}


@pytest.mark.parametrize(("open_", "missing", "held"), [(8, 5, False), (8, 6, True), (300, 6, False), (300, 7, True)])
def test_many_missing_at_once_are_a_backup(outbox, clock, open_, missing, held):
    """More than five and more than 2% of the open tasks: nothing is written, nothing taken over, the run says so."""
    crm = sent(outbox, clock, open_, batch=50)
    remove(crm, *range(missing))
    outbox.put([task(open_ + 1)], at=AT + HOUR)
    report = sync(outbox, crm, at=AT + HOUR, clock=clock)
    assert (report.gone, report.created) == ((0, 0) if held else (missing, 1))
    assert bool(report.problems) is held
    assert bool(status(outbox, "memory", AT).held) is held
    assert len(outbox.outcomes()) == (0 if held else missing)


def test_repair_makes_again_what_is_missing(outbox, clock):
    """After a restored backup each task is there once, people's fields as they had them, and the next run is silent."""
    crm = sent(outbox, clock, 20)
    yesterday = deepcopy(crm.__dict__)
    outbox.put([task(n) for n in range(20, 30)], at=AT + HOUR)
    outbox.put([task(1, body="Why: worse.")], at=AT + HOUR)
    sync(outbox, crm, at=AT + HOUR, clock=clock)
    crm.person(task(25).key, AT + HOUR, owner="eve@us.example", due=dt.date(2026, 12, 1))
    crm.person(task(26).key, AT + HOUR, status="in_progress")
    crm.person(task(2).key, AT + HOUR, status="completed", disposition="saved")
    sync(outbox, crm, at=AT + 2 * HOUR, clock=clock)
    crm.__dict__.update(yesterday)
    held = sync(outbox, crm, at=AT + 3 * HOUR, clock=clock)
    assert (held.writes, held.answers, held.edits) == (0, 0, 0)
    assert "10 of the 29 open tasks are missing at once" in held.problems[0]
    mended = repair(outbox, crm, at=AT + 4 * HOUR, by="ada", clock=clock)
    assert (mended.again, mended.close, mended.update) == (10, 1, 1)
    after = sync(outbox, crm, at=AT + 4 * HOUR, clock=clock)
    assert (after.created, after.closed, after.updated, after.answers, after.problems) == (10, 1, 1, 0, [])
    assert sorted(one.key for one in crm.tasks) == sorted(task(n).key for n in range(30))
    there = {one.key: one for one in crm.tasks}
    assert (there[task(25).key].owner, there[task(25).key].due) == ("eve@us.example", dt.date(2026, 12, 1))
    assert there[task(2).key].status == "dismissed"
    assert crm.bodies[task(1).key] == "Why: worse."
    held_by = {one.key: one for one in outbox.tasks()}
    assert (held_by[task(2).key].status, held_by[task(26).key].status) == ("completed", "in_progress")
    again = sync(outbox, crm, at=AT + 5 * HOUR, clock=clock)
    assert (again.writes, again.answers, again.edits, again.problems) == (0, 0, 0, [])
    assert len(outbox.outcomes()) == 2
    assert outbox.check_audit().wrong == {}


def test_a_change_that_is_undone_is_a_backup(outbox, clock):
    """Where nothing is missing, the newest change going backwards tells it."""
    crm = sent(outbox, clock, 8)
    crm.person(task(1).key, AT, note="called")
    sync(outbox, crm, at=AT, clock=clock)
    yesterday = deepcopy(crm.held)
    crm.person(task(1).key, AT + HOUR, note="called twice")
    sync(outbox, crm, at=AT + HOUR, clock=clock)
    crm.held = yesterday
    report = sync(outbox, crm, at=AT + 2 * HOUR, clock=clock)
    assert "1 of the newest changes are undone" in report.problems[0]
    assert outbox.tasks(account_id="A01")[0].status == "open"
    repair(outbox, crm, at=AT + 3 * HOUR, by="ada", clock=clock)
    assert sync(outbox, crm, at=AT + 3 * HOUR, clock=clock).problems == []


@pytest.mark.parametrize("undone", range(8))
def test_every_witness_is_asked_for(outbox, clock, undone):
    """Closed tasks are looked for by the newest changes alone, however few a CRM tells at once."""
    crm = sent(outbox, clock, 8, batch=3)
    for n in range(8):
        crm.person(task(n).key, AT + HOUR, status="completed", disposition="saved")
    sync(outbox, crm, at=AT + HOUR, clock=clock)
    crm.person(task(undone).key, AT, note="as it was yesterday")
    report = sync(outbox, crm, at=AT + 2 * HOUR, clock=clock)
    assert "1 of the newest changes are undone" in report.problems[0]


def test_deleted_on_purpose(outbox, clock):
    """Many deleted by hand: a person says so, and they are dismissed."""
    crm = sent(outbox, clock, 8)
    remove(crm, *range(7))
    sync(outbox, crm, at=AT + HOUR, clock=clock)
    assert repair(outbox, crm, at=AT + HOUR, by="ada", deleted=True, clock=clock).deleted == 7
    report = sync(outbox, crm, at=AT + 2 * HOUR, clock=clock)
    assert (report.writes, report.problems, len(outbox.outcomes())) == (0, [], 7)


def test_a_hold_ends_by_itself(outbox, clock):
    """Where the CRM is whole again, nothing is held any more."""
    crm = sent(outbox, clock, 8)
    whole = deepcopy(crm.__dict__)
    remove(crm, *range(7))
    sync(outbox, crm, at=AT + HOUR, clock=clock)
    crm.__dict__.update(whole)
    assert sync(outbox, crm, at=AT + 2 * HOUR, clock=clock).problems == []
    assert status(outbox, "memory", AT).held is None


def test_a_late_index_is_no_deletion(outbox, clock):
    """A CRM that shows new tasks late is given its time before one counts as deleted."""
    crm = sent(outbox, clock, 3, lag=HOUR)
    remove(crm, 1)
    assert sync(outbox, crm, at=AT, clock=clock).gone == 0
    clock.time += HOUR / 2
    assert sync(outbox, crm, at=AT, clock=clock).gone == 0
    clock.time += HOUR / 2
    assert sync(outbox, crm, at=AT, clock=clock).gone == 1


def test_a_lost_ledger_is_made_anew(outbox, clock, tmp_path):
    """By key, from the CRM: the tasks as they are, answers once, nothing sent twice, and the audit tells of it."""
    crm = sent(outbox, clock, 6)
    crm.person(task(2).key, AT + HOUR, status="completed", disposition="do_not_contact", note="they asked")
    crm.person(task(3).key, AT + HOUR, owner="eve@us.example")
    crm.tasks  # noqa: B018 - as it stands
    crm.held["odd"] = deepcopy(next(iter(crm.held.values()))).__class__("ff" * 20, "odd", "1")
    new = Outbox(tmp_path / "new.db")
    done = rebuild(new, crm, at=AT + 2 * HOUR, by="ada", clock=clock)
    assert (done.rebuilt, done.strange) == (6, ["ff" * 20])
    assert rebuild(new, crm, at=AT + 2 * HOUR, by="ada", clock=clock).rebuilt == 0
    report = sync(new, crm, at=AT + 2 * HOUR, clock=clock)
    assert (report.writes, report.answers, report.edits) == (0, 1, 1)
    told = {one.key: one for one in new.tasks()}
    assert {key: one.content_hash() for key, one in told.items() if key != task(3).key} == {
        task(n).key: task(n).content_hash() for n in range(6) if n != 3}
    assert (told[task(2).key].status, told[task(3).key].owner) == ("completed", "eve@us.example")
    assert new.suppressed(AT + 2 * HOUR) == {"A02": "do_not_contact"}
    assert new.put([task(n) for n in range(6)], at=AT + 2 * HOUR).new == 0
    assert sync(new, crm, at=AT + 3 * HOUR, clock=clock).writes == 0
    assert new.check_audit().wrong == {}
    new.close()


def test_what_cannot_be_read_back(outbox):
    """A CRM that nobody can ask says so."""
    with pytest.raises(OutreachError, match="Restore the outbox from a backup"):
        rebuild(outbox, MemoryCrm(Capabilities(finds=False)), at=AT, by="ada")
