"""How the sync stands: the last run, how long ago, what waits, and whether it is late; and what runs leave for that."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa

from churnkit.cutoffs import duration
from churnkit.errors import OutreachError, SettingsError
from churnkit.outreach import dead, look
from churnkit.outreach.crm.base import Portal
from churnkit.outreach.ledger import WAITING, note, noted, outbox, stamp, writing
from churnkit.outreach.life import SNOOZE
from churnkit.outreach.outbox import Outbox

SLACK = 1.5
"""A sync is late when its last whole run began more than so many times the schedule's span ago."""


@dataclass(frozen=True)
class Rules:
    """What the workspace says about its sync, apart from what the connector wants to know.

    `portal` names the portal that is meant; `every` is how often the sync is to run; `snooze_for` how long a task
    sleeps that a person snoozed in the CRM, which does not say until when.
    """

    portal: str = ""
    every: dt.timedelta | None = None
    snooze_for: dt.timedelta = SNOOZE

    @classmethod
    def of(cls, options: Mapping[str, str]) -> Rules:
        """From the section [crm_options].

        Raises:
            SettingsError: If `every` is no span of time.
        """
        try:
            every = duration(options["every"]) if options.get("every") else None
        except SettingsError as error:
            raise SettingsError(f"[crm_options] every: {error}") from None
        return cls(options.get("portal", ""), every)

    def refuse_other(self, found: Portal) -> None:
        """Writes go to the portal that is named, and to no other, and to none that is not set up.

        Args:
            found: What the CRM says that it is.

        Raises:
            OutreachError: If it is another one, none is named where there is something to mistake, or an administrator
                has something to do first.
        """
        said = f"{found.name} (portal '{found.id}'{', ' if found.kind else ''}{found.kind})"
        if self.portal and self.portal != found.id:
            raise OutreachError(f"The CRM is {said}, and [crm_options] portal names '{self.portal}': nothing was "
                                "written. Use that portal's token, or name this one in churnkit.toml.")
        if found.id and not self.portal:
            raise OutreachError(f"The CRM is {said}, and churnkit.toml does not say whether that is the one that is "
                                f"meant: nothing was written. If it is: [crm_options] portal = '{found.id}'.")
        if found.todo:
            raise OutreachError(f"The CRM is {said}, and not set up yet: {' '.join(found.todo)} Nothing was written. "
                                "Run: churnkit crm setup.")


@dataclass(frozen=True)
class Status:
    """How one CRM's sync stands, times as text; `ran` is the last run, `whole` the last that left nothing undone."""

    crm: str
    ran: str | None
    whole: str | None
    lag_seconds: float | None
    late: bool
    every_seconds: float | None
    oldest: str | None
    dead: int
    held: str | None = None
    backlog: dict[str, int] = field(default_factory=dict)

    def sentences(self) -> list[str]:
        """The same in words."""
        said = [f"There was no whole run with '{self.crm}' yet."]
        if self.whole is not None and self.lag_seconds is not None:
            said = [f"The last whole run with '{self.crm}' began {_span(self.lag_seconds)} ago ({self.whole[:19]})."]
        if self.ran != self.whole:
            said.append(f"A later run began at {(self.ran or '')[:19]} and could not do all: its own report "
                        "says why.")
        if self.every_seconds is None:
            said.append("No schedule is set, so nothing can be late: --every 1h, or [crm_options] every = '1h'.")
        elif self.late:
            said.append(f"It is LATE: a run is due every {_span(self.every_seconds)}. See that the scheduler still "
                        "starts `churnkit sync`, and what it prints.")
        waiting = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in self.backlog.items())
        since = f", the oldest since {self.oldest[:19]}" if self.oldest else ""
        said.append(f"Waiting: {waiting or 'nothing'}{since}.")
        if self.held:
            said.append(f"HELD: {self.held}. Nothing is written until churnkit sync repair.")
        if self.dead:
            said.append(f"Dead letters: {self.dead}. See: churnkit sync dead list.")
        return said


def status(box: Outbox, crm: str, now: dt.datetime, every: dt.timedelta | None = None) -> Status:
    """How the sync of a CRM stands; reads the outbox alone.

    Args:
        box: The outbox.
        crm: The connector's name.
        now: The moment of asking.
        every: How often it is to run; left out, nothing is late.
    """
    counted = sa.select(outbox.c.state, sa.func.count(), sa.func.min(outbox.c.created_at)).where(
        outbox.c.state.in_(WAITING)).group_by(outbox.c.state)
    with box.engine.connect() as connection:
        backlog = {row[0]: (row[1], row[2]) for row in connection.execute(counted)}
        kept = noted(connection, f"runs:{crm}")
        letters, held = dead.count(connection), look.held(connection, crm)
    told = json.loads(kept) if kept else {}
    whole = told.get("whole")
    lag = max((now - dt.datetime.fromisoformat(whole)).total_seconds(), 0.0) if whole else None
    late = every is not None and (lag is None or lag > SLACK * every.total_seconds())
    return Status(crm, told.get("ran"), whole, lag, late, every.total_seconds() if every else None,
                  min((oldest for _, oldest in backlog.values()), default=None), letters,
                  held["why"] if held else None, {state: backlog[state][0] for state in WAITING if state in backlog})


def remember(box: Outbox, crm: str, began: dt.datetime, *, whole: bool) -> None:
    """Keeps that a run ended, and whether it left nothing undone that it could have done."""
    name = f"runs:{crm}"
    with writing(box.engine) as connection:
        kept = noted(connection, name)
        told = json.loads(kept) if kept else {}
        told |= {"ran": stamp(began)} | ({"whole": stamp(began)} if whole else {})
        note(connection, name, json.dumps(told))


def _span(seconds: float) -> str:
    """A span in words.

    >>> _span(90), _span(7200), _span(3 * 86400)
    ('1.5 minutes', '2 hours', '3 days')
    """
    for name, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size * (2 if name == "days" else 1):
            return f"{seconds / size:.3g} {name}"
    return f"{seconds:.3g} seconds"
