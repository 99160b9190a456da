"""HubSpot as the CRM: tasks with a key of churnkit's own, found by it, and changes polled by their modified time."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from churnkit.errors import SettingsError
from churnkit.outreach.crm.base import Capabilities, Item, Page, Portal, Rate, Remote, Result
from churnkit.outreach.crm.hubspot_directory import Directory, Found
from churnkit.outreach.crm.hubspot_fields import (
    KEY,
    MODIFIED,
    READ,
    TO_COMPANY,
    TO_CONTACT,
    closed,
    millis,
    moment,
    new,
    ours,
    remote,
    ticks,
)
from churnkit.outreach.crm.hubspot_line import TOKEN, Answer, Line, RefusedError, is_taken
from churnkit.outreach.crm.hubspot_setup import is_unique, survey, which
from churnkit.outreach.crm.mapping import Mapped, mapped
from churnkit.outreach.crm.options import loopback, number, refuse_unknown, whole
from churnkit.outreach.crm.secret import Secret, secret

BATCH = 100
OVERLAP = dt.timedelta(minutes=5)
"""A search may not see a change at once: each poll asks again for what changed so long before the newest one known."""
LAG = dt.timedelta(seconds=30)
"""How long a new task may stay unseen by a search."""
SEARCHES = 5
"""How many searches HubSpot allows a second, whatever else it allows."""
_PASSING = ("RATE_LIMITS", "INTERNAL_ERROR", "SERVICE_UNAVAILABLE", "TIMEOUT", "SERVER_ERROR")
_HOST = "https://api.hubapi.com"


@dataclass(frozen=True)
class Options:
    """What `[crm_options]` may say for HubSpot.

    `account_property` is the property of companies that holds our account id; `requests` in any `seconds` and `daily`
    are what the portal's plan allows.
    """

    host: str = _HOST
    account_property: str = "churnkit_account_id"
    timeout: float = 30.0
    requests: int = 100
    seconds: float = 10.0
    daily: int = 250_000

    @classmethod
    def read(cls, given: Mapping[str, str]) -> Options:
        """From the settings.

        Raises:
            SettingsError: If an option is unknown (names the nearest) or not what it must be.
        """
        known = ("host", "account_property", "mapping", "timeout", "requests", "seconds", "daily")
        refuse_unknown(given, known, "HubSpot")
        name = given.get("account_property", cls.account_property)
        if not name.isidentifier():
            raise SettingsError(f"[crm_options] account_property = '{name}' is no name of a property. Take its "
                                "internal name.")
        return cls(_host(given.get("host", _HOST)), name, number(given, "timeout", cls.timeout, 0.01, 600),
                   whole(given, "requests", cls.requests, 1, 10_000), number(given, "seconds", cls.seconds, 0.01, 3600),
                   whole(given, "daily", cls.daily, 1, 1_000_000_000))


class HubSpotCrm:
    """Tasks in a HubSpot portal.

    The key is a unique property, by which tasks are looked up without delay; in a portal that allows none on tasks it
    is a plain one, looked up by search, and `capabilities` say so. What people own there: status, disposition, note,
    owner, due date. HubSpot allows five searches a second whatever else it allows: each counts for several requests.

    Args:
        options: What `[crm_options]` says.
        token: The private app's.
        table: The workspace's crm_map.csv.
    """

    name = "hubspot"

    def __init__(self, options: Options, token: Secret, table: Mapped) -> None:
        rate = Rate(options.requests, options.seconds, options.daily)
        self.capabilities = Capabilities(unique_keys=True, batch=BATCH, page=BATCH, rate=rate,
                                         resolution=dt.timedelta(milliseconds=1))
        self._options, self._mapped = options, table
        searches = max(1, math.ceil(rate.requests / rate.seconds / SEARCHES))
        self._line = Line(options.host, token, options.timeout, self._spend, searches)
        self._directory = Directory(self._line, table, options.account_property)
        self._zone: dt.tzinfo = dt.UTC
        self._began = False
        self.spend: Callable[[], None] = lambda: None

    def check(self, *, mend: bool = False) -> Portal:
        """Asks which portal this is, what the token may do there and which properties there are.

        Raises:
            CrmDeniedError: If the token is refused, or HubSpot does not say which portal it is.
        """
        self._directory.forget()
        named = any(kind == "account" for kind, _ in self._mapped.known)
        found = survey(self._line, self._directory, account_property=self._options.account_property, mapped=named,
                       mend=mend)
        self._begin(found.zone, unique=found.unique)
        return found.portal()

    def find(self, keys: Sequence[str]) -> Mapping[str, Remote]:
        """The tasks of these keys; one that was deleted is not there."""
        self._ready()
        wanted = list(dict.fromkeys(keys))
        if not wanted:
            return {}
        found: dict[str, Remote] = {}
        for row in self._by_key(wanted):
            one = self._remote(row)
            if one.key in wanted:
                found.setdefault(one.key, one)
        return found

    def write(self, items: Sequence[Item]) -> Sequence[Result]:
        """Writes new tasks, or churnkit's part of known ones, with one request that writes."""
        if not items:
            return []
        self._ready()
        return self._create(items) if items[0].remote_id is None else self._update(items)

    def changes(self, since: str | None) -> Iterator[Page]:
        """The tasks changed since, with an overlap; the cursor is a moment in HubSpot's milliseconds.

        It is the newest change seen, and at the end HubSpot's own time when the poll began, if that is later: what
        changed longer before than the overlap has been told by then, and is not read again on every quiet day.
        """
        self._ready()
        newest, began = int(since) if since and since.isdigit() else 0, self._now()
        for rows in self._changed(max(0, newest - int(OVERLAP.total_seconds() * 1000))):
            newest = max([newest, *(ticks(row) for row in rows)])
            yield Page([self._remote(row) for row in rows], str(newest))
        yield Page([], str(max(newest, began)))

    def remove(self, remote_ids: Sequence[str]) -> None:
        """Puts tasks into HubSpot's recycling bin."""
        for start in range(0, len(remote_ids), BATCH):
            some = dict.fromkeys(remote_ids[start:start + BATCH])
            self._line.ask(self._line.tasks.archive, {"inputs": [{"id": number} for number in some]})

    def close(self) -> None:
        """Lets the connections go, and forgets owners and companies: the next run asks anew."""
        self._line.close()
        self._directory.forget()

    def _spend(self) -> None:
        """Asks for one more request, of whatever budget the engine has put here since."""
        self.spend()

    def _ready(self) -> None:
        """Whoever writes or reads without a check before it is told the portal's ways first."""
        if not self._began:
            self._begin(which(self._line).zone, unique=is_unique(self._line))

    def _begin(self, zone: str, *, unique: bool) -> None:
        self._began, self._zone = True, _zone(zone)
        self.capabilities = replace(self.capabilities, unique_keys=unique, lag=dt.timedelta(0) if unique else LAG)

    def _remote(self, row: Mapping[str, Any], *, ask: bool = True) -> Remote:
        """A row as the protocol wants it; without `ask` people go by what is known of them already."""
        return remote(row, lambda number: self._directory.email(number, ask=ask),
                      lambda number: self._directory.user(number, ask=ask), self._zone)

    def _by_key(self, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
        if not self.capabilities.unique_keys:
            among = {"propertyName": KEY, "operator": "IN", "values": list(keys)}
            yield from self._line.sweep(self._line.search, [among], READ)
            return
        for start in range(0, len(keys), BATCH):
            yield from self._read([{"id": key} for key in keys[start:start + BATCH]], KEY)

    def _read(self, inputs: Sequence[Mapping[str, str]], by: str | None = None) -> list[dict[str, Any]]:
        """Tasks by id, or by a unique property; those that are not there are left out."""
        body: dict[str, Any] = {"inputs": inputs, "properties": READ, "propertiesWithHistory": []}
        return self._line.ask(self._line.tasks.read, body | ({"idProperty": by} if by else {})).rows()

    def _create(self, items: Sequence[Item]) -> list[Result]:
        """New tasks, linked to company and contact in the same request, so that none stands there without them."""
        companies = self._directory.accounts(item.task.account_id for item in items)
        owners = {email: self._directory.owner(email) for email in {item.task.owner for item in items}}
        results, inputs = [], []
        for item in items:
            company, owner = companies[item.task.account_id], owners[item.task.owner]
            if why := company.why or owner.why:
                results.append(Result(item.task.key, "refused", why=why))
            else:
                inputs.append(self._input(item, company, owner))
        if not inputs:
            return results
        try:
            answer = self._line.ask(self._line.tasks.create, {"inputs": inputs}, writing=True)
        except RefusedError as refused:
            if len(inputs) > 1:
                raise
            key, taken = inputs[0]["objectWriteTraceId"], refused.taken
            return [*results, Result(key, "doubt" if taken else "refused", why=str(refused))]
        asked = {one["objectWriteTraceId"] for one in inputs}
        return [*results, *self._created([item for item in items if item.task.key in asked], answer)]

    def _input(self, item: Item, company: Found, owner: Found) -> dict[str, Any]:
        contact = self._directory.contact(item.task.contact_id)
        links = [(company.id, TO_COMPANY), *([(contact, TO_CONTACT)] if contact else [])]
        return {"properties": new(item, owner.id, self._zone), "objectWriteTraceId": item.task.key, "associations": [
            {"to": {"id": number}, "types": [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": kind}]}
            for number, kind in links]}

    def _created(self, items: Sequence[Item], answer: Answer) -> list[Result]:
        """What became of each: rows by key, errors by trace id; of what the reply does not tell nothing is known."""
        rows = {_key_of(row): row for row in answer.told()}
        errors = {trace: one for one in answer.told("errors") for trace in _named(one, "objectWriteTraceId")}
        return [self._became(item, rows.get(item.task.key), errors.get(item.task.key), "doubt") for item in items]

    def _update(self, items: Sequence[Item]) -> list[Result]:
        """The part that is churnkit's; a task to be closed is read first, and closed only if nobody has touched it."""
        untouched = self._untouched([str(item.remote_id) for item in items if item.closing])
        inputs = [{"id": str(item.remote_id), "objectWriteTraceId": item.task.key, "properties": {
            **ours(item), **(closed(item) if item.closing and str(item.remote_id) in untouched else {})}}
            for item in items]
        try:
            answer = self._line.ask(self._line.tasks.update, {"inputs": inputs}, writing=True)
        except RefusedError as refused:
            if len(items) == 1 and refused.status == 404:
                return [Result(items[0].task.key, "gone", why=f"a person deleted it ({refused})")]
            raise
        rows = {str(row.get("id")): row for row in answer.told()}
        errors = {name: one for one in answer.told("errors")
                  for name in (*_named(one, "objectWriteTraceId"), *_named(one, "ids"), *_named(one, "id"))}
        return [self._became(item, rows.get(str(item.remote_id)),
                             errors.get(item.task.key) or errors.get(str(item.remote_id)), "again") for item in items]

    def _now(self) -> int:
        """HubSpot's own time, as it tells it of whatever is read, also of what is not there; 0 where it does not."""
        nothing: dict[str, Any] = {"inputs": [{"id": "0"}], "properties": [], "propertiesWithHistory": []}
        said = self._line.ask(self._line.tasks.read, nothing).body.get("completedAt")
        try:
            return millis(moment(str(said)))
        except ValueError:
            return 0

    def _untouched(self, numbers: Sequence[str]) -> set[str]:
        if not numbers:
            return set()
        found = [self._remote(row, ask=False) for row in self._read([{"id": one} for one in dict.fromkeys(numbers)])]
        return {one.remote_id for one in found if one.status == "open" and not one.problem}

    def _became(self, item: Item, row: Mapping[str, Any] | None, error: Mapping[str, Any] | None,
                unclear: Any) -> Result:
        key = item.task.key
        if error is not None:
            why = self._line.hidden(error.get("message") or error.get("category") or "it gave no reason")
            category = str(error.get("category"))
            if category == "OBJECT_NOT_FOUND" and item.remote_id is not None:
                return Result(key, "gone", why=f"a person deleted it ({why})")
            if category in _PASSING:
                return Result(key, unclear, why=f"HubSpot could not do it now: {why}")
            if item.remote_id is None and (is_taken(category) or is_taken(str(error.get("message")))):
                return Result(key, "doubt", why=f"HubSpot says that it is there already: {why}")
            return Result(key, "refused", why=f"HubSpot refused it: {why}")
        if row is None or not row.get("id"):
            return Result(key, unclear, why="HubSpot's reply does not say what became of it")
        said = {**row.get("properties", {}), KEY: key, "churnkit_hash": item.content_hash}
        # A question that failed here would look as if nothing had been written.
        told = self._remote({**row, "properties": said}, ask=False)
        return Result(key, "written", replace(told, content_hash=item.content_hash, problem=""))

    def _changed(self, start: int) -> Iterator[list[dict[str, Any]]]:
        """What changed at that moment or later, the oldest first, as pages.

        Each page is a question of its own, from the moment of the last one's last row: offsets would leave out a row
        when another one changes between two pages, and end at 10,000. A page that is full of one moment is followed by
        all of that moment, by their ids.
        """
        has_key = {"propertyName": KEY, "operator": "HAS_PROPERTY"}
        seen: set[str] = set()
        while True:
            since = {"propertyName": MODIFIED, "operator": "GTE", "value": str(start)}
            rows = self._line.look(self._line.search, [since, has_key], MODIFIED, READ)
            fresh = [row for row in rows if f"{row.get('id')}@{ticks(row)}" not in seen]
            if fresh:
                yield fresh
            if len(rows) < BATCH:
                return
            last = ticks(rows[-1])
            if last > start:
                seen, start = {f"{row.get('id')}@{last}" for row in rows if ticks(row) == last}, last
                continue
            before = {"propertyName": MODIFIED, "operator": "LT", "value": str(start + 1)}
            every = list(self._line.sweep(self._line.search, [since, before, has_key], READ))
            yield from (every[begin:begin + BATCH] for begin in range(0, len(every), BATCH))
            seen, start = set(), start + 1


def connect(options: Mapping[str, str], root: Path) -> HubSpotCrm:
    """A HubSpot portal, by the token in CHURNKIT_HUBSPOT_TOKEN or in the file that CHURNKIT_HUBSPOT_TOKEN_FILE names.

    Raises:
        SettingsError: If an option is unknown or wrong, the token is missing, or crm_map.csv is wrong.
    """
    read = Options.read(options)
    return HubSpotCrm(read, secret(TOKEN, "the token of HubSpot's private app"), mapped(options, root))


def _host(text: str) -> str:
    """An address without a path; plain http only where nobody but this machine listens."""
    parts = urlsplit(text)
    plain = parts.scheme == "http" and loopback(parts.hostname or "")
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query or \
            parts.path not in {"", "/"}:
        raise SettingsError(f"[crm_options] host = '{text}' is no address such as {_HOST}. Mend it.")
    if parts.scheme == "http" and not plain:
        raise SettingsError(f"[crm_options] host = '{text}' would send the token in plain sight. Use https.")
    return f"{parts.scheme}://{parts.netloc}"


def _zone(name: str) -> dt.tzinfo:
    """The portal's time zone; one that this machine does not know is UTC."""
    try:
        return ZoneInfo(name) if name else dt.UTC
    except (KeyError, ValueError, OSError):
        return dt.UTC


def _key_of(row: Mapping[str, Any]) -> str:
    return str(row.get("objectWriteTraceId") or row.get("properties", {}).get(KEY) or "")


def _named(error: Mapping[str, Any], name: str) -> Iterable[str]:
    """What an error of a row names in its context."""
    context = error.get("context")
    found = context.get(name) if isinstance(context, dict) else None
    return [str(one) for one in found] if isinstance(found, list) else []
