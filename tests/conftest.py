"""Fixtures shared by all rooms: a small simulated book, written once per session."""

from __future__ import annotations

import gc
import hashlib
import os
import shutil
import sys
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GOLDEN = Path(os.environ.get("CHURNKIT_GOLDEN", ROOT.parent / "shared" / "golden"))
REAL_DATA = Path(os.environ.get("CHURNKIT_REAL_DATA", ROOT.parent / "shared" / "data"))
SESSION = {
    "spark.master": "local[2]", "spark.driver.memory": "1g", "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false", "spark.sql.shuffle.partitions": "2",
    # A few hundred rows are added up sooner than the code that would do it quickly is compiled.
    "spark.sql.adaptive.enabled": "false", "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}


def pytest_collection_finish():
    """What collection imported stays to the end: the garbage collector need not walk over it again and again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    """At the end it is let go as it would have been."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of the worked example; skips where it is absent."""
    if not GOLDEN.is_dir():
        pytest.skip(f"the golden workspace is not at {GOLDEN}; set CHURNKIT_GOLDEN to run this test")
    return GOLDEN


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of third-party data; skips where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"the third-party data are not at {REAL_DATA}; set CHURNKIT_REAL_DATA to run this test")
    return REAL_DATA


@pytest.fixture
def postgres():
    """The address of an empty PostgreSQL database of one's own; skips where no server answers."""
    import sqlalchemy as sa

    named = os.environ.get("CHURNKIT_TEST_POSTGRES", "postgresql://root@127.0.0.1:5432/postgres")
    url = sa.make_url(named).set(drivername="postgresql+psycopg")
    name = "churnkit_" + hashlib.sha256(uuid.uuid4().bytes).hexdigest()[:16]
    try:
        server = sa.create_engine(url, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 3})
        with server.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
    except (sa.exc.OperationalError, ImportError) as error:
        pytest.skip(f"no PostgreSQL at CHURNKIT_TEST_POSTGRES: {str(error).splitlines()[0][:120]}")
    yield url.set(database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    server.dispose()


@pytest.fixture(scope="module")
def spark(tmp_path_factory):
    """A session of this machine for the whole suite; skips where Spark or Java is absent."""
    sql = pytest.importorskip("pyspark.sql", reason="pyspark is not installed; `make test-spark` installs it")
    java = Path(os.environ.get("JAVA_HOME", "/nowhere")) / "bin" / "java"
    if not shutil.which("java") and not java.is_file():
        pytest.skip("there is no Java; Spark needs 17: set JAVA_HOME, or install a JRE")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = sql.SparkSession.builder.config("spark.sql.warehouse.dir", str(tmp_path_factory.mktemp("warehouse")))
    for name, value in SESSION.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()
