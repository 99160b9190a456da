"""Evidence from the feeds: days that are short, long, doubled, renamed, at other hours, or no longer join.

What tells a fault from customers that truly change their ways: a fault changes the structure of a feed, that is how
many accounts are heard of, which kinds of events there are, at what hours, how often a row stands twice, how many rows
name an account that is known; and it comes between one day and the next. Customers who leave use less and less, over
days, in feeds that are otherwise as they were.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from churnkit.watch.counts import AGES, Days, Numbers
from churnkit.watch.evidence import Evidence, Figure, Kind
from churnkit.watch.usual import JUDGED, LIMIT, Bounds, Odd, Series, history, odd, scale

HOLDING = 7
"""Days back for which a fault of a feed still holds: the shortest window of a feature."""
_ROWS, _WHO, _WEEK = Bounds(0.8, 1.4, 8), Bounds(0.85, 1.4, 8), Bounds(0.5, 2.0, 20)
_REPEATED, _KIND = Bounds(-1.0, 1.0, 0.05), Bounds(0.5, 99.0, 0.01)
_NEW = 0.03
"""The share of a day's rows from which a name that was never seen is told."""
_HOURS, _ENOUGH = 2.0, 20
"""Hours by which the mean time of day must move, and rows that a mean needs."""
SHOWN = 84
"""Days in a plot."""


@dataclass(frozen=True)
class _Look:
    """One look at a feed: which days are no history, which are accepted by a person, and from which day faults hold."""

    days: Days
    targets: tuple[str, ...]
    left_out: npt.NDArray[np.bool_]
    accepted: frozenset[int]
    first: int

    def odd(self, series: Series, bounds: Bounds, judged: int = JUDGED) -> list[Odd]:
        """The odd days of one series; none but the accepted ones are history for the next."""
        found = odd(series, bounds, self.left_out, judged, self.accepted)
        if judged > 1:
            self.left_out[[one.place for one in found if one.place not in self.accepted]] = True
        return found


def found_in(days: Days, targets: tuple[str, ...], since: int = HOLDING,
             free: frozenset[str] = frozenset()) -> list[Evidence]:
    """Evidence of the last `since` days of one feed; a day that anything is wrong with is no history for the next.

    Args:
        days: The feed.
        targets: Which targets hang on it.
        since: For how many days back a fault holds.
        free: Keys of evidence that people released: those days are as they should be.
    """
    accepted = {key.rsplit(" ", 1)[1] for key in free if key.split(" ")[1] == days.table}
    at = _Look(days, targets, np.zeros(days.size, dtype=bool),
               frozenset(place for place in range(days.size) if str(days.day(place)) in accepted), days.size - since)
    found = [_told(at, kind, series, one) for kind, series, bounds in _series(days)
             for one in at.odd(series, bounds) if one.place >= at.first]
    found += [*_renamed(at), *_clocks(at)]
    if not any(one.kind in {"shrunken", "grown"} for one in found):
        found += _week(at)
    return _once(found)


def judged(days: Days) -> bool:
    """Whether a feed has enough days to be judged."""
    return history(Series(days.rows))


def _series(days: Days) -> Iterator[tuple[Kind, Series, Bounds]]:
    yield "repeated", Series(days.repeated, days.rows), _REPEATED
    yield "shrunken", Series(days.rows), _ROWS
    yield "shrunken", Series(days.entities), _WHO


def _told(at: _Look, kind: Kind, series: Series, one: Odd) -> Evidence:
    days, targets = at.days, at.targets
    day, usual = days.day(one.place), _between(one.low, one.high)
    if kind == "repeated":
        says = (f"{days.table}: on {day} {one.value:.0%} of the rows stand twice or more; {one.high:.1%} is usual. "
                "Was an export loaded twice?")
        return Evidence(kind, days.table, day, targets, says, figure(days, series, one, "share of repeated rows"))
    kind = "shrunken" if one.value < one.low else "grown"
    noun = "rows" if series.counts is days.rows else days.noun
    why = _why_short(days) if kind == "shrunken" else "Was an export loaded twice?"
    says = (f"{days.table}: {one.value:,.0f} {noun} on {day}, where the days before and the season explain {usual}. "
            f"{why}")
    about = days.table if noun == "rows" else f"{days.table} {noun}"
    return Evidence(kind, about, day, targets, says, figure(days, series, one, noun))


def _why_short(days: Days) -> str:
    lost = sum(days.lost.values())
    if lost:
        return (f"{lost:,} rows of {days.table} name ids that are not known ({', '.join(sorted(days.lost))}), and were "
                "left out. Were ids written in another way?")
    return "Is the export whole, and did it end in time?"


def _between(low: float, high: float) -> str:
    return f"{low:,.0f} to {high:,.0f}" if round(low) != round(high) else f"{low:,.0f}"


def _week(at: _Look) -> list[Evidence]:
    """The last seven days together, for feeds that are too thin to be judged by the day."""
    days = at.days
    rows = np.where(at.left_out[:, None], np.nan, days.rows)
    sums = np.full_like(rows, np.nan)
    for back in range(7):  # the days of a week are of mixed ages, the last one the youngest
        part = np.full(days.size, np.nan)
        part[back:] = rows[:days.size - back, min(back, AGES - 1)]
        sums[:, 0] = part if back == 0 else sums[:, 0] + part
    for one in at.odd(Series(sums, span=7), _WEEK, judged=1):
        kind: Kind = "shrunken" if one.value < one.low else "grown"
        says = (f"{days.table}: {one.value:,.0f} rows in the seven days to {days.day(one.place)}, where the weeks "
                f"before and the season explain {_between(one.low, one.high)}. "
                f"{_why_short(days) if kind == 'shrunken' else 'Was an export loaded twice?'}")
        return [Evidence(kind, days.table, days.day(one.place), at.targets, says,
                         figure(days, Series(sums), one, "rows in seven days"))]
    return []


def _renamed(at: _Look) -> list[Evidence]:
    """Names that all but vanished from one day to the next, and what came up in their place."""
    days, found = at.days, []
    for name, counts in days.kinds.items():
        series = Series(counts, days.rows)
        for one in at.odd(series, _KIND):
            if one.place < at.first or one.value > one.low:
                continue
            new = _new_names(days, one.place)
            came = f" '{new[0]}' came up that day: was it renamed?" if new else " Was it renamed, or is a part missing?"
            says = (f"{days.table}: '{name}' makes up {one.value:.1%} of the rows on {days.day(one.place)}, where "
                    f"{one.low:.1%} is the least that its past explains.{came}")
            found.append(Evidence("kinds", f"{days.table} {name}", days.day(one.place), at.targets, says,
                                  figure(days, series, one, f"share of '{name}'")))
    return found


def _new_names(days: Days, place: int) -> list[str]:
    """Names with many rows on a day that had none in the weeks before the judged ones."""
    before = slice(max(0, place - 56), max(0, place - JUDGED // 4))
    return [name for name, counts in days.kinds.items()
            if counts[place, -1] > _NEW * days.rows[place, -1] and not np.nansum(counts[before, -1])]


def _clocks(at: _Look) -> list[Evidence]:
    """Days, or spans of four days, whose mean hour has moved: the first such one that still holds."""
    days = at.days
    for span in (1, 4):
        moved = hours_moved(days, span, at.left_out)
        found = [place for place in range(at.first, days.size) if np.isfinite(moved[place])
                 and abs(moved[place]) >= _HOURS and abs(moved[place]) > LIMIT * _usual_move(moved, place)]
        if found:
            place = found[0]
            says = (f"{days.table}: on {days.day(place)} rows lie {abs(moved[place]):.1f} hours "
                    f"{'later' if moved[place] > 0 else 'earlier'} in the day than they used to. Is their time zone "
                    "the one that the settings say?")
            shown = slice(max(0, days.size - SHOWN), days.size)
            plot = Figure(f"{days.table}: hours that a day's mean time moved", _dates(days, shown),
                          _floats(moved[shown]), 0.0, 0.0)
            return [Evidence("clock", days.table, days.day(place), at.targets, says, plot)]
    return []


def hours_moved(days: Days, span: int, left_out: npt.NDArray[np.bool_]) -> Numbers:
    """By how many hours the mean time of each `span` days lies off that of the eight weeks before the last four.

    The mean of times on a circle is the angle of the sum of their unit vectors (Mardia and Jupp, Directional
    Statistics, 2000, section 2.2). Missing where there are too few rows, or where they fall evenly over the day.
    """
    rows, clock = _run(np.nan_to_num(days.rows[:, -1]), span), _run(days.clock[:, -1], span)
    past = slice(max(0, days.size - JUDGED - 56), days.size - JUDGED)
    usual = days.clock[past, -1][~left_out[past]].sum()
    many = np.nansum(days.rows[past, -1][~left_out[past]])
    if many < 7 * _ENOUGH or abs(usual) < 0.15 * many:
        return np.full(days.size, np.nan)
    # The angle's standard error is at most 1 / (length * sqrt(rows)), by the same book's section 4.8.
    sure = np.abs(clock) / np.sqrt(np.maximum(rows, 1.0)) > LIMIT / (_HOURS * np.pi / 12)
    there = (rows >= _ENOUGH) & (np.abs(clock) >= 0.15 * rows) & sure
    angle = np.angle(np.where(there, clock, 1.0) * np.conj(usual))
    return np.where(there, angle * 12 / np.pi, np.nan)


def _run(values: npt.NDArray[Any], span: int) -> npt.NDArray[Any]:
    """Sums of each day and those before it, `span` in all."""
    total = np.cumsum(values)
    return np.asarray(np.concatenate([total[:span], total[span:] - total[:-span]]))


def _usual_move(moved: Numbers, place: int) -> float:
    past = moved[max(0, place - 182):place - 7]
    past = past[np.isfinite(past)]
    return scale(past, least=0.25) if len(past) >= 14 else float("inf")


def figure(days: Days, series: Series, one: Odd, what: str) -> Figure:
    """The plot of a series up to the last day, each day at the age of the odd one."""
    shown = slice(max(0, days.size - SHOWN), days.size)
    values = series.share(days.age(one.place)).copy()
    return Figure(f"{days.table}: {what}", _dates(days, shown), _floats(values[shown]), one.low, one.high)


def _dates(days: Days, shown: slice) -> tuple[dt.date, ...]:
    return tuple(days.day(place) for place in range(shown.start, shown.stop))


def _floats(values: Numbers) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _once(found: Sequence[Evidence]) -> list[Evidence]:
    """One piece of evidence a key, the first."""
    first: dict[str, Evidence] = {}
    for one in found:
        first.setdefault(one.key, one)
    return list(first.values())


def feeds_of(targets: Mapping[str, str], tables: Mapping[str, bool]) -> dict[str, tuple[str, ...]]:
    """Which targets hang on which table: telemetry and machines' events on those of assets, all others on accounts'.

    Args:
        targets: Each target's entity, account or asset.
        tables: By table, whether it tells of equipment.

    >>> feeds_of({"churn": "account", "maintenance": "asset"}, {"telemetry": True, "surveys": False})
    {'telemetry': ('maintenance',), 'surveys': ('churn',)}
    """
    return {name: tuple(target for target, entity in targets.items() if (entity == "asset") == of_assets)
            for name, of_assets in tables.items()}
