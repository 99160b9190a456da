"""A HubSpot of our own: keeps state, checks tokens, scopes, limits and contract. Also a program for benchmarks."""

import argparse
import datetime as dt
import json
import re
import sys
import threading
import time
import uuid
from collections import deque
from pathlib import Path

from churnkit.testing.server import Reply, Server

sys.path.insert(0, str(Path(__file__).parent))

from fake_hubspot_store import RowError, Store, iso
from hubspot_contract import RECORDED, Contract, endpoint

READ, WRITE = "crm.objects.contacts.read", "crm.objects.contacts.write"
SCOPES = frozenset({READ, WRITE, "crm.objects.companies.read", "crm.objects.owners.read", "crm.schemas.contacts.read",
                    "crm.schemas.contacts.write", "crm.schemas.companies.read", "crm.schemas.companies.write"})
BATCH, REQUESTS, SECONDS, SEARCHES = 100, 100, 10.0, 5
_STATUS = {"CONFLICT": 409, "OBJECT_NOT_FOUND": 404}


class SystemClock:
    """The real one."""

    def now(self):
        """The moment."""
        return dt.datetime.now(dt.UTC)

    def monotonic(self):
        """Seconds that only go on."""
        return time.monotonic()


class RefusedError(Exception):
    """A whole request is refused with this reply."""

    def __init__(self, status, category, message, **more):
        super().__init__(message)
        self.reply = error(status, category, message, **more)


class FakeHubSpot:
    """The app behind the server.

    Args:
        token: The private app's; `expired` makes it worth nothing, `on_write` waits for the next write with that
            ("expired"), or with the day's quota being spent ("quota").
        scopes: What it may do.
        contract: Hold every request and reply against the contract: what is wrong stands in `violations`.
        limit: Enforce the limits of requests.
        unique_tasks: Whether the portal allows unique properties on tasks.
        clock: For times and limits.
    """

    def __init__(self, token, *, scopes=SCOPES, contract=True, limit=False, unique_tasks=True, clock=None):
        self.token, self.scopes, self.limit, self.clock = token, set(scopes), limit, clock or SystemClock()
        self.store = Store(unique_tasks=unique_tasks)
        self.portal = {"portalId": 4242, "accountType": "SANDBOX", "timeZone": "US/Eastern", "utcOffset": "-05:00",
                       "companyCurrency": "USD", "additionalCurrencies": [], "utcOffsetMilliseconds": -18000000,
                       "uiDomain": "app.hubspot.com", "dataHostingLocation": "na1"}
        self.expired, self.on_write, self.index_lag, self.daily, self.multi_status = False, "", 0.0, 250_000, True
        self.poison, self.rows, self.halves, self.written, self.refused = set(), set(), 0, 0, 0
        self.violations, self._contract = [], Contract() if contract else None
        self._times, self._searches, self._asked, self.peak = deque(), deque(), deque(), 0
        self.asked = 0
        self._day, self._spent = None, 0
        self._routes = [
            ("GET", r"/account-info/v3/details", None, lambda _: Reply(200, self.portal)),
            ("POST", r"/crm/v3/objects/tasks/batch/create", WRITE, self._create),
            ("POST", r"/crm/v3/objects/tasks/batch/update", WRITE, self._update),
            ("POST", r"/crm/v3/objects/tasks/batch/archive", WRITE, self._archive),
            ("POST", r"/crm/v3/objects/(?P<kind>tasks|companies)/batch/read", "read", self._read),
            ("POST", r"/crm/v3/objects/(?P<kind>tasks|companies)/search", "read", self._search),
            ("GET", r"/crm/v3/objects/(?P<kind>tasks|companies)", "read", self._page),
            ("GET", r"/crm/v3/owners", "crm.objects.owners.read", self._owners),
            ("GET", r"/crm/v3/properties/(?P<kind>tasks|companies)", "schemas.read", self._definitions),
            ("POST", r"/crm/v3/properties/(?P<kind>tasks|companies)", "schemas.write", self._define),
            ("POST", r"/crm/v3/properties/(?P<kind>tasks|companies)/groups", "schemas.write", self._group),
            ("GET", r"/crm/v3/properties/(?P<kind>tasks|companies)/(?P<name>\w+)", "schemas.read", self._definition),
            ("PATCH", r"/crm/v3/properties/(?P<kind>tasks|companies)/(?P<name>\w+)", "schemas.write", self._redefine),
        ]

    def __call__(self, request):
        """Answers one request, and notes what was wrong with it or with the answer."""
        if request.path == "/fake/state":
            return Reply(200, self.state())
        self.asked += 1
        try:
            reply = self._answer(request)
        except RefusedError as refused:
            reply = refused.reply
        if self._contract is not None:
            self.violations += self._contract.wrong(request, reply)
        return reply

    def turn(self, clock):
        """Goes by another clock from now on, and counts requests anew."""
        self.clock, self.peak, self._day = clock, 0, None
        for times in (self._times, self._searches, self._asked):
            times.clear()

    def state(self):
        """Counts, for whoever runs this as a program: `peak` is the most requests that any ten seconds saw."""
        keys = [one.properties.get("churnkit_key") for one in self.store.live("tasks")]
        return {"tasks": len(keys), "keys": len(set(keys)), "written": self.written, "peak": self.peak,
                "asked": self.asked, "refused": self.refused, "violations": self.violations}

    def now(self):
        """The CRM's own time, in milliseconds."""
        return self.store.tick(self.clock.now())

    def _answer(self, request):
        path = request.path.rstrip("/")
        if request.headers.get("authorization") != f"Bearer {self.token}":
            raise RefusedError(401, "INVALID_AUTHENTICATION", "Authentication credentials not found.")
        if self.on_write and path.endswith(("/batch/create", "/batch/update")) and b'"inputs": []' not in request.body:
            self.expired, self.daily = self.on_write == "expired", 0 if self.on_write == "quota" else self.daily
        if self.expired:
            raise RefusedError(401, "EXPIRED_AUTHENTICATION", "The access token expired.")
        self._count(path)
        for method, pattern, scope, answer in self._routes:
            found = re.fullmatch(pattern, path)
            if found and method == request.method:
                self._may(scope, found.groupdict().get("kind", "tasks"))
                return self._try(lambda: answer(_Call(found.groupdict(), request.query, *_body(request))))  # noqa: B023
        raise RefusedError(404, "OBJECT_NOT_FOUND", "resource not found")

    def _try(self, answer):
        try:
            return answer()
        except RowError as wrong:
            raise RefusedError(_STATUS.get(wrong.category, 400), wrong.category, wrong.message) from None
        except (KeyError, TypeError, AttributeError, ValueError):
            raise RefusedError(400, "VALIDATION_ERROR", "Invalid input JSON: something is not of its kind.") from None

    def _may(self, scope, kind):
        part = "contacts" if kind == "tasks" else kind
        needed = {"read": f"crm.objects.{part}.read", "schemas.read": f"crm.schemas.{part}.read",
                  "schemas.write": f"crm.schemas.{part}.write"}.get(scope, scope)
        if needed is not None and needed not in self.scopes:
            raise RefusedError(403, "MISSING_SCOPES", "This app hasn't been granted all required scopes.", errors=[
                {"message": "One or more of the following scopes are required.",
                 "context": {"requiredGranularScopes": [needed]}}])

    def _count(self, path):
        """The vendor's limits: in any ten seconds, in a day, and five searches a second, which count for no other."""
        now, today = self.clock.monotonic(), self.clock.now().date()
        if self._day is None or today > self._day:
            self._day, self._spent = today, 0
        if self._spent >= self.daily:
            raise RefusedError(429, "RATE_LIMITS", "You have reached your daily limit.", policyName="DAILY",
                               errorType="RATE_LIMIT")
        self._spent += 1
        search = path.endswith("/search")
        if not search:
            self.peak = max(self.peak, _within(self._asked, now, SECONDS) + 1)
            self._asked.append(now)
        if not self.limit:
            return
        times, most, span, policy = (self._searches, SEARCHES, 1.0, "SECONDLY") if search else \
            (self._times, REQUESTS, SECONDS, "TEN_SECONDLY_ROLLING")
        if _within(times, now, span) >= most:
            self.refused += 1
            raise RefusedError(429, "RATE_LIMITS", f"You have reached your {policy.lower()} limit.", policyName=policy,
                               errorType="RATE_LIMIT")
        times.append(now)

    def _create(self, call):
        inputs = self._inputs(call)
        traces = [row.get("objectWriteTraceId") for row in inputs]
        self._poisoned(inputs)
        return self._each(inputs, 201, self.store.create_task, traces)

    def _update(self, call):
        inputs = self._inputs(call)
        _no_twice([row["id"] for row in inputs])
        if any("idProperty" in row for row in inputs):
            raise RefusedError(400, "VALIDATION_ERROR", "This fake updates by id alone.")
        self._poisoned(inputs)
        return self._each(inputs, 200, lambda row, now: self.store.update_task(
            row["id"], row["properties"], now), [row.get("objectWriteTraceId") for row in inputs])

    def _each(self, inputs, status, write, traces):
        """Row by row: with trace ids bad rows are told one by one, else the first ends the request amid its work."""
        began, now, rows, errors = iso(self.now()), self.now(), [], []
        half = len(inputs) // 2 if self.halves > 0 else None
        self.halves = max(0, self.halves - 1)
        for row, trace in list(zip(inputs, traces, strict=True))[:half]:
            try:
                self._bad(row)
                one = write(row, now)
            except RowError as wrong:
                if trace is None or not self.multi_status or "PROPERTY_DOESNT_EXIST" in wrong.message:
                    raise RowError("CONFLICT" if "CONFLICTING" in wrong.message else wrong.category,
                                   wrong.message) from None
                ids = {"ids": [row["id"]]} if "id" in row else {}
                errors.append(_row_error(wrong.category, wrong.message, {"objectWriteTraceId": [trace], **ids}))
            else:
                self.written += 1
                rows.append(_told(one, list(row["properties"])))
        return _batch(status, rows, errors, began)

    def _poisoned(self, inputs):
        if any(self._account(row) in self.poison for row in inputs):
            raise RefusedError(400, "VALIDATION_ERROR", "Property values were not valid: a row is poison.")

    def _bad(self, row):
        if self._account(row) in self.rows:
            raise RowError("VALIDATION_ERROR", "Property values were not valid: this row is bad.")

    def _account(self, row):
        """Whose task a row is about: as it says itself, or as the task does that is there."""
        there = self.store.objects["tasks"].get(row.get("id"))
        return row["properties"].get("churnkit_account") or (there and there.properties.get("churnkit_account"))

    def _archive(self, call):
        for row in self._inputs(call):
            self.store.archive(row["id"], self.now())
        return Reply(204)

    def _read(self, call):
        ids = [row["id"] for row in self._inputs(call)]
        _no_twice(ids)
        kind, began = call.path["kind"], iso(self.now())
        found = {each: self.store.by(kind, each, call.body.get("idProperty")) for each in ids}
        missing = [each for each, one in found.items() if one is None]
        errors = [_row_error("OBJECT_NOT_FOUND", f"Could not get some {kind}, they may be deleted or not exist.",
                             {"ids": missing})] if missing else []
        return _batch(200, [_told(one, call.body["properties"]) for one in found.values() if one], errors, began)

    def _search(self, call):
        before = self.now() - round(self.index_lag * 1000) if self.index_lag else None
        total, rows, after = self.store.search(call.path["kind"], call.body, before)
        paging = {"paging": {"next": {"after": str(after)}}} if after is not None else {}
        wanted = call.body.get("properties") or []
        return Reply(200, {"total": total, "results": [_told(one, wanted) for one in rows], **paging})

    def _page(self, call):
        limit, after = _whole(call.query, "limit", 10), _whole(call.query, "after", 0)
        if not 1 <= limit <= 100:
            raise RefusedError(400, "VALIDATION_ERROR", "limit must be from 1 to 100")
        rows = [one for one in self.store.live(call.path["kind"]) if int(one.id) > after]
        more = {"paging": {"next": {"after": rows[limit - 1].id}}} if len(rows) > limit else {}
        return Reply(200, {"results": [_told(one, []) for one in rows[:limit]], **more})

    def _owners(self, call):
        limit, after = _whole(call.query, "limit", 100), _whole(call.query, "after", 0)
        if not 1 <= limit <= 500:
            raise RefusedError(400, "VALIDATION_ERROR", "limit must be from 1 to 500")
        archived, email = call.query.get("archived", ["false"])[0] == "true", call.query.get("email", [None])[0]
        found = [one for one in self.store.owners if one["archived"] == archived and email in (None, one["email"])]
        more = {"paging": {"next": {"after": str(after + limit)}}} if after + limit < len(found) else {}
        return Reply(200, {"results": found[after:after + limit], **more})

    def _definitions(self, call):
        return Reply(200, {"results": list(self.store.properties[call.path["kind"]].values())})

    def _definition(self, call):
        found = self.store.properties[call.path["kind"]].get(call.path["name"])
        if found is None:
            raise RowError("OBJECT_NOT_FOUND", f"Property {call.path['name']} does not exist")
        return Reply(200, found)

    def _define(self, call):
        return Reply(201, self.store.define(call.path["kind"], call.body))

    def _redefine(self, call):
        self._definition(call)
        self.store.properties[call.path["kind"]][call.path["name"]].update(call.body)
        return self._definition(call)

    def _group(self, call):
        groups, name = self.store.groups[call.path["kind"]], call.body["name"]
        if name in groups:
            raise RowError("CONFLICT", f"A property group named '{name}' already exists.")
        groups.add(name)
        return Reply(201, {"name": name, "label": call.body["label"], "displayOrder": -1, "archived": False})

    def _inputs(self, call):
        inputs = call.body["inputs"]
        if len(inputs) > BATCH:
            raise RefusedError(400, "VALIDATION_ERROR", f"At most {BATCH} inputs, not {len(inputs)}.")
        return inputs


class _Call:
    """What an endpoint is called with."""

    def __init__(self, path, query, body):
        self.path, self.query, self.body = path, query, body


def error(status, category, message, **more):
    """One of HubSpot's error replies."""
    return Reply(status, {"status": "error", "category": category, "message": message,
                          "correlationId": str(uuid.uuid4()), **more})


def _body(request):
    """The body as an object with the right keys of the right kinds; GET has none."""
    recorded = RECORDED.get(endpoint(request.method, request.path.rstrip("/")) or "", {})
    if "body" not in recorded:
        return (None,)
    try:
        body = request.json()
    except ValueError:
        raise RefusedError(400, "VALIDATION_ERROR", "Invalid input JSON on line 1, column 1.") from None
    _known(body, recorded["body"])
    if "inputs" in recorded:
        if not isinstance(body["inputs"], list):
            raise RefusedError(400, "VALIDATION_ERROR", "Invalid input JSON: inputs is no list.")
        for row in body["inputs"]:
            _known(row, recorded["inputs"])
    return (body,)


def _known(found, recorded):
    if not isinstance(found, dict):
        raise RefusedError(400, "VALIDATION_ERROR", "Invalid input JSON: no object.")
    unknown = [name for name in found if name not in recorded["allowed"]]
    lacking = [name for name in recorded["required"] if name not in found]
    values = found.get("properties", {})
    wrong = isinstance(values, dict) and not all(isinstance(value, str) for value in values.values())
    if unknown or lacking or wrong:
        what = f"unknown {unknown[0]}" if unknown else f"{lacking[0]} missing" if lacking else "a value is no string"
        raise RefusedError(400, "VALIDATION_ERROR", f"Invalid input JSON: {what}.")


def _no_twice(ids):
    if len(set(ids)) < len(ids):
        raise RefusedError(400, "VALIDATION_ERROR", "Duplicate IDs found in batch input.")


def _whole(query, name, default):
    text = query.get(name, [str(default)])[0]
    if not text.isdigit():
        raise RefusedError(400, "VALIDATION_ERROR", f"{name} is no number")
    return int(text)


def _within(times, now, span):
    while times and times[0] <= now - span:
        times.popleft()
    return len(times)


def _row_error(category, message, context):
    return {"status": "error", "category": category, "message": message, "context": context, "links": {}, "errors": []}


def _batch(status, rows, errors, began):
    body = {"status": "COMPLETE", "results": rows, "startedAt": began, "completedAt": began}
    return Reply(207, {**body, "numErrors": len(errors), "errors": errors}) if errors else Reply(status, body)


def _told(one, wanted):
    """An object as a reply tells it: what was asked for, and what HubSpot adds to each."""
    when = {"hs_object_id": one.id, "hs_createdate": iso(one.created), "hs_lastmodifieddate": iso(one.modified)}
    return {"id": one.id, "properties": {**{name: one.properties.get(name) for name in wanted}, **when},
            "createdAt": iso(one.created), "updatedAt": iso(one.modified), "archived": one.archived}


def furnish(fake, owners, companies, *, unique=True):
    """Owners and companies as an administrator would have them: `owners` are e-mails, `companies` account ids."""
    fake.store.groups["companies"].add("churnkit")
    fake.store.define("companies", {"name": "churnkit_account_id", "label": "account", "type": "string",
                                    "fieldType": "text", "groupName": "churnkit", "hasUniqueValue": unique})
    for email in owners:
        fake.store.owner(email)
    for account in companies:
        fake.store.company(f"Company {account}", churnkit_account_id=account)


class _AtPort(Server):
    """A server at a port of one's choice."""

    def __init__(self, app, port):
        self._wanted = port
        super().__init__(app)

    def _listen(self, port):
        return super()._listen(port or self._wanted)


def main():
    """Serves until it is interrupted, and prints its address first."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--port", type=int, default=0)
    parse.add_argument("--token", required=True)
    parse.add_argument("--no-contract", action="store_true", help="check nothing against the contract")
    parse.add_argument("--limit", action="store_true", help="enforce the limits of requests")
    parse.add_argument("--owners", type=int, default=10, help="owner0@us.example and so on")
    parse.add_argument("--companies", type=int, default=100, help="of the accounts A00000 and so on")
    said = parse.parse_args()
    fake = FakeHubSpot(said.token, contract=not said.no_contract, limit=said.limit)
    furnish(fake, [f"owner{n}@us.example" for n in range(said.owners)], [f"A{n:05d}" for n in range(said.companies)])
    with _AtPort(fake, said.port) as server:
        sys.stdout.write(json.dumps({"url": server.url}) + "\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main()
