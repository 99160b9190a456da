"""A workspace's own tables and features: read from TOML, or from Python where settings allow code, and kept as text.

A Python file gives `GROUPS`, feature groups in the grammar of groups.py whose streams are raw tables, and may give
`TABLES`, a dict of tables with the keys that they have in TOML. Both ways end in one list of definitions, which is part
of the catalog: whoever computes, stores, reads or explains features finds them there beside ours.
"""

from __future__ import annotations

import json
import runpy
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from churnkit.errors import SettingsError, did_you_mean
from churnkit.schemas import Table
from churnkit.settings import FILE, Settings, TableMap, read_toml, refuse_secrets
from churnkit.signals.groups import Feature, FeatureGroup
from churnkit.signals.own_checks import PREFIX, Checker, Condition
from churnkit.signals.own_toml import OwnTable, declared_tables, parse
from churnkit.signals.readable import OURS, Readable

NOTHING = ""
"""The text of a workspace without features of its own."""


@dataclass(frozen=True)
class Definitions:
    """What the files define: tables of the contract, where they lie, and all that computing needs, as text."""

    tables: Mapping[str, Table]
    maps: Mapping[str, TableMap]
    text: str = NOTHING


@dataclass(frozen=True)
class Own:
    """Own features ready to compute: groups by name, and of each table that they read what it is and what is asked of
    its rows.
    """

    groups: Mapping[str, FeatureGroup]
    tables: Mapping[str, Readable]
    conditions: Mapping[str, Mapping[str, Condition]]
    file: str = ""

    def table(self, stream: str) -> Readable:
        """The table behind a stream of own features.

        Raises:
            KeyError: If no own feature reads that stream.
        """
        return self.tables[stream.removeprefix(PREFIX)]

    def heavy(self, stream: str) -> bool:
        """Whether a stream may be large: plain events, read by their own time alone."""
        table = self.table(stream)
        read = [item for group in self.groups.values() for item in group.all_features if item.stream == stream]
        return not table.record and not table.until and all(item.at == "at" for item in read)


def definitions(settings: Settings) -> Definitions:
    """The tables and features that the files of `[features] own` define.

    Raises:
        SettingsError: If a file is missing, is Python where `allow_code` is not set, or defines what cannot be.
    """
    files = tuple((name, _text(settings, name)) for name in settings.features.own)
    return _defined(files, settings.root) if files else Definitions(MappingProxyType({}), MappingProxyType({}))


@lru_cache(maxsize=16)
def parsed(text: str) -> Own:
    """The definitions behind a catalog's `own`."""
    if not text:
        return Own(MappingProxyType({}), MappingProxyType({}), MappingProxyType({}))
    data = json.loads(text)
    made = (FeatureGroup(**{**group, "aggregations": tuple(_loaded(Feature, one) for one in group["aggregations"]),
                            "targets": tuple(group["targets"])}) for group in data["groups"])
    return Own(
        MappingProxyType({group.name: group for group in made}),
        MappingProxyType({name: _loaded(Readable, one) for name, one in data["tables"].items()}),
        MappingProxyType({table: {name: tuple(condition) for name, condition in asked.items()}
                          for table, asked in data["conditions"].items()}), data["file"])


def groups_for(settings: Settings, target: str) -> tuple[str, ...]:
    """The names of the own groups that a target's model sees."""
    return tuple(name for name, group in parsed(definitions(settings).text).groups.items() if target in group.targets)


def refuse_clashes(ours: Mapping[str, FeatureGroup], own: Own) -> None:
    """Own names may not be ours; ours depend on the workspace's words, so that this is known only with them.

    Raises:
        SettingsError: If a group or a feature has the name of one of ours.
    """
    taken = {name: group.name for group in ours.values() for name in group.names}
    for group in own.groups.values():
        if group.name in ours:
            raise SettingsError(f"{own.file}: group '{group.name}' has the name of one of churnkit's. Rename it; ours "
                                f"are {', '.join(ours)}.")
        for name in group.names:
            if name in taken:
                raise SettingsError(f"{own.file}: group '{group.name}', feature '{name}': churnkit's group "
                                    f"'{taken[name]}' has one of that name. Rename yours.")


def _text(settings: Settings, name: str) -> str:
    """A definition file's text: read each time, so that a change is seen; refused where it may not be."""
    file = settings.path(name)
    if file.suffix not in (".toml", ".py"):
        raise SettingsError(f"{FILE}: [features] own names '{name}'. Name .toml files, or .py files with allow_code = "
                            "true.")
    if file.suffix == ".py" and not settings.allow_code:
        raise SettingsError(f"{FILE}: [features] own names '{name}', which is code and would be run. Set allow_code = "
                            "true if you trust it, or write the features in TOML.")
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        beside = [path.name for path in file.parent.glob(f"*{file.suffix}")]
        raise SettingsError(f"{FILE}: [features] own names '{name}', and there is no such file."
                            f"{did_you_mean(name, beside)} Correct own, or put the file there.") from None
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"{name}: cannot be read. Make it a readable UTF-8 file.") from None


@lru_cache(maxsize=8)
def _defined(files: tuple[tuple[str, str], ...], root: Path) -> Definitions:
    tables: dict[str, OwnTable] = {}
    groups: list[tuple[str, FeatureGroup]] = []
    for name, text in files:
        more, made = _toml(root / name, name) if name.endswith(".toml") else _python(root / name, name, text)
        for table in more:
            if table in tables:
                raise SettingsError(f"{name}: [tables.{table}] is declared in an earlier file of [features] own. "
                                    "Declare it once.")
        tables |= more
        groups += [(name, group) for group in made]
    known = {**OURS, **{name: one.readable for name, one in tables.items()}}
    checker = Checker("", known)
    checked: list[FeatureGroup] = []
    for name, group in groups:
        checker.file = name
        if group.name in {one.name for one in checked}:
            raise SettingsError(f"{name}: there is a group '{group.name}' already. Rename one.")
        checked.append(checker.group(group))
    return Definitions(MappingProxyType({name: one.contract for name, one in tables.items()}),
                       MappingProxyType({name: one.mapping for name, one in tables.items()}),
                       _dumped(checked, checker, ", ".join(name for name, _ in files)))


def _toml(file: Path, name: str) -> tuple[dict[str, OwnTable], list[FeatureGroup]]:
    data = read_toml(file)
    refuse_secrets(data, name)
    return parse(data, name)


def _python(file: Path, name: str, _: str) -> tuple[dict[str, OwnTable], list[FeatureGroup]]:
    try:
        made = runpy.run_path(str(file))
    except SettingsError as error:
        raise SettingsError(f"{name}: {error}") from None
    except Exception as error:  # noqa: BLE001 - somebody's code may raise anything
        frames = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
        line = error.lineno if isinstance(error, SyntaxError) else frames[-1] if frames else None
        raise SettingsError(f"{name}: line {line}: {type(error).__name__}: {error}. Mend that line.") from None
    groups, tables = made.get("GROUPS"), made.get("TABLES", {})
    if not isinstance(groups, (list, tuple)) or not all(isinstance(group, FeatureGroup) for group in groups):
        raise SettingsError(f"{name}: GROUPS is no list of feature groups. Write GROUPS = [FeatureGroup(...)], from "
                            "churnkit.signals.groups.")
    if not isinstance(tables, Mapping):
        raise SettingsError(f"{name}: TABLES is no dict. Write TABLES = {{'name': {{'at': '...'}}}}.")
    refuse_secrets(tables, name)
    return declared_tables(tables, name), list(groups)


def _dumped(groups: list[FeatureGroup], checker: Checker, file: str) -> str:
    if not groups:
        return NOTHING
    used = {stream.removeprefix(PREFIX) for group in groups for stream in group.streams}
    data = {
        "file": file,
        "tables": {name: asdict(checker.tables[name]) for name in sorted(used)},
        "conditions": checker.conditions,
        "groups": [{"name": group.name, "entity": group.entity, "says": group.says, "targets": group.targets,
                    "version": group.version, "aggregations": [_told(item) for item in group.all_features]}
                   for group in groups],
    }
    return json.dumps(data, sort_keys=True, ensure_ascii=False)


def _told(item: Feature) -> dict[str, Any]:
    """A feature without what is left at its default; its group stands around it."""
    return {one.name: value for one in fields(item) if one.name != "group"
            and (value := getattr(item, one.name)) != one.default}


def _loaded(of: Any, data: Mapping[str, Any]) -> Any:
    """A frozen value from JSON, whose lists are tuples (of tuples)."""
    return of(**{key: tuple(tuple(one) if isinstance(one, list) else one for one in value)
                 if isinstance(value, list) else value for key, value in data.items()})
