"""Where feature rows lie: Parquet files by default, tables where feature_store.yaml names PostgreSQL as offline store.

A shelf holds the rows of every group by entity and cutoff. It is chosen by the type of `offline_store` alone, so that
the same definitions, and all that reads and writes features, stay as they are when a user outgrows files.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, cast

import pandas as pd
import pyarrow as pa
import yaml
from feast import FileSource
from feast.data_format import ParquetFormat
from feast.data_source import DataSource
from feast.repo_config import load_repo_config

from churnkit.errors import FeatureError
from churnkit.signals import partitions
from churnkit.signals.partitions import CREATED, TIME

FILE = "feature_store.yaml"
_TYPES = {"double": "double precision", "string": "text", "int64": "bigint"}
_LONGEST = 63
"""PostgreSQL cuts longer names off in silence."""


class Shelf(Protocol):
    """What the store asks of the place where feature rows lie; a group's rows go by a name, `usage` for instance."""

    def source(self, name: str) -> DataSource:
        """Feast's source of the group."""

    def ready(self, name: str, schema: pa.Schema) -> None:
        """Makes the group's place with its columns, if there is none."""

    def write(self, name: str, frame: pd.DataFrame, schema: pa.Schema, *, beside: bool = False) -> None:
        """Writes rows, whole or not at all; an entity's rows at a cutoff are replaced, all others stay.

        With `beside`, only a row of the same creation is replaced.
        """

    def standing(self, name: str, schema: pa.Schema, cutoffs: pd.Series) -> pd.DataFrame:
        """The rows at the cutoffs that are served, and perhaps some at other cutoffs."""

    def held(self, name: str, schema: pa.Schema, cutoffs: pd.Series) -> pd.DataFrame:
        """Whose rows at which of the cutoffs there are by just these columns, and perhaps some at other cutoffs."""

    def newest(self, name: str, schema: pa.Schema, entity_id: str, cutoff: pd.Timestamp) -> pd.Timestamp | None:
        """The newest cutoff at or before another for which there is a row of an entity."""


def shelf(folder: Path) -> Shelf:
    """The shelf that a features folder's feature_store.yaml names; files where it says nothing else, or is not there.

    Args:
        folder: The features folder, which is a Feast repo.
    """
    kind = ""
    with contextlib.suppress(OSError, yaml.YAMLError, KeyError, TypeError):  # Feast tells of a damaged file
        kind = yaml.safe_load((folder / FILE).read_text(encoding="utf-8"))["offline_store"]["type"]
    if kind == "postgres":
        return Tables(folder)
    return Files(folder, spark=kind == "spark")


class Files:
    """A folder of Parquet files per group, one file per day of cutoffs; see partitions.py."""

    def __init__(self, folder: Path, *, spark: bool = False) -> None:
        self.folder, self.spark = folder, spark

    def source(self, name: str) -> DataSource:
        """A source of Parquet files; for Feast's Spark store one of its own kind, by an absolute path."""
        clocks: dict[str, Any] = {"timestamp_field": TIME, "created_timestamp_column": CREATED}
        if self.spark:
            from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource

            return SparkSource(name=f"{name}_files", path=str(self._place(name)), file_format="parquet", **clocks)
        return FileSource(name=f"{name}_files", path=f"data/{name}", file_format=ParquetFormat(), **clocks)

    def ready(self, name: str, schema: pa.Schema) -> None:
        """Writes the empty file of the group."""
        if not (self._place(name) / partitions.EMPTY).exists():
            partitions.write(self._place(name), schema.empty_table().to_pandas(), schema)

    def write(self, name: str, frame: pd.DataFrame, schema: pa.Schema, *, beside: bool = False) -> None:
        """Writes the files of the days, each whole or not at all, the oldest first."""
        partitions.write(self._place(name), frame, schema, beside=beside)

    def standing(self, name: str, schema: pa.Schema, cutoffs: pd.Series) -> pd.DataFrame:
        """Reads the files of the cutoffs' days."""
        return partitions.standing(self._place(name), schema, set(partitions.days(cutoffs)))

    def held(self, name: str, schema: pa.Schema, cutoffs: pd.Series) -> pd.DataFrame:
        """Looks into the files of the cutoffs' days alone."""
        return partitions.held(self._place(name), schema, set(partitions.days(cutoffs)))

    def newest(self, name: str, schema: pa.Schema, entity_id: str, cutoff: pd.Timestamp) -> pd.Timestamp | None:
        """Looks into the files from the newest day backwards."""
        key = schema.names[0]
        for file in reversed(partitions.files(self._place(name))):
            if file.name == partitions.EMPTY or file.stem > f"{cutoff:%Y-%m-%d}":
                continue
            rows = partitions.read(file, [key, TIME]).to_pandas()
            times = rows.loc[(rows[key] == entity_id) & (rows[TIME] <= cutoff), TIME]
            if len(times):
                return cast("pd.Timestamp", times.max())
        return None

    def _place(self, name: str) -> Path:
        return self.folder / "data" / name


class Tables:
    """A table `features_<group>` per group in the database of Feast's PostgreSQL offline store.

    The column `definition` says by which columns a row was computed, so that rows of earlier definitions do not count
    as held, as with files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._config: Any = None

    def source(self, name: str) -> DataSource:
        """The group's table."""
        from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource

        return PostgreSQLSource(name=f"{name}_table", table=_table(name), timestamp_field=TIME,
                                created_timestamp_column=CREATED)

    def ready(self, name: str, schema: pa.Schema) -> None:
        """Makes the table, or adds the columns that it lacks."""
        with self._connected() as connection:
            self._make(connection, name, schema)

    def write(self, name: str, frame: pd.DataFrame, schema: pa.Schema, *, beside: bool = False) -> None:
        """Writes all rows in one transaction, by COPY into a table of its own and from there."""
        columns = [*schema.names, "definition"]
        names = ", ".join(map(_quoted, columns))
        keys = [schema.names[0], TIME, *([CREATED] if beside else [])]
        same = " AND ".join(f"old.{_quoted(key)} = incoming.{_quoted(key)}" for key in keys)
        rows = pa.Table.from_pandas(partitions.marked(frame), schema=schema, preserve_index=False)
        rows = rows.append_column("definition", pa.array([_definition(schema)] * len(rows)))
        with self._connected() as connection:
            self._make(connection, name, schema)
            connection.execute(f"CREATE TEMPORARY TABLE incoming (LIKE {_table(name)}) ON COMMIT DROP")
            with connection.cursor().copy(f"COPY incoming ({names}) FROM STDIN") as copy:
                for batch in rows.to_batches(max_chunksize=10_000):
                    for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                        copy.write_row(row)
            connection.execute(f"DELETE FROM {_table(name)} AS old USING incoming WHERE {same}")  # noqa: S608 - quoted
            connection.execute(f"INSERT INTO {_table(name)} ({names}) SELECT {names} FROM incoming")  # noqa: S608

    def standing(self, name: str, schema: pa.Schema, cutoffs: pd.Series) -> pd.DataFrame:
        """Asks for the rows between the first cutoff and the last."""
        keys = ", ".join(map(_quoted, (schema.names[0], TIME)))
        names = ", ".join(map(_quoted, schema.names))
        with self._connected() as connection:
            self._make(connection, name, schema)
            found = connection.execute(
                f"SELECT DISTINCT ON ({keys}) {names} FROM {_table(name)} "  # noqa: S608 - quoted names
                f"WHERE {_quoted(TIME)} BETWEEN %s AND %s ORDER BY {keys}, {_quoted(CREATED)} DESC",
                [cutoffs.min(), cutoffs.max()]).fetchall()
        columns = list(zip(*found, strict=True)) or [()] * len(schema)
        rows: pd.DataFrame = pa.Table.from_arrays([pa.array(column, field.type) for column, field in zip(
            columns, schema, strict=True)], schema=schema).to_pandas()
        return rows

    def held(self, name: str, schema: pa.Schema, cutoffs: pd.Series) -> pd.DataFrame:
        """Asks for the keys between the first cutoff and the last."""
        key = schema.names[0]
        found: list[tuple[Any, ...]] = []
        with self._connected() as connection:
            if len(cutoffs) and connection.execute("SELECT to_regclass(%s)", [_table(name)]).fetchone()[0] is not None:
                found = connection.execute(
                    f"SELECT {_quoted(key)}, {_quoted(TIME)} FROM {_table(name)} WHERE definition = %s "  # noqa: S608
                    f"AND {_quoted(TIME)} BETWEEN %s AND %s",
                    [_definition(schema), cutoffs.min(), cutoffs.max()]).fetchall()
        frame = pd.DataFrame(found, columns=[key, TIME])
        return frame.assign(**{TIME: pd.to_datetime(frame[TIME], utc=True).dt.as_unit("us")})

    def newest(self, name: str, schema: pa.Schema, entity_id: str, cutoff: pd.Timestamp) -> pd.Timestamp | None:
        """Asks the table's index."""
        with self._connected() as connection:
            (when,) = connection.execute(
                f"SELECT max({_quoted(TIME)}) FROM {_table(name)} WHERE {_quoted(schema.names[0])} = %s "  # noqa: S608
                f"AND {_quoted(TIME)} <= %s", [entity_id, cutoff]).fetchone()
        return None if when is None else pd.Timestamp(when).tz_convert("UTC")

    def _make(self, connection: Any, name: str, schema: pa.Schema) -> None:
        kinds = {field.name: "timestamptz" if pa.types.is_timestamp(field.type) else _TYPES[str(field.type)]
                 for field in schema}
        long = [column for column in kinds if len(column.encode()) > _LONGEST]
        if long:
            raise FeatureError(f"The feature '{long[0]}' has a longer name than PostgreSQL keeps ({_LONGEST} bytes). "
                               "Give it a shorter one, or keep features in files: docs/feast.md.")
        columns = ", ".join(f"{_quoted(column)} {kind}" for column, kind in kinds.items())
        connection.execute(f"CREATE TABLE IF NOT EXISTS {_table(name)} ({columns}, definition text NOT NULL, "
                           f"PRIMARY KEY ({_quoted(schema.names[0])}, {_quoted(TIME)}, {_quoted(CREATED)}))")
        for column, kind in kinds.items():
            connection.execute(f"ALTER TABLE {_table(name)} ADD COLUMN IF NOT EXISTS {_quoted(column)} {kind}")

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Any]:
        """A connection in one transaction, to where Feast's offline store reads."""
        from feast.infra.utils.postgres.connection_utils import _get_conn

        self._config = self._config or load_repo_config(self.folder, self.folder / FILE).offline_store
        with contextlib.closing(_get_conn(self._config)) as connection, connection.transaction():
            yield connection


def _table(name: str) -> str:
    return f"features_{name.replace('-', '_')}"


def _definition(schema: pa.Schema) -> str:
    return hashlib.sha256("\n".join(f"{field.name} {field.type}" for field in schema).encode()).hexdigest()[:16]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
