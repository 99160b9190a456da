"""The webhook receiver's station: takes consumers' answers until it is stopped; the next sync reads them."""

from __future__ import annotations

import sys
from pathlib import Path

from churnkit.jobs.report import Report
from churnkit.settings import load


def receive(folder: Path, host: str = "127.0.0.1", port: int = 8321) -> Report:
    """Receives on an address and a port until Ctrl-C or SIGTERM; syncs may run meanwhile.

    Where the CRM is no webhook, what comes says only that a sync is worth while: see churnkit sync --if-poked.

    Raises:
        SettingsError: If the signing key is missing, or the port is taken.
    """
    from churnkit.outreach.crm.inbox import inbox
    from churnkit.outreach.crm.receiver import Receiver, serve
    from churnkit.outreach.crm.signed import keys

    settings = load(folder)
    store = inbox(settings.crm_options, settings.root)
    store.lay()
    serve(Receiver(keys(), store), host, port, lambda line: print(line, file=sys.stderr, flush=True))  # noqa: T201
    return Report("crm receive", notes=["Stopped. What was received is kept for the next sync."])
