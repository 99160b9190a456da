"""One comparison of the treated with the control group: its estimates and their intervals, on plain arrays."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from churnkit.outreach.adjust import Codes, Difference, Marks, difference
from churnkit.outreach.rates import LEVEL, Floats, Limits, always_z, newcombe, z_of


class Data(NamedTuple):
    """The rows of one comparison: outcomes, who was treated, covariates, and which rows are one customer's.

    `clusters` is None where every row is a customer of its own.
    """

    y: Floats
    treated: Marks
    x: Floats
    clusters: Codes | None = None


class Comparison(NamedTuple):
    """The plain difference and the adjusted one, treated minus control, with intervals.

    `fixed` and `closer` are meant for one look at the planned sample; `always` holds at every look.
    """

    plain: Difference
    fixed: Limits
    adjusted: Difference
    closer: Limits
    always: Limits

    @property
    def gain(self) -> float:
        """The share of the variance that the adjustment saves."""
        return 1 - self.adjusted.variance / self.plain.variance if self.plain.variance > 0 else 0.0


def compare(data: Data, planned: float) -> Comparison:
    """Both differences with their intervals.

    Rates have Newcombe's limits, which are not symmetric; means have Student's. Where the variance of an estimate is
    not the plain one's, because of covariates or clusters, the limits are scaled by the ratio of the errors. The
    interval for every look is the same with more standard errors to either side.

    Args:
        data: The rows; two at least in each arm.
        planned: How many rows there were to be, as it was set before anybody looked.

    >>> y, treated = np.array([1.0, 0, 0, 1, 1, 0]), np.array([True, True, True, False, False, False])
    >>> found = compare(Data(y, treated, np.empty((6, 0))), planned=6)
    >>> round(found.adjusted.value, 3), found.always.low < found.fixed.low < found.fixed.high < found.always.high
    (-0.333, True)
    """
    plain = difference(data.y, data.treated, None, data.clusters)
    adjusted = difference(data.y, data.treated, data.x, data.clusters)
    shape = Shape(data, plain)
    return Comparison(plain, shape.limits(plain), adjusted, shape.limits(adjusted),
                      shape.limits(adjusted, always_z(len(data.y) / planned)))


class Shape:
    """The plain interval of a difference, from which others of it borrow their shape."""

    def __init__(self, data: Data, plain: Difference) -> None:
        self.data, self.plain = data, plain
        self.rate = bool(((data.y == 0) | (data.y == 1)).all())
        self.naive = plain.variance if data.clusters is None else difference(data.y, data.treated).variance

    def limits(self, found: Difference, z: float | None = None) -> Limits:
        """Limits around an estimate, `z` standard errors to either side; left out: those of the fixed interval."""
        z = z_of(LEVEL) if z is None else z
        if not self.rate:
            half = z * found.reach() / z_of(LEVEL) * found.error
            return Limits(found.value - half, found.value + half)
        (one, many), (other, few) = ((self.data.y[arm].sum(), int(arm.sum()))
                                     for arm in (self.data.treated, ~self.data.treated))
        raw = newcombe((one, many), (other, few), z)
        factor = np.sqrt(found.variance / self.naive) if self.naive > 0 and found.variance > 0 else 1.0
        around = raw.around(found.value, one / many - other / few, float(factor))
        return Limits(max(float(around.low), -1.0), min(float(around.high), 1.0))


def stratified(data: Data, stratum: Any) -> tuple[float, Limits]:
    """The strata's differences weighted by their size, with an interval; those with fewer than two in an arm are one.

    >>> y, treated = np.array([1.0, 0, 1, 0, 1, 0, 1, 1]), np.array([True, True, False, False] * 2)
    >>> round(stratified(Data(y, treated, np.empty((8, 0))), list("aaaabbbb"))[0], 3)
    -0.25
    """
    y, treated = data.y, data.treated
    names, codes = np.unique(np.asarray(stratum, dtype=str), return_inverse=True)
    rest = len(names)

    def summed(weight: Any) -> Floats:
        return np.stack([np.bincount(codes, arm * weight, rest + 1) for arm in (treated, ~treated)])

    codes = np.where((summed(1.0).min(axis=0) < 2)[codes], rest, codes)
    left = summed(1.0)[:, rest]
    if left.any() and left.min() < 2:  # too few for a stratum: they join the largest
        codes = np.where(codes == rest, int(np.argmax(summed(1.0)[:, :rest].sum(axis=0))), codes)
    there = summed(1.0).min(axis=0) >= 2
    sizes, sums, squares = (summed(weight)[:, there] for weight in (1.0, y, y * y))
    share, means = sizes.sum(axis=0) / len(y), sums / sizes
    spread = np.maximum(squares / sizes - means**2, 0.0) / (sizes - 1)
    found = Difference(float(share @ (means[0] - means[1])), float((share**2 * spread.sum(axis=0)).sum()),
                       float(sizes[1].sum() - there.sum()))
    return found.value, Shape(data._replace(clusters=None), difference(y, treated)).limits(found)
