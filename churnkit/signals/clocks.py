"""Feast's way of keeping times in SQLite, whatever another package has made of it in this process."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from feast.infra.online_stores import sqlite as feasts

__all__ = ["feast_clocks"]


@contextmanager
def feast_clocks() -> Iterator[None]:
    """Feast writes and reads times as whole seconds within; afterwards all is as it was.

    How times are kept in SQLite is set for the whole process, and the last to set it wins: `DataFrame.to_sql` to a
    SQLite connection sets its own, after which Feast can no longer read what it has written.
    """
    adapters, converters = dict(sqlite3.adapters), dict(sqlite3.converters)
    sqlite3.register_adapter(dt.date, feasts.adapt_date_iso)
    sqlite3.register_adapter(dt.datetime, feasts.adapt_datetime_epoch)
    sqlite3.register_converter("date", feasts.convert_date)
    sqlite3.register_converter("datetime", feasts.convert_datetime)
    sqlite3.register_converter("timestamp", feasts.convert_timestamp)
    try:
        yield
    finally:
        sqlite3.adapters.update(adapters)
        sqlite3.converters.update(converters)
