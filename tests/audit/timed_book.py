"""A small made-up book with true times, and what an export of it showed at a moment."""

from __future__ import annotations

import numpy as np
import pandas as pd

from churnkit.cutoffs import moment
from churnkit.settings import from_mapping
from churnkit.signals.tables import Tables

START, AT = pd.Timestamp("2025-01-01", tz="UTC"), moment("2026-01-01")
HALF = moment("2025-09-15")
SETTINGS = from_mapping({"covers_until": "2026-01-01"})


def times(dice, size, low=0.0, high=365.0):
    """Times between two days of the year, to the second."""
    return START + pd.to_timedelta((dice.uniform(low, high, size) * 86_400).astype(int), unit="s")


def book(accounts=40, seed=3):
    """Frames of the contract: every row is known at its own time, or a few minutes later where it has recorded_at."""
    dice = np.random.default_rng(seed)
    ids = np.array([f"A{n:03d}" for n in range(accounts)])
    born = times(dice, accounts, -300, -30)
    frames = {"accounts": pd.DataFrame({"account_id": ids, "created_at": born, "recorded_at": born,
                                        "segment": dice.choice(["small", "large"], accounts)})}
    ends = times(dice, accounts, 60, 360).to_series().where(dice.random(accounts) < 0.3).to_numpy()
    ends = pd.to_datetime(pd.Series(ends), utc=True)
    frames["subscriptions"] = pd.DataFrame({
        "account_id": ids, "subscription_id": ids, "started_at": born, "ended_at": ends, "plan": "team", "seats": 5.0,
        "mrr": 100.0, "auto_renew": dice.random(accounts) < 0.7, "recorded_at": born})
    whose = np.repeat(ids, 20)
    frames["touches"] = pd.DataFrame({"account_id": whose, "occurred_at": times(dice, len(whose)), "channel": "call",
                                      "by": "kim"})
    whose = np.repeat(ids, 10)
    opened = times(dice, len(whose))
    resolved = opened + pd.to_timedelta(dice.integers(1, 20 * 86_400, len(whose)), unit="s")
    rated = resolved + pd.to_timedelta(dice.integers(1, 10 * 86_400, len(whose)), unit="s")
    frames["support_tickets"] = pd.DataFrame({
        "ticket_id": [f"T{n:04d}" for n in range(len(whose))], "account_id": whose, "opened_at": opened,
        "resolved_at": resolved, "csat": dice.integers(1, 6, len(whose)).astype(float), "rated_at": rated,
        "reassigned_count": dice.integers(0, 4, len(whose)), "recorded_at": opened + pd.Timedelta(minutes=5)})
    frames["support_tickets"] = seen_by(frames["support_tickets"], AT)
    machines = np.array([f"M{n:03d}" for n in range(accounts)])
    frames["assets"] = pd.DataFrame({"asset_id": machines, "account_id": ids, "installed_at": born, "model": "x",
                                     "recorded_at": born})
    whose = np.repeat(machines, 52)
    frames["telemetry"] = pd.DataFrame({"asset_id": whose, "occurred_at": times(dice, len(whose)), "sensor": "heat",
                                        "value": dice.normal(size=len(whose))})
    return frames


def seen_by(tickets, at):
    """Tickets as an export at a moment shows them."""
    rows = tickets[tickets["recorded_at"] <= at].copy()
    rows.loc[rows["rated_at"] > at, ["csat", "rated_at"]] = None
    rows.loc[rows["resolved_at"] > at, ["resolved_at"]] = None
    rows.loc[rows["resolved_at"].isna(), ["reassigned_count"]] = 0
    return rows.reset_index(drop=True)


def export(frames, at):
    """All tables as an export at a moment shows them."""
    own = {"accounts": "recorded_at", "subscriptions": "recorded_at", "assets": "recorded_at"}
    made = {name: frame[frame[own.get(name, "occurred_at")] <= at].reset_index(drop=True)
            for name, frame in frames.items() if name != "support_tickets"}
    later = made["subscriptions"]["ended_at"] > at
    made["subscriptions"] = made["subscriptions"].assign(
        ended_at=made["subscriptions"]["ended_at"].where(~later))
    return {**made, "support_tickets": seen_by(frames["support_tickets"], at)}


def read(frames):
    """The frames as validated tables."""
    return Tables.from_frames(SETTINGS, at=AT, **frames)
