"""A first mapping for a folder of somebody's exports: churnkit.toml with guesses, each for a person to check."""

# ruff: noqa: S608 - SQL is built from contract names, quoted identifiers and quoted literals only

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from churnkit.errors import ChurnkitError, DataError
from churnkit.schemas import RAW_TABLES, Column, Table
from churnkit.settings import Settings, TableMap
from churnkit.signals.relation import Source, quoted
from churnkit.signals.sources import open_source
from churnkit.signals.synonyms import COLUMN_NAMES, FILE_NAMES

_READ = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".pq")
_SAMPLE, _SEEN = 20_000, 2000
_ENOUGH = 2.0
"""How much must speak for a table before it is proposed."""

_SPANS = {"resolution": "resolved_at", "first_response": "first_replied_at", "first_reply": "first_replied_at"}
_UNITS = {"hours": "h", "hrs": "h", "minutes": "min", "mins": "min", "seconds": "s", "secs": "s", "days": "d"}
_FORMATS = (
    (r"\d{1,2}/\d{1,2}/\d{4}", "%d/%m/%Y"),
    (r"\d{1,2}\.\d{1,2}\.\d{4}", "%d.%m.%Y"),
    (r"\d{8}", "%Y%m%d"),
    (r"\d{1,2}/\d{1,2}/\d{4} \d{1,2}:\d{2}", "%d/%m/%Y %H:%M"),
    (r"\d{1,2}\.\d{1,2}\.\d{4} \d{1,2}:\d{2}", "%d.%m.%Y %H:%M"),
    (r"\d{4}/\d{1,2}/\d{1,2}", "%Y/%m/%d"),
    (r"\d{1,2}/\d{1,2}/\d{4} \d{1,2}:\d{2}:\d{2}", "%d/%m/%Y %H:%M:%S"),
)
_ISO = r"\d{4}-\d{1,2}-\d{1,2}([T ]\d{1,2}:\d{2}.*)?"


@dataclass(frozen=True)
class _File:
    """One export: its name, its columns, and a few distinct values of each as text."""

    name: str
    types: Mapping[str, str]
    values: Mapping[str, tuple[str, ...]]

    def looks_like_time(self, column: str) -> bool:
        """Whether every value seen is some date or time."""
        values = self.values[column]
        return (
            self.types[column].startswith(("TIMESTAMP", "DATE"))
            or (bool(values)
            and all(
                any(
                    re.fullmatch(pattern, value)
                    for pattern in (_ISO, *(shape for shape, _ in _FORMATS[:2] + _FORMATS[3:]))
                )
                for value in values
            ))
        )

    def looks_like_number(self, column: str) -> bool:
        """Whether every value seen is a number."""
        values = self.values[column]
        return bool(values) and all(re.fullmatch(r"-?\d+(\.\d+)?([eE][-+]?\d+)?", value) for value in values)


@dataclass(frozen=True)
class _Guess:
    """What one file seems to be: a table, the columns that map to it, and how much speaks for it."""

    file: _File
    table: Table
    columns: Mapping[str, str]
    score: float


def propose(folder: str | Path) -> str:
    """The text of a churnkit.toml for the exports in a folder; what was not understood stands in comments.

    Raises:
        DataError: If the folder is missing or holds no CSV or Parquet file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(
            f"There is no folder '{folder}'. Name the folder that holds your exports: churnkit init --from FOLDER"
        )
    paths = sorted(path for path in folder.iterdir() if path.is_file() and path.name.lower().endswith(_READ))
    if not paths:
        raise DataError(f"'{folder}' holds no CSV or Parquet file. Export your tables there, then run this again.")
    files, unread = [], []
    with duckdb.connect() as con:
        for path in paths:
            try:
                files.append(_look(con, path))
            except ChurnkitError as error:
                unread.append(str(error))
    return _text(folder, [_guess(file) for file in files], files, unread)


def _look(con: duckdb.DuckDBPyConnection, path: Path) -> _File:
    source = open_source(con, TableMap(source=str(path.resolve())), Settings(), path.name)
    columns = list(source.types)
    sample = f"(SELECT * FROM {source.relation} LIMIT {_SAMPLE})"
    lists = ", ".join(
        f"list(DISTINCT {quoted(column)}::VARCHAR ORDER BY {quoted(column)}::VARCHAR)"
        f" FILTER ({quoted(column)} IS NOT NULL)"
        for column in columns
    )
    rows = _fetched(con, source, f"SELECT {lists} FROM {sample}")
    values = {
        column: tuple(value[:80] for value in (found or ())[:_SEEN])
        for column, found in zip(columns, rows, strict=True)
    }
    return _File(path.name, source.types, values)


def _fetched(con: duckdb.DuckDBPyConnection, source: Source, sql: str) -> tuple[list[str] | None, ...]:
    try:
        return tuple(con.execute(sql).fetchall()[0])
    except duckdb.Error as error:
        raise source.explain(error) from None


def _plain(name: str) -> str:
    """A column or file name in comparable form: MachineID and machine_id become one."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", parted.lower()).strip("_")


def _guess(file: _File) -> _Guess | None:
    """The table that most speaks for, or None where too little does."""
    guesses = [_as_table(file, table) for table in RAW_TABLES.values()]
    best = max(guesses, key=lambda guess: guess.score)
    return best if best.score >= _ENOUGH else None


def _as_table(file: _File, table: Table) -> _Guess:
    columns = _columns(file, table)
    words = re.sub(r"\.(csv|tsv|parquet|pq)(\.gz)?$", "", file.name.lower())
    known = set(FILE_NAMES[table.name].split())
    tokens = _plain(words).split("_")
    named = (
        3.0
        if _plain(words) in known | {table.name}
        else 2.0
        if tokens[-1] in known
        else 1.0
        if known & set(tokens)
        else 0.0
    )
    need = [name for name in table.required if name not in columns and not _constant(table, name)]
    wide = table.name == "telemetry" and {"asset_id", "occurred_at"} <= set(columns)
    wide = wide and "sensor" not in columns and len(_sensors(file, columns)) > 1
    lacking = 0 if wide else len(need)
    own = len([name for name in columns if name not in {"account_id", "occurred_at", "name"}])
    keyed = 2.0 if named >= 2 and table.key and table.key[0] in columns else 0.0
    return _Guess(
        file, table, columns, named + keyed + 0.4 * min(own, 6) - 1.2 * lacking + (0.5 if not lacking else 0.0) + wide
    )


def _constant(table: Table, name: str) -> bool:
    """Whether a required column may as well be one word for the whole file."""
    return bool(table.by_name[name].values)


def _columns(file: _File, table: Table) -> dict[str, str]:
    """Contract name = the file's column, each used once: exact names, then synonyms, then the only date there is."""
    plain: dict[str, str] = {}
    for column in file.types:
        plain.setdefault(_plain(column), column)
    found: dict[str, str] = {}
    used: set[str] = set()
    asks: tuple[Callable[[str], list[str]], ...] = (
        lambda name: [name], lambda name: COLUMN_NAMES.get(name, "").split())
    for ask in asks:
        for wanted in table.columns:
            fit = (plain[name] for name in ask(wanted.name) if name in plain and plain[name] not in used)
            best = next((column for column in fit if _fits(file, column, wanted)), "")
            if best and wanted.name not in found:
                found[wanted.name] = best
                used.add(best)
    own = table.time
    dates = [
        column
        for column in file.types
        if column not in used and file.looks_like_time(column) and "birth" not in column.lower()
    ]
    if own and own not in found and len(dates) == 1:
        found[own] = dates[0]
    return found


def _fits(file: _File, column: str, wanted: Column) -> bool:
    """Whether the values seen can be of the wanted kind."""
    if not file.values[column]:
        return True
    if wanted.kind == "time":
        return file.looks_like_time(column)
    if wanted.kind in {"float", "int"}:
        return file.looks_like_number(column)
    if wanted.kind == "bool":
        return {value.lower() for value in file.values[column]} <= {
            "true",
            "false",
            "t",
            "f",
            "yes",
            "no",
            "y",
            "n",
            "0",
            "1",
        }
    if wanted.values:
        return bool({value.lower() for value in file.values[column]} & set(wanted.values))
    return not file.looks_like_time(column)


def _sensors(file: _File, columns: Mapping[str, str]) -> list[str]:
    """The numeric columns of a wide telemetry export that are no key."""
    taken = {*columns.values()}
    return [
        column
        for column in file.types
        if column not in taken
        and file.looks_like_number(column)
        and not re.search(
            r"(^column \d+$|(^|_)(id|num|number|index|row|day|hour)(_|$))",
            _plain(column).replace("column_", "column "),
        )
    ]


# ------------------------------------------------------------------------------------------------------------- writing


def _text(folder: Path, guesses: Iterable[_Guess | None], files: list[_File], unread: list[str]) -> str:
    named = list(zip(files, guesses, strict=True))
    by_table: dict[str, list[_Guess]] = {}
    for _, guess in named:
        if guess:
            by_table.setdefault(guess.table.name, []).append(guess)
    lines = [
        f"# Proposed by `churnkit init --from {folder.name}`. Every line is a guess from names and values: read it,",
        "# correct it, then run `churnkit check`. Lines that begin with '# ?' wait for you.",
        "",
        'zone = "UTC"  # ? the zone of times that name none',
        *_currency(files),
        '# covers_until = "2026-11-01"  # ? how far the export reaches',
        "",
        "[tables]",
        'invalid = "raise"  # or "drop", or "quarantine" (rows kept in state/quarantine)',
        "",
    ]
    for table in RAW_TABLES:
        parts = by_table.get(table, [])
        for place, guess in enumerate(parts):
            several = len(parts) > 1
            if several and place == 0:
                lines += [
                    f"# {table}: {len(parts)} files; if two of them hold the same records, keep one",
                    f"[tables.{table}]",
                    *_grain(parts[0]),
                    "",
                ]
            head, bridges = (
                f"[[tables.{table}.parts]]" if several else f"[tables.{table}]",
                by_table.get("subscriptions", []),
            )
            lines += [*_section(folder, guess, head, bridges, part=several), ""]
    lines += [
        f"# ? {_safe(file.name)}: not understood; columns {_safe(', '.join(file.types))}"
        for file, guess in named
        if guess is None
    ]
    lines += [f"# ? {_safe(trouble)}" for trouble in unread]
    missing = [name for name in ("accounts",) if name not in by_table]
    lines += [f"# ? no file looks like '{name}', which is required" for name in missing]
    return "\n".join(lines).rstrip() + "\n"


def _section(folder: Path, guess: _Guess, head: str, bridges: Iterable[_Guess], *, part: bool) -> list[str]:
    table, file = guess.table, guess.file
    lines = [head, f"source = {_quote(str(folder.resolve() / file.name))}"]
    renames = {name: column for name, column in guess.columns.items() if name != column}
    if renames:
        lines.append(f"columns = {{ {', '.join(f'{name} = {_quote(column)}' for name, column in renames.items())} }}")
    sensors = _sensors(file, guess.columns) if table.name == "telemetry" and "sensor" not in guess.columns else []
    if sensors:
        lines.append(f"unpivot = [{', '.join(map(_quote, sensors))}]")
    formats = _formats(file, [column for name, column in guess.columns.items() if table.by_name[name].kind == "time"])
    lines += [f"formats = [{', '.join(map(_quote, formats))}]"] if formats else []
    offsets = _offsets(file, guess)
    lines += (
        [f"offsets = {{ {', '.join(f'{name} = {_quote(text)}' for name, text in offsets.items())} }}"]
        if offsets
        else []
    )
    lines += [] if part else _grain(guess)
    constants, joined = _constants(guess), _join(guess, bridges)
    lines += [joined] if joined else []
    lines += (
        [f"constants = {{ {', '.join(f'{name} = {_quote(value)}' for name, value in constants.items())} }}"]
        if constants
        else []
    )
    given = {
        *guess.columns,
        *offsets,
        *constants,
        *(("account_id",) if joined else ()),
        *(("sensor", "value") if sensors else ()),
    }
    lines += _open_questions(guess, given, {*guess.columns.values(), *sensors})
    return lines


def _open_questions(guess: _Guess, given: set[str], used: set[str]) -> list[str]:
    """What a person still has to say: missing columns, unknown words, and columns that nothing was made of."""
    table, file, lines = guess.table, guess.file, []
    for name in table.required:
        if name not in given:
            way = "join, constants or columns" if name != table.time else "columns, or constants for one time for all"
            lines.append(f"# ? {name} is required and was not found: say it by {way}")
    for name, column in guess.columns.items():
        allowed, seen = table.by_name[name].values, file.values[column]
        strange = [value for value in seen if value not in allowed] if allowed else []
        if strange:
            pairs = ", ".join(
                f"{_quote(value)} = {_quote(value.lower() if value.lower() in allowed else allowed[0])}"
                for value in strange[:12]
            )
            lines.append(
                f"# ? values of {name} seen: {_safe(', '.join(seen[:12]))}\n# values = {{ {name} = {{ {pairs} }} }}"
            )
    left = [column for column in file.types if column not in used]
    return [*lines, f"# ? not used: {_safe(', '.join(left))}"] if left else lines


def _join(guess: _Guess, bridges: Iterable[_Guess]) -> str:
    """A look-up of account_id by subscription_id, where the file has only the latter."""
    wanted = "account_id" in guess.table.required and "account_id" not in guess.columns
    here = next((column for column in guess.file.types if _plain(column) == "subscription_id"), "")
    for bridge in bridges if wanted and here else ():
        if {"subscription_id", "account_id"} <= set(bridge.columns):
            their = "" if here == "subscription_id" else ', their = "subscription_id"'
            return f'join = {{ table = "subscriptions", on = {_quote(here)}{their}, take = "account_id" }}'
    return ""


def _constants(guess: _Guess) -> dict[str, str]:
    """A required word that the file's name gives away, such as failures.csv for kind = failure."""
    table = guess.table
    constants: dict[str, str] = {}
    tokens = {token.removesuffix("s") for token in _plain(guess.file.name).split("_")}
    for name in table.required:
        values = table.by_name[name].values
        if name not in guess.columns and values:
            fit = [
                value
                for value in values
                if any(token and value.startswith(token) for token in tokens if len(token) > 2)
            ]
            constants |= {name: fit[0]} if fit else {}
    return constants


def _offsets(file: _File, guess: _Guess) -> dict[str, str]:
    """Spans such as resolution_time_hours, for times that the export does not give."""
    found: dict[str, str] = {}
    for column in file.types:
        plain = _plain(column)
        unit = next((short for word, short in _UNITS.items() if plain.endswith(word)), "")
        target = next((name for start, name in _SPANS.items() if plain.startswith(start)), "")
        if unit and target in guess.table.by_name and target not in guess.columns and file.looks_like_number(column):
            found[target] = f"{guess.table.time} + {column} {unit}"
    return found


def _formats(file: _File, columns: list[str]) -> list[str]:
    """The formats of a file's times, where they are not plain ISO; day before month unless a value says otherwise."""
    found: list[str] = []
    for column in columns:
        for value in file.values[column] if file.types[column] == "VARCHAR" else ():
            shape = (
                "iso"
                if re.fullmatch(_ISO, value)
                else next((f for pattern, f in _FORMATS if re.fullmatch(pattern, value)), "")
            )
            if "%d/%m" in shape and int(value.split("/")[1]) > 12:
                shape = shape.replace("%d/%m", "%m/%d")
            if shape and shape not in found:
                found.append(shape)
    if any("%m/%d" in shape for shape in found):
        found = [shape for shape in found if "%d/%m" not in shape]
    return [] if found == ["iso"] else found


def _grain(guess: _Guess) -> list[str]:
    """The grain, where every time seen is a midnight."""
    table = guess.table
    if table.name not in {"usage_events", "telemetry"} or table.time not in guess.columns:
        return []
    midnight = all(
        re.fullmatch(r"\S+([T ]00:00(:00(\.0+)?)?)?", value) for value in guess.file.values[guess.columns[table.time]]
    )
    return ['grain = "day"  # all times seen are midnights: sums of a day'] if midnight else []


def _currency(files: list[_File]) -> list[str]:
    seen = sorted(
        {
            value
            for file in files
            for column in file.types
            if _plain(column) in {"currency", "currency_code"}
            for value in file.values[column]
        }
    )
    named = sorted(
        {
            found[1].upper()
            for file in files
            for column in file.types
            if (found := re.search(r"_(usd|eur|gbp|chf)$", _plain(column)))
        }
    )
    first = (seen or named or ["EUR"])[0]
    lines = [f'currency = "{first}"' + ("" if seen or named else "  # ? no currency was seen")]
    if len(seen) > 1:
        lines += [
            "",
            "[rates]  # ? what one unit is worth in the workspace's currency",
            *(f"# {code} = 1.0" for code in seen if code != first),
            "",
        ]
    return lines


def _quote(text: str) -> str:
    """A TOML string."""
    return '"' + _safe(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _safe(text: str) -> str:
    """Text without control characters, as comments and strings need it."""
    return re.sub(r"[\x00-\x1f\x7f]", "?", text)
