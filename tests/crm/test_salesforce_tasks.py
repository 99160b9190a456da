"""The Salesforce connector's tasks: what is written, what is left alone, and what comes back."""

import datetime as dt
from dataclasses import replace

import pytest
from salesforce_world import known, new, only

from churnkit.outreach.crm.base import CrmDeniedError, CrmDownError
from churnkit.outreach.crm.salesforce_fields import Facts, create_of
from churnkit.outreach.task import Task
from churnkit.testing.samples import AT, OWNERS, sample
from churnkit.testing.server import Reply
from churnkit.testing.stage import KEYS

HOUR = dt.timedelta(hours=1)


@pytest.fixture
def world(org):
    """A Salesforce org."""
    return org


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
    assert {result.key: result.state for result in crm.write(mixed)} == {KEYS[1]: "written", KEYS[0]: "unsent"}


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
