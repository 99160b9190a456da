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
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # Feast raises it
from yaml import YAMLError

os.environ.setdefault("FEAST_USAGE", "False")  # no reports to anybody, in case a later Feast asks again
with warnings.catch_warnings():  # Feast changes everybody's warning filters when it is imported, and warns itself
    warnings.simplefilter("ignore")
    from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, ValueType
    from feast.errors import FeastError
    from feast.types import Float64, Int64, String

from churnkit.cutoffs import moment
from churnkit.errors import FeatureError
from churnkit.schemas import ENTITIES, POINTS
from churnkit.settings import FILE, Settings, load
from churnkit.signals import partitions
from churnkit.signals.catalog import FILE as CATALOG_FILE
from churnkit.signals.catalog import Catalog, kept
from churnkit.signals.clocks import feast_clocks
from churnkit.signals.features import groups
from churnkit.signals.groups import FeatureGroup
from churnkit.signals.own import definitions
from churnkit.signals.partitions import SCHEMA_VERSION
from churnkit.signals.shelves import shelf

__all__ = ["SCHEMA_VERSION", "Repo", "Restated", "Store", "Target", "marker", "repo"]

_TYPES = {"number": Float64, "category": String, "moment": Int64}
_OWN = {"churnkit": "own"}
"""The tag of own groups' views: those whose definition is gone are taken out of Feast's registry."""
_DATABASES = ("psycopg", "psycopg_pool", "redis", "sqlalchemy")
"""The packages whose errors are those of a database that feature_store.yaml names."""
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


class Restated(NamedTuple):
    """What a restatement changed: the points of which anything differs, and how many of their values do."""

    rows: int
    changed: int


def marker(group: str) -> str:
    """The name of a group's marker: the cutoff of the row served, which tells 'missing' from 'computed, and empty'."""
    return f"{group}_computed"


class Repo:
    """Feast's objects for one features folder, derived from the definitions and the folder's catalog."""

    def __init__(self, path: Path, catalog: Catalog, settings: Settings) -> None:
        self.path, self.catalog, self.settings, self.ttl = path, catalog, settings, settings.features.ttl
        self.shelf = shelf(path)
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
    def own(self) -> dict[str, FeatureView]:
        """The views of the workspace's own groups, by name, for definitions.py to declare."""
        return {name: self._views[name] for name, group in groups(self.catalog).items() if group.version}

    @property
    def entities(self) -> list[Entity]:
        """Both entities."""
        return list(self._entities.values())

    @property
    def views(self) -> list[FeatureView]:
        """The view of every group."""
        return list(self._views.values())

    def _view(self, group: FeatureGroup) -> FeatureView:
        fields = [Field(name=name, dtype=_TYPES[kind]) for name, kind in _kinds(group).items()]
        key = Field(name=ENTITIES[group.entity], dtype=String)
        return FeatureView(name=group.name, entities=[self._entities[group.entity]], schema=[key, *fields],
                           source=self.shelf.source(_folder(group)),
                           ttl=self.ttl, online=True, description=group.says, tags=_OWN if group.version else {})


def repo(path: str | Path, settings: Settings | None = None) -> Repo:
    """Feast's objects for a features folder, or for a file in it (`repo(__file__)` in definitions.py).

    The catalog and the time to live are those of the workspace around the folder, when there is one.
    """
    folder = Path(path).resolve()
    folder = folder.parent if folder.is_file() else folder
    settings = settings or _around(folder)
    return Repo(folder, kept(folder, settings) or Catalog(own=definitions(settings).text), settings)


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
        self._shelf = shelf(self.path)
        self._feast: FeatureStore | None = None
        self._services: dict[str, FeatureService] = {}

    @property
    def catalog(self) -> Catalog | None:
        """The workspace's frozen words and its own definitions as they are now, or none before the first `write`."""
        return kept(self.path, self.settings or _around(self.path))

    def write(self, features: pd.DataFrame, catalog: Catalog | None = None, *, keep: bool = False) -> None:
        """Keeps computed features; writing an entity's at the same cutoff again replaces them.

        Args:
            features: What `compute_features` gave, for accounts, assets or both.
            catalog: Kept at the first write; by default the one that the features were computed with.
            keep: Leave what stands already by today's definitions as it is, and add what lacks.

        Raises:
            FeatureError: If the columns are not those of the store's definitions, or a row's key is missing.
        """
        if self.catalog is None:
            carried = features.attrs.get("catalog")
            catalog = catalog or (Catalog(**carried) if carried else None)
            if catalog is None:
                raise FeatureError("The store does not know the workspace's words yet. Pass them at the first write: "
                                   "store.write(features, catalog=discover(tables)).")
            catalog.save(self.path / CATALOG_FILE)
            self._feast = None
        known = groups(self.catalog or Catalog())
        for entity, rows in features.groupby("entity", sort=False):
            for group in known.values():
                if group.entity == entity:
                    self._write_group(group, rows[~self._held(group, rows)] if keep else rows)

    def restate(self, features: pd.DataFrame, at: str | dt.datetime, catalog: Catalog | None = None) -> Restated:
        """Writes features computed anew beside those that stand, where they differ; what lacks is added.

        A restated row carries `at` as its mark and its time of creation. It is served from then on, also at its own
        cutoff; Feast's known-at filter goes on serving what was known then. A cutoff that is not before `at` counts as
        restated just after itself.

        Args:
            features: What `compute_features` gave, for accounts, assets or both.
            at: The moment of the run, in data time.
            catalog: As for `write`.
        """
        self.write(features, catalog, keep=True)
        changed, values = pd.Series(False, features.index), 0
        for entity, rows in features.groupby("entity", sort=False):
            for group in groups(self.catalog or Catalog()).values():
                if group.entity == entity:
                    found = self._restate_group(group, rows, pd.Timestamp(moment(at)).as_unit("us"))
                    changed[rows.index] |= found.any(axis="columns")
                    values += int(found.to_numpy().sum())
        return Restated(int(changed.sum()), values)

    def apply(self, *targets: Target) -> None:
        """Registers entities, views and the targets' services with Feast, as `feast apply` does in the folder."""
        ours = repo(self.path, self.settings)
        self._ready(ours)
        services = [ours.service(target) for target in targets]
        with self._databases():
            gone: list[Any] = [view for view in self._open().list_feature_views() if view.tags == _OWN
                    and view.name not in {one.name for one in ours.views}]
            self._open().apply([*ours.entities, *ours.views, *services], objects_to_delete=gone, partial=not gone)
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
        with self._databases():
            found = self._open().get_historical_features(keys, service).to_arrow().to_pandas()
        if not found["row_id"].equals(keys["row_id"]):  # Feast's own stores keep no order, and some lose rows
            place = pd.Index(found["row_id"]).get_indexer(pd.Index(keys["row_id"])) if found["row_id"].is_unique else []
            if len(found) != len(keys) or (pd.Series(place) < 0).any() or len(place) != len(keys):
                raise FeatureError("Feast gave other rows than were asked for. Use the offline store that "
                                   "feature_store.yaml comes with: churnkit.signals.asof.AsofOfflineStore.")
            found = found.iloc[place].reset_index(drop=True)
        self._refuse_missing(found, asked, target)
        return pd.concat([asked, found[self._names(target)]], axis=1)

    def materialize(self, end: str | dt.datetime, *targets: Target) -> None:
        """Brings the newest features up to `end`, as far back as they are still served, into the online store."""
        self.apply(*targets)
        end = moment(end)
        with self._databases(), contextlib.redirect_stdout(sys.stderr):  # Feast prints progress; stdout is for tables
            self._open().materialize(start_date=end - self._ttl(), end_date=end)

    def online(self, entity_id: str, target: Target) -> dict[str, Any]:
        """The newest materialized features of one account or asset, and `cutoff`, the moment that they speak of.

        Raises:
            FeatureError: If the online store holds none for it.
        """
        service = self._service(target)
        with self._databases():
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
                there &= ~mine | self._held(group, points)
        return points[~there]

    def _held(self, group: FeatureGroup, points: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Which of the points the group's files hold by today's definitions."""
        keys = pd.MultiIndex.from_frame(self._shelf.held(_folder(group), _schema(group), points["cutoff"]))
        return pd.MultiIndex.from_arrays([points["entity_id"], points["cutoff"]]).isin(keys)

    def _write_group(self, group: FeatureGroup, rows: pd.DataFrame) -> None:
        with self._databases():
            self._shelf.write(_folder(group), self._frame(group, rows), _schema(group))

    def _restate_group(self, group: FeatureGroup, rows: pd.DataFrame, at: pd.Timestamp) -> pd.DataFrame:
        """Writes the rows that differ from what stands; where they do, by row and column."""
        frame, schema = self._frame(group, rows), _schema(group)
        with self._databases():
            found = partitions.differing(self._shelf.standing(_folder(group), schema, frame[partitions.TIME]), frame,
                                         schema)
            anew = frame[found.any(axis="columns")]
            created = anew[partitions.TIME] + pd.Timedelta(microseconds=1)
            anew = anew.assign(**{partitions.CREATED: created.where(created > at, at),
                                  partitions.RESTATED: pd.Series(at, anew.index)})
            if len(anew):
                self._shelf.write(_folder(group), anew, schema, beside=True)
        return found

    def _frame(self, group: FeatureGroup, rows: pd.DataFrame) -> pd.DataFrame:
        """A group's columns of computed features, as they are kept."""
        absent = [name for name in group.names if name not in rows]
        if absent:
            raise FeatureError(f"The features lack '{absent[0]}', which the store's catalog defines. Compute them with "
                               "it: compute_features(tables, points, catalog=store.catalog).")
        cutoff = pd.to_datetime(rows["cutoff"], utc=True).dt.as_unit("us")
        return rows[list(group.names)].assign(**{
            ENTITIES[group.entity]: rows["entity_id"], partitions.TIME: cutoff, partitions.CREATED: cutoff,
            marker(group.name): cutoff.astype("int64")})

    def _ready(self, ours: Repo) -> None:
        """Gives every group without rows its empty place, so that Feast finds the schema."""
        for group in groups(ours.catalog).values():
            self._shelf.ready(_folder(group), _schema(group))

    @contextlib.contextmanager
    def _databases(self) -> Iterator[None]:
        """Databases in use: the online store, and what else feature_store.yaml names. Their errors in one paragraph."""
        try:
            with feast_clocks():
                yield
        except sqlite3.DatabaseError as error:
            raise FeatureError(f"The online store in '{self.path / 'data'}' cannot be used ({error}). Delete it there: "
                               "it is filled anew from the feature files by churnkit features --at DATE.") from None
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in _DATABASES:
                raise
            raise FeatureError(f"A database that '{self.path / 'feature_store.yaml'}' names cannot be used "
                               f"({str(error).strip().splitlines()[0]}). See that it runs, and that its address, user "
                               "and password stand there right.") from None

    def _open(self) -> FeatureStore:
        if self._feast is None:
            try:
                with self._databases():
                    self._feast = FeatureStore(repo_path=str(self.path))
                    self._feast.list_entities()  # reads the registry, which is where a damaged one would show
            except FeastError as error:
                raise FeatureError(
                    f"The feature repo '{self.path}' names a store that cannot be loaded "
                    f"({str(error).splitlines()[0]}). Install what it needs: churnkit-outreach[postgres] or "
                    "churnkit-outreach[redis]; see docs/feast.md.") from None
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
        known = groups(self.catalog or Catalog())
        return [name for group in target.groups for name in known[group].names if name not in target.never]

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
            older = self._newest_before(group, first)
            why = (f"the newest are of {older:%Y-%m-%d}, past their time to live of {days:g} days" if older is not None
                   else "there are none")
            raise FeatureError(
                f"{int(lost.sum())} of {len(asked)} points have no '{group}' features that may be served (first: "
                f"{first['entity']} '{first['entity_id']}' at {first['cutoff']:%Y-%m-%d}: {why}). Compute them: "
                f"churnkit features --at {first['cutoff']:%Y-%m-%d}.")

    def _newest_before(self, group: str, point: pd.Series) -> pd.Timestamp | None:
        """The newest cutoff at or before a point for which the store holds its entity's row."""
        found = groups(self.catalog or Catalog())[group]
        with self._databases():
            return self._shelf.newest(_folder(found), _schema(found), point["entity_id"], point["cutoff"])


def _around(folder: Path) -> Settings:
    """The settings of the workspace around a features folder; the defaults where there is none."""
    return load(folder.parent) if (folder.parent / FILE).is_file() else Settings()


def _folder(group: FeatureGroup) -> str:
    """Where a group's files lie in data/. An own group that computes something else than before begins a new folder:
    what was computed by an earlier definition is neither served nor overwritten.
    """
    return f"{group.name}-{group.version}" if group.version else group.name


def _kinds(group: FeatureGroup) -> dict[str, str]:
    return {**{item.name: item.kind for item in group.features}, marker(group.name): "moment"}


def _schema(group: FeatureGroup) -> Any:
    return partitions.schema(ENTITIES[group.entity], _kinds(group))


def _template() -> Path:
    """The folder of the files that a new features folder begins with: in the wheel, else in the repository."""
    packed = Path(str(resources.files("churnkit"))) / "workspace" / "features"
    return packed if packed.is_dir() else Path(__file__).resolve().parents[2] / "features"

