"""The as-of search in arrays: for every point the newest row of its key, and then the columns of the rows found.

Keys and times alone are searched, once for all columns; each column is then gathered by row number. That is quicker
than a join which carries the columns along, and keeps the order of the points by nature.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Numbers = npt.NDArray[np.int64]
NEVER = np.iinfo(np.int64).min
"""The time of a row or point that has none: it matches nothing."""


@dataclass(frozen=True)
class Keyed:
    """Rows or points to search among: their key columns and their times in microseconds of UTC.

    `created` says from when a row could be known; points have none.
    """

    keys: tuple[pa.ChunkedArray, ...]
    at: Numbers
    created: Numbers | None = None


def newest(rows: Keyed, points: Keyed, ttl: int | None = None, *, known: bool = False) -> Numbers:
    """Per point the number of the newest row of its key at or before it, or -1.

    Of rows of one time the one created last is taken, and of those the last in order. A point without a key, and a row
    without a key or a time, match nothing.

    Args:
        rows: Where to search, shape (n,).
        points: For which to search, shape (m,).
        ttl: A row that is older than this many microseconds at the point does not count; one of just this age does.
        known: Whether a row counts only from its `created` on; a row without it then never does.

    Returns:
        Row numbers, shape (m,).

    >>> rows = Keyed((pa.chunked_array([["a", "a", "b"]]),), np.array([10, 20, 10]), np.array([10, 99, 10]))
    >>> points = Keyed((pa.chunked_array([["b", "a", "a", "c"]]),), np.array([15, 25, 9, 99]))
    >>> newest(rows, points).tolist()
    [2, 1, -1, -1]
    >>> newest(rows, points, known=True).tolist()
    [2, 0, -1, -1]
    >>> newest(rows, points, ttl=5).tolist()
    [2, 1, -1, -1]
    """
    code, asked = _codes(rows, points)
    known = known and rows.created is not None
    usable = (code >= 0) & (rows.at != NEVER)
    if known and rows.created is not None:
        usable &= rows.created != NEVER
    number = np.flatnonzero(usable)
    if not len(number):
        return np.full(len(points.at), -1, np.int64)
    number = number[_order(code[number], rows.at[number], None if rows.created is None else rows.created[number])]
    code, since = code[number], rows.at[number]
    if known and rows.created is not None and (late := np.maximum(since, rows.created[number])).max(initial=NEVER) \
            and (late > since).any():
        # A row that was known late may be older than one known before it: what counts at a time is the newest row
        # among those known by then. Ranks grow with the key, so one running maximum serves all keys.
        by_knowing = _order(code, late, None)
        number, since = number[np.maximum.accumulate(by_knowing)], late[by_knowing]
    times = np.unique(since)
    base = len(times) + 1  # a key's rows and points lie in a range of numbers of its own
    places = code * base + np.searchsorted(times, since, "right")
    wanted = asked * base + np.searchsorted(times, points.at, "right")
    sequence = np.argsort(wanted, kind="stable")  # searching in order keeps to the cache
    place = np.empty(len(wanted), np.int64)
    place[sequence] = np.searchsorted(places, wanted[sequence], "right") - 1
    hit = (place >= 0) & (asked >= 0) & (code[place] == asked)
    found = np.where(hit, number[place], -1)
    if ttl is not None:
        found[hit & (points.at - rows.at[found] > ttl)] = -1
    return found


def latest(rows: Keyed, first: int, last: int) -> Numbers:
    """The newest row of each key with a time from `first` to `last`, both included, by the rules of `newest`.

    >>> latest(Keyed((pa.chunked_array([["a", "b", "a"]]),), np.array([1, 2, 3])), first=1, last=2).tolist()
    [0, 1]
    """
    code, _ = _codes(rows, rows)
    number = np.flatnonzero((code >= 0) & (rows.at >= first) & (rows.at <= last))
    number = number[_order(code[number], rows.at[number], None if rows.created is None else rows.created[number])]
    ends = np.append(np.diff(code[number]) != 0, True)[:len(number)]
    return np.sort(number[ends])


def gathered(table: pa.Table, number: Numbers) -> pa.Table:
    """The rows of those numbers, in that order; -1 gives nulls. Columns are gathered in parallel.

    >>> gathered(pa.table({"x": [1.0, None, 3.0]}), np.array([2, -1, 1, 2]))["x"].to_pylist()
    [3.0, None, None, 3.0]
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        columns = list(pool.map(lambda column: _gathered(column, number), table.columns))
    return pa.table(columns, names=table.column_names)


def microseconds(column: pa.ChunkedArray) -> Numbers:
    """A column of times as microseconds of UTC, NEVER where it is null; nanoseconds are cut off, naive times are UTC.

    >>> microseconds(pa.chunked_array([pa.array([1_999, None], pa.timestamp("ns"))])).tolist()[0]
    1
    """
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        whole = pc.divide(column.cast(pa.int64()), 1000)
        cut = pc.less(column.cast(pa.int64()), pc.multiply(whole, 1000))  # division rounds towards 1970
        values = pc.subtract(whole, cut.cast(pa.int64()))
    else:
        values = column.cast(pa.timestamp("us", tz=getattr(kind, "tz", None))).cast(pa.int64())
    numbers: Numbers = values.fill_null(NEVER).to_numpy()
    return numbers


def _order(code: Numbers, at: Numbers, created: Numbers | None) -> Numbers:
    """How to sort by key, time and creation; what is equal in all three stays in its order."""
    times, rank = np.unique(at, return_inverse=True)
    place = code * len(times) + rank
    if created is None or np.array_equal(at, created):
        return np.argsort(place, kind="stable")
    return np.lexsort((created, place))


def _codes(rows: Keyed, points: Keyed) -> tuple[Numbers, Numbers]:
    """Keys of one or several columns as numbers from 0, those of the points in the rows' numbering; -1 for none."""
    code, asked = np.zeros(len(rows.at), np.int64), np.zeros(len(points.at), np.int64)
    for row_column, point_column in zip(rows.keys, points.keys, strict=True):
        encoded = row_column.combine_chunks().dictionary_encode()
        own = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        theirs = (own if point_column is row_column else
                  pc.index_in(point_column, value_set=encoded.dictionary).fill_null(-1).to_numpy().astype(np.int64))
        several = max(len(encoded.dictionary), 1)
        code = np.where((code < 0) | (own < 0), -1, code * several + own)
        asked = np.where((asked < 0) | (theirs < 0), -1, asked * several + theirs)
        if len(rows.keys) > 1:  # numbered anew, so that any number of key columns stays within 64 bits
            there = np.unique(code[code >= 0])
            code = _renumbered(there, code)
            asked = _renumbered(there, asked)
    return code, asked


def _renumbered(there: Numbers, code: Numbers) -> Numbers:
    place = np.minimum(np.searchsorted(there, code), max(len(there) - 1, 0))
    return np.where(there[place] == code, place, -1) if len(there) else np.full(len(code), -1, np.int64)


def _gathered(column: pa.ChunkedArray, number: Numbers) -> pa.Array:
    array = column.combine_chunks()
    if not len(array):
        return pa.nulls(len(number), array.type)
    kind = array.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_timestamp(kind)):
        return array.take(pa.array(number, mask=number < 0))
    # NumPy gathers numbers some five times as fast as Arrow does; "clip" spares it a second look at the bounds.
    plain = pa.Array.from_buffers(kind, len(array), [None, array.buffers()[1]], offset=array.offset)
    values = plain.to_numpy(zero_copy_only=False).take(number, mode="clip")
    lost = number < 0
    if array.null_count:
        lost |= array.is_null().to_numpy(zero_copy_only=False).take(number, mode="clip")
    return pa.array(values, kind, mask=lost)
