"""Fixtures shared by all rooms: a small simulated book, written once per session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GOLDEN = Path(os.environ.get("CHURNKIT_GOLDEN", ROOT.parent / "shared" / "golden"))
REAL_DATA = Path(os.environ.get("CHURNKIT_REAL_DATA", ROOT.parent / "shared" / "data"))


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
