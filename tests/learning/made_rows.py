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
            "after_days": np.nan,
            "treated": False,
            "propensity": 0.0,
        }
    )
    return frame, labels


def lived(entities=600, months=26, seed=1, *, strength=1.0, rate=0.012, fault="", every=28, target=CHURN):
    """A book of lives: each account leaves once, at a daily hazard that its traits tell, so that the labels of windows
    that overlap agree. `fault` plants one: "no signal", "shifted population" (what told of leaving tells nothing in the
    last third) or "label noise" (a third of all labels is turned over); fewer `entities` make too few positives.
    """
    rng = np.random.default_rng(seed)
    cutoffs = pd.date_range("2024-01-01", periods=months, freq=f"{every}D", tz="UTC").as_unit("us")
    traits = rng.normal(size=(entities, 3))
    risk = strength * (traits @ np.array([0.9, -0.6, 0.4])) * (fault != "no signal")
    late = cutoffs[months * 2 // 3]
    parts = []
    came = cutoffs[0] + pd.to_timedelta(rng.uniform(-200, 28 * months * 0.8, entities), unit="D")
    # the hazard per day; in a shifted world the later one has nothing to do with the traits
    early = came + pd.to_timedelta(rng.exponential(28 / rate / np.exp(risk)).clip(max=9999), unit="D")
    anew = late + pd.to_timedelta(rng.exponential(28 / rate / np.exp(rng.permutation(risk))).clip(max=9999), unit="D")
    left = np.where(early < late, early, anew) if fault == "shifted population" else np.asarray(early)
    left = pd.DatetimeIndex(pd.to_datetime(left, utc=True))
    for cutoff in cutoffs:
        opens = cutoff + target.lead
        here = (came <= cutoff) & (left >= opens)
        n = int(here.sum())
        told = traits[here] + rng.normal(0, 0.3, (n, 3))
        parts.append(pd.DataFrame({
            "entity_id": np.array([f"{k:04d}" for k in range(entities)])[here], "cutoff": cutoff,
            "events_28d": told[:, 0], "tickets_open": told[:, 1], "csat_mean_84d": told[:, 2],
            **{f"noise_{k}": rng.normal(size=n) for k in range(3)},
            "plan": rng.choice(["solo", "team"], n).astype(object),
            "label": (left[here] < opens + target.horizon).astype(int)}))
    frame = pd.concat(parts, ignore_index=True)
    if fault == "label noise":
        turned = rng.random(len(frame)) < 1 / 3
        frame["label"] = np.where(turned, 1 - frame["label"], frame["label"])
    frame["cutoff"] = pd.to_datetime(frame["cutoff"], utc=True).dt.as_unit("us")
    frame["row_id"] = [f"account:{e}@{c.isoformat()}" for e, c in zip(frame["entity_id"], frame["cutoff"], strict=True)]
    frame = frame.assign(entity=target.entity, account_id=frame["entity_id"])
    labels = frame[["row_id", "entity_id", "account_id", "cutoff", "label"]].assign(
        target=target.name, why_none="", kind=None, value=np.nan, after_days=np.nan, treated=False, propensity=0.0)
    return frame.drop(columns="label"), labels.assign(label=labels["label"].astype("Int64"))
