"""What the decorators of the inference_schema package declare about a ``run``, asked of the package itself."""

from __future__ import annotations

import copy
import inspect
import sys
from typing import Any, Callable, Iterator, Optional

from stageway.contract import Contract, Schema
from stageway.serving.replies import BadRequestError

PACKAGE = "inference_schema"
HEADERS = "request_headers"
DECLARES = "__declares__"
"""Where the stand-in of the package keeps (name, type, optional); of the package itself it has to be asked for."""
RAGGED = "inhomogeneous shape"
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
    return {"input": given, "output": copy.deepcopy(schema_util.get_output_schema(run))}


def misfit(error: BaseException) -> BadRequestError:
    """Return what the client is told when *error* was raised while its data was converted."""
    # numpy's own sentence speaks of its arrays.
    why = "rows have different lengths" if RAGGED in str(error) else error
    return BadRequestError("the data does not fit the declared schema: {}".format(why))


def contract(run: Callable[..., Any], schemas: "dict[str, Any]") -> Contract:
    """Return the contract that *schemas* (of ``declared``) amount to; parameters with a default may be left out."""
    request = _plain(schemas["input"])
    if request is not None:
        parameters = inspect.signature(inspect.unwrap(run)).parameters.values()
        needed = {one.name for one in parameters if one.default is inspect.Parameter.empty}
        request["required"] = sorted(needed & set(request.get("properties", ())))
        for name, shape in _enforced_shapes(run):
            _fix_lengths(request.get("properties", {}).get(name, {}), shape)
    return Contract(request, _plain(schemas["output"]), "decorators")


def parameter_types(run: Any) -> "Iterator[tuple[str, Any]]":
    """Yield the names of the declared parameters of *run* and the objects that declare them, outermost first.

    Those that are not to be converted are left out: to the script they are JSON.
    """
    for name, kind, _ in _declarations(run):
        yield name, kind


def optional(run: Any) -> "set[str]":
    """Return the names of the declared parameters that a request may leave out."""
    return {name for name, _, may_lack in _declarations(run) if may_lack}


def _declarations(run: Any) -> "Iterator[tuple[str, Any, bool]]":
    while run is not None:
        declares, wrapper = getattr(run, DECLARES, None), getattr(run, "_self_wrapper", None)
        if declares is not None:
            yield declares
        elif inspect.isfunction(wrapper):
            known = inspect.getclosurevars(wrapper).nonlocals
            if "param_type" in known and known.get("convert_to_provided_type", True):
                yield str(known.get("param_name")), known["param_type"], bool(known.get("optional"))
        run = getattr(run, "__wrapped__", None)


def _enforced_shapes(run: Any) -> "Iterator[tuple[str, tuple[int, ...]]]":
    """Yield the parameters whose arrays keep the shape of their sample, which their Swagger schemas do not say."""
    for name, declared_type in parameter_types(run):
        shape = getattr(declared_type.sample_input, "shape", None)
        if shape is not None and getattr(declared_type, "enforce_shape", False):
            yield name, tuple(int(length) for length in shape)


def _fix_lengths(schema: Schema, shape: "tuple[int, ...]") -> None:
    """Write down how long the inner arrays are; how many rows come in is the client's choice."""
    for length in shape[1:]:
        schema = schema.get("items") or {}
        if schema.get("type") != "array":
            return
        schema["minItems"] = schema["maxItems"] = length


def _plain(schema: Schema) -> Optional[Schema]:
    """Drop what only Swagger knows; nothing is known where only an object is declared."""
    if schema == {"type": "object"} or not schema:
        return None
    found = {key: schema[key] for key in KEPT if key in schema}
    if schema.get("items"):
        found["items"] = _plain(schema["items"]) or {}
    if "properties" in schema:
        found["properties"] = {name: _plain(inner) or {} for name, inner in schema["properties"].items()}
        found["required"] = sorted(schema["properties"])
    return found
