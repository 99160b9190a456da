"""Who was champion when: changes that are only ever added, and where a rollback leads."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from churnkit.errors import ModelError
from churnkit.learning.tracking import ModelVersion, Tracking

CHAMPION, CHALLENGER = "champion", "challenger"

LONGEST = 1000
"""Characters of a reason: registries hold 5,000 in one place."""
RULE = "rule"
"""Who promotes where no person did: `promotion.decide`."""
_CHANGE = "churnkit.change."


@dataclass(frozen=True)
class Change:
    """One change of champion.

    `how` is rule, promote, rollback, or outside where the registry shows a champion that nobody told churnkit of.
    `old` and `new` are version numbers, `old` None before the first; `when` is an ISO time.
    """

    when: str
    how: str
    by: str
    why: str
    old: str | None
    new: str

    def to_json(self) -> str:
        """The change as one line."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Change:
        """The reverse of `to_json`."""
        return cls(**json.loads(text))


def signed(by: str, why: str) -> tuple[str, str]:
    """Who decided and why, as they are kept.

    Raises:
        ModelError: If either is blank or too long.
    """
    for name, text, most in (("--by", by, 200), ("--why", why, LONGEST)):
        if not text.strip() or len(text) > most:
            raise ModelError(f"{name} is {'blank' if not text.strip() else f'longer than {most} characters'}. Say who "
                             "decided and why, in a few words: it is kept with the model.")
    return " ".join(by.split()), " ".join(why.split())


def champions(history: Sequence[Change]) -> list[str]:
    """The champions that a rollback can lead to, the last of them the one that is: a rollback takes its own away.

    >>> steps = [("rule", "1"), ("rule", "2"), ("promote", "4"), ("rollback", "2")]
    >>> champions([Change("", how, "", "", None, new) for how, new in steps])
    ['1', '2']
    """
    line: list[str] = []
    for one in history:
        if one.how == "rollback" and line[-2:-1] == [one.new]:
            line.pop()
        elif line[-1:] != [one.new]:
            line.append(one.new)
    return line


class Succession:
    """A target's champions, by MLflow's alias `champion`, and the history of its changes beside it.

    The alias is moved first, in one step, and the change is written down after it: a run that is killed in between
    leaves one champion, and the same call again writes down the rest. A champion that the history does not know is
    written down as found before anything else changes.
    """

    def __init__(self, tracking: Tracking, name: str) -> None:
        self.tracking = tracking
        self.name = name

    def champion(self) -> ModelVersion | None:
        """The version that the alias names."""
        return self.tracking.alias(self.name, CHAMPION)

    def history(self) -> list[Change]:
        """Every change, oldest first."""
        if not self.tracking.known(self.name):
            return []
        tags = self.tracking.client.get_registered_model(self.name).tags
        return [Change.from_json(tags[key]) for key in sorted(tags) if key.startswith(_CHANGE)]

    def settle(self, now: dt.datetime) -> None:
        """Writes down a champion that the history does not know: of a run that was killed, or made by other tools."""
        number, last = self._number(), self._last()
        if number is not None and number != last:
            self._note(now, "outside", ("not known", "found so: by a run that was killed, or by another tool"),
                       last, number)

    def promote(self, number: str, signed: tuple[str, str], now: dt.datetime, how: str = "promote") -> Change | None:
        """Makes a version champion; None where it is already, and is known to be."""
        was, last = self._number(), self._last()
        if was == number:
            return None if last == number else self._note(now, how, signed, last, number)
        self.settle(now)
        self._move(number)
        return self._note(now, how, signed, was, number)

    def before(self, now: dt.datetime) -> str | None:
        """The number of the version that a rollback leads to; None where there is none."""
        line, number = champions(self.history()), self._number()
        if number is not None and number != self._last() and line[-2:-1] == [number]:
            return number  # a rollback that was killed half-way
        self.settle(now)
        line = champions(self.history())
        return line[-2] if len(line) > 1 else None

    def roll_back(self, number: str, signed: tuple[str, str], now: dt.datetime) -> Change:
        """Makes the version that `before` found champion again."""
        last = self._last()
        self._move(number)
        return self._note(now, "rollback", signed, last, number)

    def challenge(self, number: str) -> None:
        """Makes a version the challenger."""
        self.tracking.client.set_registered_model_alias(self.name, CHALLENGER, number)

    def _move(self, number: str) -> None:
        """Moves the alias, after who was challenger is none any more."""
        challenger = self.tracking.alias(self.name, CHALLENGER)
        if challenger is not None and str(challenger.version) == number:
            self.tracking.client.delete_registered_model_alias(self.name, CHALLENGER)
        self.tracking.client.set_registered_model_alias(self.name, CHAMPION, number)

    def _number(self) -> str | None:
        found = self.champion()
        return str(found.version) if found else None

    def _last(self) -> str | None:
        """The champion's number by the history."""
        return next((one.new for one in reversed(self.history())), None)

    def _note(self, now: dt.datetime, how: str, signed: tuple[str, str], old: str | None, new: str) -> Change:
        """Adds a change to the history."""
        change = Change(now.isoformat(timespec="seconds"), how, *signed, old, new)
        self.tracking.client.set_registered_model_tag(self.name, f"{_CHANGE}{len(self.history()) + 1:06d}",
                                                      change.to_json())
        return change
