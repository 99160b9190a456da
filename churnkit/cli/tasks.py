"""Commands on tasks: which there are, one in full, and what a person decides about one."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import typer

from churnkit.cli.screen import HERE, Folder, Json, cutoff, do

tasks = typer.Typer(name="tasks", no_args_is_help=True, rich_markup_mode=None,
                    help="Look at tasks, approve, reject, snooze or close one.")
Key = Annotated[str, typer.Argument(help="The task's key, or as much of its beginning as only one task has.")]
By = Annotated[str, typer.Option("--by", help="Who decides; it is kept with the task.")]
Why = Annotated[str, typer.Option("--why", help="The reason; it is kept with the task.")]
When = Annotated[str, typer.Option("--at", help="When it was decided, such as 2026-11-01; left out, now.")]
Disposition = Annotated[str | None, typer.Option(help="What came of it, such as saved or no_response.")]
NOW = "now"


@tasks.command("list")
def list_(folder: Folder = HERE,
          stage: Annotated[list[str] | None, typer.Option(help="Only this stage; may be repeated.")] = None,
          account: Annotated[str | None, typer.Option(help="Only of this account.")] = None,
          owner: Annotated[str | None, typer.Option(help="Only of this account manager.")] = None,
          as_json: Json = False) -> None:
    """List tasks that are not closed, or those in one stage.

    Example: churnkit tasks list acme --stage proposed
    """
    from churnkit.jobs import tasks as jobs

    do(lambda: jobs.listing(folder, stages=stage or (), account=account, owner=owner), as_json)


@tasks.command()
def show(key: Key, folder: Folder = HERE, as_json: Json = False) -> None:
    """Show one task in full, with all that happened to it.

    Example: churnkit tasks show 3f9a acme
    """
    from churnkit.jobs import tasks as jobs

    do(lambda: jobs.show(folder, key), as_json)


@tasks.command()
def approve(key: Key, folder: Folder = HERE, *, by: By, at: When = NOW, as_json: Json = False) -> None:
    """Let a task that waits for approval be sent.

    Example: churnkit tasks approve 3f9a acme --by "Ada Lim"
    """
    from churnkit.jobs import tasks as jobs

    do(lambda: jobs.approve(folder, key, _moment(at), by=by), as_json)


@tasks.command()
def reject(  # noqa: PLR0913 - one option each
           key: Key, folder: Folder = HERE, *, by: By, why: Why, disposition: Disposition = None,
           at: When = NOW, as_json: Json = False) -> None:
    """Close a task that waits for approval; nobody is asked about the account for a while.

    Example: churnkit tasks reject 3f9a acme --by "Ada Lim" --why "we spoke yesterday"
    """
    from churnkit.jobs import tasks as jobs

    do(lambda: jobs.reject(folder, key, _moment(at), by=by, why=why, disposition=disposition), as_json)


@tasks.command()
def snooze(  # noqa: PLR0913 - one option each
           key: Key, folder: Folder = HERE, *,
           until: Annotated[str, typer.Option(help="The day on which it is open again, such as 2026-12-01.")],
           by: By, why: Why, at: When = NOW, as_json: Json = False) -> None:
    """Let a task sleep until a day; its play asks nothing of the account before that.

    Example: churnkit tasks snooze 3f9a acme --until 2026-12-01 --by "Ada Lim" --why "on leave"
    """
    from churnkit.jobs import tasks as jobs

    do(lambda: jobs.snooze(folder, key, _moment(at), until=cutoff(until), by=by, why=why), as_json)


@tasks.command()
def close(  # noqa: PLR0913 - one option each
          key: Key, folder: Folder = HERE, *, by: By,
          status: Annotated[str, typer.Option(help="completed or dismissed.")] = "completed",
          disposition: Disposition = None, note: Annotated[str | None, typer.Option(help="In your words.")] = None,
          at: When = NOW, as_json: Json = False) -> None:
    """Close a task; where the CRM has it, the next sync closes it there too.

    Example: churnkit tasks close 3f9a acme --by "Ada Lim" --disposition saved
    """
    from churnkit.jobs import tasks as jobs

    do(lambda: jobs.close(folder, key, _moment(at), by=by, status=status, disposition=disposition, note=note), as_json)


def audit_tasks(folder: Folder = HERE, *,
                key: Annotated[str | None, typer.Option(help="Only this task, made again from its inputs too.")] = None,
                as_json: Json = False) -> None:
    """Verify the audit's chain, and make every task again from it.

    Example: churnkit audit tasks acme --key 3f9a
    """
    from churnkit.jobs import tasks as jobs

    do(lambda: jobs.audit(folder, key), as_json)


def _moment(text: str) -> dt.datetime:
    """The moment that the command line names, or this one."""
    return dt.datetime.now(dt.UTC) if text == NOW else cutoff(text)
