"""Which points the truncation audit looks at: accounts at cutoffs of their own, some on the very edge of a row."""

# ruff: noqa: S608 - SQL is built from contract names, quoted identifiers and quoted literals only

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd

from churnkit.audit.cut import SPANS, contract
from churnkit.schemas import POINTS
from churnkit.signals.relation import literal, quoted
from churnkit.signals.rules import happened
from churnkit.signals.tables import Tables

ROUNDS = 4
"""How many cutoffs of one account are looked at, at most; in a round an account has one."""
EDGES = 3
"""Rows per time column at whose very time an account is looked at."""


def rounds(tables: Tables, at: dt.datetime, points: int, seed: int = 7) -> list[pd.DataFrame]:
    """Accounts with a cutoff each (`account_id`, `cutoff`), in rounds in which no account and no asset comes twice.

    Up to half of the points lie on edges, at the time of one of the account's own rows, or between that time and the
    one at which it was recorded; the others at midnights between the account's first day, or the first signal, and
    `at`.
    """
    edges, usual = _edges(tables, at).head(points // 2), _midnights(tables, at, points, seed)
    wanted = pd.concat([edges, usual], ignore_index=True).drop_duplicates(ignore_index=True)
    wanted = wanted[wanted.groupby("account_id").cumcount() < ROUNDS].head(points)
    sharing = _sharing(tables)
    made: list[pd.DataFrame] = []
    for _, rows in wanted.groupby(wanted.groupby("account_id").cumcount()):
        taken: set[str] = set()
        for account in rows["account_id"]:
            if not sharing.get(account, set()) & taken:
                taken.add(account)
        made.append(rows[rows["account_id"].isin(taken)].reset_index(drop=True))
    return made


def points_of(tables: Tables, cuts: pd.DataFrame, most: int) -> pd.DataFrame:
    """The points of a round: its accounts, and up to `most` of their assets, columns `schemas.POINTS`."""
    accounts = cuts.assign(entity="account", entity_id=cuts["account_id"])
    owned = tables.raw.execute("SELECT asset_id AS entity_id, any_value(account_id) AS account_id FROM assets "
                               "GROUP BY asset_id ORDER BY hash(asset_id)").df()
    owned = owned.drop_duplicates("entity_id").merge(cuts, on="account_id").head(most).assign(entity="asset")
    both = pd.concat([accounts, owned], ignore_index=True)
    stamps = both["cutoff"].map(lambda cutoff: cutoff.isoformat())
    both["row_id"] = both["entity"] + ":" + both["entity_id"].astype(str) + "@" + stamps
    return both[list(POINTS)].astype({"entity_id": object, "account_id": object})


def _edges(tables: Tables, at: dt.datetime) -> pd.DataFrame:
    """Accounts at the times of their own rows that were known by then, and just after those that were known later."""
    limit, queries = f"TIMESTAMPTZ {literal(at.isoformat())}", list[str]()
    owners = "(SELECT asset_id, any_value(account_id) AS account_id FROM assets GROUP BY asset_id)"
    for name, table in contract(tables).items():
        if not tables.has(name) or not {"account_id", "asset_id"} & set(table.by_name):
            continue
        source = quoted(name) if "account_id" in table.by_name else f"{quoted(name)} JOIN {owners} USING (asset_id)"
        for column in table.columns:
            if happened(column) and column.name != "recorded_at":
                time, late = quoted(column.name), f"{quoted(column.name)} + INTERVAL 1 MICROSECOND"
                edges = [(time, f"known_at <= {time}")]
                edges += [(late, f"known_at > {late}")] if column.name == table.time else []
                queries += [f"(SELECT account_id, {edge} AS cutoff, {len(queries) + n} AS place FROM {source} WHERE "
                            f"{edge} <= {limit} AND {known} ORDER BY hash(account_id, {time}) LIMIT {EDGES})"
                            for n, (edge, known) in enumerate(edges)]
    found = tables.raw.execute(" UNION ALL ".join(queries)).df()
    # One edge of each time column first, then the second ones: a small number of points still meets all columns.
    found = found.assign(nth=found.groupby("place").cumcount()).sort_values(["nth", "place"], kind="stable")
    return _as_cuts(found)


def _midnights(tables: Tables, at: dt.datetime, points: int, seed: int) -> pd.DataFrame:
    """Accounts at random midnights of their lives, as often as it takes to make the points."""
    firsts = [f"SELECT min({quoted(table.time)}) AS first FROM {quoted(name)}"
              for name, table in contract(tables).items() if tables.has(name) and table.time and name not in SPANS]
    first = tables.raw.execute(f"SELECT min(first) FROM ({' UNION ALL '.join(firsts)})").fetchall()[0][0] \
        if firsts else None
    born = tables.raw.execute("SELECT account_id, min(created_at) AS born FROM accounts WHERE account_id IS NOT NULL "
                              "GROUP BY account_id ORDER BY hash(account_id)").df()
    start = pd.to_datetime(born["born"], utc=True)
    if first is not None:
        start = start.where(start > first, pd.Timestamp(first).tz_convert("UTC"))
    dice, end = np.random.default_rng(seed), pd.Timestamp(at)
    days = ((end - start) / pd.Timedelta(days=1)).to_numpy()
    made = []
    for _ in range(ROUNDS):
        back = np.floor(dice.random(len(born)) * np.maximum(days, 0)).astype(int)
        made.append(born.assign(cutoff=end.floor("D") - pd.to_timedelta(back, unit="D"))[days > 0])
    return _as_cuts(pd.concat(made, ignore_index=True).head(points))


def _as_cuts(found: pd.DataFrame) -> pd.DataFrame:
    cutoff = pd.to_datetime(found["cutoff"], utc=True).dt.as_unit("us")
    return pd.DataFrame({"account_id": found["account_id"].astype(object), "cutoff": cutoff})


def _sharing(tables: Tables) -> dict[str, set[str]]:
    """Of each account that ever had an asset of another account, those others."""
    rows = tables.raw.execute("SELECT DISTINCT a.account_id, b.account_id FROM assets a JOIN assets b USING (asset_id) "
                              "WHERE a.account_id <> b.account_id").fetchall()
    found: dict[str, set[str]] = {}
    for one, other in rows:
        found.setdefault(one, set()).add(other)
    return found
