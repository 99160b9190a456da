"""Every morning: read, check, compute features, score, plan and sync, for a workspace and a date.

    python pipelines/daily_score.py . --at 2026-11-01

Safe to run twice for the same date; refuses to run beside itself.
"""

from churnkit.cli import pipeline

if __name__ == "__main__":
    pipeline("features", "score", "plan", "sync")
