"""A person's release: for this evidence and no other, kept with who and why; and what is held can be listed."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import typer
from conftest import AT
from test_faults import lately, missing_day, renamed
from typer.testing import CliRunner

from churnkit.cli import breaker as cli
from churnkit.errors import DataError, OutreachError
from churnkit.jobs import breaker
from churnkit.watch.memory import Memory, Release, Run, recall, release, releases, remember


@pytest.fixture
def command():
    """`churnkit release`, alone."""
    app = typer.Typer()
    app.command()(cli.release)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def test_a_release_lets_this_evidence_go_and_no_other(usage, write, look, workspace):
    """The other target still waits; the same evidence does not hold again, new evidence does."""
    write(missing_day(usage, lately(usage)))
    assert set(look().held) == {"churn", "expansion"}
    done = breaker.release(workspace, "churn", by="Ada Lim", why="the site was down")
    assert done.data["released"] == ["shrunken usage_events 2026-10-28", "shrunken usage_events accounts 2026-10-28"]
    again = look()
    assert (set(again.held), set(again.released)) == ({"expansion"}, {"churn"})
    breaker.release(workspace, "expansion", by="Ada Lim", why="the site was down")
    assert dict(look().held) == {}
    assert dict(look(AT + pd.Timedelta(days=1)).held) == {}
    write(renamed(missing_day(usage, lately(usage)), lately(usage)))
    assert {one.kind for one in look().held["churn"]} == {"kinds"}


def test_what_is_held_is_listed_with_its_words(usage, write, look, workspace, command):
    """Exit code 3 says that work may not go on; after the release it is 0."""
    write(missing_day(usage, lately(usage)))
    look()
    listed = command(workspace)
    assert (3, True) == (listed.exit_code, "0 rows on" in listed.output)
    for target in ("churn", "expansion"):
        assert command(target, workspace, "--by", "Ada Lim", "--why", "the site was down").exit_code == 0
    assert (0, True) == ((done := command(workspace, "--json")).exit_code, json.loads(done.output)["held"] == {})


def test_a_dry_run_leaves_no_trace(usage, write, workspace):
    """Neither a record nor a plot."""
    from churnkit.settings import load
    from churnkit.signals.tables import read_tables

    write(missing_day(usage, lately(usage)))
    settings = load(workspace)
    assert breaker.verdict(settings, read_tables(settings, at=AT), None, AT, remember=False).held
    assert not settings.state.exists()


def test_a_release_needs_a_hold_a_name_and_a_reason(workspace):
    """Each error says what to do."""
    with pytest.raises(OutreachError, match="nothing is held"):
        breaker.release(workspace, "churn", by="Ada Lim", why="all is well")
    with pytest.raises(OutreachError, match="--by NAME --why TEXT"):
        breaker.release(workspace, "churn", by=" ", why="all is well")
    assert breaker.held(workspace).code == 0


def test_releases_are_added_and_never_changed(tmp_path):
    """Each stands with who, when and why; what was held and not released is no history."""
    first, second = (Release("churn", AT, by, "a reason", (f"clock usage_events {by}",)) for by in ("Ada", "Bo"))
    release(tmp_path, first)
    release(tmp_path, second)
    assert (first, second) == releases(tmp_path)
    runs = (Run(AT, held={"churn": first.keys}), Run(AT + pd.Timedelta(days=1), held={"churn": ("alerts churn x",)}))
    memory = Memory(runs, (first, second))
    assert [runs[0]] == memory.trusted("churn")
    assert list(runs) == memory.trusted("expansion")
    assert {runs[1].at} == memory.barred("churn")


def test_a_run_is_kept_as_it_was_and_not_seen_by_an_earlier_one(tmp_path):
    """Once a moment; the record of the same moment is replaced."""
    run = Run(AT, held={"churn": ("a b c",)}, words={"churn": ("Words.",)})
    remember(tmp_path, Run(AT))
    remember(tmp_path, run)
    assert (run,) == recall(tmp_path, AT + pd.Timedelta(seconds=1)).runs
    assert recall(tmp_path, AT).runs == ()
    assert [] == list((tmp_path / "watch" / "runs").glob("*.part"))


def test_a_damaged_record_is_said(tmp_path):
    """And what to do about it."""
    (tmp_path / "watch" / "runs").mkdir(parents=True)
    (tmp_path / "watch" / "runs" / "20261001T000000Z.json").write_text("{")
    with pytest.raises(DataError, match="Remove it"):
        recall(tmp_path, AT)
