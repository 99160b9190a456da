"""What an enemy of the sync thinks of: commands between two runs, mending broken off, ledgers and portals exchanged."""

import datetime as dt
import sqlite3
from contextlib import closing
from copy import deepcopy
from dataclasses import replace

import pytest
import sqlalchemy as sa
from small_clock import Clock
from small_crm import remove, sent
from small_tasks import AT, task

from churnkit.errors import OutreachError
from churnkit.outreach.crm.base import Capabilities, CrmDownError, CrmRefusedError, Page, Rate
from churnkit.outreach.crm.memory import MemoryCrm
from churnkit.outreach.ledger import stamp
from churnkit.outreach.outbox import Outbox
from churnkit.outreach.repair import rebuild, repair
from churnkit.outreach.status import Rules, status
from churnkit.outreach.sync import sync

HOUR = dt.timedelta(hours=1)


@pytest.fixture
def clock():
    return Clock()


def test_a_word_of_this_afternoon_counts(outbox, clock):
    """The sync's moment is this morning; do_not_contact was said here since then, and nothing is sent all the same."""
    outbox.put([task(0), task(0, key="ab" * 20)], at=AT)
    clock.time = AT + 9 * HOUR
    outbox.finish(task(0).key, status="dismissed", by="ada", at=AT + 8 * HOUR, disposition="do_not_contact")
    crm = MemoryCrm()
    shown = sync(outbox, crm, at=AT, clock=clock, dry_run=True).differences
    assert [row["action"] for row in shown if row["key"] == "ab" * 20] == ["withhold"]
    assert sync(outbox, crm, at=AT, clock=clock).withheld == 1
    assert crm.tasks == []


def test_a_snoozed_task_that_may_not_be_sent_stops_nobody(outbox, clock):
    """A task that sleeps before it was sent, of an account that is left in peace: it is withheld, the others go."""
    outbox.put([task(0), task(1)], at=AT)
    outbox.snooze(task(0).key, AT + 240 * HOUR, "on holiday", "ada", AT)
    outbox.suppress("A00", "they asked", AT)
    crm = MemoryCrm()
    report = sync(outbox, crm, at=AT, clock=clock)
    assert (report.withheld, report.created) == (1, 1)
    assert outbox.check_audit().wrong == {}


def test_a_repair_broken_off_deletes_nothing(outbox, clock):
    """The CRM goes down in mid-repair: what it had not come to is no person's deletion, and a second repair ends it."""
    crm = sent(outbox, clock, 12, batch=4)
    remove(crm, *range(9))
    find, calls = crm.find, []

    def breaks(keys):
        calls.append(keys)
        if len(calls) > 2:
            raise CrmDownError("down")
        return find(keys)

    crm.find = breaks
    with pytest.raises(CrmDownError):
        repair(outbox, crm, at=AT + HOUR, by="ada", clock=clock)
    crm.find = find
    report = sync(outbox, crm, at=AT + HOUR, clock=clock)
    assert (report.gone, report.writes, bool(report.problems)) == (0, 0, True)
    repair(outbox, crm, at=AT + 2 * HOUR, by="ada", clock=clock)
    sync(outbox, crm, at=AT + 2 * HOUR, clock=clock)
    assert sorted(one.key for one in crm.tasks) == sorted(task(n).key for n in range(12))


def test_a_backup_that_is_mended_bit_by_bit_stays_held(outbox, clock):
    """The administrator brings tasks back one after the other: the last five are no deletions."""
    crm = sent(outbox, clock, 12)
    whole = deepcopy(crm.__dict__)
    remove(crm, *range(8))
    sync(outbox, crm, at=AT + HOUR, clock=clock)
    crm.__dict__.update(deepcopy(whole))
    remove(crm, 0, 1, 2)
    report = sync(outbox, crm, at=AT + 2 * HOUR, clock=clock)
    assert (report.gone, len(report.problems)) == (0, 1)
    crm.__dict__.update(whole)
    assert sync(outbox, crm, at=AT + 3 * HOUR, clock=clock).problems == []


def test_answers_given_while_it_was_held_come_home(outbox, clock):
    """People go on working in the restored CRM: what they ended there is an answer, also after the repair."""
    crm = sent(outbox, clock, 12)
    remove(crm, *range(8))
    sync(outbox, crm, at=AT + HOUR, clock=clock)
    crm.person(task(9).key, AT + HOUR, status="completed", disposition="saved")
    crm.person(task(10).key, AT + HOUR, status="in_progress")
    repair(outbox, crm, at=AT + 2 * HOUR, by="ada", clock=clock)
    assert sync(outbox, crm, at=AT + 2 * HOUR, clock=clock).answers == 2
    assert [(one.key, one.disposition) for one in outbox.outcomes() if one.status == "completed"] == [
        (task(9).key, "saved")]


def test_a_crm_that_cannot_be_asked_is_not_repaired(outbox, clock):
    """Nobody can look what is missing there: then nothing is let go and nothing made again."""
    crm = MemoryCrm(Capabilities(unique_keys=True, upsert=True, finds=False))
    outbox.put([task(n) for n in range(3)], at=AT)
    sync(outbox, crm, at=AT, clock=clock)
    crm.find = lambda _: {}
    with pytest.raises(OutreachError, match="cannot be asked"):
        repair(outbox, crm, at=AT + HOUR, by="ada", deleted=True, clock=clock)
    assert {one.status for one in outbox.tasks()} == {"open"}


def test_tidying_up_is_no_answer(outbox, clock):
    """A task that a person completed, and then deleted: what came of it stays, and is told once."""
    crm = sent(outbox, clock, 2)
    crm.person(task(0).key, AT + HOUR, status="completed", disposition="saved")
    sync(outbox, crm, at=AT + HOUR, clock=clock)
    crm.changes = lambda _: [Page([replace(crm.tasks[0], deleted=True)])]
    assert sync(outbox, crm, at=AT + 2 * HOUR, clock=clock).gone == 0
    assert [(one.status, one.disposition) for one in outbox.outcomes()] == [("completed", "saved")]
    assert outbox.tasks(account_id="A00")[0].disposition == "saved"


def test_a_ledger_of_yesterday_makes_nothing_twice(outbox, clock, tmp_path):
    """The outbox's own backup knows a task as not sent yet; the CRM, without unique keys, holds it already."""
    old = Outbox(tmp_path / "old.db")
    crm = MemoryCrm()
    for box in (outbox, old):
        box.put([task(n) for n in range(3)], at=AT)
    sync(outbox, crm, at=AT, clock=clock)
    crm.person(task(1).key, AT + HOUR, status="completed", disposition="saved")
    report = sync(old, crm, at=AT + HOUR, clock=clock)
    assert (report.created, report.answers) == (0, 1)
    assert sorted(one.key for one in crm.tasks) == sorted(task(n).key for n in range(3))
    assert sync(old, crm, at=AT + 2 * HOUR, clock=clock).writes == 0
    assert old.check_audit().wrong == {}
    old.close()


def test_an_unlawful_answer_leaves_no_trace(outbox, clock, tmp_path):
    """The outbox's backup waits for an approval that was given since: an answer to it changes nothing by half."""
    old = Outbox(tmp_path / "old.db")
    for box in (outbox, old):
        box.put([task(0, approval="pending"), task(1)], at=AT)
    outbox.approve(task(0).key, "ada", AT)
    crm = MemoryCrm()
    sync(outbox, crm, at=AT, clock=clock)
    crm.person(task(0).key, AT + HOUR, status="completed", disposition="saved")
    report = sync(old, crm, at=AT + HOUR, clock=clock)
    assert len(report.problems) == 1
    assert (old.outcomes(), old.tasks(account_id="A00")[0].status) == ([], "open")
    assert old.check_audit().wrong == {}
    old.close()


@pytest.mark.parametrize("many", [3, 9])
def test_another_portal_is_no_deletion(outbox, clock, many):
    """The sandbox's week is over and production is named: nothing is written or let go until a person moves the tasks.

    Numbers of the sandbox mean other people's tasks in production: what was closed stays behind.
    """
    crm, other = MemoryCrm(portal="sandbox"), MemoryCrm(portal="production")
    outbox.put([task(n) for n in range(many)], at=AT)
    sync(outbox, crm, at=AT, clock=clock, rules=Rules("sandbox"))
    outbox.close_tasks([task(0).key], AT)
    for dry in (True, False):
        with pytest.raises(OutreachError, match="churnkit sync repair"):
            sync(outbox, other, at=AT + HOUR, clock=clock, dry_run=dry, rules=Rules("production"))
    assert (other.tasks, len(outbox.outcomes())) == ([], 0)
    with pytest.raises(OutreachError, match="without --deleted"):
        repair(outbox, other, at=AT + HOUR, by="ada", clock=clock, deleted=True, rules=Rules("production"))
    done = repair(outbox, other, at=AT + HOUR, by="ada", clock=clock, rules=Rules("production"))
    assert done.again == many - 1
    report = sync(outbox, other, at=AT + HOUR, clock=clock, rules=Rules("production"))
    assert (report.created, report.closed, report.problems) == (many - 1, 0, [])
    assert task(0).key not in {one.key for one in other.tasks}
    assert sync(outbox, other, at=AT + 2 * HOUR, clock=clock, rules=Rules("production")).writes == 0
    assert outbox.check_audit().wrong == {}


def test_a_dry_run_asks_no_faster(outbox, clock):
    """What it looks up counts, too."""
    crm = MemoryCrm(Capabilities(batch=1, rate=Rate(10, 1.0)))
    outbox.put([task(n) for n in range(30)], at=AT)
    sync(outbox, crm, at=AT, clock=clock, dry_run=True)
    assert clock.ran > 2.0


def test_a_note_of_half_a_sign_stops_nobody(outbox, clock):
    """What no database can hold, written by a person into one task, does not end every run."""
    crm = sent(outbox, clock, 3)
    crm.person(task(0).key, AT + HOUR, status="completed", note="half \ud800 a sign\x00", disposition="saved")
    crm.person(task(1).key, AT + HOUR, status="completed", disposition="no_change")
    assert sync(outbox, crm, at=AT + HOUR, clock=clock).answers == 2
    assert sync(outbox, crm, at=AT + HOUR, clock=clock).answers == 0


def test_writes_that_never_arrive_are_no_whole_run(outbox, clock):
    """A proxy that answers 502 to every write: the run says that it left something, and is late in the end."""
    crm = MemoryCrm(faults=["dropped"] * 50)
    outbox.put([task(0)], at=AT)
    report = sync(outbox, crm, at=AT, clock=clock)
    assert report.again == 1
    assert report.problems != []
    assert status(outbox, "memory", clock.time).whole is None


def test_a_very_long_retry_after(outbox, clock):
    """A CRM that asks for a hundred thousand years is asked again after a week."""
    crm = MemoryCrm()
    outbox.put([task(0)], at=AT)

    def check(mend=False):
        raise CrmDownError("busy", wait=1e13)

    crm.check = check
    assert sync(outbox, crm, at=AT, clock=clock).problems != []


def test_a_late_index_is_no_backup(outbox, clock):
    """Many new tasks that are not to be seen yet, and a run at once after it: nothing is held."""
    crm = sent(outbox, clock, 8, lag=HOUR)
    find, ready = crm.find, clock.time + HOUR

    def late(keys):
        return find(keys) if clock.time >= ready else {}

    crm.find = late
    assert sync(outbox, crm, at=AT, clock=clock).problems == []
    assert clock.time >= ready


def test_a_reopened_task_is_not_closed_late(outbox, clock):
    """Recalled, and taken up by a person before the closing could be sent: it stays theirs."""
    crm = sent(outbox, clock, 1)
    outbox.close_tasks([task(0).key], AT + HOUR)
    crm.person(task(0).key, AT + HOUR, status="in_progress")
    crm.faults = ["quota"]
    sync(outbox, crm, at=AT + HOUR, clock=clock)
    crm.person(task(0).key, AT + 2 * HOUR, status="open")
    clock.time += 24 * HOUR
    sync(outbox, crm, at=AT + 24 * HOUR, clock=clock)
    sync(outbox, crm, at=AT + 25 * HOUR, clock=clock)
    assert (crm.tasks[0].status, outbox.tasks()[0].status) == ("open", "open")


def test_a_refused_batch_with_a_late_index(outbox, clock):
    """What the CRM took of a batch that it refused is given the time to show before the rest is sent again."""
    crm = MemoryCrm(Capabilities(batch=4, lag=HOUR), poison={task(3).key})
    find, write, shown = crm.find, crm.write, {}

    def late(keys):
        return {key: one for key, one in find(keys).items() if clock.time >= shown[key]}

    def half(items):
        done = write(items)
        shown.update({item.task.key: clock.time + HOUR for item in items if item.task.key not in crm.poison})
        if len(items) > 1 and any(one.state == "refused" for one in done):
            raise CrmRefusedError("one of the rows is not valid")
        return done

    crm.find, crm.write = late, half
    outbox.put([task(n) for n in range(4)], at=AT)
    sync(outbox, crm, at=AT, clock=clock)
    assert sorted(one.key for one in crm.tasks) == sorted(task(n).key for n in range(3))


@pytest.mark.parametrize("note", ["  two  spaces ", "line\r\nline", "bell\x07", "\u202eturned", "<b>&amp;</b>"])
def test_a_closing_note_comes_back_as_none(outbox, clock, note):
    """A person closes here, with any note: the CRM's own copy of these words is no second answer."""
    crm = sent(outbox, clock, 1)
    outbox.finish(task(0).key, status="completed", by="ada", at=AT, disposition="saved", note=note)
    sync(outbox, crm, at=AT + HOUR, clock=clock)
    assert sync(outbox, crm, at=AT + 2 * HOUR, clock=clock).answers == 0
    assert outbox.tasks()[0].status == "completed"


def test_a_copy_that_somebody_spoilt_stops_no_rebuild(outbox, clock, tmp_path):
    """The content of one task was edited by hand in the CRM: it is named, and the others are taken in."""
    crm = sent(outbox, clock, 4)
    for number, (name, value) in enumerate((("due", 5), ("account_id", None), ("title", 7))):
        crm._replace(task(number).key, content={**crm.tasks[number].content, name: value})
    new = Outbox(tmp_path / "new.db")
    done = rebuild(new, crm, at=AT + HOUR, by="ada", clock=clock)
    assert (done.rebuilt, len(done.strange)) == (1, 3)
    new.close()


def test_a_rebuild_onto_yesterdays_ledger(outbox, clock, tmp_path):
    """What waits there to be created and stands in the CRM is adopted by the next sync, whatever its cursor says."""
    crm, old = sent(outbox, clock, 3), Outbox(tmp_path / "old.db")
    old.put([task(0), task(1)], at=AT)
    crm.changes, every = lambda since: every(since) if since is None else iter(()), crm.changes
    assert rebuild(old, crm, at=AT + HOUR, by="ada", clock=clock).rebuilt == 1
    crm.changes = lambda _: iter(())
    report = sync(old, crm, at=AT + HOUR, clock=clock)
    assert (report.adopted, report.created, len(crm.tasks)) == (2, 0, 3)
    assert old.check_audit().wrong == {}
    old.close()


def test_a_rebuild_knows_its_own_closings(outbox, clock, tmp_path):
    """What churnkit recalled is no person's dismissal in the new ledger, and what a person dismissed is one."""
    crm, new = sent(outbox, clock, 3), Outbox(tmp_path / "new.db")
    outbox.close_tasks([task(0).key], AT)
    sync(outbox, crm, at=AT, clock=clock)
    crm.person(task(1).key, AT + HOUR, status="dismissed", note="no need")
    rebuild(new, crm, at=AT + HOUR, by="ada", clock=clock)
    assert sync(new, crm, at=AT + HOUR, clock=clock).answers == 1
    assert [(one.key, one.note) for one in new.outcomes()] == [(task(1).key, "no need")]
    assert {one.key: one.status for one in new.tasks()} == {
        task(0).key: "dismissed", task(1).key: "dismissed", task(2).key: "open"}
    assert sync(new, crm, at=AT + HOUR, clock=clock).writes == 0
    assert new.check_audit().wrong == {}
    new.close()


def test_a_run_of_long_ago_dates_no_answer_before_its_task(outbox, clock):
    """Somebody passes last year's moment: an answer is still not older than the task."""
    crm = sent(outbox, clock, 1)
    crm.person(task(0).key, AT + HOUR, status="completed", disposition="saved")
    sync(outbox, crm, at=AT - 24 * 365 * HOUR, clock=clock)
    [outcome] = outbox.outcomes()
    assert outcome.occurred_at == outcome.recorded_at == stamp(AT)


def test_a_dry_run_says_what_is_withheld(outbox, clock):
    """Of an account that is left in peace nothing would be sent."""
    outbox.put([task(0), task(1)], at=AT)
    outbox.suppress("A00", "they asked", AT)
    rows = sync(outbox, MemoryCrm(), at=AT, clock=clock, dry_run=True).differences
    assert {row["account_id"]: row["action"] for row in rows} == {"A00": "withhold", "A01": "create"}


def test_a_locked_outbox_is_told_in_one_sentence(tmp_path, clock):
    """Another program holds the file: that is said with the mend, and no task's text comes along."""
    box = Outbox(tmp_path / "outbox.db")
    sa.event.listen(box.engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout = 1"))
    box.engine.dispose()
    with closing(sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OutreachError, match="no other program holds the file") as told:
            sync(box, MemoryCrm(), at=AT, clock=clock)
    assert (told.value.__cause__, told.value.__suppress_context__) == (None, True)
    box.close()


def test_a_holiday_ends_no_do_not_contact(outbox):
    """Whoever asked never to be called is not called after a later, shorter quiet either."""
    outbox.suppress("A00", "do_not_contact", AT)
    outbox.suppress("A00", "on holiday", AT, AT + HOUR)
    assert outbox.suppressed(AT + 2 * HOUR) == {"A00": "do_not_contact"}
    outbox.suppress("A00", "they said it again", AT + 3 * HOUR)
    assert outbox.suppressed(AT) == {"A00": "they said it again"}


def test_moving_to_a_crm_that_cannot_be_asked(outbox, clock):
    """Nothing is there yet: what is open is made again, and the next run is silent."""
    sent(outbox, clock, 3)
    outbox.close_tasks([task(0).key], AT)
    blind = MemoryCrm(Capabilities(unique_keys=True, upsert=True, finds=False), name="consumer")
    blind.find = None
    with pytest.raises(OutreachError, match="stand in memory, and this is consumer"):
        sync(outbox, blind, at=AT + HOUR, clock=clock)
    assert repair(outbox, blind, at=AT + HOUR, by="ada", clock=clock).again == 2
    assert sync(outbox, blind, at=AT + HOUR, clock=clock).created == 2
    assert sync(outbox, blind, at=AT + HOUR, clock=clock).writes == 0
    assert outbox.check_audit().wrong == {}
