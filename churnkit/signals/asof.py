"""An offline store for Feast on Parquet files that keeps the order of rows, resolves paths in the repo, and is quick.

Feast's own DuckDB store reads relative paths against the working directory, loses the order of the rows asked for and
joins whole payloads. This one searches keys and times alone (newest.py) and gathers the columns by row number.
Name it in feature_store.yaml: `offline_store: {type: churnkit.signals.asof.AsofOfflineStore}`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, cast

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from feast import FeatureView, OnDemandFeatureView, RepoConfig
from feast.data_format import ParquetFormat
from feast.data_source import DataSource
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import (
    assert_expected_columns_in_entity_df,
    infer_event_timestamp_from_entity_df,
)
from feast.infra.registry.base_registry import BaseRegistry
from feast.saved_dataset import SavedDatasetStorage

from churnkit.signals import partitions
from churnkit.signals.newest import NEVER, Keyed, Numbers, gathered, latest, microseconds, newest

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CELLS = 2**24
"""How many values are read at a time: 128 MB of numbers."""


class AsofOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """Feast finds this class by its name."""

    type: Literal["churnkit.signals.asof.AsofOfflineStore"] = "churnkit.signals.asof.AsofOfflineStore"


class AsofOfflineStore(DuckDBOfflineStore):
    """Point-in-time retrieval from Parquet files; rows come back in the order in which they were asked for.

    Of feature rows of one key and time the one created last is served, and of those the last in the files. A row is
    served up to its view's time to live, this included. Times count to the microsecond; finer ones are cut off.
    """

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(  # noqa: PLR0913, PLR0917 - Feast's signature
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        **kwargs: Any,  # noqa: ARG004 - as below
    ) -> RetrievalJob:
        """See Feast's OfflineStore.

        Args:
            config: The repo's.
            feature_views: Of which views, as projected and aliased by the caller.
            feature_refs: Which features of them, `view:feature`.
            entity_df: The points: a frame of join keys and one column of times, or a DuckDB query that gives one;
                files in the query are relative to the repo.
            registry: Feast's, for on-demand views.
            project: Feast's.
            full_feature_names: Whether columns are called `view__feature`.
            filter_by_created_timestamp: Whether only what was created by a point's time counts for it.
            **kwargs: A range of dates, which Feast passes where there are no points.
        """
        points, when = _points(entity_df, config, feature_views)

        def found() -> pa.Table:
            asked = _Asked(points, microseconds(points[when]), full_feature_names, filter_by_created_timestamp)
            table = points
            for view in feature_views:
                for name, column in _as_of(config, view, feature_refs, asked):
                    if name in points.column_names:
                        raise ValueError(f"The points have a column '{name}', which is a feature's name too. Rename "
                                         "it, or ask with full_feature_names=True.")
                    table = table.append_column(name, column)
            return table

        span = pc.min_max(points[when].cast(pa.timestamp("us", tz="UTC"), safe=False)).as_py()
        metadata = RetrievalMetadata(features=feature_refs, keys=[name for name in points.column_names if name != when],
                                     min_event_timestamp=span["min"], max_event_timestamp=span["max"])
        return ArrowJob(found, config, metadata=metadata, full_feature_names=full_feature_names,
                        on_demand=OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry))

    @staticmethod
    def pull_latest_from_table_or_query(  # noqa: PLR0913, PLR0917 - Feast's signature
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """See Feast's OfflineStore; used by `feast materialize`."""
        clocks = [name for name in (timestamp_field, created_timestamp_column) if name]

        def found() -> pa.Table:
            rows = _Rows.of(data_source, config, start_date, end_date)
            keyed = rows.keyed(join_key_columns, timestamp_field, created_timestamp_column)
            number = latest(keyed, _micros(start_date), _micros(end_date))
            return rows.take([*join_key_columns, *feature_name_columns, *clocks], number)

        return ArrowJob(found, config)

    @staticmethod
    def pull_all_from_table_or_query(  # noqa: PLR0913, PLR0917 - Feast's signature
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """See Feast's OfflineStore."""
        clocks = [name for name in (timestamp_field, created_timestamp_column) if name]

        def found() -> pa.Table:
            rows = _Rows.of(data_source, config, start_date, end_date)
            at = rows.keyed([], timestamp_field, None).at
            first, last = _micros(start_date) if start_date else NEVER + 1, _micros(end_date) if end_date else None
            number = np.flatnonzero((at >= first) & (at <= (last if last is not None else at)))
            return rows.take([*join_key_columns, *feature_name_columns, *clocks], number)

        return ArrowJob(found, config)


class ArrowJob(RetrievalJob):
    """A retrieval that is done when its result is asked for; see Feast's RetrievalJob."""

    def __init__(self, found: Callable[[], pa.Table], config: RepoConfig, *, metadata: RetrievalMetadata | None = None,
                 full_feature_names: bool = False, on_demand: list[OnDemandFeatureView] | None = None) -> None:
        super().__init__()
        self._found, self._config, self._metadata = found, config, metadata
        self._full_feature_names, self._on_demand = full_feature_names, on_demand or []

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 - Feast's signature
        return self._found()

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        frame: pd.DataFrame = self._to_arrow_internal(timeout).to_pandas()
        return frame

    @property
    def full_feature_names(self) -> bool:
        """Whether columns are called `view__feature`."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """What Feast computes from the result."""
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What was asked for."""
        return self._metadata

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False,
                timeout: int | None = None) -> None:
        """Writes the result as a saved dataset: a Parquet file, or a folder of them, in the repo."""
        source = cast("FileSource", storage.to_data_source())
        place = _local(source, self._config)
        if place.exists() and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(location=str(place))
        table = self.to_arrow(timeout=timeout)
        file = place if place.suffix == ".parquet" else place / "dataset.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, file)


@dataclass(frozen=True)
class _Asked:
    """What every view is asked alike: the points with their times in microseconds, and how."""

    points: pa.Table
    at: Numbers
    full_names: bool
    known: bool


@dataclass(frozen=True)
class _Rows:
    """The rows of a source's files, numbered through in the order of the files' names."""

    files: list[Path]
    counts: list[int]
    schema: pa.Schema
    named: str

    @classmethod
    def of(cls, source: DataSource, config: RepoConfig, first: datetime | None, last: datetime | None) -> _Rows:
        """The files of a source; of a folder of feature files those of the days from `first` to `last` at most."""
        if not isinstance(source, FileSource) or not isinstance(source.file_format or ParquetFormat(), ParquetFormat):
            raise ValueError(f"'{source.name}' is no source of Parquet files, which AsofOfflineStore reads. Name the "  # noqa: TRY004 - Feast's stores raise it
                             "offline store in feature_store.yaml that reads it.")
        place = _local(source, config)
        ours = (place / partitions.EMPTY).is_file()
        files = [place] if place.is_file() else partitions.files(place)
        if ours:
            files = [file for file in files if file.name == partitions.EMPTY
                     or ((first is None or f"{_utc(first):%Y-%m-%d}" <= file.stem)
                     and (last is None or file.stem <= f"{_utc(last):%Y-%m-%d}"))]
        if not files:
            raise ValueError(f"'{source.name}' has no Parquet files at '{place}'. Write its features first.")
        footers = [partitions.footer(file, ours=ours) for file in files]
        schema = pa.unify_schemas([footer.schema.to_arrow_schema().remove_metadata() for footer in footers],
                                  promote_options="permissive")
        return cls(files, [footer.num_rows for footer in footers], schema, source.name)

    def keyed(self, keys: Iterable[str], at: str, created: str | None) -> Keyed:
        """The rows' keys and times."""
        names = list(keys)
        table = self._read(self.files, [*names, at, *([created] if created else [])])
        return Keyed(tuple(table[name] for name in names), microseconds(table[at]),
                     microseconds(table[created]) if created else None)

    def take(self, names: list[str], number: Numbers) -> pa.Table:
        """Columns of the rows of those numbers, in that order; -1 gives nulls. Files without such a row stay shut."""
        ends = np.cumsum(self.counts)
        hit = np.flatnonzero(np.bincount(np.searchsorted(ends, number[number >= 0], "right"), minlength=len(ends)))
        counts = np.array(self.counts, np.int64)
        moved = np.zeros(len(ends), np.int64)  # how many rows of shut files lie before each file
        moved[hit] = (ends - counts)[hit] - (np.cumsum(counts[hit]) - counts[hit])
        if len(hit) < len(ends):
            place = np.minimum(np.searchsorted(ends, number, "right"), len(ends) - 1)
            number = np.where(number < 0, -1, number - moved[place])
        files = [self.files[n] for n in hit]
        step = max(1, _CELLS // max(int(counts[hit].sum()), len(number), 1))
        blocks = [gathered(self._read(files, names[start:start + step]), number)
                  for start in range(0, len(names), step)]
        return pa.table([column for block in blocks for column in block.columns], names=names)

    def _read(self, files: list[Path], names: list[str]) -> pa.Table:
        lost = [name for name in names if name not in self.schema.names]
        if lost:
            raise ValueError(f"The files of '{self.named}' have no column '{lost[0]}'. Write its features anew.")
        if not files:
            return pa.schema([self.schema.field(name) for name in names]).empty_table()
        return ds.dataset([str(file) for file in files], schema=self.schema).to_table(columns=names)


def _local(source: FileSource, config: RepoConfig) -> Path:
    """Where a source's files are; relative paths are relative to the repo."""
    if "://" in source.path:
        raise ValueError(f"'{source.path}' is not on this machine, and AsofOfflineStore reads local files. Use Feast's "
                         "Spark or PostgreSQL store for it: docs/feast.md.")
    return Path(FileSource.get_uri_for_file_path(repo_path=config.repo_path, uri=source.path))


def _points(entity_df: pd.DataFrame | str | None, config: RepoConfig, views: list[FeatureView]) -> tuple[pa.Table, str]:
    """The points as an Arrow table with times in UTC, and which column holds the times."""
    if isinstance(entity_df, str):
        with duckdb.connect() as con:
            con.execute("SET TimeZone = 'UTC'")
            con.execute("SET file_search_path = $path", {"path": str(config.repo_path)})
            entity_df = con.sql(entity_df).df()
    if not isinstance(entity_df, pd.DataFrame):
        raise ValueError("AsofOfflineStore needs points: pass entity_df, a DataFrame or a DuckDB query, instead of "  # noqa: TRY004 - Feast's stores raise it
                         "start_date and end_date.")
    when = infer_event_timestamp_from_entity_df(dict(zip(entity_df.columns, entity_df.dtypes, strict=True)))
    wanted = {theirs for view in views for theirs in _keys(view).values()}
    assert_expected_columns_in_entity_df(dict(zip(entity_df.columns, entity_df.dtypes, strict=True)), wanted, when)
    lost = sorted(wanted - set(entity_df.columns))
    if lost:
        raise ValueError(f"The points have no column '{lost[0]}', by which the features are joined. Add it.")
    stamps = pd.to_datetime(entity_df[when], utc=True)
    return pa.Table.from_pandas(entity_df.assign(**{when: stamps}), preserve_index=False), when


def _keys(view: FeatureView) -> dict[str, str]:
    """A view's join keys, and what the points call them."""
    own = {column.name: column.name for column in view.entity_columns if column.name != DUMMY_ENTITY_ID}
    return {**own, **view.projection.join_key_map}


def _as_of(config: RepoConfig, view: FeatureView, refs: list[str], asked: _Asked) -> list[tuple[str, pa.ChunkedArray]]:
    """The view's features among `refs` for every point: their names in the result, and their columns."""
    prefix = f"{view.projection.name_to_use()}:"  # type: ignore[no-untyped-call]
    names = [ref.removeprefix(prefix) for ref in refs if ref.startswith(prefix)]
    source = cast("FileSource", view.batch_source)
    back = {mapped: own for own, mapped in source.field_mapping.items()}
    ttl = view.ttl or None
    times = np.extract(asked.at != NEVER, asked.at)
    first, last = (_moment(times.min()), _moment(times.max())) if len(times) else (None, None)
    rows = _Rows.of(source, config, first - ttl if first and ttl else None, last)
    created = source.created_timestamp_column
    keyed = rows.keyed([back.get(key, key) for key in _keys(view)], back.get(source.timestamp_field,
                       source.timestamp_field), back.get(created, created) if created else None)
    keys = tuple(_like(asked.points[theirs], theirs, own.type)
                 for theirs, own in zip(_keys(view).values(), keyed.keys, strict=True))
    number = newest(keyed, Keyed(keys, asked.at), ttl // timedelta(microseconds=1) if ttl else None, known=asked.known)
    own_names = [back.get(name, name) for name in names]
    table = rows.take(list(dict.fromkeys(own_names)), number)
    shown = f"{view.projection.name_alias or view.projection.name}__" if asked.full_names else ""
    return [(shown + name, table[own]) for name, own in zip(names, own_names, strict=True)]


def _like(column: pa.ChunkedArray, name: str, kind: pa.DataType) -> pa.ChunkedArray:
    """A key column of the points in the type of the rows' keys; text and numbers never match each other."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    alike = [any(test(side) for test in texts) for side in (column.type, kind)]
    if len(set(alike)) > 1 and not pa.types.is_null(column.type):
        raise ValueError(f"The points' '{name}' is of type {column.type}, the features' of {kind}. Give the points the "
                         "features' type: '007' is not 7.")
    return column.cast(kind)


def _utc(when: datetime) -> datetime:
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


def _micros(when: datetime) -> int:
    return (_utc(when) - _EPOCH) // timedelta(microseconds=1)


def _moment(micros: Any) -> datetime:
    return _EPOCH + timedelta(microseconds=int(micros))
