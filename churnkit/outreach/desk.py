"""The account managers: who may take a task for an account, what it is worth in their hands, and how full they are."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from churnkit.outreach.book import Book
from churnkit.outreach.plays import SUPPORT_LEAD, Play
from churnkit.outreach.policy import Policy
from churnkit.outreach.spans import WEEK
from churnkit.outreach.task import CLOSED, Task

_OWN = 1.0
_ABLE = 0.99
"""Whoever has the skill does as well; the account's own goes first all the same."""


class Able(NamedTuple):
    """One who may take a task, and what it is worth in their hands, as a share."""

    person: str
    share: float


class Desk:
    """The account managers, the work that is on their desks, and whom they know; nothing here changes."""

    def __init__(self, book: Book, policy: Policy, tasks: Iterable[Task]) -> None:
        self._today, self._policy = book.at.date(), policy
        owners = book["owners"].drop_duplicates("owner").set_index("owner").sort_index()
        self._owners = owners
        self._active = set(owners.index[owners["active"].fillna(value=True).astype(bool)])
        accounts = book.accounts()
        self._of, self._speaks, self._in = (_texts(accounts[name]) for name in ("owner", "language", "segment"))
        emails = owners["email"].dropna().str.strip()
        unique = emails[~emails.str.lower().duplicated(keep=False) & (emails != "")]
        self._email = {str(owner): str(email) for owner, email in unique.items()}
        self._by_email = {email.lower(): owner for owner, email in self._email.items()}
        self._skills, self._languages, self._segments = (
            {owner: _words(text) for owner, text in _texts(owners[name]).items()}
            for name in ("skills", "languages", "segments"))
        self._above = _texts(owners["manager"])
        self._team: dict[str, list[str]] = defaultdict(list)
        for owner, manager in sorted(self._above.items()):
            if owner in self._active:
                self._team[manager].append(owner)
        self._due: dict[str, list[dt.date]] = defaultdict(list)
        self._alike: dict[str, list[dt.date]] = defaultdict(list)
        self._knows: dict[str, set[str]] = defaultdict(set)
        self._last: dict[str, str] = {}
        for task in sorted(tasks, key=lambda task: (task.episode, task.key)):
            person = self.person(task.owner)
            if not task.ghost:
                self._knows[task.account_id].add(person)
                self._last[task.account_id] = person
            if task.status in CLOSED:
                continue
            due = max(task.due, self._today)
            if not task.ghost:
                self._due[person].append(due)
            if not task.passed_on:
                self._alike[person].append(due)

    def address(self, person: str) -> str:
        """How a task names its owner: the e-mail where there is one of their own, else the id."""
        return self._email.get(person, person)

    def person(self, address: str) -> str:
        """The id behind a task's owner."""
        return self._by_email.get(address.lower(), address)

    def name(self, person: str) -> str:
        """The person's name, or an empty string."""
        name = self._owners["name"].get(person)
        return name if isinstance(name, str) else ""

    def last(self, account_id: str) -> str:
        """Who had the account's last task, or an empty string."""
        return self._last.get(account_id, "")

    def people(self, account_id: str, play: Play) -> tuple[Able, ...]:
        """Who may take a task for the account, the first choice first; nobody is an empty tuple.

        The account's own manager goes first; colleagues of the same team, segment and language may help out at the
        policy's share of the value, those first who have dealt with the account. An account whose owner is gone falls
        to the manager's queue; what must always be done may overflow into it.
        """
        owner = self._of.get(account_id)
        if play.skill:
            able = [person for person in sorted(self._active)
                    if play.skill in self._skills.get(person, ()) and self._understands(person, account_id)]
            found = tuple(Able(person, _OWN if person == owner else _ABLE) for person in sorted(
                able, key=lambda person: (person != owner, len(self._due[person]), person)))
            return found if found or play.skill != SUPPORT_LEAD else self._queue(owner)
        working = owner is not None and (self._owners.empty or owner in self._active)
        if play.who == "manager" or owner is None or not working:
            return self._queue(owner)
        colleagues = self._colleagues(owner, account_id)
        manager = self._manager(owner) if play.always else None
        more = [person for person in (*colleagues, *([manager] if manager else [])) if person != owner]
        return (Able(owner, _OWN), *(Able(person, self._share(person, account_id)) for person in dict.fromkeys(more)))

    def load(self) -> dict[str, int]:
        """Open tasks by person."""
        return {person: len(dues) for person, dues in self._due.items()}

    def fullest(self, new: Iterable[tuple[str, dt.date]]) -> dict[str, int]:
        """The most tasks that fall due within any seven days by person, with `new` ones (person, due) on top."""
        dues = {person: list(days) for person, days in self._due.items()}
        for person, due in new:
            dues.setdefault(person, []).append(due)
        week = dt.timedelta(days=WEEK)
        return {person: max((sum(start <= due < start + week for due in days) for start in set(days)), default=0)
                for person, days in dues.items()}

    def capacity(self, person: str) -> int:
        """How many tasks may fall due within any seven days."""
        own = self._owners["capacity_per_week"].get(person)
        return self._policy.capacity.per_week if own is None or pd.isna(own) else int(own)

    def busy(self, people: list[str], days: int, *, alike: bool = False) -> NDArray[np.int64]:
        """Open tasks by person and day from today on, shape (people, days); what is overdue counts as due today.

        With `alike` as they would be without a control group: ghosts count, and what took their slots does not.
        """
        found = np.zeros((len(people), days), dtype=np.int64)
        open_now = self._alike if alike else self._due
        for row, person in enumerate(people):
            for due, count in Counter(open_now.get(person, ())).items():
                if (due - self._today).days < days:
                    found[row, (due - self._today).days] += count
        return found

    def _share(self, person: str, account_id: str) -> float:
        known = person in self._knows.get(account_id, ())
        return (1 + self._policy.capacity.continuity) / 2 if known else self._policy.capacity.continuity

    def _colleagues(self, owner: str, account_id: str) -> list[str]:
        """Those of the same team who may help out, who knows the account first, then who is least busy."""
        manager, segment = self._above.get(owner), self._in.get(account_id, "").lower()
        if manager is None or not self._policy.capacity.colleagues:
            return []
        able = [person for person in self._team[manager] if person != owner and self._understands(person, account_id)
                and (not segment or segment in self._segments.get(person, {segment}))]
        knows = self._knows.get(account_id, set())
        able.sort(key=lambda person: (person not in knows, len(self._due.get(person, ())), person))
        return able[:self._policy.capacity.colleagues]

    def _understands(self, person: str, account_id: str) -> bool:
        language = self._speaks.get(account_id, "").lower()
        return not language or language in self._languages.get(person, {language}) or person == self._of.get(account_id)

    def _queue(self, owner: str | None) -> tuple[Able, ...]:
        manager = self._manager(owner)
        return (Able(manager, _OWN),) if manager else ()

    def _manager(self, owner: str | None) -> str | None:
        """The nearest active manager above, else the one that the policy names."""
        seen: set[str] = set()
        while owner is not None and owner not in seen:
            seen.add(owner)
            owner = self._above.get(owner)
            if owner in self._active:
                return owner
        named = self._policy.capacity.manager
        gone = named in self._owners.index and named not in self._active
        return None if gone else named or None


def _texts(column: pd.Series) -> dict[str, str]:
    return {str(key): value for key, value in column.items() if isinstance(value, str) and value}


def _words(text: str) -> set[str]:
    return {word.strip().lower() for word in re.split(r"[,;|]", text)}
