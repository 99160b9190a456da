"""Environments of their own for contenders that are no dependencies of the project."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def apart(name: str, requirements: str) -> Path:
    """The Python of an environment beside the project, `.NAME`, with the pins of that file; made at the first need."""
    home = HERE.parent.parent / f".{name}"
    if not (home / "bin" / "python").exists():
        uv = Path(sys.executable).parent / "uv"
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, home], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", home / "bin" / "python", "-r",
                        HERE / requirements], check=True)
    return home / "bin" / "python"
