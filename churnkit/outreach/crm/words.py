"""Text made fit for where it goes: a CRM's HTML body, a plain field, a spreadsheet's cell."""

from __future__ import annotations

import html
import unicodedata
from typing import Any

_KEPT = "\n\t"
_ELLIPSIS = " [...]"


def plain(text: str, most: int | None = None) -> str:
    r"""Text without control characters and such as turn the reading direction; cut where it is longer than `most`.

    >>> plain("ring\x00 \u202ethem"), plain("a b c d e f g h", 12)
    ('ring them', 'a b c [...]')
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = "".join(sign for sign in text if sign in _KEPT or unicodedata.category(sign) not in {"Cc", "Cf", "Cs", "Co"}
                   or sign == "\u200d")
    if most is None or len(text) <= most:
        return text
    return text[:most - len(_ELLIPSIS)].rstrip() + _ELLIPSIS


def markup(text: str, most: int | None = None) -> str:
    r"""The same as HTML: everything escaped, lines kept.

    >>> markup("<b>&\nnext")
    '&lt;b&gt;&amp;<br>next'
    """
    made = html.escape(plain(text)).replace("\n", "<br>").replace("\t", " ")
    if most is None or len(made) <= most:
        return made
    return markup(plain(text, int(len(text) * most / len(made)) - len(_ELLIPSIS)))


def cell(value: Any) -> str:
    """A CSV cell that no spreadsheet takes for a formula.

    >>> cell("=1+1")
    "'=1+1"
    """
    text = "" if value is None else str(value)
    risky = text.lstrip().startswith(("=", "+", "-", "@", "\t", "\r")) and not isinstance(value, int | float)
    return f"'{text}" if risky else text
