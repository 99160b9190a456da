"""What the docs say is run: docstring examples, the README's commands, and the words that may never stand there."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

import churnkit
from churnkit.cli import app

ROOT = Path(__file__).parent.parent
MODULES = sorted(module.name for module in pkgutil.walk_packages(churnkit.__path__, "churnkit.")
                 if not module.name.endswith("scorer") and ".workspace" not in module.name)


@pytest.mark.parametrize("name", ["churnkit", *MODULES])
def test_docstring_examples(name):
    """Every example in a docstring gives what it says."""
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS).failed == 0


@pytest.mark.parametrize("file", ["README.md", "CHANGELOG.md"])
def test_the_wrong_package_is_never_named_for_install(file):
    """`churnkit` on the package index is somebody else's."""
    assert not re.search(r"pip install churnkit(?!-outreach)", (ROOT / file).read_text())


def test_every_command_has_an_example():
    """Each command's help holds an example that starts with its own name."""
    for command in app.registered_commands:
        name = (command.name or command.callback.__name__).rstrip("_")
        shown = CliRunner().invoke(app, [name, "--help"]).output
        assert f"Example: churnkit {name}" in shown, name


def test_every_command_in_the_readme_exists():
    """The README calls no command that the program lacks."""
    known = {(command.name or command.callback.__name__) for command in app.registered_commands}
    used = set(re.findall(r"^\$ churnkit ([a-z]+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE))
    assert used <= known
