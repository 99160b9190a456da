"""Commands that look for what is wrong: with time, with features, with tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from churnkit.cli.screen import HERE, TODAY, At, Folder, Json, cutoff, do
from churnkit.cli.tasks import audit_tasks

audits = typer.Typer(name="audit", no_args_is_help=True, rich_markup_mode=None,
                     help="Look for what is wrong with features or tasks. Exit code 3: something is.")


@audits.command("time")
def audit_time(
               folder: Folder = HERE, *, at: At = TODAY,
               before: Annotated[Path | None, typer.Option(help="An earlier extract of the same sources.")] = None,
               points: Annotated[int, typer.Option(min=1, help="How many points truncation looks at.")] = 200,
               method: Annotated[list[str] | None, typer.Option(help="Only this method; may be repeated.")] = None,
               as_json: Json = False) -> None:
    """Look for features that know what came later.

    Example: churnkit audit time acme --at 2026-11-01 --before acme-last-month
    """
    from churnkit.jobs import audits as jobs

    do(lambda: jobs.audit_time(folder, cutoff(at), before=before, points=points, methods=method or ()), as_json)


@audits.command("features")
def audit_features(folder: Folder = HERE, at: At = TODAY, as_json: Json = False) -> None:
    """Look for features that are dead, frozen, missing, copied, shifted or too good.

    Example: churnkit audit features acme --at 2026-11-01
    """
    from churnkit.jobs import audits as jobs

    do(lambda: jobs.audit_features(folder, cutoff(at)), as_json)


audits.command("tasks")(audit_tasks)
