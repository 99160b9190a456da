"""How one cell is read as its kind, as SQL: what cannot be read becomes missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from churnkit.schemas import Column
from churnkit.signals.relation import literal

_EARLIEST, _LATEST = "TIMESTAMPTZ '1900-01-01 00:00:00+00'", "TIMESTAMPTZ '2262-01-01 00:00:00+00'"
NUMBERS = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "UHUGEINT",
)
FRACTIONS = ("FLOAT", "DOUBLE", "DECIMAL")
_TIMES = ("TIMESTAMP", "DATE")


def time(source: str, kind: str, formats: list[str]) -> str:
    """A time with its zone; what names none is in the session's, which `stage` sets to the table's."""
    if kind.startswith(_TIMES):
        read = f"{source}::TIMESTAMPTZ" if "ZONE" in kind else f"{source}::TIMESTAMP::TIMESTAMPTZ"
    else:
        read = "coalesce(" + ", ".join(_format(source, kind, one) for one in formats or ["iso"]) + ")"
    return f"(CASE WHEN ({read}) BETWEEN {_EARLIEST} AND {_LATEST} THEN {read} END)"


def _format(source: str, kind: str, one: str) -> str:
    if one in {"epoch_s", "epoch_ms"}:
        return f"make_timestamptz((TRY_CAST({source} AS DOUBLE) * {1_000_000 if one == 'epoch_s' else 1000})::BIGINT)"
    if kind != "VARCHAR":
        return "NULL::TIMESTAMPTZ"  # a number is no date unless a format says so
    if one == "iso":
        return (
            f"(CASE WHEN {source}[5] = '-' THEN TRY_CAST({source} AS TIMESTAMPTZ) END)"  # not 'epoch', not 'infinity'
        )
    return f"try_strptime({source}, {literal(one)})::TIMESTAMPTZ"


def number(source: str, kind: str) -> str:
    """A finite number."""
    read = f"TRY_CAST({source} AS DOUBLE)"
    return f"(CASE WHEN isfinite({read}) THEN {read} END)" if not kind.startswith(_TIMES) else "NULL::DOUBLE"


def _int(source: str, kind: str) -> str:
    read = number(source, kind)
    return f"(CASE WHEN {read} = trunc({read}) AND abs({read}) < 9e15 THEN {read}::BIGINT END)"


def _bool(source: str, kind: str) -> str:
    if kind == "BOOLEAN":
        return source
    return (
        f"(CASE WHEN lower({source}::VARCHAR) IN ('true', 't', 'yes', 'y', '1', '1.0') THEN true "
        f"WHEN lower({source}::VARCHAR) IN ('false', 'f', 'no', 'n', '0', '0.0') THEN false END)"
    )


def _text(source: str, kind: str) -> str:
    return source if kind == "VARCHAR" else f"{source}::VARCHAR"


READ: Mapping[str, Callable[[str, str], str]] = {
    "id": _text,
    "text": _text,
    "category": _text,
    "float": number,
    "int": _int,
    "bool": _bool,
}


def duck_type(column: Column) -> str:
    """The DuckDB type of a contract column."""
    return {"time": "TIMESTAMPTZ", "int": "BIGINT", "float": "DOUBLE", "bool": "BOOLEAN"}.get(column.kind, "VARCHAR")


def common_type(kinds: list[str]) -> str:
    """The type that UNPIVOT gives to columns of these types: numbers together stay numbers, else text."""
    return "DOUBLE" if all(kind.startswith((*NUMBERS, *FRACTIONS)) for kind in kinds) else "VARCHAR"
