"""What outreach came to on an open workspace: the report, the plot, and the effects that the next plan ranks by."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from churnkit.errors import OutreachError
from churnkit.jobs.act import policy_of
from churnkit.jobs.report import Report
from churnkit.jobs.workspace import open_outbox, targets

if TYPE_CHECKING:
    import pandas as pd

    from churnkit.outreach.policy import Policy
    from churnkit.settings import Settings
    from churnkit.signals.tables import Tables

EFFECTS_VERSION = 1
_FILE, _PLOT = "effects.json", "impact.svg"


def impact(settings: Settings, tables: Tables, at: dt.datetime, arms: pd.DataFrame | None = None) -> Report:
    """Contacted against kept apart, by play and overall; keeps what each play does for the next plan, and a plot.

    Args:
        settings: The workspace's.
        tables: Its raw tables, read at `at`.
        at: The moment of the report.
        arms: control.ARMS; left out: the outbox's own.
    """
    import pandas as pd

    from churnkit.jobs.units import enrolled_of, units_of
    from churnkit.outreach.control import ARMS
    from churnkit.outreach.effects import learn
    from churnkit.outreach.impact import counts
    from churnkit.outreach.impact import impact as measure
    from churnkit.outreach.told import forest, sentences, table

    policy, outbox = policy_of(settings), open_outbox(settings)
    if arms is None:
        drawn = outbox.arms() if hasattr(outbox, "arms") else []
        arms = pd.DataFrame(drawn, columns=list(ARMS))
    tasks, counted = outbox.tasks(), counts(outbox)
    units = units_of(tables, tasks, arms, policy.plays, at)
    enrolled = enrolled_of(settings, tables, arms, at) if len(arms) else None
    found = measure(units, enrolled, _asked(policy, settings, tables, at))
    effects = learn(units, _priors(policy))
    save_effects(settings, effects, at)
    notes = [] if len(found) else [_nothing(tasks, arms)]
    if len(found):
        plot = forest(found, settings.state / _PLOT)
        notes += [f"plot: {plot}", f"what each play does is kept for the next plan: {settings.state / _FILE}"]
    data = {"at": at.isoformat(), "counts": counted, "impact": _plain(found), "effects": _plain(effects)}
    return Report("impact", sentences(found, settings.currency), table(found) or counted, notes, data)


def save_effects(settings: Settings, effects: pd.DataFrame, at: dt.datetime) -> None:
    """Keeps EFFECTS in the workspace's state, whole or not at all."""
    path = settings.state / _FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".part")
    kept = {"version": EFFECTS_VERSION, "at": at.isoformat(), "effects": _plain(effects)}
    half.write_text(json.dumps(kept, indent=1, allow_nan=False), encoding="utf-8")
    half.replace(path)


def load_effects(settings: Settings) -> pd.DataFrame | None:
    """The EFFECTS that the last report kept; None where there was none.

    Raises:
        OutreachError: If the file cannot be read, or is of another version.
    """
    import pandas as pd

    from churnkit.outreach.effects import EFFECTS

    path = settings.state / _FILE
    if not path.is_file():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        version, rows = kept["version"], pd.DataFrame(kept["effects"], columns=list(EFFECTS))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutreachError(f"'{path}' cannot be read ({str(error).splitlines()[0]}). Delete it and run: churnkit "
                            "impact") from None
    if version != EFFECTS_VERSION:
        raise OutreachError(f"'{path}' is of version {version}, and this churnkit reads {EFFECTS_VERSION}. Delete it "
                            "and run: churnkit impact")
    return rows


def _asked(policy: Policy, settings: Settings, tables: Tables, at: dt.datetime) -> Any:
    """What was promised, and how long each outcome takes to be known."""
    from churnkit.jobs.units import SPAN
    from churnkit.outreach.impact import OWN, Asked

    effects: dict[str, float] = {name: play.effect for name, play in policy.plays.items()}
    saving = [play.effect for play in policy.plays.values() if play.target == "churn" and not play.always]
    span = SPAN.total_seconds() / 86400
    days: dict[str, float] = dict.fromkeys(("mrr", "mrr_kept", "csat", "nps"), span)
    for target in targets(settings, tables):
        horizon = span if target.entity == "account" else target.horizon / dt.timedelta(days=1)
        days[OWN[target.name]] = horizon + target.grace / dt.timedelta(days=1)
    return Asked(at, {**effects, "": sum(saving) / len(saving) if saving else 0.0}, window_days=days)


def _priors(policy: Policy) -> Mapping[str, Any]:
    """What the policy believes of each play from which customers are kept apart."""
    from churnkit.outreach.effects import Prior

    return {name: Prior(play.effect, float(getattr(play, "effect_weight", Prior(0).weight)))
            for name, play in policy.plays.items() if not play.always}


def _nothing(tasks: list[Any], arms: pd.DataFrame) -> str:
    """Why there is nothing to compare."""
    if not tasks:
        return "There are no tasks yet, so there is nothing to measure. Plan some: churnkit plan"
    if not len(arms) or not (arms["arm"] == "control").any():
        return ("Nobody is kept apart, so nobody can say what outreach is worth. Set [control] share = 0.1 in "
                "outreach.toml before the next plan.")
    return ("Too few accounts yet: no play has opened both for a customer that was approached and for one kept apart "
            "whose outcome is known. A customer's outcome is known about four months after its task.")


def _plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of plain values; what is not known, or has no bound, is None."""
    import numpy as np

    rows: list[dict[str, Any]] = json.loads(frame.replace([np.inf, -np.inf], np.nan).to_json(
        orient="records", date_format="iso", double_precision=15))
    return rows
