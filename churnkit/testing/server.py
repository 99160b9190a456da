"""A small web server for fakes of a CRM, with the faults of a bad line and a bad day on demand."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

FAULTS: Mapping[str, str] = {
    "dropped_before": "the line drops before the request is done",
    "dropped_after": "the request is done, the line drops before a word of the reply",
    "lost": "the request is done, the line drops amid the reply",
    "502": "the request is done, and a gateway says 502",
    "504": "the request is done, and a gateway says 504",
    "503": "the request is not done: 503",
    "429": "the request is not done: 429 with Retry-After",
    "429_bare": "the request is not done: 429 without Retry-After",
    "slow": "the request is done, and the reply comes too late",
    "malformed": "the request is done, and the reply is no JSON",
}
"""fault = what happens to one request. `Server.refuse` is the one that needs no request."""
_DONE = frozenset({"dropped_after", "lost", "502", "504", "slow", "malformed"})


@dataclass(frozen=True)
class Request:
    """What a client asked for; header names are in lower case."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            ValueError: If it is none.
        """
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """What the server answers: `body` is sent as JSON, or as it is where it is bytes; None is an empty body."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


App = Callable[[Request], Reply]


class Server:
    """An app behind a port of this host's loopback; a context manager.

    Args:
        app: Answers a request. It is called by one thread at a time.
        writes: Which requests faults befall; by default all but GET.
        tls: The server's certificate, as a context; left out, plain HTTP.
        late: How many seconds a slow reply takes: more than the client waits.
    """

    def __init__(self, app: App, *, writes: Callable[[Request], bool] = lambda request: request.method != "GET",
                 tls: ssl.SSLContext | None = None, late: float = 1.5) -> None:
        self.app, self.writes, self.late, self._tls = app, writes, late, tls
        self.faults: deque[str] = deque()
        self.seen: list[tuple[str, str, int]] = []
        self.too_many = Reply(429, {"message": "too many requests"})
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._port = 0
        self._http = self._listen(0)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        """Listens."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the port."""
        self._closing.set()
        if self._http is not None:
            self._stop(self._http)

    @contextlib.contextmanager
    def refuse(self) -> Iterator[None]:
        """While this lasts, connections are refused."""
        if self._http is not None:
            self._stop(self._http)
        self._http = None
        try:
            yield
        finally:
            self._http = self._listen(self._port)

    def answer(self, handler: _Handler, request: Request) -> None:
        """Answers one request, with whatever fault is due."""
        with self._lock:
            fault = self.faults.popleft() if self.faults and self.writes(request) else ""
            if not fault or fault in _DONE:
                reply = self.app(request)
            elif fault in {"429", "429_bare"}:
                wait = {"Retry-After": "2"} if fault == "429" else {}
                reply = Reply(429, self.too_many.body, {**self.too_many.headers, **wait})
            else:
                reply = Reply(503, {"message": "unavailable"})
            self.seen.append((request.method, request.path, 0 if fault.startswith("dropped") else reply.status))
        if fault.startswith("dropped"):
            handler.drop()
        elif fault in {"502", "504"}:
            handler.send(Reply(int(fault), b"<html>bad gateway</html>", {"Content-Type": "text/html"}))
        elif fault == "slow":
            self._closing.wait(self.late)
            with contextlib.suppress(OSError):
                handler.send(reply)
        elif fault == "malformed":
            handler.send(Reply(reply.status, b'{"results": [', {"Content-Type": "application/json"}))
        elif fault == "lost":
            handler.send(reply, half=True)
        else:
            handler.send(reply)

    def _listen(self, port: int) -> _Http | None:
        http = _Http(("127.0.0.1", port), _Handler)
        http.owner = self
        if self._tls is not None:
            http.socket = self._tls.wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
        self._port = http.server_address[1]
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return http

    def _stop(self, http: _Http) -> None:
        http.shutdown()
        http.server_close()
        http.hang_up()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64
    owner: Server

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Ends the connections that clients keep open."""
        for request in list(self._open):
            with contextlib.suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet a reply: else the client's delayed acknowledgement costs 40 ms
    disable_nagle_algorithm = True
    server: _Http

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
            super().handle_one_request()
            return
        self.close_connection = True

    def drop(self) -> None:
        """Closes the line without a word."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def send(self, reply: Reply, *, half: bool = False) -> None:
        """Sends a reply, or only half of it."""
        body = b"" if reply.body is None else reply.body if isinstance(reply.body, bytes) else \
            json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        if reply.status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:len(body) // 2] if half else body)
        self.wfile.flush()
        if half:
            self.drop()

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        length = self.headers.get("Content-Length") or "0"
        body = self.rfile.read(int(length)) if length.isdigit() else b""
        if length.isdigit() and len(body) < int(length):  # its sender died: half a request is none
            self.drop()
            return
        names = {name.lower(): value for name, value in self.headers.items()}
        self.server.owner.answer(self, Request(self.command, parts.path, parse_qs(parts.query, keep_blank_values=True),
                                               names, body))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _answer  # noqa: N815 - the base class's names

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""
