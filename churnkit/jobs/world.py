"""A quarter of a simulated workspace: plans are made, simulated people work, and what they did changes what follows."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from churnkit import jobs
from churnkit.errors import DataError, SettingsError
from churnkit.jobs.report import Report
from churnkit.jobs.workspace import open_outbox
from churnkit.settings import load

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("churnkit")
CONTACTS, ANSWERS = "contacts.parquet", "answers.parquet"
"""What was done so far, beside the truth."""


def play_quarter(folder: Path, at: dt.datetime, *, weeks: int = 13, every: int = 4, seed: int = 7) -> Report:
    """From `at` on, every so many weeks a day's stations, then people's work, week by week, until the quarter is over.

    What was done stays with the book, beside its truth, so that the next quarter goes on from there. The raw
    tables hold the true consequences afterwards.

    Raises:
        DataError: If the workspace holds no simulated book, or the book ends before the quarter does.
        SettingsError: If tasks do not go into files there.
    """
    from churnkit.simulate import read_book

    settings = load(folder)
    if settings.crm != "files":
        raise SettingsError(f"The simulated account managers answer in files, and '{folder}' has crm = "
                            f"'{settings.crm}'. Set crm = 'files' in churnkit.toml.")
    book, over = read_book(settings.path(settings.raw)), at + dt.timedelta(weeks=weeks)
    if over > book.end:
        raise DataError(f"The book ends on {book.end:%Y-%m-%d}, before {weeks} weeks from {at:%Y-%m-%d} are over. "
                        "Start earlier, or simulate a later end: churnkit simulate DIR --end DATE.")
    rows = []
    for start in range(0, weeks, every):
        now = at + dt.timedelta(weeks=start)
        log.info("week %d of %d: planning", start + 1, weeks)
        planned = jobs.run(folder, now)
        done = week_by_week(folder, now, weeks=min(every, weeks - start), seed=seed)
        rows.append({"from": f"{now:%Y-%m-%d}", "tasks": len(planned.data["plan"]["tasks"]),
                     "ghosts": planned.data["plan"]["ghosts"], **done})
    return Report("quarter", rows=rows, notes=[f"What it came to: churnkit impact {folder} --at {over:%Y-%m-%d}"],
                  data={"at": at.isoformat(), "until": over.isoformat(), "rounds": rows})


def week_by_week(folder: Path, at: dt.datetime, *, weeks: int = 4, seed: int = 7) -> dict[str, int]:
    """People work on what is open and new at `at`; their answers come home week by week, and the book goes on anew."""
    from churnkit.simulate import read_book, work

    settings = load(folder)
    book, crm = read_book(settings.path(settings.raw)), settings.root / settings.crm_options.get("folder", "crm")
    contacts, answers = _kept(book.truth / CONTACTS), _kept(book.truth / ANSWERS)
    known = {*(() if contacts is None else contacts["key"]), *(() if answers is None else answers["key"])}
    told = set() if contacts is None else set(contacts.loc[contacts["key"] == "", "account_id"])
    new = [task for task in open_outbox(settings).open_tasks() if task.key not in known and (
        task.account_id not in told if task.ghost else (crm / "tasks" / f"{task.key}.json").is_file())]
    done = work(book, new, at=at, contacts=contacts, seed=seed)
    log.info("%d tasks worked on, %d contacts", done.answers["key"].nunique(), len(done.contacts))
    answers, contacts = (_both(*pair) for pair in ((answers, done.answers), (contacts, done.contacts)))
    for week in range(1, weeks + 1):
        until = at + dt.timedelta(weeks=week)
        hand_in(crm, answers, until - dt.timedelta(weeks=1), until)
        jobs.sync(folder, until)
    answers.to_parquet(book.truth / ANSWERS)
    contacts.to_parquet(book.truth / CONTACTS)
    book.again(contacts)
    return {"worked": int(done.answers["key"].nunique()), "contacts": len(done.contacts),
            "reached": int(done.contacts["reached"].sum()), "by_hand": int((done.contacts["key"] == "").sum())}


def _kept(file: Path) -> pd.DataFrame | None:
    import pandas as pd

    return pd.read_parquet(file) if file.is_file() else None


def _both(old: pd.DataFrame | None, new: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    frames = [frame for frame in (old, new) if frame is not None and len(frame)]
    return pd.concat(frames, ignore_index=True) if frames else new


def hand_in(crm: Path, answers: pd.DataFrame, start: dt.datetime, until: dt.datetime) -> int:
    """Writes the answers of that span into the tasks' files, as people would, each at its own time; says how many."""
    from churnkit.outreach.crm.files import write_atomically

    span = answers[(answers["answered_at"] >= start) & (answers["answered_at"] < until)]
    handed = 0
    for row in span.to_dict("records"):
        path = crm / "tasks" / f"{row['key']}.json"
        if not path.is_file():
            continue  # never sent, or taken away
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["status"] in {"completed", "dismissed"}:
            continue  # closed by churnkit in the meantime
        data |= {"status": row["status"], "disposition": row["disposition"], "disposition_note": row["note"],
                 "answered_by": row["by"]}
        write_atomically(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")
        os.utime(path, (row["answered_at"].timestamp(),) * 2)
        handed += 1
    return handed
