"""A Salesforce org that keeps state: sessions, fields, unique keys, picklists, quota, recycle bin; strict in all.

Every request and every reply is held against salesforce_contract.json; what does not fit stands in `violations`.
"""

import datetime as dt
import itertools
import json
import re
from collections import Counter
from urllib.parse import parse_qs, urlencode

import soql
from salesforce_contract import endpoint_of, wrong_reply, wrong_request

from churnkit.testing.server import Reply

ORG = "00D000000000001EAA"
ROBOT = "005000000000001AAA"
STATUSES = {"Not Started": False, "In Progress": False, "Waiting on someone else": False, "Deferred": False,
            "Completed": True}
MOST, LONGEST_ADDRESS = 200, 16_384
_SIGNS = re.compile(r"[0-9A-Za-z]{15}([0-9A-Za-z]{3})?")


def field(kind, length=0, *, writes="cu", values=(), unique=False):
    """A field as the describe tells it; `writes` are c(reate) and u(pdate)."""
    return {"type": kind, "length": length, "createable": "c" in writes, "updateable": "u" in writes,
            "externalId": unique, "unique": unique, "restrictedPicklist": bool(values),
            "picklistValues": [{"value": one, "label": one, "active": True, "defaultValue": False} for one in values]}


def task_fields():
    """Task's standard fields, as far as anybody here asks for them."""
    return {
        "Id": field("id", 18, writes=""), "IsDeleted": field("boolean", writes=""),
        "Subject": field("combobox", 255), "Description": field("textarea", 32_000),
        "Status": field("picklist", 255, values=STATUSES),
        "Priority": field("picklist", 255, values=("High", "Normal", "Low")),
        "TaskSubtype": field("picklist", 40, writes="c", values=("Task", "Email", "Call", "ListEmail")),
        "ActivityDate": field("date"), "OwnerId": field("reference", 18), "WhatId": field("reference", 18),
        "WhoId": field("reference", 18), "IsClosed": field("boolean", writes=""),
        **{name: field("reference", 18, writes="") for name in ("CreatedById", "LastModifiedById")},
        **{name: field("datetime", writes="") for name in ("CreatedDate", "LastModifiedDate", "SystemModstamp")}}


def churnkit_fields():
    """The custom fields, as an administrator makes them."""
    outcomes = ("saved", "no_change", "not_a_risk", "bought", "open_deal", "later", "no_need", "serviced",
                "part_replaced", "no_fault_found", "no_response", "wrong_contact", "do_not_contact")
    states = ("open", "in_progress", "snoozed", "completed", "dismissed")
    return {
        "Churnkit_Key__c": field("string", 64, unique=True), "Churnkit_Hash__c": field("string", 64),
        "Churnkit_Account__c": field("string", 255), "Churnkit_Play__c": field("string", 255),
        "Churnkit_Score__c": field("double"), "Churnkit_Note__c": field("textarea", 32_768),
        "Churnkit_Content__c": field("textarea", 32_768),
        "Churnkit_Disposition__c": field("picklist", 255, values=outcomes),
        "Churnkit_Status__c": field("picklist", 255, values=states)}


class FakeSalesforce:
    """One org. It is an App for churnkit.testing.server.

    `due` is what is to happen to the next writing request: "half" (only the first half of its records is done) or
    "quota" (spent from then on, until healed). `row_fault` names an account whose row fails with
    `row_code`, `poison` one whose row fails its whole request.
    """

    def __init__(self, tokens=("good-token",), now=lambda: dt.datetime.now(dt.UTC), *, custom=True):
        self.tokens, self.apps, self.now = set(tokens), {}, now
        self.host, self.sandbox, self.page, self.due = "", True, 200, ""
        self.fields = task_fields() | (churnkit_fields() if custom else {})
        self.account_fields = {"Id": field("id", 18, writes=""), "Name": field("string", 255),
                               "Churnkit_Account_Id__c": field("string", 255)}
        self.hidden, self.may_customize, self.unique_activities = set(), True, True
        self.required = set()
        self.users, self.accounts, self.contacts, self.tasks = {}, {}, set(), {}
        self.daily = self.row_fault = self.poison = None
        self.row_code = "FIELD_CUSTOM_VALIDATION_EXCEPTION"
        self.row_text = "Ask the sales desk first"
        self.used, self.expired, self.spent = 0, False, False
        self.asked, self.rows_written, self.violations, self.queries = Counter(), 0, [], []
        self._ids, self._cursors, self._clock = itertools.count(1), {}, None
        self.user(ROBOT, "churnkit@us.example", name="churnkit")

    def user(self, user_id, email, *, active=True, name="", kind="Standard"):
        """Adds a user."""
        self.users[user_id] = {"Id": user_id, "Email": email, "IsActive": active, "Name": name or email,
                               "UserType": kind}
        return user_id

    def account(self, ours, account_id=None):
        """Adds an account with our id in its custom field."""
        account_id = account_id or self._new("001")
        self.accounts[account_id] = {"Id": account_id, "Name": ours, "Churnkit_Account_Id__c": ours}
        return account_id

    def of_key(self, key):
        """The tasks with this key that are not in the recycle bin."""
        return [task for task in self.tasks.values() if task.get("Churnkit_Key__c") == key and not task["IsDeleted"]]

    def touch(self, task, at=None, by=ROBOT, **changes):
        """Changes a task, and what goes with that."""
        when = self._stamp(at)
        task.update(changes, LastModifiedById=by, LastModifiedDate=when, SystemModstamp=when)
        task["IsClosed"] = STATUSES.get(task["Status"], False)

    def __call__(self, request):
        """Answers a request."""
        reply = self._answer(request)
        self.violations += wrong_reply(request, reply)
        if not (400 <= reply.status < 500):  # what was refused was noticed by somebody
            self.violations += wrong_request(request)
        total = self.daily or 100_000
        return Reply(reply.status, reply.body, {**reply.headers, "Sforce-Limit-Info": f"api-usage={self.used}/{total}"})

    def _answer(self, request):
        name, due, self.due = endpoint_of(request), self.due, ""
        self.asked[name] += 1
        self.spent = self.spent or due == "quota"
        if name == "token":
            return self._token(request)
        if refusal := self._refusal(name, request):
            return refusal
        if name in {"create", "update", "custom_field"}:
            try:
                body = json.loads(request.body)
            except ValueError:
                return _no(400, "JSON_PARSER_ERROR", "Unexpected character at [line:1, column:1]")
            return self._custom_field(body) if name == "custom_field" else self._collection(name, body, due)
        return {"query": self._query, "query_more": self._more, "describe": self._describe,
                "delete": self._delete}[name](request)

    def _refusal(self, name, request):
        """What is wrong before anybody looks at what is asked: the session, the day's quota, the address."""
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if bearer not in self.tokens or self.expired:
            return _no(401, "INVALID_SESSION_ID", "Session expired or invalid")
        self.used += 1
        if self.spent or (self.daily is not None and self.used > self.daily):
            return _no(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
        return _no(404, "NOT_FOUND", "The requested resource does not exist") if name is None else None

    def _token(self, request):
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        if form.get("grant_type") != "client_credentials":
            return Reply(400, {"error": "unsupported_grant_type", "error_description": "grant type not supported"})
        if form.get("client_id") not in self.apps or self.apps[form["client_id"]] != form.get("client_secret"):
            return Reply(400, {"error": "invalid_client", "error_description": "invalid client credentials"})
        token = f"fresh-{next(self._ids)}"
        self.tokens, self.expired = {token}, False
        return Reply(200, {"access_token": token, "instance_url": f"https://{self.host}", "token_type": "Bearer",
                           "id": f"https://login.salesforce.com/id/{ORG}/{ROBOT}", "issued_at": "1", "signature": "s"})

    def _describe(self, request):
        table = request.path.split("/")[-2]
        fields = self.fields if table == "Task" else self.account_fields
        seen = [{"name": name, **found} for name, found in fields.items() if name not in self.hidden]
        return Reply(200, {"name": table, "createable": True, "updateable": True, "fields": seen})

    def _custom_field(self, body):
        name, data = body["FullName"].removeprefix("Activity."), body["Metadata"]
        if not self.may_customize:
            return _no(403, "INSUFFICIENT_ACCESS", "insufficient access rights on entity: CustomField")
        if name in self.fields:
            return _no(400, "DUPLICATE_DEVELOPER_NAME", f"There is already a field named {name} on Activity.")
        if data.get("unique") and not self.unique_activities:
            return _no(400, "FIELD_INTEGRITY_EXCEPTION", "Unique is not allowed on Activity")
        kinds = {"Text": "string", "LongTextArea": "textarea", "Number": "double", "Picklist": "picklist"}
        words = [one["fullName"] for one in data.get("valueSet", {}).get("valueSetDefinition", {}).get("value", ())]
        self.fields[name] = field(kinds[data["type"]], data.get("length", 255 if words else 0), values=words,
                                  unique=bool(data.get("unique") and data.get("externalId")))
        self.hidden.add(name)  # until an administrator grants it
        return Reply(201, {"id": self._new("00N"), "success": True, "errors": []})

    def _query(self, request):
        asked = request.query.get("q", [""])[0]
        self.queries.append(asked)
        if len(request.path) + len(urlencode({"q": asked})) > LONGEST_ADDRESS:
            return _no(414, "REQUEST_URI_TOO_LONG", "URI Too Long")
        try:
            query = soql.parse(asked)
        except soql.MalformedError as error:
            return _no(400, "MALFORMED_QUERY", str(error))
        if wrong := self._wrong_query(query):
            return wrong
        tables = {"Organization": [{"Id": ORG, "Name": "Acme", "IsSandbox": self.sandbox}],
                  "TaskStatus": [{"ApiName": name, "IsClosed": shut, "IsDefault": name in {"Not Started", "Completed"}}
                                 for name, shut in STATUSES.items()],
                  "User": list(self.users.values()), "Account": list(self.accounts.values()),
                  "Task": [task for task in self.tasks.values() if not task["IsDeleted"]]}
        rows = [row for row in tables[query.table] if query.holds(row, self._value)]
        rows.sort(key=lambda row: tuple(str(self._value(row, name)) for name in query.order))
        found = [self._shown(query, row) for row in rows[:query.limit]]
        cursor = self._new("01g")
        self._cursors[cursor] = found
        return self._page(cursor, 0)

    def _wrong_query(self, query):
        names = self._names(query.table)
        if names is None:
            return _no(400, "INVALID_TYPE", f"sObject type '{query.table}' is not supported.")
        unknown = sorted(query.fields - names)
        if unknown:
            return _no(400, "INVALID_FIELD", f"No such column '{unknown[0]}' on entity '{query.table}'.")
        for name, _, value in query.conditions:
            ids = value if isinstance(value, tuple) else (value,)
            if name == "Id" and not all(_SIGNS.fullmatch(str(one)) for one in ids):
                return _no(400, "INVALID_QUERY_FILTER_OPERATOR", "invalid ID field")
            if query.table == "Task" and self.fields.get(name, {}).get("type") == "textarea":
                return _no(400, "INVALID_FIELD", f"field '{name}' can not be filtered in a query call")
        return None

    def _more(self, request):
        cursor, _, start = request.path.rpartition("/")[2].partition("-")
        if cursor not in self._cursors:
            return _no(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
        return self._page(cursor, int(start))

    def _page(self, cursor, start):
        found = self._cursors[cursor]
        end = start + self.page
        more = {} if end >= len(found) else {"nextRecordsUrl": f"/services/data/v60.0/query/{cursor}-{end}"}
        return Reply(200, {"totalSize": len(found), "done": not more, "records": found[start:end], **more})

    def _names(self, table):
        if table == "Task":
            return set(self.fields) - self.hidden | {"Owner.Email", "Owner.Name", "LastModifiedBy.Email"}
        return {"Organization": {"Id", "Name", "IsSandbox"}, "TaskStatus": {"ApiName", "IsClosed", "IsDefault"},
                "User": {"Id", "Email", "IsActive", "Name", "UserType"}, "Account": set(self.account_fields)}.get(table)

    def _value(self, row, name):
        if "." in name:
            first, last = name.split(".")
            return self.users.get(row[f"{first}Id"], {}).get(last)
        return row.get(name)

    def _shown(self, query, row):
        shown = {"attributes": {"type": query.table, "url": f"/services/data/v60.0/sobjects/{query.table}/x"}}
        for name in query.names:
            value = self._value(row, name)
            if isinstance(value, dt.datetime):
                value = value.strftime("%Y-%m-%dT%H:%M:%S.000+0000")
            if "." in name:
                first, last = name.split(".")
                shown.setdefault(first, {"attributes": {"type": "User", "url": "x"}})[last] = value
            else:
                shown[name] = value
        return shown

    def _collection(self, name, body, due):
        records = body.get("records") if isinstance(body, dict) else None
        if not isinstance(records, list) or not records:
            return _no(400, "INVALID_INPUT", "records: a list is wanted")
        if len(records) > MOST:
            return _no(400, "EXCEEDED_MAX_SIZE_REQUEST", f"at most {MOST} records")
        for record in records:
            unknown = sorted(set(record) - set(self.fields) - {"attributes", "id"})
            if unknown or record.get("attributes", {}).get("type") != "Task":
                return _no(400, "INVALID_FIELD", f"No such column '{(unknown or ['attributes'])[0]}' on sobject Task")
            if self.poison and self._account_of(record) == self.poison:
                return _no(400, "JSON_PARSER_ERROR", "a value could not be read")
        step, before = (self._create if name == "create" else self._update), dict(self.tasks)
        results = [step(record) for record in records[:len(records) // 2 if due == "half" else None]]
        if body.get("allOrNone") and not all(result["success"] for result in results):
            self.tasks = before
            results = [result if not result["success"] else _bad("ALL_OR_NONE_OPERATION_ROLLED_BACK", "rolled back")
                       for result in results]
        self.rows_written += sum(result["success"] for result in results)
        return Reply(200, results)

    def _account_of(self, record):
        return record.get("Churnkit_Account__c") or self.tasks.get(record.get("id"), {}).get("Churnkit_Account__c")

    def _create(self, record):
        values = {name: value for name, value in record.items() if name != "attributes"}
        wrong = self._wrong(values, "createable") or self._row_fault(record)
        missing = sorted(name for name in self.required if not values.get(name))
        if wrong or missing:
            return wrong or _bad("REQUIRED_FIELD_MISSING", f"Required fields are missing: {missing}", *missing)
        key = values.get("Churnkit_Key__c")
        if self.fields["Churnkit_Key__c"]["unique"] and (twins := self.of_key(key)):
            return _bad("DUPLICATE_VALUE", "duplicate value found: Churnkit_Key__c duplicates value on record with id: "
                        f"{twins[0]['Id']}")
        task = {**dict.fromkeys(self.fields), "Id": self._new("00T"), "IsDeleted": False, "Status": "Not Started",
                "Priority": "Normal", "TaskSubtype": "Task", "OwnerId": ROBOT, "CreatedById": ROBOT,
                "CreatedDate": self._stamp(), **values}
        self.touch(task)
        self.tasks[task["Id"]] = task
        return {"id": task["Id"], "success": True, "errors": []}

    def _update(self, record):
        values = {name: value for name, value in record.items() if name not in {"attributes", "id"}}
        task = self.tasks.get(record.get("id"))
        if task is None:
            malformed = not _SIGNS.fullmatch(str(record.get("id")))
            return _bad("MALFORMED_ID" if malformed else "INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")
        if task["IsDeleted"]:
            return _bad("ENTITY_IS_DELETED", "entity is deleted")
        wrong = self._wrong(values, "updateable") or self._row_fault(record)
        if wrong:
            return wrong
        self.touch(task, **values)
        return {"id": task["Id"], "success": True, "errors": []}

    def _delete(self, request):
        results = []
        for task_id in request.query.get("ids", [""])[0].split(","):
            task = self.tasks.get(task_id)
            if task is None or task["IsDeleted"]:
                results.append(_bad("ENTITY_IS_DELETED" if task else "INVALID_CROSS_REFERENCE_KEY", "no such entity"))
            else:
                self.touch(task, IsDeleted=True)
                self.rows_written += 1
                results.append({"id": task_id, "success": True, "errors": []})
        return Reply(200, results)

    def _row_fault(self, record):
        if self.row_fault and self._account_of(record) == self.row_fault:
            return _bad(self.row_code, self.row_text)
        return None

    def _wrong(self, values, may):
        """What a record's values break, as the first error."""
        for name, value in values.items():
            known = self.fields[name]
            if not known[may] or name in self.hidden:
                return _bad("INVALID_FIELD_FOR_INSERT_UPDATE", f"Unable to create/update fields: {name}", name)
            if isinstance(value, str) and known["length"] and len(value) > known["length"]:
                return _bad("STRING_TOO_LONG", f"{name}: data value too large (max length={known['length']})", name)
            words = [one["value"] for one in known["picklistValues"]]
            if known["restrictedPicklist"] and value is not None and value not in words:
                return _bad("INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", f"{name}: bad value: {value}", name)
            if known["type"] == "reference" and (wrong := self._wrong_link(name, value)):
                return wrong
        return None

    def _wrong_link(self, name, value):
        if not _SIGNS.fullmatch(str(value)):
            return _bad("MALFORMED_ID", f"{name}: id value of incorrect type: {value}", name)
        there = {"OwnerId": self.users, "WhatId": self.accounts, "WhoId": self.contacts}[name]
        if value not in there:
            return _bad("INVALID_CROSS_REFERENCE_KEY", f"{name}: invalid cross reference id", name)
        if name == "OwnerId" and not self.users[value]["IsActive"]:
            return _bad("INACTIVE_OWNER_OR_USER", "operation performed with inactive user", name)
        return None

    def _stamp(self, at=None):
        """The server's clock, which knows whole seconds and never steps back."""
        now = (at or self.now()).astimezone(dt.UTC).replace(microsecond=0)
        newest = max((task["SystemModstamp"] for task in self.tasks.values()), default=now)
        return max(now, newest)

    def _new(self, prefix):
        return f"{prefix}{next(self._ids):012d}AAA"


def _no(status, code, message):
    return Reply(status, [{"message": message, "errorCode": code}])


def _bad(code, message, *fields):
    return {"success": False, "errors": [{"statusCode": code, "message": message, "fields": list(fields)}]}
