"""What the account manager reads: a title for the queue and a brief of at most 200 words, in a colleague's tone."""

from __future__ import annotations

import re
from typing import Any, Literal

from churnkit.outreach.facts import Also, Before, Case, Person, Reason, Source, Ticket, Touch
from churnkit.outreach.parts import first_reason, parts_of, renewal, says
from churnkit.outreach.wording import Wording
from churnkit.outreach.wording.sandbox import rendered
from churnkit.outreach.words import clean, few

__all__ = ["SHORTER", "WORDS", "Also", "Before", "Case", "Format", "Person", "Reason", "Source", "Ticket", "Touch",
           "brief", "title"]

WORDS = 200
"""The most words that a brief may have."""

Format = Literal["markdown", "text", "html"]
_TEMPLATES: dict[str, str] = {"markdown": "brief.md.j2", "text": "brief.txt.j2", "html": "brief.html.j2"}
_TAGS = re.compile(r"<[^<>]*>")
_INDENT = re.compile(r"^  (?!\d\. )", re.MULTILINE)

SHORTER: tuple[tuple[str, int], ...] = (
    ("lately", 4), ("steps", 3), ("lately", 3), ("avoid", 2), ("steps", 2), ("also", 2), ("against", 0), ("lately", 2),
    ("also", 1), ("lately", 1), ("also", 0), ("steps", 1), ("about", 4), ("avoid", 1), ("why", 2), ("changed", 0),
    ("about", 3), ("lately", 0), ("ask", 0), ("avoid", 0), ("about", 2), ("why", 1), ("source", 1), ("about", 1),
    ("segment", 0), ("about", 0), ("steps", 0), ("why", 0), ("answers", 0), ("says", 0), ("source", 0))
"""What is left out where there is too much to say, the first of these first, and how much of it then stays.

Older tickets and touches go before other matters and later steps; reasons stay until little else is left. Whole lines
and sentences go, never half of one.
"""


def brief(case: Case, *, format: Format = "markdown", wording: Wording | None = None) -> str:  # noqa: A002
    """The brief, of at most WORDS words; see SHORTER for what goes first where there is too much to say.

    Args:
        case: What is known.
        format: Markdown that also reads as plain text, plain text, or HTML that is safe in a CRM's body.
        wording: The words and templates; English ones where it is left out.
    """
    wording = wording or Wording.load()
    template, parts = wording.templates[_TEMPLATES[format]], parts_of(case, wording)
    text = rendered(template, _laid(parts, wording))
    for name, keep in SHORTER:
        if _count(text) <= WORDS:
            break
        if len(parts[name]) <= keep:
            continue
        parts[name] = parts[name][:keep]
        text = rendered(template, _laid(parts, wording))
    return text


def title(case: Case, wording: Wording | None = None) -> str:
    """One line of at most 200 characters that says in a queue what to do and why.

    >>> import datetime as dt
    >>> from churnkit.outreach.policy import Play
    >>> play = Play(target="churn", signal="notice_given", steps=("Call.",), says="gave notice")
    >>> why = (Reason("gave notice on 30 October 2026"),)
    >>> title(Case("Acme Ltd", play, "notice", dt.date(2026, 11, 1), why=why))
    'Call Acme Ltd: gave notice on 30 October 2026'
    """
    wording = wording or Wording.load()
    why, when = first_reason(case, wording), renewal(case, wording)
    plain = case.play.opened_by == "rule" and why
    name = few(case.account, 60, 8) or wording.say("names.account")
    fields = {"act": wording.say(f"title.{case.act or case.play.type}", name=name), "why": why,
              "says": "" if plain else says(case, wording), "renewal": wording.inside(when)}
    made = wording.templates["title.j2"]
    line = rendered(made, fields)
    if len(line) > 190 and when:
        line = rendered(made, {**fields, "renewal": ""})
    return clean(line, 200)


def _laid(parts: dict[str, Any], wording: Wording) -> dict[str, Any]:
    """The templates' fields: what happened in its order, the newest first, and what to avoid as one sentence."""
    lately = sorted(parts["lately"], key=lambda one: one[0], reverse=True)
    avoid = wording.say("labels.avoid", things="; ".join(parts["avoid"])) if parts["avoid"] else ""
    return {**parts, "lately": [line for _, line in lately], "avoid": avoid}


def _count(text: str) -> int:
    """Words, with the marks and addresses that Markdown shows, so that every format leaves out the same."""
    marked = _INDENT.sub(" - ", text).replace("<li>", " - ").replace("<a ", " - <")
    return len(_TAGS.sub(" ", marked).split())
