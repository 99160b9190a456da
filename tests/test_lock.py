"""The lock: every package pinned with hashes, no address in it, and in step with pyproject.toml."""

import re
import tomllib

import pytest
from fresh import LOCK, ROOT, locked, pins, uv
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYTHONS = ["3.11", "3.12", "3.13"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _pinned(python: str) -> dict[str, str]:
    """Name and version of all that the lock installs on this machine under a Python."""
    here = {**default_environment(), "python_version": python, "python_full_version": f"{python}.0"}
    found = [Requirement(block.split(" --hash")[0]) for block in locked()]
    return {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in found
            if one.marker is None or one.marker.evaluate(here)}


def _asked() -> list[Requirement]:
    """What pyproject.toml asks for in the dev environment, the project's own extras resolved."""
    extras = PROJECT["optional-dependencies"]
    asked = [Requirement(text) for text in [*PROJECT["dependencies"], *extras["dev"]]]
    own = [name for one in asked if one.name == PROJECT["name"] for name in one.extras]
    asked += [Requirement(text) for name in own for text in extras[name]]
    return [one for one in asked if one.name != PROJECT["name"]]


def test_every_requirement_is_pinned_and_has_a_hash():
    """Each entry is name==version, perhaps a marker, and one SHA-256 or more; there is nothing else in the file."""
    entry = re.compile(r"[a-z0-9.\-]+==\S+( ; [^\\@]+?)?(\s+--hash=sha256:[0-9a-f]{64})+")
    assert [block for block in locked() if not entry.fullmatch(block)] == []
    assert len(locked()) > 50


def test_the_lock_names_no_index_and_no_address():
    """Whoever installs chooses the index; the lock names none, nor any host, path or link."""
    text = LOCK.read_text()
    for word in ("://", "--index-url", "--extra-index-url", "--find-links", "--trusted-host", "file:", " @ ", "-e "):
        assert word not in text


def test_spark_has_a_lock_of_its_own_that_agrees():
    """Spark is pinned apart, with hashes and without addresses; what both locks hold has the same version in both."""
    text = (ROOT / "requirements-spark.lock").read_text()
    assert "://" not in text
    apart = {block.split(" --hash")[0].strip() for block in text.replace("\\\n", " ").splitlines()}
    ours = {block.split(" --hash")[0].strip() for block in locked()}
    names = {re.split("==", entry)[0] for entry in apart - ours}
    assert {"pyspark", "py4j"} <= names
    assert set() == {re.split("==", entry)[0] for entry in ours} & names
    assert text.count("==") == sum("--hash=sha256:" in block for block in text.replace("\\\n", " ").splitlines())


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_holds_what_the_project_asks_for(python):
    """Each dependency of pyproject.toml is in the lock, at a version that it allows."""
    pinned = _pinned(python)
    wrong = {str(one): pinned.get(canonicalize_name(one.name)) for one in _asked()
             if not one.specifier.contains(pinned.get(canonicalize_name(one.name), "0"))}
    assert wrong == {}


@pytest.mark.slow
@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_is_complete(python, tmp_path):
    """Held to the lock's versions, the project resolves under each Python, to nothing but what the lock holds."""
    shown = uv("pip", "compile", "pyproject.toml", "--extra", "dev", "--python-version", python, "--constraints",
               pins(tmp_path), "--no-header", "--no-annotate", "--quiet")
    resolved = dict(line.split(" ")[0].split("==") for line in shown.splitlines())
    assert {name: version for name, version in resolved.items() if _pinned(python).get(name) != version} == {}
    assert "feast" in resolved


@pytest.mark.slow
@pytest.mark.parametrize("python", PYTHONS)
def test_the_project_resolves_anew(python):
    """Without the lock there is still a solution among what the registry has today."""
    shown = uv("pip", "compile", "pyproject.toml", "--extra", "dev", "--python-version", python, "--no-header",
               "--no-annotate", "--quiet")
    assert "feast==" in shown
