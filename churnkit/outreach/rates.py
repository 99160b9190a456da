"""Intervals for a rate and for the difference of two, which hold where events are few, and how they are widened."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]
LEVEL = 0.95
POWER = 0.80


class Limits(NamedTuple):
    """The two ends of an interval; numbers, or arrays of one shape."""

    low: Any
    high: Any

    def around(self, centre: float, given: float, factor: float) -> Limits:
        """The same limits about another centre, each as far from it as it was from `given`, times `factor`.

        >>> Limits(-0.1, 0.3).around(0.1, 0.0, 0.5)
        Limits(low=0.05, high=0.25)
        """
        return Limits(centre - (given - self.low) * factor, centre + (self.high - given) * factor)


def z_of(level: float = LEVEL) -> float:
    """How many standard errors an interval of this level reaches to either side, by the normal distribution.

    >>> round(z_of(0.95), 3)
    1.96
    """
    return float(special.ndtri(0.5 + level / 2))


def wilson(events: Any, of: Any, z: float) -> Limits:
    """A rate's score interval (Wilson, Journal of the American Statistical Association 1927); never outside [0, 1].

    Args:
        events: How many had the event.
        of: Out of how many; not zero.
        z: Standard errors to either side.

    >>> [round(float(end), 4) for end in wilson(0, 24, 1.96)]
    [0.0, 0.138]
    """
    rate = np.asarray(events, dtype=float) / of
    middle = (rate + z * z / (2 * of)) / (1 + z * z / of)
    half = z * np.sqrt(rate * (1 - rate) / of + (z / (2 * of)) ** 2) / (1 + z * z / of)
    return Limits(np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0))


def newcombe(treated: tuple[Any, Any], control: tuple[Any, Any], z: float) -> Limits:
    """The difference of two rates, treated minus control, by the square-and-add method on Wilson's limits.

    Method 10 of Newcombe, "Interval estimation for the difference between independent proportions", Statistics in
    Medicine 1998. It holds with few events, or none, where the usual interval is far too short.

    Args:
        treated: Events, and out of how many.
        control: The same of the control group.
        z: Standard errors to either side.

    >>> [round(float(end), 4) for end in newcombe((56, 70), (48, 80), 1.96)]
    [0.0524, 0.3339]
    """
    one, other = (np.asarray(events, dtype=float) / of for events, of in (treated, control))
    high_one, high_other = wilson(*treated, z), wilson(*control, z)
    below = np.hypot(one - high_one.low, high_other.high - other)
    above = np.hypot(high_one.high - one, other - high_other.low)
    return Limits(one - other - below, one - other + above)


def always_z(share: float, level: float = LEVEL) -> float:
    """How many standard errors an interval must reach to hold at every look, however often one looks.

    The asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit
    theory and asymptotic confidence sequences", Annals of Statistics 2024, tuned so that it is tightest at the sample
    that was planned.

    Args:
        share: The sample so far over the sample that was planned, which must not be chosen by what was seen.
        level: The chance that it holds at all looks together.

    >>> round(always_z(1.0), 2), round(always_z(0.1), 2), round(always_z(4.0), 2)
    (3.04, 3.86, 3.13)
    """
    alpha = 1 - level
    tuned = -2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))
    spent = tuned * share
    return math.sqrt(2 * (spent + 1) / spent * math.log(math.sqrt(spent + 1) / alpha))


def detectable(error: float, level: float = LEVEL, power: float = POWER) -> float:
    """The smallest effect that would be seen with this power, two-sided, given the standard error of its estimate.

    >>> round(detectable(0.01), 4)
    0.028
    """
    return float((z_of(level) + special.ndtri(power)) * error)


def needed(effect: float, variances: tuple[float, float], control: float, level: float = LEVEL,
           power: float = POWER) -> float:
    """How many units, both arms together, it takes to see an effect with this power, two-sided.

    Args:
        effect: The difference to be seen, treated minus control.
        variances: A unit's variance in the treated arm and in the control arm.
        control: The share of units in the control arm, between 0 and 1.
        level: Of the interval.
        power: The chance to see it.

    >>> round(needed(0.05, (0.16, 0.16), 0.5))
    2009
    """
    if not effect or not 0 < control < 1:
        return math.inf
    spread = variances[0] / (1 - control) + variances[1] / control
    return float((z_of(level) + special.ndtri(power)) ** 2 * spread / effect**2)
