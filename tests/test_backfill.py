"""A backfill goes part by part, and one that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from churnkit import jobs
from churnkit.cutoffs import duration, moment
from churnkit.jobs import learn, setup
from churnkit.signals.store import Store

AT, START, WEEK = moment("2026-11-01"), moment("2026-08-01"), duration("7d")


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    """A very small simulated workspace without features."""
    folder = tmp_path_factory.mktemp("backfill") / "book"
    setup.simulate(folder, accounts=30, months=8, seed=3)
    return folder


def files(folder: Path) -> dict[str, str]:
    """Each feature file's hash."""
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted((folder / "features" / "data").glob("*/*.parquet"))}


def test_a_stopped_backfill_goes_on(book, monkeypatch):
    """What stands is not computed again; the end is what one undisturbed run in one piece gives, byte for byte."""
    whole = jobs.features(book, AT, start=START, every=WEEK)
    once = files(book)
    assert len(once) > 3 * 14
    for file in once:
        (book / file).unlink()
    monkeypatch.setattr(learn, "AT_ONCE", 100)
    write, times = Store.write, []

    def failing(self, *args, **kwargs):
        times.append(1)
        if len(times) == 3:
            raise KeyboardInterrupt
        write(self, *args, **kwargs)

    monkeypatch.setattr(Store, "write", failing)
    with pytest.raises(KeyboardInterrupt):
        jobs.features(book, AT, start=START, every=WEEK)
    monkeypatch.setattr(Store, "write", write)
    again = jobs.features(book, AT, start=START, every=WEEK)
    rows = {row["entity"]: row["rows"] for row in whole.data["features"]}
    assert 0 < again.data["features"][0]["rows"] < rows["account"]
    assert files(book) == once


def test_a_daily_backfill_equals_each_day_by_itself(book):
    """The path that few cutoffs take and the one that many take give the same files."""
    last, first = moment("2026-10-31"), moment("2026-10-25")
    jobs.features(book, last, start=first, every=duration("1d"))
    many = files(book)
    for file in many:
        if "2026-10-2" in file:
            (book / file).unlink()
    for day in range(25, 30):
        jobs.features(book, moment(f"2026-10-{day}"))
    assert files(book) == many
