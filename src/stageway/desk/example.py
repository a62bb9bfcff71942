"""A request to try: one of the project's samples, else the service's own example, else one made from its contract."""

from __future__ import annotations

import json
import shlex
import warnings
from pathlib import Path
from typing import Any

import requests

from stageway import samples
from stageway.contract import Contract, Schema
from stageway.desk.service import OWN_REQUESTS

LONGEST = 400
"""Characters of a body that still reads well in a terminal."""


JSON = ("-H", "content-type: application/json")
ANY: dict[str, Any] = {"data": []}
EDIT = "edit the body: nothing declares what the script takes"
FILE = "put a file of yours for FILE: the script takes the request as it is"
TOO_LONG = "edit the body: the example is too long for a line, /docs shows it"


def command(address: str, *, found: Path | None, guarded: bool, secure: bool) -> tuple[str, str]:
    """Return a command line that scores something on the service at *address*, and what is to be edited in it."""
    body, hint = _body(address, found)
    parts = ["curl", f"{address}/score"]
    if guarded:
        parts += ["-H", "authorization: Bearer YOUR-KEY"]
    if secure:
        parts.append("-k")
    return shlex.join([*parts, *body]), hint


def _body(address: str, found: Path | None) -> tuple[tuple[str, ...], str]:
    known = samples.read(found) if found is not None and found.is_dir() else ()
    if found is not None and known:
        return (*JSON, "-d", f"@{_relative(found / (known[0].name + '.json'))}"), ""
    service = _Service(address)
    if service.raw:
        return ("--data-binary", "@FILE"), FILE
    if service.example is None:
        return (*JSON, "-d", json.dumps(ANY)), EDIT
    text = json.dumps(service.example)
    return (*JSON, "-d", text if len(text) <= LONGEST else json.dumps(ANY)), "" if len(text) <= LONGEST else TOO_LONG


def _relative(path: Path) -> Path:
    try:
        return path.resolve().relative_to(Path.cwd())
    except ValueError:
        return path


class _Service:
    """What the service at *address* says that it takes: *raw* requests, or such as *example*, ``None`` if unknown."""

    def __init__(self, address: str) -> None:
        self._address = address
        request = Contract.from_json(self._asked("/contract.json")).request
        shown = _at(self._asked("/swagger.json"), "definitions", "ServiceInput", "example")
        self.example = shown if shown is not None else of(request) if request else None
        taken = _at(self._asked("/openapi.json"), "paths", "/score", "post", "requestBody", "content")
        self.raw = isinstance(taken, dict) and list(taken) == ["*/*"]

    def _asked(self, path: str) -> dict[str, Any]:
        """Return what it says at *path*; a certificate that this machine does not know is fine for that."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                reply = requests.get(
                    self._address + path,
                    headers={"x-request-id": OWN_REQUESTS},
                    timeout=5,
                    verify=False,  # noqa: S501
                )
                found = reply.json() if reply.ok else {}
            except (requests.RequestException, ValueError):
                return {}
        return found if isinstance(found, dict) else {}


def _at(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def of(schema: Schema) -> Any:
    """Return a small value of *schema*, zeros and empty texts; parameters that may be left out are."""
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), None)
    if schema.get("enum"):
        return schema["enum"][0]
    if kind == "object":
        names = schema.get("required") or ()
        return {name: of(schema.get("properties", {}).get(name, {})) for name in names}
    if kind == "array":
        first = [of(one) for one in schema.get("prefixItems", ())]
        more = max(int(schema.get("minItems", 1)) - len(first), 0)
        return first + [of(schema.get("items") or {"type": "number"})] * more
    return {"string": "", "boolean": False, "integer": 0}.get(str(kind), 0.0)
