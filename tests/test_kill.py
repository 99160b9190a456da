"""Killing `churnkit run` at random moments and running it again gives the tasks of an undisturbed run."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from churnkit.jobs import setup

AT = "2026-11-01"
KILLS = 20


def start(folder: Path) -> subprocess.Popen[bytes]:
    """A run in a process of its own."""
    return subprocess.Popen([sys.executable, "-m", "churnkit", "run", str(folder), "--at", AT],
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(folder: Path) -> float:
    """Runs to the end; returns the seconds that it took."""
    began = time.monotonic()
    process = start(folder)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said.decode()
    return time.monotonic() - began


def tasks(folder: Path) -> dict[str, dict]:
    """What account managers see: the CRM's tasks by key, without the CRM's own ids and times."""
    files = (folder / "crm" / "tasks").glob("*.json")
    return {task["key"]: task for task in (json.loads(file.read_text()) for file in files)}


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(tmp_path):
    """Twenty SIGKILLs at random moments, each followed by a run to the end in the same workspace."""
    made = tmp_path / "made"
    setup.simulate(made, accounts=60, months=9, seed=5)
    whole = tmp_path / "whole"
    shutil.copytree(made, whole)
    seconds = finish(whole)
    expected = tasks(whole)
    assert expected
    moments = random.Random(11)
    killed = 0
    for number in range(KILLS):
        folder = tmp_path / f"killed{number}"
        shutil.copytree(made, folder)
        process = start(folder)
        time.sleep(moments.uniform(0.05, 1.0) * seconds)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.communicate()
        finish(folder)
        assert tasks(folder) == expected
        shutil.rmtree(folder)
    assert killed >= KILLS // 2
