"""How fast tasks reach a CRM: near its limit and never above it, quickly without one, in memory that does not grow.

    python benchmarks/sync.py [--small] [--json]

limit    10,000 pending tasks to the tests' fake HubSpot, in a process of its own, at HubSpot's limit of 100 requests
         in any 10 seconds, which it enforces. ratio_rate is the requests made, against those that the limit allows in
         that time.
outbox   The same tasks put into an outbox on SQLite; the peer is sqlite3 itself, one INSERT and COMMIT a task.
engine   The same tasks to the fake without a limit; the peer is the vendor's client in a plain loop, one create a task,
         as a script without outbox, audit or look-up would do it, on the first 300.
memory   The peak of a run's process with 1,000 and with 1,000,000 rows in its outbox, until the CRM's daily quota
         ends it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from churnkit.outreach.crm.base import Capabilities, CrmDownError, Item, Page, Portal, Remote, Result, connect
from churnkit.outreach.outbox import Outbox
from churnkit.outreach.status import Rules
from churnkit.outreach.sync import sync
from churnkit.outreach.task import Task, task_key
from churnkit.testing.samples import AT, CANARY, sample

FAKE = Path(__file__).parent.parent / "tests" / "crm" / "fake_hubspot.py"
REQUESTS, SECONDS = 100, 10
OWNERS = 10
WORDS = "Why: use of the reports halved in four weeks, and two tickets were reopened. Ask what changed. " * 8


def tasks(count: int, seed: int = 0) -> list[Task]:
    """Tasks with a brief of usual length, each of another account."""
    base = sample(0)
    return [replace(base, key=task_key(f"A{n:05d}", "save_call", f"{seed}"), account_id=f"A{n:05d}", body=WORDS,
                    owner=f"owner{n % OWNERS}@us.example") for n in range(count)]


@contextmanager
def hubspot(companies: int, *, limit: bool) -> Iterator[dict[str, str]]:
    """The fake in a process of its own, for the connector's options."""
    command = [sys.executable, str(FAKE), "--token", CANARY, "--no-contract", "--companies", str(companies), "--owners",
               str(OWNERS), *(["--limit"] if limit else [])]
    os.environ["CHURNKIT_HUBSPOT_TOKEN"] = CANARY
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as fake:
        try:
            url = json.loads(fake.stdout.readline())["url"]  # type: ignore[union-attr]
            yield {"host": url, "requests": str(REQUESTS if limit else 50 * REQUESTS), "seconds": str(SECONDS)}
        finally:
            fake.kill()


def to_hubspot(count: int, *, limit: bool) -> dict[str, Any]:
    """So many tasks through the whole engine; `asked`, `peak` and `refused` are what the fake counted meanwhile."""
    with tempfile.TemporaryDirectory() as folder, hubspot(count, limit=limit) as options:
        box = Outbox(Path(folder) / "outbox.db")
        box.put(tasks(count), at=AT)
        portal = connect("hubspot", options, folder).check(mend=True).id
        if limit:
            time.sleep(SECONDS)  # what the set-up asked is no part of the run
        before = state(options)
        began = time.perf_counter()
        report = sync(box, connect("hubspot", options, folder), at=AT, rules=Rules(portal))
        took = time.perf_counter() - began
        after = state(options)
        again = None if limit else sync(box, connect("hubspot", options, folder), at=AT, rules=Rules(portal)).writes
        box.close()
    if (report.created, after["tasks"], after["keys"], again or 0) != (count, count, count, 0):
        raise SystemExit(f"not every task arrived once: {report}, {after}, {again}")
    asked = after["asked"] - before["asked"]
    return {"tasks": count, "seconds": took, "per_second": count / took, "requests": asked,
            "most": after["peak"], "refused": after["refused"] - before["refused"],
            "ratio_rate": asked / (took * REQUESTS / SECONDS)}


def state(options: Mapping[str, str]) -> dict[str, Any]:
    """What the fake counted so far."""
    with urllib.request.urlopen(f"{options['host']}/fake/state", timeout=30) as reply:  # noqa: S310 - our own
        return dict(json.load(reply))


def by_the_client(count: int) -> float:
    """The plain loop: seconds a task."""
    from hubspot import HubSpot
    with hubspot(1, limit=False) as options:
        client = HubSpot(access_token=CANARY)
        client.config["host"] = options["host"]
        api = client.crm.objects.tasks.batch_api
        began = time.perf_counter()
        for task in tasks(count):
            api.create({"inputs": [{"properties": {
                "hs_task_subject": task.title, "hs_task_body": task.body, "hs_task_type": "CALL",
                "hs_timestamp": "1794000000000"}, "associations": []}]})
        return (time.perf_counter() - began) / count


def into_outbox(count: int) -> dict[str, float]:
    """Tasks a second into an outbox on SQLite, and by sqlite3 alone, one commit a task."""
    given = tasks(count)
    with tempfile.TemporaryDirectory() as folder:
        box = Outbox(Path(folder) / "outbox.db")
        began = time.perf_counter()
        box.put(given, at=AT)
        ours = time.perf_counter() - began
        box.close()
        plain = sqlite3.connect(Path(folder) / "plain.db", isolation_level=None)
        plain.execute("PRAGMA journal_mode = WAL")
        plain.execute("PRAGMA synchronous = FULL")
        plain.execute("CREATE TABLE outbox (key TEXT PRIMARY KEY, content TEXT, state TEXT)")
        began = time.perf_counter()
        for task in given:
            plain.execute("INSERT INTO outbox VALUES (?, ?, 'pending')", (task.key, json.dumps(task.to_dict())))
        theirs = time.perf_counter() - began
        plain.close()
    return {"per_second": count / ours, "plain_per_second": count / theirs, "ratio_outbox": theirs / ours}


class Sink:
    """A CRM that keeps nothing, and whose daily quota is spent after so many calls that write."""

    name = "sink"
    capabilities = Capabilities(unique_keys=True)

    def __init__(self, calls: int) -> None:
        self._left = calls

    def check(self, *, mend: bool = False) -> Portal:
        """Nothing to look at."""
        return Portal("sink", made=("nothing",) if mend else ())

    def find(self, keys: Sequence[str]) -> Mapping[str, Remote]:
        """All of them are there."""
        return {key: Remote(key, key, "1") for key in keys}

    def write(self, items: Sequence[Item]) -> Sequence[Result]:
        """Takes them."""
        if self._left == 0:
            raise CrmDownError("the day's quota is spent", today=False)
        self._left -= 1
        return [Result(item.task.key, "written", Remote(item.task.key, item.task.key, "1", item.content_hash))
                for item in items]

    def changes(self, since: str | None) -> Iterator[Page]:
        """None."""
        yield Page([], since)

    def remove(self, remote_ids: Sequence[str]) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is open."""


def fill(path: Path, rows: int) -> None:
    """An outbox of so many pending rows: one is put, the others are copies of it under other keys."""
    box = Outbox(path)
    box.put(tasks(1), at=AT)
    copy = ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {most}) "
            "INSERT INTO {table} ({names}) SELECT {values} FROM n, {table} AS one WHERE one.key = '{key}'")
    with box.engine.connect().execution_options(churnkit_write=True) as connection, connection.begin():
        key = connection.exec_driver_sql("SELECT key FROM tasks").scalar()
        for table in ("tasks", "outbox"):
            names = [row[1] for row in connection.exec_driver_sql(f"PRAGMA table_info({table})") if row[1] != "id"]
            made = {"key": "printf('%040x', i)", "content": f"replace(one.content, '{key}', printf('%040x', i))"}
            values = [made.get(name, f"one.{name}") for name in names]
            if rows > 1:
                connection.exec_driver_sql(copy.format(most=rows - 1, table=table, names=", ".join(names), key=key,
                                                       values=", ".join(values)))
    box.close()


def peak(rows: int, calls: int) -> dict[str, float]:
    """The peak memory in MB of a run of so many calls with so many rows in the outbox, and its tasks a second."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "outbox.db"
        fill(path, rows)
        told = subprocess.run([sys.executable, __file__, "--run", str(path), "--calls", str(calls)], check=True,
                              capture_output=True, text=True).stdout
    return dict(json.loads(told))


def run(path: str, calls: int) -> None:
    """A run in a process of its own, which prints its peak."""
    box = Outbox(path)
    began = time.perf_counter()
    report = sync(box, Sink(calls), at=AT)
    took = time.perf_counter() - began
    box.close()
    print(json.dumps({"mb": high_water(), "sent": report.created, "per_second": report.created / took}))


def high_water() -> float:
    """This program's peak in MB; what getrusage tells on Linux also counts the process that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """All four."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--small", action="store_true", help="fewer tasks, for a look")
    parse.add_argument("--json", action="store_true")
    parse.add_argument("--run", help=argparse.SUPPRESS)
    parse.add_argument("--calls", type=int, default=100, help=argparse.SUPPRESS)
    said = parse.parse_args()
    if said.run:
        run(said.run, said.calls)
        return
    count, many = (2_000, 50_000) if said.small else (10_000, 1_000_000)
    limited, free = to_hubspot(count, limit=True), to_hubspot(count, limit=False)
    client = by_the_client(300)
    outbox = into_outbox(count)
    few, lot = peak(1_000, 200), peak(many, 200)
    found = {"ratio_rate": limited["ratio_rate"], "limited": limited, "free": free,
             "ratio_client": client * free["per_second"], "client_per_second": 1 / client, "outbox": outbox,
             "memory_few": few, "memory_many": lot, "rows_many": many, "ratio_memory": lot["mb"] / few["mb"]}
    if said.json:
        print(json.dumps(found, indent=2))
        return
    print(f"limit   {count:,} tasks in {limited['seconds']:.1f} s: {limited['requests']} requests, at most "
          f"{limited['most']} in any {SECONDS} s, {limited['refused']} refused; ratio_rate {found['ratio_rate']:.2f}")
    print(f"outbox  {outbox['per_second']:,.0f} tasks a second, sqlite3 one by one {outbox['plain_per_second']:,.0f}; "
          f"ratio_outbox {outbox['ratio_outbox']:.2f}")
    print(f"engine  {free['per_second']:,.0f} tasks a second, the client in a loop {1 / client:,.0f}; ratio_client "
          f"{found['ratio_client']:.2f}")
    print(f"memory  {few['mb']:.0f} MB with 1,000 rows, {lot['mb']:.0f} MB with {many:,} ({lot['sent']:,} sent); "
          f"ratio_memory {found['ratio_memory']:.2f}")


if __name__ == "__main__":
    main()
