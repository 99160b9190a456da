"""Who takes the champion's place: figures against plain loops, and each rule."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from churnkit.learning import promotion
from churnkit.learning.calibrate import Calibration
from churnkit.learning.model import Model
from churnkit.learning.profit import Terms
from churnkit.learning.promotion import Challenger, Decision, Standing, compare, decide
from churnkit.learning.resample import METRICS, draws, resampled

AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
PAY = Terms(value=1000, contact_cost=50, incentive=20, effect=0.4, capacity=12)


def began(run):
    return run.splits.test_at.to_pydatetime()


def asking(run, rows, **fields):
    """A training run as a challenger."""
    return Challenger(run.holdout, AT, began(run), rows, "")._replace(**fields)


def standing(run, **fields):
    """A training run as the champion."""
    return Standing("churn-1", AT, began(run), run.holdout)._replace(**fields)


def paid(rows, p, terms):
    """The profit of each cutoff's riskiest, added up contact by contact."""
    total = 0.0
    for _, part in rows.keys.assign(p=p, y=rows.y).groupby("cutoff"):
        for y in part.sort_values("p", ascending=False)["y"].head(terms.capacity):
            total += terms.effect * (terms.value - terms.incentive) if y else -terms.incentive
            total -= terms.contact_cost
    return total / rows.keys["cutoff"].nunique()


@pytest.fixture(scope="module")
def later(trained, rows):
    """The rows of the test period."""
    return rows.since(trained.splits.test_at)


def test_the_figures_are_those_of_plain_loops(trained, weak, later):
    """Profit contact by contact, error and loss as an evaluation has them."""
    found = compare(trained.holdout, weak.holdout, later, PAY)
    y, codes = later.y.to_numpy(float), pd.factorize(later.keys["entity_id"])[0]
    for run, name in ((trained, "challenger"), (weak, "champion")):
        p = run.holdout.probability(later.X)
        assert len(np.unique(p)) > 0.9 * len(p)
        expected = resampled(y, p, codes, draws(codes.max() + 1, 1, 7))[0]
        assert paid(later, p, PAY) == pytest.approx(getattr(found.profit, name))
        assert expected[METRICS.index("calibration_error")] == pytest.approx(getattr(found.calibration_error, name))
        assert expected[METRICS.index("log_loss")] == pytest.approx(getattr(found.log_loss, name))
    assert (len(later), later.positives, 300) == (found.rows, found.positives, found.entities)
    assert found.profit.difference == found.profit.challenger - found.profit.champion


def test_the_bounds_are_those_of_drawing_entities_by_hand(trained, weak, later, monkeypatch):
    """The rows of each drawn entity are copied as often as it is drawn; who is contacted stays."""
    monkeypatch.setattr(promotion, "RESAMPLES", 40)
    found = compare(trained.holdout, weak.holdout, later, PAY)
    codes, names = pd.factorize(later.keys["entity_id"])
    y = later.y.to_numpy(float)
    differences = {"profit": [], "calibration_error": []}
    for weights in draws(len(names), 40, 7):
        copies = np.repeat(np.arange(len(y)), weights[codes].astype(int))
        figures = []
        for run in (trained, weak):
            p = run.holdout.probability(later.X)
            part = promotion.contacted(later.keys["cutoff"], p, PAY.capacity)
            group = np.empty(len(p), int)
            group[np.argsort(-p, kind="stable")] = np.arange(len(p)) * 10 // len(p)
            gaps = [abs((p - y)[copies][group[copies] == one].sum()) for one in range(10)]
            figures.append((PAY.profit(y * part, part)[copies].sum() / later.keys["cutoff"].nunique(),
                            sum(gaps) / len(copies)))
        for place, name in enumerate(differences):
            differences[name].append(figures[0][place] - figures[1][place])
    for name, values in differences.items():
        one = getattr(found, name)
        assert (one.low, one.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


def test_a_model_against_itself_differs_by_nothing(trained, rows):
    found = decide(asking(trained, rows), standing(trained), PAY)
    assert not found.promoted
    for one in (found.comparison.profit, found.comparison.calibration_error, found.comparison.log_loss):
        assert (one.difference, one.low, one.high) == (0, 0, 0)


@pytest.mark.parametrize("terms", [PAY, None, Terms(500)])
def test_the_better_earner_is_promoted_and_the_other_is_not(trained, weak, rows, terms):
    """In money, at a capacity or a tenth; without a value in positives reached."""
    found = decide(asking(trained, rows), standing(weak), terms)
    assert (found.promoted, found.rule) == (True, "compared")
    assert found.comparison.profit.low > 0 >= found.comparison.calibration_error.low
    assert "earns more than churn-1" in found.says("churn-2")
    assert ("positives reached" if terms is None else "expected profit") in found.says("churn-2")
    back = decide(asking(weak, rows), standing(trained), terms)
    assert (back.promoted, back.rule) == (False, "compared")
    assert back.comparison.profit.difference == pytest.approx(-found.comparison.profit.difference)
    assert "does not surely earn more than churn-1" in back.says("churn-2")


def test_better_ranked_and_worse_calibrated_is_not_promoted(trained, weak, rows):
    """The profit at capacity does not see the level of the probabilities: the second condition does."""
    off = Model.from_parts(trained.holdout.to_parts())
    slope, base = off.calibration.x
    off.calibration = Calibration("platt", (slope, base + 1.0))
    found = decide(asking(trained, rows, holdout=off), standing(weak), PAY)
    assert found.comparison.profit.low > 0
    assert found.comparison.calibration_error.low > 0
    assert not found.promoted
    assert "but is worse calibrated" in found.why


def test_only_rows_of_both_test_periods_are_compared(trained, weak, rows):
    """A champion whose test period begins later has learnt from what was before."""
    cutoffs = rows.since(trained.splits.test_at).cutoffs
    late = cutoffs[1].to_pydatetime()
    found = decide(asking(trained, rows), standing(weak, test_at=late), PAY).comparison
    assert (cutoffs[1], len(cutoffs) - 1) == (found.start, found.cutoffs)
    early = decide(asking(trained, rows), standing(weak, test_at=late - dt.timedelta(days=300)), PAY).comparison
    assert (cutoffs[0], len(cutoffs)) == (early.start, early.cutoffs)


def test_without_a_common_period_a_person_decides(trained, weak, rows):
    found = decide(asking(trained, rows), standing(weak, test_at=AT), PAY)
    assert (found.promoted, found.rule, found.comparison) == (False, "undecided", None)
    assert "there are 0 rows with 0 positives" in found.why
    assert found.says("churn-12 (no skill)").endswith(
        "A person may decide: churnkit promote churn 12 --by NAME --why TEXT")


def test_a_champion_that_cannot_be_compared_stays_until_a_person_decides(trained, weak, rows):
    found = decide(asking(trained, rows), standing(weak, holdout=None, dark="its holdout is gone."), PAY)
    assert (found.promoted, found.why) == (False, "churn-1 cannot be compared: its holdout is gone.")
    assert "churnkit promote churn 2 --by" in found.says("churn-2")


def test_whoever_may_not_is_not_promoted_even_as_the_first(trained, rows):
    found = decide(asking(trained, rows, barred="it has no proven skill."), None, PAY)
    assert (found.promoted, found.why) == (False, "it has no proven skill.")


def test_a_champion_gives_way_where_it_cannot_go_on(trained, weak, rows):
    """Nobody before, files that were changed, an input that is gone, another question, no proven skill."""
    longer = Model.from_parts(trained.holdout.to_parts())
    longer.target = replace(longer.target, horizon=dt.timedelta(days=30))
    narrow = replace(rows, X=rows.X.drop(columns="events_28d"))
    rules = {
        "first": (rows, None),
        "champion broken": (rows, standing(weak, broken="'model.txt' was changed")),
        "inputs gone": (narrow, standing(weak)),
        "another question": (rows, standing(trained, holdout=longer)),
        "champion unproven": (rows, standing(weak, proven=False)),
    }
    for rule, (given, champion) in rules.items():
        found = decide(asking(trained, given), champion, PAY)
        assert (found.promoted, found.rule, found.comparison) == (True, rule, None)
    assert "its input 'events_28d' is no longer computed" in decide(asking(trained, narrow), standing(weak), PAY).why


def test_other_features_alone_are_no_other_question(trained, weak, rows):
    """A definition that was added has to prove itself like anything else."""
    assert decide(asking(weak, rows), standing(trained), PAY).rule == "compared"


def test_an_old_champion_that_stays_is_pointed_out(trained, rows):
    """With the command that lets the new one score."""
    old = standing(trained, at=AT - dt.timedelta(days=200))
    assert ("The champion's data end 200 days before this one's; to let this one score all the same: churnkit promote "
            "churn 2 --by NAME --why TEXT") in decide(asking(trained, rows), old, PAY).says("churn-2")
    assert decide(asking(trained, rows), standing(trained), PAY).by_hand == ""


def test_a_decision_comes_back_from_its_json(trained, weak, rows):
    for found in (decide(asking(trained, rows), standing(weak), PAY), decide(asking(trained, rows), None, PAY)):
        assert found == Decision.from_dict(json.loads(json.dumps(found.to_dict())))
