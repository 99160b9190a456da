"""Values in words: the sentence that an account manager reads about one feature."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any

from churnkit.signals.groups import Feature

_RECORDS = MappingProxyType({
    "usage": "use", "support": "support", "survey": "surveys", "billing": "invoices", "contract": "contracts",
    "relationship": "contacts", "account_assets": "equipment", "asset": "this equipment",
})
_TIMES = MappingProxyType({1.0: "once", 2.0: "twice"})


def sentence(feature: Feature, value: Any, compared: Any, currency: str) -> str:
    """One true sentence, without capital and full stop, about a feature's value.

    `compared` is the value of the feature's partner; it is left out where there is none.
    """
    if _missing(value):
        said = feature.missing or f"not known, for want of records of {_RECORDS.get(feature.group, feature.group)}"
    elif feature.nothing and float(value) == 0:
        said = feature.nothing
    else:
        said = feature.says.replace("{value}", _amount(feature, value, currency))
    said = in_window(said, feature)
    if _missing(value) or not feature.against or _missing(compared):
        return said
    amount = "none" if feature.unit == "count" and float(compared) == 0 else _bare(feature, compared, currency)
    return f"{said}, {in_window(feature.against, feature).replace('{compared}', amount)}"


def short(feature: Feature | None, value: Any, currency: str) -> str:
    """A value alone, as it stands beside another: '31', 'down 71%', '3 days', 'not known'.

    >>> short(None, 31.0, "EUR"), short(None, float("nan"), "EUR")
    ('31', 'not known')
    """
    if _missing(value):
        return "not known"
    if feature is None:
        return str(value) if isinstance(value, str) else _number(float(value))
    return _change(float(value)) if feature.unit == "change" else _bare(feature, value, currency)


def in_window(text: str, feature: Feature) -> str:
    """Fills in the window; one day is 'the last day', and a part of a day is said in hours."""
    days = feature.window_days
    if days is None:
        return text
    number, unit = (days, "day") if days == int(days) else (days * 24, "hour")
    text = text.replace("{window} days", unit if number == 1 else f"{number:g} {unit}s")
    return text.replace("{window}", f"{number:g}")


def _missing(value: Any) -> bool:
    return value is None or (not isinstance(value, str) and math.isnan(value)) or value == ""


def _amount(feature: Feature, value: Any, currency: str) -> str:
    """The value with its noun or unit: '9 tickets', 'no tickets', 'twice', '3 days', '40%', 'down 71%'."""
    if feature.unit == "change":
        return _change(float(value))
    if feature.op == "difference":
        return f"{_counted(feature, abs(float(value)), currency)} {'more' if float(value) > 0 else 'less'}"
    return _counted(feature, value, currency)


def _counted(feature: Feature, value: Any, currency: str) -> str:
    if not feature.noun:
        return _bare(feature, value, currency)
    one, _, many = feature.noun.partition("|")
    number = float(value)
    if one == "time" and number in _TIMES:
        return _TIMES[number]
    return f"{'no' if number == 0 else _number(number)} {one if number == 1 else many or one}"


def _bare(feature: Feature, value: Any, currency: str) -> str:
    if feature.unit == "word":
        return str(value)
    number = float(value)
    if feature.unit in ("days", "hours", "minutes"):
        return _span(number, feature.unit)
    if feature.unit == "share":
        return f"{number:.0%}" if number == 0 or abs(number) >= 0.01 else "under 1%"
    if feature.unit == "money":
        whole = abs(number) >= 100 or number == round(number)
        return f"{currency} {number:,.0f}" if whole else f"{currency} {number:,.2f}"
    return _number(number)


def _span(number: float, unit: str) -> str:
    """A time with its unit, in the unit that a person would use."""
    if unit == "days" and 0 < number < 1:
        number, unit = number * 24, "hours"
    if unit == "hours" and 0 < number < 1:
        number, unit = number * 60, "minutes"
    if unit == "hours" and number >= 72:
        number, unit = number / 24, "days"
    if unit == "minutes" and number >= 180:
        number, unit = number / 60, "hours"
    if unit == "days" and number >= 730:
        number, unit = number / 365.25, "years"
    shown = f"{number:,.0f}" if number >= 10 or abs(number - round(number)) < 0.05 else f"{number:.1f}"
    return f"{shown} {unit.removesuffix('s') if shown == '1' else unit}"


def _change(number: float) -> str:
    """'down 71%', 'up 12%', 'unchanged'."""
    if abs(number) < 0.005:
        return "unchanged"
    return f"{'up' if number > 0 else 'down'} {abs(number):,.0%}"


def _number(number: float) -> str:
    if number == round(number) or abs(number) >= 1000:
        return f"{number:,.0f}"
    if abs(number) >= 10:
        return f"{number:,.1f}"
    return f"{number:.2f}".rstrip("0").rstrip(".") if abs(number) >= 0.01 else f"{number:.1g}"
