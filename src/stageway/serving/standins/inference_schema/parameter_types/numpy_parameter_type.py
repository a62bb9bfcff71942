"""Stands in for ``numpy_parameter_type``: samples that are arrays."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from stageway.serving import tensors

from .abstract_parameter_type import AbstractParameterType

UNITS = {
    "years": "Y",
    "months": "M",
    "weeks": "W",
    "days": "D",
    "hours": "h",
    "minutes": "m",
    "seconds": "s",
    "milliseconds": "ms",
    "microseconds": "us",
    "nanoseconds": "ns",
}
TYPES = {
    "b": {"type": "boolean"},
    "U": {"type": "string"},
    "S": {"type": "string", "format": "binary"},
    "M": {"type": "string", "format": "date-time"},
    "m": {"type": "string", "format": "timedelta"},
    "O": {"type": "object"},
}
FLOATS = {2: "float", 4: "float", 8: "double"}


class NumpyParameterType(AbstractParameterType):
    """A parameter like the array *sample_input*; how many rows come is free, the other lengths are the sample's.

    *enforce_column_type* turns values into the sample's type, *enforce_shape* refuses other shapes.
    """

    def __init__(self, sample_input: Any, enforce_column_type: bool = True, enforce_shape: bool = True) -> None:
        if not isinstance(sample_input, np.ndarray):
            raise Exception("the sample is a {}; give a numpy array".format(type(sample_input).__name__))
        super().__init__(sample_input)
        self.enforce_column_type, self.enforce_shape = enforce_column_type, enforce_shape

    def deserialize_input(self, input_data: Any) -> Any:
        """Return nested lists as an array; ``ValueError`` and the like where they do not fit."""
        if isinstance(input_data, np.ndarray):
            return input_data
        if not isinstance(input_data, list):
            raise ValueError("a list was expected, not {!r}".format(type(input_data).__name__))
        dtype = self.sample_input.dtype
        if self.enforce_column_type:
            array = np.array(_readable(input_data, dtype), dtype=dtype)
        elif tensors.room(input_data) > tensors.WIDEST:
            raise ValueError("a text is too long to stand among so many values")
        else:
            array = np.array(input_data)
        if self.enforce_shape:
            self._check(array.shape)
        return array

    def _check(self, shape: "tuple[int, ...]") -> None:
        expected = self.sample_input.shape
        if len(shape) != len(expected):
            raise ValueError("an array of {} dimensions was expected, not of {}".format(len(expected), len(shape)))
        for axis, (given, wanted) in enumerate(zip(shape[1:], expected[1:]), 1):
            if given != wanted:
                raise ValueError("axis {} has {} items, {} were expected".format(axis, given, wanted))

    def input_to_swagger(self) -> "dict[str, Any]":
        schema = _schema(self.sample_input.dtype, len(self.sample_input.shape))
        example = [_example(row) for row in self.sample_input]
        return {**schema, "example": example, "format": "numpy.ndarray"}


def _schema(dtype: Any, depth: int) -> "dict[str, Any]":
    schema = _item(dtype)
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


def _item(dtype: Any) -> "dict[str, Any]":
    if dtype.names:
        fields = {name: dtype.fields[name][0] for name in dtype.names}
        return {"type": "object", "properties": {name: _field(one) for name, one in fields.items()}}
    if dtype.kind in "iu":
        return {"type": "integer", "format": dtype.name}
    if dtype.kind == "f" and dtype.itemsize in FLOATS:
        return {"type": "number", "format": FLOATS[dtype.itemsize]}
    if dtype.kind not in TYPES:
        raise TypeError("arrays of {} have no schema".format(dtype))
    return dict(TYPES[dtype.kind])


def _field(dtype: Any) -> "dict[str, Any]":
    return _schema(dtype.base, len(dtype.shape)) if dtype.subdtype else _item(dtype)


def _example(value: Any) -> Any:
    """Return one sample as JSON; what is neither number nor list is text."""
    if isinstance(value, np.ndarray):
        return [_example(item) for item in value]
    if isinstance(value, np.void) and value.dtype.names:
        return {name: _example(value[name]) for name in value.dtype.names}
    if isinstance(value, np.datetime64):
        return value.astype("M8[us]").item().strftime("%Y-%m-%d %H:%M:%S,%f")
    if isinstance(value, np.timedelta64):
        unit = np.datetime_data(value.dtype)[0]
        return "{} {}".format(value.astype(int), next(name for name, code in UNITS.items() if code == unit))
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (np.integer, np.floating)):
        return value.item()
    return str(value)


def _readable(value: Any, dtype: Any) -> Any:
    """Return nested lists as numpy reads them: records as tuples, times as numpy's."""
    if dtype.names and isinstance(value, dict):
        return tuple(_readable(value[name], dtype.fields[name][0]) for name in dtype.names)
    if dtype.names and isinstance(value, list) and not any(isinstance(item, (list, dict)) for item in value):
        return tuple(_readable(item, dtype.fields[name][0]) for item, name in zip(value, dtype.names))
    if isinstance(value, list) and (dtype.names or dtype.kind in "mM"):
        return [_readable(item, dtype) for item in value]
    if dtype.kind == "m":
        return _duration(value)
    if dtype.kind == "M" and isinstance(value, str):
        # As the examples write it, and UTC as numpy has it: without saying so.
        return np.datetime64(value.replace(",", ".").rstrip("Z")).astype(dtype)
    if dtype.kind == "M" and value is not None:
        raise ValueError("{!r} is no time; send one such as 2020-01-02T03:04:05".format(value))
    return value


def _duration(value: Any) -> Any:
    number, _, unit = value.partition(" ") if isinstance(value, str) else ("", "", "")
    if unit.lower() not in UNITS:
        raise ValueError("{!r} is no duration; send one such as '5 seconds'".format(value))
    code: Any = UNITS[unit.lower()]
    return np.timedelta64(int(number), code)
