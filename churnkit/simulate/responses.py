"""A made-up experiment with known uplift: accounts some of whom a contact keeps, and some of whom it drives out.

What the plan would see is not who responds but what correlates with it: tickets, use, how far an account helps itself,
and what a churn model tells. The sleeping dogs (calm accounts that help themselves and are due to renew) are riskier
than the rest, so that ranking by probability alone finds them first.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Kind = Literal["dogs", "same", "none"]
BLUR = 0.4
"""How far the log-odds of a churn model's answer, `model_probability`, stray from the truth."""


def responses(accounts: int, seed: int = 7, *, kind: Kind = "dogs", control: float = 0.5) -> pd.DataFrame:
    """One row per account of an experiment: inputs, `treated`, `propensity`, `stayed`, and what nobody would know: the
    chance to leave uncontacted (`risk`) and what a contact adds to the chance to stay (`uplift`).

    Args:
        accounts: How many.
        seed: Of everything.
        kind: "dogs": a contact turns most of the risk of noisy accounts, next to nothing of others', and drives out
            sleeping dogs; "same": it adds as much for everybody; "none": nothing for anybody.
        control: The share that is not contacted.

    >>> made = responses(1000)
    >>> bool((made["uplift"] < 0).any()), bool((responses(1000, kind="none")["uplift"] == 0).all())
    (True, True)
    """
    rng = np.random.default_rng(seed)
    tickets = rng.poisson(1.2, accounts).astype(float)
    self_service = rng.beta(2, 2, accounts)
    renewal = rng.uniform(0, 360, accounts)
    events = np.where(rng.random(accounts) < 0.05, np.nan, rng.gamma(4, 10, accounts))
    plan = rng.choice(["solo", "team", "enterprise"], accounts, p=[0.4, 0.4, 0.2])
    dogs = (self_service > 0.55) & (renewal < 180)
    raw = (-1.6 + 0.35 * (tickets - 1.2) - 0.015 * (np.nan_to_num(events, nan=40.0) - 40) + 0.3 * (plan == "solo")
           + 1.0 * dogs)
    risk = 1 / (1 + np.exp(-raw))
    uplift = _uplift(kind, risk, dogs, (tickets >= 2) & ~dogs)
    treated = rng.random(accounts) >= control
    left = rng.random(accounts) < np.clip(risk - np.where(treated, uplift, 0.0), 0.0, 1.0)
    noise = {f"noise_{number}": rng.normal(size=accounts) for number in range(4)}
    told = 1 / (1 + np.exp(-(raw + BLUR * rng.normal(size=accounts))))
    return pd.DataFrame({
        "tickets_open": tickets, "self_service_share": self_service, "days_to_renewal": renewal, "events_28d": events,
        "plan": plan.astype(object), **noise, "model_probability": told, "treated": treated, "propensity": 1 - control,
        "stayed": (~left).astype(float), "risk": risk, "uplift": uplift})


UNSEEN = ("treated", "propensity", "stayed", "risk", "uplift")
"""The columns that are no inputs."""


def _uplift(kind: Kind, risk: Floats, dogs: NDArray[np.bool_], noisy: NDArray[np.bool_]) -> Floats:
    if kind == "none":
        return np.zeros(len(risk))
    if kind == "same":
        return np.minimum(0.05, risk)
    return np.where(dogs, -np.minimum(0.15, 1 - risk), np.where(noisy, 0.6 * risk, 0.02 * risk))
