"""Evidence from what is made of the feeds: missing values of features, the distribution of scores, how many alerts.

Each is compared with the median of the last runs and with the very last one: what rises run by run is explained by the
last, what came back after a while by the median. A jump is what neither explains.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from churnkit.watch.counts import Numbers
from churnkit.watch.evidence import Evidence, Figure
from churnkit.watch.usual import LIMIT, scale

LEAST_RUNS = 3
"""Earlier runs without which there is no history."""
LEVELS = np.linspace(0.05, 0.95, 19)
"""The quantiles of the scores that are compared."""
LATELY = 8
"""Runs whose median is usual."""
_MISSING, _SHIFT = 0.10, 0.10
_ALERTS, _MORE = 1.5, 10


@dataclass(frozen=True)
class Spread:
    """A target's scores of one run: how many, their quantiles at LEVELS, by which model, how many pass a play's bar."""

    at: dt.date
    number: int
    quantiles: tuple[float, ...]
    version: str
    alerts: int

    @classmethod
    def of(cls, at: dt.date, probabilities: Numbers, version: str, bar: float) -> Spread:
        """The spread of these probabilities; alerts are those from `bar` on.

        >>> Spread.of(dt.date(2026, 11, 1), np.array([0.1, 0.3]), "churn-1", 0.2).alerts
        1
        """
        there = np.asarray(probabilities, dtype=float)
        there = there[np.isfinite(there)]
        levels = np.quantile(there, LEVELS) if len(there) else np.full(len(LEVELS), np.nan)
        return cls(at, len(there), tuple(float(one) for one in levels), version, int((there >= bar).sum()))


def missing_jumps(target: str, now: Mapping[str, float], past: Sequence[Mapping[str, float]],
                  today: dt.date) -> list[Evidence]:
    """Features that are missing far more often than before, as one piece of evidence a target."""
    jumped = []
    for name, share in now.items():
        shares = np.array([one[name] for one in past if name in one])
        if len(shares) < LEAST_RUNS:
            continue
        usual = max(float(np.median(shares[-LATELY:])), float(shares[-1]))
        if share - usual >= _MISSING and share - usual > LIMIT * scale(np.diff(shares), least=0.01):
            jumped.append((share - usual, name, share, usual))
    if not jumped:
        return []
    jumped.sort(reverse=True)
    shown = ", ".join(f"{name} {share:.0%} (usually {usual:.0%})" for _, name, share, usual in jumped[:3])
    more = f", and {len(jumped) - 3} more" if len(jumped) > 3 else ""
    return [Evidence("missing", target, today, (target,), f"{target}: features are missing that used to be there: "
                                                          f"{shown}{more}. Did a table or a column stay away?")]


def distance(one: Spread, other: Spread) -> float:
    """The greatest difference of two distributions known by their quantiles (Kolmogorov and Smirnov's, approximately).

    >>> def at(*p): return Spread.of(dt.date(2026, 11, 1), np.array(p), "m", 1.0)
    >>> round(distance(at(.1, .2, .3), at(.1, .2, .3)), 2), round(distance(at(.1, .2), at(.8, .9)), 2)
    (0.0, 0.95)
    """
    points = np.concatenate([one.quantiles, other.quantiles])
    shares = [np.interp(points, each.quantiles, LEVELS, left=0.0, right=1.0) for each in (one, other)]
    return float(np.max(np.abs(shares[0] - shares[1])))


def shifted(target: str, now: Spread, past: Sequence[Spread]) -> list[Evidence]:
    """Scores that lie elsewhere than in the last runs of the same model, and than in the very last one."""
    same = [one for one in past if one.version == now.version and one.number]
    if len(same) < LEAST_RUNS or not now.number:
        return []
    usual = Spread(now.at, now.number, tuple(np.median([one.quantiles for one in same[-LATELY:]], axis=0)),
                   now.version, 0)
    steps = [distance(one, other) for one, other in pairwise(same)]
    off = min(distance(now, usual), distance(now, same[-1]))
    # Smirnov's bound at 1 in 1,000: both samples are of this size at least in expectation.
    chance = 1.95 * np.sqrt(2 / now.number)
    if off < max(_SHIFT, chance, LIMIT * float(np.median(steps))):
        return []
    middle = len(LEVELS) // 2
    says = (f"{target}: the scores have moved by {off:.0%} of the {now.number:,} scored since the run before (median "
            f"{now.quantiles[middle]:.1%}, {same[-1].quantiles[middle]:.1%} before), where from run to run "
            f"{float(np.median(steps)):.0%} is usual.")
    plot = Figure(f"{target}: median score", tuple(one.at for one in (*same, now)),
                  tuple(one.quantiles[middle] for one in (*same, now)), usual.quantiles[middle],
                  usual.quantiles[middle])
    return [Evidence("scores", target, now.at, (target,), says, plot)]


def alarmed(target: str, now: Spread, past: Sequence[Spread]) -> list[Evidence]:
    """Far more alerts than in the last runs, and than in the very last one."""
    if len(past) < LEAST_RUNS:
        return []
    counts = np.array([one.alerts for one in past], dtype=float)
    usual = max(float(np.median(counts[-LATELY:])), counts[-1])
    even = 2 * np.sqrt(np.append(counts, [usual, now.alerts]) + 0.375)
    off = (even[-1] - even[-2]) / scale(np.diff(even[:-2]))
    if off <= LIMIT or now.alerts < _ALERTS * usual or now.alerts - usual < _MORE:
        return []
    says = (f"{target}: {now.alerts:,} of {now.number:,} scored pass a play's bar, at most {usual:,.0f} were usual in "
            f"the {len(past)} runs before.")
    plot = Figure(f"{target}: alerts", tuple(one.at for one in (*past, now)),
                  tuple(float(one.alerts) for one in (*past, now)), 0.0, usual)
    return [Evidence("alerts", target, now.at, (target,), says, plot)]


def built_up(risen: Numbers, others: Numbers) -> int | None:
    """Over how many days the records of those who newly alert moved away from all others'; None if they did not move.

    Dividing by the others takes out weekdays, seasons, and faults that hit all alike. The way from what was usual (up
    to four weeks ago) to the last week's level is followed in medians of three days; the days between a fifth and
    four fifths of the way count. A fault moves everybody's records between two days: then it is 0 to 2.

    Args:
        risen: Rows a day of those who newly alert, 84 days or more, the last day last.
        others: The same of all others.
    """
    there = others > 0.5 * np.median(others)
    ratio = (risen[there] + 0.5) / (others[there] + 0.5)
    if len(ratio) < 40:
        return None
    before, now = float(np.median(ratio[:-28])), float(np.median(ratio[-4:]))
    if before <= 0 or abs(now / before - 1) < 0.1:
        return None
    smooth = np.median(np.stack([ratio[:-2], ratio[1:-1], ratio[2:]]), axis=0)
    way = (smooth[-40:] - before) / (now - before)
    return int(((way > 0.2) & (way < 0.8)).sum())
