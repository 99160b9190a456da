"""The difference between the arms at equal scores: a regression per arm, with errors that hold for any spread."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from churnkit.outreach.rates import LEVEL, Floats

Marks = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int64]


class Difference(NamedTuple):
    """A difference of means, treated minus control, with the variance of its estimate and the degrees of freedom."""

    value: float
    variance: float
    freedom: float

    @property
    def error(self) -> float:
        """The standard error."""
        return float(np.sqrt(self.variance))

    def reach(self, level: float = LEVEL) -> float:
        """How many standard errors the interval of this level reaches to either side, by Student's t."""
        return float(special.stdtrit(max(self.freedom, 1.0), 0.5 + level / 2))


def difference(y: Floats, treated: Marks, x: Floats | None = None, clusters: Codes | None = None, *,
               power: float = 1.0) -> Difference:
    """The treated's mean minus the control's, at equal covariates.

    A regression with the treatment, the centred covariates and their products (Lin, "Agnostic notes on regression
    adjustments to experimental data", Annals of Applied Statistics 2013); it is never less precise than the plain
    difference in a large sample, however wrong the line. Errors are HC3 (MacKinnon and White 1985), or with clusters
    CR3 (Bell and McCaffrey 2002), which is the jackknife that leaves a cluster out; with `power` 0.5 HC2 and CR2.
    Degrees of freedom are Welch's over the arms.

    Args:
        y: Outcomes, shape (n,).
        treated: Who was treated, shape (n,).
        x: Covariates known before the treatment, shape (n, k); none for the plain difference.
        clusters: Each row's cluster, of which no two arms share one, shape (n,); left out: each row its own.
        power: How strongly residuals are raised for their leverage: 1 or 0.5.

    >>> y, treated = np.array([1.0, 0, 1, 1, 0, 0]), np.array([True, True, True, False, False, False])
    >>> round(difference(y, treated).value, 3)
    0.333
    """
    x = usable(x, treated) if x is not None else np.empty((len(y), 0))
    x = x - x.mean(axis=0)
    parts = [_arm(y[arm], x[arm], None if clusters is None else clusters[arm], power) for arm in (treated, ~treated)]
    (one, spread, free), (other, spread_other, free_other) = parts
    variance = spread + spread_other
    weights = spread**2 / max(free, 1) + spread_other**2 / max(free_other, 1)
    return Difference(one - other, variance, variance**2 / weights if weights > 0 else float(free + free_other))


def usable(x: Floats, treated: Marks) -> Floats:
    """The covariates that vary within both arms and do not follow from those before them; blanks become the mean.

    A covariate costs each arm a degree of freedom: where an arm has fewer than 10 rows for each, the last are left out.
    """
    x = np.asarray(x, dtype=float).reshape(len(treated), -1)
    known = np.isfinite(x)
    counts = known.sum(axis=0)
    means = np.where(known, x, 0.0).sum(axis=0) / np.maximum(counts, 1)
    filled = np.where(known, x, means)
    kept: list[int] = []
    room = min(int(treated.sum()), int((~treated).sum())) // 10
    for column in range(filled.shape[1]):
        trial = filled[:, [*kept, column]]
        if len(kept) < room and all(_independent(trial[arm]) for arm in (treated, ~treated)):
            kept.append(column)
    found: Floats = filled[:, kept]
    return found


def _independent(x: Floats) -> bool:
    """Whether no column is constant or follows from the others."""
    around = x - x.mean(axis=0)
    spread = np.sqrt((around**2).mean(axis=0))
    if not len(x) or (spread <= 1e-12 * np.maximum(1.0, np.abs(x).max(axis=0))).any():
        return False
    scaled = around / spread
    return bool(np.linalg.eigvalsh(scaled.T @ scaled / len(x))[0] > 1e-10)


def _arm(y: Floats, x: Floats, clusters: Codes | None, power: float) -> tuple[float, float, float]:
    """One arm's mean at the covariates' overall mean, its variance, and its degrees of freedom."""
    design = np.column_stack([np.ones(len(y)), x])
    inverse = np.linalg.inv(design.T @ design)
    line = inverse @ (design.T @ y)
    left = y - design @ line
    pull = design @ inverse[0]  # how far each residual moves the intercept
    if clusters is None or len(np.unique(clusters)) == len(y):
        leverage = ((design @ inverse) * design).sum(axis=1)
        raised = left / np.maximum(1 - leverage, 1e-10) ** power
        return float(line[0]), float(((pull * raised) ** 2).sum()), float(len(y) - design.shape[1])
    codes, sizes = np.unique(clusters, return_inverse=True, return_counts=True)[1:]
    order, starts = np.argsort(codes, kind="stable"), np.cumsum(sizes) - sizes
    total = 0.0
    for size in np.unique(sizes):  # clusters of one size together
        rows = order[starts[sizes == size][:, None] + np.arange(size)]
        block = design[rows]
        roots, turns = np.linalg.eigh(np.eye(size) - block @ inverse @ block.transpose(0, 2, 1))
        raised = np.einsum("gij,gj->gi", turns, np.einsum("gji,gj->gi", turns, left[rows])
                           / np.maximum(roots, 1e-10) ** power)
        total += float((np.einsum("gi,gi->g", pull[rows], raised) ** 2).sum())
    return float(line[0]), total, float(len(sizes) - design.shape[1])
