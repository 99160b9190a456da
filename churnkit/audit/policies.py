"""Whom to call: what ranking by learnt effects keeps of the best that could be known, on simulated quarters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from churnkit.audit.trials import OPENS, control
from churnkit.outreach.effects import Prior, effect_of, learn
from churnkit.simulate.experiment import NAMES, Design, Experiments, experiments
from churnkit.simulate.world import SEGMENTS, Array

PLAY, PRIOR, COST = "save_call", Prior(0.15), 60.0
RANKINGS = ("learnt", "prior", "probability")


@dataclass(frozen=True)
class Kept:
    """What each ranking keeps of the oracle's value at the same capacity, by quarters of learning.

    The oracle knows each customer's true gain. `learnt` ranks by score x learnt effect x value - cost, `prior` the same
    with the policy's prior for all, `probability` by the score alone; of all, only what seems worth its cost is done.
    `dogs` is the share of calls that go to causes of which outreach harms, quarter by quarter; `harm` what those cost.
    """

    quarters: int
    value: Mapping[str, tuple[float, ...]]
    dogs: Mapping[str, tuple[float, ...]]
    harm: Mapping[str, tuple[float, ...]]
    effects: pd.DataFrame


def kept(design: Design, *, quarters: int = 8, share: float = 0.1, capacity: float = 0.4, seed: int = 1) -> Kept:
    """Works and learns through the quarters, then lays every ranking beside the oracle on each quarter's customers.

    Args:
        design: The world; each quarter has customers of its own.
        quarters: How long.
        share: Of the control group.
        capacity: Calls, as a share of those for whom the play opens.
        seed: Of everything.
    """
    units, values, dogs, harms = [], [], [], []
    effects = learn(_units([]), {PLAY: PRIOR})
    harmful = np.array([design.contact.get(name, 0.0) > 0 for name in NAMES])
    for quarter in range(quarters):
        made = experiments(design, 1, seed * 1000 + quarter).run(0)
        held = control(experiments_as_one(made), share, np.random.default_rng([seed, quarter, 3]))[0]
        opened = np.flatnonzero(made.score >= OPENS)
        many = round(capacity * len(opened))
        worth = _worth(made, opened, effects)
        chosen = {name: _top(worth[name], many) for name in worth}
        gain = made.uplift[opened] * made.value[opened] - COST
        values.append({name: float(gain[rows].sum()) for name, rows in chosen.items()})
        bad = harmful[made.cause[opened]]
        dogs.append({name: float(bad[rows].mean()) if len(rows) else 0.0 for name, rows in chosen.items()})
        harms.append({name: float(-gain[rows][bad[rows]].sum()) for name, rows in chosen.items()})
        done = opened[chosen["learnt"]]  # the work goes by what is known so far; control customers' tasks are ghosts
        units.append(_rows(made, done, held))
        effects = learn(_units(units), {PLAY: PRIOR})
    best = [one["oracle"] for one in values]
    share_of = {name: tuple(one[name] / top for one, top in zip(values, best, strict=True)) for name in RANKINGS}
    return Kept(quarters, share_of, {name: tuple(one[name] for one in dogs) for name in RANKINGS},
                {name: tuple(one[name] for one in harms) for name in RANKINGS}, effects)


def experiments_as_one(made: Experiments) -> Experiments:
    """One experiment as a set of one."""
    return Experiments(*(np.asarray(getattr(made, name))[None] for name in Experiments.__dataclass_fields__))


def _worth(made: Experiments, opened: Array, effects: pd.DataFrame) -> dict[str, Array]:
    """What each ranking believes a call to be worth; the oracle's is the truth."""
    score, value = made.score[opened], made.value[opened]
    cause, segment = (pd.Series(np.array(names)[one[opened]]) for names, one in
                      ((NAMES, made.cause), (SEGMENTS, made.segment)))
    effect = effect_of(effects, pd.Series(PLAY, cause.index), cause, segment).to_numpy()
    return {"oracle": made.uplift[opened] * value - COST, "learnt": score * effect * value - COST,
            "prior": score * PRIOR.effect * value - COST, "probability": score}


def _top(worth: Array, many: int) -> Array:
    """The best, as many as can be done, without those that are not worth their cost."""
    order = np.argsort(-worth, kind="stable")[:many]
    return np.asarray(order[worth[order] > 0])


def _rows(made: Experiments, done: Array, held: Array) -> pd.DataFrame:
    treated = ~held[done]
    return pd.DataFrame({
        "play": PLAY, "target": "churn", "cause": np.array(NAMES)[made.cause[done]],
        "segment": np.array(SEGMENTS)[made.segment[done]], "arm": np.where(treated, "treated", "control"),
        "score": made.score[done], "churned": made.seen(~held)[done].astype(float)})


def _units(parts: list[pd.DataFrame]) -> pd.DataFrame:
    columns = ["play", "target", "cause", "segment", "arm", "score", "churned"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
