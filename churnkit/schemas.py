"""The contract of every table that crosses a room: columns, types, units, keys. Plain values, cheap to import.

`signals/validate.py` turns the raw tables' part into pandera schemas; nothing here imports pandas or pandera, because
a CRM job reads this file too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from churnkit.errors import DataError, did_you_mean

Kind = Literal["id", "text", "category", "time", "int", "float", "bool"]


@dataclass(frozen=True)
class Column:
    """One column of a contract.

    `kind` is the logical type: ids and categories are strings, times are UTC with microseconds. `values` lists the
    allowed categories. `low` and `high` bound numbers, both inclusive. `after` names the time of the same row that
    this time may not precede. `refers` names the table whose key this id must exist in. A `planned` time may lie ahead
    of the run. A `named` column must stand in the source, though a row may leave it empty.
    """

    name: str
    kind: Kind
    required: bool = False
    values: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    unit: str = ""
    after: str = ""
    refers: str = ""
    says: str = ""
    planned: bool = False
    named: bool = False


@dataclass(frozen=True)
class Table:
    """One table of a contract: its columns, its key, and the column that holds a row's own time."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    time: str = ""
    says: str = ""
    turns_on: str = ""
    by_name: Mapping[str, Column] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", MappingProxyType({column.name: column for column in self.columns}))

    @property
    def names(self) -> tuple[str, ...]:
        """The column names, in order."""
        return tuple(self.by_name)

    @property
    def required(self) -> tuple[str, ...]:
        """The columns that a source must give."""
        return tuple(column.name for column in self.columns if column.required)


def _id(name: str, *, required: bool = False, refers: str = "") -> Column:
    return Column(name, "id", required=required, refers=refers)


def _time(name: str, *, required: bool = False, after: str = "", says: str = "") -> Column:
    return Column(name, "time", required=required, after=after, says=says)


def _word(name: str, *values: str, required: bool = False) -> Column:
    return Column(name, "category", required=required, values=values)


def _number(name: str, *, low: float | None = None, high: float | None = None, unit: str = "",
            required: bool = False, says: str = "") -> Column:
    return Column(name, "float", required=required, low=low, high=high, unit=unit, says=says)


def _count(name: str) -> Column:
    return Column(name, "int", low=0)


def _text(name: str) -> Column:
    return Column(name, "text")


_ACCOUNT = _id("account_id", required=True, refers="accounts")
_CURRENCY = Column("currency", "category", says="ISO 4217 code")


def _recorded(own: str) -> Column:
    return _time("recorded_at", after=own, says="when we could first know the row; else own time + known_after")


RAW_TABLES: Mapping[str, Table] = MappingProxyType({
    table.name: table
    for table in (
        Table(
            "accounts",
            (
                _id("account_id", required=True), _time("created_at", required=True), _text("name"), _word("segment"),
                _word("industry"), _word("country"), _word("language"), _word("timezone"),
                _id("owner", refers="owners"),
                _id("parent_account_id"), _id("crm_id"), _recorded("created_at"),
            ),
            key=("account_id", "recorded_at"), time="created_at",
            says="the customers; several versions of one are allowed",
            turns_on="everything",
        ),
        Table(
            "subscriptions",
            (
                _ACCOUNT, _id("subscription_id"), _time("started_at", required=True),
                _time("ended_at", after="started_at"),
                _time("end_recorded_at", says="when notice was given"), _word("plan"), _number("seats", low=0),
                _number("mrr", low=0, unit="currency a month"), _CURRENCY, _count("billing_months"),
                _time("renews_at", after="started_at"), Column("auto_renew", "bool"), _recorded("started_at"),
            ),
            time="started_at", says="open-ended rows, or one row per billing period",
            turns_on="contract features, churn by contract, expansion, and money at stake",
        ),
        Table(
            "usage_events",
            (
                _ACCOUNT, _time("occurred_at", required=True), Column("event", "category", required=True),
                _id("user_id"),
                _number("quantity", low=0), _number("duration_s", low=0, unit="s"), _number("users", low=0),
                _recorded("occurred_at"),
            ),
            time="occurred_at", says="single events, or sums per period", turns_on="usage features",
        ),
        Table(
            "support_tickets",
            (
                _id("ticket_id", required=True), _ACCOUNT, _time("opened_at", required=True), _word("channel"),
                _word("category"), _word("priority"), _time("first_replied_at", after="opened_at"),
                _time("escalated_at", after="opened_at"), _time("human_requested_at", after="opened_at"),
                _time("reopened_at", after="opened_at"), _count("reassigned_count"),
                _time("resolved_at", after="opened_at"), _word("handled_by", "bot", "human"),
                _time("handed_over_at", after="opened_at"), _number("csat", low=1, high=5),
                _number("effort", low=1, high=7, says="ease of getting help: 1 very hard, 7 very easy"),
                _time("rated_at", after="opened_at"), _text("subject"), _text("body"), _recorded("opened_at"),
                Column("url", "text", says="link that the brief shows"),
            ),
            key=("ticket_id", "recorded_at"), time="opened_at", says="one row a ticket, each change at its own time",
            turns_on="support features, frustration signals and their rule plays",
        ),
        Table(
            "ticket_messages",
            (
                _id("ticket_id", required=True, refers="support_tickets"), _ACCOUNT,
                _time("occurred_at", required=True),
                _word("author", "customer", "agent", "bot"), _text("text"), _recorded("occurred_at"),
            ),
            time="occurred_at", turns_on="sentiment features",
        ),
        Table(
            "surveys",
            (
                _ACCOUNT, _time("responded_at", required=True), _word("kind", "nps", "csat", "ces", required=True),
                _number("score", low=0, high=10, required=True), _id("contact_id"), _text("text"),
                _recorded("responded_at"),
            ),
            time="responded_at", turns_on="NPS, satisfaction and effort features and the low-score plays",
        ),
        Table(
            "invoices",
            (
                _id("invoice_id", required=True), _ACCOUNT, _time("issued_at", required=True),
                _time("due_at", after="issued_at"),
                _time("paid_at", after="issued_at"), _number("amount", unit="currency"), _CURRENCY,
                _count("failed_attempts"), _recorded("issued_at"),
            ),
            key=("invoice_id", "recorded_at"), time="issued_at",
            turns_on="billing features and the failed-payment play",
        ),
        Table(
            "contacts",
            (
                _id("contact_id", required=True), _ACCOUNT, _word("role", "champion", "sponsor", "user", "billing"),
                _time("left_at"), Column("do_not_contact", "bool"), _id("crm_id"), _text("name"), _time("recorded_at"),
            ),
            key=("contact_id", "recorded_at"), turns_on="champion-left signals and whom to speak to",
        ),
        Table(
            "touches",
            (
                _ACCOUNT, _time("occurred_at", required=True), _word("channel"),
                _word("direction", "inbound", "outbound"),
                _word("by"), _recorded("occurred_at"),
            ),
            time="occurred_at", turns_on="relationship features, and not pestering anybody",
        ),
        Table(
            "opportunities",
            (
                _ACCOUNT, _word("kind", "renewal", "expansion"), _time("opened_at", required=True),
                _time("closed_at", after="opened_at"), _word("stage"), _number("amount"), Column("won", "bool"),
                _recorded("opened_at"),
            ),
            time="opened_at", turns_on="open renewal talks",
        ),
        Table(
            "assets",
            (
                _id("asset_id", required=True), _ACCOUNT, _word("model"), _time("installed_at", required=True),
                _time("retired_at", after="installed_at"), _recorded("installed_at"),
            ),
            key=("asset_id", "recorded_at"), time="installed_at", turns_on="the maintenance model",
        ),
        Table(
            "telemetry",
            (
                _id("asset_id", required=True, refers="assets"), _time("occurred_at", required=True),
                Column("sensor", "category", required=True), _number("value", required=True), _recorded("occurred_at"),
            ),
            time="occurred_at", turns_on="sensor features",
        ),
        Table(
            "asset_events",
            (
                _id("asset_id", required=True, refers="assets"), _time("occurred_at", required=True),
                _word("kind", "error", "maintenance", "failure", required=True), _word("code"),
                _recorded("occurred_at"),
            ),
            time="occurred_at", turns_on="error, service and failure features; failure labels",
        ),
        Table(
            "owners",
            (
                _id("owner", required=True), _text("name"), _text("email"), _id("crm_id"), _count("capacity_per_week"),
                _word("languages"), _word("skills"), _word("segments"), _word("timezone"), Column("active", "bool"),
                _id("manager"),
            ),
            key=("owner",), turns_on="assignment and capacity",
        ),
        Table(
            "suppressions",
            (
                _id("account_id", required=True, refers="accounts"), _id("contact_id"), _word("reason", required=True),
                _time("starts_at", required=True), _time("until", after="starts_at"),
            ),
            time="starts_at", turns_on="leaving people in peace",
        ),
        Table(
            "record_changes",
            (
                Column("table", "category", required=True), _id("id", required=True),
                _time("changed_at", required=True),
                Column("field", "category", required=True), _text("value"), _recorded("changed_at"),
            ),
            time="changed_at", turns_on="true history of records whose export shows only their last state",
        ),
        Table(
            "outreach_outcomes",
            (
                _id("key", required=True), _ACCOUNT, _word("play", required=True), _time("occurred_at", required=True),
                _word("status", "open", "in_progress", "snoozed", "completed", "dismissed", required=True),
                _word("disposition"), _text("note"), _recorded("occurred_at"),
            ),
            time="occurred_at", says="written by the sync, read like the others",
            turns_on="learning from what was done",
        ),
    )
})

ENTITIES: Mapping[str, str] = MappingProxyType({"account": "account_id", "asset": "asset_id"})
"""Each entity's id column."""

SCORES = ("entity_id", "account_id", "cutoff", "target", "probability", "percentile", "band", "value", "currency",
          "model_version", "data_hash")
"""One row per scored entity: `entity_id` is an account's or an asset's id; `band` is low, medium or high."""

REASONS = ("entity_id", "cutoff", "target", "rank", "feature", "value", "compared_with", "contribution", "points",
           "direction", "phrase", "mutable", "changed", "group")
"""Up to `top` rows per scored entity. `contribution` is the family's in log-odds, `points` the same in percentage
points (all families' add up to probability - base), `feature` what says it best, `direction` raises or lowers, `phrase`
is plain words with the value and what it is compared with, `changed` what is new since the run before, in words,
`group` the feature group that it belongs to (usage, support, billing, ...), blank where it has none."""

CURVES = ("entity_id", "account_id", "cutoff", "target", "horizon_days", "probability", "median_days")
"""One row per scored entity and horizon: `probability` of the event within `horizon_days` of the end of the lead,
which never falls along the horizons; `median_days` until half of such entities had it, blank beyond the last."""

COMPONENTS = ("entity_id", "account_id", "cutoff", "target", "component", "horizon_days", "probability")
"""One row per scored asset, component and horizon; an asset's components add up to its curve. `component` is the
failures' code, or failure for those that name none."""

LIVES = ("entity_id", "account_id", "cutoff", "target", "life_days", "cap_days")
"""One row per scored asset: the days it has left, and the cap beyond which it is only said to be more."""

OFFER_KINDS = ("seats", "plan", "addon", "other")
OFFERS = ("entity_id", "account_id", "cutoff", "target", "gain_monthly", "currency", "gain_skill", *OFFER_KINDS,
          "kind_skill")
"""One row per scored account: what it would gain a month if it expanded, and the chance of each kind, given that it
does. Where `gain_skill` is false the usual share of MRR stands in, where `kind_skill` is, the usual shares of kinds."""

LABELS = ("row_id", "entity_id", "account_id", "cutoff", "target", "label", "why_none", "kind", "value", "after_days",
          "treated", "propensity")
"""`label` is 0, 1 or missing; `why_none` is '', censored, in the lead, not in the population, or retired; `after_days`
counts from the window's start to what made it positive."""

POINTS = ("row_id", "entity", "entity_id", "account_id", "cutoff")
"""Prediction points: `row_id` is unique and stable; `entity` is account or asset."""

SIGNALS = ("account_id", "asset_id", "signal", "occurred_at", "evidence", "evidence_id")
"""Plain signals on which rule plays open, one row per signal; `evidence` is a sentence, `evidence_id` a ticket
or code."""

HELD = ("entity_id", "account_id", "target", "play", "why", "until", "detail")
"""Why a scored entity has no task."""


def raw_table(name: str, known: Mapping[str, Table] = RAW_TABLES) -> Table:
    """The contract of one raw table, by name; `known` are ours, and others that a workspace declares.

    Raises:
        DataError: If there is no such table; names the nearest.

    >>> raw_table("surveys").required
    ('account_id', 'responded_at', 'kind', 'score')
    """
    if name not in known:
        raise DataError(f"There is no table '{name}' in the contract.{did_you_mean(name, known)} "
                        f"Known tables: {', '.join(known)}.")
    return known[name]
