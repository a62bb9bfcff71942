"""Stands in for ``abstract_parameter_type``: what every kind of sample can do, also those that scripts define."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

VERSIONS = ("2.0", "3.0", "3.1")
"""Of Swagger and OpenAPI; the first cannot say that the items of one array differ in type."""


class AbstractParameterType(ABC):
    """A parameter, declared by a sample of it."""

    def __init__(self, sample_input: Any) -> None:
        if sample_input is None:
            raise ValueError("the sample is None; give one of what the parameter takes")
        self.sample_input = sample_input
        self.sample_data_type = type(sample_input)

    @abstractmethod
    def deserialize_input(self, input_data: Any) -> Any:
        """Return *input_data*, which was JSON, as the sample's type; an error when it does not fit."""

    @abstractmethod
    def input_to_swagger(self) -> "dict[str, Any]":
        """Return the Swagger schema, with the sample as its ``example``."""

    def supported_versions(self) -> "list[str]":
        return list(VERSIONS if self._supports_swagger_2() else VERSIONS[1:])

    def _supports_swagger_2(self) -> bool:
        return True
