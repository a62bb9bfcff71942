"""The contract of a release: JSON Schemas of its requests and replies, and what breaks a client.

Part of the serving layer as well as of the engine: standard library only, Python 3.9. Schemas are the subset of JSON
Schema 2020-12 that OpenAPI and MLflow signatures can be written in: type, items, prefixItems, properties, required,
enum, minItems, maxItems.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional

Schema = Dict[str, Any]

SOURCES = ("decorators", "signature", "samples", "none")


@dataclass(frozen=True)
class Contract:
    """What a service takes and gives; ``None`` where nothing is known.

    ``source`` says who declared it: the entry script's decorators, else the model's signature, else samples with
    their replies, else nobody.
    """

    request: Optional[Schema] = None
    response: Optional[Schema] = None
    source: str = "none"

    def to_json(self) -> Dict[str, Any]:
        return {"request": self.request, "response": self.response, "source": self.source}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Contract":
        return cls(value.get("request"), value.get("response"), str(value.get("source", "none")))

    @property
    def digest(self) -> str:
        """Digest of the two schemas; who declared them does not matter to a client."""
        canonical = json.dumps([self.request, self.response], sort_keys=True, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def describe(schema: Optional[Schema]) -> str:
    """Say a schema in words, such as ``array of array(10) of number``."""
    if not schema:
        return "anything"
    kind = schema.get("type", "anything")
    if isinstance(kind, list):
        return " or ".join(str(one) for one in kind)
    if kind == "array":
        length = schema.get("minItems")
        fixed = f"({length})" if length is not None and length == schema.get("maxItems") else ""
        items = schema.get("items")
        return f"array{fixed} of {describe(items)}" if items else f"array{fixed}"
    if kind == "object":
        names = schema.get("properties") or {}
        inside = ", ".join(f"{name}: {describe(value)}" for name, value in names.items())
        return f"object {{{inside}}}" if inside else "object"
    return str(kind)


def infer(value: Any) -> Schema:
    """Return the schema of one JSON value; arrays take the schema that fits all their items."""
    if value is None:
        return {"type": "null"}
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, (int, float)):
        return {"type": "number"}
    if isinstance(value, str):
        return {"type": "string"}
    if isinstance(value, Mapping):
        names = {str(name): infer(item) for name, item in value.items()}
        return {"type": "object", "properties": names, "required": sorted(names)}
    schemas = [infer(item) for item in value]
    if not schemas:
        return {"type": "array"}
    first = schemas[0]
    if all(one == first for one in schemas):
        # The rows of a batch are as many as a client sends; what one row holds is fixed.
        inner = dict(first)
        lengths = {len(item) for item in value if isinstance(item, (list, tuple))}
        if inner.get("type") == "array" and len(lengths) == 1:
            inner["minItems"] = inner["maxItems"] = lengths.pop()
        return {"type": "array", "items": inner}
    return {"type": "array"}


def breaks(old: Contract, new: Contract) -> List[str]:
    """Say, one sentence each, what a client of *old* can no longer rely on with *new*.

    Requests may become more tolerant and replies more precise; the other way round breaks somebody. A side that
    nobody declared is not compared.
    """
    found: List[str] = []
    if old.request is not None and new.request is not None:
        found += _narrower(new.request, old.request, "request")
    if old.response is not None and new.response is not None:
        found += _narrower(old.response, new.response, "reply")
    return found


def _types(schema: Schema) -> Optional[List[str]]:
    kind = schema.get("type")
    if kind is None:
        return None
    kinds = [str(one) for one in kind] if isinstance(kind, list) else [str(kind)]
    if "number" in kinds and "integer" not in kinds:
        kinds.append("integer")
    return kinds


def _narrower(allowed: Schema, given: Schema, where: str) -> List[str]:
    """Say where a value of *given* may fall outside *allowed*."""
    allowed_types, given_types = _types(allowed), _types(given)
    if allowed_types is not None and (given_types is None or not set(given_types) <= set(allowed_types)):
        return [f"{where}: {describe(given)} where {describe(allowed)} was agreed"]
    found: List[str] = []
    kind = allowed.get("type")
    if kind == "array":
        for key, worse in (("minItems", lambda a, b: b is None or b < a), ("maxItems", lambda a, b: b is None or b > a)):
            if allowed.get(key) is not None and worse(allowed[key], given.get(key)):
                return [f"{where}: {describe(given)} where {describe(allowed)} was agreed"]
        if allowed.get("items") and given.get("items"):
            found += _narrower(allowed["items"], given["items"], where + "[]")
        elif allowed.get("items"):
            found.append(f"{where}: {describe(given)} where {describe(allowed)} was agreed")
    if kind == "object":
        properties = given.get("properties") or {}
        for name in allowed.get("required") or ():
            if name not in (given.get("required") or ()):
                found.append(f"{where}.{name}: missing, and it was agreed")
        for name, schema in (allowed.get("properties") or {}).items():
            if name in properties:
                found += _narrower(schema, properties[name], f"{where}.{name}")
    if allowed.get("enum") is not None and not set(map(str, given.get("enum") or ["\0"])) <= set(map(str, allowed["enum"])):
        found.append(f"{where}: values outside {allowed['enum']}")
    return found
