"""The Qini coefficient: against a loop, against scikit-uplift, with propensities, and on resamples."""

import warnings

import numpy as np
import pytest

from churnkit.learning.qini import Arms, effect, qini, resampled, top_effect
from churnkit.learning.resample import draws


def some(n=300, seed=0, *, ties=True):
    """Outcomes, arms, and uplift that tells a little of the truth, with ties or without."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    treated = rng.random(n) < 0.6
    y = (rng.random(n) < 0.3 + 0.1 * treated * np.sign(x)).astype(float)
    uplift = x + rng.normal(size=n)
    return y, treated, uplift.round(1) if ties else uplift


def area(places, values):
    """Below straight lines from point to point."""
    return sum((b - a) * (v + w) / 2 for a, b, v, w in zip(places, places[1:], values, values[1:], strict=False))


def points(y, treated, uplift, weights):
    """A Qini curve as its definition reads: from the highest uplift down, ties together."""
    places, values = [0.0], [0.0]
    for least in sorted(set(uplift), reverse=True):
        won = had = among_treated = among_control = rows = 0.0
        for one in range(len(y)):
            if uplift[one] >= least:
                rows += 1
                if treated[one]:
                    won, among_treated = won + weights[one] * y[one], among_treated + weights[one]
                else:
                    had, among_control = had + weights[one] * y[one], among_control + weights[one]
        places.append(rows)
        values.append(won - (had * among_treated / among_control if among_control else 0.0))
    return places, values


def by_loop(y, treated, uplift, weights):
    """The coefficient, row by row."""
    places, values = points(y, treated, uplift, weights)
    best = area(*points(y, treated, np.where(treated, y, -y), weights))
    random = places[-1] * values[-1] / 2
    return (area(places, values) - random) / (best - random)


@pytest.mark.parametrize("ties", [True, False])
def test_it_is_what_a_loop_finds(ties):
    """With propensities that differ from row to row, and without."""
    y, treated, uplift = some(120, ties=ties)
    propensity = np.random.default_rng(1).uniform(0.3, 0.8, len(y))
    for arms in (Arms.of(y, treated), Arms.of(y, treated, propensity)):
        assert qini(arms, uplift) == pytest.approx(by_loop(y, treated, uplift, arms.weights), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_scikit_uplifts(seed):
    """So that published figures can be compared; a constant propensity changes nothing."""
    metrics = pytest.importorskip("sklift.metrics", reason="scikit-uplift is not installed")
    y, treated, uplift = some(500, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, of scikit-learn's later versions
        theirs = metrics.qini_auc_score(y, uplift, treated.astype(int))
        at_top = metrics.uplift_at_k(y, np.round(uplift + 1e-4 * np.arange(500), 9), treated.astype(int), "overall")
    assert qini(Arms.of(y, treated), uplift) == pytest.approx(theirs, abs=1e-12)
    assert qini(Arms.of(y, treated, np.full(500, 0.2)), uplift) == pytest.approx(theirs, abs=1e-12)
    mine = top_effect(Arms.of(y, treated), uplift + 1e-4 * np.arange(500))
    assert mine == pytest.approx(at_top, abs=1e-12)


def test_the_ends_of_the_scale():
    """The best ranking has 1, one value for all 0, and its reverse less."""
    y, treated, _ = some(400)
    arms, best = Arms.of(y, treated), np.where(treated, y, -y)
    assert qini(arms, best) == pytest.approx(1)
    assert qini(arms, np.zeros(400)) == pytest.approx(0)
    assert qini(arms, -best) < 0


def test_only_the_order_counts():
    y, treated, uplift = some()
    arms = Arms.of(y, treated)
    assert qini(arms, uplift) == qini(arms, np.exp(uplift))
    mixed = np.random.default_rng(3).permutation(len(y))
    assert qini(Arms.of(y[mixed], treated[mixed]), uplift[mixed]) == pytest.approx(qini(arms, uplift), abs=1e-12)


@pytest.mark.parametrize(("y", "treated"), [([1.0, 0.0], [True, True]), ([0.0, 0.0], [True, False]), ([], [])])
def test_what_cannot_be_told_is_not_a_number(y, treated):
    """One arm alone, one outcome alone, or no rows."""
    assert np.isnan(qini(Arms.of(np.array(y), np.array(treated, dtype=bool)), np.arange(len(y), dtype=float)))


def test_propensities_undo_a_lopsided_draw():
    """Where the better half was treated more often, the plain difference flatters; the weighted one does not."""
    rng = np.random.default_rng(0)
    better = rng.random(40_000) < 0.5
    propensity = np.where(better, 0.8, 0.2)
    treated = rng.random(40_000) < propensity
    y = (rng.random(40_000) < 0.2 + 0.4 * better + 0.05 * treated).astype(float)
    assert effect(Arms.of(y, treated)) > 0.2
    assert effect(Arms.of(y, treated, propensity)) == pytest.approx(0.05, abs=0.02)


def test_a_resample_is_the_rows_taken_so_often():
    """Groups stay whole: what comes of a draw is what comes of the rows repeated."""
    y, treated, uplift = some(200)
    codes = np.arange(200) % 60
    found = resampled(Arms.of(y, treated), [uplift, -uplift], codes, 7, seed=5)
    for number, counts in enumerate(draws(60, 7, 5)):
        again = np.repeat(np.arange(200), counts[codes].astype(int))
        arms = Arms.of(y[again], treated[again])
        assert found.qinis[number, 0] == pytest.approx(qini(arms, uplift[again]), abs=1e-12)
        assert found.qinis[number, 1] == pytest.approx(qini(arms, -uplift[again]), abs=1e-12)
        assert found.effects[number] == pytest.approx(effect(arms), abs=1e-12)


def test_many_places_are_as_good_as_all():
    """Resamples read the curve at a thousand places: with more rows than that the figure hardly moves."""
    y, treated, uplift = some(20_000, ties=False)
    arms, codes = Arms.of(y, treated), np.arange(20_000)
    drawn = resampled(arms, [uplift], codes, 1, seed=2).qinis[0, 0]
    again = np.repeat(codes, draws(20_000, 1, 2)[0].astype(int))
    assert drawn == pytest.approx(qini(Arms.of(y[again], treated[again]), uplift[again]), abs=2e-4)


@pytest.mark.slow
def test_the_interval_covers():
    """95% intervals of a fixed ranking hold its true value in 91 to 99 of 100 draws of the world."""
    big = some(400_000, 99, ties=False)
    truth = qini(Arms.of(big[0], big[1]), big[2])
    held = 0
    for seed in range(100):
        y, treated, uplift = some(1500, seed, ties=False)
        spread = resampled(Arms.of(y, treated), [uplift], np.arange(1500), 300, seed).qinis
        low, high = np.quantile(spread, [0.025, 0.975])
        held += low <= truth <= high
    assert 91 <= held <= 99
