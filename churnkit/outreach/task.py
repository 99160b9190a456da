"""The work object: one task for one account manager, as it is planned, kept, sent and answered. Standard library."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Status = Literal["open", "in_progress", "snoozed", "completed", "dismissed"]
CLOSED: tuple[Status, ...] = ("completed", "dismissed")
DISPOSITIONS: dict[str, tuple[str, ...]] = {
    "churn": ("saved", "no_change", "not_a_risk"),
    "expansion": ("bought", "open_deal", "later", "no_need"),
    "maintenance": ("serviced", "part_replaced", "no_fault_found"),
    "any": ("no_response", "wrong_contact", "do_not_contact"),
}
"""What may come of a task, per target; those of 'any' fit every task."""
THEIRS = frozenset({"status", "disposition", "approval", "snoozed_until"})
"""Fields that people move, in the CRM or by a command."""
LOCAL = frozenset({"cause", "passed_on", "rank_by", "data_hash", "policy_hash", "stratum", "propensity", "reopens",
                   "effect"})
"""Fields that churnkit keeps for itself: they are in the ledger and never in the CRM."""


@dataclass(frozen=True)
class Task:
    """One task. `key` never changes and never holds the run's date: account + play + episode.

    `episode` is the ISO date at which the play opened for the account. `ghost` marks a control account's task: kept,
    never sent. `score` is a probability or None (a rule play); `value` is money in `currency`.
    `rank_by` says what its rank rests on (uplift, effect, prior), `propensity` how likely it was not to be a ghost.
    """

    key: str
    target: str
    play: str
    episode: str
    opened_by: Literal["model", "rule"]
    account_id: str
    type: Literal["call", "email", "meeting", "visit", "review"]
    title: str
    body: str
    priority: Literal["low", "normal", "high"]
    due: dt.date
    owner: str
    asset_ids: tuple[str, ...] = ()
    contact_id: str | None = None
    status: Status = "open"
    disposition: str | None = None
    score: float | None = None
    band: str | None = None
    reason_codes: tuple[str, ...] = ()
    model_version: str | None = None
    scored_at: str | None = None
    value: float | None = None
    currency: str | None = None
    expires_at: dt.date | None = None
    approval: Literal["none", "pending", "approved"] = "none"
    ghost: bool = False
    cause: str = ""
    passed_on: bool = False
    rank_by: str = "probability"
    data_hash: str | None = None
    policy_hash: str | None = None
    stratum: str = ""
    propensity: float | None = None
    reopens: str | None = None
    effect: float | None = None
    snoozed_until: str | None = None

    def content_hash(self) -> str:
        """A hash of all that churnkit owns in the CRM's copy; the same content gives the same hash."""
        owned = {name: value for name, value in asdict(self).items() if name not in THEIRS | LOCAL}
        return hashlib.sha256(json.dumps(owned, sort_keys=True, default=str).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain values: dates as ISO text, tuples as lists."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Task:
        """The reverse of `to_dict`; unknown keys are left out."""
        known = {field.name for field in fields(cls)}
        values = {name: value for name, value in data.items() if name in known}
        for name in ("due", "expires_at"):
            if isinstance(values.get(name), str):
                values[name] = dt.date.fromisoformat(values[name])
        for name in ("asset_ids", "reason_codes"):
            values[name] = tuple(values.get(name) or ())
        return cls(**values)


def _plain(value: Any) -> Any:
    if isinstance(value, dt.date):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value


def task_key(account_id: str, play: str, episode: str) -> str:
    """The task's immutable key, 40 hexadecimal digits.

    >>> task_key("007", "save", "2026-11-01") == task_key("007", "save", "2026-11-01")
    True
    >>> len(task_key("7", "save", "2026-11-01"))
    40
    """
    return hashlib.sha256(json.dumps([account_id, play, episode]).encode()).hexdigest()[:40]
