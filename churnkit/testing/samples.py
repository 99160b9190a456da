"""Tasks and a clock for tests of the sync; they import nothing heavy, so that a test's own processes start quickly."""

from __future__ import annotations

import datetime as dt
from typing import Any

from churnkit.outreach.task import Task, task_key

AT = dt.datetime(2026, 11, 1, 6, tzinfo=dt.UTC)
"""The moment at which the samples were planned."""
OWNERS = ("ann@us.example", "eve@us.example", "gone@us.example")
"""The owners that a world of tests knows; the last one is inactive."""
ACCOUNTS = tuple(f"A{n:02d}" for n in range(30))
"""The accounts that a world of tests knows."""
CANARY = "canary-7f3a9d51e6"
"""The token that a world's connector uses: the suite looks for it wherever something is written."""


def sample(n: int = 0, **changes: Any) -> Task:
    """The task of account A<n>.

    >>> sample(7).account_id, sample(7).key == sample(7, title="Visit").key
    ('A07', True)
    """
    account = f"A{n:02d}"
    values: dict[str, Any] = {
        "key": task_key(account, "save_call", "2026-11-01"), "target": "churn", "play": "save_call",
        "episode": "2026-11-01", "opened_by": "model", "account_id": account, "type": "call",
        "title": f"Call {account}", "body": "Why: use halved.", "priority": "high", "due": dt.date(2026, 11, 6),
        "owner": OWNERS[0], "score": 0.4, "scored_at": AT.isoformat(), "value": 9600.0, "currency": "EUR"}
    return Task(**{**values, **changes})


class TurnedClock:
    """Both clocks of a machine; sleeping turns them on, and `time` may be set to any moment."""

    def __init__(self, time: dt.datetime = AT) -> None:
        self.time, self.ran = time, 0.0
        self.slept: list[float] = []

    def now(self) -> dt.datetime:
        """The wall clock."""
        return self.time

    def monotonic(self) -> float:
        """Seconds that only go on."""
        return self.ran

    def sleep(self, seconds: float) -> None:
        """Turns both on."""
        self.slept.append(seconds)
        self.ran += seconds
        self.time += dt.timedelta(seconds=seconds)
