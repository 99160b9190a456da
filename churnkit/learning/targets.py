"""What a model predicts: a frozen value per target. A fourth model is one more value and one label function."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import Literal

from churnkit.errors import ModelError, did_you_mean
from churnkit.settings import Settings
from churnkit.signals.own import groups_for
from churnkit.signals.protected import protected

Entity = Literal["account", "asset"]


@dataclass(frozen=True)
class Target:
    """One thing to predict.

    A label at a cutoff looks at `[cutoff + lead, cutoff + lead + horizon)`; it is mature once `grace` more has passed.
    `groups` are the feature groups that the model may see, `never` the features among them that it may not.
    """

    name: str
    entity: Entity
    horizon: dt.timedelta
    lead: dt.timedelta = dt.timedelta(0)
    grace: dt.timedelta = dt.timedelta(0)
    groups: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    code: str | None = None
    says: str = ""

    @property
    def window(self) -> dt.timedelta:
        """How long after a cutoff its label is mature: lead + horizon + grace."""
        return self.lead + self.horizon + self.grace

    @property
    def id_column(self) -> str:
        """The id column of the entity: account_id or asset_id."""
        return f"{self.entity}_id"


_ACCOUNT_GROUPS = ("usage", "support", "survey", "billing", "contract", "relationship", "account_assets")

CHURN = Target("churn", "account", horizon=dt.timedelta(days=90), lead=dt.timedelta(days=14),
               grace=dt.timedelta(days=30), groups=_ACCOUNT_GROUPS, never=("notice_given",),
               says="leaves: the last subscription ends and none follows within the grace")
EXPANSION = Target("expansion", "account", horizon=dt.timedelta(days=90), lead=dt.timedelta(days=14),
                   grace=dt.timedelta(days=30), groups=_ACCOUNT_GROUPS, never=("notice_given",),
                   says="buys more seats, a higher plan or an add-on, and stays")
MAINTENANCE = Target("maintenance", "asset", horizon=dt.timedelta(days=7), groups=("asset",),
                     says="the equipment fails")

TARGETS = {target.name: target for target in (CHURN, EXPANSION, MAINTENANCE)}


def target(name: str) -> Target:
    """The target of that name.

    Raises:
        ModelError: If there is none; names the nearest.

    >>> target("churn").window.days
    134
    """
    if name not in TARGETS:
        raise ModelError(f"There is no target '{name}'.{did_you_mean(name, TARGETS)} Known: {', '.join(TARGETS)}.")
    return TARGETS[name]


def configured(of: Target, settings: Settings) -> Target:
    """The target with the spans and the failure code of `[targets.<name>]`, the own groups that name it, and without
    protected features; what is not set there stays.

    >>> configured(MAINTENANCE, Settings(targets={"maintenance": {"horizon": "72h"}})).window.days
    3
    """
    of = replace(of, groups=tuple(dict.fromkeys((*of.groups, *groups_for(settings, of.name)))),
                 never=tuple(dict.fromkeys((*of.never, *protected(settings)))))
    given = settings.targets.get(of.name)
    if given is None:
        return of
    spans = {name: span for name in ("horizon", "lead", "grace") if (span := getattr(given, name)) is not None}
    return replace(of, **spans, code=given.code or of.code)
