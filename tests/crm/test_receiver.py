"""The receiver: each genuine message once and on the disk before its reply, and nothing else at all."""

import contextlib
import datetime as dt
import http.client
import json
import os
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
import traceback

import pytest
from fake_consumer import signed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from webhook_world import CANARIES, SECRET, key_of

from churnkit.errors import SettingsError
from churnkit.jobs.crm_receive import receive
from churnkit.outreach.crm.inbox import Inbox
from churnkit.outreach.crm.receiver import LIMIT, Receiver, Server, serve
from churnkit.outreach.crm.secret import Secret
from churnkit.outreach.crm.signed import Keys, SignatureError

AT = dt.datetime(2026, 11, 1, 9, tzinfo=dt.UTC)
KEY = "ab" * 20


def said(key=KEY, at=AT, **changes):
    data = {"key": key, "status": "in_progress", "modified_at": at.isoformat(), **changes}
    return json.dumps({"type": "task.answered", "timestamp": at.isoformat(), "data": data}).encode()


@pytest.fixture
def inbox(tmp_path):
    return Inbox(tmp_path / "state" / "inbox.db")


@pytest.fixture
def receiver(inbox):
    return Receiver(Keys(Secret(SECRET)), inbox, lambda: AT)


@contextlib.contextmanager
def listening(receiver, seconds=5.0):
    with Server(receiver, port=0, seconds=seconds) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def post(port, body, headers, method="POST", path="/churnkit"):
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        line.request(method, path, body, headers)
        reply = line.getresponse()
        return reply.status, reply.read().decode()
    finally:
        line.close()


def raw(port, text):
    """What the receiver answers to these very bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.sendall(text)
        return b"".join(iter(lambda: line.recv(4096), b"")).decode()


def taken(inbox):
    return [(answer.key, answer.status) for _, answer in inbox.answers(0, 100)]


def test_a_message_is_taken_once(receiver, inbox):
    """Its repetition, signed anew as a sender does that got no reply, is answered alike and changes nothing."""
    body = said()
    for _ in range(3):
        assert receiver.take(signed(SECRET, body, "msg_1"), body) == (204, "")
    assert taken(inbox) == [(KEY, "in_progress")]


def test_an_id_is_one_messages(receiver, inbox):
    """A second message under an id that was used is refused, genuine as it is."""
    receiver.take(signed(SECRET, said(), "msg_1"), said())
    other = said(status="completed")
    assert receiver.take(signed(SECRET, other, "msg_1"), other)[0] == 409
    assert taken(inbox) == [(KEY, "in_progress")]


def test_an_older_answer_does_not_undo_a_newer(receiver, inbox):
    """Reordered on the way: the older one is accepted and left aside."""
    for minutes, status in ((5, "completed"), (1, "in_progress"), (4, "snoozed")):
        body = said(at=AT + dt.timedelta(minutes=minutes), status=status)
        assert receiver.take(signed(SECRET, body), body)[0] == 204
    assert taken(inbox) == [(KEY, "completed")]


def test_of_two_in_one_moment_none_opens_again(receiver, inbox):
    """Two changes in one tick: the later counts, but not where it would open what the other closed."""
    for status in ("in_progress", "completed", "open"):
        body = said(status=status)
        receiver.take(signed(SECRET, body), body)
    assert taken(inbox) == [(KEY, "in_progress"), (KEY, "completed")]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_order_gives_the_newest_state(tmp_path_factory, data):
    """However answers are shuffled and repeated, the last one read of each task is its newest."""
    keys = ["aa", "bb", "cc"]
    inbox = Inbox(tmp_path_factory.mktemp("inbox") / "inbox.db")
    receiver = Receiver(Keys(Secret(SECRET)), inbox, lambda: AT)
    states = data.draw(st.lists(st.tuples(st.sampled_from(keys), st.sampled_from(["open", "in_progress", "completed"])),
                                min_size=1, max_size=8))
    bodies = {f"msg_{n}": said(key, AT + dt.timedelta(seconds=n), status=status)
              for n, (key, status) in enumerate(states)}
    order = data.draw(st.permutations(sorted(bodies)))
    repeats = data.draw(st.lists(st.sampled_from(sorted(bodies)), max_size=6))
    for name in [*order, *repeats]:
        assert receiver.take(signed(SECRET, bodies[name], name), bodies[name])[0] == 204
    assert dict(taken(inbox)) == dict(states)
    assert len(taken(inbox)) <= len(states)


def changed(headers, body):
    return headers, body.replace(b"in_progress", b"completed")


def other_id(headers, body):
    return {**headers, "webhook-id": "msg_other"}, body


def other_time(headers, body):
    return {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}, body


def other_key(_, body):
    return signed(key_of("a stranger's"), body), body


def too_old(_, body):
    return signed(SECRET, body, at=dt.datetime.now(dt.UTC) - dt.timedelta(minutes=6)), body


def too_new(_, body):
    return signed(SECRET, body, at=dt.datetime.now(dt.UTC) + dt.timedelta(minutes=6)), body


def unsigned(headers, body):
    return {name: value for name, value in headers.items() if name != "webhook-signature"}, body


def nameless(headers, body):
    return {name: value for name, value in headers.items() if name != "webhook-id"}, body


def strange(headers, body):
    return {**headers, "webhook-signature": "v1"}, body


def not_base64(headers, body):
    return {**headers, "webhook-signature": "v1,***"}, body


def no_number(headers, body):
    return {**headers, "webhook-timestamp": "nan"}, body


def twice(headers, body):
    """The library would verify the one name and a careless reader believe the other."""
    return {"Webhook-Id": "msg_fresh", **headers}, body


def no_utf8(_, body):
    return {**signed(SECRET, body)}, body + b"\xff"


FORGED = (changed, other_id, other_time, other_key, too_old, too_new, unsigned, nameless, strange, not_base64,
          no_number, twice, no_utf8)


@pytest.mark.parametrize("forge", FORGED)
def test_what_is_not_genuine_is_refused(receiver, inbox, forge):
    """Tampered, unsigned, too old or oddly signed: 401, and nothing of it is kept."""
    body = said()
    headers, body = forge(signed(SECRET, body, "msg_1"), body)
    status, why = receiver.take(headers, body)
    assert (status, why[-1]) == (401, ".")
    assert not any(canary in why for canary in CANARIES)
    assert taken(inbox) == []
    assert not inbox.poked()


WRONG = {
    "{": (400, "no JSON"), "[" * 50_000: (400, "no JSON"), "[]": (400, "no message"),
    '{"type": 7}': (400, "no message"), '{"type": "task.answered"}': (422, "no object")}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:30])
def test_what_cannot_be_read_is_refused(receiver, inbox, text):
    """Signed and yet no message."""
    status, why = receiver.take(signed(SECRET, text.encode()), text.encode())
    assert (status, WRONG[text][1] in why) == (WRONG[text][0], True)
    assert taken(inbox) == []


FIELDS = {
    "unknown": ({"score": 1}, "data.score is not known"), "key": ({"key": "../x"}, "data.key"),
    "upper": ({"key": "AB"}, "data.key"), "status": ({"status": "done"}, "data.status"),
    "disposition": ({"disposition": "sold"}, "data.disposition"), "note": ({"note": 7}, "data.note"),
    "due": ({"due": "soon"}, "data.due"), "naive": ({"modified_at": "2026-11-01T09:00:00"}, "data.modified_at"),
    "no time": ({"modified_at": None}, "data.modified_at"), "ahead": ({"modified_at": "2031-01-01T00:00:00Z"}, "ahead"),
    "deleted": ({"deleted": "yes"}, "data.deleted"), "owner": ({"owner": "x" * 300}, "data.owner")}


@pytest.mark.parametrize("name", FIELDS)
def test_what_the_contract_does_not_know_is_refused(receiver, inbox, name):
    """422, and words that name the field."""
    changes, words = FIELDS[name]
    body = said(**changes)
    status, why = receiver.take(signed(SECRET, body), body)
    assert (status, words in why) == (422, True)
    assert taken(inbox) == []


def test_notes_are_made_harmless(receiver, inbox):
    """Control characters are left out, and a long note is cut."""
    body = said(note="ring\x00 them \u202e" + "x" * 9000)
    receiver.take(signed(SECRET, body), body)
    [(_, answer)] = inbox.answers(0, 9)
    assert answer.note.startswith("ring them xxx")
    assert len(answer.note) <= 4000


@pytest.mark.parametrize("place", [0, 1])
def test_keys_are_replaced_without_a_gap(inbox, place):
    """While two keys are set, messages of either one are taken, and one's own are signed with the first."""
    names = [key_of("the old one"), key_of("the new one")]
    keys = Keys(Secret(" ".join(names)))
    body = said()
    assert Receiver(keys, inbox, lambda: AT).take(signed(names[place], body), body)[0] == 204
    mine = keys.headers("msg_1", body, dt.datetime.now(dt.UTC))
    assert Keys(Secret(names[0])).verify(body, mine) == "msg_1"
    with pytest.raises(SignatureError, match="no signature fits"):
        Keys(Secret(names[1])).verify(body, mine)


@pytest.mark.parametrize("held", ["whsec_", "whsec_short", "hunter2", "whsec_" + "A" * 200, "whsec_not-base64-at-all!"])
def test_what_is_no_key_is_refused(held):
    """Neither the words nor the variables of the error show it."""
    with pytest.raises(SettingsError, match="is no signing key") as caught:
        Keys(Secret(f"{SECRET} {held}"))
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    mine = shown[shown.index("churnkit/outreach"):]  # the frames below this test's own
    assert not any(canary in mine for canary in (*CANARIES, f"'{SECRET} {held}'"))
    assert repr(Keys(Secret(SECRET))) == "Keys(1)"


def test_a_poke_is_told_once(receiver, inbox):
    """Any signed message says that a sync is worth while; a forged one does not."""
    assert not inbox.poked()
    body = b'{"type": "poke", "timestamp": "2026-11-01T09:00:00Z", "data": {}}'
    assert receiver.take(signed(SECRET, body), body) == (204, "")
    assert (inbox.poked(), inbox.poked(), taken(inbox)) == (True, False, [])


def test_ids_are_kept_for_a_month(inbox):
    """A repetition after 30 days is recognised, by when its signature has long been too old; then they go."""
    body = said(key="cd")
    for days, expected in ((0, "new"), (30, "repeated"), (39, "repeated")):
        assert inbox.take("msg_1", said(), AT + dt.timedelta(days=days)) == expected
    for name, days in (("msg_2", 39), ("msg_3", 41)):
        inbox.take(name, body, AT + dt.timedelta(days=days))
    with contextlib.closing(sqlite3.connect(inbox.path)) as store:
        kept = [row[0] for row in store.execute("SELECT message_id FROM ids ORDER BY 1")]
    assert kept == ["msg_2", "msg_3"]


def test_the_store_is_this_users(receiver, inbox):
    """Notes about customers are nobody else's to read."""
    receiver.take(signed(SECRET, said()), said())
    assert {oct(file.stat().st_mode & 0o777) for file in inbox.path.parent.iterdir()} == {"0o600"}


def test_what_cannot_be_kept_is_not_confirmed(tmp_path):
    """A store that fails: 503, so that the sender tries again, and no word about the inside."""
    (tmp_path / "file").write_text("no database, but long enough to be looked at as one " * 20)
    for path in (tmp_path / "file", tmp_path / "file" / "inbox.db"):
        status, why = Receiver(Keys(Secret(SECRET)), Inbox(path)).take(signed(SECRET, said(at=AT)), said(at=AT))
        assert (status, str(tmp_path) in why) == (503, False)


# over the line

REQUESTS = {
    "right": ("POST", "/churnkit", {}, 204), "other path": ("POST", "/", {}, 404),
    "with a query": ("POST", "/churnkit?x=1", {}, 404), "get": ("GET", "/churnkit", {}, 405),
    "get elsewhere": ("GET", "/metrics", {}, 404), "put": ("PUT", "/churnkit", {}, 405),
    "unknown method": ("BREW", "/churnkit", {}, 501),
    "form": ("POST", "/churnkit", {"content-type": "application/x-www-form-urlencoded"}, 415),
    "json with a charset": ("POST", "/churnkit", {"content-type": "application/json; charset=utf-8"}, 204)}


@pytest.mark.parametrize("name", REQUESTS)
def test_one_path_one_method_one_type(receiver, inbox, name):
    """Only POST /churnkit of JSON is taken."""
    method, path, headers, status = REQUESTS[name]
    with listening(receiver) as port:
        assert post(port, said(), {**signed(SECRET, said()), **headers}, method, path)[0] == status
    assert len(taken(inbox)) == (status == 204)


def head(*lines):
    first = ("POST /churnkit HTTP/1.1", "Host: x", "Content-Type: application/json")
    return "\r\n".join([*first, *lines, "", ""]).encode()


HEADS = {
    "no length": (head(), 411), "chunks": (head("Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n", 411),
    "both": (head("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 411),
    "two lengths": (head("Content-Length: 5", "content-length: 6") + b"hello", 400),
    "negative": (head("Content-Length: -5"), 400), "with a sign": (head("Content-Length: +5") + b"hello", 400),
    "no number": (head("Content-Length: five"), 400), "too large": (head(f"Content-Length: {LIMIT + 1}"), 413),
    "endless": (head(f"Content-Length: {'9' * 5000}"), 413),
    "two ids": (head("webhook-id: a", "Webhook-Id: b", "Content-Length: 2") + b"{}", 400),
    "no HTTP": (b"hello\r\n\r\n", 400), "many headers": (head(*(f"X-{n}: 1" for n in range(200))), 431),
    "long line": (b"POST /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 414)}


@pytest.mark.parametrize("name", HEADS)
def test_a_bad_head_is_refused_before_the_body(receiver, name):
    """Without waiting for what was announced, and without repeating what came."""
    text, status = HEADS[name]
    with listening(receiver) as port:
        answer = raw(port, text)
    assert f" {status} " in answer.splitlines()[0] + " "
    assert "python" not in answer.lower()
    assert "xxxx" not in answer


def test_a_large_body_still_hears_why(receiver):
    """Who goes on sending after the refusal reads the 413 and no broken line."""
    with listening(receiver) as port, socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.sendall(head("Content-Length: 500000"))
        select.select([line], [], [], 10)
        for _ in range(50):
            line.sendall(b" " * 10_000)
        line.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: line.recv(4096), b"")).decode()
    assert answer.startswith("HTTP/1.1 413")
    assert "65536 bytes" in answer


def test_whoever_is_slow_is_cut_off(receiver, inbox):
    """A byte at a time does not hold a place for ever, and others are served meanwhile."""
    with listening(receiver, seconds=0.4) as port:
        lines = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(8)]
        for line in lines:
            line.sendall(b"POST /churnkit HTTP/1.1\r\nX-Slow: ")
        assert post(port, said(), signed(SECRET, said()))[0] == 204
        assert [line.recv(10) for line in lines] == [b""] * 8
        for line in lines:
            line.close()
    assert len(taken(inbox)) == 1


def test_curl_is_told_to_go_on(receiver, inbox):
    """A client that asks before it sends its body is asked for it when its head is good."""
    body = said()
    lines = [f"{name}: {value}" for name, value in signed(SECRET, body).items() if name != "content-type"]
    with listening(receiver) as port, socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        line.sendall(head(*lines, f"Content-Length: {len(body)}", "Expect: 100-continue"))
        assert line.recv(100).startswith(b"HTTP/1.1 100")
        line.sendall(body)
        assert b"".join(iter(lambda: line.recv(4096), b"")).startswith(b"HTTP/1.1 204")
    assert len(taken(inbox)) == 1


def test_many_at_once_into_one_store(tmp_path):
    """Two receivers on one store, each message sent to both at the same time: each is there once."""
    inboxes = [Inbox(tmp_path / "inbox.db") for _ in range(2)]
    receivers = [Receiver(Keys(Secret(SECRET)), inbox, lambda: AT) for inbox in inboxes]
    bodies = {f"msg_{n}": said(key=f"{n:02x}") for n in range(12)}
    statuses = []
    with listening(receivers[0]) as one, listening(receivers[1]) as two:
        sending = [threading.Thread(target=lambda port=port, name=name: statuses.append(
            post(port, bodies[name], signed(SECRET, bodies[name], name))[0])) for name in bodies for port in (one, two)]
        for thread in sending:
            thread.start()
        for thread in sending:
            thread.join()
    assert statuses == [204] * 24
    assert sorted(taken(inboxes[0])) == [(f"{n:02x}", "in_progress") for n in range(12)]


def test_serving_says_where_and_warns_of_the_world(receiver, monkeypatch):
    """Loopback by default; another address is possible, and TLS must end before it."""
    lines = []

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", stop)
    serve(receiver, port=0, say=lines.append)
    assert len(lines) == 1
    assert "http://127.0.0.1:" in lines[0]
    serve(receiver, "0.0.0.0", 0, lines.append)  # noqa: S104 - asked for, and warned of
    assert "WARNING: 0.0.0.0 can be reached" in lines[1]


def test_a_port_that_is_taken_is_named(receiver):
    """With the mend, and not as a traceback."""
    with listening(receiver) as port, pytest.raises(SettingsError, match="--port"):
        serve(receiver, port=port)


def test_without_a_key_nothing_is_received(tmp_path, monkeypatch):
    """It does not listen at all, and says which variable is missing."""
    (tmp_path / "churnkit.toml").write_text("schema_version = 1\ncrm = 'webhook'\n")
    monkeypatch.delenv("CHURNKIT_WEBHOOK_SECRET", raising=False)
    with pytest.raises(SettingsError, match="Set CHURNKIT_WEBHOOK_SECRET"):
        receive(tmp_path, port=0)


JOB = textwrap.dedent("""
    import os, signal, sys
    from pathlib import Path
    from churnkit.jobs.crm_receive import receive
    from churnkit.outreach.crm import inbox, receiver
    def kill(*_):
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[2] == "before the reply":
        receiver._Handler._say = kill
    elif sys.argv[2] == "before the commit":
        inbox._keep = kill
    receive(Path(sys.argv[1]), port=0)
""")


@contextlib.contextmanager
def receiving(folder, moment=""):
    """A receiver in a process of its own, and its port."""
    env = {**os.environ, "CHURNKIT_WEBHOOK_SECRET": SECRET}
    with subprocess.Popen([sys.executable, "-c", JOB, str(folder), moment], stderr=subprocess.PIPE, text=True,
                          env=env) as job:
        first = job.stderr.readline()
        try:
            yield int(first.split("/churnkit")[0].rsplit(":", 1)[1]), job
        finally:
            job.kill()


@pytest.mark.parametrize("moment", ["before the reply", "before the commit"])
def test_killed_between_message_and_reply(tmp_path, moment):
    """The sender tries again, and the message is there once, whether it was kept before the kill or not."""
    (tmp_path / "churnkit.toml").write_text("schema_version = 1\ncrm = 'webhook'\n")
    inbox, body = Inbox(tmp_path / "state" / "webhook_inbox.db"), said(at=AT)
    with receiving(tmp_path, moment) as (port, job):
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            post(port, body, signed(SECRET, body, "msg_1"))
        assert job.wait(10) == -signal.SIGKILL
    assert len(taken(inbox)) == (moment == "before the reply")
    with receiving(tmp_path) as (port, _):
        assert [post(port, body, signed(SECRET, body, "msg_1"))[0] for _ in range(2)] == [204, 204]
    assert taken(inbox) == [(KEY, "in_progress")]


def test_stopped_in_order_and_without_a_secret(tmp_path):
    """SIGTERM ends it with code 0, and neither its output nor its files hold the key."""
    (tmp_path / "churnkit.toml").write_text("schema_version = 1\ncrm = 'webhook'\n")
    with receiving(tmp_path) as (port, job):
        bad, good = said(status="done"), said(at=AT)
        assert post(port, bad, signed(SECRET, bad))[0] == 422
        assert post(port, good, signed(key_of("a stranger's"), good))[0] == 401
        job.send_signal(signal.SIGTERM)
        shown = job.communicate(timeout=10)[1]
        assert job.returncode == 0
    assert not any(canary in shown for canary in CANARIES)
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(canary.encode() in text for canary in CANARIES for text in files)
