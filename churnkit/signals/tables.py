"""Validated raw tables, held in one DuckDB connection: what every later room reads."""

# ruff: noqa: S608 - SQL is built from contract names, quoted identifiers and quoted literals only

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import duckdb
import ibis
import pandas as pd
import pyarrow as pa
from ibis.expr import types as ir

from churnkit.cutoffs import moment
from churnkit.errors import DataError
from churnkit.schemas import RAW_TABLES, Table, raw_table
from churnkit.settings import FILE as SETTINGS_FILE
from churnkit.settings import Settings, TableMap, load
from churnkit.signals import mapping, own, sentiment, validate, versions
from churnkit.signals.relation import Source, quoted
from churnkit.signals.rules import happened
from churnkit.signals.sources import from_arrow, locate, open_source
from churnkit.signals.validate import Counts, Finding

_PANDAS = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}


class Tables(Mapping[str, pd.DataFrame]):
    """The raw tables by name: `tables["surveys"]` is a DataFrame, `tables.expr("surveys")` an Ibis table.

    `contract` holds our tables and those that the workspace declares for features of its own.
    Every table of the contract is there, with every column of the contract and `known_at`, the moment from which the
    row could be known. A record of a table with a key has a row for each of its versions: what it was at a cutoff is
    the version known last by then (see `versions.expand`). A table that was not given is empty, and `tables.has(name)`
    is then False. `findings` says what validation found and `counts` how many rows each table gave and kept. Make one
    with `read_tables` or `from_frames`.
    """

    def __init__(self, settings: Settings) -> None:
        mine = own.definitions(settings)
        self.contract: Mapping[str, Table] = {**RAW_TABLES, **mine.tables}
        self.settings = settings.model_copy(update={"tables": {**settings.tables, **mine.maps}})
        self.covers_until: dict[str, dt.datetime] = {}
        self.given: frozenset[str] = frozenset()
        self.findings: tuple[Finding, ...] = ()
        self.counts: dict[str, Counts] = {}
        self.con: Any = ibis.duckdb.connect()
        self.con.raw_sql("SET TimeZone = 'UTC'")
        self.con.raw_sql("ATTACH ':memory:' AS book (COMPRESS); USE book")  # events take a sixth of the room
        with contextlib.suppress(duckdb.InvalidInputException):  # a notebook without ipywidgets has no bar to turn off
            self.con.raw_sql("SET enable_progress_bar = false")
        self._moods = False

    def __getitem__(self, name: str) -> pd.DataFrame:
        return frame(self.expr(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self.contract)

    def __len__(self) -> int:
        return len(self.contract)

    def has(self, name: str) -> bool:
        """Whether the table was given."""
        return raw_table(name, self.contract).name in self.given

    def expr(self, name: str) -> ir.Table:
        """The table as an Ibis expression on this object's DuckDB connection, `self.con`."""
        return self.con.table(raw_table(name, self.contract).name)

    def moods(self) -> ir.Table:
        """What customers wrote, as polarity in [-1, 1]: account_id, ticket_id, occurred_at, known_at, polarity, source.

        From ticket messages by customers, tickets' subject and body, and survey texts; `source` is message, ticket or
        survey, `ticket_id` is missing for surveys. Scored once, when first asked for; the texts themselves stay behind.
        """
        if not self._moods:
            self.con.create_table("moods", sentiment.moods(self))
            self._moods = True
        return self.con.table("moods")

    @classmethod
    def from_frames(
        cls, settings: Settings | None = None, *, at: dt.datetime | str | None = None, **frames: pd.DataFrame
    ) -> Tables:
        """Tables from pandas frames that follow the contract's column names, mapped and validated like files.

        Of a table's settings, its columns, values, units, offsets, formats, zone, grain and known_after apply.

        Raises:
            DataError: If a frame breaks the contract and `settings.invalid` is 'raise', or lacks a required column.
        """
        tables = cls(settings or Settings())
        opened: dict[str, list[tuple[Source, TableMap]]] = {}
        for name, data in frames.items():
            how = tables.settings.tables.get(raw_table(name, tables.contract).name, TableMap())
            source = from_arrow(tables.raw, _arrow(data, name, tables.contract[name].required), name)
            opened[name] = [(source, how.model_copy(update={"parts": ()}))]
        return tables._filled(opened, at)

    @property
    def raw(self) -> duckdb.DuckDBPyConnection:
        """The DuckDB connection beneath `con`, for SQL."""
        return cast("duckdb.DuckDBPyConnection", self.con.con)

    def _filled(self, opened: Mapping[str, list[tuple[Source, TableMap]]], at: dt.datetime | str | None,
                now: dt.datetime | None = None) -> Tables:
        """Stages, validates and keeps the opened sources."""
        staged: dict[str, mapping.Staged] = {}
        for name in _joined_first(opened):
            staged[name] = mapping.stage(self.raw, self.contract[name], opened[name], self.settings, staged)
        self.given = frozenset(staged)
        run = moment(at) if at is not None else None
        self.covers_until = _covers_until(self.raw, staged, self.settings, run)
        latest = max((time for time in (run, now) if time is not None), default=None)
        checked = validate.validate(self.con, staged, self.settings, self.covers_until, latest)
        self.findings, self.counts = checked.findings, checked.counts
        for name, table in self.contract.items():
            if name not in staged:
                self.raw.execute(f"CREATE TABLE {quoted(name)} ({mapping.columns_sql(table)})")
        for view in (*(raw for one in staged.values() for raw in one.raws),):
            self.raw.execute(f"DROP VIEW IF EXISTS {view}")
        versions.expand(self.raw, self.settings, self.given)
        self.raw.execute("CHECKPOINT")  # which is when tables in memory are compressed
        return self


def read_tables(path: str | Path | Settings, at: dt.datetime | str | None = None,
                now: dt.datetime | None = None) -> Tables:
    """The tables of a workspace (a folder with churnkit.toml), or of a plain folder of files named as in the contract.

    `at` is the cutoff that the run looks from, `now` the time of the run itself where that is later: a row's own time
    may pass neither. Each table's `covers_until` is what the settings declare, else `at`, else the latest time at which
    anything is known to have happened, over all tables: never the last event of one account.

    Raises:
        SettingsError: If churnkit.toml is wrong.
        DataError: If a table cannot be read, or breaks the contract and `invalid` is 'raise'.
    """
    settings = path if isinstance(path, Settings) else _settings(Path(path))
    tables = Tables(settings)
    opened: dict[str, list[tuple[Source, TableMap]]] = {}
    settings = tables.settings
    for name in tables.contract:
        how = settings.tables.get(name, TableMap())
        if not how.source and not how.parts:
            found = locate(name, settings)
            if found is None:
                if name in settings.tables:
                    raise DataError(
                        f"{name}: [tables.{name}] gives no source, and '{settings.raw}' holds no {name}.csv or "
                        f"{name}.parquet. Set source = '...', or remove the section."
                    )
                continue
            how = how.model_copy(update={"source": found})
        opened[name] = [(open_source(tables.raw, part, settings, name), part) for part in how.parts or (how,)]
    lacking = "accounts" if "accounts" not in opened else "usage_events" if len(opened) == 1 else ""
    if opened and lacking:
        raise DataError(
            f"'{settings.raw}' holds no {lacking}.csv. Accounts and one table of signals, such as usage_events, are "
            f"the least there must be: put {lacking}.csv there, or say [tables.{lacking}] source = '...'."
        )
    if not opened:
        raise DataError(
            f"'{settings.raw}' holds no table of the contract. Put accounts.csv and a signal table "
            f"such as usage_events.csv there, or map your files: churnkit init --from FOLDER."
        )
    return tables._filled(opened, at, now)  # noqa: SLF001 - the other constructor of the same class


def frame(expr: ir.Table) -> pd.DataFrame:
    """An Ibis table as pandas: times datetime64[us, UTC], ints Int64, bools boolean, floats float64, else str."""
    data = cast("pa.Table", expr.to_pyarrow())
    return cast("pd.DataFrame", data.to_pandas(types_mapper=_PANDAS.get, timestamp_as_object=False))


def _settings(path: Path) -> Settings:
    if not path.exists():
        raise DataError(
            f"There is no '{path}'. Name a workspace (churnkit init DIR makes one) or a folder of tables."
        )
    if path.is_dir() and not (path / SETTINGS_FILE).exists():
        return Settings(root=path, raw=".")
    return load(path)


def _joined_first(opened: Mapping[str, list[tuple[Source, TableMap]]]) -> list[str]:
    """The tables in an order in which each comes after those that its joins look in."""
    order: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise DataError(
                f"{name}: its joins look in a circle ({' -> '.join((*path, name))}). Join with source = '...'."
            )
        for _, how in opened[name]:
            for join in how.join:
                if join.table in opened:
                    visit(join.table, (*path, name))
        if name not in order:
            order.append(name)

    for name in opened:
        visit(name, ())
    return order


def _arrow(data: pd.DataFrame, name: str, required: tuple[str, ...]) -> pa.Table:
    """A frame as Arrow; a column of mixed kinds becomes text."""
    if not isinstance(data, pd.DataFrame):
        raise DataError(
            f"{name}: from_frames takes pandas DataFrames, not {type(data).__name__}. Wrap it: pd.DataFrame(...)."
        )
    if not len(data.columns):
        raise DataError(
            f"{name}: the frame has no columns. Give it those of the contract: {', '.join(required)}."
        )
    twice = [str(column) for column in data.columns[data.columns.duplicated()]]
    if twice:
        raise DataError(f"{name}: the frame has two columns named '{twice[0]}'. Rename one.")
    columns = {}
    for column in data.columns:
        values = data[column]
        try:
            array = pa.Array.from_pandas(values)
            if (
                pa.types.is_timestamp(array.type) and array.type.unit == "ns"
            ):  # pandas' default; DuckDB casts no such zone
                array = array.cast(pa.timestamp("us", tz=array.type.tz), safe=False)
            columns[str(column)] = array
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, UnicodeEncodeError):
            texts = [
                None if missing else str(value).encode("utf-8", "replace").decode()
                for value, missing in zip(values, values.isna(), strict=True)
            ]
            columns[str(column)] = pa.array(texts, pa.string())
    return pa.table(columns)


def _covers_until(
    con: duckdb.DuckDBPyConnection, staged: Mapping[str, mapping.Staged], settings: Settings, at: dt.datetime | None
) -> dict[str, dt.datetime]:
    """How far each table reaches: declared, else the run's time, else the latest time that any table knows of."""
    if at is None:
        known = []
        for one in staged.values():
            seen = ", ".join(["known_at", *(quoted(column.name) for column in one.table.columns if happened(column))])
            known += con.execute(f"SELECT max(greatest({seen})) FROM {one.relation} HAVING count(*) > 0").fetchall()
        at = max((row[0].astimezone(dt.UTC) for row in known if row[0] is not None), default=moment("1970-01-01"))
    return {
        name: (settings.tables[name].covers_until if name in settings.tables else None) or settings.covers_until or at
        for name in staged
    }
