"""Feature files: one Parquet folder per group, one file per day of cutoffs, each written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from churnkit.errors import FeatureError

SCHEMA_VERSION = 2
"""The layout of feature files; an older churnkit refuses newer files."""
TIME, CREATED = "event_timestamp", "created"
"""The cutoff, and from when the values could be known, which is the cutoff too: Feast's names for the two clocks."""
RESTATED = "restated"
"""When a row was computed anew from data that came later; such a row is created then, and was not known at its cutoff.

It lies beside the row that was known. The one created last is served, but with Feast's known-at filter the other."""
EMPTY = "empty.parquet"
"""The file of a group's folder that holds its columns and no row; it marks a folder as one of feature files."""
_MARK = b"churnkit_schema_version"


def write(folder: Path, frame: pd.DataFrame, schema: pa.Schema, *, beside: bool = False) -> None:
    """Writes rows into the files of their days; an entity's rows at a cutoff are replaced, all others stay.

    Args:
        folder: The group's folder; made when missing.
        frame: Rows with `schema`'s columns, among them `event_timestamp`; without the mark they are no restatement.
        schema: Columns and types of the file.
        beside: Whether an entity's rows at a cutoff that were created at another time stay too.

    Raises:
        FeatureError: If a file of that day cannot be read, or is of a newer churnkit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    schema = schema.with_metadata({_MARK: str(SCHEMA_VERSION).encode()})
    keys = [schema.names[0], TIME, *([CREATED] if beside else [])]
    frame = marked(frame)
    _replace(folder / EMPTY, schema.empty_table())  # so that the folder has its schema before its first row
    whole = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    day_of = days(frame[TIME])
    for day, places in sorted(day_of.groupby(day_of).indices.items()):
        file = folder / f"{day}.parquet"
        table = whole.take(pa.array(places))
        if file.exists():
            kept = _aligned(read(file), schema)
            kept = kept.append_column("_row", pa.array(range(len(kept)), pa.int64()))
            kept = kept.join(table.select(keys), keys, join_type="left anti").sort_by("_row").drop_columns("_row")
            table = pa.concat_tables([kept.select(schema.names).cast(schema), table])
        _replace(file, table)


def days(times: pd.Series) -> pd.Series:
    """The day of every time, by which its file is called.

    >>> days(pd.Series(pd.to_datetime(["2026-11-01T23:59:59Z", "2026-11-02T00:00:00Z"]))).tolist()
    ['2026-11-01', '2026-11-02']
    """
    starts = times.dt.floor("D")
    names = {start: f"{start:%Y-%m-%d}" for start in starts.unique()}  # cutoffs are few, points are many
    return cast("pd.Series", starts.map(names))


def marked(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows with the mark of a restatement, which is empty where they are none."""
    never = pd.Series(pd.NaT, frame.index, "datetime64[us, UTC]")
    return frame if RESTATED in frame else frame.assign(**{RESTATED: never})


def differing(standing: pd.DataFrame, frame: pd.DataFrame, schema: pa.Schema) -> pd.DataFrame:
    """Where rows computed anew say something else than what stands: one row per row of `frame`, true by column.

    Args:
        standing: The rows that are served, each entity and cutoff once.
        frame: The rows computed anew; those that nothing stands for differ in nothing.
        schema: Of both.
    """
    keys, values = [schema.names[0], TIME], [name for name in schema.names[1:] if name not in {TIME, CREATED, RESTATED}]
    both = frame[keys].merge(standing, "left", on=keys, indicator=True)
    there = (both["_merge"] == "both").to_numpy()
    found: dict[str, npt.NDArray[np.bool_]] = {}
    for name in values:
        new, old = frame[name].reset_index(drop=True), both[name]
        found[name] = there & ~((new == old) | (new.isna() & old.isna())).fillna(value=False).to_numpy(dtype=bool)
    return pd.DataFrame(found, index=frame.index)


def standing(folder: Path, schema: pa.Schema, days: Collection[str]) -> pd.DataFrame:
    """The rows of some days' files that are served: of an entity's rows at a cutoff the one created last."""
    keys = [schema.names[0], TIME]
    tables = [_aligned(read(file), schema) for file in files(folder) if file.stem in days]
    rows: pd.DataFrame = pa.concat_tables([schema.empty_table(), *tables]).to_pandas()
    return rows.sort_values(CREATED, kind="stable").drop_duplicates(keys, keep="last")


def restatements(data: Path, entity_id: str, cutoff: pd.Timestamp) -> dict[str, pd.Timestamp]:
    """By group, when an entity's features at a cutoff were restated last; groups where they never were are left out.

    Args:
        data: The folder of the groups' folders.
        entity_id: An account's or an asset's id.
        cutoff: The cutoff.
    """
    found: dict[str, pd.Timestamp] = {}
    for file in sorted(data.glob(f"*/{cutoff:%Y-%m-%d}.parquet")):
        if RESTATED in _stored_schema(file).names:
            key = _stored_schema(file).names[0]
            rows = read(file, [key, TIME, RESTATED]).to_pandas()
            mine = rows.loc[(rows[key] == entity_id) & (rows[TIME] == cutoff), RESTATED].max()
            found |= {file.parent.name: mine} if not pd.isna(mine) else {}
    return found


def read(file: Path, columns: list[str] | None = None) -> pa.Table:
    """One feature file, or some of its columns.

    Raises:
        FeatureError: If it cannot be read, or is of a newer churnkit.
    """
    try:
        return pq.ParquetFile(file, metadata=footer(file)).read(columns)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from None


def check(file: Path) -> None:
    """Refuses a feature file that a newer churnkit wrote.

    Raises:
        FeatureError: If its schema version is newer than ours, or it has none, or it cannot be read.
    """
    footer(file)


def footer(file: Path, *, ours: bool = True) -> pq.FileMetaData:
    """A Parquet file's footer: its columns and its number of rows.

    Args:
        file: The file.
        ours: Whether it must be a feature file of churnkit; other Parquet files bear no mark.

    Raises:
        FeatureError: As for `check`.
    """
    try:
        found = pq.read_metadata(file)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from None
    mark = (found.metadata or {}).get(_MARK)
    if ours and (mark is None or not mark.isdigit()):
        raise FeatureError(f"'{file}' is no feature file of churnkit. Move it out of the features' data folder.")
    if mark is not None and mark.isdigit() and int(mark) > SCHEMA_VERSION:
        raise FeatureError(f"Feature file '{file}' has schema version {int(mark)}, newer than this churnkit knows "
                           f"({SCHEMA_VERSION}). Upgrade churnkit.")
    return found


def upgrade(data: Path) -> Path | None:
    """Brings feature files of an earlier layout up to date; the whole folder is copied beside itself before.

    Files of layout 0, before versions were written, differ in the missing mark alone; those of layout 1 have no
    column that tells restatements.

    Returns:
        The copy, or None where nothing was old.
    """
    old = [file for file in sorted(data.glob("*/*.parquet")) if _version(file) < SCHEMA_VERSION]
    if not old:
        return None
    kept = data.with_name(f"{data.name}.before-{SCHEMA_VERSION}")
    if not kept.exists():
        part = kept.with_name(f".{kept.name}.{os.getpid()}")
        shutil.copytree(data, part)
        part.replace(kept)
    for file in old:
        table = pq.ParquetFile(file).read()
        if RESTATED not in table.column_names:
            empty = pa.nulls(len(table), pa.timestamp("us", tz="UTC"))
            table = table.add_column(table.column_names.index(CREATED) + 1, RESTATED, empty)
        _replace(file, table.replace_schema_metadata({_MARK: str(SCHEMA_VERSION).encode()}))
    return kept


def _version(file: Path) -> int:
    mark = (_stored_schema(file).metadata or {}).get(_MARK, b"0")
    return int(mark) if mark.isdigit() else 0


def _stored_schema(file: Path) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: Exception) -> FeatureError:
    return FeatureError(f"Feature file '{file}' cannot be read ({str(error).splitlines()[0]}). Delete it and compute "
                        "that day again: churnkit features --at DATE.")


def files(folder: Path) -> list[Path]:
    """A group's files, the oldest day first."""
    return sorted(folder.glob("*.parquet"))


def held(folder: Path, schema: pa.Schema, days: Collection[str] | None = None) -> pd.DataFrame:
    """Whose rows at which cutoffs a group's files hold with just these columns; earlier definitions do not count.

    Args:
        folder: The group's folder.
        schema: The columns.
        days: Which days' files to look into, as 2026-11-01; by default all.
    """
    keys = [schema.names[0], TIME]
    tables = [read(file, keys) for file in files(folder)
              if (days is None or file.stem in days) and _features(_stored_schema(file)) == _features(schema)]
    rows: pd.DataFrame = pa.concat_tables([schema.empty_table().select(keys), *tables]).to_pandas()
    return rows


def schema(id_column: str, kinds: Mapping[str, str]) -> pa.Schema:
    """The file schema of a group: key, two clocks, mark, and its columns (`number`, `category` or `moment`)."""
    types = {"number": pa.float64(), "category": pa.string(), "moment": pa.int64()}
    stamp = pa.timestamp("us", tz="UTC")
    return pa.schema([(id_column, pa.string()), (TIME, stamp), (CREATED, stamp), (RESTATED, stamp),
                      *((name, types[kind]) for name, kind in kinds.items())])


def _features(schema: pa.Schema) -> list[str]:
    """What a file's rows were computed by; the mark of restatements is no part of it."""
    return [name for name in schema.names if name != RESTATED]


def _aligned(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table of an earlier catalog in today's columns; what it lacks is missing."""
    columns = [table[field.name].cast(field.type) if field.name in table.column_names
               else pa.nulls(len(table), field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _replace(file: Path, table: pa.Table) -> None:
    part = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        pq.write_table(table, part, compression="zstd")
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
