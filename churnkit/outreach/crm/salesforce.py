"""Salesforce: tasks by its REST interface, each known by a custom field that holds churnkit's key."""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from churnkit.errors import SettingsError
from churnkit.outreach.crm.base import (
    Capabilities,
    CrmDeniedError,
    CrmDownError,
    CrmRefusedError,
    Item,
    Page,
    Portal,
    Rate,
    Remote,
    Result,
)
from churnkit.outreach.crm.mapping import Mapped, mapped
from churnkit.outreach.crm.options import number, refuse_unknown, whole
from churnkit.outreach.crm.salesforce_faults import GONE, NO_OWNER, PASSING, TWICE, UNREADABLE, Said, brief, failure
from churnkit.outreach.crm.salesforce_fields import (
    FIELDS,
    KEY,
    READ,
    Facts,
    closing_of,
    create_of,
    moment,
    quoted,
    remote_of,
    select,
    status_of,
    todo,
    update_of,
)
from churnkit.outreach.crm.salesforce_line import CLIENT_ID, CLIENT_SECRET, TOKEN, VERSION, Line
from churnkit.outreach.crm.salesforce_people import People, is_id, slices
from churnkit.outreach.crm.secret import secret

ACCOUNT_FIELD = "Churnkit_Account_Id__c"
OPTIONS = ("instance", "mapping", "timeout", "daily", "requests", "seconds", "account_field", "ca", "version")
OVERLAP = dt.timedelta(minutes=5)
"""How far behind its cursor `changes` begins: a change carries the time at which its transaction began, and is seen
when that ends."""
BATCH = 200
"""The most records that one collection request takes."""
_PAGE = re.compile(r"/services/data/v\d+\.\d+/query/([0-9A-Za-z]+-\d+)")


class SalesforceCrm:
    """The tasks of one Salesforce org.

    Creates are plain creates, never upserts: an upsert on a key that is there already would put the status, the owner
    and the due date that people have set back to what they were. A create whose key is there is refused by the unique
    field, and is "doubt": the engine looks it up. Without the unique field it looks the keys up after every doubt.
    """

    name = "salesforce"

    def __init__(self, line: Line, who: Mapped, rate: Rate, account_field: str = ACCOUNT_FIELD) -> None:
        self.capabilities = Capabilities(unique_keys=True, batch=BATCH, page=2000, rate=rate)
        self.spend: Callable[[], None] = lambda: None
        line.spend = lambda: self.spend()  # noqa: PLW0108 -- not inlined: the engine sets another one later
        self._line, self._who, self._account_field = line, who, account_field
        self._people = People(self._query, who, account_field)
        self._facts: Facts | None = None

    def check(self, *, mend: bool = False) -> Portal:
        """The org by its id, sandbox or production, and which custom fields of Activity are missing there.

        With `mend` the missing ones are made, where churnkit's user may customize the application.
        """
        org = next(iter(self._query(select(("Id", "Name", "IsSandbox"), "Organization"))), {})
        if not org.get("Id"):
            raise CrmDeniedError("Salesforce does not tell which org this is. Give churnkit's user the permission "
                                 "'View Setup and Configuration'.")
        task = self._line.ask("GET", "sobjects/Task/describe")
        made: list[str] = []
        there: set[str] = set()
        if mend:
            made, there = self._mend(_by_name(task))
            task = self._line.ask("GET", "sobjects/Task/describe")
        missing = todo(_by_name(task), there)
        if not (task.get("createable") and task.get("updateable")):
            missing.append("Give churnkit's user the permission to create and edit tasks ('Edit Tasks').")
        missing += self._accounts_todo()
        facts = self._learn(task)
        name = f"Salesforce {org.get('Name') or self._line.host}"
        name += "" if facts.unique or missing else f" (without unique keys: {KEY.name} is no unique external id)"
        return Portal(name, str(org["Id"]), "sandbox" if org.get("IsSandbox") else "production", tuple(missing),
                      tuple(made))

    def find(self, keys: Sequence[str]) -> Mapping[str, Remote]:
        """The tasks of these keys that are there; of several with one key the oldest."""
        wrong = [key for key in keys if not _is_key(key)]
        if wrong:
            raise CrmRefusedError(f"'{brief(wrong[0], 80)}' is no task key: keys are at most 64 hexadecimal digits.")
        facts = self._known()
        found: dict[str, Remote] = {}
        for some in slices(keys):
            for record in self._query(select(READ, "Task", f"{KEY.name} IN {quoted(some)}", "CreatedDate, Id")):
                found.setdefault(str(record[KEY.name]), remote_of(record, facts, self._who))
        return found

    def write(self, items: Sequence[Item]) -> Sequence[Result]:
        """Creates by one request, updates by one more; neither is ever sent twice."""
        results: list[Result] = []
        new, known = ([item for item in items if (item.remote_id is None) == wanted] for wanted in (True, False))
        for step, some in ((self._create, new), (self._update, known)):
            for start in range(0, len(some), BATCH):
                part = some[start:start + BATCH]
                try:
                    results += step(part)
                except CrmDownError as down:
                    if not any(result.state == "written" for result in results):
                        raise
                    results += [Result(item.task.key, "unsent", why=str(down)) for item in part]
        return results

    def changes(self, since: str | None) -> Iterator[Page]:
        """The tasks that changed since the cursor, and some that changed shortly before it.

        The cursor is the newest SystemModstamp that was seen; it never goes back.
        """
        facts, after = self._known(), _cursor(since)
        where = f" AND SystemModstamp >= {after - OVERLAP:%Y-%m-%dT%H:%M:%SZ}" if after else ""
        for records in self._pages(select(READ, "Task", f"{KEY.name} != null{where}", "SystemModstamp, Id")):
            newest = [moment(record["SystemModstamp"]) for record in records]
            after = max([*newest, *([after] if after else [])], default=None)
            yield Page([remote_of(record, facts, self._who) for record in records],
                       after.isoformat() if after else since)

    def remove(self, remote_ids: Sequence[str]) -> None:
        """Puts tasks into the recycle bin."""
        for start in range(0, len(remote_ids), BATCH):
            some = remote_ids[start:start + BATCH]
            said = self._line.ask("DELETE", "composite/sobjects", writing=True,
                                  params={"ids": ",".join(some), "allOrNone": "false"})
            for remote_id, row in zip(some, self._rows(said, len(some)), strict=True):
                code, text = _error(row)
                if code and code not in GONE:
                    raise CrmRefusedError(f"Salesforce does not delete the task {remote_id}: {code} "
                                          f"{self._line.hidden(text)}. Delete it there.")

    def close(self) -> None:
        """Lets the connection go."""
        self._line.close()

    def _create(self, items: Sequence[Item]) -> list[Result]:
        facts = self._known()
        self._people.learn(item.task for item in items)
        results, sent, records = [], [], []
        for item in items:
            links, why = self._people.links(item.task)
            if not _is_key(item.task.key):
                why = "the task's key is not one of at most 64 hexadecimal digits"
            if why:
                results.append(Result(item.task.key, "refused", why=why))
                continue
            sent.append(item)
            records.append({"attributes": {"type": "Task"}, **create_of(item.task, item.content_hash, facts), **links})
        return results + self._send("POST", sent, records)

    def _update(self, items: Sequence[Item]) -> list[Result]:
        closing = [item for item in items if item.closing]
        facts = self._known()
        begun = self._begun([str(item.remote_id) for item in closing], facts) if closing else frozenset()
        records = []
        for item in items:
            record = {"attributes": {"type": "Task"}, "id": item.remote_id,
                      **update_of(item.task, item.content_hash)}
            if item.closing and item.remote_id not in begun:
                record |= closing_of(item.closing, facts)
            records.append(record)
        return self._send("PATCH", items, records)

    def _begun(self, ids: Sequence[str], facts: Facts) -> frozenset[str]:
        """Those that a person has begun or closed."""
        rows = [row for some in slices(one for one in ids if is_id(one, "00T")) for row in self._query(
            select(("Id", "Status", "IsClosed", "Churnkit_Status__c"), "Task", f"Id IN {quoted(some)}"))]
        return frozenset(str(row["Id"]) for row in rows if status_of(row, facts) != "open")

    def _send(self, method: str, items: Sequence[Item], records: Sequence[Mapping[str, Any]]) -> list[Result]:
        """One request for all; each row's result by its place."""
        if not records:
            return []
        said = self._line.ask(method, "composite/sobjects", writing=True,
                              json={"allOrNone": False, "records": list(records)})
        rows = self._rows(said, len(records))
        return [self._result(item, row) for item, row in zip(items, rows, strict=True)]

    def _result(self, item: Item, row: Mapping[str, Any]) -> Result:
        """What became of one row."""
        key, (code, text) = item.task.key, _error(row)
        why = f"Salesforce says {code}: {self._line.hidden(text)}"
        if not code and row.get("success") is True and row.get("id"):
            return Result(key, "written", Remote(key, str(row["id"]), "", item.content_hash, owner=item.task.owner,
                                                 due=item.task.due))
        if not code or code == "UNKNOWN_EXCEPTION":
            return Result(key, "doubt", why=why if code else "Salesforce does not say what became of it")
        if code in PASSING or "UNABLE_TO_LOCK_ROW" in text:  # a trigger's error names the lock in its text alone
            return Result(key, "again", why=why)
        if item.remote_id is not None and code in GONE:
            return Result(key, "gone", why=why)
        if item.remote_id is None and code == TWICE:
            return Result(key, "doubt", why=why)
        if code in NO_OWNER:
            why = self._who.unmapped("owner", item.task.owner, f"cannot be given a task ({why.rstrip('.')})")
        return Result(key, "refused", why=why)

    def _rows(self, said: list[Any], wanted: int) -> list[Mapping[str, Any]]:
        """A collection's results; any other number of them than records says nothing about any of them."""
        if len(said) != wanted or not all(isinstance(row, Mapping) for row in said):
            raise failure(Said(0, code=UNREADABLE), self._line.host, writing=True)
        return said

    def _known(self) -> Facts:
        """What tasks are like here, looked up once."""
        if self._facts is None:
            return self._learn(self._line.ask("GET", "sobjects/Task/describe"))
        return self._facts

    def _learn(self, task: Mapping[str, Any]) -> Facts:
        self._facts = Facts.of(_by_name(task), self._query(
            select(("ApiName", "IsClosed", "IsDefault"), "TaskStatus")))
        self.capabilities = replace(self.capabilities, unique_keys=self._facts.unique)
        return self._facts

    def _accounts_todo(self) -> list[str]:
        if self._account_field == "Id" or any(kind == "account" for kind, _ in self._who.known):
            return []
        if self._account_field in _by_name(self._line.ask("GET", "sobjects/Account/describe")):
            return []
        return [(f"Account has no field {self._account_field} that churnkit's user can read. Make it, and put the "
                 "account ids of your raw tables into it; or name another one: [crm_options] account_field; or list "
                 f"the accounts in {self._who.path}.")]

    def _mend(self, fields: Mapping[str, Any]) -> tuple[list[str], set[str]]:
        """Makes the fields that are not seen: what was made, and which are there now."""
        made, there = [], set()
        for field in FIELDS:
            if field.name in fields:
                continue
            said = self._make(field.name, field.metadata())
            plainly = field.key and said.status == 400 and "DUPLICATE" not in said.code
            if plainly:  # an org that takes no unique fields on activities
                said = self._make(field.name, field.metadata(unique=False))
            if said.good:
                made.append(f"made the field {field.name} of Activity{' (not unique)' if plainly else ''}")
            elif not 400 <= said.status < 500 or said.status == 401:
                raise failure(said, self._line.host, writing=False)
            if said.good or "DUPLICATE" in said.code:
                there.add(field.name)
        return made, there

    def _make(self, name: str, metadata: Mapping[str, Any]) -> Said:
        return self._line.say("POST", "tooling/sobjects/CustomField",
                              json={"FullName": f"Activity.{name}", "Metadata": metadata})

    def _query(self, soql: str) -> list[Mapping[str, Any]]:
        return [record for page in self._pages(soql) for record in page]

    def _pages(self, soql: str) -> Iterator[list[Mapping[str, Any]]]:
        """A query's records; the address of each further page is Salesforce's word, and must be one of its queries."""
        said, asked = self._line.ask("GET", "query/", params={"q": soql}), set()
        while True:
            records = said.get("records")
            if not isinstance(records, list) or not all(isinstance(record, Mapping) for record in records):
                raise failure(Said(0, code=UNREADABLE), self._line.host, writing=False)
            yield records
            if said.get("done") is not False:
                return
            further = _PAGE.fullmatch(str(said.get("nextRecordsUrl")))
            if further is None or further[1] in asked:
                raise CrmDeniedError(f"{self._line.host} names a next page that is no page of this query: "
                                     f"'{self._line.hidden(brief(str(said.get('nextRecordsUrl')), 100))}'. Is "
                                     "[crm_options] instance a Salesforce host?")
            asked.add(further[1])
            said = self._line.ask("GET", f"query/{further[1]}")


def connect(options: Mapping[str, str], root: Path) -> SalesforceCrm:
    """The org at `instance`; docs/salesforce.md tells the options.

    Raises:
        SettingsError: If an option is unknown or wrong, or no token and no app is set.
    """
    refuse_unknown(options, OPTIONS, "Salesforce")
    host, version = _host(options.get("instance", "")), options.get("version", VERSION)
    if re.fullmatch(r"\d\d\.0", version) is None:
        raise SettingsError(f"[crm_options] version: '{version}' is none. Write it as {VERSION}.")
    account_field = options.get("account_field", ACCOUNT_FIELD)
    if re.fullmatch(r"[A-Za-z]\w*", account_field, re.ASCII) is None:
        raise SettingsError(f"[crm_options] account_field: '{account_field}' is no field's name. Write its API name, "
                            f"such as {ACCOUNT_FIELD}.")
    ca = str(root / options["ca"]) if options.get("ca") else ""
    if ca and not Path(ca).is_file():
        raise SettingsError(f"[crm_options] ca: there is no file '{ca}'. Name the certificate authority's, in PEM.")
    rate = Rate(whole(options, "requests", 20, 1, 1_000_000), number(options, "seconds", 1, 0.01, 3600),
                whole(options, "daily", 100_000, 1, 1_000_000_000))
    who, timeout = mapped(options, root), number(options, "timeout", 30, 0.01, 600)
    if not os.environ.get(CLIENT_ID, "").strip():
        line = Line(host, secret(TOKEN, "the access token of Salesforce"), timeout=timeout, ca=ca, version=version)
    elif os.environ.get(TOKEN) or os.environ.get(f"{TOKEN}_FILE"):
        raise SettingsError(f"{TOKEN} and {CLIENT_ID} are both set: which of them signs in? Unset one of them.")
    else:
        app = (os.environ[CLIENT_ID].strip(), secret(CLIENT_SECRET, "the secret of the Salesforce app"))
        line = Line(host, None, app, timeout=timeout, ca=ca, version=version)
    return SalesforceCrm(line, who, rate, account_field)


def _host(text: str) -> str:
    """The host that is meant, with its port where that is another."""
    found = re.fullmatch(r"(?:https://)?([a-z0-9.-]+(?::\d{1,5})?)/?", text.strip(), re.IGNORECASE)
    if found is None:
        raise SettingsError(f"[crm_options] instance: '{brief(text, 100)}' is no host. Write your org's own, such as "
                            "acme.my.salesforce.com; Salesforce is always asked by https.")
    return found[1]


def _is_key(text: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{1,64}", text) is not None


def _by_name(described: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {str(field["name"]): field for field in described.get("fields", ())}


def _error(row: Mapping[str, Any]) -> tuple[str, str]:
    """The first error of a row, as code and words."""
    first: Mapping[str, Any] = next(iter(row.get("errors") or ()), {})
    return brief(str(first.get("statusCode") or ""), 60), brief(str(first.get("message") or ""))


def _cursor(since: str | None) -> dt.datetime | None:
    """The moment that a cursor names; one that cannot be read is none, and everything is read again."""
    try:
        return moment(since) if since else None
    except ValueError:
        return None
