"""The files connector's world: a folder, people who edit the files in it, and what can be wrong with a folder."""

import contextlib
import datetime as dt
import json
import os
import resource
import shutil
import tempfile
from pathlib import Path

from churnkit.outreach.crm.base import Remote, connect
from churnkit.testing.samples import AT, sample

NAMES = {"note": "disposition_note", "owner": "owner", "due": "due", "status": "status", "disposition": "disposition"}
POISON = sample(3).key


class FilesWorld:
    """A workspace's folder. A broken file is the poison; a disk without room is what refuses."""

    name = "files"
    faults = ("rows", "poison", "refused", "half")
    maps = False

    def __init__(self, folder):
        self.folder, self.options, self.env = Path(folder), {"folder": "crm"}, {}
        self.tasks_folder = self.folder / "crm" / "tasks"
        self._count, self._before, self._full, self._half, self._time = 0, None, 0, 0, AT

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.heal()

    def connect(self, clock=None):
        """A new connector, whose written rows are counted; the files' times are the clock's where that is later."""
        crm = connect(self.name, self.options, self.folder)
        write = crm.write

        def counted(items):
            with self._disk(crm, len(items)):
                results = write(items)
            self._time = max(self._time, clock.now() if clock else AT)
            for result in results:
                if result.state == "written":
                    self._count += 1
                    self._stamp(result.key)
            return results

        crm.write = counted
        return crm

    def tasks(self):
        """Every file that can be read."""
        return [Remote(data["key"], path.name, "", data["content_hash"], status=data["status"],
                       disposition=data["disposition"], note=data["disposition_note"], owner=data["owner"],
                       due=dt.date.fromisoformat(data["due"]))
                for path in sorted(self.tasks_folder.glob("*.json")) if (data := self._read(path))]

    def texts(self, key):
        """Title and body."""
        data = self._read(self._path(key))
        return data["title"], data["body"]

    def person(self, key, at, **changes):
        """A person edits the task's file."""
        path = self._path(key)
        told = {NAMES[name]: value.isoformat() if isinstance(value, dt.date) else value
                for name, value in changes.items()}
        before = dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC)
        path.write_text(json.dumps({**self._read(path), **told, "answered_by": "ann@us.example"}))
        self._time = max(self._time, at, before)  # a disk's clock does not go back either
        self._stamp(key)

    def delete(self, key):
        """A person deletes the task's file."""
        self._path(key).unlink()

    def fail(self, fault, times=1):
        """Fills the disk, or breaks the file of A03 until `heal`."""
        if fault == "refused":
            self._full = 1000
        elif fault == "half":
            self._half += times
        elif self._before is None:
            path = self._path(POISON)
            self._before = path.read_text() if path.is_file() else ""
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text('{"key": ')

    def heal(self):
        """Room on the disk, and the file as it was."""
        self._full = self._half = 0
        if self._before:
            self._path(POISON).write_text(self._before)
            self._stamp(POISON)
        elif self._before == "":
            self._path(POISON).unlink()
        self._before = None

    @contextlib.contextmanager
    def back_up(self):
        """Keeps a copy of the folder, and puts it back at the end."""
        with tempfile.TemporaryDirectory() as kept:
            shutil.copytree(self.tasks_folder, f"{kept}/tasks")
            yield
            shutil.rmtree(self.tasks_folder)
            shutil.copytree(f"{kept}/tasks", self.tasks_folder)

    def writes(self):
        """Rows written by the connectors that were made here."""
        return self._count

    @contextlib.contextmanager
    def _disk(self, crm, rows):
        """A disk that has no room, or room for half of the rows: the system itself refuses to write more."""
        left = [0 if self._full else rows // 2 if self._half else -1]
        self._full, self._half = max(0, self._full - 1), max(0, self._half - bool(left[0] > 0))
        before, write = resource.getrlimit(resource.RLIMIT_FSIZE), crm._write

        def limited(item):
            if left[0] == 0:
                resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
            left[0] -= 1
            return write(item)

        crm._write = limited
        try:
            yield
        finally:
            crm._write = write
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    def _stamp(self, key):
        os.utime(self._path(key), (self._time.timestamp(), self._time.timestamp()))

    def _path(self, key):
        return self.tasks_folder / f"{key}.json"

    def _read(self, path):
        with contextlib.suppress(ValueError):
            return json.loads(path.read_text())
        return None
