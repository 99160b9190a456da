"""The rate budget: never above the limit, near it when there is much to send; and a CRM that wants to be left alone."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_clock import Clock
from small_tasks import AT, task

from churnkit.outreach.budget import Budget
from churnkit.outreach.crm.base import Capabilities, CrmDownError, Rate
from churnkit.outreach.crm.memory import MemoryCrm
from churnkit.outreach.outbox import Outbox
from churnkit.outreach.sync import sync

DAY = dt.timedelta(days=1)


def most(times, seconds):
    """The most of these times that any closed span of so many seconds holds, by trying each as its beginning."""
    return max(sum(start <= one <= start + seconds for one in times) for start in times) if times else 0


@settings(max_examples=150, deadline=None)
@given(requests=st.integers(1, 60), seconds=st.floats(0.5, 20), steps=st.lists(
    st.tuples(st.sampled_from(["burst", "rest", "killed", "back"]), st.floats(0, 25)), min_size=1, max_size=12))
def test_never_above_the_limit(requests, seconds, steps):
    """Bursts, rests, kills with a new run at once, and a wall clock that steps back: no span holds too many."""
    clock, times = Clock(), []
    rate = Rate(requests, seconds)
    budget = Budget(None, "x", rate, clock)
    for what, size in steps:
        if what == "rest":
            clock.sleep(size)
        elif what == "killed":
            budget = Budget(None, "x", rate, clock)
        elif what == "back":
            clock.time -= dt.timedelta(seconds=size)
        for _ in range(int(size * 3) if what == "burst" else 1):
            budget.spend()
            times.append(clock.monotonic())
    assert most(times, seconds) <= requests


@pytest.mark.parametrize(("requests", "seconds"), [(100, 10), (190, 10), (5, 1)])
def test_near_the_limit(requests, seconds):
    """A long run gets at least 90% of what the limit allows, or all but one where the limit is small."""
    clock = Clock()
    budget = Budget(None, "x", Rate(requests, seconds), clock)
    for _ in range(20 * requests):
        budget.spend()
    assert 20 * requests / clock.monotonic() >= min(0.9, (requests - 1) / requests) * requests / seconds * 0.99


def test_a_sync_stays_within_the_limit(outbox):
    """Every operation of a run is counted, and a second run at once after it is too."""
    clock, times = Clock(), []

    def counted(call):
        def counting(*args):
            found = call(*args)
            found = list(found) if isinstance(found, Iterator) else found
            times.append(clock.monotonic())
            return found
        return counting

    crm = MemoryCrm(Capabilities(batch=1, rate=Rate(10, 10)))
    outbox.put([task(n) for n in range(30)], at=AT)
    for name in ("check", "find", "write", "changes"):
        setattr(crm, name, counted(getattr(crm, name)))
    assert sync(outbox, crm, at=AT, clock=clock).created == 30
    assert sync(outbox, crm, at=AT, clock=clock).writes == 0
    assert len(times) >= 34
    assert most(times, 10) <= 10


def test_the_days_quota_ends_the_run_in_order(outbox):
    """What it allows is sent and not one request more; the next run of the day asks nothing; the next day goes on."""
    clock = Clock()
    crm = MemoryCrm(Capabilities(batch=1, rate=Rate(1000, 1, daily=10)))
    outbox.put([task(n) for n in range(12)], at=AT)
    first = sync(outbox, crm, at=AT, clock=clock)
    assert "10 requests of 2026-11-01 are spent" in first.problems[0]
    assert 0 < first.created <= 8
    assert first.again == 12 - first.created
    assert {entry.state for entry in outbox.pending()} == {"pending"}
    clock.time -= dt.timedelta(hours=8)  # the clock steps back over midnight: that is no new day
    crm.spend = None
    again = sync(outbox, crm, at=AT, clock=clock)
    assert (again.created, "left alone until 2026-11-02" in again.problems[0]) == (0, True)
    clock.time = AT + DAY
    crm.capabilities = replace(crm.capabilities, rate=Rate(1000, 1, daily=14))  # looking for what was sent costs too
    assert sync(outbox, crm, at=AT + DAY, clock=clock).created > 0
    clock.time = AT + 2 * DAY
    sync(outbox, crm, at=AT + 2 * DAY, clock=clock)
    assert sorted(one.key for one in crm.tasks) == sorted(task(n).key for n in range(12))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(daily=st.integers(1, 130), runs=st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=6))
def test_the_quota_holds_over_runs_and_kills(tmp_path_factory, daily, runs):
    """However many runs there are in a day, and however they end, no more is asked; without kills, no less."""
    box = Outbox(tmp_path_factory.mktemp("quota") / "outbox.db")
    clock, asked = Clock(), 0
    for wanted, killed in runs:
        budget = Budget(box.engine, "x", Rate(1000, 1, daily), clock)
        for _ in range(wanted):
            try:
                budget.spend()
            except CrmDownError:
                break
            asked += 1
        if not killed:
            budget.done()
    assert asked <= daily
    if not any(killed for _, killed in runs):
        assert asked == min(daily, sum(wanted for wanted, _ in runs))
    box.close()


@pytest.mark.parametrize(("wait", "today", "until"), [
    (30.0, True, None), (3600.0, True, "2026-11-01T07:00"), (None, False, "2026-11-02T00:00"),
    (90000.0, False, "2026-11-02T07:00")])
def test_retry_after_is_honoured(outbox, wait, today, until):
    """A short wait is waited for in the run, to its end; a long one by the runs after it."""
    clock, crm = Clock(), MemoryCrm()
    outbox.put([task(0)], at=AT)
    create, calls = crm.write, []

    def refuse_once(items):
        calls.append(clock.now())
        if len(calls) == 1:
            raise CrmDownError("429", wait=wait, today=today)
        return create(items)

    crm.write = refuse_once
    report = sync(outbox, crm, at=AT, clock=clock)
    if until is None:
        assert (report.created, report.problems) == (1, [])
        assert calls[1] - calls[0] >= dt.timedelta(seconds=wait)
        return
    assert report.created == 0
    assert until in sync(outbox, crm, at=AT, clock=clock).problems[0]
    assert len(calls) == 1
    clock.time = dt.datetime.fromisoformat(f"{until}+00:00") + dt.timedelta(minutes=1)
    assert sync(outbox, crm, at=clock.time, clock=clock).created == 1
