"""The fake Salesforce itself: it keeps state, refuses what Salesforce does, and notices what is not in the contract."""

import json
import ssl
from http.client import HTTPSConnection
from urllib.parse import urlencode

import pytest
import soql
from fake_salesforce import ROBOT
from salesforce_world import AUTHORITY, SalesforceWorld

from churnkit.testing.samples import AT, CANARY

DATA = "/services/data/v60.0"
TASK = {
    "attributes": {"type": "Task"}, "Subject": "Call", "Description": "Why", "ActivityDate": "2026-11-06",
    "OwnerId": ROBOT, "Churnkit_Key__c": "ab", "Churnkit_Hash__c": "cd", "Churnkit_Account__c": "A00",
    "Churnkit_Play__c": "save", "Churnkit_Score__c": 0.4, "Churnkit_Status__c": "open", "Churnkit_Content__c": "{}"}


@pytest.fixture
def world(tmp_path):
    with SalesforceWorld(tmp_path) as made:
        made.fake.now = lambda: AT
        yield made


@pytest.fixture
def ask(world):
    """One request over TLS, by the standard library's own client."""
    trust = ssl.create_default_context()
    AUTHORITY.configure_trust(trust)

    def call(method, path, body=None, token=CANARY, **query):
        port = int(world.host.rpartition(":")[2])
        line = HTTPSConnection("127.0.0.1", port, context=trust, timeout=5)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        line.request(method, path + (f"?{urlencode(query)}" if query else ""), data, headers)
        reply = line.getresponse()
        said = reply.read()
        line.close()
        return reply.status, json.loads(said) if said else None

    return call


def create(ask, world, *records, **changes):
    account = next(iter(world.fake.accounts))
    made = [{**TASK, "WhatId": account, **record} for record in records or ({},)]
    return ask("POST", f"{DATA}/composite/sobjects", {"allOrNone": False, "records": made, **changes})


def error(row):
    return row["errors"][0]["statusCode"]


@pytest.mark.parametrize("path", ["/query/", "/sobjects/Task/describe", "/composite/sobjects", "/nowhere"])
@pytest.mark.parametrize("token", [None, "", "wrong", "Bearer"])
def test_without_a_session_nothing_is_told(world, ask, path, token):
    """No token, an empty one, a wrong one: 401 before anything else, and nothing is kept."""
    status, body = ask("POST" if "composite" in path else "GET", DATA + path, token=token)
    assert (status, body[0]["errorCode"]) == (401, "INVALID_SESSION_ID")
    assert world.tasks() == []


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b'"x"', b'{"records": {}}', b'{"records": []}',
                                  b"\xff\xfe"])
def test_malformed_bodies(world, ask, body):
    """Whatever is no collection of records is refused, and the server goes on."""
    assert ask("POST", f"{DATA}/composite/sobjects", body)[0] == 400
    assert create(ask, world)[0] == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "POST"])
def test_other_doors_are_shut(ask, method):
    """What the contract does not know does not exist."""
    assert ask(method, f"{DATA}/sobjects/Task/describe")[0] == 404
    assert ask(method, "/services/apexrest/x")[0] == 404


@pytest.mark.parametrize(("path", "query"), [
    ("/query/", {}), ("/query/", {"q": "SELECT Id FROM Task", "r": "1"}), ("/sobjects/Task/describe", {"x": "1"})])
def test_other_parameters_are_noticed(world, ask, path, query):
    """A request with too few or too many parameters is a violation, or an error."""
    status, _ = ask("GET", DATA + path, **query)
    assert status == 400 or world.fake.violations != []


def test_a_body_outside_the_contract_is_noticed(world, ask):
    """allOrNone, and a create that says more than churnkit may say."""
    create(ask, world, allOrNone=True)
    create(ask, world, {"Churnkit_Key__c": "ef", "Churnkit_Disposition__c": "saved"})
    assert [line.split(":")[0] for line in world.fake.violations] == ["create request", "create request"]


def test_an_update_of_peoples_fields_is_noticed(world, ask):
    """Owner and due date are never churnkit's to update."""
    _, [made] = create(ask, world)
    ask("PATCH", f"{DATA}/composite/sobjects", {"allOrNone": False, "records": [
        {"attributes": {"type": "Task"}, "id": made["id"], "OwnerId": ROBOT, "Subject": "s", "Description": "d",
         "Churnkit_Score__c": None, "Churnkit_Hash__c": "a", "Churnkit_Content__c": "{}"}]})
    assert "'OwnerId' was unexpected" in world.fake.violations[0]


def test_a_unique_key_is_unique(world, ask):
    """In one request and over several, until the first is deleted; without the mark it is not."""
    status, rows = create(ask, world, {}, {})
    assert (status, rows[0]["success"], error(rows[1])) == (200, True, "DUPLICATE_VALUE")
    assert rows[0]["id"] in rows[1]["errors"][0]["message"]
    world.delete("ab")
    assert create(ask, world)[1][0]["success"] is True
    world.fake.fields["Churnkit_Key__c"]["unique"] = False
    assert create(ask, world)[1][0]["success"] is True
    assert len(world.tasks()) == 2


@pytest.mark.parametrize(("change", "code"), [
    ({"Subject": "x" * 256}, "STRING_TOO_LONG"),
    ({"Churnkit_Status__c": "asleep"}, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"),
    ({"OwnerId": "005000000009999AAA"}, "INVALID_CROSS_REFERENCE_KEY"), ({"OwnerId": "ann"}, "MALFORMED_ID"),
    ({"OwnerId": "005000000000102AAA"}, "INACTIVE_OWNER_OR_USER"),
    ({"IsClosed": True}, "INVALID_FIELD_FOR_INSERT_UPDATE"),
    ({"WhatId": "001000000009999AAA"}, "INVALID_CROSS_REFERENCE_KEY")])
def test_values_that_do_not_fit(world, ask, change, code):
    """Length, picklists, links, inactive owners and fields that are not for writing: that row's error alone."""
    _, rows = create(ask, world, change, {"Churnkit_Key__c": "ef"})
    assert (error(rows[0]), rows[1]["success"]) == (code, True)


def test_fields_that_are_not_there(world, ask):
    """An unknown field fails the whole request; one that may not be seen, its row."""
    status, body = create(ask, world, {"Nonsense__c": "x"})
    assert (status, body[0]["errorCode"]) == (400, "INVALID_FIELD")
    world.fake.hidden.add("Churnkit_Play__c")
    assert error(create(ask, world)[1][0]) == "INVALID_FIELD_FOR_INSERT_UPDATE"
    assert "Churnkit_Play__c" not in str(ask("GET", f"{DATA}/sobjects/Task/describe")[1])
    assert ask("GET", f"{DATA}/query/", q="SELECT Churnkit_Play__c FROM Task")[0] == 400


def test_required_fields(world, ask):
    """What an administrator made mandatory."""
    world.fake.required.add("WhoId")
    assert error(create(ask, world)[1][0]) == "REQUIRED_FIELD_MISSING"


def test_all_or_none(world, ask):
    """One bad row undoes the others."""
    _, rows = create(ask, world, {}, {"Subject": "x" * 256}, allOrNone=True)
    assert [error(row) for row in rows] == ["ALL_OR_NONE_OPERATION_ROLLED_BACK", "STRING_TOO_LONG"]
    assert world.tasks() == []


def test_at_most_two_hundred_records(world, ask):
    """One more is refused as a whole."""
    assert create(ask, world, *({"Churnkit_Key__c": f"{n:x}"} for n in range(201)))[0] == 400
    assert world.tasks() == []


def test_the_recycle_bin(world, ask):
    """A deleted task is neither found nor changed, and not deleted twice; an unknown one is no id."""
    _, [made] = create(ask, world)
    path = f"{DATA}/composite/sobjects"
    _, rows = ask("DELETE", path, ids=f"{made['id']},00T000000009999AAA", allOrNone="false")
    assert (rows[0]["success"], error(rows[1])) == (True, "INVALID_CROSS_REFERENCE_KEY")
    assert error(ask("DELETE", path, ids=made["id"], allOrNone="false")[1][0]) == "ENTITY_IS_DELETED"
    record = {"attributes": {"type": "Task"}, "id": made["id"], "Subject": "x"}
    rows = ask("PATCH", path, {"allOrNone": False, "records": [record, {**record, "id": "00T000000009999AAA"},
                                                               {**record, "id": "x"}]})[1]
    assert [error(row) for row in rows] == ["ENTITY_IS_DELETED", "INVALID_CROSS_REFERENCE_KEY", "MALFORMED_ID"]
    assert ask("GET", f"{DATA}/query/", q="SELECT Id FROM Task")[1]["totalSize"] == 0


def test_the_kind_of_a_task_is_for_ever(world, ask):
    """TaskSubtype is taken by a create alone."""
    _, [made] = create(ask, world, {"TaskSubtype": "Call"})
    record = {"attributes": {"type": "Task"}, "id": made["id"], "TaskSubtype": "Email"}
    rows = ask("PATCH", f"{DATA}/composite/sobjects", {"allOrNone": False, "records": [record]})[1]
    assert error(rows[0]) == "INVALID_FIELD_FOR_INSERT_UPDATE"


@pytest.mark.parametrize(("query", "code"), [
    ("SELECT Id FROM Lead", "INVALID_TYPE"), ("SELECT Nonsense FROM Task", "INVALID_FIELD"),
    ("SELECT Id FROM Task WHERE Description = 'x'", "INVALID_FIELD"), ("SELECT FROM Task", "MALFORMED_QUERY"),
    ("SELECT Id FROM Task WHERE Id = 'x'", "INVALID_QUERY_FILTER_OPERATOR"), ("", "MALFORMED_QUERY"),
    ("SELECT Id FROM Task WHERE Subject = 'a' OR Id != null", "MALFORMED_QUERY"),
    ("SELECT Id FROM Task WHERE Subject IN ()", "MALFORMED_QUERY"), ("DELETE FROM Task", "MALFORMED_QUERY"),
    ("SELECT Id FROM Task WHERE Subject = 'it's'", "MALFORMED_QUERY"), ("SELECT Id FROM Task;", "MALFORMED_QUERY"),
    ("SELECT Id FROM Task WHERE Subject = 'a\\q'", "MALFORMED_QUERY"),
    ("SELECT Id FROM Task WHERE Subject LIKE 'a'", "MALFORMED_QUERY")])
def test_queries_that_are_none(ask, query, code):
    """Strict: whatever the connector does not need is an error here, so that nothing passes by luck."""
    status, body = ask("GET", f"{DATA}/query/", q=query)
    assert (status, body[0]["errorCode"]) == (400, code)


def test_a_query_that_is_too_long(ask):
    """An address has an end."""
    assert ask("GET", f"{DATA}/query/", q=f"SELECT Id FROM Task WHERE Subject = '{'x' * 17_000}'")[0] == 414


def test_queries_find_what_they_should(world, ask):
    """Texts in any case, moments, order, and related names."""
    create(ask, world, {"Churnkit_Key__c": "a1", "Subject": "It's \"A\" \\ B"}, {"Churnkit_Key__c": "a2"})
    query = "SELECT Id, Owner.Email FROM Task WHERE Subject = 'it\\'s \\\"a\\\" \\\\ b'"
    found = ask("GET", f"{DATA}/query/", q=query)[1]
    assert [row["Owner"]["Email"] for row in found["records"]] == ["churnkit@us.example"]
    for sign, count in ((">=", 2), (">", 0), ("<", 0), ("<=", 2), ("=", 2), ("!=", 0)):
        query = f"SELECT Id FROM Task WHERE SystemModstamp {sign} 2026-11-01T06:00:00Z"
        said = ask("GET", f"{DATA}/query/", q=query)[1]
        assert (sign, said["totalSize"]) == (sign, count)


def test_pages(world, ask):
    """A page at a time; a locator that nobody gave is none."""
    world.fake.page = 2
    create(ask, world, *({"Churnkit_Key__c": f"{n:x}"} for n in range(3)))
    first = ask("GET", f"{DATA}/query/", q="SELECT Id FROM Task")[1]
    assert (first["done"], len(first["records"]), first["totalSize"]) == (False, 2, 3)
    second = ask("GET", first["nextRecordsUrl"])[1]
    assert (second["done"], len(second["records"])) == (True, 1)
    assert ask("GET", f"{DATA}/query/01g999999999999AAA-2")[1][0]["errorCode"] == "INVALID_QUERY_LOCATOR"


def test_the_days_requests(world, ask):
    """Above the day's number everything is refused, reading too."""
    world.fake.daily = 1
    assert ask("GET", f"{DATA}/sobjects/Task/describe")[0] == 200
    status, body = ask("GET", f"{DATA}/sobjects/Task/describe")
    assert (status, body[0]["errorCode"]) == (403, "REQUEST_LIMIT_EXCEEDED")


@pytest.mark.parametrize("form", [{}, {"grant_type": "password"}, {"client_id": "the-app"}, {"client_secret": "x"},
                                  {"client_id": "' OR 1=1"}])
def test_signing_in_by_guessing(world, ask, form):
    """Wrong, missing or other credentials give no token, and change no session."""
    world.fake.apps["the-app"] = "the-secret"
    given = {"grant_type": "client_credentials", "client_id": "the-app", "client_secret": "the-secret"}
    given = {**given, **form} if form else {}
    if form.get("client_id") == "the-app":
        del given["client_secret"]
    status, body = ask("POST", "/services/oauth2/token", urlencode(given).encode(), token=None)
    assert (status, "access_token" in body) == (400, False)
    assert world.fake.tokens == {CANARY}


def test_the_clock_of_the_server(world):
    """Whole seconds, and never back."""
    task = {"Id": "x", "SystemModstamp": AT.replace(minute=5)}
    world.fake.tasks["x"] = task
    assert world.fake._stamp(AT.replace(microsecond=7)) == AT.replace(minute=5)
    del world.fake.tasks["x"]
    assert world.fake._stamp(AT.replace(microsecond=7)) == AT


def test_queries_are_read_to_their_end():
    """Nothing after a query is passed over."""
    with pytest.raises(soql.MalformedError, match="unexpected token"):
        soql.parse("SELECT Id FROM Task LIMIT 1 LIMIT 2")
    assert soql.parse("SELECT Id FROM Task ORDER BY Id LIMIT 7").limit == 7
