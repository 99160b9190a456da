"""As much SOQL as the connector needs, read strictly: whatever else is asked is an error, as it would be there."""

import datetime as dt
import re
from dataclasses import dataclass

_TOKEN = re.compile(r"""\s*(?:
    (?P<text>'(?:[^'\\]|\\[\\'"nrtbf])*')
  | (?P<moment>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d))
  | (?P<number>-?\d+(?:\.\d+)?)
  | (?P<name>[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*)*)
  | (?P<sign>!=|>=|<=|[=<>(),])
)""", re.VERBOSE)
_PLAIN = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}
_TESTS = {"=": lambda a, b: a == b, "!=": lambda a, b: a != b, ">=": lambda a, b: a is not None and a >= b,
          "<=": lambda a, b: a is not None and a <= b, ">": lambda a, b: a is not None and a > b,
          "<": lambda a, b: a is not None and a < b, "IN": lambda a, b: a in b}


class MalformedError(Exception):
    """What Salesforce calls MALFORMED_QUERY."""


@dataclass(frozen=True)
class Query:
    """A query that was understood."""

    names: tuple
    table: str
    conditions: tuple
    order: tuple
    limit: int | None

    @property
    def fields(self):
        """Every field that is named, in what place ever."""
        return {*self.names, *(name for name, _, _ in self.conditions), *self.order}

    def holds(self, row, value):
        """Whether a row meets every condition; `value` gives a field of it.

        Texts are alike in any case, ids by their first fifteen signs.
        """
        for name, sign, wanted in self.conditions:
            same = _short if name.endswith("Id") else _folded
            if not _TESTS[sign](same(value(row, name)), same(wanted)):
                return False
        return True


def parse(text):
    """SELECT names FROM table [WHERE name sign value AND ...] [ORDER BY names] [LIMIT n]."""
    words = _Words(text)
    words.must("SELECT")
    names = words.names()
    words.must("FROM")
    table, conditions, order, limit = words.take("name"), [], (), None
    if words.may("WHERE"):
        conditions = [words.condition()]
        while words.may("AND"):
            conditions.append(words.condition())
    if words.may("ORDER"):
        words.must("BY")
        order = words.names()
    if words.may("LIMIT"):
        limit = int(words.take("number"))
    words.end()
    return Query(names, table, tuple(conditions), order, limit)


class _Words:
    def __init__(self, text):
        self.left, at = [], 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if found is None:
                raise MalformedError(f"unexpected token: {text[at:at + 20]!r}")
            self.left.append((found.lastgroup, found[found.lastgroup]))
            at = found.end()

    def may(self, word):
        """Takes a word if it comes next."""
        if self.left and self.left[0][1].upper() == word and self.left[0][0] in {"name", "sign"}:
            self.left.pop(0)
            return True
        return False

    def must(self, word):
        if not self.may(word):
            raise MalformedError(f"expecting {word}, found {self.left[0][1] if self.left else 'nothing'}")

    def take(self, kind):
        if not self.left or self.left[0][0] != kind:
            raise MalformedError(f"expecting a {kind}, found {self.left[0][1] if self.left else 'nothing'}")
        return self.left.pop(0)[1]

    def names(self):
        names = [self.take("name")]
        while self.may(","):
            names.append(self.take("name"))
        return tuple(names)

    def condition(self):
        name = self.take("name")
        if self.may("IN"):
            self.must("(")
            values = [self.value()]
            while self.may(","):
                values.append(self.value())
            self.must(")")
            return name, "IN", tuple(values)
        sign = self.take("sign")
        if sign not in _TESTS:
            raise MalformedError(f"unexpected {sign}")
        return name, sign, self.value()

    def value(self):
        if self.may("NULL"):
            return None
        for word in ("TRUE", "FALSE"):
            if self.may(word):
                return word == "TRUE"
        kind, text = self.left.pop(0) if self.left else ("nothing", "")
        if kind == "text":
            return re.sub(r"\\(.)", lambda sign: _PLAIN.get(sign[1], sign[1]), text[1:-1])
        if kind == "moment":
            return dt.datetime.fromisoformat(text)
        if kind == "number":
            return float(text)
        raise MalformedError(f"unexpected value {text!r}")

    def end(self):
        if self.left:
            raise MalformedError(f"unexpected token: {self.left[0][1]}")


def _folded(value):
    if isinstance(value, str):
        return value.casefold()
    return tuple(map(_folded, value)) if isinstance(value, tuple) else value


def _short(value):
    if isinstance(value, str):
        return value[:15]
    return tuple(map(_short, value)) if isinstance(value, tuple) else value
