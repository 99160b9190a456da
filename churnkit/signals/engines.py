"""Where features are computed: DuckDB here, or Spark or PostgreSQL when one machine is not enough.

The definitions are the same Ibis expressions on each. DuckDB reads and validates the raw tables; another engine is
handed each validated table that an expression asks for, once, with its times as whole microseconds and without texts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import ibis
import pyarrow as pa
from ibis.expr import types as ir

from churnkit.errors import FeatureError
from churnkit.schemas import raw_table
from churnkit.settings import fill
from churnkit.signals.relation import quoted
from churnkit.signals.tables import Tables

POINTS = "points_asked"
"""The table of points in an engine: rid, id and cutoff (see compute.expression)."""
Write = Callable[[ir.Table], ir.Table]
"""Points to features, as expressions."""


class Engine(Protocol):
    """What computes features. `tables` are the raw tables as it holds them."""

    tables: Tables

    def run(self, points: pa.Table, write: Write, key: tuple[Any, ...]) -> pa.Table:
        """The features of these points (rid, id, cutoff), in any order of rows.

        `key` says what the expression depends on, the points' number and values aside.
        """

    def close(self) -> None:
        """Lets go of whatever the engine holds; what was brought to it is removed."""


@contextlib.contextmanager
def opened(tables: Tables) -> Iterator[Engine]:
    """The engine that the settings name, with these tables; within a block that has opened it already, the same one.

    Raises:
        FeatureError: If the engine cannot be reached, or a part that it needs is not installed.
    """
    if id(tables) in _OPEN:
        yield _OPEN[id(tables)]
        return
    engine = _OPEN[id(tables)] = _engine(tables)
    try:
        yield engine
    finally:
        del _OPEN[id(tables)]
        engine.close()


_OPEN: dict[int, Engine] = {}


def _engine(tables: Tables) -> Engine:
    """Each engine but ours is imported where it is asked for: what it needs is not always installed."""
    name = tables.settings.engine
    if name == "duckdb":
        return Duck(tables)
    if name == "spark":
        from churnkit.signals.on_spark import Spark

        return Spark(tables)
    from churnkit.signals.on_postgres import Postgres

    return Postgres(tables, fill(name))


class Elsewhere(Tables):
    """The same tables as another engine holds them: each is brought there when it is first asked for."""

    def __init__(self, tables: Tables, bring: Callable[[str, pa.RecordBatchReader], ir.Table]) -> None:
        self.__dict__.update(tables.__dict__)
        self._tables, self._bring = tables, bring
        self._brought: dict[str, ir.Table] = {}

    def expr(self, name: str) -> ir.Table:
        """The table as an expression of the other engine."""
        name = raw_table(name, self.contract).name
        words = {column.name for column in self.contract[name].columns if column.kind == "text"}
        return self._there(name, words)

    def moods(self) -> ir.Table:
        """Polarity and cues, as an expression of the other engine; the texts themselves are never brought there."""
        self._tables.moods()
        return self._there("moods", set())

    def _there(self, name: str, left_out: set[str]) -> ir.Table:
        if name not in self._brought:
            self._brought[name] = self._bring(name, moved(self._tables, name, left_out))
        return self._brought[name]


def moved(tables: Tables, name: str, left_out: set[str]) -> pa.RecordBatchReader:
    """A validated table, ready to be brought to another engine: times as whole microseconds, `left_out` left out."""
    types = tables.con.table(name).schema().items()
    columns = [f"epoch_us({quoted(column)}) AS {quoted(column)}" if kind.is_timestamp() else quoted(column)
               for column, kind in types if column not in left_out]
    return tables.raw.sql(f"SELECT {', '.join(columns)} FROM {quoted(name)}").to_arrow_reader(_BATCH)  # noqa: S608


_BATCH = 100_000


def lacking(what: str, mend: str, error: Exception) -> FeatureError:
    """The error for an engine that cannot be used; its own text may hold a password and is not repeated."""
    return FeatureError(f"engine = '{what}' cannot be used ({type(error).__name__}). {mend}")


class Duck:
    """DuckDB, in the connection that holds the raw tables already.

    Ibis takes longer to write a query of sixty columns than DuckDB takes to answer it on a small workspace: what was
    written is kept.
    """

    _written: dict[tuple[Any, ...], str] = {}  # noqa: RUF012 - one for the process
    _most = 128

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    def run(self, points: pa.Table, write: Write, key: tuple[Any, ...]) -> pa.Table:
        """See `Engine.run`."""
        raw = self.tables.raw
        raw.register("_asked", points)
        raw.execute(f"CREATE OR REPLACE TABLE {POINTS} AS FROM _asked")
        raw.unregister("_asked")
        found = raw.sql(self._text(write, key)).to_arrow_table()
        raw.execute(f"DROP TABLE {POINTS}")
        return found

    def _text(self, write: Write, key: tuple[Any, ...]) -> str:
        if key not in self._written:
            if len(self._written) >= self._most:
                self._written.clear()
            self._written[key] = str(ibis.to_sql(write(self.tables.con.table(POINTS)), dialect="duckdb"))
        return self._written[key]

    def close(self) -> None:
        """The connection is the tables' own and stays open."""
