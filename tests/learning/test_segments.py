"""Segments: figures against naive ones, verdicts against chance, attributes as known at the cutoff."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_rows import made
from sklearn.metrics import roc_auc_score
from test_labels import at, points

from churnkit.learning.attributes import UNKNOWN, attributes
from churnkit.learning.evaluate import evaluate
from churnkit.learning.segments import COLUMNS, MOST, OTHER, holm, segments, weak
from churnkit.learning.targets import CHURN
from churnkit.learning.training import train, training_set
from churnkit.settings import Settings
from churnkit.signals.tables import Tables


def scored(n=6000, entities=1500, kinds=3, seed=1):
    """Outcomes of known risk, a segment each, and whose they are."""
    rng = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-rng.normal(-2, 1, n)))
    codes = rng.integers(0, entities, n)
    words = np.array([f"kind {k}" for k in range(kinds)])[codes % kinds]  # an entity stays in its segment
    return (rng.random(n) < p).astype(float), p, pd.DataFrame({"kind": words}), codes


def test_figures_are_those_of_the_rows_alone():
    """Counts, shares and AUC of each segment as a loop over the rows gives them."""
    y, p, groups, codes = scored()
    found = segments(y, p, np.full(len(y), y.mean()), groups, codes).set_index("segment")
    top = np.argsort(-p, kind="stable")[:len(y) // 10]
    for word in groups["kind"].unique():
        here = [k for k in range(len(y)) if groups["kind"][k] == word]
        row = found.loc[word]
        assert row["rows"] == len(here)
        assert row["positives"] == sum(y[k] for k in here)
        assert row["predicted"] == pytest.approx(np.mean([p[k] for k in here]))
        assert row["observed"] == pytest.approx(np.mean([y[k] for k in here]))
        assert row["auc"] == pytest.approx(roc_auc_score(y[here], p[here]))
        assert row["flagged"] == pytest.approx(len(set(top) & set(here)) / len(here))
        caught = [k in set(top) for k in here if y[k]]
        assert row["caught"] == pytest.approx(np.mean(caught))
        assert row["observed_low"] < row["observed"] < row["observed_high"]
        assert row["auc_low"] < row["auc"] < row["auc_high"]


def test_a_row_of_weight_two_counts_twice():
    """Weights give what repeating rows gives."""
    y, p, groups, codes = scored(n=900)
    twice = np.arange(900) % 3 == 0
    rows = np.r_[np.arange(900), np.flatnonzero(twice)]
    base = np.full(len(y), 0.15)
    weighed = segments(y, p, base, groups, codes, weights=1.0 + twice)
    repeated = segments(y[rows], p[rows], base[0] + 0 * rows, groups.iloc[rows], codes[rows])
    same = ["predicted", "observed", "auc"]
    np.testing.assert_allclose(weighed.sort_values("segment")[same], repeated.sort_values("segment")[same])


def test_what_is_planted_is_found():
    """In one segment the scores are noise, in one the level is wrong, in one nearly nothing happens."""
    y, p, groups, codes = scored(n=20000, entities=5000, kinds=5)
    kind, rng = groups["kind"].to_numpy(), np.random.default_rng(2)
    noise, off, few = (kind == f"kind {k}" for k in (1, 2, 3))
    p = np.where(noise, rng.permutation(p), np.where(off, p / 3, p))
    y = np.where(few, 0.0, y)
    y[np.flatnonzero(few)[:4]] = 1
    p = np.where(few, 4 / few.sum(), p)
    found = segments(y, p, np.full(len(y), y.mean()), groups, codes).set_index("segment")
    assert found["skill"].to_dict() == {"kind 0": True, "kind 1": False, "kind 2": False, "kind 3": False,
                                        "kind 4": True}
    assert found["calibrated"].to_dict() == {f"kind {k}": k != 2 for k in range(5)}
    assert found["enough"].to_dict() == {f"kind {k}": k != 3 for k in range(5)}
    told = weak("churn", found.reset_index())
    assert told.startswith("churn: skill is proven in 2 of 4 segments, not in kind 'kind 1' (AUC 0.")
    assert "The probabilities are off in kind 'kind 2' (" in told
    assert told.endswith("1 has too few outcomes to judge.")
    assert "to 0." in told
    assert ", no signal)" in weak("churn", found.reset_index().assign(reason="no signal"))


def test_chance_alone_proves_nothing():
    """Scores are noise at the right level, and an entity's rows cling together: of 200 books at most about two prove a
    skill anywhere, or are called off the level.
    """
    proven = off = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        codes = np.repeat(np.arange(1000), 4)
        p = np.clip(0.15 + rng.normal(0, 0.03, 1000)[codes], 0.05, 0.4)
        y = ((rng.random(1000) < 0.075)[codes] | (rng.random(4000) < 0.081)).astype(float)
        groups = pd.DataFrame({"kind": np.array(list("abcdefgh"), dtype=object)[codes % 8],
                               "size": np.array(list("stuvwxyz"), dtype=object)[codes // 8 % 8]})
        found = segments(y, p, np.full(4000, y.mean()), groups, codes, resamples=100, seed=seed)
        assert len(found) == 16
        proven += found["skill"].any()
        off += (~found["calibrated"]).any()
    assert proven <= 6  # two are expected; more than six have a chance below 1%
    assert off <= 6


def test_holm_is_its_definition():
    """The sorted chances against alpha / (m - k), stopped at the first that fails."""
    rng = np.random.default_rng(3)
    for _ in range(50):
        p = rng.random(6) ** 6
        expected, order = np.zeros(6, dtype=bool), np.argsort(p)
        for k, place in enumerate(order):
            if p[place] > 0.01 / (6 - k):
                break
            expected[place] = True
        assert expected.tolist() == holm(p).tolist()


def test_there_are_few_segments_however_many_values():
    """Rare values are pooled; a value that all share parts nothing; nothing gives nothing."""
    y, p, _, codes = scored(n=3000)
    rng = np.random.default_rng(1)
    groups = pd.DataFrame({"country": rng.choice([f"C{k}" for k in range(60)], 3000).astype(object), "same": "one"})
    found = segments(y, p, np.full(3000, y.mean()), groups, codes)
    assert set(found["by"]) == {"country"}
    assert len(found) <= MOST + 1
    assert found["rows"].sum() == 3000
    assert OTHER in set(found["segment"])
    none = segments(y, p, np.full(3000, y.mean()), groups[[]], codes)
    assert list(COLUMNS) == list(none.columns)
    assert weak("churn", none) == ""


def test_attributes_are_those_known_at_the_cutoff():
    """Of an account's versions the latest known by the cutoff counts, as a loop finds it; before any, none does."""
    versions = [("a", 0, "small", "DE"), ("a", 40, "mid", "DE"), ("a", 41, "mid", None), ("b", 0, None, "FR")]
    accounts = pd.DataFrame([{"account_id": a, "created_at": at(-10), "recorded_at": at(day), "segment": segment,
                              "country": country} for a, day, segment, country in versions])
    used = pd.DataFrame({"account_id": ["a"], "occurred_at": [at(1)], "event": ["x"]})
    tables = Tables.from_frames(Settings(covers_until=at(100)), accounts=accounts, usage_events=used)
    asked = points(["a", "b"], [at(-1), at(0), at(39), at(40), at(60)]).iloc[::-1].reset_index(drop=True)
    found = attributes(asked, ["segment", "country", "unheard_of"], tables)
    assert list(found.columns) == ["row_id", "segment", "country"]
    for row, (entity, cutoff) in zip(found.to_dict("records"), asked[["entity_id", "cutoff"]].to_numpy(), strict=True):
        seen = [one for one in versions if one[0] == entity and at(one[1]) <= cutoff]
        assert row["segment"] == (seen[-1][2] or UNKNOWN if seen else UNKNOWN)
        assert row["country"] == (seen[-1][3] or UNKNOWN if seen else UNKNOWN)


def test_numbers_become_bands_that_hold_every_row():
    """A number of many values is cut at its quartiles; one of few stays as it is; blanks are told."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"row_id": map(str, range(400)), "tenure_days": rng.integers(0, 1000, 400).astype(float),
                          "seats": np.arange(400) % 3.0, "flag": np.arange(400) % 2 == 0,
                          "never": np.nan, "gone": np.where(np.arange(400) % 4, np.nan, np.arange(400.0))})
    found = attributes(frame, ["tenure_days", "seats", "flag", "never", "gone"])
    assert sorted(found["seats"].unique()) == ["0", "1", "2"]
    assert sorted(found["flag"].unique()) == ["False", "True"]
    assert set(found["never"]) == {UNKNOWN}
    assert (found["gone"] == UNKNOWN).sum() == 300
    counts = found["tenure_days"].value_counts()
    assert len(counts) == 4
    assert counts.min() > 80
    for word, low, high in [(w, *_bounds(w)) for w in counts.index]:
        assert frame.loc[found["tenure_days"] == word, "tenure_days"].between(low, high).all()


def _bounds(word):
    parts = word.replace("above ", "").replace("up to ", "").split(", ")
    if word.startswith("up to"):
        return -np.inf, float(parts[0])
    return float(parts[0]), float(parts[1]) if len(parts) > 1 else np.inf


def test_an_evaluation_knows_its_segments_and_what_is_for_fairness():
    """A protected attribute parts the rows of the evaluation, and is no input; the order of rows is irrelevant."""
    features, labels = made(extra=0)
    features = features.assign(gender=np.where(np.arange(len(features)) % 2, "f", "m"))
    target = replace(CHURN, never=(*CHURN.never, "gender"))
    rows = training_set(target, features, labels, attributes(features, ["plan", "gender", "mrr"]), ["gender"])
    assert "gender" not in rows.X
    found = train(target, rows)
    parts = found.evaluation.segments
    assert set(parts["by"]) == {"plan", "gender", "mrr"}
    assert parts.loc[parts["fairness"], "by"].unique().tolist() == ["gender"]
    assert set(parts.groupby("by")["rows"].sum()) == {found.evaluation.rows}
    assert found.evaluation.weak().startswith("churn: skill is proven in ")
    assert found.evaluation.metrics()["segments"] == len(parts)
    assert "gender" in found.evaluation._repr_html_()
    test = rows.since(found.splits.test_at)
    order = np.random.default_rng(0).permutation(len(test))
    shuffled = replace(test, **{name: getattr(test, name).iloc[order] for name in ("X", "y", "keys", "weights",
                                                                                   "groups")})
    again = evaluate(found.holdout, shuffled).segments
    exact = ["by", "segment", "rows", "positives", "skill", "calibrated"]
    pd.testing.assert_frame_equal(again[exact], parts[exact])
