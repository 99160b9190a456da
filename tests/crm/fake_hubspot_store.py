"""What the fake HubSpot holds: properties, owners, companies and tasks, with the vendor's rules for each."""

import copy
import datetime as dt
import json
import operator as op
from dataclasses import dataclass, field

MOST_TEXT = 65_536
MOST_FOUND = 10_000
"""No search goes beyond so many results."""
SYSTEM = {"hs_object_id": "number", "hs_createdate": "datetime", "hs_lastmodifieddate": "datetime",
          "hs_updated_by_user_id": "number"}
"""Properties that nobody but HubSpot writes."""
OPTIONS = {"hs_task_status": ("NOT_STARTED", "IN_PROGRESS", "WAITING", "DEFERRED", "COMPLETED"),
           "hs_task_priority": ("NONE", "LOW", "MEDIUM", "HIGH"), "hs_task_type": ("CALL", "EMAIL", "TODO", "MEETING")}
LINKS = {192: "companies", 204: "contacts"}
"""HubSpot's own kinds of association from a task, and what they lead to."""

_NUMBERS = {"hs_object_id": lambda one: int(one.id), "hs_createdate": lambda one: one.created,
            "hs_lastmodifieddate": lambda one: one.modified}
_COMPARE = {"EQ": op.eq, "NEQ": op.ne, "GT": op.gt, "GTE": op.ge, "LT": op.lt, "LTE": op.le}


class RowError(Exception):
    """Why a row is not taken: one of HubSpot's categories, and its words."""

    def __init__(self, category, message):
        super().__init__(message)
        self.category, self.message = category, message


@dataclass
class Record:
    """An object of the CRM; times are milliseconds, `before` is what a search may still show of it."""

    id: str
    properties: dict
    created: int
    modified: int
    archived: bool = False
    links: tuple = ()
    before: list = field(default_factory=list)


class Store:
    """All that is kept. `unique_tasks` says whether the portal allows unique properties on tasks."""

    def __init__(self, *, unique_tasks=True):
        self.unique_tasks, self.newest, self.made = unique_tasks, 0, 1000
        self.groups = {"tasks": {"task"}, "companies": {"companyinformation"}}
        self.properties = {"tasks": {}, "companies": {}}
        self.objects = {"tasks": {}, "companies": {}, "contacts": {}}
        self.owners = []
        self._taken = {"tasks": {}, "companies": {}}
        self._found = {}
        for kind in ("tasks", "companies"):
            for name, type_ in SYSTEM.items():
                self._own(kind, name, type_)
        for name, words in OPTIONS.items():
            self._own("tasks", name, "enumeration", words)
        for name in ("hs_task_subject", "hs_task_body"):
            self._own("tasks", name, "string")
        self._own("tasks", "hs_timestamp", "datetime")
        self._own("tasks", "hubspot_owner_id", "enumeration")
        self._own("companies", "name", "string")

    def copy(self):
        """As it stands now."""
        return copy.deepcopy({name: value for name, value in vars(self).items() if name != "_found"})

    def restore(self, kept):
        """As it stood then; only the time goes on."""
        newest = self.newest
        vars(self).update(copy.deepcopy(kept))
        self.newest, self._found = newest, {}

    def tick(self, at):
        """The CRM's own clock: it never goes back, whatever the machines around it do."""
        self.newest = max(self.newest, round(at.timestamp() * 1000))
        return self.newest

    def live(self, kind):
        """What is not in the recycling bin."""
        return [one for one in self.objects[kind].values() if not one.archived]

    def define(self, kind, wanted):
        """A new property; a name that is taken, a group that is missing, a unique one where none may be are refused."""
        name = wanted["name"]
        if name in self.properties[kind]:
            raise RowError("CONFLICT", f"A property named '{name}' already exists.")
        if wanted["groupName"] not in self.groups[kind]:
            raise RowError("VALIDATION_ERROR", f"The property group '{wanted['groupName']}' does not exist.")
        if wanted.get("hasUniqueValue") and kind == "tasks" and not self.unique_tasks:
            raise RowError("VALIDATION_ERROR", "Unique properties are not supported for object type TASK.")
        if wanted["type"] == "enumeration" and not wanted.get("options"):
            raise RowError("VALIDATION_ERROR", "An enumeration needs options.")
        self.properties[kind][name] = {"description": "", "options": [], "hasUniqueValue": False, **wanted}
        return self.properties[kind][name]

    def company(self, name, **properties):
        """A company, as the portal's people make it."""
        return self._add("companies", {"name": name, **properties}, 0, ())

    def contact(self):
        """A person at a company."""
        return self._add("contacts", {}, 0, ())

    def owner(self, email, *, archived=False):
        """Somebody who may own tasks, or might once."""
        number = len(self.owners) + 1
        user = {} if archived else {"userId": 900 + number}
        self.owners.append({
            "id": str(500 + number), "email": email, "type": "PERSON", "archived": archived, "createdAt": iso(0),
            "updatedAt": iso(0), "firstName": email.split("@")[0], "lastName": "", "teams": [],
            "userIdIncludingInactive": 900 + number, **user})
        return self.owners[-1]

    def create_task(self, row, now):
        """A task from one input of a batch."""
        values = self._valid("tasks", row["properties"])
        if not values.get("hs_timestamp"):
            raise RowError("VALIDATION_ERROR", "hs_timestamp is required.")
        links = tuple(self._link(spec["associationTypeId"], link["to"]["id"]) for link in row["associations"]
                      for spec in link["types"])
        self._take("tasks", values, None)
        return self._add("tasks", {"hs_task_status": "NOT_STARTED", **values}, now, links)

    def update_task(self, number, properties, now, user=None):
        """Changes some properties of a task; an empty one is cleared."""
        one = self.objects["tasks"].get(number)
        if one is None or one.archived:
            raise RowError("OBJECT_NOT_FOUND", f"No task with ID {number} exists, or it was deleted.")
        values = self._valid("tasks", properties)
        self._take("tasks", values, number)
        one.before.append((one.modified, dict(one.properties)))
        del one.before[:-5]
        one.properties = {name: value for name, value in {**one.properties, **values}.items() if value != ""}
        if user:
            one.properties["hs_updated_by_user_id"] = str(user)
        one.modified = now
        self._found = {}
        return one

    def archive(self, number, now):
        """Puts a task into the recycling bin, from where its unique values bind nobody; once is as good as twice."""
        one = self.objects["tasks"].get(number)
        if one is None or one.archived:
            return
        one.archived, one.modified = True, now
        for name, taken in self._taken["tasks"].items():
            taken.pop(one.properties.get(name), None)
        self._found = {}

    def by(self, kind, value, name=None):
        """The object with that id, or with that value of a unique property."""
        if name is not None:
            if not self.properties[kind].get(name, {}).get("hasUniqueValue"):
                raise RowError("VALIDATION_ERROR", f"The property '{name}' is not a unique property of {kind}.")
            value = self._taken[kind].get(name, {}).get(value)
        one = self.objects[kind].get(value)
        return None if one is None or one.archived else one

    def search(self, kind, question, before):
        """The total, one page and the next offset of what a search sees: nothing that changed after `before`."""
        limit, after = question.get("limit", 10), int(question.get("after") or 0)
        if not 1 <= limit <= 200 or after + limit > MOST_FOUND:
            raise RowError("VALIDATION_ERROR", f"A page has at most 200 results, a search at most {MOST_FOUND}.")
        asked = json.dumps([kind, question.get("filterGroups"), question.get("sorts"), before], sort_keys=True)
        if asked not in self._found:
            self._found = {asked: self._search(kind, question, before)}
        found = self._found[asked]
        return len(found), found[after:after + limit], after + limit if after + limit < len(found) else None

    def _search(self, kind, question, before):
        groups, sorts = question.get("filterGroups") or [], question.get("sorts") or ["hs_createdate"]
        if len(groups) > 5 or sum(len(group["filters"]) for group in groups) > 18 or len(sorts) > 1:
            raise RowError("VALIDATION_ERROR", "At most 5 groups, 18 filters and one sort.")
        for one in (*(one for group in groups for one in group["filters"]), {"propertyName": sorts[0].lstrip("-")}):
            if one["propertyName"] not in self.properties[kind]:
                raise RowError("VALIDATION_ERROR", f"Property \"{one['propertyName']}\" does not exist")
            if one.get("operator") in {"IN", "NOT_IN"} and not 1 <= len(one.get("values") or ()) <= 100:
                raise RowError("VALIDATION_ERROR", "IN takes 1 to 100 values.")
        seen = [one for one in (_as_seen(one, before) for one in self.live(kind)) if one is not None]
        asked = [[(each, self._typed(kind, each["propertyName"], each.get("value", ""))) for each in group["filters"]]
                 for group in groups]
        found = [one for one in seen if not asked or any(
            all(self._fits(kind, one, *each) for each in group) for group in asked)]
        name = sorts[0].lstrip("-")
        return sorted(found, key=lambda one: (self._value(kind, one, name), int(one.id)), reverse=sorts[0][0] == "-")

    def _fits(self, kind, one, filter_, than):
        name, operator = filter_["propertyName"], filter_["operator"]
        held = _NUMBERS[name](one) if name in _NUMBERS else one.properties.get(name)
        if operator in {"HAS_PROPERTY", "NOT_HAS_PROPERTY"}:
            return bool(held) == (operator == "HAS_PROPERTY")
        if not held:
            return operator in {"NEQ", "NOT_IN"}
        if operator in {"IN", "NOT_IN"}:  # only values in lower case ever match, and they match either
            return (held.lower() in filter_["values"]) == (operator == "IN")
        mine = self._value(kind, one, name)
        if operator == "BETWEEN":
            return than <= mine <= self._typed(kind, name, filter_["highValue"])
        return _COMPARE[operator](mine, than)

    def _value(self, kind, one, name):
        return _NUMBERS[name](one) if name in _NUMBERS else self._typed(kind, name, one.properties.get(name) or "")

    def _typed(self, kind, name, text):
        type_ = self.properties[kind][name]["type"]
        try:
            if type_ == "number":
                return float(text or 0)
            if type_ == "datetime":
                return millis(text) if text else 0
        except ValueError:
            raise RowError("VALIDATION_ERROR", f"'{text}' is no {type_}.") from None
        return text.lower()

    def _valid(self, kind, properties):
        """The values as they are kept, or HubSpot's reason against one of them."""
        kept = {}
        for name, value in properties.items():
            known = self.properties[kind].get(name)
            if known is None:
                raise _not_valid(name, "PROPERTY_DOESNT_EXIST", f'Property "{name}" does not exist')
            if name in SYSTEM:
                raise _not_valid(name, "READ_ONLY_VALUE", f'"{name}" is a read only property')
            if len(value) > MOST_TEXT:
                raise _not_valid(name, "INVALID_LENGTH", f"{name} is too long")
            if value and known["type"] == "number":
                self._typed(kind, name, value)
            if value and known["type"] == "datetime":
                value = iso(self._typed(kind, name, value))  # noqa: PLW2901 -- kept as it is told again
            if value and name == "hubspot_owner_id":
                if value not in {owner["id"] for owner in self.owners if not owner["archived"]}:
                    raise _not_valid(name, "INVALID_OWNER_ID", f"Owner {value} does not exist or is not active")
            elif value and known["type"] == "enumeration" and value not in {each["value"] for each in known["options"]}:
                raise _not_valid(name, "INVALID_OPTION", f"{value} was not one of the allowed options of {name}")
            kept[name] = value
        return kept

    def _take(self, kind, values, number):
        """Keeps unique values unique."""
        unique = [name for name in values if self.properties[kind][name].get("hasUniqueValue") and values[name]]
        for name in unique:
            there = self._taken[kind].setdefault(name, {}).get(values[name])
            if there not in (None, number):
                raise _not_valid(name, "CONFLICTING_UNIQUE_VALUE", f"{there} already has that value.")
        for name in unique:
            self._taken[kind][name][values[name]] = number or str(self.made + 1)

    def _add(self, kind, properties, now, links):
        self.made += 1
        kept = {name: value for name, value in properties.items() if value != ""}
        one = Record(str(self.made), kept, now, now, links=links)
        if kind == "companies":
            self._take_company(kept, one.id)
        self.objects[kind][one.id] = one
        self._found = {}
        return one

    def _take_company(self, values, number):
        for name, value in values.items():
            if self.properties["companies"].get(name, {}).get("hasUniqueValue"):
                self._taken["companies"].setdefault(name, {})[value] = number

    def _link(self, kind, number):
        if kind not in LINKS or number not in self.objects[LINKS[kind]]:
            raise RowError("INVALID_ASSOCIATION", f"No association {kind} to {number} can be made.")
        return kind, number

    def _own(self, kind, name, type_, words=()):
        self.properties[kind][name] = {
            "name": name, "label": name, "type": type_, "fieldType": "text", "groupName": "task", "description": "",
            "hasUniqueValue": False, "options": [{"label": word, "value": word, "hidden": False} for word in words]}


def iso(ms):
    """Milliseconds as HubSpot tells them."""
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def millis(text):
    """The reverse, and milliseconds as they are."""
    if text.isdigit():
        return int(text)
    return round(dt.datetime.fromisoformat(text).timestamp() * 1000)


def _as_seen(one, before):
    """An object as the index knows it; None where it came after that."""
    if before is None or one.modified <= before:
        return one
    known = [(modified, properties) for modified, properties in one.before if modified <= before]
    if not known:
        return None
    return Record(one.id, known[-1][1], one.created, known[-1][0], links=one.links)


def _not_valid(name, error, message):
    detail = json.dumps([{"isValid": False, "message": message, "error": error, "name": name}])
    return RowError("VALIDATION_ERROR", f"Property values were not valid: {detail}")
