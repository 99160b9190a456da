"""Protected attributes of people: a feature that tells of one is no input and no reason, unless allowed by name."""

from __future__ import annotations

import re

from churnkit.settings import Settings
from churnkit.signals.catalog import Catalog
from churnkit.signals.features import groups
from churnkit.signals.groups import Feature, FeatureGroup
from churnkit.signals.own import definitions, parsed
from churnkit.signals.own_checks import COLUMN

WORDS = (
    "gender", "sex", "sexual_orientation", "marital_status", "pregnant", "pregnancy", "date_of_birth", "birth_date",
    "birthdate", "birth_year", "birthday", "birthplace", "age_years", "age_group", "disability", "medical_condition",
    "health_condition", "race", "ethnicity", "ethnic", "skin_color", "skin_colour", "nationality", "national_origin",
    "citizenship", "religion", "religious", "political", "trade_union",
)
"""Protected without being named: the grounds of the EU Charter's article 21, as columns are wont to be called."""


def protected(settings: Settings) -> tuple[str, ...]:
    """The names of the features that no model may see, in alphabetical order.

    A feature is protected if its name, or the column, condition or part that it is computed from, holds one of WORDS or
    of `[features] protected` as a whole word; under the name that the source gives that column, too. `[features] allow`
    takes a feature out by its name, or a word out of the list. What a workspace's own events, sensors and codes make
    features of is protected by the feature's full name alone.

    >>> protected(Settings()), protected(Settings(features={"protected": ["segment"]}))
    ((), ('segment',))
    """
    allowed = {_plain(name) for name in settings.features.allow}
    named = [_plain(word) for word in settings.features.protected]
    words = [word for word in (*WORDS, *named) if word not in allowed]
    own = definitions(settings).text
    behind = {**_renamed(settings), **{name: column for table in parsed(own).conditions.values()
                                       for name, (column, *_) in table.items()}}
    found = {feature.name for group in groups(Catalog(own=own)).values() for feature in group.features
             if any(_holds(text, words) for text in _told(feature, group, behind))}
    return tuple(sorted({*found, *(name for name in named if name not in allowed)} - allowed)) if words else ()


def _told(feature: Feature, group: FeatureGroup, behind: dict[str, str]) -> set[str]:
    """All names of a feature: its own, its columns' here and at the source, and those of its parts."""
    names = {feature.name, feature.of.removeprefix(COLUMN), *(column for column, _ in feature.where)}
    names |= {behind[name] for name in names if name in behind}
    names |= {behind[name] for name in names if name in behind}  # a condition's column, as the source calls it
    parts = (group.all_by_name[part] for part in feature.parts if part in group.all_by_name)
    return names.union(*(_told(part, group, behind) for part in parts))


def _renamed(settings: Settings) -> dict[str, str]:
    """What the sources call the columns of the contract and of own tables."""
    tables = (*settings.tables.values(), *definitions(settings).maps.values())
    maps = [part for table in tables for part in (table, *table.parts)]
    return {ours: theirs for one in maps for ours, theirs in one.columns.items()}


def _holds(text: str, words: list[str]) -> bool:
    return any(f"_{word}_" in f"_{_plain(text)}_" for word in words)


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
