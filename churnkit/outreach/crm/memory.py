"""A CRM in memory, with faults on demand: what the sync's tests run against."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from churnkit.outreach.crm.base import (
    Capabilities,
    CrmDownError,
    CrmRefusedError,
    CrmUnsureError,
    Item,
    Page,
    Portal,
    Remote,
    Result,
)
from churnkit.outreach.crm.words import plain

FAULTS = ("down", "quota", "dropped", "lost", "half")
"""down: refused before the write; quota: the same for today; dropped: unsure, nothing written; lost: written, but the
reply was lost; half: half of the batch written, reply lost."""


@dataclass
class MemoryCrm:
    """Tasks by id: without `unique_keys` a careless second create makes a second task, as a weak CRM would.

    `faults` are used up one per write call; `poison` are keys that are refused for good, row by row, or, with
    `poison_fails_batch`, by failing the whole call. `writes` counts the rows written by key.
    """

    capabilities: Capabilities = field(default_factory=Capabilities)
    faults: list[str] = field(default_factory=list)
    poison: set[str] = field(default_factory=set)
    poison_fails_batch: bool = False
    name: str = "memory"
    portal: str = ""
    held: dict[str, Remote] = field(default_factory=dict)
    ids: dict[str, list[str]] = field(default_factory=dict)
    contents: dict[str, dict[str, Any]] = field(default_factory=dict)
    bodies: dict[str, str] = field(default_factory=dict)
    writes: Counter[str] = field(default_factory=Counter)
    before_write: Callable[[], None] | None = None
    spend: Callable[[], None] = lambda: None
    made: int = 0

    @property
    def tasks(self) -> list[Remote]:
        """All that is there, in the order in which it came."""
        return list(self.held.values())

    def check(self, *, mend: bool = False) -> Portal:  # noqa: ARG002 - nothing to mend
        """Says that it is in memory."""
        self.spend()
        return Portal("memory", self.portal)

    def find(self, keys: Sequence[str]) -> Mapping[str, Remote]:
        """The tasks of these keys."""
        self.spend()
        return self._find(keys)

    def write(self, items: Sequence[Item]) -> Sequence[Result]:
        """Adds or changes tasks."""
        return self._call(items, self._add if items[0].remote_id is None else self._set)

    def changes(self, since: str | None) -> Iterator[Page]:
        """All of them, always: repeating is allowed."""
        self.spend()
        tasks, page = self.tasks, self.capabilities.page
        for start in range(0, len(tasks), page):
            yield Page(tasks[start:start + page], since)

    def remove(self, remote_ids: Sequence[str]) -> None:
        """Takes tasks away."""
        self.spend()
        for remote_id in remote_ids:
            if (task := self.held.pop(remote_id, None)) is not None:
                self.ids[task.key].remove(remote_id)

    def close(self) -> None:
        """Nothing to do."""

    def person(self, key: str, at: dt.datetime, **changes: object) -> None:
        """A person changes a task."""
        self._replace(key, modified_at=at, by="ann", **changes)

    def _find(self, keys: Sequence[str]) -> dict[str, Remote]:
        return {key: self.held[self.ids[key][0]] for key in keys if self.ids.get(key)}

    def _call(self, items: Sequence[Item], write: Callable[[Item], Remote]) -> Sequence[Result]:
        self.spend()
        if self.before_write:
            self.before_write()
        fault = self.faults.pop(0) if self.faults else ""
        if fault in {"down", "quota"}:
            raise CrmDownError("the CRM is down", wait=0.0, today=fault == "down")
        if fault == "dropped":
            raise CrmUnsureError("the line dropped")
        if self.poison_fails_batch and any(item.task.key in self.poison for item in items):
            raise CrmRefusedError("one of the rows is not valid")
        gone = {item.task.key for item in items if item.remote_id is not None and not self.ids.get(item.task.key)}
        some = items[: len(items) // 2] if fault == "half" else items
        results = [Result(item.task.key, "refused", why="not valid") if item.task.key in self.poison
                   else Result(item.task.key, "gone", why="a person deleted it") if item.task.key in gone
                   else Result(item.task.key, "written", write(item)) for item in some]
        if fault in {"lost", "half"}:
            raise CrmUnsureError("no reply")
        return results

    def _add(self, item: Item) -> Remote:
        key = item.task.key
        if self.capabilities.unique_keys and self.ids.get(key):
            return self._set(item)
        remote_id = f"r{self.made + 1}"
        self.made += 1
        self._wrote(item)
        self.held[remote_id] = Remote(key, remote_id, "1", item.content_hash, owner=item.task.owner, due=item.task.due,
                                      content=self.contents[key])
        self.ids.setdefault(key, []).append(remote_id)
        if item.closing:
            self._replace(key, status="dismissed", note=item.closing, by="churnkit")
        return self.held[remote_id] if self.capabilities.returns_ids else replace(self.held[remote_id], remote_id="")

    def _set(self, item: Item) -> Remote:
        self._wrote(item)
        remote = self._replace(item.task.key, content_hash=item.content_hash, content=self.contents[item.task.key])
        if item.closing and remote.status == "open":
            remote = self._replace(item.task.key, status="dismissed", note=item.closing, by="churnkit")
        return remote

    def _wrote(self, item: Item) -> None:
        self.writes[item.task.key] += 1
        self.bodies[item.task.key] = plain(item.task.body)
        self.contents[item.task.key] = {**item.task.to_dict(), "title": plain(item.task.title)}

    def _replace(self, key: str, **changes: object) -> Remote:
        for remote_id in self.ids.get(key, ()):
            task = self.held[remote_id]
            self.held[remote_id] = replace(task, version=str(int(task.version) + 1), **changes)  # type: ignore[arg-type]
            return self.held[remote_id]
        raise CrmRefusedError(f"there is no task {key}")


def connect(_options: Mapping[str, str], _root: Path) -> MemoryCrm:
    """A CRM that forgets everything with the process."""
    return MemoryCrm()
