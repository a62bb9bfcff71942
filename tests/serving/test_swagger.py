"""The description of a service: the shape v1's clients know, and valid Swagger 2.0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV2SpecValidator

from stageway.contract import Contract, infer
from stageway.serving import swagger
from stageway.serving.scorer import Alone, Call, Work
from stageway.serving.settings import Settings

# The published example of v1, whose every word clients may rely on.
EXAMPLE = json.loads(Path(__file__).with_name("v1-swagger.json").read_text())


class Declared(Alone):
    """A scorer that declares something, and is never asked to score."""

    def __init__(self, contract: Contract, declared: dict[str, Any] | None = None) -> None:
        self.contract, self.declared = contract, declared

    def start(self) -> None:
        """Nothing to get ready."""

    def read(self, call: Call) -> Work:
        raise NotImplementedError

    def run(self, data: Any) -> Any:
        raise NotImplementedError


def document(contract: Contract, declared: dict[str, Any] | None = None) -> Any:
    made = swagger.document(Settings(service_name="myservice"), Declared(contract, declared))
    OpenAPIV2SpecValidator(made).validate()
    return made


def test_it_is_word_for_word_what_v1_published() -> None:
    schemas = EXAMPLE["definitions"]
    declared = {"input": schemas["ServiceInput"], "output": schemas["ServiceOutput"]}
    assert document(Contract(), declared) == EXAMPLE


def test_an_undeclared_service_takes_an_object_and_gives_anything() -> None:
    definitions = document(Contract())["definitions"]
    assert (definitions["ServiceInput"], definitions["ServiceOutput"]) == ({"type": "object"}, {})


@pytest.mark.parametrize(
    "value",
    [
        {"data": [[1.5, 2.5]], "method": "predict", "none": None, "empty": []},
        [[1, 2], [3, 4]],
        [1, "mixed", None],
        "text",
        3,
        True,
        None,
    ],
)
def test_every_contract_can_be_written_in_swagger(value: Any) -> None:
    document(Contract(infer(value), infer(value), "samples"))


def test_what_decorators_declare_is_made_valid() -> None:
    """They say of an empty object that nothing is required, in a list that Swagger forbids."""
    empty = {"type": "object", "required": [], "properties": {}}
    nested = {"type": "object", "required": ["required"], "properties": {"required": empty}}
    made = document(Contract(), {"input": nested, "output": {"type": "array", "items": nested}})["definitions"]
    fixed = {**nested, "properties": {"required": {"type": "object", "properties": {}}}}
    assert (made["ServiceInput"], made["ServiceOutput"]) == (fixed, {"type": "array", "items": fixed})


def test_a_contract_keeps_its_lengths_and_names() -> None:
    request = infer({"data": [[1.5, 2.5]]})
    row = {"type": "array", "items": {"type": "number", "format": "double"}, "minItems": 2, "maxItems": 2}
    made = document(Contract(request, {"type": ["string", "null"]}, "samples"))["definitions"]
    assert made["ServiceInput"] == {
        "type": "object",
        "properties": {"data": {"type": "array", "items": row}},
        "required": ["data"],
    }
    assert made["ServiceOutput"] == {"type": "string", "x-nullable": True}


def test_the_served_page_is_valid(start: Any) -> None:
    service = start("def run(data):\n    return 1\n", environment={"SERVICE_NAME": "diabetes"}).ready()
    page = service.ask("GET", "/swagger.json").json
    OpenAPIV2SpecValidator(page).validate()
    assert page["info"]["title"] == "diabetes"
