"""Entry scripts whose author says that rows are independent: declared arrays and tables of several requests as one.

Each request is converted by its own declared types before it is joined, so that what does not fit fails alone, and the
joined data is exactly what each request would have given ``run`` by itself.
"""

from __future__ import annotations

from typing import Any, Callable, Hashable, Mapping, Optional

import orjson

from stageway.serving import decorators, joining
from stageway.serving.scorer import StartError

WAY_OUT = "declare an array or a table with @input_schema, or take batching: on away"


class ScriptRows:
    """The parameters of a decorated ``run`` that hold rows; the others have to be equal in what is joined.

    A request with an optional array or table is run alone: the package takes those as JSON only.
    """

    def __init__(self, types: "Mapping[str, Any]", alone: "set[str]") -> None:
        self._types, self._alone = types, alone

    def converted(self, arguments: "Mapping[str, Any]") -> "dict[str, Any]":
        """Return *arguments* with arrays and tables in place of JSON; ``BadRequestError`` where it does not fit."""
        found = dict(arguments)
        for name in self._held(arguments):
            if not isinstance(found[name], self._types[name].sample_data_type):
                try:
                    found[name] = self._types[name].deserialize_input(found[name])
                except Exception as error:
                    raise decorators.misfit(error) from None
        return found

    def key(self, arguments: "Mapping[str, Any]") -> "tuple[Optional[Hashable], int]":
        """Return what requests that may be joined have in common, and how many rows this one has; ``None`` if alone."""
        if not self._alone.isdisjoint(arguments):
            return None, 1
        rows = {name: arguments[name] for name in self._held(arguments)}
        kind = joining.kind(rows)
        try:
            count = joining.count(rows)
            others = orjson.dumps({name: one for name, one in arguments.items() if name not in rows})
        except (ValueError, TypeError):
            return None, 1
        if kind is None or not count or not all(_numbered(one) for one in rows.values()):
            return None, 1
        return (kind, others), count

    def join(self, parts: "list[dict[str, Any]]") -> "dict[str, Any]":
        held = self._held(parts[0])
        return {**parts[0], **joining.join([{name: part[name] for name in held} for part in parts])}

    def _held(self, arguments: "Mapping[str, Any]") -> "list[str]":
        return [name for name in arguments if name in self._types]


def of(run: "Callable[..., Any]", script: str, takes_headers: bool) -> ScriptRows:
    """Return the rows of *run*; ``StartError`` where there is nothing that could be joined."""
    types = dict(decorators.parameter_types(run))
    tables = {name: one for name, one in types.items() if _has_rows(getattr(one, "sample_input", None))}
    alone = set(tables) & decorators.optional(run)
    held = {name: one for name, one in tables.items() if name not in alone}
    if not held:
        raise StartError("batching: on: run() of {} declares nothing that has rows; {}".format(script, WAY_OUT))
    if takes_headers:
        sentence = "batching: on: run() of {} takes request_headers, which every request has its own of; {}"
        raise StartError(sentence.format(script, "leave them out, or take batching: on away"))
    return ScriptRows(held, alone)


def _has_rows(sample: Any) -> bool:
    return hasattr(sample, "iloc") or (hasattr(sample, "dtype") and getattr(sample, "ndim", 0) > 0)


def _numbered(data: Any) -> bool:
    """Say whether the rows of a table have no names, which would be lost."""
    if not hasattr(data, "iloc"):
        return True
    index = data.index
    return type(index).__name__ == "RangeIndex" and bool(index.start == 0 and index.step == 1)
