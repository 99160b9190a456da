"""What came of each prediction point: churned, expanded, failed, or no label and why.

A label's window is `[cutoff + lead, cutoff + lead + horizon)`; it closes `grace` later, and
only rows known by then count. The joins run in the tables' DuckDB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd

from churnkit.errors import ModelError, SettingsError, did_you_mean
from churnkit.learning.targets import Target
from churnkit.schemas import LABELS, POINTS
from churnkit.settings import TargetSettings
from churnkit.signals.tables import Tables

CENSORED, IN_LEAD, OUTSIDE, RETIRED = "censored", "in the lead", "not in the population", "retired"


def label(target: Target, tables: Tables, points: pd.DataFrame) -> pd.DataFrame:
    """One row per point, in the points' order: `schemas.LABELS`.

    `label` is 1, 0 or missing, then with the reason in `why_none`. `kind` says what happened: seats, plan or addon of
    an expansion, the code of a failure; `value` is the monthly revenue that an expansion gained, at the prices the
    account paid. `treated` says whether an outreach task for the account stood inside `[cutoff, window's end)`;
    `propensity` is the share of the same cutoff's points that were.

    Raises:
        ModelError: If the points are of another entity, or the target has no label function.
        SettingsError: If the inactivity span is longer than the grace.
    """
    if target.name not in LABELERS:
        raise ModelError(f"Target '{target.name}' has no label function.{did_you_mean(target.name, LABELERS)} "
                         f"Add one to LABELERS; known: {', '.join(LABELERS)}.")
    spans = _spans(target, points)
    if points.empty:
        return _finished(target, points, pd.DataFrame({"n": [], "outside": [], "early": [], "positive": []}), tables)
    return _finished(target, points, LABELERS[target.name](target, tables, spans), tables)


def churned(target: Target, tables: Tables, spans: pd.DataFrame) -> pd.DataFrame:
    """The last active subscription ends inside the window; without subscriptions, a span of no use begins inside it."""
    if tables.has("subscriptions"):
        return query(tables, _COVERAGE + _ENDED, spans=spans)
    inactivity = tables.settings.targets.get(target.name, TargetSettings()).inactivity
    if inactivity > target.grace:
        raise SettingsError(
            f"[targets.{target.name}] inactivity ({inactivity.days} days) is longer than grace "
            f"({target.grace.days} days), so "
            f"a label would close before the silence is over. Set grace = '{inactivity.days}d'."
        )
    return query(tables, _SILENCE, spans=spans.assign(silence=inactivity))


def expanded(target: Target, tables: Tables, spans: pd.DataFrame) -> pd.DataFrame:  # noqa: ARG001  one shape for all
    """More seats, a higher plan or an add-on than at `cutoff + lead`, at constant price, and the account stays."""
    features = tables.settings.features
    plans = pd.DataFrame(
        {
            "plan": pd.Series([*features.plans, *features.addons], dtype=object),
            "place": pd.Series([*range(len(features.plans)), *[None] * len(features.addons)], dtype="float64"),
            "addon": pd.Series([False] * len(features.plans) + [True] * len(features.addons), dtype=bool),
        }
    )
    rates = pd.DataFrame(exchange(tables).items(), columns=["currency", "rate"]).astype({"rate": "float64"})
    return query(tables, _COVERAGE + _GROWTH, spans=spans, plan_order=plans, rates=rates)


def failed(target: Target, tables: Tables, spans: pd.DataFrame) -> pd.DataFrame:
    """A failure (of any code, or of the target's) inside the window; retired there without failing is no label."""
    return query(tables, _FAILURE, spans=spans.assign(code=pd.Series(target.code, spans.index, dtype=object)))


LABELERS: Mapping[str, Callable[[Target, Tables, pd.DataFrame], pd.DataFrame]] = {
    "churn": churned, "expansion": expanded, "maintenance": failed,
}
"""By target name: (target, tables, spans) -> frame of n, outside, early, positive, and where they mean something
retired,
kind, value."""


def exchange(tables: Tables) -> dict[str, float]:
    """What each currency of the subscriptions is worth in the workspace's; one currency alone counts as it is.

    Reading the tables has refused mixed currencies without a rate.
    """
    rows = tables.con.raw_sql("SELECT DISTINCT currency FROM subscriptions WHERE currency IS NOT NULL ORDER BY 1")
    known = {tables.settings.currency: 1.0, **tables.settings.rates}
    return {currency: known.get(currency, 1.0) for (currency,) in rows.fetchall()}


def observed_until(target: Target, tables: Tables) -> pd.Timestamp | None:
    """How far the table reaches that this target's labels come from; None without it."""
    name = "asset_events" if target.entity == "asset" else "subscriptions"
    if target.name == "churn" and not tables.has("subscriptions"):
        name = "usage_events"
    return pd.Timestamp(tables.covers_until[name]) if tables.has(name) and name in tables.covers_until else None


def _spans(target: Target, points: pd.DataFrame) -> pd.DataFrame:
    """The points with their window: opens, until (both of the window), close (of the label)."""
    lacking = [name for name in POINTS if name not in points]
    if lacking:
        raise ModelError(f"The points lack the column '{lacking[0]}'. Make them with prediction_points().")
    other = points.loc[points["entity"] != target.entity, "entity"]
    if len(other):
        raise ModelError(f"{len(other)} points are of entity '{other.iloc[0]}', but {target.name} is about "
                         f"{target.entity}s. Make them with prediction_points(tables, entity='{target.entity}').")
    cutoff = pd.to_datetime(points["cutoff"], utc=True).dt.as_unit("us")
    opens = cutoff + target.lead
    return pd.DataFrame(
        {
            "n": range(len(points)),
            "entity_id": points["entity_id"].to_numpy(),
            "account_id": points["account_id"].to_numpy(),
            "cutoff": cutoff.array,
            "opens": opens.array,
            "until": (opens + target.horizon).array,
            "close": (cutoff + target.window).array,
        }
    )


def query(tables: Tables, sql: str, **frames: pd.DataFrame) -> pd.DataFrame:
    """Runs a query that sees the frames as `ck_<name>` beside the raw tables."""
    con = tables.con.con
    for name, frame in frames.items():
        con.register(f"ck_{name}", frame)
    try:
        result: pd.DataFrame = con.execute(sql).df()
    finally:
        for name in frames:
            con.unregister(f"ck_{name}")
    return result


def _finished(target: Target, points: pd.DataFrame, found: pd.DataFrame, tables: Tables) -> pd.DataFrame:
    """The label function's findings as `schemas.LABELS`, in the points' order."""
    found = found.set_index("n").reindex(range(len(points)))
    found.index = points.index

    def flag(name: str, missing: bool = False) -> pd.Series:
        column = found[name] if name in found else pd.Series(missing, points.index)
        return column.astype("boolean").fillna(missing).astype(bool)

    cutoff = pd.to_datetime(points["cutoff"], utc=True).dt.as_unit("us")
    reach = observed_until(target, tables)
    censored = pd.Series(True, points.index) if reach is None else cutoff + target.window > reach
    positive = flag("positive")
    why = pd.Series("", points.index, dtype=object)
    why[flag("retired") & ~positive] = RETIRED
    why[flag("early")] = IN_LEAD
    why[censored] = CENSORED
    why[flag("outside", missing=True)] = OUTSIDE
    has = why == ""
    treated = _treated(target, tables, points)
    return pd.DataFrame(
        {
            "row_id": points["row_id"],
            "entity_id": points["entity_id"],
            "account_id": points["account_id"],
            "cutoff": cutoff,
            "target": target.name,
            "label": positive.astype("Int64").where(has),
            "why_none": why,
            "kind": blank_as_none(_column(found, "kind").where(has & positive)),
            "value": _column(found, "value").astype("float64").where(has & positive),
            "treated": treated,
            "propensity": treated.groupby(cutoff).transform("mean").astype("float64"),
        }
    )[list(LABELS)]


def _column(found: pd.DataFrame, name: str) -> pd.Series:
    """A column of the findings, or blanks; blanks are None."""
    column = found[name].astype(object) if name in found else pd.Series([None] * len(found), found.index, dtype=object)
    return blank_as_none(column)


def blank_as_none(column: pd.Series) -> pd.Series:
    """The column as objects, with None for every blank."""
    return pd.Series(
        [None if gone else one for one, gone in zip(column, column.isna(), strict=True)], column.index, dtype=object
    )


def _treated(target: Target, tables: Tables, points: pd.DataFrame) -> pd.Series:
    """Whether a task for the account stood inside `[cutoff, window's end)`, as known at the close."""
    if points.empty or not tables.has("outreach_outcomes"):
        return pd.Series(False, points.index, dtype=bool)
    found = query(tables, _TREATED, spans=_spans(target, points))
    return pd.Series(pd.Series(range(len(points))).isin(found["n"]).to_numpy(), points.index, dtype=bool)


_TREATED = """
SELECT DISTINCT p.n FROM ck_spans p JOIN outreach_outcomes o ON o.account_id = p.account_id
WHERE o.occurred_at >= p.cutoff AND o.occurred_at < p.until AND o.known_at <= p.close AND o.status <> 'dismissed'
"""

# periods: each point's subscription rows as known by the label's close; FOREVER stands for an end that nobody knew.
# `ends_then` is the end as known at the cutoff; a billing period's own end, known when it began, is no notice.
# fate: the coverage that holds the cutoff, merged over gaps up to the grace (close - until), and where it ends.
_COVERAGE = """
WITH periods AS (
  SELECT p.n, p.cutoff, p.opens, p.until, p.close, s.started_at, s.plan, s.seats, s.mrr, s.currency, s.known_at,
    CASE WHEN greatest(s.known_at, coalesce(s.end_recorded_at, s.ended_at)) <= p.close THEN s.ended_at
         ELSE TIMESTAMPTZ '9000-01-01' END AS ends,
    CASE WHEN greatest(s.known_at, coalesce(s.end_recorded_at, s.ended_at)) <= p.cutoff THEN s.ended_at
         ELSE TIMESTAMPTZ '9000-01-01' END AS ends_then,
    coalesce(s.end_recorded_at <= s.started_at, FALSE) AS own_end
  FROM ck_spans p JOIN subscriptions s ON s.account_id = p.account_id AND s.known_at <= p.close
), held AS (
  SELECT * REPLACE (
    coalesce(ends, TIMESTAMPTZ '9000-01-01') AS ends, coalesce(ends_then, TIMESTAMPTZ '9000-01-01') AS ends_then)
  FROM periods
), believed AS (
  SELECT n, coalesce(bool_or(started_at <= cutoff), FALSE) AS active,
    max(CASE WHEN own_end THEN TIMESTAMPTZ '9000-01-01' ELSE ends_then END) < TIMESTAMPTZ '9000-01-01' AS notice
  FROM held WHERE known_at <= cutoff AND ends_then > cutoff GROUP BY n
), reached AS (
  SELECT n, started_at, ends, close - until AS grace, max(ends) OVER (
    PARTITION BY n ORDER BY started_at, ends ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reach
  FROM held WHERE ends > cutoff AND ends > started_at
), islands AS (
  SELECT n, started_at, ends, sum(CASE WHEN started_at > reach + grace THEN 1 ELSE 0 END) OVER (
    PARTITION BY n ORDER BY started_at, ends ROWS UNBOUNDED PRECEDING) AS island
  FROM reached
), coverage AS (
  SELECT n, min(started_at) AS first, max(ends) AS last FROM islands WHERE island = 0 GROUP BY n
), fate AS (
  SELECT p.*, c.last,
    NOT coalesce(b.active, FALSE) OR coalesce(b.notice, FALSE) OR coalesce(c.first > p.cutoff, TRUE) AS outside
  FROM ck_spans p LEFT JOIN believed b USING (n) LEFT JOIN coverage c USING (n)
)
"""

_ENDED = "SELECT n, outside, last < opens AS early, last < until AS positive FROM fate"

# worth: a row at the median price of its plan, as known by the close; a state's worth moves with seats, plans and
# add-ons, never with a price. The base is the state at the window's start; each later moment is a row's start inside
# the window.
_GROWTH = """
, prices AS (
  SELECT c.close, s.plan, median(s.mrr * coalesce(r.rate, 1) / coalesce(nullif(s.seats, 0), 1)) AS unit
  FROM (SELECT DISTINCT close FROM ck_spans) c JOIN subscriptions s ON s.known_at <= c.close
  LEFT JOIN ck_rates r ON r.currency = s.currency GROUP BY ALL
), priced AS (
  SELECT h.n, h.cutoff, h.opens, h.until, h.started_at, h.ends, h.plan, h.mrr * coalesce(r.rate, 1) AS mrr,
    coalesce(o.addon, FALSE) AS addon, h.seats, coalesce(h.seats, 1) * u.unit AS worth,
    CASE WHEN (SELECT count(*) FROM ck_plan_order WHERE NOT addon) > 0 THEN o.place ELSE u.unit END AS place
  FROM held h LEFT JOIN ck_rates r ON r.currency = h.currency LEFT JOIN ck_plan_order o ON o.plan = h.plan
  LEFT JOIN prices u ON u.close = h.close AND u.plan IS NOT DISTINCT FROM h.plan
  WHERE h.ends > h.started_at AND h.ends > h.cutoff AND h.started_at < h.until
), moments AS (
  SELECT n, TRUE AS base,
    CASE WHEN bool_or(started_at <= opens AND ends > opens) THEN any_value(opens) ELSE any_value(cutoff) END AS t
  FROM priced GROUP BY n
  UNION ALL SELECT DISTINCT n, FALSE, started_at FROM priced WHERE started_at > opens
), states AS (
  SELECT m.n, m.t, m.base, sum(r.seats) FILTER (NOT r.addon) AS seats, max(r.place) FILTER (NOT r.addon) AS place,
    sum(r.worth) AS worth, sum(r.mrr) AS mrr,
    list_distinct(list(r.plan) FILTER (r.plan IS NOT NULL AND NOT r.addon)) AS plans,
    list_distinct(list(r.plan) FILTER (r.addon)) AS addons
  FROM moments m JOIN priced r ON r.n = m.n AND r.started_at <= m.t AND r.ends > m.t GROUP BY ALL
), compared AS (
  SELECT s.n, s.t, coalesce(s.seats > b.seats, FALSE) AS more_seats, coalesce(s.seats < b.seats, FALSE) AS fewer_seats,
    coalesce(s.place > b.place, FALSE) AS higher, coalesce(s.place < b.place, FALSE) AS lower,
    coalesce(s.worth > b.worth, FALSE) AS worth_more,
    coalesce(len(s.plans) > len(b.plans) AND list_has_all(s.plans, b.plans), FALSE) AS beside,
    NOT list_has_all(coalesce(b.addons, []), coalesce(s.addons, [])) AS new_addon,
    greatest((s.worth - b.worth) * b.mrr / nullif(b.worth, 0), 0) AS gain
  FROM states s JOIN states b ON b.n = s.n AND b.base WHERE NOT s.base
), grown AS (
  SELECT n, gain, t,
    CASE WHEN higher AND NOT beside THEN 'plan' WHEN new_addon OR beside THEN 'addon' ELSE 'seats' END AS kind
  FROM compared
  WHERE new_addon OR beside OR more_seats AND NOT lower OR higher AND NOT fewer_seats
    OR worth_more AND (more_seats OR higher)
), best AS (
  SELECT n, gain, kind FROM grown QUALIFY row_number() OVER (PARTITION BY n ORDER BY gain DESC NULLS LAST, t, kind) = 1
)
SELECT f.n, f.outside, f.last < f.opens AS early,
  f.last >= f.until AND g.n IS NOT NULL AS positive, g.kind, g.gain AS value
FROM fate f LEFT JOIN best g USING (n)
"""

_SILENCE = """
WITH used AS (
  SELECT DISTINCT p.n, p.cutoff, p.opens, p.until, p.silence, u.occurred_at, u.known_at
  FROM ck_spans p JOIN usage_events u ON u.account_id = p.account_id AND u.known_at <= p.close
    AND u.occurred_at >= p.cutoff - p.silence AND u.occurred_at < p.until + p.silence
), followed AS (
  SELECT *, lead(occurred_at) OVER (PARTITION BY n ORDER BY occurred_at, known_at) AS next FROM used
), silent AS (
  SELECT n, min(occurred_at) FILTER (next IS NULL OR next > occurred_at + silence) AS last,
    bool_or(occurred_at < cutoff AND known_at <= cutoff) AS active
  FROM followed GROUP BY n
)
SELECT p.n, NOT coalesce(s.active, FALSE) AS outside, s.last < p.opens AS early, s.last < p.until AS positive
FROM ck_spans p LEFT JOIN silent s USING (n)
"""

_FAILURE = """
WITH versions AS (
  SELECT p.n, p.cutoff, a.known_at, a.installed_at,
    CASE WHEN greatest(a.known_at, a.retired_at) <= p.close THEN a.retired_at END AS retired_at
  FROM ck_spans p JOIN assets a ON a.asset_id = p.entity_id AND a.known_at <= p.close
), latest AS (
  SELECT n, retired_at FROM versions QUALIFY row_number() OVER (PARTITION BY n ORDER BY known_at DESC, retired_at) = 1
), then_known AS (
  SELECT n, installed_at <= cutoff AND coalesce(retired_at > cutoff, TRUE) AS serving
  FROM versions WHERE known_at <= cutoff
  QUALIFY row_number() OVER (PARTITION BY n ORDER BY known_at DESC, retired_at) = 1
), failures AS (
  SELECT p.n, arg_min(coalesce(e.code, 'failure'), (e.occurred_at, coalesce(e.code, ''))) AS kind
  FROM ck_spans p JOIN asset_events e ON e.asset_id = p.entity_id AND e.kind = 'failure'
    AND e.occurred_at >= p.opens AND e.occurred_at < p.until AND e.known_at <= p.close
    AND (p.code IS NULL OR e.code = p.code)
  GROUP BY p.n
)
SELECT p.n, NOT coalesce(k.serving, FALSE) OR coalesce(l.retired_at <= p.cutoff, FALSE) AS outside,
  coalesce(l.retired_at < p.opens, FALSE) AS early, f.n IS NOT NULL AS positive,
  coalesce(l.retired_at < p.until, FALSE) AS retired, f.kind
FROM ck_spans p LEFT JOIN then_known k USING (n) LEFT JOIN latest l USING (n) LEFT JOIN failures f USING (n)
"""
