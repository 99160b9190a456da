"""docs/connectors.md: its connector passes its own suite, as it is printed there."""

import re
import sys
from pathlib import Path

import pytest
from databases import BothDatabases

from churnkit.errors import SettingsError
from churnkit.outreach.crm.base import connect
from churnkit.testing.kills import Kills
from churnkit.testing.samples import CANARY

PAGE = (Path(__file__).parent.parent.parent / "docs" / "connectors.md").read_text(encoding="utf-8")
CONNECTOR, WORLD = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def _module(name, source):
    module = type(sys)(name)
    sys.modules[name] = module
    exec(compile(source, f"docs/connectors.md:{name}", "exec"), module.__dict__)  # noqa: S102 - our own page
    return module


_module("tiny_connector", CONNECTOR)
page = _module("tiny_world", WORLD)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The connector as a package of its own, with its entry point: what another process finds."""
    folder = tmp_path_factory.mktemp("installed")
    (folder / "tiny_connector.py").write_text(CONNECTOR)
    about = folder / "tiny_connector-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-connector\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[churnkit.crm]\ntiny = tiny_connector:connect\n")
    return folder


def test_it_is_found_by_its_entry_point(installed, monkeypatch):
    """A package that is installed plugs in by its name; a wrong name is told the nearest."""
    monkeypatch.syspath_prepend(installed)
    monkeypatch.setenv("CHURNKIT_TINY_TOKEN", "x")
    assert connect("tiny", {"url": "http://127.0.0.1:1", "portal": "tiny-1"}).name == "tiny"
    with pytest.raises(SettingsError, match="Did you mean 'tiny'"):
        connect("tinny")
    with pytest.raises(SettingsError, match="secrets do not belong"):
        connect("tiny", {"url": "http://127.0.0.1:1", "token": "x"})


class TestTiny(BothDatabases, page.TestTiny, Kills):
    """The suite, on both databases."""

    @pytest.fixture
    def world(self, monkeypatch, installed):
        """Its processes find the connector as an installed package."""
        monkeypatch.setenv("CHURNKIT_TINY_TOKEN", CANARY)
        world = page.TinyWorld()
        world.env = {**world.env, "PYTHONPATH": str(installed)}
        with world.server:
            yield world
