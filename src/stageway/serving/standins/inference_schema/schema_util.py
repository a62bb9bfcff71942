"""Stands in for ``schema_util``: asks a decorated function what was declared about it."""

from __future__ import annotations

import copy
import inspect
from typing import Any, Callable

from .parameter_types.abstract_parameter_type import VERSIONS

INPUT, OUTPUT = "input_schema", "output_schema"
DECLARED = "__declared_schemas__"
UNKNOWN = {"type": "object"}

_functions: "list[Any]" = []


def get_input_schema(func: Callable[..., Any]) -> "dict[str, Any]":
    """Return the Swagger schema of the arguments; of any object where none is declared."""
    return dict(_declared(func).get(INPUT, UNKNOWN))


def get_output_schema(func: Callable[..., Any]) -> "dict[str, Any]":
    """Return the Swagger schema of the result; of any object where none is declared."""
    return dict(_declared(func).get(OUTPUT, UNKNOWN))


def get_supported_versions(func: Callable[..., Any]) -> "list[str]":
    """Return the versions of OpenAPI that can say what was declared."""
    known = [set(versions) for versions in _declared(func).get("versions", {}).values()]
    return sorted(set(VERSIONS).intersection(*known))


def get_schemas_dict() -> "dict[str, Any]":
    """Return what is declared of every function, by module and name."""
    return {
        "{}.{}".format(one.__module__, one.__name__): {
            key: copy.deepcopy(schema) for key, schema in _declared(one).items() if key != "versions"
        }
        for one in _functions
    }


def is_schema_decorated(func: Callable[..., Any]) -> bool:
    return bool(_declared(func))


def innermost(func: Any) -> Any:
    """Return the function that the script's author wrote, below all decorators."""
    return inspect.unwrap(getattr(func, "__func__", func))


def declare_input(func: Any, name: str, schema: "dict[str, Any]", versions: "list[str]") -> None:
    """Note the schema of one parameter; those without one are anything."""
    own = innermost(func)
    if INPUT not in _fresh(own):
        names = inspect.getfullargspec(own).args
        _fresh(own)[INPUT] = {
            "type": "object",
            "properties": {one: {} for one in names},
            "example": dict.fromkeys(names, ""),
        }
    found = copy.deepcopy(schema)
    _fresh(own)[INPUT]["example"][name] = found.pop("example", "")
    _fresh(own)[INPUT]["properties"][name] = found
    _fresh(own).setdefault("versions", {})[name] = versions


def declare_output(func: Any, schema: "dict[str, Any]", versions: "list[str]") -> None:
    """Note the schema of the result, once."""
    own = innermost(func)
    if OUTPUT in _fresh(own):
        raise Exception("{} has two decorators @output_schema; keep one".format(own.__name__))
    _fresh(own)[OUTPUT] = schema
    _fresh(own).setdefault("versions", {})[OUTPUT] = versions


def _fresh(own: Any) -> "dict[str, Any]":
    """Return what is declared of *own*, to be added to."""
    if DECLARED not in vars(own):
        setattr(own, DECLARED, {})
        _functions.append(own)
    known: "dict[str, Any]" = vars(own)[DECLARED]
    return known


def _declared(func: Any) -> "dict[str, Any]":
    known: "dict[str, Any]" = getattr(innermost(func), DECLARED, {})
    return known
