"""Stands in for ``pandas_parameter_type``: samples that are tables."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from . import json_schema
from .abstract_parameter_type import AbstractParameterType

ORIENTS = ("split", "records", "index", "columns", "values", "table")
TIMES = {"M": "date-time", "m": "timedelta"}


class PandasParameterType(AbstractParameterType):
    """A parameter like the table *sample_input*, sent in the form *orient*, as pandas names them.

    *enforce_column_type* turns columns into the sample's types, *enforce_shape* refuses more or fewer columns,
    *apply_column_names* gives the sample's names to columns that come without.
    """

    def __init__(
        self,
        sample_input: Any,
        enforce_column_type: bool = True,
        enforce_shape: bool = True,
        apply_column_names: bool = False,
        orient: str = "records",
    ) -> None:
        if not isinstance(sample_input, pd.DataFrame):
            raise Exception("the sample is a {}; give a pandas DataFrame".format(type(sample_input).__name__))
        if orient not in ORIENTS:
            raise Exception("no orient is called {!r}; there are {}".format(orient, ", ".join(ORIENTS)))
        super().__init__(sample_input)
        self.enforce_column_type, self.enforce_shape = enforce_column_type, enforce_shape
        self.apply_column_names, self.orient = apply_column_names, orient

    def deserialize_input(self, input_data: Any) -> Any:
        """Return JSON of the form *orient* as a table; ``ValueError`` and the like where it does not fit."""
        if isinstance(input_data, pd.DataFrame):
            return input_data
        if not isinstance(input_data, (list, dict)):
            raise ValueError("a table was expected, not {!r}".format(type(input_data).__name__))
        table = self._table(input_data)
        sample = self.sample_input
        if self.apply_column_names:
            table.columns = list(sample.columns)
        if self.enforce_shape and len(table.columns) != len(sample.columns):
            raise ValueError("{} columns came, {} were expected".format(len(table.columns), len(sample.columns)))
        if self.enforce_column_type:
            for name in [name for name in table.columns if name in sample.columns]:
                table[name] = _as(name, table[name], sample[name].dtype)
        return table

    def _table(self, given: Any) -> Any:
        """Return *given* as a table whose values are still JSON's, where they are to become something else."""
        dtype = object if self.enforce_column_type else None
        if self.orient == "split":
            if not isinstance(given, dict) or not {"columns", "data"} <= set(given):
                raise ValueError("an object with columns and data was expected")
            table = pd.DataFrame(given["data"], columns=given["columns"], index=given.get("index"), dtype=dtype)
        elif self.orient == "index":
            if not isinstance(given, dict):
                raise ValueError("an object of rows was expected")
            table = pd.DataFrame.from_dict(given, orient="index", dtype=dtype)
        elif self.orient == "table":
            if not isinstance(given, dict) or "data" not in given:
                raise ValueError("an object with schema and data was expected")
            keys = given.get("schema", {}).get("primaryKey", [])
            table = pd.DataFrame(given["data"], dtype=dtype).drop(columns=keys)
        else:
            table = pd.DataFrame(given, dtype=dtype)
        if not isinstance(table.index, pd.RangeIndex):
            table.index = _numbers(table.index)
        # JSON knows columns by text only; those of a table without names are numbers.
        if all(isinstance(name, int) for name in self.sample_input.columns):
            table.columns = _numbers(table.columns)
        return table

    def input_to_swagger(self) -> "dict[str, Any]":
        example = json.loads(self.sample_input.to_json(orient=self.orient, date_format="iso"))
        schema = json_schema.of(example)
        for place in _columns(schema, self.orient):
            for name, dtype in self.sample_input.dtypes.items():
                if dtype.kind in TIMES and str(name) in place:
                    place[str(name)] = _timed(place[str(name)], TIMES[dtype.kind])
        return {**schema, "example": example, "format": "pandas.DataFrame:{}".format(self.orient)}

    def _supports_swagger_2(self) -> bool:
        if self.orient not in ("split", "values"):
            return True
        return len({str(dtype) for dtype in self.sample_input.dtypes}) <= 1


def _columns(schema: "dict[str, Any]", orient: str) -> "list[dict[str, Any]]":
    """Return the parts of *schema* that name the table's columns."""
    if orient == "records":
        return [schema["items"].get("properties", {})]
    if orient == "columns":
        return [schema["properties"]]
    if orient == "index":
        return [row.get("properties", {}) for row in schema["properties"].values()]
    return [schema["properties"]["data"]["items"].get("properties", {})] if orient == "table" else []


def _timed(schema: "dict[str, Any]", form: str) -> "dict[str, Any]":
    if "properties" not in schema:
        return {"type": "string", "format": form}
    return {**schema, "properties": {name: _timed(one, form) for name, one in schema["properties"].items()}}


def _as(name: Any, column: Any, dtype: Any) -> Any:
    try:
        if dtype.kind == "m":
            column = pd.to_timedelta(column)
        elif dtype.kind == "b":
            # What is missing is NaN, as it was for v1, which is true.
            column = column.where(column.notna(), float("nan"))
        return column.astype(dtype)
    except (ValueError, TypeError) as error:
        raise ValueError("column {!r}: {}".format(name, error)) from None


def _numbers(labels: Any) -> Any:
    """Return labels that are all digits as numbers, as they were before they went through JSON."""
    texts = [str(label) for label in labels]
    return pd.Index([int(text) for text in texts]) if all(text.isdigit() for text in texts) else labels
