"""What a ranking is worth: profit by share contacted, the best share, recall at capacity, and how early alarms come."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import beta

from churnkit.errors import ModelError
from churnkit.learning.calibrate import Floats
from churnkit.learning.resample import chunks, curves, ordered
from churnkit.learning.splits import Mask
from churnkit.learning.targets import Target
from churnkit.settings import Settings

PROFITS = ("profit", "best_share", "expected_max_profit")
ALARMS = ("recall_at_capacity", "lead_days")
SHARE = 0.1
"""The share contacted at each cutoff where no capacity is set."""
WEIGHT = 20.0
"""How sure one is of the play's effect: it is drawn from Beta(WEIGHT * effect, WEIGHT * (1 - effect))."""
_NODES = 40


@dataclass(frozen=True)
class Terms:
    """What a contact costs and brings, in the workspace's currency.

    A contact costs `contact_cost`. An account that would have had the outcome is won with probability `effect`, which
    brings `value` and costs `incentive`; one that would not takes the incentive and brings nothing. At each cutoff
    `capacity` contacts are possible; without it, a tenth of the rows.
    """

    value: float
    contact_cost: float = 50.0
    incentive: float = 0.0
    effect: float = 0.3
    capacity: int | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.value) and self.value > 0):
            raise ModelError(f"A contact's value must be a positive number, not {self.value}. Set value in "
                             f"[targets.<name>], or give MRR so that it can be reckoned.")

    def profit(self, caught: Floats, contacted: Floats, effect: float | None = None) -> Floats:
        """The profit of contacting so many, of whom `caught` would have had the outcome.

        >>> Terms(value=1000, contact_cost=50, effect=0.3).profit(np.array([2.0]), np.array([10.0])).tolist()
        [100.0]
        """
        won = (self.effect if effect is None else effect) * (self.value - self.incentive)
        return won * caught - self.contact_cost * contacted - self.incentive * (contacted - caught)


def terms(target: Target, settings: Settings, stake: float) -> Terms:
    """The terms of `[targets.<name>]`; where it names no value, `stake` counts, the mean of what is at stake.

    Raises:
        ModelError: If neither is a positive number.
    """
    given = settings.targets.get(target.name)
    if given is None:
        return Terms(stake)
    return Terms(stake if given.value is None else given.value, given.contact_cost, given.incentive, given.effect,
                 given.capacity)


def profit_curve(y: Floats, p: Floats, terms: Terms) -> pd.DataFrame:
    """Profit per row by share contacted, riskiest first: columns share and profit, from contacting nobody to everybody.

    Rows of equal score are contacted together.

    >>> profit_curve([0.0, 1.0], [0.2, 0.9], Terms(value=1000, contact_cost=50)).to_dict("list")
    {'share': [0.0, 0.5, 1.0], 'profit': [0.0, 125.0, 100.0]}
    """
    y, p = np.asarray(y, dtype=float), np.asarray(p, dtype=float)
    order, ends = ordered(p)
    caught, passed = curves(y[order], np.ones((1, len(y))), ends)
    made = terms.profit(caught[0], passed[0]) / len(y)
    return pd.DataFrame({"share": np.append(0.0, passed[0] / len(y)), "profit": np.append(0.0, made)})


def profits(y: Floats, p: Floats, codes: NDArray[np.int64], weights: Floats, terms: Terms) -> tuple[Floats, Floats]:
    """`PROFITS` on the rows themselves, shape (3,), and on each resample, (resamples, 3); all profits are per row.

    profit and best_share are the top of `profit_curve` and its place; contacting nobody counts as one choice. The
    expected maximum profit (EMPC; Verbraken, Verbeke, Baesens, "A novel profit maximizing metric for measuring
    classification performance of customer churn prediction models", IEEE TKDE 25(5), 2013) does not take the effect
    g as known, but as Beta-distributed with density h:

        EMPC = integral over g of  max over t of  [g (V - d) - f] pi_1 F_1(t) - (d + f) pi_0 F_0(t)   h(g) dg

    with value V, incentive d, contact cost f, and of each outcome its share pi and the part F(t) of it that is
    contacted at threshold t. The integral is a mean over 40 equally likely spans of g, at the mean of each: exact where
    one threshold stays the best within a span.

    Args:
        y: Outcomes, 0 or 1, shape (n,).
        p: Probabilities, shape (n,).
        codes: Each row's entity, from 0, shape (n,).
        weights: Draws per resample and entity, as `resample.draws` gives them.
        terms: Costs and values.
    """
    order, ends = ordered(p)
    y, codes = y[order], codes[order]
    point = _profits(y, np.ones((1, len(y))), ends, terms)[0]
    parts = [_profits(y, weights[part][:, codes], ends, terms) for part in chunks(len(y), len(weights))]
    return point, np.vstack(parts)


def contacted(cutoff: pd.Series, p: Floats, capacity: int | None) -> Floats:
    """The part of each row that is contacted when every cutoff's riskiest `capacity` are, shape (n,).

    Rows that tie for the last places share them.

    >>> contacted(pd.Series(["may", "may", "may", "june"]), np.array([0.5, 0.9, 0.5, 0.1]), 2).tolist()
    [0.5, 1.0, 0.5, 1.0]
    """
    risk = pd.Series(-p).groupby(cutoff.to_numpy())
    before, upto = risk.rank(method="min") - 1, risk.rank(method="max")
    room = risk.transform("size") * SHARE if capacity is None else float(capacity)
    part: Floats = np.clip(np.asarray((room - before) / (upto - before), dtype=float), 0.0, 1.0)
    return part


def lead_times(keys: pd.DataFrame, y: Floats, alarm: Mask, target: Target) -> pd.DataFrame:
    """How early the first alarm of each event came: entity_id, first (cutoff of the event's first positive row) and
    days, blank where no row of it was alarmed.

    Where every positive row has its `after_days` (see schemas.LABELS), rows whose event is at one moment are one event,
    and days are counted to it. Otherwise an event is a run of positive rows of one entity whose label windows overlap:
    it happens between the last of them plus the target's lead, and the first plus lead and horizon; days are counted to
    the earliest of these moments, so that no alarm looks earlier than it was.

    Args:
        keys: entity_id and cutoff of each row, and where they are known after_days, n rows in any order.
        y: Outcomes, shape (n,).
        alarm: Which rows were alarmed, shape (n,).
        target: Whose lead counts.
    """
    rows = pd.DataFrame({"entity_id": keys["entity_id"].to_numpy(), "cutoff": pd.to_datetime(keys["cutoff"]).array,
                         "y": y, "alarm": alarm,
                         "after": keys["after_days"].to_numpy(dtype=float) if "after_days" in keys else np.nan})
    rows = rows.sort_values(["entity_id", "cutoff"], kind="stable")
    begins = (rows["y"] > 0) & ~((rows["y"].shift() > 0) & (rows["entity_id"] == rows["entity_id"].shift())
                                 & (rows["cutoff"] - rows["cutoff"].shift() < target.horizon))
    events = rows.assign(event=begins.cumsum(), happens=rows["cutoff"] + target.lead)[rows["y"] > 0]
    if events["after"].notna().all():
        events["happens"] += pd.to_timedelta(events["after"], unit="D").dt.round("ms")
        events["event"] = events.groupby(["entity_id", "happens"], sort=False).ngroup()
    told = events.assign(told=events["cutoff"].where(events["alarm"])).groupby("event").agg(
        entity_id=("entity_id", "first"), first=("cutoff", "min"), happens=("happens", "max"), told=("told", "min"))
    days = (told["happens"] - told["told"]).dt.total_seconds() / 86_400
    return told[["entity_id", "first"]].assign(days=days).reset_index(drop=True)


def alarms(keys: pd.DataFrame, y: Floats, p: Floats, weights: Floats, capacity: int | None,
           target: Target) -> tuple[Floats, Floats]:
    """`ALARMS` on the rows themselves, shape (2,), and on each resample, (resamples, 2); undefined is NaN.

    recall_at_capacity is the share of positive rows that are contacted when each cutoff's riskiest are; lead_days the
    mean of `lead_times` over the events of which a row was. Who is contacted does not change with the resample.

    Args:
        keys: entity_id and cutoff of each row, and where they are known after_days; `weights` draws its entities in
            order of appearance.
        y: Outcomes, shape (n,).
        p: Probabilities, shape (n,).
        weights: Draws per resample and entity.
        capacity: How many can be contacted at each cutoff; None is a tenth.
        target: Whose lead counts.
    """
    codes, names = pd.factorize(keys["entity_id"])
    part = contacted(keys["cutoff"], p, capacity)
    early = lead_times(keys, y, part >= 0.5, target).dropna(subset="days")
    each = np.column_stack([
        np.bincount(codes, y * part, len(names)), np.bincount(codes, y, len(names)),
        *(np.bincount(pd.Index(names).get_indexer(early["entity_id"]), over, len(names))
          for over in (early["days"].to_numpy(dtype=float), np.ones(len(early))))])
    sums = np.vstack([np.ones((1, len(names))), weights]) @ each
    with np.errstate(divide="ignore", invalid="ignore"):
        found = sums[:, [0, 2]] / sums[:, [1, 3]]
    return found[0], found[1:]


def _profits(y: Floats, row: Floats, ends: NDArray[np.int64], terms: Terms) -> Floats:
    """`PROFITS` for some resamples; rows are ordered by falling score."""
    caught, passed = curves(y, row, ends)
    total = passed[:, -1]
    made = terms.profit(caught, passed)
    best = made.argmax(axis=1)
    at = np.arange(len(row))
    top = np.maximum(made[at, best], 0.0)
    expected = np.zeros(len(row))
    lost = terms.profit(caught, passed, 0.0)
    for effect in _effects(terms.effect):  # profit is linear in it: no new arrays for each
        np.multiply(caught, effect * (terms.value - terms.incentive), out=made)
        made += lost
        expected += np.maximum(made.max(axis=1), 0.0) / _NODES
    return np.column_stack([top / total, np.where(top > 0, passed[at, best], 0.0) / total, expected / total])


def _effects(mean: float) -> Floats:
    """The mean effect within each of `_NODES` equally likely spans of its Beta distribution."""
    a, b = WEIGHT * mean, WEIGHT * (1 - mean)
    edges = beta.ppf(np.linspace(0, 1, _NODES + 1), a, b)
    found: Floats = np.diff(beta.cdf(edges, a + 1, b)) * mean * _NODES
    return found
