"""What could be done: candidate tasks from models' scores and from plain signals, each with its expected net value."""

from __future__ import annotations

import datetime as dt
import math
from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from churnkit.errors import OutreachError
from churnkit.outreach.book import Book
from churnkit.outreach.policy import AIMS, Play, Policy
from churnkit.outreach.task import task_key
from churnkit.outreach.worth import Effects, Worth
from churnkit.schemas import HELD
from churnkit.settings import Settings

_NEEDED = ("entity_id", "account_id", "cutoff", "target", "probability")


@dataclass(frozen=True)
class Candidate:
    """One task that could be planned.

    `entity_ids` are the scored entities it stands for (none for a rule), the most pressing first. `cause` is why it
    opened: the feature group of the first raising reason, or the signal. `worth` says what the play is believed to
    turn, and by what. `evidence` holds the signals' sentences and `evidence_ids` the tickets or codes they rest on.
    """

    account_id: str
    name: str
    play: Play
    episode: str
    probability: float
    value: float | None
    currency: str
    scored_at: str
    worth: Worth
    entity_ids: tuple[str, ...] = ()
    asset_ids: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    evidence_ids: tuple[str, ...] = ()
    cause: str = ""
    model_version: str | None = None
    data_hash: str | None = None
    band: str | None = None
    proven: bool = True
    reopens: str | None = None

    @property
    def net(self) -> float:
        """What the task is expected to bring, less what it costs, in money; not a number where no value is known."""
        return self.worth.gain - self.play.cost

    @property
    def key(self) -> str:
        """The key of the task that would come of it."""
        return task_key(self.account_id, self.name, self.episode)

    @property
    def rank(self) -> tuple[object, ...]:
        """Sorts the most urgent and most valuable first, and ties always alike."""
        worth = self.net if math.isfinite(self.net) else self.probability * self.worth.effect - 1e6
        return (not self.play.always, -worth, self.account_id, self.name)

    @property
    def rank_at_home(self) -> tuple[object, ...]:
        """The order within one account: always, then saving before serving before selling, then value."""
        return (not self.play.always, list(AIMS.values()).index(self.play.aim), *self.rank)


def current_scores(scores: pd.DataFrame | None, at: pd.Timestamp) -> pd.DataFrame:
    """The newest score per entity and target that is not from after `at`, in a stable order.

    Raises:
        OutreachError: If a needed column is missing.
    """
    if scores is None or not len(scores.columns):
        scores = pd.DataFrame(columns=list(_NEEDED))
    missing = [column for column in _NEEDED if column not in scores]
    if missing:
        raise OutreachError(f"scores: column '{missing[0]}' is missing. Give what Model.predict returns.")
    frame = scores.assign(cutoff=pd.to_datetime(scores["cutoff"], utc=True))
    for column, default in (("value", math.nan), ("currency", None), ("model_version", None), ("band", None),
                            ("skill", True), ("uplift", math.nan), ("uplift_skill", False), ("data_hash", None)):
        if column not in frame:
            frame[column] = default
    frame = frame.astype({"entity_id": object, "account_id": object, "value": float, "probability": float,
                          "uplift": float})
    for column in ("skill", "uplift_skill"):
        frame[column] = frame[column].fillna(value=False).astype(bool)
    frame = frame[frame["cutoff"] <= at].sort_values(["target", "entity_id", "cutoff"], kind="stable")
    return frame.drop_duplicates(["target", "entity_id"], keep="last").reset_index(drop=True)


def from_scores(scores: pd.DataFrame, causes: pd.Series, book: Book, policy: Policy,
                effects: Effects) -> tuple[list[Candidate], pd.DataFrame]:
    """Candidates of the model plays, and the held rows of every scored entity that is none.

    Several assets of one account come together in one candidate. `causes` is the group of the first raising reason by
    (target, entity_id); an entity without one has no known driver.
    """
    segments = dict(book.accounts()["segment"])
    models = {name: play for name, play in policy.active.items() if play.opened_by == "model"}
    frame = scores.assign(segment=scores["account_id"].map(segments), play=None, cause=_causes(scores, causes))
    likely = frame["play"].copy()
    for name, play in reversed(models.items()):  # the first in the file goes before
        meant = frame["target"] == play.target
        meant &= frame["segment"].isin(play.segments) if play.segments else True
        meant &= frame["cause"].isin(play.drivers) if play.drivers else True
        worth = ~(frame["value"] < play.min_value) & ~(frame["value"] > (play.max_value or math.inf))
        frame["play"] = frame["play"].mask(meant & worth & (frame["probability"] >= play.open), name)
        likely = likely.mask(meant, name)
    opened = frame["play"].notna()
    frame["play"] = frame["play"].fillna(likely)
    opens = frame["play"].map({name: play.open for name, play in models.items()}).astype(float)
    frame["until"], frame["why"], frame["detail"] = pd.Series(pd.NaT, frame.index, dtype="datetime64[us, UTC]"), "", ""
    _hold(frame, ~opened, "below threshold", "worth less than the play's min_value, or more than its max_value")
    needed = _texts("{:.1%}, opens at {:.0%}", frame["probability"], opens)
    _hold(frame, ~opened & ~(frame["probability"] >= opens), "below threshold", needed)
    _hold(frame, frame["play"].isna(), "below threshold", "no enabled play for this target, segment and driver")
    _hold(frame, ~frame["skill"], "no skill", "the model's skill is not proven")
    _hold_late(frame, book, policy, models)
    good = frame[frame["why"] == ""].sort_values(["probability", "entity_id"], ascending=[False, True], kind="stable")
    groups: dict[tuple[str, str], list[dict[Hashable, Any]]] = defaultdict(list)
    for row in good.sort_values(["account_id", "play"], kind="stable").to_dict("records"):
        groups[row["account_id"], row["play"]].append(row)
    found = [_candidate(rows, models, book, effects) for rows in groups.values()]
    return found, frame.loc[frame["why"] != "", list(HELD)]


def causes_of(reasons: pd.DataFrame | None) -> pd.Series:
    """The group of each entity's first raising reason, by (target, entity_id); empty where reasons name no groups."""
    if reasons is None or reasons.empty or "group" not in reasons:
        return pd.Series(dtype=object)
    rows = reasons[(reasons["direction"] == "raises") & (reasons["group"].fillna("") != "")]
    newest = ["cutoff", "rank"] if "cutoff" in rows else ["rank"]
    rows = rows.sort_values(newest, ascending=[False, True][-len(newest):], kind="stable")
    return rows.drop_duplicates(["target", "entity_id"]).set_index(["target", "entity_id"])["group"]


def _causes(scores: pd.DataFrame, causes: pd.Series) -> pd.Series:
    if causes.empty:
        return pd.Series("", scores.index, dtype=object)
    keys = pd.MultiIndex.from_frame(scores[["target", "entity_id"]])
    return pd.Series(causes.reindex(keys).fillna("").to_numpy(dtype=object), scores.index, dtype=object)


def from_signals(signals: pd.DataFrame, scores: pd.DataFrame, book: Book, policy: Policy, effects: Effects,
                 *, answered: set[str]) -> list[Candidate]:
    """Candidates of the rule plays: per account and play the oldest signal that nobody has answered yet."""
    segments, mrr = dict(book.accounts()["segment"]), book.mrr()
    models = dict(zip(book["assets"]["asset_id"], book["assets"]["model"], strict=True))
    known = scores[scores["skill"]].set_index(["target", "account_id"]).sort_index()
    churn = known.loc[["churn"]].droplevel(0) if "churn" in known.index.get_level_values(0) else known.iloc[:0]
    settings = book.settings
    own_currency = book.currency(settings.currency)
    found = []
    for name, play in policy.active.items():
        rows = signals[signals["signal"] == play.signal] if play.signal else signals.iloc[:0]
        for account, group in rows.groupby("account_id", sort=True):
            episodes = {f"{when:%Y-%m-%d}" for when in group["occurred_at"]}
            fresh = sorted(day for day in episodes if task_key(str(account), name, day) not in answered)
            if not fresh or (play.segments and segments.get(account) not in play.segments):
                continue
            news = group[[f"{when:%Y-%m-%d}" in fresh for when in group["occurred_at"]]]
            score = churn.loc[account] if play.target == "churn" and account in churn.index else None
            value = float(score["value"]) if score is not None and pd.notna(score["value"]) else None
            assets = tuple(sorted({str(asset) for asset in news["asset_id"].dropna()}))
            if value is None:
                paid = float(mrr.get(account, math.nan))
                value = _at_stake(play, paid, [models.get(asset) for asset in assets], settings)
            if value is not None and not play.min_value <= value <= (play.max_value or math.inf):
                continue
            currency = score["currency"] if score is not None and score["currency"] else own_currency
            probability = float(score["probability"]) if score is not None else play.likelihood
            cause = play.signal or ""
            worth = effects.of(name, play, cause, segments.get(account) or "").times(
                probability, math.nan if value is None else value)
            found.append(Candidate(
                account_id=str(account), name=name, play=play, episode=fresh[0], value=value, currency=currency,
                probability=probability, scored_at=book.at.isoformat(), worth=worth, cause=cause,
                evidence=tuple(dict.fromkeys(news["evidence"])),
                evidence_ids=tuple(dict.fromkeys(str(found) for found in news["evidence_id"].dropna())),
                asset_ids=assets, proven=score is not None))
    return found


def _at_stake(play: Play, mrr: float, models: list[str | None], settings: Settings) -> float | None:
    """What a rule's case may cost or bring, by the settings of value; None where nothing is known."""
    worth = settings.value
    if models and play.target == "maintenance":
        value = sum(worth.failure_cost.get(model or "", mrr * worth.failure_share) for model in models)
    else:
        value = mrr * worth.margin * worth.months * (worth.expansion_share if play.target == "expansion" else 1.0)
    return value if math.isfinite(value) else None


def _hold(frame: pd.DataFrame, rows: pd.Series, why: str, detail: str | pd.Series) -> None:
    """Marks rows as held; what is marked later goes before."""
    frame.loc[rows, "why"] = why
    frame.loc[rows, "detail"] = detail[rows] if isinstance(detail, pd.Series) else detail


def _texts(words: str, first: pd.Series, second: pd.Series) -> pd.Series:
    return pd.Series([words.format(*pair) for pair in zip(first, second, strict=True)], first.index, dtype=object)


def _hold_late(frame: pd.DataFrame, book: Book, policy: Policy, models: Mapping[str, Play]) -> None:
    """Equipment whose forecast ends before a technician could be there."""
    model = dict(zip(book["assets"]["asset_id"], book["assets"]["model"], strict=True))
    needs = frame["entity_id"].map(model).map(policy.dispatch.models).fillna(policy.dispatch.days).astype(float)
    days = frame["play"].map({name: play.valid_days for name, play in models.items()}).astype(float)
    left = days - (book.at - frame["cutoff"]).dt.total_seconds() / 86400
    late = (frame["target"] == "maintenance") & (frame["why"] == "") & (left < needs)
    words = _texts("a technician needs {:g} days, the forecast reaches {:.1f}", needs, left)
    _hold(frame, late, "lead time too short", words)


def _candidate(rows: list[dict[Hashable, Any]], models: Mapping[str, Play], book: Book, effects: Effects) -> Candidate:
    first = rows[0]
    name = str(first["play"])
    play, ids = models[name], tuple(str(row["entity_id"]) for row in rows)
    worth = effects.of(name, play, str(first["cause"]), _word(first["segment"]) or "")
    values = [row["value"] for row in rows if math.isfinite(row["value"])]
    gains = [worth.learnt(row["uplift"], row["value"]) if row["uplift_skill"] and effects.uplift
             else worth.times(row["probability"], row["value"]) for row in rows]
    return Candidate(
        account_id=str(first["account_id"]), name=name, play=play, episode=f"{book.at:%Y-%m-%d}",
        probability=float(first["probability"]), value=sum(values) if values else None,
        currency=_word(first["currency"]) or "", scored_at=first["cutoff"].isoformat(), worth=Worth.together(gains),
        entity_ids=ids, asset_ids=ids if first["target"] == "maintenance" else (), cause=str(first["cause"]),
        model_version=_word(first["model_version"]), data_hash=_word(first["data_hash"]), band=_word(first["band"]))


def _word(value: Any) -> str | None:
    return None if value is None or pd.isna(value) else str(value)


def expiry(candidate: Candidate) -> dt.date:
    """The day after which the task is moot: the play's valid days, counted from what opened it."""
    return dt.datetime.fromisoformat(candidate.scored_at).date() + dt.timedelta(days=candidate.play.valid_days)
