"""The room's fixtures: a HubSpot portal and a Salesforce org of a test's own."""

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "outreach")]


@pytest.fixture
def portal(tmp_path, monkeypatch):
    """Opens portals, and asserts at the end that none of them saw a breach of HubSpot's contract."""
    from hubspot_world import HubSpotWorld

    opened = []

    def open_(**given):
        opened.append(HubSpotWorld(tmp_path, monkeypatch.setenv, **given).__enter__())
        return opened[-1]

    yield open_
    for world in opened:
        world.__exit__()
    assert [world.fake.violations for world in opened] == [[] for _ in opened]


@pytest.fixture
def world(portal):
    """A portal that is set up."""
    return portal()


@pytest.fixture
def org(tmp_path):
    """A Salesforce org that is set up; whatever was asked of it fits the contract."""
    from salesforce_world import SalesforceWorld

    from churnkit.testing.samples import AT

    with SalesforceWorld(tmp_path) as made:
        made.fake.now = lambda: AT
        yield made
        assert made.fake.violations == []
