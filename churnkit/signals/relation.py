"""One opened source as a relation of DuckDB, and how names and texts are written in SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import duckdb

from churnkit.errors import DataError

ROW, FILE = "#row", "#file"
"""The helper columns that every source carries: the row's number, and the file's place in `Source.files`."""

_serial = count()


@dataclass(frozen=True)
class Source:
    """One opened source: the name of its relation in DuckDB, its columns with their DuckDB types, and its files.

    Text sources have VARCHAR columns throughout: nothing is inferred. `label` is how messages name it, without secrets.
    `explain` tells what is wrong with the source when DuckDB cannot read it to its end.
    """

    relation: str
    types: dict[str, str]
    files: tuple[str, ...]
    label: str
    explain: Callable[[duckdb.Error], DataError]


def quoted(name: str) -> str:
    '''A name as an SQL identifier.

    >>> quoted('a "b"')
    '"a ""b\"""'
    '''
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as an SQL literal.

    >>> literal("o'hara")
    "'o''hara'"
    """
    return "'" + text.replace("'", "''").replace("\0", "") + "'"


def new_relation() -> str:
    """A name that no other relation of this process has."""
    return f"source_{next(_serial)}"


def first_line(text: str) -> str:
    """The first line of an error's text, short."""
    return next(_lines(text), "no reason given")


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if line.strip():
            yield line.strip().rstrip(".")[:200]
