"""Spark as an engine: the tables are written to Parquet, where Spark reads them, and removed in the end."""

from __future__ import annotations

import shutil
import uuid
from itertools import count
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
from ibis.expr import types as ir

from churnkit.signals.engines import POINTS, Elsewhere, Write, lacking
from churnkit.signals.tables import Tables

_SET = {
    "spark.sql.ansi.enabled": "false",  # a division by nothing is no value, as in DuckDB, and no error
    "spark.sql.execution.arrow.pyspark.enabled": "true",
}
_ROWS = 1_000_000
"""Rows per row group, the least that Spark reads as one."""


class Spark:
    """A session of Spark: the one that runs in this process already, or one of our own, which is then stopped."""

    def __init__(self, tables: Tables) -> None:
        settings = tables.settings
        try:
            from pyspark.sql import SparkSession

            running = SparkSession.getActiveSession()
            builder = SparkSession.builder.appName("churnkit")
            for name, value in {} if running else settings.engine_options.items():
                builder = builder.config(name, value)
            session = running or builder.getOrCreate()
        except Exception as error:  # noqa: BLE001 - pyspark missing, Java missing, a master that does not answer
            raise lacking("spark", "It needs Java 17 (JAVA_HOME) and churnkit-outreach[spark], and a master that "
                          'answers: [engine_options] "spark.master" = "local[*]".', error) from None
        self._ours = None if running else session
        self._session = session.newSession()  # its settings and views are its own
        for name, value in _SET.items():
            self._session.conf.set(name, value)
        self._ibis: Any = ibis.pyspark.connect(self._session)
        self._folder = settings.path(settings.engine_folder).resolve() / f"spark-{uuid.uuid4().hex[:16]}"
        self._folder.mkdir(parents=True)
        self._serial = count()
        self.tables: Tables = Elsewhere(tables, self._bring)

    def run(self, points: pa.Table, write: Write, key: tuple[Any, ...]) -> pa.Table:  # noqa: ARG002 - not kept here
        """See `Engine.run`."""
        asked = self._bring(POINTS, points.to_reader())
        try:
            return write(asked).to_pyarrow()
        finally:
            self._session.catalog.dropTempView(asked.get_name())

    def _bring(self, name: str, data: pa.RecordBatchReader) -> ir.Table:
        view = f"{name}_{next(self._serial)}"
        file = self._folder / f"{view}.parquet"
        with pq.ParquetWriter(file, data.schema) as writer:
            for batch in data:
                writer.write_batch(batch, row_group_size=_ROWS)
        self._session.read.parquet(f"file://{file}").createOrReplaceTempView(view)
        return self._ibis.table(view)

    def close(self) -> None:
        """Removes the files, and stops the session where it is ours."""
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._ours is not None:
            self._ours.stop()
