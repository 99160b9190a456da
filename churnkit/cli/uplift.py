"""The command that learns whom a contact helps."""

from __future__ import annotations

from churnkit.cli.screen import HERE, TODAY, At, Folder, Json, Targets, cutoff, do


def uplift(folder: Folder = HERE, at: At = TODAY, target: Targets = None, as_json: Json = False) -> None:
    """Learn whom a contact helps and whom it harms, from treated and control accounts; from then on scores tell it.

    Example: churnkit uplift acme --at 2026-11-01 --target churn
    """
    from churnkit import jobs

    do(lambda: jobs.uplift(folder, cutoff(at), target or ()), as_json)
