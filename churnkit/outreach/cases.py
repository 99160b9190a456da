"""What a brief needs to know of an account: people, tickets, touches, renewal and reasons."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from churnkit.outreach.book import Book
from churnkit.outreach.brief import Case, Ticket
from churnkit.outreach.candidates import Candidate
from churnkit.outreach.offer import Offer
from churnkit.outreach.words import clean, day, plural

_LATELY = pd.Timedelta(days=90)

_BY = {"human": "a person", "bot": "a bot"}
_SIGNALS = {"low_csat": "low satisfaction", "low_effort": "help was hard to get", "low_nps": "would not recommend us"}


@dataclass(frozen=True)
class File:
    """What the briefs need to know of the accounts that get a task, by account."""

    at: pd.Timestamp
    names: Mapping[str, str]
    segments: Mapping[str, str]
    tickets: Mapping[str, tuple[Ticket, ...]]
    touches: Mapping[str, str]
    renewals: Mapping[str, tuple[dt.date, bool]]
    people: Mapping[str, str]
    reasons: Mapping[tuple[str, str], list[dict[Hashable, Any]]]
    offers: Mapping[tuple[str, str], str]


def open_file(book: Book, reasons: pd.DataFrame | None, candidates: Sequence[Candidate]) -> File:
    """Everything on these candidates' accounts, fetched at once."""
    ids = {candidate.account_id for candidate in candidates}
    accounts = book["accounts"]
    accounts = accounts[accounts["account_id"].isin(ids)]
    people = book["contacts"].dropna(subset=["name"])
    return File(
        at=book.at, names=_pairs(accounts, "account_id", "name"), segments=_pairs(accounts, "account_id", "segment"),
        tickets=_tickets(book, ids), touches=_touches(book, ids), renewals=_renewals(book, ids),
        people=_pairs(people, "contact_id", "name"), reasons=_reasons(reasons, candidates),
        offers=_offers(book, ids))


def case_of(candidate: Candidate, file: File, contact: str | None) -> Case:
    """The case for one candidate's brief."""
    account, rule = candidate.account_id, candidate.play.opened_by == "rule"
    raises, lowers, _ = reasons_of(candidate, file)
    renews, automatic = file.renewals.get(account, (None, False))
    touch = file.touches.get(account)
    return Case(
        account=file.names.get(account) or account, play=candidate.play, play_name=candidate.name, today=file.at.date(),
        segment=file.segments.get(account) or "", contact=file.people.get(contact or "", ""),
        probability=candidate.probability if candidate.proven else None, value=candidate.value,
        currency=candidate.currency, why=candidate.evidence if rule else raises, against=() if rule else lowers,
        news=() if rule else _news(candidate, file),
        offer="" if candidate.play.target != "expansion" else file.offers.get((account, candidate.scored_at), ""),
        tickets=file.tickets.get(account, ()), touches=(touch,) if touch else (), renews=renews, auto_renew=automatic,
        assets=candidate.asset_ids, suggested_by=_suggested_by(candidate, file.at))


def reasons_of(candidate: Candidate, file: File) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The phrases that raise and that lower the score, and the names of the raising features."""
    entity = candidate.entity_ids[0] if candidate.entity_ids else ""
    rows = [row for row in file.reasons.get((candidate.play.target, entity), []) if isinstance(row["phrase"], str)]
    raising = [row for row in rows if row["direction"] == "raises"]
    lowering = [row for row in rows if row["direction"] == "lowers"]
    return (tuple(row["phrase"] for row in raising), tuple(row["phrase"] for row in lowering),
            tuple(str(row["feature"]) for row in raising))


def _news(candidate: Candidate, file: File) -> tuple[str, ...]:
    """Beside each raising reason: what it adds to the chance, in points, and what is new since the run before."""
    entity = candidate.entity_ids[0] if candidate.entity_ids else ""
    rows = [row for row in file.reasons.get((candidate.play.target, entity), [])
            if row["direction"] == "raises" and isinstance(row["phrase"], str)]
    points = [f"adds about {plural(round(row['points']), 'point')}" if row["points"] >= 0.5 else "" for row in rows]
    changed = [row["changed"] if isinstance(row["changed"], str) else "" for row in rows]
    return tuple("; ".join(part for part in pair if part) for pair in zip(points, changed, strict=True))


def _pairs(frame: pd.DataFrame, key: str, value: str) -> dict[str, str]:
    return dict(zip(frame[key], frame[value], strict=True))


def _reasons(reasons: pd.DataFrame | None,
             candidates: Sequence[Candidate]) -> dict[tuple[str, str], list[dict[Hashable, Any]]]:
    """The newest reasons of the candidates' entities, in their rank's order."""
    found: dict[tuple[str, str], list[dict[Hashable, Any]]] = defaultdict(list)
    if reasons is None or reasons.empty:
        return found
    some = reasons[reasons["entity_id"].isin({entity for one in candidates for entity in one.entity_ids})]
    if "cutoff" in some:
        some = some[some["cutoff"] == some.groupby(["target", "entity_id"])["cutoff"].transform("max")]
    columns = ["target", "entity_id", "feature", "direction", "phrase", "points", "changed"]  # the last may be lacking
    for row in some.sort_values("rank", kind="stable").reindex(columns=columns).to_dict("records"):
        found[row["target"], row["entity_id"]].append(row)
    return found


def _offers(book: Book, ids: set[str]) -> dict[tuple[str, str], str]:
    """What to offer each account, by the moment it was scored at; no table of the contract: who has it gives it."""
    if "offers" not in set(book.tables):
        return {}
    rows = book.tables["offers"]
    rows = rows[rows["account_id"].isin(ids)]
    return {(row["account_id"], row["cutoff"].isoformat()): Offer.of(row).brief() for row in rows.to_dict("records")}


def _suggested_by(candidate: Candidate, at: pd.Timestamp) -> str:
    if candidate.play.opened_by == "rule":
        signal = _SIGNALS.get(candidate.play.signal or "", (candidate.play.signal or "").replace("_", " "))
        since = day(pd.Timestamp(candidate.episode))
        return f"Suggested on {day(at)} by rule ({signal}, seen on {since}), not by a model."
    version = clean(candidate.model_version, 40) or f"for {candidate.play.target}"
    upto = day(pd.Timestamp(candidate.scored_at))
    return f"Suggested by the model {version}, from data up to {upto}."


def _renewals(book: Book, ids: set[str]) -> dict[str, tuple[dt.date, bool]]:
    """The next renewal of each account's contracts that nobody has ended."""
    rows = book["subscriptions"]
    rows = rows[rows["account_id"].isin(ids) & (rows["renews_at"] >= book.at) & rows["ended_at"].isna()]
    rows = rows.sort_values(["renews_at", "subscription_id"], kind="stable").drop_duplicates("account_id")
    return {account: (renews.date(), bool(automatic)) for account, renews, automatic in
            zip(rows["account_id"], rows["renews_at"], rows["auto_renew"].fillna(value=False), strict=True)}


def _tickets(book: Book, ids: set[str]) -> dict[str, tuple[Ticket, ...]]:
    """Each account's last four tickets of the last 90 days."""
    rows = book["support_tickets"]
    rows = rows[rows["account_id"].isin(ids) & (rows["opened_at"] >= book.at - _LATELY)]
    rows = rows.sort_values(["opened_at", "ticket_id"], kind="stable").groupby("account_id", sort=False).tail(4)
    moods: Mapping[str, float] = {}
    if "moods" in set(book.tables):  # no table of the contract: who has it gives it
        moods = dict(zip(book.tables["moods"]["ticket_id"], book.tables["moods"]["polarity"], strict=True))
    found: dict[str, tuple[Ticket, ...]] = defaultdict(tuple)
    for row in rows.drop(columns=["subject", "body"]).to_dict("records"):
        found[row["account_id"]] += (Ticket(
            str(row["ticket_id"]), row["opened_at"], row["channel"] or "", row["category"] or "", _state(row),
            _mood(row, moods), row["url"] or ""),)
    return found


def _state(row: Mapping[Hashable, Any]) -> str:
    if pd.notna(row["resolved_at"]) and not row["reopened_at"] >= row["resolved_at"]:
        return f"resolved on {day(row['resolved_at'])}"
    if pd.notna(row["escalated_at"]):
        return f"escalated on {day(row['escalated_at'])}, still open"
    return "reopened, still open" if pd.notna(row["reopened_at"]) else "still open"


def _mood(row: Mapping[Hashable, Any], moods: Mapping[str, float]) -> str:
    polarity = moods.get(row["ticket_id"])
    if polarity is not None and pd.notna(polarity):
        return "bad" if polarity <= -0.25 else "good" if polarity >= 0.25 else "neutral"
    if pd.notna(row["csat"]):
        return "bad" if row["csat"] <= 2 else "good" if row["csat"] >= 4 else "neutral"
    return ""


def _touches(book: Book, ids: set[str]) -> dict[str, str]:
    """Each account's last touch, in words."""
    rows = book["touches"]
    rows = rows[rows["account_id"].isin(ids)].sort_values(["occurred_at", "channel"], kind="stable")
    return {row["account_id"]: f"last touch on {day(row['occurred_at'])}: "
            + " ".join(word for word in (clean(row["direction"], 12), clean(row["channel"], 20)) if word)
            + (f" by {_BY.get(row['by'], clean(row['by'], 40))}" if row["by"] else "")
            for row in rows.drop_duplicates("account_id", keep="last").to_dict("records")}
