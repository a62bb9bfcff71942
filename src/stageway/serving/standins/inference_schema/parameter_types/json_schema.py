"""The Swagger schema of a sample that is JSON, as all parameter types write it."""

from __future__ import annotations

from typing import Any

NUMBER = {"type": "number", "format": "double"}
INTEGER = {"type": "integer", "format": "int64"}


def of(value: Any) -> "dict[str, Any]":
    """Return the schema of *value*; what the items of a list are is told by its last one."""
    if isinstance(value, bool):
        return {"type": "boolean"}
    if isinstance(value, int):
        return dict(INTEGER)
    if isinstance(value, float):
        return dict(NUMBER)
    if isinstance(value, str):
        return {"type": "string"}
    if isinstance(value, (list, tuple)):
        return {"type": "array", "items": of(value[-1]) if value else {"type": "object"}}
    if isinstance(value, dict):
        return record({name: of(item) for name, item in value.items()})
    return {"type": "object"}


def record(properties: "dict[Any, Any]") -> "dict[str, Any]":
    """Return the schema of an object that has all of *properties*."""
    return {"type": "object", "required": list(properties), "properties": properties}


def uniform(value: Any) -> bool:
    """Say whether the items of every list are of one type, as Swagger 2.0 has it."""
    if isinstance(value, dict):
        return all(uniform(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return len({type(item) for item in value}) <= 1 and all(uniform(item) for item in value)
    return True
