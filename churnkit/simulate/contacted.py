"""Contacts that people make with a simulated book's accounts, and what they add to its hazards: the known effects.

A contact works from the week after it on (a technician's visit from the next day), and fades by half in FADES weeks. A
second one does not add to the first: the stronger holds. An attempt that reached nobody leaves its touch and no effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from churnkit.errors import DataError, did_you_mean
from churnkit.simulate.causes import States, contact_effect, fading, sale_effect
from churnkit.simulate.contracts import Push
from churnkit.simulate.frames import Frame, frame, ids, words
from churnkit.simulate.machines import HORIZON, Machines
from churnkit.simulate.world import DAY, Array, World

Contacts: TypeAlias = Any  # a pandas frame, or whatever gives columns by name
TARGETS = ("churn", "expansion", "maintenance")
CHANNELS = ("call", "email", "meeting", "visit", "chat")
COLUMNS = ("account_id", "contacted_at", "target", "channel", "reached", "asset_id")
"""The first two are needed; the others are churn, call, True and all of the account's assets where they are missing."""


@dataclass(frozen=True)
class Made:
    """The contacts in the order of time, one value each; `number` counts an account's own from 0."""

    account: Array
    at: Array
    target: Array
    channel: Array
    reached: Array
    asset: Array
    """The ids of the assets that a visit was about, joined by `;`; empty where it was all of them."""
    number: Array

    def take(self, which: Array) -> Made:
        """Some of them."""
        return Made(*(values[which] for values in vars(self).values()))

    @property
    def rounds(self) -> int:
        """How many the most contacted account had."""
        return int(self.number.max()) + 1 if len(self.number) else 0


def read(world: World, contacts: Contacts) -> Made:
    """Contacts from a frame, those within the book's time.

    Raises:
        DataError: If a column is missing, or names what the book does not have.
    """
    columns = list(contacts.keys())
    for name in COLUMNS[:2]:
        if name not in columns:
            raise DataError(f"contacts: the column '{name}' is missing. They need account_id and contacted_at; "
                            f"{', '.join(COLUMNS[2:])} may follow.")
    size = len(contacts["account_id"])
    account = _known(contacts["account_id"], {one: place for place, one in enumerate(world.ids.tolist())}, "account_id")
    at = _times(contacts["contacted_at"])
    default = {"target": "churn", "channel": "call", "reached": True, "asset_id": ""}
    given = {name: list(contacts[name]) if name in columns else [value] * size for name, value in default.items()}
    order = np.lexsort((account, at))
    order = order[(at[order] >= world.clock.start) & (at[order] < world.clock.end)]
    by_account = np.argsort(account[order], kind="stable")
    sorted_ = account[order][by_account]
    number = np.empty(len(order), dtype=int)
    number[by_account] = np.arange(len(order)) - np.searchsorted(sorted_, sorted_)
    made = Made(
        account, at, _known(given["target"], {one: place for place, one in enumerate(TARGETS)}, "target"),
        _known(given["channel"], {one: place for place, one in enumerate(CHANNELS)}, "channel"),
        np.array(given["reached"], dtype=bool), np.array([one if isinstance(one, str) else "" for one in
                                                          given["asset_id"]], dtype=object), np.zeros(size, dtype=int))
    return Made(**{**vars(made.take(order)), "number": number})


def push(world: World, states: States, made: Made, before: Push) -> Push:
    """What `before` becomes by one more contact of some accounts, one each."""
    spoken = made.take(made.reached & (made.target < 2))
    if not len(spoken.at):
        return before
    week = world.clock.week(spoken.at)
    sells = spoken.target == 1
    harm = np.where(world.sleeping[spoken.account], contact_effect(world, states, spoken.account, week), 0.0)
    churn = np.where(sells, harm, contact_effect(world, states, spoken.account, week))
    growth = np.where(sells, sale_effect(states, spoken.account, week), 0.0)
    return Push(_stronger(world, before.churn, spoken.account, week + 1, churn),
                _stronger(world, before.growth, spoken.account, week + 1, growth))


def _stronger(world: World, before: Array | float, account: Array, start: Array, effect: Array) -> Array:
    weeks = np.arange(world.clock.all_weeks)[:, None]
    there = np.zeros((len(weeks), world.size)) if isinstance(before, float) else before.copy()
    there[:, account] = stronger(there[:, account], effect * fading(weeks - start))
    return there


def stronger(one: Array | float, other: Array) -> Array:
    """Of two effects the one that moves more."""
    return np.where(np.abs(other) > np.abs(one), other, one)


def visits(world: World, made: Made, drawn: Machines) -> Array | None:
    """The days after contacts on which a technician comes, (days of the book + HORIZON, assets); None without any."""
    seen = made.take(made.reached & (made.target == 2))
    if not len(seen.at):
        return None
    days = np.zeros((world.clock.days + HORIZON, len(drawn.ids)), dtype=bool)
    day = ((seen.at - world.clock.start) // DAY + 1).astype(int)
    contact, asset = np.nonzero(seen.account[:, None] == drawn.account[None, :])
    named = zip(seen.asset[contact], drawn.ids[asset], strict=True)
    meant = np.array([not wanted or one in wanted.split(";") for wanted, one in named], dtype=bool)
    days[day[contact[meant]], asset[meant]] = True
    return days


def touched(world: World, made: Made) -> Frame:
    """The contacts as rows of the table touches, attempts that reached nobody too."""
    size = len(made.at)
    return frame(
        "touches", account_id=ids(world.ids, made.account), occurred_at=made.at,
        channel=words(CHANNELS, made.channel), direction=words(("outbound",), np.zeros(size, int)),
        by=words(("human",), np.zeros(size, int)), recorded_at=np.minimum(made.at + np.timedelta64(300, "s"),
                                                                          world.clock.end))


def _known(values: Any, places: dict[str, int], name: str) -> Array:
    found = [places.get(str(value), -1) for value in values]
    if -1 in found:
        strange = str(list(values)[found.index(-1)])
        raise DataError(f"contacts: row {found.index(-1)} has {name} '{strange}', which is not in this book."
                        f"{did_you_mean(strange, places)} Take contacts of this book alone.")
    return np.array(found, dtype=int)


def _times(values: Any) -> Array:
    found = pa.array(list(values)) if len(values) else pa.array([], pa.timestamp("us", tz="UTC"))
    if not pa.types.is_timestamp(found.type) or found.type.tz is None or found.null_count:
        raise DataError("contacts: 'contacted_at' must be times with a zone, and none may be missing. Make them with "
                        "pandas.to_datetime(..., utc=True).")
    whole = found.cast(pa.timestamp("s", tz="UTC"), safe=False).cast(pa.int64()).to_numpy(zero_copy_only=False)
    return np.asarray(whole.astype("datetime64[s]"))
