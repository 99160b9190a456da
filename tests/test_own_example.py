"""docs/own_features.md, run as it stands: a workspace gets the table and the features, and they reach the reasons."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from churnkit import jobs
from churnkit.cli import app
from churnkit.cutoffs import moment
from churnkit.jobs import setup
from churnkit.jobs.workspace import load_day, open_registry, open_store
from churnkit.learning.targets import CHURN, configured
from churnkit.settings import load
from churnkit.signals.own import definitions, parsed

DOCS = (Path(__file__).parent.parent / "docs" / "own_features.md").read_text(encoding="utf-8")
AT = moment("2026-11-01")
HEAVY = ("assets", "asset_events", "telemetry", "support_tickets", "ticket_messages", "surveys", "touches",
         "opportunities", "record_changes", "invoices", "contacts")
"""What this example can do without."""


def block(language: str, number: int = 0) -> str:
    """A code block of the docs."""
    return re.findall(rf"^```{language}\n(.*?)^```", DOCS, flags=re.MULTILINE | re.DOTALL)[number]


def _trainings(raw: Path) -> pd.DataFrame:
    """A training about every other week of everybody, until ten weeks before they leave; seeded."""
    random = np.random.default_rng(5)
    ends = pd.read_csv(raw / "subscriptions.csv", parse_dates=["started_at", "ended_at"])
    spans = ends.groupby("account_id").agg(start=("started_at", "min"), end=("ended_at", lambda end: end.max(
        skipna=False)))
    rows = []
    for account, span in spans.iterrows():
        last = pd.Timestamp(AT) if pd.isna(span["end"]) else span["end"] - pd.Timedelta(days=70)
        for held in pd.date_range(max(span["start"], pd.Timestamp("2025-08-01", tz="UTC")), last, freq="14D"):
            at = held + pd.Timedelta(hours=float(random.integers(0, 200)))
            drawn = {"people": random.integers(1, 6), "passed": random.choice(["yes", "no"]),
                     "course": random.choice(["basics", "reports"])}
            rows.append({"account_id": account, "held_at": at, "entered_at": at + pd.Timedelta("9h"), **drawn})
    table = pd.DataFrame(rows)
    return table[table["entered_at"] < AT][re.match(r".*", block("csv"))[0].split(",")]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A small simulated workspace with the table and the group of the docs, trained and scored."""
    folder = tmp_path_factory.mktemp("own") / "acme"
    setup.simulate(folder, accounts=160, months=11, seed=4)
    raw = folder / "data" / "raw"
    for name in HEAVY:
        for file in raw.glob(f"{name}.*"):
            file.unlink()
    file = folder / "churnkit.toml"
    file.write_text(file.read_text().replace('[tables.telemetry]\ngrain = "day"\n', ""))
    _trainings(raw).to_csv(raw / "trainings.csv", index=False)
    (folder / "features.toml").write_text(block("toml"), encoding="utf-8")
    jobs.train(folder, AT, ["churn"])
    jobs.features(folder, AT)
    jobs.score(folder, AT, explain_all=True)
    return folder


def test_the_feature_is_in_the_store_and_right(done):
    """Counted again from the file, by pandas."""
    settings = load(done)
    store = open_store(settings)
    scores = load_day(settings, "scores", AT)
    points = scores.assign(row_id=scores["entity_id"], entity="account")[["row_id", "entity", "entity_id", "account_id",
                                                                         "cutoff"]]
    found = store.read(points, configured(CHURN, settings)).set_index("entity_id")["trainings_28d"]
    rows = pd.read_csv(done / "data" / "raw" / "trainings.csv", parse_dates=["held_at", "entered_at"])
    seen = rows[(rows["held_at"] >= pd.Timestamp(AT) - pd.Timedelta(days=28)) & (rows["entered_at"] <= AT)]
    expected = seen.groupby("account_id").size().reindex(found.index, fill_value=0)
    assert found.to_dict() == expected.to_dict()
    assert found.max() > 0


def test_the_model_has_learnt_from_it_and_a_reason_tells_it(done):
    """In the champion's inputs, and in words where it drives; the online store serves it too."""
    settings = load(done)
    assert {"trainings_28d", "trained_people_84d", "passed_basics_84d"} <= set(
        open_registry(settings).champion("churn").model.features)
    reasons = load_day(settings, "reasons", AT)
    own = reasons[reasons["feature"].isin(parsed(definitions(settings).text).groups["training"].names)]
    assert own["phrase"].str.contains("training").any()
    account = own["entity_id"].iloc[0]
    assert "trainings_28d" in open_store(settings).online(account, configured(CHURN, settings))


def test_the_list_prints_it(done):
    """With its words, window, unit, source, group and the model that uses it."""
    shown = CliRunner().invoke(app, ["features", "list", str(done), "--json"], catch_exceptions=False).output
    rows = {row["feature"]: row for row in json.loads(shown.splitlines()[-1])["features"]}
    assert rows["trainings_28d"] == {
        "feature": "trainings_28d", "phrase": "N trainings attended in the last 28 days", "window": "28d",
        "unit": "count", "source": "trainings", "group": "training", "entity": "account", "targets": "churn"}
    assert rows["passed_basics_84d"]["source"] == "trainings"
    assert rows["events_28d"]["targets"] == "churn, expansion"


def test_the_python_version_is_the_same(done):
    """Both blocks of the docs define equal groups of equal versions."""
    (done / "own_features.py").write_text(block("python"), encoding="utf-8")
    settings = load(done)
    coded = settings.model_copy(update={"allow_code": True, "features": settings.features.model_copy(
        update={"own": ("own_features.py",)})})
    assert dict(parsed(definitions(settings).text).groups) == dict(parsed(definitions(coded).text).groups)


def test_the_commands_of_the_docs_exist():
    """Each line of the docs' session parses as far as its command."""
    lines = re.findall(r"^\$ churnkit (.*?)(?: +#.*)?$", block("console"), flags=re.MULTILINE)
    for line in lines:
        assert CliRunner().invoke(app, [*line.split(), "--help"]).exit_code == 0, line
