"""A small synthetic book with a known signal, for everything that learns."""

from __future__ import annotations

import numpy as np
import pandas as pd

from churnkit.learning.targets import CHURN


def made(entities=300, months=20, seed=3, *, strength=1.2, target=CHURN, extra=0, rate=-2.2):
    """A made-up book: `events_28d` and `tickets_open` matter, `plan` a little, the rest is noise."""
    rng = np.random.default_rng(seed)
    cutoffs = pd.date_range("2024-01-01", periods=months, freq="28D", tz="UTC").as_unit("us")
    n = entities * months
    entity = np.tile([f"{e:04d}" for e in range(entities)], months)
    cutoff = cutoffs.repeat(entities)
    frame = pd.DataFrame({
        "row_id": [f"account:{e}@{c.isoformat()}" for e, c in zip(entity, cutoff, strict=True)],
        "entity": target.entity, "entity_id": entity, "account_id": entity, "cutoff": cutoff,
        "events_28d": rng.poisson(20, n).astype(float), "events_28d_before": rng.poisson(20, n).astype(float),
        "events_7d": rng.poisson(5, n).astype(float), "tickets_open": rng.poisson(1, n).astype(float),
        "csat_mean_84d": np.where(rng.random(n) < 0.5, np.nan, rng.uniform(1, 5, n)),
        "plan": rng.choice(["solo", "team", "enterprise"], n), "mrr": rng.lognormal(6, 1, n), "nothing_here": np.nan,
        "constant": 1.0, "notice_given": rng.integers(0, 2, n).astype(float),
        **{f"noise_{k}": rng.normal(size=n) for k in range(extra)},
    })
    frame["plan"] = frame["plan"].astype(object)
    raw = rate + strength * (
        0.9 * (frame["tickets_open"] - 1) - 0.15 * (frame["events_28d"] - 20) + 0.4 * (frame["plan"] == "solo")
    )
    labels = pd.DataFrame(
        {
            "row_id": frame["row_id"],
            "entity_id": entity,
            "account_id": entity,
            "cutoff": cutoff,
            "target": target.name,
            "label": pd.array((rng.random(n) < 1 / (1 + np.exp(-raw))).astype(int), dtype="Int64"),
            "why_none": "",
            "kind": None,
            "value": np.nan,
            "treated": False,
            "propensity": 0.0,
        }
    )
    return frame, labels
