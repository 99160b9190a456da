"""Definitions: names, windows and words."""

from __future__ import annotations

import re

import pytest

from churnkit.errors import FeatureError
from churnkit.schemas import ENTITIES
from churnkit.signals import catalog, features, groups, words
from churnkit.signals.catalog import Catalog, slugs
from churnkit.signals.features import feature, phrase
from churnkit.signals.groups import Feature

HOSTILE = ('a:b"]}', "{value}", "a b", "a-b", "", "é", "DROP TABLE x;--", "errors_7d", "a" * 300, "28d", "age_days")
FULL = Catalog(events=HOSTILE, sensors=HOSTILE, error_codes=HOSTILE, components=HOSTILE, plans=("small", "large"))
EVERY = [item for group in features.groups(FULL).values() for item in group.features]
NAN = float("nan")


@pytest.mark.parametrize("entity", ENTITIES)
def test_names_are_plain_and_unique_whatever_the_workspace_calls_things(entity):
    """LightGBM, Parquet and Feast take every name, and no two features of an entity share one."""
    names = [item.name for group in features.groups(FULL).values() if group.entity == entity for item in group.features]
    assert [name for name in names if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", name)] == []
    assert len(set(names)) == len(names)


def test_every_feature_has_words_and_a_partner_that_exists():
    """What is compared stands in the same group; a number's window stands in its name."""
    for group in features.groups(FULL).values():
        for item in group.features:
            assert item.says
            assert item.group == group.name
            assert item.compare is None or item.compare in group.by_name
            assert (item.compare is None) == (not item.against)
            if item.window_days:
                assert f"{item.window_days}d" in item.name


@pytest.mark.parametrize("value", [NAN, None, 0.0, 1.0, 2.0, 0.004, 1234.5])
def test_phrases_have_no_holes(value):
    """Whatever the value, no template mark, no nan and no 'None' is left in the sentence."""
    for item in EVERY:
        said = phrase(item.name, "team" if item.kind == "category" and value else value, 3.0, FULL)
        bare = said
        for word in HOSTILE:
            bare = bare.replace(f"'{features._plain(word)}'", "")
        assert not re.search(r"[{}]|nan|None|\b1 days\b", bare), said


@pytest.mark.parametrize(
    ("name", "value", "compared", "said"),
    [
        ("events_28d", 9.0, 31.0, "9 actions in the last 28 days, 31 in the 28 days before"),
        ("events_28d", 1.0, 0.0, "1 action in the last 28 days, none in the 28 days before"),
        ("events_28d", 0.0, NAN, "no actions in the last 28 days"),
        ("active_days_28d", 0.0, 12.0, "used on no days in the last 28 days, on 12 in the 28 days before"),
        ("events_change_28d", -0.71, None, "use is down 71% compared with the 28 days before"),
        ("events_change_28d", 0.0, None, "use is unchanged compared with the 28 days before"),
        ("events_usual_28d", 1.0, None, "usually 1 action in 28 days"),
        ("seats_active_share_28d", 0.4, None, "40% of the seats active in the last 28 days"),
        ("days_since_last_event", 0.25, None, "last used 6 hours ago"),
        ("days_since_last_event", NAN, None, "never used yet"),
        ("human_requested_28d", 2.0, None, "asked for a person twice in the last 28 days"),
        ("first_reply_hours_median_84d", NAN, None, "no first reply in the last 84 days"),
        ("first_reply_hours_median_84d", 100.0, None,
         "half of the first replies of the last 84 days took 4.2 days or longer"),
        ("csat_last", NAN, None, "no rating yet"),
        ("csat_mean_84d", 3.25, None, "support was rated 3.25 of 5 on average in the last 84 days"),
        ("nps_last", 4.0, 9.0, "the last recommendation score (NPS) was 4 of 10, 9 the time before"),
        ("overdue_amount", 1250.5, None, "EUR 1,250 overdue"),
        ("overdue_amount", 0.0, None, "nothing overdue"),
        ("mrr", 120.0, 100.0, "pays EUR 120 a month, EUR 100 twelve weeks ago"),
        ("mrr_change_84d", -20.0, None, "pays EUR 20 less a month than twelve weeks ago"),
        ("seats_change_84d", 1.0, None, "1 seat more than twelve weeks ago"),
        ("plan", "team", None, "on the plan 'team'"),
        ("plan", None, None, "no plan known"),
        ("tenure_days", 1461.0, None, "customer for 4 years"),
        ("days_to_renewal", 1.0, None, "renews in 1 day"),
        ("billing_months", 12.0, None, "billed for 12 months at a time"),
        ("renewing_months_105d", 1.0, None, "1 month of contract to be renewed in the next 105 days"),
        ("renewing_months_105d", 0.0, None, "nothing comes up for renewal in the next 105 days"),
        ("notice_given", 1.0, None, "notice has been given"),
        ("errors_1d", 1.0, None, "1 error in the last day"),
        ("touches_7d", NAN, None, "not known, for want of records of contacts"),
    ],
)
def test_phrases_read_as_a_person_would_say_it(name, value, compared, said):
    """Values, units, plurals and what is missing."""
    assert said == phrase(name, value, compared, Catalog())


def test_an_unknown_name_is_answered_with_the_nearest():
    """The error names what was probably meant."""
    with pytest.raises(FeatureError, match="Did you mean 'events_28d'"):
        feature("event_28d", Catalog())


def test_slugs_keep_their_words_apart():
    """Words that look alike once sanitised get numbers, in the order given."""
    assert dict(slugs(["A b", "a-b", "a_b_2", ""])) == {"A b": "a_b", "a-b": "a_b_2", "a_b_2": "a_b_2_2", "": "x"}


def test_catalog_round_trip_and_refusals(tmp_path):
    """What was saved is loaded; a newer, a broken and a missing file are refused with the mend."""
    file = tmp_path / "catalog.json"
    FULL.save(file)
    assert Catalog.load(file) == FULL
    file.write_text(file.read_text().replace('"schema_version": 1', f'"schema_version": {catalog.VERSION + 1}'))
    with pytest.raises(FeatureError, match="Upgrade churnkit"):
        Catalog.load(file)
    file.write_text("{")
    with pytest.raises(FeatureError, match="Restore it"):
        Catalog.load(file)
    with pytest.raises(FeatureError, match="Compute features first"):
        Catalog.load(tmp_path / "none.json")


def test_a_money_value_carries_the_workspace_currency():
    """The currency is the catalog's, not a constant."""
    assert phrase("mrr", 99.5, None, Catalog(currency="CHF")) == "pays CHF 99.50 a month"


def test_windowed_features_are_made_once_per_window():
    """Three windows and one comparison are four features."""
    made = groups.count("x", "usage", (7, 28, 84), compared=(28,), says="{value} in the last {window} days")
    assert [item.name for item in made] == ["x_7d", "x_28d", "x_28d_before", "x_84d"]
    assert words.sentence(made[2], 3.0, None, "EUR") == "3 in the 28 days before the last 28"
    assert Feature("x_28d", "count", stream="usage", window_days=28, unit="count", compare="x_28d_before",
                   says="{value} in the last {window} days",
                   against="{compared} in the {window} days before") == made[1]
