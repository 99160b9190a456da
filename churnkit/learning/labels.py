"""What came of each prediction point: churned, expanded, failed, or no label and why.

A label's window is `[cutoff + lead, cutoff + lead + horizon)`; it closes `grace` later, and
only rows known by then count. The joins run in the tables' DuckDB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd

from churnkit.errors import ModelError, SettingsError, did_you_mean
from churnkit.learning.spans import COVERAGE, ENDED, GROWTH
from churnkit.learning.targets import Target
from churnkit.schemas import LABELS, POINTS
from churnkit.settings import TargetSettings
from churnkit.signals.tables import Tables

_DAY = 86_400_000_000  # in microseconds
CENSORED, IN_LEAD, OUTSIDE, RETIRED = "censored", "in the lead", "not in the population", "retired"


def label(target: Target, tables: Tables, points: pd.DataFrame) -> pd.DataFrame:
    """One row per point, in the points' order: `schemas.LABELS`.

    `label` is 1, 0 or missing, then with the reason in `why_none`. `kind` says what happened: seats, plan or addon of
    an expansion, the code of a failure; `value` is the monthly revenue that an expansion gained, at the prices the
    account paid; `after_days` is how long after the window's start it happened. `treated` says whether an outreach task
    for the account stood inside `[cutoff, window's end)`; `propensity` is the share of the same cutoff's points that
    were.

    Raises:
        ModelError: If the points are of another entity, or the target has no label function.
        SettingsError: If the inactivity span is longer than the grace.
    """
    if target.name not in LABELERS:
        raise ModelError(f"Target '{target.name}' has no label function.{did_you_mean(target.name, LABELERS)} "
                         f"Add one to LABELERS; known: {', '.join(LABELERS)}.")
    found = verdicts(target, tables, window(target, points)).set_axis(points.index)
    cutoff = pd.to_datetime(points["cutoff"], utc=True).dt.as_unit("us")
    treated = _treated(target, tables, points)
    return pd.DataFrame(
        {
            "row_id": points["row_id"],
            "entity_id": points["entity_id"],
            "account_id": points["account_id"],
            "cutoff": cutoff,
            "target": target.name,
            **{name: found[name] for name in ("label", "why_none", "kind", "value")},
            "after_days": found["after_us"] / _DAY,
            "treated": treated,
            "propensity": treated.groupby(cutoff).transform("mean").astype("float64"),
        }
    )[list(LABELS)]


def verdicts(target: Target, tables: Tables, spans: pd.DataFrame) -> pd.DataFrame:
    """What came of each window of `window()`, in its order: label, why_none, kind, value, after_us.

    `after_us` is how long after the window's start it happened, in microseconds; blank where that is not told.
    """
    empty = pd.DataFrame({"n": [], "outside": [], "early": [], "positive": []})
    found = LABELERS[target.name](target, tables, spans) if len(spans) else empty
    found = found.set_index("n").reindex(spans["n"])
    found.index = spans.index

    def flag(name: str, missing: bool = False) -> pd.Series:
        column = found[name] if name in found else pd.Series(missing, spans.index)
        return column.astype("boolean").fillna(missing).astype(bool)

    reach = observed_until(target, tables)
    positive = flag("positive")
    why = pd.Series("", spans.index, dtype=object)
    why[flag("retired") & ~positive] = RETIRED
    why[flag("early")] = IN_LEAD
    why[pd.Series(True, spans.index) if reach is None else spans["close"] > reach] = CENSORED
    why[flag("outside", missing=True)] = OUTSIDE
    has = why == ""
    return pd.DataFrame({
        "label": positive.astype("Int64").where(has), "why_none": why,
        "kind": blank_as_none(_column(found, "kind").where(has & positive)),
        "value": _column(found, "value").astype("float64").where(has & positive),
        "after_us": _column(found, "after_us").astype("float64").where(has & positive),
    })


def churned(target: Target, tables: Tables, spans: pd.DataFrame) -> pd.DataFrame:
    """The last active subscription ends inside the window; without subscriptions, a span of no use begins inside it."""
    if tables.has("subscriptions"):
        return query(tables, COVERAGE + ENDED, spans=spans)
    inactivity = tables.settings.targets.get(target.name, TargetSettings()).inactivity
    if inactivity > target.grace:
        raise SettingsError(
            f"[targets.{target.name}] inactivity ({inactivity.days} days) is longer than grace "
            f"({target.grace.days} days), so "
            f"a label would close before the silence is over. Set grace = '{inactivity.days}d'."
        )
    return query(tables, _SILENCE, spans=spans.assign(silence=inactivity))


def expanded(target: Target, tables: Tables, spans: pd.DataFrame) -> pd.DataFrame:  # noqa: ARG001  one shape for all
    """More seats, a higher plan or an add-on than at `cutoff + lead`, at constant price; it stands, and they stay."""
    features = tables.settings.features
    plans = pd.DataFrame(
        {
            "plan": pd.Series([*features.plans, *features.addons], dtype=object),
            "place": pd.Series([*range(len(features.plans)), *[None] * len(features.addons)], dtype="float64"),
            "addon": pd.Series([False] * len(features.plans) + [True] * len(features.addons), dtype=bool),
        }
    )
    rates = pd.DataFrame(exchange(tables).items(), columns=["currency", "rate"]).astype({"rate": "float64"})
    return query(tables, COVERAGE + GROWTH, spans=spans, plan_order=plans, rates=rates)


def failed(target: Target, tables: Tables, spans: pd.DataFrame) -> pd.DataFrame:
    """A failure (of any code, or of the target's) inside the window; retired there without failing is no label."""
    return query(tables, _FAILURE, spans=spans.assign(code=pd.Series(target.code, spans.index, dtype=object)))


LABELERS: Mapping[str, Callable[[Target, Tables, pd.DataFrame], pd.DataFrame]] = {
    "churn": churned, "expansion": expanded, "maintenance": failed,
}
"""By target name: (target, tables, spans) -> frame of n, outside, early, positive, and where they mean something
retired, kind, value, and after_us: microseconds from the window's start to what made it positive."""


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


def window(target: Target, points: pd.DataFrame) -> pd.DataFrame:
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
    """Whether a task for the account stood inside `[cutoff, window's end)`, as known at the close.

    One opened before the cutoff stands in it too, unless it was completed or dismissed by then.
    """
    if points.empty or not tables.has("outreach_outcomes"):
        return pd.Series(False, points.index, dtype=bool)
    found = query(tables, _TREATED, spans=window(target, points))
    return pd.Series(pd.Series(range(len(points))).isin(found["n"]).to_numpy(), points.index, dtype=bool)


_TREATED = """
WITH tasks AS (
  SELECT p.n, o.key, o.occurred_at >= p.cutoff AS inside, o.status,
    row_number() OVER (PARTITION BY p.n, o.key, o.occurred_at >= p.cutoff ORDER BY o.occurred_at DESC, o.known_at DESC,
      o.status) AS nth
  FROM ck_spans p JOIN outreach_outcomes o ON o.account_id = p.account_id
  WHERE o.occurred_at < p.until AND o.known_at <= p.close
)
SELECT DISTINCT n FROM tasks
WHERE inside AND status <> 'dismissed' OR NOT inside AND nth = 1 AND status NOT IN ('completed', 'dismissed')
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
SELECT p.n, NOT coalesce(s.active, FALSE) AS outside, s.last < p.opens AS early, s.last < p.until AS positive,
  CASE WHEN s.last < p.until THEN epoch_us(s.last) - epoch_us(p.opens) END AS after_us
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
  SELECT p.n, arg_min(coalesce(e.code, 'failure'), (e.occurred_at, coalesce(e.code, ''))) AS kind,
    epoch_us(min(e.occurred_at)) - epoch_us(any_value(p.opens)) AS after_us
  FROM ck_spans p JOIN asset_events e ON e.asset_id = p.entity_id AND e.kind = 'failure'
    AND e.occurred_at >= p.opens AND e.occurred_at < p.until AND e.known_at <= p.close
    AND (p.code IS NULL OR e.code = p.code)
  GROUP BY p.n
)
SELECT p.n, NOT coalesce(k.serving, FALSE) OR coalesce(l.retired_at <= p.cutoff, FALSE) AS outside,
  coalesce(l.retired_at < p.opens, FALSE) AS early, f.n IS NOT NULL AS positive,
  coalesce(l.retired_at < p.until, FALSE) AS retired, f.kind, f.after_us
FROM ck_spans p LEFT JOIN then_known k USING (n) LEFT JOIN latest l USING (n) LEFT JOIN failures f USING (n)
"""
