"""`churnkit explain` tells what stands beside the scores, from the files of the day."""

from __future__ import annotations

import pandas as pd
import pytest

from churnkit import jobs
from churnkit.cutoffs import moment
from churnkit.jobs.workspace import save
from churnkit.schemas import COMPONENTS, CURVES, LIVES, OFFERS, REASONS
from churnkit.settings import load

AT = moment("2026-11-01")


def frame(columns, *rows, **more):
    return pd.DataFrame(rows, columns=list(columns)).assign(**more)


@pytest.fixture
def folder(tmp_path):
    """A workspace with an account, two machines of its, and their files of one day."""
    (tmp_path / "churnkit.toml").write_text('schema_version = 1\nname = "told"\n', encoding="utf-8")
    settings, at = load(tmp_path), pd.Timestamp(AT)
    keys = {one: (one, "a", at, "expansion" if one == "a" else "maintenance") for one in ("m1", "m2", "a")}
    for name in ("maintenance", "expansion"):
        rows = [{"entity_id": e, "account_id": a, "cutoff": at, "target": t, "probability": 0.2, "band": "low",
                 "value": 100.0, "currency": "EUR", "model_version": f"{t}-1", "skill": True}
                for e, a, _, t in keys.values() if t == name]
        save(settings, "scores", name, AT, pd.DataFrame(rows))
        save(settings, "reasons", name, AT, frame(REASONS))
    curves = [(*keys[m], days, p, 9.0) for m in ("m1", "m2") for days, p in ((7.0, 0.1), (30.0, 0.6))]
    save(settings, "curves", "maintenance", AT, frame(CURVES, *curves, skill=True))
    parts = [(*keys[m], part, days, p * share) for m, pump in (("m1", 0.71), ("m2", 0.2))
             for days, p in ((7.0, 0.1), (30.0, 0.6)) for part, share in (("water_pump", pump), ("failure", 1 - pump))]
    save(settings, "components", "maintenance", AT, frame(COMPONENTS, *parts, skill=True))
    save(settings, "lives", "maintenance", AT, frame(LIVES, (*keys["m1"], 9.2, 30.0), (*keys["m2"], 21.0, 30.0),
                                                     skill=False))
    offer = ("a", "a", at, "expansion", 340.0, "EUR", True, 0.62, 0.2, 0.18, 0.0, True)
    save(settings, "offers", "expansion", AT, frame(OFFERS, offer))
    return tmp_path


def test_an_asset_is_told_with_its_component_and_its_days(folder):
    """The shares are of a failure, whatever its probability; what has no skill says so; others' are not told."""
    notes = jobs.explain(folder, "m1", AT).notes
    assert "maintenance of m1: 10.0% in 7 days, 60.0% in 30 days; it comes to half of such by day 9" in notes
    assert "maintenance of m1: if it fails, most likely the water pump (71%)" in notes
    assert "maintenance of m1: about 9 days left (up to 30); no proven skill" in notes
    assert not any("m2" in note for note in notes)


def test_an_account_is_told_with_its_assets_and_its_offer(folder):
    notes = jobs.explain(folder, "a", AT).notes
    assert "expansion of a: most likely more seats (62%), about 340 EUR a month if it buys" in notes
    assert "maintenance of m2: if it fails, most likely of a component that failures do not name (80%)" in notes
    assert "maintenance of m2: about 21 days left (up to 30); no proven skill" in notes


def test_a_day_without_these_files_is_told_without_them(folder):
    for what in ("curves", "components", "lives", "offers"):
        next((folder / "state" / what).rglob("*.parquet")).unlink()
    assert not [note for note in jobs.explain(folder, "m1", AT).notes if " of m1: " in note]
