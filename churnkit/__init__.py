"""churnkit turns raw usage, support, billing and equipment records into explained outreach tasks for account managers.

The flow is one straight line, and every station takes tables and gives a table:

    raw tables -> validated tables -> features at a cutoff (Feast) -> labels -> training set
      -> models (churn, expansion, maintenance) -> scores + reasons -> plan (policy) -> outbox
      -> CRM sync -> outcomes back as one more raw table

The names below are resolved when they are first used, so that `import churnkit` costs next to nothing:

    >>> import churnkit as ck
    >>> ck.CHURN.horizon.days
    90
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "read_tables": "signals.tables",
    "Tables": "signals.tables",
    "prediction_points": "signals.points",
    "compute_features": "signals.compute",
    "Catalog": "signals.features",
    "Store": "signals.store",
    "label": "learning.labels",
    "Target": "learning.targets",
    "CHURN": "learning.targets",
    "EXPANSION": "learning.targets",
    "MAINTENANCE": "learning.targets",
    "training_set": "learning.training",
    "Model": "learning.model",
    "ChurnClassifier": "learning.sklearn",
    "backtest": "learning.backtest",
    "evaluate": "learning.evaluate",
    "durations": "learning.durations",
    "Hazard": "learning.hazard",
    "CappedLife": "learning.life",
    "train_curve": "learning.curves",
    "Registry": "learning.registry",
    "stakes": "learning.value",
    "Policy": "outreach.policy",
    "find_signals": "outreach.rules",
    "plan": "outreach.plan",
    "Task": "outreach.task",
    "Outbox": "outreach.outbox",
    "sync": "outreach.sync",
    "Settings": "settings",
    "ChurnkitError": "errors",
}

__all__ = ["__version__", *sorted(_HOMES)]  # noqa: PLE0604 - names of the lazy face, all strings


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'churnkit' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"churnkit.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
