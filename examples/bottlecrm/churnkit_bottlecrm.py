# ruff: noqa: I001, INP001 - a package of its own, of one file; its imports are laid out by hand
"""A connector to BottleCRM (django-crm 1.35): no unique keys, no id from a create, no time of a change, no "dismissed".

| churnkit                 | BottleCRM                                                                          |
|--------------------------|------------------------------------------------------------------------------------|
| key, hash, content       | custom fields churnkit_source (to list by), churnkit_key, churnkit_content         |
| title, body              | title, description                                                                 |
| owner, due, priority     | assigned_to, due_date, priority: by a create alone                                 |
| open, in_progress        | status New, In Progress                                                            |
| completed, dismissed     | status Completed, and churnkit_result "dismissed" where it is that                 |
| disposition, note        | custom fields churnkit_result, churnkit_note                                       |
| account_id               | the active account whose custom field churnkit_account is that, or crm_map.csv     |
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import NewConnectionError

from churnkit.errors import OutreachError, SettingsError
from churnkit.outreach.crm.base import (
    Capabilities, CrmDeniedError, CrmDownError, CrmUnsureError, Item, Page, Portal, Remote, Result)
from churnkit.outreach.crm.mapping import Mapped, mapped
from churnkit.outreach.crm.secret import Secret, secret
from churnkit.outreach.crm.words import plain
from churnkit.outreach.task import DISPOSITIONS, LOCAL, THEIRS

TOKEN = "CHURNKIT_BOTTLECRM_TOKEN"  # noqa: S105 - the variable's name
SOURCE, KEY, CONTENT, RESULT, NOTE = (f"churnkit_{name}" for name in ("source", "key", "content", "result", "note"))
STATES = {"New": "open", "In Progress": "in_progress", "Completed": "completed"}
DISMISSED = "dismissed"
FIELDS = [{"target_model": "Task", "key": key, "field_type": kind, "label": label} for key, kind, label in (
    (SOURCE, "text", "churnkit: source (leave it alone)"), (KEY, "text", "churnkit: key (leave it alone)"),
    (CONTENT, "textarea", "churnkit: content (leave it alone)"), (NOTE, "textarea", "What came of it, in words"),
    (RESULT, "dropdown", "What came of it"))]
CHOICES = [{"value": word, "label": word.replace("_", " ").capitalize()}
           for word in (*(word for words in DISPOSITIONS.values() for word in words), DISMISSED)]


class BottleCrm:
    """Tasks in one organisation of a BottleCRM, as the user whose personal access token this is."""

    name = "bottlecrm"
    # The lag: a create whose sender gave up, or was killed, may still be under way in the server when we look.
    capabilities = Capabilities(unique_keys=False, returns_ids=False, finds=True, modified=False, dismissed=False,
                                batch=10, page=10, lag=dt.timedelta(seconds=2))

    def __init__(self, url: str, token: Secret, who: Mapped, timeout: float, account_field: str) -> None:
        self._url, self._token, self._who, self._timeout, self._account = url, token, who, timeout, account_field
        self._session = requests.Session()  # it tries nothing again by itself: its adapters' max_retries is 0
        self._session.trust_env = False  # no .netrc that would put another token in, no proxy that nobody named
        self._session.auth = lambda asked: asked.headers.update(Authorization=f"Bearer {token.reveal()}") or asked

    def check(self, *, mend: bool = False) -> Portal:
        """The organisation, and whether the custom fields are there: a value of an unknown one would vanish unseen."""
        org, name = self._get("/org/settings/", "id"), self._get("/org/settings/", "name")
        todo = [] if self._get("/profile/", "user_obj")["role"] == "ADMIN" else [
            "Give the token's user the role ADMIN: others do not see all tasks, and what is not seen is made twice."]
        made: list[str] = []
        there = {(one["target_model"], one["key"]): one for one in self._get("/custom-fields/", "definitions")}
        code = {"target_model": "Account", "key": self._account, "field_type": "text", "label": "churnkit: account id"}
        for field in (*FIELDS, code):
            what = "the custom field {key} of {target_model} (a {field_type})".format(**field)
            held, options = there.get((field["target_model"], field["key"])), CHOICES * (field["key"] == RESULT)
            if held is None and mend and self._ask("POST", "/custom-fields/", {**field, "options": options}).ok:
                made.append(f"made {what}")
            elif held is None or not held["is_active"] or held["field_type"] != field["field_type"]:
                todo.append(f"Make {what}, or switch it on.")
            elif missing := {one["value"] for one in options} - {one["value"] for one in held["options"] or ()}:
                todo.append(f"Give {what} the choices {', '.join(sorted(missing))}.")
        return Portal(name or "BottleCRM", org, "", tuple(todo), tuple(made))

    def find(self, keys: Sequence[str]) -> Mapping[str, Remote]:
        """The tasks of these keys; of two that hold the same key, the older one."""
        return {key: remotes[0] for key in keys if (remotes := self._of_key(key))}

    def write(self, items: Sequence[Item]) -> Sequence[Result]:
        """One request a row; what is left after a failure is tried again, the row that failed may be in doubt."""
        # Asked anew in each call: BottleCRM drops an assignee that is not active any more without a word.
        told = self._get("/tasks/", "users", slim="true", limit="1")
        users = {user["user__email"].lower(): user["id"] for user in told}
        results: list[Result] = []
        for item in items:
            try:
                results.append(self._create(item, users) if item.remote_id is None else self._update(item))
            except CrmUnsureError as unsure:
                results.append(Result(item.task.key, "doubt", why=str(unsure)))
            except CrmDownError as down:
                if not results:
                    raise  # nothing of this call was written: the engine waits as long as it should
                results.append(Result(item.task.key, "again", why=str(down)))
        return results

    def changes(self, since: str | None) -> Iterator[Page]:
        """All of churnkit's tasks, always: BottleCRM does not know when one was changed."""
        for rows in self._pages({f"cf_{SOURCE}": "churnkit"}):
            yield Page([remote for row in rows if (remote := self._whole(row["id"])) is not None], since)

    def remove(self, remote_ids: Sequence[str]) -> None:
        """Takes tasks away; where a create told no id, the key stands for it."""
        for remote_id in remote_ids:
            known = [remote_id] if "-" in remote_id else [remote.remote_id for remote in self._of_key(remote_id)]
            for one in known:
                self._ask("DELETE", f"/tasks/{one}/")

    def close(self) -> None:
        """Lets the connection go."""
        self._session.close()

    def _create(self, item: Item, users: Mapping[str, str]) -> Result:
        task, why = item.task, ""
        who = self._who.get("owner", task.owner) or users.get(task.owner.lower())
        account = self._who.get("account", task.account_id) or self._account_of(task.account_id)
        if who not in users.values():
            why = self._who.unmapped("owner", task.owner, "is no active user of this organisation")
        elif account is None:
            why = self._who.unmapped("account", task.account_id, f"is the {self._account} of no account, or of two")
        if why:
            return Result(task.key, "refused", why=why)
        priority = {"low": "Low", "high": "High"}.get(task.priority, "Medium")
        people = {"status": "New", "assigned_to": [who], "account": account, "priority": priority,
                  "due_date": task.due.isoformat()}
        return self._send("POST", "/tasks/", item, people, {})

    def _update(self, item: Item) -> Result:
        remote_id, status, result = item.remote_id or "", {}, {}
        if "-" not in remote_id:  # a create told no id: the key stands for it until we look
            remote_id = next((remote.remote_id for remote in self._of_key(item.task.key)), "")
        there = self._whole(remote_id) if remote_id and item.closing else None
        if not remote_id or (item.closing and there is None):
            return Result(item.task.key, "gone")
        if there is not None and there.status == "open" and there.disposition is None:  # nobody has begun it
            status, result = {"status": "Completed"}, {RESULT: DISMISSED, NOTE: there.note or plain(item.closing, 2000)}
        return self._send("PATCH", f"/tasks/{remote_id}/", item, status, result)

    def _send(self, method: str, path: str, item: Item, people: Any, result: Any) -> Result:
        """Writes what is churnkit's in a task, and of what is people's so much as is given."""
        task = {name: value for name, value in item.task.to_dict().items() if name not in THEIRS | LOCAL}
        content = json.dumps({"hash": item.content_hash, "task": task})
        reply = self._ask(method, path, {
            "title": plain(item.task.title, 200), "description": plain(item.task.body), **people,
            "custom_fields": {SOURCE: "churnkit", KEY: item.task.key, CONTENT: content, **result}})
        if reply.status_code == 404 and method == "PATCH":
            return Result(item.task.key, "gone")
        why = "" if reply.ok else f"BottleCRM: {self._words(reply)}"
        return Result(item.task.key, "refused" if why else "written", why=why)

    def _account_of(self, account_id: str) -> str | None:
        told = self._get("/accounts/", "active_accounts", **{f"cf_{self._account}": account_id})["open_accounts"]
        ids = [one["id"] for one in told if one["custom_fields"].get(self._account) == account_id]
        return ids[0] if len(ids) == 1 else None

    def _of_key(self, key: str) -> list[Remote]:
        """The tasks of this key, the oldest first; BottleCRM's filter is not taken at its word."""
        rows = [row for page in self._pages({f"cf_{KEY}": key}) for row in page]
        whole = [self._whole(row["id"]) for row in sorted(rows, key=lambda row: (row["created_at"], row["id"]))]
        return [remote for remote in whole if remote is not None and remote.key == key]

    def _pages(self, wanted: Mapping[str, str]) -> Iterator[list[dict[str, Any]]]:
        """The rows of a list, page by page; each page begins with the last row of the one before.

        Where it does not, rows came or went, and one may have slipped through: then all is read again.
        """
        most, offset, last, begun = self.capabilities.page, 0, None, 0
        while True:
            rows = self._get("/tasks/", "tasks", slim="true", limit=str(most), offset=str(offset), **wanted)
            if last is not None and (not rows or rows[0]["id"] != last):
                begun, offset, last = begun + 1, 0, None
                if begun == 5:  # so often, that it had better wait for the next run
                    raise CrmDownError("BottleCRM's tasks came and went while they were read.")
                continue
            yield rows if last is None else rows[1:]
            if len(rows) < most:
                return
            offset, last = offset + most - 1, rows[-1]["id"]

    def _whole(self, remote_id: str) -> Remote | None:
        """A task with all its fields, which lists do not tell; None where it is gone."""
        reply = self._ask("GET", f"/tasks/{remote_id}/")
        if reply.status_code == 404:
            return None
        try:
            return _remote(reply.json()["task_obj"], self._who)
        except (KeyError, TypeError, ValueError):
            raise CrmDownError(f"BottleCRM's task {remote_id} cannot be understood. Is it version 1.35?") from None

    def _get(self, path: str, name: str, **params: str) -> Any:
        """One part of a reply; its absence is an error."""
        reply = self._ask("GET", path, params=params)
        told = reply.json() if reply.ok else {}
        if name not in told:
            raise CrmDownError(f"BottleCRM's reply from {path} holds no '{name}': {self._words(reply)}")
        return told[name]

    def _ask(self, method: str, path: str, data: Any = None, params: Any = None) -> requests.Response:
        """One request, sent once; the reply is JSON, or a refusal of what was written."""
        unclear: Callable[[str], OutreachError] = CrmDownError if method == "GET" else CrmUnsureError
        failure: OutreachError | None = None
        try:
            reply = self._session.request(method, f"{self._url}/api{path}", json=data, params=params,
                                          timeout=self._timeout, allow_redirects=False)
        except requests.RequestException as error:
            failure = _no_reply(error, unclear)
        failure = failure or self._meaning(reply, unclear)
        if failure is not None:  # raised out here, so that the client's error, which knows the token, is no part of it
            raise failure
        return reply

    def _meaning(self, reply: requests.Response, unclear: Callable[[str], OutreachError]) -> OutreachError | None:
        """The failure that a reply means, if it means one."""
        code = reply.status_code
        if code in (401, 403):
            return CrmDeniedError(f"BottleCRM refuses the token ({self._words(reply)}). Put an administrator's, with "
                                  f"the scopes that the README names, into {TOKEN}.")
        if 300 <= code < 400 or (code == 404 and not _is_json(reply)):
            return CrmDeniedError(f"There is no BottleCRM at {self._url}, or it sends us elsewhere ({code}), where the "
                                  "token does not go. Write its own address into [crm_options] url.")
        if code in (429, 503):
            return CrmDownError(f"BottleCRM rests ({code}).", wait=_seconds(reply.headers.get("Retry-After")))
        if code >= 500 or code == 408 or (code < 300 and not _is_json(reply)):
            return unclear(f"BottleCRM gave no answer that can be understood ({code}).")
        return None

    def _words(self, reply: requests.Response) -> str:
        return self._token.hidden(plain(reply.text, 200))


def connect(options: Mapping[str, str], root: Path) -> BottleCrm:
    """What the entry point names. Options: url, mapping, timeout (seconds), account_field.

    Raises:
        SettingsError: If an option is unknown or wrong, the token is missing, or crm_map.csv is wrong.
    """
    known = ("url", "mapping", "timeout", "account_field")
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise SettingsError(f"[crm_options] '{unknown[0]}' is unknown to BottleCRM. Known: {', '.join(known)}.")
    url, timeout = options.get("url", ""), _seconds(options.get("timeout", "30"))
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise SettingsError(f"[crm_options] url = '{url}' is no address such as https://crm.example. Mend it.")
    if parts.scheme == "http" and parts.hostname not in {"localhost", "127.0.0.1", "::1"}:
        raise SettingsError(f"[crm_options] url = '{url}' would send the token in plain sight. Use https.")
    if timeout is None:
        raise SettingsError(f"[crm_options] timeout = '{options['timeout']}' is no number of seconds. Write: 30.")
    token = secret(TOKEN, "the personal access token of BottleCRM")
    account_field = options.get("account_field", "churnkit_account")
    return BottleCrm(url.rstrip("/"), token, mapped(options, root), timeout, account_field)


def _remote(task: Mapping[str, Any], who: Mapped) -> Remote:
    held = task["custom_fields"]
    try:
        ours = dict(json.loads(held.get(CONTENT) or "{}"))
    except (TypeError, ValueError):  # a person wrote into it: the next update puts it right
        ours = {}
    status, result, content = STATES[task["status"]], held.get(RESULT), ours.get("task")
    if result == DISMISSED:
        status, result = DISMISSED if status == "completed" else status, None
    owners = sorted(who.owner_of(one["id"]) or one["user_details"]["email"] for one in task["assigned_to"])
    first = str(content.get("owner")) if isinstance(content, dict) else ""
    if first.lower() in {owner.lower() for owner in owners}:
        owners = [first]  # a colleague who helps is no new owner
    return Remote(
        key=held.get(KEY, ""), remote_id=task["id"], version="", content_hash=ours.get("hash"), status=status,
        disposition=result, note=held.get(NOTE), owner=owners[0] if owners else None,
        due=dt.date.fromisoformat(task["due_date"]) if task["due_date"] else None, content=content)


def _no_reply(error: requests.RequestException, unclear: Callable[[str], OutreachError]) -> OutreachError:
    if isinstance(error, requests.exceptions.SSLError):
        return CrmDeniedError("BottleCRM's certificate cannot be trusted. Mend it there: it is verified always.")
    reason = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(error, requests.ConnectTimeout) or isinstance(reason, NewConnectionError):
        return CrmDownError("BottleCRM cannot be reached.")
    return unclear("BottleCRM gave no answer, or half of one.")


def _is_json(reply: requests.Response) -> bool:
    try:
        return isinstance(reply.json(), dict)
    except ValueError:
        return False


def _seconds(text: str | None) -> float | None:
    try:
        return seconds if 0 < (seconds := float(text or "")) < 1e6 else None
    except ValueError:
        return None
