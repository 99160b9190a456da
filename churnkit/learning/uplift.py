"""Uplift: how much likelier a contact makes the good outcome, told by a model that is kept as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import lightgbm as lgb
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from churnkit.errors import ModelError
from churnkit.learning import metalearners
from churnkit.learning.baseline import Baseline
from churnkit.learning.calibrate import Floats
from churnkit.learning.metalearners import Part, Rows
from churnkit.learning.proven import Verdict, crossfitted, judged, ranks, slope
from churnkit.learning.trees import matrix, one_order, safe_names, word_levels

FORMAT = 1
LEAST_ROWS, LEAST_OUTCOMES = 200, 20
"""An arm with fewer rows, or with fewer of either outcome, gives no model."""
@dataclass(frozen=True, eq=False)
class Trial:
    """Rows of an experiment: whom a control group was kept apart from, and what came of all.

    `X` holds inputs known before the treatment (numbers, or words), `treated` who was treated, `y` whether the good
    outcome came (1: stayed, bought, did not fail), `propensity` how likely each was to be treated, as it was logged,
    and `groups` what was drawn as one: the topmost account.

    Raises:
        ModelError: If the columns are of different lengths, or hold what they may not.
    """

    X: pd.DataFrame
    treated: NDArray[np.bool_]
    y: Floats
    propensity: Floats
    groups: NDArray[Any]

    def __post_init__(self) -> None:
        for name, kind in (("treated", bool), ("y", float), ("propensity", float), ("groups", None)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=kind))
            if len(getattr(self, name)) != len(self.X):
                raise ModelError(f"uplift: '{name}' has {len(getattr(self, name))} values, but there are {len(self.X)} "
                                 "rows. Give one for each row.")
        if not np.isin(self.y, (0, 1)).all():
            raise ModelError("uplift: 'y' holds other values than 0 and 1. Leave out rows whose outcome is not known, "
                             "and let 1 stand for the good outcome.")
        if not ((self.propensity > 0) & (self.propensity < 1)).all():
            raise ModelError("uplift: 'propensity' must lie between 0 and 1, and be neither: a row that could only go "
                             "one way tells nothing of the difference. Leave such rows out.")

    def lacks(self) -> str:
        """What is missing for a model, in words; empty where there is enough."""
        for arm, rows in (("treated", self.treated), ("control", ~self.treated)):
            good, count = int(self.y[rows].sum()), int(rows.sum())
            if count < LEAST_ROWS or min(good, count - good) < LEAST_OUTCOMES:
                return (f"too few {arm} rows: {count}, {good} of them with the good outcome; {LEAST_ROWS} are needed, "
                        f"{LEAST_OUTCOMES} of either outcome.")
        return ""


@dataclass(frozen=True, eq=False)
class UpliftModel:
    """How much likelier a contact makes the good outcome: `UpliftModel.fit("churn", trial)`.

    The learner is chosen by the Qini of cross-fitted uplift on the trial's own rows, whose groups stay whole: the blend
    of all, unless one of them beats it by more than a standard error of the difference. What it tells is brought to the
    level and scale of the effect that was seen (the best linear predictor of Chernozhukov, Demirer, Duflo and
    Fernandez-Val, Generic machine learning inference on heterogeneous treatment effects, 2018), so that uplift x value
    is money; that changes no ranking.

    `parts` are fitted estimators with their shares, `line` is centre, level and slope: level + slope x (raw - centre).
    """

    name: str
    learner: str
    features: tuple[str, ...]
    levels: Mapping[str, tuple[str, ...]]
    parts: tuple[Part, ...]
    line: tuple[float, float, float]
    verdict: Verdict

    @property
    def skill(self) -> bool:
        """Whether ranking by it is proven to beat chance."""
        return self.verdict.skill

    @classmethod
    @one_order()
    def fit(cls, name: str, trial: Trial, seed: int = 7) -> UpliftModel:
        """Chooses a learner, judges it on rows it did not see, and fits it on all rows.

        Raises:
            ModelError: If there are too few rows, or econml is not installed.
        """
        if lacks := trial.lacks():
            raise ModelError(f"{name} uplift: {lacks} Wait until more outcomes are known, or keep a larger control "
                             "group.")
        levels = word_levels(trial.X)
        features = tuple(map(str, trial.X.columns))
        codes = pd.factorize(pd.Series(trial.groups))[0].astype(np.intp)
        rows = Rows(matrix(name, trial.X, features, levels), features, levels, trial.y, trial.treated, trial.propensity,
                    codes)
        raw, fold = crossfitted(rows, seed)
        verdict = judged(rows, {one: ranks(told, fold) for one, told in raw.items()}, seed)
        parts = metalearners.parts(verdict.learner, rows, seed)
        centre = float(metalearners.uplift(parts, rows.x, features, levels).mean())
        line = centre, verdict.effect, slope(rows, raw[verdict.learner])
        return cls(name, verdict.learner, features, levels, parts, line, verdict)

    def predict(self, features: pd.DataFrame) -> Floats:
        """What a contact adds to the probability of the good outcome, shape (n,); below 0 it harms.

        Raises:
            ModelError: If a feature is missing.
        """
        centre, level, steepness = self.line
        raw = self.raw(features)
        return np.asarray(np.clip(level + steepness * (raw - centre), -1.0, 1.0), dtype=float)

    def raw(self, features: pd.DataFrame) -> Floats:
        """The same as the learner told it, before it was brought to level and scale."""
        return metalearners.uplift(self.parts, matrix(self.name, features, self.features, self.levels), self.features,
                                   self.levels)

    def to_parts(self) -> dict[str, str]:
        """Texts: uplift.json, and uplift_0.txt, uplift_1.txt for LightGBM's trees."""
        texts, about = {}, []
        for place, (share, part) in enumerate(self.parts):
            if isinstance(part, Baseline):
                about.append({"share": share, "coefficients": part.to_dict()})
            else:
                texts[f"uplift_{place}.txt"] = part.model_to_string()
                about.append({"share": share, "trees": f"uplift_{place}.txt"})
        data = {"format": FORMAT, "lightgbm": lgb.__version__, "name": self.name, "learner": self.learner,
                "features": self.features, "levels": dict(self.levels), "parts": about, "line": self.line,
                "verdict": asdict(self.verdict)}
        return {**texts, "uplift.json": json.dumps(data, indent=1, sort_keys=True) + "\n"}

    @classmethod
    def from_parts(cls, parts: Mapping[str, str]) -> UpliftModel:
        """The reverse of `to_parts`; parses text and JSON, executes nothing, and needs no econml.

        Raises:
            ModelError: If a part is missing or broken, was written by a newer churnkit, or they do not fit together.
        """
        try:
            data: dict[str, Any] = json.loads(parts["uplift.json"])
            if data["format"] > FORMAT:
                raise ModelError(f"uplift.json has format {data['format']}, newer than this churnkit knows ({FORMAT}). "
                                 "Upgrade churnkit.")
            features = tuple(data["features"])
            levels = {name: tuple(words) for name, words in data["levels"].items()}
            found = tuple((float(one["share"]), _part(one, parts, features)) for one in data["parts"])
            told: dict[str, Any] = {
                name: tuple(one) if isinstance(one, list) else one for name, one in data["verdict"].items()}
            centre, level, steepness = map(float, data["line"])
            return cls(data["name"], data["learner"], features, levels, found, (centre, level, steepness),
                       Verdict(**told))
        except (KeyError, TypeError, ValueError, lgb.basic.LightGBMError) as error:
            raise ModelError(f"The uplift model's files cannot be read ({error!r}). Fit it again: churnkit "
                             "uplift.") from None


def rank_by(model: UpliftModel | None) -> Literal["uplift", "probability"]:
    """What decides whom to contact first: uplift where it is proven, else the probability.

    >>> rank_by(None)
    'probability'
    """
    return "uplift" if model is not None and model.skill else "probability"


def contacted(uplift: Floats, capacity: int) -> NDArray[np.bool_]:
    """The `capacity` rows with the highest uplift, and of them only those whom a contact helps: mask, shape (n,).

    >>> contacted(np.array([0.1, -0.2, 0.3, 0.0]), 3).tolist()
    [True, False, True, False]
    """
    found = np.zeros(len(uplift), dtype=bool)
    found[np.argsort(-uplift, kind="stable")[:capacity]] = True
    chosen: NDArray[np.bool_] = found & (uplift > 0)
    return chosen


def _part(about: Mapping[str, Any], parts: Mapping[str, str], features: tuple[str, ...]) -> lgb.Booster | Baseline:
    """A fitted estimator from its text.

    Raises:
        ModelError: If it takes other features.
    """
    if "coefficients" in about:
        return Baseline.from_dict(about["coefficients"])
    found = lgb.Booster(model_str=parts[about["trees"]])
    if found.feature_name() != safe_names(features):
        raise ModelError(f"{about['trees']} and uplift.json name different features: they are not of one model. Fit it "
                         "again: churnkit uplift.")
    return found
