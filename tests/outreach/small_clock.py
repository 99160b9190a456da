"""A clock that tests turn: churnkit.testing's own, by a shorter name."""

from churnkit.testing.samples import TurnedClock as Clock

__all__ = ["Clock"]
