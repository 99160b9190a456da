"""What to offer: told where its skill is proven, and otherwise left alone or said to be only what is usual."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from small_book import frames, scores
from small_tasks import AT

from churnkit.outreach.brief import WORDS
from churnkit.outreach.offer import Offer
from churnkit.outreach.plan import plan
from churnkit.outreach.policy import Policy
from churnkit.schemas import OFFERS


def offers(gain=340.0, kinds=(0.62, 0.2, 0.18, 0.0), gain_skill=True, kind_skill=True, at=AT):
    row = ("A01", "A01", pd.Timestamp(at), "expansion", gain, "EUR", gain_skill, *kinds, kind_skill)
    return pd.DataFrame([row], columns=list(OFFERS))


def said(**how):
    """Brief and answer of one offer."""
    one = Offer.of(offers(**how).to_dict("records")[0])
    return one.brief(), one.told()


@pytest.mark.parametrize(("how", "brief", "told"), [
    ({}, "They would most likely take more seats (62%), about 340 EUR a month.",
     "most likely more seats (62%), about 340 EUR a month if it buys"),
    ({"kinds": (0.1, 0.7, 0.2, 0.0), "gain_skill": False}, "They would most likely take a higher plan (70%).",
     "most likely a higher plan (70%), about 340 EUR a month if it buys; amount as usual, no proven skill"),
    ({"kind_skill": False}, "They would take about 340 EUR a month more.",
     "usually more seats (62%), about 340 EUR a month if it buys; kind as usual, no proven skill"),
    ({"gain_skill": False, "kind_skill": False}, "",
     "usually more seats (62%), about 340 EUR a month if it buys; amount and kind as usual, no proven skill"),
    ({"kinds": (math.nan,) * 4, "kind_skill": False}, "They would take about 340 EUR a month more.",
     "about 340 EUR a month if it buys"),
    ({"kinds": (0.3, 0.1, 0.1, 0.5)}, "They would take about 340 EUR a month more.",
     "about 340 EUR a month if it buys"),
    ({"gain": math.nan, "kinds": (math.nan,) * 4}, "", ""),
])
def test_only_what_is_proven_goes_into_the_brief(how, brief, told):
    """Who asks is told the rest too, with what it rests on."""
    assert (brief, told) == said(**how)


def task(**how):
    """The task of an account that is ready for more."""
    tables = frames(offers=offers(**how)) if how.pop("known", True) else frames()
    made = plan(scores({"A01": 0.6}, "expansion"), None, tables, Policy.default(), at=AT)
    return (made.tasks or made.ghosts)[0]


def test_the_brief_says_what_to_offer():
    """In its first lines; short as ever; and nothing of it without proof or without a file of the day."""
    whole = task()
    assert ("To be won: about 9,600 EUR. They would most likely take more seats (62%), about 340 EUR a month. "
            "Renewal in 41 days.") in whole.body
    assert len(whole.body.split()) <= WORDS
    for other in (task(gain_skill=False, kind_skill=False), task(known=False)):
        assert "They would" not in other.body
        assert "seats (" not in other.body


def test_an_offer_of_another_day_is_not_told():
    assert "They would" not in task(at=AT - pd.Timedelta(days=28)).body


def test_an_account_that_is_being_saved_is_offered_nothing():
    """The offer is the expansion play's, whoever else has a task."""
    made = plan(scores({"A01": 0.6}), None, frames(offers=offers()), Policy.default(), at=AT)
    assert "They would" not in (made.tasks or made.ghosts)[0].body
