"""The suite of every connector, against Salesforce: with unique keys, without them, and signed in by an app."""

import pytest
from salesforce_world import SalesforceWorld

from churnkit.testing.conformance import Conformance
from churnkit.testing.kills import Kills


class TestSalesforce(Kills, Conformance):
    """Signed in by a token, with unique keys."""

    unique, app = True, False

    @pytest.fixture
    def world(self, tmp_path):
        """An org of the test's own; whatever was asked of it fits the contract."""
        with SalesforceWorld(tmp_path, unique=self.unique, app=self.app) as world:
            yield world
            assert world.fake.violations == []


class TestWithoutUniqueKeys(TestSalesforce):
    """An org whose administrator could not make the key unique."""

    unique = False


class TestSignedInByAnApp(TestSalesforce):
    """Its token is renewed, so that it never expires for good."""

    app = True
