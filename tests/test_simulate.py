"""The simulated book: it keeps the contract, it is seeded, its truth is true, and its signals precede what they cause."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from churnkit.cutoffs import moment
from churnkit.errors import DataError, SettingsError
from churnkit.schemas import RAW_TABLES
from churnkit.settings import from_mapping
from churnkit.simulate import best_auc, read_truth, simulate

_FUTURE = {"ended_at", "renews_at", "due_at", "until"}
"""Times that an export may rightly name before they come."""


def read(folder, name):
    """A raw table as pandas, ids as text and times as UTC."""
    if (folder / f"{name}.parquet").exists():
        return pd.read_parquet(folder / f"{name}.parquet")
    columns = RAW_TABLES[name].by_name
    table = pd.read_csv(folder / f"{name}.csv", dtype={key: str for key, one in columns.items()
                                                       if one.kind in ("id", "text", "category")})
    for key in table:
        if columns[key].kind == "time":
            table[key] = pd.to_datetime(table[key], utc=True)
    return table


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A small book, read by every test here."""
    return simulate(tmp_path_factory.mktemp("sim") / "data" / "raw", accounts=400, months=18)


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
        if column.values:
            assert set(values) <= set(column.values), column.name
        if column.low is not None:
            assert (values >= column.low).all(), column.name
        if column.high is not None:
            assert (values <= column.high).all(), column.name
        if column.refers:
            assert set(values) <= set(raw[column.refers][RAW_TABLES[column.refers].key[0]]), column.name
        if column.kind == "time":
            if column.name not in _FUTURE:
                assert (values <= end).all(), column.name
            if column.after:
                assert not (table[column.name] < table[column.after]).any(), column.name
