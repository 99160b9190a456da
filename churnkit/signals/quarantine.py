"""Rows that validation set aside: counted by reason and, where asked for, kept in state/quarantine as CSV."""

# ruff: noqa: S608 - SQL is built from contract names, quoted identifiers and quoted literals only

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from churnkit.signals.mapping import NUMBER, PART, Staged
from churnkit.signals.relation import FILE, ROW, quoted

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def reasons(con: Any, bad: str) -> dict[str, int]:
    """How many rows were set aside for which reason; each row counts once, for the first rule that it breaks."""
    rows = con.raw_sql(f"SELECT reason, count(*) FROM {bad} GROUP BY ALL ORDER BY ALL").fetchall()
    return {str(reason): int(number) for reason, number in rows}


def write(con: Any, staged: Mapping[str, Staged], bad: Mapping[str, str], folder: Path) -> None:
    """Writes <folder>/<table>.csv with reason, file, row and the source's cells; no old file outlives its mending."""
    for name, one in staged.items():
        file = folder / f"{name}.csv"
        if name not in bad:
            file.unlink(missing_ok=True)
            continue
        folder.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(f".csv.{os.getpid()}")
        with draft.open("w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(["reason", "file", "row", *one.given])
            for reason, part, place, row, *cells in _rows(con, one, bad[name]):
                writer.writerow([reason, one.sources[part].files[place], row, *map(_safe, cells)])
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file)


def _rows(con: Any, one: Staged, bad: str) -> list[tuple[Any, ...]]:
    """The set-aside rows as the source holds them (an unpivoted row as it was mapped), in order."""
    found = f"FROM {bad} AS bad JOIN {one.relation} AS staged USING ({quoted(NUMBER)})"
    wide = (
        len(one.raws) == 1
        and con.raw_sql(
            f"SELECT count(*) > count(DISTINCT ({quoted(FILE)}, {quoted(ROW)})) FROM {one.raws[0]}"
        ).fetchall()[0][0]
    )
    selects = []
    for part, raw in enumerate(one.raws):
        present = {row[0] for row in con.raw_sql(f"DESCRIBE {raw}").fetchall()}
        cells = ", ".join(
            f"{'staged' if wide else 'raw'}.{quoted(name)}::VARCHAR" if name in present else "NULL"
            for name in one.given
        )
        back = (
            ""
            if wide
            else f"JOIN {raw} AS raw ON raw.{quoted(FILE)} = staged.{quoted(FILE)} AND "
            f"raw.{quoted(ROW)} = staged.{quoted(ROW)}"
        )
        selects.append(
            f"SELECT {quoted(NUMBER)}, reason, {quoted(PART)}, staged.{quoted(FILE)}, "
            f"staged.{quoted(ROW)}, {cells} {found} "
            f"{back} WHERE {quoted(PART)} = {part}"
        )
    return [row[1:] for row in con.raw_sql(f"{' UNION ALL '.join(selects)} ORDER BY 1").fetchall()]


def _safe(cell: object) -> str:
    """A cell that no spreadsheet takes for a formula; numbers stay as they are."""
    text = "" if cell is None else str(cell)
    if text.startswith(_FORMULA) and not text.lstrip("+-").replace(".", "", 1).isdigit():
        return f"'{text}"
    return text
