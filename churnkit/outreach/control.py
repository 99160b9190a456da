"""The control group: which customers get no outreach, drawn evenly over segments and values, and kept for good."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from churnkit.errors import OutreachError
from churnkit.outreach.adjust import Marks
from churnkit.outreach.rates import Floats

ARMS = ("top", "arm", "stratum", "propensity", "share", "salt", "drawn_at", "exposed_at")
"""One row per topmost parent account: `arm` is treated, control or reserve (never kept apart, and in no estimate),
`propensity` the chance that its arm was control, `exposed_at` when a task or a ghost was first planned for it: from
then on its arm is final."""
TOPS = ("top", "segment", "value")
"""What is drawn from: one row per topmost parent account; segment and value may be blank."""
STEPS = (1, 3)
"""Bands of value begin at these times each power of ten. They do not depend on who else is there, so an account's band
is the same whenever it comes."""


@dataclass(frozen=True)
class Rule:
    """How the control group is drawn: its share, the salt of the hash, and the value above which nobody is held out."""

    share: float = 0.10
    salt: str = "churnkit"
    exempt_value: float | None = None


def draw(tops: pd.DataFrame, rule: Rule, kept: pd.DataFrame | None = None, *, at: dt.datetime) -> pd.DataFrame:
    """The arm of every topmost parent account: those drawn before, and the new ones.

    Within a stratum (segment and band of value) new accounts are taken in the order of their salted hash, and every
    1 / share-th is control, counted on from a salted random start over all that came before. So each account has the
    same chance, and each stratum its share to within one account, however they arrive (systematic sampling: Madow and
    Madow, "On the theory of systematic sampling", Annals of Mathematical Statistics 1944).

    Args:
        tops: TOPS, in any order.
        rule: Share, salt and exemption.
        kept: ARMS of before. Exposed accounts stay as they are. The others stay too, unless share or salt have changed.
        at: The moment of drawing.

    Returns:
        ARMS, sorted by `top`; accounts that are gone keep their row.

    Raises:
        OutreachError: If a top comes twice.
    """
    twice = tops["top"][tops["top"].duplicated()]
    if len(twice):
        raise OutreachError(f"Topmost account '{twice.iloc[0]}' comes twice. Give one row for each: control.tops_of().")
    old = _standing(kept, rule)
    new = tops[~tops["top"].isin(old["top"])].copy()
    new["stratum"] = strata(new["segment"], new["value"])
    exempt = np.zeros(len(new), bool) if rule.exempt_value is None else (new["value"] > rule.exempt_value).to_numpy()
    new["arm"] = np.where(exempt, "reserve", "treated")
    drawn = new[~exempt].assign(hash=[number(rule.salt, "top", str(top)) for top in new["top"][~exempt]])
    drawn = drawn.sort_values(["stratum", "hash", "top"], kind="stable")
    counted = old[(old["arm"] != "reserve") & _same(old, rule)]["stratum"].value_counts()
    starts = {one: number(rule.salt, "stratum", one) for one in drawn["stratum"].unique()}
    place = _floats(drawn["stratum"].map(counted).fillna(0)) + _floats(drawn.groupby("stratum").cumcount())
    chosen = systematic(place, _floats(drawn["stratum"].map(starts)), rule.share)
    new.loc[drawn.index[chosen], "arm"] = "control"
    when = pd.Timestamp(at).tz_convert("UTC")
    new = new.assign(propensity=np.where(exempt, 0.0, rule.share), share=rule.share, salt=rule.salt, drawn_at=when,
                     exposed_at=pd.Series(pd.NaT, new.index))
    rows = pd.concat([old, _typed(new)]) if len(old) else _typed(new)
    return rows.sort_values("top", kind="stable").reset_index(drop=True)


def systematic(place: Floats, start: Floats, share: float) -> Marks:
    """Which places in a row are control: those in which start + place x share passes a whole number.

    Args:
        place: How many stood before in the same stratum, shape (n,).
        start: The stratum's random start in [0, 1), shape (n,).
        share: Of the control group, in [0, 1].

    >>> systematic(np.arange(10.0), np.full(10, 0.35), 0.2).nonzero()[0].tolist()
    [3, 8]
    """
    found: Marks = np.floor(start + (place + 1) * share + 1e-9) > np.floor(start + place * share + 1e-9)
    return found


def expose(arms: pd.DataFrame, tops: Any, *, at: dt.datetime) -> pd.DataFrame:
    """The arms with the moment at which a task or a ghost was first planned for these tops; an earlier one stays."""
    first = arms["exposed_at"].isna() & arms["top"].isin(list(tops))
    return arms.assign(exposed_at=arms["exposed_at"].mask(first, pd.Timestamp(at).tz_convert("UTC")))


def tops_of(accounts: pd.DataFrame) -> pd.DataFrame:
    """TOPS of accounts with account_id, top, segment and value: the top's own segment, and the sum of all their values.

    A top that is no account of the book has the segment of its most valuable account.

    >>> rows = pd.DataFrame({"account_id": ["A", "B"], "top": ["A", "A"], "segment": ["mid", "small"], "value": [1, 9]})
    >>> tops_of(rows).to_dict("records")
    [{'top': 'A', 'segment': 'mid', 'value': 10.0}]
    """
    own = accounts["account_id"] == accounts["top"]
    order = accounts.assign(own=own, value=accounts["value"].astype(float))
    order = order.sort_values(["top", "own", "value", "account_id"], ascending=[True, False, False, True])
    groups = order.groupby("top", sort=True)
    found = pd.DataFrame({"segment": groups["segment"].first(), "value": groups["value"].sum(min_count=1)})
    return found.reset_index()[list(TOPS)]


def arm_of(accounts: pd.DataFrame, arms: pd.DataFrame) -> pd.Series:
    """Each account's arm, which is its top's; blank where that was not drawn."""
    return accounts["top"].map(arms.set_index("top")["arm"])


def strata(segment: pd.Series, value: pd.Series) -> pd.Series:
    """Segment and band of value as one name, such as 'mid from 3,000'.

    >>> strata(pd.Series(["mid", None]), pd.Series([4200.0, None])).tolist()
    ['mid from 3,000', 'unknown']
    """
    money = pd.to_numeric(value, errors="coerce").to_numpy(dtype=float)
    edges = np.array([step * 10**power for power in range(2, 10) for step in STEPS], dtype=float)
    band = np.searchsorted(edges, np.nan_to_num(money), side="right")
    names = np.array(["under 100", *(f"from {edge:,.0f}" for edge in edges)], dtype=object)[band]
    names = np.where(np.isnan(money), "", names)
    known = segment.astype(object).where(segment.notna(), "unknown").astype(str)
    return (known + " " + pd.Series(names, segment.index, dtype=object).astype(str)).str.strip()


def number(salt: str, *names: str) -> float:
    """A number in [0, 1) that a salted hash gives to a name.

    >>> number("a", "A1") == number("a", "A1") != number("b", "A1")
    True
    """
    digest = hashlib.sha256("\x1f".join((salt, *names)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _same(arms: pd.DataFrame, rule: Rule) -> Any:
    return ((arms["salt"] == rule.salt) & np.isclose(arms["share"].astype(float), rule.share)).to_numpy(dtype=bool)


def _standing(kept: pd.DataFrame | None, rule: Rule) -> pd.DataFrame:
    """The rows of before that stay: exposed ones, and those that were drawn by the same rule."""
    if kept is None or kept.empty:
        return _typed(pd.DataFrame(columns=list(ARMS)))
    rows = _typed(kept)
    standing: pd.DataFrame = rows[rows["exposed_at"].notna().to_numpy() | _same(rows, rule)]
    return standing


def _typed(rows: pd.DataFrame) -> pd.DataFrame:
    """ARMS with the dtypes that every row of it has."""
    typed: pd.DataFrame = rows[list(ARMS)].astype({"propensity": float, "share": float, "top": object, "salt": object})
    for name in ("drawn_at", "exposed_at"):
        typed[name] = pd.to_datetime(typed[name], utc=True).astype("datetime64[us, UTC]")
    return typed


def _floats(column: pd.Series) -> Floats:
    found: Floats = column.to_numpy(dtype=float)
    return found
