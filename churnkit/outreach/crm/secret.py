"""Secrets of connectors: from the environment or from a file that nobody else can read, and never shown."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from churnkit.errors import SettingsError


class Secret:
    """A token that shows itself to nobody by accident: neither in a message nor in a traceback's variables.

    >>> Secret("abc")
    Secret('***')
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The token itself, for the client that sends it."""
        return self._value

    def hidden(self, text: object) -> str:
        """A text in which the token, should it be there, is covered."""
        return str(text).replace(self._value, "***")

    def __repr__(self) -> str:
        """Covered."""
        return "Secret('***')"

    __str__ = __repr__


def secret(name: str, what: str) -> Secret:
    """The secret that the environment variable NAME holds, or the file that NAME_FILE names.

    Args:
        name: Such as CHURNKIT_HUBSPOT_TOKEN.
        what: For the message: "the token of the private app".

    Raises:
        SettingsError: If neither is set, the file cannot be read, is empty, or others than its owner may read it.
    """
    held, path = Secret(os.environ.get(name, "").strip()), os.environ.get(f"{name}_FILE", "").strip()
    if held.reveal() and path:
        raise SettingsError(f"{name} and {name}_FILE are both set: {what} is ambiguous. Unset one of them.")
    if path:
        held = _read(Path(path), name)
    if not held.reveal():
        raise SettingsError(f"{what[:1].upper()}{what[1:]} is missing. Set {name}, or {name}_FILE to a file that only "
                            "you can read.")
    if not held.reveal().isprintable() or not held.reveal().isascii():
        raise SettingsError(f"{name}: holds characters that no token has, such as a line break. Copy it once more.")
    return held


def _read(path: Path, name: str) -> Secret:
    try:
        mode = path.stat().st_mode
        held = Secret(path.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise SettingsError(f"{name}_FILE: '{path}' cannot be read ({reason}). Name the file that holds it.") from None
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SettingsError(f"{name}_FILE: others may read '{path}' (mode {stat.S_IMODE(mode):o}). Run: chmod 600 "
                            f"{path}")
    return held
