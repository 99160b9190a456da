"""Evidence: what was found, in words, with the figures behind it."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Literal

Kind = Literal["shrunken", "grown", "repeated", "kinds", "clock", "unjoined", "rewritten", "missing", "scores",
               "alerts"]


@dataclass(frozen=True)
class Figure:
    """A series behind a piece of evidence, for its plot: days, values, and what was explained of the last ones."""

    title: str
    days: tuple[dt.date, ...]
    values: tuple[float, ...]
    low: float
    high: float


@dataclass(frozen=True)
class Evidence:
    """One finding that holds targets.

    `about` names the table, the feature or the target, and `day` the day it is of; with the kind they are its key: what
    a person releases is this evidence, and no other.
    """

    kind: Kind
    about: str
    day: dt.date
    targets: tuple[str, ...]
    says: str
    figure: Figure | None = None

    @property
    def key(self) -> str:
        """What a release names.

        >>> Evidence("clock", "usage_events", dt.date(2026, 11, 1), ("churn",), "").key
        'clock usage_events 2026-11-01'
        """
        return f"{self.kind} {self.about} {self.day}"
