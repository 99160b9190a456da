"""A model's files and what is told of it: hashes that they are held to before any is read, figures, tables, plots."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightgbm

from churnkit.errors import ModelError
from churnkit.learning.training import Trained

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


def texts(folder: Path, parts: Mapping[str, str]) -> dict[str, Path]:
    """Writes a model's texts to a new folder; where each lies, by the name that scorer.py knows it by."""
    folder.mkdir()
    for file, text in parts.items():
        (folder / file).write_text(text, encoding="utf-8")
    return {{"model.txt": "text", "model.json": "json"}.get(file, file): folder / file for file in parts}


def write(root: Path, trained: Trained) -> None:
    """What lies beside the model in its run: the fits that the test period was kept from, tables and plots."""
    texts(root / "holdout", trained.holdout_parts())
    trained.evaluation.table.to_csv(root / "evaluation.csv")
    trained.evaluation.plot().savefig(root / "evaluation.png", dpi=90)
    if trained.curve:
        trained.curve.evaluation.horizons.to_csv(root / "curve.csv")


def params(trained: Trained) -> dict[str, Any]:
    """What the run did: cuts in time, sizes, settings, verdicts."""
    found = {
        **trained.splits.to_dict(), "seed": trained.model.seed,
        "rounds": trained.model.rounds, "features": len(trained.model.features), "rows": len(trained.data),
        "positives": trained.data.positives, "calibration": trained.model.calibration.kind,
        "dropped": json.dumps(dict(trained.data.dropped)), "lightgbm": lightgbm.__version__,
        "trials": len(trained.trials),
        **{f"lightgbm.{key}": value for key, value in trained.holdout.booster_.params.items()},
        "notes": "; ".join(trained.model.notes), "verdict": trained.evaluation.says(),
    }
    if trained.curve:
        found |= {"curve.verdict": trained.curve.evaluation.says(), "curve.rounds": trained.curve.curve.rounds}
    return found | {f"{one.what}.verdict": one.says() for one in trained.beside}


def metrics(trained: Trained) -> dict[str, float]:
    """Every figure of the test period, by a flat name."""
    found = trained.evaluation.metrics() | (trained.curve.evaluation.metrics() if trained.curve else {})
    return found | {name: value for one in trained.beside for name, value in one.metrics().items()}


def gain(trained: Trained) -> float:
    """How much lower the model's log loss is than the base rate's, on its test period."""
    return trained.evaluation.figure("log_loss", "base_rate") - trained.evaluation.figure("log_loss", "model")


def proven(trained: Trained) -> list[str]:
    """What stands beside the model and has proven skill, by name."""
    curve = ["curve"] if trained.curve and trained.curve.evaluation.skill else []
    return [*curve, *(one.what for one in trained.beside if one.skill)]
