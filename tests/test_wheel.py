"""The wheel, installed into empty environments outside the repository, does everything that the checkout does."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from fresh import LOCK, ROOT, pins, uv

pytestmark = pytest.mark.slow

DEV_ONLY = {"hatchling", "hypothesis", "import-linter", "ipykernel", "nbclient", "openpyxl", "psycopg", "pytest"}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)],
                   check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session", params=["locked", "plain"])
def home(request, wheel, tmp_path_factory) -> Path:
    """A folder with an environment in bin/: with all of the lock, or with nothing but what the wheel asks for."""
    folder = tmp_path_factory.mktemp(request.param)
    python = folder / "venv" / "bin" / "python"
    uv("venv", "--quiet", "--python", sys.executable, folder / "venv")
    if request.param == "locked":
        uv("pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", LOCK)
        uv("pip", "install", "--quiet", "--python", python, "--no-deps", wheel)
    else:
        uv("pip", "install", "--quiet", "--python", python, "--constraints", pins(folder), wheel)
        listed = uv("pip", "list", "--quiet", "--python", python, "--format", "freeze")
        assert DEV_ONLY & {line.split("==")[0] for line in listed.splitlines()} == set()
    (folder / "work").mkdir()
    return folder


def run(home: Path, command: str, *arguments: str, cwd: str = ".") -> str:
    """A command of the environment, in its empty folder and with nothing of ours in the surroundings; gives stdout."""
    bare = {"PATH": os.defpath, "HOME": str(home), "LANG": "C.UTF-8"}
    done = subprocess.run([home / "venv" / "bin" / command, *arguments], cwd=home / "work" / cwd, env=bare,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def workspace(home) -> Path:
    """What `churnkit init` lays down there."""
    run(home, "churnkit", "init", "ws")
    return home / "work" / "ws"


def _texts(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.glob("*"))
            if file.suffix in {".py", ".yaml"}}


def test_the_wheel_holds_the_package_alone(wheel):
    """No tests, no notebooks, no leftovers of runs."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"churnkit", "churnkit_outreach"}
    assert [name for name in names if name.endswith((".pyc", ".ipynb", ".db", ".parquet"))] == []


def test_the_installed_package_is_the_wheels(home):
    """What runs there is the environment's own copy, not this checkout."""
    shown = run(home, "python", "-c", "import churnkit; print(churnkit.__file__)")
    assert Path(shown.strip()).is_relative_to(home / "venv")


def test_help_answers(home):
    """The command is there and lists the jobs."""
    shown = run(home, "churnkit", "--help")
    for job in ("init", "check", "run", "demo"):
        assert job in shown


@pytest.mark.parametrize("folder", ["features", "pipelines"])
def test_the_workspace_gets_the_repositorys_own_files(workspace, folder):
    """One source: the files that `init` lays down are the repository's, byte for byte."""
    assert _texts(ROOT / folder) == _texts(workspace / folder)
    assert _texts(workspace / folder) != {}


def test_feast_applies_in_the_workspace(home, workspace):
    """Feast's own command understands the features folder."""
    shown = run(home, "feast", "apply", cwd="ws/features")
    for service in ("churn", "expansion", "maintenance"):
        assert f"feature service {service}" in shown


def test_the_demo_ends_with_tasks_in_the_crm(home):
    """The whole line, from simulated tables to task files."""
    shown = run(home, "churnkit", "demo", "demo", "--accounts", "200")
    tasks = list((home / "work" / "demo" / "crm" / "tasks").glob("*.json"))
    assert tasks
    assert f"{len(tasks)} created" in shown
