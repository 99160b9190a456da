"""Polarity of texts, and the moods table that carries it without the texts."""

from __future__ import annotations

import heard
import numpy as np
import pandas as pd
import pytest
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from churnkit.errors import SettingsError
from churnkit.settings import Settings
from churnkit.signals import sentiment
from churnkit.signals.compute import compute_features
from churnkit.signals.cues import CUES
from churnkit.signals.sentiment import LONGEST, language, polarity
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
    monkeypatch.setattr(sentiment, "_valence", lambda text: calls.append(text) or 1.0)
    assert polarity(pd.Series(["one", "two"] * 500)).tolist() == [0.25] * 1000
    assert calls == ["one", "two"]


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
    assert list(found.columns) == ["account_id", "ticket_id", "occurred_at", "known_at", "polarity", "source", *CUES]
    assert found["source"].tolist() == ["ticket", "message", "survey"]
    assert np.sign(found["polarity"]).tolist() == [-1, 1, 1]
    assert pd.Timestamp("2024-03-06", tz="UTC") == found["known_at"].iloc[2]
    assert tables.moods().count().to_pandas() == 3


@pytest.mark.parametrize(("which", "right", "contrary"), [
    ("tuned", 0.75, 0.04), ("other half", 0.75, 0.04), ("second", 0.6, 0.13), ("unseen", 0.5, 0.08)])
def test_the_sign_of_the_labelled_sentences(which, right, contrary):
    """Floors below what was measured, by language; docs/text.md has the figures."""
    shown = heard.by_language(which)
    assert shown[(shown["right"] < right) | (shown["contrary"] > contrary)].empty


def test_english_without_cues_is_vaders_own_score():
    """To its four decimals, for every sentence of the sets in which nothing grim is heard."""
    data = heard.sentences()
    data = data[(data["language"] == "en") & data["kind"].isin(["neutral", "praise", "complaint"])]
    plain = data[(heard.count_cues(data["text"]) == 0).all(axis=1)]["text"]
    plain = plain[language(plain) == "en"]
    assert len(plain) > 150
    analyzer = SentimentIntensityAnalyzer()
    expected = [analyzer.polarity_scores(text)["compound"] for text in plain]
    np.testing.assert_allclose(polarity(plain), expected, atol=1e-4)


def test_languages_are_told_apart():
    """By their commonest words; at least nine of ten sentences of each language with many of them."""
    data = heard.sentences()
    right = (language(data["text"]) == data["language"]).groupby(data["language"]).mean()
    assert right[["en", "de", "fr"]].min() >= 0.95
    assert right[["es", "nl", "it", "pt"]].min() >= 0.75


def test_german_articles_are_not_heard_as_english_deaths():
    """VADER knows 'die' and 'war' as English words."""
    text = "Die Rechnung war in der Post, die Nummer ist 4711."
    assert SentimentIntensityAnalyzer().polarity_scores(text)["compound"] < -0.5
    assert polarity(pd.Series([text]))[0] == 0


def listened(name: str, **said: object) -> pd.Series:
    """The polarity of three texts by a function of one's own."""
    settings = Settings(text={"polarity": name}, **said)
    return polarity(pd.Series(["good", None, "bad", "good"], index=[5, 6, 7, 8]), settings)


def test_polarity_may_be_any_function(tmp_path):
    """It is called once with the different texts; missing stays missing; code of the folder needs allow_code."""
    (tmp_path / "mymood.py").write_text(
        "import pandas as pd\ncalls = []\n"
        "def listen(texts):\n    assert sorted(texts) == ['bad', 'good']\n"
        "    return pd.Series([1.0 if text == 'good' else None for text in texts])\n")
    found = listened("mymood:listen", root=tmp_path, allow_code=True)
    assert found.index.tolist() == [5, 6, 7, 8]
    np.testing.assert_array_equal(found, [1.0, np.nan, np.nan, 1.0])
    with pytest.raises(SettingsError, match="allow_code"):
        listened("mymood:listen", root=tmp_path)


def test_polarity_may_come_from_an_installed_package():
    """Any importable module will do."""
    with pytest.raises(SettingsError, match="'math' has no function 'mood'"):
        listened("math:mood")
    with pytest.raises(SettingsError, match="failed with TypeError at line"):
        listened("math:sqrt")


@pytest.mark.parametrize(("body", "mend"), [
    ("def listen(texts): return [0.5]", "gave 1 values for 2 texts"),
    ("def listen(texts): return 0.5", "gave a float for 2 texts"),
    ("def listen(texts): return ['x', 'y']", "no numbers"),
    ("def listen(texts): return [2, float('inf')]", "2 of 2 values outside"),
    ("def listen(texts): return {}['x']", "KeyError at line 1 of mine.py"),
    ("listen = 3", "has no function 'listen'"),
    ("1 / 0", "ZeroDivisionError at line 1"),
    ("def listen(:", "SyntaxError at line 1"),
])
def test_a_wrong_function_says_its_mend(tmp_path, body, mend):
    """What came, and what was asked for."""
    (tmp_path / "mine.py").write_text(body)
    with pytest.raises(SettingsError) as error:
        listened("mine:listen", root=tmp_path, allow_code=True)
    assert mend in str(error.value)


@pytest.mark.parametrize(("name", "mend"), [
    ("no_such_thing:x", "Install the package"), ("os.no_such:x", "is not there")])
def test_a_missing_module_says_its_mend(tmp_path, name, mend):
    """By its own name."""
    with pytest.raises(SettingsError, match=mend):
        listened(name, root=tmp_path)


def told(messages: list[tuple[str, str, str]], **tickets: object) -> Tables:
    """Tables of one account with a ticket of 1 March and messages of (time, known from, text)."""
    at, known, texts = zip(*messages, strict=True)
    made = {"ticket_id": ["T1"], "account_id": ["A1"], "opened_at": ["2024-03-01"], **tickets}
    return Tables.from_frames(
        accounts=ACCOUNTS, support_tickets=pd.DataFrame(made), at="2024-06-01",
        ticket_messages=pd.DataFrame({"ticket_id": "T1", "account_id": "A1", "occurred_at": at, "recorded_at": known,
                                      "author": "customer", "text": texts}))


def test_cues_become_features_as_they_were_known():
    """A message counts from when it was known, in the window of its own time; shares are of all messages."""
    tables = told([("2024-03-02", "2024-03-02", "I want to speak to a person"),
                   ("2024-03-03", "2024-03-20", "Please let me talk to a human, or we cancel the contract"),
                   ("2024-03-04", "2024-03-04", "The invoice is from March.")])
    cutoffs = pd.to_datetime(["2024-03-10 00:00", "2024-03-20 00:00", "2024-03-30 01:00"], utc=True)
    points = pd.DataFrame({"row_id": ["a", "b", "c"], "entity": "account", "entity_id": "A1", "account_id": "A1",
                           "cutoff": cutoffs})
    found = compute_features(tables, points)[["messages_28d", "cue_person_28d", "cue_cancel_28d", "cue_share_28d"]]
    np.testing.assert_allclose(found, [[2, 1, 0, 0.5], [3, 2, 1, 2 / 3], [2, 1, 1, 0.5]])


@pytest.mark.parametrize(("ticket_known", "message_known", "sources"), [
    ("2024-03-01", "2024-03-02", {"ticket": "2024-03-01"}), ("2024-03-02", "2024-03-02", {"ticket": "2024-03-02"}),
    ("2024-03-05", "2024-03-02", {"message": "2024-03-02", "ticket": "2024-03-05"}),
])
def test_a_body_that_is_the_first_message_too_counts_once(ticket_known, message_known, sources):
    """The copy that was known first; of a ticket known later only the subject is new."""
    tables = told([("2024-03-01", message_known, "It failed again")], recorded_at=[ticket_known],
                  subject=["Export"], body=["It failed again"])
    moods = tables.moods().to_pandas()
    assert {row.source: f"{row.known_at:%Y-%m-%d}" for row in moods.itertuples()} == sources
    assert moods["repeat"].sum() == 1


def test_the_words_of_a_ticket_in_many_versions_count_once():
    """From the first version that holds them."""
    tables = told([("2024-03-02", "2024-03-02", "Fine")], ticket_id=["T1", "T1"], account_id=["A1", "A1"],
                  opened_at=["2024-03-01"] * 2, recorded_at=["2024-03-01", "2024-03-09"], subject=["Down again"] * 2)
    moods = tables.moods().to_pandas()
    assert moods[moods["source"] == "ticket"]["known_at"].dt.strftime("%Y-%m-%d").tolist() == ["2024-03-01"]


def test_messages_in_batches_are_as_messages_at_once(monkeypatch):
    """However many are in memory at once."""
    texts = ["It failed again", "Thanks", "It failed again", None, " "]
    messages = [("2024-03-02", "2024-03-02", text) for text in texts]
    whole = told(messages).moods().to_pandas()
    monkeypatch.setattr(sentiment, "BATCH", 1)
    parts = told(messages).moods().to_pandas()
    assert len(whole) == 3
    pd.testing.assert_frame_equal(whole.sort_values("polarity", ignore_index=True),
                                  parts.sort_values("polarity", ignore_index=True))
