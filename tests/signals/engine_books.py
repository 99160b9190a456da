"""Random books with every table that features read, for suites that compare engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from test_own_time import DEFINED

from churnkit.cutoffs import moment
from churnkit.schemas import POINTS
from churnkit.settings import from_mapping
from churnkit.signals.catalog import Catalog
from churnkit.signals.compute import compute_features, compute_group
from churnkit.signals.engines import opened
from churnkit.signals.features import groups
from churnkit.signals.own import definitions
from churnkit.signals.streams import stream
from churnkit.signals.tables import Tables

START, AT = pd.Timestamp(moment("2025-01-01")), "2026-06-01"
ACCOUNTS, ASSETS = ("7", "007", "ä b", "Z"), ("M1", "M2", "m3")
_TEXTS = ("I love it, thank you", "This is STILL broken!!! I want to speak to a person", "we will cancel", None, "ok",
          "This is the third time. I will contact my lawyer", "Acme does it better")

SHAPES = {
    "few": [START + pd.Timedelta(days=58), START + pd.Timedelta(days=120, hours=5, microseconds=1)],
    "weekly": [START + pd.Timedelta(days=7 * week) for week in range(3, 22, 2)],
    "anywhen": [START + pd.Timedelta(days=200 * share) for share in (0.1, 0.31, 0.57, 0.6, 0.83)],
}
"""Cutoffs whose rows are joined, swept over even buckets, and swept over uneven ones."""


class _Rows:
    """Draws columns for one table; a third of its rows is known late."""

    def __init__(self, rng: np.random.Generator, most: int) -> None:
        self.rng, self.n = rng, int(rng.integers(most // 2, most + 1))

    def of(self, *values: Any) -> list[Any]:
        return [values[place] for place in self.rng.integers(0, len(values), self.n)]

    def table(self, own: str, *, later: tuple[str, ...] = (), key: str = "", **columns: list[Any]) -> pd.DataFrame:
        """Own time, known time, later times (or none) and columns; a third of the records come in a second version."""
        step = self.rng.integers(-200, 560, self.n)
        late = np.where(self.rng.random(self.n) < 0.3, self.rng.choice([0.25, 1, 30, 200], self.n), 0)
        frame = pd.DataFrame({own: START + pd.to_timedelta(step * 6, unit="h"),
                              "recorded_at": START + pd.to_timedelta((step + late) * 6, unit="h"), **columns})
        for name in later:
            gap = pd.Series(self.rng.integers(0, 400, self.n)).where(self.rng.random(self.n) < 0.7)
            frame[name] = frame[own] + pd.to_timedelta(gap * 6, unit="h")
        if key:
            frame[key] = [f"{key[0]}{number}" for number in range(self.n)]
            again = frame[self.rng.random(self.n) < 0.3].copy()
            again["recorded_at"] += pd.to_timedelta(self.rng.integers(1, 200, len(again)) * 6, unit="h")
            again["account_id"] = self.rng.choice(ACCOUNTS, len(again))
            frame = pd.concat([frame, again], ignore_index=True)
        return frame


def book(seed: int, folder: Path, rows: int = 60, **settings: Any) -> Tables:
    """All the tables, with versions, late rows, missing values, two currencies, texts and a workspace's own tables."""
    rng = np.random.default_rng(seed)
    draw = {name: _Rows(rng, most) for name, most in {
        "usage_events": rows * 8, "telemetry": rows * 5, "asset_events": rows * 6,
        "clicks": rows * 3, "record_changes": rows,
        **dict.fromkeys(("support_tickets", "ticket_messages", "surveys", "invoices", "subscriptions", "touches",
                         "contacts", "outreach_outcomes", "opportunities", "trainings"), rows)}.items()}
    maybe, whole = (None, 1.0, 2.5, 4.0, 5.0), (None, 0, 1, 2)

    def of(name: str, own: str, **how: Any) -> pd.DataFrame:
        rows = draw[name]
        key = how.pop("key", "")
        later = how.pop("later", ())
        entity = how.pop("entity", {"account_id": rows.of(*ACCOUNTS)})
        words = {name: rows.of(*values) for name, values in how.items()}
        return rows.table(own, later=later, key=key, **entity, **words)

    assets = {name: {"asset_id": draw[name].of(*ASSETS)} for name in ("telemetry", "asset_events", "clicks")}
    frames = {
        "accounts": pd.DataFrame({
            "account_id": [*ACCOUNTS, "7", "Z"], "created_at": START - pd.Timedelta(days=400),
            "segment": ["big", "small", "Ärger", None, "small", "big"],
            "owner": ["kim", "kim", "lee", None, "lee", "o"],
            "recorded_at": [START - pd.Timedelta(days=400)] * 4 + [START + pd.Timedelta(days=50)] * 2}),
        "usage_events": of("usage_events", "occurred_at", event=("open", "export", "Open", "other"),
                           user_id=("u1", "u2", "U1", None), duration_s=(None, 0.1, 30.0, 1e6), users=maybe),
        "support_tickets": of("support_tickets", "opened_at", key="ticket_id", csat=(None, 1, 2, 5), effort=maybe,
                              reassigned_count=whole, subject=_TEXTS, body=_TEXTS, priority=("urgent", "low"), later=(
            "first_replied_at", "resolved_at", "escalated_at", "reopened_at", "rated_at", "human_requested_at",
            "handed_over_at")),
        "ticket_messages": of("ticket_messages", "occurred_at", ticket_id=("t1", "t2"), text=_TEXTS,
                              author=("customer", "agent", None)),
        "surveys": of("surveys", "responded_at", kind=("nps", "csat", "ces"), score=(0, 1.5, 6, 7, 10), text=_TEXTS),
        "invoices": of("invoices", "issued_at", key="invoice_id", amount=(None, 10.1, 99.99, 1e6, -5.0),
                       currency=("EUR", "USD"), failed_attempts=whole, later=("due_at", "paid_at")),
        "subscriptions": of("subscriptions", "started_at", plan=("small", "large", "extra", None), seats=maybe,
                            subscription_id=("s1", "s2", None), mrr=(None, 10.1, 99.99), currency=("EUR", "USD"),
                            auto_renew=(True, False, None), billing_months=(None, 1, 12),
                            later=("ended_at", "end_recorded_at", "renews_at")),
        "touches": of("touches", "occurred_at", by=("kim", "Bot", None), direction=("inbound", None)),
        "contacts": of("contacts", "recorded_at", key="contact_id", role=("champion", "user"), later=("left_at",)),
        "outreach_outcomes": of("outreach_outcomes", "occurred_at", status=("completed", "dismissed"), play=("save",),
                                key="key"),
        "opportunities": of("opportunities", "opened_at", kind=("renewal", "expansion"), won=(True, None),
                            later=("closed_at",)),
        "record_changes": of("record_changes", "changed_at", table=("support_tickets", "invoices", "accounts"),
                             id=("t1", "t2", "i1", "i2"), entity={}, value=("1", None),
                             field=("assignee", "failed_attempts", "owner", "reassigned_count")),
        "assets": pd.DataFrame({
            "asset_id": [*ASSETS, "M2"], "account_id": ["7", "7", "007", "Z"], "model": ["x", "Y", None, "Y"],
            "installed_at": [START - pd.Timedelta(days=100), *[START + pd.Timedelta(days=20)] * 3],
            "retired_at": [None, None, START + pd.Timedelta(days=90), None],
            "recorded_at": [START - pd.Timedelta(days=100), *[START + pd.Timedelta(days=20)] * 2,
                            START + pd.Timedelta(days=70)]}),
        "telemetry": of("telemetry", "occurred_at", entity=assets["telemetry"], sensor=("heat", "Heat"),
                        value=(-5.0, 0.0, 0.1, 1e3, 1e3 + 0.5)),
        "asset_events": of("asset_events", "occurred_at", entity=assets["asset_events"],
                           kind=("error", "maintenance", "failure"), code=("e1", "e2", "pump", None)),
        "trainings": of("trainings", "held_at", key="training_id", course=("a", "b", "c", None), hours=maybe,
                        passed=(True, False, None), score=maybe, later=("graded_at", "over_at")),
        "clicks": of("clicks", "clicked_at", entity=assets["clicks"], n=maybe, button=("l", "r", None)),
    }
    usage = frames["usage_events"]
    usage.loc[(usage["occurred_at"] > START + pd.Timedelta(days=60)) & (usage["event"] == "other"), "event"] = "newest"
    frames["support_tickets"]["rated_at"] = frames["support_tickets"]["rated_at"].where(
        frames["support_tickets"]["resolved_at"].notna())
    (folder / "own.toml").write_text(DEFINED)
    asked = {"covers_until": AT, "tables": {"invalid": "drop"}, "rates": {"USD": 0.9}, "features": {"own": "own.toml"},
             "text": {"competitors": ["Acme"]}}
    return Tables.from_frames(from_mapping({**asked, **settings}, folder), at=AT, **frames)


def catalog(tables: Tables) -> Catalog:
    """The books' words, and the own definitions of their workspace."""
    return Catalog(events=("open", "export"), sensors=("heat",), error_codes=("e1", "e2"), components=("pump",),
                   plans=("small", "large"), addons=("extra",), own=definitions(tables.settings).text)


def points(cutoffs: list[Any]) -> pd.DataFrame:
    """Every account and asset at every cutoff, and one of each that no table knows."""
    rows = [(f"{entity}:{key}@{cutoff.isoformat()}", entity, key, key, cutoff) for cutoff in cutoffs
            for entity, keys in (("account", ACCOUNTS), ("asset", ASSETS)) for key in (*keys, "nobody")]
    return pd.DataFrame(rows, columns=list(POINTS))


def features(tables: Tables, shape: str) -> pd.DataFrame:
    """All features at few cutoffs; at more of them those of heavy streams, which alone are computed otherwise then."""
    asked, words = points(SHAPES[shape]), catalog(tables)
    if shape == "few":
        return compute_features(tables, asked, words)
    heavy = [group for group in groups(words).values() if any(stream(name, words).heavy for name in group.streams)]
    with opened(tables):
        return pd.concat([compute_group(tables, asked[asked["entity"] == group.entity], group, words)
                          for group in heavy], axis=1)


def on(tables: Tables, engine: str, **settings: Any) -> Tables:
    """The same tables with another engine in their settings."""
    tables.settings = tables.settings.model_copy(update={"engine": engine, **settings})
    return tables


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Equal value by value, but for the last of nine decimals; slopes, a quotient of differences, to seven digits."""
    slopes = [name for name in expected if "slope" in name or "trend" in name]
    pd.testing.assert_frame_equal(found.drop(columns=slopes), expected.drop(columns=slopes), rtol=1e-11, atol=2e-9)
    pd.testing.assert_frame_equal(found[slopes], expected[slopes], rtol=1e-7, atol=2e-9)
