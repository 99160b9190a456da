"""The registry: what is kept, who is champion, and that nothing changed is trusted."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from churnkit.errors import ModelError
from churnkit.learning.artefact import model_hash
from churnkit.learning.evaluate import Evaluation
from churnkit.learning.profit import Terms
from churnkit.learning.promotion import Decision
from churnkit.learning.registry import Registry

AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
PAY = Terms(value=1000, contact_cost=50, capacity=20)
PLOT = Evaluation.plot


class KilledError(BaseException):
    """Stands for SIGKILL."""


def killed(*_args, **_kwargs):
    raise KilledError


@pytest.fixture(scope="module", autouse=True)
def unplotted():
    """Plots stay empty but where a test looks at them: to draw one takes as long as all else of a registration."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluation, "plot", lambda _: Figure())
        yield


@pytest.fixture(scope="module")
def kept(empty_mlflow, tmp_path_factory, unplotted):
    """Folders of registries in which runs were registered one after another, made once by name; tests copy them."""
    folders = {}

    def make(name, *runs):
        if name not in folders:
            folders[name] = folder = tmp_path_factory.mktemp(name)
            shutil.copy(empty_mlflow, folder / "mlflow.db")
            registry = Registry(f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts")
            for run in runs:
                registry.register(run, at=AT)
        return folders[name]

    return make


@pytest.fixture
def begun(kept, tmp_path):
    """Opens a registry of the test's own in which these runs stand; those of one name are the same each time."""

    def make(name, *runs):
        shutil.copytree(kept(name, *runs), tmp_path, dirs_exist_ok=True)
        return Registry(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts")

    return make


@pytest.fixture
def registered(begun, trained):
    """A registry with one skilled version, and the folder of its artefact."""
    registry = begun("trained", trained)
    return registry, next(registry.tracking.artifacts.rglob("MLmodel")).parent


def other(trained, *, skill=True, seed=8):
    """The same run with another verdict and another seed."""
    model = type(trained.model).from_parts(trained.model.to_parts())
    model.seed = seed
    return replace(trained, model=model, evaluation=replace(trained.evaluation, skill=skill))


def test_there_is_no_champion_before_the_first_training(registry):
    assert registry.champion("churn") is None


def test_the_champion_is_the_model_that_was_registered(registered, trained, book):
    champion = registered[0].champion("churn")
    assert (champion.version, champion.skill) == ("churn-1", True)
    assert trained.model.probability(book[0]).tolist() == champion.model.probability(book[0]).tolist()
    assert {"churn-1"} == set(champion.model.predict(book[0].head(3))["model_version"])


def test_the_same_run_is_registered_once(registered, trained):
    """Whatever the number of threads, which LightGBM's text tells of."""
    model, registry = trained.model, registered[0]
    parts = model.to_parts()
    threaded = parts["model.txt"].replace("[num_threads: 1]", "[num_threads: 2]")
    assert threaded != parts["model.txt"]
    again = replace(trained, model=type(model).from_parts({**parts, "model.txt": threaded}))
    assert ["churn-1"] * 2 == [registry.register(one, at=AT) for one in (trained, again)]
    assert [model_hash(parts)] == registry.versions("churn")["model_hash"].tolist()


@pytest.mark.parametrize(("first", "second", "skill", "champion"), [
    ("weak", "trained", True, "churn-2"), ("weak", "trained", False, "churn-1"), ("trained", "weak", True, "churn-1")])
def test_a_newer_version_must_prove_skill_and_earn_more(begun, request, first, second, skill, champion):
    """The decision and its figures are kept on the version and beside its run."""
    registry = begun(first, request.getfixturevalue(first))
    version = registry.register(other(request.getfixturevalue(second), skill=skill), at=AT, terms=PAY)
    assert champion == registry.champion("churn").version
    roles = {"churn-1": "", "churn-2": "champion"} if champion == "churn-2" else {"churn-1": "champion",
                                                                                  version: "challenger"}
    assert roles == dict(registry.versions("churn")[["version", "role"]].itertuples(index=False))
    found = registry.decision(version)
    assert (champion == "churn-2", "compared" if skill else "barred") == (found.promoted, found.rule)
    client = registry.tracking.client
    run = client.get_model_version("churn", "2").run_id
    kept = json.loads((registry.tracking.artifacts / run / "artifacts" / "promotion.json").read_text())
    assert found == Decision.from_dict(kept)
    if skill:
        assert (found.comparison.value, found.comparison.capacity) == (PAY.value, PAY.capacity)


def test_a_changed_holdout_is_not_compared(begun, weak, trained):
    """It is not even parsed; the champion goes on, and a person may decide."""
    registry = begun("weak", weak)
    text = next(registry.tracking.artifacts.rglob("holdout/model.txt"))
    text.write_bytes(text.read_bytes() + b" ")
    assert registry.register(trained, at=AT) == "churn-2"
    found = registry.decision("churn-2")
    assert (found.promoted, found.rule) == (False, "undecided")
    assert "the holdout fit of churn-1: 'model.txt' was changed since it was registered" in found.why
    assert registry.champion("churn").version == "churn-1"


def test_another_training_mends_a_champion_whose_files_were_changed(registered, trained):
    """As the error says: the same run again gives a new version, and that one scores."""
    registry, folder = registered
    (folder / "scorer.py").write_text("print('not ours')")
    with pytest.raises(ModelError, match="train again: churnkit train"):
        registry.champion("churn")
    assert registry.register(trained, at=AT) == "churn-2"
    assert registry.champion("churn").version == "churn-2"
    assert registry.decision("churn-2").rule == "champion broken"


@pytest.mark.parametrize("step", ["log_text", "set_model_version_tag", "set_registered_model_alias",
                                  "set_registered_model_tag"])
def test_a_kill_amid_the_decision_leaves_one_champion_and_is_made_up_for(begun, weak, trained, step, monkeypatch):
    """The same training again ends as if there had been none: one version more, one champion, the history whole."""
    registry = begun("weak", weak)
    with monkeypatch.context() as patch:
        patch.setattr(registry.tracking.client, step, killed)
        with pytest.raises(KilledError):
            registry.register(trained, at=AT)
    assert registry.champion("churn").version in {"churn-1", "churn-2"}
    assert registry.register(trained, at=AT) == "churn-2"
    assert registry.champion("churn").version == "churn-2"
    assert [(None, "1"), ("1", "2")] == [(one.old, one.new) for one in registry.history("churn")]
    assert ["champion", ""] == registry.versions("churn")["role"].tolist()


def test_a_version_without_skill_says_so_in_its_name(registry, trained):
    assert registry.register(other(trained, skill=False), at=AT) == "churn-1 (no skill)"
    champion = registry.champion("churn")
    assert (champion.version, champion.skill) == ("churn-1 (no skill)", False)
    assert registry.register(trained, at=AT) == "churn-2"
    assert registry.champion("churn").skill


def test_a_version_with_suspect_features_is_no_champion(begun, weak, trained):
    """However good it is; and alone it counts as without skill, so that it makes no tasks."""
    registry = begun("weak", weak)
    assert registry.register(trained, at=AT, suspects=["mrr"]) == "churn-2 (suspect features)"
    assert registry.champion("churn").version == "churn-1"
    assert "that may know the outcome (mrr)" in registry.decision("churn-2").why
    assert registry.register(trained, at=AT) == "churn-3"  # let pass, it is registered anew
    assert registry.champion("churn").version == "churn-3"


def test_a_suspect_alone_has_no_skill(registry, trained):
    registry.register(trained, at=AT, suspects=["mrr"])
    assert registry.champion("churn")[1:3] == ("churn-1 (suspect features)", False)


@pytest.mark.parametrize("file", ["artifacts/model.txt", "artifacts/model.json", "scorer.py", "MLmodel"])
def test_a_changed_file_is_refused_before_it_is_read(registered, file):
    registry, folder = registered
    path = folder / file
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ModelError, match=f"'{file}' was changed since it was registered.*train again"):
        registry.champion("churn")


@pytest.fixture(scope="module")
def curved(trained):
    """The run with a risk curve beside its model."""
    from test_estimators import lived

    from churnkit.learning.curves import train_curve

    x, spans, _ = lived(entities=100)
    when = spans.cutoffs[12].to_pydatetime()
    return replace(trained, curve=train_curve(spans, x, (30, 60, 90, 180), test_at=when)), x


def test_the_curve_comes_back_with_the_champion(registry, curved):
    """With its skill, its figures and both fits logged; a run without one has none."""
    run, x = curved
    assert registry.register(run, at=AT) == "churn-1"
    champion = registry.champion("churn")
    assert run.curve.evaluation.skill == ("curve" in champion.proven)
    assert run.curve.curve.probability(x).tolist() == champion.curve.probability(x).tolist()
    client = registry.tracking.client
    logged = client.get_run(client.get_model_version("churn", "1").run_id).data.metrics
    expected = run.curve.evaluation.horizons.loc[90.0, "auc"]
    assert expected == pytest.approx(logged["curve.auc.90d"])
    folder = next(registry.tracking.artifacts.rglob("MLmodel")).parent
    kept = {path.relative_to(folder.parent).as_posix() for path in folder.parent.rglob("*")}
    assert {"curve.csv", "holdout/curve.txt", "model/artifacts/curve.txt", "model/artifacts/curve.json"} <= kept
    registry.register(other(replace(run, curve=None)), at=AT)
    registry.promote("churn-2", by="me", why="to see", now=AT)
    assert registry.champion("churn").curve is None


def test_components_and_life_come_back_too(registry, curved):
    """With those of them named whose skill is proven."""
    from test_estimators import lived

    from churnkit.learning.upkeep import train_components, train_life

    x, spans, _ = lived(entities=100)
    when = spans.cutoffs[12].to_pydatetime()
    beside = tuple(fit(spans, x, test_at=when) for fit in (train_components, train_life))
    registry.register(replace(curved[0], beside=beside), at=AT)
    champion = registry.champion("churn")
    assert beside[0].estimator.shares(x).tolist() == champion.components.shares(x).tolist()
    assert beside[1].estimator.predict(x).tolist() == champion.life.predict(x).tolist()
    assert {one.what for one in beside if one.skill} == champion.proven - {"curve"}
    assert [one.what for one in beside if one.skill]


def test_gains_and_kinds_come_back_too_and_a_changed_one_is_refused(registry, trained):
    """As they were, with those of them named whose skill is proven."""
    from test_offers import sold

    from churnkit.learning.offers import train_gains, train_kinds

    rows = sold(entities=200)
    when = rows.cutoffs[12].to_pydatetime()
    beside = (train_gains(rows, test_at=when, prior=0.3), train_kinds(rows, test_at=when))
    registry.register(replace(trained, beside=beside), at=AT)
    champion = registry.champion("churn")
    assert beside[0].estimator.predict(rows.X).tolist() == champion.gains.predict(rows.X).tolist()
    assert beside[1].estimator.shares(rows.X).tolist() == champion.kinds.shares(rows.X).tolist()
    assert {one.what for one in beside if one.skill} == champion.proven
    client = registry.tracking.client
    run = client.get_run(client.get_model_version("churn", "1").run_id).data
    assert run.metrics["gains.foreseen"] == pytest.approx(beside[0].more["foreseen"])
    assert run.params["kinds.verdict"] == beside[1].says()
    path = next(registry.tracking.artifacts.rglob("MLmodel")).parent / "artifacts" / "gains.json"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ModelError, match=r"'artifacts/gains.json' was changed since it was registered"):
        registry.champion("churn")


@pytest.mark.parametrize("file", ["artifacts/curve.txt", "artifacts/curve.json"])
def test_a_changed_curve_is_refused_before_it_is_read(begun, curved, file):
    registry = begun("curved", curved[0])
    path = next(registry.tracking.artifacts.rglob("MLmodel")).parent / file
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ModelError, match=f"'{file}' was changed since it was registered"):
        registry.champion("churn")


def test_an_added_or_missing_file_is_refused(registered):
    registry, folder = registered
    (folder / "extra.py").write_text("")
    with pytest.raises(ModelError, match=r"'extra.py' does not belong there"):
        registry.champion("churn")
    (folder / "extra.py").unlink()
    (folder / "artifacts" / "model.txt").unlink()
    with pytest.raises(ModelError, match=r"'artifacts/model.txt' is missing"):
        registry.champion("churn")


def test_a_copied_workspace_reads_and_writes_its_own_artefacts(registry, trained, tmp_path):
    """MLflow keeps full paths: the copy must neither trust nor fill the folder that it came from."""
    registry.register(trained, at=AT)
    state = tmp_path / "copy"
    shutil.copytree(registry.tracking.artifacts.parent, state)
    copy = Registry(f"sqlite:///{state / Path(registry.tracking.uri).name}", state / registry.tracking.artifacts.name)
    before = len(list(registry.tracking.artifacts.rglob("MLmodel")))
    assert copy.champion("churn").version == "churn-1"
    copy.register(other(trained), at=AT)
    copy.promote("churn-2", by="me", why="to see", now=AT)
    assert copy.champion("churn").version == "churn-2"
    assert (before, before + 1) == tuple(len(list(one.tracking.artifacts.rglob("MLmodel"))) for one in (registry, copy))
    for text in copy.tracking.artifacts.rglob("model.txt"):
        text.write_text("changed")
    with pytest.raises(ModelError, match="was changed since it was registered"):
        copy.champion("churn")


def test_a_database_that_is_none_says_what_to_do(tmp_path):
    """No bare error of SQLAlchemy's."""
    (tmp_path / "mlflow.db").write_bytes(b"junk" * 100)
    with pytest.raises(ModelError, match=r"not a database.*restore from a backup"):
        Registry(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts").champion("churn")


def test_the_artefact_holds_text_alone(registered):
    """No pickle: every file is text, and the model's is LightGBM's."""
    files = [path for path in registered[1].rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in {".pkl", ".pickle", ".joblib"}]
    for path in files:
        path.read_text(encoding="utf-8")
    assert (registered[1] / "artifacts" / "model.txt").read_text().startswith("tree\n")


def test_figures_plots_and_both_fits_are_logged(registry, trained, monkeypatch):
    monkeypatch.setattr(Evaluation, "plot", PLOT)
    registry.register(trained, at=AT)
    folder = next(registry.tracking.artifacts.rglob("MLmodel")).parent
    client = registry.tracking.client
    run = client.get_run(client.get_model_version("churn", "1").run_id)
    assert float(run.data.metrics["auc.model"]) == pytest.approx(trained.evaluation.table.loc["auc", "model"])
    assert str(trained.model.rounds) == run.data.params["rounds"]
    kept = {path.relative_to(folder.parent).as_posix() for path in folder.parent.rglob("*")}
    assert {"evaluation.png", "evaluation.csv", "holdout/model.txt", "holdout/model.json"} <= kept
    assert (folder.parent / "evaluation.png").stat().st_size > 20_000  # an empty one has 3,000
    assert json.loads(client.get_model_version("churn", "1").tags["churnkit.files"])


def test_nothing_below_this_file_needs_a_network_or_git():
    """The switches stand in the door's own text, before MLflow is imported."""
    from churnkit.learning import tracking as door

    text = Path(door.__file__).read_text()
    assert text.index("MLFLOW_DISABLE_TELEMETRY") < text.index("import mlflow")
    assert text.index("GIT_PYTHON_REFRESH") < text.index("import mlflow")


def test_a_new_database_appears_whole(tmp_path, monkeypatch):
    """A kill amid MLflow's migrations leaves nothing at the database's place, and the next run makes it anew."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KilledError):
            Registry(uri, tmp_path / "artifacts")
    assert not (tmp_path / "mlflow.db").exists()
    assert Registry(uri, tmp_path / "artifacts").champion("churn") is None
    assert (tmp_path / "mlflow.db").exists()


def changes(registry):
    """Who followed whom, and how."""
    return [(one.how, one.old, one.new) for one in registry.history("churn")]


def roles(registry):
    """Each version's number with its role."""
    return {one["version"].split()[0][-1]: one["role"] for one in registry.versions("churn").to_dict("records")}


@pytest.fixture
def three(begun, trained):
    """Three versions, of which the first is champion and the last challenger."""
    return begun("three", *(other(trained, seed=seed) for seed in (7, 8, 9)))


WHO = {"by": "Ada Lim", "why": "fewer false alarms", "now": AT}


def test_a_person_promotes_and_rolls_back(three):
    """The history grows by each change and loses none; a rollback leads to the champion before, and further back."""
    assert {"1": "champion", "2": "", "3": "challenger"} == roles(three)
    three.promote("churn-3", **WHO)
    assert {"1": "", "2": "", "3": "champion"} == roles(three)
    three.promote("churn-2", **WHO)
    assert three.champion("churn").version == "churn-2"
    assert [three.rollback("churn", **WHO).new for _ in range(2)] == ["3", "1"]
    with pytest.raises(ModelError, match=r"there was no champion before.*churnkit promote churn VERSION --by"):
        three.rollback("churn", **WHO)
    assert three.champion("churn").version == "churn-1"
    assert [("rule", None, "1"), ("promote", "1", "3"), ("promote", "3", "2"), ("rollback", "2", "3"),
            ("rollback", "3", "1")] == changes(three)
    last = three.history("churn")[-1]
    assert (last.by, last.why, last.when) == ("Ada Lim", "fewer false alarms", "2026-01-01T00:00:00+00:00")


def test_what_is_champion_already_is_promoted_to_nothing(three):
    three.promote("churn-2", **WHO)
    assert three.promote("churn-2", **WHO) is None
    assert [("rule", None, "1"), ("promote", "1", "2")] == changes(three)


def test_training_again_does_not_undo_a_rollback(begun, weak, trained):
    """What a person took away, the same training does not bring back."""
    registry = begun("weak", weak)
    registry.register(trained, at=AT)
    registry.rollback("churn", **WHO)
    assert registry.register(trained, at=AT) == "churn-2"
    assert registry.champion("churn").version == "churn-1"


@pytest.mark.parametrize("step", ["set_registered_model_alias", "delete_registered_model_alias",
                                  "set_registered_model_tag"])
@pytest.mark.parametrize("what", ["promote", "rollback"])
def test_a_kill_amid_a_change_leaves_one_champion_and_the_same_call_ends_it(three, step, what, monkeypatch):
    """Wherever it was killed: one champion, and after the same call the history that there would have been."""
    three.promote("churn-2", **WHO)
    if what == "rollback":
        three.tracking.client.set_registered_model_alias("churn", "challenger", "1")
    call = ((lambda: three.promote("churn-3", **WHO)) if what == "promote" else
            (lambda: three.rollback("churn", **WHO)))
    with monkeypatch.context() as patch:
        patch.setattr(three.tracking.client, step, killed)
        with pytest.raises(KilledError):
            call()
    assert list(roles(three).values()).count("champion") == 1
    call()
    expected = ("promote", "2", "3") if what == "promote" else ("rollback", "2", "1")
    assert [("rule", None, "1"), ("promote", "1", "2"), expected] == changes(three)
    assert [expected[2]] == [number for number, role in roles(three).items() if role == "champion"]


def test_a_champion_set_by_another_tool_is_written_down_as_found(three):
    three.tracking.client.set_registered_model_alias("churn", "champion", "2")
    three.promote("churn-3", **WHO)
    assert [("rule", None, "1"), ("outside", "1", "2"), ("promote", "2", "3")] == changes(three)
    assert three.rollback("churn", **WHO).new == "2"


def test_versions_that_should_not_score_are_refused_with_the_mend(begun, trained):
    """Suspect features always, no proven skill unless somebody insists, and what is not there or not whole."""
    registry = begun("trained", trained)
    registry.register(other(trained), at=AT, suspects=["mrr", "plan"])
    registry.register(other(trained, skill=False), at=AT)
    with pytest.raises(ModelError, match=r'may know the outcome \(mrr, plan\).*allow = \["mrr", "plan"\], and train'):
        registry.promote("churn-2", **WHO, anyway=True)
    with pytest.raises(ModelError, match=r"no proven skill: as champion it scores, but opens no task.*--anyway"):
        registry.promote("churn-3", **WHO)
    with pytest.raises(ModelError, match=r"There is no churn-9 .*Its versions are: churn-1, churn-2, churn-3"):
        registry.promote("churn-9", **WHO)
    with pytest.raises(ModelError, match=r"'churn' names no version.*churnkit models"):
        registry.promote("churn", **WHO)
    for wrong in ({"by": " "}, {"why": ""}, {"why": "x" * 1001}):
        with pytest.raises(ModelError, match="Say who decided and why"):
            registry.promote("churn-3", **{**WHO, **wrong}, anyway=True)
    assert [("rule", None, "1")] == changes(registry)
    registry.promote("churn-3", **WHO, anyway=True)
    assert registry.champion("churn")[1:3] == ("churn-3 (no skill)", False)
    assert registry.register(other(trained, seed=10), at=AT) == "churn-4"
    assert registry.decision("churn-4").rule == "champion unproven"


def test_a_changed_file_is_refused_before_it_is_promoted(three):
    run = three.tracking.client.get_model_version("churn", "3").run_id
    file = three.tracking.artifacts / run / "artifacts" / "model" / "artifacts" / "model.json"
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ModelError, match=r"'artifacts/model.json' was changed since it was registered"):
        three.promote("churn-3", **WHO)
    assert three.champion("churn").version == "churn-1"
