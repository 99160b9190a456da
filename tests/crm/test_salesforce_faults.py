"""The Salesforce connector on bad days: what each failure means, signing in, and what must never come out."""

import logging
import traceback

import pytest
import trustme
from salesforce_world import SalesforceWorld, certificate, new, only

from churnkit.errors import SettingsError
from churnkit.outreach.crm.base import CrmDeniedError, CrmDownError, CrmRefusedError, CrmUnsureError, connect
from churnkit.outreach.crm.salesforce_faults import failure, heard
from churnkit.testing.samples import CANARY, sample
from churnkit.testing.server import FAULTS, Reply, Server
from churnkit.testing.stage import KEYS


@pytest.fixture
def world(org):
    """A Salesforce org."""
    return org


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


@pytest.mark.parametrize("body", [None, b"", b"[]", b"7", b"{}", b"[7]", b'"x"', b"null", b"<html>",
                                  b'[{"success": true}]'])
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
    with pytest.raises(CrmDeniedError, match=r"invalid_client.*allows the client credentials flow"):
        app_world.connect().check()


def test_an_app_of_another_org(app_world):
    """The token of another host is not used, there or here."""
    app_world.fake.host = "other.my.salesforce.com"
    with pytest.raises(CrmDeniedError, match=r"at other\.my\.salesforce\.com, not at 127\.0\.0\.1"):
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
            assert app or fault == "row echo"
        except CrmDownError as error:
            said += [repr(error.__cause__ or ""), repr(error.__context__ or "")]
            shown = traceback.TracebackException.from_exception(error, capture_locals=True)
            said += ["".join(shown.format()), str(error)]
        said += [repr(crm), repr(vars(crm)), repr(vars(crm._line)), caplog.text, *capfd.readouterr()]
    assert said != []
    assert [text for text in said if CANARY in text] == []
