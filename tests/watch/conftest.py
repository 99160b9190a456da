"""A small simulated book, and workspaces whose raw tables were harmed in one way."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest

from churnkit.cutoffs import moment
from churnkit.jobs.breaker import verdict
from churnkit.settings import load
from churnkit.signals.tables import read_tables
from churnkit.simulate import simulate

AT = moment("2026-10-29")  # a Thursday: the last whole day is a working day
TABLES = ("accounts.csv", "subscriptions.csv", "support_tickets.csv", "usage_events.parquet")


@pytest.fixture(scope="session")
def plain_book(tmp_path_factory):
    """The folder of a book of 300 accounts, with the tables that the tests look at."""
    folder = tmp_path_factory.mktemp("plain")
    book = simulate(folder / "all" / "raw", accounts=300, months=24)
    (folder / "data" / "raw").mkdir(parents=True)
    for name in TABLES:
        shutil.copy(folder / "all" / "raw" / name, folder / "data" / "raw" / name)
    toml = book.toml.replace('[tables.telemetry]\ngrain = "day"\n', "")
    (folder / "churnkit.toml").write_text(toml.replace("[tables.usage", '[tables]\ninvalid = "drop"\n\n[tables.usage'))
    shutil.rmtree(folder / "all")
    return folder


@pytest.fixture(scope="session")
def usage(plain_book):
    """The book's usage."""
    frame = pd.read_parquet(plain_book / "data" / "raw" / "usage_events.parquet")
    return frame.astype({"account_id": str, "event": str})


@pytest.fixture
def workspace(plain_book, tmp_path):
    """A workspace of one's own, whose tables may be harmed."""
    folder = tmp_path / "acme"
    shutil.copytree(plain_book, folder)
    (folder / "outreach.toml").write_text("schema_version = 1\n")
    return folder


@pytest.fixture
def write(workspace):
    """Replaces the workspace's usage."""

    def make(frame):
        frame.to_parquet(workspace / "data" / "raw" / "usage_events.parquet", index=False)

    return make


@pytest.fixture
def look(workspace):
    """The breaker's verdict on the workspace as it is."""

    def make(at=AT, scores=None):
        settings = load(workspace)
        return verdict(settings, read_tables(settings, at=at), scores, at)

    return make
