"""The raw tables as an extract taken at a cutoff would have shown them: written from the contract, not from streams.

This is the oracle of the audits and shares nothing with the features' own code but the contract's tables and columns.
"""

# ruff: noqa: S608 - SQL is built from contract names, quoted identifiers and quoted literals only

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import duckdb
import pandas as pd

from churnkit.schemas import Column, Table
from churnkit.settings import Settings, TableMap
from churnkit.signals.cells import duck_type
from churnkit.signals.relation import literal, quoted
from churnkit.signals.tables import Tables
from churnkit.signals.versions import AS_TOLD, expand

Sight = Literal["features", "labels", "all"]

SPANS = frozenset({"accounts", "subscriptions", "assets", "suppressions"})
"""Tables whose own time begins a state: it holds at that very moment. An event at the cutoff lies after it."""
AGREED = frozenset({"renews_at", "due_at", "until"})
"""Times that are agreed beforehand and stand in an extract before they come."""
NOTICED = frozenset({"ended_at", "end_recorded_at"})
"""Of subscriptions: known from the notice on, without one when it happened."""
GIVEN_WITH: Mapping[tuple[str, str], tuple[str, ...]] = MappingProxyType({
    ("support_tickets", "csat"): ("rated_at", "resolved_at"),
    ("support_tickets", "effort"): ("rated_at", "resolved_at"),
    ("support_tickets", "reassigned_count"): ("resolved_at",),
    ("support_tickets", "handled_by"): ("resolved_at",),
    ("invoices", "failed_attempts"): ("paid_at",),
    ("opportunities", "won"): ("closed_at",),
    ("opportunities", "stage"): ("closed_at",),
})
"""Values without a time of their own: known from the first of these times that is filled, and not before."""
_BATCH = 200_000


def cut(tables: Tables, cuts: pd.DataFrame, sight: Sight = "features") -> Tables:
    """A copy of the tables, each account's rows as they stood at its own cutoff.

    Where `record_changes` tells of later changes of a field, the field holds what it held before them, and is missing
    where nothing earlier is told.

    Args:
        tables: The raw tables.
        cuts: `account_id` and `cutoff`, one row per account to keep; rows of other accounts are left out. An asset goes
            with the account that it belongs, or ever belonged, to.
        sight: What may be seen at the cutoff. features: events before it; labels: events up to it (a label's window and
            grace are over then); all: everything, to compare with.

    Returns:
        Tables in a database of their own. Tables that belong to no account (owners) are copied whole.
    """
    copy = Tables(tables.settings)
    copy.given, copy.counts = tables.given, dict(tables.counts)
    reach = pd.to_datetime(cuts["cutoff"], utc=True).max()
    bounded = sight != "all" and len(cuts) > 0
    copy.covers_until = {name: min(until, reach.to_pydatetime()) if bounded else until
                         for name, until in tables.covers_until.items()}
    told = _ask(tables, cuts)
    for name, table in contract(tables).items():
        _copied(tables.raw, _stood(tables, table, sight, told), copy.raw, name)
    expand(copy.raw, copy.settings, copy.given)
    return copy


def stood(tables: Tables, name: str, moment: dt.datetime, into: duckdb.DuckDBPyConnection, called: str) -> None:
    """Copies one table into another database, with the rows of all accounts as they stood at one moment."""
    accounts = tables.raw.sql("SELECT DISTINCT account_id FROM accounts WHERE account_id IS NOT NULL").df()
    told = _ask(tables, accounts.assign(cutoff=moment))
    _copied(tables.raw, _stood(tables, contract(tables)[name], "labels", told), into, called)


def _copied(con: duckdb.DuckDBPyConnection, query: str, into: duckdb.DuckDBPyConnection, called: str) -> None:
    into.register("incoming", con.sql(query).to_arrow_reader(_BATCH))
    into.execute(f"CREATE OR REPLACE TABLE {quoted(called)} AS FROM incoming")
    into.unregister("incoming")


def contract(tables: Tables) -> Mapping[str, Table]:
    """The tables of the contract, those that the workspace declares among them, by name."""
    return tables.contract


def record_id(table: Table) -> str:
    """The column by which `record_changes` names a record of this table; '' where a table has none.

    >>> from churnkit.schemas import raw_table
    >>> record_id(raw_table("support_tickets")), record_id(raw_table("touches"))
    ('ticket_id', '')
    """
    return table.key[0] if table.key else "subscription_id" if "subscription_id" in table.by_name else ""


def _ask(tables: Tables, cuts: pd.DataFrame) -> dict[str, str]:
    """Temporary tables: audit_cuts, audit_assets (an asset with two cutoffs is left out) and audit_records.

    Returns:
        Where each table lies as the export had it, before record_changes were replayed over it.
    """
    con = tables.raw
    kept = {name for (name,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    told = {name: quoted(f"{name}{AS_TOLD}" if f"{name}{AS_TOLD}" in kept else name) for name in contract(tables)}
    con.register("audit_asked", pd.DataFrame({
        "account_id": cuts["account_id"].astype(str).to_numpy(),
        "cutoff": pd.to_datetime(cuts["cutoff"], utc=True).dt.as_unit("us").array}))
    con.execute("CREATE OR REPLACE TEMP TABLE audit_cuts AS SELECT account_id::VARCHAR AS account_id, "
                "cutoff::TIMESTAMPTZ AS cutoff FROM audit_asked")
    con.unregister("audit_asked")
    con.execute("CREATE OR REPLACE TEMP TABLE audit_assets AS SELECT asset_id, any_value(cutoff) AS cutoff FROM "
                "(SELECT DISTINCT a.asset_id, c.cutoff FROM assets a JOIN audit_cuts c USING (account_id)) "
                "GROUP BY asset_id HAVING count(*) = 1")
    owned = [f"SELECT {literal(name)} AS what, {quoted(key)}::VARCHAR AS id, any_value(account_id) AS account_id, "
             f"count(*) AS versions FROM {told[name]} WHERE {quoted(key)} IS NOT NULL GROUP BY ALL"
             for name, table in contract(tables).items()
             if (key := record_id(table)) and "account_id" in table.by_name]
    con.execute("CREATE OR REPLACE TEMP TABLE audit_records AS SELECT what, id, versions, cutoff FROM "
                f"({' UNION ALL '.join(owned)}) JOIN audit_cuts USING (account_id)")
    return told


def _stood(tables: Tables, table: Table, sight: Sight, told: Mapping[str, str]) -> str:
    """The query of one table's rows as they stood."""
    con = tables.raw
    source = f"FROM {told[table.name]} t {_whose(table)}"
    if sight == "all" or not _whose(table) or not tables.has(table.name):
        return f"SELECT t.* {source}"
    cells, joins = [], []
    changed = _changed(con, table, sight, tables.settings) if tables.has("record_changes") else set[str]()
    for place, column in enumerate(table.columns):
        value = _cell(table, column, sight)
        if column.name in changed:
            joins.append(f"LEFT JOIN audit_changes v{place} ON v{place}.id = t.{quoted(record_id(table))} AND "
                         f"v{place}.field = {literal(column.name)}")
            value = (f"CASE WHEN v{place}.id IS NOT NULL THEN TRY_CAST(v{place}.value AS {duck_type(column)}) "
                     f"ELSE {value} END")
        cells.append(f"{value} AS {quoted(column.name)}")
    more = [one[0] for one in con.execute(f"DESCRIBE {told[table.name]}").fetchall()]
    cells += [f"t.{quoted(name)}" for name in more if name not in table.by_name]  # known_at, and helpers of replaying
    seen = "t.known_at <= c.cutoff"
    if table.time:
        sign = "<=" if sight == "labels" or table.name in SPANS else "<"
        seen += f" AND (t.{quoted(table.time)} IS NULL OR t.{quoted(table.time)} {sign} c.cutoff)"
    return f"SELECT {', '.join(cells)} {source} {' '.join(joins)} WHERE {seen}"


def _whose(table: Table) -> str:
    """The join that says at which cutoff a row is cut; '' for tables that belong to nobody."""
    if table.name == "record_changes":
        return 'JOIN audit_records c ON c.what = t."table" AND c.id = t.id'
    if "account_id" in table.by_name:
        return "JOIN audit_cuts c ON c.account_id = t.account_id"
    return "JOIN audit_assets c ON c.asset_id = t.asset_id" if "asset_id" in table.by_name else ""


def _changed(con: duckdb.DuckDBPyConnection, table: Table, sight: Sight, settings: Settings) -> set[str]:
    """Fills audit_changes with what changed after the cutoff, and what it was before; returns the fields.

    A record that stands in several versions tells its own history.
    """
    theirs = settings.tables.get(table.name, TableMap()).columns
    field = " ".join(("CASE r.field", *(f"WHEN {literal(own)} THEN {literal(name)}" for name, own in theirs.items()),
                      "ELSE r.field END")) if theirs else "r.field"
    before = f"(r.changed_at {'<=' if sight == 'labels' else '<'} c.cutoff AND r.known_at <= c.cutoff)"
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE audit_changes AS SELECT r.id, {field} AS field, "
        f"arg_max(r.value, r.changed_at) FILTER (WHERE {before}) AS value FROM record_changes r JOIN audit_records c "
        f'ON c.what = r."table" AND c.id = r.id WHERE c.what = {literal(table.name)} AND c.versions = 1 '
        f"GROUP BY ALL HAVING bool_or(NOT {before})")
    fields = {row[0] for row in con.execute("SELECT DISTINCT field FROM audit_changes").fetchall()}
    return {name for name in fields if name in table.by_name and name not in {*table.key, table.time, "account_id"}
            and table.by_name[name].kind != "time"}


def _cell(table: Table, column: Column, sight: Sight) -> str:
    """The SQL of a cell at the cutoff: later times, and the values that came with them, are not there yet."""
    here, sign = f"t.{quoted(column.name)}", "<" if sight == "features" and table.name not in SPANS else "<="
    if table.name == "subscriptions" and column.name in NOTICED:
        return f"CASE WHEN coalesce(t.end_recorded_at, t.ended_at) <= c.cutoff THEN {here} END"
    if (table.name, column.name) in GIVEN_WITH:
        times = ", ".join(f"t.{quoted(name)}" for name in GIVEN_WITH[table.name, column.name])
        return f"CASE WHEN coalesce({times}) {sign} c.cutoff THEN {here} END"
    if column.kind != "time" or column.name in {table.time, "recorded_at", *AGREED} or column.planned:
        return here
    return f"CASE WHEN {here} {sign} c.cutoff THEN {here} END"
