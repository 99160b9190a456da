"""The rules of time for features of a workspace's own, on random own tables: equal to a naive loop, and blind ahead."""

from __future__ import annotations

import datetime as dt
import statistics

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from churnkit.cutoffs import moment
from churnkit.schemas import POINTS
from churnkit.settings import from_mapping
from churnkit.signals.catalog import Catalog
from churnkit.signals.compute import compute_group
from churnkit.signals.own import definitions, parsed
from churnkit.signals.tables import Tables

START = moment("2025-01-01")
CUTOFFS = [START + dt.timedelta(days=days) for days in (10, 20, 38, 50)]
ACCOUNTS, ASSETS = ("7", "007"), ("M1", "M2")
FEW = settings(max_examples=3, phases=(Phase.explicit, Phase.reuse, Phase.generate), deadline=None,
               suppress_health_check=list(HealthCheck))
NAN = float("nan")
DEFINED = """
[tables.trainings]
at = "held_at"
until = "over_at"
record = "training_id"
types = { course = "category", hours = "number", passed = "flag", score = "number", graded_at = "time" }
since = { score = "graded_at" }

[tables.clicks]
entity = "asset"
at = "clicked_at"
types = { n = "number", button = "id" }

[groups.learning]
table = "trainings"
features.trainings = { op = "count", windows = [7, "36h"], compared = [7], where = { hours = ">= 2" } }
features.hours_total = { op = "total", of = "hours", windows = [28] }
features.hours_mean = { op = "mean", of = "hours", windows = [28] }
features.hours_median = { op = "median", of = "hours", windows = [28] }
features.hours_spread = { op = "spread", of = "hours", windows = [28] }
features.hours_least = { op = "lowest", of = "hours", windows = [28] }
features.hours_most = { op = "highest", of = "hours", windows = [28] }
features.courses = { op = "distinct", of = "course", windows = [28] }
features.passed = { op = "share", where = { passed = true }, windows = [28] }
features.failed_any = { op = "flag", where = { passed = false }, windows = [28] }
features.last_course = { op = "last", of = "course" }
features.last_score = { op = "last", of = "score" }
features.low_scores = { op = "count", where = { score = "< 3" }, windows = [28] }
features.days_since_ab = { op = "days_since", where = { course = ["a", "b"] } }
features.running = { op = "open_at" }
features.running_hours = { op = "open_at", measure = "total", of = "hours" }
features.running_then = { op = "open_at", before = 14 }
features.running_oldest = { op = "open_at", measure = "age" }
features.hours_per_running = { op = "ratio", of = "hours_total_28d", by = "running" }
features.trainings_change_7d = { op = "change", of = "trainings_7d", by = "trainings_7d_before" }
features.running_more = { op = "difference", of = "running", by = "running_then" }

[groups.clicking]
entity = "asset"
table = "clicks"
features.clicks = { op = "count", windows = [1, 28] }
features.click_days = { op = "distinct", of = "day", windows = [28] }
features.click_slope = { op = "slope", of = "n", windows = [28] }
features.click_last = { op = "last", of = "n" }
features.click_most = { op = "highest", of = "n", windows = ["36h"] }

[groups.rated]
table = "support_tickets"
features.ratings_low = { op = "count", where = { csat = "<= 2" }, windows = [28] }
features.rating_best = { op = "highest", of = "csat", windows = [28] }
features.urgent_open = { op = "open_at", where = { priority = "urgent" } }
"""
_steps = st.integers(-100, 240)
_delays = st.sampled_from([0, 0, 0, 1, 30, 120])
_maybe = st.one_of(st.none(), st.integers(1, 5).map(float))


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """The settings of a workspace whose features.toml is DEFINED."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "features.toml").write_text(DEFINED)
    return from_mapping({"covers_until": "2026-06-01", "invalid": "drop", "features": {"own": "features.toml"}}, folder)


def _time(step):
    return (START + dt.timedelta(hours=6 * step)).isoformat()


@st.composite
def _rows(draw, columns, own, later=(), most=20):
    """Rows with an own time, later times after it (or none), a recorded time, and drawn values."""
    rows = []
    for _ in range(draw(st.integers(0, most))):
        step = draw(_steps)
        row = {own: _time(step), "recorded_at": _time(step + draw(_delays))}
        gaps = {name: draw(st.one_of(st.none(), st.integers(0, 200))) for name in later}
        row |= {name: None if gap is None else _time(step + gap) for name, gap in gaps.items()}
        rows.append(row | {name: draw(values) for name, values in columns.items()})
    return pd.DataFrame(rows, columns=[own, "recorded_at", *later, *columns])


@st.composite
def _books(draw):
    """Own tables and tickets, small and full of edges; a training may have several versions."""
    number = st.integers(0, 9).map(str)
    account = {"account_id": st.sampled_from(ACCOUNTS)}
    return {
        "accounts": pd.DataFrame({"account_id": ACCOUNTS, "created_at": START - dt.timedelta(days=400)}),
        "assets": pd.DataFrame({"asset_id": ASSETS, "account_id": "7", "installed_at": START}),
        "trainings": draw(_rows({**account, "training_id": number, "course": st.sampled_from(["a", "b", "c", None]),
                                 "hours": _maybe, "score": _maybe, "passed": st.sampled_from(["yes", "no", None])},
                                "held_at", later=("over_at", "graded_at"))),
        "clicks": draw(_rows({"asset_id": st.sampled_from(ASSETS), "n": _maybe, "button": number}, "clicked_at",
                             most=30)),
        "support_tickets": draw(_rows({**account, "ticket_id": number, "csat": _maybe,
                                       "priority": st.sampled_from(["urgent", "low"])}, "opened_at",
                                      later=("resolved_at", "rated_at"))),
    }


def points(cutoffs=CUTOFFS):
    """Every account and asset at every cutoff."""
    rows = [{"row_id": f"{entity}:{key}@{cutoff.isoformat()}", "entity": entity, "entity_id": key, "account_id": key,
             "cutoff": cutoff}
            for cutoff in cutoffs for entity, keys in (("account", ACCOUNTS), ("asset", ASSETS)) for key in keys]
    return pd.DataFrame(rows, columns=list(POINTS))


def features(mine, frames, cutoffs=CUTOFFS):
    """The own features of a book, and the tables that they were computed on."""
    tables = Tables.from_frames(mine, at="2026-06-01", **frames)
    asked, catalog = points(cutoffs), Catalog(own=definitions(mine).text)
    for group in parsed(catalog.own).groups.values():
        asked = asked.join(compute_group(tables, asked[asked["entity"] == group.entity], group, catalog))
    return asked, tables


def _kept(frame):
    """The rows that validation kept, times as datetimes and missing values as None."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{key: value.to_pydatetime() if isinstance(value, pd.Timestamp) else value for key, value in row.items()}
            for row in rows]


def _seen(rows, key, identity, cutoff, record=""):
    """The rows of one entity known at the cutoff; of each record the version known last, whosever it was before."""
    known = [row for row in rows if row["known_at"] <= cutoff]
    if record:
        newest = {row[record]: max(one["known_at"] for one in known if one[record] == row[record]) for row in known}
        known = [row for row in known if row["known_at"] == newest[row[record]]]
    return [row for row in known if row[key] == identity]


def _within(rows, at, cutoff, days, before=0.0):
    end = cutoff - dt.timedelta(days=before)
    return [row for row in rows if row[at] is not None and end - dt.timedelta(days=days) <= row[at] < end]


def _values(rows, of):
    return [row[of] for row in rows if row[of] is not None]


def _total(rows, of):
    values = _values(rows, of)
    return (sum(values) if values else NAN) if rows else 0.0


def _last(rows, at, of):
    told = [(row[at], row[of]) for row in rows if row[of] is not None]
    return max(told)[1] if told else None


def _open(rows, moment_):
    return [row for row in rows if row["held_at"] < moment_ and (row["over_at"] is None or row["over_at"] >= moment_)]


def _over(one, other):
    return one / other if other else NAN


def _learning(rows, account, cutoff):
    """The features of [groups.learning], by loops."""
    seen = _seen(rows, "account_id", account, cutoff, "training_id")
    past = [row for row in seen if row["held_at"] < cutoff]
    month = _within(seen, "held_at", cutoff, 28)
    graded = [row for row in seen if row["graded_at"] is not None and row["graded_at"] < cutoff]
    long = [row for row in seen if row["hours"] is not None and row["hours"] >= 2]
    week, before = (len(_within(long, "held_at", cutoff, 7, gap)) for gap in (0, 7))
    hours, total = _values(month, "hours"), _total(month, "hours")
    courses = _values(month, "course")
    ab = [(cutoff - row["held_at"]) / dt.timedelta(days=1) for row in past if row["course"] in ("a", "b")]
    now, then = _open(seen, cutoff), _open(seen, cutoff - dt.timedelta(days=14))
    return {
        "trainings_7d": week, "trainings_7d_before": before,
        "trainings_36h": len(_within(long, "held_at", cutoff, 1.5)),
        "hours_total_28d": total, "hours_mean_28d": statistics.fmean(hours) if hours else NAN,
        "hours_median_28d": statistics.median(hours) if hours else NAN,
        "hours_spread_28d": statistics.pstdev(hours) if hours else NAN,
        "hours_least_28d": min(hours, default=NAN), "hours_most_28d": max(hours, default=NAN),
        "courses_28d": len(set(courses)) if courses or not month else NAN,
        "passed_28d": _over(sum(row["passed"] is True for row in month), len(month)),
        "failed_any_28d": float(any(row["passed"] is False for row in month)),
        "last_course": _last(past, "held_at", "course"),
        "last_score": _last(graded, "graded_at", "score") or NAN,
        "low_scores_28d": sum(row["score"] is not None and row["score"] < 3
                              for row in _within(seen, "graded_at", cutoff, 28)),
        "days_since_ab": min(ab, default=NAN), "running": len(now), "running_hours": _total(now, "hours"),
        "running_then": len(then), "running_more": len(now) - len(then),
        "running_oldest": max(((cutoff - row["held_at"]) / dt.timedelta(days=1) for row in now), default=NAN),
        "hours_per_running": _over(total, len(now)), "trainings_change_7d": _over(week, before) - 1,
    }


def _clicking(rows, asset, cutoff):
    """The features of [groups.clicking], by loops."""
    seen = [row for row in _seen(rows, "asset_id", asset, cutoff) if row["clicked_at"] < cutoff]
    month = _within(seen, "clicked_at", cutoff, 28)
    told = [row for row in month if row["n"] is not None]
    x = [(row["clicked_at"] - START) / dt.timedelta(days=1) for row in told]
    steep = np.polyfit(x, [row["n"] for row in told], 1)[0] if len(set(x)) > 1 else NAN
    return {
        "clicks_1d": len(_within(seen, "clicked_at", cutoff, 1)), "clicks_28d": len(month),
        "click_days_28d": len({row["clicked_at"].date() for row in month}), "click_slope_28d": steep,
        "click_last": _last(seen, "clicked_at", "n") or NAN,
        "click_most_36h": max(_values(_within(seen, "clicked_at", cutoff, 1.5), "n"), default=NAN),
    }


def _rated(rows, account, cutoff):
    """The features of [groups.rated], by loops: a rating counts from when it was given."""
    seen = _seen(rows, "account_id", account, cutoff, "ticket_id")
    rated = [row | {"given": row["rated_at"] or row["resolved_at"]} for row in seen]
    month = _values(_within(rated, "given", cutoff, 28), "csat")
    return {
        "ratings_low_28d": sum(value <= 2 for value in month), "rating_best_28d": max(month, default=NAN),
        "urgent_open": sum(row["priority"] == "urgent" and row["opened_at"] < cutoff and (
            row["resolved_at"] is None or row["resolved_at"] >= cutoff) for row in seen),
    }


def _compare(found, tables):
    rows = {name: _kept(tables[name]) for name in ("trainings", "clicks", "support_tickets")}
    for point in found.to_dict("records"):
        key, cutoff = point["entity_id"], point["cutoff"].to_pydatetime()
        expected = (_clicking(rows["clicks"], key, cutoff) if point["entity"] == "asset" else
                    _learning(rows["trainings"], key, cutoff) | _rated(rows["support_tickets"], key, cutoff))
        for name, value in expected.items():
            where = f"{name} of {key} at {cutoff}"
            if isinstance(value, str) or value is None:
                assert value == point[name], where
            else:
                np.testing.assert_allclose(point[name], value, rtol=0, atol=1e-7, err_msg=where)


@FEW
@given(_books())
def test_own_features_equal_a_naive_loop(mine, frames):
    """Every operation, at many cutoffs at once, with versions of records, late rows and values that come later."""
    _compare(*features(mine, frames))


@settings(FEW, max_examples=2)
@given(_books())
def test_a_cutoff_by_itself_equals_the_loop_too(mine, frames):
    """One cutoff an entity takes another path through the engine, at an odd hour at that."""
    _compare(*features(mine, frames, [CUTOFFS[1] + dt.timedelta(hours=5, microseconds=1)]))


@FEW
@given(_books(), st.randoms(use_true_random=False))
def test_what_is_recorded_after_a_cutoff_changes_no_own_feature_at_it(mine, frames, random):
    """Later rows are dropped, moved to others and rewritten; later times of known rows are moved about."""
    cutoff = CUTOFFS[2]
    expected, _ = features(mine, frames, CUTOFFS[:3])
    changed = {name: _scrambled(frame, cutoff, random) for name, frame in frames.items()}
    found, _ = features(mine, changed, CUTOFFS[:3])
    pd.testing.assert_frame_equal(expected, found, check_exact=False, rtol=0, atol=2e-9)


def _scrambled(frame, cutoff, random):
    if "recorded_at" not in frame or not len(frame):
        return frame
    rows = frame.copy()
    late = pd.to_datetime(rows["recorded_at"], utc=True) > cutoff
    for column in rows.select_dtypes("number"):
        rows.loc[late, column] = random.choice([1.0, 4.0])
    for name in ("over_at", "graded_at", "resolved_at", "rated_at"):
        if name in rows:
            ahead = pd.to_datetime(rows[name], utc=True) >= cutoff
            rows[name] = [_time(random.randint(240, 300)) if move else value
                          for move, value in zip(ahead, rows[name], strict=True)]
    gone = late & np.array([random.random() < 0.5 for _ in late], dtype=bool)
    return rows[~gone]
