"""What all commands share: their options, how a job is run, and how its report is shown."""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from churnkit.cutoffs import moment
from churnkit.errors import BusyError, ChurnkitError

if TYPE_CHECKING:
    from churnkit.jobs import Report

TODAY = "today"
WIDTH = 118
"""Columns of what is printed into a file or a pipe."""
Folder = Annotated[Path, typer.Argument(help="The workspace: the folder of churnkit.toml.")]
At = Annotated[str, typer.Option("--at", help="The cutoff, such as 2026-11-01: nothing after it is seen.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead of a table.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")]
Targets = Annotated[list[str] | None, typer.Option("--target", help="Only this target; may be repeated.")]
HERE = Path()


def cutoff(text: str) -> dt.datetime:
    """The cutoff that the command line names; the only place where the wall clock is read."""
    return moment(f"{dt.datetime.now(dt.UTC):%Y-%m-%d}" if text == TODAY else text)


def do(job: Callable[[], Report], as_json: bool) -> None:
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
