"""The Salesforce connector's set-up: which org it is, what is missing there, and who is who."""

import datetime as dt
import subprocess
import sys

import pytest
from fake_salesforce import FakeSalesforce
from salesforce_world import new, only

from churnkit.errors import SettingsError
from churnkit.outreach.crm.base import CrmDeniedError, CrmRefusedError, connect
from churnkit.testing.samples import AT, CANARY, OWNERS, sample
from churnkit.testing.stage import KEYS

HOUR = dt.timedelta(hours=1)


@pytest.fixture
def world(org):
    """A Salesforce org."""
    return org


# which org, and whether it is ready


@pytest.mark.parametrize(("sandbox", "kind"), [(True, "sandbox"), (False, "production")])
def test_says_which_org_it_is(world, sandbox, kind):
    """The org by its id, and whether it is a sandbox, so that the wrong one is not written to."""
    world.fake.sandbox = sandbox
    portal = world.connect().check()
    assert (portal.id, portal.kind, portal.name, portal.todo) == ("00D000000000001EAA", kind, "Salesforce Acme", ())


def test_missing_fields_are_named_for_an_administrator(world):
    """Each field with its type and length, in the words of the administrator's screen; nothing is made unasked."""
    world.fake.fields = FakeSalesforce(custom=False).fields
    todo = world.connect().check().todo
    assert len(todo) == 9
    assert "Make the field Churnkit_Key__c of Activity: Text(64), with External ID, Unique and Case Sensitive ticked" \
        in todo[0]
    assert any("Churnkit_Note__c of Activity: Text Area (Long)(32768)" in line for line in todo)
    assert any("Picklist of open, in_progress, snoozed, completed, dismissed" in line for line in todo)
    assert world.fake.asked["custom_field"] == 0


def test_mending_makes_the_fields_once(world):
    """What can be made is made; the access to it, which churnkit cannot give itself, is asked for; then all is well."""
    world.fake.fields = FakeSalesforce(custom=False).fields
    crm = world.connect()
    portal = crm.check(mend=True)
    assert (len(portal.made), len(portal.todo)) == (9, 9)
    assert all("field-level security" in line for line in portal.todo)
    again = crm.check(mend=True)
    assert (again.made, len(again.todo)) == ((), 9)
    world.fake.hidden.clear()
    assert (crm.check(mend=True).todo, crm.capabilities.unique_keys) == ((), True)
    assert only(crm.write(new(sample()))).state == "written"


def test_mending_without_permission_makes_nothing(world):
    """Where churnkit's user may not customize the org, the list is the administrator's."""
    world.fake.fields, world.fake.may_customize = FakeSalesforce(custom=False).fields, False
    portal = world.connect().check(mend=True)
    assert (portal.made, len(portal.todo)) == ((), 9)
    assert "Make the field Churnkit_Key__c" in portal.todo[0]


def test_an_org_without_unique_activity_fields_is_used_all_the_same(world):
    """The key is then a plain field, the capabilities say so, and so does the org's name in every report."""
    world.fake.fields, world.fake.unique_activities = FakeSalesforce(custom=False).fields, False
    crm = world.connect()
    assert "made the field Churnkit_Key__c of Activity (not unique)" in crm.check(mend=True).made
    world.fake.hidden.clear()
    portal = crm.check()
    assert (portal.todo, crm.capabilities.unique_keys, crm.capabilities.upsert) == ((), False, False)
    assert "without unique keys" in portal.name
    first = crm.write(new(sample()))
    assert only(crm.write(new(sample()))).state == "written"  # a second one: the engine looks before it sends again
    assert crm.find([KEYS[0]])[KEYS[0]].remote_id == only(first).remote.remote_id


@pytest.mark.parametrize(("change", "said"), [
    ({"length": 32}, "takes 32 characters; it must be Text(64)"),
    ({"type": "double"}, "is a double; it must be Text(64)"),
    ({"createable": False}, "may not be written by churnkit's user")])
def test_a_field_that_cannot_hold_it_is_named(world, change, said):
    """A field of that name that is too short, of another type, or read-only."""
    world.fake.fields["Churnkit_Hash__c"].update(change)
    [line] = world.connect().check().todo
    assert said in line


def test_a_picklist_that_lacks_a_word_is_named(world):
    """A disposition that nobody could choose."""
    world.fake.fields["Churnkit_Disposition__c"]["picklistValues"].pop(0)
    assert world.connect().check().todo == (
        "The field Churnkit_Disposition__c of Activity lacks the values saved.",)


def test_the_account_field_is_looked_for(world, tmp_path):
    """Without a field that holds our ids, accounts must be listed; a mapping of accounts is as good."""
    del world.fake.account_fields["Churnkit_Account_Id__c"]
    [line] = world.connect().check().todo
    assert "Account has no field Churnkit_Account_Id__c" in line
    (tmp_path / "crm_map.csv").write_text(f"kind,id,crm_id\naccount,A00,{next(iter(world.fake.accounts))}\n")
    assert world.connect().check().todo == ()
    assert world.connect(account_field="Id").check().todo == ()


def test_before_the_set_up_it_says_what_to_run(world):
    """A question about a field that is not there names the mend."""
    world.fake.fields = FakeSalesforce(custom=False).fields
    with pytest.raises(CrmDeniedError, match=r"INVALID_FIELD.*Run: churnkit crm setup salesforce"):
        world.connect().find(KEYS[:1])


# who is who


def refused(world, task, **options):
    result = only(world.connect(**options).write(new(task)))
    assert result.state == "refused"
    assert world.tasks() == []
    return result.why


@pytest.mark.parametrize(("email", "why"), [
    ("nobody@us.example", "is no user of this Salesforce org"), (OWNERS[2], "is no active user"),
    ("two@us.example", "is the address of 2 active users"), ("guest@us.example", "is no user"),
    ("odd\x00@us.example", "is no user")])
def test_an_owner_who_cannot_be_told_is_nobody_else(world, email, why):
    """Unknown, inactive, ambiguous, or a customer's login: a dead letter with the mend, never a default person."""
    for number in (900, 901):
        world.fake.user(f"005{number:012d}AAA", "two@us.example")
    world.fake.user("005000000000902AAA", "guest@us.example", kind="CspLitePortal")
    said = refused(world, sample(owner=email))
    assert why in said
    assert "add the row owner," in said
    assert world.fake.asked["create"] == 0


def test_owners_go_by_any_case_and_come_back_as_they_were(world):
    """An address in capitals is the same person, and its spelling is no person's edit."""
    crm = world.connect()
    crm.write(new(sample(owner="Ann@US.example")))
    assert crm.find([KEYS[0]])[KEYS[0]].owner == "Ann@US.example"
    world.person(KEYS[0], AT + HOUR, owner=OWNERS[1])
    assert crm.find([KEYS[0]])[KEYS[0]].owner == OWNERS[1]


def test_the_mapping_goes_first_and_comes_back(world, tmp_path):
    """A row of crm_map.csv decides, in both directions."""
    account = world.fake.account("another")
    eve = world.user_of(OWNERS[1])
    (tmp_path / "crm_map.csv").write_text(f"kind,id,crm_id\nowner,kim@us.example,{eve}\naccount,A00,{account}\n")
    crm = world.connect()
    assert only(crm.write(new(sample(owner="kim@us.example")))).state == "written"
    [task] = world.fake.of_key(KEYS[0])
    assert (task["OwnerId"], task["WhatId"]) == (eve, account)
    assert crm.find([KEYS[0]])[KEYS[0]].owner == "kim@us.example"


def test_a_mapped_user_who_left_is_refused_with_the_mend(world, tmp_path):
    """Salesforce itself refuses an inactive owner; the reason says what to do."""
    (tmp_path / "crm_map.csv").write_text(f"kind,id,crm_id\nowner,kim@us.example,{world.user_of(OWNERS[2])}\n")
    said = refused(world, sample(owner="kim@us.example"))
    assert "INACTIVE_OWNER_OR_USER" in said
    assert "add the row owner,kim@us.example" in said


def test_a_queue_goes_by_its_name(world):
    """A task that a person gave to a queue has no address to tell."""
    crm = world.connect()
    crm.write(new(sample()))
    world.fake.users["00G000000000001AAA"] = {"Id": "00G000000000001AAA", "Email": None, "Name": "Renewals"}
    world.fake.touch(world.fake.of_key(KEYS[0])[0], OwnerId="00G000000000001AAA")
    assert crm.find([KEYS[0]])[KEYS[0]].owner == "Renewals"


def test_accounts_are_told_apart_by_case(world):
    """Salesforce takes a00 for A00; our ids do not."""
    assert "is the Churnkit_Account_Id__c of no account" in refused(world, sample(account_id="a00"))
    world.fake.account("B1")
    world.fake.account("B1")
    assert "of 2 accounts" in refused(world, sample(account_id="B1"))


def test_account_ids_may_be_salesforces_own(world):
    """With account_field = Id a malformed id asks nothing, since it would fail the query for all."""
    account = next(iter(world.fake.accounts))
    assert "is the Id of no account" in refused(world, sample(account_id="A00"), account_field="Id")
    assert not any("FROM Account" in query for query in world.fake.queries)
    crm = world.connect(account_field="Id")
    assert only(crm.write(new(sample(account_id=account)))).state == "written"
    assert only(crm.write(new(sample(1, account_id=account[:15])))).state == "written"


def test_contacts(world, tmp_path):
    """A contact's id is taken as it is, a mapped one as mapped; any other is refused."""
    world.fake.contacts |= {"003000000000001AAA", "003000000000002AAA"}
    assert "contact 'C9' is no id of a contact" in refused(world, sample(contact_id="C9"))
    (tmp_path / "crm_map.csv").write_text("kind,id,crm_id\ncontact,C9,003000000000002AAA\n")
    crm = world.connect()
    crm.write(new(sample(0, contact_id="003000000000001AAA"), sample(1, contact_id="C9")))
    assert [task["WhoId"] for task in world.fake.tasks.values()] == ["003000000000001AAA", "003000000000002AAA"]
    assert "invalid cross reference id" in only(crm.write(new(sample(2, contact_id="003000000000009AAA")))).why


@pytest.mark.parametrize("odd", ["' OR Name != '", "O'Hara \\", '"quoted"', "\\' OR Id != null OR Name = '",
                                 "ünï-code", "a+b&c=d%27"])
def test_values_stay_values_in_a_query(world, odd):
    """An account id or address with quotes and backslashes finds itself and nothing else."""
    assert "of no account" in refused(world, sample(account_id=odd))
    mine = world.fake.account(odd)
    owner = world.fake.user("005000000000777AAA", f"{odd.lower()}@us.example")
    crm = world.connect()
    assert only(crm.write(new(sample(account_id=odd, owner=f"{odd}@us.example")))).state == "written"
    [task] = world.fake.of_key(KEYS[0])
    assert (task["WhatId"], task["OwnerId"]) == (mine, owner)


def test_a_key_that_is_none_is_never_asked_for(world):
    """Keys go into queries: whatever is not hexadecimal is refused before."""
    crm = world.connect()
    with pytest.raises(CrmRefusedError, match="is no task key"):
        crm.find(["' OR Id != null"])
    assert only(crm.write(new(sample(key="G1")))).state == "refused"
    assert world.fake.asked["create"] == 0


# options


def test_a_secret_file_is_as_good(world, tmp_path):
    """The token from a file that nobody else may read."""
    path = tmp_path / "token"
    path.write_text(f"{CANARY}\n")
    path.chmod(0o600)
    world.env = {"CHURNKIT_SALESFORCE_TOKEN_FILE": str(path)}
    assert world.connect().check().todo == ()
    path.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        world.connect()


@pytest.mark.parametrize(("options", "said"), [
    ({}, "instance: '' is no host"), ({"instance": "acme.my.salesforce.com/x"}, "is no host"),
    ({"instance": "user@acme.my.salesforce.com"}, "is no host"), ({"instance": "a.b", "instanse": "x"}, "Did you mean"),
    ({"instance": "a.b", "timeout": "soon"}, "timeout: 'soon' is no number"),
    ({"instance": "a.b", "daily": "0"}, "daily: '0' is no number from 1"),
    ({"instance": "a.b", "timeout": "nan"}, "timeout: 'nan' is no number"),
    ({"instance": "a.b", "account_field": "Id = '' OR Id"}, "is no field's name"),
    ({"instance": "a.b", "version": "60"}, "version: '60' is none"), ({"instance": "a.b", "ca": "no.pem"}, "no file"),
    ({"instance": "a.b", "mapping": "no.csv"}, "cannot be read")])
def test_options_that_are_wrong_are_named(options, said, tmp_path, monkeypatch):
    """With the section, the key and the mend."""
    monkeypatch.setenv("CHURNKIT_SALESFORCE_TOKEN", "x")
    with pytest.raises(SettingsError, match=said):
        connect("salesforce", options, tmp_path)


def test_a_sign_in_must_be_one(monkeypatch):
    """Neither none nor two."""
    for name in ("CHURNKIT_SALESFORCE_TOKEN", "CHURNKIT_SALESFORCE_TOKEN_FILE", "CHURNKIT_SALESFORCE_CLIENT_ID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingsError, match=r"access token of Salesforce is missing\. Set CHURNKIT_SALESFORCE_TOKEN"):
        connect("salesforce", {"instance": "acme.my.salesforce.com"})
    monkeypatch.setenv("CHURNKIT_SALESFORCE_CLIENT_ID", "the-app")
    with pytest.raises(SettingsError, match="secret of the Salesforce app is missing"):
        connect("salesforce", {"instance": "acme.my.salesforce.com"})
    monkeypatch.setenv("CHURNKIT_SALESFORCE_TOKEN", "x")
    with pytest.raises(SettingsError, match="are both set"):
        connect("salesforce", {"instance": "acme.my.salesforce.com"})


def test_it_imports_nothing_heavy():
    """A sync every few minutes pays for no models and no data frames, and for the client in one file alone."""
    script = "import churnkit.outreach.crm.salesforce, sys; print(*sorted({n.split('.')[0] for n in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & {"pandas", "numpy", "mlflow", "feast", "sklearn", "duckdb", "ibis", "pandera",
                                       "lightgbm", "shap"} == set()
