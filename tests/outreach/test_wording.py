"""Words and templates of a workspace: they override ours, are told where they are wrong, and can do no harm."""

import re
import time
from datetime import date

import pytest
from small_briefs import CAUSES, case

from churnkit.errors import SettingsError
from churnkit.outreach.brief import WORDS, brief, title
from churnkit.outreach.policy import Policy
from churnkit.outreach.wording import Wording, _catalogue, ours
from churnkit.outreach.wording.sandbox import FIELDS

OTHERS = sorted(ours() - {"en"})
HOLE = re.compile(r"\{(\w+)\}")


def write(folder, name, text):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("language", OTHERS)
def test_every_text_has_its_counterpart(language):
    """A language says all that English does: no English word slips into its briefs."""
    english, other = _catalogue("en"), _catalogue(language)
    assert set(english) - set(other) == set()


@pytest.mark.parametrize("language", OTHERS)
def test_every_word_of_the_default_policy_has_its_counterpart(language):
    """What the plays say and their steps; whoever changes outreach.toml changes these too."""
    words = _catalogue(language)
    said = {line for play in Policy.default().plays.values() for line in
            (play.says, *play.steps, *getattr(play, "asks", ()), *getattr(play, "avoid", ()))}
    assert {line for line in said if f"texts.{line}" not in words} == set()


@pytest.mark.parametrize("language", OTHERS)
def test_a_phrase_keeps_what_it_holds(language):
    """Every hole of a phrase is filled in again, none is lost and none added."""
    for key, text in _catalogue(language).items():
        if key.startswith("phrases."):
            assert sorted(HOLE.findall(key)) == sorted(HOLE.findall(text)), key


def test_no_english_is_left_in_german():
    """Where all reasons have a German phrase, no English label stands there."""
    german = Wording.load(None, "de")
    for name in CAUSES:
        text = brief(case(name), wording=german)
        assert ("Belege zum Teil auf Englisch" in text) == any(not german.phrase(one.phrase)[1] for one in
                                                               case(name).why[:3])
        assert not re.search(r"\b(Please|Suggested|Lately|How:|Why:|ticket T|still open|we got)\b", text)


@pytest.mark.parametrize(("text", "expected"), [
    ("gave notice on 30 October 2026; the contract ends on 1 December 2026",
     "kündigte am 30. Oktober 2026; der Vertrag endet am 1. Dezember 2026"),
    ("9 actions in the last 28 days, 1,310.5 in the 28 days before",
     "9 Vorgänge in den letzten 28 Tagen, 1.310,5 in den 28 Tagen davor"),
    ("rated ticket T-1 (phone, billing) 1 of 5 on 31 October 2026",
     "bewertete Ticket T-1 (Telefon, Rechnung) am 31. Oktober 2026 mit 1 von 5"),
    ("Eve Ng, champion, left on 29 October 2026", "Eve Ng, Fürsprecher, ging am 29. Oktober 2026"),
    ("gave notice on 31 February 2026", "kündigte am 31 February 2026"),
    ("was down 71% on 4 October", "war down 71% am 4. Oktober"),
    ("something else", "something else")])
def test_phrases_with_figures_and_days(text, expected):
    """Numbers, days and phrases within phrases follow the language; what is not known stays."""
    assert Wording.load(None, "de").phrase(text)[0] == expected


@pytest.mark.parametrize(("languages", "expected"), [
    ("de", "de"), ("de-AT, en", "de"), ("en,de", "en"), ("xx; de", "de"), ("xx", "en"), ("", "en"), (None, "en"),
    ("DE_ch", "de"), ("../../etc", "en")])
def test_the_first_language_with_a_catalogue_is_taken(languages, expected):
    assert Wording.load(None, languages).language == expected


def test_numbers_days_and_money_follow_the_language():
    german = Wording.load(None, "de")
    assert german.day(date(2026, 3, 1)) == "1. März 2026"
    assert (german.percent(0.34), german.money(1_234_567, "EUR"), german.number(1234)) == (
        "34 %", "1.230.000 EUR", "1.234")
    assert Wording.load().money(12_345.6, "EUR") == "12,300 EUR"


def test_a_workspace_says_it_in_its_own_words(tmp_path):
    """One label of English and one sentence of a play, in words.toml; the rest stays ours."""
    write(tmp_path, "words.toml", '[en.labels]\nwhy = "What we see:"\n[en.texts]\n"gave notice" = "wants to leave"\n'
                                  '[en.ask.churn]\nnotice_given = "Why?"\n')
    text = brief(case("notice_given"), wording=Wording.load(tmp_path))
    assert "What we see:\n- Gave notice on" in text
    assert "**Harbour Foods** (mid) wants to leave." in text
    assert "Ask: “Why?”" in text
    assert "Answer with: saved" in text


def test_a_workspace_may_bring_a_language(tmp_path):
    """What it leaves out is said in English."""
    write(tmp_path, "words.toml", '[nl.labels]\nwhy = "Waarom:"\n[nl.languages]\nnl = "Nederlands"\n')
    wording = Wording.load(tmp_path, "nl")
    assert wording.language == "nl"
    assert "Waarom:" in brief(case("low_nps"), wording=wording)


def test_a_workspace_lays_it_out_in_its_own_templates(tmp_path):
    """And a change of a file is seen at the next load."""
    write(tmp_path, "templates/brief.md.j2", "{{ name|upper }}\n{% for line in why %}{{ loop.index }}) {{ line }}\n"
                                             "{% endfor %}{% if why|length > 1 %}and more{% endif %}")
    write(tmp_path, "templates/title.j2", "{{ why }}")
    wording = Wording.load(tmp_path)
    assert brief(case("notice_given"), wording=wording).startswith("HARBOUR FOODS\n1) Gave notice on 30 October")
    assert title(case("notice_given"), wording).startswith("gave notice on")
    assert brief(case("notice_given"), format="text", wording=wording) == brief(case("notice_given"), format="text")


@pytest.mark.parametrize(("text", "says"), [
    ("[en.labels]\nwhy = 3\n", "line 2: 'labels.why' must be a text"),
    ('[en.labels]\n\nwhi = "x"\n', "line 3: there is no text 'labels.whi'. Did you mean 'labels.why'?"),
    ('[en.about]\nrenewal = "In {dais}"\n', "line 2: 'about.renewal' cannot fill in {dais}; it may name {days}"),
    ('[en.about]\nrenewal = "In {days.__class__}"\n', "line 2: 'about.renewal' cannot fill in a brace alone"),
    ('[en.about]\ndays = ["{n} day"]\n', "line 2: 'about.days' needs 2 texts, not 1"),
    ('[en.labels]\nwhy = "<b>Why</b>"\n', "line 2: 'labels.why' holds a line break or one of < and >"),
    ('[en.labels]\nwhy = "' + "why " * 50 + '"\n', "line 2: 'labels.why' is too long"),
    ('why = "x"\n', "line 1: 'why' is no language's code"),
    ('[en]\nwhy = "x"\n', "line 2: 'why' must stand in a section"),
    ("[en.labels\n", "not valid TOML"),
])
def test_broken_words_are_told_with_their_line(tmp_path, text, says):
    """File, line and mend."""
    write(tmp_path, "words.toml", text)
    with pytest.raises(SettingsError, match=re.escape(says)) as told:
        Wording.load(tmp_path)
    assert str(tmp_path / "words.toml") in str(told.value)


BAD = [
    ("{{ nam }}", "line 1: there is no field 'nam'. Did you mean 'name'?"),
    ("\n{% if name %}", "line 2: Unexpected end of template"),
    ("{{ name", "line 1: unexpected end of template"),
    ("x\n{{ name.__class__.__mro__ }}", "line 2: '.__mro__' cannot be asked for"),
    ("{{ name['__class__'] }}", "'getitem' is more than a template may do"),
    ("{{ name.upper() }}", "'call' is more than a template may do"),
    ("{{ ''.format(name) }}", "'call' is more"),
    ("{{ cycler.__init__.__globals__ }}", "cannot be asked for"),
    ("{{ self }}", "there is no field 'self'"),
    ("{{ config }}", "there is no field 'config'"),
    ("{% for i in range(999999999) %}x{% endfor %}", "a loop goes plainly through one of the lists"),
    ("{% for a in why %}{% for b in why %}x{% endfor %}{% endfor %}", "a loop may not stand inside another one"),
    ("{% for c in name %}x{% endfor %}", "a loop goes plainly through one of the lists"),
    ("{% for a in why recursive %}{{ loop(why) }}{% endfor %}", "a loop goes plainly"),
    ("{{ name * 999999999 }}", "'mul' is more than a template may do"),
    ("{{ name ~ name }}", "'concat' is more"),
    ("{{ '%0999999999d' % 1 }}", "'mod' is more"),
    ("{{ 9 ** 99999999 }}", "'pow' is more"),
    ("{{ name|center(999999999) }}", "the filter 'center' cannot be used"),
    ("{{ name|join('xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx') }}", "'join' takes one of the lists"),
    ("{{ name|safe }}", "the filter 'safe' cannot be used"),
    ("{{ why|join(name) }}", "'join' takes one of the lists"),
    ("{% set x = name %}", "'assign' is more than a template may do"),
    ("{% macro x() %}{{ x() }}{% endmacro %}", "'macro' is more"),
    ("{% include 'brief.md.j2' %}", "'include' is more"),
    ("{% import 'x' as y %}", "'import' is more"),
    ("{% extends 'x' %}", "'extends' is more"),
    ("{% autoescape false %}x{% endautoescape %}", "is more than a template may do"),
    ("{% call name() %}{% endcall %}", "is more than a template may do"),
    ("{% filter upper %}x{% endfilter %}", "is more than a template may do"),
    ("{{ lipsum(n=100000) }}", "is more than a template may do"),
    ("x" * 30_000, "has 30,000 characters"),
    ("word " * 100, "has 100 words of its own"),
    ("{{ " + "(" * 3000 + "name" + ")" * 3000 + " }}", "is nested too deeply"),
    ("{% if name is b %}{% endif %}", "'test' is more than a template may do"),
]


@pytest.mark.parametrize(("text", "says"), BAD)
@pytest.mark.parametrize("name", ["brief.md.j2", "brief.html.j2"])
def test_a_template_that_would_do_more_is_refused(tmp_path, name, text, says):
    """At once, with file, line and mend; nothing of it is ever run."""
    write(tmp_path, f"templates/{name}", text)
    started = time.process_time()
    with pytest.raises(SettingsError, match=re.escape(says)) as told:
        Wording.load(tmp_path)
    assert str(tmp_path / "templates" / name) in str(told.value)
    assert re.search(r"Mend that line|Shorten it", str(told.value))
    assert time.process_time() - started < 5


@pytest.mark.parametrize("deep", [50, 99, 150, 400])
def test_a_deep_template_runs_or_is_refused(tmp_path, deep):
    """Only layout, however deep: either it runs, or its file is named."""
    write(tmp_path, "templates/brief.md.j2", "{% if name %}" * deep + "x" + "{% endif %}" * deep)
    try:
        assert brief(case("low_nps"), wording=Wording.load(tmp_path)) == "x"
    except SettingsError as error:
        refused = str(error)
    else:
        refused = ""
    assert refused == "" or (deep > 50 and "is nested too deeply" in refused)


@pytest.mark.parametrize("text", [
    "<script>x</script>", '<p onclick="x">a</p>', "<{{ name }}>x", '<a href="javascript:x">y</a>',
    '<a href="{{ name }}">y</a>', '<a href="https://x.example/{{ name }}">y</a>', "<img src=x>", "<p", "a > b",
    "<s{% if name %}{% endif %}cript>", "{% if name %}<{% endif %}script>", "<!-- x -->", '<p style="x">y</p>',
    "\n\n<iframe></iframe>", "<a href='https://x.example'>y</a>"])
def test_html_keeps_to_the_tags_that_are_safe(tmp_path, text):
    """Whatever else is in an HTML template is refused, also where a field or a condition stands in its midst."""
    write(tmp_path, "templates/brief.html.j2", text)
    with pytest.raises(SettingsError, match=r"only <p>, <ul>|a tag is broken"):
        Wording.load(tmp_path)


def test_html_may_link_to_a_plain_address(tmp_path):
    write(tmp_path, "templates/brief.html.j2", '<p><a href="https://wiki.example/saving">How we save</a> {{ name }}</p>'
          '{% for line in lately %}<li><a href="{{ line.url }}">{{ line.text }}</a></li>{% endfor %}')
    assert '<a href="https://desk.example/t/1">' in brief(case("escalation"), format="html",
                                                            wording=Wording.load(tmp_path))


def test_a_wordy_workspace_still_gets_two_hundred_words(tmp_path):
    """However long its own words are, something goes until it fits."""
    long = "so much to say " * 9
    sections = {"labels": ("why", "steps", "lately", "also"), "source": ("prior",), "avoid": ("repeat", "model"),
                "dispositions": ("saved", "no_change", "no_response"), "ask.churn": ("usage", "support", "other")}
    write(tmp_path, "words.toml", "".join(f"[en.{section}]\n" + "".join(f'{key} = "{long}"\n' for key in keys)
                                          for section, keys in sections.items()))
    wording = Wording.load(tmp_path)
    for name in CAUSES:
        for form in ("markdown", "text", "html"):
            text = brief(case(name), format=form, wording=wording)
            assert len(re.sub("<[^<>]*>", " ", text).split()) <= WORDS
            assert "Harbour Foods" in text


def test_every_template_is_there():
    assert set(Wording.load().templates) == set(FIELDS)
