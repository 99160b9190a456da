"""The example connector without its CRM: what it takes for options, and what it makes of odd replies."""

import traceback

import pytest
from churnkit_bottlecrm import KEY, TOKEN, connect

from churnkit.errors import SettingsError
from churnkit.outreach.crm.base import CrmDeniedError, CrmDownError, CrmUnsureError, Item
from churnkit.outreach.crm.base import connect as by_name
from churnkit.testing.samples import CANARY, sample
from churnkit.testing.server import Reply, Server


@pytest.fixture(autouse=True)
def _token(monkeypatch):
    monkeypatch.setenv(TOKEN, CANARY)


@pytest.fixture
def says(tmp_path):
    """A connector to a server that gives one and the same reply to everything, and what the server saw."""
    servers = []

    def made(reply, **users):
        def app(request):
            return Reply(200, {"users": [{"id": "u-1", "user__email": "ann@us.example"}], **users}) \
                if request.method == "GET" and users else reply

        servers.append(Server(app, late=1.5))
        (tmp_path / "crm_map.csv").write_text("kind,id,crm_id\naccount,A00,a-1\n")
        return connect({"url": servers[-1].url, "timeout": "1"}, tmp_path), servers[-1]

    yield made
    for server in servers:
        with server:
            pass


def test_it_is_found_by_its_entry_point(installed, monkeypatch):
    """What its pyproject.toml says is enough to use it by name."""
    monkeypatch.syspath_prepend(installed)
    assert by_name("bottlecrm", {"url": "https://crm.example", "portal": "p"}).name == "bottlecrm"


@pytest.mark.parametrize(("options", "mend"), [
    ({"url": "http://crm.example"}, "Use https"),
    ({"url": "http://127.0.0.1.crm.example"}, "Use https"),
    ({"url": "crm.example"}, "such as https://crm.example"),
    ({"url": "https://ann:secret@crm.example"}, "such as https://crm.example"),
    ({}, "such as https://crm.example"),
    ({"url": "https://crm.example", "timeout": "soon"}, "Write: 30"),
    ({"url": "https://crm.example", "timeout": "nan"}, "Write: 30"),
    ({"url": "https://crm.example", "colour": "red"}, "Known: url, mapping, timeout, account_field"),
])
def test_wrong_options_are_told_with_the_mend(options, mend, tmp_path):
    """Nothing is guessed: neither an address, nor a number, nor what an unknown option may mean."""
    with pytest.raises(SettingsError, match=mend):
        connect(options, tmp_path)


def test_without_a_token_it_does_not_begin(monkeypatch, tmp_path):
    """The variable is named."""
    monkeypatch.delenv(TOKEN)
    with pytest.raises(SettingsError, match=f"Set {TOKEN}"):
        connect({"url": "https://crm.example"}, tmp_path)


@pytest.mark.parametrize(("status", "error", "words"), [
    (401, CrmDeniedError, TOKEN), (403, CrmDeniedError, TOKEN), (404, CrmDeniedError, "url"),
    (302, CrmDeniedError, "url"), (307, CrmDeniedError, "url"), (429, CrmDownError, "rests"),
    (503, CrmDownError, "rests"), (500, CrmDownError, "understood"), (200, CrmDownError, "understood"),
])
def test_what_a_reading_request_meets(status, error, words, says):
    """Each kind of refusal has its own meaning, and none of them tells the token."""
    elsewhere, other = says(Reply(200, {}))
    crm, server = says(Reply(status, f"<html>{CANARY}".encode(), {"Location": f"{other.url}/api/", "Retry-After": "7"}))
    with pytest.raises(error, match=words) as raised:
        crm.check()
    assert type(raised.value) is error
    assert len(server.seen) == 1
    assert other.seen == []
    assert raised.value.wait == (7.0 if status in {429, 503} else None)
    assert raised.value.__context__ is None
    shown = traceback.TracebackException.from_exception(raised.value, capture_locals=True).format()
    assert not any(CANARY in line for line in shown)
    elsewhere.close()


@pytest.mark.parametrize(("reply", "state"), [
    (Reply(200, {"error": False}), "written"), (Reply(400, {"error": True, "errors": "no"}), "refused"),
    (Reply(413, b"<html>too large"), "refused"), (Reply(404, {"detail": "no"}), "refused"),
    (Reply(500, b"<html>"), "doubt"), (Reply(502, b"<html>"), "doubt"), (Reply(408, b""), "doubt"),
    (Reply(200, b"<html>fine"), "doubt"), (Reply(200, b"[]"), "doubt"),
])
def test_what_becomes_of_a_create(reply, state, says):
    """Only what BottleCRM surely did or refused is said to be so; and it is asked once."""
    crm, server = says(reply, active_accounts={})
    [result] = crm.write([Item(sample(0), "h")])
    assert (result.key, result.state) == (sample(0).key, state)
    assert [method for method, _, _ in server.seen].count("POST") == 1


@pytest.mark.parametrize(("reply", "error"), [
    (Reply(429, {}), CrmDownError), (Reply(503, {}), CrmDownError), (Reply(403, {}), CrmDeniedError),
    (Reply(307, {}, {"Location": "/elsewhere"}), CrmDeniedError), (Reply(404, b"<html>"), CrmDeniedError),
])
def test_a_create_that_was_surely_not_done_is_no_doubt(reply, error, says):
    """The engine waits, or a person mends it; nothing has to be looked up."""
    crm, server = says(reply, active_accounts={})
    with pytest.raises(error) as raised:
        crm.write([Item(sample(0), "h"), Item(sample(0, key="ab" * 20), "h")])
    assert type(raised.value) is error
    assert [method for method, _, _ in server.seen].count("POST") == 1


def test_what_is_left_of_a_call_is_tried_again(says):
    """A failure after a row was written concerns the rest of the call alone."""
    crm, server = says(Reply(200, {"error": False}), active_accounts={})
    server.faults.extend(["", "429", "dropped_after"])
    items = [Item(sample(0, key=key * 20), "h") for key in ("aa", "bb", "cc", "dd")]
    assert [result.state for result in crm.write(items)] == ["written", "again", "doubt", "written"]


def test_no_connection_is_no_doubt(says):
    """Where nobody listens nothing was written, not even by a create."""
    crm, server = says(Reply(200, {"error": False}), active_accounts={})
    users = crm._get("/tasks/", "users")
    crm._get = lambda *_, **__: users
    with server.refuse(), pytest.raises(CrmDownError, match="cannot be reached"):
        crm.write([Item(sample(0), "h")])


def test_nothing_is_tried_again_by_the_client(says):
    """Its retries are off, for connections too, and no .netrc or proxy of the machine takes part."""
    crm, _ = says(Reply(200, {}))
    retries = [adapter.max_retries for adapter in crm._session.adapters.values()]
    assert [(one.total, one.read) for one in retries] == [(0, False)] * 2
    assert crm._session.trust_env is False
    assert crm._session.verify is True


def test_unsure_is_for_writes_alone(says):
    """A lost reply to a question is asked again later, one to a write is looked up; the client's error stays inside."""
    crm, server = says(Reply(200, {"error": False}))
    server.writes = lambda _: True
    for fault in ("lost", "slow", "dropped_after"):
        server.faults.extend([fault, fault])
        with pytest.raises(CrmDownError) as down:
            crm._ask("GET", "/tasks/")
        with pytest.raises(CrmUnsureError) as unsure:
            crm._ask("POST", "/tasks/", {})
        assert (down.value.__context__, unsure.value.__context__) == (None, None)


def test_a_filter_that_is_not_obeyed_does_no_harm(tmp_path):
    """Another version may list tasks and accounts that were not asked for: none is adopted, linked or removed."""
    whole = {"id": "t-1", "status": "New", "due_date": None, "assigned_to": [], "custom_fields": {KEY: "other"}}
    told = {"/api/tasks/": {"users": [{"id": "u-1", "user__email": "ann@us.example"}],
                            "tasks": [{"id": "t-1", "created_at": "2026-11-01"}]},
            "/api/tasks/t-1/": {"task_obj": whole},
            "/api/accounts/": {"active_accounts": {"open_accounts": [{"id": "a-1", "custom_fields": {}}]}}}
    with Server(lambda request: Reply(200, told[request.path])) as server:
        crm = connect({"url": server.url}, tmp_path)
        assert crm.find(["ab"]) == {}
        crm.remove(["ab"])
        assert [one.state for one in crm.write([Item(sample(0), "h", sample(0).key)])] == ["gone"]
        [result] = crm.write([Item(sample(0), "h")])
        assert (result.state, "account 'A00'" in result.why) == ("refused", True)
        assert {method for method, _, _ in server.seen} == {"GET"}
