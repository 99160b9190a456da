"""What a CRM lets itself be asked: so many requests in a span, so many a day, and not before it said."""

from __future__ import annotations

import datetime as dt
import json
import math

import sqlalchemy as sa

from churnkit.outreach.crm.base import CrmDownError, Rate
from churnkit.outreach.ledger import note, noted, stamp, writing
from churnkit.outreach.runs import Clock

_BLOCK = 50
"""How many of the day's requests are set aside at once, so that not every request costs a transaction."""
_LONGEST = 7 * 86400.0
"""Seconds for which a CRM is left alone at most: whoever asks for years is asked again after a week."""


class Budget:
    """A token bucket that no span of `rate.seconds` can get more than `rate.requests` out of, and the day's quota.

    A bucket that holds b and fills at r lets at most b + r w through in any span w. Here b + r w is the limit, with b a
    twentieth of it, so that 95% of the limit can be had for ever. The bucket is empty when a run begins: what the run
    before it spent is then paid for, even where that was killed and could write nothing down.

    The day's requests are counted in the outbox, a block ahead of their use: a kill wastes some and never hides one.

    Args:
        engine: The outbox's database.
        name: The CRM's.
        rate: Its limits.
        clock: Both clocks.
    """

    def __init__(self, engine: sa.Engine, name: str, rate: Rate, clock: Clock) -> None:
        self._engine, self._name, self._rate, self._clock = engine, f"quota:{name}", rate, clock
        self._most = max(1, rate.requests // 20)
        filling = rate.requests - self._most if rate.requests > self._most else 0.95
        self._speed = filling / rate.seconds
        self._held, self._since, self._block = 0.0, clock.monotonic(), 0

    def spend(self) -> None:
        """Waits until one more request may go out.

        Raises:
            CrmDownError: If the day's quota is spent.
        """
        if self._rate.daily is not None and self._block == 0:
            self._block = self._set_aside(self._rate.daily)
        self._block -= 1
        while self._refill() < 1:
            self._clock.sleep((1 - self._held) / self._speed + 1e-6)
        self._held -= 1

    def done(self) -> None:
        """Gives back what was set aside and not used."""
        if self._rate.daily is not None and self._block > 0:
            with writing(self._engine) as connection:
                day, spent = self._spent(connection)
                note(connection, self._name, json.dumps([day, spent - self._block]))
            self._block = 0

    def _refill(self) -> float:
        now = self._clock.monotonic()
        self._held = min(self._most, self._held + max(0.0, now - self._since) * self._speed)
        self._since = max(now, self._since)
        return self._held

    def _set_aside(self, daily: int) -> int:
        with writing(self._engine) as connection:
            day, spent = self._spent(connection)
            block = min(_BLOCK, daily - spent)
            if block <= 0:
                raise CrmDownError(f"The {daily} requests of {day} are spent; new ones come at midnight, UTC.",
                                   today=False)
            note(connection, self._name, json.dumps([day, spent + block]))
        return block

    def _spent(self, connection: sa.Connection) -> tuple[str, int]:
        """The day, and what of it is spent; a clock that steps back does not bring yesterday's requests again."""
        today = self._clock.now().astimezone(dt.UTC).date().isoformat()
        kept = noted(connection, self._name)
        day, spent = json.loads(kept) if kept else ("", 0)
        return (today, 0) if day < today else (day, spent)


def leave_alone(engine: sa.Engine, crm: str, now: dt.datetime, down: CrmDownError) -> str | None:
    """Keeps until when a CRM wants to be left alone; None where it did not say.

    It names a span, or its quota of the day is spent: then until it is refilled at the next midnight, UTC.
    """
    if down.wait is None and down.today:
        return None
    tomorrow = dt.datetime.combine(now.astimezone(dt.UTC).date() + dt.timedelta(days=1), dt.time(), dt.UTC)
    wait = _LONGEST if down.wait is None or not math.isfinite(down.wait) else min(down.wait, _LONGEST)
    until = tomorrow if down.wait is None else now + dt.timedelta(seconds=wait)
    until = until if down.today else max(until, tomorrow)
    with writing(engine) as connection:
        note(connection, f"alone:{crm}", stamp(until))
    return stamp(until)


def alone_until(engine: sa.Engine, crm: str, now: dt.datetime) -> str | None:
    """Until when the CRM wants to be left alone; None where it may be asked."""
    with engine.connect() as connection:
        until = noted(connection, f"alone:{crm}")
    return until if until is not None and until > stamp(now) else None
