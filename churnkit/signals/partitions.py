"""Feature files: one Parquet folder per group, one file per day of cutoffs, each written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from churnkit.errors import FeatureError

SCHEMA_VERSION = 1
"""The layout of feature files; an older churnkit refuses newer files."""
TIME, CREATED = "event_timestamp", "created"
"""The cutoff, and from when the values could be known, which is the cutoff too: Feast's names for the two clocks."""
_MARK = b"churnkit_schema_version"


def write(folder: Path, frame: pd.DataFrame, schema: pa.Schema) -> None:
    """Writes rows into the files of their days; an entity's row at a cutoff is replaced, all others stay.

    Args:
        folder: The group's folder; made when missing.
        frame: Rows with `schema`'s columns, among them `event_timestamp`.
        schema: Columns and types of the file.

    Raises:
        FeatureError: If a file of that day cannot be read, or is of a newer churnkit.
    """
    folder.mkdir(parents=True, exist_ok=True)
    schema = schema.with_metadata({_MARK: str(SCHEMA_VERSION).encode()})
    keys = [schema.names[0], TIME]
    _replace(folder / "empty.parquet", schema.empty_table())  # so that the folder has its schema before its first row
    for day, rows in frame.groupby(frame[TIME].dt.strftime("%Y-%m-%d"), sort=True):
        file = folder / f"{day}.parquet"
        table = pa.Table.from_pandas(rows, schema=schema, preserve_index=False)
        if file.exists():
            kept = read(file).append_column("_row", pa.array(range(pq.read_metadata(file).num_rows), pa.int64()))
            kept = kept.join(table.select(keys), keys, join_type="left anti").sort_by("_row").drop_columns("_row")
            table = pa.concat_tables([_aligned(kept, schema), table])
        _replace(file, table)


def read(file: Path, columns: list[str] | None = None) -> pa.Table:
    """One feature file, or some of its columns.

    Raises:
        FeatureError: If it cannot be read, or is of a newer churnkit.
    """
    try:
        check(file)
        return pq.ParquetFile(file).read(columns)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from None


def check(file: Path) -> None:
    """Refuses a feature file that a newer churnkit wrote.

    Raises:
        FeatureError: If its schema version is newer than ours, or it has none, or it cannot be read.
    """
    mark = (_stored_schema(file).metadata or {}).get(_MARK)
    if mark is None or not mark.isdigit():
        raise FeatureError(f"'{file}' is no feature file of churnkit. Move it out of the features' data folder.")
    if int(mark) > SCHEMA_VERSION:
        raise FeatureError(f"Feature file '{file}' has schema version {int(mark)}, newer than this churnkit knows "
                           f"({SCHEMA_VERSION}). Upgrade churnkit.")


def upgrade(data: Path) -> Path | None:
    """Brings feature files of an earlier layout up to date; the whole folder is copied beside itself before.

    Files of layout 0, before versions were written, differ in the missing mark alone.

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


def held(folder: Path, schema: pa.Schema) -> pd.DataFrame:
    """Whose rows at which cutoffs a group's files hold with just these columns; earlier definitions do not count."""
    keys = [schema.names[0], TIME]
    tables = [read(file, keys) for file in files(folder) if _stored_schema(file).names == schema.names]
    rows: pd.DataFrame = pa.concat_tables([schema.empty_table().select(keys), *tables]).to_pandas()
    return rows


def schema(id_column: str, kinds: Mapping[str, str]) -> pa.Schema:
    """The file schema of a group: key, two clocks, and its columns (`number`, `category` or `moment`)."""
    types = {"number": pa.float64(), "category": pa.string(), "moment": pa.int64()}
    stamp = pa.timestamp("us", tz="UTC")
    return pa.schema([(id_column, pa.string()), (TIME, stamp), (CREATED, stamp),
                      *((name, types[kind]) for name, kind in kinds.items())])


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
