"""Cutoffs and half-open windows: features look back, labels look ahead, and neither sees the edge twice."""

from __future__ import annotations

import datetime as dt
import re

from churnkit.errors import SettingsError

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def duration(text: str | int | dt.timedelta) -> dt.timedelta:
    """A span of time from words such as '28d', '72h' or '4w'; a bare number means days.

    Raises:
        SettingsError: If the text is no such span.

    >>> duration("72h")
    datetime.timedelta(days=3)
    """
    if isinstance(text, dt.timedelta):
        return text
    found = re.fullmatch(r"\s*(\d+)\s*([hdw]?)\s*", str(text))
    if not found:
        raise SettingsError(f"'{text}' is no span of time. Write a whole number and a unit: '72h', '28d' or '4w'.")
    try:
        return dt.timedelta(**{_UNITS[found[2] or "d"]: int(found[1])})
    except OverflowError:
        raise SettingsError(f"'{text}' is too long a span of time. Write at most a few thousand days.") from None


def moment(text: str | dt.date | dt.datetime) -> dt.datetime:
    """A UTC time from a date or time; one without a zone is read as UTC.

    Raises:
        SettingsError: If the text is no date or time.

    >>> moment("2026-11-01").isoformat()
    '2026-11-01T00:00:00+00:00'
    """
    if isinstance(text, dt.datetime):
        value = text
    elif isinstance(text, dt.date):
        value = dt.datetime(text.year, text.month, text.day, tzinfo=dt.UTC)
    else:
        try:
            value = dt.datetime.fromisoformat(text.strip())
        except ValueError:
            raise SettingsError(f"'{text}' is no date. Write it as 2026-11-01 or 2026-11-01T06:00:00+00:00.") from None
    return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


def every(start: dt.datetime, end: dt.datetime, step: dt.timedelta) -> list[dt.datetime]:
    """Cutoffs from `start` to `end`, both included where the step meets them, `step` apart.

    Raises:
        SettingsError: If the step is not positive or the end lies before the start.

    >>> [c.day for c in every(moment("2026-01-01"), moment("2026-01-09"), duration("4d"))]
    [1, 5, 9]
    """
    if step <= dt.timedelta(0):
        raise SettingsError(f"The step between cutoffs must be positive, not {step}. Write for instance '28d'.")
    if end < start:
        raise SettingsError(f"The cutoffs end ({end:%Y-%m-%d}) before they start ({start:%Y-%m-%d}). Swap them.")
    return [start + step * n for n in range(int((end - start) / step) + 1)]
