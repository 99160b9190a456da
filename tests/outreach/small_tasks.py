"""Tasks for this room's tests: churnkit.testing's own, by a shorter name."""

from churnkit.testing.samples import AT
from churnkit.testing.samples import sample as task

__all__ = ["AT", "task"]
