"""Any consumer as a CRM: one signed message per task, and its answers out of the store that the receiver fills."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import random
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from churnkit.outreach.crm.base import (
    Capabilities,
    CrmDeniedError,
    CrmDownError,
    Item,
    Page,
    Portal,
    Rate,
    Remote,
    Result,
)
from churnkit.outreach.crm.inbox import Answer, Endpoint, Inbox, inbox
from churnkit.outreach.crm.mapping import Mapped, mapped
from churnkit.outreach.crm.options import number, refuse_unknown, whole
from churnkit.outreach.crm.posting import DENIED, Line, Message, Said, address
from churnkit.outreach.crm.signed import Keys, keys
from churnkit.outreach.crm.words import plain
from churnkit.outreach.task import LOCAL, THEIRS

PAYLOAD = 20_000
"""Bytes that a message may have."""
_FRAME = 200
"""Bytes of it that are not the task's."""
TIMEOUT = 20.0
SCHEDULE = (5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600)
"""Seconds that an endpoint is left alone after the first, second, ... failure in a row."""
_OPTIONS = ("url", "timeout", "inbox", "requests", "seconds", "mapping")
_OURS = LOCAL | {"approval", "ghost", "snoozed_until"}
"""What no message holds: it is nobody's there."""
_FIRST = THEIRS | {"owner", "due"}
"""What churnkit says once, when the task is new; from then on it is people's."""


class WebhookCrm:
    """One POST per task; docs/webhook.md is the contract that the consumer keeps.

    A message that comes twice is one to it, so what is in doubt is sent again and never looked up. Answers are read
    from the inbox, into which `churnkit crm receive` puts them.

    Args:
        url: The consumer's address.
        signing: The keys.
        store: The inbox; it also keeps what was sent last, and how the endpoint fares.
        timeout: Seconds to wait for the connection, and for the reply.
        rate: Requests that the consumer takes.
        names: The workspace's mapping table: what is in it goes along as the consumer's own ids.
    """

    name = "webhook"

    def __init__(self, url: str, signing: Keys, store: Inbox, *, timeout: float = TIMEOUT, rate: Rate | None = None,
                 names: Mapped | None = None) -> None:
        self._line = Line(url, signing, timeout)
        self.host = self._line.host
        self.capabilities = Capabilities(
            unique_keys=True, upsert=True, returns_ids=False, finds=False, batch=20, page=500,
            resolution=dt.timedelta(microseconds=1), rate=rate or Rate(10, 1.0))
        self.spend: Callable[[], None] = lambda: None
        self.now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)
        self.schedule: Sequence[float] = SCHEDULE
        self._store, self._names = store, names or Mapped()
        self._endpoint = hashlib.sha256(url.encode()).hexdigest()[:16]

    def check(self, *, mend: bool = False) -> Portal:
        """The consumer's host, without a message to it; with `mend` a ping, whose success enables the endpoint again.

        Raises:
            CrmDownError: If the inbox cannot be opened, or the ping was not taken.
        """
        self._store.lay()
        portal = Portal(f"webhook {self.host}", self.host)
        if not mend:
            return portal
        self.spend()
        said = self._fares(self._line.post(_fresh("ping", self.now(), {}), self.now()))
        if said.state not in {"written", "gone"}:
            raise said.error()
        return replace(portal, made=(f"{self.host} took a signed ping.",))

    def find(self, keys: Sequence[str]) -> Mapping[str, Remote]:  # noqa: ARG002 - a consumer cannot be asked
        """Nothing: a consumer cannot be asked what it holds."""
        return {}

    def write(self, items: Sequence[Item]) -> Sequence[Result]:
        """Sends each task as a message; after the first that does not go through, the others are for later.

        Raises:
            CrmDownError: If the endpoint is to be left alone, or the first message did not reach it.
            CrmDeniedError: If it is disabled, or refuses every message.
        """
        self._refuse_early()
        messages, results = self._messages(items), list[Result]()
        for place, (item, message) in enumerate(zip(items, messages, strict=True)):
            key = item.task.key
            try:
                said = self._send(message)
            except CrmDownError as down:  # the budget is spent, or the store is full
                if not results:
                    raise
                said = Said("down", str(down))
            if said.state in {"written", "gone", "refused"}:
                remote = Remote(key, said.remote_id or item.remote_id or key, "", item.content_hash)
                results.append(Result(key, said.state, remote, said.why))
                continue
            if said.state != "unsure" and not results:
                raise said.error()
            results.append(Result(key, "doubt" if said.state == "unsure" else "again", why=said.why))
            results += [Result(left.task.key, "unsent", why=said.why) for left in items[place + 1:]]
            break
        return results

    def changes(self, since: str | None) -> Iterator[Page]:
        """The answers beyond a number of the inbox, in the order in which they came."""
        after = int(since) if since and since.isascii() and since.isdigit() else 0
        while found := self._store.answers(after, self.capabilities.page):
            after = found[-1][0]
            yield Page([self._remote(number, answer) for number, answer in found], str(after))

    def remove(self, remote_ids: Sequence[str]) -> None:
        """Asks the consumer to take tasks away.

        Raises:
            CrmDownError: If one of the messages was not taken.
        """
        for remote_id in remote_ids:
            self.spend()
            message = _fresh("task.removed", self.now(), {"remote_id": remote_id})
            said = self._fares(self._line.post(message, self.now()))
            if said.state not in {"written", "gone"}:
                raise said.error()

    def close(self) -> None:
        """Lets the connection go."""
        self._line.close()

    def _refuse_early(self) -> None:
        endpoint, now = self._store.endpoint(self._endpoint), self.now()
        if endpoint.disabled:
            raise CrmDeniedError(f"{self.host} {DENIED[410]}. It is since {endpoint.disabled[:19]}.")
        wait = (dt.datetime.fromisoformat(endpoint.not_before) - now).total_seconds() if endpoint.not_before else 0.0
        if wait > 0:
            raise CrmDownError(f"{self.host} failed {endpoint.failures} times in a row, or asked for time: it is left "
                               f"alone until {endpoint.not_before[:19]}.", wait=wait)

    def _fares(self, said: Said) -> Said:
        """Keeps how the endpoint fares, where that is news; returns what was said, with the time that it needs now."""
        before, now = self._store.endpoint(self._endpoint), self.now()
        wait = said.wait
        if said.state in {"written", "gone", "refused"}:
            after = Endpoint()
        elif said.state == "denied":
            after = replace(before, disabled=before.disabled or (_iso(now) if said.disabled else ""))
        elif wait is not None:
            after = replace(before, not_before=_iso(now + dt.timedelta(seconds=wait)))
        elif not self.schedule:
            after = before
        else:
            place = min(before.failures, len(self.schedule) - 1)
            wait = self.schedule[place] * random.uniform(1, 1.25)  # noqa: S311 -- spreads retries, hides nothing
            after = Endpoint(before.failures + 1, _iso(now + dt.timedelta(seconds=wait)), before.disabled)
        if after != before:
            self._store.keep_endpoint(self._endpoint, after)
        return replace(said, wait=wait)

    def _messages(self, items: Sequence[Item]) -> list[Message]:
        """Each item's message.

        Its id and its body are the same for as long as this is what there is to say of the task, and that is kept
        before it goes out: a repetition is one, whatever happens to this process.
        """
        said = [(_kind(item), self._data(item)) for item in items]
        digests = {item.task.key: _hash(kind, data) for item, (kind, data) in zip(items, said, strict=True)}
        moments = self._store.occasions(digests, self.now())
        return [Message(f"msg_{_hash(key, digests[key], moments[key])[:40]}", _body(kind, moments[key], data))
                for key, (kind, data) in zip(digests, said, strict=True)]

    def _data(self, item: Item) -> dict[str, Any]:
        """What a message says of a task."""
        task, names = item.task, self._names
        theirs = frozenset({"disposition"}) if _kind(item) == "task.created" else _FIRST
        told = {name: _clean(value) for name, value in task.to_dict().items() if name not in _OURS | theirs}
        ids = {"account": names.get("account", task.account_id), "owner": names.get("owner", task.owner),
               "contact": names.get("contact", task.contact_id) if task.contact_id else None}
        told |= {"content_hash": item.content_hash, "remote_id": item.remote_id,
                 "crm_ids": {kind: crm_id for kind, crm_id in ids.items() if crm_id}}
        return _fitting({**told, "note": plain(item.closing, 2000)} if item.closing else told)

    def _send(self, message: Message) -> Said:
        """Sends one, when the budget allows it."""
        if len(message.body) > PAYLOAD:
            return Said("refused", f"the message has more than {PAYLOAD} bytes even with its text cut: the task names "
                                    "too many assets, or its title is too long")
        self.spend()
        return self._fares(self._line.post(message, self.now()))

    def _remote(self, number: int, answer: Answer) -> Remote:
        """An answer as what the consumer holds; an owner's id of its own is told as the address that stands for it."""
        owner = self._names.owner_of(answer.owner) if answer.owner else None
        return Remote(
            answer.key, answer.key, str(number), status=answer.status, disposition=answer.disposition, note=answer.note,
            owner=owner or answer.owner, due=answer.due, modified_at=answer.modified_at, by=answer.by,
            deleted=answer.deleted)


def connect(options: Mapping[str, str], root: Path) -> WebhookCrm:
    """A consumer as CRM.

    `url` is its address, https unless it is on this machine; `timeout` seconds are waited for a reply; `requests` in
    `seconds` are sent at most; `inbox` is the receiver's store, `mapping` the table of ids.

    Raises:
        SettingsError: If an option is unknown or wrong, or the signing key is missing.
    """
    refuse_unknown(options, _OPTIONS, "the webhook CRM")
    rate = Rate(whole(options, "requests", 10, 1, 1000), number(options, "seconds", 1, 0.1, 3600))
    return WebhookCrm(address(options.get("url", "")), keys(), inbox(options, root), rate=rate,
                      timeout=number(options, "timeout", TIMEOUT, 0.1, 60), names=mapped(options, root))


def _kind(item: Item) -> str:
    if item.closing:
        return "task.closed"
    return "task.created" if item.remote_id is None else "task.updated"


def _clean(value: Any) -> Any:
    if isinstance(value, list):
        return [plain(one) for one in value]
    return plain(value) if isinstance(value, str) else value


def _fitting(data: dict[str, Any]) -> dict[str, Any]:
    """The same with its text cut so that the message is small enough, and `cut` says so."""
    room = PAYLOAD - _FRAME - len(_json({**data, "body": ""}))
    text, most = data["body"], len(data["body"])
    while (size := len(_json(text))) > room and most > 100:
        most = max(100, min(int(most * room / size), most - 1))
        text = plain(data["body"], most)
    return data if text == data["body"] else {**data, "body": text, "cut": ["body"]}


def _body(kind: str, at: str, data: Mapping[str, Any]) -> bytes:
    return _json({"type": kind, "timestamp": at, "data": data})


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _iso(at: dt.datetime) -> str:
    return at.astimezone(dt.UTC).isoformat(timespec="microseconds")


def _fresh(kind: str, at: dt.datetime, data: Mapping[str, Any]) -> Message:
    """A message that is never repeated."""
    return Message(f"msg_{uuid.uuid4().hex}", _body(kind, _iso(at), data))
