"""Who takes a task, and how much each person can still do in any seven days."""

from __future__ import annotations

import datetime as dt
import re
from collections import defaultdict
from collections.abc import Iterable

import pandas as pd

from churnkit.outreach.book import Book
from churnkit.outreach.policy import Play, Policy
from churnkit.outreach.task import Task

_WEEK = 7


class Desk:
    """The account managers and their open work; `take` is the only thing that changes it."""

    def __init__(self, book: Book, policy: Policy, open_tasks: Iterable[Task]) -> None:
        self._today = book.at.date()
        self._policy = policy
        owners = book["owners"].drop_duplicates("owner").set_index("owner").sort_index()
        self._owners = owners
        self._active = set(owners.index[owners["active"].fillna(value=True).astype(bool)])
        self._of = dict(book.accounts()["owner"])
        emails = owners["email"].dropna().str.strip()
        unique = emails[~emails.str.lower().duplicated(keep=False) & (emails != "")]
        self._email = {str(owner): str(email) for owner, email in unique.items()}
        self._by_email = {email.lower(): owner for owner, email in self._email.items()}
        self._skills = {str(owner): {word.strip().lower() for word in re.split(r"[,;|]", text)}
                        for owner, text in owners["skills"].dropna().items()}
        self._due: dict[str, list[dt.date]] = defaultdict(list)
        for task in open_tasks:
            if not task.ghost:
                self.take(self._by_email.get(task.owner.lower(), task.owner), task.due)

    def address(self, person: str) -> str:
        """How a task names its owner: the e-mail where there is one of their own, else the id."""
        return self._email.get(person, person)

    def name(self, person: str) -> str:
        """The person's name, or an empty string."""
        name = self._owners["name"].get(person)
        return name if isinstance(name, str) else ""

    def people(self, account_id: str, play: Play) -> tuple[str, ...]:
        """Who may take a task for the account, the first choice first; nobody is an empty tuple.

        An account whose owner is gone falls to the manager's queue; an urgent task may overflow into it.
        """
        owner = self._of.get(account_id)
        owner = owner if isinstance(owner, str) and owner else None
        manager = self._manager(owner)
        if play.who.startswith("skill:"):
            skill = play.who.removeprefix("skill:").strip().lower()
            able = [person for person in sorted(self._active) if skill in self._skills.get(person, ())]
            return tuple(sorted(able, key=lambda person: (person != owner, len(self._due[person]), person)))
        working = self._owners.empty or owner in self._active
        if play.who == "manager" or not working or owner is None:
            return (manager,) if manager else ()
        return (owner, manager) if play.always and manager and manager != owner else (owner,)

    def free(self, person: str, due: dt.date) -> bool:
        """Whether one more task due then keeps every span of seven days within the person's capacity."""
        due, capacity = max(due, self._today), self._capacity(person)
        others = self._due[person]
        for back in range(_WEEK):
            start = due - dt.timedelta(days=back)
            if sum(start <= other < start + dt.timedelta(days=_WEEK) for other in others) >= capacity:
                return False
        return capacity > 0

    def take(self, person: str, due: dt.date) -> None:
        """Books one task; what is overdue counts as due today."""
        self._due[person].append(max(due, self._today))

    def _capacity(self, person: str) -> int:
        own = self._owners["capacity_per_week"].get(person)
        return self._policy.capacity.per_week if own is None or pd.isna(own) else int(own)

    def _manager(self, owner: str | None) -> str | None:
        """The nearest active manager above, else the one that the policy names."""
        seen: set[str] = set()
        while owner is not None and owner not in seen:
            seen.add(owner)
            above = self._owners["manager"].get(owner)
            owner = above if isinstance(above, str) else None
            if owner in self._active:
                return owner
        named = self._policy.capacity.manager
        gone = named in self._owners.index and named not in self._active
        return None if gone else named or None
