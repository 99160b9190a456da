"""What a job has to say, for people and for machines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

HELD_BACK = 3
"""Exit code: the job ran, and its answer is that work may not go on."""


@dataclass(frozen=True)
class Report:
    """What a job has to say: texts to read, a table, notes in sentences, the same as plain data, and an exit code.

    `texts` are Markdown; rows of one shape make one table.
    """

    title: str
    texts: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    code: int = 0
