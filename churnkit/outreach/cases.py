"""What a brief needs to know of an account: people, tickets, touches, renewal, the last task and reasons."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from churnkit.outreach.book import Book
from churnkit.outreach.candidates import Candidate
from churnkit.outreach.facts import Also, Before, Case, Person, Reason, Source, Ticket, Touch
from churnkit.outreach.offer import Offer
from churnkit.outreach.task import CLOSED, Task

_LATELY = pd.Timedelta(days=90)
Rows = list[dict[Hashable, Any]]


@dataclass(frozen=True)
class File:
    """What the briefs need to know of the accounts that get a task, by account."""

    at: pd.Timestamp
    names: Mapping[str, str]
    segments: Mapping[str, str]
    languages: Mapping[str, str]
    tickets: Mapping[str, tuple[Ticket, ...]]
    touches: Mapping[str, tuple[Touch, ...]]
    renewals: Mapping[str, tuple[dt.date, bool]]
    people: Mapping[str, str]
    payers: Mapping[str, str]
    left: Mapping[str, tuple[Person, ...]]
    quiet: Mapping[str, tuple[Person, ...]]
    before: Mapping[str, Before]
    reasons: Mapping[tuple[str, str], Rows]
    offers: Mapping[tuple[str, str], Offer] = field(default_factory=dict)


def open_file(book: Book, reasons: pd.DataFrame | None, candidates: Sequence[Candidate],
              tasks: Iterable[Task] = ()) -> File:
    """Everything on these candidates' accounts, fetched at once.

    Args:
        book: The tables as they could be known.
        reasons: schemas.REASONS, or None.
        candidates: Whose accounts are looked up.
        tasks: Tasks of before, closed ones too, for the chance at which an account's last one was opened.
    """
    ids = {candidate.account_id for candidate in candidates}
    accounts = book["accounts"]
    accounts = accounts[accounts["account_id"].isin(ids)]
    people = book["contacts"]
    people = people[people["account_id"].isin(ids)]
    quiet = _quiet(book, people)
    named = people.dropna(subset=["name"])
    payers = named[(named["role"] == "billing") & named["left_at"].isna() & ~quiet[named.index]]
    return File(
        at=book.at, names=_pairs(accounts, "account_id", "name"), segments=_pairs(accounts, "account_id", "segment"),
        languages=_pairs(accounts, "account_id", "language"), tickets=_tickets(book, ids), touches=_touches(book, ids),
        renewals=_renewals(book, ids), people=_pairs(named, "contact_id", "name"),
        payers=_pairs(payers.sort_values("contact_id", ascending=False), "account_id", "name"),
        left=_persons(people[people["left_at"] >= book.at - _LATELY]),
        quiet=_persons(people[quiet & people["left_at"].isna()].assign(name=None)), before=_before(book, ids, tasks),
        reasons=_reasons(reasons, candidates), offers=_offers(book, ids))


def case_of(candidate: Candidate, file: File, contact: str | None) -> Case:
    """The case for one candidate's brief."""
    account, play = candidate.account_id, candidate.play
    rule, (_, lowers, _) = play.opened_by == "rule", reasons_of(candidate, file)
    renews, automatic = file.renewals.get(account, (None, False))
    whom = file.people.get(contact or "", "")
    if play.signal == "failed_payment":  # who pays is asked, whoever else stands up for us
        whom = file.payers.get(account, whom)
    if play.signal == "person_asked":  # the ticket says who asked, and the tables do not
        whom = ""
    selling = play.target == "expansion"
    return Case(
        account=file.names.get(account) or account, play=play, play_name=candidate.name, today=file.at.date(),
        segment=file.segments.get(account) or "", language=file.languages.get(account) or "", contact=whom,
        probability=candidate.probability if candidate.proven else None, value=candidate.value,
        currency=candidate.currency, offer=file.offers.get((account, candidate.scored_at)) if selling else None,
        cause=cause_of(candidate, file),
        why=tuple(Reason(line) for line in candidate.evidence) if rule else _raising(candidate, file),
        against=() if rule else lowers, before=file.before.get(account), tickets=file.tickets.get(account, ()),
        touches=file.touches.get(account, ()), left=file.left.get(account, ()), quiet=file.quiet.get(account, ()),
        renews=renews, auto_renew=automatic, assets=candidate.asset_ids, source=_source(candidate))


def reasons_of(candidate: Candidate, file: File) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The phrases that raise and that lower the score, and the names of the raising features."""
    raising, lowering = _told(candidate, file, "raises"), _told(candidate, file, "lowers")
    return (tuple(row["phrase"] for row in raising), tuple(row["phrase"] for row in lowering),
            tuple(str(row["feature"]) for row in raising))


def cause_of(candidate: Candidate, file: File) -> str:
    """Why it opened: a rule play's signal, or the feature group of the first raising reason; empty where not known."""
    if candidate.play.opened_by == "rule":
        return candidate.play.signal or ""
    groups = [row["group"] for row in _told(candidate, file, "raises")[:1]]
    return groups[0] if groups and isinstance(groups[0], str) else ""


def also_of(waiting: Iterable[Candidate]) -> dict[str, tuple[Also, ...]]:
    """The other matters of each account: what waits because something else of the same account goes first."""
    found: dict[str, tuple[Also, ...]] = defaultdict(tuple)
    for one in waiting:
        proof = next(iter(one.evidence), ", ".join(one.asset_ids[:3]))
        found[one.account_id] += (Also(one.play.target, one.play.says, proof),)
    return found


def languages_of(book: Book) -> dict[str, str]:
    """Each owner's languages as they stand in the table, by id and by e-mail; for `Wording.load`."""
    owners = book["owners"]
    owners = owners[owners["languages"].notna()]
    return _pairs(owners, "owner", "languages") | _pairs(owners.dropna(subset=["email"]), "email", "languages")


def _source(candidate: Candidate) -> Source:
    """Who suggests it, and how it was ranked; a candidate that does not say how was ranked by a belief."""

    def known(name: str) -> float | None:
        value = getattr(candidate, name, None)
        return None if value is None or pd.isna(value) else float(value)

    rule, rank_by = candidate.play.opened_by == "rule", getattr(candidate, "rank_by", "prior")
    ends = "uplift" if rank_by == "uplift" else "effect"
    when = candidate.episode if rule else candidate.scored_at
    return Source(by="" if rule else candidate.model_version or "", date=pd.Timestamp(when).date(), rank_by=rank_by,
                  uplift=known("uplift"), effect=known("effect"), low=known(f"{ends}_low"), high=known(f"{ends}_high"))


def _told(candidate: Candidate, file: File, direction: str) -> Rows:
    entity = candidate.entity_ids[0] if candidate.entity_ids else ""
    return [row for row in file.reasons.get((candidate.play.target, entity), [])
            if row["direction"] == direction and isinstance(row["phrase"], str)]


def _raising(candidate: Candidate, file: File) -> tuple[Reason, ...]:
    """Each raising reason with what it adds to the chance, in points, and what is new since the run before."""
    return tuple(Reason(row["phrase"], None if pd.isna(row["points"]) else float(row["points"]),
                        row["changed"] if isinstance(row["changed"], str) else "", str(row["feature"]))
                 for row in _told(candidate, file, "raises"))


def _pairs(frame: pd.DataFrame, key: str, value: str) -> dict[str, str]:
    return dict(zip(frame[key], frame[value], strict=True))


def _reasons(reasons: pd.DataFrame | None, candidates: Sequence[Candidate]) -> dict[tuple[str, str], Rows]:
    """The newest reasons of the candidates' entities, in their rank's order."""
    found: dict[tuple[str, str], Rows] = defaultdict(list)
    if reasons is None or reasons.empty:
        return found
    some = reasons[reasons["entity_id"].isin({entity for one in candidates for entity in one.entity_ids})]
    if "cutoff" in some:
        some = some[some["cutoff"] == some.groupby(["target", "entity_id"])["cutoff"].transform("max")]
    columns = ["target", "entity_id", "feature", "direction", "phrase", "points", "changed", "group"]  # some may lack
    for row in some.sort_values("rank", kind="stable").reindex(columns=columns).to_dict("records"):
        found[row["target"], row["entity_id"]].append(row)
    return found


def _offers(book: Book, ids: set[str]) -> dict[tuple[str, str], Offer]:
    """What to offer each account, by the moment it was scored at; no table of the contract: who has it gives it."""
    if "offers" not in set(book.tables):
        return {}
    rows = book.tables["offers"]
    rows = rows[rows["account_id"].isin(ids)]
    return {(row["account_id"], row["cutoff"].isoformat()): Offer.of(row) for row in rows.to_dict("records")}


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
    answers = bool(rows["first_replied_at"].notna().any())  # else nothing is known of first replies
    rows = rows[rows["account_id"].isin(ids) & (rows["opened_at"] >= book.at - _LATELY)]
    rows = rows.sort_values(["opened_at", "ticket_id"], kind="stable").groupby("account_id", sort=False).tail(4)
    moods: Mapping[str, float] = {}
    if "moods" in set(book.tables):  # no table of the contract: who has it gives it
        moods = dict(zip(book.tables["moods"]["ticket_id"], book.tables["moods"]["polarity"], strict=True))
    later, found = _ends_later(book, set(rows["ticket_id"])), defaultdict[str, tuple[Ticket, ...]](tuple)
    for row in rows.drop(columns=["subject", "body"]).to_dict("records"):
        found[row["account_id"]] += (_ticket(row, moods, answers=answers, whole=row["ticket_id"] not in later),)
    return found


def _ends_later(book: Book, ids: set[str]) -> set[str]:
    """Tickets whose record goes on after `at`: what it says without a time of its own is of that later day."""
    raw = book.tables["support_tickets"] if "support_tickets" in set(book.tables) else pd.DataFrame()
    raw = raw.reindex(columns=["ticket_id", "handed_over_at", "reopened_at", "resolved_at"])
    raw = raw[raw["ticket_id"].isin(ids)]
    handed, reopened, resolved = (pd.to_datetime(raw[name], utc=True) >= book.at for name in raw.columns[1:])
    return set(raw["ticket_id"][handed | reopened | resolved])


def _ticket(row: Mapping[Hashable, Any], moods: Mapping[str, float], *, answers: bool, whole: bool) -> Ticket:
    resolved, reopened = _when(row["resolved_at"]), _when(row["reopened_at"])
    if resolved is not None and reopened is not None and reopened >= resolved:
        resolved = None
    passed_on = row["reassigned_count"]
    return Ticket(
        str(row["ticket_id"]), row["opened_at"], row["channel"] or "", row["category"] or "", _mood(row, moods),
        row["url"] or "", resolved=resolved, escalated=_when(row["escalated_at"]), reopened=reopened,
        handed_over=_when(row["handed_over_at"]), handled_by=(row["handled_by"] or "") if whole else "",
        unanswered=answers and resolved is None and pd.isna(row["first_replied_at"]),
        passed_on=int(passed_on) if whole and pd.notna(passed_on) else 0)


def _when(value: Any) -> dt.datetime | None:
    return None if pd.isna(value) else value


def _mood(row: Mapping[Hashable, Any], moods: Mapping[str, float]) -> str:
    polarity = moods.get(row["ticket_id"])
    if polarity is not None and pd.notna(polarity):
        return "bad" if polarity <= -0.25 else "good" if polarity >= 0.25 else "neutral"
    if pd.notna(row["csat"]):
        return "bad" if row["csat"] <= 2 else "good" if row["csat"] >= 4 else "neutral"
    return ""


def _touches(book: Book, ids: set[str]) -> dict[str, tuple[Touch, ...]]:
    """Each account's last two touches of the last 90 days, or its very last one."""
    rows = book["touches"]
    rows = rows[rows["account_id"].isin(ids)].sort_values(["occurred_at", "channel"], kind="stable")
    rows = rows.groupby("account_id", sort=False).tail(2)
    last = ~rows.duplicated("account_id", keep="last")
    found: dict[str, tuple[Touch, ...]] = defaultdict(tuple)
    for row in rows[last | (rows["occurred_at"] >= book.at - _LATELY)].to_dict("records"):
        found[row["account_id"]] += (Touch(row["occurred_at"], row["channel"] or "", row["direction"] or "",
                                           row["by"] or ""),)
    return found


def _quiet(book: Book, people: pd.DataFrame) -> pd.Series[bool]:
    """Who of these people is not to be contacted."""
    suppressed = book.suppressions()["contact_id"].dropna()
    return people["do_not_contact"].fillna(value=False).astype(bool) | people["contact_id"].isin(suppressed)


def _persons(people: pd.DataFrame) -> dict[str, tuple[Person, ...]]:
    """People by account, who left last first, then by their id."""
    found: dict[str, tuple[Person, ...]] = defaultdict(tuple)
    for row in people.sort_values(["left_at", "contact_id"], ascending=[False, True], kind="stable").to_dict("records"):
        found[row["account_id"]] += (Person(row["name"] or "", row["role"] or "", _when(row["left_at"])),)
    return found


def _before(book: Book, ids: set[str], tasks: Iterable[Task]) -> dict[str, Before]:
    """Each account's last closed task, as the outcomes tell it, with the chance of the task of that key."""
    rows = book["outreach_outcomes"]
    rows = rows[rows["account_id"].isin(ids) & rows["status"].isin(CLOSED)]
    rows = rows.sort_values(["occurred_at", "key"], kind="stable").drop_duplicates("account_id", keep="last")
    scores = {task.key: task.score for task in tasks if task.account_id in ids}
    return {row["account_id"]: Before(row["occurred_at"], row["disposition"] or "", scores.get(row["key"]))
            for row in rows.to_dict("records")}
