"""Ticket and survey text to numbers, polarity and cues: the only room where text is read, and no text leaves it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from churnkit.settings import Settings
from churnkit.signals.cues import CUES, Lists, counted, denied, lists_of, occurrences
from churnkit.signals.listener import listener
from churnkit.signals.wording import LONGEST as READ
from churnkit.signals.wording import own_words, texts_of, tokens

if TYPE_CHECKING:
    from churnkit.signals.tables import Tables

LONGEST = 2000
"""Characters of a message's own words in which a mood is looked for: it shows early."""
BATCH = 20_000
"""Messages that are in Python's memory at once."""
_ALPHA = 15.0
"""VADER's: a sum of valences v becomes v / sqrt(v^2 + 15) (Hutto and Gilbert 2014)."""
_VALENCE = 2.0
"""What one word of our lists weighs; the words of VADER's lexicon weigh 1.9 on average."""
_GRIM = tuple(name for name in CUES if name not in ("person", "competitor"))
"""Cues that sound unhappy by themselves; asking for a person or naming another product may be said in any mood."""

_TEXTS = f"""
    WITH said AS (
        SELECT account_id, ticket_id, occurred_at, known_at, text FROM ticket_messages
        WHERE text IS NOT NULL AND (author IS NULL OR author = 'customer')
    ), asked AS (  -- a ticket has as many versions as it was exported in; its words count from the first that has them
        SELECT account_id, ticket_id, opened_at, min(known_at) AS known_at, subject, body FROM support_tickets
        WHERE subject IS NOT NULL OR body IS NOT NULL GROUP BY ALL
    ), twice AS (  -- most helpdesks give a ticket's body as its first message too: the copy known first counts
        SELECT said.account_id, said.ticket_id, text, min(said.known_at) AS said_at, min(asked.known_at) AS asked_at
        FROM said JOIN asked ON said.account_id = asked.account_id AND said.ticket_id = asked.ticket_id AND text = body
        GROUP BY ALL
    )
    SELECT said.account_id, said.ticket_id, occurred_at, known_at, left(text, {READ}) AS text, 'message' AS source
    FROM said LEFT JOIN twice USING (account_id, ticket_id, text) WHERE asked_at IS NULL OR asked_at > known_at
    UNION ALL
    SELECT asked.account_id, asked.ticket_id, opened_at, known_at,
           left(CASE WHEN said_at < known_at THEN subject ELSE concat_ws('. ', subject, body) END, {READ}), 'ticket'
    FROM asked LEFT JOIN twice ON twice.account_id = asked.account_id AND twice.ticket_id = asked.ticket_id
                                  AND text = body
    UNION ALL
    SELECT account_id, NULL, responded_at, known_at, left(text, {READ}), 'survey' FROM surveys WHERE text IS NOT NULL
"""  # noqa: S608 - a number of ours
_SCHEMA = pa.schema([
    ("account_id", pa.string()), ("ticket_id", pa.string()), ("occurred_at", pa.timestamp("us", "UTC")),
    ("known_at", pa.timestamp("us", "UTC")), ("polarity", pa.float64()), ("source", pa.string()),
    *((name, pa.int32()) for name in CUES)])


def polarity(texts: pd.Series[Any], settings: Settings | None = None) -> pd.Series[float]:
    """How friendly each message sounds, in [-1, 1]; missing where there are no words.

    The function of `[text] polarity`, else VADER's compound score, a lexicon of English words and emoji (Hutto and
    Gilbert 2014), for English and for languages that are not recognised, and lists of words in VADER's scale for the
    others that churnkit knows; each grim cue (see cues.py) counts as one more sad word. Equal messages are scored once.

    >>> polarity(pd.Series(["I love it", "A terrible, broken mess", "Das ist wunderbar", None])).round(2).tolist()
    [0.64, -0.83, 0.46, nan]
    """
    settings = settings or Settings()
    lists = lists_of(settings)
    coded = texts_of(texts).dictionary_encode()
    words = own_words(coded.dictionary, lists.headers)
    plain = tokens(words, lists.loud)
    scores = _scores(words, plain, counted(plain, lists), settings)
    codes = coded.indices.to_pandas()
    return pd.Series([np.nan if pd.isna(code) else scores[int(code)] for code in codes], texts.index, dtype="float64")


def language(texts: pd.Series[Any], settings: Settings | None = None) -> pd.Series[str]:
    """The language whose commonest words stand in a message most often; 'en' where none of ours is recognised.

    >>> language(pd.Series(["Wir haben das Problem noch", "We still have it", "12345"])).tolist()
    ['de', 'en', 'en']
    """
    lists = lists_of(settings or Settings())
    return pd.Series(_languages(tokens(own_words(texts, lists.headers)), lists), texts.index)


def moods(tables: Tables) -> pa.Table:
    """All texts of these tables as polarity and counts of cues; see `Tables.moods`."""
    reader = tables.raw.sql(_TEXTS).to_arrow_reader(BATCH)
    lists = lists_of(tables.settings)
    made = [_heard(pa.table(batch), tables.settings, lists) for batch in reader if batch.num_rows]
    return pa.concat_tables(made) if made else _SCHEMA.empty_table()


def _heard(data: pa.Table, settings: Settings, lists: Lists) -> pa.Table:
    """One batch with numbers in the place of its texts. Each different text is looked at once: many share wording."""
    coded = data.column("text").combine_chunks().dictionary_encode()
    words = own_words(coded.dictionary, lists.headers)
    plain = tokens(words, lists.loud)
    cues = counted(plain, lists)
    columns = {"polarity": pa.array(_scores(words, plain, cues, settings), from_pandas=True), **cues}
    there = pc.is_valid(words)
    codes = coded.indices.filter(there.take(coded.indices))
    kept = data.drop_columns(["text"]).filter(there.take(coded.indices))
    for name, values in columns.items():
        kept = kept.append_column(name, values.take(codes))
    return kept.select(_SCHEMA.names).cast(_SCHEMA)


def _scores(words: pa.Array, plain: pa.Array, cues: Mapping[str, pa.Array], settings: Settings
            ) -> npt.NDArray[np.float64]:
    """The polarity of each text; NaN for one without words."""
    lists = lists_of(settings)
    scores = np.full(len(words), np.nan)
    there = pc.is_valid(words).to_numpy(zero_copy_only=False)
    if settings.text.polarity:
        scores[there] = listener(settings)(words.filter(pa.array(there)).to_pandas())
        return scores
    spoken = np.array(_languages(plain, lists))
    valence = -_VALENCE * sum(np.minimum(found.to_numpy(), 1) for name, found in cues.items() if name in _GRIM)
    for code in dict.fromkeys(spoken[there]):
        mine = there & (spoken == code)
        if code == "en":
            valence[mine] += [_valence(text[:LONGEST]) for text in words.filter(pa.array(mine)).to_pylist()]
        else:
            valence[mine] += _by_lists(plain.filter(pa.array(mine)), code, lists)
    scores[there] = (valence / np.sqrt(valence**2 + _ALPHA))[there]
    return scores


def _languages(plain: pa.Array, lists: Lists) -> list[str]:
    """Each text's language; English where it is as likely as any other."""
    codes = ["en", *(code for code in lists.known if code != "en")]
    counts = [occurrences(plain, lists.known.get(code, ())).to_numpy() for code in codes]
    return [codes[place] for place in np.argmax(np.stack(counts), axis=0)]


def _by_lists(plain: pa.Array, code: str, lists: Lists) -> npt.NDArray[np.float64]:
    """Glad words less sad ones, a denied one counting as its contrary, in VADER's scale of valences."""
    glad, sad, no = lists.glad[code], lists.sad[code], lists.no[code]
    total = np.zeros(len(plain))
    for pattern, weight in ((glad, 1.0), (denied(no, glad), -2.0), (sad, -1.0), (denied(no, sad), 1.0)):
        total += weight * occurrences(plain, pattern).to_numpy()
    return _VALENCE * total


@cache
def _analyzer() -> SentimentIntensityAnalyzer:
    return SentimentIntensityAnalyzer()


def _valence(text: str) -> float:
    """VADER's sum of valences, from its compound score."""
    score = float(_analyzer().polarity_scores(text)["compound"])
    return score * math.sqrt(_ALPHA / (1.0 - min(score**2, 0.9998)))
