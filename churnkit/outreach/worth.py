"""What a task is worth: by a learnt uplift, by the effect that was measured of its play, or by what is believed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pandas as pd

from churnkit.outreach.policy import Play, Ranking

Basis = Literal["uplift", "effect", "prior"]
MEASURED = 30
"""So many customers kept apart make a play's effect a measured one; before, it is the belief, mended a little."""


@dataclass(frozen=True)
class Worth:
    """What a play is believed to turn, and by what.

    `effect` is the share of the loss (or of the sale) that the play turns, between `low` and `high` where it was
    measured; `uplift` the absolute gain in the probability of the good outcome; `gain` the money that is expected of
    it, before its cost. `by` says what the rank rests on: a learnt uplift, a measured effect, or a prior belief.
    """

    effect: float
    by: Basis = "prior"
    low: float | None = None
    high: float | None = None
    uplift: float = math.nan
    gain: float = math.nan

    def times(self, probability: float, value: float) -> Worth:
        """Probability x effect, and that x value.

        >>> Worth(0.15).times(0.4, 10_000.0).gain
        600.0
        """
        return replace(self, uplift=probability * self.effect, gain=probability * self.effect * value)

    def learnt(self, uplift: float, value: float) -> Worth:
        """By an uplift that a model with proven skill foresees.

        >>> Worth(0.15).learnt(-0.02, 10_000.0).gain
        -200.0
        """
        return replace(self, by="uplift", uplift=uplift, gain=uplift * value)

    @classmethod
    def together(cls, parts: Sequence[Worth]) -> Worth:
        """The first one's words with the money of all; parts of unknown value count nothing beside known ones."""
        known = [part.gain for part in parts if math.isfinite(part.gain)]
        return replace(parts[0], gain=sum(known) if known else math.nan)


@dataclass(frozen=True, eq=False)
class Effects:
    """The measured effects by play, cause and segment ("" is all of them), and whether a learnt uplift may rank.

    >>> Effects().of("save_call", Play(target="churn", open=0.2, effect=0.15, steps=("Call.",)), "usage", "mid").effect
    0.15
    """

    found: Mapping[tuple[str, str, str], Worth] = field(default_factory=dict)
    uplift: bool = True

    @classmethod
    def read(cls, effects: pd.DataFrame | None, ranking: Ranking) -> Effects:
        """From the table that `impact` writes (effects.EFFECTS); with few customers kept apart it is still a belief."""
        if effects is None or effects.empty or not ranking.effects:
            return cls(uplift=ranking.uplift)
        rows = effects.to_dict("records")
        told = {row["play"] for row in rows if not row["cause"] and not row["segment"] and row["n_control"] >= MEASURED}
        return cls({(row["play"], row["cause"] or "", row["segment"] or ""): Worth(
            float(row["effect"]), "effect" if row["play"] in told else "prior", float(row["low"]), float(row["high"]))
            for row in rows}, ranking.uplift)

    def of(self, name: str, play: Play, cause: str, segment: str) -> Worth:
        """What is known closest to the case: its cause in its segment, its cause, its segment, its play; or belief."""
        for key in ((name, cause, segment), (name, cause, ""), (name, "", segment), (name, "", "")):
            if key in self.found:
                return self.found[key]
        return Worth(play.effect)
