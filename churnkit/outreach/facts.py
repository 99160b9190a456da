"""What a brief is made of: the facts of one case as plain values, before any word is chosen. Standard library."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from churnkit.outreach.offer import Offer
from churnkit.outreach.policy import Play


@dataclass(frozen=True)
class Ticket:
    """A ticket as the brief may show it: never its text.

    `handled_by` is human or bot; `unanswered` is true only where the records keep first replies and this ticket has
    none. A ticket is open while `resolved` is missing; `reopened` is then the last time that it was opened again.
    """

    ticket_id: str
    opened: dt.datetime
    channel: str = ""
    category: str = ""
    mood: str = ""
    url: str = ""
    resolved: dt.datetime | None = None
    escalated: dt.datetime | None = None
    reopened: dt.datetime | None = None
    handed_over: dt.datetime | None = None
    handled_by: str = ""
    unanswered: bool = False
    passed_on: int = 0


@dataclass(frozen=True)
class Touch:
    """One time that people spoke: `direction` is inbound or outbound, `by` an owner's id, human or bot."""

    when: dt.datetime
    channel: str = ""
    direction: str = ""
    by: str = ""


@dataclass(frozen=True)
class Reason:
    """A sentence that speaks for acting: what it adds to the chance, in points, what is new, and whose value it is."""

    phrase: str
    points: float | None = None
    changed: str = ""
    feature: str = ""


@dataclass(frozen=True)
class Person:
    """Somebody at the customer; `left` is the day when they went, if they did."""

    name: str = ""
    role: str = ""
    left: dt.datetime | None = None


@dataclass(frozen=True)
class Before:
    """The account's last closed task: when it was closed, with which answer, and the chance that it was opened at."""

    closed: dt.datetime
    disposition: str = ""
    probability: float | None = None


@dataclass(frozen=True)
class Also:
    """Another matter of the same account, which waits."""

    target: str
    says: str
    evidence: str = ""


@dataclass(frozen=True)
class Source:
    """Who suggests it: a model by its version, or a rule by its signal; with its date, and how much is known.

    `date` is how far the model's data reach, or when the signal was seen. `rank_by` is uplift (people like this one
    were compared with and without the play), effect (the play's own effect was measured) or prior (it is a belief).
    `uplift` is a share of 1, `effect` the share of the loss or the sale that it turned; `low` and `high` are the ends
    of a 95% interval of whichever `rank_by` names, in its unit.
    """

    by: str = ""
    date: dt.date | None = None
    rank_by: str = "prior"
    uplift: float | None = None
    effect: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Case:
    """All that a brief is made of.

    `why` are the reasons that speak for acting (at most three are shown), `against` those that speak against; for a
    rule play `why` holds the evidence. `probability` is missing where no model with proven skill gave one; `likely` is
    the interval around it, where one is known. `cause` is the group of features or the signal that opened the case.
    `left` are people who went lately, `quiet` people whom nobody may contact. `also` are other matters of the account:
    sentences, or `Also`.
    """

    account: str
    play: Play
    play_name: str
    today: dt.date
    segment: str = ""
    language: str = ""
    contact: str = ""
    probability: float | None = None
    likely: tuple[float, float] | None = None
    value: float | None = None
    currency: str = ""
    offer: Offer | None = None
    cause: str = ""
    why: tuple[Reason, ...] = ()
    against: tuple[str, ...] = ()
    before: Before | None = None
    tickets: tuple[Ticket, ...] = ()
    touches: tuple[Touch, ...] = ()
    left: tuple[Person, ...] = ()
    quiet: tuple[Person, ...] = ()
    renews: dt.date | None = None
    auto_renew: bool = False
    assets: tuple[str, ...] = ()
    also: tuple[Also | str, ...] = ()
    source: Source = Source()
    act: str = ""
    due: dt.date | None = None
