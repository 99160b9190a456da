"""The suite that every connector must pass: subclass Conformance in a test file and give it a world.

    from churnkit.testing.conformance import Conformance

    class TestMine(Conformance):
        @pytest.fixture
        def world(self, tmp_path):
            with MyWorld(tmp_path) as world:
                yield world
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from churnkit.errors import BusyError
from churnkit.outreach.crm.base import Capabilities, CrmDownError, Portal
from churnkit.outreach.dead import letters
from churnkit.outreach.lease import Lease
from churnkit.outreach.outbox import Outbox
from churnkit.outreach.repair import rebuild, repair
from churnkit.outreach.task import DISPOSITIONS
from churnkit.testing.faults import Faults
from churnkit.testing.samples import AT, CANARY, OWNERS, sample
from churnkit.testing.stage import DAY, KEYS, Stage
from churnkit.testing.world import World

HOUR = dt.timedelta(hours=1)


class Conformance(Faults):
    """One remote task per key, none lost, people's fields untouched, answers once, whatever happens."""

    @pytest.fixture
    def world(self) -> World:
        """The CRM that is tested: override this."""
        raise NotImplementedError("Give the suite a world: see docs/connectors.md.")

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        """The outbox's database."""
        return f"sqlite:///{tmp_path / 'outbox.db'}"

    @pytest.fixture
    def stage(self, world: World, url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture,
              capfd: pytest.CaptureFixture[str]) -> Iterator[Stage]:
        """An outbox and the world; afterwards the secret must stand nowhere."""
        caplog.set_level(logging.DEBUG)
        box = Outbox(url)
        stage = Stage(box, world)
        yield stage
        captured = capfd.readouterr()
        said = [stage.everything_said(), caplog.text, captured.out, captured.err]
        box.close()
        said += [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("outbox.db*")]
        assert not any(CANARY in text for text in said)

    def reads_back(self, stage: Stage) -> None:
        """Skips, saying so, what needs a CRM that can be asked."""
        if not stage.world.connect(stage.clock).capabilities.finds:
            pytest.skip("this CRM cannot be asked for its tasks")

    # what it says of itself

    def test_says_which_portal_it_is(self, stage: Stage) -> None:
        """A portal with nothing left to do, and what it can."""
        crm = stage.world.connect(stage.clock)
        portal = crm.check()
        assert isinstance(portal, Portal)
        assert (bool(portal.name), portal.todo) == (True, ())
        assert isinstance(crm.capabilities, Capabilities)
        assert crm.capabilities.batch >= 1
        assert crm.check(mend=True).todo == ()
        crm.close()

    def test_a_limit_of_requests_is_kept(self, stage: Stage) -> None:
        """A connector that declares a rate asks before every call that goes out."""
        crm = stage.world.connect(stage.clock)
        if crm.capabilities.rate is None:
            pytest.skip("this CRM has no limit of requests")

        def spend() -> None:
            raise CrmDownError("the budget is spent", wait=1.0)

        crm.spend = spend  # type: ignore[attr-defined]
        writes = stage.world.writes()
        with pytest.raises(CrmDownError, match="the budget is spent"):
            crm.check()
        if crm.capabilities.finds:
            with pytest.raises(CrmDownError, match="the budget is spent"):
                crm.find(KEYS[:1])
        assert stage.world.writes() == writes

    # the ordinary day

    def test_sends_once_and_then_nothing(self, stage: Stage) -> None:
        """Everything pending arrives with title, body, owner, due and key; ghosts never do."""
        stage.put([*(sample(n) for n in range(12)), sample(20, ghost=True)])
        assert stage.run().created == 12
        there = stage.there()
        assert {(one.status, one.owner, one.due) for one in there.values()} == {
            ("open", OWNERS[0], dt.date(2026, 11, 6))}
        title, body = stage.world.texts(KEYS[3])
        assert ("Call A03" in title, "use halved" in body) == (True, True)
        stage.holds(KEYS)

    def test_an_update_touches_what_is_ours(self, stage: Stage) -> None:
        """New words arrive; owner, due date and status that people changed stay theirs."""
        stage.put([sample(n) for n in range(3)])
        stage.run()
        stage.world.person(KEYS[0], AT + HOUR, owner=OWNERS[1], due=dt.date(2026, 12, 1))
        stage.world.person(KEYS[1], AT + HOUR, status="in_progress")
        stage.put([sample(n, title="Visit them", body="Why: use stopped.") for n in range(3)], AT + HOUR)
        report = stage.run(AT + 2 * HOUR)
        assert (report.updated, report.edits, report.answers) == (3, 1, 1)
        assert ["use stopped" in stage.world.texts(key)[1] for key in KEYS[:3]] == [True] * 3
        there = stage.there()
        assert (there[KEYS[0]].owner, there[KEYS[0]].due) == (OWNERS[1], dt.date(2026, 12, 1))
        assert there[KEYS[1]].status == "in_progress"
        stage.holds(KEYS[:3], AT + 2 * HOUR)

    @pytest.mark.parametrize("disposition", ["saved", *DISPOSITIONS["any"]])
    def test_answers_come_home_once(self, stage: Stage, disposition: str) -> None:
        """A person's answer is one outcome, with its note and its time, however often it is read."""
        stage.put([sample(0)])
        stage.run()
        stage.world.person(KEYS[0], AT + HOUR, status="completed", disposition=disposition, note="they <b>stay</b>")
        assert stage.run(AT + 2 * HOUR).answers == 1
        stage.holds(KEYS[:1], AT + 3 * HOUR)
        [outcome] = stage.box.outcomes()
        assert (outcome.status, outcome.disposition, outcome.note) == ("completed", disposition, "they <b>stay</b>")
        assert AT <= dt.datetime.fromisoformat(outcome.occurred_at) <= AT + 2 * HOUR

    def test_a_human_close_is_final(self, stage: Stage) -> None:
        """Neither new words nor a recall touch a task that a person ended."""
        stage.put([sample(0), sample(1)])
        stage.run()
        stage.world.person(KEYS[0], AT + HOUR, status="completed", disposition="saved")
        stage.world.person(KEYS[1], AT + HOUR, status="dismissed")
        stage.put([sample(n, body="Why: worse.") for n in range(2)], AT + HOUR)
        stage.box.recall("suite", AT + HOUR)
        stage.run(AT + 2 * HOUR)
        there = stage.there()
        assert (there[KEYS[0]].status, there[KEYS[0]].disposition) == ("completed", "saved")
        assert there[KEYS[1]].status == "dismissed"
        stage.holds(KEYS[:2], AT + 3 * HOUR)

    def test_a_recall_closes_what_is_untouched(self, stage: Stage) -> None:
        """Tasks that nobody began are dismissed there with the reason; a begun one stays."""
        stage.put([sample(0), sample(1)])
        stage.run()
        stage.world.person(KEYS[1], AT + HOUR, status="in_progress")
        stage.run(AT + HOUR)
        stage.box.recall("suite", AT + 2 * HOUR)
        assert stage.run(AT + 2 * HOUR).closed == 1
        assert {key: one.status for key, one in stage.there().items()} == {
            KEYS[0]: "dismissed", KEYS[1]: "in_progress"}
        stage.holds(KEYS[:2], AT + 3 * HOUR)

    def test_do_not_contact_is_obeyed_at_once(self, stage: Stage) -> None:
        """The answer suppresses the account, and what waits for it is not sent in the same run."""
        stage.put([sample(0), sample(1)])
        stage.run()
        stage.world.person(KEYS[0], AT + HOUR, status="completed", disposition="do_not_contact")
        second = sample(0, key="ab" * 20, episode="2026-11-02")
        stage.put([second], AT + HOUR)
        report = stage.run(AT + 2 * HOUR)
        assert (report.withheld, stage.box.suppressed(AT + 2 * HOUR)) == (1, {"A00": "do_not_contact"})
        stage.holds(KEYS[:2], AT + 3 * HOUR)

    def test_two_changes_within_one_second(self, stage: Stage) -> None:
        """The second change, in the same tick of the CRM's clock as the last one that was read, is not lost."""
        stage.put([sample(0), sample(1)])
        stage.run()
        tick = AT + HOUR
        stage.world.person(KEYS[0], tick, status="in_progress")
        assert stage.run(AT + 2 * HOUR).answers == 1
        stage.world.person(KEYS[1], tick, status="completed", disposition="saved")
        stage.world.person(KEYS[0], tick, status="completed", disposition="no_change")
        assert stage.run(AT + 3 * HOUR).answers == 2
        stage.holds(KEYS[:2], AT + 4 * HOUR)
        assert [one.status for one in stage.box.outcomes()].count("completed") == 2

    def test_text_is_made_harmless(self, stage: Stage) -> None:
        """Markup, formulas and control characters in a brief reach nobody as such."""
        stage.put([sample(0, title="=HYPERLINK(1)\x00", body="<script>alert(1)</script>\x07 & more\nnext line")])
        stage.run()
        title, body = stage.world.texts(KEYS[0])
        assert not any(sign in title + body for sign in "\x00\x07")
        assert "next line" in body
        assert "alert(1)" in body
        stage.holds(KEYS[:1])

    # two at once, and people in between

    def test_two_runs_at_once(self, stage: Stage) -> None:
        """The second one is told that another is under way; after the first one's lease has run out it takes over."""
        stage.put([sample(n) for n in range(12)])
        busy: list[str] = []

        def second(_: Any) -> None:
            with pytest.raises(BusyError, match="is under way"):
                stage.run()
            busy.append("busy")

        stage.run(batch=6, amid=second)
        assert busy != []
        stage.holds(KEYS)

    def test_a_run_that_lost_its_lease_stops(self, stage: Stage) -> None:
        """Another machine took over a run that hung: the hung one writes no more, and nothing is there twice."""
        stage.put([sample(n) for n in range(12)])
        taken: list[str] = []

        def hang(_: Any) -> None:
            if taken:
                return
            taken.append("over")
            stage.clock.time += HOUR
            other = Lease(stage.box.engine, stage.world.connect(stage.clock).name, stage.clock.now)
            other._holder = f"elsewhere|1|1|{other._holder}"  # noqa: SLF001 - a process of another machine
            with other.held():
                pass

        with pytest.raises(BusyError, match="took over"):
            stage.run(batch=6, amid=hang)
        stage.until_quiet()
        stage.holds(KEYS)

    @pytest.mark.parametrize("act", ["edit", "dismiss", "reassign", "delete"])
    def test_a_person_acts_during_the_run(self, stage: Stage, act: str) -> None:
        """What a person does between reading and writing is kept and comes home with the next run."""
        stage.put([sample(n) for n in range(12)])
        stage.run()
        stage.put([sample(n, body="Why: use stopped.") for n in range(12)], AT + HOUR)
        done: list[str] = []
        acts: dict[str, dict[str, Any]] = {
            "edit": {"due": dt.date(2026, 12, 1)}, "dismiss": {"status": "dismissed", "note": "no need"},
            "reassign": {"owner": OWNERS[1]}}

        def meddle(_: Any) -> None:
            if done:
                return
            done.append(act)
            if act == "delete":
                stage.world.delete(KEYS[2])
                return
            stage.world.person(KEYS[2], AT + HOUR, **acts[act])

        stage.run(AT + HOUR, amid=meddle)
        stage.until_quiet(AT + 2 * HOUR)
        stage.clock.time += DAY  # where the CRM shows things late, only what stays away was deleted
        stage.until_quiet(AT + 2 * HOUR)
        keys = [key for key in KEYS if key != KEYS[2] or act != "delete"]
        stage.holds(keys, AT + 3 * HOUR)
        [held] = stage.box.tasks(account_id="A02")
        expected = {"edit": ("open", OWNERS[0], dt.date(2026, 12, 1)),
                    "dismiss": ("dismissed", OWNERS[0], dt.date(2026, 11, 6)),
                    "reassign": ("open", OWNERS[1], dt.date(2026, 11, 6)),
                    "delete": ("dismissed", OWNERS[0], dt.date(2026, 11, 6))}[act]
        assert (held.status, held.owner, held.due) == expected

    def test_a_deletion_is_respected(self, stage: Stage) -> None:
        """One missing task is recorded as a person's answer and never made again."""
        stage.put([sample(n) for n in range(12)])
        stage.run()
        stage.world.delete(KEYS[4])
        stage.put([sample(4, body="Why: worse.")], AT + HOUR)
        stage.clock.time += DAY
        stage.run(AT + 2 * HOUR)
        stage.clock.time += DAY
        stage.until_quiet(AT + 2 * HOUR)
        stage.holds([key for key in KEYS if key != KEYS[4]], AT + 3 * HOUR)
        [outcome] = stage.box.outcomes()
        assert (outcome.key, outcome.status, outcome.note) == (KEYS[4], "dismissed", "deleted in the CRM")

    # who is who

    @pytest.mark.parametrize("change", [{"owner": OWNERS[2]}, {"owner": "nobody@us.example"}, {"account_id": "A99"}])
    def test_the_unmapped_are_dead_letters(self, stage: Stage, change: dict[str, str]) -> None:
        """An inactive or unknown owner or account goes to no default: the letter names it and the mend."""
        if not getattr(stage.world, "maps", True):
            pytest.skip("this CRM takes owners and accounts as they are")
        odd = sample(3, **change)
        stage.put([*(sample(n) for n in range(3)), odd])
        report = stage.run()
        assert (report.created, report.refused) == (3, 1)
        [letter] = letters(stage.box)
        assert letter.key == odd.key
        assert next(iter(change.values())) in letter.why
        assert "churnkit sync dead retry" in letter.why
        assert sorted(stage.there()) == sorted(KEYS[:3])

    # a restored backup, a lost ledger

    def test_a_restored_backup_is_held_and_repaired(self, stage: Stage) -> None:
        """Yesterday's copy: nothing is written until a person says so; then each task is there once."""
        self.reads_back(stage)
        stage.put([sample(n) for n in range(12)])
        stage.run()
        with stage.world.back_up():
            stage.put([sample(n) for n in range(12, 20)], AT + HOUR)
            stage.run(AT + HOUR)
            stage.world.person(sample(15).key, AT + HOUR, owner=OWNERS[1])
            stage.world.person(KEYS[0], AT + HOUR, status="completed", disposition="saved")
            stage.run(AT + 2 * HOUR)
        stage.clock.time += DAY
        before, outcomes = stage.world.writes(), len(stage.box.outcomes())
        held = stage.run(AT + 3 * HOUR)
        assert (held.writes, held.answers, held.edits) == (0, 0, 0)
        assert "backup" in held.problems[0]
        assert (stage.world.writes(), len(stage.box.outcomes())) == (before, outcomes)
        crm = stage.world.connect(stage.clock)
        mended = repair(stage.box, crm, at=AT + 4 * HOUR, by="ada", clock=stage.clock, rules=stage.rules)
        assert (mended.again, mended.close) == (8, 1)
        stage.until_quiet(AT + 4 * HOUR)
        stage.holds([sample(n).key for n in range(20)], AT + 5 * HOUR)
        assert stage.there()[sample(15).key].owner == OWNERS[1]
        assert stage.box.tasks(account_id="A00")[0].status == "completed"
        assert len(stage.box.outcomes()) == outcomes

    def test_a_lost_ledger_is_made_anew(self, stage: Stage, tmp_path: Path) -> None:
        """From the CRM by key: nothing is sent twice, and answers come home."""
        self.reads_back(stage)
        stage.put([sample(n) for n in range(12)])
        stage.run()
        stage.world.person(KEYS[2], AT + HOUR, status="completed", disposition="saved")
        old = {one.key: one.content_hash() for one in stage.box.tasks()}
        box = Outbox(tmp_path / "new.db")
        new = Stage(box, stage.world, stage.clock)
        crm = stage.world.connect(stage.clock)
        done = rebuild(box, crm, at=AT + 2 * HOUR, by="ada", clock=stage.clock, rules=new.rules)
        assert (done.rebuilt, done.strange) == (12, [])
        assert {one.key: one.content_hash() for one in box.tasks()} == old
        assert new.run(AT + 2 * HOUR).answers == 1
        new.put([sample(n) for n in range(12)], AT + 3 * HOUR)
        new.holds(KEYS, AT + 3 * HOUR)
        box.close()
