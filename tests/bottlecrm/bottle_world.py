"""A BottleCRM of the tests' own, and what people and broken machines do to it."""

import datetime as dt
import hashlib
import json
import os
import secrets
import signal
import socket
import subprocess
import uuid
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg
import requests
import sqlalchemy as sa
from churnkit_bottlecrm import DISMISSED, KEY, NOTE, RESULT, STATES, TOKEN, connect

from churnkit.outreach.crm.base import Remote
from churnkit.testing.samples import ACCOUNTS, CANARY, OWNERS
from churnkit.testing.server import FAULTS, Reply, Server

HERE = Path(__file__).parent
PAT = f"bcrm_pat_{CANARY}"  # BottleCRM knows a personal access token by how it begins
SCOPES = ("tasks:read", "tasks:write", "accounts:read", "profile:read", "org:read", "custom-fields:read",
          "custom-fields:write")
PERSON, HELPER, CLERK = (f"bcrm_pat_{secrets.token_hex(16)}" for _ in range(3))
"""Tokens of a person, of a user with too few scopes, and of one who is no administrator."""
USERS = {
    "churnkit@us.example": {"active": True, "token": PAT, "scopes": SCOPES},
    OWNERS[0]: {"active": True, "token": PERSON}, OWNERS[1]: {"active": True}, OWNERS[2]: {"active": False},
    "helper@us.example": {"active": True, "token": HELPER, "scopes": ("tasks:read",)},
    "clerk@us.example": {"active": True, "token": CLERK, "role": "USER"}}
_PASSED = ("authorization", "content-type")
BACK = {ours: theirs for theirs, ours in STATES.items()} | {DISMISSED: "Completed"}


class Bottle:
    """BottleCRM in a database and a process group of its own.

    Its migrations take minutes: they are run once per lock, into a database that later runs take as their template.
    """

    def __init__(self, python: Path, named: str, lock: Path, folder: Path) -> None:
        self._python, self._folder = python, folder
        self._server = sa.make_url(named).set(drivername="postgresql")
        self._name = f"churnkit_{uuid.uuid4().hex[:16]}"
        template = f"churnkit_bottlecrm_{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
        with closing(self._connect(self._server.database)) as server:
            self._have(server, template)
            server.execute(f"CREATE DATABASE {self._name} TEMPLATE {template}")
        self.db, self.people = self._connect(self._name), requests.Session()
        self.people.trust_env = False
        self._process = self._start()
        try:
            told = json.loads(self._process.stdout.readline())
            self.people.get(f"{self.url}/healthz/", timeout=60).raise_for_status()
        except (ValueError, requests.RequestException) as error:
            self.close()
            said = (folder / "server.txt").read_text()[-2000:]
            raise AssertionError(f"BottleCRM does not serve: {said}") from error
        self.org: str = told["org"]
        self.profiles: dict[str, str] = told["profiles"]

    def close(self) -> None:
        """Ends the process group, and the database with it."""
        self._process.stdin.close()  # what it waits for
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(15)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.stdout.close()
        self.db.close()
        with closing(self._connect(self._server.database)) as server:
            server.execute(f"DROP DATABASE {self._name} WITH (FORCE)")

    def person(self, method: str, path: str, data: object = None) -> requests.Response:
        """A person does something, past whatever stands between churnkit and BottleCRM."""
        reply = self.people.request(method, f"{self.url}/api{path}", json=data, timeout=30,
                                    headers={"Authorization": f"Bearer {PERSON}"})
        assert reply.ok, reply.text
        return reply

    def _connect(self, database: str) -> psycopg.Connection:
        return psycopg.connect(self._server.set(database=database).render_as_string(hide_password=False),
                               autocommit=True, connect_timeout=3)

    def _have(self, server: psycopg.Connection, template: str) -> None:
        """Makes the migrated database, where it is not there."""
        if server.execute("SELECT 1 FROM pg_database WHERE datname = %s", [template]).fetchone():
            return
        draft = f"{template}_{self._name[-8:]}"
        server.execute(f"CREATE DATABASE {draft}")
        try:
            subprocess.run([self._python, HERE / "bottle_server.py", "migrate"], env=self._env(draft), check=True,
                           cwd=self._folder, stdout=subprocess.DEVNULL)
            with suppress(psycopg.errors.DuplicateDatabase):  # another run was quicker
                server.execute(f"ALTER DATABASE {draft} RENAME TO {template}")
        finally:
            server.execute(f"DROP DATABASE IF EXISTS {draft}")

    def _start(self) -> subprocess.Popen:
        with socket.create_server(("127.0.0.1", 0)) as listening, (self._folder / "server.txt").open("w") as said:
            self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            process = subprocess.Popen(
                [self._python, HERE / "bottle_server.py", "serve"], cwd=self._folder, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=said, text=True, pass_fds=[listening.fileno()], start_new_session=True,
                env={**self._env(self._name), "BOTTLE_FD": str(listening.fileno())})
        wanted = {"name": "churnkit's tests", "users": USERS, "accounts": ACCOUNTS, "account_field": "churnkit_account"}
        process.stdin.write(json.dumps(wanted) + "\n")
        process.stdin.flush()
        return process

    def _env(self, database: str) -> dict[str, str]:
        """Nothing of ours but what BottleCRM reads; no mail and no queue of jobs leave the process."""
        host = self._server.host or self._server.query.get("host", "localhost")
        return {
            "PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": "crm.settings",
            "SECRET_KEY": secrets.token_urlsafe(48), "DBNAME": database, "DBUSER": self._server.username or "",
            "DBPASSWORD": self._server.password or "", "DBHOST": host, "DBPORT": str(self._server.port or 5432),
            "DB_POOL_ENABLED": "true", "CELERY_BROKER_URL": "memory://", "CELERY_RESULT_BACKEND": "cache+memory://",
            "EMAIL_BACKEND": "django.core.mail.backends.dummy.EmailBackend"}


class BottleWorld:
    """An organisation without tasks in it, behind a line that can fail; people come by another one."""

    name = "bottlecrm"
    faults = (*FAULTS, "poison", "expired", "refused")

    def __init__(self, bottle: Bottle, folder: Path, installed: Path) -> None:
        self.bottle, self._map, self._written, self._down = bottle, folder / "crm_map.csv", 0, None
        self._line = requests.Session()
        self._line.trust_env = False
        self.server = Server(self._forward, late=2.5)
        self.options = {"url": self.server.url, "timeout": "2", "mapping": str(self._map)}
        self.env = {TOKEN: PAT, "PYTHONPATH": str(installed)}
        bottle.db.execute("TRUNCATE task CASCADE")
        self.heal()

    def connect(self, clock=None):  # noqa: ARG002 - see there
        """A new connector; BottleCRM tells no time of a change, so it does not matter what the clock says."""
        return connect(self.options, Path())

    def tasks(self):
        """What the database holds."""
        rows = self.bottle.db.execute("""
            SELECT task.id, status, custom_fields, due_date, (
                SELECT string_agg(email, ' ' ORDER BY email) FROM task_assigned_to link
                JOIN profile ON profile.id = link.profile_id JOIN users ON users.id = profile.user_id
                WHERE link.task_id = task.id) FROM task""").fetchall()
        return [Remote(held.get(KEY, ""), str(number), "", due=due, owner=owner, note=held.get(NOTE),
                       status=DISMISSED if held.get(RESULT) == DISMISSED and status == "Completed" else STATES[status],
                       disposition=None if held.get(RESULT) == DISMISSED else held.get(RESULT))
                for number, status, held, due, owner in rows]

    def texts(self, key):
        """Title and description."""
        return self.bottle.db.execute("SELECT title, description FROM task WHERE id = %s", [self.id(key)]).fetchone()

    def person(self, key, at, **changes):  # noqa: ARG002 - BottleCRM would not keep it
        """A person's form, sent by the API with the person's own token."""
        task, custom = {}, {}
        for name, value in changes.items():
            if name == "status":
                task["status"] = BACK[value]
                custom |= {RESULT: DISMISSED} if value == DISMISSED else {}
            elif name == "owner":
                task["assigned_to"] = [self.bottle.profiles[value]]
            elif name == "due":
                task["due_date"] = value.isoformat()
            else:
                custom[{"disposition": RESULT, "note": NOTE}[name]] = value
        self.bottle.person("PATCH", f"/tasks/{self.id(key)}/", {**task, "custom_fields": custom} if custom else task)

    def delete(self, key):
        """A person deletes a task."""
        self.bottle.person("DELETE", f"/tasks/{self.id(key)}/")

    def fail(self, fault, times=1):
        """Poison is an account that the table leads to and BottleCRM does not have; expired is a revoked token."""
        if fault == "poison":
            self._map.write_text(f"kind,id,crm_id\naccount,A03,{uuid.uuid4()}\n")
        elif fault == "expired":
            self._revoke(dt.datetime.now(dt.UTC))
        elif fault == "refused":
            self._down = self.server.refuse()
            self._down.__enter__()
        else:
            self.server.faults.extend([fault] * times)

    def heal(self):
        """All is well."""
        self.server.faults.clear()
        self._map.write_text("kind,id,crm_id\n")
        self._revoke(None)
        if self._down is not None:
            self._down.__exit__(None, None, None)
            self._down = None

    @contextmanager
    def back_up(self):
        """The database's own rows, put back."""
        db, tables = self.bottle.db, ("task", "task_assigned_to")
        for table in tables:
            db.execute(f"CREATE TEMPORARY TABLE kept_{table} AS TABLE {table}")
        try:
            yield
        finally:
            with db.transaction():
                for table in reversed(tables):
                    db.execute(f"DELETE FROM {table}")
                for table in tables:
                    db.execute(f"INSERT INTO {table} TABLE kept_{table}")
                    db.execute(f"DROP TABLE kept_{table}")

    def writes(self):
        """Tasks that were made or changed by way of the line."""
        return self._written

    def id(self, key):
        """BottleCRM's id of a task."""
        return self.bottle.db.execute("SELECT id FROM task WHERE custom_fields->>%s = %s", [KEY, key]).fetchone()[0]

    def _revoke(self, when):
        self.bottle.db.execute("UPDATE personal_access_token SET revoked_at = %s WHERE token_hash = %s",
                               [when, hashlib.sha256(PAT.encode()).hexdigest()])

    def _forward(self, request):
        """What the line's other end answers."""
        reply = self._line.request(
            request.method, self.bottle.url + request.path, params=request.query, data=request.body, timeout=30,
            headers={name: value for name, value in request.headers.items() if name in _PASSED}, allow_redirects=False)
        self._written += reply.ok and request.method in {"POST", "PATCH"} and request.path.startswith("/api/tasks/")
        return Reply(reply.status_code, reply.content, {"Content-Type": reply.headers.get("Content-Type", "")})
