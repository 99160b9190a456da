"""The HubSpot connector polls: no change left out, however many there are, and none read for ever."""

import datetime as dt

import pytest
from hubspot_steps import items, poll, properties, searches, states
from small_clock import Clock
from small_tasks import AT, task

from churnkit.outreach.crm.base import CrmDownError
from churnkit.outreach.crm.hubspot_fields import KEY
from churnkit.testing.server import Reply


def test_more_changes_than_a_search_can_tell(world):
    """Beyond HubSpot's 10,000 results none is left out, and the pages come in the order of the changes."""
    made = fill(world, 10_050, lambda n: 1_700_000_000_000 + n // 3)
    world.fake._contract = None
    pages = list(world.connect().changes(None))
    told = [one for page in pages for one in page.remotes]
    assert {one.key for one in told} == made
    assert [one.modified_at for one in told] == sorted(one.modified_at for one in told)
    assert pages[-2].cursor == str(1_700_000_000_000 + 10_049 // 3)


def test_more_changes_in_one_tick_than_a_page(world):
    """An import that gives 250 tasks the same moment hides none of them, nor what came after."""
    made = fill(world, 260, lambda n: 1_700_000_000_000 + (n >= 250))
    *pages, last = world.connect().changes(None)
    assert ({one.key for page in pages for one in page.remotes}, pages[-1].cursor) == (made, "1700000000001")
    assert last.remotes == []


def fill(world, count, when):
    """Tasks in the portal that came at these milliseconds."""
    keys = {f"{n:040x}" for n in range(count)}
    for n, key in enumerate(sorted(keys)):
        world.fake.store._add("tasks", {KEY: key, "hs_task_status": "NOT_STARTED"}, when(n), ())
    return keys


def test_a_change_between_two_pages_hides_nothing(world):
    """While the second page is asked for a task of the first one is changed: every task is told all the same."""
    made = fill(world, 300, lambda n: 1_700_000_000_000 + n * 600_000)
    told, crm = set(), world.connect()
    for page in crm.changes(None):
        told |= {one.key for one in page.remotes}
        if not page.remotes:
            break
        world.fake.store.update_task(page.remotes[0].remote_id, {"churnkit_note": "x"}, world.fake.now())
    assert told == made


def test_two_changes_in_one_tick_are_both_told(world):
    """The cursor stands on a tick, and what else came in that tick is told by the next poll."""
    crm = world.connect(Clock())
    crm.write(items(task(0), task(1)))
    world.person(task(0).key, AT + dt.timedelta(hours=1), note="first")
    told, cursor = poll(crm, None)
    assert {one.key for one in told} == {task(0).key, task(1).key}
    world.person(task(1).key, AT + dt.timedelta(hours=1), note="second")
    told, again = poll(crm, cursor)
    assert ({one.key: one.note for one in told}, again) == ({task(0).key: "first", task(1).key: "second"}, cursor)


def test_a_quiet_day_is_not_read_again(world):
    """Once HubSpot's own time is past the overlap a poll tells nothing, and the cursor goes on and never back."""
    clock = Clock()
    crm = world.connect(clock)
    crm.write(items(*(task(n) for n in range(30))))
    told, cursor = poll(crm, None)
    assert len(told) == 30
    clock.sleep(301)
    told, later = poll(crm, cursor)
    assert (len(told), int(later) - int(cursor)) == (30, 301_000)
    world.person(task(7).key, clock.now(), note="late")
    before = len(searches(world))
    assert [one.note for one in poll(crm, later)[0]] == ["late"]
    assert len(searches(world)) == before + 1
    assert poll(crm, "1893456000000") == ([], "1893456000000")


def test_a_portal_that_tells_no_time_is_polled_by_its_changes(world):
    """Then the cursor is the newest change, or none."""
    crm = world.connect()
    crm.check()
    world.fake._contract, read = None, world.fake._routes[4]
    world.fake._routes[4] = (*read[:3], lambda _: Reply(200, {"results": [], "completedAt": "soon"}))
    assert poll(crm, "1793512800000") == ([], "1793512800000")


def test_other_peoples_tasks_are_left_alone(world):
    """A task without a key of ours is never told."""
    world.fake.store._add("tasks", {"hs_task_subject": "Mine"}, world.fake.now(), ())
    crm = world.connect()
    crm.write(items(task(0)))
    assert [one.key for one in poll(crm, None)[0]] == [task(0).key]


def test_removing_takes_away_and_may_be_repeated(world):
    """What `churnkit crm test` leaves behind is put into the recycling bin."""
    crm = world.connect()
    [one] = crm.write(items(task(0)))
    for _ in range(2):
        crm.remove([one.remote.remote_id, one.remote.remote_id])
    assert world.tasks() == []


@pytest.mark.parametrize("fault", ["dropped_after", "502", "slow", "429"])
def test_removing_is_only_ever_down(world, fault):
    """It may be done twice, so that nothing is in doubt."""
    crm = world.connect()
    [one] = crm.write(items(task(0)))
    world.server.writes = lambda request: request.path.endswith("/archive")
    world.fail(fault)
    with pytest.raises(CrmDownError):
        crm.remove([one.remote.remote_id])
    crm.remove([one.remote.remote_id])
    assert world.tasks() == []


def test_a_body_longer_than_hubspot_takes(world):
    """It is cut and says so, and goes without the copy that would be too long; the task itself is as good as any."""
    one = task(0, body="& " * 40_000)
    crm = world.connect()
    assert states(crm.write(items(one))) == {one.key: "written"}
    found = crm.find([one.key])[one.key]
    assert (found.content, found.content_hash) == (None, one.content_hash())
    assert len(properties(world, one.key)["hs_task_body"]) <= 65_000
    assert world.texts(one.key)[1].endswith(" [...]")
