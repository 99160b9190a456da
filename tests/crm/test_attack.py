"""What an enemy tries on every connector: notes that a CRM gives back changed, and answers of odd signs."""

import datetime as dt
import json

import pytest
from files_world import FilesWorld
from salesforce_world import SalesforceWorld

from churnkit.outreach.outbox import Outbox
from churnkit.testing.samples import AT, sample
from churnkit.testing.stage import KEYS, Stage

HOUR = dt.timedelta(hours=1)
NOTES = ("x" * 40_000, "  two  spaces ", "line\r\nline", "bell\x07", "\u202eturned", "<b>&amp;</b>", "=1+1")


@pytest.fixture(params=["hubspot", "salesforce", "files"])
def stage(request, tmp_path):
    """An outbox, and a CRM that can be asked."""
    worlds = {"salesforce": SalesforceWorld, "files": FilesWorld}
    box = Outbox(tmp_path / "outbox.db")
    if request.param == "hubspot":
        yield Stage(box, request.getfixturevalue("portal")())
    else:
        with worlds[request.param](tmp_path) as world:
            yield Stage(box, world)
    box.close()


@pytest.mark.parametrize("note", NOTES, ids=range(len(NOTES)))
def test_a_closing_note_is_no_answer(stage, note):
    """A person closes a task here, with any note: the CRM's copy of these words changes nothing at home."""
    stage.put([sample(0)])
    stage.run()
    stage.box.finish(KEYS[0], status="completed", by="ada", at=AT, disposition="saved", note=note)
    assert stage.run(AT + HOUR).closed == 1
    stage.clock.time += dt.timedelta(days=1)
    assert stage.run(AT + 2 * HOUR).answers == 0
    assert (stage.box.tasks()[0].status, len(stage.box.outcomes())) == ("completed", 1)
    stage.holds(KEYS[:1], AT + 3 * HOUR)


@pytest.mark.parametrize("wrong", [["saved"], {"a": 1}, 7])
def test_a_disposition_of_another_kind_is_named(tmp_path, wrong):
    """A file edited by hand may hold anything: it is a problem that names the file, and the others go on."""
    with FilesWorld(tmp_path) as world:
        stage = Stage(Outbox(tmp_path / "outbox.db"), world)
        stage.put([sample(0), sample(1)])
        stage.run()
        path = world.tasks_folder / f"{KEYS[0]}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "disposition": wrong}))
        world.person(KEYS[1], AT + HOUR, status="completed", disposition="saved")
        report = stage.run(AT + HOUR)
        assert (report.answers, len(report.problems)) == (1, 1)
        assert f"{KEYS[0]}.json: the disposition" in report.problems[0]
        stage.box.close()
