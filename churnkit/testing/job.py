"""Syncs in processes of their own, to be killed at any moment: `python -m churnkit.testing.job`.

Each line of standard input is JSON: {"name", "options", "root", "url", "at", "batch"}. For each a child is forked that
syncs that outbox with that CRM; its process id is printed, and, once it has ended, its exit status. Forking saves the
second that the imports take, so that hundreds of kills fit into a minute. The secrets come from the environment.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
import traceback
from dataclasses import replace
from typing import Any

from churnkit.outreach.crm.base import connect
from churnkit.outreach.outbox import Outbox
from churnkit.outreach.status import Rules
from churnkit.outreach.sync import sync


def main() -> None:
    """Reads lines until there are no more."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os._exit(_run(json.loads(line)))
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _run(job: dict[str, Any]) -> int:
    try:
        crm = connect(job["name"], job["options"], job["root"])
        portal = crm.check()
        crm.capabilities = replace(crm.capabilities, batch=min(job["batch"], crm.capabilities.batch))
        box = Outbox(job["url"])
        sync(box, crm, at=dt.datetime.fromisoformat(job["at"]), rules=Rules(portal.id))
        box.close()
    except BaseException:  # noqa: BLE001 - whatever it is, the parent must see it
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    main()
