"""Cues of frustration in a customer's words, counted by lists of phrases: data, one file per language, in cues/."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from churnkit.errors import SettingsError, did_you_mean
from churnkit.fields import LANGUAGES
from churnkit.settings import Settings, read_toml
from churnkit.signals.wording import CAPITALS, SHOUTED, own_words, tokens

CUES = ("repeat", "shouting", "unsolved", "person", "cancel", "competitor", "escalation")
"""What is listened for: a matter that came up before, capitals and exclamation marks, 'still not', a person asked for,
leaving, others' products, and consequences (law, money back, complaints higher up)."""

_SHOUTING = (SHOUTED, CAPITALS)
_GAP = "(?: [^ .,~§]+ ){0,3}"
_OUT, _HEARD = "~", "§"
_TOGETHER = 32
"""Phrases per pattern: RE2's automaton of a few hundred phrases with gaps outgrows its memory, and is 10 x as slow."""
_KINDS = ("glad", "sad", "no", "words")
_MOST = 2_000
"""Phrases per list: what a person can look after."""


Patterns = tuple[str, ...]


@dataclass(frozen=True)
class Lists:
    """The compiled lists: patterns for what reads like a cue and is none, and for each cue.

    `glad`, `sad`, `no` and `known` hold patterns per language: words with a mood, words that deny what follows, and
    the commonest words, by which the language of a message is recognised.
    """

    cues: Mapping[str, Patterns]
    traps: Patterns
    loud: str
    headers: tuple[tuple[str, str], ...]
    glad: Mapping[str, Patterns]
    sad: Mapping[str, Patterns]
    no: Mapping[str, Patterns]
    known: Mapping[str, Patterns]


def count_cues(texts: pd.Series[Any], settings: Settings | None = None) -> pd.DataFrame:
    """How often each cue stands in each message; 0 where there is no text.

    >>> found = count_cues(pd.Series(["This is the third time. I want to speak to a person!", "Works again, thanks"]))
    >>> found.loc[0, ["repeat", "person", "cancel"]].tolist(), int(found.loc[1].sum())
    ([1, 1, 0], 0)
    """
    lists = lists_of(settings or Settings())
    made = tokens(own_words(texts, lists.headers), lists.loud)
    found = {name: counts.to_numpy() for name, counts in counted(made, lists).items()}
    return pd.DataFrame(found, index=texts.index)


def counted(words: pa.Array, lists: Lists) -> dict[str, pa.Array]:
    """How often each cue stands in each text, as int32; the texts as `tokens` gives them."""
    clear = _marked(words, lists.traps, _OUT)
    return {name: occurrences(clear, lists.cues[name]) for name in CUES}


def occurrences(words: pa.Array, patterns: Patterns) -> pa.Array:
    """How often the patterns stand in each text, none of them inside another's place; 0 in a text that is missing."""
    return pc.fill_null(pc.count_substring(_marked(words, patterns, _HEARD), _HEARD), 0)


def _marked(words: pa.Array, patterns: Patterns, mark: str) -> pa.Array:
    """The texts with what the patterns match, one after the other, replaced by a mark."""
    for pattern in patterns:
        mask = pc.fill_null(pc.match_substring_regex(words, pattern), fill_value=False)
        if pc.any(mask).as_py():  # replacing costs ten times what a look does
            changed = pc.replace_substring_regex(words.filter(mask), pattern, f" {mark} ")
            words = pc.replace_with_mask(words, mask, changed)
    return words


def denied(no: Patterns, words: Patterns) -> Patterns:
    """Patterns for words that stand at most two after one that denies them."""
    return tuple(f"(?:{'|'.join(no)})(?: [^ .,~§]+ ){{0,2}}{some}" for some in words) if no else ()


def lists_of(settings: Settings) -> Lists:
    """The lists of a workspace: ours for its languages, its competitors, and its own file.

    Raises:
        SettingsError: If the workspace's own file is missing or holds what is not understood.
    """
    said = settings.text
    own = settings.path(said.cues) if said.cues else None
    stamp = own.stat().st_mtime_ns if own is not None and own.is_file() else 0
    return _lists(tuple(said.languages or LANGUAGES), tuple(said.competitors), own, stamp)


@lru_cache(maxsize=8)
def _lists(languages: tuple[str, ...], competitors: tuple[str, ...], own: Path | None, _: int) -> Lists:
    files = {language: _ours(language) for language in languages}
    everything = [*files.values(), *([_own(own)] if own is not None else [])]
    phrases: dict[str, list[str]] = {name: [phrase for file in everything for phrase in file["cues"].get(name, ())]
                                     for name in CUES}
    phrases["shouting"] += _SHOUTING
    phrases["competitor"] += [_literal(name) for name in competitors]
    phrases["traps"] = [phrase for file in everything for phrase in file.get("traps", ())]
    by_language = {f"{kind} {language}": file[kind] for kind in _KINDS for language, file in files.items()}
    patterns = compiled({**phrases, **by_language})
    kinds = {kind: MappingProxyType({language: patterns[f"{kind} {language}"] for language in files})
             for kind in _KINDS}
    loud = sorted({word for file in everything for word in file.get("loud", ())})
    return Lists(
        cues=MappingProxyType({name: patterns[name] for name in CUES}), traps=patterns["traps"],
        loud="|".join(re.escape(unicodedata.normalize("NFKD", word)) for word in loud),
        headers=tuple((begins, ends) for file in everything for begins, ends in file.get("quoted", ())),
        glad=kinds["glad"], sad=kinds["sad"], no=kinds["no"],
        known=kinds["words"])


def compiled(lists: Mapping[str, list[str]]) -> dict[str, Patterns]:
    """Each list of phrases as a few patterns over texts as `tokens` gives them.

    A phrase is words in their order: `a|b` either, `word?` or not, `word*` any ending, `...` up to three words of the
    same sentence between. Accents, capitals and apostrophes do not matter; ä, ö and ü are also ae, oe and ue.

    >>> import re
    >>> person = compiled({"person": ["speak|talk to ... person|human", "agent please?"]})["person"]
    >>> bool(re.search(person[0], " .  i  want  to  talk  to  a  real  person "))
    True
    """
    words = {word for phrases in lists.values() for phrase in phrases for word in re.split(r"[ |]", phrase)}
    plain = _plain(sorted(word.removesuffix("?") for word in words))
    made = {name: list(dict.fromkeys(_pattern(phrase, plain) for phrase in phrases)) for name, phrases in lists.items()}
    return {name: tuple(f"(?:{'|'.join(some[start:start + _TOGETHER])})" for start in range(0, len(some), _TOGETHER))
            for name, some in made.items()}


def _pattern(phrase: str, plain: Mapping[str, str]) -> str:
    parts = []
    for element in phrase.split():
        if element == "...":
            parts.append(_GAP)
            continue
        words = sorted({plain[word] for word in element.removesuffix("?").split("|") if plain[word]})
        either = words[0] if len(words) == 1 else f"(?:{'|'.join(words)})"
        parts.append(f"(?:{either})?" if element.endswith("?") else either)
    return "".join(parts)


def _plain(words: list[str]) -> dict[str, str]:
    """Each word as a pattern of tokens with their blanks; one that is written as one (e-mail, j'ai) may be several."""
    marked = [re.sub("[äöüÄÖÜ]", lambda found: f"{found[0]}qq2", unicodedata.normalize("NFC", word)) for word in words]
    made = tokens(pa.array([word.replace("*", "qq3") for word in marked], pa.string())).to_pylist()
    return {word: re.escape(one.removeprefix(" . ")).replace("\\ ", " ").replace("qq2", "e?").replace("qq3", "[^ ]*")
            if one.strip(" .") else "" for word, one in zip(words, made, strict=True)}


def _literal(name: str) -> str:
    """A competitor's name as a phrase in which no sign has a meaning."""
    return re.sub(r"[|*?]|\.\.\.", " ", name)


def _ours(language: str) -> dict[str, Any]:
    text = (resources.files("churnkit") / "signals" / "cues" / f"{language}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _own(file: Path) -> dict[str, Any]:
    """A workspace's own lists: `traps`, `loud` and `[cues]`, which add to ours."""
    if not file.is_file():
        raise SettingsError(f"[text] cues names '{file}', which is not there. Write the file, or take the key out.")
    data = read_toml(file)
    for key in data:
        if key not in ("traps", "loud", "cues"):
            raise SettingsError(f"{file}: unknown key '{key}'.{did_you_mean(key, ('traps', 'loud', 'cues'))} A list of "
                                "cues holds traps = [...], loud = [...] and a section [cues].")
    cues = data.get("cues", {})
    for name in cues if isinstance(cues, Mapping) else ():
        if name not in CUES:
            raise SettingsError(f"{file}: [cues] has no '{name}'.{did_you_mean(name, CUES)} Known: {', '.join(CUES)}.")
    if not isinstance(cues, Mapping):
        raise SettingsError(f"{file}: 'cues' must be a section. Write [cues] and below it person = [\"...\"].")
    for where, phrases in {**{key: data[key] for key in ("traps", "loud") if key in data}, **cues}.items():
        _check(file, where, phrases)
    return {**data, "cues": cast("dict[str, Any]", cues)}


def _check(file: Path, where: str, phrases: object) -> None:
    if not isinstance(phrases, list) or not all(isinstance(phrase, str) for phrase in phrases):
        raise SettingsError(f"{file}: '{where}' must be a list of phrases in quotes: {where} = [\"speak to\"].")
    if len(phrases) > _MOST:
        raise SettingsError(f"{file}: '{where}' holds {len(phrases)} phrases, more than {_MOST}. Use word* and a|b.")
    for phrase in phrases:
        words = [word for element in phrase.split() if element != "..." and not element.endswith("?")
                 for word in element.split("|")]
        if not words or not all(re.search(r"[^\W_]", word) for word in words):
            raise SettingsError(f"{file}: '{where}' holds '{phrase}', in which a word has no letter, or every word may "
                                "be left out. Write at least one whole word in it.")
