"""What Salesforce's replies mean: done, not done, perhaps done, or never to be done."""

from __future__ import annotations

import email.utils
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from churnkit.errors import OutreachError
from churnkit.outreach.crm.base import CrmDeniedError, CrmDownError, CrmRefusedError, CrmUnsureError
from churnkit.outreach.crm.words import plain

EXPIRED = "INVALID_SESSION_ID"
SPENT = "REQUEST_LIMIT_EXCEEDED"
TWICE = "DUPLICATE_VALUE"
GONE = frozenset({"ENTITY_IS_DELETED", "NOT_FOUND", "INVALID_CROSS_REFERENCE_KEY"})
"""What is said of an id that is there no more."""
NO_OWNER = frozenset({"INACTIVE_OWNER_OR_USER", "INACTIVE_OWNER", "OP_WITH_INVALID_USER_TYPE_EXCEPTION"})
PASSING = frozenset({"UNABLE_TO_LOCK_ROW", SPENT, "SERVER_UNAVAILABLE", "QUERY_TIMEOUT",
                     "ALL_OR_NONE_OPERATION_ROLLED_BACK", "PROCESSING_HALTED"})
"""What one row may be told of that goes through the next time."""
_PASSING_READS = frozenset({"QUERY_TIMEOUT", "INVALID_QUERY_LOCATOR", "SERVER_UNAVAILABLE", "UNABLE_TO_LOCK_ROW"})

NOWHERE, UNTRUSTED, BROKEN, UNREADABLE = "no connection", "untrusted", "broken line", "unreadable"
"""Codes of our own for the want of a reply."""


@dataclass(frozen=True)
class Said:
    """One reply, or the want of one (status 0).

    `code` is Salesforce's word for an error, `text` its sentence, without control characters, secrets or great length.
    """

    status: int
    body: Any = None
    code: str = ""
    text: str = ""
    wait: float | None = None
    elsewhere: str = ""

    @property
    def good(self) -> bool:
        """Whether the request was done and its reply understood."""
        return 200 <= self.status < 300 and not self.code


def heard(status: int, content: Any, headers: Mapping[str, str]) -> Said:
    """A reply that says no, as its status, its list of errors and its headers tell it."""
    code, text = "", ""
    first = content[0] if isinstance(content, list) and content else content
    if isinstance(first, Mapping):
        code = str(first.get("errorCode") or first.get("error") or "")
        text = str(first.get("message") or first.get("error_description") or "")
    moved = headers.get("Location", "") if 300 < status < 400 else ""
    return Said(status, None, brief(code, 60), brief(text), _wait(headers), urlsplit(moved).hostname or "")


def brief(text: str, most: int = 300) -> str:
    r"""Another's words, fit for one of our sentences.

    >>> brief("no such\ncolumn\x1b[31m")
    'no such column[31m'
    """
    return plain(" ".join(plain(text).split()), most)


def broken(error: BaseException) -> Said:
    """The want of a reply, told by the client's error: whether the request may have gone out all the same."""
    names = [type(one).__name__ for one in _chain(error)]
    if "SSLCertVerificationError" in names or "CertificateError" in names:
        return Said(0, code=UNTRUSTED)
    if {"NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ConnectTimeout"} & set(names):
        return Said(0, code=NOWHERE)
    return Said(0, code=BROKEN, text=names[0])


def failure(said: Said, host: str, *, writing: bool) -> OutreachError:
    """The engine's error for a reply that is not good.

    Args:
        said: The reply.
        host: For the message.
        writing: Whether the request would have changed something there.
    """
    words = f"Salesforce ({host}) says {said.status}{f' {said.code}' if said.code else ''}"
    words += f": {said.text.rstrip('.')}." if said.text else "."
    if said.status < 300:
        return _unheard(said, host, writing=writing)
    if denied := _denied(said, host):
        return CrmDeniedError(denied.replace("SAID", words))
    if said.code == SPENT:  # or too many long requests at this moment, which is not the day's quota
        return CrmDownError(words, wait=said.wait, today="concurrent" in said.text.lower())
    if said.status in {429, 503} or (not writing and said.code in _PASSING_READS):
        return CrmDownError(words, wait=said.wait)
    if said.status == 408 or said.status >= 500:
        return CrmUnsureError(words) if writing else CrmDownError(words, wait=said.wait)
    return CrmRefusedError(words) if writing else CrmDeniedError(f"{words} Run: churnkit crm setup salesforce.")


def _denied(said: Said, host: str) -> str:
    """What a person must mend; SAID stands for Salesforce's words. Empty where it is something else."""
    if 300 < said.status < 400:
        return (f"{host} sends us elsewhere{f', to {said.elsewhere}' if said.elsewhere else ''} ({said.status}). The "
                "token was not sent on. Set [crm_options] instance to the host that your administrator names.")
    if said.status == 401 or said.code == EXPIRED:
        return ("SAID The token is not valid, or not any more. Set a new CHURNKIT_SALESFORCE_TOKEN; or set "
                "CHURNKIT_SALESFORCE_CLIENT_ID and _CLIENT_SECRET, and it is renewed.")
    if said.status == 403 and said.code != SPENT:
        return "SAID Ask an administrator for the permission; docs/salesforce.md lists them."
    if said.status == 404:
        return "SAID Is [crm_options] instance a Salesforce host, and its version one that this host has?"
    return ""


def _unheard(said: Said, host: str, *, writing: bool) -> OutreachError:
    if said.code == UNTRUSTED:
        return CrmDeniedError(f"{host} shows a certificate that is not trusted, so nothing was sent. Mend the host in "
                              "[crm_options] instance, or name your proxy's authority: [crm_options] ca = '...'.")
    if said.code == NOWHERE:
        return CrmDownError(f"{host} does not answer: no connection.")
    words = f"{host}: the reply cannot be read." if said.code == UNREADABLE else \
        f"{host}: no reply, or half of one ({said.text or 'line dropped'})."
    return CrmUnsureError(words) if writing else CrmDownError(words)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what stands behind it, wherever the libraries keep that; each once."""
    waiting: list[Any] = [error]
    seen: list[BaseException] = []
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, BaseException) and not any(one is other for other in seen):
            seen.append(one)
            waiting += [getattr(one, "reason", None), one.__cause__, one.__context__, *one.args]
            yield one


def _wait(headers: Mapping[str, str]) -> float | None:
    """Retry-After in seconds; a moment is held against the server's own clock, not against ours."""
    after = headers.get("Retry-After", "").strip()
    if after.isdecimal():
        return float(after)
    try:
        then, now = (email.utils.parsedate_to_datetime(text) for text in (after, headers.get("Date", "")))
        return max(0.0, (then - now).total_seconds())
    except (ValueError, TypeError):
        return None
