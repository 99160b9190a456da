"""What is at stake: prices, margins, months, and the gains that were seen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_labels import at, sub, subscriptions

from churnkit.errors import ModelError
from churnkit.learning.gains import PRIOR
from churnkit.learning.value import gain_share, stakes
from churnkit.settings import Settings
from churnkit.signals.tables import Tables


def book(subscribed, said=None, **frames):
    known = pd.DataFrame({"account_id": ["a", "b"], "created_at": [at(-900)] * 2})
    return Tables.from_frames(Settings(covers_until=at(400), **(said or {})), accounts=known,
                              subscriptions=subscribed, **frames)


def scores(target, entity_id="a", day=300):
    return pd.DataFrame(
        {
            "entity_id": [entity_id],
            "account_id": ["a"],
            "cutoff": pd.to_datetime([at(day)], utc=True).as_unit("us"),
            "target": target,
            "probability": 0.5,
        }
    )


def test_churn_is_worth_the_years_margin():
    """100 a month x 0.8 x 12."""
    found = stakes(scores("churn"), pd.DataFrame(), book(subscriptions(sub(-50))))
    assert tuple(found[["value", "currency"]].iloc[0]) == (960.0, "EUR")


def test_an_ended_subscription_is_worth_nothing_known():
    found = stakes(scores("churn"), pd.DataFrame(), book(subscriptions(sub(-50, 200))))
    assert found["value"].isna().all()
    assert found["currency"].tolist() == [None]


def test_the_features_own_mrr_is_used():
    features = pd.DataFrame({"entity_id": ["a"], "mrr": [10.0]})
    assert stakes(scores("churn"), features, book(subscriptions(sub(-50))))["value"].tolist() == [96.0]


def test_dollars_alone_stay_dollars_and_rates_convert_them():
    dollars = subscriptions(sub(-50)).assign(currency="USD")
    assert stakes(scores("churn"), pd.DataFrame(), book(dollars))["currency"].tolist() == ["USD"]
    found = stakes(scores("churn"), pd.DataFrame(), book(dollars, {"rates": {"USD": 0.5}}))
    assert tuple(found[["value", "currency"]].iloc[0]) == (480.0, "EUR")


def test_expansion_draws_the_gains_seen_to_the_setting():
    """One account doubled inside one window: a gain of 1.0 among twenty of the setting's 0.3."""
    grown = subscriptions(sub(-500, 230), sub(230, seats=20.0, mrr=200.0))
    expected = (1.0 + PRIOR * 0.3) / (1 + PRIOR)
    assert expected == pytest.approx(gain_share(book(grown), pd.Timestamp(at(300)) + pd.Timedelta(days=40)))
    assert gain_share(book(subscriptions(sub(-50))), pd.Timestamp(at(300))) == pytest.approx(0.3)


def test_a_gain_that_a_model_tells_goes_before_the_usual_share():
    """50 a month x 0.8 x 12; unknown where the model cannot tell."""
    both = pd.concat([scores("expansion"), scores("expansion"), scores("churn")], ignore_index=True)
    found = stakes(both, pd.DataFrame(), book(subscriptions(sub(-50))), np.array([50.0, np.nan, 7.0]))
    assert found["value"].fillna(-1).tolist() == [480.0, -1.0, 960.0]


def test_a_failure_costs_what_its_model_costs_else_months_of_mrr():
    assets = pd.DataFrame({"asset_id": ["m", "n"], "account_id": "a", "model": ["x1", "x2"], "installed_at": at(-90)})
    given = book(subscriptions(sub(-50)), {"value": {"failure_cost": {"x1": 5000}, "failure_share": 2}}, assets=assets)
    both = pd.concat([scores("maintenance", "m"), scores("maintenance", "n")], ignore_index=True)
    assert stakes(both, pd.DataFrame(), given)["value"].tolist() == [5000.0, 200.0]


def test_an_unknown_target_has_no_price():
    with pytest.raises(ModelError, match="Nothing says what 'loyalty' is worth"):
        stakes(scores("loyalty"), pd.DataFrame(), book(subscriptions(sub(-50))))
