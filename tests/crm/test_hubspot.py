"""The HubSpot connector: what only it does. What every connector must do stands in the conformance suite."""

import contextlib
import datetime as dt
import json
import logging
import traceback
from dataclasses import replace

import pytest
from hubspot_world import BAD, HubSpotWorld
from small_clock import Clock
from small_tasks import AT, task

from churnkit.errors import ChurnkitError, SettingsError
from churnkit.outreach.budget import Budget
from churnkit.outreach.crm.base import (
    CrmDeniedError,
    CrmDownError,
    CrmRefusedError,
    CrmUnsureError,
    Item,
    connect,
)
from churnkit.outreach.crm.hubspot_fields import FIELDS, KEY, moment
from churnkit.outreach.outbox import Outbox
from churnkit.outreach.status import Rules
from churnkit.outreach.sync import sync
from churnkit.outreach.task import Task
from churnkit.testing.server import Reply, Server
from churnkit.testing.world import CANARY, OWNERS

MEANT = Rules(portal="4242")
READS = {"check": lambda crm: crm.check(), "find": lambda crm: crm.find([task(0).key]),
         "changes": lambda crm: list(crm.changes(None))}


def items(*tasks):
    return [Item(one, one.content_hash()) for one in tasks]


def known(crm, *tasks, closing=""):
    """Updates of tasks that are there."""
    there = crm.find([one.key for one in tasks])
    return [Item(one, one.content_hash(), there[one.key].remote_id, closing) for one in tasks]


def states(results):
    return {result.key: result.state for result in results}


def properties(world, key):
    [one] = [one for one in world.fake.store.live("tasks") if one.properties.get(KEY) == key]
    return one.properties


def searches(world):
    return [path for _, path, _ in world.server.seen if path.endswith("/tasks/search")]


# Which portal, and what is missing there


def test_says_which_portal_it_is(world):
    """The portal names itself, and that it is a sandbox."""
    portal = world.connect().check()
    assert (portal.name, portal.id, portal.kind) == ("HubSpot portal 4242 (app.hubspot.com)", "4242", "sandbox")
    world.fake.portal["accountType"] = "STANDARD"
    assert world.connect().check().kind == "production"


def test_set_up_makes_what_is_missing_once(portal):
    """A look changes nothing and names what is missing; set-up makes it; a second set-up has nothing left to make."""
    world = portal(ready=False)
    crm = world.connect()
    [todo] = crm.check().todo
    assert "churnkit_key" in todo
    assert "Run: churnkit crm setup hubspot." in todo
    assert KEY not in world.fake.store.properties["tasks"]
    assert len(crm.check(mend=True).made) == len(FIELDS)
    assert world.fake.store.properties["tasks"][KEY]["hasUniqueValue"] is True
    again = crm.check(mend=True)
    assert (again.made, again.todo) == ((), ())


def test_a_new_disposition_is_added_to_those_there(world):
    """What a later version of churnkit may say is added, and what people added is kept."""
    kept = world.fake.store.properties["tasks"]["churnkit_disposition"]
    kept["options"] = [{"label": "Ours", "value": "ours", "hidden": False}, *kept["options"][2:]]
    crm = world.connect()
    assert "lacks the options saved, no_change" in crm.check().todo[0]
    assert "saved, no_change" in crm.check(mend=True).made[0]
    assert {"ours", "saved", "no_change"} <= {one["value"] for one in kept["options"]}
    assert crm.check().todo == ()


def test_a_property_of_the_wrong_type_is_for_the_administrator(world):
    """Churnkit does not touch what somebody else made."""
    world.fake.store.properties["tasks"]["churnkit_score"]["type"] = "string"
    [todo] = world.connect().check(mend=True).todo
    assert "churnkit_score on tasks is of the type string, and must be number. Delete it" in todo


SCOPES = ["crm.objects.contacts.read", "crm.objects.contacts.write", "crm.objects.companies.read",
          "crm.objects.owners.read", "crm.schemas.contacts.read", "crm.schemas.companies.read"]


@pytest.mark.parametrize("scope", SCOPES)
def test_a_missing_scope_is_named(world, scope):
    """The administrator reads which scope to add, and where."""
    world.fake.scopes.discard(scope)
    [todo] = world.connect().check().todo
    assert f"Add the scope {scope} (to " in todo
    assert "Settings, Integrations, Private Apps, Scopes; then set CHURNKIT_HUBSPOT_TOKEN anew." in todo


def test_all_missing_scopes_are_named_at_once(world):
    """Nobody has to run set-up six times."""
    world.fake.scopes.clear()
    assert [scope for scope in SCOPES if any(f" {scope} " in todo for todo in world.connect().check().todo)] == SCOPES


def test_set_up_without_its_scope_names_that(portal):
    """What may be looked at and not be made is told, and nothing is raised."""
    world = portal(ready=False)
    world.fake.scopes.discard("crm.schemas.contacts.write")
    assert any("crm.schemas.contacts.write" in todo for todo in world.connect().check(mend=True).todo)


def test_a_missing_scope_stops_a_write(world):
    """Nothing is written, and the scope is named there too."""
    crm = world.connect()
    crm.check()
    world.fake.scopes.discard("crm.objects.contacts.write")
    with pytest.raises(CrmDeniedError, match=r"Add to the private app the scope crm\.objects\.contacts\.write"):
        crm.write(items(task(0)))
    assert world.tasks() == []


@pytest.mark.parametrize(("status", "words"), [(403, "does not tell this token which portal"), (404, "Mend .*host")])
def test_a_portal_that_does_not_say_who_it_is(world, status, words):
    """Without a portal's id nothing may be written, and the message says what to mend."""
    answer = world.fake._routes[0]
    body = {"status": "error", "category": "OTHER", "message": "no", "correlationId": "0" * 8 + "-0000-4000-8000-"
            + "0" * 12}
    world.fake._routes[0] = (*answer[:3], lambda _: Reply(status, body))
    with pytest.raises(CrmDeniedError, match=words):
        world.connect().check()


def test_the_companies_property_is_made_or_asked_for(world):
    """Where companies hold no account id set-up makes the property and says how it is filled."""
    del world.fake.store.properties["companies"]["churnkit_account_id"]
    world.fake.store.groups["companies"].discard("churnkit")
    crm = world.connect()
    assert "Companies have no property churnkit_account_id" in crm.check().todo[0]
    assert "Fill it with the account ids" in crm.check(mend=True).made[0]
    assert crm.check().todo == ()


def test_the_map_alone_is_enough(world):
    """Where crm_map.csv names companies the portal needs no such property."""
    del world.fake.store.properties["companies"]["churnkit_account_id"]
    company = next(iter(world.fake.store.objects["companies"]))
    (world.folder / "crm_map.csv").write_text(f"kind,id,crm_id\naccount,A00,{company}\n", encoding="utf-8")
    crm = world.connect()
    assert crm.check().todo == ()
    assert states(crm.write(items(task(0), task(1)))) == {task(0).key: "written", task(1).key: "refused"}


# A portal that allows no unique properties on tasks


def test_without_unique_keys_it_says_so(portal):
    """The property is made plain, and the engine is told that a key guards nothing and may be seen late."""
    world = portal(ready=False, unique_tasks=False)
    crm = world.connect()
    assert "allows no unique property on tasks, so churnkit_key is made plain" in crm.check(mend=True).made[0]
    assert (crm.capabilities.unique_keys, crm.capabilities.lag) == (False, dt.timedelta(seconds=30))
    assert crm.check().todo == ()


def test_without_unique_keys_it_finds_by_search(portal):
    """More tasks than a page are found, one of each key, the oldest."""
    world = portal(unique_tasks=False)
    tasks = [task(n, key=f"{n:040x}", account_id="A01") for n in range(100)]
    crm = world.connect()
    crm.write(items(*tasks))
    crm.write(items(*tasks))
    found = crm.find([one.key for one in tasks])
    assert len(world.tasks()) == 200
    oldest = {one.key: one.remote_id for one in reversed(world.tasks())}
    assert {key: one.remote_id for key, one in found.items()} == oldest


def test_an_index_that_lags_is_caught_up(portal):
    """A change that a search did not see yet is told by the next poll, though the cursor has gone past it."""
    world, clock = portal(unique_tasks=False), Clock()
    crm = world.connect(clock)
    crm.write(items(task(0)))
    clock.sleep(60)
    crm.write(items(task(1)))
    clock.sleep(5)
    world.fake.index_lag = 20
    told, cursor = poll(crm, None)
    assert [one.key for one in told] == [task(0).key]
    clock.sleep(60)
    assert task(1).key in {one.key for one in poll(crm, cursor)[0]}


# Writing


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


# Changes


def poll(crm, since):
    """What one poll tells, and the cursor after it."""
    pages = list(crm.changes(since))
    return [one for page in pages for one in page.remotes], pages[-1].cursor


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


# Faults


BODIES = [(502, CrmUnsureError, CrmDownError), (400, CrmRefusedError, CrmDeniedError),
          (201, CrmUnsureError, CrmDownError), (401, CrmDeniedError, CrmDeniedError)]


@pytest.mark.parametrize(("status", "written", "asked"), BODIES)
@pytest.mark.parametrize("body", [b"\xff\xfe\x00", b"[1]", b"5", b'{"message": 5}\xff', b"<html>"])
def test_a_reply_that_is_no_text_is_known_by_its_status(world, status, written, asked, body):
    """The client stumbles over such a body; what the status says counts all the same."""
    crm = world.connect()
    crm.check()
    crm.write(items(task(1)))
    world.fake._contract, answer = None, world.fake._answer
    world.fake._answer = lambda request: Reply(status, body) if request.path.endswith("/create") else answer(request)
    wrong = crm.write if status != 400 else lambda batch: crm.write([*batch, *items(task(0))])
    with pytest.raises(written):
        wrong(items(task(1, key="a" * 40)))
    world.fake._answer = lambda _: Reply(status, body)
    with pytest.raises(asked):
        crm.find([task(0).key])


@pytest.mark.parametrize("fault", ["dropped_before", "dropped_after", "lost", "502", "504", "slow", "malformed"])
@pytest.mark.parametrize("update", [False, True])
def test_a_write_without_a_clear_reply_is_unsure(world, fault, update):
    """It may have been done: it is not sent a second time, and the error tells nothing but that."""
    crm = world.connect()
    crm.write(items(task(1)))
    batch = known(crm, task(1)) if update else items(task(0))
    before = world.writes()
    world.fail(fault)
    with pytest.raises(CrmUnsureError):
        crm.write(batch)
    assert world.writes() - before == (fault != "dropped_before")


@pytest.mark.parametrize("fault", ["503", "429", "429_bare", "quota", "refused", "expired"])
def test_a_write_that_was_not_done_is_down(world, fault):
    """Nothing was written; how long to wait, and whether today at all, is told as HubSpot tells it."""
    crm = world.connect()
    crm.check()
    crm.write(items(task(1)))
    world.fail(fault)
    with pytest.raises(CrmDownError) as down:
        crm.write(items(task(0)))
    assert (down.value.wait, down.value.today) == (2.0 if fault == "429" else None, fault != "quota")
    assert isinstance(down.value, CrmDeniedError) == (fault == "expired")
    assert [one.key for one in world.tasks()] == [task(1).key]
    world.heal()
    assert states(crm.write(items(task(0)))) == {task(0).key: "written"}


@pytest.mark.parametrize("fault", ["dropped_before", "dropped_after", "lost", "502", "503", "504", "429", "slow",
                                   "malformed"])
@pytest.mark.parametrize("ask", READS)
def test_a_question_that_fails_is_down(world, fault, ask):
    """Asking leaves no doubt behind: it may be asked again."""
    crm = world.connect()
    crm.check()
    world.server.writes = lambda _: True
    world.fail(fault)
    with pytest.raises(CrmDownError):
        READS[ask](crm)


def test_a_spent_quota_in_the_midst_of_a_call_writes_nothing(world):
    """The budget is asked before each request, also by what looks owners and companies up."""
    crm, left = world.connect(), [0]

    def spend():
        if left[0] <= 0:
            raise CrmDownError("spent", today=False)
        left[0] -= 1

    crm.spend = spend
    for allowed in range(4):
        left[0] = allowed
        with pytest.raises(CrmDownError, match="spent"):
            crm.write(items(task(0)))
        crm.close()
    assert (world.tasks(), left) == ([], [0])
    left[0] = 4
    assert states(crm.write(items(task(0)))) == {task(0).key: "written"}


def test_every_request_is_paid_for(world):
    """No request goes out without the budget's leave, and a search costs two: HubSpot allows five a second."""
    crm, paid = world.connect(), []
    crm.spend = lambda: paid.append(1)
    before = len(world.server.seen)
    crm.check()
    crm.write(items(task(0)))
    crm.find([task(0).key])
    list(crm.changes(None))
    crm.remove([world.tasks()[0].remote_id])
    asked = world.server.seen[before:]
    assert len(paid) == len(asked) + len(searches(world))


@pytest.mark.parametrize("unique", [True, False])
def test_the_limit_is_kept_and_used(portal, tmp_path, unique):
    """With the engine's budget HubSpot never has to refuse a request, by a search neither."""
    world, clock = portal(unique_tasks=unique), Clock()
    world.fake.limit, crm = True, world.connect(clock)
    with contextlib.closing(Outbox(tmp_path / "o.db")) as box:
        budget = Budget(box.engine, "hubspot", crm.capabilities.rate, clock)
        crm.spend, began = budget.spend, clock.monotonic()
        tasks = [task(n % 30, key=f"{n:040x}") for n in range(600)]
        for n in range(200):
            crm.write(items(*tasks[3 * n:3 * n + 3]))
            crm.find([tasks[3 * n].key])
    asked = 400 if unique else 600  # a search is paid twice
    assert world.fake.refused == 0
    assert world.fake.peak <= 100
    assert asked / (clock.monotonic() - began) >= 9


# Secrets and hosts


def shown(error):
    """All that a traceback can show of an error, with the variables of every frame of the whole chain."""
    text, one, seen = [], error, set()
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        text.append("".join(traceback.TracebackException.from_exception(one, capture_locals=True).format()))
        text.append(repr(one) + repr(one.args) + repr(vars(one)))
        one = one.__cause__ or one.__context__
    return "".join(text)


def echo(request):
    """A server that says everything back that it was sent."""
    return Reply(int(request.path.strip("/").split("/")[0] or 400) if request.path[1:4].isdigit() else 400, {
        "message": json.dumps(request.headers), "category": request.headers["authorization"],
        "context": {"requiredGranularScopes": [request.headers["authorization"]]}})


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 409, 429, 500, 503])
@pytest.mark.parametrize("what", ["write", *READS])
def test_no_error_holds_the_token(tmp_path, monkeypatch, caplog, capfd, status, what):
    """Not even where the server says it back: in no message, no chain of errors, no variable, no log, no output."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("CHURNKIT_HUBSPOT_TOKEN", CANARY)
    asked = READS.get(what, lambda crm: crm.write(items(task(0))))

    def app(request):
        found = echo(request)
        return Reply(status, found.body, {"Location": f"https://{CANARY}.example/"} if status == 302 else {})

    with Server(app) as server:
        crm = connect("hubspot", {"host": server.url, "timeout": "1"}, tmp_path)
        with pytest.raises(ChurnkitError) as failed:
            asked(crm)
        assert server.seen != []
    out, err = capfd.readouterr()
    assert CANARY not in shown(failed.value) + repr(vars(crm)) + repr(crm) + caplog.text + out + err


@pytest.mark.parametrize("fault", ["dropped_before", "lost", "502", "slow", "malformed", "refused", "expired", "quota"])
def test_no_broken_line_shows_the_token(world, caplog, fault):
    """Whatever breaks on the way: the client's own errors, which hold it, stay inside."""
    caplog.set_level(logging.DEBUG)
    crm = world.connect()
    crm.check()
    world.fail(fault)
    with pytest.raises(ChurnkitError) as failed:
        crm.write(items(task(0)))
    assert CANARY not in shown(failed.value) + caplog.text
    assert (failed.value.__cause__, failed.value.__context__) == (None, None)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("what", ["write", *READS])
def test_a_redirect_is_not_followed(world, tmp_path, status, what):
    """The token goes to no other host, and the message names that host."""
    seen = []

    def other(request):
        seen.append(request)
        return Reply(200, {})

    with Server(other) as there:
        crm = world.connect()
        crm.check()
        world.fake._contract = None
        world.fake._answer = lambda _: Reply(status, {}, {"Location": f"{there.url}/crm"})
        with pytest.raises(CrmDeniedError, match=r"redirect to http://127\.0\.0\.1: churnkit follows none"):
            READS.get(what, lambda one: one.write(items(task(0))))(crm)
    assert seen == []


@pytest.mark.parametrize("options", [
    {"host": "http://api.hubapi.com"}, {"host": "http://10.0.0.1"}, {"host": "http://localhost.evil.example"}])
def test_no_token_in_plain_sight(options, tmp_path, monkeypatch):
    """Plain HTTP is for this machine's own ear alone."""
    monkeypatch.setenv("CHURNKIT_HUBSPOT_TOKEN", CANARY)
    with pytest.raises(SettingsError, match=r"in plain sight\. Use https"):
        connect("hubspot", options, tmp_path)


WRONG = [({"acount_property": "x"}, "Did you mean 'account_property'"), ({"timeout": "0"}, "timeout = '0' is no"),
         ({"timeout": "soon"}, "is no number from"), ({"requests": "0"}, "is no number from 1"),
         ({"host": "api.hubapi.com"}, "is no address such as"), ({"host": "https://a@b.example"}, "is no address"),
         ({"host": "https://b.example/path"}, "is no address"), ({"account_property": "a b"}, "is no name of a"),
         ({"mapping": "nowhere.csv"}, "cannot be read")]


@pytest.mark.parametrize(("options", "words"), WRONG)
def test_wrong_options_say_the_mend(options, words, tmp_path, monkeypatch):
    """Each names the option, and what it must be."""
    monkeypatch.setenv("CHURNKIT_HUBSPOT_TOKEN", CANARY)
    with pytest.raises(SettingsError, match=words):
        connect("hubspot", options, tmp_path)


def test_a_missing_token_says_where_it_belongs(tmp_path, monkeypatch):
    """Into the environment, never into churnkit.toml."""
    monkeypatch.delenv("CHURNKIT_HUBSPOT_TOKEN", raising=False)
    with pytest.raises(SettingsError, match="Set CHURNKIT_HUBSPOT_TOKEN, or CHURNKIT_HUBSPOT_TOKEN_FILE"):
        connect("hubspot", {}, tmp_path)


def test_an_untrusted_certificate_is_not_spoken_to(tmp_path, monkeypatch):
    """TLS is verified: to a server that cannot prove who it is nothing is sent."""
    import ssl

    import trustme

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    monkeypatch.setenv("CHURNKIT_HUBSPOT_TOKEN", CANARY)
    with Server(lambda _: Reply(200, {}), tls=context) as server:
        crm = connect("hubspot", {"host": server.url, "timeout": "1"}, tmp_path)
        with pytest.raises(CrmDeniedError, match="certificate cannot be verified, so nothing was sent") as failed:
            crm.check()
        assert server.seen == []
    assert CANARY not in shown(failed.value)


def test_the_whole_way_through_the_engine(world, tmp_path):
    """Tasks out, answers home, a second run writes nothing."""
    clock = Clock()
    with contextlib.closing(Outbox(tmp_path / "o.db")) as box:
        box.put([task(n) for n in range(12)], at=AT)
        assert sync(box, world.connect(clock), at=AT, clock=clock, rules=MEANT).created == 12
        later = AT + dt.timedelta(days=1)
        clock.time = later
        world.person(task(0).key, later, status="completed", disposition="saved", note="all well")
        world.person(task(1).key, later, owner=OWNERS[1])
        report = sync(box, world.connect(clock), at=later, clock=clock, rules=MEANT)
        assert (report.answers, report.edits, report.writes) == (1, 1, 0)
        again = sync(box, world.connect(clock), at=later, clock=clock, rules=MEANT)
        assert (again.answers, again.edits, again.writes) == (0, 0, 0)
        [outcome] = box.outcomes()
    assert (outcome.disposition, outcome.note) == ("saved", "all well")


def test_a_world_of_its_own(tmp_path, monkeypatch):
    """A backup that is restored brings the tasks back that came since, and with them the newest change."""
    with HubSpotWorld(tmp_path, monkeypatch.setenv) as world:
        crm = world.connect()
        crm.write(items(task(0)))
        with world.back_up():
            crm.write(items(task(1)))
            world.person(task(0).key, AT, note="x")
        assert [(one.key, one.note) for one in world.tasks()] == [(task(0).key, None)]
        assert replace(world.tasks()[0]).owner == OWNERS[0]
        assert states(crm.write(items(task(1)))) == {task(1).key: "written"}
