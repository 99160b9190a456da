"""What outreach came to, in sentences that anybody can read, and as a plot of all plays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from churnkit.outreach.impact import HARMS, HELPS, NOTHING, OPEN, OUTCOMES, OWN, TOO_FEW
from churnkit.outreach.words import day, money, plural

_VERDICTS: Mapping[str, str] = MappingProxyType({
    HELPS: "It helps.", HARMS: "It harms: switch it off, or find out why.",
    NOTHING: "It makes no difference of the size that was promised.", OPEN: "Nothing is decided yet.",
    TOO_FEW: "Too few accounts yet to say anything."})
_COLOURS: Mapping[str, str] = MappingProxyType({HELPS: "#1b7f4d", HARMS: "#b3261e"})


def sentences(found: pd.DataFrame, currency: str) -> list[str]:
    """A paragraph for each play's own outcome, for all plays together and for everybody that was drawn.

    Args:
        found: impact.IMPACT.
        currency: Of the money.
    """
    own = found[found["outcome"] == found["target"].map(OWN).fillna("churned")]
    rows = own[(own["play"] != "") | (own["target"] == "")]
    return [_paragraph(row, currency) for row in _records(rows)]


def table(found: pd.DataFrame) -> list[dict[str, str]]:
    """Short rows for a terminal, one per comparison."""
    return [{"of": _of(row), "outcome": row["outcome"], "approached": f"{row['n_treated']:,}",
             "apart": f"{row['n_control']:,}", "difference": _points(row, row["adjusted"], sign=True),
             "at any look": _range(row, row["always_low"], row["always_high"]),
             "for one look": _range(row, row["adjusted_low"], row["adjusted_high"]), "says": row["verdict"]}
            for row in _records(found)]


def forest(found: pd.DataFrame, file: Path) -> Path:
    """Draws each play's own outcome with both intervals, the better side to the right; SVG or PNG, by the file's name.

    The thick line is meant for one look, the thin one holds at every look.
    """
    from matplotlib.figure import Figure

    own = found[(found["outcome"] == found["target"].map(OWN).fillna("churned")) & found["adjusted_low"].notna()]
    rows = own[(own["play"] != "") | (own["target"] == "")].iloc[::-1].reset_index(drop=True)
    figure = Figure(figsize=(7.5, 1.4 + 0.5 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(_records(rows)):
        good, colour = OUTCOMES[row["outcome"]].good, _COLOURS.get(row["verdict"], "#5f6b7a")
        for low, high, width in (("always_low", "always_high", 1.2), ("adjusted_low", "adjusted_high", 4.0)):
            axes.plot([100 * good * row[low], 100 * good * row[high]], [place, place], color=colour, linewidth=width,
                      solid_capstyle="butt")
        axes.plot(100 * good * row["adjusted"], place, "o", color=colour, markersize=7)
    axes.axvline(0, color="#222222", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [f"{_of(row)} ({row['n_treated']:,} and {row['n_control']:,})"
                                       for row in _records(rows)])
    axes.set_ylim(-0.7, max(len(rows), 1) - 0.3)
    axes.set_xlabel("gained per 100 customers; thick: for one look, thin: at every look")
    axes.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(f"half-{file.name}")
    figure.savefig(half)
    half.replace(file)
    return file


def _paragraph(row: Mapping[str, Any], currency: str) -> str:
    outcome = OUTCOMES[row["outcome"]]
    whom = "that were drawn" if row["level"] == "enrolled" else "for whom it opened" if row["play"] else \
        "for whom anything opened"
    both = plural(row["n_treated"] + row["n_control"], "customer")
    said = [(f"{_of(row)}: of {both} {whom} and whose outcome is known, {_level(row, row['treated'])} {outcome.says} "
             f"among the {row['n_treated']:,} that outreach was for, and {_level(row, row['control'])} among the "
             f"{row['n_control']:,} kept apart.")]
    if math.isnan(row["adjusted"]):
        return f"{said[0]} {_VERDICTS[row['verdict']]}"
    said.append(f"At equal scores that is {_points(row, row['adjusted'], sign=True)}: "
                f"{_range(row, row['always_low'], row['always_high'])} whenever one looks, "
                f"{_range(row, row['adjusted_low'], row['adjusted_high'])} for one look{_when(row)}.")
    said.append(_VERDICTS[row["verdict"]])
    if row["gain"] >= 0.005:
        said.append(f"The scores saved {row['gain']:.0%} of the variance.")
    if row["verdict"] in {TOO_FEW, OPEN}:
        said.append(f"The smallest difference that would be seen now is {_points(row, row['detectable'])}"
                    + (f"; it takes {plural(int(row['needed']), 'customer')} to see the {_points(row, row['stated'])} "
                       "that are promised." if not math.isnan(row["needed"]) else "."))
    if not math.isnan(row["money"]):
        said.append(f"In money: {money(row['money'], currency)} so far ({money(row['money_low'], currency)} to "
                    f"{money(row['money_high'], currency)}).")
    if row["touched"]:
        said.append(f"{plural(row['touched'], 'customer')} kept apart {'was' if row['touched'] == 1 else 'were'} "
                    "approached by hand; whatever that did, the difference lies between "
                    f"{_range(row, row['bound_low'], row['bound_high'], 'and')}.")
    return " ".join(said)


def _records(found: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in found.to_dict("records")]


def _of(row: Mapping[str, Any]) -> str:
    if row["level"] == "enrolled":
        return "everybody"
    return str(row["play"] or (f"all for {row['target']}" if row["target"] else "all plays"))


def _when(row: Mapping[str, Any]) -> str:
    return "" if pd.isna(row["enough_at"]) else f" on {day(row['enough_at'])}"


def _rate(row: Mapping[str, Any]) -> bool:
    return row["outcome"] in {"churned", "expanded", "mrr_kept"}


def _level(row: Mapping[str, Any], value: float) -> str:
    return f"{value:.1%}" if _rate(row) else f"{value:,.2f}"


def _points(row: Mapping[str, Any], value: float, *, sign: bool = False) -> str:
    """A difference: in percentage points where it is one of shares."""
    if not math.isfinite(value):
        return "not known"
    number = f"{100 * value if _rate(row) else value:{'+' if sign else ''},.{1 if _rate(row) else 2}f}"
    return f"{number if sign else number.lstrip('-')} points" if _rate(row) else number


def _range(row: Mapping[str, Any], low: float, high: float, word: str = "to") -> str:
    if not (math.isfinite(low) and math.isfinite(high)):
        return "not known"
    scale, digits = (100, 1) if _rate(row) else (1, 2)
    return f"{low * scale:+,.{digits}f} {word} {high * scale:+,.{digits}f}"
