"""Feature files: versions, upgrades with a backup, and refusal of what a newer churnkit wrote."""

from __future__ import annotations

import pandas as pd
import pyarrow.parquet as pq
import pytest

from churnkit.errors import FeatureError
from churnkit.signals import partitions

SCHEMA = partitions.schema("account_id", {"events_7d": "number"})


@pytest.fixture
def data(tmp_path):
    """A data folder with one group of one day."""
    when = pd.Timestamp("2026-01-01", tz="UTC").as_unit("us")
    frame = pd.DataFrame({"account_id": ["a"], partitions.TIME: [when], partitions.CREATED: [when], "events_7d": [3.0]})
    partitions.write(tmp_path / "data" / "usage", frame, SCHEMA)
    return tmp_path / "data"


def mark(file, version):
    """Writes another schema version into a file; None takes the mark away, as before versions were written."""
    table = pq.ParquetFile(file).read()
    pq.write_table(table.replace_schema_metadata(None if version is None else {partitions._MARK: version}), file)


def test_a_newer_file_is_refused(data):
    """An older program says that it is too old, and does not guess."""
    file = data / "usage" / "2026-01-01.parquet"
    mark(file, b"99")
    with pytest.raises(FeatureError, match="Upgrade churnkit"):
        partitions.read(file)


def test_an_upgrade_brings_old_files_up_to_date_and_keeps_a_copy(data):
    """Files without a version are refused until upgraded; the copy holds them as they were."""
    file = data / "usage" / "2026-01-01.parquet"
    mark(file, None)
    before = file.read_bytes()
    with pytest.raises(FeatureError):
        partitions.read(file)
    kept = partitions.upgrade(data)
    assert partitions.read(file).column("events_7d").to_pylist() == [3.0]
    assert (kept / "usage" / "2026-01-01.parquet").read_bytes() == before


def test_files_from_before_restatements_are_held_and_get_the_mark_when_upgraded(data):
    """Layout 1 had no column for it: its rows count as they are, and are no restatements afterwards."""
    file = data / "usage" / "2026-01-01.parquet"
    old = pq.ParquetFile(file).read().drop_columns([partitions.RESTATED])
    pq.write_table(old.replace_schema_metadata({partitions._MARK: b"1"}), file)
    assert len(partitions.held(data / "usage", SCHEMA)) == 1
    assert partitions.restatements(data, "a", pd.Timestamp("2026-01-01", tz="UTC")) == {}
    kept = partitions.upgrade(data)
    assert pq.read_schema(kept / "usage" / "2026-01-01.parquet").names == old.column_names
    assert partitions.read(file).schema.names == SCHEMA.names
    assert partitions.read(file).column(partitions.RESTATED).null_count == 1


def test_what_is_up_to_date_stays(data):
    """No copy is made where nothing is old."""
    assert partitions.upgrade(data) is None


def test_rows_of_other_definitions_do_not_count(data):
    """A file whose columns are not today's is as good as none."""
    assert len(partitions.held(data / "usage", SCHEMA)) == 1
    other = partitions.schema("account_id", {"events_28d": "number"})
    assert len(partitions.held(data / "usage", other)) == 0
