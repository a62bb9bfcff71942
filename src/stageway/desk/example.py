"""A request to try: one of the project's samples, else the service's own example, else one made from its contract."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import requests

from stageway import samples
from stageway.contract import Contract, Schema

LONGEST = 400
"""Characters of a body that still reads well in a terminal."""


def command(address: str, *, found: Path | None, guarded: bool, secure: bool) -> str:
    """Return a command line that scores something on the service at *address*."""
    parts = ["curl", f"{address}/score", "-H", "content-type: application/json"]
    if guarded:
        parts += ["-H", "authorization: Bearer YOUR-KEY"]
    if secure:
        parts.append("-k")
    return shlex.join([*parts, "-d", _body(address, found)])


def _body(address: str, found: Path | None) -> str:
    known = samples.read(found) if found is not None and found.is_dir() else ()
    if found is not None and known:
        return f"@{_relative(found / (known[0].name + '.json'))}"
    text = json.dumps(_example(address))
    return text if len(text) <= LONGEST else json.dumps({"data": []})


def _relative(path: Path) -> Path:
    try:
        return path.resolve().relative_to(Path.cwd())
    except ValueError:
        return path


def _example(address: str) -> Any:
    """Ask the service what it takes; a certificate that this machine does not know is fine for that."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            given = requests.get(f"{address}/swagger.json", timeout=5, verify=False).json()  # noqa: S501
            shown = given["definitions"]["ServiceInput"].get("example")
            if shown is not None:
                return shown
            contract = requests.get(f"{address}/contract.json", timeout=5, verify=False).json()  # noqa: S501
            request = Contract.from_json(contract).request
        except (requests.RequestException, ValueError, KeyError, TypeError, AttributeError):
            request = None
    return of(request) if request else {"data": []}


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
