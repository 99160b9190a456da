"""The HubSpot connector writes: each field where people look for it, each task linked, what is theirs left theirs."""

import contextlib
import datetime as dt

import pytest
from hubspot_steps import MEANT, items, known, properties, states
from hubspot_world import BAD
from small_clock import Clock
from small_tasks import AT, task

from churnkit.outreach.crm.base import CrmDownError, CrmRefusedError, Item
from churnkit.outreach.crm.hubspot_fields import moment
from churnkit.outreach.outbox import Outbox
from churnkit.outreach.sync import sync
from churnkit.outreach.task import Task
from churnkit.testing.server import Reply
from churnkit.testing.world import OWNERS


def test_a_task_as_people_see_it(world):
    """Each field of a task stands where HubSpot's users look for it."""
    one = task(0, body="Why: <b>use & cost</b>\nNext: ring", title="Call\nA00 \u202eevil", priority="normal")
    world.connect().write(items(one))
    held = properties(world, one.key)
    assert held["hs_task_body"] == "Why: &lt;b&gt;use &amp; cost&lt;/b&gt;<br>Next: ring"
    assert {name: held[name] for name in (
        "hs_task_subject", "hs_task_type", "hs_task_priority", "hs_task_status", "churnkit_account", "churnkit_play",
        "churnkit_score", "churnkit_hash")} == {
        "hs_task_subject": "Call A00 evil", "hs_task_type": "CALL", "hs_task_priority": "MEDIUM",
        "hs_task_status": "NOT_STARTED", "churnkit_account": "A00", "churnkit_play": "save_call",
        "churnkit_score": "0.400000", "churnkit_hash": one.content_hash()}
    assert "<" not in held["churnkit_content"]
    assert world.texts(one.key)[1] == one.body


def test_a_lost_ledger_can_be_made_anew(world):
    """What HubSpot keeps of a task gives the same content hash again, and holds nothing that is churnkit's alone."""
    one = task(0, cause="use", effect=0.1, asset_ids=("M1",), body="Ärger & <Streit>")
    crm = world.connect()
    crm.write(items(one))
    content = crm.find([one.key])[one.key].content
    assert Task.from_dict(dict(content)).content_hash() == one.content_hash()
    assert {"cause", "effect", "status", "approval", "ghost"} & set(content) == set()


@pytest.mark.parametrize("spoilt", ["{", "[]", '{"key": "another"}', ""])
def test_a_spoilt_copy_is_no_copy(world, spoilt):
    """A copy that somebody edited is not believed, and the task is understood all the same."""
    crm = world.connect()
    crm.write(items(task(0)))
    [there] = world.tasks()
    world.fake.store.update_task(there.remote_id, {"churnkit_content": spoilt}, world.fake.now())
    found = crm.find([task(0).key])[task(0).key]
    assert (found.content, found.problem, found.status) == (None, "", "open")


@pytest.mark.parametrize("zone", ["US/Eastern", "Pacific/Honolulu", "Europe/Berlin", "Pacific/Kiritimati", "nowhere"])
@pytest.mark.parametrize("due", [dt.date(2026, 3, 8), dt.date(2026, 11, 6)])
def test_a_due_date_is_the_same_day_again(world, zone, due):
    """In any portal a due date comes back as it went."""
    world.fake.portal["timeZone"] = zone
    crm = world.connect()
    crm.check()
    crm.write(items(task(0, due=due)))
    assert crm.find([task(0).key])[task(0).key].due == due


def test_a_due_date_is_the_same_day_in_europe_and_america(world):
    """Whoever looks at it from the other side of the ocean sees the same date."""
    from zoneinfo import ZoneInfo

    world.connect().write(items(task(0)))
    there = moment(properties(world, task(0).key)["hs_timestamp"])
    days = {there.astimezone(ZoneInfo(zone)).date() for zone in (
        "Pacific/Honolulu", "US/Pacific", "US/Eastern", "America/Sao_Paulo", "Europe/London", "Europe/Helsinki")}
    assert days == {task(0).due}


def test_a_task_is_linked_once(world):
    """One link to the company and, where the map names one, one to the contact; an update makes no other."""
    store = world.fake.store
    person, company = store.contact().id, {one.properties["churnkit_account_id"]: one.id for one in
                                           store.live("companies")}
    (world.folder / "crm_map.csv").write_text(f"kind,id,crm_id\ncontact,C1,{person}\n", encoding="utf-8")
    crm, tasks = world.connect(), (task(0, contact_id="C1"), task(1, contact_id="C2"))
    crm.write(items(*tasks))
    crm.write(known(crm, *tasks))
    assert [one.links for one in store.live("tasks")] == [
        ((192, company["A00"]), (204, person)), ((192, company["A01"]),)]


@pytest.mark.parametrize("unique", [True, False])
def test_an_account_without_a_company_is_refused_alone(portal, unique):
    """The others of the batch go through, and the reason names the row that mends it."""
    world = portal(unique_companies=unique)
    results = {one.key: one for one in world.connect().write(items(task(0), task(99)))}
    assert (results[task(0).key].state, results[task(99).key].state) == ("written", "refused")
    assert "account 'A99' has no company in HubSpot whose 'churnkit_account_id' is that" in results[task(99).key].why
    assert "account,A99,<id in the CRM>" in results[task(99).key].why


def test_an_account_of_two_companies_is_refused(portal):
    """Nobody can say which of them is meant, so none is taken."""
    world = portal(unique_companies=False)
    world.fake.store.company("Second", churnkit_account_id="A00")
    [result] = world.connect().write(items(task(0)))
    assert (result.state, "belongs to 2 companies in HubSpot" in result.why) == ("refused", True)


def test_accounts_differ_by_upper_and_lower_case(portal):
    """HubSpot's search does not care, so the connector does: a01 is not A01."""
    world = portal(unique_companies=False)
    [result] = world.connect().write(items(task(1, account_id="a01")))
    assert result.state == "refused"


def test_companies_are_looked_up_once(world):
    """A second batch of the same accounts asks for owners and companies no more."""
    crm = world.connect()
    crm.write(items(task(0), task(1)))
    before = len(world.server.seen)
    crm.write(items(task(0, key="a" * 40), task(1, key="b" * 40)))
    assert [path for _, path, _ in world.server.seen[before:]] == ["/crm/v3/objects/tasks/batch/create"]


@pytest.mark.parametrize("email", [OWNERS[-1], "nobody@us.example"])
def test_an_owner_who_is_not_there_is_refused(world, email):
    """Neither who left nor who never came gets a task, nor does anybody in their place."""
    [result] = world.connect().write(items(task(0, owner=email)))
    assert result.state == "refused"
    assert f"owner '{email}' is no active owner in HubSpot. Mend it there, or add the row owner,{email}" in result.why
    assert world.tasks() == []


def test_the_map_says_who_stands_for_an_owner(world):
    """An owner by the table, there and back; one whom it names and who left is refused."""
    eve, gone = world.fake.store.owners[1]["id"], world.fake.store.owners[2]["id"]
    (world.folder / "crm_map.csv").write_text(
        f"kind,id,crm_id\nowner,Ann@old.example,{eve}\nowner,x@old.example,{gone}\n", encoding="utf-8")
    crm, one, other = world.connect(), task(0, owner="ann@OLD.example"), task(1, owner="x@old.example")
    results = {result.key: result for result in crm.write(items(one, other))}
    assert (results[one.key].state, results[other.key].state) == ("written", "refused")
    assert f"stands for '{gone}' in" in results[other.key].why
    assert "which is no active owner in HubSpot" in results[other.key].why
    assert [there.owner for there in world.tasks()] == [OWNERS[1]]
    assert crm.find([one.key])[one.key].owner == "ann@old.example"


def test_who_left_is_still_named(world):
    """A task of an owner who has left says whose it was; of one nobody knows it says the number."""
    crm = world.connect()
    crm.write(items(task(0), task(1)))
    first, second = world.fake.store.live("tasks")
    first.properties["hubspot_owner_id"], second.properties["hubspot_owner_id"] = world.fake.store.owners[2]["id"], "9"
    found = crm.find([task(0).key, task(1).key])
    assert [found[task(n).key].owner for n in (0, 1)] == [OWNERS[-1], "HubSpot owner 9"]


def test_many_owners_are_read_to_the_end(world):
    """An owner on the third page is found."""
    for n in range(1200):
        world.fake.store.owner(f"o{n}@us.example")
    assert states(world.connect().write(items(task(0, owner="o1199@us.example")))) == {task(0).key: "written"}


def test_a_key_that_is_there_is_in_doubt(world):
    """A second create makes no second task, and the others of the batch are written."""
    crm = world.connect()
    crm.write(items(task(0)))
    assert states(crm.write(items(task(0), task(1)))) == {task(0).key: "doubt", task(1).key: "written"}
    assert len(world.tasks()) == 2


def test_a_key_that_is_there_may_fail_the_whole_batch(world):
    """Where HubSpot refuses a batch for it the engine is told so; a row alone is in doubt."""
    crm = world.connect()
    crm.write(items(task(0)))
    world.fake.multi_status = False
    with pytest.raises(CrmRefusedError, match="409"):
        crm.write(items(task(1), task(0), task(2)))
    assert states(crm.write(items(task(0)))) == {task(0).key: "doubt"}


def test_a_bad_row_fails_alone(world):
    """HubSpot tells of it by its trace id, and says why."""
    world.fail("rows")
    results = {one.key: one for one in world.connect().write(items(*(task(n) for n in range(5))))}
    assert [results[task(n).key].state for n in range(5)] == ["written"] * 3 + ["refused", "written"]
    assert "this row is bad" in results[task(3).key].why
    assert BAD == "A03"


def test_a_poison_row_is_found(world, tmp_path):
    """Through the engine: the batch that it fails is halved until it stands alone."""
    world.fail("poison")
    with contextlib.closing(Outbox(tmp_path / "o.db")) as box:
        box.put([task(n) for n in range(8)], at=AT)
        report = sync(box, world.connect(clock := Clock()), at=AT, clock=clock, rules=MEANT)
    assert (report.created, report.refused, len(world.tasks())) == (7, 1, 7)


@pytest.mark.parametrize("reply", [{"status": "COMPLETE", "results": []}, {}, {"results": [{"id": "1"}, 5, {}]},
                                   {"results": "none", "errors": [{"context": 5}, {"category": "X"}]}])
def test_a_row_that_the_reply_leaves_out_is_in_doubt(world, reply):
    """What HubSpot does not say is not known: the engine looks it up."""
    crm = world.connect()
    crm.check()
    world.fake._contract = None
    world.fake._create = lambda _: Reply(201, reply)
    world.fake._routes[1] = (*world.fake._routes[1][:3], world.fake._create)
    assert states(crm.write(items(task(0), task(1)))) == {task(0).key: "doubt", task(1).key: "doubt"}


@pytest.mark.parametrize("reply", [{}, {"results": 5}, {"results": [], "errors": [{"category": "INTERNAL_ERROR"}]}])
def test_a_question_without_an_answer_is_no_absence(world, reply):
    """What could not be looked up is not taken for missing: a second task would be made of that."""
    crm = world.connect()
    crm.check()
    world.fake._contract = None
    world.fake._routes[4] = (*world.fake._routes[4][:3], lambda _: Reply(207, reply))
    with pytest.raises(CrmDownError):
        crm.find([task(0).key])


def test_an_update_leaves_people_theirs(world):
    """Title, body, score and hash are churnkit's; owner, due date, status and answer stay as people left them."""
    crm = world.connect()
    crm.write(items(task(0)))
    world.person(task(0).key, AT, owner=OWNERS[1], due=dt.date(2027, 1, 4), status="in_progress", note="calling")
    new = task(0, title="Call now", body="Why: gone.", score=None, owner="ann@us.example")
    [result] = crm.write(known(crm, new))
    found, held = crm.find([new.key])[new.key], properties(world, new.key)
    assert result.state == "written"
    assert (held["hs_task_subject"], held["hs_task_body"], held.get("churnkit_score")) == (
        "Call now", "Why: gone.", None)
    assert (found.content_hash, found.owner, found.due, found.status, found.note) == (
        new.content_hash(), OWNERS[1], dt.date(2027, 1, 4), "in_progress", "calling")
    assert found.by == OWNERS[0]


def test_nothing_is_asked_after_a_write(world, monkeypatch):
    """A question that failed then would look as if nothing had been written: people go by what is known of them."""
    import fake_hubspot

    crm, told = world.connect(), fake_hubspot._told
    crm.write(items(task(0)))
    update = known(crm, task(0))
    world.fake.store.live("tasks")[0].properties["hubspot_owner_id"] = world.fake.store.owners[2]["id"]
    monkeypatch.setattr(fake_hubspot, "_told", lambda one, _: told(one, list(one.properties)))
    for forgotten in (False, True):
        if forgotten:
            crm.close()
        assert states(crm.write(update)) == {task(0).key: "written"}
        assert world.server.seen[-1][1].endswith("/batch/update")


def test_a_deleted_task_is_gone(world):
    """An update makes no new one, of one row as of many; the key is free again for a repair."""
    crm = world.connect()
    crm.write(items(task(0), task(1)))
    update = known(crm, task(0), task(1))
    world.delete(task(0).key)
    assert states(crm.write(update)) == {task(0).key: "gone", task(1).key: "written"}
    world.fake.multi_status = False
    assert states(crm.write(update[:1])) == {task(0).key: "gone"}
    assert crm.find([task(0).key]) == {}
    assert states(crm.write(items(task(0)))) == {task(0).key: "written"}


CLOSINGS = [("open", "dismissed", "no cause"), ("in_progress", "in_progress", None), ("snoozed", "snoozed", None),
            ("completed", "completed", None)]


@pytest.mark.parametrize(("touched", "status", "note"), CLOSINGS)
def test_closing_spares_what_people_touched(world, touched, status, note):
    """A task is closed where nobody began with it, and nowhere else."""
    crm = world.connect()
    crm.write(items(task(0)))
    world.person(task(0).key, AT, status=touched)
    assert states(crm.write(known(crm, task(0), closing="no cause"))) == {task(0).key: "written"}
    found = crm.find([task(0).key])[task(0).key]
    assert (found.status, found.note) == (status, note)


STATUSES = [("NOT_STARTED", "", "open"), ("IN_PROGRESS", "", "in_progress"), ("WAITING", "", "snoozed"),
            ("DEFERRED", "", "snoozed"), ("COMPLETED", "", "completed"), ("COMPLETED", "dismissed", "dismissed"),
            ("COMPLETED", "open", "completed"), ("IN_PROGRESS", "dismissed", "in_progress"),
            ("NOT_STARTED", "dismissed", "dismissed"), ("NOT_STARTED", "completed", "completed")]


@pytest.mark.parametrize(("theirs", "outcome", "ours"), STATUSES)
def test_what_a_status_means(world, theirs, outcome, ours):
    """HubSpot's own status says it, and the outcome what that cannot say."""
    crm = world.connect()
    crm.write(items(task(0)))
    [there] = world.tasks()
    world.fake.store.update_task(there.remote_id, {"hs_task_status": theirs, "churnkit_status": outcome},
                                 world.fake.now())
    assert crm.find([task(0).key])[task(0).key].status == ours


@pytest.mark.parametrize(("name", "word"), [("hs_task_status", "HELD"), ("churnkit_disposition", "ours")])
def test_a_word_that_nobody_knows_is_a_problem(world, name, word):
    """A portal's own status or disposition is told with the words that are known, and closes nothing."""
    crm = world.connect()
    crm.write(items(task(0)))
    world.fake.store.live("tasks")[0].properties[name] = word
    found = crm.find([task(0).key])[task(0).key]
    assert f"its {name} '{word}' is not known. Use one of: " in found.problem
    crm.write([Item(task(0), task(0).content_hash(), found.remote_id, "no cause")])
    assert properties(world, task(0).key)[name] == word
    assert "churnkit_status" not in properties(world, task(0).key)
