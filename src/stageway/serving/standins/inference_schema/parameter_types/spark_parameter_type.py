"""Stands in for ``spark_parameter_type``: samples that are tables of Spark, which is asked for when one is declared."""

from __future__ import annotations

import json
from typing import Any

from . import json_schema
from .abstract_parameter_type import AbstractParameterType


class SparkParameterType(AbstractParameterType):
    """A parameter like the Spark table *sample_input*, sent as a list of records.

    *apply_sample_schema* gives what comes the sample's types; otherwise Spark finds them.
    """

    def __init__(self, sample_input: Any, apply_sample_schema: bool = True) -> None:
        try:
            from pyspark.sql import DataFrame  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            raise ImportError("SparkParameterType needs pyspark; add it to the dependencies", name="pyspark") from error
        if not isinstance(sample_input, DataFrame):
            raise Exception("the sample is a {}; give a Spark DataFrame".format(type(sample_input).__name__))
        super().__init__(sample_input)
        self.apply_sample_schema = apply_sample_schema

    def deserialize_input(self, input_data: Any) -> Any:
        """Return a list of records as a Spark table; ``ValueError`` for anything else."""
        if isinstance(input_data, self.sample_data_type):
            return input_data
        if not isinstance(input_data, list):
            raise ValueError("a list of records was expected, not {!r}".format(type(input_data).__name__))
        schema = self.sample_input.schema if self.apply_sample_schema else None
        lines = self.sample_input.sparkSession.sparkContext.parallelize([json.dumps(record) for record in input_data])
        return self.sample_input.sparkSession.read.json(lines, schema=schema)

    def input_to_swagger(self) -> "dict[str, Any]":
        example = [json.loads(row) for row in self.sample_input.toJSON().collect()]
        return {**json_schema.of(example), "example": example, "format": "pyspark.sql.DataFrame"}
