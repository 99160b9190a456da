"""The hazard: monotone for every row, calibrated out of time, true to Kaplan-Meier, and it uses censored rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from churnkit.cutoffs import moment
from churnkit.errors import ModelError
from churnkit.learning.durations import DAY, Durations
from churnkit.learning.hazard import Hazard
from churnkit.learning.joint import cumulated, joint, median, rising
from churnkit.learning.life import CappedLife
from churnkit.learning.targets import CHURN
from churnkit.schemas import CURVES

EDGES = (30.0, 60.0, 90.0, 120.0, 150.0, 180.0)
PLAIN = replace(CHURN, lead=0 * DAY, grace=0 * DAY)
START = moment("2024-01-01")


def lived(entities=600, months=16, seed=5, follow=None):
    """Inputs and durations: `speed` and `plan` set how soon, `late` whether the risk lies after day 60, noise nothing.

    `follow` is the last day of the data, counted from the first cutoff; left out: the last cutoff sees 180 days.
    Gives the true chances of the event by each edge too.
    """
    rng = np.random.default_rng(seed)
    n = entities * months
    cutoff = pd.DatetimeIndex([START + 28 * month * DAY for month in range(months)]).as_unit("us").repeat(entities)
    entity = np.tile([f"{one:04d}" for one in range(entities)], months)
    x = pd.DataFrame({"speed": rng.normal(size=n), "late": rng.integers(0, 2, n).astype(float),
                      "plan": rng.choice(["solo", "team"], n), "noise": rng.normal(size=n)}).astype({"plan": object})
    daily = 0.002 * np.exp(0.9 * x["speed"] + 0.6 * (x["plan"] == "solo")).to_numpy()
    ends = np.array([0.0, *EDGES])
    factor = np.where((x["late"].to_numpy() == 1)[:, None], np.where(ends[1:] > 60, 1.8, 0.5), 1.0)
    chance = -np.expm1(-np.cumsum(daily[:, None] * factor * np.diff(ends), axis=1))
    drawn = rng.random(n)[:, None]
    place = (drawn > chance).sum(axis=1)
    inside = np.minimum(place, len(EDGES) - 1)
    days = np.where(place < len(EDGES), ends[inside] + rng.random(n) * np.diff(ends)[inside], np.inf)
    room = 28 * (months - 1) + 180 if follow is None else follow
    limit = room - np.repeat(28 * np.arange(months), entities)
    labels = np.where(np.array(EDGES) <= limit[:, None], (days[:, None] <= np.array(EDGES)).astype(float), np.nan)
    keys = pd.DataFrame({"row_id": [f"{one}@{when}" for one, when in zip(entity, cutoff, strict=True)],
                         "entity_id": entity, "account_id": entity, "cutoff": cutoff})
    moments = np.where(labels == 1, days[:, None], np.nan)
    kind = np.where(rng.random(n) < np.where(x["plan"] == "solo", 0.8, 0.3), "fan", "pump")
    kinds = np.where(labels == 1, kind.astype(object)[:, None], None)
    return x, Durations(PLAIN, EDGES, keys, labels, moments, kinds), chance


@pytest.fixture(scope="module")
def book():
    return lived()


@pytest.fixture(scope="module")
def curve(book):
    """Fitted on what was known at the first test cutoff."""
    x, spans, _ = book
    return Hazard("churn", EDGES).fit(x, spans.until(TEST_AT))


TEST_AT = START + 28 * 12 * DAY


@pytest.fixture(scope="module")
def later():
    """Many rows that the curve never saw."""
    return lived(entities=3000, months=2, seed=11)


def error(y, p):
    """Mean distance of predicted from observed over ten groups of equal size."""
    groups = np.array_split(np.argsort(p, kind="stable"), 10)
    return sum(abs(y[one].mean() - p[one].mean()) * len(one) for one in groups) / len(y)


@pytest.mark.parametrize("kind", ["none", "platt", "isotonic"])
def test_the_curve_never_falls_for_any_row(book, kind):
    """On rows that were seen, on rows that were not, and on wild ones."""
    x, spans, _ = book
    few = spans.take(np.arange(len(spans)) % 3 == 0)
    found = Hazard("churn", EDGES, calibration=kind).fit(x[::3], few, rounds=40)
    wild = x.head(300).assign(speed=np.linspace(-50, 50, 300), late=np.nan, plan="never seen")
    p = np.vstack([found.probability(x), found.probability(wild)])
    assert (np.diff(p, axis=1) >= 0).all()
    assert ((p > 0) & (p < 1)).all()


def test_the_curve_is_calibrated_out_of_time_at_each_horizon(curve, later):
    """The mean distance of predicted from observed is small everywhere, and of predicted from the true chance too."""
    x, spans, chance = later
    p = curve.probability(x)
    assert len(curve.maps) == len(EDGES)
    for place, edge in enumerate(EDGES):
        y, known = spans.within(edge)
        assert known.all()
        assert error(y, p[:, place]) < 0.035  # chance alone gives 0.015
        assert abs(p[:, place].mean() - chance[:, place].mean()) < 0.02
        assert np.corrcoef(p[:, place], chance[:, place])[0, 1] > 0.9


def test_groups_agree_with_kaplan_meier(curve, later):
    """Whose risk lies late has another shape of curve, not only another height."""
    x, spans, _ = later
    p = curve.probability(x)
    for late in (0.0, 1.0):
        group = (x["late"] == late).to_numpy()
        at_risk = (spans.days[group][:, None] >= np.array([0.0, *EDGES[:-1]]))
        events = spans.event[group][:, None] & (spans.last[group][:, None] == np.arange(len(EDGES)))
        kaplan_meier = 1 - np.cumprod(1 - events.sum(axis=0) / at_risk.sum(axis=0))
        np.testing.assert_allclose(kaplan_meier, p[group].mean(axis=0), atol=0.04)


def test_censored_rows_are_used_and_leaving_them_out_is_biased():
    """Where most rows cannot be followed to the end, those that can and those with the event are no fair sample."""
    x, spans, chance = lived(months=8, follow=28 * 7 + 60)
    finished = spans.event | (spans.last == len(EDGES) - 1)
    assert finished.mean() < 0.6
    truth = chance.mean(axis=0)
    plain = Hazard("churn", EDGES, calibration="none")
    all_rows = plain.fit(x, spans, rounds=60).probability(x).mean(axis=0)
    only = plain.fit(x[finished], spans.take(finished), rounds=60).probability(x).mean(axis=0)
    np.testing.assert_allclose(truth, all_rows, atol=0.03)
    assert (only - truth)[-1] > 0.1


def test_what_is_planned_counts_in_the_period_that_it_falls_into():
    """Some day ahead the event comes for four of five, else seldom: the step of the curve lies where the day does."""
    x, spans, _ = lived(entities=1500, months=8)
    rng = np.random.default_rng(2)
    ahead = rng.uniform(0, 400, len(x))
    days = np.where(rng.random(len(x)) < 0.8, ahead, rng.uniform(0, 20_000, len(x)))
    labels = (days[:, None] <= np.array(EDGES)).astype(float)
    spans = replace(spans, labels=labels, moments=np.where(labels == 1, days[:, None], np.nan),
                    kinds=np.full(labels.shape, None, dtype=object))
    x = x.assign(ahead=ahead)
    test = np.arange(len(x)) % 3 == 0
    found = Hazard("churn", EDGES, planned=("ahead", "not there")).fit(x[~test], spans.take(~test), rounds=60)
    blind = Hazard("churn", EDGES).fit(x[~test], spans.take(~test), rounds=60)
    assert found.planned == ("ahead",)
    missed = [np.abs(one.probability(x[test]) - np.where(ahead[test, None] <= np.array(EDGES), 0.8, 0.0)).mean()
              for one in (found, blind)]
    assert missed[0] < missed[1] - 0.01, missed
    again = Hazard.from_parts(found.to_parts())
    assert again.probability(x[test]).tolist() == found.probability(x[test]).tolist()


def test_the_order_of_rows_is_irrelevant_and_parts_hold_the_whole(book):
    """Bit for bit, both texts; and a curve read from them says the same."""
    x, spans, _ = book
    mixed = np.random.default_rng(1).permutation(len(x))
    one = Hazard("churn", EDGES).fit(x, spans, rounds=30)
    two = Hazard("churn", EDGES).fit(x.iloc[mixed], spans.take(mixed), rounds=30)
    assert one.to_parts() == two.to_parts()
    again = Hazard.from_parts(one.to_parts())
    assert one.to_parts() == again.to_parts()
    assert one.probability(x).tolist() == again.probability(x).tolist()


@pytest.mark.parametrize(("change", "mend"), [
    (lambda parts: {**parts, "curve.json": "{"}, "Train it again"),
    (lambda parts: {"curve.json": parts["curve.json"]}, "Train it again"),
    (lambda parts: {**parts, "curve.json": parts["curve.json"].replace('"format": 2', '"format": 9')},
     "Upgrade churnkit"),
    (lambda parts: {**parts, "curve.json": parts["curve.json"].replace('"speed"', '"pace"')}, "not of one curve"),
])
def test_broken_parts_are_refused(curve, change, mend):
    with pytest.raises(ModelError, match=mend):
        Hazard.from_parts(change(curve.to_parts()))


def test_curves_are_one_row_per_entity_and_horizon(later):
    x, spans, _ = later
    frame = pd.concat([spans.keys, x.reset_index(drop=True)], axis=1).head(4)
    short = Hazard("churn", (30, 60, 90, 180)).fit(x, spans, rounds=10)
    found = short.predict(frame)
    assert list(CURVES) == list(found.columns)
    assert [30.0, 60.0, 90.0, 180.0] * 4 == found["horizon_days"].tolist()
    assert short.probability(frame)[:, [0, 1, 2, 5]].ravel().tolist() == found["probability"].tolist()
    assert found.groupby("entity_id")["median_days"].nunique(dropna=False).eq(1).all()


def test_a_history_too_short_is_fitted_uncalibrated_and_says_so(book):
    x, spans, _ = book
    first = (spans.keys["cutoff"] == spans.cutoffs[0]).to_numpy()
    found = Hazard("churn", EDGES).fit(x[first], spans.take(first), rounds=20)
    assert ("the history is too short to stop and calibrate out of time",) == found.notes
    assert (np.diff(found.probability(x), axis=1) >= 0).all()


def test_what_cannot_be_learned_says_why(book):
    x, spans, _ = book
    with pytest.raises(ModelError, match=r"0 of .* rows end in the event.*longer history"):
        Hazard("churn", EDGES).fit(x[~spans.event], spans.take(~spans.event))
    with pytest.raises(ModelError, match=r"do not fit 9600 rows and the curve's \(30.0,\)"):
        Hazard("churn", (30,)).fit(x, spans)
    with pytest.raises(ModelError, match="not fitted"):
        Hazard("churn", EDGES).probability(x)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_rising_is_isotonic_regression_row_by_row(seed, count):
    """scikit-learn's pool-adjacent-violators, one row at a time."""
    curves = np.random.default_rng(seed).random((20, count))
    expected = [IsotonicRegression().fit_transform(np.arange(count), row) for row in curves]
    np.testing.assert_allclose(expected, rising(curves), atol=1e-12)


def test_maps_of_their_own_cross_and_are_projected(curve, later):
    """What the calibrations alone say falls on some rows; what the curve says does not."""
    from churnkit.learning.calibrate import Calibration, log_odds

    raw = cumulated(curve.hazards(later[0]))
    maps = tuple(Calibration("platt", (slope, 0.0)) for slope in (0.6, 0.8, 1.0, 1.2, 1.4, 1.6))
    alone = np.column_stack([one.apply(log_odds(raw[:, place])) for place, one in enumerate(maps)])
    assert (np.diff(alone, axis=1) < 0).any()
    assert (np.diff(joint(maps, raw), axis=1) >= 0).all()


def test_the_median_is_where_a_steady_risk_halves_the_rows():
    """The logarithm of 2 over the rate, whatever the edges; none where more than a half remain."""
    for rate in (0.004, 0.01, 0.05):
        p = -np.expm1(-rate * np.array([EDGES]))
        assert np.log(2) / rate == pytest.approx(median(EDGES, p)[0])
    assert np.isnan(median(EDGES, -np.expm1(-0.003 * np.array([EDGES])))).all()


def test_capped_life_beats_the_mean_and_stays_between_nothing_and_the_cap(book, later):
    """On rows it never saw, in days of root mean square error; rows that cannot be followed to the cap play no part."""
    x, spans, _ = book
    life = CappedLife("maintenance", 90).fit(x, spans)
    days = life.predict(later[0])
    truth = np.minimum(later[1].days, 90)
    assert ((days >= 0) & (days <= 90)).all()
    assert np.sqrt(((days - truth) ** 2).mean()) < 0.95 * np.sqrt(((life.mean - truth) ** 2).mean())
    short = spans.within(90)[1] & (np.arange(len(spans)) % 2 == 0)
    cut = replace(spans, labels=np.where(short[:, None], spans.labels, np.nan))
    one = CappedLife("maintenance", 90).fit(x, cut, rounds=20)
    assert one.to_parts() == CappedLife("maintenance", 90).fit(x[short], spans.take(short), rounds=20).to_parts()


def test_capped_life_is_kept_as_text_and_says_what_it_lacks(book):
    x, spans, _ = book
    life = CappedLife("maintenance", 90).fit(x, spans, rounds=20)
    again = CappedLife.from_parts(life.to_parts())
    assert life.predict(x).tolist() == again.predict(x).tolist()
    assert len(life.predict(x.head(0))) == 0
    with pytest.raises(ModelError, match="not of one life"):
        CappedLife.from_parts({**life.to_parts(), "life.json": life.to_parts()["life.json"].replace("speed", "pace")})
    with pytest.raises(ModelError, match="no remaining life to learn"):
        CappedLife("maintenance", 90).fit(x[~spans.event], spans.take(~spans.event))
    with pytest.raises(ModelError, match="not fitted"):
        CappedLife("maintenance", 90).predict(x)
