"""Commands on models that are trained: which there are, who scores, and who decided so."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from churnkit.cli.screen import HERE, Folder, Json, Targets, do

By = Annotated[str, typer.Option("--by", help="Who decides; it is kept with the model.")]
Why = Annotated[str, typer.Option("--why", help="On what grounds; it is kept with the model.")]
Target = Annotated[str, typer.Argument(help="churn, expansion or maintenance.")]


def models(folder: Folder = HERE, target: Targets = None, as_json: Json = False) -> None:
    """List every version, which of them scores, and every change of champion.

    Example: churnkit models acme --target churn
    """
    from churnkit.jobs import models as jobs

    do(lambda: jobs.models(folder, target or ()), as_json)


def promote(  # noqa: PLR0913 - one option each
            target: Target, version: Annotated[str, typer.Argument(help="Its number, such as 3.")],
            folder: Folder = HERE, *, by: By, why: Why,
            anyway: Annotated[bool, typer.Option(help="Though its skill is not proven: it opens no task.")] = False,
            as_json: Json = False) -> None:
    """Make a version champion by a person's decision.

    Example: churnkit promote churn 3 acme --by "Ada Lim" --why "knows the new plans"
    """
    from churnkit.jobs import models as jobs

    do(lambda: jobs.promote(folder, target, version, by=by, why=why, anyway=anyway), as_json)


def rollback(target: Target, folder: Folder = HERE, *, by: By, why: Why, as_json: Json = False) -> None:
    """Make the champion before this one champion again.

    Example: churnkit rollback churn acme --by "Ada Lim" --why "too many false alarms"
    """
    from churnkit.jobs import models as jobs

    do(lambda: jobs.rollback(folder, target, by=by, why=why), as_json)


def card(target: Target, folder: Folder = HERE, *,
         version: Annotated[str | None, typer.Option(help="Its number; left out, the one that scores.")] = None,
         out: Annotated[Path | None, typer.Option(help="Write the Markdown to this file.")] = None,
         as_json: Json = False) -> None:
    """Show a model's card: data, figures, drivers, weak segments, fairness, who approved it.

    Example: churnkit card churn acme --out churn.md
    """
    from churnkit.jobs import models as jobs

    do(lambda: jobs.card(folder, target, version, out), as_json)
