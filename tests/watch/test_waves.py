"""What customers truly do holds nothing: a price-rise wave that builds up, a season known from the year before."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from conftest import AT

from churnkit.cutoffs import moment
from churnkit.jobs.workspace import save
from churnkit.settings import load
from churnkit.watch.drift import Spread, built_up

WAVE_DAYS = 24
"""How long ago the price rose; use falls for two weeks from then on."""


def worsened(usage, start):
    """A price rise: two in five accounts use less and less for two weeks, and then a fifth of what they used."""
    hit = usage["account_id"].str[-1].isin(["1", "4", "6", "9"])
    gone = ((usage["occurred_at"] - start) / pd.Timedelta(days=14)).clip(0, 1) * 0.8
    dice = np.random.default_rng(5).random(len(usage))
    share = 1 - gone.where(hit, 0.0)
    return usage.assign(quantity=np.ceil(usage["quantity"] * share))[dice < np.sqrt(share)]


def scores_of(usage, at):
    """Made-up scores that follow use: the less of it in a week beside the ten weeks before, the likelier to leave."""
    past = usage[usage["recorded_at"] <= at]
    week = past["occurred_at"] >= at - pd.Timedelta(days=7)
    longer = (past["occurred_at"] < at - pd.Timedelta(days=7)) & (past["occurred_at"] >= at - pd.Timedelta(days=77))
    used = [past[rows].groupby("account_id")["quantity"].sum() for rows in (week, longer)]
    both = pd.concat(used, axis=1, keys=["now", "before"]).fillna(0).query("before > 0")
    fall = 1 - (both["now"] / (both["before"] / 10)).clip(0, 1)
    ids = both.index.astype(str)
    return pd.DataFrame({"entity_id": ids, "account_id": ids, "cutoff": at, "target": "churn", "skill": True,
                         "probability": 0.02 + 0.4 * fall.to_numpy() ** 2, "model_version": "churn-1"})


@pytest.mark.parametrize("step", [1, 7])
def test_a_price_rise_wave_is_no_fault(usage, write, look, workspace, step):
    """Alerts rise far above what was usual, by daily runs and by weekly ones, in feeds that are whole."""
    now = AT - pd.Timedelta(days=WAVE_DAYS - 16)
    harmed = worsened(usage, AT - pd.Timedelta(days=WAVE_DAYS))
    write(harmed)
    alerts = []
    for runs in range(5, -1, -1):
        at = now - pd.Timedelta(days=step * runs)
        scores = scores_of(harmed, at)
        alerts.append((scores["probability"] >= 0.2).sum())
        save(load(workspace), "scores", "churn", at, scores)
    found = look(now, scores)
    assert alerts[-1] > 4 * alerts[0]
    assert dict(found.held) == {}
    assert (step == 7) == any("customers have truly changed" in note for note in found.notes)


def test_alerts_that_come_at_once_without_a_change_in_use_hold(usage, look, workspace):
    """The same rise between two runs, and nothing in the records that would show why."""
    for days in range(5, 0, -1):
        before = AT - pd.Timedelta(days=days)
        save(load(workspace), "scores", "churn", before, scores_of(usage, before))
    now = scores_of(usage, AT)
    jumped = now.assign(probability=now["probability"].where(now.index % 3 > 0, 0.4))
    found = look(AT, jumped)
    assert set(found.held) == {"churn"}
    assert {"scores", "alerts"} == {one.kind for one in found.held["churn"]}
    assert dict(look(AT, now).held) == {}


@pytest.mark.parametrize("at", ["2026-08-05", "2026-08-12", "2026-08-19", "2026-09-03"])
def test_a_dip_of_every_year_is_no_fault(usage, write, look, at):
    """Use goes down by two fifths from one day to the next each August, and comes back: the year before explains it."""
    august = usage["occurred_at"].dt.month == 8
    dice = np.random.default_rng(5).random(len(usage))
    write(usage[~(august & (dice < 0.4))])
    assert dict(look(moment(at)).held) == {}


def test_the_same_dip_without_a_year_before_holds(usage, write, look):
    """What no year before knows is for a person to say."""
    august = (usage["occurred_at"].dt.month == 5) & (usage["occurred_at"].dt.year == 2026)
    dice = np.random.default_rng(5).random(len(usage))
    write(usage[~(august & (dice < 0.4))])
    assert set(look(moment("2026-05-06")).held) == {"churn", "expansion"}


def test_how_long_it_took_tells_a_wave_from_a_fault():
    """A fall over ten days counts as such, one between two days as none, and none as unknown."""
    dice = np.random.default_rng(3)
    others = dice.poisson(900, 84).astype(float)
    ramp = np.interp(np.arange(84), [60, 74], [300.0, 60.0])
    step = np.where(np.arange(84) < 74, 300.0, 60.0)
    assert built_up(dice.poisson(ramp).astype(float), others) >= 5
    assert built_up(dice.poisson(step).astype(float), others) <= 2
    assert built_up(dice.poisson(300, 84).astype(float), others) is None


def test_a_spread_knows_its_alerts():
    """Those at the bar and above; a missing score is none."""
    found = Spread.of(AT.date(), np.array([0.1, 0.2, 0.3, np.nan]), "churn-1", 0.2)
    assert (3, 2) == (found.number, found.alerts)
