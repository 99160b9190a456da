"""SIGKILL at random moments of put and sync: each task once, nothing lost; and what a CRM job may import."""

import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from small_tasks import AT, task

from churnkit.outreach.crm.files import FilesCrm
from churnkit.outreach.outbox import Outbox
from churnkit.outreach.sync import sync

JOB = textwrap.dedent("""
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from small_tasks import AT, task
    from churnkit.outreach.crm.files import FilesCrm
    from churnkit.outreach.outbox import Outbox
    from churnkit.outreach.sync import sync
    root = Path(sys.argv[1])
    box = Outbox(root / "outbox.db")
    print("ready", flush=True)
    box.put([task(n) for n in range(120)], at=AT, run="r1")
    crm = FilesCrm(root / "crm")
    crm.capabilities = crm.capabilities.__class__(batch=10)
    sync(box, crm, at=AT)
    print("done", flush=True)
""")
PLANS = textwrap.dedent("""
    import sys
    from itertools import count
    sys.path.insert(0, sys.argv[2])
    from small_tasks import AT, task
    from churnkit.outreach.outbox import Outbox
    box = Outbox(sys.argv[1])
    first = len(box.tasks()) // 100
    print("ready", flush=True)
    for run in count(first):
        tasks = [task(run * 100 + n, ghost=n < 10) for n in range(100)]
        closings = {task((run - 1) * 100 + n).key: f"plan {run}" for n in range(100)} if run else {}
        arms = [{"top": f"{run}/{n}", "arm": "treated", "stratum": "s", "propensity": 0.9, "share": 0.1, "salt": "s",
                 "exposed_at": AT} for n in range(100)]
        box.carry_out(tasks, closings, arms, AT, f"r{run}")
        print(run, flush=True)
""")
HEAVY = ("feast", "mlflow", "lightgbm", "pandas", "pandera", "numpy", "ibis", "duckdb", "shap", "sklearn", "pyarrow")


def run(root, request):
    return subprocess.Popen([sys.executable, "-c", JOB, str(root), str(request.path.parent)], stdout=subprocess.PIPE,
                            text=True)


def test_killed_at_any_moment(tmp_path, request):
    """A run killed again and again, and then left alone, gives what an undisturbed run gives."""
    rng = random.Random(7)
    for _ in range(5):
        with run(tmp_path, request) as job:
            job.stdout.readline()
            time.sleep(rng.uniform(0, 0.4))
            job.send_signal(signal.SIGKILL)
    with run(tmp_path, request) as job:
        assert job.communicate(timeout=120)[0].split() == ["ready", "done"]
    box = Outbox(tmp_path / "outbox.db")
    files = sorted(path.stem for path in (tmp_path / "crm" / "tasks").glob("*.json"))
    assert files == sorted(task(n).key for n in range(120))
    assert box.pending() == []
    assert sync(box, FilesCrm(tmp_path / "crm"), at=AT).writes == 0
    assert box.verify_audit() > 0
    box.close()


def test_no_half_plan(outbox, url, request):
    """A planner killed at any moment leaves whole plans: tasks, ghosts, closings, arms and audit, or none of them."""
    rng, runs = random.Random(11), [0]
    for _ in range(4):
        command = [sys.executable, "-c", PLANS, url, str(request.path.parent)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as job:
            for _ in range(rng.randint(1, 3)):
                job.stdout.readline()
            time.sleep(rng.uniform(0, 0.15))
            job.send_signal(signal.SIGKILL)
        with outbox.engine.connect() as connection:  # one statement, so one moment
            tasks, ghosts, shut, arms, queued, rows = connection.exec_driver_sql(
                "SELECT (SELECT count(*) FROM tasks), (SELECT count(*) FROM tasks WHERE ghost), "
                "(SELECT count(*) FROM tasks WHERE status = 'dismissed'), (SELECT count(*) FROM arms), "
                "(SELECT count(*) FROM outbox), (SELECT count(*) FROM audit)").one()
        plans, half = divmod(tasks, 100)
        closed = max(plans - 1, 0) * 100
        assert (half, ghosts, shut, arms, queued, rows) == (
            0, plans * 10, closed, plans * 100, plans * 90, plans * 200 + closed)
        runs.append(plans)
    assert runs == sorted(runs)
    assert runs[-1] > 0
    assert outbox.check_audit().wrong == {}


@pytest.mark.parametrize("module", ["task", "policy", "outbox", "ledger", "lease", "life", "chain", "people", "sync",
                                    "crm.base", "crm.files", "crm.memory"])
def test_a_crm_job_imports_nothing_heavy(module):
    """What runs every few minutes starts quickly: neither models nor data frames are imported."""
    code = f"import sys, churnkit.outreach.{module}; print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
