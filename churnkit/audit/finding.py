"""What an audit has to say: findings with their evidence, one verdict per method, and what each method can see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One leak, with its evidence.

    `where` is the point, record or row at which it was seen first, `then` the value that was to be known there and
    `foresight` the value that stood there instead; `count` says how many such cells there are of those looked at. Texts
    of customers are never shown. `says` is a sentence, `mend` what to do.
    """

    method: str
    table: str
    column: str
    where: str
    then: str
    foresight: str
    count: int
    says: str
    mend: str

    def row(self) -> dict[str, Any]:
        """One line of the table that a person reads."""
        return {"method": self.method, "table": self.table, "column": self.column, "first": self.where,
                "then": self.then, "with_foresight": self.foresight, "cells": self.count}


@dataclass(frozen=True)
class Verdict:
    """What one method found, and what it looked at; `looked` is '' where it could not look, and `why` says why."""

    method: str
    findings: tuple[Finding, ...] = ()
    looked: str = ""
    why: str = ""
    hints: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The verdict in sentences: what was found, with mends, then what the method sees and cannot see."""
        if not self.looked:
            return [f"{self.method}: not looked at. {self.why}"]
        leaks = len(self.findings)
        found = f"{leaks} {'leak' if leaks == 1 else 'leaks'}" if leaks else "no leak"
        told = [f"{self.method}: {found} in {self.looked}.",
                *(f"{self.method}: {one.says} {one.mend}" for one in self.findings),
                *(f"{self.method}: {hint}" for hint in self.hints)]
        method = METHODS[self.method]
        return [*told, f"{self.method} sees {method.sees}; it cannot see {method.blind}."]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for --json."""
        method = METHODS[self.method]
        return {"method": self.method, "looked": self.looked, "why": self.why, "hints": list(self.hints),
                "sees": method.sees, "cannot_see": method.blind, "findings": [asdict(one) for one in self.findings]}


@dataclass(frozen=True)
class Method:
    """What a method of looking for leaks can see, and what it cannot; each completes a sentence."""

    sees: str
    blind: str


METHODS: Mapping[str, Method] = MappingProxyType({
    "truncation": Method(
        "features, populations and labels that read what was recorded or happened after their cutoff, also at the very "
        "edge of it, and records read in a later state than the contract's times or record_changes give",
        "wrong times in the tables themselves: a row or a rating stamped earlier than it came, and a value overwritten "
        "without a trace"),
    "extracts": Method(
        "rewritten history: rows filled in later, values overwritten, rows taken out, clocks moved by a zone or by "
        "daylight saving between two extracts",
        "what was wrong in both extracts already, and rows newer than the first extract"),
    "versions": Method(
        "final values stamped on every version of a record, in any column of the source whether mapped or not, and "
        "later times that repeat the record's own",
        "tables that hold each record once, and a stamped value that is no time, bears a name that does not tell, and "
        "does not go with how much is still to come"),
    "decay": Method(
        "a feature that foretells the outcome nearly perfectly, or as well long before it as shortly before: a column "
        "that is filled from the outcome",
        "leaks that tell little, leaks spread over several features, and outcomes too rare for an interval; a lasting "
        "trait of modest foresight is no leak and is not accused"),
})
"""The methods of `audit time`, in the order in which they run."""


def shown(value: object, kind: str = "") -> str:
    """A value as evidence: short, times to the second, and never a customer's text.

    >>> shown(0.30000000000000004), shown(None), shown("why is it down again", "text")
    ('0.3', 'missing', '(text)')
    """
    if value is None or value != value:  # noqa: PLR0124 - NaN is not equal to itself, NaT neither
        return "missing"
    if kind == "text":
        return "(text)"
    if hasattr(value, "isoformat"):
        return str(value.isoformat(sep=" ", timespec="seconds")).replace("+00:00", "")
    text = f"{value:.6g}" if isinstance(value, float) else "".join(one if one.isprintable() else "?"
                                                                  for one in str(value))
    return text if len(text) <= 40 else f"{text[:37]}..."
