"""Every error that churnkit raises on purpose, each saying what, where, and the mend.

ChurnkitError
├── SettingsError     churnkit.toml, outreach.toml or the environment is wrong
├── DataError         a raw table breaks the contract
├── FeatureError      features are missing, too old, or not those that were asked for
├── ModelError        a model cannot be trained, found, trusted or used
├── OutreachError     a plan, an outbox or a CRM cannot go on
└── BusyError         another run holds this workspace
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ChurnkitError(Exception):
    """The root: catch this to catch whatever churnkit says on purpose."""


class SettingsError(ChurnkitError):
    """The settings are wrong; the message names the file, the key and the mend."""


class DataError(ChurnkitError):
    """A raw table breaks the contract; the message names table, column, row and mend."""


class FeatureError(ChurnkitError):
    """Features are missing, too old, or not those that were asked for."""


class ModelError(ChurnkitError):
    """A model cannot be trained, found, trusted or used."""


class OutreachError(ChurnkitError):
    """A plan, an outbox or a CRM cannot go on."""


class BusyError(ChurnkitError):
    """Another run holds this workspace."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known word, or an empty string.

    >>> did_you_mean("acounts", ["accounts", "surveys"])
    " Did you mean 'accounts'?"
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""
