"""Ticket and survey text to polarity: the only place where text is read, and no text leaves it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

if TYPE_CHECKING:
    from churnkit.signals.tables import Tables

LONGEST = 2000
"""Characters of a text that are read; a mood shows early, and logs pasted below it have none."""

_TEXTS = """
    SELECT account_id, ticket_id, occurred_at, known_at, text, 'message' AS source FROM ticket_messages
    WHERE text IS NOT NULL AND (author IS NULL OR author = 'customer')
    UNION ALL
    SELECT account_id, ticket_id, opened_at, known_at, concat_ws('. ', subject, body), 'ticket' FROM support_tickets
    WHERE subject IS NOT NULL OR body IS NOT NULL
    UNION ALL
    SELECT account_id, NULL, responded_at, known_at, text, 'survey' FROM surveys WHERE text IS NOT NULL
"""


def polarity(texts: pd.Series[Any]) -> pd.Series[float]:
    """How friendly each text sounds, in [-1, 1]; missing where there is no text.

    VADER's compound score: a lexicon of English words and emoji (Hutto and Gilbert 2014). Other languages mostly score
    near 0, which is 'no mood heard', not 'content'. Only the first LONGEST characters are read; equal texts are scored
    once.

    >>> polarity(pd.Series(["I love it", "This is a terrible, broken mess", None])).round(2).tolist()
    [0.64, -0.83, nan]
    """
    written: pd.Series[Any] = texts.astype(object)
    cut = written.map(lambda text: str(text)[:LONGEST].strip() or None, na_action="ignore")
    scores = {text: _score(text) for text in cut.dropna().unique()}
    return cut.map(scores).astype("float64")


def moods(tables: Tables) -> pa.Table:
    """All texts of these tables as polarity; see `Tables.moods`."""
    data = tables.raw.sql(_TEXTS).to_arrow_table()
    # Each different text travels to Python once: most tickets share their wording.
    heads = data.column("text").combine_chunks().dictionary_encode()
    scores = polarity(heads.dictionary.to_pandas()).to_numpy()
    codes = heads.indices.to_pandas().astype("Int64")
    values = pa.array([None if pd.isna(code) else scores[code] for code in codes], pa.float64(), from_pandas=True)
    kept = data.drop_columns(["text"]).append_column("polarity", values)
    ordered = kept.select(["account_id", "ticket_id", "occurred_at", "known_at", "polarity", "source"])
    return ordered.filter(ordered.column("polarity").is_valid())


@cache
def _analyzer() -> SentimentIntensityAnalyzer:
    return SentimentIntensityAnalyzer()


def _score(text: str) -> float:
    return float(_analyzer().polarity_scores(text)["compound"])
