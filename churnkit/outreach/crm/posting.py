"""One signed POST, and what its reply means: never a second one, never to another host."""

from __future__ import annotations

import datetime as dt
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import urllib3

from churnkit.errors import SettingsError
from churnkit.outreach.crm.base import CrmDeniedError, CrmDownError
from churnkit.outreach.crm.options import loopback
from churnkit.outreach.crm.signed import Keys
from churnkit.outreach.crm.words import plain

REPLY = 64 * 1024
"""Bytes of a reply that are read."""
DENIED: Mapping[int, str] = {
    301: "redirects, and redirects are not followed: set [crm_options] url to where it is now",
    401: "refuses the signature: give both sides the same key (CHURNKIT_WEBHOOK_SECRET)",
    403: "forbids this: ask its administrator to let churnkit in",
    404: "knows no such address: mend [crm_options] url",
    405: "takes no POST: mend [crm_options] url",
    407: "stands behind a proxy that wants a password; churnkit goes through none",
    410: "is disabled (410): when it is mended, or another url is set, run: churnkit crm setup webhook"}
"""status = what is wrong and the mend, where no message at all will be taken before that."""
State = Literal["written", "gone", "refused", "unsure", "down", "denied"]


@dataclass(frozen=True)
class Said:
    """What became of one message; `remote_id` is the consumer's own, `wait` what it asked for."""

    state: State
    why: str = ""
    remote_id: str = ""
    wait: float | None = None
    disabled: bool = False

    def error(self) -> CrmDownError:
        """The same as the error of a call in which nothing was written."""
        mended = self.state in {"denied", "refused"}  # by a person, and not by waiting
        return CrmDeniedError(self.why) if mended else CrmDownError(self.why, wait=self.wait)


@dataclass(frozen=True)
class Message:
    """What goes out; the same id is the same body."""

    id: str
    body: bytes


class Line:
    """The way to one consumer.

    Args:
        url: Its address, as `address` lets it pass.
        signing: The keys.
        timeout: Seconds to wait for the connection, and for the reply.
    """

    def __init__(self, url: str, signing: Keys, timeout: float) -> None:
        self.host = urlsplit(url).hostname or ""
        self._url, self._keys, self._timeout = url, signing, timeout
        self._http = urllib3.PoolManager(num_pools=1, maxsize=1, retries=False, cert_reqs="CERT_REQUIRED")

    def close(self) -> None:
        """Lets the connection go."""
        self._http.clear()

    def post(self, message: Message, now: dt.datetime) -> Said:
        """One request; never a second one. `now` is what a reply's date is compared with."""
        headers = self._keys.headers(message.id, message.body, dt.datetime.now(dt.UTC))  # the consumer's clock is real
        headers |= {"Content-Type": "application/json", "User-Agent": "churnkit"}
        until = time.monotonic() + self._timeout
        try:
            reply = self._http.request(
                "POST", self._url, body=message.body, headers=headers, redirect=False, retries=False,
                preload_content=False, decode_content=False,
                timeout=urllib3.Timeout(connect=self._timeout, read=self._timeout))
            try:
                body = _read(reply, until)
            finally:
                reply.close()  # one that was read to its end has given its connection back before
        except urllib3.exceptions.HTTPError as error:
            return self._broken(error)
        return self._meaning(reply.status, _retry_after(reply.headers.get("Retry-After"), now), body)

    def _broken(self, error: urllib3.exceptions.HTTPError) -> Said:
        """What a request without a whole reply means; the library's own words name the address, and are left out."""
        inner = error.args[0] if error.args else None
        if isinstance(error, urllib3.exceptions.NameResolutionError):
            return Said("down", f"The name {self.host} is not known to the name server.")
        if isinstance(error, urllib3.exceptions.ConnectTimeoutError):
            return Said("down", f"{self.host} takes no connection.")
        if isinstance(inner, ssl.SSLCertVerificationError):
            return Said("denied", f"{self.host} shows a certificate that is not trusted ({inner.verify_message}). Mend "
                                   "it there; for an authority of your own set SSL_CERT_FILE.")
        if isinstance(error, urllib3.exceptions.ReadTimeoutError):
            return Said("unsure", f"{self.host} did not answer within {self._timeout:g} seconds.")
        return Said("unsure", f"The line to {self.host} broke before the reply was whole.")

    def _meaning(self, status: int, wait: float | None, body: bytes) -> Said:
        """What a whole reply means."""
        told = _object(body)
        if 200 <= status < 300:
            gone = told.get("state") == "gone"
            remote_id = told.get("remote_id")
            return Said("gone" if gone else "written", "a person deleted it" if gone else "",
                         plain(remote_id, 200) if isinstance(remote_id, str) else "")
        if status in DENIED or 300 <= status < 400:
            return Said("denied", f"{self.host} {DENIED.get(status, DENIED[301])}.", disabled=status == 410)
        if status in {429, 503}:
            return Said("down", f"{self.host} takes no more for now ({status}).", wait=wait)
        if 400 <= status < 500 and status not in {408, 425}:
            why = next((told[name] for name in ("error", "message", "detail") if isinstance(told.get(name), str)), "")
            words = self._keys.hidden(plain(why, 200)).rstrip(". ") or "it does not say why"
            return Said("refused", f"{self.host} refused it ({status}): {words}. Mend it there, or in the raw tables; "
                                   "then: churnkit sync dead retry.")
        return Said("unsure", f"{self.host} answered {status}.")


def address(url: str) -> str:
    """The URL, if it may be used; it is not shown: its path may be a secret."""
    where = "[crm_options] url"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        urllib3.util.parse_url(url)
    except (ValueError, urllib3.exceptions.HTTPError):
        host, port = "", 0
        parts = urlsplit("")
    if not host or port == 0 or parts.scheme not in {"https", "http"} or not url.isascii() or not url.isprintable():
        raise SettingsError(f"{where}: is no address. Write the consumer's, such as https://tasks.example.com/churnkit")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise SettingsError(f"{where}: holds a user, a password or a '#'. Take them out: messages are signed instead.")
    if parts.scheme == "http" and not loopback(host):
        raise SettingsError(f"{where}: plain http would carry tasks over the network for all to read. Use https; http "
                            "is for this machine alone (127.0.0.1, localhost).")
    return url


def _read(reply: urllib3.BaseHTTPResponse, until: float) -> bytes:
    """A reply's body, as far as anybody wants to know it, and not for ever."""
    body = b""
    while len(body) < REPLY and (some := reply.read1(REPLY)):
        body += some
        if time.monotonic() > until:
            raise urllib3.exceptions.ProtocolError
    return body


def _object(body: bytes) -> dict[str, Any]:
    """A JSON object; whatever else a consumer says is of no account."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _retry_after(said: str | None, now: dt.datetime) -> float | None:
    """Seconds, from a number or a date; at most a day.

    >>> now = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
    >>> _retry_after("120", now), _retry_after("Sun, 01 Nov 2026 00:01:00 GMT", now), _retry_after("soon", now)
    (120.0, 60.0, None)
    """
    said = (said or "").strip()
    try:
        if said.isascii() and said.isdigit():
            wait = float(said)
        else:
            at = parsedate_to_datetime(said)
            wait = ((at if at.tzinfo else at.replace(tzinfo=dt.UTC)) - now).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(wait, 0.0), 24 * 3600.0)
