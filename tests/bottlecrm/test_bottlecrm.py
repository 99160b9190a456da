"""The conformance suite against the real BottleCRM."""

import pytest

from churnkit.testing.conformance import Conformance
from churnkit.testing.kills import Kills

pytestmark = pytest.mark.bottlecrm


class TestBottleCrm(Conformance, Kills):
    """Once more, end to end: a server, its database, and a line that fails."""

    test_killed_two_hundred_times = None  # every run asks for every open task: that would be an hour

    @pytest.fixture
    def world(self, organisation):
        """The real one."""
        return organisation
