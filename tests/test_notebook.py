"""The notebook runs from top to bottom, says nothing on stderr, draws its plots, and uses public names alone."""

import re

import nbformat
import pytest
from executed import check_committed, check_figures, check_run, load, outputs, printed, run, sources

import churnkit

NAME = "walkthrough.ipynb"
FIGURES = 8


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> nbformat.NotebookNode:
    """The notebook after a run."""
    return run(NAME, tmp_path_factory.mktemp("notebook"))


def test_it_runs_without_an_error_or_a_warning(done):
    """Every cell ran, and none of them wrote to stderr."""
    check_run(done)


def test_it_draws_its_figures(done):
    """Each figure is there once, as a picture that is not blank."""
    check_figures(done, FIGURES)


def test_it_ends_with_a_task_to_read(done):
    """The brief shown is of a task that the model opened, and putting the tasks twice into the outbox adds nothing."""
    briefs = [output.data["text/markdown"] for output in outputs(done) if "text/markdown" in output.get("data", {})]
    assert len(briefs) == 1
    assert "Suggested by the model churn" in briefs[0]
    put = [line for line in printed(done) if line.startswith("Put(")]
    assert [re.search(r"new=(\d+), changed=(\d+)", line)[0] for line in put][1] == "new=0, changed=0"
    assert put[0].startswith("Put(new=")
    assert "new=0" not in put[0]


def test_it_uses_public_names_alone():
    """The notebook reaches churnkit by its face only."""
    text = "\n".join(sources(load(NAME)))
    assert set(re.findall(r"\bck\.(\w+)", text)) <= set(churnkit.__all__)
    assert set(re.findall(r"(?:from|import)\s+churnkit\S*(?! as ck)\b", text)) <= {
        "import churnkit", "from churnkit.simulate"}
    assert re.findall(r"\w\._(?!_)\w+", text) == []


def test_it_is_committed_without_outputs():
    """The file holds no outputs and no counts, so that a change of it is a change of what it says."""
    check_committed(load(NAME))
