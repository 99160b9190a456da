"""The plot beside a hold: each series with its odd last days and the band that was explained, as one SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from churnkit.watch.evidence import Evidence

MOST = 6


def draw(evidence: Sequence[Evidence], file: Path) -> bool:
    """Writes the series of some evidence, one below the other; False where none has a series."""
    shown = [one for one in evidence if one.figure is not None][:MOST]
    if not shown:
        return False
    page = Figure(figsize=(9, 2.4 * len(shown)), layout="constrained")
    for place, one in enumerate(shown, start=1):
        assert one.figure is not None  # noqa: S101 - chosen so above
        axes = page.add_subplot(len(shown), 1, place)
        axes.plot(one.figure.days, one.figure.values, marker=".", linewidth=1, color="tab:blue")  # type: ignore[arg-type]
        axes.axhspan(one.figure.low, one.figure.high, color="tab:green", alpha=0.2)
        axes.axhline(one.figure.high, color="tab:green", linewidth=0.8, label="explained by the past")
        axes.axvline(one.day, color="tab:red", linewidth=0.8, linestyle="--", label=f"held for {one.day}")  # type: ignore[arg-type]
        axes.set_title(one.figure.title, loc="left", fontsize=10)
        axes.set_ylim(bottom=min(0.0, *one.figure.values, one.figure.low))
        axes.legend(fontsize=8, loc="lower left", frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_suffix(".part")
    with rc_context({"svg.hashsalt": "churnkit"}):  # the same evidence gives the same file
        page.savefig(half, format="svg", metadata={"Date": None})
    half.replace(file)
    return True
