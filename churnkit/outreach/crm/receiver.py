"""The door for consumers' answers: a small web server that takes signed messages, each once, and nothing else."""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from churnkit.errors import OutreachError, SettingsError
from churnkit.outreach.crm.inbox import Inbox, MessageError
from churnkit.outreach.crm.options import loopback
from churnkit.outreach.crm.signed import Keys, SignatureError

PATH = "/churnkit"
PORT = 8321
LIMIT = 64 * 1024
"""Bytes that a message may have."""
SECONDS = 20.0
"""How long a request may take from its first byte to its last."""
AT_ONCE = 32
"""Requests that are served at one time; others wait in the queue of the port."""
_LINGER = 1.0


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Receiver:
    """Takes a message that a consumer sent: genuine, lately signed, and not taken before.

    Args:
        keys: Whose signatures count.
        inbox: Where messages are kept.
        now: The moment.
    """

    def __init__(self, keys: Keys, inbox: Inbox, now: Callable[[], dt.datetime] = _now) -> None:
        self._keys, self._inbox, self._now = keys, inbox, now

    def take(self, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        """The status of the reply, and why where that is an error; with 204 the message is on the disk.

        Nothing but the signature is looked at before that is known to be good.
        """
        if len(body) > LIMIT:
            return 413, f"a message has at most {LIMIT} bytes."
        try:
            self._inbox.take(self._keys.verify(body, headers), body, self._now())
        except SignatureError as refused:
            return 401, f"{refused}."
        except MessageError as wrong:
            return wrong.status, str(wrong)
        except OutreachError:
            return 503, "it cannot be kept just now: send it again later."
        return 204, ""


class Server(ThreadingHTTPServer):
    """A receiver behind a port."""

    daemon_threads = False  # what is being taken when the server stops is taken to the end
    request_queue_size = 128

    def __init__(self, receiver: Receiver, host: str = "127.0.0.1", port: int = PORT, seconds: float = SECONDS) -> None:
        self.receiver, self.seconds = receiver, seconds
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._places = threading.BoundedSemaphore(AT_ONCE)
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread of its own, when there is a place; a stuck one is free again after SECONDS."""
        self._places.acquire()
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class's names
        """A line that breaks is no news; of anything else the kind is told, not the words, which may be anybody's."""
        kind = sys.exc_info()[0]
        if kind is not None and not issubclass(kind, OSError):
            sys.stderr.write(f"churnkit crm receive: a request failed ({kind.__name__}); it was not answered.\n")


class _Timed(io.RawIOBase):
    """A socket's bytes until a moment: whoever sends one at a time is cut off as well."""

    def __init__(self, line: socket.socket, until: float) -> None:
        self._line, self._until = line, until

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._line.settimeout(left)
        return self._line.recv_into(into)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(self.server.seconds)
        self.rfile.close()
        self.rfile = io.BufferedReader(_Timed(self.connection, time.monotonic() + self.server.seconds))

    def handle(self) -> None:
        """One request for each connection."""
        with contextlib.suppress(OSError):
            self.handle_one_request()

    def do_POST(self) -> None:
        if self.path != PATH:
            self._other()
            return
        status, why = self._head()
        if status:
            self._say(status, why)
            self._linger()
            return
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:
            self._say(400, "the body is shorter than its Content-Length.")
        else:
            self._say(*self.server.receiver.take(dict(self.headers.items()), body))  # each name is there once: _head

    def _other(self) -> None:
        if self.path == PATH:
            self._say(405, "only POST is known here.")
        else:
            self._say(404, "there is nothing here.")
        self._linger()

    do_GET = do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _other  # noqa: N815 - the base class's names

    def _head(self) -> tuple[int, str]:
        """What is wrong before the body is read: a status and the words, or 0."""
        lengths = self.headers.get_all("Content-Length") or []
        if len(self.headers.keys()) > len({name.lower() for name in self.headers.keys()}):  # noqa: SIM118 - repeats count
            return 400, "a header stands there twice."
        if self.headers.get_content_type() != "application/json":
            return 415, "the Content-Type must be application/json."
        if "Transfer-Encoding" in self.headers or not lengths:
            return 411, "say the Content-Length; chunks are not taken."
        if not (lengths[0].isascii() and lengths[0].isdigit()):
            return 400, "the Content-Length is no number."
        if len(lengths[0]) > 9 or int(lengths[0]) > LIMIT:
            return 413, f"a message has at most {LIMIT} bytes."
        return 0, ""

    def _say(self, status: int, why: str = "") -> None:
        body = json.dumps({"error": why}).encode() if status >= 400 else b""
        self.close_connection = True
        self.send_response_only(status)
        self.send_header("Connection", "close")
        if status == 405:
            self.send_header("Allow", "POST")
        if status == 503:
            self.send_header("Retry-After", "60")
        if status != 204:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def _linger(self) -> None:
        """Takes what is still coming, for a moment: a line that is cut at once may lose the reply."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_LINGER)
            until, left = time.monotonic() + _LINGER, 16 * LIMIT
            while left > 0 and time.monotonic() < until and (got := len(self.connection.recv(LIMIT))):
                left -= got

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """What the base class finds wrong, without repeating what came."""
        self.request_version = "HTTP/1.1"  # to one of the ancients the base class would send no status
        self.command = self.command or ""
        self._say(int(code), "this is no request that is understood here.")

    def handle_expect_100(self) -> bool:
        """Nobody is asked for a body before its head is known to be good."""
        return True

    def log_message(self, *_: object) -> None:
        """Nothing is printed: what comes may be anybody's."""


def serve(receiver: Receiver, host: str = "127.0.0.1", port: int = PORT,
          say: Callable[[str], object] = str) -> None:
    """Receives until it is stopped (Ctrl-C or SIGTERM).

    Args:
        receiver: Takes the messages.
        host: The address to listen on; any but the loopback is another machine's way in, and is warned of.
        port: The port; 0 takes a free one.
        say: Prints a line.

    Raises:
        SettingsError: If it cannot listen there.
    """
    try:
        server = Server(receiver, host, port)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no such port"
        raise SettingsError(f"churnkit crm receive: cannot listen on {host}, port {port} ({reason}). Name another: "
                            "--port, --host.") from None
    with server, _stopped_by_sigterm():
        if not loopback(host):
            say(f"WARNING: {host} can be reached by other machines, and this server speaks plain HTTP. Let a reverse "
                "proxy end TLS before it, or listen on 127.0.0.1.")
        say(f"Receiving on http://{f'[{host}]' if ':' in host else host}:{server.server_address[1]}{PATH}; Ctrl-C "
            "ends it.")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.2)


@contextlib.contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does; what is being written is written."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
