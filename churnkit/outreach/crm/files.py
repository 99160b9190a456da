"""A folder as a CRM: one JSON file per task, a CSV view of all, and answers from the files or from answers.csv."""

from __future__ import annotations

import contextlib
import csv
import datetime as dt
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from churnkit.errors import OutreachError
from churnkit.outreach.crm.base import (
    Capabilities,
    CrmDeniedError,
    CrmDownError,
    CrmRefusedError,
    CrmUnsureError,
    Item,
    Page,
    Portal,
    Remote,
    Result,
)
from churnkit.outreach.crm.options import refuse_unknown
from churnkit.outreach.crm.words import cell, plain
from churnkit.outreach.task import DISPOSITIONS, LOCAL

ANSWERS = "answers.csv"
VIEW = "tasks.csv"
_PEOPLE = ("status", "disposition", "disposition_note", "owner", "due", "answered_by")
_VIEW = ("key", "due", "priority", "owner", "status", "disposition", "type", "title", "account_id", "play", "target",
         "value", "currency", "score")
_WORDS = {word for words in DISPOSITIONS.values() for word in words}
_OURS = LOCAL | {"approval", "ghost", "snoozed_until"}
"""What is not written into the files: it is nobody's there."""
_STATES = ("open", "in_progress", "snoozed", "completed", "dismissed")


class FilesCrm:
    """Tasks as files: `tasks/<key>.json`, `tasks.csv` to look at, `answers.csv` to answer in.

    People answer by editing `status`, `disposition` and `disposition_note` in a task's file, or by a row in answers.csv
    (key, status, disposition, note, by); the last row of a key counts, and goes before the file.
    """

    name = "files"
    capabilities = Capabilities(unique_keys=True, upsert=True, modified=False, batch=500, page=500,
                                resolution=dt.timedelta(microseconds=1))

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._tasks = self.folder / "tasks"

    def check(self, *, mend: bool = False) -> Portal:
        """The folder, made with `mend` where it is missing; else the first task makes it."""
        made = () if self._tasks.is_dir() or not mend else (f"made the folder {self._tasks}.",)
        if mend:
            self._prepare()
        return Portal(f"folder {self.folder}", made=made)

    def find(self, keys: Sequence[str]) -> Mapping[str, Remote]:
        """The tasks of these keys that are there."""
        return {key: remote for key in keys if (remote := self._shown(key)) is not None}

    def write(self, items: Sequence[Item]) -> Sequence[Result]:
        """Writes each task's file whole or not at all; what people own in it stays, and a deleted one stays deleted."""
        self._prepare()
        results: list[Result] = []
        for place, item in enumerate(items):
            try:
                results.append(self._write(item))
            except (OSError, CrmDownError) as error:
                why = (f"'{self._tasks}' cannot be written ({error.strerror}). See that the disk has room."
                       if isinstance(error, OSError) else str(error))
                if not any(result.state == "written" for result in results):
                    raise CrmDownError(why) from None
                results.append(Result(item.task.key, "again", why=why))
                results += [Result(left.task.key, "unsent", why=why) for left in items[place + 1:]]
                break
        self._settle()
        return results

    def changes(self, since: str | None) -> Iterator[Page]:
        """Every task, with the answers given for it: the engine sees for itself what is new."""
        answers, keys = self._answers(), sorted(path.stem for path in self._tasks.glob("*.json"))
        for start in range(0, len(keys), self.capabilities.page):
            shown = (self._shown(key, answers.get(key)) for key in keys[start:start + self.capabilities.page])
            yield Page([remote for remote in shown if remote is not None], since)

    def remove(self, remote_ids: Sequence[str]) -> None:
        """Takes files away."""
        for name in remote_ids:
            self._path(name.removesuffix(".json")).unlink(missing_ok=True)

    def close(self) -> None:
        """Writes tasks.csv anew, and takes away what killed runs left half done.

        Raises:
            CrmDownError: If it cannot be written, as when somebody has it open where that locks it.
        """
        self._prepare()
        text = io.StringIO()
        view = csv.writer(text, lineterminator="\n")
        view.writerow(_VIEW)
        rows = [data for path in self._tasks.glob("*.json") if (data := self._understood(path.stem)) is not None]
        for data in sorted(rows, key=lambda row: (str(row.get("due")), str(row.get("key")))):
            view.writerow([cell(_flat(data.get(name))) for name in _VIEW])
        try:
            write_atomically(self.folder / VIEW, text.getvalue())
            for draft in self._tasks.glob(".*.tmp"):
                draft.unlink(missing_ok=True)
        except OSError as error:
            raise CrmDownError(f"'{self.folder / VIEW}' cannot be written ({error.strerror}); the tasks are. "
                               "See that the disk has room, and close the table where it is open.") from None

    def _prepare(self) -> None:
        try:
            self._tasks.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CrmDeniedError(f"The tasks' folder '{self.folder}' cannot be made ({error.strerror}). Name another "
                                 "one: [crm_options] folder = '...'.") from None

    def _settle(self) -> None:
        """The folder itself on the disk: a file that is renamed may else have its old name after the power fails."""
        if os.name != "posix":
            return
        try:
            folder = os.open(self._tasks, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise CrmUnsureError(f"'{self._tasks}' could not be brought to the disk ({error.strerror}).") from None

    def _write(self, item: Item) -> Result:
        try:
            before = self._read(item.task.key)
        except CrmRefusedError as refused:
            return Result(item.task.key, "refused", why=str(refused))
        if before is None and item.remote_id is not None:
            return Result(item.task.key, "gone", why="a person deleted it")
        told = {name: plain(value) if isinstance(value, str) else value for name, value in item.task.to_dict().items()
                if name not in _OURS}
        data: dict[str, Any] = {**told, "disposition_note": None, "answered_by": None}
        if before is not None:
            data |= {name: before[name] for name in _PEOPLE if name in before}
        if item.closing and data["status"] == "open":
            data |= {"status": "dismissed", "disposition_note": item.closing, "answered_by": "churnkit"}
        data["content_hash"] = item.content_hash
        write_atomically(self._path(item.task.key), json.dumps(data, indent=2, ensure_ascii=False) + "\n")
        return Result(item.task.key, "written", self._shown(item.task.key))

    def _path(self, key: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{1,64}", key):
            raise CrmRefusedError(f"'{key}' is no task key: keys are at most 64 hexadecimal digits.")
        return self._tasks / f"{key}.json"

    def _understood(self, key: str) -> dict[str, Any] | None:
        try:
            return self._read(key)
        except CrmRefusedError:
            return None

    def _read(self, key: str) -> dict[str, Any] | None:
        """A task's file, or None where there is none; one that cannot be understood is an error that names it."""
        path = self._path(key)
        try:
            data = json.loads(path.read_text(encoding="utf-8-sig"))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError, PermissionError, IsADirectoryError) as error:
            raise CrmRefusedError(f"{path}: cannot be read ({error}). Mend the file, or take it away.") from None
        except OSError as error:  # of the disk or the network, and not of this file
            raise CrmDownError(f"{path}: cannot be read just now ({error.strerror}).") from None
        if not isinstance(data, dict) or data.get("key") != key:
            raise CrmRefusedError(f"{path}: is not the task of that key. Mend its 'key', or take it away.")
        return data

    def _shown(self, key: str, answer: _Answer | None = None) -> Remote | None:
        """A task with the answer given for it, or what is wrong with them."""
        try:
            remote = self._remote(key)
            return answer.on(remote) if answer and remote else remote
        except CrmRefusedError as refused:
            return Remote(key, f"{key}.json", "", problem=str(refused))

    def _remote(self, key: str) -> Remote | None:
        data = self._read(key)
        if data is None:
            return None
        path = self._path(key)
        status, disposition = _known(str(data.get("status") or "open"), data.get("disposition"), str(path))
        due = data.get("due")
        people = json.dumps([data.get(name) for name in _PEOPLE], default=str)
        return Remote(
            key=key, remote_id=path.name, version=hashlib.sha256(people.encode()).hexdigest()[:16],
            content_hash=data.get("content_hash"), status=status, disposition=disposition,
            note=_text(data.get("disposition_note")), owner=_text(data.get("owner")),
            due=_date(due, path) if due else None, by=_text(data.get("answered_by")),
            modified_at=_changed(path), content=data)

    def _answers(self) -> dict[str, _Answer]:
        """The last row per key of answers.csv."""
        path = self.folder / ANSWERS
        if not path.is_file():
            return {}
        when, found = _changed(path), {}
        for number, row in enumerate(_rows(path), start=2):
            said = {name: (value or "").strip() for name, value in row.items() if isinstance(name, str)}
            key = said.get("key", "").lstrip("'")
            if key:
                found[key] = _Answer(said.get("status") or "completed", said.get("disposition") or None,
                                     said.get("note") or None, said.get("by") or None, when, f"{path}, line {number}")
        return found


@dataclass(frozen=True)
class _Answer:
    """A row of answers.csv; without a status it is none."""

    status: str = ""
    disposition: str | None = None
    note: str | None = None
    by: str | None = None
    modified_at: dt.datetime | None = None
    where: str = ""

    def on(self, remote: Remote) -> Remote:
        """The task with this answer given."""
        if not self.status:
            return remote
        _known(self.status, self.disposition, self.where)
        return replace(remote, status=self.status, disposition=self.disposition, note=self.note,
                       by=self.by or remote.by, modified_at=self.modified_at)


def connect(options: Mapping[str, str], root: Path) -> FilesCrm:
    """A folder as CRM; `folder` names it, by default `crm` in the workspace."""
    refuse_unknown(options, ("folder",), "the files CRM")
    return FilesCrm(root / options.get("folder", "crm"))


def write_atomically(path: Path, text: str) -> None:
    """The file holds the old text or the new one, whatever happens."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:  # half a sign is none
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def _rows(path: Path) -> Iterator[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            if "key" not in (rows.fieldnames or ()):
                raise OutreachError(f"{path}: has no column 'key'. Its first line must be: "
                                    "key,status,disposition,note,by")
            yield from rows
    except OSError as error:
        raise CrmDeniedError(f"{path}: cannot be read ({error.strerror}). Let this user read it, or take it "
                             "away.") from None
    except UnicodeDecodeError as error:
        raise OutreachError(f"{path}: byte {error.start} is not UTF-8. Save the file as UTF-8.") from None
    except csv.Error as error:
        raise OutreachError(f"{path}: is no CSV ({error}). Save it as comma-separated UTF-8.") from None


def _changed(path: Path) -> dt.datetime | None:
    """When a file was changed last; None where it went away meanwhile."""
    try:
        return dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC)
    except OSError:
        return None


def _flat(value: Any) -> Any:
    """Text for one cell: what people wrote into a file by hand may hold anything."""
    return " ".join(plain(value).split()) if isinstance(value, str) else value


def _known(status: str, disposition: Any, where: str) -> tuple[str, str | None]:
    if status not in _STATES:
        raise CrmRefusedError(f"{where}: the status '{status}' is not known. Use one of: {', '.join(_STATES)}.")
    if disposition and (not isinstance(disposition, str) or disposition not in _WORDS):
        raise CrmRefusedError(f"{where}: the disposition '{disposition}' is not known. Use one of: "
                         f"{', '.join(sorted(_WORDS))}.")
    return status, disposition or None


def _date(text: Any, path: Path) -> dt.date:
    try:
        return dt.date.fromisoformat(str(text)[:10])
    except ValueError:
        raise CrmRefusedError(f"{path}: 'due' is no date ({text!r}). Write it as 2026-11-30.") from None


def _text(value: Any) -> str | None:
    return str(value) if value else None
