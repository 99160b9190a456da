"""The fake HubSpot under attack: a fake that lets things through would prove nothing."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import urllib3
from fake_hubspot import FakeHubSpot, furnish
from fake_hubspot_store import iso, millis
from hubspot_contract import RECORDED, SPEC, Contract, endpoint
from small_clock import Clock

from churnkit.testing.server import Reply, Request

TOKEN = "t0ken"  # noqa: S105 -- nobody's
BATCH = "/crm/v3/objects/tasks/batch"


class Portal:
    """The fake, asked without a line between."""

    def __init__(self, **given):
        self.clock = Clock()
        self.fake = FakeHubSpot(TOKEN, clock=self.clock, **given)
        furnish(self.fake, ["ann@us.example"], ["A00", "A01"])
        self.fake.store.groups["tasks"].add("churnkit")
        for name, more in (("churnkit_key", {"hasUniqueValue": self.fake.store.unique_tasks}), ("churnkit_note", {})):
            self.fake.store.define("tasks", {"name": name, "label": name, "type": "string", "fieldType": "text",
                                             "groupName": "churnkit", **more})
        self.company = next(iter(self.fake.store.objects["companies"]))

    def ask(self, method, path, body=None, token=TOKEN, **query):
        """Status and body of one request."""
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {token}"} if token else {}
        reply = self.fake(Request(method, path, {name: [str(value)] for name, value in query.items()}, headers, raw))
        return reply.status, reply.body

    def create(self, *rows):
        """Status and body of a batch of new tasks."""
        return self.ask("POST", f"{BATCH}/create", {"inputs": list(rows)})

    def row(self, key, trace=None, **changes):
        """One input of that batch."""
        made = {"properties": {"churnkit_key": key, "hs_timestamp": "1793512800000", **changes}, "associations": [
            {"to": {"id": self.company}, "types": [
                {"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": 192}]}]}
        return made | ({"objectWriteTraceId": trace} if trace else {})


@pytest.fixture
def hub():
    """A portal whose violations are asserted to be none at the end."""
    made = Portal()
    yield made
    assert made.fake.violations == []


@pytest.fixture
def bad():
    """A portal for requests that breach the contract on purpose; each test says what is noticed."""
    return Portal()


@pytest.mark.parametrize("token", [None, "", "other", "t0ke", "t0ken "])
def test_nobody_comes_in_without_the_token(hub, token):
    """Neither without one, nor with another, nor with nearly the right one."""
    assert hub.ask("GET", "/crm/v3/owners", token=token)[0] == 401


def test_an_expired_token_is_worth_nothing(hub):
    """It says that it expired."""
    hub.fake.expired = True
    status, body = hub.ask("GET", "/account-info/v3/details")
    assert (status, body["category"]) == (401, "EXPIRED_AUTHENTICATION")


SCOPED = [("GET", "/crm/v3/owners", None, "crm.objects.owners.read"),
          ("GET", "/crm/v3/objects/tasks", None, "crm.objects.contacts.read"),
          ("POST", f"{BATCH}/create", {"inputs": []}, "crm.objects.contacts.write"),
          ("POST", f"{BATCH}/update", {"inputs": []}, "crm.objects.contacts.write"),
          ("POST", f"{BATCH}/archive", {"inputs": []}, "crm.objects.contacts.write"),
          ("POST", "/crm/v3/objects/tasks/search", {}, "crm.objects.contacts.read"),
          ("POST", "/crm/v3/objects/companies/search", {}, "crm.objects.companies.read"),
          ("GET", "/crm/v3/properties/tasks", None, "crm.schemas.contacts.read"),
          ("POST", "/crm/v3/properties/tasks/groups", {"name": "x", "label": "x"}, "crm.schemas.contacts.write"),
          ("GET", "/crm/v3/properties/companies/name", None, "crm.schemas.companies.read")]


@pytest.mark.parametrize(("method", "path", "body", "scope"), SCOPED)
def test_each_door_has_its_scope(hub, method, path, body, scope):
    """With it the door opens, without it HubSpot's error names it."""
    assert hub.ask(method, path, body)[0] < 300
    hub.fake.scopes.discard(scope)
    status, said = hub.ask(method, path, body)
    assert (status, said["category"]) == (403, "MISSING_SCOPES")
    assert said["errors"][0]["context"]["requiredGranularScopes"] == [scope]


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[]", b"5", b"null", b"", b'{"inputs": 5}', b'{"inputs": [5]}',
                                  b'{"inputs": [{"properties": {}, "associations": 5}]}',
                                  b'{"inputs": [{"properties": 5, "associations": []}]}'])
def test_what_is_no_request_is_refused(bad, body):
    """Nothing that is malformed is taken, nothing breaks the fake, and the contract's breach is noted."""
    status, said = bad.ask("POST", f"{BATCH}/create", body)
    assert (status, said["category"]) == (400, "VALIDATION_ERROR")
    assert bad.fake.store.live("tasks") == []
    assert bad.fake.violations != []


def test_an_unknown_place_is_not_found(bad):
    """Neither an unknown path nor a known one with another verb answers, and both are noted."""
    assert bad.ask("GET", "/crm/v3/objects/deals")[0] == 404
    assert bad.ask("DELETE", "/crm/v3/owners")[0] == 404
    assert len(bad.fake.violations) == 2


BREACHES = [
    ("POST", f"{BATCH}/create", {"inputs": [], "more": 1}, "unknown key 'more'"),
    ("POST", f"{BATCH}/create", {"inputs": [{"properties": {}}]}, "lacks 'associations'"),
    ("POST", f"{BATCH}/create", {"inputs": [{"properties": {}, "associations": [], "x": 1}]}, "unknown key 'x'"),
    ("POST", f"{BATCH}/read", {"inputs": []}, "lacks 'properties'"),
    ("POST", f"{BATCH}/update", {"inputs": [{"id": "1"}]}, "lacks 'properties'"),
    ("POST", "/crm/v3/objects/tasks/search", {"filters": []}, "unknown key 'filters'"),
]


@pytest.mark.parametrize(("method", "path", "body", "words"), BREACHES)
def test_a_breach_is_refused_and_noticed(bad, method, path, body, words):
    """A key too many or too few is no request of HubSpot's."""
    assert bad.ask(method, path, body)[0] == 400
    assert any(words in one for one in bad.fake.violations)


def test_an_unknown_query_is_noticed(bad):
    """A parameter that HubSpot would pass over in silence is a mistake all the same."""
    bad.ask("GET", "/crm/v3/owners", limits=5)
    assert any("unknown query parameter 'limits'" in one for one in bad.fake.violations)


def test_a_wrong_reply_of_the_fake_is_noticed(bad):
    """The fake itself is held against the contract."""
    bad.fake.portal.pop("portalId")
    bad.ask("GET", "/account-info/v3/details")
    assert any("the reply lacks 'portalId'" in one for one in bad.fake.violations)


def test_a_wrong_row_of_the_fake_is_noticed(bad):
    """In each row of a reply too."""
    del bad.fake.store.owners[0]["updatedAt"]
    bad.ask("GET", "/crm/v3/owners")
    assert any("lacks 'updatedAt'" in one for one in bad.fake.violations)


def test_too_many_inputs_are_refused(bad):
    """A hundred are taken, one more is not, and none of those is written."""
    status, _ = bad.create(*(bad.row(f"{n:040x}", f"{n}") for n in range(101)))
    assert (status, bad.fake.store.live("tasks")) == (400, [])
    assert any("101 inputs, at most 100" in one for one in bad.fake.violations)
    bad.fake.violations.clear()
    assert bad.create(*(bad.row(f"{n:040x}", f"{n}") for n in range(100)))[0] == 201
    assert bad.fake.violations == []


WRONG = [({"churnkit_colour": "red"}, "PROPERTY_DOESNT_EXIST"), ({"hs_task_status": "DONE"}, "INVALID_OPTION"),
         ({"hubspot_owner_id": "9"}, "INVALID_OWNER_ID"), ({"hs_timestamp": "soon"}, "no datetime"),
         ({"hs_timestamp": ""}, "hs_timestamp is required"), ({"hs_object_id": "1"}, "READ_ONLY_VALUE"),
         ({"churnkit_note": "x" * 65_537}, "INVALID_LENGTH")]


@pytest.mark.parametrize(("changes", "words"), WRONG)
def test_a_wrong_value_is_refused(hub, changes, words):
    """What the vendor's description does not catch: names, fixed lists, owners, moments, length."""
    status, body = hub.create(hub.row("a" * 40, **changes))
    assert (status, words in body["message"]) == (400, True)
    assert hub.fake.store.live("tasks") == []


def test_an_owner_who_left_gets_nothing(hub):
    """He is told among the archived ones alone."""
    gone = hub.fake.store.owner("gone@us.example", archived=True)
    assert hub.create(hub.row("a" * 40, hubspot_owner_id=gone["id"]))[0] == 400
    told = [[one["email"] for one in hub.ask("GET", "/crm/v3/owners", archived=archived)[1]["results"]]
            for archived in ("false", "true")]
    assert told == [["ann@us.example"], ["gone@us.example"]]


@pytest.mark.parametrize(("kind", "number"), [(192, "9"), (204, "company"), (1, "company")])
def test_a_link_to_nothing_is_refused(hub, kind, number):
    """Neither what is not there nor what is of another kind can be linked."""
    row = hub.row("a" * 40)
    row["associations"][0]["types"][0]["associationTypeId"] = kind
    row["associations"][0]["to"]["id"] = hub.company if number == "company" else number
    assert hub.create(row)[0] == 400


def test_a_key_is_taken_once(hub):
    """In one batch as in the next; the row alone fails where it has a trace id, else the request amid its work."""
    status, body = hub.create(hub.row("a" * 40, "1"), hub.row("a" * 40, "2"), hub.row("b" * 40, "3"))
    assert (status, body["numErrors"], len(body["results"])) == (207, 1, 2)
    assert body["errors"][0]["context"]["objectWriteTraceId"] == ["2"]
    status, body = hub.create(hub.row("c" * 40), hub.row("a" * 40), hub.row("d" * 40))
    assert (status, body["category"]) == (409, "CONFLICT")
    assert [one.properties["churnkit_key"][0] for one in hub.fake.store.live("tasks")] == ["a", "b", "c"]


def test_a_key_is_free_when_its_task_is_deleted(hub):
    """The recycling bin binds nobody, and what lies there is not found."""
    _, body = hub.create(hub.row("a" * 40, "1"))
    number = body["results"][0]["id"]
    assert hub.ask("POST", f"{BATCH}/archive", {"inputs": [{"id": number}]})[0] == 204
    status, body = hub.ask("POST", f"{BATCH}/read", {"inputs": [{"id": number}], "properties": [],
                                                     "propertiesWithHistory": []})
    assert (status, body["errors"][0]["context"]) == (207, {"ids": [number]})
    assert hub.create(hub.row("a" * 40, "1"))[0] == 201


@pytest.mark.parametrize("what", ["read", "update"])
def test_an_id_twice_in_a_batch_is_refused(hub, what):
    """HubSpot takes one input per id."""
    _, body = hub.create(hub.row("a" * 40, "1"))
    rows = [{"id": body["results"][0]["id"], **({"properties": {}} if what == "update" else {})}] * 2
    more = {"properties": [], "propertiesWithHistory": []} if what == "read" else {}
    status, said = hub.ask("POST", f"{BATCH}/{what}", {"inputs": rows, **more})
    assert (status, "Duplicate" in said["message"]) == (400, True)


def test_only_a_unique_property_looks_things_up(hub):
    """A plain one is refused as idProperty."""
    asked = {"inputs": [{"id": "x"}], "properties": [], "propertiesWithHistory": [], "idProperty": "churnkit_note"}
    assert hub.ask("POST", f"{BATCH}/read", asked)[0] == 400


def test_a_portal_may_allow_no_unique_properties():
    """Then the property is refused, and two tasks of one key may stand there."""
    hub = Portal(unique_tasks=False)
    wanted = {"name": "u", "label": "u", "type": "string", "fieldType": "text", "groupName": "churnkit",
              "hasUniqueValue": True}
    assert hub.ask("POST", "/crm/v3/properties/tasks", wanted)[0] == 400
    assert [hub.create(hub.row("a" * 40, "1"))[0] for _ in range(2)] == [201, 201]
    assert hub.fake.violations == []


def test_properties_are_made_once_and_in_a_group(hub):
    """A name that is taken, and a group that is not there, are refused."""
    wanted = {"name": "p", "label": "p", "type": "string", "fieldType": "text", "groupName": "churnkit"}
    assert hub.ask("POST", "/crm/v3/properties/tasks", wanted)[0] == 201
    assert hub.ask("POST", "/crm/v3/properties/tasks", wanted)[0] == 409
    assert hub.ask("POST", "/crm/v3/properties/tasks", {**wanted, "name": "q", "groupName": "x"})[0] == 400
    assert hub.ask("POST", "/crm/v3/properties/tasks/groups", {"name": "churnkit", "label": "x"})[0] == 409
    assert hub.ask("GET", "/crm/v3/properties/tasks/q")[0] == 404


def search(hub, **question):
    return hub.ask("POST", "/crm/v3/objects/tasks/search", question)


def only(name, operator, **value):
    return {"filterGroups": [{"filters": [{"propertyName": name, "operator": operator, **value}]}]}


FILTERS = [("churnkit_key", "EQ", {"value": "ab"}, [0]), ("churnkit_key", "IN", {"values": ["ab", "cd"]}, [0, 1]),
           ("churnkit_key", "IN", {"values": ["AB"]}, []), ("churnkit_key", "NEQ", {"value": "ab"}, [1, 2]),
           ("churnkit_key", "HAS_PROPERTY", {}, [0, 1]), ("churnkit_key", "NOT_HAS_PROPERTY", {}, [2]),
           ("hs_lastmodifieddate", "GTE", {"value": "1793512801000"}, [1, 2]),
           ("hs_lastmodifieddate", "GT", {"value": "1793512801000"}, [2]),
           ("hs_lastmodifieddate", "LT", {"value": "1793512801000"}, [0]),
           ("hs_lastmodifieddate", "BETWEEN", {"value": "1793512801000", "highValue": "1793512802000"}, [1, 2])]


@pytest.mark.parametrize(("name", "operator", "value", "found"), FILTERS)
def test_a_search_finds_what_was_asked(hub, name, operator, value, found):
    """Each operator that the connector or a later one may use; IN knows values in lower case alone."""
    for n, key in enumerate(("AB", "cd", "")):
        hub.fake.store._add("tasks", {"churnkit_key": key, "churnkit_note": str(n)}, 1793512800000 + 1000 * n, ())
    status, body = search(hub, **only(name, operator, **value), properties=["churnkit_note"], limit=100)
    assert (status, [int(one["properties"]["churnkit_note"]) for one in body["results"]]) == (200, found)


def test_a_search_ends_at_ten_thousand(hub):
    """Its pages go to there and not beyond; the total is told."""
    for n in range(10_050):
        hub.fake.store._add("tasks", {"churnkit_note": str(n)}, n, ())
    status, body = search(hub, limit=100, after="9900", sorts=["hs_lastmodifieddate"])
    assert (status, body["total"], body["results"][-1]["id"]) == (200, 10_050, body["paging"]["next"]["after"] and str(
        int(hub.company) + 1 + 10_000))
    assert search(hub, limit=100, after="9901")[0] == 400
    assert search(hub, limit=201)[0] == 400


@pytest.mark.parametrize("question", [
    only("nothing", "EQ", value="1"), {"sorts": ["nothing"]}, {"sorts": ["hs_createdate", "hs_object_id"]},
    only("hs_object_id", "GT", value="many"), only("churnkit_key", "IN", values=[]),
    only("churnkit_key", "IN", values=["x"] * 101), {"filterGroups": [{"filters": []}] * 6}])
def test_a_search_that_makes_no_sense_is_refused(hub, question):
    """Unknown properties, two sorts, a number that is none, too many values or groups."""
    assert search(hub, **question)[0] == 400


def test_the_index_lags_as_it_is_told(hub):
    """A search sees neither a new task nor a change before that time has gone."""
    _, body = hub.create(hub.row("a" * 40, "1"))
    hub.fake.index_lag = 10
    assert search(hub)[1]["total"] == 0
    hub.clock.sleep(11)
    assert search(hub)[1]["total"] == 1
    change = {"id": body["results"][0]["id"], "properties": {"churnkit_note": "new"}}
    hub.ask("POST", f"{BATCH}/update", {"inputs": [change]})
    shown = search(hub, properties=["churnkit_note"])[1]["results"][0]["properties"]["churnkit_note"]
    assert shown is None
    hub.clock.sleep(11)
    assert search(hub, properties=["churnkit_note"])[1]["results"][0]["properties"]["churnkit_note"] == "new"


def test_a_hundred_requests_in_ten_seconds(hub):
    """The next one is refused with the policy's name, and goes through when the first has become old."""
    hub.fake.limit = True
    statuses = [hub.ask("GET", "/crm/v3/owners")[0] for _ in range(100)]
    hub.clock.sleep(9.99)
    status, body = hub.ask("GET", "/crm/v3/owners")
    assert (set(statuses), status, body["policyName"]) == ({200}, 429, "TEN_SECONDLY_ROLLING")
    hub.clock.sleep(0.02)
    assert hub.ask("GET", "/crm/v3/owners")[0] == 200
    assert hub.fake.peak == 101


def test_five_searches_a_second(hub):
    """They have a limit of their own, and count for no other."""
    hub.fake.limit = True
    assert [search(hub)[0] for _ in range(6)] == [200] * 5 + [429]
    assert [hub.ask("GET", "/crm/v3/owners")[0] for _ in range(100)] == [200] * 100


def test_a_day_has_its_quota(hub):
    """It comes back with the next day, UTC."""
    hub.fake.daily = 2
    assert [hub.ask("GET", "/crm/v3/owners")[0] for _ in range(2)] == [200, 200]
    status, body = hub.ask("GET", "/crm/v3/owners")
    assert (status, body["policyName"]) == (429, "DAILY")
    hub.clock.sleep(86_400)
    assert hub.ask("GET", "/crm/v3/owners")[0] == 200


def test_the_clock_of_the_crm_never_goes_back(hub):
    """Whatever the machine around it does, a later change has not an earlier time."""
    _, first = hub.create(hub.row("a" * 40, "1"))
    hub.clock.sleep(-3600)
    _, second = hub.create(hub.row("b" * 40, "1"))
    assert first["results"][0]["updatedAt"] <= second["results"][0]["updatedAt"]
    assert millis(iso(1793512800123)) == 1793512800123


# The contract itself


@pytest.fixture(scope="module")
def spec():
    """The vendor's description; skips where it is absent."""
    if not SPEC.is_file():
        pytest.skip(f"the vendor's description is not at {SPEC}; set CHURNKIT_HUBSPOT_SPEC to run this test")
    return json.loads(SPEC.read_text(encoding="utf-8"))


def resolved(spec, part):
    """What a reference in the description stands for."""
    while "$ref" in part:
        found = spec
        for name in part["$ref"].split("/")[1:]:
            found = found[name]
        part = found
    return part


def keys(spec, part):
    """The required and all keys of a schema."""
    return sorted(part.get("required", ())), sorted(part["properties"])


@pytest.mark.parametrize("name", [name for name in RECORDED if "account-info" not in name])
def test_what_is_recorded_is_what_the_vendor_says(spec, name):
    """Each recorded expectation holds the keys of the vendor's description, no more and no fewer."""
    verb, path = name.split(" ")
    operation, recorded = spec["paths"][path][verb.lower()], RECORDED[name]
    assert recorded["query"] == sorted(one["name"] for one in operation["parameters"] if one["in"] == "query")
    assert ("body" in recorded) == ("requestBody" in operation)
    if "body" in recorded:
        body = resolved(spec, operation["requestBody"]["content"]["application/json"]["schema"])
        assert (recorded["body"]["required"], recorded["body"]["allowed"]) == keys(spec, body)
        if "inputs" in body["properties"]:
            inputs = body["properties"]["inputs"]
            assert (recorded["inputs"]["required"], recorded["inputs"]["allowed"]) == keys(
                spec, resolved(spec, inputs["items"]))
            assert recorded["inputs"].get("most") == inputs.get("maxItems")
    assert set(recorded["replies"]) == set(operation["responses"])
    for status, reply in operation["responses"].items():
        content = resolved(spec, reply).get("content", {}).get("application/json")
        schema = resolved(spec, content["schema"]) if content else {"properties": {}}
        assert recorded["replies"][status]["required"] == keys(spec, schema)[0]
        for part in set(recorded["replies"][status]) - {"required"}:
            row = resolved(spec, schema["properties"][part]["items"])
            assert recorded["replies"][status][part] == keys(spec, row)[0]


@pytest.mark.parametrize("described", [True, False])
def test_both_contracts_notice_a_breach(spec, described, tmp_path):
    """With the vendor's description and without it: a missing key, one too many, and a reply that lacks one."""
    contract = Contract(SPEC if described else tmp_path / "absent.json")
    good = {"inputs": [{"properties": {"a": "b"}, "associations": []}]}
    reply = {"status": "COMPLETE", "results": [], "startedAt": iso(0), "completedAt": iso(0)}

    def wrong(body, said):
        return contract.wrong(Request("POST", f"{BATCH}/create", {}, {}, json.dumps(body).encode()), Reply(201, said))

    assert wrong(good, reply) == []
    assert wrong({**good, "x": 1}, reply) != []
    assert wrong({"inputs": [{"properties": {}}]}, reply) != []
    assert wrong(good, {name: value for name, value in reply.items() if name != "status"}) != []
    assert wrong(good, {**reply, "results": [{"id": "1"}]}) != []
    assert wrong({"inputs": [{"properties": {"a": None}, "associations": []}]}, reply) != []
    if described:  # what keys alone do not tell
        assert wrong(good, {**reply, "status": "DONE"}) != []


def test_what_the_connector_asks_is_all_recorded():
    """Every request has its entry, by the most exact path."""
    assert endpoint("POST", "/crm/v3/properties/tasks/groups") == "POST /crm/v3/properties/{objectType}/groups"
    assert endpoint("GET", "/crm/v3/properties/tasks/x") == "GET /crm/v3/properties/{objectType}/{propertyName}"
    assert endpoint("GET", "/crm/v3/objects/deals") is None


def test_it_runs_as_a_program():
    """A benchmark starts it, reads its address, and asks it what it saw."""
    program = Path(__file__).parent / "fake_hubspot.py"
    with subprocess.Popen([sys.executable, str(program), "--token", TOKEN, "--no-contract", "--limit", "--owners", "3",
                           "--companies", "7"], stdout=subprocess.PIPE, text=True) as running:
        try:
            url = json.loads(running.stdout.readline())["url"]
            with urllib3.PoolManager() as line:
                headers = {"Authorization": f"Bearer {TOKEN}"}
                owners = line.request("GET", f"{url}/crm/v3/owners", headers=headers).json()
                companies = line.request("POST", f"{url}/crm/v3/objects/companies/search", headers=headers, json={})
                state = line.request("GET", f"{url}/fake/state").json()
        finally:
            running.terminate()
    assert [one["email"] for one in owners["results"]] == [f"owner{n}@us.example" for n in range(3)]
    assert companies.json()["total"] == 7
    assert (state["tasks"], state["refused"], state["violations"]) == (0, 0, [])


def test_it_is_quick_enough_for_a_benchmark():
    """A batch of a hundred costs the fake less than its client; measured in processor time, with room for a bad day."""
    hub = Portal(contract=False)
    rows = [hub.row(f"{n:040x}", f"{n}", churnkit_note="x" * 2000) for n in range(100)]
    began = time.process_time()
    assert hub.create(*rows)[0] == 201
    assert time.process_time() - began < 0.1
