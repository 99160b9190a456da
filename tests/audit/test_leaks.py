"""Ten kinds of leak, planted: each is caught by the method that is named, at the table and column where it lies."""

from __future__ import annotations

import ibis
import numpy as np
import pandas as pd
import pytest
from timed_book import AT, HALF, START, book, export, read

from churnkit.audit.decay import decay
from churnkit.audit.extracts import extracts
from churnkit.audit.truncation import truncation
from churnkit.audit.versions import versions
from churnkit.learning.targets import CHURN
from churnkit.settings import load
from churnkit.signals.catalog import Catalog
from churnkit.signals.groups import Feature, FeatureGroup, count, last, mean, open_at
from churnkit.signals.streams import Stream, micros

POINTS = 40


def truncated(tables):
    """The columns that truncation names, and its verdict."""
    verdict = truncation(tables, AT, Catalog(), points=POINTS)
    return {(one.table, one.column) for one in verdict.findings}, verdict


def stream(table, build):
    """A user's own stream, as one of ours would stand in streams.py."""
    return Stream(lambda tables, _: build(tables.expr(table)), table)


def known(table):
    return micros(table.known_at)


def test_late_rows(frames, features):
    """A stream that takes a row for known when it happened reads those that came in weeks later."""
    late = frames["touches"].assign(recorded_at=frames["touches"]["occurred_at"] + pd.Timedelta(days=20))
    late = late[late["recorded_at"] <= AT]
    group = FeatureGroup("leak_late", "account", count("talks", "late", (28,)))
    tables = read({**frames, "touches": late})
    at = {"right": known, "leaky": lambda table: micros(table.occurred_at)}
    features(group, late=stream("touches", lambda table: table.select(
        id=table.account_id, at=micros(table.occurred_at), known=at["leaky"](table))))
    found, verdict = truncated(tables)
    assert found == {("touches", "talks_28d")}
    first = verdict.findings[0]
    assert float(first.then) < float(first.foresight)
    assert "account A" in first.where


def test_final_values_of_a_mutable_ticket(features, tables):
    """How often a ticket will be passed on is read from the day on which it is opened."""
    group = FeatureGroup("leak_final", "account", mean("passed_on", "final", "passed", (84,)))
    features(group, final=stream("support_tickets", lambda table: table.select(
        id=table.account_id, at=micros(table.opened_at), known=known(table),
        passed=table.reassigned_count.cast("float64"))))
    assert truncated(tables)[0] == {("support_tickets", "passed_on_84d")}


def test_future_end_dates(features, tables):
    """The day on which a contract will end is read before anybody gave notice."""
    group = FeatureGroup("leak_ends", "account", (last("ends", "contracts", "ends"),))
    features(group, contracts=stream("subscriptions", lambda table: table.select(
        id=table.account_id, at=micros(table.started_at) - 1, known=known(table),
        ends=micros(table.ended_at).cast("float64"))))
    found, verdict = truncated(tables)
    assert found == {("subscriptions", "ends")}
    assert verdict.findings[0].then == "missing"


def test_versions_of_an_account(frames, features):
    """An account's segment is read from its last version, whenever that was recorded."""
    first = frames["accounts"].assign(segment="new")
    second = frames["accounts"].assign(recorded_at=START + pd.Timedelta(days=200))
    group = FeatureGroup("leak_versions", "account", (
        last("kind_of_account", "whole", "segment", kind="category"),))
    features(group, whole=stream("accounts", lambda table: table.group_by("account_id").aggregate(
        at=micros(table.created_at).min() - 1, known=micros(table.known_at).min(),
        segment=table.segment.last(order_by=table.known_at)).rename(id="account_id")))
    found, verdict = truncated(read({**frames, "accounts": pd.concat([first, second], ignore_index=True)}))
    assert found == {("accounts", "kind_of_account")}
    assert (verdict.findings[0].then, verdict.findings[0].foresight) in {("new", "small"), ("new", "large")}


def test_fields_overwritten_by_an_export(frames, features):
    """Seats as the export shows them today are read for days before record_changes tells of their change."""
    changes = pd.DataFrame({"table": "accounts", "id": frames["accounts"]["account_id"], "field": "segment",
                            "changed_at": START + pd.Timedelta(days=180), "value": frames["accounts"]["segment"]})
    group = FeatureGroup("leak_overwritten", "account", (last("kind_of_account", "shown", "segment", kind="category"),))

    def shown(tables, _):
        table = tables.expr("accounts").group_by("account_id").aggregate(
            segment=lambda rows: rows.segment.max(), created_at=lambda rows: rows.created_at.min())
        at = micros(table.created_at)
        return table.select(id=table.account_id, at=at - 1, known=at, segment=table.segment)

    features(group, shown=Stream(shown, "accounts"))
    assert truncated(read({**frames, "record_changes": changes}))[0] == {("accounts", "kind_of_account")}


def test_a_rating_before_it_was_given(frames, tmp_path):
    """Ratings stamped with the ticket's opening differ between two extracts, and one extract shows it as well."""
    tickets = frames["support_tickets"]
    stamped = tickets.assign(rated_at=tickets["opened_at"].where(tickets["csat"].notna()))
    before = export(frames, HALF)
    unrated = before["support_tickets"]
    before["support_tickets"] = unrated.assign(rated_at=unrated["opened_at"].where(unrated["csat"].notna()))
    verdict = extracts(read(before), read({**frames, "support_tickets": stamped}))
    assert {("support_tickets", "csat"), ("support_tickets", "rated_at")} == {
        (one.table, one.column) for one in verdict.findings}
    stamped.to_csv(tmp_path / "support_tickets.csv", index=False)
    frames["accounts"].to_csv(tmp_path / "accounts.csv", index=False)
    (tmp_path / "churnkit.toml").write_text('raw = "."\n')
    assert [(one.table, one.column) for one in versions(load(tmp_path)).findings] == [("support_tickets", "rated_at")]


def test_backfilled_telemetry():
    """A gap of ten days that was filled in after the first extract."""
    frames = book()
    rows = frames["telemetry"]
    gap = rows["occurred_at"].between(START + pd.Timedelta(days=100), START + pd.Timedelta(days=110))
    before = export({**frames, "telemetry": rows[~gap]}, HALF)
    [finding] = extracts(read(before), read(frames)).findings
    assert (finding.table, finding.count) == ("telemetry", int(gap.sum()))
    assert "filled in later" in finding.mend


def test_a_target_derived_column(features):
    """Whether a contract renews by itself, set to no when it was cancelled: known months ahead, it never decays."""
    frames = book(accounts=300, seed=4)
    gone = frames["subscriptions"]["ended_at"].notna() & (np.arange(300) % 2 == 0)
    contracts = frames["subscriptions"].assign(ended_at=frames["subscriptions"]["ended_at"].where(gone))
    group = FeatureGroup("contract", "account", (
        open_at("renews_itself", "subscriptions", "highest", of="auto_renew"),
        open_at("places", "subscriptions", "total", of="seats"),
        *count("talks", "touches", (28,))))
    features(group)
    honest = decay(read({**frames, "subscriptions": contracts}), AT, Catalog(), [CHURN])
    leaky = decay(read({**frames, "subscriptions": contracts.assign(auto_renew=~gone)}), AT, Catalog(), [CHURN])
    assert honest.findings == ()
    assert "3 features of churn" in honest.looked
    assert [(one.table, one.column) for one in leaky.findings] == [("subscriptions", "renews_itself")]


@pytest.mark.parametrize("hours", [5.5, -8.0])
def test_time_zones(frames, hours, half):
    """The second extract's times were read in another zone."""
    moved = frames["touches"].assign(occurred_at=frames["touches"]["occurred_at"] + pd.Timedelta(hours=hours))
    moved = moved[moved["occurred_at"] <= AT]
    [finding] = extracts(half, read({**frames, "touches": moved})).findings
    assert (finding.table, finding.column) == ("touches", "occurred_at")
    assert f"moved by {hours:+g} h, which is another zone" in finding.says


def test_daylight_saving(frames, half):
    """The second extract's summer is an hour off, its winter is not; or its zone has a summer of its own."""
    touches = frames["touches"]
    summer = touches["occurred_at"].dt.tz_convert("Europe/Berlin").map(lambda one: bool(one.dst()))
    hour, before = pd.Timedelta(hours=1), half
    moved = touches.assign(occurred_at=touches["occurred_at"].where(~summer, touches["occurred_at"] + hour))
    [finding] = extracts(before, read({**frames, "touches": moved})).findings
    assert "moved by +1 h, which is daylight saving" in finding.says
    local = touches.assign(occurred_at=touches["occurred_at"] + hour + summer * hour)
    [finding] = extracts(before, read({**frames, "touches": local[local["occurred_at"] <= AT]})).findings
    assert "a zone with daylight saving" in finding.says


def test_cutoffs_on_a_boundary(features, tables):
    """A row at the very moment of the cutoff is counted, which no grid of midnights would show."""
    group = FeatureGroup("leak_edge", "account", (Feature("talks_7d", "count", stream="edge", window_days=7),))
    features(group, edge=stream("touches", lambda table: table.select(
        id=table.account_id, at=micros(table.occurred_at) - 1, known=known(table))))
    found, verdict = truncated(tables)
    assert found == {("touches", "talks_7d")}
    assert verdict.findings[0].count <= 3  # the edges of touches alone


def test_a_population_that_looks_ahead(monkeypatch, tables):
    """Accounts that are going to leave are left out: the points themselves tell."""
    from churnkit.audit import truncation as room

    def served(tables, entity, cutoffs, honest=room.points_at):
        points = honest(tables, entity, cutoffs)
        gone = tables.raw.sql("SELECT account_id FROM subscriptions WHERE ended_at IS NOT NULL").df()
        return points[~points["account_id"].isin(gone["account_id"])]

    monkeypatch.setattr(room, "points_at", served)
    monkeypatch.setattr(room, "compute_features", lambda _, points, __: points)
    assert truncated(tables)[0] == {("accounts", "(population)")}


def test_labels_that_go_on_changing(monkeypatch, tables):
    """A label that counts an end recorded after its close is named, with target and column."""
    from churnkit.audit import truncation as room

    def peeking(target, tables, points):
        gone = tables.raw.sql("SELECT account_id FROM subscriptions WHERE ended_at IS NOT NULL").df()
        return points.assign(label=points["account_id"].isin(gone["account_id"]).astype(int), why_none="", kind=None,
                             value=np.nan)

    monkeypatch.setattr(room, "label", peeking)
    monkeypatch.setattr(room, "compute_features", lambda _, points, __: points)
    verdict = truncation(tables, AT, Catalog(), [CHURN], points=5)
    assert [(one.table, one.column) for one in verdict.findings] == [("labels of churn", "label")]


def test_an_honest_definition_of_each_leak_is_not_accused(features, tables, half):
    """The same streams with their times right: nothing is found."""
    group = FeatureGroup("leak_none", "account", (
        *count("talks", "right", (7, 28)), *mean("passed_on", "ended", "passed", (84,)),
        *mean("rating", "rated", "csat", (84,))))
    tickets = "support_tickets"
    features(
        group,
        right=stream("touches", lambda table: table.select(id=table.account_id, at=micros(table.occurred_at),
                                                           known=known(table))),
        ended=stream(tickets, lambda table: table.select(
            id=table.account_id, at=micros(table.resolved_at), known=known(table),
            passed=table.reassigned_count.cast("float64"))),
        rated=stream(tickets, lambda table: table.select(
            id=table.account_id, known=known(table), csat=table.csat,
            at=ibis.coalesce(micros(table.rated_at), micros(table.resolved_at)))))
    found, verdict = truncated(tables)
    assert found == set()
    assert verdict.looked.startswith(f"{POINTS} points at ")
    assert extracts(half, tables).findings == ()
