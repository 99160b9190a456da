"""Fixtures of everything that learns: a small training set with a known signal, a run on it, a registry."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
from made_rows import made

from churnkit.learning.targets import CHURN
from churnkit.learning.training import train, training_set


@pytest.fixture(scope="session")
def book():
    """Features and labels, 300 accounts at 20 cutoffs."""
    return made()


@pytest.fixture(scope="session")
def rows(book):
    """The training set of the book."""
    return training_set(CHURN, *book)


@pytest.fixture(scope="session")
def trained(rows):
    """One training run on the book."""
    return train(CHURN, rows)


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory):
    """A tracking database after its migrations, which take ten seconds; tests copy it."""
    from churnkit.learning.registry import Registry

    file = tmp_path_factory.mktemp("mlflow") / "template.db"
    Registry(f"sqlite:///{file}", file.parent / "artifacts")
    return file


@pytest.fixture
def registry(empty_mlflow, tmp_path):
    """A registry of its own for each test."""
    from churnkit.learning.registry import Registry

    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    return Registry(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts")


@pytest.fixture(scope="session")
def weak(rows):
    """A run that sees half of what matters, although the rows have all; its skill is taken for proven."""
    run = train(CHURN, replace(rows, X=rows.X[["events_28d", "mrr"]]))
    return replace(run, evaluation=replace(run.evaluation, skill=True), data=rows)
