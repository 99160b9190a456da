"""SIGKILL at random moments of a sync, hundreds of times, while plans and people go on: another part of the suite."""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from churnkit.testing.samples import ACCOUNTS, AT, OWNERS, sample
from churnkit.testing.stage import Stage

MINUTE = dt.timedelta(minutes=1)


class Killer:
    """Runs syncs in processes of their own, and kills them."""

    def __init__(self, stage: Stage, url: str, root: Path) -> None:
        self._stage, self._url, self._root = stage, url, root
        self._job = subprocess.Popen(
            [sys.executable, "-m", "churnkit.testing.job"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **stage.world.env}, stderr=subprocess.PIPE)

    def run(self, at: dt.datetime, after: float | None = None) -> int:
        """One sync, killed after so many seconds, if it still runs then; its exit code, -9 where it was killed."""
        world, job = self._stage.world, self._job
        assert job.stdin is not None
        assert job.stdout is not None
        job.stdin.write(json.dumps({"name": world.name, "options": dict(world.options), "root": str(self._root),
                                    "url": self._url, "at": at.isoformat(), "batch": 3}) + "\n")
        job.stdin.flush()
        child = int(job.stdout.readline())
        if after is not None:
            time.sleep(after)
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        return int(job.stdout.readline())

    def close(self) -> str:
        """Ends the processes; what they printed."""
        _, said = self._job.communicate(timeout=60)
        return said


@contextmanager
def killer(stage: Stage, url: str, root: Path) -> Iterator[Killer]:
    """A killer, whose processes may say nothing of themselves."""
    made = Killer(stage, url, root)
    try:
        yield made
    finally:
        said = made.close()
    assert said == ""


def kill_often(stage: Stage, url: str, root: Path, times: int, seed: int = 7) -> int:
    """Plans, people and syncs that are killed, so many times over; afterwards what must hold; returns how many died.

    Half of the kills come at any moment of a run's usual length, the others early, where it writes most.
    """
    rng, at, planned = random.Random(seed), AT, [sample(0)]  # noqa: S311 - moments, no secrets
    killed = answers = 0
    stage.put(planned)
    with killer(stage, url, root) as jobs:
        assert jobs.run(at) == 0  # the first one pays for what is imported late
        stage.put([sample(1), sample(2)], at)
        began = time.monotonic()
        assert jobs.run(at) == 0
        usual = time.monotonic() - began
        for turn in range(times):
            at += MINUTE
            number = turn % len(ACCOUNTS)
            episode = f"{2027 + turn // len(ACCOUNTS)}-01-01"
            task = sample(number, episode=episode, key=f"{turn + 1:040x}")
            planned.append(task)
            stage.put([task, sample(0, body=f"Why: {turn}.")], at)
            key, there = rng.choice(planned).key, stage.there() if turn % 7 == 3 else {}
            if key in there and there[key].status == "open":
                answers += 1
                stage.world.person(key, at, status="completed", disposition="saved", owner=OWNERS[1])
            killed += jobs.run(at, rng.uniform(0, usual * (1.2 if turn % 2 else 0.6))) == -signal.SIGKILL
        at += MINUTE
        assert jobs.run(at) == 0
    stage.clock.time = dt.datetime.now(dt.UTC)
    stage.until_quiet(at)
    stage.holds([sample(1).key, sample(2).key, *(task.key for task in planned)], at)
    completed = [one for one in stage.box.outcomes() if one.status == "completed"]
    assert len(completed) == answers == len({one.key for one in completed})
    return killed


class Kills:
    """For a connector that another process can use: subclass it beside Conformance."""

    kills = 8
    """How many there are every day; with the marker `crm` there are 200."""

    def test_killed_at_any_moment(self, stage: Stage, url: str, tmp_path: Path) -> None:
        """Each task once, none lost, answers once, whenever the process dies."""
        assert kill_often(stage, url, tmp_path, self.kills) > self.kills // 4

    @pytest.mark.crm
    def test_killed_two_hundred_times(self, stage: Stage, url: str, tmp_path: Path) -> None:
        """The same, two hundred times over."""
        assert kill_often(stage, url, tmp_path, 200, seed=11) > 50


__all__ = ["Kills", "kill_often", "killer"]
