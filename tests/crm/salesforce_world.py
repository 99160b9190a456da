"""What the conformance suite may do to the fake Salesforce."""

import contextlib
import copy
import datetime as dt
import os
import ssl
from collections import deque
from unittest import mock

import trustme
from fake_salesforce import FakeSalesforce
from salesforce_contract import endpoint_of

from churnkit.outreach.crm.base import Item, Remote, connect
from churnkit.testing.samples import ACCOUNTS, CANARY, OWNERS, sample
from churnkit.testing.server import FAULTS, Server

AUTHORITY = trustme.CA()
_LEAF = AUTHORITY.issue_cert("127.0.0.1")
_STATUS = {"open": "Not Started", "in_progress": "In Progress", "snoozed": "Deferred", "completed": "Completed",
           "dismissed": "Completed"}
VARIABLES = ("CHURNKIT_SALESFORCE_TOKEN", "CHURNKIT_SALESFORCE_TOKEN_FILE", "CHURNKIT_SALESFORCE_CLIENT_ID",
             "CHURNKIT_SALESFORCE_CLIENT_SECRET", "CHURNKIT_SALESFORCE_CLIENT_SECRET_FILE")


def certificate(leaf=_LEAF):
    """A server's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    return context


def new(*tasks):
    """What the engine says of new tasks."""
    return [Item(task, task.content_hash()) for task in tasks]


def known(result, task=None, closing=""):
    """What it says of one that was written."""
    task = task or sample()
    return Item(task, task.content_hash(), result.remote.remote_id, closing)


def only(results):
    """The one result."""
    [result] = results
    return result


class SalesforceWorld:
    """One org behind TLS on this host; a context manager.

    Args:
        folder: For the authority's certificate and the workspace's files.
        unique: Whether the key is a unique external id.
        app: Sign in by client credentials, so that an expired token is renewed, instead of by a token.
    """

    name = "salesforce"
    faults = (*FAULTS, "quota", "half", "rows", "poison", "expired", "refused")

    def __init__(self, folder, *, unique=True, app=False):
        self.folder, self.fake = folder, FakeSalesforce((CANARY,))
        AUTHORITY.cert_pem.write_to_path(str(folder / "ca.pem"))
        self.fake.fields["Churnkit_Key__c"].update(unique=unique, externalId=unique)
        for number, email in enumerate(OWNERS, start=100):
            self.fake.user(f"005{number:012d}AAA", email, active=email != OWNERS[-1])
        for account in ACCOUNTS:
            self.fake.account(account)
        self.env = {"CHURNKIT_SALESFORCE_TOKEN": CANARY}
        if app:
            self.fake.tokens, self.fake.apps["the-app"] = set(), CANARY
            self.faults = tuple(fault for fault in self.faults if fault != "expired")  # it is renewed
            self.env = {"CHURNKIT_SALESFORCE_CLIENT_ID": "the-app", "CHURNKIT_SALESFORCE_CLIENT_SECRET": CANARY}
        self._plan, self._made, self._down = deque(), [], contextlib.ExitStack()
        self.server = Server(self.fake, writes=self._writes, tls=certificate())
        self.host = self.fake.host = self.server.url.removeprefix("https://")
        self.options = {"instance": self.host, "ca": str(folder / "ca.pem"), "timeout": "1", "requests": "100000"}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.heal()
        for crm in self._made:
            crm.close()
        self.server.__exit__()

    def connect(self, clock=None, **options):
        """A new connector, which waits at most a second."""
        if clock is not None:
            self.fake.now = clock.now
        kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        with mock.patch.dict(os.environ, {**kept, **self.env}, clear=True):
            crm = connect(self.name, {**self.options, **options}, self.folder)
        self._made.append(crm)
        return crm

    def tasks(self):
        """Every task that is there."""
        return [self._remote(task) for task in self.fake.tasks.values() if not task["IsDeleted"]]

    def texts(self, key):
        """Title and body."""
        [task] = self.fake.of_key(key)
        return task["Subject"], task["Description"]

    def person(self, key, at, **changes):
        """A person changes a task by hand."""
        [task] = self.fake.of_key(key)
        values, status = {}, changes.get("status")
        if status is not None:
            values |= {"Status": _STATUS[status], "Churnkit_Status__c": status}
        for name, field in (("disposition", "Churnkit_Disposition__c"), ("note", "Churnkit_Note__c")):
            if name in changes:
                values[field] = changes[name]
        if changes.get("owner"):
            values["OwnerId"] = self.user_of(changes["owner"])
        if changes.get("due"):
            values["ActivityDate"] = changes["due"].isoformat()
        self.fake.touch(task, at, by=self.user_of(OWNERS[0]), **values)

    def delete(self, key):
        """A person deletes a task."""
        [task] = self.fake.of_key(key)
        self.fake.touch(task, by=self.user_of(OWNERS[0]), IsDeleted=True)

    def fail(self, fault, times=1):
        """The next writing calls suffer; quota lasts from there on, refused and expired from now on, until `heal`."""
        if fault == "rows":
            self.fake.row_fault = "A03"
        elif fault == "poison":
            self.fake.poison = "A03"
        elif fault == "expired":
            self.fake.expired = True
        elif fault == "refused":
            self._down.enter_context(self.server.refuse())
        else:
            ours = fault in {"half", "quota"}
            line = "dropped_after" if fault == "half" else "" if ours else fault
            for _ in range(times):
                self.server.faults.append(line)
                self._plan.append(fault if ours else "")

    def heal(self):
        """All is well again."""
        self._down.close()
        self.server.faults.clear()
        self._plan.clear()
        self.fake.row_fault = self.fake.poison = None
        self.fake.expired = self.fake.spent = False

    @contextlib.contextmanager
    def back_up(self):
        """At the end everything is as it was at the beginning."""
        kept = copy.deepcopy(self.fake.tasks)
        yield
        self.fake.tasks = kept

    def writes(self):
        """How many rows were written."""
        return self.fake.rows_written

    def user_of(self, email):
        """The id of the user with that address."""
        return next(user["Id"] for user in self.fake.users.values() if user["Email"] == email)

    def _writes(self, request):
        """Whether faults befall this request: asked once for each, while faults are left."""
        if endpoint_of(request) not in {"create", "update"}:
            return False
        self.fake.due = self._plan.popleft() if self._plan else ""
        return True

    def _remote(self, task):
        shut, word = task["Status"] == "Completed", task["Churnkit_Status__c"]
        status = next(ours for ours, theirs in _STATUS.items() if theirs == task["Status"])
        due = task["ActivityDate"]
        return Remote(
            task["Churnkit_Key__c"], task["Id"], str(task["SystemModstamp"]), task["Churnkit_Hash__c"],
            status="dismissed" if shut and word == "dismissed" else status,
            disposition=task["Churnkit_Disposition__c"], note=task["Churnkit_Note__c"],
            owner=self.fake.users[task["OwnerId"]]["Email"], due=dt.date.fromisoformat(due) if due else None,
            modified_at=task["LastModifiedDate"], by=self.fake.users[task["LastModifiedById"]]["Email"])
