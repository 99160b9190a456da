"""What connectors ask of `[crm_options]`: no unknown names, numbers within bounds, and hosts of this machine alone."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping, Sequence

from churnkit.errors import SettingsError, did_you_mean


def refuse_unknown(options: Mapping[str, str], known: Sequence[str], crm: str) -> None:
    """An option that the connector does not know is an error.

    Raises:
        SettingsError: Names the nearest one that it knows.
    """
    for name in options:
        if name not in known:
            raise SettingsError(f"[crm_options] '{name}' is unknown to {crm}.{did_you_mean(name, known)} Known: "
                                f"{', '.join(known)}.")


def number(options: Mapping[str, str], name: str, default: float, least: float, most: float) -> float:
    """An option that is a number; the default where it is left out.

    Raises:
        SettingsError: If it is none, or not from `least` to `most`.

    >>> number({"timeout": "5"}, "timeout", 30, 0.1, 600), number({}, "timeout", 30, 0.1, 600)
    (5.0, 30.0)
    """
    text = options.get(name, str(default))
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not least <= found <= most:
        raise SettingsError(f"[crm_options] {name}: '{text[:40]}' is no number from {least:g} to {most:g}. Mend it, or "
                            f"leave it out: it is {default:g} then.")
    return found


def whole(options: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    """The same for a whole number.

    Raises:
        SettingsError: If it is none, or not from `least` to `most`.
    """
    found = number(options, name, default, least, most)
    if found != int(found):
        raise SettingsError(f"[crm_options] {name}: '{options[name][:40]}' is no whole number. Mend it, or leave it "
                            f"out: it is {default} then.")
    return int(found)


def loopback(host: str) -> bool:
    """Whether only this machine reaches it.

    >>> loopback("127.0.0.1"), loopback("::1"), loopback("localhost"), loopback("0.0.0.0")
    (True, True, True, False)
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
