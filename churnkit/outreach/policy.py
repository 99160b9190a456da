"""outreach.toml, read once into one frozen Policy: which plays there are, and every limit on them."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from churnkit.errors import SettingsError, did_you_mean
from churnkit.outreach.task import DISPOSITIONS
from churnkit.settings import Frozen, explain, read_toml

FILE = "outreach.toml"
SCHEMA_VERSION = 1
SIGNALS = ("person_asked", "open_escalation", "repeat_contact", "low_csat", "low_effort", "low_nps", "failed_payment",
           "champion_left", "notice_given", "error_code")
"""The plain signals on which a rule play may open; `rules.find_signals` finds them."""
AIMS: Mapping[str, str] = {"churn": "saving", "maintenance": "serving", "expansion": "selling"}
"""What a target's plays are for, the most important first: saving before serving before selling."""

_DEFAULT = Path(__file__).resolve().parent.parent / "workspace" / FILE
Share = Annotated[float, Field(ge=0, le=1)]
Days = Annotated[int, Field(ge=0, le=3650)]
Words = tuple[str, ...]


class Pilot(Frozen):
    """The first weeks' valve: few new tasks a run, for the people and segments that are named."""

    on: bool = True
    max_new_per_run: Annotated[int, Field(ge=0)] = 50
    owners: Words = ()
    segments: Words = ()


class Capacity(Frozen):
    """How much a person can do."""

    per_week: Annotated[int, Field(ge=0)] = 10
    manager: str = ""


class Control(Frozen):
    """The share of customers without outreach, by a salted hash of the topmost parent account."""

    share: Annotated[float, Field(ge=0, lt=1)] = 0.10
    salt: Annotated[str, Field(min_length=1)] = "churnkit"

    def holds(self, top_account: str) -> bool:
        """Whether the customer with this topmost parent account is in the control group.

        >>> Control(share=0).holds("A1")
        False
        """
        digest = hashlib.sha256(f"{self.salt}\x1f{top_account}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64 < self.share


class Cooldown(Frozen):
    """Days of peace after a closed task, by its disposition."""

    days: Days = 28
    after: dict[str, Days] = Field(default_factory=dict)

    def until(self, closed: dt.datetime, disposition: str | None) -> dt.datetime:
        """The moment at which the account may be approached again."""
        return closed + dt.timedelta(days=self.after.get(disposition or "", self.days))


class HumanFirst(Frozen):
    """The signals after which a person calls, within so many days."""

    signals: Words = ()
    due_days: Days = 1


class Precedence(Frozen):
    """The signals that show frustration: whoever shows one is sold nothing."""

    frustrated: Words = ()


class Dispatch(Frozen):
    """Days from an order to a technician on site."""

    days: Days = 2
    models: dict[str, Days] = Field(default_factory=dict)


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
    segments: Words = ()
    min_value: Annotated[float, Field(ge=0)] = 0.0
    enabled: bool = True
    says: str = ""
    steps: Annotated[Words, Field(min_length=1, max_length=6)]
    type: Literal["call", "email", "meeting", "visit", "review"] = "call"
    due_days: Days = 5
    valid_days: Annotated[int, Field(ge=1, le=3650)] = 30
    priority: Literal["low", "normal", "high"] = "normal"
    cost: Annotated[float, Field(ge=0)] = 0.0
    effect: Share = 0.1
    likelihood: Share = 0.2
    always: bool = False
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
        if self.who not in {"owner", "manager"} and not re.fullmatch(r"skill:\S.*", self.who):
            raise ValueError(f"says who = '{self.who}'; write 'owner', 'manager' or 'skill:NAME'")
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
    def closes_below(self) -> float:
        """The probability below which an untouched task of a model play is moot."""
        return min(self.open or 0.0, self.close if self.close is not None else (self.open or 0.0))


class Policy(Frozen):
    """All that outreach may and may not do; frozen, so a plan can be repeated from it."""

    schema_version: int = SCHEMA_VERSION
    pilot: Pilot = Pilot()
    capacity: Capacity = Capacity()
    control: Control = Control()
    cooldown: Cooldown = Cooldown()
    human_first: HumanFirst = HumanFirst()
    precedence: Precedence = Precedence()
    dispatch: Dispatch = Dispatch()
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
