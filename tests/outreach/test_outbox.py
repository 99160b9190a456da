"""The outbox on SQLite and PostgreSQL: kept once, never reopened, audited, and of one version."""

import datetime as dt
import sqlite3
import subprocess
import sys

import pytest
import sqlalchemy as sa
from small_tasks import AT, task

from churnkit.errors import OutreachError
from churnkit.outreach import ledger
from churnkit.outreach.impact import counts
from churnkit.outreach.outbox import Outbox, Put

LATER = AT + dt.timedelta(days=1)


def test_put_twice_is_put_once(outbox):
    """The same tasks again change nothing: not the tasks, not the queue, not the audit."""
    tasks = [task(n) for n in range(3)]
    assert outbox.put(tasks, at=AT, run="r1") == Put(new=3)
    before = (outbox.tasks(), outbox.pending(), outbox.audit())
    assert outbox.put(tasks, at=LATER, run="r2") == Put(unchanged=3)
    assert before == (outbox.tasks(), outbox.pending(), outbox.audit())


def test_put_tells_the_time_from_the_tasks(outbox):
    """Without `at` the tasks' own time counts; with neither it is an error."""
    outbox.put([task()])
    assert outbox.audit()[0]["at"] == "2026-11-01T06:00:00.000000+00:00"
    with pytest.raises(OutreachError, match="Pass the time"):
        outbox.put([task(1, scored_at=None)])


def test_nobody_plans_for_a_day_before_the_last(outbox):
    """A run for an older day would close what was rightly opened since, and ask for calls in the past."""
    outbox.put([task()], at=LATER)
    with pytest.raises(OutreachError, match=r"planned for 2026-11-02.*plan with --dry-run"):
        outbox.put([task(1)], at=AT)
    with pytest.raises(OutreachError, match="would undo them"):
        outbox.close_tasks([task().key], at=AT)
    assert [one.status for one in outbox.tasks()] == ["open"]


def test_ghosts_are_kept_and_never_queued(outbox):
    """A ghost has no outbox row, and is open."""
    outbox.put([task(0, ghost=True), task(1)], at=AT)
    assert [entry.task.account_id for entry in outbox.pending()] == ["A01"]
    assert [one.ghost for one in outbox.open_tasks()] == [True, False]
    assert [row["control"] for row in counts(outbox)] == [False, True]


def test_changed_content_is_queued_once(outbox):
    """A task that changed before it was sent still has one row to send."""
    outbox.put([task()], at=AT)
    assert outbox.put([task(body="Why: more.")], at=LATER) == Put(changed=1)
    assert [(entry.action, entry.task.body) for entry in outbox.pending()] == [("create", "Why: more.")]


def test_a_closed_task_is_never_reopened(outbox):
    """What a person closed stays closed, whatever the plan says."""
    outbox.put([task()], at=AT)
    assert outbox.record_outcome(task().key, status="completed", disposition="saved", at=LATER)
    assert outbox.put([task(body="Again!")], at=LATER) == Put(closed=1)
    assert [one.status for one in outbox.tasks()] == ["completed"]


def test_outcomes_are_kept_once(outbox):
    """The same answer twice is one outcome; a better one is a second."""
    outbox.put([task()], at=AT)
    said = {"status": "completed", "disposition": "saved", "at": LATER}
    assert [outbox.record_outcome(task().key, **said) for _ in range(2)] == [True, False]
    assert outbox.record_outcome(task().key, **{**said, "note": "very happy"})
    assert [row.note for row in outbox.outcomes()] == [None, "very happy"]


@pytest.mark.parametrize(("changes", "message"), [
    ({"key": "beef"}, "There is no task 'beef'"),
    ({"status": "done"}, "Use one of: open, in_progress"),
    ({"disposition": "bought"}, "does not fit a churn task"),
])
def test_outcomes_are_of_the_contract(outbox, changes, message):
    """An unknown key, status or disposition is refused with the mend."""
    outbox.put([task()], at=AT)
    said = {"key": task().key, "status": "completed", "disposition": "saved", **changes}
    with pytest.raises(OutreachError, match=message):
        outbox.record_outcome(said.pop("key"), at=LATER, **said)
    assert outbox.outcomes() == []


def test_do_not_contact_suppresses(outbox):
    """From that answer on the account is left in peace."""
    outbox.put([task()], at=AT)
    outbox.record_outcome(task().key, status="dismissed", disposition="do_not_contact", at=LATER)
    assert outbox.suppressed(AT) == {}
    assert outbox.suppressed(LATER) == {"A00": "do_not_contact"}


def test_recall_closes_what_nobody_began(outbox):
    """A run's untouched tasks are closed; a begun one and another run's stay."""
    outbox.put([task(0), task(1)], at=AT, run="r1")
    outbox.put([task(2)], at=AT, run="r2")
    outbox.record_outcome(task(0).key, status="in_progress", at=LATER)
    assert outbox.recall("r1", at=LATER) == 1
    assert [one.status for one in outbox.tasks()] == ["in_progress", "dismissed", "open"]
    assert [entry.task.account_id for entry in outbox.pending()] == ["A00", "A02"]
    assert outbox.recall("r1", at=LATER) == 0


def test_audit_is_a_chain(outbox, url):
    """Every change is a row; rows cannot be changed, and where they are by force it shows."""
    outbox.put([task(0), task(1)], at=AT, run="r1")
    outbox.record_outcome(task(0).key, status="completed", disposition="saved", at=LATER)
    assert [row["what"] for row in outbox.audit(task(0).key)] == ["put", "outcome"]
    assert outbox.verify_audit() == 3
    with pytest.raises(sa.exc.DatabaseError, match="append-only"), outbox.engine.begin() as connection:
        connection.execute(ledger.audit.delete())
    with outbox.engine.begin() as connection:
        drop = "DROP TRIGGER audit_no_UPDATE" if "sqlite" in url else "DROP TRIGGER audit_no_update ON audit"
        connection.exec_driver_sql(drop)
        connection.execute(ledger.audit.update().where(ledger.audit.c.seq == 2).values(actor="nobody"))
    with pytest.raises(OutreachError, match="broken at row 2"):
        outbox.verify_audit()


WRITER = """
import sys
sys.path.insert(0, sys.argv[3])
from small_tasks import AT, task
from churnkit.outreach.outbox import Outbox
box = Outbox(sys.argv[1])
for n in range(int(sys.argv[2]), int(sys.argv[2]) + 15):
    box.put([task(n), task(99)], at=AT)
"""


def test_two_writers_lose_nothing(outbox, url, request):
    """Two processes at once: every task is there once, and the chain holds."""
    commands = [[sys.executable, "-c", WRITER, url, start, str(request.path.parent)] for start in ("0", "15")]
    writers = [subprocess.Popen(command) for command in commands]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert len(outbox.tasks()) == len(outbox.pending()) == outbox.verify_audit() == 31


def test_a_newer_outbox_is_refused(outbox, url):
    """An older program does not touch a newer file."""
    with outbox.engine.begin() as connection:
        connection.execute(ledger.schema_version.update().values(version=99))
    with pytest.raises(OutreachError, match="newer than this churnkit knows"):
        Outbox(url)
    with pytest.raises(OutreachError, match="newer than this churnkit knows"):
        ledger.upgrade(url, AT)


def test_upgrade_keeps_a_backup(outbox, url, monkeypatch, tmp_path):
    """An older outbox asks for `churnkit upgrade`, which migrates it and leaves a copy of a file."""
    outbox.put([task()], at=AT)
    monkeypatch.setattr(ledger, "SCHEMA_VERSION", 3)
    monkeypatch.setitem(ledger.MIGRATIONS, 2, lambda connection: connection.exec_driver_sql("CREATE TABLE new (x INT)"))
    with pytest.raises(OutreachError, match="churnkit upgrade"):
        Outbox(url)
    backup = ledger.upgrade(url, AT)
    assert (backup is not None) == ("sqlite" in url)
    if backup:
        with sqlite3.connect(backup) as old:
            assert old.execute("SELECT count(*) FROM tasks").fetchone() == (1,)
        old.close()
    box = Outbox(url)
    assert len(box.tasks()) == 1
    box.close()


@pytest.mark.parametrize(("url", "message"), [
    ("nonsense://x", "is no database URL|cannot be opened"),
    ("sqlite:////nowhere/at/all/outbox.db", "See that the folder or server exists"),
    ("postgresql+psycopg://me:secret@127.0.0.1:1/x", "cannot be opened"),
])
def test_bad_addresses_are_named(url, message):
    """An outbox that cannot be opened says so, without its password."""
    with pytest.raises(OutreachError, match=message) as error:
        Outbox(url)
    assert "secret" not in str(error.value)


def test_a_file_that_is_no_outbox(tmp_path):
    """Some other file is refused, and left as it is."""
    file = tmp_path / "notes.txt"
    file.write_text("my notes, " * 200)
    with pytest.raises(OutreachError, match="the file is an outbox"):
        Outbox(file)
    assert file.read_text() == "my notes, " * 200
