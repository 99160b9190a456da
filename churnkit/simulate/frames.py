"""From bulk arrays to the contract's tables: columns as Arrow, rows in the order of time, files on disk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv
import pyarrow.parquet as pq

from churnkit.schemas import raw_table
from churnkit.simulate.world import Array, labels

Frame: TypeAlias = Any  # a pyarrow table; pyarrow ships no types
PARQUET = ("usage_events", "telemetry", "ticket_messages")
_TIME = pa.timestamp("us", tz="UTC")


def words(values: Iterable[str], index: Array) -> pa.Array:
    """A column of texts by their number in `values`; a negative number is a missing text."""
    taken = pa.array(index.astype(np.int32), mask=index < 0)
    return pa.DictionaryArray.from_arrays(taken, pa.array(list(values), pa.string()))


def ids(known: Array, index: Array) -> pa.Array:
    """A column of ids by their number."""
    return words(known.tolist(), index)


def maybe(values: Array, there: Array) -> pa.Array:
    """A column of numbers, missing where not `there`."""
    return pa.array(values, mask=~there)


def frame(name: str, /, **columns: Any) -> Frame:
    """A table of the contract from arrays; it is sorted by its own time, ties by account or asset as they came.

    A time is a numpy datetime64[s], NaT where there is none.
    """
    table = raw_table(name)
    data = {}
    for column in table.columns:
        if column.name in columns:
            values = columns[column.name]
            made = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
            data[column.name] = _time(made) if column.kind == "time" else made
    unknown = set(columns) - set(data)
    if unknown:
        raise KeyError(f"{name} has no column {sorted(unknown)}")
    return pa.table(data)


def _time(values: pa.Array) -> pa.Array:
    return values.cast(pa.timestamp("us")).cast(_TIME)


def keep(table: Frame, *, number: str = "", prefix: str = "", by: str = "") -> Frame:
    """The rows in the order of time, numbered in that order in a new first column if `number` names one."""
    own = by or next(name for name in table.column_names if name.endswith("_at"))
    order = np.argsort(table[own].cast(pa.int64()).to_numpy(), kind="stable")
    table = table.take(pa.array(order))
    return table.add_column(0, number, pa.array(labels(prefix, len(table)), pa.string())) if number else table


def times(column: pa.ChunkedArray) -> Array:
    """A column of times as numpy's, to the second; NaT where there is none."""
    whole = column.cast(pa.timestamp("s", tz="UTC")).cast(pa.int64()).fill_null(np.iinfo(np.int64).min)
    return np.array(whole.to_numpy(zero_copy_only=False)).astype("datetime64[s]")


def put_times(table: Frame, name: str, values: Array) -> Frame:
    """The table with other times in a column."""
    return table.set_column(table.column_names.index(name), name, _time(pa.array(values)))


def joined(tables: Sequence[Frame]) -> Frame:
    """Tables of one kind, one after the other."""
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()


def graft(base: Frame, key: str, known: Array, since: Array, grown: Sequence[Frame], own: str) -> Frame:
    """The rows whose time `own` lies before the `since` of their `key` (one of `known`), and those that grew there."""
    place = pc.index_in(base[key].cast(pa.string()), value_set=pa.array(known, pa.string()))
    stays = times(base[own]) < since[place.to_numpy(zero_copy_only=False)] if len(base) else np.ones(0, dtype=bool)
    if stays.all() and not any(map(len, grown)):
        return base
    return keep(joined([base.filter(pa.array(stays)), *grown]), by=own)


def mended(table: Frame, key: str, newer: Frame, columns: Iterable[str]) -> Frame:
    """The table with those columns as `newer` has them, in rows that are in both."""
    there = pc.index_in(table[key], value_set=newer[key])
    for name in columns:
        column = pc.if_else(there.is_valid(), newer[name].take(there), table[name])
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def write(folder: Path, name: str, table: Frame) -> int:
    """Writes a table as its file, parquet for the large ones and CSV for the others; returns its rows."""
    if name in PARQUET:
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd", compression_level=1)
        return len(table)
    plain = {}
    for column in table.schema:
        values = table[column.name]
        if pa.types.is_timestamp(column.type):
            values = _iso(values.combine_chunks())
        elif pa.types.is_dictionary(column.type):
            values = values.cast(pa.string())
        plain[column.name] = values
    pv.write_csv(pa.table(plain), folder / f"{name}.csv")
    return len(table)


@cache
def _times_of_day() -> pa.Array:
    return pa.array([f"T{h:02d}:{m:02d}:{s:02d}Z" for h, m, s in product(range(24), range(60), range(60))])


def _iso(times: pa.Array) -> pa.Array:
    """Times as ISO 8601, to the second; by look-up, several times as fast as formatting each."""
    seconds = times.cast(pa.timestamp("s", tz="UTC")).cast(pa.int64())
    whole = seconds.fill_null(0).to_numpy(zero_copy_only=False)
    days, number = np.unique(whole // 86400, return_inverse=True)
    dates = pa.array(np.datetime_as_string(days.astype("datetime64[D]")).astype(object), pa.string())
    number = pa.array(number, mask=seconds.is_null().to_numpy(zero_copy_only=False))
    return pc.binary_join_element_wise(dates.take(number), _times_of_day().take(pa.array(whole % 86400)), "")


def write_parts(folder: Path, name: str, parts: Iterable[Frame]) -> int:
    """Writes a large table part by part, each a row group, so that it need never be in memory whole."""
    rows, writer, file = 0, None, folder / f"{name}.parquet"
    try:
        for part in parts:
            if writer is None:
                writer = pq.ParquetWriter(file, part.schema, compression="zstd", compression_level=1)
            writer.write_table(part)
            rows += len(part)
    finally:
        if writer is not None:
            writer.close()
    return rows


def summary(rows: Mapping[str, int]) -> str:
    """The tables and their rows as lines."""
    return "\n".join(f"{name:18}{count:>12,}" for name, count in rows.items())
