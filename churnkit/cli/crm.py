"""The CRM itself: getting it ready, trying it with one task, and receiving what it tells."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import typer

from churnkit.cli.screen import HERE, Folder, Json, do

crm = typer.Typer(name="crm", no_args_is_help=True, rich_markup_mode=None,
                  help="Get a CRM ready for churnkit's tasks, and try it.")
Name = Annotated[str, typer.Argument(help="The connector: hubspot, salesforce, webhook, files, or an installed one.")]


@crm.command()
def setup(name: Name, folder: Folder = HERE, as_json: Json = False) -> None:
    """See what the token may do, make what is missing, and say what an administrator must still do.

    Example: churnkit crm setup hubspot acme
    """
    from churnkit.jobs import crms

    do(lambda: crms.setup(folder, name), as_json)


@crm.command()
def receive(folder: Folder = HERE, *,
            port: Annotated[int, typer.Option(help="The port to listen at.")] = 8321,
            host: Annotated[str, typer.Option(help="The address; another than this machine's own needs something "
                                                   "before it that ends TLS.")] = "127.0.0.1") -> None:
    """Receive signed webhooks until Ctrl-C: answers from consumers, or that a sync is worth while.

    Example: churnkit crm receive acme --port 8321
    """
    from churnkit.jobs import crm_receive

    do(lambda: crm_receive.receive(folder, host, port), as_json=False)


@crm.command("test")
def trial(  # noqa: PLR0913 - one option each
         name: Name, folder: Folder = HERE, *,
         owner: Annotated[str, typer.Option(help="An account manager's e-mail address.")] = "ann@us.example",
         account: Annotated[str, typer.Option(help="An account's id.")] = "churnkit-test",
         yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
         production: Annotated[bool, typer.Option("--production", help="It need not be a sandbox.")] = False,
         as_json: Json = False) -> None:
    """Write one task to a sandbox after asking, read it back, and remove it.

    Example: churnkit crm test hubspot acme --owner ann@us.example --account A17
    """
    from churnkit.jobs import crms
    from churnkit.jobs.report import Report

    def job() -> Report:
        asked = crms.question(folder, name, production=production)
        if not yes and not typer.confirm(asked, err=True):
            return Report("crm test", notes=["Nothing was written."])
        return crms.trial(folder, name, dt.datetime.now(dt.UTC), owner=owner, account=account)

    do(job, as_json)
