"""What `audit features` says of columns that were made to be suspicious, and of those that were not."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

from churnkit.audit.features import COLUMNS, foreseeing, suspects


def made(entities=200, cutoffs=10, seed=5):
    """A frame with one column for each suspicion, three honest ones, outcomes, segments, and the same columns today."""
    dice, n = np.random.default_rng(seed), entities * cutoffs
    y = (dice.random(n) < 0.15).astype(float)
    whose = np.repeat(np.arange(entities), cutoffs)
    segment = pd.Series(np.array(["small", "large"])[whose % 2])
    frame = pd.DataFrame({
        "entity_id": [f"A{one:04d}" for one in whose],
        "cutoff": pd.Timestamp("2025-01-01", tz="UTC") + pd.to_timedelta(28 * (np.arange(n) % cutoffs), unit="D"),
        "used": dice.normal(size=n) + y, "rare": (dice.random(n) < 0.02).astype(float),
        "plan": dice.choice(["a", "b"], n), "knows": y + 0.2 * dice.normal(size=n),
        "dead": 1.0, "nowhere": np.nan, "moved": dice.normal(size=n),
        "industry": (whose % 7).astype(float), "only_large": np.where(segment == "large", dice.normal(size=n), np.nan),
    })
    frame["twice"], frame["upside_down"] = frame["used"] * 2, -np.exp(frame["moved"])
    frame["plan"] = frame["plan"].astype(object)
    now = frame.groupby("entity_id").tail(1).assign(moved=lambda rows: rows["moved"] + 2)
    return frame, pd.Series(y), segment, now


@pytest.fixture(scope="module")
def found():
    """The suspects of the made frame."""
    frame, y, segment, now = made()
    return suspects(frame, y, segment=segment, now=now)


@pytest.mark.parametrize(("feature", "suspicion", "says"), [
    ("knows", "alone", "AUC of 0.9"), ("only_large", "missing", "100% of segment 'small', 0% of the others"),
    ("moved", "shift", "now"), ("dead", "constant", "the same everywhere: 1"), ("twice", "copy", "'used'"),
    ("upside_down", "copy", "'moved'"), ("industry", "frozen", "1,800 pairs"), ("nowhere", "missing", "no value")])
def test_each_suspicion_is_said_of_its_column(found, feature, suspicion, says):
    """Name, kind and a sentence that holds the figure."""
    [row] = found[(found["feature"] == feature) & (found["suspicion"] == suspicion)].to_dict("records")
    assert says in row["says"]


def test_worst_first_and_nothing_of_honest_columns(found):
    """What knows the outcome stands first; used, rare and plan stand nowhere."""
    assert tuple(found.columns) == COLUMNS
    assert found["feature"].iloc[0] == "knows"
    assert found["worse"].is_monotonic_decreasing
    assert set(found["feature"]) & {"used", "rare", "plan"} == set()


def test_a_frame_of_noise_has_no_suspects():
    """Four seeds of honest noise, the same today as before: no suspicion of any kind."""
    for seed in range(4):
        frame, y, segment, now = made(seed=seed)
        honest = ["entity_id", "cutoff", "used", "rare", "plan"]
        assert suspects(frame[honest], y, segment=segment, now=now[honest]).empty


def test_few_outcomes_accuse_nobody():
    """A column that ranks five positives perfectly may do so by chance: its bounds say so."""
    frame = pd.DataFrame({"lucky": np.arange(100.0)})
    assert foreseeing(frame, pd.Series(np.arange(100) >= 95)).empty


def test_one_more_target_is_judged_by_itself():
    """`foreseeing` gives what `suspects` says of foresight, and nothing else."""
    frame, y, _, _ = made()
    assert foreseeing(frame, y)["feature"].tolist() == ["knows"]
    assert foreseeing(frame, 1 - y)["feature"].tolist() == ["knows"]


def test_outcomes_that_are_not_known_yet_are_left_out():
    """Missing labels count neither way."""
    frame, y, _, _ = made()
    some = y.where(np.arange(len(y)) % 3 > 0)
    assert foreseeing(frame, some)["feature"].tolist() == ["knows"]


def test_an_empty_frame_and_one_without_columns():
    """Nothing to judge is no error."""
    assert suspects(pd.DataFrame({"used": pd.Series(dtype=float)})).empty
    assert suspects(pd.DataFrame({"entity_id": ["a"], "cutoff": pd.to_datetime(["2025-01-01"], utc=True)})).empty


@pytest.mark.slow
def test_a_hundred_thousand_rows_of_two_hundred_features_take_seconds():
    """The processor's time for all suspicions together; the machine may be busy with other things."""
    dice, n = np.random.default_rng(1), 100_000
    frame = pd.DataFrame(dice.normal(size=(n, 200)), columns=[f"f{k}" for k in range(200)])
    frame["entity_id"], frame["cutoff"] = np.arange(n) // 20, pd.Timestamp("2025-01-01", tz="UTC") + pd.to_timedelta(
        np.arange(n) % 20, unit="D")
    begun = time.process_time()
    suspects(frame, pd.Series(dice.random(n) < 0.05), segment=pd.Series(dice.choice(["a", "b"], n)),
             now=frame.tail(5000))
    assert time.process_time() - begun < 30
