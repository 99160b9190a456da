"""Cox's proportional hazards (lifelines) on a frame of numbers and words; runs without churnkit.

    python cox.py FOLDER

FOLDER holds fit.parquet (with `days_` and `event_`), test.parquet and at.npy, the days asked about; the probabilities
of the event by each go to p.npy. Of four penalties the one is taken that gives the latest fifth of the rows, which
stand in order of time, the highest partial likelihood.
"""

from __future__ import annotations

import sys
from pathlib import Path

import lifelines
import numpy as np
import pandas as pd

PENALTIES = (0.1, 0.03, 0.01, 0.003)


def prepared(fit: pd.DataFrame, test: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both frames with medians and a mark for blanks, numbers standardised and clipped at five deviations, words
    one-hot; without columns that say nothing or the same as another, on which Cox's fit would break.
    """
    numbers = [name for name in fit if fit[name].dtype != object]
    words = [name for name in fit if name not in numbers]
    median, both = fit[numbers].median(), []
    filled = fit[numbers].fillna(median)
    mean, deviation = filled.mean(), filled.std().replace(0, 1)
    dummies = pd.get_dummies(fit[words].astype(object), dtype=float) if words else pd.DataFrame(index=fit.index)
    for one in (fit, test):
        standard = ((one[numbers].fillna(median) - mean) / deviation).clip(-5, 5).fillna(0.0)
        blank = one[numbers].isna().astype(float).add_suffix(" is blank")
        mine = pd.get_dummies(one[words].astype(object), dtype=float) if words else pd.DataFrame(index=one.index)
        both.append(pd.concat([standard, blank, mine.reindex(columns=dummies.columns, fill_value=0.0)], axis=1))
    share = both[0].std()
    both = [one.loc[:, share > 0.02] for one in both]
    alike = both[0].round(6).T.duplicated().to_numpy()
    return both[0].loc[:, ~alike], both[1].loc[:, ~alike]


def fitted(x: pd.DataFrame, days: pd.Series, event: pd.Series, penalty: float) -> lifelines.CoxPHFitter:
    """Cox's model with that ridge penalty."""
    return lifelines.CoxPHFitter(penalizer=penalty).fit(x.assign(days_=days, event_=event), "days_", "event_")


def main() -> None:
    """Fits and predicts."""
    folder = Path(sys.argv[1])
    fit, test = (pd.read_parquet(folder / f"{part}.parquet") for part in ("fit", "test"))
    days, event = fit.pop("days_"), fit.pop("event_")
    x, later = prepared(fit, test)
    cut = int(len(x) * 0.8)
    scores = {}
    for penalty in PENALTIES:
        early = fitted(x[:cut], days[:cut], event[:cut], penalty)
        held = x[cut:].assign(days_=days[cut:], event_=event[cut:])
        scores[penalty] = early.score(held, scoring_method="log_likelihood")
    best = fitted(x, days, event, max(scores, key=lambda penalty: scores[penalty]))
    left = best.predict_survival_function(later, times=np.load(folder / "at.npy")).to_numpy().T
    np.save(folder / "p.npy", 1 - left)


if __name__ == "__main__":
    main()
