"""What became of an account's subscriptions between a cutoff and a label's close, as SQL for labels.py.

The queries see the points with their windows as `ck_spans`, the plans as `ck_plan_order` and currencies as `ck_rates`.
"""

# ruff: noqa: S608 - SQL is built from our own constants only

from __future__ import annotations

STANDING = 7
"""Days for which a gain must stand to be an expansion (at most the grace, because a label sees no further)."""

# periods: each point's subscription rows known by the label's close; 9000 stands for an end that nobody knew. Of the
# versions of a span (a subscription's id and start) `latest` is the one known by the close, which says what came of it,
# and `latest_then` the one known at the cutoff, which says what was believed. `ends_then` is the end as known at the
# cutoff; a billing period's own end, known when it began, is no notice.
# fate: the coverage that holds the cutoff, merged over gaps up to the grace (close - until), and where it ends.
COVERAGE = """
WITH periods AS (
  SELECT p.n, p.cutoff, p.opens, p.until, p.close, s.started_at, s.plan, s.seats, s.mrr, s.currency, s.known_at,
    CASE WHEN greatest(s.known_at, coalesce(s.end_recorded_at, s.ended_at)) <= p.close THEN s.ended_at
         ELSE TIMESTAMPTZ '9000-01-01' END AS ends,
    CASE WHEN greatest(s.known_at, coalesce(s.end_recorded_at, s.ended_at)) <= p.cutoff THEN s.ended_at
         ELSE TIMESTAMPTZ '9000-01-01' END AS ends_then,
    coalesce(s.end_recorded_at <= s.started_at, FALSE) AS own_end,
    s.known_at = max(s.known_at) OVER versions AS latest,
    s.known_at = max(s.known_at) FILTER (s.known_at <= p.cutoff) OVER versions AS latest_then
  FROM ck_spans p JOIN subscriptions s ON s.account_id = p.account_id AND s.known_at <= p.close
  WINDOW versions AS (PARTITION BY p.n, s.subscription_id, s.started_at,
    CASE WHEN s.subscription_id IS NULL THEN s.rowid END)
), told AS (
  SELECT * REPLACE (
    coalesce(ends, TIMESTAMPTZ '9000-01-01') AS ends, coalesce(ends_then, TIMESTAMPTZ '9000-01-01') AS ends_then)
  FROM periods
), held AS (
  FROM told WHERE latest
), believed AS (
  SELECT n, coalesce(bool_or(started_at <= cutoff), FALSE) AS active,
    max(CASE WHEN own_end THEN TIMESTAMPTZ '9000-01-01' ELSE ends_then END) < TIMESTAMPTZ '9000-01-01' AS notice
  FROM told WHERE latest_then AND ends_then > cutoff GROUP BY n
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

ENDED = """SELECT n, outside, last < opens AS early, last < until AS positive,
  CASE WHEN last < until THEN epoch_us(last) - epoch_us(opens) END AS after_us FROM fate
"""

# worth: a row at the median price of its plan, as known by the close; a state's worth moves with seats, plans and
# add-ons, never with a price. The base is the state at the window's start. A gain comes with a row that starts inside
# the window, and counts if it stands: at every start and end of a row in the STANDING time after it, the state must
# still be more than the base. So a renewal that overlaps the row it follows for some days is none, and what it gained
# is measured where it is least. A plan or seats that were not known at the base, and are later, are no gain.
# An add-on without seats has no price by seat that others' could stand for: it is worth what the account itself first
# paid for it. What it is worth without any price known is not known either.
GROWTH = f"""
, prices AS (
  SELECT s.close, s.plan, median(s.mrr * coalesce(r.rate, 1) / coalesce(nullif(s.seats, 0), 1)) AS unit
  FROM (
    SELECT c.close, s.* FROM (SELECT DISTINCT close FROM ck_spans) c JOIN subscriptions s ON s.known_at <= c.close
    QUALIFY s.known_at = max(s.known_at) OVER (PARTITION BY c.close, s.account_id, s.subscription_id, s.started_at,
      CASE WHEN s.subscription_id IS NULL THEN s.rowid END)
  ) s LEFT JOIN ck_rates r ON r.currency = s.currency GROUP BY ALL
), priced AS (
  SELECT h.n, h.cutoff, h.opens, h.until, least(h.close - h.until, INTERVAL {STANDING} DAY) AS standing,
    h.started_at, h.ends, h.plan, h.mrr * coalesce(r.rate, 1) AS mrr,
    coalesce(o.addon, FALSE) AS addon, h.seats, coalesce(o.addon AND coalesce(h.seats, 0) = 0, FALSE) AS flat,
    CASE WHEN NOT flat THEN coalesce(nullif(h.seats, 0), 1) * u.unit ELSE 0 END AS worth,
    CASE WHEN flat THEN first_value(h.mrr * coalesce(r.rate, 1)) OVER (PARTITION BY h.n, h.plan ORDER BY h.started_at,
      h.mrr) ELSE 0 END AS own,
    CASE WHEN (SELECT count(*) FROM ck_plan_order WHERE NOT addon) > 0 THEN o.place ELSE u.unit END AS place
  FROM held h LEFT JOIN ck_rates r ON r.currency = h.currency LEFT JOIN ck_plan_order o ON o.plan = h.plan
  LEFT JOIN prices u ON u.close = h.close AND u.plan IS NOT DISTINCT FROM h.plan
  WHERE h.ends > h.started_at AND h.ends > h.cutoff AND h.started_at <= h.until + least(h.close - h.until,
    INTERVAL {STANDING} DAY)
), moments AS (
  SELECT n, TRUE AS base, FALSE AS begins, CASE WHEN bool_or(started_at <= opens AND ends > opens)
    THEN any_value(opens) ELSE any_value(cutoff) END AS t
  FROM priced GROUP BY n
  UNION ALL SELECT n, FALSE, bool_or(starts AND t < until), t FROM (
    SELECT n, until, TRUE AS starts, started_at AS t FROM priced WHERE started_at > opens
    UNION ALL SELECT n, until, FALSE, ends FROM priced WHERE ends > opens AND ends <= until + standing
  ) GROUP BY n, t
), states AS (
  SELECT m.n, m.t, m.base, m.begins, any_value(r.standing) AS standing,
    sum(r.seats) FILTER (NOT r.addon) AS seats, max(r.place) FILTER (NOT r.addon) AS place,
    sum(r.worth) AS worth, sum(r.mrr) FILTER (NOT r.flat) AS mrr,
    CASE WHEN NOT bool_or(r.own IS NULL) THEN sum(r.own) END AS own,
    coalesce(bool_or(r.plan IS NULL), FALSE) AS no_plan,
    coalesce(bool_or(r.seats IS NULL) FILTER (NOT r.addon), FALSE) AS no_seats,
    list_distinct(list(r.plan) FILTER (r.plan IS NOT NULL AND NOT r.addon)) AS plans,
    list_distinct(list(r.plan) FILTER (r.addon)) AS addons
  FROM moments m JOIN priced r ON r.n = m.n AND r.started_at <= m.t AND r.ends > m.t GROUP BY ALL
), compared AS (
  SELECT s.n, s.t, s.begins, s.standing, s.no_plan OR NOT b.no_plan AS as_told,
    coalesce(s.seats > b.seats AND (s.no_seats OR NOT b.no_seats), FALSE) AS more_seats,
    coalesce(s.seats < b.seats, FALSE) AS fewer_seats,
    coalesce(s.place > b.place AND as_told, FALSE) AS higher, coalesce(s.place < b.place, FALSE) AS lower,
    coalesce(s.worth > b.worth, FALSE) AS worth_more,
    as_told AND coalesce(len(s.plans) > len(b.plans) AND list_has_all(s.plans, b.plans), FALSE) AS beside,
    as_told AND NOT list_has_all(coalesce(b.addons, []), coalesce(s.addons, [])) AS new_addon,
    (s.worth - b.worth) * b.mrr / nullif(b.worth, 0) + s.own - b.own AS gained,
    CASE WHEN gained IS NOT NULL THEN greatest(gained, 0) END AS gain
  FROM states s JOIN states b ON b.n = s.n AND b.base WHERE NOT s.base
), grown AS (
  SELECT n, t, begins, standing, gain,
    new_addon OR beside OR more_seats AND NOT lower OR higher AND NOT fewer_seats
      OR worth_more AND (more_seats OR higher) AS more,
    CASE WHEN higher AND NOT beside THEN 'plan' WHEN new_addon OR beside THEN 'addon' ELSE 'seats' END AS kind
  FROM compared
), stood AS (
  SELECT g.n, g.t, min(l.gain) AS gain, first(l.kind ORDER BY l.gain NULLS LAST, l.t DESC) AS kind
  FROM grown g JOIN grown l ON l.n = g.n AND l.t >= g.t AND l.t <= g.t + g.standing
  WHERE g.begins GROUP BY g.n, g.t HAVING bool_and(l.more)
), best AS (
  SELECT n, t, gain, kind FROM stood
  QUALIFY row_number() OVER (PARTITION BY n ORDER BY gain DESC NULLS LAST, t, kind) = 1
)
SELECT f.n, f.outside, f.last < f.opens AS early,
  f.last >= f.until AND g.n IS NOT NULL AS positive, g.kind, g.gain AS value,
  epoch_us(g.t) - epoch_us(f.opens) AS after_us
FROM fate f LEFT JOIN best g USING (n)
"""
