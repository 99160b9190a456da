"""HubSpot's connector on a HubSpot of our own: the whole suite, with a unique key and in a portal that allows none."""

import pytest
from databases import EVERY, BothDatabases

from churnkit.testing.conformance import Conformance
from churnkit.testing.kills import Kills


class TestHubSpot(BothDatabases, Conformance, Kills):
    """Everything, on both databases."""

    @pytest.fixture
    def world(self, portal):
        """A portal that is set up."""
        return portal()


@EVERY
class TestHubSpotWithoutUniqueKeys(Conformance):
    """A portal that allows no unique property on tasks: keys are searched for, and seen late."""

    @pytest.fixture
    def world(self, portal):
        """A portal whose search lags by its own clock."""
        return portal(unique_tasks=False)
