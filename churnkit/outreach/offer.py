"""What to offer, in words: the likeliest kind of an expansion, and what it would bring a month."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from churnkit.outreach.wording import Wording
from churnkit.outreach.words import clean, few, listed, money
from churnkit.schemas import OFFER_KINDS

KINDS: Mapping[str, str] = {"seats": "more seats", "plan": "a higher plan", "addon": "an add-on"}
"""What an account manager calls the kinds that have a name."""


@dataclass(frozen=True)
class Offer:
    """One account's row of schemas.OFFERS. `kind` is the likeliest one with a name, or empty, and `share` its chance,
    given that the account buys at all.

    >>> Offer(340.0, "EUR", "seats", 0.62, gain_skill=True, kind_skill=True).brief()
    'They would most likely take more seats (62%), about 340 EUR a month.'
    """

    gain: float
    currency: str
    kind: str
    share: float
    gain_skill: bool
    kind_skill: bool

    @classmethod
    def of(cls, row: Mapping[Any, Any]) -> Offer:
        """The offer of a row; no kind is named where what has no name is likelier than any."""
        shares = {kind: float(row[kind]) for kind in OFFER_KINDS if not math.isnan(row[kind])}
        kind = max(shares, key=lambda one: shares[one]) if shares else ""
        currency = row["currency"] if isinstance(row["currency"], str) else ""
        return cls(float(row["gain_monthly"]), clean(currency, 8), kind if kind in KINDS else "",
                   shares.get(kind, math.nan), bool(row["gain_skill"]), bool(row["kind_skill"]))

    def brief(self, wording: Wording | None = None) -> str:
        """A sentence for the brief, without what has no proven skill; empty where nothing has."""
        wording = wording or Wording.load()
        known = self.gain_skill and not math.isnan(self.gain)
        gain = wording.money(self.gain, few(self.currency, 8, 1)) if known else ""
        if not self.kind_skill or not self.kind:
            return wording.say("offer.gain", money=gain) if gain else ""
        return wording.say("offer.most_likely_gain" if gain else "offer.most_likely", money=gain,
                           kind=wording.say(f"offer.{self.kind}"), share=wording.percent(self.share))

    def told(self) -> str:
        """All of it for who asks, with what only is what is usual."""
        likely = "most likely" if self.kind_skill else "usually"
        parts = [*([f"{likely} {self._kind}"] if self.kind else []), *([self._monthly] if self._monthly else [])]
        doubts = [*([] if self.gain_skill or not self._monthly else ["amount"]),
                  *([] if self.kind_skill or not self.kind else ["kind"])]
        doubt = f"; {listed(doubts)} as usual, no proven skill" if doubts else ""
        return f"{', '.join(parts)} if it buys{doubt}" if parts else ""

    @property
    def _kind(self) -> str:
        return f"{KINDS[self.kind]} ({self.share:.0%})"

    @property
    def _monthly(self) -> str:
        return "" if math.isnan(self.gain) else f"about {money(self.gain, self.currency)} a month"
