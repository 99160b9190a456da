"""Who is who in a HubSpot portal: owners by e-mail, companies by the account id that one of their properties holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from churnkit.outreach.crm.hubspot_line import DeniedError, Line
from churnkit.outreach.crm.mapping import Mapped

BATCH = 100
OWNERS = 500
"""How many owners one reply tells at most."""


@dataclass(frozen=True)
class Found:
    """HubSpot's id of something of ours, or why there is none: `why` says it in words with the mend."""

    id: str = ""
    why: str = ""


@dataclass
class _Owners:
    """Owners as the portal tells them; those who have left are asked for only where one of them is met."""

    by_email: dict[str, str] = field(default_factory=dict)
    emails: dict[str, str] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)
    active: set[str] = field(default_factory=set)
    archived: bool = False


class Directory:
    """Looks owners and companies up and remembers them until `forget`; crm_map.csv goes before whatever it finds.

    Args:
        line: To HubSpot.
        mapped: The workspace's table.
        account_property: The property of companies that holds our account id.
    """

    def __init__(self, line: Line, mapped: Mapped, account_property: str) -> None:
        self._line, self._mapped, self._property = line, mapped, account_property
        self._owners: _Owners | None = None
        self._companies: dict[str, Found] = {}
        self._unique: bool | None = None

    def forget(self) -> None:
        """The next question is asked anew."""
        self._owners, self._companies, self._unique = None, {}, None

    def owner(self, email: str) -> Found:
        """The active owner with that e-mail address; never anybody else in their place."""
        known = self._known()
        theirs = self._mapped.get("owner", email)
        if theirs is not None:
            return Found(theirs) if theirs in known.active else Found(why=self._mapped.unmapped(
                "owner", email, f"stands for '{theirs}' in {self._mapped.path}, which is no active owner in HubSpot"))
        found = known.by_email.get(email.lower())
        return Found(found) if found else Found(why=self._mapped.unmapped(
            "owner", email, "is no active owner in HubSpot"))

    def contact(self, contact_id: str | None) -> str | None:
        """HubSpot's id of a contact, by crm_map.csv alone: nothing else says for sure who that is."""
        return self._mapped.get("contact", contact_id) if contact_id else None

    def email(self, owner_id: str, *, ask: bool = True) -> str:
        """An owner's e-mail address, also of one who has left; without `ask` as far as it is known already."""
        ours = self._mapped.owner_of(owner_id)
        return ours or self._with_archived(owner_id, "emails", ask) or f"HubSpot owner {owner_id}"

    def user(self, user_id: str, *, ask: bool = True) -> str:
        """The same by the id of a user, as HubSpot's history names people."""
        return self._with_archived(user_id, "users", ask) or f"HubSpot user {user_id}"

    def load_owners(self) -> None:
        """Asks for the active owners."""
        self._known()

    def accounts(self, account_ids: Iterable[str]) -> Mapping[str, Found]:
        """The companies of these accounts."""
        wanted = list(dict.fromkeys(account_ids))
        for account in wanted:
            if (theirs := self._mapped.get("account", account)) is not None:
                self._companies[account] = Found(theirs)
        asked = [account for account in wanted if account not in self._companies]
        for start in range(0, len(asked), BATCH):
            some = asked[start:start + BATCH]
            rows: dict[str, set[str]] = {}
            for row in self._rows(some):
                ours = str((row.get("properties") or {}).get(self._property) or "")
                rows.setdefault(ours, set()).add(str(row.get("id")))
            self._companies.update({account: self._company(account, rows.get(account, set())) for account in some})
        return {account: self._companies[account] for account in wanted}

    def unique(self) -> bool | None:
        """Whether no two companies can hold the same account id; None where there is no such property."""
        answer = self._line.ask(self._line.properties.get_by_name, "companies", self._property)
        self._unique = bool(answer.body.get("hasUniqueValue"))
        return self._unique

    def _company(self, account: str, ids: set[str]) -> Found:
        if len(ids) == 1:
            return Found(next(iter(ids)))
        why = (f"belongs to {len(ids)} companies in HubSpot by '{self._property}' ({', '.join(sorted(ids)[:5])})" if ids
               else f"has no company in HubSpot whose '{self._property}' is that")
        return Found(why=self._mapped.unmapped("account", account, why))

    def _rows(self, accounts: Sequence[str]) -> Iterator[dict[str, Any]]:
        if self._unique is None:
            try:
                self.unique()
            except DeniedError as denied:
                if denied.status != 404:
                    raise
                return  # no company can hold our id
        if not self._unique:
            yield from self._search(accounts)
            return
        yield from self._line.ask(self._line.companies.read, {
            "inputs": [{"id": account} for account in accounts], "idProperty": self._property,
            "properties": [self._property], "propertiesWithHistory": []}).rows()

    def _search(self, accounts: Sequence[str]) -> Iterator[dict[str, Any]]:
        """By search, which wants the values of IN in lower case and finds either: the caller compares them exactly."""
        values = sorted({account.lower() for account in accounts})
        yield from self._line.sweep(self._line.company_search, [
            {"propertyName": self._property, "operator": "IN", "values": values}], [self._property])

    def _known(self) -> _Owners:
        if self._owners is None:
            known = _Owners()
            for owner in self._all(archived=False):
                number, email = str(owner.get("id")), str(owner.get("email") or "").lower()
                known.active.add(number)
                if email:
                    known.by_email[email], known.emails[number] = number, email
                    known.users[str(owner.get("userId"))] = email
            self._owners = known
        return self._owners

    def _with_archived(self, number: str, what: str, ask: bool) -> str | None:
        """Looks a number up among the active owners, then also among those who have left."""
        known = self._known() if ask else self._owners or _Owners(archived=True)
        found: str | None = getattr(known, what).get(number)
        if found is None and ask and not known.archived:
            for owner in self._all(archived=True):
                if email := str(owner.get("email") or "").lower():
                    known.emails.setdefault(str(owner.get("id")), email)
                    known.users.setdefault(str(owner.get("userIdIncludingInactive")), email)
            known.archived = True
            found = getattr(known, what).get(number)
        return found

    def _all(self, *, archived: bool) -> Iterator[dict[str, Any]]:
        # As text: the client would write True and False with a capital letter.
        more: dict[str, Any] = {"archived": str(archived).lower(), "limit": OWNERS}
        while True:
            answer = self._line.ask(self._line.owners.get_page, **more)
            yield from answer.rows()
            if answer.after is None:
                return
            more["after"] = answer.after

