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


@pytest.mark.parametrize("module", ["task", "policy", "outbox", "ledger", "lease", "sync", "crm.base", "crm.files",
                                    "crm.memory"])
def test_a_crm_job_imports_nothing_heavy(module):
    """What runs every few minutes starts quickly: neither models nor data frames are imported."""
    code = f"import sys, churnkit.outreach.{module}; print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
