"""A contract's schemas in the dialects of OpenAPI: JSON Schema as it is (3.1), and what 3.0 makes of it; with examples.

What decorators declare in the words of Swagger (``format``, ``example``) is put back where the contract left it out.
"""

from __future__ import annotations

from typing import Any, Callable, Mapping, Optional

from stageway.contract import Schema

Dialect = Callable[[Schema], Schema]
KEPT = ("enum", "minItems", "maxItems", "format", "description")
MOST_SAMPLED = 1000


def declared(schema: Optional[Schema], swagger: Optional[Schema]) -> Schema:
    """Return *schema* with what only its Swagger form knows: formats, and the example of the whole."""
    found: Schema = dict(schema or {})
    swagger = swagger or {}
    if "format" in swagger and found.get("type") in ("number", "integer", "string"):
        found["format"] = swagger["format"]
    if found.get("items") and swagger.get("items"):
        found["items"] = declared(found["items"], swagger["items"])
    if "properties" in found:
        known = swagger.get("properties") or {}
        found["properties"] = {name: declared(one, known.get(name)) for name, one in found["properties"].items()}
    if "example" in swagger:
        found["examples"] = [_told(swagger["example"], found)]
    return found


def _told(example: Any, schema: Schema) -> Any:
    """Return an example without the optional parameters that nobody declared, for which decorators make up a value."""
    if not isinstance(example, dict) or "properties" not in schema:
        return example
    needed, known = schema.get("required") or (), schema["properties"]
    return {name: value for name, value in example.items() if name in needed or known.get(name) != {}}


def with_null(schema: Schema, *, table: bool = False) -> Schema:
    """Return the schema of a reply: NaN and infinities are ``null`` there, and so is any cell that a *table* lacks."""
    found = dict(schema)
    kinds = found.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    lacking = "number" in kinds or (table and bool(kinds) and not {"array", "object"} & set(kinds))
    if lacking and "null" not in kinds:
        found["type"] = [*kinds, "null"]
    if isinstance(found.get("items"), dict):
        found["items"] = with_null(found["items"], table=table)
    if "prefixItems" in found:
        found["prefixItems"] = [with_null(one, table=table) for one in found["prefixItems"]]
    if "properties" in found:
        found["properties"] = {name: with_null(one, table=table) for name, one in found["properties"].items()}
    return found


def v31(schema: Schema) -> Schema:
    """Return *schema* as OpenAPI 3.1 has it, which is JSON Schema."""
    return schema


def v30(schema: Schema) -> Schema:
    """Return *schema* as OpenAPI 3.0 has it: one type, ``nullable``, arrays with one kind of items."""
    if "$ref" in schema:
        return schema
    found: Schema = {key: schema[key] for key in KEPT if key in schema}
    if schema.get("examples"):
        found["example"] = schema["examples"][0]
    if "anyOf" in schema:
        found["anyOf"] = [v30(one) for one in schema["anyOf"]]
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    named = [kind for kind in kinds if kind != "null"]
    if len(named) == 1:
        found["type"] = named[0]
    elif named:
        found["anyOf"] = [{"type": kind, "items": {}} if kind == "array" else {"type": kind} for kind in named]
    elif kinds:
        found["enum"] = [None]
    if "null" in kinds:
        found["nullable"] = True
    if found.get("type") == "array":
        found.update(_items(schema))
    if "properties" in schema:
        found["properties"] = {name: v30(one) for name, one in schema["properties"].items()}
        if schema.get("required"):
            found["required"] = list(schema["required"])
    return found


def _items(schema: Schema) -> Schema:
    """Return the items of an array; where each place has a schema of its own, only their count can be said."""
    first, rest = schema.get("prefixItems") or [], schema.get("items")
    if not first:
        return {"items": v30(rest) if isinstance(rest, dict) else {}}
    every = [*first, rest] if isinstance(rest, dict) else first
    found: Schema = {"items": v30(first[0]) if rest is not None and all(one == first[0] for one in every) else {}}
    if rest is False:
        found["maxItems"] = min(len(first), schema.get("maxItems", len(first)))
    return found


DIALECTS: "Mapping[str, tuple[str, Dialect]]" = {"3": ("3.0.3", v30), "3.0": ("3.0.3", v30), "3.1": ("3.1.0", v31)}
"""Version that is asked for, to the version of the document and the dialect of its schemas."""


def sample(schema: Optional[Schema]) -> Any:
    """Return a value of *schema*: its example where it has one, else the least that fits; ``None`` for anything."""
    schema = schema or {}
    if schema.get("examples"):
        return schema["examples"][0]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object":
        return {name: sample(one) for name, one in (schema.get("properties") or {}).items()}
    if kind == "array":
        first, rest = schema.get("prefixItems") or [], schema.get("items")
        count = min(max(schema.get("minItems", 1), 0 if first else 1), MOST_SAMPLED) - len(first)
        return [sample(one) for one in first] + [sample(rest)] * (count if isinstance(rest, dict) else 0)
    return {"number": 0.0, "integer": 0, "string": "", "boolean": False}.get(str(kind))
