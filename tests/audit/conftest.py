"""Fixtures of the audits: a small made-up book with true times, into which the tests plant leaks."""

from __future__ import annotations

from types import MappingProxyType

import pytest
from timed_book import HALF, book, export, read

from churnkit.audit import decay, truncation
from churnkit.signals import compute, streams
from churnkit.signals.groups import FeatureGroup


@pytest.fixture(scope="session")
def frames():
    """The book without its equipment, which most leaks do not need."""
    return {name: rows for name, rows in book().items() if name not in {"assets", "telemetry"}}


@pytest.fixture(scope="session")
def tables(frames):
    """The book as tables."""
    return read(frames)


@pytest.fixture(scope="session")
def half(frames):
    """The book as an export at HALF showed it."""
    return read(export(frames, HALF))


@pytest.fixture
def features(monkeypatch):
    """A function that puts a user's own group and streams in place of ours, for as long as the test runs."""

    def use(group: FeatureGroup, **own: streams.Stream) -> None:
        for module in (compute, truncation, decay):
            monkeypatch.setattr(module, "groups", lambda _: MappingProxyType({group.name: group}))
        monkeypatch.setattr(streams, "STREAMS", MappingProxyType({**streams.STREAMS, **own}))

    return use
