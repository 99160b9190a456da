"""Are the feeds there, fresh and on time? The report behind `churnkit check`, and the row counts that each run saw."""

# ruff: noqa: S608 - SQL is built from contract names, quoted identifiers and quoted literals only

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from churnkit.cutoffs import moment
from churnkit.errors import ChurnkitError, DataError, SettingsError
from churnkit.schemas import RAW_TABLES, Table
from churnkit.settings import TableMap
from churnkit.signals.relation import quoted
from churnkit.signals.tables import Tables
from churnkit.signals.validate import Finding

SEEN_VERSION = 1
ON_TIME = 0.99
"""The share of rows that an honest `known_after` covers."""

_SIGNALS = ("usage_events", "support_tickets", "surveys", "invoices", "touches")
_DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Feed:
    """How one table stands at the time of the report.

    `first` and `last` are the rows' own times; `stale_days` is how far `last` lies behind `at`. `late_share` is the
    share of rows recorded after their own time, `late_p99_hours` by how much (99 of 100 are no later). `grown` counts
    rows that came into past days since an earlier run although they claim to have been known by then.
    `known_after_hours` is what the mapping should honestly say, by this run and all before it: the settings' own where
    there is nothing to learn from.
    """

    table: str
    read: int
    kept: int
    dropped: Mapping[str, int]
    findings: int
    first: dt.datetime | None
    last: dt.datetime | None
    covers_until: dt.datetime
    stale_days: float | None
    late_share: float | None
    late_p99_hours: float | None
    grown: int
    known_after_hours: float


@dataclass(frozen=True)
class Report:
    """What `check` found: feeds, findings, missing tables and what they would turn on, the share of live accounts."""

    at: dt.datetime
    feeds: tuple[Feed, ...]
    findings: tuple[Finding, ...]
    missing: Mapping[str, str]
    active_accounts: int
    with_signal: int

    @property
    def ok(self) -> bool:
        """Whether a run may go on: accounts and one signal table are there and no finding is an error that stops it."""
        kept = {feed.table: feed.kept for feed in self.feeds}
        return kept.get("accounts", 0) > 0 and any(number for table, number in kept.items() if table != "accounts")

    @property
    def signal_share(self) -> float | None:
        """The share of active accounts with any signal in the last 84 days; None without active accounts."""
        return self.with_signal / self.active_accounts if self.active_accounts else None

    def rows(self) -> list[dict[str, str]]:
        """One row of plain text per feed, for a table on a terminal."""
        return [
            {
                "table": feed.table,
                "rows": f"{feed.kept:,}",
                "set aside": f"{feed.read - feed.kept:,}",
                "findings": str(feed.findings),
                "first": _day(feed.first),
                "last": _day(feed.last),
                "covers until": _day(feed.covers_until),
                "behind": "" if feed.stale_days is None else f"{feed.stale_days:.1f} d",
                "late": "" if feed.late_share is None else f"{feed.late_share:.1%}",
                "known after": f"{feed.known_after_hours:g} h",
            }
            for feed in self.feeds
        ]

    def lines(self) -> list[str]:
        """The rest in sentences: findings with their mend, late days, missing tables, and the accounts with signal."""
        said = [f"{finding.severity}: {finding.text} {finding.mend}." for finding in self.findings]
        for feed in self.feeds:
            said += [f"{feed.table}: {number:,} rows left out ({reason})." for reason, number in feed.dropped.items()]
            if not feed.read:
                said.append(
                    f"{feed.table}: there, and without a single row, so that its features count nothing instead of "
                    "being missing. Export it again, or take it away."
                )
            if feed.grown:
                said.append(_came_late(feed.table, feed.grown, feed.known_after_hours))
        said += [f"{table} is missing; it would turn on {what}." for table, what in self.missing.items()]
        if self.signal_share is not None:
            said.append(
                f"{self.with_signal:,} of {self.active_accounts:,} active accounts ({self.signal_share:.0%}) show a "
                "signal in the last 84 days."
            )
        return said

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, for --json."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self), default=_plain))
        return {"ok": self.ok, "signal_share": self.signal_share, **plain}


def check(tables: Tables, at: dt.datetime | str, *, remember: bool = True) -> Report:
    """How the feeds stand at `at`.

    With `remember`, the row counts per table and day are kept in state/seen.json; a past day that has grown since an
    earlier run, within what that run could have known, is counted as late.

    Raises:
        DataError: If state/seen.json cannot be read.
    """
    now = moment(at)
    growth = _grown(tables, now, remember=remember)
    feeds = tuple(_feed(tables, name, now, growth.get(name, (0, 0.0))) for name in tables.contract if tables.has(name))
    missing = {name: table.turns_on for name, table in tables.contract.items() if not tables.has(name)}
    active, signal = _live(tables, now)
    return Report(now, feeds, tables.findings, missing, active, signal)


def late(tables: Tables, at: dt.datetime | str) -> list[str]:
    """What came late since the run before, in sentences, for the jobs that compute features; remembers as `check` does.

    Raises:
        DataError: If state/seen.json cannot be read.
    """
    found = _grown(tables, moment(at), remember=True)
    return [_came_late(name, rows, max(hours, _declared(tables, name)))
            for name, (rows, hours) in found.items() if rows]


def _came_late(table: str, rows: int, hours: float) -> str:
    return (f"{table}: {rows:,} {'row' if rows == 1 else 'rows'} came into past days since an earlier run; known_after "
            f"= '{hours:.0f}h' would be honest.")


def _grown(tables: Tables, now: dt.datetime, *, remember: bool) -> dict[str, tuple[int, float]]:
    """By table with a clock, the rows that came late since the run before, and how late rows ever came, in hours."""
    file = tables.settings.state / "seen.json"
    before = _seen(file)
    named = [name for name, table in tables.contract.items() if tables.has(name) and table.time]
    found = {name: (0, 0.0) if name not in before else _growth(before[name], _days(tables, name, moment(
        before[name]["at"]))) for name in named}
    if remember:
        _remember(file, before, {name: {"days": _days(tables, name, now), "late_hours": hours}
                                 for name, (_, hours) in found.items()}, now)
    return found


def _feed(tables: Tables, name: str, at: dt.datetime, growth: tuple[int, float]) -> Feed:
    table, counts = tables.contract[name], tables.counts[name]
    first = last = late = p99 = None
    own, source = quoted(table.time), quoted(name)
    if table.time:
        first, last = _query(
            tables, f"SELECT min({own}), max({own}) FROM {source} WHERE {own} <= ?", at
        )[0]
    if table.time and "recorded_at" in table.by_name:
        shares = _query(
            tables,
            f"SELECT avg(coalesce(recorded_at > {own}, false)::INTEGER), quantile_disc("
            f"date_diff('second', {own}, recorded_at), {ON_TIME}) / 3600 FROM ({firsts(tables.contract[name])}) "
            "HAVING count(recorded_at) > 0",
        ) or [(None, None)]
        late, p99 = shares[0]
    grown, hours = growth
    return Feed(
        name,
        counts.read,
        counts.kept,
        dict(counts.dropped),
        sum(f.count for f in tables.findings if f.table == name),
        _utc(first),
        _utc(last),
        tables.covers_until[name],
        (at - last) / _DAY if last else None,
        late,
        p99,
        grown,
        max(_declared(tables, name), hours),
    )


def _live(tables: Tables, at: dt.datetime) -> tuple[int, int]:
    """Active accounts, and those of them with a signal in the last 84 days."""
    active = "SELECT account_id FROM accounts WHERE created_at < $at"
    if tables.has("subscriptions"):
        active = (
            "SELECT account_id FROM (FROM subscriptions WHERE known_at <= $at QUALIFY subscription_id IS NULL OR "
            "known_at = max(known_at) OVER (PARTITION BY account_id, subscription_id, started_at)) "
            "WHERE started_at < $at AND (ended_at IS NULL OR ended_at >= $at)"
        )
    signals = [
        f"SELECT account_id FROM {name} WHERE {RAW_TABLES[name].time} >= $at - INTERVAL 84 DAY AND "
        f"{RAW_TABLES[name].time} < $at"
        for name in _SIGNALS
    ]
    signals.append(
        "SELECT account_id FROM telemetry JOIN assets USING (asset_id) WHERE occurred_at >= $at - INTERVAL 84 DAY "
        "AND occurred_at < $at"
    )
    rows = tables.raw.execute(
        f"WITH active AS (SELECT DISTINCT account_id FROM ({active})), signal AS ({' UNION '.join(signals)}) "
        "SELECT count(*), count(*) FILTER (account_id IN (FROM signal)) FROM active",
        {"at": at},
    ).fetchall()
    return int(rows[0][0]), int(rows[0][1])


def _declared(tables: Tables, name: str) -> float:
    """The mapping's known_after, in hours."""
    return tables.settings.tables.get(name, TableMap()).known_after / dt.timedelta(hours=1)


def _days(tables: Tables, name: str, until: dt.datetime) -> dict[str, int]:
    """Rows per day of their own time, of what claims to have been known by a moment; a record's versions count once."""
    own = quoted(tables.contract[name].time)
    found = _query(tables, f"SELECT {own}::DATE AS day, count(*) FROM ({firsts(tables.contract[name])}) "
                           f"WHERE {own} IS NOT NULL AND known_at <= ? GROUP BY 1 ORDER BY 1", until)
    return {str(day): int(number) for day, number in found}


def firsts(table: Table) -> str:
    """SQL of a table's rows; of the versions of a record only the one that was known first, which is the export's."""
    name = table.name
    keys = [quoted(column) for column in table.key if column != "recorded_at"]
    keys = ["account_id", "subscription_id", "started_at"] if name == "subscriptions" else keys
    if not keys or not table.time:
        return f"FROM {quoted(name)}"
    named = " AND ".join(f"{key} IS NOT NULL" for key in keys)
    return (f"FROM {quoted(name)} QUALIFY NOT ({named}) OR row_number() OVER (PARTITION BY {', '.join(keys)} "
            f"ORDER BY known_at, {quoted(table.time)}) = 1")


def _growth(before: Mapping[str, Any], days: Mapping[str, int]) -> tuple[int, float]:
    """Rows that came into days which an earlier run had seen whole, and how late the latest ever was, in hours.

    Args:
        before: What that run saw.
        days: What it should have seen, by what the tables claim today.
    """
    grown, hours = 0, float(before["late_hours"])
    seen_at = moment(str(before["at"]))
    for day, number in days.items():
        end = moment(day) + _DAY
        more = number - int(before["days"].get(day, 0))
        if more > 0 and end <= seen_at:
            grown += more
            hours = max(hours, (seen_at - end) / dt.timedelta(hours=1) + 24)
    return grown, hours


def _seen(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["schema_version"] > SEEN_VERSION:
            raise ChurnkitError(f"'{file.name}' was written by a newer churnkit. Upgrade this one.")
        return {name: {"at": moment(str(seen["at"])).isoformat(), "late_hours": float(seen.get("late_hours", 0)),
                       "days": {str(day): int(number) for day, number in seen["days"].items()}}
                for name, seen in data["tables"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, OSError, SettingsError):
        raise DataError(f"'{file}' is damaged. Remove it: the next check starts a new one.") from None


def _remember(file: Path, before: Mapping[str, Any], seen: Mapping[str, Mapping[str, Any]], at: dt.datetime) -> None:
    """Writes the counts in one step; a run for an earlier time than the last one changes nothing."""
    tables = dict(before)
    for name, now in seen.items():
        if name not in before or moment(str(before[name]["at"])) <= at:
            tables[name] = {"at": at.isoformat(), **now}
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(f".json.{os.getpid()}")
    draft.write_text(json.dumps({"schema_version": SEEN_VERSION, "tables": tables}, sort_keys=True), encoding="utf-8")
    draft.replace(file)


def _query(tables: Tables, sql: str, *values: object) -> list[tuple[Any, ...]]:
    return tables.raw.execute(sql, list(values) or None).fetchall()


def _utc(time: dt.datetime | None) -> dt.datetime | None:
    return time.astimezone(dt.UTC) if time else None


def _day(time: dt.datetime | None) -> str:
    return f"{time:%Y-%m-%d}" if time else ""


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, dt.datetime) else str(value)
