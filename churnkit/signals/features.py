"""THE definitions: every feature once, with window, unit and words; columns, Feast fields and phrases follow."""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType
from typing import Any

from churnkit.errors import FeatureError, did_you_mean
from churnkit.signals import words
from churnkit.signals.catalog import Catalog, discover, slugs
from churnkit.signals.groups import (
    Feature,
    FeatureGroup,
    change,
    count,
    days_since,
    difference,
    distinct,
    flag,
    highest,
    last,
    lowest,
    mean,
    median,
    open_at,
    ratio,
    slope,
    spread,
    total,
)
from churnkit.signals.own import parsed, refuse_clashes

__all__ = ["Catalog", "Feature", "FeatureGroup", "discover", "feature", "groups", "phrase"]

WINDOWS = (7, 28, 84)


@lru_cache(maxsize=16)
def groups(catalog: Catalog) -> MappingProxyType[str, FeatureGroup]:
    """Every feature group of a workspace, by name: usage, support, survey, billing, contract, relationship,
    account_assets and asset, and then the workspace's own.

    Raises:
        SettingsError: If an own group or feature has the name of one of ours.
    """
    made = (_usage(catalog), SUPPORT, SURVEY, BILLING, _contract(catalog), RELATIONSHIP, _account_assets(catalog),
            _asset(catalog))
    ours, own = {group.name: group for group in made}, parsed(catalog.own)
    refuse_clashes(ours, own)
    return MappingProxyType({**ours, **own.groups})


def feature(name: str, catalog: Catalog) -> Feature:
    """The definition of one feature.

    Raises:
        FeatureError: If there is none of that name; names the nearest.

    >>> feature("events_28d", Catalog()).window_days
    28
    """
    known = {item.name: item for group in groups(catalog).values() for item in group.features}
    if name not in known:
        raise FeatureError(f"There is no feature '{name}'.{did_you_mean(name, known)} The definitions stand in "
                           "churnkit/signals/features.py; what differs by workspace in features/catalog.json.")
    return known[name]


def planned(catalog: Catalog) -> tuple[str, ...]:
    """The features that count the days to something planned, such as a renewal.

    >>> planned(Catalog())
    ('days_to_renewal',)
    """
    return tuple(one.name for group in groups(catalog).values() for one in group.features if one.op == "renewal")


def phrase(name: str, value: Any, compared: Any, catalog: Catalog) -> str:
    """A feature's value in plain words, with the value that it is compared with, if there is one.

    >>> phrase("events_28d", 9, 31, Catalog())
    '9 actions in the last 28 days, 31 in the 28 days before'
    >>> phrase("csat_last", float("nan"), None, Catalog())
    'no rating yet'
    """
    return words.sentence(feature(name, catalog), value, compared, catalog.currency)


def _usage(catalog: Catalog) -> FeatureGroup:
    top = slugs(catalog.events)
    return FeatureGroup("usage", "account", says="what people do in the product", aggregations=(
        total("events", "usage", "n", WINDOWS, compared=(7, 28), mutable=True, noun="action|actions",
              says="{value} in the last {window} days"),
        distinct("active_days", "usage", "day", WINDOWS, compared=(28,), mutable=True, noun="day|days",
                 says="used on {value} in the last {window} days", against="on {compared} in the {window} days before"),
        distinct("active_users", "usage", "user", WINDOWS, compared=(28,), mutable=True,
                 noun="active user|active users",
                 says="{value} in the last {window} days", missing="users are not named in the records of use"),
        highest("peak_users", "usage", "users", (28,), mutable=True, unit="count", noun="user|users",
                says="at most {value} in any one period of the last {window} days",
                missing="users are not counted in the records of use"),
        distinct("distinct_features", "usage", "event", WINDOWS, compared=(28,), mutable=True, noun="feature|features",
                 says="{value} used in the last {window} days"),
        total("minutes", "usage", "minutes", WINDOWS, compared=(28,), mutable=True, unit="minutes",
              says="{value} of use in the last {window} days", missing="no durations in the records of use"),
        days_since("days_since_last_event", "usage", mutable=True, says="last used {value} ago",
                   missing="never used yet"),
        Feature("events_usual_28d", "usual", stream="usage", of="n", window_days=28, unit="number", mutable=True,
                noun="action|actions", says="usually {value} in 28 days",
                missing="too young to have a usual level of use"),
        change("events_change_28d", "events_28d", "events_28d_before", mutable=True, window_days=28,
               says="use is {value} compared with the 28 days before",
               missing="no use in the 28 days before to compare with"),
        change("events_vs_usual_28d", "events_28d", "events_usual_28d", mutable=True, window_days=28,
               says="use in the last 28 days is {value} compared with its usual level",
               missing="no usual level of use to compare with"),
        change("active_users_change_28d", "active_users_28d", "active_users_28d_before", mutable=True, window_days=28,
               says="the number of active users is {value} compared with the 28 days before",
               missing="no active users in the 28 days before to compare with"),
        open_at("_seats", "subscriptions", "total", of="seats"),
        Feature("_users_28d", "greatest", parts=("active_users_28d", "peak_users_28d")),
        ratio("seats_active_share_28d", "_users_28d", "_seats", mutable=True, window_days=28,
              says="{value} of the seats active in the last 28 days", missing="seats in use not known"),
        count("new_features", "firsts", (28, 84), mutable=True, noun="feature|features",
              says="{value} tried for the first time in the last {window} days"),
        *(count(f"event_{slug}", "usage", (28,), compared=(28,), where=(("event", event),), mutable=True,
                noun="time|times", says=f"'{_plain(event)}' {{value}} in the last {{window}} days",
                nothing=f"no '{_plain(event)}' in the last {{window}} days")
          for event, slug in top.items()),
    ))


_CUES = {
    "repeat": "said that a matter had come up before", "shouting": "raised their voice",
    "unsolved": "said that a matter was still unsolved", "person": "asked for a person",
    "cancel": "spoke of leaving", "competitor": "named other suppliers",
    "escalation": "spoke of refunds, lawyers or complaints higher up",
}
"""What customers did in messages with a cue."""

SUPPORT = FeatureGroup("support", "account", says="what people asked for help with, and how it went", aggregations=(
    count("tickets_opened", "tickets", WINDOWS, compared=(28,), mutable=True, noun="ticket|tickets",
          says="{value} opened in the last {window} days"),
    open_at("tickets_open", "tickets", mutable=True, noun="ticket|tickets", says="{value} open now"),
    open_at("oldest_ticket_days", "tickets", "age", mutable=True, unit="days",
            says="the oldest open ticket waits for {value}",
            missing="no open ticket"),
    count("tickets_escalated", "tickets", (28, 84), at="escalated", mutable=True, noun="ticket|tickets",
          says="{value} escalated in the last {window} days"),
    count("human_requested", "tickets", (28, 84), at="human", mutable=True, noun="time|times",
          says="asked for a person {value} in the last {window} days",
          nothing="never asked for a person in the last {window} days"),
    count("tickets_reopened", "tickets", (28, 84), at="reopened", mutable=True, noun="ticket|tickets",
          says="{value} reopened in the last {window} days"),
    total("_reassigned", "tickets", "reassigned", (84,), at="resolved"),
    count("_reassignments", "reassignments", (84,)),
    Feature("tickets_reassigned_84d", "greatest", parts=("_reassigned_84d", "_reassignments_84d"), window_days=84,
            unit="count", noun="time|times", mutable=True, says="tickets passed on {value} in the last {window} days",
            nothing="no ticket passed on in the last {window} days"),
    median("first_reply_hours_median", "tickets", "reply_hours", (28, 84), at="replied", mutable=True, unit="hours",
           says="half of the first replies of the last {window} days took {value} or longer",
           missing="no first reply in the last {window} days"),
    highest("first_reply_hours_worst", "tickets", "reply_hours", (84,), at="replied", mutable=True, unit="hours",
            says="the slowest first reply of the last {window} days took {value}",
            missing="no first reply in the last {window} days"),
    median("resolution_hours_median", "tickets", "solve_hours", (84,), at="resolved", mutable=True, unit="hours",
           says="half of the tickets solved in the last {window} days took {value} or longer",
           missing="no ticket solved in the last {window} days"),
    highest("resolution_hours_worst", "tickets", "solve_hours", (84,), at="resolved", mutable=True, unit="hours",
            says="the slowest ticket solved in the last {window} days took {value}",
            missing="no ticket solved in the last {window} days"),
    mean("first_contact_share", "tickets", "first_contact", (84,), at="resolved", mutable=True, unit="share",
         says="{value} of the tickets solved in the last {window} days were solved at the first contact",
         missing="no ticket solved in the last {window} days"),
    count("bot_handovers", "tickets", (28, 84), at="handed", mutable=True, noun="time|times",
          says="the bot handed over to a person {value} in the last {window} days",
          nothing="the bot handed nothing over in the last {window} days"),
    distinct("repeat_contacts", "repeats", "ticket", (28, 84), mutable=True, noun="ticket|tickets",
             says="{value} within a week of another one, in the last {window} days"),
    last("csat_last", "tickets", "csat", at="rated", mutable=True, unit="score",
         says="the last rating of support was {value} of 5", missing="no rating yet"),
    mean("csat_mean", "tickets", "csat", (84,), at="rated", mutable=True, unit="score",
         says="support was rated {value} of 5 on average in the last {window} days",
         missing="no rating in the last {window} days"),
    count("csat_low", "tickets", (84,), at="rated", where=(("low_csat", "yes"),), mutable=True,
          noun="low rating|low ratings", says="{value} of support in the last {window} days"),
    last("effort_last", "tickets", "effort", at="rated", mutable=True, unit="score",
         says="getting help was last rated {value} of 7 (1 very hard, 7 very easy)",
         missing="no rating yet of how easy it was to get help"),
    mean("effort_mean", "tickets", "effort", (84,), at="rated", mutable=True, unit="score",
         says="getting help was rated {value} of 7 on average in the last {window} days (1 very hard, 7 very easy)",
         missing="no rating in the last {window} days of how easy it was to get help"),
    count("effort_low", "tickets", (84,), at="rated", where=(("low_effort", "yes"),), mutable=True,
          noun="time|times", says="getting help was rated as hard {value} in the last {window} days",
          nothing="getting help was never rated as hard in the last {window} days"),
    mean("mood_mean", "moods", "mood", (28, 84), mutable=True, unit="score",
         says="the mood of messages in the last {window} days averages {value} (-1 angry, 1 happy)",
         missing="no messages in the last {window} days to read a mood from"),
    lowest("mood_worst", "moods", "mood", (28, 84), mutable=True, unit="score",
           says="the worst message of the last {window} days has a mood of {value} (-1 angry, 1 happy)",
           missing="no messages in the last {window} days to read a mood from"),
    slope("mood_trend", "moods", "mood", (84,), mutable=True, unit="score",
          says="over the last {window} days the mood of messages moves by {value} a day",
          missing="too few messages in the last {window} days for a trend of their mood"),
    *(count(f"cue_{cue}", "moods", (28, 84), where=((cue, "yes"),), mutable=True, noun="message|messages",
            says=f"customers {says} in {{value}} in the last {{window}} days",
            nothing=f"customers never {says} in the last {{window}} days") for cue, says in _CUES.items()),
    count("messages", "moods", (28, 84), mutable=True, noun="message|messages",
          says="customers wrote {value} in the last {window} days",
          nothing="customers wrote nothing in the last {window} days"),
    count("_cued", "moods", (28, 84), where=(("any_cue", "yes"),)),
    *(ratio(f"cue_share_{window}d", f"_cued_{window}d", f"messages_{window}d", mutable=True, window_days=window,
            says="{value} of what customers wrote in the last {window} days sounds frustrated",
            missing="nothing written by customers in the last {window} days") for window in (28, 84)),
))

SURVEY = FeatureGroup("survey", "account", says="what people answered when asked", aggregations=(
    last("nps_last", "surveys", "score", where=(("kind", "nps"),), mutable=True, unit="score", compare="nps_before",
         against="{compared} the time before", says="the last recommendation score (NPS) was {value} of 10",
         missing="no recommendation score yet"),
    Feature("nps_before", "previous", stream="surveys", of="score", where=(("kind", "nps"),), unit="score",
            says="the recommendation score before the last was {value} of 10",
            missing="no earlier recommendation score"),
    difference("nps_change", "nps_last", "nps_before", mutable=True, unit="number",
               says="the recommendation score is {value} than the time before",
               nothing="the recommendation score is the same as the time before",
               missing="no two recommendation scores to compare"),
    Feature("nps_detractor", "at_most", parts=("nps_last",), of="6", unit="flag", mutable=True,
            says="the last recommendation score was 6 or less",
            nothing="the last recommendation score was above 6", missing="no recommendation score yet"),
    days_since("days_since_survey", "surveys", says="last answered a survey {value} ago",
               missing="never answered a survey"),
    last("survey_csat_last", "surveys", "score", where=(("kind", "csat"),), mutable=True, unit="score",
         says="the last satisfaction survey gave {value} of 5", missing="no satisfaction survey yet"),
    last("survey_ces_last", "surveys", "score", where=(("kind", "ces"),), mutable=True, unit="score",
         says="a survey last rated getting help {value} of 7 (1 very hard, 7 very easy)",
         missing="no survey yet of how easy it is to get help"),
))

BILLING = FeatureGroup("billing", "account", says="what was paid, and what was not", aggregations=(
    open_at("overdue_amount", "invoices", "total", of="amount", at="due", mutable=True, unit="money",
            says="{value} overdue", nothing="nothing overdue"),
    open_at("overdue_days", "invoices", "age", at="due", mutable=True, unit="days",
            says="the oldest unpaid invoice is {value} overdue", missing="no invoice known to be overdue"),
    total("_failed", "invoices", "failed", (84,), at="until"),
    count("_failures", "failed_payments", (84,)),
    Feature("failed_payments_84d", "greatest", parts=("_failed_84d", "_failures_84d"), window_days=84, unit="count",
            noun="failed payment|failed payments", mutable=True, says="{value} in the last {window} days"),
    open_at("_mrr", "subscriptions", "total", of="mrr", where=(("main", "yes"),)),  # an add-on bought is no price rise
    open_at("_seats", "subscriptions", "total", of="seats"),
    open_at("_mrr_then", "subscriptions", "total", of="mrr", before=84, where=(("main", "yes"),)),
    open_at("_seats_then", "subscriptions", "total", of="seats", before=84),
    ratio("_price", "_mrr", "_seats"),
    ratio("_price_then", "_mrr_then", "_seats_then"),
    change("price_change_84d", "_price", "_price_then", mutable=True, window_days=84,
           says="the price per seat is {value} compared with twelve weeks ago",
           missing="no price of twelve weeks ago to compare with"),
))


def _contract(catalog: Catalog) -> FeatureGroup:
    return FeatureGroup("contract", "account", says="what was agreed", aggregations=(
        Feature("tenure_days", "oldest", stream="accounts", unit="days", says="customer for {value}",
                missing="start not known"),
        Feature("segment", "last", stream="accounts", of="segment", kind="category", unit="word",
                says="in the segment '{value}'", missing="segment not known"),
        open_at("days_to_renewal", "subscriptions", "renewal", of="renews", where=(("main", "yes"),), unit="days",
                says="renews in {value}", nothing="renews today", missing="no renewal date known"),
        open_at("billing_months", "subscriptions", "highest", of="billing", where=(("main", "yes"),),
                noun="month|months", says="billed for {value} at a time", missing="not known how often it is billed"),
        Feature("renewing_months_105d", "due", parts=("billing_months", "days_to_renewal"), window_days=105,
                unit="count", noun="month|months",
                says="{value} of contract to be renewed in the next {window} days",
                nothing="nothing comes up for renewal in the next {window} days", missing="no renewal date known"),
        open_at("plan", "subscriptions", "last", of="plan", kind="category", unit="word", mutable=True,
                says="on the plan '{value}'", missing="no plan known"),
        Feature("plan_rank", "rank", parts=("plan",), of="|".join(catalog.plans), unit="number", mutable=True,
                says="on plan number {value}, counted from the smallest",
                missing="no place of the plan among the others known"),
        open_at("seats", "subscriptions", "total", of="seats", mutable=True, noun="seat|seats", says="{value}",
                compare="seats_84d_before", against="{compared} twelve weeks ago"),
        open_at("seats_84d_before", "subscriptions", "total", of="seats", before=84, noun="seat|seats",
                says="{value} twelve weeks ago"),
        open_at("mrr", "subscriptions", "total", of="mrr", mutable=True, unit="money", says="pays {value} a month",
                compare="mrr_84d_before", against="{compared} twelve weeks ago"),
        open_at("mrr_84d_before", "subscriptions", "total", of="mrr", before=84, unit="money",
                says="paid {value} a month twelve weeks ago"),
        difference("mrr_change_84d", "mrr", "mrr_84d_before", mutable=True, unit="money", window_days=84,
                   says="pays {value} a month than twelve weeks ago",
                   nothing="pays the same as twelve weeks ago"),
        difference("seats_change_84d", "seats", "seats_84d_before", mutable=True, unit="number", window_days=84,
                   noun="seat|seats",
                   says="{value} than twelve weeks ago", nothing="as many seats as twelve weeks ago"),
        open_at("auto_renew", "subscriptions", "highest", of="auto_renew", mutable=True, unit="flag",
                says="renews by itself", nothing="does not renew by itself",
                missing="not known whether it renews by itself"),
        open_at("renewal_talks_open", "renewals", where=(("kind", "renewal"),), mutable=True,
                noun="renewal talk|renewal talks", says="{value} open"),
        Feature("notice_given", "notice", stream="subscriptions", unit="flag", says="notice has been given",
                nothing="no notice given"),
    ))


RELATIONSHIP = FeatureGroup("relationship", "account", says="who speaks with whom", aggregations=(
    count("touches", "touches", WINDOWS, compared=(28,), mutable=True, noun="conversation|conversations",
          says="{value} with a person in the last {window} days"),
    days_since("days_since_touch", "touches", mutable=True, says="last spoke with a person {value} ago",
               missing="never spoke with a person"),
    flag("champion_left", "contacts", (84,), at="left", where=(("role", "champion"),), mutable=True,
         says="a champion left in the last {window} days", nothing="no champion left in the last {window} days"),
    open_at("champions", "contacts", where=(("role", "champion"),), mutable=True, noun="champion|champions",
            says="{value} among the contacts"),
    count("owner_changes", "handovers", (84,), noun="time|times",
          says="the account went to another account manager {value} in the last {window} days",
          nothing="with the same account manager for the last {window} days",
          missing="not known whether the account manager changed"),
    distinct("tasks_completed", "outcomes", "task", (84,), where=(("status", "completed"),), mutable=True,
             noun="task|tasks", says="{value} of ours completed in the last {window} days"),
    distinct("tasks_dismissed", "outcomes", "task", (84,), where=(("status", "dismissed"),), mutable=True,
             noun="task|tasks", says="{value} of ours dismissed in the last {window} days"),
))

_RESERVED = ("error", "failure", "maintenance", "days_since", "age", "asset", "model", "worst")


def _asset(catalog: Catalog) -> FeatureGroup:
    return FeatureGroup("asset", "asset", says="how a piece of equipment fares", aggregations=(
        Feature("age_days", "oldest", stream="assets", unit="days", says="in service for {value}"),
        open_at("model", "assets", "last", of="model", kind="category", unit="word", says="of the model '{value}'",
                missing="model not known"),
        *_events(catalog),
        *(_sensor(sensor, slug) for sensor, slug in slugs(catalog.sensors, _RESERVED).items()),
    ))


def _events(catalog: Catalog) -> tuple[Feature | tuple[Feature, ...], ...]:
    """Errors in all and by code, services and failures in all and by component."""
    components, codes = slugs(catalog.components), slugs(catalog.error_codes)
    return (
        count("errors", "asset_events", (1, *WINDOWS), compared=(7, 28), where=(("kind", "error"),), mutable=True,
              noun="error|errors", says="{value} in the last {window} days"),
        *(count(f"errors_{slug}", "asset_events", (1, 7, 28), compared=(28,), where=(("kind", "error"), ("code", code)),
                mutable=True, noun=f"error '{_plain(code)}'|errors '{_plain(code)}'",
                says="{value} in the last {window} days") for code, slug in codes.items()),
        days_since("days_since_error", "asset_events", where=(("kind", "error"),), mutable=True,
                   says="last error {value} ago", missing="no error on record"),
        days_since("days_since_maintenance", "asset_events", where=(("kind", "maintenance"),), mutable=True,
                   says="last serviced {value} ago", missing="no service on record"),
        *(days_since(f"days_since_maintenance_{slug}", "asset_events", mutable=True,
                     where=(("kind", "maintenance"), ("code", component)),
                     says=f"'{_plain(component)}' last serviced {{value}} ago",
                     missing=f"no service of '{_plain(component)}' on record") for component,
                     slug in components.items()),
        count("failures", "asset_events", (84,), where=(("kind", "failure"),), mutable=True,
              noun="failure|failures", says="{value} in the last {window} days"),
        days_since("days_since_failure", "asset_events", where=(("kind", "failure"),),
                   says="last failed {value} ago", missing="never failed"),
        *(days_since(f"days_since_failure_{slug}", "asset_events", where=(("kind", "failure"), ("code", component)),
                     says=f"'{_plain(component)}' last failed {{value}} ago",
                     missing=f"'{_plain(component)}' never failed") for component, slug in components.items()),
    )


def _sensor(sensor: str, slug: str) -> tuple[Feature, ...]:
    name, this = _plain(sensor), (("sensor", sensor),)
    none = f"no reading of '{name}' in the last {{window}} days"
    return (
        *mean(f"{slug}_mean", "telemetry", "value", (1, 7, 28), compared=(7, 28), where=this, missing=none,
              says=f"'{name}' averages {{value}} in the last {{window}} days"),
        *spread(f"{slug}_spread", "telemetry", "value", (7, 28), where=this, missing=none,
                says=f"'{name}' varies by {{value}} (standard deviation) in the last {{window}} days"),
        *lowest(f"{slug}_min", "telemetry", "value", (7,), where=this, missing=none,
                says=f"'{name}' went down to {{value}} in the last {{window}} days"),
        *highest(f"{slug}_max", "telemetry", "value", (7,), where=this, missing=none,
                 says=f"'{name}' went up to {{value}} in the last {{window}} days"),
        *slope(f"{slug}_slope", "telemetry", "value", (7, 28), where=this,
               missing=f"too few readings of '{name}' in the last {{window}} days for a trend",
               says=f"'{name}' moves by {{value}} a day over the last {{window}} days"),
    )


def _account_assets(catalog: Catalog) -> FeatureGroup:
    """The worst asset's signals: the greatest value over the assets that the account has in service."""
    return FeatureGroup("account_assets", "account", through="assets", says="how an account's equipment fares",
                        aggregations=(
        open_at("assets_in_service", "assets", mutable=False, noun="asset|assets", says="{value} in service"),
        Feature("oldest_asset_days", "oldest", stream="assets", unit="days",
                says="the oldest asset is in service for {value}",
                missing="no asset in service"),
        count("worst_errors", "asset_events", (7, 28), where=(("kind", "error"),), mutable=True, noun="error|errors",
              says="{value} on the worst asset in the last {window} days",
              nothing="no errors on any asset in the last {window} days", missing="no asset in service"),
        count("worst_failures", "asset_events", (84,), where=(("kind", "failure"),), mutable=True,
              noun="failure|failures",
              says="{value} of the worst asset in the last {window} days",
              nothing="no failure of any asset in the last {window} days", missing="no asset in service"),
        days_since("worst_days_since_maintenance", "asset_events", where=(("kind", "maintenance"),), mutable=True,
                   says="the asset whose service lies furthest back was serviced {value} ago",
                   missing="no service of any asset on record"),
        *(highest(f"worst_{slug}_max", "telemetry", "value", (7,), where=(("sensor", sensor),),
                  says=f"'{_plain(sensor)}' went up to {{value}} on one asset in the last {{window}} days",
                  missing=f"no reading of '{_plain(sensor)}' in the last {{window}} days")
          for sensor, slug in slugs(catalog.sensors, _RESERVED).items()),
    ))


def _plain(word: str) -> str:
    """A workspace's word, safe inside a template and short enough to read."""
    return "".join(letter for letter in word if letter.isprintable() and letter not in "{}|'")[:40]
