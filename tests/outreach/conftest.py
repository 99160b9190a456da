"""The room's fixtures: policies, and an outbox on each database."""

import pytest

from churnkit.outreach.outbox import Outbox
from churnkit.outreach.policy import Policy


@pytest.fixture
def policy():
    """The default policy without a control group or helping colleagues, so that each test says what it needs."""
    data = Policy.default().model_dump()
    return Policy(**{**data, "control": {"share": 0.0}, "capacity": {**data["capacity"], "colleagues": 0}})


@pytest.fixture
def change():
    """A policy with some sections changed."""

    def make(base, **sections):
        data = base.model_dump()
        return Policy(**{key: {**value, **sections[key]} if key in sections else value for key, value in data.items()})

    return make


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """An empty database of one's own, on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'outbox.db'}"
        return
    yield request.getfixturevalue("postgres")


@pytest.fixture
def outbox(url):
    box = Outbox(url)
    yield box
    box.close()
