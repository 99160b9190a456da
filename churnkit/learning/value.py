"""What is at stake with each score, in money: what a departure, an expansion or a failure would mean if it came."""

from __future__ import annotations

import pandas as pd

from churnkit.errors import ModelError
from churnkit.learning.calibrate import Floats
from churnkit.learning.gains import usual_share
from churnkit.learning.labels import exchange, label, query
from churnkit.learning.targets import EXPANSION, Target, configured
from churnkit.schemas import POINTS
from churnkit.signals.tables import Tables

_LOOK_BACK = 4


def stakes(scores: pd.DataFrame, features: pd.DataFrame, tables: Tables, gains: Floats | None = None) -> pd.DataFrame:
    """The scores with `value` and `currency` filled in; missing where no price is known.

    Churn: MRR x margin x months. Expansion: expected MRR gained x margin x months. Maintenance: what a failure of
    that asset model costs, else a number of months of the account's MRR. Values are not weighed with the probability.

    Args:
        scores: `schemas.SCORES` of one or more targets.
        features: The features frame that was scored; its `mrr` is used where it has one.
        tables: The raw tables, with the settings of value, rates and currency.
        gains: The MRR that each row's expansion would gain, where a model with proven skill tells it; else it is the
            usual share of the account's MRR.

    Raises:
        ModelError: If a target has no price.
    """
    settings = tables.settings
    rates = exchange(tables)
    currency = next(iter(rates)) if len(rates) == 1 and not {*rates} & {*settings.rates} else settings.currency
    mrr = _mrr(scores, features, tables, rates)
    worth = settings.value.margin * settings.value.months
    value = pd.Series(float("nan"), scores.index)
    for target in scores["target"].unique():
        mine = scores["target"] == target
        if target == "churn":
            value[mine] = mrr[mine] * worth
        elif target == "expansion":
            if gains is None:
                value[mine] = mrr[mine] * gain_share(tables, scores.loc[mine, "cutoff"].max()) * worth
            else:
                value[mine] = gains[mine.to_numpy()] * worth
        elif target == "maintenance":
            value[mine] = _failure_cost(scores[mine], mrr[mine], tables)
        else:
            raise ModelError(
                f"Nothing says what '{target}' is worth. Add it to stakes() in churnkit/learning/value.py."
            )
    shown = pd.Series([None if gone else currency for gone in value.isna()], scores.index, dtype=object)
    return scores.assign(value=value.round(2), currency=shown)


def gain_share(tables: Tables, at: pd.Timestamp) -> float:
    """Expected gain of an expansion as a share of MRR: the mean of those closed by `at`, drawn to the setting.

    The mean is taken over the last few windows; the setting counts as `gains.PRIOR` expansions.
    """
    prior = tables.settings.value.expansion_share
    target: Target = configured(EXPANSION, tables.settings)
    cutoffs = pd.DatetimeIndex([at - target.window * step for step in range(1, _LOOK_BACK + 1)])
    accounts = query(tables, "SELECT DISTINCT account_id FROM subscriptions ORDER BY 1")["account_id"]
    if accounts.empty:
        return prior
    points = pd.DataFrame({"account_id": accounts}).merge(pd.DataFrame({"cutoff": cutoffs}), how="cross")
    points = points.assign(row_id=range(len(points)), entity="account", entity_id=points["account_id"])[list(POINTS)]
    seen = label(target, tables, points)
    seen = seen[(seen["label"] == 1).fillna(False) & seen["value"].notna()]
    paid = _monthly(seen, tables, exchange(tables)).to_numpy()
    return usual_share(seen["value"].to_numpy(dtype=float), paid, prior)


def _mrr(scores: pd.DataFrame, features: pd.DataFrame, tables: Tables, rates: dict[str, float]) -> pd.Series:
    """Each row's account's MRR at the cutoff, by the scores' index."""
    if (
        "mrr" in features
        and len(features) == len(scores)
        and (features["entity_id"].to_numpy() == scores["entity_id"]).all()
    ):
        return pd.Series(features["mrr"].to_numpy(dtype=float), scores.index)
    return _monthly(scores, tables, rates)


def _monthly(rows: pd.DataFrame, tables: Tables, rates: dict[str, float]) -> pd.Series:
    """The MRR of each row's account as known at the cutoff, in the workspace's currency; NaN without one."""
    wanted = pd.DataFrame({"n": range(len(rows)), "account_id": rows["account_id"].to_numpy(dtype=object),
                           "cutoff": pd.to_datetime(rows["cutoff"], utc=True).dt.as_unit("us").array})
    known = pd.DataFrame(rates.items(), columns=["currency", "rate"]).astype({"rate": "float64"})
    found = query(tables, _MRR, wanted=wanted, rates=known).set_index("n")["mrr"].reindex(range(len(rows)))
    return pd.Series(found.to_numpy(dtype=float), rows.index)


def _failure_cost(scores: pd.DataFrame, mrr: pd.Series, tables: Tables) -> pd.Series:
    """The set cost for the asset's model, else so many months of the account's MRR."""
    wanted = pd.DataFrame({"n": range(len(scores)), "asset_id": scores["entity_id"].to_numpy(dtype=object),
                           "cutoff": pd.to_datetime(scores["cutoff"], utc=True).dt.as_unit("us").array})
    found = query(tables, _MODEL, wanted=wanted).set_index("n")["model"].reindex(range(len(scores)))
    cost = pd.Series(found.to_numpy(), scores.index).map(tables.settings.value.failure_cost)
    return cost.astype("float64").fillna(mrr * tables.settings.value.failure_share)


_MRR = """
SELECT s.n, sum(s.mrr * coalesce(r.rate, 1)) AS mrr
FROM (
  SELECT w.n, w.cutoff, s.* FROM ck_wanted w JOIN subscriptions s ON s.account_id = w.account_id
    AND s.known_at <= w.cutoff
  QUALIFY s.known_at = max(s.known_at) OVER (PARTITION BY w.n, s.subscription_id, s.started_at,
    CASE WHEN s.subscription_id IS NULL THEN s.rowid END)
) s LEFT JOIN ck_rates r ON r.currency = s.currency
WHERE s.started_at <= s.cutoff
  AND (s.ended_at IS NULL OR s.ended_at > s.cutoff
    OR greatest(s.known_at, coalesce(s.end_recorded_at, s.ended_at)) > s.cutoff)
GROUP BY s.n
"""

_MODEL = """
SELECT w.n, a.model FROM ck_wanted w JOIN assets a ON a.asset_id = w.asset_id AND a.known_at <= w.cutoff
QUALIFY row_number() OVER (PARTITION BY w.n ORDER BY a.known_at DESC) = 1
"""
