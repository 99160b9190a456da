"""Looking whether what was sent is still there: a person's deletion is respected, a restored backup is held."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from churnkit.outreach.chain import record
from churnkit.outreach.crm.base import Remote
from churnkit.outreach.ledger import note, noted, stamp, tasks, writing
from churnkit.outreach.moves import Answer, answer, row_of
from churnkit.outreach.runs import Enough, Run, batches
from churnkit.outreach.task import CLOSED

FEW, SHARE = 5, 0.02
"""So many open tasks, or this share of them where that is more, may be missing at once as people's deletions."""
WITNESSES = 20
"""How many of the newest changes are kept in mind: where the CRM shows them as older, it was set back."""
DELETED = "deleted in the CRM"


@dataclass
class Seen:
    """What a look found: how many open tasks were looked for, which are missing, and which changes were undone."""

    open: int = 0
    missing: list[str] = field(default_factory=list)
    back: list[str] = field(default_factory=list)
    newest: dict[str, str] = field(default_factory=dict)

    @property
    def why_held(self) -> str:
        """Why this is a restored backup, in words; empty where it is none."""
        if len(self.missing) > max(FEW, SHARE * self.open):
            return f"{len(self.missing)} of the {self.open} open tasks are missing at once"
        return f"{len(self.back)} of the newest changes are undone" if self.back else ""


def look(run: Run) -> None:
    """Looks for every open task that was sent, and for the newest changes.

    A task that is missing alone was deleted by a person: that is recorded as an answer, and it is not made again. Many
    at once, or a change that the CRM showed and now shows as older, are a restored backup: then nothing is written and
    nothing taken over, until it is all there again or `churnkit sync repair`.

    Raises:
        Enough: If the CRM's copy was restored.
    """
    if not run.crm.capabilities.finds:
        return
    seen, lag = survey(run), run.crm.capabilities.lag.total_seconds()
    if seen.why_held and lag:  # what the last run made may not be to be seen yet
        run.clock.sleep(lag)
        seen = survey(run)
    why = seen.why_held
    with writing(run.box.engine) as connection:
        run.lease.renew(connection)
        before = held(connection, run.crm.name)
        if before and seen.missing and not why:  # the last ones of a backup are no deletions
            why = f"{len(seen.missing)} tasks are still missing ({before['why']})"
        if why and before is None:
            record(connection, run.when, f"sync:{run.crm.name}", "held", [{"after": {"why": why}}])
        since = before["since"] if before else run.when
        note(connection, _held(run.crm.name), json.dumps({"since": since, "why": why}) if why else None)
        if not why:
            keep_newest(connection, run.crm.name, seen.newest)
            run.report.gone += _take_deletions(run, connection, seen.missing)
    if why:
        run.report.problems.append(
            f"The CRM looks as if a backup had been restored: {why}. Nothing was written, and nothing taken over. If "
            "it was: churnkit sync repair --by NAME makes what is missing again. If people deleted the tasks on "
            "purpose: churnkit sync repair --by NAME --deleted.")
        raise Enough


def held(connection: sa.Connection, crm: str) -> dict[str, str] | None:
    """Since when and why nothing is written, or None."""
    kept = noted(connection, _held(crm))
    return json.loads(kept) if kept else None


def hold(connection: sa.Connection, crm: str, when: str, why: str) -> None:
    """Nothing is written from now on, if that is not so already."""
    if held(connection, crm) is None:
        note(connection, _held(crm), json.dumps({"since": when, "why": why}))


def release(connection: sa.Connection, crm: str) -> None:
    """Nothing is held any more."""
    note(connection, _held(crm), None)


def survey(run: Run) -> Seen:
    """Asks the CRM for every open task that was sent, and for the witnesses; writes nothing."""
    seen, tick = Seen(), run.crm.capabilities.resolution
    with run.box.engine.connect() as connection:
        # Without a time of change of the CRM's own (files have one that any copying moves) only what is missing counts.
        witnesses = _newest(connection, run.crm.name) if run.crm.capabilities.modified else {}
    closed = set(witnesses)
    for rows in sent(run, tasks.c.status.not_in(CLOSED), columns=tasks.c.key):
        keys = [row.key for row in rows]
        closed -= set(keys)
        found = run.crm.find(keys)
        seen.open += len(keys)
        seen.missing += [key for key in keys if key not in found]
        _compare(seen, found, witnesses, tick)
    for some in batches(sorted(closed), run.crm.capabilities.batch):
        _compare(seen, run.crm.find(some), witnesses, tick)
    return seen


def sent(run: Run, *which: sa.ColumnElement[bool], columns: Any = tasks) -> Iterator[Sequence[Any]]:
    """The rows of the tasks that were sent, or of `which` of them, a batch at a time, by key; `columns` may be few."""
    last, query = "", sa.select(columns).where(tasks.c.remote_id.is_not(None), *which).order_by(tasks.c.key)
    while True:
        with run.box.engine.connect() as connection:
            rows = connection.execute(query.where(tasks.c.key > last).limit(run.crm.capabilities.batch)).all()
        if not rows:
            return
        last = rows[-1].key
        yield rows


def keep_newest(connection: sa.Connection, crm: str, news: Mapping[str, str], *, anew: bool = False) -> None:
    """Keeps the newest changes (key: when) in mind, besides those that are; `anew` forgets the earlier ones."""
    known = {} if anew else _newest(connection, crm)
    merged = known | {key: max(when, known.get(key, "")) for key, when in news.items()}
    newest = sorted(merged.items(), key=lambda pair: pair[1], reverse=True)[:WITNESSES]
    note(connection, f"newest:{crm}", json.dumps(dict(newest)))


def changed_at(remotes: Iterable[Remote]) -> dict[str, str]:
    """Key = when it was changed last, of those of which the CRM tells it."""
    return {one.key: stamp(one.modified_at) for one in remotes if one.modified_at and not one.problem}


def take_deletion(run: Run, connection: sa.Connection, key: str) -> bool:
    """A person deleted the task in the CRM: it is dismissed here, and what waits to be sent about it is not sent.

    One that is closed already was tidied away: that is no answer, and what came of it stays.
    """
    given = Answer("dismissed", None, DELETED, run.when, run.when, run.crm.name)
    return row_of(connection, key).status not in CLOSED and answer(connection, key, given)


def _take_deletions(run: Run, connection: sa.Connection, missing: list[str]) -> int:
    """Where a CRM shows tasks late, one counts as deleted only when it is missing for longer than that."""
    name, now = f"missing:{run.crm.name}", run.clock.now()
    kept = noted(connection, name)
    since = json.loads(kept) if kept else {}
    lag = run.crm.capabilities.lag
    first = {key: since.get(key, stamp(now)) for key in missing}
    gone = [key for key in missing if now - dt.datetime.fromisoformat(first[key]) >= lag]
    note(connection, name, json.dumps({key: when for key, when in first.items() if key not in gone}))
    return sum(take_deletion(run, connection, key) for key in gone)


def _compare(seen: Seen, found: Mapping[str, Remote], witnesses: Mapping[str, str], tick: dt.timedelta) -> None:
    """Notes which of these changes are new and which were undone."""
    when = changed_at(found.values())
    seen.newest = dict(sorted((seen.newest | when).items(), key=lambda pair: pair[1])[-WITNESSES:])
    seen.back += [key for key in when.keys() & witnesses.keys()
                  if dt.datetime.fromisoformat(when[key]) + tick < dt.datetime.fromisoformat(witnesses[key])]


def _newest(connection: sa.Connection, crm: str) -> dict[str, str]:
    kept = noted(connection, f"newest:{crm}")
    return json.loads(kept) if kept else {}


def _held(crm: str) -> str:
    return f"held:{crm}"
