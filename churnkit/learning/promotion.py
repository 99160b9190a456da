"""Who scores: a challenger takes the champion's place where it earns more on the same later period, or it does not."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from churnkit.learning.calibrate import EDGE, Floats
from churnkit.learning.model import Model
from churnkit.learning.profit import SHARE, Terms, contacted
from churnkit.learning.resample import FEWEST, draws
from churnkit.learning.splits import TrainingSet

RESAMPLES = 2000
STALE = dt.timedelta(days=180)
"""A champion whose data end so long before the challenger's is pointed out."""
PLAIN = Terms(value=1.0, contact_cost=0.0, effect=1.0)
"""Where nothing says what a contact is worth: a positive that is reached counts one."""
_GROUPS = 10
_ASK = "A person may decide"


@dataclass(frozen=True)
class Paired:
    """One figure of both models on the same rows, and their difference with the bounds that hold 95% of the resamples
    of entities; the same entities are drawn for both.
    """

    challenger: float
    champion: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Challenger and champion on rows that neither had seen, each as fitted before its own test period.

    `profit` is the expected profit of one cutoff at capacity: of contacting the riskiest that there is room for, at the
    mean effect of a contact. `calibration_error` is the mean distance of predicted from observed over ten groups of
    equal size by the model's own score; it and the log loss are better when lower.
    """

    start: dt.datetime
    end: dt.datetime
    cutoffs: int
    rows: int
    positives: int
    entities: int
    capacity: int | None
    value: float | None
    profit: Paired
    calibration_error: Paired
    log_loss: Paired

    @property
    def better(self) -> bool:
        """Whether the challenger surely earns more, and is not surely worse calibrated."""
        return self.profit.low > 0 and not self.miscalibrated

    @property
    def miscalibrated(self) -> bool:
        """Whether the challenger's calibration error is surely higher."""
        return self.calibration_error.low > 0

    def says(self) -> str:
        """The figures in one sentence."""
        room = f"the riskiest {SHARE:.0%}" if self.capacity is None else f"the riskiest {self.capacity}"
        what = "positives reached" if self.value is None else "expected profit"
        one, error = self.profit, self.calibration_error
        show = ".2f" if max(abs(one.challenger), abs(one.champion)) < 100 else ",.0f"
        return (f"on {self.rows} rows of {self.entities} entities with {self.positives} positives at {self.cutoffs} "
                f"cutoffs from {self.start:%Y-%m-%d} to {self.end:%Y-%m-%d}, which neither had seen, contacting {room} "
                f"at each: {what} a cutoff {one.challenger:{show}} against {one.champion:{show}} "
                f"({one.difference:+{show}}, 95% of the resamples {one.low:+{show}} to {one.high:+{show}}; the lower "
                f"must exceed 0), calibration error {error.challenger:.4f} against {error.champion:.4f} "
                f"({error.difference:+.4f}, {error.low:+.4f} to {error.high:+.4f}; the lower must not)")


class Standing(NamedTuple):
    """The champion as a challenger meets it: its name, its data, and the fit that its test period was kept from.

    `broken` says why it can score nobody, `dark` why it cannot be compared; `holdout` is None then. `proven` is False
    for one that a person promoted without.
    """

    version: str
    at: dt.datetime
    test_at: dt.datetime
    holdout: Model | None
    broken: str = ""
    dark: str = ""
    proven: bool = True


@dataclass(frozen=True)
class Decision:
    """Whether a version became champion, by which rule, why in a sentence, against whom and by which figures.

    `by_hand` says why a person may want to decide otherwise; blank where there is no reason to.
    """

    promoted: bool
    rule: str
    why: str
    champion: str | None = None
    comparison: Comparison | None = None
    by_hand: str = ""

    def says(self, version: str) -> str:
        """The decision on a version, such as churn-3, as a run reports it."""
        told = f"{version} is {'the champion' if self.promoted else 'a challenger'}: {self.why}"
        target, number = version.split(maxsplit=1)[0].rsplit("-", 1)
        return told + (f" {self.by_hand}: churnkit promote {target} {number} --by NAME --why TEXT" if self.by_hand
                       else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found = asdict(self)
        if self.comparison:
            found["comparison"] |= {name: getattr(self.comparison, name).isoformat() for name in ("start", "end")}
        return found

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Decision:
        """The reverse of `to_dict`."""
        one = data["comparison"]
        if one is not None:
            spans = {name: dt.datetime.fromisoformat(one[name]) for name in ("start", "end")}
            pairs = {name: Paired(**one[name]) for name in ("profit", "calibration_error", "log_loss")}
            one = Comparison(**{**one, **spans, **pairs})
        return cls(**{**data, "comparison": one})


class Challenger(NamedTuple):
    """What asks to score: its holdout fit, when its test period and its data end, the labelled rows, and why it may not
    be champion whatever it earns (blank where it may).
    """

    holdout: Model
    at: dt.datetime
    test_at: dt.datetime
    rows: TrainingSet
    barred: str = ""


def decide(one: Challenger, champion: Standing | None, terms: Terms | None, seed: int = 7) -> Decision:
    """Whether the challenger takes the champion's place.

    Without proven skill, or with features under suspicion, none does. The first that may becomes champion, and so does
    one whose champion has no proven skill, can score no longer, or answers another question. Else the two are compared
    on the rows from both test periods on, which neither fit had seen: the challenger is promoted if the lower bound of
    the difference in expected profit at capacity is above 0, and that of the difference in calibration error is not.
    What cannot be compared is left to a person.

    Args:
        one: The challenger.
        champion: Who scores now; None where nobody does.
        terms: What a contact costs and brings, and how many there are; without them positives reached are compared.
        seed: Of the resamples.
    """
    if one.barred:
        return Decision(False, "barred", one.barred, champion and champion.version)
    if champion is None:
        return Decision(True, "first", "the first version whose skill is proven.")
    other, name = champion.holdout, champion.version
    vacant = _vacant(one, champion)
    if vacant:
        return Decision(True, *vacant, name)
    if other is None:
        return Decision(False, "undecided", f"{name} cannot be compared: {champion.dark}", name, None, _ASK)
    begins = max(one.test_at, champion.test_at)
    rows = one.rows.since(begins)
    if min(rows.positives, len(rows) - rows.positives) < FEWEST:
        why = (f"{name} cannot be compared: from {begins:%Y-%m-%d} on, where both test periods have begun, there are "
               f"{len(rows)} rows with {rows.positives} positives, and at least {FEWEST} of either outcome are needed.")
        return Decision(False, "undecided", why, name, None, _ASK)
    found = compare(one.holdout, other, rows, terms, seed)
    verdict = (f"it earns more than {name}" if found.better else f"it earns more than {name}, but is worse calibrated"
               if found.profit.low > 0 else f"it does not surely earn more than {name}")
    return Decision(found.better, "compared", f"{verdict}: {found.says()}.", name, found,
                    "" if found.better else _stale(one, champion))


def _vacant(one: Challenger, champion: Standing) -> tuple[str, str] | None:
    """The rule and the reason by which a champion gives way without a comparison; None where it does not."""
    name, other, target = champion.version, champion.holdout, one.holdout.target
    if not champion.proven:
        return "champion unproven", f"its skill is proven, and that of {name} is not."
    if champion.broken:
        return "champion broken", f"{name} can score nobody: {champion.broken}"
    if other is not None and _question(other) != _question(one.holdout):
        return "another question", (f"{name} answers another question: its horizon, lead, grace or code is not that of "
                                    f"[targets.{target.name}] now.")
    gone = [feature for feature in (other.features if other else ()) if feature not in one.rows.X]
    if gone:
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        return "inputs gone", (f"{name} can score nobody: its input '{gone[0]}'{more} is no longer computed, or no "
                               "longer allowed.")
    return None


def compare(challenger: Model, champion: Model, rows: TrainingSet, terms: Terms | None = None,
            seed: int = 7) -> Comparison:
    """Both models on the same rows, with a paired bootstrap over entities. See `Comparison`."""
    y = rows.y.to_numpy(dtype=float)
    cutoffs = rows.cutoffs
    codes, names = pd.factorize(rows.keys["entity_id"])
    weights = draws(len(names), RESAMPLES, seed)
    told = [_figures(y, model.probability(rows.X), rows.keys["cutoff"], codes, weights, terms or PLAIN)
            for model in (challenger, champion)]
    pairs = {}
    for name in ("profit", "calibration_error", "log_loss"):
        (mine, spread), (theirs, other) = (one[name] for one in told)
        low, high = np.quantile(spread - other, [0.025, 0.975])
        pairs[name] = Paired(mine, theirs, mine - theirs, float(low), float(high))
    return Comparison(cutoffs[0].to_pydatetime(), cutoffs[-1].to_pydatetime(), len(cutoffs), len(y), rows.positives,
                      len(names), terms.capacity if terms else None, terms.value if terms else None, **pairs)


def _figures(y: Floats, p: Floats, cutoff: pd.Series, codes: NDArray[np.int64],
             weights: Floats, terms: Terms) -> dict[str, tuple[float, Floats]]:
    """Profit per cutoff, calibration error and log loss, on the rows themselves and on each resample."""
    many = weights.shape[1]
    draw = np.vstack([np.ones((1, many)), weights])
    part, held = contacted(cutoff, p, terms.capacity), np.clip(p, EDGE, 1 - EDGE)
    paid = draw @ np.bincount(codes, terms.profit(y * part, part), many) / cutoff.nunique()
    count = draw @ np.bincount(codes, minlength=many)
    loss = draw @ np.bincount(codes, -(y * np.log(held) + (1 - y) * np.log1p(-held)), many) / count
    place = np.empty(len(p), dtype=np.int64)
    place[np.argsort(-p, kind="stable")] = np.arange(len(p)) * _GROUPS // len(p)
    gaps = np.bincount(codes * _GROUPS + place, p - y, many * _GROUPS).reshape(many, _GROUPS)
    error = np.abs(draw @ gaps).sum(axis=1) / count
    return {name: (float(found[0]), found[1:])
            for name, found in (("profit", paid), ("calibration_error", error), ("log_loss", loss))}


def _question(model: Model) -> tuple[Any, ...]:
    """What a model predicts, whatever it predicts it from."""
    one = model.target
    return one.name, one.entity, one.horizon, one.lead, one.grace, one.code


def _stale(one: Challenger, champion: Standing) -> str:
    """Why a person may want the challenger although it earns no more: the champion's data are old."""
    age = one.at - champion.at
    return "" if age < STALE else (f"The champion's data end {age.days} days before this one's; to let this one score "
                                   "all the same")
