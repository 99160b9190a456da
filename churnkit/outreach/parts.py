"""The parts of a brief in words: each fact of a case said in one wording, ready to be laid out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from churnkit.outreach.facts import Also, Case, Reason, Ticket, Touch
from churnkit.outreach.policy import AIMS
from churnkit.outreach.task import DISPOSITIONS
from churnkit.outreach.wording import Wording
from churnkit.outreach.words import clean, few, link

NAME, LINE = (60, 8), (140, 24)
"""The most characters and words of a name and of a line that the data give."""


def parts_of(case: Case, wording: Wording) -> dict[str, Any]:
    """What the brief has to say; `lately` holds (day, line) pairs and `avoid` single things, what matters most first.

    `brief.laid` makes the fields of the templates of them, which are named in wording.sandbox.
    """
    why, own = _why(case, wording)
    return {
        "name": few(case.account, *NAME) or wording.say("names.account"), "segment": few(case.segment, 30, 3),
        "says": says(case, wording), "act": _act(case, wording), "about": _about(case, wording), "why": why,
        "why_label": wording.say("labels.why" if own else "labels.why_english"), "against": _against(case, wording),
        "changed": _changed(case, wording), "lately": _lately(case, wording),
        "lately_label": wording.say("labels.lately"), "steps_label": wording.say("labels.steps"),
        "steps": [few(wording.text(step), 160, 28) for step in case.play.steps], "ask": _ask(case, wording),
        "avoid": _avoid(case, wording), "also_label": wording.say("labels.also"), "also": _also(case, wording),
        "answers": _answers(case, wording), "source": _source(case, wording),
    }


def says(case: Case, wording: Wording) -> str:
    """What the play says of the account, without a full stop."""
    return few(wording.text(case.play.says), 80, 12).rstrip(".") or wording.say("names.needs")


def first_reason(case: Case, wording: Wording) -> str:
    """The first reason as it stands in a title."""
    return few(wording.phrase(case.why[0].phrase)[0], 120, 22).rstrip(".") if case.why else ""


def renewal(case: Case, wording: Wording) -> str:
    """When the contract renews, without a full stop; empty where that is far, unknown or beside the point."""
    if case.renews is None or case.renews < case.today or case.play.target == "maintenance":
        return ""
    if any(reason.feature == "days_to_renewal" for reason in case.why[:3]):
        return ""
    days = (case.renews - case.today).days
    key = "renews" if case.auto_renew else "renewal"
    if days == 0:
        return wording.say(f"about.{key}_today")
    return wording.say(f"about.{key}", days=wording.count("about.days", days)) if days <= 180 else ""


def _act(case: Case, wording: Wording) -> str:
    how, whom = case.act or case.play.type, few(case.contact, *NAME)
    by = wording.say("do.by", day=wording.day(case.due)) if case.due else ""
    return wording.say(f"do.{how}_whom", whom=whom, by=by) if whom else wording.say(f"do.{how}", by=by)


def _about(case: Case, wording: Wording) -> list[str]:
    """Sentences on how likely, how much, when, what with and in which language."""
    found = []
    if case.probability is not None:
        chance = wording.chance(case.probability)
        if case.likely is not None:
            low, high = (wording.share(end) for end in case.likely)
            chance = wording.say("about.likely", chance=chance, low=low, high=high)
        found.append(wording.say(f"about.{case.play.target}", chance=chance))
    if case.value:
        key = "about.to_win" if case.play.target == "expansion" else "about.at_stake"
        found.append(wording.say(key, money=wording.money(case.value, few(case.currency, 8, 1))))
    found += [case.offer.brief(wording)] if case.offer else []
    found += [f"{when}."] if (when := renewal(case, wording)) else []
    if case.assets:
        names = [clean(asset, 30) for asset in case.assets[:3]]
        more = len(case.assets) - len(names)
        names += [wording.say("about.more", n=wording.number(more))] if more else []
        found.append(wording.say("about.equipment", assets=wording.listed(names)))
    found += [_language(case.language, wording)]
    return [line for line in found if line]


def _language(theirs: str, wording: Wording) -> str:
    """Named where customers write in another language than the brief's reader does."""
    code = clean(theirs, 20).lower().replace("_", "-").split("-")[0]
    name = wording.find("languages", [code]) or few(theirs, 20, 2)
    same = code == wording.language or name.lower() == wording.find("languages", [wording.language]).lower()
    return "" if same or not name else wording.say("about.writes", language=name)


def _why(case: Case, wording: Wording) -> tuple[list[str], bool]:
    """The first three reasons, and whether all of them are in the brief's language."""
    lines, known = [], True
    for reason in case.why[:3]:
        said, own = wording.phrase(reason.phrase)
        beside = "; ".join(part for part in (_points(reason, wording), few(wording.phrase(reason.changed)[0], 80, 10))
                           if part)
        line = few(said, *LINE).rstrip(".")
        beside = beside and (f", {beside}" if line.endswith(")") else f" ({beside})")
        lines += [line[:1].upper() + line[1:] + beside] if line else []
        known &= own
    return lines, known


def _points(reason: Reason, wording: Wording) -> str:
    if reason.points is None or not reason.points >= 0.5:
        return ""
    return wording.count("why.points", round(reason.points))


def _against(case: Case, wording: Wording) -> str:
    reason = few(wording.phrase(case.against[0])[0], 120, 20).rstrip(".") if case.against else ""
    return wording.say("labels.against", reason=reason) if reason else ""


def _changed(case: Case, wording: Wording) -> str:
    """What came of the last task, and how the chance has moved since it was opened."""
    if case.before is None:
        return ""
    answer = wording.find("dispositions", [case.before.disposition]) or few(case.before.disposition, 30, 4)
    then, now = ("" if one is None else wording.share(one) for one in (case.before.probability, case.probability))
    key = ("rose" if answer else "rose_closed") if then and now and then != now else "answered" if answer else "closed"
    return wording.say(f"changed.{key}", day=wording.day(case.before.closed), disposition=answer, then=then, now=now)


def _lately(case: Case, wording: Wording) -> list[tuple[dt.datetime, dict[str, str]]]:
    """The last two tickets, open ones first, the last touch, and one more of each."""
    tickets = sorted(case.tickets, key=lambda one: (one.resolved is None, one.opened, one.ticket_id), reverse=True)
    touches = sorted(case.touches, key=lambda one: (one.when, one.channel), reverse=True)
    said = _Days(wording, case.today)
    told = [(one.opened, {"text": _ticket(one, said), "url": link(one.url)}) for one in tickets[:3]]
    met = [(one.when, {"text": _touch(one, said), "url": ""}) for one in touches[:2]]
    return [*told[:2], *met[:1], *told[2:], *met[1:]]


@dataclass(frozen=True)
class _Days:
    """Days beside today: the year is said where it is another one."""

    wording: Wording
    today: dt.date

    def day(self, when: dt.datetime) -> str:
        return self.wording.day(when, year=when.year != self.today.year)

    def say(self, key: str, when: dt.datetime, **values: str) -> str:
        return self.wording.say(key, day=self.day(when), **values)


def _ticket(ticket: Ticket, said: _Days) -> str:
    words = said.wording
    about = [word for word in (few(ticket.channel, 20, 2), few(ticket.category, 30, 3).replace("_", " ")) if word]
    shown = f" ({', '.join(words.text(word) for word in about)})" if about else ""
    name = said.say("lately.ticket", ticket.opened, id=clean(ticket.ticket_id, 30), about=shown)
    mood = ticket.mood if ticket.mood in ("good", "neutral", "bad") else ""
    felt = [words.say("lately.mood", mood=words.say(f"lately.{mood}"))] if mood else []
    return ", ".join([name, _state(ticket, said), *_tries(ticket, said), *felt])


def _state(ticket: Ticket, said: _Days) -> str:
    if ticket.resolved is not None:
        return said.say("lately.resolved", ticket.resolved)
    for key, when in (("escalated", ticket.escalated), ("reopened", ticket.reopened)):
        if when is not None:
            return said.say(f"lately.{key}", when)
    return said.wording.say("lately.open")


def _tries(ticket: Ticket, said: _Days) -> list[str]:
    """What was tried: who answered, to whom it went, and whether it came back."""
    found = []
    if ticket.handed_over is not None:
        found.append(said.say("lately.handed_over", ticket.handed_over))
    elif ticket.unanswered:
        found.append(said.wording.say("lately.unanswered"))
    elif ticket.handled_by in ("bot", "human"):
        found.append(said.wording.say(f"lately.by_{ticket.handled_by}"))
    if ticket.passed_on == 2:
        found.append(said.wording.say("lately.twice"))
    elif ticket.passed_on:
        found.append(said.wording.count("lately.passed_on", ticket.passed_on))
    if ticket.reopened is not None and (ticket.resolved is not None or ticket.escalated is not None):
        found.append(said.say("lately.opened_again", ticket.reopened))
    return found


def _touch(touch: Touch, said: _Days) -> str:
    words = said.wording
    by = words.say(f"lately.{touch.by}") if touch.by in ("human", "bot") else few(touch.by, 40, 4)
    how = [part for part in (words.text(few(touch.channel, 20, 2)), by) if part]
    key = touch.direction if touch.direction in ("inbound", "outbound") else "touch"
    return said.say(f"lately.{key}", touch.when, how=f" ({', '.join(how)})" if how else "")


def _ask(case: Case, wording: Wording) -> str:
    """The play's own question, else the one for what opened the case."""
    own: tuple[str, ...] = getattr(case.play, "asks", ())
    question = wording.text(own[0]) if own else _by_cause(case, wording)
    question = few(question, 160, 24)
    return wording.say("labels.ask", question=question) if question else ""


def _by_cause(case: Case, wording: Wording) -> str:
    """The catalogue's longest key that the first raising feature's name begins with, else the cause's, else any."""
    section = f"ask.{case.play.target}"
    name = case.why[0].feature if case.why else ""
    begins = [name[:length] for length in range(len(name), 2, -1)]
    return wording.find(section, [*begins, case.cause, case.play.signal or "", "other"])


def _avoid(case: Case, wording: Wording) -> list[str]:
    """What had better not be said: the play's own, then what the facts forbid."""
    found = [few(wording.text(line), 100, 16).rstrip(".") for line in getattr(case.play, "avoid", ())[:2]]
    waiting = [one for one in case.tickets if one.resolved is None]
    if waiting:
        key = "avoid.selling" if len(waiting) == 1 else "avoid.selling_many"
        found.append(wording.say(key, id=clean(waiting[0].ticket_id, 30), n=wording.number(len(waiting))))
    for one in case.quiet[:1]:
        role = wording.find("roles", [one.role]) or few(one.role, 20, 2)
        found += [wording.say("avoid.quiet", role=role)] if role else []
    for one in case.left[:1]:
        said, name = _Days(wording, case.today), few(one.name, 40, 4) or wording.say("names.someone")
        found += [said.say("avoid.left", one.left, name=name)] if one.left else []
    if any(reason.feature.startswith("price") for reason in case.why[:3]):
        found.append(wording.say("avoid.price"))
    if waiting or any(one.mood == "bad" for one in case.tickets):
        found.append(wording.say("avoid.repeat"))
    if case.play.opened_by == "model":
        found.append(wording.say("avoid.model"))
    return [thing for thing in found if thing][:3]


def _also(case: Case, wording: Wording) -> list[str]:
    """The account's other matters, in the order of precedence, with why each waits."""
    order = list(AIMS)
    plain = [one for one in case.also if isinstance(one, str)]
    waiting = sorted((one for one in case.also if isinstance(one, Also)), key=lambda one: order.index(one.target))
    lines = [_matter(one, case.play.target, wording) for one in waiting] + [few(line, 100, 16) for line in plain]
    return [line[:1].upper() + line[1:] for line in lines if line][:3]


def _matter(also: Also, leading: str, wording: Wording) -> str:
    what, proof = few(wording.text(also.says), 80, 12).rstrip("."), few(wording.phrase(also.evidence)[0], 100, 16)
    matter = wording.say("also.line", says=what, evidence=proof.rstrip(".")) if what and proof else what or proof
    why = {("churn", "maintenance"): "equipment_saving", ("churn", "expansion"): "selling_saving",
           ("maintenance", "expansion"): "selling_serving"}.get((leading, also.target), "same")
    return wording.say("also.waits", matter=matter, why=wording.say(f"also.{why}")) if matter else ""


def _answers(case: Case, wording: Wording) -> str:
    codes = (*DISPOSITIONS[case.play.target], *DISPOSITIONS["any"])
    words = [wording.find("dispositions", [code]) or code.replace("_", " ") for code in codes]
    return wording.say("labels.answers", answers=wording.listed(words, choice=True))


def _source(case: Case, wording: Wording) -> list[str]:
    """Who suggests it and how sure that is, then whether it is known to help."""
    source, target = case.source, case.play.target
    when = wording.day(source.date) if source.date else ""
    if case.play.opened_by == "rule":
        signal = case.play.signal or ""
        name = wording.find("signals", [signal]) or few(signal, 40, 4).replace("_", " ")
        who = wording.say("source.rule" if when else "source.rule_undated", today=wording.day(case.today), by=name,
                          day=when)
    else:
        name = clean(source.by, 40) or wording.say("source.unnamed", target=wording.say(f"targets.{target}"))
        who = wording.say("source.model" if when else "source.model_undated", by=name, day=when)
    return [who, _sure(case, wording)]


def _sure(case: Case, wording: Wording) -> str:
    """Whether this kind of work is known to help, by how the case was ranked."""
    source, target = case.source, case.play.target
    if source.rank_by == "uplift" and source.uplift is not None:
        ends = {name: str(round(100 * end)) for name, end in _ends(source.low, source.high).items()}
        points = wording.count("source.points", round(100 * source.uplift))
        return wording.say(f"source.uplift_{target}", points=points, interval=_interval(ends, wording))
    if source.rank_by == "effect" and source.effect is not None:
        ends = {name: wording.percent(end) for name, end in _ends(source.low, source.high).items()}
        key = f"source.effect_{target}" if source.effect >= 0.005 else "source.effect_none"
        return wording.say(key, effect=wording.percent(source.effect), interval=_interval(ends, wording))
    return wording.say("source.prior")


def _ends(low: float | None, high: float | None) -> Mapping[str, float]:
    return {} if low is None or high is None else {"low": low, "high": high}


def _interval(ends: Mapping[str, str], wording: Wording) -> str:
    return wording.say("source.interval", **ends) if ends else ""
