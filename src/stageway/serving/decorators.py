"""What the decorators of the inference_schema package declare about a ``run``, asked of the package itself."""

from __future__ import annotations

import copy
import inspect
import sys
from typing import Any, Callable, Optional

from stageway.contract import Contract, Schema

PACKAGE = "inference_schema"
HEADERS = "request_headers"
KEPT = ("type", "enum", "minItems", "maxItems")


def declared(run: Callable[..., Any]) -> "Optional[dict[str, Any]]":
    """Return the Swagger schemas of *run*, ``{"input": ..., "output": ...}``, or ``None`` when it has no decorators."""
    if PACKAGE not in sys.modules:
        return None
    from inference_schema import schema_util

    if not schema_util.is_schema_decorated(run):
        return None
    given = copy.deepcopy(schema_util.get_input_schema(run))
    for part in ("properties", "example"):
        if isinstance(given.get(part), dict):
            given[part].pop(HEADERS, None)
    parameters = inspect.signature(inspect.unwrap(run)).parameters
    required = [
        name
        for name in given.get("properties", {})
        if name in parameters and parameters[name].default is inspect.Parameter.empty
    ]
    if required:
        given["required"] = required
    return {"input": given, "output": copy.deepcopy(schema_util.get_output_schema(run))}


def contract(schemas: "dict[str, Any]") -> Contract:
    """Return the contract that *schemas* (of ``declared``) amount to."""
    return Contract(_plain(schemas["input"]), _plain(schemas["output"]), "decorators")


def _plain(schema: Schema) -> Optional[Schema]:
    """Drop what only Swagger knows; nothing is known where only an object is declared."""
    if schema == {"type": "object"} or not schema:
        return None
    found = {key: schema[key] for key in KEPT if key in schema}
    if schema.get("items"):
        found["items"] = _plain(schema["items"]) or {}
    if "properties" in schema:
        found["properties"] = {name: _plain(inner) or {} for name, inner in schema["properties"].items()}
        found["required"] = sorted(schema.get("required", schema["properties"]))
    return found
