"""The sync and what belongs to it: dead letters, its state, a run's recall, and what is mended by hand."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import typer

from churnkit.cli.bare import Bare
from churnkit.cli.screen import HERE, TODAY, At, DryRun, Folder, Json, cutoff, do
from churnkit.cutoffs import duration


class _Sync(Bare):
    """`churnkit sync ...` syncs, unless it names one of the other commands."""

    bare = "now"


sync = typer.Typer(name="sync", cls=_Sync, rich_markup_mode=None, help="""Push pending tasks, bring answers back.

    Example: churnkit sync acme --dry-run

    Example: churnkit sync dead list acme
    """)
dead = typer.Typer(name="dead", no_args_is_help=True, rich_markup_mode=None,
                   help="Look at what the CRM refused for good, send it again, or drop it.")
sync.add_typer(dead)
By = Annotated[str, typer.Option("--by", help="Who decides; it is kept with the task.")]
Keys = Annotated[list[str] | None, typer.Option("--key", help="Only this task, by the beginning of its key; may be "
                                                              "repeated.")]


@sync.command("now")
def now(folder: Folder = HERE, at: At = TODAY, dry_run: DryRun = False,
        if_poked: Annotated[bool, typer.Option("--if-poked", help="Only where churnkit crm receive has taken a message "
                                                                  "since the last time.")] = False,
        as_json: Json = False) -> None:
    """Push pending tasks, bring answers back; the word `now` may be left out.

    Example: churnkit sync now acme --dry-run
    """
    from churnkit import jobs

    do(lambda: jobs.sync(folder, cutoff(at), dry_run=dry_run, if_poked=if_poked), as_json)


@sync.command()
def status(folder: Folder = HERE,
           every: Annotated[str | None, typer.Option(help="How often it is to run, such as 1h; left out: [crm_options] "
                                                          "every.")] = None,
           as_json: Json = False) -> None:
    """Say when the last run was and what waits; exit code 3 where the sync is late.

    Example: churnkit sync status acme --every 1h
    """
    from churnkit.jobs import syncs

    do(lambda: syncs.status(folder, _now(), duration(every) if every else None), as_json)


@sync.command()
def recall(folder: Folder = HERE, *, run: Annotated[str, typer.Option(help="The run, such as 'plan 2026-11-01'.")],
           by: By, as_json: Json = False) -> None:
    """Close a run's tasks that nobody has begun, here and with the next sync in the CRM.

    Example: churnkit sync recall acme --run "plan 2026-11-01" --by "Ada Lim"
    """
    from churnkit.jobs import syncs

    do(lambda: syncs.recall(folder, run, _now(), by=by), as_json)


@sync.command()
def repair(folder: Folder = HERE, *, by: By,
           deleted: Annotated[bool, typer.Option("--deleted", help="They were deleted on purpose: let go.")] = False,
           as_json: Json = False) -> None:
    """After the CRM's backup was restored: have the next sync make again what is missing there.

    Example: churnkit sync repair acme --by "Ada Lim"
    """
    from churnkit.jobs import syncs

    do(lambda: syncs.repair(folder, _now(), by=by, deleted=deleted), as_json)


@sync.command()
def rebuild(folder: Folder = HERE, *, by: By, as_json: Json = False) -> None:
    """After the outbox was lost: make it anew from the tasks in the CRM.

    Example: churnkit sync rebuild acme --by "Ada Lim"
    """
    from churnkit.jobs import syncs

    do(lambda: syncs.rebuild(folder, _now(), by=by), as_json)


@dead.command("list")
def list_(folder: Folder = HERE, as_json: Json = False) -> None:
    """List what is not tried again by itself, each with the reason.

    Example: churnkit sync dead list acme
    """
    from churnkit.jobs import syncs

    do(lambda: syncs.dead_list(folder), as_json)


@dead.command()
def retry(folder: Folder = HERE, *, by: By, key: Keys = None, as_json: Json = False) -> None:
    """Have the next sync try again, once the reason is mended; without --key, all of them.

    Example: churnkit sync dead retry acme --key 3f9a --by "Ada Lim"
    """
    from churnkit.jobs import syncs

    do(lambda: syncs.dead_retry(folder, key, _now(), by=by), as_json)


@dead.command()
def drop(folder: Folder = HERE, *, by: By, key: Annotated[list[str], typer.Option(
             "--key", help="The task, by the beginning of its key; may be repeated.")],
         why: Annotated[str, typer.Option("--why", help="The reason; it is kept with the task.")],
         as_json: Json = False) -> None:
    """Give it up: a task that never came into the CRM is closed.

    Example: churnkit sync dead drop acme --key 3f9a --by "Ada Lim" --why "a test account"
    """
    from churnkit.jobs import syncs

    do(lambda: syncs.dead_drop(folder, key, _now(), by=by, why=why), as_json)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
