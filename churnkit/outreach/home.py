"""In which CRM and portal an outbox's tasks stand: in another one they are not missing, they were never there."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from churnkit.errors import OutreachError
from churnkit.outreach.chain import record
from churnkit.outreach.crm.base import Crm, Portal
from churnkit.outreach.ledger import WAITING, note, noted, notes, outbox, tasks
from churnkit.outreach.moves import chunks
from churnkit.outreach.task import CLOSED

_HOME = "home"


def away_from(connection: sa.Connection, crm: Crm, portal: Portal) -> str:
    """The CRM and portal in which the tasks stand, where it is another one than this; empty where it is this one."""
    kept = noted(connection, _HOME) or _before(connection, crm)
    sent = sa.select(sa.exists().where(tasks.c.remote_id.is_not(None)))
    return kept if kept and kept != _place(crm, portal) and connection.scalar(sent) else ""


def refuse_other(connection: sa.Connection, crm: Crm, portal: Portal) -> None:
    """A portal in which none of the tasks can be is not written to: their numbers there are other people's tasks.

    Raises:
        OutreachError: If the tasks stand in another CRM or portal; says how they move.
    """
    if other := away_from(connection, crm, portal):
        raise OutreachError(
            f"The tasks of this outbox stand in {other}, and this is {_place(crm, portal)}: nothing was written. Take "
            "churnkit.toml back to that one; or, if they are to move: churnkit sync repair --by NAME makes the open "
            "ones again in this one, and leaves those in the other one as they are.")


def settle(connection: sa.Connection, crm: Crm, portal: Portal) -> None:
    """From now on the tasks stand here."""
    note(connection, _HOME, _place(crm, portal))


def leave(connection: sa.Connection, crm: Crm, when: str, by: str) -> None:
    """The closed tasks stay behind in the other portal: nothing about them is sent to this one."""
    closed = sa.and_(tasks.c.status.in_(CLOSED), tasks.c.remote_id.is_not(None))
    waits = outbox.c.state.in_(WAITING)
    keys: Sequence[str] = connection.scalars(sa.select(tasks.c.key).where(closed).order_by(tasks.c.key)).all()
    for some in chunks(keys):
        rows = connection.execute(sa.select(outbox.c.key, outbox.c.state, outbox.c.action).where(
            waits, outbox.c.key.in_(some))).all()
        why = f"left behind by {by}: the tasks moved to {crm.name}"
        connection.execute(outbox.update().where(waits, outbox.c.key.in_(some)).values(
            state="dropped", why=why, updated_at=when))
        connection.execute(tasks.update().where(tasks.c.key.in_(some)).values(
            remote_id=None, remote_version=None, sent_hash=None))
        record(connection, when, by, "dropped", [
            {"key": row.key, "before": {"state": row.state}, "after": {"action": row.action, "why": why}}
            for row in rows])


def _before(connection: sa.Connection, crm: Crm) -> str:
    """Where the tasks stand by an outbox that does not say it yet: in the CRM with which there were runs."""
    runs = connection.scalars(sa.select(notes.c.name).where(notes.c.name.like("runs:%")).order_by(notes.c.name))
    names = [name.removeprefix("runs:") for name in runs]
    return "" if crm.name in names or not names else names[0]


def _place(crm: Crm, portal: Portal) -> str:
    """In words. A CRM that cannot be asked goes by our keys: there another address is no other place."""
    return f"{crm.name} (portal '{portal.id}')" if portal.id and crm.capabilities.finds else crm.name
