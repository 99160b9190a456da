"""Polarity of texts, and the moods table that carries it without the texts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from churnkit.signals import sentiment
from churnkit.signals.sentiment import LONGEST, polarity
from churnkit.signals.tables import Tables

ACCOUNTS = pd.DataFrame({"account_id": ["A1"], "created_at": ["2024-01-01"]})


@pytest.mark.parametrize(
    ("text", "sign"),
    [
        ("Thank you, this is great!", 1),
        ("This is terrible, I hate it.", -1),
        ("The invoice is from March.", 0),
        ("\U0001f620 \U0001f620", -1),
        ("\U0001f600 great", 1),
    ],
)
def test_polarity_has_the_sign_that_a_reader_hears(text, sign):
    """Words and emoji."""
    assert sign == np.sign(polarity(pd.Series([text]))[0])


@pytest.mark.parametrize("text", [None, np.nan, "", "   "])
def test_no_text_has_no_mood(text):
    """Missing, not neutral."""
    assert polarity(pd.Series([text], dtype=object)).isna().all()


def test_any_text_gives_a_number_in_range():
    """Huge, foreign, broken and numeric texts."""
    texts = pd.Series(
        ["x" * 10**6, "\u4e0d\u597d", "\x00\ud83d", 17, "<b>!!!</b>" * 1000, "Schei\u00dfe, nichts geht"],
        dtype=object,
    )
    scores = polarity(texts)
    assert scores.between(-1, 1).all()
    assert list(texts.index) == list(scores.index)


def test_only_the_head_of_a_text_is_read():
    """What stands below a long log does not count."""
    assert polarity(pd.Series(["word " * LONGEST + "I hate this"]))[0] == 0


def test_equal_texts_are_scored_once(monkeypatch):
    """Most tickets share their wording."""
    calls = []
    monkeypatch.setattr(sentiment, "_score", lambda text: calls.append(text) or 0.5)
    assert polarity(pd.Series(["a", "b"] * 500)).tolist() == [0.5] * 1000
    assert calls == ["a", "b"]


def test_moods_come_from_what_customers_wrote():
    """Messages by customers, ticket texts and survey texts; agents are not heard, and no text is kept."""
    tables = Tables.from_frames(
        accounts=ACCOUNTS,
        support_tickets=pd.DataFrame(
            {
                "ticket_id": ["T1", "T2"],
                "account_id": "A1",
                "opened_at": "2024-03-01",
                "subject": ["It is broken and awful", None],
            }
        ),
        ticket_messages=pd.DataFrame(
            {
                "ticket_id": "T1",
                "account_id": "A1",
                "occurred_at": ["2024-03-02", "2024-03-03"],
                "author": ["customer", "agent"],
                "text": ["I love it", "I am so sorry"],
            }
        ),
        surveys=pd.DataFrame(
            {
                "account_id": ["A1"],
                "responded_at": ["2024-03-04"],
                "kind": ["nps"],
                "score": [9],
                "text": ["Great product"],
                "recorded_at": ["2024-03-06"],
            }
        ),
    )
    found = tables.moods().to_pandas().sort_values("occurred_at")
    assert list(found.columns) == ["account_id", "ticket_id", "occurred_at", "known_at", "polarity", "source"]
    assert found["source"].tolist() == ["ticket", "message", "survey"]
    assert np.sign(found["polarity"]).tolist() == [-1, 1, 1]
    assert pd.Timestamp("2024-03-06", tz="UTC") == found["known_at"].iloc[2]
    assert tables.moods().count().to_pandas() == 3
