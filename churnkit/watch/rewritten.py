"""Evidence that a feed is no longer what earlier runs saw of the same days: rows gone, doubled, moved, or cut off."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import numpy as np

from churnkit.watch.counts import Days
from churnkit.watch.evidence import Evidence, Kind
from churnkit.watch.memory import Run, SeenDay, last_of

_GONE, _GROWN, _HOURS, _FEW = 0.9, 1.4, 2.0, 50
"""Shares of what was seen, hours, and rows without which nothing is said."""
_SHARE = 0.02
"""The share of the rows from which a kind's going is told."""
_UNJOINED = 0.05
"""By how much the share of rows whose ids are known may fall."""


def rewritten(days: Days, targets: tuple[str, ...], runs: Sequence[Run], today: dt.date) -> list[Evidence]:
    """Evidence from the comparison of one feed with what the last trusted run saw of it."""
    before = last_of(runs, days.table)
    if before is None:
        return []
    found = [*_unjoined(days, targets, runs, today)]

    def add(kind: Kind, says: str) -> None:
        found.append(Evidence(kind, days.table, today, targets, f"{days.table}: {says}"))

    pairs = [(was, now) for day, was in before.days.items() if (now := _now(days, day)) is not None]
    was_rows, now_rows = sum(was.rows for was, _ in pairs), sum(now.rows for _, now in pairs)
    if was_rows >= _FEW and now_rows < _GONE * was_rows:
        add("rewritten", f"of {was_rows:,.0f} rows that an earlier run saw in the same {len(pairs)} days, "
                         f"{was_rows - now_rows:,.0f} are gone. Is a file or a part of the export missing?")
    elif was_rows >= _FEW and now_rows > _GROWN * was_rows:
        add("rewritten", f"{now_rows:,.0f} rows in the same {len(pairs)} days in which an earlier run saw "
                         f"{was_rows:,.0f}. Was an export loaded twice?")
    elif before.kept >= _FEW and days.kept < _GONE * before.kept:
        add("rewritten", f"{days.kept:,} rows, where an earlier run saw {before.kept:,}. Is a file or a part of the "
                         "export missing?")
    moved = _moved(pairs)
    if min(was_rows, now_rows) >= _FEW and abs(moved) >= _HOURS:
        add("clock", f"the same days' rows lie {abs(moved):.1f} hours {'later' if moved > 0 else 'earlier'} than an "
                     "earlier run saw them. Is their time zone the one that the settings say?")
    for name, then, today_rows in _kinds(pairs):
        if then >= max(_FEW, _SHARE * was_rows) and today_rows < then / 2 and now_rows >= _GONE * was_rows:
            add("kinds", f"{today_rows:,.0f} rows of '{name}' in the same days in which an earlier run saw "
                         f"{then:,.0f}. Was it renamed?")
    return found


def _kinds(pairs: Sequence[tuple[SeenDay, SeenDay]]) -> list[tuple[str, float, float]]:
    """Rows of each kind in the same days, then and now."""
    names = sorted({name for was, _ in pairs for name in was.kinds})
    return [(name, sum(was.kinds.get(name, 0.0) for was, _ in pairs), sum(now.kinds.get(name, 0.0) for _, now in pairs))
            for name in names]


def _unjoined(days: Days, targets: tuple[str, ...], runs: Sequence[Run], today: dt.date) -> list[Evidence]:
    """Fewer rows than in the runs before name an account, asset or ticket that is known."""
    shares = [run.feeds[days.table].known / run.feeds[days.table].read for run in runs
              if days.table in run.feeds and run.feeds[days.table].read]
    if not shares or not days.read or days.read < _FEW:
        return []
    usual, now = min(float(np.median(shares)), shares[-1]), days.known / days.read
    if now >= usual - _UNJOINED:
        return []
    says = (f"{days.table}: {now:.1%} of the rows name ids that are known, {usual:.1%} did in earlier runs "
            f"({', '.join(sorted(days.lost))}). Were ids written in another way, or is the other table cut short?")
    return [Evidence("unjoined", days.table, today, targets, says)]


def _now(days: Days, day: str) -> SeenDay | None:
    """What can be seen now of a day that a run saw at its end or later; None where the counts do not reach back."""
    place = (dt.date.fromisoformat(day) - days.first).days
    if not 0 <= place < days.size:
        return None
    return SeenDay.of(days, place, -1)


def _moved(pairs: Sequence[tuple[SeenDay, SeenDay]]) -> float:
    """Hours between the mean times of day then and now; 0 where rows fall evenly over the day."""
    was = sum((complex(one.cos, one.sin) for one, _ in pairs), 0j)
    now = sum((complex(one.cos, one.sin) for _, one in pairs), 0j)
    rows = sum(one.rows for one, _ in pairs), sum(one.rows for _, one in pairs)
    if abs(was) < 0.15 * rows[0] or abs(now) < 0.15 * rows[1] or not abs(was):
        return 0.0
    return float(np.angle(now * np.conj(was)) * 12 / np.pi)
