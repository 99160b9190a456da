"""Who is treated and who is control, as drawn: kept per topmost parent account, and final from the first exposure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from churnkit.errors import OutreachError
from churnkit.outreach.ledger import arms, record, stamp

_DRAWN = ("arm", "stratum", "propensity", "share", "salt")
"""What the draw says of an account; the rest are times."""


def kept(connection: sa.Connection) -> list[dict[str, Any]]:
    """`Outbox.arms` inside a transaction."""
    return [dict(row) for row in connection.execute(sa.select(arms).order_by(arms.c.top)).mappings()]


def keep(connection: sa.Connection, rows: Sequence[Mapping[str, Any]], when: str, actor: str) -> int:
    """`Outbox.keep_arms` inside a transaction."""
    if not rows:
        return 0
    known = {row["top"]: row for row in kept(connection)}
    new: dict[str, dict[str, Any]] = {}
    changed: dict[str, dict[str, Any]] = {}
    for row in rows:
        given, old = _given(row, when), known.get(row["top"])
        if old is None:
            new[given["top"]] = given
        elif other := [name for name in _DRAWN if given[name] != old[name]]:
            _refuse_if_exposed(old, given, other[0])
            changed[given["top"]] = given
        elif given["exposed_at"] and not old["exposed_at"]:
            changed[given["top"]] = {**old, "exposed_at": given["exposed_at"]}
    if new:
        connection.execute(arms.insert(), list(new.values()))
    if changed:
        connection.execute(
            arms.update().where(arms.c.top == sa.bindparam("_top")).values(
                {name: sa.bindparam(f"_{name}") for name in (*_DRAWN, "drawn_at", "exposed_at")}),
            [{f"_{name}": value for name, value in row.items()} for row in changed.values()])
    record(connection, when, actor, "arm", [
        {"key": None, "before": known.get(top), "after": row} for top, row in {**new, **changed}.items()])
    return len(new) + len(changed)


def _given(row: Mapping[str, Any], when: str) -> dict[str, Any]:
    """A row as the database holds it; what a data frame calls NaN or NaT is absent."""
    value = {name: None if one != one else one for name, one in row.items()}  # noqa: PLR0124 - NaN is not itself
    drawn = {name: value.get(name) for name in _DRAWN}
    return {"top": value["top"], **drawn, "stratum": drawn["stratum"] or "",
            "drawn_at": _time(value.get("drawn_at")) or when, "exposed_at": _time(value.get("exposed_at"))}


def _time(value: Any) -> str | None:
    return stamp(value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(value)) if value else None


def _refuse_if_exposed(old: Mapping[str, Any], given: Mapping[str, Any], name: str) -> None:
    if old["exposed_at"]:
        raise OutreachError(f"Account '{old['top']}' was exposed on {old['exposed_at'][:10]} with {name} = "
                            f"{old[name]!r}, which is final; the plan says {given[name]!r}. Draw with the kept arms: "
                            "Outbox.arms().")
