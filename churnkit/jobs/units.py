"""Who was measured and what came of them: tasks, ghosts, arms and the raw tables as the frames that impact takes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from churnkit.jobs.workspace import load_day, targets
from churnkit.learning.labels import exchange, observed_until, verdicts
from churnkit.outreach.book import Book, utc
from churnkit.outreach.impact import ENROLLED, OWN, UNITS

if TYPE_CHECKING:
    from churnkit.learning.targets import Target
    from churnkit.outreach.policy import Play
    from churnkit.outreach.task import Task
    from churnkit.settings import Settings
    from churnkit.signals.tables import Tables

SPAN = pd.Timedelta(days=104)
"""How long after its trigger a customer's MRR, ratings and touches are looked at: as long as a churn label looks."""
_TRIGGER = ("account_id", "play", "target", "cause", "score", "value", "passed_on", "triggered_at", "asset_ids")


def units_of(tables: Tables, tasks: Iterable[Task], arms: pd.DataFrame, plays: Mapping[str, Play],
             at: dt.datetime) -> pd.DataFrame:
    """One row per customer and play at its first trigger, and one with play '' at the first of any: impact.UNITS.

    A play that is always done is left out, since nobody is kept apart from it. Outcomes run from the trigger on, the
    lead included: what happened right after it counts too. They are blank where the window is not closed at `at`, as
    far as the tables reach. A customer of several accounts is followed by the account that triggered first.

    Args:
        tables: The raw tables, read at `at`.
        tasks: All of the outbox's tasks and ghosts.
        arms: control.ARMS; customers that were never drawn are left out.
        plays: The policy's.
        at: The moment of the report.
    """
    now = utc(at)
    rows = pd.DataFrame([_trigger(task) for task in tasks
                         if task.play not in plays or not plays[task.play].always], columns=list(_TRIGGER))
    accounts = Book(now, tables).accounts()
    rows["triggered_at"] = pd.to_datetime(rows["triggered_at"], utc=True).astype("datetime64[us, UTC]")
    rows["top"] = rows["account_id"].map(accounts["top"]).fillna(rows["account_id"])
    rows["segment"] = rows["account_id"].map(accounts["segment"]).fillna("")
    drawn = by_chance(arms)[["top", "arm", "stratum", "propensity"]]
    rows = rows[rows["triggered_at"] <= now].merge(drawn, on="top")
    rows = rows.sort_values(["triggered_at", "top", "play"], kind="stable")
    whole = rows.drop_duplicates("top").assign(play="", target="")
    rows = pd.concat([rows.drop_duplicates(["top", "play"]), whole], ignore_index=True)
    asked = rows.drop_duplicates(["account_id", "triggered_at"])[["account_id", "triggered_at"]]
    asked = asked.reset_index(drop=True)
    found = asked.join(outcomes(tables, asked, now, SPAN)).join(
        touched(tables, asked, SPAN)).merge(rows, on=["account_id", "triggered_at"], how="right")
    found["failures"] = failures(tables, found, now)
    return found[list(UNITS)]


def by_chance(arms: pd.DataFrame) -> pd.DataFrame:
    """The arms that could have been either: not the reserve, nor who was drawn while nobody was kept apart."""
    drawn: pd.DataFrame = arms[arms["arm"].isin(["treated", "control"])
                               & arms["propensity"].astype(float).between(0, 1, inclusive="neither")]
    return drawn


def enrolled_of(settings: Settings, tables: Tables, arms: pd.DataFrame, at: dt.datetime) -> pd.DataFrame:
    """One row per customer that was drawn, with what came of it from the draw until now: impact.ENROLLED.

    Everybody is followed as long as could be, which is the same for both arms. Shares stand for customers of several
    accounts; the score is the churn probability on the day of the draw, where one was made.
    """
    now = utc(at)
    accounts = Book(now, tables).accounts().reset_index(drop=True)
    drawn = by_chance(arms).assign(
        triggered_at=lambda rows: pd.to_datetime(rows["drawn_at"], utc=True).astype("datetime64[us, UTC]"))
    rows = accounts[["account_id", "top", "segment"]].merge(drawn, on="top").reset_index(drop=True)
    asked = rows[["account_id", "triggered_at"]]
    found = rows.join(outcomes(tables, asked, now, None)).join(touched(tables, asked, now - asked["triggered_at"]))
    days = [load_day(settings, "scores", day.to_pydatetime()) for day in rows["triggered_at"].drop_duplicates()]
    scores = [day[day["target"] == "churn"] for day in days if day is not None]
    known = pd.concat(scores) if scores else pd.DataFrame(columns=["account_id", "cutoff", "probability", "value"])
    known = known[["account_id", "cutoff", "probability", "value"]].rename(
        columns={"cutoff": "triggered_at", "probability": "score"})
    known["triggered_at"] = pd.to_datetime(known["triggered_at"], utc=True).astype("datetime64[us, UTC]")
    found = found.merge(known.drop_duplicates(["account_id", "triggered_at"]), on=["account_id", "triggered_at"],
                        how="left")
    first = {name: (name, "first") for name in ("arm", "stratum", "propensity", "segment")}
    sums = {name: (name, lambda one: one.sum(min_count=1)) for name in ("value", "mrr_before", "mrr")}
    means = {name: (name, "mean") for name in ("score", "churned", "expanded", "csat", "nps")}
    whole: pd.DataFrame = found.groupby("top").agg(**first, **sums, **means, touched=("touched", "any")).reset_index()
    whole["mrr_kept"] = whole["mrr"] / whole["mrr_before"].where(whole["mrr_before"] > 0)
    return whole.reindex(columns=list(ENROLLED))


def outcomes(tables: Tables, asked: pd.DataFrame, now: pd.Timestamp, span: pd.Timedelta | None) -> pd.DataFrame:
    """What came of accounts from moments on, in their order: churned, expanded, mrr_before, mrr, mrr_kept, csat, nps.

    Args:
        tables: The raw tables.
        asked: account_id and triggered_at.
        now: Nothing after it is seen.
        span: How long each is followed; None: until now, or as far as labels can be told.
    """
    found = pd.DataFrame(index=asked.index)
    for target in targets(tables.settings, tables):
        if target.entity == "account":
            found[OWN[target.name]] = _label(tables, replace(target, horizon=span or target.horizon), asked, now,
                                             until_now=span is None)
    money = _mrr(tables, asked, now, span)
    ends = asked["triggered_at"] + span if span is not None else pd.Series(now, asked.index)
    rated = {"csat": ("support_tickets", "rated_at", "csat"), "nps": ("surveys", "responded_at", "score")}
    for name, (table, time, value) in rated.items():
        events = tables[table]
        events = events[events["kind"] == "nps"] if table == "surveys" else events.drop_duplicates("ticket_id",
                                                                                                   keep="last")
        pairs = _within(asked, events.rename(columns={time: "happened"}), ends)
        found[name] = pairs.groupby("n")[value].mean().reindex(asked.index).where(ends <= _reach(tables, table, now))
    return found.join(money).reindex(columns=["churned", "expanded", "mrr_before", "mrr", "mrr_kept", "csat", "nps"])


def touched(tables: Tables, asked: pd.DataFrame, span: Any) -> pd.Series:
    """Whether a person approached the account within the span after the moment."""
    from churnkit.outreach.peace import MACHINES

    events = tables["touches"]
    by_hand = (events["direction"] == "outbound") & ~events["by"].isin(MACHINES)
    pairs = _within(asked, events[by_hand].rename(columns={"occurred_at": "happened"}), asked["triggered_at"] + span)
    return pd.Series(asked.index.isin(pairs["n"]), asked.index, name="touched")


def failures(tables: Tables, rows: pd.DataFrame, now: pd.Timestamp) -> pd.Series:
    """How many of a task's assets, or else of the account's, failed within the horizon after its trigger."""
    target = next((one for one in targets(tables.settings, tables) if one.name == "maintenance"), None)
    if target is None:
        return pd.Series(np.nan, rows.index)
    named = rows["asset_ids"].explode().dropna().rename("entity_id")
    bare = rows[~rows.index.isin(named.index)][["account_id"]].assign(n=lambda one: one.index)
    owned = bare.merge(tables["assets"][["account_id", "asset_id"]].drop_duplicates(), on="account_id")
    pairs = pd.concat([named.rename_axis("n").reset_index(),
                       owned.rename(columns={"asset_id": "entity_id"})[["n", "entity_id"]]], ignore_index=True)
    asked = pairs.join(rows[["account_id", "triggered_at"]], on="n")
    labels = _label(tables, target, asked, now).to_numpy()
    return pd.Series(labels, asked["n"]).groupby(level=0).sum(min_count=1).reindex(rows.index)


def _trigger(task: Task) -> dict[str, Any]:
    """What a task or ghost says of its trigger; older ones lack the cause, and whether a slot was passed on."""
    return {"account_id": task.account_id, "play": task.play, "target": task.target,
            "cause": getattr(task, "cause", ""), "score": np.nan if task.score is None else task.score,
            "value": np.nan if task.value is None else task.value, "passed_on": getattr(task, "passed_on", False),
            "triggered_at": task.episode, "asset_ids": list(task.asset_ids) or None}


def _label(tables: Tables, target: Target, asked: pd.DataFrame, now: pd.Timestamp, *,
           until_now: bool = False) -> pd.Series:
    """The target's outcome from each moment on, over its horizon or until now; blank where it cannot be told."""
    cutoff = asked["triggered_at"].dt.as_unit("us")
    reach = observed_until(target, tables)
    until = cutoff + target.horizon if not until_now else pd.Series(
        min(now, reach if reach is not None else now) - target.grace, asked.index).dt.as_unit("us")
    entity = asked["entity_id"] if "entity_id" in asked else asked["account_id"]
    spans = pd.DataFrame({"n": range(len(asked)), "entity_id": entity.to_numpy(),
                          "account_id": asked["account_id"].to_numpy(), "cutoff": cutoff.array, "opens": cutoff.array,
                          "until": until.array, "close": (until + target.grace).array})
    found = verdicts(target, tables, spans)["label"].astype("float64")
    told = (until > cutoff) & (until + target.grace <= now)
    return found.set_axis(asked.index).where(told)


def _mrr(tables: Tables, asked: pd.DataFrame, now: pd.Timestamp, span: pd.Timedelta | None) -> pd.DataFrame:
    """MRR at the moment and at the span's end, in the workspace's currency; who has left has none."""
    rows = tables["subscriptions"]
    rates = exchange(tables) if len(rows) else {}
    book = {"subscriptions": rows.assign(mrr=rows["mrr"] * rows["currency"].map(rates).fillna(1.0).astype(float))}
    ends = asked["triggered_at"] + span if span is not None else pd.Series(now, asked.index)
    found = {}
    for name, moments in (("mrr_before", asked["triggered_at"]), ("mrr", ends)):
        found[name] = pd.Series(np.nan, asked.index)
        for moment, some in asked.groupby(moments):
            if moment <= _reach(tables, "subscriptions", now):
                paid = Book(utc(moment), book).mrr()
                found[name][some.index] = some["account_id"].map(paid).fillna(0.0).to_numpy(dtype=float)
    before, after = found["mrr_before"], found["mrr"].where(found["mrr_before"] > 0)
    return pd.DataFrame({"mrr_before": before, "mrr": after, "mrr_kept": after / before.where(before > 0)})


def _within(asked: pd.DataFrame, events: pd.DataFrame, ends: pd.Series) -> pd.DataFrame:
    """Pairs of a row, `n`, and an event of its account after its moment and until its end."""
    left = asked.assign(n=asked.index, end=ends)
    pairs = left.merge(events.dropna(subset=["happened"]), on="account_id")
    inside: pd.DataFrame = pairs[(pairs["happened"] > pairs["triggered_at"]) & (pairs["happened"] <= pairs["end"])]
    return inside


def _reach(tables: Tables, name: str, now: pd.Timestamp) -> pd.Timestamp:
    """How far a table tells, at most until now; one that was not given tells nothing."""
    if not tables.has(name):
        return pd.Timestamp(0, tz="UTC")
    return min(now, utc(tables.covers_until.get(name, now)))
