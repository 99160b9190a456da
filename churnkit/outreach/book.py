"""What outreach may know at a moment: the raw tables cut at `at`, and the look-ups that the rest shares."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pandas as pd

from churnkit.schemas import Table, raw_table
from churnkit.settings import Settings

_DTYPES: Mapping[str, Any] = {"time": "datetime64[us, UTC]", "float": "float64", "int": "Int64", "bool": "boolean"}
_LATER = {
    "support_tickets": ("first_replied_at", "escalated_at", "human_requested_at", "reopened_at", "resolved_at",
                        "handed_over_at", "rated_at"),
    "subscriptions": ("end_recorded_at",), "invoices": ("paid_at",), "contacts": ("left_at",),
    "opportunities": ("closed_at",), "assets": ("retired_at",),
}
_ROLES = {"champion": 0, "sponsor": 1, "billing": 2, "user": 3}


@dataclass(frozen=True)
class Book:
    """The tables as they could be known at `at`: rows that were not yet known, or lie ahead, are not in it.

    A row is seen when its own time is before `at` and its `known_at` is not after it; of several versions of a record
    the latest known one counts. Later times of a seen row (resolved, paid, left) that lie ahead are blanked.
    """

    at: pd.Timestamp
    tables: Mapping[str, pd.DataFrame]
    _cache: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False, compare=False)

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name not in self._cache:
            frame = self.tables[name] if name in set(self.tables) else None
            self._cache[name] = _none(name) if frame is None or frame.empty else _cut(frame, name, self.at)
        return self._cache[name]

    @property
    def settings(self) -> Settings:
        """The workspace's, where the tables carry them, be it within a ChainMap; else the defaults."""
        carried = (getattr(one, "settings", None) for one in (self.tables, *getattr(self.tables, "maps", ())))
        return next((one for one in carried if isinstance(one, Settings)), Settings())

    def accounts(self) -> pd.DataFrame:
        """The accounts by id: name, segment, owner, parent and `top`, the topmost parent account."""
        if "accounts by id" not in self._cache:
            frame = self["accounts"].set_index("account_id", drop=False).sort_index()
            above = frame["parent_account_id"].dropna()
            parents = dict(zip(above.index.astype(str), above.astype(str), strict=True))
            tops = [_top(str(account), parents) for account in frame.index] if parents else frame.index
            self._cache["accounts by id"] = frame.assign(top=tops)
        return self._cache["accounts by id"]

    def active_subscriptions(self) -> pd.DataFrame:
        """The subscriptions that have begun and have not ended."""
        frame = self["subscriptions"]
        return frame[frame["ended_at"].isna() | (frame["ended_at"] >= self.at)]

    def agreed_ahead(self) -> set[str]:
        """The accounts with a subscription that is agreed already and begins at this moment or later."""
        frame = self.tables["subscriptions"] if "subscriptions" in set(self.tables) else pd.DataFrame()
        frame = frame.reindex(columns=["account_id", "started_at", "known_at"])
        started, known = (pd.to_datetime(frame[name], utc=True) for name in ("started_at", "known_at"))
        return set(frame["account_id"][(started >= self.at) & ~(known > self.at)])

    def mrr(self) -> pd.Series:
        """Money a month by account, over its active subscriptions."""
        return self.active_subscriptions().groupby("account_id")["mrr"].sum(min_count=1)

    def currency(self, default: str) -> str:
        """The currency of that money: the subscriptions' own where they name a single one, else the default."""
        named = self["subscriptions"]["currency"].dropna().unique()
        return str(named[0]) if len(named) == 1 else default

    def contacts(self) -> tuple[dict[str, str], set[str]]:
        """Whom to speak to, by account; and the accounts all of whose people are not to be contacted."""
        people = self["contacts"]
        people = people[people["left_at"].isna()]
        quiet = self.suppressions()
        quiet = quiet[quiet["contact_id"].notna()]
        no = people["do_not_contact"].fillna(value=False).astype(bool) | people["contact_id"].isin(quiet["contact_id"])
        order = people["role"].map(_ROLES).fillna(9)
        best = people.assign(order=order)[~no].sort_values(["order", "contact_id"]).drop_duplicates("account_id")
        closed = set(people["account_id"]) - set(best["account_id"])
        return dict(zip(best["account_id"], best["contact_id"], strict=True)), closed

    def moods(self) -> pd.DataFrame:
        """What customers wrote as moods, in time; no table of the contract: who has it gives it."""
        columns = ["account_id", "ticket_id", "occurred_at", "known_at", "polarity"]
        if "moods" not in set(self.tables) or not set(columns) <= set(self.tables["moods"]):
            return pd.DataFrame(columns=columns)
        rows = self.tables["moods"]
        rows = rows[~(rows["known_at"] > self.at) & (rows["occurred_at"] < self.at)]
        return rows.sort_values("occurred_at", kind="stable")

    def suppressions(self) -> pd.DataFrame:
        """The suppressions that hold at this moment."""
        frame = self["suppressions"]
        return frame[frame["until"].isna() | (frame["until"] > self.at)]


def utc(at: str | dt.date | dt.datetime) -> pd.Timestamp:
    """A moment as a UTC timestamp; one without a zone is UTC."""
    stamp = pd.Timestamp(at)
    return stamp.tz_localize("UTC") if stamp.tzinfo is None else stamp.tz_convert("UTC")


@cache
def _none(name: str) -> pd.DataFrame:
    return _cut(pd.DataFrame(), name, pd.Timestamp(0, tz="UTC"))


def _cut(frame: pd.DataFrame, name: str, at: pd.Timestamp) -> pd.DataFrame:
    contract = raw_table(name)
    columns: dict[str, Any] = {column.name: column.kind for column in contract.columns} | {"known_at": "time"}
    frame = frame.reindex(columns=list(columns))
    for column, kind in columns.items():
        if kind in _DTYPES:
            frame[column] = pd.to_datetime(frame[column], utc=True) if kind == "time" else frame[column]
            frame[column] = frame[column].astype(_DTYPES[kind])
        else:
            text: Any = frame[column].astype(object)
            frame[column] = text.where(text.notna(), None)
    seen = ~(frame["known_at"] > at)
    if contract.time:  # a suppression holds from the moment it starts; whatever else happens at `at` is not seen yet
        seen &= frame[contract.time] <= at if name == "suppressions" else frame[contract.time] < at
    frame = frame[seen]
    return _blank_ahead(_newest(frame, contract), name, at).reset_index(drop=True)


def _newest(frame: pd.DataFrame, contract: Table) -> pd.DataFrame:
    """Of each record's versions the one known last; a subscription's periods are records of their own."""
    key = [column for column in contract.key if column != "recorded_at"]
    if contract.name == "subscriptions":  # a row without an id is one of its own
        key = ["account_id", "subscription_id", "started_at"]
    if not key:
        return frame.copy()
    ordered = frame.sort_values("known_at", kind="stable", na_position="first")
    older = ordered.duplicated(key, keep="last") & ordered[key].notna().all(axis="columns")
    return ordered[~older].sort_index()


def _blank_ahead(frame: pd.DataFrame, name: str, at: pd.Timestamp) -> pd.DataFrame:
    """What a seen row says of the time after `at`, taken out of it."""
    if name == "support_tickets":  # a rating is given when the ticket is rated, at the latest when it is resolved
        unrated = ~(frame["rated_at"].fillna(frame["resolved_at"]) < at)
        frame[["csat", "effort"]] = frame[["csat", "effort"]].mask(unrated)
    if name == "invoices":  # a count without times is known at its record's end
        frame["failed_attempts"] = frame["failed_attempts"].mask(frame["paid_at"] >= at)
    if name == "subscriptions":  # an end is known from its notice on
        frame["ended_at"] = frame["ended_at"].mask(frame["end_recorded_at"].fillna(frame["ended_at"]) >= at)
    for column in _LATER.get(name, ()):
        frame[column] = frame[column].mask(frame[column] >= at)
    return frame


def _top(account: str, parents: Mapping[str, str]) -> str:
    """The topmost parent; where parents run in a circle, the smallest id of that circle."""
    path = [account]
    while (parent := parents.get(path[-1])) is not None:
        if parent in path:
            return min(path[path.index(parent):])
        path.append(parent)
    return path[-1]
