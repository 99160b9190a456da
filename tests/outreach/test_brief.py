"""The brief, read for many causes: true, short, in plain words, and harmless whatever the data say."""

import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_book import ago, frames, scores
from small_briefs import CAUSES, SHOWN, case, churn, reasons, shown, ticket
from small_tasks import AT

from churnkit.outreach.brief import (
    WORDS,
    Also,
    Before,
    Case,
    Person,
    Reason,
    Source,
    Ticket,
    Touch,
    _laid,
    brief,
    title,
)
from churnkit.outreach.offer import Offer
from churnkit.outreach.parts import parts_of
from churnkit.outreach.plan import plan
from churnkit.outreach.policy import Policy
from churnkit.outreach.wording import Wording, ours
from churnkit.outreach.wording.sandbox import rendered

PLAYS = Policy.default().plays
TODAY = AT.date()
FORMATS = ("markdown", "text", "html")
LANGUAGES = sorted(ours())
USE = reasons("A01", "churn", ("f_1", "usage", "9 sessions in the last 28 days, 31 in the 28 days before", 2.0, ""))


@pytest.mark.parametrize("name", shown())
def test_reads_as_it_was_read(name):
    """Word for word as in its file, which a person has read. After a change: run small_briefs.py, and read them."""
    assert (SHOWN / name).read_text(encoding="utf-8") == shown()[name]


def test_every_shown_brief_is_still_made():
    """No file is left over from a cause that is gone; and there are at least twenty causes."""
    assert sorted(shown()) == sorted(file.name for file in SHOWN.iterdir())
    assert len(CAUSES) >= 20


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("cause", CAUSES)
def test_reads_for_each_cause(cause, language):
    """Each cause has its title, its why, question, answers and source; short, and free of text and feature names."""
    one, wording = case(cause), Wording.load(None, language)
    line = title(one, wording)
    assert len(line) <= 200
    for form in FORMATS:
        text = brief(one, format=form, wording=wording)
        assert len(re.sub("<[^<>]*>", " ", text).split()) <= WORDS
        for label in ("why", "steps"):
            assert wording.say(f"labels.{label}") in text or wording.say(f"labels.{label}_english") in text
        assert wording.say("labels.ask", question="").split("“")[0].split("„")[0] in text
        assert wording.say("labels.answers", answers="").rstrip(". ") in text
        assert not re.search(r"SECRET|f_\d|_\d+d\b|\bnan\b|NaT|None|\b1 (days|tickets|seats)\b|[{}]", text + line)


@pytest.mark.parametrize("cause", CAUSES)
def test_says_who_suggests_it(cause):
    """By a model or by rule, with its date; and the title begins with what to do."""
    one = case(cause)
    text = brief(one)
    assert title(one).startswith(CAUSES[cause].title)
    assert ("Suggested by the model v3, from data up to 1 November 2026" in text) == (one.play.opened_by == "model")
    assert ("Suggested on 1 November 2026 by rule (" in text) == (one.play.opened_by == "rule")


def planned(why, tables):
    """The first task, be it a ghost; without reasons no model speaks."""
    made = plan(None if why is None else scores({"A01": 0.34}), why, tables, Policy.default(), at=AT)
    return (made.tasks or made.ghosts)[0]


def test_lately_shows_tickets_with_state_tries_mood_and_link():
    """Tickets come with date, channel, category, state, what was tried, mood and link; open ones and the newest."""
    tables = frames(
        support_tickets=pd.DataFrame([
            ticket(1, resolved_at=ago(2), csat=3.0),
            ticket(2, opened_at=ago(3), escalated_at=ago(2), handed_over_at=ago(2.5), reassigned_count=2),
            ticket(3, opened_at=ago(200), known_at=ago(200))]),
        touches=pd.DataFrame([{"account_id": "A01", "occurred_at": ago(9), "channel": "call", "direction": "outbound",
                               "by": "ann", "known_at": ago(9)}]),
        moods=pd.DataFrame({"ticket_id": ["T-2"], "polarity": [-0.7]}))
    assert """\
Lately:
- 29 October: ticket T-2 (phone, billing), escalated on 30 October, still open, handed from the bot to a person on \
29 October, passed on twice, last mood bad, https://desk.example/t/2
- 27 October: ticket T-1 (phone, billing), resolved on 30 October, last mood neutral, https://desk.example/t/1
- 23 October: we got in touch (call, ann)
""" in planned(None, tables).body


def test_what_a_record_says_of_later_days_is_not_told():
    """A ticket that ends after the moment of planning: who solved it and how often it went round are not known."""
    row = ticket(1, resolved_at=ago(-3), handled_by="human", reassigned_count=4)
    assert "ticket T-1 (phone, billing), still open, https" in planned(
        USE, frames(support_tickets=pd.DataFrame([row]))).body


def test_no_answer_yet_only_where_answers_are_recorded():
    """A workspace whose tickets have no first replies at all is told nothing of them."""
    silent, answered = ticket(1), ticket(2, account_id="A02", first_replied_at=ago(4))
    assert "no answer" not in planned(USE, frames(support_tickets=pd.DataFrame([silent]))).body
    assert "no answer yet" in planned(USE, frames(support_tickets=pd.DataFrame([silent, answered]))).body


@pytest.mark.parametrize(("points", "changed", "expected"), [
    (12.3, "was 31 on 4 October", "31 in the 28 days before (adds about 12 points; was 31 on 4 October)\n"),
    (0.7, "", "31 in the 28 days before (adds about 1 point)\n"),
    (0.2, "new since 4 October", "31 in the 28 days before (new since 4 October)\n"),
    (float("nan"), None, "31 in the 28 days before\n"),
])
def test_a_reason_says_what_it_adds_and_what_is_new(points, changed, expected):
    """In the brief, and not in the title; day-files of before know of neither."""
    task = planned(USE.assign(points=points, changed=changed), frames())
    assert expected in task.body
    assert "adds" not in task.title
    assert "October" not in task.title


@pytest.mark.parametrize(("source", "expected"), [
    (Source(), "That this helps is a belief, not yet measured."),
    (Source(rank_by="uplift"), "That this helps is a belief, not yet measured."),
    (Source(rank_by="uplift", uplift=0.06, low=0.02, high=0.1),
     "Customers like this one stayed more often when approached: +6 points (95% interval 2 to 10)."),
    (Source(rank_by="effect", effect=0.12), "So far this has kept 12% of those who would have left."),
    (Source(rank_by="effect", effect=0.12, low=-0.03, high=0.27),
     "So far this has kept 12% of those who would have left (95% interval -3% to 27%)."),
    (Source(rank_by="effect", effect=-0.01, low=-0.1, high=0.08),
     "So far this has shown no gain (95% interval -10% to 8%)."),
])
def test_says_how_sure_it_is_that_this_helps(source, expected):
    """By how the case was ranked; an interval only where there is one."""
    assert brief(replace(case("use_fell"), source=source)).endswith(f"; its skill is proven. {expected}")


def test_a_chance_may_come_with_its_interval():
    likely = replace(case("use_fell"), likely=(0.28, 0.41))
    assert "is quite possible (34%), likely between 28% and 41%. At stake" in brief(likely)


@pytest.mark.parametrize(("theirs", "language", "expected"), [
    ("fr", "en", "They write French."), ("de-AT", "en", "They write German."), ("en", "en", None),
    ("English", "en", None), ("Klingon", "en", "They write Klingon."), ("", "en", None),
    ("de", "de", None), ("en", "de", "Der Kunde schreibt Englisch.")])
def test_names_their_language_where_it_is_another(theirs, language, expected):
    text = brief(replace(case("seats_idle"), language=theirs), wording=Wording.load(None, language))
    assert ("They write" in text or "Der Kunde schreibt" in text) == (expected is not None)
    assert expected is None or expected in text


def test_a_play_asks_and_avoids_in_its_own_words():
    """A question and a warning of the policy go before ours."""

    class Own:
        """A play with more to say."""

        def __init__(self, play):
            self.play = play

        def __getattr__(self, name):
            own = {"asks": ("Who is on holiday?",), "avoid": ("promise a discount.",)}
            return own[name] if name in own else getattr(self.play, name)

    text = brief(replace(case("price_rise"), play=Own(PLAYS["save_call"])))
    assert "Ask: “Who is on holiday?”" in text
    assert "Please do not: promise a discount; bring up the price yourself; mention scores or models." in text


def test_all_formats_say_the_same():
    """Without marks, tags, numbers and addresses the words are the same."""
    for name in CAUSES:
        markdown, text, html = (brief(case(name), format=form) for form in FORMATS)
        plain = re.sub(r"\*\*|(?m:^- )", "", markdown)
        assert plain.split() == text.split()
        bare = re.sub(r", https?://\S+|(?m:^\d\. )", "", plain)
        assert bare.split() == unescape(re.sub("</?(?:p|ul|ol|li)>", " ", re.sub("</?(?:strong|a)[^<>]*>", "", html))
                                        ).split()


def test_text_has_no_marks():
    for name in CAUSES:
        assert not re.search(r"\*|^[-#>]|<|>", brief(case(name), format="text"), re.MULTILINE)


HOSTILE = st.text(min_size=0, max_size=300) | st.sampled_from([
    "<script>alert(1)</script>", "Acme\r\n\n# Heading\n- item", "=cmd|' /C calc'!A0", "[x](javascript:alert(1))",
    "{{ 7 * 7 }}{% for x in y %}", "\u202egnp.exe", "a" * 5000, "\x00\x1b[31mred", "word " * 400, "```", "<" * 50,
    "a " * 3000, '"><img src=x onerror=alert(1)>', "&lt;script&gt;", "30 October 2026", "{name}", "%(x)s"])
MANY = st.lists(HOSTILE, max_size=6).map(tuple)
WHEN = st.none() | st.just(AT)
PLAYS_ANY = st.builds(lambda name, step: PLAYS[name].model_copy(update={"steps": (step,) * 3}),
                      st.sampled_from(sorted(PLAYS)), HOSTILE)
CASES = st.builds(
    Case, account=HOSTILE, play=PLAYS_ANY, play_name=HOSTILE, today=st.just(TODAY), segment=HOSTILE, language=HOSTILE,
    contact=HOSTILE, probability=st.none() | st.floats(0, 1), likely=st.none() | st.just((0.1, 0.9)),
    value=st.none() | st.floats(0, 1e9), currency=HOSTILE, cause=HOSTILE,
    offer=st.none() | st.builds(Offer, st.floats(0, 1e6), HOSTILE, st.sampled_from(["", "seats"]), st.floats(0, 1),
                                st.booleans(), st.booleans()),
    why=st.lists(st.builds(Reason, HOSTILE, st.none() | st.floats(-5, 50), HOSTILE, HOSTILE), max_size=6).map(tuple),
    against=MANY, before=st.none() | st.builds(Before, st.just(AT), HOSTILE, st.none() | st.floats(0, 1)), assets=MANY,
    also=st.lists(HOSTILE | st.builds(Also, st.sampled_from(["churn", "expansion", "maintenance"]), HOSTILE, HOSTILE),
                  max_size=6).map(tuple),
    left=st.lists(st.builds(Person, HOSTILE, HOSTILE, WHEN), max_size=2).map(tuple),
    quiet=st.lists(st.builds(Person, HOSTILE, HOSTILE, WHEN), max_size=2).map(tuple),
    touches=st.lists(st.builds(Touch, st.just(AT), HOSTILE, HOSTILE, HOSTILE), max_size=4).map(tuple),
    source=st.builds(Source, HOSTILE, st.none() | st.just(TODAY), st.sampled_from(["prior", "uplift", "effect"]),
                     st.none() | st.floats(0, 1), st.none() | st.floats(-1, 1), st.none() | st.floats(-1, 0),
                     st.none() | st.floats(0, 1)),
    renews=st.none() | st.dates(), due=st.none() | st.just(TODAY),
    tickets=st.lists(st.builds(Ticket, HOSTILE, st.just(AT), HOSTILE, HOSTILE, HOSTILE, HOSTILE, WHEN, WHEN, WHEN, WHEN,
                               HOSTILE, st.booleans(), st.integers(0, 10**6)), max_size=6).map(tuple))


class Tags(HTMLParser):
    """What a browser would see in it."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        """Notes it."""
        self.open.append(tag)
        self.seen.append((tag, attrs))

    def handle_endtag(self, tag):
        """Closes the innermost one, and no other."""
        assert self.open.pop() == tag


@settings(max_examples=120, deadline=None)
@given(CASES, st.sampled_from(LANGUAGES), st.sampled_from(FORMATS))
def test_harmless_whatever_the_data_say(one, language, form):
    """No control characters, no HTML but ours, no links but plain ones, no broken lines, never too long."""
    wording = Wording.load(None, language)
    text, line = brief(one, format=form, wording=wording), title(one, wording)
    plain = re.sub("<[^<>]*>", " ", text) if form == "html" else text
    assert len(plain.split()) <= WORDS
    assert len(line) <= 200
    assert "\n" not in line
    assert not re.search(r"[<>\x00-\x09\x0b-\x1f\x7f\u202e`\[\]]", plain + line)
    assert not line.startswith(("=", "+", "-", "@"))
    if form == "html":
        tags = Tags(text)
        assert tags.open == []
        for tag, attributes in tags.seen:
            assert tag in {"p", "ul", "ol", "li", "strong", "a"}
            assert [name for name, _ in attributes] == (["href"] if tag == "a" else [])
            assert all(re.match("https?://", value) for _, value in attributes)


@settings(max_examples=40, deadline=None)
@given(CASES)
def test_what_is_left_out_goes_whole(one):
    """Every line of a shortened brief stands in the whole one, but the first, of which sentences may go."""
    wording = Wording.load()
    parts = parts_of(one, wording)
    whole = rendered(wording.templates["brief.md.j2"], _laid(parts, wording)).splitlines()
    first, *others = brief(one).splitlines()
    sentences = {*whole, *parts["source"], ""}
    avoid = wording.say("labels.avoid", things="\0").split("\0")[0]
    assert first.startswith("**")
    assert [line for line in others if line not in sentences and not line.startswith(avoid)] == []


def test_reads_well_from_a_plan():
    """The plan's own body is the same brief, as far as the plan knows."""
    task = planned(churn(0.34, ("events_28d", "usage", "9 actions in the last 28 days", 2.0, ""))["reasons"], frames())
    assert task.body.startswith("**Customer A01** (mid) may be about to leave. **Please call by 6 November 2026.**")
