"""outreach.toml, read once into one frozen Policy: which plays there are, and every limit on them."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import warnings
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from churnkit.errors import SettingsError, did_you_mean
from churnkit.fields import Zone
from churnkit.outreach.plays import AIMS, SIGNALS, Aim, Days, Money, Play, Share, Signal, Words
from churnkit.outreach.task import DISPOSITIONS
from churnkit.settings import Frozen, explain, read_toml

__all__ = ["AIMS", "FILE", "SIGNALS", "Play", "Policy", "Signal"]

FILE = "outreach.toml"
SCHEMA_VERSION = 1
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DEFAULT = Path(__file__).resolve().parent.parent / "workspace" / FILE


class Pilot(Frozen):
    """The first weeks' valve: few new tasks a run, for the people and segments that are named."""

    on: bool = True
    max_new_per_run: Annotated[int, Field(ge=0)] = 50
    owners: Words = ()
    segments: Words = ()


class Capacity(Frozen):
    """How much a person can do, and who may do it for whom."""

    per_week: Annotated[int, Field(ge=0)] = 10
    manager: str = ""
    slack: Annotated[float, Field(ge=0, lt=1)] = 0.1
    colleagues: Annotated[int, Field(ge=0, le=10)] = 2
    continuity: Share = 0.7
    change: Money = 20.0


class Caps(Frozen):
    """How often a customer may be approached, over all plays and people."""

    touches: Annotated[int, Field(ge=1)] = 4
    span_days: Annotated[int, Field(ge=1, le=365)] = 30


class Quiet(Frozen):
    """What leaves an account in peace, and from which aims; `always` plays are answers and go on."""

    renewal: tuple[Aim, ...] = ("saving", "selling")
    expansion: tuple[Aim, ...] = ("selling",)
    escalation: tuple[Aim, ...] = ("saving", "selling")
    deal_days: Annotated[int, Field(ge=1, le=3650)] = 180
    holidays: bool = True


class Hours(Frozen):
    """When people work, in their own zone: after the day's end a task counts from the next working day on."""

    days: Annotated[tuple[str, ...], Field(min_length=1)] = WEEKDAYS[:5]
    end: dt.time = dt.time(17)
    zone: Zone = "UTC"

    @model_validator(mode="after")
    def _known(self) -> Self:
        for day in self.days:
            if day not in WEEKDAYS:
                raise ValueError(f"names the day '{day}'; use {', '.join(WEEKDAYS)}")
        return self

    @cached_property
    def weekdays(self) -> frozenset[int]:
        """The working days as numbers, Monday 0."""
        return frozenset(WEEKDAYS.index(day) for day in self.days)


class Control(Frozen):
    """The share of customers without outreach; outreach/control.py draws them."""

    share: Annotated[float, Field(ge=0, lt=1)] = 0.10
    salt: Annotated[str, Field(min_length=1)] = "churnkit"
    exempt_value: Money | None = None
    """Customers that pay more a month than this are never kept apart, and count in no estimate."""


class Ranking(Frozen):
    """What expected value rests on: learnt uplift and measured effects where they are proven, else beliefs."""

    uplift: bool = True
    effects: bool = True


class Silence(Frozen):
    """An account that is to be left in peace, with the reason."""

    account: str
    reason: Annotated[str, Field(min_length=1)]
    until: dt.date | None = None


class Cooldown(Frozen):
    """Days of peace after a closed task, by its disposition."""

    days: Days = 28
    worse: Annotated[float, Field(gt=0, le=1)] = 0.15
    after: dict[str, Days] = Field(default_factory=dict)

    def until(self, closed: dt.datetime, disposition: str | None) -> dt.datetime:
        """The moment at which the account may be approached again."""
        return closed + dt.timedelta(days=self.after.get(disposition or "", self.days))


class HumanFirst(Frozen):
    """The signals after which a person calls, within so many days; so for the `top_share` who pay most a month."""

    signals: Words = ()
    due_days: Days = 1
    top_share: Share = 0.02


class Precedence(Frozen):
    """The signals that show frustration: whoever shows one is sold nothing."""

    frustrated: Words = ()


class Dispatch(Frozen):
    """Days from an order to a technician on site."""

    days: Days = 2
    models: dict[str, Days] = Field(default_factory=dict)


class Policy(Frozen):
    """All that outreach may and may not do; frozen, so a plan can be repeated from it."""

    schema_version: int = SCHEMA_VERSION
    pilot: Pilot = Pilot()
    capacity: Capacity = Capacity()
    caps: Caps = Caps()
    quiet: Quiet = Quiet()
    hours: Hours = Hours()
    control: Control = Control()
    ranking: Ranking = Ranking()
    cooldown: Cooldown = Cooldown()
    human_first: HumanFirst = HumanFirst()
    precedence: Precedence = Precedence()
    dispatch: Dispatch = Dispatch()
    suppressions: tuple[Silence, ...] = ()
    signals: dict[str, Signal] = Field(default_factory=dict)
    plays: dict[str, Play] = Field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path | None = None) -> Policy:
        """The policy in a file, or in a workspace folder's outreach.toml; without a path, the default one.

        What the file leaves out keeps the default's value; if it names any play, its plays are all there are.

        Raises:
            SettingsError: If the file is missing, is no TOML, or says something that is not understood: names file,
                line and key, and the mend.
        """
        if path is None:
            return cls.default()
        file = Path(path)
        file = file / FILE if file.is_dir() else file
        if not file.is_file():
            raise SettingsError(f"No policy at '{file}'. Make one with churnkit init in an empty folder, and copy its "
                                "outreach.toml there.")
        text = file.read_bytes().decode("utf-8", errors="replace")
        policy = _read(_merge(read_toml(_DEFAULT), read_toml(file)), file, text)
        if policy.control.share == 0:
            warnings.warn(f"{file}: [control] share = 0 leaves no control group, so nobody will be able to say what "
                          "outreach is worth. Set it to 0.1 unless that is what you want.", stacklevel=2)
        return policy

    @classmethod
    def default(cls) -> Policy:
        """The policy that `churnkit init` lays down.

        >>> Policy.default().plays["save_call"].target
        'churn'
        """
        return _read(read_toml(_DEFAULT), _DEFAULT, _DEFAULT.read_text(encoding="utf-8"))

    @property
    def active(self) -> dict[str, Play]:
        """The plays that are enabled, in the file's order."""
        return {name: play for name, play in self.plays.items() if play.enabled}

    def opens_at(self, target: str) -> float:
        """The least probability that can open a task of that target's model; 1 where no play waits for it.

        >>> Policy.default().opens_at("churn"), Policy().opens_at("churn")
        (0.2, 1.0)
        """
        return min((play.open for play in self.active.values() if play.target == target and play.open is not None),
                   default=1.0)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything the policy says, for the audit."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


def _read(data: dict[str, Any], file: Path, text: str) -> Policy:
    try:
        policy = Policy(**data)
    except ValidationError as error:
        path = tuple(str(part) for part in error.errors(include_url=False)[0]["loc"])
        raise SettingsError(explain(error, Policy, _at(file, text, path))) from None
    if policy.schema_version > SCHEMA_VERSION:
        raise SettingsError(f"{file}: schema_version {policy.schema_version} is newer than this churnkit knows "
                            f"({SCHEMA_VERSION}). Upgrade churnkit.")
    dispositions = {word for words in DISPOSITIONS.values() for word in words}
    for section, words, known in (
        (("signals",), policy.signals, SIGNALS),
        (("human_first", "signals"), policy.human_first.signals, SIGNALS),
        (("precedence", "frustrated"), policy.precedence.frustrated, SIGNALS),
        (("cooldown", "after"), policy.cooldown.after, dispositions),
    ):
        for word in words:
            if word not in known:
                raise SettingsError(f"{_at(file, text, (*section, word))}: '{'.'.join(section)}' names '{word}', which "
                                    f"is not known.{did_you_mean(word, known)} Known: {', '.join(sorted(known))}.")
    return policy


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, section by section; the plays are taken whole."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both and key != "plays" else value
    return merged


def _at(file: Path, text: str, path: tuple[str, ...]) -> str:
    """`file, line 12` for the deepest part of that key path that stands in the text, else the file alone."""
    wanted, section, best = ".".join(path), "", (0, 0)
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line)
        key = re.match(r"\s*([\w\"'-]+)\s*=", line)
        if header:
            here = section = re.sub("[\"']", "", header[1])
        elif key:
            here = f"{section}.{key[1]}".strip(".").replace('"', "").replace("'", "")
        else:
            continue
        if f"{wanted}.".startswith(f"{here}."):
            best = max(best, (len(here), number))
    return f"{file}, line {best[1]}" if best[1] else str(file)
