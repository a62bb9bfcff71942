"""Stands in for ``schema_decorators``: declare what ``run`` takes and gives, and turn JSON into it."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Callable

from . import schema_util
from .parameter_types.abstract_parameter_type import AbstractParameterType

DECLARES = "__declares__"
"""The parameter, its type and whether it is optional, on the function that converts it; the server asks for them."""

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def input_schema(
    param_name: str, param_type: AbstractParameterType, convert_to_provided_type: bool = True, optional: bool = False
) -> Decorator:
    """Declare the parameter *param_name* by a sample; JSON that comes for it is turned into the sample's type.

    An *optional* one may be left out, or empty.
    """
    _check(param_type)
    schema, versions = param_type.input_to_swagger(), param_type.supported_versions()

    def decorate(run: Callable[..., Any]) -> Callable[..., Any]:
        schema_util.declare_input(run, param_name, schema, versions)
        names = inspect.getfullargspec(schema_util.innermost(run)).args

        @functools.wraps(run)
        def converting(*args: Any, **kwargs: Any) -> Any:
            if not convert_to_provided_type:
                return run(*args, **kwargs)
            if param_name in kwargs:
                if not optional or _there(kwargs[param_name]):
                    kwargs[param_name] = converted(kwargs[param_name], param_type)
            elif not optional:
                if param_name not in names:
                    raise Exception("{} has a schema for {!r}, which it does not take".format(run.__name__, param_name))
                place = names.index(param_name)
                if place < len(args):
                    args = (*args[:place], converted(args[place], param_type), *args[place + 1 :])
            return run(*args, **kwargs)

        setattr(converting, DECLARES, (param_name, param_type, optional) if convert_to_provided_type else None)
        return converting

    return decorate


def output_schema(output_type: AbstractParameterType) -> Decorator:
    """Declare the result of ``run`` by a sample; the result itself is not touched."""
    _check(output_type)
    schema, versions = output_type.input_to_swagger(), output_type.supported_versions()

    def decorate(run: Callable[..., Any]) -> Callable[..., Any]:
        schema_util.declare_output(run, schema, versions)

        @functools.wraps(run)
        def passing(*args: Any, **kwargs: Any) -> Any:
            return run(*args, **kwargs)

        setattr(passing, DECLARES, None)
        return passing

    return decorate


def converted(value: Any, kind: AbstractParameterType) -> Any:
    """Return *value* as *kind* declares it, inside dictionaries and lists of declared types as well."""
    known = kind.sample_data_type
    if known is dict:
        _expect(value, dict)
        types = getattr(kind, "sample_data_type_map", {})
        return {name: converted(item, types[name]) if name in types else item for name, item in value.items()}
    if known in (list, tuple):
        _expect(value, (list, tuple))
        types = getattr(kind, "sample_data_type_list", ())
        return [converted(item, types[0]) for item in value] if types else value
    return value if isinstance(value, known) else kind.deserialize_input(value)


def _check(declared: Any) -> None:
    if not isinstance(declared, AbstractParameterType):
        kind = getattr(declared, "__name__", type(declared).__name__)
        raise Exception("{} is no parameter type; give one such as NumpyParameterType(sample)".format(kind))


def _expect(value: Any, kinds: Any) -> None:
    if not isinstance(value, kinds):
        named = "an object" if kinds is dict else "a list"
        raise ValueError("{} was expected, not {!r}".format(named, type(value).__name__))


def _there(value: Any) -> bool:
    """Say whether an optional parameter was given; an array or a table is, however empty."""
    return bool(value) if isinstance(value, (str, list, tuple, dict, int, float, type(None))) else True
