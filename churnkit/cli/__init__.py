"""The command `churnkit`: one command per job. Tables go to stdout, progress and errors to stderr."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from churnkit.cli import audits, breaker, crm, models, sync, tasks, uplift, world
from churnkit.cli.bare import Bare
from churnkit.cli.screen import HERE, TODAY, At, DryRun, Folder, Json, Targets, cutoff, do
from churnkit.cutoffs import duration

__all__ = ["app", "main", "pipeline"]

app = typer.Typer(
    name="churnkit",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Raw records in, explained outreach tasks out.\n\n"
         "Exit codes: 0 done; 1 an error, said in one paragraph; 2 the command line is wrong; "
         "3 done, and the answer is that work may not go on; 4 another run holds the workspace.",
)


@app.command()
def init(folder: Folder = HERE,
         source: Annotated[Path | None, typer.Option("--from", help="Propose a mapping of these files.")] = None,
         as_json: Json = False) -> None:
    """Make a workspace.

    Example: churnkit init acme --from exports/
    """
    from churnkit.jobs import setup

    do(lambda: setup.init(folder, source), as_json)


@app.command()
def simulate(  # noqa: PLR0913 - one option each
             folder: Folder, *, accounts: int = 2000, months: int = 24, seed: int = 7, difficulty: str = "normal",
             end: str = "2026-11-01", as_json: Json = False) -> None:
    """Make a workspace with a simulated book.

    Example: churnkit simulate book --accounts 500
    """
    from churnkit.jobs import setup

    do(lambda: setup.simulate(folder, accounts=accounts, months=months, seed=seed, end=cutoff(end),
                               difficulty=difficulty), as_json)


@app.command()
def check(folder: Folder = HERE, at: At = TODAY, as_json: Json = False) -> None:
    """Say what was found, what is missing, and whether it suffices.

    Example: churnkit check acme --at 2026-11-01
    """
    from churnkit import jobs

    do(lambda: jobs.check(folder, cutoff(at)), as_json)


class _Features(Bare):
    """`churnkit features ...` computes, unless it names one of the other commands."""

    bare = "compute"


features_app = typer.Typer(cls=_Features, rich_markup_mode=None, help="""Compute features into the store, or list them.

    Example: churnkit features acme --at 2026-11-01

    Example: churnkit features list acme
    """)
app.add_typer(features_app, name="features")


@features_app.command("list")
def features_list(folder: Folder = HERE, as_json: Json = False) -> None:
    """Print every definition: name, words, window, unit, source, group, and the models that use it.

    Example: churnkit features list acme
    """
    from churnkit.jobs import definitions

    do(lambda: definitions.listed(folder), as_json)


@features_app.command("compute")
def features(folder: Folder = HERE,
             at: Annotated[str, typer.Option("--at", "--to", help="The cutoff, such as 2026-11-01.")] = TODAY,
             start: Annotated[str | None, typer.Option("--from", help="Backfill from this day on.")] = None,
             every: Annotated[str | None, typer.Option(help="How often: '1d'; else as the models train.")] = None,
             restate: Annotated[bool, typer.Option(help="Compute anew what stands already.")] = False,
             as_json: Json = False) -> None:
    """Compute features into the store; the word `compute` may be left out.

    Example: churnkit features acme --from 2025-01-01 --to 2026-11-01
    """
    from churnkit import jobs

    do(lambda: jobs.features(folder, cutoff(at), start=cutoff(start) if start else None,
                              every=duration(every) if every else None, restate=restate), as_json)


@app.command()
def train(folder: Folder = HERE, at: At = TODAY, target: Targets = None, as_json: Json = False) -> None:
    """Train and register the models.

    Example: churnkit train acme --at 2026-11-01 --target churn
    """
    from churnkit import jobs

    do(lambda: jobs.train(folder, cutoff(at), target or ()), as_json)


@app.command()
def backtest(
             folder: Folder = HERE, *, at: At = TODAY, target: Targets = None,
             folds: Annotated[int, typer.Option(min=1, help="How many origins.")] = 5,
             by_entity: Annotated[bool, typer.Option(help="Test on accounts that were not learnt from.")] = False,
             as_json: Json = False) -> None:
    """Say how the models would have done through history.

    Example: churnkit backtest acme --at 2026-11-01 --target churn --folds 4
    """
    from churnkit import jobs

    do(lambda: jobs.backtest(folder, cutoff(at), target or (), folds=folds, by_entity=by_entity), as_json)


@app.command()
def score(folder: Folder = HERE, at: At = TODAY,
          explain_all: Annotated[bool, typer.Option(help="Reasons of everybody, not only of possible tasks.")] = False,
          as_json: Json = False) -> None:
    """Score everybody, and give reasons of those who can become tasks.

    Example: churnkit score acme --at 2026-11-01
    """
    from churnkit import jobs

    do(lambda: jobs.score(folder, cutoff(at), explain_all=explain_all), as_json)


@app.command()
def plan(folder: Folder = HERE, at: At = TODAY, dry_run: DryRun = False,
         account: Annotated[str | None, typer.Option(help="Only tell this account's whole reasoning.")] = None,
         as_json: Json = False) -> None:
    """Turn scores and signals into tasks.

    Example: churnkit plan acme --at 2026-11-01 --dry-run

    Example: churnkit plan acme --at 2026-11-01 --account A00042
    """
    from churnkit import jobs

    do(lambda: jobs.plan(folder, cutoff(at), dry_run=dry_run, account=account), as_json)


@app.command()
def run(folder: Folder = HERE, at: At = TODAY, as_json: Json = False) -> None:
    """Do all of a day's stations.

    Example: churnkit run acme --at 2026-11-01
    """
    from churnkit import jobs

    do(lambda: jobs.run(folder, cutoff(at)), as_json)


@app.command()
def explain(entity: str, folder: Folder = HERE, at: At = TODAY, as_json: Json = False) -> None:
    """Say why an account or asset scores as it does.

    Example: churnkit explain A00042 acme --at 2026-11-01
    """
    from churnkit import jobs

    do(lambda: jobs.explain(folder, entity, cutoff(at)), as_json)


@app.command()
def impact(folder: Folder = HERE, at: At = TODAY, as_json: Json = False) -> None:
    """Say what outreach came to, contacted accounts against those kept apart.

    Example: churnkit impact acme
    """
    from churnkit import jobs

    do(lambda: jobs.impact(folder, cutoff(at)), as_json)


@app.command()
def demo(folder: Annotated[Path, typer.Argument(help="An empty folder.")] = Path("churnkit-demo"), accounts: int = 2000,
         as_json: Json = False) -> None:
    """Run the whole line on a simulated book.

    Example: churnkit demo
    """
    from churnkit.jobs import setup

    do(lambda: setup.demo(folder, accounts), as_json)


@app.command()
def doctor(folder: Folder = HERE, as_json: Json = False) -> None:
    """Look whether this machine and workspace can work.

    Example: churnkit doctor acme
    """
    from churnkit.jobs import setup

    do(lambda: setup.doctor(folder), as_json)


@app.command()
def upgrade(folder: Folder = HERE, as_json: Json = False) -> None:
    """Bring files of an older churnkit up to date, with a backup.

    Example: churnkit upgrade acme
    """
    from churnkit.jobs import setup

    do(lambda: setup.upgrade(folder, cutoff(TODAY)), as_json)


for command in (models.models, models.card, models.promote, models.rollback, breaker.release, uplift.uplift,
                world.quarter):
    app.command()(command)
for group in (audits.audits, crm.crm, sync.sync, tasks.tasks):
    app.add_typer(group)

def main() -> None:
    """The entry point: our own errors become one paragraph on stderr and an exit code, never a traceback."""
    app()


def pipeline(*stations: str) -> None:
    """Runs stations in order for `WORKSPACE --at DATE`, as the scripts in pipelines/ do; the first failure ends it."""
    script = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

    @script.command()
    def _all(folder: Folder = HERE, at: At = TODAY, as_json: Json = False) -> None:
        from churnkit import jobs

        for station in stations:
            do(partial(getattr(jobs, station), folder, cutoff(at)), as_json)

    script()
