"""docs/connectors.md: its connector passes its own suite, as it is printed there."""

import re
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent.parent / "docs" / "connectors.md").read_text(encoding="utf-8")
CONNECTOR, WORLD = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def _module(name, source):
    module = type(sys)(name)
    sys.modules[name] = module
    exec(compile(source, f"docs/connectors.md:{name}", "exec"), module.__dict__)  # noqa: S102 - our own page
    return module


_module("tiny_connector", CONNECTOR)
page = _module("tiny_world", WORLD)


class TestTiny(page.TestTiny):
    """The suite, on both databases."""

    @pytest.fixture(params=["sqlite", "postgresql"])
    def url(self, request, tmp_path):
        """The outbox's database."""
        return request.getfixturevalue("postgres") if request.param == "postgresql" else \
            f"sqlite:///{tmp_path / 'outbox.db'}"
