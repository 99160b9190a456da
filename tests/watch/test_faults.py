"""Every fault of a feed holds the targets that hang on it, on a harmed workspace and by the real computation."""

from __future__ import annotations

import pandas as pd
import pytest
from conftest import AT

DAYS = 2
"""How many of the last days are harmed."""


def lately(usage, days=DAYS):
    """The rows of the last whole days before AT, and of those alone."""
    return (usage["occurred_at"] >= AT - pd.Timedelta(days=days)) & (usage["occurred_at"] < AT)


def third(usage):
    """The rows of a third of the accounts."""
    return usage["account_id"].str[-2:].astype(int) % 3 == 0


def missing_day(usage, where):
    """No rows on the last day that is harmed."""
    return usage[~(where & (usage["occurred_at"] >= AT - pd.Timedelta(days=1)))]


def dropped_partition(usage, where):
    """A third of the accounts is not in the export."""
    return usage[~(where & third(usage))]


def duplicated(usage, where):
    """The export was loaded twice."""
    return pd.concat([usage, usage[where]])


def renamed(usage, where):
    """An event has another name."""
    return usage.assign(event=usage["event"].mask(
        where & (usage["event"] == "report_view"), "report_opened"))


def slipped(usage, where):
    """Times are five hours early."""
    return usage.assign(occurred_at=usage["occurred_at"].mask(where, usage["occurred_at"] - pd.Timedelta(hours=5)))


def unjoined(usage, where):
    """Account ids are written in another way."""
    return usage.assign(account_id=usage["account_id"].mask(
        where, "acc-" + usage["account_id"].str[1:]))


FAULTS = {missing_day: "usage_events: 0 rows", dropped_partition: "accounts on 2026-10-2", duplicated: "stand twice",
          renamed: "'report_opened' came up", slipped: "hours", unjoined: "ids that are not known"}
SINCE_EVER = {dropped_partition: "are gone", duplicated: "loaded twice", renamed: "'report_view'", slipped: "5.0 hours "
              "earlier", unjoined: "% of the rows name ids that are known, 100.0% did"}


def test_an_unharmed_book_holds_nothing(look):
    """Neither on the first run nor on the next."""
    assert dict(look().held) == {}
    assert dict(look(AT + pd.Timedelta(days=1)).held) == {}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_of_the_last_days_holds_on_the_first_run(fault, usage, write, look, workspace):
    """The tables' own past is the history; the words name the fault, and a plot is drawn."""
    write(fault(usage, lately(usage)))
    found = look()
    assert set(found.held) == {"churn", "expansion"}
    assert FAULTS[fault] in " ".join(found.words("churn"))
    assert (workspace / "state" / "held" / "20261029T000000Z-churn.svg").stat().st_size > 5_000


@pytest.mark.parametrize("fault", SINCE_EVER, ids=lambda fault: fault.__name__)
def test_a_fault_of_all_days_holds_where_a_run_saw_them_whole(fault, usage, write, look):
    """The tables' past is harmed as well: what an earlier run saw of the same days is the history."""
    assert dict(look(AT - pd.Timedelta(days=1)).held) == {}
    write(fault(usage, usage["occurred_at"] < AT))
    found = look()
    assert set(found.held) == {"churn", "expansion"}
    assert SINCE_EVER[fault] in " ".join(found.words("churn"))


def test_a_fault_that_stays_still_holds_until_it_is_mended(usage, write, look):
    """A fault is no history for the days after it; once the feed is whole again nothing is held."""
    write(dropped_partition(usage, lately(usage, days=12)))
    assert set(look().held) == {"churn", "expansion"}
    write(usage)
    assert dict(look(AT + pd.Timedelta(days=1)).held) == {}
