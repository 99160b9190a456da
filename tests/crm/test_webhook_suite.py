"""The webhook connector under the conformance suite: the consumer in its world notes every breach of the contract."""

import pytest
from databases import BothDatabases
from webhook_world import CANARIES, WebhookWorld

from churnkit.outreach.crm.base import CrmDeniedError, CrmDownError, Item
from churnkit.testing.conformance import Conformance
from churnkit.testing.kills import Kills
from churnkit.testing.samples import sample


class TestWebhook(BothDatabases, Conformance, Kills):
    """Its `check` sends nothing, so what a request would show is shown by a message."""

    @pytest.fixture
    def world(self, tmp_path):
        """A consumer that may have nothing to complain of."""
        with WebhookWorld(tmp_path) as world:
            yield world
            assert world.consumer.violations == []
            stored = [path.read_bytes() for path in tmp_path.rglob("webhook_inbox.db*")]
            assert not any(canary.encode() in text for canary in CANARIES for text in stored)

    def test_a_limit_of_requests_is_kept(self, stage):
        """Each message is paid for before it goes out, and so is a ping."""
        crm = stage.world.connect(stage.clock)

        def spend():
            raise CrmDownError("the budget is spent", wait=1.0)

        crm.spend = spend
        with pytest.raises(CrmDownError, match="the budget is spent"):
            crm.check(mend=True)
        with pytest.raises(CrmDownError, match="the budget is spent"):
            crm.write([Item(sample(0), sample(0).content_hash())])
        with pytest.raises(CrmDownError, match="the budget is spent"):
            crm.remove([sample(0).key])
        assert stage.world.server.seen == []

    def test_denied_is_not_down(self, stage):
        """A refused signature is said as such: nobody waits for it."""
        stage.world.fail("expired")
        stage.put([sample(0)])
        with pytest.raises(CrmDeniedError):
            stage.world.connect(stage.clock).write([Item(sample(0), sample(0).content_hash())])
        assert len(stage.run().problems) == 1
        assert sum(stage.clock.slept) < 1  # the budget's own tick, and no pause
        stage.world.heal()
        assert stage.run().created == 1
