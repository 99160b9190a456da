"""Plain signals in the records, found without any model: what rule plays and the human-first rules heed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping

import pandas as pd

from churnkit.outreach.book import Book, utc
from churnkit.outreach.policy import SIGNALS as NAMES
from churnkit.outreach.policy import Policy, Signal
from churnkit.outreach.words import clean, day, listed, plural
from churnkit.schemas import SIGNALS


def find_signals(tables: Mapping[str, pd.DataFrame], policy: Policy,
                 at: str | dt.date | dt.datetime) -> pd.DataFrame:
    """Every plain signal that holds at `at`.

    Args:
        tables: The raw tables by name; one that is absent finds nothing.
        policy: Says from which value and for how long each signal counts.
        at: The moment; what happened then or later, or was not known by then, is not seen.

    Returns:
        One row per signal, with schemas.SIGNALS as its columns, sorted by account, signal and time. `occurred_at` is
        the signal's own date: the same signal has the same date however often it is looked for.
    """
    return signals_in(Book(utc(at), tables), policy)


def signals_in(book: Book, policy: Policy) -> pd.DataFrame:
    """`find_signals` on tables that were cut already."""
    found = []
    for name in NAMES:
        rule = policy.signals.get(name, Signal())
        sources, find = _RULES[name]
        if all((book.moods() if source == "moods" else book[source]).empty for source in sources):
            continue
        frame = find(book, rule)
        found.append(frame[frame["occurred_at"] < book.at].assign(signal=name))
    kept = [frame for frame in found if len(frame)]
    if not kept:
        return _none()
    signals = pd.concat([frame[list(SIGNALS)].astype({"asset_id": object}) for frame in kept])
    order = ["account_id", "signal", "occurred_at", "evidence_id"]
    return signals.sort_values(order, kind="stable", na_position="first").reset_index(drop=True)


def _none() -> pd.DataFrame:
    frame = pd.DataFrame(columns=list(SIGNALS), dtype=object)
    return frame.astype({"occurred_at": "datetime64[us, UTC]"})


def _signals(frame: pd.DataFrame, occurred: str, evidence: Callable[[pd.Series], str], key: str = "") -> pd.DataFrame:
    """The rows of a table as signals: their time, a sentence on each, and the id of what they rest on."""
    ids = frame[key] if key else None
    return pd.DataFrame({
        "account_id": frame["account_id"].astype(object),
        "asset_id": frame["asset_id"].astype(object) if "asset_id" in frame else None,
        "occurred_at": frame[occurred],
        "evidence": [evidence(row) for _, row in frame.iterrows()],
        "evidence_id": ids.astype(object) if ids is not None else None,
    }, index=frame.index)


def _recent(frame: pd.DataFrame, occurred: str, book: Book, rule: Signal) -> pd.DataFrame:
    return frame[frame[occurred] >= book.at - pd.Timedelta(days=rule.within_days)]


def _ticket(row: pd.Series) -> str:
    about = [word for word in (clean(row["channel"], 20), clean(row["category"], 30).replace("_", " ")) if word]
    return f"ticket {clean(row['ticket_id'], 30)}" + (f" ({', '.join(about)})" if about else "")


def _open_tickets(book: Book) -> pd.DataFrame:
    tickets = book["support_tickets"]
    reopened = tickets["reopened_at"].notna() & ~(tickets["resolved_at"] >= tickets["reopened_at"])
    return tickets[tickets["resolved_at"].isna() | reopened]


def _person_asked(book: Book, rule: Signal) -> pd.DataFrame:
    tickets = _open_tickets(book)
    return _signals(
        _recent(tickets, "human_requested_at", book, rule), "human_requested_at",
        lambda row: f"asked for a person on {day(row['human_requested_at'])}, {_ticket(row)}, still open", "ticket_id")


def _open_escalation(book: Book, rule: Signal) -> pd.DataFrame:
    tickets = _open_tickets(book)
    return _signals(
        _recent(tickets, "escalated_at", book, rule), "escalated_at",
        lambda row: f"{_ticket(row)} was escalated on {day(row['escalated_at'])} and is still open", "ticket_id")


def _repeat_contact(book: Book, rule: Signal) -> pd.DataFrame:
    """The moment at which a run of tickets became too many: the date stays while the run goes on."""
    tickets = book["support_tickets"].sort_values(["account_id", "opened_at", "ticket_id"], kind="stable")
    tickets = _recent(_bursts(tickets, ["account_id"], "opened_at", rule), "opened_at", book, rule)
    spans = plural(rule.span_days, "day")
    return _signals(tickets, "began", lambda row: (
        f"{rule.count} or more tickets within {spans} by {day(row['began'])}; the last one is {_ticket(row)}"
    ), "ticket_id")


def _bursts(frame: pd.DataFrame, keys: list[str], time: str, rule: Signal) -> pd.DataFrame:
    """Of a sorted frame, the last row of each account's newest burst of `count` rows within `span_days`, with `began`.

    A burst goes on while each next row completes another such count; it began with the row that completed the first.
    """
    frame = frame.assign(began=frame[time])
    same = frame.groupby(keys, sort=False)[time]
    dense = (frame[time] - same.shift(rule.count - 1)) <= pd.Timedelta(days=rule.span_days)
    dense &= frame[time].notna()
    before = dense.groupby([frame[key] for key in keys], sort=False).shift(fill_value=False)
    if rule.count == 1:  # every row is one; a burst goes on while the gaps are short
        before = (frame[time] - same.shift(1)) <= pd.Timedelta(days=rule.span_days)
    starts = dense & ~before
    frame["began"] = frame[time].where(starts)
    frame["began"] = frame.groupby(keys, sort=False)["began"].ffill()
    return frame[dense].drop_duplicates(keys, keep="last")


def _failed_self_service(book: Book, rule: Signal) -> pd.DataFrame:
    """The bot gave up, and more than once: the moment at which it had become too often."""
    tickets = book["support_tickets"].sort_values(["account_id", "handed_over_at", "ticket_id"], kind="stable")
    given_up = tickets[tickets["handed_over_at"].notna()]
    given_up = _recent(_bursts(given_up, ["account_id"], "handed_over_at", rule), "handed_over_at", book, rule)
    times = "" if rule.count == 1 else f" {rule.count} or more times within {plural(rule.span_days, 'day')}"
    return _signals(given_up, "began", lambda row: (
        f"the assistant could not help{times}, by {day(row['began'])}, last with {_ticket(row)}"), "ticket_id")


def _bad_mood(book: Book, rule: Signal) -> pd.DataFrame:
    """What was written in a very bad mood, the latest of each ticket or survey."""
    moods = book.moods()
    bad = _recent(moods[moods["polarity"] <= _at_most(rule, -0.6)], "occurred_at", book, rule)
    bad = bad.drop_duplicates(["account_id", "ticket_id"], keep="last")
    return _signals(bad, "occurred_at", lambda row: (
        f"wrote in a very bad mood ({row['polarity']:.1f} of -1 to 1) on {day(row['occurred_at'])}"
        + (f", ticket {clean(row['ticket_id'], 30)}" if isinstance(row["ticket_id"], str) else "")), "ticket_id")


def _falling_mood(book: Book, rule: Signal) -> pd.DataFrame:
    """The mean mood of the last `span_days` against that of three times as long before, `count` messages each."""
    moods, span = book.moods(), pd.Timedelta(days=rule.span_days)
    now = moods[moods["occurred_at"] >= book.at - span]
    before = moods[(moods["occurred_at"] < book.at - span) & (moods["occurred_at"] >= book.at - 4 * span)]
    late, early = (part.groupby("account_id").agg(
        mood=("polarity", "mean"), messages=("polarity", "count"), last=("occurred_at", "max"))
        for part in (now, before))
    both = late.join(early, rsuffix="_before", how="inner").reset_index()
    enough = (both["messages"] >= rule.count) & (both["messages_before"] >= rule.count)
    fell = both["mood"] - both["mood_before"] <= _at_most(rule, -0.4)
    return _signals(_recent(both[enough & fell], "last", book, rule), "last", lambda row: (
        f"their mood fell from {row['mood_before']:.1f} to {row['mood']:.1f} (-1 angry, 1 happy) within "
        f"{plural(rule.span_days, 'day')}, last on {day(row['last'])}"))


def _low_ticket_score(book: Book, rule: Signal, column: str, words: str) -> pd.DataFrame:
    tickets = book["support_tickets"]
    rated = tickets.assign(rated=tickets["rated_at"].fillna(tickets["resolved_at"]))
    rated = _recent(rated[rated[column] <= _at_most(rule, 2)], "rated", book, rule)
    return _signals(rated, "rated", lambda row: (
        words.format(score=format(row[column], "g"), ticket=_ticket(row)) + f" on {day(row['rated'])}"), "ticket_id")


def _low_survey(book: Book, rule: Signal, kind: str, words: str, limit: float) -> pd.DataFrame:
    surveys = book["surveys"]
    low = surveys[(surveys["kind"] == kind) & (surveys["score"] <= _at_most(rule, limit))]
    return _signals(_recent(low, "responded_at", book, rule), "responded_at", lambda row: (
        words.format(score=format(row["score"], "g")) + f" in a survey on {day(row['responded_at'])}"))


def _at_most(rule: Signal, default: float) -> float:
    return default if rule.at_most is None else rule.at_most


def _low_csat(book: Book, rule: Signal) -> pd.DataFrame:
    tickets = _low_ticket_score(book, rule, "csat", "rated {ticket} {score} of 5")
    return pd.concat([tickets, _low_survey(book, rule, "csat", "gave {score} of 5 for satisfaction", 2)])


def _low_effort(book: Book, rule: Signal) -> pd.DataFrame:
    words = "gave {score} of 7 for how easy it was to get help"
    tickets = _low_ticket_score(book, rule, "effort", words + " with {ticket}")
    return pd.concat([tickets, _low_survey(book, rule, "ces", words, 2)])


def _low_nps(book: Book, rule: Signal) -> pd.DataFrame:
    return _low_survey(book, rule, "nps", "gave {score} of 10 for recommending us", 6)


def _failed_payment(book: Book, rule: Signal) -> pd.DataFrame:
    invoices = book["invoices"]
    invoices = invoices.assign(due=invoices["due_at"].fillna(invoices["issued_at"]))
    overdue = invoices["due"] < book.at - pd.Timedelta(days=rule.overdue_days)
    failed = invoices["failed_attempts"].fillna(0) >= 1
    unpaid = invoices[invoices["paid_at"].isna() & (invoices["due"] < book.at) & (overdue | failed)]

    def evidence(row: pd.Series) -> str:
        attempts = 0 if pd.isna(row["failed_attempts"]) else int(row["failed_attempts"])
        tried = f" after {plural(attempts, 'failed payment')}" if attempts else ""
        return f"invoice {clean(row['invoice_id'], 30)}, due on {day(row['due'])}, is unpaid{tried}"

    return _signals(_recent(unpaid, "due", book, rule), "due", evidence, "invoice_id")


def _champion_left(book: Book, rule: Signal) -> pd.DataFrame:
    people = book["contacts"]
    gone = _recent(people[people["role"].isin(["champion", "sponsor"])], "left_at", book, rule)
    return _signals(gone, "left_at", lambda row: (
        f"{clean(row['name'], 40) or 'the contact'}, {row['role']}, left on {day(row['left_at'])}"), "contact_id")


def _notice_given(book: Book, rule: Signal) -> pd.DataFrame:
    """Notice on the last contract that was still to run on; one that ends beside or before another is no leaving."""
    running = book.active_subscriptions()
    told = running["end_recorded_at"] > running["started_at"]  # a period's end that was known from its start is none
    staying = {*running[~told]["account_id"], *book.agreed_ahead()}
    noticed = _recent(running[told & ~running["account_id"].isin(staying)], "end_recorded_at", book, rule)
    last = noticed.sort_values(["account_id", "end_recorded_at", "subscription_id"], kind="stable")

    def evidence(row: pd.Series) -> str:
        ends = f"; the contract ends on {day(row['ended_at'])}" if pd.notna(row["ended_at"]) else ""
        return f"gave notice on {day(row['end_recorded_at'])}{ends}"

    return _signals(last.drop_duplicates("account_id"), "end_recorded_at", evidence, "subscription_id")


def _error_code(book: Book, rule: Signal) -> pd.DataFrame:
    events, assets = book["asset_events"], book["assets"]
    events = events[(events["kind"] == "error") & events["code"].isin(rule.codes)]
    assets = assets[assets["retired_at"].isna()][["asset_id", "account_id", "model"]]
    events = events.merge(assets, on="asset_id", how="inner")
    events = _bursts(events.sort_values(["asset_id", "code", "occurred_at"], kind="stable"), ["asset_id", "code"],
                     "occurred_at", rule)
    events = _recent(events, "occurred_at", book, rule)

    def evidence(row: pd.Series) -> str:
        what = listed([word for word in (clean(row["model"], 30), clean(row["asset_id"], 30)) if word][-1:])
        return f"{what} reported {clean(row['code'], 30)} on {day(row['occurred_at'])}"

    return _signals(events, "began", evidence, "code")


_RULES: Mapping[str, tuple[tuple[str, ...], Callable[[Book, Signal], pd.DataFrame]]] = {
    "person_asked": (("support_tickets",), _person_asked),
    "open_escalation": (("support_tickets",), _open_escalation),
    "repeat_contact": (("support_tickets",), _repeat_contact),
    "failed_self_service": (("support_tickets",), _failed_self_service),
    "bad_mood": (("moods",), _bad_mood),
    "falling_mood": (("moods",), _falling_mood),
    "low_csat": (("support_tickets", "surveys"), _low_csat),
    "low_effort": (("support_tickets", "surveys"), _low_effort),
    "low_nps": (("surveys",), _low_nps),
    "failed_payment": (("invoices",), _failed_payment),
    "champion_left": (("contacts",), _champion_left),
    "notice_given": (("subscriptions",), _notice_given),
    "error_code": (("asset_events",), _error_code),
}
"""signal = the tables that it is found in, and how."""
