"""Windows over heavy streams at many cutoffs in one pass: rows fall into buckets once, windows sweep over buckets.

A window `[cutoff - before - span, cutoff - before)` can only begin or end at a breakpoint. Rows between two neighbours
are seen by the same windows, so they are added up once, into a bucket; a frame over buckets then gives each
window's count, sum, least or greatest. Different values are counted by islands: the spans of cutoffs at which a value
is seen, merged where they overlap. A row that became known only after a later breakpoint is late: it leaves its bucket
and meets the cutoffs that may see it one by one. join.py gives the same values, row by row.
"""


from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import ibis
import numpy as np
import numpy.typing as npt
from ibis.expr import types as ir

from churnkit.signals.groups import Feature
from churnkit.signals.partials import GREATEST, LEAST, PARTS, Frame, Part, counted, finished, needed, prepared
from churnkit.signals.streams import DAY, HOUR

_DISTANT = 2**61


@dataclass(frozen=True)
class Grid:
    """Where buckets begin: every `step` microseconds from `origin`, or, without a step, at midnights and breakpoints.

    `shared` says that all entities are asked at the same few cutoffs; `first` and `last` are the ends of them. `dense`
    says that an entity's cutoffs are near enough to each other to lay out every step between them.
    """

    step: int
    origin: int
    shared: bool
    first: int
    last: int
    dense: bool

    @property
    def whole_days(self) -> bool:
        """Whether no bucket parts a day."""
        return self.step > 0 and self.step % DAY == 0 and self.origin % DAY == 0


def grid_of(cutoffs: npt.NDArray[np.int64], wanted: Iterable[Feature], *, shared: bool) -> Grid:
    """The widest grid on which every breakpoint lies; none where it would be finer than an hour.

    Args:
        cutoffs: The cutoffs asked about, microseconds, int64, at least one.
        wanted: The features of the stream.
        shared: Whether all entities are asked at the same cutoffs.

    >>> from churnkit.signals.groups import total
    >>> week = 7 * DAY
    >>> grid_of(np.array([2 * week, 4 * week]), total("events", "usage", "n", (7, 28)), shared=True).step == week
    True
    """
    first, last = int(cutoffs.min()), int(cutoffs.max())
    frames = {frame for item in wanted for _, frame in needed(item)}
    edges = [edge for frame in frames for edge in (frame.before, frame.span or 0)]
    step = math.gcd(int(np.gcd.reduce(cutoffs - first)), *edges) or DAY
    step = step if step >= HOUR else 0
    steps = (last - first + _reach(frames)) // step if step else 0
    dense = shared and step > 0 and steps <= SPARSE * len(np.unique(cutoffs))
    return Grid(step, first % step if step else 0, shared, first, last, dense)


SPARSE = 8
"""Up to so many steps a cutoff, every step is laid out and frames count rows of it, which is quicker than ranges."""


def sweep(asked: ir.Table, rows: ir.Table, wanted: list[Feature], grid: Grid) -> ir.Table:
    """The features of one stream at every asked entity and cutoff.

    Args:
        asked: `id` and `cutoff`, each pair once.
        rows: The stream: id, at, known and its columns; no records with versions, no states.
        wanted: Features that `partials.sweepable` allows.
        grid: Where buckets begin.

    Returns:
        `id`, `cutoff` and one column per feature, a row for each asked pair.
    """
    pairs = list(dict.fromkeys(pair for item in wanted for pair in needed(item)))
    rows = rows.filter(rows["at"] < grid.last)
    if all(frame.span is not None for _, frame in pairs):
        rows = rows.filter(rows["at"] >= grid.first - _reach(frame for _, frame in pairs))
    ids = asked.select(name="id").distinct()
    ids = ids.mutate(number=ibis.row_number().over(order_by=ids.name))  # numbers group and join quicker than names
    rows = rows.join(ids, rows.id == ids.name).drop("id", "name").rename(id="number")
    asked = asked.join(ids, asked.id == ids.name).select("cutoff", id="number")
    cuts = None if grid.step else _cuts(asked, pairs, grid)
    added = [pair for pair in pairs if pair[0].how != "distinct"]
    result, names = asked, {}
    if added:
        read = sorted({"id", "at", "known", *(column for part, _ in added for column in part.columns)})
        parted = _bucketed(prepared(rows.select(read), wanted), cuts, grid)
        result = _added_up(asked, parted, added, grid)
        names = {pair: f"p{place}" for place, pair in enumerate(added)}
    for of, where in dict.fromkeys((part.of, part.where) for part, _ in pairs if part.how == "distinct"):
        alike = [pair for pair in pairs if (pair[0].how, pair[0].of, pair[0].where) == ("distinct", of, where)]
        given = {pair: f"d{len(names) + place}" for place, pair in enumerate(alike)}
        kinds = counted(rows, alike[0][0])
        kept = rows.filter(rows[of].notnull() if kinds is None else kinds & rows[of].notnull())
        if of == "day" and grid.whole_days:  # days do not meet in two buckets, so that they add up
            days = kept.group_by("id", at=kept[of] * DAY).aggregate(known=kept.known.min())
            found = _added_up(asked, _bucketed(days, cuts, grid), [(Part("rows"), frame) for _, frame in alike], grid)
            found = found.rename({given[pair]: f"p{place}" for place, pair in enumerate(alike)})
        else:
            values = _bucketed(kept.select("id", "at", "known", value=of), cuts, grid)
            found = _distinct(asked, values, alike, list(given.values()))
        names |= given
        result = result.left_join(found, ["id", "cutoff"]).drop("id_right", "cutoff_right")
    columns = {item.name: finished(item, result, names) for item in wanted}
    result = result.select("cutoff", number="id", **columns)
    return result.join(ids, "number").select("cutoff", *columns, id="name")


def _reach(frames: Iterable[Frame]) -> int:
    return max((frame.before + (frame.span or 0) for frame in frames), default=0)


def _cuts(asked: ir.Table, pairs: list[tuple[Part, Frame]], grid: Grid) -> ir.Table:
    """The pieces, from `lo` to `hi`, of each `_day` that holds a breakpoint; by `id` where cutoffs are not shared."""
    by = ["_day"] if grid.shared else ["id", "_day"]
    edges = sorted({edge for _, frame in pairs for edge in (frame.before, frame.before + (frame.span or 0))})
    found = asked.select(*by[:-1], "cutoff", edge=ibis.array(edges).unnest())
    found = found.select(*by[:-1], lo=found.cutoff - found.edge)  # Spark unnests in a step of its own
    found = found.mutate(_day=found.lo // DAY)
    begins = found.union(found.mutate(lo=found["_day"] * DAY)).distinct()
    following = begins.lo.lead(1).over(ibis.window(group_by=by, order_by="lo"))
    pieces = begins.mutate(hi=ibis.coalesce(following, (begins["_day"] + 1) * DAY))
    return pieces.rename({f"{name}_of": name for name in by})


def _bucketed(rows: ir.Table, cuts: ir.Table | None, grid: Grid) -> ir.Table:
    """The rows with `k`, where their bucket begins, and `shown`: when they were known, if that was after its end."""
    kept = rows.columns
    if cuts is None:
        place = (rows["at"] - grid.origin) // grid.step * grid.step + grid.origin
        rows = rows.mutate(k=place, end=place + grid.step)
    else:
        rows = rows.mutate(_day=rows["at"] // DAY)
        on = [rows[name] == cuts[f"{name}_of"] for name in ("id", "_day") if f"{name}_of" in cuts.columns]
        cut = rows.left_join(cuts, [*on, cuts.lo <= rows["at"], rows["at"] < cuts.hi])
        rows = cut.select(*kept, k=ibis.coalesce(cut.lo, cut["_day"] * DAY),
                          end=ibis.coalesce(cut.hi, (cut["_day"] + 1) * DAY))
    return rows.select(*kept, "k", shown=ibis.ifelse(rows.known > rows.end, rows.known, None))


def _added_up(asked: ir.Table, rows: ir.Table, pairs: list[tuple[Part, Frame]], grid: Grid) -> ir.Table:
    """`id`, `cutoff` and p0, p1 ...: each part within its frame."""
    parts = {part: f"b{place}" for place, part in enumerate(dict.fromkeys(part for part, _ in pairs))}
    buckets = rows.group_by("id", "k", "shown").aggregate(
        **{name: PARTS[part.how](rows, part, counted(rows, part)) for part, name in parts.items()})
    late = buckets.filter(buckets.shown.notnull())
    line = buckets.filter(buckets.shown.isnull()).select("id", "k", *parts.values())
    ever = {part: name for part, name in parts.items() if (part, None) in {(one, frame.span) for one, frame in pairs}}
    if ever:  # a window without a beginning sees a late row from when it was known on: a bucket that begins just before
        absent = {name: ibis.null(line[name].type()) for part, name in parts.items() if part not in ever}
        more = late.select("id", *ever.values(), k=ibis.greatest(late.k, late.shown - 1))
        line = line.union(more.mutate(**absent).select(line.columns))
    swept = (_steps if grid.dense else _ranges)(asked, line, pairs, parts, grid)
    bounded = {place: f"q{place}" for place, (_, frame) in enumerate(pairs) if frame.span is not None}
    if not bounded:
        return swept
    both = swept.left_join(_late(asked, late, pairs, parts, bounded), ["id", "cutoff"])
    columns = {f"p{place}": both[f"p{place}"] if place not in bounded else
               _merged(part, both[f"p{place}"], both[bounded[place]]) for place, (part, _) in enumerate(pairs)}
    return both.select("id", "cutoff", **columns)


def _steps(asked: ir.Table, line: ir.Table, pairs: list[tuple[Part, Frame]], parts: dict[Part, str],
           grid: Grid) -> ir.Table:
    """Frames over every step from the first window's beginning to the last cutoff; what lies before is one step."""
    lowest = (grid.first - _reach(frame for _, frame in pairs) - grid.origin) // grid.step - 1
    highest = (grid.last - grid.origin) // grid.step
    place = ibis.greatest((line.k - grid.origin) // grid.step, lowest)
    filled = line.group_by(key_id=line.id, place=place).aggregate(
        **{name: _combined(line[name], part) for part, name in parts.items()})
    ids = asked.select("id").distinct()
    every = ids.mutate(step=ibis.range(lowest, highest + 1).unnest())
    laid = every.left_join(filled, [every.id == filled.key_id, every.step == filled.place])

    def over(frame: Frame) -> ibis.Window:
        end = -(frame.before // grid.step + 1)
        begin = None if frame.span is None else -((frame.before + frame.span) // grid.step)
        return ibis.window(group_by="id", order_by="step", rows=(begin, end))

    summed = {f"p{number}": _combined(laid[parts[part]], part).over(over(frame))
              for number, (part, frame) in enumerate(pairs)}
    laid = laid.select(key_id="id", moment=laid.step * grid.step + grid.origin, **summed)
    return asked.left_join(laid, [asked.id == laid.key_id, asked.cutoff == laid.moment]).select("id", "cutoff", *summed)


def _ranges(asked: ir.Table, line: ir.Table, pairs: list[tuple[Part, Frame]], parts: dict[Part, str],
            _: Grid) -> ir.Table:
    """Frames by distance over buckets and cutoffs, in one line per entity."""
    line = line.rename(pos="k").mutate(wanted=ibis.literal(value=False))
    nothing = {name: ibis.null(line[name].type()) for name in parts.values()}
    moments = asked.select("id", pos="cutoff", **nothing, wanted=ibis.literal(value=True))
    line = line.union(moments.select(*line.columns))

    def over(frame: Frame) -> ibis.Window:
        begin = None if frame.span is None else -(frame.before + frame.span)
        return ibis.window(group_by="id", order_by="pos", range=(begin, -(frame.before + 1)))

    summed = {f"p{number}": _combined(line[parts[part]], part).over(over(frame))
              for number, (part, frame) in enumerate(pairs)}
    line = line.mutate(**summed)
    return line.filter(line.wanted).select("id", *summed, cutoff="pos")


def _combined(values: ir.Value, part: Part) -> ir.Value:
    return values.min() if part.how in LEAST else values.max() if part.how in GREATEST else values.sum()


def _merged(part: Part, one: ir.Value, other: ir.Value) -> ir.Value:
    """What two sets of rows give together; missing only where both are."""
    if part.how in LEAST:
        return ibis.least(one, other)
    if part.how in GREATEST:
        return ibis.greatest(one, other)
    return ibis.ifelse(one.isnull() & other.isnull(), None, ibis.coalesce(one, 0) + ibis.coalesce(other, 0))


def _late(asked: ir.Table, late: ir.Table, pairs: list[tuple[Part, Frame]], parts: dict[Part, str],
          named: dict[int, str]) -> ir.Table:
    """`id`, `cutoff` and q0, q1 ...: what late rows add, each met by the cutoffs that may see it."""
    reach = _reach(pairs[place][1] for place in named)
    late = late.rename(key_id="id").mutate(begin=ibis.greatest(late.k + 1, late.shown), end=late.k + reach)
    late = late.filter(late.begin <= late.end)
    laid = late.mutate(period=ibis.range(late.begin // _PERIOD, late.end // _PERIOD + 1).unnest())
    moments = asked.mutate(period_of=asked.cutoff // _PERIOD)
    seen = moments.join(laid, [moments.id == laid.key_id, moments.period_of == laid.period,
                               laid.begin <= moments.cutoff, laid.end >= moments.cutoff])
    columns = {}
    for place, name in named.items():
        part, frame = pairs[place]
        moment = seen.cutoff - frame.before
        within = (seen.k < moment) & (seen.k >= moment - (frame.span or 0))
        columns[name] = _combined(ibis.ifelse(within, seen[parts[part]], None), part)
    return seen.group_by("id", "cutoff").aggregate(**columns)


_PERIOD = 28 * DAY
"""The grid on which late rows meet cutoffs, so that their join has an equality on time."""


def _distinct(asked: ir.Table, rows: ir.Table, pairs: list[tuple[Part, Frame]], names: list[str]) -> ir.Table:
    """How many different values each frame holds: islands that have opened, less those that have closed."""
    values = rows.group_by("id", "value", "k").aggregate(known=rows.known.min())
    steps = [step for name, (_, frame) in zip(names, pairs, strict=True) for step in _edges(values, name, frame)]
    changes = reduce(lambda one, other: one.union(other),
                     [step.select("id", "pos", **{name: ibis.literal(0, "int64") if name not in step.columns
                                                  else step[name] for name in names}, wanted=ibis.literal(value=False))
                      for step in steps])
    moments = asked.select("id", pos="cutoff", **dict.fromkeys(names, ibis.literal(0, "int64")),
                           wanted=ibis.literal(value=True))
    line = changes.union(moments)
    line = line.group_by("id", "pos").aggregate(**{name: line[name].sum() for name in names},
                                                wanted=line.wanted.any())
    so_far = ibis.window(group_by="id", order_by="pos", rows=(None, 0))
    line = line.mutate(**{name: line[name].sum().over(so_far) for name in names})
    return line.filter(line.wanted).select("id", *names, cutoff="pos")


def _edges(values: ir.Table, name: str, frame: Frame) -> list[ir.Table]:
    """+1 where an island of cutoffs that see a value opens, -1 just after it closes."""
    opens = ibis.greatest(values.k + 1 + frame.before, values.known)
    closes = values.k + frame.before + (frame.span if frame.span is not None else _DISTANT)
    live = values.mutate(opens=opens, closes=closes)
    live = live.filter(live.opens <= live.closes)
    so_far = ibis.window(group_by=("id", "value"), order_by=("opens", "closes"), rows=(None, -1))
    live = live.mutate(before=live.closes.max().over(so_far))
    opening = live.filter(live.before.isnull() | (live.opens > live.before))
    ends = live.group_by("id", "value").aggregate(pos=live.closes.max() + 1)
    return [
        opening.select("id", pos="opens", **{name: ibis.literal(1, "int64")}),
        opening.filter(opening.before.notnull()).select("id", pos=opening.before + 1,
                                                        **{name: ibis.literal(-1, "int64")}),
        ends.select("id", "pos", **{name: ibis.literal(-1, "int64")}),
    ]
