"""The grammar of feature definitions: frozen values that say what is counted, over which window, and in which words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import MappingProxyType
from typing import Literal

from churnkit.cutoffs import duration

Unit = Literal["count", "number", "days", "hours", "minutes", "money", "share", "change", "score", "flag", "word"]
Value = str | float | bool | tuple[str | float, ...]
Where = tuple[tuple[str, Value], ...]
Window = int | str
"""Days, or text such as '6h', '28d' or '4w'."""

ZERO_WHEN_NOTHING = frozenset({"count", "total", "distinct", "flag", "notice"})
"""Operations whose answer is 0, and not missing, when a given table holds nothing in the window."""


@dataclass(frozen=True)
class Feature:
    """One column: what it is computed from, and how a person reads it.

    An aggregation takes the rows of `stream` whose time `at` lies in `[cutoff - before - window, cutoff - before)`, or
    those that hold at `cutoff - before` where `state` is true; `where` keeps rows by equality. A formula takes the
    columns `parts`. A name that starts with an underscore is an intermediate and leaves the room with nobody.

    `says` is the sentence, `against` its continuation with the compared value, `nothing` what is said of 0,
    and `missing`
    what is said where there is no value. `mutable` means that people at work on the account can change it.
    """

    name: str
    op: str
    says: str = ""
    stream: str = ""
    of: str = ""
    at: str = "at"
    where: Where = ()
    window_days: float | None = None
    before: float = 0
    state: bool = False
    parts: tuple[str, ...] = ()
    group: str = ""
    kind: Literal["number", "category"] = "number"
    unit: Unit = "number"
    noun: str = ""
    mutable: bool = False
    compare: str | None = None
    against: str = ""
    nothing: str = ""
    missing: str = ""


@dataclass(frozen=True)
class FeatureGroup:
    """The features of one entity that are computed, stored and served together.

    `through` names the stream of an entity's parts (an account's assets): its features are then computed per part and
    the worst part's value is kept. `targets` names the models that see a workspace's own group, `version` is a
    fingerprint of what it computes: see own.py.
    """

    name: str
    entity: Literal["account", "asset"]
    aggregations: Sequence[Feature | Sequence[Feature]]
    says: str = ""
    through: str = ""
    targets: tuple[str, ...] = ()
    version: str = ""
    all_features: tuple[Feature, ...] = field(init=False, repr=False, compare=False, default=())
    by_name: Mapping[str, Feature] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        features = tuple(replace(feature, group=self.name) for feature in _flat(self.aggregations))
        object.__setattr__(self, "all_features", features)
        object.__setattr__(self, "by_name", MappingProxyType(
            {feature.name: feature for feature in features if not feature.name.startswith("_")}))

    @property
    def all_by_name(self) -> dict[str, Feature]:
        """Every feature by name, intermediates too."""
        return {feature.name: feature for feature in self.all_features}

    @property
    def features(self) -> tuple[Feature, ...]:
        """The features that leave the room, in order."""
        return tuple(self.by_name.values())

    @property
    def names(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(self.by_name)

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that the group reads, each once."""
        return tuple(dict.fromkeys(feature.stream for feature in self.all_features if feature.stream))


def span(window: Window) -> tuple[str, float]:
    """A window as it stands in a column's name, and in days.

    >>> span(28), span("4w"), span("6h")
    (('28d', 28), ('28d', 28), ('6h', 0.25))
    """
    length, day = duration(window), timedelta(days=1)
    return (f"{length // day}d", length // day) if not length % day else (f"{length // timedelta(hours=1)}h",
                                                                          length / day)


def windowed(op: str, name: str, stream: str, windows: Iterable[Window], *, compared: Iterable[Window] = (),
             **words: object) -> tuple[Feature, ...]:
    """One feature per window, `{name}_{window}d`, and for each of `compared` the same span just before it.

    >>> [feature.name for feature in windowed("count", "logins", "usage", (7, "6h"), compared=(7,))]
    ['logins_7d', 'logins_7d_before', 'logins_6h']
    """
    made = []
    with_past = {span(window) for window in compared}
    for window in windows:
        label, days = span(window)
        here = Feature(f"{name}_{label}", op, stream=stream, window_days=days, **words)  # type: ignore[arg-type]
        if (label, days) in with_past:
            past = replace(here, name=f"{here.name}_before", before=days, compare=None, against="",
                           says=_earlier(here.says), nothing=_earlier(here.nothing), missing=_earlier(here.missing))
            here = replace(here, compare=past.name, against=here.against or "{compared} in the {window} days before")
            made += [here, past]
        else:
            made.append(replace(here, against=""))
    return tuple(made)


def count(name: str, stream: str, windows: Iterable[Window], **words: object) -> tuple[Feature, ...]:
    """Rows in each window."""
    return windowed("count", name, stream, windows, **{"unit": "count", **words})  # type: ignore[arg-type]


def total(name: str, stream: str, of: str, windows: Iterable[Window], **words: object) -> tuple[Feature, ...]:
    """The sum of a column in each window."""
    return windowed("total", name, stream, windows, of=of, **{"unit": "count", **words})  # type: ignore[arg-type]


def distinct(name: str, stream: str, of: str, windows: Iterable[Window], **words: object) -> tuple[Feature, ...]:
    """How many different values a column takes in each window."""
    return windowed("distinct", name, stream, windows, of=of, **{"unit": "count", **words})  # type: ignore[arg-type]


def mean(name: str, stream: str, of: str, windows: Iterable[Window], **words: object) -> tuple[Feature, ...]:
    """The mean of a column in each window; missing where there is no value."""
    return windowed("mean", name, stream, windows, of=of, **words)  # type: ignore[arg-type]


def median(name: str, stream: str, of: str, windows: Iterable[Window], **words: object) -> tuple[Feature, ...]:
    """The median of a column in each window."""
    return windowed("median", name, stream, windows, of=of, **words)  # type: ignore[arg-type]


def spread(name: str, stream: str, of: str, windows: Iterable[Window], **words: object) -> tuple[Feature, ...]:
    """The standard deviation (of the values themselves, not of a sample) in each window."""
    return windowed("spread", name, stream, windows, of=of, **words)  # type: ignore[arg-type]


def lowest(name: str, stream: str, of: str, windows: Iterable[Window], **words: object) -> tuple[Feature, ...]:
    """The least value of a column in each window."""
    return windowed("lowest", name, stream, windows, of=of, **words)  # type: ignore[arg-type]


def highest(name: str, stream: str, of: str, windows: Iterable[Window], **words: object) -> tuple[Feature, ...]:
    """The greatest value of a column in each window."""
    return windowed("highest", name, stream, windows, of=of, **words)  # type: ignore[arg-type]


def slope(name: str, stream: str, of: str, windows: Iterable[Window], **words: object) -> tuple[Feature, ...]:
    """The least-squares change per day of a column in each window; missing below two different times."""
    return windowed("slope", name, stream, windows, of=of, **words)  # type: ignore[arg-type]


def flag(name: str, stream: str, windows: Iterable[Window], **words: object) -> tuple[Feature, ...]:
    """1 where any row lies in the window, else 0."""
    return windowed("flag", name, stream, windows, **{"unit": "flag", **words})  # type: ignore[arg-type]


def last(name: str, stream: str, of: str, **words: object) -> Feature:
    """The latest known value of a column; of several at the same time the greatest."""
    return Feature(name, "last", stream=stream, of=of, **words)  # type: ignore[arg-type]


def days_since(name: str, stream: str, **words: object) -> Feature:
    """Days from the latest known row before the cutoff; missing where there has been none."""
    return Feature(name, "days_since", stream=stream, **{"unit": "days", **words})  # type: ignore[arg-type]


def open_at(name: str, stream: str, op: str = "count", **words: object) -> Feature:
    """An aggregation over what holds at the cutoff: begun before it, and not known to have ended before it."""
    return Feature(name, op, stream=stream, state=True, **{"unit": "count", **words})  # type: ignore[arg-type]


def ratio(name: str, of: str, by: str, **words: object) -> Feature:
    """One feature over another; missing where the second is 0."""
    return Feature(name, "ratio", parts=(of, by), **{"unit": "share", **words})  # type: ignore[arg-type]


def share(name: str, stream: str, where: Where, windows: Iterable[Window], *, among: Where = (), at: str = "at",
          **words: object) -> tuple[Feature, ...]:
    """The share of rows that satisfy `where` among all rows (of `among`) in each window; missing where there are none.

    >>> [feature.name for feature in share("passed", "exams", (("passed", True),), (28,)) if feature.name[0] != "_"]
    ['passed_28d']
    """
    kept = windowed("count", f"_{name}_part", stream, windows, where=(*among, *where), at=at)
    every = windowed("count", f"_{name}_all", stream, windows, where=among, at=at)
    made = [replace(ratio(f"{name}{part.name.removeprefix(f'_{name}_part')}", part.name, whole.name, **words),
                    window_days=part.window_days) for part, whole in zip(kept, every, strict=True)]
    return (*kept, *every, *made)


def change(name: str, of: str, by: str, **words: object) -> Feature:
    """How far a feature lies above or below another, as a share of the other; missing where that is 0."""
    return Feature(name, "change", parts=(of, by), **{"unit": "change", **words})  # type: ignore[arg-type]


def difference(name: str, of: str, by: str, **words: object) -> Feature:
    """One feature less another."""
    return Feature(name, "difference", parts=(of, by), **words)  # type: ignore[arg-type]


def _earlier(text: str) -> str:
    return text.replace("in the last {window} days", "in the {window} days before the last {window}")


def _flat(aggregations: Sequence[Feature | Sequence[Feature]]) -> Iterable[Feature]:
    for item in aggregations:
        if isinstance(item, Feature):
            yield item
        else:
            yield from _flat(item)
