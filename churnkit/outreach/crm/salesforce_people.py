"""Who is who in Salesforce: owners by e-mail address, accounts by a field of theirs, contacts by id."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote_plus

from churnkit.outreach.crm.mapping import Kind, Mapped
from churnkit.outreach.crm.salesforce_fields import quoted, select
from churnkit.outreach.task import Task

MOST = 100
"""How many values one query names at most."""
ROOM = 6000
"""How long they are at most, as the address of a GET: Salesforce takes 16 kB of it, proxies take less."""


def slices(values: Iterable[str]) -> Iterator[list[str]]:
    """Values for SOQL's IN, so many at a time that the query still fits into an address."""
    taken: list[str] = []
    room = ROOM
    for value in values:
        long = len(quote_plus(quoted([value])))
        if taken and (len(taken) == MOST or long > room):
            yield taken
            taken, room = [], ROOM
        taken.append(value)
        room -= long
    if taken:
        yield taken


def is_id(text: str, prefix: str) -> bool:
    """Whether a text is an id of Salesforce's, of the kind that its first three signs tell.

    >>> is_id("003000000000001AAA", "003"), is_id("C1", "003")
    (True, False)
    """
    return re.fullmatch(prefix + r"[0-9A-Za-z]{12}([0-9A-Za-z]{3})?", text) is not None


class People:
    """The ids of owners, accounts and contacts: the workspace's table first, then Salesforce; what is found is kept.

    Args:
        query: Asks Salesforce; gives all rows.
        who: The workspace's table.
        account_field: The field of Account that holds our account id, or Id.
    """

    def __init__(self, query: Callable[[str], Sequence[Mapping[str, Any]]], who: Mapped, account_field: str) -> None:
        self._query, self.who, self._field = query, who, account_field
        self._ids: dict[tuple[Kind, str], str] = {}
        self._why: dict[tuple[Kind, str], str] = {}

    def learn(self, tasks: Iterable[Task]) -> None:
        """Looks up whom these tasks name and nobody knows yet."""
        tasks = list(tasks)
        self._why.clear()
        owners = {task.owner.lower() for task in tasks if self._unknown("owner", task.owner)}
        for some in slices(sorted(owners)):
            self._owners(some)
        accounts = {task.account_id for task in tasks if self._unknown("account", task.account_id)}
        if self._field == "Id":
            accounts = {ours for ours in accounts if is_id(ours, "001")}
        for some in slices(sorted(accounts)):
            self._accounts(some)

    def links(self, task: Task) -> tuple[dict[str, str], str]:
        """The ids that a new task carries, and, where one is not known, why it cannot be sent."""
        made = {}
        for name, kind, ours in (("OwnerId", "owner", task.owner), ("WhatId", "account", task.account_id),
                                 ("WhoId", "contact", task.contact_id)):
            if ours is not None:
                theirs, why = self._id(kind, ours)  # type: ignore[arg-type]
                if theirs is None:
                    return {}, why
                made[name] = theirs
        return made, ""

    def _id(self, kind: Kind, ours: str) -> tuple[str | None, str]:
        found = self.who.get(kind, ours) or self._ids.get((kind, _name(kind, ours)))
        if found is None and kind == "contact" and is_id(ours, "003"):
            return ours, ""
        if found is not None:
            return found, ""
        why = self._why.get((kind, _name(kind, ours)), {
            "owner": "is no user of this Salesforce org",
            "account": f"is the {self._field} of no account in Salesforce",
            "contact": "is no id of a contact in Salesforce"}[kind])
        return None, self.who.unmapped(kind, ours, why)

    def _unknown(self, kind: Kind, ours: str) -> bool:
        """Whether Salesforce is to be asked; of what holds control characters it knows nothing."""
        known = self.who.get(kind, ours) or self._ids.get((kind, _name(kind, ours)))
        return not known and ours.isprintable() and ours != ""

    def _owners(self, emails: Sequence[str]) -> None:
        rows = self._query(select(("Id", "Email", "IsActive"), "User",
                                  f"Email IN {quoted(emails)} AND UserType = 'Standard'"))
        for email in emails:
            users = [row for row in rows if str(row["Email"]).lower() == email]
            active = [str(row["Id"]) for row in users if row["IsActive"]]
            if len(active) == 1:
                self._ids["owner", email] = active[0]
            elif active:
                self._why["owner", email] = f"is the address of {len(active)} active users of this Salesforce org"
            elif users:
                self._why["owner", email] = "is no active user of this Salesforce org"

    def _accounts(self, ours: Sequence[str]) -> None:
        names = ("Id",) if self._field == "Id" else ("Id", self._field)
        rows = self._query(select(names, "Account", f"{self._field} IN {quoted(ours)}"))
        for account in ours:  # SOQL takes a01 for A01; our ids do not
            found = [str(row["Id"]) for row in rows if self._same(str(row[self._field]), account)]
            if len(found) == 1:
                self._ids["account", account] = found[0]
            elif found:
                self._why["account", account] = f"is the {self._field} of {len(found)} accounts in Salesforce"

    def _same(self, theirs: str, ours: str) -> bool:
        return theirs[:15] == ours[:15] if self._field == "Id" else theirs == ours


def _name(kind: Kind, ours: str) -> str:
    return ours.lower() if kind == "owner" else ours
