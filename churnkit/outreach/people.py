"""What a person decides by a command: approve, reject, snooze, close; and waking, when a sleep is over."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import sqlalchemy as sa

from churnkit.errors import OutreachError
from churnkit.outreach import moves
from churnkit.outreach.chain import record
from churnkit.outreach.ledger import stamp, tasks
from churnkit.outreach.life import SNOOZE, STAGES, lawful, standings
from churnkit.outreach.task import CLOSED


def approve(connection: sa.Connection, key: str, by: str, when: str) -> bool:
    """`Outbox.approve` inside a transaction."""
    row = moves.row_of(connection, key)
    if row.approval == "approved":
        return False
    _refuse_unless_proposed(connection, key)
    with lawful(connection, [key], "person"):
        connection.execute(tasks.update().where(tasks.c.key == key).values(approval="approved", updated_at=when))
        moves.queue(connection, key, "create", row.content_hash, when)
    record(connection, when, by, "approve", [
        {"key": key, "before": {"approval": row.approval}, "after": {"approval": "approved"}}])
    return True


def reject(connection: sa.Connection, key: str, given: moves.Answer) -> None:
    """`Outbox.reject` inside a transaction."""
    row = moves.row_of(connection, key)
    moves.refuse_unknown(row, given)
    _refuse_unless_proposed(connection, key)
    after = {"status": given.status, "disposition": given.disposition, "note": given.note}
    with lawful(connection, [key], "person"):
        moves.take(connection, row, given, after)
    record(connection, given.recorded_at, given.by, "reject", [
        {"key": key, "before": {"status": row.status, "approval": row.approval}, "after": after}])
    if given.disposition == "do_not_contact":
        moves.suppress(connection, row.account_id, "do_not_contact", given.occurred_at, None)


def snooze(connection: sa.Connection, key: str, given: moves.Answer) -> bool:
    """`Outbox.snooze` inside a transaction."""
    row = moves.row_of(connection, key)
    if given.until is None or given.until <= given.recorded_at:
        raise OutreachError(f"Task {key} cannot sleep until {(given.until or 'no day')[:10]}: that is not after "
                            f"{given.recorded_at[:10]}. Give a later day.")
    after = {"status": "snoozed", "snoozed_until": given.until, "snooze_reason": given.note}
    if all(getattr(row, name) == value for name, value in after.items()):
        return False
    with lawful(connection, [key], "person"):
        moves.take(connection, row, given, after)
    before = {name: getattr(row, name) for name in after}
    record(connection, given.recorded_at, given.by, "snooze", [{"key": key, "before": before, "after": after}])
    return True


def wake(connection: sa.Connection, when: str) -> list[str]:
    """`Outbox.wake` inside a transaction. Where nobody said until when, a sleep lasts life.SNOOZE."""
    asleep = sa.select(tasks.c.key, tasks.c.snoozed_until, tasks.c.snooze_reason, tasks.c.updated_at)
    rows = [row for row in connection.execute(asleep.where(tasks.c.status == "snoozed").order_by(tasks.c.key))
            if (row.snoozed_until or stamp(dt.datetime.fromisoformat(row.updated_at) + SNOOZE)) <= when]
    after = {"status": "open", "snoozed_until": None, "snooze_reason": None}
    for some in moves.chunks(rows):
        keys = [row.key for row in some]
        with lawful(connection, keys, "churnkit"):
            connection.execute(tasks.update().where(tasks.c.key.in_(keys)).values(**after, updated_at=when))
    record(connection, when, "churnkit", "wake", [
        {"key": row.key, "before": {"status": "snoozed", "snoozed_until": row.snoozed_until,
                                    "snooze_reason": row.snooze_reason}, "after": after} for row in rows])
    return [row.key for row in rows]


def finish(connection: sa.Connection, key: str, given: moves.Answer) -> bool:
    """`Outbox.finish` inside a transaction."""
    row = moves.row_of(connection, key)
    if given.status not in CLOSED:
        raise OutreachError(f"Task {key} cannot be closed as '{given.status}'. Use one of: {', '.join(CLOSED)}.")
    if row.status == given.status and row.disposition == given.disposition and given.note is None:
        given = replace(given, note=row.note)
    done = moves.answer(connection, key, given)
    if done and row.status not in CLOSED:
        words = moves.closing_words(given.status, given.disposition, given.note)
        moves.withdraw(connection, {key: row}, given.recorded_at, {key: words})
    return done


def _refuse_unless_proposed(connection: sa.Connection, key: str) -> None:
    stage = standings(connection, [key])[key].stage
    if stage != "proposed":
        raise OutreachError(f"Task {key} does not wait for approval: it is {STAGES[stage]}. What waits is in: "
                            "churnkit tasks list --stage proposed.")
