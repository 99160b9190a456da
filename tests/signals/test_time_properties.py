"""What must hold of any tables: the past never changes, windows equal a naive loop, and order does not matter."""

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
from churnkit.signals.compute import compute_features
from churnkit.signals.features import groups
from churnkit.signals.points import points_at
from churnkit.signals.tables import Tables

START = moment("2025-01-01")
CUTOFFS = [START + dt.timedelta(days=days) for days in (30, 58, 86, 120)]
ACCOUNTS, ASSETS = ("7", "007"), ("M1", "M2")
CATALOG = Catalog(events=("open", "export"), sensors=("heat",), error_codes=("e1", "e2"), components=("pump",),
                  plans=("small", "large"), addons=("extra",))
SETTINGS = from_mapping({"covers_until": "2026-06-01", "invalid": "drop"})
FEW = settings(max_examples=4, phases=(Phase.explicit, Phase.reuse, Phase.generate), deadline=None,
               suppress_health_check=list(HealthCheck))

# Times on a grid of six hours meet cutoffs and windows' edges often.
_steps = st.integers(-200, 560)
_delays = st.sampled_from([0, 0, 0, 1, 30, 200])


@st.composite
def _rows(draw, columns, own, *, later=(), most=14):
    """Rows with an own time, later times after it (or none), a recorded time, and drawn values."""
    rows = []
    for number in range(draw(st.integers(0, most))):
        step = draw(_steps)
        row = {own: _time(step), "recorded_at": _time(step + draw(_delays)), "number": number}
        for name in later:
            gap = draw(st.one_of(st.none(), st.integers(0, 400)))
            row[name] = None if gap is None else _time(step + gap)
        row |= {name: draw(values) for name, values in columns.items()}
        rows.append(row)
    names = [own, "recorded_at", "number", *later, *columns]
    return pd.DataFrame(rows, columns=names)


def _time(step):
    return (START + dt.timedelta(hours=6 * step)).isoformat()


_account = {"account_id": st.sampled_from(ACCOUNTS)}
_asset = {"asset_id": st.sampled_from(ASSETS)}
_maybe = st.one_of(st.none(), st.integers(1, 5).map(float))


@st.composite
def _books(draw):
    """All the tables that features read, small and full of edges."""
    frames = {
        "accounts": pd.DataFrame({"account_id": ACCOUNTS, "created_at": START - dt.timedelta(days=400)}),
        "usage_events": draw(_rows({**_account, "event": st.sampled_from(["open", "export", "other"]), "user_id":
                                    st.sampled_from(["u1", "u2", None]), "duration_s": _maybe}, "occurred_at",
                                    most=30)),
        "support_tickets": draw(_rows({**_account, "csat": _maybe, "effort": _maybe, "reassigned_count":
                                       st.sampled_from([None, 0, 2])}, "opened_at", later=(
            "first_replied_at", "resolved_at", "escalated_at", "reopened_at", "rated_at", "human_requested_at",
            "handed_over_at"))),
        "surveys": draw(_rows({**_account, "kind": st.sampled_from(["nps", "csat"]),
                               "score": st.integers(0, 10).map(float)},
                              "responded_at")),
        "invoices": draw(_rows({**_account, "amount": _maybe, "failed_attempts": st.sampled_from([0, 1])}, "issued_at",
                               later=("due_at", "paid_at"))),
        "subscriptions": draw(_rows({**_account, "plan": st.sampled_from(["small", "large", "extra"]), "seats": _maybe,
                                     "mrr": _maybe}, "started_at", later=("ended_at", "end_recorded_at", "renews_at"))),
        "touches": draw(_rows({**_account, "by": st.sampled_from(["kim", "bot"])}, "occurred_at")),
        "contacts": draw(_rows({**_account, "role": st.sampled_from(["champion", "user"])}, "left_at")),
        "outreach_outcomes": draw(_rows({**_account, "status": st.sampled_from(["completed", "dismissed"])},
                                        "occurred_at")),
        "assets": pd.DataFrame({"asset_id": ASSETS, "account_id": ["7", "7"], "model": "x",
                                "installed_at": START - dt.timedelta(days=100)}),
        "telemetry": draw(_rows({**_asset, "sensor": st.just("heat"), "value": st.integers(-5, 5).map(float)},
                                "occurred_at")),
        "asset_events": draw(_rows({**_asset, "kind": st.sampled_from(["error", "maintenance", "failure"]), "code":
                                    st.sampled_from(["e1", "e2", "pump"])}, "occurred_at")),
    }
    ids = {"support_tickets": "ticket_id", "invoices": "invoice_id", "contacts": "contact_id",
           "outreach_outcomes": "key"}
    for name, key in ids.items():
        frames[name][key] = frames[name]["number"].astype(str)
    frames["outreach_outcomes"]["play"] = "save"
    return {name: frame.drop(columns="number", errors="ignore") for name, frame in frames.items()}


def points(cutoffs=CUTOFFS):
    """Every account and asset at every cutoff, served or not."""
    rows = [{"row_id": f"{entity}:{key}@{cutoff.isoformat()}", "entity": entity, "entity_id": key, "account_id": key,
             "cutoff": cutoff}
            for cutoff in cutoffs for entity, keys in (("account", ACCOUNTS), ("asset", ASSETS)) for key in keys]
    return pd.DataFrame(rows, columns=list(POINTS))


def features(frames, cutoffs=CUTOFFS):
    """All features of a book at the cutoffs."""
    return compute_features(Tables.from_frames(SETTINGS, at="2026-06-01", **frames), points(cutoffs), CATALOG)


@FEW
@given(_books(), st.randoms(use_true_random=False))
def test_nothing_recorded_after_a_cutoff_changes_a_feature_at_it(frames, random):
    """Rows recorded later are scrambled, dropped or doubled; later times of known rows are moved about."""
    cutoff = CUTOFFS[2]
    expected = features(frames, CUTOFFS[:3])
    changed = {}
    for name, frame in frames.items():
        rows = frame.copy()
        if "recorded_at" in rows and len(rows):
            own = pd.to_datetime(rows["recorded_at"], utc=True)
            late = own > cutoff
            numbers = rows.select_dtypes("number").columns
            for column in numbers:
                rows.loc[late, column] = rows.loc[late, column].sample(frac=1,
                                                                       random_state=random.randint(0, 99)).to_numpy()
            gone = late & np.array([random.random() < 0.5 for _ in late], dtype=bool)
            rows = rows[~gone]
            for column in ("resolved_at", "escalated_at", "rated_at", "paid_at", "ended_at", "handed_over_at",
                           "reopened_at"):
                if column in rows:
                    after = pd.to_datetime(rows[column], utc=True) > cutoff
                    if column == "ended_at":  # a notice already given names its end beforehand: that one is known
                        after &= pd.to_datetime(rows["end_recorded_at"], utc=True).isna()
                    # A rating without a time counts from the ticket's end: a later one is moved, not untimed.
                    rows.loc[after, column] = _time(600) if column == "rated_at" else random.choice([None, _time(600)])
                    if column == "rated_at":
                        rows.loc[after, ["csat", "effort"]] = float(random.randint(1, 5))
        changed[name] = rows
    found = features(changed, CUTOFFS[:3])
    pd.testing.assert_frame_equal(expected, found, check_exact=False, rtol=0, atol=2e-9)


@FEW
@given(_books(), st.integers(0, 99))
def test_the_order_of_rows_is_irrelevant(frames, seed):
    """Shuffled tables give the same features."""
    shuffled = {name: frame.sample(frac=1, random_state=seed) for name, frame in frames.items()}
    pd.testing.assert_frame_equal(features(frames), features(shuffled), check_exact=False, rtol=0, atol=2e-9)


@FEW
@given(_books())
def test_counts_grow_with_the_window(frames):
    """What happened in the last 7 days happened in the last 28 and 84 too."""
    found = features(frames)
    for group in groups(CATALOG).values():
        for item in group.features:
            wider = {7: 28, 28: 84}.get(item.window_days or 0)
            name = item.name.replace(f"_{item.window_days}d", f"_{wider}d")
            if wider and not item.before and item.op in ("count", "total", "distinct",
                                                         "flag") and name in group.by_name:
                narrow, wide = found[item.name], found[name]
                assert not (narrow > wide).any(), item.name


@FEW
@given(_books())
def test_a_point_does_not_depend_on_the_other_points(frames):
    """Each cutoff by itself, and cutoffs that no calendar has, give what they give among others."""
    odd = [*CUTOFFS, CUTOFFS[1] + dt.timedelta(hours=5, microseconds=1)]
    together = features(frames, odd).set_index("row_id")
    tables = Tables.from_frames(SETTINGS, at="2026-06-01", **frames)
    for cutoff in odd:
        alone = compute_features(tables, points([cutoff]), CATALOG).set_index("row_id")
        pd.testing.assert_frame_equal(together.loc[alone.index], alone, check_exact=False, rtol=0, atol=2e-9)


def _seen(frame, key, identity, cutoff, own):
    """The rows of one entity that a person with a calendar would see at the cutoff."""
    for row in frame.to_dict("records"):
        when, known = moment(row[own]), moment(row["recorded_at"])
        if row[key] == identity and when < cutoff and known <= cutoff:
            yield row | {"when": when, "age": (cutoff - when) / dt.timedelta(days=1)}


def _past(value, cutoff):
    return isinstance(value, str) and moment(value) < cutoff


def _naive(frames, account, cutoff):
    """A dozen features of an account, by loops over the rows."""
    days = dt.timedelta(days=1)
    uses = list(_seen(frames["usage_events"], "account_id", account, cutoff, "occurred_at"))
    tickets = list(_seen(frames["support_tickets"], "account_id", account, cutoff, "opened_at"))
    scores = sorted((row["when"], row["score"]) for row in _seen(frames["surveys"], "account_id", account, cutoff,
                                                                 "responded_at") if row["kind"] == "nps")
    invoices = list(_seen(frames["invoices"], "account_id", account, cutoff, "issued_at"))
    overdue = [row for row in invoices if _past(row["due_at"], cutoff) and not _past(row["paid_at"], cutoff)]
    is_open = [row for row in tickets if not _past(row["resolved_at"], cutoff) or (
        _past(row["reopened_at"], cutoff) and moment(row["reopened_at"]) >= moment(row["resolved_at"]))]
    replies = [(moment(row["first_replied_at"]) - row["when"]) / dt.timedelta(hours=1) for row in tickets
               if _past(row["first_replied_at"], cutoff) and cutoff - moment(row["first_replied_at"]) <= 84 * days]
    month = [row for row in uses if row["age"] <= 28]
    users = {row["user_id"] for row in month if row["user_id"]}
    first_uses = {}
    for row in uses:
        first_uses[row["event"]] = max(first_uses.get(row["event"], 0), row["age"])
    nan = float("nan")
    return {
        "events_7d": sum(row["age"] <= 7 for row in uses),
        "events_28d_before": sum(28 < row["age"] <= 56 for row in uses),
        "active_days_84d": len({row["when"].date() for row in uses if row["age"] <= 84}),
        "active_users_28d": nan if month and not users else len(users),
        "days_since_last_event": min((row["age"] for row in uses), default=nan),
        "new_features_28d": sum(age <= 28 for age in first_uses.values()),
        "event_open_28d": sum(row["event"] == "open" for row in month),
        "tickets_opened_84d": sum(row["age"] <= 84 for row in tickets),
        "tickets_open": len(is_open),
        "oldest_ticket_days": max((row["age"] for row in is_open), default=nan),
        "tickets_escalated_28d": sum(_past(row["escalated_at"],
                                           cutoff) and cutoff - moment(row["escalated_at"]) <= 28 * days
                                     for row in tickets),
        "first_reply_hours_median_84d": statistics.median(replies) if replies else nan,
        "nps_last": scores[-1][1] if scores else nan,
        "nps_before": scores[-2][1] if len(scores) > 1 else nan,
        "overdue_days": max(((cutoff - moment(row["due_at"])) / days for row in overdue), default=nan),
    }


@settings(FEW, max_examples=6)
@given(_books())
def test_windows_equal_a_naive_loop(frames):
    """Counted again by plain loops over the rows that validation kept, every value is the same."""
    tables = Tables.from_frames(SETTINGS, at="2026-06-01", **frames)
    kept = {name: _texts(tables[name]) for name in ("usage_events", "support_tickets", "surveys", "invoices")}
    found = compute_features(tables, points(), CATALOG)
    for row in found[found["entity"] == "account"].to_dict("records"):
        for name, expected in _naive(kept, row["entity_id"], row["cutoff"].to_pydatetime()).items():
            np.testing.assert_allclose(row[name], expected, rtol=0, atol=1e-8, err_msg=f"{name} at {row['cutoff']}")


def _texts(frame):
    """Times as text, missing ones as None; known_at stands for recorded_at."""
    frame = frame.assign(recorded_at=frame["known_at"])
    for name in frame.select_dtypes("datetimetz"):
        frame[name] = [None if pd.isna(value) else value.isoformat() for value in frame[name]]
    return frame


def test_ids_that_differ_in_leading_zeros_never_meet():
    """'007' has its own use, '7' has none."""
    frames = {"accounts": pd.DataFrame({"account_id": ACCOUNTS, "created_at": START}),
              "subscriptions": pd.DataFrame({"account_id": ACCOUNTS, "started_at": START}),
              "usage_events": pd.DataFrame({"account_id": ["007"], "event": "open", "occurred_at": START})}
    tables = Tables.from_frames(SETTINGS, at="2026-06-01", **frames)
    found = compute_features(tables, points_at(tables, "account", CUTOFFS[:1]), CATALOG).set_index("entity_id")
    assert found["events_84d"].to_dict() == {"007": 1.0, "7": 0.0}


@pytest.mark.parametrize("grain", ["hour", "day"])
def test_a_summed_row_is_seen_whole_or_not_at_all(grain):
    """A period that the cutoff cuts in two is not known yet."""
    tables = Tables.from_frames(
        from_mapping({"covers_until": "2026-06-01", "tables": {"usage_events": {"grain": grain}}}), at="2026-06-01",
        accounts=pd.DataFrame({"account_id": ["7"], "created_at": START}),
        usage_events=pd.DataFrame({"account_id": "7", "event": "open", "quantity": [3.0], "occurred_at": CUTOFFS[0]}))
    span = {"hour": dt.timedelta(hours=1), "day": dt.timedelta(days=1)}[grain]
    micro = dt.timedelta(microseconds=1)
    asked = points([CUTOFFS[0] + span - micro, CUTOFFS[0] + span])
    found = compute_features(tables, asked[asked["entity_id"] == "7"], CATALOG)
    assert list(found["events_7d"]) == [0.0, 3.0]
