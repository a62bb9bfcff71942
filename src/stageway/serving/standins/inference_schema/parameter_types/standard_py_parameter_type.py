"""Stands in for ``standard_py_parameter_type``: samples of Python's own types, and of parameter types inside them."""

from __future__ import annotations

import base64
import datetime
from typing import Any

from . import json_schema
from .abstract_parameter_type import AbstractParameterType

WRITTEN = "%Y-%m-%d %H:%M:%S.%f +0000"


class StandardPythonParameterType(AbstractParameterType):
    """A parameter like *sample_input*: a number, text, bytes, a time, or lists and dictionaries of these."""

    def __init__(self, sample_input: Any) -> None:
        super().__init__(sample_input)
        self.sample_data_type_map: "dict[str, AbstractParameterType]" = {}
        self.sample_data_type_list: "list[AbstractParameterType]" = []
        if isinstance(sample_input, dict):
            inside = sample_input.items()
            self.sample_data_type_map = {k: v for k, v in inside if isinstance(v, AbstractParameterType)}
        elif isinstance(sample_input, (list, tuple)):
            self.sample_data_type_list = [one for one in sample_input if isinstance(one, AbstractParameterType)]

    def deserialize_input(self, input_data: Any) -> Any:
        """Return *input_data* if it is of the sample's type, or can be read as it; ``ValueError`` if not."""
        kind = self.sample_data_type
        if kind in _READ and isinstance(input_data, str):
            input_data = _READ[kind](input_data)
        if kind is float and isinstance(input_data, int) and not isinstance(input_data, bool):
            return input_data
        if not isinstance(input_data, kind):
            raise ValueError("{} was expected, not {!r}".format(kind.__name__, type(input_data).__name__))
        return input_data

    def input_to_swagger(self) -> "dict[str, Any]":
        schema = self._schema(self.sample_input)
        return {**schema, "example": _example(self.sample_input)}

    def _supports_swagger_2(self) -> bool:
        inside = [*self.sample_data_type_map.values(), *self.sample_data_type_list]
        nested = all(one._supports_swagger_2() for one in inside)
        return nested and json_schema.uniform(_example(self.sample_input))

    def _schema(self, value: Any) -> "dict[str, Any]":
        if isinstance(value, AbstractParameterType):
            found = value.input_to_swagger()
            del found["example"]
            return found
        for kind, form in _FORMATS:
            if isinstance(value, kind):
                return {"type": "string", "format": form}
        if isinstance(value, dict):
            return json_schema.record({name: self._schema(item) for name, item in value.items()})
        if isinstance(value, (list, tuple, range)):
            return {"type": "array", "items": self._schema(value[-1]) if len(value) else {"type": "object"}}
        return json_schema.of(value)


_FORMATS = (
    ((bytes, bytearray), "byte"),
    (datetime.datetime, "date-time"),
    (datetime.date, "date"),
    (datetime.time, "time"),
)


def _example(value: Any) -> Any:
    """Return a sample as JSON; ``TypeError`` for what has none."""
    if isinstance(value, AbstractParameterType):
        return value.input_to_swagger()["example"]
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.datetime):
        return value.strftime(WRITTEN)
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, datetime.time):
        return value.strftime("%H:%M:%S.%f +0000")
    if isinstance(value, dict):
        return {name: _example(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [_example(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError("the sample holds a {}, which JSON cannot say".format(type(value).__name__))


def _date_time(text: str) -> datetime.datetime:
    """Read a moment as ISO 8601 has it, or as the examples write it: a space before the zone."""
    clean = text.strip().replace(" +", "+").replace("Z", "+00:00")
    if clean[-5:-4] in ("+", "-") and clean[-4:].isdigit():
        clean = clean[:-2] + ":" + clean[-2:]
    return datetime.datetime.fromisoformat(clean)


def _time(text: str) -> datetime.time:
    return _date_time(text if "-" in text[:8] else "2000-01-01T" + text).timetz()


_READ: "dict[type, Any]" = {
    bytes: base64.b64decode,
    datetime.datetime: _date_time,
    datetime.date: datetime.date.fromisoformat,
    datetime.time: _time,
}
