"""The words of a brief in one language: catalogues of fixed words, and templates that lay them out.

churnkit's own stand beside this file (en.toml, de.toml ...) and in outreach/templates/. A workspace overrides words in
`words.toml`, under the language's code, and templates by files of the same names in its folder `templates/`.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, cast

from jinja2 import Template

from churnkit.errors import SettingsError, did_you_mean
from churnkit.outreach.wording.sandbox import FIELDS, compiled
from churnkit.settings import read_toml

FILE = "words.toml"
FOLDER = "templates"
OPEN = ("ask.", "languages.", "signals.", "roles.", "texts.", "phrases.")
"""Sections to which a workspace may add keys of its own."""

_HERE = Path(__file__).resolve().parent
_HOLE = re.compile(r"\{(\w+)\}")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_CODE = re.compile(r"[a-z]{2,3}")
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
           "December")
_DAY = re.compile(rf"(\d{{1,2}}) ({'|'.join(_MONTHS)})(?: (\d{{4}}))?")
_DAY_TEXT = r"\d{1,2} [A-Z][a-z]+(?: \d{4})?"
Text = str | tuple[str, ...] | tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Wording:
    """Words and templates for one language. `Wording.load` reads them once and keeps them.

    >>> Wording.load().say("do.by", day="6 November 2026")
    ' by 6 November 2026'
    >>> Wording.load(None, "de").day(dt.date(2026, 11, 1)), Wording.load(None, "de").money(12_345.6, "EUR")
    ('1. November 2026', '12.300 EUR')
    """

    language: str
    words: Mapping[str, Text]
    templates: Mapping[str, Template]
    _phrases: tuple[tuple[re.Pattern[str], str], ...] = field(default=(), repr=False)
    _told: dict[str, tuple[str, bool]] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, folder: str | Path | None = None, language: str | None = "en") -> Wording:
        """The wording of a workspace, or churnkit's own.

        Args:
            folder: The workspace; None leaves it at churnkit's own words and templates.
            language: A code, or several as in `owners.languages` ("de, en"): the first that has a catalogue is taken,
                and English where none has.

        Raises:
            SettingsError: If words.toml or a template is broken; names file, line and mend.
        """
        root = None if folder is None else Path(folder).resolve()
        files = [] if root is None else [root / FILE, *(root / FOLDER / name for name in sorted(FIELDS))]
        stamps = tuple((str(file), file.stat().st_mtime_ns) for file in files if file.is_file())
        return _load(root, language or "en", stamps)

    def say(self, key: str, **values: str) -> str:
        """A fixed text, filled in."""
        return _filled(cast("str", self.words[key]), values)

    def count(self, key: str, number: int, **values: str) -> str:
        """A text with its number: the first of two forms where this language takes it."""
        forms = cast("tuple[str, ...]", self.words[key])
        form = forms[0] if number in cast("tuple[int, ...]", self.words["format.one_is"]) else forms[-1]
        return _filled(form, {"n": self.number(number), **values})

    def find(self, section: str, keys: Sequence[str]) -> str:
        """The text of the first key that the section has; empty where it has none."""
        names = (f"{section}.{key}" for key in keys)
        return next((cast("str", self.words[name]) for name in names if name in self.words), "")

    def day(self, when: dt.date | dt.datetime, *, year: bool = True) -> str:
        """A day as people write it."""
        months = cast("tuple[str, ...]", self.words["format.months"])
        number = self.say("format.first") if when.day == 1 else str(when.day)
        return self.say("format.date" if year else "format.date_short", day=number, month=months[when.month - 1],
                        year=str(when.year))

    def number(self, value: int) -> str:
        """A whole number, with this language's sign between thousands."""
        return f"{value:,}".replace(",", self.say("format.thousands"))

    def percent(self, share: float) -> str:
        """A share in whole per cent."""
        return self.say("format.percent", n=str(round(share * 100)))

    def money(self, amount: float, currency: str) -> str:
        """An amount that a person can take in: three figures are enough."""
        step = 10 ** max(len(str(abs(round(amount)))) - 3, 0)
        return self.say("format.money", amount=self.number(round(amount / step) * step), currency=currency).strip()

    def chance(self, probability: float) -> str:
        """A probability in words, with its percentage."""
        ladder = cast("tuple[str, ...]", self.words["about.chances"])
        word = ladder[sum(probability >= limit for limit in (0.1, 0.25, 0.5, 0.75, 0.9))]
        return self.say("about.chance", words=word, percent=self.share(probability))

    def share(self, probability: float) -> str:
        """A probability in per cent, which is never quite none or quite all."""
        if 0.01 <= probability <= 0.99:
            return self.percent(probability)
        return self.say("about.under" if probability < 0.5 else "about.over")

    def listed(self, parts: Sequence[str], *, choice: bool = False) -> str:
        """Words in a row, the last one joined by 'and', or by 'or' where they are a choice."""
        if len(parts) < 2:
            return "".join(parts)
        return self.say("format.choice" if choice else "format.rest", shown=", ".join(parts[:-1]), last=parts[-1])

    def inside(self, sentence: str) -> str:
        """A sentence as it begins within another one."""
        return sentence[:1].lower() + sentence[1:] if self.say("format.small_start") else sentence

    def text(self, sentence: str) -> str:
        """A sentence of the policy in this language, if the catalogue has it, else as it is."""
        return cast("str", self.words.get(f"texts.{sentence}", sentence))

    def phrase(self, sentence: str) -> tuple[str, bool]:
        """A sentence with figures in this language, and whether there was one; else as it is."""
        if self.language == "en" and not self._phrases:
            return sentence, True
        if sentence not in self._told:
            if len(self._told) > 20_000:
                self._told.clear()
            self._told[sentence] = self._translated(sentence)
        return self._told[sentence]

    def _translated(self, sentence: str) -> tuple[str, bool]:
        if f"texts.{sentence}" in self.words:
            return self.text(sentence), True
        for pattern, said in self._phrases:
            if found := pattern.fullmatch(sentence):
                return _filled(said, {name: self._part(value) for name, value in found.groupdict().items()}), True
        return sentence, False

    def _part(self, text: str) -> str:
        """What a phrase's hole holds: a day, a number, another phrase, or a name that stays."""
        if found := _DAY.fullmatch(text):
            try:
                when = dt.date(int(found[3] or 2000), _MONTHS.index(found[2]) + 1, int(found[1]))
            except ValueError:
                return text
            return self.day(when, year=bool(found[3]))
        if _NUMBER.fullmatch(text):
            signs = {",": self.say("format.thousands"), ".": self.say("format.decimal")}
            return "".join(signs.get(sign, sign) for sign in text)
        if text.endswith("%") and _NUMBER.fullmatch(text[:-1]):
            return self.say("format.percent", n=text[:-1])
        return self._translated(text)[0]


@lru_cache(maxsize=64)
def _load(root: Path | None, languages: str, stamps: tuple[tuple[str, int], ...]) -> Wording:
    own = read_toml(root / FILE) if root is not None and str(root / FILE) in dict(stamps) else {}
    language = next((code for code in _codes(languages) if code in own or code in ours()), "en")
    words = dict(_catalogue("en")) | dict(_catalogue(language) if language in ours() else {})
    if own and root is not None:
        _check_languages(own, root / FILE)
        words |= _flat(own.get(language, {}), root / FILE, language)
        if words["labels.why_english"] == _catalogue("en")["labels.why_english"]:  # theirs, whatever the reasons' words
            words["labels.why_english"] = words["labels.why"]
    templates = {name: _template(name, root, stamps) for name in FIELDS}
    holes = sorted(((key[8:], cast("str", text)) for key, text in words.items() if key.startswith("phrases.")),
                   key=lambda pair: -len(_HOLE.sub("", pair[0])))
    return Wording(language, words, templates, tuple((_pattern(key), text) for key, text in holes))


@cache
def ours() -> frozenset[str]:
    """The languages that churnkit speaks.

    >>> {"de", "en"} <= ours()
    True
    """
    return frozenset(file.stem for file in _HERE.glob("*.toml"))


def _codes(languages: str) -> list[str]:
    """The codes in a list of languages: 'de-AT, en' are de and en."""
    return [found[0] for part in re.split(r"[\s,;|/]+", languages.lower()) if (found := _CODE.match(part))]


@cache
def _catalogue(language: str) -> Mapping[str, Text]:
    file = _HERE / f"{language}.toml"
    return _flat(read_toml(file), file, "")


def _template(name: str, root: Path | None, stamps: tuple[tuple[str, int], ...]) -> Template:
    own = None if root is None else root / FOLDER / name
    if own is None or str(own) not in dict(stamps):
        return _own_template(name)
    try:
        return compiled(own.read_text(encoding="utf-8-sig"), own)
    except UnicodeDecodeError as error:
        raise SettingsError(f"{own}: byte {error.start} is not UTF-8. Save the file as UTF-8.") from None
    except OSError as error:
        raise SettingsError(f"{own}: cannot be read ({error.strerror}). Make it a readable file.") from None


@cache
def _own_template(name: str) -> Template:
    file = _HERE.parent / FOLDER / name
    return compiled(file.read_text(encoding="utf-8"), file)


def _check_languages(own: Mapping[str, Any], file: Path) -> None:
    for code, sections in own.items():
        if not _CODE.fullmatch(code) or not isinstance(sections, dict):
            raise SettingsError(f"{_at(file, code)}: '{code}' is no language's code. Put the words under one, as in "
                                "[de.labels].")


def _flat(data: Mapping[str, Any], file: Path, prefix: str) -> dict[str, Text]:
    """Sections as 'section.key' = text, checked against the English ones, which have every key."""
    known = {} if file == _HERE / "en.toml" else _catalogue("en")
    found: dict[str, Text] = {}
    for section, value in data.items():
        if not isinstance(value, dict):
            raise SettingsError(f"{_at(file, prefix, section)}: '{section}' must stand in a section, as in [labels].")
        for key, text in value.items():
            parts = {f"{key}.{name}": one for name, one in text.items()} if isinstance(text, dict) else {key: text}
            for name, one in parts.items():
                place = _at(file, *([prefix] if prefix else []), section, name)
                found[f"{section}.{name}"] = _checked(f"{section}.{name}", one, known, place)
    return found


def _checked(key: str, text: Any, known: Mapping[str, Text], place: str) -> Text:
    """A text of a catalogue: of a known key, of its kind, short, and with no other holes than the English one's."""
    if known and key not in known and not key.startswith(OPEN):
        raise SettingsError(f"{place}: there is no text '{key}'.{did_you_mean(key, known)} The keys stand in "
                            "churnkit's own en.toml.")
    base = known.get(key, text if not isinstance(text, list) else tuple(text))
    parts = text if isinstance(text, list) else [text]
    kind: type = int if key == "format.one_is" else str
    if isinstance(text, list) != isinstance(base, tuple) or not all(isinstance(part, kind) for part in parts):
        raise SettingsError(f"{place}: '{key}' must be {'a list of texts' if isinstance(base, tuple) else 'a text'}.")
    if isinstance(base, tuple) and key != "format.one_is" and len(parts) != len(base):
        raise SettingsError(f"{place}: '{key}' needs {len(base)} texts, not {len(parts)}.")
    if kind is int:
        return tuple(parts)
    own = key if key.startswith("phrases.") else " ".join(str(part) for part in base) if len(parts) > 1 else str(base)
    allowed = set(_HOLE.findall(own))
    for part in parts:
        if len(part) > 300 or len(part.split()) > 40:
            raise SettingsError(f"{place}: '{key}' is too long. Write at most 40 words.")
        wrong = [hole for hole in _HOLE.findall(part) if hole not in allowed]
        if wrong or re.search(r"[{}]", _HOLE.sub("", part)):
            names = ", ".join(f"{{{name}}}" for name in sorted(allowed)) or "nothing"
            hole = f"{{{wrong[0]}}}" if wrong else "a brace alone"
            raise SettingsError(f"{place}: '{key}' cannot fill in {hole}; it may name {names}.")
        if re.search(r"[<>\x00-\x1f]", part):
            raise SettingsError(f"{place}: '{key}' holds a line break or one of < and >. Write words only; layout is "
                                "in the templates.")
    return tuple(parts) if isinstance(text, list) else str(text)


def _at(file: Path, *path: str) -> str:
    """`file, line 12` where the last key of that path stands in the file, else the file alone."""
    section, wanted = "", [part for part in path if part]
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), start=1):
        header = re.match(r"\s*\[([^\[\]]+)\]", line)
        if header:
            section = header[1].strip()
            if section == ".".join(wanted):
                return f"{file}, line {number}"
            continue
        key = re.match(r"\s*(?:\"([^\"]*)\"|'([^']*)'|([\w.-]+))\s*=", line)
        if key and f"{section}.{key[1] or key[2] or key[3]}".strip(".") == ".".join(wanted):
            return f"{file}, line {number}"
    return str(file)


def _filled(text: str, values: Mapping[str, str]) -> str:
    return _HOLE.sub(lambda hole: values.get(hole[1], ""), text)


def _pattern(key: str) -> re.Pattern[str]:
    """A phrase's key as a pattern. A hole named n.. matches a number, one named day.. a day, any other some text."""
    pieces, last = [], 0
    for hole in _HOLE.finditer(key):
        name = hole[1]
        what = r"-?\d[\d,.]*%?" if name.startswith("n") else _DAY_TEXT if name.startswith("day") else ".{1,80}?"
        pieces += [re.escape(key[last:hole.start()]), f"(?P<{name}>{what})"]
        last = hole.end()
    return re.compile("".join([*pieces, re.escape(key[last:])]))
