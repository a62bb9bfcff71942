"""Say in our words, and at its place in the file, what pydantic found wrong with it."""

from __future__ import annotations

import difflib
import types
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from stageway.config.document import Document, Loc, Problem

_SHOULD = {
    "model_type": "should be a mapping of keys",
    "model_attributes_type": "should be a mapping of keys",
    "dict_type": "should be a mapping of keys",
    "tuple_type": "should be a list",
    "list_type": "should be a list",
    "set_type": "should be a list",
    "string_type": "should be text",
    "int_type": "should be a whole number",
    "int_from_float": "should be a whole number",
    "float_type": "should be a number",
    "bool_type": "should be true or false",
}


def nearest(name: str, known: Collection[str]) -> str:
    """Return the way out for a wrong *name*: the nearest known one, else all of them."""
    alike = _alike(name, known)
    if alike:
        return f"did you mean {alike!r}?"
    return f"known: {', '.join(sorted(known))}" if known else "nothing is known here"


def _alike(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name.replace("_", "-").lower(), sorted(known), n=1)
    return close[0] if close else ""


def complaints(document: Document, error: ValidationError, model: type[BaseModel], base: Loc = ()) -> list[Problem]:
    """Return the problems that *error*, from validating the part at *base* with *model*, is about."""
    by_place: dict[Loc, list[tuple[Loc, Mapping[str, Any]]]] = {}
    for found in error.errors(include_url=False):
        place, tags = _place(document, base, found["loc"], found["type"])
        by_place.setdefault(place, []).append((tags, dict(found)))
    misspelt = {
        (*place[:-1], _alike(str(place[-1]), _keys(model, place[len(base) : -1])))
        for place, group in by_place.items()
        if group[0][1]["type"] == "extra_forbidden"
    }
    problems: list[Problem] = []
    for place, group in by_place.items():
        # One branch of a union may fit the kind of value (a mapping, say) and fail deeper: then only that one speaks.
        if all(tags for tags, _ in group) and any(place == at[: len(place)] and at != place for at in by_place):
            continue
        if group[0][1]["type"] == "missing" and place in misspelt:
            continue
        texts = list(dict.fromkeys(_sentence(document, place, found, model, base) for _, found in group))
        for again in ("should be ", "should "):
            start = f"{document.written(place)} {again}"
            if len(texts) > 1 and all(text.startswith(start) for text in texts):
                texts = [texts[0], *(text.removeprefix(start) for text in texts[1:])]
        at_key = group[0][1]["type"] == "extra_forbidden" or group[0][1]["loc"][-1:] == ("[key]",)
        problems.append(document.problem(place, " or ".join(texts), at_key=at_key))
    return problems


def _place(document: Document, base: Loc, loc: Sequence[str | int], kind: str) -> tuple[Loc, Loc]:
    """Return where *loc* is in the document, and the parts of it that are names of a union's branches."""
    place, tags = base, []
    for index, part in enumerate(loc):
        if document.has((*place, part)) or (index == len(loc) - 1 and kind == "missing"):
            place = (*place, part)
        elif part != "[key]":
            tags.append(part)
    return place, tuple(tags)


def _sentence(document: Document, place: Loc, found: Mapping[str, Any], model: type[BaseModel], base: Loc) -> str:
    kind, message = found["type"], str(found["msg"])
    if kind == "extra_forbidden":
        return f"unknown key; {nearest(str(place[-1]), _keys(model, place[len(base) : -1]))}"
    if kind == "missing":
        return "missing; it must be given"
    if kind in ("value_error", "assertion_error"):
        return message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    value = found.get("input")
    should = _SHOULD.get(kind) or message.removeprefix("Input ")
    should = should[:1].lower() + should[1:]
    if value is None and kind in _SHOULD:
        return f"is empty; it {should}, or remove the key"
    if kind == "string_type" and isinstance(value, (bool, int, float)):
        node = document.values[place]
        return f'{node.value} is not text as it stands; write it in quotes: "{node.value}"'
    if kind == "string_pattern_mismatch":
        should = f"should match {found['ctx']['pattern']}"
    return f"{document.written(place)} {should}"


def _keys(model: Any, path: Loc) -> set[str]:
    """Return the keys that *model* knows at *path*, by walking its annotations."""
    origin = get_origin(model)
    if origin is Annotated:
        return _keys(get_args(model)[0], path)
    if origin in (Union, types.UnionType):
        return set().union(*(_keys(one, path) for one in get_args(model)))
    if origin in (dict, Mapping) and path:
        return _keys(get_args(model)[1], path[1:])
    if origin in (list, tuple, set, frozenset, Sequence) and path:
        return _keys(get_args(model)[0], path[1:])
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return set()
    fields = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
    if model.__pydantic_root_model__:
        return _keys(fields["root"], path)
    if not path:
        return set(fields)
    return _keys(fields.get(str(path[0])), path[1:])
