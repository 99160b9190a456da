"""What own features may read of each raw table: columns by kind, times, and since when a value is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from churnkit.schemas import ENTITIES, RAW_TABLES, Table

Entity = Literal["account", "asset"]
Kind = Literal["number", "category", "id", "time", "flag"]
KINDS: Mapping[str, str] = MappingProxyType({"number": "float", "category": "category", "id": "id", "time": "time",
                                             "flag": "bool"})
"""Each kind of column that a workspace may declare, and the contract's word for it. Free text has none: it never
becomes a feature."""
DAY_OF = "day"
"""What every table with a time of its own has beside its columns: the day of that time, to count different days."""


@dataclass(frozen=True)
class Readable:
    """One raw table, as own features see it.

    `time` is the row's own time ('' where it has none), `until` the time at which what it tells of ends, `record` the
    id of which several versions may come: the latest known at a cutoff counts. `columns` pairs each name with its kind;
    `since` pairs a column with the time of the same row from which its value is known. `early` marks spans that hold
    at their very start.
    """

    name: str
    entity: Entity
    time: str = ""
    until: str = ""
    record: str = ""
    columns: tuple[tuple[str, Kind], ...] = ()
    since: tuple[tuple[str, str], ...] = ()
    early: bool = False

    @property
    def kinds(self) -> dict[str, str]:
        """Each column's kind, times left out, and DAY_OF."""
        own: dict[str, str] = {name: kind for name, kind in self.columns if kind != "time"}
        return own | ({DAY_OF: "id"} if self.time and DAY_OF not in own else {})

    @property
    def times(self) -> tuple[str, ...]:
        """The columns that are times, the own one first."""
        return tuple(name for name in (self.time, *(name for name, kind in self.columns if kind == "time")) if name)

    @property
    def known_from(self) -> dict[str, str]:
        """`since` as a mapping."""
        return dict(self.since)


def readable(table: Table, entity: Entity, *, until: str = "", record: str = "",
             since: Mapping[str, str] | None = None, hidden: tuple[str, ...] = ()) -> Readable:
    """What features may read of a table of a contract: all but texts, its keys, and what is `hidden`."""
    ours = {contract: kind for kind, contract in KINDS.items()} | {"int": "number"}
    left_out = {ENTITIES[entity], "recorded_at", table.time, *hidden}
    columns = tuple((column.name, ours[column.kind]) for column in table.columns
                    if column.kind in ours and column.name not in left_out)
    return Readable(table.name, entity, table.time, until, record, columns,  # type: ignore[arg-type]
                    tuple(sorted((since or {}).items())))


def _ours() -> dict[str, Readable]:
    """Our raw tables. What an export may stamp on a row afterwards is known from the time that it speaks of."""
    def of(name: str, entity: Entity = "account", *, early: bool = False, **how: object) -> Readable:
        return replace(readable(RAW_TABLES[name], entity, **how), early=early)  # type: ignore[arg-type]

    made = (
        of("accounts", record="account_id", early=True),
        # A renewal date is rolled on as long as the customer stays: where it lies tells what became of them.
        of("subscriptions", until="ended_at", early=True, hidden=("renews_at", "end_recorded_at", "currency")),
        of("usage_events"),
        of("support_tickets", until="resolved_at", record="ticket_id", since={
            "csat": "rated_at", "effort": "rated_at", "reassigned_count": "resolved_at", "handled_by": "resolved_at"}),
        of("ticket_messages"),
        of("surveys"),
        of("invoices", until="paid_at", record="invoice_id", since={"failed_attempts": "paid_at"},
           hidden=("currency",)),
        of("contacts", until="left_at", record="contact_id", hidden=("do_not_contact",)),
        of("touches"),
        of("opportunities", until="closed_at", since=dict.fromkeys(("stage", "amount", "won"), "closed_at")),
        of("suppressions", until="until"),
        of("outreach_outcomes"),
        of("assets", "asset", until="retired_at", record="asset_id", early=True, hidden=("account_id",)),
        of("telemetry", "asset"),
        of("asset_events", "asset"),
    )
    return {one.name: one for one in made}


OURS: Mapping[str, Readable] = MappingProxyType(_ours())
"""Our raw tables that tell of an account or an asset, by name."""
