"""A message as its writer's own words, and those as plain tokens; every step is linear in the text's length (RE2)."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

LONGEST = 20_000
"""Characters of a message that are read: what stands below is a log, a table or an earlier mail."""
SHOUTED, CAPITALS = "‼", "⇧"
"""Tokens that stand for several exclamation marks, and for words in capitals."""

_MARKUP = (
    (r"(?is)<(?:style|script|head)\b.*?</(?:style|script|head)\s*>", " "),
    (r"(?is)<blockquote\b.*", " "),  # an earlier mail; what follows it is its signature
    (r"(?i)<(?:br|/p|/div|/li|/tr|/h[1-6])\b[^<>]*>", "\n"),
    (r"</?[a-zA-Z!][^<>]*>", " "),
)
_QUOTED = r"(?m)^[ \t]*>[^\n]*$"
_SIGNATURE = r"(?s)(?:^|\n)-- ?\r?\n.*"
_CAPS = r"\p{Lu}[\p{Lu}\p{Mn}'-]"
_RUN = rf"(^|[^\p{{L}}\p{{N}}_])((?:{_CAPS}* ){{2,}}{_CAPS}+|{_CAPS}{{3,}} {_CAPS}{{3,}})"
"""Three words in capitals, or two long ones: two short ones are mostly names (PDF, CSV)."""
_LETTERS = (("ß", "ss"), ("æ", "ae"), ("œ", "oe"), ("ø", "o"), ("ł", "l"), ("đ", "d"))


def own_words(texts: pd.Series[Any] | pa.Array, headers: Iterable[tuple[str, str]] = ()) -> pa.Array:
    r"""What a customer wrote anew in each message: without markup, quoted mails and signatures.

    Args:
        texts: Messages; anything that is no text is taken as its text, missing stays missing.
        headers: How a line begins and ends that stands above an earlier mail; a `*` at the end allows anything after.

    Returns:
        One text each, at most LONGEST characters of the message read; missing where nothing is left.

    >>> own_words(pd.Series(["Still broken<br>Anna\n> Did it help?\n-- \nAnna, Harbour Foods", " "])).to_pylist()
    ['Still broken\nAnna', None]
    """
    words = pc.utf8_slice_codeunits(texts_of(texts), 0, LONGEST)
    for sign, by in (("\x00", " "), (CAPITALS, " "), ("\r\n", "\n")):
        words = pc.replace_substring(words, sign, by)
    words = _where(words, "[<&]", _unmarked)
    above = "|".join(_header(*ends) for ends in headers)
    if above:
        words = _where(words, f"(?im)^(?:{above})", lambda some: _unquoted(some, above))
    words = pc.replace_substring_regex(words, _QUOTED, "")
    words = pc.utf8_trim_whitespace(pc.replace_substring_regex(words, _SIGNATURE, ""))
    return pc.if_else(pc.equal(words, ""), pa.scalar(None, pa.string()), words)


def tokens(words: pa.Array, loud: str = "") -> pa.Array:
    """Texts as lower-case words without accents, each between blanks of its own; ends of sentences are '.'.

    Several exclamation marks become SHOUTED; CAPITALS stands before a run of words in capitals, and before a word that
    `loud` (a pattern) matches.

    >>> tokens(pa.array(["I can't log in, AGAIN!!"]), "AGAIN").to_pylist()
    [' .  i  cant  log  in  ,  ⇧  again  ‼  . ']
    """
    text = words
    for mark in ("’", "‘", "`", "´"):
        text = pc.replace_substring(text, mark, "'")
    text = pc.utf8_normalize(text, "NFKD")
    text = pc.replace_substring_regex(text, _RUN, rf"\1 {CAPITALS} \2")
    if loud:
        alone = rf"(^|[^\p{{L}}\p{{N}}_{CAPITALS}])({loud})($|[^\p{{L}}\p{{N}}\p{{Mn}}_])"
        text = pc.replace_substring_regex(text, alone, rf"\1 {CAPITALS} \2\3")
    text = pc.replace_substring_regex(text, r"[!?]*(?:! ?[!?]|\?!)[!? ]*", f" {SHOUTED} . ")
    text = pc.utf8_lower(pc.replace_substring_regex(text, r"\p{Mn}+", ""))
    for letter, plain in _LETTERS:
        text = pc.replace_substring(text, letter, plain)
    text = pc.replace_substring_regex(text, r"(\pL)'t\b", r"\1t")
    text = pc.replace_substring_regex(text, r"[.:;?!…。！？]+(?:[\s\"')»”]|$)|[?!]+|\n\s*\n", " \x01 ")
    text = pc.replace_substring_regex(text, f"[^\\pL\\pN\\p{{So}}{SHOUTED},\x01]+", " ")
    text = pc.replace_substring_regex(text, r"([,\x01\p{So}‼])", r" \1 ")
    text = pc.replace_substring(pc.replace_substring_regex(text, r" +", "  "), "\x01", ".")
    return pc.replace_substring_regex(pc.binary_join_element_wise(" .  ", pc.utf8_trim_whitespace(text), " ", ""),
                                      r"  $", " ")


def texts_of(texts: pd.Series[Any] | pa.Array) -> pa.Array:
    """Anything as Arrow text; lone halves of surrogate pairs become question marks."""
    if isinstance(texts, (pa.Array, pa.ChunkedArray)):
        return texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    missing = texts.isna()
    values = [None if gone else str(text).encode("utf-8", "replace").decode()
              for text, gone in zip(texts, missing, strict=True)]
    return pa.array(values, pa.string())


def _where(texts: pa.Array, pattern: str, change: Any) -> pa.Array:
    """The texts, with those that match changed: most messages need none of the slower steps."""
    mask = pc.fill_null(pc.match_substring_regex(texts, pattern), fill_value=False)
    return pc.replace_with_mask(texts, mask, change(texts.filter(mask))) if pc.any(mask).as_py() else texts


def _unmarked(texts: pa.Array) -> pa.Array:
    """Without HTML; an entity is the sign that it stands for."""
    for pattern, by in _MARKUP:
        texts = pc.replace_substring_regex(texts, pattern, by)
    return pa.array([html.unescape(text) for text in texts.to_pylist()], pa.string())


def _unquoted(texts: pa.Array, above: str) -> pa.Array:
    """Without earlier mails: the header with the marked lines below it; with none below it, all that follows."""
    texts = pc.replace_substring_regex(texts, rf"(?im)^(?:{above})\s*\n(?:[ \t]*\n)*(?:[ \t]*>[^\n]*(?:\n|\z))+", "\n")
    return pc.replace_substring_regex(texts, rf"(?ims)^(?:{above})[ \t]*$.*", "")


def _header(begins: str, ends: str) -> str:
    """One kind of header line, which may be broken once; one with two ends names a date, so it holds a digit."""
    if not ends:
        return rf"{re.escape(begins)}[^\n]*"
    if begins.startswith("-"):
        return rf"{re.escape(begins)}[^\n]*{re.escape(ends.rstrip('*'))}[^\n]*"
    tail = re.escape(ends.rstrip("*")) + (r"[^\n]*" if ends.endswith("*") else "")
    return rf"{re.escape(begins)}[^\n]*\d[^\n]*(?:\n[^\n]+)?{tail}"
