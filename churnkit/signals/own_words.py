"""The sentences of own features: what is left out gets a plain one, and each template is checked for its marks."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import get_args

from churnkit.errors import SettingsError, did_you_mean
from churnkit.signals.groups import Feature, Unit, span

_SAYS = {
    "count": "{value}", "total": "{value} in all", "distinct": "{value} different", "mean": "{value} on average",
    "median": "half are {value} or more", "spread": "they vary by {value} (standard deviation)",
    "lowest": "{value} at the lowest", "highest": "{value} at the highest", "slope": "moving by {value} a day",
    "flag": "yes", "last": "{value} the last time", "days_since": "{value} ago", "age": "{value} for the oldest",
    "ratio": "{value}", "difference": "{value}", "greatest": "{value}",
}
_MARKS = {"says": {"value", "window"}, "against": {"compared", "window"}, "nothing": {"window"}, "missing": {"window"}}


def label(days: float) -> str:
    """A window as it stands at the end of a column's name.

    >>> label(28), label(0.25)
    ('28d', '6h')
    """
    return span(f"{round(days * 24)}h")[0]


def filled(item: Feature, say: str) -> Feature:
    """The feature with all its words.

    Raises:
        SettingsError: If a template has a mark that nothing fills, or the unit is none.
    """
    if item.unit not in get_args(Unit):
        raise SettingsError(f"{say}: unit '{item.unit}' is none.{did_you_mean(item.unit, get_args(Unit))} Known: "
                            f"{', '.join(get_args(Unit))}.")
    if item.kind == "category" and item.nothing:
        raise SettingsError(f"{say}: 'nothing' is said of 0, and this is a word. Take it out.")
    for key, known in _MARKS.items():
        text = getattr(item, key)
        marks = set(re.findall(r"\{(\w*)\}", text)) - known
        if marks or re.search(r"[{}]", re.sub(r"\{\w*\}", "", text)):
            raise SettingsError(f"{say}: '{key}' has a mark that nothing fills. Known there: "
                                f"{' and '.join(sorted(f'{{{mark}}}' for mark in known))}.")
        if "{window}" in text and item.window_days is None:
            raise SettingsError(f"{say}: '{key}' has {{window}}, and the feature has no window. Take it out.")
    return item if item.says or item.name.startswith("_") else _plain(item)


def _plain(item: Feature) -> Feature:
    """'trainings passed: 3 in the last 28 days', from the name."""
    past = item.before and not item.state
    base = item.name.removesuffix("_before") if past else item.name
    what = base.removesuffix(f"_{label(item.window_days)}" if item.window_days else "").replace("_", " ").strip()
    when = (" in the {window} days before the last {window}" if past else " in the last {window} days"
            if item.window_days else f" {item.before:g} days before" if item.before else " now" if item.state else "")
    if item.op == "change":
        return replace(item, says=_change(item, what), missing=item.missing or f"{what}: nothing to compare with")
    none = f"{what}: none{when}" if item.op != "flag" else f"no {what}{when}"
    says = f"{what}: {_SAYS[item.op]}{when}" if item.op != "flag" else f"{what}{when}"
    zero = none if item.op in ("count", "total", "distinct", "flag") else ""
    nothing = item.nothing or ("" if item.kind == "category" else zero)
    return replace(item, says=says, nothing=nothing, missing=item.missing or ("" if zero else none))


def _change(item: Feature, what: str) -> str:
    of, by = item.parts
    if by == f"{of}_before" and item.window_days:
        return f"{what.removesuffix(' change')}: {{value}} compared with the {{window}} days before"
    return f"{what}: {{value}} compared with {by.strip('_').replace('_', ' ')}"
