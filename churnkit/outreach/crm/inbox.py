"""The webhook's own store: what consumers answered, what was sent to them, and how their endpoint fares."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from churnkit.errors import OutreachError
from churnkit.outreach.crm.base import CrmDownError
from churnkit.outreach.crm.words import plain
from churnkit.outreach.task import CLOSED, DISPOSITIONS

FILE = "state/webhook_inbox.db"
KEPT = dt.timedelta(days=40)
"""How long the ids of messages are kept: a sender that tries for a month is still recognised."""
AHEAD = dt.timedelta(days=1)
"""An answer from further ahead is refused: it would outlive every true one."""
NOTE = 4000
"""Signs of a note that are kept."""
_STATES = ("open", "in_progress", "snoozed", *CLOSED)
_WORDS = {word for words in DISPOSITIONS.values() for word in words}
_FIELDS = ("key", "status", "disposition", "note", "owner", "due", "by", "modified_at", "deleted")
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, data TEXT NOT NULL,
    received_at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS ids (message_id TEXT PRIMARY KEY, digest TEXT NOT NULL, received_at TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS ids_received ON ids (received_at);
CREATE TABLE IF NOT EXISTS newest (key TEXT PRIMARY KEY, modified_at TEXT NOT NULL, closed INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS sent (key TEXT PRIMARY KEY, digest TEXT NOT NULL, made_at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class MessageError(OutreachError):
    """A message that is signed and yet cannot be taken; `status` is the reply's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Answer:
    """What a consumer says of a task: all that people own in it, as it stood at `modified_at`."""

    key: str
    status: str
    modified_at: dt.datetime
    disposition: str | None = None
    note: str | None = None
    owner: str | None = None
    due: dt.date | None = None
    by: str | None = None
    deleted: bool = False

    @property
    def closed(self) -> bool:
        """Whether nobody is to act any more."""
        return self.deleted or self.status in CLOSED


@dataclass(frozen=True)
class Endpoint:
    """How an endpoint fares: failures in a row, when it may be asked again, and since when it is disabled."""

    failures: int = 0
    not_before: str = ""
    disabled: str = ""


class Inbox:
    """One SQLite file for receivers, which write into it, and syncs, which read it; any number of each at once."""

    def __init__(self, path: Path) -> None:
        self.path, self._laid = path, False

    def take(self, message_id: str, body: bytes, now: dt.datetime) -> Literal["new", "repeated", "older", "poke"]:
        """Keeps a message that is known to be genuine; when this returns, it is on the disk.

        One whose id was taken before changes nothing, nor does an answer that is older than what was taken for its key.
        Of two of one moment, the later one counts, but it does not open what the other closed.

        Raises:
            MessageError: If it is no message of the contract, or its id was another one's.
            CrmDownError: If the store cannot be written.
        """
        answer, digest, when = read(body, now), hashlib.sha256(body).hexdigest(), _stamp(now)
        with self._writing() as store:
            known = store.execute("SELECT digest FROM ids WHERE message_id = ?", (message_id,)).fetchone()
            if known is not None and known[0] != digest:
                raise MessageError("this webhook-id was another message's: give each message its own.", 409)
            if known is not None:
                return "repeated"
            store.execute("DELETE FROM ids WHERE received_at < ?", (_stamp(now - KEPT),))
            store.execute("INSERT INTO ids VALUES (?, ?, ?)", (message_id, digest, when))
            _note(store, "poked", "1")
            if answer is None:
                return "poke"
            return _keep(store, answer, when)

    def answers(self, after: int, most: int) -> list[tuple[int, Answer]]:
        """Answers with their numbers, in the order in which they came, from beyond a number on."""
        with self._reading() as store:
            rows = store.execute("SELECT id, data FROM answers WHERE id > ? ORDER BY id LIMIT ?", (after, most))
            return [(row[0], _answer(json.loads(row[1]))) for row in rows.fetchall()]

    def poked(self) -> bool:
        """Whether anything came since this was asked the last time."""
        with self._writing() as store:
            return store.execute("DELETE FROM notes WHERE name = 'poked'").rowcount > 0

    def occasions(self, digests: Mapping[str, str], now: dt.datetime) -> dict[str, str]:
        """By key, the moment at which this content first went out; `digests` are hashes of what is to be sent.

        What was the last thing sent keeps its moment, however often it is sent. Anything else gets one of its own,
        later than the last: an update that goes back to what was there once is no repetition.
        """
        moments = {}
        with self._writing() as store:
            for key, digest in digests.items():
                row = store.execute("SELECT digest, made_at FROM sent WHERE key = ?", (key,)).fetchone()
                if row is None or row[0] != digest:
                    after = dt.datetime.fromisoformat(row[1]) + dt.timedelta(microseconds=1) if row else now
                    row = (digest, _stamp(max(now, after)))
                    store.execute("INSERT OR REPLACE INTO sent VALUES (?, ?, ?)", (key, *row))
                moments[key] = row[1]
        return moments

    def endpoint(self, name: str) -> Endpoint:
        """How an endpoint fares."""
        with self._reading() as store:
            row = store.execute("SELECT value FROM notes WHERE name = ?", (f"endpoint:{name}",)).fetchone()
        return Endpoint(**json.loads(row[0])) if row else Endpoint()

    def keep_endpoint(self, name: str, state: Endpoint) -> None:
        """The same, for the next run."""
        with self._writing() as store:
            _note(store, f"endpoint:{name}", json.dumps(asdict(state)))

    def lay(self) -> None:
        """Makes the file where it is missing, for this user's eyes alone.

        Raises:
            CrmDownError: If it cannot be made.
        """
        if self._laid and self.path.exists():
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise CrmDownError(f"The webhook's store '{self.path}' cannot be made ({error.strerror}). Make its folder "
                               "writable, or name another: [crm_options] inbox = '...'.") from None
        with self._open() as store:
            if store.execute("PRAGMA user_version").fetchone()[0] == 0:
                store.execute("PRAGMA journal_mode = WAL")
                store.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = 1; COMMIT;")
        self._laid = True

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction of one writer; it is kept whole or not at all."""
        self.lay()
        with self._open() as store:
            store.execute("BEGIN IMMEDIATE")
            try:
                yield store
            except BaseException:
                if store.in_transaction:
                    store.execute("ROLLBACK")
                raise
            store.execute("COMMIT")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        self.lay()
        with self._open() as store:
            yield store

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=30, isolation_level=None)) as store:
                store.execute("PRAGMA synchronous = FULL")  # a reply of 2xx promises that the message outlives a crash
                yield store
        except sqlite3.Error as error:
            raise CrmDownError(f"The webhook's store '{self.path}' cannot be used ({error}). See that the disk has "
                               "room, that it may be written, and that the file is that store.") from None


def read(body: bytes, now: dt.datetime) -> Answer | None:
    """A message's answer, or None where it only pokes.

    Raises:
        MessageError: 400 where it is no JSON, 422 where it says what the contract does not know.
    """
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        raise MessageError("the body is no JSON.", 400) from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise MessageError('the body is no message: {"type": ..., "timestamp": ..., "data": {...}}.', 400)
    if message["type"] != "task.answered":
        return None
    data = message.get("data")
    if not isinstance(data, dict):
        raise MessageError("'data' is no object.", 422)
    unknown = sorted(set(data) - set(_FIELDS))
    if unknown:
        raise MessageError(f"data.{plain(unknown[0], 40)} is not known. Known: {', '.join(_FIELDS)}.", 422)
    answer = _answer(data)
    if answer.modified_at > now + AHEAD:
        raise MessageError("data.modified_at lies ahead: set the sender's clock.", 422)
    return answer


def _answer(data: Mapping[str, Any]) -> Answer:
    key, status, disposition = (_text(data, name, 64) for name in ("key", "status", "disposition"))
    if not key or not set(key) <= set("0123456789abcdef"):
        raise MessageError("data.key is no task's key: at most 64 hexadecimal digits, in lower case.", 422)
    if status not in _STATES:
        raise MessageError(f"data.status is not known. Use one of: {', '.join(_STATES)}.", 422)
    if disposition is not None and disposition not in _WORDS:
        raise MessageError(f"data.disposition is not known. Use one of: {', '.join(sorted(_WORDS))}.", 422)
    if not isinstance(data.get("deleted") or False, bool):
        raise MessageError("data.deleted is neither true nor false.", 422)
    return Answer(key, status, _moment(data), disposition, _text(data, "note", NOTE, cut=True),
                  _text(data, "owner", 254), _day(data), _text(data, "by", 254), deleted=bool(data.get("deleted")))


def _text(data: Mapping[str, Any], name: str, most: int, *, cut: bool = False) -> str | None:
    value = data.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or (len(value) > most and not cut):
        raise MessageError(f"data.{name} is no text of at most {most} signs.", 422)
    return plain(value, most) or None


def _moment(data: Mapping[str, Any]) -> dt.datetime:
    try:
        at = dt.datetime.fromisoformat(data.get("modified_at"))  # type: ignore[arg-type] # what is no text is refused
        if at.tzinfo is not None:
            return at.astimezone(dt.UTC)
    except (TypeError, ValueError, OverflowError):
        pass
    raise MessageError("data.modified_at is no moment with an offset, such as 2026-11-30T09:15:00.123456+00:00.", 422)


def _day(data: Mapping[str, Any]) -> dt.date | None:
    try:
        return dt.date.fromisoformat(data["due"]) if data.get("due") else None
    except (TypeError, ValueError):
        raise MessageError("data.due is no date, such as 2026-11-30.", 422) from None


def _keep(store: sqlite3.Connection, answer: Answer, when: str) -> Literal["new", "older"]:
    at = _stamp(answer.modified_at)
    before = store.execute("SELECT modified_at, closed FROM newest WHERE key = ?", (answer.key,)).fetchone()
    if before is not None and (at < before[0] or (at == before[0] and before[1] and not answer.closed)):
        return "older"
    store.execute("INSERT OR REPLACE INTO newest VALUES (?, ?, ?)", (answer.key, at, answer.closed))
    data = {**asdict(answer), "modified_at": at, "due": answer.due.isoformat() if answer.due else None}
    store.execute("INSERT INTO answers (key, data, received_at) VALUES (?, ?, ?)",
                  (answer.key, json.dumps(data), when))
    return "new"


def _note(store: sqlite3.Connection, name: str, value: str) -> None:
    store.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, value))


def _stamp(at: dt.datetime) -> str:
    """UTC with microseconds: sorts as text."""
    return at.astimezone(dt.UTC).isoformat(timespec="microseconds")


def inbox(options: Mapping[str, str], root: Path) -> Inbox:
    """The workspace's store: `[crm_options] inbox`, by default state/webhook_inbox.db."""
    return Inbox(root / options.get("inbox", FILE))
