"""The sync: each task once whatever breaks, people's fields theirs, answers home once."""

import csv
import datetime as dt
import json

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_clock import Clock
from small_tasks import AT, task

from churnkit.errors import BusyError, OutreachError, SettingsError
from churnkit.outreach import ledger
from churnkit.outreach.crm.base import Capabilities, connect
from churnkit.outreach.crm.files import FilesCrm
from churnkit.outreach.crm.memory import FAULTS, MemoryCrm
from churnkit.outreach.outbox import Outbox
from churnkit.outreach.sync import sync, write_outcomes

LATER = AT + dt.timedelta(days=1)


@pytest.fixture
def clock():
    return Clock()


def quick(path):
    """An outbox that does not wait for the disk."""
    box = Outbox(path)
    sa.event.listen(box.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    box.engine.dispose()
    return box


@pytest.fixture
def lite(tmp_path):
    box = quick(tmp_path / "lite.db")
    yield box
    box.close()


def test_a_later_row_waits_for_one_in_doubt(lite, clock):
    """Where a create may have arrived, the task's next row, in a later batch, is not sent as a second create."""
    crm = MemoryCrm(Capabilities(batch=1), faults=["dropped"] * 4)
    lite.put([task(0)], at=AT)
    sync(lite, crm, at=AT, clock=clock)
    lite.put([task(0, body="Why: use stopped.")], at=AT)
    crm.faults = ["lost"]
    sync(lite, crm, at=AT, clock=clock)
    assert [remote.key for remote in crm.tasks] == [task(0).key]
    assert crm.bodies[task(0).key] == "Why: use stopped."
    assert lite.pending() == []


def test_a_long_outage_loses_nothing(lite, clock):
    """A CRM that is down for ten runs gets every task when it is back."""
    lite.put([task(0)], at=AT)
    crm = MemoryCrm()
    for _ in range(10):
        crm.faults = ["down"] * 4
        sync(lite, crm, at=AT, clock=clock)
    crm.faults = []
    assert sync(lite, crm, at=LATER, clock=clock).created == 1


def test_outcomes_keep_their_ids(lite, tmp_path):
    """An account id that begins like a formula comes back as it is; a note that does is made harmless."""
    odd = task(0, account_id="-7", key="a" * 40)
    lite.put([odd], at=AT)
    lite.record_outcome(odd.key, status="completed", at=AT, disposition="saved", note="=1+1")
    write_outcomes(lite, tmp_path)
    with (tmp_path / "outreach_outcomes.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    assert (row["account_id"], row["note"]) == ("-7", "'=1+1")


def test_sends_once_and_then_nothing(outbox, clock):
    """Everything pending arrives; a second run sends zero writes."""
    crm = MemoryCrm()
    outbox.put([*(task(n) for n in range(5)), task(7, ghost=True)], at=AT)
    assert sync(outbox, crm, at=AT, clock=clock).created == 5
    assert {entry.key for entry in crm.tasks} == {task(n).key for n in range(5)}
    again = sync(outbox, crm, at=LATER, clock=clock)
    assert (again.writes, again.answers, again.edits) == (0, 0, 0)
    assert outbox.pending() == []
    outbox.verify_audit()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("unique", [True, False])
def test_survives_each_fault(lite, clock, fault, unique):
    """After any faults and a run for each there is one task per key, and none is lost."""
    crm = MemoryCrm(Capabilities(unique_keys=unique, batch=3), faults=[fault, "", fault])
    lite.put([task(n) for n in range(8)], at=AT)
    for _ in range(3):
        sync(lite, crm, at=AT, clock=clock)
        clock.time += dt.timedelta(days=1)  # a quota that is spent is remembered until then
    assert sorted(one.key for one in crm.tasks) == sorted(task(n).key for n in range(8))
    assert sync(lite, crm, at=LATER, clock=clock).writes == 0


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(faults=st.lists(st.sampled_from(["", *FAULTS]), max_size=12), batch=st.integers(1, 5),
       edits=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["done", "body", "owner"])), max_size=6))
def test_one_task_per_key_under_any_faults(tmp_path_factory, faults, batch, edits):
    """Whatever faults come while plans and people change things: one task per key, answers once, edits kept."""
    box = quick(tmp_path_factory.mktemp("sync") / "outbox.db")
    crm, clock, n = MemoryCrm(Capabilities(batch=batch), faults=list(faults)), Clock(), 6
    box.put([task(k) for k in range(n)], at=AT)
    for step, (k, what) in enumerate(edits):
        sync(box, crm, at=AT, clock=clock)
        clock.time += dt.timedelta(days=1)
        if what == "body":
            box.put([task(k, body=f"Why: {step}.")], at=AT)
        elif crm.find([task(k).key]):
            crm.person(task(k).key, AT, **({"status": "completed"} if what == "done" else {"owner": "eve@us.example"}))
    for _ in range(len(faults) + 2):
        sync(box, crm, at=LATER, clock=clock)
        clock.time += dt.timedelta(days=1)
    assert sorted(one.key for one in crm.tasks) == sorted(task(k).key for k in range(n))
    assert box.pending() == []
    held = {one.key: one for one in box.tasks()}
    assert {one.key: one.status for one in crm.tasks} == {key: one.status for key, one in held.items()}
    assert {one.key: one.owner for one in crm.tasks} == {key: one.owner for key, one in held.items()}
    assert crm.bodies == {key: one.body for key, one in held.items()}
    assert len(box.outcomes()) == sum(one.status == "completed" for one in held.values())
    assert sync(box, crm, at=LATER, clock=clock).writes == 0
    box.verify_audit()
    box.close()


@pytest.mark.parametrize("whole", [True, False])
def test_one_poison_row_fails_alone(lite, clock, whole):
    """The bad row is refused with its reason, and the others go through."""
    crm = MemoryCrm(Capabilities(batch=8), poison={task(3).key}, poison_fails_batch=whole)
    lite.put([task(n) for n in range(8)], at=AT)
    report = sync(lite, crm, at=AT, clock=clock)
    assert (report.created, report.refused) == (7, 1)
    assert [entry.key for entry in lite.pending(("rejected",))] == [task(3).key]


def test_a_crash_between_write_and_reply_is_adopted(lite, clock):
    """A run that dies after the CRM has written leaves rows under way; the next run finds and adopts them."""
    crm = MemoryCrm()

    class Killed(BaseException):
        """Like a kill: nothing of ours may catch it."""

    def die(write):
        def call(items):
            write(items)
            raise Killed

        return call

    lite.put([task(n) for n in range(4)], at=AT)
    crm.write, create = die(crm.write), crm.write
    with pytest.raises(Killed):
        sync(lite, crm, at=AT, clock=clock)
    crm.write = create
    assert {entry.state for entry in lite.pending()} == {"in_flight"}
    assert sync(lite, crm, at=AT, clock=clock).adopted == 4
    assert len(crm.tasks) == 4


def test_answers_come_home_once(outbox, clock, tmp_path):
    """A person's answer is one outcome, one CSV row, and a suppression where it asks for one."""
    crm = MemoryCrm()
    outbox.put([task(0), task(1)], at=AT)
    sync(outbox, crm, at=AT, clock=clock)
    crm.person(task(0).key, AT, status="completed", disposition="saved", note="=hyperlink()", owner="eve@us.example")
    crm.person(task(1).key, AT, status="dismissed", disposition="do_not_contact")
    outbox.put([task(1, key="ab" * 20)], at=AT)
    report = sync(outbox, crm, at=LATER, clock=clock)
    assert (report.answers, report.edits, report.withheld, report.created) == (2, 1, 1, 0)
    assert sync(outbox, crm, at=LATER, clock=clock).answers == 0
    assert write_outcomes(outbox, tmp_path) == 2
    with (tmp_path / "outreach_outcomes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["account_id"], row["disposition"], row["note"]) for row in rows] == [
        ("A00", "saved", "'=hyperlink()"), ("A01", "do_not_contact", "")]
    assert all(row["occurred_at"] <= row["recorded_at"] for row in rows)


def test_an_answer_that_does_not_fit_is_told(lite, clock):
    """A disposition of another target is a problem for a person, and changes nothing."""
    crm = MemoryCrm()
    lite.put([task()], at=AT)
    sync(lite, crm, at=AT, clock=clock)
    crm.person(task().key, AT, status="completed", disposition="bought")
    assert "does not fit a churn task" in sync(lite, crm, at=LATER, clock=clock).problems[0]
    assert lite.outcomes() == []


def test_closings_reach_the_crm_unless_begun(outbox, clock):
    """A recalled task is closed in the CRM too; one that a person has begun meanwhile stays theirs."""
    crm = MemoryCrm()
    outbox.put([task(0), task(1)], at=AT, run="r1")
    sync(outbox, crm, at=AT, clock=clock)
    outbox.recall("r1", at=LATER)
    crm.person(task(1).key, LATER, status="in_progress")
    sync(outbox, crm, at=LATER, clock=clock)
    assert [one.status for one in crm.tasks] == ["dismissed", "in_progress"]
    assert [one.status for one in outbox.tasks()] == ["dismissed", "in_progress"]
    assert sync(outbox, crm, at=LATER, clock=clock).writes == 0


def test_one_writer_at_a_time(outbox, clock):
    """A second sync is refused while the first is under way, and takes over once the lease has run out."""
    outbox.put([task()], at=AT)
    crm = MemoryCrm()

    def second():
        with pytest.raises(BusyError, match="under way"):
            sync(outbox, MemoryCrm(), at=AT, clock=clock)

    crm.before_write = second
    assert sync(outbox, crm, at=AT, clock=clock).created == 1
    with outbox.engine.begin() as connection:
        connection.execute(ledger.leases.insert().values(
            name="memory", holder="elsewhere", until=ledger.stamp(AT + dt.timedelta(minutes=5))))
    with pytest.raises(BusyError):
        sync(outbox, crm, at=AT, clock=clock)
    clock.time += dt.timedelta(minutes=6)
    sync(outbox, crm, at=AT, clock=clock)


def test_dry_run_writes_nothing(lite, clock, tmp_path):
    """A dry run says what would be done, and neither side changes."""
    crm = FilesCrm(tmp_path / "crm")
    lite.put([task(0), task(1)], at=AT)
    with lite.engine.connect() as connection:
        before = connection.execute(sa.select(ledger.audit)).all()
    report = sync(lite, crm, at=AT, clock=clock, dry_run=True)
    assert [row["action"] for row in report.differences] == ["create", "create"]
    assert not (tmp_path / "crm").exists()
    with lite.engine.connect() as connection:
        assert connection.execute(sa.select(ledger.audit)).all() == before


def test_files_keep_what_people_wrote(lite, clock, tmp_path):
    """A person's edits in a file come back, and a later update leaves them alone."""
    crm = FilesCrm(tmp_path / "crm")
    lite.put([task(0, title="=cmd()"), task(1)], at=AT)
    sync(lite, crm, at=AT, clock=clock)
    path = tmp_path / "crm" / "tasks" / f"{task(0).key}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "status": "in_progress", "due": "2026-11-20"}))
    lite.put([task(0, body="Why: more.")], at=LATER)
    report = sync(lite, crm, at=LATER, clock=clock)
    assert (report.answers, report.edits, report.updated) == (1, 1, 1)
    data = json.loads(path.read_text())
    assert (data["status"], data["due"], data["body"]) == ("in_progress", "2026-11-20", "Why: more.")
    with (tmp_path / "crm" / "tasks.csv").open(newline="") as file:
        assert {row["title"] for row in csv.DictReader(file)} == {"Call A00", "Call A01"}


def test_answers_csv(lite, clock, tmp_path):
    """The last row of a key counts; a broken row is named with its line and changes nothing else."""
    crm = FilesCrm(tmp_path / "crm")
    lite.put([task(0), task(1)], at=AT)
    sync(lite, crm, at=AT, clock=clock)
    (tmp_path / "crm" / "answers.csv").write_text(
        f"key,status,disposition,note,by\n{task(0).key},completed,no_change,,\n{task(0).key},completed,saved,fine,ann\n"
        f"{task(1).key},completed,savd,,\n")
    report = sync(lite, crm, at=LATER, clock=clock)
    assert [(row.disposition, row.note) for row in lite.outcomes()] == [("saved", "fine")]
    assert "answers.csv, line 4: the disposition 'savd' is not known" in report.problems[0]


def test_broken_and_deleted_files(lite, clock, tmp_path):
    """A file that is no JSON is named, a deleted one stays deleted, and the rest goes on."""
    crm = FilesCrm(tmp_path / "crm")
    lite.put([task(n) for n in range(3)], at=AT)
    sync(lite, crm, at=AT, clock=clock)
    (tmp_path / "crm" / "tasks" / f"{task(0).key}.json").write_text("{")
    (tmp_path / "crm" / "tasks" / f"{task(1).key}.json").unlink()
    lite.put([task(n, body="Why: more.") for n in range(3)], at=LATER)
    report = sync(lite, crm, at=LATER, clock=clock)
    assert (report.updated, report.refused, report.gone) == (1, 1, 1)
    assert {one.key: one.status for one in lite.tasks()}[task(1).key] == "dismissed"
    assert "Mend the file" in report.problems[0]
    assert not (tmp_path / "crm" / "tasks" / f"{task(1).key}.json").exists()


def test_answers_without_keys_are_refused(lite, clock, tmp_path):
    """An answers.csv without its key column says what the first line must be."""
    crm = FilesCrm(tmp_path)
    (tmp_path / "answers.csv").write_text("status\ncompleted\n")
    with pytest.raises(OutreachError, match="Its first line must be: key,status"):
        sync(lite, crm, at=AT, clock=clock)


def test_connect_by_name(tmp_path):
    """Connectors are found by name; a wrong name or option is named."""
    assert connect("files", {"folder": "out"}, tmp_path).check().name == f"folder {tmp_path / 'out'}"
    with pytest.raises(SettingsError, match="Did you mean 'files'"):
        connect("file")
    with pytest.raises(SettingsError, match="Known: folder"):
        connect("files", {"foldr": "x"}, tmp_path)
