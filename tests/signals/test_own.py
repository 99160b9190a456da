"""A workspace's own tables and features: what they become, and what each mistake says."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from churnkit.cutoffs import moment
from churnkit.errors import DataError, FeatureError, SettingsError
from churnkit.learning.targets import CHURN, EXPANSION, MAINTENANCE, TARGETS, configured
from churnkit.schemas import POINTS
from churnkit.settings import from_mapping, load
from churnkit.signals import groups as grammar
from churnkit.signals import own_checks, own_toml
from churnkit.signals.catalog import Catalog, discover
from churnkit.signals.compute import compute_features, compute_group
from churnkit.signals.features import groups, phrase
from churnkit.signals.own import definitions, parsed
from churnkit.signals.points import points_at
from churnkit.signals.readable import OURS
from churnkit.signals.store import Store
from churnkit.signals.streams import stream
from churnkit.signals.tables import Tables, read_tables
from churnkit.watch import check

TABLE = """
[tables.trainings]
at = "held_at"
types = { course = "category", hours = "number", passed = "flag", score = "number", graded_at = "time" }
since = { score = "graded_at" }
"""
GROUP = """
[groups.training]
table = "trainings"
targets = ["churn"]
features.trainings = { op = "count", windows = [28], compared = [28], where = { course = "safety" } }
features.last_hours = { op = "last", of = "hours" }
"""
PYTHON = """
from churnkit.signals.groups import FeatureGroup, count, last

TABLES = {"trainings": {"at": "held_at", "since": {"score": "graded_at"}, "types": {
    "course": "category", "hours": "number", "passed": "flag", "score": "number", "graded_at": "time"}}}
GROUPS = [FeatureGroup("training", "account", targets=("churn",), aggregations=(
    count("trainings", "trainings", (28,), compared=(28,), where=(("course", "safety"),)),
    last("last_hours", "trainings", "hours"),
))]
"""
AT = "2026-01-01"


def workspace(folder: Path, text: str = TABLE + GROUP, **more: object):
    """A folder with that features.toml, and its settings."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "features.toml").write_text(text)
    return from_mapping({"covers_until": AT, "features": {"own": "features.toml"}, **more}, folder)


def own(settings):
    """The own groups of a workspace, ready to compute."""
    return parsed(definitions(settings).text).groups


def frames(**trainings):
    """Two accounts with subscriptions and a few trainings."""
    return {
        "accounts": pd.DataFrame({"account_id": ["A", "B"], "created_at": "2024-01-01"}),
        "subscriptions": pd.DataFrame({"account_id": ["A", "B"], "started_at": "2024-01-01", "mrr": 9.0}),
        "usage_events": pd.DataFrame({"account_id": ["A"], "event": "open", "occurred_at": "2025-05-01"}),
        "trainings": pd.DataFrame({"account_id": ["A", "A", "A"], "course": ["safety", "safety", "fun"],
                                   "held_at": ["2025-05-20", "2025-04-20", "2025-05-30"], "hours": [1, 2, 3],
                                   "passed": ["yes", "no", "yes"], "score": 5, "graded_at": "2025-05-31",
                                   **trainings}),
    }


def test_toml_and_python_define_the_same(tmp_path):
    """The same grammar: equal groups, equal tables, equal versions."""
    settings = workspace(tmp_path)
    (tmp_path / "mine.py").write_text(PYTHON)
    coded = from_mapping({"allow_code": True, "features": {"own": ["mine.py"]}}, tmp_path)
    assert dict(own(settings)) == dict(own(coded))
    assert definitions(settings).tables == definitions(coded).tables
    assert definitions(settings).maps == definitions(coded).maps


def test_python_is_refused_until_it_is_allowed(tmp_path):
    """Nothing of the file runs before allow_code is set."""
    (tmp_path / "mine.py").write_text("raise SystemExit('ran')")
    with pytest.raises(SettingsError, match=r"\[features\] own names 'mine.py', which is code.*allow_code = true"):
        definitions(from_mapping({"features": {"own": "mine.py"}}, tmp_path))


@pytest.mark.parametrize(("code", "said"), [
    ("x = 1\ny = x / 0", r"mine.py: line 2: ZeroDivisionError: division by zero\. Mend that line"),
    ("x = (", "mine.py: line 1: SyntaxError"),
    ("TABLES = {}", r"GROUPS is no list of feature groups\. Write GROUPS = \[FeatureGroup"),
    ("GROUPS = []\nTABLES = 3", "TABLES is no dict"),
    ("GROUPS = []\nTABLES = {'x': {'att': 'y'}}", "unknown key 'tables.x.att'. Did you mean 'at'"),
    (("from churnkit.signals.groups import *\nGROUPS = [FeatureGroup('g', 'account', [Feature('x', 'notice', "
      "stream='touches')])]"), "op 'notice' is no operation for features of your own"),
    ("from churnkit.signals.groups import *\nGROUPS = [FeatureGroup('g', 'account', count('x', 'touches', ('soon',)))]",
     "mine.py: 'soon' is no span of time"),
    ("from churnkit.signals.groups import *\nGROUPS = [FeatureGroup('g', 'person', count('x', 'touches', (7,)))]",
     "entity 'person' is none"),
])
def test_mistakes_in_python_name_the_line_or_the_feature(tmp_path, code, said):
    """One paragraph, no traceback."""
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(SettingsError, match=said):
        definitions(from_mapping({"allow_code": True, "features": {"own": "mine.py"}}, tmp_path))


def _feature(text: str) -> str:
    return TABLE + f'[groups.training]\ntable = "trainings"\nfeatures.x = {{ {text} }}\n'


@pytest.mark.parametrize(("text", "said"), [
    ("[tabels.x]", "unknown key 'tabels'. Did you mean 'tables'"),
    ("x = [", "features.toml: not valid TOML"),
    ("schema_version = 9", "'schema_version' Input should be less than or equal to 1"),
    ("[tables.usage_events]\nat = 'x'", "has the name of a table of churnkit's"),
    ("[tables.moods]\nat = 'x'", "has the name of a table of churnkit's"),
    ("[tables.'a b']\nat = 'x'", "'a b' is no plain name"),
    ("[tables.x]\nsource = 'a.csv'", "'tables.x.at' is missing"),
    ("[tables.x]\nat = 'when'\ntypes = { note = 'text' }", "'tables.x.types.note' Input should be 'number'"),
    ("[tables.x]\nat = 'when'\ntypes = { account_id = 'id' }", "'account_id' is not declared: every table has its"),
    ("[tables.x]\nat = 'when'\ntypes = { at = 'number' }", "'at' means a row's own time everywhere"),
    ("[tables.x]\nat = 'when'\ntypes = { when = 'number' }", "'at' names 'when', which types calls a number"),
    ("[tables.x]\nat = 'when'\nsince = { hour = 'when' }", "names 'hour', which is no column of x"),
    ("[tables.x]\nat = 'when'\ntypes = { n = 'number' }\nsince = { n = 'wen' }", "no time of x. Did you mean"),
    ("[tables.x]\nat = 'when'\ncolumns = { customer = 'c' }", "maps 'customer', which is no column of x"),
    ("[tables.x]\nat = 'when'\nsource = 'postgresql://me:hunter2@host/db'", r"\$\{DB_PASSWORD\}"),
    ("[tables.x]\nat = 'when'\ntypes = { " + ", ".join(f"c{n} = 'number'" for n in range(40)) + " }", "30 are"),
    (_feature("op = 'count'"), r"\[groups.training.features.x\]: op 'count' needs 'windows'. Add windows = \[7, 28\]"),
    (_feature("op = 'max', of = 'hours', windows = [7]"), "op 'max' is no operation. Did you mean 'highest'"),
    (_feature("op = 'extreme', of = 'hours', windows = [7]"), "Did you mean 'lowest' or 'highest'"),
    (_feature("op = 'cuont', windows = [7]"), "Did you mean 'count'"),
    (_feature("op = 'count', windows = [7], of = 'hours'"), "op 'count' takes no 'of'"),
    (_feature("op = 'total', windows = [7]"), "op 'total' needs 'of'"),
    (_feature("op = 'total', of = 'hour', windows = [7]"), "'of' names 'hour', .* of trainings. Did you mean 'hours'"),
    (_feature("op = 'total', of = 'course', windows = [7]"), "op 'total' cannot take 'course', which is a category"),
    (_feature("op = 'total', of = 'graded_at', windows = [7]"), "It is a time: use it as 'at'"),
    (_feature("op = 'count', windows = [0]"), "a window of 0 days. Write 1 to 3660 days"),
    (_feature("op = 'count', windows = [-3]"), r"\[groups.training.features.x\]: '-3' is no span of time"),
    (_feature("op = 'count', windows = ['9x']"), "'9x' is no span of time"),
    (_feature("op = 'count', windows = [true]"), "windows"),
    (_feature("op = 'count', windows = [7, 7]"), "feature 'x_7d': group 'training' has one of that name"),
    (_feature("op = 'count', windows = [7], compared = [8]"), "compared names a window that windows does not"),
    (_feature("op = 'count', windows = [7], table = 'training'"), "no table 'training' .* Did you mean 'trainings'"),
    (_feature("op = 'count', windows = [7], table = 'owners'"), "there is no table 'owners' that tells of an account"),
    (_feature("op = 'count', windows = [7], table = 'telemetry'"), "tells of assets, and the group is of accounts"),
    (_feature("op = 'count', windows = [7], table = 'contacts'"), "contacts have no time of their own. Say at ="),
    (_feature("op = 'count', windows = [7], at = 'hours'"), "'at' names 'hours', which is no time of trainings"),
    (_feature("op = 'count', windows = [7], where = { curse = 'a' }"), "'where' names 'curse', .* mean 'course'"),
    (_feature("op = 'count', windows = [7], where = { course = 3 }"), "nothing that a category can be. Write a word"),
    (_feature("op = 'count', windows = [7], where = { passed = 'yes' }"), "nothing that a flag can be. Write true or"),
    (_feature("op = 'count', windows = [7], where = { hours = 'DROP TABLE x' }"), "Write a number such as 3"),
    (_feature("op = 'count', windows = [7], where = { score = 5, hours = 1 }, at = 'held_at'"),
     "'score' of trainings is known from graded_at on, not from held_at. Say at = 'graded_at'"),
    (_feature("op = 'share', windows = [7], where = { score = 5 }"), "known from graded_at on, not from held_at"),
    (_feature("op = 'open_at'"), r"cannot tell what of 'trainings' holds .* Give \[tables.trainings\] until = '...'"),
    (_feature("op = 'open_at', measure = 'total'"), "measure 'total' needs 'of'"),
    (_feature("op = 'ratio', of = 'y_7d', by = 'x'"), "'of' names 'y_7d', which is no feature of this group"),
    (_feature("op = 'ratio', of = 'x', by = 'x'"), "in a circle"),
    (_feature("op = 'count', windows = [7], says = '{count} times'"), "'says' has a mark that nothing fills"),
    (_feature("op = 'last', of = 'hours', says = '{value} in {window}'"), "the feature has no window"),
    (_feature("op = 'last', of = 'course', nothing = 'none'"), "'nothing' is said of 0, and this is a word"),
    (_feature("op = 'last', of = 'hours', unit = 'hour'"), "unit 'hour' is none. Did you mean 'hours'"),
    (_feature("op = 'last', of = 'hours'").replace("features.x", "features.Hours"), "names are lower-case letters"),
    (_feature("op = 'last', of = 'hours'").replace("features.x", "features.cutoff"), "taken by churnkit itself"),
    ("[groups.churn]\nfeatures.x = { op = 'count', table = 'touches', windows = [7] }", "may not be called so"),
    ("[groups.g]\nfeatures.x = { op = 'count', windows = [7] }", "names no table. Say table = '...'"),
    ("[groups.g]\ntargets = ['maintenance']\nfeatures.x = { op = 'count', table = 'touches', windows = [7] }",
     "a group of accounts can feed churn and expansion"),
    ("[groups.g]\nsays = 'x'", "has no feature. Add one"),
])
def test_each_mistake_names_its_mend(tmp_path, text, said):
    """File, key or feature, what is wrong, and what to write instead; never a secret."""
    with pytest.raises(SettingsError, match=said) as error:
        definitions(workspace(tmp_path, text))
    assert "features.toml: " in str(error.value)
    assert "\n" not in str(error.value)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(("text", "said"), [
    ("[groups.usage]\nfeatures.x = { op = 'count', table = 'touches', windows = [7] }",
     "group 'usage' has the name of one of churnkit's"),
    ("[groups.g]\nfeatures.events = { op = 'count', table = 'touches', windows = [7] }",
     "feature 'events_7d': churnkit's group 'usage' has one of that name"),
])
def test_own_names_may_not_be_ours(tmp_path, text, said):
    """Columns of one entity stand side by side: two of one name would be one."""
    with pytest.raises(SettingsError, match=said):
        groups(Catalog(own=definitions(workspace(tmp_path, text)).text))


def test_two_own_features_of_one_name_are_refused_across_groups_and_files(tmp_path):
    """Where the second stands, and which group has the first."""
    (tmp_path / "more.toml").write_text("[groups.more]\nfeatures.last_hours = { op = 'days_since', table = 'touches' }")
    settings = workspace(tmp_path, features={"own": ["features.toml", "more.toml"]})
    with pytest.raises(SettingsError, match=r"more.toml: group 'more', feature 'last_hours': group 'training' has one"):
        definitions(settings)


def test_a_missing_file_is_named_with_the_nearest(tmp_path):
    """The key, the file, and what was probably meant."""
    workspace(tmp_path)
    with pytest.raises(SettingsError, match=r"no such file. Did you mean 'features.toml'"):
        definitions(from_mapping({"features": {"own": "feature.toml"}}, tmp_path))


def test_features_toml_beside_the_settings_needs_no_mention(tmp_path):
    """A workspace finds it; settings without a workspace look nowhere."""
    workspace(tmp_path)
    (tmp_path / "churnkit.toml").write_text("")
    assert set(own(load(tmp_path))) == {"training"}
    assert set(own(from_mapping({}, tmp_path))) == set()


def test_words_are_given_where_they_are_left_out(tmp_path):
    """Each operation has a plain sentence, without holes, for any value."""
    text = TABLE.replace('at = "held_at"', 'at = "held_at"\nuntil = "over_at"') + """
[groups.training]
table = "trainings"
features.trainings = { op = "count", windows = [28, "6h"], compared = [28] }
features.hours = { op = "total", of = "hours", windows = [28] }
features.passed_any = { op = "flag", windows = [28], where = { passed = true } }
features.passed = { op = "share", windows = [28], where = { passed = true } }
features.last_course = { op = "last", of = "course" }
features.last_training = { op = "days_since" }
features.running = { op = "open_at" }
features.running_then = { op = "open_at", before = 84 }
features.change_28d = { op = "change", of = "trainings_28d", by = "trainings_28d_before" }
"""
    catalog = Catalog(own=definitions(workspace(tmp_path, text)).text)
    said = {name: phrase(name, "x" if name == "last_course" else 2.0, 3.0, catalog)
            for name in groups(catalog)["training"].names}
    assert said == {
        "trainings_28d": "trainings: 2 in the last 28 days, 3 in the 28 days before",
        "trainings_28d_before": "trainings: 2 in the 28 days before the last 28",
        "trainings_6h": "trainings: 2 in the last 6 hours", "hours_28d": "hours: 2 in all in the last 28 days",
        "passed_any_28d": "passed any in the last 28 days", "passed_28d": "passed: 200% in the last 28 days",
        "last_course": "last course: x the last time", "last_training": "last training: 2 days ago",
        "running": "running: 2 now", "running_then": "running then: 2 84 days before",
        "change_28d": "change: up 200% compared with the 28 days before",
    }
    assert phrase("trainings_28d", 0.0, None, catalog) == "trainings: none in the last 28 days"
    assert phrase("last_course", None, None, catalog) == "last course: none"


def test_hostile_names_and_values_stay_values(tmp_path):
    """A word from the file is compared, never run; so is a source's own column name."""
    evil = "x'); DROP TABLE accounts; --"
    text = TABLE.replace("safety", evil) + f"""
[tables.trainings.columns]
hours = '''a"b'; DROP TABLE accounts; --'''
[groups.training]
table = "trainings"
features.odd = {{ op = "count", windows = [84], where = {{ course = ["{evil}", "$(rm -rf /)"] }} }}
features.hours = {{ op = "total", of = "hours", windows = [84] }}
"""
    data = frames(course=[evil, "safety", "safety"])
    data["trainings"] = data["trainings"].rename(columns={"hours": """a"b'; DROP TABLE accounts; --"""})
    settings = workspace(tmp_path, text)
    tables, catalog = Tables.from_frames(settings, **data), Catalog(own=definitions(settings).text)
    points = points_at(tables, "account", [moment("2025-06-01")]).set_index("entity_id", drop=False)
    found = compute_group(tables, points, groups(catalog)["training"], catalog)
    assert found["odd_84d"].to_dict() == {"A": 1.0, "B": 0.0}
    assert found["hours_84d"].to_dict() == {"A": 6.0, "B": 0.0}
    assert len(tables["accounts"]) == 2


def test_an_own_table_is_read_counted_checked_and_set_aside_like_ours(tmp_path):
    """Rows of unknown accounts, unreadable cells and rows from the future; the rest is kept, and `check` counts it."""
    settings = workspace(tmp_path, TABLE.replace('at = "held_at"', 'at = "held_at"\nknown_after = "1d"\nzone = '
                                                 '"Europe/Berlin"\nsource = "data/own.csv"') + GROUP, invalid="drop")
    raw = tmp_path / "data" / "raw"
    raw.mkdir(parents=True)
    (raw / "accounts.csv").write_text("account_id,created_at\nA,2024-01-01\n")
    (tmp_path / "data" / "own.csv").write_text(
        "account_id,held_at,course,hours,passed,score,graded_at\n"
        "A,2025-07-01 02:00:00,safety,1.5,yes,3,2025-07-02\n"
        "Z,2025-07-01,safety,1,yes,3,\n"
        "A,2025-07-01,safety,many,yes,3,\n"
        "A,2027-07-01,safety,1,yes,3,\n")
    tables = read_tables(settings, at=AT)
    assert {finding.check for finding in tables.findings if finding.table == "trainings"} == {
        "reference", "type", "future"}
    row = tables["trainings"].iloc[0]
    assert (tables.counts["trainings"].read, tables.counts["trainings"].kept) == (4, 1)
    assert (row["held_at"], row["known_at"]) == (pd.Timestamp("2025-07-01", tz="UTC"), pd.Timestamp("2025-07-02",
                                                                                                    tz="UTC"))
    feed = {feed.table: feed for feed in check(tables, AT, remember=False).feeds}["trainings"]
    assert (feed.kept, feed.known_after_hours) == (1, 24.0)


def test_a_declared_column_must_stand_in_the_source(tmp_path):
    """A feature of a column that is not there would be missing for ever, in silence."""
    data = frames()
    data["trainings"] = data["trainings"].drop(columns="hours")
    with pytest.raises(DataError, match=r"trainings: 'trainings' has no column 'hours'.*\[tables.trainings.columns\]"):
        Tables.from_frames(workspace(tmp_path), **data)


def test_groups_feed_the_targets_that_they_name(tmp_path):
    """Named ones, or by default all of the entity."""
    settings = workspace(tmp_path)
    assert configured(CHURN, settings).groups == (*CHURN.groups, "training")
    assert configured(EXPANSION, settings).groups == EXPANSION.groups
    text = TABLE + '[groups.more]\nfeatures.x = { op = "days_since", table = "touches" }\n[groups.hot]\n'
    text += 'entity = "asset"\nfeatures.y = { op = "highest", of = "value", table = "telemetry", windows = [7] }\n'
    settings = workspace(tmp_path, text)
    assert [configured(target, settings).groups[-1] for target in (CHURN, EXPANSION, MAINTENANCE)] == [
        "more", "more", "hot"]


def test_what_is_known_of_targets_here_is_what_the_targets_say():
    """The signals' room knows no target; its list of names is held against theirs."""
    assert {name: entity for entity, names in own_checks.TARGETS.items() for name in names} == {
        name: target.entity for name, target in TARGETS.items()}


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """All features of the book at two cutoffs."""
    tables = Tables.from_frames(workspace(tmp_path_factory.mktemp("ours")), **frames())
    return compute_features(tables, points_at(tables, "account", [moment("2025-06-01"), moment("2025-06-29")]))


@pytest.fixture(scope="module")
def ours(book):
    """Those that no definition of a workspace moves."""
    kept = book.drop(columns=["trainings_28d", "trainings_28d_before", "last_hours"])
    kept.attrs = {}
    return kept


def test_own_features_are_computed_beside_ours(book):
    """A count where its rows are of its kind, a last value, 0 and missing where there is nothing."""
    found = book[book["cutoff"] == pd.Timestamp("2025-06-01", tz="UTC")].set_index("entity_id")
    assert found["trainings_28d"].to_dict() == {"A": 1.0, "B": 0.0}
    assert found["trainings_28d_before"].to_dict() == {"A": 1.0, "B": 0.0}
    assert found["last_hours"]["A"] == 3.0
    assert pd.isna(found["last_hours"]["B"])
    assert found["events_84d"].to_dict() == {"A": 1.0, "B": 0.0}


def computed(ours, tables, catalog):
    """All features: ours, and those of the workspace's own groups as `compute_features` computes them."""
    for group in parsed(catalog.own).groups.values():
        ours = ours.join(compute_group(tables, ours, group, catalog))
    return ours


@pytest.fixture
def stored(ours, tmp_path):
    """A workspace on disk, its points, and a store that holds their features."""
    settings = workspace(tmp_path)
    (tmp_path / "churnkit.toml").write_text(f"covers_until = {AT}\n")
    tables, store = Tables.from_frames(settings, **frames()), Store(tmp_path / "features")
    store.write(computed(ours, tables, discover(tables)), discover(tables))
    return tmp_path, ours[list(POINTS)], store


def _again(folder: Path, text: str):
    """The workspace with another features.toml: settings, tables and store opened anew."""
    settings = workspace(folder, text)
    data = {name: frame for name, frame in frames().items() if text or name != "trainings"}
    return configured(CHURN, settings), Tables.from_frames(settings, **data), Store(folder / "features")


def test_own_features_come_back_from_feast(stored):
    """Through the view and the service of a target that sees them; the catalog file keeps words alone."""
    folder, points, store = stored
    found = store.read(points, configured(CHURN, load(folder)))
    assert found["trainings_28d"].tolist() == [1.0, 0.0, 0.0, 0.0]
    assert "trainings_28d" not in store.read(points, EXPANSION)
    assert "training" not in (folder / "features" / "catalog.json").read_text()


def test_a_new_own_feature_makes_its_points_lacking_and_leaves_the_others_as_they_are(ours, stored):
    """Its group is computed at all points again; a past feature of ours is not touched."""
    folder, points, _ = stored
    target, tables, store = _again(folder, TABLE + GROUP + 'features.hours = { op = "total", of = "hours", '
                                   "windows = [28] }\n")
    assert len(store.lacking(points)) == len(points)
    with pytest.raises(FeatureError, match=r"no 'training' features that may be served.*churnkit features --at"):
        store.read(points, target)
    before = store.read(points, CHURN)
    other = computed(ours, tables, store.catalog).assign(events_84d=99.0)
    store.write(other, keep=True)
    pd.testing.assert_frame_equal(before, store.read(points, CHURN))
    assert store.read(points, target)["hours_28d"].tolist() == [4.0, 0.0, 0.0, 0.0]
    assert len(store.lacking(points)) == 0


def test_another_definition_under_the_same_name_is_another_feature(ours, stored):
    """What an earlier `where` gave is not served; going back finds it again; words alone change nothing."""
    folder, points, store = stored
    first = store.read(points, configured(CHURN, load(folder)))
    changed = TABLE + GROUP.replace("safety", "fun")
    target, tables, store = _again(folder, changed)
    assert len(store.lacking(points)) == len(points)
    store.write(computed(ours, tables, store.catalog), keep=True)
    assert store.read(points, target)["trainings_28d"].tolist() == [1.0, 0.0, 0.0, 0.0]
    target, _, store = _again(folder, TABLE + GROUP.replace("op = ", 'says = "{value} visits", op = '))
    assert len(store.lacking(points)) == 0
    pd.testing.assert_frame_equal(first, store.read(points, target))


def test_a_removed_group_breaks_no_reading(stored):
    """Models and services go on without it, and Feast forgets its view."""
    folder, points, store = stored
    store.materialize("2025-06-29", configured(CHURN, load(folder)))
    target, _, store = _again(folder, "")
    assert len(store.lacking(points)) == 0
    assert "trainings_28d" not in store.read(points, target)
    store.materialize("2025-06-29", target)
    assert "trainings_28d" not in store.online("A", target)


def test_the_features_folder_declares_own_groups(stored):
    """definitions.py has a view by the group's name, and the services of the targets hold it."""
    made = runpy.run_path(str(stored[0] / "features" / "definitions.py"))
    assert made["training"].name == "training"
    seen = {name: [view.name for view in made[name].feature_view_projections] for name in ("churn", "expansion")}
    assert seen == {"churn": [*CHURN.groups, "training"], "expansion": list(EXPANSION.groups)}


@pytest.mark.slow
def test_feast_apply_in_the_features_folder_registers_own_groups(stored):
    """Feast's own command, as a user runs it."""
    folder, _, store = stored
    command = [str(Path(sys.executable).with_name("feast")), "apply"]
    done = subprocess.run(command, cwd=folder / "features", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    service = store._open().get_feature_service("churn")
    assert [view.name for view in service.feature_view_projections] == [*CHURN.groups, "training"]


def test_every_operation_of_the_grammar_can_be_written_in_toml():
    """Each key of the file's operations is a constructor of groups.py that the checks know."""
    assert [op for op in own_toml._KEYS if not callable(getattr(grammar, op))] == []


def test_every_column_and_time_of_our_tables_can_be_read(tmp_path):
    """Each column is counted by and each time counted at, on almost empty tables: no name is wrong."""
    lines = [f"[groups.g_{name}]\nentity = '{table.entity}'\ntable = '{name}'\n"
             + "".join(f"features.{name}_{column} = {{ op = 'distinct', of = '{column}', windows = [7], at = "
                       f"'{table.known_from.get(column, table.times[0])}' }}\n" for column in table.kinds)
             + "".join(f"features.{name}_at_{time} = {{ op = 'count', at = '{time}', windows = [7] }}\n"
                       for time in table.times) for name, table in OURS.items()]
    settings = workspace(tmp_path, "\n".join(lines))
    tables = Tables.from_frames(settings, accounts=frames()["accounts"])
    for group in own(settings).values():
        built = stream(group.streams[0], Catalog(own=definitions(settings).text)).build(tables, Catalog())
        assert {item.at for item in group.all_features} <= set(built.columns)
        found = built.select({item.of for item in group.all_features if item.of}).to_pyarrow()
        assert len(found) == (2 if group.name == "g_accounts" else 0)
