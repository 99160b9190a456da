"""Cues in customers' words: the labelled sentences, what is not heard, a workspace's own lists, and hard texts."""

from __future__ import annotations

import time
import tomllib
from pathlib import Path

import heard
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from churnkit.errors import SettingsError
from churnkit.fields import LANGUAGES
from churnkit.settings import Settings, from_mapping
from churnkit.signals import cues
from churnkit.signals.cues import CUES, count_cues

LISTS = Path(cues.__file__).parent / "cues"


def cues_in(message: str, **said: object) -> set[str]:
    """The cues heard in one message, with these keys of [text]."""
    found = count_cues(pd.Series([message], dtype=object), Settings(text=said)).iloc[0]
    return set(found.index[found > 0])


@pytest.mark.parametrize(("which", "precision", "recall"), [
    ("tuned", 0.95, 0.95), ("other half", 0.88, 0.94), ("second", 0.80, 0.88),
])
def test_cues_are_heard_in_the_labelled_sentences(which, precision, recall):
    """Floors below what was measured, per cue; docs/text.md has the figures."""
    shown = heard.by_cue(which)
    assert [cue for cue in CUES if shown.loc[cue, "precision"] < precision or shown.loc[cue, "recall"] < recall] == []


UNSEEN = {"repeat": (0.9, 0.5), "shouting": (0.95, 0.95), "unsolved": (0.85, 0.3), "person": (0.75, 0.4),
          "cancel": (0.9, 0.8), "competitor": (0.95, 0.95), "escalation": (0.85, 0.75)}


def test_sentences_that_no_list_was_tuned_on_are_heard_less_well():
    """The figures that a user may expect: what is heard is mostly right, what is said in other words is missed."""
    shown = heard.by_cue("unseen")
    low = [cue for cue, (precision, recall) in UNSEEN.items()
           if shown.loc[cue, "precision"] < precision or shown.loc[cue, "recall"] < recall]
    assert low == []


def test_there_are_a_thousand_sentences_and_a_third_are_not_english():
    """And each is there once."""
    every = heard.sentences()
    first = every[~every["which"].isin(["second", "unseen"])]
    assert len(first) == 1000
    assert (first["language"] != "en").sum() >= 300
    assert every["text"].is_unique
    assert set(first["language"]) == {*LANGUAGES, "xx"}


@pytest.mark.parametrize("text", [
    "I do not want to cancel", "no need to speak to a person", "thanks, works again", "back up again",
    "Please cancel the meeting", "THANK YOU!!!", "Wir wollen nicht kündigen", "Ça remarche, merci !",
    "PDF, CSV and XLSX",
    "No queremos cancelar", "Het werkt weer, bedankt!", "Non vogliamo disdire", "Não queremos cancelar",
    "> I want to cancel\n> this is the third time\n\nAll is well.",
    "Fine.\n\nOn 3 May 2026 at 10:02, Help wrote:\ncancel!!",
    "Fine.\n-- \nAnna, head of cancel my subscription", "<p>Fine.</p><blockquote>I want to cancel!!</blockquote>",
    "Gut.\n\nVon: Support\nWir möchten kündigen", "Bien.\nLe 3 mai 2026, Aide a écrit :\n> Nous voulons résilier",
])
def test_what_reads_like_a_cue_is_none(text):
    """Denials, ordinary things, thanks in capitals, and what stands in earlier mails and signatures."""
    assert cues_in(text) == set()


@pytest.mark.parametrize(("text", "cue"), [
    ("WE WANT TO CANCEL OUR SUBSCRIPTION", "cancel"), ("Hiermit KUENDIGEN wir", "cancel"),
    ("hiermit kündigen wir", "cancel"),
    ("ce n\u2019est toujours pas r\u00e9solu", "unsolved"), ("It ISN`T fixed yet", "unsolved"),
    ("I want to <b>speak</b> to a&nbsp;person", "person"),
    ("Fine so far\n> All done?\nNo, I want to cancel it.", "cancel"),
    ("e-mail number three: third e-mail about this", "repeat"), ("ＣＡＮＣＥＬ my subscription", "cancel"),
])
def test_spelling_does_not_matter(text, cue):
    """Capitals, accents, umlauts written out, every apostrophe, markup, and answers between quoted lines."""
    assert cue in cues_in(text)


def test_a_list_counts_how_often_a_cue_stands():
    """Places that overlap count once."""
    found = count_cues(pd.Series(["It failed again. It failed again. And again"]))
    assert found["repeat"].tolist() == [3]


@pytest.mark.parametrize("name", ["Zendora", "Monday.com", "AT&T", "a|b*", "Яндекс", "Søren & Cie.", "(x.y)?"])
def test_competitors_are_the_workspaces_own(name):
    """A name is heard in any case, no sign in it has a meaning, and it is not heard inside other words."""
    said = {"competitors": [name]}
    assert "competitor" in cues_in(f"We look at {name.upper()} now", **said)
    assert "competitor" not in cues_in("We look at Zendorakis and a bb, all is fine", **said)
    assert "competitor" not in cues_in(f"We look at {name.upper()} now")


def test_a_workspace_adds_phrases(tmp_path):
    """Its file is read anew when it has changed."""
    file = tmp_path / "mycues.toml"
    file.write_text('traps = ["never mind"]\n[cues]\ncancel = ["hand back ... keys"]\n')
    said = from_mapping({"text": {"cues": "mycues.toml"}}, root=tmp_path)
    texts = pd.Series(["We hand back all of the keys", "Cancel my subscription"])
    assert count_cues(texts, said)["cancel"].tolist() == [1, 1]
    assert count_cues(texts)["cancel"].tolist() == [0, 1]


@pytest.mark.parametrize(("content", "mend"), [
    (None, "Write the file"), ("cues = 3", "must be a section"), ("[cues]\npersons = []", "Did you mean 'person'?"),
    ("[cues]\nperson = 'a'", "list of phrases"), ("[cues]\nperson = ['...']", "at least one whole word"),
    ("[cues]\nperson = ['maybe?']", "at least one whole word"), ("trap = ['x']", "Did you mean 'traps'?"),
    ("[cues", "not valid TOML"), ("traps = ['(|)']", "no letter"), (f"traps = {['word'] * 2001}", "Use word"),
])
def test_a_wrong_list_says_its_mend(tmp_path, content, mend):
    """File, key and what to do."""
    if content is not None:
        (tmp_path / "mycues.toml").write_text(content)
    with pytest.raises(SettingsError) as error:
        count_cues(pd.Series(["x"]), from_mapping({"text": {"cues": "mycues.toml"}}, root=tmp_path))
    assert mend in str(error.value)
    assert "mycues.toml" in str(error.value)


@pytest.mark.parametrize(("said", "mend"), [
    ({"languages": ["xx"]}, "Known: en, de"), ({"polarity": "nothing"}, "package.module:function"),
    ({"competitor": ["x"]}, "Did you mean 'competitors'?"), ({"competitors": ["&"]}, "text.competitors.0"),
])
def test_wrong_settings_say_their_mend(said, mend):
    """Each names its key."""
    with pytest.raises(SettingsError) as error:
        from_mapping({"text": said})
    assert mend in str(error.value)


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_list_is_whole(code):
    """Every language has phrases for every cue but shouting, and no phrase that could match nothing."""
    data = tomllib.loads((LISTS / f"{code}.toml").read_text(encoding="utf-8"))
    assert {*CUES} - {"shouting"} == set(data["cues"])
    for phrases in (data["traps"], data["words"], data["glad"], data["sad"], data["no"], *data["cues"].values()):
        assert [phrase for phrase in phrases if not any(
            element != "..." and not element.endswith("?") for element in phrase.split())] == []
    assert sorted(file.stem for file in LISTS.glob("*.toml")) == sorted(LANGUAGES)


def test_only_the_languages_asked_for_are_listened_to():
    """A workspace may leave lists out."""
    assert cues_in("Wir kündigen", languages=["en"]) == set()
    assert cues_in("Wir kündigen", languages=["de"]) == {"cancel"}


HARD = ["", " ", "\x00", "\ud83d", "\ud83d again", "<", "<style" * 2000, "&#x0;&#xd800;&bogus;", "!" * 5000,
        "I " * 5000, "\u202egnol erots eht\u202c again", "A\u0301" * 3000, ">" * 5000, "\n" * 5000, "On 1 " * 3000,
        "…" * 3000, "~§‼⇧", 17]


@given(st.lists(st.text(max_size=60), max_size=4))
@example(HARD)
@settings(max_examples=6, deadline=None)
def test_any_text_gives_counts(texts):
    """Whatever stands in a message, each cue has a whole number, and a message's does not depend on the others."""
    series = pd.Series(texts, dtype=object)
    found = count_cues(series)
    assert (found >= 0).all(axis=None)
    assert list(found.columns) == list(CUES)
    for place in range(len(texts))[-1:]:
        pd.testing.assert_frame_equal(found.iloc[[place]], count_cues(series.iloc[[place]]))


@pytest.mark.parametrize("text", ["a" * 10_000_000, "again " * 200_000, "I do not want to " * 60_000,
                                  "Am 1. " * 170_000, "<a " * 300_000], ids=len)
def test_no_text_takes_long(text):
    """A message of megabytes made to be hard takes well under a second: RE2 is linear, and only its head is read."""
    count_cues(pd.Series(["warm"]))
    start = time.process_time()
    count_cues(pd.Series([text]))
    assert time.process_time() - start < 1.0


def test_the_docs_show_what_is_measured():
    """docs/text.md holds the tables that the benchmark prints."""
    shown = (Path(__file__).parents[2] / "docs" / "text.md").read_text(encoding="utf-8")
    assert [line for line in heard.markdown().splitlines() if line not in shown.splitlines()] == []
