"""On the simulated book, whose causes are known, the reasons are the true ones."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from churnkit.learning.families import family
from churnkit.signals.catalog import Catalog
from churnkit.signals.features import groups
from churnkit.simulate.truth import TELLS

ROOT = Path(__file__).parents[2]


def test_every_family_that_tells_of_a_cause_exists():
    """A feature that is renamed must not make a cause untellable in silence."""
    known = {family(one.name, one) for group in groups(Catalog()).values() for one in group.features}
    assert {name for names in TELLS.values() for name in names} <= known


@pytest.mark.slow
def test_the_true_cause_is_among_the_first_three_reasons():
    """For at least 80% of those rightly flagged, and faithful and stable over all."""
    found = runpy.run_path(str(ROOT / "benchmarks" / "reasons.py"))["measure"](2000, 24)
    assert found["told"] >= 0.8
    assert found["told"] >= found["told_by_lot"] + 0.2
    assert found["faithful"]["towards"] >= 0.95
    assert found["faithful"]["more_than_random"] >= 0.95
    assert found["faithful"]["stable"] >= 0.9
