"""The contract of a release: JSON Schemas of its requests and replies, and what breaks a client.

Part of the serving layer as well as of the engine: standard library only, Python 3.9. Schemas are the subset of JSON
Schema 2020-12 that OpenAPI and MLflow signatures can be written in: type, items, prefixItems, properties, required,
enum, minItems, maxItems.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

Schema = Dict[str, Any]

MISSING = "missing"

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
        items, first = schema.get("items"), schema.get("prefixItems")
        if first:
            more = [f"then {describe(items)}"] if isinstance(items, dict) else []
            return f"array{fixed} of ({', '.join([describe(one) for one in first] + more)})"
        return f"array{fixed} of {describe(items)}" if isinstance(items, dict) and items else f"array{fixed}"
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


@dataclass(frozen=True)
class Break:
    """One thing that clients of an old contract can no longer rely on; *path* is inside the request or reply."""

    side: str
    path: str
    before: str
    after: str

    def __str__(self) -> str:
        if self.side == "request" and self.before == MISSING:
            return f"request: needs {self.path.lstrip('.')} ({self.after}), which was not agreed"
        return f"{self.side}{self.path}: {self.after} where {self.before} was agreed"

    def sentence(self, old: str, new: str) -> str:
        """Say it with the names of both releases."""
        if self.side == "request" and self.before == MISSING:
            return f"the request of {new} needs {self.path.lstrip('.')} ({self.after}), which {old} does not"
        verb, past = ("must be", "takes") if self.side == "request" else ("is", "gives")
        return f"the {self.side}{self.path} of {new} {verb} {self.after} where {old} {past} {self.before}"


def differences(old: Contract, new: Contract) -> List[Break]:
    """Return what a client of *old* can no longer rely on with *new*.

    Requests may become more tolerant and replies more precise; the other way round breaks somebody. A side that
    nobody declared is not compared.
    """
    found: List[Break] = []
    if old.request is not None and new.request is not None:
        found += [Break("request", *one) for one in _outside(new.request, old.request, "", False)]
    if old.response is not None and new.response is not None:
        found += [Break("reply", *one) for one in _outside(old.response, new.response, "", True)]
    return found


def merge(schemas: Sequence[Schema]) -> Schema:
    """Return one schema for all that fit one of *schemas* (as ``infer`` makes them); what differs is left open."""
    first, rest = schemas[0], schemas[1:]
    for other in rest:
        first = _both(first, other)
    return first


def _both(one: Schema, other: Schema) -> Schema:
    if one == other:
        return one
    kind = one.get("type")
    if kind != other.get("type"):
        kinds = {*_listed(kind), *_listed(other.get("type"))}
        return {"type": sorted(kinds)} if kind and other.get("type") and not kinds & {"array", "object"} else {}
    if kind not in ("array", "object"):
        return {"type": kind} if kind is not None else {}
    if kind == "array":
        merged: Schema = {"type": "array"}
        if one.get("items") and other.get("items"):
            merged["items"] = _both(one["items"], other["items"])
        for limit in ("minItems", "maxItems"):
            if limit in one and one.get(limit) == other.get(limit):
                merged[limit] = one[limit]
        return merged
    names = {**one.get("properties", {}), **other.get("properties", {})}
    for name in set(one.get("properties", {})) & set(other.get("properties", {})):
        names[name] = _both(one["properties"][name], other["properties"][name])
    required = sorted(set(one.get("required", ())) & set(other.get("required", ())))
    return {"type": "object", "properties": names, "required": required}


def _listed(kind: Any) -> List[str]:
    return [str(one) for one in kind] if isinstance(kind, list) else [str(kind)]


def breaks(old: Contract, new: Contract) -> List[str]:
    """Say, one sentence each, what a client of *old* can no longer rely on with *new*."""
    return [str(one) for one in differences(old, new)]


def _types(schema: Schema) -> Optional[List[str]]:
    kind = schema.get("type")
    if kind is None:
        return None
    kinds = [str(one) for one in kind] if isinstance(kind, list) else [str(kind)]
    if "number" in kinds and "integer" not in kinds:
        kinds.append("integer")
    return kinds


def _outside(allowed: Schema, given: Schema, path: str, allowed_is_old: bool) -> List[Tuple[str, str, str]]:
    """Say where a value of *given* may fall outside *allowed*: (path, before, after)."""

    def broken(where: str, mine: str, theirs: str) -> Tuple[str, str, str]:
        return (where, mine, theirs) if allowed_is_old else (where, theirs, mine)

    whole = [broken(path, describe(allowed), describe(given))]
    allowed_types, given_types = _types(allowed), _types(given)
    if allowed_types is not None and (given_types is None or not set(given_types) <= set(allowed_types)):
        return whole
    found: List[Tuple[str, str, str]] = []
    if given_types is None or "array" in given_types:
        if not _length_within(allowed, given):
            return whole
        items = _items_outside(allowed, given, path, allowed_is_old)
        if any(
            one[0].startswith(f"{path}[") and one[0].endswith("]") and "." not in one[0][len(path) :] for one in items
        ):
            # Rows that are of another kind are best said as a whole: array of array(2) of number.
            return whole
        found += items
    if given_types is None or "object" in given_types:
        mine, theirs = allowed.get("properties") or {}, given.get("properties") or {}
        for name in allowed.get("required") or ():
            if name not in (given.get("required") or ()):
                found.append(broken(f"{path}.{name}", describe(mine.get(name)), MISSING))
            elif name in mine and name not in theirs and mine[name]:
                found.append(broken(f"{path}.{name}", describe(mine[name]), "anything"))
        for name in mine:
            if name in theirs:
                found += _outside(mine[name], theirs[name], f"{path}.{name}", allowed_is_old)
    if allowed.get("enum") is not None:
        values = {json.dumps(one, sort_keys=True) for one in allowed["enum"]}
        if given.get("enum") is None or not {json.dumps(one, sort_keys=True) for one in given["enum"]} <= values:
            found.append(broken(path, _one_of(allowed), _one_of(given)))
    return found


def _length_within(allowed: Schema, given: Schema) -> bool:
    least, most = _lengths(allowed)
    given_least, given_most = _lengths(given)
    return given_least >= least and (most is None or (given_most is not None and given_most <= most))


def _lengths(schema: Schema) -> Tuple[int, Optional[int]]:
    most = schema.get("maxItems")
    if most is None and schema.get("items") is False:
        most = len(schema.get("prefixItems") or ())
    return int(schema.get("minItems") or 0), most


def _items_outside(allowed: Schema, given: Schema, path: str, allowed_is_old: bool) -> List[Tuple[str, str, str]]:
    """Compare the items of two arrays, position by position where either has ``prefixItems``."""
    positions = max(len(allowed.get("prefixItems") or ()), len(given.get("prefixItems") or ()))
    most = _lengths(given)[1]
    found: List[Tuple[str, str, str]] = []
    for at in range(positions):
        if most is not None and at >= most:
            return found
        found += _item_outside(_item(allowed, at), _item(given, at), f"{path}[{at}]", allowed_is_old)
    if most is not None and positions >= most:
        return found
    return found + _item_outside(allowed.get("items"), given.get("items"), f"{path}[]", allowed_is_old)


def _item(schema: Schema, at: int) -> Any:
    first = schema.get("prefixItems") or ()
    return first[at] if at < len(first) else schema.get("items")


def _item_outside(allowed: Any, given: Any, path: str, allowed_is_old: bool) -> List[Tuple[str, str, str]]:
    if not isinstance(allowed, dict) or not allowed:
        return []
    return _outside(allowed, given if isinstance(given, dict) else {}, path, allowed_is_old)


def _one_of(schema: Schema) -> str:
    if schema.get("enum") is None:
        return describe(schema)
    return "one of " + ", ".join(json.dumps(one) for one in schema["enum"])
