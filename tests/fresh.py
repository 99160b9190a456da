"""Fresh environments for tests: uv by this interpreter, with a skip where no package registry answers."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.lock"
_SILENCE = ("error sending request", "Failed to fetch", "dns error", "network connectivity is disabled", "timed out")


def locked() -> list[str]:
    """The lock's requirements, each with its hashes on one line."""
    return LOCK.read_text().replace("\\\n", " ").splitlines()


def pins(folder: Path) -> Path:
    """A file of the lock's versions without hashes, for use as constraints, which install nothing themselves."""
    file = folder / "pins.txt"
    file.write_text("".join(block.split(" --hash")[0] + "\n" for block in locked()))
    return file


def uv(*arguments: str | Path) -> str:
    """Runs uv and gives its stdout; skips where the registry is out of reach, fails on any other trouble."""
    done = subprocess.run([sys.executable, "-m", "uv", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    if done.returncode and any(words in done.stderr for words in _SILENCE):
        pytest.skip(f"no package registry answers: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return done.stdout
