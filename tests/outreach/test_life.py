"""A task's life: what may follow what, one audit row each, a person's close final, approval, snoozing and waking."""

import datetime as dt

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from small_tasks import AT, task

from churnkit.errors import OutreachError
from churnkit.outreach import chain, ledger, life
from churnkit.outreach.crm.files import FilesCrm
from churnkit.outreach.crm.memory import MemoryCrm
from churnkit.outreach.outbox import Outbox
from churnkit.outreach.status import Rules
from churnkit.outreach.sync import sync
from churnkit.outreach.task import CLOSED

LATER = AT + dt.timedelta(days=1)
NUMBERS = st.integers(0, 3)
ENDS = st.sampled_from([("completed", "saved"), ("completed", "no_change"), ("dismissed", None)])
OPEN = {"queued", "refused", "synced"}
POSSIBLE = {
    "plan": {("", "kept"), ("", "proposed"), ("", "queued"), ("refused", "queued")},
    "close": {(stage, "dismissed") for stage in OPEN | {"kept", "proposed"}},
    "approve": {("proposed", "queued")},
    "reject": {("proposed", "dismissed")},
    "snooze": {(stage, "snoozed") for stage in OPEN | {"proposed", "in_progress", "dismissed"}},
    "wake": {("snoozed", stage) for stage in OPEN | {"proposed"}},
    "finish": {(stage, end) for stage in OPEN | {"in_progress", "snoozed"} for end in CLOSED}
    | {("completed", "dismissed"), ("dismissed", "completed"), ("proposed", "dismissed")},
    "begin": {(stage, "in_progress") for stage in OPEN | {"snoozed", "dismissed"}},
}
"""Written down apart from the table of life: what each thing that may happen can do to a task."""


class Clock:
    """A clock that stands still; each shows a day more than the one before, so that a spent quota is new again."""

    days = 0

    def __init__(self):
        Clock.days += 1
        self.time = AT + dt.timedelta(days=Clock.days)

    def now(self):
        """Always the same."""
        return self.time

    def monotonic(self):
        """Always the same."""
        return 0.0

    def sleep(self, seconds):
        """At once."""


class Life(RuleBasedStateMachine):
    """Plans, people and a CRM with faults at random; after each step everything is held against everything."""

    def __init__(self, url):
        super().__init__()
        self.box = Outbox(url)
        if self.box.engine.dialect.name == "sqlite":  # a new file, and no waiting for the disk
            sa.event.listen(self.box.engine, "connect", lambda one, _: one.execute("PRAGMA synchronous = OFF"))
            self.box.engine.dispose()
        else:
            tables = ", ".join(table.name for table in ledger.meta.sorted_tables if table.name != "schema_version")
            with self.box.engine.begin() as connection:
                connection.exec_driver_sql(f"TRUNCATE {tables} CASCADE")
        self.crm, self.at, self.final = MemoryCrm(), AT, set()

    def teardown(self):
        """Lets the database go."""
        self.box.close()

    def step(self, what, do):
        """One thing happens; one that is refused changes nothing at all."""
        self.at += dt.timedelta(hours=1)
        before, rows = self.box.stages(), len(self.box.audit())
        try:
            do()
        except OutreachError:
            assert len(self.box.audit()) == rows
            assert self.box.stages() == before
            return
        after, told = self.box.stages(), self.retold()
        for key, now in after.items():
            was = before.get(key, "")
            new = [stage for seq, stage in told[key].steps if seq > rows]
            if what != "sync":
                assert (was, now) in POSSIBLE[what] or was == now
                assert new == ([now] if was != now else [])
            assert (new[-1] if new else was) == now
            assert key not in self.final or now in CLOSED
        with self.box.engine.connect() as connection:
            closed = connection.execute(sa.select(ledger.tasks.c.key, ledger.tasks.c.closed_by).where(
                ledger.tasks.c.status.in_(CLOSED)))
            self.final |= {row.key for row in closed if row.closed_by != "churnkit"}

    def retold(self):
        """The tasks by the audit alone, which must be those of the ledger."""
        with self.box.engine.connect() as connection:
            told = chain.retell(chain.walk(connection))
            assert chain.differences(connection, told) == {}
        assert {key: one.task() for key, one in told.items()} == {one.key: one for one in self.box.tasks()}
        return told

    @rule(n=NUMBERS, ghost=st.booleans(), approval=st.sampled_from(["none", "pending"]), body=st.sampled_from("ab"))
    def plan(self, n, ghost, approval, body):
        """A run plans a task, or has new content for it."""
        known = {one.key: one for one in self.box.tasks()}.get(task(n).key)
        ghost = known.ghost if known else ghost and n == 3
        one = task(n, ghost=ghost, approval=approval, body=body, cause="usage")
        self.step("plan", lambda: self.box.carry_out([one], {}, [], self.at, "r"))

    @rule(n=NUMBERS)
    def close(self, n):
        """The cause is gone."""
        self.step("close", lambda: self.box.carry_out([], {task(n).key: "gone"}, [], self.at))

    @rule(n=NUMBERS)
    def approve(self, n):
        """A person lets it go."""
        self.step("approve", lambda: self.box.approve(task(n).key, "ada", self.at))

    @rule(n=NUMBERS)
    def reject(self, n):
        """A person does not."""
        self.step("reject", lambda: self.box.reject(task(n).key, "ada", "no", self.at))

    @rule(n=NUMBERS, days=st.integers(0, 2))
    def snooze(self, n, days):
        """A person wants it later."""
        until = self.at + dt.timedelta(days=days)
        self.step("snooze", lambda: self.box.snooze(task(n).key, until, "on leave", "ada", self.at))

    @rule(days=st.integers(0, 2))
    def wake(self, days):
        """Some time goes by."""
        self.at += dt.timedelta(days=days)
        self.step("wake", lambda: self.box.wake(self.at))

    @rule(n=NUMBERS, end=ENDS)
    def finish(self, n, end):
        """A person closes it by a command."""
        self.step("finish", lambda: self.box.finish(
            task(n).key, status=end[0], disposition=end[1], by="ada", at=self.at))

    @rule(n=NUMBERS)
    def begin(self, n):
        """A person begins it."""
        self.step("begin", lambda: self.box.record_outcome(task(n).key, status="in_progress", at=self.at))

    @rule(n=NUMBERS, status=st.sampled_from(["open", "in_progress", "snoozed", "completed", "dismissed"]))
    def in_the_crm(self, n, status):
        """A person moves the CRM's copy."""
        if self.crm.find([task(n).key]):
            self.crm.person(task(n).key, self.at, status=status)

    @rule(n=NUMBERS)
    def poison(self, n):
        """The CRM begins, or ceases, to refuse a task."""
        self.crm.poison ^= {task(n).key}

    @rule(faults=st.lists(st.sampled_from(["", "down", "dropped", "lost", "half"]), max_size=3))
    def sync(self, faults):
        """A sync, with faults."""
        self.crm.faults = faults
        self.step("sync", lambda: sync(self.box, self.crm, at=self.at, clock=Clock()))


def live(url, examples, steps):
    """Runs the machine, each time on an empty database."""
    run_state_machine_as_test(lambda: Life(url()), settings=settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=True,
        phases=[Phase.generate],  # a failing life is short enough to read as it is
        suppress_health_check=list(HealthCheck)))


def test_any_life_is_lawful(tmp_path):
    """Random lives: never an illegal stage, one audit row per step, a person's close final, rebuilt equals kept."""
    numbers = iter(range(10**6))
    live(lambda: tmp_path / f"{next(numbers)}.db", examples=10, steps=30)


def test_any_life_is_lawful_on_a_server(postgres):
    """The same on PostgreSQL."""
    live(lambda: postgres, examples=3, steps=20)


@pytest.mark.slow
def test_many_lives_are_lawful(tmp_path):
    """The same, many more of them."""
    numbers = iter(range(10**6))
    live(lambda: tmp_path / f"{next(numbers)}.db", examples=300, steps=50)


def test_the_table_of_life_is_whole():
    """Every stage that is named can be reached, every open one left, and the table cannot be changed."""
    stages = set(life.STAGES) - {""}
    assert {to for _, to in life.ALLOWED} == stages
    assert {at for at, _ in life.ALLOWED} - {""} == stages
    assert all(may <= {"churnkit", "person", "crm"} and may for may in life.ALLOWED.values())
    with pytest.raises(TypeError):
        life.ALLOWED["kept", "synced"] = frozenset({"churnkit"})


def test_nothing_is_sent_before_it_is_approved(outbox):
    """A pending task waits, however it changes; approved, it is sent once."""
    crm = MemoryCrm()
    outbox.put([task(0, approval="pending"), task(1)], at=AT)
    outbox.put([task(0, approval="pending", body="Why: more.")], at=LATER)
    assert sync(outbox, crm, at=LATER, clock=Clock()).created == 1
    assert outbox.stages() == {task(0).key: "proposed", task(1).key: "synced"}
    assert [outbox.approve(task(0).key, "ada", LATER) for _ in range(2)] == [True, False]
    assert [one.approval for one in outbox.tasks()] == ["approved", "none"]
    assert sync(outbox, crm, at=LATER, clock=Clock()).created == 1
    assert crm.bodies[task(0).key] == "Why: more."
    assert [(row["what"], row["actor"]) for row in outbox.audit(task(0).key)][2] == ("approve", "ada")


def test_an_older_row_of_a_pending_task_is_not_claimed(outbox):
    """Should a row of a task that nobody approved be in the queue, the sync leaves it there."""
    crm = MemoryCrm()
    outbox.put([task()], at=AT)
    with outbox.engine.begin() as connection:
        connection.execute(ledger.tasks.update().values(approval="pending"))
    assert sync(outbox, crm, at=AT, clock=Clock()).writes == 0
    assert crm.tasks == []


def test_a_rejection_is_an_outcome(outbox):
    """A rejected task is closed with the reason as an outcome, so that the cool-down begins; it is never sent."""
    crm = MemoryCrm()
    outbox.put([task(0, approval="pending"), task(1, approval="pending")], at=AT)
    outbox.reject(task(0).key, "ada", "we spoke yesterday", LATER)
    outbox.reject(task(1).key, "ada", "asked for peace", LATER, disposition="do_not_contact")
    assert [(row.status, row.disposition, row.note, row.occurred_at[:10]) for row in outbox.outcomes()] == [
        ("dismissed", None, "we spoke yesterday", "2026-11-02"),
        ("dismissed", "do_not_contact", "asked for peace", "2026-11-02")]
    assert outbox.suppressed(LATER) == {"A01": "do_not_contact"}
    assert sync(outbox, crm, at=LATER, clock=Clock()).writes == 0


@pytest.mark.parametrize(("do", "message"), [
    (lambda box: box.approve(task(1).key, "ada", AT), "does not wait for approval: it is waiting to be sent"),
    (lambda box: box.approve("beef", "ada", AT), "There is no task 'beef'"),
    (lambda box: box.reject(task(0).key, "ada", "no", AT, disposition="bought"), "does not fit a churn task"),
    (lambda box: box.finish(task(0).key, status="completed", disposition="saved", by="ada", at=AT), "Approve it first"),
    (lambda box: box.finish(task(1).key, status="open", by="ada", at=AT), "Use one of: completed, dismissed"),
    (lambda box: box.snooze(task(2).key, LATER, "later", "ada", AT), "Nobody works on a control account's task"),
    (lambda box: box.snooze(task(1).key, AT, "later", "ada", AT), "Give a later day"),
    (lambda box: box.put([task(5, status="completed")], at=AT), "is not there and cannot become 'completed'"),
])
def test_what_may_not_be_is_refused(outbox, do, message):
    """The error says where the task stands and what can be done; nothing is changed."""
    outbox.put([task(0, approval="pending"), task(1), task(2, ghost=True)], at=AT)
    before = outbox.stages(), outbox.audit(), outbox.outcomes()
    with pytest.raises(OutreachError, match=message):
        do(outbox)
    assert (outbox.stages(), outbox.audit(), outbox.outcomes()) == before


def test_a_snoozed_task_sleeps_and_wakes(outbox):
    """Until then it is snoozed whatever the CRM repeats; then it is open again, and the CRM is sent nothing."""
    crm, until = MemoryCrm(), LATER + dt.timedelta(days=7)
    outbox.put([task()], at=AT)
    sync(outbox, crm, at=AT, clock=Clock())
    assert [outbox.snooze(task().key, until, "on leave", "ada", LATER) for _ in range(2)] == [True, False]
    assert [(one.status, one.snoozed_until) for one in outbox.open_tasks()] == [("snoozed", ledger.stamp(until))]
    assert sync(outbox, crm, at=LATER, clock=Clock()).answers == 0
    assert outbox.wake(until - dt.timedelta(seconds=1)) == []
    assert outbox.wake(until) == [task().key]
    assert outbox.wake(until) == []
    assert [(one.status, one.snoozed_until) for one in outbox.open_tasks()] == [("open", None)]
    again = sync(outbox, crm, at=until, clock=Clock())
    assert (again.writes, again.answers) == (0, 0)
    assert [row["what"] for row in outbox.audit(task().key)][-2:] == ["snooze", "wake"]


def test_snoozed_in_the_crm(outbox):
    """The CRM does not say until when: the caller's span counts, and what the CRM repeats after that is no news."""
    crm = MemoryCrm()
    outbox.put([task()], at=AT)
    sync(outbox, crm, at=AT, clock=Clock())
    crm.person(task().key, AT, status="snoozed", note="back on Monday")
    sync(outbox, crm, at=AT, clock=Clock(), rules=Rules(snooze_for=dt.timedelta(days=3)))
    [one] = outbox.open_tasks()
    assert one.snoozed_until == ledger.stamp(AT + dt.timedelta(days=3))
    outbox.wake(AT + dt.timedelta(days=3))
    assert sync(outbox, crm, at=AT + dt.timedelta(days=3), clock=Clock()).answers == 0
    assert [one.status for one in outbox.open_tasks()] == ["open"]
    crm.person(task().key, LATER, status="in_progress", note="called")
    assert sync(outbox, crm, at=AT + dt.timedelta(days=4), clock=Clock()).answers == 1


@pytest.mark.parametrize("make", [lambda _: MemoryCrm(), lambda path: FilesCrm(path / "crm")])
def test_closed_by_a_command_is_closed_in_the_crm(outbox, tmp_path, make):
    """What a person closes here is closed there, and the CRM's echo of it is no other answer."""
    crm = make(tmp_path)
    outbox.put([task(0), task(1)], at=AT)
    sync(outbox, crm, at=AT, clock=Clock())
    assert outbox.finish(task(0).key, status="completed", disposition="saved", by="ada", at=LATER)
    assert not outbox.finish(task(0).key, status="completed", disposition="saved", by="ada", at=LATER)
    first = sync(outbox, crm, at=LATER, clock=Clock())
    assert (first.answers, first.closed) == (0, 1)
    again = sync(outbox, crm, at=LATER, clock=Clock())
    assert (again.answers, again.writes) == (0, 0)
    assert [(one.status, one.disposition) for one in outbox.tasks()] == [("completed", "saved"), ("open", None)]
    assert [row.disposition for row in outbox.outcomes()] == ["saved"]


def test_a_persons_close_is_final(outbox):
    """Opened again in the CRM, a task that a person closed stays closed here, and the audit says so once."""
    crm = MemoryCrm()
    outbox.put([task()], at=AT)
    sync(outbox, crm, at=AT, clock=Clock())
    crm.person(task().key, AT, status="completed", disposition="saved")
    sync(outbox, crm, at=AT, clock=Clock())
    crm.person(task().key, AT, status="in_progress", disposition=None)
    for _ in range(2):
        assert sync(outbox, crm, at=LATER, clock=Clock()).answers == 0
    assert outbox.stages() == {task().key: "completed"}
    assert [row["what"] for row in outbox.audit(task().key)].count("left") == 1


def test_local_fields_stay_at_home(outbox, tmp_path):
    """The ledger keeps them; the CRM's copy has none of them."""
    crm = FilesCrm(tmp_path / "crm")
    outbox.put([task(cause="usage", propensity=0.9, policy_hash="p")], at=AT)
    sync(outbox, crm, at=AT, clock=Clock())
    [one] = outbox.tasks()
    assert (one.cause, one.propensity, one.policy_hash) == ("usage", 0.9, "p")
    [file] = (tmp_path / "crm" / "tasks").glob("*.json")
    assert not {"cause", "propensity", "policy_hash", "approval", "ghost"} & set(file.read_text().split('"'))
