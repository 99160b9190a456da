"""Making, looking after and trying out a workspace: init, simulate, demo, doctor, upgrade."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import logging
import shutil
import sys
import tempfile
from pathlib import Path

from churnkit import jobs
from churnkit.cutoffs import moment
from churnkit.errors import ChurnkitError, SettingsError
from churnkit.jobs.report import Report
from churnkit.jobs.workspace import open_crm, open_outbox, open_registry, open_store, workspace
from churnkit.settings import FILE, Settings, load

log = logging.getLogger("churnkit")

_HERE = Path(__file__).parent.parent / "workspace"
_MARK = ".churnkit-demo"
DEMO_AT = moment("2026-11-01")


def templates() -> dict[str, Path]:
    """What `init` lays into a workspace: path in the workspace = file of ours.

    In a checkout features/ and pipelines/ are the repository's own; in the wheel they lie in the package. One source.
    """
    home = _HERE if (_HERE / "features").is_dir() else _HERE.parent.parent
    found = {file.name: file for file in (_HERE / FILE, _HERE / "outreach.toml")}
    for folder in ("features", "pipelines"):
        for file in sorted((home / folder).glob("*")):
            if file.suffix in {".py", ".yaml"}:
                found[f"{folder}/{file.name}"] = file
    return found


def init(folder: Path, source: Path | None = None, settings: str | None = None) -> Report:
    """A commented workspace; with `source`, a mapping proposed from the files found there. Nothing is overwritten.

    `settings` is the text of a churnkit.toml to lay in place of the commented one.

    Raises:
        SettingsError: If the folder is a workspace already, or cannot be made.
    """
    if (folder / FILE).exists():
        raise SettingsError(f"'{folder}' is a workspace already: it has a {FILE}. Choose another folder, or edit "
                            "that file.")
    proposal = settings
    if source is not None:
        from churnkit.signals.propose import propose

        proposal = propose(source)
    try:
        (folder / "data" / "raw").mkdir(parents=True, exist_ok=True)
        written = [name for name, file in templates().items()
                   if _lay(folder / name, proposal if name == FILE and proposal else file.read_text(encoding="utf-8"))]
    except OSError as error:
        raise SettingsError(f"'{folder}' cannot be made a workspace ({error.strerror}). Choose a folder that you may "
                            "write to.") from None
    notes = [f"Wrote {name}" for name in written]
    notes.append(f"Read {folder / FILE} and correct the proposal." if proposal else
                 f"Put your tables into {folder / 'data/raw'}, or say in {FILE} where they lie.")
    notes.append(f"Then run: churnkit check {folder}")
    return Report("init", notes=notes, data={"folder": str(folder), "written": written})


def _lay(path: Path, text: str) -> bool:
    """Writes a file whole, unless one of that name stands there; says whether it wrote."""
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".part")
    half.write_text(text, encoding="utf-8")
    half.replace(path)
    return True


def simulate(folder: Path, *, accounts: int = 2000, months: int = 24, seed: int = 7, end: dt.datetime = DEMO_AT,
             difficulty: str = "normal") -> Report:
    """A workspace with a seeded, simulated B2B book in data/raw; the truth lies beside it, for tests alone."""
    from churnkit.simulate import simulate as make

    if (folder / FILE).exists():
        raise SettingsError(f"'{folder}' is a workspace already. Simulate into a new folder.")
    log.info("simulating %d accounts over %d months", accounts, months)
    book = make(folder / "data" / "raw", accounts=accounts, months=months, seed=seed, end=f"{end:%Y-%m-%d}",
                difficulty=difficulty)
    init(folder, settings=f'name = "A simulated book"\n{book.toml}')
    rows = [{"table": name, "rows": count} for name, count in book.rows.items()]
    return Report("simulate", rows=rows, notes=[f"Try it: churnkit run {folder} --at {end:%Y-%m-%d}"],
                  data={"folder": str(folder), "rows": dict(book.rows)})


def demo(folder: Path, accounts: int = 2000) -> Report:
    """The whole line on a simulated book: made, checked, learnt, scored, planned and synced to files.

    Raises:
        SettingsError: If the folder holds something other than an earlier demo.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / _MARK).exists():
        raise SettingsError(f"'{folder}' is not empty and no earlier demo. Name an empty folder: churnkit demo DIR")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / _MARK).touch()
    simulate(folder, accounts=accounts)
    return jobs.run(folder, DEMO_AT)


def doctor(folder: Path) -> Report:
    """Whether this machine and this workspace can do their work, one line per thing looked at."""
    rows = [_look("python", lambda: f"{sys.version_info.major}.{sys.version_info.minor}"),
            *(_look(name, lambda name=name: importlib.metadata.version(name))
              for name in ("duckdb", "ibis-framework", "feast", "mlflow", "lightgbm", "pandas")),
            _look("LightGBM loads", _lightgbm),
            _look("settings", lambda: load(folder).name)]
    if rows[-1]["ok"]:
        settings = load(folder)
        rows += [_look("policy", lambda: _policy(settings)),
                 _look("state is writable", lambda: _writable(settings.state)),
                 _look("outbox", lambda: f"{len(open_outbox(settings).open_tasks())} open tasks"),
                 _look("feature repo", lambda: _feature_repo(settings)),
                 _look("models", lambda: _models(settings)),
                 _look("CRM", lambda: open_crm(settings).check().name)]
    bad = [row for row in rows if not row["ok"]]
    notes = [f"{row['what']}: {row['found']}" for row in bad]
    return Report("doctor", rows=rows, notes=notes, data={"checks": rows}, code=1 if bad else 0)


def _look(what: str, call: object) -> dict[str, object]:
    try:
        return {"what": what, "ok": True, "found": call()}  # type: ignore[operator]
    except (ChurnkitError, OSError, ImportError) as error:
        return {"what": what, "ok": False, "found": str(error)}


def _lightgbm() -> str:
    try:
        import lightgbm
    except OSError as error:
        raise ChurnkitError(f"LightGBM cannot be loaded ({error}). On Debian: apt-get install libgomp1") from None
    return str(lightgbm.__version__)


def _policy(settings: Settings) -> str:
    from churnkit.outreach.policy import Policy

    return f"{len(Policy.load(settings.path(settings.policy)).plays)} plays"


def _writable(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        return str(folder)


def _feature_repo(settings: Settings) -> str:
    repo = settings.path(settings.store) / "feature_store.yaml"
    if not repo.is_file():
        raise SettingsError(f"No {repo}. Run churnkit init in an empty folder and copy its features/ here.")
    catalog = open_store(settings).catalog
    return "no features yet" if catalog is None else f"{len(catalog.events)} events, {len(catalog.sensors)} sensors"


def _models(settings: Settings) -> str:
    from churnkit.learning.targets import TARGETS

    registry = open_registry(settings)
    champions = [champion.version for name in TARGETS if (champion := registry.champion(name)) is not None]
    return ", ".join(champions) or "none trained yet"


def upgrade(folder: Path, at: dt.datetime) -> Report:
    """Brings outbox, ledger and feature files of an older churnkit up to date; the old ones are kept beside them."""
    from churnkit.outreach import ledger
    from churnkit.signals import partitions

    with workspace(folder) as settings:
        copies = [ledger.upgrade(settings.url(settings.outbox), at),
                  partitions.upgrade(settings.path(settings.store) / "data")]
    notes = [f"Brought up to date; the old one is kept as {copy}" for copy in copies if copy is not None]
    return Report("upgrade", notes=notes or ["Everything is up to date."], data={"changed": notes})
