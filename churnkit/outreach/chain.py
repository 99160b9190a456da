"""The audit: rows chained by their hashes, and what they alone say of any task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from churnkit.errors import OutreachError
from churnkit.outreach.ledger import audit, note, noted, tasks
from churnkit.outreach.life import NOWHERE, Standing, Who, may, refusal
from churnkit.outreach.task import CLOSED, Task

FIRST = "0" * 64
"""What stands for the hash before the first row."""
HEAD = "audit"
"""The note that holds the newest row's number and hash, so that a row taken off the end is missed."""
WHO: Mapping[str, Who] = {
    "put": "churnkit", "change": "churnkit", "close": "churnkit", "wake": "churnkit", "withheld": "churnkit",
    "left": "churnkit", "outcome": "person", "approve": "person", "reject": "person", "snooze": "person",
    "edit": "person", "retry": "person", "repair": "person"}
"""what = whose hand; all other rows that name a task are marks of the sync."""


def record(connection: sa.Connection, at: str, actor: str, what: str, rows: list[dict[str, Any]]) -> None:
    """Appends audit rows, each `{key, before, after}` and perhaps a `what` of its own, to the chain."""
    if not rows:
        return
    last = connection.execute(sa.select(audit.c.seq, audit.c.hash).order_by(audit.c.seq.desc()).limit(1)).first()
    seq, previous = (last.seq, last.hash) if last else (0, FIRST)
    made = []
    for seq_, row in enumerate(rows, start=seq + 1):
        entry = {"seq": seq_, "at": at, "actor": actor, "what": row.get("what", what), "key": row.get("key"),
                 "before": _json(row.get("before")), "after": _json(row.get("after")), "previous": previous}
        previous = entry["hash"] = digest(entry)
        made.append(entry)
    connection.execute(audit.insert(), made)
    note(connection, HEAD, f"{made[-1]['seq']}:{previous}")


def digest(entry: Mapping[str, Any]) -> str:
    """The hash of an audit row, its own hash left out."""
    return hashlib.sha256(_json({key: value for key, value in entry.items() if key != "hash"}).encode()).hexdigest()


def walk(connection: sa.Connection, batch: int = 500) -> Iterator[dict[str, Any]]:
    """Every row in order, `before` and `after` as plain values, each held against the chain.

    Raises:
        OutreachError: At the first row that was changed, removed, moved or slipped in: names it.
    """
    previous, count = FIRST, 0
    query = sa.select(audit).order_by(audit.c.seq).execution_options(yield_per=batch)
    with connection.execute(query) as rows:
        for row in rows.mappings():
            count += 1
            if row["seq"] != count:
                raise _broken(count, "it is missing" if row["seq"] > count else "a row was slipped in before it")
            if row["hash"] != digest(dict(row)):
                raise _broken(count, f"what it says ({row['what']} of {row['key'] or 'no task'} by {row['actor']}) is "
                              "not what was written: it was changed, or moved there")
            if row["previous"] != previous:
                raise _broken(count, "it does not follow the row before it: one was removed, changed or slipped in")
            previous = row["hash"]
            yield {**row, "before": json.loads(row["before"]), "after": json.loads(row["after"])}
    head = noted(connection, HEAD)
    if head is not None and head != f"{count}:{previous}":
        written = int(head.partition(":")[0])
        raise _broken(max(count, written), "it was taken off the end" if written > count else
                      "it was put at the end by something else than churnkit")


def verify(connection: sa.Connection) -> int:
    """`Outbox.verify_audit` inside a transaction."""
    return sum(1 for _ in walk(connection))


@dataclass
class Retold:
    """A task as the audit's rows tell it; `steps` are its stages, `unlawful` those that the table of life forbids."""

    key: str
    planned: dict[str, Any]
    run: str | None
    content: dict[str, Any]
    facts: dict[str, Any]
    there: bool = False
    sending: str | None = None
    closed_by: str | None = None
    steps: list[tuple[int, str]] = field(default_factory=list)
    unlawful: list[str] = field(default_factory=list)

    @property
    def standing(self) -> Standing:
        """What decides its stage."""
        return Standing(self.facts["status"], bool(self.content.get("ghost")), self.facts["approval"], self.there,
                        self.sending, self.closed_by)

    def task(self) -> Task:
        """The task as it stands by these rows."""
        told = {name: value for name, value in self.facts.items() if name in _OF_TASK}
        return Task.from_dict({**self.content, **told})


_OF_TASK = ("status", "disposition", "owner", "due", "approval", "snoozed_until")
FACTS = (*_OF_TASK, "note", "snooze_reason")
"""What moves in a task's row besides churnkit's content."""


def retell(rows: Iterable[Mapping[str, Any]], known: dict[str, Retold] | None = None) -> dict[str, Retold]:
    """Every task from the audit's rows alone, in their order.

    Args:
        rows: Of `walk`, or some of them.
        known: What earlier rows told; it is carried on.
    """
    told = {} if known is None else known
    for row in rows:
        key, what, after = row["key"], row["what"], row["after"]
        if key is None:
            continue
        if what == "put":
            content = {name: value for name, value in after.items() if name != "run"}
            facts = {name: content.get(name) for name in FACTS} | {"approval": content.get("approval", "none")}
            told[key] = one = Retold(key, content, after.get("run"), content, facts)
            one.sending = None if content.get("ghost") or facts["approval"] == "pending" else "pending"
            was = NOWHERE
        elif key not in told:
            told[key] = Retold(key, {}, None, {}, dict.fromkeys(FACTS, "") | {"status": "open", "approval": "none"},
                               unlawful=[f"row {row['seq']}: '{what}' of a task that no row planned"])
            continue
        else:
            one = told[key]
            was = one.standing
            _follow(one, what, after)
            if was.stage != one.standing.stage:
                one.closed_by = row["actor"] if WHO.get(what) == "person" else "churnkit"
        now = one.standing
        if not may(was, now, WHO.get(what, "crm")):
            one.unlawful.append(f"row {row['seq']}: {refusal(key, was.stage, now.stage)}")
        if was.stage != now.stage:
            one.steps.append((row["seq"], now.stage))
    return told


def differences(connection: sa.Connection, told: Mapping[str, Retold]) -> dict[str, list[str]]:
    """Where the ledger is not what the audit tells: key = sentences. An empty mapping is the good answer."""
    wrong: dict[str, list[str]] = {}
    seen: set[str] = set()
    query = sa.select(tasks).order_by(tasks.c.key).execution_options(yield_per=500)
    with connection.execute(query) as rows:
        for row in rows:
            seen.add(row.key)
            if row.key not in told:
                wrong[row.key] = ["it is in the ledger, and no audit row ever planned it"]
            elif found := _differs(row, told[row.key]):
                wrong[row.key] = found
    for key in sorted(set(told) - seen):
        wrong[key] = ["the audit tells of it, and the ledger does not hold it"]
    return wrong


def _follow(one: Retold, what: str, after: Mapping[str, Any]) -> None:
    """What one row does to a task."""
    if what == "change":
        one.content = dict(after)
        if not one.content.get("ghost") and one.facts["approval"] != "pending":
            one.sending = "pending"
    elif what == "edit":
        one.facts |= {name: after[name] for name in ("owner", "due")}
    elif what in {"outcome", "reject", "close", "snooze", "wake", "approve"}:
        one.facts |= {name: value for name, value in after.items() if name in FACTS}
        if what == "approve":
            one.sending = "pending"
        if one.facts["status"] != "snoozed":
            one.facts |= {"snoozed_until": None, "snooze_reason": None}
    elif what in {"retry", "repair"}:
        one.sending = "pending"
        one.there = one.there and what != "repair"
    elif what != "left":
        _mark(one, what, after)


def _mark(one: Retold, what: str, after: Mapping[str, Any]) -> None:
    """What a row of the sync does: the outbox row's state, whether the CRM holds it, and what was not sent at all."""
    why = after.get("why") or ""
    withheld = what == "withheld" or (what == "dead" and why.startswith("not sent"))
    one.sending = "dead" if withheld else what
    one.there = one.there or what == "confirmed" or (what == "pending" and why == "found in the CRM")
    if withheld and one.facts["status"] not in CLOSED:
        one.facts |= {"status": "dismissed", "note": why, "snoozed_until": None, "snooze_reason": None}


def _differs(row: Any, one: Retold) -> list[str]:
    held = {name: getattr(row, name) for name in FACTS}
    found = [f"{name} is {held[name]!r} in the ledger and {one.facts[name]!r} by the audit" for name in FACTS
             if held[name] != one.facts[name]]
    content = json.loads(row.content)
    names = sorted(name for name in {*content, *one.content} if content.get(name) != one.content.get(name))
    found += [f"its content differs from the audit's in {name}" for name in names]
    if not names and row.content_hash != Task.from_dict(content).content_hash():
        found.append("its content has not the hash that the ledger holds")
    if row.ghost != bool(one.content.get("ghost")):
        found.append("whether it is a ghost differs from the audit")
    return [*found, *one.unlawful]


def _broken(row: int, how: str) -> OutreachError:
    return OutreachError(f"The audit's chain is broken at row {row}: {how}. Restore the outbox from a backup and "
                         "compare.")


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
