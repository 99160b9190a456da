"""HubSpot's contract: every request and reply held against what was recorded, and against the vendor's description."""

import json
import os
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SPEC = Path(os.environ.get("CHURNKIT_HUBSPOT_SPEC", ROOT.parent / "shared" / "specs" / "hubspot_crm_subset.json"))
RECORDED = json.loads((Path(__file__).parent / "hubspot_contract.json").read_text(encoding="utf-8"))
"""For each request that the connector makes: the keys that it may have, and those that its reply must have."""


def endpoint(method, path):
    """The name under which a request is recorded, or None."""
    for name in RECORDED:
        verb, template = name.split(" ")
        if verb == method and re.fullmatch(re.sub(r"\{\w+\}", r"[^/]+", template), path):
            return name
    return None


@cache
def described(path):
    """The vendor's description, ready to check with; None where the file is absent.

    Security is left out: the fake checks tokens and scopes itself, and the checker knows no OAuth.
    """
    if not path.is_file():
        return None
    from openapi_core import OpenAPI

    spec = json.loads(path.read_text(encoding="utf-8"))
    for methods in spec["paths"].values():
        for operation in methods.values():
            operation.pop("security", None)
    return OpenAPI.from_dict(spec)


class Contract:
    """Says in words where a request or a reply is not what it must be."""

    def __init__(self, spec=SPEC):
        self._described = described(spec)

    def wrong(self, request, reply):
        """All that is wrong with one request and its reply."""
        path = request.path.rstrip("/")
        name = endpoint(request.method, path)
        where = f"{request.method} {path}"
        if name is None:
            return [f"{where}: no such request is recorded"]
        try:
            body = json.loads(request.body) if request.body else None
        except ValueError:
            return [f"{where}: the body is no JSON"]
        found = [*_request(RECORDED[name], request.query, body), *_reply(RECORDED[name], reply)]
        if self._described is not None and not path.startswith("/account-info/"):
            found += self._by_description(request, path, reply)
        return [f"{where}: {one}" for one in found]

    def _by_description(self, request, path, reply):
        from openapi_core.exceptions import OpenAPIError
        from openapi_core.testing import MockRequest, MockResponse

        asked = MockRequest("http://127.0.0.1", request.method.lower(), path, args=request.query,
                            data=request.body or None, content_type="application/json")
        data = b"" if reply.body is None else json.dumps(reply.body).encode()
        found = []
        for what, check in (("request", lambda: self._described.validate_request(asked)),
                            ("reply", lambda: self._described.validate_response(asked, MockResponse(
                                data, status_code=reply.status, content_type="application/json")))):
            if what == "reply" and reply.status == 204:
                continue  # an empty reply has nothing to check
            try:
                check()
            except OpenAPIError as error:
                reasons = [str(one.message) for one in getattr(error.__cause__, "schema_errors", ())]
                found.append(f"{what}: {'; '.join(reasons)[:300] or str(error)[:300]}")
        return found


def _request(recorded, query, body):
    found = [f"unknown query parameter '{name}'" for name in query if name not in recorded["query"]]
    if "body" not in recorded:
        return found + (["a body where none belongs"] if body is not None else [])
    found += _keys("the body", body, recorded["body"])
    inputs = recorded.get("inputs")
    if inputs is None or not isinstance(body, dict):
        return found
    if not isinstance(body.get("inputs"), list):
        return [*found, "inputs is no list"]
    if len(body["inputs"]) > inputs.get("most", len(body["inputs"])):
        found.append(f"{len(body['inputs'])} inputs, at most {inputs['most']}")
    return found + [one for row in body["inputs"] for one in (*_keys("an input", row, inputs), *_kinds(row))]


def _kinds(row):
    """What in an input is not of its kind."""
    row = row if isinstance(row, dict) else {}
    values = row.get("properties", {})
    texts = isinstance(values, dict) and all(isinstance(value, str) for value in values.values())
    return [*([] if texts else ["an input's properties are no texts"]),
            *([] if isinstance(row.get("associations", []), list) else ["an input's associations are no list"]),
            *([] if isinstance(row.get("id", ""), str) else ["an input's id is no text"])]


def _keys(what, found, recorded):
    if not isinstance(found, dict):
        return [f"{what} is no object"]
    return [*(f"{what} has the unknown key '{name}'" for name in found if name not in recorded["allowed"]),
            *(f"{what} lacks '{name}'" for name in recorded["required"] if name not in found)]


def _reply(recorded, reply):
    said = recorded["replies"].get(str(reply.status), recorded["replies"]["default"])
    if str(reply.status) not in recorded["replies"] and reply.status < 400:
        return [f"a reply of {reply.status}"]
    body = reply.body if isinstance(reply.body, dict) else {}
    found = [f"the reply lacks '{name}'" for name in said["required"] if name not in body]
    return found + [f"one of the reply's {part} lacks '{name}'" for part in ("results", "errors")
                    for row in body.get(part, ()) if part in said for name in said[part] if name not in row]
