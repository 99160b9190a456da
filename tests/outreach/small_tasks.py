"""Tasks for this room's tests; no pandas, so that a test's own processes start quickly."""

import datetime as dt

from churnkit.outreach.task import Task, task_key

AT = dt.datetime(2026, 11, 1, 6, tzinfo=dt.UTC)


def task(n=0, **changes):
    account = f"A{n:02d}"
    values = {
        "key": task_key(account, "save_call", "2026-11-01"), "target": "churn", "play": "save_call",
        "episode": "2026-11-01", "opened_by": "model", "account_id": account, "type": "call",
        "title": f"Call {account}", "body": "Why: use halved.", "priority": "high", "due": dt.date(2026, 11, 6),
        "owner": "ann@us.example", "score": 0.4, "scored_at": AT.isoformat(), "value": 9600.0, "currency": "EUR"}
    return Task(**{**values, **changes})
