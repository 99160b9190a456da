"""The one door to Feast: features are written here; training and scoring read them back through one service."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import shutil
import sqlite3
import sys
import warnings
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import pandas as pd
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # Feast raises it
from yaml import YAMLError

os.environ.setdefault("FEAST_USAGE", "False")  # no reports to anybody, in case a later Feast asks again
with warnings.catch_warnings():  # Feast changes everybody's warning filters when it is imported, and warns itself
    warnings.simplefilter("ignore")
    from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.data_format import ParquetFormat
    from feast.types import Float64, Int64, String

from churnkit.cutoffs import moment
from churnkit.errors import FeatureError
from churnkit.schemas import ENTITIES, POINTS
from churnkit.settings import FILE, Settings, load
from churnkit.signals import partitions
from churnkit.signals.catalog import Catalog
from churnkit.signals.features import groups
from churnkit.signals.groups import FeatureGroup
from churnkit.signals.partitions import SCHEMA_VERSION

__all__ = ["SCHEMA_VERSION", "Repo", "Store", "Target", "marker", "repo"]

CATALOG = "catalog.json"
_TYPES = {"number": Float64, "category": String, "moment": Int64}
_DESCRIBED = {"account": "a customer", "asset": "a piece of equipment at a customer's"}


class Target(Protocol):
    """What the store needs to know of a target; `churnkit.learning.targets.Target` is one."""

    @property
    def name(self) -> str:
        """The target's name, and its feature service's."""

    @property
    def entity(self) -> Literal["account", "asset"]:
        """Whose features."""

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that the model may see."""

    @property
    def never(self) -> tuple[str, ...]:
        """The features among them that it may not."""


def marker(group: str) -> str:
    """The name of a group's marker: the cutoff of the row served, which tells 'missing' from 'computed, and empty'."""
    return f"{group}_computed"


class Repo:
    """Feast's objects for one features folder, derived from the definitions and the folder's catalog."""

    def __init__(self, path: Path, catalog: Catalog, ttl: dt.timedelta) -> None:
        self.path, self.catalog, self.ttl = path, catalog, ttl
        self._entities = {name: Entity(name=name, join_keys=[column], value_type=ValueType.STRING,
                                       description=_DESCRIBED[name]) for name, column in ENTITIES.items()}
        self._views = {group.name: self._view(group) for group in groups(catalog).values()}

    def entity(self, name: str) -> Entity:
        """The entity of that name: account or asset."""
        return self._entities[name]

    def view(self, name: str) -> FeatureView:
        """The feature view of one group."""
        return self._views[name]

    def service(self, target: Target) -> FeatureService:
        """The feature service of one target: its groups without what it may never see."""
        views = []
        for name in target.groups:
            group = groups(self.catalog)[name]
            chosen = [column for column in group.names if column not in target.never]
            views.append(self._views[name][[*chosen, marker(name)]])
        return FeatureService(name=target.name, features=views)

    @property
    def entities(self) -> list[Entity]:
        """Both entities."""
        return list(self._entities.values())

    @property
    def views(self) -> list[FeatureView]:
        """The view of every group."""
        return list(self._views.values())

    def _view(self, group: FeatureGroup) -> FeatureView:
        source = FileSource(name=f"{group.name}_files", path=f"data/{group.name}", file_format=ParquetFormat(),
                            timestamp_field=partitions.TIME, created_timestamp_column=partitions.CREATED)
        fields = [Field(name=name, dtype=_TYPES[kind]) for name, kind in _kinds(group).items()]
        key = Field(name=ENTITIES[group.entity], dtype=String)
        return FeatureView(name=group.name, entities=[self._entities[group.entity]], schema=[key, *fields],
                           source=source,
                           ttl=self.ttl, online=True, description=group.says)


def repo(path: str | Path, settings: Settings | None = None) -> Repo:
    """Feast's objects for a features folder, or for a file in it (`repo(__file__)` in definitions.py).

    The catalog and the time to live are those of the workspace around the folder, when there is one.
    """
    folder = Path(path).resolve()
    folder = folder.parent if folder.is_file() else folder
    if settings is None:
        settings = load(folder.parent) if (folder.parent / FILE).is_file() else Settings()
    catalog = Catalog.load(folder / CATALOG) if (folder / CATALOG).is_file() else Catalog()
    return Repo(folder, catalog, settings.features.ttl)


class Store:
    """A features folder: a Feast repo with its catalog, its feature files, its registry and its online store."""

    def __init__(self, path: str | Path, settings: Settings | None = None) -> None:
        """Opens a features folder, and lays it out when it is new.

        Args:
            path: The folder.
            settings: The workspace's; by default those of the churnkit.toml beside the folder, if there is one.
        """
        self.path = Path(path).resolve()
        self.settings = settings
        (self.path / "data").mkdir(parents=True, exist_ok=True)
        for file in ("feature_store.yaml", "definitions.py"):
            if not (self.path / file).exists():
                shutil.copyfile(_template() / file, self.path / file)
        self._feast: FeatureStore | None = None
        self._services: dict[str, FeatureService] = {}

    @property
    def catalog(self) -> Catalog | None:
        """The workspace's frozen words, or none before the first `write`."""
        file = self.path / CATALOG
        return Catalog.load(file) if file.is_file() else None

    def write(self, features: pd.DataFrame, catalog: Catalog | None = None) -> None:
        """Keeps computed features; writing an entity's at the same cutoff again replaces them.

        Args:
            features: What `compute_features` gave, for accounts, assets or both.
            catalog: Kept at the first write; by default the one that the features were computed with.

        Raises:
            FeatureError: If the columns are not those of the store's definitions, or a row's key is missing.
        """
        if self.catalog is None:
            carried = features.attrs.get("catalog")
            catalog = catalog or (Catalog(**carried) if carried else None)
            if catalog is None:
                raise FeatureError("The store does not know the workspace's words yet. Pass them at the first write: "
                                   "store.write(features, catalog=discover(tables)).")
            catalog.save(self.path / CATALOG)
            self._feast = None
        definitions = groups(self.catalog or Catalog())
        for entity, rows in features.groupby("entity", sort=False):
            for group in definitions.values():
                if group.entity == entity:
                    self._write_group(group, rows)

    def apply(self, *targets: Target) -> None:
        """Registers entities, views and the targets' services with Feast, as `feast apply` does in the folder."""
        ours = repo(self.path, self.settings)
        self._ready(ours)
        services = [ours.service(target) for target in targets]
        with self._online():
            self._open().apply([*ours.entities, *ours.views, *services])
        self._services |= {service.name: service for service in services}

    def read(self, points: pd.DataFrame, target: Target) -> pd.DataFrame:
        """The target's features at the points, from Feast's point-in-time retrieval.

        Returns:
            The points, in their order and number, and one column per feature that the target may see.

        Raises:
            FeatureError: If a point has no features, or only such as are past their time to live.
        """
        service = self._service(target)
        asked = points[list(POINTS)].reset_index(drop=True)
        keys = pd.DataFrame({
            ENTITIES[target.entity]: asked["entity_id"].astype(object), "row_id": asked["row_id"].astype(object),
            partitions.TIME: pd.to_datetime(asked["cutoff"], utc=True).dt.as_unit("us"),
        })
        if not len(keys):
            return asked.reindex(columns=[*POINTS, *self._names(target)])
        found = self._open().get_historical_features(keys, service).to_arrow().to_pandas()
        if not found["row_id"].equals(keys["row_id"]):
            raise FeatureError("Feast gave other rows than were asked for. Use the offline store that "
                               "feature_store.yaml comes with: churnkit.signals.asof.AsofOfflineStore.")
        self._refuse_missing(found, asked, target)
        return pd.concat([asked, found[self._names(target)]], axis=1)

    def materialize(self, end: str | dt.datetime, *targets: Target) -> None:
        """Brings the newest features up to `end`, as far back as they are still served, into the online store."""
        self.apply(*targets)
        end = moment(end)
        with self._online(), contextlib.redirect_stdout(sys.stderr):  # Feast prints its progress; stdout is for tables
            self._open().materialize(start_date=end - self._ttl(), end_date=end)

    def online(self, entity_id: str, target: Target) -> dict[str, Any]:
        """The newest materialized features of one account or asset, and `cutoff`, the moment that they speak of.

        Raises:
            FeatureError: If the online store holds none for it.
        """
        service = self._service(target)
        with self._online():
            got = self._open().get_online_features(service, [{ENTITIES[target.entity]: entity_id}]).to_dict()
        marks = [got[marker(group)][0] for group in target.groups]
        if any(mark is None for mark in marks):
            raise FeatureError(f"The online store has no features of {target.entity} '{entity_id}'. Bring them there: "
                               "churnkit features --at DATE, then store.materialize(DATE).")
        cutoff = pd.Timestamp(min(marks), unit="us", tz="UTC").to_pydatetime()
        return {"cutoff": cutoff, **{name: got[name][0] for name in self._names(target)}}

    def lacking(self, points: pd.DataFrame) -> pd.DataFrame:
        """Those of the points for which some group has no features by today's definitions."""
        if self.catalog is None:
            return points
        there = pd.Series(True, points.index)
        for group in groups(self.catalog).values():
            mine = points["entity"] == group.entity
            if mine.any():
                keys = pd.MultiIndex.from_frame(partitions.held(self.path / "data" / group.name, _schema(group)))
                asked = pd.MultiIndex.from_arrays([points["entity_id"], points["cutoff"]])
                there &= ~mine | asked.isin(keys)
        return points[~there]

    def _write_group(self, group: FeatureGroup, rows: pd.DataFrame) -> None:
        absent = [name for name in group.names if name not in rows]
        if absent:
            raise FeatureError(f"The features lack '{absent[0]}', which the store's catalog defines. Compute them with "
                               "it: compute_features(tables, points, catalog=store.catalog).")
        cutoff = pd.to_datetime(rows["cutoff"], utc=True).dt.as_unit("us")
        frame = rows[list(group.names)].assign(**{
            ENTITIES[group.entity]: rows["entity_id"], partitions.TIME: cutoff, partitions.CREATED: cutoff,
            marker(group.name): cutoff.astype("int64")})
        partitions.write(self.path / "data" / group.name, frame, _schema(group))

    def _ready(self, ours: Repo) -> None:
        """Gives every group without a file its empty one, so that Feast finds the schema."""
        for group in groups(ours.catalog).values():
            folder = self.path / "data" / group.name
            if not (folder / "empty.parquet").exists():
                schema = _schema(group)
                partitions.write(folder, schema.empty_table().to_pandas(), schema)

    @contextlib.contextmanager
    def _online(self) -> Iterator[None]:
        """The online store in use; its own errors in one paragraph."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise FeatureError(f"The online store in '{self.path / 'data'}' cannot be used ({error}). Delete it there: "
                               "it is filled anew from the feature files by churnkit features --at DATE.") from None

    def _open(self) -> FeatureStore:
        if self._feast is None:
            try:
                self._feast = FeatureStore(repo_path=str(self.path))
                self._feast.list_entities()  # reads the registry, which is where a damaged one would show
            except (ValueError, TypeError, OSError, DecodeError, YAMLError) as error:
                raise FeatureError(
                    f"The feature repo '{self.path}' cannot be opened ({str(error).splitlines()[0]}). Restore its "
                    "feature_store.yaml from a new workspace (churnkit init), and delete data/registry.db: it is made "
                    "anew.") from None
        return self._feast

    def _service(self, target: Target) -> FeatureService:
        if target.name not in self._services:
            self.apply(target)
        return self._services[target.name]

    def _names(self, target: Target) -> list[str]:
        definitions = groups(self.catalog or Catalog())
        return [name for group in target.groups for name in definitions[group].names if name not in target.never]

    def _ttl(self) -> dt.timedelta:
        return repo(self.path, self.settings).ttl

    def _refuse_missing(self, found: pd.DataFrame, asked: pd.DataFrame, target: Target) -> None:
        """Raises when a point was served by nothing, saying whether there is nothing or only what is too old."""
        for group in target.groups:
            lost = found[marker(group)].isna()
            if not lost.any():
                continue
            first = asked[lost].iloc[0]
            days = self._ttl() / dt.timedelta(days=1)
            older = self._newest_before(group, target, first)
            why = (f"the newest are of {older:%Y-%m-%d}, past their time to live of {days:g} days" if older is not None
                   else "there are none")
            raise FeatureError(
                f"{int(lost.sum())} of {len(asked)} points have no '{group}' features that may be served (first: "
                f"{first['entity']} '{first['entity_id']}' at {first['cutoff']:%Y-%m-%d}: {why}). Compute them: "
                f"churnkit features --at {first['cutoff']:%Y-%m-%d}.")

    def _newest_before(self, group: str, target: Target, point: pd.Series) -> pd.Timestamp | None:
        """The newest cutoff at or before a point for which the group's files hold its entity."""
        for file in reversed([file for file in partitions.files(self.path / "data" / group) if file.stem != "empty"]):
            rows = partitions.read(file).select([ENTITIES[target.entity], partitions.TIME]).to_pandas()
            held = rows.loc[(rows.iloc[:, 0] == point["entity_id"]) & (rows[partitions.TIME] <= point["cutoff"]),
                            partitions.TIME]
            if len(held):
                return cast("pd.Timestamp", held.max())
        return None


def _kinds(group: FeatureGroup) -> dict[str, str]:
    return {**{item.name: item.kind for item in group.features}, marker(group.name): "moment"}


def _schema(group: FeatureGroup) -> Any:
    return partitions.schema(ENTITIES[group.entity], _kinds(group))


def _template() -> Path:
    """The folder of the files that a new features folder begins with: in the wheel, else in the repository."""
    packed = Path(str(resources.files("churnkit"))) / "workspace" / "features"
    return packed if packed.is_dir() else Path(__file__).resolve().parents[2] / "features"

