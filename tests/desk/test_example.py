"""A request made up from a contract is one that the contract takes."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from stageway.contract import infer
from stageway.desk.example import of


@pytest.mark.parametrize(
    "schema",
    [
        {
            "type": "object",
            "properties": {"data": {"type": "array", "items": {"type": "number"}}},
            "required": ["data"],
        },
        {"type": "array", "minItems": 3, "items": {"type": "array", "minItems": 2, "items": {"type": "integer"}}},
        {"type": "array", "prefixItems": [{"type": "string"}, {"type": "boolean"}], "minItems": 2},
        {"type": ["null", "string"]},
        {"enum": ["predict", "predict_proba"]},
        infer({"data": [{"name": "x", "age": 3, "known": True}]}),
    ],
    ids=str,
)
def test_it_fits(schema: dict[str, Any]) -> None:
    jsonschema.validate(of(schema), schema)


def test_what_may_be_left_out_is() -> None:
    properties = {"data": {"type": "string"}, "method": {"type": "string"}}
    assert of({"type": "object", "properties": properties, "required": ["data"]}) == {"data": ""}
