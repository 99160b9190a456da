"""Every few minutes: push pending tasks to the CRM and bring dispositions back, for a workspace and a date.

    python pipelines/crm_sync.py . --at 2026-11-01

Safe to run twice for the same date; refuses to run beside itself.
"""

from churnkit.cli import pipeline

if __name__ == "__main__":
    pipeline("sync")
