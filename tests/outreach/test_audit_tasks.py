"""The audit of tasks: whoever tampers is found and named, and each task is made again from rows and from its inputs."""

import datetime as dt
import json

import pandas as pd
import pytest
import sqlalchemy as sa
from small_book import frames, scores
from small_tasks import AT, task
from typer.testing import CliRunner

from churnkit.cli import tasks as cli
from churnkit.errors import OutreachError
from churnkit.jobs import plans
from churnkit.jobs import tasks as jobs
from churnkit.jobs.workspace import file_of, open_outbox, read, save
from churnkit.outreach import chain, ledger
from churnkit.outreach.limits import Before
from churnkit.outreach.plan import plan
from churnkit.outreach.policy import Policy
from churnkit.schemas import REASONS
from churnkit.settings import load

LATER = AT + dt.timedelta(days=1)


def force(outbox, *statements):
    """Raw SQL by somebody who took the triggers away first."""
    lite = outbox.engine.dialect.name == "sqlite"
    with outbox.engine.begin() as connection:
        for verb in ("UPDATE", "DELETE"):
            connection.exec_driver_sql(f"DROP TRIGGER audit_no_{verb}{'' if lite else ' ON audit'}")
        for statement in statements:
            connection.exec_driver_sql(statement)


def forged(outbox, **changes):
    """A row that fits the chain's end, as somebody who knows the recipe would write it."""
    with outbox.engine.begin() as connection:
        last = dict(connection.execute(sa.select(ledger.audit).order_by(ledger.audit.c.seq.desc())).mappings().first())
        row = {**last, "seq": last["seq"] + 1, "previous": last["hash"], **changes}
        connection.execute(ledger.audit.insert().values(**{**row, "hash": chain.digest(row)}))


MOVE = "UPDATE audit SET seq = seq + 100 WHERE seq >= 3", "UPDATE audit SET seq = seq - 99 WHERE seq >= 103"
SLIP = ("INSERT INTO audit SELECT 3, at, actor, what, key, before, after, previous, hash FROM audit WHERE seq = 2",)
SWAP = ("UPDATE audit SET seq = 99 WHERE seq = 2", "UPDATE audit SET seq = 2 WHERE seq = 3",
        "UPDATE audit SET seq = 3 WHERE seq = 99")


@pytest.mark.parametrize(("statements", "message"), [
    (("UPDATE audit SET actor = 'nobody' WHERE seq = 2",), "broken at row 2: what it says .put of .* by nobody."),
    (("UPDATE audit SET after = replace(after, 'A01', 'A99') WHERE seq = 2",), "broken at row 2.*changed"),
    (("DELETE FROM audit WHERE seq = 2",), "broken at row 2: it is missing"),
    (("DELETE FROM audit WHERE seq = 5",), "broken at row 5: it was taken off the end"),
    (("DELETE FROM audit WHERE seq >= 4",), "broken at row 5: it was taken off the end"),
    (SWAP, "broken at row 2.*moved there"),
    ((*MOVE, *SLIP), "broken at row 3.*moved there"),
    (("INSERT INTO audit SELECT 0, at, actor, what, key, before, after, previous, hash FROM audit WHERE seq = 1",),
     "broken at row 1: a row was slipped in before it"),
], ids=["who", "what", "removed", "last", "last two", "swapped", "slipped in", "before all"])
def test_who_tampers_is_found(outbox, statements, message):
    """One row changed, removed, moved or slipped in by raw SQL is found, and the row is named."""
    outbox.put([task(n) for n in range(4)], at=AT, run="r1")
    outbox.record_outcome(task(0).key, status="completed", disposition="saved", at=LATER)
    assert outbox.check_audit().wrong == {}
    force(outbox, *statements)
    for look in (outbox.verify_audit, outbox.check_audit):
        with pytest.raises(OutreachError, match=message):
            look()


def test_a_forged_row_at_the_end_is_found(outbox):
    """Even one whose hash fits: the head that churnkit keeps does not know it."""
    outbox.put([task(0)], at=AT)
    forged(outbox, what="outcome", after=json.dumps({"status": "completed"}))
    with pytest.raises(OutreachError, match="row 2: it was put at the end by something else"):
        outbox.verify_audit()


@pytest.mark.parametrize(("change", "said"), [
    ({"status": "completed"}, "status is 'completed' in the ledger and 'open' by the audit"),
    ({"owner": "eve@us.example"}, "owner is 'eve@us.example' in the ledger and 'ann@us.example' by the audit"),
    ({"content": json.dumps({**task(0).to_dict(), "score": 0.9})}, "its content differs from the audit's in score"),
    ({"content_hash": "0" * 64}, "its content has not the hash that the ledger holds"),
    ({"ghost": True}, "whether it is a ghost differs from the audit"),
])
def test_a_ledger_that_was_changed_is_found(outbox, change, said):
    """What a task's row says must be what the audit's rows alone say of it."""
    outbox.put([task(0), task(1)], at=AT)
    with outbox.engine.begin() as connection:
        connection.execute(ledger.tasks.update().where(ledger.tasks.c.key == task(0).key).values(**change))
    assert outbox.check_audit().wrong == {task(0).key: [said]}


def test_a_row_that_life_forbids_is_found(outbox):
    """A chain that holds may still tell of what may not be: it is named by its row."""
    outbox.put([task(0, approval="pending")], at=AT)
    with ledger.writing(outbox.engine) as connection:
        chain.record(connection, ledger.stamp(AT), "plan", "wake", [{"key": task(0).key, "after": {"status": "open"}}])
        chain.record(connection, ledger.stamp(AT), "plan", "outcome", [
            {"key": task(0).key, "after": {"status": "completed", "disposition": None, "note": None}}])
    [said] = [one for one in outbox.check_audit().wrong[task(0).key] if one.startswith("row")]
    assert said.startswith("row 3: Task")
    assert "cannot become 'completed'. Approve it first" in said


def test_tasks_without_rows_and_rows_without_tasks(outbox):
    """A task that nobody planned, and one that is gone from the ledger."""
    outbox.put([task(0)], at=AT)
    with ledger.writing(outbox.engine) as connection:
        connection.exec_driver_sql(f"UPDATE outbox SET key = key WHERE key = '{task(0).key}'")
        connection.execute(ledger.outbox.delete())
        connection.execute(ledger.tasks.update().values(key="f" * 40))
    assert outbox.check_audit().wrong == {
        "f" * 40: ["it is in the ledger, and no audit row ever planned it"],
        task(0).key: ["the audit tells of it, and the ledger does not hold it"]}


@pytest.fixture
def folder(tmp_path):
    """A workspace with twelve accounts, scores of a day, and what the plan made of them."""
    (tmp_path / "churnkit.toml").write_text('schema_version = 1\nname = "small"\n', encoding="utf-8")
    settings = load(tmp_path)
    raw = settings.path(settings.raw)
    raw.mkdir(parents=True)
    for name, frame in frames().items():
        frame.drop(columns="known_at", errors="ignore").to_csv(raw / f"{name}.csv", index=False)
    given = scores({"A00": 0.9, "A01": 0.6, "A02": 0.5})
    save(settings, "scores", "churn", AT, given)
    save(settings, "reasons", "churn", AT, pd.DataFrame(columns=list(REASONS)))
    do_plan(settings, AT)
    return tmp_path


def do_plan(settings, at, **more):
    """One run of the plan, with its record; `more` of what it heeds."""
    outbox, policy = open_outbox(settings), Policy.default()
    arms = outbox.arms()
    before = Before(tasks=tuple(outbox.tasks()), arms=pd.DataFrame(arms) if arms else None, folder=settings.root,
                    **more)
    day = plans.load_day(settings, "scores", at), plans.load_day(settings, "reasons", at)
    made = plan(*day, plans.known(settings, read(settings, at), at), policy, before, at=at)
    plans.keep(settings, at, policy, before, outbox, {"v3": "m" * 64})
    rows = made.arms.astype(object).where(made.arms.notna(), None).to_dict("records")
    outbox.carry_out([*made.tasks, *made.ghosts], made.closings, rows, at, "r1")
    outbox.close()


def rebuilt(folder):
    """Each task made again from its inputs."""
    settings = load(folder)
    outbox = open_outbox(settings)
    return {key: plans.rebuild(settings, outbox, told) for key, told in outbox.check_audit().told.items()}


@pytest.fixture
def registry(monkeypatch):
    """The registry's answer, so that no tracking server is needed: what hash a version has now."""
    answer = {"v3": "m" * 64}
    monkeypatch.setattr(plans, "model_hashes", lambda _settings, _scores: answer)
    return answer


def test_tasks_are_made_again_from_their_inputs(folder, registry):
    """From the kept policy, the day's scores and the state before the plan, each task comes out the same."""
    found = rebuilt(folder)
    assert len(found) >= 3
    assert {one.same for one in found.values()} == {True}, found
    assert "data h, model v3, policy" in next(iter(found.values())).sentences[0]
    plans.keep(load(folder), AT, Policy.default(), Before(), open_outbox(load(folder)))
    assert {one.same for one in rebuilt(folder).values()} == {True}  # a later record of that moment is not theirs


def test_own_words_and_measured_effects_come_out_the_same(folder, registry):
    """A workspace's own words, and an effect to its last digit, are inputs like the others."""
    (folder / "words.toml").write_text('[en.labels]\nanswers = "Say one of {answers}."\n', encoding="utf-8")
    settings = load(folder)
    save(settings, "scores", "churn", LATER, scores({"A04": 0.9, "A05": 0.6}).assign(cutoff=pd.Timestamp(LATER)))
    save(settings, "reasons", "churn", LATER, pd.DataFrame(columns=list(REASONS)))
    do_plan(settings, LATER, effects=pd.DataFrame([{
        "play": "save_call", "cause": "", "segment": "", "effect": 1 / 3, "sd": 0.01, "low": 0.1, "high": 0.6,
        "n_treated": 600, "n_control": 60, "prior": 0.15}]))
    tasks, found = {task.key: task for task in open_outbox(settings).tasks()}, rebuilt(folder)
    assert {(task.rank_by, task.effect, found[key].same) for key, task in tasks.items()} == {
        ("prior", 0.15, False), ("effect", 1 / 3, True)}, found
    assert all("differs in body" in one.sentences[0] for one in found.values() if not one.same)
    assert all("Say one of" in task.body for task in tasks.values() if task.rank_by == "effect")


def test_which_hash_does_not_match_is_said(folder, registry):
    """Scores that were changed, a model that was replaced and a policy that was edited are each named."""
    settings = load(folder)
    registry["v3"] = "n" * 64
    assert {one.sentences[0][:35] for one in rebuilt(folder).values()} == {"The model hash does not match: v3 w"}
    registry["v3"] = "m" * 64
    [record] = (settings.state / "plans").glob("*.json")
    whole = json.loads(record.read_text())
    whole["policy"]["control"]["salt"] = "other"
    record.write_text(json.dumps(whole))
    assert all("The policy hash does not match: the kept policy hashes to" in one.sentences[0]
               for one in rebuilt(folder).values())
    whole["policy"]["control"]["salt"] = Policy.default().control.salt
    record.write_text(json.dumps(whole))
    path = file_of(settings, "scores", "churn", AT)
    pd.read_parquet(path).assign(data_hash="other").to_parquet(path, index=False)
    assert next(one.sentences[1] for one in rebuilt(folder).values()) == (
        "The data hash does not match: the account's scores are of other data than h.")
    path.unlink()
    assert all(one.same is None and "scores/churn at 2026-11-01 is gone" in one.sentences[0]
               for one in rebuilt(folder).values())
    record.unlink()
    assert all("is not kept in" in one.sentences[0] for one in rebuilt(folder).values())


def test_raw_tables_that_tell_otherwise_are_said(folder, registry):
    """The hashes match, and the book does not: the task comes out another, and the field is named."""
    raw = load(folder).path(load(folder).raw) / "accounts.csv"
    raw.write_text(raw.read_text().replace("Customer", "Client"), encoding="utf-8")
    assert all(one.same is False and "made again it differs in" in one.sentences[0] and "title" in one.sentences[0]
               for one in rebuilt(folder).values())


def test_the_audit_job(folder, registry):
    """Exit code 0 where all holds, 3 where something does not, with the task named."""
    report = jobs.audit(folder)
    assert (report.code, report.rows) == (0, [])
    outbox = open_outbox(load(folder))
    key = outbox.tasks()[0].key
    one = jobs.audit(folder, key[:8])
    assert one.code == 0
    assert any("it comes out the same" in note for note in one.notes)
    with outbox.engine.begin() as connection:
        connection.execute(ledger.tasks.update().where(ledger.tasks.c.key == key).values(owner="eve"))
    assert jobs.audit(folder).code == 3
    assert jobs.audit(folder).rows[0]["key"] == key[:12]
    force(outbox, "DELETE FROM audit WHERE seq = 1")
    broken = jobs.audit(folder)
    assert broken.code == 3
    assert "broken at row 1: it is missing" in broken.notes[0]


def call(folder, *words):
    """A command, as a person types it."""
    done = CliRunner().invoke(cli.tasks, [words[0], *words[1:], str(folder)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_commands_on_tasks(folder):
    """List, show, snooze and close by a key's beginning; the answer is in the raw table for the next plan."""
    key = next(one.key for one in open_outbox(load(folder)).tasks() if not one.ghost)
    assert key[:12] in call(folder, "list")
    assert "no tasks" not in call(folder, "list", "--stage", "queued")
    said = call(folder, "snooze", key[:10], "--until", "2026-12-24", "--by", "ada", "--why", "on leave",
                "--at", "2026-11-03")
    assert "Snoozed by ada until 2026-12-24: on leave" in " ".join(said.split())
    assert "snoozed until 2026-12-24" in " ".join(call(folder, "show", key[:10]).split())
    call(folder, "close", key[:10], "--by", "ada", "--disposition", "saved", "--at", "2026-11-04")
    table = pd.read_csv(load(folder).path(load(folder).raw) / "outreach_outcomes.csv")
    assert list(table["status"]) == ["snoozed", "completed"]
    assert list(table["disposition"].fillna("")) == ["", "saved"]
    failed = CliRunner().invoke(cli.tasks, ["approve", key[:10], str(folder), "--by", "ada"])
    assert failed.exit_code == 1


@pytest.mark.parametrize(("do", "message"), [
    (lambda folder: jobs.show(folder, "zz"), "There is no task 'zz'. Look it up: churnkit tasks list"),
    (lambda folder: jobs.show(folder, ""), "tasks begin with ''. Write more of the key"),
    (lambda folder: jobs.listing(folder, stages=["propsed"]), "Did you mean 'proposed'"),
])
def test_mistakes_are_told(folder, do, message):
    """A key that fits none or several, and a stage that is none."""
    with pytest.raises(OutreachError, match=message):
        do(folder)
