"""Validated raw tables, held in one DuckDB connection: what every later room reads."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

import ibis
import pandas as pd
import pyarrow as pa
from ibis.expr import types as ir

from churnkit.cutoffs import moment
from churnkit.schemas import RAW_TABLES, Column, raw_table
from churnkit.settings import Settings, TableMap

_ARROW: Mapping[str, pa.DataType] = {
    "id": pa.string(), "text": pa.string(), "category": pa.string(), "time": pa.timestamp("us", tz="UTC"),
    "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(),
}
_GRAIN = {"instant": dt.timedelta(0), "hour": dt.timedelta(hours=1), "day": dt.timedelta(days=1)}


class Tables(Mapping[str, pd.DataFrame]):
    """The raw tables by name: `tables["surveys"]` is a DataFrame, `tables.expr("surveys")` an Ibis table.

    Every table of the contract is there, with every column of the contract and `known_at`, the moment from which the row
    could be known; a table that was not given is empty, and `tables.has(name)` is then False.
    """

    def __init__(self, arrow: Mapping[str, pa.Table], settings: Settings, covers_until: Mapping[str, dt.datetime]) -> None:
        self.settings = settings
        self.covers_until = dict(covers_until)
        self.given = frozenset(arrow)
        self.con: Any = ibis.duckdb.connect()
        self.con.raw_sql("SET TimeZone = 'UTC'")
        for name, table in RAW_TABLES.items():
            self.con.create_table(name, arrow[name] if name in arrow else empty(table.columns))

    def __getitem__(self, name: str) -> pd.DataFrame:
        return self.expr(name).to_pandas()

    def __iter__(self) -> Iterator[str]:
        return iter(RAW_TABLES)

    def __len__(self) -> int:
        return len(RAW_TABLES)

    def has(self, name: str) -> bool:
        """Whether the table was given."""
        return raw_table(name).name in self.given

    def expr(self, name: str) -> ir.Table:
        """The table as an Ibis expression on this object's DuckDB connection, `self.con`."""
        return self.con.table(raw_table(name).name)

    @classmethod
    def from_frames(cls, settings: Settings | None = None, **frames: pd.DataFrame) -> Tables:
        """Tables from pandas frames that follow the contract's column names."""
        settings = settings or Settings()
        arrow, reach = {}, {}
        for name, frame in frames.items():
            mapping = settings.tables.get(name, TableMap())
            arrow[name] = to_contract(frame, name, mapping)
            reach[name] = mapping.covers_until or settings.covers_until or moment("2026-11-21")
        return cls(arrow, settings, reach)


def empty(columns: tuple[Column, ...]) -> pa.Table:
    """No rows, with the contract's columns and `known_at`."""
    fields = [pa.field(column.name, _ARROW[column.kind]) for column in columns]
    return pa.schema([*fields, pa.field("known_at", _ARROW["time"])]).empty_table()


def to_contract(frame: pd.DataFrame, name: str, mapping: TableMap) -> pa.Table:
    """A frame as an Arrow table of the contract: all columns, in order, typed, with `known_at`."""
    table = raw_table(name)
    data = {}
    for column in table.columns:
        values = frame[column.name] if column.name in frame else pd.Series([None] * len(frame), dtype=object)
        if column.kind == "time":
            values = pd.to_datetime(values, utc=True, format="ISO8601").dt.as_unit("us")
        data[column.name] = pa.Array.from_pandas(values, type=_ARROW[column.kind])
    own = pd.to_datetime(frame[table.time], utc=True, format="ISO8601") if table.time else pd.Series(pd.NaT, frame.index, dtype="datetime64[us, UTC]")
    known = own + max(mapping.known_after, _GRAIN[mapping.grain])
    if "recorded_at" in frame:
        recorded = pd.to_datetime(frame["recorded_at"], utc=True, format="ISO8601")
        known = recorded.fillna(known).where(recorded.isna() | (recorded > known), known) if mapping.grain != "instant" else recorded.fillna(known)
    data["known_at"] = pa.Array.from_pandas(known.dt.as_unit("us"), type=_ARROW["time"])
    return pa.table(data)
