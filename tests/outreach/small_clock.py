"""A clock that tests turn; it imports nothing, so that a test's own processes start quickly."""

import datetime as dt

from small_tasks import AT


class Clock:
    """Both clocks of a machine; sleeping turns them on, and `time` may be set to any moment."""

    def __init__(self, time=AT):
        self.time, self.ran, self.slept = time, 0.0, []

    def now(self):
        """The wall clock."""
        return self.time

    def monotonic(self):
        """Seconds that only go on."""
        return self.ran

    def sleep(self, seconds):
        """Turns both on."""
        self.slept.append(seconds)
        self.ran += seconds
        self.time += dt.timedelta(seconds=seconds)
