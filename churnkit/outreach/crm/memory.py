"""A CRM in memory, with faults on demand: what the sync's tests run against."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from churnkit.outreach.crm.base import Capabilities, CrmDownError, CrmRefusedError, CrmUnsureError, Item, Remote, Result

FAULTS = ("down", "quota", "dropped", "lost", "half")
"""down: refused before the write; quota: the same for today; dropped: unsure, nothing written; lost: written, but the
reply was lost; half: half of the batch written, reply lost."""


@dataclass
class MemoryCrm:
    """Tasks in a list: without `unique_keys` a careless second create makes a second task, as a weak CRM would.

    `faults` are used up one per write call; `poison` are keys that are refused for good, row by row, or, with
    `poison_fails_batch`, by failing the whole call. `writes` counts the rows written by key.
    """

    capabilities: Capabilities = field(default_factory=Capabilities)
    faults: list[str] = field(default_factory=list)
    poison: set[str] = field(default_factory=set)
    poison_fails_batch: bool = False
    name: str = "memory"
    tasks: list[Remote] = field(default_factory=list)
    bodies: dict[str, str] = field(default_factory=dict)
    writes: Counter[str] = field(default_factory=Counter)
    before_write: Callable[[], None] | None = None
    spend: Callable[[], None] = lambda: None

    def check(self) -> str:
        """Says that it is in memory."""
        self.spend()
        return "memory"

    def find(self, keys: Sequence[str]) -> Mapping[str, Remote]:
        """The tasks of these keys."""
        self.spend()
        return self._find(keys)

    def create(self, items: Sequence[Item]) -> Sequence[Result]:
        """Adds tasks."""
        return self._call(items, self._add)

    def update(self, items: Sequence[Item]) -> Sequence[Result]:
        """Changes tasks."""
        return self._call(items, self._set)

    def changes(self, since: str | None) -> tuple[Sequence[Remote], str | None]:
        """All of them, always: repeating is allowed."""
        self.spend()
        return list(self.tasks), since

    def done(self) -> None:
        """Nothing to do."""

    def person(self, key: str, at: dt.datetime, **changes: object) -> None:
        """A person changes a task."""
        self._replace(key, modified_at=at, by="ann", **changes)

    def _find(self, keys: Sequence[str]) -> dict[str, Remote]:
        return {task.key: task for task in self.tasks if task.key in set(keys)}

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
        some = items[: len(items) // 2] if fault == "half" else items
        results = [Result(item.task.key, "refused", why="not valid") if item.task.key in self.poison
                   else Result(item.task.key, "written", write(item)) for item in some]
        if fault in {"lost", "half"}:
            raise CrmUnsureError("no reply")
        return results

    def _add(self, item: Item) -> Remote:
        if self.capabilities.unique_keys and item.task.key in self._find([item.task.key]):
            return self._set(item)
        self.writes[item.task.key] += 1
        self.bodies[item.task.key] = item.task.body
        self.tasks.append(Remote(item.task.key, f"r{len(self.tasks) + 1}", "1", item.content_hash,
                                 owner=item.task.owner, due=item.task.due))
        return self.tasks[-1] if self.capabilities.returns_ids else replace(self.tasks[-1], remote_id="")

    def _set(self, item: Item) -> Remote:
        self.writes[item.task.key] += 1
        self.bodies[item.task.key] = item.task.body
        remote = self._replace(item.task.key, content_hash=item.content_hash)
        if item.closing and remote.status == "open":
            remote = self._replace(item.task.key, status="dismissed", note=item.closing, by="churnkit")
        return remote

    def _replace(self, key: str, **changes: object) -> Remote:
        for place, task in enumerate(self.tasks):
            if task.key == key:
                self.tasks[place] = replace(task, version=str(int(task.version) + 1), **changes)  # type: ignore[arg-type]
                return self.tasks[place]
        raise CrmRefusedError(f"there is no task {key}")


def connect(_options: Mapping[str, str], _root: Path) -> MemoryCrm:
    """A CRM that forgets everything with the process."""
    return MemoryCrm()
