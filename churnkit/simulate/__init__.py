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
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from churnkit.errors import DataError
from churnkit.simulate import (
    causes,
    contacted,
    contracts,
    courses,
    frames,
    grafts,
    machines,
    people,
    support,
    truth,
    usage,
    world,
)
from churnkit.simulate.contacted import Contacts
from churnkit.simulate.truth import auc, read_truth
from churnkit.simulate.work import Habits, Work, work

__all__ = ["Book", "Habits", "Work", "auc", "best_auc", "read_book", "read_truth", "simulate", "work"]
_KEPT, _DIALS = "book.json", ("difficulty", "accounts", "months", "seed")


@dataclass(frozen=True)
class Book:
    """What was written, what a workspace must know to read it, and what to simulate it again with."""

    folder: Path
    rows: Mapping[str, int]
    truth: Path
    end: dt.datetime
    difficulty: str
    accounts: int = 0
    months: int = 0
    seed: int = 0

    def again(self, contacts: Contacts | None = None) -> Book:
        """The same book in the same place, as these contacts (and no others) make it."""
        return simulate(self.folder, accounts=self.accounts, months=self.months, seed=self.seed,
                        end=f"{self.end:%Y-%m-%d}", difficulty=self.difficulty, contacts=contacts)

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


def simulate(folder: str | Path, *, accounts: int = 2000, months: int = 24, seed: int = 7,  # noqa: PLR0913 - dials
             end: str | dt.date = "2026-11-01", difficulty: str = "normal", contacts: Contacts | None = None) -> Book:
    """Writes a seeded book: every raw table of the contract but outreach_outcomes, and the truth beside the folder.

    The same arguments give the same files, bit for bit. Files of the same name are replaced. With `contacts` the dice
    fall as without: an account's rows are the same up to its first contact, and to the end where that changes nothing.

    Args:
        folder: Where the raw tables go, as CSV and (the three large ones) parquet; the truth goes to `folder/../truth`.
        accounts: How many customers there ever are.
        months: How far back the rows reach from `end`, in months, rounded to whole weeks.
        seed: A whole number from 0.
        end: The day that the book was exported, at 00:00 UTC; nothing in it was known later.
        difficulty: easy, normal (as hard as life) or hard: how much chance blurs the causes.
        contacts: Who was spoken with, when and on what: account_id, contacted_at, and at will target (churn, expansion,
            maintenance), channel, reached and asset_id. See `contacted` for what it does.

    Raises:
        SettingsError: If a dial is out of bounds.
        DataError: If the contacts are not of this book.
    """
    folder = Path(folder)
    here = world.build(accounts, months, seed, end, difficulty)
    made = None if contacts is None else contacted.read(here, contacts)
    ends = contracts.months(here)
    states = causes.strike(here, contracts.price_weeks(here, ends))
    lives = courses.live(here, states, ends, made)
    folder.mkdir(parents=True, exist_ok=True)
    tables = _tables(here, states, lives)
    turned = courses.courses(here, states, lives.turns)
    used, measured = usage.usage_events(here, states, lives.first, turned), machines.telemetry(here, lives.untouched)
    if made is not None:
        tables = iter(grafts.grafted(here, states, lives, made, dict(tables)).items())
        measured = grafts.telemetry(here, states, lives, measured)
    rows = {name: frames.write(folder, name, table) for name, table in tables}
    rows["usage_events"] = frames.write_parts(folder, "usage_events", used)
    rows["telemetry"] = frames.write_parts(folder, "telemetry", measured)
    beside = folder.parent / "truth"
    truth.write(beside, here, states, lives)
    until = here.clock.end.astype(dt.datetime).replace(tzinfo=dt.UTC)
    book = Book(folder, MappingProxyType(rows), beside, until, difficulty, accounts, months, seed)
    dials = {name: getattr(book, name) for name in _DIALS}
    (beside / _KEPT).write_text(json.dumps({**dials, "end": f"{until:%Y-%m-%d}", "rows": rows}, indent=1) + "\n")
    return book


def read_book(folder: str | Path) -> Book:
    """The book that was simulated into that folder of raw tables.

    Raises:
        DataError: If there is none.
    """
    folder = Path(folder)
    file = folder.parent / "truth" / _KEPT
    if not file.is_file():
        raise DataError(f"'{folder}' holds no simulated book: {file} is missing. Make one: churnkit simulate.")
    kept = json.loads(file.read_text(encoding="utf-8"))
    until = dt.datetime.fromisoformat(kept["end"]).replace(tzinfo=dt.UTC)
    return Book(folder, MappingProxyType(kept["rows"]), file.parent, until, **{name: kept[name] for name in _DIALS})


def _tables(here: world.World, states: causes.States,
            lives: courses.Lives) -> Iterator[tuple[str, frames.Frame]]:
    """Every table but the two largest, as it comes without outreach."""
    deal, equipment = lives.first, lives.untouched
    asked = support.tickets(here, states, deal)
    served = support.serve(here, asked)
    yield "accounts", people.accounts(here)
    yield "subscriptions", contracts.subscriptions(here, deal)
    yield "support_tickets", support.support_tickets(here, asked, served)
    yield "ticket_messages", support.messages(here, asked, served)
    yield "surveys", support.surveys(here, states, deal)
    yield "invoices", contracts.invoices(here, states, deal)
    yield "contacts", people.contacts(here, states, deal)
    yield "touches", people.touches(here, states, deal)
    yield "opportunities", people.opportunities(here, states, deal)
    yield "assets", machines.assets(here, equipment)
    yield "asset_events", machines.asset_events(here, equipment)
    yield "owners", people.owners(here)
    yield "suppressions", people.suppressions(here)
    yield "record_changes", people.record_changes(here, deal)


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
