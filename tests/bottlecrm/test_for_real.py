"""What is BottleCRM's own: the facts that the connector rests on, and what only a real server shows."""

import datetime as dt
from pathlib import Path

import pytest
import requests
from bottle_world import CLERK, HELPER
from churnkit_bottlecrm import CONTENT, FIELDS, KEY, NOTE, RESULT, SOURCE, TOKEN
from typer.testing import CliRunner

from churnkit.cli import app
from churnkit.errors import OutreachError
from churnkit.outreach.crm.base import CrmDeniedError, CrmDownError, Item
from churnkit.outreach.outbox import Outbox
from churnkit.testing.samples import AT, CANARY, OWNERS, sample
from churnkit.testing.stage import Stage

pytestmark = pytest.mark.bottlecrm
KEYS = [sample(n).key for n in range(25)]


@pytest.fixture
def crm(organisation):
    """A connector."""
    made = organisation.connect()
    yield made
    made.close()


@pytest.fixture
def write(crm):
    """Writes samples, all of them."""
    def all_of(*tasks):
        for start in range(0, len(tasks), 10):
            results = crm.write([Item(task, task.content_hash()) for task in tasks[start:start + 10]])
            assert {result.state for result in results} == {"written"}
    return all_of


def test_the_facts_that_it_rests_on(organisation, crm):
    """Two creates of one key make two tasks, replies tell no id, unknown fields are taken, lists tell no key."""
    task = {"title": "Call", "status": "New", "priority": "High", "nonsense": 1,
            "custom_fields": {KEY: "ab", SOURCE: "churnkit", "unknown": "gone"}}
    said = [organisation.bottle.person("POST", "/tasks/", task).json() for _ in range(2)]
    assert said == [{"error": False, "message": "Task Created Successfully"}] * 2
    rows = organisation.bottle.person("GET", f"/tasks/?cf_{KEY}=ab").json()["tasks"]
    assert (len(rows), {"custom_fields", "updated_at"} & set(rows[0])) == (2, set())
    whole = organisation.bottle.person("GET", f"/tasks/{rows[0]['id']}/").json()["task_obj"]
    assert (whole["custom_fields"], "updated_at" in whole) == ({KEY: "ab", SOURCE: "churnkit"}, False)
    assert crm.find(["ab"])["ab"].remote_id == min(rows, key=lambda row: row["created_at"])["id"]


def test_setup_makes_the_fields_once(organisation, crm):
    """What is missing is named, made when that is asked for, and then it is well; a run before that writes nothing."""
    organisation.bottle.db.execute("DELETE FROM custom_field_definition")
    todo = crm.check().todo
    assert [field["key"] in sentence for field, sentence in zip(FIELDS, todo, strict=False)] == [True] * len(FIELDS)
    assert "churnkit_account of Account" in todo[-1]
    box = Outbox("sqlite://")
    stage = Stage(box, organisation)
    stage.put([sample(0)])
    with pytest.raises(OutreachError, match="churnkit crm setup"):
        stage.run()
    assert organisation.tasks() == []
    made = crm.check(mend=True)
    assert (len(made.made), made.todo) == (len(FIELDS) + 1, ())
    assert crm.check(mend=True).made == ()
    assert stage.run().created == 1
    box.close()


def test_a_field_that_is_switched_off_stops_the_run(organisation, crm):
    """BottleCRM would take the task with 200 and drop the key without a word: the next run would make another."""
    organisation.bottle.db.execute("UPDATE custom_field_definition SET is_active = false WHERE key = %s", [KEY])
    try:
        assert [KEY in sentence for sentence in crm.check(mend=True).todo] == [True]
    finally:
        organisation.bottle.db.execute("UPDATE custom_field_definition SET is_active = true")


def test_a_choice_that_is_missing_is_named(organisation, crm):
    """A result that people cannot choose would never come home."""
    [options] = organisation.bottle.db.execute(
        "SELECT options FROM custom_field_definition WHERE key = %s", [RESULT]).fetchone()
    organisation.bottle.db.execute("DELETE FROM custom_field_definition WHERE key = %s", [RESULT])
    organisation.bottle.person("POST", "/custom-fields/", {
        "target_model": "Task", "key": RESULT, "field_type": "dropdown", "label": "Result",
        "options": [one for one in options if one["value"] != "saved"]})
    assert [sentence.endswith("the choices saved.") for sentence in crm.check(mend=True).todo] == [True]
    organisation.bottle.db.execute("DELETE FROM custom_field_definition WHERE key = %s", [RESULT])


def test_only_an_administrator_sees_all(organisation, monkeypatch):
    """Another user's list leaves tasks out, and what is not seen would be made twice: so nothing is written."""
    monkeypatch.setenv(TOKEN, CLERK)
    assert ["ADMIN" in sentence for sentence in organisation.connect().check().todo] == [True]


def test_a_scope_that_is_missing_is_named(organisation, monkeypatch):
    """BottleCRM's own words say which one; the token is not told."""
    monkeypatch.setenv(TOKEN, HELPER)
    with pytest.raises(CrmDeniedError, match="org:read") as raised:
        organisation.connect().check()
    assert HELPER not in str(raised.value)


def test_a_list_that_changes_while_it_is_read_leaves_nothing_out(organisation, crm, write):
    """A task that is deleted on a page that was read already moves all the others up by one: it is noticed."""
    write(*(sample(n) for n in range(25)))
    seen, gone = [], ""
    for page in crm.changes(None):
        seen += [remote.key for remote in page.remotes]
        if not gone:
            gone = seen[0]
            organisation.delete(gone)
    assert set(seen) == set(KEYS)


def test_a_list_that_never_stands_still_is_given_up(organisation, crm, write):
    """After a few beginnings the run ends in order."""
    write(*(sample(n) for n in range(25)))
    pages = (organisation.delete(page.remotes[0].key) for page in crm.changes(None) if len(page.remotes) == 10)
    with pytest.raises(CrmDownError, match="came and went"):
        list(pages)


def test_the_key_stands_for_an_id_that_was_not_told(crm, write, organisation):
    """An update and a removal find the task by its key."""
    write(sample(0))
    task = sample(0, body="Why: worse.")
    assert [one.state for one in crm.write([Item(task, task.content_hash(), KEYS[0])])] == ["written"]
    assert "worse" in organisation.texts(KEYS[0])[1]
    crm.remove([KEYS[0], "7b1f8c5e-0000-4000-8000-000000000000"])
    assert organisation.tasks() == []
    assert [one.state for one in crm.write([Item(task, "h", KEYS[0])])] == ["gone"]


def test_a_colleague_who_helps_is_no_new_owner(organisation, crm, write):
    """BottleCRM assigns a task to several; the owner is still the one whom churnkit named, if among them."""
    write(sample(0, owner=OWNERS[1]))
    profiles = organisation.bottle.profiles
    for names, owner in (([OWNERS[1], OWNERS[0]], OWNERS[1]), (["clerk@us.example", OWNERS[0]], OWNERS[0]), ([], None)):
        organisation.bottle.person("PATCH", f"/tasks/{organisation.id(KEYS[0])}/",
                                   {"assigned_to": [profiles[name] for name in names]})
        assert crm.find([KEYS[0]])[KEYS[0]].owner == owner


def test_an_inactive_user_is_not_assigned_by_the_table_either(organisation):
    """BottleCRM would drop the assignee without a word."""
    profiles = organisation.bottle.profiles
    Path(organisation.options["mapping"]).write_text(
        f"kind,id,crm_id\nowner,boss@us.example,{profiles[OWNERS[2]]}\nowner,new@us.example,{profiles[OWNERS[1]]}\n")
    crm = organisation.connect()
    refused, written = crm.write([Item(sample(0, owner="boss@us.example"), "h"),
                                  Item(sample(1, owner="new@us.example"), "h")])
    assert (refused.state, "no active user" in refused.why, written.state) == ("refused", True, "written")
    assert crm.find([KEYS[1]])[KEYS[1]].owner == "new@us.example"


@pytest.mark.parametrize(("form", "expected"), [
    ({"status": "Completed", "custom_fields": {RESULT: "saved", NOTE: "fine"}}, ("completed", "saved", "fine")),
    ({"status": "Completed", "custom_fields": {RESULT: "dismissed"}}, ("dismissed", None, None)),
    ({"status": "Completed"}, ("completed", None, None)),
    ({"status": "In Progress", "custom_fields": {RESULT: "dismissed"}}, ("in_progress", None, None)),
    ({"custom_fields": {RESULT: "do_not_contact"}}, ("open", "do_not_contact", None)),
    ({"custom_fields": {CONTENT: "[1, 2"}}, ("open", None, None)),
    ({"custom_fields": {CONTENT: "[1, 2]"}}, ("open", None, None)),
])
def test_a_form_in_churnkits_words(form, expected, organisation, crm, write):
    """Three states and a field say what churnkit knows as five states; a marker that was spoilt is no crash."""
    write(sample(0))
    organisation.bottle.person("PATCH", f"/tasks/{organisation.id(KEYS[0])}/", form)
    remote = crm.find([KEYS[0]])[KEYS[0]]
    assert (remote.status, remote.disposition, remote.note) == expected


def test_closing_respects_what_people_wrote(organisation, crm, write):
    """A remark stays beside the closing, and a result that was chosen already keeps the task open."""
    write(sample(0), sample(1), sample(2))
    organisation.person(KEYS[0], AT, note="rang twice")
    organisation.person(KEYS[1], AT, disposition="saved")
    crm.write([Item(sample(n), "h", KEYS[n], closing="recalled") for n in range(3)])
    there = crm.find(KEYS[:3])
    assert [(there[key].status, there[key].disposition, there[key].note) for key in KEYS[:3]] == [
        ("dismissed", None, "rang twice"), ("open", "saved", None), ("dismissed", None, "recalled")]


def test_an_update_leaves_other_custom_fields_alone(organisation, crm, write):
    """BottleCRM merges what is sent into what is there."""
    organisation.bottle.person("POST", "/custom-fields/", {
        "target_model": "Task", "key": "region", "label": "Region", "field_type": "text"})
    write(sample(0))
    path = f"/tasks/{organisation.id(KEYS[0])}/"
    organisation.bottle.person("PATCH", path, {"custom_fields": {"region": "north"}, "due_date": "2026-12-01"})
    task = sample(0, body="Why: worse.", priority="low")
    crm.write([Item(task, task.content_hash(), KEYS[0])])
    whole = organisation.bottle.person("GET", path).json()["task_obj"]
    assert (whole["custom_fields"]["region"], whole["due_date"], whole["priority"]) == ("north", "2026-12-01", "High")
    organisation.bottle.db.execute("DELETE FROM custom_field_definition WHERE key = 'region'")


def test_two_accounts_of_one_id_are_refused(organisation, crm):
    """Which of them is meant is for a person to say."""
    db = organisation.bottle.db
    db.execute("UPDATE accounts SET custom_fields = custom_fields || '{\"churnkit_account\": \"A00\"}' "
               "WHERE name = 'Company A29'")
    [result] = crm.write([Item(sample(0), "h")])
    db.execute("UPDATE accounts SET custom_fields = custom_fields || '{\"churnkit_account\": \"A29\"}' "
               "WHERE name = 'Company A29'")
    assert (result.state, "account 'A00'" in result.why, "crm_map.csv" in result.why) == ("refused", True, True)


def test_from_the_shell(organisation, installed, tmp_path, monkeypatch):
    """`churnkit crm setup` and `churnkit crm test` do with it what they do with churnkit's own connectors."""
    monkeypatch.syspath_prepend(installed)
    (tmp_path / "churnkit.toml").write_text(
        f'crm = "bottlecrm"\n[crm_options]\nportal = "{organisation.bottle.org}"\n'
        f'url = "{organisation.server.url}"\nmapping = "{organisation.options["mapping"]}"\n')
    for words, said in ((["crm", "setup", "bottlecrm"], "It is ready."),
                        (["crm", "test", "bottlecrm", "--account", "A07", "--yes"], "none is left behind")):
        shown = CliRunner().invoke(app, [*words[:3], str(tmp_path), *words[3:]])
        assert (shown.exit_code, said in shown.output) == (0, True), shown.output
        assert CANARY not in shown.output
    assert organisation.tasks() == []


def test_the_due_date_is_a_date(crm, write):
    """It comes back as it was sent, whatever the organisation's time zone."""
    write(sample(0, due=dt.date(2026, 12, 31)))
    assert crm.find([KEYS[0]])[KEYS[0]].due == dt.date(2026, 12, 31)


def test_nobody_without_a_token_gets_in(organisation):
    """The server that is tested is guarded as a real one is."""
    reply = requests.get(f"{organisation.bottle.url}/api/tasks/", timeout=30)
    assert reply.status_code == 403
