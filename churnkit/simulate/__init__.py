"""A synthetic B2B book with known causes and known treatment effects, written with numpy in bulk.

    >>> import tempfile, pathlib
    >>> book = simulate(pathlib.Path(tempfile.mkdtemp()) / "raw", accounts=40, months=12)
    >>> book.rows["accounts"]
    40

`best_auc(book, "churn")` says how well the true hazard itself ranks the outcomes: no model does better but by luck.
It and `Book.truth` are for tests and benchmarks; nothing that learns or plans reads the truth, which lies outside the
raw folder.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from churnkit.simulate import causes, contracts, frames, machines, people, support, truth, usage, world
from churnkit.simulate.truth import auc, read_truth

__all__ = ["Book", "auc", "best_auc", "read_truth", "simulate"]


@dataclass(frozen=True)
class Book:
    """What was written, and what a workspace must know to read it."""

    folder: Path
    rows: Mapping[str, int]
    truth: Path
    end: dt.datetime
    difficulty: str

    @property
    def settings(self) -> dict[str, Any]:
        """The part of churnkit.toml that this book needs, as `settings.from_mapping` takes it."""
        return {
            "zone": "UTC", "currency": "EUR", "covers_until": self.end,
            "tables": {"usage_events": {"grain": "day"}, "telemetry": {"grain": "day"}},
            "features": {"plans": list(world.PLANS), "addons": list(world.ADDONS)},
        }

    @property
    def toml(self) -> str:
        """The same as text."""
        plans, addons = (", ".join(f'"{name}"' for name in names) for names in (world.PLANS, world.ADDONS))
        return (f'zone = "UTC"\ncurrency = "EUR"\ncovers_until = "{self.end.isoformat()}"\n\n'
                f'[tables.usage_events]\ngrain = "day"\n\n[tables.telemetry]\ngrain = "day"\n\n'
                f"[features]\nplans = [{plans}]\naddons = [{addons}]\n")


def simulate(folder: str | Path, *, accounts: int = 2000, months: int = 24, seed: int = 7,
             end: str | dt.date = "2026-11-01", difficulty: str = "normal") -> Book:
    """Writes a seeded book: every raw table of the contract but outreach_outcomes, and the truth beside the folder.

    The same arguments give the same files, bit for bit. Files of the same name are replaced.

    Args:
        folder: Where the raw tables go, as CSV and (the three large ones) parquet; the truth goes to `folder/../truth`.
        accounts: How many customers there ever are.
        months: How far back the rows reach from `end`, in months, rounded to whole weeks.
        seed: A whole number from 0.
        end: The day that the book was exported, at 00:00 UTC; nothing in it was known later.
        difficulty: easy, normal (as hard as life) or hard: how much chance blurs the causes.

    Raises:
        SettingsError: If a dial is out of bounds.
    """
    folder = Path(folder)
    here = world.build(accounts, months, seed, end, difficulty)
    ends = contracts.months(here)
    states = causes.strike(here, contracts.price_weeks(here, ends))
    deal = contracts.live(here, states, ends)
    folder.mkdir(parents=True, exist_ok=True)
    asked = support.tickets(here, states, deal)
    served = support.serve(here, asked)
    equipment = machines.machines(here, deal)
    rows = {name: frames.write(folder, name, table) for name, table in (
        ("accounts", people.accounts(here)),
        ("subscriptions", contracts.subscriptions(here, deal)),
        ("support_tickets", support.support_tickets(here, asked, served)),
        ("ticket_messages", support.messages(here, asked, served)),
        ("surveys", support.surveys(here, states, deal)),
        ("invoices", contracts.invoices(here, states, deal)),
        ("contacts", people.contacts(here, states, deal)),
        ("touches", people.touches(here, states, deal)),
        ("opportunities", people.opportunities(here, states, deal)),
        ("assets", machines.assets(here, equipment)),
        ("asset_events", machines.asset_events(here, equipment)),
        ("owners", people.owners(here)),
        ("suppressions", people.suppressions(here)),
        ("record_changes", people.record_changes(here, deal)),
    )}
    rows["usage_events"] = frames.write_parts(folder, "usage_events", usage.usage_events(here, states, deal))
    rows["telemetry"] = frames.write_parts(folder, "telemetry", machines.telemetry(here, equipment))
    beside = folder.parent / "truth"
    truth.write(beside, here, states, deal, equipment)
    until = here.clock.end.astype(dt.datetime).replace(tzinfo=dt.UTC)
    return Book(folder, MappingProxyType(rows), beside, until, difficulty)


def best_auc(book: Book, target: str) -> float:
    """The AUC of the true probability against what came to pass, over all cutoffs of the truth file.

    For tests, benchmarks and reports on simulated data: it reads the truth.

    Args:
        book: A simulated book.
        target: churn, expansion or maintenance.

    Raises:
        DataError: If there is no such target, or the truth is gone.
    """
    return auc(*read_truth(book.truth, target))
