"""What a brief needs to know of an account: people, tickets, touches, renewal and reasons."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from churnkit.outreach.book import Book
from churnkit.outreach.brief import Case, Ticket
from churnkit.outreach.candidates import Candidate
from churnkit.outreach.words import clean, day

_LATELY = pd.Timedelta(days=90)


@dataclass(frozen=True)
class File:
    """The tables' rows on the accounts that get a task, by account."""

    book: Book
    accounts: pd.DataFrame
    tickets: Mapping[str, pd.DataFrame]
    touches: Mapping[str, pd.DataFrame]
    subscriptions: Mapping[str, pd.DataFrame]
    people: Mapping[str, str]
    reasons: Mapping[tuple[str, str], pd.DataFrame]
    moods: Mapping[str, float]


def open_file(book: Book, reasons: pd.DataFrame | None, candidates: Sequence[Candidate]) -> File:
    """Everything on these candidates' accounts, fetched at once."""
    accounts = {candidate.account_id for candidate in candidates}
    entities = {entity for candidate in candidates for entity in candidate.entity_ids}
    grouped: dict[tuple[str, str], pd.DataFrame] = {}
    if reasons is not None and len(reasons):
        some = reasons[reasons["entity_id"].isin(entities)]
        newest = some.groupby(["target", "entity_id"])["cutoff"].transform("max") if "cutoff" in some else None
        some = some if newest is None else some[some["cutoff"] == newest]
        some = some.sort_values("rank", kind="stable")
        grouped = {(str(target), str(entity)): rows for (target, entity), rows in some.groupby(["target", "entity_id"])}
    people = book["contacts"].dropna(subset=["name"])
    moods = book.tables.get("moods")
    return File(
        book=book, accounts=book.accounts(), tickets=book.by_account("support_tickets", accounts),
        touches=book.by_account("touches", accounts), subscriptions=book.by_account("subscriptions", accounts),
        people=dict(zip(people["contact_id"], people["name"], strict=True)), reasons=grouped,
        moods={} if moods is None else dict(zip(moods["ticket_id"], moods["polarity"], strict=True)))


def case_of(candidate: Candidate, file: File, contact: str | None) -> Case:
    """The case for one candidate's brief."""
    at, account = file.book.at, candidate.account_id
    row = file.accounts.loc[account] if account in file.accounts.index else None
    raises, lowers, _ = reasons_of(candidate, file)
    renews, automatic = _renewal(file, account)
    rule = candidate.play.opened_by == "rule"
    probability = candidate.probability if candidate.proven else None
    return Case(
        account=(row["name"] if row is not None and row["name"] else account), play=candidate.play,
        play_name=candidate.name, today=at.date(), segment=(row["segment"] or "") if row is not None else "",
        contact=file.people.get(contact or "", ""), probability=probability, value=candidate.value,
        currency=candidate.currency, why=candidate.evidence if rule else raises, against=() if rule else lowers,
        tickets=_tickets(file, account), touches=_touches(file, account), renews=renews, auto_renew=automatic,
        assets=candidate.asset_ids, suggested_by=_suggested_by(candidate, at))


def reasons_of(candidate: Candidate, file: File) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The phrases that raise and that lower the score, and the names of the raising features."""
    entity = candidate.entity_ids[0] if candidate.entity_ids else ""
    rows = file.reasons.get((candidate.play.target, entity))
    if rows is None:
        return (), (), ()
    rows = rows[rows["phrase"].notna()]
    raising, lowering = rows[rows["direction"] == "raises"], rows[rows["direction"] == "lowers"]
    return tuple(raising["phrase"]), tuple(lowering["phrase"]), tuple(map(str, raising["feature"]))


def _suggested_by(candidate: Candidate, at: pd.Timestamp) -> str:
    if candidate.play.opened_by == "rule":
        signal = (candidate.play.signal or "").replace("_", " ")
        since = day(pd.Timestamp(candidate.episode))
        return f"Suggested by rule ({signal}, seen on {since}), not by a model; {day(at)}."
    version = f" {clean(candidate.model_version, 40)}" if candidate.model_version else ""
    upto = day(pd.Timestamp(candidate.scored_at))
    return f"Suggested by the {candidate.play.target} model{version}, from data up to {upto}."


def _renewal(file: File, account: str) -> tuple[dt.date | None, bool]:
    rows = file.subscriptions.get(account)
    if rows is None:
        return None, False
    ahead = rows[(rows["renews_at"] >= file.book.at) & rows["ended_at"].isna()].sort_values("renews_at", kind="stable")
    if ahead.empty:
        return None, False
    automatic = ahead["auto_renew"].iloc[0]
    return ahead["renews_at"].iloc[0].date(), bool(pd.notna(automatic) and automatic)


def _tickets(file: File, account: str) -> tuple[Ticket, ...]:
    rows = file.tickets.get(account)
    if rows is None:
        return ()
    rows = rows[rows["opened_at"] >= file.book.at - _LATELY]
    rows = rows.sort_values(["opened_at", "ticket_id"], kind="stable").tail(4)
    return tuple(
        Ticket(str(row["ticket_id"]), row["opened_at"], row["channel"] or "", row["category"] or "", _state(row),
               _mood(row, file.moods), row["url"] or "")
        for _, row in rows.iterrows())


def _state(row: pd.Series) -> str:
    if pd.notna(row["resolved_at"]) and not row["reopened_at"] >= row["resolved_at"]:
        return f"resolved on {day(row['resolved_at'])}"
    if pd.notna(row["escalated_at"]):
        return f"escalated on {day(row['escalated_at'])}, still open"
    return "reopened, still open" if pd.notna(row["reopened_at"]) else "still open"


def _mood(row: pd.Series, moods: Mapping[str, float]) -> str:
    polarity = moods.get(row["ticket_id"])
    if polarity is not None and pd.notna(polarity):
        return "bad" if polarity <= -0.25 else "good" if polarity >= 0.25 else "neutral"
    if pd.notna(row["csat"]):
        return "bad" if row["csat"] <= 2 else "good" if row["csat"] >= 4 else "neutral"
    return ""


def _touches(file: File, account: str) -> tuple[str, ...]:
    rows = file.touches.get(account)
    if rows is None:
        return ()
    rows = rows.sort_values(["occurred_at", "channel"], kind="stable").tail(1)
    return tuple(
        f"last touch on {day(row['occurred_at'])}: "
        + " ".join(word for word in (clean(row["direction"], 12), clean(row["channel"], 20)) if word)
        + (f" by {clean(row['by'], 40)}" if row["by"] else "")
        for _, row in rows.iterrows())
