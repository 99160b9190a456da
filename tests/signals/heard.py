"""The labelled sentences, and how well the lists and the polarity hear them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from churnkit.settings import Settings
from churnkit.signals.cues import CUES, count_cues
from churnkit.signals.sentiment import polarity

FOLDER = Path(__file__).parent / "sentences"
SETTINGS = Settings(text={"competitors": ["Zendora", "Brightdesk", "Nimbus CRM"]})
SETS = {"tuned": "the thousand: tuned half", "other half": "the thousand: other half", "second": "186 later, tuned on",
        "unseen": "170 unseen"}
"""The sets by name, as the docs call them."""
NEUTRAL = 0.05
"""VADER's own bound between neutral and a mood."""


def sentences(which: str = "") -> pd.DataFrame:
    """One set, or all: language, kind, cues, polarity (-1, 0, 1), text."""
    frames = [pd.read_csv(file, dtype=str, keep_default_na=False).assign(
        which=file.stem if file.stem in SETS else None) for file in sorted(FOLDER.glob("*.csv"))]
    every = pd.concat(frames, ignore_index=True)
    halves = [("tuned", "other half")[int(hashlib.sha256(text.encode()).hexdigest(), 16) % 2] for text in every["text"]]
    every["which"] = every["which"].fillna(pd.Series(halves))
    every["polarity"] = every["polarity"].astype(int)
    return every[every["which"] == which].reset_index(drop=True) if which else every


def by_cue(which: str) -> pd.DataFrame:
    """Precision and recall of each cue over one set."""
    data = sentences(which)
    found = count_cues(data["text"], SETTINGS) > 0
    rows = {}
    for cue in CUES:
        meant = data["cues"].str.split().map(lambda said, cue=cue: cue in said)
        right = int((meant & found[cue]).sum())
        rows[cue] = {"sentences": int(meant.sum()), "precision": right / max(1, int(found[cue].sum())),
                     "recall": right / max(1, int(meant.sum()))}
    return pd.DataFrame(rows).T


def by_language(which: str) -> pd.DataFrame:
    """How often the sign is right, and how often it is the contrary's, by language."""
    data = sentences(which)
    score = polarity(data["text"], SETTINGS)
    sign = np.sign(score.where(score.abs() >= NEUTRAL, 0.0))
    frame = pd.DataFrame({"language": data["language"], "right": sign == data["polarity"],
                          "contrary": (sign == -data["polarity"]) & (sign != 0)})
    return frame.groupby("language").agg(sentences=("right", "size"), right=("right", "mean"),
                                         contrary=("contrary", "mean"))


def markdown() -> str:
    """The tables of docs/text.md."""
    parts = ["| cue |" + "".join(f" {said} |" for said in SETS.values()), "|---|" + "---|" * len(SETS)]
    shown = {which: by_cue(which) for which in SETS}
    for cue in CUES:
        cells = [f" {row['precision']:.2f}, {row['recall']:.2f} ({row['sentences']:.0f}) |"
                 for row in (shown[which].loc[cue] for which in SETS)]
        parts.append(f"| {cue} |" + "".join(cells))
    parts += ["", "| language |" + "".join(f" {said} |" for said in SETS.values()), "|---|" + "---|" * len(SETS)]
    moods = {which: by_language(which) for which in SETS}
    for language in moods["tuned"].index:
        cells = [f" {row['right']:.2f}, {row['contrary']:.2f} ({row['sentences']:.0f}) |" if row is not None else " |"
                 for row in (_row(moods[which], language) for which in SETS)]
        parts.append(f"| {language} |" + "".join(cells))
    return "\n".join(parts)


def _row(frame: pd.DataFrame, label: str) -> pd.Series | None:
    return frame.loc[label] if label in frame.index else None
