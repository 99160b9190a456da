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
from churnkit.jobs import definitions

ROOT = Path(__file__).parent.parent
MODULES = sorted(module.name for module in pkgutil.walk_packages(churnkit.__path__, "churnkit.")
                 if not module.name.endswith("scorer") and ".workspace" not in module.name)


@pytest.mark.parametrize("name", ["churnkit", *MODULES])
def test_docstring_examples(name):
    """Every example in a docstring gives what it says."""
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS).failed == 0


@pytest.mark.parametrize("file", ["README.md", "CHANGELOG.md", "docs/own_features.md", "docs/features.md"])
def test_the_wrong_package_is_never_named_for_install(file):
    """`churnkit` on the package index is somebody else's."""
    assert not re.search(r"pip install churnkit(?!-outreach)", (ROOT / file).read_text())


def commands() -> list[tuple[str, ...]]:
    """Every command as the words that call it, those of groups too."""
    alone = [((one.name or one.callback.__name__).rstrip("_"),) for one in app.registered_commands]
    named = {group.name if isinstance(group.name, str) else group.typer_instance.info.name: group.typer_instance
             for group in app.registered_groups}
    grouped = [(name, one.name or one.callback.__name__) for name, group in named.items()
               for one in group.registered_commands]
    return [*alone, *grouped]


def test_features_without_another_word_computes():
    """`churnkit features FOLDER --at DATE` is the command that it was before it had company."""
    shown = CliRunner().invoke(app, ["features", "no-such-folder", "--at", "2026-11-01"])
    assert shown.exit_code == 1
    assert "churnkit init" in shown.output
    assert "--at" in CliRunner().invoke(app, ["features", "--help"]).output


def test_the_list_of_features_is_current():
    """docs/features.md says what the definitions say."""
    assert (ROOT / "docs" / "features.md").read_text(encoding="utf-8") == definitions.markdown(), (
        "docs/features.md is out of date; run: make docs")


def test_every_command_has_an_example():
    """Each command's help holds an example that starts with its own name."""
    for words in commands():
        shown = " ".join(CliRunner().invoke(app, [*words, "--help"]).output.split())
        assert f"Example: churnkit {' '.join(words).removesuffix(' compute')}" in shown, words


def test_every_command_in_the_readme_exists():
    """The README calls no command that the program lacks."""
    known = {words[0] for words in commands()}
    used = set(re.findall(r"^\$ churnkit ([a-z]+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE))
    assert used <= known
