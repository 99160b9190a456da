"""For those who write a connector: the suite that it must pass, and a server for fakes with faults on demand."""

import sys

if "pytest" in sys.modules:  # so that the suite's failures show what was compared
    sys.modules["pytest"].register_assert_rewrite("churnkit.testing.conformance", "churnkit.testing.stage")
