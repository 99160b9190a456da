"""Raw tables as streams: rows of an entity with their own times and known time in whole microseconds, ready to join.

Every stream has `id` (the entity), `at` (the own time) and `known` (when we could know the row). A stream of records
has a
`key` as well: of the versions of one record, only the latest known at a cutoff counts. A stream of states has `until`.
Later times of a record (answered, escalated,
                         paid) are columns of their own; because they are compared with the cutoff just
as `at` is, a time after the cutoff is not seen at it.
"""


from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import eq, ge, gt, le, lt, ne
from types import MappingProxyType
from typing import Any

import ibis
from ibis.expr import datatypes as dt
from ibis.expr import types as ir

from churnkit.schemas import ENTITIES
from churnkit.signals.catalog import Catalog
from churnkit.signals.cues import CUES
from churnkit.signals.own import parsed
from churnkit.signals.own_checks import COLUMN, Condition
from churnkit.signals.readable import DAY_OF, Readable
from churnkit.signals.tables import Tables

DAY = 86_400_000_000
"""Microseconds in a day."""
HOUR = DAY // 24
ALWAYS = -(2**60)
"""A known time before every cutoff, for rows that carry no time at all."""
NEVER = 2**60
"""A time after every cutoff."""


@dataclass(frozen=True)
class Stream:
    """How to build one stream. `needs` names the raw table without which its features are missing, not 0.

    `heavy` marks streams too large to join with every later cutoff: they are joined within the longest window.
    """

    build: Callable[[Tables, Catalog], ir.Table]
    needs: str
    heavy: bool = False


@ibis.udf.scalar.builtin(signature=((dt.Timestamp("UTC"),), dt.int64))  # type: ignore[untyped-decorator]
def epoch_us(_: object) -> int:
    """DuckDB's own: ten times as quick as a difference of times with a zone, which asks a calendar."""
    raise NotImplementedError  # Ibis takes the name alone


def micros(value: ir.Value) -> ir.IntegerValue:
    """A UTC time as whole microseconds since 1970, exactly; engines other than DuckDB hold times so from the start."""
    return value if value.type().is_integer() else epoch_us(value)


def money(tables: Tables, table: ir.Table, column: str) -> ir.FloatingValue:
    """An amount in the workspace's currency, by the settings' rates."""
    rates = {**tables.settings.rates, tables.settings.currency: 1.0}
    branches = [(table.currency == currency, table[column] * rate) for currency,
                rate in sorted(rates.items()) if rate != 1.0]
    return ibis.cases(*branches, else_=table[column]) if branches else table[column]


def _known(table: ir.Table) -> ir.IntegerValue:
    return ibis.coalesce(micros(table.known_at), ALWAYS)


def _following(rows: ir.Table) -> ir.Table:
    """The versions of each record, with the entity of the one before (`was`) and when the next is known (`next`)."""
    versions = ibis.window(group_by="key", order_by="known")
    return rows.mutate(was=rows.id.lag().over(versions), next=rows.known.lead().over(versions))


def _moved(rows: ir.Table) -> ir.Table:
    """Records that went over to another entity: the one that they left is told so by a last version, which is over."""
    following = _following(rows)
    following = following.filter(following.was != following.id)
    over = {"id": following.was, "key": following.key, "known": following.known, "at": ibis.literal(NEVER),
            "until": ibis.literal(ALWAYS)}
    return following.select(**{name: over.get(name, ibis.null(kind)) for name, kind in rows.schema().items()})


def _usage(tables: Tables, _: Catalog) -> ir.Table:
    table = tables.expr("usage_events")
    mapping = tables.settings.tables.get("usage_events")
    summed = mapping is not None and mapping.grain != "instant"
    at = micros(table.occurred_at)
    return table.select(
        id=table.account_id, at=at, known=_known(table), event=table.event, user=table.user_id,
        n=ibis.coalesce(table.quantity, 1.0) if summed else ibis.literal(1.0),
        minutes=table.duration_s / 60, users=table.users, day=at // DAY)


def _firsts(tables: Tables, catalog: Catalog) -> ir.Table:
    """The first known use of each event: of all rows only those that lower the first time seen so far."""
    rows = _usage(tables, catalog)
    rows = rows.mutate(seen=ibis.greatest(rows.at + 1, rows.known))
    # Nothing that happened after the use that was known first can lower the first time; what is left is little.
    soonest = rows.group_by(known_id=rows.id, known_event=rows.event).aggregate(
        earliest=rows["at"].argmin(rows.seen), soon=rows.seen.min())
    here = rows.join(soonest, [rows.id == soonest.known_id, rows.event == soonest.known_event])
    rows = here.filter((here["at"] < here.earliest) | (here.seen == here.soon))
    so_far = ibis.window(group_by=("id", "event"), order_by=("seen", "at"), preceding=(None, 1))
    rows = rows.mutate(before=rows["at"].min().over(so_far))
    rows = rows.filter(rows.before.isnull() | (rows["at"] < rows.before))
    return rows.select("id", "at", known=rows.seen, key=rows.event)


def _tickets(tables: Tables, _: Catalog) -> ir.Table:
    """Tickets; one reopened after its end was solved at the first contact until then, and from the reopening on not."""
    table = tables.expr("support_tickets")
    opened, replied, resolved = micros(table.opened_at), micros(table.first_replied_at), micros(table.resolved_at)
    reopened, rated = micros(table.reopened_at), micros(table.rated_at)
    steps = (table.escalated_at, table.reopened_at, table.handed_over_at)
    trouble = ibis.or_(ibis.coalesce(table.reassigned_count, 0) > 0,
                       *((step <= table.resolved_at).fill_null(False) for step in steps))
    rows = table.select(
        id=table.account_id, key=table.ticket_id, known=_known(table), at=opened, replied=replied, resolved=resolved,
        escalated=micros(table.escalated_at), human=micros(table.human_requested_at), reopened=reopened,
        handed=micros(table.handed_over_at), rated=ibis.coalesce(rated, resolved),
        until=resolved, again=ibis.ifelse(reopened >= resolved, reopened, None),
        reply_hours=(replied - opened) / HOUR, solve_hours=(resolved - opened) / HOUR,
        reassigned=table.reassigned_count.cast("float64"), first_contact=ibis.ifelse(trouble, 0.0, 1.0),
        csat=table.csat, effort=table.effort, low_csat=ibis.ifelse(table.csat <= 2, "yes", "no"),
        low_effort=ibis.ifelse(table.effort <= 2, "yes", "no"))
    back = _following(rows)
    back = back.filter((back.reopened > back.resolved) & (back.first_contact == 1) & (back.reopened >= back.known)
                       & (back.next.isnull() | (back.reopened + 1 < back.next)))
    back = back.mutate(known=back.reopened + 1, first_contact=0.0).select(rows.columns)
    by_then = ((rows.reopened > rows.resolved) & (rows.reopened < rows.known)).fill_null(False)
    solved = rows.mutate(first_contact=ibis.ifelse(by_then, 0.0, rows.first_contact))
    return solved.union(back).union(_moved(rows))


def _repeats(tables: Tables, _: Catalog) -> ir.Table:
    """Tickets opened within seven days of an earlier one of the same account, known once both are."""
    table = tables.expr("support_tickets")
    ours = table.group_by(id=table.account_id, ticket=table.ticket_id, at=micros(table.opened_at)).aggregate(
        known=_known(table).min())  # of its versions the one that was known first
    theirs = ours.select(other_id=ours.id, other=ours.ticket, other_at=ours["at"], other_known=ours.known)
    pairs = ours.join(theirs, [ours.id == theirs.other_id, ours.ticket != theirs.other,
                               theirs.other_at <= ours["at"], theirs.other_at >= ours["at"] - 7 * DAY])
    pairs = pairs.filter((pairs.other_at < pairs["at"]) | (pairs.other < pairs.ticket))
    return pairs.select("id", "at", "ticket", known=ibis.greatest(pairs.known, pairs.other_known))


def _changes(table_name: str, key: str, fields: tuple[str, ...]) -> Callable[[Tables, Catalog], ir.Table]:
    """Changes of one field of a record, from `record_changes`, by the account that the record belongs to."""

    def build(tables: Tables, _: Catalog) -> ir.Table:
        changes, records = tables.expr("record_changes"), tables.expr(table_name)
        # Whose record it is stands in the record itself, so a change counts from when both are known.
        changes = changes.filter((changes.table == table_name) & changes.field.isin(fields))
        owners = records.group_by(record=records[key],
                                  id=records.account_id).aggregate(owner_known=_known(records).min())
        joined = changes.join(owners, changes.id == owners.record, rname="{name}_owner")
        return joined.select(id=joined.id_owner, at=micros(joined.changed_at),
                             known=ibis.greatest(_known(joined), joined.owner_known))

    return build


def _moods(tables: Tables, _: Catalog) -> ir.Table:
    """Moods of messages and which cues stand in them; a ticket's text is one message, in however many versions."""
    table = tables.moods()
    heard = {name: table[name] > 0 for name in CUES}
    heard["any_cue"] = ibis.or_(*heard.values())
    flags = {name: ibis.ifelse(there, "yes", "no") for name, there in heard.items()}
    rows = table.select("source", "ticket_id", id=table.account_id, at=micros(table.occurred_at), known=_known(table),
                        mood=table.polarity, **flags)
    others, tickets = rows.filter(rows.source != "ticket"), rows.filter(rows.source == "ticket")
    once = tickets.group_by([name for name in rows.columns if name != "known"]).aggregate(known=tickets.known.min())
    return others.union(once.select(rows.columns)).drop("source", "ticket_id")


def _surveys(tables: Tables, _: Catalog) -> ir.Table:
    table = tables.expr("surveys")
    return table.select(id=table.account_id, at=micros(table.responded_at), known=_known(table), kind=table.kind,
                        score=table.score)


def _invoices(tables: Tables, _: Catalog) -> ir.Table:
    table = tables.expr("invoices")
    paid = micros(table.paid_at)
    rows = table.select(
        id=table.account_id, key=table.invoice_id, known=_known(table), at=micros(table.issued_at),
        due=micros(table.due_at), until=paid, amount=money(tables, table, "amount"),
        failed=table.failed_attempts.cast("float64"))
    return rows.union(_moved(rows))


def _span(table: ir.Table) -> ir.StringValue:
    """What tells spans of contract apart: a subscription's id with its start; rows without an id are all different.

    Of the rows with one key only those known last count. Rows without an id that share a key share their known time.
    """
    started, known = micros(table.started_at).cast("string"), _known(table).cast("string")
    return ibis.ifelse(table.subscription_id.isnull(), known, table.subscription_id + "|" + started)


def _subscriptions(tables: Tables, catalog: Catalog) -> ir.Table:
    """Spans of contract, begun and ended a microsecond early: a span holds at its very start, no more at its end."""
    table = tables.expr("subscriptions")
    started, ended, renews = micros(table.started_at), micros(table.ended_at), micros(table.renews_at)
    told = ibis.coalesce(micros(table.end_recorded_at), ended)
    period = ended.notnull() & (told <= started)  # an end known from the start is a billing period's, and no notice
    main = ~ibis.coalesce(table.plan, "").isin(catalog.addons) if catalog.addons else ibis.literal(True)
    months = ibis.coalesce(table.billing_months, 12).cast("float64") * (30.4375 * DAY)
    return table.select(
        id=table.account_id, key=_span(table), known=_known(table), at=started - 1,
        until=ibis.greatest(ended, told) - 1,
        leaves=ibis.ifelse(period, None, told), main=ibis.ifelse(main, "yes", "no"),
        plan=ibis.ifelse(main, table.plan, None), seats=ibis.ifelse(main, table.seats, None),
        mrr=money(tables, table, "mrr"), auto_renew=table.auto_renew.cast("int32").cast("float64"),
        renews=ibis.coalesce(renews, ibis.ifelse(period, ended, None),
                             ibis.ifelse(table.billing_months > 0, started, None)),
        months=ibis.greatest(months, 1.0 * DAY), billing=table.billing_months.cast("float64"))


def _accounts(tables: Tables, _: Catalog) -> ir.Table:
    table = tables.expr("accounts")
    return table.select(id=table.account_id, key=table.account_id, at=micros(table.created_at) - 1, known=_known(table),
                        segment=table.segment)


def _handovers(tables: Tables, _: Catalog) -> ir.Table:
    """When an account is known to have gone from one owner to another; whoever is named first took it from nobody."""
    table = tables.expr("accounts")
    rows = table.select(id=table.account_id, known=_known(table), owner=table.owner)
    rows = rows.mutate(before=rows.owner.lag().over(ibis.window(group_by="id", order_by="known")))
    return rows.filter(rows.before != rows.owner).select("id", "known", at=rows.known - 1)


def _renewals(tables: Tables, _: Catalog) -> ir.Table:
    table = tables.expr("opportunities")
    return table.select(id=table.account_id, at=micros(table.opened_at), until=micros(table.closed_at),
                        known=_known(table),
                        kind=table.kind)


def _touches(tables: Tables, _: Catalog) -> ir.Table:
    table = tables.expr("touches")
    machine = ibis.coalesce(table.by, "").lower().isin(("bot", "system", "automation", "automatic", "auto",
                                                        "marketing"))
    return table.filter(~machine).select(id=table.account_id, at=micros(table.occurred_at), known=_known(table),
                                         direction=table.direction)


def _contacts(tables: Tables, _: Catalog) -> ir.Table:
    table = tables.expr("contacts")
    known = _known(table)
    rows = table.select(id=table.account_id, key=table.contact_id, at=ibis.literal(ALWAYS), known=known,
                        role=table.role,
                        left=micros(table.left_at), until=micros(table.left_at))
    return rows.union(_moved(rows))


def _outcomes(tables: Tables, _: Catalog) -> ir.Table:
    table = tables.expr("outreach_outcomes")
    return table.select(id=table.account_id, task=table.key, at=micros(table.occurred_at), known=_known(table),
                        status=table.status)


def _assets(tables: Tables, _: Catalog) -> ir.Table:
    """Spans of service, by asset; see `_subscriptions` for the microsecond."""
    table = tables.expr("assets")
    return table.select(id=table.asset_id, key=table.asset_id, account=table.account_id, known=_known(table),
                        at=micros(table.installed_at) - 1, until=micros(table.retired_at) - 1, model=table.model)


def _telemetry(tables: Tables, _: Catalog) -> ir.Table:
    table = tables.expr("telemetry")
    return table.select(id=table.asset_id, at=micros(table.occurred_at), known=_known(table), sensor=table.sensor,
                        value=table.value)


def _asset_events(tables: Tables, _: Catalog) -> ir.Table:
    table = tables.expr("asset_events")
    return table.select(id=table.asset_id, at=micros(table.occurred_at), known=_known(table), kind=table.kind,
                        code=table.code)


STREAMS: Mapping[str, Stream] = MappingProxyType({
    "usage": Stream(_usage, "usage_events", heavy=True),
    "firsts": Stream(_firsts, "usage_events"),
    "tickets": Stream(_tickets, "support_tickets"),
    "repeats": Stream(_repeats, "support_tickets"),
    "reassignments": Stream(_changes("support_tickets", "ticket_id", ("reassigned_count", "assignee", "assigned_to")),
                            "record_changes"),
    "moods": Stream(_moods, "support_tickets"),
    "surveys": Stream(_surveys, "surveys"),
    "invoices": Stream(_invoices, "invoices"),
    "failed_payments": Stream(_changes("invoices", "invoice_id", ("failed_attempts",)), "record_changes"),
    "subscriptions": Stream(_subscriptions, "subscriptions"),
    "accounts": Stream(_accounts, "accounts"),
    "handovers": Stream(_handovers, "record_changes"),
    "renewals": Stream(_renewals, "opportunities"),
    "touches": Stream(_touches, "touches"),
    "contacts": Stream(_contacts, "contacts"),
    "outcomes": Stream(_outcomes, "outreach_outcomes"),
    "assets": Stream(_assets, "assets"),
    "telemetry": Stream(_telemetry, "telemetry", heavy=True),
    "asset_events": Stream(_asset_events, "asset_events"),
})
"""Every stream, by name."""


def stream(name: str, catalog: Catalog) -> Stream:
    """The stream of that name; those of a workspace's own features are told by its catalog."""
    if name in STREAMS:
        return STREAMS[name]
    own = parsed(catalog.own)
    table = own.table(name)
    return Stream(_own(table, own.conditions.get(table.name, {})), table.name, heavy=own.heavy(name))


def _own(of: Readable, conditions: Mapping[str, Condition]) -> Callable[[Tables, Catalog], ir.Table]:
    """A raw table as own features read it: its columns by their names, and each condition as a yes or no."""

    def build(tables: Tables, _: Catalog) -> ir.Table:
        table = tables.expr(of.name)
        times = {name: _moment(of, table, name) for name in of.times}
        at = times[of.time] if of.time else ibis.literal(ALWAYS)
        columns = {"id": table[ENTITIES[of.entity]], "at": at, "known": _known(table)}
        columns |= {"key": table[of.record]} if of.record else {}
        columns |= {"key": _span(table)} if of.name == "subscriptions" else {}
        columns |= {"until": times[of.until]} if of.until else {}
        if of.name == "support_tickets":
            columns["again"] = ibis.ifelse(times["reopened_at"] >= times["resolved_at"], times["reopened_at"], None)
        columns |= {f"{COLUMN}{name}": value for name, value in times.items()}
        columns |= {f"{COLUMN}{name}": _value(tables, table, name, kind) for name, kind in of.kinds.items()
                    if name != DAY_OF or name in table.columns}
        columns |= {f"{COLUMN}{DAY_OF}": at // DAY} if of.time and DAY_OF not in table.columns else {}
        rows = table.select(**columns)
        rows = rows.union(_moved(rows)) if of.record else rows
        return rows.mutate(**{name: _asked(rows, condition) for name, condition in conditions.items()})

    return build


def _moment(of: Readable, table: ir.Table, name: str) -> ir.IntegerValue:
    """A time of a row; see `_subscriptions` for the microsecond, for late notice and for ratings."""
    value = micros(table[name])
    if of.name == "subscriptions" and name == "ended_at":
        value = ibis.greatest(value, ibis.coalesce(micros(table.end_recorded_at), value))
    if of.name == "support_tickets" and name == "rated_at":
        value = ibis.coalesce(value, micros(table.resolved_at))
    return value - 1 if of.early else value


def _value(tables: Tables, table: ir.Table, name: str, kind: str) -> ir.Value:
    if kind not in ("number", "flag"):
        return table[name]
    value = money(tables, table, name) if "currency" in table.columns and name in ("mrr", "amount") else table[name]
    return (value.cast("int32") if kind == "flag" else value).cast("float64")  # PostgreSQL casts no flag to a float


def _asked(rows: ir.Table, condition: Condition) -> ir.StringValue:
    """Whether a row satisfies a condition; one without a value does not."""
    name, op, value = condition
    column = rows[f"{COLUMN}{name}"]
    return ibis.ifelse(_COMPARES[op](column, value).fill_null(False), "yes", "no")


_COMPARES: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType({
    "=": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge, "in": lambda column, values: column.isin(values)})
