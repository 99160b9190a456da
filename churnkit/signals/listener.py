"""A workspace's own judge of moods: `[text] polarity = "package.module:function"`, called with care."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from churnkit.errors import SettingsError
from churnkit.settings import Settings

Judge = Callable[["pd.Series[str]"], npt.NDArray[np.float64]]


def listener(settings: Settings) -> Judge:
    """The function that `[text] polarity` names, with its answers checked.

    It is called with a Series of different texts, and gives one number in [-1, 1] for each in their order, or missing.
    What it is given stands in no error: not even in one that it raises itself.

    Raises:
        SettingsError: If it is not there, or is code of the workspace's own folder and `allow_code` is not set; and,
            when called, if it fails or gives anything else than asked for.
    """
    name = settings.text.polarity
    module, _, attribute = name.partition(":")
    found = getattr(_module(module, settings), attribute, None)
    if not callable(found):
        raise SettingsError(f"[text] polarity: '{module}' has no function '{attribute}'. Correct the name after ':'.")

    def judge(texts: pd.Series[str]) -> npt.NDArray[np.float64]:
        answer, failed = _call(found, texts)
        if failed:
            raise SettingsError(f"[text] polarity: '{name}' failed with {failed}. Mend it, or take the key out of "
                                "churnkit.toml. (Its message is not shown: it might hold a customer's words.)")
        return _checked(answer, len(texts), name)

    return judge


def _call(found: Callable[[Any], Any], texts: pd.Series[str]) -> tuple[Any, str]:
    """Its answer, or what it failed with: the kind of error and the line, not its message, which may hold a text."""
    try:
        return found(texts.copy()), ""
    except Exception as error:  # noqa: BLE001 - somebody's code may raise anything
        last = traceback.extract_tb(error.__traceback__)[-1]
        return None, f"{type(error).__name__} at line {last.lineno} of {Path(last.filename).name}"


def _checked(answer: Any, asked: int, name: str) -> npt.NDArray[np.float64]:
    many = len(answer) if hasattr(answer, "__len__") and not isinstance(answer, str) else None
    if many != asked:
        given = f"{many} values" if many is not None else f"a {type(answer).__name__}"
        raise SettingsError(f"[text] polarity: '{name}' gave {given} for {asked} texts. Let it give a Series with one "
                            "number for each, in their order.")
    try:
        scores = np.asarray(pd.Series(answer).astype("float64"), dtype="float64")
    except (TypeError, ValueError):
        scores = None
    if scores is None:
        raise SettingsError(f"[text] polarity: '{name}' gave values that are no numbers. Let it give numbers in "
                            "[-1, 1], and missing where it hears nothing.")
    wrong = int((np.abs(scores) > 1).sum())
    if wrong:
        raise SettingsError(f"[text] polarity: '{name}' gave {wrong} of {asked} values outside [-1, 1]. Scale them: -1 "
                            "is angry, 0 neutral, 1 happy.")
    return scores


def _module(module: str, settings: Settings) -> Any:
    """The module; one that lies in the workspace's folder is its own code, wherever else the name may be found."""
    first = settings.root / module.split(".", 1)[0]
    if first.with_suffix(".py").is_file() or first.is_dir():
        return _own(module, settings)
    failed = ""
    try:
        return importlib.import_module(module)
    except Exception as error:  # noqa: BLE001 - a module's own code runs at import
        if not (isinstance(error, ModuleNotFoundError) and module.startswith(str(error.name))):
            failed = f"cannot be imported ({type(error).__name__}: {error}). Mend it"
    raise SettingsError(f"[text] polarity: '{module}' " + (failed or f"is not there. Install the package, or put "
                        f"{module.split('.', 1)[0]}.py beside churnkit.toml and set allow_code = true") + ".")


def _own(module: str, settings: Settings) -> Any:
    file = settings.root.joinpath(*module.split(".")).with_suffix(".py")
    if not settings.allow_code:
        raise SettingsError(f"[text] polarity: '{module}' is code of this workspace, which would be run. Set "
                            "allow_code = true if you trust it.")
    if not file.is_file():
        raise SettingsError(f"[text] polarity: there is no '{file}'. Correct the name before ':', or put the file "
                            "there.")
    spec = importlib.util.spec_from_file_location(f"churnkit_workspace_{module.replace('.', '_')}", file)
    if spec is None or spec.loader is None:
        raise SettingsError(f"[text] polarity: '{file}' cannot be read as Python. Make it a module.")
    made = importlib.util.module_from_spec(spec)
    failed = ""
    sys.modules[spec.name] = made  # dataclasses and the like look their module up
    try:
        spec.loader.exec_module(made)
    except Exception as error:  # noqa: BLE001 - somebody's code may raise anything
        line = error.lineno if isinstance(error, SyntaxError) else traceback.extract_tb(error.__traceback__)[-1].lineno
        failed = f"{type(error).__name__} at line {line}: {error}"
    if failed:
        raise SettingsError(f"[text] polarity: '{file}' failed when it was read ({failed}). Mend that line.")
    return made
