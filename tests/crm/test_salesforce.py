"""The Salesforce connector: set-up, who is who, what is written, what comes back, and what its failures mean."""

import datetime as dt
import logging
import subprocess
import sys
import traceback
from dataclasses import replace

import pytest
import trustme
from fake_salesforce import FakeSalesforce
from salesforce_world import SalesforceWorld, certificate

from churnkit.errors import SettingsError
from churnkit.outreach.crm.base import (
    CrmDeniedError,
    CrmDownError,
    CrmRefusedError,
    CrmUnsureError,
    Item,
    connect,
)
from churnkit.outreach.crm.salesforce_faults import failure, heard
from churnkit.outreach.crm.salesforce_fields import Facts, create_of
from churnkit.outreach.task import Task
from churnkit.testing.samples import AT, CANARY, OWNERS, sample
from churnkit.testing.server import FAULTS, Reply, Server

HOUR = dt.timedelta(hours=1)
KEYS = [sample(n).key for n in range(12)]


@pytest.fixture
def world(tmp_path):
    """An org that is set up; whatever was asked of it fits the contract."""
    with SalesforceWorld(tmp_path) as made:
        made.fake.now = lambda: AT
        yield made
        assert made.fake.violations == []


def new(*tasks):
    return [Item(task, task.content_hash()) for task in tasks]


def known(result, task=None, closing=""):
    task = task or sample()
    return Item(task, task.content_hash(), result.remote.remote_id, closing)


def only(results):
    [result] = results
    return result


# which org, and whether it is ready


@pytest.mark.parametrize(("sandbox", "kind"), [(True, "sandbox"), (False, "production")])
def test_says_which_org_it_is(world, sandbox, kind):
    """The org by its id, and whether it is a sandbox, so that the wrong one is not written to."""
    world.fake.sandbox = sandbox
    portal = world.connect().check()
    assert (portal.id, portal.kind, portal.name, portal.todo) == ("00D000000000001EAA", kind, "Salesforce Acme", ())


def test_missing_fields_are_named_for_an_administrator(world):
    """Each field with its type and length, in the words of the administrator's screen; nothing is made unasked."""
    world.fake.fields = FakeSalesforce(custom=False).fields
    todo = world.connect().check().todo
    assert len(todo) == 9
    assert "Make the field Churnkit_Key__c of Activity: Text(64), with External ID, Unique and Case Sensitive ticked" \
        in todo[0]
    assert any("Churnkit_Note__c of Activity: Text Area (Long)(32768)" in line for line in todo)
    assert any("Picklist of open, in_progress, snoozed, completed, dismissed" in line for line in todo)
    assert world.fake.asked["custom_field"] == 0


def test_mending_makes_the_fields_once(world):
    """What can be made is made; the access to it, which churnkit cannot give itself, is asked for; then all is well."""
    world.fake.fields = FakeSalesforce(custom=False).fields
    crm = world.connect()
    portal = crm.check(mend=True)
    assert (len(portal.made), len(portal.todo)) == (9, 9)
    assert all("field-level security" in line for line in portal.todo)
    again = crm.check(mend=True)
    assert (again.made, len(again.todo)) == ((), 9)
    world.fake.hidden.clear()
    assert (crm.check(mend=True).todo, crm.capabilities.unique_keys) == ((), True)
    assert only(crm.write(new(sample()))).state == "written"


def test_mending_without_permission_makes_nothing(world):
    """Where churnkit's user may not customize the org, the list is the administrator's."""
    world.fake.fields, world.fake.may_customize = FakeSalesforce(custom=False).fields, False
    portal = world.connect().check(mend=True)
    assert (portal.made, len(portal.todo)) == ((), 9)
    assert "Make the field Churnkit_Key__c" in portal.todo[0]


def test_an_org_without_unique_activity_fields_is_used_all_the_same(world):
    """The key is then a plain field, the capabilities say so, and so does the org's name in every report."""
    world.fake.fields, world.fake.unique_activities = FakeSalesforce(custom=False).fields, False
    crm = world.connect()
    assert "made the field Churnkit_Key__c of Activity (not unique)" in crm.check(mend=True).made
    world.fake.hidden.clear()
    portal = crm.check()
    assert (portal.todo, crm.capabilities.unique_keys, crm.capabilities.upsert) == ((), False, False)
    assert "without unique keys" in portal.name
    first = crm.write(new(sample()))
    assert only(crm.write(new(sample()))).state == "written"  # a second one: the engine looks before it sends again
    assert crm.find([KEYS[0]])[KEYS[0]].remote_id == only(first).remote.remote_id


@pytest.mark.parametrize(("change", "said"), [
    ({"length": 32}, "takes 32 characters; it must be Text(64)"),
    ({"type": "double"}, "is a double; it must be Text(64)"),
    ({"createable": False}, "may not be written by churnkit's user")])
def test_a_field_that_cannot_hold_it_is_named(world, change, said):
    """A field of that name that is too short, of another type, or read-only."""
    world.fake.fields["Churnkit_Hash__c"].update(change)
    [line] = world.connect().check().todo
    assert said in line


def test_a_picklist_that_lacks_a_word_is_named(world):
    """A disposition that nobody could choose."""
    world.fake.fields["Churnkit_Disposition__c"]["picklistValues"].pop(0)
    assert world.connect().check().todo == (
        "The field Churnkit_Disposition__c of Activity lacks the values saved.",)


def test_the_account_field_is_looked_for(world, tmp_path):
    """Without a field that holds our ids, accounts must be listed; a mapping of accounts is as good."""
    del world.fake.account_fields["Churnkit_Account_Id__c"]
    [line] = world.connect().check().todo
    assert "Account has no field Churnkit_Account_Id__c" in line
    (tmp_path / "crm_map.csv").write_text(f"kind,id,crm_id\naccount,A00,{next(iter(world.fake.accounts))}\n")
    assert world.connect().check().todo == ()
    assert world.connect(account_field="Id").check().todo == ()


def test_before_the_set_up_it_says_what_to_run(world):
    """A question about a field that is not there names the mend."""
    world.fake.fields = FakeSalesforce(custom=False).fields
    with pytest.raises(CrmDeniedError, match="INVALID_FIELD.*Run: churnkit crm setup salesforce"):
        world.connect().find(KEYS[:1])


# who is who


def refused(world, task, **options):
    result = only(world.connect(**options).write(new(task)))
    assert result.state == "refused"
    assert world.tasks() == []
    return result.why


@pytest.mark.parametrize(("email", "why"), [
    ("nobody@us.example", "is no user of this Salesforce org"), (OWNERS[2], "is no active user"),
    ("two@us.example", "is the address of 2 active users"), ("guest@us.example", "is no user"),
    ("odd\x00@us.example", "is no user")])
def test_an_owner_who_cannot_be_told_is_nobody_else(world, email, why):
    """Unknown, inactive, ambiguous, or a customer's login: a dead letter with the mend, never a default person."""
    for number in (900, 901):
        world.fake.user(f"005{number:012d}AAA", "two@us.example")
    world.fake.user("005000000000902AAA", "guest@us.example", kind="CspLitePortal")
    said = refused(world, sample(owner=email))
    assert why in said
    assert "add the row owner," in said
    assert world.fake.asked["create"] == 0


def test_owners_go_by_any_case_and_come_back_as_they_were(world):
    """An address in capitals is the same person, and its spelling is no person's edit."""
    crm = world.connect()
    crm.write(new(sample(owner="Ann@US.example")))
    assert crm.find([KEYS[0]])[KEYS[0]].owner == "Ann@US.example"
    world.person(KEYS[0], AT + HOUR, owner=OWNERS[1])
    assert crm.find([KEYS[0]])[KEYS[0]].owner == OWNERS[1]


def test_the_mapping_goes_first_and_comes_back(world, tmp_path):
    """A row of crm_map.csv decides, in both directions."""
    account = world.fake.account("another")
    eve = world.user_of(OWNERS[1])
    (tmp_path / "crm_map.csv").write_text(f"kind,id,crm_id\nowner,kim@us.example,{eve}\naccount,A00,{account}\n")
    crm = world.connect()
    assert only(crm.write(new(sample(owner="kim@us.example")))).state == "written"
    [task] = world.fake.of_key(KEYS[0])
    assert (task["OwnerId"], task["WhatId"]) == (eve, account)
    assert crm.find([KEYS[0]])[KEYS[0]].owner == "kim@us.example"


def test_a_mapped_user_who_left_is_refused_with_the_mend(world, tmp_path):
    """Salesforce itself refuses an inactive owner; the reason says what to do."""
    (tmp_path / "crm_map.csv").write_text(f"kind,id,crm_id\nowner,kim@us.example,{world.user_of(OWNERS[2])}\n")
    said = refused(world, sample(owner="kim@us.example"))
    assert "INACTIVE_OWNER_OR_USER" in said
    assert "add the row owner,kim@us.example" in said


def test_a_queue_goes_by_its_name(world):
    """A task that a person gave to a queue has no address to tell."""
    crm = world.connect()
    crm.write(new(sample()))
    world.fake.users["00G000000000001AAA"] = {"Id": "00G000000000001AAA", "Email": None, "Name": "Renewals"}
    world.fake.touch(world.fake.of_key(KEYS[0])[0], OwnerId="00G000000000001AAA")
    assert crm.find([KEYS[0]])[KEYS[0]].owner == "Renewals"


def test_accounts_are_told_apart_by_case(world):
    """Salesforce takes a00 for A00; our ids do not."""
    assert "is the Churnkit_Account_Id__c of no account" in refused(world, sample(account_id="a00"))
    world.fake.account("B1")
    world.fake.account("B1")
    assert "of 2 accounts" in refused(world, sample(account_id="B1"))


def test_account_ids_may_be_salesforces_own(world):
    """With account_field = Id a malformed id asks nothing, since it would fail the query for all."""
    account = next(iter(world.fake.accounts))
    assert "is the Id of no account" in refused(world, sample(account_id="A00"), account_field="Id")
    assert not any("FROM Account" in query for query in world.fake.queries)
    crm = world.connect(account_field="Id")
    assert only(crm.write(new(sample(account_id=account)))).state == "written"
    assert only(crm.write(new(sample(1, account_id=account[:15])))).state == "written"


def test_contacts(world, tmp_path):
    """A contact's id is taken as it is, a mapped one as mapped; any other is refused."""
    world.fake.contacts |= {"003000000000001AAA", "003000000000002AAA"}
    assert "contact 'C9' is no id of a contact" in refused(world, sample(contact_id="C9"))
    (tmp_path / "crm_map.csv").write_text("kind,id,crm_id\ncontact,C9,003000000000002AAA\n")
    crm = world.connect()
    crm.write(new(sample(0, contact_id="003000000000001AAA"), sample(1, contact_id="C9")))
    assert [task["WhoId"] for task in world.fake.tasks.values()] == ["003000000000001AAA", "003000000000002AAA"]
    assert "invalid cross reference id" in only(crm.write(new(sample(2, contact_id="003000000000009AAA")))).why


@pytest.mark.parametrize("odd", ["' OR Name != '", "O'Hara \\", '"quoted"', "\\' OR Id != null OR Name = '",
                                 "ünï-code", "a+b&c=d%27"])
def test_values_stay_values_in_a_query(world, odd):
    """An account id or address with quotes and backslashes finds itself and nothing else."""
    assert "of no account" in refused(world, sample(account_id=odd))
    mine = world.fake.account(odd)
    owner = world.fake.user("005000000000777AAA", f"{odd.lower()}@us.example")
    crm = world.connect()
    assert only(crm.write(new(sample(account_id=odd, owner=f"{odd}@us.example")))).state == "written"
    [task] = world.fake.of_key(KEYS[0])
    assert (task["WhatId"], task["OwnerId"]) == (mine, owner)


def test_a_key_that_is_none_is_never_asked_for(world):
    """Keys go into queries: whatever is not hexadecimal is refused before."""
    crm = world.connect()
    with pytest.raises(CrmRefusedError, match="is no task key"):
        crm.find(["' OR Id != null"])
    assert only(crm.write(new(sample(key="G1")))).state == "refused"
    assert world.fake.asked["create"] == 0


# what is written


def test_a_new_task_carries_everything(world):
    """Subject, brief, owner, account, due date, priority and type, and what a lost ledger is made anew from."""
    crm, task = world.connect(), sample(title="Call\nthem", body="Why:\r\n- use halved\x00\u202e")
    crm.write(new(task))
    [there] = world.fake.of_key(KEYS[0])
    assert {name: there[name] for name in ("Subject", "Description", "Status", "Priority", "TaskSubtype",
                                           "ActivityDate", "Churnkit_Score__c", "Churnkit_Status__c")} == {
        "Subject": "Call them", "Description": "Why:\n- use halved", "Status": "Not Started", "Priority": "High",
        "TaskSubtype": "Call", "ActivityDate": "2026-11-06", "Churnkit_Score__c": 0.4, "Churnkit_Status__c": "open"}
    remote = crm.find([KEYS[0]])[KEYS[0]]
    assert Task.from_dict(dict(remote.content)) == task
    assert (remote.content_hash, remote.status, remote.due) == (task.content_hash(), "open", task.due)


def test_long_texts_are_cut_and_the_body_is_kept(world):
    """A body that does not fit twice stands in the Description alone, and comes back from there."""
    crm, task = world.connect(), sample(title="x" * 300, body="why " * 9000)
    assert only(crm.write(new(task))).state == "written"
    remote = crm.find([KEYS[0]])[KEYS[0]]
    title, body = world.texts(KEYS[0])
    assert (len(title), len(body) <= 32_000, body.endswith("[...]")) == (255, True, True)
    assert Task.from_dict(dict(remote.content)) == replace(task, body=body)


def test_what_an_org_does_not_have_is_left_out():
    """Renamed statuses and priorities: a task begins and ends as the org's own do."""
    statuses = [{"ApiName": "Neu", "IsClosed": False, "IsDefault": True}, {"ApiName": "Alt", "IsClosed": False},
                {"ApiName": "Weg", "IsClosed": True}, {"ApiName": "Fertig", "IsClosed": True, "IsDefault": True}]
    facts = Facts.of({"Priority": {"picklistValues": [{"value": "Hoch", "active": True}]}}, statuses)
    assert (facts.begin, facts.finish, facts.unique) == ("Neu", "Fertig", False)
    made = create_of(sample(), "ab", facts)
    assert (made["Status"], made.keys() & {"Priority", "TaskSubtype"}) == ("Neu", set())


def test_a_score_that_is_no_number_is_left_out():
    """JSON knows no NaN, and a request that cannot be made would look like a line that dropped."""
    assert create_of(sample(score=float("nan")), "ab", Facts())["Churnkit_Score__c"] is None


def test_a_create_never_overwrites(world):
    """A key that is there already, and that a person has ended, stays as it is: the engine is told to look."""
    crm = world.connect()
    crm.write(new(sample()))
    world.person(KEYS[0], AT + HOUR, status="completed", disposition="saved", owner=OWNERS[1])
    before = dict(world.fake.of_key(KEYS[0])[0])
    result = only(crm.write(new(sample(body="Why: more."))))
    assert (result.state, "DUPLICATE_VALUE" in result.why) == ("doubt", True)
    assert world.fake.of_key(KEYS[0]) == [before]


def test_an_update_leaves_peoples_fields_alone(world):
    """Title, body, score, hash and content are churnkit's; all else stays."""
    crm = world.connect()
    result = only(crm.write(new(sample())))
    world.person(KEYS[0], AT + HOUR, status="in_progress", owner=OWNERS[1], due=dt.date(2026, 12, 1), note="mine",
                 disposition="later")
    before = dict(world.fake.of_key(KEYS[0])[0])
    changed = sample(title="Visit", body="Why: more.", score=0.5)
    assert only(crm.write([known(result, changed)])).state == "written"
    after = world.fake.of_key(KEYS[0])[0]
    assert {name for name in after if after[name] != before[name]} == {
        "Subject", "Description", "Churnkit_Score__c", "Churnkit_Hash__c", "Churnkit_Content__c", "LastModifiedById"}


@pytest.mark.parametrize(("hand", "status", "note"), [
    ({}, "dismissed", "the cause is gone"), ({"Status": "In Progress"}, "in_progress", None),
    ({"Status": "Completed"}, "completed", None), ({"Churnkit_Status__c": "snoozed"}, "snoozed", None)])
def test_only_an_untouched_task_is_closed(world, hand, status, note):
    """A person who began it keeps it, in whichever field they said so."""
    crm = world.connect()
    result = only(crm.write(new(sample())))
    world.fake.touch(world.fake.of_key(KEYS[0])[0], **hand)
    assert only(crm.write([known(result, closing="the cause is gone")])).state == "written"
    remote = crm.find([KEYS[0]])[KEYS[0]]
    assert (remote.status, remote.note) == (status, note)


@pytest.mark.parametrize(("code", "text", "what", "state"), [
    ("FIELD_CUSTOM_VALIDATION_EXCEPTION", "Ask\x1b[31m first", "create", "refused"),
    ("UNABLE_TO_LOCK_ROW", "busy", "create", "again"), ("UNABLE_TO_LOCK_ROW", "busy", "update", "again"),
    ("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "trigger: UNABLE_TO_LOCK_ROW", "update", "again"),
    ("UNKNOWN_EXCEPTION", "1234-5678", "create", "doubt"), ("DUPLICATE_VALUE", "other", "update", "refused"),
    ("ENTITY_IS_DELETED", "gone", "update", "gone"), ("INVALID_CROSS_REFERENCE_KEY", "what", "create", "refused"),
    ("STORAGE_LIMIT_EXCEEDED", "full", "create", "refused")])
def test_each_row_has_its_own_fate(world, code, text, what, state):
    """One row's error is its own, and says what it means; the others go through."""
    crm = world.connect()
    items = new(*(sample(n) for n in range(5)))
    if what == "update":
        items = [known(result, sample(n, body="more")) for n, result in enumerate(crm.write(items))]
    world.fail("rows")
    world.fake.row_code, world.fake.row_text = code, text
    results = {result.key: result for result in crm.write(items)}
    assert [results[key].state for key in KEYS[:5]] == ["written", "written", "written", state, "written"]
    assert code in results[KEYS[3]].why
    assert "\x1b" not in results[KEYS[3]].why


def test_what_a_person_deleted_is_gone(world):
    """In the recycle bin or out of it, an update says so, and nothing is made anew."""
    crm = world.connect()
    results = crm.write(new(sample(0), sample(1)))
    world.delete(KEYS[0])
    del world.fake.tasks[results[1].remote.remote_id]
    assert [result.state for result in crm.write([known(result, sample(n)) for n, result in enumerate(results)])] == [
        "gone", "gone"]
    assert world.tasks() == []


def test_two_hundred_at_a_time(world):
    """Many rows go out in requests of two hundred, and many keys are asked for in queries that fit an address."""
    crm, tasks = world.connect(), [sample(n % 30, key=f"{n:040x}") for n in range(450)]
    assert {result.state for result in crm.write(new(*tasks))} == {"written"}
    assert world.fake.asked["create"] == 3
    world.fake.queries.clear()
    assert len(crm.find([task.key for task in tasks[:200]])) == 200
    assert len(world.fake.queries) == 2


def test_a_budget_that_ends_amid_a_call(world):
    """Rows that were written stay so; those that were left go again."""
    crm, calls = world.connect(), []
    [first] = crm.write(new(sample(0)))

    def spend():
        calls.append(1)
        if len(calls) == 3:  # a look-up, the creates, and then the updates
            raise CrmDownError("enough for today", today=False)

    crm.spend = spend
    mixed = [*new(sample(1)), known(first, sample(0, body="more"))]
    assert {result.key: result.state for result in crm.write(mixed)} == {KEYS[1]: "written", KEYS[0]: "again"}


def test_every_request_is_paid_for(world):
    """The engine's budget sees each request that goes out, one for one."""
    crm, paid = world.connect(), []
    crm.spend = lambda: paid.append(1)
    crm.check(mend=True)
    [result] = crm.write(new(sample()))
    crm.find(KEYS[:1])
    list(crm.changes(None))
    crm.remove([result.remote.remote_id])
    assert len(paid) == len(world.server.seen)


def test_removing(world):
    """The trial's task goes into the recycle bin; one that is gone is no error."""
    crm = world.connect()
    ids = [result.remote.remote_id for result in crm.write(new(sample(0), sample(1)))]
    crm.remove(ids[:1])
    crm.remove(ids)
    crm.remove(["00T000000009999AAA"])
    assert world.tasks() == []


# what comes back


@pytest.mark.parametrize(("hand", "status"), [
    ({}, "open"), ({"Status": "In Progress"}, "in_progress"), ({"Status": "Waiting on someone else"}, "in_progress"),
    ({"Status": "Deferred"}, "snoozed"), ({"Status": "Completed"}, "completed"),
    ({"Status": "Completed", "Churnkit_Status__c": "dismissed"}, "dismissed"),
    ({"Churnkit_Status__c": "dismissed"}, "dismissed"), ({"Churnkit_Status__c": None}, "open"),
    ({"Status": "Completed", "Churnkit_Status__c": "in_progress"}, "completed"),
    ({"Status": "In Progress", "Churnkit_Status__c": "snoozed"}, "in_progress")])
def test_statuses(world, hand, status):
    """Closed is closed; "dismissed" is said in churnkit's own field; of an open task the field that was moved tells."""
    crm = world.connect()
    crm.write(new(sample()))
    world.fake.touch(world.fake.of_key(KEYS[0])[0], **hand)
    assert crm.find([KEYS[0]])[KEYS[0]].status == status


def test_who_changed_it(world):
    """A person by their address; churnkit itself is nobody."""
    crm = world.connect()
    crm.write(new(sample()))
    assert crm.find([KEYS[0]])[KEYS[0]].by is None
    world.person(KEYS[0], AT + HOUR, status="in_progress")
    remote = crm.find([KEYS[0]])[KEYS[0]]
    assert (remote.by, remote.modified_at) == (OWNERS[0], AT + HOUR)


def test_a_key_that_is_no_key_is_told(world):
    """Somebody wrote into churnkit's field by hand: it is a problem for a person, and the rest goes on."""
    crm = world.connect()
    crm.write(new(sample(0), sample(1)))
    world.fake.touch(world.fake.of_key(KEYS[0])[0], Churnkit_Key__c="my own \x07 words")
    [page] = crm.changes(None)
    assert sorted(bool(remote.problem) for remote in page.remotes) == [False, True]
    assert "Clear the field there" in "".join(remote.problem for remote in page.remotes)


@pytest.mark.parametrize("content", ["", "{", "[]", "7", None])
def test_content_that_a_person_broke_is_none(world, content):
    """The task is understood without it."""
    crm = world.connect()
    crm.write(new(sample()))
    world.fake.touch(world.fake.of_key(KEYS[0])[0], Churnkit_Content__c=content)
    remote = crm.find([KEYS[0]])[KEYS[0]]
    assert (remote.content, remote.problem, remote.status) == (None, "", "open")


def test_pages_come_in_order_with_a_cursor_each(world):
    """The oldest change first, each page's cursor its newest change."""
    world.fake.page, crm = 2, world.connect()
    crm.write(new(*(sample(n) for n in range(5))))
    for n in (1, 3):
        world.person(KEYS[n], AT + n * HOUR, status="in_progress")
    further = world.fake.asked["query_more"]
    pages = list(crm.changes(None))
    assert [len(page.remotes) for page in pages] == [2, 2, 1]
    assert [remote.key for page in pages for remote in page.remotes][3:] == [KEYS[1], KEYS[3]]
    assert pages[-1].cursor == (AT + 3 * HOUR).isoformat()
    assert world.fake.asked["query_more"] - further == 2


def test_the_overlap_loses_nothing(world):
    """Two changes within one second, and one that is seen late, are in the next answer; the cursor never goes back."""
    crm = world.connect()
    crm.write(new(*(sample(n) for n in range(3))))
    world.person(KEYS[0], AT + HOUR, status="in_progress")
    cursor = list(crm.changes(None))[-1].cursor
    world.person(KEYS[1], AT + HOUR, status="completed")
    late = world.fake.of_key(KEYS[2])[0]
    late.update(SystemModstamp=AT + HOUR - dt.timedelta(minutes=2), Status="Deferred")
    [page] = crm.changes(cursor)
    assert {remote.key: remote.status for remote in page.remotes} == {
        KEYS[0]: "in_progress", KEYS[1]: "completed", KEYS[2]: "snoozed"}
    assert page.cursor == cursor
    assert [len(page.remotes) for page in crm.changes((AT + 9 * HOUR).isoformat())] == [0]
    assert [page.cursor for page in crm.changes((AT + 9 * HOUR).isoformat())] == [(AT + 9 * HOUR).isoformat()]


def test_a_cursor_that_cannot_be_read_reads_all(world):
    """Rather everything once more than nothing."""
    crm = world.connect()
    crm.write(new(sample()))
    assert [len(page.remotes) for page in crm.changes("yesterday")] == [1]


@pytest.mark.parametrize("further", ["https://evil.example/services/data/v60.0/query/01g000000000001AAA-2",
                                     "//evil.example/query/01g000000000001AAA-2", "/services/apexrest/x", None,
                                     "/services/data/v60.0/query/../../oauth2/revoke"])
def test_a_next_page_elsewhere_is_not_asked_for(world, further):
    """The address of the next page is the server's word: it may name a page of this query and nothing else."""
    crm = world.connect()
    crm.write(new(*(sample(n) for n in range(3))))
    page, world.fake.page = world.fake._page, 2
    world.fake._page = lambda cursor, start: Reply(200, {**page(cursor, start).body, "nextRecordsUrl": further})
    asked = len(world.server.seen)
    with pytest.raises(CrmDeniedError, match="no page of this query"):
        list(crm.changes(None))
    assert len(world.server.seen) == asked + 1
    world.fake.violations.clear()  # the fake lied on purpose


def test_a_query_without_end_ends(world):
    """A server that names the same page for ever is found out."""
    crm = world.connect()
    crm.write(new(*(sample(n) for n in range(3))))
    page, world.fake.page = world.fake._page, 2
    first = "/services/data/v60.0/query/01g000000000001AAA-2"
    world.fake._page = lambda cursor, _: Reply(200, {**page(cursor, 0).body, "nextRecordsUrl": first})
    world.fake._more = lambda _: world.fake._page(next(reversed(world.fake._cursors)), 0)
    with pytest.raises(CrmDeniedError, match="no page of this query"):
        list(crm.changes(None))


# failures


@pytest.mark.parametrize(("fault", "error", "wait", "done"), [
    ("dropped_before", CrmUnsureError, None, 0), ("dropped_after", CrmUnsureError, None, 1),
    ("lost", CrmUnsureError, None, 1), ("502", CrmUnsureError, None, 1), ("504", CrmUnsureError, None, 1),
    ("503", CrmDownError, None, 0), ("429", CrmDownError, 2.0, 0), ("429_bare", CrmDownError, None, 0),
    ("slow", CrmUnsureError, None, 1), ("malformed", CrmUnsureError, None, 1)])
def test_a_create_goes_out_once(world, fault, error, wait, done):
    """Whatever happens to the line, the request is not sent again, and what it may have done is said."""
    crm = world.connect()
    crm.check()
    world.fail(fault)
    with pytest.raises(error) as caught:
        crm.write(new(sample()))
    assert (getattr(caught.value, "wait", None), getattr(caught.value, "today", True)) == (wait, True)
    assert sum(method == "POST" for method, _, _ in world.server.seen) == 1
    assert len(world.tasks()) == done


@pytest.mark.parametrize("fault", FAULTS)
def test_a_question_that_fails_is_only_down(world, fault):
    """Reading changes nothing, so nothing is in doubt after it."""
    crm = world.connect()
    crm.check()
    world.server.writes = lambda _: True
    world.server.faults.append(fault)
    with pytest.raises(CrmDownError) as caught:
        crm.find(KEYS[:1])
    assert type(caught.value) is CrmDownError


def test_no_connection_is_down(world):
    """Nothing was sent: nothing is in doubt."""
    crm = world.connect()
    crm.check()
    world.fail("refused")
    with pytest.raises(CrmDownError, match="no connection"):
        crm.write(new(sample()))


def answering(world, status, code, text="no", headers=None):
    """From now on the org answers this."""
    body = [{"message": text, "errorCode": code}] if code else None
    world.server.app = lambda _: Reply(status, body, headers or {})


@pytest.mark.parametrize(("status", "code", "text", "headers", "writing", "error", "wait", "today"), [
    (403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.", {}, True, CrmDownError, None, False),
    (403, "REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests (Concurrent API Requests) Limit exceeded.", {}, True,
     CrmDownError, None, True),
    (403, "INSUFFICIENT_ACCESS", "no", {}, True, CrmDeniedError, None, True),
    (401, "INVALID_SESSION_ID", "expired", {}, True, CrmDeniedError, None, True),
    (404, "NOT_FOUND", "no", {}, True, CrmDeniedError, None, True),
    (300, "", "", {}, True, CrmRefusedError, None, True),
    (400, "JSON_PARSER_ERROR", "no", {}, True, CrmRefusedError, None, True),
    (400, "QUERY_TIMEOUT", "slow", {}, False, CrmDownError, None, True),
    (400, "INVALID_FIELD", "no", {}, False, CrmDeniedError, None, True),
    (500, "UNKNOWN_EXCEPTION", "oops", {}, True, CrmUnsureError, None, True),
    (500, "UNKNOWN_EXCEPTION", "oops", {}, False, CrmDownError, None, True),
    (408, "", "", {}, True, CrmUnsureError, None, True),
    (503, "SERVER_UNAVAILABLE", "busy", {"Retry-After": "7"}, True, CrmDownError, 7.0, True),
    (429, "", "", {"Retry-After": "soon"}, True, CrmDownError, None, True)])
def test_what_a_status_means(world, status, code, text, headers, writing, error, wait, today):  # noqa: PLR0917
    """Quota or permission, poison or passing, done or not: the reply's status, its code, and whether it was a write."""
    crm = world.connect()
    crm.check()
    crm.write(new(sample(9)))  # so that whom it names is known
    answering(world, status, code, text, headers)
    with pytest.raises(CrmDownError if error is CrmDeniedError else error) as caught:
        crm.write(new(sample(9, key="ab"))) if writing else crm.find(KEYS[:1])
    assert type(caught.value) is error
    assert (getattr(caught.value, "wait", None), getattr(caught.value, "today", True)) == (wait, today)


def test_a_moment_to_wait_for_is_held_against_the_servers_clock():
    """Retry-After as a date: this machine's clock may be wrong."""
    said = heard(503, None, {"Date": "Sun, 01 Nov 2026 06:00:00 GMT", "Retry-After": "Sun, 01 Nov 2026 06:01:30 GMT"})
    assert failure(said, "a.b", writing=True).wait == 90.0


@pytest.mark.parametrize("body", [None, b"", b"[]", b"7", b"{}", b"[7]", b'"x"', b"null", b"<html>", b'[{"success": true}]'])
def test_an_odd_reply_to_a_create_is_doubt(world, body):
    """A reply of the wrong shape says nothing about what was done."""
    crm = world.connect()
    crm.check()
    crm.write(new(sample(9)))
    world.server.app = lambda _: Reply(200, body)
    try:
        states = [result.state for result in crm.write(new(sample(9, key="ab")))]
    except CrmUnsureError:
        states = ["doubt"]
    assert states == ["doubt"]


@pytest.mark.parametrize("body", [None, b"[]", b"7", b"{}", b'{"records": 7}', b'{"records": [7]}', b"null", b"<html>"])
def test_an_odd_reply_to_a_question_is_down(world, body):
    """And never a task that is not there."""
    crm = world.connect()
    crm.check()
    world.server.app = lambda _: Reply(200, body)
    with pytest.raises(CrmDownError, match="cannot be read"):
        crm.find(KEYS[:1])


def test_a_spent_quota_ends_the_day(world):
    """The org's own count of requests: when it is spent, today is over."""
    crm = world.connect()
    crm.check()
    world.fake.daily = world.fake.used
    with pytest.raises(CrmDownError, match="REQUEST_LIMIT_EXCEEDED") as caught:
        crm.find(KEYS[:1])
    assert caught.value.today is False


# signing in


def test_a_token_that_expired_is_for_a_person_to_mend(world):
    """A plain token cannot be renewed."""
    crm = world.connect()
    crm.check()
    world.fail("expired")
    with pytest.raises(CrmDeniedError, match="Set a new CHURNKIT_SALESFORCE_TOKEN"):
        crm.write(new(sample()))


@pytest.fixture
def app_world(tmp_path):
    """An org that is signed in to by an app."""
    with SalesforceWorld(tmp_path, app=True) as made:
        yield made
        assert made.fake.violations == []


def test_an_apps_token_is_renewed_in_mid_run(app_world):
    """What was refused with 401 was not done: it is sent once more, with a fresh token, and arrives once."""
    crm = app_world.connect()
    crm.check()
    app_world.fake.expired = True
    assert only(crm.write(new(sample()))).state == "written"
    assert (app_world.fake.asked["token"], len(app_world.tasks())) == (2, 1)


def test_a_fresh_token_that_is_refused_is_not_renewed_for_ever(app_world):
    """One renewal a request, then a person must look."""
    crm = app_world.connect()
    crm.check()
    app_world.server.app = lambda request: app_world.fake(request) if "oauth2" in request.path else Reply(
        401, [{"message": "expired", "errorCode": "INVALID_SESSION_ID"}])
    with pytest.raises(CrmDeniedError, match="is not valid"):
        crm.find(KEYS[:1])
    assert app_world.fake.asked["token"] == 2


def test_an_app_that_is_unknown(app_world):
    """The reason and the mend, without the secret."""
    app_world.fake.apps.clear()
    with pytest.raises(CrmDeniedError, match="invalid_client.*allows the client credentials flow"):
        app_world.connect().check()


def test_an_app_of_another_org(app_world):
    """The token of another host is not used, there or here."""
    app_world.fake.host = "other.my.salesforce.com"
    with pytest.raises(CrmDeniedError, match="at other.my.salesforce.com, not at 127.0.0.1"):
        app_world.connect().check()
    assert sum(app_world.fake.asked.values()) == 1


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", None])
def test_a_sign_in_without_a_token_is_down(app_world, body):
    """A gateway's page in place of a token."""
    app_world.server.app = lambda _: Reply(200, body)
    with pytest.raises(CrmDownError, match="cannot be read"):
        app_world.connect().check()


# safety


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("writing", [True, False])
def test_a_redirect_is_refused(world, status, writing):
    """It is not followed, so the token goes nowhere else."""
    crm = world.connect()
    crm.check()
    crm.write(new(sample(9)))
    with Server(lambda _: Reply(200, []), tls=certificate()) as other:
        answering(world, status, "", headers={"Location": f"{other.url}/services/data/v60.0/x"})
        with pytest.raises(CrmDeniedError, match=r"sends us elsewhere, to 127.0.0.1 .*was not sent on"):
            crm.write(new(sample(9, key="ab"))) if writing else crm.find(KEYS[:1])
        assert other.seen == []


def test_a_redirected_sign_in_is_refused(app_world):
    """Nor does the app's secret."""
    with Server(lambda _: Reply(200, {}), tls=certificate()) as other:
        app_world.server.app = lambda _: Reply(307, None, {"Location": other.url})
        with pytest.raises(CrmDeniedError, match="sends us elsewhere"):
            app_world.connect().check()
        assert other.seen == []


@pytest.mark.parametrize("options", [{"ca": ""}, {"ca": "other.pem"}])
def test_a_certificate_that_is_not_trusted_is_refused(world, tmp_path, options):
    """Nothing is sent to a host that cannot show who it is."""
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    with pytest.raises(CrmDeniedError, match="certificate that is not trusted, so nothing was sent"):
        world.connect(**options).check()
    assert world.server.seen == []


def test_a_certificate_of_another_host_is_refused(tmp_path):
    """The right authority, the wrong name."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with SalesforceWorld(tmp_path) as world, \
            Server(world.fake, tls=certificate(authority.issue_cert("other.example"))) as other:
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        with pytest.raises(CrmDeniedError, match="not trusted"):
            world.connect(instance=other.url).check()
        assert other.seen == []


def test_plain_http_is_refused():
    """Whatever the host."""
    with pytest.raises(SettingsError, match="always asked by https"):
        connect("salesforce", {"instance": "http://127.0.0.1:80"})


def test_the_environment_changes_nothing(world, monkeypatch, tmp_path):
    """No proxy, no .netrc and no other authorities are taken from the environment."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login eve password other\n")
    (tmp_path / ".netrc").chmod(0o600)
    for name, value in {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9",
                        "ALL_PROXY": "http://127.0.0.1:9", "REQUESTS_CA_BUNDLE": str(tmp_path / ".netrc"),
                        "NETRC": str(tmp_path / ".netrc")}.items():
        monkeypatch.setenv(name, value)
    assert world.connect().check().todo == ()


@pytest.mark.parametrize("app", [False, True])
@pytest.mark.parametrize("fault", [*FAULTS, "refused", "expired", "echo", "row echo", "untrusted"])
def test_no_secret_comes_out(tmp_path, caplog, capfd, fault, app):
    """Not by an error's words, its chain, the variables of its traceback, a result, a repr or a log."""
    caplog.set_level(logging.DEBUG)
    said = []
    with SalesforceWorld(tmp_path, app=app) as world:
        crm = world.connect(**({"ca": ""} if fault == "untrusted" else {}))
        world.server.writes = lambda _: True
        try:
            if fault == "echo":
                world.server.app = lambda _: Reply(400, [{"message": f"bad token {CANARY}", "errorCode": CANARY}])
            elif fault == "row echo":
                world.fail("rows")
                world.fake.row_text = f"flow failed for {CANARY}"
                said += [repr(crm.write(new(sample(3))))]
            elif fault in FAULTS:
                world.server.faults.extend([fault] * 9)
            elif fault != "untrusted":
                world.fail(fault)
            said += [repr(crm.check())]
            assert app or fault in {"row echo"}
        except CrmDownError as error:
            assert (error.__cause__, error.__context__) == (None, None)
            shown = traceback.TracebackException.from_exception(error, capture_locals=True)
            said += ["".join(shown.format()), str(error)]
        said += [repr(crm), repr(vars(crm)), repr(vars(crm._line)), caplog.text, *capfd.readouterr()]
    assert said != []
    assert [text for text in said if CANARY in text] == []


def test_a_secret_file_is_as_good(world, tmp_path):
    """The token from a file that nobody else may read."""
    path = tmp_path / "token"
    path.write_text(f"{CANARY}\n")
    path.chmod(0o600)
    world.env = {"CHURNKIT_SALESFORCE_TOKEN_FILE": str(path)}
    assert world.connect().check().todo == ()
    path.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        world.connect()


@pytest.mark.parametrize(("options", "said"), [
    ({}, "instance: '' is no host"), ({"instance": "acme.my.salesforce.com/x"}, "is no host"),
    ({"instance": "user@acme.my.salesforce.com"}, "is no host"), ({"instance": "a.b", "instanse": "x"}, "Did you mean"),
    ({"instance": "a.b", "timeout": "soon"}, "timeout: 'soon' is no number"),
    ({"instance": "a.b", "daily": "0"}, "daily: '0' is no number above 0"),
    ({"instance": "a.b", "timeout": "nan"}, "timeout: 'nan' is no number"),
    ({"instance": "a.b", "account_field": "Id = '' OR Id"}, "is no field's name"),
    ({"instance": "a.b", "version": "60"}, "version: '60' is none"), ({"instance": "a.b", "ca": "no.pem"}, "no file"),
    ({"instance": "a.b", "mapping": "no.csv"}, "cannot be read")])
def test_options_that_are_wrong_are_named(options, said, tmp_path, monkeypatch):
    """With the section, the key and the mend."""
    monkeypatch.setenv("CHURNKIT_SALESFORCE_TOKEN", "x")
    with pytest.raises(SettingsError, match=said):
        connect("salesforce", options, tmp_path)


def test_a_sign_in_must_be_one(monkeypatch):
    """Neither none nor two."""
    for name in ("CHURNKIT_SALESFORCE_TOKEN", "CHURNKIT_SALESFORCE_TOKEN_FILE", "CHURNKIT_SALESFORCE_CLIENT_ID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingsError, match="access token of Salesforce is missing. Set CHURNKIT_SALESFORCE_TOKEN"):
        connect("salesforce", {"instance": "acme.my.salesforce.com"})
    monkeypatch.setenv("CHURNKIT_SALESFORCE_CLIENT_ID", "the-app")
    with pytest.raises(SettingsError, match="secret of the Salesforce app is missing"):
        connect("salesforce", {"instance": "acme.my.salesforce.com"})
    monkeypatch.setenv("CHURNKIT_SALESFORCE_TOKEN", "x")
    with pytest.raises(SettingsError, match="are both set"):
        connect("salesforce", {"instance": "acme.my.salesforce.com"})


def test_it_imports_nothing_heavy():
    """A sync every few minutes pays for no models and no data frames, and for the client in one file alone."""
    script = "import churnkit.outreach.crm.salesforce, sys; print(*sorted({n.split('.')[0] for n in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & {"pandas", "numpy", "mlflow", "feast", "sklearn", "duckdb", "ibis", "pandera",
                                       "lightgbm", "shap"} == set()
