"""The webhook's world: a consumer behind a real port, whose answers pass the receiver's checks into the inbox."""

import base64
import contextlib
import datetime as dt
import os
from unittest import mock

from fake_consumer import Consumer

from churnkit.outreach.crm.base import Remote, connect
from churnkit.outreach.crm.inbox import Inbox
from churnkit.outreach.crm.receiver import Receiver
from churnkit.outreach.crm.secret import Secret
from churnkit.outreach.crm.signed import Keys
from churnkit.testing.samples import CANARY
from churnkit.testing.server import FAULTS, Server


def key_of(words):
    """A signing key whose bytes are these words."""
    return "whsec_" + base64.b64encode(words.encode().ljust(32, b".")).decode()


SECRET = key_of(CANARY)
CANARIES = (CANARY, SECRET, SECRET.removeprefix("whsec_"))
"""The forms in which the signing key could be shown: its bytes, and as it stands in the environment."""


class WebhookWorld:
    """A consumer, and a workspace's folder with the inbox."""

    name = "webhook"
    faults = (*FAULTS, "half", "rows", "poison", "expired", "refused")

    def __init__(self, folder, timeout=0.5):
        self.folder, self.inbox = folder, Inbox(folder / "state" / "webhook_inbox.db")
        self.env = {"CHURNKIT_WEBHOOK_SECRET": SECRET}
        self.consumer = Consumer([SECRET], self._deliver)
        self.server = Server(self.consumer.app, late=1.5 * timeout)
        self.options = {"url": f"{self.server.url}/hooks/churnkit", "timeout": str(timeout), "requests": "1000"}
        self._at, self._refused = dt.datetime.now(dt.UTC), contextlib.ExitStack()

    def __enter__(self):
        self.server.__enter__()
        return self

    def __exit__(self, *error):
        self.heal()
        self.server.__exit__(*error)

    def connect(self, clock=None):
        """A new connector; without a clock that could pass, it leaves no endpoint alone."""
        with mock.patch.dict(os.environ, self.env):
            crm = connect(self.name, self.options, self.folder)
        if clock is None:
            crm.schedule = ()
        else:
            crm.now = clock.now
        return crm

    def tasks(self):
        """Every task of the consumer."""
        return [Remote(key, held["id"], held["at"], held["content_hash"], status=held["status"],
                       disposition=held.get("disposition"), note=held.get("note"), owner=held["owner"],
                       due=dt.date.fromisoformat(held["due"]) if held["due"] else None)
                for key, held in self.consumer.tasks.items()]

    def texts(self, key):
        """Title and body."""
        return self.consumer.tasks[key]["title"], self.consumer.tasks[key]["body"]

    def person(self, key, at, **changes):
        """A person answers, and the consumer tells the receiver."""
        self._at = at
        assert self.consumer.answer(key, at, **changes) == 204

    def delete(self, key):
        """A person deletes a task."""
        assert self.consumer.delete(key, self._at + dt.timedelta(seconds=1)) == 204

    def fail(self, fault, times=1):
        """The next messages suffer from this."""
        if fault == "refused":
            self._refused.enter_context(self.server.refuse())
        elif fault == "expired":
            self.consumer.secrets = [key_of("another key")]
        elif fault in {"rows", "poison"}:
            self.consumer.poison = {"A03"}
        elif fault == "half":
            self.server.faults.extend(["", "dropped_after"] * times)
        else:
            self.server.faults.extend([fault] * times)

    def heal(self):
        """No fault any more."""
        self._refused.close()
        self.server.faults.clear()
        self.consumer.secrets, self.consumer.poison, self.consumer.left = [SECRET], set(), None

    @contextlib.contextmanager
    def back_up(self):
        """Keeps what the consumer holds, and puts it back at the end."""
        kept = self.consumer.copy()
        yield
        self.consumer.put_back(kept)

    def writes(self):
        """Messages about tasks that the consumer took, repeated ones too."""
        return self.consumer.writes

    def _deliver(self, headers, body):
        receiver = Receiver(Keys(Secret(SECRET)), self.inbox, lambda: self._at)
        return receiver.take(headers, body)[0]
