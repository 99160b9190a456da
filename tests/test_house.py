"""The floors: what may import what, and what must stay cheap to import."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import churnkit

ROOT = Path(__file__).parent.parent
HEAVY = {"feast", "mlflow", "lightgbm", "pandas", "pandera", "shap", "sklearn", "ibis", "duckdb", "matplotlib", "scipy"}


def _imported(code: str) -> set[str]:
    """The top-level packages that stand in sys.modules after this code has run in a fresh interpreter."""
    script = f"{code}\nimport sys, json; print(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_face_imports_nothing_heavy():
    """The face needs the standard library alone."""
    assert _imported("import churnkit") & (HEAVY | {"pydantic", "typer", "rich", "sqlalchemy", "numpy"}) == set()


def test_the_command_line_imports_nothing_heavy():
    """`churnkit --help` answers at once."""
    assert _imported("import churnkit.cli") & (HEAVY | {"pydantic", "sqlalchemy", "numpy"}) == set()


CRM_JOB = ("outbox", "sync", "policy", "task", "crm.base", "crm.files", "crm.memory", "crm.hubspot", "crm.salesforce",
           "crm.webhook", "crm.receiver")


@pytest.mark.parametrize("module", CRM_JOB)
def test_a_crm_job_imports_nothing_heavy(module):
    """A sync every few minutes may not pay for models and data frames."""
    assert _imported(f"import churnkit.outreach.{module}") & HEAVY == set()


def test_the_sync_command_imports_nothing_heavy(tmp_path):
    """Not at import and not while it runs."""
    code = ("from pathlib import Path; from churnkit import jobs; from churnkit.jobs import setup; "
            f"from churnkit.cutoffs import moment; folder = Path({str(tmp_path)!r}); "
            "setup.init(folder); jobs.sync(folder, moment('2026-11-01'))")
    assert _imported(code) & HEAVY == set()


def test_each_door_is_the_only_one():
    """Feast, MLflow, Optuna and VADER are imported in few files each; Ibis in signals alone."""
    doors = {"import feast": {"signals/store.py", "signals/asof.py", "signals/online.py", "signals/shelves.py"},
             "import mlflow": {"learning/tracking.py", "learning/scorer.py"},
             "import optuna": {"learning/tune.py"},
             "vaderSentiment": {"signals/sentiment.py"}, "import ibis": None,
             "from hubspot": {"outreach/crm/hubspot_line.py"},
             "from simple_salesforce": {"outreach/crm/salesforce_line.py"},
             "from standardwebhooks": {"outreach/crm/signed.py"},
             "import urllib3": {"outreach/crm/posting.py", "outreach/crm/hubspot_line.py"}}
    for line, homes in doors.items():
        found = {str(file.relative_to(ROOT / "churnkit")) for file in (ROOT / "churnkit").rglob("*.py")
                 if line in file.read_text() or line.replace("import", "from") + " import" in file.read_text()}
        allowed = homes if homes is not None else {name for name in found if name.startswith("signals/")}
        assert found <= allowed, f"{line!r} stands outside its door"


def test_no_pickle_anywhere():
    """No file of the package imports or calls pickle, joblib or cloudpickle."""
    words = ("import pickle", "from pickle", "import joblib", "joblib.load", "cloudpickle.", "read_pickle", "to_pickle")
    files = (ROOT / "churnkit").rglob("*.py")
    found = [(file.name, word) for file in files for word in words if word in file.read_text()]
    assert found == []


def test_every_public_name_resolves():
    """Each name of the lazy face exists where the face says."""
    for name in churnkit.__all__:
        assert getattr(churnkit, name) is not None


def test_the_lock_names_no_host():
    """The locks hold names, versions and hashes, and no address."""
    assert [path.name for path in ROOT.glob("requirements*.lock") if "://" in path.read_text()] == []


def test_files_stay_readable():
    """No module grows past 500 lines."""
    long = {file.name: count for file in (ROOT / "churnkit").rglob("*.py")
            if (count := len(file.read_text().splitlines())) > 500}
    assert long == {}
