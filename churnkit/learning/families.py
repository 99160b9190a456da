"""Related columns are one reason: which features tell of one thing, what they weigh together, which says it best."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from churnkit.learning.calibrate import Floats
from churnkit.signals.groups import Feature

Places = NDArray[np.intp]
CLEAR = 1.5
"""A change or a plain count is spoken in place of a relative that weighs up to this many times as much."""
PAST = 0.5
"""What only serves as a comparison is spoken where it weighs twice as much as any relative."""
_SPAN = re.compile(r"_(?:\d+[dh])(?=_|$)")
_VIEW = re.compile(r"_(?:change|trend|ratio|before|last|detractor|vs_usual|usual|mean|median|worst|best|low|min|max"
                   r"|spread|slope)(?=_|$)")


_USE = {"events", "active_days", "minutes", "days_since_event"}
"""How much the product is used, however it is counted. What it is used for is another thing: some of it may be bad."""
_RENEWAL = {"days_to_renewal", "renewing_months", "billing_months"}
"""When the contract ends next, and how much of it: each says something only beside the others."""


def family(name: str, feature: Feature | None = None) -> str:
    """The thing that a feature tells of, whatever its window and whichever way it is counted or summed up.

    >>> family("events_7d") == family("events_84d") == family("events_28d_change")
    True
    >>> family("events_28d") == family("events_vs_usual_28d"), family("nps_last") == family("nps_change")
    (True, True)
    >>> family("oil_mean_7d") == family("oil_slope_28d"), family("tickets_open") == family("tickets_opened_28d")
    (True, False)
    """
    own = _VIEW.sub("", _SPAN.sub("", name))
    if feature is not None and feature.group == "usage" and own in _USE:
        return "events"
    if feature is not None and feature.group == "contract" and own in _RENEWAL:
        return "renewal"
    return own or (feature.compare if feature else None) or name


def clearness(feature: Feature | None, compared: bool) -> float:
    """How readily a feature speaks for its family; `compared` where another is compared with it."""
    if compared:
        return PAST
    plain = feature is not None and (feature.unit == "change" or feature.op in {"count", "total", "distinct"})
    return CLEAR if plain else 1.0


class Families:
    """The families of k features, given as one name per feature; `names` are theirs, in the order of their firsts."""

    def __init__(self, of: Sequence[str]) -> None:
        self.names = tuple(dict.fromkeys(of))
        number = {name: place for place, name in enumerate(self.names)}
        self.of: Places = np.array([number[name] for name in of], dtype=np.intp)

    def __len__(self) -> int:
        return len(self.names)

    def added(self, contributions: Floats) -> Floats:
        """What each family contributes: its features' contributions (n, k), added, shape (n, families).

        >>> Families(["a", "b", "a"]).added(np.array([[1.0, 2.0, 4.0]])).tolist()
        [[5.0, 2.0]]
        """
        return np.asarray(contributions @ (self.of[:, None] == np.arange(len(self))), dtype=float)

    def spoken(self, contributions: Floats, added: Floats, clear: Floats) -> Places:
        """Which feature speaks for each family in each row, shape (n, families).

        It is the strongest that works the family's way, each weighed with its clearness (k).

        >>> one = np.array([[1.0, -3.0, 2.5]])
        >>> Families(["a", "a", "a"]).spoken(one, np.array([[0.5]]), np.ones(3)).tolist()
        [[2]]
        """
        weighed = contributions * clear
        best = np.empty(added.shape, dtype=np.intp)
        for number in range(len(self)):
            places = np.flatnonzero(self.of == number)
            best[:, number] = places[(weighed[:, places] * np.sign(added[:, [number]])).argmax(axis=1)]
        return best
