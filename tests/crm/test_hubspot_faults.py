"""The HubSpot connector under faults: what is unsure, what is down, and the token in none of it."""

import contextlib
import datetime as dt
import json
import logging
import traceback
from dataclasses import replace

import pytest
from hubspot_steps import MEANT, READS, items, known, searches, states
from hubspot_world import HubSpotWorld
from small_clock import Clock
from small_tasks import AT, task

from churnkit.errors import ChurnkitError, SettingsError
from churnkit.outreach.budget import Budget
from churnkit.outreach.crm.base import CrmDeniedError, CrmDownError, CrmRefusedError, CrmUnsureError, connect
from churnkit.outreach.outbox import Outbox
from churnkit.outreach.sync import sync
from churnkit.testing.server import Reply, Server
from churnkit.testing.world import CANARY, OWNERS

BODIES = [(502, CrmUnsureError, CrmDownError), (400, CrmRefusedError, CrmDeniedError),
          (201, CrmUnsureError, CrmDownError), (401, CrmDeniedError, CrmDeniedError)]


@pytest.mark.parametrize(("status", "written", "asked"), BODIES)
@pytest.mark.parametrize("body", [b"\xff\xfe\x00", b"[1]", b"5", b'{"message": 5}\xff', b"<html>"])
def test_a_reply_that_is_no_text_is_known_by_its_status(world, status, written, asked, body):
    """The client stumbles over such a body; what the status says counts all the same."""
    crm = world.connect()
    crm.check()
    crm.write(items(task(1)))
    world.fake._contract, answer = None, world.fake._answer
    world.fake._answer = lambda request: Reply(status, body) if request.path.endswith("/create") else answer(request)
    wrong = crm.write if status != 400 else lambda batch: crm.write([*batch, *items(task(0))])
    with pytest.raises(written):
        wrong(items(task(1, key="a" * 40)))
    world.fake._answer = lambda _: Reply(status, body)
    with pytest.raises(asked):
        crm.find([task(0).key])


@pytest.mark.parametrize("fault", ["dropped_before", "dropped_after", "lost", "502", "504", "slow", "malformed"])
@pytest.mark.parametrize("update", [False, True])
def test_a_write_without_a_clear_reply_is_unsure(world, fault, update):
    """It may have been done: it is not sent a second time, and the error tells nothing but that."""
    crm = world.connect()
    crm.write(items(task(1)))
    batch = known(crm, task(1)) if update else items(task(0))
    before = world.writes()
    world.fail(fault)
    with pytest.raises(CrmUnsureError):
        crm.write(batch)
    assert world.writes() - before == (fault != "dropped_before")


@pytest.mark.parametrize("fault", ["503", "429", "429_bare", "quota", "refused", "expired"])
def test_a_write_that_was_not_done_is_down(world, fault):
    """Nothing was written; how long to wait, and whether today at all, is told as HubSpot tells it."""
    crm = world.connect()
    crm.check()
    crm.write(items(task(1)))
    world.fail(fault)
    with pytest.raises(CrmDownError) as down:
        crm.write(items(task(0)))
    assert (down.value.wait, down.value.today) == (2.0 if fault == "429" else None, fault != "quota")
    assert isinstance(down.value, CrmDeniedError) == (fault == "expired")
    assert [one.key for one in world.tasks()] == [task(1).key]
    world.heal()
    assert states(crm.write(items(task(0)))) == {task(0).key: "written"}


@pytest.mark.parametrize("fault", ["dropped_before", "dropped_after", "lost", "502", "503", "504", "429", "slow",
                                   "malformed"])
@pytest.mark.parametrize("ask", READS)
def test_a_question_that_fails_is_down(world, fault, ask):
    """Asking leaves no doubt behind: it may be asked again."""
    crm = world.connect()
    crm.check()
    world.server.writes = lambda _: True
    world.fail(fault)
    with pytest.raises(CrmDownError):
        READS[ask](crm)


def test_a_spent_quota_in_the_midst_of_a_call_writes_nothing(world):
    """The budget is asked before each request, also by what looks owners and companies up."""
    crm, left = world.connect(), [0]

    def spend():
        if left[0] <= 0:
            raise CrmDownError("spent", today=False)
        left[0] -= 1

    crm.spend = spend
    for allowed in range(4):
        left[0] = allowed
        with pytest.raises(CrmDownError, match="spent"):
            crm.write(items(task(0)))
        crm.close()
    assert (world.tasks(), left) == ([], [0])
    left[0] = 4
    assert states(crm.write(items(task(0)))) == {task(0).key: "written"}


def test_every_request_is_paid_for(world):
    """No request goes out without the budget's leave, and a search costs two: HubSpot allows five a second."""
    crm, paid = world.connect(), []
    crm.spend = lambda: paid.append(1)
    before = len(world.server.seen)
    crm.check()
    crm.write(items(task(0)))
    crm.find([task(0).key])
    list(crm.changes(None))
    crm.remove([world.tasks()[0].remote_id])
    asked = world.server.seen[before:]
    assert len(paid) == len(asked) + len(searches(world))


@pytest.mark.parametrize("unique", [True, False])
def test_the_limit_is_kept_and_used(portal, tmp_path, unique):
    """With the engine's budget HubSpot never has to refuse a request, by a search neither."""
    world, clock = portal(unique_tasks=unique), Clock()
    world.fake.limit, crm = True, world.connect(clock)
    with contextlib.closing(Outbox(tmp_path / "o.db")) as box:
        budget = Budget(box.engine, "hubspot", crm.capabilities.rate, clock)
        crm.spend, began = budget.spend, clock.monotonic()
        tasks = [task(n % 30, key=f"{n:040x}") for n in range(600)]
        for n in range(200):
            crm.write(items(*tasks[3 * n:3 * n + 3]))
            crm.find([tasks[3 * n].key])
    asked = 400 if unique else 600  # a search is paid twice
    assert world.fake.refused == 0
    assert world.fake.peak <= 100
    assert asked / (clock.monotonic() - began) >= 9


def shown(error):
    """All that a traceback can show of an error, with the variables of every frame of the whole chain."""
    text, one, seen = [], error, set()
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        text.append("".join(traceback.TracebackException.from_exception(one, capture_locals=True).format()))
        text.append(repr(one) + repr(one.args) + repr(vars(one)))
        one = one.__cause__ or one.__context__
    return "".join(text)


def echo(request):
    """A server that says everything back that it was sent."""
    return Reply(int(request.path.strip("/").split("/")[0] or 400) if request.path[1:4].isdigit() else 400, {
        "message": json.dumps(request.headers), "category": request.headers["authorization"],
        "context": {"requiredGranularScopes": [request.headers["authorization"]]}})


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 409, 429, 500, 503])
@pytest.mark.parametrize("what", ["write", *READS])
def test_no_error_holds_the_token(tmp_path, monkeypatch, caplog, capfd, status, what):
    """Not even where the server says it back: in no message, no chain of errors, no variable, no log, no output."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("CHURNKIT_HUBSPOT_TOKEN", CANARY)
    asked = READS.get(what, lambda crm: crm.write(items(task(0))))

    def app(request):
        found = echo(request)
        return Reply(status, found.body, {"Location": f"https://{CANARY}.example/"} if status == 302 else {})

    with Server(app) as server:
        crm = connect("hubspot", {"host": server.url, "timeout": "1"}, tmp_path)
        with pytest.raises(ChurnkitError) as failed:
            asked(crm)
        assert server.seen != []
    out, err = capfd.readouterr()
    assert CANARY not in shown(failed.value) + repr(vars(crm)) + repr(crm) + caplog.text + out + err


@pytest.mark.parametrize("fault", ["dropped_before", "lost", "502", "slow", "malformed", "refused", "expired", "quota"])
def test_no_broken_line_shows_the_token(world, caplog, fault):
    """Whatever breaks on the way: the client's own errors, which hold it, stay inside."""
    caplog.set_level(logging.DEBUG)
    crm = world.connect()
    crm.check()
    world.fail(fault)
    with pytest.raises(ChurnkitError) as failed:
        crm.write(items(task(0)))
    assert CANARY not in shown(failed.value) + caplog.text
    assert (failed.value.__cause__, failed.value.__context__) == (None, None)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("what", ["write", *READS])
def test_a_redirect_is_not_followed(world, tmp_path, status, what):
    """The token goes to no other host, and the message names that host."""
    seen = []

    def other(request):
        seen.append(request)
        return Reply(200, {})

    with Server(other) as there:
        crm = world.connect()
        crm.check()
        world.fake._contract = None
        world.fake._answer = lambda _: Reply(status, {}, {"Location": f"{there.url}/crm"})
        with pytest.raises(CrmDeniedError, match=r"redirect to http://127\.0\.0\.1: churnkit follows none"):
            READS.get(what, lambda one: one.write(items(task(0))))(crm)
    assert seen == []


@pytest.mark.parametrize("options", [
    {"host": "http://api.hubapi.com"}, {"host": "http://10.0.0.1"}, {"host": "http://localhost.evil.example"}])
def test_no_token_in_plain_sight(options, tmp_path, monkeypatch):
    """Plain HTTP is for this machine's own ear alone."""
    monkeypatch.setenv("CHURNKIT_HUBSPOT_TOKEN", CANARY)
    with pytest.raises(SettingsError, match=r"in plain sight\. Use https"):
        connect("hubspot", options, tmp_path)


WRONG = [({"acount_property": "x"}, "Did you mean 'account_property'"), ({"timeout": "0"}, "timeout: '0' is no"),
         ({"timeout": "soon"}, "is no number from"), ({"requests": "0"}, "is no number from 1"),
         ({"host": "api.hubapi.com"}, "is no address such as"), ({"host": "https://a@b.example"}, "is no address"),
         ({"host": "https://b.example/path"}, "is no address"), ({"account_property": "a b"}, "is no name of a"),
         ({"mapping": "nowhere.csv"}, "cannot be read")]


@pytest.mark.parametrize(("options", "words"), WRONG)
def test_wrong_options_say_the_mend(options, words, tmp_path, monkeypatch):
    """Each names the option, and what it must be."""
    monkeypatch.setenv("CHURNKIT_HUBSPOT_TOKEN", CANARY)
    with pytest.raises(SettingsError, match=words):
        connect("hubspot", options, tmp_path)


def test_a_missing_token_says_where_it_belongs(tmp_path, monkeypatch):
    """Into the environment, never into churnkit.toml."""
    monkeypatch.delenv("CHURNKIT_HUBSPOT_TOKEN", raising=False)
    with pytest.raises(SettingsError, match="Set CHURNKIT_HUBSPOT_TOKEN, or CHURNKIT_HUBSPOT_TOKEN_FILE"):
        connect("hubspot", {}, tmp_path)


def test_an_untrusted_certificate_is_not_spoken_to(tmp_path, monkeypatch):
    """TLS is verified: to a server that cannot prove who it is nothing is sent."""
    import ssl

    import trustme

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    monkeypatch.setenv("CHURNKIT_HUBSPOT_TOKEN", CANARY)
    with Server(lambda _: Reply(200, {}), tls=context) as server:
        crm = connect("hubspot", {"host": server.url, "timeout": "1"}, tmp_path)
        with pytest.raises(CrmDeniedError, match="certificate cannot be verified, so nothing was sent") as failed:
            crm.check()
        assert server.seen == []
    assert CANARY not in shown(failed.value)


def test_the_whole_way_through_the_engine(world, tmp_path):
    """Tasks out, answers home, a second run writes nothing."""
    clock = Clock()
    with contextlib.closing(Outbox(tmp_path / "o.db")) as box:
        box.put([task(n) for n in range(12)], at=AT)
        assert sync(box, world.connect(clock), at=AT, clock=clock, rules=MEANT).created == 12
        later = AT + dt.timedelta(days=1)
        clock.time = later
        world.person(task(0).key, later, status="completed", disposition="saved", note="all well")
        world.person(task(1).key, later, owner=OWNERS[1])
        report = sync(box, world.connect(clock), at=later, clock=clock, rules=MEANT)
        assert (report.answers, report.edits, report.writes) == (1, 1, 0)
        again = sync(box, world.connect(clock), at=later, clock=clock, rules=MEANT)
        assert (again.answers, again.edits, again.writes) == (0, 0, 0)
        [outcome] = box.outcomes()
    assert (outcome.disposition, outcome.note) == ("saved", "all well")


def test_a_world_of_its_own(tmp_path, monkeypatch):
    """A backup that is restored brings the tasks back that came since, and with them the newest change."""
    with HubSpotWorld(tmp_path, monkeypatch.setenv) as world:
        crm = world.connect()
        crm.write(items(task(0)))
        with world.back_up():
            crm.write(items(task(1)))
            world.person(task(0).key, AT, note="x")
        assert [(one.key, one.note) for one in world.tasks()] == [(task(0).key, None)]
        assert replace(world.tasks()[0]).owner == OWNERS[0]
        assert states(crm.write(items(task(1)))) == {task(1).key: "written"}
