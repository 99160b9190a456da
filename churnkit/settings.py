"""churnkit.toml and CHURNKIT_* variables, read once into one frozen Settings; every mistake is named with its mend."""

from __future__ import annotations

import datetime as dt
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from churnkit.errors import SettingsError, did_you_mean
from churnkit.fields import Engine, Function, Language, Moment, Span, Step, TargetName, Zone, parsed
from churnkit.schemas import RAW_TABLES, Table

FILE = "churnkit.toml"
OWN = "features.toml"
SCHEMA_VERSION = 1


class Frozen(BaseModel):
    """A section of a settings file: read-only, and refusing keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


class Join(Frozen):
    """Columns looked up elsewhere, for an export that is keyed by something else than the contract asks for."""

    table: str = ""
    """A table of the contract to look in, as mapped in this file: `their` and `take` then name its contract columns."""
    source: str = ""
    """Or any other source to look in (a file, a glob): `their` and `take` then name its own columns."""
    on: str
    """The column of this export that is looked up."""
    their: str = ""
    """The column it is found in on the other side; left out: the same name as `on`."""
    take: Annotated[dict[str, str], BeforeValidator(lambda take: {take: take} if isinstance(take, str) else take)]
    """What is taken over: one name, or { new name = 'name over there' }; the new name counts as a source column."""
    pick: Literal["only", "first", "last"] = "only"
    """Where several rows match: `only` calls differing values an error; `first` and `last` take least and greatest."""

    @model_validator(mode="after")
    def _one_place(self) -> Join:
        if bool(self.table) == bool(self.source):
            raise ValueError("needs either table = '...' (of the contract) or source = '...' (a file), not both")
        if self.table and self.table not in RAW_TABLES:
            raise ValueError(f"looks in '{self.table}', which is no table of the contract."
                             f"{did_you_mean(self.table, RAW_TABLES)}")
        return self


def offset(text: str) -> tuple[str, str, str]:
    """The parts of 'contract_time + source column unit': the base time, the column and the unit (ms, s, min, h or d).

    Raises:
        SettingsError: If the text is not of that form.

    >>> offset("opened_at + resolution_time_hours h")
    ('opened_at', 'resolution_time_hours', 'h')
    """
    found = re.fullmatch(r"\s*(\w+)\s*\+\s*(.+?)\s+(ms|s|min|h|d)\s*", text)
    if not found:
        raise SettingsError(f"'{text}' is no offset. Write 'opened_at + resolution_time_hours h': a time of the "
                            "contract, a column of the source, and its unit (ms, s, min, h or d).")
    return found[1], found[2], found[3]


def _offset(text: str) -> str:
    offset(text)
    return text


class TableMap(Frozen):
    """Where one raw table lies, and how its columns, values, units, zone and grain map to the contract."""

    source: str = ""
    """A file, a folder, a glob, a DuckDB or SQLite file, or postgresql://${DB_USER}:${DB_PASSWORD}@host/db."""
    table: str = ""
    """The table inside a database source."""
    delimiter: Annotated[str, Field(max_length=1)] = ""
    """What separates the columns of a CSV file; left out: found from its header."""
    columns: dict[str, str] = Field(default_factory=dict)
    """contract name = the source's name; a contract column not named here is looked for under its own name."""
    constants: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """contract name = one value for every row."""
    values: dict[str, dict[str, str]] = Field(default_factory=dict)
    """contract column = { the source's value = the contract's }; values that are not named stay as they are."""
    units: dict[str, Literal["s", "min", "h", "ms"]] = Field(default_factory=dict)
    """contract column of a duration = the source's unit; it is converted to the contract's (seconds)."""
    offsets: dict[str, Annotated[str, parsed(_offset)]] = Field(default_factory=dict)
    """contract time = 'contract_time + source_column unit', for exports that give a span: 'opened_at + hours h'."""
    whole: list[str] = Field(default_factory=list)
    """contract ids that the export wrote as 1.0 where 1 is meant."""
    keep: dict[str, list[str]] = Field(default_factory=dict)
    """source column = the values whose rows are kept; the others are not part of the table, and are counted."""
    distinct: bool = False
    """Rows that are the same in all mapped columns count once (a table made from a wider one)."""
    unpivot: list[str] = Field(default_factory=list)
    """telemetry only: the source columns that are one sensor each; empty cells are no measurement."""
    formats: list[str] = Field(default_factory=list)
    """strptime formats of this table's times, tried in order ('iso', 'epoch_s', 'epoch_ms' too); left out: ISO 8601."""
    zone: Zone | None = None
    """The zone of times that name none; left out: the workspace's."""
    grain: Literal["instant", "hour", "day"] = "instant"
    """What one row stands for: a moment, or the sum over the hour or day that starts at its time."""
    known_after: Span = dt.timedelta(0)
    """How long after its own time a row can be known, where there is no recorded_at."""
    covers_until: Moment | None = None
    """How far this table reaches; left out: the workspace's covers_until, else the time of the run."""
    duplicates: Literal["warn", "error", "keep"] = "warn"
    """What fully identical rows of a table without a key are: said and kept, an error, or not looked for."""
    join: Annotated[tuple[Join, ...], BeforeValidator(lambda one: [one] if isinstance(one, Mapping) else one)] = ()
    """Columns looked up elsewhere: { table = 'subscriptions', on = 'subscription_id', take = 'account_id' }."""
    parts: tuple[TableMap, ...] = ()
    """Several sources that make up this table, each a [[tables.NAME.parts]] with its own source, columns and so on;
    zone, grain, known_after, covers_until and duplicates are said once, at the table."""


class TargetSettings(Frozen):
    """Windows of one target; what is left out keeps its default."""

    enabled: bool = True
    horizon: Step | None = None
    lead: Span | None = None
    grace: Span | None = None
    inactivity: Step = dt.timedelta(days=30)
    """Without subscriptions: how long without use counts as gone."""
    code: str | None = None
    """maintenance: only failures of this code."""
    value: Annotated[float, Field(gt=0)] | None = None
    """What one won account or one prevented failure brings; left out: the mean of what is at stake, see [value]."""
    contact_cost: Annotated[float, Field(ge=0)] = 50.0
    """What one contact costs, in the workspace's currency."""
    incentive: Annotated[float, Field(ge=0)] = 0.0
    """What an offer costs where it is taken: by those that it wins, and by those that would have stayed anyway."""
    effect: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """The share of those about to have the outcome that a contact wins; see `churnkit impact` once there is a control
    group."""
    capacity: Annotated[int, Field(ge=1)] | None = None
    """How many can be contacted at one cutoff; left out: a tenth."""
    horizons: tuple[Step, ...] | None = None
    """churn and maintenance: where the risk curve is read; left out: churn 30, 60, 90 and 180 days, maintenance 1, 3,
    7, 14 and 30 days; an empty list asks for no curve."""


def _curves(targets: dict[str, TargetSettings]) -> dict[str, TargetSettings]:
    if "expansion" in targets and targets["expansion"].horizons:
        raise ValueError("expansion has no risk curve, because a gain that is undone counts at a short horizon and not "
                         "at a longer one. Delete its horizons")
    return targets


class FeatureSettings(Frozen):
    """What the features need to know of this workspace; what is left out is discovered once and then kept in a file."""

    top_events: list[str] | None = None
    sensors: list[str] | None = None
    error_codes: list[str] | None = None
    components: list[str] | None = None
    plans: list[str] = Field(default_factory=list)
    """Plans from the smallest to the largest; without it, by their median price."""
    addons: list[str] = Field(default_factory=list)
    """Plans that are add-ons beside a main plan."""
    ttl: Step = dt.timedelta(days=7)
    """How old a feature may be and still be served."""
    own: Annotated[tuple[str, ...], BeforeValidator(lambda own: [own] if isinstance(own, str) else own)] = ()
    """Files that define tables and features of the workspace's own: TOML, or Python where `allow_code` is set. Left
    out: features.toml beside churnkit.toml, where there is one."""
    protected: list[Annotated[str, Field(pattern=r"\w")]] = Field(default_factory=list)
    """Features, or words in their names, that are neither inputs nor reasons; gender, religion and their like always
    are: churnkit/signals/protected.py."""
    allow: list[str] = Field(default_factory=list)
    """Features or words that pass: no longer protected, or with leave to predict suspiciously well alone."""


class TextSettings(Frozen):
    """How customers' words are heard: who tells the mood, and which phrases are cues of frustration."""

    polarity: Function = ""
    """'package.module:function': takes a pandas Series of texts and gives one of numbers in [-1, 1], or missing; left
    out: VADER for English, and lists of words for the other languages."""
    competitors: list[Annotated[str, Field(pattern=r"\w")]] = Field(default_factory=list)
    """Names of competitors' companies and products; a message that holds one counts as naming a competitor."""
    cues: str = ""
    """A TOML file of this workspace with phrases of its own, added to ours."""
    languages: list[Language] = Field(default_factory=list)
    """Which of our lists are used; left out: all, because customers write in other languages than their account's."""


class TrainingSettings(Frozen):
    """When and how the models learn."""

    every: Step = dt.timedelta(days=28)
    start: Moment | None = None
    asset_every: Step = dt.timedelta(days=7)
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.25
    seed: int = 7
    tune: Annotated[int, Field(ge=0)] = 0
    """How many trials search for better parameters than the default, which needs none; each costs some fits."""
    segments: list[str] = ["segment", "plan", "country", "industry", "tenure_days", "model"]
    """Features, or columns of accounts, by whose values each training judges its model once more; those that a target
    does not have are passed over."""
    fairness: list[str] = Field(default_factory=list)
    """The same for fairness; these may be protected, because an evaluation may look at what no model may."""
    treated: Literal["weigh", "drop", "keep"] = "weigh"
    """What training makes of rows that outreach was spent on: the untreated ones count for them, by how likely each was
    to be treated ('weigh'); they are left out ('drop') or taken as they are ('keep'), both of which are biased."""


class ValueSettings(Frozen):
    """What is at stake, in the workspace's currency."""

    margin: Annotated[float, Field(gt=0, le=1)] = 0.8
    months: Annotated[int, Field(ge=1)] = 12
    expansion_share: Annotated[float, Field(gt=0)] = 0.3
    """Expected gain of an expansion as a share of the account's MRR, until enough expansions have been seen."""
    failure_cost: dict[str, float] = Field(default_factory=dict)
    """Cost of a failure per asset model."""
    failure_share: Annotated[float, Field(ge=0)] = 1.0
    """Else: a failure costs this many months of the account's MRR."""


class Settings(Frozen):
    """All that a workspace says about itself."""

    schema_version: int = SCHEMA_VERSION
    root: Path = Path()
    name: str = "churnkit"
    zone: Zone = "UTC"
    currency: str = "EUR"
    rates: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    """Currency = its worth in the workspace's currency; needed where currencies are mixed."""
    invalid: Literal["raise", "drop", "quarantine"] = "raise"
    allow_code: bool = False
    covers_until: Moment | None = None
    raw: str = "data/raw"
    """The folder in which a table lies, named as in the contract, when it has no section of its own."""
    tables: dict[str, TableMap] = Field(default_factory=dict)
    targets: Annotated[dict[TargetName, TargetSettings], AfterValidator(_curves)] = Field(default_factory=dict)
    features: FeatureSettings = FeatureSettings()
    text: TextSettings = TextSettings()
    engine: Engine = "duckdb"
    """Where features are computed: 'duckdb', 'spark', or 'postgresql://${DB_USER}:${DB_PASSWORD}@host/db'."""
    engine_options: dict[str, str] = Field(default_factory=dict)
    """spark only: settings of a session that churnkit starts, as { "spark.master" = "spark://host:7077" }."""
    engine_folder: str = "state/engine"
    """spark only: where the tables lie while features are computed; every worker must see it under this path."""
    training: TrainingSettings = TrainingSettings()
    value: ValueSettings = ValueSettings()
    policy: str = "outreach.toml"
    store: str = "features"
    mlflow: str = "sqlite:///state/mlflow.db"
    outbox: str = "sqlite:///state/outbox.db"
    crm: str = "files"
    crm_options: dict[str, str] = Field(default_factory=dict)

    def path(self, relative: str | Path) -> Path:
        """A path of the workspace; absolute paths stay as they are."""
        return self.root / relative

    @property
    def state(self) -> Path:
        """The folder of everything that churnkit writes beside features."""
        return self.root / "state"

    def url(self, text: str) -> str:
        """A database URL with ${ENV} filled in and a relative SQLite path anchored at the workspace."""
        filled = fill(text)
        found = re.fullmatch(r"sqlite:///(?!/)(.+)", filled)
        return f"sqlite:///{(self.root / found[1]).resolve()}" if found else filled


def fill(text: str) -> str:
    """Replaces each ${NAME} by the environment's value.

    Raises:
        SettingsError: If a named variable is not set.
    """

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise SettingsError(f"{FILE} names ${{{found[1]}}}, which is not set. Set it in the environment: "
                                f"export {found[1]}=...")
        return os.environ[found[1]]

    return re.sub(r"\$\{(\w+)\}", value, text)


def load(path: str | Path) -> Settings:
    """Settings from a workspace folder or its churnkit.toml, with CHURNKIT_* variables on top.

    CHURNKIT_OUTBOX, CHURNKIT_MLFLOW, CHURNKIT_STORE, CHURNKIT_CRM, CHURNKIT_INVALID and CHURNKIT_ENGINE replace the key
    of that name.

    Raises:
        SettingsError: If the file is missing, is no TOML, or says something that is not understood.
    """
    file = Path(path)
    file = file / FILE if file.is_dir() else file
    if not file.is_file():
        folder = file.parent if file.name == FILE else file
        raise SettingsError(f"No {FILE} in '{folder}'. Make a workspace with: churnkit init {folder}")
    data, beside = read_toml(file), file.parent / OWN
    features = data.setdefault("features", {})
    if beside.is_file() and isinstance(features, dict):
        features.setdefault("own", OWN)
    return from_mapping(data, root=file.parent, file=file)


def read_toml(file: Path) -> dict[str, Any]:
    """A TOML file as a dict.

    Raises:
        SettingsError: If it cannot be read; names the line.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file}: not valid TOML: {error}. Mend that line; strings need quotes.") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file}: byte {error.start} is not UTF-8. Save the file as UTF-8.") from None
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read ({error.strerror}). Make it a readable file.") from None


def from_mapping(data: Mapping[str, Any], root: Path = Path(), file: Path | None = None) -> Settings:
    """Settings from a parsed churnkit.toml.

    Raises:
        SettingsError: For the first key that is unknown or wrong, by its path, with the mend.
    """
    name = str(file or FILE)
    lifted = _lift_invalid(data, name)
    refuse_secrets(lifted, name)
    data = _with_environment(lifted)
    try:
        settings = Settings(**{**data, "root": root})
    except ValidationError as error:
        raise SettingsError(explain(error, Settings, name)) from None
    if settings.schema_version > SCHEMA_VERSION:
        raise SettingsError(f"{name}: schema_version {settings.schema_version} is newer than this churnkit knows "
                            f"({SCHEMA_VERSION}). Upgrade churnkit.")
    for table, whole in settings.tables.items():
        for mapping in (whole, *whole.parts):
            known_columns(name, RAW_TABLES[table], mapping)
    return settings


def _lift_invalid(data: Mapping[str, Any], name: str) -> dict[str, Any]:
    """[tables] holds `invalid` beside one section per table: the two are parted here."""
    tables = data.get("tables", {})
    if not isinstance(tables, Mapping):
        return dict(data)
    sections = {table: section for table, section in tables.items() if table != "invalid"}
    for table in sections:
        if table not in RAW_TABLES:
            raise SettingsError(f"{name}: [tables.{table}] is no table of the contract."
                                f"{did_you_mean(table, RAW_TABLES)} Known: {', '.join(RAW_TABLES)}. A table of your "
                                f"own is declared in {OWN}.")
    lifted = {"invalid": tables["invalid"]} if "invalid" in tables else {}
    return {**data, **lifted, "tables": sections}


def refuse_secrets(data: Any, name: str, path: str = "") -> None:
    """A password may come from the environment alone: one that is written into a URL is refused, and not repeated.

    Raises:
        SettingsError: For the first one, by its path.
    """
    if isinstance(data, Mapping):
        for key, value in data.items():
            refuse_secrets(value, name, f"{path}.{key}".lstrip("."))
    elif isinstance(data, list):
        for place, value in enumerate(data):
            refuse_secrets(value, name, f"{path}[{place}]")
    elif isinstance(data, str) and re.search(r"\w://[^/@:]*:(?!\$\{\w+\}@)[^@/]*@", data):
        raise SettingsError(f"{name}: '{path}' holds a password. Take it out of the file, set it in the environment, "
                            "and write its name: postgresql://user:${DB_PASSWORD}@host/db.")


def _with_environment(data: Mapping[str, Any]) -> dict[str, Any]:
    """CHURNKIT_* variables replace the keys of their names."""
    names = {key: f"CHURNKIT_{key.upper()}" for key in ("outbox", "mlflow", "store", "crm", "invalid", "engine")}
    return {**data, **{key: os.environ[name] for key, name in names.items() if name in os.environ}}


def known_columns(name: str, table: Table, mapping: TableMap) -> None:
    """Refuses a mapping that names what is no column of its table.

    Raises:
        SettingsError: For the first such column; names the nearest.
    """
    known = table.by_name
    for column in sorted({*mapping.columns, *mapping.constants, *mapping.values, *mapping.units, *mapping.offsets,
                          *mapping.whole}):
        if column not in known:
            raise SettingsError(f"{name}: [tables.{table.name}] maps '{column}', which is no column of {table.name}."
                                f"{did_you_mean(column, known)} Known: {', '.join(known)}.")


def explain(error: ValidationError, model: type[BaseModel], file: str) -> str:
    """The first complaint of pydantic as one paragraph: file, key, what is wrong, and the mend.

    `model` is the class that was being read; it tells the known keys for 'did you mean'.
    """
    errors = error.errors(include_url=False)  # a misspelt key is unknown, and then missing too
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    where = ".".join(str(part) for part in first["loc"] if part != "[key]")
    if first["type"] == "extra_forbidden":
        known = _fields(model, first["loc"][:-1])
        key = str(first["loc"][-1])
        return f"{file}: unknown key '{where}'.{did_you_mean(key, known)} Known here: {', '.join(known)}."
    shown = "" if isinstance(first["input"], Mapping) else f" (found {first['input']!r})"
    said = _PLAINLY.get(first["type"], first["msg"].removeprefix("Value error, "))
    return f"{file}: '{where}' {said}{shown}. Mend that key."


_PLAINLY = {
    "tuple_type": 'must be a list, such as ["a", "b"]', "list_type": 'must be a list, such as ["a", "b"]',
    "dict_type": "must be a section of its own", "model_type": "must be a section of its own",
    "string_type": "must be text in quotes", "missing": "is missing",
}
"""What pydantic says of some mistakes, in the words of the file's writer."""


def _fields(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """The field names at a path of nested models, as far as it can be followed."""
    here: Any = model
    for part in path:
        field = here.model_fields.get(str(part)) if hasattr(here, "model_fields") else None
        if field is None:
            continue  # the key of a dict or the index of a list: the model below it is the dict's value type
        args = getattr(field.annotation, "__args__", ())
        here = next((arg for arg in (*args, field.annotation) if hasattr(arg, "model_fields")), here)
    return [name for name in here.model_fields if name != "root"]
