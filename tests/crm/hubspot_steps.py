"""Steps that the HubSpot tests share."""

from small_tasks import task

from churnkit.outreach.crm.base import Item
from churnkit.outreach.crm.hubspot_fields import KEY
from churnkit.outreach.status import Rules

MEANT = Rules(portal="4242")
READS = {"check": lambda crm: crm.check(), "find": lambda crm: crm.find([task(0).key]),
         "changes": lambda crm: list(crm.changes(None))}
"""What a connector asks without writing."""


def items(*tasks):
    """Creates of these tasks."""
    return [Item(one, one.content_hash()) for one in tasks]


def known(crm, *tasks, closing=""):
    """Updates of tasks that are there."""
    there = crm.find([one.key for one in tasks])
    return [Item(one, one.content_hash(), there[one.key].remote_id, closing) for one in tasks]


def states(results):
    """What became of each key."""
    return {result.key: result.state for result in results}


def properties(world, key):
    """A task's properties as the portal holds them."""
    [one] = [one for one in world.fake.store.live("tasks") if one.properties.get(KEY) == key]
    return one.properties


def searches(world):
    """Every search of tasks so far."""
    return [path for _, path, _ in world.server.seen if path.endswith("/tasks/search")]


def poll(crm, since):
    """What one poll tells, and the cursor after it."""
    pages = list(crm.changes(since))
    return [one for page in pages for one in page.remotes], pages[-1].cursor
