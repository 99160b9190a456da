"""Own tables and features as written in TOML, read with the grammar of groups.py; a mistake by file, key and mend."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, ValidationError

from churnkit.errors import SettingsError, did_you_mean
from churnkit.schemas import ENTITIES, RAW_TABLES, Column, Table
from churnkit.settings import Frozen, TableMap, explain, known_columns
from churnkit.signals import groups
from churnkit.signals.groups import Feature, FeatureGroup, Where
from churnkit.signals.readable import KINDS, Entity, Kind, Readable, readable

SCHEMA_VERSION = 1
MOST_COLUMNS = 30
"""Unreadable cells are kept as bits of one number, one per column."""
PLAIN = re.compile(r"[a-z][a-z0-9_]{0,39}")
_TAKEN = re.compile(r"(staged|raw|source|aside|flagged|attached|join|points)_.*|moods|rows|incoming")
"""Names that relations of our own have in the engine."""

Cell = str | StrictBool | StrictInt | StrictFloat
Cells = dict[str, Cell | list[str | StrictInt | StrictFloat]]
_listed = BeforeValidator(lambda one: [one] if isinstance(one, (int, str)) and not isinstance(one, bool) else one)
Windows = Annotated[tuple[StrictInt | str, ...], _listed]


class TableSpec(TableMap):
    """A raw table of the workspace's own: where it lies and how it maps, as in churnkit.toml, and what it holds."""

    says: str = ""
    entity: Entity = "account"
    """Whose rows these are: the table needs the column account_id or asset_id."""
    at: str
    """The column of a row's own time."""
    until: str = ""
    """The column of the time at which what a row tells of ends; empty cells have not ended."""
    record: str = ""
    """The column of an id of which several versions may come, each with its recorded_at."""
    types: dict[str, Kind] = Field(default_factory=dict)
    """The other columns: number, category, id, time or flag."""
    since: dict[str, str] = Field(default_factory=dict)
    """column = the time of the same row from which its value is known; left out: from the own time."""


class FeatureSpec(Frozen):
    """One operation; which keys it takes stands in `_KEYS`."""

    op: str
    table: str = ""
    of: str = ""
    by: str = ""
    at: str = ""
    where: Cells = Field(default_factory=dict)
    among: Cells = Field(default_factory=dict)
    windows: Windows = ()
    compared: Windows = ()
    before: StrictInt = 0
    measure: str = "count"
    says: str = ""
    against: str = ""
    nothing: str = ""
    missing: str = ""
    unit: str = ""
    noun: str = ""
    mutable: bool = False


class GroupSpec(Frozen):
    """Features that are computed, stored and served together."""

    entity: Entity = "account"
    says: str = ""
    targets: tuple[str, ...] = ()
    """The models that see it; left out: all of its entity."""
    table: str = ""
    """The table of those features that name none."""
    features: dict[str, FeatureSpec] = Field(default_factory=dict)


class FileSpec(Frozen):
    """The whole file."""

    schema_version: Annotated[int, Field(le=SCHEMA_VERSION)] = SCHEMA_VERSION
    tables: dict[str, TableSpec] = Field(default_factory=dict)
    groups: dict[str, GroupSpec] = Field(default_factory=dict)


class OwnTable(BaseModel):
    """A declared table in its three roles: what it must hold, where it lies, and what features may read of it."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    contract: Table
    mapping: TableMap
    readable: Readable


def parse(data: Mapping[str, Any], file: str) -> tuple[dict[str, OwnTable], list[FeatureGroup]]:
    """The tables and groups of a parsed features.toml; groups name raw tables where ours name streams.

    Raises:
        SettingsError: For the first key that is unknown or wrong.
    """
    spec: FileSpec = _validated(FileSpec, data, file)
    tables = {name: declared(name, one, file) for name, one in spec.tables.items()}
    return tables, [_group(name, one, file) for name, one in spec.groups.items()]


def declared_tables(data: Mapping[str, Any], file: str) -> dict[str, OwnTable]:
    """The tables that a Python file declares, with the keys that they have in TOML."""
    return parse({"tables": dict(data)}, file)[0]


def declared(name: str, spec: TableSpec, file: str) -> OwnTable:
    """A table of the workspace's own, checked.

    Raises:
        SettingsError: If a name is taken or not plain, or a column is named that is not declared.
    """
    where = f"{file}: [tables.{name}]"
    if name in RAW_TABLES or _TAKEN.fullmatch(name):
        raise SettingsError(f"{where} has the name of a table of churnkit's. Choose another name; our own tables are "
                            "mapped in churnkit.toml.")
    contract = _contract(name, spec, _kinds(name, spec, where))
    whole = TableMap(**{key: getattr(spec, key) for key in TableMap.model_fields})
    for mapping in (whole, *whole.parts):
        known_columns(file, contract, mapping)
    return OwnTable(contract=contract, mapping=whole, readable=readable(
        contract, spec.entity, until=spec.until, record=spec.record, since=spec.since))


def _kinds(name: str, spec: TableSpec, where: str) -> dict[str, str]:
    """The declared columns by name, those of `at`, `until` and `record` among them, and their kinds."""
    kinds: dict[str, str] = dict(spec.types)
    for column in (name, *kinds, spec.at, *filter(None, (spec.until, spec.record))):
        if not PLAIN.fullmatch(column):
            raise SettingsError(f"{where}: '{column}' is no plain name. Use lower-case letters, digits and _, at most "
                                "40, and give the source's own name in columns = { ours = 'theirs' }.")
        if column == "at" != spec.at:
            raise SettingsError(f"{where}: 'at' means a row's own time everywhere. Call that column otherwise.")
        if column in {*ENTITIES.values(), "recorded_at", "known_at"}:
            raise SettingsError(f"{where}: '{column}' is not declared: every table has its entity's id and may have "
                                "recorded_at. Take it out, and map it in columns if the source calls it otherwise.")
    for key, column, kind in (("at", spec.at, "time"), ("until", spec.until, "time"), ("record", spec.record, "id")):
        if column and kinds.setdefault(column, kind) != kind:
            raise SettingsError(f"{where}: '{key}' names '{column}', which types calls a {kinds[column]}. It must be "
                                f"of type {kind}: take it out of types.")
    if len(kinds) > MOST_COLUMNS:
        raise SettingsError(f"{where}: declares {len(kinds)} columns; {MOST_COLUMNS} are the most there may be. "
                            "Declare those that features use.")
    _known_since(name, spec, kinds, where)
    return kinds


def _known_since(name: str, spec: TableSpec, kinds: Mapping[str, str], where: str) -> None:
    times = [column for column, kind in kinds.items() if kind == "time"]
    for column, time in spec.since.items():
        for key, known in ((column, kinds), (time, times)):
            if key not in known:
                raise SettingsError(f"{where}: since = {{ {column} = '{time}' }} names '{key}', which is no "
                                    f"{'time' if known is times else 'column'} of {name}.{did_you_mean(key, known)} "
                                    f"Known: {', '.join(known)}.")


def _contract(name: str, spec: TableSpec, kinds: Mapping[str, str]) -> Table:
    of: str = ENTITIES[spec.entity]
    columns = [Column(of, "id", required=True, refers=f"{spec.entity}s")]
    for column, kind in kinds.items():
        columns.append(Column(
            column, KINDS[kind], required=column in {spec.at, spec.record},  # type: ignore[arg-type]
            after=spec.at if column == spec.until else "", planned=column == spec.until, named=True))
    columns.append(Column("recorded_at", "time", after=spec.at))
    return Table(name, tuple(columns), key=(spec.record, "recorded_at") if spec.record else (), time=spec.at,
                 says=spec.says or "a table of the workspace's own", turns_on="features of the workspace's own")


def _validated(model: type[BaseModel], data: Mapping[str, Any], file: str) -> Any:
    try:
        return model(**data)
    except ValidationError as error:
        raise SettingsError(explain(error, model, file)) from None


def _group(name: str, spec: GroupSpec, file: str) -> FeatureGroup:
    made = [_feature(key, one, spec, f"{file}: [groups.{name}.features.{key}]") for key, one in spec.features.items()]
    return FeatureGroup(name, spec.entity, tuple(made), says=spec.says, targets=spec.targets)


Made = Feature | tuple[Feature, ...]
_WORDS = ("says", "against", "nothing", "missing", "unit", "noun", "mutable")
_WINDOWED = ("table", "windows", "where", "at", "compared")
_STATE = ("table", "measure", "of", "where", "at", "before")
_KEYS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = MappingProxyType({
    **dict.fromkeys(("count", "flag"), (_WINDOWED, ("windows",))),
    **dict.fromkeys(("total", "mean", "median", "spread", "lowest", "highest", "slope", "distinct"),
                    ((*_WINDOWED, "of"), ("of", "windows"))),
    "share": (("table", "windows", "where", "among", "at"), ("where", "windows")),
    "last": (("table", "of", "where", "at"), ("of",)),
    "days_since": (("table", "where", "at"), ()),
    "open_at": (_STATE, ()),
    **dict.fromkeys(("ratio", "change", "difference"), (("of", "by"), ("of", "by"))),
})
"""Each operation's keys, and those among them that it cannot do without."""
_MEANT = MappingProxyType({"sum": "total", "avg": "mean", "average": "mean", "min": "lowest", "max": "highest",
                           "extreme": "lowest' or 'highest", "std": "spread", "stddev": "spread", "nunique": "distinct",
                           "trend": "slope", "latest": "last", "recency": "days_since", "open": "open_at"})


def _feature(name: str, spec: FeatureSpec, group: GroupSpec, place: str) -> Made:
    """One section as what the grammar's constructor of that name gives."""
    _refuse_keys(spec, place)
    table = spec.table or group.table
    if "table" in _KEYS[spec.op][0] and not table:
        raise SettingsError(f"{place}: names no table. Say table = '...' here or at the group.")
    words = {key: getattr(spec, key) for key in _WORDS if key in spec.model_fields_set}
    try:
        return _made(name, table, spec, words)
    except SettingsError as error:  # a window that is none
        raise SettingsError(f"{place}: {error}") from None


def _refuse_keys(spec: FeatureSpec, place: str) -> None:
    if spec.op not in _KEYS:
        meant = f" Did you mean '{_MEANT[spec.op]}'?" if spec.op in _MEANT else did_you_mean(spec.op, _KEYS)
        raise SettingsError(f"{place}: op '{spec.op}' is no operation.{meant} Known: {', '.join(_KEYS)}.")
    allowed, needed = _KEYS[spec.op]
    for key in sorted(spec.model_fields_set - {"op", *_WORDS, *allowed}):
        raise SettingsError(f"{place}: op '{spec.op}' takes no '{key}'. It takes: {', '.join((*allowed, *_WORDS))}.")
    for key in needed:
        if not getattr(spec, key):
            example = {"windows": "[7, 28]", "where": "{ column = 'value' }"}.get(key, "'...'")
            raise SettingsError(f"{place}: op '{spec.op}' needs '{key}'. Add {key} = {example}.")
    if spec.measure not in ("count", "age") and not spec.of:
        raise SettingsError(f"{place}: measure '{spec.measure}' needs 'of'. Add of = '...', a column of the table.")


def _made(name: str, table: str, spec: FeatureSpec, words: dict[str, Any]) -> Made:
    if spec.op in ("ratio", "change", "difference"):
        two: Callable[..., Feature] = getattr(groups, spec.op)
        return two(name, spec.of, spec.by, **words)
    rows: dict[str, Any] = {"where": _pairs(spec.where), **({"at": spec.at} if spec.at else {})}
    if spec.op == "share":
        return groups.share(name, table, rows.pop("where"), spec.windows, among=_pairs(spec.among), **rows, **words)
    if spec.op == "days_since":
        return groups.days_since(name, table, **rows, **words)
    if spec.op == "last":
        return groups.last(name, table, spec.of, **rows, **words)
    if spec.op == "open_at":
        words = {"unit": "days", **words} if spec.measure == "age" else words
        return groups.open_at(name, table, spec.measure, of=spec.of, before=spec.before, **rows, **words)
    if not set(spec.compared) <= set(spec.windows):
        raise SettingsError("compared names a window that windows does not. Write it in both.")
    each: Callable[..., tuple[Feature, ...]] = getattr(groups, spec.op)
    of: Sequence[str] = (spec.of,) if spec.of else ()
    return each(name, table, *of, spec.windows, compared=spec.compared, **rows, **words)


def _pairs(where: Mapping[str, Any]) -> Where:
    return tuple((column, tuple(value) if isinstance(value, list) else value) for column, value in where.items())
