"""What is true of a simulated book: for tests and benchmarks alone. Nothing that learns or plans may read it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from churnkit.errors import DataError, did_you_mean
from churnkit.simulate.causes import CAUSES, States, active, contact_effect, fading, sale_effect
from churnkit.simulate.contacted import stronger
from churnkit.simulate.contracts import REST, Contracts
from churnkit.simulate.courses import Lives
from churnkit.simulate.frames import ids
from churnkit.simulate.machines import HORIZON, Machines, alive, visited_risk
from churnkit.simulate.world import AHEAD, DAY, WARM, Array, World

Target = Literal["churn", "expansion", "maintenance"]
LEAD, SPAN = 14, 90
ACCOUNT_STEP, ASSET_STEP = 28, 7
_COLUMNS = {
    "churn": ("accounts", "churn_probability", "churned"),
    "expansion": ("accounts", "expansion_probability", "expanded"),
    "maintenance": ("assets", "failure_probability", "failed"),
}

_USE = ("events", "active_users", "peak_users", "distinct_features", "seats_active_share", "new_features")
_TROUBLE = ("tickets_open", "oldest_ticket_days", "tickets_escalated", "human_requested", "repeat_contacts", "csat",
            "mood", "cue_repeat", "cue_shouting", "cue_unsolved", "cue_person", "cue_escalation", "cue_share", "nps",
            "survey_csat")
TELLS = MappingProxyType({
    "champion_left": ("champion_left", "champions"), "price_rise": ("price", "mrr"),
    "bug_burst": (*_TROUBLE, "tickets_opened", "tickets_reopened", "messages", "first_contact_share", "bot_handovers"),
    "slow_support": (*_TROUBLE, "first_reply_hours", "resolution_hours", "effort", "survey_ces", "tickets_reassigned"),
    "payment_trouble": ("overdue_amount", "overdue_days", "failed_payments"), "never_adopted": _USE,
})
"""Which families of features tell of each cause of leaving: those drawn from its driver, and not what merely follows,
as less use does from most of them."""


def read_causes(folder: Path) -> pa.Table:
    """Which causes of leaving were at work on whom: account_id, cutoff and cause, one row each.

    Raises:
        DataError: If there is no truth in that folder.
    """
    file = folder / "accounts.parquet"
    if not file.is_file():
        raise DataError(f"No truth in '{folder}': {file.name} is missing. Only simulated books have one: "
                        "churnkit simulate.")
    table = pq.read_table(file, columns=["account_id", "cutoff", "causes"])
    parts = pc.split_pattern(table["causes"], ";").combine_chunks()
    rows = table.select(["account_id", "cutoff"]).take(pc.list_parent_indices(parts))
    found = rows.append_column("cause", pc.list_flatten(parts))
    return found.filter(pc.is_in(found["cause"], value_set=pa.array(list(TELLS))))


def read_truth(folder: Path, target: str) -> tuple[Array, Array]:
    """True probabilities and realised outcomes of a target, in the order of the truth file, where both are defined.

    Args:
        folder: The truth folder of a book: `Book.truth`.
        target: churn, expansion or maintenance.

    Raises:
        DataError: If there is no such target or no truth in that folder.
    """
    if target not in _COLUMNS:
        raise DataError(f"There is no truth on '{target}'.{did_you_mean(target, _COLUMNS)} "
                        f"Known: {', '.join(_COLUMNS)}.")
    name, chance, outcome = _COLUMNS[target]
    file = folder / f"{name}.parquet"
    if not file.is_file():
        raise DataError(f"No truth in '{folder}': {file.name} is missing. Only simulated books have one: "
                        "churnkit simulate.")
    table = pq.read_table(file, columns=[chance, outcome]).drop_null()
    return table[chance].to_numpy(), table[outcome].to_numpy().astype(int)


def auc(probability: Array, outcome: Array) -> float:
    """Area under the ROC curve, ties counting half.

    >>> auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.75
    """
    outcome = np.asarray(outcome)
    _, place, count = np.unique(np.asarray(probability), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]
    ones = int(outcome.sum())
    return float((ranks[outcome == 1].sum() - ones * (ones + 1) / 2) / (ones * (len(outcome) - ones)))


def write(folder: Path, world: World, states: States, lives: Lives) -> None:
    """Writes accounts, assets and causes as parquet into `folder`.

    What would be true if a person spoke with the account (of its trouble, or to sell) at the cutoff stands beside what
    is true without that; the uplift is the gain in the probability of the good outcome.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(_accounts(world, states, lives), folder / "accounts.parquet", compression="zstd")
    pq.write_table(_assets(world, lives.equipment), folder / "assets.parquet", compression="zstd")
    pq.write_table(_causes(world, states), folder / "causes.parquet", compression="zstd")


def _accounts(world: World, states: States, lives: Lives) -> pa.Table:
    """Every account and cutoff, 28 days apart, at which a prediction would be made."""
    clock, deal, pushes = world.clock, lives.deal, (lives.push.churn, lives.push.growth)
    dice, dogs = world.dice("truth"), world.sleeping
    pulls = ((states.churn, states.base_churn), (states.growth, states.base_growth))
    came = [states.log_hazard(*pull) for pull in pulls]
    parts = []
    for cutoff in clock.cutoffs(ACCOUNT_STEP):
        week = int((cutoff - clock.start) // (7 * DAY)) + WARM
        where, others = _there(world, deal, cutoff), _there(world, lives.first, cutoff)
        seen = [states.foreseen(week, *pull) for pull in pulls]
        new = [states.surprises(week, one[:, others], other[:, others], dice)
               for one, other in zip(came, seen, strict=True)]
        left_over = [_left_over(one, week, where) for one in pushes]
        seen = [one[:, where] + other for one, other in zip(seen, left_over, strict=True)]
        first, last = cutoff + LEAD * DAY, cutoff + (LEAD + SPAN) * DAY
        now, spoken = np.full(len(where), week), fading(np.arange(AHEAD + 1) - 1)[:, None]
        effect, sale = contact_effect(world, states, where, now), sale_effect(states, where, now)
        called = seen[0] - left_over[0] + stronger(left_over[0], effect * spoken)
        talked = seen[1] - left_over[1] + stronger(left_over[1], sale * spoken)
        stays, stays_called = _leave(world, deal, (where, cutoff), (seen[0], called), new[0])
        buys, buys_talked = _grow(world, deal, (where, week), (seen[1], talked), new[1])
        woken = np.where(dogs[where], stays_called, stays)  # a sales talk is a call too
        left = ((deal.left >= first) & (deal.left < last))[where]
        in_lead = (deal.left < first)[where]
        bought = ((deal.bought > 0) & (deal.bought_at >= first) & (deal.bought_at < last))[:, where].any(axis=0)
        parts.append(pa.table({
            "account_id": ids(world.ids, where),
            "cutoff": pa.array(np.full(len(where), cutoff)).cast(pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC")),
            "churn_probability": 1 - stays,
            "churned": pa.array(left, mask=in_lead),
            "churn_probability_if_contacted": 1 - stays_called,
            "churn_uplift": stays_called - stays,
            "contact_effect": effect,
            "sleeping": dogs[where],
            "expansion_probability": buys * stays,
            "expanded": pa.array(bought & ~left, mask=in_lead),
            "expansion_probability_if_contacted": buys_talked * woken,
            "expansion_uplift": buys_talked * woken - buys * stays,
            "sale_effect": sale,
            "causes": pa.array(np.array(active(states, week), dtype=object)[where]),
        }))
    return pa.concat_tables([part.set_column(0, "account_id", part["account_id"].cast(pa.string())) for part in parts])


def _there(world: World, deal: Contracts, cutoff: np.datetime64) -> Array:
    """The accounts of which a prediction would be made: customers who have not given notice."""
    return np.nonzero((world.joined < cutoff) & ~(deal.left <= cutoff) & ~(deal.notice <= cutoff))[0]


def _left_over(push: Array | float, week: int, where: Array) -> Array | float:
    """What the effects of contacts before that week will still add in it and the AHEAD next ones."""
    if isinstance(push, float):
        return push
    return np.asarray(push[week, where] * fading(np.arange(AHEAD + 1))[:, None])


def _leave(world: World, deal: Contracts, asked: tuple[Array, np.datetime64], seen: Sequence[Array],
           new: Array) -> list[Array]:
    """Chance that the last day does not lie in the window, given that it does not lie before it; one for each `seen`.

    Averaged over the paths of shocks yet to come.
    """
    accounts, cutoff = asked
    at, decided = deal.months.at[accounts], deal.months.decided[accounts]
    account, month = np.nonzero((at >= cutoff + LEAD * DAY) & (at < cutoff + (LEAD + SPAN) * DAY) & (decided > cutoff))
    lag = np.clip((decided[account, month] - cutoff) // (7 * DAY), 0, AHEAD).astype(int)
    weight = world.dials.leaving * deal.months.weight[accounts[account], month]
    paths, (some, starts) = np.exp(new[lag]), np.unique(account, return_index=True)
    stays = []
    for one in seen:
        hazard = np.zeros((len(accounts), new.shape[1]))
        if len(some):
            hazard[some] = np.add.reduceat((weight * np.exp(one[lag, account]))[:, None] * paths, starts, axis=0)
        stays.append(np.exp(-hazard).mean(axis=1))
    return stays


def _grow(world: World, deal: Contracts, asked: tuple[Array, int], seen: Sequence[Array], new: Array) -> list[Array]:
    """Chance of an expansion in the window, one for each `seen`; none within REST weeks of the last one."""
    (accounts, week), growing = asked, world.dials.growing
    weeks = np.arange(AHEAD + 1)[:, None]
    last = np.where(deal.bought[:week, accounts] > 0, np.arange(week)[:, None], -REST).max(axis=0)
    free = (week + weeks - last >= REST) * growing
    share = np.clip((LEAD + SPAN) / 7 - weeks, 0, 1) * (weeks >= LEAD // 7)
    paths, buys = np.exp(new).T, []
    for one in seen:
        hazard = free * np.exp(one)
        lead, window = paths[:, :LEAD // 7] @ hazard[:LEAD // 7], paths @ (hazard * share)
        buys.append((np.exp(-lead) * (1 - np.exp(-window))).mean(axis=0))
    return buys


def _assets(world: World, drawn: Machines) -> pa.Table:
    """Every asset in service and cutoff, 7 days apart."""
    clock = world.clock
    parts = []
    there = alive(world, drawn)
    stop = np.where(np.isnat(drawn.retired), clock.end + 999 * DAY, drawn.retired)
    for cutoff in clock.cutoffs(ASSET_STEP):
        day = int((cutoff - clock.start) // DAY)
        where = np.nonzero(there[day - 1] & (stop > cutoff))[0]
        failed = drawn.failed[day:day + HORIZON, where].any(axis=0)
        retires = (stop[where] < cutoff + HORIZON * DAY)
        parts.append(pa.table({
            "asset_id": pa.array(drawn.ids[where]), "account_id": pa.array(world.ids[drawn.account[where]]),
            "cutoff": pa.array(np.full(len(where), cutoff)).cast(pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC")),
            "failure_probability": drawn.risk[day, where].astype(float), "failed": pa.array(failed, mask=retires),
            "failure_probability_if_visited": visited_risk(drawn.risk[day, where].astype(float)),
            "worn": drawn.wear[day, where] > 0.2,
        }))
    return pa.concat_tables(parts)


def _causes(world: World, states: States) -> pa.Table:
    """When each cause struck whom, and how hard."""
    week, cause, account = np.nonzero(states.shocks[:WARM + world.clock.weeks])
    at = world.clock.start + (week - WARM) * 7 * DAY
    return pa.table({
        "account_id": ids(world.ids, account).cast(pa.string()),
        "cause": pa.array([CAUSES[number].name for number in cause.tolist()]),
        "week_of": pa.array(at).cast(pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC")),
        "size": states.shocks[week, cause, account].astype(float),
    })
