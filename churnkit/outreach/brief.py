"""What the account manager reads: a title for the queue and a brief of at most 200 words, in a colleague's tone."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest

from jinja2 import StrictUndefined, Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

from churnkit.outreach.policy import Play
from churnkit.outreach.task import DISPOSITIONS
from churnkit.outreach.words import chance, clean, day, link, listed, money, plural

WORDS = 200
"""The most words that a brief may have."""

_VERBS = {"call": "Call", "email": "Write to", "meeting": "Meet", "visit": "Visit", "review": "Review"}
_HAPPENS = {"churn": "Leaving within the next months", "expansion": "Buying more within the next months",
            "maintenance": "A failure within the next days"}

TEMPLATE = """\
**{{ name }}**{% if segment %} ({{ segment }}){% endif %} {{ says }}.
{%- if chance %} {{ happens }} is {{ chance }}.{% endif %}
{%- if stake %} {{ stakes }}: {{ stake }}.{% endif %}
{%- if offer %} {{ offer }}.{% endif %}
{%- if renewal %} {{ renewal }}.{% endif %}
{%- if assets %} Equipment: {{ assets }}.{% endif %}
{%- if contact %} Speak to {{ contact }}.{% endif %}
{% if why %}
Why:
{% for line in why %}- {{ line }}
{% endfor %}{% endif %}
{%- if against %}
On the other hand: {{ against }}.
{% endif %}
{%- if lately %}
Lately:
{% for line in lately %}- {{ line }}
{% endfor %}{% endif %}
{%- if steps %}
Suggested{% if due %}, by {{ due }}{% endif %}:
{% for line in steps %}{{ loop.index }}. {{ line }}
{% endfor %}{% endif %}
{%- if also %}
Also: {{ also }}.
{% endif %}
Answer with: {{ answers }}.

{{ source }}
"""

_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)  # values are cleaned


@dataclass(frozen=True)
class Ticket:
    """A ticket as the brief may show it: never its text."""

    ticket_id: str
    opened: dt.datetime
    channel: str = ""
    category: str = ""
    state: str = "open"
    mood: str = ""
    url: str = ""


@dataclass(frozen=True)
class Case:
    """All that a brief is made of.

    `why` are the reasons in words that speak for acting (at most three are shown), `against` those that speak against;
    for a rule play `why` holds the evidence. `news` may say beside each of `why` what it adds and what is new about it.
    `probability` is missing where no model with proven skill gave one; `offer` says what to offer, as far as its skill
    is proven.
    """

    account: str
    play: Play
    play_name: str
    today: dt.date
    segment: str = ""
    contact: str = ""
    probability: float | None = None
    value: float | None = None
    currency: str = ""
    offer: str = ""
    why: tuple[str, ...] = ()
    news: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    tickets: tuple[Ticket, ...] = ()
    touches: tuple[str, ...] = ()
    renews: dt.date | None = None
    auto_renew: bool = False
    assets: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    suggested_by: str = ""
    act: str = ""
    due: dt.date | None = None


def brief(case: Case, template: str = TEMPLATE) -> str:
    """The brief in Markdown that also reads as plain text; at most WORDS words.

    Where there is too much to say, what happened longest ago goes first, and the reasons stay.

    Args:
        case: What is known.
        template: A Jinja2 template, run in a sandbox; see TEMPLATE for the names that it may use.
    """
    made = _compiled(template)
    fields = _fields(case)
    for shorten in _SHORTER:
        text = _tidy(made.render(**fields))
        if len(text.split()) <= WORDS:
            return text
        name, keep = shorten
        value = fields[name]
        fields[name] = value[:keep] if isinstance(value, list) else ""
    text = _tidy(made.render(**fields))
    words = text.split(" ")
    while len(text.split()) > WORDS:
        words = words[: len(words) - 1]
        text = " ".join(words) + " …"
    return text


_SHORTER: tuple[tuple[str, int], ...] = (
    ("lately", 3), ("also", 0), ("steps", 3), ("lately", 1), ("assets", 0), ("why", 2), ("against", 0), ("lately", 0),
    ("steps", 1), ("why", 1))


def title(case: Case) -> str:
    """One line of at most 200 characters that says in a queue what to do and why.

    >>> play = Play(target="churn", signal="notice_given", steps=("Call.",), says="gave notice")
    >>> title(Case("Acme Ltd", play, "notice", dt.date(2026, 11, 1), why=("gave notice on 30 October 2026",)))
    'Call Acme Ltd: gave notice on 30 October 2026'
    """
    verb = _VERBS[case.act or case.play.type]
    name = clean(case.account, 60) or "the account"
    why = clean(case.why[0] if case.why else case.play.says, 100).rstrip(".")
    says = clean(case.play.says, 60) if case.play.opened_by == "model" and case.why else ""
    line = f"{verb} {name}: {says}; {why[:1].lower()}{why[1:]}" if says else f"{verb} {name}: {why}"
    renewal = _renewal(case)
    if renewal and len(line) + len(renewal) < 190:
        line += f"; {renewal[:1].lower()}{renewal[1:]}"
    return clean(line, 200)


@cache
def _compiled(template: str) -> Template:
    return _ENVIRONMENT.from_string(template)


def _fields(case: Case) -> dict[str, str | list[str]]:
    says = clean(case.play.says, 80) or "needs attention"
    raises = [_sentence(line) + (f" ({clean(new, 80)})" if new else "")
              for line, new in zip_longest(case.why[:3], case.news[:len(case.why[:3])], fillvalue="")]
    tickets = [_ticket(ticket) for ticket in sorted(case.tickets, key=lambda t: (t.opened, t.ticket_id), reverse=True)]
    return {
        "name": clean(case.account, 60) or "This account", "segment": clean(case.segment, 30), "says": says,
        "happens": _HAPPENS[case.play.target],
        "stakes": "To be won" if case.play.target == "expansion" else "At stake",
        "chance": chance(case.probability) if case.probability is not None else "",
        "stake": f"about {money(case.value, clean(case.currency, 8))}" if case.value else "",
        "offer": clean(case.offer, 120), "renewal": _renewal(case), "contact": clean(case.contact, 60),
        "assets": _assets(case.assets), "why": raises,
        "against": listed([clean(line, 120).rstrip(".") for line in case.against[:1]]),
        "lately": [*tickets[:4], *(clean(touch, 100) for touch in case.touches[:2])],
        "steps": [clean(step, 160) for step in case.play.steps],
        "also": "; ".join(clean(line, 100).rstrip(".") for line in case.also[:2]),
        "answers": listed([word.replace("_", " ") for word in
                           (*DISPOSITIONS[case.play.target], *DISPOSITIONS["any"])]).replace(" and ", " or "),
        "due": day(case.due) if case.due else "", "source": clean(case.suggested_by, 160),
    }


def _sentence(text: str) -> str:
    line = clean(text, 140).rstrip(".")
    return line[:1].upper() + line[1:]


def _renewal(case: Case) -> str:
    if case.renews is None or case.renews < case.today or case.play.target == "maintenance":
        return ""
    days = (case.renews - case.today).days
    how = "The contract renews by itself" if case.auto_renew else "Renewal"
    return f"{how} today" if days == 0 else f"{how} in {plural(days, 'day')}" if days <= 180 else ""


def _assets(assets: tuple[str, ...]) -> str:
    names = [clean(asset, 30) for asset in assets[:3]]
    more = len(assets) - len(names)
    return listed([*names, f"{more} more"]) if more else listed(names)


def _ticket(ticket: Ticket) -> str:
    about = [word for word in (clean(ticket.channel, 20), clean(ticket.category, 30).replace("_", " ")) if word]
    kind = f" ({', '.join(about)})" if about else ""
    parts = [f"{day(ticket.opened)}: ticket {clean(ticket.ticket_id, 30)}{kind}", clean(ticket.state, 40)]
    parts += [f"mood {clean(ticket.mood, 20)}"] if ticket.mood else []
    parts += [link(ticket.url)] if link(ticket.url) else []
    return ", ".join(parts)


def _tidy(text: str) -> str:
    """No trailing blanks, no more than one empty line in a row."""
    lines: list[str] = []
    for line in (line.rstrip() for line in text.strip().splitlines()):
        if line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines)
