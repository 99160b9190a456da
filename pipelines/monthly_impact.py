"""Once a month: what outreach came to, contacted accounts against those kept apart, for a workspace and a date.

    python pipelines/monthly_impact.py . --at 2026-11-01

Safe to run twice for the same date; refuses to run beside itself.
"""

from churnkit.cli import pipeline

if __name__ == "__main__":
    pipeline("impact")
