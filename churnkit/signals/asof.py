"""An offline store for Feast on DuckDB that keeps the order of rows, resolves paths in the repo, and is quick.

Feast's own DuckDB store reads relative paths against the working directory, loses the order of the rows asked for and
joins whole payloads. This one finds each point's row by key and time first, and fetches the payload by row number.
Name it in feature_store.yaml: `offline_store: {type: churnkit.signals.asof.AsofOfflineStore}`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal, cast

import duckdb
import ibis
import pandas as pd
import pyarrow as pa
from feast import FeatureView, RepoConfig
from feast.data_source import DataSource
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig, _write_data_source
from feast.infra.offline_stores.file_source import FileSource
from feast.infra.offline_stores.ibis import (
    IbisRetrievalJob,
    pull_all_from_table_or_query_ibis,
    pull_latest_from_table_or_query_ibis,
)
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.infra.registry.base_registry import BaseRegistry

from churnkit.signals import partitions


class AsofOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """Feast finds this class by its name."""

    type: Literal["churnkit.signals.asof.AsofOfflineStore"] = "churnkit.signals.asof.AsofOfflineStore"


class AsofOfflineStore(DuckDBOfflineStore):
    """Point-in-time retrieval from Parquet folders; rows come back in the order in which they were asked for."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(  # type: ignore[override]  # noqa: PLR0913, PLR0917 - Feast's DuckDB store's signature
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str,
        registry: BaseRegistry,  # noqa: ARG004 - Feast's signature, here and below
        project: str,  # noqa: ARG004
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        **kwargs: Any,  # noqa: ARG004
    ) -> RetrievalJob:
        """See Feast's OfflineStore; entity_df is a frame with the join keys and one column of times."""
        if not isinstance(entity_df, pd.DataFrame):
            raise TypeError("AsofOfflineStore takes entity rows as a DataFrame, not as a query.")
        when = infer_event_timestamp_from_entity_df(dict(zip(entity_df.columns, entity_df.dtypes, strict=True)))
        stamps = pd.to_datetime(entity_df[when], utc=True).dt.as_unit("us")
        entities = pa.Table.from_pandas(entity_df.assign(**{when: stamps}), preserve_index=False)
        result = entities
        with duckdb.connect() as con:
            con.execute("SET TimeZone = 'UTC'")
            con.register("entities", entities)
            con.execute("CREATE TEMP TABLE points AS SELECT *, row_number() OVER () AS _row FROM entities")
            for view in feature_views:
                prefix = f"{view.projection.name_alias or view.projection.name}:"
                names = [ref.removeprefix(prefix) for ref in feature_refs if ref.startswith(prefix)]
                found = _as_of(con, config, view, names, when=when, created=filter_by_created_timestamp)
                for name in names:
                    shown = f"{prefix[:-1]}__{name}" if full_feature_names else name
                    result = result.append_column(shown, found[name])
        metadata = RetrievalMetadata(features=feature_refs, keys=[name for name in entity_df.columns if name != when],
                                     min_event_timestamp=stamps.min(), max_event_timestamp=stamps.max())
        return IbisRetrievalJob(ibis.memtable(result), [], full_feature_names, metadata=metadata,
                                data_source_writer=_write_data_source, staging_location=None,
                                staging_location_endpoint_override=None, repo_path=str(config.repo_path))

    @staticmethod
    def pull_latest_from_table_or_query(**asked: Any) -> RetrievalJob:  # type: ignore[override]
        """See Feast's OfflineStore; used by `feast materialize`."""
        return pull_latest_from_table_or_query_ibis(
            **{**asked, "data_source_reader": _reader, "data_source_writer": _write_data_source})

    @staticmethod
    def pull_all_from_table_or_query(**asked: Any) -> RetrievalJob:  # type: ignore[override]
        """See Feast's OfflineStore."""
        return pull_all_from_table_or_query_ibis(
            **{**asked, "data_source_reader": _reader, "data_source_writer": _write_data_source})


def _reader(source: DataSource, repo_path: str) -> Any:
    """A feature folder as an Ibis table."""
    return ibis.read_parquet(_paths(source, repo_path), union_by_name=True)


def _paths(source: DataSource, repo_path: str | None, first: datetime | None = None,
           last: datetime | None = None) -> list[str]:
    """The files of a folder, at most those of the days from `first` to `last`, each checked for its schema version."""
    folder = Path(FileSource.get_uri_for_file_path(repo_path=repo_path, uri=cast("FileSource", source).path))
    chosen = [file for file in partitions.files(folder)
              if file.stem == "empty" or first is None or last is None
              or f"{first:%Y-%m-%d}" <= file.stem <= f"{last:%Y-%m-%d}"]
    for file in chosen:
        partitions.check(file)
    return [str(file) for file in chosen]


def _as_of(con: duckdb.DuckDBPyConnection, config: RepoConfig, view: FeatureView, names: list[str], *, when: str,
           created: bool) -> pa.Table:
    """Per point, in order, the named columns of the newest row at or before it and not past the view's time to live."""
    source = cast("FileSource", view.batch_source)
    keys = view.projection.join_key_map or {column.name: column.name for column in view.entity_columns}
    on = " AND ".join(f"points.{_quoted(ours)} = rows.{_quoted(theirs)}" for theirs, ours in keys.items())
    at, point = f"rows.{_quoted(source.timestamp_field)}", f"points.{_quoted(when)}"
    first, last = con.execute(f"SELECT min({point}), max({point}) FROM points").fetchone() or (None, None)  # noqa: S608
    ttl = view.ttl or timedelta(0)
    order = at
    if source.created_timestamp_column:
        known = f"rows.{_quoted(source.created_timestamp_column)}"
        order = f"({at}, {known})"
        on += f" AND {known} <= {point}" if created else ""
    on += f" AND {at} <= {point}"
    if ttl:
        on += f" AND {at} >= {point} - INTERVAL {int(ttl.total_seconds())} SECOND"
    files = _paths(source, str(config.repo_path), first - ttl if first and ttl else None, last)
    back = {mapped: own for own, mapped in source.field_mapping.items()}
    columns = ", ".join(f"{_quoted(back.get(name, name))} AS {_quoted(name)}" for name in names)
    stored = ", ".join({_quoted(column) for column in (*keys, source.timestamp_field,
                                                       source.created_timestamp_column) if column})
    con.execute(f"CREATE OR REPLACE TEMP TABLE rows AS SELECT {stored}, {columns}, row_number() OVER () AS _number "  # noqa: S608
                "FROM read_parquet($files, union_by_name = true)", {"files": files})
    newest = f"SELECT points._row, max_by(rows._number, {order}) AS _number FROM points JOIN rows ON {on} GROUP BY ALL"  # noqa: S608
    wanted = ", ".join(f"rows.{_quoted(name)}" for name in names)
    return con.sql(f"SELECT {wanted} FROM points LEFT JOIN ({newest}) AS newest USING (_row) "  # noqa: S608
                       "LEFT JOIN rows USING (_number) ORDER BY _row").to_arrow_table()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
