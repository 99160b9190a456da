"""The thin scikit-learn face for flat tables: fit(X, y), predict_proba, on the same model and calibration."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import StratifiedKFold
from sklearn.utils import assert_all_finite, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from churnkit.cutoffs import duration
from churnkit.learning.calibrate import Floats, Kind, log_odds
from churnkit.learning.explain import Shap, reasons
from churnkit.learning.model import Model
from churnkit.learning.splits import KEYS, Mask, TrainingSet
from churnkit.learning.targets import Target

_AT_ONCE = dt.timedelta(microseconds=1)  # rows of the very moment at which a fold begins are not learnt from
_KEPT = ["rank", "feature", "value", "contribution", "points", "direction", "phrase"]


class ChurnClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Boosted trees, a logistic regression or a blend of both, calibrated, for a table with one row per customer.

    Numbers, booleans, dates, pandas categories and text columns are taken as they come, and so are missing values
    (infinite ones count as missing). A text column that holds nothing but numbers and blanks is read as numbers; of
    other text the 40 commonest words are kept. Both outcomes are weighed as they occur: nothing is resampled, so that
    a probability stays one.

    After `fit`: `classes_`, `n_features_in_`, `feature_names_in_` (where the columns have names), and `model_`, the
    `Model` inside, whose `to_parts()` keeps it as text and JSON.

    Args:
        calibration: The map from raw scores to probabilities: platt, isotonic, beta or none; without it, what did best
            on rows that were not learnt from.
        folds: How many stratified folds stop and calibrate where no time is given.
        horizon: Where a time is given: how long after it a row's outcome is known, such as '90d'.
        tune: How many trials search for better trees than the default, on the same kind of folds; 0 for none.
        random_state: The seed; the same rows and seed give the same model.

    >>> X = pd.DataFrame({"tenure": [1, 2, None, 30, 40, 50] * 20,
    ...                   "plan": ["solo", None, "solo", "team", "x", "x"] * 20})
    >>> model = ChurnClassifier().fit(X, ["left", "left", "left", "stayed", "stayed", "stayed"] * 20)
    >>> model.predict(X.head(4)).tolist(), model.classes_.tolist()
    (['left', 'left', 'left', 'stayed'], ['left', 'stayed'])
    """

    def __init__(self, *, calibration: Kind | None = None, folds: int = 5, horizon: str | dt.timedelta = "0d",
                 tune: int = 0, random_state: Any = 7) -> None:
        self.calibration = calibration
        self.folds = folds
        self.horizon = horizon
        self.tune = tune
        self.random_state = random_state

    def fit(self, X: Any, y: Any, time: ArrayLike | None = None) -> ChurnClassifier:
        """Finds iterations and calibration on rows that were not learnt from, then fits on all.

        Args:
            X: One column per feature, shape (n, k): a frame, an array or lists.
            y: Two outcomes, shape (n,); the second in order is the positive one: 1 of 0 and 1, 'yes' of 'no' and 'yes'.
            time: When each row was true, shape (n,): dates, or numbers that count as days. With it the rows that stop
                and calibrate are later than those learnt from, as in use; without it folds are drawn at random.

        Raises:
            ValueError: If the outcomes are not two, or something has the wrong shape.
        """
        if y is None:
            raise ValueError("ChurnClassifier requires y to be passed, but the target y is None.")
        rows = self._checked(X, reset=True)
        found = column_or_1d(y, warn=True)
        assert_all_finite(found, input_name="y")
        check_classification_targets(found)
        check_consistent_length(rows, found)
        kind = type_of_target(found, input_name="y", raise_unknown=True)
        if kind != "binary":
            raise ValueError(f"Only binary classification is supported. The type of the target is {kind}.")
        self.classes_, codes = np.unique(found, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"All {len(codes)} rows are of one class ({self.classes_[0]!r}); a model needs both. "
                             f"Give rows of the other class too.")
        seed = self.random_state if isinstance(self.random_state, int) else (
            int(check_random_state(self.random_state).randint(2**31 - 1)))
        flat = Target("flat", "account", horizon=max(duration(self.horizon), _AT_ONCE))
        keys = pd.DataFrame({"row_id": range(len(rows)), "cutoff": _moments(time, len(rows))})
        keys = keys.sort_values("cutoff", kind="stable").reindex(columns=list(KEYS))
        order = keys["row_id"].to_numpy()
        train = TrainingSet(flat, _frame(rows).iloc[order], pd.Series(codes.astype("int64")).iloc[order], keys,
                            pd.Series(1.0, keys.index), {})
        self.model_: Model = (Folded(flat, seed, self.calibration, self.folds) if time is None
                              else Model(flat, seed, self.calibration))
        self.model_.params = self._searched(train, seed)
        self.model_.fit(train)
        return self

    def predict_proba(self, X: Any) -> Floats:
        """Calibrated probabilities of both classes, shape (n, 2), in the order of `classes_`."""
        p = self._probability(X)
        return np.column_stack([1 - p, p])

    def decision_function(self, X: Any) -> Floats:
        """Log-odds of the positive class, shape (n,): above 0 where `predict` names it."""
        return log_odds(self._probability(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """The likelier class of each row, shape (n,)."""
        p = self._probability(X)
        likelier: NDArray[Any] = self.classes_[(p > 0.5).astype(int)]
        return likelier

    def explain(self, X: Any, top: int = 3) -> pd.DataFrame:
        """Up to `top` reasons per row, by the row's index: rank, feature, value, contribution (log-odds), points
        (percentage points of probability), direction (raises or lowers), phrase. What raises comes first.
        """
        known = self._known(X)
        contributions, _ = self.model_.contributions(known)
        shap = Shap(self.model_.features, contributions, self.model_.raw(known), self.model_.calibration.apply)
        place = known.assign(entity_id=range(len(known)), cutoff=None)
        found = reasons(self.model_.target, place, shap, top)
        if found.empty:
            return found[_KEPT]
        at, column = found["entity_id"].to_numpy(dtype=int), known.columns.get_indexer(pd.Index(found["feature"]))
        given = pd.Series(known.to_numpy(dtype=object)[at, column])
        shown = given.map(lambda one: f"{one:.6g}" if isinstance(one, float) else one, na_action="ignore")
        said = found["feature"].str.replace("_", " ") + ": " + shown.fillna("not known")
        index = X.index[at] if isinstance(X, pd.DataFrame) else pd.Index(at)
        return found.assign(value=shown, phrase=said)[_KEPT].set_index(index)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = True
        return tags

    def _searched(self, train: TrainingSet, seed: int) -> dict[str, float]:
        """LightGBM's parameters where trials found better ones than the default."""
        if not self.tune:
            return {}
        from churnkit.learning.tune import tune

        drawn = self.model_.drawn(train) if isinstance(self.model_, Folded) else None
        return tune(train, self.tune, seed=seed, folds=drawn).best

    def _probability(self, X: Any) -> Floats:
        known = self._known(X)
        return self.model_.probability(known)

    def _known(self, X: Any) -> pd.DataFrame:
        check_is_fitted(self, "model_")
        return _frame(self._checked(X, reset=False), self.model_.levels)

    def _checked(self, X: Any, *, reset: bool) -> pd.DataFrame:
        """The rows as a frame whose columns have text names, after scikit-learn's own checks of shape and names."""
        if not isinstance(X, pd.DataFrame):
            values = validate_data(self, X, reset=reset, dtype=None, ensure_all_finite=False)
            return pd.DataFrame(values, columns=[f"x{place}" for place in range(values.shape[1])])
        validate_data(self, X, reset=reset, skip_check_array=True)
        if reset and not len(X):
            raise ValueError("Found array with 0 sample(s), a minimum of 1 is required. Give rows to learn from.")
        if any(dtype.kind == "c" for dtype in X.dtypes):
            raise ValueError("Complex data not supported. Split it into two columns of plain numbers.")
        named = all(isinstance(name, str) for name in X.columns)
        plain = X.reset_index(drop=True)
        return plain if named else plain.set_axis([f"x{place}" for place in range(X.shape[1])], axis=1)


class Folded(Model):
    """A Model of rows that know no time: it stops and calibrates out of stratified folds, drawn by the seed."""

    def __init__(self, target: Target, seed: int, calibration: Kind | None, folds: int) -> None:
        super().__init__(target, seed, calibration)
        self.folds = folds

    def drawn(self, train: TrainingSet) -> list[tuple[Mask, Mask]]:
        """Stratified folds: each row is held once, by a fit without it."""
        y = train.y.to_numpy(dtype=float)
        parts = int(min(self.folds, y.sum(), len(y) - y.sum()))
        if parts < 2:
            return []
        drawn = StratifiedKFold(parts, shuffle=True, random_state=self.seed).split(train.X, y)
        place = np.arange(len(y))
        return [(np.isin(place, fitted), np.isin(place, held)) for fitted, held in drawn]

    def _splits(self, train: TrainingSet, y: Floats) -> list[tuple[Mask, Mask]]:  # noqa: ARG002  as Model has it
        return self.drawn(train)


def _frame(rows: pd.DataFrame, levels: Any = None) -> pd.DataFrame:
    """Numbers as float64 and words as text, blank where missing; `levels` names the columns of words, once known."""
    return pd.DataFrame({name: _words(column) if (_is_words(column) if levels is None else name in levels)
                         else _numbers(column) for name, column in rows.items()}, index=rows.index)


def _is_words(column: pd.Series) -> bool:
    if isinstance(column.dtype, pd.CategoricalDtype):
        return True
    if column.dtype != object and not isinstance(column.dtype, pd.StringDtype):
        return False
    return bool((_numbers(column).isna() & _words(column).notna()).any())


def _numbers(column: pd.Series) -> pd.Series:
    """float64: dates as days since 1970, spans as days, text as the number that it spells, infinity as missing."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    if pd.api.types.is_datetime64_any_dtype(column):
        column = pd.to_datetime(column, utc=True) - pd.Timestamp(0, tz="UTC")
    if pd.api.types.is_timedelta64_dtype(column):
        return pd.Series(column.dt.total_seconds() / 86_400)
    found = pd.to_numeric(column, errors="coerce").astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    return pd.Series(np.where(np.isinf(found), np.nan, found), column.index)


def _words(column: pd.Series) -> pd.Series:
    """Text; a whole number spells alike whether its column has blanks or not, and blank text is missing."""
    return column.astype(object).map(_word, na_action="ignore").astype(object)


def _word(one: Any) -> str | None:
    return str(int(one)) if isinstance(one, float) and one.is_integer() else str(one).strip() or None


def _moments(time: ArrayLike | None, rows: int) -> pd.Series:
    """Each row's time in UTC; without any, one and the same."""
    if time is None:
        return pd.Series(pd.Timestamp(0, tz="UTC"), range(rows))
    given = pd.Series(np.asarray(time) if not isinstance(time, pd.Series) else time.to_numpy())
    check_consistent_length(given, range(rows))
    if given.isna().any():
        raise ValueError(f"time has {int(given.isna().sum())} blanks. Say when each row was true, or leave time out.")
    if pd.api.types.is_numeric_dtype(given):
        given = pd.Timestamp(0) + pd.to_timedelta(given.astype(float), unit="D")
    return pd.to_datetime(given, utc=True)
