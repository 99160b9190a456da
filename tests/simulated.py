"""Reading what the simulator wrote."""

import pandas as pd

from churnkit.schemas import RAW_TABLES


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
