"""Tasks that stand in a CRM already, and people who delete some of them."""

from small_tasks import AT, task

from churnkit.outreach.crm.base import Capabilities
from churnkit.outreach.crm.memory import MemoryCrm
from churnkit.outreach.sync import sync


def sent(outbox, clock, many, **capabilities):
    """So many tasks, all of them in the CRM."""
    crm = MemoryCrm(Capabilities(**capabilities))
    outbox.put([task(n) for n in range(many)], at=AT)
    sync(outbox, crm, at=AT, clock=clock)
    return crm


def remove(crm, *numbers):
    """People delete tasks."""
    crm.remove([crm.find([task(n).key])[task(n).key].remote_id for n in numbers])
