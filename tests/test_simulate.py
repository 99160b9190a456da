"""The simulated book: it keeps the contract, is seeded, its truth is true, and signals precede what they cause."""

import numpy as np
import pandas as pd
import pytest
from simulated import read

from churnkit.errors import DataError, SettingsError
from churnkit.schemas import RAW_TABLES
from churnkit.settings import from_mapping, load
from churnkit.simulate import best_auc, read_truth, simulate
from churnkit.simulate.causes import CAUSES
from churnkit.simulate.truth import TELLS, read_causes

_FUTURE = {"ended_at", "renews_at", "due_at", "until"}
"""Times that an export may rightly name before they come."""


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A small book, read by every test here."""
    return simulate(tmp_path_factory.mktemp("sim") / "data" / "raw", accounts=400, months=18)


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """A book large enough for statistics."""
    return simulate(tmp_path_factory.mktemp("big") / "raw", accounts=2000, months=24)


@pytest.fixture(scope="module")
def raw(book):
    """All its tables."""
    return {name: read(book.folder, name) for name in book.rows}


def test_it_writes_every_raw_table_but_the_outcomes(book, raw):
    """The sync alone writes outreach_outcomes."""
    assert set(RAW_TABLES) - {"outreach_outcomes"} == set(book.rows)
    assert dict(book.rows) == {name: len(table) for name, table in raw.items()}
    assert min(book.rows.values()) > 0


@pytest.mark.parametrize("name", sorted(set(RAW_TABLES) - {"outreach_outcomes"}))
def test_a_table_keeps_the_contract(raw, book, name):
    """Columns, keys, values, bounds, references and the order of times."""
    table, contract, end = raw[name], RAW_TABLES[name], pd.Timestamp(book.end)
    assert set(contract.required) <= set(table.columns) <= set(contract.names)
    if contract.key:
        key = [column for column in contract.key if column in table]
        assert not table.duplicated(key).any()
    assert not table.duplicated().any()
    for column in (contract.by_name[each] for each in table.columns):
        values = table[column.name].dropna()
        assert not (column.required and len(values) < len(table)), column.name
        allowed = set(column.values) or set(values.unique())
        assert set(values.unique()) <= allowed, column.name
        if column.low is not None:
            assert (values >= column.low).all(), column.name
        if column.high is not None:
            assert (values <= column.high).all(), column.name
        if column.refers:
            assert set(values.unique()) <= set(raw[column.refers][RAW_TABLES[column.refers].key[0]]), column.name
        if column.kind == "time":
            if column.name not in _FUTURE:
                assert (values <= end).all(), column.name
            if column.after:
                assert not (table[column.name] < table[column.after]).any(), column.name


def test_the_settings_it_names_are_settings(book, tmp_path):
    """Mapping and text say the same, and churnkit.toml takes both."""
    (tmp_path / "churnkit.toml").write_text(book.toml)
    assert load(tmp_path) == from_mapping(book.settings, root=tmp_path)


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    """And another seed gives another book."""
    first, again, other = (simulate(tmp_path / name / "raw", accounts=60, months=8, seed=seed)
                           for name, seed in (("a", 1), ("b", 1), ("c", 2)))

    def content(book):
        files = sorted([*book.folder.iterdir(), *book.truth.iterdir()])
        return {file.name: file.read_bytes() for file in files}

    assert content(first) == content(again)
    assert content(first)["accounts.csv"] != content(other)["accounts.csv"]


def test_the_truth_lies_outside_the_raw_folder(book):
    """A workspace that reads every raw file reads nothing of it."""
    assert book.folder not in book.truth.parents
    assert {f"{name}.{'parquet' if name in ('usage_events', 'telemetry', 'ticket_messages') else 'csv'}"
            for name in book.rows} == {file.name for file in book.folder.iterdir()}


@pytest.mark.parametrize(("target", "low", "high"), [("churn", 0.75, 0.88), ("expansion", 0.75, 0.88),
                                                     ("maintenance", 0.75, 0.95)])
def test_the_default_is_as_hard_as_life(big, target, low, high):
    """The best AUC that the true hazard allows lies between luck and certainty."""
    assert low < best_auc(big, target) < high


@pytest.mark.parametrize("target", ["churn", "expansion", "maintenance"])
def test_the_truth_is_calibrated(big, target):
    """True probabilities average to what came to pass, in the riskiest tenth and in the rest."""
    chance, came = read_truth(big.truth, target)
    top = chance > np.quantile(chance, 0.9)
    for part in (top, ~top):
        assert came[part].mean() == pytest.approx(chance[part].mean(), rel=0.25, abs=0.004)


def test_harder_is_harder(tmp_path, big):
    """The hard book's best AUC lies below the default's, and above chance."""
    hard = simulate(tmp_path / "raw", accounts=1000, months=18, difficulty="hard")
    assert 0.6 < best_auc(hard, "churn") < best_auc(big, "churn") - 0.04


def test_realised_churn_is_what_the_subscriptions_say(book, raw):
    """The truth's outcomes, recomputed from the raw rows for windows that had closed by the end."""
    truth = pd.read_parquet(book.truth / "accounts.parquet").dropna(subset=["churned"])
    truth = truth[truth["cutoff"] + pd.Timedelta(days=104) <= pd.Timestamp(book.end)]
    rows = raw["subscriptions"]
    going = rows["ended_at"].isna().groupby(rows["account_id"]).any()
    last = rows.groupby("account_id")["ended_at"].max().where(~going)
    end = truth["account_id"].map(last)
    inside = (end >= truth["cutoff"] + pd.Timedelta(days=14)) & (end < truth["cutoff"] + pd.Timedelta(days=104))
    assert truth["churned"].astype(bool).tolist() == inside.tolist()


def test_signals_precede_their_effects(book, raw):
    """Use falls after a champion leaves, and a bug burst brings more tickets than there were before it."""
    cause = pd.read_parquet(book.truth / "causes.parquet")
    usage = raw["usage_events"].groupby(["account_id", "occurred_at"], observed=True)["quantity"].sum().reset_index()
    usage = usage.rename(columns={"occurred_at": "at", "quantity": "n"}).astype({"account_id": str})
    asked = raw["support_tickets"].assign(n=1.0).rename(columns={"opened_at": "at"})[["account_id", "at", "n"]]

    def ratio(name, rows):
        both = cause[cause["cause"] == name].merge(rows, on="account_id")
        days = (both["at"] - both["week_of"]) / pd.Timedelta(days=1)
        return both["n"][days.between(0, 42)].sum() / both["n"][days.between(-42, 0)].sum()

    assert ratio("champion_left", usage) < 0.85
    assert ratio("bug_burst", asked) > 1.5


def test_the_seasonal_dip_is_harmless(big):
    """Use is far lower in August than in May, churn is not higher than by chance."""
    usage = pd.read_parquet(big.folder / "usage_events.parquet", columns=["occurred_at", "quantity"])
    month = usage.groupby(usage["occurred_at"].dt.month)["quantity"].sum()
    assert month[8] < 0.8 * month[5]
    truth = pd.read_parquet(big.truth / "accounts.parquet")
    truth["summer"] = truth["cutoff"].dt.month.isin([8, 9])
    mean = truth.groupby("summer")["churn_probability"].mean()
    assert mean[True] == pytest.approx(mean[False], rel=0.2)


def test_some_accounts_are_better_left_alone(book):
    """Outreach helps most where a cause is at work, and harms some sleeping dogs."""
    truth = pd.read_parquet(book.truth / "accounts.parquet")
    harmed = truth["churn_probability_if_contacted"] > truth["churn_probability"]
    assert 0.02 < harmed.mean() < 0.4
    assert truth.loc[truth["causes"].str.contains("champion_left"), "contact_effect"].mean() < -0.2


@pytest.mark.parametrize(("dial", "mend"), [
    ({"accounts": 0}, "Choose between"), ({"months": 2}, "Choose between"), ({"seed": -1}, "from 0"),
    ({"difficulty": "nomal"}, "Did you mean 'normal'"),
])
def test_a_dial_out_of_bounds_names_its_mend(tmp_path, dial, mend):
    """Nothing is written then."""
    with pytest.raises(SettingsError, match=mend):
        simulate(tmp_path / "raw", **dial)
    assert not (tmp_path / "raw").exists()


@pytest.mark.parametrize("accounts", [1, 3])
def test_a_handful_of_accounts_still_makes_every_table(tmp_path, accounts):
    """Some of them may be empty."""
    book = simulate(tmp_path / "raw", accounts=accounts, months=6)
    assert len(RAW_TABLES) - 1 == len(list(book.folder.iterdir()))


def test_truth_that_is_not_there_is_named(tmp_path):
    """As is a target that is none."""
    with pytest.raises(DataError, match="Did you mean 'churn'"):
        read_truth(tmp_path, "chrun")
    with pytest.raises(DataError, match="Only simulated books have one"):
        read_truth(tmp_path, "churn")


def test_causes_are_read_one_row_each(book):
    """As a split by hand gives them; growth makes nobody leave."""
    truth = pd.read_parquet(book.truth / "accounts.parquet")
    expected = [(account, cutoff, cause) for account, cutoff, causes in
                zip(truth["account_id"], truth["cutoff"], truth["causes"], strict=True)
                for cause in causes.split(";") if cause not in {"", "growth"}]
    found = read_causes(book.truth).to_pandas()
    assert expected == list(zip(found["account_id"], found["cutoff"], found["cause"], strict=True))
    assert {cause.name for cause in CAUSES if cause.churn > 0} == set(TELLS) == set(found["cause"])
    with pytest.raises(DataError, match="churnkit simulate"):
        read_causes(book.folder)
