"""Swept buckets against the row-by-row join: the same values at any cutoffs, however late the rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from churnkit.cutoffs import moment
from churnkit.schemas import POINTS
from churnkit.settings import from_mapping
from churnkit.signals import compute
from churnkit.signals.catalog import Catalog
from churnkit.signals.groups import (
    Feature,
    FeatureGroup,
    count,
    days_since,
    distinct,
    flag,
    highest,
    lowest,
    mean,
    slope,
    spread,
    total,
)
from churnkit.signals.streams import DAY, HOUR
from churnkit.signals.sweep import grid_of
from churnkit.signals.tables import Tables

START = moment("2025-01-01")
DAYS = pd.Timedelta(days=1)
ONLY = (("event", "open"),)
USAGE = FeatureGroup("everything", "account", aggregations=(
    count("rows", "usage", (7, 28, "6h"), compared=(28,)),
    count("opens", "usage", (7,), where=ONLY),
    total("minutes", "usage", "minutes", (7, 84), compared=(7,)),
    mean("mean", "usage", "minutes", (28,)),
    spread("spread", "usage", "minutes", (7, 28)),
    slope("slope", "usage", "minutes", (28, 84)),
    lowest("least", "usage", "minutes", (7,), compared=(7,)),
    highest("most", "usage", "minutes", (28,), where=ONLY),
    flag("any", "usage", (7,)),
    distinct("days", "usage", "day", (7, 28), compared=(28,)),
    distinct("users", "usage", "user", (7, 28, "36h"), compared=(7,)),
    distinct("openers", "usage", "user", (28,), where=ONLY),
    days_since("since", "usage"),
    days_since("since_open", "usage", where=ONLY),
    Feature("usual", "usual", stream="usage", of="n", window_days=28),
))


def book(seed: int, rows: int = 600, accounts: int = 6) -> Tables:
    """Random use, a third of it known late, by minutes or by weeks; some without a user or a duration."""
    rng = np.random.default_rng(seed)
    hours = rng.integers(0, 24 * 400, rows) * np.where(rng.random(rows) < 0.5, 1.0, rng.random(rows))
    own = START + pd.to_timedelta(np.round(hours, 3), unit="h")
    late = np.where(rng.random(rows) < 0.3, rng.choice([0.02, 1, 24, 100, 2000], rows), 0.0)
    events = pd.DataFrame({
        "account_id": rng.integers(0, accounts, rows).astype(str), "occurred_at": own,
        "recorded_at": own + pd.to_timedelta(late, unit="h"), "event": rng.choice(["open", "close"], rows),
        "user_id": np.where(rng.random(rows) < 0.1, None, rng.choice(list("abcd"), rows)),
        "duration_s": np.where(rng.random(rows) < 0.1, np.nan, 1e6 + rng.integers(0, 4, rows) * 60.0)})
    frame = pd.DataFrame({"account_id": [str(number) for number in range(accounts)], "created_at": START})
    return Tables.from_frames(from_mapping({"covers_until": "2026-12-01"}), at="2026-12-01", accounts=frame,
                              usage_events=events)


def asked(moments: dict[str, list[pd.Timestamp]]) -> pd.DataFrame:
    """Points of accounts at their cutoffs."""
    rows = [(f"{key}@{cutoff}", "account", key, key, cutoff) for key, cutoffs in moments.items() for cutoff in cutoffs]
    return pd.DataFrame(rows, columns=list(POINTS))


def both(tables: Tables, points: pd.DataFrame, monkeypatch) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The values by the sweep and by the join."""
    swept = compute.compute_group(tables, points, USAGE, Catalog())
    monkeypatch.setattr(compute, "FEW", 10**9)
    return swept, compute.compute_group(tables, points, USAGE, Catalog())


def same(swept: pd.DataFrame, joined: pd.DataFrame) -> None:
    """Equal but for the last of nine decimals; slopes, a quotient of differences, to seven digits."""
    slopes = [name for name in swept if name.startswith("slope")]
    pd.testing.assert_frame_equal(swept.drop(columns=slopes), joined.drop(columns=slopes), rtol=1e-11, atol=2e-9)
    pd.testing.assert_frame_equal(swept[slopes], joined[slopes], rtol=1e-7, atol=2e-9)


WEEKLY = [START + 7 * DAYS * week for week in range(5, 50)]
SHAPES = {
    "weekly at midnight": lambda _: WEEKLY,
    "daily": lambda _: [START + DAYS * day for day in range(90, 130)],
    "weekly in the afternoon": lambda _: [cutoff + pd.Timedelta(hours=15) for cutoff in WEEKLY],
    "anywhen, the same for all": lambda _: [START + DAYS * share * 400 for share in np.linspace(0.02, 0.98, 17) ** 2],
    "anywhen, each its own": lambda rng: sorted(START + pd.Timedelta(microseconds=int(at)) for at in
                                                rng.integers(10 * DAY, 420 * DAY, 12)),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shared", [compute.SHARED, 0])
def test_the_sweep_gives_what_the_join_gives(shape, shared, monkeypatch):
    """Regular and irregular cutoffs, shared or one set per account, split at all cutoffs or each account's own."""
    rng = np.random.default_rng(5)
    monkeypatch.setattr(compute, "SHARED", shared)
    points = asked({str(key): SHAPES[shape](rng) for key in range(7)})  # account 6 never did anything
    swept, joined = both(book(1), points, monkeypatch)
    same(swept, joined)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_the_sweep_gives_what_the_join_gives_on_many_books(seed, monkeypatch):
    """The same over many random books and mixed cutoffs."""
    rng = np.random.default_rng(seed)
    shape = list(SHAPES.values())[seed % len(SHAPES)]
    points = asked({str(key): shape(rng) for key in range(7)}).sample(frac=0.7, random_state=seed)
    swept, joined = both(book(seed, rows=int(rng.integers(1, 2000))), points, monkeypatch)
    same(swept, joined)


def test_what_comes_later_moves_nothing(monkeypatch):
    """Rows added after the last cutoff, or known only after it, leave every swept value as it was, to the last bit."""
    points = asked({str(key): WEEKLY[:20] for key in range(6)})
    before = compute.compute_group(book(2), points, USAGE, Catalog())
    tables = book(2)
    last = WEEKLY[19]
    tables.raw.execute(
        "INSERT INTO usage_events BY NAME SELECT * REPLACE (occurred_at + INTERVAL 400 DAY AS occurred_at, "
        "known_at + INTERVAL 400 DAY AS known_at, duration_s * 7 AS duration_s) FROM usage_events; "
        f"INSERT INTO usage_events BY NAME SELECT * REPLACE (TIMESTAMPTZ '{last}' + INTERVAL 1 SECOND AS known_at) "
        f"FROM usage_events WHERE occurred_at < '{last}'")
    after = compute.compute_group(tables, points, USAGE, Catalog())
    pd.testing.assert_frame_equal(after, before, check_exact=True)


def test_few_cutoffs_an_entity_are_joined(monkeypatch):
    """A daily run asks at one cutoff: nothing is swept, whatever the number of accounts."""
    monkeypatch.setattr(compute, "sweep", lambda *_: pytest.fail("swept"))
    points = asked({str(key): [WEEKLY[key]] for key in range(6)})
    assert len(compute.compute_group(book(3), points, USAGE, Catalog())) == 6


def test_the_grid_is_the_widest_that_holds_every_edge():
    """Windows of 7 and 28 days at cutoffs a week apart: a week; at odd hours of days: an hour; at any moment: none."""
    windows = [*count("rows", "usage", (7, 28))]
    weekly = np.array([70 * DAY, 77 * DAY, 91 * DAY])
    assert grid_of(weekly, windows, shared=True).step == 7 * DAY
    assert grid_of(weekly + np.array([0, HOUR, 5 * HOUR]), windows, shared=True).step == HOUR
    assert grid_of(weekly + np.array([0, 1, 2]), windows, shared=True).step == 0


def test_entities_are_kept_together_in_chunks(monkeypatch):
    """The values do not depend on how many points a query takes."""
    points = asked({str(key): WEEKLY for key in range(6)}).sample(frac=1, random_state=1)
    whole = compute.compute_group(book(4), points, USAGE, Catalog())
    monkeypatch.setattr(compute, "CHUNK", 37)
    pd.testing.assert_frame_equal(compute.compute_group(book(4), points, USAGE, Catalog()), whole)
