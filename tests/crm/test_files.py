"""The files connector and the one in memory under the conformance suite, and what can be wrong with a disk."""

import json
import os
import resource
import stat
from contextlib import contextmanager

import pytest
from databases import BothDatabases
from files_world import FilesWorld
from memory_world import WEAKEST, MemoryWorld

from churnkit.outreach.crm.base import Capabilities, CrmDeniedError, CrmDownError, CrmUnsureError, Item
from churnkit.outreach.crm.files import FilesCrm
from churnkit.testing.conformance import Conformance
from churnkit.testing.kills import Kills
from churnkit.testing.samples import AT, sample


class TestFiles(BothDatabases, Conformance, Kills):
    """A folder."""

    @pytest.fixture
    def world(self, tmp_path):
        """People who edit its files."""
        with FilesWorld(tmp_path) as world:
            yield world


class TestMemory(BothDatabases, Conformance):
    """From the weakest CRM on: no unique keys, creates that return no id, ten rows a page."""

    @pytest.fixture(params=[WEAKEST, Capabilities(unique_keys=True, upsert=True)], ids=["weakest", "strong"])
    def world(self, request):
        """With the capabilities of each."""
        with MemoryWorld(request.param) as world:
            yield world


@pytest.fixture
def crm(tmp_path):
    crm = FilesCrm(tmp_path / "crm")
    crm.check()
    return crm


@contextmanager
def room_for(size):
    """Files may grow to so many bytes: the system refuses more, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def item(n=0, **changes):
    task = sample(n, **changes)
    return Item(task, task.content_hash())


def names(crm):
    return sorted(path.name for path in (crm.folder / "tasks").iterdir())


def test_a_full_disk_leaves_whole_files(crm):
    """The row that has no room is for later, those before it are written, and of no file there is half."""
    with room_for(2000):
        results = crm.write([item(0), item(1, body="long " * 2000), item(2)])
    assert [result.state for result in results] == ["written", "again", "unsent"]
    assert names(crm) == [f"{sample(0).key}.json"]
    assert "has room" in results[1].why
    crm.write([item(0, body="short")])
    with room_for(2000), pytest.raises(CrmDownError, match="has room"):
        crm.write([item(0, body="long " * 2000)])
    assert json.loads((crm.folder / "tasks" / f"{sample(0).key}.json").read_text())["body"] == "short"


def test_a_view_that_has_no_room_is_said(crm):
    """The table is as it was; the tasks themselves are written."""
    crm.write([item(n) for n in range(9)])
    crm.close()
    before = (crm.folder / "tasks.csv").read_text()
    crm.write([item(n, body="new") for n in range(9)])
    with room_for(100), pytest.raises(CrmDownError, match="cannot be written"):
        crm.close()
    assert (crm.folder / "tasks.csv").read_text() == before
    assert sorted(path.name for path in crm.folder.iterdir()) == ["tasks", "tasks.csv"]


def test_no_folder_where_a_file_stands(crm, tmp_path):
    """Named, with the mend, and nobody waits for it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(CrmDeniedError, match="Name another one"):
        FilesCrm(tmp_path / "file").check(mend=True)


def test_a_folder_that_does_not_reach_the_disk_is_in_doubt(crm, monkeypatch):
    """The files are there, and after a power failure they may not be: they are looked up."""
    def fail():
        raise OSError(5, "Input/output error")

    crm.write([item(0)])
    monkeypatch.setattr("os.fsync", lambda number: fail() if stat.S_ISDIR(os.fstat(number).st_mode) else None)
    with pytest.raises(CrmUnsureError, match="Input/output error"):
        crm.write([item(1)])
    assert sorted(crm.find([sample(0).key, sample(1).key])) == sorted([sample(0).key, sample(1).key])


def test_what_a_killed_run_left_half_done_goes(crm):
    """A draft is no task, and the next run's end takes it away."""
    crm.write([item(0)])
    (crm.folder / "tasks" / f".{sample(1).key}.json.1.tmp").write_text('{"key": ')
    assert [remote.key for page in crm.changes(None) for remote in page.remotes] == [sample(0).key]
    crm.close()
    assert names(crm) == [f"{sample(0).key}.json"]


@pytest.mark.parametrize("text", [b"{", b"[]", b"[" * 50_000, b'{"key": "other"}', b"\xff\xfe"])
def test_a_broken_file_fails_alone(crm, text):
    """It is refused with its name, it is no deletion, and the others go through."""
    crm.write([item(0), item(1)])
    (crm.folder / "tasks" / f"{sample(0).key}.json").write_bytes(text)
    results = crm.write([item(0, body="new"), item(1, body="new")])
    assert [result.state for result in results] == ["refused", "written"]
    assert sample(0).key in results[0].why
    assert crm.find([sample(0).key])[sample(0).key].problem != ""


def test_what_a_person_wrote_wrongly_stays_and_is_said(crm):
    """An update goes through, and the reading names what cannot be understood; half a sign breaks nothing."""
    crm.write([item(0)])
    path = crm.folder / "tasks" / f"{sample(0).key}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "status": "done", "disposition_note": "so \ud800"}))
    assert [result.state for result in crm.write([item(0, body="new")])] == ["written"]
    data = json.loads(path.read_text())
    assert (data["body"], data["disposition_note"], data["status"]) == ("new", "so \ud800", "done")
    [page] = crm.changes(None)
    assert "the status 'done' is not known" in page.remotes[0].problem


def test_control_characters_reach_no_reader(crm):
    """Neither the file nor the table; a formula is none, and a line break does not make two rows."""
    crm.write([item(0, title="=HYPERLINK(1)\x00\u202e", body="a\x07b\nnext", account_id="-7")])
    path = crm.folder / "tasks" / f"{sample(0).key}.json"
    data = json.loads(path.read_text())
    assert (data["title"], data["body"], data["account_id"]) == ("=HYPERLINK(1)", "ab\nnext", "-7")
    path.write_text(json.dumps({**data, "owner": "@ann\nof us\x00"}))
    crm.close()
    lines = (crm.folder / "tasks.csv").read_text().splitlines()
    assert len(lines) == 2
    assert "'=HYPERLINK(1)" in lines[1]
    assert "'@ann of us" in lines[1]


def test_answers_that_cannot_be_read_are_said(crm):
    """A row that is understood counts; one that is not names the choices, and a table that cannot be read the mend."""
    crm.write([item(0)])
    (crm.folder / "answers.csv").write_text(f"key,status\n{sample(0).key},completed\n")
    [page] = crm.changes(None)
    assert [(remote.status, remote.modified_at >= AT) for remote in page.remotes] == [("completed", True)]
    (crm.folder / "answers.csv").write_text(f"key,status\n{sample(0).key},done\n")
    [page] = crm.changes(None)
    assert "Use one of: open" in page.remotes[0].problem
    (crm.folder / "answers.csv").unlink()
    (crm.folder / "answers.csv").symlink_to("/proc/self/mem")  # a file that even the superuser cannot read from there
    with pytest.raises(CrmDeniedError, match="cannot be read"):
        list(crm.changes(None))
