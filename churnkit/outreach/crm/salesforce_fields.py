"""A task as Salesforce holds it: the custom fields, what its statuses mean, and both directions."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from churnkit.outreach.crm.base import Remote
from churnkit.outreach.crm.mapping import Mapped
from churnkit.outreach.crm.words import plain
from churnkit.outreach.task import DISPOSITIONS, LOCAL, Task

STATES = ("open", "in_progress", "snoozed", "completed", "dismissed")
SUBJECT, DESCRIPTION, LONG = 255, 32_000, 32_768
_TYPES = {"call": "Call", "email": "Email"}
_PRIORITIES = {"low": "Low", "normal": "Normal", "high": "High"}
_SNOOZED = "Deferred"
_UNSENT = LOCAL | {"approval", "ghost", "snoozed_until", "status", "disposition"}
"""What Churnkit_Content__c leaves out: churnkit's alone, or people's."""
_DESCRIBED = {"Text": "string", "LongTextArea": "textarea", "Number": "double", "Picklist": "picklist"}
_IN_WORDS = {"LongTextArea": "Text Area (Long)"}


@dataclass(frozen=True)
class CustomField:
    """One custom field of Activity, which is where an administrator makes Task's."""

    name: str
    label: str
    kind: Literal["Text", "LongTextArea", "Number", "Picklist"]
    length: int = 0
    words: tuple[str, ...] = ()
    key: bool = False

    def metadata(self, *, unique: bool = True) -> dict[str, Any]:
        """The definition that the Tooling API takes."""
        made: dict[str, Any] = {"label": self.label, "type": self.kind, "description": "Kept by churnkit."}
        if self.kind in {"Text", "LongTextArea"}:
            made["length"] = self.length
        if self.kind == "LongTextArea":
            made["visibleLines"] = 5
        if self.kind == "Number":
            made |= {"precision": 12, "scale": 6}
        if self.kind == "Picklist":
            values = [{"fullName": word, "label": word, "default": False} for word in self.words]
            made["valueSet"] = {"restricted": True, "valueSetDefinition": {"sorted": False, "value": values}}
        if self.key and unique:
            made |= {"externalId": True, "unique": True, "caseSensitive": True}
        return made

    def in_words(self) -> str:
        """Type and length, as an administrator's screen names them."""
        if self.kind == "Number":
            return "Number(6, 6)"
        if self.kind == "Picklist":
            return f"Picklist of {', '.join(self.words)}"
        ticked = ", with External ID, Unique and Case Sensitive ticked" if self.key else ""
        return f"{_IN_WORDS.get(self.kind, self.kind)}({self.length}){ticked}"

    def wrong(self, found: Mapping[str, Any]) -> str:
        """What keeps the field as it is there from holding what churnkit writes; empty where nothing does."""
        if found.get("type") != _DESCRIBED[self.kind]:
            return f"is a {found.get('type')}; it must be {self.in_words()}"
        if self.length and int(found.get("length") or 0) < self.length:
            return f"takes {found.get('length')} characters; it must be {self.in_words()}"
        missing = [word for word in self.words if word not in _active(found)]
        if missing:
            return f"lacks the values {', '.join(missing)}"
        if not found.get("createable") or not (self.key or found.get("updateable")):
            return "may not be written by churnkit's user: give it edit access (field-level security)"
        return ""


KEY = CustomField("Churnkit_Key__c", "Churnkit Key", "Text", 64, key=True)
FIELDS = (
    KEY,
    CustomField("Churnkit_Hash__c", "Churnkit Hash", "Text", 64),
    CustomField("Churnkit_Account__c", "Churnkit Account", "Text", 255),
    CustomField("Churnkit_Play__c", "Churnkit Play", "Text", 255),
    CustomField("Churnkit_Score__c", "Churnkit Score", "Number"),
    CustomField("Churnkit_Status__c", "Churnkit Status", "Picklist", words=STATES),
    CustomField("Churnkit_Disposition__c", "Churnkit Disposition", "Picklist",
                words=tuple(word for words in DISPOSITIONS.values() for word in words)),
    CustomField("Churnkit_Note__c", "Churnkit Note", "LongTextArea", LONG),
    CustomField("Churnkit_Content__c", "Churnkit Content", "LongTextArea", LONG),
)
READ = ("Id", "Subject", "Description", "Status", "IsClosed", "ActivityDate", "OwnerId", "Owner.Email", "Owner.Name",
        "CreatedById", "LastModifiedById", "LastModifiedBy.Email", "LastModifiedDate", "SystemModstamp",
        *(field.name for field in FIELDS if field.name not in {"Churnkit_Account__c", "Churnkit_Play__c",
                                                               "Churnkit_Score__c"}))
"""What is read of a task."""


@dataclass(frozen=True)
class Facts:
    """What tasks are like in this org: administrators rename statuses and priorities as they like.

    `begin` is the status of a task that nobody has begun, `finish` the one that closes it; empty where there is none.
    """

    unique: bool = False
    begin: str = ""
    finish: str = ""
    priorities: frozenset[str] = frozenset()
    subtypes: frozenset[str] = frozenset()

    @classmethod
    def of(cls, fields: Mapping[str, Mapping[str, Any]], statuses: Sequence[Mapping[str, Any]]) -> Facts:
        """From Task's described fields by name, and the rows of TaskStatus."""
        key = fields.get(KEY.name, {})
        open_ = {str(row["ApiName"]): bool(row.get("IsDefault")) for row in statuses if not row.get("IsClosed")}
        closed = {str(row["ApiName"]): bool(row.get("IsDefault")) for row in statuses if row.get("IsClosed")}
        return cls(bool(key.get("externalId") and key.get("unique")), _first("Not Started", open_),
                   _first("Completed", closed), _active(fields.get("Priority", {})),
                   _active(fields.get("TaskSubtype", {})))


def todo(fields: Mapping[str, Mapping[str, Any]], hidden: Iterable[str] = ()) -> list[str]:
    """What an administrator must still do to Task's custom fields, a sentence each.

    Args:
        fields: Task's described fields by name: those that churnkit's user may see.
        hidden: Fields that are known to be there, and are not seen.
    """
    said = []
    for field in FIELDS:
        if field.name in fields:
            if wrong := field.wrong(fields[field.name]):
                said.append(f"The field {field.name} of Activity {wrong}.")
        elif field.name in hidden:
            said.append(f"Give churnkit's user read and edit access to the field {field.name} of Activity (field-level "
                        "security, best by a permission set), and put it on the Task page layout where people are to "
                        "see it.")
        else:
            said.append(f"Make the field {field.name} of Activity: {field.in_words()}; give churnkit's user read and "
                        "edit access to it.")
    return said


def update_of(task: Task, content_hash: str) -> dict[str, Any]:
    """What an update writes: churnkit's part, and nothing that is people's."""
    score = task.score if task.score is not None and math.isfinite(task.score) else None
    return {"Subject": plain(" ".join(task.title.split()), SUBJECT), "Description": plain(task.body, DESCRIPTION),
            "Churnkit_Score__c": None if score is None else round(score, 6), "Churnkit_Hash__c": content_hash,
            "Churnkit_Content__c": content_of(task)}


def create_of(task: Task, content_hash: str, facts: Facts) -> dict[str, Any]:
    """What a create writes, the links to people and account left out."""
    made = {**update_of(task, content_hash), "ActivityDate": task.due.isoformat(), KEY.name: task.key,
            "Churnkit_Account__c": plain(task.account_id, 255), "Churnkit_Play__c": plain(task.play, 255),
            "Churnkit_Status__c": "open"}
    chosen = {"Status": (facts.begin, {facts.begin} - {""}), "Priority": (_PRIORITIES[task.priority], facts.priorities),
              "TaskSubtype": (_TYPES.get(task.type, "Task"), facts.subtypes)}
    return made | {name: value for name, (value, known) in chosen.items() if value in known}


def closing_of(note: str, facts: Facts) -> dict[str, Any]:
    """What closes an untouched task besides."""
    return {**({"Status": facts.finish} if facts.finish else {}), "Churnkit_Status__c": "dismissed",
            "Churnkit_Note__c": plain(note, LONG)}


def content_of(task: Task) -> str:
    """What churnkit owns as JSON, in one line; without the body where both do not fit, for the Description has that."""
    content = {name: value for name, value in task.to_dict().items() if name not in _UNSENT}
    text = json.dumps(content, ensure_ascii=False, sort_keys=True)
    if len(text) > LONG:
        text = json.dumps({**content, "body": None}, ensure_ascii=False, sort_keys=True)
    return text


def remote_of(record: Mapping[str, Any], facts: Facts, who: Mapped) -> Remote:
    """A task as it stands there. Who changed it is told where that was not the user who made it, churnkit's own."""
    key, content = str(record.get(KEY.name) or ""), _content(record)
    if not re.fullmatch(r"[0-9a-f]{1,64}", key):
        return Remote(key, str(record["Id"]), "", problem=(
            f"The Salesforce task {record['Id']} has '{plain(key, 64)}' as {KEY.name}, which is no key of churnkit. "
            "Clear the field there."))
    by = _part(record, "LastModifiedBy", "Email") or _text(record.get("LastModifiedById"))
    due = _text(record.get("ActivityDate"))
    return Remote(
        key=key, remote_id=str(record["Id"]), version=str(record["SystemModstamp"]),
        content_hash=_text(record.get("Churnkit_Hash__c")), status=status_of(record, facts),
        disposition=_text(record.get("Churnkit_Disposition__c")), note=_text(record.get("Churnkit_Note__c")),
        owner=_owner(record, who, content), due=dt.date.fromisoformat(due[:10]) if due else None,
        modified_at=moment(record["LastModifiedDate"]),
        by=None if record.get("LastModifiedById") == record.get("CreatedById") else by, content=content)


def status_of(record: Mapping[str, Any], facts: Facts) -> str:
    """The word that churnkit has for it.

    IsClosed tells that it is closed, Churnkit_Status__c then tells "dismissed" from "completed". Of an open task the
    Status tells, and Churnkit_Status__c where that has not been moved.

    >>> status_of({"IsClosed": True, "Status": "Completed"}, Facts(begin="Not Started"))
    'completed'
    >>> status_of({"IsClosed": False, "Status": "Waiting on someone else"}, Facts(begin="Not Started"))
    'in_progress'
    """
    word = str(record.get("Churnkit_Status__c") or "")
    if record.get("IsClosed"):
        return "dismissed" if word == "dismissed" else "completed"
    if record.get("Status") == _SNOOZED:
        return "snoozed"
    if record.get("Status") not in {facts.begin, None}:
        return "in_progress"
    return word if word in STATES else "open"


def moment(text: Any) -> dt.datetime:
    """A point in time as Salesforce writes it.

    >>> moment("2026-11-01T06:00:00.000+0000")
    datetime.datetime(2026, 11, 1, 6, 0, tzinfo=datetime.timezone.utc)
    """
    found = dt.datetime.fromisoformat(str(text))
    return found.replace(tzinfo=dt.UTC) if found.tzinfo is None else found.astimezone(dt.UTC)


def select(names: Iterable[str], table: str, where: str = "", order: str = "") -> str:
    """A query; every value in `where` went through `quoted`, and names are ours or checked."""
    soql = f"SELECT {', '.join(names)} FROM {table}"  # noqa: S608 -- as the docstring says
    return f"{soql}{f' WHERE {where}' if where else ''}{f' ORDER BY {order}' if order else ''}"


def quoted(values: Iterable[str]) -> str:
    r"""Values for SOQL's IN, each escaped.

    >>> print(quoted(["O'Hara", "back\\slash"]))
    ('O\'Hara','back\\slash')
    """
    texts = [f"'{value.translate(_ESCAPES)}'" for value in values]
    return f"({','.join(texts)})"


_ESCAPES = str.maketrans({"\\": r"\\", "'": r"\'", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\b": r"\b",
                          "\f": r"\f"})


def _active(field: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(str(value["value"]) for value in field.get("picklistValues") or () if value.get("active"))


def _first(wanted: str, found: Mapping[str, bool]) -> str:
    """The status that is wanted, else the one set as default, else the first."""
    if wanted in found:
        return wanted
    return next((name for name, default in found.items() if default), next(iter(found), ""))


def _content(record: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        content = json.loads(record.get("Churnkit_Content__c") or "")
    except ValueError:
        return None
    if not isinstance(content, dict):
        return None
    return {**content, "body": record.get("Description") or ""} if content.get("body") is None else content


def _owner(record: Mapping[str, Any], who: Mapped, content: Mapping[str, Any] | None) -> str | None:
    """The owner's address, in the spelling in which churnkit sent it; a queue has none, and goes by its name."""
    found = who.owner_of(str(record.get("OwnerId") or "")) or _part(record, "Owner", "Email") or _part(
        record, "Owner", "Name") or _text(record.get("OwnerId"))
    first = str((content or {}).get("owner") or "")
    return first if found is not None and first.lower() == found.lower() else found


def _part(record: Mapping[str, Any], name: str, field: str) -> str | None:
    return _text((record.get(name) or {}).get(field))


def _text(value: Any) -> str | None:
    return str(value) if value else None
