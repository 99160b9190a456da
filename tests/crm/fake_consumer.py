"""A consumer of the webhook as docs/webhook.md asks for one; it notes whatever churnkit does against that contract."""

import copy
import datetime as dt
import hashlib
import json
import uuid

from standardwebhooks import Webhook

from churnkit.testing.samples import ACCOUNTS, OWNERS
from churnkit.testing.server import Reply

EVENTS = {"task.created", "task.updated", "task.closed", "task.removed", "ping"}
OURS = {
    "key", "target", "play", "episode", "opened_by", "account_id", "asset_ids", "contact_id", "type", "title", "body",
    "priority", "score", "band", "reason_codes", "model_version", "scored_at", "value", "currency", "expires_at",
    "content_hash", "remote_id", "crm_ids"}
FIRST = {"owner", "due", "status"}
MAY_SAY = {"task.created": OURS | FIRST | {"cut"}, "task.updated": OURS | {"cut"},
           "task.closed": OURS | {"note", "cut"}, "task.removed": {"remote_id"}, "ping": set()}
PEOPLE = ("status", "disposition", "note", "owner", "due")


class Consumer:
    """Tasks by key. `left` are the requests that it takes before it says 429, `disabled` makes it say 410.

    `deliver` brings a signed message (headers, body) to the receiver and returns the reply's status.
    """

    def __init__(self, secrets, deliver=None):
        self.secrets, self.deliver = list(secrets), deliver
        self.tasks, self.deleted, self.ids = {}, set(), {}
        self.poison, self.disabled, self.left, self.gives_ids = set(), False, None, False
        self.writes, self.pings, self.seen, self.violations = 0, 0, [], []

    def app(self, request):
        """Answers one request."""
        if request.path != "/hooks/churnkit":
            return Reply(404, {"error": "no such path"})
        if request.method != "POST":
            return Reply(405, {"error": "POST only"})
        if self.disabled:
            return Reply(410)
        if not self._signed(request):
            return Reply(401, {"error": "no signature fits"})
        if self.left is not None:
            if self.left == 0:
                return Reply(429, {"error": "slower"}, {"Retry-After": "7"})
            self.left -= 1
        return self._take(request.headers["webhook-id"], request)

    def answer(self, key, at, message_id=None, **changes):
        """A person answers, and the consumer tells the receiver; returns the reply's status."""
        held = self.tasks[key]
        held |= {name: value.isoformat() if isinstance(value, dt.date) else value for name, value in changes.items()}
        return self.tell({"key": key, **{name: held.get(name) for name in PEOPLE}, "by": "ann@us.example",
                          "modified_at": at.isoformat()}, message_id)

    def delete(self, key, at):
        """A person deletes a task, and the consumer tells the receiver."""
        held = self.tasks.pop(key)
        self.deleted.add(key)
        return self.tell({"key": key, "status": held["status"], "by": "ann@us.example", "modified_at": at.isoformat(),
                          "deleted": True})

    def tell(self, data, message_id=None):
        """Sends an answer as it is."""
        body = json.dumps({"type": "task.answered", "timestamp": data.get("modified_at"), "data": data}).encode()
        return self.deliver(signed(self.secrets[0], body, message_id), body)

    def copy(self):
        """What it holds, to put back."""
        return copy.deepcopy((self.tasks, self.deleted, self.ids))

    def put_back(self, kept):
        """Yesterday's backup."""
        self.tasks, self.deleted, self.ids = copy.deepcopy(kept)

    def _signed(self, request):
        for one in self.secrets:
            try:
                Webhook(one).verify(request.body, request.headers)
            except Exception:  # noqa: BLE001, S112 - any failure of one key is a reason to try the next
                continue
            return True
        return False

    def _take(self, message_id, request):
        digest, message = hashlib.sha256(request.body).hexdigest(), request.json()
        kind, data = message["type"], message["data"]
        self._judge(message_id, request, digest, message)
        self.seen.append((kind, message_id, data))
        if kind == "ping":
            self.pings += 1
            return Reply(204)
        self.writes += 1
        if why := self._refused(data):
            self.writes -= 1
            return Reply(422, {"error": why})
        if kind == "task.removed":
            self.tasks = {key: held for key, held in self.tasks.items()
                          if data["remote_id"] not in {key, held["id"]}}
            return Reply(204)
        if data["key"] in self.deleted:
            return Reply(200, {"state": "gone"})
        if message_id not in self.ids:
            self.ids[message_id] = digest
            self._apply(kind, message["timestamp"], data)
        return Reply(200, {"remote_id": self.tasks[data["key"]]["id"]} if self.gives_ids else {"state": "written"})

    def _refused(self, data):
        """Why it will never take this: it knows its accounts and its people."""
        account, owner = data.get("account_id", ACCOUNTS[0]), data.get("owner", OWNERS[0])
        if account in self.poison or account not in ACCOUNTS:
            return f"the account '{account}' is not known here"
        return "" if owner in OWNERS[:-1] else f"'{owner}' is no active user here"

    def _apply(self, kind, at, data):
        """People's part comes with the first message of a task, and is left alone by all later ones."""
        held = self.tasks.get(data["key"])
        if held is None:
            held = {"id": f"t-{uuid.uuid4().hex[:8]}", "status": "open", "at": at, "owner": None, "due": None}
            held |= {name: data[name] for name in FIRST & set(data)}
            self.tasks[data["key"]] = held
        if at < held["at"]:
            return
        held |= {name: value for name, value in data.items() if name in OURS} | {"at": at}
        if kind == "task.closed" and held["status"] == "open":
            held |= {"status": "dismissed", "note": data["note"]}

    def _judge(self, message_id, request, digest, message):
        kind, data = message["type"], message["data"]
        wrong = {
            "content type": request.headers.get("content-type") != "application/json",
            "size": len(request.body) > 20_000,
            "type": kind not in EVENTS,
            "another body under one id": self.ids.get(message_id, digest) != digest,
            "fields": bool(set(data) - MAY_SAY.get(kind, set())),
            "form": set(message) != {"type", "timestamp", "data"},
            "time": message["timestamp"] < self.tasks.get(data.get("key"), {"at": ""})["at"]}
        self.violations += [f"{name}: {kind} {sorted(data)}" for name, is_so in wrong.items() if is_so]


def signed(secret, body, message_id=None, at=None):
    """The headers of a message that is sent now, or at another time."""
    message_id, at = message_id or f"msg_{uuid.uuid4().hex}", at or dt.datetime.now(dt.UTC)
    return {"content-type": "application/json", "webhook-id": message_id, "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Webhook(secret).sign(message_id, at, body.decode())}
