"""The command that looks at what the breaker holds, and lets it go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from churnkit.cli.screen import HERE, Folder, Json, cutoff, do


def release(target: Annotated[str | None, typer.Argument(help="churn, expansion or maintenance; left out, what is held "
                                                             "is listed.")] = None,
            folder: Folder = HERE, *,
            by: Annotated[str, typer.Option("--by", help="Who decides; it is kept.")] = "",
            why: Annotated[str, typer.Option("--why", help="On what grounds; it is kept.")] = "",
            at: Annotated[str | None, typer.Option(help="The run that holds, such as 2026-11-01; left out, the newest.",
                                                   )] = None,
            as_json: Json = False) -> None:
    """Let the tasks go that the breaker holds; without a target, say what is held and why (exit code 3).

    Example: churnkit release churn acme --by "Ada Lim" --why "the EU export was late, and is whole now"
    """
    from churnkit.jobs import breaker as jobs

    when = cutoff(at) if at else None
    if target is None or (folder == HERE and Path(target).is_dir()):
        do(lambda: jobs.held(Path(target) if target else folder, when), as_json)
    else:
        do(lambda: jobs.release(folder, target, by=by, why=why, at=when), as_json)
