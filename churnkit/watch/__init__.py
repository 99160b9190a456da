"""Are the feeds there, fresh and on time, and is today like the days before? `check` reports, `look` may hold tasks.

The report (`check`, `late`) is in report.py. The breaker counts each table's days (counts.py), asks what their own past
explains (usual.py), collects evidence from feeds (feeds.py) and from features, scores and alerts (drift.py), and holds
targets on it (verdict.py); what earlier runs saw and what people released is kept by memory.py.
"""

from churnkit.watch.report import ON_TIME, SEEN_VERSION, Feed, Report, check, late

__all__ = ["ON_TIME", "SEEN_VERSION", "Feed", "Report", "check", "late"]
