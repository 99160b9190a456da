"""What a HubSpot portal must have before anything is written there: which one it is, scopes, properties."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from churnkit.outreach.crm.base import Portal
from churnkit.outreach.crm.hubspot_directory import Directory
from churnkit.outreach.crm.hubspot_fields import FIELDS, GROUP, KEY, Field, choices
from churnkit.outreach.crm.hubspot_line import TOKEN, Answer, DeniedError, Line

SCOPES: Mapping[str, str] = {
    "crm.objects.contacts.read": "to read tasks",
    "crm.objects.contacts.write": "to write tasks",
    "crm.objects.companies.read": "to find an account's company",
    "crm.objects.owners.read": "to find a task's owner",
    "crm.schemas.contacts.read": "to see the properties of tasks",
    "crm.schemas.contacts.write": "to make the properties of tasks, in churnkit crm setup alone",
    "crm.schemas.companies.read": "to see the property that holds the account id",
    "crm.schemas.companies.write": "to make that property, in churnkit crm setup alone",
}
"""What the private app may need, and what for."""
_KINDS: Mapping[str, Literal["sandbox", "production"]] = {
    "SANDBOX": "sandbox", "DEVELOPER_TEST": "sandbox", "APP_DEVELOPER": "sandbox", "STANDARD": "production"}


@dataclass
class Survey:
    """What was found: the portal, its time zone's name, and whether churnkit's key is unique there."""

    number: str
    place: str
    kind: Literal["sandbox", "production", ""]
    zone: str
    unique: bool = False
    todo: list[str] = field(default_factory=list)
    made: list[str] = field(default_factory=list)

    def portal(self) -> Portal:
        """The same as the protocol wants it."""
        return Portal(f"HubSpot portal {self.number}" + (f" ({self.place})" if self.place else ""), self.number,
                      self.kind, tuple(self.todo), tuple(self.made))


def which(line: Line) -> Survey:
    """Which portal this is.

    Raises:
        CrmDeniedError: If HubSpot does not say it: the token's app is not allowed to, or the host is not HubSpot's.
    """
    failure: DeniedError | None = None
    try:
        said = line.details().body
    except DeniedError as denied:
        failure, said = denied, {}
    if failure is not None and failure.status == 404:
        raise DeniedError(f"{line.host} knows no /account-info/v3/details, so it does not say which portal it is. Mend "
                          "[crm_options] host.", 404)
    if failure is not None and failure.status == 403:
        raise DeniedError(f"HubSpot does not tell this token which portal it is ({failure}) Without that nothing is "
                          "written.", 403, failure.scopes)
    if failure is not None:
        raise failure
    if not said.get("portalId"):
        raise DeniedError(f"{line.host} does not say which portal it is. Mend [crm_options] host.", 200)
    return Survey(line.hidden(said["portalId"], 40), line.hidden(said.get("uiDomain") or "", 80),
                  _KINDS.get(str(said.get("accountType")), ""), str(said.get("timeZone") or ""))


def is_unique(line: Line) -> bool:
    """Whether this portal keeps churnkit's key unique; False also where there is no such property yet."""
    try:
        return bool(line.ask(line.properties.get_by_name, "tasks", KEY).body.get("hasUniqueValue"))
    except DeniedError as denied:
        if denied.status != 404:
            raise
        return False


def survey(line: Line, directory: Directory, *, account_property: str, mapped: bool, mend: bool) -> Survey:
    """Looks at everything that writing needs; with `mend`, makes what can be made.

    Args:
        line: To HubSpot.
        directory: Its owners and companies.
        account_property: The property of companies that holds our account id.
        mapped: Whether crm_map.csv names companies, so that the portal may do without that property.
        mend: Make what is missing.
    """
    found = which(line)
    _may(found, lambda: line.ask(line.task.get_page, limit=1))
    _may(found, lambda: _try_to_write(line))
    _may(found, lambda: line.ask(line.company.get_page, limit=1))
    _may(found, directory.load_owners)
    there = _may(found, lambda: line.ask(line.properties.get_all, "tasks"))
    if there is not None:
        _properties(found, line, {str(row.get("name")): row for row in there.rows()}, mend=mend)
    _account_property(found, line, directory, account_property, mapped=mapped, mend=mend)
    return found


def _may(found: Survey, question: Callable[[], Any]) -> Any:
    """Asks; a scope that is missing becomes a sentence for the administrator, once, and the answer None."""
    try:
        return question()
    except DeniedError as denied:
        if denied.status != 403:
            raise
        scopes = denied.scopes or ("that it asks for",)
        for scope in scopes:
            what = f" ({SCOPES[scope]})" if scope in SCOPES else ""
            sentence = (f"Add the scope {scope}{what} to the private app: Settings, Integrations, Private Apps, "
                        f"Scopes; then set {TOKEN} anew.")
            if sentence not in found.todo:
                found.todo.append(sentence)
        return None


def _try_to_write(line: Line) -> None:
    """Asks to update no task at all: whatever but a missing scope is a good answer, and nothing can be changed."""
    try:
        line.ask(line.tasks.update, {"inputs": []})
    except DeniedError as denied:
        if denied.status in {401, 403} or denied.status < 400:
            raise


def _properties(found: Survey, line: Line, there: Mapping[str, Mapping[str, Any]], *, mend: bool) -> None:
    missing = [one for one in FIELDS if one.name not in there]
    if missing and not mend:
        found.todo.append(f"The properties {', '.join(one.name for one in missing)} are missing on tasks. Run: "
                          "churnkit crm setup hubspot.")
    if missing and mend:
        _make_group(found, line, "tasks")
        for one in missing:
            made = _may(found, lambda one=one: _make(found, line, one))  # type: ignore[misc]
            found.unique = found.unique or (one.name == KEY and made is True)
    for one in FIELDS:
        if one.name in there:
            _compare(found, line, one, there[one.name], mend=mend)
    if KEY in there:
        found.unique = bool(there[KEY].get("hasUniqueValue"))


def _make(found: Survey, line: Line, one: Field) -> bool:
    """Makes a property, plain where the portal allows no unique ones on tasks; tells whether it is unique."""
    if one.unique:
        try:
            line.ask(line.properties.create, "tasks", one.definition(unique=True))
        except DeniedError as denied:
            if denied.status != 400:
                raise
            found.made.append(f"This portal allows no unique property on tasks, so {one.name} is made plain: tasks are "
                              "looked up by search, and a new one only after half a minute.")
        else:
            found.made.append(f"Made the unique property {one.name} on tasks.")
            return True
    line.ask(line.properties.create, "tasks", one.definition(unique=False))
    found.made.append(f"Made the property {one.name} on tasks.")
    return False


def _compare(found: Survey, line: Line, one: Field, there: Mapping[str, Any], *, mend: bool) -> None:
    """Holds a property that is there against what it must be."""
    if there.get("type") != one.type:
        found.todo.append(f"The property {one.name} on tasks is of the type {line.hidden(there.get('type'), 40)}, and "
                          f"must be {one.type}. Delete it in Settings, Properties; then run: churnkit crm setup "
                          "hubspot.")
        return
    have = [dict(option) for option in there.get("options") or ()]
    lacking = [option for option in choices(one.options) if option["value"] not in {each["value"] for each in have}]
    if not lacking:
        return
    names = ", ".join(option["value"] for option in lacking)
    if not mend:
        found.todo.append(f"The property {one.name} on tasks lacks the options {names}. Run: churnkit crm setup "
                          "hubspot.")
        return
    kept = [{name: option[name] for name in ("label", "value", "hidden", "displayOrder", "description")
             if option.get(name) is not None} for option in have]
    if _may(found, lambda: line.ask(line.properties.update, "tasks", one.name, {"options": [*kept, *lacking]})):
        found.made.append(f"Added to the property {one.name} on tasks the options {names}.")


def _account_property(found: Survey, line: Line, directory: Directory, name: str, *, mapped: bool,
                      mend: bool) -> None:
    try:
        _may(found, directory.unique)
    except DeniedError as denied:
        if denied.status != 404:
            raise
        if mapped:
            return
        if mend and _may(found, lambda: _make_account_property(found, line, name)):
            found.made.append(f"Made the property {name} on companies. Fill it with the account ids: import a file "
                              "with each company's Record ID and account id, or write them into crm_map.csv.")
        else:
            found.todo.append(f"Companies have no property {name}, which would hold the account id. Run: churnkit crm "
                              "setup hubspot; or name another in [crm_options] account_property; or write the accounts "
                              "into crm_map.csv.")


def _make_account_property(found: Survey, line: Line, name: str) -> Answer:
    _make_group(found, line, "companies")
    one = Field(name, "churnkit account id", says="The account's id in the tables that churnkit reads.")
    try:
        return line.ask(line.properties.create, "companies", one.definition(unique=True))
    except DeniedError as denied:
        if denied.status != 400:
            raise
        return line.ask(line.properties.create, "companies", one.definition(unique=False))


def _make_group(found: Survey, line: Line, kind: str) -> None:
    """Makes the group of properties; one that is there already is no error."""
    try:
        _may(found, lambda: line.ask(line.groups.create, kind, {"name": GROUP, "label": "churnkit"}))
    except DeniedError as denied:
        if denied.status != 409:
            raise
