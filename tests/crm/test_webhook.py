"""The webhook connector: each task one message, told apart from its repetition, whatever the consumer says."""

import dataclasses
import datetime as dt
import json
import logging
import os
import re
import ssl
import traceback
from pathlib import Path

import pytest
import trustme
from fake_consumer import Consumer
from webhook_world import CANARIES, SECRET, WebhookWorld, key_of

from churnkit.errors import ChurnkitError, SettingsError
from churnkit.jobs import crms
from churnkit.outreach.crm import base, posting, webhook
from churnkit.outreach.crm.base import CrmDeniedError, CrmDownError, Item
from churnkit.outreach.crm.inbox import Inbox
from churnkit.outreach.outbox import Outbox
from churnkit.outreach.status import Rules
from churnkit.outreach.sync import sync
from churnkit.testing.samples import AT, OWNERS, TurnedClock, sample
from churnkit.testing.server import FAULTS, Reply, Server

DOC = Path(__file__).parents[2] / "docs" / "webhook.md"
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


@pytest.fixture
def world(tmp_path):
    with WebhookWorld(tmp_path) as world:
        yield world
        assert world.consumer.violations == []


@pytest.fixture
def box(tmp_path):
    box = Outbox(tmp_path / "outbox.db")
    yield box
    box.close()


@pytest.fixture
def clock():
    return TurnedClock()


@pytest.fixture
def crm(world, clock):
    crm = world.connect(clock)
    yield crm
    crm.close()


def new(n=0, **changes):
    task = sample(n, **changes)
    return Item(task, task.content_hash())


def known(n=0, closing="", **changes):
    task = sample(n, **changes)
    return Item(task, task.content_hash(), task.key, closing)


def run(box, world, clock, at=AT):
    crm = world.connect(clock)
    return sync(box, crm, at=at, clock=clock, rules=Rules("127.0.0.1"))


def kinds(world):
    return [kind for kind, _, _ in world.consumer.seen]


# what goes out


def test_a_new_task_tells_all_and_an_update_leaves_peoples_part(world, crm):
    """The consumer notes any field that a message of its type may not hold."""
    crm.write([new(0)])
    crm.write([known(0, body="Why: use stopped.")])
    crm.write([known(0, closing="the cause is gone", status="dismissed")])
    assert kinds(world) == ["task.created", "task.updated", "task.closed"]
    [there] = world.tasks()
    assert (there.status, there.note, there.owner, there.due) == (
        "dismissed", "the cause is gone", OWNERS[0], dt.date(2026, 11, 6))
    assert {"owner", "due", "status", "propensity", "stratum"} & set(world.consumer.seen[1][2]) == set()


def test_a_close_leaves_what_a_person_has_begun(world, crm):
    """The consumer closes only what is untouched."""
    crm.write([new(0)])
    world.person(sample(0).key, AT, status="in_progress")
    crm.write([known(0, closing="the cause is gone")])
    assert [task.status for task in world.tasks()] == ["in_progress"]


def test_a_repetition_has_the_same_id_and_body(world, clock):
    """Sent again by another process, hours later: the same message, byte for byte."""
    bodies = []
    app = world.server.app
    world.server.app = lambda request: (bodies.append(request.body), app(request))[1]
    for _ in range(3):
        assert [result.state for result in world.connect(clock).write([new(0)])] == ["written"]
        clock.time += HOUR
    assert len({message_id for _, message_id, _ in world.consumer.seen}) == 1
    assert len(set(bodies)) == 1


def test_going_back_is_no_repetition(world, crm, clock):
    """A text that was there once before is sent under a new id, or the consumer would leave it aside."""
    crm.write([new(0)])
    for words in ("B.", "A.", "B.", "A."):
        crm.write([known(0, body=words)])
        assert world.texts(sample(0).key)[1] == words
    assert len({message_id for _, message_id, _ in world.consumer.seen}) == 5


def test_time_stands_still_or_goes_back(world, crm, clock):
    """Two messages about one task have growing times, so that the consumer can tell which one is newer."""
    crm.write([new(0)])
    for hours, words in ((0, "B."), (-5, "C.")):
        clock.time += hours * HOUR
        crm.write([known(0, body=words)])
        assert world.texts(sample(0).key)[1] == words


@pytest.mark.parametrize("text", ["ring them. " * 4000, "Прозвоните. " * 4000, '\\"\n' * 20_000, "x" * 50_000])
def test_a_long_text_is_cut_and_says_so(world, crm, text):
    """No message is larger than 20,000 bytes, in whatever script; what is cut is said."""
    assert [result.state for result in crm.write([new(0, body=text)])] == ["written"]
    body = world.texts(sample(0).key)[1]
    assert body.endswith("[...]")
    assert world.consumer.seen[0][2]["cut"] == ["body"]
    assert len(json.dumps(body, ensure_ascii=False).encode()) > 17_000


def test_what_cannot_be_cut_is_refused(world, crm):
    """A task of thousands of assets fails alone and is not sent."""
    huge = new(0, asset_ids=tuple(f"asset-{n:06d}" for n in range(3000)))
    results = {result.key: result for result in crm.write([huge, new(1)])}
    assert results[sample(0).key].state == "refused"
    assert "20000 bytes" in results[sample(0).key].why
    assert results[sample(1).key].state == "written"
    assert len(world.consumer.seen) == 1


def test_control_characters_reach_nobody(world, crm):
    """Markup stays text: it is the consumer's to escape where it is shown."""
    crm.write([new(0, title="=1\x00", body="<b>\x07\u202e \ud800&", asset_ids=("a\ud800",))])
    assert world.texts(sample(0).key) == ("=1", "<b> &")


def test_the_mapping_table_goes_along(world, clock):
    """Ids of the consumer's own, both ways."""
    (world.folder / "crm_map.csv").write_text("kind,id,crm_id\naccount,A00,77\nowner,ann@us.example,u1\n"
                                              "owner,eve@us.example,u2\n")
    crm = world.connect(clock)
    crm.write([new(0)])
    assert world.consumer.seen[0][2]["crm_ids"] == {"account": "77", "owner": "u1"}
    world.person(sample(0).key, AT, owner="u2")
    [page] = crm.changes(None)
    assert [remote.owner for remote in page.remotes] == ["eve@us.example"]


# what comes back


def test_answers_are_read_on_from_where_it_was(world, crm):
    """By the inbox's own numbers: a cursor repeats nothing and leaves nothing out."""
    crm.capabilities = dataclasses.replace(crm.capabilities, page=2)
    crm.write([new(n) for n in range(5)])
    for n in range(5):
        world.person(sample(n).key, AT, status="completed", disposition="saved", note="they stay")
    pages = list(crm.changes(None))
    read = [remote for page in pages for remote in page.remotes]
    assert [remote.key for remote in read] == [sample(n).key for n in range(5)]
    assert {(one.status, one.disposition, one.note, one.by) for one in read} == {
        ("completed", "saved", "they stay", "ann@us.example")}
    assert list(crm.changes(pages[-1].cursor)) == []
    world.delete(sample(1).key)
    [page] = crm.changes(pages[-1].cursor)
    assert [(remote.key, remote.deleted) for remote in page.remotes] == [(sample(1).key, True)]


def test_a_deleted_task_stays_deleted(world, crm):
    """A message for it is answered with its being gone."""
    crm.write([new(0)])
    world.delete(sample(0).key)
    for item in (known(0, body="Why: worse."), new(0)):
        assert [result.state for result in crm.write([item])] == ["gone"]
    assert world.tasks() == []


def test_the_consumers_own_id_is_kept(world, crm):
    """It is told in later messages, and names the task that is to be removed."""
    world.consumer.gives_ids = True
    [result] = crm.write([new(0)])
    assert result.remote.remote_id.startswith("t-")
    crm.remove([result.remote.remote_id])
    assert (world.tasks(), kinds(world)) == ([], ["task.created", "task.removed"])


# replies

BAD = {
    400: "refused", 409: "refused", 413: "refused", 422: "refused", 451: "refused", 408: "doubt", 425: "doubt",
    500: "doubt", 501: "doubt", 502: "doubt", 504: "doubt", 599: "doubt", 301: CrmDeniedError, 302: CrmDeniedError,
    307: CrmDeniedError, 308: CrmDeniedError, 401: CrmDeniedError, 403: CrmDeniedError, 404: CrmDeniedError,
    405: CrmDeniedError, 407: CrmDeniedError, 410: CrmDeniedError, 429: CrmDownError, 503: CrmDownError}


@pytest.mark.parametrize("status", BAD)
def test_each_status_means_what_the_contract_says(world, crm, status):
    """One request each: no redirect is followed, nothing is tried again here."""
    asked = []

    def app(request):
        asked.append(request.path)
        return Reply(status, {"error": f"no\x00 good: {SECRET}"}, {"Location": f"{world.server.url}/elsewhere"})

    world.server.app = app
    if isinstance(BAD[status], str):
        [result] = crm.write([new(0)])
        assert (result.state, any(canary in result.why for canary in CANARIES)) == (BAD[status], False)
        assert ("no good: ***" in result.why) == (BAD[status] == "refused")
    else:
        with pytest.raises(CrmDownError) as caught:
            crm.write([new(0)])
        assert type(caught.value) is BAD[status]
    assert asked == ["/hooks/churnkit"]


@pytest.mark.parametrize("said", [b"", b"OK", b"<html>", b"[]", b'{"remote_id": 7}', b'{"state": ["gone"]}',
                                  b"[" * 50_000, b'{"remote_id": "' + b"x" * 200_000 + b'"}'])
def test_whatever_a_2xx_says_it_is_there(world, crm, said):
    """The status decides; words that are not of the contract count for nothing."""
    world.server.app = lambda _: Reply(200, said)
    [result] = crm.write([new(0)])
    assert (result.state, result.remote.remote_id) == ("written", sample(0).key)


def test_the_middle_of_a_batch(world, crm):
    """What was taken is written, the one in doubt is in doubt, and the rest was not sent."""
    world.server.faults.extend(["", "dropped_after"])
    states = [result.state for result in crm.write([new(n) for n in range(4)])]
    assert states == ["written", "doubt", "unsent", "unsent"]
    assert len(world.consumer.seen) == 2


def test_the_budget_is_spent_in_the_middle(world, crm):
    """Before the first message that is an error; after one was taken the rest waits."""
    left = [1]

    def spend():
        left[0] -= 1
        if left[0] < 0:
            raise CrmDownError("the budget is spent", wait=1.0, today=False)

    crm.spend = spend
    assert [result.state for result in crm.write([new(0), new(1)])] == ["written", "again"]
    with pytest.raises(CrmDownError, match="the budget is spent"):
        crm.write([new(1)])
    with pytest.raises(CrmDownError, match="the budget is spent"):
        crm.check(mend=True)
    assert len(world.consumer.seen) == 1


# an endpoint that fails


def test_failures_in_a_row_are_waited_for_longer_and_longer(world, clock):
    """Across processes: 5 seconds at first, a day in the end, each a little longer by chance; a success ends it."""
    waits = []
    with world.server.refuse():
        for _ in range(12):
            with pytest.raises(CrmDownError, match="takes no connection") as failed:
                world.connect(clock).write([new(0)])
            with pytest.raises(CrmDownError, match="left alone") as early:
                world.connect(clock).write([new(0)])
            assert early.value.wait == pytest.approx(failed.value.wait, abs=1e-3)
            waits.append(early.value.wait)
            clock.time += dt.timedelta(seconds=early.value.wait + 0.001)
    expected = [*webhook.SCHEDULE, *[24 * 3600] * 3]
    assert [least <= wait <= 1.25 * least for wait, least in zip(waits, expected, strict=True)] == [True] * 12
    assert len(set(waits)) == 12
    assert [result.state for result in world.connect(clock).write([new(0)])] == ["written"]
    world.server.faults.append("503")
    with pytest.raises(CrmDownError) as caught:
        world.connect(clock).write([new(1)])
    assert 5 <= caught.value.wait <= 6.25


@pytest.mark.parametrize(("said", "least", "most"), [
    ("120", 120, 120), ("0", 0, 0), ("Sun, 01 Nov 2026 06:05:00 GMT", 300, 300), ("99999999999", 86400, 86400),
    ("Sun, 01 Nov 2020 00:00:00 GMT", 0, 0), ("soon", 5, 6.25), ("-3", 5, 6.25), ("9" * 4000, 86400, 86400)])
def test_retry_after_is_honoured(world, crm, said, least, most):
    """Seconds or a date, at most a day; what is neither counts as a failure."""
    world.server.app = lambda _: Reply(429, None, {"Retry-After": said})
    with pytest.raises(CrmDownError) as caught:
        crm.write([new(0)])
    assert least <= caught.value.wait <= most


def test_a_disabled_endpoint_is_left_alone_until_it_is_set_up(world, clock):
    """410 is remembered across processes; a ping that is taken ends it, one that is not does not."""
    world.consumer.disabled = True
    for asked in (1, 1):
        with pytest.raises(CrmDeniedError, match="churnkit crm setup webhook"):
            world.connect(clock).write([new(0)])
        assert len(world.server.seen) == asked
    with pytest.raises(CrmDeniedError, match="is disabled"):
        world.connect(clock).check(mend=True)
    world.consumer.disabled = False
    clock.time += 30 * DAY
    with pytest.raises(CrmDeniedError, match=r"since 2026-11-01T06:00:00"):
        world.connect(clock).write([new(0)])
    assert world.connect(clock).check(mend=True).made == ("127.0.0.1 took a signed ping.",)
    assert [result.state for result in world.connect(clock).write([new(0)])] == ["written"]


def test_another_address_is_another_endpoint(world, clock):
    """What one url did is not held against the next."""
    world.consumer.disabled = True
    with pytest.raises(CrmDeniedError):
        world.connect(clock).write([new(0)])
    world.consumer.disabled = False
    world.options = {**world.options, "url": f"{world.options['url']}?"}
    assert [result.state for result in world.connect(clock).write([new(0)])] == ["written"]


def test_check_says_the_host_and_sends_nothing(world, crm):
    """The host is what [crm_options] portal must name."""
    portal = crm.check()
    assert (portal.name, portal.id, portal.kind, portal.todo) == ("webhook 127.0.0.1", "127.0.0.1", "", ())
    assert world.server.seen == []
    assert crm.find([sample(0).key]) == {}


# with the engine and the commands


def test_set_up_and_tried_by_the_commands(world, monkeypatch):
    """`churnkit crm setup` pings, `churnkit crm test` leaves nothing behind."""
    lines = "\n".join(f'{name} = "{value}"' for name, value in {**world.options, "portal": "127.0.0.1"}.items())
    (world.folder / "churnkit.toml").write_text(f'schema_version = 1\ncrm = "webhook"\n[crm_options]\n{lines}\n')
    monkeypatch.setenv("CHURNKIT_WEBHOOK_SECRET", SECRET)
    told = crms.setup(world.folder, "webhook")
    assert (told.code, "Done: 127.0.0.1 took a signed ping." in told.notes) == (0, True)
    crms.trial(world.folder, "webhook", AT, owner=OWNERS[0], account="A00")
    assert kinds(world) == ["ping", "task.created", "task.updated", "task.removed"]
    assert world.tasks() == []


@pytest.mark.parametrize("fault", [*FAULTS, "half"])
def test_one_task_each_after_any_fault(world, box, clock, fault):
    """After the fault and a few runs each task is there once, with one message taken for each."""
    box.put([sample(n) for n in range(6)], at=AT)
    world.fail(fault, 2)
    for _ in range(4):
        run(box, world, clock)
        clock.time += DAY
    assert sorted(task.key for task in world.tasks()) == sorted(sample(n).key for n in range(6))
    assert len(world.consumer.ids) == 6
    before = world.writes()
    assert (run(box, world, clock).writes, world.writes()) == (0, before)


def test_a_store_that_is_lost_makes_no_second_task(world, box, clock):
    """The key still holds: the consumer takes the new message for an update."""
    box.put([sample(n) for n in range(3)], at=AT)
    world.fail("dropped_after", 1)
    run(box, world, clock)
    for file in world.inbox.path.parent.glob("webhook_inbox.db*"):
        file.unlink()
    clock.time += DAY
    run(box, world, clock)
    assert sorted(task.key for task in world.tasks()) == sorted(sample(n).key for n in range(3))


def test_the_consumers_limit_is_kept(world, box, clock):
    """429 with Retry-After in mid-run: the run waits as long as it was told, and loses nothing."""
    box.put([sample(n) for n in range(8)], at=AT)
    world.consumer.left = 3
    report = run(box, world, clock)
    assert report.created == 3
    assert max(clock.slept) == pytest.approx(7, abs=0.1)
    world.heal()
    clock.time += DAY
    assert run(box, world, clock).created == 5


# secrets and safety


def told_by(call):
    """All that an error of this call could show: its words, what hangs on it, and the variables of our frames."""
    try:
        call()
    except ChurnkitError as error:
        frames = traceback.TracebackException.from_exception(error, capture_locals=True).stack.format()
        return [str(error), repr(error.__context__), *(frame for frame in frames if "churnkit/outreach" in frame)]
    return []


@pytest.mark.parametrize("fault", [*FAULTS, "expired", "refused", "disabled", "poison"])
def test_no_secret_is_shown(world, box, clock, fault, caplog, capfd):
    """Neither in logs, output, the outbox and the store, nor in an error's words, chain and variables."""
    box.put([sample(n) for n in range(5)], at=AT)
    if fault == "disabled":
        world.consumer.disabled = True
    else:
        world.fail(fault, 4)
    shown = []
    with caplog.at_level(logging.DEBUG):
        crm = world.connect(clock)
        report = sync(box, crm, at=AT, clock=clock, rules=Rules("127.0.0.1"))
        shown += [*report.problems, repr(vars(crm))]
        clock.time += DAY
        for call in (lambda: world.connect(clock).write([new(9)]), lambda: world.connect(clock).check(mend=True),
                     lambda: world.connect(clock).remove([sample(0).key])):
            shown += told_by(call)
    out = capfd.readouterr()
    shown += [caplog.text, out.out, out.err]
    shown += [path.read_bytes().decode("latin-1") for path in world.folder.rglob("*") if path.is_file()]
    assert not any(canary in text for canary in CANARIES for text in shown)


OPTIONS = {
    "no url": ({}, "[crm_options] url"), "no scheme": ({"url": "tasks.example.com"}, "is no address"),
    "ftp": ({"url": "ftp://tasks.example.com"}, "is no address"), "no host": ({"url": "https:///x"}, "is no address"),
    "plain": ({"url": "http://tasks.example.com/x"}, "Use https"),
    "likeness": ({"url": "http://127.0.0.1.example"}, "Use https"),
    "user": ({"url": "https://ann:pw@tasks.example.com"}, "Take them out"),
    "user alone": ({"url": "https://ann@tasks.example.com"}, "Take them out"),
    "bad port": ({"url": "https://tasks.example.com:x"}, "is no address"),
    "space": ({"url": "https://a b"}, "is no address"),
    "line": ({"url": "https://a.example/\r\nX: 1"}, "is no address"),
    "misspelt": ({"url": "https://a.example", "timeot": "3"}, "Did you mean 'timeout'"),
    "timeout": ({"url": "https://a.example", "timeout": "an hour"}, "[crm_options] timeout"),
    "too long": ({"url": "https://a.example", "timeout": "nan"}, "[crm_options] timeout"),
    "half": ({"url": "https://a.example", "requests": "1.5"}, "[crm_options] requests")}


@pytest.mark.parametrize("name", OPTIONS)
def test_wrong_options_are_named(tmp_path, monkeypatch, name):
    """With the mend; the address itself is not shown, for its path may be a secret."""
    monkeypatch.setenv("CHURNKIT_WEBHOOK_SECRET", SECRET)
    options, words = OPTIONS[name]
    with pytest.raises(SettingsError, match=re.escape(words)) as caught:
        base.connect("webhook", options, tmp_path)
    assert "pw" not in str(caught.value)


def test_a_missing_key_is_named(tmp_path, monkeypatch):
    """By its variable."""
    monkeypatch.delenv("CHURNKIT_WEBHOOK_SECRET", raising=False)
    with pytest.raises(SettingsError, match="Set CHURNKIT_WEBHOOK_SECRET"):
        base.connect("webhook", {"url": "https://a.example"}, tmp_path)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "http://localhost:1", "http://[::1]:1", "https://a.example/x"])
def test_plain_http_is_for_this_machine(url):
    """And https for all."""
    assert posting.address(url) == url


def secured(tmp_path, monkeypatch, host):
    """A consumer behind TLS with a certificate for that host, of an authority that this process trusts."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    monkeypatch.setenv("CHURNKIT_WEBHOOK_SECRET", SECRET)
    consumer = Consumer([SECRET])
    return consumer, Server(consumer.app, tls=context), str(tmp_path / "ca.pem")


@pytest.mark.parametrize(("host", "trusted", "taken"), [
    ("127.0.0.1", True, True), ("127.0.0.1", False, False), ("other.example", True, False)])
def test_certificates_are_verified(tmp_path, monkeypatch, host, trusted, taken):
    """An unknown authority and another host's certificate are refused before a word is sent; there is no switch."""
    consumer, server, authority = secured(tmp_path, monkeypatch, host)
    monkeypatch.setenv("SSL_CERT_FILE", authority if trusted else os.devnull)
    with server:
        crm = base.connect("webhook", {"url": f"{server.url}/hooks/churnkit", "timeout": "5"}, tmp_path)
        if taken:
            assert [result.state for result in crm.write([new(0)])] == ["written"]
        else:
            with pytest.raises(CrmDeniedError, match="SSL_CERT_FILE"):
                crm.write([new(0)])
        crm.close()
    assert len(consumer.seen) == taken


def test_a_key_is_replaced_without_a_gap(world, clock, monkeypatch):
    """The first of two signs; a consumer that knows either takes it."""
    new_key = key_of("the next one")
    world.env = {"CHURNKIT_WEBHOOK_SECRET": f"{new_key} {SECRET}"}
    world.consumer.secrets = [SECRET, new_key]
    assert [result.state for result in world.connect(clock).write([new(0)])] == ["written"]
    world.consumer.secrets = [SECRET]
    with pytest.raises(CrmDeniedError, match="refuses the signature"):
        world.connect(clock).write([new(1)])


# the contract as it is written


def block(name, language):
    return re.search(rf"<!-- {name} -->\n```{language}\n(.*?)```", DOC.read_text(), flags=re.DOTALL)[1]


def test_the_documented_message_is_what_is_sent(world, crm):
    """The example of docs/webhook.md, field for field."""
    bodies = []
    app = world.server.app
    world.server.app = lambda request: (bodies.append(request.json()), app(request))[1]
    crm.write([new(0)])
    assert bodies == [json.loads(block("example", "json"))]


def test_the_documented_answer_is_taken(world):
    """As it stands in docs/webhook.md."""
    answer = re.search(r'```json\n(\{\n  "type": "task.answered".*?)```', DOC.read_text(), flags=re.DOTALL)[1]
    assert Inbox(world.folder / "other.db").take("msg_1", answer.encode(), AT + 30 * DAY) == "new"


def test_the_documented_consumer_keeps_the_contract(world, box, clock):
    """Its thirty lines, as they stand there, hold each task once under faults and leave people's part alone."""
    code = {}
    exec(block("consumer", "python").replace("whsec_...", SECRET), code)  # noqa: S102 - our own document
    world.server.app = lambda request: Reply(*code["take"](request.headers, request.body))
    box.put([sample(n) for n in range(4)], at=AT)
    world.server.faults.extend(["dropped_after", "", "502"])
    for _ in range(3):
        run(box, world, clock)
        clock.time += DAY
    tasks = code["tasks"]
    assert sorted(tasks) == sorted(sample(n).key for n in range(4))
    tasks[sample(0).key] |= {"owner": OWNERS[1], "status": "in_progress"}
    tasks[sample(1).key]["deleted"] = True
    box.put([sample(n, body="Why: use stopped.") for n in range(4)], at=AT)
    run(box, world, clock)
    held = tasks[sample(0).key]
    assert (held["owner"], held["status"], held["body"]) == (OWNERS[1], "in_progress", "Why: use stopped.")
    assert tasks[sample(1).key]["body"] == "Why: use halved."
    code["KEYS"][0] = key_of("another")
    assert code["take"]({}, b"{}")[0] == 401
