"""A CRM of the weakest kind to practise on: no unique keys, creates that tell no id, ten rows a page, whole seconds.

    GET    /me                        {"portal": "tiny-1", "sandbox": true}
    GET    /users                     {"users": [{"id", "email", "active"}]}
    GET    /accounts?code=A01         {"accounts": [{"id", "code"}]}
    GET    /tasks?page=1&since=TIME   {"tasks": [at most ten], "more": false}, the oldest change first
    GET    /tasks/ID                  one task, or 404
    POST   /tasks                     201 and no word about it
    PATCH  /tasks/ID                  204
    DELETE /tasks/ID                  204

A task has id, subject, text, marker (for programs), user, account, due, state (open, begun, asleep, done, cancelled),
result, remark, changed (to the second) and changed_by. Every request carries X-Token.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from churnkit.testing.samples import ACCOUNTS, AT, CANARY, OWNERS
from churnkit.testing.server import Reply, Request

_PAGE = 10
_STATES = ("open", "begun", "asleep", "done", "cancelled")
_FIELDS = {"subject": str, "text": str, "marker": str, "user": int, "account": int, "due": str, "state": str,
           "result": str, "remark": str}
_NEEDED = ("subject", "user", "account", "due")


class Tiny:
    """The app; `now` is its clock, `poison` a word in a marker with which a task is refused."""

    def __init__(self, token: str = CANARY, now: Callable[[], dt.datetime] = lambda: AT) -> None:
        self.token, self.now, self.poison = token, now, ""
        self.left: int | None = None
        self.users = {n: {"id": n, "email": email, "active": email != OWNERS[-1]} for n, email in enumerate(OWNERS, 1)}
        self.accounts = {n: {"id": n, "code": code} for n, code in enumerate(ACCOUNTS, 501)}
        self.tasks: dict[int, dict[str, Any]] = {}
        self.made = self.writes = 0

    def __call__(self, request: Request) -> Reply:
        """Answers a request."""
        if request.headers.get("x-token") != self.token:
            return Reply(401, {"error": "who are you?"})
        if self.left is not None:
            if self.left == 0:
                return Reply(429, {"error": "enough for today", "daily": True})
            self.left -= 1
        try:
            return self._answer(request)
        except (ValueError, TypeError) as error:
            return Reply(422, {"error": str(error)})

    def change(self, number: int, by: str, **values: Any) -> None:
        """A change by a person or a program, at this clock's second."""
        self.tasks[number] |= {**values, "changed": _second(self.now()), "changed_by": by}

    @contextmanager
    def back_up(self) -> Iterator[None]:
        """At the end of the block everything is as it was."""
        kept = deepcopy(self.tasks)
        yield
        self.tasks = kept

    def _answer(self, request: Request) -> Reply:
        method, parts = request.method, request.path.strip("/").split("/")
        codes = request.query.get("code", [])
        told = {"me": {"portal": "tiny-1", "sandbox": True}, "users": {"users": list(self.users.values())},
                "accounts": {"accounts": [one for one in self.accounts.values() if one["code"] in codes]}}
        if method == "GET" and parts[0] in told and len(parts) == 1:
            return Reply(200, told[parts[0]])
        if parts[0] != "tasks" or len(parts) > 2:
            return Reply(404, {"error": "no such place"})
        if len(parts) == 1:
            return self._list(request.query) if method == "GET" else self._create(request) if method == "POST" \
                else Reply(405)
        number = int(parts[1])
        if number not in self.tasks:
            return Reply(404, {"error": "no such task"})
        return self._one(method, number, request)

    def _one(self, method: str, number: int, request: Request) -> Reply:
        if method == "GET":
            return Reply(200, self.tasks[number])
        if method == "PATCH":
            self.change(number, "api", **self._checked(request.json()))
            self.writes += 1
            return Reply(204)
        if method == "DELETE":
            del self.tasks[number]
            return Reply(204)
        return Reply(405)

    def _list(self, query: Mapping[str, list[str]]) -> Reply:
        page, since = int(query.get("page", ["1"])[0]), query.get("since", [""])[0]
        fit = sorted((one for one in self.tasks.values() if one["changed"] >= since),
                     key=lambda one: (one["changed"], one["id"]))
        some = fit[(page - 1) * _PAGE:page * _PAGE]
        return Reply(200, {"tasks": some, "more": len(fit) > page * _PAGE})

    def _create(self, request: Request) -> Reply:
        given = self._checked(request.json())
        missing = [name for name in _NEEDED if name not in given]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
        self.made += 1
        self.writes += 1
        self.tasks[self.made] = {"id": self.made, "text": "", "marker": "", "state": "open", "result": "", "remark": "",
                                 **given}
        self.change(self.made, "api")
        return Reply(201)

    def _checked(self, given: Any) -> dict[str, Any]:
        """What may be written.

        Raises:
            ValueError: If it may not.
        """
        if not isinstance(given, dict):
            raise TypeError("a task is an object")
        for name, value in given.items():
            if name not in _FIELDS or not isinstance(value, _FIELDS[name]):
                raise ValueError(f"{name} cannot be {json.dumps(value)[:40]}")
        if given.get("state", "open") not in _STATES:
            raise ValueError("state is unknown")
        if "user" in given and not self.users.get(given["user"], {}).get("active"):
            raise ValueError("user is not active")
        if "account" in given and given["account"] not in self.accounts:
            raise ValueError("account is unknown")
        if self.poison and self.poison in given.get("marker", ""):
            raise ValueError("the marker is not valid")
        dt.date.fromisoformat(given.get("due", "2026-01-01"))
        return given


def _second(at: dt.datetime) -> str:
    return at.astimezone(dt.UTC).replace(microsecond=0).isoformat()
