"""Differences between the arms: against statsmodels, a jackknife done by hand, and the books' own examples."""

import numpy as np
import pytest
from scipy import stats

from churnkit.outreach.adjust import difference, usable
from churnkit.outreach.rates import always_z, detectable, needed, newcombe, wilson, z_of


def made(n=400, share=0.1, seed=3):
    """Outcomes, arms and two covariates, one of which tells something."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    treated = rng.random(n) >= share
    y = (rng.random(n) < 1 / (1 + np.exp(-(-1.5 + x[:, 0] - 0.3 * treated)))).astype(float)
    return y, treated, x


@pytest.mark.parametrize("power", [0.5, 1.0])
@pytest.mark.parametrize("columns", [0, 1, 2])
def test_statsmodels_gives_the_same(power, columns):
    """The difference and its error are those of one regression with products, by HC2 and HC3."""
    from statsmodels.api import OLS

    y, treated, x = made()
    x = x[:, :columns]
    around = x - x.mean(axis=0)
    design = np.column_stack([np.ones(len(y)), treated, around, treated[:, None] * around])
    peer = OLS(y, design).fit(cov_type="HC3" if power == 1 else "HC2")
    found = difference(y, treated, x if columns else None, power=power)
    assert found.value == pytest.approx(peer.params[1], rel=1e-8)
    assert found.error == pytest.approx(peer.bse[1], rel=1e-8)


def test_clustered_errors_are_the_jackknife_that_leaves_a_cluster_out():
    """CR3 is what one gets by fitting anew without each customer in turn."""
    y, treated, x = made(120, 0.3)
    clusters = np.where(treated, np.arange(120) // 2, 1000 + np.arange(120) // 3)
    found = difference(y, treated, x, clusters)
    around = x - x.mean(axis=0)
    total = 0.0
    for arm in (treated, ~treated):
        design, mine = np.column_stack([np.ones(arm.sum()), around[arm]]), clusters[arm]
        whole = np.linalg.lstsq(design, y[arm], rcond=None)[0][0]
        for one in np.unique(mine):
            total += (np.linalg.lstsq(design[mine != one], y[arm][mine != one], rcond=None)[0][0] - whole) ** 2
    assert found.variance == pytest.approx(total, rel=1e-8)


def test_rows_that_are_clusters_of_one_change_nothing():
    """A cluster for each row is no cluster."""
    y, treated, x = made()
    assert difference(y, treated, x, np.arange(len(y))) == difference(y, treated, x)


def test_repeating_every_row_adds_no_precision_when_clustered():
    """The same customers counted twice do not shorten the interval."""
    y, treated, _ = made()
    twice = difference(np.tile(y, 2), np.tile(treated, 2), clusters=np.tile(np.arange(len(y)), 2))
    assert twice.error == pytest.approx(difference(y, treated).error, rel=1e-8)


def test_without_covariates_degrees_of_freedom_are_welchs():
    """Student's t as everybody computes it; HC2 without covariates is Welch's variance."""
    y, treated, _ = made()
    found, peer = difference(y, treated, power=0.5), stats.ttest_ind(y[treated], y[~treated], equal_var=False)
    assert found.freedom == pytest.approx(peer.df)
    assert found.value / found.error == pytest.approx(peer.statistic)


def test_useless_covariates_are_left_out():
    """What is constant, blank, or said already is no covariate, and a small arm takes few."""
    y, treated, x = made()
    extra = np.column_stack([x[:, 0], np.full(len(y), np.nan), x[:, 0] * 2 + 1, np.ones(len(y)), x[:, 1]])
    assert usable(extra, treated).shape == (len(y), 2)
    assert difference(y, treated, extra).value == pytest.approx(difference(y, treated, x).value)
    small = np.arange(len(y)) >= 15
    assert usable(x, small).shape[1] == 1


def test_newcombe_gives_his_own_examples():
    """Examples (a), (b), (e) and (g) of his table II, method 10."""
    given = [((56, 70), (48, 80)), ((9, 10), (3, 10)), ((5, 56), (0, 29)), ((10, 10), (0, 20))]
    expected = [(0.0524, 0.3339), (0.1705, 0.8090), (-0.0381, 0.1926), (0.6791, 1.0000)]
    found = [newcombe(one, other, z_of()) for one, other in given]
    assert expected == [(round(float(low), 4), round(float(high), 4)) for low, high in found]


def test_wilson_is_scipys():
    """And stays within nought and one."""
    for events, of in ((0, 24), (3, 24), (24, 24)):
        peer = stats.binomtest(events, of).proportion_ci(method="wilson")
        assert tuple(wilson(events, of, z_of())) == pytest.approx((peer.low, peer.high), abs=1e-12)


def test_an_interval_for_every_look_is_tightest_near_the_planned_sample():
    """Far before it costs most, and so it never falls below the fixed one."""
    shares = np.geomspace(0.01, 30, 200)
    reach = np.array([always_z(share) for share in shares])
    width = reach / np.sqrt(shares)
    assert (reach > z_of()).all()
    assert (np.diff(width) < 0).all()
    assert always_z(1.0) == pytest.approx(np.sqrt(2 * 8.9372 / 7.9372 * np.log(np.sqrt(8.9372) / 0.05)), rel=1e-4)


def test_a_mean_stays_inside_at_every_look():
    """Of 2,000 walks watched at each of 1,000 steps, at most 5% ever leave; a fixed interval loses a third."""
    rng = np.random.default_rng(5)
    steps = np.arange(20, 1001)
    means = (np.cumsum(rng.normal(size=(2000, 1000)), axis=1) / np.arange(1, 1001))[:, 19:]
    reach = np.array([always_z(step / 500) for step in steps]) / np.sqrt(steps)
    assert (np.abs(means) > reach).any(axis=1).mean() <= 0.05
    assert (np.abs(means) > z_of() / np.sqrt(steps)).any(axis=1).mean() > 0.3


def test_the_sample_that_is_needed_has_the_power_it_says():
    """Of many trials of that size four fifths come out, and the detectable effect is then the one asked for."""
    control, effect, rate = 0.1, 0.08, 0.25
    size = round(needed(effect, ((rate - effect) * (1 - rate + effect), rate * (1 - rate)), control))
    rng, few = np.random.default_rng(1), round(size * control)
    one, other = rng.binomial(size - few, rate - effect, 4000) / (size - few), rng.binomial(few, rate, 4000) / few
    error = np.sqrt(one * (1 - one) / (size - few) + other * (1 - other) / few)
    assert (np.abs(one - other) / error > z_of()).mean() == pytest.approx(0.8, abs=0.03)
    assert detectable(float(error.mean())) == pytest.approx(effect, rel=0.02)
    assert needed(0.0, (1.0, 1.0), 0.5) == np.inf
