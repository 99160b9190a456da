"""HubSpot as a world for the conformance suite: the fake behind a server, and people who use it."""

import contextlib
import datetime as dt
import html
import sys
from pathlib import Path
from types import MappingProxyType
from zoneinfo import ZoneInfo

from churnkit.outreach.crm.base import Remote, connect
from churnkit.testing.server import FAULTS, Server
from churnkit.testing.world import ACCOUNTS, CANARY, OWNERS

sys.path.insert(0, str(Path(__file__).parent))

from fake_hubspot import FakeHubSpot, error, furnish
from fake_hubspot_store import iso, millis

BAD = ACCOUNTS[3]
"""Whose task is poison."""
_THEIRS = {"open": "NOT_STARTED", "in_progress": "IN_PROGRESS", "snoozed": "WAITING", "completed": "COMPLETED",
           "dismissed": "COMPLETED"}
_OURS = {"NOT_STARTED": "open", "IN_PROGRESS": "in_progress", "WAITING": "snoozed", "DEFERRED": "snoozed",
         "COMPLETED": "completed"}
_WRITES = ("/batch/create", "/batch/update")


class HubSpotWorld:
    """A portal of a test's own; a context manager.

    Args:
        folder: The workspace, where crm_map.csv may lie.
        setenv: Sets an environment variable, such as monkeypatch.setenv.
        ready: Have the properties made already, as `churnkit crm setup hubspot` does.
        unique_companies: Whether the companies' account id is a unique property.
        fake: What FakeHubSpot is made with.
    """

    name = "hubspot"
    env = MappingProxyType({"CHURNKIT_HUBSPOT_TOKEN": CANARY})
    faults = (*FAULTS, "quota", "half", "rows", "poison", "expired", "refused")

    def __init__(self, folder, setenv, *, ready=True, unique_companies=True, **fake):
        self.folder, self._setenv, self._ready = Path(folder), setenv, ready
        self.fake = FakeHubSpot(CANARY, **fake)
        furnish(self.fake, OWNERS[:-1], ACCOUNTS, unique=unique_companies)
        self.fake.store.owner(OWNERS[-1], archived=True)
        self.server = Server(self.fake, writes=_writes)
        self._refusing = contextlib.ExitStack()

    def __enter__(self):
        """Listens, and makes the properties."""
        self.server.__enter__()
        self._setenv("CHURNKIT_HUBSPOT_TOKEN", CANARY)
        if self._ready:
            crm = self.connect()
            assert crm.check(mend=True).todo == ()
            crm.close()
            self.fake.store.newest = 0  # the clock that a test brings may be an earlier one
        return self

    def __exit__(self, *_):
        """Closes the port."""
        self._refusing.close()
        self.server.__exit__()

    @property
    def options(self):
        """What another process connects with."""
        return {"host": self.server.url, "timeout": "1", "requests": "10000", "seconds": "1"}

    def connect(self, clock=None, **options):
        """A new connector; it waits at most a second for a reply."""
        if clock not in (None, self.fake.clock):
            self.fake.turn(clock)
        return connect("hubspot", {"host": self.server.url, "timeout": "1", **options}, self.folder)

    def tasks(self):
        """Every task that is not in the recycling bin."""
        return [self._remote(one) for one in self.fake.store.live("tasks")]

    def texts(self, key):
        """Title and body as a person reads them."""
        [one] = self._of(key)
        body = one.properties.get("hs_task_body", "").replace("<br>", "\n")
        return one.properties.get("hs_task_subject", ""), html.unescape(body)

    def person(self, key, at, **changes):
        """A person changes a task in HubSpot."""
        owner = {one["email"]: one["id"] for one in self.fake.store.owners}
        made = {}
        for name, value in changes.items():
            if name == "status":
                made |= {"hs_task_status": _THEIRS[value],
                         "churnkit_status": "dismissed" if value == "dismissed" else ""}
            elif name == "owner":
                made["hubspot_owner_id"] = owner[value]
            elif name == "due":
                noon = dt.datetime.combine(value, dt.time(12), ZoneInfo(self.fake.portal["timeZone"]))
                made["hs_timestamp"] = str(round(noon.timestamp() * 1000))
            else:
                made[{"disposition": "churnkit_disposition", "note": "churnkit_note"}[name]] = value or ""
        for one in self._of(key):
            self.fake.store.update_task(one.id, made, self.fake.store.tick(at), user=901)

    def delete(self, key):
        """A person deletes a task."""
        for one in self._of(key):
            self.fake.store.archive(one.id, self.fake.now())

    def fail(self, fault, times=1):
        """The next calls that write suffer from this."""
        if fault in {"quota", "expired"}:
            self.fake.on_write = fault
        elif fault == "half":
            self.fake.halves = times
            self.server.faults.extend(["dropped_after"] * times)
        elif fault in {"rows", "poison"}:
            getattr(self.fake, fault).add(BAD)
        elif fault == "refused":
            self._refusing.enter_context(self.server.refuse())
        else:
            limited = error(429, "RATE_LIMITS", "You have reached your ten_secondly_rolling limit.",
                            policyName="TEN_SECONDLY_ROLLING")
            self.server.too_many = limited
            self.server.faults.extend([fault] * times)

    def heal(self):
        """No fault any more."""
        self.fake.on_write, self.fake.daily, self.fake.expired, self.fake.halves = "", 250_000, False, 0
        self.fake.rows.clear()
        self.fake.poison.clear()
        self.server.faults.clear()
        self._refusing.close()

    @contextlib.contextmanager
    def back_up(self):
        """At the end everything is as it was at the beginning."""
        kept = self.fake.store.copy()
        yield
        self.fake.store.restore(kept)

    def writes(self):
        """How many rows connectors wrote."""
        return self.fake.written

    def _of(self, key):
        return [one for one in self.fake.store.live("tasks") if one.properties.get("churnkit_key") == key]

    def _remote(self, one):
        said, zone = one.properties, ZoneInfo(self.fake.portal["timeZone"])
        status = said.get("churnkit_status") if said.get("churnkit_status") == "dismissed" else \
            _OURS[said["hs_task_status"]]
        emails = {owner["id"]: owner["email"] for owner in self.fake.store.owners}
        due = dt.datetime.fromtimestamp(millis(said["hs_timestamp"]) / 1000, zone).date()
        return Remote(said.get("churnkit_key", ""), one.id, iso(one.modified), said.get("churnkit_hash"), status,
                      said.get("churnkit_disposition"), said.get("churnkit_note"),
                      emails.get(said.get("hubspot_owner_id")), due)


def _writes(request):
    """Whether it writes tasks, and is no mere question whether it might."""
    return request.path.endswith(_WRITES) and b'"inputs": []' not in request.body
