"""Running a notebook by this very interpreter, and what came out of it."""

import base64
import json
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "notebooks"


def load(name: str) -> nbformat.NotebookNode:
    """A notebook as it is committed."""
    return nbformat.read(FOLDER / name, as_version=4)


def run(name: str, folder: Path) -> nbformat.NotebookNode:
    """The notebook after a run in a folder of its own."""
    spec = folder / "kernels" / "here"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(json.dumps({
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "here", "language": "python"}))
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR", "TMPDIR"):
            (folder / variable.lower()).mkdir()
            patch.setenv(variable, str(folder / variable.lower()))
        patch.chdir(folder)
        patch.setenv("JUPYTER_PATH", str(folder))
        notebook = load(name)
        NotebookClient(notebook, kernel_name="here", timeout=600).execute()
    return notebook


def sources(notebook: nbformat.NotebookNode) -> list[str]:
    """The text of its code cells."""
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """All that its code cells gave."""
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    """The lines that it printed."""
    return [line for output in outputs(notebook) for line in output.get("text", "").splitlines()]


def check_run(notebook: nbformat.NotebookNode) -> None:
    """Every cell ran, and none of them wrote to stderr."""
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert [output for output in outputs(notebook) if output.output_type == "error"] == []
    assert [output.text for output in outputs(notebook) if output.get("name") == "stderr"] == []


def check_figures(notebook: nbformat.NotebookNode, count: int) -> None:
    """Each figure is there once, as a picture that is not blank."""
    pictures = [base64.b64decode(output.data["image/png"]) for output in outputs(notebook)
                if "image/png" in output.get("data", {})]
    assert len(pictures) == count
    assert len(set(pictures)) == count
    assert min(map(len, pictures)) > 5_000


def check_committed(notebook: nbformat.NotebookNode) -> None:
    """The file holds no outputs and no counts, so that a change of it is a change of what it says."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in code] == [[]] * len(code)
    assert [cell.execution_count for cell in code] == [None] * len(code)
    assert notebook.metadata.kernelspec.name == "python3"
