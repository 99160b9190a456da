"""What the conformance suite must be able to do to a CRM besides what a connector does: see, meddle, break."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from churnkit.outreach.crm.base import Crm, Remote
from churnkit.outreach.runs import Clock
from churnkit.testing.samples import ACCOUNTS, CANARY, OWNERS

__all__ = ["ACCOUNTS", "CANARY", "OWNERS", "World"]


class World(Protocol):
    """A CRM of a test's own, seen from outside the connector: a fake server, or a sandbox.

    Everything that a person or a broken machine may do to it. `faults` names those of FAULTS (churnkit.testing.server)
    and of `faults` below that can happen here; the suite skips the others and says so.
    """

    name: str
    """The connector's name, as churnkit.toml would say it."""
    options: Mapping[str, str]
    """Its options, as [crm_options] would give them to it: another process can use this CRM with them."""
    env: Mapping[str, str]
    """What that process finds in its environment: the secrets."""
    faults: Sequence[str]
    """Which faults `fail` can cause: those of a line, and quota, half (half of a batch is written, the reply is lost),
    rows (one row of a batch fails in the reply), poison (one bad row fails its whole batch), expired (the token),
    refused (no connection)."""

    def connect(self, clock: Clock | None = None) -> Crm:
        """A new connector to this CRM, as a new process would make it; it waits at most a second for a reply.

        The CRM's own time is then at least the clock's, and never goes back with it.
        """
        ...

    def tasks(self) -> list[Remote]:
        """Every task that is there, duplicates too, `owner` as an e-mail address."""
        ...

    def texts(self, key: str) -> tuple[str, str]:
        """Title and body of a task, as a person reads them."""
        ...

    def person(self, key: str, at: dt.datetime, **changes: Any) -> None:
        """A person changes status, disposition, note, owner or due of a task at that time."""
        ...

    def delete(self, key: str) -> None:
        """A person deletes a task."""
        ...

    def fail(self, fault: str, times: int = 1) -> None:
        """The next calls that write suffer from this; `poison` and `rows` befall the task of A03 until `heal`."""
        ...

    def heal(self) -> None:
        """No fault any more; an expired token is valid again, a spent quota renewed."""
        ...

    def back_up(self) -> AbstractContextManager[None]:
        """Keeps a copy now; at the end of the block everything is as it was in the copy: yesterday's backup."""
        ...

    def writes(self) -> int:
        """How many rows were written by connectors so far, refused ones left out."""
        ...
