"""The memory connector's world: its faults by the names of a line's, with capabilities as weak as a test wants."""

import contextlib
import copy

from churnkit.outreach.crm.base import Capabilities
from churnkit.outreach.crm.memory import MemoryCrm
from churnkit.testing.samples import sample

MEANS = {
    "refused": "down", "503": "down", "429": "down", "429_bare": "down", "quota": "quota", "dropped_before": "dropped",
    "dropped_after": "lost", "lost": "lost", "502": "lost", "504": "lost", "slow": "lost", "malformed": "lost",
    "half": "half"}
"""A world's fault = what it is to a CRM that has no line."""
WEAKEST = Capabilities(unique_keys=False, returns_ids=False, page=10, batch=10)
POISON = sample(3).key


class MemoryWorld:
    """One CRM for the whole test: a process that forgets takes the CRM with it."""

    name = "memory"
    faults = (*MEANS, "rows", "poison")
    maps = False

    def __init__(self, capabilities=WEAKEST):
        self.options, self.env = {}, {}
        self.crm, self._capabilities = MemoryCrm(capabilities), capabilities

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.heal()

    def connect(self, clock=None):  # noqa: ARG002 - it needs none
        """The CRM, without what an earlier run has hung on it."""
        for name in ("write", "check"):
            vars(self.crm).pop(name, None)
        self.crm.capabilities, self.crm.spend = self._capabilities, lambda: None
        return self.crm

    def tasks(self):
        """Every task, duplicates too."""
        return self.crm.tasks

    def texts(self, key):
        """Title and body."""
        return self.crm.contents[key]["title"], self.crm.bodies[key]

    def person(self, key, at, **changes):
        """A person changes a task."""
        self.crm.person(key, at, **changes)

    def delete(self, key):
        """A person deletes a task."""
        self.crm.remove(list(self.crm.ids[key]))

    def fail(self, fault, times=1):
        """The next calls that write suffer from this."""
        if fault in {"rows", "poison"}:
            self.crm.poison, self.crm.poison_fails_batch = {POISON}, fault == "poison"
        else:
            self.crm.faults += [MEANS[fault]] * (4 * times if fault == "refused" else times)

    def heal(self):
        """No fault any more."""
        self.crm.faults.clear()
        self.crm.poison, self.crm.poison_fails_batch = set(), False

    @contextlib.contextmanager
    def back_up(self):
        """Keeps a copy of all that is there, and puts it back at the end."""
        names = ("held", "ids", "contents", "bodies")
        kept = copy.deepcopy({name: getattr(self.crm, name) for name in names})
        yield
        vars(self.crm).update(kept)

    def writes(self):
        """How many rows were written."""
        return self.crm.writes.total()
