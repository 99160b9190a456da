"""Commands that play in a simulated book."""

from __future__ import annotations

from typing import Annotated

import typer

from churnkit.cli.screen import HERE, TODAY, At, Folder, Json, cutoff, do


def quarter(folder: Folder = HERE, *, at: At = TODAY,
            weeks: Annotated[int, typer.Option(min=1, help="How long.")] = 13,
            every: Annotated[int, typer.Option(min=1, help="Weeks between two plans.")] = 4,
            seed: Annotated[int, typer.Option(help="Of the people's luck.")] = 7, as_json: Json = False) -> None:
    """Play a quarter in a simulated book: plans, people's work, answers, and what follows from it.

    Example: churnkit quarter book --at 2026-08-01
    """
    from churnkit.jobs import world as jobs

    do(lambda: jobs.play_quarter(folder, cutoff(at), weeks=weeks, every=every, seed=seed), as_json)
