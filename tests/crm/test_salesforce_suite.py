"""The whole suite on a Salesforce org of our own: with unique keys, without them, and signed in by an app."""

import pytest
from databases import EVERY, BothDatabases
from salesforce_world import SalesforceWorld

from churnkit.testing.conformance import Conformance
from churnkit.testing.kills import Kills


class OnSalesforce(Conformance):
    """An org of the test's own; whatever was asked of it fits the contract."""

    unique, app = True, False

    @pytest.fixture
    def world(self, tmp_path):
        """An org that is set up."""
        with SalesforceWorld(tmp_path, unique=self.unique, app=self.app) as world:
            yield world
            assert world.fake.violations == []


class TestSalesforce(BothDatabases, OnSalesforce, Kills):
    """Everything, on both databases."""


@EVERY
class TestSalesforceWithoutUniqueKeys(OnSalesforce, Kills):
    """An org that takes no unique field on activities: keys are looked up after every doubt."""

    unique = False


@EVERY
class TestSalesforceByAnApp(OnSalesforce):
    """Signed in by client credentials: the token is renewed, and never expires for good."""

    app = True
