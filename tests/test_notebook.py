"""The notebook runs from top to bottom, says nothing on stderr, draws its plots, and uses public names alone."""

import base64
import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import churnkit

FILE = Path(__file__).parent.parent / "notebooks" / "walkthrough.ipynb"
FIGURES = 8


def _read() -> nbformat.NotebookNode:
    return nbformat.read(FILE, as_version=4)


def _sources(notebook: nbformat.NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> nbformat.NotebookNode:
    """The notebook after a run by this very interpreter, in a folder of its own."""
    folder = tmp_path_factory.mktemp("notebook")
    spec = folder / "kernels" / "here"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(json.dumps({
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "here", "language": "python"}))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR", "TMPDIR"):
            (folder / name.lower()).mkdir()
            patch.setenv(name, str(folder / name.lower()))
        patch.chdir(folder)
        patch.setenv("JUPYTER_PATH", str(folder))
        notebook = _read()
        NotebookClient(notebook, kernel_name="here", timeout=600).execute()
    return notebook


def _outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def test_it_runs_without_an_error_or_a_warning(done):
    """Every cell ran, and none of them wrote to stderr."""
    assert all(cell.execution_count for cell in done.cells if cell.cell_type == "code")
    assert [output for output in _outputs(done) if output.output_type == "error"] == []
    assert [output.text for output in _outputs(done) if output.get("name") == "stderr"] == []


def test_it_draws_its_figures(done):
    """Each figure is there once, as a picture that is not blank."""
    pictures = [base64.b64decode(output.data["image/png"]) for output in _outputs(done)
                if "image/png" in output.get("data", {})]
    assert len(pictures) == FIGURES
    assert len(set(pictures)) == FIGURES
    assert min(map(len, pictures)) > 5_000


def test_it_ends_with_a_task_to_read(done):
    """The brief shown is of a task that the model opened, and putting the tasks twice into the outbox adds nothing."""
    briefs = [output.data["text/markdown"] for output in _outputs(done) if "text/markdown" in output.get("data", {})]
    assert len(briefs) == 1
    assert "Suggested by the model churn" in briefs[0]
    put = [line for output in _outputs(done) for line in output.get("text", "").splitlines() if line.startswith("Put(")]
    assert [re.search(r"new=(\d+), changed=(\d+)", line)[0] for line in put][1] == "new=0, changed=0"
    assert put[0].startswith("Put(new=")
    assert "new=0" not in put[0]


def test_it_uses_public_names_alone():
    """The notebook reaches churnkit by its face only."""
    text = "\n".join(_sources(_read()))
    assert set(re.findall(r"\bck\.(\w+)", text)) <= set(churnkit.__all__)
    assert set(re.findall(r"(?:from|import)\s+churnkit\S*(?! as ck)\b", text)) <= {
        "import churnkit", "from churnkit.simulate"}
    assert re.findall(r"\w\._(?!_)\w+", text) == []


def test_it_is_committed_without_outputs():
    """The file holds no outputs and no counts, so that a change of it is a change of what it says."""
    code = [cell for cell in _read().cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in code] == [[]] * len(code)
    assert [cell.execution_count for cell in code] == [None] * len(code)
    assert _read().metadata.kernelspec.name == "python3"
