"""churnkit crm setup and test: what they say, what they leave behind, and what they refuse."""

import pytest
from typer.testing import CliRunner

from churnkit import cli
from churnkit.jobs import setup
from churnkit.outreach.crm import base
from churnkit.outreach.crm.base import Capabilities, Portal, Result
from churnkit.outreach.crm.inbox import inbox
from churnkit.outreach.crm.memory import MemoryCrm
from churnkit.testing.samples import AT


@pytest.fixture
def crm(monkeypatch, tmp_path):
    """A sandbox in memory behind the name of a real connector, and a workspace that uses it."""
    held = MemoryCrm(Capabilities(unique_keys=True))
    held.check = lambda mend=False: Portal("Acme test", "4711", held.kind, held.todo, ("made a field",) if mend else ())
    held.kind, held.todo = "sandbox", ()
    monkeypatch.setattr(base, "connect", lambda *_: held)
    setup.init(tmp_path)
    return held


def call(tmp_path, *words, **more):
    done = CliRunner().invoke(cli.app, ["crm", words[0], "memory", str(tmp_path), *words[1:]], **more)
    return done.exit_code, " ".join((done.stdout + done.stderr).split())


def test_setup_says_what_to_write(crm, tmp_path):
    """The portal, what was made, and the lines for churnkit.toml."""
    code, said = call(tmp_path, "setup")
    assert code == 0
    assert "Acme test (portal '4711', sandbox). Done: made a field" in said
    assert "crm = 'memory' and [crm_options] portal = '4711'" in said


def test_setup_says_what_is_left(crm, tmp_path):
    """What an administrator must do is said, and the exit code tells that it is not ready."""
    crm.todo = ("Give the app the scope crm.objects.tasks.write.",)
    code, said = call(tmp_path, "setup")
    assert (code, "by an administrator of the CRM: Give the app the scope" in said) == (3, True)


def test_a_trial_leaves_nothing(crm, tmp_path):
    """One task is written, read back, changed and removed; the default owner and account do."""
    code, said = call(tmp_path, "test", "--yes")
    assert (code, crm.tasks, crm.made) == (0, [], 1)
    assert "none is left behind" in said


def test_a_trial_asks_first(crm, tmp_path):
    """Without a yes nothing is written."""
    code, said = call(tmp_path, "test", input="n\n")
    assert (code, crm.made, "Nothing was written" in said) == (0, 0, True)


def test_a_trial_wants_a_sandbox(crm, tmp_path):
    """In production only where that is said."""
    crm.kind = "production"
    code, said = call(tmp_path, "test", "--yes")
    assert (code, crm.made, "is no sandbox: nothing was written" in said) == (1, 0, True)
    assert call(tmp_path, "test", "--yes", "--production")[0] == 0


def test_another_portal_is_refused(crm, tmp_path):
    """Where the workspace names one."""
    path = tmp_path / "churnkit.toml"
    lines = [line for line in path.read_text().splitlines() if not line.startswith("crm =")]
    path.write_text("\n".join(["crm = 'memory'", *lines, "[crm_options]", "portal = '815'", ""]))
    for words in (("setup",), ("test", "--yes")):
        code, said = call(tmp_path, *words)
        assert (code, "portal names '815'" in said, crm.made) == (1, True, 0)


def test_a_failed_trial_cleans_up(crm, tmp_path):
    """What was written is removed, and the step that failed is named."""
    write = crm.write
    crm.write = lambda items: write(items) if items[0].remote_id is None else [
        Result(items[0].task.key, "refused", why="read-only")]
    code, said = call(tmp_path, "test", "--yes")
    assert (code, crm.tasks) == (1, [])
    assert "'change': read-only" in said


def test_a_sync_may_wait_for_a_message(tmp_path):
    """Every minute it costs nothing; a message that was received makes one sync."""
    setup.init(tmp_path)

    def sync():
        done = CliRunner().invoke(cli.app, ["sync", str(tmp_path), "--if-poked"])
        return done.exit_code, "nothing is synced" in done.stdout + done.stderr

    assert sync() == (0, True)
    store = inbox({}, tmp_path)
    body = b'{"type": "poke", "timestamp": "2026-11-01T06:00:00Z", "data": {}}'
    assert store.take("msg_1", body, AT) == "poke"
    assert [sync(), sync()] == [(0, False), (0, True)]


def test_files_are_a_crm_too(tmp_path):
    """The files connector passes its own trial."""
    setup.init(tmp_path)
    done = CliRunner().invoke(cli.app, ["crm", "setup", "files", str(tmp_path)])
    assert (done.exit_code, "It is ready." in done.stdout + done.stderr) == (0, True)
    done = CliRunner().invoke(cli.app, ["crm", "test", "files", str(tmp_path), "--yes"])
    assert done.exit_code == 0, done.stderr
    assert list((tmp_path / "crm" / "tasks").iterdir()) == []
