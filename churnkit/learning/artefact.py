"""What a model's files are held to: a hash of the model itself, and one of each file, checked before any is read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from churnkit.errors import ModelError

_SETTINGS = "\nparameters:"
"""Where in LightGBM's text the trees end, and the settings that they were grown with begin: threads, files, devices."""


def digest(data: bytes) -> str:
    """SHA-256, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def model_hash(parts: Mapping[str, str]) -> str:
    r"""One hash of a model's texts: of the trees and the JSON, whatever number of threads grew them.

    LightGBM's text ends with the parameters of the fit, the number of threads among them: they do not count.

    >>> trees = "tree\nleaf_value=1"
    >>> one, two = (model_hash({"model.txt": f"{trees}\nparameters: [num_threads: {n}]"}) for n in (1, 2))
    >>> one == two, one == model_hash({"model.txt": "tree\nleaf_value=2"})
    (True, False)
    """
    plain = {file: text.partition(_SETTINGS)[0] if file.endswith(".txt") else text for file, text in parts.items()}
    return digest("\0".join(f"{file}\0{digest(plain[file].encode())}" for file in sorted(plain)).encode())


def hashes(folder: Path) -> dict[str, str]:
    """The hash of each file below a folder, by its path there."""
    return {path.relative_to(folder).as_posix(): digest(path.read_bytes())
            for path in sorted(folder.rglob("*")) if path.is_file()}


def verified(root: Path, expected: Mapping[str, str], version: str) -> dict[str, bytes]:
    """The files below `root`, after each was held against the hash that the registry holds; none is parsed before.

    Raises:
        ModelError: If a file was changed, added or is missing.
    """
    found = {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
    for file in sorted({*expected, *found}):
        what = ("is missing" if file not in found else "does not belong there" if file not in expected
                else "was changed" if digest(found[file]) != expected[file] else "")
        if what:
            raise ModelError(f"{version}: '{file}' {what} since it was registered, so the model is not trusted. "
                             f"Restore '{root}' from a backup, or train again: churnkit train.")
    return found
