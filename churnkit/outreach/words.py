"""Small words for people: clean names, days, money, counts and chances. Standard library only."""

from __future__ import annotations

import datetime as dt
import math
import re
from typing import Any
from urllib.parse import urlsplit

_TAG = re.compile(r"<[^<>]*>")
_MARKUP = str.maketrans(dict.fromkeys("<>[]`*|\\", ""))


def clean(text: Any, limit: int = 80) -> str:
    r"""One harmless line of at most `limit` characters: no control characters, no HTML, no Markdown, no line breaks.

    >>> clean("Acme <b>Ltd</b>\n(UK)")
    'Acme Ltd (UK)'
    """
    if text is None or (isinstance(text, float) and math.isnan(text)):
        return ""
    flat = str(text)[: 20 * limit]
    flat = flat if flat.isprintable() else "".join(letter if letter.isprintable() else " " for letter in flat)
    flat = " ".join(_TAG.sub("", flat).translate(_MARKUP).split()).lstrip("=+@#- ")
    return flat if len(flat) <= limit else flat[: limit - 1].rstrip() + "…"


def few(text: Any, limit: int, words: int) -> str:
    """One harmless line of at most `limit` characters and `words` words.

    >>> few("one two three four", 80, 3)
    'one two three…'
    """
    line = clean(text, limit)
    parts = line.split(" ")
    if len(line) == limit and line.endswith("…") and len(parts) > 1:  # cut within a word
        parts = parts[:-1]
        line = " ".join(parts).rstrip(".,;: ") + "…"
    return line if len(parts) <= words else " ".join(parts[:words]).rstrip(".,;: ") + "…"


def link(url: Any) -> str:
    """The address if it is a plain web address that cannot break out of its line, else an empty string."""
    text = url if isinstance(url, str) else ""
    if len(text) > 300 or not re.fullmatch(r"https?://[^\s<>\"'()\[\]`|\\]+", text) or not text.isascii():
        return ""
    try:
        return text if urlsplit(text).hostname else ""
    except ValueError:
        return ""


def day(when: dt.date | dt.datetime, *, year: bool = True) -> str:
    """A day as people write it.

    >>> day(dt.date(2026, 11, 1))
    '1 November 2026'
    """
    return f"{when.day} {when:%B}" + (f" {when.year}" if year else "")


def plural(count: int, one: str, many: str = "") -> str:
    """A count with its noun.

    >>> plural(1, "ticket"), plural(3, "ticket")
    ('1 ticket', '3 tickets')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def money(amount: float, currency: str) -> str:
    """An amount that a person can take in: three figures are enough.

    >>> money(12_345.6, "EUR")
    '12,300 EUR'
    """
    size = abs(round(amount))
    step = 10 ** max(len(str(size)) - 3, 0)
    return f"{round(amount / step) * step:,} {currency}".strip()


def listed(parts: list[str]) -> str:
    """Words in a row.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1] if parts else ""
