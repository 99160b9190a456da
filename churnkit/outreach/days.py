"""Working days: where a task may fall due, by the owner's hours and zone and the holidays of the account's country."""

from __future__ import annotations

import datetime as dt
from functools import cache
from zoneinfo import ZoneInfo

import holidays

from churnkit.outreach.policy import Hours

_LOOK = 30
"""No chain of days off is longer than this."""


def is_working(day: dt.date, hours: Hours, country: str | None = None) -> bool:
    """Whether people work on that day; a country that is not known has no holidays.

    >>> is_working(dt.date(2026, 12, 25), Hours(), "DE"), is_working(dt.date(2026, 12, 25), Hours())
    (False, True)
    """
    return day.weekday() in hours.weekdays and day not in _days_off(country, day.year)


def first_day(at: dt.datetime, zone: str | None, hours: Hours, country: str | None = None) -> dt.date:
    """The day that a person's work counts from: today in their own zone, or the next working day after hours.

    >>> first_day(dt.datetime(2026, 11, 6, 20, tzinfo=dt.UTC), "Europe/Berlin", Hours())
    datetime.date(2026, 11, 9)
    """
    here = at.astimezone(_zone(zone, hours.zone))
    return after(here.date(), 1, hours, country) if here.time() >= hours.end else here.date()


def after(start: dt.date, days: int, hours: Hours, country: str | None = None) -> dt.date:
    """The first working day that is at least so many days after `start`.

    >>> after(dt.date(2026, 11, 2), 5, Hours()), after(dt.date(2026, 12, 23), 2, Hours(), "DE")
    (datetime.date(2026, 11, 9), datetime.date(2026, 12, 28))
    """
    day = start + dt.timedelta(days=days)
    for _ in range(_LOOK):
        if is_working(day, hours, country):
            return day
        day += dt.timedelta(days=1)
    return start + dt.timedelta(days=days)


def before(end: dt.date, start: dt.date, hours: Hours, country: str | None = None) -> dt.date | None:
    """The last working day from `start` to `end`, or None where there is none.

    >>> before(dt.date(2026, 12, 27), dt.date(2026, 12, 25), Hours(), "DE") is None
    True
    """
    day = end
    while day >= start:
        if is_working(day, hours, country):
            return day
        day -= dt.timedelta(days=1)
    return None


@cache
def _days_off(country: str | None, year: int) -> frozenset[dt.date]:
    if not country:
        return frozenset()
    try:
        return frozenset(holidays.country_holidays(country.strip().upper(), years=year))
    except NotImplementedError:  # no country of that name
        return frozenset()


@cache
def _zone(name: str | None, default: str) -> ZoneInfo:
    try:
        return ZoneInfo(name or default)
    except (KeyError, ValueError, OSError):  # an owners table may hold anything
        return ZoneInfo(default)
