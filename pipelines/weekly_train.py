"""Once a week: train the three models on all matured history, for a workspace and a date.

    python pipelines/weekly_train.py . --at 2026-11-01

Safe to run twice for the same date; refuses to run beside itself.
"""

from churnkit.cli import pipeline

if __name__ == "__main__":
    pipeline("train")
