"""The one door to Salesforce's client: each request goes out once, follows nothing, and lets no library's error out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import requests
from simple_salesforce.api import Salesforce
from simple_salesforce.exceptions import SalesforceError

from churnkit.outreach.crm.base import CrmDeniedError
from churnkit.outreach.crm.salesforce_faults import EXPIRED, UNREADABLE, Said, brief, broken, failure, heard
from churnkit.outreach.crm.secret import Secret

TOKEN = "CHURNKIT_SALESFORCE_TOKEN"  # noqa: S105 -- a variable's name
CLIENT_ID, CLIENT_SECRET = "CHURNKIT_SALESFORCE_CLIENT_ID", "CHURNKIT_SALESFORCE_CLIENT_SECRET"
VERSION = "60.0"


class Line:
    """Asks one org, with one token.

    The client renews a session by sending again whatever it was sending, so it is given a token alone, and the token
    of an app is renewed here: only what was refused with 401, and so was not done, is sent once more.

    Args:
        host: The org's own host.
        token: An access token, or None where there is an app.
        app: The client id and secret of an app with the client credentials flow.
        timeout: How many seconds a connection or a reply may take.
        ca: A file of certificate authorities to trust instead of the usual ones.
        version: Of the interface.
    """

    def __init__(self, host: str, token: Secret | None, app: tuple[str, Secret] | None = None, *, timeout: float = 30.0,
                 ca: str = "", version: str = VERSION) -> None:
        self.host = host
        self.spend: Callable[[], None] = lambda: None
        self._token, self._app, self._timeout, self._version = token, app, timeout, version
        self._headers: Mapping[str, str] = {}
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy, no .netrc and no other authorities from the environment
        self._session.verify = ca or True
        self._session.mount("https://", requests.adapters.HTTPAdapter(pool_connections=1, max_retries=0))
        self._session.hooks["response"].append(self._hear)

    def ask(self, method: str, path: str, *, writing: bool = False, params: Mapping[str, str] | None = None,
            json: Any = None) -> Any:
        """One request's answer: a JSON object, or, of a `writing` one, a list.

        Raises:
            CrmDownError: If it was not done; CrmDeniedError if it will not be.
            CrmUnsureError: If it is `writing`, and may have been done.
            CrmRefusedError: If it is `writing`, and was refused for good.
        """
        said = self.say(method, path, params=params, json=json)
        if said.good and not isinstance(said.body, list if writing else dict):
            said = Said(0, code=UNREADABLE)
        if not said.good:
            raise failure(said, self.host, writing=writing)
        return said.body

    def say(self, method: str, path: str, *, params: Mapping[str, str] | None = None, json: Any = None) -> Said:
        """One request's answer, good or bad."""
        if self._token is None:
            self._sign_in()
        said = self._once(method, path, params, json)
        if self._app is not None and (said.status, said.code) == (401, EXPIRED):
            self._sign_in()
            said = self._once(method, path, params, json)
        return said

    def hidden(self, text: str) -> str:
        """A text in which no secret stands."""
        for one in (self._token, self._app[1] if self._app else None):
            text = one.hidden(text) if one else text
        return text

    def close(self) -> None:
        """Lets the connection go; the next request makes a new one."""
        self._session.close()

    def _once(self, method: str, path: str, params: Mapping[str, str] | None, json: Any) -> Said:
        self.spend()
        self._headers = {}
        try:
            body = self._client().restful(path, params=dict(params) if params else None, method=method, json=json,
                                          timeout=self._timeout, allow_redirects=False)
        except SalesforceError as error:
            return self._no(error.status, error.content)
        except (requests.exceptions.JSONDecodeError, TypeError):  # the client counts whatever JSON there is
            return Said(0, code=UNREADABLE)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it holds the request, and that holds the token
            return broken(error)
        return Said(200, body)

    def _no(self, status: int, content: Any) -> Said:
        """A reply that says no, with the secrets covered that it may repeat."""
        said = heard(status, content, self._headers)
        return replace(said, code=self.hidden(said.code), text=self.hidden(said.text))

    def _client(self) -> Salesforce:
        return Salesforce(session_id=self._token.reveal() if self._token else "", instance=self.host,
                          session=self._session, version=self._version, object_pairs_hook=dict)

    def _sign_in(self) -> None:
        """Fetches a token with the app's secret."""
        self.spend()
        self._headers = {}
        token, said, home = self._fetch()
        if said.status in {400, 401}:
            raise CrmDeniedError(f"Salesforce ({self.host}) gives the app no token: {said.code} "
                                 f"{said.text}. Check {CLIENT_ID} and {CLIENT_SECRET}, and that the app "
                                 "allows the client credentials flow and names the user to run as.")
        if token is None:
            raise failure(said, self.host, writing=False)
        if home and home.lower() != self.host.lower():
            raise CrmDeniedError(f"The app's org is at {brief(home, 100)}, not at {self.host}. The token was not used. "
                                 f"Set [crm_options] instance = '{brief(home, 100)}' if that is the one you mean.")
        self._token = token

    def _fetch(self) -> tuple[Secret | None, Said, str]:
        """The token in its cover, what was said, and the org's host; no plain secret outlives this frame."""
        if self._app is None:
            return None, Said(0), ""
        try:
            reply = self._session.post(
                f"https://{self.host}/services/oauth2/token", timeout=self._timeout, allow_redirects=False,
                data={"grant_type": "client_credentials", "client_id": self._app[0],
                      "client_secret": self._app[1].reveal()})
        except Exception as error:  # noqa: BLE001 -- as above
            return None, broken(error), ""
        try:
            told = reply.json()
        except ValueError:
            told = None
        if reply.status_code != 200:
            return None, self._no(reply.status_code, told), ""
        if not isinstance(told, dict) or not told.get("access_token"):
            return None, Said(0, code=UNREADABLE), ""
        return Secret(str(told["access_token"])), Said(200), urlsplit(str(told.get("instance_url") or "")).netloc

    def _hear(self, reply: requests.Response, *_: Any, **__: Any) -> None:
        """Keeps a reply's headers, which the client's errors leave out."""
        self._headers = dict(reply.headers)
