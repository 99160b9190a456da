"""Kinds of values that settings files hold: each reads one, or says what is wrong and how to mend it."""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator

from churnkit.cutoffs import duration, moment
from churnkit.errors import SettingsError, did_you_mean

TARGETS = ("churn", "expansion", "maintenance")
LANGUAGES = ("en", "de", "fr", "es", "nl", "it", "pt")
"""Languages that churnkit has lists of cues for, in churnkit/signals/cues/."""
_LONGEST = dt.timedelta(days=36_500)


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"'{name}' is no time zone; write for instance 'UTC' or 'Europe/Berlin'") from None
    return name


def _span(value: dt.timedelta) -> dt.timedelta:
    if value > _LONGEST:
        raise ValueError("is too long a span of time; write at most '36500d'")
    return value


def _step(value: dt.timedelta) -> dt.timedelta:
    if not value:
        raise ValueError("must be more than no time; write for instance '28d'")
    return value


def _target(name: str) -> str:
    if name not in TARGETS:
        raise ValueError(f"is no target.{did_you_mean(name, TARGETS)} Known: {', '.join(TARGETS)}")
    return name


def _language(code: str) -> str:
    if code not in LANGUAGES:
        raise ValueError(f"is no language that churnkit has lists for. Known: {', '.join(LANGUAGES)}")
    return code


def _function(name: str) -> str:
    if name and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
        raise ValueError("must name a function as 'package.module:function'")
    return name


def _engine(name: str) -> str:
    if name not in {"duckdb", "spark"} and not re.match(r"postgres(ql)?(\+\w+)?://", name):
        raise ValueError("is no engine. Write 'duckdb', 'spark' or 'postgresql://${DB_USER}:${DB_PASSWORD}@host/db'")
    return name


def parsed(call: Any) -> BeforeValidator:
    """A parser of ours as a pydantic validator: its message becomes the field's."""

    def parse(value: Any) -> Any:
        if isinstance(value, (bool, float, list, dict)) or (isinstance(value, int) and call is moment):
            raise ValueError("is not understood; write it as text in quotes")
        try:
            return call(value)
        except SettingsError as error:
            raise ValueError(str(error)) from None

    return BeforeValidator(parse)


Span = Annotated[dt.timedelta, parsed(duration), AfterValidator(_span)]
Step = Annotated[Span, AfterValidator(_step)]
Moment = Annotated[dt.datetime, parsed(moment)]
Zone = Annotated[str, AfterValidator(_zone)]
TargetName = Annotated[str, AfterValidator(_target)]
Language = Annotated[str, AfterValidator(_language)]
Function = Annotated[str, AfterValidator(_function)]
Engine = Annotated[str, AfterValidator(_engine)]
