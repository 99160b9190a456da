"""The written contract that every request to the fake Salesforce, and every reply of it, is held against."""

import json
import re
from pathlib import Path
from urllib.parse import parse_qs

from jsonschema import Draft202012Validator

CONTRACT = json.loads((Path(__file__).parent / "salesforce_contract.json").read_text(encoding="utf-8"))
BEARER = re.compile(r"Bearer \S+")


def endpoint_of(request):
    """The name of the endpoint that a request goes to, or None."""
    for name, end in CONTRACT["endpoints"].items():
        if request.method == end["method"] and re.fullmatch(end["path"], request.path):
            return name
    return None


def wrong_request(request):
    """What a request says that the contract does not allow, a sentence each."""
    name = endpoint_of(request)
    if name is None:
        return [f"{request.method} {request.path}: no such endpoint"]
    end, where, found = CONTRACT["endpoints"][name], f"{name} request", []
    if sorted(request.query) != sorted(end["params"]) or any(len(values) != 1 for values in request.query.values()):
        found.append(f"{where}: parameters {sorted(request.query)}, not {sorted(end['params'])}, each once")
    if not end.get("open") and not BEARER.fullmatch(request.headers.get("authorization", "")):
        found.append(f"{where}: no bearer token")
    if "form" in end:
        form = parse_qs(request.body.decode(), keep_blank_values=True)
        if sorted(form) != sorted(end["form"]):
            found.append(f"{where}: form {sorted(form)}, not {sorted(end['form'])}")
    elif "body" in end:
        try:
            body = request.json()
        except ValueError:
            return [*found, f"{where}: the body is no JSON"]
        found += _wrong(end["body"], body, where)
    elif request.body:
        found.append(f"{where}: has a body")
    return found


def wrong_reply(request, reply):
    """What the fake says that Salesforce would not."""
    name = endpoint_of(request)
    where = f"{name} reply {reply.status}"
    if reply.status >= 300:
        return _wrong(CONTRACT["errors"]["token" if name == "token" else "data"], reply.body, where)
    schema = CONTRACT["endpoints"].get(name, {}).get("replies", {}).get(str(reply.status))
    return [f"{where}: not foreseen"] if schema is None else _wrong(schema, reply.body, where)


def _wrong(schema, value, where):
    checker = Draft202012Validator({**schema, "$defs": CONTRACT["$defs"]})
    return [f"{where}: {'/'.join(map(str, error.absolute_path))}: {error.message[:200]}"
            for error in checker.iter_errors(value)]
