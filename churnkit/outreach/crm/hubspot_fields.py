"""How a task looks in HubSpot: churnkit's own properties there, and the way from a Task to them and back."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from churnkit.outreach.crm.base import CrmDownError, Item, Remote
from churnkit.outreach.crm.words import markup, plain
from churnkit.outreach.task import DISPOSITIONS, LOCAL, THEIRS, Task

GROUP = "churnkit"
"""The group under which HubSpot shows churnkit's properties."""
KEY = "churnkit_key"
MODIFIED = "hs_lastmodifieddate"
TO_COMPANY, TO_CONTACT = 192, 204
"""HubSpot's own kinds of association from a task."""
STATES = ("open", "in_progress", "snoozed", "completed", "dismissed")
WORDS = tuple(word for words in DISPOSITIONS.values() for word in words)
MOST_TEXT = 65_000
"""HubSpot takes 65,536 characters into one property."""

_READ_STATUS: Mapping[str, str] = {"NOT_STARTED": "open", "IN_PROGRESS": "in_progress", "WAITING": "snoozed",
                                   "DEFERRED": "snoozed", "COMPLETED": "completed"}
_STATUS: Mapping[str, str] = {"open": "NOT_STARTED", "in_progress": "IN_PROGRESS", "snoozed": "WAITING",
                              "completed": "COMPLETED", "dismissed": "COMPLETED"}
_TYPE: Mapping[str, str] = {"call": "CALL", "email": "EMAIL"}
_PRIORITY: Mapping[str, str] = {"low": "LOW", "normal": "MEDIUM", "high": "HIGH"}


@dataclass(frozen=True)
class Field:
    """A property that churnkit makes in HubSpot; `options` are the words of one that has a fixed list."""

    name: str
    label: str
    type: str = "string"
    look: str = "text"
    says: str = ""
    options: tuple[str, ...] = ()
    unique: bool = False

    def definition(self, *, unique: bool) -> dict[str, Any]:
        """What HubSpot is sent to make it."""
        made: dict[str, Any] = {"name": self.name, "label": self.label, "type": self.type, "fieldType": self.look,
                                "groupName": GROUP, "description": self.says}
        if self.options:
            made["options"] = choices(self.options)
        if unique:
            made["hasUniqueValue"] = True
        return made


FIELDS = (
    Field(KEY, "churnkit key", says="One task per account, play and episode. Never change it.", unique=True),
    Field("churnkit_status", "churnkit outcome", "enumeration", "select",
          "What became of the task where HubSpot's own status cannot say it: dismissed.", STATES),
    Field("churnkit_disposition", "churnkit disposition", "enumeration", "select", "What came of it.", WORDS),
    Field("churnkit_note", "churnkit note", look="textarea", says="What else there is to say, in a person's words."),
    Field("churnkit_account", "churnkit account", says="The account's id in the tables that churnkit reads."),
    Field("churnkit_play", "churnkit play", says="Which play opened the task."),
    Field("churnkit_score", "churnkit score", "number", "number", "The probability when the task was written."),
    Field("churnkit_hash", "churnkit hash", says="What churnkit wrote last. Never change it."),
    Field("churnkit_content", "churnkit content", look="textarea",
          says="churnkit's own copy, from which a lost ledger is made anew. Never change it."),
)
"""The properties of tasks, in the order in which they are made."""

READ = [*(field.name for field in FIELDS), "hs_task_status", "hs_timestamp", "hubspot_owner_id", MODIFIED,
        "hs_updated_by_user_id", "hs_object_id"]
"""What is asked for of each task."""


def choices(words: tuple[str, ...]) -> list[dict[str, Any]]:
    """A fixed list's options, as HubSpot takes them."""
    return [{"label": word.replace("_", " "), "value": word, "hidden": False, "displayOrder": place}
            for place, word in enumerate(words)]


def new(item: Item, owner: str, zone: dt.tzinfo) -> dict[str, str]:
    """The properties of a new task.

    HubSpot keeps a moment, churnkit means a day: it is noon in the portal's time zone, so that everybody within eleven
    hours of it sees the same date.
    """
    task = item.task
    noon = dt.datetime.combine(task.due, dt.time(12), zone)
    made = {
        **ours(item), KEY: task.key, "churnkit_account": plain(task.account_id), "churnkit_play": plain(task.play),
        "hs_task_type": _TYPE.get(task.type, "TODO"), "hs_task_priority": _PRIORITY[task.priority],
        "hs_task_status": _STATUS[task.status], "hs_timestamp": str(millis(noon)),
        "hubspot_owner_id": owner, "churnkit_disposition": task.disposition or "",
        "churnkit_status": task.status if task.status == "dismissed" else "", "churnkit_note": item.closing}
    return {name: value for name, value in made.items() if value}


def ours(item: Item) -> dict[str, str]:
    """What an update writes: churnkit's own part, and nothing that people own."""
    task = item.task
    return {"hs_task_subject": " ".join(plain(task.title, 200).split()), "hs_task_body": markup(task.body, MOST_TEXT),
            "churnkit_score": "" if task.score is None else f"{task.score:.6f}", "churnkit_hash": item.content_hash,
            "churnkit_content": _content(task)}


def closed(item: Item) -> dict[str, str]:
    """What closes a task that nobody has touched: HubSpot has no word for dismissed, so the outcome says it."""
    return {"hs_task_status": "COMPLETED", "churnkit_status": "dismissed",
            "churnkit_note": plain(item.closing, MOST_TEXT)}


def status_of(theirs: str, outcome: str) -> str:
    """The status of a task.

    HubSpot's own says it; the outcome counts where a completed task was dismissed, and where HubSpot's own was never
    touched and the outcome was.

    >>> status_of("COMPLETED", "dismissed"), status_of("IN_PROGRESS", "dismissed"), status_of("NOT_STARTED", "")
    ('dismissed', 'in_progress', 'open')
    """
    status = _READ_STATUS[theirs]
    if (status, outcome) == ("completed", "dismissed") or (status == "open" and outcome):
        return outcome
    return status


def remote(row: Mapping[str, Any], owner: Callable[[str], str], user: Callable[[str], str],
           zone: dt.tzinfo) -> Remote:
    """A task as HubSpot told it.

    Args:
        row: A row of a reply.
        owner: An owner's e-mail address by HubSpot's id.
        user: The same by the id of a user.
        zone: The portal's time zone: there a due date is a day.
    """
    said = {name: str(value) for name, value in (row.get("properties") or {}).items() if value not in (None, "")}
    key, number = said.get(KEY, ""), str(row.get("id", ""))
    when = said.get(MODIFIED) or str(row.get("updatedAt") or "")
    try:
        theirs = _known(said, "hs_task_status", tuple(_READ_STATUS)) or "NOT_STARTED"
        outcome, disposition = _known(said, "churnkit_status", STATES), _known(said, "churnkit_disposition", WORDS)
        due = moment(said["hs_timestamp"]).astimezone(zone).date() if "hs_timestamp" in said else None
        modified = moment(when)
    except ValueError as wrong:
        return Remote(key, number, when, problem=f"HubSpot's task {number} (key {key}): {wrong}")
    return Remote(
        key, number, when, content_hash=said.get("churnkit_hash"), status=status_of(theirs, outcome),
        disposition=disposition or None, note=said.get("churnkit_note"),
        owner=owner(said["hubspot_owner_id"]) if "hubspot_owner_id" in said else None, due=due, modified_at=modified,
        by=user(said["hs_updated_by_user_id"]) if "hs_updated_by_user_id" in said else None,
        content=_read_content(said.get("churnkit_content"), key))


def _known(said: Mapping[str, str], name: str, words: tuple[str, ...]) -> str:
    """One of a fixed list's words, or nothing."""
    word = said.get(name, "")
    if word and word not in words:
        raise ValueError(f"its {name} '{word[:60]}' is not known. Use one of: {', '.join(words)}.")
    return word


def moment(text: str) -> dt.datetime:
    """A moment as HubSpot writes it: ISO, or milliseconds since 1970.

    >>> moment("2026-11-01T06:00:00.123Z") == moment("1793512800123")
    True
    """
    try:
        if text.isascii() and text.isdigit():
            return dt.datetime.fromtimestamp(int(text) / 1000, dt.UTC)
        found = dt.datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"'{text[:40]}' is no moment.") from None
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


def millis(when: dt.datetime) -> int:
    """A moment in whole milliseconds since 1970, which no rounding moves.

    >>> millis(moment("2026-11-01T06:00:00.123Z"))
    1793512800123
    """
    return (when - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(milliseconds=1)


def ticks(row: Mapping[str, Any]) -> int:
    """When a row was changed, in HubSpot's own milliseconds.

    Raises:
        CrmDownError: If the reply does not say it.
    """
    said = (row.get("properties") or {}).get(MODIFIED) or row.get("updatedAt") or ""
    try:
        return millis(moment(str(said)))
    except ValueError:
        raise CrmDownError("HubSpot's reply does not say when a task was changed.") from None


def _content(task: Task) -> str:
    """The task as JSON of plain ASCII, in which no browser finds a tag; empty where it is longer than allowed.

    Without it the task is as good as any, and only a ledger that was lost cannot be made anew from it.
    """
    kept = {name: value for name, value in task.to_dict().items() if name not in LOCAL | THEIRS | {"ghost"}}
    text = json.dumps(kept, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text if len(text) <= MOST_TEXT else ""


def _read_content(text: str | None, key: str) -> Mapping[str, Any] | None:
    """The copy, where nobody has spoilt it."""
    try:
        found = json.loads(text or "null")
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("key") == key else None
