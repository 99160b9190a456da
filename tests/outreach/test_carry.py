"""A whole plan kept at once, arms that are final once exposed, and the first version's outbox brought up to date."""

import datetime as dt
import json

import pytest
import sqlalchemy as sa
from small_tasks import AT, task

from churnkit.errors import OutreachError
from churnkit.outreach import ledger
from churnkit.outreach.outbox import Outbox, Put

LATER = AT + dt.timedelta(days=1)
ARMS = [{"top": "A00", "arm": "treated", "stratum": "smb|low", "propensity": 0.9, "share": 0.1, "salt": "s",
         "exposed_at": AT},
        {"top": "A01", "arm": "control", "stratum": "smb|low", "propensity": 0.9, "share": 0.1, "salt": "s"}]

SERIAL = {"sqlite": "INTEGER", "postgresql": "SERIAL"}
FIRST_VERSION = """
CREATE TABLE audit (seq INTEGER NOT NULL, at TEXT NOT NULL, actor TEXT NOT NULL, what TEXT NOT NULL, "key" TEXT,
    "before" TEXT, "after" TEXT, previous TEXT NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (seq));
CREATE INDEX audit_key ON audit ("key");
CREATE TABLE leases (name TEXT NOT NULL, holder TEXT NOT NULL, until TEXT NOT NULL, PRIMARY KEY (name));
CREATE TABLE notes (name TEXT NOT NULL, value TEXT, PRIMARY KEY (name));
CREATE TABLE outcomes (id {serial} NOT NULL, "key" TEXT NOT NULL, account_id TEXT NOT NULL, play TEXT NOT NULL,
    occurred_at TEXT NOT NULL, status TEXT NOT NULL, disposition TEXT, note TEXT, recorded_at TEXT NOT NULL,
    PRIMARY KEY (id));
CREATE INDEX outcomes_key ON outcomes ("key");
CREATE TABLE schema_version (version {serial} NOT NULL, PRIMARY KEY (version));
CREATE TABLE suppressions (account_id TEXT NOT NULL, reason TEXT NOT NULL, starts_at TEXT NOT NULL, until TEXT,
    PRIMARY KEY (account_id));
CREATE TABLE tasks ("key" TEXT NOT NULL, account_id TEXT NOT NULL, play TEXT NOT NULL, target TEXT NOT NULL,
    status TEXT NOT NULL, disposition TEXT, note TEXT, owner TEXT, due TEXT, ghost BOOLEAN NOT NULL, run TEXT,
    created_at TEXT NOT NULL, updated_at TEXT NOT NULL, closed_at TEXT, closed_by TEXT, content TEXT NOT NULL,
    content_hash TEXT NOT NULL, sent_hash TEXT, remote_id TEXT, remote_version TEXT, PRIMARY KEY ("key"));
CREATE INDEX tasks_run ON tasks (run);
CREATE INDEX tasks_account ON tasks (account_id);
CREATE INDEX tasks_status ON tasks (status);
CREATE TABLE outbox (id {serial} NOT NULL, "key" TEXT NOT NULL, action TEXT NOT NULL, state TEXT NOT NULL,
    attempts INTEGER NOT NULL, content_hash TEXT NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL, why TEXT,
    PRIMARY KEY (id), FOREIGN KEY ("key") REFERENCES tasks ("key"));
CREATE INDEX outbox_state ON outbox (state, id);
CREATE INDEX outbox_key ON outbox ("key");
INSERT INTO schema_version (version) VALUES (1)
"""
OLD_HASHES = ("5bd8ed9d3779ebe5574c4c147ec5b136785a90edf173824fb2d3b09bbd8b5497",
              "2630ebdb0e1ef00f9ea2b968b40fe11db29edb12ed0eae4343d588040b88ab22")
NEW_COLUMNS = ("approval", "snoozed_until", "snooze_reason", "seen")


def everything(outbox):
    """All rows of all tables."""
    with outbox.engine.connect() as connection:
        return {table.name: connection.execute(sa.select(table)).all() for table in ledger.meta.sorted_tables}


def old_content(one):
    """A task's content as the first version wrote it."""
    plain = one.to_dict()
    for name in ("cause", "passed_on", "rank_by", "data_hash", "policy_hash", "stratum", "propensity", "reopens",
                 "effect", "snoozed_until"):
        del plain[name]
    return plain


def first_version(url):
    """An outbox as the first version left it: two tasks, one sent and answered, and their audit."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for statement in FIRST_VERSION.format(serial=SERIAL[engine.dialect.name]).split(";"):
            connection.exec_driver_sql(statement)
        when = ledger.stamp(AT)
        for n, status in enumerate(("completed", "open")):
            one = task(n, approval="pending" if n else "none")
            content = old_content(one)
            connection.execute(sa.text(
                'INSERT INTO tasks ("key", account_id, play, target, status, owner, due, ghost, run, created_at, '
                "updated_at, content, content_hash, remote_id) VALUES (:key, :account, :play, :target, :status, "
                ":owner, :due, :ghost, 'r1', :at, :at, :content, :hash, 'r7')"), {
                    "key": one.key, "account": one.account_id, "play": one.play, "target": one.target,
                    "status": status, "owner": one.owner, "due": one.due.isoformat(), "ghost": False, "at": when,
                    "content": json.dumps(content, sort_keys=True), "hash": one.content_hash()})
            ledger.record(connection, when, "plan", "put", [
                {"key": one.key, "before": None, "after": {**content, "run": "r1"}}])
            connection.execute(sa.text(
                'INSERT INTO outbox ("key", action, state, attempts, content_hash, created_at, updated_at) '
                "VALUES (:key, 'create', 'confirmed', 1, :hash, :at, :at)"),
                {"key": one.key, "hash": one.content_hash(), "at": when})
    engine.dispose()


def test_local_fields_are_not_the_crms():
    """What churnkit keeps for itself does not change the hash of what it owns in the CRM."""
    assert OLD_HASHES == (task().content_hash(), task(3, ghost=True, asset_ids=("M1",),
                                                      reason_codes=("a",)).content_hash())
    local = task(cause="usage", passed_on=True, rank_by="uplift", data_hash="d", policy_hash="p", stratum="x",
                 propensity=0.9, reopens="k", effect=0.15)
    assert local.content_hash() == OLD_HASHES[0]
    assert type(local).from_dict(local.to_dict()) == local


def test_the_first_version_is_brought_up_to_date(url):
    """Every row is still there, the old chain holds, and the upgraded outbox works like a new one."""
    first_version(url)
    with pytest.raises(OutreachError, match="churnkit upgrade"):
        Outbox(url)
    backup = ledger.upgrade(url, LATER)
    assert (backup is not None and backup.is_file()) == ("sqlite" in url)
    box = Outbox(url)
    assert [(one.key, one.status, one.approval) for one in box.tasks()] == [
        (task(0).key, "completed", "none"), (task(1).key, "open", "pending")]
    assert box.verify_audit() == 2
    assert {name: len(rows) for name, rows in everything(box).items() if rows} == {
        "audit": 2, "schema_version": 1, "tasks": 2, "outbox": 2}
    box.keep_arms(ARMS, AT)
    with pytest.raises(sa.exc.DatabaseError, match="final"), box.engine.begin() as connection:
        connection.execute(ledger.arms.delete())
    box.carry_out([task(2)], {task(1).key: "the play was taken out"}, [], at=LATER)
    assert [one.status for one in box.tasks()] == ["completed", "dismissed", "open"]
    assert ledger.upgrade(url, LATER) is None
    box.close()


def test_an_upgraded_outbox_has_a_new_ones_columns(url):
    """Whether it was made anew or brought up to date, the tables hold the same columns."""
    first_version(url)
    ledger.upgrade(url, LATER)
    engine = sa.create_engine(url)
    found = sa.inspect(engine)
    for table in ledger.meta.sorted_tables:
        assert {column["name"] for column in found.get_columns(table.name)} == set(table.columns.keys())
    assert {column["name"] for column in found.get_columns("tasks")} >= set(NEW_COLUMNS)
    engine.dispose()


def test_a_plan_twice_is_a_plan_once(outbox):
    """Tasks, ghosts, closings and arms again, at the same moment or later, change no row of any table."""
    outbox.put([task(8), task(9)], at=AT, run="r0")
    outbox.record_outcome(task(9).key, status="in_progress", at=AT)
    plan = ([task(0), task(1, ghost=True), task(2)], {task(8).key: "the cause is gone", task(9).key: "expired"}, ARMS)
    done = outbox.carry_out(*plan, at=LATER, run="r1")
    assert (done.put, done.shut, done.left, done.arms) == (Put(new=3), (task(8).key,), (task(9).key,), 2)
    before = everything(outbox)
    again = outbox.carry_out(*plan, at=LATER, run="r1")
    assert (again.put, again.shut, again.arms) == (Put(unchanged=3), (), 0)
    outbox.carry_out(*plan, at=LATER + dt.timedelta(days=1), run="r2")
    assert everything(outbox) == before
    outbox.verify_audit()


def test_closings_say_why_each(outbox):
    """Each closing has its own words; a begun task is left, and the audit says so once per reason."""
    outbox.put([task(n) for n in range(3)], at=AT)
    outbox.record_outcome(task(2).key, status="in_progress", at=AT)
    why = {task(0).key: "the cause is gone", task(1).key: "the account was lost", task(2).key: "the play was disabled"}
    outbox.carry_out([], why, [], at=LATER)
    outbox.carry_out([], {task(2).key: "expired"}, [], at=LATER)
    said = {n: [row["after"] for row in outbox.audit(task(n).key) if row["what"] in {"close", "left"}]
            for n in range(3)}
    assert said == {0: [{"status": "dismissed", "note": "the cause is gone"}],
                    1: [{"status": "dismissed", "note": "the account was lost"}],
                    2: [{"status": "in_progress", "why": "the play was disabled"},
                        {"status": "in_progress", "why": "expired"}]}


def test_a_plan_that_fails_leaves_nothing(outbox):
    """An arm that may not change undoes the whole plan, its tasks and its closings with it."""
    outbox.put([task(8)], at=AT)
    outbox.keep_arms(ARMS, AT)
    before = everything(outbox)
    with pytest.raises(OutreachError, match=r"A00.*final.*Outbox.arms"):
        outbox.carry_out([task(0)], {task(8).key: "gone"}, [*ARMS[1:], {**ARMS[0], "arm": "control"}], at=LATER)
    assert everything(outbox) == before


def test_arms_are_drawn_anew_until_exposed(outbox):
    """What nobody was exposed to may change; the first exposure makes it final, by us and by the database."""
    outbox.keep_arms(ARMS, AT)
    assert outbox.keep_arms([{**ARMS[1], "arm": "treated", "salt": "t"}], LATER) == 1
    assert outbox.keep_arms([{**ARMS[1], "arm": "treated", "salt": "t", "exposed_at": LATER}], LATER) == 1
    assert [(row["top"], row["arm"], row["drawn_at"][:10], (row["exposed_at"] or "")[:10]) for row in outbox.arms()] \
        == [("A00", "treated", "2026-11-01", "2026-11-01"), ("A01", "treated", "2026-11-02", "2026-11-02")]
    assert outbox.keep_arms([{**ARMS[0], "exposed_at": float("nan")}], LATER) == 0
    with pytest.raises(OutreachError, match="final"):
        outbox.keep_arms([{**ARMS[0], "propensity": 0.5}], LATER)
    for change in (ledger.arms.update().values(arm="control"), ledger.arms.delete()):
        with pytest.raises(sa.exc.DatabaseError, match="final"), outbox.engine.begin() as connection:
            connection.execute(change)
    assert [row["what"] for row in outbox.audit()] == ["arm"] * 4
