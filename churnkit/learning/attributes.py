"""What parts the rows of an evaluation: attributes of accounts and assets, as they were known at each cutoff."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pandas as pd

from churnkit.learning.labels import query
from churnkit.schemas import RAW_TABLES
from churnkit.settings import TrainingSettings
from churnkit.signals.relation import quoted
from churnkit.signals.tables import Tables

UNKNOWN = "not known"
BANDS = 4
"""A number with more different values than WORDS is cut into so many bands of equal size."""
WORDS = 6
COLUMNS = tuple(one.name for one in RAW_TABLES["accounts"].columns if one.kind == "category")
"""The columns of an account that can part the rows."""


def attributes(features: pd.DataFrame, wanted: Sequence[str] | None = None,
               tables: Tables | None = None) -> pd.DataFrame:
    """The wanted attributes of each row as words: row_id, and a column for each that is known here.

    A name is looked for among the features, those that no model may see included, because an evaluation may look at
    what a model may not; then, with `tables`, among the columns of accounts. A number of many values becomes bands of
    equal size. Names that are found in neither are left out.

    Args:
        features: Points and features, such as `Store.read` gives.
        wanted: Names; left out: those of `[training] segments` when nothing is set.
        tables: The raw tables, of which the version of an account known last at the cutoff counts.

    >>> frame = pd.DataFrame({"row_id": ["1", "2"], "account_id": ["A", "B"], "plan": ["team", None]})
    >>> attributes(frame, ["plan", "country"]).to_dict("list")
    {'row_id': ['1', '2'], 'plan': ['team', 'not known']}
    """
    wanted = [*dict.fromkeys(TrainingSettings().segments if wanted is None else wanted)]
    asked = [name for name in wanted if name not in features and name in COLUMNS] if tables is not None else []
    found = features[[name for name in wanted if name in features]]
    if asked and tables is not None:
        found = found.join(_of_accounts(tables, features, asked))
    return features[["row_id"]].join(found[[name for name in wanted if name in found]].apply(_in_words))


def _of_accounts(tables: Tables, points: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Columns of each point's account, of the version that was known last at its cutoff."""
    listed = ", ".join(f"a.{quoted(name)}::VARCHAR AS {quoted(name)}" for name in names)
    spans = points[["account_id", "cutoff"]].assign(n=range(len(points)))
    found = query(tables, f"SELECT p.n, {listed} FROM ck_points p ASOF LEFT JOIN accounts a "  # noqa: S608 - our names
                          "ON p.account_id = a.account_id AND p.cutoff >= a.known_at", points=spans)
    return found.sort_values("n").drop(columns="n").set_axis(points.index)


def _in_words(column: pd.Series) -> pd.Series:
    """The column as words: bands of a number of many values, otherwise the values; blanks are UNKNOWN."""
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        if column.nunique() > WORDS:
            column = _bands(column.astype("float64"))
        else:
            column = column.map(lambda value: f"{value:g}", na_action="ignore")
    return column.astype(object).where(column.notna(), UNKNOWN).astype(str).astype(object)


def _bands(column: pd.Series) -> pd.Series:
    """Words such as 'up to 210' and 'above 210, up to 400'."""
    edges = sorted(set(column.quantile([place / BANDS for place in range(1, BANDS)])) - {column.max()})
    shown = [f"{edge:.4g}" for edge in edges]
    words = [f"up to {shown[0]}",
             *(f"above {low}, up to {high}" for low, high in pairwise(shown)),
             f"above {shown[-1]}"] if shown else [f"up to {column.max():.4g}"]
    place = pd.Series(pd.Series(edges, dtype="float64").searchsorted(column.fillna(0.0), side="left"), column.index)
    return place.map(dict(enumerate(words))).where(column.notna())
