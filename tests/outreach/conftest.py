"""The room's fixtures: policies, and an outbox on each database."""

import hashlib
import os
import uuid

import pytest
import sqlalchemy as sa

from churnkit.outreach.outbox import Outbox
from churnkit.outreach.policy import Policy

POSTGRES = os.environ.get("CHURNKIT_TEST_POSTGRES", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres")


@pytest.fixture
def policy():
    """The default policy without a control group, so that each test says what it needs."""
    data = Policy.default().model_dump()
    return Policy(**{**data, "control": {"share": 0.0}})


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
    server = sa.create_engine(POSTGRES, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 3})
    name = "churnkit_" + hashlib.sha256(uuid.uuid4().bytes).hexdigest()[:16]
    try:
        with server.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
    except (sa.exc.OperationalError, ImportError) as error:
        pytest.skip(f"no PostgreSQL at CHURNKIT_TEST_POSTGRES: {str(error).splitlines()[0][:120]}")
    yield sa.make_url(POSTGRES).set(database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    server.dispose()


@pytest.fixture
def outbox(url):
    box = Outbox(url)
    yield box
    box.close()
