"""What the outbox answers with: what keeping a plan did, what came of a task, and the audit held against the ledger."""

from __future__ import annotations

from dataclasses import dataclass

from churnkit.outreach.chain import Retold


@dataclass(frozen=True)
class Put:
    """What `put` did: how many tasks were new, changed, the same as before, or closed and therefore left alone."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    closed: int = 0


@dataclass(frozen=True)
class Carried:
    """What `carry_out` did: with the tasks, the keys that it closed, those left as begun, and how many arms changed."""

    put: Put
    shut: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    arms: int = 0


@dataclass(frozen=True)
class Checked:
    """The audit held against the ledger: its length, every task as it tells it, and by key what is not so there."""

    rows: int
    told: dict[str, Retold]
    wrong: dict[str, list[str]]


@dataclass(frozen=True)
class Outcome:
    """What came of a task: one change of its status, disposition or note by a person."""

    key: str
    account_id: str
    play: str
    occurred_at: str
    status: str
    disposition: str | None
    note: str | None
    recorded_at: str
