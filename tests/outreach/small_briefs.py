"""The causes whose briefs are read: what is in the tables for each, and the case that comes of it."""

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import pandas as pd
from small_book import ago, frames, scores
from small_tasks import AT, task

from churnkit.outreach.book import Book, utc
from churnkit.outreach.brief import brief, title
from churnkit.outreach.candidates import causes_of, current_scores, from_scores, from_signals
from churnkit.outreach.cases import also_of, case_of, open_file
from churnkit.outreach.policy import Policy
from churnkit.outreach.rules import signals_in
from churnkit.outreach.wording import Wording
from churnkit.outreach.worth import Effects

BODY = "SECRET the customer wrote this"
POLICY = Policy.default()


@dataclass(frozen=True)
class Cause:
    """What is known of account A01 for one cause, and how its title begins."""

    title: str
    scores: pd.DataFrame | None = None
    reasons: pd.DataFrame | None = None
    tables: dict = field(default_factory=dict)
    tasks: tuple = ()
    codes: tuple = ()
    extra: dict = field(default_factory=dict)


def ticket(n=1, **values):
    return {"ticket_id": f"T-{n}", "account_id": "A01", "opened_at": ago(5), "known_at": ago(5), "channel": "phone",
            "category": "billing", "subject": BODY, "body": BODY, "url": f"https://desk.example/t/{n}", **values}


def tickets(*rows):
    return {"support_tickets": pd.DataFrame([ticket(n, **row) for n, row in enumerate(rows, start=1)])}


def survey(kind, score):
    return {"surveys": pd.DataFrame([{"account_id": "A01", "responded_at": ago(3), "kind": kind, "score": score,
                                      "known_at": ago(3), "text": BODY}])}


def touch(days, channel="call", direction="outbound", by="ann"):
    return {"account_id": "A01", "occurred_at": ago(days), "channel": channel, "direction": direction, "by": by,
            "known_at": ago(days)}


def touches(*rows):
    return {"touches": pd.DataFrame(list(rows))}


def contact(n, role, name, **values):
    return {"contact_id": f"C{n}", "account_id": "A01", "role": role, "name": name, "known_at": ago(400), **values}


def contacts(*rows):
    return {"contacts": pd.DataFrame([{"left_at": pd.NaT, "do_not_contact": False, **row} for row in rows])}


def about(**values):
    """The accounts, with some values of A01 changed."""
    accounts = frames()["accounts"].assign(language="en", name="Harbour Foods")
    return {"accounts": accounts.assign(**values)}


def contract(**values):
    return {"subscriptions": pd.DataFrame([{
        "account_id": "A01", "subscription_id": "S1", "started_at": ago(300), "mrr": 1000.0, "currency": "EUR",
        "known_at": ago(300), **values}])}


def reasons(entity, target, *rows):
    """REASONS: (feature, group, phrase, points, changed); negative points lower the score."""
    return pd.DataFrame([
        {"entity_id": entity, "cutoff": pd.Timestamp(AT), "target": target, "rank": n, "feature": feature,
         "group": group, "direction": "raises" if points > 0 else "lowers", "phrase": phrase, "points": points,
         "changed": changed} for n, (feature, group, phrase, points, changed) in enumerate(rows, start=1)])


def churn(probability, *rows):
    return {"scores": scores({"A01": probability}), "reasons": reasons("A01", "churn", *rows)}


def growth(probability, *rows):
    return {"scores": scores({"A01": probability}, "expansion", 2400.0), "reasons": reasons("A01", "expansion", *rows)}


def failure(*rows, **probabilities):
    found = scores({f"A01/{asset}": p for asset, p in probabilities.items()}, "maintenance", 5200.0)
    worst = max(probabilities, key=probabilities.get)
    return {"scores": found, "reasons": reasons(f"A01/{worst}", "maintenance", *rows)}


def machines(*names):
    return {"assets": pd.DataFrame([{"asset_id": f"A01/{name}", "account_id": "A01", "model": "PX-3", "installed_at":
                                     ago(400), "known_at": ago(400)} for name in names])}


KIM, EVE = contact(2, "user", "Kim Oh"), contact(1, "champion", "Eve Ng")
TENURE = ("tenure_days", "contract", "customer for 2 years", -3.0, "")
FELL = ("events_28d", "usage", "9 actions in the last 28 days, 31 in the 28 days before", 12.3, "was 31 on 4 October")
IDLE = ("seats_active_share_28d", "usage", "30% of the seats active in the last 28 days", 5.2, "")
CAUSES = {
    "use_fell": Cause(
        "Call Harbour Foods: may be about to leave; 9 actions in the last 28 days, 31 in the 28 days before; renewal",
        **churn(0.34, FELL, IDLE, TENURE),
        tables=about(language="fr") | contacts(EVE, KIM) | touches(touch(9), touch(40, "email", "inbound", "human"))),
    "seats_idle": Cause(
        "Call Harbour Foods: may be about to leave; 30% of the seats active",
        **churn(0.28, IDLE, (
            "active_users_28d", "usage", "6 active users in the last 28 days, 11 in the 28 days before", 3.1,
            "new since 4 October"), TENURE), tables=about() | contacts(EVE)),
    "price_rise": Cause(
        "Call Harbour Foods: may be about to leave; the price per seat is up 18%",
        **churn(0.41, (
            "price_change_84d", "billing", "the price per seat is up 18% compared with twelve weeks ago", 9.6,
            "new since 4 October"),
                ("days_to_renewal", "contract", "renews in 41 days", 4.0, ""), TENURE),
        tables=about() | contacts(contact(3, "sponsor", "Lou Fisk"))),
    "slow_support": Cause(
        "Call Harbour Foods: may be about to leave; half of the first replies",
        **churn(0.31, ("first_reply_hours_median_28d", "support",
                       "half of the first replies of the last 28 days took 31 hours or longer", 8.2,
                       "was 6 hours on 4 October"),
                ("tickets_open", "support", "2 tickets open now", 2.7, ""), TENURE),
        tables=about() | contacts(KIM) | tickets(
            {"category": "export", "channel": "email", "opened_at": ago(6)},
            {"category": "login", "channel": "email", "opened_at": ago(21), "first_replied_at": ago(19),
             "handled_by": "human", "reassigned_count": 2})),
    "mood_falling": Cause(
        "Call Harbour Foods: may be about to leave; the mood of messages",
        **churn(0.37, ("mood_mean_28d", "support",
                       "the mood of messages in the last 28 days averages -0.42 (-1 angry, 1 happy)", 7.7,
                       "was 0.1 on 4 October"),
                ("cue_unsolved_28d", "support",
                 "customers said that a matter was still unsolved in 3 messages in the last 28 days", 4.4, ""), TENURE),
        tables=about() | contacts(KIM) | {"moods": pd.DataFrame({"ticket_id": ["T-1"], "polarity": [-0.7]})} | tickets(
            {"category": "reports", "channel": "email", "opened_at": ago(12), "handled_by": "human",
             "reopened_at": ago(4), "first_replied_at": ago(11)})),
    "bug_burst": Cause(
        "Call Harbour Foods: may be about to leave; 4 tickets opened in the last 28 days",
        **churn(0.33, ("tickets_opened_28d", "support", "4 tickets opened in the last 28 days, 1 in the 28 days before",
                       13.0, "was 1 on 4 October"), IDLE, TENURE),
        tables=about() | contacts(KIM) | tickets(*(
            {"category": "bug", "channel": "email", "opened_at": ago(days), "handled_by": "human",
             "first_replied_at": ago(days - 1), "resolved_at": ago(days - 2) if days > 9 else pd.NaT}
            for days in (26, 18, 10, 8)))),
    "not_adopted": Cause(
        "Call Harbour Foods: may be about to leave; no features tried for the first time",
        **churn(0.45, ("new_features_84d", "usage", "no features tried for the first time in the last 84 days", 10.4,
                        ""),
                ("distinct_features_28d", "usage", "1 feature used in the last 28 days, 1 in the 28 days before", 6.1,
                 ""),
                ("days_since_touch", "relationship", "never spoke with a person", 3.3, "")),
        tables=about() | contacts(KIM)),
    "renewal_near": Cause(
        "Call Harbour Foods: may be about to leave; renews in 19 days",
        **churn(0.26, ("days_to_renewal", "contract", "renews in 19 days", 6.8, ""),
                ("days_since_touch", "relationship", "last spoke with a person 95 days ago", 3.9, ""), TENURE),
        tables=about() | contacts(contact(3, "sponsor", "Lou Fisk")) | touches(touch(95, "meeting"))
        | contract(renews_at=ago(-19), auto_renew=False)),
    "very_high_value": Cause(
        "Call Harbour Foods: may be about to leave; use in the last 28 days is down 44%",
        scores=scores({"A01": 0.22}, value=1_234_567.0),
        reasons=reasons("A01", "churn", ("events_vs_usual_28d", "usage",
                                         "use in the last 28 days is down 44% compared with its usual level", 6.0, ""),
                        ("champions", "relationship", "2 champions among the contacts", -1.0, "")),
        tables=about(segment="enterprise") | contacts(EVE),
        extra={"rank_by": "uplift", "uplift": 0.061, "uplift_low": 0.02, "uplift_high": 0.102}),
    "reopened": Cause(
        "Call Harbour Foods: may be about to leave; last used 16 days ago",
        **churn(0.54, ("days_since_last_event", "usage", "last used 16 days ago", 14.2, "was 2 days on 4 October"),
                FELL, TENURE),
        tables=about() | contacts(KIM) | {"outreach_outcomes": pd.DataFrame([{
            "key": task().key, "account_id": "A01", "play": "save_call", "occurred_at": ago(60), "status": "completed",
            "disposition": "no_change", "note": BODY, "known_at": ago(60)}])},
        tasks=(task(account_id="A01", score=0.31, status="completed"),),
        extra={"rank_by": "effect", "effect": 0.12, "effect_low": 0.04, "effect_high": 0.2}),
    "relationship": Cause(
        "Call Harbour Foods: may be about to leave; last spoke with a person 140 days ago",
        **churn(0.24, ("days_since_touch", "relationship", "last spoke with a person 140 days ago", 4.6, ""),
                ("owner_changes_84d", "relationship",
                 "the account went to another account manager once in the last 84 days", 2.2, "new since 4 October"),
                TENURE), tables=about() | contacts({**EVE, "do_not_contact": True}, KIM)
        | touches(touch(140, "meeting", "outbound", "bob"))),
    "more_seats": Cause(
        "Meet Harbour Foods: may be ready for more; 95% of the seats active",
        **growth(0.44, ("seats_active_share_28d", "usage", "95% of the seats active in the last 28 days", 11.0, ""),
                 ("active_users_28d", "usage", "38 active users in the last 28 days, 29 in the 28 days before", 5.0,
                  "")),
        tables=about() | contacts(EVE) | {"offers": pd.DataFrame([{
            "entity_id": "A01", "account_id": "A01", "cutoff": pd.Timestamp(AT), "target": "expansion",
            "gain_monthly": 340.0, "currency": "EUR", "gain_skill": True, "seats": 0.62, "plan": 0.2, "addon": 0.18,
            "other": 0.0, "kind_skill": True}])}),
    "higher_plan": Cause(
        "Meet Harbour Foods: may be ready for more; on the plan 'team'",
        **growth(0.29, ("plan", "contract", "on the plan 'team'", 4.0, ""),
                 ("distinct_features_28d", "usage", "12 features used in the last 28 days, 8 in the 28 days before",
                  3.0, "was 8 on 4 October")),
        tables=about() | contacts(EVE) | tickets({"category": "limits", "channel": "chat", "opened_at": ago(30),
                                                  "handled_by": "bot", "first_replied_at": ago(30), "csat": 5.0,
                                                  "resolved_at": ago(30) + pd.Timedelta(hours=1)})),
    "add_on": Cause(
        "Meet Harbour Foods: may be ready for more; 'api call' 410 times",
        **growth(0.36, ("event_api_call_28d", "usage",
                        "'api call' 410 times in the last 28 days, 120 times in the 28 days before", 7.0, "")),
        tables=about() | contacts(EVE)
        | tickets({"category": "api", "channel": "email", "opened_at": ago(2)})),
    "worn_part": Cause(
        "Visit Harbour Foods: has equipment that may fail; 'pump' last serviced 212 days ago",
        **failure(("days_since_maintenance_pump", "asset", "'pump' last serviced 212 days ago", 31.0, ""),
                  ("vibration_mean_7d", "asset",
                   "'vibration' averages 42.1 in the last 7 days, 30.2 in the 7 days before", 12.0,
                   "was 31 on 25 October"),
                  **{"press-7": 0.62}),
        tables=about() | contacts(KIM) | machines("press-7")),
    "several_machines": Cause(
        "Visit Harbour Foods: has equipment that may fail; 'temp' went up to 91",
        **failure(("temp_max_7d", "asset", "'temp' went up to 91 in the last 7 days", 22.0, ""),
                  **{"oven-1": 0.41, "oven-2": 0.66, "oven-3": 0.38, "oven-4": 0.52, "oven-5": 0.35}),
        tables=about() | contacts(KIM) | machines("oven-1", "oven-2", "oven-3", "oven-4", "oven-5")),
    "both": Cause(
        "Call Harbour Foods: may be about to leave; 9 actions",
        scores=pd.concat([scores({"A01": 0.34}), scores({"A01/press-7": 0.62}, "maintenance", 5200.0),
                          scores({"A01": 0.4}, "expansion", 2400.0)]),
        reasons=pd.concat([reasons("A01", "churn", FELL, IDLE, TENURE)]),
        tables=about() | contacts(EVE) | machines("press-7")),
    "error_code": Cause(
        "Review Harbour Foods: A01/press-7 reported E42 on 30 October 2026",
        tables=about() | contacts(KIM) | machines("press-7") | {"asset_events": pd.DataFrame([
            {"asset_id": "A01/press-7", "occurred_at": ago(2), "kind": "error", "code": "E42", "known_at": ago(2)}])},
        codes=("E42",)),
    "asked_for_a_person": Cause(
        "Call Harbour Foods: asked for a person on 30 October 2026, ticket T-1 (chat, login), still open",
        tables=about() | contacts(KIM) | tickets({"category": "login", "channel": "chat", "opened_at": ago(3),
                                                  "human_requested_at": ago(2), "handled_by": "bot",
                                                  "first_replied_at": ago(3)})),
    "escalation": Cause(
        "Call Harbour Foods: ticket T-1 (phone, billing) was escalated on 30 October 2026",
        tables=about() | contacts(KIM) | tickets({"escalated_at": ago(2), "handed_over_at": ago(4),
                                                  "handled_by": "human", "first_replied_at": ago(5),
                                                  "reassigned_count": 3})),
    "repeat_contact": Cause(
        "Call Harbour Foods: 3 or more tickets within 7 days by 27 October 2026",
        tables=about() | contacts(KIM) | tickets(*(
            {"opened_at": ago(days), "first_replied_at": ago(days - 1), "handled_by": "human"} for days in (8, 7, 5)))),
    "low_csat": Cause(
        "Call Harbour Foods: rated ticket T-1 (phone, billing) 1 of 5 on 31 October 2026",
        tables=about() | contacts(KIM) | tickets({"csat": 1.0, "resolved_at": ago(1), "handled_by": "human",
                                                  "first_replied_at": ago(4)})),
    "low_effort": Cause("Call Harbour Foods: gave 1 of 7 for how easy",
                        tables=about() | contacts(KIM) | survey("ces", 1.0)),
    "low_nps": Cause("Call Harbour Foods: gave 3 of 10 for recommending us",
                     tables=about() | contacts(EVE) | survey("nps", 3.0) | touches(touch(20, "email"))),
    "failed_payment": Cause(
        "Write to Harbour Foods: invoice I-9, due on 29 October 2026, is unpaid after 1 failed payment",
        tables=about() | contacts(EVE, contact(4, "billing", "Ada Bell")) | {"invoices": pd.DataFrame([{
            "invoice_id": "I-9", "account_id": "A01", "issued_at": ago(30), "due_at": ago(3), "failed_attempts": 1,
            "known_at": ago(30)}])}),
    "champion_left": Cause(
        "Call Harbour Foods: Eve Ng, champion, left on 29 October 2026",
        tables=about() | contacts({**EVE, "left_at": ago(3)}, KIM)),
    "notice_given": Cause(
        "Call Harbour Foods: gave notice on 30 October 2026; the contract ends on 1 December 2026",
        tables=about() | contacts(EVE) | contract(end_recorded_at=ago(2), ended_at=ago(-30))),
}


def policy(cause):
    """Without a control group, and with the error codes that the cause watches."""
    data = POLICY.model_dump()
    data["control"] = {"share": 0.0}
    data["signals"]["error_code"]["codes"] = list(cause.codes)
    return Policy(**data)


@cache
def case(name):
    """The case of a cause, made as the plan makes it."""
    cause = CAUSES[name]
    book, rules = Book(utc(AT), frames(**cause.tables)), policy(cause)
    current = current_scores(cause.scores, book.at)
    found = from_scores(current, causes_of(cause.reasons), book, rules, Effects())[0]
    found += from_signals(signals_in(book, rules), current, book, rules, Effects(), answered=set())
    first, *others = sorted((one for one in found if one.account_id == "A01"), key=lambda one: one.rank_at_home)
    file = open_file(book, cause.reasons, [first], cause.tasks)
    urgent = first.play.signal in rules.human_first.signals
    days = min(first.play.due_days, rules.human_first.due_days) if urgent else first.play.due_days
    made = case_of(first, file, book.contacts()[0].get("A01"))
    source = replace(made.source, **{key.removeprefix("uplift_").removeprefix("effect_"): value
                                     for key, value in cause.extra.items()}) if cause.extra else made.source
    return replace(made, act="call" if urgent else first.play.type, due=(utc(AT) + pd.Timedelta(days=days)).date(),
                   also=also_of(others)["A01"] if others else (), source=source)


SHOWN = Path(__file__).parent / "briefs"
GERMAN = ("use_fell", "mood_falling", "both", "escalation", "notice_given")
HTML = ("use_fell", "slow_support", "more_seats", "worn_part", "champion_left")


@cache
def shown():
    """Every brief that is kept as a file to be read, by the file's name; a title stands above each."""
    german = Wording.load(None, "de")
    cases = {name: case(name) for name in CAUSES}
    found = {f"{name}.md": f"{title(one)}\n\n{brief(one)}\n" for name, one in cases.items()}
    found |= {f"{name}.de.md": f"{title(cases[name], german)}\n\n{brief(cases[name], wording=german)}\n"
              for name in GERMAN}
    return found | {f"{name}.html": brief(cases[name], format="html") + "\n" for name in HTML}


if __name__ == "__main__":  # writes them anew; whoever does so reads each of them
    SHOWN.mkdir(exist_ok=True)
    for name, text in shown().items():
        (SHOWN / name).write_text(text, encoding="utf-8")
