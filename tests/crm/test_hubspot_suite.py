"""HubSpot's connector on a HubSpot of our own: the whole suite, with a unique key and in a portal that allows none."""

import pytest

from churnkit.testing.conformance import Conformance
from churnkit.testing.kills import Kills


class TestHubSpot(Conformance, Kills):
    """Everything, on both databases."""

    @pytest.fixture(params=["sqlite", "postgresql"])
    def url(self, request, tmp_path):
        """The outbox's database."""
        return request.getfixturevalue("postgres") if request.param == "postgresql" else \
            f"sqlite:///{tmp_path / 'outbox.db'}"

    @pytest.fixture
    def world(self, portal):
        """A portal that is set up."""
        return portal()


class TestHubSpotWithoutUniqueKeys(Conformance):
    """A portal that allows no unique property on tasks: keys are searched for, and seen late."""

    @pytest.fixture
    def world(self, portal):
        """A portal whose search lags by its own clock."""
        return portal(unique_tasks=False)
