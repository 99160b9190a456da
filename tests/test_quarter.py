"""The notebook of one quarter runs, draws its plots, and its story holds: plan, work, outcome, effect, next plan."""

import re

import nbformat
import pytest
from executed import check_committed, check_figures, check_run, load, outputs, printed, run, sources

NAME = "quarter.ipynb"
FIGURES = 9


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> nbformat.NotebookNode:
    """The notebook after a run."""
    return run(NAME, tmp_path_factory.mktemp("quarter"))


def found(done, pattern):
    """The numbers of the one printed line that fits."""
    lines = [match for line in printed(done) if (match := re.search(pattern, line))]
    assert len(lines) == 1, pattern
    return [float(one) for one in lines[0].groups()]


def test_it_runs_without_an_error_or_a_warning(done):
    """Every cell ran, and none of them wrote to stderr."""
    check_run(done)


def test_it_draws_its_figures(done):
    """Each figure is there once, as a picture that is not blank."""
    check_figures(done, FIGURES)


def test_the_quarter_is_planned_worked_on_and_planned_again(done):
    """Tasks were sent and ghosts kept, most tasks were answered, and the next plan closes and opens some."""
    tasks, ghosts, _ = found(done, r"^(\d+) tasks, (\d+) kept unsent for the control group, (\d+) held")
    answered, of, reached, by_hand = found(
        done, r"^(\d+) of (\d+) tasks answered, (\d+) customers reached, (\d+) of the control group")
    assert min(tasks, ghosts) >= 10
    assert of == tasks
    assert 0.6 * of < answered <= of
    assert 0.5 * of < reached <= of + by_hand
    new, closed = found(done, r"^(\d+) new tasks, \d+ ghosts, (\d+) open ones")
    assert min(new, closed) > 0


def test_a_quarter_of_a_small_book_claims_little(done):
    """The table of differences is shown, and its verdict is that there are too few."""
    tables = [output.data["text/html"] for output in outputs(done) if "n_control" in str(output.get("data", {}))]
    assert len(tables) == 1
    assert "too few" in tables[0]


def test_the_truth_is_shown_beside_it(done):
    """A call helps most of those who got one, and turns less than all of the loss."""
    called, leave, turned = found(done, r"^Of the (\d+) customers .* task ([\d.]+) were to leave; .* turns ([\d.]+) of")
    assert called > leave > turned > 0


def test_it_shows_a_brief_and_nothing_private():
    """One brief as Markdown; no name that begins with an underscore."""
    text = "\n".join(sources(load(NAME)))
    assert text.count("Markdown(f") == 1
    assert re.findall(r"\w\._(?!_)\w+", text) == []


def test_it_is_committed_without_outputs():
    """The file holds no outputs and no counts, so that a change of it is a change of what it says."""
    check_committed(load(NAME))
