"""A CRM that cannot be asked for its tasks: doubts are sent again, deletions and answers come by themselves."""

import datetime as dt

import pytest
from small_clock import Clock
from small_tasks import AT, task

from churnkit.outreach.crm.base import Capabilities, CrmDownError, Result
from churnkit.outreach.crm.memory import MemoryCrm
from churnkit.outreach.sync import sync

HOUR = dt.timedelta(hours=1)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def crm():
    """It takes a create that comes twice for one."""
    blind = MemoryCrm(Capabilities(unique_keys=True, upsert=True, finds=False, returns_ids=False))
    blind.find = None  # whoever asks it fails
    return blind


@pytest.mark.parametrize("fault", ["dropped", "lost", "half"])
def test_a_doubt_is_sent_again(outbox, clock, crm, fault):
    """Without a look-up, and each task is there once."""
    crm.faults = [fault]
    outbox.put([task(n) for n in range(4)], at=AT)
    sync(outbox, crm, at=AT, clock=clock)
    assert sorted(one.key for one in crm.tasks) == sorted(task(n).key for n in range(4))
    assert sync(outbox, crm, at=AT, clock=clock).writes == 0
    assert outbox.check_audit().wrong == {}


def test_what_is_gone_is_told_by_the_write(outbox, clock, crm):
    """Nobody can look: the reply to an update is what tells of a deletion."""
    outbox.put([task(0), task(1)], at=AT)
    sync(outbox, crm, at=AT, clock=clock)
    crm.remove(["r1"])
    outbox.put([task(0, body="Why: worse.")], at=AT + HOUR)
    assert sync(outbox, crm, at=AT + HOUR, clock=clock).gone == 1
    [outcome] = outbox.outcomes()
    assert (outcome.key, outcome.status, outcome.note) == (task(0).key, "dismissed", "deleted in the CRM")
    again = sync(outbox, crm, at=AT + 2 * HOUR, clock=clock)
    assert (again.writes, again.gone, outbox.pending()) == (0, 0, [])
    assert outbox.check_audit().wrong == {}


@pytest.mark.parametrize("why", ["closed", "suppressed"])
def test_what_may_have_arrived_is_closed_there(outbox, clock, crm, why):
    """A create in doubt of a task that is stopped meanwhile may stand there open: so the close is sent."""
    crm.faults = ["lost", "quota"]
    outbox.put([task(0)], at=AT)
    sync(outbox, crm, at=AT, clock=clock)
    assert [one.status for one in crm.tasks] == ["open"]
    assert outbox.waiting() == 1
    clock.time += 24 * HOUR
    if why == "closed":
        outbox.close_tasks([task(0).key], AT + HOUR)
    else:
        outbox.suppress("A00", "they asked", AT + HOUR)
    crm.faults = []
    sync(outbox, crm, at=AT + 2 * HOUR, clock=clock)
    assert [one.status for one in crm.tasks] == ["dismissed"]
    assert (outbox.tasks()[0].status, outbox.pending()) == ("dismissed", [])
    assert sync(outbox, crm, at=AT + 3 * HOUR, clock=clock).writes == 0
    assert outbox.check_audit().wrong == {}


def test_answers_come_while_it_is_left_alone(outbox, clock, crm):
    """A consumer that failed is left alone for hours; do_not_contact counts at once all the same."""
    outbox.put([task(0)], at=AT)
    sync(outbox, crm, at=AT, clock=clock)
    crm.person(task(0).key, AT + HOUR, status="completed", disposition="do_not_contact")

    def down(_):
        raise CrmDownError("it failed", wait=9 * 3600.0)

    outbox.put([task(1)], at=AT + HOUR)
    write, crm.write = crm.write, down
    sync(outbox, crm, at=AT + HOUR, clock=clock)
    crm.write = write
    crm.person(task(0).key, AT + 2 * HOUR, note="again")
    report = sync(outbox, crm, at=AT + 2 * HOUR, clock=clock)
    assert (report.answers, report.writes, "left alone until" in report.problems[0]) == (1, 0, True)
    assert outbox.suppressed(AT + 2 * HOUR) == {"A00": "do_not_contact"}


def test_what_was_not_sent_is_no_attempt(outbox, clock, crm):
    """Rows behind one that fails wait as long as it takes, and are never given up."""
    write = crm.write
    crm.write = lambda items: [Result(items[0].task.key, "doubt"), *(Result(one.task.key, "unsent")
                                                                    for one in items[1:])]
    outbox.put([task(n) for n in range(3)], at=AT)
    for _ in range(4):
        sync(outbox, crm, at=AT, clock=clock)
    assert sorted(entry.attempts for entry in outbox.pending())[:2] == [0, 0]
    crm.write = write
    assert sync(outbox, crm, at=AT, clock=clock).created >= 2
