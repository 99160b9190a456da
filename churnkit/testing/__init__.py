"""For those who write a connector: the suite that it must pass, and a server for fakes with faults on demand."""

import sys

if "pytest" in sys.modules:  # so that the suite's failures show what was compared
    parts = ("conformance", "faults", "kills", "stage")
    sys.modules["pytest"].register_assert_rewrite(*(f"churnkit.testing.{name}" for name in parts))
