"""How a model would have done through history: rolling origins, purged, each figure with interval and difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from churnkit.errors import ModelError
from churnkit.learning.calibrate import EDGE, Floats
from churnkit.learning.model import Model
from churnkit.learning.profit import ALARMS, PROFITS, Terms, alarms, profits
from churnkit.learning.resample import METRICS, draws, quantiles, resampled
from churnkit.learning.splits import LATER, Mask, TrainingSet, rolling
from churnkit.learning.targets import Target

__all__ = ["Backtest", "Fold", "backtest", "folds_of"]

FIGURES = (*METRICS, *PROFITS, *ALARMS)
SEGMENT = "segment"
"""The feature whose words part the rows, where there is one."""
Recipe = Callable[[TrainingSet], Model]


@dataclass(frozen=True, eq=False)
class Fold:
    """What is learnt from and what is tested: rows whose label had closed by `start`, and cutoffs from it on."""

    start: pd.Timestamp
    train: Mask
    test: Mask


@dataclass(frozen=True, eq=False)
class Backtest:
    """A recipe on rolling origins.

    `table` has one row per part (pooled, each fold by its start, each segment) and metric, with rows, positives and
    entities of the part; each of the predictions model, baseline and champion has its figure and a `_low` and `_high`,
    and so has `minus_baseline` and `minus_champion`, the model's figure less theirs on the same resamples. Bounds hold
    95% of the resamples of entities. A loss or error is better when lower, all else when higher. `folds` says what each
    fold learnt from, `scored` holds every tested row: keys, fold, segment, y, weight and
    the predictions.
    """

    target: Target
    table: pd.DataFrame
    folds: pd.DataFrame
    scored: pd.DataFrame
    terms: Terms | None
    notes: tuple[str, ...] = ()

    def figure(self, metric: str, column: str = "model", part: str = "pooled") -> float:
        """One cell of the table.

        Raises:
            ModelError: If there is no such part, metric or column.
        """
        at = (self.table["part"] == part) & (self.table["metric"] == metric)
        if not at.any() or column not in self.table:
            raise ModelError(f"The backtest has no {column} of '{metric}' for '{part}'. Its parts are "
                             f"{', '.join(self.table['part'].unique())}; its metrics {', '.join(FIGURES)}.")
        return float(self.table.loc[at, column].iloc[0])

    def says(self) -> str:
        """The difference from the baseline in one sentence."""
        low, high = (self.figure("log_loss", f"minus_baseline_{end}") for end in ("low", "high"))
        told = ("better than" if high < 0 else "worse than" if low > 0 else "not told apart from")
        return (f"{self.target.name}: over {len(self.folds)} folds from {self.folds['start'].iloc[0]:%Y-%m-%d} on, "
                f"{len(self.scored)} rows with {int(self.scored['y'].sum())} positives, the model is {told} the "
                f"logistic baseline: log loss {self.figure('log_loss', 'minus_baseline'):+.4f} ({low:+.4f} to "
                f"{high:+.4f}), AUC {self.figure('auc'):.3f} against {self.figure('auc', 'baseline'):.3f}.")

    def _repr_html_(self) -> str:
        """Table and sentence, as a notebook shows them."""
        return f"<p>{self.says()}</p>{self.table.round(4).to_html(index=False)}"


def folds_of(rows: TrainingSet, folds: int = 5, *, by_entity: bool = False, seed: int = 7) -> list[Fold]:
    """Rolling origins over the later half of the time that the purge leaves, earliest first.

    With `by_entity` the entities are dealt into as many groups as there are folds (two at least), and a fold tests one
    of them and learns from the others, so that no entity stands on both sides.

    Raises:
        ModelError: If the history is too short for one fold.
    """
    if folds < 1:
        raise ModelError(f"A backtest needs at least one fold, not {folds}.")
    spans = rolling(rows, folds, LATER)
    if not spans:
        raise ModelError(
            f"{rows.target.name}: the labelled cutoffs span less than the {rows.target.window.days} days that must lie "
            f"between what is learnt and what is tested. Give a longer history, or set a shorter horizon, lead or "
            f"grace in [targets.{rows.target.name}]."
        )
    if not by_entity:
        return [Fold(one.start, one.closed, one.held) for one in spans]
    codes, names = pd.factorize(rows.keys["entity_id"], sort=True)
    group = (np.random.default_rng(seed).permutation(len(names)) % max(len(spans), 2))[codes]
    return [Fold(one.start, one.closed & (group != number), one.held & (group == number))
            for number, one in enumerate(spans)]


def backtest(rows: TrainingSet, *, folds: int = 5, by_entity: bool = False, terms: Terms | None = None,  # noqa: PLR0913
             champion: Recipe | None = None, recipe: Recipe | None = None, resamples: int = 200,
             seed: int = 7) -> Backtest:
    """Fits on what had closed before each origin, tests on what came next, and measures it.

    Args:
        rows: All labelled rows.
        folds: How many origins; fewer where there are fewer cutoffs.
        by_entity: Whether a fold's tested entities are unknown to it.
        terms: What a contact costs and brings; without them there are no figures of profit.
        champion: How the champion was made, as a function from training rows to a fitted model: it is made anew for
            each fold, because the champion itself has seen the outcomes.
        recipe: The same for the model; left out, `Model(target).fit`.
        resamples: How many resamples of entities the bounds come from.
        seed: Of the resamples and of the groups of entities.

    Raises:
        ModelError: If the history is too short, or no fold has both outcomes to learn from.
    """
    recipe = recipe or (lambda train: Model(rows.target, seed=seed).fit(train))
    y = rows.y.to_numpy(dtype=float)
    scored, told, notes = [], [], []
    for fold in folds_of(rows, folds, by_entity=by_entity, seed=seed):
        train, test = rows.take(fold.train), rows.take(fold.test)
        if not 0 < train.positives < len(train) or not len(test):
            notes.append(f"{rows.target.name}: the fold from {fold.start:%Y-%m-%d} is left out: {train.positives} of "
                         f"its {len(train)} training rows are positive, and {len(test)} rows are tested.")
            continue
        model = recipe(train)
        predictions = {"model": model.probability(test.X), "baseline": model.baseline.predict(test.X)}
        if champion is not None:
            predictions["champion"] = champion(train).probability(test.X)
        segment = test.X[SEGMENT].astype(object) if SEGMENT in test.X else None
        scored.append(test.keys[["row_id", "entity_id", "cutoff", "after_days"]].assign(
            fold=f"{fold.start:%Y-%m-%d}", segment=segment, y=y[fold.test], weight=test.weights,
            **{name: np.clip(p, EDGE, 1 - EDGE) for name, p in predictions.items()}))
        told.append({"start": fold.start, "last_closed": (train.keys["cutoff"] + rows.target.window).max(),
                     "train_rows": len(train), "train_positives": train.positives, "test_rows": len(test),
                     "test_positives": test.positives, "rounds": model.rounds})
    if not scored:
        raise ModelError(f"{rows.target.name}: no fold can be tested. {' '.join(notes)} Give a longer history, or ask "
                         f"for fewer folds.")
    frame = pd.concat(scored, ignore_index=True)
    table = pd.concat([_part(name, part, terms, rows.target, resamples, seed) for name, part in _parts(frame)],
                      ignore_index=True)
    return Backtest(rows.target, table, pd.DataFrame(told), frame, terms, tuple(notes))


def figures(keys: pd.DataFrame, y: Floats, p: Floats, weights: Floats, terms: Terms | None,
            target: Target) -> tuple[Floats, Floats]:
    """`FIGURES` on the rows themselves, shape (m,), and on each resample, (resamples, m); undefined is NaN.

    `weights` draws the entities of `keys` in order of appearance. Where `keys` say by `weight` how much each row
    counts, the metrics heed it; profit and alarms are those of the rows.
    """
    codes = pd.factorize(keys["entity_id"])[0]
    counts = keys["weight"].to_numpy(dtype=float) if "weight" in keys else None
    plain = resampled(y, p, codes, weights, counts)
    paid = profits(y, p, codes, weights, terms) if terms is not None else (
        np.full(len(PROFITS), np.nan), np.full((len(weights), len(PROFITS)), np.nan))
    early = alarms(keys, y, p, weights, terms.capacity if terms is not None else None, target)
    return np.concatenate([plain[0], paid[0], early[0]]), np.hstack([plain[1], paid[1], early[1]])


def _parts(scored: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """All rows, those of each fold, and those of each segment where there are segments."""
    parts = [("pooled", scored), *((f"fold {name}", part) for name, part in scored.groupby("fold", sort=True))]
    if scored["segment"].notna().any():
        parts += [(f"segment {name}", part)
                  for name, part in scored.assign(segment=scored["segment"].fillna("not known")).groupby("segment")]
    return parts


def _part(name: str, scored: pd.DataFrame, terms: Terms | None, target: Target, resamples: int,
          seed: int) -> pd.DataFrame:
    """The table's rows of one part: one per metric."""
    y = scored["y"].to_numpy(dtype=float)
    entities = scored["entity_id"].nunique()
    weights = draws(entities, resamples, seed)
    found: dict[str, tuple[Floats, Floats]] = {
        one: figures(scored, y, scored[one].to_numpy(dtype=float), weights, terms, target)
        for one in ("model", "baseline", "champion") if one in scored}
    for other in [one for one in found if one != "model"]:
        found[f"minus_{other}"] = (found["model"][0] - found[other][0], found["model"][1] - found[other][1])
    columns: dict[str, Any] = {"part": name, "metric": FIGURES, "rows": len(y), "positives": int(y.sum()),
                               "entities": entities}
    return pd.DataFrame({**columns, **_bounded(found)})


def _bounded(found: Mapping[str, tuple[Floats, Floats]]) -> dict[str, Floats]:
    """Each figure with the bounds that hold 95% of its resamples."""
    return {f"{name}{end}": values for name, (point, spread) in found.items() for end, values in (
        ("", point), ("_low", quantiles(spread, 0.025)), ("_high", quantiles(spread, 0.975)))}
