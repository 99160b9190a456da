"""The HubSpot connector: which portal it is, and what must be there. What every connector must do is in the suite."""

import datetime as dt

import pytest
from hubspot_steps import items, poll, states
from small_clock import Clock
from small_tasks import task

from churnkit.outreach.crm.base import CrmDeniedError
from churnkit.outreach.crm.hubspot_fields import FIELDS, KEY
from churnkit.testing.server import Reply


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
