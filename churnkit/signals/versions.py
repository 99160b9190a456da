"""Records as they were known: a row and the changes recorded of it become versions, one per moment of knowing.

An export mostly shows a record's last state; `record_changes` tells how it came about. Read as it stands, the last
state would be seen at cutoffs before it was true. So every table with a key is replayed here, once, at reading: of a
field with changes the value is unknown until something tells it, and from each change on, once it is known, the new.
"""

# ruff: noqa: S608 - SQL is built from contract names, quoted identifiers and quoted literals only

from __future__ import annotations

from collections.abc import Collection, Sequence

import duckdb

from churnkit.schemas import Table
from churnkit.settings import Settings, TableMap
from churnkit.signals import cells
from churnkit.signals.changes import CHANGES, SPAN_KEY, SPANS, Field, fields_of, replayed
from churnkit.signals.relation import literal, quoted

ORIGINAL = "#currency"
"""The helper column that holds what a row's money was in before it was converted."""
AS_TOLD = "_as_told"
"""What the name of a replayed table ends in where it is kept as the export had it."""

_SPAN = ("ended_at", "end_recorded_at")
"""What a subscription's end is made of; every other field of it is a state that looks back (seats twelve weeks ago)."""
_RECORD = ", ".join(SPAN_KEY)
_MONTH = 2_629_800_000_000
"""Microseconds in a month of 30.4375 days, by which renewals come round (see streams)."""


def expand(con: duckdb.DuckDBPyConnection, settings: Settings, given: Collection[str]) -> None:
    """Replaces every validated table that has a history by its versions; the other tables stay as they are.

    A version is a row with the contract's columns and the `known_at` from which it counts. Of a record's versions the
    one known last at a cutoff is its state then. Rows of one record are versions by themselves, each telling all of it
    as of its `recorded_at`; a single row shows the last state, so that of a field with changes the changes alone tell.
    Of two tellings of a field the later wins, not the one that came in later. A version without a value in a required
    column is none: the record begins with the first whole one.

    A subscription is a span of contract, and features and labels look back into it. A change of its plan, seats or
    price therefore ends the span and begins another, as if the export had a row for each. A change that came in after a
    later one of its span counts from that later one on. What money is in does not change.

    Args:
        con: The connection that holds the validated tables. A replaced one stays as `<name>_as_told`.
        settings: For zones, rates, add-ons and the words of the mapping.
        given: The names of the tables that were given.
    """
    if SPANS in given:
        _tell_apart(con, settings.features.addons)
    zone = (settings.tables.get(CHANGES) or TableMap()).zone or settings.zone
    con.execute(f"SET TimeZone = {literal(zone)}")  # what a change says without a zone is in the workspace's
    spoken_of = set(con.execute(f'SELECT DISTINCT "table", field FROM {CHANGES}').fetchall())
    for table in replayed(given):
        fields = fields_of(table, settings)
        changed = [one for one in fields if any((table.name, word) in spoken_of for word in one.words)]
        again = table.name == SPANS and con.execute(
            f"SELECT 1 FROM {SPANS} WHERE subscription_id IS NOT NULL GROUP BY {_RECORD} HAVING count(*) > 1 LIMIT 1"
        ).fetchall()
        if changed or again:
            _replace(con, table, _spans(table, fields, settings) if table.name == SPANS else
                     _versions(table, changed, settings))
    con.execute("SET TimeZone = 'UTC'")
    for name in ("subscriptions", "invoices"):
        con.execute(f"ALTER TABLE IF EXISTS {name} DROP COLUMN IF EXISTS {quoted(ORIGINAL)}")


def _tell_apart(con: duckdb.DuckDBPyConnection, addons: Sequence[str]) -> None:
    """Makes each line of a subscription at one moment of knowing a subscription of its own; of equal lines the last."""
    listed = f"plan IN ({', '.join(map(literal, addons))})" if addons else "false"
    lines = (f"SELECT rowid AS line, row_number() OVER (PARTITION BY {_RECORD}, plan, known_at ORDER BY rowid DESC) "
             f"> 1 AS gone FROM {SPANS} WHERE subscription_id IS NOT NULL")
    con.execute(f"DELETE FROM {SPANS} WHERE rowid IN (SELECT line FROM ({lines}) WHERE gone)")
    others = (f"SELECT rowid AS line FROM {SPANS} WHERE subscription_id IS NOT NULL QUALIFY row_number() OVER ("
              f"PARTITION BY {_RECORD}, known_at ORDER BY coalesce({listed}, false), rowid) > 1")
    con.execute(f"UPDATE {SPANS} SET subscription_id = concat_ws('/', subscription_id, plan) WHERE rowid IN ({others})")


def _replace(con: duckdb.DuckDBPyConnection, table: Table, query: str) -> None:
    con.execute(f"CREATE TABLE replayed AS {query}")
    con.execute(f"ALTER TABLE {table.name} RENAME TO {table.name}{AS_TOLD}")  # for the audits
    con.execute(f"ALTER TABLE replayed RENAME TO {table.name}")


def _states(table: Table, fields: Sequence[Field], settings: Settings, record: str, spoken: str) -> str:
    """SQL that ends in `states`: per touched record and moment of knowing, the row that counts and the fields' values.

    Args:
        table: The table.
        fields: What is replayed; the other columns are those of the row that counts.
        settings: For the rates.
        record: SQL of a record's key, over the table.
        spoken: SQL over record_changes (`change`) and the records' rows: the changes, each with its `record`.
    """
    names = [quoted(one.column.name) for one in fields]
    own = f", {quoted(table.time)}" if table.time else ""
    recorded = "recorded_at" if "recorded_at" in table.by_name else "NULL::TIMESTAMPTZ"
    changed = ", ".join(
        f"CASE WHEN {one.is_meant} THEN struct_pack(v := ({_worth(one, settings)})::{cells.duck_type(one.column)}) END "
        f"AS {name}" for one, name in zip(fields, names, strict=True))
    shown = ", ".join(f"CASE WHEN r.several OR coalesce(h.{name} = 0, true) THEN struct_pack(v := t.{name}) END "
                      f"AS {name}" for name in names)
    # A telling that speaks of an earlier time than one known before it is out of date.
    fresh = ", ".join(f"CASE WHEN said < max(said) FILTER (WHERE {name} IS NOT NULL) OVER earlier THEN NULL "
                      f"ELSE {name} END AS {name}" for name in names)
    filled = ", ".join(f"last_value({name} IGNORE NULLS) OVER sofar AS {name}" for name in names)
    order = "PARTITION BY record ORDER BY known, kind, said, nth"
    return f"""
    WITH rows AS (
      SELECT rowid AS "row", {record} AS record, known_at AS known, coalesce({recorded}{own}, known_at) AS said,
        count(*) OVER (PARTITION BY {record}) > 1 AS several
      FROM {table.name} WHERE {record} IS NOT NULL
    ), changes AS (
      SELECT record, greatest(changed_at, known_at) AS known, changed_at AS said, nth, {changed} FROM ({spoken})
    ), spoken_of AS (
      SELECT record, {', '.join(f'count({name}) AS {name}' for name in names)} FROM changes GROUP BY record
    ), tellings AS (
      SELECT r.record, r.known, r.said, 0 AS kind, r."row" AS nth, r."row", {shown}
      FROM rows r JOIN {table.name} t ON t.rowid = r."row" LEFT JOIN spoken_of h USING (record)
      WHERE h.record IS NOT NULL {'OR r.several' if table.name == SPANS else ''}
      UNION ALL
      SELECT record, known, said, 1, nth, NULL, {', '.join(names)} FROM changes
    ), fresh AS (
      SELECT record, known, said, kind, nth, "row", {fresh} FROM tellings
      WINDOW earlier AS ({order} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
    ), filled AS (
      SELECT record, known, said, last_value("row" IGNORE NULLS) OVER sofar AS "row", {filled},
        row_number() OVER (PARTITION BY record, known ORDER BY kind DESC, said DESC, nth DESC) AS from_last
      FROM fresh WINDOW sofar AS ({order} ROWS UNBOUNDED PRECEDING)
    ), states AS (
      SELECT record, known, said, "row", {', '.join(f'{name}.v AS {name}' for name in names)}
      FROM filled WHERE "row" IS NOT NULL AND from_last = 1
    )"""


def _worth(field: Field, settings: Settings) -> str:
    """A change's value; money in the workspace's currency, as validation gives the table's own."""
    if field.column.name not in {"mrr", "amount"} or not settings.rates:
        return field.read
    rates = " ".join(f"WHEN {literal(code)} THEN {float(worth)!r}" for code, worth in sorted(settings.rates.items()))
    return f"{field.read} * CASE paid_in {rates} ELSE 1.0 END"


def _paid_in(table: Table, settings: Settings) -> str:
    """SQL of what a row of the table was priced in before it was converted."""
    return quoted(ORIGINAL) if "currency" in table.by_name and settings.rates else "NULL"


def _versions(table: Table, fields: Sequence[Field], settings: Settings) -> str:
    """The query of a table whose records are one thing at a time: every version a row."""
    key = quoted(table.key[0])
    spoken = (f'SELECT c.*, c.id AS record, c.rowid AS nth, r.paid_in FROM {CHANGES} c JOIN (SELECT {key} AS record, '
              f'any_value({_paid_in(table, settings)}) AS paid_in FROM {table.name} GROUP BY 1) r ON r.record = c.id '
              f'WHERE c."table" = {literal(table.name)}')
    replayed = {one.column.name for one in fields}
    columns = [f"s.{quoted(name)}" if name in replayed else
               "CASE WHEN s.known = t.known_at THEN t.recorded_at ELSE s.known END AS recorded_at"
               if name == "recorded_at" else f"t.{quoted(name)}" for name in table.names]
    whole = " AND ".join(f"s.{quoted(one.column.name)} IS NOT NULL" for one in fields if one.column.required) or "true"
    kept = f"{key} IS NULL OR {key} NOT IN (SELECT record FROM states)"
    return (f"{_states(table, fields, settings, key, spoken)}, replayed AS (SELECT {', '.join(columns)}, "
            f's.known AS known_at, "row" FROM states s JOIN {table.name} t ON t.rowid = s."row" WHERE {whole}) '
            f"{_in_order(table, kept)}")


def _in_order(table: Table, kept: str) -> str:
    """The end of both queries: what was replayed and the rows to keep as they are, in the order of the export."""
    names = ", ".join(map(quoted, table.names))
    time = f", {quoted(table.time)}" if table.time else ""
    return (f"SELECT {names}, known_at FROM (FROM replayed UNION ALL SELECT {names}, known_at, rowid FROM {table.name} "
            f'WHERE {kept}) ORDER BY "row", known_at{time}')


def _spans(table: Table, fields: Sequence[Field], settings: Settings) -> str:
    """The query of the subscriptions: a state that changed ends its span of time and begins another.

    A change belongs to the period of its subscription that ran when it was made. Ends are left to the row: a span that
    is over, and known to be, is changed by nothing that comes after. Renewals of a later span keep their anniversaries.
    """
    record = "concat_ws(chr(31), account_id, subscription_id, epoch_us(started_at)::VARCHAR)"
    record = f"CASE WHEN subscription_id IS NOT NULL THEN {record} END"
    spoken = (f"SELECT c.*, p.record, c.rowid AS nth, p.paid_in FROM {CHANGES} c JOIN (SELECT {record} AS record, "
              f"subscription_id, started_at, lead(started_at) OVER other AS following, "
              f"row_number() OVER other AS place, "
              f"any_value({_paid_in(table, settings)}) AS paid_in FROM {SPANS} WHERE subscription_id IS NOT NULL "
              f"GROUP BY {_RECORD} WINDOW other AS (PARTITION BY account_id, subscription_id ORDER BY started_at)) p "
              f"ON p.subscription_id = c.id AND (c.changed_at >= p.started_at OR p.place = 1) "
              f"AND (p.following IS NULL OR c.changed_at < p.following) WHERE c.\"table\" = '{SPANS}'")
    state = [quoted(one.column.name) for one in fields if one.column.name not in _SPAN]
    packed = ", ".join(f"{name} := {name}" for name in state)
    term = f"greatest(coalesce(state.billing_months, 12) * {_MONTH}, 86400000000)"
    anchor = ("coalesce(state.renews_at, CASE WHEN state.billing_months > 0 AND NOT coalesce(ended_at IS NOT NULL AND "
              "coalesce(end_recorded_at, ended_at) <= first, false) THEN first END)")
    terms = f"ceil((epoch_us(since) - epoch_us({anchor})) / {term})"
    renews = (f"CASE WHEN since > first AND {anchor} < since "
              f"THEN {anchor} + to_microseconds(({terms} * {term})::BIGINT) "
              f"WHEN since > first THEN {anchor} ELSE state.renews_at END")
    columns = {one.column.name: f"state.{quoted(one.column.name)}" for one in fields}
    columns |= {"subscription_id": "t.subscription_id", "currency": "t.currency", "started_at": "since",
                "ended_at": "CASE WHEN x.ended_at < since THEN since ELSE x.ended_at END",
                "end_recorded_at": "x.end_recorded_at", "renews_at": "renews",
                "recorded_at": "CASE WHEN x.known = t.known_at THEN t.recorded_at ELSE x.known END"}
    listed = ", ".join(f"{columns[name]} AS {quoted(name)}" for name in table.names)
    return f"""{_states(table, fields, settings, record, spoken)}, told AS (
      SELECT s.*, t.started_at AS first, lag(s.known) OVER known_order IS NULL AS is_first,
        s.ended_at IS NOT NULL AND greatest(s.ended_at, s.end_recorded_at) <= greatest(s.said, t.started_at) AS is_over
      FROM states s JOIN {SPANS} t ON t.rowid = s."row" WHERE s.account_id IS NOT NULL
      WINDOW known_order AS (PARTITION BY s.record ORDER BY s.known)
    ), kept AS (
      SELECT *, last_value(CASE WHEN is_first OR NOT is_over THEN struct_pack({packed}) END IGNORE NULLS) OVER (
        PARTITION BY record ORDER BY known ROWS UNBOUNDED PRECEDING) AS state
      FROM told
    ), begun AS (
      SELECT *, CASE WHEN is_first THEN first WHEN state IS DISTINCT FROM lag(state) OVER known_order
        THEN greatest(said, first) END AS begins
      FROM kept WINDOW known_order AS (PARTITION BY record ORDER BY known)
    ), spans AS (
      SELECT * EXCLUDE (begins), max(begins) OVER (PARTITION BY record ORDER BY known ROWS UNBOUNDED PRECEDING) AS since
      FROM begun
    ), every AS (
      SELECT record, known, "row", first, state, since, ended_at, end_recorded_at FROM spans
      UNION ALL
      SELECT record, known, "row", first, was, had_begun, since, NULL FROM (
        SELECT *, lag(state) OVER known_order AS was, lag(since) OVER known_order AS had_begun FROM spans
        WINDOW known_order AS (PARTITION BY record ORDER BY known))
      WHERE since > had_begun
    ), timed AS (SELECT *, {renews} AS renews FROM every
    ), replayed AS (SELECT {listed}, x.known AS known_at, "row" FROM timed x JOIN {SPANS} t ON t.rowid = x."row")
    {_in_order(table, f"{record} IS NULL OR {record} NOT IN (SELECT record FROM states)")}"""
