"""Where BottleCRM is: an environment of its own inside this one, and the PostgreSQL server that the tests use."""

import os
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "bottlecrm"
sys.path.insert(0, str(EXAMPLE))  # until it is installed somewhere, the example is found where it stands


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """The connector as an installed package, with the entry point that its own pyproject.toml names."""
    about = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    folder = tmp_path_factory.mktemp("installed")
    (folder / "churnkit_bottlecrm.py").write_bytes((EXAMPLE / "churnkit_bottlecrm.py").read_bytes())
    info = folder / f"churnkit_bottlecrm-{about['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n")
    (info / "entry_points.txt").write_text("".join(
        f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in points.items())
        for group, points in about["entry-points"].items()))
    return folder


@pytest.fixture(scope="session")
def bottle(tmp_path_factory):
    """The real BottleCRM, set up by the connector itself; skips where its environment or PostgreSQL is absent."""
    import psycopg
    from bottle_world import Bottle

    python = Path(sys.prefix) / "bottlecrm" / "bin" / "python"
    if not python.exists():
        pytest.skip("BottleCRM is not installed: `make test-bottlecrm` does that where there is a Python 3.12 or "
                    "later, as python3.12 or python3.13 on the PATH or named by BOTTLECRM_PYTHON")
    named = os.environ.get("CHURNKIT_TEST_POSTGRES", "postgresql://root@127.0.0.1:5432/postgres")
    try:
        made = Bottle(python, named, ROOT / "requirements-bottlecrm.lock", tmp_path_factory.mktemp("bottle"))
    except psycopg.OperationalError as error:
        pytest.skip(f"no PostgreSQL at CHURNKIT_TEST_POSTGRES: {str(error).splitlines()[0][:120]}")
    yield made
    made.close()


@pytest.fixture
def organisation(bottle, installed, tmp_path, monkeypatch):
    """An organisation that is set up, without tasks."""
    from bottle_world import BottleWorld
    from churnkit_bottlecrm import TOKEN

    world = BottleWorld(bottle, tmp_path, installed)
    monkeypatch.setenv(TOKEN, world.env[TOKEN])
    with world.server:
        crm = world.connect()
        assert crm.check(mend=True).todo == ()
        crm.close()
        yield world
