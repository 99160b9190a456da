"""Plays: what an account manager may be asked to do, what opens and closes each, and what it is believed to turn."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from churnkit.errors import did_you_mean
from churnkit.settings import Frozen

SIGNALS = ("person_asked", "open_escalation", "repeat_contact", "failed_self_service", "bad_mood", "falling_mood",
           "low_csat", "low_effort", "low_nps", "failed_payment", "champion_left", "notice_given", "error_code")
"""The plain signals on which a rule play may open; `rules.find_signals` finds them."""
AIMS: Mapping[str, str] = {"churn": "saving", "maintenance": "serving", "expansion": "selling"}
"""What a target's plays are for, the most important first: saving before serving before selling."""
DRIVERS = ("usage", "support", "survey", "billing", "contract", "relationship", "asset", "account_assets")
"""The groups of features that may drive a score; a workspace's own groups are drivers too."""
SUPPORT_LEAD = "support_lead"
"""The skill of whoever leads support; `who = "support_lead"` asks for it."""

Share = Annotated[float, Field(ge=0, le=1)]
Days = Annotated[int, Field(ge=0, le=3650)]
Money = Annotated[float, Field(ge=0)]
Words = tuple[str, ...]
Aim = Literal["saving", "serving", "selling"]


class Signal(Frozen):
    """When a plain fact counts as a signal; see outreach.toml for what each key means to which signal."""

    within_days: Annotated[int, Field(ge=1, le=3650)] = 30
    at_most: float | None = None
    count: Annotated[int, Field(ge=1)] = 1
    span_days: Annotated[int, Field(ge=1)] = 7
    overdue_days: Days = 14
    codes: Words = ()


class Play(Frozen):
    """One thing that an account manager may be asked to do, and what opens it: a model's score or a plain signal."""

    target: Literal["churn", "expansion", "maintenance"]
    open: Annotated[float, Field(gt=0, le=1)] | None = None
    close: Share | None = None
    signal: str | None = None
    drivers: Words = ()
    """Only where the first reason is of one of these groups of features (usage, support, ...); [] takes any."""
    segments: Words = ()
    min_value: Money = 0.0
    max_value: Money | None = None
    enabled: bool = True
    says: str = ""
    steps: Annotated[Words, Field(min_length=1, max_length=6)]
    asks: Annotated[Words, Field(max_length=3)] = ()
    """Questions for the conversation; [] takes the usual one for the cause."""
    avoid: Annotated[Words, Field(max_length=3)] = ()
    """What had better not be said."""
    type: Literal["call", "email", "meeting", "visit", "review"] = "call"
    due_days: Days = 5
    valid_days: Annotated[int, Field(ge=1, le=3650)] = 30
    priority: Literal["low", "normal", "high"] = "normal"
    cost: Money = 0.0
    effect: Annotated[float, Field(ge=-1, le=1)] = 0.1
    effect_weight: Annotated[float, Field(gt=0)] = 200.0
    """How many customers of the control group the belief in `effect` is worth, against what is measured."""
    likelihood: Share = 0.2
    always: bool = False
    approval: bool = False
    """Whether a person must approve each task before it is sent."""
    who: str = "owner"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.open is None) == (self.signal is None):
            raise ValueError("needs either 'open' (a model's probability) or 'signal' (a rule), and not both")
        if self.signal is not None and self.signal not in SIGNALS:
            raise ValueError(f"names the unknown signal '{self.signal}'.{did_you_mean(self.signal, SIGNALS)} "
                             f"Known: {', '.join(SIGNALS)}")
        if self.open is not None and self.close is not None and self.close > self.open:
            raise ValueError(f"closes at {self.close}, above where it opens ({self.open}); make 'close' the lower one")
        if self.drivers and self.signal:
            raise ValueError("opens on a signal, which has no drivers; leave 'drivers' out, or use 'open'")
        if self.max_value is not None and self.max_value < self.min_value:
            raise ValueError(f"asks for at least {self.min_value:g} and at most {self.max_value:g}; make 'max_value' "
                             "the higher one")
        if self.who not in {"owner", "manager", SUPPORT_LEAD} and not re.fullmatch(r"skill:\S.*", self.who):
            raise ValueError(f"says who = '{self.who}'; write 'owner', 'manager' or 'skill:NAME' or '{SUPPORT_LEAD}'")
        if self.valid_days < self.due_days:
            raise ValueError(f"is due after {self.due_days} days but valid for {self.valid_days}; raise 'valid_days'")
        return self

    @property
    def opened_by(self) -> Literal["model", "rule"]:
        """What opens the play."""
        return "rule" if self.signal else "model"

    @property
    def aim(self) -> str:
        """Saving, serving or selling."""
        return AIMS[self.target]

    @property
    def skill(self) -> str:
        """The skill that it takes, or an empty string."""
        return self.who.removeprefix("skill:").strip().lower() if self.who not in {"owner", "manager"} else ""

    @property
    def closes_below(self) -> float:
        """The probability below which an untouched task of a model play is moot."""
        return min(self.open or 0.0, self.close if self.close is not None else (self.open or 0.0))
