"""One run of the sync: its belongings, its report, its clock, and how it waits for a CRM that is down."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from churnkit.outreach.crm.base import Crm, CrmDeniedError, CrmDownError
from churnkit.outreach.lease import Lease
from churnkit.outreach.ledger import stamp
from churnkit.outreach.outbox import Outbox

T = TypeVar("T")

ROUNDS = 4
"""How often one run tries again what failed for a passing reason."""
PATIENCE = 60.0
"""How many seconds one run waits at a time at most; where the CRM asks for more, the rest waits for a later run."""


class Clock(Protocol):
    """Both clocks, for leases, waits and rate budgets alone; tests turn them."""

    def now(self) -> dt.datetime:
        """The moment, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that only go on."""
        ...

    def sleep(self, seconds: float) -> None:
        """Waits."""
        ...


@dataclass
class SyncReport:
    """What one run did, by number of tasks; `problems` are for a person, `differences` are a dry run's table."""

    where: str = ""
    created: int = 0
    updated: int = 0
    closed: int = 0
    adopted: int = 0
    unchanged: int = 0
    answers: int = 0
    edits: int = 0
    refused: int = 0
    gone: int = 0
    withheld: int = 0
    again: int = 0
    problems: list[str] = field(default_factory=list)
    differences: list[dict[str, str]] = field(default_factory=list)

    @property
    def writes(self) -> int:
        """How many tasks were written in the CRM."""
        return self.created + self.updated + self.closed


@dataclass
class Run:
    """One run's belongings."""

    box: Outbox
    crm: Crm
    at: dt.datetime
    clock: Clock
    lease: Lease
    report: SyncReport
    told: Callable[[SyncReport], None] = lambda _: None
    down: CrmDownError | None = None

    @property
    def when(self) -> str:
        """The run's moment, as the database holds it."""
        return stamp(self.at)


class Enough(Exception):  # noqa: N818 -- no error: the run ends in order, the rest waits for the next one
    """The CRM wants no more for now."""


def patiently(run: Run, step: Callable[[], None]) -> None:
    """Runs a step, again after a pause where the CRM is down; after a few times the rest waits for the next run."""
    for attempt in range(ROUNDS):
        try:
            step()
        except CrmDownError as down:
            hopeless = isinstance(down, CrmDeniedError) or not down.today
            if hopeless or attempt == ROUNDS - 1 or (down.wait or 0) > PATIENCE:
                run.down = down
                run.report.problems.append(f"{down} What is left waits for the next run.")
                raise Enough from None
            pause(run, attempt, down.wait)
        else:
            return


def pause(run: Run, attempt: int, wait: float | None = None) -> None:
    """Waits as long as the CRM asked for, else longer each time, and never quite alike."""
    jitter = random.uniform(0.5, 1.5)  # noqa: S311 -- spreads retries, hides nothing
    run.clock.sleep(min(2.0**attempt * jitter, PATIENCE) if wait is None else wait)


def batches(all_: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """A sequence, some at a time."""
    return (all_[start:start + size] for start in range(0, len(all_), size))
