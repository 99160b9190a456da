"""Own features held against the tables that they read, and translated from the words of the tables to streams."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from churnkit.errors import SettingsError, did_you_mean
from churnkit.schemas import ENTITIES, POINTS
from churnkit.signals import own_words
from churnkit.signals.groups import Feature, FeatureGroup
from churnkit.signals.own_toml import PLAIN
from churnkit.signals.readable import DAY_OF, Readable

PREFIX, COLUMN = "own_", "c_"
"""What the streams of own features, and the columns of a table in them, begin with."""
LONGEST_DAYS = 3660
TARGETS: Mapping[str, tuple[str, ...]] = {"account": ("churn", "expansion"), "asset": ("maintenance",)}
"""The targets of each entity, which a group feeds unless it names some."""

_NUMBERS = frozenset({"number", "flag"})
_ANY = frozenset({"number", "flag", "category", "id"})
_OF: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("total", "mean", "median", "spread", "lowest", "highest", "slope"), _NUMBERS),
    "distinct": _ANY, "last": frozenset({"number", "flag", "category"}),
    **dict.fromkeys(("count", "flag", "days_since", "age"), frozenset()),
}
"""The operations over rows, and the kinds of column that each takes."""
_FORMULAS = ("ratio", "change", "difference", "greatest")
_TWO = ("ratio", "change", "difference")
_STATES = ("count", "total", "mean", "median", "lowest", "highest", "last", "distinct", "age")
_NAME = re.compile(r"_?[a-z][a-z0-9_]{0,59}")
_RESERVED = frozenset({*POINTS, *ENTITIES.values(), "event_timestamp", "created", "label", "target", "cutoff", "value",
                       "treated", "propensity", "kind", "why_none", "after_days"})
_COMPARISON = re.compile(r"(<=|>=|!=|<|>|=)\s*(-?\d+(?:\.\d+)?)")
_COMPUTES = ("name", "op", "stream", "of", "at", "where", "window_days", "before", "state", "parts", "kind")

Condition = tuple[str, str, Any]
"""A column, one of = != < <= > >= in, and a text, a number or a list of them."""


@dataclass
class Checker:
    """Checks groups one after the other; `conditions` gathers what their `where` asks of each table's rows."""

    file: str
    tables: Mapping[str, Readable]
    conditions: dict[str, dict[str, Condition]] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)

    def group(self, group: FeatureGroup) -> FeatureGroup:
        """The group in the words of streams, its formulas in an order in which each comes after its parts.

        Raises:
            SettingsError: For the first thing that is wrong, by file, feature and key, with the mend.
        """
        say = f"{self.file}: group '{group.name}'"
        if not PLAIN.fullmatch(group.name) or group.name in {*ENTITIES, *sum(TARGETS.values(), ()), "here", "repo"}:
            raise SettingsError(f"{say} may not be called so. Use lower-case letters, digits and _, and no name of an "
                                "entity or a target.")
        known = TARGETS.get(group.entity)
        if known is None:
            raise SettingsError(f"{say}: entity '{group.entity}' is none.{did_you_mean(group.entity, TARGETS)} Known: "
                                f"{', '.join(TARGETS)}.")
        for name in group.targets:
            if name not in known:
                raise SettingsError(f"{say}: targets names '{name}'; a group of {group.entity}s can feed "
                                    f"{' and '.join(known)}.{did_you_mean(name, known)} Correct targets.")
        if not group.features:
            raise SettingsError(f"{say} has no feature. Add one: [groups.{group.name}.features.NAME] op = 'count'.")
        items = [self._feature(item, group) for item in group.all_features]
        for item in items:
            self._unique(item, group)
        ordered = self._ordered(items, say)
        made = FeatureGroup(group.name, group.entity, tuple(ordered), says=group.says or "the workspace's own",
                            targets=group.targets or known)
        return replace(made, version=self._version(made))

    def _feature(self, item: Feature, group: FeatureGroup) -> Feature:
        say = f"{self.file}: group '{group.name}', feature '{item.name}'"
        if not _NAME.fullmatch(item.name):
            raise SettingsError(f"{say}: names are lower-case letters, digits and _, at most 60 with their window. "
                                "Rename it.")
        if item.name in _RESERVED or item.name.endswith("_computed"):
            raise SettingsError(f"{say}: that name is taken by churnkit itself. Rename it.")
        if item.op not in {*_OF, *_FORMULAS}:
            raise SettingsError(f"{say}: op '{item.op}' is no operation for features of your own."
                                f"{did_you_mean(item.op, {*_OF, *_FORMULAS})} "
                                f"Known: {', '.join((*_OF, *_FORMULAS))}.")
        item = self._formula(item, group, say) if item.op in _FORMULAS else self._aggregation(item, group, say)
        return own_words.filled(item, say)

    def _formula(self, item: Feature, group: FeatureGroup, say: str) -> Feature:
        known = group.all_by_name
        for key, part in zip(("of", "by") if item.op in _TWO else ("parts",) * len(item.parts), item.parts,
                             strict=True):
            if part not in known:
                raise SettingsError(f"{say}: '{key}' names '{part}', which is no feature of this group."
                                    f"{did_you_mean(part, known)} Known: {', '.join(known)}.")
        windows = {known[part].window_days for part in item.parts}
        same = windows.pop() if len(windows) == 1 else None
        return replace(item, window_days=item.window_days or same) if item.name.startswith("_") or (
            same and item.name.endswith(own_words.label(same))) else item

    def _aggregation(self, item: Feature, group: FeatureGroup, say: str) -> Feature:
        table = self._table(item, group, say)
        kind = self._kind(item, table, say)
        days = item.window_days
        if days is not None and not 0 < days <= LONGEST_DAYS:
            raise SettingsError(f"{say}: a window of {days:g} days. Write 1 to {LONGEST_DAYS} days, or hours as '6h'.")
        if not 0 <= item.before <= LONGEST_DAYS:
            raise SettingsError(f"{say}: before = {item.before:g}. Write 0 to {LONGEST_DAYS} days.")
        if item.state and (not table.until or item.op not in _STATES):
            mend = (f"Use one of: {', '.join(_STATES)}" if table.until else
                    f"Give [tables.{table.name}] until = '...'" if table.name in self.tables else "Use another table")
            raise SettingsError(f"{say}: open_at cannot tell what of '{table.name}' holds at a cutoff. {mend}.")
        at, where = self._at(item, table, say), self._where(item, table, say)
        unit = "word" if kind == "category" and item.op == "last" else item.unit
        return replace(
            item, stream=f"{PREFIX}{table.name}", of=f"{COLUMN}{item.of}" if item.of else "", at=at, where=where,
            unit=unit, kind="category" if unit == "word" else "number")

    def _table(self, item: Feature, group: FeatureGroup, say: str) -> Readable:
        if item.stream not in self.tables:
            raise SettingsError(f"{say}: there is no table '{item.stream}' that tells of an account or an asset."
                                f"{did_you_mean(item.stream, self.tables)} Known: {', '.join(self.tables)}.")
        table = self.tables[item.stream]
        if table.entity != group.entity:
            raise SettingsError(f"{say}: table '{table.name}' tells of {table.entity}s, and the group is of "
                                f"{group.entity}s. Move it to a group with entity = '{table.entity}'.")
        return table

    def _kind(self, item: Feature, table: Readable, say: str) -> str:
        """The kind of the column that the operation takes; '' where it takes none."""
        wanted, kinds = _OF[item.op], table.kinds
        if not wanted:
            if item.of:
                raise SettingsError(f"{say}: op '{item.op}' takes no 'of'. Take it out.")
            return ""
        kind = self._column(item.of, kinds, table, f"{say}: 'of'")
        if kind not in wanted:
            raise SettingsError(f"{say}: op '{item.op}' cannot take '{item.of}', which is a {kind}. It takes: "
                                f"{', '.join(sorted(wanted))}.")
        return kind

    def _column(self, name: str, kinds: Mapping[str, str], table: Readable, say: str) -> str:
        if name not in kinds:
            time = " It is a time: use it as 'at'." if name in table.times else ""
            raise SettingsError(f"{say} names '{name}', which is no column that features can read of {table.name}."
                                f"{time or did_you_mean(name, kinds)} Known: {', '.join(kinds)}.")
        return kinds[name]

    def _at(self, item: Feature, table: Readable, say: str) -> str:
        """The stream's column of the time at which a row counts: as said, else when its values are known."""
        used = [item.of, *(column for column, _ in item.where)]
        since = sorted({table.known_from[column] for column in used if column in table.known_from})
        silent = len(since) == 1 and not item.name.startswith("_")  # both counts of a share must go by one time
        at = item.at if item.at != "at" else since[0] if silent else table.time
        if not at and (item.window_days is not None or not item.state):
            raise SettingsError(f"{say}: rows of {table.name} have no time of their own. Say at = one of: "
                                f"{', '.join(table.times)}; or use open_at.")
        if at and at not in table.times:
            raise SettingsError(f"{say}: 'at' names '{at}', which is no time of {table.name}."
                                f"{did_you_mean(at, table.times)} Known: {', '.join(table.times)}.")
        for column in used:
            if table.known_from.get(column, at) != at:
                raise SettingsError(f"{say}: '{column}' of {table.name} is known from {table.known_from[column]} on, "
                                    f"not from {at}. Say at = '{table.known_from[column]}', or leave '{column}' out.")
        return "at" if at == table.time else "until" if at == table.until else f"{COLUMN}{at}"

    def _where(self, item: Feature, table: Readable, say: str) -> tuple[tuple[str, str], ...]:
        """Each condition as a column of the stream that says yes or no."""
        made = []
        for column, value in item.where:
            kind = self._column(column, table.kinds, table, f"{say}: 'where'")
            condition = _condition(column, value, kind, f"{say}: where {column} = {value!r}")
            name = f"when_{_digest(condition)}"
            self.conditions.setdefault(table.name, {})[name] = condition
            made.append((name, "yes"))
        return tuple(made)

    def _unique(self, item: Feature, group: FeatureGroup) -> None:
        if item.name.startswith("_"):
            return
        if item.name in self.taken:
            raise SettingsError(f"{self.file}: group '{group.name}', feature '{item.name}': group "
                                f"'{self.taken[item.name]}' has one of that name. Rename one.")
        self.taken[item.name] = group.name
        if item.compare is not None and item.compare not in group.by_name:
            raise SettingsError(f"{self.file}: group '{group.name}', feature '{item.name}': compare names "
                                f"'{item.compare}', which is no feature of this group. Correct it.")

    def _ordered(self, items: list[Feature], say: str) -> list[Feature]:
        by_name = {item.name: item for item in items}
        if len(by_name) < len(items):
            twice = next(item.name for place, item in enumerate(items) if item.name in {one.name for one in
                                                                                      items[:place]})
            raise SettingsError(f"{say} has two features '{twice}'. Rename one.")
        try:
            order = list(TopologicalSorter({item.name: item.parts for item in items}).static_order())
        except CycleError as error:
            raise SettingsError(f"{say}: features are made of each other in a circle ({' -> '.join(error.args[1])}). "
                                "Make one of them from rows.") from None
        for item in items:
            for part in item.parts:
                if by_name[part].kind == "category":
                    raise SettingsError(f"{say}, feature '{item.name}': '{part}' is a word and no number. Take a "
                                        "number.")
        rank = {name: place for place, name in enumerate(order)}
        rows, formulas = [one for one in items if not one.parts], [one for one in items if one.parts]
        return [*rows, *sorted(formulas, key=lambda one: rank[one.name])]

    def _version(self, group: FeatureGroup) -> str:
        """A fingerprint of what the group computes; words do not count."""
        tables = [asdict(self.tables[name.removeprefix(PREFIX)]) for name in group.streams]
        computes = [{key: getattr(item, key) for key in _COMPUTES} for item in group.all_features]
        return _digest([group.entity, tables, computes])


def _condition(column: str, value: Any, kind: str, say: str) -> Condition:
    """A `where` by the kind of its column: a word or words, true or false, a number or numbers, or '>= 3'."""
    if isinstance(value, tuple) and value and not any(isinstance(one, tuple) for one in value):
        each = [_condition(column, one, kind, say) for one in value]
        if all(op == "=" for _, op, _ in each):
            return column, "in", [one for _, _, one in each]
    elif isinstance(value, (int, float)) and kind == ("flag" if isinstance(value, bool) else "number"):
        return column, "=", float(value)
    elif kind == "number" and isinstance(value, str) and (found := _COMPARISON.fullmatch(value.strip())):
        return column, found[1], float(found[2])
    elif kind in ("category", "id") and column != DAY_OF and isinstance(value, str):
        return column, "=", value
    mend = {"flag": "true or false", "number": "a number such as 3, a list of them, or a comparison such as '>= 3'"}
    raise SettingsError(f"{say} is nothing that a {kind} can be. Write "
                        f"{mend.get(kind, 'a word in quotes, or a list of them')}.")


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]
