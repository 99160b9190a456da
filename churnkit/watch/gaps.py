"""The share of missing values of each feature at the last cutoffs, read off the feature files without the store."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from churnkit.signals import partitions

LATELY = 9
"""Days of cutoffs that are read: today's, and those before it."""
_KEYS = (partitions.TIME, partitions.CREATED, partitions.RESTATED)


def shares(data: Path, groups: Sequence[str], at: dt.datetime) -> dict[dt.datetime, Mapping[str, float]]:
    """By cutoff up to `at`, the oldest first, each feature's share of missing values among the entities of that cutoff.

    Groups that have no files here, because another shelf keeps them or they were never computed, are left out. Rows
    that were computed anew later are not what that day's run knew, and are left out too.

    Raises:
        FeatureError: If a feature file cannot be read.
    """
    found: dict[dt.datetime, dict[str, float]] = {}
    for group in groups:
        files = [file for file in sorted((data / group).glob("2*.parquet")) if file.stem <= f"{at:%Y-%m-%d}"]
        for file in files[-LATELY:]:
            rows = partitions.read(file).to_pandas()
            rows = rows[rows[partitions.RESTATED].isna()] if partitions.RESTATED in rows else rows
            values = rows.columns.difference([rows.columns[0], *_KEYS])
            for cutoff, share in rows[values].isna().groupby(rows[partitions.TIME]).mean().iterrows():
                when = pd.Timestamp(cutoff).to_pydatetime()
                if when <= at:
                    found.setdefault(when, {}).update({str(name): float(one) for name, one in share.items()})
    return dict(sorted(found.items()))
