"""What outreach came to, for now in numbers of tasks: by play, status and control."""

from __future__ import annotations

from collections import Counter
from typing import Any

from churnkit.outreach.outbox import Outbox


def counts(outbox: Outbox) -> list[dict[str, Any]]:
    """How many tasks there are of each play, status and disposition, sent ones and control accounts' ghosts apart.

    Returns:
        Rows of play, target, control (whether they are ghosts), status, disposition and tasks, sorted.
    """
    tasks = outbox.tasks()
    found = Counter((task.play, task.target, task.ghost, task.status, task.disposition or "") for task in tasks)
    return [dict(zip(("play", "target", "control", "status", "disposition", "tasks"), (*group, count), strict=True))
            for group, count in sorted(found.items())]
