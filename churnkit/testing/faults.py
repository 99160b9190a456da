"""Faults of a line, of a machine and of a day: the part of the conformance suite that breaks things."""

from __future__ import annotations

import datetime as dt
import traceback
from typing import Any

import pytest
import sqlalchemy as sa

from churnkit.errors import ChurnkitError
from churnkit.outreach.dead import letters, retry
from churnkit.testing.samples import AT, CANARY, OWNERS, sample
from churnkit.testing.server import FAULTS
from churnkit.testing.stage import DAY, KEYS, Stage

HOUR = dt.timedelta(hours=1)
SCHEDULE = (*FAULTS, "half", "rows", "quota", "expired", "refused")
"""What befalls calls that write; see World.faults."""


class Faults:
    """After any fault, and runs until all is quiet, there is one task per key, and none is lost."""

    def can(self, stage: Stage, *faults: str) -> None:
        """Skips, saying so, what cannot happen here."""
        missing = [fault for fault in faults if fault not in stage.world.faults]
        if missing:
            pytest.skip(f"this CRM knows no '{missing[0]}'")

    @pytest.mark.parametrize("fault", SCHEDULE)
    @pytest.mark.parametrize("what", ["create", "update"])
    def test_survives(self, stage: Stage, fault: str, what: str) -> None:
        """After any fault, and runs until all is quiet, there is one task per key, and none is lost."""
        self.can(stage, fault)
        stage.put([sample(n) for n in range(12)])
        if what == "update":
            stage.run()
            stage.world.person(KEYS[5], AT + HOUR, owner=OWNERS[1], status="in_progress")
            stage.put([sample(n, body="Why: use stopped.") for n in range(12)], AT + HOUR)
        stage.world.fail(fault, 2)
        first = stage.run(AT + 2 * HOUR, batch=5)
        if fault in {"quota", "expired", "refused"}:
            assert first.problems != []
        stage.clock.time += DAY
        stage.world.heal()
        stage.until_quiet(AT + 3 * HOUR)
        if fault == "rows" and letters(stage.box):
            retry(stage.box, [one.key for one in letters(stage.box)], "ada", AT + 4 * HOUR)
            stage.until_quiet(AT + 4 * HOUR)
        stage.holds(KEYS, AT + 5 * HOUR)
        if what == "update":
            assert {"use stopped" in stage.world.texts(key)[1] for key in KEYS} == {True}
            assert (stage.there()[KEYS[5]].owner, stage.there()[KEYS[5]].status) == (OWNERS[1], "in_progress")

    def test_survives_one_fault_after_another(self, stage: Stage) -> None:
        """All the faults of a line in a row, over several runs."""
        line = [fault for fault in FAULTS if fault in stage.world.faults]
        if not line:
            pytest.skip("this CRM knows no line that could fail")
        stage.put([sample(n) for n in range(12)])
        for fault in line:
            stage.world.fail(fault)
        for _ in range(len(line)):
            stage.run(batch=3)
            stage.clock.time += DAY
        stage.world.heal()
        stage.until_quiet()
        stage.holds(KEYS)

    def test_a_poison_row_fails_alone(self, stage: Stage) -> None:
        """The bad row is a dead letter with its reason, the others go through, and once mended it can be retried."""
        self.can(stage, "poison")
        stage.put([sample(n) for n in range(12)])
        stage.world.fail("poison")
        report = stage.run()
        assert (report.created + report.adopted, report.refused) == (11, 1)
        [letter] = letters(stage.box)
        assert (letter.key, bool(letter.why)) == (KEYS[3], True)
        assert sorted(stage.there()) == sorted(set(KEYS) - {KEYS[3]})
        stage.world.heal()
        retry(stage.box, [KEYS[3]], "ada", AT + HOUR)
        stage.until_quiet(AT + HOUR)
        stage.holds(KEYS, AT + HOUR)

    def test_the_token_expires_in_mid_run(self, stage: Stage) -> None:
        """The run ends in order, nothing becomes a dead letter, and with a valid token the rest goes through."""
        self.can(stage, "expired")
        calls: list[int] = []

        def expire(items: Any) -> None:
            calls.append(len(items))
            if len(calls) == 2:
                stage.world.fail("expired")

        stage.put([sample(n) for n in range(12)])
        report = stage.run(batch=4, amid=expire)
        assert len(report.problems) == 1
        assert letters(stage.box) == []
        assert stage.box.waiting() == 12 - report.created
        stage.world.heal()
        stage.until_quiet()
        stage.holds(KEYS)

    def test_no_secret_in_a_traceback(self, stage: Stage) -> None:
        """Not in an error's words, nor in the variables that a traceback may show."""
        failing = [fault for fault in ("expired", "refused", "malformed", "502", "slow") if fault in stage.world.faults]
        for fault in failing:
            stage.world.heal()
            crm = stage.world.connect(stage.clock)
            stage.world.fail(fault, 3)
            try:
                crm.check()
                stage.put([sample(0)])
                stage.run(crm=crm)
            except ChurnkitError as error:
                shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
                assert CANARY not in shown, f"the token is shown after '{fault}'"
            assert CANARY not in repr(vars(crm))
        stage.world.heal()

    def test_the_clock_steps_back(self, stage: Stage) -> None:
        """An hour back in mid-run: nothing twice, nothing lost."""

        def back(_: Any) -> None:
            stage.clock.time -= HOUR

        stage.put([sample(n) for n in range(12)])
        stage.run(batch=4, amid=back)
        stage.until_quiet()
        stage.holds(KEYS)

    def test_the_disk_is_full(self, stage: Stage) -> None:
        """What the outbox could not write down is found out by the next run."""
        if stage.box.engine.dialect.name != "sqlite":
            pytest.skip("a server's disk cannot be filled from here")
        stage.put([sample(n) for n in range(12)])
        full = {"on": False}

        def fill(connection: sa.Connection, *_: Any) -> None:
            if full["on"]:
                pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
                connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

        sa.event.listen(stage.box.engine, "begin", fill)

        def fill_up(_: Any) -> None:
            full["on"] = True

        try:
            stage.run(batch=4, amid=fill_up)
        except (sa.exc.OperationalError, ChurnkitError) as error:
            assert CANARY not in str(error)
        finally:
            sa.event.remove(stage.box.engine, "begin", fill)
        with stage.box.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 1073741823")
        stage.clock.time += DAY
        stage.until_quiet()
        stage.holds(KEYS)

    def test_denied_is_not_down(self, stage: Stage) -> None:
        """A refused token ends the run at once, and is said as such: nobody waits for it."""
        self.can(stage, "expired")
        stage.put([sample(0)])
        stage.world.fail("expired")
        slept = len(stage.clock.slept)
        report = stage.run()
        assert (report.writes, len(report.problems)) == (0, 1)
        assert [pause for pause in stage.clock.slept[slept:] if pause >= 0.5] == []  # else it is a rate's, of a request
        assert stage.box.waiting() == 1
        stage.world.heal()
