"""One writer at a time per CRM: a lease in the database that expires, or falls free when its holder is dead."""

from __future__ import annotations

import datetime as dt
import os
import platform
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from churnkit.errors import BusyError
from churnkit.outreach.ledger import leases, stamp, writing

_SPAN = dt.timedelta(minutes=5)


class Lease:
    """The right to write to one CRM from one outbox."""

    def __init__(self, engine: sa.Engine, name: str, now: Callable[[], dt.datetime]) -> None:
        self._engine, self._name, self._now = engine, name, now
        self._holder = f"{_place()}|{os.getpid()}|{_started(os.getpid())}|{uuid.uuid4().hex}"

    @contextmanager
    def held(self) -> Iterator[Lease]:
        """Takes the lease, and gives it back at the end.

        Raises:
            BusyError: If somebody else holds it.
        """
        with writing(self._engine) as connection:
            row = connection.execute(sa.select(leases).where(leases.c.name == self._name)).first()
            if row is not None and row.until > stamp(self._now()) and not _dead(row.holder):
                raise BusyError(f"Another sync with '{self._name}' is under way. Let it end, or try again "
                                f"after {row.until}.")
            connection.execute(leases.delete().where(leases.c.name == self._name))
            connection.execute(leases.insert().values(
                name=self._name, holder=self._holder, until=stamp(self._now() + _SPAN)))
        try:
            yield self
        finally:
            with writing(self._engine) as connection:
                connection.execute(leases.delete().where(leases.c.name == self._name, leases.c.holder == self._holder))

    def renew(self, connection: sa.Connection) -> None:
        """Makes sure, inside a transaction, that the lease is still ours, and prolongs it.

        Raises:
            BusyError: If it is not.
        """
        mine = leases.update().where(leases.c.name == self._name, leases.c.holder == self._holder)
        if connection.execute(mine.values(until=stamp(self._now() + _SPAN))).rowcount != 1:
            raise BusyError(f"Another sync with '{self._name}' took over; this one stops. Nothing is lost: run it "
                            "again.")


def _place() -> str:
    """This machine and its process table, so that a process id means something."""
    try:
        space = str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        space = ""
    return f"{platform.node()}:{space}"


def _started(pid: int) -> str:
    """When a process began, so that a number used again is not taken for it; empty where there is no /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _dead(holder: str) -> bool:
    """Whether the holder is known to be gone: a process of this machine that runs no more."""
    place, pid, started = [*holder.split("|"), "", "", ""][:3]
    if place != _place() or not pid.isdigit() or not started:
        return False
    return _started(int(pid)) != started
