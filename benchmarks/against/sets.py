"""The visible real sets as tables of rows to learn from and rows to test on, by the protocols of their references."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold, train_test_split

from churnkit.cutoffs import duration, moment
from churnkit.jobs import setup
from churnkit.jobs.workspace import read, targets
from churnkit.learning.history import training_points
from churnkit.learning.labels import label
from churnkit.learning.splits import timeline
from churnkit.learning.targets import Target
from churnkit.learning.training import training_set
from churnkit.schemas import POINTS
from churnkit.settings import Settings, load
from churnkit.signals.catalog import discover
from churnkit.signals.compute import compute_features
from churnkit.signals.features import groups
from churnkit.signals.points import prediction_points
from churnkit.signals.tables import Tables

ROOT = Path(__file__).parents[2]
Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Case:
    """One set under one protocol.

    `x` holds what is known of each row (float64, or object for words), `y` the outcomes, `time` when each row was true
    (None: nobody knows), `horizon` after how long the outcome is known, `entity` whose row it is, which is what the
    bootstrap draws. Each of `folds` is rows to learn from and rows to test on. `reference` is what the data's README
    says: figures by their names.
    """

    name: str
    x: pd.DataFrame
    y: NDArray[np.int64]
    folds: list[tuple[Index, Index]]
    reference: dict[str, float]
    time: pd.Series | None = None
    horizon: str = "0d"
    entity: NDArray[np.int64] | None = None


def data() -> Path:
    """Where the third-party data lie."""
    return Path(os.environ.get("CHURNKIT_REAL_DATA", ROOT.parent / "shared" / "data"))


def telco() -> list[Case]:
    """IBM's Telco churn, as exported: five stratified folds."""
    x = pd.read_csv(data() / "telco_ibm" / "WA_Fn-UseC_-Telco-Customer-Churn.csv").drop(columns="customerID")
    x["TotalCharges"] = pd.to_numeric(x["TotalCharges"], errors="coerce")  # blank text for customers of no month yet
    y = (x.pop("Churn") == "Yes").to_numpy(dtype="int64")
    folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(x, y))
    return [Case("telco_ibm", x, y, folds, {"LightGBM": 0.848, "logistic": 0.845, "tuned LightGBM": 0.850})]


def bank() -> list[Case]:
    """Term deposits sold by telephone, without `duration`, which is known only after the call."""
    x = pd.read_csv(data() / "bank_marketing" / "bank-additional-full.csv.gz", sep=";").drop(columns="duration")
    y = (x.pop("y") == "yes").to_numpy(dtype="int64")
    rows, cut = np.arange(len(x)), int(len(x) * 0.8)
    mixed = train_test_split(rows, test_size=0.2, random_state=0, stratify=y)
    shuffled = Case("bank_marketing shuffled", x, y, [(mixed[0], mixed[1])], {"LightGBM": 0.805})
    late = {"LightGBM": 0.662, "logistic": 0.748, "CatBoost": 0.713, "AutoGluon": 0.730}
    return [shuffled, replace(shuffled, name="bank_marketing in time", folds=[(rows[:cut], rows[cut:])],
                              reference=late, time=pd.Series(rows.astype(float)))]


def azure() -> list[Case]:
    """Machines at daily cutoffs: does one fail within 72 hours, within 168?"""
    cases = []
    with _workspace("azure_pdm", "2016-01-01") as (settings, tables):
        target = next(one for one in targets(settings, tables) if one.name == "maintenance")
        points = prediction_points(tables, "asset", start="2015-01-29", end="2015-12-23", every="1d")
        frame = _features(tables, target, points)
        for hours, reference in ((72, {"LightGBM": 0.987, "tuned LightGBM": 0.990}),
                                 (168, {"LightGBM": 0.912, "tuned LightGBM": 0.922})):
            asked = replace(target, horizon=duration(f"{hours}h"))
            rows = training_set(asked, frame, label(asked, tables, points))
            time = rows.keys["cutoff"]
            fitted = (time + asked.window <= pd.Timestamp("2015-10-01", tz="UTC")).to_numpy()
            cases.append(Case(f"azure_pdm {hours} h", rows.X, rows.y.to_numpy(dtype="int64"),
                              _two(fitted, (time >= pd.Timestamp("2015-10-01", tz="UTC")).to_numpy()), reference, time,
                              f"{hours}h", pd.factorize(rows.keys["entity_id"])[0]))
    return cases


def socialnet7() -> list[Case]:
    """Members seven days before a monthly subscription ends: do they renew? 1.7% do not."""
    with _workspace("socialnet7", "2020-07-01") as (settings, tables):
        target = next(one for one in targets(settings, tables) if one.name == "churn")
        spans = pd.read_csv(data() / "fightchurn_socialnet7" / "subscription.csv.gz", dtype={"account_id": str},
                            parse_dates=["start_date", "end_date"])
        last = spans["start_date"].max()  # no period that starts later was exported
        begun = pd.MultiIndex.from_frame(spans[["account_id", "start_date"]])
        spans = spans[spans["end_date"] <= last].sort_values(["end_date", "account_id"], ignore_index=True)
        left = ~pd.MultiIndex.from_frame(spans[["account_id", "end_date"]]).isin(begun)
        ends = spans["end_date"].dt.tz_localize("UTC").dt.as_unit("us")
        points = pd.DataFrame({
            "row_id": [f"account:{number}" for number in spans.index], "entity": "account",
            "entity_id": spans["account_id"], "account_id": spans["account_id"],
            "cutoff": ends - pd.Timedelta(days=7)})
        frame = _features(tables, target, points)
    fitted, held = (ends < pd.Timestamp("2020-05-15", tz="UTC")), (ends >= pd.Timestamp("2020-05-22", tz="UTC"))
    return [Case("socialnet7 renewals", frame.drop(columns=list(POINTS)), left.astype("int64"),
                 _two(fitted.to_numpy(), held.to_numpy()), {"LightGBM": 0.675}, points["cutoff"], "7d",
                 pd.factorize(points["entity_id"])[0])]


def crm6() -> list[Case]:
    """Accounts of a CRM product: do they buy more within 90 days? Split as `churnkit train` splits."""
    at = dt.datetime(2023, 6, 30, tzinfo=dt.UTC)
    with _workspace("crm6", "2023-06-30") as (settings, tables):
        target = next(one for one in targets(settings, tables) if one.name == "expansion")
        points = training_points(target, tables, at)
        frame = _features(tables, target, points)
        rows = training_set(target, frame, label(target, tables, points))
    time, test_at = rows.keys["cutoff"], timeline(rows).test_at
    fitted, held = (time + target.window <= test_at).to_numpy(), (time >= test_at).to_numpy()
    return [Case("crm6 upgrades", rows.X, rows.y.to_numpy(dtype="int64"), _two(fitted, held), {"LightGBM": 0.760},
                 time, f"{target.window.days}d", pd.factorize(rows.keys["entity_id"])[0])]


AT_CREATION = ["caller_id", "opened_by", "sys_created_by", "contact_type", "location", "category", "subcategory",
               "u_symptom", "cmdb_ci", "impact", "urgency", "priority", "assignment_group", "knowledge", "notify"]
"""Fields of an incident's first row. Those that the log writes back from the end (made_sla, the counts, closed_code,
resolved_by) are not among them."""


def uci() -> list[Case]:
    """Incidents at their creation: will the agreed time be broken? March to May 2016, the first 70% to learn from."""
    log = pd.read_parquet(data() / "uci_incident_log" / "incident_event_log.parquet").replace("?", None)
    for name in ("opened_at", "sys_created_at", "sys_updated_at"):
        log[name] = pd.to_datetime(log[name], format="%d/%m/%Y %H:%M")
    log["sys_mod_count"] = log["sys_mod_count"].astype(int)
    log = log.sort_values(["sys_updated_at", "sys_mod_count"], kind="stable")
    first = log[~log["number"].duplicated()]
    broken = log[~log["number"].duplicated(keep="last")].set_index("number")["made_sla"] == "false"
    first = first[(first["opened_at"] >= "2016-03-01") & (first["opened_at"] < "2016-06-01")]
    first = first.sort_values(["opened_at", "number"], kind="stable", ignore_index=True)
    x = first[AT_CREATION].assign(
        hour=first["opened_at"].dt.hour.astype(float), weekday=first["opened_at"].dt.weekday.astype(float),
        hours_to_record=(first["sys_created_at"] - first["opened_at"]) / pd.Timedelta(hours=1))
    rows, cut = np.arange(len(x)), int(len(x) * 0.7)
    return [Case("uci_incident_log breach", x, first["number"].map(broken).to_numpy(dtype="int64"),
                 [(rows[:cut], rows[cut:])], {"LightGBM": 0.790}, first["opened_at"])]


SETS: dict[str, Callable[[], list[Case]]] = {
    "telco": telco, "bank": bank, "azure": azure, "socialnet7": socialnet7, "crm6": crm6, "uci": uci}


@contextmanager
def _workspace(name: str, at: str) -> Iterator[tuple[Settings, Tables]]:
    """A workspace of tests/realdata, laid in a temporary folder: its settings and its validated tables."""
    os.environ["CHURNKIT_REAL_DATA"] = str(data().resolve())
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / name
        setup.init(folder)
        for file in (ROOT / "tests" / "realdata" / name).glob("*.toml"):
            shutil.copy(file, folder / file.name)
        settings = load(folder)
        yield settings, read(settings, moment(at))


def _features(tables: Tables, target: Target, points: pd.DataFrame) -> pd.DataFrame:
    """The points, and the columns that a model of this target may see."""
    catalog = discover(tables)
    known = groups(catalog)
    names = [name for group in target.groups for name in known[group].names if name not in target.never]
    return compute_features(tables, points, catalog)[[*POINTS, *names]]


def _two(fitted: NDArray[np.bool_], held: NDArray[np.bool_]) -> list[tuple[Index, Index]]:
    return [(np.flatnonzero(fitted), np.flatnonzero(held))]
