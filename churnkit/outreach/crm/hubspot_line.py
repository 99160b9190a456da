"""The line to HubSpot: the one file that imports its client. One request at a time, never tried again by itself."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import urllib3
from hubspot import HubSpot  # type: ignore[import-untyped]
from hubspot.crm import companies, owners, properties  # type: ignore[import-untyped]
from hubspot.crm.objects import tasks  # type: ignore[import-untyped]

from churnkit.outreach.crm.base import CrmDeniedError, CrmDownError, CrmRefusedError, CrmUnsureError
from churnkit.outreach.crm.secret import Secret
from churnkit.outreach.crm.words import plain

PAGE = 100
"""How many rows a search tells at a time."""
TOKEN = "CHURNKIT_HUBSPOT_TOKEN"  # noqa: S105 -- the variable's name, not its value
CONFLICTS = ("CONFLICT", "OBJECT_ALREADY_EXISTS", "CONFLICTING_UNIQUE_VALUE", "DUPLICATE", "already exist",
             "already has that value")
"""How HubSpot says that a unique value is taken; by category, or in the midst of the message."""
_NOT_SENT = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError,
             urllib3.exceptions.LocationValueError, urllib3.exceptions.ClosedPoolError)
"""What happens before a request goes out. Their common base will not do: it is that of a read time-out as well."""
_WAIT = frozenset({423, 429, 477, 503})
"""Not done, and to be tried again: locked, too many, being moved, not available."""


class DeniedError(CrmDeniedError):
    """HubSpot will not do it: `status` is its answer's, `scopes` those that it says are missing."""

    def __init__(self, message: str, status: int, scopes: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.status, self.scopes = status, scopes


class RefusedError(CrmRefusedError):
    """HubSpot will not take a write; `taken` where it says that a unique value is there already."""

    def __init__(self, message: str, status: int, *, taken: bool) -> None:
        super().__init__(message)
        self.status, self.taken = status, taken


@dataclass(frozen=True)
class Answer:
    """A reply that is a JSON object; what stands in it may still be anything."""

    status: int
    body: Mapping[str, Any]

    def told(self, name: str = "results") -> list[dict[str, Any]]:
        """The objects in a list of the reply, as far as there are any; of a row the properties are an object."""
        found = self.body.get(name)
        rows = [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
        return [row if isinstance(row.get("properties", {}), dict) else {**row, "properties": {}} for row in rows]

    def rows(self) -> list[dict[str, Any]]:
        """All that a question found.

        Raises:
            CrmDownError: If the reply does not say it, or of something only that it could not be looked up: nobody may
                take that for not being there.
        """
        if not isinstance(self.body.get("results"), list):
            raise CrmDownError("HubSpot's reply holds no results.")
        unknown = [one for one in self.told("errors") if str(one.get("category")) != "OBJECT_NOT_FOUND"]
        if unknown:
            raise CrmDownError(f"HubSpot could not look everything up ({plain(str(unknown[0].get('category')), 60)}).")
        return self.told()

    @property
    def after(self) -> str | None:
        """Where the next page begins."""
        paging = self.body.get("paging")
        following = paging.get("next") if isinstance(paging, dict) else None
        found = following.get("after") if isinstance(following, dict) else None
        return str(found) if found else None


class Line:
    """HubSpot's APIs behind one pool of connections; `ask` is the only way through.

    The client's own replies are left unread and its retries turned off: it knows no default time-out, would repeat a
    request, and follows redirects with the token in hand.

    Args:
        host: Such as https://api.hubapi.com.
        token: The private app's.
        timeout: How many seconds a connection and each part of a reply may take.
        spend: Called before each request, and before a search `searches` times.
        searches: For how many requests a search counts.
    """

    def __init__(self, host: str, token: Secret, timeout: float, spend: Callable[[], None], searches: int = 1) -> None:
        client = HubSpot(access_token=token.reveal(), host=host, retry=False).crm.objects.tasks.batch_api.api_client
        self.host, self._token, self._timeout, self._spend = host, token, timeout, spend
        self._client, self._searches = client, searches
        self.tasks, self.search, self.task = tasks.BatchApi(client), tasks.SearchApi(client), tasks.BasicApi(client)
        self.companies, self.company = companies.BatchApi(client), companies.BasicApi(client)
        self.company_search, self.owners = companies.SearchApi(client), owners.OwnersApi(client)
        self.properties, self.groups = properties.CoreApi(client), properties.GroupsApi(client)

    def ask(self, call: Callable[..., Any], *given: Any, writing: bool = False, **more: Any) -> Answer:
        """One request.

        Args:
            call: A method of one of the APIs.
            given: What it takes; bodies are plain dicts.
            writing: Whether it may have been done when no clear reply comes.
            more: Its options.

        Raises:
            CrmDownError: If it was not done, and may be another time.
            CrmDeniedError: If it will not be done until a person mends something.
            CrmUnsureError: If it was `writing`, and what became of it is not known.
            CrmRefusedError: If it was `writing`, and will never be taken.
        """
        self._spend()
        answer: Answer | None = None
        failure: Exception | None = None
        try:
            reply = call(*given, **more, _preload_content=False, _request_timeout=self._timeout)
            answer = _read(reply.status, self._token.hidden(reply.data.decode()))
        except Exception as error:  # noqa: BLE001 -- no error of the client's may leave: it may hold the token
            failure = self._meaning(error, writing=writing)
        if failure is not None:  # raised out here, so that the client's error is no part of it
            raise failure
        assert answer is not None  # noqa: S101 -- there is either an answer or a failure
        return answer

    def look(self, search: Any, filters: Sequence[Mapping[str, Any]], by: str, wanted: Sequence[str]) -> list[
            dict[str, Any]]:
        """The first page of what all these filters let through, by a rising property."""
        for _ in range(self._searches - 1):
            self._spend()
        return self.ask(search.do_search, {"filterGroups": [{"filters": list(filters)}], "sorts": [by],
                                           "properties": list(wanted), "limit": PAGE}).rows()

    def sweep(self, search: Any, filters: Sequence[Mapping[str, Any]], wanted: Sequence[str]) -> Iterator[
            dict[str, Any]]:
        """All that these filters let through, by rising id.

        Each page is a question of its own, for what lies above the last id: offsets would leave a row out when another
        one changes between two pages, and end at 10,000.
        """
        last = "0"
        while True:
            above = {"propertyName": "hs_object_id", "operator": "GT", "value": last}
            rows = self.look(search, [*filters, above], "hs_object_id", wanted)
            yield from rows
            if len(rows) < PAGE:
                return
            last = str(rows[-1].get("id"))

    def details(self) -> Answer:
        """Which portal this is; the client has no method for that, and its general one knows no time-out."""
        return self.ask(self._client.call_api, "/account-info/v3/details", "GET",
                        header_params={"Accept": "application/json"}, auth_settings=["oauth2"])

    def close(self) -> None:
        """Lets the connections go; the next request makes new ones."""
        self._client.rest_client.pool_manager.clear()

    def hidden(self, text: object, most: int = 400) -> str:
        """HubSpot's words, fit for a message: without the token, should it be among them, and not too long."""
        return " ".join(plain(self._token.hidden(text), most).split())

    def _meaning(self, error: Exception, *, writing: bool) -> Exception:
        """One of the protocol's errors for whatever went wrong."""
        if not isinstance(getattr(error, "status", None), int) and hasattr(error.__context__, "status"):
            error = error.__context__  # type: ignore[assignment] # the client stumbled over a body that is no text
        status = getattr(error, "status", None)
        if isinstance(status, int) and status >= 300:
            headers = getattr(error, "headers", None) or {}
            return self._said(status, _body(error), headers, writing) or self._refused(status, _body(error), writing)
        kind = type(error).__name__
        if status == 0 and "CERTIFICATE_VERIFY_FAILED" in str(getattr(error, "reason", "")):
            return DeniedError(f"{self.host}: its certificate cannot be verified, so nothing was sent. Mend the "
                               "machine's certificates, or [crm_options] host.", 0)
        if isinstance(error, _NOT_SENT):
            return CrmDownError(f"HubSpot cannot be reached at {self.host} ({kind}).")
        if writing:
            return CrmUnsureError(f"HubSpot was sent a write, and no clear reply came ({kind}).")
        return CrmDownError(f"HubSpot gave no clear reply ({kind}).")

    def _said(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str],
              writing: bool) -> Exception | None:
        """What a status means that does not speak of what was sent; None where it does."""
        words = self.hidden(body.get("message") or "it gave no reason")
        if status < 400:
            return DeniedError(f"{self.host} answers with a redirect to {self.hidden(_place(headers))}: churnkit "
                               "follows none, for the token would go there too. Mend [crm_options] host.", status)
        if status in _WAIT:
            daily = body.get("policyName") == "DAILY"
            return CrmDownError(f"HubSpot wants no more for {'today' if daily else 'now'} ({status}: {words}).",
                                wait=_seconds(headers), today=not daily)
        if status >= 500 or status == 408:
            what = f"HubSpot answered {status}"
            return CrmUnsureError(f"{what} to a write: it may have been done.") if writing else CrmDownError(f"{what}.")
        return None

    def _refused(self, status: int, body: Mapping[str, Any], writing: bool) -> Exception:
        """What the other statuses mean: HubSpot has looked at it, and will not do it."""
        words = self.hidden(body.get("message") or "it gave no reason")
        if status == 401:
            return DeniedError(f"HubSpot refused the token ({words}). Make a new one in the private app, and set "
                               f"{TOKEN}.", status)
        if status == 403:
            scopes = tuple(self.hidden(scope) for scope in scopes_of(body))
            mend = (f"Add to the private app the scope{'s'[:len(scopes) > 1]} {', '.join(scopes)}, and set {TOKEN} anew"
                    if scopes else "Ask an administrator of the portal")
            return DeniedError(f"HubSpot does not let this token do that ({words}). {mend}.", status, scopes)
        if writing:
            taken = status == 409 or is_taken(json.dumps(body))
            return RefusedError(f"HubSpot refused it ({status}: {words}).", status, taken=taken)
        return DeniedError(f"HubSpot refused it ({status}: {words}). See what is missing: churnkit crm setup hubspot.",
                           status)


def is_taken(message: str) -> bool:
    """Whether HubSpot says that a unique value is there already."""
    return any(word in message for word in CONFLICTS)


def scopes_of(body: Mapping[str, Any]) -> list[str]:
    """The scopes that an error of HubSpot's names as missing."""
    errors = body.get("errors")
    contexts = [body.get("context"), *(one.get("context") for one in errors if isinstance(one, dict))] \
        if isinstance(errors, list) else [body.get("context")]
    names = ("requiredGranularScopes", "missingScopes", "requiredScopes")
    found = [scope for context in contexts if isinstance(context, dict)
             for name in names for scope in context.get(name) or ()]
    return sorted({str(scope) for scope in found})


def _read(status: int, raw: str) -> Answer:
    """A reply; one that is no object is an error like any other."""
    found = json.loads(raw) if raw else {}
    if not isinstance(found, dict):
        raise TypeError("the reply is no object")
    return Answer(status, found)


def _body(error: Exception) -> Mapping[str, Any]:
    try:
        found = json.loads(getattr(error, "body", None) or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _seconds(headers: Mapping[str, str]) -> float | None:
    """Retry-After, where it is a number of seconds."""
    try:
        wait = float(headers.get("Retry-After") or "")
    except ValueError:
        return None
    return wait if math.isfinite(wait) and wait >= 0 else None


def _place(headers: Mapping[str, str]) -> str:
    """Where a redirect leads: the host alone."""
    found = urlsplit(headers.get("Location") or "")
    return f"{found.scheme}://{found.hostname}" if found.hostname else "another place"
