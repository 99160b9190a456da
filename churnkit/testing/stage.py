"""What the conformance suite plays on: an outbox, a world, runs of the sync, and what must hold after each of them."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from churnkit.outreach.crm.base import Crm, Item, Remote, Result
from churnkit.outreach.outbox import Outbox
from churnkit.outreach.runs import SyncReport
from churnkit.outreach.status import Rules
from churnkit.outreach.sync import sync
from churnkit.outreach.task import CLOSED, Task
from churnkit.testing.samples import AT, TurnedClock
from churnkit.testing.world import World

DAY = dt.timedelta(days=1)


@dataclass
class Stage:
    """An outbox and a world, and the runs between them."""

    box: Outbox
    world: World
    clock: TurnedClock = field(default_factory=TurnedClock)
    said: list[str] = field(default_factory=list)
    rules: Rules = field(default_factory=Rules)

    def __post_init__(self) -> None:
        """The portal as it is in the beginning is the one that is meant."""
        crm = self.world.connect(self.clock)
        self.rules = Rules(crm.check().id)
        crm.close()

    def put(self, tasks: Sequence[Task], at: dt.datetime = AT) -> None:
        """A plan's tasks."""
        self.box.put(tasks, at=at, run="suite")

    def run(self, at: dt.datetime = AT, *, batch: int | None = None,
            amid: Callable[[Sequence[Item]], None] | None = None, crm: Crm | None = None) -> SyncReport:
        """One sync by a new connector.

        Args:
            at: The run's moment.
            batch: Fewer rows a call than the CRM could take.
            amid: Called with the items before each call that writes: what happens during the run.
            crm: A connector that was made already.
        """
        self.clock.time = max(self.clock.time, at)
        crm = crm or self.world.connect(self.clock)
        if batch is not None:
            _limit(crm, batch)
        if amid is not None:
            _watch(crm, amid)
        report = sync(self.box, crm, at=at, clock=self.clock, rules=self.rules)
        self.said += report.problems
        return report

    def until_quiet(self, at: dt.datetime = AT, most: int = 8) -> SyncReport:
        """Runs, a day apart on the clock, until nothing waits; the last run's report."""
        for _ in range(most):
            report = self.run(at)
            if self.box.waiting() == 0 and not report.problems:
                return report
            self.clock.time += DAY
        return report

    def there(self) -> dict[str, Remote]:
        """The world's tasks by key, each once."""
        tasks = self.world.tasks()
        twice = {key: count for key, count in Counter(one.key for one in tasks).items() if count > 1}
        assert twice == {}, f"these keys stand in the CRM more than once: {twice}"
        return {one.key: one for one in tasks}

    def holds(self, keys: Sequence[str], at: dt.datetime = AT) -> None:
        """What must be so when all is over: each task once, none lost, one more run silent, the audit whole."""
        assert sorted(self.there()) == sorted(keys)
        assert self.box.pending() == []
        before, outcomes = self.world.writes(), len(self.box.outcomes())
        report = self.run(at)
        silent = (report.writes, report.answers, report.edits, report.adopted, report.problems)
        assert silent == (0, 0, 0, 0, [])
        assert (self.world.writes(), len(self.box.outcomes())) == (before, outcomes)
        self.agree()

    def agree(self) -> None:
        """The ledger and the CRM say the same of every task that is in both, and the audit tells the ledger."""
        there = self.there()
        for task in self.box.tasks(ghosts=False):
            if task.key in there and task.status not in CLOSED:
                remote = there[task.key]
                assert (remote.status, remote.owner, remote.due) == (task.status, task.owner, task.due)
        assert self.box.check_audit().wrong == {}

    def everything_said(self) -> str:
        """All that the sync wrote down or told: audit, outbox, problems."""
        rows: list[Any] = [self.box.audit(), [vars(one) for one in self.box.outcomes()], self.said]
        waiting = self.box.pending(("pending", "in_flight", "ambiguous", "confirmed", "rejected", "dead", "dropped"))
        return json.dumps([*rows, [one.why for one in waiting]], default=str)


def _limit(crm: Crm, batch: int) -> None:
    """Fewer rows a call; a connector may say anew what it can when it is asked which portal it is."""
    check = crm.check

    def limited(*, mend: bool = False) -> Any:
        portal = check(mend=mend)
        crm.capabilities = replace(crm.capabilities, batch=min(batch, crm.capabilities.batch))
        return portal

    crm.check = limited  # type: ignore[method-assign]


def _watch(crm: Crm, amid: Callable[[Sequence[Item]], None]) -> None:
    write = crm.write

    def watched(items: Sequence[Item]) -> Sequence[Result]:
        amid(items)
        return write(items)

    crm.write = watched  # type: ignore[method-assign]
