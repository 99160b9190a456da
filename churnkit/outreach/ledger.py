"""The outbox's database: its tables, its connections, and how one of an older version is brought up to date."""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from churnkit.errors import OutreachError

SCHEMA_VERSION = 2
_LOCK = 0x636B6974  # one PostgreSQL advisory lock for all writers of a database
meta = sa.MetaData()


def _text(name: str, *, null: bool = True, key: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, nullable=null, primary_key=key)


schema_version = sa.Table("schema_version", meta, sa.Column("version", sa.Integer, primary_key=True))
tasks = sa.Table(
    "tasks", meta, _text("key", null=False, key=True), _text("account_id", null=False), _text("play", null=False),
    _text("target", null=False), _text("status", null=False), _text("disposition"), _text("note"), _text("owner"),
    _text("due"), sa.Column("ghost", sa.Boolean, nullable=False), _text("run"), _text("created_at", null=False),
    _text("updated_at", null=False), _text("closed_at"), _text("closed_by"), _text("content", null=False),
    _text("content_hash", null=False), _text("sent_hash"), _text("remote_id"), _text("remote_version"),
    sa.Column("approval", sa.Text, nullable=False, server_default="none"), _text("snoozed_until"),
    _text("snooze_reason"), _text("seen"),
    sa.Index("tasks_status", "status"), sa.Index("tasks_account", "account_id"), sa.Index("tasks_run", "run"))
outbox = sa.Table(
    "outbox", meta, sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("key", sa.Text, sa.ForeignKey("tasks.key"), nullable=False), _text("action", null=False),
    _text("state", null=False), sa.Column("attempts", sa.Integer, nullable=False), _text("content_hash", null=False),
    _text("created_at", null=False), _text("updated_at", null=False), _text("why"),
    sa.Index("outbox_state", "state", "id"), sa.Index("outbox_key", "key"))
WAITING = ("pending", "in_flight", "ambiguous")
"""The states of an outbox row that is still to be done."""
audit = sa.Table(
    "audit", meta, sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False), _text("at", null=False),
    _text("actor", null=False), _text("what", null=False), _text("key"), _text("before"), _text("after"),
    _text("previous", null=False), _text("hash", null=False), sa.Index("audit_key", "key"))
outcomes = sa.Table(
    "outcomes", meta, sa.Column("id", sa.Integer, primary_key=True, autoincrement=True), _text("key", null=False),
    _text("account_id", null=False), _text("play", null=False), _text("occurred_at", null=False),
    _text("status", null=False), _text("disposition"), _text("note"), _text("recorded_at", null=False),
    sa.Index("outcomes_key", "key"))
suppressions = sa.Table(
    "suppressions", meta, _text("account_id", null=False, key=True), _text("reason", null=False),
    _text("starts_at", null=False), _text("until"))
leases = sa.Table("leases", meta, _text("name", null=False, key=True), _text("holder", null=False),
                  _text("until", null=False))
notes = sa.Table("notes", meta, _text("name", null=False, key=True), _text("value"))
arms = sa.Table(
    "arms", meta, _text("top", null=False, key=True), _text("arm", null=False), _text("stratum", null=False),
    sa.Column("propensity", sa.Double), sa.Column("share", sa.Double), _text("salt"), _text("drawn_at", null=False),
    _text("exposed_at"))

_FUNCTION = ("CREATE OR REPLACE FUNCTION {table}_frozen() RETURNS trigger LANGUAGE plpgsql AS "
             "$$ BEGIN RAISE EXCEPTION '{words}'; END $$")
_TRIGGER = {
    "sqlite": "CREATE TRIGGER IF NOT EXISTS {table}_no_{verb} BEFORE {verb} ON {table} {when} "
              "BEGIN SELECT RAISE(ABORT, '{words}'); END",
    "postgresql": "CREATE OR REPLACE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table} FOR EACH ROW {when} "
                  "EXECUTE FUNCTION {table}_frozen()"}
_FROZEN = {"audit": ("append-only", ""), "arms": ("an exposed arm is final", "WHEN (OLD.exposed_at IS NOT NULL)")}
"""table = what is said to whoever changes or deletes a row, and which rows are meant."""


def _freeze(connection: sa.Connection, table: str) -> None:
    """Lets the database itself refuse what must not be changed."""
    words, when = _FROZEN[table]
    dialect = connection.dialect.name
    if dialect == "postgresql":
        connection.exec_driver_sql(_FUNCTION.format(table=table, words=words))
    for verb in ("UPDATE", "DELETE") if dialect in _TRIGGER else ():
        connection.exec_driver_sql(_TRIGGER[dialect].format(table=table, verb=verb, when=when, words=words))


def _to_2(connection: sa.Connection) -> None:
    """Approval, snoozing, what the CRM said last, and the arms of the control group."""
    for column in (tasks.c.approval, tasks.c.snoozed_until, tasks.c.snooze_reason, tasks.c.seen):
        made = sa.schema.CreateColumn(column).compile(dialect=connection.dialect)
        connection.exec_driver_sql(f"ALTER TABLE tasks ADD COLUMN {made}")
    for word in ("pending", "approved"):  # as the content was written, its names in order
        held = tasks.c.content.like(f'%"approval": "{word}", "asset_ids":%')
        connection.execute(tasks.update().where(held).values(approval=word))
    answered = sa.and_(tasks.c.status != "open", sa.or_(tasks.c.closed_by.is_(None), tasks.c.closed_by != "churnkit"))
    said = connection.execute(sa.select(tasks.c.key, tasks.c.status, tasks.c.disposition, tasks.c.note).where(answered))
    for row in said.all():
        connection.execute(tasks.update().where(tasks.c.key == row.key).values(seen=json.dumps(list(row[1:]))))
    arms.create(connection)
    _freeze(connection, "arms")


MIGRATIONS: dict[int, Callable[[sa.Connection], None]] = {1: _to_2}
"""version = what brings a database of that version to the next."""


def connect(url: str) -> sa.Engine:
    """An engine on the database of that URL, or on a SQLite file of that path, with the tables in place.

    Raises:
        OutreachError: If it cannot be opened, is newer than this program, or must be upgraded first.
    """
    engine = _engine(url)
    try:
        with _understood(engine), _transaction(engine) as connection:
            _lay(connection)
    except OutreachError:
        engine.dispose()
        raise
    return engine


def upgrade(url: str, at: dt.datetime) -> Path | None:
    """Brings an outbox to this program's version; a SQLite file is copied first, and the copy's path is returned.

    Raises:
        OutreachError: If the outbox is newer than this program, or cannot be opened.
    """
    engine = _engine(url)
    try:
        with _understood(engine):
            with engine.connect() as connection:
                found = _version(connection)
            if found is None or found == SCHEMA_VERSION:
                return None
            _refuse_newer(found)
            backup = _back_up(engine, f"v{found}.{at:%Y%m%dT%H%M%S}")
            with _transaction(engine) as connection:
                for version in range(found, SCHEMA_VERSION):
                    MIGRATIONS[version](connection)
                connection.execute(schema_version.update().values(version=SCHEMA_VERSION))
            return backup
    finally:
        engine.dispose()


@contextmanager
def _transaction(engine: sa.Engine) -> Iterator[sa.Connection]:
    """The same with the database's own errors, for opening, which has words of its own for them."""
    with engine.connect().execution_options(churnkit_write=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        yield connection


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """One transaction of the one writer at a time; it is kept whole or not at all.

    Raises:
        OutreachError: If the database fails: the disk is full, a server is gone, somebody else holds the file.
    """
    try:
        with _transaction(engine) as connection:
            yield connection
    except sa.exc.OperationalError as error:  # its own text holds the whole statement, and with it the tasks
        reason = str(error.orig or error).strip().splitlines()[0]
        address = engine.url.render_as_string(hide_password=True)
        raise OutreachError(f"The outbox '{address}' cannot be written: {reason}. See that the disk has room, that the "
                            "server runs and that no other program holds the file; then run the same again: nothing "
                            "is lost.") from None


def note(connection: sa.Connection, name: str, value: str | None) -> None:
    """Keeps a small fact, such as a cursor, under a name."""
    connection.execute(notes.delete().where(notes.c.name == name))
    connection.execute(notes.insert().values(name=name, value=value))


def noted(connection: sa.Connection, name: str) -> str | None:
    """What is kept under a name, or None."""
    return connection.scalar(sa.select(notes.c.value).where(notes.c.name == name))


def stamp(at: dt.datetime) -> str:
    """A moment as the text that the database holds: UTC, microseconds, sortable."""
    at = at.replace(tzinfo=dt.UTC) if at.tzinfo is None else at.astimezone(dt.UTC)
    return at.isoformat(timespec="microseconds")


def _engine(url: str) -> sa.Engine:
    url = url if "://" in url else f"sqlite:///{url}"
    try:
        engine = sa.create_engine(url)
    except (sa.exc.ArgumentError, ImportError) as error:
        raise OutreachError(f"The outbox's address '{_safe(url)}' is no database URL that can be used ({error}). "
                            "Write 'sqlite:///state/outbox.db' or 'postgresql+psycopg://user@host/name'.") from None
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _on_connect)
        sa.event.listen(engine, "begin", _on_begin)
    return engine


def _on_connect(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver's own BEGINs come too late; see _on_begin
    for pragma in ("busy_timeout = 30000", "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _on_begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("churnkit_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _understood(engine: sa.Engine) -> Iterator[None]:
    """A database's complaint at opening as one of ours, without the password."""
    try:
        yield
    except sa.exc.DatabaseError as error:
        reason = str(error.orig or error).strip().splitlines()[0]
        address = engine.url.render_as_string(hide_password=True)
        raise OutreachError(f"The outbox '{address}' cannot be opened: {reason}. See that the folder or server exists, "
                            "that it may be written, and that the file is an outbox.") from None


def _back_up(engine: sa.Engine, label: str) -> Path | None:
    """A copy of a SQLite file, taken by SQLite itself so that it is whole; of a server none."""
    if engine.dialect.name != "sqlite" or not engine.url.database:
        return None
    file = Path(engine.url.database)
    copy = file.with_name(f"{file.name}.{label}.bak")
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def _version(connection: sa.Connection) -> int | None:
    if not sa.inspect(connection).has_table("schema_version"):
        return None
    return connection.scalar(sa.select(schema_version.c.version))


def _refuse_newer(found: int) -> None:
    if found > SCHEMA_VERSION:
        raise OutreachError(f"The outbox has schema version {found}, newer than this churnkit knows "
                            f"({SCHEMA_VERSION}). Upgrade churnkit.")


def _lay(connection: sa.Connection) -> None:
    found = _version(connection)
    if found is not None:
        _refuse_newer(found)
        if found < SCHEMA_VERSION:
            raise OutreachError(f"The outbox has schema version {found}; this churnkit needs {SCHEMA_VERSION}. "
                                "Run: churnkit upgrade")
        return
    meta.create_all(connection)
    for table in _FROZEN:
        _freeze(connection, table)
    connection.execute(schema_version.insert().values(version=SCHEMA_VERSION))


def _safe(url: str) -> str:
    """The address without its password."""
    try:
        return sa.make_url(url).render_as_string(hide_password=True)
    except sa.exc.ArgumentError:
        return url.rsplit("@", maxsplit=1)[-1]
