"""What outreach came to: contacted against kept apart, by play and overall, with intervals that may be looked at early.

Two frames go in and one comes out. The main answer compares the customers for whom a play opened: those who got the
task with those whose task was kept as a ghost. Beside it stand all customers that were drawn, whether or not anything
opened for them (intention to treat). Pure; makes no difference between a simulated and a real book.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from churnkit.errors import OutreachError
from churnkit.outreach.adjust import Difference, difference
from churnkit.outreach.estimate import Comparison, Data, compare, stratified
from churnkit.outreach.rates import Floats, detectable, needed

if TYPE_CHECKING:
    from churnkit.outreach.outbox import Outbox


@dataclass(frozen=True)
class Outcome:
    """One thing that outreach may change: which way is good, its bounds where it has any, and its noun for people."""

    good: int
    says: str
    low: float = -np.inf
    high: float = np.inf


OUTCOMES: Mapping[str, Outcome] = MappingProxyType({
    "churned": Outcome(-1, "left", 0, 1), "expanded": Outcome(1, "bought more", 0, 1),
    "failures": Outcome(-1, "equipment failures", 0), "mrr_kept": Outcome(1, "share of MRR kept", 0),
    "mrr": Outcome(1, "MRR", 0), "csat": Outcome(1, "satisfaction with support", 1, 5),
    "nps": Outcome(1, "likelihood to recommend", 0, 10),
})
"""Every outcome, in the order of the report; its column is blank where its window is not closed."""
OWN: Mapping[str, str] = MappingProxyType({"churn": "churned", "expansion": "expanded", "maintenance": "failures"})
"""The outcome that each target's plays are for; over all of them it is churn."""

UNITS = ("top", "play", "target", "cause", "segment", "stratum", "arm", "propensity", "triggered_at", "score", "value",
         "mrr_before", "passed_on", "touched", *OUTCOMES)
"""One row per customer and play, at its first trigger, and one per customer with play '' at the first of any."""
ENROLLED = tuple(name for name in UNITS if name not in {"play", "target", "cause", "passed_on", "triggered_at"})
"""One row per customer that was drawn, with outcomes over the same span for all."""
IMPACT = ("level", "target", "play", "outcome", "n_treated", "n_control", "treated", "control", "difference", "low",
          "high", "adjusted", "adjusted_low", "adjusted_high", "gain", "stratified", "stratified_low",
          "stratified_high", "always_low", "always_high", "detectable", "stated", "needed", "enough_at", "money",
          "money_low", "money_high", "touched", "bound_low", "bound_high", "rescaled", "verdict")
"""One row per level (triggered or enrolled), target, play and outcome. `difference` is treated minus control as it is
counted, `adjusted` the same at equal scores, `gain` the share of variance that this saves; `low` and `high` are meant
for one look, at `enough_at`; `always_low` and `always_high` hold at every look. `detectable` is the smallest difference
that would be seen, `stated` the one that the play promises, `needed` the customers that it takes to see it. `money` is
what all the treated have kept or gained so far. `bound_low` and `bound_high` hold the adjusted difference whatever a
touch did to the control customers that were touched, `rescaled` is what it is if a touch does what a task does."""

FEWEST_EVENTS, FEWEST_CONTROL = 10, 10
PLAUSIBLE = 0.5
"""No play is believed to turn more than this share of an outcome, unless its prior says so."""
PLANNED = 1000
TOO_FEW, HELPS, HARMS, NOTHING, OPEN = "too few", "helps", "harms", "no difference", "not decided"


@dataclass(frozen=True)
class Asked:
    """What the answer depends on beside the frames.

    `effects` is what each play promises, as the share of its outcome that it turns (policy.effect). `planned` is how
    many customers each play's comparison was planned with; the interval for every look is tightest there, and it may
    not be changed after looking. `window_days` is how long after its trigger an outcome is known.
    """

    at: dt.datetime
    effects: Mapping[str, float] = field(default_factory=dict)
    planned: Mapping[str, int] = field(default_factory=dict)
    window_days: Mapping[str, float] = field(default_factory=dict)


class _Part(NamedTuple):
    """One comparison: the rows whose outcome is known, all rows, and what they are asked."""

    level: str
    target: str
    play: str
    outcome: str
    known: pd.DataFrame
    every: pd.DataFrame
    asked: Asked

    @property
    def own(self) -> bool:
        return self.outcome == OWN.get(self.target, "churned")


def impact(units: pd.DataFrame, enrolled: pd.DataFrame | None, asked: Asked) -> pd.DataFrame:
    """Every comparison that the frames allow.

    The reserve is left out, and of the triggered whoever took a slot that a control customer's ghost had passed on.

    Args:
        units: UNITS; columns of outcomes may be missing.
        enrolled: ENROLLED, or None.
        asked: When, and what was promised and planned.

    Returns:
        IMPACT: first over all plays, then by target, then by play.

    Raises:
        OutreachError: If a column is missing, or a customer stands in both arms.
    """
    parts = [_row(part) for level, frame in (("triggered", units), ("enrolled", enrolled)) if frame is not None
             for part in _parts(level, _checked(level, frame), asked)]
    return pd.DataFrame([part for part in parts if part], columns=list(IMPACT))


def counts(outbox: Outbox) -> list[dict[str, Any]]:
    """How many tasks there are of each play, status and disposition, sent ones and control accounts' ghosts apart.

    Returns:
        Rows of play, target, control (whether they are ghosts), status, disposition and tasks, sorted.
    """
    tasks = outbox.tasks()
    found = Counter((task.play, task.target, task.ghost, task.status, task.disposition or "") for task in tasks)
    return [dict(zip(("play", "target", "control", "status", "disposition", "tasks"), (*group, count), strict=True))
            for group, count in sorted(found.items())]


def _checked(level: str, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that count, with the columns that may be missing."""
    asked_for = ("top", "arm", "play", "target", "triggered_at") if level == "triggered" else ("top", "arm")
    lacking = [name for name in asked_for if name not in frame]
    if lacking:
        raise OutreachError(f"The {level} customers lack the column '{lacking[0]}'. Give them all of "
                            f"{', '.join(UNITS if level == 'triggered' else ENROLLED)}.")
    frame = frame[frame["arm"].isin(["treated", "control"])]
    both = frame.groupby("top")["arm"].nunique()
    if (both > 1).any():
        raise OutreachError(f"Customer '{both.index[both > 1][0]}' stands in both arms. An arm is drawn once per "
                            "topmost account; take it from the outbox's arms.")
    if "passed_on" in frame and level == "triggered":
        frame = frame[~frame["passed_on"].astype("boolean").fillna(value=False).to_numpy(dtype=bool)]
    plain: dict[str, Any] = {"play": "", "target": "", "stratum": "", "score": np.nan, "value": np.nan,
                             "mrr_before": np.nan, "touched": False, "triggered_at": pd.NaT, "propensity": np.nan}
    return frame.assign(**{name: value for name, value in plain.items() if name not in frame}).reset_index(drop=True)


def _parts(level: str, frame: pd.DataFrame, asked: Asked) -> Iterator[_Part]:
    """The whole, each target, and each play."""
    plays = frame[frame["play"] != ""]
    whole = frame[frame["play"] == ""]
    groups = [("", "", whole), *((str(name), "", some) for name, some in plays.groupby("target")),
              *((str(keys[0]), str(keys[1]), some) for keys, some in plays.groupby(["target", "play"]))]
    for target, play, some in groups:
        for outcome in OUTCOMES:
            known = some[some[outcome].notna()] if outcome in some else some.iloc[:0]
            if known["arm"].nunique() == 2:
                yield _Part(level, target, play, outcome, known, some, asked)


def _row(part: _Part) -> dict[str, Any]:
    """One comparison, as a row of IMPACT."""
    known = part.known
    treated = (known["arm"] == "treated").to_numpy()
    clusters = pd.factorize(known["top"])[0] if known["top"].duplicated().any() else None
    data = Data(known[part.outcome].to_numpy(dtype=float), treated, _covariates(known, part.outcome), clusters)
    means = data.y[treated].mean(), data.y[~treated].mean()
    row: dict[str, Any] = {
        "level": part.level, "target": part.target, "play": part.play, "outcome": part.outcome,
        "n_treated": int(treated.sum()), "n_control": int((~treated).sum()), "treated": means[0], "control": means[1],
        "difference": means[0] - means[1], "touched": int((known["touched"].to_numpy(dtype=bool) & ~treated).sum())}
    if min(row["n_treated"], row["n_control"]) < 2:
        return {**row, "verdict": TOO_FEW}
    found = compare(data, part.asked.planned.get(part.play, PLANNED))
    within, ends = stratified(data, known["stratum"].to_numpy())
    row |= {"low": found.fixed.low, "high": found.fixed.high, "adjusted": found.adjusted.value,
            "adjusted_low": found.closer.low, "adjusted_high": found.closer.high, "gain": found.gain,
            "stratified": within, "stratified_low": ends.low, "stratified_high": ends.high,
            "always_low": found.always.low, "always_high": found.always.high,
            **_samples(part, data, found.adjusted), **_bounds(part, data, found)}
    row |= _money(part, data) if part.own or part.outcome == "mrr" else {}
    return {**row, "verdict": _verdict(row, part, float(data.y.sum()))}


def _covariates(known: pd.DataFrame, outcome: str) -> Floats:
    """What was known before the trigger and foretells the outcome: the score, and for money what there was before.

    The chance of the draw stands first: where the share was changed, only customers drawn alike are compared.
    """
    before = ["propensity", "mrr_before", "score"] if outcome == "mrr" else ["propensity", "score"]
    return known[before].to_numpy(dtype=float)


def _samples(part: _Part, data: Data, adjusted: Difference) -> dict[str, Any]:
    """What could be seen with this sample, and for the play's own outcome how large it must be, and when it will be."""
    found: dict[str, Any] = {"detectable": detectable(adjusted.error)}
    promised = _promised(part)
    y, treated = data.y, data.treated
    base = float(y[~treated].mean())
    if not (part.own and promised and base > 0):
        return found
    share = float((~treated).mean())
    size = adjusted.variance / (1 / treated.sum() + 1 / (~treated).sum())  # a unit's variance, with its gain
    stated = OUTCOMES[part.outcome].good * promised * base
    many = needed(stated, (size, size), share)
    return {**found, "stated": stated, "needed": int(np.ceil(many)), "enough_at": _enough_at(part, int(np.ceil(many)))}


def _promised(part: _Part) -> float:
    """The prior effect of the play, or of the plays together by how often they opened."""
    effects = part.asked.effects
    if part.play:
        return effects.get(part.play, 0.0)
    known = [effects[name] for name in part.every["play"] if name in effects]
    return float(np.mean(known or list(effects.values()) or [0.0]))


def _enough_at(part: _Part, many: int) -> pd.Timestamp | None:
    """When the outcomes of so many are known, if customers go on coming as they have over the last quarter."""
    if part.every["triggered_at"].isna().any():
        return None
    came = pd.to_datetime(part.every["triggered_at"], utc=True).sort_values()
    window = pd.Timedelta(days=part.asked.window_days.get(part.outcome, 0.0))
    if many <= len(came):
        return came.iloc[many - 1] + window
    at = pd.Timestamp(part.asked.at).tz_convert("UTC")
    span = min(at - came.iloc[0], pd.Timedelta(days=91))
    lately = int((came >= at - span).sum())
    if not lately or span <= pd.Timedelta(0):
        return None
    days = (many - len(came)) / (lately / (span / pd.Timedelta(days=1)))
    return at + pd.Timedelta(days=days) + window if days < 36500 else None


def _bounds(part: _Part, data: Data, found: Comparison) -> dict[str, float]:
    """The adjusted difference if the control customers that were touched had come out worst, or best, without it.

    After Manski, "Nonparametric bounds on treatment effects", American Economic Review 1990; rescaled as in Bloom,
    "Accounting for no-shows in experimental evaluation designs", Evaluation Review 1984.
    """
    touched = part.known["touched"].to_numpy(dtype=bool) & ~data.treated
    value, limits = found.adjusted.value, found.closer
    if not touched.any():
        return {"bound_low": limits.low, "bound_high": limits.high, "rescaled": value}
    control = int((~data.treated).sum())
    outcome, mine = OUTCOMES[part.outcome], data.y[touched]
    least = (mine - outcome.low).sum() / control  # how much the control's mean may have been raised by touches
    most = (outcome.high - mine).sum() / control
    reached = 1 - touched.sum() / control
    return {"bound_low": limits.low - most, "bound_high": limits.high + least,
            "rescaled": value / reached if reached > 0 else np.nan}


def _money(part: _Part, data: Data) -> dict[str, float]:
    """What the treated have kept or gained so far: the difference in money an account, times their number.

    For a play's own outcome that is the value at stake of those it happened to; for MRR the money a month.
    """
    good = OUTCOMES[part.outcome].good
    many = int(data.treated.sum()) * good
    if part.outcome != "mrr":
        value = part.known["value"].to_numpy(dtype=float)
        if not np.isfinite(value).any():
            return {}
        value = np.where(np.isfinite(value), value, np.nanmean(value))
        data = data._replace(y=data.y * value, x=np.column_stack([data.x[:, 0], data.x[:, -1] * value, value]))
    found = difference(*data)
    ends = sorted(many * (found.value + side * found.reach() * found.error) for side in (-1, 1))
    return {"money": many * found.value, "money_low": ends[0], "money_high": ends[1]}


def _verdict(row: Mapping[str, Any], part: _Part, events: float) -> str:
    """In a word: helps, harms, no difference, not decided, or too few.

    Too few are those with fewer than FEWEST_EVENTS events or FEWEST_CONTROL control customers, or of whom not even the
    largest plausible effect would be seen. The interval for every look may decide at any time; the fixed one only from
    the sample on that it takes to see the promised effect.
    """
    good = OUTCOMES[part.outcome].good
    rate = OUTCOMES[part.outcome].high == 1 or part.outcome == "failures"
    if row["n_control"] < FEWEST_CONTROL or (rate and events < FEWEST_EVENTS):
        return TOO_FEW
    for low, high, ripe in ((row["always_low"], row["always_high"], True),
                            (row["adjusted_low"], row["adjusted_high"], row["n_treated"] + row["n_control"]
                             >= row.get("needed", np.inf))):
        if ripe and (low > 0 or high < 0):
            return HELPS if (low > 0) == (good > 0) else HARMS
    if rate and row["detectable"] > max(PLAUSIBLE, _promised(part)) * row["control"]:
        return TOO_FEW
    return NOTHING if row["n_treated"] + row["n_control"] >= row.get("needed", np.inf) else OPEN
