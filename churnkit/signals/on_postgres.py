"""PostgreSQL as an engine: the tables are copied into a schema of their own, which is dropped in the end."""



from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.csv as pc
from ibis.expr import types as ir

from churnkit.signals.engines import POINTS, Elsewhere, Write, lacking
from churnkit.signals.relation import quoted
from churnkit.signals.sources import connected
from churnkit.signals.tables import Tables

PREFIX = "churnkit_engine_"
_TYPES: Mapping[str, str] = MappingProxyType({
    # Text compares by its bytes, as in DuckDB, and not by the rules of the server's language.
    "string": 'text COLLATE "C"', "large_string": 'text COLLATE "C"', "bool": "boolean", "double": "double precision",
    "float": "real", "int64": "bigint", "int32": "integer", "int16": "smallint", "int8": "smallint"})
_LABEL = "postgresql://..."


class Postgres:
    """A connection to a PostgreSQL server and a schema in its database, unlogged and without other readers."""

    def __init__(self, tables: Tables, url: str) -> None:
        try:
            self._con = connected(url)
        except Exception as error:  # noqa: BLE001 - whatever it is, its text may hold the password
            raise lacking(_LABEL, "Check host, database, the ${...} variables and that the server answers, and install "
                          "the driver: churnkit-outreach[postgres].", error) from None
        self.schema = f"{PREFIX}{uuid.uuid4().hex[:16]}"
        try:
            self._prepare()
        except Exception as error:  # noqa: BLE001 - as above
            self._con.close()
            raise lacking(_LABEL, "Let this user make schemas: GRANT CREATE ON DATABASE ... TO ...", error) from None
        self._ibis: Any = ibis.postgres.from_connection(self._con)
        self.tables: Tables = Elsewhere(tables, self._bring)

    def _prepare(self) -> None:
        """Drops the schemas of runs that were killed (their locks went with them), and makes ours, with its lock."""
        self._con.execute("SELECT pg_advisory_lock(hashtext(%s))", (self.schema,))
        left = self._con.execute("SELECT nspname FROM pg_namespace WHERE starts_with(nspname, %s) AND "
                                 "pg_try_advisory_lock(hashtext(nspname))", (PREFIX,)).fetchall()
        for (schema,) in left:
            self._con.execute(f"DROP SCHEMA IF EXISTS {quoted(schema)} CASCADE")
            self._con.execute("SELECT pg_advisory_unlock(hashtext(%s))", (schema,))
        self._con.execute(f"CREATE SCHEMA {self.schema}")
        self._con.execute(f"SET search_path = {self.schema}")
        self._con.execute("SET jit = off")  # compiling a query of hundreds of expressions takes longer than running it

    def run(self, points: pa.Table, write: Write, key: tuple[Any, ...]) -> pa.Table:  # noqa: ARG002 - not kept here
        """See `Engine.run`."""
        import psycopg

        try:
            self._con.execute(f"DROP TABLE IF EXISTS {POINTS}")
            found = self._fetched(write(self._bring(POINTS, points.to_reader())))
        except psycopg.OperationalError as error:
            raise lacking(_LABEL, "The server stopped answering: see its log, then run this again.", error) from None
        return found

    def _fetched(self, expr: ir.Table) -> pa.Table:
        """The rows of an expression as Arrow, numbers as floats: PostgreSQL gives sums as decimals of any length."""
        kinds = {name: pa.string() if kind.is_string() else pa.float64() for name, kind in expr.schema().items()}
        kinds["rid"] = pa.int64()
        sink = pa.BufferOutputStream()
        with self._con.cursor().copy(f"COPY ({self._ibis.compile(expr)}) TO STDOUT (FORMAT csv)") as copy:
            for part in copy:
                sink.write(part)
        if not sink.tell():
            return pa.schema(kinds.items()).empty_table()
        return pc.read_csv(
            pa.BufferReader(sink.getvalue()), pc.ReadOptions(column_names=list(kinds)),
            pc.ParseOptions(newlines_in_values=True), pc.ConvertOptions(
                column_types=kinds, null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False))

    def _bring(self, name: str, data: pa.RecordBatchReader) -> ir.Table:
        columns = ", ".join(f"{quoted(field.name)} {_TYPES[str(field.type)]}" for field in data.schema)
        self._con.execute(f"CREATE UNLOGGED TABLE {quoted(name)} ({columns})")
        with self._con.cursor().copy(f"COPY {quoted(name)} FROM STDIN (FORMAT csv)") as copy:
            for batch in data:  # no value is an empty field, an empty text is ""
                sink = pa.BufferOutputStream()
                pc.write_csv(batch, sink, pc.WriteOptions(include_header=False))
                copy.write(sink.getvalue().to_pybytes())
        self._con.execute(f"ANALYZE {quoted(name)}")
        return self._ibis.table(name)

    def close(self) -> None:
        """Drops the schema and closes the connection."""
        import psycopg

        with contextlib.suppress(psycopg.OperationalError):  # a server that is gone: the next run drops it
            self._con.execute(f"DROP SCHEMA IF EXISTS {self.schema} CASCADE")
        self._con.close()
