"""The command `churnkit`: one command per job. Tables go to stdout, progress and errors to stderr."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from churnkit.cutoffs import duration, moment
from churnkit.errors import BusyError, ChurnkitError

if TYPE_CHECKING:
    from churnkit.jobs import Report

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


def _at(text: str) -> dt.datetime:
    """The cutoff that the command line names; the only place where the wall clock is read."""
    return moment(f"{dt.datetime.now(dt.UTC):%Y-%m-%d}" if text == TODAY else text)


TODAY = "today"
WIDTH = 118
"""Columns of what is printed into a file or a pipe."""
Folder = Annotated[Path, typer.Argument(help="The workspace: the folder of churnkit.toml.")]
At = Annotated[str, typer.Option("--at", help="The cutoff, such as 2026-11-01: nothing after it is seen.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of a table.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")]
Targets = Annotated[list[str] | None, typer.Option("--target", help="Only this target; may be repeated.")]
HERE = Path()


@app.command()
def init(folder: Folder = HERE,
         source: Annotated[Path | None, typer.Option("--from", help="Propose a mapping of these files.")] = None,
         as_json: Json = False) -> None:
    """Make a workspace.

    Example: churnkit init acme --from exports/
    """
    from churnkit.jobs import setup

    _do(lambda: setup.init(folder, source), as_json)


@app.command()
def simulate(  # noqa: PLR0913 - one option each
             folder: Folder, *, accounts: int = 2000, months: int = 24, seed: int = 7, difficulty: str = "normal",
             end: str = "2026-11-01", as_json: Json = False) -> None:
    """Make a workspace with a simulated book.

    Example: churnkit simulate book --accounts 500
    """
    from churnkit.jobs import setup

    _do(lambda: setup.simulate(folder, accounts=accounts, months=months, seed=seed, end=_at(end),
                               difficulty=difficulty), as_json)


@app.command()
def check(folder: Folder = HERE, at: At = TODAY, as_json: Json = False) -> None:
    """Say what was found, what is missing, and whether it suffices.

    Example: churnkit check acme --at 2026-11-01
    """
    from churnkit import jobs

    _do(lambda: jobs.check(folder, _at(at)), as_json)


class _Features(typer.core.TyperGroup):
    """`churnkit features ...` computes, unless it names one of the other commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {*self.commands, *self.get_help_option_names(ctx)}
        return super().parse_args(ctx, args if args and args[0] in known else ["compute", *args])

    def format_options(self, ctx: Any, formatter: Any) -> None:
        self.commands["compute"].format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


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

    _do(lambda: definitions.listed(folder), as_json)


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

    _do(lambda: jobs.features(folder, _at(at), start=_at(start) if start else None,
                              every=duration(every) if every else None, restate=restate), as_json)


@app.command()
def train(folder: Folder = HERE, at: At = TODAY, target: Targets = None, as_json: Json = False) -> None:
    """Train and register the models.

    Example: churnkit train acme --at 2026-11-01 --target churn
    """
    from churnkit import jobs

    _do(lambda: jobs.train(folder, _at(at), target or ()), as_json)


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

    _do(lambda: jobs.backtest(folder, _at(at), target or (), folds=folds, by_entity=by_entity), as_json)


@app.command()
def score(folder: Folder = HERE, at: At = TODAY,
          explain_all: Annotated[bool, typer.Option(help="Reasons of everybody, not only of possible tasks.")] = False,
          as_json: Json = False) -> None:
    """Score everybody, and give reasons of those who can become tasks.

    Example: churnkit score acme --at 2026-11-01
    """
    from churnkit import jobs

    _do(lambda: jobs.score(folder, _at(at), explain_all=explain_all), as_json)


@app.command()
def plan(folder: Folder = HERE, at: At = TODAY, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Turn scores and signals into tasks.

    Example: churnkit plan acme --at 2026-11-01 --dry-run
    """
    from churnkit import jobs

    _do(lambda: jobs.plan(folder, _at(at), dry_run=dry_run), as_json)


@app.command()
def sync(folder: Folder = HERE, at: At = TODAY, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Push pending tasks, bring answers back.

    Example: churnkit sync acme --dry-run
    """
    from churnkit import jobs

    _do(lambda: jobs.sync(folder, _at(at), dry_run=dry_run), as_json)


@app.command()
def run(folder: Folder = HERE, at: At = TODAY, as_json: Json = False) -> None:
    """Do all of a day's stations.

    Example: churnkit run acme --at 2026-11-01
    """
    from churnkit import jobs

    _do(lambda: jobs.run(folder, _at(at)), as_json)


@app.command()
def explain(entity: str, folder: Folder = HERE, at: At = TODAY, as_json: Json = False) -> None:
    """Say why an account or asset scores as it does.

    Example: churnkit explain A00042 acme --at 2026-11-01
    """
    from churnkit import jobs

    _do(lambda: jobs.explain(folder, entity, _at(at)), as_json)


@app.command()
def impact(folder: Folder = HERE, at: At = TODAY, as_json: Json = False) -> None:
    """Count tasks by play, status and control.

    Example: churnkit impact acme
    """
    from churnkit import jobs

    _do(lambda: jobs.impact(folder, _at(at)), as_json)


@app.command()
def demo(folder: Annotated[Path, typer.Argument(help="An empty folder.")] = Path("churnkit-demo"), accounts: int = 2000,
         as_json: Json = False) -> None:
    """Run the whole line on a simulated book.

    Example: churnkit demo
    """
    from churnkit.jobs import setup

    _do(lambda: setup.demo(folder, accounts), as_json)


@app.command()
def doctor(folder: Folder = HERE, as_json: Json = False) -> None:
    """Look whether this machine and workspace can work.

    Example: churnkit doctor acme
    """
    from churnkit.jobs import setup

    _do(lambda: setup.doctor(folder), as_json)


@app.command()
def upgrade(folder: Folder = HERE, as_json: Json = False) -> None:
    """Bring files of an older churnkit up to date, with a backup.

    Example: churnkit upgrade acme
    """
    from churnkit.jobs import setup

    _do(lambda: setup.upgrade(folder, _at(TODAY)), as_json)


audits = typer.Typer(name="audit", no_args_is_help=True, rich_markup_mode=None,
                     help="Look for what is wrong with features. Exit code 3: something is.")
app.add_typer(audits)


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

    _do(lambda: jobs.audit_time(folder, _at(at), before=before, points=points, methods=method or ()), as_json)


@audits.command("features")
def audit_features(folder: Folder = HERE, at: At = TODAY, as_json: Json = False) -> None:
    """Look for features that are dead, frozen, missing, copied, shifted or too good.

    Example: churnkit audit features acme --at 2026-11-01
    """
    from churnkit.jobs import audits as jobs

    _do(lambda: jobs.audit_features(folder, _at(at)), as_json)


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
            _do(partial(getattr(jobs, station), folder, _at(at)), as_json)

    script()


def _do(job: Callable[[], Report], as_json: bool) -> None:
    """Runs a job, shows its report, and turns its errors into one paragraph and an exit code."""
    from churnkit.jobs.workspace import NOW

    logging.basicConfig(stream=sys.stderr, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S", level=logging.WARNING)
    logging.getLogger("churnkit").setLevel(logging.INFO)
    logging.captureWarnings(capture=True)  # libraries' own deprecations are for us, not for who runs a job
    logging.getLogger("py.warnings").setLevel(logging.ERROR)
    try:
        NOW.set(dt.datetime.now(dt.UTC))
        report = job()
    except BusyError as error:
        _fail(str(error), 4)
    except ChurnkitError as error:
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("Stopped. Nothing half-written is left; run the same command again to go on.", 130)
    if as_json:
        sys.stdout.write(json.dumps({"job": report.title, "notes": report.notes, **report.data}, default=str) + "\n")
    else:
        _show(report)
    if report.code:
        raise typer.Exit(report.code)


def _fail(text: str, code: int) -> None:
    sys.stderr.write(f"churnkit: {' '.join(text.split())}\n")
    raise typer.Exit(code)


def _show(report: Report) -> None:
    from rich.console import Console
    from rich.markdown import Markdown
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    for text in report.texts:
        console.print(Markdown(text))
        console.rule(style="dim")
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in report.rows:  # rows of another shape make a table of their own
        groups.setdefault(tuple(row), []).append(row)
    for names, rows in groups.items():
        table = Table(box=None, header_style="bold", pad_edge=False)
        room = console.width
        for name in names:
            widest = max(len(name), *(len(_cell(row[name])) for row in rows))
            width = max(min(widest, room), 8) if name == names[-1] else min(widest, 28)  # the last takes what is left
            table.add_column(name.replace("_", " "), no_wrap=True, overflow="ellipsis", width=width)
            room -= width + 2
        for row in rows:
            table.add_row(*[Text(_cell(value)) for value in row.values()])
        console.print(table)
    for note in report.notes:
        console.print(Text(note))


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
